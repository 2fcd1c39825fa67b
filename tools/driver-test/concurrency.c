/* SPDX-License-Identifier: MIT */
/* Many requests at once. */
#include "tools/driver-test/kit.h"

#define DEPTH 12

/* One request of a round. */
typedef struct Shot {
    KitDisk *disk;
    int64_t offset, bytes;
    uint8_t value; /* that it writes; 0: zeroes */
    bool reads, done, cancelled;
    int ret;
    uint8_t *buf;
    struct iovec vec;
    BdrvIov iov;
} Shot;

static void shot_done(void *opaque, int ret)
{
    Shot *shot = opaque;

    if (shot->done) {
        kit_fail("the callback of a request came twice");
    }
    shot->done = true;
    shot->ret = ret;
}

/* Requests of a round fall into a small area, so that many meet in one block that has no space yet. */
static void aim(KitDisk *disk, Shot *shot, unsigned n, int64_t area)
{
    int64_t unit = kit_draw(disk, 2) ? 512 : 1, span = MIN(131072, disk->length - area);

    *shot =
        (Shot){ .disk = disk, .reads = kit_draw(disk, 4) == 0, .value = (uint8_t)(disk->number++ % 254 + 1) };
    shot->bytes = kit_draw(disk, MIN(span, 20000)) / unit * unit;
    shot->bytes = MAX(shot->bytes, 1);
    shot->offset = area + kit_draw(disk, span - shot->bytes + 1) / unit * unit;
    shot->buf = g_malloc((gsize)shot->bytes);
    memset(shot->buf, shot->value, (size_t)shot->bytes);
    shot->iov = BDRV_IOV_BUF(shot->vec, shot->buf, (size_t)shot->bytes);
    if (!shot->reads && kit_draw(disk, 6) == 0) {
        shot->value = 0;
    }
}

static BlkRequest *shoot(Shot *shot)
{
    BlockBackend *blk = shot->disk->blk;

    kit_note("start: %s %" PRId64 " bytes at %" PRId64 " (0x%02x)", shot->reads ? "read" : "write",
             shot->bytes, shot->offset, shot->reads ? 0 : shot->value);
    if (shot->reads) {
        return blk_aio_preadv(blk, shot->offset, &shot->iov, 0, shot_done, shot);
    }
    return shot->value ? blk_aio_pwritev(blk, shot->offset, &shot->iov, 0, shot_done, shot)
                       : blk_aio_pwrite_zeroes(blk, shot->offset, shot->bytes, 0, shot_done, shot);
}

static void wait_for(Shot *shots)
{
    for (unsigned i = 0, idle = 0; i < DEPTH; i++) {
        while (!shots[i].done) {
            idle = aio_context_run(aio_context_current(), true) ? 0 : idle + 1;
            if (idle > 1000) {
                kit_hangs("%s %" PRId64 " bytes at %" PRId64, shots[i].reads ? "reading" : "writing",
                          shots[i].bytes, shots[i].offset);
            }
        }
        if (shots[i].ret < 0 && !(shots[i].cancelled && shots[i].ret == -ECANCELED)) {
            kit_fail("a request of %" PRId64 " bytes at %" PRId64 ": %s", shots[i].bytes, shots[i].offset,
                     g_strerror(-shots[i].ret));
        }
    }
}

/* Whether a byte may have this value: that of a write of the round, or the one before if none there surely
 * ended. */
static bool possible(const Shot *shots, int64_t at, uint8_t value, uint8_t before, bool during)
{
    bool overwritten = false;

    for (unsigned i = 0; i < DEPTH; i++) {
        if (!shots[i].reads && at >= shots[i].offset && at < shots[i].offset + shots[i].bytes) {
            overwritten |= shots[i].ret == 0;
            if (shots[i].value == value) {
                return true;
            }
        }
    }
    return (!overwritten || during) && value == before;
}

static void judge_read(const KitDisk *disk, const Shot *shots, const Shot *shot)
{
    for (int64_t i = 0; i < shot->bytes; i++) {
        int64_t at = shot->offset + i;

        if (!possible(shots, at, shot->buf[i], disk->model[at], true)) {
            kit_fail("a read among writes: byte %" PRId64 " is 0x%02x, which nobody wrote there", at,
                     shot->buf[i]);
        }
    }
}

static void judge_write(const KitDisk *disk, const Shot *shots, const Shot *shot, const uint8_t *now)
{
    for (int64_t at = shot->offset; at < shot->offset + shot->bytes; at++) {
        if (now[at] == disk->model[at] && !possible(shots, at, now[at], disk->model[at], false)) {
            kit_fail("after all have ended, byte %" PRId64 " is 0x%02x as before: a write is lost", at,
                     now[at]);
        }
    }
}

