/* SPDX-License-Identifier: MIT */

/*
 * The disk: what a reader sees (@current), what is durable (@stable), and the log that leads from one
 * to the other. Entries stay in the log in the order in which they took effect. A flush marks entries
 * durable; only a durable head of the log is merged into @stable, so that an older entry that is still
 * volatile never overwrites a younger durable one.
 */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "drivers/simdisk/disk_int.h"

/* Disks by name: a test hands a disk to the driver through this table. */
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static GHashTable *table; /* name -> BdrvSimDisk *, NULL while empty; table_lock */

/* ---- the table ---- */

/* Called with table_lock held. */
static BdrvSimDisk *make_locked(const char *name, SimImage image, int64_t length)
{
    BdrvSimDisk *disk = g_new0(BdrvSimDisk, 1);

    disk->name = g_strdup(name);
    disk->refs = 1;
    pthread_mutex_init(&disk->lock, NULL);
    disk->current = image;
    disk->stable = sim_image_copy(&image);
    disk->length = disk->stable_length = length;
    g_queue_init(&disk->log);
    sim_faults_init(&disk->faults);
    disk->limits.request_alignment = 1;
    disk->is_volatile = disk->fua = true;
    disk->capacity = -1;
    if (!table) {
        table = g_hash_table_new(g_str_hash, g_str_equal);
    }
    g_hash_table_insert(table, disk->name, disk);
    return disk;
}

/* Called with table_lock held. */
static BdrvSimDisk *lookup_locked(const char *name)
{
    return table ? g_hash_table_lookup(table, name) : NULL;
}

BdrvSimDisk *sim_disk_from_image(const char *name, SimImage image, int64_t length)
{
    BdrvSimDisk *disk = NULL;

    pthread_mutex_lock(&table_lock);
    if (!lookup_locked(name)) {
        disk = make_locked(name, image, length);
    }
    pthread_mutex_unlock(&table_lock);
    if (!disk) {
        sim_image_clear(&image);
    }
    return disk;
}

BdrvSimDisk *bdrv_simdisk_new(const char *name, int64_t bytes)
{
    return sim_disk_from_image(name, (SimImage){ 0 }, CLAMP(bytes, 0, SIM_LENGTH_MAX));
}

BdrvSimDisk *bdrv_simdisk_find(const char *name)
{
    BdrvSimDisk *disk;

    pthread_mutex_lock(&table_lock);
    disk = lookup_locked(name);
    if (disk) {
        disk->refs++;
    }
    pthread_mutex_unlock(&table_lock);
    return disk;
}

BdrvSimDisk *sim_disk_find_or_make(const char *name)
{
    BdrvSimDisk *disk;

    pthread_mutex_lock(&table_lock);
    disk = lookup_locked(name);
    if (!disk) {
        disk = make_locked(name, (SimImage){ 0 }, 0);
        disk->owned = true; /* the reference it is born with is the table's */
    }
    disk->refs++;
    pthread_mutex_unlock(&table_lock);
    return disk;
}

void bdrv_simdisk_unref(BdrvSimDisk *disk)
{
    bool last;

    if (!disk) {
        return;
    }
    pthread_mutex_lock(&table_lock);
    last = --disk->refs == 0;
    if (last) {
        g_hash_table_remove(table, disk->name);
        if (g_hash_table_size(table) == 0) {
            g_clear_pointer(&table, g_hash_table_unref);
        }
    }
    pthread_mutex_unlock(&table_lock);
    if (last) {
        g_queue_clear_full(&disk->log, (GDestroyNotify)sim_entry_unref);
        sim_image_clear(&disk->current);
        sim_image_clear(&disk->stable);
        sim_faults_destroy(&disk->faults);
        pthread_mutex_destroy(&disk->lock);
        g_free(disk->name);
        g_free(disk);
    }
}

bool bdrv_simdisk_forget(const char *name)
{
    BdrvSimDisk *disk;
    bool owned;

    pthread_mutex_lock(&table_lock);
    disk = lookup_locked(name);
    owned = disk && disk->owned;
    if (owned) {
        disk->owned = false;
    }
    pthread_mutex_unlock(&table_lock);
    if (owned) {
        bdrv_simdisk_unref(disk);
    }
    return owned;
}

