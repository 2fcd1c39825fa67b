/* SPDX-License-Identifier: MIT */
#include "tests/crash/vdi.h"

#include <string.h>

#define NO_PLACE 0xfffffffeu /* from here on */
#define FIXED 2

/* Little-endian; past the end of the file there are zeroes. */
static uint64_t number(const Oracle *o, uint64_t offset, unsigned width)
{
    uint64_t value = 0;
    for (unsigned i = width; i-- > 0;) {
        uint64_t at = offset + i;
        value = value << 8 | (at < (uint64_t)o->length ? o->bytes[at] : 0);
    }
    return value;
}

static uint32_t entry(const Oracle *o, uint64_t block)
{
    return (uint32_t)number(o, o->vdi.map + block * 4, 4);
}

/* Header of version 1.1; no parent, no extra bytes in front of blocks. */
static void read_header(Oracle *o)
{
    VdiPlaces *v = &o->vdi;
    *v = (VdiPlaces){
        .map = (uint32_t)number(o, 340, 4),
        .data = (uint32_t)number(o, 344, 4),
        .block_size = (uint32_t)number(o, 376, 4),
        .blocks = (uint32_t)number(o, 384, 4),
        .counted = (uint32_t)number(o, 388, 4),
        .fixed = number(o, 76, 4) == FIXED,
    };
    o->size = number(o, 368, 8);
    if (number(o, 68, 4) != 0x10001 || number(o, 360, 4) != 512 || number(o, 380, 4) != 0) {
        fault(o, "the header is not one of version 1.1 with sectors of 512 bytes");
    } else if (v->block_size < 512 || (v->block_size & (v->block_size - 1))) {
        fault(o, "blocks have %u bytes", v->block_size);
    } else if (o->size > (uint64_t)v->blocks * v->block_size) {
        fault(o, "%u blocks do not reach to the size %" G_GUINT64_FORMAT, v->blocks, o->size);
    } else if (v->map < 512 || v->map % 512 || v->data % 512 || v->map + (uint64_t)v->blocks * 4 > v->data) {
        fault(o, "a map of %u blocks at 0x%x, data at 0x%x", v->blocks, v->map, v->data);
    } else if (v->map + (uint64_t)v->blocks * 4 > (uint64_t)o->length) {
        fault(o, "the map ends behind the file of %" G_GINT64_FORMAT " bytes", o->length);
    }
}

/* Whose a place is, is noted in o->clusters: there are no more places than sectors. */
static void walk_map(Oracle *o)
{
    const VdiPlaces *v = &o->vdi;
    uint32_t used = 0;
    memset(o->clusters, 0, sizeof(*o->clusters) * (size_t)o->cluster_capacity);
    for (uint32_t block = 0; block < v->blocks && !o->fault[0]; block++) {
        uint32_t place = entry(o, block);
        if (place >= NO_PLACE) {
            if (v->fixed) {
                fault(o, "block %u of a fixed image has no place", block);
            }
            continue;
        }
        if (place >= v->counted) {
            fault(o, "block %u has place %u, the header counts %u", block, place, v->counted);
        } else if (v->data + (uint64_t)place * v->block_size >= (uint64_t)o->length) {
            fault(o, "block %u has place %u, which lies behind the file of %" G_GINT64_FORMAT " bytes", block, place,
                  o->length);
        } else if (o->clusters[place].references++) {
            fault(o, "block %u has place %u, which another one has", block, place);
        }
        used++;
    }
    o->leaks = (int64_t)v->counted - used;
}

void vdi_judge(Oracle *o, const uint8_t *bytes, int64_t length)
{
    oracle_prepare(o, bytes, length);
    o->is_image = number(o, 64, 4) == 0xbeda107f;
    if (o->is_image) {
        read_header(o);
    }
    if (o->is_image && !o->fault[0]) {
        walk_map(o);
    }
}

OracleKind vdi_sector(const Oracle *o, int64_t n, const uint8_t **data)
{
    static const uint8_t zeroes[512];
    const VdiPlaces *v = &o->vdi;
    uint64_t guest = (uint64_t)n * 512;
    uint32_t place = entry(o, guest / v->block_size);
    if (place >= NO_PLACE) {
        return ORACLE_ZERO;
    }
    uint64_t at = v->data + (uint64_t)place * v->block_size + guest % v->block_size;
    *data = at < (uint64_t)o->length ? o->bytes + at : zeroes;
    return ORACLE_DATA;
}
