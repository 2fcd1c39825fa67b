/* SPDX-License-Identifier: MIT */
#ifndef TEST_CRASH_CONTENT_H
#define TEST_CRASH_CONTENT_H

/*
 * The bytes of the states of a cut, without making disks: a flat copy of the durable image and a hash that is
 * the sum over its sectors, so that the hash of a state costs only the sectors that its requests touch.
 */

#include "drivers/simdisk/log.h"

typedef struct Content {
    const BdrvSimCut *cut;
    bool is_loaded;
    const void *loaded; /* the image that @base holds, NULL: an empty one */
    int64_t loaded_length;

    uint8_t *base;       /* zeroes past the end, @capacity bytes */
    uint64_t *base_hash; /* of each sector, 0 for zeroes */
    uint64_t base_sum;
    int64_t capacity;

    GHashTable *entry_hashes; /* SimEntry * -> GArray of uint64_t: of the sectors of a write */
    bool simple;              /* whole sectors only, and no truncate cuts anything off */

    uint64_t *now; /* of touched sectors */
    uint32_t *stamp, round;
    GArray *touched; /* uint32_t sectors */

    uint8_t *work; /* content_bytes() */
    int64_t work_dirty;
} Content;

void content_init(Content *content);
void content_clear(Content *content);

/** content_load() - look at @cut, which stays the caller's until the next call */
void content_load(Content *content, const BdrvSimCut *cut);
/** content_forget() - the sequence is over, its requests may be freed */
void content_forget(Content *content);

/** content_hash() - of the state with these choices: equal for equal bytes and length */
uint64_t content_hash(Content *content, const BdrvSimChoice *choices);
/** content_bytes() - its bytes, valid until the next call, zeroes to the end of the last sector */
const uint8_t *content_bytes(Content *content, const BdrvSimChoice *choices, int64_t *length);

#endif
