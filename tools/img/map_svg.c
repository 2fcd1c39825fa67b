/* SPDX-License-Identifier: MIT */
/*
 * map --output=svg: a picture of the disk. Above, the disk from left to right and from top to bottom: holes, zeroes, data
 * and compressed data, by layer. Below, where in the file each part lies: what was written in one go is one rising line.
 */
#include <inttypes.h>
#include <string.h>

#include "tools/img/img.h"

enum { MARGIN = 20, WIDTH = 1000, CELL = 2, CELLS = WIDTH / CELL, ROWS = 48, ROW = 8, PLOT = 300, LINE = 18, LAYERS = 8 };

/* What a cell of the disk is painted as; of data a class for each layer, deeper ones share the last. */
enum { CLASS_HOLE, CLASS_ZERO, CLASS_DATA, CLASS_COMPRESSED = CLASS_DATA + LAYERS, CLASSES = CLASS_COMPRESSED + LAYERS };

static const char *const layer_colours[LAYERS] = { "#1f6fb4", "#2e9e44", "#e67e22", "#8e5bb5",
                                                   "#b0413e", "#d66aa8", "#9a9a1d", "#17a2b8" };

typedef struct Picture {
    BlockBackend *blk;
    int64_t start, end; /* of the disk */
    GString *cells;     /* drawn so far */
    GString *places[LAYERS];
    uint8_t *drawn[LAYERS]; /* pixels of the places that have a dot */
    /* the cell being looked at, and the run of cells of one class before it */
    int64_t cell, cell_bytes[CLASSES];
    int64_t run_start;
    int run_class;
    /* where data lies in files */
    int64_t file_end, parts;
    int64_t bytes[CLASSES];
} Picture;

static int64_t cell_start(const Picture *picture, int64_t cell)
{
    return picture->start + (int64_t)((double)(picture->end - picture->start) * cell / (CELLS * ROWS));
}

static int class_of(const BlockExtent *extent)
{
    unsigned layer = MIN(extent->depth, LAYERS - 1);

    if (!img_has_data(extent)) {
        return extent->kind == EXTENT_BACKING || !extent->present ? CLASS_HOLE : CLASS_ZERO;
    }
    return (int)((extent->compressed ? CLASS_COMPRESSED : CLASS_DATA) + layer);
}

/* ---- the disk ---- */

static void put_fill(GString *out, int class)
{
    if (class >= CLASS_COMPRESSED) {
        g_string_append_printf(out, "url(#c%d)", class - CLASS_COMPRESSED);
    } else if (class >= CLASS_DATA) {
        g_string_append(out, layer_colours[class - CLASS_DATA]);
    } else {
        g_string_append(out, class == CLASS_ZERO ? "#c3cdd4" : "#f1f1ee");
    }
}

/* Cells @from up to @to, which lie in one row or go on in the next ones. */
static void draw_run(Picture *picture, int64_t from, int64_t to, int class)
{
    while (from < to && class != CLASS_HOLE) {
        int64_t row = from / CELLS, n = MIN(to, (row + 1) * CELLS) - from;

        g_string_append_printf(picture->cells, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"",
                               (int)(from % CELLS) * CELL, (int)row * ROW, (int)n * CELL, ROW - 1);
        put_fill(picture->cells, class);
        g_string_append(picture->cells, "\"/>\n");
        from += n;
    }
}

static void end_run(Picture *picture, int64_t cell, int class)
{
    if (class != picture->run_class) {
        draw_run(picture, picture->run_start, cell, picture->run_class);
        picture->run_start = cell;
        picture->run_class = class;
    }
}

/* What fills most of it; of equal parts the one with data. */
static void end_cell(Picture *picture)
{
    int most = CLASS_HOLE;

    for (int class = 0; class < CLASSES; class++) {
        if (picture->cell_bytes[class] > 0 && picture->cell_bytes[class] >= picture->cell_bytes[most]) {
            most = class;
        }
    }
    end_run(picture, picture->cell, most);
    picture->cell++;
    memset(picture->cell_bytes, 0, sizeof(picture->cell_bytes));
}

static void paint(Picture *picture, int64_t offset, const BlockExtent *extent)
{
    int class = class_of(extent);
    int64_t bytes = extent->bytes;

    picture->bytes[class] += bytes;
    while (bytes > 0) {
        bool is_last = picture->cell == CELLS * ROWS - 1;
        int64_t cell_end = is_last ? picture->end : cell_start(picture, picture->cell + 1), n = MIN(bytes, cell_end - offset);

        picture->cell_bytes[class] += MAX(n, 1); /* of a small disk a cell may be no byte at all */
        offset += n;
        bytes -= n;
        if (offset >= cell_end && !is_last) {
            end_cell(picture);
        }
    }
}

