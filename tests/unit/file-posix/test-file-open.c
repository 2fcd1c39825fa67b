/* SPDX-License-Identifier: MIT */
/* Opening by name and descriptor, what is refused, reopen, limits, block devices. */

#include "file-test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_probe_device(void)
{
    g_autofree char *path = test_make_file("probe", 512, 0);

    g_assert_cmpint(bdrv_find_format("file")->bdrv_probe_device(path), ==, 50);
    g_assert_cmpint(bdrv_find_format("host_device")->bdrv_probe_device(path), ==, 0);
    g_assert_cmpint(bdrv_find_format("host_device")->bdrv_probe_device("/nonexistent"), ==, 0);
}

static void test_parse_filename(void)
{
    g_autoptr(BdrvOptions) options = bdrv_options_new();
    const BlockDriver *drv = bdrv_find_format("file");

    g_assert_true(drv->bdrv_parse_filename("file:/a/b:c", options, NULL));
    g_assert_cmpstr(bdrv_options_get_string(options, "filename", NULL), ==, "/a/b:c");
    g_assert_true(drv->bdrv_parse_filename("plain", options, NULL));
    g_assert_cmpstr(bdrv_options_get_string(options, "filename", NULL), ==, "plain");
}

static void test_refusals(void)
{
    g_autofree char *fifo = test_path("fifo");
    g_autofree char *regular = test_make_file("regular", 512, 0);
    g_autofree char *both = g_strdup_printf("filename=%s,fd=0", regular);
    const struct {
        const char *driver, *path;
        int code;
        const char *text;
    } cases[] = {
        { "file", test_dir, EISDIR, "is a directory; driver 'file' needs a regular file" },
        { "file", "/dev/null", EINVAL, "is a character device" },
        { "file", fifo, EINVAL, "is a pipe" },
        { "file", "/nonexistent/a", ENOENT, "Could not open '/nonexistent/a': No such file or directory" },
        { "host_device", regular, EINVAL, "is a regular file; driver 'host_device' needs a block device; use driver=file" },
        { "host_device", "/dev/zero", EINVAL, "is a character device" },
    };
    GError *error = NULL;

    g_assert_cmpint(mkfifo(fifo, 0600), ==, 0);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_assert_null(test_open(cases[i].driver, cases[i].path, NULL, 0, &error));
        test_assert_error(error, cases[i].code, cases[i].text);
    }
    g_assert_null(test_open_options("file", "aio=threads", 0, &error));
    test_assert_error(error, EINVAL, "give 'filename' or 'fd'");
    g_assert_null(test_open_options("file", both, 0, &error));
    test_assert_error(error, EINVAL, "exclude each other");
    g_assert_null(test_open("file", regular, "aio=fast", 0, &error));
    test_assert_error(error, EINVAL, "aio");
    g_assert_null(test_open_options("file", "fd=9999", 0, &error));
    test_assert_error(error, EBADF, "fd 9999");
    g_assert_null(test_open_options("file", "fd=-3", 0, &error));
    test_assert_error(error, EBADF, "-3");
}

static void test_descriptor(void)
{
    g_autofree char *path = test_make_file("byfd", 4096, 'b');
    uint8_t *buf = test_buffer(4096, 0);
    GError *error = NULL;

    for (int i = 0; i < 4; i++) {
        bool rdwr = i & 1, direct = i & 2;
        int fd = open(path, (rdwr ? O_RDWR : O_RDONLY) | O_CLOEXEC);
        g_autofree char *options = g_strdup_printf("fd=%d", fd);
        TestFile *file = test_open_options("file", options, (rdwr ? BDRV_O_RDWR : 0) | (direct ? BDRV_O_NOCACHE : 0),
                                           &error);
        g_assert_no_error(error);
        g_assert_cmpint(test_state(file)->h.fd, !=, fd);
        g_assert_true(fcntl(test_state(file)->h.fd, F_GETFD) & FD_CLOEXEC);
        g_assert_false(fcntl(fd, F_GETFL) & O_DIRECT);
        g_assert_cmpint(close(fd), ==, 0);
        g_assert_cmpint(test_read(file, 0, 4096, buf), ==, 0);
        g_assert_true(test_all_bytes_are(buf, 4096, 'b'));
        g_assert_cmpint(test_write(file, 0, 4096, buf, 0), ==, rdwr ? 0 : -EBADF);
        test_close(file);
    }
    free(buf);
}

