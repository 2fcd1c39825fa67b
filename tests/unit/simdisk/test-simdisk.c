/* SPDX-License-Identifier: MIT */

/* The disk that loses power: what is durable, what a cut can leave, failures, delays. */

#include <bdrv/simdisk.h>
#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>

#include "tests/lib/test-node.h"

#define DISK_BYTES 65536
#define SECTOR BDRV_SIM_SECTOR

static BdrvSimDisk *disk;

static BdrvChild *coroutine_fn new_disk(void)
{
    disk = bdrv_simdisk_new("d", DISK_BYTES);
    g_assert_nonnull(disk);
    return test_must_open("simdisk", "disk=d", NULL);
}

static void coroutine_fn close_disk(BdrvChild *child)
{
    test_close(child);
    g_clear_pointer(&disk, bdrv_simdisk_unref);
}

static void coroutine_fn write_sectors(BdrvChild *child, int sector, int byte, int count)
{
    g_autofree uint8_t *buf = g_malloc(count * SECTOR);

    memset(buf, byte, count * SECTOR);
    g_assert_cmpint(bdrv_co_pwrite(child, sector * SECTOR, count * SECTOR, buf, 0), ==, 0);
}

/* First bytes of the first sectors, as digits: "0011" */
static void assert_sectors(BdrvSimDisk *which, const char *expected)
{
    g_autoptr(GString) found = g_string_new("");

    for (unsigned i = 0; expected[i]; i++) {
        uint8_t sector[SECTOR];

        bdrv_simdisk_peek(which, i * SECTOR, sector, SECTOR);
        for (unsigned n = 1; n < SECTOR; n++) {
            g_assert_cmphex(sector[n], ==, sector[0]);
        }
        g_string_append_c(found, '0' + sector[0]);
    }
    g_assert_cmpstr(found->str, ==, expected);
}

/* What the cut leaves with these choices. */
static void assert_cut(BdrvSimCut *cut, const BdrvSimChoice *choices, const char *expected)
{
    g_autoptr(BdrvSimDisk) left = bdrv_simcut_disk(cut, choices, "left");

    g_assert_nonnull(left);
    assert_sectors(left, expected);
}

static void coroutine_fn flushed_is_durable(void)
{
    BdrvChild *child = new_disk();

    write_sectors(child, 0, 1, 1);
    {
        g_autoptr(BdrvSimCut) cut = bdrv_simdisk_cut(disk);
        assert_cut(cut, NULL, "00");
    }
    g_assert_cmpint(bdrv_co_flush(child), ==, 0);
    write_sectors(child, 1, 2, 1);
    {
        g_autoptr(BdrvSimCut) cut = bdrv_simdisk_cut(disk);
        g_assert_cmpuint(bdrv_simcut_count(cut), ==, 1);
        assert_cut(cut, NULL, "10");
    }
    assert_sectors(disk, "12");
    g_assert_cmpint(bdrv_co_pwrite(child, 2 * SECTOR, 1, "x", BDRV_REQ_FUA), ==, 0);
    {
        g_autoptr(BdrvSimCut) cut = bdrv_simdisk_cut(disk);
        g_autoptr(BdrvSimDisk) left = bdrv_simcut_disk(cut, NULL, "left");
        char x;

        assert_sectors(left, "10"); /* FUA of one is no flush of the other */
        bdrv_simdisk_peek(left, 2 * SECTOR, &x, 1);
        g_assert_cmpint(x, ==, 'x');
    }
    close_disk(child);
}

