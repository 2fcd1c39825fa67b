/* SPDX-License-Identifier: MIT */
/* -o help: the options of a format to create or amend, with those of the protocol if the file name tells which. */
#include <string.h>

#include "tools/img/img.h"

bool img_wants_help(const char *text)
{
    g_auto(GStrv) parts = g_strsplit(text, ",", -1);

    for (char **part = parts; *part; part++) {
        if (strcmp(*part, "help") == 0 || strcmp(*part, "?") == 0) {
            return true;
        }
    }
    return false;
}

static const char *type_text(BdrvOptionType type)
{
    switch (type) {
    case BDRV_OPTION_BOOL: return "<bool (on/off)>";
    case BDRV_OPTION_SIZE: return "<size>";
    case BDRV_OPTION_INT: return "<num>";
    default: return "<str>";
    }
}

static void collect(GPtrArray *specs, const BdrvOptionSpec *table)
{
    for (; table && table->name; table++) {
        bool known = false;

        for (unsigned i = 0; i < specs->len; i++) {
            const BdrvOptionSpec *spec = g_ptr_array_index(specs, i);

            known |= strcmp(spec->name, table->name) == 0;
        }
        if (!known) {
            g_ptr_array_add(specs, (void *)table);
        }
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const BdrvOptionSpec *const *)a)->name, (*(const BdrvOptionSpec *const *)b)->name);
}

static bool is_local_file(const char *filename)
{
    const char *colon = strchr(filename, ':'), *slash = strchr(filename, '/');

    return !colon || (slash && slash < colon) || g_str_has_prefix(filename, "file:");
}

static void print_specs(GPtrArray *specs)
{
    g_ptr_array_sort(specs, by_name);
    for (unsigned i = 0; i < specs->len; i++) {
        const BdrvOptionSpec *spec = g_ptr_array_index(specs, i);
        g_autofree char *left = g_strdup_printf("%s=%s", spec->name, type_text(spec->type));

        printf("  %-22s - %s\n", left, spec->help);
    }
}

int img_print_amend_help(const char *format)
{
    g_autoptr(GPtrArray) specs = g_ptr_array_new();

    if (!bdrv_driver_known(format)) {
        g_autofree char *why = tool_unknown_format(format);
        tool_error("%s", why);
        return 1;
    }
    if (!bdrv_driver_options(format, BDRV_TABLE_AMEND)) {
        tool_error("Format driver '%s' does not support option amendment", format);
        return 1;
    }
    collect(specs, bdrv_driver_options(format, BDRV_TABLE_AMEND));
    printf("Amend options for '%s':\n", format);
    print_specs(specs);
    return 0;
}

int img_print_options_help(const char *format, const char *filename)
{
    static const BdrvOptionSpec size[] = { { "size", BDRV_OPTION_SIZE, "Virtual disk size" }, { NULL } };
    g_autoptr(GPtrArray) specs = g_ptr_array_new();

    if (!bdrv_driver_known(format)) {
        g_autofree char *why = tool_unknown_format(format);
        tool_error("%s", why);
        return 1;
    }
    if (!bdrv_driver_can_create(format)) {
        tool_error("Format driver '%s' does not support image creation", format);
        return 1;
    }
    collect(specs, bdrv_driver_options(format, BDRV_TABLE_CREATE));
    if (filename && is_local_file(filename)) {
        collect(specs, bdrv_driver_options("file", BDRV_TABLE_CREATE));
    }
    collect(specs, size);
    if (filename) {
        printf("Supported options:\n");
    } else {
        printf("Supported %s options:\n", format);
    }
    print_specs(specs);
    if (!filename) {
        printf("\nThe protocol level may support further options.\n"
               "Specify the target filename to include those options.\n");
    }
    return 0;
}
