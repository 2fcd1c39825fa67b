/* SPDX-License-Identifier: MIT */
/*
 * Resizing the virtual disk. The node is drained.
 *
 * Growing: the new part reads as zeroes whatever lies below, so everything that could show through is covered
 * before the header tells the new size: a crash in between leaves the old size and, at worst, entries past it
 * that nobody reads.
 *
 * Shrinking: the header tells the new size first, then what lies past it is freed. A crash in between leaves
 * entries past the end, again; the next growth zeroes them.
 */

#include <errno.h>
#include <inttypes.h>

#include "block/io/operation.h"
#include "drivers/qcow2/bitmap.h"
#include "drivers/qcow2/callbacks.h"
#include "drivers/qcow2/data_file.h"
#include "drivers/qcow2/map.h"
#include "drivers/qcow2/meta/meta.h"
#include "drivers/qcow2/remap.h"
#include "drivers/qcow2/resize.h"

#define SECTOR_BYTES 512

/* L2 entries published at a time while preallocating. */
#define ENTRIES_A_ROUND 256

static bool check_request(const Qcow2State *s, int64_t length, bool exact, BdrvPrealloc prealloc, GError **errp)
{
    if (!s->meta) {
        g_set_error(errp, BDRV_ERROR, EIO,
                    "the image's tables could not be loaded again after a repair; close it and open it again");
        return false;
    }
    if (length < (int64_t)s->header.size && prealloc != BDRV_PREALLOC_OFF) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "preallocation is for growing only: the image has %" PRIu64 " bytes, the new size is %" PRId64,
                    s->header.size, length);
        return false;
    }
    if (exact && length % SECTOR_BYTES) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "the new size %" PRId64 " is not a multiple of %d", length,
                    SECTOR_BYTES);
        return false;
    }
    if (length > INT64_MAX - SECTOR_BYTES) {
        g_set_error(errp, BDRV_ERROR, EFBIG, "the new size %" PRId64 " is too large", length);
        return false;
    }
    if (s->crypto && s->geometry.version < 3 && prealloc != BDRV_PREALLOC_OFF) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP,
                    "an encrypted version 2 image cannot be preallocated: it cannot say that space reads as zeroes");
        return false;
    }
    if (s->geometry.version < 3 && s->header.nb_snapshots) {
        g_set_error(
            errp, BDRV_ERROR, ENOTSUP,
            "a version 2 image with snapshots cannot be resized: its snapshots do not record their size");
        return false;
    }
    return true;
}

/* L1 entries for @length bytes; false if the table would be too large. */
static bool l1_entries(const Qcow2State *s, uint64_t length, uint64_t *entries, GError **errp)
{
    *entries = qcow2_l1_entries_of(&s->geometry, length);
    if (*entries > QCOW2_MAX_L1_BYTES / 8) {
        g_set_error(errp, BDRV_ERROR, EFBIG,
                    "a disk of %" PRIu64 " bytes needs %" PRIu64
                    " L1 table entries; at most %u are supported: use a "
                    "larger cluster size",
                    length, *entries, QCOW2_MAX_L1_BYTES / 8);
        return false;
    }
    return true;
}

static bool is_mapped(Qcow2RawEntry raw)
{
    return raw.entry || raw.bitmap;
}

static bool has_space(Qcow2RawEntry raw)
{
    return raw.entry & ~QCOW2_L2_ZERO;
}

/* The entry of a cluster that reads as zeroes and has space, also of zeroes, already. */
static Qcow2RawEntry preallocated(BlockDriverState *bs, uint64_t host_offset)
{
    const Qcow2Geometry *g = &qcow2_state(bs)->geometry;
    const Qcow2State *s = qcow2_state(bs);
    bool as_data = !s->crypto && (!g->extended_l2 || qcow2_data_is_raw(s)); /* what is encrypted reads as noise */
    return as_data ? qcow2_raw_data(host_offset, true, g) : qcow2_raw_zero(host_offset, true, g);
}

/* Zeroes into guest bytes that may lie past the old size, inside one cluster. */
static int coroutine_fn write_zero_bytes(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    uint8_t *zeroes = g_try_malloc0(bytes);
    if (!zeroes) {
        return -ENOMEM;
    }
    struct iovec vec;
    BdrvIov iov = BDRV_IOV_BUF(vec, zeroes, bytes);
    int ret = qcow2_write(bs, (int64_t)offset, (int64_t)bytes, &iov, 0);
    g_free(zeroes);
    return ret;
}

