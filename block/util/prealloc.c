/* SPDX-License-Identifier: MIT */
/* The names of the preallocation modes. */
#include <bdrv/types.h>
#include <string.h>

bool bdrv_prealloc_find(const char *name, BdrvPrealloc *prealloc)
{
    static const char *const names[] = {
        [BDRV_PREALLOC_OFF] = "off",
        [BDRV_PREALLOC_METADATA] = "metadata",
        [BDRV_PREALLOC_FALLOC] = "falloc",
        [BDRV_PREALLOC_FULL] = "full",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            *prealloc = i;
            return true;
        }
    }
    return false;
}
