/* SPDX-License-Identifier: MIT */
/* Encrypted images that are opened without their key, or with a wrong one. */
#include <bdrv/aio.h>
#include <bdrv/coroutine.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "tests/unit/qcow2/stand.h"

#define CREATE_LUKS "size=1M,encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=1"
#define SMALL ",cluster_size=512"
#define CREATE_AES "size=1M,encrypt.format=aes,encrypt.key-secret=s"

static void add_secrets(void)
{
    GError *error = NULL;
    g_assert_true(bdrv_graph_add_secret(stand_graph(), "s", "passphrase", 10, &error));
    g_assert_true(bdrv_graph_add_secret(stand_graph(), "wrong", "guess", 5, &error));
    g_assert_no_error(error);
}

/* All of the disk's bytes; caller frees. */
static uint8_t *bytes_of(const char *name, size_t *length)
{
    g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_find(name);
    *length = (size_t)stand_length(name);
    uint8_t *bytes = g_malloc(*length);
    bdrv_simdisk_peek(disk, 0, bytes, *length);
    return bytes;
}

static void expect_bytes(const char *name, const uint8_t *before, size_t length)
{
    size_t now;
    g_autofree uint8_t *after = bytes_of(name, &now);
    g_assert_cmpmem(before, length, after, now);
}

/* Whoever opens it by the secret reads @value at offset 0. */
static void expect_value(const char *name, uint8_t value)
{
    uint8_t buf[512];
    BlockBackend *blk = stand_must_open(name, "encrypt.key-secret=s", 0);
    g_assert_cmpint(blk_pread(blk, 0, sizeof(buf), buf, 0), ==, 0);
    g_assert_cmpint(buf[0], ==, value);
    g_assert_cmpint(buf[511], ==, value);
    stand_close(blk);
}

static void write_value(BlockBackend *blk, uint8_t value)
{
    uint8_t buf[512];
    memset(buf, value, sizeof(buf));
    g_assert_cmpint(blk_pwrite(blk, 0, sizeof(buf), buf, 0), ==, 0);
}

/* Requests of an image that has data at offset 0, of which nothing may become known or change. */
static void expect_locked(BlockBackend *blk)
{
    uint8_t buf[512] = { 0 };
    g_assert_cmpint(blk_pread(blk, 0, sizeof(buf), buf, 0), ==, -ENOKEY);
    g_assert_cmpint(blk_pwrite(blk, 0, sizeof(buf), buf, 0), ==, -ENOKEY);
    g_assert_cmpint(blk_pwrite(blk, 512 * 1024, sizeof(buf), buf, 0), ==, -ENOKEY);
    g_assert_cmpint(blk_length(blk), ==, 1 << 20);
}

/* A new image that was written to, open without its key. */
static BlockBackend *make_locked(const char *name, const char *create)
{
    stand_create(name, create);
    BlockBackend *blk = stand_must_open(name, "encrypt.key-secret=s", BDRV_O_RDWR);
    write_value(blk, 7);
    stand_close(blk);
    blk = stand_must_open(name, NULL, BDRV_O_RDWR | BDRV_O_NO_KEY);
    expect_locked(blk);
    return blk;
}

static void test_locked(void)
{
    static const char *const kinds[] = { CREATE_LUKS, CREATE_AES };
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        GError *error = NULL;
        BlockBackend *blk = make_locked("k", kinds[i]);
        g_assert_true(blk_set_key(blk, "passphrase", 10, &error));
        g_assert_no_error(error);
        write_value(blk, 8);
        stand_close(blk);
        expect_value("k", 8);
        stand_forget("k");
    }
}

