/* SPDX-License-Identifier: MIT */

/*
 * labelled: a disk image with a label. Copy this file and make your driver of it.
 *
 *     driver=labelled,file.driver=file,file.filename=x
 *
 * The file is a header of 4096 bytes, all little-endian,
 *
 *     0   8   magic "LABELLED"
 *     8   4   version, 1
 *     12  4   zero
 *     16  8   length of the disk in bytes, a multiple of 512
 *     24  64  the label, ended by a zero byte
 *
 * and then the disk as it is. The core does padding, splitting, flushing, range checks and locking: a driver says
 * where the bytes are.
 */

#include <bdrv/driver.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define HEADER_BYTES 4096
#define SECTOR 512
#define MAGIC "LABELLED"
#define VERSION 1

enum {
    AT_MAGIC = 0,
    AT_VERSION = 8,
    AT_LENGTH = 16,
    AT_LABEL = 24,
    LABEL_BYTES = 64,
};

/* An instance: bs->opaque, zeroed when bdrv_open begins. */
typedef struct LabelledState {
    char label[LABEL_BYTES];
} LabelledState;

/* The core opens it before bdrv_open, and gives it the rights that the role needs. */
static const BdrvChildSpec labelled_children[] = {
    { .name = "file", .role = BDRV_CHILD_PROTOCOL },
    { .name = NULL },
};

static const BdrvOptionSpec labelled_create_options[] = {
    { .name = "label", .type = BDRV_OPTION_STRING, .help = "Label of the image, at most 63 bytes" },
    { .name = NULL },
};

/* ---- the header ---- */

static int labelled_probe(const uint8_t *buf, size_t size, const char *filename)
{
    return size >= sizeof(MAGIC) - 1 && memcmp(buf, MAGIC, sizeof(MAGIC) - 1) == 0 ? 100 : 0;
}

static void encode_header(uint8_t *header, int64_t length, const char *label)
{
    uint32_t version = GUINT32_TO_LE(VERSION);
    uint64_t bytes = GUINT64_TO_LE((uint64_t)length);

    memset(header, 0, HEADER_BYTES);
    memcpy(header + AT_MAGIC, MAGIC, sizeof(MAGIC) - 1);
    memcpy(header + AT_VERSION, &version, sizeof(version));
    memcpy(header + AT_LENGTH, &bytes, sizeof(bytes));
    g_strlcpy((char *)header + AT_LABEL, label, LABEL_BYTES);
}

/* An image is whatever somebody sent: everything in it is checked before it is used. */
static bool decode_header(const uint8_t *header, int64_t *length, char *label, GError **errp)
{
    uint32_t version;
    uint64_t bytes;

    memcpy(&version, header + AT_VERSION, sizeof(version));
    memcpy(&bytes, header + AT_LENGTH, sizeof(bytes));
    version = GUINT32_FROM_LE(version);
    bytes = GUINT64_FROM_LE(bytes);
    if (!labelled_probe(header, HEADER_BYTES, "")) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "it has no labelled header");
        return false;
    }
    if (version != VERSION) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP, "labelled version %" PRIu32 " is not supported, only %d is", version,
                    VERSION);
        return false;
    }
    if (bytes > INT64_MAX - HEADER_BYTES || bytes % SECTOR) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "length %" PRIu64 " is not a multiple of %d below %" PRId64, bytes, SECTOR,
                    INT64_MAX - HEADER_BYTES);
        return false;
    }
    if (!memchr(header + AT_LABEL, 0, LABEL_BYTES)) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "the label is longer than %d bytes", LABEL_BYTES - 1);
        return false;
    }
    *length = (int64_t)bytes;
    memcpy(label, header + AT_LABEL, LABEL_BYTES);
    return true;
}

static int coroutine_fn write_header(BdrvChild *file, int64_t length, const char *label)
{
    uint8_t header[HEADER_BYTES];
    int ret;

    encode_header(header, length, label);
    ret = bdrv_co_pwrite(file, 0, sizeof(header), header, 0);
    return ret < 0 ? ret : bdrv_co_flush(file);
}

/* ---- open ---- */

