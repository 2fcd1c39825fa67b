/* SPDX-License-Identifier: MIT */

/* The request layer on a simdisk: what reaches the driver, and what the caller is told. */

#include <bdrv/simdisk.h>
#include <errno.h>
#include <string.h>

#include "tests/lib/test-node.h"

#define KIB 1024
#define DISK_BYTES (256 * KIB)

/* Tests run one at a time, each on its own disk. */
static BdrvSimDisk *disk;

static BdrvChild *coroutine_fn open_disk(void)
{
    return test_must_open("simdisk", "disk=d", NULL);
}

static void new_disk(int64_t bytes)
{
    disk = bdrv_simdisk_new("d", bytes);
    g_assert_nonnull(disk);
}

static void close_disk(BdrvChild *child)
{
    test_close(child);
    g_clear_pointer(&disk, bdrv_simdisk_unref);
}

static void assert_bytes(int64_t offset, int byte, size_t bytes)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    bdrv_simdisk_peek(disk, offset, buf, bytes);
    for (size_t i = 0; i < bytes; i++) {
        g_assert_cmphex(buf[i], ==, byte);
    }
}

static void fill(int byte)
{
    g_autofree uint8_t *buf = g_malloc(DISK_BYTES);

    memset(buf, byte, DISK_BYTES);
    bdrv_simdisk_poke(disk, 0, buf, DISK_BYTES);
}

static int coroutine_fn write_byte(BdrvChild *child, int64_t offset, int byte, size_t bytes,
                                   BdrvRequestFlags flags)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    memset(buf, byte, bytes);
    return bdrv_co_pwrite(child, offset, bytes, buf, flags);
}

/* ---- random requests against a model, under all kinds of limits ---- */

static BdrvIov random_iov(uint64_t *random, struct iovec vec[], unsigned max, void *buf, size_t bytes)
{
    unsigned n = 0;
    size_t done = 0;

    while (done < bytes) {
        size_t left = bytes - done;
        size_t part = n + 1 == max ? left : (size_t)(1 + test_random_below(random, MIN(left, 3000)));

        vec[n++] = (struct iovec){ .iov_base = (uint8_t *)buf + done, .iov_len = part };
        done += part;
    }
    return bdrv_iov_init(vec, n);
}

static void coroutine_fn random_requests(BdrvChild *child, uint64_t *random)
{
    g_autofree uint8_t *model = g_malloc0(DISK_BYTES), *buf = g_malloc(DISK_BYTES + 1);
    struct iovec vec[40];

    for (int i = 0; i < 400; i++) {
        int64_t offset = test_random_below(random, DISK_BYTES);
        int64_t most = test_random(random) % 4 ? 9000 : 99999;
        int64_t bytes = 1 + test_random_below(random, MIN(DISK_BYTES - offset, most));
        int ret;

        if (test_random(random) % 4 == 0) { /* on multiples of 512 */
            offset &= ~511;
            bytes = MIN((bytes + 511) & ~511, DISK_BYTES - offset);
        }
        uint8_t *start = buf + test_random_below(random, 2); /* odd addresses too */
        start = bytes == DISK_BYTES ? buf : start;
        BdrvIov iov = random_iov(random, vec, G_N_ELEMENTS(vec), start, bytes);

        switch (test_random(random) % 5) {
        case 0:
        case 1:
            for (int64_t n = 0; n < bytes; n++) {
                start[n] = test_random(random);
            }
            memcpy(model + offset, start, bytes);
            ret = bdrv_co_pwritev(child, offset, bytes, &iov, 0, 0);
            break;
        case 2:
            memset(model + offset, 0, bytes);
            ret = bdrv_co_pwrite_zeroes(child, offset, bytes, 0);
            break;
        default:
            memset(start, 0xaa, bytes);
            ret = bdrv_co_preadv(child, offset, bytes, &iov, 0, 0);
            g_assert_cmpmem(start, bytes, model + offset, bytes);
        }
        g_assert_cmpint(ret, ==, 0);
    }
    bdrv_simdisk_peek(disk, 0, buf, DISK_BYTES);
    g_assert_cmpmem(buf, DISK_BYTES, model, DISK_BYTES);
}

static void coroutine_fn random_under_limits(void)
{
    static const BdrvLimits table[] = {
        { .request_alignment = 1 },
        { .request_alignment = 1, .max_iov = 3, .max_transfer = 5000 },
        { .request_alignment = 512 },
        { .request_alignment = 4096, .max_iov = 2 },
        { .request_alignment = 512, .mem_alignment = 512, .max_transfer = 3000 },
        { .request_alignment = 4096, .mem_alignment = 4096, .max_iov = 1, .max_transfer = 65536 },
        { .request_alignment = 512, .pwrite_zeroes_alignment = 4096, .max_pwrite_zeroes = 9000 },
        { .request_alignment = 65536, .max_transfer = 65536 },
    };
    uint64_t random = test_seed();

    for (unsigned i = 0; i < G_N_ELEMENTS(table); i++) {
        for (unsigned unsupported = 0; unsupported <= BDRV_SIM_ZERO; unsupported += BDRV_SIM_ZERO) {
            BdrvChild *child;

            new_disk(DISK_BYTES);
            bdrv_simdisk_set_limits(disk, &table[i]);
            bdrv_simdisk_set_unsupported(disk, unsupported);
            child = open_disk();
            random_requests(child, &random);
            close_disk(child);
        }
    }
}

/* ---- what the driver sees ---- */

typedef struct Seen {
    unsigned count;
    BdrvSimRequest last, first;
} Seen;

