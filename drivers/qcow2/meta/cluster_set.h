/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_META_CLUSTER_SET_H
#define BDRV_QCOW2_META_CLUSTER_SET_H

/*
 * A set of host clusters: a sparse bitmap, 64 clusters a word, in a hash table. Looking up takes no
 * lock; changing it needs the owner's. Words are never removed, so a reader on a table that has just
 * been replaced sees at worst a state from a moment ago; replaced tables are freed with the set.
 */

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct Qcow2ClusterTable Qcow2ClusterTable;

typedef struct Qcow2ClusterSet {
    _Atomic(Qcow2ClusterTable *) table;
    uint64_t fill_bytes; /* 0: in use */
} Qcow2ClusterSet;

bool qcow2_cluster_set_init(Qcow2ClusterSet *set); /* false: no memory */
void qcow2_cluster_set_destroy(Qcow2ClusterSet *set);

/**
 * qcow2_cluster_set_fill() - while nobody but its owner uses the set
 * @max_bytes: adding fails where the set would take more; 0: filled, from now on there may be readers
 */
void qcow2_cluster_set_fill(Qcow2ClusterSet *set, uint64_t max_bytes);

/** qcow2_cluster_set_add() - false if there is no memory; nothing has changed then */
bool qcow2_cluster_set_add(Qcow2ClusterSet *set, uint64_t first, uint64_t count);
void qcow2_cluster_set_remove(Qcow2ClusterSet *set, uint64_t first, uint64_t count);

/** qcow2_cluster_set_has_any() - whether one of [first, +count) is in the set; no lock */
bool qcow2_cluster_set_has_any(Qcow2ClusterSet *set, uint64_t first, uint64_t count);

#endif
