/* SPDX-License-Identifier: MIT */
#ifndef BDRV_TYPES_H
#define BDRV_TYPES_H

/*
 * What embedders and driver authors share: flags, extents, results. Offsets and sizes are bytes.
 *
 * Structures that are filled or read across the library's boundary stay as they are to programs built earlier: those
 * that may grow are passed with their size by an inline form of the call (see <bdrv/bdrv.h>), the others end
 * with reserved words, which are zero.
 */

#include <bdrv/error.h>
#include <bdrv/iov.h>
#include <bdrv/options.h>

G_BEGIN_DECLS

/* Opaque to embedders; to drivers BlockDriverState is what <bdrv/driver.h> shows of it. */
typedef struct BdrvGraph BdrvGraph;
typedef struct BlockDriver BlockDriver;
typedef struct BlockDriverState BlockDriverState;
typedef struct BdrvChild BdrvChild;
typedef struct BlockBackend BlockBackend; /* a handle on an open image; opaque */

/* How to open. The same can be said by options (in brackets), which win over flags. */
typedef enum BdrvOpenFlags {
    BDRV_O_RDWR = 1 << 0,        /* [read-only=off] */
    BDRV_O_NOCACHE = 1 << 1,     /* [cache.direct=on] O_DIRECT */
    BDRV_O_NO_FLUSH = 1 << 2,    /* [cache.no-flush=on] flushes answer 0 and do nothing */
    BDRV_O_FORCE_SHARE = 1 << 3, /* [force-share=on] take no lock against writers; read-only only */
    BDRV_O_UNMAP = 1 << 4,       /* [discard=unmap] pass discards on */
    BDRV_O_CHECK = 1 << 5,       /* for check/repair only: tolerate what a check can report; no I/O */
    BDRV_O_NO_BACKING = 1 << 6,  /* [backing=null] do not open the backing file */
    BDRV_O_NO_IO = 1 << 7,       /* only metadata is wanted (info): keys are not needed */
    BDRV_O_RESIZE = 1 << 8,      /* the caller will resize */
    BDRV_O_WRITETHROUGH = 1 << 9, /* [cache.writeback=off] BlockBackend only: every write is FUA */
    BDRV_O_NO_SHARE = 1 << 10,    /* BlockBackend only: nobody else may write or resize, unless force-share=on */
    BDRV_O_NO_KEY = 1 << 11,      /* an encrypted image may be opened without its key; see blk_set_key() */
    BDRV_O_DROP_BEHIND = 1 << 12, /* [cache.drop-behind=on] what passes through the page cache does not stay there */
    BDRV_O_DROP_AUTO = 1 << 13,   /* [cache.drop-behind=auto] the same, while writing is the faster for it */
} BdrvOpenFlags;

/* How a request is to be carried out. */
typedef enum BdrvRequestFlags {
    BDRV_REQ_FUA = 1 << 0,         /* durable when the request returns */
    BDRV_REQ_MAY_UNMAP = 1 << 1,   /* write-zeroes may leave the range unallocated */
    BDRV_REQ_NO_FALLBACK = 1 << 2, /* write-zeroes: -ENOTSUP rather than writing a buffer of zeroes */
    BDRV_REQ_COMPRESSED = 1 << 3,  /* a write of whole clusters without space: store them compressed, or -ENOTSUP */
    BDRV_REQ_UNCHANGED = 1 << 4,   /* the write does not change what the guest reads */
    BDRV_REQ_SERIALISING = 1 << 5, /* wait for, and hold up, overlapping requests */
} BdrvRequestFlags;

/* Rights on a node, each used or not and shared or not, per edge (numbers are the lock byte offsets). */
typedef enum BdrvRight {
    BDRV_RIGHT_CONSISTENT_READ = 1 << 0,
    BDRV_RIGHT_WRITE = 1 << 1,
    BDRV_RIGHT_WRITE_UNCHANGED = 1 << 2,
    BDRV_RIGHT_RESIZE = 1 << 3,
} BdrvRight;
#define BDRV_RIGHTS_ALL 0xfu /* mask of all rights */

