/* SPDX-License-Identifier: MIT */
#ifndef BDRV_DRIVER_H
#define BDRV_DRIVER_H

/*
 * The driver author's API: the table a driver fills, what it sees of a node, and the calls it may
 * make on its children.
 *
 * The core does for every driver: range checks, alignment padding with read-modify-write, splitting
 * by the limits, zero, discard and FUA fall-backs, serialising of overlapping unaligned writes,
 * flush generations, opening and closing of children. A driver never repeats these.
 */

#include <bdrv/coroutine.h>
#include <bdrv/types.h>

G_BEGIN_DECLS

#define BDRV_DRIVER_API 1 /* grows when drivers built earlier can no longer be used */

/* Part a child plays; the core derives the rights of the edge from it. */
typedef enum BdrvChildRole {
    BDRV_CHILD_PROTOCOL, /* "file" of a format: metadata and data; nobody else may write or resize */
    BDRV_CHILD_DATA,     /* "data-file" and the like: data only; nobody else may write or resize */
    BDRV_CHILD_COW,      /* "backing": read, must not change */
    BDRV_CHILD_FILTERED, /* the parent shows exactly this child, its bs->file (raw, blkdebug): rights pass through */
} BdrvChildRole;

/* A child that the core opens before bdrv_open runs, from the options "@name.…" or "@name=node-name". */
typedef struct BdrvChildSpec {
    const char *name; /* NULL ends the table */
    BdrvChildRole role;
    bool optional;
    bool is_image;               /* its format is guessed if none is given; else it is a protocol */
    const char *filename_option; /* option that names it as a user would, prefix and json: included; NULL: none */
    uint64_t reserved;
} BdrvChildSpec;

/* An edge of the graph. @bs changes only while the parent is drained. */
struct BdrvChild {
    BlockDriverState *bs;
    const char *name;
    BdrvChildRole role;
};

/* What a driver sees of its node. The core's half follows and is not visible. */
struct BlockDriverState {
    const BlockDriver *drv;
    void *opaque;       /* the driver's instance, drv->instance_size zeroed bytes; NULL if 0 */
    char *filename;     /* as bdrv_refresh_filename or the user gave it; never NULL */
    char *node_name;    /* unique in the graph; "#block…" if the user gave none */
    BdrvChild *file;    /* child named "file", or the one that a filter shows; or NULL */
    BdrvChild *backing; /* child named "backing", or NULL */
    BdrvChild *data_file; /* child named "data-file", or NULL */
    bool read_only;
    bool encrypted;
    BdrvOpenFlags open_flags; /* of this node, after inheritance */
    BDRV_ATOMIC(int64_t) length;   /* bytes; the core keeps it up to date */
    BdrvLimits limits;
    BdrvRequestFlags supported_write_flags; /* what bdrv_co_writev handles itself: FUA, COMPRESSED */
    BdrvRequestFlags supported_zero_flags;  /* what bdrv_co_write_zeroes handles: FUA, MAY_UNMAP, NO_FALLBACK */
    char *backing_filename; /* as stored in the image, NULL: none; set by bdrv_open of the driver, freed by the core */
    char *backing_format;   /* as stored, NULL: not recorded */
    char *data_filename;    /* as stored, NULL: none; as backing_filename, for the child "data-file" */
    BdrvGraph *graph;
};

/* Debug events: the names that qemu-io's break takes (l2_load, cluster_alloc …). */
typedef enum BdrvDebugEvent {
#define BDRV_EVENT(upper, lower) BDRV_EVENT_##upper,
#include <bdrv/events.h>
#undef BDRV_EVENT
    BDRV_EVENT_MAX
} BdrvDebugEvent;

/**
 * BlockDriver - the table
 *
 * One const table per driver, made with designated initialisers. Every callback but bdrv_probe,
 * bdrv_parse_filename and bdrv_refresh_filename runs in a coroutine and may yield, unless its
 * comment says "must not yield". "Drained" callbacks run with no request in the node.
 * A NULL callback means: a filter passes the call on to bs->file; others answer -ENOTSUP or what the
 * comment says.
 */
