/* SPDX-License-Identifier: MIT */
/* bitmap: change persistent dirty bitmaps; and copy them, for convert. */
#include <bdrv/bitmap.h>
#include <errno.h>
#include <inttypes.h>

#include "tools/img/img.h"

/* ---- copying all of them (convert --bitmaps) ---- */

static bool copy_bitmap(BlockBackend *source, BlockBackend *target, const BdrvBitmapInfo *info, GError **errp)
{
    g_autoptr(BdrvDirtyBits) bits = blk_bitmap_read(source, info->name, errp);

    if (bits && bdrv_dirty_bits_length(bits) != blk_length(target)) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "it is of a disk of %" PRId64 " bytes, the target has %" PRId64,
                    bdrv_dirty_bits_length(bits), blk_length(target));
        return false;
    }
    return bits && blk_bitmap_add(target, info->name, info->granularity, false, errp) &&
           blk_bitmap_merge(target, info->name, bits, errp) &&
           (!info->enabled || blk_bitmap_enable(target, info->name, true, errp));
}

static bool copy_listed(BlockBackend *source, BlockBackend *target, const BdrvBitmapInfo *list, int count,
                        bool skip_broken)
{
    for (int i = 0; i < count; i++) {
        GError *error = NULL;
        if (!list[i].usable && skip_broken) {
            tool_error("warning: Skipping inconsistent bitmap '%s'", list[i].name);
        } else if (!copy_bitmap(source, target, &list[i], &error)) {
            g_autofree char *context = g_strdup_printf("Failed to populate bitmap %s", list[i].name);
            tool_report(context, error);
            return false;
        }
    }
    return true;
}

static bool can_copy(const BdrvBitmapInfo *list, int count, bool skip_broken)
{
    for (int i = 0; i < count && !skip_broken; i++) {
        if (!list[i].usable) {
            tool_error("Cannot copy inconsistent bitmap '%s'\n"
                       "Try --skip-broken-bitmaps, or use '%s bitmap --remove' to delete it",
                       list[i].name, tool_name());
            return false;
        }
    }
    return true;
}

bool img_check_bitmaps(BlockBackend *source, bool skip_broken)
{
    BdrvBitmapInfo *list;
    int count = blk_bitmap_list(source, &list, NULL);

    if (count < 0) {
        tool_error("Source lacks bitmap support");
        return false;
    }
    bool ok = can_copy(list, count, skip_broken);
    bdrv_bitmap_list_free(list, count);
    return ok;
}

bool img_supports_bitmaps(BlockBackend *target)
{
    BdrvBitmapInfo *list;
    int count = blk_bitmap_list(target, &list, NULL);

    if (count < 0) {
        tool_error("Format driver '%s' does not support bitmaps", blk_driver(target));
        return false;
    }
    bdrv_bitmap_list_free(list, count);
    return true;
}

bool img_copy_bitmaps(BlockBackend *source, BlockBackend *target, bool skip_broken)
{
    GError *error = NULL;
    BdrvBitmapInfo *list;
    int count = blk_bitmap_list(source, &list, &error);

    if (count < 0) {
        tool_report("Could not list the bitmaps of the source", error);
        return false;
    }
    bool ok = copy_listed(source, target, list, count, skip_broken);
    bdrv_bitmap_list_free(list, count);
    return ok;
}

/* ---- the subcommand ---- */

typedef enum ActionKind {
    ACTION_ADD,
    ACTION_REMOVE,
    ACTION_CLEAR,
    ACTION_ENABLE,
    ACTION_DISABLE,
    ACTION_MERGE,
} ActionKind;

typedef struct Action {
    ActionKind kind;
    const char *source; /* of a merge */
} Action;

/* A command line. */
typedef struct Bitmap {
    ToolImage image;
    ToolImage source; /* -b; no filename: merges take bitmaps of the image itself */
    GArray *actions;  /* Action, in the order given */
    int64_t granularity;
    bool adds, merges, has_granularity;
    const char *name;
} Bitmap;

static bool merge(BlockBackend *blk, BlockBackend *source, const char *from, const char *name, GError **errp)
{
    g_autoptr(BdrvDirtyBits) bits = blk_bitmap_read(source, from, errp);

    return bits && blk_bitmap_merge(blk, name, bits, errp);
}

