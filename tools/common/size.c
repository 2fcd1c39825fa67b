/* SPDX-License-Identifier: MIT */
#include "tools/common/tool.h"

#include <string.h>

char *tool_size_text(double bytes)
{
    static const char *const units[] = { "EiB", "PiB", "TiB", "GiB", "MiB", "KiB" };
    char number[64];
    double scale = 1024.0 * 1024 * 1024 * 1024 * 1024 * 1024;
    const char *unit = "bytes";

    for (unsigned i = 0; i < G_N_ELEMENTS(units); i++, scale /= 1024) {
        if (bytes >= scale) {
            unit = units[i];
            break;
        }
    }
    if (strcmp(unit, "bytes") == 0) {
        scale = 1;
    }
    g_snprintf(number, sizeof(number), scale > 1 ? "%.3f" : "%f", bytes / scale);
    char *fraction = strstr(number, scale > 1 ? ".000" : ".000000");
    if (fraction) {
        *fraction = '\0';
    }
    return g_strdup_printf("%s %s", number, unit);
}
