/* SPDX-License-Identifier: MIT */
#include "tests/crash/states.h"

#include "tests/lib/test-node.h"

#define RANDOM_SUBSETS 32

/* How the size that a request past the end brings goes with its bytes. */
typedef enum Sizes {
    SIZES_WITH_DATA,
    SIZES_ALL_KEPT,
    SIZES_ALL_LOST,
    SIZES_COUNT,
} Sizes;

typedef struct Walk {
    const BdrvSimCut *first, *second; /* second: NULL, or its entries follow those of the first */
    unsigned open;  /* entries that are not durable */
    unsigned *at;   /* their indexes */
    bool *extends;  /* past the durable end */
    bool any_extends;
    BdrvSimChoice *choices;
    bool (*visit)(void *opaque, const BdrvSimChoice *choices);
    void *opaque;
    bool stopped;
} Walk;

static BdrvSimRequest nth(const Walk *walk, unsigned n)
{
    unsigned of_first = bdrv_simcut_count(walk->first);
    return n < of_first ? bdrv_simcut_nth(walk->first, n) : bdrv_simcut_nth(walk->second, n - of_first);
}

static void set(Walk *walk, unsigned open_index, bool kept)
{
    walk->choices[walk->at[open_index]] = (BdrvSimChoice){ .fate = kept ? BDRV_SIM_KEPT : BDRV_SIM_LOST };
}

static void visit(Walk *walk)
{
    walk->stopped = walk->stopped || !walk->visit(walk->opaque, walk->choices);
}

static void use_sizes(Walk *walk, Sizes sizes)
{
    for (unsigned i = 0; i < walk->open; i++) {
        BdrvSimChoice *choice = &walk->choices[walk->at[i]];
        if (walk->extends[i] && sizes == SIZES_ALL_KEPT && choice->fate == BDRV_SIM_LOST) {
            choice->fate = BDRV_SIM_SIZE_ONLY;
        } else if (walk->extends[i] && sizes == SIZES_ALL_LOST && choice->fate == BDRV_SIM_KEPT) {
            choice->fate = BDRV_SIM_DATA_ONLY;
        }
    }
}

static void subset(Walk *walk, bool (*kept)(const Walk *walk, unsigned i, uint64_t which), uint64_t which)
{
    for (unsigned sizes = 0; sizes < (walk->any_extends ? SIZES_COUNT : 1); sizes++) {
        for (unsigned i = 0; i < walk->open; i++) {
            set(walk, i, kept(walk, i, which));
        }
        use_sizes(walk, (Sizes)sizes);
        visit(walk);
    }
}

static bool in_mask(const Walk *walk, unsigned i, uint64_t mask)
{
    return mask >> i & 1;
}

static bool in_prefix(const Walk *walk, unsigned i, uint64_t n)
{
    return i < n;
}

static bool all_but_one(const Walk *walk, unsigned i, uint64_t one)
{
    return i != one;
}

static bool only_one(const Walk *walk, unsigned i, uint64_t one)
{
    return i == one;
}

static bool by_seed(const Walk *walk, unsigned i, uint64_t seed)
{
    uint64_t state = seed << 32 | i;
    return test_random(&state) & 1;
}

static void some_subsets(Walk *walk)
{
    for (unsigned n = 0; n <= walk->open && !walk->stopped; n++) {
        subset(walk, in_prefix, n);
    }
    for (unsigned one = 0; one < walk->open && !walk->stopped; one++) {
        subset(walk, all_but_one, one);
        subset(walk, only_one, one);
    }
    for (unsigned seed = 0; seed < RANDOM_SUBSETS && !walk->stopped; seed++) {
        subset(walk, by_seed, seed);
    }
}

/* Request @torn in part: after the first sector, in the middle, before the last. Of the others all, none, or those before
 * it are kept. */
static void tear(Walk *walk, unsigned torn)
{
    BdrvSimRequest request = nth(walk, walk->at[torn]);
    unsigned sectors = (unsigned)((request.bytes + BDRV_SIM_SECTOR - 1) / BDRV_SIM_SECTOR);
    if (sectors < 2 || request.kind == BDRV_SIM_TRUNCATE) {
        return;
    }
    const BdrvSimChoice fates[] = {
        { BDRV_SIM_TORN_INSIDE, 0, 1 },
        { BDRV_SIM_TORN_INSIDE, 0, sectors / 2 },
        { BDRV_SIM_TORN_INSIDE, 0, sectors - 1 },
        { BDRV_SIM_TORN_OUTSIDE, 0, 1 },
    };
    for (unsigned f = 0; f < G_N_ELEMENTS(fates) * 3 && !walk->stopped; f++) {
        for (unsigned i = 0; i < walk->open; i++) {
            set(walk, i, f % 3 == 0 ? i < torn : f % 3 == 1);
        }
        walk->choices[walk->at[torn]] = fates[f / 3];
        visit(walk);
    }
}

static void prepare(Walk *walk)
{
    unsigned of_first = bdrv_simcut_count(walk->first);
    unsigned count = of_first + (walk->second ? bdrv_simcut_count(walk->second) : 0);
    walk->at = g_new(unsigned, count + 1);
    walk->extends = g_new0(bool, count + 1);
    walk->choices = g_new0(BdrvSimChoice, count + 1);
    for (unsigned i = 0; i < count; i++) {
        BdrvSimRequest request = nth(walk, i);
        int64_t end = bdrv_simcut_length(i < of_first ? walk->first : walk->second);
        walk->choices[i].fate = BDRV_SIM_KEPT;
        if (request.durable) {
            continue;
        }
        walk->extends[walk->open] = request.kind != BDRV_SIM_TRUNCATE && request.kind != BDRV_SIM_DISCARD &&
                                    request.offset + request.bytes > end;
        walk->any_extends |= walk->extends[walk->open];
        walk->at[walk->open++] = i;
    }
}

void states_each(const BdrvSimCut *cut, unsigned all_up_to, bool (*visit_state)(void *, const BdrvSimChoice *),
                 void *opaque)
{
    states_each_pair(cut, NULL, all_up_to, visit_state, opaque);
}

void states_each_pair(const BdrvSimCut *first, const BdrvSimCut *second, unsigned all_up_to,
                      bool (*visit_state)(void *, const BdrvSimChoice *), void *opaque)
{
    Walk walk = { .first = first, .second = second, .visit = visit_state, .opaque = opaque };
    prepare(&walk);
    if (walk.open <= MIN(all_up_to, 20)) {
        for (uint64_t mask = 0; mask < UINT64_C(1) << walk.open && !walk.stopped; mask++) {
            subset(&walk, in_mask, mask);
        }
    } else {
        some_subsets(&walk);
    }
    for (unsigned i = 0; i < walk.open && !walk.stopped; i++) {
        tear(&walk, i);
    }
    g_free(walk.at);
    g_free(walk.extends);
    g_free(walk.choices);
}
