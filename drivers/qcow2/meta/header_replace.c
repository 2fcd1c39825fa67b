/* SPDX-License-Identifier: MIT */
/*
 * Another header cluster in place of the old one: extensions and the backing file name, which reach over several
 * sectors, while only a sector is written as a whole.
 *
 * So everything behind the first sector is written before it is switched to: the new name beside the old one, which
 * moves out of the way first if the extensions are to lie there. Extensions lie in a row, and those that follow the
 * first sector cannot lie elsewhere: a bridge, the old header with those extensions only without which the image would
 * be another one, and which all end in the first sector, stands meanwhile.
 *
 * In clusters of 512 bytes all is in one sector. If there is no room for two names (clusters of 1 or 2 KiB), or the
 * extensions that count do not end in the first sector (a very long name of a data file), the rest is overwritten in
 * place.
 */

#include <errno.h>
#include <string.h>

#include "drivers/qcow2/meta/meta_int.h"

/* [begin, end) of the header cluster. */
typedef struct Span {
    size_t begin, end;
} Span;

typedef struct Replacing {
    Qcow2Meta *meta;
    Qcow2Header header; /* the new one */
    uint32_t size;      /* of the cluster */
    uint8_t *old, *wanted, *mixed; /* a cluster each; mixed: wanted, and the rest as it was */
    Span old_name, extensions, name;
} Replacing;

static bool is_in(Span span, size_t at)
{
    return at >= span.begin && at < span.end;
}

static bool coroutine_fn load_old(Replacing *r, GError **errp)
{
    Qcow2Meta *meta = r->meta;
    const Qcow2Header *h = &meta->s->header;
    int ret = r->old && r->wanted && r->mixed ? bdrv_co_pread(meta->bs->file, 0, r->size, r->old, 0) : -ENOMEM;
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot read the header cluster: %s", g_strerror(-ret));
        return false;
    }
    memcpy(r->old, meta->header_sector, QCOW2_SECTOR);
    if (h->backing_file_offset < r->size && h->backing_file_size <= r->size - h->backing_file_offset) {
        r->old_name = (Span){ h->backing_file_offset, h->backing_file_offset + h->backing_file_size };
    } else {
        r->old_name = (Span){ 0, 0 };
    }
    return true;
}

static bool compose(Replacing *r, const Qcow2HeaderExtensions *extensions, const char *backing_name, size_t name_from,
                    GError **errp)
{
    memset(r->wanted, 0, r->size);
    size_t end = qcow2_compose_header(&r->header, extensions, backing_name, name_from, r->wanted, r->size, errp);
    r->extensions = (Span){ 0, end };
    r->name = (Span){ r->header.backing_file_offset, r->header.backing_file_offset + r->header.backing_file_size };
    memcpy(r->mixed, r->old, r->size);
    memcpy(r->mixed, r->wanted, end);
    memcpy(r->mixed + r->name.begin, r->wanted + r->name.begin, r->name.end - r->name.begin);
    return end != 0;
}

/* Whether what the old header leads to would be overwritten, the part in the first sector apart. */
static bool hits_old_name(const Replacing *r)
{
    size_t begin = MAX(r->old_name.begin, QCOW2_SECTOR);
    return r->old_name.end > begin && memcmp(r->mixed + begin, r->old + begin, r->old_name.end - begin) != 0;
}

/* Whether anything else behind the first sector changes. */
static bool needs_bridge(const Replacing *r)
{
    for (size_t i = QCOW2_SECTOR; i < r->size; i++) {
        if (r->mixed[i] != r->old[i] && !is_in(r->old_name, i)) {
            return true;
        }
    }
    return false;
}

/* The first sector with the old header and the extensions that count; false if they do not end there. */
static bool compose_bridge(const Replacing *r, uint8_t *sector)
{
    const Qcow2Header *h = &r->meta->s->header;
    Qcow2HeaderExtensions counting = r->meta->s->extensions;
    counting.feature_names = NULL;
    counting.unknown_count = 0;
    size_t end = h->header_length + qcow2_extensions_size(&counting);
    if (end > QCOW2_SECTOR || (r->old_name.end && end > r->old_name.begin)) {
        return false;
    }
    memset(sector, 0, QCOW2_SECTOR);
    memcpy(sector, r->old, h->header_length);
    qcow2_extensions_encode(&counting, sector + h->header_length, QCOW2_SECTOR - h->header_length);
    if (r->old_name.begin < QCOW2_SECTOR) {
        memcpy(sector + r->old_name.begin, r->old + r->old_name.begin,
               MIN(r->old_name.end, QCOW2_SECTOR) - r->old_name.begin);
    }
    return true;
}

