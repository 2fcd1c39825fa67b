/* SPDX-License-Identifier: MIT */
#ifndef MACHINE_H
#define MACHINE_H

/* A machine without a processor: memory, a virtio disk, and a Platform for the guest's driver, in this thread. */

#include "driver.h"
#include "virtio-blk.h"

#define MACHINE_RAM (4u << 20)
#define MACHINE_DEVICE 0xd0000000u

typedef struct Machine {
    GuestMemory memory;
    uint64_t used; /* of the memory */
    BdrvGraph *graph;
    BlockBackend *blk;
    VirtioBlk *device;
    pthread_mutex_t lock; /* with @changed: the interrupt line may have changed */
    pthread_cond_t changed;
    char *directory;
    Disk disk;
} Machine;

/** machine_new() - a machine with a disk made of option text, "%s" of which is the machine's own directory
 * @make: creates the image, NULL: nothing to make */
Machine *machine_new(void (*make)(Machine *machine), const char *drive, unsigned queues, unsigned io_threads);
/** machine_free() - take it apart; the image must close without an error unless @may_fail */
void machine_free(Machine *machine, bool may_fail);
/** machine_path() - of a file in the machine's directory; g_free() it */
char *machine_path(const Machine *machine, const char *name);
/** machine_create() - make an image file there */
void machine_create(Machine *machine, const char *format, const char *name, const char *options);

uint32_t machine_get(Machine *machine, uint32_t reg);
void machine_set(Machine *machine, uint32_t reg, uint32_t value);

/** machine_request() - a request in guest memory, with room for @bytes of data filled with @fill */
DiskRequest *machine_request(Machine *machine, uint32_t type, uint64_t sector, uint32_t bytes, int fill);

#endif
