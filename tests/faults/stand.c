/* SPDX-License-Identifier: MIT */
#include "tests/faults/stand.h"

#include <glib/gstdio.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/file-posix/engine.h"
#include "tests/lib/test-node.h"
#include "tests/lib/verify.h"
#include "tests/unit/qcow2/surgery.h"

#define SMALL_CACHES "l2-cache-size=1k,refcount-cache-size=1k,l2-cache-entry-size=512"

const FaultImage fault_images[] = {
    { LEVEL_LIGHT, "plain", "qcow2", "cluster_size=512", "", 512 },
    { LEVEL_FULL, "plain 4k", "qcow2", "cluster_size=4096", "", 4096, .on_files = true },
    { LEVEL_FULL, "small caches", "qcow2", "cluster_size=512", SMALL_CACHES, 512 },
    { LEVEL_SHORT, "lazy refcounts", "qcow2", "cluster_size=512,lazy_refcounts=on", "", 512, .on_files = true },
    { LEVEL_FULL, "backing", "qcow2", "cluster_size=512", "", 512, .backing = true },
    { LEVEL_LIGHT, "backing 4k", "qcow2", "cluster_size=4096", "", 4096, .backing = true, .on_files = true },
    { LEVEL_FULL, "1-bit refcounts", "qcow2", "cluster_size=512,refcount_bits=1", "", 512 },
    { LEVEL_FULL, "64-bit refcounts", "qcow2", "cluster_size=512,refcount_bits=64", "", 512 },
    { LEVEL_SHORT, "snapshot", "qcow2", "cluster_size=512", "", 512, .snapshot = true },
    { LEVEL_FULL, "snapshot 4k", "qcow2", "cluster_size=4096", SMALL_CACHES, 4096, .snapshot = true },
    { LEVEL_FULL, "v2", "qcow2", "cluster_size=4096,compat=0.10", "", 4096 },
    { LEVEL_FULL, "v2 backing", "qcow2", "cluster_size=4096,compat=0.10", "", 4096, .backing = true },
    { LEVEL_SHORT, "compressed", "qcow2", "cluster_size=4096", "", 4096, .compressed = true, .on_files = true },
    { LEVEL_SHORT, "subclusters", "qcow2", "cluster_size=16k,extended_l2=on", SMALL_CACHES, 16384, .backing = true },
    { LEVEL_FULL, "subclusters, snapshot", "qcow2", "cluster_size=16k,extended_l2=on", "", 16384, .snapshot = true },
    { LEVEL_FULL, "subclusters, compressed", "qcow2", "cluster_size=16k,extended_l2=on", "", 16384, .compressed = true },
    { LEVEL_SHORT, "data file", "qcow2", "cluster_size=512,data_file=d-data", SMALL_CACHES, 512, .data_file = true },
    { LEVEL_FULL, "data file, backing 4k", "qcow2", "cluster_size=4096,data_file=d-data", "", 4096, .data_file = true,
      .backing = true },
    { LEVEL_FULL, "raw data file", "qcow2", "cluster_size=4096,data_file=d-data,data_file_raw=on", "", 4096,
      .data_file = true },
    { LEVEL_FULL, "data file, subclusters", "qcow2", "cluster_size=16k,extended_l2=on,data_file=d-data", "", 16384,
      .data_file = true },
    { LEVEL_FULL, "discard-no-unref", "qcow2", "cluster_size=4096", "discard-no-unref=on", 4096 },
    { LEVEL_SHORT, "aes", "qcow2", "cluster_size=4096,encrypt.format=aes,encrypt.key-secret=" TEST_SECRET,
      "encrypt.key-secret=" TEST_SECRET, 4096, .on_files = true },
    { LEVEL_FULL, "luks", "qcow2", "encrypt.format=luks,encrypt.iter-time=1,encrypt.key-secret=" TEST_SECRET,
      "encrypt.key-secret=" TEST_SECRET, 65536 },
    { LEVEL_SHORT, "full block", "qcow2", "cluster_size=512,refcount_bits=64", "", 512, .full_block = true },
    { LEVEL_FULL, "full table", "qcow2", "cluster_size=512,refcount_bits=64", "", 512, .full_table = true },
    { LEVEL_LIGHT, "raw", "raw", "", "", 1, .on_files = true },
};
const unsigned fault_image_count = G_N_ELEMENTS(fault_images);

