/* SPDX-License-Identifier: MIT */
#ifndef BDRV_BACKEND_INT_H
#define BDRV_BACKEND_INT_H

/* Shared by the files of block/backend only. */

#include "block/graph/graph.h"
#include "block/io/io.h"
#include "block/util/sized.h"

#include <stdatomic.h>

/* What one thread keeps of one handle (callback.c): unused request objects, finished requests. */
typedef struct BlkLocal BlkLocal;

struct BlockBackend {
    BdrvGraph *graph;
    BdrvEdge *root;
    BdrvGate *gate;
    pthread_mutex_t texts_lock;
    GStringChunk *texts; /* texts_lock: what the handle has told, each once, until it is closed */
    _Atomic(const char *) name; /* device name, "" if none; in @texts */
    _Atomic bool writethrough;
    bool writethrough_given; /* by the option cache.writeback, which a reopen without it does not change */
    _Atomic bool beyond_eof;
    BdrvLengthWatch resize_watch;
    _Atomic unsigned drains; /* begun through this handle and not ended */
    _Atomic(BlkLocal *) locals[AIO_CONTEXT_MAX]; /* each made by the thread that has the index */
};

/* At most so many requests complete inside their submission before the loop gets its turn. */
#define BLK_INLINE_MAX 64

/* Flags of the handle, not of its nodes */
#define HANDLE_FLAGS (BDRV_O_WRITETHROUGH | BDRV_O_NO_SHARE)

static inline BlockDriverState *blk_bs(const BlockBackend *blk)
{
    return blk->root->child.bs;
}

/** blk_co_perform() - carry out one request, inside the gate. READ and WRITE take @bytes from @iov. */
int coroutine_fn blk_co_perform(BlockBackend *blk, BlkOp op, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                BdrvRequestFlags flags);

/** blk_take_options() - apply to @flags, and remove, the options that belong to the handle, not to a node
 * @given: set if there were any, untouched otherwise */
bool blk_take_options(BdrvOptions *options, BdrvOpenFlags *flags, bool *given, GError **errp);

/** blk_locals_free() - let go of what the threads keep */
void blk_locals_free(BlockBackend *blk);

/*
 * Blocking flavour (blocking.c): run @func in a coroutine of the calling thread.
 * Returns: what @func returned; -EDEADLK from a coroutine or a callback.
 */
typedef int BlkBlockingFunc(BlockBackend *blk, void *opaque);
int blocking_fn blk_run_blocking(BlockBackend *blk, BlkBlockingFunc *func, void *opaque);

/** blk_ask() - run @func inside a request (query.c) */
int blocking_fn blk_ask(BlockBackend *blk, BlkBlockingFunc *func, void *opaque);
/** blk_ask_anywhere() - run @func, which must not yield, inside a request; coroutines and callbacks too (query.c)
 * Returns: what @func did; -EBUSY from a callback while the handle is drained: it cannot wait for the end. */
int blk_ask_anywhere(BlockBackend *blk, BlkBlockingFunc *func, void *opaque);
/** blk_keep_text() - a copy of @text that stays until the handle is closed; NULL for NULL. Any thread. */
const char *blk_keep_text(BlockBackend *blk, const char *text);

/* What this library knows of; a program that was built with a later one may say more, which must not go unheard. */
#define BLK_OPEN_FLAGS ((int)(BDRV_O_DROP_AUTO << 1) - 1)
#define BLK_REQUEST_FLAGS ((int)(BDRV_REQ_SERIALISING << 1) - 1)
#define BLK_FIX_FLAGS ((int)(BDRV_FIX_DRY_RUN << 1) - 1)

/** blk_known() - false with EINVAL if @flags has others than @known; @what: "request flags" */
bool blk_known(int flags, int known, const char *what, GError **errp);

/** blk_run_surely() - the same for what must not fail: without memory for a stack it waits until there is some */
int blocking_fn blk_run_surely(BlockBackend *blk, BlkBlockingFunc *func, void *opaque);
/** blk_has_run() - whether the function that blk_run_blocking() or co_run_blocking() answered @ret for was called
 * Returns: false with @errp set if it was not. For control functions, which themselves answer 0. */
bool blk_has_run(int ret, GError **errp);

/** blk_change() - run @func alone with the image: no request inside, no other change under way (control.c)
 * @purpose: what for, as in "open it read-write to …": refused if the image is read-only; NULL: nothing is written
 * Fails with EACCES, with EDEADLK inside a request, or as @func does. */
typedef bool BlkChangeFunc(BlockBackend *blk, const void *args, GError **errp);
bool blocking_fn blk_change(BlockBackend *blk, const char *purpose, BlkChangeFunc *func, const void *args,
                            GError **errp);
bool coroutine_fn blk_co_change(BlockBackend *blk, const char *purpose, BlkChangeFunc *func, const void *args,
                                GError **errp);

/** blk_fail_at() - set @errp to what went wrong at an offset of an image, for who copies one; false */
bool blk_fail_at(int ret, const char *what, BlockBackend *blk, int64_t offset, GError **errp);

/** blk_co_with_resize() - @func with the right to resize: who did not open for it has it for the moment; drained */
bool coroutine_fn blk_co_with_resize(BlockBackend *blk, BlkChangeFunc *func, const void *args, GError **errp);

/** blk_begin_change() - and for what fits in no function; EDEADLK */
bool coroutine_fn blk_begin_change(BlockBackend *blk, GError **errp);
void coroutine_fn blk_end_change(BlockBackend *blk);

#endif
