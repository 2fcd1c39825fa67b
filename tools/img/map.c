/* SPDX-License-Identifier: MIT */
/* map: where each part of the guest disk is stored, over the whole chain. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "tools/img/img.h"

typedef struct MapEntry {
    BlockExtent extent;
    int64_t start;
    char *filename; /* of extent.file; NULL: no single place */
} MapEntry;

static const char *json_bool(bool value)
{
    return value ? "true" : "false";
}

static bool print_human(const MapEntry *entry)
{
    const BlockExtent *extent = &entry->extent;

    if (!img_has_data(extent)) {
        return true;
    }
    if (extent->host_offset < 0) {
        tool_error("File contains external, encrypted or compressed clusters.");
        return false;
    }
    printf("%#-16" PRIx64 "%#-16" PRIx64 "%#-16" PRIx64 "%s\n", entry->start, extent->bytes, extent->host_offset,
           entry->filename);
    return true;
}

static void print_json(const MapEntry *entry, bool first)
{
    const BlockExtent *extent = &entry->extent;

    printf("%s{ \"start\": %" PRId64 ", \"length\": %" PRId64
           ", \"depth\": %u, \"present\": %s, \"zero\": %s, \"data\": %s",
           first ? "" : ",\n", entry->start, extent->bytes, extent->depth, json_bool(extent->present),
           json_bool(!img_has_data(extent) && extent->bytes), json_bool(extent->kind == EXTENT_DATA));
    if (extent->host_offset >= 0) {
        printf(", \"offset\": %" PRId64, extent->host_offset);
    }
    printf("}");
}

static bool print_entry(const MapEntry *entry, ImgOutput output, bool first)
{
    if (output == IMG_OUTPUT_HUMAN) {
        return print_human(entry);
    }
    print_json(entry, first);
    return true;
}

static bool continues(const MapEntry *entry, const BlockExtent *next)
{
    const BlockExtent *extent = &entry->extent;
    bool same_place = extent->host_offset < 0
                          ? next->host_offset < 0
                          : next->host_offset == extent->host_offset + extent->bytes && next->file == extent->file;

    return extent->kind == next->kind && extent->hole == next->hole && extent->depth == next->depth &&
           extent->present == next->present && same_place;
}

bool img_map_extent(BlockBackend *blk, int64_t offset, int64_t end, BlockExtent *extent)
{
    int ret = blk_block_status_above(blk, offset, end - offset, extent);

    if (ret < 0) {
        tool_error("Failed to read image metadata at offset %" PRId64 ": %s", offset, strerror(-ret));
    }
    return ret >= 0;
}

static int map(BlockBackend *blk, int64_t start, int64_t end, ImgOutput output)
{
    MapEntry entry = { .start = -1 };
    bool first = true, printed = true;

    if (output == IMG_OUTPUT_HUMAN) {
        printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
    } else {
        putchar('[');
    }
    for (int64_t offset = start; offset < end;) {
        BlockExtent extent;

        if (!img_map_extent(blk, offset, end, &extent)) {
            return 1;
        }
        if (entry.start >= 0 && continues(&entry, &extent)) {
            entry.extent.bytes += extent.bytes;
        } else {
            if (entry.start >= 0) {
                printed = print_entry(&entry, output, first);
                first = false;
            }
            if (!printed) {
                return 1;
            }
            g_free(entry.filename);
            entry = (MapEntry){
                .extent = extent,
                .start = offset,
                .filename = extent.file ? g_strdup(bdrv_node_filename(extent.file)) : NULL,
            };
        }
        offset += extent.bytes;
    }
    if (entry.start < 0) { /* nothing to look at: one entry without length */
        entry = (MapEntry){ .start = start, .extent = { .kind = EXTENT_BACKING, .host_offset = -1 } };
    }
    printed = print_entry(&entry, output, first);
    g_free(entry.filename);
    if (output == IMG_OUTPUT_JSON) {
        puts("]");
    }
    return printed ? 0 : 1;
}

int img_map(int argc, char **argv)
{
    g_autoptr(BdrvGraph) graph = NULL;
    ImgLook look = { .can_draw = true };
    int64_t start = 0, length = INT64_MAX;
    BlockBackend *blk;
    int option, status;

    while ((option = img_next_option(argc, argv)) != -1) {
        switch (option) {
        case 's':
            if (!img_parse_size(optarg, "start offset", &start)) {
                return 1;
            }
            break;
        case 'l':
            if (!img_parse_size(optarg, "max length", &length)) {
                return 1;
            }
            break;
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
    graph = tool_graph();
    blk = img_open(graph, &look.image);
    if (!blk) {
        return 1;
    }
    int64_t end = MIN(blk_length(blk), length < INT64_MAX - start ? start + length : INT64_MAX);
    status = look.output == IMG_OUTPUT_SVG ? img_map_svg(blk, start, end) : map(blk, start, end, look.output);
    img_close(blk, look.image.filename);
    return status;
}
