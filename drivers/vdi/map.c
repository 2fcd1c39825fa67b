/* SPDX-License-Identifier: MIT */

/*
 * The block map: in memory as a whole, in the file sector by sector.
 *
 * Only a free block gets a place, and it keeps it: a request that has looked an entry up may use it for as long as it
 * likes. A new entry is in memory when the block's content has been written; in the file it is with a commit,
 *
 *     header with the new count of places | flush | sectors of the map as they were when the commit began | flush
 *
 * so that whatever points at a place does so after its content is durable, and no place is pointed at that the header
 * does not count: other programs take the next one by that count. A crash between leaves places that nobody
 * has; the next writer finds and uses them.
 *
 * A header that says where things are (of a resized image) and could not be written or flushed may be the file's all the
 * same. No place is taken and nothing committed before the old one is there again for certain.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "drivers/vdi/vdi.h"

#define CHUNK_SECTORS 128 /* of the map, read or written at once */

/* ---- looking up ---- */

uint32_t vdi_entry(const VdiState *s, uint32_t block)
{
    return atomic_load_explicit(&s->map[block], memory_order_acquire);
}

static bool continues(const VdiState *s, uint32_t first, uint32_t entry, uint32_t blocks_between)
{
    if (first >= VDI_ENTRY_ZERO) {
        return entry >= VDI_ENTRY_ZERO;
    }
    return entry == first + blocks_between && (entry >= s->index_limit) == (first >= s->index_limit);
}

VdiExtent vdi_lookup(const VdiState *s, int64_t offset, int64_t bytes)
{
    uint32_t size = s->header.block_size;
    uint32_t block = (uint32_t)(offset / size);
    int64_t inside = offset % size;
    uint32_t first = vdi_entry(s, block);
    VdiExtent extent = { .bytes = size - inside, .host_offset = -1 };

    for (uint32_t n = 1; extent.bytes < bytes && continues(s, first, vdi_entry(s, block + n), n); n++) {
        extent.bytes += size;
    }
    extent.bytes = MIN(extent.bytes, bytes);
    if (first < VDI_ENTRY_ZERO) {
        extent.host_offset = vdi_host_offset(&s->header, first) + inside;
        extent.outside = s->damage.outside && first >= s->index_limit;
    }
    return extent;
}

/* ---- loading ---- */

static int coroutine_fn read_map(BdrvChild *file, const VdiHeader *header, _Atomic uint32_t *map)
{
    for (uint32_t at = 0; at < header->blocks;) {
        uint32_t count = MIN(header->blocks - at, CHUNK_SECTORS * VDI_ENTRIES_PER_SECTOR);
        g_autofree uint32_t *entries = g_new(uint32_t, count);
        int ret = bdrv_co_pread(file, header->map_offset + (int64_t)at * 4, (int64_t)count * 4, entries, 0);

        if (ret < 0) {
            return ret;
        }
        for (uint32_t i = 0; i < count; i++) {
            atomic_init(&map[at + i], GUINT32_FROM_LE(entries[i]));
        }
        at += count;
    }
    return 0;
}

uint32_t vdi_count_places(const VdiHeader *header, int64_t file_length)
{
    int64_t bytes = file_length - header->data_offset;
    int64_t places = bytes <= 0 ? 0 : (bytes - 1) / header->block_size + 1;

    return (uint32_t)MIN(places, (int64_t)VDI_MAX_INDEX);
}

static uint32_t end_of_places(const VdiState *s)
{
    uint32_t end = 0;

    for (uint32_t i = 0; i < s->header.blocks; i++) {
        uint32_t entry = vdi_entry(s, i);
        if (entry < s->index_limit) {
            end = MAX(end, entry + 1);
        }
    }
    return end;
}

