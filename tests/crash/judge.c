/* SPDX-License-Identifier: MIT */
#include "tests/crash/judge.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/crash/vdi.h"

#define WINDOW (MODEL_SECTORS * 512) /* guest bytes that are looked at, besides the last sectors of the disk */
#define TAIL 4096
#define CROSS_CHECK_EVERY 64 /* distinct states: that the flat bytes are those of a disk made from the cut */
#define SECOND_LIFE_EVERY 16 /* distinct states: that the image works on */
#define KNOWN_MAX ((size_t)1 << 23)

static const char *G_GNUC_PRINTF(2, 3) wrong(Judge *judge, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_vsnprintf(judge->fault, sizeof(judge->fault), format, args);
    va_end(args);
    return judge->fault;
}

/* ---- what is known ---- */

static size_t slot_of(const Judge *judge, uint64_t hash)
{
    size_t slot = hash & (judge->capacity - 1);
    while (judge->hashes[slot] && judge->hashes[slot] != hash) {
        slot = (slot + 1) & (judge->capacity - 1);
    }
    return slot;
}

static void rehash(Judge *judge, size_t capacity)
{
    g_autofree uint64_t *hashes = judge->hashes;
    g_autofree uint32_t *readings = judge->readings;
    size_t old = judge->capacity;
    judge->hashes = g_new0(uint64_t, capacity);
    judge->readings = g_new0(uint32_t, capacity);
    judge->capacity = capacity;
    for (size_t i = 0; i < old; i++) {
        if (hashes[i]) {
            size_t slot = slot_of(judge, hashes[i]);
            judge->hashes[slot] = hashes[i];
            judge->readings[slot] = readings[i];
        }
    }
}

static const CrashReading *recall(const Judge *judge, uint64_t hash)
{
    size_t slot = slot_of(judge, hash);
    return judge->hashes[slot] ? g_ptr_array_index(judge->known, judge->readings[slot] - 1) : NULL;
}

static guint reading_hash(gconstpointer key)
{
    const uint8_t *bytes = key;
    guint h = 5381;
    for (size_t i = 0; i < sizeof(CrashReading); i++) {
        h = h * 33 ^ bytes[i];
    }
    return h;
}

static gboolean reading_equal(gconstpointer a, gconstpointer b)
{
    return memcmp(a, b, sizeof(CrashReading)) == 0;
}

void judge_init(Judge *judge, const CrashImage *image)
{
    *judge = (Judge){ .image = image, .capacity = 1 << 12 };
    judge->hashes = g_new0(uint64_t, judge->capacity);
    judge->readings = g_new0(uint32_t, judge->capacity);
    judge->known_by = g_hash_table_new(reading_hash, reading_equal);
    judge->known = g_ptr_array_new_with_free_func(g_free);
    judge->guest = g_malloc(WINDOW);
}

void judge_clear(Judge *judge)
{
    g_free(judge->hashes);
    g_free(judge->readings);
    g_free(judge->guest);
    g_ptr_array_unref(judge->known);
    g_hash_table_unref(judge->known_by);
    oracle_clear(&judge->oracle);
}

static const CrashReading *remember(Judge *judge, uint64_t hash, const CrashReading *reading)
{
    guint index = GPOINTER_TO_UINT(g_hash_table_lookup(judge->known_by, reading));
    if (!index) {
        CrashReading *copy = g_memdup2(reading, sizeof(*reading));
        g_ptr_array_add(judge->known, copy);
        index = judge->known->len;
        g_hash_table_insert(judge->known_by, copy, GUINT_TO_POINTER(index));
    }
    if (judge->used * 2 >= judge->capacity) {
        if (judge->capacity < KNOWN_MAX) {
            rehash(judge, judge->capacity * 2);
        } else { /* bounded: some are judged again */
            memset(judge->hashes, 0, judge->capacity * sizeof(*judge->hashes));
            judge->used = 0;
        }
    }
    size_t slot = slot_of(judge, hash);
    judge->hashes[slot] = hash;
    judge->readings[slot] = index;
    judge->used++;
    return g_ptr_array_index(judge->known, index - 1);
}

