/* SPDX-License-Identifier: MIT */
/*
 * Faults at random among concurrent requests: what the guest reads is the old or the new content, byte by byte; a
 * power loss leaves nothing worse and no corruption. And what faults once left behind, one case each. (That every
 * single call may fail in every single operation is tests/faults.)
 */

#include <errno.h>
#include <string.h>

#include "drivers/qcow2/meta/cluster_set.h"
#include "drivers/qcow2/meta/meta.h"
#include "tests/unit/qcow2/rig.h"
#include "tests/unit/qcow2/surgery.h"

#define K 1024
#define SIZE (256 * K)
#define BACKING_BYTES (150 * K + 512)
#define BACKING_FILL 7

/* ---- model: bit v of a mask says "may be the value v", 0 .. 7 ---- */

typedef struct Model {
    uint8_t now[SIZE];    /* what the guest may read */
    uint8_t medium[SIZE]; /* what a power loss may leave */
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
    model_fill(model, 0, SIZE, 0, true);
    model_fill(model, 0, backing_bytes, BACKING_FILL, true);
    model_flushed(model);
}

/* ---- what guests do to it ---- */

typedef enum ChangeKind { WRITE, ZERO, ZERO_UNMAP, DISCARD } ChangeKind;

typedef struct Change {
    ChangeKind kind;
    int64_t offset, bytes;
    uint8_t fill;
} Change;

typedef struct Plan {
    int64_t cluster_size;
    bool backing, shared; /* shared: with a snapshot, as it were */
    bool compressed;      /* cluster size 4096 */
} Plan;

typedef struct Run {
    const Plan *plan;
    const char *options;
    BdrvSimDisk *disk;
    Rig rig;
    Model model;
    uint64_t cuts;
} Run;

/* ---- an image ---- */

static BdrvChild *coroutine_fn open_backing(const Plan *plan)
{
    return plan->backing ? rig_backing("b", BACKING_BYTES, BACKING_FILL) : NULL;
}

static void coroutine_fn start(Run *run)
{
    const Plan *plan = run->plan;
    RigImage image = { .disk = "d", .size = SIZE, .cluster_size = plan->cluster_size };
    run->disk = rig_create(&image);
    model_init(&run->model, plan->backing ? BACKING_BYTES : 0);
    run->rig = rig_open("d", "", open_backing(plan));
    g_assert_cmpint(rig_write(&run->rig, 0, 64 * K, 1), ==, 0);
    model_fill(&run->model, 0, 64 * K, 1, true);
    g_assert_cmpint(rig_close(&run->rig), ==, 0);
    model_flushed(&run->model);
    if (plan->compressed) {
        surgery_compress(run->disk, &(SurgeryCompress){ .count = 64 * K / 4096 });
        rig_assert_clean("d");
    }
    if (plan->shared) {
        surgery_share(run->disk);
    }
    run->rig = rig_open("d", run->options, open_backing(plan));
}

static void coroutine_fn assert_no_corruption(const char *name)
{
    BdrvCheckResult result;
    g_assert_cmpint(rig_check(name, &result), ==, 0);
    g_assert_cmpint(result.corruptions, ==, 0);
    g_assert_cmpint(result.check_errors, ==, 0);
}

/* Every byte of @rig is one of what its mask allows. */
static void coroutine_fn assert_one_of(const Rig *rig, const uint8_t *masks, uint8_t *buf)
{
    g_assert_cmpint(rig_read(rig, 0, SIZE, buf), ==, 0);
    for (int64_t i = 0; i < SIZE; i++) {
        if (buf[i] > 7 || !(masks[i] >> buf[i] & 1)) {
            g_error("byte %" G_GINT64_FORMAT " is %u, not one of 0x%x", i, buf[i], masks[i]);
        }
    }
}

/* What the guest reads is allowed, and stays so. */
static void coroutine_fn assert_view(Run *run)
{
    g_autofree uint8_t *buf = g_malloc(SIZE);
    assert_one_of(&run->rig, run->model.now, buf);
    for (int64_t i = 0; i < SIZE; i++) {
        run->model.now[i] = (uint8_t)(1u << buf[i]);
    }
    rig_verify(&run->rig);
}

