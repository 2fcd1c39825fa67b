/* SPDX-License-Identifier: MIT */
#include "drivers/qcow2/meta/cluster_set.h"

#include <glib.h>
#include <stdatomic.h>

#define FIRST_SIZE 64u

typedef struct Word {
    _Atomic uint64_t key; /* cluster / 64 + 1; 0: free */
    _Atomic uint64_t bits;
} Word;

struct Qcow2ClusterTable {
    Qcow2ClusterTable *replaced; /* the smaller one before it */
    uint64_t mask;
    uint64_t used; /* owner's lock */
    Word words[];
};

static Qcow2ClusterTable *table_new(uint64_t size)
{
    Qcow2ClusterTable *table = g_try_malloc0(sizeof(*table) + size * sizeof(Word));
    if (table) {
        table->mask = size - 1;
    }
    return table;
}

static uint64_t hash(uint64_t key)
{
    key *= UINT64_C(0x9e3779b97f4a7c15);
    return key ^ key >> 29;
}

/* The word of @key, or the free one where it belongs. A table is never full. */
static Word *find(Qcow2ClusterTable *table, uint64_t key)
{
    for (uint64_t i = hash(key);; i++) {
        Word *word = &table->words[i & table->mask];
        uint64_t there = atomic_load_explicit(&word->key, memory_order_acquire);
        if (there == key || there == 0) {
            return word;
        }
    }
}

bool qcow2_cluster_set_init(Qcow2ClusterSet *set)
{
    Qcow2ClusterTable *table = table_new(FIRST_SIZE);
    atomic_init(&set->table, table);
    set->fill_bytes = 0;
    return table != NULL;
}

void qcow2_cluster_set_fill(Qcow2ClusterSet *set, uint64_t max_bytes)
{
    set->fill_bytes = max_bytes;
}

void qcow2_cluster_set_destroy(Qcow2ClusterSet *set)
{
    Qcow2ClusterTable *table = atomic_load(&set->table);
    while (table) {
        Qcow2ClusterTable *replaced = table->replaced;
        g_free(table);
        table = replaced;
    }
    atomic_store(&set->table, NULL);
}

static bool grow(Qcow2ClusterSet *set, uint64_t need)
{
    Qcow2ClusterTable *old = atomic_load_explicit(&set->table, memory_order_relaxed);
    uint64_t size = old->mask + 1;
    if ((old->used + need) * 2 <= size) {
        return true;
    }
    while ((old->used + need) * 2 > size) {
        size *= 2;
    }
    Qcow2ClusterTable *table = !set->fill_bytes || size * sizeof(Word) <= set->fill_bytes ? table_new(size) : NULL;
    if (!table) {
        return false;
    }
    for (uint64_t i = 0; i <= old->mask; i++) {
        uint64_t key = atomic_load_explicit(&old->words[i].key, memory_order_relaxed);
        uint64_t bits = atomic_load_explicit(&old->words[i].bits, memory_order_relaxed);
        if (key && bits) {
            Word *word = find(table, key);
            atomic_store_explicit(&word->bits, bits, memory_order_relaxed);
            atomic_store_explicit(&word->key, key, memory_order_relaxed);
            table->used++;
        }
    }
    if (set->fill_bytes && !old->replaced) {
        g_free(old);
    } else {
        table->replaced = old;
    }
    atomic_store_explicit(&set->table, table, memory_order_release);
    return true;
}

/* Bits of [first, end) that fall in the word of @key. */
static uint64_t word_mask(uint64_t key, uint64_t first, uint64_t end)
{
    uint64_t base = (key - 1) * 64;
    uint64_t low = first > base ? first - base : 0;
    uint64_t high = MIN(end - base, 64);
    uint64_t upto = high == 64 ? UINT64_MAX : (UINT64_C(1) << high) - 1;
    return upto & ~((UINT64_C(1) << low) - 1);
}

bool qcow2_cluster_set_add(Qcow2ClusterSet *set, uint64_t first, uint64_t count)
{
    if (count == 0) {
        return true;
    }
    uint64_t end = first + count, last_key = (end - 1) / 64 + 1;
    if (!grow(set, last_key - first / 64)) {
        return false;
    }
    Qcow2ClusterTable *table = atomic_load_explicit(&set->table, memory_order_relaxed);
    for (uint64_t key = first / 64 + 1; key <= last_key; key++) {
        Word *word = find(table, key);
        if (atomic_load_explicit(&word->key, memory_order_relaxed) == 0) {
            atomic_store_explicit(&word->key, key, memory_order_release);
            table->used++;
        }
        atomic_fetch_or_explicit(&word->bits, word_mask(key, first, end), memory_order_release);
    }
    return true;
}

void qcow2_cluster_set_remove(Qcow2ClusterSet *set, uint64_t first, uint64_t count)
{
    if (count == 0) {
        return;
    }
    Qcow2ClusterTable *table = atomic_load_explicit(&set->table, memory_order_relaxed);
    uint64_t end = first + count;
    for (uint64_t key = first / 64 + 1; key <= (end - 1) / 64 + 1; key++) {
        Word *word = find(table, key);
        atomic_fetch_and_explicit(&word->bits, ~word_mask(key, first, end), memory_order_release);
    }
}

bool qcow2_cluster_set_has_any(Qcow2ClusterSet *set, uint64_t first, uint64_t count)
{
    Qcow2ClusterTable *table = atomic_load_explicit(&set->table, memory_order_acquire);
    uint64_t end = first + count;
    for (uint64_t key = first / 64 + 1; key <= (end - 1) / 64 + 1; key++) {
        Word *word = find(table, key);
        /* A free word may be taken for another key at any moment: then its bits are not meant. */
        if (atomic_load_explicit(&word->key, memory_order_acquire) == key &&
            atomic_load_explicit(&word->bits, memory_order_acquire) & word_mask(key, first, end)) {
            return true;
        }
    }
    return false;
}