static void test_descriptor_locks_are_dropped(void)
{
    g_autofree char *path = test_make_file("fdlock", 4096, 'b');
    int fd = open(path, O_RDWR | O_CLOEXEC);
    g_autofree char *options = g_strdup_printf("fd=%d", fd);
    GError *error = NULL;
    TestFile *file = test_open_options("file", options, BDRV_O_RDWR, &error);

    g_assert_true(test_set_rights(file, 0xf, 0xf, &error));
    test_close(file);
    /* The embedder's descriptor shares the locks; they must not outlive the node. */
    file = test_open_ok(path, NULL, BDRV_O_RDWR);
    g_assert_true(test_set_rights(file, 0xf, 0xf, &error));
    g_assert_no_error(error);
    test_close(file);
    close(fd);
}

static void test_appending_descriptor(void)
{
    g_autofree char *path = test_make_file("append", 8192, 'a');
    int fd = open(path, O_RDWR | O_APPEND | O_CLOEXEC);
    g_autofree char *options = g_strdup_printf("fd=%d", fd);
    uint8_t *buf = test_buffer(8192, 'b');
    GError *error = NULL;
    TestFile *file = test_open_options("file", options, BDRV_O_RDWR, &error);

    g_assert_no_error(error);
    g_assert_cmpint(test_write(file, 0, 4096, buf, 0), ==, 0);
    g_assert_cmpint(test_length(file), ==, 8192);
    g_assert_cmpint(test_read(file, 0, 8192, buf), ==, 0);
    g_assert_true(test_all_bytes_are(buf, 4096, 'b'));
    g_assert_true(test_all_bytes_are(buf + 4096, 4096, 'a'));
    test_close(file);
    close(fd);
    free(buf);
}

static void test_cloexec(void)
{
    g_autofree char *path = test_make_file("cloexec", 4096, 'c');
    TestFile *file = test_open_ok(path, NULL, BDRV_O_RDWR);

    g_assert_true(fcntl(test_state(file)->h.fd, F_GETFD) & FD_CLOEXEC);
    test_close(file);
}

static void test_limits(void)
{
    g_autofree char *path = test_make_file("limits", 65536, 'l');
    TestFile *file = test_open_ok(path, NULL, 0);

    g_assert_cmpint(file->bs.limits.request_alignment, ==, 1);
    g_assert_cmpint(file->bs.limits.mem_alignment, <=, 1);
    test_close(file);

    file = test_open_ok(path, NULL, BDRV_O_NOCACHE);
    g_assert_cmpint(file->bs.limits.request_alignment, >=, 512);
    g_assert_cmpint(file->bs.limits.request_alignment, <=, 4096);
    g_assert_cmpint(file->bs.limits.mem_alignment, >=, file->bs.limits.request_alignment / FILE_IO_PART);
    test_close(file);
}

/* ---- reopen ---- */

