/* SPDX-License-Identifier: MIT */
/* Zeroes, discard, status, resize, preallocation, create and delete, copying. */

#include "file-test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZE (1024 * 1024)

/* ---- fallocate modes that a file system lacks ---- */

static _Atomic int lacking_mode; /* this mode answers EOPNOTSUPP; -1: all */

static int lacking_fallocate(int fd, int mode, off_t offset, off_t bytes)
{
    if (lacking_mode == -1 || mode == lacking_mode) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return fallocate(fd, mode, offset, bytes);
}

static const struct {
    const char *what;
    BdrvRequestFlags flags;
    int lacking; /* -2: none */
    int ret;
    bool allocated; /* space is kept */
} zero_cases[] = {
    { "keeps the space", 0, -2, 0, true },
    { "may unmap: a hole", BDRV_REQ_MAY_UNMAP, -2, 0, false },
    { "without ZERO_RANGE: a hole that is filled", 0, FALLOC_FL_ZERO_RANGE, 0, true },
    { "may unmap without PUNCH_HOLE: keeps the space", BDRV_REQ_MAY_UNMAP,
      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, true },
    { "without fallocate: the core must write", 0, -1, -ENOTSUP, true },
    { "without fallocate, no fallback", BDRV_REQ_NO_FALLBACK, -1, -ENOTSUP, true },
};

static void test_zero_case(gconstpointer data)
{
    unsigned i = GPOINTER_TO_UINT(data);
    FileCalls calls = file_system_calls;
    g_autofree char *path = test_make_file("zero", SIZE, 'z');
    TestFile *file = test_open_ok(path, NULL, BDRV_O_RDWR);
    uint8_t *buf = test_buffer(SIZE, 0xee);

    calls.fallocate = lacking_fallocate;
    lacking_mode = zero_cases[i].lacking;
    test_state(file)->calls = &calls;
    g_assert_cmpint(test_zero(file, 65536, 131072, zero_cases[i].flags), ==, zero_cases[i].ret);
    g_assert_cmpint(test_read(file, 0, SIZE, buf), ==, 0);
    g_assert_true(test_all_bytes_are(buf, 65536, 'z'));
    g_assert_true(test_all_bytes_are(buf + 65536, 131072, zero_cases[i].ret == 0 ? 0 : 'z'));
    g_assert_true(test_all_bytes_are(buf + 196608, SIZE - 196608, 'z'));
    g_assert_cmpint(test_length(file), ==, SIZE);
    g_assert_cmpint(test_allocated(file) >= SIZE, ==, zero_cases[i].allocated);
    test_close(file);
    free(buf);
}

static void test_zero_past_the_end(void)
{
    static const int lacking[] = { -2, FALLOC_FL_ZERO_RANGE, 0 };
    FileCalls calls = file_system_calls;

    calls.fallocate = lacking_fallocate;
    for (unsigned i = 0; i < 4 * G_N_ELEMENTS(lacking); i++) {
        g_autofree char *path = test_make_file("zeroend", 65536, 'z');
        TestFile *file = test_open_ok(path, NULL, BDRV_O_RDWR | (i & 1 ? BDRV_O_NOCACHE : 0));
        uint8_t *buf = test_buffer(262144, 0xee);
        test_state(file)->calls = &calls;
        lacking_mode = lacking[i / 4];
        g_assert_cmpint(test_zero(file, 32768, 131072, i & 2 ? BDRV_REQ_MAY_UNMAP : 0), ==, 0);
        g_assert_cmpint(test_length(file), ==, 32768 + 131072);
        g_assert_cmpint(test_read(file, 0, 262144, buf), ==, 0);
        g_assert_true(test_all_bytes_are(buf, 32768, 'z'));
        g_assert_true(test_all_bytes_are(buf + 32768, 262144 - 32768, 0));
        test_close(file);
        free(buf);
    }
}