static void see(void *opaque, BdrvSimDisk *which, const BdrvSimRequest *request)
{
    Seen *seen = opaque;

    seen->first = seen->count++ ? seen->first : *request;
    seen->last = *request;
}

static void coroutine_fn one_padded_write(void)
{
    BdrvLimits limits = { .request_alignment = 4096 };
    Seen seen = { 0 };
    BdrvChild *child;

    new_disk(DISK_BYTES);
    fill(0x11);
    bdrv_simdisk_set_limits(disk, &limits);
    child = open_disk();
    bdrv_simdisk_set_hook(disk, see, &seen);
    g_assert_cmpint(write_byte(child, 1000, 0x22, 20000, 0), ==, 0);
    /* two edges are read, the middle is not, and one write takes all */
    g_assert_cmpuint(bdrv_simdisk_count(disk, BDRV_SIM_READ), ==, 2);
    g_assert_cmpuint(bdrv_simdisk_count(disk, BDRV_SIM_WRITE), ==, 1);
    g_assert_cmpint(seen.last.offset, ==, 0);
    g_assert_cmpint(seen.last.bytes, ==, 6 * 4096);
    assert_bytes(0, 0x11, 1000);
    assert_bytes(1000, 0x22, 20000);
    assert_bytes(21000, 0x11, 4096);
    close_disk(child);
}

typedef struct WriteJob {
    BdrvChild *child;
    int64_t offset, bytes;
    int byte;
    unsigned *left;
} WriteJob;

static void coroutine_fn write_job(void *opaque)
{
    WriteJob *job = opaque;

    g_assert_cmpint(write_byte(job->child, job->offset, job->byte, job->bytes, 0), ==, 0);
    --*job->left;
}

static void coroutine_fn wait_for(unsigned *left)
{
    while (*left > 0) {
        co_sleep_until(aio_clock_ns(aio_context_current()) + 1000);
    }
}

static void coroutine_fn neighbours_in_one_block(void)
{
    BdrvLimits limits = { .request_alignment = 4096 };
    WriteJob jobs[64];
    unsigned left = G_N_ELEMENTS(jobs);
    BdrvChild *child;

    new_disk(DISK_BYTES);
    bdrv_simdisk_set_limits(disk, &limits);
    bdrv_simdisk_set_delay(disk, 0, 100000);
    child = open_disk();
    for (unsigned i = 0; i < G_N_ELEMENTS(jobs); i++) {
        jobs[i] = (WriteJob){ child, i * 100, 100, i + 1, &left };
        test_start(write_job, &jobs[i]);
    }
    wait_for(&left);
    for (unsigned i = 0; i < G_N_ELEMENTS(jobs); i++) {
        assert_bytes(i * 100, i + 1, 100);
    }
    close_disk(child);
}

static void coroutine_fn aligned_beside_rmw(void)
{
    BdrvLimits limits = { .request_alignment = 512 };
    BdrvChild *child;

    new_disk(DISK_BYTES);
    bdrv_simdisk_set_limits(disk, &limits);
    bdrv_simdisk_set_delay(disk, 0, 100000);
    child = open_disk();
    for (unsigned round = 0; round < 30; round++) {
        unsigned left = 2;
        /* the younger one must not be undone by what the older one read */
        WriteJob unaligned = { child, 0, 100, 2 * round + 1, &left },
                 whole = { child, 0, 512, 2 * round + 2, &left };

        test_start(write_job, &unaligned);
        co_reschedule(); /* unaligned is first */
        test_start(write_job, &whole);
        wait_for(&left);
        uint8_t block[512];
        bdrv_simdisk_peek(disk, 0, block, sizeof(block));
        g_assert_cmphex(block[511], ==, 2 * round + 2);
    }
    close_disk(child);
}

/* ---- ends and rights ---- */

static void coroutine_fn past_the_end(void)
{
    uint8_t buf[2000];
    BdrvChild *child;

    new_disk(1500);
    child = open_disk();
    g_assert_cmpint(write_byte(child, 0, 0x33, 1500, 0), ==, 0);
    memset(buf, 0xaa, sizeof(buf));
    g_assert_cmpint(bdrv_co_pread(child, 0, 2000, buf, 0), ==, 0);
    g_assert_cmphex(buf[1499], ==, 0x33);
    g_assert_true(bdrv_buffer_is_zero(buf + 1500, 500));
    memset(buf, 0xaa, sizeof(buf));
    g_assert_cmpint(bdrv_co_pread(child, 5000, 100, buf, 0), ==, 0);
    g_assert_true(bdrv_buffer_is_zero(buf, 100));

    bdrv_edge(child)->used &= ~BDRV_RIGHT_RESIZE;
    g_assert_cmpint(write_byte(child, 1400, 1, 200, 0), ==, -EIO);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(child, 1400, 200, 0), ==, -EIO);
    g_assert_cmpint(bdrv_co_getlength(child), ==, 1500);
    bdrv_edge(child)->used |= BDRV_RIGHT_RESIZE;
    g_assert_cmpint(write_byte(child, 3000, 0x44, 200, 0), ==, 0);
    g_assert_cmpint(bdrv_co_getlength(child), ==, 3200);
    assert_bytes(1500, 0, 1500);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(child, 4000, 200, 0), ==, 0);
    g_assert_cmpint(bdrv_co_getlength(child), ==, 4200);
    g_assert_cmpint(bdrv_co_pdiscard(child, 4000, 201), ==, -EIO);
    close_disk(child);
}

