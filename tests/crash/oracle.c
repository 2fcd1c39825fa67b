/* SPDX-License-Identifier: MIT */
#include "tests/crash/oracle.h"

#include <openssl/evp.h>
#include <string.h>
#include <zlib.h>

#include "tests/lib/test-node.h"

#define OFFSET_BITS UINT64_C(0x00fffffffffffe00)
#define COPIED (UINT64_C(1) << 63)
#define COMPRESSED (UINT64_C(1) << 62)
#define ZERO UINT64_C(1)
#define EXTENDED_L2 UINT64_C(16) /* of the incompatible features */
#define DATA_FILE UINT64_C(4)
#define BITMAPS 0x23852875 /* header extension */
#define ENCRYPTION 0x0537be77
#define BITMAP_FIXED 24   /* bytes of a bitmap directory entry before its variable part */
#define SNAPSHOT_FIXED 40 /* bytes of a snapshot table entry before its variable part */

enum { ROLE_NONE, ROLE_HEADER, ROLE_REFCOUNT_TABLE, ROLE_REFCOUNT_BLOCK, ROLE_L1, ROLE_L2, ROLE_DATA,
       ROLE_COMPRESSED, ROLE_SNAPSHOT_TABLE, ROLE_BITMAP_DIRECTORY, ROLE_BITMAP_TABLE, ROLE_BITMAP,
       ROLE_ENCRYPTION };
static const char *const role_names[] = { "nothing",  "header",   "refcount table", "refcount block", "L1 table",
                                          "L2 table", "data",     "compressed data", "snapshot table",
                                          "bitmap directory", "bitmap table", "bitmap data", "encryption header" };

void fault(Oracle *o, const char *format, ...)
{
    va_list args;
    if (!o->fault[0]) {
        va_start(args, format);
        g_vsnprintf(o->fault, sizeof(o->fault), format, args);
        va_end(args);
    }
}

/* Big-endian number; past the end of the file there are zeroes. */
static uint64_t number(const Oracle *o, uint64_t offset, unsigned width)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < width; i++) {
        uint64_t at = offset + i;
        value = value << 8 | (at < (uint64_t)o->length ? o->bytes[at] : 0);
    }
    return value;
}

static int64_t cluster_size(const Oracle *o)
{
    return INT64_C(1) << o->cluster_bits;
}

/* ---- L2 entries ---- */

typedef struct L2Entry {
    uint64_t word;
    uint32_t allocated, zero; /* subclusters; without extended entries 0 */
} L2Entry;

static bool is_extended(const Oracle *o)
{
    return o->incompatible & EXTENDED_L2;
}

static bool has_data_file(const Oracle *o)
{
    return o->incompatible & DATA_FILE;
}

static uint32_t l2_entries(const Oracle *o)
{
    return (uint32_t)cluster_size(o) / (is_extended(o) ? 16 : 8);
}

static L2Entry l2_entry(const Oracle *o, uint64_t table, uint32_t index)
{
    if (!is_extended(o)) {
        return (L2Entry){ .word = number(o, table + (uint64_t)index * 8, 8) };
    }
    uint64_t at = table + (uint64_t)index * 16;
    return (L2Entry){ number(o, at, 8), (uint32_t)number(o, at + 12, 4), (uint32_t)number(o, at + 8, 4) };
}

/* ---- references ---- */

static void refer_cluster(Oracle *o, int64_t index, int role, int64_t place, int tree)
{
    OracleCluster *c = &o->clusters[index];
    bool may_share = role == ROLE_COMPRESSED ||
                     ((role == ROLE_L2 || role == ROLE_DATA) && c->place == place && c->tree != tree);
    if (c->references && (c->role != role || !may_share)) {
        fault(o, "cluster %" G_GINT64_FORMAT " is %s (place %" G_GINT64_FORMAT ") and %s (place %" G_GINT64_FORMAT ")",
              index, role_names[c->role], c->place, role_names[role], place);
    }
    c->references++;
    c->role = (uint8_t)role;
    c->place = place;
    c->tree = tree;
}

