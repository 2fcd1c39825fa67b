/* SPDX-License-Identifier: MIT */
#ifndef BDRV_CRYPTO_LUKS_HEADER_H
#define BDRV_CRYPTO_LUKS_HEADER_H

/* The partition header of LUKS version 1 (on-disk format 1.2, section 2): bytes to struct and back. Pure. */

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BDRV_LUKS_HEADER_BYTES 592u
#define BDRV_LUKS_SECTOR 512u
#define BDRV_LUKS_SLOTS 8u
#define BDRV_LUKS_STRIPES 4000u
#define BDRV_LUKS_SALT_BYTES 32u
#define BDRV_LUKS_DIGEST_BYTES 20u
#define BDRV_LUKS_AREA_ALIGN 4096u

/* A slot of so many takes minutes to try; a header that asks for more is not believed. */
#define BDRV_LUKS_MAX_ITERATIONS (1u << 28)

typedef struct BdrvLuksSlot {
    bool active;
    uint32_t iterations;
    uint8_t salt[BDRV_LUKS_SALT_BYTES];
    uint32_t key_sector; /* where its key material begins, from the start of the header */
    uint32_t stripes;
} BdrvLuksSlot;

typedef struct BdrvLuksHeader {
    char cipher_name[33], cipher_mode[33], hash[33];
    char uuid[41];
    uint32_t payload_sector;
    uint32_t key_bytes; /* of the volume key */
    uint8_t digest[BDRV_LUKS_DIGEST_BYTES]; /* of the volume key */
    uint8_t digest_salt[BDRV_LUKS_SALT_BYTES];
    uint32_t digest_iterations;
    BdrvLuksSlot slots[BDRV_LUKS_SLOTS];
} BdrvLuksHeader;

/** bdrv_luks_probe() - whether @buf begins with the magic and version 1 */
bool bdrv_luks_probe(const uint8_t *buf, size_t bytes);

/** bdrv_luks_header_decode() - judge each field; EINVAL, ENOTSUP name field, value and what would be right */
bool bdrv_luks_header_decode(const uint8_t *buf, size_t bytes, BdrvLuksHeader *header, GError **errp);

/** bdrv_luks_header_encode() - @buf: BDRV_LUKS_HEADER_BYTES */
void bdrv_luks_header_encode(const BdrvLuksHeader *header, uint8_t *buf);

/** bdrv_luks_material_bytes() - what a slot's key material takes, whole sectors */
uint64_t bdrv_luks_material_bytes(uint32_t key_bytes);

/** bdrv_luks_slot_offset() - where a new header puts a slot's; slot BDRV_LUKS_SLOTS: where the payload begins */
uint64_t bdrv_luks_slot_offset(uint32_t key_bytes, unsigned slot);

#endif
