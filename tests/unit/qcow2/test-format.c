/* SPDX-License-Identifier: MIT */
/* drivers/qcow2/format: bytes to structs and back. Buffers are exact mallocs, so ASan sees any overread. */

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "block/util/bytes.h"
#include "drivers/qcow2/format/format.h"

/* Run @body for every truncation of bytes[0..n), each in an allocation of exactly that size. */
#define FOR_EACH_PREFIX(bytes_, n_, copy_, size_, body_)                                                     \
    for (size_t size_ = 0; size_ <= (n_); size_++) {                                                         \
        uint8_t *copy_ = g_malloc(size_ ? size_ : 1);                                                        \
        copy_ = g_realloc(copy_, size_ ? size_ : 1);                                                         \
        memcpy(copy_, (bytes_), size_);                                                                      \
        body_;                                                                                               \
        g_free(copy_);                                                                                       \
    }

static const Qcow2Header sample = {
    .version = 3,
    .backing_file_offset = 0x1122334455667788,
    .backing_file_size = 1023,
    .cluster_bits = 16,
    .size = 0x0102030405060708,
    .crypt_method = 2,
    .l1_size = 0xa1b2c3d4,
    .l1_table_offset = 0x30000,
    .refcount_table_offset = 0x10000,
    .refcount_table_clusters = 0x12345678,
    .nb_snapshots = 7,
    .snapshots_offset = 0x50000,
    .incompatible_features = 0x8000000000000001,
    .compatible_features = 0x4000000000000002,
    .autoclear_features = 0x2000000000000003,
    .refcount_order = 6,
    .header_length = 112,
    .compression_type = 1,
};

static void assert_same_header(const Qcow2Header *a, const Qcow2Header *b)
{
#define SAME(field) g_assert_cmphex(a->field, ==, b->field)
    SAME(version);
    SAME(backing_file_offset);
    SAME(backing_file_size);
    SAME(cluster_bits);
    SAME(size);
    SAME(crypt_method);
    SAME(l1_size);
    SAME(l1_table_offset);
    SAME(refcount_table_offset);
    SAME(refcount_table_clusters);
    SAME(nb_snapshots);
    SAME(snapshots_offset);
    SAME(incompatible_features);
    SAME(compatible_features);
    SAME(autoclear_features);
    SAME(refcount_order);
    SAME(header_length);
    SAME(compression_type);
#undef SAME
}

static void test_header_round_trip(void)
{
    static const struct {
        const char *what;
        uint32_t version, header_length;
        size_t encoded;
    } cases[] = {
        { "version 2 ends after snapshots_offset", 2, 72, 72 },
        { "version 3 without additional fields", 3, 104, 104 },
        { "version 3 with compression_type", 3, 112, 105 },
        { "version 3 with fields unknown to us", 3, 4096, 105 },
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_test_message("%s", cases[i].what);
        Qcow2Header in = sample, out;
        in.version = cases[i].version;
        in.header_length = cases[i].header_length;
        uint8_t buf[112];
        memset(buf, 0x5a, sizeof(buf));
        g_assert_cmpuint(qcow2_header_encode(&in, buf, sizeof(buf)), ==, cases[i].encoded);
        g_assert_cmphex(buf[cases[i].encoded], ==, 0x5a);
        GError *error = NULL;
        g_assert_true(qcow2_header_decode(buf, sizeof(buf), &out, &error));
        g_assert_no_error(error);
        if (in.version == 2) {
            in.incompatible_features = in.compatible_features = in.autoclear_features = 0;
            in.refcount_order = 4;
        }
        if (in.header_length <= 104) {
            in.compression_type = 0;
        }
        assert_same_header(&in, &out);
        g_assert_cmpuint(qcow2_header_encode(&in, buf, cases[i].encoded - 1), ==, 0);
    }
}

static void test_header_layout(void)
{
    uint8_t buf[112] = { 0 };
    qcow2_header_encode(&sample, buf, sizeof(buf));
    static const uint8_t start[] = { 'Q',  'F',  'I',  0xfb, 0,    0,    0,    3,
                                     0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88 };
    g_assert_cmpmem(buf, sizeof(start), start, sizeof(start));
    g_assert_cmphex(load_be32(buf + 20), ==, 16);
    g_assert_cmphex(load_be64(buf + 40), ==, 0x30000);
    g_assert_cmphex(load_be64(buf + 72), ==, 0x8000000000000001);
    g_assert_cmphex(load_be32(buf + 100), ==, 112);
    g_assert_cmphex(buf[104], ==, 1);
}

