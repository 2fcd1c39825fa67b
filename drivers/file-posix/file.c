/* SPDX-License-Identifier: MIT */
/* The tables of the drivers "file" and "host_device"; file.h says where things are. */

#include "drivers/file-posix/file.h"

#include <sys/stat.h>

void bdrv_file_init(void);
void bdrv_host_device_init(void);

static const char *const aio_choices[] = { "threads", "native", "io_uring", "auto", NULL };
static const char *const locking_choices[] = { "on", "off", "auto", NULL };

static const BdrvOptionSpec open_options[] = {
    { "filename", BDRV_OPTION_STRING, "Name of the file" },
    { "fd", BDRV_OPTION_INT, "Open file descriptor to duplicate, instead of a filename" },
    { "aio", BDRV_OPTION_STRING, "Engine: threads, native, io_uring or auto", "auto", aio_choices },
    { "locking", BDRV_OPTION_STRING, "File locks: on, off, or auto (on where the file system has them)", "auto",
      locking_choices },
    { NULL },
};

static const char *const strong_options[] = { "filename", "fd", NULL };

/* Without its prefix a name that begins as a protocol's does would be taken for that: "file:a:b" is "./a:b". */
static bool file_parse_filename(const char *filename, BdrvOptions *options, GError **errp)
{
    const char *path = file_strip_prefix(filename, "file:");
    bool like_protocol = path != filename && path[strcspn(path, ":/")] == ':';
    g_autofree char *plain = g_strconcat(like_protocol ? "./" : "", path, NULL);

    bdrv_options_set_string(options, "filename", plain);
    return true;
}

static bool host_device_parse_filename(const char *filename, BdrvOptions *options, GError **errp)
{
    bdrv_options_set_string(options, "filename", file_strip_prefix(filename, "host_device:"));
    return true;
}

static int file_probe_device(const char *filename)
{
    return 50;
}

static int host_device_probe_device(const char *filename)
{
    struct stat st;

    return stat(filename, &st) == 0 && S_ISBLK(st.st_mode) ? 100 : 0;
}

/* A regular file is created empty; growing it makes zeroes. A device has what was on it. */
static bool file_has_zero_init(BlockDriverState *bs)
{
    return true;
}

static bool host_device_has_zero_init(BlockDriverState *bs)
{
    return false;
}

/* No clusters, no VM state: all zero. */
static int file_get_info(BlockDriverState *bs, BdrvInfo *info)
{
    return 0;
}

/* What both have in common. */
#define FILE_CALLBACKS                                                                                             \
    .instance_size = sizeof(FileState), .open_options = open_options,                                              \
    .strong_options = strong_options, .bdrv_open = file_co_open,                                                   \
    .bdrv_close = file_co_close, .bdrv_reopen_prepare = file_co_reopen_prepare,                                    \
    .bdrv_reopen_commit = file_reopen_commit, .bdrv_reopen_abort = file_reopen_abort,                              \
    .bdrv_get_info = file_get_info, .bdrv_refresh_limits = file_refresh_limits, .bdrv_refresh_filename = file_refresh_filename,                    \
    .bdrv_set_rights = file_co_set_rights, .bdrv_truncate = file_co_truncate, .bdrv_getlength = file_co_getlength, \
    .bdrv_co_readv = file_co_readv, .bdrv_co_writev = file_co_writev,                                              \
    .bdrv_co_write_zeroes = file_co_write_zeroes, .bdrv_co_discard = file_co_discard,                              \
    .bdrv_co_flush_to_disk = file_co_flush, .bdrv_co_block_status = file_co_block_status,                          \
    .bdrv_get_allocated_file_size = file_co_get_allocated_file_size

static const BlockDriver bdrv_file = {
    .format_name = "file",
    .protocol_name = "file",
    FILE_CALLBACKS,
    .create_options = file_create_options,
    .bdrv_parse_filename = file_parse_filename,
    .bdrv_probe_device = file_probe_device,
    .bdrv_create = file_co_create,
    .bdrv_delete_file = file_co_delete,
    .bdrv_has_zero_init = file_has_zero_init,
    .bdrv_co_copy_range = file_co_copy_range,
};

static const BlockDriver bdrv_host_device = {
    .format_name = "host_device",
    .protocol_name = "host_device",
    FILE_CALLBACKS,
    .bdrv_create = host_device_co_create,
    .bdrv_parse_filename = host_device_parse_filename,
    .bdrv_probe_device = host_device_probe_device,
    .bdrv_has_zero_init = host_device_has_zero_init,
};

void bdrv_file_init(void)
{
    bdrv_register(&bdrv_file);
}

void bdrv_host_device_init(void)
{
    bdrv_register(&bdrv_host_device);
}