#define FILE_OPTIONS "file.driver=file,file.filename=%PATH%,file.aio="

const FaultPlace fault_places[] = {
    { LEVEL_LIGHT, "simdisk", "file.driver=simdisk,file.disk=d", .sim = true },
    { LEVEL_LIGHT, "threads", FILE_OPTIONS "threads", .cached = true },
    { LEVEL_FULL, "threads direct", FILE_OPTIONS "threads", BDRV_O_NOCACHE },
    { LEVEL_FULL, "native direct", FILE_OPTIONS "native", BDRV_O_NOCACHE },
    { LEVEL_SHORT, "io_uring", FILE_OPTIONS "io_uring", .cached = true },
    { LEVEL_FULL, "io_uring direct", FILE_OPTIONS "io_uring", BDRV_O_NOCACHE },
    { LEVEL_FULL, "auto", FILE_OPTIONS "auto", .cached = true },
    { LEVEL_FULL, "auto direct", FILE_OPTIONS "auto", BDRV_O_NOCACHE },
};
const unsigned fault_place_count = G_N_ELEMENTS(fault_places);

/* ---- failures ---- */

static const char *where = "";

void stand_where(const char *text)
{
    where = text;
}

void stand_fail(const char *format, ...)
{
    g_autofree char *what = NULL;
    va_list args;

    va_start(args, format);
    what = g_strdup_vprintf(format, args);
    va_end(args);
    g_error("%s: %s", where, what);
    abort(); /* g_error() does not return, which not every compiler sees */
}

static int take_error(GError **error)
{
    int ret = *error ? -bdrv_error_code(*error) : 0;
    if (*error && g_test_verbose()) {
        g_test_message("%s: %s", where, (*error)->message);
    }
    g_clear_error(error);
    return ret;
}

/* ---- the images, each made once ---- */

typedef struct Base {
    BdrvSimCut *cut, *data_cut; /* data_cut: of the data file; NULL: none */
    uint8_t content[DISK_BYTES]; /* as the guest reads it */
    int64_t leaks;               /* on purpose */
} Base;

static Base *bases[G_N_ELEMENTS(fault_images)];
static AioContext *kept;

static AioContext *new_context(void)
{
    GError *error = NULL;
    AioContext *ctx = aio_context_new(&error);
    g_assert_no_error(error);
    return ctx;
}

static void make_rings(void *opaque)
{
    file_uring_ready();
    file_libaio_ready();
    atomic_store((atomic_bool *)opaque, true);
}

/* On a slow machine a timer of qcow2 makes them there, in the middle of a run that counts descriptors. */
static void make_service_rings(void)
{
    atomic_bool made = false;
    AioCall call = { .func = make_rings, .opaque = &made };
    aio_call(aio_service_context(), &call);
    while (!atomic_load(&made)) {
        g_usleep(100);
    }
}

/* One for many runs, with its rings: making and ending them takes long. */
static AioContext *kept_context(void)
{
    if (!kept) {
        kept = new_context();
        aio_context_enter(kept);
        file_uring_ready();
        file_libaio_ready();
        make_service_rings();
        aio_context_leave(kept);
    }
    return aio_context_ref(kept);
}

bool stand_has(const FaultPlace *place)
{
    bool has = true;
    if (strstr(place->options, "aio=io_uring")) {
#ifdef CONFIG_LIBURING
        AioContext *ctx = kept_context();
        aio_context_enter(ctx);
        has = file_uring_ready();
        aio_context_leave(ctx);
        aio_context_unref(ctx);
        g_assert_true(has || !g_getenv("CI"));
#else
        has = false;
#endif
    }
    return has;
}

