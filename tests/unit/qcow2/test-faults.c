/* SPDX-License-Identifier: MIT */
/*
 * Fault search: in each script every call of the file below fails in turn. Afterwards what the guest reads is
 * the old or the new content, byte by byte; a power loss leaves nothing worse and no corruption; and
 * the same node carries on.
 */

#include <errno.h>
#include <string.h>

#include "drivers/qcow2/meta/cluster_set.h"
#include "drivers/qcow2/meta/meta.h"
#include "tests/unit/qcow2/rig.h"
#include "tests/unit/qcow2/surgery.h"

#define K 1024
#define SIZE (256 * K)
#define GROWN (288 * K)
#define BACKING_BYTES (150 * K + 512)
#define BACKING_FILL 7

/* ---- model: bit v of a mask says "may be the value v", 0 .. 7 ---- */

typedef struct Model {
    int64_t size;
    uint8_t now[GROWN];    /* what the guest may read */
    uint8_t medium[GROWN]; /* what a power loss may leave */
} Model;

static void model_fill(Model *model, int64_t offset, int64_t bytes, uint8_t fill, bool surely)
{
    uint8_t bit = (uint8_t)(1u << fill);
    for (int64_t i = offset; i < offset + bytes; i++) {
        model->now[i] = surely ? bit : model->now[i] | bit;
        model->medium[i] |= bit;
    }
}

static void model_flushed(Model *model)
{
    memcpy(model->medium, model->now, sizeof(model->medium));
}

static void model_init(Model *model, int64_t backing_bytes)
{
    model->size = SIZE;
    model_fill(model, 0, GROWN, 0, true);
    model_fill(model, 0, backing_bytes, BACKING_FILL, true);
    model_flushed(model);
}

/* ---- scripts ---- */

typedef enum StepKind { END, WRITE, ZERO, ZERO_UNMAP, DISCARD, FLUSH, RESIZE, CLOSE } StepKind;

typedef struct Step {
    StepKind kind;
    int64_t offset, bytes; /* RESIZE: bytes is the new size */
    uint8_t fill;
} Step;

typedef struct Script {
    const char *what;
    int64_t cluster_size;
    bool backing, shared; /* shared: with a snapshot, as it were */
    bool compressed;      /* cluster size 4096 */
    BdrvPrealloc prealloc;
    Step steps[8];
} Script;

typedef struct Run {
    const Script *script;
    const char *options;
    BdrvSimDisk *disk;
    Rig rig;
    Model model;
    uint64_t cuts;
} Run;

typedef struct Fault {
    unsigned kinds;
    int error, count;
    bool below; /* of the backing file */
} Fault;

/* ---- an image ---- */

static BdrvChild *coroutine_fn open_backing(const Script *script)
{
    return script->backing ? rig_backing("b", BACKING_BYTES, BACKING_FILL) : NULL;
}

static void coroutine_fn start(Run *run)
{
    const Script *script = run->script;
    RigImage image = { .disk = "d", .size = SIZE, .cluster_size = script->cluster_size };
    run->disk = rig_create(&image);
    model_init(&run->model, script->backing ? BACKING_BYTES : 0);
    run->rig = rig_open("d", "", open_backing(script));
    g_assert_cmpint(rig_write(&run->rig, 0, 64 * K, 1), ==, 0);
    model_fill(&run->model, 0, 64 * K, 1, true);
    g_assert_cmpint(rig_close(&run->rig), ==, 0);
    model_flushed(&run->model);
    if (script->compressed) {
        surgery_compress(run->disk, 64 * K / 4096);
        rig_assert_clean("d");
    }
    if (script->shared) {
        surgery_share(run->disk);
    }
    run->rig = rig_open("d", run->options, open_backing(script));
}

static void coroutine_fn assert_no_corruption(const char *name)
{
    BdrvCheckResult result;
    g_assert_cmpint(rig_check(name, &result), ==, 0);
    g_assert_cmpint(result.corruptions, ==, 0);
    g_assert_cmpint(result.check_errors, ==, 0);
}

