/* SPDX-License-Identifier: MIT */
/* Modules and a program that has a static libbdrv inside: they have the shared one with them, which is another. */
#include <bdrv/bdrv.h>
#include <errno.h>
#include <string.h>

static char *module_path(void)
{
    return g_build_filename(g_getenv("BDRV_TEST_MODULES"), "module-good.so", NULL);
}

static void test_refused(void)
{
    g_autofree char *path = module_path();
    g_autoptr(GError) error = NULL;

    g_assert_false(bdrv_module_load(path, &error));
    g_assert_error(error, BDRV_ERROR, ENOTSUP);
    g_assert_nonnull(strstr(error->message, path));
    g_assert_nonnull(strstr(error->message, "shared libbdrv"));
    g_assert_false(bdrv_driver_known("m-good"));
}

static void test_directory(void)
{
    if (g_test_subprocess()) {
        g_assert_false(bdrv_driver_known("m-good"));
        g_assert_nonnull(strstr(bdrv_module_dir_errors(), "module-good.so"));
        g_assert_nonnull(strstr(bdrv_module_dir_errors(), "shared libbdrv"));
        return;
    }
    g_setenv("BDRV_MODULE_DIR", g_getenv("BDRV_TEST_MODULES"), TRUE);
    g_test_trap_subprocess(NULL, 0, (GTestSubprocessFlags)0);
    g_unsetenv("BDRV_MODULE_DIR");
    g_test_trap_assert_passed();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/module-static/a module that brings another library is refused", test_refused);
    g_test_add_func("/module-static/one in the module directory too", test_directory);
    return g_test_run();
}
