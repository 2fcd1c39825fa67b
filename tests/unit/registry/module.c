/* SPDX-License-Identifier: MIT */
/* Modules for test-module.c: one file, compiled with -DKIND_… for each way to be good or bad. */
#include <bdrv/driver.h>
#include <errno.h>
#include <string.h>

static G_GNUC_UNUSED bool open_nothing(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags, GError **errp)
{
    bs->length = 512;
    return true;
}

static G_GNUC_UNUSED int coroutine_fn read_sevens(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                    size_t iov_offset, BdrvRequestFlags flags)
{
    bdrv_iov_memset(iov, iov_offset, 7, bytes);
    return 0;
}

#define COMPLETE .bdrv_open = open_nothing, .bdrv_co_readv = read_sevens
static G_GNUC_UNUSED const BlockDriver drivers[] = {
#if defined(KIND_good)
    { .format_name = "m-good", .protocol_name = "m-good", COMPLETE },
#elif defined(KIND_two)
    { .format_name = "m-two-a", COMPLETE },
    { .format_name = "m-two-b", COMPLETE },
#elif defined(KIND_duplicate)
    { .format_name = "m-before-duplicate", COMPLETE },
    { .format_name = "raw", COMPLETE },
#elif defined(KIND_twice)
    { .format_name = "m-twice", COMPLETE },
    { .format_name = "m-twice", COMPLETE },
#elif defined(KIND_incomplete)
    { .format_name = "m-incomplete", .bdrv_open = open_nothing },
#elif defined(KIND_slot)
    { .format_name = "m-" SLOT, COMPLETE },
#else
    { .format_name = "m-never", COMPLETE },
#endif
};

/* As bdrv_register() is used without looking at what it answers. */
static G_GNUC_UNUSED bool register_all(GError **errp)
{
#if defined(KIND_nothing)
    return true;
#elif defined(KIND_silent)
    return false;
#else
    for (unsigned i = 0; i < G_N_ELEMENTS(drivers); i++) {
        bdrv_register(&drivers[i]);
    }
#if defined(KIND_fails)
    g_set_error(errp, BDRV_ERROR, ENODEV, "the moon is not there");
    return false;
#elif defined(KIND_undefined)
    bool bdrv_of_a_later_version(void);
    return bdrv_of_a_later_version();
#elif defined(KIND_nested)
    bool bdrv_module_load(const char *filename, GError **errp);
    return bdrv_module_load("nosuch.so", errp);
#endif
    return true;
#endif
}

#if defined(KIND_newer) || defined(KIND_larger) || defined(KIND_tiny) || defined(KIND_zero) || defined(KIND_no_init)
extern BDRV_API const BdrvModule bdrv_module;
const BdrvModule bdrv_module = {
#if defined(KIND_newer)
    BDRV_DRIVER_API + 1, sizeof(BlockDriver), register_all
#elif defined(KIND_larger)
    BDRV_DRIVER_API, sizeof(BlockDriver) + 8, register_all
#elif defined(KIND_tiny)
    BDRV_DRIVER_API, 16, register_all
#elif defined(KIND_zero)
    0, sizeof(BlockDriver), register_all
#else
    BDRV_DRIVER_API, sizeof(BlockDriver), NULL
#endif
};
#elif defined(KIND_no_entry)
bool (*const other_entry)(GError **errp);
bool (*const other_entry)(GError **errp) = register_all;
#else
BDRV_MODULE(register_all)
#endif
