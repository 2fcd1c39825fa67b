/* SPDX-License-Identifier: MIT */
/* bdrv-driver-test: take a driver through its paces. */
#include "tools/driver-test/kit.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/common/tool.h"

#define SHOWN_NOTES 40 /* lines that a failure is told with */
enum { PASSED = 0, FAILED = 1, SKIPPED = 77 };

static const KitTest *const groups[] = { table_tests,  conformance_tests, limits_tests, concurrency_tests,
                                         faults_tests, hostile_tests,     reopen_tests, crash_tests };

/* ---- in the process of a test ---- */

void kit_note(const char *format, ...)
{
    va_list arguments;
    g_autofree char *text = NULL;

    va_start(arguments, format);
    text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    fprintf(stdout, "  %s\n", text);
}

static void G_NORETURN end_with(int status, const char *word, const char *format, va_list arguments)
{
    g_autofree char *text = g_strdup_vprintf(format, arguments);

    fprintf(stdout, "%s%s\n", word, text);
    fflush(stdout);
    _exit(status); /* what the test has open is of no interest any more */
}

void kit_fail(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    end_with(FAILED, "FAILED: ", format, arguments);
}

void kit_hangs(const char *format, ...)
{
    va_list arguments;

    kit_show_coroutines();
    va_start(arguments, format);
    end_with(FAILED, "FAILED: no answer, it hangs: ", format, arguments);
}

void kit_need_file(const Kit *kit)
{
    if (kit->n_children == 0) {
        kit_skip("a protocol has no file below it");
    }
}

void kit_need_crash_safety(const Kit *kit)
{
    if (!kit->crash_safe) {
        kit_skip("nobody claims that the driver is crash safe: --crash-safe");
    }
    kit_need_file(kit);
}

void kit_skip(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    end_with(SKIPPED, "", format, arguments);
}

static G_NORETURN void run_here(const Kit *kit, const KitTest *test, FILE *notes)
{
    bool real = test->real_threads || kit->n_children == 0; /* a protocol waits for the world */
    AioSim *sim = real ? NULL : aio_sim_new(kit->seed);
    AioContext *ctx = sim ? aio_sim_context_new(sim) : NULL;

    dup2(fileno(notes), STDOUT_FILENO);
    dup2(fileno(notes), STDERR_FILENO);
    setvbuf(stdout, NULL, _IONBF, 0); /* a crash must not lose them */
    kit_watch(kit->timeout);
    if (ctx) {
        aio_context_enter(ctx);
    }
    test->run(kit);
    if (ctx) {
        aio_context_leave(ctx);
        aio_context_unref(ctx);
        while (aio_sim_step(sim)) {
        }
        aio_sim_free(sim);
    }
    kit_watch_end();
    exit(PASSED);
}

/* ---- the report ---- */

static void show_notes(FILE *notes)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;
    long length;
    guint count;

    fseek(notes, 0, SEEK_END);
    length = ftell(notes);
    rewind(notes);
    text = g_malloc0((gsize)length + 1);
    length = (long)fread(text, 1, (size_t)length, notes);
    lines = g_strsplit(g_strchomp(text), "\n", -1);
    count = g_strv_length(lines);
    if (count > SHOWN_NOTES) {
        printf("#   (%u lines before)\n", count - SHOWN_NOTES);
    }
    for (guint i = count > SHOWN_NOTES ? count - SHOWN_NOTES : 0; i < count; i++) {
        printf("# %s\n", lines[i]);
    }
}

static void append_option(GString *command, const char *option, const char *value)
{
    if (value) {
        g_autofree char *quoted = g_shell_quote(value);
        g_string_append_printf(command, " %s %s", option, quoted);
    }
}

static char *image_name;
static char **child_names;

static char *replay_command(const Kit *kit, const KitTest *test)
{
    GString *command = g_string_new("bdrv-driver-test");

    for (char **module = kit->modules; module && *module; module++) {
        append_option(command, "--module", *module);
    }
    append_option(command, "--driver", kit->driver);
    for (char **name = child_names; name && *name; name++) {
        append_option(command, "--child", *name);
    }
    append_option(command, "--filename", kit->filename);
    append_option(command, "--create", kit->create);
    append_option(command, "--open", kit->open);
    append_option(command, "--image", image_name);
    g_string_append_printf(command,
                           " --size %" PRId64 " --rounds %u --faults-stride %u --cuts %u --seed %" PRIu64,
                           kit->size, kit->rounds, kit->stride, kit->cuts, kit->seed);
    g_string_append_printf(command, "%s --test %s", kit->crash_safe ? " --crash-safe" : "", test->name);
    return g_string_free(command, FALSE);
}

static const char *last_line(FILE *notes, char *line, int size)
{
    rewind(notes);
    while (fgets(line, size, notes)) {
    }
    return g_strchomp(line);
}

