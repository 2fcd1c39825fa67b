/* SPDX-License-Identifier: MIT */

/* blkdebug's rules and limits, on a stack made by hand: raw on blkdebug on simdisk. */

#include <bdrv/simdisk.h>
#include <errno.h>
#include <string.h>

#include "tests/lib/test-node.h"

static BdrvSimDisk *disk;

static BdrvChild *coroutine_fn open_debug(const char *options)
{
    return test_must_open("blkdebug", options, test_must_open("simdisk", "disk=d", NULL));
}

static BdrvChild *coroutine_fn open_raw(const char *options)
{
    return test_must_open("raw", "", open_debug(options));
}

static int coroutine_fn read_at(BdrvChild *child, int64_t offset, int64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    return bdrv_co_pread(child, offset, bytes, buf, 0);
}

static int coroutine_fn write_at(BdrvChild *child, int64_t offset, int64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc0(bytes);

    memset(buf, 0x33, bytes);
    return bdrv_co_pwrite(child, offset, bytes, buf, 0);
}

static void coroutine_fn shows_the_image(void)
{
    uint8_t buf[512] = { 1, 2, 3 }, back[512];
    BlockExtent extent;
    BdrvChild *child = open_debug("");

    g_assert_cmpint(bdrv_co_getlength(child), ==, 64 * 1024);
    g_assert_cmpint(bdrv_co_pwrite(child, 100, 512, buf, 0), ==, 0);
    bdrv_simdisk_peek(disk, 100, back, 512);
    g_assert_cmpmem(buf, 512, back, 512);
    g_assert_cmpint(bdrv_co_pread(child, 100, 512, back, 0), ==, 0);
    g_assert_cmpmem(buf, 512, back, 512);
    g_assert_cmpint(bdrv_co_block_status(child, 0, 512, &extent), ==, 0);
    g_assert_cmpint(extent.kind, ==, EXTENT_DATA);
    g_assert_true(bdrv_co_truncate(child, 100000, true, BDRV_PREALLOC_OFF, 0, NULL));
    g_assert_cmpint(bdrv_simdisk_length(disk), ==, 100000);
    g_assert_cmpint(bdrv_co_getlength(child), ==, 100000);
    test_close(child);
}

static void coroutine_fn an_event_arms_rules(void)
{
    BdrvChild *child = open_raw("inject-error.0.event=write_aio,inject-error.0.errno=28");

    g_assert_cmpint(read_at(child, 0, 512), ==, 0);
    g_assert_cmpint(write_at(child, 0, 512), ==, -ENOSPC);
    g_assert_cmpint(read_at(child, 0, 512), ==, -ENOSPC);
    g_assert_cmpint(bdrv_co_pdiscard(child, 0, 512), ==, -ENOSPC);
    test_close(child);
}

static void coroutine_fn the_default_errno_is_eio(void)
{
    BdrvChild *child = open_raw("inject-error.0.event=none");

    g_assert_cmpint(read_at(child, 0, 512), ==, -EIO);
    test_close(child);
}

static void coroutine_fn once_is_once(void)
{
    BdrvChild *child = open_raw("inject-error.0.event=none,inject-error.0.once=on,inject-error.0.sector=3");

    g_assert_cmpint(read_at(child, 0, 1024), ==, 0);
    g_assert_cmpint(read_at(child, 1024, 1024), ==, -EIO);
    g_assert_cmpint(read_at(child, 1024, 1024), ==, 0);
    test_close(child);
}

static void coroutine_fn states_count_writes(void)
{
    BdrvChild *child = open_raw("set-state.0.event=write_aio,set-state.0.state=1,set-state.0.new_state=2,"
                                "set-state.1.event=write_aio,set-state.1.state=2,set-state.1.new_state=3,"
                                "inject-error.0.event=write_aio,inject-error.0.state=3");

    g_assert_cmpint(write_at(child, 0, 512), ==, 0);
    g_assert_cmpint(write_at(child, 0, 512), ==, 0);
    g_assert_cmpint(write_at(child, 0, 512), ==, -EIO);
    test_close(child);
}

static void coroutine_fn kinds_are_told_apart(void)
{
    static const char *const kinds[] = { "read", "write", "write-zeroes", "discard", "flush", "block-status" };

    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        g_autofree char *options =
            g_strdup_printf("inject-error.0.event=none,inject-error.0.once=on,inject-error.0.iotype=%s", kinds[i]);
        BdrvChild *child = open_debug(options);
        BlockExtent extent;
        uint8_t byte = 0;
        const int results[] = {
            bdrv_co_pread(child, 0, 1, &byte, 0),        bdrv_co_pwrite(child, 0, 1, &byte, 0),
            bdrv_co_pwrite_zeroes(child, 0, 512, 0),     bdrv_co_pdiscard(child, 0, 512),
            bdrv_co_flush(child),                        bdrv_co_block_status(child, 0, 512, &extent),
        };

        for (unsigned j = 0; j < G_N_ELEMENTS(results); j++) {
            g_assert_cmpint(results[j], ==, i == j ? -EIO : 0);
        }
        test_close(child);
    }
}

static void coroutine_fn fua_is_a_flush_that_can_fail(void)
{
    BdrvChild *child = open_raw("inject-error.0.event=none,inject-error.0.iotype=flush,inject-error.0.once=on");

    g_assert_cmpint(bdrv_co_pwrite(child, 0, 1, "x", BDRV_REQ_FUA), ==, -EIO);
    g_assert_cmpint(bdrv_co_flush(child), ==, 0); /* tries again */
    g_assert_cmpint(bdrv_co_pwrite(child, 0, 1, "x", BDRV_REQ_FUA), ==, 0);
    test_close(child);
}