static void test_header_refused(void)
{
    static const struct {
        const char *what;
        unsigned at;
        uint32_t value;
        int code;
        const char *text;
    } cases[] = {
        { "wrong magic", 0, 0x4b444d56, EINVAL, "*not in qcow2 format*0x4b444d56*" },
        { "version 1", 4, 1, ENOTSUP, "*version 1 *not supported*2 and 3*" },
        { "version 4", 4, 4, ENOTSUP, "*version 4 *not supported*" },
        { "header_length 0", 100, 0, EINVAL, "*header_length 0 *at least 104*" },
        { "header_length 96", 100, 96, EINVAL, "*header_length 96 *" },
        { "header_length 109", 100, 109, EINVAL, "*header_length 109 *multiple of 8*" },
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        uint8_t buf[112] = { 0 };
        qcow2_header_encode(&sample, buf, sizeof(buf));
        store_be32(buf + cases[i].at, cases[i].value);
        Qcow2Header out = { .version = 77 };
        GError *error = NULL;
        g_assert_false(qcow2_header_decode(buf, sizeof(buf), &out, &error));
        g_assert_error(error, BDRV_ERROR, cases[i].code);
        g_assert_true(g_pattern_match_simple(cases[i].text, error->message));
        g_assert_cmpuint(out.version, ==, 77);
        g_error_free(error);
    }
}

static void test_header_truncated(void)
{
    for (uint32_t version = 2; version <= 3; version++) {
        uint8_t buf[112] = { 0 };
        Qcow2Header in = sample, out;
        in.version = version;
        qcow2_header_encode(&in, buf, sizeof(buf));
        size_t need = version == 2 ? 72 : 104;
        FOR_EACH_PREFIX(buf, sizeof(buf), copy, size, {
            g_autoptr(GError) error = NULL;
            g_assert_cmpint(qcow2_header_decode(copy, size, &out, &error), ==, size >= need);
            g_assert_cmpint(error == NULL, ==, size >= need);
            g_assert_cmpint(qcow2_header_probe(copy, size), ==, size >= need);
        });
    }
}

static void test_probe(void)
{
    uint8_t buf[112] = { 0 };
    qcow2_header_encode(&sample, buf, sizeof(buf));
    g_assert_true(qcow2_header_probe(buf, sizeof(buf)));
    store_be32(buf + 4, 9); /* a later version is recognised, to be refused by name */
    g_assert_true(qcow2_header_probe(buf, sizeof(buf)));
    store_be32(buf + 4, 1); /* qcow, another format */
    g_assert_false(qcow2_header_probe(buf, sizeof(buf)));
    store_be32(buf + 4, 3);
    buf[3] = 0;
    g_assert_false(qcow2_header_probe(buf, sizeof(buf)));
}

/* A plain model of a refcount block: one bit at a time, as the specification says it. */
static uint64_t model_refcount_get(const uint8_t *block, uint64_t index, unsigned order)
{
    unsigned width = 1u << order;
    uint64_t value = 0;
    for (unsigned bit = 0; bit < width; bit++) {
        uint64_t at = index * width;
        unsigned set;
        if (order < 3) {
            at += bit;
            set = block[at / 8] >> (at % 8) & 1;
        } else {
            set = block[at / 8 + (width - 1 - bit) / 8] >> (bit % 8) & 1;
        }
        value |= (uint64_t)set << bit;
    }
    return value;
}

static void test_refcount_widths(void)
{
    for (unsigned order = 0; order <= 6; order++) {
        uint64_t entries = 512 * 8 >> order;
        uint64_t limit = qcow2_refcount_limit(order);
        g_assert_cmpuint(limit, ==, order == 6 ? UINT64_MAX : (UINT64_C(1) << (1 << order)) - 1);
        uint8_t *block = g_malloc0(512);
        uint64_t *model = g_new0(uint64_t, entries);
        for (unsigned round = 0; round < 4000; round++) {
            uint64_t i = g_test_rand_int() % entries;
            uint64_t value =
                ((uint64_t)(uint32_t)g_test_rand_int() << 32 | (uint32_t)g_test_rand_int()) & limit;
            qcow2_refcount_set(block, i, order, value);
            model[i] = value;
        }
        for (uint64_t i = 0; i < entries; i++) {
            g_assert_cmphex(qcow2_refcount_get(block, i, order), ==, model[i]);
            g_assert_cmphex(model_refcount_get(block, i, order), ==, model[i]);
        }
        g_free(model);
        g_free(block);
    }
}

