/* SPDX-License-Identifier: MIT */
#ifndef TEST_CRASH_KEYS_H
#define TEST_CRASH_KEYS_H

/*
 * What the LUKS header of an image says, from its bytes alone and written from the LUKS on-disk format: which of the
 * test_secrets open a key slot, and the key that they give.
 */

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "tests/lib/test-node.h"

#define KEYS_BYTES 16 /* of the key: aes-128 */

typedef struct Keys {
    uint8_t opens[TEST_SECRETS];
    uint8_t key[KEYS_BYTES];
    char fault[120]; /* "": none */
    bool compared;   /* the caller's: what the driver says is the same */
} Keys;

/** keys_of() - judge a header
 * @known: from keys_new(): trying a slot takes its time, so that what was seen before is remembered
 * Returns: stays @known's. */
Keys *keys_of(GHashTable *known, const uint8_t *area, uint64_t bytes);
GHashTable *keys_new(void);

#endif
