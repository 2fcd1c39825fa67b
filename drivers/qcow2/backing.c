/* SPDX-License-Identifier: MIT */
/* The name and format of the backing file, as the header has them. Drained; the open backing node stays. */

#include <errno.h>
#include <string.h>

#include "drivers/qcow2/callbacks.h"
#include "drivers/qcow2/meta/meta.h"

static bool check_backing(const Qcow2State *s, const char *filename, const char *format, GError **errp)
{
    if (!s->meta) {
        g_set_error(errp, BDRV_ERROR, EIO,
                    "the image was opened for information or check only, or its tables could not be loaded again; "
                    "close it and open it again");
    } else if (format && !filename) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "a backing format ('%s') needs a backing file", format);
    } else if (filename && strlen(filename) > QCOW2_MAX_BACKING_NAME) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "the backing file name has %zu bytes; at most %u are allowed",
                    strlen(filename), QCOW2_MAX_BACKING_NAME);
    } else if (filename && (s->header.autoclear_features & QCOW2_AUTOCLEAR_DATA_FILE_RAW)) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "an image with a raw external data file (data_file_raw) cannot have a backing file");
    } else {
        return true;
    }
    return false;
}

bool coroutine_fn qcow2_change_backing_file(BlockDriverState *bs, const char *filename, const char *format,
                                            GError **errp)
{
    Qcow2State *s = qcow2_state(bs);
    if (!check_backing(s, filename, format, errp)) {
        return false;
    }
    /* What was copied from the old backing file must be there before it is given up. */
    int ret = qcow2_meta_commit(bs);
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot write metadata before the backing file is changed: %s",
                    g_strerror(-ret));
        return false;
    }
    Qcow2HeaderExtensions extensions = s->extensions;
    extensions.backing_format = (char *)format;
    if (!qcow2_replace_header(bs, &s->header, &extensions, filename, errp)) {
        return false;
    }
    g_free(s->extensions.backing_format);
    s->extensions.backing_format = g_strdup(format);
    g_free(bs->backing_filename);
    bs->backing_filename = g_strdup(filename);
    g_free(bs->backing_format);
    bs->backing_format = g_strdup(format);
    return true;
}
