/* SPDX-License-Identifier: MIT */

/* What blklogwrites leaves in the log, byte for byte, on simulated disks. */

#include <bdrv/log-writes.h>
#include <bdrv/simdisk.h>
#include <errno.h>
#include <string.h>

#include "tests/lib/test-node.h"

#define BYTES (64 * 1024)
#define NODE "driver=blklogwrites,file.driver=simdisk,file.disk=d,log.driver=simdisk,log.disk=l"

typedef struct Stand {
    BdrvGraph *graph;
    BdrvSimDisk *disk, *log;
    BlockBackend *blk;
} Stand;

static void reopen(Stand *s, const char *more, BdrvOpenFlags flags)
{
    g_autofree char *text = g_strconcat(NODE, more, NULL);
    GError *error = NULL;

    s->blk = blk_open(s->graph, NULL, bdrv_options_parse(text, NULL, NULL), flags, &error);
    g_assert_no_error(error);
}

static Stand stand_new(const char *more)
{
    Stand s = { .graph = bdrv_graph_new(),
                .disk = bdrv_simdisk_new("d", BYTES),
                .log = bdrv_simdisk_new("l", 0) };

    reopen(&s, more, BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_UNMAP);
    return s;
}

static void stand_free(Stand *s)
{
    GError *error = NULL;

    blk_close(s->blk, &error);
    g_assert_no_error(error);
    bdrv_simdisk_unref(s->disk);
    bdrv_simdisk_unref(s->log);
    bdrv_graph_unref(s->graph);
}

static void write_at(const Stand *s, int64_t offset, int64_t bytes, int byte, BdrvRequestFlags flags)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    memset(buf, byte, bytes);
    g_assert_cmpint(blk_pwrite(s->blk, offset, bytes, buf, flags), ==, 0);
}

static BdrvLogSuper super_of(BdrvSimDisk *log)
{
    BdrvLogSuper super;

    bdrv_simdisk_peek(log, 0, &super, sizeof(super));
    return super;
}

static void assert_super(BdrvSimDisk *log, uint64_t entries, uint32_t sector_size)
{
    BdrvLogSuper super = super_of(log);

    g_assert_cmphex(GUINT64_FROM_LE(super.magic), ==, BDRV_LOG_MAGIC);
    g_assert_cmpuint(GUINT64_FROM_LE(super.version), ==, 1);
    g_assert_cmpuint(GUINT64_FROM_LE(super.nr_entries), ==, entries);
    g_assert_cmpuint(GUINT32_FROM_LE(super.sectorsize), ==, sector_size);
}

/* All entries of the log as text, "W8+1:61" for a write of one sector at 8 with bytes of 0x61. */
static char *log_text(BdrvSimDisk *log)
{
    BdrvLogSuper super = super_of(log);
    int64_t unit = GUINT32_FROM_LE(super.sectorsize), at = unit;
    GString *text = g_string_new("");

    for (uint64_t i = 0; i < GUINT64_FROM_LE(super.nr_entries); i++) {
        BdrvLogEntry entry;
        BdrvLogItem item;

        bdrv_simdisk_peek(log, at, &entry, sizeof(entry));
        g_assert_true(bdrv_log_decode_entry(&entry, unit, bdrv_simdisk_length(log) - at - unit, &item, NULL));
        g_string_append_printf(text, "%s%s", i ? " " : "", item.flags & BDRV_LOG_FLUSH ? "F" : "");
        if (item.bytes) {
            g_string_append_printf(text, "%s%" G_GINT64_FORMAT "+%" G_GINT64_FORMAT,
                                   item.flags & BDRV_LOG_DISCARD ? "D" : "W", item.offset / unit, item.bytes / unit);
        }
        if (item.data_bytes) {
            g_autofree uint8_t *data = g_malloc(item.data_bytes);

            bdrv_simdisk_peek(log, at + unit, data, item.data_bytes);
            for (int64_t n = 1; n < item.data_bytes; n++) {
                g_assert_cmphex(data[n], ==, data[0]);
            }
            g_string_append_printf(text, ":%02x", data[0]);
        }
        g_string_append(text, item.flags & BDRV_LOG_FUA ? "!" : "");
        at += unit + item.data_bytes;
    }
    return g_string_free(text, FALSE);
}

static void assert_log(const Stand *s, const char *expected)
{
    g_autofree char *text = log_text(s->log);

    g_assert_cmpstr(text, ==, expected);
}

