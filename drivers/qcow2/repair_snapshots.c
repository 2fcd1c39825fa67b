/* SPDX-License-Identifier: MIT */
/*
 * The snapshot table of a repaired image. Entries have no fixed length, so one wrong length hides all that
 * follow. If an entry makes no sense, the table is searched for entries that do: they start at multiples of
 * 8 bytes, and their L1 table lies where one can lie.
 */

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "block/util/bytes.h"
#include "drivers/qcow2/repair.h"

/* Lengths of ids and names that are taken for damage while the table is searched. */
#define LIKELY_ID_BYTES 64u
#define LIKELY_NAME_BYTES 1024u

/* Bytes 0 .. 11 of an entry, and where the lengths are. */
enum { AT_L1_OFFSET = 0, AT_L1_SIZE = 8, AT_ID_LENGTH = 12, AT_NAME_LENGTH = 14, AT_EXTRA_LENGTH = 36 };

static bool l1_likely(const Qcow2Check *c, uint64_t offset, uint32_t entries)
{
    return offset != 0 && !(offset & (c->s->geometry.cluster_size - 1)) && entries <= QCOW2_MAX_L1_BYTES / 8 &&
           offset < c->file_length && !qcow2_check_outside(c, offset, (uint64_t)entries * 8);
}

/* A snapshot whose L1 table cannot be found is lost. */
static bool usable(const Qcow2Check *c, const Qcow2Snapshot *s)
{
    return l1_likely(c, s->l1_table_offset, s->l1_size);
}

static bool all_usable(const Qcow2Check *c)
{
    const Qcow2SnapshotTable *table = &c->s->snapshots;
    bool all = table->count == c->s->header.nb_snapshots;
    for (unsigned i = 0; i < table->count && all; i++) {
        all = usable(c, &table->snapshots[i]);
    }
    return all;
}

/* ---- searching a damaged table ---- */

static bool entry_likely(const Qcow2Check *c, const uint8_t *e, uint64_t bytes)
{
    if (bytes < QCOW2_SNAPSHOT_FIXED_BYTES) {
        return false;
    }
    uint32_t extra = load_be32(e + AT_EXTRA_LENGTH), l1_size = load_be32(e + AT_L1_SIZE);
    uint32_t id = load_be16(e + AT_ID_LENGTH), name = load_be16(e + AT_NAME_LENGTH);
    return l1_likely(c, load_be64(e + AT_L1_OFFSET), l1_size) && l1_size && id && id <= LIKELY_ID_BYTES &&
           name <= LIKELY_NAME_BYTES && extra <= QCOW2_MAX_SNAPSHOT_EXTRA &&
           (c->s->geometry.version < 3 || extra >= 16) && qcow2_snapshot_entry_bytes(e) <= bytes + 7;
}

/* An entry of which only the L1 table is believed. */
static bool salvage(const Qcow2Check *c, const uint8_t *e, unsigned number, Qcow2Snapshot *s)
{
    if (!l1_likely(c, load_be64(e + AT_L1_OFFSET), load_be32(e + AT_L1_SIZE))) {
        return false;
    }
    *s = (Qcow2Snapshot){
        .l1_table_offset = load_be64(e + AT_L1_OFFSET),
        .l1_size = load_be32(e + AT_L1_SIZE),
        .id = g_strdup_printf("r%u", number + 1),
        .name = g_strdup_printf("repaired-%u", number + 1),
        .disk_size = c->s->header.size,
        .extra_data_bytes = 16, /* size of the VM state, 0, and of the disk */
        .extra_data = g_malloc0(16),
    };
    store_be64(s->extra_data + 8, s->disk_size);
    return true;
}

/* Where an entry starts at or after @at; @bytes if nowhere. */
static uint64_t next_entry(const Qcow2Check *c, const uint8_t *buf, uint64_t at, uint64_t bytes)
{
    while (at < bytes && !entry_likely(c, buf + at, bytes - at)) {
        at += 8;
    }
    return MIN(at, bytes);
}

/* Where the entry after the one at @at starts: where it says, or else where the next likely one is. */
static uint64_t after_entry(const Qcow2Check *c, const uint8_t *buf, uint64_t at, uint64_t bytes)
{
    uint64_t end = at + qcow2_snapshot_entry_bytes(buf + at);
    if (end < bytes && entry_likely(c, buf + end, bytes - end)) {
        return end;
    }
    return next_entry(c, buf, at + QCOW2_SNAPSHOT_FIXED_BYTES, bytes);
}