static void coroutine_fn padding_leaves_the_length(void)
{
    BdrvLimits limits = { .request_alignment = 512 };
    BdrvChild *child;

    new_disk(1000);
    bdrv_simdisk_set_limits(disk, &limits);
    child = open_disk();
    g_assert_cmpint(write_byte(child, 900, 1, 100, 0), ==, 0);
    g_assert_cmpint(bdrv_simdisk_length(disk), ==, 1000);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(child, 10, 990, 0), ==, 0);
    g_assert_cmpint(bdrv_simdisk_length(disk), ==, 1000);
    g_assert_cmpint(write_byte(child, 990, 1, 20, 0), ==, 0);
    g_assert_cmpint(bdrv_simdisk_length(disk), ==, 1010);
    g_assert_cmpint(bdrv_co_getlength(child), ==, 1010);
    bdrv_simdisk_set_unsupported(disk, BDRV_SIM_TRUNCATE);
    g_assert_cmpint(write_byte(child, 990, 1, 10, 0), ==, 0);
    g_assert_cmpint(bdrv_co_getlength(child), ==, 1024);
    close_disk(child);
}

/* Appends of odd lengths at once: each finds its place, the length is that of the furthest. */
static void coroutine_fn appends_beside_each_other(void)
{
    BdrvLimits limits = { .request_alignment = 512 };
    WriteJob jobs[40];
    unsigned left = G_N_ELEMENTS(jobs);
    BdrvChild *child;

    new_disk(0);
    bdrv_simdisk_set_limits(disk, &limits);
    bdrv_simdisk_set_delay(disk, 0, 100000);
    child = open_disk();
    for (unsigned i = 0; i < G_N_ELEMENTS(jobs); i++) {
        unsigned place = (i * 17) % G_N_ELEMENTS(jobs);

        jobs[i] = (WriteJob){ child, place * 300, 300, place + 1, &left };
        test_start(write_job, &jobs[i]);
    }
    wait_for(&left);
    g_assert_cmpint(bdrv_simdisk_length(disk), ==, 300 * G_N_ELEMENTS(jobs));
    for (unsigned place = 0; place < G_N_ELEMENTS(jobs); place++) {
        assert_bytes(place * 300, place + 1, 300);
    }
    close_disk(child);
}

static void coroutine_fn impossible_ranges(void)
{
    uint8_t buf[16];
    struct iovec vec;
    BdrvIov iov = BDRV_IOV_BUF(vec, buf, sizeof(buf));
    BdrvChild *child;

    new_disk(DISK_BYTES);
    child = open_disk();
    g_assert_cmpint(bdrv_co_pread(child, -1, 16, buf, 0), ==, -EIO);
    g_assert_cmpint(bdrv_co_pread(child, 0, -1, buf, 0), ==, -EIO);
    g_assert_cmpint(bdrv_co_pread(child, INT64_MAX - 8, 16, buf, 0), ==, -EIO);
    g_assert_cmpint(bdrv_co_pwrite(child, INT64_MAX - 8, 16, buf, 0), ==, -EIO);
    g_assert_cmpint(bdrv_co_preadv(child, 0, 16, &iov, 1, 0), ==, -EIO);
    g_assert_cmpint(bdrv_co_preadv(child, 0, 17, &iov, 0, 0), ==, -EIO);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(child, -1, 1, 0), ==, -EIO);
    g_assert_cmpint(bdrv_co_pread(child, 0, 0, NULL, 0), ==, 0);
    g_assert_cmpuint(bdrv_simdisk_count(disk, BDRV_SIM_ANY), ==, 0);
    close_disk(child);
}

static void coroutine_fn without_the_right(void)
{
    BdrvChild *child;

    new_disk(DISK_BYTES);
    child = open_disk();
    bdrv_edge(child)->used = BDRV_RIGHT_CONSISTENT_READ;
    g_assert_cmpint(write_byte(child, 0, 1, 10, 0), ==, -EPERM);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(child, 0, 10, 0), ==, -EPERM);
    g_assert_cmpint(bdrv_co_pdiscard(child, 0, 10), ==, -EPERM);
    bdrv_edge(child)->used |= BDRV_RIGHT_WRITE_UNCHANGED;
    g_assert_cmpint(write_byte(child, 0, 1, 10, 0), ==, -EPERM);
    g_assert_cmpint(write_byte(child, 0, 1, 10, BDRV_REQ_UNCHANGED), ==, 0);
    bdrv_edge(child)->used = BDRV_RIGHTS_ALL;
    child->bs->read_only = true;
    g_assert_cmpint(write_byte(child, 0, 1, 10, 0), ==, -EPERM);
    close_disk(child);
}

/* ---- fall-backs ---- */

static void coroutine_fn fua_falls_back(void)
{
    BdrvChild *child;

    new_disk(DISK_BYTES);
    child = open_disk();
    g_assert_cmpint(write_byte(child, 0, 1, 512, BDRV_REQ_FUA), ==, 0);
    g_assert_cmpuint(bdrv_simdisk_count(disk, BDRV_SIM_FLUSH), ==, 0);
    close_disk(child);

    new_disk(DISK_BYTES);
    bdrv_simdisk_set_fua(disk, false);
    child = open_disk();
    g_assert_cmpint(write_byte(child, 0, 1, 512, BDRV_REQ_FUA), ==, 0);
    g_assert_cmpuint(bdrv_simdisk_count(disk, BDRV_SIM_FLUSH), ==, 1);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(child, 0, 512, BDRV_REQ_FUA), ==, 0);
    g_assert_cmpuint(bdrv_simdisk_count(disk, BDRV_SIM_FLUSH), ==, 2);
    bdrv_simdisk_fail(disk, BDRV_SIM_FLUSH, 1, 1, EIO);
    g_assert_cmpint(write_byte(child, 0, 1, 512, BDRV_REQ_FUA), ==, -EIO);
    close_disk(child);
}