/* The clusters that [offset, +bytes) touches. False: outside of the file, or not aligned as it must be. */
static bool refer(Oracle *o, uint64_t offset, uint64_t bytes, int role, int64_t place, int tree)
{
    uint64_t mask = (uint64_t)cluster_size(o) - 1, length = (uint64_t)o->length;
    if (bytes == 0) {
        return true;
    }
    if (role != ROLE_COMPRESSED && (offset & mask)) {
        fault(o, "%s at 0x%" G_GINT64_MODIFIER "x is not aligned", role_names[role], offset);
        return false;
    }
    if (offset >= length || ((offset + bytes - 1) & ~mask) >= length) {
        fault(o, "%s at 0x%" G_GINT64_MODIFIER "x (%" G_GUINT64_FORMAT " bytes) is past the end of the file, 0x%"
              G_GINT64_MODIFIER "x", role_names[role], offset, bytes, o->length);
        return false;
    }
    for (uint64_t i = offset >> o->cluster_bits; i <= (offset + bytes - 1) >> o->cluster_bits; i++) {
        refer_cluster(o, (int64_t)i, role, place, tree);
    }
    return true;
}

/* ---- header ---- */

static bool read_header(Oracle *o)
{
    o->is_image = o->length >= 72 && number(o, 0, 4) == 0x514649fb;
    if (!o->is_image) {
        return false;
    }
    o->version = (unsigned)number(o, 4, 4);
    o->cluster_bits = (unsigned)number(o, 20, 4);
    o->size = number(o, 24, 8);
    o->l1_size = (uint32_t)number(o, 36, 4);
    o->l1_offset = number(o, 40, 8);
    o->refcount_table_offset = number(o, 48, 8);
    o->refcount_table_clusters = (uint32_t)number(o, 56, 4);
    o->snapshot_count = (uint32_t)number(o, 60, 4);
    o->snapshots_offset = number(o, 64, 8);
    o->incompatible = o->version >= 3 ? number(o, 72, 8) : 0;
    o->dirty = o->incompatible & 1;
    o->refcount_order = o->version >= 3 ? (unsigned)number(o, 96, 4) : 4;
    if (o->version < 2 || o->version > 3 || o->cluster_bits < 9 || o->cluster_bits > 21 || o->refcount_order > 6) {
        fault(o, "the header is damaged: version %u, cluster bits %u, refcount order %u", o->version, o->cluster_bits,
              o->refcount_order);
    }
    return !o->fault[0];
}

static uint64_t counted(const Oracle *o, int64_t cluster)
{
    uint64_t per_block = (UINT64_C(8) << o->cluster_bits) >> o->refcount_order;
    uint64_t index = (uint64_t)cluster / per_block, in_block = (uint64_t)cluster % per_block;
    if (index >= ((uint64_t)o->refcount_table_clusters << o->cluster_bits) / 8) {
        return 0;
    }
    uint64_t block = number(o, o->refcount_table_offset + index * 8, 8) & ~UINT64_C(511);
    if (!block) {
        return 0;
    }
    if (o->refcount_order >= 3) {
        unsigned width = 1u << (o->refcount_order - 3);
        return number(o, block + in_block * width, width);
    }
    unsigned bits = 1u << o->refcount_order, in_byte = (unsigned)(in_block * bits % 8);
    return number(o, block + in_block * bits / 8, 1) >> in_byte & ((1u << bits) - 1);
}

/* ---- walking ---- */

static void walk_refcounts(Oracle *o)
{
    uint64_t entries = ((uint64_t)o->refcount_table_clusters << o->cluster_bits) / 8;
    if (!refer(o, o->refcount_table_offset, entries * 8, ROLE_REFCOUNT_TABLE, 0, 0)) {
        return;
    }
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t block = number(o, o->refcount_table_offset + i * 8, 8);
        if (block & 511) {
            fault(o, "refcount table entry %" G_GUINT64_FORMAT " has reserved bits", i);
        } else if (block) {
            refer(o, block, (uint64_t)cluster_size(o), ROLE_REFCOUNT_BLOCK, (int64_t)i, 0);
        }
    }
}

static uint64_t compressed_place(const Oracle *o, uint64_t entry, uint64_t *bytes)
{
    unsigned shift = 62 - (o->cluster_bits - 8);
    uint64_t offset = entry & ((UINT64_C(1) << shift) - 1);
    uint64_t sectors = ((entry & ~(COPIED | COMPRESSED)) >> shift) + 1;
    *bytes = sectors * 512 - offset % 512;
    return offset;
}

/* Whether it has a place in a file; in a data file that may be offset 0. */
static bool is_placed(const Oracle *o, L2Entry e)
{
    return (e.word & OFFSET_BITS) || (has_data_file(o) && (e.word & COPIED));
}