/* Up to @max entries of the table in @buf. Returns how many; the caller clears them. */
static unsigned search(Qcow2Check *c, const uint8_t *buf, uint64_t bytes, Qcow2Snapshot *found, unsigned max)
{
    const Qcow2State *s = c->s;
    unsigned count = 0;
    uint64_t at = 0;
    for (unsigned n = 0; count < max && at + QCOW2_SNAPSHOT_FIXED_BYTES <= bytes; n++) {
        bool likely = entry_likely(c, buf + at, bytes - at);
        if (likely && qcow2_snapshot_decode(buf + at, bytes - at, s->geometry.version, s->header.size, &found[count],
                                            NULL)) {
            count++;
        } else if (salvage(c, buf + at, n, &found[count])) {
            qcow2_check_finding(c, QCOW2_CHECK_NOTE,
                                "Repairing snapshot table entry %u: only its data could be kept", n);
            count++;
        } else {
            qcow2_check_finding(c, QCOW2_CHECK_NOTE,
                                "Repairing snapshot table entry %u: it is damaged and given up", n);
        }
        at = likely ? after_entry(c, buf, at, bytes) : next_entry(c, buf, at + 8, bytes);
    }
    return count;
}

/* The table as far as the file has it; it ends somewhere before *@bytes. NULL: no memory, or it cannot be read. */
static uint8_t *coroutine_fn read_table(Qcow2Check *c, uint64_t *bytes)
{
    uint64_t offset = c->s->header.snapshots_offset;
    *bytes = offset < c->file_length ? MIN(c->file_length - offset, QCOW2_MAX_SNAPSHOT_TABLE_BYTES) : 0;
    uint8_t *buf = g_try_malloc(MAX(*bytes, 1));
    if (buf && qcow2_check_pread(c, offset, *bytes, buf) < 0) {
        g_clear_pointer(&buf, g_free);
    }
    return buf;
}

/* ---- the new table ---- */

static int coroutine_fn write_table(Qcow2Repair *r, const Qcow2Snapshot *snapshots, unsigned count)
{
    uint64_t offset = 0;
    size_t bytes = 0, at = 0;
    for (unsigned i = 0; i < count; i++) {
        bytes += qcow2_snapshot_encoded_bytes(&snapshots[i]);
    }
    if (r->dry) {
        return -ECANCELED;
    }
    uint8_t *buf = g_try_malloc(MAX(bytes, 1));
    int ret = buf ? 0 : -ENOMEM;
    for (unsigned i = 0; i < count && ret >= 0; i++) {
        size_t n = qcow2_snapshot_encode(&snapshots[i], buf + at, bytes - at);
        ret = n ? 0 : -EINVAL;
        at += n;
    }
    if (ret >= 0 && bytes) {
        ret = qcow2_repair_move_table(r, buf, bytes, false, &offset);
    }
    if (ret >= 0) {
        r->header.snapshots_offset = offset;
        r->header.nb_snapshots = count;
    }
    g_free(buf);
    return ret;
}

/* The trees of @snapshots, whose table lies where the header says if it is @sound. */
static int coroutine_fn keep(Qcow2Repair *r, Qcow2Snapshot *snapshots, unsigned count, bool sound)
{
    const Qcow2SnapshotTable *table = &r->c->s->snapshots;
    bool claimed = sound && qcow2_repair_claim(r, table->offset, table->bytes), changed = !claimed;
    int ret = 0;
    for (unsigned i = 0; i < count && ret >= 0; i++) {
        uint64_t before = snapshots[i].l1_table_offset;
        ret = qcow2_repair_l1(r, &snapshots[i].l1_table_offset, snapshots[i].l1_size, snapshots[i].disk_size);
        changed = changed || snapshots[i].l1_table_offset != before;
    }
    if (ret < 0 || !changed) {
        return ret;
    }
    for (uint64_t i = 0; claimed && i < table->bytes; i += r->c->s->geometry.cluster_size) {
        qcow2_check_refs_drop(&r->refs, (table->offset + i) >> r->c->s->geometry.cluster_bits);
    }
    return write_table(r, snapshots, count);
}

int coroutine_fn qcow2_repair_snapshots(Qcow2Repair *r)
{
    Qcow2Check *c = r->c;
    unsigned count = c->s->snapshots.count, max = MIN(r->header.nb_snapshots, QCOW2_MAX_SNAPSHOTS);
    if (max == 0) {
        r->header.snapshots_offset = 0;
        return 0;
    }
    Qcow2Snapshot *snapshots = g_try_new(Qcow2Snapshot, max);
    int ret;
    if (!snapshots) {
        return -ENOMEM;
    }
    if (all_usable(c)) {
        memcpy(snapshots, c->s->snapshots.snapshots, count * sizeof(*snapshots));
        ret = keep(r, snapshots, count, true);
    } else {
        uint64_t bytes;
        uint8_t *buf = read_table(c, &bytes);
        count = buf ? search(c, buf, bytes, snapshots, max) : 0;
        ret = buf ? keep(r, snapshots, count, false) : -ENOMEM;
        g_free(buf);
        for (unsigned i = 0; i < count; i++) {
            qcow2_snapshot_clear(&snapshots[i]);
        }
    }
    g_free(snapshots);
    return ret;
}