/* The same, but for whole subclusters without data. */
static int coroutine_fn hide_bytes(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    uint64_t mask = qcow2_state(bs)->geometry.subcluster_size - 1, head = MIN(-offset & mask, bytes);
    int ret = head ? write_zero_bytes(bs, offset, head) : 0;
    if (ret >= 0 && bytes > head) {
        ret = qcow2_zero(bs, (int64_t)(offset + head), (int64_t)(bytes - head), 0);
        ret = ret == -ENOTSUP ? write_zero_bytes(bs, offset + head, bytes - head) : ret;
    }
    return ret;
}

/*
 * The rest of the last old cluster: an allocated cluster may hold anything past the old end. Returns 0
 * or -errno.
 */
static int coroutine_fn zero_last_cluster(BlockDriverState *bs, uint64_t old_size, uint64_t new_size,
                                          uint64_t backing_length)
{
    const Qcow2State *s = qcow2_state(bs);
    uint64_t in_cluster = old_size & (s->geometry.cluster_size - 1), done = 0;
    uint64_t bytes = in_cluster ? MIN(s->geometry.cluster_size - in_cluster, new_size - old_size) : 0;
    int ret = 0;
    while (done < bytes && ret >= 0) { /* once without subclusters */
        Qcow2Extent extent;
        uint64_t at = old_size + done;
        unsigned epoch = qcow2_epoch_enter(s->meta);
        ret = qcow2_map(bs, at, bytes - done, QCOW2_MAP_PLAIN, &extent);
        qcow2_epoch_leave(s->meta, epoch);
        bool shows = extent.kind == QCOW2_CLUSTER_UNALLOCATED ? backing_length > at : extent.kind != QCOW2_CLUSTER_ZERO;
        if (ret >= 0 && shows) {
            ret = hide_bytes(bs, at, extent.bytes);
        }
        done += ret >= 0 ? extent.bytes : 0;
    }
    return ret < 0 ? ret : 0;
}

/* Zeroes from @at, the start of a cluster, to @end, that of another or of the disk. */
static int coroutine_fn zero_clusters(BlockDriverState *bs, uint64_t at, uint64_t end)
{
    uint64_t cluster_mask = qcow2_state(bs)->geometry.cluster_size - 1;
    while (at < end) {
        uint64_t n = MIN(end - at, UINT64_C(1) << 30);
        int ret = 0;
        if ((n & cluster_mask) && n > cluster_mask) {
            n &= ~cluster_mask; /* the tail of the disk goes by itself */
        }
        if (!(n & cluster_mask)) {
            ret = qcow2_zero(bs, (int64_t)at, (int64_t)n, 0);
        }
        if ((n & cluster_mask) || ret == -ENOTSUP) {
            n = MIN(n, cluster_mask + 1);
            ret = write_zero_bytes(bs, at, n);
        }
        if (ret < 0) {
            return ret;
        }
        at += n;
    }
    return 0;
}

/* The new part, as far as the backing file reaches into it. */
static int coroutine_fn hide_backing(BlockDriverState *bs, uint64_t old_size, uint64_t new_size,
                                     uint64_t backing_length)
{
    uint64_t cluster_mask = qcow2_state(bs)->geometry.cluster_size - 1;
    uint64_t begin = (old_size + cluster_mask) & ~cluster_mask;
    uint64_t end = (MIN(new_size, backing_length) + cluster_mask) & ~cluster_mask;
    return zero_clusters(bs, begin, MIN(end, new_size));
}

/*
 * Clusters mapped past the old end: VM state that an older program left there, or a growth that did not come
 * to its end. @mapped_end: what the L1 table covered before.
 */
