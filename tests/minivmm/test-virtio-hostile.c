/* SPDX-License-Identifier: MIT */
/*
 * What a guest can do to the device: rings, descriptors and registers that no driver would write. The device says what
 * is wrong, asks for a reset, and works again after it.
 */
#include "machine.h"

#include <string.h>

#define DATA 0x100000u   /* guest address of buffers */
#define HEADER 0x200000u /* and of a header: read sector 0 */
#define STATUS_BYTE 0x200100u
#define TABLE 0x210000u  /* and of an indirect table */
#define ALL_FEATURES (~0ull)
#define RAM MACHINE_RAM

static void make_raw(Machine *machine)
{
    machine_create(machine, "raw", "disk.raw", "size=1M");
}

static Machine *start(uint64_t features)
{
    Machine *machine = machine_new(make_raw, "driver=raw,file.driver=file,file.filename=%s/disk.raw", 2, 1);

    machine->disk.polling = true;
    g_assert_cmpstr(disk_start(&machine->disk, features, 1), ==, NULL);
    return machine;
}

static void wait_until_broken(Machine *machine)
{
    while (!(machine_get(machine, MMIO_STATUS) & STATUS_NEEDS_RESET)) {
        g_usleep(50);
    }
}

static void assert_works_after_reset(Machine *machine)
{
    DiskRequest *request;

    memset(machine->disk.queues, 0, sizeof(machine->disk.queues));
    machine->used = 4096;
    g_assert_cmpstr(disk_start(&machine->disk, ALL_FEATURES, 1), ==, NULL);
    request = machine_request(machine, BLK_IN, 0, SECTOR, 1);
    g_assert_cmpuint(disk_run(&machine->disk, 0, request), ==, BLK_OK);
}

static void assert_reason(Machine *machine, const char *part)
{
    g_autofree char *reason = virtio_mmio_reason(virtio_blk_mmio(machine->device));

    g_assert_nonnull(reason);
    if (!strstr(reason, part)) {
        g_error("'%s' does not say '%s'", reason, part);
    }
}

/* ---- chains ---- */

static Desc *table_in_memory(Machine *machine)
{
    return (Desc *)(machine->memory.host + TABLE);
}

static void offer(Machine *machine, uint16_t head, uint16_t ahead)
{
    DiskQueue *queue = &machine->disk.queues[0];

    queue->avail->ring[0] = head;
    __atomic_store_n(&queue->avail->idx, ahead, __ATOMIC_RELEASE);
    machine_set(machine, MMIO_QUEUE_NOTIFY, 0);
}

typedef struct ChainCase {
    const char *what;
    Desc desc[4];     /* of the ring; the request begins with the first */
    Desc indirect[4]; /* at TABLE */
    const char *reason;
} ChainCase;

#define IN_TABLE(n) { TABLE, (n) * sizeof(Desc), DESC_INDIRECT, 0 }

static const ChainCase chain_cases[] = {
    { "a descriptor that is its own next", { { HEADER, 16, DESC_NEXT, 0 } }, {}, "chain of more than 128" },
    { "a loop of two", { { HEADER, 16, DESC_NEXT, 1 }, { DATA, 16, DESC_NEXT, 0 } }, {}, "chain of more than 128" },
    { "a loop of nothing", { { 0, 0, DESC_NEXT, 0 } }, {}, "chain of more than 128" },
    { "a loop in an indirect table", { IN_TABLE(2) }, { { HEADER, 16, DESC_NEXT, 1 }, { DATA, 1, DESC_NEXT, 0 } },
      "chain of more than 128" },
    { "a next descriptor outside of the table", { { HEADER, 16, DESC_NEXT, 16 } }, {},
      "descriptor 16 of a table of 16" },
    { "a next one outside of an indirect table", { IN_TABLE(2) }, { { HEADER, 16, DESC_NEXT, 2 } },
      "descriptor 2 of a table of 2" },
    { "an address beyond RAM", { { RAM, 16, 0, 0 } }, {}, "is not in RAM" },
    { "a buffer that runs out of RAM", { { RAM - 8, 16, 0, 0 } }, {}, "buffer of 16 bytes" },
    { "a buffer that wraps around", { { UINT64_MAX - 7, 16, 0, 0 } }, {}, "is not in RAM" },
    { "a buffer of 4 GiB", { { HEADER, UINT32_MAX, 0, 0 } }, {}, "is not in RAM" },
    { "a table inside a table", { IN_TABLE(2) }, { IN_TABLE(2) }, "inside an indirect table" },
    { "an indirect one with a next", { { TABLE, 32, DESC_INDIRECT | DESC_NEXT, 1 } }, {}, "that has a next one" },
    { "a table of no descriptor", { { TABLE, 0, DESC_INDIRECT, 0 } }, {}, "whole number" },
    { "a table of half a descriptor", { { TABLE, 24, DESC_INDIRECT, 0 } }, {}, "whole number" },
    { "a table beyond RAM", { { RAM - 16, 32, DESC_INDIRECT, 0 } }, {}, "is not in RAM" },
    { "a read buffer after a written one",
      { { HEADER, 16, DESC_NEXT, 1 }, { DATA, 512, DESC_NEXT | DESC_WRITE, 2 }, { DATA, 1, 0, 0 } },
      {}, "after one to be written" },
    { "no header", { { STATUS_BYTE, 1, DESC_WRITE, 0 } }, {}, "no room for header" },
    { "half a header", { { HEADER, 15, DESC_NEXT, 1 }, { STATUS_BYTE, 1, DESC_WRITE, 0 } }, {}, "no room for header" },
    { "no status", { { HEADER, 16, 0, 0 } }, {}, "no room for header" },
    { "a status of no bytes", { { HEADER, 16, DESC_NEXT, 1 }, { STATUS_BYTE, 0, DESC_WRITE, 0 } }, {},
      "no room for header" },
};

