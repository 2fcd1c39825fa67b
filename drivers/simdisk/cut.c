/* SPDX-License-Identifier: MIT */

/* Cuts: what a power loss can leave, and images made from them. */

#include <stdatomic.h>
#include <string.h>

#include "drivers/simdisk/log.h"

struct BdrvSimCut {
    _Atomic unsigned refs;
    SimImage image; /* durable */
    int64_t length;
    GPtrArray *entries; /* SimEntry *, oldest first */
    GArray *requests;   /* BdrvSimRequest, with the flags as they were */
};

SimEntry *sim_entry_new(const BdrvSimRequest *request, const BdrvIov *iov, size_t iov_offset)
{
    size_t bytes = iov ? request->bytes : 0;
    SimEntry *entry = g_malloc(sizeof(*entry) + bytes);

    atomic_init(&entry->refs, 1);
    entry->request = *request;
    if (iov) {
        bdrv_iov_to_buf(iov, iov_offset, entry->data, bytes);
    }
    return entry;
}

SimEntry *sim_entry_ref(SimEntry *entry)
{
    atomic_fetch_add(&entry->refs, 1);
    return entry;
}

void sim_entry_unref(SimEntry *entry)
{
    if (atomic_fetch_sub(&entry->refs, 1) == 1) {
        g_free(entry);
    }
}

SimEntry *sim_entry_copy(const SimEntry *entry)
{
    size_t bytes = entry->request.kind == BDRV_SIM_WRITE ? entry->request.bytes : 0;
    SimEntry *copy = g_malloc(sizeof(*copy) + bytes);

    atomic_init(&copy->refs, 1);
    copy->request = entry->request;
    memcpy(copy->data, entry->data, bytes);
    return copy;
}

/* The bytes [from, to) of the entry take effect; *@end: where the disk must reach then. */
static void apply_part(const SimEntry *entry, int64_t from, int64_t to, SimImage *image, int64_t *end)
{
    int64_t offset = entry->request.offset + from;

    if (from >= to) {
        return;
    }
    if (entry->request.kind == BDRV_SIM_WRITE) {
        sim_image_write(image, offset, entry->data + from, to - from);
    } else {
        sim_image_zero(image, offset, to - from);
    }
    *end = MAX(*end, entry->request.offset + to);
}

/* Bytes past the end go with it, also those that came without their size. */
static void apply_truncate(int64_t new_length, SimImage *image, int64_t *length)
{
    sim_image_zero(image, new_length, SIM_LENGTH_MAX - new_length);
    *length = new_length;
}

BdrvSimChoice sim_effective_choice(const BdrvSimRequest *request, BdrvSimChoice choice)
{
    if (request->durable) {
        choice.fate = BDRV_SIM_KEPT;
    } else if (request->dropped && choice.fate != BDRV_SIM_LOST) {
        choice.fate = choice.fate == BDRV_SIM_DATA_ONLY ? BDRV_SIM_LOST : BDRV_SIM_SIZE_ONLY;
    }
    return choice;
}

void sim_entry_apply(const SimEntry *entry, const BdrvSimChoice *choice, SimImage *image, int64_t *length)
{
    int64_t bytes = entry->request.bytes, end = *length, from, to;

    if (choice->fate == BDRV_SIM_LOST) {
        return;
    }
    if (entry->request.kind == BDRV_SIM_TRUNCATE) {
        if (choice->fate != BDRV_SIM_DATA_ONLY) {
            apply_truncate(entry->request.offset, image, length);
        }
        return;
    }
    from = MIN((int64_t)choice->tear_from * BDRV_SIM_SECTOR, bytes);
    to = CLAMP((int64_t)choice->tear_to * BDRV_SIM_SECTOR, from, bytes);
    switch (choice->fate) {
    case BDRV_SIM_LOST:
        break;
    case BDRV_SIM_KEPT:
        apply_part(entry, 0, bytes, image, &end);
        break;
    case BDRV_SIM_TORN_INSIDE:
        apply_part(entry, from, to, image, &end);
        break;
    case BDRV_SIM_TORN_OUTSIDE:
        apply_part(entry, 0, from, image, &end);
        apply_part(entry, to, bytes, image, &end);
        break;
    case BDRV_SIM_DATA_ONLY:
        apply_part(entry, 0, bytes, image, &end);
        end = *length;
        break;
    case BDRV_SIM_SIZE_ONLY:
        end = MAX(end, entry->request.offset + bytes);
        break;
    }
    if (entry->request.kind != BDRV_SIM_DISCARD) { /* a hole makes no file longer */
        *length = end;
    }
}

