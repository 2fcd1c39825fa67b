/* SPDX-License-Identifier: MIT */
/* The command table, and how a line becomes a call. */
#include "tools/io/io.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int run_help(IoSession *session, int argc, char **argv);

static int run_quit(IoSession *session, int argc, char **argv)
{
    session->quit = true;
    return 0;
}

static int run_abort(IoSession *session, int argc, char **argv)
{
    abort();
}

static int run_sigraise(IoSession *session, int argc, char **argv)
{
    int64_t number;

    if (!io_parse_number(argv[1], &number)) {
        return -EINVAL;
    }
    fflush(stdout);
    return raise((int)number) == 0 ? 0 : -EINVAL;
}

static const char aio_note[] =
    "\n The command is done once the request has been handed over; errors and failed\n"
    " patterns are printed when it completes, and do not change the exit code.\n"
    " aio_flush waits for all of them.\n";

static const char read_help[] =
    " -C  print the figures as comma separated values\n"
    " -l  how many bytes -P looks at\n"
    " -P  the data must consist of this byte\n"
    " -q  print no figures\n"
    " -s  where in the data -P begins to look\n"
    " -v  print the data in hexadecimal\n"
    " -a, -p  accepted, without effect\n"
    "\n Example: read -P 0x41 -v 512 1k\n";

static const char readv_help[] =
    " Reads into one buffer a length.\n\n"
    " -C  print the figures as comma separated values\n"
    " -P  the data must consist of this byte\n"
    " -q  print no figures\n"
    " -v  print the data in hexadecimal\n"
    "\n Example: readv -v 512 1k 1k\n";

static const char write_help[] =
    " -c  store compressed: whole clusters that have no space yet\n"
    " -C  print the figures as comma separated values\n"
    " -f  the data is durable when the command returns (FUA)\n"
    " -n  with -z: fail rather than write zeroes as data\n"
    " -P  fill with this byte (0xcd if not given)\n"
    " -q  print no figures\n"
    " -s  fill with the content of a file, repeated\n"
    " -u  with -z: the range may become unallocated\n"
    " -z  write zeroes\n"
    " -p  accepted, without effect\n"
    "\n Example: write -P 0x41 512 1k\n";

static const char writev_help[] =
    " Writes from one buffer a length.\n\n"
    " -C  print the figures as comma separated values\n"
    " -f  the data is durable when the command returns (FUA)\n"
    " -P  fill with this byte (0xcd if not given)\n"
    " -q  print no figures\n"
    "\n Example: writev 512 1k 1k\n";

static const char aio_read_help[] =
    " -C  print the figures as comma separated values\n"
    " -i  count an invalid request, do nothing\n"
    " -P  the data must consist of this byte\n"
    " -q  print no figures\n"
    " -v  print the data in hexadecimal\n";

static const char aio_write_help[] =
    " -C  print the figures as comma separated values\n"
    " -f  the data is durable when the request completes (FUA)\n"
    " -i  count an invalid request, do nothing\n"
    " -P  fill with this byte (0xcd if not given)\n"
    " -q  print no figures\n"
    " -u  with -z: the range may become unallocated\n"
    " -z  write zeroes\n";

static const char break_help[] =
    " The next request that comes to the event waits there until it is resumed; needs\n"
    " the driver blkdebug under the image.\n"
    "\n Example: break write_aio A, aio_write 0 4k, wait_break A, resume A\n";

static const char remove_break_help[] =
    " Requests that wait at breakpoints of this tag go on.\n";

static const char discard_help[] =
    " -C  print the figures as comma separated values\n"
    " -q  print no figures\n"
    "\n Example: discard 64k 1M\n";

static const char open_help[] =
    " -d  what discards do: ignore, or unmap\n"
    " -i  engine of the file: threads, native, io_uring\n"
    " -k  the same as -i native\n"
    " -n  the same as -t none\n"
    " -o  options of the driver: key=value,…\n"
    " -r  read-only\n"
    " -t  cache mode: none, writeback, writethrough, directsync, unsafe\n"
    " -U  share the image with writers\n"
    "\n Example: open -n -o driver=raw /tmp/disk.img\n";

static const char reopen_help[] =
    " -c  new cache mode\n"
    " -o  new options of the driver\n"
    " -r  read-only\n"
    " -w  read-write\n";

