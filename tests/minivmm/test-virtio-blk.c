/* SPDX-License-Identifier: MIT */
/* What a well-behaved driver gets from the virtio block device: examples/minivmm/virtio-blk.c. */
#include "machine.h"

#include <string.h>

#define MIB (1u << 20)
#define ALL_FEATURES (~0ull)
#define NO_RINGS_EXTRA (~(FEATURE(F_EVENT_IDX) | FEATURE(F_INDIRECT_DESC)))

static const char raw_drive[] = "driver=raw,file.driver=file,file.filename=%s/disk.raw";
static const char qcow2_drive[] = "driver=qcow2,file.driver=file,file.filename=%s/disk.qcow2";

static void make_raw(Machine *machine)
{
    machine_create(machine, "raw", "disk.raw", "size=1M");
}

static void make_qcow2(Machine *machine)
{
    machine_create(machine, "qcow2", "disk.qcow2", "size=1M");
}

static void start(Machine *machine, uint64_t features)
{
    const char *problem = disk_start(&machine->disk, features, DISK_MAX_QUEUES);

    g_assert_cmpstr(problem, ==, NULL);
}

static void assert_filled(const DiskRequest *request, int byte)
{
    const uint8_t *data = request->data;

    for (uint32_t i = 0; i < request->bytes; i++) {
        g_assert_cmpuint(data[i], ==, byte);
    }
}

static void assert_run(Machine *machine, unsigned queue, DiskRequest *request, uint8_t status)
{
    g_assert_cmpuint(disk_run(&machine->disk, queue, request), ==, status);
}

static DiskRequest *run(Machine *machine, uint32_t type, uint64_t sector, uint32_t bytes, int fill, uint8_t status)
{
    DiskRequest *request = machine_request(machine, type, sector, bytes, fill);

    assert_run(machine, 0, request, status);
    return request;
}

/* Write, flush and read with these features and this kind of descriptors, on one queue. */
static void write_and_read(const char *drive, void (*make)(Machine *), uint64_t features, bool indirect, bool polling)
{
    Machine *machine = machine_new(make, drive, 1, 1);

    machine->disk.polling = polling;
    start(machine, features);
    for (unsigned i = 0; i < 40; i++) { /* the rings wrap */
        DiskRequest *write = machine_request(machine, BLK_OUT, 3 * i, 3 * SECTOR, i + 1);
        DiskRequest *read = machine_request(machine, BLK_IN, 3 * i, 3 * SECTOR, 0);

        write->indirect = read->indirect = indirect;
        write->segments = read->segments = 1 + i % 7;
        assert_run(machine, 0, write, BLK_OK);
        g_assert_cmpuint(write->written, ==, 1);
        assert_run(machine, 0, read, BLK_OK);
        g_assert_cmpuint(read->written, ==, 3 * SECTOR + 1);
        assert_filled(read, i + 1);
    }
    run(machine, BLK_FLUSH, 0, 0, 0, BLK_OK);
    g_assert_null(virtio_mmio_reason(virtio_blk_mmio(machine->device)));
    machine_free(machine, false);
}

static void test_raw(void)
{
    write_and_read(raw_drive, make_raw, ALL_FEATURES, false, false);
}

static void test_qcow2(void)
{
    write_and_read(qcow2_drive, make_qcow2, ALL_FEATURES, false, false);
}

static void test_indirect(void)
{
    write_and_read(qcow2_drive, make_qcow2, ALL_FEATURES, true, false);
}

static void test_without_event_idx(void)
{
    write_and_read(raw_drive, make_raw, NO_RINGS_EXTRA, false, false);
}

static void test_polling(void)
{
    write_and_read(raw_drive, make_raw, ALL_FEATURES, true, true);
}

static void test_without_flush(void)
{
    write_and_read(qcow2_drive, make_qcow2, FEATURE(F_VERSION_1), false, false);
}