static void test_entries(void)
{
    Stand s = stand_new("");

    g_assert_cmpint(bdrv_simdisk_length(s.log), ==, 0); /* opening writes nothing */
    write_at(&s, 512, 1024, 0x61, 0);
    g_assert_cmpint(blk_pwrite_zeroes(s.blk, 4096, 512, 0), ==, 0);
    g_assert_cmpint(blk_pdiscard(s.blk, 8192, 4096), ==, 0);
    write_at(&s, 0, 512, 0x62, BDRV_REQ_FUA);
    g_assert_cmpint(blk_flush(s.blk), ==, 0);
    assert_super(s.log, 5, 512);
    assert_log(&s, "W1+2:61 W8+1:00 D16+8 W0+1:62! F");
    g_assert_cmpint(bdrv_simdisk_length(s.log), ==, 512 * (1 + 3 + 2 + 1 + 2 + 1));
    g_assert_cmpint(blk_flush(s.blk), ==, 0); /* nothing to do: no entry */
    assert_super(s.log, 5, 512);
    stand_free(&s);
}

static void test_sector_size(void)
{
    Stand s = stand_new(",log-sector-size=4k");

    write_at(&s, 4096, 8192, 0x61, 0);
    g_assert_cmpint(blk_pwrite_zeroes(s.blk, 5000, 10, 0), ==, 0); /* the whole sector is written again */
    g_assert_cmpint(blk_pwrite_zeroes(s.blk, 8192, 4096, 0), ==, 0);
    g_assert_cmpint(blk_flush(s.blk), ==, 0);
    assert_super(s.log, 4, 4096);
    g_assert_cmpint(bdrv_simdisk_length(s.log), ==, 4096 * (1 + 3 + 2 + 2 + 1));
    stand_free(&s);
}

static void test_super_interval(void)
{
    Stand s = stand_new(",log-super-update-interval=3");

    write_at(&s, 0, 512, 1, 0);
    assert_super(s.log, 0, 512); /* so that one of an older log tells of nothing */
    write_at(&s, 0, 512, 2, 0);
    assert_super(s.log, 0, 512);
    write_at(&s, 0, 512, 3, 0);
    assert_super(s.log, 3, 512);
    write_at(&s, 0, 512, 4, 0);
    assert_super(s.log, 3, 512);
    g_assert_cmpint(blk_flush(s.blk), ==, 0);
    assert_super(s.log, 5, 512);
    stand_free(&s);
}

static void test_append(void)
{
    Stand s = stand_new(",log-append=on"); /* an empty log is begun */

    write_at(&s, 0, 512, 1, 0);
    blk_close(s.blk, NULL);
    assert_log(&s, "W0+1:01 F");
    reopen(&s, ",log-append=on", BDRV_O_RDWR);
    write_at(&s, 512, 512, 2, 0);
    blk_close(s.blk, NULL);
    assert_log(&s, "W0+1:01 F W1+1:02 F");
    reopen(&s, ",log-append=on", 0);
    blk_close(s.blk, NULL);
    assert_log(&s, "W0+1:01 F W1+1:02 F");
    reopen(&s, "", BDRV_O_RDWR); /* begins a new one */
    write_at(&s, 1024, 512, 3, 0);
    blk_close(s.blk, NULL);
    assert_log(&s, "W2+1:03 F");
    s.blk = NULL;
    stand_free(&s);
}

static void test_log_full(void)
{
    Stand s = stand_new("");
    uint8_t buf[512] = { 9 }, found[512];

    write_at(&s, 0, 512, 1, 0);
    bdrv_simdisk_fail(s.log, BDRV_SIM_WRITE, 1, 1, ENOSPC);
    g_assert_cmpint(blk_pwrite(s.blk, 512, 512, buf, 0), ==, -ENOSPC);
    bdrv_simdisk_peek(s.disk, 512, found, 512);
    g_assert_cmpmem(found, 512, buf, 512); /* old or new, as after any failed write: on disk it is new */
    write_at(&s, 1024, 512, 3, 0); /* takes the place in the log */
    g_assert_cmpint(blk_flush(s.blk), ==, 0);
    assert_log(&s, "W0+1:01 W2+1:03 F");
    stand_free(&s);
}

