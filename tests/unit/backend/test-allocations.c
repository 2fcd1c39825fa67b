/* SPDX-License-Identifier: MIT */
/*
 * An aligned request on a plain stack allocates nothing: malloc() and its kin are counted in this program.
 * What the C library allocates for the stack of a new thread is not counted: the worker pool starts threads
 * as load needs them, up to its bound, and they stay.
 */

#include <bdrv/bdrv.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The allocator that is in the way (glibc). */
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *memory, size_t bytes);
void *__libc_memalign(size_t align, size_t bytes);

/* Of the thread that makes the requests; what drivers do in the background meanwhile is not asked here. */
static _Thread_local unsigned allocations;

void *malloc(size_t bytes)
{
    allocations++;
    return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
    allocations++;
    return __libc_calloc(count, bytes);
}

void *realloc(void *memory, size_t bytes)
{
    allocations++;
    return __libc_realloc(memory, bytes);
}

void *aligned_alloc(size_t align, size_t bytes)
{
    allocations++;
    return __libc_memalign(align, bytes);
}

typedef int CreateThread(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *opaque);

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *opaque)
{
    CreateThread *create = (CreateThread *)dlsym(RTLD_NEXT, "pthread_create");
    unsigned before = allocations;
    int ret = create(thread, attr, start, opaque);

    allocations = before;
    return ret;
}

enum { DEPTH = 16, BLOCK = 4096 };

typedef struct Rig {
    BdrvGraph *graph;
    BlockBackend *blk;
    uint8_t *memory;
    struct iovec vecs[DEPTH];
    BdrvIov iovs[DEPTH];
} Rig;

static void set_up(Rig *rig, const char *options)
{
    GError *error = NULL;

    rig->graph = bdrv_graph_new();
    rig->blk = blk_open(rig->graph, NULL, bdrv_options_parse(options, NULL, NULL), BDRV_O_RDWR, &error);
    g_assert_no_error(error);
    rig->memory = blk_blockalign(rig->blk, DEPTH * BLOCK);
    memset(rig->memory, 0x5a, DEPTH * BLOCK);
    for (unsigned i = 0; i < DEPTH; i++) {
        rig->iovs[i] = BDRV_IOV_BUF(rig->vecs[i], rig->memory + i * BLOCK, BLOCK);
    }
}

static void tear_down(Rig *rig)
{
    GError *error = NULL;

    bdrv_vfree(rig->memory);
    blk_close(rig->blk, &error);
    g_assert_no_error(error);
    bdrv_graph_unref(rig->graph);
}

static void one_round(Rig *rig, BlkQueue *queue, BlkOp op)
{
    BlkQueueCompletion completions[DEPTH];
    unsigned done = 0;

    for (unsigned i = 0; i < DEPTH; i++) {
        BlkSubmission submission = { .op = op, .offset = i * BLOCK, .iov = &rig->iovs[i], .user_data = i };
        g_assert_true(blk_queue_submit(queue, &submission));
    }
    blk_queue_ring(queue);
    while (done < DEPTH) {
        unsigned n = blk_queue_wait(queue, completions, DEPTH);
        for (unsigned i = 0; i < n; i++) {
            g_assert_cmpint(completions[i].result, ==, 0);
        }
        done += n;
    }
}

static void check(const char *options)
{
    Rig rig;
    BlkQueue *queue;

    set_up(&rig, options);
    queue = blk_queue_new(rig.blk, DEPTH, NULL);
    one_round(&rig, queue, BLK_OP_WRITE); /* fills the pools, allocates what was not there */
    one_round(&rig, queue, BLK_OP_READ);
    g_assert_cmpint(blk_flush(rig.blk), ==, 0);
    unsigned before = allocations;
    for (unsigned i = 0; i < 100; i++) {
        one_round(&rig, queue, i % 2 ? BLK_OP_WRITE : BLK_OP_READ);
    }
    g_assert_cmpuint(allocations - before, ==, 0);
    blk_queue_free(queue);
    tear_down(&rig);
}

static void null_co(void)
{
    check("driver=null-co,size=1M");
}

static char *make_image(const char *format)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    g_autofree char *dir = g_dir_make_tmp("bdrv-allocations-XXXXXX", NULL);
    char *name = g_build_filename(dir, "disk", NULL);
    BdrvOptions *options = bdrv_options_new();
    GError *error = NULL;

    bdrv_options_set_int(options, "size", 1 << 20);
    g_assert_true(bdrv_create_image(graph, format, name, options, &error));
    g_assert_no_error(error);
    return name;
}

static void on_a_file(gconstpointer format)
{
    g_autofree char *name = make_image(format);
    g_autofree char *options = g_strdup_printf("driver=%s,file.filename=%s", (const char *)format, name);
    g_autofree char *dir = g_path_get_dirname(name);

    check(options);
    g_assert_cmpint(remove(name), ==, 0);
    g_assert_cmpint(remove(dir), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/allocations/a request on null-co allocates nothing", null_co);
    g_test_add_data_func("/allocations/a request on raw over a file allocates nothing", "raw", on_a_file);
    g_test_add_data_func("/allocations/a request on an allocated part of qcow2 allocates nothing", "qcow2", on_a_file);
    return g_test_run();
}
