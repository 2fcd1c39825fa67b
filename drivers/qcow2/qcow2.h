/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_QCOW2_H
#define BDRV_QCOW2_QCOW2_H

/*
 * The qcow2 driver from inside. Start at qcow2.c (the table). format/ turns bytes into structs and
 * back (pure), meta/ keeps tables cached and ordered (docs/qcow2-metadata.md); the rest carries out
 * requests. All offsets are bytes: guest_offset in the virtual disk, host_offset in the image file.
 */

#include <bdrv/driver.h>
#include <stdatomic.h>

#include "drivers/qcow2/format/format.h"

typedef struct Qcow2Meta Qcow2Meta;         /* meta/meta.h */
typedef struct Qcow2Inflight Qcow2Inflight; /* inflight.h */
typedef struct Qcow2Crypto Qcow2Crypto;                   /* crypto.h */
typedef struct Qcow2CompressedCache Qcow2CompressedCache; /* compressed.h */
typedef struct Qcow2Tracker Qcow2Tracker;   /* bitmap.h */

/* Why a host cluster loses its last reference: whether its space then goes back to the host is an option. */
typedef enum Qcow2DiscardType {
    QCOW2_DISCARD_NEVER,   /* copied on write: the next allocation takes it */
    QCOW2_DISCARD_REQUEST, /* discard, or write-zeroes that may unmap */
    QCOW2_DISCARD_SNAPSHOT, /* a snapshot that is deleted, a table that only it had */
    QCOW2_DISCARD_OTHER,   /* a table that has moved */
    QCOW2_DISCARD_TYPES,
} Qcow2DiscardType;

typedef struct Qcow2DiscardConfig {
    bool pass[QCOW2_DISCARD_TYPES];
    bool no_unref; /* discarded clusters keep their space in the image, as preallocated zeroes */
} Qcow2DiscardConfig;

typedef enum Qcow2Sparse {
    QCOW2_SPARSE_UNKNOWN,
    QCOW2_NOT_SPARSE,
    QCOW2_SPARSE, /* the file stores clearly less than the clusters in use would take */
} Qcow2Sparse;

/* Structures that a write must not hit by mistake; the overlap-check options say which are looked at. */
typedef enum Qcow2Overlap {
    QCOW2_OVERLAP_MAIN_HEADER = 1 << 0,
    QCOW2_OVERLAP_ACTIVE_L1 = 1 << 1,
    QCOW2_OVERLAP_ACTIVE_L2 = 1 << 2,
    QCOW2_OVERLAP_REFCOUNT_TABLE = 1 << 3,
    QCOW2_OVERLAP_REFCOUNT_BLOCK = 1 << 4,
    QCOW2_OVERLAP_SNAPSHOT_TABLE = 1 << 5,
    QCOW2_OVERLAP_INACTIVE_L1 = 1 << 6,
    QCOW2_OVERLAP_INACTIVE_L2 = 1 << 7,
    QCOW2_OVERLAP_BITMAP_DIRECTORY = 1 << 8,
} Qcow2Overlap;
#define QCOW2_OVERLAP_COUNT 9

/* Slices that were not used for so long are dropped. */
typedef struct Qcow2CleanConfig {
    int64_t interval_s; /* 0: never */
    bool given;         /* by the user */
} Qcow2CleanConfig;

