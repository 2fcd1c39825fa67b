/* SPDX-License-Identifier: MIT */
/* Being told to stop: what copies ends where it is, closes its images, and only then dies of the signal. */
#include <signal.h>

#include "tools/img/img.h"

static volatile sig_atomic_t caught;

static void on_signal(int number)
{
    caught = number;
}

void img_interrupt_catch(void)
{
    static const int numbers[] = { SIGINT, SIGTERM, SIGHUP };
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART | (int)SA_RESETHAND }, before;

    for (unsigned i = 0; i < G_N_ELEMENTS(numbers); i++) {
        /* One that is ignored (nohup) stays so. */
        if (sigaction(numbers[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN) {
            sigaction(numbers[i], &action, NULL);
        }
    }
}

int img_interrupted(void)
{
    return caught;
}

void img_interrupt_end(void)
{
    if (caught) {
        fflush(stdout);
        signal(caught, SIG_DFL);
        raise(caught);
    }
}
