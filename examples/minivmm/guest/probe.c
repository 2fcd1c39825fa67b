/* SPDX-License-Identifier: MIT */
/* Whether a guest can be built: see meson.build. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

uint32_t probe(void);

uint32_t probe(void)
{
    return sizeof(void *);
}
