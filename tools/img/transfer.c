/* SPDX-License-Identifier: MIT */
/*
 * Copying images: several coroutines take chunks in order, read in parallel, and write one after the
 * other (so that the same input gives the same output) unless out of order is allowed.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "tools/img/img.h"

enum { CHUNK = 2 << 20, SALVAGE_UNIT = 512, SECTOR = 512 };
#define NAP_NS INT64_C(100000000)        /* how long a signal may go unseen */
#define SAVE_NS (2 * INT64_C(1000000000)) /* how often it is noted how far the copy is */

typedef enum ChunkKind {
    CHUNK_DATA,
    CHUNK_ZERO,
    CHUNK_SKIP, /* the target's backing file has it */
} ChunkKind;

typedef struct Chunk {
    ChunkKind kind;
    unsigned source;
    int64_t source_offset, offset, bytes;
    uint64_t number;
} Chunk;

typedef struct Copier Copier;

typedef struct Worker {
    Copier *copier;
    Coroutine *coroutine;
    uint8_t *buffer;
    int64_t at;         /* offset of its chunk, INT64_MAX: none */
    uint64_t waits_for; /* number of the chunk it wants to write; valid while waiting */
    bool waiting;
} Worker;

struct Copier {
    ImgTransfer *transfer;
    CoMutex cursor_lock; /* finding the next chunk asks for block status, which may yield */
    int64_t cursor;
    uint64_t next_number; /* cursor_lock */
    ImgExtent known;      /* cursor_lock; at the cursor or before it */
    uint64_t turn;        /* number of the chunk to be written next */
    int64_t done, total;  /* bytes that count as work: what is read and written */
    int64_t data_started_ns, data_bytes; /* rate limit */
    int64_t saved_ns;
    bool saving;
    int64_t zero_alignment; /* and the unit of compression */
    int64_t sparse_unit;    /* what is left out is whole ones */
    int64_t padding;        /* compressed: zeroes behind the last byte, up to the end of the target's last sector */
    Worker *workers;
    unsigned running;
    int ret;
};

static void report(Copier *copier, BlockBackend *blk, const char *what, int64_t offset, int ret)
{
    if (copier->ret == 0) {
        copier->ret = ret;
        img_progress_give_way();
        tool_error("%s: error while %s at byte %" PRId64 ": %s", blk_filename(blk), what, offset, strerror(-ret));
    }
}

/* All before is in the target. */
static int64_t copied_up_to(const Copier *copier)
{
    int64_t offset = copier->cursor;

    for (unsigned i = 0; i < copier->transfer->coroutines; i++) {
        offset = MIN(offset, copier->workers[i].at);
    }
    return offset;
}

/* Whether to stop here because of a signal; tells so once. */
static bool interrupted(Copier *copier)
{
    if (!img_interrupted()) {
        return false;
    }
    if (copier->ret == 0) {
        copier->ret = -EINTR;
        img_progress_give_way();
        tool_error("%s: interrupted; the first %" PRId64 " of %" PRId64 " bytes are copied%s",
                   blk_filename(copier->transfer->target), copied_up_to(copier), copier->transfer->length,
                   copier->transfer->resume ? ", and the same command goes on from there" : "");
    }
    return true;
}

/* Which source a byte of the whole lies in; false: past all of them */
static bool locate(const ImgTransfer *transfer, int64_t offset, unsigned *source, int64_t *source_offset, int64_t *left)
{
    offset += transfer->source_start;
    for (unsigned i = 0; i < transfer->source_count; i++) {
        int64_t length = blk_length(transfer->sources[i]);

        if (offset < length) {
            *source = i;
            *source_offset = offset;
            *left = length - offset;
            return true;
        }
        offset -= length;
    }
    return false;
}