static void walk_bitmap(Oracle *o, L2Entry e, int64_t place)
{
    if (e.word & COMPRESSED ? e.allocated || e.zero : e.allocated & e.zero) {
        fault(o, "guest cluster %" G_GINT64_FORMAT " has a senseless bitmap: allocated %08x, zero %08x", place, e.allocated,
              e.zero);
    } else if (e.allocated && !is_placed(o, e)) {
        fault(o, "guest cluster %" G_GINT64_FORMAT " has subclusters (%08x) and is nowhere", place, e.allocated);
    }
}

static void walk_l2_entry(Oracle *o, L2Entry e, int64_t place, int tree)
{
    uint64_t bytes, entry = e.word;
    walk_bitmap(o, e, place);
    if (has_data_file(o) && (entry & COMPRESSED)) {
        fault(o, "guest cluster %" G_GINT64_FORMAT " is compressed, and there is a data file", place);
        return;
    }
    if (entry & COMPRESSED) {
        uint64_t offset = compressed_place(o, entry, &bytes);
        if (entry & COPIED) {
            fault(o, "guest cluster %" G_GINT64_FORMAT " is compressed and COPIED", place);
        }
        refer(o, offset, bytes, ROLE_COMPRESSED, place, tree);
        return;
    }
    if ((entry & ~(OFFSET_BITS | COPIED | ZERO)) || ((entry & ZERO) && (o->version < 3 || is_extended(o)))) {
        fault(o, "guest cluster %" G_GINT64_FORMAT " has reserved bits: 0x%" G_GINT64_MODIFIER "x", place, entry);
    } else if (has_data_file(o) && is_placed(o, e)) {
        if (entry >> 63 == 0 || (entry & OFFSET_BITS) != (uint64_t)place << o->cluster_bits) {
            fault(o, "guest cluster %" G_GINT64_FORMAT " is not in its place in the data file: 0x%" G_GINT64_MODIFIER "x",
                  place, entry);
        }
    } else if (entry & OFFSET_BITS) {
        refer(o, entry & OFFSET_BITS, (uint64_t)cluster_size(o), ROLE_DATA, place, tree);
    } else if (entry & COPIED) {
        fault(o, "guest cluster %" G_GINT64_FORMAT " is COPIED but nowhere", place);
    }
}

/* @tree: 0 is the active one. */
static void walk_l1(Oracle *o, uint64_t l1_offset, uint32_t l1_size, int tree)
{
    if (!refer(o, l1_offset, (uint64_t)l1_size * 8, ROLE_L1, tree, tree)) {
        return;
    }
    for (uint32_t i = 0; i < l1_size; i++) {
        uint64_t entry = number(o, l1_offset + (uint64_t)i * 8, 8), table = entry & OFFSET_BITS;
        if (entry & ~(OFFSET_BITS | COPIED)) {
            fault(o, "L1 entry %u has reserved bits: 0x%" G_GINT64_MODIFIER "x", i, entry);
            return;
        }
        if (!table || !refer(o, table, (uint64_t)cluster_size(o), ROLE_L2, i, tree)) {
            continue;
        }
        for (uint32_t j = 0; j < l2_entries(o); j++) {
            L2Entry e = l2_entry(o, table, j);
            if (e.word || e.allocated || e.zero) {
                walk_l2_entry(o, e, (int64_t)i * l2_entries(o) + j, tree);
            }
        }
    }
}

static void walk_snapshots(Oracle *o)
{
    uint64_t at = o->snapshots_offset;
    for (uint32_t i = 0; i < o->snapshot_count && !o->fault[0]; i++) {
        if (at + SNAPSHOT_FIXED > (uint64_t)o->length) {
            fault(o, "snapshot %u of %u is past the end of the file", i, o->snapshot_count);
            return;
        }
        uint64_t variable = number(o, at + 36, 4) + number(o, at + 12, 2) + number(o, at + 14, 2);
        walk_l1(o, number(o, at, 8), (uint32_t)number(o, at + 8, 4), (int)i + 1);
        at += (SNAPSHOT_FIXED + variable + 7) & ~UINT64_C(7);
    }
    refer(o, o->snapshots_offset, at - o->snapshots_offset, ROLE_SNAPSHOT_TABLE, 0, 0);
}

/* ---- bitmaps ---- */

static uint64_t find_extension(const Oracle *o, uint32_t type)
{
    uint64_t at = o->version < 3 ? 72 : number(o, 100, 4);
    while (at + 8 <= (uint64_t)cluster_size(o) && number(o, at, 4)) {
        if (number(o, at, 4) == type) {
            return at + 8;
        }
        at += 8 + ((number(o, at + 4, 4) + 7) & ~UINT64_C(7));
    }
    return 0;
}

