/* SPDX-License-Identifier: MIT */
/* bdrv-img: create, convert, inspect and change disk images. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/img/img.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *arguments;
} subcommands[] = {
    { "amend", img_amend, "[--image-opts] [-p] [-q] [-f fmt] [-t cache] [--force] -o options filename" },
    { "bench", img_bench,
      "[-c count] [-d depth] [-f fmt] [--flush-interval=flush_interval] [-i aio] [-n] [--no-drain] [-o offset] "
      "[--pattern=pattern] [-q] [-s buffer_size] [-S step_size] [-t cache] [-w] [-U] filename" },
    { "bitmap", img_bitmap,
      "(--merge SOURCE | --add | --remove | --clear | --enable | --disable)... [-b source_file [-F source_fmt]] "
      "[-g granularity] [--image-opts | -f fmt] filename bitmap" },
    { "check", img_check, "[--image-opts] [-q] [-f fmt] [--output=ofmt] [-r [leaks | all]] [-T src_cache] [-U] filename" },
    { "commit", img_commit,
      "[--image-opts] [-q] [-f fmt] [-t cache] [-b base] [-r rate_limit] [-d] [-p] filename" },
    { "compare", img_compare,
      "[--image-opts] [-f fmt] [-F fmt] [-T src_cache] [-p] [-q] [-s] [-U] filename1 filename2" },
    { "convert", img_convert,
      "[--image-opts] [--target-image-opts] [--target-is-zero] [--bitmaps [--skip-broken-bitmaps]] [-U] [-C] [-c] [-p] "
      "[-q] [-n] [-f fmt] [-t cache] [-T src_cache] [-O output_fmt] [-B backing_file [-F backing_fmt]] [-o options] [-l snapshot_param] "
      "[-S sparse_size] [-r rate_limit] [-m num_coroutines] [-W] [--salvage] filename [filename2 [...]] output_filename" },
    { "create", img_create, "[-q] [-f fmt] [-b backing_file [-F backing_fmt]] [-u] [-o options] filename [size]" },
    { "dd", img_dd,
      "[--image-opts] [-U] [-f fmt] [-O output_fmt] [bs=block_size] [count=blocks] [skip=blocks] if=input of=output" },
    { "info", img_info, "[--image-opts] [-f fmt] [--output=ofmt] [--backing-chain] [-U] filename" },
    { "map", img_map,
      "[--image-opts] [-f fmt] [--start-offset=offset] [--max-length=len] [--output=ofmt] [-U] filename" },
    { "measure", img_measure,
      "[--image-opts] [-f fmt] [-U] [--output=ofmt] [-O output_fmt] [-o options] "
      "[--size N | [-l snapshot_param] filename]" },
    { "rebase", img_rebase,
      "[--image-opts] [-U] [-q] [-f fmt] [-t cache] [-T src_cache] [-p] [-u] -b backing_file [-F backing_fmt] filename" },
    { "resize", img_resize,
      "[--image-opts] [-f fmt] [--preallocation=prealloc] [-q] [--shrink] filename [+ | -]size" },
    { "snapshot", img_snapshot,
      "[--image-opts] [-U] [-q] [-l | -a snapshot | -c snapshot | -d snapshot] filename" },
};

void img_print_help(FILE *out)
{
    fprintf(out,
            "usage: %s [standard options] command [command options]\n"
            "Create, convert, inspect and change disk images.\n\n"
            "    '-h', '--help'       print this and exit\n"
            "    '-V', '--version'    print the version and exit\n\n"
            "Command syntax:\n",
            tool_name());
    for (unsigned i = 0; i < G_N_ELEMENTS(subcommands); i++) {
        fprintf(out, "  %s %s\n", subcommands[i].name, subcommands[i].arguments);
    }
    fprintf(out,
            "\nSizes take the suffixes k, M, G, T, P and E (powers of 1024). Cache modes are none, writeback,\n"
            "writethrough, directsync and unsafe. '-o help' lists the options of a format.\n"
            "\nExample:\n"
            "  %s create -f qcow2 disk.qcow2 20G\n"
            "  %s convert -p -O qcow2 disk.raw disk.qcow2\n\nSupported formats:",
            tool_name(), tool_name());
    for (unsigned n = 0; bdrv_driver_nth(n); n++) {
        fprintf(out, " %s", bdrv_driver_nth(n));
    }
    fputc('\n', out);
}

int main(int argc, char **argv)
{
    tool_init(argv[0]);
    if (argc < 2) {
        return img_usage_error("Not enough arguments");
    }
    if (strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0) {
        img_print_help(stdout);
        return 0;
    }
    if (strcmp(argv[1], "-V") == 0 || strcmp(argv[1], "--version") == 0) {
        printf("%s (libbdrv) 0.1.0\n", tool_name());
        return 0;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(subcommands); i++) {
        if (strcmp(argv[1], subcommands[i].name) == 0) {
            return subcommands[i].run(argc - 1, argv + 1);
        }
    }
    if (argv[1][0] == '-') {
        return img_usage_error("unrecognized option '%s'", argv[1]);
    }
    return img_usage_error("Command not found: %s", argv[1]);
}
