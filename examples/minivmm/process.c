/* SPDX-License-Identifier: MIT */
/*
 * The guest without KVM: its program is linked into this one, and its thread calls the machine where the processor of a
 * guest would leave it. Device, driver and scenario are the same.
 */
#include "vmm.h"

#include "guest/scenario.h"

#include <inttypes.h>
#include <sched.h>

#define HEAP_ADDRESS BOOT_GUEST_ADDRESS

struct Platform {
    Vmm *vmm;
    uint64_t used; /* of memory */
    pthread_mutex_t lock;   /* with @changed: an interrupt may have come */
    pthread_cond_t changed;
};

uint32_t platform_read(Platform *platform, uint32_t address, unsigned bytes)
{
    uint32_t value = 0;

    vmm_mmio_read(platform->vmm, address, &value, bytes);
    return value;
}

void platform_write(Platform *platform, uint32_t address, uint32_t value)
{
    vmm_mmio_write(platform->vmm, address, &value, sizeof(value));
}

void *platform_alloc(Platform *platform, uint32_t bytes, uint32_t align)
{
    uint64_t at = (platform->used + align - 1) / align * align;
    void *memory = guest_memory_range(&platform->vmm->memory, at, bytes);

    if (!memory) {
        g_error("the scenario needs more than %" PRIu64 " bytes of RAM", platform->vmm->memory.bytes);
    }
    platform->used = at + bytes;
    return memory;
}

uint64_t platform_address(Platform *platform, const void *memory)
{
    return (const uint8_t *)memory - platform->vmm->memory.host;
}

void platform_wait(Platform *platform, uint32_t device)
{
    if (!device) {
        sched_yield();
        return;
    }
    pthread_mutex_lock(&platform->lock);
    while (vmm_pending_vector(platform->vmm) < 0) {
        pthread_cond_wait(&platform->changed, &platform->lock);
    }
    pthread_mutex_unlock(&platform->lock);
    platform_write(platform, device + MMIO_INTERRUPT_ACK, platform_read(platform, device + MMIO_INTERRUPT_STATUS, 4));
}

void platform_report(Platform *platform, const char *text, const uint32_t *numbers, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        vmm_port_write(platform->vmm, PORT_NUMBER, numbers[i]);
    }
    vmm_report(platform->vmm, text);
}

static void interrupt_changed(void *opaque)
{
    Platform *platform = opaque;

    pthread_mutex_lock(&platform->lock);
    pthread_cond_broadcast(&platform->changed);
    pthread_mutex_unlock(&platform->lock);
}

static void *guest_thread(void *opaque)
{
    Platform *platform = opaque;
    const BootInfo *boot = guest_memory_range(&platform->vmm->memory, BOOT_INFO_ADDRESS, sizeof(*boot));

    vmm_port_write(platform->vmm, PORT_EXIT, scenario_run(platform, boot));
    return NULL;
}

bool process_run(Vmm *vmm, GError **errp)
{
    Platform platform = { .vmm = vmm, .used = HEAP_ADDRESS };
    pthread_t thread;
    int ret;

    pthread_mutex_init(&platform.lock, NULL);
    pthread_cond_init(&platform.changed, NULL);
    vmm_set_interrupt(vmm, interrupt_changed, &platform);
    g_print("vmm: no KVM, the guest's program runs in this process\n");
    ret = pthread_create(&thread, NULL, guest_thread, &platform);
    if (ret) {
        g_set_error(errp, BDRV_ERROR, ret, "no thread for the guest: %s", g_strerror(ret));
    } else {
        pthread_join(thread, NULL);
    }
    vmm_stop_disks(vmm);
    vmm_set_interrupt(vmm, NULL, NULL);
    pthread_mutex_destroy(&platform.lock);
    pthread_cond_destroy(&platform.changed);
    return ret == 0;
}