static void test_flush_fails(void)
{
    static const struct {
        bool in_log;
        BdrvSimKind kind;
    } cases[] = { { false, BDRV_SIM_FLUSH }, { true, BDRV_SIM_WRITE }, { true, BDRV_SIM_FLUSH } };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        Stand s = stand_new("");

        write_at(&s, 0, 512, 1, 0);
        bdrv_simdisk_fail(cases[i].in_log ? s.log : s.disk, cases[i].kind, 1, 1, EIO);
        g_assert_cmpint(blk_flush(s.blk), ==, -EIO);
        if (!cases[i].in_log) {
            assert_super(s.log, 0, 512); /* what was not durable is not told to be */
        }
        g_assert_cmpint(blk_flush(s.blk), ==, 0);
        assert_log(&s, cases[i].kind == BDRV_SIM_FLUSH && cases[i].in_log ? "W0+1:01 F F" : "W0+1:01 F");
        stand_free(&s);
    }
}

static void test_disk_fails(void)
{
    Stand s = stand_new("");
    uint8_t buf[512] = { 9 };

    write_at(&s, 0, 512, 1, 0);
    bdrv_simdisk_fail(s.disk, BDRV_SIM_WRITE | BDRV_SIM_ZERO | BDRV_SIM_DISCARD, 1, 3, EIO);
    g_assert_cmpint(blk_pwrite(s.blk, 512, 512, buf, 0), ==, -EIO);
    g_assert_cmpint(blk_pwrite_zeroes(s.blk, 512, 512, 0), ==, -EIO);
    g_assert_cmpint(blk_pdiscard(s.blk, 512, 512), ==, -EIO);
    g_assert_cmpint(blk_flush(s.blk), ==, 0);
    assert_log(&s, "W0+1:01 F");
    stand_free(&s);
}

static void test_resize_and_copy(void)
{
    Stand s = stand_new("");
    g_autoptr(BdrvSimDisk) other = bdrv_simdisk_new("c", BYTES);
    BlockBackend *from = blk_open(s.graph, NULL, bdrv_options_parse("driver=simdisk,disk=c", NULL, NULL), 0, NULL);
    uint8_t buf[512];

    memset(buf, 0x63, sizeof(buf));
    bdrv_simdisk_poke(other, 0, buf, sizeof(buf));
    g_assert_true(blk_truncate(s.blk, BYTES - 1024, true, BDRV_PREALLOC_OFF, 0, NULL));
    g_assert_true(blk_truncate(s.blk, BYTES, true, BDRV_PREALLOC_OFF, 0, NULL));
    g_assert_cmpint(blk_copy_range(from, 0, s.blk, 1024, 512, 0), ==, 0);
    g_assert_cmpint(blk_flush(s.blk), ==, 0);
    assert_log(&s, "D126+2 W2+1:63 F");
    g_assert_true(blk_close(from, NULL));
    stand_free(&s);
}

/* ---- the order of entries ---- */

static BlockBackend *ordered;
static unsigned ordered_left;

static void coroutine_fn flush_entry(void *opaque)
{
    g_assert_cmpint(blk_co_flush(ordered), ==, 0);
    ordered_left--;
}

static void coroutine_fn write_entry(void *opaque)
{
    uint8_t buf[512];

    memset(buf, 2, sizeof(buf));
    g_assert_cmpint(blk_co_pwrite(ordered, 512, 512, buf, 0), ==, 0);
    ordered_left--;
}

static void coroutine_fn order_body(void)
{
    BdrvGraph *graph = bdrv_graph_new();
    BdrvSimDisk *disk = bdrv_simdisk_find("d");
    uint8_t buf[512] = { 0 };

    ordered = blk_co_open(graph, NULL, bdrv_options_parse(NODE, NULL, NULL), BDRV_O_RDWR, NULL);
    g_assert_nonnull(ordered);
    memset(buf, 1, sizeof(buf));
    g_assert_cmpint(blk_co_pwrite(ordered, 0, 512, buf, 0), ==, 0);
    /* A flush that takes long; a write begins after it and is on disk before it ends. */
    ordered_left = 2;
    bdrv_simdisk_set_delay(disk, 10000000, 10000000);
    test_start(flush_entry, NULL);
    co_sleep_until(aio_clock_ns(aio_context_current()) + 1000000);
    bdrv_simdisk_set_delay(disk, 0, 0);
    test_start(write_entry, NULL);
    while (ordered_left) {
        co_sleep_until(aio_clock_ns(aio_context_current()) + 1000000);
    }
    g_assert_true(blk_co_close(ordered, NULL));
    bdrv_graph_unref(graph);
    bdrv_simdisk_unref(disk);
}

static void test_order(void)
{
    Stand s = { .disk = bdrv_simdisk_new("d", BYTES), .log = bdrv_simdisk_new("l", 0) };

    test_run(order_body);
    assert_log(&s, "W0+1:01 F W1+1:02 F");
    bdrv_simdisk_unref(s.disk);
    bdrv_simdisk_unref(s.log);
}

