/* SPDX-License-Identifier: MIT */
/* Writes and reads back by callbacks in a GLib main loop: main_loop IMAGE */
#include <bdrv/aio.h>
#include <bdrv/bdrv.h>
#include <stdio.h>
#include <string.h>

#define REQUESTS 64
#define BYTES 4096

typedef struct Disk {
    BlockBackend *blk;
    GMainLoop *loop;
    unsigned left;
    int failed;
} Disk;

typedef struct Request {
    Disk *disk;
    struct iovec vec;
    BdrvIov iov;
    int64_t offset;
    unsigned char buf[BYTES];
} Request;

static void has_read(void *opaque, int ret)
{
    Request *request = opaque;
    Disk *disk = request->disk;

    disk->failed += ret < 0 || request->buf[0] != request->offset / BYTES || request->buf[BYTES - 1] != request->buf[0];
    if (--disk->left == 0) {
        g_main_loop_quit(disk->loop);
    }
}

static void has_written(void *opaque, int ret)
{
    Request *request = opaque;

    request->disk->failed += ret < 0;
    memset(request->buf, 0xff, BYTES);
    blk_aio_preadv(request->disk->blk, request->offset, &request->iov, 0, has_read, request);
}

int main(int argc, char **argv)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    g_autoptr(AioContext) ctx = aio_context_new(NULL);
    g_autoptr(GMainLoop) loop = g_main_loop_new(NULL, FALSE);
    g_autoptr(GSource) source = NULL;
    g_autoptr(GError) error = NULL;
    g_autofree Request *requests = g_new0(Request, REQUESTS);
    Disk disk = { .loop = loop, .left = REQUESTS };

    aio_context_enter(ctx);
    source = aio_context_source_new(ctx);
    g_source_attach(source, NULL);
    disk.blk = argc == 2 ? blk_open(graph, argv[1], NULL, BDRV_O_RDWR, &error) : NULL;
    if (!disk.blk) {
        fprintf(stderr, "%s\n", error ? error->message : "which image?");
        return 1;
    }
    for (int i = 0; i < REQUESTS; i++) {
        Request *request = &requests[i];

        request->disk = &disk;
        request->offset = (int64_t)i * BYTES;
        memset(request->buf, i, BYTES);
        request->iov = BDRV_IOV_BUF(request->vec, request->buf, BYTES);
        blk_aio_pwritev(disk.blk, request->offset, &request->iov, 0, has_written, request);
    }
    g_main_loop_run(loop);
    disk.failed += !blk_close(disk.blk, &error);
    g_source_destroy(source);
    aio_context_leave(ctx);
    printf("%d requests, %d failed\n", REQUESTS, disk.failed);
    return disk.failed != 0;
}
