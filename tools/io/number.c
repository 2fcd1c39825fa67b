/* SPDX-License-Identifier: MIT */
#include "tools/io/io.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

bool io_parse_number(const char *text, int64_t *value)
{
    g_autoptr(GError) error = NULL;

    if (bdrv_parse_size(text, value, &error)) {
        return true;
    }
    if (bdrv_error_code(error) == ERANGE) {
        printf("Parsing error: argument too large -- %s\n", text);
    } else {
        printf("Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- %s\n", text);
    }
    return false;
}

bool io_parse_pattern(const char *text, int *byte)
{
    char *end;
    long value;

    errno = 0;
    value = strtol(text, &end, 0);
    if (errno || end == text || *end || value < 0 || value > UINT8_MAX) {
        printf("%s is not a valid pattern byte\n", text);
        return false;
    }
    *byte = value;
    return true;
}