static void test_refcount_packing(void)
{
    static const struct {
        unsigned order;
        uint64_t index, value;
        unsigned byte;
        uint8_t expect;
    } cases[] = {
        { 0, 0, 1, 0, 0x01 },   { 0, 7, 1, 0, 0x80 }, { 0, 9, 1, 1, 0x02 },
        { 1, 1, 3, 0, 0x0c },   { 2, 1, 5, 0, 0x50 }, { 3, 3, 9, 3, 0x09 },
        { 4, 1, 258, 3, 0x02 }, { 5, 0, 1, 3, 0x01 }, { 6, 1, 1, 15, 0x01 },
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        uint8_t block[64] = { 0 };
        qcow2_refcount_set(block, cases[i].index, cases[i].order, cases[i].value);
        g_assert_cmphex(block[cases[i].byte], ==, cases[i].expect);
    }
}

static Qcow2Geometry geometry_of(unsigned version, unsigned cluster_bits, bool extended)
{
    Qcow2Header header = {
        .version = version,
        .cluster_bits = cluster_bits,
        .refcount_order = 4,
        .incompatible_features = extended ? QCOW2_INCOMPAT_EXTENDED_L2 : 0,
    };
    Qcow2Geometry geometry;
    qcow2_geometry_init(&geometry, &header);
    return geometry;
}

static Qcow2L2Entry decode(unsigned version, unsigned cluster_bits, Qcow2RawEntry raw)
{
    Qcow2Geometry geometry = geometry_of(version, cluster_bits, false);
    return qcow2_l2_entry_decode(raw, &geometry);
}

static void test_l2_entries(void)
{
    static const struct {
        const char *what;
        uint64_t entry; /* host byte order */
        unsigned version, cluster_bits;
        Qcow2ClusterKind kind;
        uint64_t host_offset;
        uint32_t compressed_bytes;
        bool copied, reserved;
    } cases[] = {
        { "never written", 0, 3, 16, QCOW2_CLUSTER_UNALLOCATED, 0, 0, false, false },
        { "zero flag alone", QCOW2_L2_ZERO, 3, 16, QCOW2_CLUSTER_ZERO, 0, 0, false, false },
        { "zero flag over a cluster", QCOW2_COPIED | 0x50000 | QCOW2_L2_ZERO, 3, 16, QCOW2_CLUSTER_ZERO,
          0x50000, 0, true, false },
        { "zero flag in version 2", QCOW2_L2_ZERO, 2, 16, QCOW2_CLUSTER_INVALID, 0, 0, false, false },
        { "written once", QCOW2_COPIED | 0x50000, 3, 16, QCOW2_CLUSTER_NORMAL, 0x50000, 0, true, false },
        { "shared", 0x50000, 2, 16, QCOW2_CLUSTER_NORMAL, 0x50000, 0, false, false },
        { "unaligned", 0x50200, 3, 16, QCOW2_CLUSTER_INVALID, 0x50200, 0, false, false },
        { "512-byte cluster", 0x50200, 3, 9, QCOW2_CLUSTER_NORMAL, 0x50200, 0, false, false },
        { "reserved low bit", 0x50002, 3, 16, QCOW2_CLUSTER_NORMAL, 0x50000, 0, false, true },
        { "reserved high bit", UINT64_C(1) << 56 | 0x50000, 3, 16, QCOW2_CLUSTER_NORMAL, 0x50000, 0, false,
          true },
        { "copied without offset", QCOW2_COPIED, 3, 16, QCOW2_CLUSTER_UNALLOCATED, 0, 0, true, false },
        { "largest offset", 0x00ffffffffff0000, 3, 16, QCOW2_CLUSTER_NORMAL, 0x00ffffffffff0000, 0, false,
          false },
        { "compressed, one sector", QCOW2_COMPRESSED | 0x50000, 3, 16, QCOW2_CLUSTER_COMPRESSED, 0x50000, 512,
          false, false },
        { "compressed, from the middle of a sector, 3 more", QCOW2_COMPRESSED | UINT64_C(3) << 54 | 0x501ff,
          3, 16, QCOW2_CLUSTER_COMPRESSED, 0x501ff, 4 * 512 - 511, false, false },
        { "compressed, most sectors of 2 MiB", QCOW2_COMPRESSED | UINT64_C(0x1fff) << 49, 3, 21,
          QCOW2_CLUSTER_COMPRESSED, 0, 8192 * 512, false, false },
        { "compressed, 512-byte clusters, beyond 56 bits", QCOW2_COMPRESSED | UINT64_C(1) << 57, 3, 9,
          QCOW2_CLUSTER_INVALID, UINT64_C(1) << 57, 512, false, false },
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_test_message("%s", cases[i].what);
        Qcow2L2Entry e = decode(cases[i].version, cases[i].cluster_bits, (Qcow2RawEntry){ cases[i].entry, 0 });
        g_assert_cmpint(e.kind, ==, cases[i].kind);
        g_assert_cmphex(e.host_offset, ==, cases[i].host_offset);
        g_assert_cmpuint(e.compressed_bytes, ==, cases[i].compressed_bytes);
        g_assert_cmpint(e.copied, ==, cases[i].copied);
        g_assert_cmpint(e.reserved, ==, cases[i].reserved);
        g_assert_cmpint(e.problem != NULL, ==, e.kind == QCOW2_CLUSTER_INVALID);
    }
}

