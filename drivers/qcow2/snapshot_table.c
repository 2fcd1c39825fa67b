/* SPDX-License-Identifier: MIT */
/* Load the snapshot table. Its length is known only at its end, so it is read through a window. */

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "drivers/qcow2/qcow2.h"

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