static ChunkKind classify(const ImgTransfer *transfer, const BlockExtent *extent, int64_t offset)
{
    bool shared = transfer->base_depth >= 0 && extent->depth >= (unsigned)transfer->base_depth &&
                  offset < transfer->target_backing_length;

    if (shared) {
        return CHUNK_SKIP;
    }
    return img_has_data(extent) ? CHUNK_DATA : CHUNK_ZERO;
}

/* Whether a chunk goes through a buffer: zeroes do only with -S 0, which writes them out. */
static bool is_work(const ImgTransfer *transfer, const Chunk *chunk)
{
    return chunk->kind == CHUNK_DATA || (chunk->kind == CHUNK_ZERO && !transfer->sparse_bytes);
}

/* Compressed, chunks end where clusters do: what is not all zeroes, or all the backing file's, is data. */
static void align_to_clusters(const Copier *copier, Chunk *chunk)
{
    int64_t unit = copier->zero_alignment, end = chunk->offset + chunk->bytes;

    if (end == copier->transfer->length) {
        return;
    }
    if (chunk->kind != CHUNK_DATA) {
        chunk->bytes = end / unit * unit - chunk->offset;
    }
    if (chunk->kind == CHUNK_DATA || chunk->bytes == 0) {
        chunk->kind = CHUNK_DATA;
        chunk->bytes = MIN((end + unit - 1) / unit * unit, copier->transfer->length) - chunk->offset;
    }
}

static int coroutine_fn find_extent(Copier *copier, BlockBackend *blk, int64_t offset, int64_t bytes,
                                    BlockExtent *extent)
{
    if (img_extent_known(&copier->known, blk, offset, extent)) {
        extent->bytes = MIN(extent->bytes, bytes);
        return 0;
    }
    int ret = blk_co_block_status_above(blk, offset, bytes, extent);
    if (ret >= 0) {
        img_extent_keep(&copier->known, blk, offset, extent);
    }
    return ret;
}

/* Compressed, up to the end of a cluster: what is shared goes on where a deeper layer, or a hole of its file, begins. */
static void coroutine_fn extend_shared(Copier *copier, BlockBackend *blk, Chunk *chunk, int64_t left)
{
    BlockExtent extent;

    while (chunk->bytes < left && (chunk->offset + chunk->bytes) % copier->zero_alignment) {
        int64_t offset = chunk->source_offset + chunk->bytes;
        if (find_extent(copier, blk, offset, left - chunk->bytes, &extent) < 0 ||
            classify(copier->transfer, &extent, chunk->offset + chunk->bytes) != CHUNK_SKIP) {
            break;
        }
        chunk->bytes += extent.bytes;
    }
}

/* The next chunk in order; false at the end or after an error. Under cursor_lock. */
static bool coroutine_fn next_chunk(Copier *copier, Chunk *chunk)
{
    ImgTransfer *transfer = copier->transfer;
    int64_t offset = copier->cursor, left;
    BlockExtent extent = { .kind = EXTENT_ZERO };
    int ret = 0;

    if (copier->ret < 0 || offset >= transfer->length || interrupted(copier)) {
        return false;
    }
    *chunk = (Chunk){ .kind = CHUNK_ZERO, .offset = offset, .number = copier->next_number };
    if (locate(transfer, offset, &chunk->source, &chunk->source_offset, &left)) {
        left = MIN(left, transfer->length - offset);
        if (transfer->base_depth >= 0 && offset < transfer->target_backing_length) {
            left = MIN(left, transfer->target_backing_length - offset);
        }
        ret = find_extent(copier, transfer->sources[chunk->source], chunk->source_offset, left, &extent);
        if (ret < 0 && transfer->salvage) {
            extent = (BlockExtent){ .kind = EXTENT_DATA, .bytes = MIN(left, SALVAGE_UNIT) };
        } else if (ret < 0) {
            report(copier, transfer->sources[chunk->source], "reading block status", offset, ret);
            return false;
        }
        chunk->kind = classify(transfer, &extent, offset);
        chunk->bytes = extent.bytes;
        if (transfer->compressed && chunk->kind == CHUNK_SKIP) {
            extend_shared(copier, transfer->sources[chunk->source], chunk, left);
        }
    } else {
        chunk->bytes = transfer->length - offset;
    }
    if (transfer->compressed) {
        align_to_clusters(copier, chunk);
    }
    if (is_work(transfer, chunk)) {
        chunk->bytes = MIN(chunk->bytes, CHUNK);
    }
    copier->cursor += chunk->bytes;
    copier->next_number++;
    return true;
}

