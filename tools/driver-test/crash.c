/* SPDX-License-Identifier: MIT */
/* Power losses at every call, with what was not flushed lost, kept or torn. */
#include "tools/driver-test/kit.h"

#define STEPS 48
#define MOST_GROWTH (512 * 1024)

/* The disk after a step. */
typedef struct Moment {
    uint8_t *model;
    int64_t length;
    int64_t fua_offset, fua_bytes; /* durable when the step has ended */
} Moment;

typedef struct Cut {
    KitCut *cut;
    unsigned done, flushed; /* steps that had ended, and those that a flush had made durable */
} Cut;

typedef struct Search {
    KitDisk *disk;
    GArray *cuts;
    Moment after[STEPS + 1];
    int64_t longest;        /* the disk ever was */
    unsigned done, flushed; /* steps */
} Search;

static void take_cut(void *opaque, BdrvSimDisk *sim, const BdrvSimRequest *request)
{
    Search *search = opaque;
    Cut cut = { kit_cut(search->disk), search->done, search->flushed };

    g_array_append_val(search->cuts, cut);
}

static void note_moment(Search *search)
{
    Moment *moment = &search->after[search->done];

    moment->model = g_memdup2(search->disk->model, (gsize)search->disk->length);
    moment->length = search->disk->length;
    search->longest = MAX(search->longest, moment->length);
}

/* ---- what is done ---- */

static void resize(KitDisk *disk, int64_t first_length)
{
    int64_t most = first_length + MOST_GROWTH, length = 65536 + kit_draw(disk, most - 65536 + 1) / 512 * 512;

    if (kit_draw(disk, 2)) { /* often by little: within what the last block has */
        length = disk->length + (kit_draw(disk, 65) - 32) * 512;
    }
    kit_resize(disk, CLAMP(length, 65536, most));
}

static void step(Search *search)
{
    KitDisk *disk = search->disk;
    int64_t offset, bytes, kind = kit_draw(disk, 12);

    kit_range(disk, &offset, &bytes);
    kit_note("step %u:", search->done + 1);
    switch (kind) {
    case 0:
    case 1:
        kit_flush(disk);
        search->flushed = search->done;
        break;
    case 2:
        kit_zero(disk, offset, bytes, BDRV_REQ_MAY_UNMAP);
        break;
    case 3:
        kit_discard(disk, offset, bytes);
        break;
    case 4:
        resize(disk, search->after[0].length);
        break;
    default:
        kit_write(disk, offset, bytes, kind == 5 ? BDRV_REQ_FUA : 0);
    }
    search->done++;
    if (kind == 5) {
        search->after[search->done].fua_offset = offset;
        search->after[search->done].fua_bytes = bytes;
    }
    note_moment(search);
}

static void begin(Search *search, const Kit *kit)
{
    kit_need_crash_safety(kit);
    search->disk = kit_disk_new(kit);
    search->cuts = g_array_new(FALSE, FALSE, sizeof(Cut));
    kit_write(search->disk, 0, search->disk->length / 4, 0);
    kit_flush(search->disk);
    note_moment(search);
}

static void end(Search *search)
{
    for (unsigned i = 0; i < search->cuts->len; i++) {
        kit_cut_free(g_array_index(search->cuts, Cut, i).cut);
    }
    g_array_free(search->cuts, TRUE);
    for (unsigned i = 0; i <= search->done; i++) {
        g_free(search->after[i].model);
    }
    kit_disk_free(search->disk);
}

/* ---- what may be found ---- */

/* The steps whose result a byte may have: from @first, which cannot be lost any more, to @last, begun by
 * then. */
typedef struct Window {
    unsigned first, last;
} Window;

static Window window_of(const Search *search, const Cut *cut, int64_t at)
{
    Window window = { cut->flushed, MIN(cut->done + 1, search->done) };

    for (unsigned i = cut->done; i > cut->flushed; i--) {
        const Moment *moment = &search->after[i];

        if (at >= moment->fua_offset && at < moment->fua_offset + moment->fua_bytes) {
            window.first = i;
            break;
        }
    }
    return window;
}

static int value_at(const Moment *moment, int64_t at)
{
    return at < moment->length ? moment->model[at] : -1;
}

static char *value_text(int value)
{
    return value < 0 ? g_strdup("behind the end") : g_strdup_printf("0x%02x", (unsigned)value);
}

/* @found: -1 if the disk ends before. What a resize cuts off may be zeroed before the length is changed. */
static bool possible(const Search *search, Window window, int64_t at, int found)
{
    bool cut_off = false;

    for (unsigned i = window.first; i <= window.last; i++) {
        cut_off |= i > window.first && at >= search->after[i].length;
        if (value_at(&search->after[i], at) == found) {
            return true;
        }
    }
    return cut_off && found == 0;
}

/* The length of a filter is that of its file, which writes grow too: anything between may be left. */
static void judge_length(const Search *search, const Cut *cut, int64_t length)
{
    Window window = window_of(search, cut, -1);
    bool longer = false, shorter = false;

    for (unsigned i = window.first; i <= window.last; i++) {
        longer |= length >= search->after[i].length;
        shorter |= length <= search->after[i].length;
        if (length == search->after[i].length) {
            return;
        }
    }
    if (kit_is_filter(search->disk->kit) && longer && shorter) {
        return;
    }
    kit_fail("after the power loss the disk has %" PRId64 " bytes, expected %" PRId64
             ", which it had at the flush after step %u, or what one of the steps up to %u made of it",
             length, search->after[window.first].length, window.first, window.last);
}

