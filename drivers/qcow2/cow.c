/* SPDX-License-Identifier: MIT */
#include "drivers/qcow2/cow.h"

#include <errno.h>
#include <string.h>

#include "drivers/qcow2/compressed.h"
#include "drivers/qcow2/map.h"

#define ZERO_BYTES 65536u
#define SECTOR 512u
#define STACK_VECS 24u

static void *zeroes(void)
{
    static const uint8_t buf[ZERO_BYTES] __attribute__((aligned(4096)));
    return (void *)buf;
}

/* The part of a run before or behind the data. */
typedef struct Edge {
    uint64_t offset, bytes; /* guest */
    uint64_t entry;         /* raw, of its cluster */
    bool zero;              /* reads as zeroes */
    bool skip;              /* need not be written at all */
    uint8_t *buf;           /* what it reads as, if not zero */
} Edge;

/* Backing data past the end of this disk must never show, even if the disk grows later. */
static uint64_t backing_part(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    uint64_t length = (uint64_t)atomic_load_explicit(&bs->length, memory_order_relaxed);
    return offset >= length ? 0 : qcow2_backing_bytes(bs, offset, MIN(bytes, length - offset));
}

bool qcow2_reads_zero(BlockDriverState *bs, uint64_t raw_entry, uint64_t guest_offset, uint64_t bytes)
{
    const Qcow2Geometry *g = &qcow2_state(bs)->geometry;
    Qcow2L2Entry entry = qcow2_l2_entry_decode(raw_entry, g->version, g->cluster_bits);
    return entry.kind == QCOW2_CLUSTER_ZERO ||
           (entry.kind == QCOW2_CLUSTER_UNALLOCATED && backing_part(bs, guest_offset, bytes) == 0);
}

static Edge make_edge(BlockDriverState *bs, const Qcow2RunWrite *write, uint64_t offset, uint64_t bytes)
{
    unsigned index = (unsigned)((offset - write->run->first_offset) >> qcow2_state(bs)->geometry.cluster_bits);
    Edge edge = { .offset = offset, .bytes = bytes, .skip = bytes == 0 };
    if (bytes) {
        edge.entry = write->run->entries[index];
        edge.zero = qcow2_reads_zero(bs, edge.entry, offset, bytes);
        edge.skip = edge.zero && write->reads_zero;
    }
    return edge;
}

static int coroutine_fn read_edge(BlockDriverState *bs, Edge *edge)
{
    const Qcow2Geometry *g = &qcow2_state(bs)->geometry;
    uint64_t in_cluster = edge->offset & (g->cluster_size - 1);
    struct iovec vec;
    BdrvIov iov = BDRV_IOV_BUF(vec, edge->buf, edge->bytes);
    Qcow2L2Entry entry;

    int ret = qcow2_decode_entry(bs, edge->offset, edge->entry, &entry);
    if (ret < 0) {
        return ret;
    }
    bdrv_debug_event(bs, BDRV_EVENT_COW_READ);
    if (entry.kind == QCOW2_CLUSTER_COMPRESSED) {
        return qcow2_read_compressed(bs, edge->entry, in_cluster, edge->bytes, &iov, 0);
    }
    if (entry.kind == QCOW2_CLUSTER_NORMAL) {
        return bdrv_co_preadv(bs->file, (int64_t)(entry.host_offset + in_cluster), (int64_t)edge->bytes, &iov, 0, 0);
    }
    uint64_t inside = backing_part(bs, edge->offset, edge->bytes);
    memset(edge->buf + inside, 0, edge->bytes - inside);
    return bdrv_co_preadv(bs->backing, (int64_t)edge->offset, (int64_t)inside, &iov, 0, 0);
}

static unsigned edge_vecs(const Edge *edge)
{
    return edge->skip ? 0 : edge->zero ? (unsigned)((edge->bytes + ZERO_BYTES - 1) / ZERO_BYTES) : 1;
}