static void coroutine_fn any_subset_and_tearing(void)
{
    BdrvChild *child = new_disk();
    static const struct {
        BdrvSimChoice choices[3];
        const char *expected;
    } table[] = {
        { { { BDRV_SIM_KEPT }, { BDRV_SIM_KEPT }, { BDRV_SIM_KEPT } }, "15533000" },
        { { { BDRV_SIM_LOST }, { BDRV_SIM_LOST }, { BDRV_SIM_LOST } }, "99999999" },
        { { { BDRV_SIM_KEPT }, { BDRV_SIM_LOST }, { BDRV_SIM_LOST } }, "11119999" },
        { { { BDRV_SIM_LOST }, { BDRV_SIM_KEPT }, { BDRV_SIM_LOST } }, "95599999" },
        { { { BDRV_SIM_TORN_INSIDE, 0, 2 }, { BDRV_SIM_LOST }, { BDRV_SIM_LOST } }, "11999999" },
        { { { BDRV_SIM_TORN_OUTSIDE, 0, 3 }, { BDRV_SIM_LOST }, { BDRV_SIM_LOST } }, "99919999" },
        { { { BDRV_SIM_TORN_INSIDE, 1, 3 }, { BDRV_SIM_LOST }, { BDRV_SIM_LOST } }, "91199999" },
        { { { BDRV_SIM_TORN_OUTSIDE, 1, 3 }, { BDRV_SIM_LOST }, { BDRV_SIM_TORN_INSIDE, 2, 9 } },
          "19919900" },
    };

    write_sectors(child, 0, 9, 8);
    g_assert_cmpint(bdrv_co_flush(child), ==, 0);
    write_sectors(child, 0, 1, 4);
    write_sectors(child, 1, 5, 2);
    write_sectors(child, 3, 3, 1); /* overlaps, and the zeroes come after */
    g_assert_cmpint(bdrv_co_pwrite_zeroes(child, 4 * SECTOR, 4 * SECTOR, 0), ==, 0);

    g_autoptr(BdrvSimCut) cut = bdrv_simdisk_cut(disk);
    g_assert_cmpuint(bdrv_simcut_count(cut), ==, 4);
    g_assert_cmpint(bdrv_simcut_nth(cut, 3).kind, ==, BDRV_SIM_ZERO);
    for (unsigned i = 0; i < G_N_ELEMENTS(table); i++) {
        bool all = i == 0;
        BdrvSimChoice choices[4] = { table[i].choices[0],
                                     table[i].choices[1],
                                     { all ? BDRV_SIM_KEPT : BDRV_SIM_LOST },
                                     table[i].choices[2] };
        g_autofree char *expected = g_strdup(table[i].expected);

        if (all) {
            memcpy(expected, "15530000", 8);
        }
        assert_cut(cut, choices, expected);
    }
    close_disk(child);
}

static void coroutine_fn truncates_are_logged(void)
{
    static const BdrvSimChoice shrink_only[] = { { BDRV_SIM_KEPT }, { BDRV_SIM_LOST } };
    static const BdrvSimChoice grow_only[] = { { BDRV_SIM_LOST }, { BDRV_SIM_KEPT } };
    GError *error = NULL;
    BdrvChild *child = new_disk();

    write_sectors(child, 0, 7, 4);
    g_assert_cmpint(bdrv_co_flush(child), ==, 0);
    g_assert_true(bdrv_co_truncate(child, SECTOR, true, BDRV_PREALLOC_OFF, 0, &error));
    g_assert_true(bdrv_co_truncate(child, 2 * DISK_BYTES, true, BDRV_PREALLOC_OFF, 0, &error));
    g_assert_cmpint(bdrv_simdisk_length(disk), ==, 2 * DISK_BYTES);
    assert_sectors(disk, "70");

    g_autoptr(BdrvSimCut) cut = bdrv_simdisk_cut(disk);
    g_autoptr(BdrvSimDisk) none = bdrv_simcut_disk(cut, NULL, "none");
    g_autoptr(BdrvSimDisk) shrunk = bdrv_simcut_disk(cut, shrink_only, "shrunk");
    g_autoptr(BdrvSimDisk) grown = bdrv_simcut_disk(cut, grow_only, "grown");
    g_assert_cmpint(bdrv_simdisk_length(none), ==, DISK_BYTES);
    assert_sectors(none, "7777");
    g_assert_cmpint(bdrv_simdisk_length(shrunk), ==, SECTOR);
    g_assert_cmpint(bdrv_simdisk_length(grown), ==, 2 * DISK_BYTES);
    assert_sectors(grown, "7777");
    close_disk(child);
}

