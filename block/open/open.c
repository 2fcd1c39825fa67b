/* SPDX-License-Identifier: MIT */

/*
 * Opening: options and filenames become a private tree of nodes, which bdrv_graph_publish() shows to
 * the world later.
 *
 * bdrv_open_chain() walks down the backing files in a loop, not by recursion: a chain may have 200
 * layers and coroutine stacks are small. Only children in children recurse, and they are bounded.
 */
#include "block/open/open_int.h"

#include "block/io/io.h"
#include "block/registry/registry.h"
#include "block/util/options_tree.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#define PROBE_BYTES 4096

/* A node on its way: what open_layer's steps hand to each other. */
typedef struct Layer {
    BdrvOpening *opening;
    BdrvOpenSource *source;
    BdrvNodeOptions node;
    const BlockDriver *drv; /* NULL until known */
    BlockDriverState *file; /* opened for probing, not attached yet; owned */
    BdrvOptions *given;     /* all options as they came; owned */
    char *name;             /* what messages call it; owned */
} Layer;

/* Errors get the name of the node where they arise in front, once. */
static const char *name_for(const Layer *layer)
{
    const char *name = layer->source->filename;

    name = name ? name : bdrv_options_get_string(layer->given, "filename", NULL);
    name = name ? name : bdrv_options_get_string(layer->given, "file.filename", NULL);
    name = name ? name : bdrv_options_get_string(layer->given, "node-name", NULL);
    name = name ? name : bdrv_options_get_string(layer->given, "driver", NULL);
    return name ? name : "unnamed node";
}

/* ---- children ---- */

BlockDriverState *bdrv_open_reference(BdrvOpening *opening, const char *key, const char *name, GError **errp)
{
    BlockDriverState *bs = bdrv_graph_find_ref(opening->graph, name);

    if (!bs) {
        g_set_error(errp, BDRV_ERROR, ENOENT,
                    "%s=%s: there is no node of that name; to open a file write %s.filename=…", key, name, key);
    }
    opening->uses_published |= bs != NULL;
    return bs;
}

static BlockDriverState *coroutine_fn open_nested(BdrvOpening *opening, BdrvOpenSource *source, GError **errp)
{
    BlockDriverState *bs = NULL;

    if (++opening->nesting > BDRV_MAX_NESTING) {
        g_set_error(errp, BDRV_ERROR, ELOOP, "more than %d nodes are nested in each other", BDRV_MAX_NESTING);
        g_clear_pointer(&source->options, bdrv_options_free);
    } else {
        bs = bdrv_open_chain(opening, source, errp);
    }
    opening->nesting--;
    return bs;
}

/*
 * The filename of a child: of "file" the node's own if the driver left it, of others what an option
 * says. *@filename is the caller's, NULL if there is none.
 */
static bool take_child_filename(Layer *layer, const BdrvChildSpec *spec, char **filename, GError **errp)
{
    BdrvOptions *options = layer->source->options;

    *filename = NULL;
    if (layer->source->filename && strcmp(spec->name, "file") == 0) {
        *filename = g_strdup(layer->source->filename);
        layer->source->filename = NULL;
    } else if (spec->filename_option && bdrv_options_has(options, spec->filename_option)) {
        *filename = g_strdup(bdrv_options_get_string(options, spec->filename_option, NULL));
        if (!*filename) {
            g_set_error(errp, BDRV_ERROR, EINVAL, "option '%s' must be a string", spec->filename_option);
            return false;
        }
        bdrv_options_remove(options, spec->filename_option);
    }
    return true;
}

/*
 * Open a child from "NAME=node", "NAME.…" or a filename.
 * Returns true with *@child NULL if nothing is said of it.
 */
