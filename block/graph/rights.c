/* SPDX-License-Identifier: MIT */
/*
 * Who may do what to a node. Each edge uses some of four rights and shares some with other users.
 * A node that shows its child unchanged (a filter) passes on what its own users use and share; a
 * format decides by itself, whoever uses it. The result, summed over the edges of a protocol node,
 * is what other processes see as file locks.
 */
#include "block/graph/graph_int.h"

#include <errno.h>

#define RIGHTS_OF_WRITER (BDRV_RIGHT_WRITE | BDRV_RIGHT_RESIZE)

BdrvRights bdrv_rights_of_edge(BdrvChildRole role, bool parent_writes, bool force_share, BdrvRights parent)
{
    BdrvRights rights = { .used = BDRV_RIGHT_CONSISTENT_READ, .shared = BDRV_RIGHTS_ALL };

    switch (role) {
    case BDRV_CHILD_FILTERED:
        return parent;
    case BDRV_CHILD_COW:
        /*
         * Sharing all is what others hold on a backing file: a raw one may be written by who insists.
         * But who lets nobody write to the image wants its content to stay, and part of that is here.
         */
        if (!(parent.shared & BDRV_RIGHT_WRITE)) {
            rights.shared &= ~RIGHTS_OF_WRITER;
        }
        break;
    case BDRV_CHILD_PROTOCOL:
    case BDRV_CHILD_DATA:
        rights.shared &= ~RIGHTS_OF_WRITER;
        if (parent_writes) {
            rights.used |= RIGHTS_OF_WRITER;
        }
        break;
    }
    if (force_share) {
        rights.shared = BDRV_RIGHTS_ALL;
    }
    return rights;
}

static const struct {
    BdrvRight right;
    const char *word, *phrase;
} right_names[] = {
    { BDRV_RIGHT_CONSISTENT_READ, "read", "read consistent data" },
    { BDRV_RIGHT_WRITE, "write", "write" },
    { BDRV_RIGHT_WRITE_UNCHANGED, "write-unchanged", "rewrite the same data" },
    { BDRV_RIGHT_RESIZE, "resize", "resize" },
};

char *bdrv_rights_text(unsigned mask)
{
    GString *text = g_string_new(NULL);

    for (unsigned i = 0; i < G_N_ELEMENTS(right_names); i++) {
        if (mask & right_names[i].right) {
            g_string_append_printf(text, "%s%s", text->len ? "," : "", right_names[i].word);
        }
    }
    if (!text->len) {
        g_string_append_c(text, '-');
    }
    return g_string_free(text, FALSE);
}

char *bdrv_edge_user_text(const BdrvEdge *edge)
{
    if (!edge->parent) {
        return g_strdup_printf("'%s'", edge->owner);
    }
    return g_strdup_printf("node '%s' (%s) as its %s", edge->parent->bs.node_name,
                           edge->parent->bs.drv->format_name, edge->child.name);
}

static const char *first_phrase(unsigned mask)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(right_names); i++) {
        if (mask & right_names[i].right) {
            return right_names[i].phrase;
        }
    }
    return "use it";
}

bool bdrv_rights_check(const BdrvEdge *edge, BdrvRights mine, const BdrvEdge *other, BdrvRights theirs,
                       GError **errp)
{
    const BlockDriverState *bs = edge->child.bs;
    unsigned denied_to_me = mine.used & ~theirs.shared;
    unsigned denied_by_me = theirs.used & ~mine.shared;
    g_autofree char *user = NULL;

    if (!denied_to_me && !denied_by_me) {
        return true;
    }
    user = bdrv_edge_user_text(other);
    if (denied_to_me) {
        g_set_error(errp, BDRV_ERROR, EBUSY,
                    "node '%s' (%s) is used by %s, which does not let others %s; close that user first",
                    bs->node_name, bs->filename, user, first_phrase(denied_to_me));
    } else {
        g_set_error(errp, BDRV_ERROR, EBUSY,
                    "node '%s' (%s) is used by %s, which may %s; that cannot be shared, close that user first",
                    bs->node_name, bs->filename, user, first_phrase(denied_by_me));
    }
    return false;
}
