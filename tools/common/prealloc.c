/* SPDX-License-Identifier: MIT */
#include "tools/common/tool.h"

bool tool_parse_prealloc(const char *name, BdrvPrealloc *prealloc)
{
    if (!bdrv_prealloc_find(name, prealloc)) {
        tool_error("Invalid preallocation mode '%s'", name);
        return false;
    }
    return true;
}