typedef struct Saved { /* then the readings, then the pairs of hash and reading */
    uint64_t capacity, used, readings, entries;
} Saved;

typedef struct SavedEntry {
    uint64_t hash, reading;
} SavedEntry;

char *judge_save(const Judge *judge)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    Saved saved = { judge->capacity, judge->used, judge->known->len, 0 };
    for (size_t i = 0; i < judge->capacity; i++) {
        saved.entries += judge->hashes[i] != 0;
    }
    g_byte_array_append(bytes, (const guint8 *)&saved, sizeof(saved));
    for (guint i = 0; i < judge->known->len; i++) {
        g_byte_array_append(bytes, g_ptr_array_index(judge->known, i), sizeof(CrashReading));
    }
    for (size_t i = 0; i < judge->capacity; i++) {
        SavedEntry entry = { judge->hashes[i], judge->readings[i] };
        if (entry.hash) {
            g_byte_array_append(bytes, (const guint8 *)&entry, sizeof(entry));
        }
    }
    return g_base64_encode(bytes->data, bytes->len);
}

bool judge_load(Judge *judge, const char *text)
{
    gsize length;
    g_autofree guchar *bytes = g_base64_decode(text, &length);
    Saved saved;
    if (length < sizeof(saved)) {
        return false;
    }
    memcpy(&saved, bytes, sizeof(saved));
    if (saved.capacity > KNOWN_MAX || saved.readings > length || saved.entries * 2 > saved.capacity + 2 ||
        length != sizeof(saved) + saved.readings * sizeof(CrashReading) + saved.entries * sizeof(SavedEntry)) {
        return false;
    }
    const guchar *at = bytes + sizeof(saved);
    for (uint64_t i = 0; i < saved.readings; i++, at += sizeof(CrashReading)) {
        CrashReading *copy = g_memdup2(at, sizeof(*copy));
        g_ptr_array_add(judge->known, copy);
        g_hash_table_insert(judge->known_by, copy, GUINT_TO_POINTER(judge->known->len));
    }
    rehash(judge, saved.capacity);
    for (uint64_t i = 0; i < saved.entries; i++, at += sizeof(SavedEntry)) {
        SavedEntry entry;
        memcpy(&entry, at, sizeof(entry));
        size_t slot = slot_of(judge, entry.hash);
        judge->hashes[slot] = entry.hash;
        judge->readings[slot] = (uint32_t)entry.reading;
    }
    judge->used = saved.used;
    return true;
}

/* ---- a state in itself ---- */

/* What the oracle says guest sector @n holds. */
static uint8_t oracle_value(Oracle *oracle, const CrashImage *image, int64_t n)
{
    const uint8_t *data;
    switch (image->vdi ? vdi_sector(oracle, n, &data) : oracle_sector(oracle, n, &data)) {
    case ORACLE_ZERO:
        return 0;
    case ORACLE_BACKING:
        return image->backing && n * 512 < CRASH_BACKING_BYTES ? CRASH_BACKING : 0;
    case ORACLE_DATA:
        return crash_value(data, n);
    default:
        return CRASH_GARBAGE;
    }
}

static uint8_t size_value(const CrashImage *image, uint64_t size)
{
    for (uint8_t value = SIZE_BASE; value < SIZE_UNKNOWN; value++) {
        if (crash_size_bytes(image, value) == (int64_t)size) {
            return value;
        }
    }
    return SIZE_UNKNOWN;
}

/* What a state is made of. */
typedef struct Bytes {
    const uint8_t *image, *data; /* data: of the data file, NULL: none */
    int64_t length, data_length;
} Bytes;

/* What differs from what was there when the bitmap was made has been written since; or cut off, and grown again. */
static const char *judge_bitmap(Judge *judge, const CrashReading *reading)
{
    const Oracle *o = &judge->oracle;
    for (int64_t i = 0; i < MODEL_SECTORS && i * 512 < (int64_t)o->size; i++) {
        bool cut = judge->image->missing && i >= CRASH_SHRUNK_SIZE / 512 && reading->values[i] == 0;
        if (reading->values[i] != crash_base_value(judge->image, i) && !cut && !oracle_bit(o, i)) {
            return wrong(judge, "sector %" G_GINT64_FORMAT " is 0x%02x; a bitmap that is not in use says that it was not written",
                         i, reading->values[i]);
        }
    }
    return NULL;
}

