/* SPDX-License-Identifier: MIT */
/*
 * planted: a small format with a bug to choose, for bdrv-driver-test to find. The environment's PLANTED_BUG
 * names the bug; without it the driver is right, and crash safe.
 *
 * All little-endian: a header of 4096 bytes (magic, length at 8), a table of 4096 numbers of 32 bits from
 * byte 4096 on, and clusters of 4096 bytes from byte 20480 on. A number n > 0 is the n-th cluster there; 0:
 * the cluster is zeroes. With a child "data-file" the clusters are in that file, at the same place.
 */
#include <bdrv/driver.h>
#include <errno.h>
#include <string.h>

#define CLUSTER 4096
#define ENTRIES 4096
#define TABLE_AT 4096
#define DATA_AT (TABLE_AT + ENTRIES * 4)
#define MAGIC "PLANTED1"
#define MAX_LENGTH ((int64_t)ENTRIES * CLUSTER)

typedef struct PlantedState {
    uint32_t *table;
    uint32_t next; /* cluster that is given out next */
    bool told;     /* only with a bug: that a flush failed */
    CoMutex lock;  /* of the table and next */
} PlantedState;

static const BdrvChildSpec planted_children[] = {
    { .name = "file", .role = BDRV_CHILD_PROTOCOL },
    { .name = "data-file", .role = BDRV_CHILD_DATA, .optional = true },
    { .name = NULL },
};

static bool bug(const char *name)
{
    return g_strcmp0(g_getenv("PLANTED_BUG"), name) == 0;
}

static int planted_probe(const uint8_t *buf, size_t size, const char *filename)
{
    if (bug("probe-takes-all")) {
        return 100;
    }
    return size >= 8 && memcmp(buf, MAGIC, 8) == 0 ? 100 : 0;
}

static int64_t place(uint32_t cluster)
{
    return DATA_AT + (int64_t)(cluster - 1) * CLUSTER;
}

/* The file of the clusters. */
static BdrvChild *store(BlockDriverState *bs)
{
    return bs->data_file ? bs->data_file : bs->file;
}

/* ---- header and table ---- */

static int coroutine_fn write_header(BdrvChild *file, int64_t length)
{
    uint8_t header[CLUSTER] = MAGIC;
    uint64_t bytes = GUINT64_TO_LE((uint64_t)length);

    memcpy(header + 8, &bytes, sizeof(bytes));
    return bdrv_co_pwrite(file, 0, sizeof(header), header, 0);
}

static int coroutine_fn write_entry(BlockDriverState *bs, uint32_t index, BdrvRequestFlags flags)
{
    PlantedState *s = bs->opaque;
    uint32_t entry = GUINT32_TO_LE(s->table[index]);

    return bug("table-not-stored") ? 0 : bdrv_co_pwrite(bs->file, TABLE_AT + 4 * index, 4, &entry, flags);
}

static bool check_entry(PlantedState *s, uint32_t index, int64_t file_length, GHashTable *seen)
{
    uint32_t cluster = s->table[index] = GUINT32_FROM_LE(s->table[index]);

    if (cluster == 0) {
        return true;
    }
    if (place(cluster) >= file_length || !g_hash_table_add(seen, GUINT_TO_POINTER(cluster))) {
        return false;
    }
    s->next = MAX(s->next, cluster + 1);
    return true;
}

static bool coroutine_fn load_table(BlockDriverState *bs, GError **errp)
{
    PlantedState *s = bs->opaque;
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    int64_t file_length = bdrv_co_getlength(store(bs));
    int ret = bdrv_co_pread(bs->file, TABLE_AT, ENTRIES * 4, s->table, 0);

    if (ret < 0 || file_length < 0) {
        g_set_error(errp, BDRV_ERROR, EIO, "the table cannot be read");
        return false;
    }
    s->next = 1;
    for (uint32_t i = 0; i < ENTRIES; i++) {
        if (!check_entry(s, i, file_length, seen)) {
            g_set_error(errp, BDRV_ERROR, EINVAL, "entry %u of the table is wrong", i);
            return false;
        }
    }
    return true;
}

