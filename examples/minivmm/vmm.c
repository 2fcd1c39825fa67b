/* SPDX-License-Identifier: MIT */
#include "vmm.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/virtio_mmio.h>
#include <string.h>
#include <unistd.h>

bool vmm_init(Vmm *vmm, uint64_t ram_bytes, GError **errp)
{
    *vmm = (Vmm){ 0 };
    if (!guest_memory_init(&vmm->memory, ram_bytes)) {
        g_set_error(errp, BDRV_ERROR, errno, "no %" PRIu64 " bytes of memory for the guest: %s", ram_bytes,
                    g_strerror(errno));
        return false;
    }
    vmm->graph = bdrv_graph_new();
    /* Who runs a VMM for others names the backing files that are allowed instead. */
    bdrv_graph_set_opener_gate(vmm->graph, bdrv_gate_local, NULL);
    return true;
}

bool vmm_clear(Vmm *vmm, GError **errp)
{
    GError *first = NULL;

    for (unsigned i = 0; i < vmm->disk_count; i++) {
        virtio_blk_free(vmm->disks[i].device);
        blk_close(vmm->disks[i].blk, first ? NULL : &first);
    }
    g_clear_pointer(&vmm->graph, bdrv_graph_unref);
    guest_memory_clear(&vmm->memory);
    if (first) {
        g_propagate_error(errp, first);
        return false;
    }
    return true;
}

static void tell_why(void *opaque, const char *reason)
{
    VmmDisk *disk = opaque;

    g_printerr("vmm: %s: device needs a reset: %s\n", blk_filename(disk->blk), reason);
}

bool vmm_add_disk(Vmm *vmm, const char *text, unsigned queues, unsigned io_threads, GError **errp)
{
    VmmDisk *disk = &vmm->disks[vmm->disk_count];
    g_autofree char *serial = g_strdup_printf("minivmm-%u", vmm->disk_count);
    VirtioBlkConfig config = { .serial = serial, .queues = queues, .io_threads = io_threads };
    BdrvOptions *options;

    if (vmm->disk_count == BOOT_MAX_DISKS) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "more than %d disks", BOOT_MAX_DISKS);
        return false;
    }
    options = bdrv_options_parse(text, NULL, errp);
    if (!options) {
        return false;
    }
    disk->blk = blk_open(vmm->graph, NULL, options, BDRV_O_RDWR | BDRV_O_UNMAP, errp);
    if (!disk->blk) {
        return false;
    }
    disk->device = virtio_blk_new(disk->blk, &vmm->memory, &config, errp);
    if (!disk->device) {
        blk_close(disk->blk, NULL);
        return false;
    }
    virtio_blk_mmio(disk->device)->on_break = tell_why;
    virtio_blk_mmio(disk->device)->break_opaque = disk;
    vmm->disk_count++;
    return true;
}

bool vmm_set_boot(Vmm *vmm, char *const *words, GError **errp)
{
    BootInfo *info = guest_memory_range(&vmm->memory, BOOT_INFO_ADDRESS, sizeof(*info));

    *info = (BootInfo){ .ram_bytes = vmm->memory.bytes, .disk_count = vmm->disk_count };
    if (g_strlcpy(info->scenario, words[0], sizeof(info->scenario)) >= sizeof(info->scenario)) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "scenario '%s' has more than %zu letters", words[0],
                    sizeof(info->scenario) - 1);
        return false;
    }
    for (unsigned i = 0; words[1 + i]; i++) {
        guint64 number;

        if (i == BOOT_MAX_ARGUMENTS) {
            g_set_error(errp, BDRV_ERROR, EINVAL, "a scenario takes at most %d numbers", BOOT_MAX_ARGUMENTS);
            return false;
        }
        if (!g_ascii_string_to_unsigned(words[1 + i], 10, 0, UINT32_MAX, &number, errp)) {
            return false;
        }
        info->arguments[info->argument_count++] = number;
    }
    return true;
}

bool vmm_load(Vmm *vmm, const char *filename, GError **errp)
{
    g_autofree char *program = NULL;
    size_t bytes;
    void *to;

    if (!g_file_get_contents(filename, &program, &bytes, errp)) {
        return false;
    }
    to = guest_memory_range(&vmm->memory, BOOT_GUEST_ADDRESS, bytes);
    if (!to) {
        g_set_error(errp, BDRV_ERROR, EFBIG, "%s: %zu bytes do not fit into memory", filename, bytes);
        return false;
    }
    memcpy(to, program, bytes);
    return true;
}