/* A raw data file is the guest's disk. */
static const char *judge_raw_data(Judge *judge, const Bytes *bytes, const CrashReading *reading)
{
    for (int64_t i = 0; i < MODEL_SECTORS && i * 512 < (int64_t)judge->oracle.size; i++) {
        uint8_t value = crash_value(bytes->data + i * 512, i);
        if (value != reading->values[i]) {
            return wrong(judge, "sector %" G_GINT64_FORMAT " is 0x%02x in the raw data file, 0x%02x for the guest", i, value,
                         reading->values[i]);
        }
    }
    return NULL;
}

/* Metadata, and what it reads as, from the bytes. */
static const char *judge_bytes(Judge *judge, const Bytes *bytes, CrashReading *reading)
{
    Oracle *o = &judge->oracle;
    memset(reading, 0, sizeof(*reading));
    o->data = bytes->data;
    o->data_length = bytes->data_length;
    (judge->image->vdi ? vdi_judge : oracle_judge)(o, bytes->image, bytes->length);
    if (!o->is_image) {
        reading->size = SIZE_NO_IMAGE;
        return NULL;
    }
    reading->untidy = o->version < 3 && o->untidy[0]; /* while some operations run */
    if (o->fault[0] || (o->untidy[0] && !reading->untidy)) {
        return wrong(judge, "%s", o->fault[0] ? o->fault : o->untidy);
    }
    reading->size = size_value(judge->image, o->size);
    for (int64_t i = 0; i < MODEL_SECTORS && i * 512 < (int64_t)o->size; i++) {
        reading->values[i] = oracle_value(o, judge->image, i);
    }
    if (o->keys) {
        memcpy(reading->keys, o->keys->opens, sizeof(reading->keys));
    }
    reading->bitmap = !o->has_bitmap ? 0 : o->bitmap_in_use ? 1 : 2;
    if (reading->bitmap == 2) {
        return judge_bitmap(judge, reading);
    }
    return judge->image->data_file_raw ? judge_raw_data(judge, bytes, reading) : NULL;
}

static const char *coroutine_fn check_agrees(Judge *judge, const char *disk)
{
    BdrvCheckResult result;
    bool untidy = judge->oracle.untidy[0];
    int ret = crash_image_check(judge->image, disk, judge->oracle.dirty || untidy, &result);
    if (ret < 0) {
        return wrong(judge, "the image cannot be checked: %s", g_strerror(-ret));
    }
    if (result.check_errors || (result.corruptions && !judge->oracle.dirty && !untidy)) {
        return "our check finds corruption that the oracle does not see";
    }
    if (untidy && !result.corruptions) {
        return "our check does not find the COPIED flags that are not set";
    }
    if (judge->oracle.behind && !result.corruptions) {
        return "our check does not find the counts that are behind";
    }
    if (result.leaks != judge->oracle.leaks) {
        return wrong(judge, "our check counts %" G_GINT64_FORMAT " leaks, the oracle %" G_GINT64_FORMAT,
                     (gint64)result.leaks, (gint64)judge->oracle.leaks);
    }
    return NULL;
}

static const char *coroutine_fn driver_reads(Judge *judge, const Rig *rig, const CrashReading *reading)
{
    int64_t length = rig->child->bs->length, window = MIN(length, WINDOW), tail = MIN(TAIL, length);
    int ret = rig_read(rig, 0, window, judge->guest);
    if (ret < 0) {
        return wrong(judge, "the guest's data cannot be read: %s", g_strerror(-ret));
    }
    for (int64_t i = 0; i < window / 512; i++) {
        uint8_t value = crash_value(judge->guest + i * 512, i);
        if (value != reading->values[i]) {
            return wrong(judge, "sector %" G_GINT64_FORMAT " reads as 0x%02x, the oracle says 0x%02x", i, value,
                         reading->values[i]);
        }
    }
    if (length > WINDOW) {
        ret = rig_read(rig, length - tail, tail, judge->guest);
        if (ret < 0 || !bdrv_buffer_is_zero(judge->guest, (size_t)tail)) {
            return "the end of the grown disk does not read as zeroes";
        }
    }
    return NULL;
}