/* What there will be to do, for the progress: go through all chunks once without copying. */
static void coroutine_fn measure(void *opaque)
{
    Copier *copier = opaque;
    Chunk chunk;

    while (next_chunk(copier, &chunk)) {
        copier->total += is_work(copier->transfer, &chunk) ? chunk.bytes : 0;
    }
    copier->cursor = copier->transfer->start;
    copier->next_number = 0;
    copier->running--;
}

/* With --salvage what cannot be read becomes zeroes, sector by sector, with a warning. */
static void coroutine_fn salvage(Copier *copier, Worker *worker, const Chunk *part, uint8_t *buffer)
{
    ImgTransfer *transfer = copier->transfer;

    for (int64_t at = 0; at < part->bytes; at += SALVAGE_UNIT) {
        int64_t n = MIN(SALVAGE_UNIT, part->bytes - at);
        int ret = blk_co_pread(transfer->sources[part->source], part->source_offset + at, n, buffer + at, 0);

        if (ret < 0) {
            if (!transfer->quiet) {
                tool_warning("error while reading offset %" PRId64 ": %s", part->offset + at, strerror(-ret));
            }
            memset(buffer + at, 0, n);
        }
    }
}

/* Sets chunk->source to the one that cannot be read. Compressed, a chunk may reach into the next source. */
static int coroutine_fn read_chunk(Copier *copier, Worker *worker, Chunk *chunk)
{
    ImgTransfer *transfer = copier->transfer;
    Chunk part = *chunk;
    int64_t left;

    for (int64_t at = 0; at < chunk->bytes; at += part.bytes) {
        part.offset = chunk->offset + at;
        part.bytes = chunk->bytes - at;
        if (!locate(transfer, part.offset, &part.source, &part.source_offset, &left)) {
            memset(worker->buffer + at, 0, part.bytes);
            break;
        }
        part.bytes = MIN(part.bytes, left);
        int ret = blk_co_pread(transfer->sources[part.source], part.source_offset, part.bytes, worker->buffer + at, 0);
        if (ret < 0 && transfer->salvage) {
            salvage(copier, worker, &part, worker->buffer + at);
        } else if (ret < 0) {
            chunk->source = part.source;
            return ret;
        }
    }
    return 0;
}

static int coroutine_fn write_zero(Copier *copier, int64_t offset, int64_t bytes)
{
    ImgTransfer *transfer = copier->transfer;

    if (transfer->target_reads_zero) {
        return 0;
    }
    return blk_co_pwrite_zeroes(transfer->target, offset, bytes, transfer->sparse_bytes ? BDRV_REQ_MAY_UNMAP : 0);
}

/* Bytes of zeroes at @start, in whole units of the target, not of the buffer. */
static int64_t count_zeroes(const Copier *copier, const uint8_t *buffer, int64_t offset, int64_t start, int64_t bytes)
{
    int64_t unit = copier->sparse_unit, at = start;

    while (at < bytes) {
        int64_t n = MIN(unit - (offset + at) % unit, bytes - at);

        if (!bdrv_buffer_is_zero(buffer + at, n)) {
            break;
        }
        at += n;
    }
    return at - start;
}

/*
 * Length of the run at @start that is left out, or is not. What is left out is a run of zeroes not shorter than -S says,
 * unless it begins or ends the buffer.
 */
