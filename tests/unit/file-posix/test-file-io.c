/* SPDX-License-Identifier: MIT */
/* Reads, writes and flushes: every engine in every cache mode, short transfers, errors. */

#include "file-test.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#define SIZE (256 * 1024)
#define BLOCK 4096

static const char *const engines[] = { "threads", "native", "io_uring", "auto" };

static const struct {
    const char *name;
    BdrvOpenFlags flags;
    BdrvRequestFlags write_flags; /* what the backend adds to each write */
} cache_modes[] = {
    { "writeback", 0, 0 },
    { "none", BDRV_O_NOCACHE, 0 },
    { "writethrough", 0, BDRV_REQ_FUA },
    { "directsync", BDRV_O_NOCACHE, BDRV_REQ_FUA },
    { "unsafe", BDRV_O_NO_FLUSH, 0 },
    { "drop-behind", BDRV_O_DROP_BEHIND, 0 },
};

static uint32_t test_seed(void)
{
    const char *text = g_getenv("BDRV_TEST_SEED");
    uint32_t seed = text ? (uint32_t)strtoul(text, NULL, 0) : g_random_int();

    g_test_message("BDRV_TEST_SEED=%u", seed);
    return seed;
}

static TestFile *open_mode(const char *path, unsigned engine, unsigned mode)
{
    g_autofree char *aio = g_strdup_printf("aio=%s", engines[engine]);
    GError *error = NULL;
    TestFile *file = test_open("file", path, aio, BDRV_O_RDWR | cache_modes[mode].flags, &error);

    if (strcmp(engines[engine], "native") == 0 && !(cache_modes[mode].flags & BDRV_O_NOCACHE)) {
        g_assert_null(file);
        test_assert_error(error, EINVAL, "requires cache.direct=on");
        return NULL;
    }
#ifndef CONFIG_LIBURING
    if (strcmp(engines[engine], "io_uring") == 0) {
        g_assert_null(file);
        test_assert_error(error, ENOTSUP, "io_uring");
        return NULL;
    }
#endif
    g_assert_no_error(error);
    return file;
}

/* ---- random requests against a model ---- */

static void random_requests(TestFile *file, GRand *rand, uint8_t *model, BdrvRequestFlags write_flags)
{
    uint32_t align = file->bs.limits.request_alignment;
    uint8_t *buf = test_buffer(SIZE, 0);

    for (int i = 0; i < 150; i++) {
        int64_t bytes = MIN(align * (int64_t)g_rand_int_range(rand, 1, 1 + MAX(1, 20000 / align)), SIZE);
        int64_t offset = g_rand_int_range(rand, 0, (SIZE - bytes) / align + 1) * (int64_t)align;
        if (g_rand_boolean(rand)) {
            int byte = g_rand_int_range(rand, 1, 256);
            memset(buf, byte, bytes);
            memset(model + offset, byte, bytes);
            g_assert_cmpint(test_write(file, offset, bytes, buf, write_flags), ==, 0);
        } else {
            memset(buf, 0xee, bytes);
            g_assert_cmpint(test_read(file, offset, bytes, buf), ==, 0);
            g_assert_cmpmem(buf, bytes, model + offset, bytes);
        }
        if (i % 50 == 49) {
            g_assert_cmpint(test_flush(file), ==, 0);
        }
    }
    free(buf);
}

static void test_engine_and_mode(gconstpointer data)
{
    unsigned engine = GPOINTER_TO_UINT(data) / G_N_ELEMENTS(cache_modes);
    unsigned mode = GPOINTER_TO_UINT(data) % G_N_ELEMENTS(cache_modes);
    g_autofree char *path = test_make_file("random", SIZE, 0);
    g_autofree uint8_t *model = g_malloc0(SIZE);
    g_autoptr(GRand) rand = g_rand_new_with_seed(test_seed());
    uint8_t *buf = test_buffer(SIZE, 0xee);

    for (int round = 0; round < 3; round++) {
        TestFile *file = open_mode(path, engine, mode);
        if (!file) {
            free(buf);
            return;
        }
        random_requests(file, rand, model, cache_modes[mode].write_flags);
        g_assert_cmpint(test_read(file, 0, SIZE, buf), ==, 0);
        g_assert_cmpmem(buf, SIZE, model, SIZE);
        test_close(file);
    }
    free(buf);
}

