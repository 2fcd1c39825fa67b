/* SPDX-License-Identifier: MIT */
#ifndef BDRV_SIMDISK_H
#define BDRV_SIMDISK_H

/*
 * A disk in memory for tests, opened with driver=simdisk,disk=NAME or the filename "simdisk:NAME".
 *
 * It has a volatile write cache: a write, zero, discard or resize is a numbered entry of a log until a
 * flush that began after its completion has completed. A *cut* is what a power loss at this moment can
 * leave: the durable image and the log, of which any subset may have reached the medium, each entry
 * maybe torn at 512 bytes. Images share pages (copy on write), so that a cut at every request is cheap.
 *
 * Size and data are ordered independently, as by a file system that journals sizes and writes data back
 * when it likes. A write past the end has two effects, its bytes and the longer size, and either may be
 * lost alone: without its bytes the new range reads as zeroes (no stale data is shown); without its size
 * the bytes are there only as far as another size change that survived reaches. So a resize may be lost
 * and the write behind it kept (which then extends the disk itself), or the other way round.
 *
 * Preallocation (falloc, full) of a resize is a resize and then writes of zeroes.
 *
 * A test owns the disk object; nodes find it by name in a table of the process. (This is the one
 * place outside the driver registry with such a table: it is a test device.) All functions may be
 * called from any thread, in or outside of coroutines; none does I/O or waits.
 */

#include <bdrv/types.h>

G_BEGIN_DECLS

#define BDRV_SIM_SECTOR 512 /* bytes that are never torn */

typedef struct BdrvSimDisk BdrvSimDisk; /* a disk, with references; opaque */
typedef struct BdrvSimCut BdrvSimCut;   /* a disk at a power loss; opaque */

/* Kinds of calls, as a mask. */
typedef enum BdrvSimKind {
    BDRV_SIM_READ = 1 << 0,
    BDRV_SIM_WRITE = 1 << 1,
    BDRV_SIM_ZERO = 1 << 2,
    BDRV_SIM_DISCARD = 1 << 3,
    BDRV_SIM_TRUNCATE = 1 << 4,
    BDRV_SIM_FLUSH = 1 << 5,
    BDRV_SIM_COPY = 1 << 6, /* counted and failed as such; logged as a write */
} BdrvSimKind;
#define BDRV_SIM_ANY 0x7fu /* all kinds */

/* ---- disks ---- */

/** bdrv_simdisk_new() - an empty disk of @bytes under @name; NULL if the name is taken */
BDRV_API BdrvSimDisk *bdrv_simdisk_new(const char *name, int64_t bytes);
/** bdrv_simdisk_find() - by name, with a reference; NULL if there is none */
BDRV_API BdrvSimDisk *bdrv_simdisk_find(const char *name);
/** bdrv_simdisk_unref() - the name goes with the last reference (open nodes hold one) */
BDRV_API void bdrv_simdisk_unref(BdrvSimDisk *disk);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BdrvSimDisk, bdrv_simdisk_unref)
/** bdrv_simdisk_forget() - drop a disk that bdrv_create_image("…", "simdisk:NAME") made; false if there is
 * none */
BDRV_API bool bdrv_simdisk_forget(const char *name);

/** bdrv_simdisk_set_seed() - of delays and losses */
BDRV_API void bdrv_simdisk_set_seed(BdrvSimDisk *disk, uint64_t seed);
/** bdrv_simdisk_set_volatile() - false: everything is durable at once and nothing is logged (default true) */
BDRV_API void bdrv_simdisk_set_volatile(BdrvSimDisk *disk, bool on);
/** bdrv_simdisk_set_limits() - what nodes opened from now on declare */
BDRV_API void bdrv_simdisk_set_limits(BdrvSimDisk *disk, const BdrvLimits *limits);
/** bdrv_simdisk_set_unsupported() - calls of these kinds (ZERO, DISCARD, TRUNCATE, COPY) answer -ENOTSUP */
BDRV_API void bdrv_simdisk_set_unsupported(BdrvSimDisk *disk, unsigned kinds);
/** bdrv_simdisk_set_fua() - whether nodes opened from now on do FUA themselves (default true) */
BDRV_API void bdrv_simdisk_set_fua(BdrvSimDisk *disk, bool on);
/** bdrv_simdisk_set_capacity() - -ENOSPC beyond so many bytes of allocated 4 KiB pages; -1: no limit */
BDRV_API void bdrv_simdisk_set_capacity(BdrvSimDisk *disk, int64_t bytes);
/**
 * bdrv_simdisk_set_delay() - each request takes @min_ns .. @max_ns of its context's clock, drawn from the
 * seed A part of the time passes before the request takes effect, the rest before it completes: requests are
 * reordered. In a deterministic run the clock is virtual. 0, 0: none.
 */