static void begin_context(Stand *stand)
{
    stand->sim = stand->place->sim ? aio_sim_new(1) : NULL;
    stand->ctx = stand->sim            ? aio_sim_context_new(stand->sim)
                 : stand->without_rings ? new_context()
                                        : kept_context();
    aio_context_enter(stand->ctx);
    stand->graph = bdrv_graph_new();
    bdrv_graph_set_opener_gate(stand->graph, bdrv_gate_any, NULL);
    for (unsigned i = 0; i < TEST_SECRETS; i++) {
        bdrv_graph_add_secret(stand->graph, test_secrets[i], test_passphrases[i], strlen(test_passphrases[i]), NULL);
    }
}

static void end_context(Stand *stand)
{
    bdrv_graph_unref(stand->graph);
    while (stand->sim && aio_sim_step(stand->sim)) {
    }
    aio_context_leave(stand->ctx);
    aio_context_unref(stand->ctx);
    if (stand->sim) {
        aio_sim_free(stand->sim);
    }
}

static BdrvSimDisk *make_backing(void)
{
    BdrvSimDisk *disk = bdrv_simdisk_new("b", BACKING_BYTES);
    g_autofree uint8_t *content = g_malloc(BACKING_BYTES);
    if (!disk) {
        stand_fail("the disk 'b' of an earlier run is still there");
    }
    memset(content, BACKING_VALUE, BACKING_BYTES);
    bdrv_simdisk_poke(disk, 0, content, BACKING_BYTES);
    return disk;
}

static void must(int ret, const char *what)
{
    if (ret < 0) {
        stand_fail("%s: %s", what, g_strerror(-ret));
    }
}

static void write_value(Stand *stand, int64_t offset, int64_t bytes, uint8_t value)
{
    g_autofree uint8_t *data = g_malloc((gsize)bytes);
    memset(data, value, (gsize)bytes);
    must(blk_pwrite(stand->blk, offset, bytes, data, 0), "writing a new image");
}

static void fill_image(Stand *stand)
{
    BlockBackend *blk = stand->blk;

    write_value(stand, AT_ONES, AT_TWOS, 1);
    write_value(stand, AT_TWOS, AT_NOTHING - AT_TWOS, 2);
    must(blk_pwrite_zeroes(blk, AT_ZEROES, AT_OWN_ZEROES - AT_ZEROES, BDRV_REQ_MAY_UNMAP), "zeroing");
    must(blk_pwrite_zeroes(blk, AT_OWN_ZEROES, AT_TWOS - AT_OWN_ZEROES, 0), "zeroing");
}

static void operate(const FaultImage *image, BdrvSimDisk *disk)
{
    if (image->compressed) {
        unsigned count = (unsigned)((AT_ZEROES - AT_ONES) / image->cluster_size);
        surgery_compress(disk, &(SurgeryCompress){ .count = count });
    }
    if (image->snapshot) {
        surgery_add_snapshot(disk);
    }
    int64_t block_bytes = image->cluster_size * 8 / 64 * image->cluster_size; /* what a block of 64-bit counts covers */
    if (image->full_block) {
        int64_t blocks = (bdrv_simdisk_length(disk) + block_bytes - 1) / block_bytes;
        surgery_use_up(disk, (uint64_t)(blocks * block_bytes - 4 * image->cluster_size));
    }
    if (image->full_table) {
        surgery_use_up(disk, (uint64_t)(block_bytes * (image->cluster_size / 8) - 4 * image->cluster_size));
    }
}