static void test_extended_entries(void)
{
    static const struct {
        const char *what;
        Qcow2RawEntry raw;
        Qcow2ClusterKind kind, first, last; /* of the cluster, of its first and last subcluster */
        unsigned run;                       /* subclusters like the first */
        bool reserved;
    } cases[] = {
        { "never written", { 0, 0 }, QCOW2_CLUSTER_UNALLOCATED, QCOW2_CLUSTER_UNALLOCATED, QCOW2_CLUSTER_UNALLOCATED, 32 },
        { "space alone", { QCOW2_COPIED | 0x50000, 0 }, QCOW2_CLUSTER_UNALLOCATED, QCOW2_CLUSTER_UNALLOCATED,
          QCOW2_CLUSTER_UNALLOCATED, 32 },
        { "all allocated", { 0x50000, UINT32_MAX }, QCOW2_CLUSTER_NORMAL, QCOW2_CLUSTER_NORMAL, QCOW2_CLUSTER_NORMAL, 32 },
        { "all zero", { 0, UINT64_C(0xffffffff00000000) }, QCOW2_CLUSTER_ZERO, QCOW2_CLUSTER_ZERO, QCOW2_CLUSTER_ZERO, 32 },
        { "three allocated", { 0x50000, 7 }, QCOW2_CLUSTER_MIXED, QCOW2_CLUSTER_NORMAL, QCOW2_CLUSTER_UNALLOCATED, 3 },
        { "first zero, last allocated", { 0x50000, UINT64_C(0x0000000180000000) }, QCOW2_CLUSTER_MIXED,
          QCOW2_CLUSTER_ZERO, QCOW2_CLUSTER_NORMAL, 1 },
        { "last zero, without space", { 0, UINT64_C(1) << 63 }, QCOW2_CLUSTER_MIXED, QCOW2_CLUSTER_UNALLOCATED,
          QCOW2_CLUSTER_ZERO, 31 },
        { "zero flag", { 0x50001, 0 }, QCOW2_CLUSTER_UNALLOCATED, QCOW2_CLUSTER_UNALLOCATED, QCOW2_CLUSTER_UNALLOCATED, 32,
          true },
        { "both", { 0x50000, UINT64_C(1) << 40 | 1 << 8 }, QCOW2_CLUSTER_INVALID },
        { "allocated and nowhere", { 0, 1 }, QCOW2_CLUSTER_INVALID },
        { "unaligned", { 0x50200, 1 }, QCOW2_CLUSTER_INVALID },
        { "compressed with a bitmap", { QCOW2_COMPRESSED | 0x50000, 1 }, QCOW2_CLUSTER_INVALID },
        { "compressed", { QCOW2_COMPRESSED | 0x50000, 0 }, QCOW2_CLUSTER_COMPRESSED, QCOW2_CLUSTER_COMPRESSED,
          QCOW2_CLUSTER_COMPRESSED, 32 },
    };
    Qcow2Geometry g = geometry_of(3, 16, true);
    g_assert_cmpuint(g.l2_entries, ==, 4096);
    g_assert_cmpuint(g.subcluster_size, ==, 2048);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_test_message("%s", cases[i].what);
        Qcow2L2Entry e = qcow2_l2_entry_decode(cases[i].raw, &g);
        g_assert_cmpint(e.kind, ==, cases[i].kind);
        g_assert_cmpint(e.problem != NULL, ==, e.kind == QCOW2_CLUSTER_INVALID);
        g_assert_cmpint(e.reserved, ==, cases[i].reserved);
        if (e.kind != QCOW2_CLUSTER_INVALID) {
            g_assert_cmpint(qcow2_subcluster_kind(&e, 0), ==, cases[i].first);
            g_assert_cmpint(qcow2_subcluster_kind(&e, 31), ==, cases[i].last);
            g_assert_cmpuint(qcow2_subcluster_run(&e, 0, 32), ==, cases[i].run);
        }
        uint8_t table[32];
        qcow2_l2_entry_store(table, 1, cases[i].raw, &g);
        g_assert_true(qcow2_raw_equal(qcow2_l2_entry_load(table, 1, &g), cases[i].raw));
    }
}