static void test_config(void)
{
    Machine *machine = machine_new(make_qcow2, qcow2_drive, 4, 2);
    uint32_t config = MACHINE_DEVICE + MMIO_CONFIG;
    Platform *platform = (Platform *)machine;

    start(machine, ALL_FEATURES);
    g_assert_cmpuint(machine->disk.capacity, ==, MIB / SECTOR);
    g_assert_cmpuint(machine->disk.queue_count, ==, 4);
    g_assert_cmpuint(platform_read(platform, config + CONFIG_BLK_SIZE, 4), ==, SECTOR);
    g_assert_cmpuint(platform_read(platform, config + CONFIG_SEG_MAX, 4), ==, VIRTQUEUE_MAX_SEGMENTS - 2);
    g_assert_cmpuint(platform_read(platform, config + CONFIG_MAX_DISCARD_SEG, 4), ==, 16);
    g_assert_cmpuint(platform_read(platform, config + 0xf0, 4), ==, 0);
    g_assert_true(machine->disk.features & FEATURE(BLK_F_DISCARD));
    g_assert_false(machine->disk.features & FEATURE(BLK_F_RO));
    machine_free(machine, false);
}

/* What the guest is told to keep to is what the disk has, within what the device takes. */
static void test_limits(void)
{
    Machine *machine = machine_new(make_qcow2, "driver=blkdebug,opt-discard=128K,max-discard=512K,opt-write-zero=64K,"
                                   "max-write-zero=256K,image.driver=qcow2,image.file.filename=%s/disk.qcow2", 1, 1);
    uint32_t config = MACHINE_DEVICE + MMIO_CONFIG;
    Platform *platform = (Platform *)machine;

    start(machine, ALL_FEATURES);
    g_assert_cmpuint(platform_read(platform, config + CONFIG_DISCARD_SECTOR_ALIGNMENT, 4), ==, 256);
    g_assert_cmpuint(platform_read(platform, config + CONFIG_MAX_DISCARD_SECTORS, 4), ==, 1024);
    g_assert_cmpuint(platform_read(platform, config + CONFIG_MAX_WRITE_ZEROES_SECTORS, 4), ==, 512);
    machine_free(machine, false);
    machine = machine_new(make_raw, raw_drive, 1, 1);
    start(machine, ALL_FEATURES);
    g_assert_cmpuint(platform_read((Platform *)machine, config + CONFIG_DISCARD_SECTOR_ALIGNMENT, 4), ==, 1);
    g_assert_cmpuint(platform_read((Platform *)machine, config + CONFIG_MAX_DISCARD_SECTORS, 4), ==, 1u << 22);
    machine_free(machine, false);
}

static void test_get_id(void)
{
    Machine *machine = machine_new(make_raw, raw_drive, 1, 1);
    DiskRequest *request;

    start(machine, ALL_FEATURES);
    request = run(machine, BLK_GET_ID, 0, 20, 0, BLK_OK);
    g_assert_cmpmem(request->data, 20, "a serial number of 30 letters", 20);
    g_assert_cmpuint(request->written, ==, 21);
    machine_free(machine, false);
}

static void test_unknown_type(void)
{
    Machine *machine = machine_new(make_raw, raw_drive, 1, 1);

    start(machine, ALL_FEATURES);
    run(machine, 2, 0, 0, 0, BLK_UNSUPP);
    run(machine, BLK_IN, 0, SECTOR, 0, BLK_OK);
    machine_free(machine, false);
}

static void test_out_of_range(void)
{
    static const struct {
        uint64_t sector;
        uint32_t bytes;
    } cases[] = {
        { MIB / SECTOR, SECTOR },         { MIB / SECTOR - 1, 2 * SECTOR }, { UINT64_MAX, SECTOR },
        { UINT64_MAX / SECTOR, SECTOR },  { 1ull << 55, SECTOR },           { 0, SECTOR - 1 },
        { 0, 1 },                         { MIB / SECTOR + 1, 0 },
    };
    Machine *machine = machine_new(make_raw, raw_drive, 1, 1);

    start(machine, ALL_FEATURES);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        run(machine, BLK_IN, cases[i].sector, cases[i].bytes, 0, BLK_IOERR);
        run(machine, BLK_OUT, cases[i].sector, cases[i].bytes, 0, BLK_IOERR);
    }
    run(machine, BLK_OUT, MIB / SECTOR - 1, SECTOR, 1, BLK_OK);
    machine_free(machine, false);
}