static void test_discard_needs_the_option(void)
{
    g_autofree char *path = test_make_file("discard", SIZE, 'd');
    TestFile *file = test_open_ok(path, NULL, BDRV_O_RDWR);

    g_assert_cmpint(test_discard(file, 0, SIZE), ==, -ENOTSUP);
    g_assert_cmpint(test_allocated(file), >=, SIZE);
    test_close(file);

    file = test_open_ok(path, NULL, BDRV_O_RDWR | BDRV_O_UNMAP);
    g_assert_cmpint(test_discard(file, 0, SIZE), ==, 0);
    g_assert_cmpint(test_allocated(file), <, SIZE);
    g_assert_cmpint(test_length(file), ==, SIZE);
    test_close(file);
}

static void test_lacking_discard_is_remembered(void)
{
    FileCalls calls = file_system_calls;
    g_autofree char *path = test_make_file("nodiscard", SIZE, 'd');
    TestFile *file = test_open_ok(path, NULL, BDRV_O_RDWR | BDRV_O_UNMAP);

    calls.fallocate = lacking_fallocate;
    lacking_mode = -1;
    test_state(file)->calls = &calls;
    g_assert_cmpint(test_discard(file, 0, SIZE), ==, -ENOTSUP);
    lacking_mode = -2;
    g_assert_cmpint(test_discard(file, 0, SIZE), ==, -ENOTSUP);
    test_close(file);
}

/* ---- status ---- */

static void check_extent(TestFile *file, int64_t offset, BlockExtentKind kind, int64_t bytes)
{
    BlockExtent extent = { 0 };

    g_assert_cmpint(test_status(file, offset, SIZE - offset, &extent), ==, 0);
    g_assert_cmpint(extent.kind, ==, kind);
    g_assert_cmpint(extent.bytes, ==, bytes);
    g_assert_cmpint(extent.allocated, ==, kind == EXTENT_DATA);
    g_assert_cmpint(extent.host_offset, ==, offset);
    g_assert_true(extent.file == &file->bs);
    g_assert_cmpint(extent.at_eof, ==, offset + bytes == SIZE);
}

static void test_status_of_holes(gconstpointer data)
{
    g_autofree char *path = test_make_file("status", SIZE, 0);
    TestFile *file = test_open_ok(path, NULL, BDRV_O_RDWR | BDRV_O_UNMAP | GPOINTER_TO_UINT(data));
    uint8_t *buf = test_buffer(131072, 's');
    BlockExtent extent;

    check_extent(file, 0, EXTENT_ZERO, SIZE);
    g_assert_cmpint(test_write(file, 262144, 131072, buf, 0), ==, 0);
    for (int again = 0; again < 2; again++) { /* the second time from the cache */
        check_extent(file, 0, EXTENT_ZERO, 262144);
        check_extent(file, 262144, EXTENT_DATA, 131072);
        check_extent(file, 262144 + 65536, EXTENT_DATA, 65536);
        check_extent(file, 393216, EXTENT_ZERO, SIZE - 393216);
    }
    g_assert_cmpint(test_status(file, 262144, 4096, &extent), ==, 0);
    g_assert_cmpint(extent.bytes, ==, 4096);

    /* What is cached must not survive a discard. */
    check_extent(file, 262144, EXTENT_DATA, 131072);
    g_assert_cmpint(test_discard(file, 262144, 65536), ==, 0);
    check_extent(file, 0, EXTENT_ZERO, 262144 + 65536);
    check_extent(file, 327680, EXTENT_DATA, 65536);

    /* A write into a hole is seen at once. */
    check_extent(file, 393216, EXTENT_ZERO, SIZE - 393216);
    g_assert_cmpint(test_write(file, SIZE - 65536, 65536, buf, 0), ==, 0);
    check_extent(file, 393216, EXTENT_ZERO, SIZE - 65536 - 393216);
    test_close(file);
    free(buf);
}

static off_t no_lseek(int fd, off_t offset, int whence)
{
    errno = EINVAL;
    return -1;
}

static void test_status_without_seek_hole(void)
{
    FileCalls calls = file_system_calls;
    g_autofree char *path = test_make_file("noseek", SIZE, 0);
    TestFile *file = test_open_ok(path, NULL, 0);

    calls.lseek = no_lseek;
    test_state(file)->calls = &calls;
    check_extent(file, 0, EXTENT_DATA, SIZE);
    check_extent(file, 4096, EXTENT_DATA, SIZE - 4096);
    test_close(file);
}