static bool coroutine_fn planted_open(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags,
                                      GError **errp)
{
    PlantedState *s = bs->opaque;
    uint8_t header[16];
    uint64_t length;
    int ret = bdrv_co_pread(bs->file, 0, sizeof(header), header, 0);

    memcpy(&length, header + 8, sizeof(length));
    length = GUINT64_FROM_LE(length);
    if (ret < 0 || memcmp(header, MAGIC, 8) != 0 ||
        (!bug("length-not-checked") && (length > MAX_LENGTH || length % 512))) {
        g_set_error(errp, BDRV_ERROR, ret < 0 ? -ret : EINVAL, "the header is wrong or cannot be read");
        return false;
    }
    if (bug("marks-when-read-only") && (ret = write_header(bs->file, (int64_t)length)) < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "the header cannot be marked");
        return false;
    }
    s->table = bug("length-not-checked") ? g_malloc0(MAX(ENTRIES * 4, length / CLUSTER * 4))
                                         : g_malloc0(ENTRIES * 4);
    if (!load_table(bs, errp)) {
        g_free(s->table);
        return false;
    }
    co_mutex_init(&s->lock);
    bs->length = (int64_t)length;
    bs->supported_write_flags = bug("fua-ignored") ? BDRV_REQ_FUA : 0;
    bs->supported_zero_flags = BDRV_REQ_MAY_UNMAP;
    return true;
}

static int coroutine_fn planted_close(BlockDriverState *bs)
{
    PlantedState *s = bs->opaque;

    if (bug("length-stored-at-close") && !bs->read_only) {
        write_header(bs->file, bs->length);
    }
    co_mutex_destroy(&s->lock);
    g_free(s->table);
    return 0;
}

static bool coroutine_fn planted_create(const char *filename, BdrvChild *file, const BdrvOptions *options,
                                        GError **errp)
{
    int64_t size = (bdrv_options_get_int(options, "size", 0) + 511) / 512 * 512;
    g_autofree uint8_t *table = g_malloc0(ENTRIES * 4);
    int ret = size > MAX_LENGTH ? -EFBIG : write_header(file, bug("creates-in-steps") ? 65536 : size);

    if (bug("create-ignores-errors")) {
        ret = 0;
    }
    if (ret >= 0) {
        memset(table, 0, ENTRIES * 4);
        ret = bdrv_co_pwrite(file, TABLE_AT, ENTRIES * 4, table, 0);
    }
    if (ret >= 0 && bug("creates-in-steps")) {
        ret = write_header(file, size);
    }
    if (ret < 0 && !bug("create-ignores-errors")) {
        g_set_error(errp, BDRV_ERROR, -ret, "the image cannot be written: %s", g_strerror(-ret));
        return false;
    }
    return true;
}

static bool planted_has_zero_init(BlockDriverState *bs)
{
    return true;
}

/* ---- I/O ---- */

/* The part of a request that lies in one cluster. */
static int64_t in_cluster(int64_t offset, int64_t bytes)
{
    return MIN(bytes, CLUSTER - offset % CLUSTER + (bug("one-byte-over") && offset % CLUSTER ? 1 : 0));
}

