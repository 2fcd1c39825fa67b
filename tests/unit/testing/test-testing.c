/* SPDX-License-Identifier: MIT */
/* <bdrv/testing.h>: stacks from strings, faults, and assertions that tell what is wrong. */

#include <bdrv/testing.h>

#define KIB 1024
#define QCOW2 "qcow2(size=1M,cluster_size=4k):blkdebug:simdisk"

/* ---- stacks ---- */

static void test_made(void)
{
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new(QCOW2);
    g_autofree char *tree = bdrv_graph_to_text(stack->graph);
    BdrvInfo info;

    g_assert_cmpstr(blk_driver(stack->blk), ==, "qcow2");
    g_assert_cmpint(blk_length(stack->blk), ==, KIB * KIB);
    bdrv_test_assert_ok(blk_get_info(stack->blk, &info));
    g_assert_cmpint(info.cluster_size, ==, 4 * KIB);
    g_assert_nonnull(strstr(tree, "blkdebug"));
    g_assert_nonnull(strstr(tree, "simdisk"));
    g_assert_false(blk_is_read_only(stack->blk));
    bdrv_test_assert_zero(stack, 0, KIB * KIB);
}

/* As the head of the header has it. */
static void test_example(void)
{
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new("qcow2(size=64M,cluster_size=4k):blkdebug:simdisk");

    bdrv_test_write_pattern(stack, 0, 65536, 0x61);
    bdrv_test_assert_ok(blk_flush(stack->blk));
    bdrv_test_inject_nth(stack, BDRV_SIM_WRITE, 1, EIO);
    bdrv_test_assert_fails(blk_pwrite(stack->blk, 1048576, 4, "lost", BDRV_REQ_FUA), EIO);
    bdrv_test_power_loss(stack, 0);
    bdrv_test_assert_pattern(stack, 0, 65536, 0x61);
    bdrv_test_assert_check_sound(stack);
}

static void test_disk_alone(void)
{
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new("raw[offset=1k]:simdisk(size=64k)");

    g_assert_cmpint(bdrv_simdisk_length(stack->disk), ==, 64 * KIB);
    g_assert_cmpint(blk_length(stack->blk), ==, 63 * KIB);
    bdrv_simdisk_poke(stack->disk, 1024, "there", 5);
    bdrv_test_assert_read(stack, 0, 5, "there");
}

static void test_no_disk(void)
{
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new("null-co[size=1M,read-zeroes=on]");

    g_assert_null(stack->disk);
    bdrv_test_assert_zero(stack, 0, KIB * KIB);
}

static void test_two_stacks(void)
{
    g_autoptr(BdrvTestStack) one = bdrv_test_stack_new(QCOW2);
    g_autoptr(BdrvTestStack) other = bdrv_test_stack_new(QCOW2);

    bdrv_test_write_pattern(one, 0, 512, 1);
    bdrv_test_write_pattern(other, 0, 512, 2);
    bdrv_test_assert_pattern(one, 0, 512, 1);
    bdrv_test_assert_pattern(other, 0, 512, 2);
}

static void test_secret(void)
{
    g_autoptr(BdrvTestStack) stack =
        bdrv_test_stack_new("luks(size=64k,key-secret=test,iter-time=10)[key-secret=test]:blkdebug:simdisk");

    bdrv_test_write_pattern(stack, 0, 4 * KIB, 7);
    bdrv_test_reopen(stack);
    bdrv_test_assert_pattern(stack, 0, 4 * KIB, 7);
}

static void test_named_disk(void)
{
    g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_new("mine", 0);
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new("vdi(size=1M):simdisk[disk=mine]");

    g_assert_true(stack->disk == disk);
    bdrv_test_write_pattern(stack, 0, 512, 1);
    g_assert_cmpint(bdrv_simdisk_count(disk, BDRV_SIM_WRITE), >, 0);
}

static void test_verified(void)
{
    g_autoptr(BdrvSimDisk) copy = bdrv_simdisk_new("copy", 64 * KIB);
    g_autoptr(BdrvTestStack) stack =
        bdrv_test_stack_new("blkverify[raw.driver=simdisk,raw.disk=copy]:raw:simdisk(size=64k)");

    uint8_t byte = 0;

    bdrv_test_write_pattern(stack, 512, 512, 3);
    bdrv_simdisk_peek(copy, 1023, &byte, 1);
    g_assert_cmpuint(byte, ==, 3);
    bdrv_simdisk_peek(stack->disk, 1023, &byte, 1);
    g_assert_cmpuint(byte, ==, 3);
}

static void test_set_up_between(void)
{
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_make("qcow2:simdisk");
    g_autoptr(GError) error = NULL;

    bdrv_simdisk_poke(stack->disk, 0, "QFI", 3);
    g_assert_false(bdrv_test_stack_try_open(stack, BDRV_O_RDWR, &error));
    g_assert_nonnull(error);
    g_assert_null(stack->blk);
}