static unsigned put_edge(const Edge *edge, struct iovec *vec)
{
    if (edge->skip) {
        return 0;
    }
    if (!edge->zero) {
        vec[0] = (struct iovec){ .iov_base = edge->buf, .iov_len = edge->bytes };
        return 1;
    }
    unsigned n = 0;
    for (uint64_t left = edge->bytes; left; left -= vec[n++].iov_len) {
        vec[n] = (struct iovec){ .iov_base = zeroes(), .iov_len = MIN(left, ZERO_BYTES) };
    }
    return n;
}

/* One write of [head] data [tail]. */
static int coroutine_fn gather_write(BlockDriverState *bs, const Qcow2RunWrite *write, const Edge *head,
                                     const Edge *tail)
{
    struct iovec on_stack[STACK_VECS], *vec = on_stack;
    unsigned data_vecs = bdrv_iov_count(write->iov, write->iov_offset, write->bytes);
    unsigned need = edge_vecs(head) + data_vecs + edge_vecs(tail);
    size_t covered;

    if (need > STACK_VECS) {
        vec = g_try_new(struct iovec, need);
        if (!vec) {
            return -ENOMEM;
        }
    }
    unsigned n = put_edge(head, vec);
    n += bdrv_iov_slice(write->iov, write->iov_offset, write->bytes, vec + n, data_vecs, &covered);
    n += put_edge(tail, vec + n);
    BdrvIov iov = bdrv_iov_init(vec, n);
    uint64_t in_run = write->offset - write->run->first_offset - (head->skip ? 0 : head->bytes);
    bdrv_debug_event(bs, head->buf || tail->buf ? BDRV_EVENT_COW_WRITE : BDRV_EVENT_WRITE_AIO);
    int ret = bdrv_co_pwritev(bs->file, (int64_t)(write->host_offset + in_run), (int64_t)iov.bytes, &iov, 0, 0);
    if (vec != on_stack) {
        g_free(vec);
    }
    return ret;
}

static int coroutine_fn read_edges(BlockDriverState *bs, Edge *head, Edge *tail, uint8_t **buf)
{
    uint64_t head_bytes = head->skip || head->zero ? 0 : head->bytes;
    uint64_t tail_bytes = tail->skip || tail->zero ? 0 : tail->bytes;
    int ret = 0;

    if (head_bytes + tail_bytes == 0) {
        return 0;
    }
    *buf = bdrv_try_blockalign(bs->file->bs, head_bytes + tail_bytes);
    if (!*buf) {
        return -ENOMEM;
    }
    if (head_bytes) {
        head->buf = *buf;
        ret = read_edge(bs, head);
    }
    if (ret >= 0 && tail_bytes) {
        tail->buf = *buf + head_bytes;
        ret = read_edge(bs, tail);
    }
    return ret;
}

int coroutine_fn qcow2_cow_write(BlockDriverState *bs, const Qcow2RunWrite *write)
{
    const Qcow2AllocRun *run = write->run;
    uint64_t run_end = run->first_offset + ((uint64_t)run->count << qcow2_state(bs)->geometry.cluster_bits);
    uint64_t data_end = write->offset + write->bytes;
    Edge head = make_edge(bs, write, run->first_offset, write->offset - run->first_offset);
    Edge tail = make_edge(bs, write, data_end, run_end - data_end);
    uint8_t *buf = NULL;

    if (tail.bytes && tail.skip && data_end % SECTOR) {
        /* Let the file end with a whole sector: a read across its end could mix old and new in one. */
        tail.bytes = MIN(tail.bytes, SECTOR - data_end % SECTOR);
        tail.skip = false;
    }
    int ret = read_edges(bs, &head, &tail, &buf);
    if (ret >= 0) {
        ret = qcow2_check_data_write(bs, write->host_offset, run_end - run->first_offset);
    }
    if (ret < 0) {
        goto out;
    }
    if (head.skip && tail.skip) {
        uint64_t in_run = write->offset - run->first_offset;
        bdrv_debug_event(bs, BDRV_EVENT_WRITE_AIO);
        ret = bdrv_co_pwritev(bs->file, (int64_t)(write->host_offset + in_run), (int64_t)write->bytes, write->iov,
                              write->iov_offset, 0);
    } else {
        ret = gather_write(bs, write, &head, &tail);
    }
out:
    bdrv_vfree(buf);
    return ret < 0 ? ret : 0;
}
