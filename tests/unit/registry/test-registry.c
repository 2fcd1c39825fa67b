/* SPDX-License-Identifier: MIT */
#include "block/registry/registry.h"

#include <bdrv/bdrv.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

static bool open_nothing(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags, GError **errp)
{
    return true;
}

static int read_nothing(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov, size_t iov_offset,
                        BdrvRequestFlags flags)
{
    return 0;
}

static int probe_magic(const uint8_t *buf, size_t size, const char *filename)
{
    return size >= 4 && memcmp(buf, "TMAG", 4) == 0 ? 90 : 0;
}

static int probe_twin(const uint8_t *buf, size_t size, const char *filename)
{
    return size >= 4 && memcmp(buf, "TWIN", 4) == 0 ? 90 : 0;
}

static int device_by_name(const char *filename)
{
    return g_str_has_suffix(filename, ".special") ? 100 : 0;
}

static const BdrvChildSpec file_child[] = { { "file", BDRV_CHILD_FILTERED, false }, { NULL } };
static const BdrvChildSpec other_child[] = { { "other", BDRV_CHILD_DATA, false }, { NULL } };

#define COMPLETE .bdrv_open = open_nothing, .bdrv_co_readv = read_nothing
static const BlockDriver magic = { .format_name = "t-magic", .bdrv_probe = probe_magic, COMPLETE };
static const BlockDriver twin_a = { .format_name = "t-twin-a", .bdrv_probe = probe_twin, COMPLETE };
static const BlockDriver twin_b = { .format_name = "t-twin-b", .bdrv_probe = probe_twin, COMPLETE };
static const BlockDriver proto = { .format_name = "t-proto-driver", .protocol_name = "t-proto", COMPLETE };
static const BlockDriver device = { .format_name = "t-device", .bdrv_probe_device = device_by_name, COMPLETE };

static void test_register_once(void)
{
    g_autoptr(GError) error = NULL;
    static const BlockDriver same_prefix = { .format_name = "t-other", .protocol_name = "t-proto", COMPLETE };

    g_assert_true(bdrv_register_full(&proto, BDRV_DRIVER_API, sizeof(BlockDriver), &error));
    g_assert_no_error(error);
    g_assert_true(bdrv_driver_known("t-proto-driver"));
    g_assert_false(bdrv_driver_known("t-proto"));

    g_assert_false(bdrv_register_full(&proto, BDRV_DRIVER_API, sizeof(BlockDriver), &error));
    g_assert_error(error, BDRV_ERROR, EEXIST);
    g_clear_error(&error);
    g_assert_false(bdrv_register_full(&same_prefix, BDRV_DRIVER_API, sizeof(BlockDriver), &error));
    g_assert_error(error, BDRV_ERROR, EEXIST);
    g_assert_false(bdrv_driver_known("t-other"));
}

static void test_incomplete(void)
{
    static const struct {
        BlockDriver drv;
        const char *named;
    } cases[] = {
        { { COMPLETE }, "format_name" },
        { { .format_name = "", COMPLETE }, "format_name" },
        { { .format_name = "t-bad", .bdrv_co_readv = read_nothing }, "bdrv_open" },
        { { .format_name = "t-bad", .bdrv_open = open_nothing }, "bdrv_co_readv" },
        { { .format_name = "t-bad", .bdrv_open = open_nothing, .is_filter = true }, "children" },
        { { .format_name = "t-bad", .bdrv_open = open_nothing, .is_filter = true, .children = other_child },
          "children" },
    };
    static const BlockDriver filter = {
        .format_name = "t-filter", .bdrv_open = open_nothing, .is_filter = true, .children = file_child
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;

        g_assert_false(bdrv_register_full(&cases[i].drv, BDRV_DRIVER_API, sizeof(BlockDriver), &error));
        g_assert_error(error, BDRV_ERROR, EINVAL);
        g_assert_nonnull(strstr(error->message, cases[i].named));
    }
    g_assert_false(bdrv_driver_known("t-bad"));
    g_assert_true(bdrv_register(&filter));
}

static void test_newer_api(void)
{
    g_autoptr(GError) error = NULL;
    static const BlockDriver drv = { .format_name = "t-newer", COMPLETE };

    g_assert_false(bdrv_register_full(&drv, BDRV_DRIVER_API + 1, sizeof(BlockDriver), &error));
    g_assert_error(error, BDRV_ERROR, ENOTSUP);
    g_clear_error(&error);
    g_assert_false(bdrv_register_full(&drv, BDRV_DRIVER_API, sizeof(BlockDriver) + 8, &error));
    g_assert_error(error, BDRV_ERROR, ENOTSUP);
}

static void test_older_table(void)
{
    /* A table that ends behind bdrv_co_readv; what follows in memory is not the driver's. */
    size_t size = G_STRUCT_OFFSET(BlockDriver, bdrv_co_readv) + sizeof(void *);
    g_autofree char *space = g_malloc(sizeof(BlockDriver));
    BlockDriver drv = { .format_name = "t-older", COMPLETE };
    const BlockDriver *found;

    memset(space, 0xa5, sizeof(BlockDriver));
    memcpy(space, &drv, size);
    g_assert_true(bdrv_register_full((const BlockDriver *)space, BDRV_DRIVER_API, size, NULL));
    found = bdrv_find_format("t-older");
    g_assert_nonnull(found);
    g_assert_true(found->bdrv_co_readv == read_nothing);
    g_assert_null(found->bdrv_co_writev);
    g_assert_null(found->bdrv_debug_event);
}

