/* SPDX-License-Identifier: MIT */
/* Internal snapshots and VM state through the backend. What a crash or a failing disk makes of them: tests/crash, tests/faults. */

#include <errno.h>
#include <string.h>

#include "drivers/qcow2/format/format.h"
#include "tests/unit/qcow2/stand.h"

#define K 1024
#define M (1024 * K)

enum { HEADER_SIZE = 24, HEADER_COUNT = 60, HEADER_TABLE = 64 };

static void write_bytes(BlockBackend *blk, int64_t offset, int64_t bytes, uint8_t fill)
{
    g_autofree uint8_t *buf = g_malloc(bytes);
    memset(buf, fill, bytes);
    g_assert_cmpint(blk_pwrite(blk, offset, bytes, buf, 0), ==, 0);
}

static bool is_filled(const uint8_t *buf, int64_t bytes, uint8_t fill)
{
    return buf[0] == fill && memcmp(buf, buf + 1, bytes - 1) == 0;
}

static void assert_filled(BlockBackend *blk, int64_t offset, int64_t bytes, uint8_t fill)
{
    g_autofree uint8_t *buf = g_malloc(bytes);
    g_assert_cmpint(blk_pread(blk, offset, bytes, buf, 0), ==, 0);
    g_assert_true(is_filled(buf, bytes, fill));
}

static bool try_create(BlockBackend *blk, const char *name, int64_t vm_state_size, GError **errp)
{
    g_autofree char *copy = g_strdup(name);
    BdrvSnapshotInfo info = { .name = copy, .vm_state_size = vm_state_size, .icount = 17, .date_sec = 5 };
    bool ok = blk_snapshot_create(blk, &info, errp);
    g_assert_cmpint(ok, ==, info.id != NULL);
    g_free(info.id);
    return ok;
}

static void create(BlockBackend *blk, const char *name)
{
    GError *error = NULL;
    try_create(blk, name, 0, &error);
    g_assert_no_error(error);
}

static void apply(BlockBackend *blk, const char *id)
{
    GError *error = NULL;
    blk_snapshot_goto(blk, id, &error);
    g_assert_no_error(error);
}

static void delete(BlockBackend *blk, const char *name)
{
    GError *error = NULL;
    blk_snapshot_delete(blk, NULL, name, &error);
    g_assert_no_error(error);
}

/* "id name, id name" */
static char *list(BlockBackend *blk)
{
    BdrvSnapshotInfo *snapshots;
    int count = blk_list_snapshots(blk, &snapshots);
    GString *text = g_string_new(NULL);
    for (int i = 0; i < count; i++) {
        g_string_append_printf(text, "%s%s %s", i ? ", " : "", snapshots[i].id, snapshots[i].name);
    }
    bdrv_snapshot_list_free(snapshots, count);
    return g_string_free(text, FALSE);
}

static void assert_list(BlockBackend *blk, const char *wanted)
{
    g_autofree char *text = list(blk);
    g_assert_cmpstr(text, ==, wanted);
}

static void assert_clean(const char *name)
{
    BlockBackend *blk = stand_must_open(name, NULL, BDRV_O_CHECK);
    BdrvCheckResult result = { 0 };
    GError *error = NULL;
    blk_check(blk, &result, BDRV_FIX_NONE, &error);
    g_assert_no_error(error);
    g_assert_cmpint(result.corruptions, ==, 0);
    g_assert_cmpint(result.leaks, ==, 0);
    stand_close(blk);
    g_assert_cmpuint(stand_get(name, 72, 8) & QCOW2_INCOMPAT_DIRTY, ==, 0);
}

static BlockBackend *make(const char *options)
{
    stand_create("s", options);
    return stand_must_open("s", NULL, BDRV_O_RDWR);
}

static void finish(BlockBackend *blk)
{
    stand_close(blk);
    assert_clean("s");
    stand_forget("s");
}

static void fail(bool ok, GError **error, int code, const char *pattern)
{
    g_assert_false(ok);
    g_assert_error(*error, BDRV_ERROR, code);
    g_assert_true(stand_matches(pattern, (*error)->message));
    g_clear_error(error);
}

/* ---- what they do ---- */