static bool coroutine_fn open_child(Layer *layer, const BdrvChildSpec *spec, BlockDriverState **child, GError **errp)
{
    BdrvOptions *options = layer->source->options;
    const char *name = spec->name;
    g_autoptr(BdrvOptions) below = bdrv_options_take_subtree(options, name);
    g_autofree char *filename = NULL, *reference = g_strdup(bdrv_options_get_string(options, name, NULL));
    bool is_null = bdrv_options_is_null(options, name);

    *child = NULL;
    if (reference || is_null) {
        bdrv_options_remove(options, name);
    }
    if (!take_child_filename(layer, spec, &filename, errp)) {
        return false;
    }
    if (reference && (bdrv_options_count(below) > 0 || filename)) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "'%s' is given as node '%s' and by a filename or options of its own",
                    name, reference);
        return false;
    }
    if (reference) {
        *child = bdrv_open_reference(layer->opening, name, reference, errp);
        return *child != NULL;
    }
    if (bdrv_options_count(below) == 0 && !filename) {
        return true;
    }
    BdrvOpenSource source = {
        .filename = filename,
        .options = g_steal_pointer(&below),
        .flags = bdrv_inherited_flags(spec->role, layer->node.flags),
        .require_protocol = !spec->is_image,
        .may_probe = layer->source->may_probe,
    };
    *child = open_nested(layer->opening, &source, errp);
    return *child != NULL;
}

static bool coroutine_fn attach_child(BlockDriverState *bs, const BdrvChildSpec *spec, BlockDriverState *child,
                                      GError **errp)
{
    if (bdrv_node_attach(bs, spec->name, spec->role, child, errp)) {
        return true;
    }
    bdrv_co_node_unref(child);
    return false;
}

static bool coroutine_fn open_children(Layer *layer, BlockDriverState *bs, GError **errp)
{
    for (const BdrvChildSpec *spec = layer->drv->children; spec && spec->name; spec++) {
        BlockDriverState *child = NULL;

        if (spec->role == BDRV_CHILD_COW) {
            continue; /* opened when the driver has read its name */
        }
        if (layer->file && strcmp(spec->name, "file") == 0) {
            child = g_steal_pointer(&layer->file);
        } else if (!open_child(layer, spec, &child, errp)) {
            return false;
        }
        if (child && !attach_child(bs, spec, child, errp)) {
            return false;
        }
        if (!child && !spec->optional) {
            g_set_error(errp, BDRV_ERROR, EINVAL, "driver '%s' needs a child '%s'; give %s.filename=…, %s.driver=… or "
                        "%s=node-name", layer->drv->format_name, spec->name, spec->name, spec->name, spec->name);
            return false;
        }
    }
    return true;
}

/* ---- which driver ---- */

/* Read the first bytes of a node that has no parent yet; *@size is what there is. 0 or -errno. */
static int coroutine_fn read_head(BlockDriverState *bs, uint8_t *buf, size_t *size, GError **errp)
{
    BdrvGate *gate = bdrv_gate_new(); /* the node may be published, then edits must wait for us */
    BdrvEdge *edge;
    int ret = -EBUSY;

    bdrv_node_ref(bs);
    edge = bdrv_root_attach(bs, gate, "format probing", 0, BDRV_RIGHTS_ALL, errp);
    if (edge) {
        void *outer = bdrv_gate_enter(gate);

        *size = (size_t)MIN(atomic_load(&bs->length), PROBE_BYTES);
        ret = *size > 0 ? bdrv_co_pread(&edge->child, 0, (int64_t)*size, buf, 0) : 0;
        bdrv_gate_leave(gate, outer);
        bdrv_co_root_detach(edge);
        if (ret < 0) {
            g_autofree char *why = bdrv_explain(bs);

            g_set_error(errp, BDRV_ERROR, -ret, "could not read the first %zu bytes to guess the format: %s", *size,
                        why ? why : g_strerror(-ret));
        }
    } else {
        bdrv_co_node_unref(bs);
    }
    bdrv_gate_free(gate);
    return ret;
}

