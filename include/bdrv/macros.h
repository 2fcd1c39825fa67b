/* SPDX-License-Identifier: MIT */
#ifndef BDRV_MACROS_H
#define BDRV_MACROS_H

/* BDRV_API marks what the shared library exports; everything else is hidden. */
#if defined(__GNUC__)
#define BDRV_API __attribute__((visibility("default")))
#else
#define BDRV_API
#endif

/* Fields that several threads use at once. To C++ they are plain fields of the same layout, which it must not touch. */
#ifdef __cplusplus
#define BDRV_ATOMIC(type_) type_
#else
#define BDRV_ATOMIC(type_) _Atomic(type_)
#endif

/*
 * Role markers. A coroutine_fn may yield and may be called only from a coroutine; a blocking_fn runs
 * the calling thread's event loop and must not be called from a coroutine or from a callback of the
 * library. With BDRV_CHECK_ROLES and clang, -Wthread-safety checks direct calls against the markers.
 * Function pointers are not checked; their comments say the context.
 */
#if defined(__clang__) && defined(BDRV_CHECK_ROLES)
struct __attribute__((capability("role"))) BdrvRole {
    int unused;
};
extern struct BdrvRole bdrv_coroutine_role;
#define coroutine_fn __attribute__((requires_capability(bdrv_coroutine_role)))
#define blocking_fn __attribute__((locks_excluded(bdrv_coroutine_role)))
#else
#define coroutine_fn
#define blocking_fn
#endif

#endif