/* A discard or write-zeroes of some ranges. */
static DiskRequest *ranges(Machine *machine, uint32_t type, const BlkRange *range, unsigned count, uint8_t status)
{
    DiskRequest *request = machine_request(machine, type, 0, count * sizeof(*range), 0);

    memcpy(request->data, range, request->bytes);
    assert_run(machine, 0, request, status);
    return request;
}

static void test_zeroes(void)
{
    static const BlkRange zero[] = { { 8, 8, 0 }, { 32, 8, 1 } };
    Machine *machine = machine_new(make_qcow2, qcow2_drive, 1, 1);

    start(machine, ALL_FEATURES);
    run(machine, BLK_OUT, 0, 64 * SECTOR, 0x55, BLK_OK);
    ranges(machine, BLK_WRITE_ZEROES, zero, 2, BLK_OK);
    assert_filled(run(machine, BLK_IN, 8, 8 * SECTOR, 1, BLK_OK), 0);
    assert_filled(run(machine, BLK_IN, 32, 8 * SECTOR, 1, BLK_OK), 0);
    assert_filled(run(machine, BLK_IN, 0, 8 * SECTOR, 1, BLK_OK), 0x55);
    assert_filled(run(machine, BLK_IN, 16, 16 * SECTOR, 1, BLK_OK), 0x55);
    assert_filled(run(machine, BLK_IN, 40, 24 * SECTOR, 1, BLK_OK), 0x55);
    machine_free(machine, false);
}

static void test_discard(void)
{
    static const BlkRange range[] = { { 0, 128, 0 }, { 256, 128, 0 } };
    Machine *machine = machine_new(make_qcow2, qcow2_drive, 1, 1);
    BlockExtent extent;

    start(machine, ALL_FEATURES);
    run(machine, BLK_OUT, 0, 512 * SECTOR, 0x55, BLK_OK);
    ranges(machine, BLK_DISCARD, range, 2, BLK_OK);
    assert_filled(run(machine, BLK_IN, 0, 128 * SECTOR, 1, BLK_OK), 0);
    assert_filled(run(machine, BLK_IN, 128, 128 * SECTOR, 1, BLK_OK), 0x55);
    g_assert_cmpint(blk_block_status(machine->blk, 256 * SECTOR, 128 * SECTOR, &extent), ==, 0);
    g_assert_cmpint(extent.kind, ==, EXTENT_ZERO);
    machine_free(machine, false);
}

static void test_wrong_ranges(void)
{
    static const BlkRange flag = { 0, 8, 2 }, unmap = { 0, 8, 1 }, beyond = { MIB / SECTOR, 1, 0 },
                          overflow = { UINT64_MAX, 8, 0 }, huge = { 0, UINT32_MAX, 0 };
    static const BlkRange second[] = { { 0, 8, 0 }, { MIB / SECTOR, 1, 0 } };
    static const BlkRange many[17] = { { 0, 1, 0 } };
    Machine *machine = machine_new(make_qcow2, qcow2_drive, 1, 1);

    start(machine, ALL_FEATURES);
    run(machine, BLK_OUT, 0, 8 * SECTOR, 0x55, BLK_OK);
    ranges(machine, BLK_WRITE_ZEROES, &flag, 1, BLK_UNSUPP);
    ranges(machine, BLK_DISCARD, &unmap, 1, BLK_UNSUPP);
    ranges(machine, BLK_WRITE_ZEROES, &beyond, 1, BLK_IOERR);
    ranges(machine, BLK_DISCARD, &overflow, 1, BLK_IOERR);
    ranges(machine, BLK_DISCARD, &huge, 1, BLK_IOERR);
    ranges(machine, BLK_WRITE_ZEROES, many, 17, BLK_IOERR);
    ranges(machine, BLK_WRITE_ZEROES, many, 0, BLK_IOERR);
    ranges(machine, BLK_WRITE_ZEROES, second, 2, BLK_IOERR);
    assert_filled(run(machine, BLK_IN, 0, 8 * SECTOR, 1, BLK_OK), 0x55);
    machine_free(machine, false);
}

