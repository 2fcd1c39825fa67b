/* SPDX-License-Identifier: MIT */
#include "stand.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

unsigned stand_open_nodes, stand_opened, stand_reopened;
BdrvOpenFlags stand_last_mem_flags;

static GHashTable *files; /* name -> GByteArray */

static void put_file(const char *name, const void *data, size_t bytes)
{
    GByteArray *content = g_byte_array_new();

    g_byte_array_append(content, data, (guint)bytes);
    g_hash_table_replace(files, g_strdup(name), content);
}

void stand_file(const char *name, int64_t bytes)
{
    g_autofree char *zeroes = g_malloc0((size_t)bytes);

    put_file(name, zeroes, (size_t)bytes);
}

void stand_image(const char *name, const char *backing, const char *backing_format)
{
    char header[1024] = "";

    g_snprintf(header, sizeof(header), "TFMT\n%s\n%s\n", backing ? backing : "",
               backing_format ? backing_format : "");
    put_file(name, header, sizeof(header));
}

bool stand_exists(const char *name)
{
    return g_hash_table_contains(files, name);
}

int64_t stand_length(const char *name)
{
    return ((GByteArray *)g_hash_table_lookup(files, name))->len;
}

void stand_clear(void)
{
    g_hash_table_remove_all(files);
    stand_opened = stand_reopened = 0;
}

/* ---- t-mem ---- */

typedef struct MemState {
    GByteArray *content;
} MemState;

static bool mem_open(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags, GError **errp)
{
    MemState *s = bs->opaque;
    const char *name = bdrv_options_get_string(options, "filename", "");

    s->content = g_hash_table_lookup(files, name);
    if (!s->content) {
        g_set_error(errp, BDRV_ERROR, ENOENT, "no such file");
        return false;
    }
    if ((flags & BDRV_O_RDWR) && g_str_has_prefix(name, "ro-")) {
        g_set_error(errp, BDRV_ERROR, EACCES, "may not be written");
        return false;
    }
    g_byte_array_ref(s->content);
    stand_open_nodes++;
    stand_opened++;
    stand_last_mem_flags = flags;
    return true;
}

static int mem_close(BlockDriverState *bs)
{
    MemState *s = bs->opaque;

    g_byte_array_unref(s->content);
    stand_open_nodes--;
    return 0;
}

static int64_t mem_getlength(BlockDriverState *bs)
{
    return ((MemState *)bs->opaque)->content->len;
}

static int mem_readv(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov, size_t iov_offset,
                     BdrvRequestFlags flags)
{
    MemState *s = bs->opaque;

    bdrv_iov_from_buf(iov, iov_offset, s->content->data + offset, (size_t)bytes);
    return 0;
}

static int mem_writev(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov, size_t iov_offset,
                      BdrvRequestFlags flags)
{
    MemState *s = bs->opaque;

    if (offset + bytes > s->content->len) {
        g_byte_array_set_size(s->content, (guint)(offset + bytes));
        bdrv_set_length(bs, offset + bytes);
    }
    bdrv_iov_to_buf(iov, iov_offset, s->content->data + offset, (size_t)bytes);
    return 0;
}

static bool mem_truncate(BlockDriverState *bs, int64_t length, bool exact, BdrvPrealloc prealloc,
                         BdrvRequestFlags flags, GError **errp)
{
    GByteArray *content = ((MemState *)bs->opaque)->content;
    guint before = content->len;

    g_byte_array_set_size(content, (guint)length);
    if ((guint)length > before) {
        memset(content->data + before, 0, (guint)length - before);
    }
    return true;
}

static bool mem_create(const char *filename, BdrvChild *file, const BdrvOptions *options, GError **errp)
{
    if (g_str_has_prefix(filename, "nospace")) {
        g_set_error(errp, BDRV_ERROR, ENOSPC, "no space");
        return false;
    }
    stand_file(filename, bdrv_options_get_int(options, "size", 0));
    return true;
}

static bool mem_delete(const char *filename, GError **errp)
{
    return g_hash_table_remove(files, filename);
}

static bool mem_reopen_prepare(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags, void **state,
                               GError **errp)
{
    if (bdrv_options_get_int(options, "tuning", 0) == 13) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "tuning 13 is bad luck");
        return false;
    }
    stand_reopened++;
    return true;
}

static int mem_probe_device(const char *filename)
{
    return 60; /* more than the driver for real files: plain names are ours in these tests */
}