struct BlockDriver {
    /* identity */
    const char *format_name;   /* what driver= says; unique */
    const char *protocol_name; /* prefix "name:" of filenames it takes; NULL for formats */
    size_t instance_size;      /* bytes of bs->opaque */
    bool is_filter;            /* shows its "file" unchanged but for what the callbacks do */
    bool supports_backing;     /* images may name a backing file */
    const BdrvChildSpec *children;         /* NULL: no children (protocol drivers) */
    const BdrvOptionSpec *open_options;    /* besides those that every node has */
    const BdrvOptionSpec *create_options;  /* besides "size" */
    const BdrvOptionSpec *amend_options;   /* of those, what bdrv_amend takes, and more */
    /*
     * The open_options that decide what the guest sees (raw: offset, size): they make the file name
     * json:{…}, others do not show in it. Ended by NULL. A NULL table: every option does.
     */
    const char *const *strong_options;

    /* opening */

    /* Score 0 .. 100 for the first @size (<= 4096) bytes of a file; pure. NULL: never probed. */
    int (*bdrv_probe)(const uint8_t *buf, size_t size, const char *filename);
    /* Protocols: 0 .. 100 for a name without prefix (file 50 for anything, host_device 100 for a device). */
    int (*bdrv_probe_device)(const char *filename);
    /* Turn "prefix:…" (or the plain name) into options; NULL: "filename" is set to it. */
    bool (*bdrv_parse_filename)(const char *filename, BdrvOptions *options, GError **errp);
    /* New value for bs->filename from what was opened; NULL: the core composes json:{…} or the child's. */
    char *(*bdrv_refresh_filename)(BlockDriverState *bs);
    /*
     * Open. @options: validated against open_options. Children of the table are open already.
     * Sets bs->length unless bdrv_getlength is there, limits by bdrv_refresh_limits, and
     * backing_filename/backing_format and data_filename; the core opens these files afterwards, the data file
     * only if options have not said what to open.
     * On failure everything it made is undone by itself.
     */
    bool (*bdrv_open)(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags, GError **errp);
    /* Drained. Write back what is cached, free what open made. 0 or -errno; the node is closed anyway. */
    int (*bdrv_close)(BlockDriverState *bs);
    /*
     * Drained. prepare may do I/O and fail; commit and abort must not yield or fail.
     * @flags and @options are the new ones; *state is the driver's from prepare to commit/abort.
     */
    bool (*bdrv_reopen_prepare)(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags, void **state,
                                GError **errp);
    void (*bdrv_reopen_commit)(BlockDriverState *bs, void *state);
    void (*bdrv_reopen_abort)(BlockDriverState *bs, void *state);
    /*
     * Drained, after the commit of all nodes: what must be written before an image that has become writable is used. On
     * failure the core makes it read-only again; what is in memory must fit that.
     */
    bool (*bdrv_reopen_finish)(BlockDriverState *bs, GError **errp);
    /* Must not yield, nor call the core. Fill bs->limits; it holds the merged limits of the children. */
    void (*bdrv_refresh_limits)(BlockDriverState *bs);
    /*
     * Hold exactly the file locks for these rights: @used and @unshared are masks of BdrvRight.
     * An edit calls it with the union of old and new before it is published (that may fail, and
     * leaves the locks as they were), and with the new masks, or the old ones after a roll-back,
     * when it is over: locks are only given up then, which must not fail. Not called for closing.
     * Protocol drivers only. NULL: nothing to lock.
     */
    bool (*bdrv_set_rights)(BlockDriverState *bs, unsigned used, unsigned unshared, GError **errp);

    /* making and changing images */

