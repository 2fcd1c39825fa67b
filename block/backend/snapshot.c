/* SPDX-License-Identifier: MIT */
/* Internal snapshots and VM state. All but the list runs drained. */
#include "block/backend/backend_int.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>

static int coroutine_fn list_snapshots(BlockBackend *blk, void *opaque)
{
    return bdrv_co_snapshot_list(blk_bs(blk), opaque);
}

int blk_list_snapshots(BlockBackend *blk, BdrvSnapshotInfo **list)
{
    BdrvSnapshotInfo *found = NULL;
    int count = blk_ask(blk, list_snapshots, &found);

    if (count >= 0) {
        *list = found;
    }
    return count;
}

void bdrv_snapshot_list_free(BdrvSnapshotInfo *list, int count)
{
    for (int i = 0; i < count; i++) {
        g_free(list[i].id);
        g_free(list[i].name);
    }
    g_free(list);
}

int bdrv_snapshot_find(const BdrvSnapshotInfo *list, int count, const char *id, const char *name)
{
    for (int i = 0; i < count; i++) {
        if ((!id || g_str_equal(list[i].id, id)) && (!name || g_str_equal(list[i].name, name))) {
            return i;
        }
    }
    return -1;
}

/* ---- changes ---- */

#define PURPOSE "change its snapshots"

/* Which one. */
typedef struct Choice {
    const char *id, *name;
} Choice;

/* The caller's: the driver fills it. */
typedef struct Creation {
    BdrvSnapshotInfo *info;
} Creation;

static bool coroutine_fn create(BlockBackend *blk, const void *args, GError **errp)
{
    const Creation *creation = args;
    return bdrv_co_snapshot_create(blk_bs(blk), creation->info, errp);
}

static bool must_choose(bool chosen, GError **errp)
{
    if (!chosen) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "no snapshot is named; give its id or its name");
    }
    return chosen;
}

bool blk_snapshot_create(BlockBackend *blk, BdrvSnapshotInfo *info, GError **errp)
{
    if (!info->name) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "the new snapshot has no name; give one");
        return false;
    }
    return blk_change(blk, PURPOSE, create, &(Creation){ info }, errp);
}

/* The disk may get another size. */
static bool coroutine_fn apply(BlockBackend *blk, const void *args, GError **errp)
{
    const Choice *choice = args;
    unsigned used = blk->root->used, shared = blk->root->shared;

    if (!bdrv_co_root_set_rights(blk->root, used | BDRV_RIGHT_RESIZE, shared, errp)) {
        return false;
    }
    bool ok = bdrv_co_snapshot_goto(blk_bs(blk), choice->id, errp);
    bdrv_co_root_set_rights(blk->root, used, shared, NULL);
    return ok;
}

bool blk_snapshot_goto(BlockBackend *blk, const char *id_or_name, GError **errp)
{
    return must_choose(id_or_name, errp) &&
           blk_change(blk, PURPOSE, apply, &(Choice){ .id = id_or_name }, errp);
}

static bool coroutine_fn delete(BlockBackend *blk, const void *args, GError **errp)
{
    const Choice *choice = args;
    return bdrv_co_snapshot_delete(blk_bs(blk), choice->id, choice->name, errp);
}

bool blk_snapshot_delete(BlockBackend *blk, const char *id, const char *name, GError **errp)
{
    return must_choose(id || name, errp) && blk_change(blk, PURPOSE, delete, &(Choice){ id, name }, errp);
}

static bool coroutine_fn load_tmp(BlockBackend *blk, const void *args, GError **errp)
{
    const Choice *choice = args;
    return bdrv_co_snapshot_load_tmp(blk_bs(blk), choice->id, choice->name, errp);
}

bool blk_snapshot_load_tmp(BlockBackend *blk, const char *id, const char *name, GError **errp)
{
    return must_choose(id || name, errp) && blk_change(blk, NULL, load_tmp, &(Choice){ id, name }, errp);
}

/* ---- VM state ---- */

typedef struct VmstateCall {
    int64_t offset;
    const BdrvIov *iov;
    bool save;
} VmstateCall;

static int coroutine_fn run_vmstate(BlockBackend *blk, void *opaque)
{
    const VmstateCall *call = opaque;
    int ret;

    if (!blk_begin_change(blk, NULL)) {
        return -EDEADLK;
    }
    if (call->save && blk_is_read_only(blk)) {
        ret = -EPERM;
    } else {
        ret = call->save ? bdrv_co_save_vmstate(blk_bs(blk), call->offset, call->iov)
                         : bdrv_co_load_vmstate(blk_bs(blk), call->offset, call->iov);
    }
    blk_end_change(blk);
    return ret < 0 ? ret : 0;
}

static int vmstate(BlockBackend *blk, int64_t offset, const BdrvIov *iov, bool save)
{
    VmstateCall call = { offset, iov, save };

    if (iov->bytes > SSIZE_MAX) {
        return -EINVAL;
    }
    if (offset < 0 || offset > INT64_MAX - (int64_t)iov->bytes) {
        return -EIO;
    }
    return blk_run_blocking(blk, run_vmstate, &call);
}

int blk_save_vmstate(BlockBackend *blk, int64_t offset, const BdrvIov *iov)
{
    return vmstate(blk, offset, iov, true);
}

int blk_load_vmstate(BlockBackend *blk, int64_t offset, const BdrvIov *iov)
{
    return vmstate(blk, offset, iov, false);
}
