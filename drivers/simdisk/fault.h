/* SPDX-License-Identifier: MIT */
#ifndef BDRV_SIMDISK_FAULT_H
#define BDRV_SIMDISK_FAULT_H

/* What fails: rules that count calls, and sectors that cannot be read. Under the disk's lock. */

#include <bdrv/simdisk.h>

typedef struct SimFaults {
    GArray *rules; /* SimRule */
    GArray *bad;   /* SimBad, none overlap */
} SimFaults;

void sim_faults_init(SimFaults *faults);
void sim_faults_destroy(SimFaults *faults);

void sim_faults_add_rule(SimFaults *faults, unsigned kinds, unsigned nth, int count, int error, int64_t bytes);
/** sim_faults_judge() - count a call of @kind: 0, or -errno and in *@part the bytes that it does before */
int sim_faults_judge(SimFaults *faults, BdrvSimKind kind, int64_t bytes, int64_t *part);

void sim_faults_add_bad(SimFaults *faults, int64_t offset, int64_t bytes, int error);
/** sim_faults_find_bad() - 0, or -errno and in *@part the bytes before the first bad sector */
int sim_faults_find_bad(const SimFaults *faults, int64_t offset, int64_t bytes, int64_t *part);
/** sim_faults_rewritten() - sectors that the range covers whole are good again */
void sim_faults_rewritten(SimFaults *faults, int64_t offset, int64_t bytes);

#endif
