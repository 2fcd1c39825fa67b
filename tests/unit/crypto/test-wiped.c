/* SPDX-License-Identifier: MIT */
/*
 * No copy of a key or passphrase is left in the process once it is not needed. All that is writable of the process's
 * memory is looked through: heap, what was freed of it, and the stacks of coroutines and workers.
 *
 * What is looked for is known here in a masked form only, so that this program itself has no copy; but for its own
 * stack, where registers that held it may have been saved. That is left out.
 */

#include <bdrv/bdrv.h>
#include <bdrv/simdisk.h>
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/crash/keys.h"

#define MASK 0x5a
#define CHUNK (1 << 20)
#define HUGE_MAPPING (UINT64_C(1) << 32) /* a sanitizer's own */

static const char *program;

/* ---- looking for it ---- */

typedef struct Needle {
    uint8_t masked[32];
    size_t bytes;
} Needle;

static bool is_here(const uint8_t *at, const Needle *needle)
{
    size_t i = 0;
    while (i < needle->bytes && (at[i] ^ MASK) == needle->masked[i]) {
        i++;
    }
    return i == needle->bytes;
}

static unsigned count_in(const uint8_t *buf, size_t bytes, const Needle *needle)
{
    const uint8_t *at = buf, *end = buf + bytes;
    unsigned count = 0;
    while (at + needle->bytes <= end) {
        at = memchr(at, needle->masked[0] ^ MASK, (size_t)(end - at) - needle->bytes + 1);
        if (!at) {
            break;
        }
        count += is_here(at++, needle);
    }
    return count;
}

/* Where it reads to is no part of what it reads. */
static uint8_t *scan_buffer(void)
{
    static uint8_t *buffer;
    if (!buffer) {
        buffer = mmap(NULL, CHUNK, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        g_assert_true(buffer != MAP_FAILED);
    }
    return buffer;
}

static unsigned count_mapping(int memory, uint64_t begin, uint64_t end, const Needle *needle)
{
    uint8_t *buf = scan_buffer();
    unsigned count = 0;
    for (uint64_t at = begin; at < end;) {
        ssize_t n = pread(memory, buf, MIN(CHUNK, end - at), (off_t)at);
        if (n <= 0) {
            at += 4096;
            continue;
        }
        count += count_in(buf, (size_t)n, needle);
        at += (uint64_t)n == end - at ? (uint64_t)n : MAX((uint64_t)n - needle->bytes + 1, 1);
    }
    return count;
}

static unsigned count_copies(const Needle *needle)
{
    int memory = open("/proc/self/mem", O_RDONLY);
    FILE *maps = fopen("/proc/self/maps", "r");
    g_autofree char *line = g_malloc(8192);
    unsigned count = 0;
    g_assert_true(memory >= 0 && maps);
    while (fgets(line, 8192, maps)) {
        unsigned long long begin, end;
        char rights[8];
        bool read = sscanf(line, "%llx-%llx %7s", &begin, &end, rights) == 3;
        bool own = strstr(line, "[stack]") || (begin <= (uintptr_t)scan_buffer() && (uintptr_t)scan_buffer() < end);
        if (read && rights[0] == 'r' && rights[1] == 'w' && !own && end - begin < HUGE_MAPPING) {
            unsigned found = count_mapping(memory, begin, end, needle);
            if (found) {
                g_test_message("%u in %s", found, g_strchomp(line));
            }
            count += found;
        }
    }
    fclose(maps);
    close(memory);
    OPENSSL_cleanse(scan_buffer(), CHUNK);
    return count;
}

/* ---- what is looked for ---- */

/* @secret is wiped. Byte by byte, so that no wide register holds it. */
static Needle hide(uint8_t *secret, size_t bytes)
{
    Needle needle = { .bytes = MIN(bytes, sizeof(needle.masked)) };
    const volatile uint8_t *from = secret;
    for (size_t i = 0; i < needle.bytes; i++) {
        needle.masked[i] = from[i] ^ MASK;
    }
    OPENSSL_cleanse(secret, bytes);
    return needle;
}

/* A new secret of the graph. */
static Needle add_secret(BdrvGraph *graph, const char *id)
{
    uint8_t text[32];
    g_assert_cmpint(RAND_bytes(text, sizeof(text)), ==, 1);
    volatile uint8_t *to = text;
    for (unsigned i = 0; i < sizeof(text); i++) {
        to[i] = (uint8_t)('!' + to[i] % 90);
    }
    g_assert_true(bdrv_graph_add_secret(graph, id, text, sizeof(text), NULL));
    return hide(text, sizeof(text));
}

static void print_masked(const Keys *keys)
{
    for (unsigned i = 0; i < KEYS_BYTES; i++) {
        printf("%02x", keys->key[i] ^ MASK);
    }
}

/* In another process: finding it out leaves copies. */
static int tell_key(const char *path)
{
    g_autofree char *bytes = NULL;
    gsize length;
    g_autoptr(GHashTable) known = keys_new();
    if (!g_file_get_contents(path, &bytes, &length, NULL)) {
        return 1;
    }
    const uint8_t *header = memmem(bytes, length, "LUKS\xba\xbe", 6);
    const Keys *keys = header ? keys_of(known, header, length - (gsize)(header - (uint8_t *)bytes)) : NULL;
    if (!keys || keys->fault[0]) {
        return 1;
    }
    print_masked(keys);
    return 0;
}

static Needle volume_key(const char *disk)
{
    g_autoptr(BdrvSimDisk) sim = bdrv_simdisk_find(disk);
    g_autofree char *path = NULL, *out = NULL;
    int status, fd = g_file_open_tmp("wiped-XXXXXX", &path, NULL);
    const char *argv[] = { program, "--key", path, NULL };
    Needle needle = { .bytes = KEYS_BYTES };
    close(fd);
    g_assert_cmpint(bdrv_simdisk_export(sim, path), ==, 0);
    g_assert_true(g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_DEFAULT, NULL, NULL, &out, NULL, &status, NULL));
    g_assert_cmpint(status, ==, 0);
    g_remove(path);
    for (unsigned i = 0; i < KEYS_BYTES; i++) {
        needle.masked[i] = (uint8_t)(g_ascii_xdigit_value(out[2 * i]) << 4 | g_ascii_xdigit_value(out[2 * i + 1]));
    }
    return needle;
}

