/* SPDX-License-Identifier: MIT */
/* The key slots of an encrypted image in a conformance run: which secrets open it is known. */

#include <errno.h>
#include <string.h>

#include "tests/lib/conformance_int.h"

static const struct {
    const char *id, *passphrase;
} secrets[] = {
    { CONFORMANCE_SECRET, "passphrase" },
    { CONFORMANCE_SECRET "-2", "another passphrase" },
    { CONFORMANCE_SECRET "-3", "" },
};

const char *conformance_key_name(const Runner *r, unsigned key)
{
    return r->stack->keys ? secrets[key - 1].id : NULL;
}

void conformance_add_keys(Runner *r)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(secrets); i++) {
        GError *error = NULL;

        bdrv_graph_add_secret(r->graph, secrets[i].id, secrets[i].passphrase, strlen(secrets[i].passphrase), &error);
        g_assert_no_error(error);
    }
    r->keys[0] = r->key = 1;
}

static unsigned count_slots(const Runner *r, unsigned key)
{
    unsigned n = 0;

    for (unsigned slot = 0; slot < CONFORMANCE_KEY_SLOTS; slot++) {
        n += r->keys[slot] == key;
    }
    return n;
}

static void check_refused(Runner *r, unsigned key)
{
    BdrvOptions *options = conformance_options(r);
    g_autoptr(GError) error = NULL;

    bdrv_options_set_string(options, "encrypt.key-secret", secrets[key - 1].id);
    BlockBackend *blk = blk_open(r->graph, NULL, options, r->stack->flags, &error);
    if (blk || !g_error_matches(error, BDRV_ERROR, EACCES)) {
        conformance_fail(r, "a key that was erased, or never added, opens the image, or: %s",
                         blk ? "" : error->message);
    }
}

void conformance_pick_key(Runner *r)
{
    unsigned refused = 0;

    if (!r->stack->keys) {
        return;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(secrets); i++) {
        unsigned key = 1 + (r->round + i) % G_N_ELEMENTS(secrets);

        if (count_slots(r, key)) {
            r->key = key;
        } else {
            refused = key;
        }
    }
    if (refused) {
        check_refused(r, refused);
    }
}

/* ---- changes ---- */

/* What an operation is to do, and what becomes of the slots if it works. */
typedef struct Change {
    char *options;
    uint8_t keys[CONFORMANCE_KEY_SLOTS];
    bool possible;
} Change;

static void plan_add(const Runner *r, uint64_t seed, Change *change)
{
    unsigned key = 1 + seed % G_N_ELEMENTS(secrets), slot = 0;
    bool explicit = seed / 4 % 2;
    g_autofree char *where = NULL;

    if (explicit) {
        slot = seed / 8 % CONFORMANCE_KEY_SLOTS;
        where = g_strdup_printf(",encrypt.keyslot=%u", slot);
    }
    while (!explicit && slot < CONFORMANCE_KEY_SLOTS && r->keys[slot]) {
        slot++;
    }
    change->options = g_strdup_printf("encrypt.state=active,encrypt.new-secret=%s,encrypt.iter-time=1%s",
                                      secrets[key - 1].id, where ? where : "");
    change->possible = slot < CONFORMANCE_KEY_SLOTS && !r->keys[slot] && count_slots(r, r->key);
    if (change->possible) {
        change->keys[slot] = (uint8_t)key;
    }
}

static void plan_erase(const Runner *r, uint64_t seed, Change *change)
{
    unsigned key = 1 + seed % G_N_ELEMENTS(secrets), chosen = seed / 8 % CONFORMANCE_KEY_SLOTS;
    bool by_slot = seed / 4 % 2;
    unsigned gone = 0;

    for (unsigned slot = 0; slot < CONFORMANCE_KEY_SLOTS; slot++) {
        if (r->keys[slot] && (by_slot ? slot == chosen : r->keys[slot] == key)) {
            change->keys[slot] = 0;
            gone++;
        }
    }
    change->options = by_slot ? g_strdup_printf("encrypt.state=inactive,encrypt.keyslot=%u", chosen)
                              : g_strdup_printf("encrypt.state=inactive,encrypt.old-secret=%s", secrets[key - 1].id);
    change->possible = gone > 0 && gone + count_slots(r, 0) < CONFORMANCE_KEY_SLOTS;
}

void conformance_change_keys(Runner *r, const HistoryOp *op)
{
    Change change = { 0 };
    g_autoptr(GError) error = NULL;

    if (!r->stack->keys) {
        return;
    }
    memcpy(change.keys, r->keys, sizeof(change.keys));
    if (op->seed % 5 < 3) {
        plan_add(r, op->seed / 5, &change);
    } else {
        plan_erase(r, op->seed / 5, &change);
    }
    BdrvOptions *options = bdrv_options_parse(change.options, NULL, NULL);
    bool ok = blk_amend(r->blk, options, false, NULL, NULL, &error);

    /* A reopening may have made the image read-only. */
    if (ok ? !change.possible : change.possible && !g_error_matches(error, BDRV_ERROR, EACCES)) {
        conformance_fail(r, "amending to %s: %s", change.options, ok ? "it should have been refused" : error->message);
    }
    if (ok) {
        memcpy(r->keys, change.keys, sizeof(change.keys));
    }
    bdrv_options_free(options);
    g_free(change.options);
}