static bool act(const Bitmap *bitmap, const Action *action, BlockBackend *blk, BlockBackend *source)
{
    static const char *const names[] = { "add", "remove", "clear", "enable", "disable", "merge" };
    GError *error = NULL;
    bool ok = false;

    switch (action->kind) {
    case ACTION_ADD: ok = blk_bitmap_add(blk, bitmap->name, bitmap->granularity, true, &error); break;
    case ACTION_REMOVE: ok = blk_bitmap_remove(blk, bitmap->name, &error); break;
    case ACTION_CLEAR: ok = blk_bitmap_clear(blk, bitmap->name, &error); break;
    case ACTION_ENABLE: ok = blk_bitmap_enable(blk, bitmap->name, true, &error); break;
    case ACTION_DISABLE: ok = blk_bitmap_enable(blk, bitmap->name, false, &error); break;
    case ACTION_MERGE: ok = merge(blk, source ? source : blk, action->source, bitmap->name, &error); break;
    }
    if (!ok) {
        g_autofree char *context =
            g_strdup_printf("Operation %s on bitmap %s failed", names[action->kind], bitmap->name);
        tool_report(context, error);
    }
    return ok;
}

static int run(const Bitmap *bitmap)
{
    g_autoptr(BdrvGraph) graph = tool_graph();
    BlockBackend *blk = img_open(graph, &bitmap->image), *source = NULL;
    bool ok = blk != NULL;

    if (ok && bitmap->source.filename) {
        source = img_open(graph, &bitmap->source);
        ok = source != NULL;
    }
    for (unsigned i = 0; ok && i < bitmap->actions->len; i++) {
        ok = act(bitmap, &g_array_index(bitmap->actions, Action, i), blk, source);
    }
    if (source) {
        ok = img_close(source, bitmap->source.filename) && ok;
    }
    if (blk) {
        ok = img_close(blk, bitmap->image.filename) && ok;
    }
    return ok ? 0 : 1;
}

static void add_action(Bitmap *bitmap, ActionKind kind, const char *source)
{
    Action action = { kind, source };

    g_array_append_val(bitmap->actions, action);
    bitmap->adds |= kind == ACTION_ADD;
    bitmap->merges |= kind == ACTION_MERGE;
}

/* -1: go on; else the exit code. */
static int take_option(Bitmap *bitmap, int option, char **argv)
{
    switch (option) {
    case 'h': return 0;
    case 'b': bitmap->source.filename = optarg; break;
    case 'F': bitmap->source.format = optarg; break;
    case 'f': bitmap->image.format = optarg; break;
    case 'g':
        bitmap->has_granularity = true;
        return img_parse_size(optarg, "granularity", &bitmap->granularity) ? -1 : 1;
    case IMG_OPTION_IMAGE_OPTS: bitmap->image.image_opts = true; break;
    case IMG_OPTION_ADD: add_action(bitmap, ACTION_ADD, NULL); break;
    case IMG_OPTION_REMOVE: add_action(bitmap, ACTION_REMOVE, NULL); break;
    case IMG_OPTION_CLEAR: add_action(bitmap, ACTION_CLEAR, NULL); break;
    case IMG_OPTION_ENABLE: add_action(bitmap, ACTION_ENABLE, NULL); break;
    case IMG_OPTION_DISABLE: add_action(bitmap, ACTION_DISABLE, NULL); break;
    case IMG_OPTION_MERGE: add_action(bitmap, ACTION_MERGE, optarg); break;
    default: return 1;
    }
    return -1;
}

static bool check(const Bitmap *bitmap, int arguments)
{
    const char *problem = NULL;

    if (bitmap->actions->len == 0) {
        problem = "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge";
    } else if (bitmap->has_granularity && !bitmap->adds) {
        problem = "granularity only supported with --add";
    } else if (bitmap->source.format && !bitmap->source.filename) {
        problem = "-F only supported with -b";
    } else if (bitmap->source.filename && !bitmap->merges) {
        problem = "Merge bitmap source file only supported with --merge";
    } else if (arguments != 2) {
        problem = "Expecting filename and bitmap name";
    }
    if (problem) {
        tool_error("%s", problem);
    }
    return !problem;
}

int img_bitmap(int argc, char **argv)
{
    g_autoptr(GArray) actions = g_array_new(FALSE, FALSE, sizeof(Action));
    Bitmap bitmap = {
        .image.flags = BDRV_O_RDWR | BDRV_O_NO_BACKING,
        .source.flags = BDRV_O_NO_BACKING,
        .actions = actions,
    };
    int option, status = -1;

    while (status < 0 && (option = img_next_option(argc, argv)) != -1) {
        status = take_option(&bitmap, option, argv);
    }
    if (status >= 0) {
        return status;
    }
    if (!check(&bitmap, argc - optind)) {
        return 1;
    }
    bitmap.image.filename = argv[optind];
    bitmap.name = argv[optind + 1];
    return run(&bitmap);
}