static void test_written_subclusters(void)
{
    Qcow2Geometry g = geometry_of(3, 16, true), standard = geometry_of(3, 16, false);
    static const struct {
        Qcow2RawEntry old;
        uint32_t written;
        uint64_t bitmap;
    } cases[] = {
        { { 0, 0 }, 0x30, 0x30 },
        { { 0x10000, UINT64_C(0x100000002) }, 0x30, UINT64_C(0x100000032) },     /* others stay */
        { { 0, UINT64_C(0xffffffff00000000) }, 1, UINT64_C(0xfffffffe00000001) }, /* no longer zero */
        { { QCOW2_COMPRESSED | 0x10000, 0 }, 1, UINT32_MAX },                     /* all of it was copied */
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        Qcow2RawEntry new = qcow2_raw_written(cases[i].old, 0x50000, cases[i].written, &g);
        g_assert_cmphex(new.entry, ==, QCOW2_COPIED | 0x50000);
        g_assert_cmphex(new.bitmap, ==, cases[i].bitmap);
        g_assert_cmphex(qcow2_raw_written(cases[i].old, 0x50000, 1, &standard).bitmap, ==, 0);
    }
}

static void test_compressed_descriptor(void)
{
    for (unsigned cluster_bits = 9; cluster_bits <= 21; cluster_bits++) {
        for (unsigned round = 0; round < 1000; round++) {
            uint64_t offset = (uint64_t)(uint32_t)g_test_rand_int() << 8 | (g_test_rand_int() & 0xff);
            uint64_t bytes = 1 + (uint32_t)g_test_rand_int() % (1u << cluster_bits);
            uint64_t entry = qcow2_compressed_descriptor(offset, bytes, cluster_bits);
            g_assert_cmphex(entry, !=, 0);
            Qcow2L2Entry e = decode(3, cluster_bits, (Qcow2RawEntry){ entry, 0 });
            g_assert_cmpint(e.kind, ==, QCOW2_CLUSTER_COMPRESSED);
            g_assert_cmphex(e.host_offset, ==, offset);
            g_assert_cmpuint(e.compressed_bytes, >=, bytes);
            g_assert_cmpuint(e.compressed_bytes, <, bytes + 512);
        }
        unsigned x = 62 - (cluster_bits - 8);
        g_assert_cmphex(qcow2_compressed_descriptor(0, 0, cluster_bits), ==, 0);
        g_assert_cmphex(qcow2_compressed_descriptor(UINT64_C(1) << MIN(x, 56), 1, cluster_bits), ==, 0);
        g_assert_cmphex(qcow2_compressed_descriptor(512, UINT64_MAX, cluster_bits), ==, 0);
        g_assert_cmphex(
            qcow2_compressed_descriptor(0, (UINT64_C(1) << (cluster_bits - 8)) * 512 + 1, cluster_bits), ==,
            0);
    }
}

