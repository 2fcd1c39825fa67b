/* SPDX-License-Identifier: MIT */
#ifndef BDRV_BDRV_H
#define BDRV_BDRV_H

/*
 * The embedding API.
 *
 *     g_autoptr(BdrvGraph) graph = bdrv_graph_new();
 *     BlockBackend *disk = blk_open(graph, "disk.qcow2", NULL, BDRV_O_RDWR, &error);
 *     blk_pwrite(disk, 0, sizeof(buf), buf, 0);
 *     blk_close(disk, &error);
 *
 * A BdrvGraph owns all nodes and names; two graphs share nothing. A BlockBackend is a handle on a
 * root node. Any number of threads use one BlockBackend at once, each in its own AioContext; a
 * request runs where it was submitted. Three flavours of I/O: blocking, callback, and a queue.
 *
 * Who owns what. From its submission until the call returns, the callback runs or the completion is reaped, a request
 * owns what it touches: the buffers and the BdrvIov, with its array. Not before: cancelling only asks, and the callback
 * of each request comes exactly once, never inside the submission. blk_close() waits for all requests of the handle;
 * callbacks that are due then still come, in the next runs of their threads' contexts. Options that a function takes
 * are its own in any case; texts that it gives are the caller's, const ones stay until the handle is closed.
 *
 * Versions. Nodes, handles, graphs and queues are opaque. The structures of some calls will grow: such a call is inline
 * and passes the size to the function of its name with _sized, which is what other languages call. Later libraries
 * fill and read as much as the caller knows; earlier ones zero what they do not know of an answer, and refuse a
 * question with something in it that they do not know (E2BIG; flags, EINVAL).
 */

#include <bdrv/coroutine.h>
#include <bdrv/types.h>

G_BEGIN_DECLS

/* ---- graph ---- */

/** bdrv_graph_new() - without nodes, secrets or a gate; with one reference
 * bdrv_graph_ref() - one more, also each handle's; returns @graph */
BDRV_API BdrvGraph *bdrv_graph_new(void);
BDRV_API BdrvGraph *bdrv_graph_ref(BdrvGraph *graph);
BDRV_API void bdrv_graph_unref(BdrvGraph *graph); /* never does I/O; BlockBackends must be closed before */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BdrvGraph, bdrv_graph_unref)

/*
 * The opener gate: asked before a file is opened that an image (not the user) names.
 * @parent: node name of the image; @filename: absolute or protocol-prefixed name, resolved;
 * @format: driver recorded in the image, NULL if none: then *@guess may be set true to allow
 * probing for reading. Refuse with false and an error (without one it is EACCES). No gate set: everything is refused.
 * An external data file comes with @format "raw"; it is written to if the image is.
 */
typedef bool BdrvOpenerGate(void *opaque, const char *parent, const char *filename, const char *format, bool *guess,
                            GError **errp);
BDRV_API void bdrv_graph_set_opener_gate(BdrvGraph *graph, BdrvOpenerGate *gate, void *opaque);

/* Ready-made gates, for bdrv_graph_set_opener_gate(). What @opaque points to must stay as long as the gate is set.
 * They judge names: who can change the directories meanwhile can exchange a file after it was judged. */

/** bdrv_gate_none() - refuse all, as a graph without a gate does; @opaque is not used */
BDRV_API bool bdrv_gate_none(void *opaque, const char *parent, const char *filename, const char *format, bool *guess,
                             GError **errp);
/** bdrv_gate_directory() - files right in one directory, wherever symbolic links lead; no guessing
 * @opaque: its name, a const char *; for the directory of the image see g_path_get_dirname(). No json: names. */
BDRV_API bool bdrv_gate_directory(void *opaque, const char *parent, const char *filename, const char *format,
                                  bool *guess, GError **errp);
/** bdrv_gate_list() - these files only; no guessing
 * @opaque: const char *const *, ended by NULL: plain names, compared with symbolic links followed, or, letter by
 * letter, names with a prefix (json: too) */
BDRV_API bool bdrv_gate_list(void *opaque, const char *parent, const char *filename, const char *format, bool *guess,
                             GError **errp);
/** bdrv_gate_local() - local files by plain name, or json: with file and format drivers, their filename, offset, size;
 * guessing allowed. What the tools use; @opaque is not used. */
BDRV_API bool bdrv_gate_local(void *opaque, const char *parent, const char *filename, const char *format, bool *guess,
                              GError **errp);
/** bdrv_gate_any() - allow all, and guessing; @opaque is not used */
BDRV_API bool bdrv_gate_any(void *opaque, const char *parent, const char *filename, const char *format, bool *guess,
                            GError **errp);

/* Told when a request stops at a breakpoint (see blk_debug_breakpoint()), and when it goes on. @driver: whose
 * breakpoint. Runs in any thread, also inside a request: it must neither block nor call the library. */
typedef void BdrvDebugNotify(void *opaque, const char *driver, const char *tag, bool suspended);
BDRV_API void bdrv_graph_set_debug_notify(BdrvGraph *graph, BdrvDebugNotify *notify, void *opaque);

/*
 * Secrets: the passphrases and keys that images of this graph are opened and made with. Options name them by ID
 * ("key-secret"), so that they stand in no command line, file name or message. The library wipes its copies.
 */
