/* SPDX-License-Identifier: MIT */
#include "file-test.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <stdlib.h>
#include <unistd.h>

char *test_dir;

void test_dir_make(void)
{
    test_dir = g_dir_make_tmp("bdrv-file-XXXXXX", NULL);
    g_assert_nonnull(test_dir);
    bdrv_register_builtins();
}

void test_dir_remove(void)
{
    GDir *dir = g_dir_open(test_dir, 0, NULL);
    const char *name;

    while ((name = g_dir_read_name(dir))) {
        g_autofree char *path = test_path(name);
        g_remove(path);
    }
    g_dir_close(dir);
    g_rmdir(test_dir);
    g_free(test_dir);
}

char *test_path(const char *name)
{
    return g_build_filename(test_dir, name, NULL);
}

char *test_make_file(const char *name, int64_t bytes, int byte)
{
    char *path = test_path(name);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, bytes), ==, 0);
    if (byte) {
        g_autofree char *buf = g_malloc(65536);
        memset(buf, byte, 65536);
        for (int64_t at = 0; at < bytes; at += 65536) {
            g_assert_cmpint(pwrite(fd, buf, MIN(65536, bytes - at), at), ==, MIN(65536, bytes - at));
        }
    }
    close(fd);
    return path;
}

/* ---- one call of the driver, in a coroutine ---- */

typedef enum Op {
    OP_OPEN,
    OP_CLOSE,
    OP_READ,
    OP_WRITE,
    OP_ZERO,
    OP_DISCARD,
    OP_FLUSH,
    OP_COPY,
    OP_STATUS,
    OP_LENGTH,
    OP_ALLOCATED,
    OP_TRUNCATE,
    OP_RIGHTS,
    OP_REOPEN,
    OP_CREATE,
    OP_DELETE,
} Op;

typedef struct Call {
    Op op;
    BlockDriverState *bs, *src;
    int64_t offset, bytes, src_offset;
    const BdrvIov *iov;
    size_t iov_offset;
    BdrvRequestFlags flags;
    BlockExtent *extent;
    bool exact;
    BdrvPrealloc prealloc;
    unsigned used, unshared;
    const char *filename;
    const BdrvOptions *options;
    BdrvOpenFlags open_flags;
    GError **errp;
    int64_t ret;
} Call;

static bool reopen(Call *c)
{
    const BlockDriver *drv = c->bs->drv;
    void *state = NULL;

    if (!drv->bdrv_reopen_prepare(c->bs, c->options, c->open_flags, &state, c->errp)) {
        return false;
    }
    drv->bdrv_reopen_commit(c->bs, state);
    c->bs->open_flags = c->open_flags;
    c->bs->read_only = !(c->open_flags & BDRV_O_RDWR);
    drv->bdrv_refresh_limits(c->bs);
    return true;
}

static void call_entry(void *opaque)
{
    Call *c = opaque;
    const BlockDriver *drv = c->bs ? c->bs->drv : bdrv_find_format("file");

    switch (c->op) {
    case OP_OPEN:
        c->ret = drv->bdrv_open(c->bs, c->options, c->open_flags, c->errp);
        if (c->ret) {
            drv->bdrv_refresh_limits(c->bs);
            c->bs->length = drv->bdrv_getlength(c->bs);
        }
        break;
    case OP_CLOSE:
        c->ret = drv->bdrv_close(c->bs);
        break;
    case OP_READ:
        c->ret = drv->bdrv_co_readv(c->bs, c->offset, c->bytes, c->iov, c->iov_offset, c->flags);
        break;
    case OP_WRITE:
        c->ret = drv->bdrv_co_writev(c->bs, c->offset, c->bytes, c->iov, c->iov_offset, c->flags);
        break;
    case OP_ZERO:
        c->ret = drv->bdrv_co_write_zeroes(c->bs, c->offset, c->bytes, c->flags);
        break;
    case OP_DISCARD:
        c->ret = drv->bdrv_co_discard(c->bs, c->offset, c->bytes);
        break;
    case OP_FLUSH:
        c->ret = drv->bdrv_co_flush_to_disk(c->bs);
        break;
    case OP_COPY:
        c->ret = drv->bdrv_co_copy_range(c->bs, c->src, c->src_offset, c->offset, c->bytes, 0);
        break;
    case OP_STATUS:
        c->ret = drv->bdrv_co_block_status(c->bs, c->offset, c->bytes, c->extent);
        break;
    case OP_LENGTH:
        c->ret = drv->bdrv_getlength(c->bs);
        break;
    case OP_ALLOCATED:
        c->ret = drv->bdrv_get_allocated_file_size(c->bs);
        break;
    case OP_TRUNCATE:
        c->ret = drv->bdrv_truncate(c->bs, c->bytes, c->exact, c->prealloc, 0, c->errp);
        break;
    case OP_RIGHTS:
        c->ret = drv->bdrv_set_rights(c->bs, c->used, c->unshared, c->errp);
        break;
    case OP_REOPEN:
        c->ret = reopen(c);
        break;
    case OP_CREATE:
        c->ret = drv->bdrv_create(c->filename, NULL, c->options, c->errp);
        break;
    case OP_DELETE:
        c->ret = drv->bdrv_delete_file(c->filename, c->errp);
        break;
    }
}

