/* SPDX-License-Identifier: MIT */
/*
 * Reading compressed clusters. The data of one cluster (deflate without header, or zstd) is read as
 * whole sectors and decoded in a CPU worker. Guests read in smaller pieces than a cluster, so the
 * last decoded clusters are kept: a few buffers with reference counts under a short mutex.
 */

#include "drivers/qcow2/compressed.h"

#include <errno.h>
#include <string.h>

#include "config.h"
#ifdef CONFIG_LIBZSTD
#include <zstd.h>
#endif

#include "drivers/qcow2/deflate.h"
#include "drivers/qcow2/meta/meta.h"

#define CACHE_ENTRIES 4

/* One decoded cluster. */
typedef struct Decoded {
    uint64_t l2_entry;
    uint64_t host_offset, host_bytes;
    unsigned refs; /* cache lock; the cache holds one */
    uint64_t used; /* cache lock: clock of the last use */
    uint8_t data[];
} Decoded;

struct Qcow2CompressedCache {
    pthread_mutex_t lock; /* all below; never held over a yield */
    uint64_t clock;
    uint64_t forgets; /* counts qcow2_compressed_forget(): what was read before one is not kept */
    Decoded *entries[CACHE_ENTRIES];
};

bool qcow2_compressed_open(BlockDriverState *bs, GError **errp)
{
    Qcow2CompressedCache *cache = g_try_new0(Qcow2CompressedCache, 1);
    if (!cache) {
        g_set_error(errp, BDRV_ERROR, ENOMEM, "no memory for the cache of compressed clusters");
        return false;
    }
    pthread_mutex_init(&cache->lock, NULL);
    qcow2_state(bs)->compressed = cache;
    return true;
}

void qcow2_compressed_close(BlockDriverState *bs)
{
    Qcow2CompressedCache *cache = g_steal_pointer(&qcow2_state(bs)->compressed);
    if (!cache) {
        return;
    }
    for (unsigned i = 0; i < CACHE_ENTRIES; i++) {
        g_free(cache->entries[i]);
    }
    pthread_mutex_destroy(&cache->lock);
    g_free(cache);
}

static void unref_locked(Decoded *decoded)
{
    if (decoded && --decoded->refs == 0) {
        g_free(decoded);
    }
}

void qcow2_compressed_forget(BlockDriverState *bs, uint64_t host_offset, uint64_t bytes)
{
    Qcow2CompressedCache *cache = qcow2_state(bs)->compressed;
    pthread_mutex_lock(&cache->lock);
    cache->forgets++;
    for (unsigned i = 0; i < CACHE_ENTRIES; i++) {
        Decoded *d = cache->entries[i];
        if (d && d->host_offset < host_offset + bytes && host_offset < d->host_offset + d->host_bytes) {
            cache->entries[i] = NULL;
            unref_locked(d);
        }
    }
    pthread_mutex_unlock(&cache->lock);
}

/* A reference to the decoded cluster, or NULL and the forget count at this moment. */
static Decoded *cache_find(Qcow2CompressedCache *cache, uint64_t l2_entry, uint64_t *forgets)
{
    Decoded *found = NULL;
    pthread_mutex_lock(&cache->lock);
    *forgets = cache->forgets;
    for (unsigned i = 0; i < CACHE_ENTRIES && !found; i++) {
        Decoded *d = cache->entries[i];
        if (d && d->l2_entry == l2_entry) {
            d->refs++;
            d->used = ++cache->clock;
            found = d;
        }
    }
    pthread_mutex_unlock(&cache->lock);
    return found;
}

static void cache_unref(Qcow2CompressedCache *cache, Decoded *decoded)
{
    pthread_mutex_lock(&cache->lock);
    unref_locked(decoded);
    pthread_mutex_unlock(&cache->lock);
}

/* Keep @decoded in place of the one used longest ago, unless clusters were freed since @forgets. */
static void cache_insert(Qcow2CompressedCache *cache, Decoded *decoded, uint64_t forgets)
{
    pthread_mutex_lock(&cache->lock);
    unsigned victim = 0;
    bool keep = cache->forgets == forgets;
    for (unsigned i = 0; i < CACHE_ENTRIES; i++) {
        Decoded *d = cache->entries[i];
        Decoded *v = cache->entries[victim];
        keep = keep && !(d && d->l2_entry == decoded->l2_entry);
        if (v && (!d || d->used < v->used)) {
            victim = i;
        }
    }
    if (keep) {
        unref_locked(cache->entries[victim]);
        decoded->refs++;
        decoded->used = ++cache->clock;
        cache->entries[victim] = decoded;
    }
    pthread_mutex_unlock(&cache->lock);
}

