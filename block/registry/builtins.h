/* SPDX-License-Identifier: MIT */
#ifndef BDRV_REGISTRY_BUILTINS_H
#define BDRV_REGISTRY_BUILTINS_H

/* In the generated builtins.c: calls bdrv_<name>_init() of every built-in driver. */
void bdrv_call_builtin_inits(void);

#endif
