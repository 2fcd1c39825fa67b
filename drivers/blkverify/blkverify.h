/* SPDX-License-Identifier: MIT */
#ifndef BLKVERIFY_BLKVERIFY_H
#define BLKVERIFY_BLKVERIFY_H

#include <bdrv/driver.h>
#include <stdatomic.h>

typedef struct BlkverifyState {
    BdrvChild *raw, *test;
    CoRangeLock ranges;      /* reads share, changes are alone: both children see overlapping requests in one order */
    pthread_mutex_t lock;
    char *message;           /* of the first mismatch, where it is and what; NULL: none yet; lock */
    _Atomic bool mismatched; /* once set, every request fails */
} BlkverifyState;

/* One request on one of the children; the same is made on the other at the same time. */
typedef struct BlkverifyCall BlkverifyCall;
struct BlkverifyCall {
    int (*make)(BdrvChild *child, const BlkverifyCall *call); /* coroutine */
    const char *verb; /* "read" */
    int64_t offset, bytes;
    const BdrvIov *iov;
    size_t iov_offset;
    BdrvRequestFlags flags;
};

/**
 * blkverify_call_both() - make one call on both children at once, @raw_call on raw
 * Returns: what both answered; -EIO if they differ, which is remembered as a mismatch.
 */
int coroutine_fn blkverify_call_both(BlkverifyState *s, const BlkverifyCall *raw_call, const BlkverifyCall *test_call);

/** blkverify_mismatch() - remember it if it is the first; -EIO */
int blkverify_mismatch(BlkverifyState *s, const BlkverifyCall *call, const char *format, ...) G_GNUC_PRINTF(3, 4);

#endif