static void test_extensions_round_trip(void)
{
    uint32_t names_bytes;
    Qcow2UnknownExtension *unknown = g_new0(Qcow2UnknownExtension, 2);
    unknown[0] = (Qcow2UnknownExtension){ 0x12345678, 5, (uint8_t *)g_strdup("fives") };
    unknown[1] = (Qcow2UnknownExtension){ 0x12345678, 0, (uint8_t *)g_strdup("") };
    Qcow2HeaderExtensions in = {
        .backing_format = g_strdup("qcow2"),
        .feature_names = qcow2_feature_table_new(&names_bytes),
        .bitmaps = g_malloc0(24),
        .bitmaps_bytes = 24,
        .unknown = unknown,
        .unknown_count = 2,
    };
    in.feature_names_bytes = names_bytes;
    size_t size = qcow2_extensions_size(&in);
    g_assert_cmpuint(size, ==, 8 + 8 + 8 + names_bytes + 8 + 24 + 8 + 8 + 8 + 8);
    uint8_t *buf = g_malloc(size);
    g_assert_cmpuint(qcow2_extensions_encode(&in, buf, size - 1), ==, 0);
    g_assert_cmpuint(qcow2_extensions_encode(&in, buf, size), ==, size);

    Qcow2HeaderExtensions out = { 0 };
    GError *error = NULL;
    g_assert_true(qcow2_extensions_decode(buf, size, 112, &out, &error));
    g_assert_no_error(error);
    g_assert_cmpstr(out.backing_format, ==, "qcow2");
    g_assert_cmpmem(out.feature_names, out.feature_names_bytes, in.feature_names, names_bytes);
    g_assert_cmpuint(out.bitmaps_bytes, ==, 24);
    g_assert_cmpuint(out.unknown_count, ==, 2);
    g_assert_cmpmem(out.unknown[0].data, out.unknown[0].length, "fives", 5);
    g_assert_cmpuint(out.unknown[1].length, ==, 0);
    uint8_t *again = g_malloc(size);
    g_assert_cmpuint(qcow2_extensions_encode(&out, again, size), ==, size);
    g_assert_cmpmem(again, size, buf, size);
    qcow2_extensions_clear(&out);

    FOR_EACH_PREFIX(buf, size, copy, prefix, {
        Qcow2HeaderExtensions cut = { 0 };
        g_autoptr(GError) ignored = NULL;
        qcow2_extensions_decode(copy, prefix, 112, &cut, &ignored);
        qcow2_extensions_clear(&cut);
    });
    qcow2_extensions_clear(&in);
    g_free(again);
    g_free(buf);
}

static void test_extensions_refused(void)
{
    static const struct {
        const char *what;
        uint32_t words[8];
        size_t bytes;
        const char *text;
    } cases[] = {
        { "longer than the area",
          { 0x11111111, 25 },
          32,
          "*0x11111111 at byte 112 claims 25 *only 24 remain*" },
        { "length 4 GiB", { 0x11111111, 0xffffffff }, 32, "*claims 4294967295*" },
        { "backing format twice",
          { 0xe2792aca, 3, 0x72617700, 0, 0xe2792aca, 3, 0x72617700 },
          32,
          "*twice*" },
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        uint8_t buf[32];
        for (unsigned w = 0; w < 8; w++) {
            store_be32(buf + 4 * w, cases[i].words[w]);
        }
        Qcow2HeaderExtensions ext = { 0 };
        GError *error = NULL;
        g_assert_false(qcow2_extensions_decode(buf, cases[i].bytes, 112, &ext, &error));
        g_assert_error(error, BDRV_ERROR, EINVAL);
        g_test_message("%s: %s", cases[i].what, error->message);
        g_assert_true(g_pattern_match_simple(cases[i].text, error->message));
        g_error_free(error);
        qcow2_extensions_clear(&ext);
    }
}

static void test_extensions_random(void)
{
    for (unsigned round = 0; round < 20000; round++) {
        size_t size = (uint32_t)g_test_rand_int() % 96;
        uint8_t *buf = g_malloc(size + 1);
        buf = g_realloc(buf, size ? size : 1);
        for (size_t i = 0; i < size; i++) {
            buf[i] = g_test_rand_int() % 4 ? 0 : (uint8_t)(g_test_rand_int() % 24);
        }
        Qcow2HeaderExtensions ext = { 0 };
        g_autoptr(GError) error = NULL;
        g_assert_cmpint(qcow2_extensions_decode(buf, size, 104, &ext, &error), ==, error == NULL);
        qcow2_extensions_clear(&ext);
        g_free(buf);
    }
}

