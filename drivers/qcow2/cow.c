/* SPDX-License-Identifier: MIT */
#include "drivers/qcow2/cow.h"

#include <errno.h>
#include <string.h>

#include "drivers/qcow2/compressed.h"
#include "drivers/qcow2/crypto.h"
#include "drivers/qcow2/map.h"

#define ZERO_BYTES 65536u
#define SECTOR 512u
#define STACK_VECS 24u

static void *zeroes(void)
{
    static const uint8_t buf[ZERO_BYTES] __attribute__((aligned(4096)));
    return (void *)buf;
}

/* The part of a run before or behind the data, inside one cluster. */
typedef struct Edge {
    uint64_t offset, bytes; /* guest */
    Qcow2RawEntry raw;
    Qcow2L2Entry entry; /* of its cluster */
    uint32_t wanted;    /* subclusters that must read as before; what others hold does not matter */
    bool zero;          /* all that is wanted reads as zeroes */
    bool skip;          /* need not be written at all */
    uint8_t *buf;       /* what it reads as, if not zero */
} Edge;

/* A part of an edge: subclusters of one kind, all wanted or none. */
typedef struct Piece {
    uint64_t offset, bytes; /* guest */
    Qcow2ClusterKind kind;
    bool wanted;
} Piece;

static uint64_t disk_end(BlockDriverState *bs)
{
    return (uint64_t)atomic_load_explicit(&bs->length, memory_order_relaxed);
}

/* Backing data past the end of this disk must never show, even if the disk grows later. */
static uint64_t backing_part(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    uint64_t length = disk_end(bs);
    return offset >= length ? 0 : qcow2_backing_bytes(bs, offset, MIN(bytes, length - offset));
}

bool qcow2_reads_zero(BlockDriverState *bs, const Qcow2L2Entry *entry, uint64_t guest_offset, uint64_t bytes)
{
    const Qcow2Geometry *g = &qcow2_state(bs)->geometry;
    uint64_t in_cluster = guest_offset & (g->cluster_size - 1);
    unsigned first = (unsigned)(in_cluster >> g->subcluster_bits);
    unsigned end = (unsigned)((in_cluster + bytes + g->subcluster_size - 1) >> g->subcluster_bits);
    bool zero = true;

    for (unsigned i = first; i < end && zero; i += qcow2_subcluster_run(entry, i, end)) {
        Qcow2ClusterKind kind = qcow2_subcluster_kind(entry, i);
        uint64_t from = MAX(guest_offset, guest_offset - in_cluster + ((uint64_t)i << g->subcluster_bits));
        zero = kind == QCOW2_CLUSTER_ZERO ||
               (kind == QCOW2_CLUSTER_UNALLOCATED && backing_part(bs, from, guest_offset + bytes - from) == 0);
    }
    return zero;
}

static Piece piece_at(const Qcow2Geometry *g, const Edge *edge, uint64_t offset)
{
    uint64_t in_cluster = offset & (g->cluster_size - 1), end = in_cluster + (edge->offset + edge->bytes - offset);
    unsigned first = (unsigned)(in_cluster >> g->subcluster_bits);
    unsigned last = (unsigned)((end + g->subcluster_size - 1) >> g->subcluster_bits);
    unsigned alike = MIN(qcow2_subcluster_run(&edge->entry, first, last), qcow2_bit_run(edge->wanted, first, last));
    return (Piece){
        .offset = offset,
        .bytes = MIN((uint64_t)(first + alike) << g->subcluster_bits, end) - in_cluster,
        .kind = qcow2_subcluster_kind(&edge->entry, first),
        .wanted = edge->wanted >> first & 1,
    };
}

static bool edge_is_zero(BlockDriverState *bs, const Edge *edge)
{
    uint64_t at = edge->offset;
    bool zero = true;
    while (at < edge->offset + edge->bytes && zero) {
        Piece piece = piece_at(&qcow2_state(bs)->geometry, edge, at);
        zero = !piece.wanted || qcow2_reads_zero(bs, &edge->entry, at, piece.bytes);
        at += piece.bytes;
    }
    return zero;
}

/*
 * What must be written besides the data in the cluster at @cluster, of which the data covers [data_begin, data_end):
 * the rest of a subcluster that it covers in part, and what was allocated if the cluster moves. Inside of its own
 * space nothing that is allocated is written again: others may be writing there.
 */
static uint32_t wanted_subclusters(const Qcow2Geometry *g, const Qcow2L2Entry *entry, bool moves, uint64_t data_begin,
                                   uint64_t data_end)
{
    uint32_t touched = qcow2_touched(g, 0, data_begin, data_end), whole = 0;
    unsigned first = (unsigned)((data_begin + g->subcluster_size - 1) >> g->subcluster_bits);
    unsigned end = (unsigned)(data_end >> g->subcluster_bits);
    if (first < end) {
        whole = qcow2_subcluster_mask(first, end);
    }
    uint32_t partial = touched & ~whole;
    uint32_t all = qcow2_subcluster_mask(0, g->subclusters);
    return moves ? partial | (entry->allocated & all & ~whole) : partial & ~entry->allocated;
}

