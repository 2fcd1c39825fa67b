/* SPDX-License-Identifier: MIT */
/* An image in memory and the model of its content. */
#include "tools/driver-test/kit.h"

#include "tools/common/tool.h"

/* ---- making ---- */

/* The options of creation name the file of a child in braces: data_file={data-file}. */
static char *create_text(const KitDisk *disk)
{
    GString *text = g_string_new(disk->kit->create);

    for (unsigned i = 0; i < disk->kit->n_children; i++) {
        g_autofree char *braces = g_strdup_printf("{%s}", disk->kit->children[i].name);

        g_string_replace(text, braces, disk->files[i].filename, 0);
    }
    return g_string_free(text, FALSE);
}

bool kit_create(KitDisk *disk, GError **errp)
{
    const Kit *kit = disk->kit;
    g_autofree char *text = create_text(disk);
    BdrvOptions *options = bdrv_options_parse(text, NULL, errp);

    if (!options) {
        return false;
    }
    bdrv_options_set_int(options, "size", kit->size);
    return bdrv_create_image(disk->graph, kit->driver,
                             kit->n_children ? disk->files[0].filename : kit->filename, options, errp);
}

bool kit_is_filter(const Kit *kit)
{
    return kit->n_children > 0 && kit->children[0].role == BDRV_CHILD_FILTERED;
}

void kit_need_creation(const Kit *kit)
{
    kit_need_file(kit);
    if (kit->image) {
        kit_skip("the image is given, not made");
    }
    if (!bdrv_driver_can_create(kit->driver)) {
        kit_skip("the driver makes no images");
    }
    kit_disk_free(kit_disk_new(kit));
}

/* A filter's image is what is in its file; if it shows several, they are the same. */
static void fill_filtered(KitDisk *disk)
{
    const Kit *kit = disk->kit;
    gsize bytes = kit->image ? kit->image_bytes : (gsize)kit->size;
    g_autofree uint8_t *content = kit->image ? g_memdup2(kit->image, bytes) : g_malloc0(bytes);

    for (unsigned i = 0; i < kit->n_children; i++) {
        if (kit->children[i].role == BDRV_CHILD_FILTERED) {
            bdrv_simdisk_poke(disk->files[i].sim, 0, content, bytes);
        }
    }
}

KitDisk *kit_disk_make(const Kit *kit, GError **errp)
{
    bool creates = bdrv_driver_can_create(kit->driver);
    KitDisk *disk = kit_disk_blank(kit);

    if (kit_is_filter(kit) && (kit->image || !creates)) {
        fill_filtered(disk);
        return disk;
    }
    if (kit->image) {
        bdrv_simdisk_poke(disk->files[0].sim, 0, kit->image, kit->image_bytes);
        return disk;
    }
    if (!creates) {
        kit_skip("the driver makes no images: give one with --image");
    }
    if (kit_create(disk, errp)) {
        return disk;
    }
    kit_disk_free(disk);
    return NULL;
}

KitDisk *kit_disk_new(const Kit *kit)
{
    GError *error = NULL;
    KitDisk *disk = kit_disk_make(kit, &error);

    if (!disk) {
        kit_fail("an image cannot be made: %s", error->message);
    }
    kit_open(disk, KIT_RDWR);
    kit_first_model(disk);
    return disk;
}

static bool has_backing(const Kit *kit)
{
    for (unsigned i = 0; i < kit->n_children; i++) {
        if (kit->children[i].role == BDRV_CHILD_COW) {
            return true;
        }
    }
    return false;
}

static uint8_t *model_of_backing(const KitDisk *disk)
{
    uint8_t *model = g_malloc0((gsize)disk->length);

    for (int64_t at = 0; at < MIN(disk->length, kit_backing_bytes(disk->kit)); at++) {
        model[at] = kit_backing_byte(at);
    }
    return model;
}

void kit_first_model(KitDisk *disk)
{
    const Kit *kit = disk->kit;

    disk->length = blk_length(disk->blk);
    if (disk->length <= 0 || disk->length > 64 << 20) {
        kit_fail("the new disk has %" PRId64 " bytes; the kit works with 1 byte to 64 MiB", disk->length);
    }
    if (!kit->image && disk->length < kit->size) {
        kit_fail("a disk of %" PRId64 " bytes was wanted, it has %" PRId64, kit->size, disk->length);
    }
    if (kit->image) {
        disk->model = kit_read_all(disk);
    } else if (has_backing(kit)) {
        disk->model = model_of_backing(disk);
    } else {
        disk->model = blk_has_zero_init(disk->blk) ? g_malloc0((gsize)disk->length) : kit_read_all(disk);
    }
}

