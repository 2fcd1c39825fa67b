/* SPDX-License-Identifier: MIT */
#include "tests/crash/attempt.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* Longer than any history takes: a child that hangs. */
#define CHILD_SECONDS 300

static const int signals[] = { SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL };

typedef struct Attempt {
    bool known;
    char image[64], ops[4096], seed[24], fail[32];
    bool delays;
    int cut, state;
} Attempt;

static Attempt *attempt; /* shared with children; NULL: nobody asks */

static bool make_attempt(void)
{
    if (!attempt) {
        void *memory = mmap(NULL, sizeof(*attempt), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        attempt = memory == MAP_FAILED ? NULL : memory;
    }
    return attempt != NULL;
}

void attempt_begin(const CrashImage *image, const CrashHistory *history)
{
    if (!attempt) {
        return;
    }
    g_autofree char *ops = history_text(history);
    g_strlcpy(attempt->image, image->name, sizeof(attempt->image));
    g_strlcpy(attempt->ops, ops, sizeof(attempt->ops));
    g_snprintf(attempt->seed, sizeof(attempt->seed), "%" G_GUINT64_FORMAT, history->seed);
    g_snprintf(attempt->fail, sizeof(attempt->fail), "%s:%u", fail_names[history->fail], history->fail_nth);
    if (!history->fail) {
        attempt->fail[0] = 0;
    }
    attempt->delays = history->delays;
    attempt->cut = attempt->state = -1;
    attempt->known = true;
}

void attempt_at(unsigned cut, int state)
{
    if (attempt) {
        attempt->cut = (int)cut;
        attempt->state = state;
    }
}

void attempt_end(void)
{
    if (attempt) {
        attempt->known = false;
    }
}

/* ---- the search dies ---- */

/* Calls only what a signal handler may. */
static void execute_anew(int number)
{
    char *argv[16] = { "crash", "--aborted", "--image", attempt->image, "--ops", attempt->ops, "--seed", attempt->seed };
    unsigned n = 8;
    sigset_t none;

    if (!attempt->known) {
        return; /* of something else: die of it */
    }
    if (attempt->fail[0]) {
        argv[n++] = "--fail";
        argv[n++] = attempt->fail;
    }
    if (attempt->delays) {
        argv[n++] = "--delays";
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execv("/proc/self/exe", argv);
}

void attempt_guard(void)
{
    struct sigaction action = { .sa_handler = execute_anew, .sa_flags = SA_RESETHAND };

    for (unsigned i = 0; make_attempt() && i < G_N_ELEMENTS(signals); i++) {
        sigaction(signals[i], &action, NULL);
    }
}

/* ---- a child dies ---- */

static void G_GNUC_NORETURN child_main(Search *search, const CrashHistory *history)
{
    static const struct rlimit no_core = { 0, 0 };

    for (unsigned i = 0; i < G_N_ELEMENTS(signals); i++) {
        signal(signals[i], SIG_DFL);
    }
    setrlimit(RLIMIT_CORE, &no_core);
    alarm(CHILD_SECONDS);
    if (search->options->quiet) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
    }
    search_history(search, history, 0, NULL);
    _exit(0);
}

int attempt_dies(Search *search, const CrashHistory *history, int *cut, int *state)
{
    int status = 0;
    fflush(NULL);
    pid_t pid = make_attempt() ? fork() : -1;
    if (pid == 0) {
        child_main(search, history);
    }
    if (pid < 0 || waitpid(pid, &status, 0) < 0) {
        g_error("a child process could not be run");
    }
    *cut = attempt->cut;
    *state = attempt->state;
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}
