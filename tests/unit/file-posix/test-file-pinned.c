/* SPDX-License-Identifier: MIT */
/* Memory that a context was told of, and direct requests that use it. */

#include "file-test.h"

#include <errno.h>
#include <sys/mman.h>

#define SIZE (1 << 20)

typedef struct Stand {
    char *path;
    TestFile *file;
    AioContext *ctx;
    uint8_t *memory; /* SIZE */
} Stand;

static uint8_t *map_memory(void *where)
{
    uint8_t *memory = mmap(where, SIZE, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | (where ? MAP_FIXED : 0), -1, 0);

    g_assert_true(memory != MAP_FAILED);
    return memory;
}

static Stand stand_up(BdrvOpenFlags flags)
{
    Stand stand = { .path = test_make_file("pinned", SIZE, 'p'), .ctx = aio_context_current() };

    stand.file = test_open_ok(stand.path, "aio=auto", BDRV_O_RDWR | flags);
    stand.memory = map_memory(NULL);
    return stand;
}

static void take_down(Stand *stand)
{
    aio_context_remove_memory(stand->ctx, stand->memory);
    test_close(stand->file);
    munmap(stand->memory, SIZE);
    g_free(stand->path);
}

/* Reads 64 KiB into @buf; whether it was into pinned memory. */
static bool reads_pinned(Stand *stand, uint8_t *buf)
{
    uint64_t before = file_uring_pinned_requests();

    memset(buf, 0, 65536);
    g_assert_cmpint(test_read(stand->file, 65536, 65536, buf), ==, 0);
    g_assert_true(test_all_bytes_are(buf, 65536, 'p'));
    return file_uring_pinned_requests() > before;
}

/* The kernel, the limit of locked memory or the build may not allow it; then all else must work the same. */
static void assert_pinned(Stand *stand, bool pinned)
{
    if (file_uring_pins_memory()) {
        g_assert_true(pinned);
    } else {
        g_test_skip("memory cannot be pinned here");
    }
}

static void test_requests_use_it(void)
{
    Stand stand = stand_up(BDRV_O_NOCACHE);

    g_assert_false(reads_pinned(&stand, stand.memory));
    g_assert_cmpint(aio_context_add_memory(stand.ctx, stand.memory, SIZE), ==, 0);
    assert_pinned(&stand, reads_pinned(&stand, stand.memory));
    assert_pinned(&stand, reads_pinned(&stand, stand.memory + SIZE - 65536));
    take_down(&stand);
}

static void test_writes_use_it(void)
{
    Stand stand = stand_up(BDRV_O_NOCACHE);
    g_autofree char *content = NULL;

    memset(stand.memory, 'w', SIZE);
    g_assert_cmpint(aio_context_add_memory(stand.ctx, stand.memory, SIZE), ==, 0);
    g_assert_cmpint(test_write(stand.file, 4096, 8192, stand.memory + 512, 0), ==, 0);
    assert_pinned(&stand, file_uring_pinned_requests() > 0);
    g_assert_true(g_file_get_contents(stand.path, &content, NULL, NULL));
    g_assert_true(test_all_bytes_are(content, 4096, 'p'));
    g_assert_true(test_all_bytes_are(content + 4096, 8192, 'w'));
    g_assert_true(test_all_bytes_are(content + 12288, SIZE - 12288, 'p'));
    take_down(&stand);
}

static void test_other_buffers_are_not_affected(void)
{
    Stand stand = stand_up(BDRV_O_NOCACHE);
    uint8_t *other = map_memory(NULL);

    g_assert_cmpint(aio_context_add_memory(stand.ctx, stand.memory, SIZE - 32768), ==, 0);
    g_assert_false(reads_pinned(&stand, other));
    g_assert_false(reads_pinned(&stand, stand.memory + SIZE - 65536)); /* half of it is outside */
    munmap(other, SIZE);
    take_down(&stand);
}

static void test_the_page_cache_needs_none(void)
{
    Stand stand = stand_up(0);

    g_assert_cmpint(aio_context_add_memory(stand.ctx, stand.memory, SIZE), ==, 0);
    g_assert_false(reads_pinned(&stand, stand.memory));
    take_down(&stand);
}

/* What was pinned is not what lies there now: reading into it would leave the new memory as it is. */
static void test_removed_memory_may_be_mapped_anew(void)
{
    Stand stand = stand_up(BDRV_O_NOCACHE);

    for (int again = 0; again < 2; again++) {
        g_assert_cmpint(aio_context_add_memory(stand.ctx, stand.memory, SIZE), ==, 0);
        assert_pinned(&stand, reads_pinned(&stand, stand.memory));
        g_assert_cmpint(aio_context_remove_memory(stand.ctx, stand.memory), ==, 0);
        munmap(stand.memory, SIZE);
        map_memory(stand.memory);
        g_assert_false(reads_pinned(&stand, stand.memory));
    }
    take_down(&stand);
}

static void test_pieces_come_and_go(void)
{
    Stand stand = stand_up(BDRV_O_NOCACHE);
    const size_t piece = SIZE / 4;

    for (unsigned i = 0; i < 3; i++) {
        g_assert_cmpint(aio_context_add_memory(stand.ctx, stand.memory + i * piece, piece), ==, 0);
    }
    assert_pinned(&stand, reads_pinned(&stand, stand.memory + piece));
    g_assert_cmpint(aio_context_remove_memory(stand.ctx, stand.memory + piece), ==, 0);
    g_assert_false(reads_pinned(&stand, stand.memory + piece));
    assert_pinned(&stand, reads_pinned(&stand, stand.memory));
    assert_pinned(&stand, reads_pinned(&stand, stand.memory + 2 * piece));
    g_assert_cmpint(aio_context_add_memory(stand.ctx, stand.memory + 3 * piece, piece), ==, 0);
    assert_pinned(&stand, reads_pinned(&stand, stand.memory + 3 * piece));
    for (unsigned i = 0; i < 4; i++) {
        aio_context_remove_memory(stand.ctx, stand.memory + i * piece);
    }
    take_down(&stand);
}

/* Address space that cannot be pinned: requests that do not use it work. */
static void test_what_cannot_be_pinned_is_left_out(void)
{
    Stand stand = stand_up(BDRV_O_NOCACHE);
    uint8_t *none = mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    g_assert_cmpint(aio_context_add_memory(stand.ctx, none, SIZE), ==, 0);
    g_assert_cmpint(aio_context_add_memory(stand.ctx, stand.memory, SIZE), ==, 0);
    assert_pinned(&stand, reads_pinned(&stand, stand.memory));
    g_assert_cmpint(test_read(stand.file, 0, 4096, none), ==, -EFAULT);
    g_assert_cmpint(aio_context_remove_memory(stand.ctx, none), ==, 0);
    munmap(none, SIZE);
    take_down(&stand);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    test_dir_make();
    g_test_add_func("/file/pinned/direct requests use memory that is known", test_requests_use_it);
    g_test_add_func("/file/pinned/writes use it", test_writes_use_it);
    g_test_add_func("/file/pinned/buffers that are not inside go as before", test_other_buffers_are_not_affected);
    g_test_add_func("/file/pinned/the page cache needs none", test_the_page_cache_needs_none);
    g_test_add_func("/file/pinned/removed memory may be mapped anew", test_removed_memory_may_be_mapped_anew);
    g_test_add_func("/file/pinned/pieces come and go", test_pieces_come_and_go);
    g_test_add_func("/file/pinned/what cannot be pinned is left out", test_what_cannot_be_pinned_is_left_out);
    ret = g_test_run();
    test_dir_remove();
    return ret;
}
