/* SPDX-License-Identifier: MIT */
#include <bdrv/options.h>
#include <errno.h>

/* What qemu-img 7.2 printed as "virtual size" of images of these lengths. */
static const struct {
    int64_t bytes;
    const char *text;
} printed[] = {
    { 0, "0 B" },
    { 512, "512 B" },
    { 1024, "1 KiB" },
    { 1536, "1.5 KiB" },
    { 102400, "100 KiB" },
    { 1000448, "977 KiB" },
    { 1023488, "1e+03 KiB" },
    { 1024000, "0.977 MiB" },
    { 1048576, "1 MiB" },
    { 1047527424, "999 MiB" },
    { 1048051712, "1e+03 MiB" },
    { 1048576000, "0.977 GiB" },
    { 1048064000000, "976 GiB" },
    { 1099511627776, "1 TiB" },
    { 1099511627775488, "1e+03 TiB" },
    { 1125899906842623488, "1e+03 PiB" },
    { 1125899906842624000, "0.977 EiB" },
    { 1152921504606846976, "1 EiB" },
};

static void test_printed(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(printed); i++) {
        g_autofree char *text = bdrv_format_size(printed[i].bytes);

        g_assert_cmpstr(text, ==, printed[i].text);
    }
}

/* What qemu-img 7.2 create accepted as a size, and made of it; -EINVAL, -ERANGE: what it refused. */
static const struct {
    const char *text;
    int64_t bytes;
} typed[] = {
    { "0", 0 },
    { "1k", 1024 },
    { "1K", 1024 },
    { "1.5k", 1536 },
    { "1b", 1 },
    { "1B", 1 },
    { "1.", 1 },
    { "1.0", 1 },
    { "1.0b", 1 },
    { "1.k", 1024 },
    { "+5", 5 },
    { " 5", 5 },
    { "010", 10 },
    { "0x10", 16 },
    { "0X10", 16 },
    { "+0x5", 5 },
    { "0x1e", 30 },
    { "0x1b", 27 },
    { "0x10k", 16384 },
    { "0x1bk", 27648 },
    { "3.3k", 3379 },
    { "0.3P", 337769972052787 },
    { "0.1E", 115292150460684704 },
    { "1.3E", 1498797955988901056 },
    { "1.5e", 1729382256910270464 },
    { "7.9E", 9108079886394091136 },
    { "9223372036854775807", INT64_MAX },
    { "0.0000001k", 0 },
    { "9223372036854775808", -ERANGE },
    { "8E", -ERANGE },
    { "18446744073709551616", -ERANGE },
    { "", -EINVAL },
    { "k", -EINVAL },
    { "-1", -EINVAL },
    { "1kb", -EINVAL },
    { "1KiB", -EINVAL },
    { "1kk", -EINVAL },
    { "1.5", -EINVAL },
    { "1.5b", -EINVAL },
    { ".5k", -EINVAL },
    { "1e3", -EINVAL },
    { "1.5e1k", -EINVAL },
    { "1.2.3", -EINVAL },
    { "1.-5k", -EINVAL },
    { "5 ", -EINVAL },
    { "0x", -EINVAL },
    { "0x1.8k", -EINVAL },
    { "++5", -EINVAL },
    { "+-5", -EINVAL },
    { "nan", -EINVAL },
    { "1,5k", -EINVAL },
};

static void test_typed(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(typed); i++) {
        g_autoptr(GError) error = NULL;
        int64_t bytes = -77;
        bool ok = bdrv_parse_size(typed[i].text, &bytes, &error);

        g_test_message("'%s'", typed[i].text);
        if (typed[i].bytes >= 0) {
            g_assert_no_error(error);
            g_assert_true(ok);
            g_assert_cmpint(bytes, ==, typed[i].bytes);
        } else {
            g_assert_false(ok);
            g_assert_error(error, BDRV_ERROR, (int)-typed[i].bytes);
            g_assert_cmpint(bytes, ==, -77);
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/size/sizes print as qemu-img prints them", test_printed);
    g_test_add_func("/size/sizes are accepted and refused as qemu-img does", test_typed);
    return g_test_run();
}
