/* SPDX-License-Identifier: MIT */
#ifndef BDRV_TESTING_H
#define BDRV_TESTING_H

/*
 * For tests that use GLib's GTest: a stack of drivers from one string, faults, assertions, and the end of it.
 *
 *     g_autoptr(BdrvTestStack) stack = bdrv_test_stack_new("qcow2(size=64M,cluster_size=4k):blkdebug:simdisk");
 *
 *     bdrv_test_write_pattern(stack, 0, 65536, 0x61);
 *     bdrv_test_assert_ok(blk_flush(stack->blk));
 *     bdrv_test_inject_nth(stack, BDRV_SIM_WRITE, 1, EIO);
 *     bdrv_test_assert_fails(blk_pwrite(stack->blk, 1048576, 4, "lost", BDRV_REQ_FUA), EIO);
 *     bdrv_test_power_loss(stack, 0);
 *     bdrv_test_assert_pattern(stack, 0, 65536, 0x61);
 *     bdrv_test_assert_check_sound(stack);
 *
 * A string has the layers, the topmost first, between colons: DRIVER(CREATE OPTIONS)[OPEN OPTIONS]. Both lists are
 * "key=value,…" and may be left out; brackets inside them pair.
 *
 * (…) makes an image in the disk below before it is opened; one layer of a stack can be made so. Options of "simdisk"
 * in (…) are those of its creation: "size". [disk=NAME] there takes a disk of the test's own instead of a new one.
 * A layer is the child "file" of the one above it, under blkdebug the child "image", under blkverify "test".
 *
 * An assertion that does not hold ends the test program as those of GLib do, and tells the place in the test, the
 * offset, what was expected and what was found. Everything here is inline and uses nothing but the public headers.
 * Not from coroutines.
 */

#include <bdrv/bdrv.h>
#include <bdrv/simdisk.h>
#include <errno.h>
#include <string.h>

G_BEGIN_DECLS

#define BDRV_TEST_SECRET "test"        /* ID of a secret that the graph of every stack has: [key-secret=test] */
#define BDRV_TEST_PASSPHRASE "testing" /* what it is */

/* A stack of drivers. The fields are for reading. */
typedef struct BdrvTestStack {
    BdrvGraph *graph;     /* in which nothing else is */
    BlockBackend *blk;    /* handle on the topmost layer; NULL: it is closed */
    BdrvSimDisk *disk;    /* the lowest layer; NULL: it is no simdisk */
    BdrvOpenFlags flags;  /* of the handle: those of the last bdrv_test_stack_open() */
    BdrvOptions *options; /* it is opened with */
    BdrvOptions *rules;   /* and with these, of bdrv_test_inject_event() */
    char *text;           /* what it was made of */
    char *disk_name;
    bool own_disk;  /* the disk was made with the stack */
    char *blkdebug; /* "file.": where the topmost blkdebug has its options; NULL: there is none */
} BdrvTestStack;

/* ---- failing ---- */

/* Where an assertion stands, as three arguments. */
#define BDRV_TEST_HERE __FILE__, __LINE__, G_STRFUNC

/** bdrv_test_fail() - end the test: what the assertions call. @file, @line, @func: BDRV_TEST_HERE */
G_GNUC_NORETURN G_GNUC_PRINTF(4, 5)
static inline void bdrv_test_fail(const char *file, int line, const char *func, const char *format, ...)
{
    va_list arguments;
    char *message;

    va_start(arguments, format);
    message = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    g_assertion_message("bdrv", file, line, func, message);
    g_abort();
}

/** bdrv_test_fail_on_error() - end the test if @error is one; else nothing. @what: what failed */
static inline void bdrv_test_fail_on_error(const char *file, int line, const char *func, const GError *error,
                                           const char *what)
{
    if (error) {
        bdrv_test_fail(file, line, func, "%s: %s (%s)", what, error->message, g_strerror(bdrv_error_code(error)));
    }
}

/* ---- from text to layers ---- */

/* One layer of the string. */
typedef struct BdrvTestLayer {
    char *driver;
    BdrvOptions *create; /* of (…); NULL: it is not made */
    BdrvOptions *open;   /* of […]; empty if there is none */
} BdrvTestLayer;