/* ---- what is refused ---- */

static void refused(const char *more, const char *said)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    g_autofree char *text = g_strconcat(NODE, more, NULL);
    GError *error = NULL;

    g_assert_null(blk_open(graph, NULL, bdrv_options_parse(text, NULL, NULL), BDRV_O_RDWR, &error));
    g_assert_error(error, BDRV_ERROR, EINVAL);
    g_test_message("%s", error->message);
    g_assert_nonnull(strstr(error->message, said));
    g_error_free(error);
}

static void test_options(void)
{
    g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_new("d", BYTES), log = bdrv_simdisk_new("l", 0);

    refused(",log-sector-size=0", "Invalid log sector size 0");
    refused(",log-sector-size=16", "Invalid log sector size 16");
    refused(",log-sector-size=513", "Invalid log sector size 513");
    refused(",log-sector-size=128k", "Invalid log sector size 131072");
    refused(",log-append=on,log-sector-size=512", "mutually exclusive");
    refused(",log-super-update-interval=0", "update interval 0");
    refused(",log-super-update-interval=-5", "update interval -5");
}

/* A good log of one write and one flush, and what can be wrong with it. */
static void test_hostile_logs(void)
{
    static const struct {
        int64_t at;
        uint64_t value;
        const char *said;
    } cases[] = {
        { 0, 1, "Invalid log superblock magic 0x1" },
        { 8, 2, "Unsupported log version 2" },
        { 24, 513, "Invalid log sector size 513" },
        { 24, 1 << 24, "Invalid log sector size 16777216" },
        { 16, 3, "log entry 2 of 3 at 2048: 0 sectors of data pass the end of the log" },
        { 16, UINT64_MAX, "log entry 2 of 18446744073709551615" },
        { 512, UINT64_MAX, "log entry 0 of 2 at 512: 1 sectors at 18446744073709551615" },
        { 520, 100, "log entry 0 of 2 at 512: 100 sectors of data pass the end of the log, 1024 bytes" },
        { 520, INT64_MAX, "more than a disk can have" },
        { 528, 16, "unknown flags 0x10" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        Stand s = stand_new("");
        uint64_t value = GUINT64_TO_LE(cases[i].value);

        write_at(&s, 0, 512, 1, 0);
        blk_close(s.blk, NULL);
        s.blk = NULL;
        bdrv_simdisk_poke(s.log, cases[i].at, &value, cases[i].at == 24 ? 4 : 8);
        refused(",log-append=on", cases[i].said);
        stand_free(&s);
    }
}

static void test_read_only(void)
{
    Stand s = { .graph = bdrv_graph_new(),
                .disk = bdrv_simdisk_new("d", BYTES),
                .log = bdrv_simdisk_new("l", 0) };
    uint8_t buf[512];

    reopen(&s, "", 0);
    g_assert_cmpint(blk_pread(s.blk, 0, 512, buf, 0), ==, 0);
    g_assert_true(blk_reopen(s.blk, NULL, BDRV_O_RDWR, NULL));
    write_at(&s, 0, 512, 1, 0);
    g_assert_true(blk_reopen(s.blk, NULL, 0, NULL));
    assert_super(s.log, 1 + bdrv_simdisk_count(s.disk, BDRV_SIM_FLUSH), 512);
    stand_free(&s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/blklogwrites/each change and flush is an entry", test_entries);
    g_test_add_func("/blklogwrites/the unit of the log is chosen", test_sector_size);
    g_test_add_func("/blklogwrites/the super block follows by interval and flush", test_super_interval);
    g_test_add_func("/blklogwrites/a log is gone on with or begun anew", test_append);
    g_test_add_func("/blklogwrites/an entry that cannot be written leaves no hole", test_log_full);
    g_test_add_func("/blklogwrites/a flush that fails is not logged", test_flush_fails);
    g_test_add_func("/blklogwrites/a change that fails is not logged", test_disk_fails);
    g_test_add_func("/blklogwrites/what is cut off and what is copied is logged", test_resize_and_copy);
    g_test_add_func("/blklogwrites/what completes during a flush is logged behind it", test_order);
    g_test_add_func("/blklogwrites/wrong options are refused", test_options);
    g_test_add_func("/blklogwrites/a log that cannot be is not gone on with", test_hostile_logs);
    g_test_add_func("/blklogwrites/read-only it leaves the log alone", test_read_only);
    return g_test_run();
}