static void coroutine_fn assert_left(Run *run, BdrvSimCut *cut, const BdrvSimChoice *choices, const uint8_t *masks)
{
    g_autoptr(BdrvSimDisk) left = bdrv_simcut_disk(cut, choices, "left");
    g_autofree uint8_t *buf = g_malloc(SIZE);

    assert_no_corruption("left");
    BdrvChild *backing = run->plan->backing ? test_must_open("simdisk", "disk=b", NULL) : NULL;
    Rig rig = rig_open("left", "", backing);
    assert_one_of(&rig, masks, buf);
    g_assert_cmpint(rig_close(&rig), ==, 0);
}

/* What a power loss leaves: at the least, and one of all the ways that are possible. */
static void coroutine_fn assert_cut(Run *run)
{
    g_autoptr(BdrvSimCut) cut = bdrv_simdisk_cut(run->disk);
    g_autofree BdrvSimChoice *choices = g_new0(BdrvSimChoice, bdrv_simcut_count(cut) + 1);

    /* As of now: reading compressed clusters takes time, in which others go on. */
    g_autofree uint8_t *masks = g_memdup2(run->model.medium, sizeof(run->model.medium));

    assert_left(run, cut, NULL, masks);
    bdrv_simcut_random(cut, run->cuts++, choices);
    assert_left(run, cut, choices, masks);
}

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

static void coroutine_fn must_flush(Run *run)
{
    g_assert_cmpint(bdrv_co_flush(run->rig.child), ==, 0);
    model_flushed(&run->model);
    assert_cut(run);
}

/* Whether it succeeds or fails half-way: what was there, or what is written. */
static void coroutine_fn make_change(Run *run, const Change *change)
{
    BdrvChild *child = run->rig.child;
    int ret = 0;

    model_fill(&run->model, change->offset, change->bytes, change->fill, false);
    switch (change->kind) {
    case WRITE:
        ret = rig_write(&run->rig, change->offset, change->bytes, change->fill);
        break;
    case ZERO:
    case ZERO_UNMAP:
        ret = bdrv_co_pwrite_zeroes(child, change->offset, change->bytes, change->kind == ZERO ? 0 : BDRV_REQ_MAY_UNMAP);
        break;
    case DISCARD:
        ret = -EIO; /* a hint, for whole clusters only: nothing is sure afterwards */
        bdrv_co_pdiscard(child, change->offset, change->bytes);
        break;
    }
    if (ret >= 0) {
        model_fill(&run->model, change->offset, change->bytes, change->fill, true);
    }
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
    Change change = { what < 4    ? WRITE
                      : what == 4 ? (test_random_below(&guest->random, 2) ? ZERO : ZERO_UNMAP)
                                  : DISCARD,
                      begin, bytes, (uint8_t)(what < 4 ? 1 + test_random_below(&guest->random, 6) : 0) };
    make_change(run, &change);
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
    static const Plan plans[] = {
        { 512 },
        { 4096 },
        { 4096, .shared = true },
        { 4096, .backing = true },
        { 4096, .compressed = true },
    };
    uint64_t seed = test_seed();
    for (unsigned i = 0; i < 2 * G_N_ELEMENTS(plans); i++) {
        g_autofree Run *run = g_new0(Run, 1);
        run->plan = &plans[i % G_N_ELEMENTS(plans)];
        run->options = i < G_N_ELEMENTS(plans) ? "" : "l2-cache-size=1k,refcount-cache-size=1k,l2-cache-entry-size=512";
        start(run);
        bdrv_simdisk_set_delay(run->disk, 0, 20000);
        run_guests(run, seed + i);
        bdrv_simdisk_set_delay(run->disk, 0, 0);
        assert_view(run);
        must_flush(run);
        g_assert_cmpint(rig_close(&run->rig), ==, 0);
        assert_no_corruption("d");
        run->rig = rig_open("d", "", open_backing(run->plan));
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