static uint8_t *peek_all(BdrvSimDisk *disk, int64_t *length)
{
    *length = bdrv_simdisk_length(disk);
    uint8_t *bytes = g_malloc0((gsize)*length + 512);
    bdrv_simdisk_peek(disk, 0, bytes, (size_t)*length);
    return bytes;
}

static const char *judge_disk(Judge *judge, BdrvSimDisk *disk, CrashReading *reading)
{
    g_autoptr(BdrvSimDisk) data_disk = judge->image->data_file ? bdrv_simdisk_find("state-data") : NULL;
    Bytes bytes = { 0 };
    g_autofree uint8_t *image = peek_all(disk, &bytes.length);
    g_autofree uint8_t *data = data_disk ? peek_all(data_disk, &bytes.data_length) : NULL;
    bytes.image = image;
    bytes.data = data;
    return judge_bytes(judge, &bytes, reading);
}

/* What the driver says of the secrets: once for all states whose slots are the same. */
static const char *coroutine_fn judge_keys(Judge *judge)
{
    Keys *keys = judge->oracle.keys;
    for (unsigned i = 0; i < TEST_SECRETS && !keys->compared; i++) {
        Rig rig;
        bool opened = crash_image_open_by(judge->image, "state", i, true, &rig);
        if (opened && rig_close(&rig) < 0) {
            return "the image cannot be closed";
        }
        if (opened != (bool)keys->opens[i]) {
            return wrong(judge, "secret %u %s the image, the oracle says otherwise", i, opened ? "opens" : "does not open");
        }
    }
    keys->compared = true;
    return NULL;
}

/* Open it writable, read, close: still clean, still the same. */
static const char *coroutine_fn judge_first_open(Judge *judge, BdrvSimDisk *disk, const CrashReading *reading)
{
    const unsigned changing = BDRV_SIM_WRITE | BDRV_SIM_ZERO | BDRV_SIM_DISCARD | BDRV_SIM_TRUNCATE;
    uint64_t changes = bdrv_simdisk_count(disk, changing);
    CrashReading after;
    Rig rig;
    if (!crash_image_open(judge->image, "state", false, &rig)) {
        return "the image cannot be opened for writing";
    }
    const char *fault = driver_reads(judge, &rig, reading);
    int ret = rig_close(&rig);
    if (!fault && ret < 0) {
        fault = wrong(judge, "the image cannot be closed: %s", g_strerror(-ret));
    }
    if (fault || (bdrv_simdisk_count(disk, changing) == changes && !judge->oracle.dirty)) {
        return fault;
    }
    judge->counts.reopened_dirty++;
    bool was_dirty = judge->oracle.dirty;
    fault = judge_disk(judge, disk, &after);
    if (!fault && judge->oracle.dirty) {
        fault = "the image was closed and has the dirty bit";
    } else if (!fault && was_dirty && judge->oracle.leaks) {
        fault = "a dirty image was opened for writing and has leaks left";
    }
    if (!fault && memcmp(&after, reading, sizeof(after)) != 0) {
        fault = "opening and closing the image changed what it reads as";
    }
    return fault ? fault : check_agrees(judge, "state");
}

/* The image works on: all of it can be overwritten. */
static const char *coroutine_fn judge_second_life(Judge *judge, BdrvSimDisk *disk, const CrashReading *before)
{
    const uint8_t value = 0x7e;
    CrashReading after;
    Rig rig;
    judge->counts.second_lives++;
    if (!crash_image_open(judge->image, "state", false, &rig)) {
        return "the image cannot be opened for writing again";
    }
    int64_t window = MIN(rig.child->bs->length, WINDOW);
    crash_fill(judge->guest, 0, window, value);
    int ret = bdrv_co_pwrite(rig.child, 0, window, judge->guest, 0), closed = rig_close(&rig);
    if (ret < 0 || closed < 0) {
        return wrong(judge, "the image cannot be written and closed: %s", g_strerror(ret < 0 ? -ret : -closed));
    }
    const char *fault = judge_disk(judge, disk, &after);
    for (int64_t i = 0; i < window / 512 && !fault; i++) {
        if (after.values[i] != value) {
            fault = wrong(judge, "overwritten, sector %" G_GINT64_FORMAT " reads as 0x%02x", i, after.values[i]);
        }
    }
    if (!fault && after.bitmap != before->bitmap) {
        fault = "the bitmap is not what it was before the image was written and closed";
    }
    return fault;
}