static bool coroutine_fn probe_file(Layer *layer, GError **errp)
{
    uint8_t *buf = bdrv_try_blockalign(layer->file, PROBE_BYTES);
    size_t size = 0;

    if (!buf) {
        g_set_error(errp, BDRV_ERROR, ENOMEM, "no memory to read the first %d bytes", PROBE_BYTES);
        return false;
    }
    if (read_head(layer->file, buf, &size, errp) >= 0) {
        layer->drv = bdrv_probe_format(buf, size, layer->file->filename, errp);
    }
    bdrv_vfree(buf);
    return layer->drv != NULL;
}

static bool coroutine_fn guess_driver(Layer *layer, GError **errp)
{
    static const BdrvChildSpec file = { .name = "file", .role = BDRV_CHILD_PROTOCOL };

    if (!layer->source->may_probe) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "its format is not recorded and guessing is not allowed; name it by the option backing.driver");
        return false;
    }
    if (!open_child(layer, &file, &layer->file, errp)) {
        return false;
    }
    if (!layer->file) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "neither a driver nor a file is given; give driver=… or file.filename=…");
        return false;
    }
    return probe_file(layer, errp);
}

/* A protocol node without driver=: by the filename's prefix, or by what kind of file an option names. */
static bool choose_protocol(Layer *layer, GError **errp)
{
    const char *option = bdrv_options_get_string(layer->source->options, "filename", NULL);

    if (layer->source->filename) {
        layer->drv = bdrv_find_protocol(layer->source->filename, errp);
    } else if (option) {
        layer->drv = bdrv_find_device(option, errp);
    } else {
        g_set_error(errp, BDRV_ERROR, EINVAL, "neither a driver nor a file is given; give driver=… or filename=…");
    }
    return layer->drv != NULL;
}

static bool named_driver(Layer *layer, GError **errp)
{
    g_autofree char *name = g_strdup(bdrv_options_get_string(layer->source->options, "driver", NULL));

    if (!name) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "option 'driver' must be a string");
        return false;
    }
    bdrv_options_remove(layer->source->options, "driver");
    layer->drv = bdrv_find_format(name);
    if (!layer->drv) {
        g_autofree char *formats = bdrv_format_names();
        g_set_error(errp, BDRV_ERROR, ENOENT, "unknown driver '%s'; supported formats are: %s", name, formats);
    }
    return layer->drv != NULL;
}

static bool coroutine_fn choose_driver(Layer *layer, GError **errp)
{
    BdrvOpenSource *source = layer->source;
    g_autofree char *filename = NULL;

    if (bdrv_options_has(source->options, "driver")) {
        if (!named_driver(layer, errp)) {
            return false;
        }
    } else if (source->require_protocol) {
        if (!choose_protocol(layer, errp)) {
            return false;
        }
    } else {
        return guess_driver(layer, errp);
    }
    if (source->filename && bdrv_is_protocol(layer->drv)) {
        filename = g_strdup(source->filename);
        source->filename = NULL;
        return bdrv_filename_to_options(layer->drv, filename, source->options, errp);
    }
    return true;
}

/* ---- the node ---- */

static BlockDriverState *make_node(Layer *layer, bool probed)
{
    BlockDriverState *bs = bdrv_node_new(layer->opening->graph, layer->drv);
    BdrvNode *node = bdrv_node(bs);

    bdrv_node_set_names(bs, g_strdup(layer->node.node_name), g_strdup(layer->name));
    bdrv_node_set_mode(bs, layer->node.flags, !(layer->node.flags & BDRV_O_RDWR));
    node->force_share = layer->node.flags & BDRV_O_FORCE_SHARE;
    node->detect_zeroes = layer->node.detect_zeroes;
    node->probed = probed;
    bdrv_options_free(node->explicit_options);
    node->explicit_options = bdrv_options_copy(layer->given);
    return bs;
}

