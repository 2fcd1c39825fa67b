/* SPDX-License-Identifier: MIT */
/*
 * The stacks that histories run on. To add one: a row, with a setup function if something has to be made first.
 * Those of conformance_stacks[] are run in every way by the conformance test, those of race_stacks[] are made
 * for races: few clusters of 512 bytes, caches of two slices, a disk that reorders and stalls.
 */

#include "stacks.h"

#include <bdrv/simdisk.h>
#include <string.h>

#include "config.h"
#include "logs.h"

#define MIB (1024 * 1024)

/* ---- simdisk ---- */

typedef struct SimSetup {
    BdrvLimits limits;
    unsigned unsupported;
    bool no_fua, slow;
    int64_t extra;         /* bytes that the disk is longer than the image */
    const char *second;    /* suffix of another disk's id; NULL: none */
    int64_t second_length; /* -1: as the first */
} SimSetup;

static void make_disk(const SimSetup *setup, const char *id, int64_t length)
{
    BdrvSimDisk *disk = bdrv_simdisk_new(id, length);

    g_assert_nonnull(disk);
    if (setup) {
        bdrv_simdisk_set_limits(disk, &setup->limits);
        bdrv_simdisk_set_unsupported(disk, setup->unsupported);
        bdrv_simdisk_set_fua(disk, !setup->no_fua);
        bdrv_simdisk_set_delay(disk, 0, setup->slow ? 20000 : 0);
    }
}

static void sim_setup(const ConformanceStack *stack, BdrvGraph *graph, const char *id, const char *dir,
                      uint8_t *content)
{
    const SimSetup *setup = stack->data;
    int64_t length = stack->length + (setup ? setup->extra : 0);

    make_disk(setup, id, length);
    if (setup && setup->second) {
        g_autofree char *second = g_strconcat(id, setup->second, NULL);
        make_disk(setup, second, setup->second_length < 0 ? length : setup->second_length);
    }
}

/* Whoever sets a disk up keeps it with one reference; all nodes are closed. */
static void forget_disk(const char *name)
{
    BdrvSimDisk *disk = bdrv_simdisk_find(name);

    g_assert_nonnull(disk);
    bdrv_simdisk_unref(disk);
    bdrv_simdisk_unref(disk);
    g_assert_null(bdrv_simdisk_find(name));
}

static void sim_teardown(const ConformanceStack *stack, const char *id, const char *dir)
{
    const SimSetup *setup = stack->data;

    forget_disk(id);
    if (setup && setup->second) {
        g_autofree char *second = g_strconcat(id, setup->second, NULL);
        forget_disk(second);
    }
}

/*
 * Encrypted images lie on a disk that has whole sectors. The page cache promises none: of a sector that is read while it
 * is written it may give the beginning of one and the end of the other, which decrypts to neither.
 */
static void encrypted_setup(const ConformanceStack *stack, BdrvGraph *graph, const char *id, const char *dir,
                            uint8_t *content)
{
    const ConformanceFile *file = stack->data;
    g_autofree char *filename = g_strdup_printf("simdisk:%s", id);
    BdrvOptions *options = bdrv_options_parse(file->options, NULL, NULL);
    BdrvSimDisk *disk = bdrv_simdisk_new(id, 0);
    GError *error = NULL;

    g_assert_nonnull(disk);
    bdrv_options_set_int(options, "size", stack->length);
    bdrv_create_image(graph, file->format, filename, options, &error);
    g_assert_no_error(error);
    bdrv_simdisk_set_delay(disk, 0, 20000);
}

/* A new volume reads as noise, not as zeroes. */
static void luks_setup(const ConformanceStack *stack, BdrvGraph *graph, const char *id, const char *dir,
                       uint8_t *content)
{
    g_autofree char *text = conformance_expand(stack->options, id, dir);
    GError *error = NULL;

    encrypted_setup(stack, graph, id, dir, content);
    BlockBackend *blk = blk_open(graph, NULL, bdrv_options_parse(text, NULL, NULL), BDRV_O_RDWR, &error);
    g_assert_no_error(error);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 0, stack->length, 0), ==, 0);
    blk_close(blk, &error);
    g_assert_no_error(error);
}

/* The real tool looks at what is left. */
static void encrypted_teardown(const ConformanceStack *stack, const char *id, const char *dir)
{
    g_autofree char *filename = g_build_filename(dir, "disk", NULL);
    BdrvSimDisk *disk = bdrv_simdisk_find(id);

    g_assert_cmpint(bdrv_simdisk_export(disk, filename), ==, 0);
    bdrv_simdisk_unref(disk);
    forget_disk(id);
    conformance_file_teardown(stack, id, dir);
}