static void test_chain(gconstpointer data)
{
    const ChainCase *this = data;
    Machine *machine = start(ALL_FEATURES);

    memcpy(machine->disk.queues[0].desc, this->desc, sizeof(this->desc));
    memcpy(table_in_memory(machine), this->indirect, sizeof(this->indirect));
    offer(machine, 0, 1);
    wait_until_broken(machine);
    assert_reason(machine, this->reason);
    assert_works_after_reset(machine);
    machine_free(machine, false);
}

static void test_head(void)
{
    Machine *machine = start(ALL_FEATURES);

    offer(machine, DISK_QUEUE_SIZE, 1);
    wait_until_broken(machine);
    assert_reason(machine, "descriptor 16 of a table of 16");
    assert_works_after_reset(machine);
    machine_free(machine, false);
}

static void test_available_index(void)
{
    Machine *machine = start(ALL_FEATURES);

    offer(machine, 0, DISK_QUEUE_SIZE + 1);
    wait_until_broken(machine);
    assert_reason(machine, "available index 17 is 17 ahead");
    assert_works_after_reset(machine);
    machine_free(machine, false);
}

static void test_indirect_not_negotiated(void)
{
    Machine *machine = start(FEATURE(F_VERSION_1));

    machine->disk.queues[0].desc[0] = (Desc)IN_TABLE(2);
    offer(machine, 0, 1);
    wait_until_broken(machine);
    assert_reason(machine, "not negotiated");
    machine_free(machine, false);
}

/* The same chain again and again, while it is in flight: not more at a time than the ring has places. */
static void test_same_head(void)
{
    Machine *machine = start(ALL_FEATURES);
    DiskQueue *queue = &machine->disk.queues[0];

    queue->desc[0] = (Desc){ HEADER, 16, DESC_NEXT, 1 };
    queue->desc[1] = (Desc){ DATA, SECTOR, DESC_NEXT | DESC_WRITE, 2 };
    queue->desc[2] = (Desc){ STATUS_BYTE, 1, DESC_WRITE, 0 };
    for (unsigned i = 0; i < DISK_QUEUE_SIZE; i++) {
        queue->avail->ring[i] = 0;
    }
    for (uint16_t idx = DISK_QUEUE_SIZE; idx <= 64 * DISK_QUEUE_SIZE; idx += DISK_QUEUE_SIZE) {
        __atomic_store_n(&queue->avail->idx, idx, __ATOMIC_RELEASE);
        machine_set(machine, MMIO_QUEUE_NOTIFY, 0);
        while (__atomic_load_n(&queue->used->idx, __ATOMIC_ACQUIRE) != idx) {
            g_usleep(20);
        }
    }
    g_assert_false(virtio_mmio_is_broken(virtio_blk_mmio(machine->device)));
    assert_works_after_reset(machine);
    machine_free(machine, false);
}

