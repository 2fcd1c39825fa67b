/* SPDX-License-Identifier: MIT */
#include <bdrv/iov.h>
#include <string.h>

BdrvIov bdrv_iov_init(const struct iovec *vec, unsigned count)
{
    BdrvIov iov = { .vec = vec, .count = count, .bytes = 0 };

    for (unsigned i = 0; i < count; i++) {
        if (__builtin_add_overflow(iov.bytes, vec[i].iov_len, &iov.bytes)) {
            iov.bytes = SIZE_MAX;
            break;
        }
    }
    return iov;
}

/* A part of a view, walked element by element; empty elements are passed over. */
typedef struct IovWalk {
    const struct iovec *vec, *end;
    size_t skip; /* bytes of *vec before the part */
    size_t left; /* bytes of the part not yet returned */
} IovWalk;

static IovWalk walk_begin(const BdrvIov *iov, size_t offset, size_t bytes)
{
    IovWalk walk = { .vec = iov->vec, .end = iov->vec + iov->count, .skip = offset, .left = bytes };

    while (walk.vec < walk.end && walk.skip >= walk.vec->iov_len) {
        walk.skip -= walk.vec->iov_len;
        walk.vec++;
    }
    return walk;
}

static bool walk_next(IovWalk *walk, struct iovec *piece)
{
    while (walk->left > 0 && walk->vec < walk->end) {
        size_t there = walk->vec->iov_len - walk->skip;

        piece->iov_base = (char *)walk->vec->iov_base + walk->skip;
        piece->iov_len = MIN(there, walk->left);
        walk->skip = 0;
        walk->vec++;
        if (piece->iov_len > 0) {
            walk->left -= piece->iov_len;
            return true;
        }
    }
    return false;
}

unsigned bdrv_iov_slice(const BdrvIov *iov, size_t offset, size_t bytes, struct iovec *out, unsigned max_out,
                        size_t *covered)
{
    IovWalk walk = walk_begin(iov, offset, bytes);
    unsigned n = 0;
    size_t sum = 0;

    while (n < max_out && walk_next(&walk, &out[n])) {
        sum += out[n].iov_len;
        n++;
    }
    *covered = sum;
    return n;
}

unsigned bdrv_iov_count(const BdrvIov *iov, size_t offset, size_t bytes)
{
    IovWalk walk = walk_begin(iov, offset, bytes);
    struct iovec piece;
    unsigned n = 0;

    while (walk_next(&walk, &piece)) {
        n++;
    }
    return n;
}

void *bdrv_iov_contiguous(const BdrvIov *iov, size_t offset, size_t bytes)
{
    IovWalk walk = walk_begin(iov, offset, bytes);
    struct iovec piece;

    return walk_next(&walk, &piece) && piece.iov_len == bytes ? piece.iov_base : NULL;
}

void bdrv_iov_to_buf(const BdrvIov *iov, size_t offset, void *buf, size_t bytes)
{
    IovWalk walk = walk_begin(iov, offset, bytes);
    struct iovec piece;
    char *to = buf;

    while (walk_next(&walk, &piece)) {
        memcpy(to, piece.iov_base, piece.iov_len);
        to += piece.iov_len;
    }
}

void bdrv_iov_from_buf(const BdrvIov *iov, size_t offset, const void *buf, size_t bytes)
{
    IovWalk walk = walk_begin(iov, offset, bytes);
    struct iovec piece;
    const char *from = buf;

    while (walk_next(&walk, &piece)) {
        memcpy(piece.iov_base, from, piece.iov_len);
        from += piece.iov_len;
    }
}

void bdrv_iov_memset(const BdrvIov *iov, size_t offset, int byte, size_t bytes)
{
    IovWalk walk = walk_begin(iov, offset, bytes);
    struct iovec piece;

    while (walk_next(&walk, &piece)) {
        memset(piece.iov_base, byte, piece.iov_len);
    }
}

bool bdrv_iov_is_zero(const BdrvIov *iov, size_t offset, size_t bytes)
{
    IovWalk walk = walk_begin(iov, offset, bytes);
    struct iovec piece;

    while (walk_next(&walk, &piece)) {
        if (!bdrv_buffer_is_zero(piece.iov_base, piece.iov_len)) {
            return false;
        }
    }
    return true;
}

bool bdrv_iov_is_aligned(const BdrvIov *iov, size_t offset, size_t bytes, size_t align)
{
    IovWalk walk = walk_begin(iov, offset, bytes);
    struct iovec piece;

    while (walk_next(&walk, &piece)) {
        if (((uintptr_t)piece.iov_base | piece.iov_len) & (align - 1)) {
            return false;
        }
    }
    return true;
}
