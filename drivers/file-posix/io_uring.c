/* SPDX-License-Identifier: MIT */
/*
 * The io_uring engine: one ring a thread. Requests wait in a list until the context's round ends and
 * go to the kernel together; completions are taken from the mapped ring.
 */

#include "block/loop/context.h"
#include "drivers/file-posix/engine.h"

#include <errno.h>
#include <limits.h>

#ifdef CONFIG_LIBURING
#include "drivers/file-posix/pinned.h"

#define RING_ENTRIES 128
#define IN_FLIGHT_MAX (2 * RING_ENTRIES) /* completions that the ring has room for */
#define REAP_BATCH 64

typedef struct Uring {
    AioRing ring; /* first member */
    AioContext *ctx;
    struct io_uring uring;
    unsigned in_flight;    /* in the submission ring or in the kernel */
    FileIo *first, **last; /* not yet in the submission ring */
    AioCall retry;         /* when the kernel has no memory and nothing is in flight that would end a sleep */
    bool retry_pending;
    FilePinned pinned;
    uint64_t pinned_requests;
} Uring;

static const char uring_key;

static bool uring_poll(AioRing *ring)
{
    Uring *r = (Uring *)ring;
    struct io_uring_cqe *batch[REAP_BATCH];
    bool any = false;
    unsigned n;

    if (r->in_flight == 0) {
        return false;
    }
    while ((n = io_uring_peek_batch_cqe(&r->uring, batch, REAP_BATCH)) > 0) {
        for (unsigned i = 0; i < n; i++) {
            FileIo *io = io_uring_cqe_get_data(batch[i]);
            io->result = batch[i]->res;
            co_wake(io->co);
        }
        io_uring_cq_advance(&r->uring, n);
        r->in_flight -= n;
        any = true;
        if (n < REAP_BATCH) {
            break;
        }
    }
    return any;
}

/* The slot of a buffer that need not be pinned once more, or -1. Through the page cache nothing is pinned. */
static int pinned_slot(Uring *r, const FileIo *io)
{
    int slot = -1;

    if (G_UNLIKELY(r->pinned.end > 0) && io->s->h.direct) {
        slot = file_pinned_find(&r->pinned, io->vec->iov_base, io->vec->iov_len);
        r->pinned_requests += slot >= 0;
    }
    return slot;
}

static void prepare(Uring *r, struct io_uring_sqe *sqe, FileIo *io)
{
    int fd = io->s->h.fd;
    int64_t offset = io->offset + io->done;
    const struct iovec *vec = io->vec;
    bool single = io->kind != FILE_IO_FLUSH && io->count == 1 && vec->iov_len <= INT_MAX; /* spares the kernel a copy of the array */
    int slot = single ? pinned_slot(r, io) : -1;

    switch (io->kind) {
    case FILE_IO_READ:
        if (slot >= 0) {
            io_uring_prep_read_fixed(sqe, fd, vec->iov_base, vec->iov_len, offset, slot);
        } else if (single) {
            io_uring_prep_read(sqe, fd, vec->iov_base, vec->iov_len, offset);
        } else {
            io_uring_prep_readv(sqe, fd, vec, io->count, offset);
        }
        sqe->rw_flags = io->rw_flags;
        break;
    case FILE_IO_WRITE:
        if (slot >= 0) {
            io_uring_prep_write_fixed(sqe, fd, vec->iov_base, vec->iov_len, offset, slot);
        } else if (single) {
            io_uring_prep_write(sqe, fd, vec->iov_base, vec->iov_len, offset);
        } else {
            io_uring_prep_writev(sqe, fd, vec, io->count, offset);
        }
        sqe->rw_flags = io->rw_flags;
        break;
    case FILE_IO_FLUSH:
        io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
        break;
    }
    io_uring_sqe_set_data(sqe, io);
}

static void uring_retry(void *opaque)
{
    Uring *r = opaque;

    r->retry_pending = false; /* the round that runs this submits */
}