static void test_wrong_key(void)
{
    GError *error = NULL;
    size_t length;
    stand_create("w", CREATE_LUKS);
    g_autofree uint8_t *before = bytes_of("w", &length);
    g_assert_null(stand_open("w", "encrypt.key-secret=wrong", BDRV_O_RDWR, &error));
    g_assert_error(error, BDRV_ERROR, EACCES);
    g_clear_error(&error);
    BlockBackend *blk = stand_must_open("w", NULL, BDRV_O_RDWR | BDRV_O_NO_KEY);
    g_assert_false(blk_set_key(blk, "guess", 5, &error));
    g_assert_error(error, BDRV_ERROR, EACCES);
    g_clear_error(&error);
    stand_close(blk);
    expect_bytes("w", before, length);
    stand_forget("w");
}

/* A key that is set, but to a wrong one, stays the right one. */
static void test_set_twice(void)
{
    GError *error = NULL;
    stand_create("t", CREATE_LUKS);
    BlockBackend *blk = stand_must_open("t", "encrypt.key-secret=s", BDRV_O_RDWR);
    write_value(blk, 3);
    g_assert_false(blk_set_key(blk, "guess", 5, &error));
    g_clear_error(&error);
    write_value(blk, 4);
    stand_close(blk);
    expect_value("t", 4);
    stand_forget("t");
}

/* The key that unlocked it is not known: no slot can be filled, any can be erased. */
static void test_amend_by_key(void)
{
    GError *error = NULL;
    g_autoptr(BdrvOptions) add = bdrv_options_parse("encrypt.state=active,encrypt.new-secret=wrong", NULL, NULL);
    g_autoptr(BdrvOptions) last = bdrv_options_parse("encrypt.state=inactive,encrypt.keyslot=0", NULL, NULL);
    stand_create("a", CREATE_LUKS);
    BlockBackend *blk = stand_must_open("a", NULL, BDRV_O_RDWR | BDRV_O_NO_KEY);
    g_assert_true(blk_set_key(blk, "passphrase", 10, &error));
    g_assert_false(blk_amend(blk, add, false, NULL, NULL, &error));
    g_assert_error(error, BDRV_ERROR, ENOKEY);
    g_clear_error(&error);
    g_assert_false(blk_amend(blk, last, false, NULL, NULL, &error));
    g_assert_error(error, BDRV_ERROR, EPERM);
    g_clear_error(&error);
    stand_close(blk);
    stand_forget("a");
}

/* ---- reopened by another secret ---- */

static void expect_refused(BlockBackend *blk, const char *options, int code)
{
    g_autoptr(GError) error = NULL;
    g_assert_false(blk_reopen(blk, bdrv_options_parse(options, NULL, NULL), BDRV_O_RDWR, &error));
    g_assert_error(error, BDRV_ERROR, code);
}

static void must_reopen(BlockBackend *blk, const char *options)
{
    GError *error = NULL;
    blk_reopen(blk, bdrv_options_parse(options, NULL, NULL), BDRV_O_RDWR, &error);
    g_assert_no_error(error);
}

static bool amend(BlockBackend *blk, const char *text, GError **errp)
{
    g_autoptr(BdrvOptions) options = bdrv_options_parse(text, NULL, NULL);
    return blk_amend(blk, options, false, NULL, NULL, errp);
}

#define ADD_WRONG "encrypt.state=active,encrypt.new-secret=wrong,encrypt.iter-time=1"
#define ERASE_0 "encrypt.state=inactive,encrypt.keyslot=0"

/* The secret that it is known by is what further keys are added with. */
static void test_reopen_luks(void)
{
    g_autoptr(GError) error = NULL;
    stand_create("r", CREATE_LUKS);
    BlockBackend *blk = stand_must_open("r", "encrypt.key-secret=s", BDRV_O_RDWR);
    write_value(blk, 4);
    expect_refused(blk, "encrypt.key-secret=wrong", EACCES);
    expect_refused(blk, "encrypt.key-secret=none", ENOENT);
    expect_refused(blk, "encrypt.format=aes", EINVAL);
    g_assert_true(amend(blk, ADD_WRONG, NULL));
    must_reopen(blk, "encrypt.key-secret=wrong");
    g_assert_true(amend(blk, ERASE_0, NULL));
    g_assert_true(amend(blk, ADD_WRONG, &error));
    g_assert_no_error(error);
    expect_refused(blk, "encrypt.key-secret=s", EACCES);
    write_value(blk, 5);
    stand_close(blk);
    blk = stand_must_open("r", "encrypt.key-secret=wrong", 0);
    stand_close(blk);
    stand_forget("r");
}

