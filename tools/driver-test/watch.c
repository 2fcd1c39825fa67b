/* SPDX-License-Identifier: MIT */
/* What a test was doing when it crashed, or when its time was over. */
#include "tools/driver-test/kit.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#if defined(__has_include)
#if __has_include(<execinfo.h>)
#include <execinfo.h>
#define HAVE_BACKTRACE 1
#endif
#endif

#define MOST_FRAMES 20
#define GRACE 10 /* seconds to tell what hangs */

static void say(const char *text)
{
    ssize_t ignored = write(STDOUT_FILENO, text, strlen(text));

    (void)ignored;
}

/* In a signal handler: which functions this thread is in. */
static void show_stack(void)
{
#ifdef HAVE_BACKTRACE
    void *frames[MOST_FRAMES];
    int count = backtrace(frames, MOST_FRAMES);

    say("  it was in (the innermost function first):\n");
    backtrace_symbols_fd(frames, count, STDOUT_FILENO);
#endif
}

static void crashed(int number)
{
    show_stack();
    signal(number, SIG_DFL);
    raise(number);
}

static void interrupted(int number)
{
    show_stack();
    signal(SIGALRM, SIG_DFL);
    raise(SIGALRM);
}

static void handle(int number, void (*handler)(int))
{
    struct sigaction action = { .sa_handler = handler, .sa_flags = SA_ONSTACK | (int)SA_RESETHAND };

    sigaction(number, &action, NULL);
}

/* The stack of a coroutine may be used up, or too small. */
static void use_own_stack(void)
{
    static uint8_t stack[64 * 1024];
    const stack_t description = { .ss_sp = stack, .ss_size = sizeof(stack) };

    sigaltstack(&description, NULL);
}

void kit_show_coroutines(void)
{
    g_autofree char *text = co_dump();
    g_auto(GStrv) lines = g_strsplit(g_strchomp(text), "\n", -1);

    kit_note("coroutines:");
    for (char **line = lines; *line; line++) {
        kit_note("  %s", *line);
    }
}

static struct {
    pthread_t tested, watcher;
    sem_t ended;
    struct timespec deadline;
} watched;

static void *watch(void *unused)
{
    int ret;

    do {
        ret = sem_timedwait(&watched.ended, &watched.deadline);
    } while (ret < 0 && errno == EINTR);
    if (ret < 0) {
        alarm(GRACE);
        kit_show_coroutines();
        pthread_kill(watched.tested, SIGUSR1);
    }
    return NULL;
}

void kit_watch_end(void)
{
    sem_post(&watched.ended);
    pthread_join(watched.watcher, NULL);
}

void kit_watch(unsigned timeout)
{
    static const int crashes[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT };
#ifdef HAVE_BACKTRACE
    void *frame;

    backtrace(&frame, 1); /* loads what it needs */
#endif
    watched.tested = pthread_self();
    sem_init(&watched.ended, 0, 0);
    clock_gettime(CLOCK_REALTIME, &watched.deadline);
    watched.deadline.tv_sec += (time_t)timeout;
    use_own_stack();
    for (unsigned i = 0; i < G_N_ELEMENTS(crashes) && !KIT_SANITIZED; i++) { /* a sanitizer tells more */
        handle(crashes[i], crashed);
    }
    handle(SIGUSR1, interrupted);
    if (pthread_create(&watched.watcher, NULL, watch, NULL) != 0) {
        kit_fail("no thread to watch the test");
    }
}