#define BDRV_SECRET_MAX_BYTES 65536u /* a secret has at most */
/** bdrv_graph_add_secret() - keep a copy of @data under @id; EEXIST, EINVAL (too long; @id is empty). Any thread. */
BDRV_API bool bdrv_graph_add_secret(BdrvGraph *graph, const char *id, const void *data, size_t bytes, GError **errp);
/** bdrv_graph_remove_secret() - forget it; images that are open stay so. ENOENT. Any thread. */
BDRV_API bool bdrv_graph_remove_secret(BdrvGraph *graph, const char *id, GError **errp);

/** bdrv_graph_to_text() / _to_dot() - the nodes, edges and rights; caller frees */
BDRV_API char *bdrv_graph_to_text(BdrvGraph *graph);
BDRV_API char *bdrv_graph_to_dot(BdrvGraph *graph);

/* ---- registry ---- */

/** bdrv_driver_nth() - format_name of the @n-th driver in alphabetical order, NULL past the end */
BDRV_API const char *bdrv_driver_nth(unsigned n);
/** bdrv_format_names() - the formats that images are recognised as, in alphabetical order between spaces; g_free() it */
BDRV_API char *bdrv_format_names(void);
/** bdrv_driver_known() - whether driver=@name can be opened */
BDRV_API bool bdrv_driver_known(const char *name);
/** bdrv_protocol_known() - whether @filename begins with no "x:" (a path, then), or with that of a protocol driver */
BDRV_API bool bdrv_protocol_known(const char *filename);
/**
 * bdrv_module_load() - load a shared object that brings drivers, see BDRV_MODULE in <bdrv/driver.h>
 * @filename: relative to the current directory; no other place is looked at
 *
 * Its drivers are like built-in ones from then on, for the life of the process. Any thread. Fails, with no driver
 * registered, with ENOENT or EINVAL (no file, no module, nothing registered, a mandatory callback is missing), ENOTSUP
 * (built for a newer API or larger table; the message has both. The program is static, or has a static libbdrv inside
 * and the module the shared one), EEXIST (a name or prefix is taken) or what its init says.
 *
 * The modules (*.so, in the order of their names) of the directory that the environment's BDRV_MODULE_DIR names are
 * loaded by the first look-up of a driver; "" means none, and without it the directory is that of the installation
 * (pkg-config --variable=moduledir bdrv-driver). Programs that run with more rights than their user has ignore
 * the environment.
 */
BDRV_API bool bdrv_module_load(const char *filename, GError **errp);
/** bdrv_module_dir_errors() - what went wrong in the module directory, a line each; NULL: nothing */
BDRV_API const char *bdrv_module_dir_errors(void);
typedef enum BdrvOptionTable {
    BDRV_TABLE_OPEN,
    BDRV_TABLE_CREATE,
    BDRV_TABLE_AMEND,
} BdrvOptionTable;
/** bdrv_driver_options() - a driver's option table, ended by a NULL name; NULL if unknown or it has none */
BDRV_API const BdrvOptionSpec *bdrv_driver_options(const char *driver, BdrvOptionTable table);
/** bdrv_driver_can_create() / bdrv_driver_supports_backing() / bdrv_driver_can_compress(): BDRV_REQ_COMPRESSED */
BDRV_API bool bdrv_driver_can_create(const char *driver);
BDRV_API bool bdrv_driver_supports_backing(const char *driver);
BDRV_API bool bdrv_driver_can_compress(const char *driver);

/* ---- opening ---- */

/**
 * blk_open() - open an image and get a handle on it
 * @graph: where its nodes live
 * @filename: plain name, "protocol:…" or "json:{…}"; NULL if @options say it all
 * @options: taken (freed in any case); NULL: none. "driver" absent: the format is probed
 * @flags: of the root, inherited by its file
 *
 * Rights of the handle: read always; write with BDRV_O_RDWR; resize with BDRV_O_RESIZE; it shares all, with
 * BDRV_O_NO_SHARE reading only.
 * Returns: a handle for blk_close(), or NULL with @errp set; nothing is left open then.
 */
BDRV_API BlockBackend *blk_open(BdrvGraph *graph, const char *filename, BdrvOptions *options, BdrvOpenFlags flags,
                                GError **errp);
BDRV_API BlockBackend *coroutine_fn blk_co_open(BdrvGraph *graph, const char *filename, BdrvOptions *options,
                                                BdrvOpenFlags flags, GError **errp);

/**
 * blk_open_fd() - open an image by a file descriptor
 * @fd: of a regular file or a block device. It is duplicated (close-on-exec) and stays the caller's, who may close it
 * right after. Where another access mode or O_DIRECT is wanted than it has, here or in a later reopen, the file
 * is opened anew through /proc/self/fd, so that its flags stay as they are. Locks are taken as for a file by name.
 * @format: driver of the image; NULL: it is probed
 * @options: taken; NULL: none. As for blk_open(), which does the same with file.driver=file,file.fd=N.
 *
 * The image has no directory: what it names relative to its own is refused, an option backing… must say it.
 * Returns: as blk_open(); EBADF if @fd is not open.
 */
BDRV_API BlockBackend *blocking_fn blk_open_fd(BdrvGraph *graph, int fd, const char *format, BdrvOptions *options,
                                               BdrvOpenFlags flags, GError **errp);

/**
 * blk_close() - wait for the handle's requests, flush if writable, close nodes nobody else uses
 * Drains begun through the handle end; as any request it waits for the end of drains by others that reach
 * its nodes.
 * Returns: false with the first error of flushing or closing; the handle is gone in any case but one:
 * EDEADLK, from where closing would wait for itself (a callback, a request; blk_close() also a coroutine).
 * NULL @blk is allowed. Queues of the handle must be freed before.
 */