static void test_empty_ranges(void)
{
    static const BlkRange range[] = { { 0, 0, 0 }, { MIB / SECTOR, 0, 0 } };
    Machine *machine = machine_new(make_qcow2, qcow2_drive, 1, 1);

    start(machine, ALL_FEATURES);
    run(machine, BLK_OUT, 0, 8 * SECTOR, 0x55, BLK_OK);
    ranges(machine, BLK_WRITE_ZEROES, range, 2, BLK_OK);
    ranges(machine, BLK_DISCARD, range, 2, BLK_OK);
    assert_filled(run(machine, BLK_IN, 0, 8 * SECTOR, 1, BLK_OK), 0x55);
    machine_free(machine, false);
}

/* The device goes while requests are in flight: it ends them first. */
static void test_free_in_flight(void)
{
    for (unsigned round = 0; round < 8; round++) {
        Machine *machine = machine_new(make_qcow2, qcow2_drive, 2, 2);

        start(machine, ALL_FEATURES);
        for (unsigned i = 0; i < 4; i++) {
            g_assert_true(disk_submit(&machine->disk, i % 2, machine_request(machine, BLK_OUT, i * 8, 8 * SECTOR, 1)));
            disk_notify(&machine->disk, i % 2);
        }
        machine_free(machine, false);
    }
}

static void test_not_negotiated(void)
{
    static const BlkRange range = { 0, 8, 0 };
    Machine *machine = machine_new(make_qcow2, qcow2_drive, 1, 1);

    start(machine, FEATURE(F_VERSION_1) | FEATURE(BLK_F_FLUSH));
    ranges(machine, BLK_DISCARD, &range, 1, BLK_UNSUPP);
    ranges(machine, BLK_WRITE_ZEROES, &range, 1, BLK_UNSUPP);
    machine_free(machine, false);
}

static void test_read_only(void)
{
    static const BlkRange range = { 0, 8, 0 };
    const char *drive = "driver=raw,read-only=on,file.driver=file,file.filename=%s/disk.raw";
    Machine *machine = machine_new(make_raw, drive, 1, 1);

    start(machine, ALL_FEATURES);
    g_assert_true(machine->disk.features & FEATURE(BLK_F_RO));
    g_assert_false(machine->disk.features & FEATURE(BLK_F_DISCARD));
    run(machine, BLK_IN, 0, SECTOR, 0, BLK_OK);
    run(machine, BLK_OUT, 0, SECTOR, 0, BLK_IOERR);
    ranges(machine, BLK_WRITE_ZEROES, &range, 1, BLK_UNSUPP);
    machine_free(machine, false);
}

/* All queues have requests in flight at once; each reads back what it wrote. */
static void test_queues(void)
{
    Machine *machine = machine_new(make_qcow2, qcow2_drive, 4, 2);
    DiskRequest *requests[4][4];
    static const uint32_t types[] = { BLK_OUT, BLK_IN };

    start(machine, ALL_FEATURES);
    for (unsigned t = 0; t < 2; t++) {
        for (unsigned q = 0; q < 4; q++) {
            for (unsigned i = 0; i < 4; i++) {
                requests[q][i] = machine_request(machine, types[t], (q * 4 + i) * 100, 8 * SECTOR,
                                                 t ? 0 : q * 4 + i + 1);
                g_assert_true(disk_submit(&machine->disk, q, requests[q][i]));
            }
            disk_notify(&machine->disk, q);
        }
        for (unsigned q = 0; q < 4; q++) {
            for (unsigned i = 0; i < 4; i++) {
                g_assert_nonnull(disk_wait(&machine->disk, q));
            }
            for (unsigned i = 0; i < 4; i++) {
                g_assert_cmpuint(requests[q][i]->status, ==, BLK_OK);
                assert_filled(requests[q][i], q * 4 + i + 1);
            }
        }
    }
    g_assert_cmpuint(virtio_blk_stats(machine->device).writes, ==, 16);
    machine_free(machine, false);
}