static void each_gives_back_what_it_kept(void)
{
    static const char *const kinds[] = { "size=1M", "size=1M,cluster_size=512", "size=1M,compat=0.10",
                                         "size=1M,cluster_size=16k,extended_l2=on", "size=1M,refcount_bits=2",
                                         "size=1M,lazy_refcounts=on" };
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        BlockBackend *blk = make(kinds[i]);
        g_test_message("%s", kinds[i]);
        create(blk, "empty");
        write_bytes(blk, 0, 300 * K, 1);
        create(blk, "one");
        write_bytes(blk, 200 * K + 17, 300 * K, 2);
        apply(blk, "one");
        assert_filled(blk, 0, 300 * K, 1);
        assert_filled(blk, 300 * K, 700 * K, 0);
        write_bytes(blk, 0, 1 * M, 3);
        apply(blk, "empty");
        assert_filled(blk, 0, 1 * M, 0);
        delete(blk, "one");
        delete(blk, "empty");
        assert_list(blk, "");
        write_bytes(blk, 0, 1 * M, 4);
        assert_filled(blk, 0, 1 * M, 4);
        finish(blk);
    }
}

static void an_id_is_the_number_after_the_largest(void)
{
    BlockBackend *blk = make("size=1M");
    create(blk, "a");
    create(blk, "b");
    delete(blk, "a");
    create(blk, "a");
    assert_list(blk, "2 b, 3 a");
    finish(blk);
}

static void an_id_goes_before_a_name(void)
{
    BlockBackend *blk = make("size=1M");
    GError *error = NULL;
    write_bytes(blk, 0, K, 1);
    create(blk, "2");
    write_bytes(blk, 0, K, 2);
    create(blk, "b");
    apply(blk, "2");
    assert_filled(blk, 0, K, 2);
    delete(blk, "2");
    assert_list(blk, "2 b");
    fail(blk_snapshot_delete(blk, "2", "c", &error), &error, ENOENT, "*id '2' and name 'c'*");
    fail(blk_snapshot_goto(blk, "c", &error), &error, ENOENT, "*no snapshot with id or name 'c'*");
    finish(blk);
}

static void each_keeps_its_disk_size(void)
{
    BlockBackend *blk = make("size=1M,cluster_size=4k");
    GError *error = NULL;
    write_bytes(blk, 0, 1 * M, 1);
    create(blk, "small");
    g_assert_true(blk_truncate(blk, 5 * M, true, BDRV_PREALLOC_OFF, 0, &error));
    write_bytes(blk, 4 * M, 1 * M, 2);
    create(blk, "large");
    apply(blk, "small");
    g_assert_cmpint(blk_length(blk), ==, 1 * M);
    apply(blk, "large");
    g_assert_cmpint(blk_length(blk), ==, 5 * M);
    assert_filled(blk, 0, 1 * M, 1);
    assert_filled(blk, 1 * M, 3 * M, 0);
    assert_filled(blk, 4 * M, 1 * M, 2);
    finish(blk);
}

static void one_is_looked_at_read_only(void)
{
    BlockBackend *blk = make("size=1M,cluster_size=4k");
    GError *error = NULL;
    write_bytes(blk, 0, 1 * M, 1);
    create(blk, "small");
    g_assert_true(blk_truncate(blk, 2 * M, true, BDRV_PREALLOC_OFF, 0, &error));
    write_bytes(blk, 0, 2 * M, 2);
    fail(blk_snapshot_load_tmp(blk, NULL, "small", &error), &error, EACCES, "*opened read-only*");
    stand_close(blk);
    blk = stand_must_open("s", NULL, 0);
    g_assert_true(blk_snapshot_load_tmp(blk, NULL, "small", &error));
    g_assert_cmpint(blk_length(blk), ==, 1 * M);
    assert_filled(blk, 0, 1 * M, 1);
    fail(blk_reopen(blk, NULL, BDRV_O_RDWR, &error), &error, ENOTSUP, "*shows one of its snapshots*");
    fail(try_create(blk, "x", 0, &error), &error, EACCES, "*read-only*");
    finish(blk);
}

/* ---- what is in the file ---- */

