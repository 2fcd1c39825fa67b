/* SPDX-License-Identifier: MIT */
/* info: what an image is. Opens nothing that the image names unless --backing-chain asks for it. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tools/img/img.h"

typedef struct Layer {
    BdrvLayer of; /* of.filename etc. belong to the open image */
    BdrvOptions *specific;
    BdrvSnapshotInfo *snapshots;
    int snapshot_count;
    BdrvInfo info;
} Layer;

static void print_human(const Layer *layer)
{
    const BdrvLayer *of = &layer->of;
    g_autofree char *virtual_size = bdrv_format_size(of->length);
    g_autofree char *disk_size =
        of->allocated_size >= 0 ? bdrv_format_size(of->allocated_size) : g_strdup("unavailable");

    printf("image: %s\nfile format: %s\nvirtual size: %s (%" PRId64 " bytes)\ndisk size: %s\n", of->filename,
           of->driver, virtual_size, of->length, disk_size);
    if (of->encrypted) {
        printf("encrypted: yes\n");
    }
    if (of->cluster_size) {
        printf("cluster_size: %" PRId64 "\n", of->cluster_size);
    }
    if (of->is_dirty) {
        printf("cleanly shut down: no\n");
    }
    if (of->backing_filename) {
        printf("backing file: %s", of->backing_filename);
        if (!of->full_backing_filename) {
            printf(" (cannot determine actual path)");
        } else if (strcmp(of->backing_filename, of->full_backing_filename) != 0) {
            printf(" (actual path: %s)", of->full_backing_filename);
        }
        putchar('\n');
        if (of->backing_format) {
            printf("backing file format: %s\n", of->backing_format);
        }
    }
    if (layer->snapshot_count > 0) {
        img_print_snapshots(layer->snapshots, layer->snapshot_count);
    }
    if (layer->specific) {
        tool_print_specific_info(layer->specific);
    }
}

static void add_snapshots(BdrvOptions *object, const Layer *layer)
{
    for (int i = 0; i < layer->snapshot_count; i++) {
        const BdrvSnapshotInfo *snapshot = &layer->snapshots[i];
        g_autofree char *prefix = g_strdup_printf("snapshots.%d", i);
        g_autoptr(BdrvOptions) item = bdrv_options_new();

        if (snapshot->icount != UINT64_MAX) {
            bdrv_options_set_int(item, "icount", snapshot->icount);
        }
        bdrv_options_set_int(item, "vm-clock-nsec", snapshot->vm_clock_ns % 1000000000);
        bdrv_options_set_string(item, "name", snapshot->name);
        bdrv_options_set_int(item, "date-sec", snapshot->date_sec);
        bdrv_options_set_int(item, "date-nsec", snapshot->date_nsec);
        bdrv_options_set_int(item, "vm-clock-sec", snapshot->vm_clock_ns / 1000000000);
        bdrv_options_set_string(item, "id", snapshot->id);
        bdrv_options_set_int(item, "vm-state-size", snapshot->vm_state_size);
        bdrv_options_merge(object, prefix, item);
    }
}

static BdrvOptions *layer_object(const Layer *layer)
{
    const BdrvLayer *of = &layer->of;
    BdrvOptions *object = bdrv_options_new();

    add_snapshots(object, layer);
    if (of->backing_format) {
        bdrv_options_set_string(object, "backing-filename-format", of->backing_format);
    }
    bdrv_options_set_int(object, "virtual-size", of->length);
    bdrv_options_set_string(object, "filename", of->filename);
    if (of->cluster_size) {
        bdrv_options_set_int(object, "cluster-size", of->cluster_size);
    }
    bdrv_options_set_string(object, "format", of->driver);
    if (of->allocated_size >= 0) {
        bdrv_options_set_int(object, "actual-size", of->allocated_size);
    }
    if (layer->specific) {
        bdrv_options_merge(object, "format-specific", layer->specific);
    }
    if (of->full_backing_filename) {
        bdrv_options_set_string(object, "full-backing-filename", of->full_backing_filename);
    }
    if (of->encrypted) {
        bdrv_options_set_bool(object, "encrypted", true);
    }
    if (of->backing_filename) {
        bdrv_options_set_string(object, "backing-filename", of->backing_filename);
    }
    bdrv_options_set_bool(object, "dirty-flag", of->is_dirty);
    return object;
}

static char *indented(const char *text)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    g_autofree char *joined = g_strjoinv("\n    ", lines);

    return g_strconcat("    ", joined, NULL);
}

static void print_layer(const Layer *layer, unsigned depth, bool chain, ImgOutput output)
{
    if (output == IMG_OUTPUT_HUMAN) {
        if (depth > 0) {
            putchar('\n');
        }
        print_human(layer);
        return;
    }
    g_autoptr(BdrvOptions) object = layer_object(layer);
    g_autofree char *text = img_json_text(object);
    if (chain) {
        g_autofree char *shifted = indented(text);
        printf("%s%s", depth > 0 ? ",\n" : "", shifted);
    } else {
        printf("%s\n", text);
    }
}

