/* SPDX-License-Identifier: MIT */
/* bdrv-io: exercise a disk image by commands, from the command line or standard input. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/io/io.h"

static const char help_text[] =
    "Usage: %s [OPTIONS]... [-c STRING]... [file]\n"
    "Exercise a disk image.\n"
    "\n"
    "  -c, --cmd STRING     run this command; may be given several times. Without it, commands\n"
    "                       are read from standard input\n"
    "  -f, --format FMT     format of the image (guessed if not given)\n"
    "      --image-opts     file is a list of options: driver=qcow2,file.filename=disk.qcow2\n"
    "  -r, --read-only      open read-only\n"
    "  -n, --nocache        the same as -t none\n"
    "  -t, --cache MODE     none, writeback, writethrough (default), directsync, unsafe\n"
    "  -d, --discard MODE   unmap (default), or ignore\n"
    "  -i, --aio MODE       threads, native or io_uring\n"
    "  -k, --native-aio     the same as -i native\n"
    "  -U, --force-share    share the image with writers (with -r)\n"
    "  -h, --help           print this and exit\n"
    "  -V, --version        print the version and exit\n"
    "\n"
    "'%s -c help' lists the commands, '%s -c \"help read\"' explains one.\n"
    "\n"
    "Example:\n"
    "  %s -f qcow2 -c 'write -P 0x41 0 64k' -c 'read -v 0 32' disk.qcow2\n";

enum { OPTION_IMAGE_OPTS = 256, OPTION_OBJECT };

static const struct option long_options[] = {
    { "help", no_argument, NULL, 'h' },
    { "version", no_argument, NULL, 'V' },
    { "cmd", required_argument, NULL, 'c' },
    { "format", required_argument, NULL, 'f' },
    { "read-only", no_argument, NULL, 'r' },
    { "snapshot", no_argument, NULL, 's' },
    { "nocache", no_argument, NULL, 'n' },
    { "copy-on-read", no_argument, NULL, 'C' },
    { "misalign", no_argument, NULL, 'm' },
    { "native-aio", no_argument, NULL, 'k' },
    { "aio", required_argument, NULL, 'i' },
    { "cache", required_argument, NULL, 't' },
    { "discard", required_argument, NULL, 'd' },
    { "trace", required_argument, NULL, 'T' },
    { "force-share", no_argument, NULL, 'U' },
    { "image-opts", no_argument, NULL, OPTION_IMAGE_OPTS },
    { "object", required_argument, NULL, OPTION_OBJECT },
    { NULL, 0, NULL, 0 },
};

static void print_help(FILE *out)
{
    const char *name = tool_name();

    fprintf(out, help_text, name, name, name, name);
}

static void refuse(const char *option)
{
    tool_error("%s is not built yet", option);
    exit(1);
}

/* Ends the program where nothing is left to do or the options are wrong. */
static void parse_command_line(int argc, char **argv, ToolImage *image, GPtrArray *commands)
{
    int option;

    while ((option = getopt_long(argc, argv, "hVc:d:f:rsnCmki:t:T:U", long_options, NULL)) != -1) {
        switch (option) {
        case 'c': g_ptr_array_add(commands, optarg); break;
        case 'f': image->format = optarg; break;
        case 'r': image->flags &= ~BDRV_O_RDWR; break;
        case 'n': tool_cache_mode("none", &image->flags); break;
        case 'k': image->aio = "native"; break;
        case 'U': image->flags |= BDRV_O_FORCE_SHARE; break;
        case OPTION_IMAGE_OPTS: image->image_opts = true; break;
        case 'i':
            if (strcmp(optarg, "threads") != 0 && strcmp(optarg, "native") != 0 && strcmp(optarg, "io_uring") != 0) {
                tool_error("Invalid aio option: %s", optarg);
                exit(1);
            }
            image->aio = optarg;
            break;
        case 't':
            if (!tool_cache_mode(optarg, &image->flags)) {
                tool_error("Invalid cache option: %s", optarg);
                exit(1);
            }
            break;
        case 'd':
            if (!tool_discard_mode(optarg, &image->flags)) {
                tool_error("Invalid discard option: %s", optarg);
                exit(1);
            }
            break;
        case 's': refuse("a snapshot file (-s)"); break;
        case 'C': refuse("copy-on-read (-C)"); break;
        case 'm': refuse("misaligned buffers (-m)"); break;
        case 'T': refuse("tracing (-T)"); break;
        case OPTION_OBJECT:
            if (!tool_add_object(optarg)) {
                exit(1);
            }
            break;
        case 'h': print_help(stdout); exit(0);
        case 'V': printf("%s (libbdrv) 0.1.0\n", tool_name()); exit(0);
        default: print_help(stdout); exit(1);
        }
    }
    if (optind < argc - 1) {
        print_help(stdout);
        exit(1);
    }
    image->filename = argv[optind];
}

static int run_commands(IoSession *session, GPtrArray *commands)
{
    int status = 0;

    for (unsigned i = 0; i < commands->len && !session->quit; i++) {
        g_autofree char *line = g_strdup(g_ptr_array_index(commands, i));

        if (io_run_line(session, line) < 0) {
            status = 1;
        }
    }
    return status;
}

static int run_input(IoSession *session)
{
    char *line = NULL;
    size_t size = 0;
    int status = 0;

    while (!session->quit) {
        printf("%s> ", tool_name());
        fflush(stdout);
        if (getline(&line, &size, stdin) < 0) {
            break;
        }
        if (io_run_line(session, line) < 0) {
            status = 1;
        }
    }
    free(line);
    return status;
}

int main(int argc, char **argv)
{
    g_autoptr(GPtrArray) commands = g_ptr_array_new();
    ToolImage image = { .flags = IO_DEFAULT_FLAGS };
    IoSession session = { 0 };
    int status = 0;

    tool_init(argv[0]);
    parse_command_line(argc, argv, &image, commands);
    session.graph = tool_graph();
    io_tell_breaks(session.graph);
    if (image.filename && io_open_image(&session, &image) < 0) {
        bdrv_graph_unref(session.graph);
        return 1;
    }
    status = commands->len > 0 ? run_commands(&session, commands) : run_input(&session);
    if (session.blk && io_close(&session, 0, NULL) < 0) {
        status = 1;
    }
    bdrv_graph_unref(session.graph);
    g_free(session.explained);
    return status;
}