/* ---- accesses of the guest ---- */

/* The disk whose registers have all of the access, and where in them. */
static VirtioMmio *find_registers(Vmm *vmm, uint64_t address, unsigned bytes, uint64_t *offset)
{
    uint64_t index;

    if (address < BOOT_DISK_BASE) {
        return NULL;
    }
    index = (address - BOOT_DISK_BASE) / BOOT_DISK_STRIDE;
    *offset = (address - BOOT_DISK_BASE) % BOOT_DISK_STRIDE;
    if (index >= vmm->disk_count || *offset + bytes > VIRTIO_MMIO_BYTES) {
        return NULL;
    }
    return virtio_blk_mmio(vmm->disks[index].device);
}

void vmm_mmio_read(Vmm *vmm, uint64_t address, void *data, unsigned bytes)
{
    uint64_t offset;
    VirtioMmio *mmio = find_registers(vmm, address, bytes, &offset);

    if (mmio) {
        virtio_mmio_read(mmio, offset, data, bytes);
    } else {
        memset(data, 0xff, bytes);
    }
}

void vmm_mmio_write(Vmm *vmm, uint64_t address, const void *data, unsigned bytes)
{
    uint64_t offset;
    VirtioMmio *mmio = find_registers(vmm, address, bytes, &offset);

    if (mmio) {
        virtio_mmio_write(mmio, offset, data, bytes);
    }
}

/* One write(2) a line: what was reported before a kill is there. */
void vmm_report(Vmm *vmm, const char *text)
{
    g_autoptr(GString) line = g_string_new("guest: ");
    unsigned used = 0;
    ssize_t ignored;

    for (; *text; text++) {
        if (*text == '%' && used < vmm->number_count) {
            g_string_append_printf(line, "%" PRIu32, vmm->numbers[used++]);
        } else {
            g_string_append_c(line, g_ascii_isprint(*text) ? *text : '?');
        }
    }
    g_string_append_c(line, '\n');
    ignored = write(STDOUT_FILENO, line->str, line->len);
    (void)ignored;
    vmm->number_count = 0;
}

/* @address comes from the guest: at most so many bytes, and none beyond memory. */
static void report_at(Vmm *vmm, uint32_t address)
{
    char text[REPORT_MAX_BYTES + 1];
    unsigned n = 0;

    for (; n < REPORT_MAX_BYTES; n++) {
        const char *byte = guest_memory_range(&vmm->memory, (uint64_t)address + n, 1);

        if (!byte || !*byte) {
            break;
        }
        text[n] = *byte;
    }
    text[n] = '\0';
    vmm_report(vmm, text);
}

void vmm_port_write(Vmm *vmm, uint16_t port, uint32_t value)
{
    switch (port) {
    case PORT_NUMBER:
        if (vmm->number_count < REPORT_MAX_NUMBERS) {
            vmm->numbers[vmm->number_count++] = value;
        }
        break;
    case PORT_REPORT:
        report_at(vmm, value);
        break;
    case PORT_EXIT:
        vmm->exited = true;
        vmm->exit_code = value;
        break;
    }
}

int vmm_pending_vector(Vmm *vmm)
{
    for (unsigned i = 0; i < vmm->disk_count; i++) {
        if (virtio_mmio_line(virtio_blk_mmio(vmm->disks[i].device))) {
            return BOOT_VECTOR + i;
        }
    }
    return -1;
}

void vmm_stop_disks(Vmm *vmm)
{
    uint32_t none = 0;

    for (unsigned i = 0; i < vmm->disk_count; i++) {
        virtio_mmio_write(virtio_blk_mmio(vmm->disks[i].device), VIRTIO_MMIO_STATUS, &none, sizeof(none));
    }
}

void vmm_set_interrupt(Vmm *vmm, void (*changed)(void *opaque), void *opaque)
{
    for (unsigned i = 0; i < vmm->disk_count; i++) {
        virtio_mmio_on_interrupt(virtio_blk_mmio(vmm->disks[i].device), changed, opaque);
    }
}
