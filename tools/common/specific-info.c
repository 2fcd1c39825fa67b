/* SPDX-License-Identifier: MIT */
#include "tools/common/tool.h"

#include <stdio.h>
#include <string.h>

/* "refcount-bits" as people read it; "0" is the first of a list */
static char *label_of(const char *part)
{
    return g_ascii_isdigit(*part) ? g_strdup_printf("[%s]", part) : g_strdelimit(g_strdup(part), "-", ' ');
}

/* A line for each part of the key that the line before did not have, indented by its depth; the last with the value. */
static void print_leaf(char **parts, char **before, const char *value)
{
    unsigned depth = 0;

    while (before && before[depth] && parts[depth + 1] && strcmp(parts[depth], before[depth]) == 0) {
        depth++;
    }
    for (; parts[depth]; depth++) {
        g_autofree char *label = label_of(parts[depth]);
        bool last = !parts[depth + 1];

        printf("%*s%s:%s%s\n", (int)(depth + 1) * 4, "", label, last && *value ? " " : "", last ? value : "");
    }
}

void tool_print_specific_info(const BdrvOptions *info)
{
    static const char prefix[] = "data.";
    g_auto(GStrv) before = NULL;

    for (unsigned i = 0; i < bdrv_options_count(info); i++) {
        g_autofree char *text = NULL;
        BdrvOptionType type;
        const char *key;

        bdrv_options_nth(info, i, &key, &type, &text);
        if (!g_str_has_prefix(key, prefix)) {
            continue;
        }
        if (!before) {
            printf("Format specific information:\n");
        }
        GStrv parts = g_strsplit(key + strlen(prefix), ".", -1);
        print_leaf(parts, before, type == BDRV_OPTION_LIST || type == BDRV_OPTION_DICT ? "" : text);
        g_strfreev(before);
        before = parts;
    }
}
