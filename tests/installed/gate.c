/* SPDX-License-Identifier: MIT */
/* Opens an image whose backing file only the second gate allows: gate IMAGE DIRECTORY */
#include <bdrv/bdrv.h>
#include <stdio.h>

/* Says what is asked for, and refuses it. */
static bool refuse(void *opaque, const char *parent, const char *filename, const char *format, bool *guess, GError **errp)
{
    (void)parent;
    (void)guess;
    *(int *)opaque += 1;
    g_set_error(errp, BDRV_ERROR, 13, "refused '%s' (%s)", filename, format ? format : "format unknown");
    return false;
}

int main(int argc, char **argv)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    g_autoptr(GError) error = NULL;
    BlockBackend *disk;
    int asked = 0;

    if (argc != 3) {
        return 2;
    }
    bdrv_graph_set_opener_gate(graph, refuse, &asked);
    if (blk_open(graph, argv[1], NULL, 0, &error) || asked != 1) {
        return 3;
    }
    printf("%s\n", error->message);
    g_clear_error(&error);
    bdrv_graph_set_opener_gate(graph, bdrv_gate_directory, argv[2]);
    disk = blk_open(graph, argv[1], NULL, 0, &error);
    printf("%s\n", disk ? "opened" : error->message);
    return disk && blk_close(disk, &error) ? 0 : 1;
}