/* ---- calls of the driver ---- */

const char *sim_disk_name(const BdrvSimDisk *disk)
{
    return disk->name;
}

static int kind_index(BdrvSimKind kind)
{
    return __builtin_ctz(kind);
}

int sim_disk_admit(BdrvSimDisk *disk, BdrvSimKind kind, int64_t bytes, int64_t *part)
{
    int ret;

    pthread_mutex_lock(&disk->lock);
    disk->calls[kind_index(kind)]++;
    ret = sim_faults_judge(&disk->faults, kind, bytes, part);
    pthread_mutex_unlock(&disk->lock);
    return ret;
}

int sim_disk_find_bad(BdrvSimDisk *disk, int64_t offset, int64_t bytes, int64_t *part)
{
    int ret;

    pthread_mutex_lock(&disk->lock);
    ret = sim_faults_find_bad(&disk->faults, offset, bytes, part);
    pthread_mutex_unlock(&disk->lock);
    return ret;
}

void sim_disk_draw_delay(BdrvSimDisk *disk, int64_t *before_ns, int64_t *after_ns)
{
    *before_ns = *after_ns = 0;
    pthread_mutex_lock(&disk->lock);
    if (disk->max_delay_ns > 0) {
        int64_t span = disk->max_delay_ns - disk->min_delay_ns + 1;
        int64_t total = disk->min_delay_ns + (int64_t)(sim_random(&disk->random) % (uint64_t)span);

        *before_ns = (int64_t)(sim_random(&disk->random) % (uint64_t)(total + 1));
        *after_ns = total - *before_ns;
    }
    if (disk->stall_one_in && sim_random(&disk->random) % disk->stall_one_in == 0) {
        *before_ns += (int64_t)(sim_random(&disk->random) % (uint64_t)(disk->max_stall_ns + 1));
    }
    pthread_mutex_unlock(&disk->lock);
}

void sim_disk_call_hook(BdrvSimDisk *disk, const BdrvSimRequest *request)
{
    BdrvSimHook *hook;
    void *opaque;

    pthread_mutex_lock(&disk->lock);
    hook = disk->hook;
    opaque = disk->hook_opaque;
    pthread_mutex_unlock(&disk->lock);
    if (hook) {
        hook(opaque, disk, request);
    }
}

uint64_t sim_disk_next_number(BdrvSimDisk *disk)
{
    uint64_t number;

    pthread_mutex_lock(&disk->lock);
    number = ++disk->last_number;
    pthread_mutex_unlock(&disk->lock);
    return number;
}

void sim_disk_read(BdrvSimDisk *disk, int64_t offset, int64_t bytes, const BdrvIov *iov, size_t iov_offset)
{
    const struct iovec *vec = iov->vec;

    while (iov_offset >= vec->iov_len && bytes > 0) {
        iov_offset -= vec->iov_len;
        vec++;
    }
    pthread_mutex_lock(&disk->lock);
    for (int64_t n; bytes > 0; offset += n, bytes -= n, vec++) {
        n = MIN(bytes, (int64_t)(vec->iov_len - iov_offset));
        sim_image_read(&disk->current, offset, (uint8_t *)vec->iov_base + iov_offset, n);
        iov_offset = 0;
    }
    pthread_mutex_unlock(&disk->lock);
}

static int check_space_locked(const BdrvSimDisk *disk, BdrvSimKind kind, int64_t offset, int64_t bytes)
{
    if (offset > SIM_LENGTH_MAX - bytes) {
        return -EFBIG;
    }
    if (kind == BDRV_SIM_WRITE && disk->capacity >= 0) {
        int64_t pages = disk->current.pages + sim_image_missing_pages(&disk->current, offset, bytes);

        if (pages > disk->capacity / SIM_PAGE) {
            return -ENOSPC;
        }
    }
    return 0;
}

