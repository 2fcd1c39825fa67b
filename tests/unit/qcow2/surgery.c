/* SPDX-License-Identifier: MIT */
#include "tests/unit/qcow2/surgery.h"

#include <string.h>
#include <zlib.h>

#include "drivers/qcow2/format/format.h"

/* Places in the header. */
#define CLUSTER_BITS 20
#define DISK_SIZE 24
#define L1_SIZE 36
#define L1_OFFSET 40
#define REFTABLE_OFFSET 48
#define SNAPSHOTS 60
#define SNAPSHOTS_OFFSET 64
#define INCOMPATIBLE 72
#define REFCOUNT_ORDER 96

uint64_t surgery_peek(BdrvSimDisk *disk, uint64_t offset, unsigned width)
{
    uint8_t buf[8];
    uint64_t value = 0;
    bdrv_simdisk_peek(disk, (int64_t)offset, buf, width);
    for (unsigned i = 0; i < width; i++) {
        value = value << 8 | buf[i];
    }
    return value;
}

void surgery_poke(BdrvSimDisk *disk, uint64_t offset, unsigned width, uint64_t value)
{
    uint8_t buf[8];
    for (unsigned i = width; i-- > 0; value >>= 8) {
        buf[i] = (uint8_t)value;
    }
    bdrv_simdisk_poke(disk, (int64_t)offset, buf, width);
}

static unsigned cluster_bits(BdrvSimDisk *disk)
{
    return (unsigned)surgery_peek(disk, CLUSTER_BITS, 4);
}

static uint64_t cluster_size(BdrvSimDisk *disk)
{
    return UINT64_C(1) << cluster_bits(disk);
}

/* The first cluster behind the file. */
static uint64_t end_of_file(BdrvSimDisk *disk)
{
    uint64_t size = cluster_size(disk);
    return ((uint64_t)bdrv_simdisk_length(disk) + size - 1) / size * size;
}

static unsigned refcount_order(BdrvSimDisk *disk)
{
    return surgery_peek(disk, 4, 4) == 2 ? 4 : (unsigned)surgery_peek(disk, REFCOUNT_ORDER, 4);
}

/* ---- refcounts ---- */

typedef struct Count {
    uint64_t table_entry; /* where the block's offset is */
    uint64_t index;       /* in the block */
} Count;

static Count count_of(BdrvSimDisk *disk, uint64_t host_offset)
{
    uint64_t cluster = host_offset >> cluster_bits(disk);
    uint64_t per_block = cluster_size(disk) * 8 >> refcount_order(disk);
    return (Count){ surgery_peek(disk, REFTABLE_OFFSET, 8) + cluster / per_block * 8, cluster % per_block };
}

static uint8_t *load_block(BdrvSimDisk *disk, uint64_t offset)
{
    uint8_t *block = g_malloc0(cluster_size(disk));
    if (offset) {
        bdrv_simdisk_peek(disk, (int64_t)offset, block, cluster_size(disk));
    }
    return block;
}

uint64_t surgery_refcount(BdrvSimDisk *disk, uint64_t host_offset)
{
    Count count = count_of(disk, host_offset);
    g_autofree uint8_t *block = load_block(disk, surgery_peek(disk, count.table_entry, 8) & QCOW2_REFTABLE_OFFSET_MASK);
    return qcow2_refcount_get(block, count.index, refcount_order(disk));
}

void surgery_set_refcount(BdrvSimDisk *disk, uint64_t host_offset, uint64_t value)
{
    Count count = count_of(disk, host_offset);
    uint64_t offset = surgery_peek(disk, count.table_entry, 8) & QCOW2_REFTABLE_OFFSET_MASK;
    g_autofree uint8_t *block = load_block(disk, offset);

    if (!offset) {
        uint64_t per_block = cluster_size(disk) * 8 >> refcount_order(disk);
        offset = host_offset / (per_block * cluster_size(disk)) * per_block * cluster_size(disk);
        surgery_poke(disk, count.table_entry, 8, offset);
        qcow2_refcount_set(block, 0, refcount_order(disk), 1);
    }
    qcow2_refcount_set(block, count.index, refcount_order(disk), value);
    bdrv_simdisk_poke(disk, (int64_t)offset, block, cluster_size(disk));
}

void surgery_use_up(BdrvSimDisk *disk, uint64_t host_end)
{
    static const uint8_t zero;
    for (uint64_t at = 0; at < host_end; at += cluster_size(disk)) {
        if (surgery_refcount(disk, at) == 0) {
            surgery_set_refcount(disk, at, 1);
        }
    }
    if ((uint64_t)bdrv_simdisk_length(disk) < host_end) {
        bdrv_simdisk_poke(disk, (int64_t)host_end - 1, &zero, 1);
    }
}

/* ---- snapshots ---- */

static uint64_t l2_entry_bytes(BdrvSimDisk *disk)
{
    return surgery_peek(disk, INCOMPATIBLE, 8) & QCOW2_INCOMPAT_EXTENDED_L2 ? 16 : 8;
}

static Qcow2L2Entry decode_compressed(BdrvSimDisk *disk, uint64_t descriptor)
{
    Qcow2Geometry geometry = { .version = 3, .cluster_bits = cluster_bits(disk), .cluster_size = (uint32_t)cluster_size(disk) };
    return qcow2_l2_entry_decode((Qcow2RawEntry){ descriptor, 0 }, &geometry);
}