static void coroutine_fn preallocated_space_is_allocated(void)
{
    GError *error = NULL;
    BdrvChild *child = new_disk();
    int64_t before = bdrv_simdisk_allocated(disk);

    g_assert_true(bdrv_co_truncate(child, DISK_BYTES + 65536, true, BDRV_PREALLOC_FULL, 0, &error));
    g_assert_no_error(error);
    g_assert_cmpint(bdrv_simdisk_allocated(disk), >=, before + 65536);
    g_assert_false(bdrv_co_truncate(child, 2 * DISK_BYTES + 65536, true, BDRV_PREALLOC_METADATA, 0, &error));
    g_assert_error(error, BDRV_ERROR, ENOTSUP);
    g_clear_error(&error);
    close_disk(child);
}

static void coroutine_fn preallocation_without_space_leaves_the_length(void)
{
    GError *error = NULL;
    BdrvChild *child = new_disk();

    bdrv_simdisk_set_capacity(disk, bdrv_simdisk_allocated(disk) + 65536);
    g_assert_false(bdrv_co_truncate(child, DISK_BYTES + (1 << 20), true, BDRV_PREALLOC_FALLOC, 0, &error));
    g_assert_error(error, BDRV_ERROR, ENOSPC);
    g_assert_cmpint(bdrv_simdisk_length(disk), ==, DISK_BYTES);
    g_clear_error(&error);
    close_disk(child);
}

typedef struct Job {
    BdrvChild *child;
    int sector, byte;
    unsigned *left;
} Job;

static void coroutine_fn write_job(void *opaque)
{
    Job *job = opaque;

    write_sectors(job->child, job->sector, job->byte, 1);
    --*job->left;
}

static void coroutine_fn flush_covers_the_complete(void)
{
    BdrvChild *child = new_disk();
    unsigned left = 1;
    Job job = { child, 1, 2, &left };

    write_sectors(child, 0, 1, 1);
    bdrv_simdisk_set_delay(disk, 100000, 100000); /* longer than the clock creeps in some steps */
    test_start(write_job, &job); /* in flight when the flush begins */
    co_reschedule();
    g_assert_cmpint(bdrv_co_flush(child), ==, 0);
    while (left) {
        co_sleep_until(aio_clock_ns(aio_context_current()) + 100);
    }
    {
        g_autoptr(BdrvSimCut) cut = bdrv_simdisk_cut(disk);
        assert_cut(cut, NULL, "10");
        g_assert_cmpuint(bdrv_simcut_count(cut), ==, 1);
        g_assert_true(bdrv_simcut_nth(cut, 0).completed);
    }
    close_disk(child);
}

static void coroutine_fn failed_flush_keeps_nothing(void)
{
    BdrvChild *child = new_disk();

    write_sectors(child, 0, 1, 1);
    bdrv_simdisk_fail(disk, BDRV_SIM_FLUSH, 1, 1, EIO);
    g_assert_cmpint(bdrv_co_flush(child), ==, -EIO);
    {
        g_autoptr(BdrvSimCut) cut = bdrv_simdisk_cut(disk);
        assert_cut(cut, NULL, "0");
    }
    g_assert_cmpint(bdrv_co_flush(child), ==, 0);
    {
        g_autoptr(BdrvSimCut) cut = bdrv_simdisk_cut(disk);
        assert_cut(cut, NULL, "1");
    }
    close_disk(child);
}

static void coroutine_fn nth_call_fails(void)
{
    BdrvChild *child = new_disk();
    uint8_t buf[SECTOR] = { 0 };

    bdrv_simdisk_fail(disk, BDRV_SIM_WRITE | BDRV_SIM_READ, 3, 2, ENOMEM);
    g_assert_cmpint(bdrv_co_pwrite(child, 0, SECTOR, buf, 0), ==, 0);
    g_assert_cmpint(bdrv_co_pread(child, 0, SECTOR, buf, 0), ==, 0);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(child, 0, SECTOR, 0), ==, 0);
    g_assert_cmpint(bdrv_co_pwrite(child, 0, SECTOR, buf, 0), ==, -ENOMEM);
    g_assert_cmpint(bdrv_co_pread(child, 0, SECTOR, buf, 0), ==, -ENOMEM);
    g_assert_cmpint(bdrv_co_pread(child, 0, SECTOR, buf, 0), ==, 0);
    bdrv_simdisk_fail(disk, BDRV_SIM_ANY, 1, -1, EIO);
    for (unsigned i = 0; i < 5; i++) {
        g_assert_cmpint(bdrv_co_pread(child, 0, SECTOR, buf, 0), ==, -EIO);
    }
    bdrv_simdisk_fail_none(disk);
    g_assert_cmpint(bdrv_co_pread(child, 0, SECTOR, buf, 0), ==, 0);
    close_disk(child);
}

