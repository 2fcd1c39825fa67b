/* SPDX-License-Identifier: MIT */
#include "monitor.h"

#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>

#define RAM_BYTES (16u << 20)

typedef struct Arguments {
    char **drives;
    int queues, io_threads;
    char *accel, *guest;
    gboolean no_ioeventfd, monitor, stats, probe;
    char **scenario; /* and its numbers */
} Arguments;

static bool parse(Arguments *arguments, int argc, char **argv, GError **errp)
{
    const GOptionEntry entries[] = {
        { "drive", 'd', 0, G_OPTION_ARG_STRING_ARRAY, &arguments->drives,
          "A disk, as options of the library: driver=qcow2,file.filename=disk.qcow2 (up to 4)", "OPTIONS" },
        { "queues", 'q', 0, G_OPTION_ARG_INT, &arguments->queues, "Virtqueues of each disk, 1 to 8 (2)", "N" },
        { "io-threads", 't', 0, G_OPTION_ARG_INT, &arguments->io_threads, "I/O threads of each disk (1)", "N" },
        { "accel", 'a', 0, G_OPTION_ARG_STRING, &arguments->accel,
          "kvm, or process: run the guest's program in this process", "ACCEL" },
        { "guest", 'g', 0, G_OPTION_ARG_FILENAME, &arguments->guest,
          "Another program than guest/guest.bin beside this one; runs at 1 MiB in 32-bit protected mode", "FILE" },
        { "no-ioeventfd", 0, 0, G_OPTION_ARG_NONE, &arguments->no_ioeventfd, "Let every notification be an exit",
          NULL },
        { "monitor", 'm', 0, G_OPTION_ARG_NONE, &arguments->monitor,
          "Take commands from standard input while the guest runs: resize DISK SIZE", NULL },
        { "stats", 's', 0, G_OPTION_ARG_NONE, &arguments->stats, "Say at the end what each disk was asked", NULL },
        { "probe", 'p', 0, G_OPTION_ARG_NONE, &arguments->probe, "Only see whether KVM runs a guest here", NULL },
        { G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_STRING_ARRAY, &arguments->scenario, NULL, NULL },
        { NULL },
    };
    g_autoptr(GOptionContext) context = g_option_context_new("SCENARIO [NUMBER…]");

    g_option_context_set_summary(context, "Run a small guest whose virtio disks are images of libbdrv.\n\n"
        "Scenarios: info; verify CHUNKS SEED; zeroes SEED; errors COUNT; hostile;\n"
        "records FIRST COUNT [AT_ONCE]; check FIRST COUNT; grow");
    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, errp)) {
        return false;
    }
    if (!arguments->accel) {
        arguments->accel = g_strdup("kvm");
    }
    if (!arguments->scenario && !arguments->probe) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "no scenario; try --help");
        return false;
    }
    if (strcmp(arguments->accel, "kvm") && strcmp(arguments->accel, "process")) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "accel '%s' is neither kvm nor process", arguments->accel);
        return false;
    }
    return true;
}

static bool add_disks(Vmm *vmm, const Arguments *arguments, GError **errp)
{
    for (unsigned i = 0; arguments->drives && arguments->drives[i]; i++) {
        if (!vmm_add_disk(vmm, arguments->drives[i], arguments->queues, arguments->io_threads, errp)) {
            return false;
        }
    }
    return true;
}

static bool load_guest(Vmm *vmm, const Arguments *arguments, GError **errp)
{
    g_autofree char *self = NULL, *directory = NULL, *beside = NULL;

    if (arguments->guest) {
        return vmm_load(vmm, arguments->guest, errp);
    }
    self = g_file_read_link("/proc/self/exe", errp);
    if (!self) {
        return false;
    }
    directory = g_path_get_dirname(self);
    beside = g_build_filename(directory, "guest", "guest.bin", NULL);
    return vmm_load(vmm, beside, errp);
}

/* A guest that counts to 1000 and is done. */
static bool probe(Vmm *vmm, GError **errp)
{
    static const uint8_t program[] = {
        0xb8, 0xe8, 0x03, 0x00, 0x00, /* mov $1000, %eax */
        0x48, 0x75, 0xfd,             /* 1: dec %eax; jnz 1b */
        0xe7, PORT_EXIT,              /* out %eax, $PORT_EXIT */
    };
    gint64 begin = g_get_monotonic_time();

    memcpy(guest_memory_range(&vmm->memory, BOOT_GUEST_ADDRESS, sizeof(program)), program, sizeof(program));
    if (!kvm_run(vmm, false, errp)) {
        return false;
    }
    printf("KVM runs a guest: 2000 instructions in %" PRId64 " us\n", g_get_monotonic_time() - begin);
    return true;
}

static bool run_guest(Vmm *vmm, const Arguments *arguments, GError **errp)
{
    if (strcmp(arguments->accel, "kvm") == 0) {
        return load_guest(vmm, arguments, errp) && kvm_run(vmm, !arguments->no_ioeventfd, errp);
    }
    return process_run(vmm, errp);
}

static bool run(Vmm *vmm, const Arguments *arguments, GError **errp)
{
    Monitor *monitor = NULL;
    bool ok;

    if (arguments->probe) {
        return probe(vmm, errp);
    }
    if (!add_disks(vmm, arguments, errp) || !vmm_set_boot(vmm, arguments->scenario, errp)) {
        return false;
    }
    if (arguments->monitor && !(monitor = monitor_start(vmm, errp))) {
        return false;
    }
    ok = run_guest(vmm, arguments, errp);
    monitor_stop(monitor);
    return ok;
}

static void tell_stats(Vmm *vmm)
{
    for (unsigned i = 0; i < vmm->disk_count; i++) {
        VirtioBlkStats stats = virtio_blk_stats(vmm->disks[i].device);

        printf("disk %u: %" PRIu64 " reads, %" PRIu64 " writes, %" PRIu64 " flushes, %" PRIu64 " discards, %" PRIu64
               " write-zeroes, %" PRIu64 " others, %" PRIu64 " errors\n",
               i, stats.reads, stats.writes, stats.flushes, stats.discards, stats.write_zeroes, stats.others,
               stats.errors);
    }
}

int main(int argc, char **argv)
{
    Arguments arguments = { .queues = 2, .io_threads = 1 };
    g_autoptr(GError) error = NULL;
    Vmm vmm;
    bool ok;

    setlocale(LC_ALL, "");
    ok = parse(&arguments, argc, argv, &error) && vmm_init(&vmm, RAM_BYTES, &error);
    if (ok) {
        ok = run(&vmm, &arguments, &error);
        if (arguments.stats) {
            tell_stats(&vmm);
        }
        ok = vmm_clear(&vmm, ok ? &error : NULL) && ok;
    }
    g_strfreev(arguments.drives);
    g_strfreev(arguments.scenario);
    g_free(arguments.accel);
    g_free(arguments.guest);
    if (!ok) {
        fprintf(stderr, "minivmm: %s\n", error->message);
        return 1;
    }
    return MIN(vmm.exit_code, 255);
}