static int coroutine_fn hide_leftovers(BlockDriverState *bs, uint64_t old_size, uint64_t new_size,
                                       uint64_t mapped_end)
{
    const Qcow2Geometry *g = &qcow2_state(bs)->geometry;
    uint64_t cluster_mask = g->cluster_size - 1;
    uint64_t at = (old_size + cluster_mask) & ~cluster_mask;
    uint64_t end = MIN(new_size, mapped_end);
    while ((at = qcow2_l2_missing_end(bs, at, end)) < end) {
        Qcow2RawEntry entries[ENTRIES_A_ROUND];
        uint64_t wanted = MIN((end - at + cluster_mask) >> g->cluster_bits, ENTRIES_A_ROUND);
        int there = qcow2_l2_read(bs, at, entries, (unsigned)wanted);
        for (int i = 0; i < there; i++, at += g->cluster_size) {
            int ret = is_mapped(entries[i]) ? zero_clusters(bs, at, MIN(at + g->cluster_size, new_size)) : 0;
            if (ret < 0) {
                return ret;
            }
        }
        if (there < 0) {
            return there;
        }
    }
    return 0;
}

/* [host_offset, +bytes) of the file with the data: there, reading as zeroes, with space as @prealloc says. */
static bool coroutine_fn reserve_host(BlockDriverState *bs, uint64_t host_offset, uint64_t bytes,
                                      BdrvPrealloc prealloc, GError **errp)
{
    BdrvChild *file = qcow2_data_child(bs);
    int64_t length = bdrv_co_getlength(file);
    if (length < 0) {
        return qcow2_could((int)length, "get the length of the file", errp);
    }
    uint64_t end = host_offset + bytes;
    uint64_t old_end = MIN(end, MAX((uint64_t)length, host_offset));
    if (old_end > host_offset) {
        BdrvRequestFlags flags = prealloc == BDRV_PREALLOC_METADATA ? BDRV_REQ_MAY_UNMAP : 0;
        int ret =
            bdrv_co_pwrite_zeroes(file, (int64_t)host_offset, (int64_t)(old_end - host_offset), flags);
        if (!qcow2_could(ret, "zero preallocated clusters", errp)) {
            return false;
        }
    }
    if (end <= (uint64_t)length) {
        return true;
    }
    BdrvPrealloc mode = prealloc == BDRV_PREALLOC_METADATA ? BDRV_PREALLOC_OFF : prealloc;
    const BdrvOperation *operation = bdrv_operation_set(NULL); /* preallocate() tells how far it is */
    bool ok = bdrv_co_truncate(file, (int64_t)end, false, mode, 0, errp);
    bdrv_operation_set(operation);
    return ok;
}

/* Entries for @count clusters in a row on the host, in one slice of their L2 table. */
static bool coroutine_fn publish_run(BlockDriverState *bs, uint64_t guest_offset, uint64_t host_offset,
                                     uint64_t count, GError **errp)
{
    Qcow2RawEntry entries[ENTRIES_A_ROUND];
    uint32_t cluster_size = qcow2_state(bs)->geometry.cluster_size;
    while (count) {
        unsigned n = (unsigned)MIN(count, ENTRIES_A_ROUND);
        for (unsigned i = 0; i < n; i++) {
            entries[i] = preallocated(bs, host_offset + (uint64_t)i * cluster_size);
        }
        if (!qcow2_could(qcow2_l2_publish(bs, guest_offset, entries, n, NULL), "write L2 tables", errp)) {
            qcow2_data_release(bs, host_offset, count);
            return false;
        }
        guest_offset += (uint64_t)n * cluster_size;
        host_offset += (uint64_t)n * cluster_size;
        count -= n;
    }
    return true;
}

/* Clusters of the new part that have none: allocate, reserve, publish. */
static bool coroutine_fn preallocate(BlockDriverState *bs, uint64_t old_size, uint64_t new_size,
                                     BdrvPrealloc prealloc, GError **errp)
{
    const Qcow2Geometry *g = &qcow2_state(bs)->geometry;
    uint64_t cluster_mask = g->cluster_size - 1;
    uint64_t at = (old_size + cluster_mask) & ~cluster_mask;
    uint64_t hint = 0;
    while (at < new_size) {
        Qcow2RawEntry entries[ENTRIES_A_ROUND];
        uint64_t wanted = (new_size - at + cluster_mask) >> g->cluster_bits;
        int there = qcow2_l2_read(bs, at, entries, (unsigned)MIN(wanted, ENTRIES_A_ROUND));
        if (!qcow2_could(there, "read L2 tables", errp)) {
            return false;
        }
        unsigned free_entries = 0;
        while (free_entries < (unsigned)there && !has_space(entries[free_entries])) {
            free_entries++;
        }
        if (free_entries == 0) {
            at += g->cluster_size; /* hidden above, or left by an earlier attempt */
            continue;
        }
        Qcow2Allocation got;
        int ret = qcow2_data_alloc(bs, at, hint, free_entries, &got);
        if (!qcow2_could(ret, "allocate clusters", errp)) {
            return false;
        }
        uint64_t bytes = got.count << g->cluster_bits;
        uint64_t needed = g->data_file ? MIN(bytes, new_size - at) : bytes; /* that is as long as the disk */
        if (!reserve_host(bs, got.host_offset, needed, prealloc, errp)) {
            qcow2_data_release(bs, got.host_offset, got.count);
            return false;
        }
        if (!publish_run(bs, at, got.host_offset, got.count, errp)) { /* one slice: so was the look-up */
            return false;
        }
        at = MIN(at + bytes, new_size);
        hint = got.host_offset + bytes;
        if (!bdrv_co_goes_on((int64_t)(at - old_size), (int64_t)(new_size - old_size), errp)) {
            return false;
        }
    }
    return true;
}

