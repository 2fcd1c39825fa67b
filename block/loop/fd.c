/* SPDX-License-Identifier: MIT */
/*
 * File descriptors: the epoll set of a context, in which its eventfd (wake-ups by other threads) and,
 * if an embedder polls the set from outside, a timerfd are members too.
 */

#include "config.h"
#include "block/loop/loop.h"
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000LL

static int watch(AioContext *ctx, int op, int fd, uint32_t events, void *who)
{
    struct epoll_event event = { .events = events, .data.ptr = who };

    return epoll_ctl(ctx->epoll_fd, op, fd, &event) < 0 ? -errno : 0;
}

int aio_fds_open(AioContext *ctx)
{
    int ret;

    if (ctx->epoll_fd >= 0) {
        return 0;
    }
    ctx->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (ctx->epoll_fd < 0) {
        return -errno;
    }
    ctx->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    /* Edge-triggered: each write is reported once, and nobody needs to read it back. */
    ret = ctx->event_fd < 0 ? -errno
                            : watch(ctx, EPOLL_CTL_ADD, ctx->event_fd, EPOLLIN | EPOLLET, &ctx->event_fd);
    if (ret < 0) {
        aio_fds_close(ctx);
        return ret;
    }
    ctx->fds = g_hash_table_new(NULL, NULL);
    return 0;
}

static void free_removed(AioContext *ctx)
{
    for (AioFd *next; ctx->removed_fds; ctx->removed_fds = next) {
        next = ctx->removed_fds->next_removed;
        g_free(ctx->removed_fds);
    }
}

static void close_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

void aio_fds_close(AioContext *ctx)
{
    close_fd(&ctx->timer_fd);
    close_fd(&ctx->event_fd);
    close_fd(&ctx->epoll_fd);
    if (ctx->fds) {
        GHashTableIter iter;
        gpointer value;

        g_hash_table_iter_init(&iter, ctx->fds);
        while (g_hash_table_iter_next(&iter, NULL, &value)) {
            g_free(value);
        }
        g_hash_table_unref(ctx->fds);
        ctx->fds = NULL;
    }
    free_removed(ctx);
}

static void remove_fd(AioContext *ctx, AioFd *entry)
{
    epoll_ctl(ctx->epoll_fd, EPOLL_CTL_DEL, entry->fd, NULL);
    g_hash_table_remove(ctx->fds, GINT_TO_POINTER(entry->fd));
    /* The batch being carried out may still name it. */
    entry->on_readable = NULL;
    entry->on_writable = NULL;
    entry->next_removed = ctx->removed_fds;
    ctx->removed_fds = entry;
    if (!ctx->in_fd_batch) {
        free_removed(ctx);
    }
}

int aio_set_fd_handler(AioContext *ctx, int fd, AioFdHandler *on_readable, AioFdHandler *on_writable, void *opaque)
{
    uint32_t events = (on_readable ? EPOLLIN | EPOLLRDHUP : 0) | (on_writable ? EPOLLOUT : 0);
    AioFd *entry = ctx->fds ? g_hash_table_lookup(ctx->fds, GINT_TO_POINTER(fd)) : NULL;
    int ret;

    if (!events) {
        if (entry) {
            remove_fd(ctx, entry);
        }
        return 0;
    }
    ret = aio_fds_open(ctx);
    if (ret < 0) {
        return ret;
    }
    if (!entry) {
        entry = g_new0(AioFd, 1);
        entry->fd = fd;
        ret = watch(ctx, EPOLL_CTL_ADD, fd, events, entry);
        if (ret < 0) {
            g_free(entry);
            return ret;
        }
        g_hash_table_insert(ctx->fds, GINT_TO_POINTER(fd), entry);
    } else if (entry->events != events) {
        ret = watch(ctx, EPOLL_CTL_MOD, fd, events, entry);
        if (ret < 0) {
            return ret;
        }
    }
    entry->events = events;
    entry->on_readable = on_readable;
    entry->on_writable = on_writable;
    entry->opaque = opaque;
    return 0;
}