/* Table entries that all bits of a bitmap of this granularity take. */
static uint64_t bitmap_entries(const Oracle *o, unsigned granularity_bits)
{
    uint64_t bits = (o->size + (UINT64_C(1) << granularity_bits) - 1) >> granularity_bits;
    return ((bits + 7) / 8 + (uint64_t)cluster_size(o) - 1) >> o->cluster_bits;
}

static void walk_bitmap_table(Oracle *o, uint64_t table, uint64_t entries, int place)
{
    refer(o, table, entries * 8, ROLE_BITMAP_TABLE, place, 0);
    for (uint64_t i = 0; i < entries && !o->fault[0]; i++) {
        uint64_t entry = number(o, table + i * 8, 8);
        if ((entry & ~(OFFSET_BITS | 1)) || ((entry & OFFSET_BITS) && (entry & 1))) {
            fault(o, "bitmap table entry %" G_GUINT64_FORMAT " is 0x%" G_GINT64_MODIFIER "x", i, entry);
        } else if (entry & OFFSET_BITS) {
            refer(o, entry & OFFSET_BITS, (uint64_t)cluster_size(o), ROLE_BITMAP, (int64_t)i, 0);
        }
    }
}

/* The entry at @at of the directory; returns where it ends. */
static uint64_t walk_bitmap_entry(Oracle *o, uint64_t at, int place)
{
    uint64_t table = number(o, at, 8), entries = number(o, at + 8, 4), flags = number(o, at + 12, 4);
    unsigned bits = (unsigned)number(o, at + 17, 1);
    uint64_t name_bytes = number(o, at + 18, 2), name = at + BITMAP_FIXED + number(o, at + 20, 4);
    if ((flags & ~UINT64_C(7)) || number(o, at + 16, 1) != 1 || bits < 9 || bits > 31 || !name_bytes) {
        fault(o, "bitmap %d: flags 0x%" G_GINT64_MODIFIER "x, granularity bits %u, a name of %u bytes", place, flags, bits,
              (unsigned)name_bytes);
        return at;
    }
    if (!(flags & 1) && entries != bitmap_entries(o, bits)) {
        fault(o, "bitmap %d, which is not in use, has %" G_GUINT64_FORMAT " table entries", place, entries);
        return at;
    }
    if (name_bytes == 1 && number(o, name, 1) == 'b') {
        o->has_bitmap = true;
        o->bitmap_in_use = flags & 1;
        o->bitmap_table = table;
        o->bitmap_granularity_bits = bits;
    }
    walk_bitmap_table(o, table, entries, place);
    return (name + name_bytes + 7) & ~UINT64_C(7);
}

/* They count while their autoclear bit is set. */
static void walk_bitmaps(Oracle *o)
{
    if (o->version < 3 || !(number(o, 88, 8) & 1)) {
        return;
    }
    uint64_t extension = find_extension(o, BITMAPS);
    uint64_t size = number(o, extension + 8, 8), offset = number(o, extension + 16, 8), at = offset;
    if (!extension || !refer(o, offset, size, ROLE_BITMAP_DIRECTORY, 0, 0)) {
        fault(o, "the autoclear bit tells of bitmaps, no extension does");
        return;
    }
    for (unsigned i = 0; i < number(o, extension, 4) && !o->fault[0]; i++) {
        at = walk_bitmap_entry(o, at, (int)i);
    }
    if (at != offset + size) {
        fault(o, "the bitmap directory has %" G_GUINT64_FORMAT " bytes, its entries %" G_GUINT64_FORMAT, size, at - offset);
    }
}

bool oracle_bit(const Oracle *o, int64_t n)
{
    uint64_t bit = (uint64_t)n * 512 >> o->bitmap_granularity_bits, byte = bit / 8;
    uint64_t entry = number(o, o->bitmap_table + (byte >> o->cluster_bits) * 8, 8), offset = entry & OFFSET_BITS;
    if (!offset) {
        return entry & 1;
    }
    return number(o, offset + (byte & (uint64_t)(cluster_size(o) - 1)), 1) >> (bit % 8) & 1;
}

/* ---- keys ---- */

static uint32_t crypt_method(const Oracle *o)
{
    return (uint32_t)number(o, 32, 4);
}

