/* SPDX-License-Identifier: MIT */
#include "machine.h"

#include <glib/gstdio.h>
#include <string.h>

/* ---- the platform of the driver ---- */

static Machine *machine_of(Platform *platform)
{
    return (Machine *)platform;
}

uint32_t platform_read(Platform *platform, uint32_t address, unsigned bytes)
{
    uint32_t value = 0;

    virtio_mmio_read(virtio_blk_mmio(machine_of(platform)->device), address - MACHINE_DEVICE, &value, bytes);
    return value;
}

void platform_write(Platform *platform, uint32_t address, uint32_t value)
{
    virtio_mmio_write(virtio_blk_mmio(machine_of(platform)->device), address - MACHINE_DEVICE, &value, 4);
}

void *platform_alloc(Platform *platform, uint32_t bytes, uint32_t align)
{
    Machine *machine = machine_of(platform);
    uint64_t at = (machine->used + align - 1) / align * align;

    g_assert_nonnull(guest_memory_range(&machine->memory, at, bytes));
    machine->used = at + bytes;
    return machine->memory.host + at;
}

uint64_t platform_address(Platform *platform, const void *memory)
{
    return (const uint8_t *)memory - machine_of(platform)->memory.host;
}

static void interrupt_changed(void *opaque)
{
    Machine *machine = opaque;

    pthread_mutex_lock(&machine->lock);
    pthread_cond_broadcast(&machine->changed);
    pthread_mutex_unlock(&machine->lock);
}

void platform_wait(Platform *platform, uint32_t device)
{
    Machine *machine = machine_of(platform);

    if (!device) {
        g_usleep(20);
        return;
    }
    pthread_mutex_lock(&machine->lock);
    while (!virtio_mmio_line(virtio_blk_mmio(machine->device))) {
        pthread_cond_wait(&machine->changed, &machine->lock);
    }
    pthread_mutex_unlock(&machine->lock);
    machine_set(machine, MMIO_INTERRUPT_ACK, machine_get(machine, MMIO_INTERRUPT_STATUS));
}

/* ---- the machine ---- */

uint32_t machine_get(Machine *machine, uint32_t reg)
{
    return platform_read((Platform *)machine, MACHINE_DEVICE + reg, 4);
}

void machine_set(Machine *machine, uint32_t reg, uint32_t value)
{
    platform_write((Platform *)machine, MACHINE_DEVICE + reg, value);
}

char *machine_path(const Machine *machine, const char *name)
{
    return g_build_filename(machine->directory, name, NULL);
}

void machine_create(Machine *machine, const char *format, const char *name, const char *options)
{
    g_autofree char *path = machine_path(machine, name);
    GError *error = NULL;

    bdrv_create_image(machine->graph, format, path, bdrv_options_parse(options, NULL, &error), &error);
    g_assert_no_error(error);
}

Machine *machine_new(void (*make)(Machine *machine), const char *drive, unsigned queues, unsigned io_threads)
{
    Machine *machine = g_new0(Machine, 1);
    VirtioBlkConfig config = { .serial = "a serial number of 30 letters", .queues = queues, .io_threads = io_threads };
    g_autoptr(GString) text = g_string_new(drive);
    GError *error = NULL;
    BdrvOptions *options;

    g_assert_true(guest_memory_init(&machine->memory, MACHINE_RAM));
    machine->used = 4096;
    pthread_mutex_init(&machine->lock, NULL);
    pthread_cond_init(&machine->changed, NULL);
    machine->graph = bdrv_graph_new();
    bdrv_graph_set_opener_gate(machine->graph, bdrv_gate_local, NULL);
    machine->directory = g_dir_make_tmp("bdrv-minivmm-XXXXXX", &error);
    g_assert_no_error(error);
    if (make) {
        make(machine);
    }
    g_string_replace(text, "%s", machine->directory, 0);
    options = bdrv_options_parse(text->str, NULL, &error);
    g_assert_no_error(error);
    machine->blk = blk_open(machine->graph, NULL, options, BDRV_O_RDWR | BDRV_O_UNMAP, &error);
    g_assert_no_error(error);
    machine->device = virtio_blk_new(machine->blk, &machine->memory, &config, &error);
    g_assert_no_error(error);
    virtio_mmio_on_interrupt(virtio_blk_mmio(machine->device), interrupt_changed, machine);
    machine->disk = (Disk){ .platform = (Platform *)machine, .base = MACHINE_DEVICE };
    return machine;
}

static void remove_directory(const char *path)
{
    GDir *dir = g_dir_open(path, 0, NULL);
    const char *name;

    while ((name = g_dir_read_name(dir))) {
        g_autofree char *file = g_build_filename(path, name, NULL);

        g_unlink(file);
    }
    g_dir_close(dir);
    g_rmdir(path);
}

void machine_free(Machine *machine, bool may_fail)
{
    GError *error = NULL;

    virtio_blk_free(machine->device);
    blk_close(machine->blk, &error);
    if (!may_fail) {
        g_assert_no_error(error);
    }
    g_clear_error(&error);
    bdrv_graph_unref(machine->graph);
    remove_directory(machine->directory);
    g_free(machine->directory);
    guest_memory_clear(&machine->memory);
    pthread_mutex_destroy(&machine->lock);
    pthread_cond_destroy(&machine->changed);
    g_free(machine);
}

DiskRequest *machine_request(Machine *machine, uint32_t type, uint64_t sector, uint32_t bytes, int fill)
{
    DiskRequest *request = platform_alloc((Platform *)machine, sizeof(*request), 16);

    *request = (DiskRequest){ .type = type, .sector = sector, .bytes = bytes };
    request->data = platform_alloc((Platform *)machine, bytes, 1);
    memset(request->data, fill, bytes);
    return request;
}