/* A chain that names all of RAM in each of its descriptors is refused before anything is moved. */
static void test_huge_request(void)
{
    Machine *machine = start(ALL_FEATURES);
    DiskQueue *queue = &machine->disk.queues[0];
    Desc *table = table_in_memory(machine);
    unsigned n = VIRTQUEUE_MAX_SEGMENTS;

    table[0] = (Desc){ HEADER, 16, DESC_NEXT, 1 };
    for (unsigned i = 1; i < n; i++) {
        table[i] = (Desc){ 0, RAM, DESC_NEXT | DESC_WRITE, i + 1 };
    }
    table[n - 1] = (Desc){ STATUS_BYTE, 1, DESC_WRITE, 0 };
    machine->memory.host[STATUS_BYTE] = BLK_NO_STATUS;
    queue->desc[0] = (Desc)IN_TABLE(n);
    offer(machine, 0, 1);
    while (__atomic_load_n(&queue->used->idx, __ATOMIC_ACQUIRE) == 0) {
        g_usleep(20);
    }
    g_assert_cmpuint(machine->memory.host[STATUS_BYTE], ==, BLK_IOERR);
    machine_free(machine, false);
}

/* ---- registers ---- */

typedef struct SetupCase {
    const char *what;
    uint32_t reg, value;
    const char *reason;
} SetupCase;

static const SetupCase setup_cases[] = {
    { "a queue of no entries", MMIO_QUEUE_NUM, 0, "size 0 is not a power of two" },
    { "a queue of three", MMIO_QUEUE_NUM, 3, "size 3" },
    { "a queue larger than the device has", MMIO_QUEUE_NUM, 256, "size 256" },
    { "a queue of 2^31", MMIO_QUEUE_NUM, 1u << 31, "size 2147483648" },
    { "descriptors beyond RAM", MMIO_QUEUE_DESC, RAM, "descriptor table" },
    { "descriptors that run out of RAM", MMIO_QUEUE_DESC, RAM - 16, "descriptor table" },
    { "descriptors far away", MMIO_QUEUE_DESC + 4, 0xffffffff, "descriptor table" },
    { "descriptors at an odd address", MMIO_QUEUE_DESC, 0x8008, "not aligned to 16" },
    { "an available ring beyond RAM", MMIO_QUEUE_DRIVER, RAM - 4, "available ring" },
    { "an available ring at an odd address", MMIO_QUEUE_DRIVER, 0x9001, "not aligned to 2" },
    { "a used ring beyond RAM", MMIO_QUEUE_DEVICE, RAM - 4, "used ring" },
    { "a used ring at an odd address", MMIO_QUEUE_DEVICE, 0xa002, "not aligned to 4" },
};

static void test_setup(gconstpointer data)
{
    const SetupCase *this = data;
    Machine *machine = start(ALL_FEATURES);

    g_assert_cmpstr(disk_negotiate(&machine->disk, ALL_FEATURES), ==, NULL);
    disk_set_up_queue(&machine->disk, 0);
    machine_set(machine, MMIO_QUEUE_SEL, 1);
    machine_set(machine, MMIO_QUEUE_NUM, DISK_QUEUE_SIZE);
    machine_set(machine, MMIO_QUEUE_DESC, 0x8000);
    machine_set(machine, MMIO_QUEUE_DRIVER, 0x9000);
    machine_set(machine, MMIO_QUEUE_DEVICE, 0xa000);
    machine_set(machine, this->reg, this->value);
    machine_set(machine, MMIO_QUEUE_READY, 1);
    machine_set(machine, MMIO_STATUS,
                STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK);
    wait_until_broken(machine);
    assert_reason(machine, this->reason);
    assert_works_after_reset(machine);
    machine_free(machine, false);
}

static void test_driver_ok_too_early(void)
{
    Machine *machine = start(ALL_FEATURES);

    machine_set(machine, MMIO_STATUS, 0);
    machine_set(machine, MMIO_STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_DRIVER_OK);
    g_assert_cmpuint(machine_get(machine, MMIO_STATUS), ==, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_NEEDS_RESET);
    assert_works_after_reset(machine);
    machine_free(machine, false);
}

static void test_ready_queue_is_fixed(void)
{
    Machine *machine = start(ALL_FEATURES);
    DiskRequest *request = machine_request(machine, BLK_IN, 0, SECTOR, 1);

    machine_set(machine, MMIO_QUEUE_SEL, 0);
    machine_set(machine, MMIO_QUEUE_NUM, 3);
    machine_set(machine, MMIO_QUEUE_DESC, RAM);
    machine_set(machine, MMIO_DRIVER_FEATURES, 0);
    g_assert_cmpuint(disk_run(&machine->disk, 0, request), ==, BLK_OK);
    machine_free(machine, false);
}

