/* SPDX-License-Identifier: MIT */
/*
 * The guest on a virtual processor of KVM, in a thread of its own.
 *
 * There is no interrupt controller: a disk's interrupt goes straight to the processor (KVM_INTERRUPT) when it can take
 * one. HLT waits for it in vcpu_halt(); a processor that runs is made to leave KVM_RUN by a signal. The notification
 * registers are given to KVM as ioeventfds, so that a notification does not leave the kernel; where KVM does not
 * take them, the write is an exit like any other, and virtio_mmio_write() does the same.
 */
#include "vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/virtio_mmio.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define GDT_ADDRESS 0x1000u
#define CODE_SELECTOR 0x08
#define DATA_SELECTOR 0x10
#define TSS_ADDRESS 0xfffbd000u /* three pages and one that Intel processors want in guest space, nobody uses them */
#define IDENTITY_MAP_ADDRESS 0xfffbc000ull

typedef struct Vcpu {
    Vmm *vmm;
    int kvm_fd, vm_fd, fd;
    struct kvm_run *run;
    size_t run_bytes;
    pthread_mutex_t lock; /* with @changed: an interrupt may have come */
    pthread_cond_t changed;
    pthread_t thread, self;
    bool has_thread; /* lock; then kicks go to @self */
    GError *error;
} Vcpu;

/* The processor of this thread, for the signal handler. */
static __thread struct kvm_run *current_run;

static void on_kick(int signal)
{
    if (current_run) {
        current_run->immediate_exit = 1;
    }
}

static void kick(void *opaque)
{
    Vcpu *vcpu = opaque;

    pthread_mutex_lock(&vcpu->lock);
    pthread_cond_broadcast(&vcpu->changed);
    if (vcpu->has_thread) {
        pthread_kill(vcpu->self, SIGUSR1);
    }
    pthread_mutex_unlock(&vcpu->lock);
}

static bool fail(GError **errp, const char *what)
{
    int code = errno;

    g_set_error(errp, BDRV_ERROR, code, "KVM: %s: %s", what, g_strerror(code));
    return false;
}

/* ---- setting up ---- */

static bool open_vm(Vcpu *vcpu, GError **errp)
{
    struct kvm_userspace_memory_region ram = {
        .memory_size = vcpu->vmm->memory.bytes,
        .userspace_addr = (uintptr_t)vcpu->vmm->memory.host,
    };
    uint64_t identity_map = IDENTITY_MAP_ADDRESS;

    vcpu->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (vcpu->kvm_fd < 0) {
        return fail(errp, "/dev/kvm");
    }
    if (ioctl(vcpu->kvm_fd, KVM_GET_API_VERSION, 0) != KVM_API_VERSION) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP, "KVM: not version %d of its interface", KVM_API_VERSION);
        return false;
    }
    if (ioctl(vcpu->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_IMMEDIATE_EXIT) <= 0) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP, "KVM: too old, it has no KVM_CAP_IMMEDIATE_EXIT");
        return false;
    }
    vcpu->vm_fd = ioctl(vcpu->kvm_fd, KVM_CREATE_VM, 0);
    if (vcpu->vm_fd < 0) {
        return fail(errp, "KVM_CREATE_VM");
    }
    /* Only Intel processors need these two; others may not know them. */
    ioctl(vcpu->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map);
    ioctl(vcpu->vm_fd, KVM_SET_TSS_ADDR, TSS_ADDRESS);
    if (ioctl(vcpu->vm_fd, KVM_SET_USER_MEMORY_REGION, &ram) < 0) {
        return fail(errp, "KVM_SET_USER_MEMORY_REGION");
    }
    return true;
}