static void test_reopen_unlocks(void)
{
    static const char *const kinds[] = { CREATE_LUKS, CREATE_AES };
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        BlockBackend *blk = make_locked("u", kinds[i]);
        must_reopen(blk, "encrypt.key-secret=s");
        write_value(blk, 8);
        stand_close(blk);
        expect_value("u", 8);
        stand_forget("u");
    }
}

/* ---- snapshots ---- */

static bool holds(const char *disk, const uint8_t *bytes, size_t count)
{
    size_t length;
    g_autofree uint8_t *all = bytes_of(disk, &length);
    return memmem(all, length, bytes, count);
}

/* What a machine's memory held is no less secret than its disk. */
static void test_vm_state(gconstpointer create)
{
    uint8_t state[5000], found[5000];
    struct iovec vec = { state, sizeof(state) }, found_vec = { found, sizeof(found) };
    BdrvSnapshotInfo info = { .name = (char *)"x", .vm_state_size = sizeof(state) };
    GError *error = NULL;
    for (unsigned i = 0; i < sizeof(state); i++) {
        state[i] = (uint8_t)(i * 7 + i / 256);
    }
    stand_create("v", create);
    BlockBackend *blk = stand_must_open("v", "encrypt.key-secret=s", BDRV_O_RDWR);
    write_value(blk, 1);
    g_assert_cmpint(blk_save_vmstate(blk, 0, &(BdrvIov){ &vec, 1, sizeof(state) }), ==, 0);
    blk_snapshot_create(blk, &info, &error);
    g_assert_no_error(error);
    g_free(info.id);
    write_value(blk, 2);
    stand_close(blk);
    g_assert_false(holds("v", state, 64));
    blk = stand_must_open("v", "encrypt.key-secret=s", BDRV_O_RDWR);
    blk_snapshot_goto(blk, "x", &error);
    g_assert_no_error(error);
    g_assert_cmpint(blk_load_vmstate(blk, 0, &(BdrvIov){ &found_vec, 1, sizeof(found) }), ==, 0);
    g_assert_cmpmem(found, sizeof(found), state, sizeof(state));
    stand_close(blk);
    expect_value("v", 1);
    stand_forget("v");
}

/* ---- in workers ---- */

/* Holds the only worker for ciphers until it is opened. */
typedef struct Gate {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool reached, is_open;
    pthread_t thread;
} Gate;

static int wait_at_gate(void *opaque)
{
    Gate *gate = opaque;
    pthread_mutex_lock(&gate->mutex);
    gate->reached = true;
    pthread_cond_broadcast(&gate->changed);
    while (!gate->is_open) {
        pthread_cond_wait(&gate->changed, &gate->mutex);
    }
    pthread_mutex_unlock(&gate->mutex);
    return 0;
}

static void coroutine_fn hold_worker(void *opaque)
{
    co_run_in_worker(AIO_WORK_CPU, wait_at_gate, opaque);
}

static void *hold_from_thread(void *opaque)
{
    co_run_blocking(hold_worker, opaque);
    return NULL;
}

static void close_gate(Gate *gate)
{
    aio_set_worker_limits(64, 1);
    g_assert_cmpint(pthread_create(&gate->thread, NULL, hold_from_thread, gate), ==, 0);
    pthread_mutex_lock(&gate->mutex);
    while (!gate->reached) {
        pthread_cond_wait(&gate->changed, &gate->mutex);
    }
    pthread_mutex_unlock(&gate->mutex);
}

static void open_gate(Gate *gate)
{
    pthread_mutex_lock(&gate->mutex);
    gate->is_open = true;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->mutex);
    pthread_join(gate->thread, NULL);
    aio_set_worker_limits(64, g_get_num_processors());
}