static void walk_keys(Oracle *o)
{
    uint64_t extension = find_extension(o, ENCRYPTION);
    uint64_t offset = number(o, extension, 8), bytes = number(o, extension + 8, 8);
    if (!extension || !refer(o, offset, bytes, ROLE_ENCRYPTION, 0, 0) || offset + bytes > (uint64_t)o->length) {
        fault(o, "the image is encrypted and has no encryption header, or not all of it");
        return;
    }
    o->known_keys = o->known_keys ? o->known_keys : keys_new();
    o->keys = keys_of(o->known_keys, o->bytes + offset, bytes);
    if (o->keys->fault[0]) {
        fault(o, "%s", o->keys->fault);
    }
}

/* ---- comparing ---- */

static void compare_counts(Oracle *o)
{
    int64_t clusters = (o->length + cluster_size(o) - 1) >> o->cluster_bits;
    for (int64_t i = 0; i < clusters; i++) {
        uint64_t count = counted(o, i);
        if (o->dirty && count < o->clusters[i].references) {
            o->behind++;
        } else if (count < o->clusters[i].references) {
            fault(o, "cluster %" G_GINT64_FORMAT " (%s) is counted %" G_GUINT64_FORMAT " times and referred to %u times", i,
                  role_names[o->clusters[i].role], count, o->clusters[i].references);
        }
        o->leaks += count > o->clusters[i].references;
    }
}

static void compare_flag(Oracle *o, uint64_t entry, const char *what, int64_t place)
{
    int64_t cluster = (int64_t)((entry & OFFSET_BITS) >> o->cluster_bits);
    uint32_t references = o->clusters[cluster].references;
    bool copied = entry & COPIED;
    if (copied && references != 1) {
        fault(o, "%s %" G_GINT64_FORMAT " is COPIED, its cluster %" G_GINT64_FORMAT " is referred to %u times", what, place,
              cluster, references);
    } else if (!o->dirty && copied != (counted(o, cluster) == 1)) {
        g_snprintf(o->untidy, sizeof(o->untidy), "%s %" G_GINT64_FORMAT ": COPIED is %d, count is %" G_GUINT64_FORMAT, what,
                   place, copied, counted(o, cluster));
    }
}

/* Of the active tables: in a snapshot's the flag says nothing. */
static void compare_flags(Oracle *o)
{
    for (uint32_t i = 0; i < o->l1_size && !o->fault[0]; i++) {
        uint64_t l1_entry = number(o, o->l1_offset + (uint64_t)i * 8, 8), table = l1_entry & OFFSET_BITS;
        if (!table) {
            continue;
        }
        compare_flag(o, l1_entry, "L1 entry", i);
        for (uint32_t j = 0; j < l2_entries(o) && !o->fault[0] && !has_data_file(o); j++) {
            uint64_t entry = l2_entry(o, table, j).word;
            if (!(entry & COMPRESSED) && (entry & OFFSET_BITS)) {
                compare_flag(o, entry, "guest cluster", (int64_t)i * l2_entries(o) + j);
            }
        }
    }
}

void oracle_prepare(Oracle *o, const uint8_t *bytes, int64_t length)
{
    int64_t most = length / 512 + 1;
    o->bytes = bytes;
    o->length = length;
    o->fault[0] = o->untidy[0] = '\0';
    o->leaks = o->behind = 0;
    o->dirty = o->has_bitmap = o->bitmap_in_use = false;
    o->inflated = -1;
    o->keys = NULL;
    if (most > o->cluster_capacity) {
        o->clusters = g_renew(OracleCluster, o->clusters, most);
        o->cluster_capacity = most;
    }
}

void oracle_judge(Oracle *o, const uint8_t *bytes, int64_t length)
{
    oracle_prepare(o, bytes, length);
    if (!read_header(o)) {
        return;
    }
    memset(o->clusters, 0, sizeof(*o->clusters) * (size_t)((length >> o->cluster_bits) + 1));
    refer(o, 0, (uint64_t)cluster_size(o), ROLE_HEADER, 0, 0);
    walk_refcounts(o);
    walk_l1(o, o->l1_offset, o->l1_size, 0);
    walk_snapshots(o);
    walk_bitmaps(o);
    if (crypt_method(o) == 2) {
        walk_keys(o);
    }
    if (!o->fault[0]) {
        compare_counts(o);
    }
    if (!o->fault[0]) {
        compare_flags(o);
    }
    uint64_t covered = (uint64_t)o->l1_size * l2_entries(o) << o->cluster_bits;
    if (!o->fault[0] && covered < o->size) {
        fault(o, "%u L1 entries do not reach to the size %" G_GUINT64_FORMAT, o->l1_size, o->size);
    }
    if (!o->fault[0] && has_data_file(o) && (uint64_t)o->data_length < o->size) {
        fault(o, "the data file has %" G_GINT64_FORMAT " bytes, the disk %" G_GUINT64_FORMAT, o->data_length, o->size);
    }
}