/* Every byte of @rig is one of what its mask allows. */
static void coroutine_fn assert_one_of(const Rig *rig, const uint8_t *masks, int64_t size, uint8_t *buf)
{
    g_assert_cmpint(rig_read(rig, 0, size, buf), ==, 0);
    for (int64_t i = 0; i < size; i++) {
        if (buf[i] > 7 || !(masks[i] >> buf[i] & 1)) {
            g_error("byte %" G_GINT64_FORMAT " is %u, not one of 0x%x", i, buf[i], masks[i]);
        }
    }
}

/* What the guest reads is allowed, and stays so. */
static void coroutine_fn assert_view(Run *run)
{
    g_autofree uint8_t *buf = g_malloc(GROWN);
    assert_one_of(&run->rig, run->model.now, run->model.size, buf);
    for (int64_t i = 0; i < run->model.size; i++) {
        run->model.now[i] = (uint8_t)(1u << buf[i]);
    }
    rig_verify(&run->rig);
}

static void coroutine_fn assert_left(Run *run, BdrvSimCut *cut, const BdrvSimChoice *choices,
                                     const uint8_t *masks, int64_t size)
{
    g_autoptr(BdrvSimDisk) left = bdrv_simcut_disk(cut, choices, "left");
    g_autofree uint8_t *buf = g_malloc(GROWN);

    assert_no_corruption("left");
    BdrvChild *backing = run->script->backing ? test_must_open("simdisk", "disk=b", NULL) : NULL;
    Rig rig = rig_open("left", "", backing);
    assert_one_of(&rig, masks, MIN(rig.child->bs->length, size), buf);
    g_assert_cmpint(rig_close(&rig), ==, 0);
}

/* What a power loss leaves: at the least, and one of all the ways that are possible. */
static void coroutine_fn assert_cut(Run *run)
{
    g_autoptr(BdrvSimCut) cut = bdrv_simdisk_cut(run->disk);
    g_autofree BdrvSimChoice *choices = g_new0(BdrvSimChoice, bdrv_simcut_count(cut) + 1);

    /* As of now: reading compressed clusters takes time, in which others go on. */
    g_autofree uint8_t *masks = g_memdup2(run->model.medium, sizeof(run->model.medium));
    int64_t size = run->model.size;

    assert_left(run, cut, NULL, masks, size);
    bdrv_simcut_random(cut, run->cuts++, choices);
    assert_left(run, cut, choices, masks, size);
}

/* ---- steps ---- */

static int coroutine_fn resize(Run *run, int64_t bytes)
{
    BlockDriverState *bs = run->rig.child->bs;
    GError *error = NULL;

    bs->drv->bdrv_drain_begin(bs);
    bool ok = bs->drv->bdrv_truncate(bs, bytes, true, run->script->prealloc, 0, &error);
    bs->drv->bdrv_drain_end(bs);
    int ret = ok ? 0 : -bdrv_error_code(error);
    g_clear_error(&error);
    g_assert_cmpint(bs->length, ==, ok ? bytes : run->model.size);
    run->model.size = bs->length;
    return ret;
}

static int coroutine_fn take_step(Run *run, const Step *step)
{
    BdrvChild *child = run->rig.child;
    int ret = 0;

    switch (step->kind) {
    case END:
        break;
    case WRITE:
        ret = rig_write(&run->rig, step->offset, step->bytes, step->fill);
        model_fill(&run->model, step->offset, step->bytes, step->fill, ret >= 0);
        break;
    case ZERO:
    case ZERO_UNMAP:
        ret = bdrv_co_pwrite_zeroes(child, step->offset, step->bytes,
                                    step->kind == ZERO ? 0 : BDRV_REQ_MAY_UNMAP);
        model_fill(&run->model, step->offset, step->bytes, 0, ret >= 0);
        break;
    case DISCARD:
        ret = bdrv_co_pdiscard(child, step->offset, step->bytes);
        model_fill(&run->model, step->offset, step->bytes, 0, ret >= 0);
        break;
    case FLUSH:
        ret = bdrv_co_flush(child);
        if (ret >= 0) {
            model_flushed(&run->model);
        }
        break;
    case RESIZE:
        ret = resize(run, step->bytes);
        break;
    case CLOSE:
        ret = bdrv_co_flush(child); /* as the backend does */
        int closed = rig_close(&run->rig);
        ret = ret < 0 ? ret : closed;
        if (ret >= 0) {
            model_flushed(&run->model);
        }
        break;
    }
    return ret < 0 ? ret : 0;
}