static void coroutine_fn note_run(void *opaque)
{
    *(bool *)opaque = true;
}

/* How often of 64 times another coroutine, which is ready, runs before the failure is there. */
static unsigned coroutine_fn count_overtaken(const char *options)
{
    BdrvChild *child = open_debug(options);
    unsigned overtaken = 0;

    for (unsigned i = 0; i < 64; i++) {
        bool other_ran = false;

        test_start(note_run, &other_ran);
        g_assert_cmpint(read_at(child, 0, 512), ==, -EIO);
        overtaken += other_ran;
        while (!other_ran) {
            co_reschedule();
        }
    }
    test_close(child);
    return overtaken;
}

static void coroutine_fn failing_at_once_does_not_yield(void)
{
    g_assert_cmpuint(count_overtaken("inject-error.0.event=none,inject-error.0.immediately=on"), ==, 0);
    g_assert_cmpuint(count_overtaken("inject-error.0.event=none,inject-error.0.immediately=off"), >, 0);
}

static void coroutine_fn copies_are_seen(void)
{
    BdrvSimDisk *other = bdrv_simdisk_new("e", 4096);
    BdrvChild *source = open_raw("inject-error.0.event=none,inject-error.0.iotype=read,inject-error.0.once=on");
    BdrvChild *target = test_must_open("simdisk", "disk=e", NULL);

    g_assert_cmpint(bdrv_co_copy_range(source, 0, target, 0, 4096, 0), ==, -EIO);
    g_assert_cmpint(bdrv_co_copy_range(source, 0, target, 0, 4096, 0), ==, 0);
    test_close(source);
    source = open_raw("inject-error.0.event=none,inject-error.0.iotype=write,inject-error.0.once=on");
    g_assert_cmpint(bdrv_co_copy_range(target, 0, source, 0, 4096, 0), ==, -EIO);
    g_assert_cmpint(bdrv_co_copy_range(target, 0, source, 0, 4096, 0), ==, 0);
    test_close(source);
    test_close(target);
    bdrv_simdisk_unref(other);
}

static void coroutine_fn limits_are_kept(void)
{
    BdrvChild *child = open_debug("align=1024,max-transfer=2k,opt-write-zero=2k,max-write-zero=4k,opt-discard=2k,max-discard=8k");
    const BdrvLimits *limits = &child->bs->limits;

    g_assert_cmpuint(limits->request_alignment, ==, 1024);
    g_assert_cmpint(limits->max_transfer, ==, 2048);
    g_assert_cmpint(limits->pwrite_zeroes_alignment, ==, 2048);
    g_assert_cmpint(limits->max_pwrite_zeroes, ==, 4096);
    g_assert_cmpint(limits->pdiscard_alignment, ==, 2048);
    g_assert_cmpint(limits->max_pdiscard, ==, 8192);
    test_close(child);
}

static void coroutine_fn wrong_options(void)
{
    static const char *const table[] = {
        "align=3", "align=128k", "align=1024,max-transfer=512", "opt-write-zero=4k,max-write-zero=6k", "max-discard=2G",
        "inject-error.0.event=foo", "inject-error.0.errno=5", "inject-error.0.event=none,inject-error.0.errno=-5",
        "inject-error.0.event=none,inject-error.0.sector=-2", "inject-error.0.event=none,inject-error.0.state=4294967297",
        "inject-error.0.event=none,inject-error.0.iotype=foo", "inject-error.1.event=none", "inject-error=none",
        "inject-error.0.event=none,inject-error.2.event=none", "set-state.0.event=none,set-state.0.once=on",
        "set-state.0.event=none,set-state.0.new_state=4294967297", "config=/nonexistent", "nonsense=1",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(table); i++) {
        BdrvChild *file = test_must_open("simdisk", "disk=d", NULL);
        GError *error = NULL;

        g_assert_null(test_open("blkdebug", table[i], file, BDRV_O_RDWR, &error));
        g_assert_nonnull(error);
        g_assert_cmpint(error->code, ==, strstr(table[i], "config") ? ENOENT : EINVAL);
        g_clear_error(&error);
        test_close(file);
    }
}

static void run_test(gconstpointer data)
{
    disk = bdrv_simdisk_new("d", 64 * 1024);
    test_run((void (*)(void))data);
    g_clear_pointer(&disk, bdrv_simdisk_unref);
    g_assert_null(bdrv_simdisk_find("d")); /* all nodes were closed */
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*body)(void);
    } tests[] = {
        { "without rules the image is shown as it is", shows_the_image },
        { "an event arms its rules for requests of any kind", an_event_arms_rules },
        { "the errno is EIO if none is given", the_default_errno_is_eio },
        { "a rule for one failure is over after it", once_is_once },
        { "states single out the third write", states_count_writes },
        { "a rule can be for one kind of request", kinds_are_told_apart },
        { "FUA is a flush that can fail", fua_is_a_flush_that_can_fail },
        { "immediately fails without yielding", failing_at_once_does_not_yield },
        { "copies are reads and writes to the rules", copies_are_seen },
        { "limits are those of the options", limits_are_kept },
        { "wrong options are refused", wrong_options },
    };

    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(tests); i++) {
        g_autofree char *path = g_strdup_printf("/blkdebug/engine/%s", tests[i].name);

        g_test_add_data_func(path, (gconstpointer)tests[i].body, run_test);
    }
    return g_test_run();
}
