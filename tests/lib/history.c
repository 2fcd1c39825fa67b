/* SPDX-License-Identifier: MIT */
/* Histories as objects and as text. */

#include "tests/lib/history.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/conformance.h"

static const char *const names[HISTORY_KINDS] = {
    [HISTORY_READ] = "read",       [HISTORY_WRITE] = "write",   [HISTORY_ZERO] = "zero",
    [HISTORY_DISCARD] = "discard", [HISTORY_FLUSH] = "flush",   [HISTORY_STATUS] = "status",
    [HISTORY_COPY] = "copy",       [HISTORY_DRAIN] = "drain",   [HISTORY_REOPEN] = "reopen",
    [HISTORY_HANDLE] = "handle",   [HISTORY_GROW] = "grow",     [HISTORY_SHRINK] = "shrink",
    [HISTORY_CHECK] = "check",     [HISTORY_SNAPSHOT] = "snapshot", [HISTORY_CLOSE] = "close",
    [HISTORY_RESIZE] = "resize",   [HISTORY_COMPARE] = "compare", [HISTORY_REOPEN_ALONE] = "reopen-alone",
    [HISTORY_SAVE] = "save",       [HISTORY_GOTO] = "goto",     [HISTORY_EMPTY] = "empty",
    [HISTORY_VMSTATE] = "vmstate", [HISTORY_REPAIR] = "repair", [HISTORY_AMEND] = "amend",
    [HISTORY_INVALIDATE] = "invalidate", [HISTORY_KEYS] = "keys", [HISTORY_AMEND_SIZE] = "amend-size",
    [HISTORY_COMMIT] = "commit",   [HISTORY_REBASE] = "rebase", [HISTORY_BACKING] = "backing",
    [HISTORY_BITMAP_ADD] = "bitmap-add",         [HISTORY_BITMAP_REMOVE] = "bitmap-remove",
    [HISTORY_BITMAP_ENABLE] = "bitmap-enable",   [HISTORY_BITMAP_DISABLE] = "bitmap-disable",
    [HISTORY_BITMAP_CLEAR] = "bitmap-clear",     [HISTORY_BITMAP_MERGE] = "bitmap-merge",
    [HISTORY_BITMAP_READ] = "bitmap-read",
};

static const struct {
    const char *name;
    BdrvRequestFlags flag;
} flag_names[] = {
    { "fua", BDRV_REQ_FUA },
    { "may-unmap", BDRV_REQ_MAY_UNMAP },
    { "compressed", BDRV_REQ_COMPRESSED },
    { "no-fallback", BDRV_REQ_NO_FALLBACK },
};

const char *history_kind_name(HistoryKind kind)
{
    return names[kind];
}

/* ---- objects ---- */

static void free_round(void *opaque)
{
    HistoryRound *round = opaque;

    g_array_unref(round->ops);
    g_free(round);
}

History *history_new(const char *stack)
{
    History *history = g_new0(History, 1);

    history->stack = g_strdup(stack);
    history->contexts = 1;
    history->rounds = g_ptr_array_new_with_free_func(free_round);
    return history;
}

HistoryRound *history_add_round(History *history)
{
    HistoryRound *round = g_new(HistoryRound, 1);

    round->ops = g_array_new(FALSE, FALSE, sizeof(HistoryOp));
    g_ptr_array_add(history->rounds, round);
    return round;
}

History *history_copy(const History *history)
{
    History *copy = g_new(History, 1);

    *copy = *history;
    copy->stack = g_strdup(history->stack);
    copy->origin = g_strdup(history->origin);
    copy->rounds = g_ptr_array_new_with_free_func(free_round);
    for (unsigned i = 0; i < history->rounds->len; i++) {
        const HistoryRound *round = history->rounds->pdata[i];

        g_array_append_vals(history_add_round(copy)->ops, round->ops->data, round->ops->len);
    }
    return copy;
}

void history_free(History *history)
{
    if (history) {
        g_ptr_array_unref(history->rounds);
        g_free(history->stack);
        g_free(history->origin);
        g_free(history);
    }
}

