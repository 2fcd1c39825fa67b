/* SPDX-License-Identifier: MIT */
/* What an open image tells of itself. Nothing here may yield: it was all loaded at open. */

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "drivers/qcow2/callbacks.h"
#include "drivers/qcow2/crypto.h"
#include "drivers/qcow2/meta/meta.h"

int qcow2_get_info(BlockDriverState *bs, BdrvInfo *info)
{
    const Qcow2State *s = qcow2_state(bs);
    *info = (BdrvInfo){
        .cluster_size = s->geometry.cluster_size,
        .subcluster_size = s->geometry.subcluster_size,
        .vm_state_offset = (int64_t)qcow2_vm_state_offset(bs),
        .is_dirty = s->meta ? qcow2_meta_is_marked(bs) : s->header.incompatible_features & QCOW2_INCOMPAT_DIRTY,
        .is_corrupt = s->corrupt,
    };
    return 0;
}

static void put_bitmap(BdrvOptions *tree, unsigned n, const Qcow2Bitmap *bitmap)
{
    char key[64];
    unsigned flags = 0;
    if (bitmap->flags & QCOW2_BITMAP_IN_USE) {
        g_snprintf(key, sizeof(key), "data.bitmaps.%u.flags.%u", n, flags++);
        bdrv_options_set_string(tree, key, "in-use");
    }
    if (bitmap->flags & QCOW2_BITMAP_AUTO) {
        g_snprintf(key, sizeof(key), "data.bitmaps.%u.flags.%u", n, flags++);
        bdrv_options_set_string(tree, key, "auto");
    }
    if (flags == 0) {
        g_snprintf(key, sizeof(key), "data.bitmaps.%u.flags", n);
        bdrv_options_set_empty(tree, key, BDRV_OPTION_LIST);
    }
    g_snprintf(key, sizeof(key), "data.bitmaps.%u.name", n);
    bdrv_options_set_string(tree, key, bitmap->name);
    g_snprintf(key, sizeof(key), "data.bitmaps.%u.granularity", n);
    bdrv_options_set_int(tree, key,
                         bitmap->granularity_bits < 63 ? INT64_C(1) << bitmap->granularity_bits : INT64_MAX);
}

static void describe_encryption(const Qcow2State *s, BdrvOptions *tree)
{
    if (s->crypto && s->crypto->method == QCOW2_CRYPT_LUKS) {
        bdrv_luks_describe(&s->crypto->luks, tree, "data.encrypt", "luks");
    } else {
        bdrv_options_set_string(tree, "data.encrypt.format", qcow2_crypto_name(s->header.crypt_method));
    }
}

/* The order of keys is the one qemu-img prints. */
BdrvOptions *qcow2_get_specific_info(BlockDriverState *bs)
{
    const Qcow2State *s = qcow2_state(bs);
    const Qcow2Header *h = &s->header;
    bool v3 = h->version >= 3;
    BdrvOptions *tree = bdrv_options_new();
    bdrv_options_set_string(tree, "type", "qcow2");
    bdrv_options_set_string(tree, "data.compat", v3 ? "1.1" : "0.10");
    bdrv_options_set_string(tree, "data.compression-type", h->compression_type ? "zstd" : "zlib");
    if (v3) {
        bdrv_options_set_bool(tree, "data.lazy-refcounts",
                              h->compatible_features & QCOW2_COMPAT_LAZY_REFCOUNTS);
    }
    for (unsigned n = 0; n < s->bitmaps.count; n++) {
        put_bitmap(tree, n, &s->bitmaps.bitmaps[n]);
    }
    bdrv_options_set_int(tree, "data.refcount-bits", s->geometry.refcount_bits);
    if (s->geometry.data_file && s->extensions.data_file) {
        bdrv_options_set_string(tree, "data.data-file", s->extensions.data_file);
    }
    if (h->crypt_method) {
        describe_encryption(s, tree);
    }
    if (s->geometry.data_file) {
        bdrv_options_set_bool(tree, "data.data-file-raw",
                              h->autoclear_features & QCOW2_AUTOCLEAR_DATA_FILE_RAW);
    }
    if (v3) {
        bdrv_options_set_bool(tree, "data.corrupt", s->corrupt);
        bdrv_options_set_bool(tree, "data.extended-l2", s->geometry.extended_l2);
    }
    return tree;
}

/* What set the corrupt bit while the image was open. */
char *qcow2_explain(BlockDriverState *bs)
{
    const char *message = qcow2_corrupt_message(bs);
    return message ? g_strdup_printf("%s: the image is marked corrupt and takes no more writes: %s", bs->filename,
                                     message)
                   : NULL;
}

int qcow2_snapshot_list(BlockDriverState *bs, BdrvSnapshotInfo **list)
{
    const Qcow2SnapshotTable *table = &qcow2_state(bs)->snapshots;
    BdrvSnapshotInfo *out = g_try_new0(BdrvSnapshotInfo, table->count + 1);
    if (!out) {
        return -ENOMEM;
    }
    for (unsigned i = 0; i < table->count; i++) {
        const Qcow2Snapshot *s = &table->snapshots[i];
        out[i] = (BdrvSnapshotInfo){
            .id = g_strdup(s->id),
            .name = g_strdup(s->name),
            .vm_state_size = (int64_t)MIN(s->vm_state_size, (uint64_t)INT64_MAX),
            .disk_size = (int64_t)MIN(s->disk_size, (uint64_t)INT64_MAX),
            .date_sec = s->date_sec,
            .date_nsec = s->date_nsec,
            .vm_clock_ns = s->vm_clock_ns,
            .icount = s->icount,
        };
    }
    *list = out;
    return (int)table->count;
}