int sim_disk_change(BdrvSimDisk *disk, BdrvSimKind kind, int64_t offset, int64_t bytes, const BdrvIov *iov,
                    size_t iov_offset, SimEntry **entry, BdrvSimRequest *request)
{
    static const BdrvSimChoice kept = { .fate = BDRV_SIM_KEPT };
    SimEntry *made;
    int ret;

    *request = (BdrvSimRequest){ .kind = kind, .offset = offset, .bytes = bytes };
    made = sim_entry_new(request, kind == BDRV_SIM_WRITE ? iov : NULL, iov_offset);

    pthread_mutex_lock(&disk->lock);
    ret = check_space_locked(disk, kind, offset, bytes);
    if (ret == 0) {
        request->number = made->request.number = ++disk->last_number;
        sim_entry_apply(made, &kept, &disk->current, &disk->length);
        if (kind == BDRV_SIM_WRITE || kind == BDRV_SIM_ZERO) {
            sim_faults_rewritten(&disk->faults, offset, bytes);
        }
        if (disk->is_volatile) {
            g_queue_push_tail(&disk->log, sim_entry_ref(made));
        }
    }
    pthread_mutex_unlock(&disk->lock);
    if (ret < 0) {
        sim_entry_unref(made);
        made = NULL;
    }
    *entry = made;
    return ret;
}

/* Called with the lock held: merge the durable head of the log. */
static void settle_locked(BdrvSimDisk *disk)
{
    static const BdrvSimChoice kept = { .fate = BDRV_SIM_KEPT };
    SimEntry *entry;

    while ((entry = g_queue_peek_head(&disk->log)) && entry->request.durable) {
        g_queue_pop_head(&disk->log);
        sim_entry_apply(entry, &kept, &disk->stable, &disk->stable_length);
        sim_entry_unref(entry);
    }
    if (g_queue_is_empty(&disk->log)) { /* the same content: share the pages again */
        sim_image_clear(&disk->stable);
        disk->stable = sim_image_copy(&disk->current);
        disk->stable_length = disk->length;
    }
}

void sim_disk_complete(BdrvSimDisk *disk, SimEntry *entry, bool durable)
{
    if (!entry) {
        return;
    }
    pthread_mutex_lock(&disk->lock);
    entry->request.completed = true;
    entry->request.durable |= durable;
    if (durable) {
        settle_locked(disk);
    }
    pthread_mutex_unlock(&disk->lock);
    sim_entry_unref(entry);
}

GPtrArray *sim_disk_flush_begin(BdrvSimDisk *disk)
{
    GPtrArray *entries = g_ptr_array_new_with_free_func((GDestroyNotify)sim_entry_unref);

    pthread_mutex_lock(&disk->lock);
    for (GList *l = disk->log.head; l; l = l->next) {
        SimEntry *entry = l->data;

        if (entry->request.completed && !entry->request.durable && !entry->request.forgotten) {
            g_ptr_array_add(entries, sim_entry_ref(entry));
        }
    }
    pthread_mutex_unlock(&disk->lock);
    return entries;
}

/* Called with the lock held: what the flush should have made durable is clean now, and is not. */
static void forget_locked(BdrvSimDisk *disk, const GPtrArray *entries)
{
    for (unsigned i = 0; i < entries->len; i++) {
        BdrvSimRequest *request = &((SimEntry *)g_ptr_array_index(entries, i))->request;

        if (request->kind != BDRV_SIM_TRUNCATE && !request->durable) {
            request->forgotten = true;
            request->dropped = disk->flush_failure == BDRV_SIM_FLUSH_DROPS;
        }
    }
}

/* Called with the lock held: what a reader sees when dropped bytes are gone. */
static void look_again_locked(BdrvSimDisk *disk)
{
    static const BdrvSimChoice kept = { .fate = BDRV_SIM_KEPT };

    sim_image_clear(&disk->current);
    disk->current = sim_image_copy(&disk->stable);
    disk->length = disk->stable_length;
    for (GList *l = disk->log.head; l; l = l->next) {
        const SimEntry *entry = l->data;
        BdrvSimChoice choice = sim_effective_choice(&entry->request, kept);

        sim_entry_apply(entry, &choice, &disk->current, &disk->length);
    }
}