/* How a range of one layer, or of a chain, is stored. */
typedef enum BlockExtentKind {
    EXTENT_BACKING, /* not in this layer: the backing file shows, or zeroes if there is none */
    EXTENT_ZERO,    /* reads as zeroes without being read; may or may not have space allocated */
    EXTENT_DATA,    /* stored data */
} BlockExtentKind;

/* How a range is stored, see blk_block_status(). */
typedef struct BlockExtent {
    BlockExtentKind kind;
    bool allocated;      /* space is reserved for it in this layer (true for DATA) */
    bool compressed;     /* stored compressed: no host_offset */
    bool at_eof;         /* the extent ends where the node does */
    bool ask_file;       /* set by drivers, DATA: the space may never have been written, @file knows */
    bool hole;           /* chain queries, DATA: where it is stored is a hole, so that it reads as zeroes */
    int64_t bytes;       /* length from the offset asked, >= 1 */
    int64_t host_offset; /* where @file has these bytes, -1: no single place */
    BlockDriverState *file; /* node that host_offset is in; NULL if host_offset is -1 */
    unsigned depth;         /* chain queries: 0 is the node asked */
    bool present;           /* chain queries: some layer says it; false: in none, so it reads as zeroes */
    uint64_t reserved[2];
} BlockExtent;

/* How much is reserved when an image is made or grows. */
typedef enum BdrvPrealloc {
    BDRV_PREALLOC_OFF,
    BDRV_PREALLOC_METADATA,
    BDRV_PREALLOC_FALLOC,
    BDRV_PREALLOC_FULL,
} BdrvPrealloc;

/** bdrv_prealloc_find() - set *@prealloc from "off", "metadata", "falloc" or "full"; false for any other @name */
BDRV_API bool bdrv_prealloc_find(const char *name, BdrvPrealloc *prealloc);

/* What the request layer must respect below, and blk_get_limits() tells; 0 means "no limit" except for
 * request_alignment (1). Alignments of zeroes and discards need not be powers of two. */
typedef struct BdrvLimits {
    uint32_t request_alignment;   /* power of two, 1 .. 64 KiB: offset and length of every request */
    uint32_t mem_alignment;       /* of buffers; bounced at protocol nodes, a hint above */
    uint32_t max_iov;             /* elements a request */
    int64_t max_transfer;         /* bytes a read or write */
    int64_t opt_transfer;
    int64_t pwrite_zeroes_alignment; /* a hint: unaligned ends may be written as buffers */
    int64_t max_pwrite_zeroes;
    int64_t pdiscard_alignment; /* unaligned ends of a discard are dropped */
    int64_t max_pdiscard;
    uint64_t reserved[4];
} BdrvLimits;

/* What blk_get_info() tells. */
typedef struct BdrvInfo {
    int64_t cluster_size;    /* 0: the format has none */
    int64_t vm_state_offset; /* first byte after the guest disk; 0: none */
    bool is_dirty;           /* needs a check */
    bool is_corrupt;
    int64_t subcluster_size;
} BdrvInfo;

/*
 * How far a long operation has come, in units of its own: called by the operation every now and then, in the thread
 * that waits for it; short, must not call the library. Whether to go on: false ends the operation with ECANCELED, as
 * soon and as cleanly as an I/O error would; it may not be called again then. The flag that a cancel button in another
 * thread sets is looked at here.
 */
typedef bool BdrvProgressFunc(void *opaque, int64_t done, int64_t total);

/* How large the file of a new image would be, in bytes. */
typedef struct BdrvMeasure {
    int64_t required;        /* with the data of the source only, or empty */
    int64_t fully_allocated; /* with every cluster allocated */
    int64_t bitmaps;         /* for the persistent bitmaps of the source besides; -1: source or target cannot have any */
} BdrvMeasure;

/* What blk_check() is to repair. */
typedef enum BdrvCheckFix {
    BDRV_FIX_NONE = 0,
    BDRV_FIX_LEAKS = 1 << 0,
    BDRV_FIX_ERRORS = 1 << 1,
    BDRV_FIX_DRY_RUN = 1 << 2, /* tell what would be left and repaired, and write nothing; the image may be read-only */
} BdrvCheckFix;

/* How bad a finding is. */
typedef enum BdrvCheckSeverity {
    BDRV_CHECK_NOTE,       /* no finding: what a repair does */
    BDRV_CHECK_LEAK,       /* space is wasted */
    BDRV_CHECK_CORRUPTION, /* metadata is wrong */
    BDRV_CHECK_ERROR,      /* something could not be checked */
} BdrvCheckSeverity;