BDRV_API void bdrv_simdisk_set_delay(BdrvSimDisk *disk, int64_t min_ns, int64_t max_ns);
/**
 * bdrv_simdisk_set_stall() - about one call in @one_in (0: none) takes up to @max_ns longer before its effect
 * While it is stuck others go on for long: what it found out before may be true no more.
 */
BDRV_API void bdrv_simdisk_set_stall(BdrvSimDisk *disk, unsigned one_in, int64_t max_ns);

/**
 * bdrv_simdisk_fail() - let calls fail
 * @kinds: mask of BdrvSimKind that the rule counts
 * @nth: 1 is the next such call
 * @count: how many fail in a row from the @nth on, -1: all
 * @error: errno value, positive
 */
BDRV_API void bdrv_simdisk_fail(BdrvSimDisk *disk, unsigned kinds, unsigned nth, int count, int error);
/**
 * bdrv_simdisk_fail_partly() - bdrv_simdisk_fail() with calls that do a part of their work first
 * @bytes: so many bytes from the call's first on take effect (READ: are in the buffer); no part of a FLUSH or
 * TRUNCATE does
 */
BDRV_API void bdrv_simdisk_fail_partly(BdrvSimDisk *disk, unsigned kinds, unsigned nth, int count, int error,
                                       int64_t bytes);
/** bdrv_simdisk_fail_none() - forget all rules; latent errors stay */
BDRV_API void bdrv_simdisk_fail_none(BdrvSimDisk *disk);
/**
 * bdrv_simdisk_set_bad() - latent error: reads that touch these sectors fail until the sectors are written whole
 * @offset, @bytes: rounded outwards to sectors
 * @error: errno value of reads, positive
 *
 * A cut does not take them along: its images are good media.
 */
BDRV_API void bdrv_simdisk_set_bad(BdrvSimDisk *disk, int64_t offset, int64_t bytes, int error);

/* What becomes of the writes that a flush which fails should have made durable. */
typedef enum BdrvSimFlushFailure {
    BDRV_SIM_FLUSH_KEEPS,   /* they stay dirty, the next flush tries again (default) */
    BDRV_SIM_FLUSH_FORGETS, /* read as before, but taken for clean: no later flush makes them durable */
    BDRV_SIM_FLUSH_DROPS,   /* forgotten, and readers see what was there before; the size stays */
} BdrvSimFlushFailure;
/** bdrv_simdisk_set_flush_failure() - of flushes that fail from now on; resizes always stay dirty */
BDRV_API void bdrv_simdisk_set_flush_failure(BdrvSimDisk *disk, BdrvSimFlushFailure mode);

/** bdrv_simdisk_count() - calls of these kinds so far, failed ones included */
BDRV_API uint64_t bdrv_simdisk_count(BdrvSimDisk *disk, unsigned kinds);
BDRV_API int64_t bdrv_simdisk_length(BdrvSimDisk *disk);
BDRV_API int64_t bdrv_simdisk_allocated(BdrvSimDisk *disk);

/* Content as a reader sees it now. poke is durable at once and not counted; past the end it grows the disk.
 */
BDRV_API void bdrv_simdisk_peek(BdrvSimDisk *disk, int64_t offset, void *buf, size_t bytes);
BDRV_API void bdrv_simdisk_poke(BdrvSimDisk *disk, int64_t offset, const void *buf, size_t bytes);
/** bdrv_simdisk_export() - write the content to a (sparse) file; 0 or -errno */
BDRV_API int bdrv_simdisk_export(BdrvSimDisk *disk, const char *path);

/* ---- saved states ---- */