/* ---- many in flight ---- */

typedef struct Flight {
    TestFile *file;
    unsigned index, rounds;
    unsigned *running;
} Flight;

#define FLIGHTS 200

static void flight_entry(void *opaque)
{
    Flight *f = opaque;
    uint8_t *buf = test_buffer(BLOCK, 0);

    for (unsigned i = 0; i < f->rounds; i++) {
        int byte = 1 + (f->index + i) % 255;
        memset(buf, byte, BLOCK);
        g_assert_cmpint(test_co_rw(f->file, true, (int64_t)f->index * BLOCK, BLOCK, buf, 0), ==, 0);
        memset(buf, 0, BLOCK);
        g_assert_cmpint(test_co_rw(f->file, false, (int64_t)f->index * BLOCK, BLOCK, buf, 0), ==, 0);
        g_assert_true(test_all_bytes_are(buf, BLOCK, byte));
    }
    free(buf);
    --*f->running;
}

static void run_flights(TestFile *file, unsigned first, unsigned count, unsigned rounds)
{
    AioContext *ctx = aio_context_current();
    g_autofree Flight *flights = g_new(Flight, count);
    unsigned running = count;

    for (unsigned i = 0; i < count; i++) {
        flights[i] = (Flight){ .file = file, .index = first + i, .rounds = rounds, .running = &running };
        co_start(ctx, co_new(flight_entry, &flights[i]));
    }
    while (running) {
        aio_context_run(ctx, true);
    }
}

static void test_many_in_flight(gconstpointer data)
{
    unsigned engine = GPOINTER_TO_UINT(data);
    g_autofree char *path = test_make_file("flights", FLIGHTS * BLOCK, 0);

    for (unsigned mode = 0; mode < 2; mode++) {
        TestFile *file = open_mode(path, engine, mode);
        if (file) {
            /* More than the rings hold at once. */
            run_flights(file, 0, FLIGHTS, 5);
            test_close(file);
        }
    }
}

static void *thread_entry(void *opaque)
{
    Flight *f = opaque;

    run_flights(f->file, f->index, 32, 20);
    return NULL;
}

static void test_several_threads(gconstpointer data)
{
    unsigned engine = GPOINTER_TO_UINT(data);
    g_autofree char *path = test_make_file("threads", 4 * 32 * BLOCK, 0);

    for (unsigned mode = 0; mode < 2; mode++) {
        TestFile *file = open_mode(path, engine, mode);
        pthread_t threads[4];
        Flight starts[4];
        if (!file) {
            continue;
        }
        for (unsigned i = 0; i < 4; i++) {
            starts[i] = (Flight){ .file = file, .index = 32 * i };
            g_assert_cmpint(pthread_create(&threads[i], NULL, thread_entry, &starts[i]), ==, 0);
        }
        for (unsigned i = 0; i < 4; i++) {
            pthread_join(threads[i], NULL);
        }
        test_close(file);
    }
}

/* ---- the end of the file ---- */

static void test_end_of_file(void)
{
    g_autofree char *path = test_make_file("end", 5000, 'e');

    for (unsigned i = 0; i < G_N_ELEMENTS(engines) * G_N_ELEMENTS(cache_modes); i++) {
        TestFile *file = open_mode(path, i / G_N_ELEMENTS(cache_modes), i % G_N_ELEMENTS(cache_modes));
        uint8_t *buf = test_buffer(16384, 0xee);
        if (file) {
            g_assert_cmpint(test_length(file), ==, 5000);
            g_assert_cmpint(test_read(file, 0, 16384, buf), ==, 0);
            g_assert_true(test_all_bytes_are(buf, 5000, 'e'));
            g_assert_true(test_all_bytes_are(buf + 5000, 16384 - 5000, 0));
            test_close(file);
        }
        free(buf);
    }
}

static void test_extending_write(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(engines) * G_N_ELEMENTS(cache_modes); i++) {
        g_autofree char *path = test_make_file("extend", 0, 0);
        TestFile *file = open_mode(path, i / G_N_ELEMENTS(cache_modes), i % G_N_ELEMENTS(cache_modes));
        uint8_t *buf = test_buffer(BLOCK, 'x');
        if (file) {
            g_assert_cmpint(test_write(file, 0, BLOCK, buf, 0), ==, 0);
            g_assert_cmpint(test_write(file, 3 * BLOCK, BLOCK, buf, 0), ==, 0);
            g_assert_cmpint(test_length(file), ==, 4 * BLOCK);
            test_close(file);
        }
        free(buf);
    }
}