    /*
     * Create an image. Protocols: make the file @filename of options "size". Formats: @file is the
     * opened, empty protocol node, read-write and resizable; write the image into it.
     */
    bool (*bdrv_create)(const char *filename, BdrvChild *file, const BdrvOptions *options, GError **errp);
    bool (*bdrv_delete_file)(const char *filename, GError **errp);
    /* Unlock an encrypted image that was opened without its key; requests fail with -ENOKEY until then. Drained.
     * EACCES: the key is wrong, and nothing has changed. */
    bool (*bdrv_set_key)(BlockDriverState *bs, const uint8_t *key, size_t bytes, GError **errp);
    int (*bdrv_make_empty)(BlockDriverState *bs);                 /* drained */
    bool (*bdrv_has_zero_init)(BlockDriverState *bs);             /* a new image reads as zeroes; must not yield */
    /* Resize to @length. @exact: fail rather than round up. Growing reads as zeroes whatever lies below, if
     * bdrv_has_zero_init says that new images do. Without bdrv_getlength it notes the length by bdrv_set_length(). Drained. */
    bool (*bdrv_truncate)(BlockDriverState *bs, int64_t length, bool exact, BdrvPrealloc prealloc,
                          BdrvRequestFlags flags, GError **errp);
    /* Whether bdrv_truncate would refuse this, as far as that is known before; changes nothing, works read-only. A driver
     * without it is asked by bdrv_co_check_truncate() nothing but whether it can resize, a filter's file for it. */
    bool (*bdrv_check_truncate)(BlockDriverState *bs, int64_t length, bool exact, BdrvPrealloc prealloc, GError **errp);
    /* Drained. Names as the image is to store them, NULL: none. Sets bs->backing_filename and backing_format. */
    bool (*bdrv_change_backing_file)(BlockDriverState *bs, const char *filename, const char *format, GError **errp);
    /* Drained. @options: validated against amend_options, what is not there stays as it is. @force: also what may make
     * the data unreadable (the last key). @progress: may be NULL. All that can be judged before is refused first. */
    bool (*bdrv_amend)(BlockDriverState *bs, const BdrvOptions *options, bool force, BdrvProgressFunc *progress,
                       void *opaque, GError **errp);

    /*
     * I/O; offset and bytes are multiples of limits.request_alignment and inside the node, whose length
     * counts as rounded up to that alignment (bytes past the true end read as zeroes). Writes and
     * zeroes may pass the end if the parent has the right to resize: the driver then makes the file
     * longer, the core notes the length.
     */

    /* BYTES, NOT SECTORS: @offset and @bytes count bytes, unlike in older drivers of this shape. */
    int (*bdrv_co_readv)(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov, size_t iov_offset,
                         BdrvRequestFlags flags);
    int (*bdrv_co_writev)(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                          size_t iov_offset, BdrvRequestFlags flags);
    /*
     * Whole clusters (the last one of the image may be short), stored compressed; all in one call. -EINVAL: not
     * whole clusters, -EIO: what has space already. NULL: bdrv_co_writev is called if BDRV_REQ_COMPRESSED is among
     * bs->supported_write_flags.
     */
    int (*bdrv_write_compressed)(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                 size_t iov_offset);
    /* -ENOTSUP: the core writes a buffer of zeroes instead, unless BDRV_REQ_NO_FALLBACK. */
    int (*bdrv_co_write_zeroes)(BlockDriverState *bs, int64_t offset, int64_t bytes, BdrvRequestFlags flags);
    /* A hint. -ENOTSUP is no error to the caller. */
    int (*bdrv_co_discard)(BlockDriverState *bs, int64_t offset, int64_t bytes);
    /* Copy from @src (maybe another file) to this node without passing memory; -ENOTSUP: the core copies. */
    int (*bdrv_co_copy_range)(BlockDriverState *bs, BlockDriverState *src, int64_t src_offset, int64_t dst_offset,
                              int64_t bytes, BdrvRequestFlags flags);
    /* Status of this layer from @offset, at most @bytes; NULL: all is EXTENT_DATA mapped 1:1 if there is a file. */
    int (*bdrv_co_block_status)(BlockDriverState *bs, int64_t offset, int64_t bytes, BlockExtent *extent);
    /* Write the driver's caches to the file, no barrier. NULL: nothing cached. */
    int (*bdrv_co_flush_to_os)(BlockDriverState *bs);
    /* Make everything durable, children included. NULL: the core flushes every writable child. */
    int (*bdrv_co_flush_to_disk)(BlockDriverState *bs);

