/* SPDX-License-Identifier: MIT */
#include "drivers/simdisk/image.h"

#include <stdatomic.h>
#include <string.h>

#define LEVELS 5
#define LEVEL_BITS 8
#define FANOUT (1 << LEVEL_BITS)

/* Level 0 nodes are pages, others have children. */
struct SimNode {
    _Atomic unsigned refs;
    union {
        SimNode *child[FANOUT];
        uint8_t data[SIM_PAGE];
    };
};

static SimNode *node_new(unsigned level)
{
    size_t size = level == 0 ? SIM_PAGE : sizeof(SimNode *) * FANOUT;
    SimNode *node = g_malloc0(offsetof(SimNode, child) + size);

    atomic_init(&node->refs, 1);
    return node;
}

static void node_unref(SimNode *node, unsigned level)
{
    if (!node || atomic_fetch_sub(&node->refs, 1) > 1) {
        return;
    }
    for (unsigned i = 0; level > 0 && i < FANOUT; i++) {
        node_unref(node->child[i], level - 1);
    }
    g_free(node);
}

/* *@slot as a node that may be changed. */
static SimNode *node_own(SimNode **slot, unsigned level)
{
    SimNode *old = *slot;

    if (!old) {
        *slot = node_new(level);
    } else if (atomic_load(&old->refs) > 1) {
        *slot = node_new(level);
        if (level == 0) {
            memcpy((*slot)->data, old->data, SIM_PAGE);
        }
        for (unsigned i = 0; level > 0 && i < FANOUT; i++) {
            (*slot)->child[i] = old->child[i];
            if (old->child[i]) {
                atomic_fetch_add(&old->child[i]->refs, 1);
            }
        }
        node_unref(old, level);
    }
    return *slot;
}

static unsigned index_at(int64_t page, unsigned level)
{
    return (page >> ((level - 1) * LEVEL_BITS)) & (FANOUT - 1);
}

/* The page, or NULL and in *@level the level of the node that is missing. */
static SimNode *find(const SimImage *image, int64_t page, unsigned *level)
{
    SimNode *node = image->root;

    for (*level = LEVELS; node && *level > 0; --*level) {
        node = node->child[index_at(page, *level)];
        if (!node) {
            --*level;
            return NULL;
        }
    }
    return node;
}

static uint8_t *own_page(SimImage *image, int64_t page)
{
    SimNode *node = node_own(&image->root, LEVELS);
    unsigned level;

    if (!find(image, page, &level)) {
        image->pages++;
    }
    for (level = LEVELS; level > 0; level--) {
        node = node_own(&node->child[index_at(page, level)], level - 1);
    }
    return node->data;
}

static void drop_page(SimImage *image, int64_t page)
{
    SimNode *node;
    unsigned level;

    if (!find(image, page, &level)) {
        return;
    }
    node = node_own(&image->root, LEVELS);
    for (level = LEVELS; level > 1; level--) {
        node = node_own(&node->child[index_at(page, level)], level - 1);
    }
    node_unref(node->child[index_at(page, 1)], 0);
    node->child[index_at(page, 1)] = NULL;
    image->pages--;
}

SimImage sim_image_copy(const SimImage *image)
{
    if (image->root) {
        atomic_fetch_add(&image->root->refs, 1);
    }
    return *image;
}

void sim_image_clear(SimImage *image)
{
    node_unref(image->root, LEVELS);
    *image = (SimImage){ 0 };
}

void sim_image_read(const SimImage *image, int64_t offset, void *buf, int64_t bytes)
{
    for (int64_t n; bytes > 0; offset += n, bytes -= n, buf = (uint8_t *)buf + n) {
        unsigned level;
        const SimNode *page = find(image, offset / SIM_PAGE, &level);

        n = MIN(bytes, SIM_PAGE - offset % SIM_PAGE);
        if (page) {
            memcpy(buf, page->data + offset % SIM_PAGE, n);
        } else {
            memset(buf, 0, n);
        }
    }
}

void sim_image_write(SimImage *image, int64_t offset, const void *buf, int64_t bytes)
{
    for (int64_t n; bytes > 0; offset += n, bytes -= n, buf = (const uint8_t *)buf + n) {
        n = MIN(bytes, SIM_PAGE - offset % SIM_PAGE);
        memcpy(own_page(image, offset / SIM_PAGE) + offset % SIM_PAGE, buf, n);
    }
}

int64_t sim_image_run(const SimImage *image, int64_t offset, int64_t bytes, bool *allocated)
{
    int64_t page = offset / SIM_PAGE, end = (offset + bytes + SIM_PAGE - 1) / SIM_PAGE;
    unsigned level;

    *allocated = find(image, page, &level) != NULL;
    while (page < end && (find(image, page, &level) != NULL) == *allocated) {
        /* Nothing under a missing node: go on behind it. */
        page = *allocated ? page + 1 : ((page >> (level * LEVEL_BITS)) + 1) << (level * LEVEL_BITS);
    }
    return MIN(page * SIM_PAGE - offset, bytes);
}

void sim_image_zero(SimImage *image, int64_t offset, int64_t bytes)
{
    while (bytes > 0) {
        bool allocated;
        int64_t n = sim_image_run(image, offset, bytes, &allocated);

        if (allocated) {
            n = MIN(bytes, SIM_PAGE - offset % SIM_PAGE);
            if (n == SIM_PAGE) {
                drop_page(image, offset / SIM_PAGE);
            } else {
                memset(own_page(image, offset / SIM_PAGE) + offset % SIM_PAGE, 0, n);
            }
        }
        offset += n;
        bytes -= n;
    }
}

int64_t sim_image_missing_pages(const SimImage *image, int64_t offset, int64_t bytes)
{
    int64_t missing = 0;

    for (int64_t page = offset / SIM_PAGE; page * SIM_PAGE < offset + bytes; page++) {
        unsigned level;

        missing += find(image, page, &level) == NULL;
    }
    return missing;
}
