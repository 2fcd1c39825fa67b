/* SPDX-License-Identifier: MIT */
/* The luks driver: what is on the disk, and images opened without their key. */

#include <bdrv/bdrv.h>
#include <bdrv/simdisk.h>
#include <errno.h>
#include <string.h>

static BdrvGraph *graph;
static BdrvSimDisk *disk;

static void set_up(void)
{
    GError *error = NULL;
    graph = bdrv_graph_new();
    disk = bdrv_simdisk_new("d", 0);
    g_assert_true(bdrv_graph_add_secret(graph, "s", "passphrase", 10, &error));
    g_assert_true(bdrv_create_image(graph, "luks", "simdisk:d",
                                    bdrv_options_parse("size=64k,key-secret=s,iter-time=1", NULL, NULL), &error));
    g_assert_no_error(error);
}

static void tear_down(void)
{
    bdrv_graph_unref(graph);
    bdrv_simdisk_unref(disk);
    bdrv_simdisk_unref(bdrv_simdisk_find("d"));
}

static BlockBackend *open_disk(const char *more, BdrvOpenFlags flags, GError **errp)
{
    g_autofree char *text = g_strconcat("driver=luks,file.driver=simdisk,file.disk=d", more, NULL);
    return blk_open(graph, NULL, bdrv_options_parse(text, NULL, NULL), flags, errp);
}

static void close_disk(BlockBackend *blk)
{
    GError *error = NULL;
    blk_close(blk, &error);
    g_assert_no_error(error);
}

static void locked(void)
{
    GError *error = NULL;
    uint8_t buf[512] = { 0 };

    set_up();
    g_assert_null(open_disk("", BDRV_O_RDWR, &error));
    g_assert_error(error, BDRV_ERROR, ENOKEY);
    g_clear_error(&error);
    BlockBackend *blk = open_disk("", BDRV_O_RDWR | BDRV_O_NO_KEY, &error);
    g_assert_no_error(error);
    g_assert_cmpint(blk_length(blk), ==, 65536);
    g_assert_cmpint(blk_pread(blk, 0, 512, buf, 0), ==, -ENOKEY);
    g_assert_cmpint(blk_pwrite(blk, 0, 512, buf, 0), ==, -ENOKEY);

    g_assert_false(blk_set_key(blk, "wrong", 5, &error));
    g_assert_error(error, BDRV_ERROR, EACCES);
    g_clear_error(&error);
    g_assert_cmpint(blk_pread(blk, 0, 512, buf, 0), ==, -ENOKEY);
    g_assert_true(blk_set_key(blk, "passphrase", 10, &error));
    memset(buf, 5, sizeof(buf));
    g_assert_cmpint(blk_pwrite(blk, 512, 512, buf, 0), ==, 0);
    close_disk(blk);

    blk = open_disk(",key-secret=s", 0, &error);
    g_assert_no_error(error);
    memset(buf, 0, sizeof(buf));
    g_assert_cmpint(blk_pread(blk, 512, 512, buf, 0), ==, 0);
    g_assert_cmpint(buf[511], ==, 5);
    close_disk(blk);
    tear_down();
}

static void nothing_readable(void)
{
    GError *error = NULL;
    uint8_t buf[4096], on_disk[4096];

    set_up();
    BlockBackend *blk = open_disk(",key-secret=s", BDRV_O_RDWR, &error);
    g_assert_no_error(error);
    memset(buf, 0x77, sizeof(buf));
    g_assert_cmpint(blk_pwrite(blk, 8192, sizeof(buf), buf, 0), ==, 0);
    close_disk(blk);
    bdrv_simdisk_peek(disk, bdrv_simdisk_length(disk) - 65536 + 8192, on_disk, sizeof(on_disk));
    for (unsigned i = 0; i < sizeof(on_disk); i += 8) {
        g_assert_cmpint(memcmp(on_disk + i, buf, 8), !=, 0);
    }
    g_assert_cmpint(memcmp(on_disk, on_disk + 512, 512), !=, 0); /* each sector by its own number */
    tear_down();
}

static void not_encrypted(void)
{
    GError *error = NULL;
    g_autoptr(BdrvGraph) plain = bdrv_graph_new();
    BlockBackend *blk = blk_open(plain, NULL, bdrv_options_parse("driver=null-co,size=1M", NULL, NULL), 0, &error);

    g_assert_no_error(error);
    g_assert_false(blk_set_key(blk, "x", 1, &error));
    g_assert_error(error, BDRV_ERROR, ENOTSUP);
    g_clear_error(&error);
    close_disk(blk);
}

