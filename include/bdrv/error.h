/* SPDX-License-Identifier: MIT */
#ifndef BDRV_ERROR_H
#define BDRV_ERROR_H

/*
 * Errors.
 *
 * Control-path functions return bool or a pointer and fill a GError; its domain is BDRV_ERROR and
 * its code a positive errno value. Data-path functions return 0 (or a count) or a negative errno
 * value. No function uses both channels.
 */

#include <bdrv/macros.h>
#include <glib.h>

G_BEGIN_DECLS

#define BDRV_ERROR bdrv_error_quark() /* domain of errors whose code is an errno value */

/** bdrv_error_quark() - the domain, as BDRV_ERROR */
BDRV_API GQuark bdrv_error_quark(void);

/**
 * bdrv_error_code() - errno value that an error carries
 * @error: an error of any domain, not NULL
 *
 * Returns: the positive errno value of a BDRV_ERROR, EIO for any other domain.
 */
BDRV_API int bdrv_error_code(const GError *error);

/**
 * bdrv_error_prefix() - put "@name: " in front of an error's message
 * @errp: where the error is; nothing happens if @errp or *@errp is NULL
 * @name: node or file name; "": none
 */
BDRV_API void bdrv_error_prefix(GError **errp, const char *name);

G_END_DECLS
#endif