BDRV_API bool blk_close(BlockBackend *blk, GError **errp);
BDRV_API bool coroutine_fn blk_co_close(BlockBackend *blk, GError **errp);

/**
 * bdrv_create_image() - make an image file
 * @format: driver; @filename: plain or prefixed; @options: taken; "size" in bytes and create options
 * Protocol file is made first (an existing one is emptied), then the format is written into it.
 */
BDRV_API bool bdrv_create_image(BdrvGraph *graph, const char *format, const char *filename, BdrvOptions *options,
                                GError **errp);
/**
 * bdrv_create_image_progress() - the same, for who wants to know how far preallocation=full is, and may stop it
 * @progress: called with @opaque, in bytes written; NULL: never. False: ECANCELED, and what is left is what any failure
 * leaves
 */
BDRV_API bool bdrv_create_image_progress(BdrvGraph *graph, const char *format, const char *filename,
                                         BdrvOptions *options, BdrvProgressFunc *progress, void *opaque, GError **errp);

/**
 * bdrv_measure_image() - how large the file of a new image would be; nothing is made
 * @format: driver of the new image
 * @options: taken; create options as for bdrv_create_image(). "size" in bytes is left out if there is a @source.
 * @source: whose content the image is to have; NULL: it stays empty
 * Returns: false, with ENOTSUP for formats that do not know, EFBIG if no image can be so large, EDEADLK from a
 * coroutine or a callback, EIO where @source cannot be read; @measure is untouched then.
 */
BDRV_API bool blocking_fn bdrv_measure_image_sized(const char *format, BdrvOptions *options, BlockBackend *source,
                                                   BdrvMeasure *measure, size_t measure_size, GError **errp);
static inline bool blocking_fn bdrv_measure_image(const char *format, BdrvOptions *options, BlockBackend *source,
                                                  BdrvMeasure *measure, GError **errp)
{
    return bdrv_measure_image_sized(format, options, source, measure, sizeof(*measure), errp);
}

/*
 * ---- blocking I/O: 0 or -errno; -EDEADLK from a coroutine or a callback ----
 *
 * Any offset and length inside the disk; -EIO outside. Changes of a read-only image: -EPERM, also of no bytes. Flags that
 * this library does not know, and a BdrvIov of more than SSIZE_MAX bytes, here and in the other flavours: -EINVAL.
 */

/** blk_pread() / blk_pwrite() - from and to one buffer of @bytes
 * blk_preadv() / blk_pwritev() - as many bytes as @iov has */
BDRV_API int blocking_fn blk_pread(BlockBackend *blk, int64_t offset, int64_t bytes, void *buf, BdrvRequestFlags flags);
BDRV_API int blocking_fn blk_pwrite(BlockBackend *blk, int64_t offset, int64_t bytes, const void *buf,
                                    BdrvRequestFlags flags);
BDRV_API int blocking_fn blk_preadv(BlockBackend *blk, int64_t offset, const BdrvIov *iov, BdrvRequestFlags flags);
BDRV_API int blocking_fn blk_pwritev(BlockBackend *blk, int64_t offset, const BdrvIov *iov, BdrvRequestFlags flags);
/** blk_pwrite_zeroes() - let the range read as zeroes, without writing them where that can be had */
BDRV_API int blocking_fn blk_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes, BdrvRequestFlags flags);
/** blk_pdiscard() - the content is no longer needed: a hint, and nothing without BDRV_O_UNMAP */
BDRV_API int blocking_fn blk_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes);
/** blk_flush() - make durable what was written by requests that had ended before */
BDRV_API int blocking_fn blk_flush(BlockBackend *blk);
/** blk_block_status() - how the range begins to be stored in the image itself; extent->bytes is 1 .. @bytes */
BDRV_API int blocking_fn blk_block_status(BlockBackend *blk, int64_t offset, int64_t bytes, BlockExtent *extent);
/** blk_block_status_above() - down the chain */
BDRV_API int blocking_fn blk_block_status_above(BlockBackend *blk, int64_t offset, int64_t bytes, BlockExtent *extent);
/** blk_copy_range() - within the host where it can, else through memory */
BDRV_API int blocking_fn blk_copy_range(BlockBackend *src, int64_t src_offset, BlockBackend *dst, int64_t dst_offset,
                                        int64_t bytes, BdrvRequestFlags flags);

/* One range of a map, which stays valid during the call. Whether to go on. It must not call the library. */
typedef bool BlkMapFunc(void *opaque, int64_t offset, const BlockExtent *extent);
/**
 * blk_map() - tell how a range is stored, extent by extent
 * @offset, @bytes: inside the disk
 * @chain: as blk_block_status_above() sees it; false: the image alone
 * @func: called in order with what lies between, neighbours that differ in nothing but their place joined
 *
 * Requests of others may change what was told already.
 * Returns: 0, also if @func ended it; -EIO (out of range, or metadata cannot be read), -EDEADLK, or another -errno.
 */
BDRV_API int blocking_fn blk_map(BlockBackend *blk, int64_t offset, int64_t bytes, bool chain, BlkMapFunc *func,
                                 void *opaque);

/* ---- coroutine I/O, in the calling coroutine ---- */

/** blk_co_preadv() / blk_co_pwritev() / blk_co_pread() / blk_co_pwrite() / blk_co_pwrite_zeroes() / blk_co_pdiscard() /
 * blk_co_flush() / blk_co_block_status() / blk_co_block_status_above() / blk_co_copy_range() - as the blocking calls */
