/* SPDX-License-Identifier: MIT */
/*
 * BlockBackend: what embedders hold. Opening and closing are here; request.c has what every flavour
 * of I/O shares, blocking.c, callback.c and queue.c the flavours, control.c everything that changes
 * or asks about the image as a whole.
 */
#include "block/backend/backend_int.h"
#include "block/open/open.h"
#include "block/registry/registry.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>

static const BdrvOptionSpec backend_options[] = {
    { "cache.writeback", BDRV_OPTION_BOOL, "Off: every write is durable when it returns", "on", NULL },
    { NULL },
};

bool blk_known(int flags, int known, const char *what, GError **errp)
{
    if (flags & ~known) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "%s 0x%x are not known; they are of a later library, or no such flags",
                    what, (unsigned)(flags & ~known));
    }
    return !(flags & ~known);
}

bool blk_take_options(BdrvOptions *options, BdrvOpenFlags *flags, bool *given, GError **errp)
{
    const BdrvOptionSpec *const specs[] = { backend_options, NULL };
    g_autoptr(BdrvOptions) mine = bdrv_options_new();

    for (unsigned i = 0; i < bdrv_options_count(options); i++) {
        g_autofree char *text = NULL;
        const char *key;

        bdrv_options_nth(options, i, &key, NULL, &text);
        if (g_str_equal(key, "cache.writeback")) {
            bdrv_options_set_string(mine, key, text);
        }
    }
    if (!blk_known(*flags, BLK_OPEN_FLAGS, "open flags", errp) ||
        !bdrv_options_validate(mine, specs, "the block backend", errp)) {
        return false;
    }
    if (bdrv_options_remove(options, "cache.writeback")) {
        *flags &= ~BDRV_O_WRITETHROUGH;
        *flags |= bdrv_options_get_bool(mine, "cache.writeback", true) ? 0 : BDRV_O_WRITETHROUGH;
        *given = true;
    }
    return true;
}

static unsigned root_rights(const BlockDriverState *root, BdrvOpenFlags flags)
{
    unsigned used = BDRV_RIGHT_CONSISTENT_READ;

    if ((flags & BDRV_O_RDWR) && !root->read_only) {
        used |= BDRV_RIGHT_WRITE;
        used |= flags & BDRV_O_RESIZE ? BDRV_RIGHT_RESIZE : 0;
    }
    return used;
}

static unsigned root_shared(BlockDriverState *root, BdrvOpenFlags flags)
{
    bool share = !(flags & BDRV_O_NO_SHARE) || bdrv_node(root)->force_share;

    return share ? BDRV_RIGHTS_ALL : BDRV_RIGHTS_ALL & ~(BDRV_RIGHT_WRITE | BDRV_RIGHT_RESIZE);
}

static void blk_free(BlockBackend *blk)
{
    blk_locals_free(blk);
    bdrv_gate_free(blk->gate);
    bdrv_graph_unref(blk->graph);
    g_string_chunk_free(blk->texts);
    pthread_mutex_destroy(&blk->texts_lock);
    g_free(blk);
}

static BlockBackend *coroutine_fn blk_co_new(BdrvGraph *graph, BlockDriverState *root, BdrvOpenFlags flags,
                                             GError **errp)
{
    BlockBackend *blk = g_new0(BlockBackend, 1);

    blk->graph = bdrv_graph_ref(graph);
    blk->gate = bdrv_gate_new();
    blk->texts = g_string_chunk_new(256);
    pthread_mutex_init(&blk->texts_lock, NULL);
    atomic_init(&blk->name, "");
    blk->writethrough = flags & BDRV_O_WRITETHROUGH;
    blk->root = bdrv_root_attach(root, blk->gate, root->filename, root_rights(root, flags), root_shared(root, flags),
                                 errp);
    if (!blk->root) {
        bdrv_co_node_unref(root);
        blk_free(blk);
        return NULL;
    }
    if (!bdrv_graph_publish(graph, root, errp)) {
        bdrv_co_root_detach(blk->root);
        blk_free(blk);
        return NULL;
    }
    return blk;
}