/* One reference more to all that a compressed cluster touches. */
static void ref_compressed(BdrvSimDisk *disk, uint64_t descriptor)
{
    uint64_t size = cluster_size(disk);
    Qcow2L2Entry entry = decode_compressed(disk, descriptor);
    for (uint64_t c = entry.host_offset / size; c <= (entry.host_offset + entry.compressed_bytes - 1) / size; c++) {
        surgery_set_refcount(disk, c * size, surgery_refcount(disk, c * size) + 1);
    }
}

static void share_table(BdrvSimDisk *disk, uint64_t table)
{
    for (uint64_t at = table; at < table + cluster_size(disk); at += l2_entry_bytes(disk)) {
        uint64_t entry = surgery_peek(disk, at, 8), data = entry & QCOW2_OFFSET_MASK;
        if (data && !(entry & QCOW2_COMPRESSED)) {
            surgery_poke(disk, at, 8, entry & ~QCOW2_COPIED);
            surgery_set_refcount(disk, data, 2);
        } else if (entry & QCOW2_COMPRESSED) {
            ref_compressed(disk, entry);
        }
    }
}

void surgery_share(BdrvSimDisk *disk)
{
    uint64_t l1 = surgery_peek(disk, L1_OFFSET, 8), entries = surgery_peek(disk, L1_SIZE, 4);
    for (uint64_t at = l1; at < l1 + entries * 8; at += 8) {
        uint64_t table = surgery_peek(disk, at, 8) & QCOW2_OFFSET_MASK;
        if (table) {
            share_table(disk, table);
            surgery_poke(disk, at, 8, table);
            surgery_set_refcount(disk, table, 2);
        }
    }
}

/* As an implementation of the specification would have made it. */
void surgery_add_snapshot(BdrvSimDisk *disk)
{
    surgery_share(disk);
    uint64_t size = cluster_size(disk), l1_copy = end_of_file(disk), directory = l1_copy + size;
    g_autofree uint8_t *l1 = load_block(disk, surgery_peek(disk, L1_OFFSET, 8));

    bdrv_simdisk_poke(disk, (int64_t)l1_copy, l1, size);
    surgery_poke(disk, directory, 8, l1_copy);
    surgery_poke(disk, directory + 8, 4, surgery_peek(disk, L1_SIZE, 4));
    surgery_poke(disk, directory + 12, 2, 1); /* length of the id */
    surgery_poke(disk, directory + 14, 2, 1); /* of the name */
    surgery_poke(disk, directory + 36, 4, 16); /* extra data: size of the state, of the disk */
    surgery_poke(disk, directory + 48, 8, surgery_peek(disk, DISK_SIZE, 8));
    surgery_poke(disk, directory + 56, 2, '1' << 8 | 's');
    surgery_poke(disk, directory + size - 8, 8, 0);
    surgery_set_refcount(disk, l1_copy, 1);
    surgery_set_refcount(disk, directory, 1);
    surgery_poke(disk, SNAPSHOTS, 4, 1);
    surgery_poke(disk, SNAPSHOTS_OFFSET, 8, directory);
}

/* ---- compressed clusters ---- */

#define STEP 700

static uint64_t deflate_cluster(const uint8_t *from, uint64_t bytes, uint8_t *to, uint64_t room)
{
    z_stream stream = { .next_in = (uint8_t *)from, .avail_in = (uInt)bytes, .next_out = to, .avail_out = (uInt)room };
    g_assert_cmpint(deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY), ==, Z_OK);
    g_assert_cmpint(deflate(&stream, Z_FINISH), ==, Z_STREAM_END);
    uint64_t written = room - stream.avail_out;
    deflateEnd(&stream);
    return written;
}

static void compress_one(BdrvSimDisk *disk, uint64_t entry_at, uint64_t at, uint64_t room, const uint8_t *content)
{
    uint64_t data = surgery_peek(disk, entry_at, 8) & QCOW2_OFFSET_MASK, size = cluster_size(disk);
    g_autofree uint8_t *held = load_block(disk, data), *stream = g_malloc(room);
    uint64_t bytes = deflate_cluster(content ? content : held, size, stream, room);
    uint64_t descriptor = qcow2_compressed_descriptor(at, bytes, cluster_bits(disk));

    g_assert_cmpuint(data, !=, 0);
    surgery_set_refcount(disk, data, 0);
    surgery_poke(disk, entry_at, 8, descriptor);
    if (l2_entry_bytes(disk) > 8) {
        surgery_poke(disk, entry_at + 8, 8, 0); /* no subclusters */
    }
    bdrv_simdisk_poke(disk, (int64_t)at, stream, bytes);
    ref_compressed(disk, descriptor);
}

void surgery_compress(BdrvSimDisk *disk, const SurgeryCompress *how)
{
    static const uint8_t zero;
    uint64_t begin = end_of_file(disk), per_table = cluster_size(disk) / l2_entry_bytes(disk);
    uint64_t step = how->step ? how->step : STEP;

    for (unsigned i = 0; i < how->count; i++) {
        uint64_t cluster = how->first + i, l1_entry = surgery_peek(disk, L1_OFFSET, 8) + cluster / per_table * 8;
        uint64_t table = surgery_peek(disk, l1_entry, 8) & QCOW2_OFFSET_MASK;
        compress_one(disk, table + cluster % per_table * l2_entry_bytes(disk), begin + i * step, step,
                     how->content ? how->content + i * cluster_size(disk) : NULL);
    }
    bdrv_simdisk_poke(disk, (bdrv_simdisk_length(disk) | 511), &zero, 1);
}