static Base *make_base(const FaultImage *image)
{
    Stand stand = { .image = image, .place = &fault_places[0] };
    Base *base = g_new0(Base, 1);
    int error;

    begin_context(&stand);
    stand.below = make_backing();
    stand.disk = bdrv_simdisk_new("d", 0);
    bdrv_simdisk_set_volatile(stand.disk, false);
    if (image->data_file) {
        stand.data = bdrv_simdisk_new("d-data", 0);
        bdrv_simdisk_set_volatile(stand.data, false);
    }
    must(stand_create(&stand, "off"), "making an image");
    if (!stand_open(&stand, true, &error)) {
        must(error, "opening a new image");
    }
    fill_image(&stand);
    must(blk_pread(stand.blk, 0, DISK_BYTES, base->content, 0), "reading a new image");
    must(stand_close(&stand), "closing a new image");
    operate(image, stand.disk);
    stand_check(&stand);
    base->leaks = stand.leaks;
    base->cut = bdrv_simdisk_cut(stand.disk);
    base->data_cut = stand.data ? bdrv_simdisk_cut(stand.data) : NULL;
    end_context(&stand);
    g_clear_pointer(&stand.data, bdrv_simdisk_unref);
    bdrv_simdisk_unref(stand.disk);
    bdrv_simdisk_unref(stand.below);
    return base;
}

static Base *base_of(const FaultImage *image)
{
    Base **base = &bases[image - fault_images];
    if (!*base) {
        *base = make_base(image);
    }
    return *base;
}

void stand_forget(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(bases); i++) {
        if (bases[i]) {
            bdrv_simcut_unref(bases[i]->cut);
            g_clear_pointer(&bases[i]->data_cut, bdrv_simcut_unref);
        }
        g_clear_pointer(&bases[i], g_free);
    }
    g_clear_pointer(&kept, aio_context_unref);
}

/* ---- begin and end ---- */

static unsigned count_fds(void)
{
    GDir *dir = g_dir_open("/proc/self/fd", 0, NULL);
    unsigned count = 0;
    while (dir && g_dir_read_name(dir)) {
        count++;
    }
    if (dir) {
        g_dir_close(dir);
    }
    return count;
}

static void tell_fds(void)
{
    GDir *dir = g_dir_open("/proc/self/fd", 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename("/proc/self/fd", name, NULL);
        g_autofree char *target = g_file_read_link(path, NULL);
        g_test_message("descriptor %s: %s", name, target ? target : "that of this list");
    }
    if (dir) {
        g_dir_close(dir);
    }
}

static BdrvSimDisk *copy_of(const BdrvSimCut *cut, const char *name)
{
    BdrvSimDisk *disk = bdrv_simcut_disk(cut, NULL, name);
    if (!disk) {
        stand_fail("the disk '%s' of an earlier run is still there: a node leaks", name);
    }
    return disk;
}

void stand_begin(Stand *stand, const FaultImage *image, const FaultPlace *place, bool without_rings)
{
    Base *base = base_of(image);

    if (!place->sim) {
        aio_context_unref(kept_context()); /* the descriptors that stay */
    }
    *stand = (Stand){ .image = image, .place = place, .without_rings = without_rings, .fds = count_fds() };
    begin_context(stand);
    if (place->sim) {
        stand->below = make_backing();
        stand->disk = copy_of(base->cut, "d");
        bdrv_simdisk_set_limits(stand->disk, &(BdrvLimits){ .request_alignment = 512 }); /* it tears from there on */
        if (image->data_file) {
            stand->data = copy_of(base->data_cut, "d-data");
            bdrv_simdisk_set_limits(stand->data, &(BdrvLimits){ .request_alignment = 512 });
        }
    } else {
        const char *dir = g_getenv("BDRV_TEST_DIR");
        g_autofree char *name = g_strdup_printf("faults-%d", (int)getpid());
        BdrvSimDisk *copy = copy_of(base->cut, "copy");
        stand->path = g_build_filename(dir ? dir : "/var/tmp", name, NULL);
        must(bdrv_simdisk_export(copy, stand->path), "copying an image");
        bdrv_simdisk_unref(copy);
        if (image->backing) {
            g_autoptr(BdrvSimDisk) below = make_backing();
            stand->below_path = g_strconcat(stand->path, "-backing", NULL);
            must(bdrv_simdisk_export(below, stand->below_path), "copying a backing file");
        }
    }
    stand->model = model_new(DISK_GROWN, DISK_BYTES, base->content);
}

