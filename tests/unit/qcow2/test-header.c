/* SPDX-License-Identifier: MIT */
/* The header cluster rewritten: backing file names, and all that must stay. */

#include <bdrv/bdrv.h>
#include <errno.h>
#include <string.h>

#include "drivers/qcow2/format/format.h"
#include "tests/crash/states.h"
#include "tests/unit/qcow2/stand.h"

#define UNKNOWN_TYPE 0x12345678
#define UNKNOWN_BYTES 100
#define FIELD_BYTES 16 /* that a later version may have added behind the header we know */

/* What a header names. */
typedef struct Names {
    const char *filename, *format; /* NULL: none */
} Names;

static const char long_name[] = "/a/rather/long/name/of/a/directory/that/somebody/chose/for/images/a/rather/long/name/of/"
                                "a/directory/that/somebody/chose/for/images/a/rather/long/name/of/a/directory/disk.qcow2";

static const Names names[] = {
    { NULL, NULL },       { "base.img", "raw" }, { "base.img", NULL },
    { "b.qcow2", "qcow2" }, { long_name, "raw" },  { "a-name-of-the-same-size-or-so.img", "parallels-or-longer" },
};

static const char *const kinds[] = {
    "cluster_size=512", "cluster_size=1k", "cluster_size=8k", "cluster_size=64k", "cluster_size=4k,compat=0.10",
};

static BlockBackend *open_bare(const char *name, BdrvOpenFlags flags)
{
    return stand_must_open(name, NULL, flags | BDRV_O_NO_BACKING);
}

static Names names_of(BlockBackend *blk)
{
    BdrvLayer layer;
    g_assert_true(blk_layer(blk, 0, &layer));
    return (Names){ layer.backing_filename, layer.backing_format };
}

static bool same_names(Names a, Names b)
{
    return g_strcmp0(a.filename, b.filename) == 0 && g_strcmp0(a.format, b.format) == 0;
}

/* An extension that nobody knows, before all others, and fields behind the header. */
static void put_unknown(const char *name)
{
    uint32_t length = (uint32_t)stand_get(name, 4, 4) == 2 ? 72 : (uint32_t)stand_get(name, 100, 4);
    uint8_t rest[512];
    bool roomy = stand_get(name, 20, 4) > 9;
    g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_find(name);
    uint32_t bytes = roomy ? UNKNOWN_BYTES : 8, padded = (bytes + 7) / 8 * 8;
    bdrv_simdisk_peek(disk, length, rest, roomy ? sizeof(rest) : 8);
    if (length > 72) {
        bdrv_simdisk_poke(disk, length, "unknown header fields", FIELD_BYTES);
        length += FIELD_BYTES;
        stand_put(name, 100, 4, length);
    }
    stand_put(name, length, 4, UNKNOWN_TYPE);
    stand_put(name, length + 4, 4, bytes);
    for (unsigned i = 0; i < padded; i++) {
        stand_put(name, length + 8 + i, 1, i < bytes ? i + 1 : 0);
    }
    if (roomy) { /* else: no others */
        bdrv_simdisk_poke(disk, length + 8 + padded, rest, sizeof(rest));
    } else {
        stand_put(name, length + 8 + padded, 8, 0);
    }
}

/* Whether what put_unknown() put there is still there. */
static bool has_unknown(const char *name)
{
    g_autofree uint8_t *head = g_malloc(4096);
    g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_find(name);
    Qcow2Header header;
    Qcow2HeaderExtensions extensions = { 0 };
    bdrv_simdisk_peek(disk, 0, head, 4096);
    g_assert_true(qcow2_header_decode(head, 4096, &header, NULL));
    size_t end = header.backing_file_offset ? MIN(header.backing_file_offset, 4096) : 4096;
    g_assert_true(qcow2_extensions_decode(head + header.header_length, MIN(end, 1u << header.cluster_bits) -
                                          header.header_length, 0, &extensions, NULL));
    bool ok = extensions.unknown_count == 1 && extensions.unknown[0].type == UNKNOWN_TYPE;
    for (unsigned i = 0; ok && i < extensions.unknown[0].length; i++) {
        ok = extensions.unknown[0].data[i] == i + 1;
    }
    ok = ok && (header.version == 2 || memcmp(head + 112, "unknown header fields", FIELD_BYTES) == 0);
    qcow2_extensions_clear(&extensions);
    return ok;
}

static void create(const char *name, const char *kind)
{
    g_autofree char *options = g_strconcat("size=1M,", kind, NULL);
    stand_create(name, options);
    put_unknown(name);
}