/* What is left when the children's are taken: the node's own, kept as they came, then checked. */
static bool own_options(Layer *layer, BlockDriverState *bs, BdrvBackingOptions *backing, GError **errp)
{
    BdrvOptions *options = layer->source->options;
    BdrvNode *node = bdrv_node(bs);

    if (layer->drv->supports_backing && !bdrv_take_backing_options(options, backing, errp)) {
        return false;
    }
    bdrv_options_free(node->options);
    node->options = bdrv_options_copy(options);
    return bdrv_validate_open_options(layer->drv, options, errp);
}

/*
 * Children are read: by the driver, for limits, for the filename. If some were there before, edits and reopens
 * of those must wait meanwhile: @func runs inside a gate of our own.
 */
typedef bool NodeFunc(BlockDriverState *bs, void *opaque, GError **errp);

static bool coroutine_fn call_gated(BdrvOpening *opening, BlockDriverState *bs, NodeFunc *func, void *opaque,
                                    GError **errp)
{
    BdrvGate *gate;
    BdrvEdge *edge;
    void *outer;
    bool ok;

    if (!opening->uses_published) {
        return func(bs, opaque, errp);
    }
    gate = bdrv_gate_new();
    bdrv_node_ref(bs);
    edge = bdrv_root_attach(bs, gate, "opening", 0, BDRV_RIGHTS_ALL, errp);
    if (!edge) {
        bdrv_co_node_unref(bs);
        bdrv_gate_free(gate);
        return false;
    }
    outer = bdrv_gate_enter(gate);
    ok = func(bs, opaque, errp);
    bdrv_gate_leave(gate, outer);
    bdrv_co_root_detach(edge);
    bdrv_gate_free(gate);
    return ok;
}

static bool coroutine_fn call_open(BlockDriverState *bs, void *opaque, GError **errp)
{
    const Layer *layer = opaque;
    int ret;

    if (!bs->drv->bdrv_open(bs, layer->source->options, bs->open_flags, errp)) {
        return false;
    }
    bdrv_node(bs)->opened = true;
    bdrv_refresh_node_limits(bs);
    ret = bdrv_co_refresh_length(bs);
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "could not find out its length: %s", g_strerror(-ret));
        return false;
    }
    bdrv_refresh_node_filename(bs);
    return true;
}

static bool check_filename_used(const Layer *layer, GError **errp)
{
    if (layer->source->filename) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "driver '%s' takes no filename", layer->drv->format_name);
        return false;
    }
    return true;
}

static BlockDriverState *coroutine_fn open_node(Layer *layer, bool probed, BdrvBackingOptions *backing, GError **errp)
{
    BlockDriverState *bs = make_node(layer, probed);
    GError *error = NULL;

    if (open_children(layer, bs, errp)) {
        if (check_filename_used(layer, &error) && own_options(layer, bs, backing, &error) &&
            call_gated(layer->opening, bs, call_open, layer, &error) &&
            bdrv_open_data_file(layer->opening, bs, &error)) {
            return bs;
        }
        bdrv_error_prefix(&error, layer->name);
        g_propagate_error(errp, error);
    }
    bdrv_co_node_unref(bs);
    bdrv_backing_options_clear(backing);
    return NULL;
}

/* One attempt, with the flags that @layer has. Errors of children come with their own name. */
static BlockDriverState *coroutine_fn try_layer(Layer *layer, BdrvBackingOptions *backing, GError **errp)
{
    bool probed = !bdrv_options_has(layer->source->options, "driver") && !layer->source->require_protocol;
    BlockDriverState *bs = NULL;

    if (choose_driver(layer, errp)) {
        bs = open_node(layer, probed, backing, errp);
    }
    if (layer->file) {
        bdrv_co_node_unref(layer->file);
        layer->file = NULL;
    }
    return bs;
}

static bool is_write_refusal(const GError *error)
{
    int code = bdrv_error_code(error);

    return code == EACCES || code == EPERM || code == EROFS;
}

