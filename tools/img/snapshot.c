/* SPDX-License-Identifier: MIT */
/* snapshot: list, create, apply and delete internal snapshots; and what other subcommands do with them. */
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "tools/img/img.h"

/* ---- what info, convert and measure share ---- */

static char *vm_clock_text(uint64_t ns)
{
    uint64_t seconds = ns / 1000000000;

    return g_strdup_printf("%02d:%02d:%02d.%03d", (int)(seconds / 3600), (int)(seconds / 60 % 60),
                           (int)(seconds % 60), (int)(ns / 1000000 % 1000));
}

void img_print_snapshots(const BdrvSnapshotInfo *list, int count)
{
    printf("Snapshot list:\n");
    printf("%-10s%-17s%8s%20s%13s%11s\n", "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
    for (int i = 0; i < count; i++) {
        const BdrvSnapshotInfo *snapshot = &list[i];
        g_autofree char *size = bdrv_format_size(snapshot->vm_state_size);
        g_autofree char *clock = vm_clock_text(snapshot->vm_clock_ns);
        g_autofree char *icount =
            snapshot->icount == UINT64_MAX ? g_strdup("") : g_strdup_printf("%" PRIu64, snapshot->icount);
        time_t seconds = snapshot->date_sec;
        struct tm local;
        char date[64];

        localtime_r(&seconds, &local);
        strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &local);
        printf("%-9s %-16s %8s%20s%13s%11s\n", snapshot->id, snapshot->name, size, date, clock, icount);
    }
}

bool img_parse_snapshot_param(const char *text, ImgSnapshotParam *param)
{
    static const BdrvOptionSpec specs[] = {
        { "snapshot.id", BDRV_OPTION_STRING, "id of a snapshot", NULL, NULL },
        { "snapshot.name", BDRV_OPTION_STRING, "name of a snapshot", NULL, NULL },
        { NULL },
    };
    const BdrvOptionSpec *const all[] = { specs, NULL };
    g_autoptr(BdrvOptions) options = NULL;
    GError *error = NULL;

    *param = (ImgSnapshotParam){ .text = text };
    if (!g_str_has_prefix(text, "snapshot.")) {
        return true;
    }
    options = bdrv_options_parse(text, NULL, &error);
    if (!options || !bdrv_options_validate(options, all, "snapshot parameters", &error)) {
        tool_report(NULL, error);
        tool_error("Failed in parsing snapshot param '%s'", text);
        return false;
    }
    param->id = g_strdup(bdrv_options_get_string(options, "snapshot.id", NULL));
    param->name = g_strdup(bdrv_options_get_string(options, "snapshot.name", NULL));
    param->text = NULL;
    return true;
}

void img_clear_snapshot_param(ImgSnapshotParam *param)
{
    g_free(param->id);
    g_free(param->name);
    *param = (ImgSnapshotParam){ 0 };
}

static bool load(BlockBackend *blk, const ImgSnapshotParam *param, GError **errp)
{
    BdrvSnapshotInfo *list;
    int count, i;

    if (!param->text) {
        return blk_snapshot_load_tmp(blk, param->id, param->name, errp);
    }
    count = blk_list_snapshots(blk, &list);
    if (count < 0) {
        g_set_error(errp, BDRV_ERROR, -count, "Block format '%s' has no internal snapshots", blk_driver(blk));
        return false;
    }
    i = bdrv_snapshot_find(list, count, param->text, NULL); /* an id goes before a name */
    bdrv_snapshot_list_free(list, count);
    return i >= 0 ? blk_snapshot_load_tmp(blk, param->text, NULL, errp)
                  : blk_snapshot_load_tmp(blk, NULL, param->text, errp);
}

bool img_load_snapshot(BlockBackend *blk, const ImgSnapshotParam *param)
{
    GError *error = NULL;

    if (!load(blk, param, &error)) {
        tool_report("Failed to load snapshot", error);
    }
    return !error;
}

/* ---- the subcommand ---- */

typedef enum Action {
    ACTION_NONE,
    ACTION_LIST,
    ACTION_CREATE,
    ACTION_APPLY,
    ACTION_DELETE,
} Action;

static int list(BlockBackend *blk)
{
    BdrvSnapshotInfo *snapshots;
    int count = blk_list_snapshots(blk, &snapshots);

    if (count > 0) {
        img_print_snapshots(snapshots, count);
    }
    if (count >= 0) {
        bdrv_snapshot_list_free(snapshots, count);
    }
    return 0; /* a format without snapshots has none */
}

static bool create(BlockBackend *blk, const char *name, GError **errp)
{
    int64_t now = g_get_real_time();
    g_autofree char *copy = g_strdup(name);
    BdrvSnapshotInfo info = {
        .name = copy,
        .date_sec = now / G_USEC_PER_SEC,
        .date_nsec = (uint32_t)(now % G_USEC_PER_SEC) * 1000,
    };
    bool ok = blk_snapshot_create(blk, &info, errp);

    g_free(info.id);
    return ok;
}

static int act(BlockBackend *blk, Action action, const char *name)
{
    GError *error = NULL;
    const char *what = NULL;

    switch (action) {
    case ACTION_NONE: break;
    case ACTION_LIST: return list(blk);
    case ACTION_CREATE: what = create(blk, name, &error) ? NULL : "create"; break;
    case ACTION_APPLY: what = blk_snapshot_goto(blk, name, &error) ? NULL : "apply"; break;
    case ACTION_DELETE: what = blk_snapshot_delete(blk, NULL, name, &error) ? NULL : "delete"; break;
    }
    if (what) {
        g_autofree char *context = g_strdup_printf("Could not %s snapshot '%s'", what, name);
        tool_report(context, error);
    }
    return what ? 1 : 0;
}

static bool set_action(Action *action, Action wanted, const char **name, const char *argument)
{
    if (*action != ACTION_NONE) {
        img_usage_error("Cannot mix '-l', '-a', '-c', '-d'");
        return false;
    }
    *action = wanted;
    *name = argument;
    return true;
}

static int run(ToolImage *image, Action action, const char *name)
{
    g_autoptr(BdrvGraph) graph = tool_graph();
    BlockBackend *blk;
    int status;

    image->flags |= action == ACTION_LIST ? 0 : BDRV_O_RDWR | BDRV_O_UNMAP;
    blk = img_open(graph, image);
    if (!blk) {
        return 1;
    }
    status = act(blk, action, name);
    return img_close(blk, image->filename) ? status : 1;
}

int img_snapshot(int argc, char **argv)
{
    ToolImage image = { 0 };
    Action action = ACTION_NONE;
    const char *name = NULL;
    bool ok = true;
    int option;

    while (ok && (option = img_next_option(argc, argv)) != -1) {
        switch (option) {
        case 'h': return 0;
        case 'l': ok = set_action(&action, ACTION_LIST, &name, NULL); break;
        case 'a': ok = set_action(&action, ACTION_APPLY, &name, optarg); break;
        case 'c': ok = set_action(&action, ACTION_CREATE, &name, optarg); break;
        case 'd': ok = set_action(&action, ACTION_DELETE, &name, optarg); break;
        case 'q': break; /* nothing is said but what is asked for, and errors */
        case 'U': image.flags |= BDRV_O_FORCE_SHARE; break;
        case IMG_OPTION_IMAGE_OPTS: image.image_opts = true; break;
        default: return 1;
        }
    }
    if (!ok) {
        return 1;
    }
    if (optind != argc - 1) {
        return img_usage_error("Expecting one image file name");
    }
    image.filename = argv[optind];
    return run(&image, action, name);
}