static void test_feature_names(void)
{
    uint8_t table[3 * QCOW2_FEATURE_ENTRY_BYTES + 20] = { 0 };
    table[0] = 0, table[1] = 63;
    memset(table + 2, 'x', 46); /* full length, no terminator */
    table[48] = 0, table[49] = 9;
    memcpy(table + 50, "bad\x01\xff name", 10);
    table[96] = 2, table[97] = 9;
    memcpy(table + 98, "other kind", 10);
    g_autofree char *full = qcow2_feature_name(table, sizeof(table), QCOW2_FEATURE_INCOMPATIBLE, 63);
    g_assert_cmpuint(strlen(full), ==, 46);
    g_autofree char *bad = qcow2_feature_name(table, sizeof(table), QCOW2_FEATURE_INCOMPATIBLE, 9);
    g_assert_true(g_utf8_validate(bad, -1, NULL));
    g_assert_true(g_str_has_prefix(bad, "bad?"));
    g_assert_null(qcow2_feature_name(table, sizeof(table), QCOW2_FEATURE_COMPATIBLE, 9));
    g_autofree char *list = qcow2_feature_list(table, sizeof(table), QCOW2_FEATURE_AUTOCLEAR,
                                               UINT64_C(1) << 9 | UINT64_C(1) << 40);
    g_assert_cmpstr(list, ==, "'other kind' (bit 9), bit 40");
    g_autofree char *none = qcow2_feature_list(NULL, 0, QCOW2_FEATURE_INCOMPATIBLE, 0x60);
    g_assert_cmpstr(none, ==, "bit 5, bit 6");
}

static void fill_snapshot(uint8_t *buf, uint32_t extra, const char *id, const char *name)
{
    store_be64(buf, 0x70000);
    store_be32(buf + 8, 2);
    store_be16(buf + 12, (uint16_t)strlen(id));
    store_be16(buf + 14, (uint16_t)strlen(name));
    store_be32(buf + 16, 1700000000);
    store_be32(buf + 20, 5);
    store_be64(buf + 24, 77);
    store_be32(buf + 32, 4096);
    store_be32(buf + 36, extra);
    for (uint32_t i = 0; i < extra; i++) {
        buf[40 + i] = (uint8_t)(i + 1);
    }
    memcpy(buf + 40 + extra, id, strlen(id));
    memcpy(buf + 40 + extra + strlen(id), name, strlen(name));
}

static void test_snapshots(void)
{
    static const struct {
        const char *what;
        uint32_t extra;
        unsigned version;
        const char *text; /* NULL: fine */
    } cases[] = {
        { "version 2 without extra data", 0, 2, NULL },
        { "64-bit VM state size only", 8, 2, NULL },
        { "version 3", 16, 3, NULL },
        { "with instruction count", 24, 3, NULL },
        { "with fields unknown to us", 1024, 3, NULL },
        { "version 3 needs 16 bytes", 8, 3, "*8 bytes of extra data*at least 16*" },
        { "too much extra data", 1025, 3, "*1025 bytes of extra data*at most 1024*" },
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        uint8_t buf[1200] = { 0 };
        fill_snapshot(buf, cases[i].extra, "1", "before upgrade");
        uint64_t bytes = qcow2_snapshot_entry_bytes(buf);
        g_assert_cmpuint(bytes, ==, (40 + cases[i].extra + 15 + 7) / 8 * 8);
        Qcow2Snapshot s = { .l1_size = 99 };
        GError *error = NULL;
        bool ok = qcow2_snapshot_decode(buf, bytes, cases[i].version, 12345, &s, &error);
        g_assert_cmpint(ok, ==, cases[i].text == NULL);
        if (!ok) {
            g_assert_true(g_pattern_match_simple(cases[i].text, error->message));
            g_assert_cmpuint(s.l1_size, ==, 99);
            g_clear_error(&error);
            continue;
        }
        g_assert_cmpstr(s.id, ==, "1");
        g_assert_cmpstr(s.name, ==, "before upgrade");
        g_assert_cmphex(s.l1_table_offset, ==, 0x70000);
        g_assert_cmpuint(s.vm_state_size, ==, cases[i].extra >= 8 ? UINT64_C(0x0102030405060708) : 4096);
        g_assert_cmpuint(s.disk_size, ==, cases[i].extra >= 16 ? UINT64_C(0x090a0b0c0d0e0f10) : 12345);
        g_assert_cmphex(s.icount, ==, cases[i].extra >= 24 ? UINT64_C(0x1112131415161718) : UINT64_MAX);
        uint8_t again[1200] = { 0 };
        g_assert_cmpuint(qcow2_snapshot_encode(&s, again, sizeof(again)), ==, bytes);
        g_assert_cmpmem(again, bytes, buf, bytes);
        qcow2_snapshot_clear(&s);
    }
}