static void remove_file(char *path)
{
    if (path) {
        g_unlink(path);
        g_free(path);
    }
}

void stand_end(Stand *stand)
{
    end_context(stand);
    model_free(stand->model);
    g_free(stand->kept);
    g_clear_pointer(&stand->data, bdrv_simdisk_unref);
    bdrv_simdisk_unref(stand->disk);
    bdrv_simdisk_unref(stand->below);
    remove_file(stand->path);
    remove_file(stand->below_path);
    unsigned fds = count_fds();
    if (fds != stand->fds) {
        tell_fds();
        stand_fail("%u file descriptors are open, before it were %u", fds, stand->fds);
    }
}

/* ---- open, close, create ---- */

static BdrvOptions *open_options(const Stand *stand, const char *disk)
{
    GError *error = NULL;
    g_autoptr(GString) text = g_string_new(NULL);

    g_string_printf(text, "driver=%s%s%s,%s", stand->image->driver, *stand->image->options ? "," : "",
                    stand->image->options, stand->place->options);
    if (stand->below_path) {
        g_autoptr(GString) below = g_string_new(stand->place->options);
        g_string_replace(below, "file.", "backing.file.", 0);
        g_string_replace(below, "%PATH%", stand->below_path, 0);
        g_string_append_printf(text, ",backing.driver=raw,%s", below->str);
    }
    if (stand->path) {
        g_string_replace(text, "%PATH%", stand->path, 0);
    }
    BdrvOptions *options = bdrv_options_parse(text->str, NULL, &error);
    g_assert_no_error(error);
    if (disk) {
        bdrv_options_set_string(options, "file.disk", disk);
    }
    if (disk && stand->image->data_file) {
        g_autofree char *data = g_strconcat(disk, "-data", NULL);
        bdrv_options_set_string(options, "data-file.driver", "simdisk");
        bdrv_options_set_string(options, "data-file.disk", data);
    }
    return options;
}

static BlockBackend *open_disk(Stand *stand, const char *disk, BdrvOpenFlags flags, int *ret)
{
    GError *error = NULL;
    BlockBackend *blk = blk_open(stand->graph, NULL, open_options(stand, disk), flags | stand->place->flags, &error);
    *ret = take_error(&error);
    return blk;
}

bool stand_open(Stand *stand, bool writable, int *error)
{
    BdrvOpenFlags flags = writable ? BDRV_O_RDWR | BDRV_O_UNMAP | BDRV_O_RESIZE : 0;
    stand->blk = open_disk(stand, NULL, flags, error);
    return stand->blk != NULL;
}

static int close_handle(BlockBackend *blk)
{
    GError *error = NULL;
    blk_close(blk, &error);
    return take_error(&error);
}

int stand_close(Stand *stand)
{
    return close_handle(g_steal_pointer(&stand->blk));
}

int stand_create(Stand *stand, const char *preallocation)
{
    g_autofree char *filename = stand->path ? g_strdup(stand->path) : g_strdup("simdisk:d");
    const FaultImage *image = stand->image;
    GError *error = NULL;
    BdrvOptions *options = bdrv_options_parse(image->create, NULL, &error);

    g_assert_no_error(error);
    bdrv_options_set_int(options, "size", DISK_BYTES);
    if (strcmp(preallocation, "off") != 0) {
        bdrv_options_set_string(options, "preallocation", preallocation);
    }
    if (image->backing) {
        bdrv_options_set_string(options, "backing_file", stand->below_path ? stand->below_path : "simdisk:b");
        bdrv_options_set_string(options, "backing_fmt", "raw");
    }
    bdrv_create_image(stand->graph, image->driver, filename, options, &error);
    return take_error(&error);
}

static BlockBackend *open_below(Stand *stand, BdrvOpenFlags flags, int *ret)
{
    GError *error = NULL;
    BdrvOptions *options = bdrv_options_parse("driver=raw,file.driver=simdisk,file.disk=b", NULL, &error);
    BlockBackend *blk = blk_open(stand->graph, NULL, options, flags, &error);
    *ret = take_error(&error);
    return blk;
}