/* ---- opening ---- */

static void set_child(BdrvOptions *options, const char *child, const KitFile *file)
{
    g_autofree char *driver = g_strconcat(child, ".driver", NULL);
    g_autofree char *filename = g_strconcat(child, ".filename", NULL);

    bdrv_options_set_string(options, driver, "simdisk");
    bdrv_options_set_string(options, filename, file->filename);
}

BdrvOptions *kit_options(const KitDisk *disk)
{
    GError *error = NULL;
    BdrvOptions *options = bdrv_options_parse(disk->kit->open ? disk->kit->open : "", NULL, &error);

    if (!options) {
        kit_fail("--open: %s", error->message);
    }
    bdrv_options_set_string(options, "driver", disk->kit->driver);
    if (disk->kit->n_children == 0) {
        bdrv_options_set_string(options, "filename", disk->kit->filename);
    }
    for (unsigned i = 0; i < disk->kit->n_children; i++) {
        set_child(options, disk->kit->children[i].name, &disk->files[i]);
    }
    return options;
}

/* The same as the child of a blkdebug. */
static BdrvOptions *options_below(const KitDisk *disk)
{
    BdrvOptions *options = bdrv_options_parse(disk->above, NULL, NULL);
    g_autoptr(BdrvOptions) below = kit_options(disk);

    bdrv_options_set_string(options, "driver", "blkdebug");
    bdrv_options_merge(options, "image", below);
    return options;
}

bool kit_try_open(KitDisk *disk, BdrvOpenFlags flags, GError **errp)
{
    kit_note("open %s", flags & BDRV_O_RDWR ? "for writing" : "read-only");
    disk->flags = flags;
    disk->blk =
        blk_open(disk->graph, NULL, disk->above ? options_below(disk) : kit_options(disk), flags, errp);
    return disk->blk != NULL;
}

void kit_open(KitDisk *disk, BdrvOpenFlags flags)
{
    GError *error = NULL;

    if (!kit_try_open(disk, flags, &error)) {
        kit_fail("the image cannot be opened: %s", error->message);
    }
}

bool kit_try_close(KitDisk *disk, GError **errp)
{
    BlockBackend *blk = g_steal_pointer(&disk->blk);

    kit_note("close");
    return blk_close(blk, errp);
}

void kit_close(KitDisk *disk)
{
    GError *error = NULL;

    if (!kit_try_close(disk, &error)) {
        kit_fail("the image cannot be closed: %s", error->message);
    }
}

void kit_again(KitDisk *disk)
{
    kit_close(disk);
    kit_open(disk, disk->flags);
}

/* ---- drawing ---- */

int64_t kit_draw(KitDisk *disk, int64_t limit)
{
    uint64_t number = (uint64_t)g_rand_int(disk->rand) << 31 ^ g_rand_int(disk->rand);

    return limit > 0 ? (int64_t)(number % (uint64_t)limit) : 0;
}

static const int64_t units[] = { 1, 512, 4096, 65536 };

void kit_range(KitDisk *disk, int64_t *offset, int64_t *bytes)
{
    int64_t unit = units[kit_draw(disk, G_N_ELEMENTS(units))], most = MIN(disk->length, 4 * MAX(unit, 16384));

    *bytes = kit_draw(disk, most + 1) / unit * unit;
    *bytes = MAX(*bytes, 1);
    *offset = kit_draw(disk, disk->length - *bytes + 1) / unit * unit;
    if (kit_draw(disk, 8) == 0) {
        *offset = disk->length - *bytes;
    }
}

void kit_fill(KitDisk *disk, uint8_t *buf, int64_t bytes)
{
    unsigned number = disk->number++;

    for (int64_t i = 0; i < bytes; i++) {
        buf[i] = (uint8_t)(1 + ((uint64_t)i * 7 + (uint64_t)i / 251 + number * 29) % 255);
    }
}

/* ---- operations ---- */

static void expect_ok(int ret, const char *what, int64_t offset, int64_t bytes)
{
    if (ret == -EDEADLK) {
        kit_hangs("%s %" PRId64 " bytes at %" PRId64, what, bytes, offset);
    }
    if (ret < 0) {
        kit_fail("%s %" PRId64 " bytes at %" PRId64 ": expected success, came %s (%d)", what, bytes, offset,
                 g_strerror(-ret), ret);
    }
}