BlockBackend *coroutine_fn blk_co_open(BdrvGraph *graph, const char *filename, BdrvOptions *options,
                                       BdrvOpenFlags flags, GError **errp)
{
    BlockDriverState *root;
    BlockBackend *blk;
    bool writethrough_given = false;

    if (!options) {
        options = bdrv_options_new();
    }
    if (!blk_take_options(options, &flags, &writethrough_given, errp)) {
        bdrv_options_free(options);
        return NULL;
    }
    root = bdrv_co_open_tree(graph, filename, options, flags & ~HANDLE_FLAGS, false, errp);
    blk = root ? blk_co_new(graph, root, flags, errp) : NULL;
    if (blk) {
        blk->writethrough_given = writethrough_given;
    }
    return blk;
}

static void set_close_error(int ret, const char *what, const char *filename, GError **errp)
{
    if (ret < 0 && errp && !*errp) {
        g_set_error(errp, BDRV_ERROR, -ret, "%s '%s' failed: %s", what, filename, g_strerror(-ret));
    }
}

bool coroutine_fn blk_co_close(BlockBackend *blk, GError **errp)
{
    g_autofree char *filename = NULL;
    BdrvDrain *quiesced;
    GError *error = NULL;

    if (!blk) {
        return true;
    }
    if (co_get_request()) {
        g_set_error(errp, BDRV_ERROR, EDEADLK, "'%s' cannot be closed from inside a request", blk_filename(blk));
        return false;
    }
    filename = g_strdup(blk_bs(blk)->filename);
    while (atomic_load(&blk->drains) > 0) {
        blk_co_drain_end(blk);
    }
    quiesced = bdrv_co_quiesce_begin(blk_bs(blk)); /* else it could wait for ever for a request held back */
    bdrv_gate_shut(blk->gate);
    bdrv_length_unwatch(blk_bs(blk), &blk->resize_watch);
    if (blk->root->used & BDRV_RIGHT_WRITE) {
        set_close_error(bdrv_co_flush(&blk->root->child), "flushing", filename, &error);
    }
    set_close_error(bdrv_co_root_detach(blk->root), "closing", filename, &error);
    bdrv_co_quiesce_end(blk->graph, quiesced);
    bdrv_gate_gone(blk->gate);
    blk_free(blk);
    if (error) {
        g_propagate_error(errp, error);
        return false;
    }
    return true;
}

/* ---- blocking forms ---- */

typedef struct OpenCall {
    BdrvGraph *graph;
    const char *filename;
    BdrvOptions *options;
    BdrvOpenFlags flags;
    BlockBackend *blk;
    GError **errp;
} OpenCall;

static int coroutine_fn run_open(BlockBackend *unused, void *opaque)
{
    OpenCall *call = opaque;

    call->blk = blk_co_open(call->graph, call->filename, call->options, call->flags, call->errp);
    return 0;
}

BlockBackend *blk_open(BdrvGraph *graph, const char *filename, BdrvOptions *options, BdrvOpenFlags flags,
                       GError **errp)
{
    OpenCall call = { graph, filename, options, flags, NULL, errp };

    if (!blk_has_run(blk_run_blocking(NULL, run_open, &call), errp)) {
        bdrv_options_free(options);
    }
    return call.blk;
}

BlockBackend *blk_open_fd(BdrvGraph *graph, int fd, const char *format, BdrvOptions *options, BdrvOpenFlags flags,
                          GError **errp)
{
    const BlockDriver *drv = format ? bdrv_find_format(format) : NULL;
    bool is_protocol = drv && drv->protocol_name;
    struct stat st;

    options = options ? options : bdrv_options_new();
    if (fstat(fd, &st) < 0) {
        g_set_error(errp, BDRV_ERROR, errno, "fd %d cannot be opened: %s", fd, g_strerror(errno));
        bdrv_options_free(options);
        return NULL;
    }
    if (format) {
        bdrv_options_set_string(options, "driver", format);
    }
    if (!is_protocol) {
        bdrv_options_set_string(options, "file.driver", S_ISBLK(st.st_mode) ? "host_device" : "file");
    }
    bdrv_options_set_int(options, is_protocol ? "fd" : "file.fd", fd);
    return blk_open(graph, NULL, options, flags, errp);
}

