/* SPDX-License-Identifier: MIT */

/*
 * Padding. A request whose ends are not multiples of the node's alignment is widened to whole blocks.
 * The caller's buffer is not copied: the widened request gathers a few bytes of a padding buffer, the
 * caller's elements, and a few bytes of padding again.
 *
 *      offset (aligned)                                   offset + bytes (aligned)
 *      |-- head --|------------ caller ------------|-- tail --|
 *      |      first block      |    ...    |     last block     |     (maybe the same block)
 */

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block/io/request.h"

void *bdrv_aligned_buffer(size_t alignment, size_t bytes)
{
    size_t align = MAX((size_t)sysconf(_SC_PAGESIZE), alignment);
    void *buf = NULL;

    return posix_memalign(&buf, align, MAX(bytes, align)) == 0 ? buf : NULL;
}

void *bdrv_try_blockalign(BlockDriverState *bs, size_t bytes)
{
    return bdrv_aligned_buffer(bs ? bs->limits.mem_alignment : 0, bytes);
}

void bdrv_vfree(void *buf)
{
    free(buf);
}

int bdrv_pad(BlockDriverState *bs, BdrvPadded *padded, int64_t offset, int64_t bytes, const BdrvIov *iov,
             size_t iov_offset)
{
    int64_t align = bdrv_alignment(bs);
    unsigned inner = bdrv_iov_count(iov, iov_offset, bytes), n = 0;
    size_t covered;

    padded->offset = bdrv_round_down(offset, align);
    padded->bytes = bdrv_round_up(offset + bytes, align) - padded->offset;
    padded->head = offset - padded->offset;
    padded->tail = padded->bytes - padded->head - bytes;
    padded->vec = padded->small_vec;

    padded->buf = bdrv_try_blockalign(bs, padded->bytes > align ? 2 * align : align);
    if (!padded->buf) {
        return -ENOMEM;
    }
    padded->tail_block = padded->bytes > align ? padded->buf + align : padded->buf;
    if (inner + 2 > G_N_ELEMENTS(padded->small_vec)) {
        padded->vec = g_try_new(struct iovec, inner + 2);
        if (!padded->vec) {
            bdrv_vfree(padded->buf);
            return -ENOMEM;
        }
    }

    if (padded->head) {
        padded->vec[n++] = (struct iovec){ .iov_base = padded->buf, .iov_len = padded->head };
    }
    n += bdrv_iov_slice(iov, iov_offset, bytes, padded->vec + n, inner, &covered);
    if (padded->tail) {
        padded->vec[n++] =
            (struct iovec){ .iov_base = padded->tail_block + align - padded->tail, .iov_len = padded->tail };
    }
    padded->iov = (BdrvIov){ .vec = padded->vec, .count = n, .bytes = padded->bytes };
    return 0;
}

static int coroutine_fn read_block(BlockDriverState *bs, int64_t offset, uint8_t *buf, int64_t bytes)
{
    struct iovec vec;
    BdrvIov iov = BDRV_IOV_BUF(vec, buf, bytes);

    /* Whole blocks, but maybe past the end: bdrv_read_node() makes zeroes of that. */
    return bdrv_read_node(bs, offset, bytes, &iov, 0, 0);
}

static void coroutine_fn edge_events(BlockDriverState *bs, const BdrvPadded *padded, BdrvDebugEvent head,
                                     BdrvDebugEvent tail)
{
    if (padded->head) {
        bdrv_event(bs, head);
    }
    if (padded->tail) {
        bdrv_event(bs, tail);
    }
}

/* Both edges in one read: they are in one block, or in two neighbouring ones. */
static int coroutine_fn read_both_edges(BlockDriverState *bs, BdrvPadded *padded)
{
    int ret;

    edge_events(bs, padded, BDRV_EVENT_PWRITEV_RMW_HEAD, BDRV_EVENT_PWRITEV_RMW_TAIL);
    ret = read_block(bs, padded->offset, padded->buf, padded->bytes);
    if (ret >= 0) {
        edge_events(bs, padded, BDRV_EVENT_PWRITEV_RMW_AFTER_HEAD, BDRV_EVENT_PWRITEV_RMW_AFTER_TAIL);
    }
    return ret;
}

/* Fill the padding with what is stored now; the blocks in between are not read. */
int coroutine_fn bdrv_pad_read_edges(BlockDriverState *bs, BdrvPadded *padded)
{
    int64_t align = bdrv_alignment(bs);
    int ret = 0;

    if (padded->bytes == align || (padded->head && padded->tail && padded->bytes == 2 * align)) {
        return read_both_edges(bs, padded);
    }
    if (padded->head) {
        bdrv_event(bs, BDRV_EVENT_PWRITEV_RMW_HEAD);
        ret = read_block(bs, padded->offset, padded->buf, align);
        if (ret < 0) {
            return ret;
        }
        bdrv_event(bs, BDRV_EVENT_PWRITEV_RMW_AFTER_HEAD);
    }
    if (padded->tail) {
        bdrv_event(bs, BDRV_EVENT_PWRITEV_RMW_TAIL);
        ret = read_block(bs, padded->offset + padded->bytes - align, padded->tail_block, align);
        if (ret < 0) {
            return ret;
        }
        bdrv_event(bs, BDRV_EVENT_PWRITEV_RMW_AFTER_TAIL);
    }
    return 0;
}

void bdrv_unpad(BdrvPadded *padded)
{
    if (padded->vec != padded->small_vec) {
        g_free(padded->vec);
    }
    bdrv_vfree(padded->buf);
}
