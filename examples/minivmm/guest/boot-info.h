/* SPDX-License-Identifier: MIT */
#ifndef GUEST_BOOT_INFO_H
#define GUEST_BOOT_INFO_H

/* What the VMM and the guest agree on besides virtio. */

#include <stdint.h>

#define BOOT_INFO_ADDRESS 0x8000u
#define BOOT_GUEST_ADDRESS 0x100000u /* where the program is loaded, and where it starts */
#define BOOT_MAX_DISKS 4
#define BOOT_MAX_ARGUMENTS 4
#define BOOT_DISK_BASE 0xd0000000u /* registers of the first disk */
#define BOOT_DISK_STRIDE 0x1000u
#define BOOT_VECTOR 32u /* interrupt of the first disk; the n-th has the n-th after it */

typedef struct BootInfo {
    uint32_t ram_bytes, disk_count;
    char scenario[32]; /* ended by 0 */
    uint32_t argument_count, arguments[BOOT_MAX_ARGUMENTS];
} BootInfo;

/* Ports, 32 bits wide. A report is a text whose '%' stand for the numbers that were written before. */
enum {
    PORT_NUMBER = 0xe0,
    PORT_REPORT = 0xe4, /* address of the text, ended by 0 */
    PORT_EXIT = 0xf4,   /* 0: all is well */
};
#define REPORT_MAX_BYTES 120
#define REPORT_MAX_NUMBERS 4

#endif
