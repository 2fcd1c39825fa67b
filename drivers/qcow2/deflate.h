/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_DEFLATE_H
#define BDRV_QCOW2_DEFLATE_H

/* Raw deflate of one cluster, no header (specification: "Compressed Clusters Descriptor"). No node, no state: workers. */

#include <stddef.h>
#include <stdint.h>

#define QCOW2_DEFLATE_LEVELS 9 /* the highest level; the lowest is 1 */

/** qcow2_deflate() - compress @in_bytes into at most @out_max
 * @level: 0: the default, ISA-L's where that is built; else zlib's
 * @out_bytes: set; 0: it would take more
 * Returns: 0; -ENOMEM. */
int qcow2_deflate(int level, const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_max, uint32_t *out_bytes);

/** qcow2_inflate() - fill @out from a stream; what comes behind it does not matter
 * Returns: 0; -ENOMEM; -EIO: the stream is damaged or ends too early. */
int qcow2_inflate(const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_bytes);

#endif