static void judge_byte(const Search *search, const Cut *cut, int64_t at, int found)
{
    Window window = window_of(search, cut, at);

    if (!possible(search, window, at, found)) {
        g_autofree char *came = value_text(found),
                        *wanted = value_text(value_at(&search->after[window.first], at));

        kit_fail("after the power loss byte %" PRId64 " is %s, expected %s, which cannot be lost since step "
                 "%u, or what one of the steps up to %u wrote",
                 at, came, wanted, window.first, window.last);
    }
}

/* What is as after the last step that ended is right. */
static void judge_bytes(const Search *search, const Cut *cut, const KitDisk *left)
{
    const Moment *last = &search->after[cut->done];
    int64_t both = MIN(left->length, last->length);

    for (int64_t at = kit_differ(left->model, last->model, 0, both); at < both;
         at = kit_differ(left->model, last->model, at + 1, both)) {
        judge_byte(search, cut, at, left->model[at]);
    }
    for (int64_t at = both; at < search->longest; at++) {
        judge_byte(search, cut, at, at < left->length ? left->model[at] : -1);
    }
}

/* What the power loss has left goes on as any image; what was cut off before does not come back. */
static void go_on(KitDisk *left)
{
    kit_write(left, left->length / 2, MIN(left->length - left->length / 2, 5000), 0);
    kit_resize(left, left->length + 200 * 1024);
    kit_expect_all(left);
    kit_again(left);
    kit_expect_all(left);
    kit_expect_sound(left, true);
}

static void judge_image(const Search *search, const Cut *cut, KitFate fate, uint64_t seed)
{
    KitDisk *left = kit_disk_after(search->disk, cut->cut, fate, seed);

    kit_open(left, KIT_RDWR);
    left->length = blk_length(left->blk);
    judge_length(search, cut, left->length);
    kit_expect_sound(left, true);
    g_free(left->model);
    left->model = kit_read_all(left);
    judge_bytes(search, cut, left);
    go_on(left);
    kit_disk_free(left);
}

static void judge_cut(const Search *search, unsigned number)
{
    const Cut *cut = &g_array_index(search->cuts, Cut, number);

    kit_note("---- power loss after call %u, in step %u; flushed up to step %u", number + 1, cut->done + 1,
             cut->flushed);
    kit_note("all that was not flushed is lost");
    judge_image(search, cut, KIT_LOST, 0);
    kit_note("all is kept");
    judge_image(search, cut, KIT_KEPT, 0);
    for (unsigned i = 0; i < 3; i++) {
        kit_note("some is lost, some kept or torn (%u)", i);
        judge_image(search, cut, KIT_MIXED, search->disk->kit->seed + number * 3 + i);
    }
}

static void power_losses(const Kit *kit)
{
    Search search = { .disk = NULL };
    unsigned stride;

    begin(&search, kit);
    kit_set_hook(search.disk, take_cut, &search);
    while (search.done < STEPS) {
        step(&search);
    }
    kit_close(search.disk);
    kit_set_hook(search.disk, NULL, NULL);
    stride = search.cuts->len / MAX(1, kit->cuts) + 1;
    for (unsigned i = 0; i < search.cuts->len; i += stride) {
        judge_cut(&search, i);
    }
    end(&search);
}

/* ---- making an image ---- */

/* Nothing can be lost of an image that is being made: what is left is no image, or a whole one. */
static void judge_half_made(const Search *search, const Cut *cut, KitFate fate, uint64_t seed)
{
    KitDisk *left = kit_disk_after(search->disk, cut->cut, fate, seed);
    g_autoptr(GError) error = NULL;

    if (!kit_try_open(left, KIT_RDWR, &error)) {
        kit_note("... %s", error->message);
        if (bdrv_error_code(error) == EDEADLK) {
            kit_hangs("opening what is left");
        }
    } else {
        kit_first_model(left);
        kit_expect_all(left);
        kit_expect_sound(left, true);
        go_on(left);
    }
    kit_disk_free(left);
}

static void power_losses_in_creation(const Kit *kit)
{
    Search search = { .disk = NULL };
    GError *error = NULL;

    kit_need_crash_safety(kit);
    kit_need_creation(kit);
    search.disk = kit_disk_blank(kit);
    search.cuts = g_array_new(FALSE, FALSE, sizeof(Cut));
    kit_set_hook(search.disk, take_cut, &search);
    if (!kit_create(search.disk, &error)) {
        kit_fail("an image cannot be made: %s", error->message);
    }
    kit_set_hook(search.disk, NULL, NULL);
    for (unsigned i = 0; i < search.cuts->len; i++) {
        const Cut *cut = &g_array_index(search.cuts, Cut, i);

        kit_note("---- power loss after call %u of creation", i + 1);
        judge_half_made(&search, cut, KIT_LOST, 0);
        judge_half_made(&search, cut, KIT_KEPT, 0);
        for (unsigned n = 0; n < 4; n++) {
            judge_half_made(&search, cut, KIT_MIXED, kit->seed + i * 4 + n);
        }
    }
    end(&search);
}

static void power_losses_among_many(const Kit *kit)
{
    kit_need_crash_safety(kit);
    kit_power_losses_among_many(kit);
}

const KitTest crash_tests[] = {
    { "crash/power-loss", "at each call the power may go: what was flushed is there, nothing is corrupt",
      power_losses },
    { "crash/create", "the power goes while an image is made: what can be opened is whole",
      power_losses_in_creation },
    { "crash/among-many", "the same among requests that are under way at once", power_losses_among_many },
    { NULL },
};
