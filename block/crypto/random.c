/* SPDX-License-Identifier: MIT */
#include "block/crypto/random.h"

#include <bdrv/aio.h>
#include <errno.h>
#include <openssl/rand.h>

#include "block/loop/context.h"

static void draw_from_run(AioSim *sim, uint8_t *buf, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        buf[i] = (uint8_t)(aio_sim_random(sim) >> 32);
    }
}

bool bdrv_random_bytes(void *buf, size_t bytes, GError **errp)
{
    AioContext *ctx = aio_context_current();
    AioSim *sim = ctx ? aio_context_sim(ctx) : NULL;

    if (sim) {
        draw_from_run(sim, buf, bytes);
        return true;
    }
    if (bytes > INT_MAX || RAND_priv_bytes(buf, (int)bytes) != 1) {
        g_set_error(errp, BDRV_ERROR, EIO, "cannot get %zu random bytes for a key", bytes);
        return false;
    }
    return true;
}
