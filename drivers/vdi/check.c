/* SPDX-License-Identifier: MIT */
/* Checking the block map against the file and the header's count, and putting right what differs. */
#include <errno.h>
#include <inttypes.h>

#include "drivers/vdi/vdi.h"

typedef enum Finding {
    OUTSIDE_FILE,
    SHARED_PLACE,
    COUNT_TOO_LOW,
    LEAKED_PLACES,
} Finding;

static const BdrvCheckKind kinds[] = {
    [OUTSIDE_FILE] = {
        BDRV_CHECK_CORRUPTION, "outside-file", "The block map refers to a place that lies past the end of the file",
        "What was stored there is not in the file: it was cut short, or the entry is wrong. Reading it fails.",
        "-r all makes the block read as zeroes. Look for a longer copy of the file before.",
    },
    [SHARED_PLACE] = {
        BDRV_CHECK_CORRUPTION, "shared-block", "Two blocks of the disk have the same place in the file",
        "Writing one changes the other. One of them may show the data of the other already.",
        "-r all gives the second one a copy of what it shows.",
    },
    [COUNT_TOO_LOW] = {
        BDRV_CHECK_CORRUPTION, "block-count-too-low", "The header counts fewer places than the block map uses",
        "What the last blocks hold: other programs take their place for free. Do not write to the image with them.",
        "-r all writes the right count.",
    },
    [LEAKED_PLACES] = {
        BDRV_CHECK_LEAK, "leaked-block", "The header counts places that no block of the disk has",
        "Space only: no data is wrong. A crash leaves them behind.",
        "-r leaks and -r all move the last blocks there and make the file shorter.",
    },
};

typedef struct Scan {
    uint32_t outside, shared;
    uint32_t used, end;
    bool count_too_low;
    int64_t leaks;
} Scan;

static int64_t corruptions(const Scan *scan)
{
    return (int64_t)scan->outside + scan->shared + scan->count_too_low;
}

static void G_GNUC_PRINTF(3, 4) tell(const BdrvCheckResult *result, Finding finding, const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list args;

    if (!result || !result->report) {
        return;
    }
    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    result->report(result->report_opaque, &kinds[finding], text);
}

/* First entry that does not lie in the file. */
static int coroutine_fn index_limit(BlockDriverState *bs, uint32_t *limit)
{
    const VdiState *s = bs->opaque;
    int64_t length = bdrv_co_getlength(bs->file);

    if (length < 0) {
        return (int)length;
    }
    *limit = vdi_count_places(&s->header, length);
    return 0;
}

/* @taken: who has which place, guest block + 1; entries of a damaged map may be anywhere in a sparse file. */
static void look_at(const VdiState *s, uint32_t block, uint32_t limit, GHashTable *taken, Scan *scan,
                    const BdrvCheckResult *result)
{
    uint32_t entry = vdi_entry(s, block);

    if (entry >= VDI_ENTRY_ZERO) {
        return;
    }
    if (entry >= limit) {
        scan->outside++;
        tell(result, OUTSIDE_FILE, "ERROR: block index %" PRIu32 " too large, is %" PRIu32, block, entry);
        return;
    }
    uint32_t other = GPOINTER_TO_UINT(g_hash_table_lookup(taken, GUINT_TO_POINTER(entry)));
    if (other) {
        scan->shared++;
        tell(result, SHARED_PLACE, "ERROR: block index %" PRIu32 " of block %" PRIu32 " also used by block %" PRIu32,
             entry, block, other - 1);
        return;
    }
    g_hash_table_insert(taken, GUINT_TO_POINTER(entry), GUINT_TO_POINTER(block + 1));
    scan->used++;
    scan->end = MAX(scan->end, entry + 1);
}