static bool have_qemu_img(void)
{
    static int known = -1;
    if (known < 0) {
        g_autofree char *path = g_find_program_in_path("qemu-img");
        known = path != NULL;
    }
    return known;
}

static unsigned secret_that_opens(const Oracle *oracle)
{
    unsigned which = 0;
    while (oracle->keys && which < TEST_SECRETS - 1 && !oracle->keys->opens[which]) {
        which++;
    }
    return which;
}

/* Of VDI blocks it reads no size but 1 MiB. */
static bool qemu_img_knows(const Judge *judge)
{
    return !judge->image->vdi && have_qemu_img();
}

/* Exit code 0: clean, 3: leaks only. */
static const char *qemu_img_agrees(Judge *judge, BdrvSimDisk *disk)
{
    g_autofree char *path = g_strdup_printf("%s/crash-%d.qcow2", g_get_tmp_dir(), (int)getpid());
    g_autofree char *data_path = crash_data_disk(path), *out = NULL, *err = NULL;
    g_autoptr(BdrvSimDisk) data = judge->image->data_file ? bdrv_simdisk_find("state-data") : NULL;
    /* The backing file that it names is none that can be opened. */
    unsigned which = secret_that_opens(&judge->oracle);
    g_autofree char *options =
        g_strdup_printf("driver=qcow2,encrypt.key-secret=key,file.filename=%s,backing=%s%s", path,
                        data ? ",data-file.filename=" : "", data ? data_path : "");
    g_autofree char *secret = g_strdup_printf("secret,id=key,data=%s", test_passphrases[which]);
    /* A dirty image is only as good as what its first writable open makes of it. */
    const char *plain[] = { "qemu-img", "check", "--object", secret, "--image-opts", options, NULL };
    const char *repair[] = { "qemu-img", "check", "-r", "all", "--object", secret, "--image-opts", options, NULL };
    const char **argv = judge->oracle.dirty || judge->oracle.untidy[0] ? repair : plain;
    int status = -1;
    judge->counts.qemu_checked++;
    if (bdrv_simdisk_export(disk, path) < 0 || (data && bdrv_simdisk_export(data, data_path) < 0) ||
        !g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &out, &err, &status, NULL)) {
        return "qemu-img could not be asked";
    }
    remove(path);
    remove(data_path);
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return code == 0 || code == 3 ? NULL : wrong(judge, "qemu-img check: exit code %d: %.200s%.100s", code, out, err);
}

/* One state in @n; the same ones each time, so that a replay of one does all that the search did. */
static bool every(const Judge *judge, unsigned n)
{
    return n && judge->hash % n == 0;
}

/* The flat bytes must be those of the disk that simdisk makes of the cut. */
static const char *cross_check(Judge *judge, BdrvSimDisk *disk, const uint8_t *bytes, int64_t length)
{
    int64_t disk_length = bdrv_simdisk_length(disk);
    g_autofree uint8_t *peeked = g_malloc((gsize)disk_length + 1);
    bdrv_simdisk_peek(disk, 0, peeked, (size_t)disk_length);
    if (disk_length != length || memcmp(peeked, bytes, (size_t)length) != 0) {
        return "the searcher's bytes are not those of the disk: a bug of the harness";
    }
    return NULL;
}

static const BdrvSimChoice *data_choices(const Content contents[2], const BdrvSimChoice *choices)
{
    return choices + bdrv_simcut_count(contents[0].cut);
}

static BdrvSimDisk *make_disk(const Content *content, const BdrvSimChoice *choices, const char *name)
{
    BdrvSimDisk *disk = bdrv_simcut_disk(content->cut, choices, name);
    bdrv_simdisk_set_volatile(disk, false);
    return disk;
}