static void coroutine_fn zeroes_fall_back(void)
{
    BdrvChild *child;

    new_disk(DISK_BYTES);
    fill(0x11);
    bdrv_simdisk_set_unsupported(disk, BDRV_SIM_ZERO);
    child = open_disk();
    g_assert_cmpint(bdrv_co_pwrite_zeroes(child, 100, 200000, BDRV_REQ_NO_FALLBACK), ==, -ENOTSUP);
    assert_bytes(0, 0x11, DISK_BYTES);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(child, 100, 200000, 0), ==, 0);
    assert_bytes(0, 0x11, 100);
    assert_bytes(100, 0, 200000);
    assert_bytes(200100, 0x11, DISK_BYTES - 200100);
    close_disk(child);
}

static void coroutine_fn large_zero_buffers(void)
{
    uint8_t byte = 1;
    BdrvChild *child;

    new_disk(5 * 1024 * KIB);
    bdrv_simdisk_poke(disk, 5 * 1024 * KIB - 1, &byte, 1);
    bdrv_simdisk_set_unsupported(disk, BDRV_SIM_ZERO);
    child = open_disk();
    g_assert_cmpint(bdrv_co_pwrite_zeroes(child, 1, 5 * 1024 * KIB - 1, 0), ==, 0);
    assert_bytes(5 * 1024 * KIB - 1, 0, 1);
    g_assert_cmpuint(bdrv_simdisk_count(disk, BDRV_SIM_WRITE), ==, 5);
    close_disk(child);
}

static void coroutine_fn discard_is_a_hint(void)
{
    BdrvLimits limits = { .request_alignment = 512, .pdiscard_alignment = 4096, .max_pdiscard = 10000 };
    Seen seen = { 0 };
    BdrvChild *child;

    new_disk(DISK_BYTES + 1024);
    fill(0x11);
    bdrv_simdisk_set_limits(disk, &limits);
    child = open_disk();
    bdrv_simdisk_set_hook(disk, see, &seen);
    g_assert_cmpint(bdrv_co_pdiscard(child, 1000, 3000), ==, 0); /* no whole unit */
    g_assert_cmpuint(seen.count, ==, 0);
    g_assert_cmpint(bdrv_co_pdiscard(child, 1000, 20000), ==, 0);
    g_assert_cmpuint(seen.count, ==, 2); /* 4096 .. 20480 in pieces of 8192 */
    g_assert_cmpint(seen.first.offset, ==, 4096);
    g_assert_cmpint(seen.last.offset + seen.last.bytes, ==, 20480);
    g_assert_cmpint(bdrv_co_pdiscard(child, DISK_BYTES, 1024), ==, 0); /* the last unit is short */
    g_assert_cmpuint(seen.count, ==, 3);
    bdrv_simdisk_set_unsupported(disk, BDRV_SIM_DISCARD);
    g_assert_cmpint(bdrv_co_pdiscard(child, 0, DISK_BYTES), ==, 0);
    bdrv_simdisk_set_unsupported(disk, 0);
    child->bs->open_flags &= ~BDRV_O_UNMAP;
    g_assert_cmpint(bdrv_co_pdiscard(child, 0, DISK_BYTES), ==, 0);
    g_assert_cmpuint(seen.count, ==, 3);
    close_disk(child);
}

/* ---- flush ---- */

static uint64_t flushes(void)
{
    return bdrv_simdisk_count(disk, BDRV_SIM_FLUSH);
}

static void coroutine_fn nothing_to_flush(void)
{
    BdrvChild *child;

    new_disk(DISK_BYTES);
    child = test_must_open("raw", "", open_disk());
    g_assert_cmpint(write_byte(child, 0, 1, 512, 0), ==, 0);
    g_assert_cmpint(bdrv_co_flush(child), ==, 0);
    g_assert_cmpint(bdrv_co_flush(child), ==, 0);
    g_assert_cmpuint(flushes(), ==, 1);
    g_assert_cmpint(bdrv_co_pdiscard(child, 0, 512), ==, 0);
    g_assert_cmpint(bdrv_co_flush(child), ==, 0);
    g_assert_cmpuint(flushes(), ==, 2);
    close_disk(child);
}

static void coroutine_fn first_flush_is_real(void)
{
    new_disk(DISK_BYTES);
    BdrvChild *child = test_must_open("raw", "", open_disk());
    g_assert_cmpint(bdrv_co_flush(child), ==, 0);
    g_assert_cmpint(bdrv_co_flush(child), ==, 0);
    g_assert_cmpuint(flushes(), ==, 1);
    close_disk(child);
}

static void coroutine_fn a_reader_flushes_nothing(void)
{
    new_disk(DISK_BYTES);
    BdrvChild *child = open_disk();
    child->bs->read_only = true;
    g_assert_cmpint(bdrv_co_flush(child), ==, 0);
    g_assert_cmpuint(flushes(), ==, 0);
    close_disk(child);
}

static void coroutine_fn failed_flush_is_repeated(void)
{
    BdrvChild *child;

    new_disk(DISK_BYTES);
    child = test_must_open("raw", "", open_disk());
    bdrv_simdisk_fail(disk, BDRV_SIM_FLUSH, 1, 2, EIO);
    g_assert_cmpint(write_byte(child, 0, 1, 512, 0), ==, 0);
    g_assert_cmpint(bdrv_co_flush(child), ==, -EIO);
    g_assert_cmpint(bdrv_co_flush(child), ==, -EIO);
    g_assert_cmpint(bdrv_co_flush(child), ==, 0);
    g_assert_cmpuint(flushes(), ==, 3);
    close_disk(child);
}