static int64_t find_run(const Copier *copier, const uint8_t *buffer, int64_t offset, int64_t start, int64_t bytes,
                        bool *is_zero)
{
    int64_t unit = copier->sparse_unit, at = start;

    *is_zero = false;
    while (at < bytes) {
        int64_t zeroes = count_zeroes(copier, buffer, offset, at, bytes);

        if (zeroes && (zeroes >= copier->transfer->sparse_bytes || at == 0 || at + zeroes == bytes)) {
            *is_zero = at == start;
            return *is_zero ? zeroes : at - start;
        }
        at += zeroes;
        at += MIN(unit - (offset + at) % unit, bytes - at); /* a unit with data */
    }
    return at - start;
}

static bool is_zero_cluster(const Copier *copier, const uint8_t *buffer, int64_t bytes)
{
    return copier->transfer->sparse_bytes && bdrv_buffer_is_zero(buffer, MIN(copier->zero_alignment, bytes));
}

/* Bytes of the clusters in a row that are, or are not, zeroes; the last one may be short. */
static int64_t cluster_run(const Copier *copier, const uint8_t *buffer, int64_t bytes, bool *is_zero)
{
    int64_t at = 0;

    *is_zero = is_zero_cluster(copier, buffer, bytes);
    while (at < bytes && is_zero_cluster(copier, buffer + at, bytes - at) == *is_zero) {
        at += MIN(copier->zero_alignment, bytes - at);
    }
    return at;
}

static int coroutine_fn write_compressed(Copier *copier, Worker *worker, const Chunk *chunk)
{
    BlockBackend *target = copier->transfer->target;
    int64_t bytes = chunk->bytes, whole, n;
    int ret = 0;

    if (chunk->offset + bytes == copier->transfer->length) {
        memset(worker->buffer + bytes, 0, copier->padding);
        bytes += copier->padding;
    }
    /* A larger target keeps what it has behind a part of a cluster: that part is not compressed. */
    whole = chunk->offset + bytes == blk_length(target) ? bytes : bytes - bytes % copier->zero_alignment;
    if (copier->transfer->start > 0) { /* what was written and not noted is in the way */
        ret = blk_co_pdiscard(target, chunk->offset, whole);
    }
    for (int64_t at = 0; at < whole && ret >= 0; at += n) {
        bool is_zero;

        n = cluster_run(copier, worker->buffer + at, whole - at, &is_zero);
        ret = is_zero ? write_zero(copier, chunk->offset + at, n)
                      : blk_co_pwrite(target, chunk->offset + at, n, worker->buffer + at, BDRV_REQ_COMPRESSED);
    }
    return ret < 0 || whole == bytes
               ? ret
               : blk_co_pwrite(target, chunk->offset + whole, bytes - whole, worker->buffer + whole, 0);
}

static int coroutine_fn write_data(Copier *copier, Worker *worker, const Chunk *chunk)
{
    ImgTransfer *transfer = copier->transfer;

    if (transfer->compressed) {
        return write_compressed(copier, worker, chunk);
    }
    if (!transfer->sparse_bytes) {
        return blk_co_pwrite(transfer->target, chunk->offset, chunk->bytes, worker->buffer, 0);
    }
    for (int64_t at = 0; at < chunk->bytes;) {
        bool is_zero;
        int64_t n = find_run(copier, worker->buffer, chunk->offset, at, chunk->bytes, &is_zero);
        int ret = is_zero ? write_zero(copier, chunk->offset + at, n)
                          : blk_co_pwrite(transfer->target, chunk->offset + at, n, worker->buffer + at, 0);

        if (ret < 0) {
            return ret;
        }
        at += n;
    }
    return 0;
}

