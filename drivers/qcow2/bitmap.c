/* SPDX-License-Identifier: MIT */
/* Persistent dirty bitmaps: what users do with them. How they are kept: bitmap.h. */

#include "drivers/qcow2/bitmap.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "drivers/qcow2/callbacks.h"

/* Granularity of those that are made without one: the cluster size within these. */
#define MIN_DEFAULT_BITS 12u
#define MAX_DEFAULT_BITS 16u

/* ---- questions ---- */

static bool check_version(const Qcow2State *s, GError **errp)
{
    if (s->geometry.version < 3) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP, "a version 2 image (compat=0.10) cannot have bitmaps");
    }
    return s->geometry.version >= 3;
}

int coroutine_fn qcow2_bitmap_list(BlockDriverState *bs, BdrvBitmapInfo **list, GError **errp)
{
    const Qcow2State *s = qcow2_state(bs);
    if (!check_version(s, errp)) {
        return -1;
    }
    BdrvBitmapInfo *out = g_try_new0(BdrvBitmapInfo, s->bitmaps.count + 1);
    if (!out) {
        g_set_error(errp, BDRV_ERROR, ENOMEM, "no memory for a list of %u bitmaps", s->bitmaps.count);
        return -1;
    }
    for (unsigned i = 0; i < s->bitmaps.count; i++) {
        const Qcow2Bitmap *b = &s->bitmaps.bitmaps[i];
        out[i] = (BdrvBitmapInfo){
            .name = g_strdup(b->name),
            .granularity = b->granularity_bits < 63 ? INT64_C(1) << b->granularity_bits : INT64_MAX,
            .enabled = b->flags & QCOW2_BITMAP_AUTO,
            .usable = qcow2_bitmap_is_usable(b),
        };
    }
    *list = out;
    return (int)s->bitmaps.count;
}

static bool find(const Qcow2State *s, const char *name, unsigned *index, GError **errp)
{
    for (unsigned i = 0; i < s->bitmaps.count; i++) {
        if (g_str_equal(s->bitmaps.bitmaps[i].name, name)) {
            *index = i;
            return true;
        }
    }
    g_set_error(errp, BDRV_ERROR, ENOENT, "Dirty bitmap '%s' not found", name);
    return false;
}

static bool check_usable(const Qcow2Bitmap *bitmap, GError **errp)
{
    if (qcow2_bitmap_is_usable(bitmap)) {
        return true;
    }
    if (bitmap->type != QCOW2_BITMAP_TYPE_DIRTY) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "bitmap '%s' is of type %u; only dirty bitmaps (type 1) can be used",
                    bitmap->name, bitmap->type);
    } else if (bitmap->flags & QCOW2_BITMAP_IN_USE) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "bitmap '%s' is inconsistent and cannot be used: it was in use when the image was last written, and has "
                    "not been stored since; it can be removed ('bdrv-img bitmap --remove')", bitmap->name);
    } else {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "bitmap '%s' has %" PRIu32 " bytes of extra data that are unknown here, and must not be used without",
                    bitmap->name, bitmap->extra_bytes);
    }
    return false;
}

BdrvDirtyBits *coroutine_fn qcow2_bitmap_read(BlockDriverState *bs, const char *name, GError **errp)
{
    Qcow2State *s = qcow2_state(bs);
    BdrvDirtyBits *copy = NULL;
    unsigned index;
    if (!find(s, name, &index, errp) || !check_usable(&s->bitmaps.bitmaps[index], errp)) {
        return NULL;
    }
    co_mutex_lock(&s->bitmap_lock);
    if (qcow2_load_bits(bs, &s->bitmaps.bitmaps[index], errp)) {
        copy = bdrv_dirty_bits_copy(s->bitmaps.bitmaps[index].bits, s->header.size);
        if (!copy) {
            g_set_error(errp, BDRV_ERROR, ENOMEM, "no memory for the bits of bitmap '%s'", name);
        }
    }
    co_mutex_unlock(&s->bitmap_lock);
    return copy;
}

/* ---- changes of one bitmap ---- */

/* Begin to change @name: *@bitmap is what it is to become. End it in any case. */
static bool begin(Qcow2BitmapChange *c, BlockDriverState *bs, const char *name, Qcow2Bitmap **bitmap, GError **errp)
{
    unsigned index;
    if (!qcow2_bitmap_change_begin(c, bs, errp) || !find(qcow2_state(bs), name, &index, errp) ||
        !check_usable(&c->next.bitmaps[index], errp)) {
        return false;
    }
    *bitmap = &c->next.bitmaps[index];
    return true;
}

static bool coroutine_fn end(Qcow2BitmapChange *c, bool ok, GError **errp)
{
    ok = ok && qcow2_bitmap_change_commit(c, errp);
    qcow2_bitmap_change_end(c);
    return ok;
}

/* @bits: taken, NULL: there was no memory for them */
static bool replace_bits(Qcow2Bitmap *bitmap, BdrvDirtyBits *bits, GError **errp)
{
    if (!bits) {
        g_set_error(errp, BDRV_ERROR, ENOMEM, "no memory for the bits of bitmap '%s'", bitmap->name);
        return false;
    }
    bdrv_dirty_bits_free(bitmap->bits);
    bitmap->bits = bits;
    atomic_store(&bits->changed, true);
    return true;
}

bool coroutine_fn qcow2_bitmap_remove(BlockDriverState *bs, const char *name, GError **errp)
{
    Qcow2BitmapChange c;
    unsigned index;
    bool ok = qcow2_bitmap_change_begin(&c, bs, errp) && find(qcow2_state(bs), name, &index, errp);
    if (ok) {
        qcow2_bitmap_change_drop(&c, index);
    }
    return end(&c, ok, errp);
}