/* ---- images ---- */

static BdrvGraph *new_graph(void)
{
    BdrvGraph *graph = bdrv_graph_new();
    g_assert_true(bdrv_graph_add_secret(graph, TEST_SECRET, TEST_PASSPHRASE, strlen(TEST_PASSPHRASE), NULL));
    return graph;
}

static BdrvOptions *parse(const char *text)
{
    BdrvOptions *options = bdrv_options_parse(text, NULL, NULL);
    g_assert_nonnull(options);
    return options;
}

static void create(BdrvGraph *graph, const char *driver, const char *options)
{
    GError *error = NULL;
    bdrv_create_image(graph, driver, "simdisk:w", parse(options), &error);
    g_assert_no_error(error);
}

static BlockBackend *open_image(BdrvGraph *graph, const char *options, GError **errp)
{
    return blk_open(graph, "simdisk:w", parse(options), BDRV_O_RDWR, errp);
}

static void use(BlockBackend *blk)
{
    g_autofree uint8_t *buf = g_malloc0(65536);
    g_assert_cmpint(blk_pwrite(blk, 0, 65536, buf, 0), ==, 0);
    g_assert_cmpint(blk_pread(blk, 512, 60000, buf, 0), ==, 0);
}

static void must_amend(BlockBackend *blk, const char *text)
{
    GError *error = NULL;
    g_autoptr(BdrvOptions) options = parse(text);
    blk_amend(blk, options, false, NULL, NULL, &error);
    g_assert_no_error(error);
}

static void must_close(BlockBackend *blk)
{
    g_assert_true(blk_close(blk, NULL));
}

/* ---- tests ---- */

static void test_scan(void)
{
    uint8_t secret[32];
    g_assert_cmpint(RAND_bytes(secret, sizeof(secret)), ==, 1);
    uint8_t *copy = g_memdup2(secret, sizeof(secret)), *freed = g_malloc(4096);
    memcpy(freed + 2048, secret, sizeof(secret));
    Needle needle = hide(secret, sizeof(secret));
    g_assert_cmpuint(count_copies(&needle), ==, 2);
    OPENSSL_cleanse(copy, sizeof(secret));
    g_free(copy);
    g_assert_cmpuint(count_copies(&needle), ==, 1);
    g_free(freed); /* nobody has wiped it */
    g_assert_cmpuint(count_copies(&needle), ==, 1);
}

