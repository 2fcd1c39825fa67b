/* SPDX-License-Identifier: MIT */
/* bdrv-img: create, convert, inspect and change disk images. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/img/img.h"

static const struct {
    const char *name; /* as in img_syntaxes[] */
    int (*run)(int argc, char **argv);
} subcommands[] = {
    { "amend", img_amend },
    { "bench", img_bench },
    { "bitmap", img_bitmap },
    { "check", img_check },
    { "commit", img_commit },
    { "compare", img_compare },
    { "convert", img_convert },
    { "create", img_create },
    { "dd", img_dd },
    { "info", img_info },
    { "map", img_map },
    { "measure", img_measure },
    { "rebase", img_rebase },
    { "resize", img_resize },
    { "snapshot", img_snapshot },
};

int main(int argc, char **argv)
{
    tool_init(argv[0]);
    if (argc < 2) {
        return img_usage_error("Not enough arguments");
    }
    if (strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0) {
        img_print_help();
        return 0;
    }
    if (strcmp(argv[1], "-V") == 0 || strcmp(argv[1], "--version") == 0) {
        printf("%s (libbdrv) 0.1.0\n", tool_name());
        return 0;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(subcommands); i++) {
        if (strcmp(argv[1], subcommands[i].name) == 0) {
            int status = subcommands[i].run(argc - 1, argv + 1);

            img_interrupt_end();
            return status;
        }
    }
    if (argv[1][0] == '-') {
        return img_usage_error("unrecognized option '%s'", argv[1]);
    }
    return img_usage_error("Command not found: %s", argv[1]);
}