static const BdrvOptionSpec mem_options[] = {
    { "filename", BDRV_OPTION_STRING },
    { "tuning", BDRV_OPTION_INT },
    { NULL },
};
static const char *const mem_strong[] = { "filename", NULL };
static const BdrvOptionSpec mem_create_options[] = { { "nocow", BDRV_OPTION_BOOL }, { NULL } };

static const BlockDriver mem = {
    .format_name = "t-mem",
    .protocol_name = "t-mem",
    .instance_size = sizeof(MemState),
    .open_options = mem_options,
    .create_options = mem_create_options,
    .strong_options = mem_strong,
    .bdrv_probe_device = mem_probe_device,
    .bdrv_open = mem_open,
    .bdrv_close = mem_close,
    .bdrv_reopen_prepare = mem_reopen_prepare,
    .bdrv_create = mem_create,
    .bdrv_delete_file = mem_delete,
    .bdrv_getlength = mem_getlength,
    .bdrv_truncate = mem_truncate,
    .bdrv_co_readv = mem_readv,
    .bdrv_co_writev = mem_writev,
};

/* ---- t-fmt ---- */

static int fmt_probe(const uint8_t *buf, size_t size, const char *filename)
{
    return size >= 5 && memcmp(buf, "TFMT\n", 5) == 0 ? 100 : 0;
}

static bool coroutine_fn fmt_open(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags, GError **errp)
{
    char header[513] = "";
    int ret = bdrv_co_pread(bs->file, 0, MIN(512, atomic_load(&bs->file->bs->length)), header, 0);

    if (ret < 0 || fmt_probe((uint8_t *)header, 512, NULL) == 0) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "Image is not in t-fmt format");
        return false;
    }
    g_auto(GStrv) lines = g_strsplit(header, "\n", 4);
    bs->backing_filename = *lines[1] ? g_strdup(lines[1]) : NULL;
    bs->backing_format = *lines[2] ? g_strdup(lines[2]) : NULL;
    atomic_store(&bs->length, 1 << 20);
    stand_open_nodes++;
    stand_opened++;
    return true;
}

static int fmt_close(BlockDriverState *bs)
{
    stand_open_nodes--;
    return 0;
}

static bool fmt_reopen_prepare(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags, void **state,
                               GError **errp)
{
    stand_reopened++;
    return true;
}

static int fmt_readv(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov, size_t iov_offset,
                     BdrvRequestFlags flags)
{
    return -EIO;
}

static bool coroutine_fn fmt_create(const char *filename, BdrvChild *file, const BdrvOptions *options, GError **errp)
{
    char header[512] = "";

    if (bdrv_options_get_bool(options, "fail", false)) {
        bdrv_co_pwrite(file, 0, 5, "half!", 0);
        g_set_error(errp, BDRV_ERROR, EINVAL, "asked to fail");
        return false;
    }
    g_snprintf(header, sizeof(header), "TFMT\n%s\n\n", bdrv_options_get_string(options, "backing_file", ""));
    return bdrv_co_pwrite(file, 0, sizeof(header), header, 0) == 0;
}

static const BdrvChildSpec fmt_children[] = {
    { "file", BDRV_CHILD_PROTOCOL, false },
    { "extra", BDRV_CHILD_DATA, true },
    { "image", BDRV_CHILD_FILTERED, .optional = true, .is_image = true, .filename_option = "x-image" },
    { NULL },
};
static const BdrvOptionSpec fmt_options[] = {
    { "strong", BDRV_OPTION_SIZE },
    { "weak", BDRV_OPTION_BOOL },
    { NULL },
};
static const char *const fmt_strong[] = { "strong", NULL };
static const BdrvOptionSpec fmt_create_options[] = {
    { "backing_file", BDRV_OPTION_STRING },
    { "fail", BDRV_OPTION_BOOL },
    { NULL },
};

static const BlockDriver fmt = {
    .format_name = "t-fmt",
    .supports_backing = true,
    .children = fmt_children,
    .open_options = fmt_options,
    .create_options = fmt_create_options,
    .strong_options = fmt_strong,
    .bdrv_probe = fmt_probe,
    .bdrv_open = fmt_open,
    .bdrv_close = fmt_close,
    .bdrv_reopen_prepare = fmt_reopen_prepare,
    .bdrv_create = fmt_create,
    .bdrv_co_readv = fmt_readv,
};

void stand_register(void)
{
    files = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)g_byte_array_unref);
    g_assert_true(bdrv_register(&mem));
    g_assert_true(bdrv_register(&fmt));
}