/* ---- resize ---- */

static const struct {
    const char *what;
    int64_t from, to;
    BdrvPrealloc prealloc;
    int error; /* 0: works */
    int64_t allocated_at_least;
} resize_cases[] = {
    { "grow", 65536, SIZE, BDRV_PREALLOC_OFF, 0, 0 },
    { "shrink", SIZE, 4096, BDRV_PREALLOC_OFF, 0, 0 },
    { "grow, falloc", 65536, SIZE, BDRV_PREALLOC_FALLOC, 0, SIZE },
    { "grow, full", 65536, SIZE, BDRV_PREALLOC_FULL, 0, SIZE },
    { "the same length, full", 65536, 65536, BDRV_PREALLOC_FULL, 0, 0 },
    { "shrink, falloc", SIZE, 4096, BDRV_PREALLOC_FALLOC, ENOTSUP, 0 },
    { "grow, metadata", 4096, SIZE, BDRV_PREALLOC_METADATA, ENOTSUP, 0 },
};

static void test_resize_case(gconstpointer data)
{
    unsigned i = GPOINTER_TO_UINT(data);
    g_autofree char *path = test_make_file("resize", resize_cases[i].from, 'r');
    TestFile *file = test_open_ok(path, NULL, BDRV_O_RDWR);
    GError *error = NULL;
    uint8_t *buf = test_buffer(SIZE, 0xee);

    bool ok = test_truncate(file, resize_cases[i].to, true, resize_cases[i].prealloc, &error);
    g_assert_cmpint(error ? bdrv_error_code(error) : 0, ==, resize_cases[i].error);
    g_assert_cmpint(ok, ==, !error);
    int64_t length = ok ? resize_cases[i].to : resize_cases[i].from;
    int64_t kept = MIN(length, resize_cases[i].from);
    g_assert_cmpint(test_length(file), ==, length);
    g_assert_cmpint(test_allocated(file), >=, resize_cases[i].allocated_at_least);
    g_assert_cmpint(test_read(file, 0, SIZE, buf), ==, 0);
    g_assert_true(test_all_bytes_are(buf, kept, 'r'));
    g_assert_true(test_all_bytes_are(buf + kept, SIZE - kept, 0));
    g_clear_error(&error);
    test_close(file);
    free(buf);
}

static unsigned syncs;

static int counting_fdatasync(int fd)
{
    syncs++;
    return fdatasync(fd);
}

static void test_same_length_writes_nothing(void)
{
    static const BdrvPrealloc modes[] = { BDRV_PREALLOC_OFF, BDRV_PREALLOC_FALLOC, BDRV_PREALLOC_FULL };
    FileCalls calls = file_system_calls;
    g_autofree char *path = test_make_file("same", 65536, 's');
    TestFile *file = test_open_ok(path, NULL, BDRV_O_RDWR);
    GError *error = NULL;

    calls.fdatasync = counting_fdatasync;
    test_state(file)->calls = &calls;
    for (unsigned i = 0; i < G_N_ELEMENTS(modes); i++) {
        g_assert_true(test_truncate(file, 65536, true, modes[i], &error));
    }
    g_assert_cmpuint(syncs, ==, 0);
    g_assert_true(test_truncate(file, SIZE, true, BDRV_PREALLOC_FULL, &error));
    g_assert_cmpuint(syncs, ==, 1);
    test_close(file);
}

static ssize_t full_disk_pwritev2(int fd, const struct iovec *vec, int count, off_t offset, int flags)
{
    errno = ENOSPC;
    return -1;
}

static void test_failed_resize_restores(void)
{
    FileCalls calls = file_system_calls;
    g_autofree char *path = test_make_file("restore", 4096, 'r');
    TestFile *file = test_open_ok(path, NULL, BDRV_O_RDWR);
    GError *error = NULL;

    calls.pwritev2 = full_disk_pwritev2;
    test_state(file)->calls = &calls;
    g_assert_false(test_truncate(file, SIZE, true, BDRV_PREALLOC_FULL, &error));
    test_assert_error(error, ENOSPC, "from 4096 to 1048576");
    g_assert_cmpint(test_length(file), ==, 4096);
    test_close(file);
}

