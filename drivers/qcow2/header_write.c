/* SPDX-License-Identifier: MIT */
/* Put the header cluster together: fixed fields, unknown fields, extensions, backing file name. */

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "drivers/qcow2/qcow2.h"

/* Fixed and unknown fields up to header_length; the rest of @cluster is zero already. */
static size_t put_fields(const Qcow2Header *header, const Qcow2HeaderExtensions *extensions, uint8_t *cluster,
                         uint32_t cluster_size)
{
    if (header->header_length > cluster_size) {
        return 0;
    }
    size_t known = qcow2_header_encode(header, cluster, header->header_length);
    if (known && extensions->unknown_header_bytes) {
        memcpy(cluster + known, extensions->unknown_header,
               MIN(extensions->unknown_header_bytes, header->header_length - known));
    }
    return known ? header->header_length : 0;
}

size_t qcow2_compose_header(Qcow2Header *header, const Qcow2HeaderExtensions *extensions, const char *backing_name,
                            size_t name_from, uint8_t *cluster, uint32_t cluster_size, GError **errp)
{
    /* The feature name table is a courtesy; it goes first when 512 bytes must do. */
    Qcow2HeaderExtensions fitting = *extensions;
    size_t name_bytes = backing_name ? strlen(backing_name) : 0;
    size_t need = header->header_length + qcow2_extensions_size(&fitting) + name_bytes;
    if (need > cluster_size) {
        fitting.feature_names = NULL;
        fitting.feature_names_bytes = 0;
        need = header->header_length + qcow2_extensions_size(&fitting) + name_bytes;
    }
    if (need > cluster_size) {
        g_set_error(
            errp, BDRV_ERROR, EINVAL,
            "header, extensions and a backing file name of %zu bytes need %zu bytes; the cluster size is "
            "%" PRIu32 ": use a larger cluster size or a shorter name",
            name_bytes, need, cluster_size);
        return 0;
    }
    size_t name_at = MAX(need - name_bytes, name_from);
    if (name_at + name_bytes > cluster_size) {
        name_at = need - name_bytes;
    }
    header->backing_file_offset = name_bytes ? name_at : 0;
    header->backing_file_size = (uint32_t)name_bytes;
    size_t at = put_fields(header, extensions, cluster, cluster_size);
    if (!at) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "header_length %" PRIu32 " is wrong for version %" PRIu32,
                    header->header_length, header->version);
        return 0;
    }
    at += qcow2_extensions_encode(&fitting, cluster + at, cluster_size - at);
    if (name_bytes) {
        memcpy(cluster + name_at, backing_name, name_bytes);
    }
    return at;
}