/* @result: whom to tell, NULL: nobody */
static int coroutine_fn scan_map(BlockDriverState *bs, Scan *scan, const BdrvCheckResult *result)
{
    const VdiState *s = bs->opaque;
    g_autoptr(GHashTable) taken = g_hash_table_new(NULL, NULL);
    uint32_t limit = 0, count = s->header.blocks_in_file;
    int ret = index_limit(bs, &limit);

    if (ret < 0) {
        return ret;
    }
    *scan = (Scan){ 0 };
    for (uint32_t i = 0; i < s->header.blocks; i++) {
        look_at(s, i, limit, taken, scan, result);
    }
    scan->count_too_low = count < scan->end;
    if (scan->count_too_low) {
        tell(result, COUNT_TOO_LOW, "ERROR: allocated blocks mismatch, is %" PRIu32 ", should be %" PRIu32, count,
             scan->end);
    }
    scan->leaks = (int64_t)MAX(count, scan->end) - scan->used;
    if (scan->leaks) {
        tell(result, LEAKED_PLACES, "Leaked blocks: %" PRId64 " of %" PRIu32 " are not used", scan->leaks,
             MAX(count, scan->end));
    }
    return 0;
}

/* ---- repair ---- */

static int coroutine_fn repair_entry(BlockDriverState *bs, uint32_t block, uint32_t limit, GHashTable *taken)
{
    VdiState *s = bs->opaque;
    uint32_t entry = vdi_entry(s, block);

    if (entry >= VDI_ENTRY_ZERO) {
        return 0;
    }
    if (entry >= limit) {
        vdi_set_entry(s, block, VDI_ENTRY_FREE);
        return 0;
    }
    if (g_hash_table_add(taken, GUINT_TO_POINTER(entry))) {
        return 0;
    }
    int64_t copy = vdi_take_place(s);
    int ret = copy < 0 ? (int)copy : vdi_copy_place(bs, entry, (uint32_t)copy);
    if (ret >= 0) {
        vdi_set_entry(s, block, (uint32_t)copy);
    }
    return ret;
}

static int coroutine_fn repair_map(BlockDriverState *bs)
{
    VdiState *s = bs->opaque;
    g_autoptr(GHashTable) taken = g_hash_table_new(NULL, NULL);
    uint32_t limit = 0;
    int ret = index_limit(bs, &limit);

    for (uint32_t i = 0; ret >= 0 && i < s->header.blocks; i++) {
        ret = repair_entry(bs, i, limit, taken);
    }
    if (ret >= 0) {
        ret = vdi_commit(bs);
    }
    if (ret >= 0 && s->header.blocks_in_file < s->next) { /* nothing but the count was wrong */
        VdiHeader header = s->header;

        header.blocks_in_file = s->next;
        ret = vdi_write_header(bs, &header);
    }
    if (ret >= 0) {
        s->damage = (VdiDamage){ 0 };
        s->index_limit = UINT32_MAX;
    }
    return ret;
}

/* @scan comes in as it was found, and goes out as it is then, or would be. */
static int coroutine_fn repair(BlockDriverState *bs, Scan *scan, BdrvCheckFix fix)
{
    int ret = 0;

    if (fix & BDRV_FIX_DRY_RUN) {
        bool sound = corruptions(scan) == 0 || (fix & BDRV_FIX_ERRORS);
        int64_t leaks = sound && (fix & BDRV_FIX_LEAKS) ? 0 : scan->leaks;
        *scan = (Scan){ .outside = sound ? 0 : (uint32_t)corruptions(scan), .leaks = leaks };
        return 0;
    }
    if (corruptions(scan) && (fix & BDRV_FIX_ERRORS)) {
        ret = repair_map(bs);
        if (ret >= 0) {
            ret = scan_map(bs, scan, NULL);
        }
    }
    if (ret >= 0 && scan->leaks && corruptions(scan) == 0 && (fix & BDRV_FIX_LEAKS)) {
        ret = vdi_compact(bs);
        if (ret >= 0) {
            ret = scan_map(bs, scan, NULL);
        }
    }
    return ret;
}

int coroutine_fn vdi_check(BlockDriverState *bs, BdrvCheckResult *result, BdrvCheckFix fix)
{
    Scan found, left;
    int ret = vdi_commit(bs);

    if (ret >= 0) {
        ret = scan_map(bs, &found, result);
    }
    if (ret < 0) {
        return ret;
    }
    left = found;
    ret = repair(bs, &left, fix);
    if (ret < 0) {
        return ret;
    }
    result->corruptions = corruptions(&left);
    result->corruptions_fixed = corruptions(&found) - result->corruptions;
    result->leaks = left.leaks;
    result->leaks_fixed = MAX(found.leaks - left.leaks, 0);
    return 0;
}