/* What the worker gets: no node, no state. */
typedef struct DecodeJob {
    const uint8_t *in;
    size_t in_bytes;
    uint8_t *out;
    size_t out_bytes;
} DecodeJob;

/* Data may go on after the end of the stream: the last sector is shared. */
static int decode_deflate(void *opaque)
{
    DecodeJob *job = opaque;
    return qcow2_inflate(job->in, job->in_bytes, job->out, job->out_bytes);
}

#ifdef CONFIG_LIBZSTD
static int decode_zstd(void *opaque)
{
    DecodeJob *job = opaque;
    ZSTD_DCtx *context = ZSTD_createDCtx();
    if (!context) {
        return -ENOMEM;
    }
    ZSTD_inBuffer in = { job->in, job->in_bytes, 0 };
    ZSTD_outBuffer out = { job->out, job->out_bytes, 0 };
    int ret = 0;
    while (out.pos < out.size && ret == 0) {
        size_t in_before = in.pos, out_before = out.pos;
        size_t left = ZSTD_decompressStream(context, &out, &in);
        if (ZSTD_isError(left) || (in.pos == in_before && out.pos == out_before)) {
            ret = -EIO;
        }
    }
    ZSTD_freeDCtx(context);
    return ret;
}
#endif

static int coroutine_fn decode(const Qcow2State *s, DecodeJob *job)
{
    if (s->geometry.compression_type == 0) {
        return co_run_in_worker(AIO_WORK_CPU, decode_deflate, job);
    }
#ifdef CONFIG_LIBZSTD
    return co_run_in_worker(AIO_WORK_CPU, decode_zstd, job);
#else
    return -ENOTSUP;
#endif
}

/* The compressed bytes; the last sector may be cut off by the end of the file. */
static int coroutine_fn read_stream(BlockDriverState *bs, const Qcow2L2Entry *entry, uint8_t *buf,
                                    size_t *bytes)
{
    int64_t length = bdrv_co_getlength(bs->file);
    if (length < 0) {
        return (int)length;
    }
    if (entry->host_offset >= (uint64_t)length) {
        return -EIO;
    }
    *bytes = (size_t)MIN((uint64_t)entry->compressed_bytes, (uint64_t)length - entry->host_offset);
    bdrv_debug_event(bs, BDRV_EVENT_READ_COMPRESSED);
    return bdrv_co_pread(bs->file, (int64_t)entry->host_offset, (int64_t)*bytes, buf, 0);
}

static int coroutine_fn load(BlockDriverState *bs, uint64_t l2_entry, Decoded **out)
{
    const Qcow2State *s = qcow2_state(bs);
    uint32_t cluster_size = s->geometry.cluster_size;
    Qcow2L2Entry entry = qcow2_l2_entry_decode((Qcow2RawEntry){ l2_entry, 0 }, &s->geometry);
    if (entry.kind != QCOW2_CLUSTER_COMPRESSED) {
        return -EIO;
    }
    Decoded *decoded = g_try_malloc(sizeof(Decoded) + cluster_size);
    uint8_t *stream = g_try_malloc(entry.compressed_bytes);
    DecodeJob job = { .in = stream, .out = decoded ? decoded->data : NULL, .out_bytes = cluster_size };
    int ret = decoded && stream ? read_stream(bs, &entry, stream, &job.in_bytes) : -ENOMEM;
    if (ret >= 0) {
        ret = decode(s, &job);
    }
    g_free(stream);
    if (ret < 0) {
        g_free(decoded);
        return ret;
    }
    decoded->l2_entry = l2_entry;
    decoded->host_offset = entry.host_offset;
    decoded->host_bytes = entry.compressed_bytes;
    decoded->refs = 1;
    *out = decoded;
    return 0;
}

int coroutine_fn qcow2_read_compressed(BlockDriverState *bs, uint64_t l2_entry, uint64_t offset_in_cluster,
                                       uint64_t bytes, const BdrvIov *iov, size_t iov_offset)
{
    Qcow2CompressedCache *cache = qcow2_state(bs)->compressed;
    uint64_t forgets;
    Decoded *decoded = cache_find(cache, l2_entry, &forgets);
    if (!decoded) {
        int ret = load(bs, l2_entry, &decoded);
        if (ret < 0) {
            return ret;
        }
        cache_insert(cache, decoded, forgets);
    }
    bdrv_iov_from_buf(iov, iov_offset, decoded->data + offset_in_cluster, bytes);
    cache_unref(cache, decoded);
    return 0;
}
