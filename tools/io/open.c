/* SPDX-License-Identifier: MIT */
/* open, reopen, close */
#include "tools/io/io.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int io_open_image(IoSession *session, const ToolImage *image)
{
    GError *error = NULL;
    int ret;

    if (session->blk) {
        tool_error("file open already, try 'help close'");
        return -EBUSY;
    }
    session->blk = tool_open(session->graph, image, &error);
    if (session->blk && (image->flags & BDRV_O_RDWR) && blk_is_read_only(session->blk)) {
        blk_close(g_steal_pointer(&session->blk), NULL);
        g_set_error(&error, BDRV_ERROR, EACCES, "Block node is read-only");
    }
    if (session->blk) {
        session->flags = image->flags;
        return 0;
    }
    ret = -bdrv_error_code(error);
    if (image->filename) {
        tool_error("can't open device %s: %s", image->filename, error->message);
    } else {
        tool_error("can't open: %s", error->message);
    }
    g_error_free(error);
    return ret;
}

static bool add_options(BdrvOptions **all, const char *text)
{
    GError *error = NULL;
    g_autoptr(BdrvOptions) more = bdrv_options_parse(text, NULL, &error);

    if (!more) {
        tool_report(NULL, error);
        return false;
    }
    if (!*all) {
        *all = bdrv_options_new();
    }
    bdrv_options_merge(*all, NULL, more);
    return true;
}

static int refuse(const char *what)
{
    tool_error("%s is not built yet", what);
    return -ENOTSUP;
}

int io_open(IoSession *session, int argc, char **argv)
{
    const IoCommand *self = io_find_command("open");
    ToolImage image = { .flags = IO_DEFAULT_FLAGS };
    g_autoptr(BdrvOptions) extra = NULL;
    int option;

    while ((option = getopt(argc, argv, "Cd:i:kno:rst:U")) != -1) {
        switch (option) {
        case 'C': return refuse("copy-on-read (-C)");
        case 's': return refuse("a snapshot file (-s)");
        case 'd':
            if (!tool_discard_mode(optarg, &image.flags)) {
                tool_error("Invalid discard option: %s", optarg);
                return -EINVAL;
            }
            break;
        case 'i': image.aio = optarg; break;
        case 'k': image.aio = "native"; break;
        case 'n': tool_cache_mode("none", &image.flags); break;
        case 'o':
            if (!add_options(&extra, optarg)) {
                return -EINVAL;
            }
            break;
        case 'r': image.flags &= ~BDRV_O_RDWR; break;
        case 't':
            if (!tool_cache_mode(optarg, &image.flags)) {
                tool_error("Invalid cache option: %s", optarg);
                return -EINVAL;
            }
            break;
        case 'U': image.flags |= BDRV_O_FORCE_SHARE; break;
        default: return io_usage(self);
        }
    }
    if (optind < argc - 1 || (optind == argc && !extra)) {
        return io_usage(self);
    }
    image.filename = argv[optind]; /* NULL: the options say it all */
    image.extra = extra;
    return io_open_image(session, &image);
}

/* What -c and -r/-w say is as good as an option: options given before do not win over it. */
static bool switches_to_options(BdrvOptions *options, BdrvOpenFlags flags, bool cache_given, bool mode_given)
{
    static const char *const cache_keys[] = { "cache.writeback", "cache.direct", "cache.no-flush" };

    for (unsigned i = 0; cache_given && i < G_N_ELEMENTS(cache_keys); i++) {
        if (bdrv_options_has(options, cache_keys[i])) {
            tool_error("Cannot set both -c and the cache options");
            return false;
        }
    }
    if (mode_given && bdrv_options_has(options, "read-only")) {
        tool_error("Cannot set both -r/-w and 'read-only'");
        return false;
    }
    if (cache_given) {
        bdrv_options_set_bool(options, "cache.writeback", !(flags & BDRV_O_WRITETHROUGH));
        bdrv_options_set_bool(options, "cache.direct", flags & BDRV_O_NOCACHE);
        bdrv_options_set_bool(options, "cache.no-flush", flags & BDRV_O_NO_FLUSH);
    }
    return true;
}

int io_reopen(IoSession *session, int argc, char **argv)
{
    const IoCommand *self = io_find_command("reopen");
    BdrvOpenFlags flags = (session->flags & ~BDRV_O_RDWR) | (blk_is_read_only(session->blk) ? 0 : BDRV_O_RDWR);
    g_autoptr(BdrvOptions) extra = NULL;
    bool mode_given = false, cache_given = false;
    GError *error = NULL;
    int option;

    while ((option = getopt(argc, argv, "c:o:rw")) != -1) {
        switch (option) {
        case 'c':
            if (!tool_cache_mode(optarg, &flags)) {
                tool_error("Invalid cache option: %s", optarg);
                return -EINVAL;
            }
            cache_given = true;
            break;
        case 'o':
            if (!add_options(&extra, optarg)) {
                return -EINVAL;
            }
            break;
        case 'r':
        case 'w':
            if (mode_given) {
                tool_error("Only one -r/-w option can be given");
                return -EINVAL;
            }
            mode_given = true;
            flags &= ~BDRV_O_RDWR;
            flags |= option == 'w' ? BDRV_O_RDWR : 0;
            break;
        default: return io_usage(self);
        }
    }
    if (optind != argc) {
        return io_usage(self);
    }
    if (!extra) {
        extra = bdrv_options_new();
    }
    if (!switches_to_options(extra, flags, cache_given, mode_given)) {
        return -EINVAL;
    }
    if (!blk_reopen(session->blk, g_steal_pointer(&extra), flags, &error)) {
        int ret = -bdrv_error_code(error);

        tool_report(NULL, error);
        return ret;
    }
    session->flags = flags;
    return 0;
}

int io_close(IoSession *session, int argc, char **argv)
{
    GError *error = NULL;
    int ret = 0;

    /* Closing waits for the requests, and lets go those that wait at breakpoints; then they are told of. */
    if (!blk_close(g_steal_pointer(&session->blk), &error)) {
        ret = -bdrv_error_code(error);
    }
    io_aio_flush(session, 0, NULL);
    if (error) {
        tool_report(NULL, error);
    }
    return ret;
}