static void unknown_extra_data_is_kept(void)
{
    BlockBackend *blk = make("size=1M");
    create(blk, "a");
    stand_close(blk);
    int64_t table = (int64_t)stand_get("s", HEADER_TABLE, 8);
    stand_put("s", table + 36, 4, 30); /* extra data, up to where id and name fit behind it */
    stand_put("s", table + 64, 4, 0xaabbccdd);
    stand_put("s", table + 68, 2, 0xeeff);
    stand_put("s", table + 70, 1, '1');
    stand_put("s", table + 71, 1, 'a');
    blk = stand_must_open("s", NULL, BDRV_O_RDWR);
    create(blk, "b");
    delete(blk, "b");
    assert_list(blk, "1 a");
    stand_close(blk);
    table = (int64_t)stand_get("s", HEADER_TABLE, 8);
    g_assert_cmpuint(stand_get("s", table + 36, 4), ==, 30);
    g_assert_cmpuint(stand_get("s", table + 64, 4), ==, 0xaabbccdd);
    g_assert_cmpuint(stand_get("s", table + 68, 2), ==, 0xeeff);
    assert_clean("s");
    stand_forget("s");
}

/* As versions of long ago wrote them. */
static void one_without_extra_data_keeps_the_disk_size(void)
{
    BlockBackend *blk = make("size=1M,compat=0.10");
    GError *error = NULL;
    write_bytes(blk, 0, 1 * M, 1);
    create(blk, "a");
    create(blk, "b");
    stand_close(blk);
    int64_t table = (int64_t)stand_get("s", HEADER_TABLE, 8);
    stand_put("s", table + 36, 4, 0);
    stand_put("s", table + 40, 2, '1' << 8 | 'a');
    /* The entry is shorter now: the other one moves up. */
    for (int64_t at = 0; at < 72; at += 8) {
        stand_put("s", table + 48 + at, 8, stand_get("s", table + 72 + at, 8));
    }
    stand_put("s", table + 48 + 48, 8, 2 * M); /* its disk size */
    blk = stand_must_open("s", NULL, BDRV_O_RDWR);
    assert_list(blk, "1 a, 2 b");
    fail(blk_snapshot_goto(blk, "b", &error), &error, ENOTSUP, "*snapshot 'a' does not record its own*");
    write_bytes(blk, 0, 1 * M, 2);
    apply(blk, "a");
    assert_filled(blk, 0, 1 * M, 1);
    finish(blk);
}

static void fields_are_those_of_the_specification(void)
{
    BlockBackend *blk = make("size=1M");
    GError *error = NULL;
    g_assert_true(try_create(blk, "name", INT64_C(5) << 32, &error));
    stand_close(blk);
    int64_t table = (int64_t)stand_get("s", HEADER_TABLE, 8);
    g_assert_cmpuint(stand_get("s", HEADER_COUNT, 4), ==, 1);
    g_assert_cmpuint(stand_get("s", table + 12, 4), ==, 1 << 16 | 4); /* lengths of id and name */
    g_assert_cmpuint(stand_get("s", table + 16, 4), ==, 5);
    g_assert_cmpuint(stand_get("s", table + 32, 4), ==, 0); /* does not fit into 32 bits */
    g_assert_cmpuint(stand_get("s", table + 36, 4), ==, 24);
    g_assert_cmpuint(stand_get("s", table + 40, 8), ==, UINT64_C(5) << 32);
    g_assert_cmpuint(stand_get("s", table + 48, 8), ==, 1 * M);
    g_assert_cmpuint(stand_get("s", table + 56, 8), ==, 17);
    assert_clean("s");
    stand_forget("s");
}

static void deleting_gives_space_back(void)
{
    static const struct {
        const char *options;
        bool discards;
    } cases[] = { { NULL, true }, { "pass-discard-snapshot=on", true }, { "pass-discard-snapshot=off", false } };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        BlockBackend *blk = make("size=1M");
        write_bytes(blk, 0, 1 * M, 1);
        create(blk, "a");
        write_bytes(blk, 0, 1 * M, 2);
        stand_close(blk);
        blk = stand_must_open("s", cases[i].options, BDRV_O_RDWR);
        g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_find("s");
        uint64_t before = bdrv_simdisk_count(disk, BDRV_SIM_DISCARD);
        delete(blk, "a");
        g_assert_cmpint(bdrv_simdisk_count(disk, BDRV_SIM_DISCARD) > before, ==, cases[i].discards);
        int64_t length = stand_length("s");
        create(blk, "b");
        write_bytes(blk, 0, 1 * M, 3); /* into the space of the old one */
        g_assert_cmpint(stand_length("s"), <=, length + 128 * K);
        assert_filled(blk, 0, 1 * M, 3);
        finish(blk);
    }
}

