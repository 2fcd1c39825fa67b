/* SPDX-License-Identifier: MIT */

/* Sizes as people write and read them. */
#include <bdrv/options.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

static const char suffixes[] = "bkmgtpe";

/* Bits to shift for a suffix; -1 if @c is none. */
static int suffix_shift(char c)
{
    const char *at = c ? strchr(suffixes, g_ascii_tolower(c)) : NULL;

    return at ? (int)(at - suffixes) * 10 : -1;
}

static bool not_a_size(const char *text, GError **errp)
{
    g_set_error(errp, BDRV_ERROR, EINVAL,
                "'%s' is not a size; write a number of bytes, or one with a suffix k, M, G, T, P or E "
                "(powers of 1024), such as 1.5G",
                text);
    return false;
}

static bool too_large(const char *text, GError **errp)
{
    g_set_error(errp, BDRV_ERROR, ERANGE, "size '%s' is too large; it must be between 0 and %" PRId64, text,
                INT64_MAX);
    return false;
}

/* Digits after the point at **p as a fraction below 1; moves *p behind them. */
static double take_fraction(const char **p)
{
    const char *begin = *p;
    g_autofree char *digits = NULL;

    while (g_ascii_isdigit(**p)) {
        (*p)++;
    }
    digits = g_strdup_printf("0.%.*s", (int)(*p - begin), begin);
    return MIN(g_ascii_strtod(digits, NULL), 1 - 0x1p-53);
}

bool bdrv_parse_size(const char *text, int64_t *bytes, GError **errp)
{
    const char *p = text;
    char *end;
    uint64_t whole;
    double fraction = 0;
    bool hex;

    while (g_ascii_isspace(*p)) {
        p++;
    }
    p += *p == '+';
    hex = p[0] == '0' && (p[1] == 'x' || p[1] == 'X') && g_ascii_isxdigit(p[2]);
    if (!g_ascii_isdigit(*p)) {
        return not_a_size(text, errp);
    }

    errno = 0;
    whole = g_ascii_strtoull(p, &end, hex ? 16 : 10);
    if (errno == ERANGE) {
        return too_large(text, errp);
    }
    p = end;
    if (*p == '.' && !hex) {
        p++;
        fraction = take_fraction(&p);
    }

    int shift = 0;
    if (*p) {
        shift = suffix_shift(*p++);
        if (shift < 0 || *p) {
            return not_a_size(text, errp);
        }
    }
    if (fraction > 0 && shift == 0) {
        return not_a_size(text, errp); /* half a byte */
    }
    if (whole > (uint64_t)INT64_MAX >> shift) {
        return too_large(text, errp);
    }
    *bytes = (int64_t)(whole << shift) + (int64_t)(fraction * (double)(UINT64_C(1) << shift));
    return true;
}

/*
 * Three significant digits. 1000 of a unit, not 1024, is where the next begins, so that "0.977 MiB"
 * follows "1e+03 KiB" as in qemu-img.
 */
char *bdrv_format_size(int64_t bytes)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    double value = (double)bytes;
    unsigned unit = 0;

    while (fabs(value) >= 1000 && unit + 1 < G_N_ELEMENTS(units)) {
        value /= 1024;
        unit++;
    }
    /* %.3g in the C locale's notation whatever the locale is */
    char number[G_ASCII_DTOSTR_BUF_SIZE];
    g_ascii_formatd(number, sizeof(number), "%.3g", value);
    return g_strdup_printf("%s %s", number, units[unit]);
}
