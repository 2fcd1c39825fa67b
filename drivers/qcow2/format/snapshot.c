/* SPDX-License-Identifier: MIT */
/* Entries of the snapshot table (specification: "Snapshots"). */

#include "drivers/qcow2/format/format.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "block/util/bytes.h"

/* Byte offsets in an entry; extra data follows the fixed part. */
enum {
    S_L1_TABLE_OFFSET = 0,
    S_L1_SIZE = 8,
    S_ID_LENGTH = 12,
    S_NAME_LENGTH = 14,
    S_DATE_SEC = 16,
    S_DATE_NSEC = 20,
    S_VM_CLOCK_NS = 24,
    S_VM_STATE_SIZE = 32,
    S_EXTRA_SIZE = 36,
};

/* Byte offsets in the extra data, and the length up to the end of the field. */
enum {
    X_VM_STATE_SIZE = 0,
    X_DISK_SIZE = 8,
    X_ICOUNT = 16,
    X_MIN_V3 = 16,
};

uint64_t qcow2_snapshot_entry_bytes(const uint8_t fixed[QCOW2_SNAPSHOT_FIXED_BYTES])
{
    uint64_t bytes = QCOW2_SNAPSHOT_FIXED_BYTES;
    bytes += load_be32(fixed + S_EXTRA_SIZE);
    bytes += load_be16(fixed + S_ID_LENGTH);
    bytes += load_be16(fixed + S_NAME_LENGTH);
    return (bytes + 7) & ~UINT64_C(7);
}

static bool check_extra(uint32_t extra, unsigned version, GError **errp)
{
    if (extra > QCOW2_MAX_SNAPSHOT_EXTRA) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "snapshot has %" PRIu32 " bytes of extra data; at most %u are allowed", extra,
                    QCOW2_MAX_SNAPSHOT_EXTRA);
        return false;
    }
    if (version >= 3 && extra < X_MIN_V3) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "snapshot has %" PRIu32 " bytes of extra data; version 3 needs at least %d", extra,
                    X_MIN_V3);
        return false;
    }
    return true;
}

bool qcow2_snapshot_decode(const uint8_t *buf, size_t size, unsigned version, uint64_t guest_size,
                           Qcow2Snapshot *snapshot, GError **errp)
{
    if (size < QCOW2_SNAPSHOT_FIXED_BYTES) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "the snapshot table ends inside an entry: %zu bytes remain of %u", size,
                    QCOW2_SNAPSHOT_FIXED_BYTES);
        return false;
    }
    uint32_t extra = load_be32(buf + S_EXTRA_SIZE);
    uint16_t id_length = load_be16(buf + S_ID_LENGTH);
    uint16_t name_length = load_be16(buf + S_NAME_LENGTH);
    if (!check_extra(extra, version, errp)) {
        return false;
    }
    uint64_t need = (uint64_t)QCOW2_SNAPSHOT_FIXED_BYTES + extra + id_length + name_length;
    if (size < need) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "the snapshot table ends inside an entry: %zu bytes remain of %" PRIu64, size, need);
        return false;
    }
    const uint8_t *x = buf + QCOW2_SNAPSHOT_FIXED_BYTES;
    Qcow2Snapshot s = {
        .l1_table_offset = load_be64(buf + S_L1_TABLE_OFFSET),
        .l1_size = load_be32(buf + S_L1_SIZE),
        .date_sec = load_be32(buf + S_DATE_SEC),
        .date_nsec = load_be32(buf + S_DATE_NSEC),
        .vm_clock_ns = load_be64(buf + S_VM_CLOCK_NS),
        .vm_state_size_32 = load_be32(buf + S_VM_STATE_SIZE),
        .vm_state_size =
            extra >= X_VM_STATE_SIZE + 8 ? load_be64(x + X_VM_STATE_SIZE) : load_be32(buf + S_VM_STATE_SIZE),
        .disk_size = extra >= X_DISK_SIZE + 8 ? load_be64(x + X_DISK_SIZE) : guest_size,
        .icount = extra >= X_ICOUNT + 8 ? load_be64(x + X_ICOUNT) : UINT64_MAX,
        .extra_data_bytes = extra,
        .extra_data = g_try_malloc((gsize)extra + 1),
        .id = g_try_malloc((gsize)id_length + 1),
        .name = g_try_malloc((gsize)name_length + 1),
    };
    if (!s.extra_data || !s.id || !s.name) {
        qcow2_snapshot_clear(&s);
        g_set_error(errp, BDRV_ERROR, ENOMEM, "no memory for a snapshot table entry of %" PRIu64 " bytes",
                    need);
        return false;
    }
    memcpy(s.extra_data, x, extra);
    memcpy(s.id, x + extra, id_length);
    s.id[id_length] = '\0';
    memcpy(s.name, x + extra + id_length, name_length);
    s.name[name_length] = '\0';
    *snapshot = s;
    return true;
}

size_t qcow2_snapshot_encoded_bytes(const Qcow2Snapshot *snapshot)
{
    size_t bytes = QCOW2_SNAPSHOT_FIXED_BYTES + (size_t)snapshot->extra_data_bytes + strlen(snapshot->id) +
                   strlen(snapshot->name);
    return (bytes + 7) & ~(size_t)7;
}

size_t qcow2_snapshot_encode(const Qcow2Snapshot *snapshot, uint8_t *buf, size_t size)
{
    size_t id_length = strlen(snapshot->id), name_length = strlen(snapshot->name);
    uint32_t extra = snapshot->extra_data_bytes;
    size_t total = qcow2_snapshot_encoded_bytes(snapshot);
    if (size < total || id_length > UINT16_MAX || name_length > UINT16_MAX) {
        return 0;
    }
    memset(buf, 0, total);
    store_be64(buf + S_L1_TABLE_OFFSET, snapshot->l1_table_offset);
    store_be32(buf + S_L1_SIZE, snapshot->l1_size);
    store_be16(buf + S_ID_LENGTH, (uint16_t)id_length);
    store_be16(buf + S_NAME_LENGTH, (uint16_t)name_length);
    store_be32(buf + S_DATE_SEC, snapshot->date_sec);
    store_be32(buf + S_DATE_NSEC, snapshot->date_nsec);
    store_be64(buf + S_VM_CLOCK_NS, snapshot->vm_clock_ns);
    store_be32(buf + S_VM_STATE_SIZE, snapshot->vm_state_size_32);
    store_be32(buf + S_EXTRA_SIZE, extra);
    uint8_t *x = buf + QCOW2_SNAPSHOT_FIXED_BYTES;
    memcpy(x, snapshot->extra_data, extra);
    memcpy(x + extra, snapshot->id, id_length);
    memcpy(x + extra + id_length, snapshot->name, name_length);
    return total;
}

void qcow2_snapshot_clear(Qcow2Snapshot *snapshot)
{
    g_free(snapshot->id);
    g_free(snapshot->name);
    g_free(snapshot->extra_data);
    *snapshot = (Qcow2Snapshot){ 0 };
}

void qcow2_snapshot_table_clear(Qcow2SnapshotTable *table)
{
    for (unsigned i = 0; i < table->count; i++) {
        qcow2_snapshot_clear(&table->snapshots[i]);
    }
    g_free(table->snapshots);
    *table = (Qcow2SnapshotTable){ 0 };
}