static int wait_events(AioContext *ctx, struct epoll_event *events, int64_t timeout_ns)
{
    int timeout_ms;

#ifdef CONFIG_EPOLL_PWAIT2
    if (timeout_ns > 0 && !ctx->sleep_in_ms) {
        struct timespec timeout = { .tv_sec = timeout_ns / NS_PER_S, .tv_nsec = timeout_ns % NS_PER_S };
        int n = epoll_pwait2(ctx->epoll_fd, events, AIO_BATCH, &timeout, NULL);

        if (n >= 0 || (errno != ENOSYS && errno != EPERM)) { /* EPERM: an older sandbox's way to say so */
            return n;
        }
        ctx->sleep_in_ms = true;
    }
#endif
    /* Rounded up: waking early would mean a busy loop until the deadline. */
    timeout_ms = timeout_ns <= 0 ? (int)timeout_ns : (int)MIN((timeout_ns - 1) / 1000000 + 1, INT_MAX);
    return epoll_wait(ctx->epoll_fd, events, AIO_BATCH, timeout_ms);
}

static void drain(int fd)
{
    uint64_t value;

    while (read(fd, &value, sizeof(value)) < 0 && errno == EINTR) {
    }
}

static bool dispatch(AioFd *entry, uint32_t events)
{
    bool any = false;

    /* An error or a hang-up is for whichever handler there is: it finds out by its read or write. */
    if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) && entry->on_readable) {
        entry->on_readable(entry->opaque);
        any = true;
    }
    if ((events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) && entry->on_writable) {
        entry->on_writable(entry->opaque);
        any = true;
    }
    return any;
}

bool aio_fds_poll(AioContext *ctx, int64_t timeout_ns)
{
    struct epoll_event events[AIO_BATCH];
    bool any = false;
    int n;

    n = wait_events(ctx, events, timeout_ns);
    ctx->in_fd_batch = true;
    for (int i = 0; i < n; i++) {
        void *who = events[i].data.ptr;

        if (who == &ctx->event_fd) {
            /* Before the inbox is looked at: who pushes later writes again. */
            atomic_store(&ctx->notified, false);
        } else if (who == &ctx->timer_fd) {
            drain(ctx->timer_fd);
            ctx->timer_fd_armed = INT64_MAX;
        } else {
            any |= dispatch(who, events[i].events);
        }
    }
    ctx->in_fd_batch = false;
    free_removed(ctx);
    return any;
}

/* Polling from outside */

void aio_external_timer(AioContext *ctx)
{
    int64_t deadline = aio_timers_next(ctx);
    struct itimerspec spec = { 0 };

    if (ctx->sim) {
        /* Virtual time passes by running: as long as a timer is armed there is something to run. */
        if (deadline != INT64_MAX) {
            aio_notify(ctx);
        }
        return;
    }
    /* A timerfd that fires too early costs a round; setting it back costs a system call each time. */
    if (deadline >= ctx->timer_fd_armed) {
        return;
    }
    ctx->timer_fd_armed = deadline;
    deadline = MAX(deadline, 1); /* 0 would disarm */
    spec.it_value.tv_sec = deadline / NS_PER_S;
    spec.it_value.tv_nsec = deadline % NS_PER_S;
    timerfd_settime(ctx->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
}

void aio_external_publish(AioContext *ctx)
{
    aio_external_timer(ctx);
    atomic_store(&ctx->sleeping, true);
    if (aio_work_left(ctx)) {
        aio_notify(ctx);
    }
}

int aio_context_fd(AioContext *ctx)
{
    int ret;

    if (ctx->external) {
        return ctx->epoll_fd;
    }
    ret = aio_fds_open(ctx);
    if (ret < 0) {
        return ret;
    }
    ctx->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (ctx->timer_fd < 0) {
        return -errno;
    }
    ret = watch(ctx, EPOLL_CTL_ADD, ctx->timer_fd, EPOLLIN, &ctx->timer_fd);
    if (ret < 0) {
        close_fd(&ctx->timer_fd);
        return ret;
    }
    ctx->timer_fd_armed = INT64_MAX;
    ctx->external = true;
    if (!ctx->running) {
        aio_external_publish(ctx);
    }
    return ctx->epoll_fd;
}