static int64_t run_call(Call *c)
{
    g_assert_cmpint(co_run_blocking(call_entry, c), ==, 0);
    return c->ret;
}

/* ---- opening ---- */

TestFile *test_open_options(const char *driver, const char *text, BdrvOpenFlags flags, GError **errp)
{
    const BlockDriver *drv = bdrv_find_format(driver);
    const BdrvOptionSpec *const specs[] = { drv->open_options, NULL };
    g_autoptr(BdrvOptions) options = bdrv_options_parse(text, "filename", errp);
    TestFile *file;

    if (!options || !bdrv_options_validate(options, specs, "driver", errp)) {
        return NULL;
    }
    file = g_new0(TestFile, 1);
    file->bs.drv = drv;
    file->bs.opaque = g_malloc0(drv->instance_size);
    file->bs.filename = g_strdup(text);
    file->bs.open_flags = flags;
    file->bs.read_only = !(flags & BDRV_O_RDWR);
    Call c = { .op = OP_OPEN, .bs = &file->bs, .options = options, .open_flags = flags, .errp = errp };
    if (!run_call(&c)) {
        g_free(file->bs.filename);
        g_free(file->bs.opaque);
        g_free(file);
        return NULL;
    }
    return file;
}

TestFile *test_open(const char *driver, const char *path, const char *more, BdrvOpenFlags flags, GError **errp)
{
    g_autofree char *text = g_strdup_printf("filename=%s%s%s", path, more ? "," : "", more ? more : "");

    return test_open_options(driver, text, flags, errp);
}

TestFile *test_open_ok(const char *path, const char *more, BdrvOpenFlags flags)
{
    GError *error = NULL;
    TestFile *file = test_open("file", path, more, flags, &error);

    g_assert_no_error(error);
    return file;
}

int test_close_result(TestFile *file)
{
    Call c = { .op = OP_CLOSE, .bs = &file->bs };
    int ret = run_call(&c);

    g_free(file->bs.filename);
    g_free(file->bs.opaque);
    g_free(file);
    return ret;
}

void test_close(TestFile *file)
{
    g_assert_cmpint(test_close_result(file), ==, 0);
}

FileState *test_state(TestFile *file)
{
    return file->bs.opaque;
}

/* ---- calls ---- */

int coroutine_fn test_co_rw(TestFile *file, bool write, int64_t offset, int64_t bytes, void *buf,
                            BdrvRequestFlags flags)
{
    struct iovec vec;
    BdrvIov iov = BDRV_IOV_BUF(vec, buf, bytes);

    return write ? file->bs.drv->bdrv_co_writev(&file->bs, offset, bytes, &iov, 0, flags)
                 : file->bs.drv->bdrv_co_readv(&file->bs, offset, bytes, &iov, 0, flags);
}

int test_readv(TestFile *file, int64_t offset, int64_t bytes, const BdrvIov *iov, size_t iov_offset)
{
    Call c = { .op = OP_READ, .bs = &file->bs, .offset = offset, .bytes = bytes, .iov = iov, .iov_offset = iov_offset };

    return run_call(&c);
}

int test_read(TestFile *file, int64_t offset, int64_t bytes, void *buf)
{
    struct iovec vec;
    BdrvIov iov = BDRV_IOV_BUF(vec, buf, bytes);

    return test_readv(file, offset, bytes, &iov, 0);
}