static void note_cut(void *opaque, BdrvSimDisk *which, const BdrvSimRequest *request)
{
    if (request->kind != BDRV_SIM_READ) {
        g_ptr_array_add(opaque, bdrv_simdisk_cut(which));
    }
}

static void coroutine_fn hook_takes_cuts(void)
{
    g_autoptr(GPtrArray) cuts = g_ptr_array_new_with_free_func((GDestroyNotify)bdrv_simcut_unref);
    static const char *const kept[] = { "100", "120", "120", "123" };
    static const char *const lost[] = { "000", "000", "120", "120" };
    BdrvSimChoice choices[2] = { { BDRV_SIM_KEPT }, { BDRV_SIM_KEPT } };
    BdrvChild *child = new_disk();

    bdrv_simdisk_set_hook(disk, note_cut, cuts);
    write_sectors(child, 0, 1, 1);
    write_sectors(child, 1, 2, 1);
    g_assert_cmpint(bdrv_co_flush(child), ==, 0);
    write_sectors(child, 2, 3, 1);
    g_assert_cmpuint(cuts->len, ==, 4);
    for (unsigned i = 0; i < 4; i++) {
        assert_cut(cuts->pdata[i], choices, kept[i]);
        assert_cut(cuts->pdata[i], NULL, lost[i]);
    }
    close_disk(child);
}

/* Every random image has, in each sector, one of the bytes it ever had since the flush. */
static void coroutine_fn random_losses(void)
{
    uint64_t random = test_seed();
    BdrvChild *child = new_disk();
    uint16_t possible[16]; /* bit b: byte b */

    for (unsigned round = 0; round < 200; round++) {
        g_assert_cmpint(bdrv_co_flush(child), ==, 0);
        for (unsigned i = 0; i < 16; i++) {
            uint8_t byte;

            bdrv_simdisk_peek(disk, i * SECTOR, &byte, 1);
            possible[i] = 1 << byte;
        }
        for (unsigned n = test_random_below(&random, 6); n > 0; n--) {
            int sector = test_random_below(&random, 16), count = 1 + test_random_below(&random, 16 - sector);
            int byte = test_random_below(&random, 10);

            write_sectors(child, sector, byte, count);
            for (int i = 0; i < count; i++) {
                possible[sector + i] |= 1 << byte;
            }
        }
        g_autoptr(BdrvSimCut) cut = bdrv_simdisk_cut(disk);
        BdrvSimChoice choices[8];

        bdrv_simcut_random(cut, test_random(&random), choices);
        g_autoptr(BdrvSimDisk) left = bdrv_simcut_disk(cut, choices, "left");
        for (unsigned i = 0; i < 16; i++) {
            uint8_t byte;

            bdrv_simdisk_peek(left, i * SECTOR, &byte, 1);
            g_assert_true(possible[i] >> byte & 1);
        }
    }
    close_disk(child);
}

static void coroutine_fn delays_reorder(void)
{
    BdrvChild *child = new_disk();
    bool seen[3] = { false };

    bdrv_simdisk_set_seed(disk, 1);
    bdrv_simdisk_set_delay(disk, 0, 1000);
    for (unsigned i = 0; i < 50; i++) {
        unsigned left = 2;
        Job a = { child, 0, 1, &left }, b = { child, 0, 2, &left };
        uint8_t byte;

        test_start(write_job, &a);
        test_start(write_job, &b);
        while (left) {
            co_sleep_until(aio_clock_ns(aio_context_current()) + 10);
        }
        bdrv_simdisk_peek(disk, 0, &byte, 1);
        seen[byte] = true;
    }
    g_assert_true(seen[1] && seen[2]);
    close_disk(child);
}