/* All steps, whatever fails; the first error. */
static int coroutine_fn carry_out(Run *run)
{
    int first = 0;
    for (const Step *step = run->script->steps; step->kind != END; step++) {
        int ret = take_step(run, step);
        first = first ? first : ret;
    }
    return first;
}

/* ---- the search ---- */

static void coroutine_fn must_flush(Run *run)
{
    g_assert_cmpint(bdrv_co_flush(run->rig.child), ==, 0);
    model_flushed(&run->model);
    assert_cut(run);
}

static void coroutine_fn carry_on(Run *run)
{
    if (!run->rig.child) { /* closed, in some way */
        run->rig = rig_open("d", run->options, open_backing(run->script));
        memcpy(run->model.now, run->model.medium, sizeof(run->model.now)); /* not flushed: lost or not */
        assert_view(run);
        assert_cut(run);
    } else {
        assert_view(run);
        assert_cut(run);
        must_flush(run);
    }
    g_assert_cmpint(carry_out(run), ==, 0);
    if (run->rig.child) {
        assert_view(run);
        must_flush(run);
        g_assert_cmpint(rig_close(&run->rig), ==, 0);
    }
    assert_no_corruption("d");
    run->rig = rig_open("d", "", open_backing(run->script));
    assert_view(run);
    g_assert_cmpint(rig_close(&run->rig), ==, 0);
}

/* Returns whether there was an nth call. */
static bool coroutine_fn fail_nth(const Script *script, const char *options, const Fault *fault, unsigned nth)
{
    g_autofree Run *run = g_new0(Run, 1);
    run->script = script;
    run->options = options;
    start(run);
    g_autoptr(BdrvSimDisk) disk = fault->below ? bdrv_simdisk_find("b") : bdrv_simdisk_find("d");
    uint64_t before = bdrv_simdisk_count(disk, fault->kinds);
    bdrv_simdisk_fail(disk, fault->kinds, nth, fault->count, fault->error);
    int ret = carry_out(run);
    bool reached = bdrv_simdisk_count(disk, fault->kinds) - before >= nth;
    bdrv_simdisk_fail_none(disk);
    if (ret != 0 && !(reached && (ret == -fault->error || ret == -EIO))) {
        g_error("answers %d, %s", ret, reached ? "another error" : "but nothing failed");
    }
    g_clear_pointer(&disk, bdrv_simdisk_unref);
    carry_on(run);
    bdrv_simdisk_unref(run->disk);
    return reached;
}