/* ---- scatter/gather ---- */

static void test_part_of_a_view(void)
{
    g_autofree char *path = test_make_file("view", SIZE, 'v');
    TestFile *file = test_open_ok(path, NULL, 0);
    g_autofree uint8_t *memory = g_malloc(100 * 97);
    struct iovec vec[100];

    /* 97 bytes an element: a part of the view takes several steps of FILE_IO_PART elements. */
    for (int i = 0; i < 100; i++) {
        vec[i] = (struct iovec){ .iov_base = memory + i * 97, .iov_len = 97 };
    }
    memset(memory, 0xee, 100 * 97);
    BdrvIov iov = bdrv_iov_init(vec, 100);
    g_assert_cmpint(test_readv(file, 1000, 9000, &iov, 50), ==, 0);
    g_assert_true(test_all_bytes_are(memory, 50, 0xee));
    g_assert_true(test_all_bytes_are(memory + 50, 9000, 'v'));
    g_assert_true(test_all_bytes_are(memory + 9050, 650, 0xee));
    test_close(file);
}

static void test_direct_parts_stay_aligned(void)
{
    g_autofree char *path = test_make_file("dparts", SIZE, 'd');
    TestFile *file = test_open_ok(path, NULL, BDRV_O_NOCACHE);
    uint32_t align = file->bs.limits.request_alignment, mem = file->bs.limits.mem_alignment;
    uint8_t *memory = test_buffer(SIZE, 0xee);
    unsigned count = 64 * 512 / mem;
    g_autofree struct iovec *vec = g_new(struct iovec, count + 1);

    g_assert_cmpint(align % mem, ==, 0);
    vec[0] = (struct iovec){ .iov_base = memory + SIZE - 65536, .iov_len = mem };
    for (unsigned i = 0; i < count; i++) {
        vec[i + 1] = (struct iovec){ .iov_base = memory + i * mem, .iov_len = mem };
    }
    BdrvIov iov = bdrv_iov_init(vec, MIN(count + 1, 1000));
    int64_t bytes = (iov.bytes - mem) / align * align;
    g_assert_cmpint(test_readv(file, 0, bytes, &iov, mem), ==, 0);
    g_assert_true(test_all_bytes_are(memory, bytes, 'd'));
    test_close(file);
    free(memory);
}

/* ---- system calls that misbehave ---- */

static _Atomic unsigned call_count;
static _Atomic int fail_with; /* errno of the next calls */
static _Atomic int fail_calls;

static ssize_t short_preadv2(int fd, const struct iovec *vec, int count, off_t offset, int flags)
{
    unsigned n = call_count++;
    struct iovec one = { .iov_base = vec->iov_base, .iov_len = MIN(vec->iov_len, 1 + n % 700) };

    if (n % 3 == 1) {
        errno = EINTR;
        return -1;
    }
    return preadv2(fd, &one, 1, offset, flags);
}

static ssize_t short_pwritev2(int fd, const struct iovec *vec, int count, off_t offset, int flags)
{
    unsigned n = call_count++;
    struct iovec one = { .iov_base = vec->iov_base, .iov_len = MIN(vec->iov_len, 1 + n % 700) };

    if (n % 3 == 1) {
        errno = EINTR;
        return -1;
    }
    return pwritev2(fd, &one, 1, offset, flags);
}

static void test_short_transfers(gconstpointer aio)
{
    FileCalls calls = file_system_calls;
    g_autofree char *path = test_make_file("short", 20000, 0);
    g_autofree uint8_t *buf = g_malloc(20000);
    TestFile *file = test_open_ok(path, aio, BDRV_O_RDWR);

    calls.preadv2 = short_preadv2;
    calls.pwritev2 = short_pwritev2;
    test_state(file)->calls = &calls;
    memset(buf, 's', 20000);
    g_assert_cmpint(test_write(file, 100, 15000, buf, 0), ==, 0);
    g_assert_cmpint(test_read(file, 0, 20000, buf), ==, 0);
    g_assert_true(test_all_bytes_are(buf, 100, 0));
    g_assert_true(test_all_bytes_are(buf + 100, 15000, 's'));
    g_assert_true(test_all_bytes_are(buf + 15100, 4900, 0));
    test_close(file);
}