static void test_flags(void)
{
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_make("qcow2(size=1M):simdisk");

    bdrv_test_stack_open(stack, (BdrvOpenFlags)0);
    bdrv_test_assert_fails(blk_pwrite(stack->blk, 0, 1, "x", 0), EPERM);
    bdrv_test_reopen(stack);
    g_assert_true(blk_is_read_only(stack->blk));
}

/* ---- faults ---- */

static void test_reopened(void)
{
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new(QCOW2);

    bdrv_test_write_pattern(stack, 4 * KIB, 8 * KIB, 0x61);
    bdrv_test_reopen(stack);
    bdrv_test_assert_zero(stack, 0, 4 * KIB);
    bdrv_test_assert_pattern(stack, 4 * KIB, 8 * KIB, 0x61);
    bdrv_test_assert_check_clean(stack);
}

static void test_nth(void)
{
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new("raw:simdisk(size=64k)");

    bdrv_test_inject_nth(stack, BDRV_SIM_WRITE, 2, ENOSPC);
    bdrv_test_write_pattern(stack, 0, 512, 1);
    bdrv_test_assert_fails(blk_pwrite(stack->blk, 512, 4, "lost", 0), ENOSPC);
    bdrv_test_write_pattern(stack, 512, 512, 2);
    bdrv_test_inject_nth(stack, BDRV_SIM_FLUSH, 1, EIO);
    bdrv_test_assert_fails(blk_flush(stack->blk), EIO);
    bdrv_test_inject_nth(stack, BDRV_SIM_ANY, 1, EIO);
    bdrv_test_inject_none(stack);
    bdrv_test_assert_ok(blk_flush(stack->blk));
}

static void test_event(void)
{
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new("raw:blkdebug:simdisk(size=64k)");

    for (unsigned nth = 1; nth <= 3; nth++) {
        bdrv_test_inject_event(stack, "write_aio", nth, ENOSPC);
        for (unsigned i = 1; i <= 4; i++) {
            bdrv_test_expect_result(BDRV_TEST_HERE, "write", blk_pwrite(stack->blk, 0, 1, "x", 0), i == nth ? ENOSPC : 0);
        }
    }
    bdrv_test_inject_event(stack, "write_aio", 1, EIO);
    bdrv_test_inject_none(stack);
    bdrv_test_write_pattern(stack, 0, 512, 1);
}

static void test_event_below_a_format(void)
{
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new(QCOW2);

    bdrv_test_write_pattern(stack, 0, 4 * KIB, 1);
    bdrv_test_inject_event(stack, "l2_load", 1, EIO);
    bdrv_test_assert_fails(blk_pread(stack->blk, 0, 4, (char[4]){ 0 }, 0), EIO);
    bdrv_test_assert_pattern(stack, 0, 4 * KIB, 1);
}

static void test_power_loss(void)
{
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new(QCOW2);

    bdrv_test_write_pattern(stack, 0, 8 * KIB, 1);
    bdrv_test_assert_ok(blk_flush(stack->blk));
    bdrv_test_write_pattern(stack, 8 * KIB, 4 * KIB, 2);
    bdrv_test_power_loss(stack, 0);
    bdrv_test_assert_pattern(stack, 0, 8 * KIB, 1);
    bdrv_test_assert_zero(stack, 8 * KIB, 4 * KIB);
    bdrv_test_assert_check_sound(stack);
    bdrv_test_write_pattern(stack, 8 * KIB, 4 * KIB, 3);
    bdrv_test_reopen(stack);
    bdrv_test_assert_pattern(stack, 8 * KIB, 4 * KIB, 3);
}

static void test_power_loss_is_drawn(void)
{
    unsigned kept = 0;

    for (uint64_t seed = 1; seed <= 32; seed++) {
        g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new("raw:simdisk(size=64k)");
        uint8_t byte;

        bdrv_test_write_pattern(stack, 0, 512, 1);
        bdrv_test_power_loss(stack, seed);
        bdrv_test_assert_ok(blk_pread(stack->blk, 0, 1, &byte, 0));
        kept += byte;
    }
    g_assert_cmpuint(kept, >, 0);
    g_assert_cmpuint(kept, <, 32);
}

static void test_power_loss_ends_faults(void)
{
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new(QCOW2);

    bdrv_test_inject_event(stack, "write_aio", 1, EIO);
    bdrv_simdisk_fail(stack->disk, BDRV_SIM_ANY, 1, -1, EIO);
    bdrv_test_power_loss(stack, 0);
    bdrv_test_write_pattern(stack, 0, 4 * KIB, 1);
}

/* ---- assertions that fail ---- */