/* ---- create, delete ---- */

static void test_create_new(void)
{
    g_autofree char *path = test_path("created");
    g_autofree char *prefixed = g_strdup_printf("file:%s", path);
    GError *error = NULL;
    struct stat st;
    mode_t mask = umask(022);

    g_assert_true(test_create(prefixed, "size=8M", &error));
    g_assert_no_error(error);
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 8 * SIZE);
    g_assert_cmpint(st.st_mode & 0777, ==, 0644);
    g_assert_cmpint((int64_t)st.st_blocks * 512, <=, SIZE); /* only the first extent */

    g_assert_true(test_delete(prefixed, &error));
    g_assert_cmpint(stat(path, &st), <, 0);
    g_assert_false(test_delete(path, &error));
    test_assert_error(error, ENOENT, "created");
    umask(mask);
}

static void test_create_empties(void)
{
    g_autofree char *path = test_make_file("existing", 65536, 'e');
    GError *error = NULL;
    struct stat st;

    g_assert_true(test_create(path, "size=64k,nocow=on,extent_size_hint=0", &error));
    g_assert_no_error(error);
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 65536);
    g_assert_cmpint((int64_t)st.st_blocks * 512, <=, 4096); /* only the first block */
}

static void test_create_preallocated(void)
{
    static const char *const modes[] = { "falloc", "full" };

    for (unsigned i = 0; i < G_N_ELEMENTS(modes); i++) {
        g_autofree char *path = test_path("prealloc");
        g_autofree char *options = g_strdup_printf("size=1M,preallocation=%s", modes[i]);
        GError *error = NULL;
        struct stat st;
        g_assert_true(test_create(path, options, &error));
        g_assert_no_error(error);
        g_assert_cmpint(stat(path, &st), ==, 0);
        g_assert_cmpint((int64_t)st.st_blocks * 512, >=, SIZE);
        unlink(path);
    }
}