static unsigned passed; /* tests */

static bool report(const Kit *kit, const KitTest *test, unsigned number, int status, FILE *notes)
{
    g_autofree char *command = NULL;
    char line[400] = "";

    if (WIFEXITED(status) && WEXITSTATUS(status) == PASSED) {
        printf("ok %u %s\n", number, test->name);
        passed++;
        return true;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED) {
        printf("ok %u %s # SKIP %s\n", number, test->name, last_line(notes, line, sizeof(line)));
        return true;
    }
    command = replay_command(kit, test);
    printf("not ok %u %s\n# wanted: %s\n# what was done, and what came:\n", number, test->name, test->what);
    show_notes(notes);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM) {
        printf("# HANGS: not at an end after %u seconds\n", kit->timeout);
    } else if (WIFSIGNALED(status)) {
        printf("# CRASHED: %s\n", strsignal(WTERMSIG(status)));
    } else if (WEXITSTATUS(status) != FAILED) {
        printf("# the process ended with %d\n", WEXITSTATUS(status));
    }
    printf("# once more: %s\n", command);
    return false;
}

static bool run_test(const Kit *kit, const KitTest *test, unsigned number)
{
    FILE *notes = tmpfile();
    int status = 0;
    pid_t pid;
    bool good;

    fflush(stdout);
    pid = notes ? fork() : -1;
    if (pid == 0) {
        run_here(kit, test, notes);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        tool_error("cannot run a test: %s", g_strerror(errno));
        exit(2);
    }
    good = report(kit, test, number, status, notes);
    fclose(notes);
    return good;
}

/* ---- the command line ---- */

static bool named(const KitTest *test, char **names)
{
    bool any = false;

    for (char **name = names; name && *name; name++) {
        gsize length = strlen(*name);

        any |= strncmp(test->name, *name, length) == 0 && (!test->name[length] || test->name[length] == '/');
    }
    return any;
}

static GPtrArray *choose(char **names, char **skipped)
{
    GPtrArray *tests = g_ptr_array_new();

    for (unsigned i = 0; i < G_N_ELEMENTS(groups); i++) {
        for (const KitTest *test = groups[i]; test->name; test++) {
            if ((!names || named(test, names)) && !named(test, skipped)) {
                g_ptr_array_add(tests, (gpointer)test);
            }
        }
    }
    return tests;
}

static G_NORETURN void fail(const char *message)
{
    tool_error("%s; try '%s --help'", message, tool_name());
    exit(2);
}

/* Where images come from goes with what stands below the driver. */
static void check_names(const Kit *kit)
{
    if (kit->n_children == 0 && !kit->filename) {
        tool_error(
            "driver '%s' is a protocol: it has no file below it that the kit could make. Say with --filename "
            "where it may make images, and overwrite what is there",
            kit->driver);
        exit(2);
    }
    if (kit->n_children > 0 && kit->filename) {
        tool_error("--filename is for protocols: the images of driver '%s' are made in memory", kit->driver);
        exit(2);
    }
    if (kit->n_children == 0 && image_name) {
        tool_error("--image is for drivers with a file below them, '%s' is a protocol", kit->driver);
        exit(2);
    }
}

static void load(Kit *kit)
{
    GError *error = NULL;

    for (char **module = kit->modules; module && *module; module++) {
        if (!bdrv_module_load(*module, &error)) {
            tool_report(*module, error);
            exit(2);
        }
    }
    if (!kit->driver) {
        fail("--driver NAME is missing");
    }
    if (!bdrv_driver_known(kit->driver)) {
        tool_error("there is no driver '%s'", kit->driver);
        exit(2);
    }
    kit_find_children(kit, child_names);
    check_names(kit);
    if (image_name && !g_file_get_contents(image_name, (char **)&kit->image, &kit->image_bytes, &error)) {
        tool_report(NULL, error);
        exit(2);
    }
}