/** bdrv_test_layer_free() - with the options it still has */
static inline void bdrv_test_layer_free(BdrvTestLayer *layer)
{
    g_free(layer->driver);
    bdrv_options_free(layer->create);
    bdrv_options_free(layer->open);
    g_free(layer);
}

/** bdrv_test_take_list() - "(…)" or "[…]" at the pointer @at, which moves behind it; NULL: there is none
 * @brackets: "()" or "[]" */
static inline BdrvOptions *bdrv_test_take_list(const char **at, const char *brackets, const char *stack)
{
    const char *first = *at + 1, *end = *at;
    BdrvOptions *options;
    GError *error = NULL;
    char *list;
    int depth = 0;

    if (**at != brackets[0]) {
        return NULL;
    }
    do {
        depth += (*end == brackets[0]) - (*end == brackets[1]);
        if (!*end) {
            bdrv_test_fail(BDRV_TEST_HERE, "stack '%s': no '%c' ends '%s'", stack, brackets[1], *at);
        }
        end++;
    } while (depth > 0);
    list = g_strndup(first, (gsize)(end - 1 - first));
    options = bdrv_options_parse(list, NULL, &error);
    bdrv_test_fail_on_error(BDRV_TEST_HERE, error, stack);
    g_free(list);
    *at = end;
    return options;
}

/** bdrv_test_take_layer() - the layer at the pointer @at, which moves behind it and the colon */
static inline BdrvTestLayer *bdrv_test_take_layer(const char **at, const char *stack)
{
    BdrvTestLayer *layer = g_new0(BdrvTestLayer, 1);
    gsize length = strcspn(*at, "([:");

    layer->driver = g_strndup(*at, length);
    if (!bdrv_driver_known(layer->driver)) {
        bdrv_test_fail(BDRV_TEST_HERE, "stack '%s': there is no driver '%s'", stack, layer->driver);
    }
    *at += length;
    layer->create = bdrv_test_take_list(at, "()", stack);
    layer->open = bdrv_test_take_list(at, "[]", stack);
    if (!layer->open) {
        layer->open = bdrv_options_new();
    }
    if (**at && **at != ':') {
        bdrv_test_fail(BDRV_TEST_HERE, "stack '%s': '%s' is not DRIVER(CREATE OPTIONS)[OPEN OPTIONS]", stack, *at);
    }
    *at += **at == ':';
    return layer;
}

/** bdrv_test_parse_stack() - the layers of @stack, topmost first: an array of BdrvTestLayer */
static inline GPtrArray *bdrv_test_parse_stack(const char *stack)
{
    GPtrArray *layers = g_ptr_array_new_with_free_func((GDestroyNotify)bdrv_test_layer_free);
    const char *at = stack;

    do {
        g_ptr_array_add(layers, bdrv_test_take_layer(&at, stack));
    } while (*at || (at > stack && at[-1] == ':'));
    return layers;
}

/** bdrv_test_child_of() - which child of @driver the layer below it is */
static inline const char *bdrv_test_child_of(const char *driver)
{
    return strcmp(driver, "blkdebug") == 0 ? "image" : strcmp(driver, "blkverify") == 0 ? "test" : "file";
}

/* ---- making ---- */

/** bdrv_test_new_disk() - a disk with a name of its own, as large as @create says; NULL: empty */
static inline void bdrv_test_new_disk(BdrvTestStack *stack, BdrvOptions *create)
{
    const BdrvOptionSpec specs[] = { { "size", BDRV_OPTION_SIZE, "Size of the disk", NULL, NULL, 0 },
                                     { NULL, BDRV_OPTION_STRING, NULL, NULL, NULL, 0 } };
    const BdrvOptionSpec *const tables[] = { specs, NULL };
    GError *error = NULL;

    if (create && !bdrv_options_validate(create, tables, "driver 'simdisk'", &error)) {
        bdrv_test_fail_on_error(BDRV_TEST_HERE, error, stack->text);
    }
    for (unsigned number = 0; !stack->disk; number++) {
        g_free(stack->disk_name);
        stack->disk_name = g_strdup_printf("test-%u", number);
        stack->disk = bdrv_simdisk_new(stack->disk_name, create ? bdrv_options_get_int(create, "size", 0) : 0);
    }
    stack->own_disk = true;
}