static const Script scripts[] = {
    { "allocating write", 512, .steps = { { WRITE, 64 * K, 40 * K, 2 }, { FLUSH } } },
    { "allocating write of large clusters", 4096,
      .steps = { { WRITE, 64 * K + 300, 40 * K, 2 }, { FLUSH } } },
    { "overwrite", 512, .steps = { { WRITE, 3 * K, 20 * K, 2 }, { FLUSH } } },
    { "unaligned write over a backing file", 4096, .backing = true,
      .steps = { { WRITE, 100 * K + 100, 9000, 2 }, { WRITE, 148 * K + 1, 5000, 3 }, { FLUSH } } },
    { "write over shared clusters", 4096, .shared = true,
      .steps = { { WRITE, 3 * K + 100, 20 * K, 2 },
                 { FLUSH },
                 { WRITE, 3 * K, 20 * K, 3 },
                 { FLUSH },
                 { FLUSH } } },
    { "write over shared small clusters", 512, .shared = true,
      .steps = { { WRITE, 3 * K + 100, 20 * K, 2 },
                 { FLUSH },
                 { DISCARD, 0, 60 * K },
                 { FLUSH },
                 { FLUSH } } },
    { "write zeroes", 512,
      .steps = { { ZERO, 3 * K, 20 * K }, { FLUSH }, { WRITE, 3 * K + 7, 700, 2 }, { FLUSH }, { FLUSH } } },
    { "write zeroes and unmap", 4096, .backing = true,
      .steps = { { ZERO_UNMAP, 3 * K, 120 * K },
                 { FLUSH },
                 { WRITE, 70 * K + 7, 700, 2 },
                 { FLUSH },
                 { FLUSH } } },
    { "discard", 4096,
      .steps = { { DISCARD, 4 * K, 32 * K },
                 { FLUSH },
                 { WRITE, 100 * K, 32 * K, 2 },
                 { FLUSH },
                 { FLUSH } } },
    { "discard and use again", 512,
      .steps = { { DISCARD, 0, 64 * K },
                 { FLUSH },
                 { FLUSH },
                 { WRITE, 100 * K, 60 * K, 2 },
                 { FLUSH },
                 { DISCARD, 100 * K, 30 * K },
                 { WRITE, 10 * K, 30 * K, 3 } } },
    { "write over compressed clusters", 4096, .compressed = true,
      .steps = { { WRITE, 3 * K + 100, 20 * K, 2 },
                 { FLUSH },
                 { FLUSH },
                 { DISCARD, 0, 64 * K },
                 { FLUSH },
                 { FLUSH },
                 { WRITE, 100 * K, 30 * K, 3 } } },
    { "resize", 512, .steps = { { WRITE, 64 * K, 8 * K, 2 }, { RESIZE, 0, GROWN } } },
    { "resize over a backing file", 4096, .backing = true,
      .steps = { { WRITE, 64 * K, 8 * K, 2 }, { RESIZE, 0, GROWN } } },
    { "resize with space for all", 512, .prealloc = BDRV_PREALLOC_METADATA,
      .steps = { { WRITE, 64 * K, 8 * K, 2 }, { RESIZE, 0, GROWN } } },
    { "close", 512, .steps = { { WRITE, 60 * K, 20 * K, 2 }, { DISCARD, 0, 8 * K }, { CLOSE } } },
    { "close after overwriting", 512, .steps = { { WRITE, 10 * K, 20 * K, 2 }, { CLOSE } } },
};

static const Fault faults[] = {
    { BDRV_SIM_WRITE, EIO, 1 },
    { BDRV_SIM_WRITE, ENOSPC, 1 },
    { BDRV_SIM_WRITE, EIO, -1 },
    { BDRV_SIM_WRITE, ENOSPC, -1 },
    { BDRV_SIM_READ, EIO, 1 },
    { BDRV_SIM_READ, EIO, -1 },
    { BDRV_SIM_FLUSH, EIO, 1 },
    { BDRV_SIM_FLUSH, EIO, -1 },
    { BDRV_SIM_DISCARD | BDRV_SIM_ZERO | BDRV_SIM_TRUNCATE, EIO, 1 },
    { BDRV_SIM_READ, EIO, 1, .below = true },
};

/* A body that waits for ever would leave the deterministic run without a sound. */
static void (*body_to_end)(void);
static bool ended;

static void coroutine_fn go_to_end(void)
{
    body_to_end();
    ended = true;
}

static void run_to_end(gconstpointer body)
{
    body_to_end = (void (*)(void))body;
    ended = false;
    test_run(go_to_end);
    g_assert_true(ended);
}

static const Script *current;