/* 32-bit protected mode, flat segments, no paging. */
static bool set_registers(Vcpu *vcpu, GError **errp)
{
    static const uint64_t gdt[] = { 0, 0x00cf9b000000ffffull, 0x00cf93000000ffffull };
    struct kvm_segment code = {
        .limit = UINT32_MAX, .selector = CODE_SELECTOR, .type = 11, .present = 1, .s = 1, .db = 1, .g = 1,
    };
    struct kvm_segment data = code;
    struct kvm_sregs special;
    struct kvm_regs regs = { .rip = BOOT_GUEST_ADDRESS, .rflags = 2 };

    data.selector = DATA_SELECTOR;
    data.type = 3;
    memcpy(guest_memory_range(&vcpu->vmm->memory, GDT_ADDRESS, sizeof(gdt)), gdt, sizeof(gdt));
    if (ioctl(vcpu->fd, KVM_GET_SREGS, &special) < 0) {
        return fail(errp, "KVM_GET_SREGS");
    }
    special.cs = code;
    special.ds = special.es = special.fs = special.gs = special.ss = data;
    special.gdt.base = GDT_ADDRESS;
    special.gdt.limit = sizeof(gdt) - 1;
    special.cr0 = 0x11; /* protected mode; numeric errors as the processor's own */
    if (ioctl(vcpu->fd, KVM_SET_SREGS, &special) < 0 || ioctl(vcpu->fd, KVM_SET_REGS, &regs) < 0) {
        return fail(errp, "KVM_SET_SREGS");
    }
    return true;
}

