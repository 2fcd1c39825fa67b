/* SPDX-License-Identifier: MIT */
#ifndef TEST_CRASH_MODEL_H
#define TEST_CRASH_MODEL_H

/*
 * What may be read after a power loss. A cell is a guest sector, the size of the disk, or what a secret does. Each
 * write to a cell has a begin and an end; it may be read unless another one that is durable began after it had ended.
 * So of concurrent ones any may be the last. One that failed has happened or not, and never becomes durable.
 */

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "tests/lib/test-node.h"

#define MODEL_SECTORS 256 /* guest sectors that are watched */
#define MODEL_SIZE MODEL_SECTORS
#define MODEL_KEYS (MODEL_SIZE + 1) /* for each of the secrets whether it opens a key slot */
#define MODEL_CELLS (MODEL_KEYS + TEST_SECRETS)
#define MODEL_WRITES 64 /* to one cell, as long as they may be read */

typedef struct ModelWrite {
    uint32_t begin, end; /* end 0: not completed */
    uint8_t value;
    bool durable, failed;
} ModelWrite;

typedef struct ModelCell {
    unsigned count;
    ModelWrite writes[MODEL_WRITES];
} ModelCell;

/* A set of values for each cell; shared by the moments between which nothing changed. */
typedef struct ModelSets {
    unsigned refs;
    uint64_t may[MODEL_CELLS][4];
} ModelSets;

typedef struct Model {
    uint32_t clock;
    ModelCell cells[MODEL_CELLS];
    ModelSets *sets; /* NULL: to be made again */
} Model;

/** model_reset() - every cell holds this, durably */
void model_reset(Model *model, const uint8_t values[MODEL_CELLS]);
void model_clear(Model *model);

/** model_begin() - an operation begins; its number is for the other calls */
uint32_t model_begin(Model *model);
/** model_write() - the operation makes the cells [first, first + count) hold @value */
void model_write(Model *model, uint32_t operation, unsigned first, unsigned count, uint8_t value);
/** model_end() - it succeeded; @durable: what it wrote is durable with it */
void model_end(Model *model, uint32_t operation, bool durable);
/** model_failed() - it did not, it is over all the same */
void model_failed(Model *model, uint32_t operation);
/** model_lost() - a close failed: so did all that is not durable yet */
void model_lost(Model *model);
/** model_flushed() - what had ended when @operation began is durable */
void model_flushed(Model *model, uint32_t operation);

/** model_sets() - what may be read now, with a reference */
ModelSets *model_sets(Model *model);
void model_sets_unref(ModelSets *sets);

/** model_present() - what the cells may hold now, while nothing runs: a set of values each, the caller unrefs it */
ModelSets *model_present(const Model *model);
/** model_restore() - the operation makes disk and size hold one of the values of their sets */
void model_restore(Model *model, uint32_t operation, const ModelSets *sets);

static inline bool model_may(const ModelSets *sets, unsigned cell, uint8_t value)
{
    return sets->may[cell][value / 64] >> (value % 64) & 1;
}

/** model_may_text() - "0x80 0x81": for messages; caller frees */
char *model_may_text(const ModelSets *sets, unsigned cell);

#endif
