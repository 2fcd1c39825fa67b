/* SPDX-License-Identifier: MIT */
/* convert: copy one or more images into a new one, of any format. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "tools/img/img.h"

enum { DEFAULT_COROUTINES = 8, MAX_COROUTINES = 16, MAX_SPARSE = 16 << 20 };

typedef struct Convert {
    ToolImage source, target;
    ImgSnapshotParam snapshot; /* with has_snapshot */
    const char *output_format, *backing, *backing_format, *snapshot_text;
    BdrvOptions *options;
    char **source_names;
    unsigned source_count;
    const char *target_name;
    bool skip_create, progress, target_is_zero, sparse_given, has_snapshot;
    bool bitmaps, skip_broken_bitmaps, compression_level;
    const char *cache, *source_cache;
    bool wants_resume, resumed; /* resumed: goes on with a copy that was stopped */
    ImgTransfer transfer;
} Convert;

static bool open_sources(Convert *convert, BdrvGraph *graph)
{
    ImgTransfer *transfer = &convert->transfer;

    transfer->sources = g_new0(BlockBackend *, convert->source_count);
    for (unsigned i = 0; i < convert->source_count; i++) {
        ToolImage image = convert->source;

        image.filename = convert->source_names[i];
        transfer->sources[i] = img_open(graph, &image);
        if (!transfer->sources[i]) {
            return false;
        }
        transfer->source_count++;
        if (convert->has_snapshot && !img_load_snapshot(transfer->sources[i], &convert->snapshot)) {
            return false;
        }
        if (__builtin_add_overflow(transfer->length, blk_length(transfer->sources[i]), &transfer->length)) {
            tool_error("%s: the inputs are more than %" PRId64 " bytes in all", image.filename, INT64_MAX);
            return false;
        }
    }
    return true;
}

static bool same_file(const char *a, const char *b)
{
    g_autofree char *real_a = realpath(a, NULL), *real_b = realpath(b, NULL);

    return real_a && real_b && strcmp(real_a, real_b) == 0;
}

/*
 * The layer of the source chain that is the target's backing file; the first backing file if none is. Of what lies
 * there nothing is copied, so a layer that cannot be asked is not one that is not there.
 */
static bool find_base(Convert *convert)
{
    ImgTransfer *transfer = &convert->transfer;
    int layers = blk_count_layers(transfer->sources[0]);
    bool asked = layers > 0, found = false;

    transfer->base_depth = 1;
    for (int depth = 1; depth < layers && asked && !found; depth++) {
        BdrvLayer layer;

        asked = blk_layer(transfer->sources[0], (unsigned)depth, &layer);
        found = asked && same_file(layer.filename, convert->backing);
        transfer->base_depth = found ? depth : 1;
    }
    if (!asked) {
        tool_error("Cannot look at the backing files of '%s'", blk_filename(transfer->sources[0]));
    }
    return asked;
}

static bool can_compress(const char *format)
{
    if (!bdrv_driver_can_compress(format)) {
        tool_error("Compression not supported for this file format");
        return false;
    }
    return true;
}

/* A creation option, if it is given, is one of the open target, too; false if it is not. */
static bool pass_to_target(Convert *convert, const char *key, const char *open_key)
{
    const char *value = convert->options ? bdrv_options_get_string(convert->options, key, NULL) : NULL;

    if (value) {
        convert->target.extra = convert->target.extra ? convert->target.extra : bdrv_options_new();
        bdrv_options_set_string(convert->target.extra, open_key, value);
    }
    return value != NULL;
}

static bool make_target(Convert *convert, BdrvGraph *graph)
{
    if (!convert->options) {
        convert->options = bdrv_options_new();
    }
    if (convert->backing) {
        bdrv_options_set_string(convert->options, "backing_file", convert->backing);
    }
    if (convert->backing_format) {
        bdrv_options_set_string(convert->options, "backing_fmt", convert->backing_format);
    }
    if (convert->transfer.compressed && bdrv_driver_known(convert->output_format)) {
        if (!can_compress(convert->output_format)) {
            return false;
        }
        if (strcmp(bdrv_options_get_string(convert->options, "preallocation", "off"), "off") != 0) {
            tool_error("Compression and preallocation not supported at the same time");
            return false;
        }
        if (bdrv_options_has(convert->options, "encrypt.format") ||
            strcmp(bdrv_options_get_string(convert->options, "encryption", "off"), "off") != 0) {
            tool_error("Compression and encryption not supported at the same time");
            return false;
        }
    }
    for (unsigned i = 0; i < convert->source_count; i++) {
        if (same_file(convert->source_names[i], convert->target_name)) {
            tool_error("%s: the target is one of the sources; nothing was changed", convert->target_name);
            return false;
        }
    }
    return img_create_image(graph, convert->output_format, convert->target_name, g_steal_pointer(&convert->options),
                            convert->transfer.length, false, true);
}