unsigned history_count_ops(const History *history)
{
    unsigned n = 0;

    for (unsigned i = 0; i < history->rounds->len; i++) {
        n += ((const HistoryRound *)history->rounds->pdata[i])->ops->len;
    }
    return n;
}

bool history_fits(const History *history, const ConformanceStack *stack)
{
    int64_t length = stack->length, saved = -1;

    for (unsigned i = 0; i < history->rounds->len; i++) {
        const HistoryRound *round = history->rounds->pdata[i];
        int64_t now = length;
        unsigned besides = 0;

        for (unsigned k = 0; k < round->ops->len; k++) {
            const HistoryOp *op = &g_array_index(round->ops, HistoryOp, k);
            bool copies = op->kind == HISTORY_COPY;

            if (history_is_alone(op->kind) && round->ops->len > 1) {
                return false;
            }
            besides += history_is_beside(op->kind);
            if (besides > 1) {
                return false;
            }
            if (history_resizes(op->kind)) {
                length = op->offset;
                if (length < (op->kind == HISTORY_GROW ? now : 512) ||
                    length > (op->kind == HISTORY_SHRINK ? now : stack->length + stack->room)) {
                    return false;
                }
            } else if (op->kind == HISTORY_SAVE) {
                saved = length;
            } else if (op->kind == HISTORY_GOTO) {
                length = saved < 0 ? length : saved;
            } else if (history_changes_chain(op->kind)) {
                saved = -1; /* it is deleted */
            } else if (history_has_range(op->kind) &&
                       (op->bytes < 1 || op->offset < 0 || op->offset + op->bytes > now ||
                        (copies && (op->source < 0 || op->source + op->bytes > now)))) {
                return false;
            }
        }
    }
    return true;
}

/* ---- text ---- */

static void print_op(GString *text, const HistoryOp *op)
{
    g_string_append(text, names[op->kind]);
    if (history_resizes(op->kind)) {
        g_string_append_printf(text, " length=%" PRId64 "\n", op->offset);
        return;
    }
    if (history_is_alone(op->kind) || history_is_beside(op->kind)) {
        if (op->seed) {
            g_string_append_printf(text, " seed=%" PRIu64, op->seed);
        }
        g_string_append_c(text, '\n');
        return;
    }
    g_string_append_printf(text, " lane=%u", op->lane);
    if (history_has_range(op->kind)) {
        g_string_append_printf(text, " offset=%" PRId64 " bytes=%" PRId64, op->offset, op->bytes);
    }
    if (op->kind == HISTORY_COPY) {
        g_string_append_printf(text, " source=%" PRId64, op->source);
    }
    g_string_append_printf(text, " seed=%" PRIu64, op->seed);
    if (op->turns) {
        g_string_append_printf(text, " turns=%u", op->turns);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(flag_names); i++) {
        g_string_append_printf(text, "%s%s", op->flags & flag_names[i].flag ? " " : "",
                               op->flags & flag_names[i].flag ? flag_names[i].name : "");
    }
    g_string_append(text, op->cancel ? " cancel\n" : "\n");
}

char *history_print(const History *history)
{
    GString *text = g_string_new("# A history for scripts/history BUILD --replay FILE\n");

    g_string_append_printf(text, "stack %s\ncontexts %u\nthreads %d\nidle %d\nyield %u\nschedule %" PRIu64 "\n",
                           history->stack, history->contexts, history->threads, history->idle, history->yield,
                           history->schedule);
    for (unsigned i = 0; i < history->rounds->len; i++) {
        const HistoryRound *round = history->rounds->pdata[i];

        g_string_append(text, "round\n");
        for (unsigned k = 0; k < round->ops->len; k++) {
            print_op(text, &g_array_index(round->ops, HistoryOp, k));
        }
    }
    return g_string_free(text, FALSE);
}

