/* SPDX-License-Identifier: MIT */
/* A program that brings the driver itself: prints the first bytes of an image in the format that it is found to have. */
#include <bdrv/bdrv.h>
#include <stdio.h>

bool bdrv_labelled_register(GError **errp);

int main(int argc, char **argv)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    g_autoptr(GError) error = NULL;
    char text[17] = "";
    BlockBackend *disk;

    if (argc != 2) {
        fprintf(stderr, "usage: %s IMAGE\n", argv[0]);
        return 2;
    }
    if (!bdrv_labelled_register(&error) || !(disk = blk_open(graph, argv[1], NULL, 0, &error))) {
        fprintf(stderr, "%s\n", error->message);
        return 1;
    }
    if (blk_pread(disk, 0, sizeof(text) - 1, text, 0) < 0) {
        fprintf(stderr, "cannot read %s\n", argv[1]);
        return 1;
    }
    printf("%s: %s\n", blk_driver(disk), text);
    return blk_close(disk, &error) ? 0 : 1;
}