/* Cut a buffer into pieces of odd lengths, some of them empty. */
static unsigned shred(KitDisk *disk, uint8_t *buf, int64_t bytes, struct iovec *vec, unsigned most)
{
    unsigned count = 0;
    int64_t done = 0;

    while (done < bytes) {
        int64_t drawn = kit_draw(disk, bytes / 2 + 2);
        int64_t piece = count + 1 == most ? bytes - done : MIN(bytes - done, drawn);

        vec[count++] = (struct iovec){ .iov_base = buf + done, .iov_len = (size_t)piece };
        done += piece;
    }
    return count;
}

void kit_write(KitDisk *disk, int64_t offset, int64_t bytes, BdrvRequestFlags flags)
{
    g_autofree uint8_t *buf = g_malloc((gsize)bytes);
    struct iovec vec[9];
    BdrvIov iov;

    kit_fill(disk, buf, bytes);
    kit_note("write %" PRId64 " bytes at %" PRId64 "%s", bytes, offset, flags & BDRV_REQ_FUA ? ", FUA" : "");
    iov = bdrv_iov_init(vec, shred(disk, buf, bytes, vec, G_N_ELEMENTS(vec)));
    expect_ok(blk_pwritev(disk->blk, offset, &iov, flags), "writing", offset, bytes);
    memcpy(disk->model + offset, buf, (size_t)bytes);
}

void kit_zero(KitDisk *disk, int64_t offset, int64_t bytes, BdrvRequestFlags flags)
{
    kit_note("zero %" PRId64 " bytes at %" PRId64 "%s", bytes, offset,
             flags & BDRV_REQ_MAY_UNMAP ? ", may unmap" : "");
    expect_ok(blk_pwrite_zeroes(disk->blk, offset, bytes, flags), "zeroing", offset, bytes);
    memset(disk->model + offset, 0, (size_t)bytes);
}

/* A hint: each byte of the range may keep its value or become zero. The model takes what came. */
void kit_discard(KitDisk *disk, int64_t offset, int64_t bytes)
{
    g_autofree uint8_t *found = g_malloc((gsize)bytes);

    kit_note("discard %" PRId64 " bytes at %" PRId64, bytes, offset);
    expect_ok(blk_pdiscard(disk->blk, offset, bytes), "discarding", offset, bytes);
    expect_ok(blk_pread(disk->blk, offset, bytes, found, 0), "reading", offset, bytes);
    for (int64_t i = 0; i < bytes; i++) {
        if (found[i] && found[i] != disk->model[offset + i]) {
            kit_fail("a discarded byte at %" PRId64 ": expected 0x%02x as before, or zero; came 0x%02x",
                     offset + i, disk->model[offset + i], found[i]);
        }
    }
    memcpy(disk->model + offset, found, (size_t)bytes);
}

void kit_flush(KitDisk *disk)
{
    kit_note("flush");
    expect_ok(blk_flush(disk->blk), "flushing", 0, disk->length);
}

/* What is new reads as zeroes, if new images of the driver do: an encrypted one may show anything. */
static void grow_model(KitDisk *disk, int64_t length)
{
    int64_t before = disk->length;

    disk->model = g_realloc(disk->model, (gsize)length);
    disk->length = length;
    if (length > before && blk_has_zero_init(disk->blk)) {
        memset(disk->model + before, 0, (size_t)(length - before));
    } else if (length > before) {
        expect_ok(blk_pread(disk->blk, before, length - before, disk->model + before, 0), "reading", before,
                  length - before);
    }
}

bool kit_resize(KitDisk *disk, int64_t length)
{
    GError *error = NULL;
    int64_t now;

    kit_note("resize from %" PRId64 " to %" PRId64 " bytes", disk->length, length);
    if (!blk_truncate(disk->blk, length, false, BDRV_PREALLOC_OFF, 0, &error)) {
        bool unable = bdrv_error_code(error) == ENOTSUP;

        if (!unable) {
            kit_fail("resizing to %" PRId64 ": %s", length, error->message);
        }
        g_error_free(error);
        return false;
    }
    now = blk_length(disk->blk);
    if (now < length || now > length + 65536) {
        kit_fail("resized to %" PRId64 ", the disk has %" PRId64 " bytes", length, now);
    }
    grow_model(disk, now);
    return true;
}