static int close_both(BlockBackend *one, BlockBackend *other)
{
    int ret = one ? close_handle(one) : 0, second = other ? close_handle(other) : 0;
    return ret < 0 ? ret : second;
}

int stand_commit(Stand *stand)
{
    GError *error = NULL;
    int ret;
    BlockBackend *base = NULL;
    BlockBackend *top = open_disk(stand, NULL, BDRV_O_RDWR | BDRV_O_UNMAP | BDRV_O_NO_BACKING, &ret);
    if (top) {
        base = open_below(stand, BDRV_O_RDWR | BDRV_O_UNMAP | BDRV_O_RESIZE, &ret);
    }
    if (base) {
        blk_commit(top, base, &(BlkCommitOptions){ 0 }, &error);
        ret = take_error(&error);
    }
    int closed = close_both(top, base);
    return ret < 0 ? ret : closed;
}

int stand_rebase(Stand *stand, const char *name)
{
    const BlkRebaseOptions options = { .filename = name, .format = name ? "raw" : NULL };
    GError *error = NULL;
    int ret = 0;
    BlockBackend *to = name ? open_below(stand, 0, &ret) : NULL;
    if (ret >= 0) {
        blk_rebase(stand->blk, to, &options, &error);
        ret = take_error(&error);
    }
    int closed = close_both(to, NULL);
    return ret < 0 ? ret : closed;
}

uint8_t *stand_new_content(const Stand *stand)
{
    uint8_t *content = g_malloc0(DISK_BYTES);
    if (stand->image->backing) {
        memset(content, BACKING_VALUE, BACKING_BYTES);
    }
    return content;
}

/* ---- what is there ---- */

uint8_t *stand_read_all(Stand *stand)
{
    uint8_t *content = g_malloc0(DISK_GROWN);
    must(blk_pread(stand->blk, 0, model_size(stand->model), content, 0), "reading the image");
    return content;
}

void stand_compare(Stand *stand)
{
    if (blk_length(stand->blk) != model_size(stand->model)) {
        stand_fail("the image is %" PRId64 " bytes long, not %" PRId64, blk_length(stand->blk),
                   model_size(stand->model));
    }
    g_autofree uint8_t *content = stand_read_all(stand);
    int64_t wrong = model_wrong_sector(stand->model, content, model_size(stand->model), false);
    if (wrong >= 0) {
        stand_fail("sector %" PRId64 " begins with 0x%02x: neither old nor new", wrong, content[wrong * 512]);
    }
    model_learn(stand->model, content, model_size(stand->model));
    bitmap_compare(stand->blk, base_of(stand->image)->content, content, model_size(stand->model));
    test_verify(stand->blk, false);
}

/* COPIED flags that are not set where they could be do no harm. Bit 63 makes 16 digits. */
static bool is_harmless(const char *text)
{
    const char *entry = strstr(text, "entry=");
    return g_str_has_prefix(text, "ERROR OFLAG_COPIED") && g_str_has_suffix(text, " refcount=1") && entry &&
           strspn(entry + strlen("entry="), "0123456789abcdef") < 16;
}

static void report(void *opaque, const BdrvCheckKind *kind, const char *text)
{
    int64_t *harmless = opaque;
    if (kind->severity == BDRV_CHECK_CORRUPTION) {
        *harmless += is_harmless(text);
        g_test_message("%s: check: %s", where, text);
    }
}

/* What a crash or a failed close leaves with lazy refcounts: the first writable open must make it whole. */
static void repair_dirty(Stand *stand, const char *disk, BlockBackend **blk)
{
    BdrvInfo info;
    int ret;

    must(blk_get_info(*blk, &info), "asking for the dirty bit");
    if (info.is_dirty) {
        must(close_handle(*blk), "closing a dirty image");
        *blk = open_disk(stand, disk, BDRV_O_RDWR, &ret);
        must(ret, "opening a dirty image for writing");
        must(close_handle(*blk), "closing what was dirty");
        *blk = open_disk(stand, disk, BDRV_O_CHECK, &ret);
        must(ret, "opening what was dirty for a check");
    }
}