/* ---- where it lies ---- */

static bool has_place(const BlockExtent *extent)
{
    return img_has_data(extent) && extent->host_offset >= 0;
}

/* How far the file reaches must be known before anything can be drawn. */
static void measure_file(Picture *picture, int64_t offset, const BlockExtent *extent)
{
    if (has_place(extent)) {
        picture->parts++;
        picture->file_end = MAX(picture->file_end, extent->host_offset + extent->bytes);
    }
}

/* A line for each part; of those that are no larger than a dot one at a pixel. So there are not many more than pixels. */
static void draw_place(Picture *picture, int64_t offset, const BlockExtent *extent)
{
    unsigned layer = MIN(extent->depth, LAYERS - 1);
    double x_scale = (double)WIDTH / (double)(picture->end - picture->start), y_scale = (double)PLOT / (double)picture->file_end;
    double x = (double)(offset - picture->start) * x_scale, y = (double)extent->host_offset * y_scale;
    double width = (double)extent->bytes * x_scale, height = (double)extent->bytes * y_scale;

    if (width < 1 && height < 1) {
        uint8_t *dot = &picture->drawn[layer][MIN((int)y, PLOT - 1) * WIDTH + MIN((int)x, WIDTH - 1)];

        if (*dot) {
            return;
        }
        *dot = 1;
    }
    g_string_append_printf(picture->places[layer], "M%.1f %.1fl%.1f %.1f", x, PLOT - y, MAX(width, 0.8), -MAX(height, 0.8));
}

static void draw(Picture *picture, int64_t offset, const BlockExtent *extent)
{
    paint(picture, offset, extent);
    if (has_place(extent)) {
        draw_place(picture, offset, extent);
    }
}

/* ---- the page ---- */

static char *size_text(int64_t bytes)
{
    static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    double size = (double)bytes;
    unsigned unit = 0;

    while (size >= 1024 && unit < G_N_ELEMENTS(units) - 1) {
        size /= 1024;
        unit++;
    }
    return g_strdup_printf("%.*f %s", unit && size < 100 ? 1 : 0, size, units[unit]);
}

static char *escaped(const char *text)
{
    g_autofree char *valid = g_utf8_make_valid(text, -1);

    return g_markup_escape_text(valid, -1);
}

/* One line of the legend: what the colour is, and how much of it there is. */
static void put_legend(const Picture *picture, GString *out, int *y, int class, const char *what)
{
    g_autofree char *size = size_text(picture->bytes[class]), *name = escaped(what);
    double share = 100.0 * (double)picture->bytes[class] / (double)MAX(picture->end - picture->start, 1);

    g_string_append_printf(out, "<rect x=\"0\" y=\"%d\" width=\"14\" height=\"12\" stroke=\"#999\" stroke-width=\"0.5\" fill=\"",
                           *y - 10);
    put_fill(out, class);
    g_string_append_printf(out, "\"/><text x=\"22\" y=\"%d\">%s: %s, %.1f %%</text>\n", *y, name, size, share);
    *y += LINE;
}

static void put_legends(Picture *picture, GString *out, int *y)
{
    BdrvLayer layer;

    for (unsigned depth = 0; depth < LAYERS; depth++) {
        bool known = blk_layer(picture->blk, depth, &layer);
        const char *name = known ? layer.filename : "?", *more = depth == LAYERS - 1 ? " and deeper" : "";
        g_autofree char *data = g_strdup_printf("data in %s%s", name, more),
                        *compressed = g_strdup_printf("compressed in %s%s", name, more);

        if (picture->bytes[CLASS_DATA + depth]) {
            put_legend(picture, out, y, CLASS_DATA + (int)depth, data);
        }
        if (picture->bytes[CLASS_COMPRESSED + depth]) {
            put_legend(picture, out, y, CLASS_COMPRESSED + (int)depth, compressed);
        }
    }
    put_legend(picture, out, y, CLASS_ZERO, "zeroes");
    put_legend(picture, out, y, CLASS_HOLE, "holes: nothing is stored, in no layer");
}