static bool open_target(Convert *convert, BdrvGraph *graph)
{
    ImgTransfer *transfer = &convert->transfer;

    convert->target.filename = convert->target_name;
    convert->target.flags |= BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_UNMAP;
    if (!convert->target.image_opts) {
        convert->target.format = convert->output_format;
    }
    transfer->target = img_open(graph, &convert->target);
    if (!transfer->target) {
        return false;
    }
    if (convert->skip_create && blk_length(transfer->target) < transfer->length) {
        tool_error("output file is smaller than input file");
        return false;
    }
    if (transfer->compressed && !can_compress(blk_driver(transfer->target))) {
        return false;
    }
    transfer->target_reads_zero =
        convert->target_is_zero ||
        (!convert->skip_create && !convert->backing && blk_has_zero_init(transfer->target));
    if (convert->backing) {
        BdrvLayer layer;

        transfer->target_backing_length = blk_layer(transfer->target, 1, &layer) ? layer.length : 0;
        return find_base(convert);
    }
    return true;
}

/* ---- --resume ---- */

/* What must be the same when the copy goes on: the sources with all that they lie on, and how they are copied. */
static void note_copy(Convert *convert, ImgResume *resume)
{
    ImgTransfer *transfer = &convert->transfer;
    g_autofree char *options = convert->options ? bdrv_options_to_json(convert->options, false) : g_strdup("");
    g_autofree char *more = convert->target.extra ? bdrv_options_to_json(convert->target.extra, false) : g_strdup("");
    g_autofree char *how = g_strdup_printf(
        "format %s, options %s%s, backing file %s, snapshot %s, sparse %" PRId64 "%s%s%s", convert->output_format,
        options, more,
        convert->backing ? convert->backing : "none", convert->has_snapshot ? convert->snapshot_text : "none",
        transfer->sparse_bytes, transfer->compressed ? ", compressed" : "", convert->skip_create ? ", not created" : "",
        convert->target_is_zero ? ", target is zero" : "");

    img_resume_note(resume, "how", how);
    for (unsigned i = 0; i < transfer->source_count; i++) {
        BdrvLayer layer;

        for (unsigned depth = 0; blk_layer(transfer->sources[i], depth, &layer); depth++) {
            g_autofree char *key = g_strdup_printf("source-%u-layer-%u", i, depth);
            img_resume_note_file(resume, key, layer.filename, true);
        }
    }
}

/* Once the sources are open: whether this copy was begun before; false with a message if another was. */
static bool look_for_state(Convert *convert)
{
    ImgTransfer *transfer = &convert->transfer;

    if (!convert->wants_resume) {
        return true;
    }
    transfer->resume = img_resume_new(convert->target_name);
    note_copy(convert, transfer->resume);
    if (!img_resume_exists(transfer->resume)) {
        return true;
    }
    convert->resumed = true;
    img_resume_note_file(transfer->resume, "target", convert->target_name, false);
    return img_resume_load(transfer->resume, transfer->length, &transfer->start);
}

static bool begin_state(Convert *convert)
{
    ImgResume *resume = convert->transfer.resume;

    if (!resume || convert->resumed) {
        return true;
    }
    img_resume_note_file(resume, "target", convert->target_name, false);
    return img_resume_save(resume, 0);
}

static bool transfer_all(Convert *convert)
{
    ImgTransfer *transfer = &convert->transfer;

    if (img_transfer(transfer) < 0) {
        return false;
    }
    img_progress_complete();
    return !convert->bitmaps ||
           img_copy_bitmaps(transfer->sources[0], transfer->target, convert->skip_broken_bitmaps);
}

static int convert_images(Convert *convert)
{
    g_autoptr(BdrvGraph) graph = tool_graph();
    ImgTransfer *transfer = &convert->transfer;
    bool bitmaps = convert->bitmaps;

    transfer->base_depth = -1;
    /* What the new image is encrypted with also opens it. */
    pass_to_target(convert, "key-secret", "key-secret");
    pass_to_target(convert, "encrypt.key-secret", "encrypt.key-secret");
    img_interrupt_catch();
    bool ok = open_sources(convert, graph) &&
              (!bitmaps || img_check_bitmaps(transfer->sources[0], convert->skip_broken_bitmaps)) &&
              look_for_state(convert) &&
              (convert->skip_create || convert->resumed || make_target(convert, graph)) && open_target(convert, graph) &&
              (!bitmaps || img_supports_bitmaps(transfer->target)) && begin_state(convert) && transfer_all(convert);
    int status = ok ? 0 : 1;
    if (transfer->target && !img_close(transfer->target, convert->target_name)) {
        status = 1;
    }
    for (unsigned i = 0; i < transfer->source_count; i++) {
        img_close(transfer->sources[i], convert->source_names[i]);
    }
    if (transfer->resume && status == 0) {
        img_resume_done(transfer->resume);
    }
    img_resume_free(transfer->resume);
    g_free(transfer->sources);
    return status;
}