/* The raw side of blkverify in memory, the other a qcow2 image. */
static void verified_setup(const ConformanceStack *stack, BdrvGraph *graph, const char *id, const char *dir,
                           uint8_t *content)
{
    make_disk(NULL, id, stack->length);
    conformance_file_setup(stack, graph, id, dir, content);
}

static void verified_teardown(const ConformanceStack *stack, const char *id, const char *dir)
{
    conformance_file_teardown(stack, id, dir);
    forget_disk(id);
}

static const ConformanceFile window = { .format = "raw", .extra = 100 };

static const ConformanceFile qcow2 = { .format = "qcow2" };
static const ConformanceFile qcow2_small = { .format = "qcow2", .options = "cluster_size=512" };
static const ConformanceFile qcow2_lazy = { .format = "qcow2", .options = "cluster_size=4k,lazy_refcounts=on" };
static const ConformanceFile qcow2_v2 = { .format = "qcow2", .options = "compat=0.10,cluster_size=4k" };
static const ConformanceFile qcow2_bits = { .format = "qcow2", .options = "cluster_size=1k,refcount_bits=1" };
static const ConformanceFile qcow2_large = { .format = "qcow2", .options = "cluster_size=2M,refcount_bits=64" };
static const ConformanceFile qcow2_over_raw = { .format = "qcow2", .options = "cluster_size=4k", .backing = "raw" };
static const ConformanceFile qcow2_over_qcow2 = { .format = "qcow2", .backing = "qcow2" };
static const ConformanceFile qcow2_subclusters = { .format = "qcow2", .options = "extended_l2=on,cluster_size=16k" };
static const ConformanceFile qcow2_subclusters_over_raw = { .format = "qcow2", .options = "extended_l2=on",
                                                            .backing = "raw" };
static const ConformanceFile qcow2_luks = {
    .format = "qcow2", .options = "encrypt.format=luks,encrypt.iter-time=1,encrypt.key-secret=" CONFORMANCE_SECRET
};
static const ConformanceFile luks = { .format = "luks", .options = "key-secret=" CONFORMANCE_SECRET ",iter-time=1" };
static const ConformanceFile vdi = { .format = "vdi", .options = "block_size=4k" };
static const ConformanceFile vdi_static = { .format = "vdi", .options = "static=on" };
static const ConformanceFile qcow2_v2_over_raw = { .format = "qcow2", .options = "compat=0.10", .backing = "raw" };

static const ConformanceFile qcow2_data = { .format = "qcow2", .options = "data_file=data,cluster_size=4k" };
static const ConformanceFile qcow2_raw_data = { .format = "qcow2", .options = "data_file=data,data_file_raw=on" };
static const ConformanceFile qcow2_data_over_raw = { .format = "qcow2", .options = "data_file=data,extended_l2=on",
                                                     .backing = "raw" };

static const SimSetup blocks = {
    .limits = { .request_alignment = 4096, .mem_alignment = 512, .max_transfer = 65536 }
};
static const SimSetup picky = { .limits = { .request_alignment = 512,
                                            .max_iov = 2,
                                            .max_transfer = 9000,
                                            .pwrite_zeroes_alignment = 4096,
                                            .max_pwrite_zeroes = 20000,
                                            .pdiscard_alignment = 4096,
                                            .max_pdiscard = 20000 } };
static const SimSetup poor = { .limits = { .request_alignment = 1 },
                               .unsupported = BDRV_SIM_ZERO | BDRV_SIM_DISCARD | BDRV_SIM_COPY,
                               .no_fua = true };
static const SimSetup slow = { .limits = { .request_alignment = 512 }, .slow = true };
static const SimSetup longer = { .limits = { .request_alignment = 512 }, .extra = 5000 };

/* ---- qcow2 on simdisk, for races ---- */

typedef struct RaceSetup {
    const char *create; /* options */
    bool backing, data_file;
    bool chain; /* the header names the first of chain_bases[] */
} RaceSetup;

#define RACE_DELAY_NS 20000
#define RACE_STALL_NS 2000000
#define RACE_STALL_ONE_IN 24

static void make_slow(BdrvSimDisk *disk)
{
    bdrv_simdisk_set_delay(disk, 0, RACE_DELAY_NS);
    bdrv_simdisk_set_stall(disk, RACE_STALL_ONE_IN, RACE_STALL_NS);
}

static BdrvSimDisk *add_disk(const char *name, int64_t bytes)
{
    BdrvSimDisk *disk = bdrv_simdisk_new(name, bytes);

    g_assert_nonnull(disk);
    bdrv_simdisk_set_volatile(disk, false); /* no power is cut here: keep no log */
    return disk;
}