static void put_patterns(GString *out)
{
    g_string_append(out, "<defs>\n");
    for (int layer = 0; layer < LAYERS; layer++) {
        g_string_append_printf(out,
                               "<pattern id=\"c%d\" width=\"4\" height=\"4\" patternUnits=\"userSpaceOnUse\">"
                               "<rect width=\"4\" height=\"4\" fill=\"%s\"/>"
                               "<path d=\"M-1 1l2 -2M0 4l4 -4M3 5l2 -2\" stroke=\"#fff\" stroke-width=\"1\"/></pattern>\n",
                               layer, layer_colours[layer]);
    }
    g_string_append(out, "</defs>\n");
}

static void print_picture(Picture *picture)
{
    g_autoptr(GString) body = g_string_new(NULL);
    g_autofree char *name = escaped(blk_filename(picture->blk)), *size = size_text(picture->end - picture->start);
    g_autofree char *from = size_text(picture->start), *file = size_text(picture->file_end), *to = size_text(picture->end);
    int y = LINE;

    g_string_append_printf(body, "<text x=\"0\" y=\"%d\" font-size=\"16\" font-weight=\"bold\">%s: %s</text>\n", y, name, size);
    y += LINE + 6;
    put_legends(picture, body, &y);
    g_string_append_printf(body, "<text x=\"0\" y=\"%d\">the disk, %s to %s, row by row</text>\n", y + 8, from, to);
    y += LINE;
    g_string_append_printf(body,
                           "<g transform=\"translate(0 %d)\" shape-rendering=\"crispEdges\">\n"
                           "<rect width=\"%d\" height=\"%d\" fill=\"#f1f1ee\"/>\n%s</g>\n",
                           y, WIDTH, ROWS * ROW - 1, picture->cells->str);
    y += ROWS * ROW + LINE + 8;
    g_string_append_printf(body,
                           "<text x=\"0\" y=\"%d\">where it lies in the file: the disk from left to right, the file (%s) from "
                           "bottom to top; %" PRId64 " piece%s</text>\n",
                           y, file, picture->parts, picture->parts == 1 ? "" : "s");
    y += 8;
    g_string_append_printf(body, "<g transform=\"translate(0 %d)\"><rect width=\"%d\" height=\"%d\" fill=\"none\" "
                                 "stroke=\"#999\"/>\n",
                           y, WIDTH, PLOT);
    for (int layer = 0; layer < LAYERS; layer++) {
        if (picture->places[layer]->len) {
            g_string_append_printf(body, "<path fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\" d=\"", layer_colours[layer]);
            g_string_append_len(body, picture->places[layer]->str, (gssize)picture->places[layer]->len);
            g_string_append(body, "\"/>\n");
        }
    }
    g_string_append(body, "</g>\n");
    y += PLOT;
    g_autoptr(GString) head = g_string_new(NULL);
    put_patterns(head);
    printf("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
           "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"%d %d %d %d\" "
           "font-family=\"sans-serif\" font-size=\"13\">\n"
           "%s<rect x=\"%d\" y=\"%d\" width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n%s</svg>\n",
           WIDTH + 2 * MARGIN, y + 2 * MARGIN, -MARGIN, -MARGIN, WIDTH + 2 * MARGIN, y + 2 * MARGIN, head->str, -MARGIN,
           -MARGIN, body->str);
}

static bool walk(Picture *picture, void (*see)(Picture *, int64_t offset, const BlockExtent *extent))
{
    for (int64_t offset = picture->start; offset < picture->end;) {
        BlockExtent extent;

        if (!img_map_extent(picture->blk, offset, picture->end, &extent)) {
            return false;
        }
        see(picture, offset, &extent);
        offset += extent.bytes;
    }
    return true;
}

int img_map_svg(BlockBackend *blk, int64_t start, int64_t end)
{
    Picture picture = { .blk = blk, .start = MIN(start, end), .end = end, .cells = g_string_new(NULL) };

    for (int layer = 0; layer < LAYERS; layer++) {
        picture.places[layer] = g_string_new(NULL);
        picture.drawn[layer] = g_malloc0(WIDTH * PLOT);
    }
    bool ok = walk(&picture, measure_file) && walk(&picture, draw);
    if (ok) {
        end_cell(&picture);
        draw_run(&picture, picture.run_start, picture.cell, picture.run_class);
        print_picture(&picture);
    }
    for (int layer = 0; layer < LAYERS; layer++) {
        g_string_free(picture.places[layer], TRUE);
        g_free(picture.drawn[layer]);
    }
    g_string_free(picture.cells, TRUE);
    return ok ? 0 : 1;
}