BdrvSimCut *bdrv_simdisk_cut(BdrvSimDisk *disk)
{
    BdrvSimCut *cut = g_new0(BdrvSimCut, 1);

    atomic_init(&cut->refs, 1);
    cut->entries = g_ptr_array_new_with_free_func((GDestroyNotify)sim_entry_unref);
    cut->requests = g_array_new(FALSE, FALSE, sizeof(BdrvSimRequest));
    sim_disk_snapshot(disk, &cut->image, &cut->length, cut->entries, cut->requests);
    return cut;
}

BdrvSimCut *bdrv_simcut_ref(BdrvSimCut *cut)
{
    atomic_fetch_add(&cut->refs, 1);
    return cut;
}

void bdrv_simcut_unref(BdrvSimCut *cut)
{
    if (cut && atomic_fetch_sub(&cut->refs, 1) == 1) {
        sim_image_clear(&cut->image);
        g_ptr_array_unref(cut->entries);
        g_array_unref(cut->requests);
        g_free(cut);
    }
}

unsigned bdrv_simcut_count(const BdrvSimCut *cut)
{
    return cut->requests->len;
}

BdrvSimRequest bdrv_simcut_nth(const BdrvSimCut *cut, unsigned n)
{
    return g_array_index(cut->requests, BdrvSimRequest, n);
}

int64_t bdrv_simcut_length(const BdrvSimCut *cut)
{
    return cut->length;
}

const SimImage *sim_cut_image(const BdrvSimCut *cut)
{
    return &cut->image;
}

const SimEntry *sim_cut_entry(const BdrvSimCut *cut, unsigned n)
{
    return g_ptr_array_index(cut->entries, n);
}

BdrvSimDisk *bdrv_simcut_disk(const BdrvSimCut *cut, const BdrvSimChoice *choices, const char *name)
{
    static const BdrvSimChoice lost = { .fate = BDRV_SIM_LOST };
    SimImage image = sim_image_copy(&cut->image);
    int64_t length = cut->length;
    bool loose = false; /* bytes without their size */

    for (unsigned i = 0; i < cut->entries->len; i++) {
        BdrvSimChoice choice = sim_effective_choice(&g_array_index(cut->requests, BdrvSimRequest, i),
                                                    choices ? choices[i] : lost);

        sim_entry_apply(g_ptr_array_index(cut->entries, i), &choice, &image, &length);
        loose = loose || choice.fate == BDRV_SIM_DATA_ONLY;
    }
    if (loose) {
        apply_truncate(length, &image, &length);
    }
    return sim_disk_from_image(name, image, length);
}

/* Of one that goes past the durable end. */
static BdrvSimFate random_size_fate(uint64_t *state, BdrvSimFate fate)
{
    static const BdrvSimFate alone[] = { BDRV_SIM_DATA_ONLY, BDRV_SIM_SIZE_ONLY };

    return sim_random(state) % 3 ? fate : alone[sim_random(state) % 2];
}

void bdrv_simcut_random(const BdrvSimCut *cut, uint64_t seed, BdrvSimChoice *choices)
{
    unsigned count = bdrv_simcut_count(cut), torn;
    uint64_t state = seed;
    int64_t sectors;

    for (unsigned i = 0; i < count; i++) {
        BdrvSimRequest request = bdrv_simcut_nth(cut, i);

        choices[i] = (BdrvSimChoice){ .fate = sim_random(&state) % 2 ? BDRV_SIM_KEPT : BDRV_SIM_LOST };
        if (request.kind != BDRV_SIM_TRUNCATE && request.offset + request.bytes > cut->length) {
            choices[i].fate = random_size_fate(&state, choices[i].fate);
        }
    }
    if (count == 0 || sim_random(&state) % 2) {
        return;
    }
    torn = sim_random(&state) % count;
    sectors = bdrv_simcut_nth(cut, torn).bytes / BDRV_SIM_SECTOR;
    if (sectors > 1) {
        unsigned a = sim_random(&state) % sectors, b = sim_random(&state) % (sectors + 1);

        choices[torn] = (BdrvSimChoice){
            .fate = sim_random(&state) % 2 ? BDRV_SIM_TORN_INSIDE : BDRV_SIM_TORN_OUTSIDE,
            .tear_from = sim_random(&state) % 3 ? MIN(a, b) : 0,
            .tear_to = MAX(a, b),
        };
    }
}
