/* SPDX-License-Identifier: MIT */
#include "tools/common/tool.h"

#include <string.h>

static const struct {
    const char *name;
    BdrvOpenFlags flags;
} cache_modes[] = {
    { "none", BDRV_O_NOCACHE },
    { "off", BDRV_O_NOCACHE },
    { "writeback", 0 },
    { "writethrough", BDRV_O_WRITETHROUGH },
    { "directsync", BDRV_O_NOCACHE | BDRV_O_WRITETHROUGH },
    { "unsafe", BDRV_O_NO_FLUSH },
};

bool tool_cache_mode(const char *name, BdrvOpenFlags *flags)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(cache_modes); i++) {
        if (strcmp(name, cache_modes[i].name) == 0) {
            *flags = (*flags & ~TOOL_CACHE_FLAGS) | cache_modes[i].flags;
            return true;
        }
    }
    return false;
}

bool tool_discard_mode(const char *name, BdrvOpenFlags *flags)
{
    if (strcmp(name, "unmap") == 0 || strcmp(name, "on") == 0) {
        *flags |= BDRV_O_UNMAP;
        return true;
    }
    if (strcmp(name, "ignore") == 0 || strcmp(name, "off") == 0) {
        *flags &= ~BDRV_O_UNMAP;
        return true;
    }
    return false;
}