static void coroutine_fn search(void)
{
    static const char *const caches[] = { "",
                                          "l2-cache-size=1k,refcount-cache-size=1k,l2-cache-entry-size=512" };
    unsigned places = 0;
    for (unsigned i = 0; i < G_N_ELEMENTS(faults) * G_N_ELEMENTS(caches); i++) {
        const Fault *fault = &faults[i / G_N_ELEMENTS(caches)];
        const char *options = caches[i % G_N_ELEMENTS(caches)];
        if (fault->below && !current->backing) {
            continue;
        }
        for (unsigned nth = 1;; nth++, places++) {
            if (g_test_verbose()) {
                g_test_message("kinds 0x%x error %d count %d, call %u, '%s'", fault->kinds, fault->error,
                               fault->count, nth, options);
            }
            if (!fail_nth(current, options, fault, nth)) {
                break;
            }
        }
    }
    g_test_message("%u places", places);
}

static void run_script(gconstpointer data)
{
    current = data;
    run_to_end(search);
}

/* ---- what a failed growth leaves in the file ---- */

static void coroutine_fn leftovers_never_show(void)
{
    /* A new L1 table that needs three refcount blocks; the third cannot be written. */
    const RigImage image = { .disk = "d", .size = SIZE, .cluster_size = K, .refcount_bits = 64 };
    g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", "", NULL);
    bdrv_simdisk_fail(disk, BDRV_SIM_WRITE, 3, 1, EIO);
    g_assert_cmpint(qcow2_meta_grow_l1(rig.child->bs, 255 * K / 8), ==, -EIO);
    bdrv_simdisk_fail_none(disk);
    for (int64_t at = 0; at < SIZE; at += K) {
        g_assert_cmpint(rig_write(&rig, at, 512, 5), ==, 0);
        rig_assert_filled(&rig, at + 512, 512, 0);
    }
    g_assert_cmpint(rig_close(&rig), ==, 0);
    assert_no_corruption("d");
}

/* ---- compressed clusters that share a host cluster ---- */

typedef struct Sharers {
    BlockDriverState *bs;
    uint64_t host_offset;
    unsigned discards;
} Sharers;

static void count_discards(void *opaque, BdrvSimDisk *disk, const BdrvSimRequest *request)
{
    Sharers *sharers = opaque;
    int64_t at = (int64_t)sharers->host_offset;
    if (request->kind == BDRV_SIM_DISCARD && request->offset <= at && at < request->offset + request->bytes) {
        sharers->discards++;
    }
}

static void coroutine_fn commit_often(void *opaque)
{
    Sharers *sharers = opaque;
    for (unsigned i = 0; i < 20; i++) {
        g_assert_cmpint(qcow2_meta_commit(sharers->bs), ==, 0);
    }
}

/* Guest clusters 1 and 2 in one host cluster, whose offset is returned. */
static uint64_t coroutine_fn make_sharers(BdrvSimDisk *disk)
{
    enum { CLUSTER = 4096 };
    Rig rig = rig_open("d", "", NULL);
    g_assert_cmpint(rig_write(&rig, 0, CLUSTER, 1), ==, 0);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    uint64_t host_offset = ((uint64_t)bdrv_simdisk_length(disk) + CLUSTER - 1) / CLUSTER * CLUSTER;
    uint64_t table = surgery_peek(disk, surgery_peek(disk, 40, 8), 8) & QCOW2_OFFSET_MASK;
    surgery_poke(disk, host_offset + CLUSTER - 8, 8, 1);
    surgery_set_refcount(disk, host_offset, 2);
    surgery_poke(disk, table + 8, 8, qcow2_compressed_descriptor(host_offset, 1000, 12));
    surgery_poke(disk, table + 16, 8, qcow2_compressed_descriptor(host_offset + 1024, 1000, 12));
    assert_no_corruption("d");
    return host_offset;
}

static void coroutine_fn shared_host_cluster_is_punched_once(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&(RigImage){ .disk = "d", .size = SIZE, .cluster_size = 4096 });
    Sharers sharers = { .host_offset = make_sharers(disk) };
    Rig rig = rig_open("d", "", NULL);
    sharers.bs = rig.child->bs;
    bdrv_simdisk_set_hook(disk, count_discards, &sharers);
    bdrv_simdisk_set_delay(disk, 0, 20000);
    g_assert_cmpint(bdrv_co_pdiscard(rig.child, 4096, 4096), ==, 0);
    g_assert_cmpint(bdrv_co_pdiscard(rig.child, 8192, 4096), ==, 0);
    for (unsigned i = 0; i < 3; i++) {
        test_start(commit_often, &sharers);
    }
    co_sleep_until(aio_clock_ns(aio_context_current()) + G_GINT64_CONSTANT(1000000000));
    g_assert_cmpuint(sharers.discards, ==, 1);
    bdrv_simdisk_set_hook(disk, NULL, NULL);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    rig_assert_clean("d");
}

