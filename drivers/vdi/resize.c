/* SPDX-License-Identifier: MIT */

/*
 * Resizing. The header is one sector, so that its switch to another size, map or place of the blocks is atomic; all
 * that it switches to is durable before.
 *
 * A map that no longer fits between header and blocks gets a new place: the first blocks, as many as it takes, are
 * copied behind the last one, and the map is written where they were. The places behind it are then counted from
 * there on, which the new map says and the new header.
 */
#include <errno.h>
#include <inttypes.h>

#include "drivers/vdi/vdi.h"

static bool fail(GError **errp, int ret, const char *what)
{
    g_set_error(errp, BDRV_ERROR, -ret, "cannot %s: %s", what, g_strerror(-ret));
    return false;
}

static int64_t round_up(int64_t bytes, int64_t unit)
{
    return (bytes + unit - 1) / unit * unit;
}

bool coroutine_fn vdi_check_truncate(BlockDriverState *bs, int64_t length, bool exact, BdrvPrealloc prealloc,
                                     GError **errp)
{
    const VdiState *s = bs->opaque;

    if (prealloc != BDRV_PREALLOC_OFF) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP, "VDI images are resized with preallocation off only");
        return false;
    }
    if (exact && length % VDI_SECTOR) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "size %" PRId64 " is not a multiple of %d", length, VDI_SECTOR);
        return false;
    }
    if (length > (int64_t)VDI_MAX_BLOCKS * s->header.block_size) {
        g_set_error(errp, BDRV_ERROR, EFBIG,
                    "size %" PRId64 " is too large for VDI blocks of %" PRIu32 " bytes; at most %" PRId64, length,
                    s->header.block_size, (int64_t)VDI_MAX_BLOCKS * s->header.block_size);
        return false;
    }
    return true;
}

/* ---- growing ---- */

/* What a new map is made of, and where it goes. */
typedef struct Growth {
    VdiHeader header; /* as it will be */
    _Atomic uint32_t *map;
    uint32_t shift; /* places that the map takes from the blocks */
    uint32_t next;  /* first free place then */
} Growth;

/* What blocks have behind the end of the disk has never been the guest's. */
static int coroutine_fn zero_tail(BlockDriverState *bs)
{
    const VdiState *s = bs->opaque;
    int64_t end = (int64_t)s->header.blocks * s->header.block_size;

    for (int64_t at = (int64_t)s->header.disk_size; at < end;) {
        VdiExtent extent = vdi_lookup(s, at, end - at);
        int ret = extent.host_offset < 0
                      ? 0 : bdrv_co_pwrite_zeroes(bs->file, extent.host_offset, extent.bytes, BDRV_REQ_MAY_UNMAP);
        if (ret < 0) {
            return ret;
        }
        at += extent.bytes;
    }
    return 0;
}

static bool has_room(const VdiHeader *header, uint32_t blocks)
{
    return header->map_offset + vdi_map_bytes(blocks) <= header->data_offset;
}

/* Copy the blocks of the first @count places behind all others, and point at the copies. */
static int coroutine_fn move_first_places(BlockDriverState *bs, uint32_t count)
{
    VdiState *s = bs->opaque;
    uint32_t base;

    pthread_mutex_lock(&s->lock);
    base = s->next = MAX(s->next, count);
    g_array_set_size(s->holes, 0);
    pthread_mutex_unlock(&s->lock);
    for (uint32_t i = 0; i < s->header.blocks; i++) {
        uint32_t from = vdi_entry(s, i);
        if (from >= count) { /* or it is free */
            continue;
        }
        int64_t to = vdi_take_place(s);
        int ret = to < 0 ? (int)to : vdi_copy_place(bs, from, (uint32_t)to);
        if (ret < 0) {
            return ret;
        }
        vdi_set_entry(s, i, (uint32_t)to);
    }
    g_assert(s->next >= base);
    return vdi_commit(bs);
}

/* The place for a map of so many blocks. */
static int coroutine_fn find_room(BlockDriverState *bs, Growth *growth)
{
    VdiState *s = bs->opaque;
    VdiHeader *header = &growth->header;
    int64_t map_bytes = vdi_map_bytes(header->blocks), data_offset;

    if (has_room(header, header->blocks)) {
        return 0;
    }
    if (s->next == 0) {
        header->data_offset = header->map_offset + (uint32_t)map_bytes;
        return 0;
    }
    growth->shift = (uint32_t)(round_up(map_bytes, header->block_size) / header->block_size);
    data_offset = vdi_host_offset(header, growth->shift);
    if (data_offset > UINT32_MAX) {
        return -EFBIG;
    }
    header->map_offset = header->data_offset;
    header->data_offset = (uint32_t)data_offset;
    return move_first_places(bs, growth->shift);
}

