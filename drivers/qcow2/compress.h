/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_COMPRESS_H
#define BDRV_QCOW2_COMPRESS_H

#include "drivers/qcow2/qcow2.h"

/* What the worker gets: no node, no state. */
typedef struct Qcow2EncodeJob {
    const uint8_t *in; /* a whole cluster that nobody changes */
    size_t in_bytes;
    uint8_t *out;
    size_t out_max;
    int level;         /* set: of the image's compression type; 0: its default */
    uint32_t out_bytes; /* set; 0: it would take more than @out_max */
} Qcow2EncodeJob;

/** qcow2_compression_levels() - the highest level of a compression type; the lowest is 1 */
int qcow2_compression_levels(uint8_t compression_type);

/** qcow2_encode() - compress as the image's compression type wants it; in a CPU worker, yields
 * Returns: 0; -ENOMEM; -ENOTSUP for zstd in a build without it; -EAGAIN: no worker. */
int coroutine_fn qcow2_encode(const Qcow2State *s, Qcow2EncodeJob *job);

#endif
