/* SPDX-License-Identifier: MIT */
/* Power losses among requests that are under way at once. */
#include "tools/driver-test/kit.h"

#define GROUPS 16
#define GROUP 7
#define MORE_LOST 4 /* so many more power losses are looked at that lose all they can */

typedef enum Kind { WRITE, ZERO, DISCARD, FLUSH } Kind;

/* A request; times are counted in beginnings and ends of requests. */
typedef struct Op {
    struct Many *many;
    Kind kind;
    bool fua;
    uint8_t value; /* of all its bytes */
    int64_t offset, bytes;
    unsigned begun, ended; /* ended 0: under way */
    uint8_t *buf;
    struct iovec vec;
    BdrvIov iov;
} Op;

typedef struct Many {
    KitDisk *disk;
    Op ops[GROUPS * GROUP];
    unsigned n_ops, time;
    GArray *cuts;
} Many;

typedef struct Cut {
    KitCut *cut;
    unsigned time;
} Cut;

static void take_cut(void *opaque, BdrvSimDisk *sim, const BdrvSimRequest *request)
{
    Many *many = opaque;
    Cut cut = { kit_cut(many->disk), many->time };

    g_array_append_val(many->cuts, cut);
}

static void set_hook(Many *many, BdrvSimHook *hook)
{
    kit_set_hook(many->disk, hook, many);
    for (unsigned i = 0; i < many->disk->kit->n_children; i++) {
        bdrv_simdisk_set_delay(many->disk->files[i].sim, hook ? 1000 : 0, hook ? 200000 : 0);
    }
}

/* ---- what is done ---- */

/* In a small area, so that requests meet. */
static void aim(Many *many, Op *op, int64_t area, int64_t span)
{
    static const Kind kinds[] = { WRITE, WRITE, WRITE, WRITE, WRITE, ZERO, DISCARD, FLUSH, FLUSH };
    KitDisk *disk = many->disk;
    int64_t unit = kit_draw(disk, 2) ? 512 : 4096;

    op->many = many;
    op->kind = kinds[kit_draw(disk, G_N_ELEMENTS(kinds))];
    op->fua = op->kind == WRITE && kit_draw(disk, 6) == 0;
    op->bytes = (1 + kit_draw(disk, span / 2 / unit)) * unit;
    op->offset = area + kit_draw(disk, span - op->bytes + 1) / unit * unit;
    op->value = op->kind == WRITE ? (uint8_t)(disk->number++ % 254 + 1) : 0;
    op->buf = g_malloc((gsize)op->bytes);
    memset(op->buf, op->value, (size_t)op->bytes);
    op->iov = BDRV_IOV_BUF(op->vec, op->buf, (size_t)op->bytes);
}

static void op_done(void *opaque, int ret)
{
    Op *op = opaque;

    op->ended = ++op->many->time;
    g_clear_pointer(&op->buf, g_free);
    if (ret < 0) {
        kit_fail("a request of %" PRId64 " bytes at %" PRId64 ": %s", op->bytes, op->offset,
                 g_strerror(-ret));
    }
}

static void start(Op *op)
{
    static const char *const names[] = { "write", "zero", "discard", "flush" };
    BlockBackend *blk = op->many->disk->blk;

    kit_note("start: %s %" PRId64 " bytes at %" PRId64 " (0x%02x)%s", names[op->kind], op->bytes, op->offset,
             op->value, op->fua ? ", FUA" : "");
    op->begun = ++op->many->time;
    switch (op->kind) {
    case WRITE:
        blk_aio_pwritev(blk, op->offset, &op->iov, op->fua ? BDRV_REQ_FUA : 0, op_done, op);
        break;
    case ZERO:
        blk_aio_pwrite_zeroes(blk, op->offset, op->bytes, BDRV_REQ_MAY_UNMAP, op_done, op);
        break;
    case DISCARD:
        blk_aio_pdiscard(blk, op->offset, op->bytes, op_done, op);
        break;
    case FLUSH:
        blk_aio_flush(blk, op_done, op);
    }
}

static void run_group(Many *many)
{
    KitDisk *disk = many->disk;
    int64_t span = kit_draw(disk, 2) ? 16384 : 65536,
            area = kit_draw(disk, disk->length - span + 1) / 16384 * 16384;
    Op *first = &many->ops[many->n_ops];

    for (unsigned i = 0; i < GROUP; i++) {
        aim(many, &first[i], area, span);
        start(&first[i]);
        many->n_ops++;
        for (int64_t n = kit_draw(disk, 6); n > 0; n--) { /* some have got further than others */
            aio_context_run(aio_context_current(), false);
        }
    }
    for (unsigned i = 0, idle = 0; i < GROUP; i++) {
        while (!first[i].ended) {
            idle = aio_context_run(aio_context_current(), true) ? 0 : idle + 1;
            if (idle > 1000) {
                kit_hangs("a request of %" PRId64 " bytes at %" PRId64, first[i].bytes, first[i].offset);
            }
        }
    }
}

/* ---- what may be found ---- */

static bool has_ended(const Op *op, unsigned time)
{
    return op->ended && op->ended <= time;
}