/* Which places are taken, and by how many; false: no memory. */
static bool scan_map(VdiState *s)
{
    uint32_t end = end_of_places(s);
    g_autofree uint8_t *taken = g_try_malloc0(end / 8 + 1);

    if (!taken) {
        return false;
    }
    for (uint32_t i = 0; i < s->header.blocks; i++) {
        uint32_t entry = vdi_entry(s, i);
        if (entry >= VDI_ENTRY_ZERO) {
            continue;
        }
        if (entry >= s->index_limit) {
            s->damage.outside++;
        } else if (taken[entry / 8] & 1u << entry % 8) {
            s->damage.shared++;
        } else {
            taken[entry / 8] |= 1u << entry % 8;
        }
    }
    s->next = end;
    if (!s->damage.outside) {
        s->index_limit = UINT32_MAX; /* places that the file gets from now on are there */
    }
    /* More than there are blocks cannot be needed. The lowest is the last, which is taken first. */
    for (uint32_t i = 0; i < end && s->holes->len < s->header.blocks; i++) {
        if (!(taken[i / 8] & 1u << i % 8)) {
            g_array_append_val(s->holes, i);
        }
    }
    for (guint i = 0; i < s->holes->len / 2; i++) {
        uint32_t *a = &g_array_index(s->holes, uint32_t, i);
        uint32_t *b = &g_array_index(s->holes, uint32_t, s->holes->len - 1 - i);
        uint32_t t = *a;
        *a = *b;
        *b = t;
    }
    return true;
}

static bool coroutine_fn load_into(BlockDriverState *bs, VdiState *s, GError **errp)
{
    uint8_t sector[VDI_SECTOR];
    int64_t length = bdrv_co_getlength(bs->file);
    int ret = length < 0 ? (int)length : bdrv_co_pread(bs->file, 0, sizeof(sector), sector, 0);

    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot read the VDI header: %s", g_strerror(-ret));
        return false;
    }
    if (!vdi_decode_header(sector, length, &s->header, errp)) {
        return false;
    }
    s->map = g_try_new(_Atomic uint32_t, s->header.blocks + 1);
    s->dirty = g_try_malloc0(s->header.blocks / VDI_ENTRIES_PER_SECTOR + 1);
    s->holes = g_array_new(FALSE, FALSE, sizeof(uint32_t));
    s->index_limit = vdi_count_places(&s->header, length);
    ret = s->map && s->dirty ? read_map(bs->file, &s->header, s->map) : -ENOMEM;
    if (ret >= 0 && !scan_map(s)) {
        ret = -ENOMEM;
    }
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot read the block map of %" PRIu32 " blocks: %s", s->header.blocks,
                    g_strerror(-ret));
        return false;
    }
    return true;
}

static void free_tables(VdiState *s)
{
    g_free((void *)s->map);
    g_free(s->dirty);
    if (s->holes) {
        g_array_free(s->holes, TRUE);
    }
}

/* What is about the image; locks stay. */
static void move_tables(VdiState *to, const VdiState *from)
{
    to->header = from->header;
    to->map = from->map;
    to->damage = from->damage;
    to->index_limit = from->index_limit;
    to->next = from->next;
    to->holes = from->holes;
    to->dirty = from->dirty;
}

bool coroutine_fn vdi_load(BlockDriverState *bs, VdiState *s, GError **errp)
{
    g_autofree VdiState *fresh = g_new0(VdiState, 1);

    if (!load_into(bs, fresh, errp)) {
        free_tables(fresh);
        return false;
    }
    free_tables(s);
    move_tables(s, fresh);
    return true;
}

void vdi_unload(VdiState *s)
{
    free_tables(s);
}

bool vdi_check_writable(const VdiState *s, GError **errp)
{
    if (s->damage.outside || s->damage.shared) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "the block map is damaged: %" PRIu32 " blocks lie past the end of the file, %" PRIu32
                    " share their place with another; run 'bdrv-img check -r all', or open it read-only",
                    s->damage.outside, s->damage.shared);
        return false;
    }
    return true;
}

/* ---- places and entries ---- */

int64_t vdi_take_place(VdiState *s)
{
    int64_t index = -ENOSPC;

    pthread_mutex_lock(&s->lock);
    if (s->holes->len > 0) {
        index = g_array_index(s->holes, uint32_t, s->holes->len - 1);
        g_array_set_size(s->holes, s->holes->len - 1);
    } else if (s->next <= VDI_MAX_INDEX) {
        index = s->next++;
    }
    pthread_mutex_unlock(&s->lock);
    return index;
}