static void must_change(BlockBackend *blk, Names to)
{
    GError *error = NULL;
    bool ok = blk_change_backing_file(blk, to.filename, to.format, &error);
    g_assert_no_error(error);
    g_assert_true(ok);
}

static void test_names(void)
{
    for (unsigned k = 0; k < G_N_ELEMENTS(kinds); k++) {
        create("h", kinds[k]);
        BlockBackend *blk = open_bare("h", BDRV_O_RDWR);
        for (unsigned i = 0; i < G_N_ELEMENTS(names) * G_N_ELEMENTS(names); i++) {
            Names to = names[i % 2 ? i % G_N_ELEMENTS(names) : i / G_N_ELEMENTS(names)];
            g_test_message("%s: %s, %s", kinds[k], to.filename, to.format);
            must_change(blk, to);
            g_assert_true(same_names(names_of(blk), to));
            g_assert_true(has_unknown("h"));
            stand_close(blk);
            blk = open_bare("h", BDRV_O_RDWR);
            g_assert_true(same_names(names_of(blk), to));
            g_assert_cmpint(blk_pwrite(blk, 4096, 4, "data", 0), ==, 0);
        }
        stand_close(blk);
        g_assert_true(has_unknown("h"));
        stand_forget("h");
    }
}

static void test_growth(void)
{
    GError *error = NULL;
    for (unsigned k = 0; k < G_N_ELEMENTS(kinds); k++) {
        create("h", kinds[k]);
        BlockBackend *blk = open_bare("h", BDRV_O_RDWR | BDRV_O_RESIZE);
        blk_truncate(blk, 100 << 20, true, BDRV_PREALLOC_OFF, 0, &error);
        g_assert_no_error(error);
        stand_close(blk);
        g_assert_true(has_unknown("h"));
        stand_forget("h");
    }
}

static void test_autoclear(void)
{
    stand_create("h", "size=1M");
    stand_put("h", 88, 8, 0x40);
    stand_close(open_bare("h", 0));
    g_assert_cmpuint(stand_get("h", 88, 8), ==, 0x40);
    stand_close(open_bare("h", BDRV_O_RDWR));
    g_assert_cmpuint(stand_get("h", 88, 8), ==, 0);
    stand_forget("h");
}

static void test_old_name_is_gone(void)
{
    create("h", "cluster_size=4k");
    BlockBackend *blk = open_bare("h", BDRV_O_RDWR);
    must_change(blk, (Names){ "secret-place.img", "raw" });
    must_change(blk, (Names){ "other.img", "raw" });
    must_change(blk, (Names){ NULL, NULL });
    stand_close(blk);
    g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_find("h");
    uint8_t head[4096];
    bdrv_simdisk_peek(disk, 0, head, sizeof(head));
    g_assert_null(memmem(head, sizeof(head), ".img", 4));
    stand_forget("h");
}

static void test_refusals(void)
{
    g_autofree char *too_long = g_strnfill(1024, 'n'), *large = g_strnfill(400, 'n');
    const struct {
        const char *filename, *format, *text;
    } cases[] = {
        { too_long, "raw", "*1024 bytes*1023*" },
        { NULL, "raw", "*'raw'*needs a backing file*" },
        { large, "raw", "*cluster size is 512*larger cluster size*" },
    };
    create("h", "cluster_size=512");
    BlockBackend *blk = open_bare("h", BDRV_O_RDWR);
    must_change(blk, names[1]);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        g_assert_false(blk_change_backing_file(blk, cases[i].filename, cases[i].format, &error));
        g_assert_cmpint(bdrv_error_code(error), ==, EINVAL);
        g_assert_true(stand_matches(cases[i].text, error->message));
        g_assert_true(same_names(names_of(blk), names[1]));
    }
    stand_close(blk);
    blk = open_bare("h", 0);
    g_autoptr(GError) error = NULL;
    g_assert_false(blk_change_backing_file(blk, NULL, NULL, &error));
    g_assert_cmpint(bdrv_error_code(error), ==, EACCES);
    stand_close(blk);
    stand_forget("h");
}

/* ---- power loss and errors ---- */

typedef struct Crash {
    Names from, to;
    const BdrvSimCut *cut;
    unsigned states;
} Crash;

static void cut_here(void *opaque, BdrvSimDisk *disk, const BdrvSimRequest *request)
{
    g_ptr_array_add(opaque, bdrv_simdisk_cut(disk));
}

