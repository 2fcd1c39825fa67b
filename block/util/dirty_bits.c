/* SPDX-License-Identifier: MIT */
#include "block/util/dirty_bits.h"

#include <stdlib.h>
#include <string.h>

#define WORD_BITS 64u

static uint64_t divide_up(uint64_t value, unsigned shift)
{
    return (value >> shift) + ((value & ((UINT64_C(1) << shift) - 1)) != 0);
}

static uint64_t words_of(uint64_t count)
{
    return count / WORD_BITS + (count % WORD_BITS != 0);
}

/* A word of memory that others may be changing. */
static uint64_t load(const BdrvDirtyBits *bits, uint64_t word)
{
    return __atomic_load_n(&bits->words[word], __ATOMIC_RELAXED);
}

uint64_t bdrv_dirty_bits_bytes(unsigned granularity_bits, uint64_t length)
{
    return words_of(divide_up(length, granularity_bits)) * sizeof(uint64_t);
}

BdrvDirtyBits *bdrv_dirty_bits_new(unsigned granularity_bits, uint64_t length)
{
    BdrvDirtyBits *bits = g_try_new0(BdrvDirtyBits, 1);
    uint64_t count = divide_up(length, granularity_bits);

    if (!bits) {
        return NULL;
    }
    bits->words = calloc(words_of(count) + 1, sizeof(uint64_t)); /* zero pages until they are touched */
    if (!bits->words) {
        g_free(bits);
        return NULL;
    }
    bits->refs = 1;
    bits->granularity_bits = granularity_bits;
    bits->length = length;
    bits->count = count;
    return bits;
}

BdrvDirtyBits *bdrv_dirty_bits_ref(BdrvDirtyBits *bits)
{
    if (bits) {
        bits->refs++;
    }
    return bits;
}

void bdrv_dirty_bits_free(BdrvDirtyBits *bits)
{
    if (bits && --bits->refs == 0) {
        free(bits->words);
        g_free(bits);
    }
}

/* Bits [first, end) of word @word. */
static uint64_t mask_of(uint64_t word, uint64_t first, uint64_t end)
{
    uint64_t begin = word * WORD_BITS, mask = UINT64_MAX;
    if (first > begin) {
        mask &= UINT64_MAX << (first - begin);
    }
    if (end < begin + WORD_BITS) {
        mask &= (UINT64_C(1) << (end - begin)) - 1;
    }
    return mask;
}

BdrvDirtyBits *bdrv_dirty_bits_copy(const BdrvDirtyBits *bits, uint64_t length)
{
    BdrvDirtyBits *copy = bdrv_dirty_bits_new(bits->granularity_bits, length);
    uint64_t count = copy ? MIN(copy->count, bits->count) : 0;

    for (uint64_t word = 0; word < words_of(count); word++) {
        uint64_t value = load(bits, word) & mask_of(word, 0, count);
        if (value) { /* others stay zero pages */
            copy->words[word] = value;
        }
    }
    return copy;
}

void bdrv_dirty_bits_set(BdrvDirtyBits *bits, uint64_t offset, uint64_t bytes)
{
    uint64_t first = offset >> bits->granularity_bits;
    uint64_t end = bytes ? ((offset + bytes - 1) >> bits->granularity_bits) + 1 : first;

    end = MIN(end, bits->count);
    for (uint64_t word = first / WORD_BITS; first < end && word <= (end - 1) / WORD_BITS; word++) {
        uint64_t mask = mask_of(word, first, end);
        if ((load(bits, word) & mask) != mask) {
            __atomic_fetch_or(&bits->words[word], mask, __ATOMIC_RELAXED);
            atomic_store_explicit(&bits->changed, true, memory_order_relaxed);
        }
    }
}

/* The first bit from @from on that is @value, at most the count. */
static uint64_t find(const BdrvDirtyBits *bits, uint64_t from, bool value)
{
    while (from < bits->count) {
        uint64_t word = from / WORD_BITS, found = load(bits, word);
        found = (value ? found : ~found) & (UINT64_MAX << (from % WORD_BITS));
        if (found) {
            return MIN(word * WORD_BITS + (unsigned)__builtin_ctzll(found), bits->count);
        }
        from = (word + 1) * WORD_BITS;
    }
    return bits->count;
}

bool bdrv_dirty_bits_next(const BdrvDirtyBits *bits, int64_t offset, int64_t *start, int64_t *bytes)
{
    uint64_t from = (uint64_t)MAX(offset, 0), first = find(bits, from >> bits->granularity_bits, true);
    if (from >= bits->length || first == bits->count) {
        return false;
    }
    uint64_t begin = MAX(first << bits->granularity_bits, from), end = find(bits, first, false);
    end = end == bits->count ? bits->length : end << bits->granularity_bits;
    *start = (int64_t)begin;
    *bytes = (int64_t)(end - begin);
    return true;
}

int64_t bdrv_dirty_bits_granularity(const BdrvDirtyBits *bits)
{
    return INT64_C(1) << bits->granularity_bits;
}

int64_t bdrv_dirty_bits_length(const BdrvDirtyBits *bits)
{
    return (int64_t)bits->length;
}

BdrvBitsKind bdrv_dirty_bits_export(const BdrvDirtyBits *bits, uint64_t first, uint64_t bytes, uint8_t *buf)
{
    uint64_t all = UINT64_MAX, any = 0, words = words_of(bits->count);

    for (uint64_t at = 0; at < bytes; at += sizeof(uint64_t)) {
        uint64_t word = (first + at) / sizeof(uint64_t), value = word < words ? load(bits, word) : 0;
        uint64_t in_file = GUINT64_TO_LE(value);
        memcpy(buf + at, &in_file, sizeof(in_file));
        all &= value;
        any |= value;
    }
    return any == 0 ? BDRV_BITS_ZEROES : all == UINT64_MAX ? BDRV_BITS_ONES : BDRV_BITS_MIXED;
}

void bdrv_dirty_bits_import(BdrvDirtyBits *bits, uint64_t first, uint64_t bytes, const uint8_t *buf)
{
    uint64_t words = words_of(bits->count);

    for (uint64_t at = 0; at < bytes; at += sizeof(uint64_t)) {
        uint64_t word = (first + at) / sizeof(uint64_t), in_file = UINT64_MAX;
        if (word >= words) {
            return;
        }
        if (buf) {
            memcpy(&in_file, buf + at, sizeof(in_file));
        }
        uint64_t value = GUINT64_FROM_LE(in_file) & mask_of(word, 0, bits->count);
        if (value) {
            bits->words[word] |= value;
        }
    }
}