static void test_create_refuses(void)
{
    g_autofree char *in_use = test_make_file("inuse", 65536, 'i');
    GError *error = NULL;
    struct stat st;

    g_assert_false(test_create(test_dir, "size=1M", &error));
    test_assert_error(error, EISDIR, "cannot create");
    g_assert_false(test_create("/dev/null", "size=1M", &error));
    test_assert_error(error, EINVAL, "not a regular file");
    g_assert_false(test_create("/nonexistent/a", "size=1M", &error));
    test_assert_error(error, ENOENT, "cannot create");
    g_assert_false(test_create(in_use, "size=1M,preallocation=metadata", &error));
    test_assert_error(error, EINVAL, "metadata");

    TestFile *file = test_open_ok(in_use, NULL, BDRV_O_RDWR);
    g_assert_true(test_set_rights(file, BDRV_RIGHT_WRITE, BDRV_RIGHT_WRITE | BDRV_RIGHT_RESIZE, &error));
    g_assert_false(test_create(in_use, "size=1M", &error));
    test_assert_error(error, EBUSY, "held by this process itself");
    g_assert_cmpint(stat(in_use, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 65536);
    test_close(file);
}

static void test_failed_create_leaves_nothing(void)
{
    g_autofree char *path = test_path("toolarge");
    GError *error = NULL;
    struct rlimit old, limit;

    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    limit = (struct rlimit){ .rlim_cur = 65536, .rlim_max = old.rlim_max };
    setrlimit(RLIMIT_FSIZE, &limit);
    bool ok = test_create(path, "size=1M", &error);
    setrlimit(RLIMIT_FSIZE, &old);
    g_assert_false(ok);
    test_assert_error(error, EFBIG, "from 0 to 1048576");
    g_assert_cmpint(access(path, F_OK), <, 0);
}

/* ---- copying ---- */

static void test_copy_range(void)
{
    g_autofree char *from = test_make_file("from", SIZE, 'c');
    g_autofree char *to = test_make_file("to", SIZE, 0);
    TestFile *src = test_open_ok(from, NULL, 0), *dst = test_open_ok(to, NULL, BDRV_O_RDWR);
    uint8_t *buf = test_buffer(SIZE, 0xee);

    g_assert_cmpint(test_copy(src, 4096, dst, 65536, 131072), ==, 0);
    g_assert_cmpint(test_read(dst, 0, SIZE, buf), ==, 0);
    g_assert_true(test_all_bytes_are(buf, 65536, 0));
    g_assert_true(test_all_bytes_are(buf + 65536, 131072, 'c'));
    g_assert_true(test_all_bytes_are(buf + 196608, SIZE - 196608, 0));

    /* The end of the source: the core must make the zeroes. */
    g_assert_cmpint(test_copy(src, SIZE - 4096, dst, 0, 8192), ==, -ENOTSUP);
    test_close(src);
    test_close(dst);
    free(buf);
}

static ssize_t cross_device(int in, off_t *in_offset, int out, off_t *out_offset, size_t bytes, unsigned flags)
{
    errno = EXDEV;
    return -1;
}

static void test_copy_across_file_systems(void)
{
    FileCalls calls = file_system_calls;
    g_autofree char *from = test_make_file("from", SIZE, 'c');
    g_autofree char *to = test_make_file("to", SIZE, 0);
    TestFile *src = test_open_ok(from, NULL, 0), *dst = test_open_ok(to, NULL, BDRV_O_RDWR);

    calls.copy_file_range = cross_device;
    test_state(dst)->calls = &calls;
    g_assert_cmpint(test_copy(src, 0, dst, 0, SIZE), ==, -ENOTSUP);
    test_close(src);
    test_close(dst);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_dir_make();

    for (unsigned i = 0; i < G_N_ELEMENTS(zero_cases); i++) {
        g_autofree char *path = g_strdup_printf("/file/space/write zeroes: %s", zero_cases[i].what);
        g_test_add_data_func(path, GUINT_TO_POINTER(i), test_zero_case);
    }
    g_test_add_func("/file/space/zeroes past the end make the file longer", test_zero_past_the_end);
    g_test_add_func("/file/space/discard happens only with discard=unmap", test_discard_needs_the_option);
    g_test_add_func("/file/space/a discard that is not supported is not tried again",
                    test_lacking_discard_is_remembered);
    g_test_add_data_func("/file/space/status tells data from holes: cached", GUINT_TO_POINTER(0),
                         test_status_of_holes);
    g_test_add_data_func("/file/space/status tells data from holes: direct", GUINT_TO_POINTER(BDRV_O_NOCACHE),
                         test_status_of_holes);
    g_test_add_func("/file/space/without SEEK_HOLE all is data", test_status_without_seek_hole);
    for (unsigned i = 0; i < G_N_ELEMENTS(resize_cases); i++) {
        g_autofree char *path = g_strdup_printf("/file/space/resize: %s", resize_cases[i].what);
        g_test_add_data_func(path, GUINT_TO_POINTER(i), test_resize_case);
    }
    g_test_add_func("/file/space/resize to the length that is there syncs nothing", test_same_length_writes_nothing);
    g_test_add_func("/file/space/a resize that fails restores the old length", test_failed_resize_restores);
    g_test_add_func("/file/space/create makes a sparse file and delete removes it", test_create_new);
    g_test_add_func("/file/space/create empties an existing file", test_create_empties);
    g_test_add_func("/file/space/create preallocates", test_create_preallocated);
    g_test_add_func("/file/space/create refuses what is no file or in use", test_create_refuses);
    g_test_add_func("/file/space/a create that fails leaves nothing", test_failed_create_leaves_nothing);
    g_test_add_func("/file/space/a range is copied inside of a file system", test_copy_range);
    g_test_add_func("/file/space/copying across file systems is left to the core", test_copy_across_file_systems);

    int ret = g_test_run();
    test_dir_remove();
    return ret;
}
