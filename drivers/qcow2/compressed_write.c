/* SPDX-License-Identifier: MIT */
/*
 * Compressed writes: whole clusters (the last one of the disk may be short) that have no space yet. What
 * is allocated is refused with -EIO, as users of qemu-io know it: a compressed cluster cannot be changed
 * in place, and packing it anew would waste the old bytes.
 *
 * A request goes in batches. The clusters of a batch are compressed side by side in CPU workers, with
 * nothing reserved. Then, in guest order and with the guest range in flight, they get their places
 * behind one another, go out in as few writes as there are gaps, and are published. The order makes the
 * same requests give the same image. What does not become smaller is written like any other data.
 */

#include <errno.h>
#include <string.h>

#include "drivers/qcow2/bitmap.h"
#include "drivers/qcow2/callbacks.h"
#include "drivers/qcow2/compress.h"
#include "drivers/qcow2/fanout.h"
#include "drivers/qcow2/inflight.h"
#include "drivers/qcow2/map.h"
#include "drivers/qcow2/meta/meta.h"
#include "drivers/qcow2/plan.h"

/* Bounds the memory of a request; a batch of large clusters has a few more, for the workers. */
#define BATCH_BYTES (4u << 20)
#define BATCH_MIN 4u

typedef struct Batch {
    BlockDriverState *bs;
    uint64_t offset, bytes; /* guest; all in one L2 slice */
    unsigned count;         /* clusters */
    const BdrvIov *iov;
    size_t iov_offset;
    uint8_t *out;                   /* compressed data */
    uint32_t at[QCOW2_RUN_MAX];     /* in @out */
    uint32_t sizes[QCOW2_RUN_MAX];  /* compressed; 0: it does not become smaller */
    uint64_t hosts[QCOW2_RUN_MAX];  /* where it goes */
    Qcow2RawEntry entries[QCOW2_RUN_MAX];
} Batch;

/* ---- compress ---- */

/* A part of the fan-out: one cluster. Compressed from a copy, which the guest cannot change meanwhile. */
static int coroutine_fn compress_cluster(void *opaque, uint64_t index, uint64_t count)
{
    Batch *batch = opaque;
    uint32_t cluster_size = qcow2_state(batch->bs)->geometry.cluster_size;
    uint64_t at = index * cluster_size, bytes = MIN(cluster_size, batch->bytes - at);
    uint8_t *in = g_try_malloc(cluster_size);
    Qcow2EncodeJob job = {
        .in = in, .in_bytes = cluster_size, .out = batch->out + at, .out_max = cluster_size - 1
    };

    if (!in) {
        return -ENOMEM;
    }
    bdrv_iov_to_buf(batch->iov, batch->iov_offset + at, in, bytes);
    memset(in + bytes, 0, cluster_size - bytes);
    int ret = qcow2_encode(qcow2_state(batch->bs), &job);
    batch->sizes[index] = job.out_bytes;
    g_free(in);
    return ret;
}

/* One behind the other, as they will be in the file. */
static void pack(Batch *batch)
{
    uint32_t cluster_size = qcow2_state(batch->bs)->geometry.cluster_size, at = 0;

    for (unsigned i = 0; i < batch->count; i++) {
        memmove(batch->out + at, batch->out + (size_t)i * cluster_size, batch->sizes[i]);
        batch->at[i] = at;
        at += batch->sizes[i];
    }
}

static int coroutine_fn compress(Batch *batch)
{
    Qcow2Fanout fanout;
    int ret = 0;

    qcow2_fanout_init(&fanout, compress_cluster, batch);
    for (unsigned i = 0; i < batch->count && ret >= 0; i++) {
        ret = qcow2_fanout_start(&fanout, i, 1);
    }
    return qcow2_fanout_finish(&fanout);
}

/* ---- store; the guest range is in flight ---- */

static void coroutine_fn release_places(Batch *batch, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (batch->sizes[i]) {
            qcow2_release_packed(batch->bs, batch->hosts[i], batch->sizes[i]);
        }
    }
}

