/* SPDX-License-Identifier: MIT */
/* measure: how large the file of a new image would be. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "tools/img/img.h"

typedef struct Measure {
    ImgLook look; /* the source, if there is one */
    const char *format;
    BdrvOptions *options;
    int64_t size; /* bytes; -1: that of the source */
    ImgSnapshotParam snapshot; /* with has_snapshot */
    bool has_snapshot;
} Measure;

static void print_human(const BdrvMeasure *measure)
{
    printf("required size: %" PRId64 "\n", measure->required);
    printf("fully allocated size: %" PRId64 "\n", measure->fully_allocated);
    if (measure->bitmaps >= 0) {
        printf("bitmaps size: %" PRId64 "\n", measure->bitmaps);
    }
}

static void print_json(const BdrvMeasure *measure)
{
    g_autoptr(BdrvOptions) object = bdrv_options_new();
    g_autofree char *text = NULL;

    if (measure->bitmaps >= 0) {
        bdrv_options_set_int(object, "bitmaps", measure->bitmaps);
    }
    bdrv_options_set_int(object, "required", measure->required);
    bdrv_options_set_int(object, "fully-allocated", measure->fully_allocated);
    text = img_json_text(object);
    printf("%s\n", text);
}

static int measure_source(Measure *m, BlockBackend *source)
{
    BdrvMeasure measure;
    GError *error = NULL;

    if (m->size >= 0) {
        bdrv_options_set_int(m->options, "size", m->size);
    }
    if (!bdrv_measure_image(m->format, g_steal_pointer(&m->options), source, &measure, &error)) {
        tool_report(NULL, error);
        return 1;
    }
    if (m->look.output == IMG_OUTPUT_HUMAN) {
        print_human(&measure);
    } else {
        print_json(&measure);
    }
    return 0;
}

static int measure_image(Measure *m)
{
    g_autoptr(BdrvGraph) graph = NULL;
    BlockBackend *source = NULL;
    int status;

    if (m->look.image.filename) {
        graph = tool_graph();
        source = img_open(graph, &m->look.image);
        if (!source) {
            return 1;
        }
    }
    status = m->has_snapshot && !img_load_snapshot(source, &m->snapshot) ? 1 : measure_source(m, source);
    if (source && !img_close(source, m->look.image.filename)) {
        status = 1;
    }
    return status;
}

/* Either a size or an image, and what belongs to the image only with it. */
static bool check(const Measure *m)
{
    const ToolImage *image = &m->look.image;

    if ((image->format || image->image_opts || m->has_snapshot) && !image->filename) {
        tool_error("--image-opts, -f and -l require a filename argument.");
        return false;
    }
    if (!image->filename && m->size < 0) {
        tool_error("Either --size N or one filename must be specified.");
        return false;
    }
    if (image->filename && m->size >= 0) {
        tool_error("--size N cannot be used together with a filename.");
        return false;
    }
    if (!bdrv_driver_known(m->format)) {
        g_autofree char *why = tool_unknown_format(m->format);
        tool_error("%s", why);
        return false;
    }
    return true;
}

/* A key is not needed to measure, but a name that leads nowhere is a mistake. */
static bool check_secret(const BdrvOptions *options)
{
    static const char *const keys[] = { "key-secret", "encrypt.key-secret" };

    for (unsigned i = 0; i < G_N_ELEMENTS(keys); i++) {
        const char *id = bdrv_options_get_string(options, keys[i], NULL);

        if (id && !tool_has_object(id)) {
            tool_error("No secret with id '%s'", id);
            return false;
        }
    }
    return true;
}

static int parse_and_measure(Measure *m, int argc, char **argv)
{
    int option;

    while ((option = img_next_option(argc, argv)) != -1) {
        switch (option) {
        case 'l':
            img_clear_snapshot_param(&m->snapshot);
            m->has_snapshot = true;
            if (!img_parse_snapshot_param(optarg, &m->snapshot)) {
                return 1;
            }
            break;
        case 'O': m->format = optarg; break;
        case 'o':
            if (!img_add_options(&m->options, optarg)) {
                return 1;
            }
            break;
        case IMG_OPTION_SIZE:
            if (!img_parse_size(optarg, "image size", &m->size)) {
                return 1;
            }
            break;
        default: {
            int status = img_look_option(&m->look, option);
            if (status >= 0 || !img_look_output(&m->look)) {
                return status >= 0 ? status : 1;
            }
        }
        }
    }
    if (optind < argc - 1) {
        tool_error("At most one filename argument is allowed.");
        return 1;
    }
    m->look.image.filename = argv[optind]; /* or NULL behind the last */
    if (!check(m)) {
        return 1;
    }
    if (!m->options) {
        m->options = bdrv_options_new();
    }
    return check_secret(m->options) ? measure_image(m) : 1;
}

int img_measure(int argc, char **argv)
{
    Measure m = { .format = "raw", .size = -1 };
    int status = parse_and_measure(&m, argc, argv);

    bdrv_options_free(m.options);
    img_clear_snapshot_param(&m.snapshot);
    return status;
}
