/* SPDX-License-Identifier: MIT */
/* Reads the first bytes of an image, opened by a descriptor, and prints them: blocking IMAGE */
#include <bdrv/bdrv.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    g_autoptr(GError) error = NULL;
    int fd = argc == 2 ? open(argv[1], O_RDONLY) : -1;
    BlockBackend *disk = blk_open_fd(graph, fd, NULL, NULL, 0, &error);
    char text[16];
    int ret;

    if (!disk) {
        fprintf(stderr, "%s\n", error->message);
        return 1;
    }
    close(fd);
    ret = blk_pread(disk, 0, sizeof(text), text, 0);
    printf("%s: %.16s (%d)\n", blk_driver(disk), text, ret);
    return blk_close(disk, &error) && ret == 0 ? 0 : 1;
}