BDRV_API int coroutine_fn blk_co_preadv(BlockBackend *blk, int64_t offset, const BdrvIov *iov, BdrvRequestFlags flags);
BDRV_API int coroutine_fn blk_co_pwritev(BlockBackend *blk, int64_t offset, const BdrvIov *iov, BdrvRequestFlags flags);
BDRV_API int coroutine_fn blk_co_pread(BlockBackend *blk, int64_t offset, int64_t bytes, void *buf,
                                       BdrvRequestFlags flags);
BDRV_API int coroutine_fn blk_co_pwrite(BlockBackend *blk, int64_t offset, int64_t bytes, const void *buf,
                                        BdrvRequestFlags flags);
BDRV_API int coroutine_fn blk_co_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes,
                                               BdrvRequestFlags flags);
BDRV_API int coroutine_fn blk_co_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes);
BDRV_API int coroutine_fn blk_co_flush(BlockBackend *blk);
BDRV_API int coroutine_fn blk_co_block_status(BlockBackend *blk, int64_t offset, int64_t bytes, BlockExtent *extent);
BDRV_API int coroutine_fn blk_co_block_status_above(BlockBackend *blk, int64_t offset, int64_t bytes,
                                                    BlockExtent *extent);
BDRV_API int coroutine_fn blk_co_copy_range(BlockBackend *src, int64_t src_offset, BlockBackend *dst,
                                            int64_t dst_offset, int64_t bytes, BdrvRequestFlags flags);

/* ---- callback I/O ---- */

typedef struct BlkRequest BlkRequest; /* a request in flight; opaque */
/* @ret: 0 or -errno. Runs exactly once, in the submitting thread's context, never inside the submission. */
typedef void BlkCompletion(void *opaque, int ret);

/*
 * The request handle is valid until the callback has run. @iov must stay valid as long. Returns NULL,
 * and no callback comes, only if the thread has no context and none can be made. A process has about 32000
 * stacks for requests at a time (vm.max_map_count): without one a request waits until another one of this handle and
 * thread has ended, and ends with -ENOMEM if there is none or the handle is drained.
 */
BDRV_API BlkRequest *blk_aio_preadv(BlockBackend *blk, int64_t offset, const BdrvIov *iov, BdrvRequestFlags flags,
                                    BlkCompletion *cb, void *opaque);
BDRV_API BlkRequest *blk_aio_pwritev(BlockBackend *blk, int64_t offset, const BdrvIov *iov, BdrvRequestFlags flags,
                                     BlkCompletion *cb, void *opaque);
BDRV_API BlkRequest *blk_aio_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes, BdrvRequestFlags flags,
                                           BlkCompletion *cb, void *opaque);
BDRV_API BlkRequest *blk_aio_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes, BlkCompletion *cb,
                                      void *opaque);
BDRV_API BlkRequest *blk_aio_flush(BlockBackend *blk, BlkCompletion *cb, void *opaque);
/** blk_aio_cancel() - ask a request to end early (-ECANCELED if it had not started); the callback still comes
 * Calling thread: the one that submitted it. */
BDRV_API void blk_aio_cancel(BlkRequest *request);

/* ---- queue I/O: one queue per thread; nothing is allocated per request ---- */

typedef struct BlkQueue BlkQueue; /* opaque */
/* What a submission asks for. */
typedef enum BlkOp {
    BLK_OP_READ,
    BLK_OP_WRITE,
    BLK_OP_WRITE_ZEROES,
    BLK_OP_DISCARD,
    BLK_OP_FLUSH,
} BlkOp;
/* A request of a queue. */
typedef struct BlkSubmission {
    BlkOp op;
    BdrvRequestFlags flags;
    int64_t offset, bytes; /* bytes: of ZEROES and DISCARD; READ and WRITE take the iov's */
    const BdrvIov *iov;    /* stays valid until reaped */
    uint64_t user_data;
    uint64_t reserved; /* zero, or it ends with -EINVAL */
} BlkSubmission;
/* How a request of a queue ended. */
typedef struct BlkQueueCompletion {
    uint64_t user_data;
    int result; /* 0 or -errno */
    uint32_t reserved;
} BlkQueueCompletion;

/** blk_queue_new() - a queue of the calling thread for at most @depth (1 .. 65536) requests in flight */
BDRV_API BlkQueue *blk_queue_new(BlockBackend *blk, unsigned depth, GError **errp);
/** blk_queue_free() - wait for what is in flight, then let go of the queue; NULL is allowed
 * Returns: 0; -EDEADLK if it would have to wait in a coroutine or a callback: the queue is still there then. */
BDRV_API int blocking_fn blk_queue_free(BlkQueue *queue);
/** blk_queue_submit() - note a request; it starts with blk_queue_ring()
 * Returns: false if @depth are in flight: submitted and not yet reaped. */
BDRV_API bool blk_queue_submit(BlkQueue *queue, const BlkSubmission *submission);
/** blk_queue_ring() - start what was submitted; returns how many */
BDRV_API unsigned blk_queue_ring(BlkQueue *queue);
/** blk_queue_reap() - take up to @max completions; runs the thread's context once without blocking if none is there
 * That may complete requests of the thread's other queues as well: who sleeps in aio_context_run() reaps all of them
 * once more before, or has one queue for all.
 * Returns: how many were stored. */