/* ---- the map of metadata, read while it grows ---- */

#define SETS 4000u

typedef struct Sets {
    Qcow2ClusterSet sets[SETS];
    _Atomic unsigned current;
} Sets;

static void *look_for_absent(void *opaque)
{
    Sets *sets = opaque;
    unsigned at;
    uintptr_t wrong = 0;
    for (uint64_t i = 1; (at = atomic_load(&sets->current)) < SETS; i++) {
        wrong += qcow2_cluster_set_has_any(&sets->sets[at], (i | UINT64_C(1) << 40) * 64, 64);
    }
    return (void *)wrong;
}

static void absent_is_not_found_while_others_are_added(void)
{
    g_autofree Sets *sets = g_new0(Sets, 1);
    pthread_t thread;
    void *wrong;
    for (unsigned i = 0; i < SETS; i++) {
        g_assert_true(qcow2_cluster_set_init(&sets->sets[i]));
    }
    pthread_create(&thread, NULL, look_for_absent, sets);
    while (atomic_load(&sets->current) < SETS) {
        unsigned at = atomic_load(&sets->current);
        for (uint64_t i = 0; i < 30; i++) {
            g_assert_true(qcow2_cluster_set_add(&sets->sets[at], (i * SETS + at) * 64, 64));
        }
        atomic_store(&sets->current, at + 1);
    }
    pthread_join(thread, &wrong);
    g_assert_cmpuint((uintptr_t)wrong, ==, 0);
    for (unsigned i = 0; i < SETS; i++) {
        qcow2_cluster_set_destroy(&sets->sets[i]);
    }
}

/* ---- a cluster freed behind a search that waits for a refcount block ---- */

static void coroutine_fn release_later(void *opaque)
{
    BlockDriverState *bs = opaque;
    co_sleep_until(aio_clock_ns(aio_context_current()) + 55000); /* while the search loads its sixth slice */
    qcow2_release_clusters(bs, 20 * 512, 1);
}

static void coroutine_fn freed_behind_a_search_is_found(void)
{
    g_autoptr(BdrvSimDisk) disk =
        rig_create(&(RigImage){ .disk = "d", .size = SIZE, .cluster_size = 512, .refcount_bits = 64 });
    Rig rig = rig_open("d", "", NULL);
    g_assert_cmpint(rig_write(&rig, 0, SIZE, 1), ==, 0);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    rig = rig_open("d", "l2-cache-entry-size=512", NULL);
    bdrv_simdisk_set_delay(disk, 10000, 10000);
    test_start(release_later, rig.child->bs);
    Qcow2Allocation got;
    g_assert_cmpint(qcow2_alloc_clusters(rig.child->bs, 0, 1, &got), ==, 0);
    g_assert_cmpuint(got.host_offset, >, 512 * 512);
    g_assert_cmpint(qcow2_alloc_clusters(rig.child->bs, 0, 1, &got), ==, 0);
    g_assert_cmpuint(got.host_offset, ==, 20 * 512);
    rig_close(&rig);
}

/* ---- settling among others ---- */

typedef struct Settler {
    Rig *rig;
    unsigned running;
    bool settled;
} Settler;

static void coroutine_fn keep_dropping(void *opaque)
{
    Settler *settler = opaque;
    for (unsigned i = 0; i < 3000 && !settler->settled; i++) {
        g_assert_cmpint(rig_write(settler->rig, 0, 4096, 1), ==, 0);
        g_assert_cmpint(bdrv_co_pdiscard(settler->rig->child, 0, 4096), ==, 0);
    }
    settler->running--;
}