/** bdrv_test_make_disk() - what the simdisk at the bottom of a stack is: a new disk, or the one that is named */
static inline void bdrv_test_make_disk(BdrvTestStack *stack, BdrvTestLayer *layer)
{
    const char *named = bdrv_options_get_string(layer->open, "disk", NULL);

    if (!named) {
        bdrv_test_new_disk(stack, layer->create);
        bdrv_options_set_string(layer->open, "disk", stack->disk_name);
        return;
    }
    stack->disk_name = g_strdup(named);
    stack->disk = bdrv_simdisk_find(named);
    if (!stack->disk || layer->create) {
        bdrv_test_fail(BDRV_TEST_HERE, "stack '%s': the disk '%s' is %s", stack->text, named,
                       stack->disk ? "there already, it takes no options of creation" : "not in memory");
    }
}

/** bdrv_test_make_image() - create the image of the layer that has (…), if there is one */
static inline void blocking_fn bdrv_test_make_image(BdrvTestStack *stack, const GPtrArray *layers)
{
    BdrvTestLayer *made = NULL;
    GError *error = NULL;
    char *filename;

    for (unsigned i = 0; i < layers->len; i++) {
        BdrvTestLayer *layer = (BdrvTestLayer *)layers->pdata[i];

        if (!layer->create || strcmp(layer->driver, "simdisk") == 0) {
            continue;
        }
        if (made || !stack->disk) {
            bdrv_test_fail(BDRV_TEST_HERE, "stack '%s': '%s' cannot be created here: %s", stack->text, layer->driver,
                           made ? "one layer of a stack can" : "the lowest layer is no simdisk");
        }
        made = layer;
    }
    if (made) {
        filename = g_strconcat("simdisk:", stack->disk_name, NULL);
        bdrv_create_image(stack->graph, made->driver, filename, made->create, &error);
        made->create = NULL; /* was taken */
        bdrv_test_fail_on_error(BDRV_TEST_HERE, error, stack->text);
        g_free(filename);
    }
}

/** bdrv_test_make_options() - the tree that opens the stack */
static inline void bdrv_test_make_options(BdrvTestStack *stack, const GPtrArray *layers)
{
    char *prefix = g_strdup("");

    for (unsigned i = 0; i < layers->len; i++) {
        BdrvTestLayer *layer = (BdrvTestLayer *)layers->pdata[i];
        char *name = g_strndup(prefix, strlen(prefix) ? strlen(prefix) - 1 : 0); /* without its dot */
        char *next = g_strconcat(prefix, bdrv_test_child_of(layer->driver), ".", NULL);

        bdrv_options_set_string(layer->open, "driver", layer->driver);
        bdrv_options_merge(stack->options, *name ? name : NULL, layer->open);
        if (!stack->blkdebug && strcmp(layer->driver, "blkdebug") == 0) {
            stack->blkdebug = g_strdup(prefix);
        }
        g_free(name);
        g_free(prefix);
        prefix = next;
    }
    g_free(prefix);
}

/**
 * bdrv_test_stack_make() - make the disk and the image of a stack, and do not open it yet
 * @text: see the head of this file
 *
 * For tests that set something up between, by stack->disk or stack->graph.
 */
static inline BdrvTestStack *blocking_fn bdrv_test_stack_make(const char *text)
{
    BdrvTestStack *stack = g_new0(BdrvTestStack, 1);
    GPtrArray *layers = bdrv_test_parse_stack(text);
    BdrvTestLayer *lowest = (BdrvTestLayer *)layers->pdata[layers->len - 1];

    stack->text = g_strdup(text);
    stack->graph = bdrv_graph_new();
    stack->options = bdrv_options_new();
    stack->rules = bdrv_options_new();
    bdrv_graph_add_secret(stack->graph, BDRV_TEST_SECRET, BDRV_TEST_PASSPHRASE, strlen(BDRV_TEST_PASSPHRASE), NULL);
    if (strcmp(lowest->driver, "simdisk") == 0) {
        bdrv_test_make_disk(stack, lowest);
    }
    bdrv_test_make_image(stack, layers);
    bdrv_test_make_options(stack, layers);
    g_ptr_array_free(layers, TRUE);
    return stack;
}