/* ---- refusals ---- */

static void a_count_at_its_maximum_refuses(void)
{
    BlockBackend *blk = make("size=1M,refcount_bits=2");
    GError *error = NULL;
    write_bytes(blk, 0, 1 * M, 1);
    create(blk, "a");
    create(blk, "b");
    fail(try_create(blk, "c", 0, &error), &error, EINVAL, "*has 3 references, the most that refcount_bits=2*");
    fail(blk_snapshot_goto(blk, "nothing", &error), &error, ENOENT, "*");
    apply(blk, "a"); /* what it shares with the disk needs no more */
    assert_filled(blk, 0, 1 * M, 1);
    write_bytes(blk, 0, 1 * M, 2);
    finish(blk);
}

typedef struct Damage {
    const char *what;
    int64_t offset; /* in the L2 table of the active disk */
    uint64_t value;
    const char *pattern;
} Damage;

static void damaged_tables_are_refused_unchanged(void)
{
    static const Damage cases[] = {
        { "not aligned", 0, UINT64_C(1) << 63 | 0x50200, "*0x8000000000050200*not a multiple of the cluster size*" },
        { "not counted", 8, UINT64_C(1) << 63 | 0x900000, "*9437184 is in use but has no refcount*" },
        { "past all refcounts", 8, UINT64_C(1) << 63 | UINT64_C(1) << 55, "*is in use but has no refcount*" },
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        BlockBackend *blk = make("size=1M");
        GError *error = NULL;
        write_bytes(blk, 0, 128 * K, 1);
        stand_close(blk);
        int64_t l1 = (int64_t)stand_get("s", 40, 8);
        int64_t l2 = (int64_t)(stand_get("s", l1, 8) & QCOW2_OFFSET_MASK);
        stand_put("s", l2 + cases[i].offset, 8, cases[i].value);
        stand_copy("s", "before", -1);
        blk = stand_must_open("s", NULL, BDRV_O_RDWR);
        fail(try_create(blk, "a", 0, &error), &error, EINVAL, cases[i].pattern);
        stand_close(blk);
        g_assert_cmpint(stand_length("s"), ==, stand_length("before"));
        for (int64_t at = 0; at < stand_length("s"); at += 8) {
            g_assert_cmpuint(stand_get("s", at, 8), ==, stand_get("before", at, 8));
        }
        stand_forget("before");
        stand_forget("s");
    }
}

static void long_names_are_refused(void)
{
    BlockBackend *blk = make("size=1M");
    GError *error = NULL;
    g_autofree char *name = g_strnfill(65536, 'x');
    fail(try_create(blk, name, 0, &error), &error, EINVAL, "*name of 65536 bytes is too long*");
    name[65535] = '\0';
    create(blk, name);
    apply(blk, name);
    delete(blk, name);
    finish(blk);
}

/* COPIED flags in tables that only a snapshot has mean nothing until the snapshot is applied. */
static void stray_copied_flags_do_not_come_alive(void)
{
    BlockBackend *blk = make("size=1M");
    write_bytes(blk, 0, 64 * K, 1);
    create(blk, "a");
    write_bytes(blk, 64 * K, 64 * K, 2); /* the disk has an L2 table of its own now */
    stand_close(blk);
    int64_t table = (int64_t)stand_get("s", HEADER_TABLE, 8), l1 = (int64_t)stand_get("s", table, 8);
    int64_t l2 = (int64_t)(stand_get("s", l1, 8) & QCOW2_OFFSET_MASK);
    stand_put("s", l2, 8, stand_get("s", l2, 8) | QCOW2_COPIED);
    stand_put("s", l1, 8, stand_get("s", l1, 8) | QCOW2_COPIED);
    blk = stand_must_open("s", NULL, BDRV_O_RDWR);
    apply(blk, "a");
    write_bytes(blk, 0, 64 * K, 3);
    apply(blk, "a");
    assert_filled(blk, 0, 64 * K, 1);
    finish(blk);
}

/* ---- VM state ---- */