/* @is_head: the edge before the data, else the one behind it. */
static int coroutine_fn make_edge(BlockDriverState *bs, const Qcow2RunWrite *write, bool is_head, Edge *edge)
{
    const Qcow2Geometry *g = &qcow2_state(bs)->geometry;
    const Qcow2AllocRun *run = write->run;
    unsigned index = is_head ? 0 : run->count - 1;
    uint64_t cluster = run->first_offset + ((uint64_t)index << g->cluster_bits);
    uint64_t data_begin = MAX(write->offset, cluster) - cluster;
    uint64_t data_end = MIN(write->offset + write->bytes - cluster, g->cluster_size);

    *edge = (Edge){ .raw = run->entries[index] };
    int ret = qcow2_decode_entry(bs, cluster, edge->raw, &edge->entry);
    if (ret < 0) {
        return ret;
    }
    uint32_t wanted = wanted_subclusters(g, &edge->entry, !run->reuse, data_begin, data_end);
    uint64_t begin = data_end, end = data_end;
    if (is_head) {
        wanted &= qcow2_subcluster_mask(0, (unsigned)((data_begin + g->subcluster_size - 1) >> g->subcluster_bits));
        begin = wanted ? (uint64_t)__builtin_ctz(wanted) << g->subcluster_bits : data_begin;
        end = data_begin;
    } else {
        wanted &= qcow2_subcluster_mask((unsigned)(data_end >> g->subcluster_bits), g->subclusters);
        end = wanted ? (uint64_t)(32 - __builtin_clz(wanted)) << g->subcluster_bits : data_end;
    }
    if (g->data_file && !qcow2_state(bs)->crypto) {
        /*
         * It is as long as the disk: nothing is written past that for a cluster that the disk ends in. But what is
         * not written reads as noise if it is encrypted, once the disk has grown.
         */
        end = MIN(end, MAX(data_end, disk_end(bs) - MIN(disk_end(bs), cluster)));
    }
    edge->wanted = wanted;
    edge->offset = cluster + begin;
    edge->bytes = end - begin;
    edge->zero = edge->bytes && edge_is_zero(bs, edge);
    edge->skip = edge->bytes == 0 || (edge->zero && write->reads_zero);
    return 0;
}

static int coroutine_fn read_piece(BlockDriverState *bs, const Edge *edge, const Piece *piece)
{
    uint64_t in_cluster = piece->offset & (qcow2_state(bs)->geometry.cluster_size - 1);
    uint8_t *buf = edge->buf + (piece->offset - edge->offset);
    struct iovec vec;
    BdrvIov iov = BDRV_IOV_BUF(vec, buf, piece->bytes);

    if (!piece->wanted || piece->kind == QCOW2_CLUSTER_ZERO) {
        memset(buf, 0, piece->bytes);
        return 0;
    }
    if (piece->kind == QCOW2_CLUSTER_COMPRESSED) {
        return qcow2_read_compressed(bs, edge->raw.entry, in_cluster, piece->bytes, &iov, 0);
    }
    if (piece->kind == QCOW2_CLUSTER_NORMAL) {
        return qcow2_read_data(bs, piece->offset, edge->entry.host_offset + in_cluster, piece->bytes, &iov, 0);
    }
    uint64_t inside = backing_part(bs, piece->offset, piece->bytes);
    memset(buf + inside, 0, piece->bytes - inside);
    return inside ? bdrv_co_preadv(bs->backing, (int64_t)piece->offset, (int64_t)inside, &iov, 0, 0) : 0;
}

static int coroutine_fn read_edge(BlockDriverState *bs, const Edge *edge)
{
    int ret = 0;

    bdrv_debug_event(bs, BDRV_EVENT_COW_READ);
    for (uint64_t done = 0; done < edge->bytes && ret >= 0;) {
        Piece piece = piece_at(&qcow2_state(bs)->geometry, edge, edge->offset + done);
        ret = read_piece(bs, edge, &piece);
        done += piece.bytes;
    }
    return ret;
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
    uint64_t first = write->offset - (head->skip ? 0 : head->bytes);
    bdrv_debug_event(bs, head->buf || tail->buf ? BDRV_EVENT_COW_WRITE : BDRV_EVENT_WRITE_AIO);
    int ret = qcow2_write_data(bs, first, write->host_offset + (first - write->run->first_offset), iov.bytes, &iov, 0);
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
    *buf = bdrv_try_blockalign(qcow2_data_child(bs)->bs, head_bytes + tail_bytes);
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
    Edge head = { 0 }, tail = { 0 };
    uint8_t *buf = NULL;

    int ret = make_edge(bs, write, true, &head);
    if (ret >= 0) {
        ret = make_edge(bs, write, false, &tail);
    }
    if (ret < 0) {
        goto out;
    }
    if (tail.bytes && tail.skip && data_end % SECTOR) {
        /* Let the file end with a whole sector: a read across its end could mix old and new in one. */
        tail.bytes = MIN(tail.bytes, SECTOR - data_end % SECTOR);
        tail.skip = false;
    }
    ret = read_edges(bs, &head, &tail, &buf);
    if (ret >= 0) {
        ret = qcow2_check_data_write(bs, write->host_offset, run_end - run->first_offset);
    }
    if (ret < 0) {
        goto out;
    }
    if (head.skip && tail.skip) {
        uint64_t in_run = write->offset - run->first_offset;
        bdrv_debug_event(bs, BDRV_EVENT_WRITE_AIO);
        ret = qcow2_write_data(bs, write->offset, write->host_offset + in_run, write->bytes, write->iov,
                               write->iov_offset);
    } else {
        ret = gather_write(bs, write, &head, &tail);
    }
out:
    bdrv_vfree(buf);
    return ret < 0 ? ret : 0;
}
