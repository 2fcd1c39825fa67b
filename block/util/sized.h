/* SPDX-License-Identifier: MIT */
#ifndef BDRV_UTIL_SIZED_H
#define BDRV_UTIL_SIZED_H

/*
 * Structures that cross the library's boundary with their size, since the program may have been compiled with an
 * earlier or a later form of them. A later form only has more fields at its end.
 */

#include <bdrv/error.h>
#include <stdbool.h>
#include <stddef.h>

/** bdrv_sized_in() - take a structure of the caller's
 * What it has not is zero. Fails with E2BIG if it says something in a field that @ours has not. */
bool bdrv_sized_in(void *ours, size_t our_size, const void *theirs, size_t their_size, const char *type, GError **errp);

/** bdrv_sized_out() - give one to the caller: as much as it has room for; what only it has becomes zero */
void bdrv_sized_out(void *theirs, size_t their_size, const void *ours, size_t our_size);

#endif