static void vm_state(BlockBackend *blk, int64_t offset, int64_t bytes, uint8_t fill, bool save)
{
    g_autofree uint8_t *buf = g_malloc(bytes);
    struct iovec vec;
    BdrvIov iov = BDRV_IOV_BUF(vec, buf, bytes);
    memset(buf, save ? fill : 0xee, bytes);
    g_assert_cmpint(save ? blk_save_vmstate(blk, offset, &iov) : blk_load_vmstate(blk, offset, &iov), ==, 0);
    g_assert_true(is_filled(buf, bytes, fill));
}

static void vm_state_goes_with_its_snapshot(void)
{
    BlockBackend *blk = make("size=1M,cluster_size=512");
    GError *error = NULL;
    write_bytes(blk, 0, 1 * M, 1);
    vm_state(blk, 0, 100 * K, 7, true);
    vm_state(blk, 100 * K + 5, 300 * K, 8, true);
    vm_state(blk, 0, 100 * K, 7, false);
    vm_state(blk, 500 * K, 10 * K, 0, false);
    assert_filled(blk, 0, 1 * M, 1);
    g_assert_true(try_create(blk, "a", 400 * K, &error));
    vm_state(blk, 0, 400 * K, 0, false); /* the snapshot has taken it */
    vm_state(blk, 0, 600 * K, 9, true);
    apply(blk, "a");
    vm_state(blk, 0, 100 * K, 7, false);
    vm_state(blk, 100 * K + 5, 300 * K, 8, false);
    delete(blk, "a");
    vm_state(blk, 0, 100 * K, 7, false);
    finish(blk);
}

static void vm_state_that_was_never_saved_is_zero_over_a_backing_file(void)
{
    stand_create("base", "size=8M");
    BlockBackend *blk = stand_must_open("base", NULL, BDRV_O_RDWR);
    write_bytes(blk, 0, 8 * M, 5);
    stand_close(blk);
    blk = make("size=64k,cluster_size=512,backing_file=simdisk:base,backing_fmt=qcow2");
    vm_state(blk, 0, 100 * K, 0, false);
    vm_state(blk, 512, 512, 7, true);
    vm_state(blk, 0, 512, 0, false);
    vm_state(blk, 512, 512, 7, false);
    finish(blk);
    stand_forget("base");
}

static void vm_state_cannot_be_anywhere(void)
{
    BlockBackend *blk = make("size=1M,cluster_size=512");
    uint8_t byte = 1;
    struct iovec vec;
    BdrvIov iov = BDRV_IOV_BUF(vec, &byte, 1);
    g_assert_cmpint(blk_save_vmstate(blk, INT64_MAX - 1, &iov), ==, -EFBIG);
    g_assert_cmpint(blk_load_vmstate(blk, INT64_C(1) << 50, &iov), ==, -EFBIG);
    g_assert_cmpint(blk_save_vmstate(blk, -1, &iov), ==, -EIO);
    finish(blk);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(text, func) g_test_add_func("/qcow2/snapshot/" text, func)
    ADD("each gives back what it kept", each_gives_back_what_it_kept);
    ADD("an id is the number after the largest", an_id_is_the_number_after_the_largest);
    ADD("an id goes before a name", an_id_goes_before_a_name);
    ADD("each keeps its disk size", each_keeps_its_disk_size);
    ADD("one is looked at read-only", one_is_looked_at_read_only);
    ADD("unknown extra data is kept", unknown_extra_data_is_kept);
    ADD("one without extra data keeps the disk size", one_without_extra_data_keeps_the_disk_size);
    ADD("fields are those of the specification", fields_are_those_of_the_specification);
    ADD("deleting gives space back", deleting_gives_space_back);
    ADD("a count at its maximum refuses", a_count_at_its_maximum_refuses);
    ADD("damaged tables are refused unchanged", damaged_tables_are_refused_unchanged);
    ADD("long names are refused", long_names_are_refused);
    ADD("stray COPIED flags do not come alive", stray_copied_flags_do_not_come_alive);
    ADD("VM state goes with its snapshot", vm_state_goes_with_its_snapshot);
    ADD("VM state that was never saved is zero over a backing file",
        vm_state_that_was_never_saved_is_zero_over_a_backing_file);
    ADD("VM state cannot be anywhere", vm_state_cannot_be_anywhere);
    return g_test_run();
}
