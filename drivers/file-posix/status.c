/* SPDX-License-Identifier: MIT */
/*
 * Where a file has data and where holes: lseek(SEEK_DATA), lseek(SEEK_HOLE), in a worker, because the
 * file system may have to read its extent tree. Only data extents are remembered: to call a hole data
 * costs a read, to call data a hole would lose it, and other processes may write into holes.
 */

#include "drivers/file-posix/file.h"

#include <errno.h>
#include <unistd.h>

typedef struct StatusJob {
    FileState *s;
    int64_t offset;
    bool is_data;
    int64_t end; /* INT64_MAX: up to the end of the file */
} StatusJob;

static int status_job(void *opaque)
{
    StatusJob *job = opaque;
    FileState *s = job->s;

    off_t data = s->calls->lseek(s->h.fd, job->offset, SEEK_DATA);
    if (data < 0 && errno == ENXIO) {
        job->is_data = false;
        job->end = INT64_MAX;
        return 0;
    }
    if (data < 0) {
        int ret = -errno;
        if (ret == -EINVAL || ret == -EOPNOTSUPP) {
            atomic_store_explicit(&s->no_seek_data, true, memory_order_relaxed);
        }
        return ret;
    }
    if (data > job->offset) {
        job->is_data = false;
        job->end = data;
        return 0;
    }
    off_t hole = s->calls->lseek(s->h.fd, job->offset, SEEK_HOLE);
    if (hole <= job->offset) {
        return hole < 0 ? -errno : -EIO; /* a hole was made just now; "data" is a safe answer */
    }
    job->is_data = true;
    job->end = hole;
    return 0;
}

static bool look_up_extent(FileState *s, int64_t offset, int64_t *end, uint64_t *gen)
{
    pthread_mutex_lock(&s->extent_lock);
    bool found = offset >= s->extent_start && offset < s->extent_end;
    *end = s->extent_end;
    *gen = s->extent_gen;
    pthread_mutex_unlock(&s->extent_lock);
    return found;
}

static void store_extent(FileState *s, int64_t start, int64_t end, uint64_t gen)
{
    pthread_mutex_lock(&s->extent_lock);
    if (s->extent_gen == gen) {
        s->extent_start = start;
        s->extent_end = end;
    }
    pthread_mutex_unlock(&s->extent_lock);
}

void file_forget_extent(FileState *s)
{
    pthread_mutex_lock(&s->extent_lock);
    s->extent_start = s->extent_end = 0;
    s->extent_gen++;
    pthread_mutex_unlock(&s->extent_lock);
}

static void fill_extent(BlockDriverState *bs, int64_t offset, int64_t bytes, int64_t end, bool is_data,
                        BlockExtent *extent)
{
    int64_t align = file_state(bs)->h.request_alignment;

    if (end - offset < bytes) {
        /* Answers are in whole blocks of the node; a hole that ends inside of one is data from there. */
        bytes = is_data ? (end - offset + align - 1) & -align : (end - offset) & -align;
        if (bytes == 0) {
            bytes = align;
            is_data = true;
        }
    }
    *extent = (BlockExtent){
        .kind = is_data ? EXTENT_DATA : EXTENT_ZERO,
        .allocated = is_data,
        .bytes = bytes,
        .at_eof = offset + bytes >= atomic_load(&bs->length),
        .host_offset = offset,
        .file = bs,
    };
}

int coroutine_fn file_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes, BlockExtent *extent)
{
    FileState *s = file_state(bs);
    StatusJob job = { .s = s, .offset = offset, .is_data = true, .end = INT64_MAX };
    uint64_t gen;

    if (s->is_device || atomic_load_explicit(&s->no_seek_data, memory_order_relaxed)) {
        fill_extent(bs, offset, bytes, INT64_MAX, true, extent);
        return 0;
    }
    if (look_up_extent(s, offset, &job.end, &gen)) {
        fill_extent(bs, offset, bytes, job.end, true, extent);
        return 0;
    }
    if (file_run(status_job, &job) < 0) {
        job.is_data = true; /* not knowing is no error: the data can be read */
        job.end = INT64_MAX;
    } else if (job.is_data) {
        store_extent(s, offset, job.end, gen);
    }
    fill_extent(bs, offset, bytes, job.end, job.is_data, extent);
    return 0;
}
