/* SPDX-License-Identifier: MIT */
#ifndef BDRV_FILE_POSIX_DROP_H
#define BDRV_FILE_POSIX_DROP_H

/* Whether what passes through the page cache stays there: the option "cache.drop-behind". */

#include <bdrv/types.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

typedef enum FileDropMode {
    FILE_DROP_OFF,
    FILE_DROP_ON,
    FILE_DROP_AUTO, /* while writing is the faster for it */
} FileDropMode;

/* How writes are made, and what they cost. */
typedef enum FileDropWay {
    FILE_KEEP_PAGES,
    FILE_DROP_PAGES,
} FileDropWay;

typedef struct FileDrop {
    FileDropMode mode; /* changes only while the node is drained */

    /* FILE_DROP_AUTO: */
    _Atomic FileDropWay way; /* of writes that begin now */
    pthread_mutex_t lock;    /* protects the rest; never held over a call */
    int64_t bytes, ns;       /* written in this window, and the sum of what each write took */
    double cost[2];          /* of each way: ns a byte, in its last windows; 0: not known */
    unsigned kept_windows;   /* in a row */
    unsigned patience;       /* so many, and the other way is tried once more */
} FileDrop;

/** file_drop_init() / file_drop_destroy() - @flags: of opening */
void file_drop_init(FileDrop *drop, BdrvOpenFlags flags);
void file_drop_destroy(FileDrop *drop);

/** file_drop_set_mode() - as @flags of a reopen say; drained */
void file_drop_set_mode(FileDrop *drop, BdrvOpenFlags flags);

/** file_drop_way() - how a request that begins now is to be made. Any thread. */
static inline FileDropWay file_drop_way(const FileDrop *drop)
{
    return drop->mode == FILE_DROP_AUTO ? atomic_load_explicit(&drop->way, memory_order_relaxed)
                                        : (drop->mode == FILE_DROP_ON ? FILE_DROP_PAGES : FILE_KEEP_PAGES);
}

/**
 * file_drop_note() - a write of whole pages has ended; FILE_DROP_AUTO only. Any thread.
 * @way: how it was made
 * @ns: what it took
 */
void file_drop_note(FileDrop *drop, FileDropWay way, int64_t bytes, int64_t ns);

#endif
