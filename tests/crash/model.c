/* SPDX-License-Identifier: MIT */
#include "tests/crash/model.h"

#include <string.h>

static void changed(Model *model)
{
    if (model->sets) {
        model_sets_unref(model->sets);
        model->sets = NULL;
    }
}

void model_reset(Model *model, const uint8_t values[MODEL_CELLS])
{
    changed(model);
    model->clock = 2;
    for (unsigned i = 0; i < MODEL_CELLS; i++) {
        model->cells[i].count = 1;
        model->cells[i].writes[0] = (ModelWrite){ .begin = 1, .end = 2, .value = values[i], .durable = true };
    }
}

void model_clear(Model *model)
{
    changed(model);
}

uint32_t model_begin(Model *model)
{
    return ++model->clock;
}

void model_write(Model *model, uint32_t operation, unsigned first, unsigned count, uint8_t value)
{
    changed(model);
    for (unsigned i = first; i < first + count && i < MODEL_CELLS; i++) {
        ModelCell *cell = &model->cells[i];

        g_assert_cmpuint(cell->count, <, MODEL_WRITES);
        cell->writes[cell->count++] = (ModelWrite){ .begin = operation, .value = value };
    }
}

/* Drop what began and ended before something durable began. */
static void prune(ModelCell *cell)
{
    uint32_t newest = 0; /* begin of the latest durable one */
    unsigned kept = 0;

    for (unsigned i = 0; i < cell->count; i++) {
        if (cell->writes[i].durable) {
            newest = MAX(newest, cell->writes[i].begin);
        }
    }
    for (unsigned i = 0; i < cell->count; i++) {
        if (cell->writes[i].end == 0 || cell->writes[i].end >= newest) {
            cell->writes[kept++] = cell->writes[i];
        }
    }
    cell->count = kept;
}

void model_end(Model *model, uint32_t operation, bool durable)
{
    uint32_t now = ++model->clock;

    changed(model);
    for (unsigned i = 0; i < MODEL_CELLS; i++) {
        ModelCell *cell = &model->cells[i];

        for (unsigned w = 0; w < cell->count; w++) {
            if (cell->writes[w].begin == operation) {
                cell->writes[w].end = now;
                cell->writes[w].durable = durable;
            }
        }
        if (durable) {
            prune(cell);
        }
    }
}

/* @operation: 0: all that are not durable. */
static void fail_writes(Model *model, uint32_t operation)
{
    uint32_t now = ++model->clock;

    for (unsigned i = 0; i < MODEL_CELLS; i++) {
        for (unsigned w = 0; w < model->cells[i].count; w++) {
            ModelWrite *write = &model->cells[i].writes[w];

            if (operation ? write->begin == operation : !write->durable) {
                write->end = write->end ? write->end : now;
                write->failed = true;
            }
        }
    }
}

void model_failed(Model *model, uint32_t operation)
{
    fail_writes(model, operation);
}

void model_lost(Model *model)
{
    fail_writes(model, 0);
}

void model_flushed(Model *model, uint32_t operation)
{
    changed(model);
    for (unsigned i = 0; i < MODEL_CELLS; i++) {
        ModelCell *cell = &model->cells[i];

        for (unsigned w = 0; w < cell->count; w++) {
            ModelWrite *write = &cell->writes[w];

            write->durable |= write->end && write->end < operation && !write->failed;
        }
        prune(cell);
    }
}

ModelSets *model_sets(Model *model)
{
    if (!model->sets) {
        ModelSets *sets = g_new0(ModelSets, 1);

        sets->refs = 1;
        for (unsigned i = 0; i < MODEL_CELLS; i++) {
            for (unsigned w = 0; w < model->cells[i].count; w++) {
                uint8_t value = model->cells[i].writes[w].value;

                sets->may[i][value / 64] |= UINT64_C(1) << (value % 64);
            }
        }
        model->sets = sets;
    }
    model->sets->refs++;
    return model->sets;
}

ModelSets *model_present(const Model *model)
{
    ModelSets *sets = g_new0(ModelSets, 1);

    sets->refs = 1;
    for (unsigned i = 0; i < MODEL_CELLS; i++) {
        const ModelCell *cell = &model->cells[i];
        uint32_t newest = 0; /* begin of the latest that has surely happened */

        for (unsigned w = 0; w < cell->count; w++) {
            newest = cell->writes[w].failed ? newest : MAX(newest, cell->writes[w].begin);
        }
        for (unsigned w = 0; w < cell->count; w++) {
            uint8_t value = cell->writes[w].value;

            if (cell->writes[w].end >= newest) {
                sets->may[i][value / 64] |= UINT64_C(1) << (value % 64);
            }
        }
    }
    return sets;
}

void model_restore(Model *model, uint32_t operation, const ModelSets *sets)
{
    for (unsigned i = 0; i <= MODEL_SIZE; i++) {
        for (unsigned value = 0; value < 256; value++) {
            if (model_may(sets, i, (uint8_t)value)) {
                model_write(model, operation, i, 1, (uint8_t)value);
            }
        }
    }
}

void model_sets_unref(ModelSets *sets)
{
    if (--sets->refs == 0) {
        g_free(sets);
    }
}

char *model_may_text(const ModelSets *sets, unsigned cell)
{
    GString *text = g_string_new(NULL);

    for (unsigned value = 0; value < 256; value++) {
        if (model_may(sets, cell, (uint8_t)value)) {
            g_string_append_printf(text, "%s0x%02x", text->len ? " " : "", value);
        }
    }
    return g_string_free(text, FALSE);
}