static void make_race_backing(const ConformanceStack *stack, const char *id, uint8_t *content)
{
    g_autofree char *name = g_strdup_printf("%s-backing", id);
    int64_t length = stack->length * 3 / 4 + 100;
    BdrvSimDisk *backing = add_disk(name, length);

    memset(content, 0x5a, (size_t)length);
    bdrv_simdisk_poke(backing, 0, content, (size_t)length);
    make_slow(backing);
}

/* A qcow2 image over what make_race_backing() makes, and another one over nothing. */
static const ConformanceBase chain_bases[] = {
    { "simdisk:%ID%-middle", "qcow2" }, { "simdisk:%ID%-backing", "raw" }, { "simdisk:%ID%-other", "qcow2" },
    { NULL, NULL },
};
static const char *const chain_disks[] = { "%ID%-middle", "%ID%-backing", "%ID%-other" };

static void make_image(BdrvGraph *graph, const char *disk, int64_t size, const char *backing, const char *format,
                       const char *text)
{
    g_autofree char *filename = g_strdup_printf("simdisk:%s", disk);
    BdrvOptions *options = bdrv_options_parse(text, NULL, NULL);
    GError *error = NULL;

    bdrv_options_set_int(options, "size", size);
    if (backing) {
        bdrv_options_set_string(options, "backing_file", backing);
        bdrv_options_set_string(options, "backing_fmt", format);
    }
    bdrv_create_image(graph, "qcow2", filename, options, &error);
    g_assert_no_error(error);
}

/* A part of a qcow2 image on a disk. */
static void fill_image(BdrvGraph *graph, const char *disk, const uint8_t *data, int64_t offset, int64_t bytes)
{
    g_autofree char *filename = g_strdup_printf("simdisk:%s", disk);
    GError *error = NULL;
    BlockBackend *blk = blk_open(graph, filename, bdrv_options_parse("driver=qcow2", NULL, NULL), BDRV_O_RDWR, &error);

    g_assert_no_error(error);
    g_assert_cmpint(blk_pwrite(blk, offset, bytes, data + offset, 0), ==, 0);
    blk_close(blk, &error);
    g_assert_no_error(error);
}

static void make_chain(const ConformanceStack *stack, BdrvGraph *graph, const char *id, uint8_t *content)
{
    g_autofree char *middle = conformance_expand(chain_disks[0], id, "");
    g_autofree char *other = conformance_expand(chain_disks[2], id, "");
    g_autofree char *backing = conformance_expand(chain_bases[1].filename, id, "");
    g_autofree uint8_t *data = g_malloc((gsize)stack->length);
    int64_t third = stack->length / 3 / 512 * 512;

    memset(data, 0x33, (size_t)stack->length);
    make_race_backing(stack, id, content);
    make_slow(add_disk(middle, 0));
    make_image(graph, middle, stack->length, backing, "raw", "cluster_size=512");
    fill_image(graph, middle, data, third, third);
    memcpy(content + third, data, (size_t)third);
    make_slow(add_disk(other, 0));
    make_image(graph, other, stack->length + stack->room, NULL, NULL, "cluster_size=1k");
    fill_image(graph, other, data, 0, third);
}

static void race_setup(const ConformanceStack *stack, BdrvGraph *graph, const char *id, const char *dir,
                       uint8_t *content)
{
    const RaceSetup *how = stack->data;
    BdrvSimDisk *disk = add_disk(id, how ? 0 : stack->length);
    g_autofree char *filename = g_strdup_printf("simdisk:%s", id);
    GError *error = NULL;

    if (how) {
        BdrvOptions *options = bdrv_options_parse(how->create, NULL, &error);

        g_assert_no_error(error);
        bdrv_options_set_int(options, "size", stack->length);
        if (how->chain) {
            g_autofree char *name = conformance_expand(chain_bases[0].filename, id, dir);

            bdrv_options_set_string(options, "backing_file", name);
            bdrv_options_set_string(options, "backing_fmt", chain_bases[0].format);
        }
        if (how->data_file) {
            g_autofree char *name = g_strdup_printf("%s-data", id);

            make_slow(add_disk(name, 0));
            bdrv_options_set_string(options, "data_file", name);
        }
        bdrv_create_image(graph, "qcow2", filename, options, &error);
        g_assert_no_error(error);
    }
    make_slow(disk);
    if (how && how->backing) {
        make_race_backing(stack, id, content);
    }
    if (how && how->chain) {
        make_chain(stack, graph, id, content);
    }
}

