/* SPDX-License-Identifier: MIT */
/* The files of an image: a disk in memory below each child. */
#include "tools/driver-test/kit.h"

#include "tools/common/tool.h"

#define PREFIX "simdisk:"

static char *new_name(void)
{
    static unsigned number;

    return g_strdup_printf("kit-%u", number++);
}

static void set_file(KitDisk *disk, unsigned child, BdrvSimDisk *sim, const char *name)
{
    disk->files[child] = (KitFile){ .sim = sim, .filename = g_strconcat(PREFIX, name, NULL) };
    disk->filenames[child] = disk->files[child].filename;
}

static KitDisk *new_disk(const Kit *kit)
{
    KitDisk *disk = g_new0(KitDisk, 1);

    disk->kit = kit;
    disk->graph = bdrv_graph_new();
    bdrv_graph_set_opener_gate(disk->graph, bdrv_gate_list, disk->filenames);
    tool_give_objects(disk->graph);
    disk->rand = g_rand_new_with_seed((guint32)kit->seed);
    return disk;
}

/* It ends before the disk. */
int64_t kit_backing_bytes(const Kit *kit)
{
    return kit->size * 3 / 4 / 512 * 512;
}

uint8_t kit_backing_byte(int64_t at)
{
    return (uint8_t)(1 + (at / 512 * 11 + at) % 255);
}

static void fill_backing(const Kit *kit, BdrvSimDisk *sim)
{
    int64_t bytes = kit_backing_bytes(kit);
    g_autofree uint8_t *content = g_malloc((gsize)bytes);

    for (int64_t i = 0; i < bytes; i++) {
        content[i] = kit_backing_byte(i);
    }
    bdrv_simdisk_poke(sim, 0, content, (size_t)bytes);
}

KitDisk *kit_disk_blank(const Kit *kit)
{
    KitDisk *disk = new_disk(kit);

    for (unsigned i = 0; i < kit->n_children; i++) {
        g_autofree char *name = new_name();

        set_file(disk, i, bdrv_simdisk_new(name, 0), name);
        if (kit->children[i].role == BDRV_CHILD_COW) {
            fill_backing(kit, disk->files[i].sim);
        }
    }
    return disk;
}

static void copy_model(KitDisk *disk, const KitDisk *like)
{
    disk->length = like->length;
    disk->model = like->model ? g_memdup2(like->model, (gsize)like->length) : NULL;
}

KitDisk *kit_disk_like(const KitDisk *like)
{
    KitDisk *disk = kit_disk_blank(like->kit);

    copy_model(disk, like);
    return disk;
}

static void free_file(KitFile *file)
{
    const char *name = file->filename + strlen(PREFIX);

    bdrv_simdisk_forget(name);
    bdrv_simdisk_unref(file->sim);
    if (bdrv_simdisk_find(name)) {
        kit_fail("all is closed, and somebody still has a reference to the file");
    }
    g_free(file->filename);
}

void kit_disk_free(KitDisk *disk)
{
    g_autofree char *left = NULL;

    if (disk->blk) {
        kit_close(disk);
    }
    left = bdrv_graph_to_text(disk->graph);
    if (*left) {
        kit_fail("all is closed, and these nodes are left: the driver has kept a reference\n%s", left);
    }
    bdrv_graph_unref(disk->graph);
    for (unsigned i = 0; i < disk->kit->n_children; i++) {
        free_file(&disk->files[i]);
    }
    g_rand_free(disk->rand);
    g_free(disk->model);
    g_free(disk);
}

uint64_t kit_calls(const KitDisk *disk, unsigned kinds)
{
    uint64_t calls = 0;

    for (unsigned i = 0; i < disk->kit->n_children; i++) {
        calls += bdrv_simdisk_count(disk->files[i].sim, kinds);
    }
    return calls;
}

void kit_fail_none(KitDisk *disk)
{
    for (unsigned i = 0; i < disk->kit->n_children; i++) {
        bdrv_simdisk_set_capacity(disk->files[i].sim, -1);
        bdrv_simdisk_fail_none(disk->files[i].sim);
    }
}

void kit_set_hook(KitDisk *disk, BdrvSimHook *hook, void *opaque)
{
    for (unsigned i = 0; i < disk->kit->n_children; i++) {
        bdrv_simdisk_set_hook(disk->files[i].sim, hook, opaque);
    }
}

/* ---- saved states ---- */

KitSaved *kit_save(const KitDisk *disk)
{
    KitSaved *saved = g_new0(KitSaved, 1);

    for (unsigned i = 0; i < disk->kit->n_children; i++) {
        saved->files[i] = bdrv_simdisk_save(disk->files[i].sim);
    }
    return saved;
}

void kit_restore(KitDisk *disk, const KitSaved *saved)
{
    for (unsigned i = 0; i < disk->kit->n_children; i++) {
        bdrv_simdisk_restore(disk->files[i].sim, saved->files[i]);
    }
}

void kit_saved_free(KitSaved *saved)
{
    for (unsigned i = 0; i < KIT_MOST_CHILDREN; i++) {
        g_clear_pointer(&saved->files[i], bdrv_simsaved_free);
    }
    g_free(saved);
}

/* ---- power losses ---- */

KitCut *kit_cut(const KitDisk *disk)
{
    KitCut *cut = g_new0(KitCut, 1);

    for (unsigned i = 0; i < disk->kit->n_children; i++) {
        cut->files[i] = bdrv_simdisk_cut(disk->files[i].sim);
    }
    return cut;
}

void kit_cut_free(KitCut *cut)
{
    for (unsigned i = 0; i < KIT_MOST_CHILDREN; i++) {
        g_clear_pointer(&cut->files[i], bdrv_simcut_unref);
    }
    g_free(cut);
}

static BdrvSimDisk *file_after(const BdrvSimCut *cut, KitFate fate, uint64_t seed, const char *name)
{
    unsigned count = bdrv_simcut_count(cut);
    g_autofree BdrvSimChoice *choices = g_new0(BdrvSimChoice, count + 1);

    for (unsigned i = 0; i < count; i++) {
        choices[i].fate = fate == KIT_KEPT ? BDRV_SIM_KEPT : BDRV_SIM_LOST;
    }
    if (fate == KIT_MIXED) {
        bdrv_simcut_random(cut, seed, choices);
    }
    return bdrv_simcut_disk(cut, choices, name);
}

KitDisk *kit_disk_after(const KitDisk *like, const KitCut *cut, KitFate fate, uint64_t seed)
{
    KitDisk *disk = new_disk(like->kit);

    for (unsigned i = 0; i < disk->kit->n_children; i++) {
        g_autofree char *name = new_name();

        set_file(disk, i, file_after(cut->files[i], fate, seed + i, name), name);
    }
    copy_model(disk, like);
    return disk;
}
