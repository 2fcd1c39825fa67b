/* SPDX-License-Identifier: MIT */
/*
 * Crash search: run short sequences of operations on a simulated disk, cut the power after every
 * request, and check every image that the cut may leave: no corruption, flushed data there, every
 * other sector old or new.
 *
 *   crash                     short form, as a TAP test
 *   crash --length N          all sequences up to N operations
 *   crash --shard I/N         only the I-th of N parts (from 0)
 *   crash --random --minutes M [--seed S]   random longer sequences
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/crash/images.h"
#include "tests/crash/states.h"

typedef enum OpKind {
    OP_WRITE,
    OP_UNALIGNED,
    OP_ZEROES,
    OP_DISCARD,
    OP_FLUSH,
    OP_KINDS,
} OpKind;

typedef struct Op {
    OpKind kind;
    int64_t offset, bytes;
    BdrvRequestFlags flags;
    uint8_t fill;
} Op;

#define MAX_OPS 24

/* What each sector may read as: values since the last flush that completed. */
typedef struct Model {
    uint8_t now[CRASH_SECTORS];
    uint8_t may[CRASH_SECTORS][MAX_OPS + 1];
    uint8_t count[CRASH_SECTORS];
} Model;

typedef struct Moment {
    BdrvSimCut *cut;
    Model model;
} Moment;

typedef struct Search {
    const CrashImage *image;
    unsigned all_up_to;
    unsigned length;
    unsigned shard, shards;
    bool random;
    gint64 deadline; /* monotonic microseconds; 0: none */
    uint64_t seed;
    unsigned qemu_every; /* so many states between two asked from qemu-img; 0: never */
    bool expect_failure; /* stop at the first finding, quietly */

    Model model; /* of the sequence that runs */
    GPtrArray *moments;
    uint8_t base[CRASH_SECTORS];
    GHashTable *seen;
    uint64_t states, distinct, leaks, sequences, qemu_checked;
    const char *failure; /* what was found wrong */
} Search;

/* ---- model ---- */

static void model_allow(Model *model, unsigned sector, uint8_t value)
{
    for (unsigned i = 0; i < model->count[sector]; i++) {
        if (model->may[sector][i] == value) {
            return;
        }
    }
    model->may[sector][model->count[sector]++] = value;
}

static void model_init(Model *model, const uint8_t base[CRASH_SECTORS])
{
    memset(model, 0, sizeof(*model));
    memcpy(model->now, base, CRASH_SECTORS);
    for (unsigned i = 0; i < CRASH_SECTORS; i++) {
        model_allow(model, i, base[i]);
    }
}

static void model_begin(Model *model, const Op *op)
{
    for (int64_t at = op->offset; at < op->offset + op->bytes; at += 512) {
        model_allow(model, (unsigned)(at / 512), op->fill);
        model->now[at / 512] = op->fill;
    }
}

static void model_flushed(Model *model)
{
    for (unsigned i = 0; i < CRASH_SECTORS; i++) {
        model->count[i] = 1;
        model->may[i][0] = model->now[i];
    }
}

static bool model_accepts(const Model *model, const uint8_t *content)
{
    for (unsigned sector = 0; sector < CRASH_SECTORS; sector++) {
        const uint8_t *bytes = content + sector * 512;
        bool found = false;
        for (unsigned i = 0; i < model->count[sector] && !found; i++) {
            found = model->may[sector][i] == bytes[0];
        }
        if (!found || memcmp(bytes, bytes + 1, 511) != 0) {
            g_test_message("sector %u reads as 0x%02x", sector, bytes[0]);
            return false;
        }
    }
    return true;
}

/* ---- running a sequence ---- */

static void on_request(void *opaque, BdrvSimDisk *disk, const BdrvSimRequest *request)
{
    Search *search = opaque;
    if (request->kind != BDRV_SIM_READ) {
        Moment *moment = g_new(Moment, 1);
        moment->cut = bdrv_simdisk_cut(disk);
        moment->model = search->model;
        g_ptr_array_add(search->moments, moment);
    }
}

static void moment_free(gpointer data)
{
    Moment *moment = data;
    bdrv_simcut_unref(moment->cut);
    g_free(moment);
}

static int coroutine_fn do_op(const Rig *rig, const Op *op)
{
    switch (op->kind) {
    case OP_WRITE:
    case OP_UNALIGNED:
        return rig_write(rig, op->offset, op->bytes, op->fill);
    case OP_ZEROES:
        return bdrv_co_pwrite_zeroes(rig->child, op->offset, op->bytes, op->flags);
    case OP_DISCARD:
        return bdrv_co_pdiscard(rig->child, op->offset, op->bytes);
    default:
        return bdrv_co_flush(rig->child);
    }
}

