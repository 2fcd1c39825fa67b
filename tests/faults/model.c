/* SPDX-License-Identifier: MIT */
#include "tests/faults/model.h"

#include <string.h>

#define SECTOR 512
#define MAY_BE 15

/* Contents that a sector may have: numbers in the pool. Few of a disk's sectors differ. */
typedef struct Contents {
    uint16_t count, which[MAY_BE];
} Contents;

typedef struct Sector {
    Contents now, medium;
} Sector;

struct Model {
    int64_t room, size;
    Sector *sectors;
    GByteArray *pool; /* contents, each once */
};

static const uint8_t *content_of(const Model *model, unsigned which)
{
    return model->pool->data + which * SECTOR;
}

static uint16_t number_of(Model *model, const uint8_t *content)
{
    unsigned count = model->pool->len / SECTOR;
    for (unsigned i = 0; i < count; i++) {
        if (memcmp(content_of(model, i), content, SECTOR) == 0) {
            return (uint16_t)i;
        }
    }
    g_assert_cmpuint(count, <, UINT16_MAX);
    g_byte_array_append(model->pool, content, SECTOR);
    return (uint16_t)count;
}

static void contents_add(Contents *contents, uint16_t which)
{
    for (unsigned i = 0; i < contents->count; i++) {
        if (contents->which[i] == which) {
            return;
        }
    }
    g_assert_cmpuint(contents->count, <, MAY_BE);
    contents->which[contents->count++] = which;
}

static void contents_join(Contents *contents, const Contents *others)
{
    for (unsigned i = 0; i < others->count; i++) {
        contents_add(contents, others->which[i]);
    }
}

static bool contents_have(const Model *model, const Contents *contents, const uint8_t *bytes, int64_t length)
{
    for (unsigned i = 0; i < contents->count; i++) {
        if (memcmp(content_of(model, contents->which[i]), bytes, (size_t)length) == 0) {
            return true;
        }
    }
    return false;
}

Model *model_new(int64_t room, int64_t size, const uint8_t *content)
{
    Model *model = g_new0(Model, 1);
    uint8_t sector[SECTOR];

    model->room = room;
    model->size = size;
    model->sectors = g_new0(Sector, room / SECTOR);
    model->pool = g_byte_array_new();
    for (int64_t i = 0; i < room / SECTOR; i++) {
        int64_t there = CLAMP(size - i * SECTOR, 0, SECTOR);
        memset(sector, 0, SECTOR);
        memcpy(sector, content + (there ? i * SECTOR : 0), (size_t)there);
        contents_add(&model->sectors[i].now, number_of(model, sector));
        model->sectors[i].medium = model->sectors[i].now;
    }
    return model;
}

void model_free(Model *model)
{
    if (model) {
        g_byte_array_unref(model->pool);
        g_free(model->sectors);
        g_free(model);
    }
}

int64_t model_size(const Model *model)
{
    return model->size;
}

void model_resize(Model *model, int64_t size)
{
    static const uint8_t zeroes[SECTOR];

    g_assert_cmpint(size, <=, model->room);
    for (int64_t at = size; at < model->size; at += SECTOR) { /* it does not come back with a later growth */
        model_change(model, at, SECTOR, zeroes, true);
    }
    model->size = size;
}

static void change_sector(Model *model, Sector *sector, unsigned from, unsigned bytes, const uint8_t *data, bool surely)
{
    Contents changed = { 0 };

    for (unsigned i = 0; i < sector->now.count; i++) {
        uint8_t content[SECTOR];
        memcpy(content, content_of(model, sector->now.which[i]), SECTOR);
        memcpy(content + from, data, bytes);
        contents_add(&changed, number_of(model, content));
    }
    if (!surely) {
        contents_join(&changed, &sector->now);
    }
    sector->now = changed;
    contents_join(&sector->medium, &sector->now);
}

void model_change(Model *model, int64_t offset, int64_t bytes, const uint8_t *data, bool surely)
{
    for (int64_t n; bytes > 0; offset += n, data += n, bytes -= n) {
        n = MIN(bytes, SECTOR - offset % SECTOR);
        change_sector(model, &model->sectors[offset / SECTOR], (unsigned)(offset % SECTOR), (unsigned)n, data, surely);
    }
}

void model_now(const Model *model, int64_t offset, int64_t bytes, uint8_t *out)
{
    for (int64_t n; bytes > 0; offset += n, out += n, bytes -= n) {
        n = MIN(bytes, SECTOR - offset % SECTOR);
        memcpy(out, content_of(model, model->sectors[offset / SECTOR].now.which[0]) + offset % SECTOR, (size_t)n);
    }
}

void model_flushed(Model *model)
{
    model_flushed_range(model, 0, model->room);
}

void model_flushed_range(Model *model, int64_t offset, int64_t bytes)
{
    for (int64_t i = (offset + SECTOR - 1) / SECTOR; i < (offset + bytes) / SECTOR; i++) {
        model->sectors[i].medium = model->sectors[i].now;
    }
}

void model_lost(Model *model)
{
    for (int64_t i = 0; i < model->room / SECTOR; i++) {
        contents_join(&model->sectors[i].now, &model->sectors[i].medium);
    }
}

int64_t model_wrong_sector(const Model *model, const uint8_t *content, int64_t bytes, bool after_loss)
{
    for (int64_t i = 0; i < bytes; i += SECTOR) {
        const Sector *sector = &model->sectors[i / SECTOR];
        const Contents *possible = after_loss ? &sector->medium : &sector->now;
        if (!contents_have(model, possible, content + i, MIN(SECTOR, bytes - i))) {
            return i / SECTOR;
        }
    }
    return -1;
}

void model_learn(Model *model, const uint8_t *content, int64_t bytes)
{
    for (int64_t i = 0; i < bytes; i += SECTOR) {
        Contents *now = &model->sectors[i / SECTOR].now;
        if (now->count > 1) {
            uint8_t known[SECTOR] = { 0 };
            memcpy(known, content + i, (size_t)MIN(SECTOR, bytes - i));
            *now = (Contents){ .count = 1, .which = { number_of(model, known) } };
        }
    }
}