void vdi_give_place(VdiState *s, uint32_t index)
{
    pthread_mutex_lock(&s->lock);
    if (index == s->next - 1) {
        s->next--;
    } else {
        g_array_append_val(s->holes, index);
    }
    pthread_mutex_unlock(&s->lock);
}

void vdi_set_entry(VdiState *s, uint32_t block, uint32_t entry)
{
    pthread_mutex_lock(&s->lock);
    atomic_store_explicit(&s->map[block], entry, memory_order_release);
    s->dirty[block / VDI_ENTRIES_PER_SECTOR] = 1;
    pthread_mutex_unlock(&s->lock);
}

void vdi_replace_map(VdiState *s, _Atomic uint32_t *map, uint32_t blocks)
{
    pthread_mutex_lock(&s->lock);
    g_free((void *)s->map);
    g_free(s->dirty);
    s->map = map;
    s->dirty = g_malloc0(blocks / VDI_ENTRIES_PER_SECTOR + 1);
    pthread_mutex_unlock(&s->lock);
}

/* ---- making it durable ---- */

/* The entries of one sector as the file has them; behind the last one is nothing. */
static void encode_sector(const _Atomic uint32_t *map, uint32_t blocks, uint32_t sector, uint32_t *out)
{
    uint32_t first = sector * VDI_ENTRIES_PER_SECTOR;

    for (uint32_t i = 0; i < VDI_ENTRIES_PER_SECTOR; i++) {
        out[i] = first + i < blocks ? GUINT32_TO_LE(atomic_load_explicit(&map[first + i], memory_order_relaxed)) : 0;
    }
}

/* Sectors of the map as they were at one time. */
typedef struct Frozen {
    GArray *sectors;   /* uint32_t, ascending */
    uint32_t *entries; /* theirs, one sector after the other, as the file has them */
    uint32_t places;   /* the count for the header */
} Frozen;

static Frozen freeze(VdiState *s)
{
    size_t sectors = ((size_t)s->header.blocks + VDI_ENTRIES_PER_SECTOR - 1) / VDI_ENTRIES_PER_SECTOR;
    Frozen frozen = { .sectors = g_array_new(FALSE, FALSE, sizeof(uint32_t)) };

    pthread_mutex_lock(&s->lock);
    frozen.places = s->next;
    for (uint8_t *d = s->dirty; (d = memchr(d, 1, (size_t)(s->dirty + sectors - d)));) {
        uint32_t sector = (uint32_t)(d - s->dirty);
        g_array_append_val(frozen.sectors, sector);
        *d++ = 0;
    }
    frozen.entries = g_new(uint32_t, ((size_t)frozen.sectors->len + 1) * VDI_ENTRIES_PER_SECTOR);
    for (guint i = 0; i < frozen.sectors->len; i++) {
        encode_sector(s->map, s->header.blocks, g_array_index(frozen.sectors, uint32_t, i),
                      frozen.entries + (size_t)i * VDI_ENTRIES_PER_SECTOR);
    }
    pthread_mutex_unlock(&s->lock);
    return frozen;
}

/* What was not written is tried again with the next commit. */
static void thaw(VdiState *s, Frozen *frozen, bool written)
{
    pthread_mutex_lock(&s->lock);
    for (guint i = 0; !written && i < frozen->sectors->len; i++) {
        s->dirty[g_array_index(frozen->sectors, uint32_t, i)] = 1;
    }
    pthread_mutex_unlock(&s->lock);
    g_array_free(frozen->sectors, TRUE);
    g_free(frozen->entries);
}

static int coroutine_fn write_header(BlockDriverState *bs, const VdiHeader *header)
{
    VdiHeader encoded = *header;

    vdi_encode_header(&encoded);
    return bdrv_co_pwrite(bs->file, 0, sizeof(encoded.bytes), encoded.bytes, 0);
}