static void coroutine_fn run_sequence(Search *search, BdrvSimCut *base, const Op *ops, unsigned count)
{
    BdrvSimDisk *disk = bdrv_simcut_disk(base, NULL, "run");
    model_init(&search->model, search->base);
    bdrv_simdisk_set_hook(disk, on_request, search);
    Rig rig = crash_image_open(search->image, "run", "");
    for (unsigned i = 0; i < count; i++) {
        model_begin(&search->model, &ops[i]);
        g_assert_cmpint(do_op(&rig, &ops[i]), ==, 0);
        if (ops[i].kind == OP_FLUSH) {
            model_flushed(&search->model);
        }
    }
    int ret = rig_close(&rig);
    bdrv_simdisk_set_hook(disk, NULL, NULL);
    if (ret < 0) {
        search->failure = "close failed";
    }
    bdrv_simdisk_unref(disk);
}

/* ---- checking states ---- */

static uint64_t hash_bytes(uint64_t h, const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i + 8 <= size; i += 8) {
        uint64_t word;
        memcpy(&word, bytes + i, 8);
        h = (h ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        h ^= h >> 29;
    }
    return h;
}

static bool is_new(Search *search, BdrvSimDisk *disk, const Model *model)
{
    size_t length = (size_t)bdrv_simdisk_length(disk) & ~(size_t)7;
    g_autofree uint8_t *content = g_malloc(length + 8);
    bdrv_simdisk_peek(disk, 0, content, length);
    uint64_t h = hash_bytes(length, content, length);
    h = hash_bytes(h, (const uint8_t *)model->may, sizeof(model->may));
    h = hash_bytes(h, model->count, sizeof(model->count));
    gint64 *key = g_new(gint64, 1);
    *key = (gint64)h;
    return g_hash_table_add(search->seen, key);
}

static bool have_qemu_img(void)
{
    static int known = -1;
    if (known < 0) {
        g_autofree char *path = g_find_program_in_path("qemu-img");
        known = path != NULL;
    }
    return known;
}

/* 0: clean, 3: leaks only. */
static bool qemu_img_agrees(BdrvSimDisk *disk)
{
    g_autofree char *path = g_strdup_printf("%s/crash-%d.qcow2", g_get_tmp_dir(), (int)getpid());
    g_autofree char *out = NULL, *err = NULL;
    const char *argv[] = { "qemu-img", "check", "-f", "qcow2", path, NULL };
    int status = -1;
    g_assert_cmpint(bdrv_simdisk_export(disk, path), ==, 0);
    g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &out, &err, &status, NULL);
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    if (code != 0 && code != 3) {
        g_test_message("qemu-img check: exit code %d\n%s%s", code, out, err);
        return false;
    }
    remove(path);
    return true;
}

static const char *coroutine_fn find_fault(Search *search, BdrvSimDisk *disk, const Model *model)
{
    BdrvCheckResult result;
    g_autofree uint8_t *content = g_malloc(CRASH_SIZE);

    if (rig_check("state", &result) < 0) {
        return "the image cannot be checked";
    }
    if (result.corruptions || result.check_errors) {
        return "the check finds corruption";
    }
    search->leaks += result.leaks != 0;
    Rig rig = crash_image_open(search->image, "state", "");
    int ret = rig_read(&rig, 0, CRASH_SIZE, content);
    rig_close(&rig);
    if (ret < 0) {
        return "the guest's data cannot be read";
    }
    if (!model_accepts(model, content)) {
        return "a sector is neither old nor new";
    }
    if (search->qemu_every && search->distinct % search->qemu_every == 0 && have_qemu_img()) {
        search->qemu_checked++;
        if (!qemu_img_agrees(disk)) {
            return "qemu-img check finds corruption";
        }
    }
    return NULL;
}

static void show_state(const BdrvSimCut *cut, const BdrvSimChoice *choices, BdrvSimDisk *disk)
{
    g_autofree char *path = g_strdup_printf("%s/crash-state-%d.qcow2", g_get_tmp_dir(), (int)getpid());
    for (unsigned i = 0; i < bdrv_simcut_count(cut); i++) {
        BdrvSimRequest r = bdrv_simcut_nth(cut, i);
        g_test_message("request %" G_GUINT64_FORMAT ": kind %u offset 0x%" G_GINT64_MODIFIER "x bytes %" G_GINT64_FORMAT
                       "%s%s, fate %u (tear %u..%u)",
                       r.number, r.kind, r.offset, r.bytes, r.completed ? " completed" : "",
                       r.durable ? " durable" : "", choices[i].fate, choices[i].tear_from, choices[i].tear_to);
    }
    bdrv_simdisk_export(disk, path);
    g_test_message("the image is in %s", path);
}

