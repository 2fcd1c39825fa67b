/* SPDX-License-Identifier: MIT */
/*
 * Whether the L2 tables are laid out as the header says. That their entries are extended is told by one bit of
 * incompatible_features only; who believes a wrong one takes subcluster bitmaps for clusters, or clusters for bitmaps,
 * and a repair by it would lose the disk. Tables tell for themselves: clusters make no sense as bitmaps, nor do bitmaps
 * as clusters. qcow2 specification, "Extended L2 Entries".
 */

#include "drivers/qcow2/check.h"

#include <errno.h>
#include <inttypes.h>

#include "block/util/bytes.h"

#define MIN_EXTENDED_BITS 14 /* of a cluster: 16 KiB */
#define ENOUGH 64            /* entries after which one kind of doubt ends */
#define FEWEST 2             /* entries that have to speak for it */

/* Of pairs of 64-bit words: an extended entry, or two standard ones. */
typedef struct Evidence {
    uint64_t limit; /* where clusters end */
    uint64_t seconds, seconds_no_entry, seconds_copied; /* second words that are not 0 */
    bool a_pair_is_no_entry, a_word_is_no_entry;
} Evidence;

static bool is_standard_entry(const Qcow2Check *c, const Evidence *e, uint64_t word)
{
    uint64_t offset = word & QCOW2_OFFSET_MASK;
    if (word & QCOW2_COMPRESSED) {
        uint64_t place = word & ((UINT64_C(1) << (70 - c->s->geometry.cluster_bits)) - 1);
        return !(word & QCOW2_COPIED) && place < c->file_length;
    }
    return !(word & QCOW2_L2_RESERVED) && !(offset & (c->s->geometry.cluster_size - 1)) && offset < e->limit &&
           (offset || !(word & QCOW2_COPIED) || c->s->geometry.data_file);
}

static bool is_extended_entry(const Qcow2Check *c, const Evidence *e, uint64_t entry, uint64_t bitmap)
{
    uint32_t allocated = (uint32_t)bitmap, zero = (uint32_t)(bitmap >> 32);
    if (!is_standard_entry(c, e, entry)) {
        return false;
    }
    if (entry & QCOW2_COMPRESSED) {
        return !bitmap;
    }
    bool placed = qcow2_raw_is_placed((Qcow2RawEntry){ entry, bitmap }, &c->s->geometry);
    return !(entry & QCOW2_L2_ZERO) && (placed ? !(allocated & zero) : !allocated);
}

static void weigh(const Qcow2Check *c, Evidence *e, uint64_t first, uint64_t second)
{
    bool second_is_entry = is_standard_entry(c, e, second);
    e->a_pair_is_no_entry |= !is_extended_entry(c, e, first, second);
    e->a_word_is_no_entry |= !second_is_entry || !is_standard_entry(c, e, first);
    if (second) {
        e->seconds++;
        e->seconds_no_entry += !second_is_entry;
        e->seconds_copied += (second & QCOW2_COPIED) != 0;
    }
}

/* A single damaged entry must not do. */
static bool speaks_for_other(const Qcow2Check *c, const Evidence *e)
{
    if (e->seconds < FEWEST) {
        return false;
    }
    return c->s->geometry.extended_l2 ? !e->a_word_is_no_entry && e->seconds_copied * 2 >= e->seconds
                                      : !e->a_pair_is_no_entry && e->seconds_no_entry >= FEWEST &&
                                            e->seconds_no_entry * 2 >= e->seconds;
}

static bool can_no_longer(const Qcow2Check *c, const Evidence *e)
{
    return c->s->geometry.extended_l2 ? e->a_word_is_no_entry
                                      : e->a_pair_is_no_entry || (e->seconds >= ENOUGH && !speaks_for_other(c, e));
}

/* A disk cut shorter when the power went may have left entries behind its end: all that tables map is possible. */
static uint64_t end_of_clusters(const Qcow2Check *c)
{
    const Qcow2Geometry *g = &c->s->geometry;
    uint64_t most_of_table = (uint64_t)g->cluster_size / 8 * g->cluster_size;
    return g->data_file ? MAX(c->s->header.size, c->s->header.l1_size * most_of_table) : c->file_length;
}

static int coroutine_fn weigh_l2_table(Qcow2Check *c, Evidence *e, uint64_t offset, uint8_t *table)
{
    uint32_t bytes = c->s->geometry.cluster_size;
    if (!offset || (offset & (bytes - 1)) || qcow2_check_outside(c, offset, bytes)) {
        return 0;
    }
    int ret = qcow2_check_pread(c, offset, bytes, table);
    for (uint32_t at = 0; at < bytes && ret >= 0 && !can_no_longer(c, e); at += 16) {
        weigh(c, e, load_be64(table + at), load_be64(table + at + 8));
    }
    co_maybe_yield();
    return ret;
}

/* @count entries of the L1 table */
static int coroutine_fn weigh_tables(Qcow2Check *c, Evidence *e, const uint8_t *l1, uint64_t count, uint8_t *table)
{
    int ret = 0;
    for (uint64_t i = 0; i < count && ret >= 0 && !can_no_longer(c, e); i++) {
        ret = weigh_l2_table(c, e, load_be64(l1 + 8 * i) & QCOW2_OFFSET_MASK, table);
    }
    return ret;
}

/* What cannot be read says nothing; the walk reports it. @piece, @table: a cluster each */
static bool coroutine_fn is_other_layout(Qcow2Check *c, uint8_t *piece, uint8_t *table)
{
    const Qcow2Header *h = &c->s->header;
    uint64_t most = c->s->geometry.cluster_size / 8;
    Evidence e = { .limit = end_of_clusters(c) };
    int ret = 0;
    for (uint64_t done = 0; done < h->l1_size && ret >= 0 && !can_no_longer(c, &e); done += most) {
        uint64_t count = MIN(most, h->l1_size - done);
        ret = qcow2_check_pread(c, h->l1_table_offset + 8 * done, 8 * count, piece);
        ret = ret < 0 ? ret : weigh_tables(c, &e, piece, count, table);
    }
    return ret >= 0 && speaks_for_other(c, &e) && !can_no_longer(c, &e);
}

int coroutine_fn qcow2_check_layout(Qcow2Check *c)
{
    const Qcow2Geometry *g = &c->s->geometry;
    if (g->version < 3 || g->cluster_bits < MIN_EXTENDED_BITS) {
        return 0;
    }
    uint8_t *buffers = g_try_malloc(2 * (size_t)g->cluster_size);
    if (!buffers) {
        return -ENOMEM;
    }
    c->other_layout = is_other_layout(c, buffers, buffers + g->cluster_size);
    g_free(buffers);
    if (c->other_layout) {
        qcow2_check_finding(c, QCOW2_CHECK_L2_LAYOUT,
                            "ERROR incompatible features %" PRIx64
                            ": bit 4 is %s, but the L2 tables have %s entries",
                            c->s->header.incompatible_features, g->extended_l2 ? "set" : "clear",
                            g->extended_l2 ? "standard" : "extended");
    }
    return 0;
}
