/* SPDX-License-Identifier: MIT */
#ifndef BDRV_SIMDISK_DISK_INT_H
#define BDRV_SIMDISK_DISK_INT_H

/* The disk itself, for the files that it is made of. */

#include <pthread.h>

#include "drivers/simdisk/fault.h"
#include "drivers/simdisk/log.h"

#define SIM_KINDS 7

struct BdrvSimDisk {
    char *name;
    unsigned refs; /* table_lock */
    bool owned;    /* table_lock: the table itself holds a reference */

    pthread_mutex_t lock; /* all that follows */
    SimImage current, stable;
    int64_t length, stable_length;
    GQueue log; /* SimEntry * */
    uint64_t last_number;
    uint64_t random;
    uint64_t calls[SIM_KINDS];
    SimFaults faults;
    BdrvSimFlushFailure flush_failure;
    BdrvLimits limits;
    unsigned unsupported;
    bool is_volatile, fua;
    int64_t capacity, min_delay_ns, max_delay_ns, max_stall_ns;
    unsigned stall_one_in;
    BdrvSimHook *hook;
    void *hook_opaque;
};

#endif
