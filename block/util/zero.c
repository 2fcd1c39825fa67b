/* SPDX-License-Identifier: MIT */

/*
 * Is a buffer all zeroes? Asked of every cluster that is converted, so it runs at memory speed.
 *
 * Data that is not zero nearly always shows it in the first, middle or last word: these are looked
 * at first. The rest is OR-ed together in blocks of 256 bytes, one branch a block, in vectors of the
 * compiler's (16 bytes with SSE2 or NEON, 32 with AVX2, chosen when the program runs).
 */
#include <bdrv/iov.h>
#include <string.h>

#define BLOCK 256

/* Any alignment, any effective type: the buffer is the user's. */
typedef uint64_t UnalignedWord __attribute__((aligned(1), may_alias));
typedef uint64_t Vector __attribute__((vector_size(32)));
typedef uint64_t UnalignedVector __attribute__((vector_size(32), aligned(1), may_alias));

static inline uint64_t word_at(const char *p)
{
    return *(const UnalignedWord *)p;
}

/* @bytes >= BLOCK. The last block overlaps the one before if @bytes is no multiple. */
static inline __attribute__((always_inline)) bool blocks_are_zero(const char *buf, size_t bytes)
{
    const char *last = buf + bytes - BLOCK;

    for (const char *p = buf;; p = p + BLOCK < last ? p + BLOCK : last) {
        const UnalignedVector *v = (const UnalignedVector *)p;
        Vector a = v[0] | v[1], b = v[2] | v[3], c = v[4] | v[5], d = v[6] | v[7];

        a |= b;
        c |= d;
        a |= c;
        if (a[0] | a[1] | a[2] | a[3]) {
            return false;
        }
        if (p == last) {
            return true;
        }
    }
}

#if defined(__x86_64__)
static __attribute__((target("avx2"))) bool blocks_are_zero_avx2(const char *buf, size_t bytes)
{
    return blocks_are_zero(buf, bytes);
}
#endif

static bool blocks_are_zero_any(const char *buf, size_t bytes)
{
    return blocks_are_zero(buf, bytes);
}

static bool small_is_zero(const char *p, size_t bytes)
{
    uint64_t sum = 0;

    for (; bytes >= 8; bytes -= 8, p += 8) {
        sum |= word_at(p);
    }
    for (; bytes > 0; bytes--, p++) {
        sum |= (unsigned char)*p;
    }
    return sum == 0;
}

bool bdrv_buffer_is_zero(const void *buf, size_t bytes)
{
    const char *p = buf;

    if (bytes < BLOCK) {
        return small_is_zero(p, bytes);
    }
    if (word_at(p) | word_at(p + bytes / 2) | word_at(p + bytes - 8)) {
        return false;
    }
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) {
        return blocks_are_zero_avx2(p, bytes);
    }
#endif
    return blocks_are_zero_any(p, bytes);
}