static void coroutine_fn no_flush_means_no_barrier(void)
{
    BdrvChild *child;

    new_disk(DISK_BYTES);
    child = open_disk();
    child->bs->open_flags |= BDRV_O_NO_FLUSH;
    g_assert_cmpint(write_byte(child, 0, 1, 512, 0), ==, 0);
    g_assert_cmpint(bdrv_co_flush(child), ==, 0);
    g_assert_cmpuint(flushes(), ==, 0);
    close_disk(child);
}

typedef struct FlushJob {
    BdrvChild *child;
    int ret;
    unsigned *left;
} FlushJob;

static void coroutine_fn flush_job(void *opaque)
{
    FlushJob *job = opaque;

    job->ret = bdrv_co_flush(job->child);
    --*job->left;
}

static void coroutine_fn flushes_merge(void)
{
    FlushJob jobs[20];
    unsigned left = G_N_ELEMENTS(jobs);
    BdrvChild *child;

    new_disk(DISK_BYTES);
    bdrv_simdisk_set_delay(disk, 1000000, 1000000);
    child = open_disk();
    g_assert_cmpint(write_byte(child, 0, 1, 512, 0), ==, 0);
    bdrv_simdisk_fail(disk, BDRV_SIM_FLUSH, 2, 1, ENOSPC);
    for (unsigned i = 0; i < G_N_ELEMENTS(jobs); i++) {
        jobs[i] = (FlushJob){ child, 1, &left };
    }
    test_start(flush_job, &jobs[0]);
    co_sleep_until(aio_clock_ns(aio_context_current()) + 100000); /* it runs */
    g_assert_cmpint(jobs[0].ret, ==, 1);
    bdrv_simdisk_set_delay(disk, 0, 0);
    g_assert_cmpint(write_byte(child, 0, 2, 512, 0), ==, 0);
    for (unsigned i = 1; i < G_N_ELEMENTS(jobs); i++) {
        test_start(flush_job, &jobs[i]);
    }
    wait_for(&left);
    /* The running one was not joined, all others share one call and its result. */
    g_assert_cmpint(jobs[0].ret, ==, 0);
    for (unsigned i = 1; i < G_N_ELEMENTS(jobs); i++) {
        g_assert_cmpint(jobs[i].ret, ==, -ENOSPC);
    }
    g_assert_cmpuint(flushes(), ==, 2);
    g_assert_cmpint(bdrv_co_flush(child), ==, 0);
    g_assert_cmpuint(flushes(), ==, 3);
    close_disk(child);
}

/* Whatever a flush that succeeded followed is durable. */
typedef struct StormJob {
    BdrvChild *child;
    uint64_t random;
    unsigned *left;
} StormJob;

static void coroutine_fn storm_job(void *opaque)
{
    StormJob *job = opaque;

    for (unsigned i = 0; i < 40; i++) {
        int64_t sector = test_random_below(&job->random, DISK_BYTES / 512);

        g_assert_cmpint(write_byte(job->child, sector * 512, i + 1, 512, 0), ==, 0);
        g_autoptr(BdrvSimCut) before = bdrv_simdisk_cut(disk);
        if (test_random(&job->random) % 3 || bdrv_co_flush(job->child) != 0) {
            continue;
        }
        /* Nothing that was complete in @before may still be volatile. */
        g_autoptr(BdrvSimCut) after = bdrv_simdisk_cut(disk);
        for (unsigned a = 0; a < bdrv_simcut_count(after); a++) {
            BdrvSimRequest request = bdrv_simcut_nth(after, a);

            for (unsigned b = 0; b < bdrv_simcut_count(before) && !request.durable; b++) {
                BdrvSimRequest old = bdrv_simcut_nth(before, b);

                g_assert_false(old.number == request.number && old.completed);
            }
        }
    }
    --*job->left;
}

static void coroutine_fn flush_storm(void)
{
    StormJob jobs[8];
    unsigned left = G_N_ELEMENTS(jobs);
    uint64_t random = test_seed();
    BdrvChild *child;

    new_disk(DISK_BYTES);
    bdrv_simdisk_set_seed(disk, random);
    bdrv_simdisk_set_delay(disk, 0, 100000);
    child = test_must_open("raw", "", open_disk());
    for (unsigned i = 0; i < 10; i++) {
        bdrv_simdisk_fail(disk, BDRV_SIM_FLUSH, 1 + test_random_below(&random, 60), 1, EIO);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(jobs); i++) {
        jobs[i] = (StormJob){ child, test_random(&random), &left };
        test_start(storm_job, &jobs[i]);
    }
    wait_for(&left);
    close_disk(child);
}

/* ---- the guard ---- */

#define MAGIC "GUARDFMT"

static int magic_probe(const uint8_t *buf, size_t size, const char *filename)
{
    return size >= 1000 && memcmp(buf, MAGIC, 8) == 0 ? 100 : 0;
}

static bool magic_open(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags, GError **errp)
{
    g_set_error(errp, BDRV_ERROR, ENOTSUP, "only for probing");
    return false;
}

static int magic_readv(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                       size_t iov_offset, BdrvRequestFlags flags)
{
    return -ENOTSUP;
}

static const BlockDriver magic_driver = {
    .format_name = "guard-test",
    .bdrv_probe = magic_probe,
    .bdrv_open = magic_open,
    .bdrv_co_readv = magic_readv,
};

static BdrvChild *coroutine_fn open_probed(int64_t bytes)
{
    BdrvChild *child;

    new_disk(bytes);
    child = test_must_open("raw", "", open_disk());
    bdrv_node(child->bs)->probed = true;
    return child;
}