static const IoCommand commands[] = {
    { "abort", run_abort, 0, 0, true, NULL, "simulate a program crash using abort(3)", NULL },
    { "aio_flush", io_aio_flush, 0, 0, false, NULL, "completes all outstanding aio requests", NULL },
    { "aio_read", io_aio_read, 2, -1, false, "[-Ciqv] [-P pattern] off len [len..]",
      "asynchronously reads a number of bytes", aio_read_help },
    { "aio_write", io_aio_write, 2, -1, false, "[-Cfiquz] [-P pattern] off len [len..]",
      "asynchronously writes a number of bytes", aio_write_help, true },
    { "alloc", io_alloc, 1, 2, false, "offset [count]", "checks if offset is allocated in the file", NULL },
    { "break", io_break, 2, 2, false, "event tag",
      "sets a breakpoint on event and tags the stopped request as tag", break_help },
    { "close", io_close, 0, 0, false, NULL, "close the current open file", NULL },
    { "discard", io_discard, 2, -1, false, "[-Cq] off len", "discards a number of bytes at a specified offset",
      discard_help, true },
    { "flush", io_flush, 0, 0, false, NULL, "flush all in-core file state to disk", NULL },
    { "help", run_help, 0, 1, true, "[command]", "help for one or all commands", NULL },
    { "info", io_info, 0, 0, false, NULL, "prints information about the current file", NULL },
    { "length", io_length, 0, 0, false, NULL, "gets the length of the current file", NULL },
    { "map", io_map, 0, 0, false, "", "prints the allocated areas of a file", NULL },
    { "open", io_open, 1, -1, true, "[-rsCnkU] [-t cache] [-d discard] [-o options] [path]",
      "open the file specified by path", open_help },
    { "quit", run_quit, 0, 0, true, NULL, "exit the program", NULL },
    { "read", io_read, 2, -1, false, "[-abCqv] [-P pattern [-s off] [-l len]] off len",
      "reads a number of bytes at a specified offset", read_help },
    { "readv", io_readv, 2, -1, false, "[-Cqv] [-P pattern] off len [len..]",
      "reads a number of bytes at a specified offset", readv_help },
    { "remove_break", io_remove_break, 1, 1, false, "tag", "remove a breakpoint by tag", remove_break_help },
    { "reopen", io_reopen, 0, -1, false, "[(-r|-w)] [-c cache] [-o options]",
      "reopens an image with new options", reopen_help },
    { "resume", io_resume, 1, 1, false, "tag", "resumes the request tagged as tag", NULL },
    { "sigraise", run_sigraise, 1, 1, true, "signal", "raises a signal", NULL },
    { "sleep", io_sleep, 1, 1, true, NULL, "waits for the given value in milliseconds", NULL },
    { "truncate", io_truncate, 1, 3, false, "[-m prealloc_mode] off",
      "truncates the current file at the given offset", NULL, true },
    { "wait_break", io_wait_break, 1, 1, false, "tag", "waits for the suspension of a request", NULL },
    { "write", io_write, 2, -1, false, "[-bcCfnquz] [-P pattern | -s source_file] off len",
      "writes a number of bytes at a specified offset", write_help, true },
    { "writev", io_writev, 2, -1, false, "[-Cfq] [-P pattern] off len [len..]",
      "writes a number of bytes at a specified offset", writev_help, true },
};

static void print_one_line(const IoCommand *command)
{
    printf("%s ", command->name);
    if (command->args) {
        printf("%s ", command->args);
    }
    printf("-- %s\n", command->one_line);
}

const IoCommand *io_find_command(const char *name)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(commands); i++) {
        if (strcmp(name, commands[i].name) == 0) {
            return &commands[i];
        }
    }
    /* Short for quit, as ever. */
    return strcmp(name, "q") == 0 ? io_find_command("quit") : NULL;
}

int io_usage(const IoCommand *command)
{
    print_one_line(command);
    return -EINVAL;
}

static int run_help(IoSession *session, int argc, char **argv)
{
    const IoCommand *command;

    if (argc == 1) {
        for (unsigned i = 0; i < G_N_ELEMENTS(commands); i++) {
            print_one_line(&commands[i]);
        }
        printf("\nUse 'help commandname' for extended help.\n");
        return 0;
    }
    command = io_find_command(argv[1]);
    if (!command) {
        printf("command %s not found\n", argv[1]);
        return -EINVAL;
    }
    print_one_line(command);
    if (command->long_help) {
        printf("\n%s%s", command->long_help, g_str_has_prefix(command->name, "aio_") ? aio_note : "");
    }
    return 0;
}

static int check_argument_count(const IoCommand *command, int count)
{
    g_autofree char *expected = NULL;

    if (count >= command->argc_min && (command->argc_max < 0 || count <= command->argc_max)) {
        return 0;
    }
    if (command->argc_max < 0) {
        expected = g_strdup_printf("at least %d", command->argc_min);
    } else if (command->argc_min == command->argc_max) {
        expected = g_strdup_printf("%d", command->argc_min);
    } else {
        expected = g_strdup_printf("between %d and %d", command->argc_min, command->argc_max);
    }
    fflush(stdout);
    fprintf(stderr, "bad argument count %d to %s, expected %s arguments\n", count, command->name, expected);
    return -EINVAL;
}

/* What a driver below knows of the requests that failed, once. */
static void explain_failures(IoSession *session)
{
    g_autofree char *text = session->blk ? blk_explain(session->blk) : NULL;

    if (text && g_strcmp0(text, session->explained) != 0) {
        fflush(stdout);
        fprintf(stderr, "%s\n", text);
    }
    g_free(session->explained);
    session->explained = g_steal_pointer(&text);
}

int io_run_line(IoSession *session, char *line)
{
    g_autoptr(GPtrArray) words = g_ptr_array_new();
    const IoCommand *command;
    char *rest = line, *word;
    int argc, ret;

    while ((word = strsep(&rest, " \t\n")) != NULL) {
        if (*word) {
            g_ptr_array_add(words, word);
        }
    }
    argc = (int)words->len;
    if (argc == 0) {
        return 0;
    }
    g_ptr_array_add(words, NULL);
    char **argv = (char **)words->pdata;
    command = io_find_command(argv[0]);
    if (!command) {
        fflush(stdout);
        fprintf(stderr, "command \"%s\" not found\n", argv[0]);
        return -EINVAL;
    }
    if (!command->needs_no_file && !session->blk) {
        fflush(stdout);
        fprintf(stderr, "no file open, try 'help open'\n");
        return -EINVAL;
    }
    ret = check_argument_count(command, argc - 1);
    if (ret < 0) {
        return ret;
    }
    if (command->writes && blk_is_read_only(session->blk)) {
        tool_error("Block node is read-only");
        return -EACCES;
    }
    fflush(stdout); /* getopt writes to standard error by itself */
    optind = 0;     /* makes getopt start over (glibc) */
    ret = command->run(session, argc, argv);
    /* Whatever has completed meanwhile is told now. */
    while (session->in_flight > 0 && aio_context_run(aio_context_current(), false)) {
    }
    explain_failures(session);
    return ret;
}