static bool coroutine_fn labelled_open(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags,
                                       GError **errp)
{
    LabelledState *s = bs->opaque;
    uint8_t header[HEADER_BYTES];
    int64_t length;
    int ret = bdrv_co_pread(bs->file, 0, sizeof(header), header, 0);

    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot read the header: %s", g_strerror(-ret));
        return false;
    }
    if (!decode_header(header, &length, s->label, errp)) {
        return false;
    }
    bs->length = length;
    /* What the file can do this driver passes on. */
    bs->supported_write_flags = bs->file->bs->supported_write_flags & BDRV_REQ_FUA;
    bs->supported_zero_flags = (bs->file->bs->supported_zero_flags & BDRV_REQ_FUA) | BDRV_REQ_MAY_UNMAP |
                               BDRV_REQ_NO_FALLBACK;
    return true;
}

/* Between read-only and writing: nothing is kept in memory that would have to be written, so there is nothing to do. */
static bool coroutine_fn labelled_reopen_prepare(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags,
                                                 void **state, GError **errp)
{
    return true;
}

static void labelled_reopen_done(BlockDriverState *bs, void *state)
{
}

static bool labelled_has_zero_init(BlockDriverState *bs)
{
    return true;
}

/* ---- I/O: bytes, not sectors ---- */

static int coroutine_fn labelled_co_readv(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                          size_t iov_offset, BdrvRequestFlags flags)
{
    return bdrv_co_preadv(bs->file, HEADER_BYTES + offset, bytes, iov, iov_offset, flags);
}

static int coroutine_fn labelled_co_writev(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                           size_t iov_offset, BdrvRequestFlags flags)
{
    return bdrv_co_pwritev(bs->file, HEADER_BYTES + offset, bytes, iov, iov_offset, flags);
}

static int coroutine_fn labelled_co_write_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                                 BdrvRequestFlags flags)
{
    return bdrv_co_pwrite_zeroes(bs->file, HEADER_BYTES + offset, bytes, flags);
}

static int coroutine_fn labelled_co_discard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    return bdrv_co_pdiscard(bs->file, HEADER_BYTES + offset, bytes);
}

/* Everything is in the file at the same place; what of it was ever written the file knows. */
static int coroutine_fn labelled_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                                 BlockExtent *extent)
{
    *extent = (BlockExtent){
        .kind = EXTENT_DATA,
        .allocated = true,
        .ask_file = true,
        .bytes = bytes,
        .host_offset = HEADER_BYTES + offset,
        .file = bs->file->bs,
    };
    return 0;
}

/* ---- create, resize, questions ---- */

static bool check_length(int64_t length, GError **errp)
{
    if (length > INT64_MAX - HEADER_BYTES - SECTOR) {
        g_set_error(errp, BDRV_ERROR, EFBIG, "size %" PRId64 " is too large", length);
        return false;
    }
    return true;
}

static int64_t whole_sectors(int64_t length)
{
    return (length + SECTOR - 1) / SECTOR * SECTOR;
}

static bool coroutine_fn labelled_create(const char *filename, BdrvChild *file, const BdrvOptions *options,
                                         GError **errp)
{
    const char *label = bdrv_options_get_string(options, "label", "");
    int64_t size = bdrv_options_get_int(options, "size", 0);
    int ret;

    if (!check_length(size, errp)) {
        return false;
    }
    if (strlen(label) >= LABEL_BYTES) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "label '%s' is longer than %d bytes", label, LABEL_BYTES - 1);
        return false;
    }
    size = whole_sectors(size);
    if (!bdrv_co_truncate(file, HEADER_BYTES + size, false, BDRV_PREALLOC_OFF, 0, errp)) {
        return false;
    }
    ret = write_header(file, size, label);
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot write the header: %s", g_strerror(-ret));
        return false;
    }
    return true;
}

static bool coroutine_fn labelled_measure(const BdrvOptions *options, BdrvChild *source, BdrvMeasure *measure,
                                          GError **errp)
{
    int64_t size = bdrv_options_get_int(options, "size", 0);

    if (!check_length(size, errp)) {
        return false;
    }
    measure->required = measure->fully_allocated = HEADER_BYTES + whole_sectors(size);
    return true;
}

