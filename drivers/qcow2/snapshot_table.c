/* SPDX-License-Identifier: MIT */
/* Load and store the snapshot table. Its length is known only at its end, so it is read through a window. */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "block/util/bytes.h"
#include "drivers/qcow2/meta/meta.h"
#include "drivers/qcow2/snapshot.h"

/* The longest entry: fixed part, extra data, id and name of 65535 bytes; rounded up. */
#define MAX_ENTRY_BYTES ((uint64_t)QCOW2_SNAPSHOT_FIXED_BYTES + QCOW2_MAX_SNAPSHOT_EXTRA + 2 * 65535 + 8)
#define WINDOW_BYTES (MAX_ENTRY_BYTES + (64u << 10))

/* Bytes [start, start + filled) of the table, of [0, length). */
typedef struct TableWindow {
    BlockDriverState *bs;
    uint8_t *buf;
    uint64_t table_offset; /* in the image */
    uint64_t length;       /* no table goes further: end of file, or our bound */
    uint64_t start, filled;
} TableWindow;

/* Have what is there of the @bytes from @at, a position that never goes back. */
static size_t coroutine_fn window_need(TableWindow *w, uint64_t at, uint64_t bytes, int *ret)
{
    *ret = 0;
    uint64_t skip = at - w->start;
    if (skip + bytes > w->filled && w->start + w->filled < w->length) {
        memmove(w->buf, w->buf + skip, w->filled - skip);
        w->start = at;
        w->filled -= skip;
        uint64_t more = MIN(WINDOW_BYTES - w->filled, w->length - w->start - w->filled);
        more = MIN(more, MAX(bytes - MIN(bytes, w->filled), UINT64_C(65536)));
        *ret = bdrv_co_pread(w->bs->file, (int64_t)(w->table_offset + w->start + w->filled), (int64_t)more,
                             w->buf + w->filled, 0);
        if (*ret < 0) {
            return 0;
        }
        w->filled += more;
        skip = 0;
    }
    return MIN(bytes, w->filled - skip);
}

static bool coroutine_fn load_entry(TableWindow *w, uint64_t *at, Qcow2Snapshot *snapshot, GError **errp)
{
    const Qcow2State *s = qcow2_state(w->bs);
    int ret;
    size_t have = window_need(w, *at, QCOW2_SNAPSHOT_FIXED_BYTES, &ret);
    uint64_t entry_bytes = have;
    if (have == QCOW2_SNAPSHOT_FIXED_BYTES) {
        entry_bytes = qcow2_snapshot_entry_bytes(w->buf + (*at - w->start));
        have = window_need(w, *at, MIN(entry_bytes, MAX_ENTRY_BYTES), &ret);
    }
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot read the snapshot table at offset %" PRIu64 ": %s",
                    w->table_offset + *at, g_strerror(-ret));
        return false;
    }
    if (!qcow2_snapshot_decode(w->buf + (*at - w->start), have, s->geometry.version, s->header.size, snapshot,
                               errp)) {
        return false;
    }
    *at += MIN(entry_bytes, w->length - *at); /* the padding of the last one may be missing */
    return true;
}

/* @table: also after an error, those that came before */
static bool coroutine_fn load_entries(TableWindow *w, unsigned count, Qcow2SnapshotTable *table,
                                      GError **errp)
{
    unsigned room = 0;
    uint64_t at = 0;
    while (table->count < count) {
        if (table->count == room) {
            room = MIN(count, MAX(16u, room * 2));
            Qcow2Snapshot *grown = g_try_renew(Qcow2Snapshot, table->snapshots, room);
            if (!grown) {
                g_set_error(errp, BDRV_ERROR, ENOMEM, "no memory for %u snapshots", count);
                return false;
            }
            table->snapshots = grown;
        }
        if (!load_entry(w, &at, &table->snapshots[table->count], errp)) {
            g_prefix_error(errp, "snapshot %u of %u: ", table->count + 1, count);
            return false;
        }
        table->count++;
        table->bytes = at;
    }
    return true;
}

static bool check_fields(const Qcow2State *s, int64_t file_length, bool any_count, GError **errp)
{
    const Qcow2Header *h = &s->header;
    if (h->nb_snapshots > QCOW2_MAX_SNAPSHOTS && !any_count) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "the header counts %" PRIu32 " snapshots; at most %u are allowed", h->nb_snapshots,
                    QCOW2_MAX_SNAPSHOTS);
        return false;
    }
    if (h->snapshots_offset % s->geometry.cluster_size) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "snapshot table offset %" PRIu64 " is not a multiple of the cluster size %" PRIu32,
                    h->snapshots_offset, s->geometry.cluster_size);
        return false;
    }
    if (h->snapshots_offset == 0) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "snapshot table offset 0 is the image header; nb_snapshots is %" PRIu32, h->nb_snapshots);
        return false;
    }
    if (h->snapshots_offset >= (uint64_t)file_length) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "snapshot table offset %" PRIu64 " is past the end of the image file (%" PRId64 " bytes)",
                    h->snapshots_offset, file_length);
        return false;
    }
    return true;
}

