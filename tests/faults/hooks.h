/* SPDX-License-Identifier: MIT */
#ifndef BDRV_TEST_FAULTS_HOOKS_H
#define BDRV_TEST_FAULTS_HOOKS_H

/*
 * Calls of the library to what lies below it - allocation that may fail, threads, rings, system calls -
 * pass through here: the linker replaces them (--wrap, see meson.build). One rule at a time makes some fail,
 * in the way of bdrv_simdisk_fail(). Unarmed they cost one load.
 */

#include <stdbool.h>

typedef enum HookKind {
    HOOK_ALLOC = 1 << 0,       /* g_try_*, posix_memalign, aligned_alloc */
    HOOK_THREAD = 1 << 1,      /* pthread_create */
    HOOK_RING_SETUP = 1 << 2,  /* io_uring_queue_init, io_setup */
    HOOK_RING_SUBMIT = 1 << 3, /* io_uring_submit, io_submit as a whole */
    HOOK_READ = 1 << 4,        /* pread, preadv2; the answer of a ring to a read */
    HOOK_WRITE = 1 << 5,
    HOOK_SYNC = 1 << 6,
    HOOK_SPACE = 1 << 7, /* fallocate, posix_fallocate, ftruncate */
    HOOK_SEEK = 1 << 8,
    HOOK_COPY = 1 << 9,
    HOOK_LOCK = 1 << 10, /* fcntl(F_OFD_…) */
    HOOK_OPEN = 1 << 11,
    HOOK_STAT = 1 << 12,
    HOOK_COROUTINE = 1 << 13, /* co_try_new */
    HOOK_POLL = 1 << 14,      /* epoll_create1, epoll_ctl, eventfd, timerfd_create */
    HOOK_STACK = 1 << 15,     /* mmap, mprotect */
} HookKind;
#define HOOK_CALLS (HOOK_READ | HOOK_WRITE | HOOK_SYNC | HOOK_SPACE | HOOK_SEEK | HOOK_COPY | HOOK_LOCK)

/* In place of an errno value: half of what was asked is done. Reads, writes and copies; others pass. */
#define HOOK_SHORT (-1)

/**
 * hooks_arm() - let calls fail from now on
 * @kinds: mask of HookKind that the rule counts
 * @nth: 1 is the next such call
 * @count: how many fail in a row, -1: all
 * @error: errno value, positive, or HOOK_SHORT
 */
void hooks_arm(unsigned kinds, unsigned nth, int count, int error);
void hooks_disarm(void);

/** hooks_failed() - calls that failed (or were cut short) since armed */
unsigned hooks_failed(void);
/** hooks_failed_kinds() - which */
unsigned hooks_failed_kinds(void);

/** hooks_end_idle_workers() - worker threads end as soon as they are idle, so that each job needs a new one */
void hooks_end_idle_workers(bool on);

#endif