static int coroutine_fn write_chunk(Copier *copier, Worker *worker, const Chunk *chunk)
{
    if (chunk->kind == CHUNK_DATA) {
        return write_data(copier, worker, chunk);
    }
    if (chunk->kind == CHUNK_SKIP) {
        return 0;
    }
    if (!copier->transfer->sparse_bytes) { /* -S 0: fully allocated */
        memset(worker->buffer, 0, chunk->bytes);
        return write_data(copier, worker, chunk);
    }
    return write_zero(copier, chunk->offset, chunk->bytes);
}

static void coroutine_fn wait_for_turn(Copier *copier, Worker *worker, uint64_t number)
{
    while (copier->turn != number && copier->ret == 0) {
        worker->waits_for = number;
        worker->waiting = true;
        co_yield_reason("turn to write");
    }
}

/* Returns whether there is one that goes on. */
static bool wake_waiting(Copier *copier)
{
    bool any = false;

    for (unsigned i = 0; i < copier->transfer->coroutines; i++) {
        Worker *worker = &copier->workers[i];

        if (worker->waiting && (worker->waits_for == copier->turn || copier->ret < 0)) {
            worker->waiting = false;
            co_wake(worker->coroutine);
            any = true;
        }
    }
    return any;
}

static void coroutine_fn respect_rate(Copier *copier, int64_t bytes)
{
    int64_t limit = copier->transfer->rate_limit;

    if (limit) {
        copier->data_bytes += bytes;
        int64_t until = copier->data_started_ns + (int64_t)((double)copier->data_bytes / limit * 1e9), now;
        while ((now = aio_clock_ns(aio_context_current())) < until && !img_interrupted()) {
            co_sleep_until(MIN(until, now + NAP_NS));
        }
    }
}

/* Now and then, by whoever comes by: what is in the target and flushed need not be copied again. */
static void coroutine_fn note_progress(Copier *copier)
{
    ImgTransfer *transfer = copier->transfer;
    int64_t now = aio_clock_ns(aio_context_current()), offset = copied_up_to(copier);

    if (!transfer->resume || copier->saving || copier->ret < 0 || now - copier->saved_ns < SAVE_NS) {
        return;
    }
    copier->saving = true;
    int ret = blk_co_flush(transfer->target);
    if (ret < 0) {
        report(copier, transfer->target, "flushing", offset, ret);
    } else if (!img_resume_save(transfer->resume, offset)) {
        copier->ret = copier->ret ? copier->ret : -EIO;
    }
    copier->saved_ns = now;
    copier->saving = false;
}

static void coroutine_fn copy_chunk(Copier *copier, Worker *worker, Chunk *chunk)
{
    ImgTransfer *transfer = copier->transfer;
    bool offloaded = false;
    int ret = 0;

    if (chunk->kind == CHUNK_DATA) {
        respect_rate(copier, chunk->bytes);
    }
    if (interrupted(copier)) {
        return;
    }
    if (chunk->kind == CHUNK_DATA && !transfer->copy_range) {
        ret = read_chunk(copier, worker, chunk);
        if (ret < 0) {
            report(copier, transfer->sources[chunk->source], "reading", chunk->offset, ret);
        }
    }
    if (!transfer->out_of_order) {
        wait_for_turn(copier, worker, chunk->number);
    }
    if (copier->ret == 0 && chunk->kind == CHUNK_DATA && transfer->copy_range) {
        ret = blk_co_copy_range(transfer->sources[chunk->source], chunk->source_offset, transfer->target,
                                chunk->offset, chunk->bytes, 0);
        offloaded = true;
    } else if (copier->ret == 0) {
        ret = write_chunk(copier, worker, chunk);
    }
    if (ret < 0) {
        report(copier, transfer->target, offloaded ? "copying" : "writing", chunk->offset, ret);
    }
    copier->turn++;
    if (copier->ret == 0 && is_work(transfer, chunk)) {
        copier->done += chunk->bytes;
        img_progress_update(copier->done, copier->total);
    }
}