static bool visit_state(void *opaque, const BdrvSimChoice *choices)
{
    Crash *crash = opaque;
    g_autoptr(BdrvSimDisk) left = bdrv_simcut_disk(crash->cut, choices, "cut");
    crash->states++;
    BlockBackend *blk = open_bare("cut", 0);
    Names got = names_of(blk);
    if (!same_names(got, crash->from) && !same_names(got, crash->to)) {
        g_error("a power loss leaves the name '%s', format '%s'", got.filename, got.format);
    }
    stand_close(blk);
    return true;
}

static void crash_between(const char *kind, Names from, Names to)
{
    Crash crash = { .from = from, .to = to };
    g_autoptr(GPtrArray) cuts = g_ptr_array_new_with_free_func((GDestroyNotify)bdrv_simcut_unref);
    create("h", kind);
    BlockBackend *blk = open_bare("h", BDRV_O_RDWR);
    must_change(blk, from);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_find("h");
    bdrv_simdisk_set_hook(disk, cut_here, cuts);
    must_change(blk, to);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    bdrv_simdisk_set_hook(disk, NULL, NULL);
    stand_close(blk);
    for (unsigned i = 0; i < cuts->len; i++) {
        crash.cut = cuts->pdata[i];
        states_each(crash.cut, 4, visit_state, &crash);
    }
    g_test_message("%s: %s to %s: %u cuts, %u states", kind, from.filename, to.filename, cuts->len, crash.states);
    stand_forget("h");
}

static void test_power_loss(void)
{
    for (unsigned k = 0; k < G_N_ELEMENTS(kinds); k++) {
        for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
            for (unsigned j = 0; j < G_N_ELEMENTS(names); j++) {
                /* Two long names do not fit into a small cluster: as the comment in header_replace.c says. */
                bool is_long = names[i].filename == long_name || names[j].filename == long_name;
                if (i != j && !(is_long && strstr(kinds[k], "=1k"))) {
                    crash_between(kinds[k], names[i], names[j]);
                }
            }
        }
    }
}

/* Whether the call failed: the @nth of these kinds does, and @count - 1 behind it. */
static bool fail_change(const char *kind, Names from, Names to, unsigned nth, int count)
{
    create("h", kind);
    BlockBackend *blk = open_bare("h", BDRV_O_RDWR);
    must_change(blk, from);
    g_assert_cmpint(blk_flush(blk), ==, 0);
    g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_find("h");
    const unsigned changing = BDRV_SIM_WRITE | BDRV_SIM_FLUSH;
    uint64_t before = bdrv_simdisk_count(disk, changing);
    bdrv_simdisk_fail(disk, changing, nth, count, EIO);
    g_autoptr(GError) error = NULL;
    bool ok = blk_change_backing_file(blk, to.filename, to.format, &error);
    bool failed = bdrv_simdisk_count(disk, changing) - before >= nth;
    bdrv_simdisk_fail_none(disk);
    g_assert_cmpint(ok, ==, error == NULL);
    g_assert_true(same_names(names_of(blk), ok ? to : from));
    g_assert_cmpint(blk_pwrite(blk, 0, 4, "data", 0), ==, 0);
    g_assert_cmpint(blk_flush(blk), ==, 0); /* settles what is in doubt */
    stand_close(blk);
    blk = open_bare("h", BDRV_O_RDWR);
    g_assert_true(same_names(names_of(blk), ok ? to : from));
    g_assert_true(count > 1 || has_unknown("h"));
    stand_close(blk);
    stand_forget("h");
    return failed;
}

static void test_errors(void)
{
    for (unsigned k = 0; k < G_N_ELEMENTS(kinds); k++) {
        for (int count = 1; count <= 2; count++) {
            unsigned nth = 1;
            while (fail_change(kinds[k], names[1], names[3], nth, count) &&
                   fail_change(kinds[k], names[3], names[0], nth, count)) {
                nth++;
            }
            g_assert_cmpuint(nth, >, 2);
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2/header/the backing file's name and format change", test_names);
    g_test_add_func("/qcow2/header/growth keeps what is unknown", test_growth);
    g_test_add_func("/qcow2/header/unknown autoclear bits go when it is written, not before", test_autoclear);
    g_test_add_func("/qcow2/header/nothing is left of an old name", test_old_name_is_gone);
    g_test_add_func("/qcow2/header/names that cannot be are refused", test_refusals);
    g_test_add_func("/qcow2/header/a power loss leaves the old name or the new one", test_power_loss);
    g_test_add_func("/qcow2/header/an error leaves the old name", test_errors);
    return g_test_run();
}