BDRV_API unsigned blk_queue_reap(BlkQueue *queue, BlkQueueCompletion *completions, unsigned max);
/** blk_queue_wait() - as reap, but runs the context until at least one is there or nothing is in flight */
BDRV_API unsigned blocking_fn blk_queue_wait(BlkQueue *queue, BlkQueueCompletion *completions, unsigned max);
/** blk_queue_eventfd() - readable when completions wait to be reaped (eventfd(2); made on first call) */
BDRV_API int blk_queue_eventfd(BlkQueue *queue);

/* ---- handles ---- */

/* What is told here may be asked in any thread and context, while others reopen, resize or change the image, and does not
 * wait unless that is said: it was so at some moment of the call. */
BDRV_API int64_t blk_length(BlockBackend *blk); /* bytes */
/* The disk is @length bytes long now. Must neither block nor call the library, but for
 * blk_length() and aio_call(). */
typedef void BlkResizeNotice(void *opaque, int64_t length);
/**
 * blk_set_resize_notice() - be told when the disk's length changes, whoever changes it
 * @notice: called with @opaque; NULL: nobody is told any more
 *
 * That is blk_truncate(), here or through another handle of the graph, blk_commit(), blk_snapshot_goto(), blk_amend(),
 * blk_reopen(), blk_invalidate_cache(), or a write past the end that was allowed. The notice runs in the thread that
 * makes the change, inside that call: when blk_truncate() returns, it has run. No request is under way then, but for
 * writes that make the disk longer by themselves; those that wait for a resize meet the new length. Notices of a graph
 * come one after another, those of a handle each with a length other than the one before, the last with the one that
 * holds; a change that fails half-way may give one and take it back.
 *
 * Any thread, but one at a time for a handle, and not a notice of the graph, which it would wait for: there it says so
 * (g_critical()) and sets nothing. It replaces the one before, which is neither running
 * nor called any more when this returns, nor is any when blk_close() does: hold no lock that the notice takes. Ask for
 * the length after it is set: later changes are told. Requests cost what they did. What others do to the file, or is
 * done in another graph, is told when blk_invalidate_cache() finds it; so is, to a handle on a filter, what writes past
 * the end made of the file below through another handle.
 */
BDRV_API void blk_set_resize_notice(BlockBackend *blk, BlkResizeNotice *notice, void *opaque);
BDRV_API bool blk_is_read_only(BlockBackend *blk); /* opened so, or reopened */
/* Of the root node, as it was opened; json:{…} if no name says it all. A reopen does not change it. */
BDRV_API const char *blk_filename(BlockBackend *blk);
BDRV_API const char *blk_driver(BlockBackend *blk); /* format_name of the root node */
/* For the embedder's own use, as the name of a device; copied, NULL: "". Each name that was ever given takes memory until
 * the handle is closed. */
BDRV_API void blk_set_name(BlockBackend *blk, const char *device_name);
BDRV_API const char *blk_name(BlockBackend *blk); /* what blk_set_name() gave last, or "" */
BDRV_API BdrvGraph *blk_graph(BlockBackend *blk); /* that it was opened in */
BDRV_API uint32_t blk_request_alignment(BlockBackend *blk); /* bytes; what is not aligned is padded */
BDRV_API int64_t blk_max_transfer(BlockBackend *blk); /* 0: no limit */
BDRV_API void *blk_blockalign(BlockBackend *blk, size_t bytes); /* aligned for direct I/O; bdrv_vfree */
/** blk_has_zero_init() - a new image reads as zeroes
 * Waits while the handle is drained, as a request does; in a callback, which cannot wait, it is false then. */
BDRV_API bool blk_has_zero_init(BlockBackend *blk);
BDRV_API void blk_set_writethrough(BlockBackend *blk, bool on); /* every write is FUA: BDRV_O_WRITETHROUGH */
/** blk_allow_write_beyond_eof() - let writes past the end grow the image (protocol or raw nodes; off)
 * The handle must have been opened with BDRV_O_RESIZE. */
BDRV_API void blk_allow_write_beyond_eof(BlockBackend *blk, bool allow);
/** blk_probed() - whether the format was guessed, not given */
BDRV_API bool blk_probed(BlockBackend *blk);

/* Drain: no request of any handle is inside the nodes under @blk until the matching end. Nests.
 * -EDEADLK inside a request. Requests made meanwhile wait for the end: a blocking one waits for ever
 * if the end is due in its own thread. */
BDRV_API int blocking_fn blk_drain_begin(BlockBackend *blk);
BDRV_API void blocking_fn blk_drain_end(BlockBackend *blk);
BDRV_API int coroutine_fn blk_co_drain_begin(BlockBackend *blk);
BDRV_API void coroutine_fn blk_co_drain_end(BlockBackend *blk);

/** blk_reopen() - change flags and options of the root node and what inherits from it; all or nothing
 * Options given at open or in an earlier reopen (cache.direct=on) stay and win over @flags, but for read-only. */
BDRV_API bool blocking_fn blk_reopen(BlockBackend *blk, BdrvOptions *options_taken, BdrvOpenFlags flags,
                                     GError **errp);
BDRV_API bool coroutine_fn blk_co_reopen(BlockBackend *blk, BdrvOptions *options_taken, BdrvOpenFlags flags,
                                         GError **errp);

/** blk_check_truncate() - whether blk_truncate() would refuse this, as far as is known before; @blk may be read-only */
BDRV_API bool blocking_fn blk_check_truncate(BlockBackend *blk, int64_t length, bool exact, BdrvPrealloc prealloc,
                                             GError **errp);
