/* SPDX-License-Identifier: MIT */
/* Tells whether a driver is known, and what was wrong with the module directory: known DRIVER */
#include <bdrv/bdrv.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    const char *errors;

    if (argc != 2) {
        return 2;
    }
    printf("%s\n", bdrv_driver_known(argv[1]) ? "known" : "unknown");
    errors = bdrv_module_dir_errors();
    printf("%s\n", errors ? errors : "no errors");
    return 0;
}
