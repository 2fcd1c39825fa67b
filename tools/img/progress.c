/* SPDX-License-Identifier: MIT */
/*
 * How far a subcommand is, on standard output. On a terminal a bar with the rate and the time left, as wide as the window;
 * elsewhere "    (12.50/100%)", each line over the last, as programs that read it expect. Without -p SIGUSR1 prints the
 * latter once, to standard error.
 */
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "tools/img/img.h"

#define REDRAW_US (100 * 1000)
#define MIN_BAR 10 /* columns; in a narrower window there is only the text */

static struct {
    bool wanted, active, bar;
    bool on_line; /* the bar is on the line that the cursor is on */
    ImgProgressUnit unit;
    double shown, step; /* per cent */
    gint64 started, drawn; /* us */
    int64_t done, total;
    volatile sig_atomic_t asked;
} progress;

static void on_signal(int signal_number)
{
    progress.asked = 1;
}

/* ---- the plain form ---- */

static void print(double percent)
{
    printf("    (%3.2f/100%%)\r", percent);
    fflush(stdout);
    progress.shown = percent;
}

/* For SIGUSR1. Not into what the command prints, of which progress is no part without -p. */
static void print_aside(double percent)
{
    fprintf(stderr, "    (%3.2f/100%%)\n", percent);
}

/* ---- the bar ---- */

static int columns(void)
{
    struct winsize size;

    return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

/* "1:23" or "1:02:03" */
static void put_time(GString *text, double seconds)
{
    int64_t whole = (int64_t)(seconds + 0.5);

    if (whole >= 3600) {
        g_string_append_printf(text, "%d:%02d:%02d", (int)(whole / 3600), (int)(whole / 60 % 60), (int)(whole % 60));
    } else {
        g_string_append_printf(text, "%d:%02d", (int)(whole / 60), (int)(whole % 60));
    }
}

/* "312 MiB/s" */
static void put_rate(GString *text, double rate)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
    unsigned unit = 0;

    while (rate >= 1000 && unit < G_N_ELEMENTS(units) - 1) {
        rate /= 1024;
        unit++;
    }
    g_string_append_printf(text, "%.*f %s/s", rate < 10 && unit > 0 ? 1 : 0, rate, units[unit]);
}

/* " 42%  312 MiB/s  0:12 left"; at the end the time that it took */
static GString *bar_text(double percent, double seconds, bool complete)
{
    GString *text = g_string_new(NULL);
    double rate = seconds > 0 ? (double)progress.done / seconds : 0;

    g_string_append_printf(text, " %3d%%", (int)percent);
    if (progress.unit == IMG_PROGRESS_BYTES && rate > 0) {
        g_string_append(text, "  ");
        put_rate(text, rate);
    }
    if (complete) {
        g_string_append(text, "  ");
        put_time(text, seconds);
    } else if (rate > 0 && seconds >= 1 && (double)(progress.total - progress.done) / rate < 100 * 3600) {
        g_string_append(text, "  ");
        put_time(text, (double)(progress.total - progress.done) / rate);
        g_string_append(text, " left");
    }
    return text;
}

static void draw(double percent, bool complete)
{
    gint64 now = g_get_monotonic_time();
    g_autoptr(GString) text = bar_text(percent, (double)(now - progress.started) / G_USEC_PER_SEC, complete);
    int room = columns() - 1; /* the last column is left free: some terminals go on to the next line there */
    int width = room - (int)text->len - 2;

    putchar('\r');
    if (width >= MIN_BAR) {
        int full = (int)(percent / 100 * width);

        putchar('[');
        for (int i = 0; i < width; i++) {
            putchar(i < full ? '=' : i == full ? '>' : ' ');
        }
        putchar(']');
        room -= width + 2;
    }
    printf("%.*s\033[K", room, text->str);
    fflush(stdout);
    progress.drawn = now;
    progress.on_line = true;
}

/* ---- both ---- */

void img_progress_start(bool wanted, ImgProgressUnit unit, double step)
{
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
    const char *terminal = g_getenv("TERM");

    sigaction(SIGUSR1, &action, NULL);
    progress.wanted = wanted;
    progress.bar = isatty(STDOUT_FILENO) && terminal && strcmp(terminal, "dumb") != 0;
    progress.unit = unit;
    progress.step = step;
    progress.active = true;
}

void img_progress_begin(void)
{
    progress.started = g_get_monotonic_time();
    if (progress.wanted && !progress.bar) {
        print(0);
    }
}

void img_progress_update(int64_t done, int64_t total)
{
    double percent = total > 0 ? 100.0 * done / total : 100;

    progress.done = done;
    progress.total = total;
    if (progress.wanted && progress.bar) {
        if (done == total || g_get_monotonic_time() - progress.drawn >= REDRAW_US) {
            draw(percent, done == total);
        }
    } else if (progress.wanted && (progress.asked || percent - progress.shown >= progress.step || done == total)) {
        print(percent);
    } else if (progress.asked) {
        print_aside(percent);
    }
    progress.asked = 0;
}

bool img_progress_report(void *opaque, int64_t done, int64_t total)
{
    img_progress_update(done, total);
    return true;
}

void img_progress_complete(void)
{
    if (progress.wanted && progress.bar) {
        draw(100, true);
    } else if (progress.wanted) {
        print(100);
    }
}

void img_progress_end(void)
{
    if (progress.wanted && progress.active && (!progress.bar || progress.on_line)) {
        putchar('\n');
    }
    progress.active = false;
}

bool img_progress_wanted(void)
{
    return progress.wanted && progress.active;
}

void img_progress_give_way(void)
{
    if (progress.active && progress.on_line) {
        putchar('\n');
        fflush(stdout);
        progress.on_line = false;
    }
}