/** blk_truncate() - resize; see the driver table */
BDRV_API bool blocking_fn blk_truncate(BlockBackend *blk, int64_t length, bool exact, BdrvPrealloc prealloc,
                                       BdrvRequestFlags flags, GError **errp);
/** blk_truncate_progress() - the same, for who wants to know how far preallocation is, and may stop it
 * @progress: called with @opaque, in bytes preallocated; NULL: never. False: ECANCELED, and the length is what it was */
BDRV_API bool blocking_fn blk_truncate_progress(BlockBackend *blk, int64_t length, bool exact, BdrvPrealloc prealloc,
                                                BdrvRequestFlags flags, BdrvProgressFunc *progress, void *opaque,
                                                GError **errp);
/**
 * blk_set_key() - unlock an encrypted image that was opened with BDRV_O_NO_KEY
 * @key, @bytes: the passphrase (luks) or key (aes); not kept
 *
 * Until then its requests fail with -ENOKEY, while blk_info() and its like work. Waits until no request is inside.
 * Fails with EACCES (the key is wrong, the image stays as it was), ENOTSUP (it is not encrypted).
 */
BDRV_API bool blocking_fn blk_set_key(BlockBackend *blk, const void *key, size_t bytes, GError **errp);
BDRV_API bool coroutine_fn blk_co_set_key(BlockBackend *blk, const void *key, size_t bytes, GError **errp);

/**
 * blk_check() - check (and repair) the image's metadata; result->report is called in this thread
 * @result: set on success: what is wrong, after a repair what is left, and how much was repaired
 * @fix: anything but BDRV_FIX_NONE wants a writable image, unless BDRV_FIX_DRY_RUN is with it. BDRV_FIX_ERRORS goes
 * with BDRV_FIX_LEAKS.
 *
 * Fails with ENOTSUP (the format has no check), EROFS, EBUSY (a repair of an image that was found corrupt while it
 * served: close it, open it with BDRV_O_CHECK), or an I/O error; a repair that fails leaves the image no worse.
 */
BDRV_API bool blocking_fn blk_check_sized(BlockBackend *blk, BdrvCheckResult *result, size_t result_size,
                                          BdrvCheckFix fix, GError **errp);
static inline bool blocking_fn blk_check(BlockBackend *blk, BdrvCheckResult *result, BdrvCheckFix fix, GError **errp)
{
    return blk_check_sized(blk, result, sizeof(*result), fix, errp);
}
/**
 * blk_change_backing_file() - write another backing file into the image
 * @filename: as stored, at most 1023 bytes; NULL or "": none
 * @format: its driver, NULL: not recorded
 *
 * Only the image changes: the nodes that are open stay (close and open it to see the new chain), and what the image
 * reads as is up to the caller. blk_layer() tells the new names.
 * Fails with ENOTSUP, EACCES (read-only), EINVAL (too long, or the image can have none), or an I/O error: then it
 * names the old file.
 */
BDRV_API bool blocking_fn blk_change_backing_file(BlockBackend *blk, const char *filename, const char *format,
                                                  GError **errp);
/**
 * blk_make_empty() - drop all data of the image: its backing file shows everywhere, or zeroes; snapshots stay
 *
 * Fails with ENOTSUP (the format cannot; a raw external data file), EACCES (read-only), or an I/O error: then some of
 * it may be gone. After a power loss meanwhile, too.
 */
BDRV_API bool blocking_fn blk_make_empty(BlockBackend *blk, GError **errp);
/**
 * blk_amend() - change what create options decided: version, width of refcounts, size, key slots …
 * @options: those of bdrv_driver_options(…, BDRV_TABLE_AMEND) that are to change; NULL: none
 * @force: also what may make the data unreadable, as erasing the last key
 * @progress: called with @opaque every now and then; NULL: never. False: ECANCELED, as a failure
 *
 * Fails with ENOTSUP (the format cannot; what the image has cannot be kept), EACCES (read-only), EINVAL, or an I/O
 * error: then some of the options may have changed, each of them wholly. After a power loss meanwhile, too.
 */
BDRV_API bool blocking_fn blk_amend(BlockBackend *blk, const BdrvOptions *options, bool force,
                                    BdrvProgressFunc *progress, void *opaque, GError **errp);
/**
 * blk_invalidate_cache() - forget what is cached of the image and of all files below it, and look at them anew
 *
 * For who keeps an image open, without locks or read-only, while somebody else writes it and tells when to look. What
 * a writable handle has not written yet is written first. Requests wait meanwhile; what they read before is not taken
 * back. An encrypted image keeps its key. Fails with ENOTSUP (it names another backing file now, or is no longer
 * encrypted as it was), EKEYREJECTED (another key), EINVAL (no valid image any more) or an I/O error: requests fail
 * then until a later call succeeds; the handle can be closed.
 */