static void coroutine_fn run_worker(void *opaque)
{
    Worker *worker = opaque;
    Copier *copier = worker->copier;
    Chunk chunk;

    for (;;) {
        co_mutex_lock(&copier->cursor_lock);
        bool more = next_chunk(copier, &chunk);
        worker->at = more ? chunk.offset : INT64_MAX;
        co_mutex_unlock(&copier->cursor_lock);
        if (!more) {
            break;
        }
        copy_chunk(copier, worker, &chunk);
        if (copier->ret < 0) {
            break; /* what it has at hand is not in the target */
        }
        worker->at = INT64_MAX;
        if (wake_waiting(copier)) {
            co_reschedule(); /* its write runs while this one reads */
        }
        note_progress(copier);
    }
    wake_waiting(copier); /* after an error nobody else's turn comes */
    copier->running--;
}

/* The largest one that is not larger */
static int64_t power_of_two(int64_t bytes)
{
    return bytes > 0 ? INT64_C(1) << (63 - __builtin_clzll((unsigned long long)bytes)) : 0;
}

/* Holes smaller than the target's unit of allocation would be filled anyway. */
static int64_t zero_unit(BlockBackend *target)
{
    BdrvInfo info = { 0 };
    int64_t unit = MAX(blk_request_alignment(target), 512);

    if (blk_get_info(target, &info) == 0 && info.cluster_size > 0 && info.cluster_size <= CHUNK) {
        unit = MAX(unit, info.cluster_size);
    }
    return unit;
}

static void start(Copier *copier, Coroutine *co)
{
    copier->running++;
    co_enter(co);
}

/* Until all that was started has ended. */
static void run(Copier *copier, AioContext *ctx)
{
    while (copier->running > 0) {
        aio_context_run(ctx, true);
    }
}

/* A copy that was stopped can go on from where it is. */
static void note_end(Copier *copier)
{
    ImgTransfer *transfer = copier->transfer;
    int64_t offset = copied_up_to(copier);

    if (transfer->resume && copier->ret < 0 && blk_flush(transfer->target) == 0) {
        img_resume_save(transfer->resume, offset);
    }
}

int img_transfer(ImgTransfer *transfer)
{
    Copier copier = { .transfer = transfer, .cursor = transfer->start };
    AioContext *ctx = aio_context_current();

    copier.zero_alignment = zero_unit(transfer->target);
    copier.sparse_unit = MAX(copier.zero_alignment, power_of_two(transfer->sparse_bytes));
    if (transfer->compressed) {
        int64_t behind = blk_length(transfer->target) - transfer->length;
        copier.padding = behind > 0 && behind < SECTOR ? behind : 0;
    }
    copier.data_started_ns = copier.saved_ns = aio_clock_ns(ctx);
    copier.workers = g_new0(Worker, transfer->coroutines);
    co_mutex_init(&copier.cursor_lock);
    copier.total = transfer->length - transfer->start;
    if (img_progress_wanted()) {
        copier.total = 0;
        start(&copier, co_new(measure, &copier));
        run(&copier, ctx);
    }
    for (unsigned i = 0; i < transfer->coroutines; i++) {
        Worker *worker = &copier.workers[i];

        worker->copier = &copier;
        worker->at = INT64_MAX;
        worker->buffer = blk_blockalign(transfer->target, CHUNK);
        if (!worker->buffer) {
            tool_error("cannot allocate a buffer of %d bytes", CHUNK);
            copier.ret = -ENOMEM;
            break;
        }
        worker->coroutine = co_new(run_worker, worker);
    }
    for (unsigned i = 0; i < transfer->coroutines && copier.workers[i].coroutine; i++) {
        start(&copier, copier.workers[i].coroutine);
    }
    run(&copier, ctx);
    note_end(&copier);
    for (unsigned i = 0; i < transfer->coroutines; i++) {
        bdrv_vfree(copier.workers[i].buffer);
    }
    co_mutex_destroy(&copier.cursor_lock);
    g_free(copier.workers);
    return copier.ret;
}