typedef struct Visit {
    Search *search;
    const Moment *moment;
} Visit;

static bool coroutine_fn visit_state(void *opaque, const BdrvSimChoice *choices)
{
    Visit *visit = opaque;
    Search *search = visit->search;
    g_autoptr(BdrvSimDisk) disk = bdrv_simcut_disk(visit->moment->cut, choices, "state");

    search->states++;
    if (is_new(search, disk, &visit->moment->model)) {
        search->distinct++;
        search->failure = find_fault(search, disk, &visit->moment->model);
        if (search->failure && !search->expect_failure) {
            show_state(visit->moment->cut, choices, disk);
        }
    }
    return !search->failure;
}

static const char *const op_names[] = { "write", "unaligned", "zeroes", "discard", "flush" };

static char *describe(const Op *ops, unsigned count)
{
    GString *text = g_string_new(NULL);
    for (unsigned i = 0; i < count; i++) {
        g_string_append_printf(text, "%s%s %" G_GINT64_FORMAT "+%" G_GINT64_FORMAT, i ? ", " : "",
                               op_names[ops[i].kind], ops[i].offset, ops[i].bytes);
    }
    return g_string_free(text, FALSE);
}

static bool coroutine_fn search_sequence(Search *search, BdrvSimCut *base, const Op *ops, unsigned count)
{
    search->moments = g_ptr_array_new_with_free_func(moment_free);
    search->sequences++;
    run_sequence(search, base, ops, count);
    for (unsigned i = 0; i < search->moments->len && !search->failure; i++) {
        Moment *moment = g_ptr_array_index(search->moments, i);
        Visit visit = { search, moment };
        states_each(moment->cut, search->all_up_to, visit_state, &visit);
    }
    g_ptr_array_unref(search->moments);
    if (search->failure && !search->expect_failure) {
        g_autofree char *text = describe(ops, count);
        g_test_message("%s: %s: %s", search->image->name, text, search->failure);
    }
    return !search->failure;
}

/* ---- sequences ---- */

/* Places that differ in what they hold: zeroed, dropped, written, end of written and never written, next L2 table. */
static Op make_op(OpKind kind, unsigned variant, int64_t cluster, uint8_t fill)
{
    static const int64_t places[] = { 0, CRASH_SIZE / 8 + 512 * 8, CRASH_SIZE / 4 - 4096, CRASH_SIZE / 2 - 4096 };
    int64_t at = places[variant % G_N_ELEMENTS(places)];
    Op op = { .kind = kind, .fill = fill };
    switch (kind) {
    case OP_WRITE:
        op.offset = at / cluster * cluster;
        op.bytes = 8192;
        break;
    case OP_UNALIGNED:
        op.offset = at + (cluster > 512 ? 512 : 0);
        op.bytes = cluster > 512 ? cluster * 3 / 2 / 512 * 512 : 1536;
        break;
    case OP_ZEROES:
        op.offset = at;
        op.bytes = 8192;
        op.flags = variant & 1 ? BDRV_REQ_MAY_UNMAP : 0;
        op.fill = 0;
        break;
    case OP_DISCARD:
        op.offset = at / cluster * cluster;
        op.bytes = 8192;
        op.fill = 0;
        break;
    default:
        op.fill = 0;
        break;
    }
    return op;
}

static unsigned variants(OpKind kind)
{
    return kind == OP_FLUSH ? 1 : 4;
}

static bool coroutine_fn search_up_to(Search *search, BdrvSimCut *base, Op *ops, unsigned count, uint64_t *index)
{
    for (unsigned kind = 0; kind < OP_KINDS; kind++) {
        for (unsigned v = 0; v < variants(kind); v++) {
            ops[count] = make_op(kind, v, search->image->cluster_size, (uint8_t)(0x80 + count));
            if ((*index)++ % search->shards == search->shard && !search_sequence(search, base, ops, count + 1)) {
                return false;
            }
            if (count + 1 < search->length && !search_up_to(search, base, ops, count + 1, index)) {
                return false;
            }
        }
    }
    return true;
}

static bool coroutine_fn search_random(Search *search, BdrvSimCut *base)
{
    while (g_get_monotonic_time() < search->deadline) {
        Op ops[MAX_OPS];
        unsigned count = 3 + (unsigned)test_random_below(&search->seed, MAX_OPS - 3);
        for (unsigned i = 0; i < count; i++) {
            OpKind kind = (OpKind)test_random_below(&search->seed, OP_KINDS);
            ops[i] = make_op(kind, (unsigned)test_random_below(&search->seed, 8), search->image->cluster_size,
                             (uint8_t)(0x80 + i));
        }
        g_hash_table_remove_all(search->seen);
        if (!search_sequence(search, base, ops, count)) {
            return false;
        }
    }
    return true;
}