BDRV_API bool blocking_fn blk_invalidate_cache(BlockBackend *blk, GError **errp);
/* What an operation wrote, or would have written, in bytes. */
typedef struct BlkMoved {
    int64_t data, zeroes;
    int64_t reserved[2];
} BlkMoved;
/* How to commit. */
typedef struct BlkCommitOptions {
    bool keep_top;              /* do not empty @top afterwards; always if a layer between has been committed too */
    int64_t rate_limit;         /* bytes of data a second, 0: none */
    BdrvProgressFunc *progress; /* called with @opaque, in bytes of @top; NULL: never. False: ECANCELED, as a failure */
    void *opaque;
    BlkMoved *moved;            /* set on success: what was written into @base; NULL: not wanted */
    bool dry_run;               /* find out what would be written, and write nothing; both may be read-only */
} BlkCommitOptions;
/**
 * blk_commit() - write what @top has into @base, so that @base alone reads as @top did over it
 * @top: writable unless it is kept; its chain is opened without @base: BDRV_O_NO_BACKING if @base is next below, else
 * the lowest layer above it with backing=null
 * @base: a handle of its own, writable
 *
 * @base becomes longer if @top is, never shorter. It is flushed before @top is emptied, so a power loss costs nothing:
 * at worst both have the data. Layers between read differently afterwards. Other requests to @top must not write
 * meanwhile. Fails with ENOMEM or what reading, writing, resizing or emptying says; committing once more is safe then.
 */
BDRV_API bool blocking_fn blk_commit_sized(BlockBackend *top, BlockBackend *base, const BlkCommitOptions *options,
                                           size_t options_size, GError **errp);
static inline bool blocking_fn blk_commit(BlockBackend *top, BlockBackend *base, const BlkCommitOptions *options,
                                          GError **errp)
{
    return blk_commit_sized(top, base, options, sizeof(*options), errp);
}
/* How to rebase. */
typedef struct BlkRebaseOptions {
    const char *filename, *format; /* as the image is to store them: blk_change_backing_file() */
    BdrvProgressFunc *progress;    /* called with @opaque, in bytes of the image; NULL: never. False: ECANCELED */
    void *opaque;
    BlkMoved *moved;               /* set on success: what was written into @top; NULL: not wanted */
    bool dry_run;                  /* find out what would be written, and write nothing; @top may be read-only */
} BlkRebaseOptions;
/**
 * blk_rebase() - give the image another backing file so that it reads as before
 * @top: writable, opened with its old backing chain
 * @to: the new backing file, opened by itself; NULL: none
 *
 * What @top shows of the old chain, and would not show of @to, is written into @top; then the header names the new file.
 * The old chain stays open. After a failure or a power loss @top has the old one or the new one, and reads as before.
 */
BDRV_API bool blocking_fn blk_rebase_sized(BlockBackend *top, BlockBackend *to, const BlkRebaseOptions *options,
                                           size_t options_size, GError **errp);
static inline bool blocking_fn blk_rebase(BlockBackend *top, BlockBackend *to, const BlkRebaseOptions *options,
                                          GError **errp)
{
    return blk_rebase_sized(top, to, options, sizeof(*options), errp);
}
/** blk_get_info() - cluster size and the like; 0, -ENOTSUP, -EDEADLK: @info is untouched then */
BDRV_API int blocking_fn blk_get_info_sized(BlockBackend *blk, BdrvInfo *info, size_t info_size);
static inline int blocking_fn blk_get_info(BlockBackend *blk, BdrvInfo *info)
{
    return blk_get_info_sized(blk, info, sizeof(*info));
}
/**
 * blk_get_limits() - alignments and maxima of requests, as the configuration of a device has them
 *
 * None has to be kept: requests are padded and split. What keeps them comes to the driver as it is. A discard gives
 * back whole units of pdiscard_alignment, zeroes are cheap in those of pwrite_zeroes_alignment. They may change when
 * the handle is reopened or its cache invalidated. Any thread and context, never waits. Returns: 0.
 */
BDRV_API int blk_get_limits_sized(BlockBackend *blk, BdrvLimits *limits, size_t limits_size);
static inline int blk_get_limits(BlockBackend *blk, BdrvLimits *limits)
{
    return blk_get_limits_sized(blk, limits, sizeof(*limits));
}
/** blk_get_specific_info() - the root driver's "format-specific" tree, NULL if none; caller frees
 * blk_layer_specific_info() - that of a layer, see blk_layer()
 *
 * Waits while the handle is drained, as a request does; in a callback, which cannot wait, it is NULL then. */
BDRV_API BdrvOptions *blk_get_specific_info(BlockBackend *blk);
/** blk_explain() - why requests have failed, where a driver below knows more than the error code says (what
 * blkverify found); NULL: none does. Caller frees. */
BDRV_API char *blk_explain(BlockBackend *blk);
/** blk_list_snapshots() - count or -errno; free with bdrv_snapshot_list_free() */
BDRV_API int blocking_fn blk_list_snapshots(BlockBackend *blk, BdrvSnapshotInfo **list);
BDRV_API void bdrv_snapshot_list_free(BdrvSnapshotInfo *list, int count);
/** bdrv_snapshot_find() - index of the first one with this id and this name (NULL: any), or -1 */
BDRV_API int bdrv_snapshot_find(const BdrvSnapshotInfo *list, int count, const char *id, const char *name);
/**
 * blk_snapshot_create() - keep the disk as it is now under a name, inside the image
 * @info: name, date, vm_clock_ns, icount and vm_state_size (0: none was saved) are taken; id (the caller frees it) and
 * disk_size are set
 *
 * Names need not be unique, and may be empty. Requests of other threads wait meanwhile. Fails with ENOTSUP (the format has no
 * snapshots), EACCES, EINVAL (damaged metadata; a refcount has no room for one more), EFBIG (too many), ENOSPC, EIO:
 * then there is no new snapshot, unless the message says that there is.
 */
