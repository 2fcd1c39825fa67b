/* SPDX-License-Identifier: MIT */
/* Drivers from shared objects; BDRV_TEST_MODULES is the directory of the modules made of module.c. */
#include <bdrv/bdrv.h>
#include <bdrv/driver.h>
#include <errno.h>
#include <glib/gstdio.h>
#include <pthread.h>
#include <string.h>

static const char *modules;

static char *module_path(const char *kind)
{
    return g_strdup_printf("%s/module-%s.so", modules, kind);
}

static bool load(const char *kind, GError **errp)
{
    g_autofree char *path = module_path(kind);

    return bdrv_module_load(path, errp);
}

static void assert_reads_sevens(const char *driver)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BdrvOptions *options = bdrv_options_new();
    uint8_t byte = 0;
    BlockBackend *blk;

    bdrv_options_set_string(options, "driver", driver);
    blk = blk_open(graph, NULL, options, 0, NULL);
    g_assert_nonnull(blk);
    g_assert_cmpint(blk_pread(blk, 100, 1, &byte, 0), ==, 0);
    g_assert_cmpint(byte, ==, 7);
    g_assert_true(blk_close(blk, NULL));
}

static void test_good(void)
{
    g_autoptr(GError) error = NULL;

    g_assert_false(bdrv_driver_known("m-good"));
    g_assert_true(load("good", &error));
    g_assert_no_error(error);
    assert_reads_sevens("m-good");
    g_assert_true(bdrv_protocol_known("m-good:x"));

    /* The same file once more is a repeated name, and harmless. */
    g_assert_false(load("good", &error));
    g_assert_error(error, BDRV_ERROR, EEXIST);
    assert_reads_sevens("m-good");
}

static void test_two(void)
{
    g_assert_true(load("two", NULL));
    assert_reads_sevens("m-two-a");
    assert_reads_sevens("m-two-b");
}