static void secrets(void)
{
    GError *error = NULL;
    g_autoptr(BdrvGraph) g = bdrv_graph_new();

    g_assert_true(bdrv_graph_add_secret(g, "a", "x", 1, &error));
    g_assert_false(bdrv_graph_add_secret(g, "a", "y", 1, &error));
    g_assert_error(error, BDRV_ERROR, EEXIST);
    g_clear_error(&error);
    g_assert_true(bdrv_graph_remove_secret(g, "a", &error));
    g_assert_false(bdrv_graph_remove_secret(g, "a", &error));
    g_assert_error(error, BDRV_ERROR, ENOENT);
    g_clear_error(&error);
    g_autofree char *much = g_malloc0(BDRV_SECRET_MAX_BYTES + 1);
    g_assert_false(bdrv_graph_add_secret(g, "b", much, BDRV_SECRET_MAX_BYTES + 1, &error));
    g_assert_error(error, BDRV_ERROR, EINVAL);
    g_clear_error(&error);
}

static void must_amend(BlockBackend *blk, const char *text)
{
    GError *error = NULL;
    g_autoptr(BdrvOptions) options = bdrv_options_parse(text, NULL, NULL);
    blk_amend(blk, options, false, NULL, NULL, &error);
    g_assert_no_error(error);
}

/* What one handle does to key slots another one does not undo, once it has looked. */
static void looked_at_anew(void)
{
    GError *error = NULL;
    set_up();
    g_assert_true(bdrv_graph_add_secret(graph, "t", "another", 7, &error));
    BlockBackend *blk = open_disk(",key-secret=s", BDRV_O_RDWR, &error);
    BlockBackend *other = open_disk(",key-secret=s", BDRV_O_RDWR, &error);
    g_assert_no_error(error);
    must_amend(other, "state=active,new-secret=t,iter-time=1");
    blk_invalidate_cache(blk, &error);
    g_assert_no_error(error);
    must_amend(blk, "state=inactive,keyslot=0");
    close_disk(other);
    close_disk(blk);
    g_assert_null(open_disk(",key-secret=s", 0, NULL));
    blk = open_disk(",key-secret=t", BDRV_O_RDWR, &error);
    g_assert_no_error(error);

    /* Another volume in its place is refused. */
    uint8_t buf[512];
    g_assert_true(bdrv_create_image(graph, "luks", "simdisk:d",
                                    bdrv_options_parse("size=64k,key-secret=s,iter-time=1", NULL, NULL), &error));
    g_assert_false(blk_invalidate_cache(blk, &error));
    g_assert_error(error, BDRV_ERROR, EKEYREJECTED);
    g_clear_error(&error);
    g_assert_cmpint(blk_pread(blk, 0, 512, buf, 0), ==, -EIO);
    close_disk(blk);
    tear_down();
}

static void reopened(void)
{
    GError *error = NULL;
    set_up();
    g_assert_true(bdrv_graph_add_secret(graph, "t", "another", 7, &error));
    BlockBackend *blk = open_disk(",key-secret=s", BDRV_O_RDWR, &error);
    g_assert_false(blk_reopen(blk, bdrv_options_parse("key-secret=t", NULL, NULL), BDRV_O_RDWR, &error));
    g_assert_error(error, BDRV_ERROR, EACCES);
    g_clear_error(&error);
    must_amend(blk, "state=active,new-secret=t,iter-time=1");
    blk_reopen(blk, bdrv_options_parse("key-secret=t", NULL, NULL), BDRV_O_RDWR, &error);
    g_assert_no_error(error);
    must_amend(blk, "state=inactive,old-secret=s");
    must_amend(blk, "state=active,new-secret=s,iter-time=1"); /* which the present secret allows */
    close_disk(blk);
    tear_down();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/luks-driver/a locked image fails its requests until the right key is set", locked);
    g_test_add_func("/luks-driver/nothing of what is written can be read from the disk", nothing_readable);
    g_test_add_func("/luks-driver/an image that is not encrypted takes no key", not_encrypted);
    g_test_add_func("/luks-driver/key slots that another handle changed are seen when it is looked at anew",
                    looked_at_anew);
    g_test_add_func("/luks-driver/reopened by another secret an image is known by that", reopened);
    g_test_add_func("/luks-driver/a graph keeps secrets by ID, each once", secrets);
    return g_test_run();
}
