/* SPDX-License-Identifier: MIT */

/*
 * How rules work, as found by experiment with qemu-io 7.2:
 *
 * An event is shown to all rules of that event whose state is the state before it. Of the set-state
 * rules among them the first decides the state afterwards. Inject-error rules become active; all
 * others become inactive, but if no inject-error rule noticed the event, those that are active stay so.
 * A request is then compared with the active rules only, in their order, and the first that fits decides.
 *
 * A breakpoint stops one request. If several are set at an event, the request is stopped by all of them
 * and goes on when each was resumed.
 */

#include "drivers/blkdebug/engine.h"

#include <errno.h>
#include <string.h>

#define SECTOR_BYTES 512

typedef struct Breakpoint {
    BdrvDebugEvent event;
    char *tag;
} Breakpoint;

/* One breakpoint that a request waits at. */
typedef struct Suspended {
    char *tag;
    unsigned *left; /* of the request: breakpoints that it still waits at */
} Suspended;

static void breakpoint_free(void *data)
{
    Breakpoint *breakpoint = data;

    g_free(breakpoint->tag);
    g_free(breakpoint);
}

void blkdebug_engine_init(BlkdebugEngine *engine, BlockDriverState *bs)
{
    *engine = (BlkdebugEngine){ .bs = bs, .state = 1 };
    pthread_mutex_init(&engine->lock, NULL);
    engine->rules = g_array_new(FALSE, FALSE, sizeof(BlkdebugRule));
    g_queue_init(&engine->breakpoints);
    g_queue_init(&engine->suspended);
    co_queue_init(&engine->waiters);
}

void blkdebug_engine_destroy(BlkdebugEngine *engine)
{
    g_queue_clear_full(&engine->breakpoints, breakpoint_free);
    g_array_unref(engine->rules);
    pthread_mutex_destroy(&engine->lock);
}

void blkdebug_engine_add(BlkdebugEngine *engine, const BlkdebugRule *rule)
{
    g_array_append_val(engine->rules, *rule);
}

/* ---- rules ---- */

static bool notices(const BlkdebugRule *rule, BdrvDebugEvent event, int state)
{
    return rule->event == event && (rule->state == 0 || rule->state == state);
}

/* Called with the lock held. */
static void deactivate_all_locked(BlkdebugEngine *engine)
{
    for (unsigned i = 0; i < engine->rules->len; i++) {
        g_array_index(engine->rules, BlkdebugRule, i).active = false;
    }
}

/* Called with the lock held. */
static void run_rules_locked(BlkdebugEngine *engine, BdrvDebugEvent event)
{
    const int state = engine->state;
    bool state_set = false, any_injects = false;

    for (unsigned i = 0; i < engine->rules->len; i++) {
        BlkdebugRule *rule = &g_array_index(engine->rules, BlkdebugRule, i);

        if (!notices(rule, event, state)) {
            continue;
        }
        if (rule->action == BLKDEBUG_SET_STATE) {
            engine->state = state_set ? engine->state : rule->new_state;
            state_set = true;
            continue;
        }
        if (!any_injects) {
            deactivate_all_locked(engine);
            any_injects = true;
        }
        rule->active = true;
    }
}

static bool fits(const BlkdebugRule *rule, BlkdebugIotype iotype, int64_t offset, int64_t bytes)
{
    if (!rule->active || !(rule->iotypes & iotype)) {
        return false;
    }
    return rule->sector < 0 ||
           (rule->sector * SECTOR_BYTES >= offset && rule->sector * SECTOR_BYTES - offset < bytes);
}

int coroutine_fn blkdebug_engine_check(BlkdebugEngine *engine, BlkdebugIotype iotype, int64_t offset, int64_t bytes)
{
    BlkdebugRule found = { 0 };

    pthread_mutex_lock(&engine->lock);
    for (unsigned i = 0; i < engine->rules->len; i++) {
        const BlkdebugRule *rule = &g_array_index(engine->rules, BlkdebugRule, i);

        if (fits(rule, iotype, offset, bytes)) {
            found = *rule;
            if (found.error && found.once) {
                g_array_remove_index(engine->rules, i);
            }
            break;
        }
    }
    pthread_mutex_unlock(&engine->lock);
    if (found.error && !found.immediately) {
        co_reschedule();
    }
    return -found.error;
}

/* ---- breakpoints ---- */

/* Called with the lock held: take a breakpoint of @event out; NULL if there is none (left). */
static Breakpoint *take_breakpoint_locked(BlkdebugEngine *engine, BdrvDebugEvent event)
{
    for (GList *link = engine->breakpoints.head; link; link = link->next) {
        Breakpoint *breakpoint = link->data;

        if (breakpoint->event == event) {
            g_queue_delete_link(&engine->breakpoints, link);
            return breakpoint;
        }
    }
    return NULL;
}

