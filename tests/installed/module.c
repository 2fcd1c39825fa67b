/* SPDX-License-Identifier: MIT */
/* Loads a module with the driver complement, and prints the first bytes of a file as that shows it: module MODULE FILE */
#include <bdrv/bdrv.h>
#include <errno.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    g_autoptr(GError) error = NULL;
    BdrvOptions *options = bdrv_options_new();
    BlockBackend *disk;
    char text[16] = "";
    int read, written;

    if (argc != 3 || bdrv_driver_known("complement")) {
        return 2;
    }
    bdrv_options_set_string(options, "driver", "complement");
    bdrv_options_set_string(options, "file.filename", argv[2]);
    if (!bdrv_module_load(argv[1], &error) || !(disk = blk_open(graph, NULL, options, BDRV_O_RDWR, &error))) {
        fprintf(stderr, "%s\n", error->message);
        return 1;
    }
    read = blk_pread(disk, 0, sizeof(text) - 1, text, 0);
    written = blk_pwrite(disk, 0, sizeof(text), text, 0);
    printf("%s: %s (%d)%s\n", blk_driver(disk), text, read, written == -ENOTSUP ? ", read-only" : "");
    return blk_close(disk, &error) ? 0 : 1;
}