/* ---- opening and closing ---- */

/** bdrv_test_stack_try_open() - open a stack that is closed; false: it cannot be, @errp says why */
static inline bool blocking_fn bdrv_test_stack_try_open(BdrvTestStack *stack, BdrvOpenFlags flags, GError **errp)
{
    BdrvOptions *options = bdrv_options_copy(stack->options);

    g_assert(!stack->blk);
    bdrv_options_merge(options, NULL, stack->rules);
    stack->flags = flags;
    stack->blk = blk_open(stack->graph, NULL, options, flags, errp);
    return stack->blk != NULL;
}

/** bdrv_test_stack_open() - open a stack that is closed; it must succeed */
static inline void blocking_fn bdrv_test_stack_open(BdrvTestStack *stack, BdrvOpenFlags flags)
{
    GError *error = NULL;

    bdrv_test_stack_try_open(stack, flags, &error);
    bdrv_test_fail_on_error(BDRV_TEST_HERE, error, stack->text);
}

/** bdrv_test_stack_new() - make a stack and open it, for writing, resizing and discarding
 * @text: see the head of this file */
static inline BdrvTestStack *blocking_fn bdrv_test_stack_new(const char *text)
{
    BdrvTestStack *stack = bdrv_test_stack_make(text);

    bdrv_test_stack_open(stack, (BdrvOpenFlags)(BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_UNMAP));
    return stack;
}

/** bdrv_test_stack_close() - close the handle, if it is open; it must succeed, and no node may be left */
static inline void blocking_fn bdrv_test_stack_close(BdrvTestStack *stack)
{
    GError *error = NULL;
    char *left;

    blk_close(stack->blk, &error);
    stack->blk = NULL;
    bdrv_test_fail_on_error(BDRV_TEST_HERE, error, "closing the stack");
    left = bdrv_graph_to_text(stack->graph);
    if (*left) {
        bdrv_test_fail(BDRV_TEST_HERE, "stack '%s' is closed, and these nodes are still open:\n%s", stack->text, left);
    }
    g_free(left);
}

/**
 * bdrv_test_stack_free() - close the stack, and let go of its disk
 *
 * Closing must succeed, and afterwards nobody may have a node of the graph or a reference to a disk that the stack
 * has made. NULL is allowed.
 */
static inline void blocking_fn bdrv_test_stack_free(BdrvTestStack *stack)
{
    BdrvSimDisk *left;

    if (!stack) {
        return;
    }
    bdrv_test_stack_close(stack);
    if (stack->disk) {
        bdrv_simdisk_unref(stack->disk);
        left = stack->own_disk ? bdrv_simdisk_find(stack->disk_name) : NULL;
        if (left) {
            bdrv_test_fail(BDRV_TEST_HERE, "stack '%s' is closed, and somebody has a reference to its disk",
                           stack->text);
        }
    }
    bdrv_options_free(stack->options);
    bdrv_options_free(stack->rules);
    bdrv_graph_unref(stack->graph);
    g_free(stack->disk_name);
    g_free(stack->blkdebug);
    g_free(stack->text);
    g_free(stack);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BdrvTestStack, bdrv_test_stack_free)

/** bdrv_test_reopen() - close the stack and open it anew, with the same flags: what is read afterwards was stored */
static inline void blocking_fn bdrv_test_reopen(BdrvTestStack *stack)
{
    bdrv_test_stack_close(stack);
    bdrv_test_stack_open(stack, stack->flags);
}

/* ---- faults ---- */

/**
 * bdrv_test_inject_nth() - let a call that reaches the disk fail
 * @kinds: which calls count, BDRV_SIM_WRITE | …
 * @nth: 1 is the next one
 * @error: errno value that it fails with
 */