static bool parse_sparse(const char *text, int64_t *bytes)
{
    g_autoptr(GError) error = NULL;

    if (!bdrv_parse_size(text, bytes, &error) || *bytes % 512 || *bytes > MAX_SPARSE) {
        tool_error("Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up to %d. "
                   "Select 0 to disable sparse detection (fully allocates output).",
                   MAX_SPARSE);
        return false;
    }
    return true;
}


/* -1: go on; else the exit code. */
static int parse_option(Convert *convert, int option, char **argv, bool *help)
{
    ImgTransfer *transfer = &convert->transfer;
    int64_t number;

    switch (option) {
    case 'h': return 0;
    case 'f': convert->source.format = optarg; break;
    case 'O': convert->output_format = optarg; break;
    case 'B': convert->backing = optarg; break;
    case 'F': convert->backing_format = optarg; break;
    case 'C': transfer->copy_range = true; break;
    case 'c': transfer->compressed = true; break;
    case 'o':
        *help |= img_wants_help(optarg);
        return *help || img_add_options(&convert->options, optarg) ? -1 : 1;
    case 'l':
        img_clear_snapshot_param(&convert->snapshot);
        convert->has_snapshot = true;
        convert->snapshot_text = optarg;
        return img_parse_snapshot_param(optarg, &convert->snapshot) ? -1 : 1;
    case 'S':
        convert->sparse_given = true;
        return parse_sparse(optarg, &transfer->sparse_bytes) ? -1 : 1;
    case 'p': convert->progress = true; break;
    case 'q': transfer->quiet = true; break;
    case 'n': convert->skip_create = true; break;
    case 'W': transfer->out_of_order = true; break;
    case 'U': convert->source.flags |= BDRV_O_FORCE_SHARE; break;
    case 't': convert->cache = optarg; break;
    case 'T': convert->source_cache = optarg; break;
    case 'm':
        if (!img_parse_integer(optarg, "number of coroutines", 1, MAX_COROUTINES, &number)) {
            tool_error("Allowed number of coroutines is between 1 and %d", MAX_COROUTINES);
            return 1;
        }
        transfer->coroutines = (unsigned)number;
        break;
    case 'r':
        if (!img_parse_size(optarg, "rate limit", &transfer->rate_limit)) {
            return 1;
        }
        break;
    case IMG_OPTION_IMAGE_OPTS: convert->source.image_opts = true; break;
    case IMG_OPTION_TARGET_IMAGE_OPTS: convert->target.image_opts = true; break;
    case IMG_OPTION_RESUME: convert->wants_resume = true; break;
    case IMG_OPTION_SALVAGE: transfer->salvage = true; break;
    case IMG_OPTION_TARGET_IS_ZERO: convert->target_is_zero = true; break;
    case IMG_OPTION_BITMAPS: convert->bitmaps = true; break;
    case IMG_OPTION_SKIP_BROKEN_BITMAPS: convert->skip_broken_bitmaps = true; break;
    default: return 1;
    }
    return -1;
}

/* No image stores it: it is for the open target. */
static void take_compression_level(Convert *convert)
{
    if (!pass_to_target(convert, "compression_level", "compression-level")) {
        return;
    }
    convert->compression_level = true;
    bdrv_options_remove(convert->options, "compression_level");
    if (bdrv_options_count(convert->options) == 0) {
        g_clear_pointer(&convert->options, bdrv_options_free);
    }
}

/* "-o backing_file=x" is as good as "-B x". */
static void take_options(Convert *convert)
{
    take_compression_level(convert);
    const BdrvOptions *options = convert->options;
    if (options && !convert->backing) {
        const char *backing = bdrv_options_get_string(options, "backing_file", NULL);

        convert->backing = backing && *backing ? g_intern_string(backing) : NULL;
    }
}

/* The library says so, too, but not before there is a target to open. */
static bool check_compression_level(const Convert *convert)
{
    const char *text = bdrv_options_get_string(convert->target.extra, "compression-level", "");
    const char *type = convert->options ? bdrv_options_get_string(convert->options, "compression_type", "zlib") : "zlib";
    int most = g_str_equal(type, "zstd") ? 22 : 9;

    if (!g_ascii_string_to_signed(text, 10, 1, most, NULL, NULL)) {
        tool_error("compression_level '%s' is wrong: %s has levels from 1 to %d", text, type, most);
        return false;
    }
    return true;
}