static void race_teardown(const ConformanceStack *stack, const char *id, const char *dir)
{
    const RaceSetup *how = stack->data;
    g_autofree char *backing = g_strdup_printf("%s-backing", id);

    forget_disk(id);
    if (how && how->backing) {
        forget_disk(backing);
    }
    if (how && how->data_file) {
        g_autofree char *data = g_strdup_printf("%s-data", id);
        forget_disk(data);
    }
    for (unsigned i = 0; how && how->chain && i < G_N_ELEMENTS(chain_disks); i++) {
        g_autofree char *name = conformance_expand(chain_disks[i], id, dir);
        forget_disk(name);
    }
}

#define SMALL "driver=qcow2,discard=unmap,l2-cache-size=1k,refcount-cache-size=1k,l2-cache-entry-size=512,"
#define ON_DISK "file.driver=simdisk,file.disk=%ID%,file.discard=unmap"
#define WITH_KEY "encrypt.key-secret=" CONFORMANCE_SECRET ","
#define ON_FILE "file.driver=file,file.filename=%DIR%/disk,file.discard=unmap"

static const RaceSetup plain = { .create = "cluster_size=512" };
static const RaceSetup v2 = { .create = "cluster_size=512,compat=0.10" };
static const RaceSetup wide = { .create = "cluster_size=512,refcount_bits=64" };
static const RaceSetup overlay = { .create = "cluster_size=512,refcount_bits=1", .backing = true };
static const RaceSetup subclusters = { .create = "extended_l2=on,cluster_size=16k", .backing = true };
static const RaceSetup data_file = { .create = "cluster_size=512", .data_file = true };
static const RaceSetup raw_data_file = { .create = "cluster_size=512,data_file_raw=on,lazy_refcounts=on", .data_file = true };
static const RaceSetup v2_overlay = { .create = "cluster_size=512,compat=0.10", .backing = true };
static const RaceSetup chain = { .create = "cluster_size=512", .chain = true };
static const RaceSetup encrypted = { .create = "cluster_size=512,encrypt.format=aes,encrypt.key-secret=" CONFORMANCE_SECRET };
#define LUKS "encrypt.format=luks,encrypt.iter-time=1,encrypt.key-secret=" CONFORMANCE_SECRET
static const RaceSetup luks_plain = { .create = "cluster_size=512," LUKS };
static const RaceSetup luks_subclusters = {
    .create = "cluster_size=16k,extended_l2=on," LUKS ",encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc,"
              "encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256,encrypt.hash-alg=sha1",
    .backing = true,
};
static const RaceSetup luks_chain = {
    .create = "cluster_size=1k,lazy_refcounts=on," LUKS ",encrypt.cipher-alg=aes-192,encrypt.cipher-mode=cbc,"
              "encrypt.ivgen-alg=plain,encrypt.hash-alg=sha512",
    .chain = true,
};
#ifdef CONFIG_NETTLE
static const RaceSetup luks_serpent = {
    .create = "cluster_size=512," LUKS ",encrypt.cipher-alg=serpent-256,encrypt.hash-alg=ripemd160"
};
#endif
#ifdef CONFIG_LIBZSTD
static const RaceSetup zstd = { .create = "cluster_size=1k,compression_type=zstd" };
#endif
static const RaceSetup preallocated = { .create = "cluster_size=512,preallocation=metadata,refcount_bits=8" };
static const RaceSetup normal = { .create = "cluster_size=4096" };

#define RACE_QCOW2 .unit = 512, .crowded = true, .setup = race_setup, .teardown = race_teardown, \
    .inspect = conformance_check_image