/* A place and an entry for each cluster that became smaller. Fails with nothing allocated. */
static int coroutine_fn allocate_places(Batch *batch)
{
    unsigned bits = qcow2_state(batch->bs)->geometry.cluster_bits;

    for (unsigned i = 0; i < batch->count; i++) {
        if (!batch->sizes[i]) {
            continue;
        }
        int ret = qcow2_alloc_packed(batch->bs, batch->sizes[i], &batch->hosts[i]);
        if (ret < 0) {
            release_places(batch, i);
            return ret;
        }
        uint64_t entry = qcow2_compressed_descriptor(batch->hosts[i], batch->sizes[i], bits);
        if (entry) {
            batch->entries[i] = (Qcow2RawEntry){ .entry = entry };
        } else { /* too far behind in the file for a descriptor */
            qcow2_release_packed(batch->bs, batch->hosts[i], batch->sizes[i]);
            batch->sizes[i] = 0;
        }
    }
    return 0;
}

static int coroutine_fn write_piece(BlockDriverState *bs, uint64_t host_offset, const uint8_t *data, uint64_t bytes)
{
    int ret = qcow2_check_data_write(bs, host_offset, bytes);

    if (ret >= 0) {
        bdrv_debug_event(bs, BDRV_EVENT_WRITE_COMPRESSED);
        ret = bdrv_co_pwrite(bs->file, (int64_t)host_offset, (int64_t)bytes, data, 0);
    }
    return ret;
}

/* What lies in a row is written at once. */
static int coroutine_fn write_places(Batch *batch)
{
    uint64_t host = 0, bytes = 0;
    uint32_t at = 0;
    int ret = 0;

    for (unsigned i = 0; i < batch->count && ret >= 0; i++) {
        if (!batch->sizes[i]) {
            continue;
        }
        if (bytes && (host + bytes != batch->hosts[i] || at + bytes != batch->at[i])) {
            ret = write_piece(batch->bs, host, batch->out + at, bytes);
            bytes = 0;
        }
        if (!bytes) {
            host = batch->hosts[i];
            at = batch->at[i];
        }
        bytes += batch->sizes[i];
    }
    return ret >= 0 && bytes ? write_piece(batch->bs, host, batch->out + at, bytes) : ret;
}

/* The present entries of the batch; -EIO if a cluster has space. */
static int coroutine_fn read_entries(Batch *batch)
{
    const Qcow2Geometry *g = &qcow2_state(batch->bs)->geometry;
    int n = qcow2_l2_read(batch->bs, batch->offset, batch->entries, batch->count);

    if (n < 0 || (unsigned)n < batch->count) {
        return n < 0 ? n : -EIO;
    }
    for (unsigned i = 0; i < batch->count; i++) {
        Qcow2L2Entry entry;
        int ret = qcow2_decode_entry(batch->bs, batch->offset + ((uint64_t)i << g->cluster_bits), batch->entries[i],
                                     &entry);
        if (ret < 0 || entry.host_offset) {
            return -EIO;
        }
    }
    return 0;
}

static bool any_smaller(const Batch *batch)
{
    for (unsigned i = 0; i < batch->count; i++) {
        if (batch->sizes[i]) {
            return true;
        }
    }
    return false;
}

static int coroutine_fn store_reserved(Batch *batch)
{
    int ret = read_entries(batch);

    if (ret >= 0) {
        ret = qcow2_l2_prepare(batch->bs, batch->offset);
    }
    if (ret >= 0) {
        ret = allocate_places(batch);
    }
    if (ret < 0) {
        return ret;
    }
    ret = write_places(batch);
    if (ret >= 0) {
        bdrv_debug_event(batch->bs, BDRV_EVENT_L2_UPDATE_COMPRESSED);
        ret = qcow2_l2_publish(batch->bs, batch->offset, batch->entries, batch->count, NULL);
    }
    if (ret < 0) {
        release_places(batch, batch->count);
    }
    return ret;
}

static int coroutine_fn store(Batch *batch)
{
    const Qcow2State *s = qcow2_state(batch->bs);
    uint64_t end = batch->offset + ((uint64_t)batch->count << s->geometry.cluster_bits);
    Qcow2InflightRange range;
    bool settled = false;
    int ret;

    do {
        unsigned epoch = qcow2_epoch_enter(s->meta);
        while (!qcow2_inflight_begin(batch->bs, &range, batch->offset, end)) {
        }
        ret = store_reserved(batch);
        qcow2_inflight_end(batch->bs, &range);
        qcow2_epoch_leave(s->meta, epoch);
        if (G_LIKELY(ret != -ENOSPC) || settled) {
            break;
        }
        settled = true; /* clusters may wait in limbo */
    } while (qcow2_meta_settle(batch->bs) >= 0);
    return ret;
}

