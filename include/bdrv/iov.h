/* SPDX-License-Identifier: MIT */
#ifndef BDRV_IOV_H
#define BDRV_IOV_H

/*
 * Scatter/gather buffers. A BdrvIov is a view: it owns neither the array nor the memory, both belong
 * to the request until it completes. A part of a view is passed along as (iov, iov_offset, bytes), so
 * that splitting a request never copies or allocates.
 */

#include <bdrv/macros.h>
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

G_BEGIN_DECLS

/* A view of memory: where data is read to or written from. Who makes it owns the array and the memory. */
typedef struct BdrvIov {
    const struct iovec *vec; /* @count elements */
    unsigned count; /* elements of @vec */
    size_t bytes;   /* sum of their lengths */
} BdrvIov;

/* A view of one buffer: BdrvIov iov = BDRV_IOV_BUF(vec, buf, bytes), with struct iovec vec in scope. */
#define BDRV_IOV_BUF(vec_, buf_, bytes_)                                                           \
    ((vec_) = (struct iovec){ .iov_base = (void *)(buf_), .iov_len = (bytes_) },                   \
     (BdrvIov){ .vec = &(vec_), .count = 1, .bytes = (bytes_) })

/** bdrv_iov_init() - view over @count elements of @vec; sums their lengths
 * A sum that is too large for size_t counts as SIZE_MAX; requests with more than SSIZE_MAX end with -EINVAL, as readv(2). */
BDRV_API BdrvIov bdrv_iov_init(const struct iovec *vec, unsigned count);

/**
 * bdrv_iov_slice() - iovec array for a part of a view
 * @iov: view
 * @offset: first byte of the part
 * @bytes: length of the part; @offset + @bytes <= @iov->bytes
 * @out: array of @max_out elements to fill
 * @covered: set to how many bytes the filled elements cover: @bytes, or less if @max_out was too small
 *
 * Returns: the number of elements filled.
 */
BDRV_API unsigned bdrv_iov_slice(const BdrvIov *iov, size_t offset, size_t bytes, struct iovec *out,
                                 unsigned max_out, size_t *covered);

/** bdrv_iov_count() - elements that a part of a view touches */
BDRV_API unsigned bdrv_iov_count(const BdrvIov *iov, size_t offset, size_t bytes);

/** bdrv_iov_contiguous() - pointer to a part that lies in one element, else NULL */
BDRV_API void *bdrv_iov_contiguous(const BdrvIov *iov, size_t offset, size_t bytes);

/** bdrv_iov_to_buf() / bdrv_iov_from_buf() / bdrv_iov_memset() - copy out, copy in, fill @bytes from @offset on */
BDRV_API void bdrv_iov_to_buf(const BdrvIov *iov, size_t offset, void *buf, size_t bytes);
BDRV_API void bdrv_iov_from_buf(const BdrvIov *iov, size_t offset, const void *buf, size_t bytes);
BDRV_API void bdrv_iov_memset(const BdrvIov *iov, size_t offset, int byte, size_t bytes);

/** bdrv_iov_is_zero() - true if every byte of the part is 0 */
BDRV_API bool bdrv_iov_is_zero(const BdrvIov *iov, size_t offset, size_t bytes);

/** bdrv_buffer_is_zero() - true if all @bytes at @buf are 0; any alignment */
BDRV_API bool bdrv_buffer_is_zero(const void *buf, size_t bytes);

/** bdrv_iov_is_aligned() - true if address and length of each element touched are multiples of @align */
BDRV_API bool bdrv_iov_is_aligned(const BdrvIov *iov, size_t offset, size_t bytes, size_t align);

G_END_DECLS
#endif
