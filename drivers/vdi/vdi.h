/* SPDX-License-Identifier: MIT */
#ifndef BDRV_VDI_VDI_H
#define BDRV_VDI_VDI_H

/*
 * VDI, the disk images of VirtualBox. A file is
 *
 *     header (512 bytes)  block map (4 bytes for each guest block)  blocks of the same size, one after the other
 *
 * all little-endian. An entry of the map is the index of the guest block's place in the file, or says that the block
 * is free: it reads as zeroes. The header counts the places taken; the next one to be taken has this number.
 * In a fixed image every block has its place from the beginning.
 *
 * vdi.c has the table, header.c the header's bytes, map.c the map and what makes it durable, io.c the requests.
 * Only the public driver API is used: <bdrv/...>.
 */

#include <bdrv/driver.h>
#include <pthread.h>
#include <stdatomic.h>

#define VDI_SECTOR 512
#define VDI_ENTRIES_PER_SECTOR (VDI_SECTOR / 4)
#define VDI_SIGNATURE 0xbeda107fu
#define VDI_TYPE_DYNAMIC 1
#define VDI_TYPE_FIXED 2
#define VDI_BLOCK_SIZE (1024 * 1024)
#define VDI_MIN_BLOCK_SIZE 512
#define VDI_MAX_BLOCK_SIZE (256 * 1024 * 1024)
/* The whole map is in memory. */
#define VDI_MAX_BLOCKS (128u * 1024 * 1024 / 4)

/* Entries from here on have no place in the file. */
#define VDI_ENTRY_ZERO 0xfffffffeu
#define VDI_ENTRY_FREE 0xffffffffu
#define VDI_MAX_INDEX 0xfffffffdu

typedef struct VdiHeader {
    uint32_t type;
    uint32_t map_offset, data_offset; /* bytes */
    uint64_t disk_size;               /* bytes */
    uint32_t block_size;
    uint32_t blocks;          /* entries of the map */
    uint32_t blocks_in_file;  /* places taken */
    uint8_t bytes[VDI_SECTOR]; /* as in the file; what is not above stays as it is */
} VdiHeader;

/* What the map says, entry by entry, is wrong with it. */
typedef struct VdiDamage {
    uint32_t outside; /* entries that lie past the end of the file */
    uint32_t shared;  /* entries whose place an earlier one has */
} VdiDamage;

typedef struct VdiState {
    VdiHeader header; /* blocks_in_file: as the file has it; lock */
    _Atomic uint32_t *map; /* header.blocks entries; changed with the lock, replaced while drained */
    VdiDamage damage;      /* as it was loaded */
    uint32_t index_limit;  /* first entry that lay outside then */
    bool blind;            /* looking at the image anew failed */
    _Atomic bool header_in_doubt; /* a write of it failed: the file has @header or another one */

    CoRangeLock allocating; /* guest blocks that get their place */
    CoMutex commit_lock;    /* who makes the map durable; before lock */

    pthread_mutex_t lock; /* short */
    uint32_t next;        /* lock: no place from here on is taken */
    GArray *holes;        /* lock: uint32_t, places below that nobody has */
    uint8_t *dirty;       /* lock: for each sector of the map, whether the file has it as it is here */
} VdiState;

/* A guest range that lies in one piece, in the file or nowhere. */
typedef struct VdiExtent {
    int64_t bytes;
    int64_t host_offset; /* -1: free */
    bool outside;        /* the file had ended before it when the image was opened */
} VdiExtent;

/* ---- header.c: bytes, no I/O ---- */

bool vdi_probe_header(const uint8_t *buf, size_t size);
/** vdi_decode_header() - from its first sector; EINVAL or ENOTSUP names field and value */
bool vdi_decode_header(const uint8_t *buf, int64_t file_length, VdiHeader *header, GError **errp);
/** vdi_encode_header() - put the fields into header->bytes */
void vdi_encode_header(VdiHeader *header);
/** vdi_new_header() - of a new image of @type whose blocks have a place if @placed; false: EINVAL, EFBIG */
bool vdi_new_header(int64_t disk_size, int64_t block_size, uint32_t type, bool placed, VdiHeader *header, GError **errp);
int64_t vdi_map_bytes(uint32_t blocks); /* in the file: whole sectors */