/* What did not become smaller. */
static int coroutine_fn write_plain(Batch *batch)
{
    uint32_t cluster_size = qcow2_state(batch->bs)->geometry.cluster_size;
    int ret = 0;

    for (unsigned i = 0, n; i < batch->count && ret >= 0; i += n) {
        uint64_t at = (uint64_t)i * cluster_size;
        for (n = 1; i + n < batch->count && !batch->sizes[i] == !batch->sizes[i + n]; n++) {
        }
        if (!batch->sizes[i]) {
            uint64_t bytes = MIN((uint64_t)n * cluster_size, batch->bytes - at);
            ret = qcow2_write(batch->bs, (int64_t)(batch->offset + at), (int64_t)bytes, batch->iov,
                                  batch->iov_offset + at);
        }
    }
    return ret;
}

/* ---- the request ---- */

/* Whether every cluster is without space, before anything is written. */
static int coroutine_fn check_unallocated(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    Qcow2Meta *meta = qcow2_state(bs)->meta;
    unsigned epoch = qcow2_epoch_enter(meta);
    int ret = 0;

    while (bytes && ret >= 0) {
        Qcow2Extent extent;
        ret = qcow2_map(bs, offset, bytes, QCOW2_MAP_PLAIN, &extent);
        if (ret >= 0 && (extent.placed || extent.kind == QCOW2_CLUSTER_COMPRESSED)) {
            ret = -EIO;
        }
        offset += ret >= 0 ? extent.bytes : 0;
        bytes -= ret >= 0 ? extent.bytes : 0;
    }
    qcow2_epoch_leave(meta, epoch);
    return ret;
}

/* Bytes of the largest batch. */
static uint64_t batch_max(const Qcow2Geometry *g)
{
    return (uint64_t)CLAMP(BATCH_BYTES >> g->cluster_bits, BATCH_MIN, QCOW2_RUN_MAX) << g->cluster_bits;
}

static uint64_t batch_bytes(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    uint64_t end = MIN(offset + batch_max(&qcow2_state(bs)->geometry), qcow2_l2_slice_end(bs, offset));

    return MIN(bytes, end - offset);
}

static int coroutine_fn write_batch(Batch *batch)
{
    int ret = compress(batch);

    if (ret >= 0 && any_smaller(batch)) {
        pack(batch);
        ret = store(batch);
    }
    return ret < 0 ? ret : write_plain(batch);
}

int coroutine_fn qcow2_write_compressed(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                        size_t iov_offset)
{
    const Qcow2State *s = qcow2_state(bs);
    uint64_t mask = s->geometry.cluster_size - 1, length = (uint64_t)atomic_load(&bs->length);
    uint64_t begin = (uint64_t)offset, end = begin + (uint64_t)bytes, n;

    if (!s->meta || atomic_load_explicit(&s->corrupt, memory_order_relaxed) || end > length) {
        return -EIO;
    }
    if (s->geometry.data_file || s->crypto) {
        return -ENOTSUP; /* no compressed clusters in a data file; in an encrypted image they would be readable */
    }
    if ((begin & mask) || ((end & mask) && end != length)) {
        return -EINVAL;
    }
    int ret = check_unallocated(bs, begin, (uint64_t)bytes);
    ret = ret < 0 ? ret : qcow2_note_change(bs, offset, bytes);
    uint8_t *out = NULL;
    if (ret >= 0) {
        out = bdrv_try_blockalign(bs->file->bs, MIN(((uint64_t)bytes + mask) & ~mask, batch_max(&s->geometry)));
        ret = out ? 0 : -ENOMEM;
    }
    for (uint64_t at = begin; at < end && ret >= 0; at += n) {
        n = batch_bytes(bs, at, end - at);
        Batch batch = {
            .bs = bs, .offset = at, .bytes = n, .count = (unsigned)((n + mask) >> s->geometry.cluster_bits),
            .iov = iov, .iov_offset = iov_offset + (at - begin), .out = out,
        };
        ret = write_batch(&batch);
    }
    bdrv_vfree(out);
    return ret < 0 ? ret : 0;
}