/* A direct transfer that stops inside of a block. */
static ssize_t odd_pwritev2(int fd, const struct iovec *vec, int count, off_t offset, int flags)
{
    g_assert_cmpint(offset % 512, ==, 0);
    return call_count++ % 2 ? pwritev2(fd, vec, count, offset, flags) : MIN((ssize_t)vec->iov_len, 5000);
}

static void test_odd_direct_write(void)
{
    FileCalls calls = file_system_calls;
    g_autofree char *path = test_make_file("odd", 65536, 0);
    uint8_t *buf = test_buffer(65536, 'o');
    TestFile *file = test_open_ok(path, "aio=threads", BDRV_O_RDWR | BDRV_O_NOCACHE);
    uint32_t align = file->bs.limits.request_alignment;

    calls.pwritev2 = odd_pwritev2;
    call_count = 0;
    test_state(file)->calls = &calls;
    g_assert_cmpint(test_write(file, 0, 65536, buf, 0), ==, 0);
    g_assert_cmpint(test_read(file, 0, 65536, buf), ==, 0);
    /* What the lying call claimed to have written in whole blocks was not repeated, the rest was. */
    g_assert_true(test_all_bytes_are(buf + 5000 / align * align, 65536 - 5000 / align * align, 'o'));
    test_close(file);
    free(buf);
}

static ssize_t failing_preadv2(int fd, const struct iovec *vec, int count, off_t offset, int flags)
{
    call_count++;
    if (fail_calls > 0) {
        fail_calls--;
        errno = fail_with;
        return -1;
    }
    return preadv2(fd, vec, count, offset, flags);
}

static ssize_t failing_pwritev2(int fd, const struct iovec *vec, int count, off_t offset, int flags)
{
    if (fail_calls > 0) {
        fail_calls--;
        errno = fail_with;
        return -1;
    }
    return pwritev2(fd, vec, count, offset, flags);
}

static int failing_fdatasync(int fd)
{
    call_count++;
    if (fail_calls > 0) {
        fail_calls--;
        errno = fail_with;
        return -1;
    }
    return fdatasync(fd);
}

static FileCalls failing_calls(void)
{
    FileCalls calls = file_system_calls;

    calls.preadv2 = failing_preadv2;
    calls.pwritev2 = failing_pwritev2;
    calls.fdatasync = failing_fdatasync;
    call_count = 0;
    return calls;
}

static void test_errors_reach_the_caller(void)
{
    static const int errors[] = { EIO, ENOSPC, EDQUOT, EFBIG };
    FileCalls calls = failing_calls();
    g_autofree char *path = test_make_file("errors", BLOCK, 0);
    TestFile *file = test_open_ok(path, "aio=threads", BDRV_O_RDWR);
    char buf[BLOCK] = { 0 };

    test_state(file)->calls = &calls;
    for (unsigned i = 0; i < G_N_ELEMENTS(errors); i++) {
        fail_with = errors[i];
        fail_calls = 1;
        g_assert_cmpint(test_read(file, 0, BLOCK, buf), ==, -errors[i]);
        fail_calls = 1;
        g_assert_cmpint(test_write(file, 0, BLOCK, buf, 0), ==, -errors[i]);
        g_assert_cmpint(test_read(file, 0, BLOCK, buf), ==, 0);
        g_assert_cmpint(test_write(file, 0, BLOCK, buf, BDRV_REQ_FUA), ==, 0);
    }
    test_close(file);
}

static void test_file_size_limit(void)
{
    struct rlimit old, limit;
    uint8_t *buf = test_buffer(65536, 'f');

    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    for (unsigned i = 0; i < G_N_ELEMENTS(engines) * 2; i++) {
        g_autofree char *path = test_make_file("limit", 16384, 0);
        TestFile *file = open_mode(path, i / 2, i % 2);
        if (!file) {
            continue;
        }
        limit = (struct rlimit){ .rlim_cur = 32768, .rlim_max = old.rlim_max };
        setrlimit(RLIMIT_FSIZE, &limit);
        /* The kernel writes up to the limit and answers a short count; the rest fails. */
        int ret = test_write(file, 0, 65536, buf, 0);
        setrlimit(RLIMIT_FSIZE, &old);
        g_assert_cmpint(ret, ==, -EFBIG);
        g_assert_cmpint(test_length(file), <=, 32768);
        test_close(file);
    }
    free(buf);
}