static void uring_submit(AioRing *ring)
{
    Uring *r = (Uring *)ring;

    if (G_UNLIKELY(r->pinned.generation != aio_context_memory_generation(r->ctx))) {
        file_pinned_follow(&r->pinned, &r->uring, r->ctx);
    }
    while (r->first || io_uring_sq_ready(&r->uring)) {
        struct io_uring_sqe *sqe;
        while (r->first && r->in_flight < IN_FLIGHT_MAX && (sqe = io_uring_get_sqe(&r->uring)) != NULL) {
            prepare(r, sqe, r->first);
            r->in_flight++;
            r->first = r->first->next;
        }
        if (!r->first) {
            r->last = &r->first;
        }
        int ret = io_uring_submit(&r->uring);
        if (ret <= 0 && ret != -EINTR) {
            /* EAGAIN, EBUSY: no memory, or completions to reap first. What is queued stays so. */
            if (r->in_flight == io_uring_sq_ready(&r->uring) && !r->retry_pending) {
                r->retry_pending = true;
                aio_call(r->ctx, &r->retry);
            }
            return;
        }
    }
}

static bool uring_busy(AioRing *ring)
{
    return ((Uring *)ring)->in_flight > 0;
}

static void on_readable(void *opaque)
{
    uring_poll(opaque);
}

static int set_up(struct io_uring *uring)
{
    int ret = io_uring_queue_init(RING_ENTRIES, uring, 0);

    /* Without NODROP a burst of completions could be lost; RW_CUR_POS came with the reads without an iovec. */
    unsigned needed = IORING_FEAT_NODROP | IORING_FEAT_RW_CUR_POS;
    if (ret == 0 && (uring->features & needed) != needed) {
        io_uring_queue_exit(uring);
        return -ENOSYS;
    }
    return ret;
}

static void ring_destroy(void *data)
{
    Uring *r = data;

    aio_set_fd_handler(r->ctx, r->uring.ring_fd, NULL, NULL, NULL);
    io_uring_queue_exit(&r->uring);
    g_free(r);
}

static void *ring_make(AioContext *ctx)
{
    Uring *r;

    /* A deterministic run has no place for the kernel's own order: workers obey its seed. */
    if (aio_context_sim(ctx)) {
        return NULL;
    }
    r = g_new0(Uring, 1);
    r->ctx = ctx;
    if (set_up(&r->uring) < 0) {
        g_free(r);
        return NULL;
    }
    if (aio_set_fd_handler(ctx, r->uring.ring_fd, on_readable, NULL, r) < 0) {
        ring_destroy(r);
        return NULL;
    }
    r->ring = (AioRing){ .poll = uring_poll, .submit = uring_submit, .busy = uring_busy };
    r->last = &r->first;
    r->retry = (AioCall){ .func = uring_retry, .opaque = r };
    aio_ring_add(ctx, &r->ring);
    return r;
}

static Uring *ring_of_thread(void)
{
    return aio_context_data(aio_context_current(), &uring_key, ring_make, ring_destroy);
}

bool file_uring_ready(void)
{
    return ring_of_thread() != NULL;
}

bool file_uring_pins_memory(void)
{
    const Uring *r = ring_of_thread();

    return r && r->pinned.generation > 0 && !r->pinned.unavailable;
}

uint64_t file_uring_pinned_requests(void)
{
    const Uring *r = ring_of_thread();

    return r ? r->pinned_requests : 0;
}

int file_uring_error(void)
{
    struct io_uring uring;

    if (file_uring_ready()) {
        return 0;
    }
    aio_context_data_retry(aio_context_current(), &uring_key); /* what was short then may be there now */
    if (file_uring_ready()) {
        return 0;
    }
    int ret = set_up(&uring);
    if (ret == 0) {
        io_uring_queue_exit(&uring);
        return aio_context_sim(aio_context_current()) ? 0 : -EAGAIN;
    }
    return ret;
}

int coroutine_fn file_uring_io(FileIo *io)
{
    Uring *r = ring_of_thread();

    io->co = co_self();
    io->next = NULL;
    *r->last = io;
    r->last = &io->next;
    aio_ring_queued(r->ctx);
    co_yield_reason("io_uring");
    return io->result;
}

#else

bool file_uring_ready(void)
{
    return false;
}

bool file_uring_pins_memory(void)
{
    return false;
}

uint64_t file_uring_pinned_requests(void)
{
    return 0;
}

int file_uring_error(void)
{
    return -ENOSYS;
}

int coroutine_fn file_uring_io(FileIo *io)
{
    return -EAGAIN; /* run_steps() goes on in a worker */
}

#endif