static void coroutine_fn guard_refuses_headers(void)
{
    uint8_t header[4096] = MAGIC;
    BdrvChild *child = open_probed(DISK_BYTES);

    g_assert_cmpint(bdrv_co_pwrite(child, 0, 512, header, 0), ==, -EPERM);
    g_assert_cmpint(bdrv_co_pwrite(child, 0, 4096, header, 0), ==, -EPERM);
    g_assert_cmpint(bdrv_co_pwrite(child, 1, 512, header, 0), ==, 0);
    g_assert_cmpint(bdrv_co_pwrite(child, 4096, 512, header, 0), ==, 0);
    /* in two halves */
    g_assert_cmpint(bdrv_co_pwrite(child, 4, 4, &MAGIC[4], 0), ==, 0);
    g_assert_cmpint(bdrv_co_pwrite(child, 0, 4, MAGIC, 0), ==, -EPERM);
    /* by copying */
    g_assert_cmpint(bdrv_co_copy_range(child, 4096, child, 0, 512, 0), ==, -EPERM);
    bdrv_node(child->bs)->probed = false;
    g_assert_cmpint(bdrv_co_pwrite(child, 0, 512, header, 0), ==, 0);
    /* now it is there: zeroes over it are fine, beside it not */
    bdrv_node(child->bs)->probed = true;
    g_assert_cmpint(bdrv_co_pwrite_zeroes(child, 1024, 512, 0), ==, -EPERM);
    g_assert_cmpint(bdrv_co_pdiscard(child, 1024, 512), ==, -EPERM);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(child, 0, 512, 0), ==, 0);
    close_disk(child);
}

static void coroutine_fn guard_sees_growth(void)
{
    GError *error = NULL;
    BdrvChild *child = open_probed(512);

    /* one sector is no whole header, two are */
    g_assert_cmpint(bdrv_co_pwrite(child, 0, 8, MAGIC, 0), ==, 0);
    g_assert_cmpint(bdrv_co_pwrite(child, 10000, 8, MAGIC, 0), ==, -EPERM);
    g_assert_false(bdrv_co_truncate(child, 2000, true, BDRV_PREALLOC_OFF, 0, &error));
    g_assert_error(error, BDRV_ERROR, EPERM);
    g_clear_error(&error);
    g_assert_true(bdrv_co_truncate(child, 100, true, BDRV_PREALLOC_OFF, 0, &error));
    g_assert_no_error(error);
    close_disk(child);
}

/* ---- status, copy, resize ---- */

static void coroutine_fn status_of_a_layer(void)
{
    BlockExtent extent;
    BdrvChild *child;

    new_disk(DISK_BYTES + 100);
    child = test_must_open("raw", "offset=100", open_disk());
    g_assert_cmpint(write_byte(child, 3996, 1, 4096, 0), ==, 0); /* page 1 of the disk */
    g_assert_cmpint(bdrv_co_block_status(child, 0, DISK_BYTES, &extent), ==, 0);
    g_assert_cmpint(extent.kind, ==, EXTENT_ZERO);
    g_assert_cmpint(extent.bytes, ==, 3996);
    g_assert_cmpint(bdrv_co_block_status(child, 4000, DISK_BYTES - 4000, &extent), ==, 0);
    g_assert_cmpint(extent.kind, ==, EXTENT_DATA);
    g_assert_cmpint(extent.bytes, ==, 4092);
    g_assert_cmpint(extent.host_offset, ==, 4100);
    g_assert_true(extent.file == child->bs->file->bs);
    g_assert_cmpint(bdrv_co_block_status(child, 8092, DISK_BYTES - 8092, &extent), ==, 0);
    g_assert_cmpint(extent.kind, ==, EXTENT_ZERO);
    g_assert_true(extent.at_eof);
    g_assert_cmpint(bdrv_co_block_status(child, DISK_BYTES, 1, &extent), ==, -EINVAL);
    g_assert_cmpint(bdrv_co_block_status(child, 0, DISK_BYTES + 1, &extent), ==, -EINVAL);
    g_assert_cmpint(bdrv_co_block_status(child, 0, 0, &extent), ==, -EINVAL);
    close_disk(child);
}

/* A format whose layer has only the first 4 KiB of each 64 KiB. */
static bool sieve_open(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags, GError **errp)
{
    bs->length = DISK_BYTES;
    return true;
}

static int sieve_status(BlockDriverState *bs, int64_t offset, int64_t bytes, BlockExtent *extent)
{
    int64_t in = offset % 65536;

    extent->kind = in < 4096 ? EXTENT_DATA : EXTENT_BACKING;
    extent->bytes = (in < 4096 ? 4096 : 65536) - in;
    return 0;
}

static const BlockDriver sieve_driver = {
    .format_name = "sieve-test",
    .bdrv_open = sieve_open,
    .bdrv_co_readv = magic_readv,
    .bdrv_co_block_status = sieve_status,
};

