/* SPDX-License-Identifier: MIT */

/*
 * luks: an encrypted disk in LUKS version 1 format, as cryptsetup makes it.
 *
 *     driver=luks,key-secret=ID,file.driver=file,file.filename=x
 *
 * The file is header, key material, then the payload: the disk, sector by sector encrypted. Everything about
 * keys is block/crypto/luks.c's; this is where the bytes lie.
 */

#include <bdrv/driver.h>
#include <errno.h>
#include <inttypes.h>

#include "block/crypto/key.h"
#include "block/crypto/luks.h"

typedef struct LuksState {
    BdrvLuks luks;
    BdrvKey key;
    int64_t payload; /* where the disk begins in the file */
    bool blind;      /* looking at the header anew failed: what is known of it is no longer true */
} LuksState;

static const BdrvOptionSpec luks_open_options[] = {
    { "key-secret", BDRV_OPTION_STRING, "ID of the secret that provides the keyslot passphrase", NULL, NULL },
    { NULL },
};

static const BdrvChildSpec luks_children[] = {
    { .name = "file", .role = BDRV_CHILD_PROTOCOL },
    { .name = NULL },
};

static int luks_probe(const uint8_t *buf, size_t size, const char *filename)
{
    return bdrv_luks_probe(buf, size) ? 100 : 0;
}

/* ---- header and key material ---- */

static int coroutine_fn read_area(void *opaque, uint64_t offset, void *buf, size_t bytes)
{
    return bdrv_co_pread(opaque, (int64_t)offset, (int64_t)bytes, buf, 0);
}

static int coroutine_fn write_area(void *opaque, uint64_t offset, const void *buf, size_t bytes)
{
    return bdrv_co_pwrite(opaque, (int64_t)offset, (int64_t)bytes, buf, 0);
}

static int coroutine_fn flush_area(void *opaque)
{
    return bdrv_co_flush(opaque);
}

static BdrvLuksIo area_of(BdrvChild *file)
{
    return (BdrvLuksIo){ .read = read_area, .write = write_area, .flush = flush_area, .opaque = file };
}

/* ---- open ---- */

static bool no_key_secret(GError **errp)
{
    g_set_error(errp, BDRV_ERROR, ENOKEY, "Parameter 'key-secret' is required for cipher");
    return false;
}

static BdrvVolume *coroutine_fn open_volume(BlockDriverState *bs, BdrvPassphrase passphrase, GError **errp)
{
    const LuksState *s = bs->opaque;
    BdrvLuksIo io = area_of(bs->file);
    return bdrv_luks_unlock(&s->luks, &io, passphrase, errp);
}

/* @load: bdrv_luks_load() or bdrv_luks_load_again() */
static bool coroutine_fn load(BlockDriverState *bs, bool (*load_luks)(BdrvLuks *, const BdrvLuksIo *, GError **),
                              GError **errp)
{
    LuksState *s = bs->opaque;
    BdrvLuksIo io = area_of(bs->file);
    int64_t file_length = bdrv_co_getlength(bs->file);

    if (file_length < 0) {
        g_set_error(errp, BDRV_ERROR, (int)-file_length, "cannot get the length of the file: %s",
                    g_strerror((int)-file_length));
        return false;
    }
    if (!load_luks(&s->luks, &io, errp)) {
        return false;
    }
    s->payload = (int64_t)s->luks.header.payload_sector * BDRV_LUKS_SECTOR;
    if (s->payload > file_length) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "the LUKS payload begins at %" PRId64 ", behind the end of the file (%" PRId64 ")", s->payload,
                    file_length);
        return false;
    }
    return true;
}

static bool coroutine_fn luks_open(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags, GError **errp)
{
    LuksState *s = bs->opaque;
    const char *secret = bdrv_options_get_string(options, "key-secret", NULL);

    if (!load(bs, bdrv_luks_load, errp)) {
        return false;
    }
    bs->encrypted = true;
    bs->supported_write_flags = BDRV_REQ_FUA & bs->file->bs->supported_write_flags;
    if (flags & BDRV_O_NO_IO) {
        return true;
    }
    if (!secret && !(flags & BDRV_O_NO_KEY)) {
        return no_key_secret(errp);
    }
    return !secret || bdrv_key_open(&s->key, bs, open_volume, secret, errp);
}