static inline void bdrv_test_inject_nth(BdrvTestStack *stack, unsigned kinds, unsigned nth, int error)
{
    if (!stack->disk) {
        bdrv_test_fail(BDRV_TEST_HERE, "stack '%s' has no simdisk that could fail", stack->text);
    }
    bdrv_simdisk_fail(stack->disk, kinds, nth, 1, error);
}

/** bdrv_test_set_rule() - one option of a rule of the blkdebug layer: @list[@number].@key */
static inline void bdrv_test_set_rule(BdrvTestStack *stack, const char *list, unsigned number, const char *key,
                                      const char *value)
{
    char *name = g_strdup_printf("%s%s.%u.%s", stack->blkdebug, list, number, key);

    bdrv_options_set_string(stack->rules, name, value);
    g_free(name);
}

/** bdrv_test_set_rule_number() - the same with a number as the value */
static inline void bdrv_test_set_rule_number(BdrvTestStack *stack, const char *list, unsigned number, const char *key,
                                             unsigned value)
{
    char *text = g_strdup_printf("%u", value);

    bdrv_test_set_rule(stack, list, number, key, text);
    g_free(text);
}

/**
 * bdrv_test_inject_event() - let the request fail that follows an event; the stack must have a layer "blkdebug"
 * @event: its name, as in <bdrv/events.h>; the drivers above blkdebug raise it
 * @nth: 1 is the first such event after this call
 * @error: errno value that the request fails with; it is one request
 *
 * The stack is closed, and opened anew with the rules, which replace those of an earlier call and come with each
 * opening. Rules of the string's own are [inject-error.0.event=…] of blkdebug, and cannot go with these.
 */
static inline void blocking_fn bdrv_test_inject_event(BdrvTestStack *stack, const char *event, unsigned nth, int error)
{
    if (!stack->blkdebug) {
        bdrv_test_fail(BDRV_TEST_HERE, "stack '%s' has no layer 'blkdebug' that would notice events", stack->text);
    }
    bdrv_options_free(stack->rules);
    stack->rules = bdrv_options_new();
    for (unsigned state = 1; state < nth; state++) { /* the state counts the events */
        bdrv_test_set_rule(stack, "set-state", state - 1, "event", event);
        bdrv_test_set_rule_number(stack, "set-state", state - 1, "state", state);
        bdrv_test_set_rule_number(stack, "set-state", state - 1, "new_state", state + 1);
    }
    bdrv_test_set_rule(stack, "inject-error", 0, "event", event);
    bdrv_test_set_rule_number(stack, "inject-error", 0, "state", nth);
    bdrv_test_set_rule_number(stack, "inject-error", 0, "errno", (unsigned)error);
    bdrv_test_set_rule(stack, "inject-error", 0, "once", "on");
    bdrv_test_reopen(stack);
}

/** bdrv_test_inject_none() - nothing fails any more; the stack is opened anew if bdrv_test_inject_event() was called */
static inline void blocking_fn bdrv_test_inject_none(BdrvTestStack *stack)
{
    bool rules = bdrv_options_count(stack->rules) > 0;

    if (stack->disk) {
        bdrv_simdisk_fail_none(stack->disk);
    }
    bdrv_options_free(stack->rules);
    stack->rules = bdrv_options_new();
    if (rules) {
        bdrv_test_reopen(stack);
    }
}

/** bdrv_test_after_power_loss() - the content of the disk if its power were lost now; see bdrv_test_power_loss() */
static inline BdrvSimSaved *bdrv_test_after_power_loss(BdrvTestStack *stack, uint64_t seed)
{
    BdrvSimCut *cut = bdrv_simdisk_cut(stack->disk);
    BdrvSimChoice *choices = g_new0(BdrvSimChoice, bdrv_simcut_count(cut) + 1);
    char *name = g_strconcat(stack->disk_name, "-after-power-loss", NULL);
    BdrvSimDisk *left;
    BdrvSimSaved *saved;

    if (seed) {
        bdrv_simcut_random(cut, seed, choices);
    }
    left = bdrv_simcut_disk(cut, choices, name);
    g_assert_nonnull(left);
    saved = bdrv_simdisk_save(left);
    bdrv_simdisk_unref(left);
    bdrv_simcut_unref(cut);
    g_free(choices);
    g_free(name);
    return saved;
}

