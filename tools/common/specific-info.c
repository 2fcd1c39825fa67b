/* SPDX-License-Identifier: MIT */
#include "tools/common/tool.h"

#include <stdio.h>
#include <string.h>

void tool_print_specific_info(const BdrvOptions *info)
{
    static const char prefix[] = "data.";
    bool any = false;

    for (unsigned i = 0; i < bdrv_options_count(info); i++) {
        g_autofree char *text = NULL, *label = NULL;
        const char *key;

        bdrv_options_nth(info, i, &key, NULL, &text);
        if (!g_str_has_prefix(key, prefix)) {
            continue;
        }
        if (!any) {
            printf("Format specific information:\n");
            any = true;
        }
        label = g_strdelimit(g_strdup(key + strlen(prefix)), "-", ' '); /* "refcount-bits" as people read it */
        printf("    %s: %s\n", label, text);
    }
}
