/* SPDX-License-Identifier: MIT */
/* Moving blocks inside the file. A copy is durable before the map points at it, and no original is used before that. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>


#include "drivers/vdi/vdi.h"

int coroutine_fn vdi_copy_place(BlockDriverState *bs, uint32_t from, uint32_t to)
{
    const VdiState *s = bs->opaque;
    int64_t left = s->header.block_size;
    int64_t source = vdi_host_offset(&s->header, from), target = vdi_host_offset(&s->header, to);
    int64_t chunk = MIN(left, 1024 * 1024);
    void *buf = bdrv_try_blockalign(bs, (size_t)chunk);
    int ret = buf ? 0 : -ENOMEM;

    for (; ret >= 0 && left > 0; left -= chunk, source += chunk, target += chunk) {
        chunk = MIN(left, chunk);
        ret = bdrv_co_pread(bs->file, source, chunk, buf, 0);
        if (ret >= 0) {
            ret = bdrv_co_pwrite(bs->file, target, chunk, buf, 0);
        }
    }
    bdrv_vfree(buf);
    return ret;
}

typedef struct Taken {
    uint32_t place, block;
} Taken;

static int by_place(const void *a, const void *b)
{
    uint32_t x = ((const Taken *)a)->place, y = ((const Taken *)b)->place;

    return x < y ? -1 : x > y;
}

static GArray *list_taken(const VdiState *s)
{
    GArray *list = g_array_new(FALSE, FALSE, sizeof(Taken));

    for (uint32_t i = 0; i < s->header.blocks; i++) {
        Taken taken = { .place = vdi_entry(s, i), .block = i };
        if (taken.place < VDI_ENTRY_ZERO) {
            g_array_append_val(list, taken);
        }
    }
    if (list->len == 0) {
        return list;
    }
    qsort(list->data, list->len, sizeof(Taken), by_place);
    return list;
}

/* As many places as blocks are taken then, from the first on. Entries change when all copies are there. */
static int coroutine_fn fill_holes(BlockDriverState *bs, GArray *list)
{
    Taken *taken = (Taken *)list->data;
    guint last = list->len, n = 0;
    g_autofree Taken *moved = g_new(Taken, list->len + 1);
    uint32_t count = 0;

    for (uint32_t place = 0; place < list->len; place++) {
        if (n < last && taken[n].place == place) {
            n++;
            continue;
        }
        last--;
        int ret = vdi_copy_place(bs, taken[last].place, place);
        if (ret < 0) {
            return ret;
        }
        moved[count++] = (Taken){ .place = place, .block = taken[last].block };
    }
    for (uint32_t i = 0; i < count; i++) {
        vdi_set_entry(bs->opaque, moved[i].block, moved[i].place);
    }
    return 0;
}

int coroutine_fn vdi_compact(BlockDriverState *bs)
{
    VdiState *s = bs->opaque;
    g_autoptr(GArray) list = list_taken(s);
    uint32_t used = list->len;

    /* Neither the old places nor the holes are for anybody else until the map is durable. */
    pthread_mutex_lock(&s->lock);
    g_array_set_size(s->holes, 0);
    pthread_mutex_unlock(&s->lock);
    int ret = fill_holes(bs, list);
    if (ret >= 0) {
        ret = vdi_commit(bs);
    }
    if (ret < 0) {
        return ret;
    }
    VdiHeader header = s->header;
    header.blocks_in_file = used;
    ret = vdi_write_header(bs, &header);
    pthread_mutex_lock(&s->lock);
    s->next = ret >= 0 ? used : s->next;
    pthread_mutex_unlock(&s->lock);
    /* That the file stays longer is no harm: what is there is overwritten when it is taken. */
    if (ret >= 0) {
        bdrv_co_truncate(bs->file, vdi_host_offset(&s->header, used), true, BDRV_PREALLOC_OFF, 0, NULL);
    }
    return ret;
}