static void test_snapshot_truncated(void)
{
    uint8_t buf[200] = { 0 };
    fill_snapshot(buf, 24, "17", "name");
    size_t need = 40 + 24 + 6;
    FOR_EACH_PREFIX(buf, need, copy, size, {
        Qcow2Snapshot s = { 0 };
        g_autoptr(GError) error = NULL;
        g_assert_cmpint(qcow2_snapshot_decode(copy, size, 3, 0, &s, &error), ==, size == need);
        qcow2_snapshot_clear(&s);
    });
}

static void test_bitmaps(void)
{
    uint8_t buf[40] = { 0 };
    store_be64(buf, 0x90000);
    store_be32(buf + 8, 3);
    store_be32(buf + 12, QCOW2_BITMAP_AUTO);
    buf[16] = 1, buf[17] = 16;
    store_be16(buf + 18, 5);
    memcpy(buf + 24, "dirty", 5);
    FOR_EACH_PREFIX(buf, 32, copy, size, {
        Qcow2Bitmap b = { 0 };
        size_t consumed = 0;
        g_autoptr(GError) error = NULL;
        bool ok = qcow2_bitmap_decode(copy, size, &b, &consumed, &error);
        g_assert_cmpint(ok, ==, size == 32);
        if (ok) {
            g_assert_cmpstr(b.name, ==, "dirty");
            g_assert_cmpuint(b.table_size, ==, 3);
            g_assert_cmpuint(consumed, ==, 32);
        }
        g_free(b.name);
        g_free(b.extra);
    });
    store_be32(buf + 20, 0xfffffff0); /* extra_data_size */
    Qcow2Bitmap b;
    size_t consumed;
    g_assert_false(qcow2_bitmap_decode(buf, 32, &b, &consumed, NULL));
}

int main(int argc, char **argv)
{
    /* GLib takes the seed from its own option; ours comes from the environment. */
    const char *seed = g_getenv("BDRV_TEST_SEED");
    g_autofree char *seed_option = seed ? g_strdup_printf("--seed=%s", seed) : NULL;
    char *args[] = { argv[0], seed_option, NULL };
    int count = 2;
    char **with_seed = args;
    if (seed && argc == 1) {
        g_test_init(&count, &with_seed, NULL);
    } else {
        g_test_init(&argc, &argv, NULL);
    }
    g_test_add_func("/qcow2/format/a header comes back as it was written", test_header_round_trip);
    g_test_add_func("/qcow2/format/header fields are where the specification says", test_header_layout);
    g_test_add_func("/qcow2/format/a bad header is refused by field and value", test_header_refused);
    g_test_add_func("/qcow2/format/a truncated header is refused", test_header_truncated);
    g_test_add_func("/qcow2/format/probing recognises later versions and no other format", test_probe);
    g_test_add_func("/qcow2/format/refcounts of every width come back", test_refcount_widths);
    g_test_add_func("/qcow2/format/refcounts are packed as the specification says", test_refcount_packing);
    g_test_add_func("/qcow2/format/l2 entries are told apart", test_l2_entries);
    g_test_add_func("/qcow2/format/extended L2 entries are decoded subcluster by subcluster", test_extended_entries);
    g_test_add_func("/qcow2/format/written subclusters become allocated, others stay", test_written_subclusters);
    g_test_add_func("/qcow2/format/a compressed descriptor covers its data", test_compressed_descriptor);
    g_test_add_func("/qcow2/format/extensions come back, unknown ones included", test_extensions_round_trip);
    g_test_add_func("/qcow2/format/extensions that lie are refused", test_extensions_refused);
    g_test_add_func("/qcow2/format/random extension areas do no harm", test_extensions_random);
    g_test_add_func("/qcow2/format/feature names from images are printable", test_feature_names);
    g_test_add_func("/qcow2/format/snapshot entries come back with their extra data", test_snapshots);
    g_test_add_func("/qcow2/format/a truncated snapshot entry is refused", test_snapshot_truncated);
    g_test_add_func("/qcow2/format/bitmap directory entries stay inside the directory", test_bitmaps);
    return g_test_run();
}