static void test_refused(void)
{
    g_autofree char *api = g_strdup_printf("API %u with", BDRV_DRIVER_API);
    g_autofree char *newer = g_strdup_printf("built for API %u with", BDRV_DRIVER_API + 1);
    g_autofree char *larger = g_strdup_printf("a table of %zu bytes", sizeof(BlockDriver) + 8);
    g_autofree char *size = g_strdup_printf("%zu bytes", sizeof(BlockDriver));
    const struct {
        const char *kind;
        int code;
        const char *named, *also, *never; /* words of the message; a driver that must not be known */
    } cases[] = {
        { "newer", ENOTSUP, newer, api, "m-never" },
        { "larger", ENOTSUP, larger, size, "m-never" },
        { "tiny", EINVAL, "16 bytes", size, "m-never" },
        { "zero", EINVAL, "API 0", api, "m-never" },
        { "no-entry", EINVAL, "'bdrv_module'", "BDRV_MODULE", "m-never" },
        { "no-init", EINVAL, "init function", "bdrv_module", "m-never" },
        { "nothing", EINVAL, "registered no driver", "static", "m-never" },
        { "silent", EINVAL, "did not say why", "init function", "m-never" },
        { "fails", ENODEV, "the moon", "module", "m-never" },
        { "nested", EDEADLK, "cannot load modules", "module", "m-never" },
        { "duplicate", EEXIST, "'raw'", "already", "m-before-duplicate" },
        { "twice", EEXIST, "'m-twice'", "already", "m-twice" },
        { "incomplete", EINVAL, "bdrv_co_readv", "'m-incomplete'", "m-incomplete" },
        { "undefined", EINVAL, "cannot load", "bdrv_of_a_later_version", "m-never" },
        { "not-there", ENOENT, "cannot load", "No such file", "m-never" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *path = module_path(cases[i].kind);
        g_autoptr(GError) error = NULL;

        g_assert_false(bdrv_module_load(path, &error));
        g_test_message("%s", error->message);
        g_assert_error(error, BDRV_ERROR, cases[i].code);
        g_assert_nonnull(strstr(error->message, path));
        g_assert_nonnull(strstr(error->message, cases[i].named));
        g_assert_nonnull(strstr(error->message, cases[i].also));
        g_assert_false(bdrv_driver_known(cases[i].never));
    }
}

static void test_no_module(void)
{
    g_autofree char *dir = g_dir_make_tmp("bdrv-module-XXXXXX", NULL);
    g_autofree char *file = g_build_filename(dir, "text.so", NULL);
    g_autoptr(GError) error = NULL;
    char text[4096];

    memset(text, 'x', sizeof(text));
    g_assert_true(g_file_set_contents(file, text, sizeof(text), NULL));
    g_assert_false(bdrv_module_load(file, &error));
    g_assert_error(error, BDRV_ERROR, EINVAL);
    g_assert_nonnull(strstr(error->message, file));
    g_assert_nonnull(strstr(error->message, "ELF"));
    g_clear_error(&error);
    g_assert_false(bdrv_module_load(dir, &error));
    g_assert_error(error, BDRV_ERROR, EINVAL);
    g_remove(file);
    g_rmdir(dir);
}

static void test_bare_name(void)
{
    g_autoptr(GError) error = NULL;

    /* A bare name is of this directory, and not looked for where the loader looks. */
    g_assert_false(bdrv_module_load("libc.so.6", &error));
    g_assert_error(error, BDRV_ERROR, ENOENT);
}

static void *load_slots(void *opaque)
{
    unsigned *won = opaque;

    for (unsigned i = 0; i < 3; i++) {
        g_autofree char *kind = g_strdup_printf("slot%u", i);
        g_autofree char *name = g_strdup_printf("m-slot%u", i);
        g_autoptr(GError) error = NULL;

        if (load(kind, &error)) {
            ++*won;
        } else {
            g_assert_error(error, BDRV_ERROR, EEXIST);
        }
        g_assert_true(bdrv_driver_known(name));
    }
    return NULL;
}

static void test_threads(void)
{
    pthread_t threads[4];
    unsigned won[4] = { 0 }, sum = 0;

    for (unsigned i = 0; i < 4; i++) {
        g_assert_cmpint(pthread_create(&threads[i], NULL, load_slots, &won[i]), ==, 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        sum += won[i];
    }
    g_assert_cmpuint(sum, ==, 3);
}

/* ---- the directory: each case in a process of its own, as it is read once ---- */

static char *make_dir(void)
{
    static const char *const kinds[] = { "two", "duplicate", "newer", "good" };
    char *dir = g_dir_make_tmp("bdrv-modules-XXXXXX", NULL);

    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        g_autofree char *from = module_path(kinds[i]);
        g_autofree char *to = g_strdup_printf("%s/%u-%s.so", dir, i, kinds[i]);

        g_assert_cmpint(symlink(from, to), ==, 0);
    }
    g_autofree char *again = g_build_filename(dir, "9-good-again.so", NULL);
    g_autofree char *from = module_path("good");
    g_autofree char *other = g_build_filename(dir, "README", NULL);
    g_assert_cmpint(symlink(from, again), ==, 0);
    g_assert_true(g_file_set_contents(other, "no module", -1, NULL));
    return dir;
}

static void remove_dir(const char *path)
{
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;

    while ((name = g_dir_read_name(dir))) {
        g_autofree char *file = g_build_filename(path, name, NULL);
        g_remove(file);
    }
    g_rmdir(path);
}

static void test_directory(void)
{
    if (g_test_subprocess()) {
        g_auto(GStrv) lines = NULL;

        assert_reads_sevens("m-good"); /* the first look-up of the process */
        assert_reads_sevens("m-two-b");
        g_assert_false(bdrv_driver_known("m-before-duplicate"));
        lines = g_strsplit(bdrv_module_dir_errors(), "\n", -1);
        g_assert_cmpuint(g_strv_length(lines), ==, 3);
        g_assert_nonnull(strstr(lines[0], "/1-duplicate.so"));
        g_assert_nonnull(strstr(lines[1], "/2-newer.so"));
        g_assert_nonnull(strstr(lines[2], "/9-good-again.so"));
        return;
    }
    g_autofree char *dir = make_dir();
    g_setenv("BDRV_MODULE_DIR", dir, TRUE);
    g_test_trap_subprocess(NULL, 0, 0);
    g_unsetenv("BDRV_MODULE_DIR");
    remove_dir(dir);
    g_test_trap_assert_passed();
}

static void test_directory_missing(void)
{
    if (g_test_subprocess()) {
        g_assert_true(bdrv_driver_known("raw"));
        g_assert_nonnull(strstr(bdrv_module_dir_errors(), "BDRV_MODULE_DIR"));
        g_assert_nonnull(strstr(bdrv_module_dir_errors(), "/no/such/directory"));
        return;
    }
    g_setenv("BDRV_MODULE_DIR", "/no/such/directory", TRUE);
    g_test_trap_subprocess(NULL, 0, 0);
    g_unsetenv("BDRV_MODULE_DIR");
    g_test_trap_assert_passed();
}

static void test_directory_empty(void)
{
    if (g_test_subprocess()) {
        g_assert_true(bdrv_driver_known("raw"));
        g_assert_null(bdrv_module_dir_errors());
        return;
    }
    g_setenv("BDRV_MODULE_DIR", "", TRUE);
    g_test_trap_subprocess(NULL, 0, 0);
    g_unsetenv("BDRV_MODULE_DIR");
    g_test_trap_assert_passed();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    modules = g_getenv("BDRV_TEST_MODULES");
    g_test_add_func("/module/its drivers are like built-in ones", test_good);
    g_test_add_func("/module/it may bring several drivers", test_two);
    g_test_add_func("/module/a bad one is refused whole, with the reason", test_refused);
    g_test_add_func("/module/a file that is none is refused", test_no_module);
    g_test_add_func("/module/a bare name is looked for in the current directory only", test_bare_name);
    g_test_add_func("/module/of threads that load the same one wins", test_threads);
    g_test_add_func("/module/the directory is read once, in the order of names", test_directory);
    g_test_add_func("/module/a directory that is not there is told", test_directory_missing);
    g_test_add_func("/module/an empty name means no directory", test_directory_empty);
    return g_test_run();
}