    /* questions */

    int64_t (*bdrv_getlength)(BlockDriverState *bs); /* bytes or -errno; NULL: bs->length as open set it */
    int64_t (*bdrv_get_allocated_file_size)(BlockDriverState *bs); /* NULL: the sum of the children, COW excluded */
    int (*bdrv_get_info)(BlockDriverState *bs, BdrvInfo *info);    /* must not yield */
    /* "format-specific" of info: a tree {type, data.…}; NULL or NULL result: none. Must not yield. */
    BdrvOptions *(*bdrv_get_specific_info)(BlockDriverState *bs);
    /* What bdrv_create with @options ("size" is always there) and the content of @source would take on the protocol.
     * No node of the driver is involved. @source: NULL, or inside a request of it, see bdrv_co_measure_data();
     * @measure comes in as { size, size, -1 }. */
    bool (*bdrv_measure)(const BdrvOptions *options, BdrvChild *source, BdrvMeasure *measure, GError **errp);
    int (*bdrv_check)(BlockDriverState *bs, BdrvCheckResult *result, BdrvCheckFix fix); /* drained */

    /* snapshots; drained but for list. A driver that has any lists them. */

    /* Sets info->id, which the caller frees, and info->disk_size. */
    bool (*bdrv_snapshot_create)(BlockDriverState *bs, BdrvSnapshotInfo *info, GError **errp);
    bool (*bdrv_snapshot_goto)(BlockDriverState *bs, const char *id, GError **errp); /* an id, or else a name */
    bool (*bdrv_snapshot_delete)(BlockDriverState *bs, const char *id, const char *name, GError **errp); /* NULL: any */
    int (*bdrv_snapshot_list)(BlockDriverState *bs, BdrvSnapshotInfo **list); /* count or -errno; g_free each field */
    /* The node is read-only, and will not become writable any more. */
    bool (*bdrv_snapshot_load_tmp)(BlockDriverState *bs, const char *id, const char *name, GError **errp);
    int (*bdrv_save_vmstate)(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov);
    int (*bdrv_load_vmstate)(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov);

    /* persistent dirty bitmaps, <bdrv/bitmap.h>; drained but for list and read. A driver that has any has all. */

    int (*bdrv_bitmap_list)(BlockDriverState *bs, BdrvBitmapInfo **list, GError **errp); /* count, or -1 with @errp */
    /* What the calls of these names in <bdrv/bitmap.h> do; @granularity: bytes, a power of two. */
    bool (*bdrv_bitmap_add)(BlockDriverState *bs, const char *name, int64_t granularity, bool enabled, GError **errp);
    bool (*bdrv_bitmap_remove)(BlockDriverState *bs, const char *name, GError **errp);
    bool (*bdrv_bitmap_clear)(BlockDriverState *bs, const char *name, GError **errp);
    bool (*bdrv_bitmap_enable)(BlockDriverState *bs, const char *name, bool enable, GError **errp);
    bool (*bdrv_bitmap_merge)(BlockDriverState *bs, const char *name, const BdrvDirtyBits *source, GError **errp);
    BdrvDirtyBits *(*bdrv_bitmap_read)(BlockDriverState *bs, const char *name, GError **errp); /* a copy */