static bool run_line(const char *format, const char *a, const char *b)
{
    g_autofree char *line = g_strdup_printf(format, a, b);
    g_autofree char *out = NULL, *err = NULL;
    int status = -1;

    return g_spawn_command_line_sync(line, &out, &err, &status, NULL) && g_spawn_check_wait_status(status, NULL);
}

static void test_full_file_system(void)
{
    g_autofree char *image = test_make_file("small.img", 2 * 1024 * 1024, 0);
    g_autofree char *mount = test_path("small");
    g_autofree char *path = g_build_filename(mount, "disk", NULL);
    uint8_t *buf = test_buffer(65536, 'f');

    g_mkdir(mount, 0755);
    if (getuid() != 0 || !run_line("mke2fs -q -F -t ext4 -O ^has_journal %s", image, NULL) ||
        !run_line("mount -o loop %s %s", image, mount)) {
        g_test_skip("needs root, mke2fs and a loop device");
        free(buf);
        return;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(engines) * 2; i++) {
        int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        close(fd);
        TestFile *file = open_mode(path, i / 2, i % 2);
        int ret = 0;
        if (!file) {
            continue;
        }
        for (int64_t at = 0; at < 4 * 1024 * 1024 && ret == 0; at += 65536) {
            ret = test_write(file, at, 65536, buf, 0);
        }
        g_assert_cmpint(ret, ==, -ENOSPC);
        /* A write that found no room is no lost page. */
        g_assert_cmpint(test_flush(file), ==, 0);
        test_close(file);
    }
    g_assert_true(run_line("umount %s", mount, NULL));
    free(buf);
}

static void test_refused_submission(void)
{
    g_autofree char *path = test_make_file("refused", BLOCK, 0);
    TestFile *file = test_open_ok(path, "aio=native", BDRV_O_NOCACHE);
    uint8_t *buf = test_buffer(BLOCK, 'r');

    /* io_submit() itself says no; nothing is in flight that would end a sleep. */
    g_assert_cmpint(test_write(file, 0, BLOCK, buf, 0), ==, -EBADF);
    g_assert_cmpint(test_read(file, 0, BLOCK, buf), ==, 0);
    g_assert_true(test_all_bytes_are(buf, BLOCK, 0));
    test_close(file);
    free(buf);
}

/* ---- flush ---- */

static void test_failed_flush_sticks(void)
{
    FileCalls calls = failing_calls();
    g_autofree char *path = test_make_file("flush", BLOCK, 0);
    TestFile *file = test_open_ok(path, NULL, BDRV_O_RDWR);
    char buf[BLOCK] = { 0 };

    test_state(file)->calls = &calls;
    g_assert_cmpint(test_flush(file), ==, 0);
    fail_with = EIO;
    fail_calls = 1;
    g_assert_cmpint(test_flush(file), ==, -EIO);
    unsigned before = call_count;
    g_assert_cmpint(test_flush(file), ==, -EIO);
    g_assert_cmpint(test_write(file, 0, BLOCK, buf, BDRV_REQ_FUA), ==, -EIO);
    g_assert_cmpuint(call_count, ==, before);
    g_assert_cmpint(test_write(file, 0, BLOCK, buf, 0), ==, 0);
    test_close(file);

    file = test_open_ok(path, NULL, BDRV_O_RDWR);
    g_assert_cmpint(test_flush(file), ==, 0);
    test_close(file);
}

static void test_failed_direct_flush_may_be_repeated(void)
{
    FileCalls calls = failing_calls();
    g_autofree char *path = test_make_file("dflush", BLOCK, 0);
    TestFile *file = test_open_ok(path, "aio=threads", BDRV_O_RDWR | BDRV_O_NOCACHE);

    test_state(file)->calls = &calls;
    fail_with = EIO;
    fail_calls = 1;
    g_assert_cmpint(test_flush(file), ==, -EIO);
    g_assert_cmpint(test_flush(file), ==, 0);
    fail_with = EINTR;
    fail_calls = 1;
    g_assert_cmpint(test_flush(file), ==, 0);
    test_close(file);
}