static void test_reopen_modes(void)
{
    static const BdrvOpenFlags steps[] = {
        0, BDRV_O_RDWR | BDRV_O_NOCACHE, BDRV_O_NOCACHE, BDRV_O_RDWR, BDRV_O_RDWR,
    };
    g_autofree char *path = test_make_file("reopen", 65536, 'r');
    TestFile *file = test_open_ok(path, NULL, BDRV_O_RDWR);
    uint8_t *buf = test_buffer(4096, 'w');
    GError *error = NULL;

    for (unsigned i = 0; i < G_N_ELEMENTS(steps); i++) {
        g_assert_true(test_reopen(file, NULL, steps[i], &error));
        g_assert_no_error(error);
        g_assert_cmpint(test_write(file, 0, 4096, buf, 0), ==, steps[i] & BDRV_O_RDWR ? 0 : -EBADF);
        g_assert_cmpint(test_read(file, 4096, 4096, buf), ==, 0);
        g_assert_true(test_all_bytes_are(buf, 4096, 'r'));
        g_assert_cmpint(file->bs.limits.request_alignment > 1, ==, !!(steps[i] & BDRV_O_NOCACHE));
        g_assert_cmpint(!!(fcntl(test_state(file)->h.fd, F_GETFL) & O_DIRECT), ==, !!(steps[i] & BDRV_O_NOCACHE));
        g_assert_true(fcntl(test_state(file)->h.fd, F_GETFD) & FD_CLOEXEC);
    }
    test_close(file);
    free(buf);
}

static void test_reopen_keeps_the_inode(void)
{
    g_autofree char *path = test_make_file("renamed", 4096, '1');
    g_autofree char *away = test_path("away");
    TestFile *file = test_open_ok(path, NULL, BDRV_O_RDWR);
    GError *error = NULL;
    uint8_t buf[4096];

    g_assert_cmpint(rename(path, away), ==, 0);
    g_free(test_make_file("renamed", 4096, '2'));
    g_assert_true(test_reopen(file, NULL, 0, &error));
    g_assert_cmpint(test_read(file, 0, 4096, buf), ==, 0);
    g_assert_true(test_all_bytes_are(buf, 4096, '1'));
    test_close(file);
}

static void test_reopen_refusals(void)
{
    g_autofree char *path = test_make_file("refuse", 4096, '1');
    TestFile *file = test_open_ok(path, NULL, BDRV_O_RDWR);
    GError *error = NULL;

    g_assert_false(test_reopen(file, "filename=other", BDRV_O_RDWR, &error));
    test_assert_error(error, EINVAL, "'filename' cannot be changed");
    g_assert_false(test_reopen(file, "aio=native", BDRV_O_RDWR, &error));
    test_assert_error(error, EINVAL, "requires cache.direct=on");
    g_assert_true(test_reopen(file, "aio=native", BDRV_O_RDWR | BDRV_O_NOCACHE, &error));
    g_assert_cmpint(test_state(file)->aio, ==, FILE_AIO_NATIVE);
    test_close(file);
}

/* ---- block devices ---- */

static char *run_line(const char *command)
{
    char *out = NULL;
    int status = -1;

    if (!g_spawn_command_line_sync(command, &out, NULL, &status, NULL) || !g_spawn_check_wait_status(status, NULL)) {
        g_clear_pointer(&out, g_free);
        return NULL;
    }
    return g_strchomp(out);
}

