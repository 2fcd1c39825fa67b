/* SPDX-License-Identifier: MIT */

/*
 * Drivers from shared objects. A module exports one constant, bdrv_module (<bdrv/driver.h>), so that what it was built
 * for is known before any of its code is called. It is taken whole or not at all, and stays for good: tables, option
 * texts and code of a driver are pointed to from everywhere.
 *
 * Modules of the module directory come with the first look-up, after the built-in drivers and in the order of their
 * names. A library does not print: what went wrong there waits in bdrv_module_dir_errors().
 */
#include "block/registry/registry.h"

#include <bdrv/bdrv.h>
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"

#define ENTRY_POINT "bdrv_module"
#define SUFFIX ".so"

static GString *dir_errors; /* written inside the pthread_once of the built-ins only */

/* ---- what kind of program this is ---- */

/* The program itself comes first. Without an interpreter nobody has loaded it, and nobody can load anything into it. */
static int find_interpreter(struct dl_phdr_info *info, size_t size, void *opaque)
{
    bool *found = opaque;

    for (int i = 0; i < info->dlpi_phnum; i++) {
        *found |= info->dlpi_phdr[i].p_type == PT_INTERP;
    }
    return 1;
}

static bool program_is_static(void)
{
    bool found = false;

    dl_iterate_phdr(find_interpreter, &found);
    return !found;
}

/* Would the module register its drivers with another libbdrv, which it brings, while the program has this one inside? */
static bool brings_other_library(void *handle)
{
    const uintptr_t ours = (uintptr_t)bdrv_register_full;
    const uintptr_t theirs = (uintptr_t)dlsym(handle, "bdrv_register_full");

    return theirs && theirs != ours && (uintptr_t)dlsym(RTLD_DEFAULT, "bdrv_register_full") != ours;
}

/* ---- one module ---- */

/* What a module says of itself, if it may be used; nothing but its constructors has run then. */
static const BdrvModule *find_entry(void *handle, GError **errp)
{
    const BdrvModule *module = dlsym(handle, ENTRY_POINT);

    if (!module) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "it has no symbol '" ENTRY_POINT "'; a driver module says BDRV_MODULE(…), see <bdrv/driver.h>");
        return NULL;
    }
    if (!bdrv_check_built_for("it", module->api, module->table_size, errp)) {
        return NULL;
    }
    if (!module->init) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "its '" ENTRY_POINT "' has no init function");
        return NULL;
    }
    return module;
}

static void *open_module(const char *path, GError **errp)
{
    void *handle;

    if (program_is_static()) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP, "this program is static as a whole; only one that the dynamic linker "
                    "starts can load modules");
        return NULL;
    }
    handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        const char *why = dlerror();

        /* The loader puts the path in front by itself. */
        g_set_error(errp, BDRV_ERROR, g_file_test(path, G_FILE_TEST_EXISTS) ? EINVAL : ENOENT, "cannot load it: %s",
                    g_str_has_prefix(why, path) ? why + strlen(path) + strspn(why + strlen(path), ": ") : why);
        return NULL;
    }
    if (brings_other_library(handle)) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP, "it is linked with the shared libbdrv, and this program has a static one "
                    "inside; link the program with the shared one to use modules");
        dlclose(handle);
        return NULL;
    }
    return handle;
}

static bool run_init(const BdrvModule *module, GError **errp)
{
    g_autoptr(GError) error = NULL;
    bool ok;

    bdrv_registration_begin();
    ok = module->init(&error);
    if (!ok && !error) {
        g_set_error(&error, BDRV_ERROR, EINVAL, "its init function failed and did not say why");
    } else if (ok) {
        g_clear_error(&error);
    }
    return bdrv_registration_end(error, errp);
}

bool bdrv_module_load(const char *filename, GError **errp)
{
    g_autofree char *path = g_canonicalize_filename(filename, NULL); /* a bare name would be looked for elsewhere */
    g_autofree char *where = g_strdup_printf("module '%s'", path);
    const BdrvModule *module;
    void *handle;

    if (bdrv_registration_running()) {
        g_set_error(errp, BDRV_ERROR, EDEADLK, "%s: the init function of a module cannot load modules", where);
        return false;
    }
    bdrv_register_builtins();
    handle = open_module(path, errp);
    if (!handle) {
        bdrv_error_prefix(errp, where);
        return false;
    }
    module = find_entry(handle, errp);
    if (!module) {
        dlclose(handle);
        bdrv_error_prefix(errp, where);
        return false;
    }
    if (!run_init(module, errp)) { /* the code may have left pointers to itself: it stays */
        bdrv_error_prefix(errp, where);
        return false;
    }
    return true;
}

/* ---- the directory ---- */

static void note_error(const char *message)
{
    if (!dir_errors) {
        dir_errors = g_string_new(NULL);
    }
    g_string_append_printf(dir_errors, "%s%s", dir_errors->len ? "\n" : "", message);
}

static gint by_name(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static GPtrArray *list_modules(GDir *dir)
{
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
    const char *name;

    while ((name = g_dir_read_name(dir))) {
        if (g_str_has_suffix(name, SUFFIX)) {
            g_ptr_array_add(names, g_strdup(name));
        }
    }
    g_ptr_array_sort(names, by_name);
    return names;
}

/* A program with more rights than its user has must not run the user's code. */
void bdrv_load_module_dir(void)
{
    const char *asked = secure_getenv("BDRV_MODULE_DIR");
    const char *path = asked ? asked : CONFIG_MODULE_DIR;
    g_autoptr(GError) error = NULL;
    g_autoptr(GDir) dir = NULL;
    g_autoptr(GPtrArray) names = NULL;

    if (!*path || (!asked && program_is_static())) {
        return;
    }
    dir = g_dir_open(path, 0, &error);
    if (!dir) {
        if (asked) { /* who installs no modules has no directory for them */
            g_autofree char *why = g_strdup_printf("BDRV_MODULE_DIR: %s", error->message);
            note_error(why);
        }
        return;
    }
    names = list_modules(dir);
    for (unsigned i = 0; i < names->len; i++) {
        g_autofree char *file = g_build_filename(path, names->pdata[i], NULL);
        g_autoptr(GError) refused = NULL;

        if (!bdrv_module_load(file, &refused)) {
            note_error(refused->message);
        }
    }
}

const char *bdrv_module_dir_errors(void)
{
    bdrv_register_builtins();
    return dir_errors ? dir_errors->str : NULL;
}
