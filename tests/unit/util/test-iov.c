/* SPDX-License-Identifier: MIT */
#include <bdrv/iov.h>
#include <stdlib.h>
#include <string.h>

/* Three elements with an empty one between: "abc", "", "defgh", "ij" */
static char text[] = "abcdefghij";

static BdrvIov four_elements(struct iovec vec[4])
{
    vec[0] = (struct iovec){ text, 3 };
    vec[1] = (struct iovec){ text + 3, 0 };
    vec[2] = (struct iovec){ text + 3, 5 };
    vec[3] = (struct iovec){ text + 8, 2 };
    return bdrv_iov_init(vec, 4);
}

static void test_init(void)
{
    struct iovec vec[4];

    g_assert_cmpuint(four_elements(vec).bytes, ==, 10);
}

static void test_every_part(void)
{
    struct iovec vec[4], part[4];
    BdrvIov iov = four_elements(vec);

    for (size_t offset = 0; offset <= 10; offset++) {
        for (size_t bytes = 0; offset + bytes <= 10; bytes++) {
            char buf[10] = "";
            size_t covered;
            unsigned n = bdrv_iov_slice(&iov, offset, bytes, part, 4, &covered);
            size_t sum = 0;

            g_assert_cmpuint(covered, ==, bytes);
            g_assert_cmpuint(n, ==, bdrv_iov_count(&iov, offset, bytes));
            for (unsigned i = 0; i < n; i++) {
                g_assert_cmpuint(part[i].iov_len, >, 0);
                g_assert_true(part[i].iov_base == text + offset + sum);
                sum += part[i].iov_len;
            }
            bdrv_iov_to_buf(&iov, offset, buf, bytes);
            g_assert_true(memcmp(buf, text + offset, bytes) == 0);
        }
    }
}

static void test_short_array(void)
{
    struct iovec vec[4], part[4];
    BdrvIov iov = four_elements(vec);
    size_t covered;

    g_assert_cmpuint(bdrv_iov_slice(&iov, 1, 9, part, 2, &covered), ==, 2);
    g_assert_cmpuint(covered, ==, 7);
}

static void test_contiguous(void)
{
    struct iovec vec[4];
    BdrvIov iov = four_elements(vec);

    g_assert_true(bdrv_iov_contiguous(&iov, 3, 5) == text + 3);
    g_assert_true(bdrv_iov_contiguous(&iov, 4, 2) == text + 4);
    g_assert_null(bdrv_iov_contiguous(&iov, 2, 2));
}

static void test_fill(void)
{
    char a[3], b[4];
    struct iovec vec[2] = { { a, 3 }, { b, 4 } };
    BdrvIov iov = bdrv_iov_init(vec, 2);

    bdrv_iov_memset(&iov, 0, 0, 7);
    g_assert_true(bdrv_iov_is_zero(&iov, 0, 7));
    bdrv_iov_from_buf(&iov, 2, "xyz", 3);
    g_assert_cmpmem(a, 3, "\0\0x", 3);
    g_assert_cmpmem(b, 4, "yz\0\0", 4);
    g_assert_false(bdrv_iov_is_zero(&iov, 0, 7));
    g_assert_true(bdrv_iov_is_zero(&iov, 0, 2));
    g_assert_true(bdrv_iov_is_zero(&iov, 5, 2));
}

static void test_aligned(void)
{
    char *page = aligned_alloc(4096, 8192);
    struct iovec vec[2] = { { page, 512 }, { page + 4096, 100 } };
    BdrvIov iov = bdrv_iov_init(vec, 2);

    g_assert_true(bdrv_iov_is_aligned(&iov, 0, 512, 512));
    g_assert_false(bdrv_iov_is_aligned(&iov, 0, 612, 512));
    g_assert_false(bdrv_iov_is_aligned(&iov, 1, 511, 512));
    free(page);
}

static void test_zero_buffers(void)
{
    enum { SPACE = 1200 };
    unsigned char *space = calloc(1, SPACE + 2);

    space[0] = 0xff; /* a byte before and one behind must not be looked at */
    for (size_t bytes = 0; bytes <= 1100; bytes += bytes < 300 ? 1 : 37) {
        for (unsigned shift = 1; shift < 40; shift += 13) {
            unsigned char *buf = space + shift;

            space[0] = buf[-1] = buf[bytes] = 0xff;
            g_assert_true(bdrv_buffer_is_zero(buf, bytes));
            for (size_t i = 0; i < bytes; i += bytes < 70 ? 1 : 11) {
                buf[i] = 0x80;
                g_assert_false(bdrv_buffer_is_zero(buf, bytes));
                buf[i] = 0;
            }
            buf[-1] = buf[bytes] = 0;
        }
    }
    free(space);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/iov/a view sums its elements", test_init);
    g_test_add_func("/iov/every part of a view is sliced, counted and copied", test_every_part);
    g_test_add_func("/iov/a slice into a short array says what it covers", test_short_array);
    g_test_add_func("/iov/a part in one element is contiguous", test_contiguous);
    g_test_add_func("/iov/filling writes the part and nothing else", test_fill);
    g_test_add_func("/iov/alignment looks at address and length of each element", test_aligned);
    g_test_add_func("/zero/one byte anywhere is found, none outside is looked at", test_zero_buffers);
    return g_test_run();
}
