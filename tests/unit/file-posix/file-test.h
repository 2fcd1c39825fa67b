/* SPDX-License-Identifier: MIT */
#ifndef BDRV_TEST_FILE_TEST_H
#define BDRV_TEST_FILE_TEST_H

/*
 * The driver's callbacks without the core above them: a node made by hand, each call in a coroutine
 * of the calling thread. So a test says exactly what reaches the driver. Requests must be aligned as
 * bs.limits says, as the core would see to.
 */

#include "block/registry/registry.h"
#include "drivers/file-posix/engine.h"

typedef struct TestFile {
    BlockDriverState bs;
    char *path;
} TestFile;

/* A directory on a real file system (TMPDIR), removed by test_dir_remove(). */
extern char *test_dir;
void test_dir_make(void);
void test_dir_remove(void);
char *test_path(const char *name); /* caller frees */

/* Make a file of @bytes, filled with @byte (sparse if 0). */
char *test_make_file(const char *name, int64_t bytes, int byte);

/** test_open() - open @path with more options ("aio=threads,…" or NULL); NULL with @errp set */
TestFile *test_open(const char *driver, const char *path, const char *more, BdrvOpenFlags flags, GError **errp);
TestFile *test_open_options(const char *driver, const char *options, BdrvOpenFlags flags, GError **errp);
TestFile *test_open_ok(const char *path, const char *more, BdrvOpenFlags flags);
void test_close(TestFile *file);
int test_close_result(TestFile *file);
FileState *test_state(TestFile *file);

int test_read(TestFile *file, int64_t offset, int64_t bytes, void *buf);
int test_write(TestFile *file, int64_t offset, int64_t bytes, const void *buf, BdrvRequestFlags flags);
int test_readv(TestFile *file, int64_t offset, int64_t bytes, const BdrvIov *iov, size_t iov_offset);
int test_zero(TestFile *file, int64_t offset, int64_t bytes, BdrvRequestFlags flags);
int test_discard(TestFile *file, int64_t offset, int64_t bytes);
int test_flush(TestFile *file);
int test_copy(TestFile *src, int64_t src_offset, TestFile *dst, int64_t dst_offset, int64_t bytes);
int test_status(TestFile *file, int64_t offset, int64_t bytes, BlockExtent *extent);
int64_t test_length(TestFile *file);
int64_t test_allocated(TestFile *file);
bool test_truncate(TestFile *file, int64_t length, bool exact, BdrvPrealloc prealloc, GError **errp);
bool test_set_rights(TestFile *file, unsigned used, unsigned unshared, GError **errp);
bool test_reopen(TestFile *file, const char *options, BdrvOpenFlags flags, GError **errp);
bool test_create(const char *filename, const char *options, GError **errp);
bool test_delete(const char *filename, GError **errp);

/* The same in a coroutine that runs already, for tests with many requests in flight. */
int coroutine_fn test_co_rw(TestFile *file, bool write, int64_t offset, int64_t bytes, void *buf,
                            BdrvRequestFlags flags);

void *test_buffer(size_t bytes, int byte); /* aligned to 64 KiB; free() */
bool test_all_bytes_are(const void *buf, size_t bytes, int byte);

/* Set errno from an error expected, and forget it. */
#define test_assert_error(error_, code_, text_)                                                     \
    do {                                                                                            \
        g_assert_error((error_), BDRV_ERROR, (code_));                                              \
        g_assert_nonnull(strstr((error_)->message, (text_)));                                       \
        g_clear_error(&(error_));                                                                   \
    } while (0)

#endif
