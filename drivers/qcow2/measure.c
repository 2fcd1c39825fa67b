/* SPDX-License-Identifier: MIT */
/* How large a new image would be: that of a preallocated one, less the clusters that hold no data. */

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "drivers/qcow2/callbacks.h"
#include "drivers/qcow2/create.h"

static uint64_t to_clusters(uint64_t bytes, uint32_t cluster_size)
{
    return bytes / cluster_size + (bytes % cluster_size != 0);
}

/* A bitmap's bits, one for each granule of the disk, and the table of their clusters. */
static uint64_t bitmap_clusters(const Qcow2Bitmap *bitmap, uint64_t disk_size, uint32_t cluster_size)
{
    unsigned shift = MIN(bitmap->granularity_bits + 3u, 63u); /* disk bytes for each byte of the bitmap */
    uint64_t bytes = (disk_size >> shift) + ((disk_size & ((UINT64_C(1) << shift) - 1)) != 0);
    uint64_t data = to_clusters(bytes, cluster_size);

    return data + to_clusters(data * sizeof(uint64_t), cluster_size);
}

/* What the persistent bitmaps of @source would take in an image of these clusters: all of them and the directory. */
static uint64_t bitmaps_bytes(const Qcow2State *source, uint32_t cluster_size)
{
    uint64_t clusters = 0, directory = 0;

    for (unsigned i = 0; i < source->bitmaps.count; i++) {
        const Qcow2Bitmap *bitmap = &source->bitmaps.bitmaps[i];

        clusters += bitmap_clusters(bitmap, source->header.size, cluster_size);
        directory += (QCOW2_BITMAP_FIXED_BYTES + strlen(bitmap->name) + 7) / 8 * 8;
    }
    return (clusters + to_clusters(directory, cluster_size)) * cluster_size;
}

/* NULL: it is no image of this driver, or one that cannot have bitmaps. */
static const Qcow2State *source_with_bitmaps(BdrvChild *source)
{
    if (!source || strcmp(source->bs->drv->format_name, "qcow2") != 0 ||
        qcow2_state(source->bs)->geometry.version < 3) {
        return NULL;
    }
    return qcow2_state(source->bs);
}

/* With a backing file, which may hold anything, every cluster of the source may have to be written. */
static bool all_may_be_needed(const BdrvOptions *options, const Qcow2CreateParams *params, const BdrvChild *source)
{
    return params->prealloc == BDRV_PREALLOC_FALLOC || params->prealloc == BDRV_PREALLOC_FULL ||
           (source && bdrv_options_has(options, "backing_file"));
}

/* Bytes of data clusters that are needed, or -errno. */
static int64_t coroutine_fn needed_data(const BdrvOptions *options, const Qcow2CreateParams *params, BdrvChild *source,
                                        const Qcow2Layout *layout)
{
    if (all_may_be_needed(options, params, source)) {
        return (int64_t)(layout->data_clusters * layout->cluster_size);
    }
    return source ? bdrv_co_measure_data(source, layout->cluster_size) : 0;
}

bool coroutine_fn qcow2_measure(const BdrvOptions *options, BdrvChild *source, BdrvMeasure *measure, GError **errp)
{
    g_autoptr(BdrvOptions) image = bdrv_options_copy(options);
    const Qcow2State *with_bitmaps = source_with_bitmaps(source);
    Qcow2CreateParams params, whole;
    Qcow2Layout layout;

    bdrv_options_remove(image, "backing_file"); /* which one does not matter, nor whether its format is named */
    bdrv_options_remove(image, "backing_fmt");
    if (!qcow2_create_params(image, &params, errp)) {
        return false;
    }
    params.data_file = NULL; /* what goes there counts, too */
    whole = params;
    whole.prealloc = BDRV_PREALLOC_METADATA;
    if (!qcow2_layout(&whole, &layout, errp)) {
        return false;
    }
    int64_t data = needed_data(options, &params, source, &layout);
    if (data < 0) {
        g_set_error(errp, BDRV_ERROR, -data, "Unable to get block status: %s", g_strerror(-data));
        return false;
    }
    measure->fully_allocated = (int64_t)layout.end;
    measure->required = (int64_t)(layout.end - layout.data_clusters * layout.cluster_size) + data;
    if (with_bitmaps && params.version >= 3) {
        measure->bitmaps = (int64_t)bitmaps_bytes(with_bitmaps, layout.cluster_size);
    }
    return true;
}
