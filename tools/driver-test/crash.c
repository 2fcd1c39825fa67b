/* SPDX-License-Identifier: MIT */
/* Power losses at every call, with what was not flushed lost, kept or torn. */
#include "tools/driver-test/kit.h"

#define STEPS 40

typedef struct Cut {
    BdrvSimCut *cut;
    unsigned done, flushed; /* steps that had ended, and those that a flush had made durable */
} Cut;

typedef struct Search {
    KitDisk *disk;
    GArray *cuts;
    uint8_t *after[STEPS + 1];                           /* the model after so many steps */
    int64_t fua_offset[STEPS + 1], fua_bytes[STEPS + 1]; /* durable when the step has ended */
    unsigned done, flushed;
} Search;

static void take_cut(void *opaque, BdrvSimDisk *sim, const BdrvSimRequest *request)
{
    Search *search = opaque;
    Cut cut = { bdrv_simdisk_cut(sim), search->done, search->flushed };

    g_array_append_val(search->cuts, cut);
}

static void step(Search *search)
{
    KitDisk *disk = search->disk;
    int64_t offset, bytes, kind = kit_draw(disk, 8);

    kit_range(disk, &offset, &bytes);
    /* What a step in flight would give is known before it is begun. */
    if (kind == 0) {
        kit_flush(disk);
        search->flushed = search->done;
    } else if (kind == 1) {
        kit_zero(disk, offset, bytes, BDRV_REQ_MAY_UNMAP);
    } else {
        kit_write(disk, offset, bytes, kind == 2 ? BDRV_REQ_FUA : 0);
    }
    search->done++;
    if (kind == 2) {
        search->fua_offset[search->done] = offset;
        search->fua_bytes[search->done] = bytes;
    }
    search->after[search->done] = g_memdup2(disk->model, (gsize)disk->length);
}

/* The first step whose result the byte may have: later ones may be lost, it may not. */
static unsigned first_possible(const Search *search, const Cut *cut, int64_t at)
{
    for (unsigned i = cut->done; i > cut->flushed; i--) {
        if (at >= search->fua_offset[i] && at < search->fua_offset[i] + search->fua_bytes[i]) {
            return i;
        }
    }
    return cut->flushed;
}

static void judge_bytes(const Search *search, const Cut *cut, const uint8_t *found)
{
    unsigned last = MIN(cut->done + 1, search->done);

    for (int64_t at = 0; at < search->disk->length; at++) {
        bool possible = found[at] == search->after[cut->flushed][at] && search->after[last][at] == found[at];

        for (unsigned i = first_possible(search, cut, at); !possible && i <= last; i++) {
            possible = found[at] == search->after[i][at];
        }
        if (!possible) {
            kit_fail("after the power loss byte %" PRId64
                     " is 0x%02x, expected 0x%02x, which was flushed after step %u,"
                     " or what one of the steps up to %u wrote",
                     at, found[at], search->after[cut->flushed][at], cut->flushed, last);
        }
    }
}

static void judge_image(const Search *search, const Cut *cut, const BdrvSimChoice *choices)
{
    char *name = kit_sim_name();
    KitDisk *left = kit_disk_on(search->disk, bdrv_simcut_disk(cut->cut, choices, name), name);
    g_autofree uint8_t *found = NULL;

    kit_open(left, KIT_RDWR);
    if (blk_length(left->blk) != search->disk->length) {
        kit_fail("after the power loss the disk has %" PRId64 " bytes, expected %" PRId64,
                 blk_length(left->blk), search->disk->length);
    }
    kit_expect_sound(left, true);
    found = kit_read_all(left);
    judge_bytes(search, cut, found);
    kit_disk_free(left);
}

static void judge_cut(const Search *search, unsigned number)
{
    const Cut *cut = &g_array_index(search->cuts, Cut, number);
    unsigned count = bdrv_simcut_count(cut->cut);
    g_autofree BdrvSimChoice *choices = g_new0(BdrvSimChoice, count + 1);

    kit_note("---- power loss after call %u, in step %u; flushed up to step %u", number + 1, cut->done + 1,
             cut->flushed);
    kit_note("all that was not flushed is lost");
    judge_image(search, cut, NULL);
    for (unsigned i = 0; i < count; i++) {
        choices[i].fate = BDRV_SIM_KEPT;
    }
    kit_note("all is kept");
    judge_image(search, cut, choices);
    for (unsigned i = 0; i < 3; i++) {
        kit_note("some is lost, some kept or torn (%u)", i);
        bdrv_simcut_random(cut->cut, search->disk->kit->seed + number * 3 + i, choices);
        judge_image(search, cut, choices);
    }
}

static void clear_cut(void *cut)
{
    bdrv_simcut_unref(((Cut *)cut)->cut);
}

static void power_losses(const Kit *kit)
{
    Search search = { .disk = NULL };
    unsigned stride;

    if (!kit->crash_safe) {
        kit_skip("nobody claims that the driver is crash safe: --crash-safe");
    }
    search.disk = kit_disk_new(kit);
    search.cuts = g_array_new(FALSE, FALSE, sizeof(Cut));
    g_array_set_clear_func(search.cuts, clear_cut);
    kit_write(search.disk, 0, search.disk->length / 4, 0);
    kit_flush(search.disk);
    search.after[0] = g_memdup2(search.disk->model, (gsize)search.disk->length);
    bdrv_simdisk_set_hook(search.disk->sim, take_cut, &search);
    for (unsigned i = 0; i < STEPS; i++) {
        step(&search);
    }
    kit_close(search.disk);
    bdrv_simdisk_set_hook(search.disk->sim, NULL, NULL);
    stride = search.cuts->len / MAX(1, kit->cuts) + 1;
    for (unsigned i = 0; i < search.cuts->len; i += stride) {
        judge_cut(&search, i);
    }
    g_array_free(search.cuts, TRUE);
    for (unsigned i = 0; i <= STEPS; i++) {
        g_free(search.after[i]);
    }
    kit_disk_free(search.disk);
}

const KitTest crash_tests[] = {
    { "crash/power-loss", "at each call the power may go: what was flushed is there, nothing is corrupt",
      power_losses },
    { NULL },
};
