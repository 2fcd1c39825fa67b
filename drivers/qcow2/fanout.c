/* SPDX-License-Identifier: MIT */
/* No lock: parts and owner share one context, so only one of them runs at a time. */

#include "drivers/qcow2/fanout.h"

void qcow2_fanout_init(Qcow2Fanout *fanout, Qcow2PartFunc *func, void *work)
{
    *fanout = (Qcow2Fanout){ .func = func, .work = work, .owner = co_self(), .request = co_get_request() };
}

static void note_result(Qcow2Fanout *fanout, int ret)
{
    if (ret < 0 && fanout->ret >= 0) {
        fanout->ret = ret;
    }
}

static void coroutine_fn part_entry(void *opaque)
{
    Qcow2Part *part = opaque;
    Qcow2Fanout *fanout = part->fanout;

    co_set_request(fanout->request);
    note_result(fanout, fanout->func(fanout->work, part->first, part->count));
    part->fanout = NULL;
    fanout->running--;
    if (fanout->waiting) {
        fanout->waiting = false;
        co_wake(fanout->owner);
    }
}

static void coroutine_fn wait_for_one(Qcow2Fanout *fanout)
{
    fanout->waiting = true;
    co_yield_reason("a part of a qcow2 request");
}

static Qcow2Part *coroutine_fn get_place(Qcow2Fanout *fanout)
{
    Qcow2Part *part = fanout->parts;

    while (fanout->running == QCOW2_FANOUT_MAX) {
        wait_for_one(fanout);
    }
    while (part->fanout) {
        part++;
    }
    return part;
}

int coroutine_fn qcow2_fanout_start(Qcow2Fanout *fanout, uint64_t first, uint64_t count)
{
    Qcow2Part *part = get_place(fanout);

    if (fanout->ret < 0) {
        return fanout->ret;
    }
    Coroutine *co = co_try_new(part_entry, part);
    if (!co) {
        note_result(fanout, fanout->func(fanout->work, first, count));
        return fanout->ret;
    }
    *part = (Qcow2Part){ .fanout = fanout, .first = first, .count = count };
    fanout->running++;
    co_enter(co); /* at once: what needs no waiting, as a read from the page cache, is done when this returns */
    return fanout->ret;
}

int coroutine_fn qcow2_fanout_finish(Qcow2Fanout *fanout)
{
    while (fanout->running) {
        wait_for_one(fanout);
    }
    return fanout->ret;
}