/* What a data file may hold past the old end already is hidden: it was zeroed when preallocated, or is not mapped. */
static bool coroutine_fn grow_data_file(BlockDriverState *bs, uint64_t new_size, GError **errp)
{
    return !bs->data_file || (uint64_t)bdrv_co_getlength(bs->data_file) >= new_size ||
           bdrv_co_truncate(bs->data_file, (int64_t)new_size, false, BDRV_PREALLOC_OFF, 0, errp);
}

static void edit_size(Qcow2Header *header, const void *opaque)
{
    header->size = *(const uint64_t *)opaque;
}

static bool coroutine_fn switch_size(BlockDriverState *bs, uint64_t new_size, GError **errp)
{
    bool with_bitmaps = qcow2_state(bs)->bitmaps.count;
    int ret = with_bitmaps ? 0 : qcow2_edit_header(bs, edit_size, &new_size);
    if (ret < 0) {
        return qcow2_could(ret, "write the new size to the header", errp);
    }
    if (with_bitmaps && !qcow2_bitmaps_resize(bs, new_size, errp)) {
        return false;
    }
    bdrv_set_length(bs, (int64_t)new_size);
    return true;
}

/* ---- shrinking ---- */

static int forget_cluster(BlockDriverState *bs, const Qcow2RemapCluster *cluster, Qcow2RawEntry *raw)
{
    *raw = (Qcow2RawEntry){ 0 };
    return 0;
}

/* Every entry of the clusters from @at on, a multiple of the cluster size. */
static int coroutine_fn forget_clusters(BlockDriverState *bs, uint64_t at, uint64_t end)
{
    const Qcow2Geometry *g = &qcow2_state(bs)->geometry;
    uint64_t table_mask = (UINT64_C(1) << (g->cluster_bits + g->l2_bits)) - 1;
    const Qcow2Remap forget = { .cluster = forget_cluster, .is_discard = true };
    int ret = 0;

    while (ret >= 0 && (at = qcow2_l2_missing_end(bs, at, end)) < end) {
        uint64_t next = MIN(end, (at | table_mask) + 1);
        ret = qcow2_remap(bs, (int64_t)at, (int64_t)(next - at), &forget);
        at = next;
    }
    return ret;
}

/* The end of the file that holds nothing any more. Like a hole it is a present: whoever cannot take it loses nothing. */
static void coroutine_fn cut_file(BlockDriverState *bs)
{
    int64_t length = bdrv_co_getlength(bs->file), used = qcow2_meta_used_end(bs);

    if (used > 0 && length > used) {
        bdrv_co_truncate(bs->file, used, false, BDRV_PREALLOC_OFF, 0, NULL);
    }
}

/* A data file is as long as the disk, but it may be something that cannot be cut. */
static bool coroutine_fn cut_data_file(BlockDriverState *bs, uint64_t size, GError **errp)
{
    return !bs->data_file || (uint64_t)bdrv_co_getlength(bs->data_file) <= size ||
           bdrv_co_truncate(bs->data_file, (int64_t)size, false, BDRV_PREALLOC_OFF, 0, errp);
}