/* The sectors behind the first one where @to differs from @from, which the file has. */
static int coroutine_fn write_rest(const Replacing *r, const uint8_t *from, const uint8_t *to)
{
    size_t begin = QCOW2_SECTOR, end = r->size;
    while (begin < end && memcmp(from + begin, to + begin, QCOW2_SECTOR) == 0) {
        begin += QCOW2_SECTOR;
    }
    while (end > begin && memcmp(from + end - QCOW2_SECTOR, to + end - QCOW2_SECTOR, QCOW2_SECTOR) == 0) {
        end -= QCOW2_SECTOR;
    }
    if (begin == end) {
        return 0;
    }
    int ret = bdrv_co_pwrite(r->meta->bs->file, (int64_t)begin, (int64_t)(end - begin), to + begin, 0);
    return ret < 0 ? ret : 0;
}

static int coroutine_fn write_and_flush_rest(const Replacing *r, const uint8_t *from, const uint8_t *to)
{
    int ret = write_rest(r, from, to);
    return ret < 0 ? ret : bdrv_co_flush(r->meta->bs->file);
}

/* header_lock held. */
static int coroutine_fn replace_locked(Replacing *r)
{
    Qcow2Meta *meta = r->meta;
    uint8_t bridge[QCOW2_SECTOR];
    bool bridged = needs_bridge(r) && compose_bridge(r, bridge);
    int ret = bridged ? qcow2_replace_sector_locked(meta, bridge) : 0;

    if (ret >= 0) {
        ret = write_and_flush_rest(r, r->old, r->mixed);
    }
    if (ret >= 0) {
        ret = qcow2_replace_sector_locked(meta, r->wanted);
    }
    if (ret >= 0) {
        meta->s->header = r->header;
        write_rest(r, r->mixed, r->wanted); /* what nothing leads to any more */
    } else if (!atomic_load(&meta->header_in_doubt) && write_and_flush_rest(r, r->mixed, r->old) >= 0 && bridged) {
        qcow2_replace_sector_locked(meta, r->old);
    }
    return ret;
}

static size_t align8(size_t at)
{
    return (at + 7) & ~(size_t)7;
}

/* Beside the old name if there is room, or else right behind the extensions. */
static bool compose_apart(Replacing *r, const Qcow2HeaderExtensions *extensions, const char *backing_name,
                          GError **errp)
{
    return compose(r, extensions, backing_name, 0, errp) &&
           (!hits_old_name(r) || compose(r, extensions, backing_name, align8(r->old_name.end), errp));
}

static bool coroutine_fn switch_header(Replacing *r, GError **errp)
{
    co_mutex_lock(&r->meta->header_lock);
    int ret = qcow2_settle_header_locked(r->meta);
    ret = ret < 0 ? ret : replace_locked(r);
    co_mutex_unlock(&r->meta->header_lock);
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot write the header: %s", g_strerror(-ret));
    }
    return ret >= 0;
}

/* The same header with the name further back, if there is room. */
static bool coroutine_fn move_name(const Replacing *wanted, GError **errp)
{
    const Qcow2State *s = wanted->meta->s;
    Replacing r = *wanted;
    size_t bytes = r.old_name.end - r.old_name.begin, to = align8(MAX(r.extensions.end, r.old_name.end));
    if (to + bytes > r.size) {
        return true;
    }
    g_autofree char *name = g_strndup((const char *)r.old + r.old_name.begin, bytes);
    r.header = s->header;
    return compose(&r, &s->extensions, name, to, errp) && (hits_old_name(&r) || switch_header(&r, errp));
}

static bool coroutine_fn replace(Replacing *r, const Qcow2HeaderExtensions *extensions, const char *backing_name,
                                 GError **errp)
{
    if (!load_old(r, errp) || !compose_apart(r, extensions, backing_name, errp)) {
        return false;
    }
    int ret = bdrv_co_flush(r->meta->bs->file);
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot flush before the header is written: %s", g_strerror(-ret));
        return false;
    }
    if (hits_old_name(r) && (!move_name(r, errp) || !load_old(r, errp) ||
                             !compose_apart(r, extensions, backing_name, errp))) {
        return false;
    }
    return switch_header(r, errp);
}

bool coroutine_fn qcow2_replace_header(BlockDriverState *bs, const Qcow2Header *header,
                                       const Qcow2HeaderExtensions *extensions, const char *backing_name, GError **errp)
{
    Qcow2Meta *meta = qcow2_meta(bs);
    uint32_t size = meta->s->geometry.cluster_size;

    if (atomic_load(&meta->s->corrupt)) {
        g_set_error(errp, BDRV_ERROR, EIO, "the image is marked corrupt and takes no more writes");
        return false;
    }
    Replacing r = {
        .meta = meta,
        .header = *header,
        .size = size,
        .old = bdrv_try_blockalign(bs->file->bs, size),
        .wanted = bdrv_try_blockalign(bs->file->bs, size),
        .mixed = bdrv_try_blockalign(bs->file->bs, size),
    };
    bool ok = replace(&r, extensions, backing_name, errp);
    bdrv_vfree(r.old);
    bdrv_vfree(r.wanted);
    bdrv_vfree(r.mixed);
    return ok;
}
