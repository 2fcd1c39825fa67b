/* SPDX-License-Identifier: MIT */

/*
 * The drivers of the process: a list that only grows at its head. An entry is complete before the
 * head names it and never changes, so look-ups follow it without a lock.
 */
#include "block/registry/registry.h"
#include "block/registry/builtins.h"

#include <bdrv/bdrv.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

typedef struct DriverEntry {
    BlockDriver drv; /* full size; what the registrant's table did not have is NULL */
    unsigned api;
    struct DriverEntry *next;
} DriverEntry;

static _Atomic(DriverEntry *) drivers;
static pthread_mutex_t register_lock = PTHREAD_MUTEX_INITIALIZER; /* writers of @drivers */
static pthread_once_t builtins_once = PTHREAD_ONCE_INIT;
static _Thread_local bool in_builtins; /* this thread is inside call_builtins() */

/* What this thread registers between bdrv_registration_begin() and _end(), all or nothing of which becomes known. */
typedef struct Registration {
    DriverEntry *newest;
    GError *error; /* the first one */
} Registration;
static _Thread_local Registration *registration;

static void call_builtins(void)
{
    in_builtins = true;
    bdrv_call_builtin_inits();
    bdrv_load_module_dir();
    in_builtins = false;
}

void bdrv_register_builtins(void)
{
    if (!in_builtins) {
        pthread_once(&builtins_once, call_builtins);
    }
}

/* The newest driver; built-ins are registered by the first look-up. */
static const DriverEntry *first_driver(void)
{
    bdrv_register_builtins();
    return atomic_load_explicit(&drivers, memory_order_acquire);
}

/* ---- registering ---- */

static bool has_file_child(const BlockDriver *drv)
{
    for (const BdrvChildSpec *child = drv->children; child && child->name; child++) {
        if (child->role == BDRV_CHILD_FILTERED || strcmp(child->name, "file") == 0) {
            return true;
        }
    }
    return false;
}

/* The first mandatory thing that a table lacks, NULL if it is complete. */
static const char *missing_in(const BlockDriver *drv)
{
    if (!drv->bdrv_open) {
        return "bdrv_open";
    }
    if (drv->is_filter && !has_file_child(drv)) {
        return "children: a filter needs one that it shows, named \"file\" or of the role BDRV_CHILD_FILTERED";
    }
    if (!drv->bdrv_co_readv && !drv->is_filter) {
        return "bdrv_co_readv";
    }
    return NULL;
}

/* Shorter ones cannot have what is mandatory. */
#define SMALLEST_TABLE (G_STRUCT_OFFSET(BlockDriver, bdrv_co_readv) + sizeof(void *))

bool bdrv_check_built_for(const char *what, unsigned api, size_t table_size, GError **errp)
{
    if (api > BDRV_DRIVER_API || table_size > sizeof(BlockDriver)) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP,
                    "%s was built for API %u with a table of %zu bytes, this library has API %u with %zu bytes; use a "
                    "newer library",
                    what, api, table_size, BDRV_DRIVER_API, sizeof(BlockDriver));
        return false;
    }
    if (api == 0 || table_size < SMALLEST_TABLE) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "%s says API %u with a table of %zu bytes, this library has API %u with %zu to %zu bytes", what,
                    api, table_size, BDRV_DRIVER_API, (size_t)SMALLEST_TABLE, sizeof(BlockDriver));
        return false;
    }
    return true;
}

static bool check_table(const BlockDriver *drv, unsigned api, size_t table_size, GError **errp)
{
    g_autofree char *what = NULL;
    const char *missing;

    if (!drv->format_name || !*drv->format_name) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "a driver without format_name cannot be registered");
        return false;
    }
    what = g_strdup_printf("driver '%s'", drv->format_name);
    if (!bdrv_check_built_for(what, api, table_size, errp)) {
        return false;
    }
    missing = missing_in(drv);
    if (missing) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "driver '%s' lacks the mandatory %s", drv->format_name, missing);
        return false;
    }
    return true;
}

/* Whether @list has neither the name nor the prefix of @drv. */
static bool check_unique(const DriverEntry *list, const BlockDriver *drv, GError **errp)
{
    for (const DriverEntry *entry = list; entry; entry = entry->next) {
        if (strcmp(entry->drv.format_name, drv->format_name) == 0) {
            g_set_error(errp, BDRV_ERROR, EEXIST, "driver '%s' is registered already", drv->format_name);
            return false;
        }
        if (drv->protocol_name && entry->drv.protocol_name &&
            strcmp(entry->drv.protocol_name, drv->protocol_name) == 0) {
            g_set_error(errp, BDRV_ERROR, EEXIST, "driver '%s': protocol '%s:' belongs to driver '%s' already",
                        drv->format_name, drv->protocol_name, entry->drv.format_name);
            return false;
        }
    }
    return true;
}

/* All of the list @newest, or nothing. */
static bool publish(DriverEntry *newest, GError **errp)
{
    DriverEntry *oldest = newest;
    bool ok = true;

    pthread_mutex_lock(&register_lock);
    for (DriverEntry *entry = newest; ok && entry; entry = entry->next) {
        ok = check_unique(atomic_load(&drivers), &entry->drv, errp);
        oldest = entry;
    }
    if (ok) {
        oldest->next = atomic_load(&drivers);
        atomic_store_explicit(&drivers, newest, memory_order_release);
    }
    pthread_mutex_unlock(&register_lock);
    return ok;
}

static bool stage(DriverEntry *entry, GError **errp)
{
    if (!check_unique(registration->newest, &entry->drv, errp)) {
        return false;
    }
    entry->next = registration->newest;
    registration->newest = entry;
    return true;
}