    /* life */
    /* Drained. The file was changed by somebody else: forget what is cached, look anew; children come first. After a
     * failure requests fail until the next one succeeds. NULL: nothing is cached but the length. */
    bool (*bdrv_invalidate_cache)(BlockDriverState *bs, GError **errp);
    /*
     * Stop what the driver does on its own (timers, jobs) and let go of requests that it holds back.
     * No new requests come, but some may still be inside and go on after this returned: nothing may
     * start again before bdrv_drain_end. Children come before their parents. Also called before bdrv_close,
     * and while a handle is being closed: then other handles' requests go on coming.
     */
    void (*bdrv_drain_begin)(BlockDriverState *bs);
    void (*bdrv_drain_end)(BlockDriverState *bs);
    void (*bdrv_debug_event)(BlockDriverState *bs, BdrvDebugEvent event); /* coroutine; may suspend the caller */
    /*
     * Why requests have failed, where the driver knows more than the error code says; NULL: nothing.
     * The caller frees it. Any thread, maybe beside requests; short, must not yield.
     */
    char *(*bdrv_explain)(BlockDriverState *bs);

    /*
     * Breakpoints, for who listens to events; these must not yield. NULL: bs->file is asked. Any thread, beside
     * requests, drains and reopens: a lock of the driver's own keeps them apart.
     * A breakpoint stops one request at @event and is gone then; the request waits for a resume.
     */
    int (*bdrv_debug_breakpoint)(BlockDriverState *bs, BdrvDebugEvent event, const char *tag);
    /* Forget the breakpoints of @tag and resume the requests; -ENOENT: no breakpoint was left of that tag. */
    int (*bdrv_debug_remove_breakpoint)(BlockDriverState *bs, const char *tag);
    int (*bdrv_debug_resume)(BlockDriverState *bs, const char *tag); /* the request stopped last; -ENOENT */
    bool (*bdrv_debug_is_suspended)(BlockDriverState *bs, const char *tag);
};

/**
 * bdrv_register() - make a driver known under its format_name
 * @drv: the table; must stay as long as the process (the core keeps a full-size copy)
 *
 * Stamps the API number and the size of the table, so that a driver built against an earlier
 * libbdrv still registers (missing tail = NULL).
 * Any thread. Returns: false with EEXIST (name or prefix taken), EINVAL (a mandatory callback is
 * missing; the message names it), ENOTSUP (newer API).
 */
#define bdrv_register(drv_) bdrv_register_full((drv_), BDRV_DRIVER_API, sizeof(BlockDriver), NULL)
BDRV_API bool bdrv_register_full(const BlockDriver *drv, unsigned api, size_t table_size, GError **errp);
/**
 * bdrv_driver_children() - a driver's table of children, ended by a NULL name; NULL if unknown, or a protocol
 * A child "backing" is not among them: bdrv_driver_supports_backing(). Any thread; valid as long as the process.
 */
BDRV_API const BdrvChildSpec *bdrv_driver_children(const char *driver);

/*
 * A module: a shared object with drivers, taken by bdrv_module_load() or from the module directory (<bdrv/bdrv.h>).
 * It exports the constant bdrv_module, which BDRV_MODULE() defines; a module of one driver is
 *
 *     bool bdrv_mine_register(GError **errp) { return bdrv_register_full(&bdrv_mine, BDRV_DRIVER_API,
 *                                                                        sizeof(BlockDriver), errp); }
 *     BDRV_MODULE(bdrv_mine_register)
 *
 * and a program that has the driver linked in calls bdrv_mine_register() itself. What the module was built for is
 * compared before init is called. init registers one or more drivers, all of which become known when it returns
 * true, or none of them: if it returns false, or one of its registrations failed. It may run in a coroutine, must not
 * load modules, and must not wait for other threads. A module is never unloaded.
 */
typedef struct BdrvModule {
    unsigned api;      /* BDRV_DRIVER_API, first in every version of this struct */
    size_t table_size; /* sizeof(BlockDriver) */
    bool (*init)(GError **errp); /* registers the drivers */
} BdrvModule;

