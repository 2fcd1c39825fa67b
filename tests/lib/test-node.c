/* SPDX-License-Identifier: MIT */
#include "tests/lib/test-node.h"

#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "block/registry/registry.h"

uint64_t test_seed(void)
{
    const char *text = g_getenv("BDRV_TEST_SEED");
    uint64_t seed =
        text ? g_ascii_strtoull(text, NULL, 0) : ((uint64_t)g_random_int() << 32) + g_random_int();

    g_test_message("BDRV_TEST_SEED=%" G_GUINT64_FORMAT, seed);
    return seed;
}

unsigned test_amount(unsigned shorter, unsigned light)
{
#ifdef CONFIG_TESTS_LIGHT
    return light;
#else
    return shorter;
#endif
}

bool test_parse(int *argc, char ***argv, const char *about, const GOptionEntry *entries)
{
    g_autoptr(GOptionContext) context = g_option_context_new(about);
    g_autoptr(GError) error = NULL;

    g_option_context_add_main_entries(context, entries, NULL);
    g_option_context_set_ignore_unknown_options(context, TRUE);
    if (!g_option_context_parse(context, argc, argv, &error)) {
        g_printerr("%s\n", error->message);
        return false;
    }
    return true;
}

uint64_t test_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u); /* splitmix64 */

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

int64_t test_random_below(uint64_t *state, int64_t limit)
{
    return limit > 0 ? (int64_t)(test_random(state) % (uint64_t)limit) : 0;
}

static void coroutine_fn run_body(void *opaque)
{
    ((void (*)(void))opaque)();
}

void test_run_seeded(uint64_t seed, CoroutineEntry *entry, void *opaque)
{
    AioSim *sim = aio_sim_new(seed);
    AioContext *ctx = aio_sim_context_new(sim);

    co_start(ctx, co_new(entry, opaque));
    while (aio_sim_step(sim)) {
    }
    aio_context_unref(ctx);
    aio_sim_free(sim);
}

void test_run(void (*body)(void))
{
    test_run_seeded(test_seed(), run_body, body);
}

void coroutine_fn test_start(CoroutineEntry *entry, void *opaque)
{
    co_wake(co_new(entry, opaque));
}

static BdrvChild *attach(BlockDriverState *parent, BdrvChild *child, const char *name)
{
    BdrvNode *node = bdrv_node(parent);

    bdrv_edge(child)->parent = node;
    child->name = name;
    g_ptr_array_add(node->children, bdrv_edge(child));
    node->event_listener_below |= child->bs->drv->bdrv_debug_event || bdrv_node(child->bs)->event_listener_below;
    return child;
}

static void free_node(BlockDriverState *bs)
{
    BdrvNode *node = bdrv_node(bs);

    bdrv_io_state_destroy(&node->io);
    g_ptr_array_unref(node->children);
    g_free(bs->opaque);
    g_free(bs->filename);
    g_free(bs->node_name);
    g_free(bs->backing_filename);
    g_free(bs->backing_format);
    g_free(bs->data_filename);
    g_free(node);
}

const char *const test_secrets[] = { TEST_SECRET, "key1", "key2" };
const char *const test_passphrases[] = { TEST_PASSPHRASE, "another passphrase", "a third one" };

/* What nodes ask of it: secrets. For all of them, as long as the process. */
static BdrvGraph *the_graph(void)
{
    static gsize made;
    if (g_once_init_enter(&made)) {
        BdrvGraph *graph = bdrv_graph_new();
        for (unsigned i = 0; i < TEST_SECRETS; i++) {
            bdrv_graph_add_secret(graph, test_secrets[i], test_passphrases[i], strlen(test_passphrases[i]), NULL);
        }
        g_once_init_leave(&made, (gsize)graph);
    }
    return (BdrvGraph *)made;
}

static BlockDriverState *make_node(const BlockDriver *drv, BdrvChild *file, BdrvOpenFlags flags)
{
    BdrvNode *node = g_new0(BdrvNode, 1);
    BlockDriverState *bs = &node->bs;

    bs->drv = drv;
    bs->opaque = drv->instance_size ? g_malloc0(drv->instance_size) : NULL;
    bs->filename = g_strdup("");
    bs->node_name = g_strdup("test");
    bs->graph = the_graph();
    bs->open_flags = flags;
    bs->read_only = !(flags & BDRV_O_RDWR);
    bs->limits.request_alignment = 1;
    bdrv_io_state_init(&node->io);
    node->children = g_ptr_array_new();
    if (file) {
        bs->file = attach(bs, file, "file");
        bs->limits = file->bs->limits;
    }
    return bs;
}

static bool coroutine_fn open_node(BlockDriverState *bs, const char *text, GError **errp)
{
    const BdrvOptionSpec *specs[] = { bs->drv->open_options, NULL };
    g_autoptr(BdrvOptions) options = bdrv_options_parse(text, NULL, errp);

    if (!options || !bdrv_options_validate(options, specs, bs->drv->format_name, errp) ||
        !bs->drv->bdrv_open(bs, options, bs->open_flags, errp)) {
        return false;
    }
    if (bs->drv->bdrv_refresh_limits) {
        bs->drv->bdrv_refresh_limits(bs);
    }
    return bdrv_co_refresh_length(bs) == 0;
}

BdrvChild *coroutine_fn test_open(const char *driver, const char *options, BdrvChild *file,
                                  BdrvOpenFlags flags, GError **errp)
{
    const BlockDriver *drv = bdrv_find_format(driver);
    BlockDriverState *bs;
    BdrvEdge *edge;

    g_assert_nonnull(drv);
    bs = make_node(drv, file, flags);
    if (!open_node(bs, options, errp)) {
        free_node(bs);
        return NULL;
    }
    edge = g_new0(BdrvEdge, 1);
    edge->child.bs = bs;
    edge->child.name = "root";
    edge->used = edge->shared = BDRV_RIGHTS_ALL;
    return &edge->child;
}

BdrvChild *coroutine_fn test_must_open(const char *driver, const char *options, BdrvChild *file)
{
    GError *error = NULL;
    BdrvChild *child = test_open(driver, options, file, BDRV_O_RDWR | BDRV_O_UNMAP, &error);

    g_assert_no_error(error);
    return child;
}

void test_set_backing(BdrvChild *child, BdrvChild *backing)
{
    child->bs->backing = attach(child->bs, backing, "backing");
    backing->role = BDRV_CHILD_COW;
}

void test_set_data_file(BdrvChild *child, BdrvChild *data_file)
{
    child->bs->data_file = attach(child->bs, data_file, "data-file");
    data_file->role = BDRV_CHILD_DATA;
}

void coroutine_fn test_close(BdrvChild *child)
{
    BlockDriverState *bs = child->bs;

    if (bs->drv->bdrv_close) {
        bs->drv->bdrv_close(bs);
    }
    for (unsigned i = 0; i < bdrv_node(bs)->children->len; i++) {
        BdrvEdge *edge = g_ptr_array_index(bdrv_node(bs)->children, i);

        test_close(&edge->child);
    }
    free_node(bs);
    g_free(child);
}