/* A flush that began after its end has ended. A discard is a hint: it need not have happened. */
static bool is_durable(const Many *many, const Op *op, unsigned time)
{
    if (op->kind == FLUSH || op->kind == DISCARD || !has_ended(op, time)) {
        return false;
    }
    for (unsigned i = 0; i < many->n_ops; i++) {
        const Op *flush = &many->ops[i];

        if (flush->kind == FLUSH && has_ended(flush, time) && flush->begun > op->ended) {
            return true;
        }
    }
    return op->fua;
}

static bool covers(const Op *op, int64_t at)
{
    return op->kind != FLUSH && at >= op->offset && at < op->offset + op->bytes;
}

/* What a run of bytes may have that the same requests cover. */
typedef struct Allowed {
    bool before;     /* what was there before all */
    bool value[256]; /* what one of the requests wrote */
} Allowed;

/* What a durable request has overwritten that began after the end of the other is gone. */
static Allowed allowed_at(const Many *many, const bool *durable, unsigned time, int64_t at)
{
    Allowed allowed = { .before = true };

    for (unsigned i = 0; i < many->n_ops; i++) {
        const Op *op = &many->ops[i];
        bool gone = false;

        if (!covers(op, at) || op->begun > time) {
            continue;
        }
        for (unsigned j = 0; j < many->n_ops && op->ended; j++) {
            gone |= durable[j] && covers(&many->ops[j], at) && many->ops[j].begun > op->ended;
        }
        allowed.value[op->value] |= !gone;
        allowed.before &= !durable[i];
    }
    return allowed;
}

/* Where the requests that cover a byte change next. */
static int64_t next_edge(const Many *many, int64_t at)
{
    int64_t next = many->disk->length;

    for (unsigned i = 0; i < many->n_ops; i++) {
        int64_t from = many->ops[i].offset, to = from + many->ops[i].bytes;

        next = from > at ? MIN(next, from) : next;
        next = to > at ? MIN(next, to) : next;
    }
    return next;
}

static void judge_bytes(const Many *many, const Cut *cut, const uint8_t *found)
{
    const KitDisk *disk = many->disk;
    bool durable[G_N_ELEMENTS(many->ops)];

    for (unsigned i = 0; i < many->n_ops; i++) {
        durable[i] = is_durable(many, &many->ops[i], cut->time);
    }
    for (int64_t from = 0, to; from < disk->length; from = to) {
        Allowed allowed = allowed_at(many, durable, cut->time, from);

        to = next_edge(many, from);
        for (int64_t at = from; at < to; at++) {
            if (!allowed.value[found[at]] && !(allowed.before && found[at] == disk->model[at])) {
                kit_fail("after the power loss byte %" PRId64
                         " is 0x%02x: no request wrote that, or one that was flushed has overwritten it",
                         at, found[at]);
            }
        }
    }
}

static void judge_image(const Many *many, const Cut *cut, KitFate fate, uint64_t seed)
{
    KitDisk *left = kit_disk_after(many->disk, cut->cut, fate, seed);
    g_autofree uint8_t *found = NULL;

    kit_open(left, KIT_RDWR);
    kit_expect_sound(left, true);
    found = kit_read_all(left);
    judge_bytes(many, cut, found);
    kit_disk_free(left);
}

static void judge_cut(const Many *many, unsigned number, bool lost_only)
{
    const Cut *cut = &g_array_index(many->cuts, Cut, number);
    uint64_t seed = many->disk->kit->seed + number * 2;

    kit_note("---- power loss after call %u", number + 1);
    for (unsigned i = 0; i < many->n_ops; i++) {
        const Op *op = &many->ops[i];

        if (op->begun <= cut->time && !has_ended(op, cut->time)) {
            kit_note("under way: request %u", i + 1);
        }
    }
    kit_note("all that was not flushed is lost");
    judge_image(many, cut, KIT_LOST, 0);
    if (lost_only) {
        return;
    }
    kit_note("all is kept");
    judge_image(many, cut, KIT_KEPT, 0);
    kit_note("some is lost, some kept or torn");
    judge_image(many, cut, KIT_MIXED, seed);
    judge_image(many, cut, KIT_MIXED, seed + 1);
}

void kit_power_losses_among_many(const Kit *kit)
{
    Many many = { .disk = NULL };
    unsigned stride;

    many.disk = kit_disk_new(kit);
    if (many.disk->length < 65536) {
        kit_skip("the disk has less than 64 KiB");
    }
    many.cuts = g_array_new(FALSE, FALSE, sizeof(Cut));
    kit_write(many.disk, 0, many.disk->length / 4, 0);
    kit_flush(many.disk);
    set_hook(&many, take_cut);
    for (unsigned i = 0; i < GROUPS; i++) {
        run_group(&many);
    }
    set_hook(&many, NULL);
    stride = many.cuts->len / (MORE_LOST * kit->cuts) + 1;
    for (unsigned i = 0; i * stride < many.cuts->len; i++) {
        judge_cut(&many, i * stride, i % MORE_LOST != 0);
    }
    for (unsigned i = 0; i < many.cuts->len; i++) {
        kit_cut_free(g_array_index(many.cuts, Cut, i).cut);
    }
    g_array_free(many.cuts, TRUE);
    kit_disk_free(many.disk);
}
