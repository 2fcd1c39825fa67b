/* SPDX-License-Identifier: MIT */
/*
 * What the guest does with its disks. Each scenario reports lines and ends with 0 if all was as it should be.
 *
 * A sector that is written is filled with one 32-bit word, its pattern: so a nested hypervisor that emulates every
 * instruction fills and checks it with one string instruction.
 */
#include "scenario.h"

#include <stddef.h>

#define CHUNK_SECTORS 8
#define CHUNK (CHUNK_SECTORS * SECTOR)
#define ALL_FEATURES                                                                                                   \
    (FEATURE(F_VERSION_1) | FEATURE(F_INDIRECT_DESC) | FEATURE(F_EVENT_IDX) | FEATURE(BLK_F_FLUSH) |                  \
     FEATURE(BLK_F_MQ) | FEATURE(BLK_F_DISCARD) | FEATURE(BLK_F_WRITE_ZEROES) | FEATURE(BLK_F_RO))

typedef struct Guest {
    Platform *platform;
    const BootInfo *boot;
    Disk disks[BOOT_MAX_DISKS];
} Guest;

#define REPORT(guest, text, ...)                                                                                       \
    platform_report((guest)->platform, text, (const uint32_t[]){ 0, ##__VA_ARGS__ } + 1,                               \
                    sizeof((const uint32_t[]){ 0, ##__VA_ARGS__ }) / sizeof(uint32_t) - 1)

static bool same(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

static uint32_t argument(const Guest *guest, unsigned n, uint32_t otherwise)
{
    return n < guest->boot->argument_count ? guest->boot->arguments[n] : otherwise;
}

/* ---- patterns ---- */

static uint32_t pattern(uint32_t seed, uint32_t sector)
{
    return (sector + 1) * 0x9e3779b1u ^ seed * 0x01000193u;
}

#if defined(__i386__)
static void fill(void *data, uint32_t word)
{
    uint32_t count = SECTOR / 4;

    __asm__ volatile("rep stosl" : "+D"(data), "+c"(count) : "a"(word) : "memory");
}

static bool is_filled(const void *data, uint32_t word)
{
    uint32_t count = SECTOR / 4;
    uint8_t equal;

    __asm__ volatile("repe scasl\n\tsete %0" : "=q"(equal), "+D"(data), "+c"(count) : "a"(word) : "memory", "cc");
    return equal;
}
#else
static void fill(void *data, uint32_t word)
{
    for (unsigned i = 0; i < SECTOR / 4; i++) {
        ((uint32_t *)data)[i] = word;
    }
}

static bool is_filled(const void *data, uint32_t word)
{
    for (unsigned i = 0; i < SECTOR / 4; i++) {
        if (((const uint32_t *)data)[i] != word) {
            return false;
        }
    }
    return true;
}
#endif

/* ---- requests ---- */

static DiskRequest *new_request(Guest *guest, uint32_t bytes)
{
    DiskRequest *request = platform_alloc(guest->platform, sizeof(*request), 16);

    request->bytes = bytes;
    request->data = bytes ? platform_alloc(guest->platform, bytes, 512) : NULL;
    return request;
}

static bool run(Guest *guest, Disk *disk, uint32_t queue, DiskRequest *request, uint32_t type, uint32_t sector)
{
    uint8_t status;

    request->type = type;
    request->sector = sector;
    status = disk_run(disk, queue, request);
    if (status != BLK_OK) {
        REPORT(guest, "request of type % at sector %: status %", type, sector, status);
    }
    return status == BLK_OK;
}

static bool start(Guest *guest, unsigned n, uint64_t features)
{
    Disk *disk = &guest->disks[n];
    const char *problem;

    disk->platform = guest->platform;
    disk->base = BOOT_DISK_BASE + n * BOOT_DISK_STRIDE;
    problem = disk_start(disk, features, DISK_MAX_QUEUES);
    if (problem) {
        REPORT(guest, problem);
        return false;
    }
    REPORT(guest, "disk %: % sectors, % queues", n, (uint32_t)disk->capacity, disk->queue_count);
    return true;
}

/* Sectors of a chunk have the patterns of @seed, odd ones those of @odd_seed. */
static bool check_chunk(Guest *guest, const DiskRequest *request, uint32_t first, uint32_t seed, uint32_t odd_seed)
{
    for (uint32_t i = 0; i < CHUNK_SECTORS; i++) {
        uint32_t sector = first + i;

        if (!is_filled((const char *)request->data + i * SECTOR, pattern(sector % 2 ? odd_seed : seed, sector))) {
            REPORT(guest, "sector % does not have the pattern of %", sector, sector % 2 ? odd_seed : seed);
            return false;
        }
    }
    return true;
}

/* ---- scenarios ---- */

static uint32_t info(Guest *guest)
{
    for (unsigned i = 0; i < guest->boot->disk_count; i++) {
        Disk *disk = &guest->disks[i];
        DiskRequest *request = new_request(guest, 20);
        char *serial = platform_alloc(guest->platform, 21, 1);

        if (!start(guest, i, ALL_FEATURES) || !run(guest, disk, 0, request, BLK_GET_ID, 0)) {
            return 1;
        }
        __builtin_memcpy(serial, request->data, 20);
        REPORT(guest, serial);
        REPORT(guest, "read-only %, discard %, write-zeroes %", !!(disk->features & FEATURE(BLK_F_RO)),
               !!(disk->features & FEATURE(BLK_F_DISCARD)), !!(disk->features & FEATURE(BLK_F_WRITE_ZEROES)));
    }
    return 0;
}

/* verify CHUNKS SEED: the disk has the patterns of SEED; write those of SEED + 1 into odd sectors, flush, look. */
static uint32_t verify(Guest *guest)
{
    Disk *disk = &guest->disks[0];
    uint32_t chunks = argument(guest, 0, 4), seed = argument(guest, 1, 1);
    DiskRequest *request = new_request(guest, CHUNK), *sector = new_request(guest, SECTOR);
    DiskRequest *flush = new_request(guest, 0);

    if (!start(guest, 0, ALL_FEATURES)) {
        return 1;
    }
    for (uint32_t i = 0; i < chunks; i++) {
        request->indirect = i % 2;
        request->segments = 1 + i % 5;
        if (!run(guest, disk, i % disk->queue_count, request, BLK_IN, i * CHUNK_SECTORS) ||
            !check_chunk(guest, request, i * CHUNK_SECTORS, seed, seed)) {
            return 1;
        }
    }
    REPORT(guest, "the disk is as it was left");
    for (uint32_t i = 1; i < chunks * CHUNK_SECTORS; i += 2) {
        fill(sector->data, pattern(seed + 1, i));
        sector->indirect = i % 4 == 1;
        if (!run(guest, disk, i / 2 % disk->queue_count, sector, BLK_OUT, i)) {
            return 1;
        }
    }
    if (!run(guest, disk, 0, flush, BLK_FLUSH, 0)) {
        return 1;
    }
    REPORT(guest, "written and flushed");
    for (uint32_t i = 0; i < chunks; i++) {
        if (!run(guest, disk, 0, request, BLK_IN, i * CHUNK_SECTORS) ||
            !check_chunk(guest, request, i * CHUNK_SECTORS, seed, seed + 1)) {
            return 1;
        }
    }
    REPORT(guest, "reads back as written");
    return 0;
}

/* zeroes SEED: write four chunks, discard the second, write zeroes over the third, look at all. */
static uint32_t zeroes(Guest *guest)
{
    Disk *disk = &guest->disks[0];
    uint32_t seed = argument(guest, 0, 1);
    DiskRequest *request = new_request(guest, CHUNK), *range = new_request(guest, sizeof(BlkRange));

    if (!start(guest, 0, ALL_FEATURES)) {
        return 1;
    }
    for (uint32_t i = 0; i < 4; i++) {
        for (uint32_t s = 0; s < CHUNK_SECTORS; s++) {
            fill((char *)request->data + s * SECTOR, pattern(seed, i * CHUNK_SECTORS + s));
        }
        if (!run(guest, disk, 0, request, BLK_OUT, i * CHUNK_SECTORS)) {
            return 1;
        }
    }
    for (uint32_t i = 1; i <= 2; i++) {
        *(BlkRange *)range->data = (BlkRange){ i * CHUNK_SECTORS, CHUNK_SECTORS, i == 2 };
        if (!run(guest, disk, 0, range, i == 1 ? BLK_DISCARD : BLK_WRITE_ZEROES, 0)) {
            return 1;
        }
    }
    for (uint32_t i = 0; i < 4; i++) {
        if (!run(guest, disk, 0, request, BLK_IN, i * CHUNK_SECTORS)) {
            return 1;
        }
        if (i == 2) {
            if (!is_filled(request->data, 0) || !is_filled((char *)request->data + CHUNK - SECTOR, 0)) {
                REPORT(guest, "chunk % is not zero", i);
                return 1;
            }
        } else if (i != 1 && !check_chunk(guest, request, i * CHUNK_SECTORS, seed, seed)) {
            return 1;
        }
    }
    REPORT(guest, "discarded and zeroed");
    return 0;
}

/* errors COUNT: write COUNT sectors one after the other and tell the status of each; then read them. */
static uint32_t errors(Guest *guest)
{
    Disk *disk = &guest->disks[0];
    uint32_t count = argument(guest, 0, 4);
    DiskRequest *request = new_request(guest, SECTOR);

    if (!start(guest, 0, ALL_FEATURES)) {
        return 1;
    }
    for (uint32_t type = BLK_OUT + 1; type-- > BLK_IN;) {
        for (uint32_t i = 0; i < count; i++) {
            uint8_t status;

            if (type == BLK_OUT) {
                fill(request->data, pattern(1, i));
            }
            request->type = type;
            request->sector = i;
            status = disk_run(disk, i % disk->queue_count, request);
            REPORT(guest, type == BLK_OUT ? "write %: status %" : "read %: status %", i, status);
            if (type == BLK_IN && status == BLK_OK && !is_filled(request->data, pattern(1, i))) {
                REPORT(guest, "sector % is not what was written", i);
                return 1;
            }
        }
    }
    return 0;
}

/* Ask for a chain that loops: the device must need a reset, and work after it. */
static uint32_t hostile(Guest *guest)
{
    Disk *disk = &guest->disks[0];
    DiskRequest *request = new_request(guest, SECTOR);

    if (!start(guest, 0, ALL_FEATURES)) {
        return 1;
    }
    request->type = BLK_OUT; /* all of the loop is to be read */
    disk_submit(disk, 0, request);
    disk->queues[0].desc[1].next = 0;
    disk_notify(disk, 0);
    if (disk_wait(disk, 0)) {
        REPORT(guest, "a request that has no end was done");
        return 1;
    }
    REPORT(guest, "the device needs a reset");
    if (!start(guest, 0, ALL_FEATURES) || !run(guest, disk, 0, request, BLK_IN, 0)) {
        return 1;
    }
    REPORT(guest, "works again");
    return 0;
}

/* Where record @n is: a chunk of its own, spread over the disk. */
static uint32_t record_sector(const Disk *disk, uint32_t n)
{
    uint32_t places = (uint32_t)disk->capacity / 128;

    return n * 37 % places * 128 + n / places % 16 * CHUNK_SECTORS;
}

/*
 * records FIRST COUNT: write records, some at a time over all queues, flush, and only then say that they are there.
 * A record is one sector with its number as the seed of its pattern.
 */
static uint32_t records(Guest *guest)
{
    Disk *disk = &guest->disks[0];
    uint32_t first = argument(guest, 0, 0), end = first + argument(guest, 1, 8), batch = argument(guest, 2, 4);
    DiskRequest *requests[DISK_MAX_QUEUES], *flush = new_request(guest, 0);

    batch = batch < 1 ? 1 : batch > DISK_MAX_QUEUES ? DISK_MAX_QUEUES : batch;
    if (!start(guest, 0, ALL_FEATURES)) {
        return 1;
    }
    for (uint32_t i = 0; i < batch; i++) {
        requests[i] = new_request(guest, SECTOR);
        requests[i]->type = BLK_OUT;
    }
    for (uint32_t n = first; n < end; n += batch) {
        uint32_t count = end - n < batch ? end - n : batch;

        for (uint32_t i = 0; i < count; i++) {
            requests[i]->sector = record_sector(disk, n + i);
            fill(requests[i]->data, pattern(n + i, requests[i]->sector));
            disk_submit(disk, i % disk->queue_count, requests[i]);
            disk_notify(disk, i % disk->queue_count);
        }
        for (uint32_t i = 0; i < count; i++) {
            while (!requests[i]->done && disk_wait(disk, i % disk->queue_count)) {
            }
            if (!requests[i]->done || requests[i]->status != BLK_OK) {
                REPORT(guest, "record % was not written: status %", n + i, requests[i]->status);
                return 1;
            }
        }
        if (!run(guest, disk, 0, flush, BLK_FLUSH, 0)) {
            return 1;
        }
        REPORT(guest, "flushed % to %", n, n + count - 1);
    }
    return 0;
}

/* check FIRST COUNT: the records are there. */
static uint32_t check(Guest *guest)
{
    Disk *disk = &guest->disks[0];
    uint32_t first = argument(guest, 0, 0), end = first + argument(guest, 1, 8), missing = 0;
    DiskRequest *request = new_request(guest, SECTOR);

    if (!start(guest, 0, ALL_FEATURES)) {
        return 1;
    }
    for (uint32_t n = first; n < end; n++) {
        uint32_t sector = record_sector(disk, n);

        if (!run(guest, disk, 0, request, BLK_IN, sector)) {
            return 1;
        }
        if (!is_filled(request->data, pattern(n, sector))) {
            REPORT(guest, "record % is not there", n);
            missing++;
        }
    }
    REPORT(guest, "% records, % missing", end - first, missing);
    return missing > 0;
}

/* grow: wait until the disk is longer, then write what came last. */
static uint32_t grow(Guest *guest)
{
    Disk *disk = &guest->disks[0];
    DiskRequest *request = new_request(guest, SECTOR), *flush = new_request(guest, 0);
    uint64_t before;

    if (!start(guest, 0, ALL_FEATURES)) {
        return 1;
    }
    before = disk->capacity;
    while (disk->capacity <= before) {
        platform_wait(guest->platform, disk->base);
        disk_read_capacity(disk);
    }
    REPORT(guest, "disk 0 has grown to % sectors", (uint32_t)disk->capacity);
    fill(request->data, pattern(1, disk->capacity - 1));
    return run(guest, disk, 0, request, BLK_OUT, disk->capacity - 1) && run(guest, disk, 0, flush, BLK_FLUSH, 0) ? 0 : 1;
}

uint32_t scenario_run(Platform *platform, const BootInfo *boot)
{
    static const struct {
        const char *name;
        uint32_t (*run)(Guest *guest);
    } scenarios[] = {
        { "info", info },       { "verify", verify },   { "zeroes", zeroes }, { "errors", errors },
        { "hostile", hostile }, { "records", records }, { "check", check },
        { "grow", grow },
    };
    Guest *guest = platform_alloc(platform, sizeof(*guest), 16);

    guest->platform = platform;
    guest->boot = boot;
    if (boot->disk_count == 0) {
        REPORT(guest, "there is no disk");
        return 1;
    }
    for (unsigned i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
        if (same(boot->scenario, scenarios[i].name)) {
            return scenarios[i].run(guest);
        }
    }
    REPORT(guest, "no such scenario; there are info, verify, zeroes, errors, hostile, records, check and grow");
    return 2;
}
