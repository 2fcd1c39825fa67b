/* SPDX-License-Identifier: MIT */
#include "tests/crash/states.h"

typedef struct Walk {
    const BdrvSimCut *cut;
    unsigned count;    /* log entries */
    unsigned open;     /* of them not durable */
    unsigned *at;      /* their indexes */
    BdrvSimChoice *choices;
    bool (*visit)(void *opaque, const BdrvSimChoice *choices);
    void *opaque;
    bool stopped;
} Walk;

static void set(Walk *walk, unsigned open_index, bool kept)
{
    walk->choices[walk->at[open_index]] = (BdrvSimChoice){ .fate = kept ? BDRV_SIM_KEPT : BDRV_SIM_LOST };
}

static void visit(Walk *walk)
{
    walk->stopped = walk->stopped || !walk->visit(walk->opaque, walk->choices);
}

static void every_subset(Walk *walk)
{
    for (uint32_t mask = 0; mask < UINT32_C(1) << walk->open && !walk->stopped; mask++) {
        for (unsigned i = 0; i < walk->open; i++) {
            set(walk, i, mask >> i & 1);
        }
        visit(walk);
    }
}

static void some_subsets(Walk *walk)
{
    for (unsigned n = 0; n <= walk->open && !walk->stopped; n++) { /* prefixes */
        for (unsigned i = 0; i < walk->open; i++) {
            set(walk, i, i < n);
        }
        visit(walk);
    }
    for (unsigned one = 0; one < walk->open * 2 && !walk->stopped; one++) { /* one lost, one survives */
        for (unsigned i = 0; i < walk->open; i++) {
            set(walk, i, (i == one / 2) == (one & 1));
        }
        visit(walk);
    }
}

/* Request @torn in part; what came before kept, what came after lost or kept. */
static void tear(Walk *walk, unsigned torn)
{
    BdrvSimRequest request = bdrv_simcut_nth(walk->cut, walk->at[torn]);
    unsigned sectors = (unsigned)(request.bytes / BDRV_SIM_SECTOR);
    if (sectors < 2 || request.kind == BDRV_SIM_TRUNCATE) {
        return;
    }
    const BdrvSimChoice fates[] = {
        { BDRV_SIM_TORN_INSIDE, 0, 1 },
        { BDRV_SIM_TORN_INSIDE, 0, sectors / 2 },
        { BDRV_SIM_TORN_OUTSIDE, 0, 1 },
    };
    for (unsigned f = 0; f < G_N_ELEMENTS(fates) * 2 && !walk->stopped; f++) {
        for (unsigned i = 0; i < walk->open; i++) {
            set(walk, i, i < torn || (f & 1));
        }
        walk->choices[walk->at[torn]] = fates[f / 2];
        visit(walk);
    }
}

void states_each(const BdrvSimCut *cut, unsigned all_up_to, bool (*visit_state)(void *, const BdrvSimChoice *),
                 void *opaque)
{
    Walk walk = { .cut = cut, .count = bdrv_simcut_count(cut), .visit = visit_state, .opaque = opaque };
    walk.at = g_new(unsigned, walk.count + 1);
    walk.choices = g_new0(BdrvSimChoice, walk.count + 1);
    for (unsigned i = 0; i < walk.count; i++) {
        walk.choices[i].fate = BDRV_SIM_KEPT;
        if (!bdrv_simcut_nth(cut, i).durable) {
            walk.at[walk.open++] = i;
        }
    }
    if (walk.open <= MIN(all_up_to, 20)) {
        every_subset(&walk);
    } else {
        some_subsets(&walk);
    }
    for (unsigned i = 0; i < walk.open && !walk.stopped; i++) {
        tear(&walk, i);
    }
    g_free(walk.at);
    g_free(walk.choices);
}