static inline int64_t vdi_host_offset(const VdiHeader *header, uint32_t index)
{
    return header->data_offset + (int64_t)index * header->block_size;
}

/* ---- map.c ---- */

/** vdi_load() - read header and map; what @s had is replaced, on failure it is left alone */
bool coroutine_fn vdi_load(BlockDriverState *bs, VdiState *s, GError **errp);
void vdi_unload(VdiState *s);
/** vdi_count_places() - that lie in a file of this length, the last one maybe in part */
uint32_t vdi_count_places(const VdiHeader *header, int64_t file_length);
/** vdi_check_writable() - whether the map is sound enough to be written by */
bool vdi_check_writable(const VdiState *s, GError **errp);
/** vdi_entry() - of a guest block */
uint32_t vdi_entry(const VdiState *s, uint32_t block);
/** vdi_lookup() - where @offset is, and how far that goes, at most @bytes */
VdiExtent vdi_lookup(const VdiState *s, int64_t offset, int64_t bytes);
/** vdi_take_place() - index of a free place, -ENOSPC if there is none; for vdi_set_entry() or vdi_give_place() */
int64_t vdi_take_place(VdiState *s);
void vdi_give_place(VdiState *s, uint32_t index);
/** vdi_set_entry() - from now on the block is there, durably with the next vdi_commit(); its content is written */
void vdi_set_entry(VdiState *s, uint32_t block, uint32_t entry);
/** vdi_commit() - what has been written becomes durable, and the entries that point at it after that */
int coroutine_fn vdi_commit(BlockDriverState *bs);
/** vdi_settle_header() - if it is in doubt, make the file have the state's; before a place is taken */
int coroutine_fn vdi_settle_header(BlockDriverState *bs);
/** vdi_write_header() - write and flush @header, then it is the state's; in doubt if that fails */
int coroutine_fn vdi_write_header(BlockDriverState *bs, const VdiHeader *header);
/** vdi_replace_map() - take another array of @blocks entries, which the file has already; drained */
void vdi_replace_map(VdiState *s, _Atomic uint32_t *map, uint32_t blocks);
/** vdi_write_map() - write @blocks entries at @offset of the file, no flush */
int coroutine_fn vdi_write_map(BdrvChild *file, const _Atomic uint32_t *map, uint32_t blocks, int64_t offset);

/* ---- compact.c ---- */

/** vdi_copy_place() - copy a block of the file */
int coroutine_fn vdi_copy_place(BlockDriverState *bs, uint32_t from, uint32_t to);
/** vdi_compact() - move the last blocks into the holes and let the file end after the last; drained, map not damaged */
int coroutine_fn vdi_compact(BlockDriverState *bs);

/* ---- io.c ---- */

int coroutine_fn vdi_co_readv(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                              size_t iov_offset, BdrvRequestFlags flags);
int coroutine_fn vdi_co_writev(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                               size_t iov_offset, BdrvRequestFlags flags);
int coroutine_fn vdi_co_write_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes, BdrvRequestFlags flags);
int coroutine_fn vdi_co_discard(BlockDriverState *bs, int64_t offset, int64_t bytes);
int coroutine_fn vdi_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes, BlockExtent *extent);

/* ---- create.c, resize.c, check.c ---- */

extern const BdrvOptionSpec vdi_create_options[];
bool coroutine_fn vdi_create(const char *filename, BdrvChild *file, const BdrvOptions *options, GError **errp);
bool coroutine_fn vdi_measure(const BdrvOptions *options, BdrvChild *source, BdrvMeasure *measure, GError **errp);
bool coroutine_fn vdi_truncate(BlockDriverState *bs, int64_t length, bool exact, BdrvPrealloc prealloc,
                               BdrvRequestFlags flags, GError **errp);
bool coroutine_fn vdi_check_truncate(BlockDriverState *bs, int64_t length, bool exact, BdrvPrealloc prealloc,
                                     GError **errp);
int coroutine_fn vdi_check(BlockDriverState *bs, BdrvCheckResult *result, BdrvCheckFix fix);

#endif