const ConformanceStack race_stacks[] = {
    { .name = "plain", .options = SMALL ON_DISK, .length = 24 * 1024, .room = 24 * 1024, .data = &plain, RACE_QCOW2 },
    { .name = "lazy refcounts", .options = SMALL "lazy-refcounts=on," ON_DISK, .length = 24 * 1024, .room = 24 * 1024,
      .states = true, .data = &plain, RACE_QCOW2 },
    { .name = "version 2", .options = SMALL ON_DISK, .length = 24 * 1024, .data = &v2, RACE_QCOW2 },
    { .name = "64-bit refcounts", .options = SMALL ON_DISK, .length = 128 * 1024, .states = true, .data = &wide,
      RACE_QCOW2 },
    { .name = "backing file", .options = SMALL ON_DISK ",backing.driver=simdisk,backing.disk=%ID%-backing",
      .length = 48 * 1024, .data = &overlay, RACE_QCOW2 },
    { .name = "subclusters", .options = SMALL ON_DISK ",backing.driver=simdisk,backing.disk=%ID%-backing",
      .length = 128 * 1024, .room = 128 * 1024, .states = true, .data = &subclusters, RACE_QCOW2 },
    { .name = "kept space", .options = SMALL "discard-no-unref=on," ON_DISK, .length = 24 * 1024, .states = true,
      .data = &plain, RACE_QCOW2 },
    { .name = "states", .options = SMALL "overlap-check=all," ON_DISK, .length = 24 * 1024, .room = 24 * 1024,
      .data = &plain, .states = true, RACE_QCOW2 },
    { .name = "states, version 2", .options = SMALL ON_DISK ",backing.driver=simdisk,backing.disk=%ID%-backing",
      .length = 24 * 1024, .data = &v2_overlay, .states = true, RACE_QCOW2 },
    { .name = "data file", .options = SMALL ON_DISK, .length = 24 * 1024, .room = 24 * 1024, .data = &data_file,
      .states = true, .no_snapshots = true, RACE_QCOW2 },
    { .name = "raw data file", .options = SMALL ON_DISK, .length = 24 * 1024, .room = 24 * 1024, .states = true,
      .no_snapshots = true, .data = &raw_data_file, .unit = 512, .crowded = true, .setup = race_setup,
      .teardown = race_teardown,
      .inspect = conformance_check_raw_data },
    { .name = "bitmaps", .options = SMALL "overlap-check=all," ON_DISK, .length = 96 * 1024, .room = 48 * 1024,
      .data = &plain,
      .states = true, .bitmaps = true, RACE_QCOW2 },
    { .name = "bitmaps, subclusters", .variant = true, .options = SMALL "discard-no-unref=on,lazy-refcounts=on," ON_DISK
      ",backing.driver=simdisk,backing.disk=%ID%-backing", .length = 128 * 1024, .room = 128 * 1024, .states = true,
      .bitmaps = true, .data = &subclusters, RACE_QCOW2 },
    { .name = "bitmaps, raw data file", .variant = true, .options = SMALL ON_DISK, .length = 24 * 1024,
      .room = 24 * 1024, .states = true,
      .bitmaps = true, .no_snapshots = true, .data = &raw_data_file, .unit = 512, .crowded = true, .setup = race_setup,
      .teardown = race_teardown, .inspect = conformance_check_raw_data },
    { .name = "chain", .options = SMALL ON_DISK, .length = 24 * 1024, .room = 24 * 1024, .data = &chain, .states = true,
      .bitmaps = true, .bases = chain_bases, RACE_QCOW2 },
    { .name = "LUKS", .variant = true, .options = SMALL WITH_KEY ON_DISK, .length = 24 * 1024, .room = 24 * 1024,
      .data = &luks_plain,
      .states = true, .bitmaps = true, .keys = true, RACE_QCOW2 },
    { .name = "LUKS, subclusters", .variant = true,
      .options = SMALL WITH_KEY ON_DISK ",backing.driver=simdisk,backing.disk=%ID%-backing",
      .length = 128 * 1024, .room = 128 * 1024, .states = true, .keys = true, .data = &luks_subclusters, RACE_QCOW2 },
    { .name = "LUKS, chain", .variant = true, .options = SMALL WITH_KEY ON_DISK, .length = 24 * 1024, .room = 24 * 1024,
      .data = &luks_chain, .states = true, .keys = true, .bases = chain_bases, RACE_QCOW2 },
#ifdef CONFIG_NETTLE
    { .name = "LUKS, Serpent", .variant = true, .options = SMALL WITH_KEY ON_DISK, .length = 24 * 1024,
      .data = &luks_serpent, .states = true,
      .keys = true, RACE_QCOW2 },
#endif
#ifdef CONFIG_LIBZSTD
    { .name = "zstd", .variant = true, .options = SMALL ON_DISK, .length = 48 * 1024, .room = 48 * 1024,
      .data = &zstd, .states = true,
      .bitmaps = true, RACE_QCOW2 },
#endif
    /* Requests of parts of sectors. Where one ends the file inside a sector, a read of it may mix old and new. */
    { .name = "parts of sectors", .variant = true, .options = SMALL ON_DISK, .length = 24 * 1024, .room = 24 * 1024,
      .data = &plain,
      .crowded = true, .torn_reads = true, .states = true, .bitmaps = true, .setup = race_setup,
      .teardown = race_teardown,
      .inspect = conformance_check_image },
    { .name = "preallocated", .variant = true, .options = SMALL ON_DISK, .length = 24 * 1024, .room = 24 * 1024,
      .data = &preallocated,
      .states = true, RACE_QCOW2 },
    { .name = "encrypted", .options = SMALL WITH_KEY ON_DISK, .length = 24 * 1024,
      .room = 24 * 1024, .data = &encrypted, .states = true, RACE_QCOW2 },
    { .name = "default caches", .options = "driver=qcow2," ON_DISK, .length = 256 * 1024, .data = &normal,
      RACE_QCOW2 },
    { .name = "raw", .options = "driver=raw," ON_DISK, .length = 64 * 1024, .crowded = true, .resize = true,
      .setup = race_setup, .teardown = race_teardown },
    { .name = "qcow2 on blkdebug, race", .options = SMALL "file.driver=blkdebug,file.align=1024,file.max-transfer=4k,"
                                                   "file.image.driver=simdisk,file.image.disk=%ID%,file.discard=unmap",
      .length = 24 * 1024, .room = 24 * 1024, .data = &plain, RACE_QCOW2 },
    { .name = "raw file", .options = "driver=raw," ON_FILE, .length = 64 * 1024, .crowded = true, .resize = true,
      .torn_reads = true, .setup = conformance_file_setup, .teardown = conformance_file_teardown },
    { .name = "qcow2 file", .options = SMALL ON_FILE, .length = 48 * 1024, .crowded = true, .room = 48 * 1024,
      .torn_reads = true, .setup = conformance_file_setup, .teardown = conformance_file_teardown,
      .inspect = conformance_check_image, .data = &qcow2_small },
    { .name = NULL },
};