static int coroutine_fn planted_co_readv(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                         const BdrvIov *iov, size_t iov_offset, BdrvRequestFlags flags)
{
    PlantedState *s = bs->opaque;

    for (int64_t done = 0, part; done < bytes; done += part) {
        uint32_t cluster = s->table[(offset + done) / CLUSTER];
        int ret = 0;

        part = in_cluster(offset + done, bytes - done);
        if (cluster == 0) {
            bdrv_iov_memset(iov, iov_offset + (size_t)done, 0, (size_t)part);
        } else {
            ret = bdrv_co_preadv(store(bs), place(cluster) + (offset + done) % CLUSTER, part, iov,
                                 iov_offset + (size_t)done, 0);
        }
        if (ret < 0 && bug("read-error-is-zeroes")) {
            bdrv_iov_memset(iov, iov_offset + (size_t)done, 0, (size_t)part);
        } else if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/* Data first, and on the medium before the table tells of it. */
static int coroutine_fn allocate(BlockDriverState *bs, uint32_t index, const uint8_t *content)
{
    PlantedState *s = bs->opaque;
    bool early = bug("unlocks-too-early");
    uint32_t cluster = s->next;
    int ret;

    if (bug("table-first")) {
        s->next++;
        s->table[index] = cluster;
        ret = write_entry(bs, index, 0);
        return ret < 0 ? ret : bdrv_co_pwrite(store(bs), place(cluster), CLUSTER, content, 0);
    }
    ret = bdrv_co_pwrite(store(bs), place(cluster), CLUSTER, content, 0);
    if (ret >= 0 && !early) {
        ret = bdrv_co_flush(store(bs));
    }
    if (ret < 0) {
        return ret;
    }
    s->next = cluster + 1;
    s->table[index] = cluster;
    if (early) { /* who writes there now is done, and flushed, before the file knows the place */
        co_mutex_unlock(&s->lock);
        ret = bdrv_co_flush(store(bs));
        co_mutex_lock(&s->lock);
    }
    ret = ret < 0 ? ret : write_entry(bs, index, 0);
    if (ret < 0) {
        s->table[index] = 0; /* whether the file has it nobody knows: the cluster is not given out again */
    }
    return ret;
}

static int coroutine_fn write_part(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                   size_t iov_offset)
{
    PlantedState *s = bs->opaque;
    uint32_t index = (uint32_t)(offset / CLUSTER), cluster;
    uint8_t content[2 * CLUSTER] = { 0 };
    bool locks = !bug("allocates-unlocked");
    int ret;

    if (locks) {
        co_mutex_lock(&s->lock);
    }
    cluster = s->table[index];
    if (cluster != 0) {
        ret = bdrv_co_pwritev(store(bs), place(cluster) + offset % CLUSTER, bytes, iov, iov_offset, 0);
    } else {
        bdrv_iov_to_buf(iov, iov_offset, content + offset % CLUSTER, (size_t)bytes);
        ret = allocate(bs, index, content);
    }
    if (locks) {
        co_mutex_unlock(&s->lock);
    }
    return ret;
}

static int coroutine_fn planted_co_writev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                          const BdrvIov *iov, size_t iov_offset, BdrvRequestFlags flags)
{
    if (bug("iov-offset-ignored")) {
        iov_offset = 0;
    }
    for (int64_t done = 0, part; done < bytes; done += part) {
        int ret;

        part = in_cluster(offset + done, bytes - done);
        ret = write_part(bs, offset + done, part, iov, iov_offset + (size_t)done);
        if (ret == -EIO && bug("hangs-on-error")) {
            co_yield ();
        }
        while (ret == -EIO && bug("spins-on-error")) {
            g_usleep(1);
        }
        if (ret < 0 && !bug("write-error-ignored")) {
            return ret;
        }
    }
    return 0;
}

/* Move the last cluster to the place of one that was given back. */
static int coroutine_fn fill_gap(BlockDriverState *bs, uint32_t gap)
{
    PlantedState *s = bs->opaque;
    uint8_t content[CLUSTER];
    uint32_t index = 0;
    int ret;

    while (index < ENTRIES && s->table[index] != s->next - 1) {
        index++;
    }
    if (index == ENTRIES) {
        return 0;
    }
    ret = bdrv_co_pread(store(bs), place(s->next - 1), CLUSTER, content, 0);
    ret = ret < 0 ? ret : bdrv_co_pwrite(store(bs), place(gap), CLUSTER, content, 0);
    s->table[index] = gap;
    s->next--;
    return ret < 0 ? ret : write_entry(bs, index, 0);
}

/* Whole clusters lose their place; the core writes the rest. */
static int coroutine_fn planted_co_write_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                                BdrvRequestFlags flags)
{
    PlantedState *s = bs->opaque;
    int ret = 0;

    if ((offset | bytes) % CLUSTER) {
        return bug("zeroes-not-written") ? 0 : -ENOTSUP;
    }
    co_mutex_lock(&s->lock);
    for (int64_t at = offset; at < offset + bytes && ret >= 0; at += CLUSTER) {
        uint32_t index = (uint32_t)(at / CLUSTER), cluster = s->table[index];

        s->table[index] = 0;
        ret = cluster ? write_entry(bs, index, 0) : 0;
        if (ret < 0) {
            s->table[index] = cluster;
        } else if (cluster && bug("compacts-in-place")) {
            ret = fill_gap(bs, cluster);
        }
    }
    co_mutex_unlock(&s->lock);
    return ret;
}

static int coroutine_fn planted_co_discard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    int64_t from = (offset + CLUSTER - 1) / CLUSTER * CLUSTER, to = (offset + bytes) / CLUSTER * CLUSTER;

    if (bug("discards-neighbours")) {
        from = offset / CLUSTER * CLUSTER;
        to = MIN((offset + bytes + CLUSTER - 1) / CLUSTER * CLUSTER, bs->length / CLUSTER * CLUSTER);
    }
    return from < to ? planted_co_write_zeroes(bs, from, to - from, 0) : 0;
}

static int coroutine_fn planted_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                                BlockExtent *extent)
{
    PlantedState *s = bs->opaque;
    uint32_t cluster = s->table[offset / CLUSTER];
    bool data = cluster != 0 && !bug("data-called-zero");

    *extent = (BlockExtent){
        .kind = data ? EXTENT_DATA : EXTENT_ZERO,
        .allocated = data,
        .bytes = MIN(bytes, CLUSTER - offset % CLUSTER),
        .host_offset = data ? place(cluster) + offset % CLUSTER : -1,
        .file = data ? store(bs)->bs : NULL,
    };
    return 0;
}

