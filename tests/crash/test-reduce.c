/* SPDX-License-Identifier: MIT */
/* With a planted bug: what a random history finds is reduced to a few operations, which find it again. */

#include "tests/crash/search.h"

static bool finds(const CrashImage *image, const SearchOptions *options)
{
    g_autofree Search *search = g_new0(Search, 1);
    search_init(search, image, options);
    bool found = !search_run(search);
    search_clear(search);
    return found;
}

static char *without(char **ops, unsigned left_out)
{
    GString *text = g_string_new(NULL);
    for (unsigned i = 0; ops[i]; i++) {
        if (i != left_out) {
            g_string_append_printf(text, "%s%s", text->len ? "," : "", ops[i]);
        }
    }
    return g_string_free(text, FALSE);
}

static void test_reduced(void)
{
    const SearchOptions options = {
        .shards = 1, .seed = 1, .histories = 100, .only_cut = -1, .only_state = -1, .all_up_to = 3, .quiet = true,
    };
    const CrashImage *image = &crash_images[0];
    g_autofree Search *search = g_new0(Search, 1);

    search_init(search, image, &options);
    g_assert_false(search_run(search));
    g_test_message("%s", search->finding);
    SearchOptions replay = search->replay;
    g_autofree char *text = g_strdup(replay.ops);
    search_clear(search); /* one at a time: disks have names */

    replay.ops = text;
    replay.quiet = true;
    g_assert_cmpint(replay.only_cut, >=, 0);
    g_assert_true(finds(image, &replay));
    g_auto(GStrv) ops = g_strsplit(text, ",", -1);
    g_assert_cmpuint(g_strv_length(ops), <=, 4);
    for (unsigned i = 0; ops[i] && ops[1] && !replay.fail; i++) {
        g_autofree char *fewer = without(ops, i);
        SearchOptions again = replay;
        again.ops = fewer;
        again.only_cut = again.only_state = -1;
        g_assert_false(finds(image, &again));
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/crash/reduce/a finding is reduced to operations none of which can go", test_reduced);
    return g_test_run();
}