static int coroutine_fn settle_header_locked(BlockDriverState *bs)
{
    VdiState *s = bs->opaque;
    int ret = 0;

    if (atomic_load(&s->header_in_doubt)) {
        ret = write_header(bs, &s->header);
        ret = ret < 0 ? ret : bdrv_co_flush(bs->file);
        atomic_store(&s->header_in_doubt, ret < 0);
    }
    return ret;
}

int coroutine_fn vdi_settle_header(BlockDriverState *bs)
{
    VdiState *s = bs->opaque;

    if (G_LIKELY(!atomic_load_explicit(&s->header_in_doubt, memory_order_acquire))) {
        return 0;
    }
    co_mutex_lock(&s->commit_lock);
    int ret = settle_header_locked(bs);
    co_mutex_unlock(&s->commit_lock);
    return ret;
}

/* Neighbours go out in one piece. */
static int coroutine_fn write_sectors(BlockDriverState *bs, const Frozen *frozen)
{
    const VdiState *s = bs->opaque;
    const uint32_t *sectors = (const uint32_t *)frozen->sectors->data;

    for (guint i = 0, n; i < frozen->sectors->len; i += n) {
        for (n = 1; i + n < frozen->sectors->len && sectors[i + n] == sectors[i] + n;) {
            n++;
        }
        int ret = bdrv_co_pwrite(bs->file, s->header.map_offset + (int64_t)sectors[i] * VDI_SECTOR,
                                 (int64_t)n * VDI_SECTOR, frozen->entries + (size_t)i * VDI_ENTRIES_PER_SECTOR, 0);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static int coroutine_fn write_frozen(BlockDriverState *bs, const Frozen *frozen)
{
    VdiState *s = bs->opaque;
    VdiHeader header = s->header;
    int ret = 0;

    if (frozen->sectors->len == 0) {
        return bdrv_co_flush(bs->file);
    }
    header.blocks_in_file = frozen->places;
    if (header.blocks_in_file != s->header.blocks_in_file) {
        ret = write_header(bs, &header);
    }
    if (ret >= 0) {
        ret = bdrv_co_flush(bs->file);
    }
    if (ret < 0) {
        return ret;
    }
    s->header.blocks_in_file = header.blocks_in_file;
    ret = write_sectors(bs, frozen);
    return ret < 0 ? ret : bdrv_co_flush(bs->file);
}

int coroutine_fn vdi_commit(BlockDriverState *bs)
{
    VdiState *s = bs->opaque;
    Frozen frozen;
    int ret;

    if (bs->read_only) {
        return 0;
    }
    co_mutex_lock(&s->commit_lock);
    frozen = freeze(s);
    ret = settle_header_locked(bs);
    ret = ret < 0 ? ret : write_frozen(bs, &frozen);
    thaw(s, &frozen, ret >= 0);
    co_mutex_unlock(&s->commit_lock);
    return ret;
}

int coroutine_fn vdi_write_header(BlockDriverState *bs, const VdiHeader *header)
{
    VdiState *s = bs->opaque;
    int ret = write_header(bs, header);

    if (ret >= 0) {
        ret = bdrv_co_flush(bs->file);
    }
    if (ret >= 0) {
        s->header = *header;
    }
    atomic_store(&s->header_in_doubt, ret < 0);
    return ret;
}

int coroutine_fn vdi_write_map(BdrvChild *file, const _Atomic uint32_t *map, uint32_t blocks, int64_t offset)
{
    uint32_t sectors = (uint32_t)(vdi_map_bytes(blocks) / VDI_SECTOR);
    g_autofree uint32_t *entries = g_new(uint32_t, CHUNK_SECTORS * VDI_ENTRIES_PER_SECTOR);

    for (uint32_t at = 0; at < sectors;) {
        uint32_t count = MIN(sectors - at, CHUNK_SECTORS);

        for (uint32_t i = 0; i < count; i++) {
            encode_sector(map, blocks, at + i, entries + i * VDI_ENTRIES_PER_SECTOR);
        }
        int ret = bdrv_co_pwrite(file, offset + (int64_t)at * VDI_SECTOR, (int64_t)count * VDI_SECTOR, entries, 0);
        if (ret < 0) {
            return ret;
        }
        at += count;
    }
    return 0;
}
