/* SPDX-License-Identifier: MIT */
/*
 * Power loss at each request of what changes two images of a chain: blk_commit() and blk_rebase(). Each state of both
 * disks must be two sound images, and the upper one over its backing file must read as before.
 */

#include <string.h>

#include "tests/crash/oracle.h"
#include "tests/crash/states.h"
#include "tests/unit/qcow2/stand.h"

#define TOP_BYTES (48 * 1024)
#define LUKS "encrypt.format=luks,encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc,encrypt.iter-time=1," \
             "encrypt.key-secret=key,"
#define BY_KEY "encrypt.key-secret=key,backing.encrypt.key-secret=key"

typedef struct Case {
    const char *name;
    const char *base, *top; /* options they are made with, but the backing file */
    const char *key;        /* options that open the image below, NULL: none */
    bool rebases;
    const char *to; /* of rebases: options of the new backing file; NULL: there shall be none */
} Case;

static const Case cases[] = {
    { "commit", "cluster_size=512,size=48k", "cluster_size=512,size=48k" },
    { "commit into a shorter image", "cluster_size=2k,size=20k,lazy_refcounts=on", "cluster_size=512,size=48k" },
    { "commit into version 2", "cluster_size=1k,compat=0.10,size=48k", "cluster_size=4k,size=48k" },
    { "commit of encrypted images", LUKS "cluster_size=4k,size=48k", LUKS "cluster_size=2k,size=48k",
      "encrypt.key-secret=key" },
    { "rebase onto another image", "cluster_size=512,size=40k", "cluster_size=2k,size=48k", .rebases = true,
      .to = "cluster_size=1k,size=30k" },
    { "rebase onto nothing", "cluster_size=512,size=48k", "cluster_size=4k,lazy_refcounts=on,size=48k",
      .rebases = true },
    { "rebase of version 2", "cluster_size=512,size=48k", "cluster_size=2k,compat=0.10,size=48k", .rebases = true,
      .to = "cluster_size=4k,size=48k" },
    { "rebase of encrypted images", LUKS "cluster_size=2k,size=48k", LUKS "cluster_size=4k,size=48k",
      "encrypt.key-secret=key", .rebases = true, .to = LUKS "cluster_size=1k,size=48k" },
};

static const char *const disks[] = { "top", "base" };

/* A power loss. */
typedef struct Moment {
    BdrvSimCut *cuts[2];
} Moment;

typedef struct Run {
    const Case *how;
    uint8_t before[TOP_BYTES]; /* what the disk reads as */
    GArray *moments;
    unsigned moment; /* that is judged */
    unsigned states;
    GHashTable *known; /* checksums of both disks: states that were judged */
    Oracle oracle;
} Run;

static void blocking_fn read_top(const Run *run, uint8_t *data)
{
    BlockBackend *blk = stand_must_open("top", run->how->key ? BY_KEY : NULL, BDRV_O_RDWR | BDRV_O_UNMAP);
    g_assert_cmpint(blk_length(blk), ==, TOP_BYTES);
    g_assert_cmpint(blk_pread(blk, 0, TOP_BYTES, data, 0), ==, 0);
    stand_close(blk);
}

/* ---- the images ---- */

static void blocking_fn fill(BlockBackend *blk, int64_t offset, int64_t bytes, uint8_t value)
{
    g_autofree uint8_t *data = g_malloc((gsize)bytes);
    memset(data, value, (size_t)bytes);
    bytes = MIN(blk_length(blk) - offset, bytes);
    g_assert_true(bytes <= 0 || blk_pwrite(blk, offset, bytes, data, 0) == 0);
}

/* What is below is in parts zeroes, and it is not the same in both. */
static void blocking_fn make_below(const Run *run, const char *name, const char *options, uint8_t value)
{
    stand_create(name, options);
    BlockBackend *blk = stand_must_open(name, run->how->key, BDRV_O_RDWR);
    fill(blk, 0, 16 * 1024 + 512, value);
    fill(blk, 18 * 1024, 30 * 1024, (uint8_t)(value + 1));
    g_assert_cmpint(blk_pwrite_zeroes(blk, 8 * 1024, 4096, BDRV_REQ_MAY_UNMAP), ==, 0);
    fill(blk, 30 * 1024 - 512, 512, 9); /* the same */
    stand_close(blk);
}

static void blocking_fn make_images(Run *run)
{
    g_autofree char *options = g_strconcat(run->how->top, ",backing_file=simdisk:base,backing_fmt=qcow2", NULL);
    make_below(run, "base", run->how->base, 0x11);
    if (run->how->to) {
        make_below(run, "to", run->how->to, 0x21);
    }
    stand_create("top", options);
    BlockBackend *blk = stand_must_open("top", run->how->key ? BY_KEY : NULL, BDRV_O_RDWR | BDRV_O_UNMAP);
    fill(blk, 1024, 5000, 0x31);
    fill(blk, 26 * 1024, 20000, 0x32);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 14 * 1024, 4096, BDRV_REQ_MAY_UNMAP), ==, 0);
    stand_close(blk);
    read_top(run, run->before);
}

/* ---- the change ---- */

static void note_moment(void *opaque, BdrvSimDisk *disk, const BdrvSimRequest *request)
{
    Run *run = opaque;
    Moment moment;
    if (request->kind == BDRV_SIM_READ) {
        return;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(disks); i++) {
        g_autoptr(BdrvSimDisk) each = bdrv_simdisk_find(disks[i]);
        moment.cuts[i] = bdrv_simdisk_cut(each);
    }
    g_array_append_val(run->moments, moment);
}