static void coroutine_fn settling_ends_among_droppers(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&(RigImage){ .disk = "d", .size = SIZE, .cluster_size = 4096 });
    Rig rig = rig_open("d", "", NULL);
    Settler settler = { .rig = &rig, .running = 1 };
    g_assert_cmpint(rig_write(&rig, 8192, 4096, 2), ==, 0);
    g_assert_cmpint(bdrv_co_pdiscard(rig.child, 8192, 4096), ==, 0);
    bdrv_simdisk_set_delay(disk, 1000, 20000);
    test_start(keep_dropping, &settler);
    g_assert_cmpint(qcow2_meta_settle(rig.child->bs), ==, 0);
    g_assert_cmpuint(settler.running, ==, 1);
    settler.settled = true;
    while (settler.running) {
        co_sleep_until(aio_clock_ns(aio_context_current()) + 100000);
    }
    g_assert_cmpint(rig_close(&rig), ==, 0);
    rig_assert_clean("d");
}

/* ---- a full host file ---- */

static void coroutine_fn zeroes_use_what_was_freed(void)
{
    const RigImage image = { .disk = "d", .size = 4096 * K, .cluster_size = 4096 };
    g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", "", NULL);
    g_assert_cmpint(rig_write(&rig, 0, 64 * K, 1), ==, 0);
    g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
    bdrv_simdisk_set_capacity(disk, bdrv_simdisk_allocated(disk));
    g_assert_cmpint(bdrv_co_pdiscard(rig.child, 0, 64 * K), ==, 0);
    /* Another L2 table. */
    g_assert_cmpint(bdrv_co_pwrite_zeroes(rig.child, 3072 * K, 64 * K, BDRV_REQ_NO_FALLBACK), ==, 0);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    rig_assert_clean("d");
}

/* ---- faults at random, many at once ---- */

#define GUESTS 5
#define STRIPE 1000 /* of each guest in turn, up to SIZE / 2: they share clusters */

/* Each guest has bytes of its own: stripes in the lower half of the disk, and a run of the upper half. */
typedef struct Guest {
    Run *run;
    unsigned number;
    uint64_t random;
    unsigned *running;
} Guest;

static void before_change(Model *model, int64_t offset, int64_t bytes, uint8_t fill)
{
    model_fill(model, offset, bytes, fill, false);
}

static void coroutine_fn guest_change(Guest *guest)
{
    Run *run = guest->run;
    unsigned what = (unsigned)test_random_below(&guest->random, 6);
    int64_t begin, bytes;
    if (what < 3) {
        int64_t stripes = SIZE / 2 / (STRIPE * GUESTS);
        begin = (test_random_below(&guest->random, stripes) * GUESTS + guest->number) * STRIPE;
        bytes = STRIPE;
    } else {
        int64_t own = SIZE / 2 / GUESTS;
        begin = SIZE / 2 + own * guest->number + test_random_below(&guest->random, own - 1);
        bytes = 1 + test_random_below(&guest->random, SIZE / 2 + own * (guest->number + 1) - begin);
    }
    Step step = { what < 4    ? WRITE
                  : what == 4 ? (test_random_below(&guest->random, 2) ? ZERO : ZERO_UNMAP)
                              : DISCARD,
                  begin, bytes, (uint8_t)(what < 4 ? 1 + test_random_below(&guest->random, 6) : 0) };
    before_change(&run->model, begin, bytes, step.fill);
    if (step.kind == DISCARD) { /* a hint: whole clusters only */
        bdrv_co_pdiscard(run->rig.child, begin, bytes);
    } else {
        take_step(run, &step);
    }
}

static void coroutine_fn guest_flush(Guest *guest)
{
    Model *model = &guest->run->model;
    if (bdrv_co_flush(guest->run->rig.child) < 0) {
        return;
    }
    int64_t own = SIZE / 2 / GUESTS, begin = SIZE / 2 + own * guest->number;
    memcpy(model->medium + begin, model->now + begin, (size_t)own);
    for (int64_t at = guest->number * STRIPE; at + STRIPE <= SIZE / 2; at += GUESTS * STRIPE) {
        memcpy(model->medium + at, model->now + at, STRIPE);
    }
}