BlockDriverState *coroutine_fn bdrv_open_layer(BdrvOpening *opening, BdrvOpenSource *source,
                                               BdrvBackingOptions *backing, GError **errp)
{
    Layer layer = { .opening = opening, .source = source };
    g_autoptr(BdrvOptions) again = NULL;
    const char *filename;
    BlockDriverState *bs = NULL;
    GError *error = NULL;

    if (!bdrv_expand_json_filename(source, errp)) {
        return NULL;
    }
    layer.given = bdrv_options_copy(source->options);
    layer.name = g_strdup(name_for(&layer));
    filename = source->filename;
    if (!bdrv_take_node_options(source->options, source->flags, &layer.node, &error)) {
        bdrv_error_prefix(&error, layer.name);
        g_propagate_error(errp, error);
        goto out;
    }
    again = bdrv_options_copy(source->options);
    bs = try_layer(&layer, backing, &error);
    if (!bs && layer.node.auto_read_only && (layer.node.flags & BDRV_O_RDWR) && is_write_refusal(error)) {
        g_clear_error(&error);
        bdrv_options_free(source->options);
        source->options = g_steal_pointer(&again);
        source->filename = filename;
        layer.drv = NULL;
        layer.node.flags &= ~BDRV_O_RDWR;
        bs = try_layer(&layer, backing, &error);
    }
    if (error) {
        g_propagate_error(errp, error);
    }
out:
    g_free(layer.node.node_name);
    g_free(layer.name);
    bdrv_options_free(layer.given);
    return bs;
}

/* ---- the chain ---- */

static bool coroutine_fn refresh_from_below(BlockDriverState *bs, void *opaque, GError **errp)
{
    const GPtrArray *layers = opaque;

    for (unsigned i = layers->len; i-- > 0;) {
        bdrv_refresh_node_limits(layers->pdata[i]);
        bdrv_refresh_node_filename(layers->pdata[i]);
    }
    return true;
}

BlockDriverState *coroutine_fn bdrv_open_chain(BdrvOpening *opening, BdrvOpenSource *source, GError **errp)
{
    g_autoptr(GPtrArray) layers = g_ptr_array_new(); /* BlockDriverState *, from the top; not owned */
    BdrvBackingOptions backing = { 0 };
    BlockDriverState *bs = bdrv_open_layer(opening, source, &backing, errp);
    BlockDriverState *layer = bs;

    g_clear_pointer(&source->options, bdrv_options_free);
    while (layer && backing.below) {
        BdrvBackingOptions given = backing;
        BlockDriverState *next;

        backing = (BdrvBackingOptions){ 0 };
        g_ptr_array_add(layers, layer);
        if (!bdrv_open_backing(opening, layers, &given, &next, &backing, errp)) {
            goto fail;
        }
        if (next && !bdrv_node_attach(layer, "backing", BDRV_CHILD_COW, next, errp)) {
            bdrv_co_node_unref(next);
            goto fail;
        }
        layer = next;
    }
    if (bs && !call_gated(opening, bs, refresh_from_below, layers, errp)) {
        goto fail;
    }
    bdrv_backing_options_clear(&backing);
    return bs;

fail:
    bdrv_backing_options_clear(&backing);
    bdrv_co_node_unref(bs);
    return NULL;
}

BlockDriverState *coroutine_fn bdrv_co_open_tree(BdrvGraph *graph, const char *filename, BdrvOptions *options,
                                                 BdrvOpenFlags flags, bool require_protocol, GError **errp)
{
    BdrvOpening opening = { .graph = graph };
    BdrvOpenSource source = {
        .filename = filename,
        .options = options ? options : bdrv_options_new(),
        .flags = flags,
        .require_protocol = require_protocol,
        .may_probe = true,
    };

    return bdrv_open_chain(&opening, &source, errp);
}