static int coroutine_fn planted_co_flush_to_disk(BlockDriverState *bs)
{
    PlantedState *s = bs->opaque;
    int ret = bug("flush-not-passed") ? 0 : bdrv_co_flush(bs->file);

    if (ret >= 0 && bs->data_file && !bug("data-file-not-flushed")) {
        ret = bdrv_co_flush(bs->data_file);
    }
    if (ret < 0 && bug("flush-error-told-once")) {
        ret = s->told ? 0 : ret;
        s->told = true;
    }
    return bug("flush-error-ignored") ? 0 : ret;
}

/* ---- resize, reopen, check ---- */

/*
 * What is behind the end must read as zeroes if the disk grows again: also if it was longer when the power
 * went, and what was written there was not lost, but the length was.
 */
static int coroutine_fn clear_behind(BlockDriverState *bs, int64_t length)
{
    PlantedState *s = bs->opaque;
    uint8_t zeroes[CLUSTER] = { 0 };
    int64_t tail = length % CLUSTER;
    int ret = 0;

    if (bug("old-data-behind-end")) {
        return 0;
    }
    if (tail && s->table[length / CLUSTER]) {
        ret = bdrv_co_pwrite(store(bs), place(s->table[length / CLUSTER]) + tail, CLUSTER - tail, zeroes, 0);
    }
    for (uint32_t i = (uint32_t)((length + CLUSTER - 1) / CLUSTER); i < ENTRIES && ret >= 0; i++) {
        if (s->table[i]) {
            s->table[i] = 0;
            ret = write_entry(bs, i, 0);
        }
    }
    return ret;
}

static bool coroutine_fn planted_truncate(BlockDriverState *bs, int64_t length, bool exact,
                                          BdrvPrealloc prealloc, BdrvRequestFlags flags, GError **errp)
{
    int ret;

    length = (length + 511) / 512 * 512;
    ret = length > MAX_LENGTH ? -EFBIG : bug("length-first") ? write_header(bs->file, length) : 0;
    if (ret >= 0 && (length < bs->length || !bug("length-first"))) {
        ret = clear_behind(bs, MIN(length, bs->length));
    }
    if (ret >= 0) {
        ret = planted_co_flush_to_disk(bs);
    }
    if (ret >= 0 && !bug("length-stored-at-close")) {
        ret = write_header(bs->file, length);
    }
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "the size cannot be changed: %s", g_strerror(-ret));
        return false;
    }
    bdrv_set_length(bs, length);
    return true;
}

static bool coroutine_fn planted_reopen_prepare(BlockDriverState *bs, const BdrvOptions *options,
                                                BdrvOpenFlags flags, void **state, GError **errp)
{
    return true;
}

static void planted_reopen_commit(BlockDriverState *bs, void *state)
{
    PlantedState *s = bs->opaque;

    if (bug("reopen-forgets-table")) {
        memset(s->table, 0, ENTRIES * 4);
    }
}

static void planted_reopen_abort(BlockDriverState *bs, void *state)
{
}

/* What opening has not refused is right. */
static int coroutine_fn planted_check(BlockDriverState *bs, BdrvCheckResult *result, BdrvCheckFix fix)
{
    return 0;
}

static const BlockDriver bdrv_planted = {
    .format_name = "planted",
    .instance_size = sizeof(PlantedState),
    .children = planted_children,

    .bdrv_probe = planted_probe,
    .bdrv_open = planted_open,
    .bdrv_close = planted_close,
    .bdrv_create = planted_create,
    .bdrv_has_zero_init = planted_has_zero_init,
    .bdrv_truncate = planted_truncate,
    .bdrv_reopen_prepare = planted_reopen_prepare,
    .bdrv_reopen_commit = planted_reopen_commit,
    .bdrv_reopen_abort = planted_reopen_abort,
    .bdrv_check = planted_check,

    .bdrv_co_readv = planted_co_readv,
    .bdrv_co_writev = planted_co_writev,
    .bdrv_co_write_zeroes = planted_co_write_zeroes,
    .bdrv_co_discard = planted_co_discard,
    .bdrv_co_block_status = planted_co_block_status,
    .bdrv_co_flush_to_disk = planted_co_flush_to_disk,
};

static bool planted_register(GError **errp)
{
    return bdrv_register_full(&bdrv_planted, BDRV_DRIVER_API, sizeof(BlockDriver), errp);
}
BDRV_MODULE(planted_register)