static int check_arguments(const Convert *convert)
{
    if (convert->target_is_zero && !convert->skip_create) {
        tool_error("--target-is-zero requires use of -n flag");
        return 1;
    }
    if (convert->target.image_opts && !convert->skip_create) {
        tool_error("--target-image-opts requires use of -n flag");
        return 1;
    }
    if (convert->skip_create && convert->options) {
        tool_error("-o has no effect when skipping image creation (-n); leave one of the two out");
        return 1;
    }
    if (convert->compression_level && !convert->transfer.compressed) {
        tool_error("compression_level is for what -c compresses; give -c, too");
        return 1;
    }
    if (convert->compression_level && !check_compression_level(convert)) {
        return 1;
    }
    if (convert->wants_resume && convert->target.image_opts) {
        tool_error("--resume needs the target's file name, not --target-image-opts");
        return 1;
    }
    if (convert->transfer.copy_range && convert->transfer.compressed) {
        tool_error("Cannot enable copy offloading when -c is used");
        return 1;
    }
    if (convert->transfer.copy_range && convert->sparse_given) {
        tool_error("Cannot enable copy offloading (-C) when -S is used");
        return 1;
    }
    if (convert->transfer.copy_range && convert->transfer.salvage) {
        tool_error("Cannot use copy offloading in salvaging mode");
        return 1;
    }
    if (convert->skip_broken_bitmaps && !convert->bitmaps) {
        tool_error("Use of --skip-broken-bitmaps requires --bitmaps");
        return 1;
    }
    if (convert->bitmaps && convert->source_count > 1) {
        tool_error("Copying bitmaps only possible with single source");
        return 1;
    }
    if (convert->backing && convert->source_count > 1) {
        tool_error("Having a backing file for the target makes no sense when concatenating multiple input images");
        return 1;
    }
    return 0;
}

/* What is found out when the progress has begun, as in qemu-img. */
static bool check_further(Convert *convert)
{
    const char *size = convert->options ? bdrv_options_get_string(convert->options, "size", NULL) : NULL;
    int64_t bytes;

    if (convert->wants_resume && !convert->cache) {
        convert->target.flags &= ~BDRV_O_NO_FLUSH;
    }
    if (!img_take_cache(convert->cache, "cache mode", &convert->target.flags)) {
        return false;
    }
    if (convert->wants_resume && (convert->target.flags & BDRV_O_NO_FLUSH)) {
        tool_error("--resume needs a target that is flushed: not -t unsafe");
        return false;
    }
    if (convert->has_snapshot && convert->source_count > 1) {
        tool_error("No support for concatenating multiple snapshots");
        return false;
    }
    if (convert->backing_format && !convert->backing) {
        tool_error("-F needs -B");
        return false;
    }
    /* The sources decide; but what is no size is a mistake. */
    return !size || img_parse_size(size, "image size", &bytes);
}

int img_convert(int argc, char **argv)
{
    Convert convert = {
        .output_format = "raw",
        .source = { .flags = BDRV_O_NO_SHARE }, /* or the target could be the source, by whatever name */
        .target = { .flags = BDRV_O_NO_FLUSH | BDRV_O_DROP_AUTO }, /* cache=unsafe unless -t says otherwise */
        .transfer = { .coroutines = DEFAULT_COROUTINES, .sparse_bytes = 4096 },
    };
    bool help = false;
    int option, status = -1;

    while (status < 0 && (option = img_next_option(argc, argv)) != -1) {
        status = parse_option(&convert, option, argv, &help);
    }
    if (status < 0 && help) {
        status = img_print_options_help(convert.output_format, optind < argc ? argv[argc - 1] : NULL);
    }
    if (status < 0 && optind >= argc - 1) {
        tool_error("Must specify image file name");
        status = 1;
    }
    if (status < 0) {
        convert.source_names = argv + optind;
        convert.source_count = (unsigned)(argc - 1 - optind);
        convert.target_name = argv[argc - 1];
        take_options(&convert);
        status = check_arguments(&convert);
    }
    if (status == 0 && convert.source_names &&
        !img_take_cache(convert.source_cache, "source cache mode", &convert.source.flags)) {
        status = 1;
    } else if (status == 0 && convert.source_names) {
        img_progress_start(convert.progress && !convert.transfer.quiet, IMG_PROGRESS_BYTES, 1);
        img_progress_begin();
        status = check_further(&convert) ? convert_images(&convert) : 1;
        img_progress_end();
    }
    bdrv_options_free(convert.options);
    bdrv_options_free(convert.target.extra);
    img_clear_snapshot_param(&convert.snapshot);
    return status;
}