int test_write(TestFile *file, int64_t offset, int64_t bytes, const void *buf, BdrvRequestFlags flags)
{
    struct iovec vec;
    BdrvIov iov = BDRV_IOV_BUF(vec, buf, bytes);
    Call c = { .op = OP_WRITE, .bs = &file->bs, .offset = offset, .bytes = bytes, .iov = &iov, .flags = flags };
    int ret = run_call(&c);

    if (ret == 0 && offset + bytes > file->bs.length) {
        file->bs.length = offset + bytes;
    }
    return ret;
}

int test_zero(TestFile *file, int64_t offset, int64_t bytes, BdrvRequestFlags flags)
{
    Call c = { .op = OP_ZERO, .bs = &file->bs, .offset = offset, .bytes = bytes, .flags = flags };

    return run_call(&c);
}

int test_discard(TestFile *file, int64_t offset, int64_t bytes)
{
    Call c = { .op = OP_DISCARD, .bs = &file->bs, .offset = offset, .bytes = bytes };

    return run_call(&c);
}

int test_flush(TestFile *file)
{
    Call c = { .op = OP_FLUSH, .bs = &file->bs };

    return run_call(&c);
}

int test_copy(TestFile *src, int64_t src_offset, TestFile *dst, int64_t dst_offset, int64_t bytes)
{
    Call c = { .op = OP_COPY, .bs = &dst->bs, .src = &src->bs, .offset = dst_offset, .src_offset = src_offset,
               .bytes = bytes };

    return run_call(&c);
}

int test_status(TestFile *file, int64_t offset, int64_t bytes, BlockExtent *extent)
{
    Call c = { .op = OP_STATUS, .bs = &file->bs, .offset = offset, .bytes = bytes, .extent = extent };

    return run_call(&c);
}

int64_t test_length(TestFile *file)
{
    Call c = { .op = OP_LENGTH, .bs = &file->bs };

    return run_call(&c);
}

int64_t test_allocated(TestFile *file)
{
    Call c = { .op = OP_ALLOCATED, .bs = &file->bs };

    return run_call(&c);
}

bool test_truncate(TestFile *file, int64_t length, bool exact, BdrvPrealloc prealloc, GError **errp)
{
    Call c = { .op = OP_TRUNCATE, .bs = &file->bs, .bytes = length, .exact = exact, .prealloc = prealloc,
               .errp = errp };
    bool ok = run_call(&c);

    file->bs.length = test_length(file);
    return ok;
}

bool test_set_rights(TestFile *file, unsigned used, unsigned unshared, GError **errp)
{
    Call c = { .op = OP_RIGHTS, .bs = &file->bs, .used = used, .unshared = unshared, .errp = errp };

    return run_call(&c);
}

bool test_reopen(TestFile *file, const char *text, BdrvOpenFlags flags, GError **errp)
{
    g_autoptr(BdrvOptions) options = text ? bdrv_options_parse(text, NULL, errp) : bdrv_options_new();
    Call c = { .op = OP_REOPEN, .bs = &file->bs, .options = options, .open_flags = flags, .errp = errp };

    return run_call(&c);
}

bool test_create(const char *filename, const char *text, GError **errp)
{
    static const BdrvOptionSpec size_option[] = { { "size", BDRV_OPTION_SIZE, "Size" }, { NULL } };
    const BdrvOptionSpec *const specs[] = { size_option, file_create_options, NULL };
    g_autoptr(BdrvOptions) options = bdrv_options_parse(text, NULL, errp);

    if (!options || !bdrv_options_validate(options, specs, "driver 'file'", errp)) {
        return false;
    }
    Call c = { .op = OP_CREATE, .filename = filename, .options = options, .errp = errp };
    return run_call(&c);
}

bool test_delete(const char *filename, GError **errp)
{
    Call c = { .op = OP_DELETE, .filename = filename, .errp = errp };

    return run_call(&c);
}

/* ---- memory ---- */

void *test_buffer(size_t bytes, int byte)
{
    void *buf = NULL;

    g_assert_cmpint(posix_memalign(&buf, 65536, bytes), ==, 0);
    memset(buf, byte, bytes);
    return buf;
}

bool test_all_bytes_are(const void *buf, size_t bytes, int byte)
{
    const unsigned char *p = buf;

    for (size_t i = 0; i < bytes; i++) {
        if (p[i] != (unsigned char)byte) {
            return false;
        }
    }
    return true;
}