/* What a reader gets, as digits; -EIO in mid-way: what was read before. */
static void coroutine_fn assert_read(BdrvChild *child, int sectors, int expected_ret, const char *expected)
{
    g_autofree uint8_t *buf = g_malloc0(sectors * SECTOR);

    memset(buf, 'x' - '0', sectors * SECTOR);
    g_assert_cmpint(bdrv_co_pread(child, 0, sectors * SECTOR, buf, 0), ==, expected_ret);
    for (int i = 0; i < sectors; i++) {
        g_assert_cmpint(buf[i * SECTOR] + '0', ==, expected[i]);
    }
}

static void coroutine_fn size_apart_from_data(void)
{
    static const struct {
        BdrvSimFate grow, write;
        int64_t sectors; /* -1: as it was */
        char at_100;     /* first sector of the write, if it is there */
    } table[] = {
        { BDRV_SIM_KEPT, BDRV_SIM_LOST, 200, '0' },
        { BDRV_SIM_LOST, BDRV_SIM_KEPT, 104, '5' }, /* the write extends by itself */
        { BDRV_SIM_LOST, BDRV_SIM_DATA_ONLY, -1, 0 },
        { BDRV_SIM_LOST, BDRV_SIM_SIZE_ONLY, 104, '0' },
        { BDRV_SIM_KEPT, BDRV_SIM_DATA_ONLY, 200, '5' },
    };
    BdrvChild *child = new_disk();
    GError *error = NULL;

    g_assert_true(bdrv_co_truncate(child, 100 * SECTOR, true, BDRV_PREALLOC_OFF, 0, &error));
    g_assert_cmpint(bdrv_co_flush(child), ==, 0);
    g_assert_true(bdrv_co_truncate(child, 200 * SECTOR, true, BDRV_PREALLOC_OFF, 0, &error));
    write_sectors(child, 100, 5, 4);
    g_autoptr(BdrvSimCut) cut = bdrv_simdisk_cut(disk);
    g_assert_cmpint(bdrv_simcut_length(cut), ==, 100 * SECTOR);
    for (unsigned i = 0; i < G_N_ELEMENTS(table); i++) {
        BdrvSimChoice choices[2] = { { table[i].grow }, { table[i].write } };
        g_autoptr(BdrvSimDisk) left = bdrv_simcut_disk(cut, choices, "left");
        char byte;

        g_assert_cmpint(bdrv_simdisk_length(left), ==, (table[i].sectors < 0 ? 100 : table[i].sectors) * SECTOR);
        bdrv_simdisk_peek(left, 100 * SECTOR, &byte, 1);
        g_assert_cmpint(byte + '0', ==, table[i].at_100 ? table[i].at_100 : '0');
    }
    close_disk(child);
}

static void coroutine_fn bytes_without_size_go_with_a_truncate(void)
{
    static const BdrvSimChoice choices[] = { { BDRV_SIM_DATA_ONLY }, { BDRV_SIM_KEPT }, { BDRV_SIM_KEPT } };
    BdrvChild *child = new_disk();
    GError *error = NULL;

    g_assert_true(bdrv_co_truncate(child, 0, true, BDRV_PREALLOC_OFF, 0, &error));
    g_assert_cmpint(bdrv_co_flush(child), ==, 0);
    g_assert_true(bdrv_co_truncate(child, 4 * SECTOR, true, BDRV_PREALLOC_OFF, 0, &error));
    g_assert_cmpint(bdrv_co_flush(child), ==, 0);
    write_sectors(child, 4, 7, 4);
    g_assert_true(bdrv_co_truncate(child, 5 * SECTOR, true, BDRV_PREALLOC_OFF, 0, &error));
    g_assert_true(bdrv_co_truncate(child, 8 * SECTOR, true, BDRV_PREALLOC_OFF, 0, &error));
    g_autoptr(BdrvSimCut) cut = bdrv_simdisk_cut(disk);
    assert_cut(cut, choices, "00007000");
    close_disk(child);
}