void oracle_clear(Oracle *o)
{
    g_free(o->clusters);
    g_free(o->plain);
    EVP_CIPHER_CTX_free(o->aes);
    g_clear_pointer(&o->known_keys, g_hash_table_unref);
    *o = (Oracle){ 0 };
}

/* ---- guest data ---- */

static bool inflate_cluster(Oracle *o, uint64_t entry, int64_t place)
{
    uint64_t bytes, offset = compressed_place(o, entry, &bytes);
    z_stream z = { .next_in = (Bytef *)o->bytes + offset, .avail_in = (uInt)MIN(bytes, (uint64_t)o->length - offset) };
    o->plain = g_realloc(o->plain, (gsize)cluster_size(o));
    z.next_out = o->plain;
    z.avail_out = (uInt)cluster_size(o);
    o->inflated = -1;
    if (inflateInit2(&z, -12) != Z_OK) {
        return false;
    }
    int ret = inflate(&z, Z_FINISH);
    bool ok = z.avail_out == 0 && (ret == Z_STREAM_END || ret == Z_BUF_ERROR || ret == Z_OK);
    inflateEnd(&z);
    o->inflated = ok ? place : -1;
    return ok;
}

/* AES-128 in CBC mode with a sector number as vector. Method 1: the key is the passphrase with zeroes behind, the number
 * the guest's; method 2: the key is that of the slots, which never changes, the number the file's. */
static const uint8_t *decrypt(Oracle *o, int64_t n, const uint8_t *sector)
{
    const uint8_t passphrase[16] = TEST_PASSPHRASE;
    uint8_t iv[16] = { 0 };
    int bytes;

    if (!o->aes) {
        o->aes = EVP_CIPHER_CTX_new();
        g_assert_true(EVP_DecryptInit_ex(o->aes, EVP_aes_128_cbc(), NULL, o->keys ? o->keys->key : passphrase, iv));
        EVP_CIPHER_CTX_set_padding(o->aes, 0);
    }
    for (unsigned i = 0; i < 8; i++) {
        iv[i] = (uint8_t)((uint64_t)n >> (8 * i));
    }
    g_assert_true(EVP_DecryptInit_ex(o->aes, NULL, NULL, NULL, iv) &&
                  EVP_DecryptUpdate(o->aes, o->decrypted, &bytes, sector, sizeof(o->decrypted)));
    return o->decrypted;
}

OracleKind oracle_sector(Oracle *o, int64_t n, const uint8_t **data)
{
    int64_t guest = n * 512, place = guest >> o->cluster_bits, entries = l2_entries(o);
    int64_t in_cluster = guest & (cluster_size(o) - 1);
    uint64_t table = number(o, o->l1_offset + (uint64_t)(place / entries) * 8, 8) & OFFSET_BITS;
    L2Entry e = table ? l2_entry(o, table, (uint32_t)(place % entries)) : (L2Entry){ 0 };
    uint64_t entry = e.word;
    static const uint8_t zeroes[512];
    if (entry & COMPRESSED) {
        if (o->inflated != place && !inflate_cluster(o, entry, place)) {
            return ORACLE_BROKEN;
        }
        *data = o->plain + in_cluster;
        return ORACLE_DATA;
    }
    unsigned subcluster = is_extended(o) ? (unsigned)(in_cluster >> (o->cluster_bits - 5)) : 0;
    if (is_extended(o) ? e.zero >> subcluster & 1 : entry & ZERO) {
        return ORACLE_ZERO;
    }
    if (is_extended(o) ? !(e.allocated >> subcluster & 1) : !is_placed(o, e)) {
        return ORACLE_BACKING;
    }
    int64_t at = (int64_t)(entry & OFFSET_BITS) + in_cluster;
    if (has_data_file(o)) {
        *data = at < o->data_length ? o->data + at : zeroes;
    } else {
        *data = at < o->length ? o->bytes + at : zeroes;
    }
    if (crypt_method(o)) {
        *data = decrypt(o, o->keys ? at / 512 : n, *data);
    }
    return ORACLE_DATA;
}