static void coroutine_fn status_of_a_chain(void)
{
    BlockExtent extent;
    BdrvChild *top;

    new_disk(100352);
    top = test_must_open("sieve-test", "", NULL);
    test_set_backing(top, test_must_open("raw", "", open_disk()));
    g_assert_cmpint(write_byte(top->bs->backing, 8192, 1, 4096, 0), ==, 0);

    static const struct {
        int64_t offset, bytes;
        BlockExtentKind kind;
        unsigned depth;
    } expected[] = {
        { 0, 4096, EXTENT_DATA, 0 },       { 4096, 4096, EXTENT_ZERO, 1 },  { 8192, 4096, EXTENT_DATA, 1 },
        { 12288, 53248, EXTENT_ZERO, 1 },  { 65536, 4096, EXTENT_DATA, 0 }, { 69632, 30720, EXTENT_ZERO, 1 },
        { 100352, 30720, EXTENT_ZERO, 0 }, /* past the end of the backing file: it has no say */
        { 131072, 4096, EXTENT_DATA, 0 },
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(expected); i++) {
        g_assert_cmpint(
            bdrv_co_block_status_above(top, expected[i].offset, DISK_BYTES - expected[i].offset, &extent), ==,
            0);
        g_assert_cmpint(extent.kind, ==, expected[i].kind);
        g_assert_cmpint(extent.bytes, ==, expected[i].bytes);
        g_assert_cmpint(extent.depth, ==, expected[i].depth);
    }
    close_disk(top);
}

static void coroutine_fn copies(void)
{
    static const BdrvLimits plain = { .request_alignment = 1 }, blocks = { .request_alignment = 512 };
    g_autofree uint8_t *buf = g_malloc(100000), *back = g_malloc(100000);
    uint64_t random = 5;

    for (unsigned i = 0; i < 8; i++) {
        BdrvSimDisk *other = bdrv_simdisk_new("other", DISK_BYTES);
        BdrvChild *child, *dst;

        new_disk(DISK_BYTES);
        bdrv_simdisk_set_limits(other, i & 1 ? &blocks : &plain);
        bdrv_simdisk_set_unsupported(other, i & 2 ? BDRV_SIM_COPY : 0);
        child = test_must_open("raw", i & 4 ? "offset=512" : "", open_disk());
        dst =
            test_must_open("raw", i & 4 ? "offset=1024" : "", test_must_open("simdisk", "disk=other", NULL));
        for (unsigned n = 0; n < 100000; n++) {
            buf[n] = test_random(&random);
        }
        g_assert_cmpint(bdrv_co_pwrite(child, 1024, 100000, buf, 0), ==, 0);
        g_assert_cmpint(bdrv_co_copy_range(child, 1024, dst, 512, 100000, BDRV_REQ_FUA), ==, 0);
        g_assert_cmpint(bdrv_co_pread(dst, 512, 100000, back, 0), ==, 0);
        g_assert_cmpmem(buf, 100000, back, 100000);
        g_assert_cmpint(bdrv_co_copy_range(dst, 512, dst, 600, 1000, 0), ==, -EINVAL);
        if (!(i & 3)) {
            g_assert_cmpuint(bdrv_simdisk_count(other, BDRV_SIM_COPY), >=, 1);
            g_assert_cmpuint(bdrv_simdisk_count(other, BDRV_SIM_WRITE), ==, 0);
        }
        test_close(dst);
        bdrv_simdisk_unref(other);
        close_disk(child);
    }
}

static void coroutine_fn resizes(void)
{
    GError *error = NULL;
    uint8_t buf[100];
    BdrvChild *child;

    new_disk(DISK_BYTES);
    fill(0x11);
    child = test_must_open("raw", "", open_disk());
    g_assert_true(bdrv_co_truncate(child, 1000, true, BDRV_PREALLOC_OFF, 0, &error));
    g_assert_cmpint(bdrv_co_getlength(child), ==, 1024); /* raw counts sectors */
    g_assert_cmpint(bdrv_simdisk_length(disk), ==, 1000);
    g_assert_true(bdrv_co_truncate(child, 5000, true, BDRV_PREALLOC_OFF, 0, &error));
    g_assert_cmpint(bdrv_co_pread(child, 1000, 100, buf, 0), ==, 0);
    g_assert_true(bdrv_buffer_is_zero(buf, 100));
    g_assert_false(bdrv_co_truncate(child, -1, true, BDRV_PREALLOC_OFF, 0, &error));
    g_assert_error(error, BDRV_ERROR, EFBIG);
    g_clear_error(&error);
    bdrv_edge(child)->used &= ~BDRV_RIGHT_RESIZE;
    g_assert_false(bdrv_co_truncate(child, 10, true, BDRV_PREALLOC_OFF, 0, &error));
    g_assert_error(error, BDRV_ERROR, EPERM);
    g_clear_error(&error);
    close_disk(child);
}

typedef struct Append {
    BdrvChild *child;
    bool done;
} Append;

static void coroutine_fn append_job(void *opaque)
{
    Append *append = opaque;

    g_assert_cmpint(write_byte(append->child, 400 * KIB, 0x33, 4096, 0), ==, 0);
    append->done = true;
}

/* The write comes while the resize is under way: what is acknowledged must not be cut off by it. */
static void coroutine_fn resize_beside_append(void)
{
    for (unsigned i = 0; i < 30; i++) {
        Append append = { 0 };
        GError *error = NULL;

        new_disk(DISK_BYTES);
        bdrv_simdisk_set_seed(disk, i);
        bdrv_simdisk_set_delay(disk, 0, 100000);
        append.child = open_disk();
        test_start(append_job, &append);
        g_assert_true(bdrv_co_truncate(append.child, 300 * KIB, false, BDRV_PREALLOC_OFF, 0, &error));
        while (!append.done) {
            co_reschedule();
        }
        g_assert_cmpint(bdrv_simdisk_length(disk), ==, 404 * KIB);
        g_assert_cmpint(bdrv_co_getlength(append.child), ==, 404 * KIB);
        assert_bytes(400 * KIB, 0x33, 4096);
        close_disk(append.child);
    }
}