/* Every register and width, and some beyond, with values drawn. */
static void test_random_registers(void)
{
    Machine *machine = start(ALL_FEATURES);

    for (unsigned i = 0; i < 3000; i++) {
        uint64_t value = (uint32_t)g_test_rand_int() >> (g_test_rand_int_range(0, 4) ? 26 : 0);
        unsigned bytes = 1u << g_test_rand_int_range(0, 4);
        uint64_t offset = g_test_rand_int_range(0, VIRTIO_MMIO_BYTES + 16);
        uint64_t read;

        offset = g_test_rand_bit() ? offset & ~3ull : offset;
        virtio_mmio_write(virtio_blk_mmio(machine->device), offset, &value, g_test_rand_bit() ? 4 : bytes);
        virtio_mmio_read(virtio_blk_mmio(machine->device), offset, &read, bytes);
    }
    assert_works_after_reset(machine);
    machine_free(machine, false);
}

/* ---- rings full of noise ---- */

static void draw_desc(Desc *desc)
{
    static const uint64_t addresses[] = { 0, HEADER, STATUS_BYTE, DATA, TABLE, RAM - 8, RAM, UINT64_MAX - 3 };
    static const uint32_t lengths[] = { 0, 1, 15, 16, 32, 512, 4096, 65536, RAM, UINT32_MAX };

    desc->addr = addresses[g_test_rand_int_range(0, G_N_ELEMENTS(addresses))];
    desc->len = lengths[g_test_rand_int_range(0, G_N_ELEMENTS(lengths))];
    desc->flags = g_test_rand_int_range(0, 8);
    desc->next = g_test_rand_int_range(0, DISK_QUEUE_SIZE + 1);
}

static void draw_rings(Machine *machine)
{
    static const uint32_t types[] = { BLK_IN, BLK_OUT, BLK_FLUSH, BLK_GET_ID, BLK_DISCARD, BLK_WRITE_ZEROES, 99 };
    DiskQueue *queue = &machine->disk.queues[0];
    BlkHeader header = { .type = types[g_test_rand_int_range(0, G_N_ELEMENTS(types))],
                         .sector = g_test_rand_int_range(0, 2200) };

    memcpy(machine->memory.host + HEADER, &header, sizeof(header));
    for (unsigned i = 0; i < DISK_QUEUE_SIZE; i++) {
        draw_desc(&queue->desc[i]);
        draw_desc(&table_in_memory(machine)[i]);
        queue->avail->ring[i] = g_test_rand_int_range(0, DISK_QUEUE_SIZE);
    }
    /* A start that looks like a request gets further. */
    queue->desc[0] = (Desc){ HEADER, 16, DESC_NEXT, 1 };
    queue->desc[1].addr = DATA;
    queue->desc[2] = (Desc){ STATUS_BYTE, 1, DESC_WRITE, 0 };
    queue->avail->ring[0] = 0;
}

static void test_random_rings(void)
{
    Machine *machine = start(ALL_FEATURES);

    for (unsigned i = 0; i < 400; i++) {
        memset(machine->disk.queues, 0, sizeof(machine->disk.queues));
        machine->used = 4096;
        g_assert_cmpstr(disk_start(&machine->disk, ALL_FEATURES, 1), ==, NULL);
        draw_rings(machine);
        __atomic_store_n(&machine->disk.queues[0].avail->idx, g_test_rand_int_range(1, DISK_QUEUE_SIZE + 2),
                         __ATOMIC_RELEASE);
        machine_set(machine, MMIO_QUEUE_NOTIFY, 0);
        if (i % 2) {
            g_usleep(50);
        }
        machine_set(machine, MMIO_STATUS, 0);
    }
    assert_works_after_reset(machine);
    machine_free(machine, false);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(chain_cases); i++) {
        g_autofree char *name = g_strdup_printf("/minivmm/hostile/chain: %s", chain_cases[i].what);

        g_test_add_data_func(name, &chain_cases[i], test_chain);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(setup_cases); i++) {
        g_autofree char *name = g_strdup_printf("/minivmm/hostile/setup: %s", setup_cases[i].what);

        g_test_add_data_func(name, &setup_cases[i], test_setup);
    }
    g_test_add_func("/minivmm/hostile/a request that begins outside of the table", test_head);
    g_test_add_func("/minivmm/hostile/more requests than the ring has places", test_available_index);
    g_test_add_func("/minivmm/hostile/an indirect descriptor that was not negotiated", test_indirect_not_negotiated);
    g_test_add_func("/minivmm/hostile/one descriptor in flight many times", test_same_head);
    g_test_add_func("/minivmm/hostile/a request of more than the device takes", test_huge_request);
    g_test_add_func("/minivmm/hostile/DRIVER_OK without FEATURES_OK", test_driver_ok_too_early);
    g_test_add_func("/minivmm/hostile/a queue cannot change while it is ready", test_ready_queue_is_fixed);
    g_test_add_func("/minivmm/hostile/any access to any register", test_random_registers);
    g_test_add_func("/minivmm/hostile/rings full of noise", test_random_rings);
    return g_test_run();
}