BDRV_API bool blocking_fn blk_snapshot_create(BlockBackend *blk, BdrvSnapshotInfo *info, GError **errp);
/** blk_snapshot_goto() - make the disk, its size and the VM state what they were; the snapshot stays
 * @id_or_name: an id goes before a name. ENOENT: no such snapshot; the others as above. */
BDRV_API bool blocking_fn blk_snapshot_goto(BlockBackend *blk, const char *id_or_name, GError **errp);
/** blk_snapshot_delete() - the first one that has this @id and this @name, one of which may be NULL, not both: EINVAL */
BDRV_API bool blocking_fn blk_snapshot_delete(BlockBackend *blk, const char *id, const char *name, GError **errp);
/** blk_snapshot_load_tmp() - show that one instead of the disk until the image, opened read-only, is closed */
BDRV_API bool blocking_fn blk_snapshot_load_tmp(BlockBackend *blk, const char *id, const char *name, GError **errp);
/** blk_save_vmstate() / blk_load_vmstate() - state of a virtual machine, for the next snapshot and of the last one applied
 * @offset: in that state. What was never saved reads as zeroes. 0 or -errno (-ENOTSUP, -EFBIG, …). */
BDRV_API int blocking_fn blk_save_vmstate(BlockBackend *blk, int64_t offset, const BdrvIov *iov);
BDRV_API int blocking_fn blk_load_vmstate(BlockBackend *blk, int64_t offset, const BdrvIov *iov);
BDRV_API int64_t blocking_fn blk_allocated_size(BlockBackend *blk); /* bytes in the host file system or -errno */

/*
 * Statistics, of each node: what reaches it, from its parents or the handle. Off, they cost one test a request; on, two
 * looks at the clock. Each thread counts for itself.
 */

/** blk_keep_stats() - switch them on or off for the nodes that are under @blk now, backing files too
 * What was counted stays. Fails with ENOMEM (on for none or some of them), EDEADLK. */
BDRV_API bool blocking_fn blk_keep_stats(BlockBackend *blk, bool on, GError **errp);
/**
 * blk_get_stats() - the counters of one node
 * @node_name: of a node under @blk; NULL: the root
 * @stats: set on success. Requests that end meanwhile may be counted in parts.
 * Fails with ENOENT (no such node), ENODATA (never switched on), EDEADLK.
 */
BDRV_API bool blocking_fn blk_get_stats_sized(BlockBackend *blk, const char *node_name, BdrvNodeStats *stats,
                                              size_t stats_size, GError **errp);
static inline bool blocking_fn blk_get_stats(BlockBackend *blk, const char *node_name, BdrvNodeStats *stats,
                                             GError **errp)
{
    return blk_get_stats_sized(blk, node_name, stats, sizeof(*stats), errp);
}

/*
 * Breakpoints, for tests that need requests in a certain order. They belong to the first node under @blk
 * whose driver knows them (blkdebug); ENOTSUP if there is none.
 */

/**
 * blk_debug_breakpoint() - stop the next request that comes to @event
 * @event: name of a debug event, as in <bdrv/events.h>
 * @tag: what resume calls the request; several may have one tag
 *
 * The breakpoint is gone when it has stopped a request. Drain, reopen and close let all stopped requests go.
 * Returns: false with ENOENT (no such event; the message names near ones) or ENOTSUP.
 */
BDRV_API bool blk_debug_breakpoint(BlockBackend *blk, const char *event, const char *tag, GError **errp);
/** blk_debug_remove_breakpoint() - forget the breakpoints of @tag, let all requests stopped as @tag go
 * Returns: 0; -ENOENT if there was no breakpoint left of that tag; -ENOTSUP. */
BDRV_API int blk_debug_remove_breakpoint(BlockBackend *blk, const char *tag);
/** blk_debug_resume() - let the request go that was stopped last as @tag; 0, -ENOENT, -ENOTSUP */
BDRV_API int blk_debug_resume(BlockBackend *blk, const char *tag);
/** blk_debug_is_suspended() - 1 if a request is stopped as @tag, 0 if not, -ENOTSUP */
BDRV_API int blk_debug_is_suspended(BlockBackend *blk, const char *tag);

/*
 * The nodes of a handle, for tools that show them. depth 0 is the root, 1 its backing file, and so on
 * (filters between are passed over).
 */
typedef struct BdrvLayer {
    const char *filename, *driver, *node_name;
    const char *backing_filename, *backing_format; /* as stored in the image; NULL: none */
    const char *full_backing_filename;             /* resolved against this layer's directory */
    int64_t length, allocated_size;
    bool encrypted, is_dirty, is_corrupt;
    int64_t cluster_size;
} BdrvLayer;
/** blk_count_layers() - how many there are, at least 1, or -errno */
BDRV_API int blocking_fn blk_count_layers(BlockBackend *blk);
/** blk_layer() - describe one; false past the last. The texts stay until @blk is closed, whatever becomes of the image. */
BDRV_API bool blocking_fn blk_layer_sized(BlockBackend *blk, unsigned depth, BdrvLayer *layer, size_t layer_size);
static inline bool blocking_fn blk_layer(BlockBackend *blk, unsigned depth, BdrvLayer *layer)
{
    return blk_layer_sized(blk, depth, layer, sizeof(*layer));
}
BDRV_API BdrvOptions *blk_layer_specific_info(BlockBackend *blk, unsigned depth);
/** bdrv_node_filename() - of what blk_block_status() found, which stays as long as the handle that was asked */
BDRV_API const char *bdrv_node_filename(const BlockDriverState *bs);

G_END_DECLS
#endif
