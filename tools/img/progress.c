/* SPDX-License-Identifier: MIT */
/* "    (12.50/100%)" on standard output, each line over the last; SIGUSR1 prints it once. */
#include <signal.h>

#include "tools/img/img.h"

static struct {
    bool wanted, active;
    double shown, step;
    volatile sig_atomic_t asked;
} progress;

static void on_signal(int signal_number)
{
    progress.asked = 1;
}

static void print(double percent)
{
    printf("    (%3.2f/100%%)\r", percent);
    fflush(stdout);
    progress.shown = percent;
}

void img_progress_start(bool wanted, double step)
{
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };

    sigaction(SIGUSR1, &action, NULL);
    progress.wanted = wanted;
    progress.step = step;
    progress.active = true;
    if (wanted) {
        print(0);
    }
}

void img_progress_update(int64_t done, int64_t total)
{
    double percent = total > 0 ? 100.0 * done / total : 100;

    if (progress.asked || (progress.wanted && (percent - progress.shown >= progress.step || done == total))) {
        progress.asked = 0;
        print(percent);
    }
}

void img_progress_complete(void)
{
    if (progress.wanted) {
        print(100);
    }
}

void img_progress_end(void)
{
    if (progress.wanted && progress.active) {
        putchar('\n');
    }
    progress.active = false;
}

bool img_progress_wanted(void)
{
    return progress.wanted && progress.active;
}
