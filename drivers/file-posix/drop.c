/* SPDX-License-Identifier: MIT */
/*
 * cache.drop-behind=auto: which way through the page cache is the faster at present.
 *
 * Dropping pages costs what the disk takes once its queue is full, and uses the same few pages again and again.
 * Keeping them costs what fresh pages do: little where memory was in use just before, several times as much as
 * the disk takes where a virtual machine has to be given them first. So both are tried for a window each, and the
 * faster is taken for as long as it is. What was learnt of dropping is tested again, each time after twice as
 * many windows: it may have been the disk's bad moment.
 */

#include "drivers/file-posix/drop.h"

#include <stdbool.h>

#define WINDOW (INT64_C(32) << 20)
#define WORTH_KEEPING 1.1 /* memory is worth something too: dropping must cost so many times as much */
#define FIRST_PATIENCE 16 /* windows */

void file_drop_set_mode(FileDrop *drop, BdrvOpenFlags flags)
{
    drop->mode = flags & BDRV_O_DROP_BEHIND ? FILE_DROP_ON : flags & BDRV_O_DROP_AUTO ? FILE_DROP_AUTO : FILE_DROP_OFF;
}

void file_drop_init(FileDrop *drop, BdrvOpenFlags flags)
{
    *drop = (FileDrop){ .way = FILE_DROP_PAGES, .patience = FIRST_PATIENCE };
    pthread_mutex_init(&drop->lock, NULL);
    file_drop_set_mode(drop, flags);
}

void file_drop_destroy(FileDrop *drop)
{
    pthread_mutex_destroy(&drop->lock);
}

static void change_way_locked(FileDrop *drop, FileDropWay way)
{
    atomic_store_explicit(&drop->way, way, memory_order_relaxed);
    drop->kept_windows = 0;
}

/* A window of dropping has ended. */
static void judge_dropping_locked(FileDrop *drop)
{
    if (drop->cost[FILE_KEEP_PAGES] == 0 ||
        drop->cost[FILE_DROP_PAGES] > drop->cost[FILE_KEEP_PAGES] * WORTH_KEEPING) {
        change_way_locked(drop, FILE_KEEP_PAGES);
    }
}

/* A window of keeping has ended. */
static void judge_keeping_locked(FileDrop *drop)
{
    if (drop->cost[FILE_KEEP_PAGES] > drop->cost[FILE_DROP_PAGES]) {
        change_way_locked(drop, FILE_DROP_PAGES);
    } else if (++drop->kept_windows >= drop->patience) {
        drop->patience *= 2;
        drop->cost[FILE_DROP_PAGES] = 0;
        change_way_locked(drop, FILE_DROP_PAGES);
    }
}

/* Keeping has lost as soon as it has taken what a whole window of dropping does. */
static bool window_ends_locked(const FileDrop *drop, FileDropWay way)
{
    return drop->bytes >= WINDOW ||
           (way == FILE_KEEP_PAGES && (double)drop->ns > drop->cost[FILE_DROP_PAGES] * (double)WINDOW);
}

void file_drop_note(FileDrop *drop, FileDropWay way, int64_t bytes, int64_t ns)
{
    pthread_mutex_lock(&drop->lock);
    if (way == file_drop_way(drop)) { /* else a straggler of the window before */
        drop->bytes += bytes;
        drop->ns += ns;
        if (window_ends_locked(drop, way)) {
            double cost = (double)drop->ns / (double)drop->bytes;
            drop->cost[way] = drop->cost[way] > 0 ? (drop->cost[way] + cost) / 2 : cost;
            drop->bytes = drop->ns = 0;
            way == FILE_DROP_PAGES ? judge_dropping_locked(drop) : judge_keeping_locked(drop);
        }
    }
    pthread_mutex_unlock(&drop->lock);
}