static void test_aes(void)
{
    BdrvGraph *graph = new_graph();
    Needle passphrase = add_secret(graph, "p"), key = passphrase;
    key.bytes = 16; /* it is the passphrase's beginning */
    create(graph, "qcow2", "size=1M,encrypt.format=aes,encrypt.key-secret=p");
    BlockBackend *blk = open_image(graph, "driver=qcow2,encrypt.key-secret=p", NULL);
    use(blk);
    g_assert_true(bdrv_graph_remove_secret(graph, "p", NULL));
    g_assert_cmpuint(count_copies(&passphrase), ==, 0);
    g_assert_cmpuint(count_copies(&key), >, 0); /* of the cipher */
    must_close(blk);
    g_assert_cmpuint(count_copies(&key), ==, 0);
    bdrv_simdisk_forget("w");
    bdrv_graph_unref(graph);
}

typedef struct Kind {
    const char *name, *driver, *create, *open, *add, *erase, *wrong;
} Kind;

static const Kind kinds[] = {
    { "luks", "luks", "size=1M,cipher-alg=aes-128,cipher-mode=cbc,iter-time=1,key-secret=" TEST_SECRET,
      "driver=luks,key-secret=" TEST_SECRET, "state=active,new-secret=added,iter-time=1",
      "state=inactive,old-secret=added", "driver=luks,key-secret=wrong" },
    { "qcow2", "qcow2",
      "size=1M,encrypt.format=luks,encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc,encrypt.iter-time=1,"
      "encrypt.key-secret=" TEST_SECRET,
      "driver=qcow2,encrypt.key-secret=" TEST_SECRET,
      "encrypt.state=active,encrypt.new-secret=added,encrypt.iter-time=1",
      "encrypt.state=inactive,encrypt.old-secret=added", "driver=qcow2,encrypt.key-secret=wrong" },
};

static void test_luks(gconstpointer data)
{
    const Kind *kind = data;
    g_autoptr(GError) error = NULL;
    BdrvGraph *graph = new_graph();
    create(graph, kind->driver, kind->create);
    Needle key = volume_key("w");
    g_assert_cmpuint(count_copies(&key), ==, 0); /* since it was made */

    Needle wrong = add_secret(graph, "wrong");
    g_assert_null(open_image(graph, kind->wrong, &error));
    g_assert_error(error, BDRV_ERROR, EACCES);
    g_assert_true(bdrv_graph_remove_secret(graph, "wrong", NULL));
    g_assert_cmpuint(count_copies(&wrong), ==, 0);
    g_assert_cmpuint(count_copies(&key), ==, 0);

    BlockBackend *blk = open_image(graph, kind->open, NULL);
    use(blk);
    g_assert_cmpuint(count_copies(&key), >, 0);
    Needle added = add_secret(graph, "added");
    must_amend(blk, kind->add);
    must_amend(blk, kind->erase);
    g_assert_true(bdrv_graph_remove_secret(graph, "added", NULL));
    g_assert_cmpuint(count_copies(&added), ==, 0);
    must_close(blk);
    g_assert_cmpuint(count_copies(&key), ==, 0);
    bdrv_simdisk_forget("w");
    bdrv_graph_unref(graph);
}

int main(int argc, char **argv)
{
    if (argc == 3 && g_str_equal(argv[1], "--key")) {
        return tell_key(argv[2]);
    }
    program = argv[0];
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/crypto/wiped/a copy is found, freed or not, until it is wiped", test_scan);
    g_test_add_func("/crypto/wiped/a legacy key is gone when the image is closed, its passphrase before", test_aes);
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        g_autofree char *path = g_strconcat("/crypto/wiped/keys are gone when an image is made, refused, amended and "
                                            "closed: ", kinds[i].name, NULL);
        g_test_add_data_func(path, &kinds[i], test_luks);
    }
    return g_test_run();
}
