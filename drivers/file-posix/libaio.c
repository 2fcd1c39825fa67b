/* SPDX-License-Identifier: MIT */
/*
 * The native engine: Linux AIO, one context a thread. Completions are taken from the ring that the
 * kernel maps into the process, without a system call; the eventfd only ends a sleep.
 */

#include "block/loop/context.h"
#include "drivers/file-posix/engine.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define RING_EVENTS 256
#define SUBMIT_BATCH 128

/* Head of the mapped ring: io_context_t points to it. Layout of the kernel's ABI, valid if magic fits. */
#define RING_MAGIC 0xa10a10a1u
typedef struct MappedRing {
    unsigned id, nr;
    _Atomic unsigned head; /* ours */
    _Atomic unsigned tail; /* the kernel's */
    unsigned magic, compat_features, incompat_features, header_length;
    struct io_event events[];
} MappedRing;

typedef struct LibaioRing {
    AioRing ring; /* first member */
    AioContext *ctx;
    io_context_t io;
    int event_fd;
    unsigned in_flight; /* handed to the kernel */
    FileIo *first, **last; /* not yet handed over */
    AioCall retry;         /* when the kernel has no room and nothing is in flight that would end a sleep */
    bool retry_pending;
} LibaioRing;

static const char libaio_key;

static void complete(LibaioRing *r, const struct io_event *event)
{
    FileIo *io = event->data;

    io->result = (long)event->res;
    r->in_flight--;
    co_wake(io->co);
}

static bool libaio_poll(AioRing *ring)
{
    LibaioRing *r = (LibaioRing *)ring;
    MappedRing *mapped = (MappedRing *)r->io;
    bool any = false;

    if (r->in_flight == 0) {
        return false;
    }
    if (mapped->magic != RING_MAGIC || mapped->incompat_features) {
        struct io_event events[64];
        struct timespec now = { 0 };
        int n;
        while ((n = io_getevents(r->io, 0, G_N_ELEMENTS(events), events, &now)) > 0) {
            for (int i = 0; i < n; i++) {
                complete(r, &events[i]);
            }
            any = true;
        }
        return any;
    }
    unsigned head = atomic_load_explicit(&mapped->head, memory_order_relaxed);
    unsigned tail = atomic_load_explicit(&mapped->tail, memory_order_acquire);
    while (head != tail) {
        complete(r, &mapped->events[head]);
        head = (head + 1) % mapped->nr;
        any = true;
    }
    atomic_store_explicit(&mapped->head, head, memory_order_release);
    return any;
}

static void libaio_retry(void *opaque)
{
    LibaioRing *r = opaque;

    r->retry_pending = false; /* the round that runs this submits */
}

static FileIo *take_first(LibaioRing *r)
{
    FileIo *io = r->first;

    r->first = io->next;
    if (!r->first) {
        r->last = &r->first;
    }
    return io;
}

static void libaio_submit(AioRing *ring)
{
    LibaioRing *r = (LibaioRing *)ring;

    while (r->first && r->in_flight < RING_EVENTS) {
        struct iocb *batch[SUBMIT_BATCH];
        int n = 0;
        for (FileIo *io = r->first; io && n < SUBMIT_BATCH && r->in_flight + n < RING_EVENTS; io = io->next) {
            batch[n++] = &io->iocb;
        }
        int done = io_submit(r->io, n, batch);
        if (done == -EINTR) {
            continue;
        }
        if (done == -EAGAIN || done == 0) {
            if (r->in_flight == 0 && !r->retry_pending) {
                r->retry_pending = true;
                aio_call(r->ctx, &r->retry);
            }
            return;
        }
        if (done < 0) {
            /* The first one is at fault; the others get their own answer. */
            FileIo *io = take_first(r);
            io->result = done;
            co_wake(io->co);
            continue;
        }
        for (int i = 0; i < done; i++) {
            take_first(r);
        }
        r->in_flight += done;
    }
}

static bool libaio_busy(AioRing *ring)
{
    return ((LibaioRing *)ring)->in_flight > 0;
}

static void on_event(void *opaque)
{
    LibaioRing *r = opaque;
    uint64_t count;

    (void)!read(r->event_fd, &count, sizeof(count));
    libaio_poll(&r->ring);
}

static void ring_destroy(void *data)
{
    LibaioRing *r = data;

    if (r->io) {
        io_destroy(r->io);
    }
    if (r->event_fd >= 0) {
        aio_set_fd_handler(r->ctx, r->event_fd, NULL, NULL, NULL);
        close(r->event_fd);
    }
    g_free(r);
}

static void *ring_make(AioContext *ctx)
{
    LibaioRing *r;

    /* A deterministic run has no place for the kernel's own order: workers obey its seed. */
    if (aio_context_sim(ctx)) {
        return NULL;
    }
    r = g_new0(LibaioRing, 1);
    r->ctx = ctx;
    r->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (r->event_fd < 0 || io_setup(RING_EVENTS, &r->io) < 0 ||
        aio_set_fd_handler(ctx, r->event_fd, on_event, NULL, r) < 0) {
        ring_destroy(r);
        return NULL;
    }
    r->ring = (AioRing){ .poll = libaio_poll, .submit = libaio_submit, .busy = libaio_busy };
    r->last = &r->first;
    r->retry = (AioCall){ .func = libaio_retry, .opaque = r };
    aio_ring_add(ctx, &r->ring);
    return r;
}

static LibaioRing *ring_of_thread(void)
{
    return aio_context_data(aio_context_current(), &libaio_key, ring_make, ring_destroy);
}

bool file_libaio_ready(void)
{
    return ring_of_thread() != NULL;
}

int file_libaio_error(void)
{
    io_context_t io = NULL;

    if (file_libaio_ready()) {
        return 0;
    }
    aio_context_data_retry(aio_context_current(), &libaio_key); /* what was short then may be there now */
    if (file_libaio_ready()) {
        return 0;
    }
    int ret = io_setup(1, &io);
    if (ret == 0) {
        io_destroy(io);
        return aio_context_sim(aio_context_current()) ? 0 : -EAGAIN;
    }
    return ret;
}

int coroutine_fn file_libaio_io(FileIo *io)
{
    LibaioRing *r = ring_of_thread();

    if (io->kind == FILE_IO_READ) {
        io_prep_preadv(&io->iocb, io->s->h.fd, io->vec, io->count, io->offset + io->done);
    } else {
        io_prep_pwritev(&io->iocb, io->s->h.fd, io->vec, io->count, io->offset + io->done);
    }
    io->iocb.aio_rw_flags = io->rw_flags;
    io->iocb.data = io;
    io_set_eventfd(&io->iocb, r->event_fd);
    io->co = co_self();
    io->next = NULL;
    *r->last = io;
    r->last = &io->next;
    aio_ring_queued(r->ctx);
    co_yield_reason("libaio");
    return io->result;
}