/* Growing: the file first, then the header that tells of it. Shrinking: the other way round. Requests are drained. */
static bool coroutine_fn labelled_truncate(BlockDriverState *bs, int64_t length, bool exact, BdrvPrealloc prealloc,
                                           BdrvRequestFlags flags, GError **errp)
{
    const LabelledState *s = bs->opaque;
    bool grows;
    int ret;

    if (!check_length(length, errp)) {
        return false;
    }
    if (exact && length % SECTOR) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "size %" PRId64 " is not a multiple of %d", length, SECTOR);
        return false;
    }
    length = whole_sectors(length);
    grows = length > bs->length;
    if (grows) {
        /* A file that is longer than the header says may have anything there. */
        if (!bdrv_co_truncate(bs->file, HEADER_BYTES + bs->length, false, BDRV_PREALLOC_OFF, 0, errp) ||
            !bdrv_co_truncate(bs->file, HEADER_BYTES + length, false, prealloc, flags, errp)) {
            return false;
        }
    }
    ret = write_header(bs->file, length, s->label);
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot write the header: %s", g_strerror(-ret));
        return false;
    }
    bdrv_set_length(bs, length);
    return grows || bdrv_co_truncate(bs->file, HEADER_BYTES + length, false, prealloc, flags, errp);
}

/* "Format specific information" of bdrv-img info. */
static BdrvOptions *labelled_get_specific_info(BlockDriverState *bs)
{
    const LabelledState *s = bs->opaque;
    BdrvOptions *info = bdrv_options_new();

    bdrv_options_set_string(info, "type", "labelled");
    bdrv_options_set_string(info, "data.label", s->label);
    return info;
}

/* The only thing that can be wrong behind a header that opens: the file was cut short. */
static int coroutine_fn labelled_check(BlockDriverState *bs, BdrvCheckResult *result, BdrvCheckFix fix)
{
    static const BdrvCheckKind too_short = {
        BDRV_CHECK_CORRUPTION, "file-too-short", "The file ends before the disk does",
        "What was stored there is not in the file. It reads as zeroes.",
        "-r all makes the file as long as the disk. Look for a longer copy of the file before.",
    };
    int64_t end = HEADER_BYTES + bs->length, length = bdrv_co_getlength(bs->file);

    if (length < 0) {
        return (int)length;
    }
    if (length >= end) {
        return 0;
    }
    if (result->report) {
        g_autofree char *text = g_strdup_printf("the file has %" PRId64 " bytes, the disk needs %" PRId64, length, end);
        result->report(result->report_opaque, &too_short, text);
    }
    if (!(fix & BDRV_FIX_ERRORS)) {
        result->corruptions = 1;
        return 0;
    }
    result->corruptions_fixed = 1;
    return (fix & BDRV_FIX_DRY_RUN) || bdrv_co_truncate(bs->file, end, false, BDRV_PREALLOC_OFF, 0, NULL) ? 0 : -EIO;
}

static const BlockDriver bdrv_labelled = {
    .format_name = "labelled",
    .instance_size = sizeof(LabelledState),
    .children = labelled_children,
    .create_options = labelled_create_options,

    .bdrv_probe = labelled_probe,
    .bdrv_open = labelled_open,
    .bdrv_reopen_prepare = labelled_reopen_prepare,
    .bdrv_reopen_commit = labelled_reopen_done,
    .bdrv_reopen_abort = labelled_reopen_done,
    .bdrv_create = labelled_create,
    .bdrv_measure = labelled_measure,
    .bdrv_has_zero_init = labelled_has_zero_init,
    .bdrv_truncate = labelled_truncate,
    .bdrv_check = labelled_check,
    .bdrv_get_specific_info = labelled_get_specific_info,

    .bdrv_co_readv = labelled_co_readv,
    .bdrv_co_writev = labelled_co_writev,
    .bdrv_co_write_zeroes = labelled_co_write_zeroes,
    .bdrv_co_discard = labelled_co_discard,
    .bdrv_co_block_status = labelled_co_block_status,
};

/* ---- how it becomes known ---- */

/* A program that has this file linked in calls it once. */
bool bdrv_labelled_register(GError **errp);
bool bdrv_labelled_register(GError **errp)
{
    return bdrv_register_full(&bdrv_labelled, BDRV_DRIVER_API, sizeof(BlockDriver), errp);
}

/* As a module it is found in BDRV_MODULE_DIR, or loaded with bdrv_module_load(). */
BDRV_MODULE(bdrv_labelled_register)
