/* SPDX-License-Identifier: MIT */
/* Which children of the driver get a file: first the one with the image, then those that it needs or has been
 * given. */
#include "tools/driver-test/kit.h"

#include <stdlib.h>

#include "tools/common/tool.h"

static bool has_child(const Kit *kit, const char *name)
{
    for (unsigned i = 0; i < kit->n_children; i++) {
        if (strcmp(kit->children[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

static void add_child(Kit *kit, const BdrvChildSpec *spec)
{
    if (has_child(kit, spec->name)) {
        return;
    }
    if (kit->n_children == KIT_MOST_CHILDREN) {
        tool_error("the driver has more than %d children", KIT_MOST_CHILDREN);
        exit(2);
    }
    kit->children[kit->n_children++] = *spec;
}

static bool has_image(const BdrvChildSpec *spec)
{
    return spec->role == BDRV_CHILD_PROTOCOL || spec->role == BDRV_CHILD_FILTERED;
}

static void add_child_by_name(Kit *kit, const BdrvChildSpec *specs, const char *name)
{
    if (strcmp(name, "backing") == 0 && bdrv_driver_supports_backing(kit->driver)) {
        add_child(kit, &(BdrvChildSpec){ .name = "backing", .role = BDRV_CHILD_COW });
        return;
    }
    while (specs && specs->name && strcmp(specs->name, name) != 0) {
        specs++;
    }
    if (!specs || !specs->name) {
        tool_error("driver '%s' has no child '%s'", kit->driver, name);
        exit(2);
    }
    add_child(kit, specs);
}

void kit_find_children(Kit *kit, char **names)
{
    const BdrvChildSpec *specs = bdrv_driver_children(kit->driver);

    for (const BdrvChildSpec *spec = specs; spec && spec->name && kit->n_children == 0; spec++) {
        if (has_image(spec)) {
            add_child(kit, spec);
        }
    }
    for (const BdrvChildSpec *spec = specs; spec && spec->name; spec++) {
        if (!spec->optional) {
            add_child(kit, spec);
        }
    }
    for (char **name = names; name && *name; name++) {
        add_child_by_name(kit, specs, *name);
    }
}
