/* SPDX-License-Identifier: MIT */

/* Saved states: the images share their pages with the disk's, the log is copied with its flags. */

#include "drivers/simdisk/disk_int.h"

struct BdrvSimSaved {
    SimImage current, stable;
    int64_t length, stable_length;
    GQueue log; /* SimEntry *, nobody else's */
    uint64_t last_number, random;
    GArray *bad;
};

static void copy_log(GQueue *to, const GQueue *from)
{
    g_queue_init(to);
    for (const GList *l = from->head; l; l = l->next) {
        g_queue_push_tail(to, sim_entry_copy(l->data));
    }
}

BdrvSimSaved *bdrv_simdisk_save(BdrvSimDisk *disk)
{
    BdrvSimSaved *saved = g_new0(BdrvSimSaved, 1);

    pthread_mutex_lock(&disk->lock);
    saved->current = sim_image_copy(&disk->current);
    saved->stable = sim_image_copy(&disk->stable);
    saved->length = disk->length;
    saved->stable_length = disk->stable_length;
    saved->last_number = disk->last_number;
    saved->random = disk->random;
    saved->bad = g_array_copy(disk->faults.bad);
    copy_log(&saved->log, &disk->log);
    pthread_mutex_unlock(&disk->lock);
    return saved;
}

void bdrv_simdisk_restore(BdrvSimDisk *disk, const BdrvSimSaved *saved)
{
    pthread_mutex_lock(&disk->lock);
    sim_image_clear(&disk->current);
    sim_image_clear(&disk->stable);
    g_queue_clear_full(&disk->log, (GDestroyNotify)sim_entry_unref);
    g_array_unref(disk->faults.bad);
    disk->current = sim_image_copy(&saved->current);
    disk->stable = sim_image_copy(&saved->stable);
    disk->length = saved->length;
    disk->stable_length = saved->stable_length;
    disk->last_number = saved->last_number;
    disk->random = saved->random;
    disk->faults.bad = g_array_copy(saved->bad);
    copy_log(&disk->log, &saved->log);
    pthread_mutex_unlock(&disk->lock);
}

void bdrv_simsaved_free(BdrvSimSaved *saved)
{
    if (saved) {
        sim_image_clear(&saved->current);
        sim_image_clear(&saved->stable);
        g_queue_clear_full(&saved->log, (GDestroyNotify)sim_entry_unref);
        g_array_unref(saved->bad);
        g_free(saved);
    }
}