void sim_disk_flush_end(BdrvSimDisk *disk, GPtrArray *entries, bool ok)
{
    pthread_mutex_lock(&disk->lock);
    for (unsigned i = 0; ok && i < entries->len; i++) {
        ((SimEntry *)g_ptr_array_index(entries, i))->request.durable = true;
    }
    if (ok) {
        settle_locked(disk);
    } else if (disk->flush_failure != BDRV_SIM_FLUSH_KEEPS) {
        forget_locked(disk, entries);
        if (disk->flush_failure == BDRV_SIM_FLUSH_DROPS) {
            look_again_locked(disk);
        }
    }
    pthread_mutex_unlock(&disk->lock);
    g_ptr_array_unref(entries);
}

int64_t sim_disk_run(BdrvSimDisk *disk, int64_t offset, int64_t bytes, bool *allocated)
{
    int64_t run;

    pthread_mutex_lock(&disk->lock);
    run = sim_image_run(&disk->current, offset, bytes, allocated);
    pthread_mutex_unlock(&disk->lock);
    return run;
}

void sim_disk_snapshot(BdrvSimDisk *disk, SimImage *image, int64_t *length, GPtrArray *entries,
                       GArray *requests)
{
    pthread_mutex_lock(&disk->lock);
    *image = sim_image_copy(disk->is_volatile ? &disk->stable : &disk->current);
    *length = disk->is_volatile ? disk->stable_length : disk->length;
    for (GList *l = disk->log.head; l; l = l->next) {
        SimEntry *entry = l->data;

        g_ptr_array_add(entries, sim_entry_ref(entry));
        g_array_append_val(requests, entry->request);
    }
    pthread_mutex_unlock(&disk->lock);
}

/* ---- settings and questions ---- */

#define WITH_LOCK(disk, statement)                                                                           \
    do {                                                                                                     \
        pthread_mutex_lock(&(disk)->lock);                                                                   \
        statement;                                                                                           \
        pthread_mutex_unlock(&(disk)->lock);                                                                 \
    } while (0)

void bdrv_simdisk_set_seed(BdrvSimDisk *disk, uint64_t seed)
{
    WITH_LOCK(disk, disk->random = seed);
}

void bdrv_simdisk_set_volatile(BdrvSimDisk *disk, bool on)
{
    pthread_mutex_lock(&disk->lock);
    g_queue_clear_full(&disk->log, (GDestroyNotify)sim_entry_unref);
    settle_locked(disk); /* all that was is durable now */
    disk->is_volatile = on;
    pthread_mutex_unlock(&disk->lock);
}

void bdrv_simdisk_set_limits(BdrvSimDisk *disk, const BdrvLimits *limits)
{
    WITH_LOCK(disk, disk->limits = *limits);
}

BdrvLimits sim_disk_limits(BdrvSimDisk *disk)
{
    BdrvLimits limits;

    WITH_LOCK(disk, limits = disk->limits);
    return limits;
}

void bdrv_simdisk_set_unsupported(BdrvSimDisk *disk, unsigned kinds)
{
    WITH_LOCK(disk, disk->unsupported = kinds);
}

unsigned sim_disk_unsupported(BdrvSimDisk *disk)
{
    unsigned kinds;

    WITH_LOCK(disk, kinds = disk->unsupported);
    return kinds;
}

void bdrv_simdisk_set_fua(BdrvSimDisk *disk, bool on)
{
    WITH_LOCK(disk, disk->fua = on);
}

bool sim_disk_fua(BdrvSimDisk *disk)
{
    bool on;

    WITH_LOCK(disk, on = disk->fua);
    return on;
}

void bdrv_simdisk_set_capacity(BdrvSimDisk *disk, int64_t bytes)
{
    WITH_LOCK(disk, disk->capacity = bytes);
}

void bdrv_simdisk_set_delay(BdrvSimDisk *disk, int64_t min_ns, int64_t max_ns)
{
    WITH_LOCK(disk, (disk->min_delay_ns = MIN(min_ns, max_ns), disk->max_delay_ns = max_ns));
}