static void coroutine_fn a_hole_does_not_extend(void)
{
    static const BdrvSimChoice choices[] = { { BDRV_SIM_LOST }, { BDRV_SIM_KEPT } };
    BdrvChild *child = new_disk();
    GError *error = NULL;

    g_assert_true(bdrv_co_truncate(child, 2 * DISK_BYTES, true, BDRV_PREALLOC_OFF, 0, &error));
    g_assert_cmpint(bdrv_co_pdiscard(child, DISK_BYTES, DISK_BYTES), ==, 0);
    g_autoptr(BdrvSimCut) cut = bdrv_simdisk_cut(disk);
    g_autoptr(BdrvSimDisk) left = bdrv_simcut_disk(cut, choices, "left");
    g_assert_cmpint(bdrv_simdisk_length(left), ==, DISK_BYTES);
    close_disk(child);
}

static void coroutine_fn calls_fail_partly(void)
{
    uint8_t buf[4 * SECTOR];
    BdrvChild *child = new_disk();

    memset(buf, 4, sizeof(buf));
    bdrv_simdisk_fail_partly(disk, BDRV_SIM_WRITE, 1, 1, ENOSPC, 2 * SECTOR);
    g_assert_cmpint(bdrv_co_pwrite(child, 0, 4 * SECTOR, buf, 0), ==, -ENOSPC);
    assert_sectors(disk, "4400");
    {
        g_autoptr(BdrvSimCut) cut = bdrv_simdisk_cut(disk);
        g_assert_cmpuint(bdrv_simcut_count(cut), ==, 1);
        g_assert_cmpint(bdrv_simcut_nth(cut, 0).bytes, ==, 2 * SECTOR);
        assert_cut(cut, NULL, "0000");
    }
    bdrv_simdisk_fail_partly(disk, BDRV_SIM_WRITE, 1, 1, EIO, SECTOR);
    g_assert_cmpint(bdrv_co_pwrite(child, 2 * SECTOR, SECTOR, buf, BDRV_REQ_FUA), ==, -EIO);
    {
        g_autoptr(BdrvSimCut) cut = bdrv_simdisk_cut(disk);
        assert_cut(cut, NULL, "0000"); /* nobody was promised anything */
    }
    bdrv_simdisk_fail_partly(disk, BDRV_SIM_READ, 1, 1, EIO, SECTOR);
    assert_read(child, 3, -EIO, "4xx");
    assert_read(child, 3, 0, "444");
    close_disk(child);
}

static void coroutine_fn latent_errors(void)
{
    BdrvChild *child = new_disk();

    write_sectors(child, 0, 1, 6);
    bdrv_simdisk_set_bad(disk, 2 * SECTOR + 5, SECTOR, EIO); /* sectors 2 and 3 */
    bdrv_simdisk_set_bad(disk, 5 * SECTOR, 1, EILSEQ);
    assert_read(child, 2, 0, "11");
    assert_read(child, 6, -EIO, "11xxxx");
    g_assert_cmpint(bdrv_co_pwrite(child, 2 * SECTOR, 1, "1", 0), ==, 0); /* a part heals nothing */
    assert_read(child, 6, -EIO, "11xxxx");
    write_sectors(child, 2, 2, 1);
    assert_read(child, 6, -EIO, "112xxx");
    g_assert_cmpint(bdrv_co_pwrite_zeroes(child, 3 * SECTOR, SECTOR, 0), ==, 0);
    assert_read(child, 6, -EILSEQ, "11201x");
    write_sectors(child, 4, 3, 2);
    assert_read(child, 6, 0, "112033");
    close_disk(child);
}

/* Write 1, then 2 with a flush that fails in between: what is there, and what a second flush makes durable. */
static void coroutine_fn failed_flush(BdrvSimFlushFailure mode, const char *seen, const char *durable)
{
    BdrvChild *child = new_disk();

    write_sectors(child, 0, 9, 2);
    g_assert_cmpint(bdrv_co_flush(child), ==, 0);
    write_sectors(child, 0, 1, 1);
    bdrv_simdisk_set_flush_failure(disk, mode);
    bdrv_simdisk_fail(disk, BDRV_SIM_FLUSH, 1, 1, EIO);
    g_assert_cmpint(bdrv_co_flush(child), ==, -EIO);
    write_sectors(child, 1, 2, 1);
    assert_sectors(disk, seen);
    g_assert_cmpint(bdrv_co_flush(child), ==, 0);
    assert_sectors(disk, seen);
    g_autoptr(BdrvSimCut) cut = bdrv_simdisk_cut(disk);
    assert_cut(cut, NULL, durable);
    close_disk(child);
}

