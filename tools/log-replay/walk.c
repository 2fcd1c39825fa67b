/* SPDX-License-Identifier: MIT */

/* From the place where to start to the place where to stop: find, list, or replay and check. */

#include "tools/log-replay/walk.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

/* A walk under way. */
typedef struct Walker {
    const LogWalk *walk;
    BdrvGraph *graph;
    LogReader reader;
    LogEntry entry;
    BlockBackend *target; /* NULL while it is closed, so that a check finds it unlocked */
    uint64_t passed;      /* entries since the start */
    bool started;
} Walker;

/* ---- the target ---- */

static bool blocking_fn open_target(Walker *walker, GError **errp)
{
    const char *filename = walker->walk->replay;
    BdrvOptions *options;

    if (walker->target || !filename) {
        return true;
    }
    options = bdrv_options_new();
    bdrv_options_set_string(options, "driver", "raw");
    walker->target = blk_open(walker->graph, filename, options, BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_UNMAP, errp);
    if (!walker->target) {
        return false;
    }
    blk_allow_write_beyond_eof(walker->target, true);
    return true;
}

static bool blocking_fn close_target(Walker *walker, GError **errp)
{
    return blk_close(g_steal_pointer(&walker->target), errp);
}

/* A target that is not there is begun empty: its length comes with the writes. */
static bool blocking_fn make_target(Walker *walker, GError **errp)
{
    const char *filename = walker->walk->replay;
    BdrvOptions *options;

    if (!filename || strchr(filename, ':') || g_file_test(filename, G_FILE_TEST_EXISTS)) {
        return true;
    }
    options = bdrv_options_new();
    bdrv_options_set_int(options, "size", 0);
    return bdrv_create_image(walker->graph, "raw", filename, options, errp);
}

/* ---- checks ---- */

static bool check_is_due(const Walker *walker)
{
    const LogWalk *walk = walker->walk;

    return (walk->check_every && walker->passed % walk->check_every == 0) ||
           (walk->check_flags & walker->entry.item.flags);
}

/* The target is closed meanwhile. */
static bool blocking_fn check_target(Walker *walker, GError **errp)
{
    g_autofree char *number = g_strdup_printf("%" PRIu64, walker->entry.number);
    int status;

    if (!close_target(walker, errp)) {
        return false;
    }
    fflush(stdout);
    g_setenv("BDRV_LOG_ENTRY", number, true);
    status = system(walker->walk->fsck);
    if (status != 0) {
        g_set_error(errp, BDRV_ERROR, EIO, "the check failed behind entry %s: %s %d", number,
                    WIFSIGNALED(status) ? "signal" : "exit code",
                    WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
    return status == 0 && open_target(walker, errp);
}

/* ---- the walk ---- */

static bool has_mark(const Walker *walker, const char *name)
{
    return name && (walker->entry.item.flags & BDRV_LOG_MARK) && strcmp(walker->entry.mark, name) == 0;
}

static bool blocking_fn visit(Walker *walker, GError **errp)
{
    const LogWalk *walk = walker->walk;

    if (walk->list || walk->verbose) {
        g_autofree char *text = log_entry_text(&walker->entry);
        printf("%s\n", text);
    }
    if (walk->replay && !log_replay_entry(&walker->reader, &walker->entry, walker->target, !walk->no_discard, errp)) {
        return false;
    }
    walker->passed++;
    return !walk->fsck || !check_is_due(walker) || check_target(walker, errp);
}

/* Whether the entry that was read last is the one that is looked for. */
static bool is_the_end(const Walker *walker)
{
    const LogWalk *walk = walker->walk;

    return has_mark(walker, walk->end_mark) || (walk->stop_flags & walker->entry.item.flags);
}

static bool starts_here(const Walker *walker)
{
    const LogWalk *walk = walker->walk;

    return walk->start_mark ? has_mark(walker, walk->start_mark) : walker->entry.number >= walk->start_entry;
}

/* *@found: the end that was asked for was reached. */
static bool blocking_fn go(Walker *walker, bool *found, GError **errp)
{
    const LogWalk *walk = walker->walk;
    GError *error = NULL;

    while (!*found && !(walk->limit && walker->passed >= walk->limit) &&
           log_reader_next(&walker->reader, &walker->entry, &error)) {
        walker->started = walker->started || starts_here(walker);
        if (!walker->started) {
            continue;
        }
        *found = is_the_end(walker);
        if (!visit(walker, &error)) {
            break;
        }
    }
    if (error) {
        g_propagate_error(errp, error);
        return false;
    }
    return true;
}

static bool check_found(const Walker *walker, bool found, GError **errp)
{
    const LogWalk *walk = walker->walk;

    if (walk->start_mark && !walker->started) {
        g_set_error(errp, BDRV_ERROR, ENOENT, "there is no mark '%s' in the log", walk->start_mark);
        return false;
    }
    if ((walk->find || walk->end_mark) && !found) {
        g_set_error(errp, BDRV_ERROR, ENOENT, "what was looked for is not among the %" PRIu64 " entries from there on",
                    walker->passed);
        return false;
    }
    return true;
}

static bool blocking_fn run(Walker *walker, GError **errp)
{
    bool found = false;

    if (walker->walk->num_entries) {
        printf("%" PRIu64 "\n", walker->reader.nr_entries);
        return true;
    }
    if (!make_target(walker, errp) || !open_target(walker, errp) || !go(walker, &found, errp) ||
        !check_found(walker, found, errp)) {
        return false;
    }
    if (walker->walk->find) {
        printf("%" PRIu64 "@%" PRId64 "\n", walker->entry.number, walker->entry.at / walker->reader.sector_size);
    }
    return true;
}

int blocking_fn log_walk(const LogWalk *walk)
{
    g_autofree Walker *walker = g_new0(Walker, 1); /* holds the text of a mark */
    GError *error = NULL;
    bool ok;

    walker->walk = walk;
    walker->graph = tool_graph();
    ok = log_reader_open(&walker->reader, walker->graph, walk->log, &error);
    if (ok) {
        ok = run(walker, &error);
        if (!close_target(walker, ok ? &error : NULL)) {
            ok = false;
        }
        log_reader_close(&walker->reader);
    }
    bdrv_graph_unref(walker->graph);
    if (!ok) {
        tool_report(NULL, error);
    }
    return ok ? 0 : 1;
}