typedef struct CloseCall {
    bool ok;
    GError **errp;
} CloseCall;

static int coroutine_fn run_close(BlockBackend *blk, void *opaque)
{
    CloseCall *call = opaque;

    call->ok = blk_co_close(blk, call->errp);
    return 0;
}

bool blk_close(BlockBackend *blk, GError **errp)
{
    CloseCall call = { false, errp };

    if (!blk) {
        return true;
    }
    blk_has_run(blk_run_surely(blk, run_close, &call), errp);
    return call.ok;
}

/* ---- what a handle tells of itself ---- */

int64_t blk_length(BlockBackend *blk)
{
    return atomic_load_explicit(&blk_bs(blk)->length, memory_order_relaxed);
}

void blk_set_resize_notice(BlockBackend *blk, BlkResizeNotice *notice, void *opaque)
{
    if (bdrv_length_is_telling(blk->graph)) {
        g_critical("blk_set_resize_notice() was called from a resize notice, for whose end it waits; nothing was set");
        return;
    }
    bdrv_length_unwatch(blk_bs(blk), &blk->resize_watch);
    if (notice) {
        bdrv_length_watch(blk_bs(blk), &blk->resize_watch, notice, opaque);
    }
}

bool blk_is_read_only(BlockBackend *blk)
{
    return !(blk->root->used & BDRV_RIGHT_WRITE);
}

const char *blk_keep_text(BlockBackend *blk, const char *text)
{
    const char *kept;

    if (!text) {
        return NULL;
    }
    pthread_mutex_lock(&blk->texts_lock);
    kept = g_string_chunk_insert_const(blk->texts, text);
    pthread_mutex_unlock(&blk->texts_lock);
    return kept;
}

const char *blk_filename(BlockBackend *blk)
{
    return blk_bs(blk)->filename;
}

const char *blk_driver(BlockBackend *blk)
{
    return blk_bs(blk)->drv->format_name;
}

void blk_set_name(BlockBackend *blk, const char *device_name)
{
    atomic_store(&blk->name, device_name ? blk_keep_text(blk, device_name) : "");
}

const char *blk_name(BlockBackend *blk)
{
    return atomic_load(&blk->name);
}

BdrvGraph *blk_graph(BlockBackend *blk)
{
    return blk->graph;
}

uint32_t blk_request_alignment(BlockBackend *blk)
{
    return bdrv_node_limits(blk_bs(blk)).request_alignment;
}

int64_t blk_max_transfer(BlockBackend *blk)
{
    return bdrv_node_limits(blk_bs(blk)).max_transfer;
}

void *blk_blockalign(BlockBackend *blk, size_t bytes)
{
    return bdrv_aligned_buffer(bdrv_node_limits(blk_bs(blk)).mem_alignment, bytes);
}

void blk_set_writethrough(BlockBackend *blk, bool on)
{
    atomic_store_explicit(&blk->writethrough, on, memory_order_relaxed);
}

void blk_allow_write_beyond_eof(BlockBackend *blk, bool allow)
{
    atomic_store_explicit(&blk->beyond_eof, allow, memory_order_relaxed);
}

bool blk_probed(BlockBackend *blk)
{
    return bdrv_node(blk_bs(blk))->probed;
}

bool blk_fail_at(int ret, const char *what, BlockBackend *blk, int64_t offset, GError **errp)
{
    g_set_error(errp, BDRV_ERROR, -ret, "%s '%s' at offset %" PRId64 " failed: %s", what, blk_filename(blk), offset,
                g_strerror(-ret));
    return false;
}