static void coroutine_fn search_image(Search *search)
{
    g_autoptr(BdrvSimDisk) disk = crash_image_make(search->image, search->base);
    BdrvSimCut *base = bdrv_simdisk_cut(disk);
    Op ops[MAX_OPS];
    uint64_t index = 0;

    search->seen = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
    if (search->random) {
        search_random(search, base);
    } else {
        search_up_to(search, base, ops, 0, &index);
    }
    g_hash_table_unref(search->seen);
    bdrv_simcut_unref(base);
    g_test_message("%s: %" G_GUINT64_FORMAT " sequences, %" G_GUINT64_FORMAT " states, %" G_GUINT64_FORMAT
                   " distinct (%" G_GUINT64_FORMAT " with leaks), %" G_GUINT64_FORMAT " shown to qemu-img",
                   search->image->name, search->sequences, search->states, search->distinct, search->leaks,
                   search->qemu_checked);
}

/* ---- program ---- */

static Search *current; /* test_run() takes no argument */

static void coroutine_fn body(void)
{
    search_image(current);
}

static bool run_search(Search *search)
{
    current = search;
    test_run(body);
    return !search->failure;
}

#ifdef QCOW2_PLANT_SKIP_LIMBO
static void plant_is_found(void)
{
    for (unsigned i = 0; i < crash_image_count; i++) {
        Search search = { .image = &crash_images[i], .length = 2, .shards = 3, .all_up_to = 6, .expect_failure = true };
        if (!run_search(&search)) {
            g_test_message("found on %s: %s", search.image->name, search.failure);
            return;
        }
    }
    g_test_fail();
}
#else
/* Length 1, and a part of length 2. */
static void short_form(gconstpointer data)
{
    const CrashImage *image = data;
    Search one = { .image = image, .length = 1, .shards = 1, .all_up_to = 5, .qemu_every = 500 };
    g_assert_true(run_search(&one));
    Search two = { .image = image, .length = 2, .shards = 40, .shard = 7, .all_up_to = 4, .qemu_every = 500 };
    g_assert_true(run_search(&two));
}
#endif

static bool full_form(Search what, double minutes)
{
    for (unsigned i = 0; i < crash_image_count; i++) {
        Search search = what;
        search.image = &crash_images[i];
        if (what.random) {
            search.deadline = g_get_monotonic_time() + (gint64)(minutes * 60e6 / crash_image_count);
        }
        if (!run_search(&search)) {
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    gint length = 0, minutes = 1;
    gint64 seed = 0;
    gboolean random = FALSE;
    g_autofree char *shard = NULL;
    const GOptionEntry options[] = {
        { "length", 0, 0, G_OPTION_ARG_INT, &length, "All sequences of up to N operations", "N" },
        { "shard", 0, 0, G_OPTION_ARG_STRING, &shard, "Only the I-th (from 0) of N parts", "I/N" },
        { "random", 0, 0, G_OPTION_ARG_NONE, &random, "Random longer sequences", NULL },
        { "minutes", 0, 0, G_OPTION_ARG_INT, &minutes, "How long --random goes on", "M" },
        { "seed", 0, 0, G_OPTION_ARG_INT64, &seed, "Seed of --random", "S" },
        { NULL },
    };
    g_autoptr(GOptionContext) context = g_option_context_new(NULL);
    g_option_context_add_main_entries(context, options, NULL);
    g_option_context_set_ignore_unknown_options(context, TRUE);
    if (!g_option_context_parse(context, &argc, &argv, NULL)) {
        return 2;
    }
    g_test_init(&argc, &argv, NULL);
    if (length > 0 || random) {
        Search what = { .length = (unsigned)CLAMP(length, 1, MAX_OPS), .shards = 1, .random = random, .all_up_to = 8,
                        .qemu_every = 250, .seed = seed ? (uint64_t)seed : test_seed() };
        if (shard && (sscanf(shard, "%u/%u", &what.shard, &what.shards) != 2 || what.shard >= what.shards)) {
            g_printerr("--shard takes I/N with I from 0 to N - 1\n");
            return 2;
        }
        return full_form(what, minutes) ? 0 : 1;
    }
#ifdef QCOW2_PLANT_SKIP_LIMBO
    g_test_add_func("/crash/skipped limbo is found", plant_is_found);
#else
    for (unsigned i = 0; i < crash_image_count; i++) {
        g_autofree char *path = g_strdup_printf("/crash/short search of an image: %s", crash_images[i].name);
        g_test_add_data_func(path, &crash_images[i], short_form);
    }
#endif
    return g_test_run();
}