/* A kind of finding, in words for people. Drivers have theirs in tables that stay: compare pointers. */
typedef struct BdrvCheckKind {
    BdrvCheckSeverity severity;
    const char *name;   /* for programs: "leaked-cluster" */
    const char *title;  /* what it is */
    const char *risk;   /* what may be lost or wrong */
    const char *repair; /* what a repair does about it */
    uint64_t reserved;
} BdrvCheckKind;

/* What blk_check() found; report and progress are set by the caller. */
typedef struct BdrvCheckResult {
    int64_t corruptions, leaks, check_errors; /* found and not repaired */
    int64_t corruptions_fixed, leaks_fixed;   /* found and repaired */
    int64_t image_end_offset; /* first byte after the last used cluster */
    int64_t total_clusters, allocated_clusters, fragmented_clusters, compressed_clusters; /* of the guest disk */
    /* Findings in words, one call each; may be NULL. */
    void (*report)(void *opaque, const BdrvCheckKind *kind, const char *text);
    void *report_opaque;
    /* How far the search has come; false ends it with ECANCELED before anything is repaired. May be NULL. */
    BdrvProgressFunc *progress;
    void *progress_opaque;
} BdrvCheckResult;

/* An internal snapshot. */
typedef struct BdrvSnapshotInfo {
    char *id, *name;
    int64_t vm_state_size, disk_size;
    int64_t date_sec;
    uint32_t date_nsec;
    uint64_t vm_clock_ns;
    uint64_t icount; /* UINT64_MAX: not recorded */
    uint64_t reserved[2];
} BdrvSnapshotInfo;

/* A persistent dirty bitmap; see <bdrv/bitmap.h>. */
typedef struct BdrvBitmapInfo {
    char *name;
    int64_t granularity; /* bytes for each bit; INT64_MAX: of an unknown kind, and larger */
    bool enabled;        /* writes set bits */
    bool usable;         /* false: inconsistent (in use when the image was last written), or of an unknown kind */
    uint64_t reserved[2];
} BdrvBitmapInfo;
typedef struct BdrvDirtyBits BdrvDirtyBits; /* bits of one, in memory */

/* What the statistics of a node tell apart. */
typedef enum BdrvStatKind {
    BDRV_STAT_READ,
    BDRV_STAT_WRITE,
    BDRV_STAT_ZERO,
    BDRV_STAT_DISCARD,
    BDRV_STAT_FLUSH,
    BDRV_STAT_KINDS
} BdrvStatKind;

/* Latencies are counted by powers of two: bucket n holds those from 2^n up to 2^(n+1) - 1 nanoseconds, 0 ns too in the
 * first, everything longer (17 s) in the last. */
#define BDRV_LATENCY_BUCKETS 34

/* Of one kind of requests. */
typedef struct BdrvStatCounts {
    uint64_t requests; /* ended, failed ones too */
    uint64_t failed;
    uint64_t bytes;    /* of requests that did not fail */
    uint64_t time_ns;  /* sum of the latencies */
    uint64_t latency[BDRV_LATENCY_BUCKETS];
} BdrvStatCounts;

/* Of one node, since its statistics were switched on. Counters only grow: take differences. */
typedef struct BdrvNodeStats {
    BdrvStatCounts kinds[BDRV_STAT_KINDS];
    uint64_t cache_hits, cache_misses; /* of metadata, as the driver counts: 0 if it has no cache */
} BdrvNodeStats;

/** bdrv_vfree() - free an aligned buffer (blk_blockalign(), bdrv_try_blockalign()); NULL is allowed */
BDRV_API void bdrv_vfree(void *buf);

G_END_DECLS

#ifdef __cplusplus
/* Flags are combined in C++ as in C. */
inline BdrvOpenFlags operator|(BdrvOpenFlags a, BdrvOpenFlags b)
{
    return BdrvOpenFlags(int(a) | int(b));
}
inline BdrvRequestFlags operator|(BdrvRequestFlags a, BdrvRequestFlags b)
{
    return BdrvRequestFlags(int(a) | int(b));
}
#endif
#endif
