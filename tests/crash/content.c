/* SPDX-License-Identifier: MIT */
#include "tests/crash/content.h"

#include <string.h>

#define SECTOR BDRV_SIM_SECTOR

static uint64_t mix(uint64_t h)
{
    h = (h ^ (h >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    h = (h ^ (h >> 27)) * UINT64_C(0x94d049bb133111eb);
    return h ^ (h >> 31);
}

/* 0 for zeroes, so that what was never written needs no looking at. */
static uint64_t hash_sector(const uint8_t *bytes, int64_t index)
{
    uint64_t h[4] = { 0 }, any = 0;
    for (unsigned i = 0; i < SECTOR; i += 32) {
        uint64_t words[4];
        memcpy(words, bytes + i, sizeof(words));
        for (unsigned w = 0; w < 4; w++) {
            h[w] = (h[w] ^ words[w]) * UINT64_C(0x9e3779b97f4a7c15);
            h[w] ^= h[w] >> 32;
            any |= words[w];
        }
    }
    uint64_t sum = h[0] + 3 * h[1] + 5 * h[2] + 7 * h[3];
    return any ? mix(sum + mix((uint64_t)index + 1)) : 0;
}

/* ---- the durable image ---- */

static void reserve(Content *content, int64_t bytes)
{
    int64_t capacity = content->capacity ? content->capacity : 65536;
    while (capacity < bytes) {
        capacity *= 2;
    }
    if (capacity == content->capacity) {
        return;
    }
    size_t old = (size_t)content->capacity, more = (size_t)(capacity - content->capacity);
    content->base = g_realloc(content->base, (gsize)capacity);
    content->work = g_realloc(content->work, (gsize)capacity);
    content->base_hash = g_renew(uint64_t, content->base_hash, capacity / SECTOR);
    content->now = g_renew(uint64_t, content->now, capacity / SECTOR);
    content->stamp = g_renew(uint32_t, content->stamp, capacity / SECTOR);
    memset(content->base + old, 0, more);
    memset(content->work + old, 0, more);
    memset(content->base_hash + old / SECTOR, 0, more / SECTOR * sizeof(uint64_t));
    memset(content->stamp + old / SECTOR, 0, more / SECTOR * sizeof(uint32_t));
    content->capacity = capacity;
}

static void load_base(Content *content)
{
    const SimImage *image = sim_cut_image(content->cut);
    int64_t length = bdrv_simcut_length(content->cut), run;
    memset(content->base, 0, (size_t)content->loaded_length);
    memset(content->base_hash, 0, (size_t)(content->loaded_length + SECTOR - 1) / SECTOR * sizeof(uint64_t));
    content->base_sum = 0;
    for (int64_t at = 0; at < length; at += run) {
        bool allocated;
        run = sim_image_run(image, at, length - at, &allocated);
        if (!allocated) {
            continue;
        }
        sim_image_read(image, at, content->base + at, run);
        for (int64_t s = at / SECTOR; s < (at + run + SECTOR - 1) / SECTOR; s++) {
            content->base_hash[s] = hash_sector(content->base + s * SECTOR, s);
        }
    }
    for (int64_t s = 0; s < (length + SECTOR - 1) / SECTOR; s++) {
        content->base_sum ^= content->base_hash[s];
    }
    content->is_loaded = true;
    content->loaded = image->root;
    content->loaded_length = length;
}

void content_init(Content *content)
{
    *content = (Content){ .touched = g_array_new(FALSE, FALSE, sizeof(uint32_t)) };
    content->entry_hashes = g_hash_table_new_full(NULL, NULL, NULL, (GDestroyNotify)g_array_unref);
}

void content_clear(Content *content)
{
    g_array_unref(content->touched);
    g_hash_table_unref(content->entry_hashes);
    g_free(content->base);
    g_free(content->base_hash);
    g_free(content->now);
    g_free(content->stamp);
    g_free(content->work);
    *content = (Content){ 0 };
}

static bool is_simple(const BdrvSimCut *cut)
{
    int64_t reach = bdrv_simcut_length(cut);
    bool simple = reach % SECTOR == 0;
    for (unsigned i = 0; i < bdrv_simcut_count(cut) && simple; i++) {
        BdrvSimRequest r = bdrv_simcut_nth(cut, i);
        simple = r.offset % SECTOR == 0 && r.bytes % SECTOR == 0 &&
                 (r.kind != BDRV_SIM_TRUNCATE || r.offset >= reach);
        reach = MAX(reach, r.offset + r.bytes);
    }
    return simple;
}

static GArray *hash_entry(const SimEntry *entry)
{
    const BdrvSimRequest *r = &entry->request;
    GArray *hashes = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    for (int64_t at = 0; r->kind == BDRV_SIM_WRITE && at < r->bytes; at += SECTOR) {
        uint64_t h = hash_sector(entry->data + at, (r->offset + at) / SECTOR);
        g_array_append_val(hashes, h);
    }
    return hashes;
}

void content_load(Content *content, const BdrvSimCut *cut)
{
    int64_t reach = bdrv_simcut_length(cut);
    content->cut = cut;
    content->simple = is_simple(cut);
    for (unsigned i = 0; i < bdrv_simcut_count(cut); i++) {
        const SimEntry *entry = sim_cut_entry(cut, i);
        reach = MAX(reach, entry->request.offset + entry->request.bytes);
        if (content->simple && !g_hash_table_contains(content->entry_hashes, entry)) {
            g_hash_table_insert(content->entry_hashes, (gpointer)entry, hash_entry(entry));
        }
    }
    reserve(content, reach + SECTOR);
    if (!content->is_loaded || content->loaded != sim_cut_image(cut)->root ||
        content->loaded_length != bdrv_simcut_length(cut)) {
        load_base(content);
    }
}

void content_forget(Content *content)
{
    g_hash_table_remove_all(content->entry_hashes);
    content->is_loaded = false; /* the address may be another image's next */
    content->cut = NULL;
}

/* ---- hash ---- */

static void set_sector(Content *content, uint32_t sector, uint64_t hash, uint64_t *sum)
{
    if (content->stamp[sector] != content->round) {
        content->stamp[sector] = content->round;
        content->now[sector] = content->base_hash[sector];
        g_array_append_val(content->touched, sector);
    }
    *sum ^= content->now[sector] ^ hash;
    content->now[sector] = hash;
}

typedef struct Part {
    int64_t from, to; /* bytes of the request */
} Part;

/* What of the request's bytes takes effect, and how far it makes the disk reach. */
static unsigned parts_of(const BdrvSimRequest *r, const BdrvSimChoice *choice, Part parts[2], int64_t *length)
{
    int64_t from = MIN((int64_t)choice->tear_from * SECTOR, r->bytes);
    int64_t to = CLAMP((int64_t)choice->tear_to * SECTOR, from, r->bytes), end = 0;
    parts[0] = parts[1] = (Part){ 0, 0 };
    switch (choice->fate) {
    case BDRV_SIM_LOST:
        return 0;
    case BDRV_SIM_KEPT:
    case BDRV_SIM_DATA_ONLY:
    case BDRV_SIM_SIZE_ONLY:
        parts[0].to = r->bytes;
        break;
    case BDRV_SIM_TORN_INSIDE:
        parts[0] = (Part){ from, to };
        break;
    case BDRV_SIM_TORN_OUTSIDE:
        parts[0] = (Part){ 0, from };
        parts[1] = (Part){ to, r->bytes };
        break;
    }
    for (unsigned i = 0; i < 2; i++) {
        end = parts[i].from < parts[i].to ? r->offset + parts[i].to : end;
    }
    if (r->kind != BDRV_SIM_DISCARD && choice->fate != BDRV_SIM_DATA_ONLY) {
        *length = MAX(*length, end);
    }
    return choice->fate == BDRV_SIM_SIZE_ONLY ? 0 : 2;
}

static BdrvSimChoice choice_of(const Content *content, const BdrvSimChoice *choices, unsigned i)
{
    BdrvSimRequest request = bdrv_simcut_nth(content->cut, i);
    return sim_effective_choice(&request, choices[i]);
}

static uint64_t hash_simple(Content *content, const BdrvSimChoice *choices, int64_t *length)
{
    uint64_t sum = content->base_sum;
    *length = bdrv_simcut_length(content->cut);
    if (++content->round == 0) { /* very long runs */
        memset(content->stamp, 0, (size_t)(content->capacity / SECTOR) * sizeof(uint32_t));
        content->round = 1;
    }
    g_array_set_size(content->touched, 0);
    for (unsigned i = 0; i < bdrv_simcut_count(content->cut); i++) {
        BdrvSimChoice choice = choice_of(content, choices, i);
        const SimEntry *entry = sim_cut_entry(content->cut, i);
        const BdrvSimRequest *r = &entry->request;
        Part parts[2];
        if (choice.fate == BDRV_SIM_LOST) {
            continue;
        }
        if (r->kind == BDRV_SIM_TRUNCATE) {
            *length = choice.fate == BDRV_SIM_DATA_ONLY ? *length : r->offset;
            continue;
        }
        const GArray *hashes = g_hash_table_lookup(content->entry_hashes, entry);
        for (unsigned p = 0, n = parts_of(r, &choice, parts, length); p < n; p++) {
            for (int64_t s = parts[p].from / SECTOR; s < parts[p].to / SECTOR; s++) {
                set_sector(content, (uint32_t)(r->offset / SECTOR + s), hashes->len ? g_array_index(hashes, uint64_t, s) : 0,
                           &sum);
            }
        }
    }
    for (unsigned i = 0; i < content->touched->len; i++) { /* bytes without their size are not there */
        uint32_t sector = g_array_index(content->touched, uint32_t, i);
        sum ^= (int64_t)sector * SECTOR >= *length ? content->now[sector] : 0;
    }
    return sum;
}

static uint64_t hash_flat(Content *content, const BdrvSimChoice *choices, int64_t *length)
{
    const uint8_t *bytes = content_bytes(content, choices, length);
    uint64_t sum = 0;
    for (int64_t s = 0; s * SECTOR < *length; s++) {
        sum ^= hash_sector(bytes + s * SECTOR, s);
    }
    return sum;
}

uint64_t content_hash(Content *content, const BdrvSimChoice *choices)
{
    int64_t length;
    uint64_t sum = content->simple ? hash_simple(content, choices, &length) : hash_flat(content, choices, &length);
    return mix(sum + mix((uint64_t)length));
}

/* ---- bytes ---- */

static void apply(const Content *content, const SimEntry *entry, const BdrvSimChoice *choice, int64_t *length)
{
    const BdrvSimRequest *r = &entry->request;
    Part parts[2];
    if (r->kind == BDRV_SIM_TRUNCATE) {
        if (choice->fate == BDRV_SIM_KEPT || choice->fate == BDRV_SIM_SIZE_ONLY) {
            memset(content->work + r->offset, 0, (size_t)(content->capacity - r->offset));
            *length = r->offset;
        }
        return;
    }
    for (unsigned p = 0, n = parts_of(r, choice, parts, length); p < n; p++) {
        uint8_t *at = content->work + r->offset + parts[p].from;
        size_t bytes = (size_t)(parts[p].to - parts[p].from);
        if (r->kind == BDRV_SIM_WRITE) {
            memcpy(at, entry->data + parts[p].from, bytes);
        } else {
            memset(at, 0, bytes);
        }
    }
}

const uint8_t *content_bytes(Content *content, const BdrvSimChoice *choices, int64_t *length)
{
    int64_t reach = MAX(content->work_dirty, content->loaded_length);
    *length = bdrv_simcut_length(content->cut);
    memcpy(content->work, content->base, (size_t)reach);
    for (unsigned i = 0; i < bdrv_simcut_count(content->cut); i++) {
        BdrvSimChoice choice = choice_of(content, choices, i);
        const SimEntry *entry = sim_cut_entry(content->cut, i);
        apply(content, entry, &choice, length);
        content->work_dirty = MAX(content->work_dirty, entry->request.offset + entry->request.bytes);
    }
    memset(content->work + *length, 0, (size_t)(MAX(content->work_dirty, *length) - *length));
    content->work_dirty = MAX(content->work_dirty, *length);
    return content->work;
}