static void test_io_error(void)
{
    Machine *machine = machine_new(make_qcow2,
        "driver=qcow2,file.driver=blkdebug,file.image.driver=file,file.image.filename=%s/disk.qcow2,"
        "file.inject-error.0.event=write_aio,file.inject-error.0.once=on,"
        "file.inject-error.1.event=read_aio,file.inject-error.1.once=on,file.inject-error.1.errno=61", 1, 1);

    start(machine, ALL_FEATURES);
    run(machine, BLK_OUT, 0, 8 * SECTOR, 0x11, BLK_IOERR);
    run(machine, BLK_OUT, 0, 8 * SECTOR, 0x22, BLK_OK);
    g_assert_cmpuint(run(machine, BLK_IN, 0, 8 * SECTOR, 0, BLK_IOERR)->written, ==, 0);
    assert_filled(run(machine, BLK_IN, 0, 8 * SECTOR, 0, BLK_OK), 0x22);
    g_assert_cmpuint(virtio_blk_stats(machine->device).errors, ==, 2);
    machine_free(machine, false);
}

static void test_refused_features(void)
{
    Machine *machine = machine_new(make_raw, raw_drive, 1, 1);

    g_assert_cmpstr(disk_negotiate(&machine->disk, ALL_FEATURES & ~FEATURE(F_VERSION_1)), ==, "features refused");
    machine_set(machine, MMIO_STATUS, 0);
    machine_set(machine, MMIO_DRIVER_FEATURES_SEL, 1);
    machine_set(machine, MMIO_DRIVER_FEATURES, 1 | 1u << 31);
    machine_set(machine, MMIO_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK);
    g_assert_cmpuint(machine_get(machine, MMIO_STATUS), ==, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    start(machine, ALL_FEATURES);
    run(machine, BLK_IN, 0, SECTOR, 0, BLK_OK);
    machine_free(machine, false);
}

/* Requests are in flight when the driver resets the device: afterwards nothing of theirs happens any more. */
static void test_reset(void)
{
    Machine *machine = machine_new(make_qcow2, qcow2_drive, 2, 2);

    for (unsigned round = 0; round < 8; round++) {
        DiskRequest *request;

        start(machine, ALL_FEATURES);
        for (unsigned i = 0; i < 4; i++) {
            request = machine_request(machine, BLK_OUT, i * 8, 8 * SECTOR, round + 1);
            request->indirect = true;
            g_assert_true(disk_submit(&machine->disk, i % 2, request));
            disk_notify(&machine->disk, i % 2);
        }
        machine_set(machine, MMIO_STATUS, 0);
        g_assert_cmpuint(machine_get(machine, MMIO_STATUS), ==, 0);
        g_assert_cmpuint(machine_get(machine, MMIO_INTERRUPT_STATUS), ==, 0);
        machine_set(machine, MMIO_QUEUE_SEL, 0);
        g_assert_cmpuint(machine_get(machine, MMIO_QUEUE_READY), ==, 0);
    }
    start(machine, ALL_FEATURES);
    run(machine, BLK_IN, 0, SECTOR, 0, BLK_OK);
    machine_free(machine, false);
}

/* A request whose header, data and status are cut anywhere is the same request. */
static void test_odd_framing(void)
{
    Machine *machine = machine_new(make_raw, raw_drive, 1, 1);
    DiskRequest *write = machine_request(machine, BLK_OUT, 7, SECTOR, 0x77);
    DiskQueue *queue = &machine->disk.queues[0];
    uint8_t *buffer = platform_alloc((Platform *)machine, sizeof(BlkHeader) + SECTOR, 1);
    uint64_t address = platform_address((Platform *)machine, buffer);
    BlkHeader header = { .type = BLK_OUT, .sector = 7 };

    start(machine, ALL_FEATURES);
    memcpy(buffer, &header, sizeof(header));
    memset(buffer + sizeof(header), 0x77, SECTOR);
    write->status = BLK_NO_STATUS;
    queue->desc[0] = (Desc){ address, 5, DESC_NEXT, 1 };
    queue->desc[1] = (Desc){ 0, 0, DESC_NEXT, 2 };
    queue->desc[2] = (Desc){ address + 5, sizeof(header) + SECTOR - 5, DESC_NEXT, 3 };
    queue->desc[3] = (Desc){ platform_address((Platform *)machine, &write->status), 1, DESC_WRITE, 0 };
    queue->avail->ring[0] = 0;
    __atomic_store_n(&queue->avail->idx, 1, __ATOMIC_RELEASE);
    machine_set(machine, MMIO_QUEUE_NOTIFY, 0);
    while (__atomic_load_n(&queue->used->idx, __ATOMIC_ACQUIRE) == 0) {
        platform_wait((Platform *)machine, 0);
    }
    g_assert_cmpuint(write->status, ==, BLK_OK);
    start(machine, ALL_FEATURES);
    assert_filled(run(machine, BLK_IN, 7, SECTOR, 0, BLK_OK), 0x77);
    machine_free(machine, false);
}

/* ---- another length ---- */

static void resize(Machine *machine, int64_t length)
{
    GError *error = NULL;

    g_assert_true(blk_truncate(machine->blk, length, true, BDRV_PREALLOC_OFF, 0, &error));
    g_assert_no_error(error);
}

static void test_resize(void)
{
    Machine *machine = machine_new(make_qcow2, qcow2_drive, 1, 1);
    uint32_t generation;

    start(machine, ALL_FEATURES);
    generation = machine_get(machine, MMIO_CONFIG_GENERATION);
    run(machine, BLK_OUT, MIB / SECTOR, SECTOR, 1, BLK_IOERR);
    machine_set(machine, MMIO_INTERRUPT_ACK, machine_get(machine, MMIO_INTERRUPT_STATUS));
    resize(machine, 3 * MIB);
    g_assert_cmpuint(machine_get(machine, MMIO_INTERRUPT_STATUS), ==, INTERRUPT_CONFIG);
    g_assert_cmpuint(machine_get(machine, MMIO_CONFIG_GENERATION), !=, generation);
    disk_read_capacity(&machine->disk);
    g_assert_cmpuint(machine->disk.capacity, ==, 3 * MIB / SECTOR);
    run(machine, BLK_OUT, 3 * MIB / SECTOR - 1, SECTOR, 0x33, BLK_OK);
    generation = machine_get(machine, MMIO_CONFIG_GENERATION);
    resize(machine, 2 * MIB);
    run(machine, BLK_IN, 3 * MIB / SECTOR - 1, SECTOR, 0, BLK_IOERR);
    g_assert_cmpuint(machine_get(machine, MMIO_CONFIG_GENERATION), !=, generation);
    machine_free(machine, false);
}

static void test_resize_before_start(void)
{
    Machine *machine = machine_new(make_qcow2, qcow2_drive, 1, 1);

    g_assert_null(disk_negotiate(&machine->disk, ALL_FEATURES));
    resize(machine, 2 * MIB); /* after the driver has looked, before it takes interrupts */
    g_assert_cmpuint(machine_get(machine, MMIO_INTERRUPT_STATUS), ==, 0);
    machine_set(machine, MMIO_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK);
    g_assert_cmpuint(machine_get(machine, MMIO_INTERRUPT_STATUS), ==, INTERRUPT_CONFIG);
    disk_read_capacity(&machine->disk);
    g_assert_cmpuint(machine->disk.capacity, ==, 2 * MIB / SECTOR);
    machine_free(machine, false);
}

/* A monitor resizes while the guest resets its device and works. */
static void *monitor_thread(void *opaque)
{
    Machine *machine = opaque;

    for (unsigned i = 2; i <= 30; i++) {
        resize(machine, i * MIB);
    }
    return NULL;
}

static void test_resize_at_work(void)
{
    Machine *machine = machine_new(make_qcow2, qcow2_drive, 2, 2);
    DiskRequest *request = machine_request(machine, BLK_OUT, 0, SECTOR, 1);
    pthread_t monitor;

    start(machine, ALL_FEATURES);
    pthread_create(&monitor, NULL, monitor_thread, machine);
    for (unsigned i = 0; machine->disk.capacity < 30 * MIB / SECTOR; i++) {
        if (i % 20 == 0) {
            start(machine, ALL_FEATURES);
        }
        disk_read_capacity(&machine->disk);
        request->sector = machine->disk.capacity - 1;
        assert_run(machine, i % 2, request, BLK_OK);
    }
    pthread_join(monitor, NULL);
    machine_free(machine, false);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/minivmm/virtio-blk/a raw disk reads back what was written", test_raw);
    g_test_add_func("/minivmm/virtio-blk/a qcow2 disk reads back what was written", test_qcow2);
    g_test_add_func("/minivmm/virtio-blk/indirect descriptors are requests as well", test_indirect);
    g_test_add_func("/minivmm/virtio-blk/neither event index nor indirect descriptors are needed",
                    test_without_event_idx);
    g_test_add_func("/minivmm/virtio-blk/a driver can poll", test_polling);
    g_test_add_func("/minivmm/virtio-blk/a driver can do without flushes", test_without_flush);
    g_test_add_func("/minivmm/virtio-blk/the configuration tells size and limits", test_config);
    g_test_add_func("/minivmm/virtio-blk/the configuration tells the limits of the disk", test_limits);
    g_test_add_func("/minivmm/virtio-blk/get-id gives the serial number", test_get_id);
    g_test_add_func("/minivmm/virtio-blk/an unknown request is unsupported", test_unknown_type);
    g_test_add_func("/minivmm/virtio-blk/what is not on the disk is an I-O error", test_out_of_range);
    g_test_add_func("/minivmm/virtio-blk/write-zeroes makes zeroes of each range", test_zeroes);
    g_test_add_func("/minivmm/virtio-blk/discard gives clusters back", test_discard);
    g_test_add_func("/minivmm/virtio-blk/wrong ranges change nothing", test_wrong_ranges);
    g_test_add_func("/minivmm/virtio-blk/empty ranges are nothing to do", test_empty_ranges);
    g_test_add_func("/minivmm/virtio-blk/a disk can be taken away with requests in flight", test_free_in_flight);
    g_test_add_func("/minivmm/virtio-blk/what was not negotiated is unsupported", test_not_negotiated);
    g_test_add_func("/minivmm/virtio-blk/a read-only disk cannot be written", test_read_only);
    g_test_add_func("/minivmm/virtio-blk/several queues work at once", test_queues);
    g_test_add_func("/minivmm/virtio-blk/an injected error is the status of its request only", test_io_error);
    g_test_add_func("/minivmm/virtio-blk/features that cannot be are refused", test_refused_features);
    g_test_add_func("/minivmm/virtio-blk/a reset waits for requests in flight", test_reset);
    g_test_add_func("/minivmm/virtio-blk/descriptors may cut a request anywhere", test_odd_framing);
    g_test_add_func("/minivmm/virtio-blk/a resize is an interrupt and another capacity", test_resize);
    g_test_add_func("/minivmm/virtio-blk/a driver that starts is told of a resize meanwhile", test_resize_before_start);
    g_test_add_func("/minivmm/virtio-blk/a disk grows while the guest works", test_resize_at_work);
    return g_test_run();
}