typedef struct Qcow2State {
    BlockDriverState *bs;
    Qcow2Geometry geometry;
    Qcow2Header header;             /* as in the file, host byte order; structural operations change it drained */
    Qcow2HeaderExtensions extensions;
    Qcow2SnapshotTable snapshots;   /* loaded at open */
    char *snapshot_damage;          /* opened for check: why @snapshots is not all of them; NULL: it is */
    bool snapshot_loaded;           /* a snapshot is shown instead of the active disk; read-only */
    Qcow2BitmapTable bitmaps;       /* persistent bitmaps, as in the directory; changed drained. See bitmap.h */
    Qcow2Tracker *tracker;          /* what writes have to set, NULL: nothing; changed drained */
    CoMutex bitmap_lock;            /* bits that are loaded beside requests; the marks in the directory */
    _Atomic bool bitmaps_marked;    /* the directory says that enabled bitmaps are in use */
    bool bitmaps_touched;           /* perhaps in a part of its entries; bitmap_lock, or drained */
    bool dirty_at_open;             /* the dirty bit was set when the image was opened, and is still */
    unsigned drained;               /* how deep; also while there is no @meta */
    bool metadata_only;             /* for information or check: meta is NULL, I/O is refused */
    _Atomic bool corrupt;           /* the corrupt bit is set: no more writes */
    _Atomic(char *) corrupt_message; /* what set it while the image was open; set once, freed by close */
    struct {
        int64_t l2_bytes, refcount_bytes;
        uint32_t slice_bytes;
        Qcow2CleanConfig clean;
    } cache;                        /* as opened; reopening changes it */
    Qcow2DiscardConfig discard;     /* reopening changes it */
    unsigned overlap_checks;        /* mask of Qcow2Overlap; reopening changes it */
    int compression_level;          /* 1 and up; 0: the default; reopening changes it */
    _Atomic int sparse;             /* Qcow2Sparse: whether block status asks the file for holes */
    bool lazy_refcounts;            /* counts may be behind while the dirty bit is set; reopening changes it */
    Qcow2Crypto *crypto;            /* NULL: guest data is not encrypted */
    Qcow2Meta *meta;                /* NULL with metadata_only */
    Qcow2Inflight *inflight;
    Qcow2CompressedCache *compressed;
} Qcow2State;

/* How far an operation in several parts has come. */
typedef struct Qcow2Progress {
    BdrvProgressFunc *report; /* NULL: nobody wants to know */
    void *opaque;
    unsigned part, parts; /* the one that is under way, of so many */
} Qcow2Progress;

/** qcow2_progress() - @done of @total of the part under way; false: the caller wants no more of it, ECANCELED */
static inline bool qcow2_progress(const Qcow2Progress *progress, int64_t done, int64_t total, GError **errp)
{
    const int64_t scale = 10000;
    if (!progress || !progress->report) {
        return true;
    }
    int64_t in_part = total > 0 ? (int64_t)((double)done / (double)total * (double)scale) : scale;
    if (!progress->report(progress->opaque, progress->part * scale + in_part, progress->parts * scale)) {
        g_set_error(errp, BDRV_ERROR, ECANCELED, "cancelled by the caller");
        return false;
    }
    return true;
}

static inline Qcow2State *qcow2_state(const BlockDriverState *bs)
{
    return bs->opaque;
}

/**
 * qcow2_load_snapshots() - read the snapshot table that s->header names (snapshot_table.c)
 * @file_length: of bs->file
 * @damage: NULL, or set to what is wrong with an entry: the ones before it are loaded then. Caller frees.
 *
 * Fails with EINVAL or an I/O error; *@table is then untouched.
 */
bool coroutine_fn qcow2_load_snapshots(BlockDriverState *bs, int64_t file_length, Qcow2SnapshotTable *table,
                                       char **damage, GError **errp);

/**
 * qcow2_compose_header() - the bytes of the header cluster up to the end of the backing file name
 * @header: backing_file_offset, backing_file_size are filled in
 * @backing_name: NULL: none
 * @name_from: the name goes there if it fits, 0: right behind the extensions
 * @cluster: buffer of @cluster_size bytes, zeroed; written from the start
 *
 * Returns: the end of the extensions; 0 with EINVAL if it does not fit: the feature name table is left out first.
 */
size_t qcow2_compose_header(Qcow2Header *header, const Qcow2HeaderExtensions *extensions, const char *backing_name,
                            size_t name_from, uint8_t *cluster, uint32_t cluster_size, GError **errp);

/* errors.c */

/** qcow2_could() - whether @ret, 0 or -errno of what was done, is no error; else @errp says "cannot @what: …" */
bool qcow2_could(int ret, const char *what, GError **errp);
/** qcow2_check_changeable() - whether the open image lets its @what ("snapshots") be changed; ENOTSUP, EACCES, EIO */
bool qcow2_check_changeable(const Qcow2State *s, const char *what, GError **errp);

extern const BlockDriver bdrv_qcow2;
void bdrv_qcow2_init(void);

#endif