static void test_failed_write_does_not_spoil_flushes(void)
{
    FileCalls calls = failing_calls();
    g_autofree char *path = test_make_file("fua", BLOCK, 0);
    TestFile *file = test_open_ok(path, "aio=threads", BDRV_O_RDWR);
    char buf[BLOCK] = { 0 };

    test_state(file)->calls = &calls;
    fail_with = ENOSPC;
    fail_calls = 1;
    g_assert_cmpint(test_write(file, 0, BLOCK, buf, BDRV_REQ_FUA), ==, -ENOSPC);
    g_assert_cmpint(test_flush(file), ==, 0);
    g_assert_cmpint(test_write(file, 0, BLOCK, buf, BDRV_REQ_FUA), ==, 0);
    test_close(file);
}

/* ---- nothing left in the page cache ---- */

static _Atomic int write_flags_seen; /* of the last pwritev2 */
static _Atomic bool no_dontcache;

static ssize_t watched_pwritev2(int fd, const struct iovec *vec, int count, off_t offset, int flags)
{
    write_flags_seen = flags;
    if (flags & RWF_DONTCACHE && no_dontcache) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return pwritev2(fd, vec, count, offset, flags & ~RWF_DONTCACHE);
}

static TestFile *open_watched(const char *path, BdrvOpenFlags flags, FileCalls *calls)
{
    TestFile *file = test_open_ok(path, "aio=threads", BDRV_O_RDWR | flags);

    *calls = file_system_calls;
    calls->pwritev2 = watched_pwritev2;
    test_state(file)->calls = calls;
    no_dontcache = false;
    return file;
}

static void assert_write_flags(TestFile *file, int64_t offset, int64_t bytes, int flags)
{
    uint8_t *buf = test_buffer(bytes, 'w');

    write_flags_seen = -1;
    g_assert_cmpint(test_write(file, offset, bytes, buf, 0), ==, 0);
    g_assert_cmpint(write_flags_seen, ==, flags);
    free(buf);
}

static void test_whole_pages_are_dropped(void)
{
    g_autofree char *path = test_make_file("pages", 65536, 'p');
    FileCalls calls;
    TestFile *file = open_watched(path, BDRV_O_DROP_BEHIND, &calls);

    assert_write_flags(file, 8192, 4096, RWF_DONTCACHE);
    assert_write_flags(file, 8192, 4095, 0);
    assert_write_flags(file, 8191, 4096, 0);
    test_close(file);
    file = open_watched(path, 0, &calls);
    assert_write_flags(file, 8192, 4096, 0);
    test_close(file);
}

static void test_auto_tries_both_ways(void)
{
    g_autofree char *path = test_make_file("auto-pages", 65536, 'p');
    FileCalls calls;
    TestFile *file = open_watched(path, BDRV_O_DROP_AUTO, &calls);

    assert_write_flags(file, 0, 32 << 20, RWF_DONTCACHE);
    assert_write_flags(file, 0, 4096, 0);
    test_close(file);
}

static void test_direct_writes_leave_nothing_anyway(void)
{
    g_autofree char *path = test_make_file("direct-pages", 65536, 'p');
    FileCalls calls;
    TestFile *file = open_watched(path, BDRV_O_DROP_BEHIND | BDRV_O_NOCACHE, &calls);

    assert_write_flags(file, 0, 65536, 0);
    test_close(file);
}

static void test_dontcache_is_switched_off(void)
{
    g_autofree char *path = test_make_file("kept-pages", 65536, 'p');
    FileCalls calls;
    TestFile *file = open_watched(path, BDRV_O_DROP_BEHIND, &calls);
    uint8_t buf[4096] = { 0 };

    no_dontcache = true;
    assert_write_flags(file, 4096, 4096, 0);
    g_assert_true(test_state(file)->no_dontcache);
    no_dontcache = false;
    assert_write_flags(file, 8192, 4096, 0);
    g_assert_cmpint(test_read(file, 4096, 4096, buf), ==, 0);
    g_assert_true(test_all_bytes_are(buf, 4096, 'w'));
    test_close(file);
}

static void test_reopen_changes_drop_behind(void)
{
    g_autofree char *path = test_make_file("changed-pages", 65536, 'p');
    FileCalls calls;
    GError *error = NULL;
    TestFile *file = open_watched(path, 0, &calls);

    g_assert_true(test_reopen(file, NULL, BDRV_O_RDWR | BDRV_O_DROP_BEHIND, &error));
    g_assert_no_error(error);
    assert_write_flags(file, 0, 4096, RWF_DONTCACHE);
    g_assert_true(test_reopen(file, NULL, BDRV_O_RDWR, &error));
    assert_write_flags(file, 0, 4096, 0);
    test_close(file);
}