static bool parse_number(const char *text, uint64_t *number)
{
    char *end;

    errno = 0;
    *number = g_ascii_strtoull(text, &end, 10);
    return g_ascii_isdigit(*text) && !*end && !errno;
}

static bool parse_word(HistoryOp *op, char *word)
{
    char *value = strchr(word, '=');
    uint64_t number;

    if (!value) {
        for (unsigned i = 0; i < G_N_ELEMENTS(flag_names); i++) {
            if (g_str_equal(word, flag_names[i].name)) {
                op->flags |= flag_names[i].flag;
                return true;
            }
        }
        op->cancel |= g_str_equal(word, "cancel");
        return g_str_equal(word, "cancel");
    }
    *value++ = 0;
    if (!parse_number(value, &number)) {
        return false;
    }
    if (g_str_equal(word, "seed")) {
        op->seed = number;
    } else if (number > INT64_MAX) {
        return false;
    } else if (g_str_equal(word, "lane")) {
        op->lane = (unsigned)number;
    } else if (g_str_equal(word, "offset") || g_str_equal(word, "length")) {
        op->offset = (int64_t)number;
    } else if (g_str_equal(word, "bytes")) {
        op->bytes = (int64_t)number;
    } else if (g_str_equal(word, "source")) {
        op->source = (int64_t)number;
    } else if (g_str_equal(word, "turns")) {
        op->turns = (unsigned)number;
    } else {
        return false;
    }
    return true;
}

static bool parse_op(History *history, char **words)
{
    HistoryOp op = { 0 };

    while (op.kind < HISTORY_KINDS && !g_str_equal(words[0], names[op.kind])) {
        op.kind++;
    }
    if (op.kind == HISTORY_KINDS || !history->rounds->len) {
        return false;
    }
    for (unsigned i = 1; words[i]; i++) {
        if (!parse_word(&op, words[i])) {
            return false;
        }
    }
    g_array_append_val(((HistoryRound *)history->rounds->pdata[history->rounds->len - 1])->ops, op);
    return true;
}

static bool parse_setting(History *history, const char *line)
{
    const char *value = strchr(line, ' ');
    uint64_t number = 0;

    if (!value++) {
        return false;
    }
    if (g_str_has_prefix(line, "stack ")) {
        g_free(history->stack);
        history->stack = g_strdup(value);
        return true;
    }
    if (!parse_number(value, &number)) {
        return false;
    }
    if (g_str_has_prefix(line, "contexts ")) {
        history->contexts = (unsigned)number;
    } else if (g_str_has_prefix(line, "threads ")) {
        history->threads = number;
    } else if (g_str_has_prefix(line, "idle ")) {
        history->idle = number;
    } else if (g_str_has_prefix(line, "yield ")) {
        history->yield = (unsigned)number;
    } else if (g_str_has_prefix(line, "schedule ")) {
        history->schedule = number;
    } else {
        return false;
    }
    return true;
}

static bool parse_line(History *history, char *line)
{
    g_auto(GStrv) words = NULL;

    g_strstrip(line);
    if (!*line || *line == '#') {
        return true;
    }
    if (g_str_equal(line, "round")) {
        history_add_round(history);
        return true;
    }
    words = g_strsplit(line, " ", -1);
    return parse_op(history, words) || parse_setting(history, line);
}

History *history_parse(const char *text, GError **errp)
{
    g_autoptr(History) history = history_new("");
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);

    for (unsigned i = 0; lines[i]; i++) {
        g_autofree char *line = g_strdup(lines[i]);

        if (!parse_line(history, line)) {
            g_set_error(errp, BDRV_ERROR, EINVAL, "line %u of the history cannot be understood: '%s'", i + 1, lines[i]);
            return NULL;
        }
    }
    if (!history->rounds->len || history->contexts < 1 || history->contexts > CONFORMANCE_MAX_CONTEXTS) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "a history has at least one round and 1 to %d contexts, this one %u and %u",
                    CONFORMANCE_MAX_CONTEXTS, history->rounds->len, history->contexts);
        return NULL;
    }
    return g_steal_pointer(&history);
}