void bdrv_simdisk_set_stall(BdrvSimDisk *disk, unsigned one_in, int64_t max_ns)
{
    WITH_LOCK(disk, (disk->stall_one_in = one_in, disk->max_stall_ns = MAX(max_ns, 0)));
}

void bdrv_simdisk_fail(BdrvSimDisk *disk, unsigned kinds, unsigned nth, int count, int error)
{
    bdrv_simdisk_fail_partly(disk, kinds, nth, count, error, 0);
}

void bdrv_simdisk_fail_partly(BdrvSimDisk *disk, unsigned kinds, unsigned nth, int count, int error,
                              int64_t bytes)
{
    WITH_LOCK(disk, sim_faults_add_rule(&disk->faults, kinds, nth, count, error, bytes));
}

void bdrv_simdisk_fail_none(BdrvSimDisk *disk)
{
    WITH_LOCK(disk, g_array_set_size(disk->faults.rules, 0));
}

void bdrv_simdisk_set_bad(BdrvSimDisk *disk, int64_t offset, int64_t bytes, int error)
{
    WITH_LOCK(disk, sim_faults_add_bad(&disk->faults, offset, bytes, error));
}

void bdrv_simdisk_set_flush_failure(BdrvSimDisk *disk, BdrvSimFlushFailure mode)
{
    WITH_LOCK(disk, disk->flush_failure = mode);
}

void bdrv_simdisk_set_hook(BdrvSimDisk *disk, BdrvSimHook *hook, void *opaque)
{
    WITH_LOCK(disk, (disk->hook = hook, disk->hook_opaque = opaque));
}

uint64_t bdrv_simdisk_count(BdrvSimDisk *disk, unsigned kinds)
{
    uint64_t sum = 0;

    pthread_mutex_lock(&disk->lock);
    for (unsigned i = 0; i < SIM_KINDS; i++) {
        sum += kinds & (1u << i) ? disk->calls[i] : 0;
    }
    pthread_mutex_unlock(&disk->lock);
    return sum;
}

int64_t bdrv_simdisk_length(BdrvSimDisk *disk)
{
    int64_t length;

    WITH_LOCK(disk, length = disk->length);
    return length;
}

int64_t bdrv_simdisk_allocated(BdrvSimDisk *disk)
{
    int64_t bytes;

    WITH_LOCK(disk, bytes = disk->current.pages * SIM_PAGE);
    return bytes;
}

void bdrv_simdisk_peek(BdrvSimDisk *disk, int64_t offset, void *buf, size_t bytes)
{
    WITH_LOCK(disk, sim_image_read(&disk->current, offset, buf, bytes));
}

void bdrv_simdisk_poke(BdrvSimDisk *disk, int64_t offset, const void *buf, size_t bytes)
{
    pthread_mutex_lock(&disk->lock);
    sim_image_write(&disk->current, offset, buf, bytes);
    disk->length = MAX(disk->length, offset + (int64_t)bytes);
    sim_image_write(&disk->stable, offset, buf, bytes);
    disk->stable_length = MAX(disk->stable_length, offset + (int64_t)bytes);
    pthread_mutex_unlock(&disk->lock);
}

/* Allocated pages only; the file keeps holes elsewhere. */
static int export_to_fd(BdrvSimDisk *disk, int fd)
{
    int64_t length = bdrv_simdisk_length(disk), n;
    uint8_t page[SIM_PAGE];

    if (ftruncate(fd, length) < 0) {
        return -errno;
    }
    for (int64_t offset = 0; offset < length; offset += n) {
        bool allocated;

        n = sim_disk_run(disk, offset, length - offset, &allocated);
        if (!allocated) {
            continue;
        }
        n = MIN(SIM_PAGE, length - offset);
        bdrv_simdisk_peek(disk, offset, page, n);
        if (pwrite(fd, page, n, offset) != n) {
            return errno ? -errno : -EIO;
        }
    }
    return 0;
}

int bdrv_simdisk_export(BdrvSimDisk *disk, const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644), ret;

    if (fd < 0) {
        return -errno;
    }
    ret = export_to_fd(disk, fd);
    return close(fd) < 0 && ret == 0 ? -errno : ret;
}