static void coroutine_fn zeroes_are_detected(void)
{
    static const BdrvLimits blocks = { .request_alignment = 512 };

    for (BdrvDetectZeroes detect = BDRV_DETECT_ZEROES_OFF; detect <= BDRV_DETECT_ZEROES_UNMAP; detect++) {
        bool on = detect != BDRV_DETECT_ZEROES_OFF;
        BdrvChild *child;

        new_disk(DISK_BYTES);
        bdrv_simdisk_set_limits(disk, &blocks);
        fill(0x11);
        child = open_disk();
        bdrv_node(child->bs)->detect_zeroes = detect;
        g_assert_cmpint(write_byte(child, 4096, 0, 8192, BDRV_REQ_FUA), ==, 0);
        g_assert_cmpuint(bdrv_simdisk_count(disk, BDRV_SIM_ZERO), ==, on);
        g_assert_cmpuint(bdrv_simdisk_count(disk, BDRV_SIM_WRITE), ==, !on);
        g_assert_cmpint(write_byte(child, 700, 0, 2000, 0), ==, 0); /* the edges are written */
        g_assert_cmpuint(bdrv_simdisk_count(disk, BDRV_SIM_ZERO), ==, 2 * on);
        g_assert_cmpint(write_byte(child, 0, 0x22, 512, 0), ==, 0);
        g_assert_cmpuint(bdrv_simdisk_count(disk, BDRV_SIM_ZERO), ==, 2 * on);
        assert_bytes(0, 0x22, 512);
        assert_bytes(512, 0x11, 188);
        assert_bytes(700, 0, 2000);
        assert_bytes(2700, 0x11, 4096 - 2700);
        assert_bytes(4096, 0, 8192);
        assert_bytes(12288, 0x11, 4096);
        close_disk(child);
    }
}

static void coroutine_fn errors_reach_the_caller(void)
{
    uint8_t buf[512];
    BdrvChild *child;

    new_disk(DISK_BYTES);
    child = test_must_open("raw", "", open_disk());
    bdrv_simdisk_fail(disk, BDRV_SIM_READ, 1, 1, EIO);
    g_assert_cmpint(bdrv_co_pread(child, 0, 512, buf, 0), ==, -EIO);
    bdrv_simdisk_fail(disk, BDRV_SIM_WRITE, 1, 1, ENOSPC);
    g_assert_cmpint(bdrv_co_pwrite(child, 0, 512, buf, 0), ==, -ENOSPC);
    bdrv_simdisk_set_capacity(disk, 8192);
    g_assert_cmpint(bdrv_co_pwrite(child, 0, 512, buf, 0), ==, 0);
    g_assert_cmpint(bdrv_co_pwrite(child, 4096, 512, buf, 0), ==, 0);
    g_assert_cmpint(bdrv_co_pwrite(child, 8192, 512, buf, 0), ==, -ENOSPC);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(child, 0, 4096, 0), ==, 0);
    g_assert_cmpint(bdrv_co_pwrite(child, 8192, 512, buf, 0), ==, 0);
    close_disk(child);
}

static const struct {
    const char *path;
    void (*body)(void);
} tests[] = {
    { "/io/random requests under all kinds of limits match a model", random_under_limits },
    { "/io/an unaligned write reads two edges and writes once", one_padded_write },
    { "/io/unaligned neighbours in one block do not undo each other", neighbours_in_one_block },
    { "/io/a whole block written after a part of it wins", aligned_beside_rmw },
    { "/io/reads past the end give zeroes and writes need the right to resize", past_the_end },
    { "/io/padding does not change the length of a node", padding_leaves_the_length },
    { "/io/unaligned appends at once all arrive", appends_beside_each_other },
    { "/io/impossible ranges are refused before the driver sees them", impossible_ranges },
    { "/io/an edge without the right cannot write", without_the_right },
    { "/io/fua without support becomes a flush", fua_falls_back },
    { "/io/zeroes without support are written unless that is not wanted", zeroes_fall_back },
    { "/io/large zero ranges are written from a bounded buffer", large_zero_buffers },
    { "/io/discard drops unaligned ends and never fails for lack of support", discard_is_a_hint },
    { "/io/a flush with nothing written calls nothing", nothing_to_flush },
    { "/io/the first flush covers what was not durable when the file was opened", first_flush_is_real },
    { "/io/a node that was never writable has nothing to flush", a_reader_flushes_nothing },
    { "/io/a failed flush is repeated by the next", failed_flush_is_repeated },
    { "/io/no-flush sets no barrier", no_flush_means_no_barrier },
    { "/io/flushes join the round that has not started and share its result", flushes_merge },
    { "/io/a flush that succeeded covers all writes complete before it", flush_storm },
    { "/io/a guessed raw image refuses to become another format", guard_refuses_headers },
    { "/io/a guessed raw image refuses to grow into another format", guard_sees_growth },
    { "/io/status of a layer maps to its file", status_of_a_layer },
    { "/io/status of a chain goes on where a layer has nothing", status_of_a_chain },
    { "/io/copies arrive with and without the driver's help", copies },
    { "/io/resizing needs the right and growing reads as zeroes", resizes },
    { "/io/a resize does not cut off what is written meanwhile", resize_beside_append },
    { "/io/zeroes are detected if asked to", zeroes_are_detected },
    { "/io/errors of the driver reach the caller", errors_reach_the_caller },
};

static void run_test(gconstpointer data)
{
    test_run((void (*)(void))data);
    g_assert_null(disk); /* the body came to its end */
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bdrv_register(&magic_driver);
    bdrv_register(&sieve_driver);
    for (unsigned i = 0; i < G_N_ELEMENTS(tests); i++) {
        g_test_add_data_func(tests[i].path, (gconstpointer)tests[i].body, run_test);
    }
    return g_test_run();
}