/* The constant that a module exports: see BdrvModule. */
#define BDRV_MODULE(init_)                                                                                             \
    extern BDRV_API const BdrvModule bdrv_module;                                                                      \
    const BdrvModule bdrv_module = { BDRV_DRIVER_API, sizeof(BlockDriver), (init_) };

/*
 * ---- calls on a child: coroutine, inside a request or a callback of the core ----
 *
 * Any offset and length; the core pads, splits and bounces. Reads past the end of the child give
 * zeroes. Writes and zeroes past it make it longer if the parent has the right to resize, and are
 * -EIO otherwise. Changing a node that is read-only, or without the right to write: -EPERM. Ranges
 * that no node can have: -EIO.
 */

/** bdrv_co_preadv() / bdrv_co_pwritev() - from @iov_offset on in @iov; bdrv_co_pread() / bdrv_co_pwrite() - one buffer
 * bdrv_co_pwrite_zeroes() / bdrv_co_pdiscard() / bdrv_co_flush() - as blk_pwrite_zeroes() and its like
 * bdrv_co_copy_range() - within the host where it can, else through memory. All: 0 or -errno. */
BDRV_API int coroutine_fn bdrv_co_preadv(BdrvChild *child, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                         size_t iov_offset, BdrvRequestFlags flags);
BDRV_API int coroutine_fn bdrv_co_pwritev(BdrvChild *child, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                          size_t iov_offset, BdrvRequestFlags flags);
BDRV_API int coroutine_fn bdrv_co_pread(BdrvChild *child, int64_t offset, int64_t bytes, void *buf,
                                        BdrvRequestFlags flags);
BDRV_API int coroutine_fn bdrv_co_pwrite(BdrvChild *child, int64_t offset, int64_t bytes, const void *buf,
                                         BdrvRequestFlags flags);
BDRV_API int coroutine_fn bdrv_co_pwrite_zeroes(BdrvChild *child, int64_t offset, int64_t bytes,
                                                BdrvRequestFlags flags);
BDRV_API int coroutine_fn bdrv_co_pdiscard(BdrvChild *child, int64_t offset, int64_t bytes);
BDRV_API int coroutine_fn bdrv_co_flush(BdrvChild *child);
BDRV_API int coroutine_fn bdrv_co_copy_range(BdrvChild *src, int64_t src_offset, BdrvChild *dst, int64_t dst_offset,
                                             int64_t bytes, BdrvRequestFlags flags);
/* The same for a filter that hands its bdrv_co_copy_range on to its child. */
BDRV_API int coroutine_fn bdrv_co_copy_range_from(BlockDriverState *src, int64_t src_offset, BdrvChild *dst,
                                                  int64_t dst_offset, int64_t bytes, BdrvRequestFlags flags);
/** bdrv_find_child() - the edge to the child @name, for as long as the node is open; NULL if there is none */
BDRV_API BdrvChild *bdrv_find_child(BlockDriverState *bs, const char *name);

/**
 * bdrv_co_goes_on() - tell whoever waits for a long piece of work how far it has come, and ask whether to go on
 * For bdrv_create and bdrv_truncate that write much: see bdrv_create_image_progress(), blk_truncate_progress().
 * @done, @total: bytes of this piece
 *
 * Context: coroutine. Returns: false with ECANCELED: undo what was begun, and fail with that.
 */
BDRV_API bool coroutine_fn bdrv_co_goes_on(int64_t done, int64_t total, GError **errp);

/* Resizes the child without draining its parent: for a format whose file must grow or shrink. */
BDRV_API bool coroutine_fn bdrv_co_truncate(BdrvChild *child, int64_t length, bool exact, BdrvPrealloc prealloc,
                                            BdrvRequestFlags flags, GError **errp);