static void judge(KitDisk *disk, const Shot *shots)
{
    g_autofree uint8_t *now = kit_read_all(disk);

    for (unsigned i = 0; i < DEPTH; i++) {
        if (!shots[i].reads) {
            judge_write(disk, shots, &shots[i], now);
        } else if (shots[i].ret == 0) {
            judge_read(disk, shots, &shots[i]);
        }
    }
    for (int64_t at = kit_differ(now, disk->model, 0, disk->length); at < disk->length;
         at = kit_differ(now, disk->model, at + 1, disk->length)) {
        if (!possible(shots, at, now[at], disk->model[at], false)) {
            kit_fail("after all have ended, byte %" PRId64
                     " is 0x%02x, which no request wrote there; before: 0x%02x",
                     at, now[at], disk->model[at]);
        }
    }
    memcpy(disk->model, now, (size_t)disk->length);
}

static void volley(KitDisk *disk, bool cancels)
{
    Shot shots[DEPTH];
    int64_t area = kit_draw(disk, MAX(1, disk->length - 131072)) / 65536 * 65536;

    for (unsigned i = 0; i < DEPTH; i++) {
        aim(disk, &shots[i], i, area);
    }
    for (unsigned i = 0; i < DEPTH; i++) {
        BlkRequest *request = shoot(&shots[i]);

        if (cancels && i % 3 == 0) {
            shots[i].cancelled = true;
            blk_aio_cancel(request);
        }
        if (kit_draw(disk, 3) == 0) {
            aio_context_run(aio_context_current(), false);
        }
    }
    if (cancels) {
        kit_note("drain");
        blk_drain_begin(disk->blk);
        blk_drain_end(disk->blk);
    }
    wait_for(shots);
    judge(disk, shots);
    for (unsigned i = 0; i < DEPTH; i++) {
        g_free(shots[i].buf);
    }
}

static void volleys(const Kit *kit, bool cancels)
{
    KitDisk *disk = kit_disk_new(kit);

    for (unsigned i = 0; i < kit->n_children; i++) {
        bdrv_simdisk_set_seed(disk->files[i].sim, kit->seed + i);
        bdrv_simdisk_set_delay(disk->files[i].sim, 1000, 200000);
    }
    for (unsigned i = 0; i < kit->rounds / 10 + 2; i++) {
        volley(disk, cancels);
        if (i % 4 == 3) {
            kit_again(disk);
        }
    }
    kit_expect_all(disk);
    kit_expect_sound(disk, false);
    kit_again(disk);
    kit_expect_all(disk);
    kit_disk_free(disk);
}

static void overlapping(const Kit *kit)
{
    volleys(kit, false);
}

static void cancelled(const Kit *kit)
{
    volleys(kit, true);
}

/* ---- threads ---- */

#define THREADS 4
#define PIECE 700 /* bytes: neighbours of different threads share sectors and blocks */

typedef struct Worker {
    KitDisk *disk;
    unsigned number;
    int ret;
} Worker;

static void *work(void *opaque)
{
    Worker *worker = opaque;
    KitDisk *disk = worker->disk;
    uint8_t buf[PIECE], back[PIECE];

    memset(buf, (int)worker->number + 1, PIECE);
    for (int64_t at = (int64_t)worker->number * PIECE; at + PIECE <= disk->length && worker->ret == 0;
         at += THREADS * PIECE * 3) {
        worker->ret = blk_pwrite(disk->blk, at, PIECE, buf, 0);
        if (worker->ret == 0) {
            worker->ret = blk_pread(disk->blk, at, PIECE, back, 0);
        }
        if (worker->ret == 0 && memcmp(buf, back, PIECE) != 0) {
            worker->ret = -EILSEQ;
        }
        memcpy(disk->model + at, buf, PIECE);
    }
    return NULL;
}

static void threads(const Kit *kit)
{
    KitDisk *disk = kit_disk_new(kit);
    Worker workers[THREADS];
    GThread *running[THREADS];

    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (Worker){ disk, i, 0 };
        running[i] = g_thread_new("kit", work, &workers[i]);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        g_thread_join(running[i]);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        if (workers[i].ret < 0) {
            kit_fail("thread %u: %s", i,
                     workers[i].ret == -EILSEQ ? "it does not read what it has just written"
                                               : g_strerror(-workers[i].ret));
        }
    }
    kit_expect_all(disk);
    kit_expect_sound(disk, false);
    kit_again(disk);
    kit_expect_all(disk);
    kit_disk_free(disk);
}

const KitTest concurrency_tests[] = {
    { "concurrency/overlapping", "requests at once end as if one after the other, for each byte",
      overlapping },
    { "concurrency/cancel-drain", "the same with cancelled requests and a drain among them", cancelled },
    { "concurrency/threads", "threads that write side by side", threads, .real_threads = true },
    { NULL },
};