static void coroutine_fn failed_flush_keeps(void)
{
    failed_flush(BDRV_SIM_FLUSH_KEEPS, "12", "12");
}

static void coroutine_fn failed_flush_forgets(void)
{
    failed_flush(BDRV_SIM_FLUSH_FORGETS, "12", "92");
}

static void coroutine_fn failed_flush_drops(void)
{
    failed_flush(BDRV_SIM_FLUSH_DROPS, "92", "92");
}

static void coroutine_fn dropped_bytes_leave_their_size(void)
{
    static const BdrvSimChoice kept[] = { { BDRV_SIM_KEPT } };
    BdrvChild *child = new_disk();

    bdrv_simdisk_set_flush_failure(disk, BDRV_SIM_FLUSH_DROPS);
    bdrv_simdisk_fail(disk, BDRV_SIM_FLUSH, 1, 1, EIO);
    write_sectors(child, DISK_BYTES / SECTOR, 1, 1);
    g_assert_cmpint(bdrv_co_flush(child), ==, -EIO);
    g_assert_cmpint(bdrv_simdisk_length(disk), ==, DISK_BYTES + SECTOR);
    g_autoptr(BdrvSimCut) cut = bdrv_simdisk_cut(disk);
    g_autoptr(BdrvSimDisk) with = bdrv_simcut_disk(cut, kept, "with");
    g_autoptr(BdrvSimDisk) without = bdrv_simcut_disk(cut, NULL, "without");
    char byte;
    bdrv_simdisk_peek(with, DISK_BYTES, &byte, 1);
    g_assert_cmpint(byte, ==, 0);
    g_assert_cmpint(bdrv_simdisk_length(with), ==, DISK_BYTES + SECTOR);
    g_assert_cmpint(bdrv_simdisk_length(without), ==, DISK_BYTES);
    close_disk(child);
}

static void coroutine_fn states_are_saved(void)
{
    BdrvChild *child = new_disk();

    write_sectors(child, 0, 1, 1);
    g_assert_cmpint(bdrv_co_flush(child), ==, 0);
    write_sectors(child, 1, 2, 1);
    bdrv_simdisk_set_bad(disk, 3 * SECTOR, 1, EIO);
    g_autoptr(BdrvSimSaved) saved = bdrv_simdisk_save(disk);
    for (unsigned round = 0; round < 2; round++) {
        write_sectors(child, 0, 5, 4);
        g_assert_cmpint(bdrv_co_flush(child), ==, 0);
        g_assert_cmpint(bdrv_co_pwrite(child, DISK_BYTES, 1, "x", 0), ==, 0);
        bdrv_simdisk_restore(disk, saved);
        assert_sectors(disk, "1200");
        g_assert_cmpint(bdrv_simdisk_length(disk), ==, DISK_BYTES);
        assert_read(child, 4, -EIO, "120x");
        g_autoptr(BdrvSimCut) cut = bdrv_simdisk_cut(disk);
        g_assert_cmpuint(bdrv_simcut_count(cut), ==, 1); /* the second write is not durable again */
        assert_cut(cut, NULL, "1000");
    }
    g_assert_cmpint(bdrv_co_flush(child), ==, 0);
    g_autoptr(BdrvSimCut) cut = bdrv_simdisk_cut(disk);
    assert_cut(cut, NULL, "1200");
    close_disk(child);
}