static void note_done(void *opaque, int ret)
{
    *(int *)opaque = ret;
}

static void start_all(BlockBackend *blk, const BdrvIov *written, const BdrvIov *read, int results[2])
{
    blk_aio_pwritev(blk, 0, written, 0, note_done, &results[0]);
    blk_aio_preadv(blk, 65536, read, 0, note_done, &results[1]);
    while (aio_context_run(aio_context_current(), false)) {
    }
}

/* Each of them needs L2 tables, some new ones and space for them. */
static void expect_metadata_is_free(BlockBackend *blk)
{
    BlockExtent extent;
    g_assert_cmpint(blk_pwrite_zeroes(blk, 512 * 1024, 65536, BDRV_REQ_MAY_UNMAP), ==, 0);
    g_assert_cmpint(blk_pdiscard(blk, 131072, 4096), ==, 0);
    g_assert_cmpint(blk_block_status_above(blk, 65536, 4096, &extent), ==, 0);
    g_assert_cmpint(extent.kind, ==, EXTENT_DATA);
    g_assert_cmpint(blk_flush(blk), ==, 0);
}

static void test_in_workers(gconstpointer create)
{
    uint8_t data[8192], found[4096];
    struct iovec written = { data, sizeof(data) }, read = { found, sizeof(found) };
    int results[2] = { 1, 1 };
    Gate gate = { .mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
    memset(data, 8, sizeof(data));
    stand_create("g", create);
    BlockBackend *blk = stand_must_open("g", "encrypt.key-secret=s", BDRV_O_RDWR | BDRV_O_UNMAP);
    g_assert_cmpint(blk_pwrite(blk, 65536, sizeof(found), data, 0), ==, 0);
    g_assert_cmpint(blk_pwrite(blk, 131072, sizeof(found), data, 0), ==, 0);
    close_gate(&gate);
    start_all(blk, &(BdrvIov){ &written, 1, sizeof(data) }, &(BdrvIov){ &read, 1, sizeof(found) }, results);
    expect_metadata_is_free(blk);
    g_assert_cmpint(results[0], ==, 1); /* both wait for the worker */
    g_assert_cmpint(results[1], ==, 1);
    open_gate(&gate);
    while (results[0] == 1 || results[1] == 1) {
        aio_context_run(aio_context_current(), true);
    }
    g_assert_cmpint(results[0], ==, 0);
    g_assert_cmpint(results[1], ==, 0);
    g_assert_cmpmem(found, sizeof(found), data, sizeof(found));
    stand_close(blk);
    stand_forget("g");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add_secrets();
    g_test_add_func("/qcow2-encryption/a locked image fails its requests until its key is set", test_locked);
    g_test_add_func("/qcow2-encryption/a wrong key is refused and touches nothing", test_wrong_key);
    g_test_add_func("/qcow2-encryption/a wrong key does not replace the right one", test_set_twice);
    g_test_add_func("/qcow2-encryption/an image unlocked by no secret gets no further key", test_amend_by_key);
    g_test_add_func("/qcow2-encryption/reopened by another secret an image is known by that", test_reopen_luks);
    g_test_add_func("/qcow2-encryption/a locked image is unlocked when it is reopened with a secret", test_reopen_unlocks);
    g_test_add_data_func("/qcow2-encryption/VM state is encrypted and comes back: luks", CREATE_LUKS, test_vm_state);
    g_test_add_data_func("/qcow2-encryption/VM state is encrypted and comes back: aes", CREATE_AES SMALL, test_vm_state);
    g_test_add_data_func("/qcow2-encryption/ciphers run in workers and hold no metadata: luks", CREATE_LUKS SMALL,
                         test_in_workers);
    g_test_add_data_func("/qcow2-encryption/ciphers run in workers and hold no metadata: aes", CREATE_AES SMALL,
                         test_in_workers);
    return g_test_run();
}
