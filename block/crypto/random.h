/* SPDX-License-Identifier: MIT */
#ifndef BDRV_CRYPTO_RANDOM_H
#define BDRV_CRYPTO_RANDOM_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>

/**
 * bdrv_random_bytes() - fill @buf with random bytes fit for keys
 * In a deterministic run they are drawn from the run's seed, so that images are the same in each replay.
 * Context: any, but for a worker in such a run. Returns: false with EIO if the system has none to give.
 */
bool bdrv_random_bytes(void *buf, size_t bytes, GError **errp);

#endif
