/* SPDX-License-Identifier: MIT */
/* Tables that are in memory whole: L1 and refcount table. */

#include <string.h>

#include "block/util/bytes.h"
#include "drivers/qcow2/meta/meta_int.h"

static uint64_t sectors_of(uint64_t count)
{
    return (count + QCOW2_SECTOR_ENTRIES - 1) / QCOW2_SECTOR_ENTRIES;
}

bool qcow2_table_init(Qcow2Table *table, uint64_t count, uint64_t host_offset)
{
    uint64_t sectors = sectors_of(count);
    *table = (Qcow2Table){ .count = count, .host_offset = host_offset };
    table->entries = g_try_malloc0_n(MAX(sectors, 1) * QCOW2_SECTOR_ENTRIES, sizeof(uint64_t));
    table->dirty = g_try_malloc0(MAX(sectors, 1));
    if (!table->entries || !table->dirty) {
        qcow2_table_destroy(table);
        return false;
    }
    qcow2_table_clean(table);
    return true;
}

void qcow2_table_destroy(Qcow2Table *table)
{
    g_free(table->entries);
    g_free(table->dirty);
    *table = (Qcow2Table){ 0 };
}

void qcow2_table_swap(Qcow2Table *a, Qcow2Table *b)
{
    Qcow2Table old = *a;
    *a = *b;
    *b = old;
}

void qcow2_table_dirty_sector(Qcow2Table *table, uint64_t sector)
{
    if (!table->dirty[sector]) {
        table->dirty[sector] = 1;
        table->dirty_count++;
        table->dirty_first = MIN(table->dirty_first, sector);
        table->dirty_end = MAX(table->dirty_end, sector + 1);
    }
}

void qcow2_table_set(Qcow2Table *table, uint64_t index, uint64_t value)
{
    atomic_store_explicit(&table->entries[index], value, memory_order_release);
    qcow2_table_dirty_sector(table, index / QCOW2_SECTOR_ENTRIES);
}

void qcow2_table_copy_sector(const Qcow2Table *table, uint64_t sector, uint8_t *out)
{
    for (unsigned i = 0; i < QCOW2_SECTOR_ENTRIES; i++) {
        store_be64(out + i * 8, qcow2_table_get(table, sector * QCOW2_SECTOR_ENTRIES + i));
    }
}

void qcow2_table_clean(Qcow2Table *table)
{
    for (uint64_t sector = table->dirty_first; sector < table->dirty_end; sector++) {
        table->dirty[sector] = 0;
    }
    table->dirty_count = 0;
    table->dirty_first = UINT64_MAX;
    table->dirty_end = 0;
}
