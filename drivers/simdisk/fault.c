/* SPDX-License-Identifier: MIT */
#include "drivers/simdisk/fault.h"

typedef struct SimRule {
    unsigned kinds, skip; /* @skip more calls pass */
    int count, error;     /* then @count fail, -1: all */
    int64_t bytes;        /* that a failing call does first */
} SimRule;

typedef struct SimBad {
    int64_t from, to; /* bytes, multiples of the sector */
    int error;
} SimBad;

void sim_faults_init(SimFaults *faults)
{
    faults->rules = g_array_new(FALSE, FALSE, sizeof(SimRule));
    faults->bad = g_array_new(FALSE, FALSE, sizeof(SimBad));
}

void sim_faults_destroy(SimFaults *faults)
{
    g_array_unref(faults->rules);
    g_array_unref(faults->bad);
}

void sim_faults_add_rule(SimFaults *faults, unsigned kinds, unsigned nth, int count, int error, int64_t bytes)
{
    SimRule rule = { kinds, nth > 0 ? nth - 1 : 0, count, error, MAX(bytes, 0) };

    g_array_append_val(faults->rules, rule);
}

int sim_faults_judge(SimFaults *faults, BdrvSimKind kind, int64_t bytes, int64_t *part)
{
    const unsigned no_parts = BDRV_SIM_FLUSH | BDRV_SIM_TRUNCATE;
    int error = 0;

    *part = 0;
    for (unsigned i = 0; i < faults->rules->len; i++) {
        SimRule *rule = &g_array_index(faults->rules, SimRule, i);

        if (!(rule->kinds & kind)) {
            continue;
        }
        if (rule->skip > 0) {
            rule->skip--;
        } else if (rule->count != 0) {
            rule->count -= rule->count > 0;
            if (!error) {
                error = rule->error;
                *part = kind & no_parts ? 0 : MIN(rule->bytes, bytes);
            }
        }
    }
    return -error;
}

void sim_faults_add_bad(SimFaults *faults, int64_t offset, int64_t bytes, int error)
{
    SimBad bad = { offset / BDRV_SIM_SECTOR * BDRV_SIM_SECTOR,
                   (offset + bytes + BDRV_SIM_SECTOR - 1) / BDRV_SIM_SECTOR * BDRV_SIM_SECTOR, error };

    sim_faults_rewritten(faults, bad.from, bad.to - bad.from); /* the newest error of a sector counts */
    if (bad.from < bad.to) {
        g_array_append_val(faults->bad, bad);
    }
}

int sim_faults_find_bad(const SimFaults *faults, int64_t offset, int64_t bytes, int64_t *part)
{
    int error = 0;

    *part = bytes;
    for (unsigned i = 0; i < faults->bad->len; i++) {
        const SimBad *bad = &g_array_index(faults->bad, SimBad, i);
        int64_t before = MAX(bad->from - offset, 0);

        if (bad->to > offset && before < *part) {
            *part = before;
            error = bad->error;
        }
    }
    return -error;
}

void sim_faults_rewritten(SimFaults *faults, int64_t offset, int64_t bytes)
{
    int64_t from = (offset + BDRV_SIM_SECTOR - 1) / BDRV_SIM_SECTOR * BDRV_SIM_SECTOR;
    int64_t to = (offset + bytes) / BDRV_SIM_SECTOR * BDRV_SIM_SECTOR;

    for (unsigned i = faults->bad->len; i-- > 0;) {
        SimBad bad = g_array_index(faults->bad, SimBad, i);
        SimBad head = { bad.from, MIN(bad.to, from), bad.error };
        SimBad tail = { MAX(bad.from, to), bad.to, bad.error };

        if (from >= to || head.to == bad.to || tail.from == bad.from) {
            continue; /* apart */
        }
        g_array_remove_index_fast(faults->bad, i);
        if (head.from < head.to) {
            g_array_append_val(faults->bad, head);
        }
        if (tail.from < tail.to) {
            g_array_append_val(faults->bad, tail);
        }
    }
}