static void parse_options(Kit *kit, int argc, char **argv, char ***names, char ***skipped, gboolean *list)
{
    g_autofree char *size = NULL;
    gint64 seed = 1;
    gint rounds = 120, stride = 1, cuts = 120, timeout = 120;
    gboolean crash_safe = FALSE, version = FALSE;
    g_auto(GStrv) objects = NULL;
    GError *error = NULL;
    const GOptionEntry entries[] = {
        { "module", 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &kit->modules, "load this module (may be repeated)",
          "FILE" },
        { "driver", 0, 0, G_OPTION_ARG_STRING, &kit->driver, "the driver to test", "NAME" },
        { "child", 0, 0, G_OPTION_ARG_STRING_ARRAY, &child_names,
          "give the driver this child too, which it can do without: backing, data-file, ... (may be "
          "repeated)",
          "NAME" },
        { "filename", 0, 0, G_OPTION_ARG_STRING, &kit->filename,
          "where a protocol makes its images; what is there is overwritten", "NAME" },
        { "create", 0, 0, G_OPTION_ARG_STRING, &kit->create,
          "options of creation; {NAME} is the file of a child", "KEY=VALUE,..." },
        { "open", 0, 0, G_OPTION_ARG_STRING, &kit->open, "options of opening", "KEY=VALUE,..." },
        { "image", 0, 0, G_OPTION_ARG_FILENAME, &image_name, "begin each test with a copy of this image",
          "FILE" },
        { "object", 0, 0, G_OPTION_ARG_STRING_ARRAY, &objects, "a secret, as for bdrv-img", "secret,..." },
        { "size", 0, 0, G_OPTION_ARG_STRING, &size, "size of the disk (1M)", "BYTES" },
        { "seed", 0, 0, G_OPTION_ARG_INT64, &seed, "what is random follows from it (1)", "N" },
        { "rounds", 0, 0, G_OPTION_ARG_INT, &rounds, "random operations in a test (120)", "N" },
        { "test", 0, 0, G_OPTION_ARG_STRING_ARRAY, names, "run this test or group (may be repeated)",
          "NAME" },
        { "skip", 0, 0, G_OPTION_ARG_STRING_ARRAY, skipped, "leave this test or group out (may be repeated)",
          "NAME" },
        { "list", 0, 0, G_OPTION_ARG_NONE, list, "list the tests", NULL },
        { "crash-safe", 0, 0, G_OPTION_ARG_NONE, &crash_safe,
          "the driver survives power losses: see that it does", NULL },
        { "faults-stride", 0, 0, G_OPTION_ARG_INT, &stride, "let one call in N fail (1)", "N" },
        { "cuts", 0, 0, G_OPTION_ARG_INT, &cuts, "look at about so many power losses (120)", "N" },
        { "timeout", 0, 0, G_OPTION_ARG_INT, &timeout, "a test that runs so long hangs (120)", "SECONDS" },
        { "version", 'V', 0, G_OPTION_ARG_NONE, &version, "print the version", NULL },
        { NULL },
    };
    g_autoptr(GOptionContext) context = g_option_context_new("- test a driver");

    g_option_context_set_summary(context,
                                 "Take a driver through conformance, limits, concurrency, faults, hostile "
                                 "files, reopening and power losses. The report is TAP.");
    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &error)) {
        fail(error->message);
    }
    if (version) {
        printf("%s (libbdrv) 0.1.0\n", tool_name());
        exit(0);
    }
    if (argc > 1) {
        fail("unexpected argument");
    }
    if (rounds < 1 || stride < 1 || cuts < 1 || timeout < 1) {
        fail("--rounds, --faults-stride, --cuts and --timeout are at least 1");
    }
    if (!bdrv_parse_size(size ? size : "1M", &kit->size, &error) || kit->size < 65536 ||
        kit->size > 32 << 20) {
        fail("--size is from 64k to 32M");
    }
    for (char **object = objects; object && *object; object++) {
        if (!tool_add_object(*object)) {
            exit(2);
        }
    }
    kit->seed = (uint64_t)seed;
    kit->rounds = (unsigned)rounds;
    kit->stride = (unsigned)stride;
    kit->cuts = (unsigned)cuts;
    kit->timeout = (unsigned)timeout;
    kit->crash_safe = crash_safe;
}

int main(int argc, char **argv)
{
    Kit kit = { 0 };
    g_auto(GStrv) names = NULL, skipped = NULL;
    g_autoptr(GPtrArray) tests = NULL;
    gboolean list = FALSE;
    unsigned failed = 0;

    tool_init(argv[0]);
    parse_options(&kit, argc, argv, &names, &skipped, &list);
    tests = choose(names, skipped);
    if (tests->len == 0) {
        fail("there is no such test");
    }
    for (unsigned i = 0; list && i < tests->len; i++) {
        const KitTest *test = tests->pdata[i];
        printf("%-26s %s\n", test->name, test->what);
    }
    if (list) {
        return 0;
    }
    load(&kit);
    printf("TAP version 13\n1..%u\n# driver %s, seed %" PRIu64 "\n", tests->len, kit.driver, kit.seed);
    for (unsigned i = 0; i < tests->len; i++) {
        failed += !run_test(&kit, tests->pdata[i], i + 1);
    }
    printf("# of %u tests %u passed, %u failed, %u were skipped\n", tests->len, passed, failed,
           tests->len - passed - failed);
    g_strfreev(kit.modules);
    g_free(kit.driver);
    g_strfreev(child_names);
    g_free(kit.filename);
    g_free(kit.create);
    g_free(kit.open);
    g_free(kit.image);
    g_free(image_name);
    return failed || !passed ? 1 : 0; /* a driver that nothing fits has not been tested */
}
