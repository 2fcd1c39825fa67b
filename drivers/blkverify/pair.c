/* SPDX-License-Identifier: MIT */

/* The same call on both children at once: raw in a coroutine of its own, test in the caller's. */

#include "blkverify.h"

#include <errno.h>

typedef struct Pair {
    BlkverifyState *s;
    const BlkverifyCall *raw_call;
    void *request; /* the caller's: raw's call is made inside it */
    Coroutine *waiter;
    bool raw_done;
    int raw_ret;
} Pair;

static void coroutine_fn raw_entry(void *opaque)
{
    Pair *pair = opaque;

    co_set_request(pair->request);
    pair->raw_ret = pair->raw_call->make(pair->s->raw, pair->raw_call);
    co_set_request(NULL);
    pair->raw_done = true;
    if (pair->waiter) {
        co_wake(pair->waiter);
    }
}

int blkverify_mismatch(BlkverifyState *s, const BlkverifyCall *call, const char *format, ...)
{
    g_autofree char *what = NULL;
    va_list args;

    va_start(args, format);
    what = g_strdup_vprintf(format, args);
    va_end(args);
    pthread_mutex_lock(&s->lock);
    if (!s->message) {
        s->message = g_strdup_printf("blkverify: %s offset=%" G_GINT64_FORMAT " bytes=%" G_GINT64_FORMAT " %s",
                                     call->verb, call->offset, call->bytes, what);
        atomic_store(&s->mismatched, true);
    }
    pthread_mutex_unlock(&s->lock);
    return -EIO;
}

static const char *outcome(int ret)
{
    return ret < 0 ? g_strerror(-ret) : "success";
}

int coroutine_fn blkverify_call_both(BlkverifyState *s, const BlkverifyCall *raw_call, const BlkverifyCall *test_call)
{
    Pair pair = { .s = s, .raw_call = raw_call, .request = co_get_request() };
    Coroutine *co;
    int ret;

    if (atomic_load(&s->mismatched)) {
        return -EIO;
    }
    co = co_try_new(raw_entry, &pair);
    if (!co) {
        return -ENOMEM;
    }
    co_wake(co); /* starts when we yield, or at the latest below */
    ret = test_call->make(s->test, test_call);
    if (!pair.raw_done) {
        pair.waiter = co_self();
        co_yield_reason("the raw child of blkverify");
    }
    if (ret != pair.raw_ret) {
        return blkverify_mismatch(s, test_call, "result mismatch: raw: %s, test: %s",
                                  outcome(pair.raw_ret), outcome(ret));
    }
    return ret;
}