static void random_operation(KitDisk *disk)
{
    int64_t offset, bytes;

    kit_range(disk, &offset, &bytes);
    switch (kit_draw(disk, 12)) {
    case 0:
        kit_zero(disk, offset, bytes, 0);
        break;
    case 1:
        kit_zero(disk, offset, bytes, BDRV_REQ_MAY_UNMAP);
        break;
    case 2:
        kit_discard(disk, offset, bytes);
        break;
    case 3:
        kit_flush(disk);
        break;
    case 4:
        kit_write(disk, offset, bytes, BDRV_REQ_FUA);
        break;
    case 5:
    case 6:
    case 7:
        kit_expect(disk, offset, bytes);
        break;
    default:
        kit_write(disk, offset, bytes, 0);
    }
}

void kit_random(KitDisk *disk, unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++) {
        random_operation(disk);
    }
}

/* ---- judging ---- */

/* Most of a disk is as expected: pass over that quickly. */
int64_t kit_differ(const uint8_t *found, const uint8_t *expected, int64_t at, int64_t bytes)
{
    while (at < bytes) {
        int64_t end = MIN(at + 4096, bytes);

        if (memcmp(found + at, expected + at, (size_t)(end - at)) != 0) {
            while (found[at] == expected[at]) {
                at++;
            }
            return at;
        }
        at = end;
    }
    return bytes;
}

void kit_compare(int64_t offset, const uint8_t *found, const uint8_t *expected, int64_t bytes)
{
    int64_t count = 0, first = -1, last = -1;

    for (int64_t i = kit_differ(found, expected, 0, bytes); i < bytes;
         i = kit_differ(found, expected, i + 1, bytes)) {
        first = first < 0 ? i : first;
        last = i;
        count++;
    }
    if (count > 0) {
        kit_fail("wrong content: at byte %" PRId64 " expected 0x%02x, came 0x%02x; %" PRId64
                 " bytes up to %" PRId64 " differ",
                 offset + first, expected[first], found[first], count, offset + last);
    }
}

void kit_expect(KitDisk *disk, int64_t offset, int64_t bytes)
{
    g_autofree uint8_t *buf = g_malloc0((gsize)bytes);
    struct iovec vec[9];
    BdrvIov iov = bdrv_iov_init(vec, shred(disk, buf, bytes, vec, G_N_ELEMENTS(vec)));

    kit_note("read %" PRId64 " bytes at %" PRId64 " in %u pieces", bytes, offset, iov.count);
    memset(buf, 0xee, (size_t)bytes);
    expect_ok(blk_preadv(disk->blk, offset, &iov, 0), "reading", offset, bytes);
    kit_compare(offset, buf, disk->model + offset, bytes);
}

uint8_t *kit_read_all(KitDisk *disk)
{
    int64_t piece = 1 << 20;
    uint8_t *buf = g_malloc((gsize)disk->length);

    for (int64_t offset = 0; offset < disk->length; offset += piece) {
        int64_t bytes = MIN(piece, disk->length - offset);

        expect_ok(blk_pread(disk->blk, offset, bytes, buf + offset, 0), "reading", offset, bytes);
    }
    return buf;
}

void kit_expect_all(KitDisk *disk)
{
    g_autofree uint8_t *found = NULL;

    kit_note("read all");
    if (blk_length(disk->blk) != disk->length) {
        kit_fail("the disk has %" PRId64 " bytes, expected %" PRId64, blk_length(disk->blk), disk->length);
    }
    found = kit_read_all(disk);
    kit_compare(0, found, disk->model, disk->length);
}

static void note_finding(void *opaque, const BdrvCheckKind *kind, const char *text)
{
    g_string_append_printf(opaque, "\n%s: %s", kind->name, text);
}

void kit_expect_sound(KitDisk *disk, bool leaks)
{
    g_autoptr(GString) findings = g_string_new(NULL);
    BdrvCheckResult result = { .report = note_finding, .report_opaque = findings };
    g_autoptr(GError) error = NULL;

    kit_note("check");
    if (!blk_check(disk->blk, &result, BDRV_FIX_NONE, &error)) {
        if (bdrv_error_code(error) != ENOTSUP) {
            kit_fail("the check fails: %s", error->message);
        }
        return;
    }
    if (result.corruptions || result.check_errors || (result.leaks && !leaks)) {
        kit_fail("the check finds %" PRId64 " corruptions, %" PRId64 " leaks, %" PRId64 " errors:%s",
                 result.corruptions, result.leaks, result.check_errors, findings->str);
    }
}