static void test_probe(void)
{
    g_autoptr(GError) error = NULL;
    const BlockDriver *drv;

    bdrv_register(&magic);
    bdrv_register(&twin_a);
    drv = bdrv_probe_format((const uint8_t *)"TMAGxxxx", 8, "x.img", &error);
    g_assert_no_error(error);
    g_assert_cmpstr(drv->format_name, ==, "t-magic");
    drv = bdrv_probe_format((const uint8_t *)"TWIN", 4, NULL, NULL);
    g_assert_cmpstr(drv->format_name, ==, "t-twin-a");

    bdrv_register(&twin_b);
    g_assert_null(bdrv_probe_format((const uint8_t *)"TWIN", 4, "x.img", &error));
    g_assert_error(error, BDRV_ERROR, EINVAL);
    g_assert_nonnull(strstr(error->message, "t-twin-a"));
    g_assert_nonnull(strstr(error->message, "t-twin-b"));
}

static void test_protocol(void)
{
    static const struct {
        const char *filename, *driver;
    } cases[] = {
        { "t-proto:x", "t-proto-driver" }, { "t-proto://h/x.special", "t-proto-driver" },
        { "nosuch:x", NULL },              { "x.special", "t-device" },
        { "./t-proto:x.special", "t-device" }, { "d/t-proto:x.special", "t-device" },
        { ":x.special", "t-device" },
    };

    bdrv_register(&device);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        const BlockDriver *drv = bdrv_find_protocol(cases[i].filename, &error);

        g_test_message("%s", cases[i].filename);
        if (cases[i].driver) {
            g_assert_no_error(error);
            g_assert_cmpstr(drv->format_name, ==, cases[i].driver);
        } else {
            g_assert_null(drv);
            g_assert_error(error, BDRV_ERROR, ENOENT);
        }
    }
}

static void test_nth(void)
{
    const char *name, *before = "";

    for (unsigned n = 0; (name = bdrv_driver_nth(n)) != NULL; n++) {
        g_assert_cmpstr(before, <, name);
        g_assert_true(bdrv_driver_known(name));
        before = name;
    }
    g_assert_cmpstr(before, !=, "");
}

static void test_children(void)
{
    const BdrvChildSpec *children = bdrv_driver_children("qcow2");

    g_assert_cmpstr(children[0].name, ==, "file");
    g_assert_cmpint(children[0].role, ==, BDRV_CHILD_PROTOCOL);
    g_assert_false(children[0].optional);
    g_assert_cmpstr(children[1].name, ==, "data-file");
    g_assert_true(children[1].optional);
    g_assert_null(children[2].name);
}

static void test_no_children(void)
{
    g_assert_null(bdrv_driver_children("file"));
    g_assert_null(bdrv_driver_children("nosuch"));
}

static void test_events(void)
{
    g_assert_cmpstr(bdrv_event_name(BDRV_EVENT_L2_LOAD), ==, "l2_load");
    g_assert_null(bdrv_event_name(BDRV_EVENT_MAX));
    g_assert_cmpint(bdrv_event_find("cluster_alloc"), ==, BDRV_EVENT_CLUSTER_ALLOC);
    g_assert_cmpint(bdrv_event_find("nosuch"), ==, -1);
    for (int i = 0; i < BDRV_EVENT_MAX; i++) {
        g_assert_cmpint(bdrv_event_find(bdrv_event_name(i)), ==, i);
    }
}

/* Look-ups while others register; TSan is the judge. */
static void *register_many(void *opaque)
{
    unsigned first = GPOINTER_TO_UINT(opaque);

    for (unsigned i = first; i < first + 50; i++) {
        BlockDriver *drv = g_new0(BlockDriver, 1);
        char *name = g_strdup_printf("t-many-%u", i); /* the table stays as long as the process */

        *drv = (BlockDriver){ .format_name = name, COMPLETE };
        g_assert_true(bdrv_register(drv));
        g_assert_true(bdrv_find_format(name)->bdrv_open == open_nothing);
        g_free(drv); /* the core has its copy */
    }
    return NULL;
}

static void test_threads(void)
{
    pthread_t threads[4];

    for (unsigned i = 0; i < 4; i++) {
        g_assert_cmpint(pthread_create(&threads[i], NULL, register_many, GUINT_TO_POINTER(i * 50)), ==, 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    for (unsigned i = 0; i < 200; i++) {
        g_autofree char *name = g_strdup_printf("t-many-%u", i);
        g_assert_true(bdrv_driver_known(name));
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/registry/a name and a prefix are registered once", test_register_once);
    g_test_add_func("/registry/a missing mandatory callback is named", test_incomplete);
    g_test_add_func("/registry/a newer table is refused", test_newer_api);
    g_test_add_func("/registry/an older and shorter table gets an empty tail", test_older_table);
    g_test_add_func("/registry/the highest score wins and a tie names both", test_probe);
    g_test_add_func("/registry/protocols are found by prefix or kind of file", test_protocol);
    g_test_add_func("/registry/drivers are listed in alphabetical order", test_nth);
    g_test_add_func("/registry/the children of a driver are told", test_children);
    g_test_add_func("/registry/a protocol and an unknown driver have no children", test_no_children);
    g_test_add_func("/registry/event names go both ways", test_events);
    g_test_add_func("/registry/look-ups run beside registrations", test_threads);
    return g_test_run();
}