bool coroutine_fn qcow2_bitmap_clear_bits(BlockDriverState *bs, const char *name, GError **errp)
{
    Qcow2BitmapChange c;
    Qcow2Bitmap *bitmap;
    bool ok = begin(&c, bs, name, &bitmap, errp) &&
              replace_bits(bitmap, bdrv_dirty_bits_new(bitmap->granularity_bits, c.disk_size), errp);
    return end(&c, ok, errp);
}

bool coroutine_fn qcow2_bitmap_enable(BlockDriverState *bs, const char *name, bool enable, GError **errp)
{
    Qcow2BitmapChange c;
    Qcow2Bitmap *bitmap;
    bool ok = begin(&c, bs, name, &bitmap, errp) && qcow2_load_bits(bs, bitmap, errp);
    if (ok) {
        bitmap->flags = enable ? bitmap->flags | QCOW2_BITMAP_AUTO : bitmap->flags & ~QCOW2_BITMAP_AUTO;
    }
    return end(&c, ok, errp);
}

bool coroutine_fn qcow2_bitmap_merge(BlockDriverState *bs, const char *name, const BdrvDirtyBits *source, GError **errp)
{
    Qcow2BitmapChange c;
    Qcow2Bitmap *bitmap;
    int64_t at = 0, bytes;
    bool ok = begin(&c, bs, name, &bitmap, errp);
    if (ok && source->length != c.disk_size) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "a bitmap of a disk of %" PRIu64 " bytes cannot be merged into bitmap '%s' of "
                    "one of %" PRIu64 " bytes", source->length, name, c.disk_size);
        ok = false;
    }
    ok = ok && qcow2_load_bits(bs, bitmap, errp) &&
         replace_bits(bitmap, bdrv_dirty_bits_copy(bitmap->bits, c.disk_size), errp);
    for (; ok && bdrv_dirty_bits_next(source, at, &at, &bytes); at += bytes) {
        bdrv_dirty_bits_set(bitmap->bits, (uint64_t)at, (uint64_t)bytes);
    }
    return end(&c, ok, errp);
}

/* ---- a new one ---- */

static bool check_new_name(const Qcow2State *s, const char *name, GError **errp)
{
    size_t length = strlen(name);
    unsigned index;
    if (length == 0 || length > QCOW2_MAX_BITMAP_NAME) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "a bitmap name of %zu bytes is not possible; it must have 1 to %u", length,
                    QCOW2_MAX_BITMAP_NAME);
        return false;
    }
    if (find(s, name, &index, NULL)) {
        g_set_error(errp, BDRV_ERROR, EEXIST, "Bitmap already exists: %s", name);
        return false;
    }
    if (s->bitmaps.count >= QCOW2_MAX_BITMAPS) {
        g_set_error(errp, BDRV_ERROR, EFBIG, "the image has %u bitmaps, and no more are allowed", s->bitmaps.count);
        return false;
    }
    return true;
}

static bool check_granularity(const Qcow2State *s, int64_t granularity, unsigned *bits, GError **errp)
{
    int64_t least = INT64_C(1) << QCOW2_MIN_GRANULARITY_BITS, most = INT64_C(1) << QCOW2_MAX_GRANULARITY_BITS;
    if (granularity == 0) {
        *bits = CLAMP(s->geometry.cluster_bits, MIN_DEFAULT_BITS, MAX_DEFAULT_BITS);
    } else if (granularity < least || granularity > most || (granularity & (granularity - 1))) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "granularity %" PRId64 " is not a power of two from %" PRId64 " to %" PRId64,
                    granularity, least, most);
        return false;
    } else {
        *bits = (unsigned)__builtin_ctzll((uint64_t)granularity);
    }
    if (s->header.size == 0) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP, "a disk of 0 bytes cannot have bitmaps");
        return false;
    }
    uint64_t entries = qcow2_bitmap_table_size(*bits, &s->geometry, s->header.size);
    if (entries > QCOW2_MAX_BITMAP_BYTES >> s->geometry.cluster_bits) {
        g_set_error(errp, BDRV_ERROR, EFBIG,
                    "a bitmap of a disk of %" PRIu64 " bytes with granularity %" PRIu64 " would have more than 512 MiB; use a "
                    "larger granularity", s->header.size, UINT64_C(1) << *bits);
        return false;
    }
    return true;
}

bool coroutine_fn qcow2_bitmap_add(BlockDriverState *bs, const char *name, int64_t granularity, bool enabled,
                                   GError **errp)
{
    const Qcow2State *s = qcow2_state(bs);
    Qcow2BitmapChange c;
    unsigned bits;
    bool ok = qcow2_bitmap_change_begin(&c, bs, errp) && check_new_name(s, name, errp) &&
              check_granularity(s, granularity, &bits, errp) && qcow2_check_bits_room(s, bits, errp);
    if (ok) {
        Qcow2Bitmap *bitmap = &c.next.bitmaps[c.next.count++];
        *bitmap = (Qcow2Bitmap){
            .name = g_strdup(name),
            .type = QCOW2_BITMAP_TYPE_DIRTY,
            .granularity_bits = (uint8_t)bits,
            .flags = enabled ? QCOW2_BITMAP_AUTO : 0,
        };
        ok = replace_bits(bitmap, bdrv_dirty_bits_new(bits, c.disk_size), errp);
    }
    return end(&c, ok, errp);
}