/**
 * bdrv_test_power_loss() - cut the disk's power, and open the stack from what is left
 * @seed: 0: everything that was not flushed is lost; else it decides which writes are lost, kept, or torn
 *
 * Nothing fails any more then, and bdrv_simdisk_set_…() stays. The stack must end with a simdisk.
 */
static inline void blocking_fn bdrv_test_power_loss(BdrvTestStack *stack, uint64_t seed)
{
    BdrvSimSaved *saved;

    if (!stack->disk) {
        bdrv_test_fail(BDRV_TEST_HERE, "stack '%s' has no simdisk that could lose its power", stack->text);
    }
    saved = bdrv_test_after_power_loss(stack, seed);
    bdrv_simdisk_fail_none(stack->disk);
    bdrv_options_free(stack->rules);
    stack->rules = bdrv_options_new();
    blk_close(stack->blk, NULL); /* what this writes comes to nothing */
    stack->blk = NULL;
    bdrv_simdisk_restore(stack->disk, saved);
    bdrv_simsaved_free(saved);
    bdrv_test_stack_open(stack, stack->flags);
}

/* ---- assertions ---- */

/** bdrv_test_expect_result() - what bdrv_test_assert_ok() and bdrv_test_assert_fails() call
 * @error: errno value that is expected, 0: success; @text: the expression */
static inline void bdrv_test_expect_result(const char *file, int line, const char *func, const char *text, int64_t ret,
                                           int error)
{
    if (error ? ret != -error : ret < 0) {
        bdrv_test_fail(file, line, func, "%s: expected %s (%d), found %s (%lld)", text,
                       error ? g_strerror(error) : "success", -error,
                       ret < 0 && ret > -4096 ? g_strerror((int)-ret) : "success", (long long)ret);
    }
}

/** bdrv_test_assert_ok() - that a call returned no error: 0, or a number that is not negative */
#define bdrv_test_assert_ok(ret) bdrv_test_expect_result(BDRV_TEST_HERE, #ret, (ret), 0)
/** bdrv_test_assert_fails() - that a call returned -@error: bdrv_test_assert_fails(blk_flush(stack->blk), EIO) */
#define bdrv_test_assert_fails(ret, error) bdrv_test_expect_result(BDRV_TEST_HERE, #ret, (ret), (error))

/** bdrv_test_tell_difference() - end the test: the bytes from @offset on are not those expected
 * @first: the first byte that differs, from @offset; @found, @expected: @bytes bytes */
static inline void bdrv_test_tell_difference(const char *file, int line, const char *func, int64_t offset,
                                             const uint8_t *found, const uint8_t *expected, gsize first, gsize bytes)
{
    gsize count = 0, last = first;

    for (gsize i = first; i < bytes; i++) {
        if (found[i] != expected[i]) {
            count++;
            last = i;
        }
    }
    bdrv_test_fail(file, line, func,
                   "at offset %lld: expected 0x%02x, found 0x%02x; of the bytes up to %lld, %lu differ",
                   (long long)(offset + (int64_t)first), expected[first], found[first],
                   (long long)(offset + (int64_t)last), (unsigned long)count);
}

#define BDRV_TEST_PIECE 65536 /* bytes that the assertions read at once */

/** bdrv_test_expect_read() - what the assertions about content call
 * @expected: @bytes bytes; NULL: each is @byte */
static inline void blocking_fn bdrv_test_expect_read(const char *file, int line, const char *func, BdrvTestStack *stack,
                                                     int64_t offset, int64_t bytes, const void *expected, uint8_t byte)
{
    uint8_t *found = (uint8_t *)g_malloc(BDRV_TEST_PIECE), *pattern = (uint8_t *)g_malloc(BDRV_TEST_PIECE);

    memset(pattern, byte, BDRV_TEST_PIECE);
    for (int64_t at = 0, piece; at < bytes; at += piece) {
        const uint8_t *right = expected ? (const uint8_t *)expected + at : pattern;
        int ret;

        piece = MIN(bytes - at, BDRV_TEST_PIECE);
        ret = blk_pread(stack->blk, offset + at, piece, found, (BdrvRequestFlags)0);
        if (ret < 0) {
            bdrv_test_fail(file, line, func, "reading %lld bytes at offset %lld: %s", (long long)piece,
                           (long long)(offset + at), g_strerror(-ret));
        }
        for (int64_t i = 0; i < piece; i++) {
            if (found[i] != right[i]) {
                bdrv_test_tell_difference(file, line, func, offset + at, found, right, (gsize)i, (gsize)piece);
            }
        }
    }
    g_free(pattern);
    g_free(found);
}