/* Called with the lock held; @tags collects copies for whoever notifies. */
static void stop_locked(BlkdebugEngine *engine, BdrvDebugEvent event, unsigned *left, GPtrArray *tags)
{
    Breakpoint *breakpoint;

    while (!engine->drained && (breakpoint = take_breakpoint_locked(engine, event))) {
        Suspended *suspended = g_new(Suspended, 1);

        *suspended = (Suspended){ .tag = g_steal_pointer(&breakpoint->tag), .left = left };
        g_ptr_array_add(tags, g_strdup(suspended->tag));
        g_queue_push_head(&engine->suspended, suspended);
        breakpoint_free(breakpoint);
        ++*left;
    }
}

/* Called with the lock held: that a request goes on is not told before that it had stopped. */
static void notify_all_locked(const BlkdebugEngine *engine, const GPtrArray *tags, bool suspended)
{
    for (unsigned i = 0; i < tags->len; i++) {
        bdrv_debug_notify(engine->bs, tags->pdata[i], suspended);
    }
}

/* The way of an event at which a breakpoint may be: out of line, as it is rare. */
static void coroutine_fn stop_at(BlkdebugEngine *engine, BdrvDebugEvent event)
{
    g_autoptr(GPtrArray) tags = g_ptr_array_new_with_free_func(g_free);
    unsigned left = 0;

    pthread_mutex_lock(&engine->lock);
    stop_locked(engine, event, &left, tags);
    notify_all_locked(engine, tags, true);
    while (left > 0) {
        co_queue_wait(&engine->waiters, &engine->lock);
    }
    pthread_mutex_unlock(&engine->lock);
}

void coroutine_fn blkdebug_engine_event(BlkdebugEngine *engine, BdrvDebugEvent event)
{
    bool may_stop;

    pthread_mutex_lock(&engine->lock);
    run_rules_locked(engine, event);
    may_stop = !engine->drained && !g_queue_is_empty(&engine->breakpoints);
    pthread_mutex_unlock(&engine->lock);
    if (may_stop) {
        stop_at(engine, event);
    }
}

void blkdebug_engine_break(BlkdebugEngine *engine, BdrvDebugEvent event, const char *tag)
{
    Breakpoint *breakpoint = g_new(Breakpoint, 1);

    *breakpoint = (Breakpoint){ .event = event, .tag = g_strdup(tag) };
    pthread_mutex_lock(&engine->lock);
    g_queue_push_head(&engine->breakpoints, breakpoint);
    pthread_mutex_unlock(&engine->lock);
}

/* Called with the lock held: release at most @limit stops of @tag (NULL: of any), the newest first. */
static void release_locked(BlkdebugEngine *engine, const char *tag, unsigned limit, GPtrArray *tags)
{
    for (GList *link = engine->suspended.head, *next; link && tags->len < limit; link = next) {
        Suspended *suspended = link->data;

        next = link->next;
        if (tag && strcmp(suspended->tag, tag) != 0) {
            continue;
        }
        --*suspended->left;
        g_ptr_array_add(tags, suspended->tag);
        g_free(suspended);
        g_queue_delete_link(&engine->suspended, link);
    }
    if (tags->len > 0) {
        co_queue_wake_all(&engine->waiters);
    }
}

static unsigned release(BlkdebugEngine *engine, const char *tag, unsigned limit)
{
    g_autoptr(GPtrArray) tags = g_ptr_array_new_with_free_func(g_free);

    pthread_mutex_lock(&engine->lock);
    release_locked(engine, tag, limit, tags);
    notify_all_locked(engine, tags, false);
    pthread_mutex_unlock(&engine->lock);
    return tags->len;
}

int blkdebug_engine_resume(BlkdebugEngine *engine, const char *tag)
{
    return release(engine, tag, 1) > 0 ? 0 : -ENOENT;
}

int blkdebug_engine_remove_break(BlkdebugEngine *engine, const char *tag)
{
    unsigned removed = 0;

    pthread_mutex_lock(&engine->lock);
    for (GList *link = engine->breakpoints.head, *next; link; link = next) {
        Breakpoint *breakpoint = link->data;

        next = link->next;
        if (strcmp(breakpoint->tag, tag) == 0) {
            breakpoint_free(breakpoint);
            g_queue_delete_link(&engine->breakpoints, link);
            removed++;
        }
    }
    pthread_mutex_unlock(&engine->lock);
    release(engine, tag, UINT_MAX);
    return removed > 0 ? 0 : -ENOENT;
}

bool blkdebug_engine_is_suspended(BlkdebugEngine *engine, const char *tag)
{
    bool found = false;

    pthread_mutex_lock(&engine->lock);
    for (GList *link = engine->suspended.head; link && !found; link = link->next) {
        const Suspended *suspended = link->data;

        found = strcmp(suspended->tag, tag) == 0;
    }
    pthread_mutex_unlock(&engine->lock);
    return found;
}

void blkdebug_engine_drain_begin(BlkdebugEngine *engine)
{
    pthread_mutex_lock(&engine->lock);
    engine->drained++;
    pthread_mutex_unlock(&engine->lock);
    release(engine, NULL, UINT_MAX);
}

void blkdebug_engine_drain_end(BlkdebugEngine *engine)
{
    pthread_mutex_lock(&engine->lock);
    engine->drained--;
    pthread_mutex_unlock(&engine->lock);
}