/* ---- reads from the page cache ---- */

static void test_nowait_is_switched_off(void)
{
    FileCalls calls = failing_calls();
    g_autofree char *path = test_make_file("nowait", BLOCK, 'n');
    TestFile *file = test_open_ok(path, NULL, 0);
    uint8_t buf[BLOCK] = { 0 };

    test_state(file)->calls = &calls;
    fail_with = EOPNOTSUPP;
    fail_calls = 1;
    g_assert_cmpint(test_read(file, 0, BLOCK, buf), ==, 0);
    g_assert_true(test_all_bytes_are(buf, BLOCK, 'n'));
    g_assert_true(test_state(file)->no_nowait);
    test_close(file);
}

static void test_nowait_again_goes_on_elsewhere(void)
{
    FileCalls calls = failing_calls();
    g_autofree char *path = test_make_file("again", BLOCK, 'a');
    TestFile *file = test_open_ok(path, NULL, 0);
    uint8_t buf[BLOCK] = { 0 };

    test_state(file)->calls = &calls;
    fail_with = EAGAIN;
    fail_calls = 1;
    g_assert_cmpint(test_read(file, 0, BLOCK, buf), ==, 0);
    g_assert_true(test_all_bytes_are(buf, BLOCK, 'a'));
    g_assert_false(test_state(file)->no_nowait);
    test_close(file);
}

static ssize_t nothing_without_waiting(int fd, const struct iovec *vec, int count, off_t offset, int flags)
{
    return flags & RWF_NOWAIT ? 0 : preadv2(fd, vec, count, offset, flags);
}

static void test_nowait_zero_is_not_the_end(void)
{
    FileCalls calls = file_system_calls;
    g_autofree char *path = test_make_file("zero", 2 * BLOCK, 'z');
    TestFile *file = test_open_ok(path, NULL, 0);
    uint8_t buf[BLOCK] = { 0 };

    calls.preadv2 = nothing_without_waiting;
    test_state(file)->calls = &calls;
    g_assert_cmpint(test_read(file, 0, BLOCK, buf), ==, 0);
    g_assert_true(test_all_bytes_are(buf, BLOCK, 'z'));
    test_close(file);
}

static void test_tmpfs(void)
{
    g_autofree char *path = g_strdup_printf("/dev/shm/bdrv-test-%d", getpid());
    GError *error = NULL;
    g_autofree uint8_t *buf = g_malloc(65536);

    g_assert_true(test_create(path, "size=64k", &error));
    g_assert_no_error(error);
    TestFile *file = test_open_ok(path, NULL, BDRV_O_RDWR);
    memset(buf, 't', 65536);
    g_assert_cmpint(test_write(file, 0, 65536, buf, 0), ==, 0);
    memset(buf, 0, 65536);
    for (int i = 0; i < 3; i++) {
        g_assert_cmpint(test_read(file, 0, 65536, buf), ==, 0);
        g_assert_true(test_all_bytes_are(buf, 65536, 't'));
    }
    /* No FALLOC_FL_ZERO_RANGE there: a hole that is filled again. */
    g_assert_cmpint(test_zero(file, 4096, 8192, 0), ==, 0);
    g_assert_cmpint(test_read(file, 0, 65536, buf), ==, 0);
    g_assert_true(test_all_bytes_are(buf + 4096, 8192, 0));
    g_assert_true(test_all_bytes_are(buf + 12288, 65536 - 12288, 't'));
    g_assert_cmpint(test_allocated(file), ==, 65536);
    test_close(file);
    g_assert_true(test_delete(path, &error));
}

typedef struct Fairness {
    TestFile *file;
    unsigned reads;
    unsigned seen; /* reads when the deferred call ran */
    bool done;
} Fairness;

static void note_reads(void *opaque)
{
    Fairness *f = opaque;

    f->seen = f->reads;
}

static void fairness_entry(void *opaque)
{
    Fairness *f = opaque;
    AioCall call = { .func = note_reads, .opaque = f };
    uint8_t buf[512];

    aio_call(aio_context_current(), &call);
    for (int i = 0; i < 20000; i++) {
        g_assert_cmpint(test_co_rw(f->file, false, 0, sizeof(buf), buf, 0), ==, 0);
        f->reads++;
    }
    f->done = true;
}