static void test_loop_device(void)
{
    g_autofree char *path = test_make_file("loop", 4 * 1024 * 1024, 'l');
    g_autofree char *attach = g_strdup_printf("losetup -f --show %s", path);
    g_autofree char *device = NULL;
    GError *error = NULL;
    uint8_t *buf;

    if (getuid() != 0 || !(device = run_line(attach))) {
        g_test_skip("needs root and a loop device");
        return;
    }
    g_autofree char *detach = g_strdup_printf("losetup -d %s", device);
    buf = test_buffer(65536, 0xee);
    g_assert_cmpint(bdrv_find_format("host_device")->bdrv_probe_device(device), ==, 100);
    g_assert_null(test_open("file", device, NULL, 0, &error));
    test_assert_error(error, EINVAL, "use driver=host_device");

    for (int i = 0; i < 2; i++) {
        BdrvOpenFlags flags = BDRV_O_RDWR | BDRV_O_UNMAP | (i ? BDRV_O_NOCACHE : 0);
        TestFile *file = test_open("host_device", device, NULL, flags, &error);
        BlockExtent extent;
        g_assert_no_error(error);
        g_assert_cmpint(test_length(file), ==, 4 * 1024 * 1024);
        g_assert_cmpint(file->bs.limits.request_alignment, ==, i ? 512 : 1);
        memset(buf, 'w', 65536);
        g_assert_cmpint(test_write(file, 65536, 65536, buf, BDRV_REQ_FUA), ==, 0);
        g_assert_cmpint(test_read(file, 65536, 65536, buf), ==, 0);
        g_assert_true(test_all_bytes_are(buf, 65536, 'w'));
        g_assert_cmpint(test_zero(file, 65536, 32768, BDRV_REQ_MAY_UNMAP), ==, 0);
        g_assert_cmpint(test_zero(file, 98304, 16384, 0), ==, 0);
        g_assert_cmpint(test_zero(file, 100, 100, 0), ==, -ENOTSUP);
        g_assert_cmpint(test_read(file, 65536, 65536, buf), ==, 0);
        g_assert_true(test_all_bytes_are(buf, 49152, 0));
        g_assert_true(test_all_bytes_are(buf + 49152, 16384, 'w'));
        g_assert_cmpint(test_discard(file, 1024 * 1024, 1024 * 1024), ==, 0);
        g_assert_cmpint(test_status(file, 4096, 8192, &extent), ==, 0);
        g_assert_cmpint(extent.kind, ==, EXTENT_DATA);
        g_assert_cmpint(extent.bytes, ==, 8192);
        g_assert_cmpint(test_flush(file), ==, 0);
        g_assert_true(test_truncate(file, 1024 * 1024, false, BDRV_PREALLOC_OFF, &error));
        g_assert_false(test_truncate(file, 1024 * 1024, true, BDRV_PREALLOC_OFF, &error));
        test_assert_error(error, ENOTSUP, "cannot be resized");
        g_assert_false(test_truncate(file, 8 * 1024 * 1024, false, BDRV_PREALLOC_OFF, &error));
        test_assert_error(error, EINVAL, "cannot be resized");
        test_close(file);
    }
    g_free(run_line(detach));
    free(buf);
}

/* ---- closing ---- */

static _Atomic unsigned closes;

static int close_with_error(int fd)
{
    atomic_fetch_add(&closes, 1);
    close(fd);
    errno = EAGAIN; /* what a file system's flush method may well say */
    return -1;
}

static void test_close_once(void)
{
    g_autofree char *path = test_make_file("once", 4096, 0);
    TestFile *file = test_open_ok(path, NULL, BDRV_O_RDWR);
    FileCalls calls = file_system_calls;

    calls.close = close_with_error;
    test_state(file)->calls = &calls;
    atomic_store(&closes, 0);
    g_assert_cmpint(test_close_result(file), ==, -EAGAIN);
    g_assert_cmpuint(closes, ==, 1);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_dir_make();

    g_test_add_func("/file/open/files and devices are told apart", test_probe_device);
    g_test_add_func("/file/open/the prefix is taken off", test_parse_filename);
    g_test_add_func("/file/open/what is no image file is refused in words", test_refusals);
    g_test_add_func("/file/open/a passed descriptor is duplicated and stays as it was", test_descriptor);
    g_test_add_func("/file/open/locks on a passed descriptor end with the node", test_descriptor_locks_are_dropped);
    g_test_add_func("/file/open/a descriptor in append mode writes where it is told to", test_appending_descriptor);
    g_test_add_func("/file/open/descriptors are not inherited", test_cloexec);
    g_test_add_func("/file/open/only direct files have alignments", test_limits);
    g_test_add_func("/file/open/reopen changes access and cache mode", test_reopen_modes);
    g_test_add_func("/file/open/reopen stays with the file, not with the name", test_reopen_keeps_the_inode);
    g_test_add_func("/file/open/reopen refuses another file and a wrong engine", test_reopen_refusals);
    g_test_add_func("/file/open/a descriptor is closed once, whatever close says", test_close_once);
    g_test_add_func("/file/open/a loop device works as host_device", test_loop_device);

    int ret = g_test_run();
    test_dir_remove();
    return ret;
}