static void check_disk(Stand *stand, const char *disk)
{
    int64_t harmless = 0;
    BdrvCheckResult result = { .report = report, .report_opaque = &harmless };
    GError *error = NULL;
    int ret;

    if (strcmp(stand->image->driver, "qcow2") != 0) {
        return;
    }
    BlockBackend *blk = open_disk(stand, disk, BDRV_O_CHECK, &ret);
    must(ret, "opening for a check");
    repair_dirty(stand, disk, &blk);
    blk_check(blk, &result, BDRV_FIX_NONE, &error);
    must(take_error(&error), "checking");
    must(close_handle(blk), "closing after a check");
    if (stand->kept && strstr(stand->image->create, "compat=0.10")) {
        result.corruptions -= harmless; /* no dirty bit tells the next one to set what several failures left out */
    }
    if (result.corruptions || result.check_errors) {
        stand_fail("%" PRId64 " corruptions, %" PRId64 " check errors", result.corruptions, result.check_errors);
    }
    stand->leaks = result.leaks - (bases[stand->image - fault_images] ? bases[stand->image - fault_images]->leaks : 0);
}

void stand_check(Stand *stand)
{
    check_disk(stand, NULL);
}

/* What a power loss takes along: the disks' cuts, and what becomes of their requests; NULL: all is lost. */
typedef struct Loss {
    BdrvSimCut *cut, *data_cut; /* data_cut: NULL without a data file */
    BdrvSimChoice *choices, *data_choices;
} Loss;

static void check_left(Stand *stand, const Loss *loss)
{
    g_autoptr(BdrvSimDisk) left = bdrv_simcut_disk(loss->cut, loss->choices, "left");
    g_autoptr(BdrvSimDisk) left_data =
        loss->data_cut ? bdrv_simcut_disk(loss->data_cut, loss->data_choices, "left-data") : NULL;
    g_autofree uint8_t *content = g_malloc0(DISK_GROWN);
    int64_t leaks = stand->leaks;
    int ret;

    check_disk(stand, "left");
    stand->leaks = leaks; /* a crash leaks; only what is left in the end counts */
    BlockBackend *blk = open_disk(stand, "left", BDRV_O_RDWR, &ret);
    must(ret, "opening what a power loss leaves");
    int64_t bytes = MIN(blk_length(blk), model_size(stand->model));
    must(blk_pread(blk, 0, bytes, content, 0), "reading what a power loss leaves");
    bitmap_compare(blk, base_of(stand->image)->content, content, bytes);
    must(close_handle(blk), "closing what a power loss leaves");
    int64_t wrong = model_wrong_sector(stand->model, content, bytes, true);
    if (wrong >= 0) {
        stand_fail("after a power loss sector %" PRId64 " begins with 0x%02x", wrong, content[wrong * 512]);
    }
}

void stand_check_loss(Stand *stand)
{
    if (!stand->disk) {
        return;
    }
    g_autoptr(BdrvSimCut) cut = bdrv_simdisk_cut(stand->disk);
    g_autoptr(BdrvSimCut) data_cut = stand->data ? bdrv_simdisk_cut(stand->data) : NULL;
    g_autofree BdrvSimChoice *choices = g_new0(BdrvSimChoice, bdrv_simcut_count(cut) + 1);
    g_autofree BdrvSimChoice *data_choices =
        g_new0(BdrvSimChoice, data_cut ? bdrv_simcut_count(data_cut) + 1 : 1);
    check_left(stand, &(Loss){ cut, data_cut, NULL, NULL });
    bdrv_simcut_random(cut, stand->cuts++, choices);
    if (data_cut) {
        bdrv_simcut_random(data_cut, stand->cuts++, data_choices);
    }
    check_left(stand, &(Loss){ cut, data_cut, choices, data_choices });
}