static void test_inline_reads_give_way(void)
{
    g_autofree char *path = test_make_file("fair", BLOCK, 'f');
    Fairness f = { .file = test_open_ok(path, NULL, 0) };

    g_assert_cmpint(co_run_blocking(fairness_entry, &f), ==, 0);
    g_assert_true(f.done);
    g_assert_cmpuint(f.seen, >, 0);
    /* A round of the loop resumes a bounded number of coroutines, here the same one again and again. */
    g_assert_cmpuint(f.seen, <=, 64 * 128);
    test_close(f.file);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_dir_make();

    for (unsigned i = 0; i < G_N_ELEMENTS(engines) * G_N_ELEMENTS(cache_modes); i++) {
        g_autofree char *path =
            g_strdup_printf("/file/io/random requests read back what was written: aio=%s cache=%s",
                            engines[i / G_N_ELEMENTS(cache_modes)], cache_modes[i % G_N_ELEMENTS(cache_modes)].name);
        g_test_add_data_func(path, GUINT_TO_POINTER(i), test_engine_and_mode);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(engines); i++) {
        g_autofree char *many = g_strdup_printf("/file/io/more requests than a ring holds all end: aio=%s", engines[i]);
        g_autofree char *threads = g_strdup_printf("/file/io/four threads use one file: aio=%s", engines[i]);
        g_test_add_data_func(many, GUINT_TO_POINTER(i), test_many_in_flight);
        g_test_add_data_func(threads, GUINT_TO_POINTER(i), test_several_threads);
    }
    g_test_add_func("/file/io/a read past the end gives zeroes", test_end_of_file);
    g_test_add_func("/file/io/a write past the end makes the file longer", test_extending_write);
    g_test_add_func("/file/io/a part of a view is filled and nothing else", test_part_of_a_view);
    g_test_add_func("/file/io/parts of a direct request stay aligned", test_direct_parts_stay_aligned);
    g_test_add_data_func("/file/io/short transfers and EINTR are continued: aio=threads", "aio=threads",
                         test_short_transfers);
    g_test_add_data_func("/file/io/short transfers and EINTR are continued: aio=auto", "aio=auto",
                         test_short_transfers);
    g_test_add_func("/file/io/a direct write that stops inside a block goes on at its start", test_odd_direct_write);
    g_test_add_func("/file/io/errors reach the caller", test_errors_reach_the_caller);
    g_test_add_func("/file/io/the file size limit is reported", test_file_size_limit);
    g_test_add_func("/file/io/a full file system is reported", test_full_file_system);
    g_test_add_func("/file/io/a request that the kernel refuses to take ends", test_refused_submission);
    g_test_add_func("/file/io/after a failed flush of a cached file all fail", test_failed_flush_sticks);
    g_test_add_func("/file/io/a failed flush of a direct file may be repeated",
                    test_failed_direct_flush_may_be_repeated);
    g_test_add_func("/file/io/a failed write does not spoil flushes", test_failed_write_does_not_spoil_flushes);
    g_test_add_func("/file/io/drop-behind drops whole pages", test_whole_pages_are_dropped);
    g_test_add_func("/file/io/drop-behind=auto drops pages first, then tries to keep them", test_auto_tries_both_ways);
    g_test_add_func("/file/io/drop-behind is nothing to direct writes", test_direct_writes_leave_nothing_anyway);
    g_test_add_func("/file/io/RWF_DONTCACHE is switched off where it is not supported", test_dontcache_is_switched_off);
    g_test_add_func("/file/io/reopen changes drop-behind", test_reopen_changes_drop_behind);
    g_test_add_func("/file/io/RWF_NOWAIT is switched off where it is not supported", test_nowait_is_switched_off);
    g_test_add_func("/file/io/what the page cache lacks is read another way", test_nowait_again_goes_on_elsewhere);
    g_test_add_func("/file/io/nothing read without waiting is not the end of the file",
                    test_nowait_zero_is_not_the_end);
    g_test_add_func("/file/io/tmpfs works with its fall-backs", test_tmpfs);
    g_test_add_func("/file/io/inline reads give way to the loop", test_inline_reads_give_way);

    int ret = g_test_run();
    test_dir_remove();
    return ret;
}