/* Snapshots are listed of the layer that is the root of an open image. */
static bool load_layer(BlockBackend *blk, Layer *layer)
{
    memset(layer, 0, sizeof(*layer));
    if (!blk_layer(blk, 0, &layer->of)) {
        return false;
    }
    layer->specific = blk_layer_specific_info(blk, 0);
    layer->snapshot_count = MAX(blk_list_snapshots(blk, &layer->snapshots), 0);
    return true;
}

static void free_layer(Layer *layer)
{
    bdrv_options_free(layer->specific);
    if (layer->snapshots) {
        bdrv_snapshot_list_free(layer->snapshots, layer->snapshot_count);
    }
}

/* A file by any name: "x", "./x" and a link to it; "nbd:…" and the like as they are. */
static char *identity(const char *filename)
{
    char *real = realpath(filename, NULL), *name = g_strdup(real ? real : filename);

    free(real);
    return name;
}

/* The name comes from an image, so what holds for opening a chain holds here. */
static bool may_be_named(const char *parent, const char *filename, const char *format)
{
    GError *error = NULL;
    bool guess = false;

    if (bdrv_gate_local(NULL, parent, filename, format, &guess, &error)) {
        return true;
    }
    tool_error("Could not open '%s': %s", filename, error->message);
    g_error_free(error);
    return false;
}

/*
 * Each image of the chain is opened by itself, so that a chain that names itself is found out. What
 * is wrong in a chain should be known before half of it is printed: @print only if all is well.
 */
static int walk_images(BdrvGraph *graph, const ToolImage *first, bool chain, ImgOutput output, bool print)
{
    ToolImage copy = *first, *image = &copy;
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autofree char *next = NULL, *next_format = NULL;

    for (unsigned depth = 0;; depth++) {
        BlockBackend *blk;
        Layer layer;

        if (!g_hash_table_add(seen, identity(image->filename))) {
            tool_error("Backing file '%s' creates an infinite loop.", image->filename);
            return 1;
        }
        blk = img_open(graph, image);
        if (!blk) {
            return 1;
        }
        load_layer(blk, &layer);
        if (print && depth == 0 && chain && output == IMG_OUTPUT_JSON) {
            printf("[\n");
        }
        if (print) {
            print_layer(&layer, depth, chain, output);
        }
        char *below = g_strdup(layer.of.full_backing_filename), *below_format = g_strdup(layer.of.backing_format);
        free_layer(&layer);
        img_close(blk, image->filename);
        bool refused = chain && below && !may_be_named(image->filename, below, below_format);
        g_free(next); /* the name of this image */
        g_free(next_format);
        next = below;
        next_format = below_format;
        if (refused) {
            return 1;
        }
        if (!chain || !next) {
            break;
        }
        image->filename = next;
        image->format = next_format;
        image->image_opts = false;
    }
    if (print && chain && output == IMG_OUTPUT_JSON) {
        printf("\n]\n");
    }
    return 0;
}

static int print_images(BdrvGraph *graph, const ToolImage *first, bool chain, ImgOutput output)
{
    int status = chain ? walk_images(graph, first, chain, output, false) : 0;

    return status ? status : walk_images(graph, first, chain, output, true);
}

/* The image as it is opened for use: all nodes, what each uses, and what it denies others. */
static int print_graph(BdrvGraph *graph, ToolImage *image)
{
    BlockBackend *blk;

    image->flags &= ~BDRV_O_NO_BACKING;
    blk = img_open(graph, image);
    if (!blk) {
        return 1;
    }
    g_autofree char *text = bdrv_graph_to_text(graph);
    fputs(text, stdout);
    return img_close(blk, image->filename) ? 0 : 1;
}

int img_info(int argc, char **argv)
{
    g_autoptr(BdrvGraph) graph = NULL;
    ImgLook look = { .image = { .flags = BDRV_O_NO_BACKING | BDRV_O_NO_IO } };
    bool chain = false, tree = false;
    int option, status;

    while ((option = img_next_option(argc, argv)) != -1) {
        switch (option) {
        case IMG_OPTION_BACKING_CHAIN: chain = true; break;
        case IMG_OPTION_GRAPH: tree = true; break;
        default:
            status = img_look_option(&look, option);
            if (status >= 0) {
                return status;
            }
        }
    }
    if (!img_look_filename(&look, argc, argv)) {
        return 1;
    }
    if (tree && (chain || look.output != IMG_OUTPUT_HUMAN)) {
        tool_error("--graph shows the whole chain, as text: it takes no --backing-chain and no --output=json");
        return 1;
    }
    graph = tool_graph();
    return tree ? print_graph(graph, &look.image) : print_images(graph, &look.image, chain, look.output);
}
