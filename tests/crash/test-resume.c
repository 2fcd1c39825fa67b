/* SPDX-License-Identifier: MIT */
/* A crash search that was interrupted and went on counts what one in one go counts. */

#include <errno.h>
#include <string.h>

#include <glib/gstdio.h>

#include "tests/crash/resume.h"

typedef struct Totals {
    uint64_t histories, cuts;
    JudgeCounts counts;
} Totals;

/* Until it has gone through @stop_after histories (0: to the end), from where the file says. */
static Totals go_on(const char *path, const SearchOptions *options, uint64_t stop_after)
{
    g_autofree Search *search = g_new0(Search, 1);
    SearchOptions part = *options;
    Resume resume;
    GError *error = NULL;

    part.stop_after = stop_after;
    g_assert_true(resume_open(&resume, path, &part, &error));
    search_init(search, &crash_images[0], &part);
    g_assert_true(resume_load(&resume, search));
    g_assert_true(search_run(search));
    g_assert_true(search->finished == (stop_after == 0));
    resume_save(&resume, search);
    resume_close(&resume);
    Totals totals = { search->histories, search->cuts, search->judge.counts };
    search_clear(search);
    return totals;
}

static char *new_path(void)
{
    char *path;
    int fd = g_file_open_tmp("crash-resume-XXXXXX", &path, NULL);

    g_assert_true(g_close(fd, NULL));
    g_unlink(path);
    return path;
}

static void interrupt_twice(const SearchOptions *options, uint64_t first, uint64_t second)
{
    g_autofree char *path = new_path(), *other_path = new_path();
    Totals whole = go_on(other_path, options, 0);

    g_assert_cmpuint(go_on(path, options, first).histories, <, whole.histories);
    g_assert_cmpuint(go_on(path, options, second).histories, <, whole.histories);
    Totals parts = go_on(path, options, 0);
    g_assert_cmpmem(&parts, sizeof(parts), &whole, sizeof(whole));
    g_assert_cmpuint(whole.counts.distinct, >, 100);
    g_unlink(path);
    g_unlink(other_path);
}

static const SearchOptions base = { .shards = 1, .seed = 1, .only_cut = -1, .only_state = -1, .all_up_to = 4 };

static void test_sequences(void)
{
    SearchOptions options = base;
    options.length = 1;
    interrupt_twice(&options, 3, 11);
}

static void test_failures(void)
{
    SearchOptions options = base;
    options.length = 1;
    options.failures = true;
    options.all_up_to = 2;
    interrupt_twice(&options, 2, 9);
}

static void test_random_histories(void)
{
    SearchOptions options = base;
    options.histories = 3;
    options.all_up_to = 2;
    interrupt_twice(&options, 1, 2);
}

static void test_other_options(void)
{
    SearchOptions options = base, other = base;
    g_autofree char *path = new_path();
    Resume resume;
    GError *error = NULL;

    options.length = other.length = 1;
    other.seed = 2;
    go_on(path, &options, 2);
    g_assert_false(resume_open(&resume, path, &other, &error));
    g_assert_error(error, BDRV_ERROR, EINVAL);
    g_assert_nonnull(strstr(error->message, "use another file"));
    g_error_free(error);
    resume_close(&resume);
    g_unlink(path);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/crash/resume/sequences in three parts count as in one", test_sequences);
    g_test_add_func("/crash/resume/failing calls in three parts count as in one", test_failures);
    g_test_add_func("/crash/resume/random histories in three parts count as in one", test_random_histories);
    g_test_add_func("/crash/resume/a file of another search is refused", test_other_options);
    return g_test_run();
}