static const char *coroutine_fn judge_new(Judge *judge, Content contents[2], const BdrvSimChoice *choices,
                                          CrashReading *reading)
{
    const BdrvSimChoice *of_data = data_choices(contents, choices);
    bool has_data = contents[1].cut != NULL;
    Bytes bytes = { 0 };
    bytes.image = content_bytes(&contents[0], choices, &bytes.length);
    bytes.data = has_data ? content_bytes(&contents[1], of_data, &bytes.data_length) : NULL;
    const char *fault = judge_bytes(judge, &bytes, reading);
    if (fault || reading->size == SIZE_NO_IMAGE) {
        return fault;
    }
    judge->counts.leaks += judge->oracle.leaks > 0;
    g_autoptr(BdrvSimDisk) disk = make_disk(&contents[0], choices, "state");
    g_autoptr(BdrvSimDisk) data = has_data ? make_disk(&contents[1], of_data, "state-data") : NULL;
    if (every(judge, CROSS_CHECK_EVERY)) {
        fault = cross_check(judge, disk, bytes.image, bytes.length);
    }
    if (!fault && data && every(judge, CROSS_CHECK_EVERY)) {
        fault = cross_check(judge, data, bytes.data, bytes.data_length);
    }
    if (!fault) {
        fault = check_agrees(judge, "state");
    }
    if (!fault && every(judge, judge->qemu_every) && qemu_img_knows(judge)) {
        fault = qemu_img_agrees(judge, disk);
    }
    if (!fault) {
        fault = judge_first_open(judge, disk, reading);
    }
    if (!fault && judge->oracle.keys) {
        fault = judge_keys(judge);
    }
    if (!fault && every(judge, SECOND_LIFE_EVERY)) {
        fault = judge_second_life(judge, disk, reading);
    }
    return fault;
}

/* ---- a state of a moment ---- */

static const char *compare(Judge *judge, const CrashReading *reading, const ModelSets *sets, const CrashOp *op,
                           bool may_be_untidy)
{
    int64_t size = crash_size_bytes(judge->image, reading->size);
    if (!model_may(sets, MODEL_SIZE, reading->size)) {
        g_autofree char *may = model_may_text(sets, MODEL_SIZE);
        return wrong(judge, "the size is that of value 0x%02x, not one of %s", reading->size, may);
    }
    for (unsigned i = 0; i < MODEL_SECTORS && i * INT64_C(512) < size; i++) {
        if (!model_may(sets, i, reading->values[i])) {
            g_autofree char *may = model_may_text(sets, i);
            return wrong(judge, "sector %u reads as 0x%02x, not as one of %s", i, reading->values[i], may);
        }
    }
    for (unsigned i = 0; i < TEST_SECRETS; i++) {
        if (!model_may(sets, MODEL_KEYS + i, reading->keys[i])) {
            return wrong(judge, "secret %u %s the image", i, reading->keys[i] ? "opens" : "does not open");
        }
    }
    if (reading->untidy && !may_be_untidy) {
        return "COPIED flags are not as the counts are";
    }
    if (op && op->plausible && !op->plausible(reading)) {
        return wrong(judge, "half of an image shows while %s runs", op->name);
    }
    return NULL;
}

static uint64_t hash_of(Content contents[2], const BdrvSimChoice *choices)
{
    uint64_t hash = content_hash(&contents[0], choices);
    if (contents[1].cut) {
        uint64_t data = content_hash(&contents[1], data_choices(contents, choices));
        hash ^= data * UINT64_C(0x9e3779b97f4a7c15) + (data >> 29);
    }
    return hash ? hash : 1;
}

const char *coroutine_fn judge_state(Judge *judge, Content contents[2], const BdrvSimChoice *choices,
                                     const ModelSets *sets, const CrashOp *op, bool may_be_untidy)
{
    uint64_t hash = hash_of(contents, choices);
    judge->hash = hash;
    const CrashReading *known = recall(judge, hash);
    judge->counts.states++;
    if (!known) {
        CrashReading reading;
        judge->counts.distinct++;
        const char *fault = judge_new(judge, contents, choices, &reading);
        if (fault) {
            return fault;
        }
        known = remember(judge, hash, &reading);
    }
    return compare(judge, known, sets, op, may_be_untidy);
}
