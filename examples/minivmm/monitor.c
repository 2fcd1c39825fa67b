/* SPDX-License-Identifier: MIT */
#include "monitor.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define LINE_MAX_BYTES 4096

struct Monitor {
    Vmm *vmm;
    pthread_t thread;
    int stop_fd; /* eventfd: readable when the thread is to end */
    char line[LINE_MAX_BYTES];
    size_t bytes; /* of the line, so far */
};

/* The device is told by the notice of the disk, inside blk_truncate(). */
static bool resize(Vmm *vmm, const char *disk, const char *size, GError **errp)
{
    guint64 index;
    int64_t bytes;

    if (!g_ascii_string_to_unsigned(disk, 10, 0, vmm->disk_count - 1, &index, errp) ||
        !bdrv_parse_size(size, &bytes, errp) ||
        !blk_truncate(vmm->disks[index].blk, bytes, true, BDRV_PREALLOC_OFF, 0, errp)) {
        return false;
    }
    g_print("vmm: disk %" PRIu64 " has %" PRId64 " bytes\n", index, blk_length(vmm->disks[index].blk));
    return true;
}

static void carry_out(Vmm *vmm, const char *line)
{
    g_auto(GStrv) words = g_strsplit(line, " ", -1);
    g_autoptr(GError) error = NULL;

    if (g_strv_length(words) == 3 && strcmp(words[0], "resize") == 0) {
        resize(vmm, words[1], words[2], &error);
    } else {
        g_set_error(&error, BDRV_ERROR, EINVAL, "'%s' is no command; there is resize DISK SIZE", line);
    }
    if (error) {
        g_printerr("vmm: %s\n", error->message);
    }
}

/* False: there are no more lines, or one is too long to be any. */
static bool read_lines(Monitor *monitor)
{
    ssize_t n = read(STDIN_FILENO, monitor->line + monitor->bytes, LINE_MAX_BYTES - monitor->bytes);
    char *end;

    if (n <= 0) {
        return n < 0 && (errno == EINTR || errno == EAGAIN);
    }
    monitor->bytes += n;
    while ((end = memchr(monitor->line, '\n', monitor->bytes))) {
        *end++ = '\0';
        carry_out(monitor->vmm, monitor->line);
        monitor->bytes -= end - monitor->line;
        memmove(monitor->line, end, monitor->bytes);
    }
    return monitor->bytes < LINE_MAX_BYTES;
}

static void *monitor_thread(void *opaque)
{
    Monitor *monitor = opaque;
    struct pollfd fds[] = { { STDIN_FILENO, POLLIN, 0 }, { monitor->stop_fd, POLLIN, 0 } };

    do {
        while (poll(fds, 2, -1) < 0 && errno == EINTR) {
        }
    } while (!fds[1].revents && read_lines(monitor));
    return NULL;
}

Monitor *monitor_start(Vmm *vmm, GError **errp)
{
    Monitor *monitor = g_new0(Monitor, 1);
    int ret;

    monitor->vmm = vmm;
    monitor->stop_fd = eventfd(0, EFD_CLOEXEC);
    ret = monitor->stop_fd < 0 ? errno : pthread_create(&monitor->thread, NULL, monitor_thread, monitor);
    if (ret == 0) {
        return monitor;
    }
    g_set_error(errp, BDRV_ERROR, ret, "no thread for the monitor: %s", g_strerror(ret));
    if (monitor->stop_fd >= 0) {
        close(monitor->stop_fd);
    }
    g_free(monitor);
    return NULL;
}

void monitor_stop(Monitor *monitor)
{
    if (monitor) {
        eventfd_write(monitor->stop_fd, 1);
        pthread_join(monitor->thread, NULL);
        close(monitor->stop_fd);
        g_free(monitor);
    }
}