int coroutine_fn qcow2_forget_from(BlockDriverState *bs, uint64_t guest_offset)
{
    const Qcow2State *s = qcow2_state(bs);
    const Qcow2Geometry *g = &s->geometry;
    uint64_t cluster_mask = g->cluster_size - 1, table_bytes = UINT64_C(1) << (g->cluster_bits + g->l2_bits);
    uint64_t mapped_end = (uint64_t)s->header.l1_size << (g->cluster_bits + g->l2_bits);
    int ret = forget_clusters(bs, (guest_offset + cluster_mask) & ~cluster_mask, mapped_end);

    if (ret >= 0) {
        ret = qcow2_meta_commit(bs);
    }
    if (ret >= 0) {
        bdrv_debug_event(bs, BDRV_EVENT_L1_SHRINK_FREE_L2_CLUSTERS);
        qcow2_meta_drop_tables(bs, (guest_offset + table_bytes - 1) / table_bytes * table_bytes);
        ret = qcow2_meta_settle(bs);
    }
    if (ret >= 0) {
        cut_file(bs);
    }
    return ret;
}

/* The header tells @size already. */
static bool coroutine_fn free_past_end(BlockDriverState *bs, uint64_t size, GError **errp)
{
    int ret = qcow2_forget_from(bs, size);
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "the disk has %" PRIu64
                    " bytes now, but what lay past that could not be freed: %s", size, g_strerror(-ret));
        return false;
    }
    return cut_data_file(bs, size, errp);
}

static uint64_t whole_sectors(int64_t length)
{
    return ((uint64_t)length + SECTOR_BYTES - 1) / SECTOR_BYTES * SECTOR_BYTES;
}

bool coroutine_fn qcow2_check_truncate(BlockDriverState *bs, int64_t length, bool exact, BdrvPrealloc prealloc,
                                       GError **errp)
{
    const Qcow2State *s = qcow2_state(bs);
    uint64_t entries;
    if (!check_request(s, length, exact, prealloc, errp)) {
        return false;
    }
    uint64_t new_size = whole_sectors(length);
    return new_size == s->header.size || (qcow2_bitmaps_check_resize(s, new_size, errp) &&
                                          (new_size < s->header.size || l1_entries(s, new_size, &entries, errp)));
}

bool coroutine_fn qcow2_truncate(BlockDriverState *bs, int64_t length, bool exact, BdrvPrealloc prealloc,
                                 BdrvRequestFlags flags, GError **errp)
{
    Qcow2State *s = qcow2_state(bs);
    uint64_t entries;
    if (!qcow2_check_truncate(bs, length, exact, prealloc, errp)) {
        return false;
    }
    uint64_t old_size = s->header.size, new_size = whole_sectors(length);
    uint64_t mapped_end = (uint64_t)s->header.l1_size << (s->geometry.cluster_bits + s->geometry.l2_bits);
    if (new_size == old_size) {
        return true;
    }
    if (new_size < old_size) {
        return switch_size(bs, new_size, errp) && free_past_end(bs, new_size, errp);
    }
    int64_t backing = bs->backing ? bdrv_co_getlength(bs->backing) : 0;
    if (!qcow2_could((int)MIN(backing, 0), "get the length of the backing file", errp) ||
        !l1_entries(s, new_size, &entries, errp)) {
        return false;
    }
    if (entries > s->header.l1_size && !qcow2_could(qcow2_meta_grow_l1(bs, entries), "grow the L1 table", errp)) {
        return false;
    }
    if (!qcow2_could(zero_last_cluster(bs, old_size, new_size, (uint64_t)backing), "zero the last cluster", errp) ||
        !qcow2_could(hide_leftovers(bs, old_size, new_size, mapped_end), "zero what lies past the old end", errp)) {
        return false;
    }
    if (qcow2_data_is_raw(s) && prealloc == BDRV_PREALLOC_OFF) {
        prealloc = BDRV_PREALLOC_METADATA; /* what is not mapped need not be zeroes there */
    }
    if ((prealloc != BDRV_PREALLOC_OFF && !preallocate(bs, old_size, new_size, prealloc, errp)) ||
        !grow_data_file(bs, new_size, errp)) {
        return false;
    }
    if (!qcow2_could(prealloc == BDRV_PREALLOC_OFF ? hide_backing(bs, old_size, new_size, (uint64_t)backing) : 0,
              "hide the backing file", errp)) {
        return false;
    }
    return qcow2_could(qcow2_meta_commit(bs), "write metadata", errp) && switch_size(bs, new_size, errp);
}