/** bdrv_simdisk_save() - content, size, log, latent errors and the seed's state at this moment */
typedef struct BdrvSimSaved BdrvSimSaved; /* a saved state; opaque */
BDRV_API BdrvSimSaved *bdrv_simdisk_save(BdrvSimDisk *disk);
/** bdrv_simdisk_restore() - go back to what was saved, of this disk or of another; any number of times
 * Settings, rules and counts stay as they are. A request in flight at either moment is never known to be complete. */
BDRV_API void bdrv_simdisk_restore(BdrvSimDisk *disk, const BdrvSimSaved *saved);
BDRV_API void bdrv_simsaved_free(BdrvSimSaved *saved);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BdrvSimSaved, bdrv_simsaved_free)

/* ---- log, hook, cuts ---- */

/* An entry of the log. */
typedef struct BdrvSimRequest {
    uint64_t number; /* in the order in which requests took effect, from 1; also of reads and flushes */
    BdrvSimKind kind;
    int64_t offset, bytes; /* TRUNCATE: offset is the new length, bytes 0 */
    bool completed;        /* its caller knows */
    bool durable;          /* in every image of the cut */
    bool forgotten;        /* a failed flush took it for clean: it never becomes durable */
    bool dropped;          /* and its bytes are gone, KEPT means its size */
} BdrvSimRequest;

/*
 * Called after a request took effect (a flush: after it completed) and before its caller goes on; in
 * the caller's coroutine. May take cuts and change settings of the disk, must not do I/O on it.
 */
typedef void BdrvSimHook(void *opaque, BdrvSimDisk *disk, const BdrvSimRequest *request);
BDRV_API void bdrv_simdisk_set_hook(BdrvSimDisk *disk, BdrvSimHook *hook, void *opaque);

/** bdrv_simdisk_cut() - what a power loss now can leave; free with bdrv_simcut_unref() */
BDRV_API BdrvSimCut *bdrv_simdisk_cut(BdrvSimDisk *disk);
BDRV_API BdrvSimCut *bdrv_simcut_ref(BdrvSimCut *cut);
BDRV_API void bdrv_simcut_unref(BdrvSimCut *cut);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BdrvSimCut, bdrv_simcut_unref)
/** bdrv_simcut_count() / _nth() - entries of the log at the cut, oldest first */
BDRV_API unsigned bdrv_simcut_count(const BdrvSimCut *cut);
BDRV_API BdrvSimRequest bdrv_simcut_nth(const BdrvSimCut *cut, unsigned n);
/** bdrv_simcut_length() - of the durable image, without the log */
BDRV_API int64_t bdrv_simcut_length(const BdrvSimCut *cut);

/* What a power loss does to an entry. */
typedef enum BdrvSimFate {
    BDRV_SIM_LOST,
    BDRV_SIM_KEPT,
    BDRV_SIM_TORN_INSIDE,  /* only the sectors [tear_from, tear_to) of the request reached the medium: */
    BDRV_SIM_TORN_OUTSIDE, /* or all but these. Prefix: INSIDE 0 .. n; suffix: OUTSIDE 0 .. n */
    BDRV_SIM_DATA_ONLY,    /* of what went past the end: the bytes without the size, */
    BDRV_SIM_SIZE_ONLY,    /* the size without the bytes */
} BdrvSimFate;

/* The fate of one entry, in words of bdrv_simcut_image(). */
typedef struct BdrvSimChoice {
    BdrvSimFate fate;            /* of a durable entry: ignored, it is kept */
    unsigned tear_from, tear_to; /* sectors from the request's first; a TRUNCATE is never torn */
} BdrvSimChoice;

/**
 * bdrv_simcut_disk() - one of the images that the cut can leave, as a new disk
 * @choices: one for each entry of the cut; NULL: all lost but the durable ones
 * Returns: NULL if the name is taken.
 */
BDRV_API BdrvSimDisk *bdrv_simcut_disk(const BdrvSimCut *cut, const BdrvSimChoice *choices, const char *name);

/** bdrv_simcut_random() - fill @choices (one for each entry) from a seed; at most one entry is torn
 * What goes past the durable end may keep its bytes or its size alone. */
BDRV_API void bdrv_simcut_random(const BdrvSimCut *cut, uint64_t seed, BdrvSimChoice *choices);

G_END_DECLS
#endif
