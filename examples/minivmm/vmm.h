/* SPDX-License-Identifier: MIT */
#ifndef MINIVMM_VMM_H
#define MINIVMM_VMM_H

/*
 * The machine: memory, disks, the guest's program, and what its accesses mean. Who executes the program is behind one
 * function: kvm.c with a virtual processor, process.c in a thread of this process.
 */

#include "guest/boot-info.h"
#include "virtio-blk.h"

typedef struct VmmDisk {
    BlockBackend *blk;
    VirtioBlk *device;
} VmmDisk;

typedef struct Vmm {
    GuestMemory memory;
    BdrvGraph *graph;
    unsigned disk_count;
    VmmDisk disks[BOOT_MAX_DISKS];

    /* Of the thread that runs the guest. */
    uint32_t numbers[REPORT_MAX_NUMBERS];
    unsigned number_count;
    bool exited;
    uint32_t exit_code;
} Vmm;

bool vmm_init(Vmm *vmm, uint64_t ram_bytes, GError **errp);
/** vmm_clear() - take all apart; false with the first error of closing an image */
bool vmm_clear(Vmm *vmm, GError **errp);
/** vmm_add_disk() - open an image (option text: driver=qcow2,file.filename=…) and put it in the machine */
bool vmm_add_disk(Vmm *vmm, const char *options, unsigned queues, unsigned io_threads, GError **errp);
/** vmm_set_boot() - tell the guest what to do: a scenario and its numbers */
bool vmm_set_boot(Vmm *vmm, char *const *words, GError **errp);
/** vmm_load() - put a program into memory */
bool vmm_load(Vmm *vmm, const char *filename, GError **errp);

/* An access of the guest; what is nowhere reads as ones and ignores writes. */
void vmm_mmio_read(Vmm *vmm, uint64_t address, void *data, unsigned bytes);
void vmm_mmio_write(Vmm *vmm, uint64_t address, const void *data, unsigned bytes);
/** vmm_port_write() - sets vmm->exited when the guest is done */
void vmm_port_write(Vmm *vmm, uint16_t port, uint32_t value);
/** vmm_report() - print a line of the guest; numbers replace the '%' of @text */
void vmm_report(Vmm *vmm, const char *text);
/** vmm_pending_vector() - the interrupt that a disk asks for, or -1 */
int vmm_pending_vector(Vmm *vmm);
/** vmm_stop_disks() - reset them: when this returns they touch no memory and ask for no interrupts */
void vmm_stop_disks(Vmm *vmm);
/** vmm_set_interrupt() - whom to tell, in any thread, that vmm_pending_vector() may have changed; NULL: nobody */
void vmm_set_interrupt(Vmm *vmm, void (*changed)(void *opaque), void *opaque);

/** kvm_run() / process_run() - run the guest until it exits; false if it cannot go on */
bool kvm_run(Vmm *vmm, bool use_ioeventfd, GError **errp);
bool process_run(Vmm *vmm, GError **errp);

#endif