/** bdrv_co_check_truncate() - whether it would be refused, as far as that is known before; @child may be read-only */
BDRV_API bool coroutine_fn bdrv_co_check_truncate(BdrvChild *child, int64_t length, bool exact, BdrvPrealloc prealloc,
                                                  GError **errp);
BDRV_API int64_t coroutine_fn bdrv_co_getlength(BdrvChild *child);
BDRV_API int64_t coroutine_fn bdrv_co_get_allocated_file_size(BdrvChild *child);

/**
 * bdrv_co_block_status() - tell how a byte range of one layer is stored
 * @child:  node to ask; its backing file is not looked at
 * @offset: first byte, a multiple of the node's request alignment
 * @bytes:  1 .. length - @offset
 * @extent: set on success; extent->bytes is 1 .. @bytes
 *
 * Context: coroutine, inside a request; may yield.
 * Returns: 0; -EIO if metadata cannot be read; -EINVAL if out of range.
 */
BDRV_API int coroutine_fn bdrv_co_block_status(BdrvChild *child, int64_t offset, int64_t bytes, BlockExtent *extent);

/** bdrv_co_block_status_above() - the same down the backing chain; extent->depth tells the layer */
BDRV_API int coroutine_fn bdrv_co_block_status_above(BdrvChild *child, int64_t offset, int64_t bytes,
                                                     BlockExtent *extent);

/**
 * bdrv_co_measure_data() - how much of @child and its backing chain is data
 * @granularity: bytes, at least 1; a piece of this size counts whole if any of it is data
 *
 * Context: coroutine, inside a request; may yield.
 * Returns: bytes, a multiple of @granularity; -EIO if metadata cannot be read.
 */
BDRV_API int64_t coroutine_fn bdrv_co_measure_data(BdrvChild *child, int64_t granularity);

/**
 * bdrv_debug_event() - tell the drivers below @bs what is about to happen
 * Costs one test when no driver below listens. Coroutine; may yield.
 */
BDRV_API void coroutine_fn bdrv_debug_event(BlockDriverState *bs, BdrvDebugEvent event);

/** bdrv_debug_notify() - tell the embedder that a request was stopped at a breakpoint, or goes on
 * Any thread, no lock held. */
BDRV_API void bdrv_debug_notify(BlockDriverState *bs, const char *tag, bool suspended);

/** bdrv_event_name() / bdrv_event_find() - "l2_load" and back; find answers -1 */
BDRV_API const char *bdrv_event_name(BdrvDebugEvent event);
BDRV_API int bdrv_event_find(const char *name);
/** bdrv_event_parse() - the same; ENOENT names those that @name may have meant */
BDRV_API bool bdrv_event_parse(const char *name, BdrvDebugEvent *event, GError **errp);

/** bdrv_graph_get_secret() - what the embedder keeps under @id; ENOENT. The caller gives it up with g_bytes_unref(). */
BDRV_API GBytes *bdrv_graph_get_secret(BdrvGraph *graph, const char *id, GError **errp);

/** bdrv_count_cache() - a look-up of metadata in the driver's cache, for the statistics of the node
 * Costs one test while none are kept. Any thread, inside a request. */
BDRV_API void bdrv_count_cache(BlockDriverState *bs, bool hit);

/** bdrv_child_rights() - what the edge may do with the child, a mask of BdrvRight; changes while drained */
BDRV_API unsigned bdrv_child_rights(const BdrvChild *child);

/** bdrv_set_length() - the driver changed its length by itself (a write past the end did) */
BDRV_API void bdrv_set_length(BlockDriverState *bs, int64_t length);

/**
 * bdrv_blockalign() - buffer aligned for direct I/O on @bs (page size if NULL)
 * Returns: memory for bdrv_vfree(), or NULL if there is none.
 */
BDRV_API void *bdrv_try_blockalign(BlockDriverState *bs, size_t bytes);

G_END_DECLS
#endif