/* ---- all others ---- */

/* Delays of their own: requests on the two disks complete in different orders. */
static const SimSetup pair = {
    .limits = { .request_alignment = 512 }, .slow = true, .second = "-test", .second_length = -1
};
static const SimSetup logged = { .slow = true, .second = "-log", .second_length = 0 };

/* A stack of its own image; @image: how it is made. */
#define QCOW2_ON_A_FILE(title, image) QCOW2_INSPECTED(title, image, conformance_check_image)
#define QCOW2_INSPECTED(title, image, how)                                  \
    {                                                                       \
        .name = title, .length = MIB, .torn_reads = true,                   \
        .setup = conformance_file_setup, .teardown = conformance_file_teardown, \
        .inspect = how,                                                     \
        .options = "driver=qcow2,file.driver=file,file.filename=%DIR%/disk", .data = image, \
    }

const ConformanceStack conformance_stacks[] = {
    { .name = "simdisk",
      .options = "driver=simdisk,disk=%ID%",
      .length = MIB,
      .resize = true,
      .setup = sim_setup,
      .teardown = sim_teardown },
    { .name = "raw on simdisk",
      .options = "driver=raw,file.driver=simdisk,file.disk=%ID%",
      .length = MIB,
      .resize = true,
      .setup = sim_setup,
      .teardown = sim_teardown },
    { .name = "raw window on blocks",
      .options = "driver=raw,offset=1000,size=1M,file.driver=simdisk,file.disk=%ID%",
      .length = MIB,
      .skew = 1000 % 512,
      .setup = sim_setup,
      .teardown = sim_teardown,
      .data = &longer },
    { .name = "blocks of 4096",
      .options = "driver=raw,file.driver=simdisk,file.disk=%ID%",
      .length = MIB,
      .setup = sim_setup,
      .teardown = sim_teardown,
      .data = &blocks },
    { .name = "limits everywhere",
      .options = "driver=raw,file.driver=simdisk,file.disk=%ID%",
      .length = MIB,
      .setup = sim_setup,
      .teardown = sim_teardown,
      .data = &picky },
    { .name = "nothing but reads and writes",
      .options = "driver=raw,file.driver=simdisk,file.disk=%ID%",
      .length = MIB,
      .setup = sim_setup,
      .teardown = sim_teardown,
      .data = &poor },
    { .name = "slow blocks of 512",
      .options = "driver=raw,file.driver=simdisk,file.disk=%ID%",
      .length = MIB,
      .setup = sim_setup,
      .teardown = sim_teardown,
      .data = &slow },
    { .name = "blkdebug on simdisk",
      .options = "driver=blkdebug,image.driver=simdisk,image.disk=%ID%",
      .length = MIB,
      .resize = true,
      .setup = sim_setup,
      .teardown = sim_teardown },
    { .name = "raw on blkdebug, limits everywhere",
      .options = "driver=raw,file.driver=blkdebug,file.image.driver=simdisk,file.image.disk=%ID%,file.align=4096,"
                 "file.max-transfer=12k,file.opt-write-zero=8k,file.max-write-zero=24k,file.opt-discard=8k,"
                 "file.max-discard=40k",
      .length = MIB,
      .setup = sim_setup,
      .teardown = sim_teardown },
    { .name = "raw on blkdebug on slow blocks of 512",
      .options = "driver=raw,file.driver=blkdebug,file.image.driver=simdisk,file.image.disk=%ID%,file.align=1024",
      .length = MIB,
      .setup = sim_setup,
      .teardown = sim_teardown,
      .data = &slow },
    { .name = "raw on blkdebug, a size between blocks",
      .options = "driver=raw,file.driver=blkdebug,file.image.driver=simdisk,file.image.disk=%ID%,file.align=64k",
      .length = 300 * 1024 + 512,
      .setup = sim_setup,
      .teardown = sim_teardown },
    { .name = "raw on blkdebug on file",
      .options = "driver=raw,file.driver=blkdebug,file.image.driver=file,file.image.filename=%DIR%/disk,"
                 "file.align=512,file.max-transfer=64k", /* without align, a sector may be split and mixed */
      .length = MIB,
      .resize = true,
      .torn_reads = true,
      .setup = conformance_file_setup,
      .teardown = conformance_file_teardown },
    { .name = "qcow2 on blkdebug",
      .options = "driver=qcow2,file.driver=blkdebug,file.image.driver=file,file.image.filename=%DIR%/disk,"
                 "file.align=512,file.max-transfer=8k,file.opt-write-zero=4k,file.max-discard=64k",
      .length = MIB,
      .torn_reads = true,
      .setup = conformance_file_setup,
      .teardown = conformance_file_teardown,
      .inspect = conformance_check_image,
      .data = &qcow2 },
    { .name = "file",
      .options = "driver=raw,file.driver=file,file.filename=%DIR%/disk",
      .length = MIB,
      .resize = true,
      .torn_reads = true,
      .setup = conformance_file_setup,
      .teardown = conformance_file_teardown },
    { .name = "file, threads",
      .options = "driver=raw,file.driver=file,file.filename=%DIR%/disk,file.aio=threads",
      .length = MIB,
      .torn_reads = true,
      .setup = conformance_file_setup,
      .teardown = conformance_file_teardown },
    { .name = "file, direct",
      .length = MIB,
      .flags = BDRV_O_NOCACHE,
      .torn_reads = true,
      .setup = conformance_file_setup,
      .teardown = conformance_file_teardown,
      .options = "driver=raw,file.driver=file,file.filename=%DIR%/disk" },
    { .name = "file, direct, native",
      .length = MIB,
      .flags = BDRV_O_NOCACHE,
      .torn_reads = true,
      .setup = conformance_file_setup,
      .teardown = conformance_file_teardown,
      .options = "driver=raw,file.driver=file,file.filename=%DIR%/disk,file.aio=native" },
    { .name = "file window, direct",
      .length = MIB,
      .flags = BDRV_O_NOCACHE,
      .skew = 100,
      .torn_reads = true,
      .setup = conformance_file_setup,
      .teardown = conformance_file_teardown,
      .data = &window,
      .options = "driver=raw,offset=100,file.driver=file,file.filename=%DIR%/disk" },
    QCOW2_ON_A_FILE("qcow2", &qcow2),
    QCOW2_ON_A_FILE("qcow2, 512-byte clusters", &qcow2_small),
    QCOW2_ON_A_FILE("qcow2, lazy refcounts", &qcow2_lazy),
    QCOW2_ON_A_FILE("qcow2 v2", &qcow2_v2),
    QCOW2_ON_A_FILE("qcow2, 1-bit refcounts", &qcow2_bits),
    QCOW2_ON_A_FILE("qcow2, 2 MiB clusters", &qcow2_large),
    QCOW2_ON_A_FILE("qcow2 over raw", &qcow2_over_raw),
    QCOW2_ON_A_FILE("qcow2 over qcow2", &qcow2_over_qcow2),
    QCOW2_ON_A_FILE("qcow2 v2 over raw", &qcow2_v2_over_raw),
    { .name = "qcow2, bitmaps", .length = MIB, .torn_reads = true, .bitmaps = true, .setup = conformance_file_setup,
      .teardown = conformance_file_teardown, .inspect = conformance_check_image,
      .options = "driver=qcow2,file.driver=file,file.filename=%DIR%/disk", .data = &qcow2_small },
    QCOW2_ON_A_FILE("qcow2, data file", &qcow2_data),
    QCOW2_INSPECTED("qcow2, raw data file", &qcow2_raw_data, conformance_check_raw_data),
    QCOW2_ON_A_FILE("qcow2, subclusters in a data file, over raw", &qcow2_data_over_raw),
    { .name = "qcow2, encrypted",
      .length = MIB,
      .setup = encrypted_setup,
      .teardown = encrypted_teardown,
      .inspect = conformance_check_image,
      .options = "driver=qcow2,encrypt.key-secret=" CONFORMANCE_SECRET ",file.driver=simdisk,file.disk=%ID%",
      .data = &qcow2_luks },
    { .name = "qcow2, subclusters",
      .length = MIB,
      .torn_reads = true,
      .setup = conformance_file_setup,
      .teardown = conformance_file_teardown,
      .inspect = conformance_check_image,
      .options = "driver=qcow2,discard-no-unref=on,file.driver=file,file.filename=%DIR%/disk",
      .data = &qcow2_subclusters },
    QCOW2_ON_A_FILE("qcow2, subclusters over raw", &qcow2_subclusters_over_raw),
    { .name = "qcow2, direct",
      .length = MIB,
      .flags = BDRV_O_NOCACHE,
      .torn_reads = true,
      .setup = conformance_file_setup,
      .teardown = conformance_file_teardown,
      .inspect = conformance_check_image,
      .options = "driver=qcow2,file.driver=file,file.filename=%DIR%/disk",
      .data = &qcow2 },
    { .name = "qcow2, smallest caches",
      .length = MIB,
      .torn_reads = true,
      .setup = conformance_file_setup,
      .teardown = conformance_file_teardown,
      .inspect = conformance_check_image,
      .options =
          "driver=qcow2,file.driver=file,file.filename=%DIR%/disk,l2-cache-size=1k,refcount-cache-size=1k",
      .data = &qcow2_small },
    { .name = "luks",
      .options = "driver=luks,key-secret=" CONFORMANCE_SECRET ",file.driver=simdisk,file.disk=%ID%",
      .length = MIB,
      .setup = luks_setup,
      .teardown = encrypted_teardown,
      .data = &luks },
    { .name = "vdi",
      .options = "driver=vdi,file.driver=simdisk,file.disk=%ID%",
      .length = MIB,
      .room = MIB,
      .setup = encrypted_setup,
      .teardown = encrypted_teardown,
      .inspect = conformance_check_image,
      .data = &vdi },
    { .name = "vdi, static",
      .options = "driver=vdi,file.driver=file,file.filename=%DIR%/disk",
      .length = MIB,
      .torn_reads = true,
      .room = MIB,
      .setup = conformance_file_setup,
      .teardown = conformance_file_teardown,
      .inspect = conformance_check_image,
      .data = &vdi_static },
    { .name = "blkverify",
      .options = "driver=blkverify,raw.driver=simdisk,raw.disk=%ID%,test.driver=raw,test.file.driver=simdisk,"
                 "test.file.disk=%ID%-test",
      .length = MIB,
      .resize = true,
      .setup = sim_setup,
      .teardown = sim_teardown,
      .data = &pair },
    { .name = "blkverify of qcow2",
      .options = "driver=blkverify,raw.driver=simdisk,raw.disk=%ID%,test.driver=qcow2,test.file.filename=%DIR%/disk",
      .length = MIB,
      .torn_reads = true,
      .setup = verified_setup,
      .teardown = verified_teardown,
      .data = &qcow2 },
    { .name = "blklogwrites",
      .options = "driver=blklogwrites,log-append=on,file.driver=simdisk,file.disk=%ID%,log.driver=simdisk,"
                 "log.disk=%ID%-log",
      .length = MIB,
      .resize = true,
      .setup = sim_setup,
      .teardown = sim_teardown,
      .inspect = conformance_sim_log_inspect,
      .data = &logged },
    { .name = "qcow2 on blklogwrites",
      .options = "driver=qcow2,file.driver=blklogwrites,file.log-append=on,file.file.filename=%DIR%/disk,"
                 "file.log.filename=%DIR%/log",
      .length = MIB,
      .torn_reads = true,
      .setup = conformance_file_log_setup,
      .teardown = conformance_file_log_teardown,
      .inspect = conformance_file_log_inspect,
      .data = &qcow2_small },
    { .name = NULL },
};

const ConformanceStack *conformance_find_stack(const char *name)
{
    const ConformanceStack *const tables[] = { race_stacks, conformance_stacks };

    for (unsigned i = 0; i < G_N_ELEMENTS(tables); i++) {
        for (const ConformanceStack *stack = tables[i]; stack->name; stack++) {
            if (g_str_equal(stack->name, name)) {
                return stack;
            }
        }
    }
    return NULL;
}