static void fail_pattern(void)
{
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new("raw:simdisk(size=256k)");

    bdrv_test_write_pattern(stack, 0, 128 * KIB, 0x61);
    bdrv_test_write_pattern(stack, 100000, 3, 0x62);
    bdrv_test_assert_pattern(stack, 0, 128 * KIB, 0x61);
}

static void fail_zero(void)
{
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new("raw:simdisk(size=64k)");

    bdrv_test_write_pattern(stack, 512, 1, 0xff);
    bdrv_test_assert_zero(stack, 0, 4 * KIB);
}

static void fail_read(void)
{
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new("raw:simdisk(size=64k)");

    bdrv_test_assert_read(stack, 4096, 2, "\0b");
}

static void fail_beyond(void)
{
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new("raw:simdisk(size=64k)");

    bdrv_test_assert_zero(stack, 65536, 512);
}

static void fail_write(void)
{
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new("raw:simdisk(size=64k)");

    bdrv_test_inject_nth(stack, BDRV_SIM_WRITE, 1, ENOSPC);
    bdrv_test_write_pattern(stack, 1024, 512, 1);
}

static void fail_ok(void)
{
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new("raw:simdisk(size=64k)");

    bdrv_test_inject_nth(stack, BDRV_SIM_FLUSH, 1, EIO);
    bdrv_test_assert_ok(blk_flush(stack->blk));
}

static void fail_fails(void)
{
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new("raw:simdisk(size=64k)");

    bdrv_test_assert_fails(blk_flush(stack->blk), EIO);
}

static void fail_other_error(void)
{
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new("raw:simdisk(size=64k)");

    bdrv_test_inject_nth(stack, BDRV_SIM_FLUSH, 1, ENOSPC);
    bdrv_test_assert_fails(blk_flush(stack->blk), EIO);
}

/* The reference table's first entry, at the second cluster, is emptied. */
static void fail_check(void)
{
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new(QCOW2);

    bdrv_test_write_pattern(stack, 0, 4 * KIB, 1);
    bdrv_test_stack_close(stack);
    bdrv_simdisk_poke(stack->disk, 2 * 4 * KIB, "\0\0", 2);
    bdrv_test_stack_open(stack, (BdrvOpenFlags)(BDRV_O_RDWR | BDRV_O_CHECK));
    bdrv_test_assert_check_clean(stack);
}

static void fail_no_check(void)
{
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new("raw:simdisk(size=64k)");

    bdrv_test_assert_check_clean(stack);
}

static void fail_close(void)
{
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new(QCOW2);

    bdrv_test_write_pattern(stack, 0, 4 * KIB, 1);
    bdrv_simdisk_fail(stack->disk, BDRV_SIM_FLUSH, 1, -1, EIO);
}

static void fail_node(void)
{
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new("raw:simdisk(size=64k)");

    blk_open(stack->graph, NULL, bdrv_options_parse("driver=null-co,node-name=forgotten", NULL, NULL), 0, NULL);
}

static void fail_disk(void)
{
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new("raw:simdisk(size=64k)");

    bdrv_simdisk_find(stack->disk_name);
}

static void fail_events(void)
{
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new("raw:simdisk(size=64k)");

    bdrv_test_inject_event(stack, "write_aio", 1, EIO);
}

static void fail_event_name(void)
{
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new("raw:blkdebug:simdisk(size=64k)");

    bdrv_test_inject_event(stack, "write_oia", 1, EIO);
}

static void fail_power_loss(void)
{
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new("null-co[size=1M]");

    bdrv_test_power_loss(stack, 0);
}

static void fail_nth(void)
{
    g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new("null-co[size=1M]");

    bdrv_test_inject_nth(stack, BDRV_SIM_WRITE, 1, EIO);
}

/* The name of each is its program's path; @message is a pattern for standard error. */
static const struct {
    const char *name;
    void (*run)(void);
    const char *message;
} failing[] = {
    { "a byte in a pattern", fail_pattern,
      "*test-testing.c*fail_pattern*at offset 100000: expected 0x61, found 0x62; of the bytes up to 100002, 3 differ*" },
    { "a byte among zeroes", fail_zero, "*at offset 512: expected 0x00, found 0xff; of the bytes up to 512, 1 differ*" },
    { "a byte of a buffer", fail_read, "*at offset 4097: expected 0x62, found 0x00; *" },
    { "a read that fails", fail_beyond, "*fail_beyond*reading 512 bytes at offset 65536: Input/output error*" },
    { "a write that fails", fail_write, "*fail_write*writing 512 bytes at offset 1024: No space left on device*" },
    { "an error", fail_ok, "*fail_ok*blk_flush(stack->blk): expected success (0), found Input/output error (-5)*" },
    { "no error", fail_fails, "*blk_flush(stack->blk): expected Input/output error (-5), found success (0)*" },
    { "another error", fail_other_error, "*expected Input/output error (-5), found No space left on device (-28)*" },
    { "what a check finds", fail_check, "*fail_check*the image is not clean: * corruptions, *refcount*" },
    { "a format without a check", fail_no_check, "*fail_no_check*checking the image: *" },
    { "a close that fails", fail_close, "*closing the stack: *Input/output error*" },
    { "a node that is left", fail_node, "*these nodes are still open*forgotten*" },
    { "a disk that is kept", fail_disk, "*somebody has a reference to its disk*" },
    { "events that nobody notices", fail_events, "*'raw:simdisk(size=64k)' has no layer 'blkdebug'*" },
    { "an event that there is not", fail_event_name, "*there is no event 'write_oia'*write_aio*" },
    { "a power loss of no disk", fail_power_loss, "*has no simdisk that could lose its power*" },
    { "a fault of no disk", fail_nth, "*has no simdisk that could fail*" },
};