/* Fixed images have a place for each of their blocks. */
static int coroutine_fn make_map(BlockDriverState *bs, Growth *growth)
{
    VdiState *s = bs->opaque;
    bool fixed = s->header.type == VDI_TYPE_FIXED;

    growth->map = g_try_new(_Atomic uint32_t, growth->header.blocks + 1);
    if (!growth->map) {
        return -ENOMEM;
    }
    growth->next = s->next - growth->shift;
    for (uint32_t i = 0; i < growth->header.blocks; i++) {
        uint32_t entry = i < s->header.blocks ? vdi_entry(s, i) : VDI_ENTRY_FREE;

        if (entry < VDI_ENTRY_ZERO) {
            entry -= growth->shift;
        } else if (fixed && growth->next <= VDI_MAX_INDEX) {
            entry = growth->next++;
        }
        atomic_init(&growth->map[i], entry);
    }
    growth->header.blocks_in_file = growth->next;
    return 0;
}

/* New places read as zeroes, and the file has them. */
static int coroutine_fn make_places(BlockDriverState *bs, const Growth *growth)
{
    const VdiState *s = bs->opaque;
    int64_t begin = vdi_host_offset(&growth->header, s->next - growth->shift);
    int64_t end = vdi_host_offset(&growth->header, growth->next);

    return begin < end ? bdrv_co_pwrite_zeroes(bs->file, begin, end - begin, BDRV_REQ_MAY_UNMAP) : 0;
}

/* Everything that the new header will point at. */
static int coroutine_fn prepare(BlockDriverState *bs, Growth *growth)
{
    int ret = vdi_commit(bs);

    if (ret >= 0) {
        ret = zero_tail(bs);
    }
    if (ret >= 0) {
        ret = find_room(bs, growth);
    }
    if (ret >= 0) {
        ret = make_map(bs, growth);
    }
    if (ret >= 0) {
        ret = make_places(bs, growth);
    }
    if (ret >= 0) {
        ret = vdi_write_map(bs->file, growth->map, growth->header.blocks, growth->header.map_offset);
    }
    return ret < 0 ? ret : bdrv_co_flush(bs->file);
}

static bool coroutine_fn grow(BlockDriverState *bs, int64_t length, GError **errp)
{
    VdiState *s = bs->opaque;
    Growth growth = { .header = s->header };
    int ret;

    growth.header.disk_size = (uint64_t)length;
    growth.header.blocks = MAX(s->header.blocks, (uint32_t)(round_up(length, s->header.block_size) /
                                                            s->header.block_size));
    ret = prepare(bs, &growth);
    if (ret >= 0) {
        ret = vdi_write_header(bs, &growth.header);
    }
    if (ret < 0) {
        g_free((void *)growth.map);
        return fail(errp, ret, "enlarge the block map");
    }
    vdi_replace_map(s, growth.map, growth.header.blocks);
    pthread_mutex_lock(&s->lock);
    s->next = growth.next;
    if (growth.shift) {
        g_array_set_size(s->holes, 0);
    }
    pthread_mutex_unlock(&s->lock);
    return true;
}

/* ---- shrinking ---- */

/* The header switches first; then nobody needs the blocks behind the end. */
static bool coroutine_fn shrink(BlockDriverState *bs, int64_t length, GError **errp)
{
    VdiState *s = bs->opaque;
    VdiHeader header = s->header;
    int ret = vdi_commit(bs);

    header = s->header;
    header.disk_size = (uint64_t)length;
    header.blocks = (uint32_t)(round_up(length, header.block_size) / header.block_size);
    if (ret >= 0) {
        ret = vdi_write_header(bs, &header);
    }
    if (ret < 0) {
        return fail(errp, ret, "write the header");
    }
    ret = vdi_compact(bs);
    return ret >= 0 || fail(errp, ret, "give the space back (the disk is smaller; run 'bdrv-img check -r leaks')");
}

bool coroutine_fn vdi_truncate(BlockDriverState *bs, int64_t length, bool exact, BdrvPrealloc prealloc,
                               BdrvRequestFlags flags, GError **errp)
{
    const VdiState *s = bs->opaque;
    bool ok;

    if (!vdi_check_truncate(bs, length, exact, prealloc, errp) || !vdi_check_writable(s, errp)) {
        return false;
    }
    length = round_up(length, VDI_SECTOR);
    ok = length >= (int64_t)s->header.disk_size ? grow(bs, length, errp) : shrink(bs, length, errp);
    bdrv_set_length(bs, round_up((int64_t)s->header.disk_size, VDI_SECTOR));
    return ok;
}