static int luks_close(BlockDriverState *bs)
{
    LuksState *s = bs->opaque;
    bdrv_key_clear(&s->key);
    return 0;
}

static bool coroutine_fn luks_reopen_prepare(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags,
                                             void **state, GError **errp)
{
    const LuksState *s = bs->opaque;
    BdrvKey *fresh = g_new0(BdrvKey, 1);

    if (!bdrv_key_reopen(&s->key, fresh, bs, open_volume, bdrv_options_get_string(options, "key-secret", NULL), errp)) {
        g_free(fresh);
        return false;
    }
    *state = fresh;
    return true;
}

static void luks_reopen_abort(BlockDriverState *bs, void *state)
{
    bdrv_key_clear(state);
    g_free(state);
}

static void luks_reopen_commit(BlockDriverState *bs, void *state)
{
    LuksState *s = bs->opaque;

    bdrv_key_replace(&s->key, state);
    luks_reopen_abort(bs, state);
}

/* Key slots may be others. */
static bool coroutine_fn luks_invalidate_cache(BlockDriverState *bs, GError **errp)
{
    LuksState *s = bs->opaque;

    s->blind = !load(bs, bdrv_luks_load_again, errp);
    return !s->blind;
}

static bool coroutine_fn luks_set_key(BlockDriverState *bs, const uint8_t *key, size_t bytes, GError **errp)
{
    LuksState *s = bs->opaque;

    return bdrv_key_set(&s->key, bs, open_volume, (BdrvPassphrase){ key, bytes }, errp);
}

static bool coroutine_fn luks_amend(BlockDriverState *bs, const BdrvOptions *options, bool force,
                                    BdrvProgressFunc *progress, void *opaque, GError **errp)
{
    LuksState *s = bs->opaque;
    BdrvLuksIo io = area_of(bs->file);
    BdrvLuksAmend amend;

    if (s->blind) {
        g_set_error(errp, BDRV_ERROR, EIO, "the header could not be looked at anew; close the image and open it again");
        return false;
    }
    return bdrv_luks_amend_parse(options, &amend, errp) &&
           bdrv_luks_amend(&s->luks, &io, bs->graph, &amend, s->key.secret, force, errp);
}

static void luks_refresh_limits(BlockDriverState *bs)
{
    bs->limits.request_alignment = MAX(bs->limits.request_alignment, BDRV_VOLUME_SECTOR);
}

/* ---- requests ---- */

static int check_open(const LuksState *s)
{
    return s->blind ? -EIO : s->key.volume ? 0 : -ENOKEY;
}

static int coroutine_fn luks_co_readv(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                      size_t iov_offset, BdrvRequestFlags flags)
{
    const LuksState *s = bs->opaque;

    int ret = check_open(s);

    return ret < 0 ? ret
                   : bdrv_volume_co_preadv(s->key.volume, bs->file, s->payload + offset, (uint64_t)offset, bytes, iov,
                                           iov_offset);
}

static int coroutine_fn luks_co_writev(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                       size_t iov_offset, BdrvRequestFlags flags)
{
    const LuksState *s = bs->opaque;

    int ret = check_open(s);

    return ret < 0 ? ret
                   : bdrv_volume_co_pwritev(s->key.volume, bs->file, s->payload + offset, (uint64_t)offset, bytes, iov,
                                            iov_offset, flags);
}

/* All is data, and none of it is in the file as it reads: no host offset. */
static int coroutine_fn luks_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes, BlockExtent *extent)
{
    *extent = (BlockExtent){ .kind = EXTENT_DATA, .bytes = bytes, .host_offset = -1 };
    return 0;
}

static int64_t coroutine_fn luks_getlength(BlockDriverState *bs)
{
    const LuksState *s = bs->opaque;
    int64_t file_length = bdrv_co_getlength(bs->file);

    return file_length < 0 ? file_length : MAX(file_length - s->payload, 0);
}

static bool length_fits(const LuksState *s, int64_t length, GError **errp)
{
    if (length > INT64_MAX - s->payload) {
        g_set_error(errp, BDRV_ERROR, EFBIG, "The requested file size is too large");
        return false;
    }
    return true;
}