static void watch(Run *run, bool on)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(disks); i++) {
        g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_find(disks[i]);
        bdrv_simdisk_set_hook(disk, on ? note_moment : NULL, run);
    }
}

static void blocking_fn commit(const Run *run)
{
    BlockBackend *top = stand_must_open("top", run->how->key, BDRV_O_RDWR | BDRV_O_UNMAP | BDRV_O_NO_BACKING);
    BlockBackend *base = stand_must_open("base", run->how->key, BDRV_O_RDWR | BDRV_O_UNMAP | BDRV_O_RESIZE);
    g_assert_true(blk_commit(top, base, &(BlkCommitOptions){ 0 }, NULL));
    stand_close(top);
    stand_close(base);
}

static void blocking_fn rebase(const Run *run)
{
    bool any = run->how->to != NULL;
    const BlkRebaseOptions options = { .filename = any ? "simdisk:to" : NULL, .format = any ? "qcow2" : NULL };
    BlockBackend *top = stand_must_open("top", run->how->key ? BY_KEY : NULL, BDRV_O_RDWR | BDRV_O_UNMAP);
    BlockBackend *to = any ? stand_must_open("to", run->how->key, 0) : NULL;
    g_assert_true(blk_rebase(top, to, &options, NULL));
    stand_close(top);
    if (to) {
        stand_close(to);
    }
}

/* ---- the states ---- */

/* The disk's bytes; the caller frees them. */
static uint8_t *judge_disk(Run *run, BdrvSimDisk *disk, const char *name, int64_t *length)
{
    *length = bdrv_simdisk_length(disk);
    uint8_t *bytes = g_malloc0((gsize)*length + 512);
    bdrv_simdisk_peek(disk, 0, bytes, (size_t)*length);
    oracle_judge(&run->oracle, bytes, *length);
    if (!run->oracle.is_image || run->oracle.fault[0]) {
        g_error("moment %u, state %u: '%s': %s", run->moment, run->states, name, run->oracle.fault);
    }
    return bytes;
}

static bool is_new(Run *run, const BdrvSimCut *const cuts[2], const BdrvSimChoice *choices, BdrvSimDisk *made[2])
{
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA1);
    for (unsigned i = 0; i < G_N_ELEMENTS(disks); i++) {
        int64_t length;
        made[i] = bdrv_simcut_disk(cuts[i], choices, disks[i]);
        bdrv_simdisk_set_volatile(made[i], false);
        g_autofree uint8_t *bytes = judge_disk(run, made[i], disks[i], &length);
        g_checksum_update(sum, bytes, (gssize)length);
        choices += bdrv_simcut_count(cuts[i]);
    }
    return g_hash_table_add(run->known, g_strdup(g_checksum_get_string(sum)));
}

static bool judge_state(void *opaque, const BdrvSimChoice *choices)
{
    Run *run = opaque;
    const Moment *moment = &g_array_index(run->moments, Moment, run->moment);
    const BdrvSimCut *const cuts[] = { moment->cuts[0], moment->cuts[1] };
    BdrvSimDisk *made[2];
    run->states++;
    if (is_new(run, cuts, choices, made)) {
        uint8_t now[TOP_BYTES];
        read_top(run, now);
        for (unsigned i = 0; i < TOP_BYTES; i++) {
            if (now[i] != run->before[i]) {
                g_error("moment %u, state %u: byte %u is 0x%02x, it was 0x%02x", run->moment, run->states, i, now[i],
                        run->before[i]);
            }
        }
    }
    bdrv_simdisk_unref(made[0]);
    bdrv_simdisk_unref(made[1]);
    return true;
}

static void judge_moments(Run *run)
{
    for (run->moment = 0; run->moment < run->moments->len; run->moment++) {
        Moment *moment = &g_array_index(run->moments, Moment, run->moment);
        states_each_pair(moment->cuts[0], moment->cuts[1], 3, judge_state, run);
        bdrv_simcut_unref(moment->cuts[0]);
        bdrv_simcut_unref(moment->cuts[1]);
    }
    g_test_message("%u cuts, %u states, %u distinct", run->moments->len, run->states, g_hash_table_size(run->known));
}

/* ---- all of it ---- */

/* Whatever was written is durable. */
static void settle(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(disks); i++) {
        g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_find(disks[i]);
        bdrv_simdisk_set_volatile(disk, true);
    }
}

static void test_power_loss(gconstpointer data)
{
    g_autofree Run *run = g_new0(Run, 1);
    run->how = data;
    run->moments = g_array_new(FALSE, FALSE, sizeof(Moment));
    run->known = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    make_images(run);
    settle();
    watch(run, true);
    if (run->how->rebases) {
        rebase(run);
    } else {
        commit(run);
    }
    watch(run, false);
    stand_forget("top");
    stand_forget("base");
    judge_moments(run);
    g_assert_cmpuint(run->moments->len, >, 5);
    stand_forget("to");
    g_array_unref(run->moments);
    g_hash_table_unref(run->known);
    oracle_clear(&run->oracle);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_assert_true(bdrv_graph_add_secret(stand_graph(), TEST_SECRET, TEST_PASSPHRASE, strlen(TEST_PASSPHRASE), NULL));
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *path = g_strconcat("/crash/chain/a power loss changes nothing that is read: ", cases[i].name,
                                              NULL);
        g_test_add_data_func(path, &cases[i], test_power_loss);
    }
    return g_test_run();
}