bool coroutine_fn qcow2_load_snapshots(BlockDriverState *bs, int64_t file_length, Qcow2SnapshotTable *table,
                                       char **damage, GError **errp)
{
    const Qcow2State *s = qcow2_state(bs);
    if (s->header.nb_snapshots == 0) {
        *table = (Qcow2SnapshotTable){ 0 };
        return true;
    }
    if (!check_fields(s, file_length, damage != NULL, errp)) {
        return false;
    }
    TableWindow w = {
        .bs = bs,
        .buf = g_try_malloc(WINDOW_BYTES),
        .table_offset = s->header.snapshots_offset,
        .length = MIN((uint64_t)file_length - s->header.snapshots_offset, QCOW2_MAX_SNAPSHOT_TABLE_BYTES),
    };
    if (!w.buf) {
        g_set_error(errp, BDRV_ERROR, ENOMEM, "no memory to read the snapshot table");
        return false;
    }
    Qcow2SnapshotTable loaded = { .offset = s->header.snapshots_offset };
    GError *error = NULL;
    bool ok = load_entries(&w, MIN(s->header.nb_snapshots, QCOW2_MAX_SNAPSHOTS), &loaded, &error);
    g_free(w.buf);
    if (ok && s->header.nb_snapshots > QCOW2_MAX_SNAPSHOTS) {
        *damage = g_strdup_printf("the header counts %" PRIu32 " snapshots", s->header.nb_snapshots);
    } else if (!ok && damage && bdrv_error_code(error) == EINVAL) {
        *damage = g_strdup(error->message);
        g_clear_error(&error);
        ok = true;
    }
    if (!ok) {
        qcow2_snapshot_table_clear(&loaded);
        g_propagate_error(errp, error);
        return false;
    }
    *table = loaded;
    return true;
}

/* ---- entries ---- */

int qcow2_snapshot_find(const Qcow2SnapshotTable *table, const char *id, const char *name)
{
    for (unsigned i = 0; i < table->count; i++) {
        const Qcow2Snapshot *snapshot = &table->snapshots[i];
        if ((!id || g_str_equal(snapshot->id, id)) && (!name || g_str_equal(snapshot->name, name))) {
            return (int)i;
        }
    }
    return -1;
}

char *qcow2_snapshot_new_id(const Qcow2SnapshotTable *table)
{
    uint64_t max = 0;
    for (unsigned i = 0; i < table->count; i++) {
        max = MAX(max, g_ascii_strtoull(table->snapshots[i].id, NULL, 10));
    }
    char *id = NULL;
    do { /* the largest number there is has no successor */
        g_free(id);
        id = g_strdup_printf("%" PRIu64, ++max);
    } while (qcow2_snapshot_find(table, id, NULL) >= 0);
    return id;
}

bool qcow2_snapshot_describe(const Qcow2State *s, const BdrvSnapshotInfo *info, Qcow2Snapshot *snapshot, GError **errp)
{
    size_t length = strlen(info->name);
    if (length > UINT16_MAX) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "a snapshot name of %zu bytes is too long; at most %u are possible",
                    length, UINT16_MAX);
        return false;
    }
    if (info->vm_state_size < 0 || info->date_sec < 0 || info->date_sec > UINT32_MAX) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "a VM state of %" PRId64 " bytes, or a date of %" PRId64 " seconds, cannot be recorded",
                    info->vm_state_size, info->date_sec);
        return false;
    }
    *snapshot = (Qcow2Snapshot){
        .name = g_strdup(info->name),
        .date_sec = (uint32_t)info->date_sec,
        .date_nsec = info->date_nsec,
        .vm_clock_ns = info->vm_clock_ns,
        .vm_state_size_32 = info->vm_state_size > UINT32_MAX ? 0 : (uint32_t)info->vm_state_size,
        .vm_state_size = (uint64_t)info->vm_state_size,
        .disk_size = s->header.size,
        .icount = info->icount,
        .extra_data = g_malloc0(QCOW2_SNAPSHOT_EXTRA_NEW),
        .extra_data_bytes = QCOW2_SNAPSHOT_EXTRA_NEW,
    };
    store_be64(snapshot->extra_data, snapshot->vm_state_size);
    store_be64(snapshot->extra_data + 8, snapshot->disk_size);
    store_be64(snapshot->extra_data + 16, snapshot->icount);
    return true;
}

/* ---- storing ---- */

static bool check_storable(const Qcow2SnapshotTable *table, uint64_t *bytes, GError **errp)
{
    *bytes = 0;
    for (unsigned i = 0; i < table->count; i++) {
        *bytes += qcow2_snapshot_encoded_bytes(&table->snapshots[i]);
    }
    if (table->count > QCOW2_MAX_SNAPSHOTS) {
        g_set_error(errp, BDRV_ERROR, EFBIG, "the image has %u snapshots, and no more are allowed",
                    QCOW2_MAX_SNAPSHOTS);
        return false;
    }
    if (*bytes > QCOW2_MAX_SNAPSHOT_TABLE_BYTES) {
        g_set_error(errp, BDRV_ERROR, EFBIG,
                    "the snapshot table would have %" PRIu64 " bytes; at most %u are supported: delete snapshots", *bytes,
                    QCOW2_MAX_SNAPSHOT_TABLE_BYTES);
        return false;
    }
    return true;
}

bool coroutine_fn qcow2_store_snapshots(BlockDriverState *bs, Qcow2SnapshotTable *table, GError **errp)
{
    uint64_t bytes, host_offset = 0, at = 0;
    if (!check_storable(table, &bytes, errp)) {
        return false;
    }
    uint64_t whole = (bytes + 511) & ~UINT64_C(511);
    uint8_t *buf = g_try_malloc0(MAX(whole, 1));
    int ret = buf ? 0 : -ENOMEM;
    for (unsigned i = 0; i < table->count && ret >= 0; i++) {
        at += qcow2_snapshot_encode(&table->snapshots[i], buf + at, whole - at);
    }
    if (ret >= 0 && whole) {
        ret = qcow2_meta_new_table(bs, buf, whole, &host_offset);
    }
    g_free(buf);
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot write a snapshot table of %" PRIu64 " bytes: %s", bytes,
                    g_strerror(-ret));
        return false;
    }
    table->offset = host_offset;
    table->bytes = bytes;
    return true;
}