static void coroutine_fn guest_entry(void *opaque)
{
    Guest *guest = opaque;
    for (unsigned i = 0; i < 60; i++) {
        if (test_random_below(&guest->random, 8) == 0) {
            guest_flush(guest);
        } else {
            guest_change(guest);
        }
    }
    --*guest->running;
}

static void coroutine_fn run_guests(Run *run, uint64_t seed)
{
    static const unsigned kinds[] = { BDRV_SIM_WRITE, BDRV_SIM_READ, BDRV_SIM_FLUSH, BDRV_SIM_DISCARD,
                                      BDRV_SIM_ANY };
    Guest guests[GUESTS];
    unsigned running = GUESTS;
    uint64_t random = seed;

    for (unsigned i = 0; i < GUESTS; i++) {
        guests[i] = (Guest){ .run = run, .number = i, .random = seed * GUESTS + i, .running = &running };
        test_start(guest_entry, &guests[i]);
    }
    while (running) {
        bdrv_simdisk_fail_none(run->disk);
        bdrv_simdisk_fail(run->disk, kinds[test_random_below(&random, G_N_ELEMENTS(kinds))],
                          1 + (unsigned)test_random_below(&random, 40),
                          1 + (int)test_random_below(&random, 3),
                          test_random_below(&random, 3) ? EIO : ENOSPC);
        co_sleep_until(aio_clock_ns(aio_context_current()) + test_random_below(&random, 1000000));
        assert_cut(run);
    }
    bdrv_simdisk_fail_none(run->disk);
}

static void coroutine_fn random_faults(void)
{
    static const Script plans[] = {
        { "512", 512 },
        { "4096", 4096 },
        { "shared", 4096, .shared = true },
        { "backing", 4096, .backing = true },
        { "compressed", 4096, .compressed = true },
        { "compressed, small caches", 4096, .compressed = true },
    };
    uint64_t seed = test_seed();
    for (unsigned i = 0; i < 12; i++) {
        g_autofree Run *run = g_new0(Run, 1);
        run->script = &plans[i % G_N_ELEMENTS(plans)];
        run->options = i & 1 ? "" : "l2-cache-size=1k,refcount-cache-size=1k,l2-cache-entry-size=512";
        start(run);
        bdrv_simdisk_set_delay(run->disk, 0, 20000);
        run_guests(run, seed + i);
        bdrv_simdisk_set_delay(run->disk, 0, 0);
        assert_view(run);
        must_flush(run);
        g_assert_cmpint(rig_close(&run->rig), ==, 0);
        assert_no_corruption("d");
        run->rig = rig_open("d", "", open_backing(run->script));
        assert_view(run);
        g_assert_cmpint(rig_close(&run->rig), ==, 0);
        bdrv_simdisk_unref(run->disk);
    }
}

static void add(const char *path, void (*body)(void))
{
    g_test_add_data_func(path, body, run_to_end);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(scripts); i++) {
        g_autofree char *path = g_strdup_printf("/qcow2/faults/any call may fail: %s", scripts[i].what);
        g_test_add_data_func(path, &scripts[i], run_script);
    }
    add("/qcow2/faults/what a failed growth left never shows", leftovers_never_show);
    add("/qcow2/faults/a host cluster that was shared is punched once", shared_host_cluster_is_punched_once);
    g_test_add_func("/qcow2/faults/the metadata map does not find what is absent",
                    absent_is_not_found_while_others_are_added);
    add("/qcow2/faults/what is freed behind a search is found by the next", freed_behind_a_search_is_found);
    add("/qcow2/faults/settling ends though others go on dropping", settling_ends_among_droppers);
    add("/qcow2/faults/write zeroes on a full host file uses what was freed", zeroes_use_what_was_freed);
    add("/qcow2/faults/faults at random among concurrent requests", random_faults);
    return g_test_run();
}