bool bdrv_register_full(const BlockDriver *drv, unsigned api, size_t table_size, GError **errp)
{
    DriverEntry *entry = g_new0(DriverEntry, 1);
    GError *error = NULL;

    /* Built-ins come first, so that it is the embedder's driver that is told of a name it repeats. */
    bdrv_register_builtins();

    memcpy(&entry->drv, drv, MIN(table_size, sizeof(entry->drv)));
    entry->api = api;
    if (check_table(&entry->drv, api, table_size, &error) &&
        (registration ? stage(entry, &error) : publish(entry, &error))) {
        return true;
    }
    g_free(entry);
    if (registration && !registration->error) {
        registration->error = g_error_copy(error);
    }
    g_propagate_error(errp, error);
    return false;
}

bool bdrv_registration_running(void)
{
    return registration != NULL;
}

void bdrv_registration_begin(void)
{
    registration = g_new0(Registration, 1);
}

static void free_entries(DriverEntry *entry)
{
    while (entry) {
        DriverEntry *older = entry->next;

        g_free(entry);
        entry = older;
    }
}

bool bdrv_registration_end(const GError *failure, GError **errp)
{
    g_autofree Registration *ended = g_steal_pointer(&registration);
    g_autoptr(GError) error = ended->error;

    if (!error && failure) {
        error = g_error_copy(failure);
    } else if (!error && !ended->newest) {
        error = g_error_new(BDRV_ERROR, EINVAL,
                            "it has registered no driver with this library (if it did with another copy of it: a "
                            "program that is linked statically cannot load modules)");
    }
    if (!error && publish(ended->newest, &error)) {
        return true;
    }
    free_entries(ended->newest);
    g_propagate_error(errp, g_steal_pointer(&error));
    return false;
}

/* ---- finding ---- */

const BlockDriver *bdrv_find_format(const char *format_name)
{
    for (const DriverEntry *entry = first_driver(); entry; entry = entry->next) {
        if (strcmp(entry->drv.format_name, format_name) == 0) {
            return &entry->drv;
        }
    }
    return NULL;
}

char *bdrv_filename_prefix(const char *filename)
{
    size_t length = strcspn(filename, ":/");

    return filename[length] == ':' && length > 0 ? g_strndup(filename, length) : NULL;
}

static const BlockDriver *find_by_prefix(const char *prefix, GError **errp)
{
    for (const DriverEntry *entry = first_driver(); entry; entry = entry->next) {
        if (entry->drv.protocol_name && strcmp(entry->drv.protocol_name, prefix) == 0) {
            return &entry->drv;
        }
    }
    g_set_error(errp, BDRV_ERROR, ENOENT, "unknown protocol '%s'; write ./%s:… if it is a file name", prefix,
                prefix);
    return NULL;
}

const BlockDriver *bdrv_find_device(const char *filename, GError **errp)
{
    const BlockDriver *best = NULL;
    int best_score = 0;

    for (const DriverEntry *entry = first_driver(); entry; entry = entry->next) {
        int score = entry->drv.bdrv_probe_device ? entry->drv.bdrv_probe_device(filename) : 0;

        if (score > best_score) {
            best = &entry->drv;
            best_score = score;
        }
    }
    if (!best) {
        g_set_error(errp, BDRV_ERROR, ENOENT, "no driver of this library opens plain file names like '%s'",
                    filename);
    }
    return best;
}

const BlockDriver *bdrv_find_protocol(const char *filename, GError **errp)
{
    g_autofree char *prefix = bdrv_filename_prefix(filename);

    return prefix ? find_by_prefix(prefix, errp) : bdrv_find_device(filename, errp);
}

/* ---- what embedders ask ---- */

/* How many drivers come before @name in the alphabet. */
static unsigned rank_of(const DriverEntry *list, const char *name)
{
    unsigned rank = 0;

    for (; list; list = list->next) {
        rank += strcmp(list->drv.format_name, name) < 0;
    }
    return rank;
}

const char *bdrv_driver_nth(unsigned n)
{
    const DriverEntry *list = first_driver();

    for (const DriverEntry *entry = list; entry; entry = entry->next) {
        if (rank_of(list, entry->drv.format_name) == n) {
            return entry->drv.format_name;
        }
    }
    return NULL;
}

bool bdrv_driver_known(const char *name)
{
    return bdrv_find_format(name) != NULL;
}

bool bdrv_protocol_known(const char *filename)
{
    g_autofree char *prefix = bdrv_filename_prefix(filename);

    return !prefix || find_by_prefix(prefix, NULL);
}

const BdrvOptionSpec *bdrv_driver_options(const char *driver, BdrvOptionTable table)
{
    const BlockDriver *drv = bdrv_find_format(driver);

    if (!drv) {
        return NULL;
    }
    switch (table) {
    case BDRV_TABLE_OPEN:
        return drv->open_options;
    case BDRV_TABLE_CREATE:
        return drv->create_options;
    case BDRV_TABLE_AMEND:
        return drv->amend_options;
    }
    return NULL;
}

/* A format without bdrv_create but with a file, as raw, is made by the protocol alone. */
bool bdrv_driver_can_create(const char *driver)
{
    const BlockDriver *drv = bdrv_find_format(driver);

    return drv && (drv->bdrv_create || drv->create_options);
}

const BdrvChildSpec *bdrv_driver_children(const char *driver)
{
    const BlockDriver *drv = bdrv_find_format(driver);

    return drv ? drv->children : NULL;
}

bool bdrv_driver_supports_backing(const char *driver)
{
    const BlockDriver *drv = bdrv_find_format(driver);

    return drv && drv->supports_backing;
}

bool bdrv_driver_can_compress(const char *driver)
{
    const BlockDriver *drv = bdrv_find_format(driver);

    return drv && drv->bdrv_write_compressed;
}
