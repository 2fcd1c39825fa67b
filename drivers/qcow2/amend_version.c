/* SPDX-License-Identifier: MIT */
/* Amend: version 2 or 3 (compat=0.10, compat=1.1). Each way is one header switch, what it needs is made before. */

#include <errno.h>
#include <inttypes.h>

#include "drivers/qcow2/amend.h"
#include "drivers/qcow2/meta/meta.h"
#include "drivers/qcow2/snapshot.h"

/* ---- to version 3 ---- */

bool coroutine_fn qcow2_amend_upgrade(Qcow2Amend *a, GError **errp)
{
    Qcow2State *s = a->s;
    if (s->geometry.version >= 3 || a->version < 3) {
        return true;
    }
    if (!qcow2_snapshots_record_sizes(a->bs, errp)) {
        return false;
    }
    Qcow2Header header = s->header;
    header.version = 3;
    header.header_length = QCOW2_HEADER_SIZE_NEW;
    Qcow2HeaderExtensions extensions = s->extensions;
    bool named = extensions.feature_names || s->geometry.cluster_size < QCOW2_FEATURE_NAMES_MIN_CLUSTER;
    if (!named) {
        extensions.feature_names = qcow2_feature_table_new(&extensions.feature_names_bytes);
    }
    if (!qcow2_replace_header(a->bs, &header, &extensions, a->bs->backing_filename, errp)) {
        if (!named) {
            g_free(extensions.feature_names);
        }
        return false;
    }
    s->extensions = extensions;
    qcow2_geometry_init(&s->geometry, &s->header);
    return true;
}

/* ---- to version 2 ---- */

static const char *feature_that_stays(const Qcow2State *s)
{
    uint64_t bits = s->header.incompatible_features;
    return bits & QCOW2_INCOMPAT_EXTENDED_L2  ? "extended L2 entries (extended_l2=on)"
           : bits & QCOW2_INCOMPAT_DATA_FILE ? "an external data file"
           : s->bitmaps.count                ? "persistent dirty bitmaps (remove them first)"
                                             : NULL;
}

/* Snapshots of version 2 do not record their size. */
static bool check_snapshot_sizes(const Qcow2Amend *a, GError **errp)
{
    for (unsigned i = 0; i < a->s->snapshots.count; i++) {
        const Qcow2Snapshot *snapshot = &a->s->snapshots.snapshots[i];
        if (snapshot->disk_size != (uint64_t)a->size || snapshot->vm_state_size > UINT32_MAX) {
            g_set_error(errp, BDRV_ERROR, ENOTSUP,
                        "Internal snapshots prevent downgrade of image: '%s' has a disk of %" PRIu64
                        " bytes and a VM state of %" PRIu64 "; version 2 has only snapshots with the size of the disk "
                        "(%" PRId64 ") and a VM state below 4 GiB",
                        snapshot->name, snapshot->disk_size, snapshot->vm_state_size, a->size);
            return false;
        }
    }
    return true;
}

bool coroutine_fn qcow2_amend_check_version(Qcow2Amend *a, GError **errp)
{
    const Qcow2State *s = a->s;
    bool zeroes, compressed;
    if (a->version >= 3 || s->geometry.version < 3) {
        return true;
    }
    const char *feature = feature_that_stays(s);
    if (feature) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP, "Cannot downgrade an image with %s to compat=0.10", feature);
        return false;
    }
    if (s->discard.no_unref) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP,
                    "an image that is opened with discard-no-unref=on cannot become compat=0.10, which lacks zero "
                    "clusters");
        return false;
    }
    if (!check_snapshot_sizes(a, errp) || !qcow2_survey_clusters(a->bs, &zeroes, &compressed, errp)) {
        return false;
    }
    if (compressed && s->header.compression_type != 0) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP,
                    "Cannot downgrade an image with zstd compression type and existing compressed clusters: convert "
                    "it");
        return false;
    }
    return true;
}

/* The dirty bit will be lost: refcounts must not be behind. If it is kept for leaks of an earlier failure, these stay. */
static bool coroutine_fn clean(Qcow2Amend *a, GError **errp)
{
    int ret = qcow2_meta_clean(a->bs);
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot clear the dirty bit: %s", g_strerror(-ret));
    }
    return ret >= 0;
}

bool coroutine_fn qcow2_amend_downgrade(Qcow2Amend *a, GError **errp)
{
    Qcow2State *s = a->s;
    if (a->version >= 3 || s->geometry.version < 3) {
        return true;
    }
    if (!qcow2_expand_zeroes(a->bs, &a->progress, errp) || !clean(a, errp)) {
        return false;
    }
    Qcow2Header header = s->header;
    header.version = 2;
    header.header_length = QCOW2_HEADER_SIZE_V2;
    header.incompatible_features = header.compatible_features = header.autoclear_features = 0;
    header.compression_type = 0;
    Qcow2HeaderExtensions extensions = s->extensions;
    extensions.feature_names = NULL;
    extensions.unknown_header = NULL;
    extensions.feature_names_bytes = extensions.unknown_header_bytes = 0;
    if (!qcow2_replace_header(a->bs, &header, &extensions, a->bs->backing_filename, errp)) {
        return false;
    }
    g_free(s->extensions.feature_names);
    g_free(s->extensions.unknown_header);
    s->extensions = extensions;
    qcow2_geometry_init(&s->geometry, &s->header);
    qcow2_meta_forget_mark(a->bs);
    return true;
}