static void coroutine_fn sparse_and_exported(void)
{
    g_autofree char *path = g_strdup_printf("%s/simdisk-%d", g_get_tmp_dir(), (int)getpid());
    g_autofree char *content = NULL;
    GError *error = NULL;
    BdrvChild *child = new_disk();
    gsize length;

    g_assert_cmpint(bdrv_simdisk_allocated(disk), ==, 0);
    g_assert_true(bdrv_co_truncate(child, (int64_t)1 << 40, true, BDRV_PREALLOC_OFF, 0, &error));
    g_assert_cmpint(bdrv_co_pwrite(child, (int64_t)1 << 39, 3, "abc", 0), ==, 0);
    g_assert_cmpint(bdrv_simdisk_allocated(disk), ==, 4096);
    g_assert_cmpint(bdrv_co_pdiscard(child, 0, (int64_t)1 << 40), ==, 0);
    g_assert_cmpint(bdrv_simdisk_allocated(disk), ==, 0);
    g_assert_false(bdrv_co_truncate(child, (int64_t)1 << 60, true, BDRV_PREALLOC_OFF, 0, &error));
    g_assert_error(error, BDRV_ERROR, EFBIG);
    g_clear_error(&error);
    g_assert_true(bdrv_co_truncate(child, 100000, true, BDRV_PREALLOC_OFF, 0, &error));
    g_assert_cmpint(bdrv_co_pwrite(child, 99997, 3, "abc", 0), ==, 0);

    g_assert_cmpint(bdrv_simdisk_export(disk, path), ==, 0);
    g_assert_true(g_file_get_contents(path, &content, &length, &error));
    g_assert_cmpuint(length, ==, 100000);
    g_assert_cmpmem(content + 99997, 3, "abc", 3);
    g_assert_true(bdrv_buffer_is_zero(content, 99997));
    g_unlink(path);
    close_disk(child);
}

static void coroutine_fn names(void)
{
    g_autoptr(BdrvSimDisk) a = bdrv_simdisk_new("a", 10);
    BdrvSimDisk *again;
    GError *error = NULL;

    g_assert_null(bdrv_simdisk_new("a", 10));
    again = bdrv_simdisk_find("a");
    g_assert_true(again == a);
    bdrv_simdisk_unref(again);
    g_assert_null(bdrv_simdisk_find("b"));
    g_assert_null(test_open("simdisk", "disk=b", NULL, BDRV_O_RDWR, &error));
    g_assert_error(error, BDRV_ERROR, ENOENT);
    g_clear_error(&error);
    g_assert_false(bdrv_simdisk_forget("a")); /* the test's, not the table's */
    disk = NULL;
}

static const struct {
    const char *path;
    void (*body)(void);
} tests[] = {
    { "/simdisk/what was flushed or written with fua is durable, nothing else", flushed_is_durable },
    { "/simdisk/a cut leaves any subset and torn requests", any_subset_and_tearing },
    { "/simdisk/resizes can be lost too", truncates_are_logged },
    { "/simdisk/preallocated space is allocated", preallocated_space_is_allocated },
    { "/simdisk/preallocation without space leaves the length", preallocation_without_space_leaves_the_length },
    { "/simdisk/a flush covers what was complete when it began", flush_covers_the_complete },
    { "/simdisk/a failed flush makes nothing durable", failed_flush_keeps_nothing },
    { "/simdisk/the n-th call fails", nth_call_fails },
    { "/simdisk/the hook takes a cut at every request", hook_takes_cuts },
    { "/simdisk/random losses leave old or new in each sector", random_losses },
    { "/simdisk/delays reorder requests", delays_reorder },
    { "/simdisk/a resize and the data behind it survive apart", size_apart_from_data },
    { "/simdisk/bytes without their size go with a truncate", bytes_without_size_go_with_a_truncate },
    { "/simdisk/a hole past the end does not extend", a_hole_does_not_extend },
    { "/simdisk/a call does part of its work and fails", calls_fail_partly },
    { "/simdisk/latent errors last until the sector is rewritten", latent_errors },
    { "/simdisk/a failed flush keeps pages dirty", failed_flush_keeps },
    { "/simdisk/a failed flush forgets pages", failed_flush_forgets },
    { "/simdisk/a failed flush drops pages", failed_flush_drops },
    { "/simdisk/dropped bytes leave their size", dropped_bytes_leave_their_size },
    { "/simdisk/a state is saved and gone back to", states_are_saved },
    { "/simdisk/a large disk with little data costs little and is exported", sparse_and_exported },
    { "/simdisk/names are found and unique", names },
};

static void run_test(gconstpointer data)
{
    disk = (void *)-1;
    test_run((void (*)(void))data);
    g_assert_null(disk);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(tests); i++) {
        g_test_add_data_func(tests[i].path, (gconstpointer)tests[i].body, run_test);
    }
    return g_test_run();
}