/** bdrv_test_assert_read() - that the @bytes at @offset are those of @expected */
#define bdrv_test_assert_read(stack, offset, bytes, expected)                                                          \
    bdrv_test_expect_read(BDRV_TEST_HERE, (stack), (offset), (bytes), (expected), 0)
/** bdrv_test_assert_pattern() - that each of the @bytes at @offset is @byte */
#define bdrv_test_assert_pattern(stack, offset, bytes, byte)                                                           \
    bdrv_test_expect_read(BDRV_TEST_HERE, (stack), (offset), (bytes), NULL, (byte))
/** bdrv_test_assert_zero() - that the @bytes at @offset read as zeroes */
#define bdrv_test_assert_zero(stack, offset, bytes) bdrv_test_assert_pattern(stack, offset, bytes, 0)

/** bdrv_test_put_pattern() - what bdrv_test_write_pattern() calls */
static inline void blocking_fn bdrv_test_put_pattern(const char *file, int line, const char *func, BdrvTestStack *stack,
                                                     int64_t offset, int64_t bytes, uint8_t byte)
{
    void *pattern = g_malloc((gsize)bytes);
    int ret;

    memset(pattern, byte, (gsize)bytes);
    ret = blk_pwrite(stack->blk, offset, bytes, pattern, (BdrvRequestFlags)0);
    g_free(pattern);
    if (ret < 0) {
        bdrv_test_fail(file, line, func, "writing %lld bytes at offset %lld: %s", (long long)bytes, (long long)offset,
                       g_strerror(-ret));
    }
}

/** bdrv_test_write_pattern() - one write of @bytes at @offset, each @byte; it must succeed */
#define bdrv_test_write_pattern(stack, offset, bytes, byte)                                                            \
    bdrv_test_put_pattern(BDRV_TEST_HERE, (stack), (offset), (bytes), (byte))

/** bdrv_test_note_finding() - a report function for blk_check(): a line of a GString each */
static inline void bdrv_test_note_finding(void *opaque, const BdrvCheckKind *kind, const char *text)
{
    g_string_append_printf((GString *)opaque, "\n%s: %s", kind->name, text);
}

/** bdrv_test_expect_clean() - what bdrv_test_assert_check_clean() calls; @leaks: these may be there */
static inline void blocking_fn bdrv_test_expect_clean(const char *file, int line, const char *func,
                                                      BdrvTestStack *stack, bool leaks)
{
    GString *findings = g_string_new(NULL);
    GError *error = NULL;
    BdrvCheckResult result;

    memset(&result, 0, sizeof(result));
    result.report = bdrv_test_note_finding;
    result.report_opaque = findings;
    blk_check(stack->blk, &result, BDRV_FIX_NONE, &error);
    bdrv_test_fail_on_error(file, line, func, error, "checking the image");
    if (result.corruptions || result.check_errors || (result.leaks && !leaks)) {
        bdrv_test_fail(file, line, func, "the image is not clean: %lld corruptions, %lld leaks, %lld errors%s",
                       (long long)result.corruptions, (long long)result.leaks, (long long)result.check_errors,
                       findings->str);
    }
    g_string_free(findings, TRUE);
}

/** bdrv_test_assert_check_clean() - that a check of the image finds nothing; its format must have one */
#define bdrv_test_assert_check_clean(stack) bdrv_test_expect_clean(BDRV_TEST_HERE, (stack), false)
/** bdrv_test_assert_check_sound() - that it finds leaks at worst, as after a power loss */
#define bdrv_test_assert_check_sound(stack) bdrv_test_expect_clean(BDRV_TEST_HERE, (stack), true)

G_END_DECLS
#endif