static bool coroutine_fn luks_truncate(BlockDriverState *bs, int64_t length, bool exact, BdrvPrealloc prealloc,
                                       BdrvRequestFlags flags, GError **errp)
{
    const LuksState *s = bs->opaque;

    return length_fits(s, length, errp) &&
           bdrv_co_truncate(bs->file, s->payload + length, exact, prealloc, flags, errp);
}

static bool coroutine_fn luks_check_truncate(BlockDriverState *bs, int64_t length, bool exact, BdrvPrealloc prealloc,
                                             GError **errp)
{
    const LuksState *s = bs->opaque;

    return length_fits(s, length, errp) &&
           bdrv_co_check_truncate(bs->file, s->payload + length, exact, prealloc, errp);
}

static BdrvOptions *luks_get_specific_info(BlockDriverState *bs)
{
    const LuksState *s = bs->opaque;
    BdrvOptions *info = bdrv_options_new();

    bdrv_options_set_string(info, "type", "luks");
    bdrv_luks_describe(&s->luks, info, "data", NULL);
    return info;
}

/* ---- create ---- */

/* The length of the file of a new image, 0 with an error. */
static int64_t new_file_length(const BdrvOptions *options, BdrvLuksCreate *create, GError **errp)
{
    int64_t size = bdrv_options_get_int(options, "size", 0);

    if (!bdrv_options_has(options, "key-secret")) {
        return no_key_secret(errp);
    }
    if (!bdrv_luks_create_parse(options, create, errp)) {
        return 0;
    }
    int64_t payload = (int64_t)bdrv_luks_area_bytes(create);
    if (size > INT64_MAX - payload) {
        g_set_error(errp, BDRV_ERROR, EFBIG, "The requested file size is too large");
        return 0;
    }
    return payload + size;
}

static bool coroutine_fn luks_create(const char *filename, BdrvChild *file, const BdrvOptions *options, GError **errp)
{
    BdrvLuksIo io = area_of(file);
    BdrvLuksCreate create;
    BdrvPrealloc prealloc = BDRV_PREALLOC_OFF;
    int64_t length = new_file_length(options, &create, errp);

    if (!length) {
        return false;
    }
    bdrv_prealloc_find(bdrv_options_get_string(options, "preallocation", "off"), &prealloc);
    const char *id = bdrv_options_get_string(options, "key-secret", NULL);
    GBytes *secret = bdrv_passphrase_get(file->bs->graph, id, errp);
    if (!secret) {
        return false;
    }
    bool created = bdrv_co_truncate(file, length, true, prealloc, 0, errp) &&
                   bdrv_luks_create(&io, &create, bdrv_passphrase_of(secret), errp);
    g_bytes_unref(secret);
    return created;
}

static bool coroutine_fn luks_measure(const BdrvOptions *options, BdrvChild *source, BdrvMeasure *measure,
                                      GError **errp)
{
    BdrvLuksCreate create;
    int64_t length = new_file_length(options, &create, errp);

    measure->required = measure->fully_allocated = length;
    return length > 0;
}

static const BlockDriver bdrv_luks = {
    .format_name = "luks",
    .instance_size = sizeof(LuksState),
    .children = luks_children,
    .open_options = luks_open_options,
    .create_options = bdrv_luks_create_options,
    .amend_options = bdrv_luks_amend_options,

    .bdrv_probe = luks_probe,
    .bdrv_open = luks_open,
    .bdrv_close = luks_close,
    .bdrv_reopen_prepare = luks_reopen_prepare,
    .bdrv_reopen_commit = luks_reopen_commit,
    .bdrv_reopen_abort = luks_reopen_abort,
    .bdrv_refresh_limits = luks_refresh_limits,

    .bdrv_create = luks_create,
    .bdrv_set_key = luks_set_key,
    .bdrv_invalidate_cache = luks_invalidate_cache,
    .bdrv_amend = luks_amend,
    .bdrv_truncate = luks_truncate,
    .bdrv_check_truncate = luks_check_truncate,

    .bdrv_co_readv = luks_co_readv,
    .bdrv_co_writev = luks_co_writev,
    .bdrv_co_block_status = luks_co_block_status,
    .bdrv_getlength = luks_getlength,
    .bdrv_get_specific_info = luks_get_specific_info,
    .bdrv_measure = luks_measure,
};

void bdrv_luks_init(void);
void bdrv_luks_init(void)
{
    bdrv_register(&bdrv_luks);
}