static bool open_vcpu(Vcpu *vcpu, GError **errp)
{
    int run_bytes = ioctl(vcpu->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    void *run;

    vcpu->fd = ioctl(vcpu->vm_fd, KVM_CREATE_VCPU, 0);
    if (vcpu->fd < 0 || run_bytes < (int)sizeof(struct kvm_run)) {
        return fail(errp, "KVM_CREATE_VCPU");
    }
    run = mmap(NULL, run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    if (run == MAP_FAILED) {
        return fail(errp, "its mapping");
    }
    vcpu->run = run;
    vcpu->run_bytes = run_bytes;
    return set_registers(vcpu, errp);
}

/* How many notification registers KVM serves by itself. */
static unsigned add_ioeventfds(Vcpu *vcpu)
{
    Vmm *vmm = vcpu->vmm;
    unsigned added = 0;

    for (unsigned i = 0; i < vmm->disk_count; i++) {
        for (unsigned q = 0; q < virtio_blk_mmio(vmm->disks[i].device)->queue_count; q++) {
            struct kvm_ioeventfd notify = {
                .datamatch = q,
                .addr = BOOT_DISK_BASE + i * BOOT_DISK_STRIDE + VIRTIO_MMIO_QUEUE_NOTIFY,
                .len = 4,
                .fd = virtio_blk_notify_fd(vmm->disks[i].device, q),
                .flags = KVM_IOEVENTFD_FLAG_DATAMATCH,
            };

            added += ioctl(vcpu->vm_fd, KVM_IOEVENTFD, &notify) == 0;
        }
    }
    return added;
}

/* ---- running ---- */

/* Inject what is pending, or be told when the processor can take it. */
static bool deliver_interrupt(Vcpu *vcpu)
{
    struct kvm_interrupt interrupt = { .irq = vmm_pending_vector(vcpu->vmm) };

    vcpu->run->request_interrupt_window = 0;
    if ((int)interrupt.irq < 0) {
        return true;
    }
    if (!vcpu->run->if_flag || !vcpu->run->ready_for_interrupt_injection) {
        vcpu->run->request_interrupt_window = 1;
        return true;
    }
    return ioctl(vcpu->fd, KVM_INTERRUPT, &interrupt) == 0 || errno == EEXIST || fail(&vcpu->error, "KVM_INTERRUPT");
}

/* HLT: wait for an interrupt. Without interrupts that would be for ever. */
static bool vcpu_halt(Vcpu *vcpu)
{
    if (!vcpu->run->if_flag) {
        g_set_error(&vcpu->error, BDRV_ERROR, EPROTO, "the guest halted with interrupts off");
        return false;
    }
    pthread_mutex_lock(&vcpu->lock);
    while (vmm_pending_vector(vcpu->vmm) < 0) {
        pthread_cond_wait(&vcpu->changed, &vcpu->lock);
    }
    pthread_mutex_unlock(&vcpu->lock);
    return true;
}

static void port_exit(Vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;

    for (uint32_t i = 0; i < run->io.count && !vcpu->vmm->exited; i++, data += run->io.size) {
        uint32_t value = 0;

        if (run->io.direction == KVM_EXIT_IO_OUT) {
            memcpy(&value, data, run->io.size);
            vmm_port_write(vcpu->vmm, run->io.port, value);
        } else {
            memset(data, 0xff, run->io.size);
        }
    }
}

static bool strange_exit(Vcpu *vcpu)
{
    struct kvm_regs regs = { 0 };

    ioctl(vcpu->fd, KVM_GET_REGS, &regs);
    g_set_error(&vcpu->error, BDRV_ERROR, EPROTO, "the guest cannot go on: KVM exit %u (%u) at 0x%llx",
                vcpu->run->exit_reason,
                vcpu->run->exit_reason == KVM_EXIT_INTERNAL_ERROR ? vcpu->run->internal.suberror : 0, regs.rip);
    return false;
}

static bool handle_exit(Vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;

    switch (run->exit_reason) {
    case KVM_EXIT_MMIO:
        if (run->mmio.is_write) {
            vmm_mmio_write(vcpu->vmm, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
        } else {
            vmm_mmio_read(vcpu->vmm, run->mmio.phys_addr, run->mmio.data, run->mmio.len);
        }
        return true;
    case KVM_EXIT_IO:
        port_exit(vcpu);
        return true;
    case KVM_EXIT_HLT:
        return vcpu_halt(vcpu);
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_INTR:
        return true;
    default:
        return strange_exit(vcpu);
    }
}

static void *vcpu_thread(void *opaque)
{
    Vcpu *vcpu = opaque;
    bool ok = true;

    current_run = vcpu->run;
    pthread_mutex_lock(&vcpu->lock);
    vcpu->self = pthread_self();
    vcpu->has_thread = true;
    pthread_mutex_unlock(&vcpu->lock);
    while (ok && !vcpu->vmm->exited) {
        /* A kick from here on ends KVM_RUN at once, so that none is lost between the look and the run. */
        vcpu->run->immediate_exit = 0;
        __asm__ volatile("" : : : "memory");
        ok = deliver_interrupt(vcpu);
        if (ok && ioctl(vcpu->fd, KVM_RUN, 0) == 0) {
            ok = handle_exit(vcpu);
        } else if (ok && errno != EINTR && errno != EAGAIN) {
            ok = fail(&vcpu->error, "KVM_RUN");
        }
    }
    pthread_mutex_lock(&vcpu->lock);
    vcpu->has_thread = false;
    pthread_mutex_unlock(&vcpu->lock);
    return NULL;
}

static bool run_thread(Vcpu *vcpu, GError **errp)
{
    struct sigaction action = { .sa_handler = on_kick };
    int ret;

    sigaction(SIGUSR1, &action, NULL);
    vmm_set_interrupt(vcpu->vmm, kick, vcpu);
    ret = pthread_create(&vcpu->thread, NULL, vcpu_thread, vcpu);
    if (ret) {
        errno = ret;
        return fail(errp, "no thread for the processor");
    }
    pthread_join(vcpu->thread, NULL);
    if (vcpu->error) {
        g_propagate_error(errp, vcpu->error);
        return false;
    }
    return true;
}

bool kvm_run(Vmm *vmm, bool use_ioeventfd, GError **errp)
{
    Vcpu vcpu = { .vmm = vmm, .kvm_fd = -1, .vm_fd = -1, .fd = -1 };
    bool ok;

    pthread_mutex_init(&vcpu.lock, NULL);
    pthread_cond_init(&vcpu.changed, NULL);
    ok = open_vm(&vcpu, errp) && open_vcpu(&vcpu, errp);
    if (ok) {
        unsigned served = use_ioeventfd ? add_ioeventfds(&vcpu) : 0;

        g_print("vmm: KVM, %u notification registers by ioeventfd\n", served);
        ok = run_thread(&vcpu, errp);
        vmm_stop_disks(vmm);
        vmm_set_interrupt(vmm, NULL, NULL);
    }
    if (vcpu.run) {
        munmap(vcpu.run, vcpu.run_bytes);
    }
    for (unsigned i = 0; i < 3; i++) {
        int fd = (int[]){ vcpu.fd, vcpu.vm_fd, vcpu.kvm_fd }[i];

        if (fd >= 0) {
            close(fd);
        }
    }
    pthread_mutex_destroy(&vcpu.lock);
    pthread_cond_destroy(&vcpu.changed);
    return ok;
}
