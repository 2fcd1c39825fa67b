/* SPDX-License-Identifier: MIT */
/*
 * The guest on bare hardware: 32-bit protected mode, no paging, flat segments, interrupts off, as the VMM leaves it.
 *
 * KVM as a nested hypervisor may emulate each instruction here, and its emulator has no IRET in protected mode. So an
 * interrupt is taken at one place only, the HLT of wait_for_interrupt, and its handler drops the frame and goes on
 * there.
 */
#include "scenario.h"

#include <stddef.h>

#define STACK_TOP "0x90000"
#define GATES (BOOT_VECTOR + BOOT_MAX_DISKS)

uint32_t guest_main(void);
void wait_for_interrupt(void);
void interrupt_entry(void);
void fault_entry(void);
/* The compiler calls these by itself. */
void *memcpy(void *to, const void *from, size_t bytes);
void *memset(void *to, int byte, size_t bytes);

extern char guest_end[]; /* from the linker: memory after it is free, and zero */

__asm__(".section .boot, \"ax\"\n"
        "    mov $" STACK_TOP ", %esp\n"
        "    call guest_main\n"
        "    out %eax, $0xf4\n"
        "1:  cli\n"
        "    hlt\n"
        "    jmp 1b\n"
        ".text\n"
        ".globl wait_for_interrupt\n"
        "wait_for_interrupt:\n"
        "    sti\n"
        "    hlt\n"
        "2:  cli\n"
        "    ret\n"
        ".globl interrupt_entry\n"
        "interrupt_entry:\n"
        "    add $12, %esp\n"
        "    jmp 2b\n"
        ".globl fault_entry\n"
        "fault_entry:\n"
        "    mov $255, %eax\n"
        "    out %eax, $0xf4\n"
        "    hlt\n");

static struct Gate {
    uint16_t low, selector, kind, high;
} gates[GATES] __attribute__((aligned(8)));

static uint32_t allocated;

void *memcpy(void *to, const void *from, size_t bytes)
{
    void *result = to;

    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
    return result;
}

void *memset(void *to, int byte, size_t bytes)
{
    void *result = to;

    __asm__ volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(byte) : "memory");
    return result;
}

static void out(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %w1" : : "a"(value), "Nd"(port) : "memory");
}

uint32_t platform_read(Platform *platform, uint32_t address, unsigned bytes)
{
    switch (bytes) {
    case 1:
        return *(volatile uint8_t *)address;
    case 2:
        return *(volatile uint16_t *)address;
    default:
        return *(volatile uint32_t *)address;
    }
}

void platform_write(Platform *platform, uint32_t address, uint32_t value)
{
    *(volatile uint32_t *)address = value;
}

void *platform_alloc(Platform *platform, uint32_t bytes, uint32_t align)
{
    uint32_t at = ((uint32_t)guest_end + allocated + align - 1) & ~(align - 1);

    allocated = at + bytes - (uint32_t)guest_end;
    return (void *)at;
}

uint64_t platform_address(Platform *platform, const void *memory)
{
    return (uint32_t)memory;
}

void platform_wait(Platform *platform, uint32_t device)
{
    if (device) {
        wait_for_interrupt();
        platform_write(platform, device + MMIO_INTERRUPT_ACK,
                       platform_read(platform, device + MMIO_INTERRUPT_STATUS, 4));
    }
}

void platform_report(Platform *platform, const char *text, const uint32_t *numbers, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        out(PORT_NUMBER, numbers[i]);
    }
    out(PORT_REPORT, (uint32_t)text);
}

static void set_up_interrupts(void)
{
    struct __attribute__((packed)) {
        uint16_t limit;
        uint32_t base;
    } idt = { sizeof(gates) - 1, (uint32_t)gates };

    for (unsigned i = 0; i < GATES; i++) {
        uint32_t entry = (uint32_t)(i < BOOT_VECTOR ? fault_entry : interrupt_entry);

        gates[i] = (struct Gate){ .low = entry, .selector = 8, .kind = 0x8e00, .high = entry >> 16 };
    }
    __asm__ volatile("lidt %0" : : "m"(idt));
}

uint32_t guest_main(void)
{
    set_up_interrupts();
    return scenario_run(NULL, (const BootInfo *)BOOT_INFO_ADDRESS);
}