static void test_failing(gconstpointer data)
{
    unsigned n = GPOINTER_TO_UINT(data);

    if (g_test_subprocess()) {
        failing[n].run();
        return;
    }
    g_test_trap_subprocess(NULL, 0, (GTestSubprocessFlags)0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr(failing[n].message);
}

/* ---- strings that are wrong ---- */

static const struct {
    const char *text, *message;
} wrong[] = {
    { "qcow3(size=1M):simdisk", "*there is no driver 'qcow3'*" },
    { "", "*there is no driver ''*" },
    { "raw:", "*there is no driver ''*" },
    { "qcow2(size=1M:simdisk", "*no ')' ends '(size=1M:simdisk'*" },
    { "raw[offset=(1k]:simdisk", "*offset*" },
    { "raw[size=1M:simdisk", "*no ']' ends*" },
    { "raw[]size:simdisk", "*'size:simdisk' is not DRIVER(CREATE OPTIONS)[OPEN OPTIONS]*" },
    { "qcow2(size=1M,nonsense=1):simdisk", "*nonsense*" },
    { "raw:simdisk(sise=1M)", "*driver 'simdisk'*sise*" },
    { "raw:simdisk(size=all)", "*size*all*" },
    { "qcow2(size=1M):luks(size=2M):simdisk", "*'luks' cannot be created here: one layer of a stack can*" },
    { "qcow2(size=1M):null-co", "*'qcow2' cannot be created here: the lowest layer is no simdisk*" },
    { "raw:simdisk[disk=nowhere]", "*the disk 'nowhere' is not in memory*" },
    { "qcow2:simdisk", "*qcow2:simdisk: *0 bytes are too short for a qcow2 header*" },
};

static void test_wrong(gconstpointer data)
{
    unsigned n = GPOINTER_TO_UINT(data);

    if (g_test_subprocess()) {
        bdrv_test_stack_free(bdrv_test_stack_new(wrong[n].text));
        return;
    }
    g_test_trap_subprocess(NULL, 0, (GTestSubprocessFlags)0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr(wrong[n].message);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/testing/a stack is made and opened as its string says", test_made);
    g_test_add_func("/testing/the example of the header works", test_example);
    g_test_add_func("/testing/a disk without a format has a size", test_disk_alone);
    g_test_add_func("/testing/a stack may end without a disk", test_no_disk);
    g_test_add_func("/testing/two stacks have nothing in common", test_two_stacks);
    g_test_add_func("/testing/encrypted images find the secret", test_secret);
    g_test_add_func("/testing/a disk of the test's own is used by its name", test_named_disk);
    g_test_add_func("/testing/a layer below blkverify is the one under test", test_verified);
    g_test_add_func("/testing/a stack is set up before it is opened", test_set_up_between);
    g_test_add_func("/testing/flags of the test's own stay", test_flags);
    g_test_add_func("/testing/what was written is there after a reopen", test_reopened);
    g_test_add_func("/testing/the n-th call fails", test_nth);
    g_test_add_func("/testing/the request after the n-th event fails", test_event);
    g_test_add_func("/testing/a load of metadata fails, and the next one does not", test_event_below_a_format);
    g_test_add_func("/testing/a power loss takes what was not flushed", test_power_loss);
    g_test_add_func("/testing/a seed decides what a power loss takes", test_power_loss_is_drawn);
    g_test_add_func("/testing/nothing fails after a power loss", test_power_loss_ends_faults);
    for (unsigned i = 0; i < G_N_ELEMENTS(failing); i++) {
        g_autofree char *path = g_strdup_printf("/testing/is told: %s", failing[i].name);

        g_test_add_data_func(path, GUINT_TO_POINTER(i), test_failing);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(wrong); i++) {
        g_autofree char *path = g_strdup_printf("/testing/a string is refused: %u", i);

        g_test_add_data_func(path, GUINT_TO_POINTER(i), test_wrong);
    }
    return g_test_run();
}
