/* SPDX-License-Identifier: MIT */
#include "tools/common/tool.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *program = "bdrv";

/* Started with a standard stream closed, an image would get its number, and messages go into it. */
static void open_standard_streams(void)
{
    int fd;

    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0) {
        close(fd);
    }
}

/* A module that cannot be used is no reason to stop: most commands need none. */
static void tell_module_errors(void)
{
    const char *errors = bdrv_module_dir_errors();
    g_auto(GStrv) lines = errors ? g_strsplit(errors, "\n", -1) : NULL;

    for (char **line = lines; line && *line; line++) {
        tool_warning("%s", *line);
    }
}

void tool_init(const char *argv0)
{
    const char *slash = strrchr(argv0, '/');

    open_standard_streams();

    program = slash ? slash + 1 : argv0;
    tell_module_errors();
}

const char *tool_name(void)
{
    return program;
}

static void print_message(const char *severity, const char *format, va_list args)
{
    fflush(stdout);
    fprintf(stderr, "%s: %s", program, severity);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
}

void tool_error(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    print_message("", format, args);
    va_end(args);
}

void tool_warning(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    print_message("warning: ", format, args);
    va_end(args);
}

void tool_report(const char *context, GError *error)
{
    if (context) {
        tool_error("%s: %s", context, error->message);
    } else {
        tool_error("%s", error->message);
    }
    g_error_free(error);
}
