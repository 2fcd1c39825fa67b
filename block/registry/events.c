/* SPDX-License-Identifier: MIT */

/* The names of debug events. Nobody knows all of them: a wrong one is answered with those it may mean. */

#include <bdrv/driver.h>
#include <errno.h>
#include <string.h>

static const char *const event_names[BDRV_EVENT_MAX] = {
#define BDRV_EVENT(upper, lower) [BDRV_EVENT_##upper] = lower,
#include <bdrv/events.h>
#undef BDRV_EVENT
};

const char *bdrv_event_name(BdrvDebugEvent event)
{
    return (unsigned)event < BDRV_EVENT_MAX ? event_names[event] : NULL;
}

int bdrv_event_find(const char *name)
{
    for (int i = 0; i < BDRV_EVENT_MAX; i++) {
        if (strcmp(event_names[i], name) == 0) {
            return i;
        }
    }
    return -1;
}

#define NAME_MAX_BYTES 31 /* longer than any event: what is longer is near none */
#define NEAR_DISTANCE 3
#define NEAR_SHOWN 8

/* How many characters must be inserted, removed or replaced (Levenshtein). @a is at most NAME_MAX_BYTES long. */
static unsigned distance(const char *a, const char *b)
{
    unsigned row[NAME_MAX_BYTES + 1], length = strlen(a);

    for (unsigned i = 0; i <= length; i++) {
        row[i] = i;
    }
    for (unsigned n = 1; *b; b++, n++) {
        unsigned corner = row[0];

        row[0] = n;
        for (unsigned i = 1; i <= length; i++) {
            unsigned replaced = corner + (a[i - 1] != *b);

            corner = row[i];
            row[i] = MIN(replaced, MIN(row[i], row[i - 1]) + 1);
        }
    }
    return row[length];
}

static bool is_near(const char *name, const char *event)
{
    return strstr(event, name) || strstr(name, event) || distance(name, event) <= NEAR_DISTANCE;
}

/* ", did you mean …" or where all are listed. */
static char *suggest(const char *name)
{
    GString *text = g_string_new(NULL);
    unsigned shown = 0;

    for (int i = 0; i < BDRV_EVENT_MAX && *name && strlen(name) <= NAME_MAX_BYTES && shown < NEAR_SHOWN; i++) {
        if (is_near(name, event_names[i])) {
            g_string_append_printf(text, "%s %s", shown++ > 0 ? "," : "; near it:", event_names[i]);
        }
    }
    if (shown == 0) {
        g_string_append(text, "; bdrv/events.h lists all, for example l2_load, write_aio, flush_to_disk");
    }
    return g_string_free(text, FALSE);
}

bool bdrv_event_parse(const char *name, BdrvDebugEvent *event, GError **errp)
{
    int found = bdrv_event_find(name);

    if (found < 0) {
        g_autofree char *near = suggest(name);

        g_set_error(errp, BDRV_ERROR, ENOENT, "there is no event '%.*s'%s", 2 * NAME_MAX_BYTES, name, near);
        return false;
    }
    *event = found;
    return true;
}
