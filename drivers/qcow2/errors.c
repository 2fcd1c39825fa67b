/* SPDX-License-Identifier: MIT */
#include <bdrv/error.h>
#include <errno.h>

#include "drivers/qcow2/qcow2.h"

bool qcow2_could(int ret, const char *what, GError **errp)
{
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot %s: %s", what, g_strerror(-ret));
    }
    return ret >= 0;
}

bool qcow2_check_changeable(const Qcow2State *s, const char *what, GError **errp)
{
    if (!s->meta) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP, "the image was opened for information or check only");
    } else if (s->bs->read_only) {
        g_set_error(errp, BDRV_ERROR, EACCES, "the image is read-only; open it read-write to change its %s", what);
    } else if (atomic_load(&s->corrupt)) {
        g_set_error(errp, BDRV_ERROR, EIO, "the image is marked corrupt; run 'bdrv-img check -r all'");
    } else {
        return true;
    }
    return false;
}
