/* SPDX-License-Identifier: MIT */
/* What an amendment says of key slots, and doing it. */
#include <bdrv/error.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "block/crypto/luks.h"

const BdrvOptionSpec bdrv_luks_amend_options[] = { BDRV_LUKS_AMEND_OPTIONS(""), { NULL } };

static bool refuse(GError **errp, const char *text)
{
    g_set_error_literal(errp, BDRV_ERROR, EINVAL, text);
    return false;
}

static bool parse_state(const BdrvOptions *options, BdrvLuksAmend *amend, GError **errp)
{
    const char *state = bdrv_options_get_string(options, "state", NULL);

    if (!state) {
        return refuse(errp, "Parameter 'state' is missing");
    }
    amend->activate = g_str_equal(state, "active");
    if (!amend->activate && !g_str_equal(state, "inactive")) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "Parameter 'state' does not accept value '%s': active or inactive", state);
        return false;
    }
    return true;
}

static bool parse_slot(const BdrvOptions *options, BdrvLuksAmend *amend, GError **errp)
{
    int64_t slot = bdrv_options_get_int(options, "keyslot", -1);

    if (bdrv_options_has(options, "keyslot") && (slot < 0 || slot >= BDRV_LUKS_SLOTS)) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "Invalid keyslot %" PRId64 " specified, must be between 0 and %u", slot,
                    BDRV_LUKS_SLOTS - 1);
        return false;
    }
    amend->slot = (int)slot;
    return true;
}

/* Which go together. */
static bool check_amend(const BdrvOptions *options, const BdrvLuksAmend *amend, GError **errp)
{
    if (amend->activate) {
        return !amend->new_secret  ? refuse(errp, "'new-secret' is required to activate a keyslot")
               : amend->old_secret ? refuse(errp, "'old-secret' must not be given when activating keyslots")
                                   : true;
    }
    if (amend->new_secret) {
        return refuse(errp, "'new-secret' must not be given when erasing keyslots");
    }
    if (bdrv_options_has(options, "iter-time")) {
        return refuse(errp, "'iter-time' must not be given when erasing keyslots");
    }
    return amend->slot >= 0 || amend->old_secret ||
           refuse(errp, "To erase keyslot(s), either explicit keyslot index or the password currently contained in them "
                        "must be given");
}

bool bdrv_luks_amend_parse(const BdrvOptions *options, BdrvLuksAmend *amend, GError **errp)
{
    *amend = (BdrvLuksAmend){
        .new_secret = bdrv_options_get_string(options, "new-secret", NULL),
        .old_secret = bdrv_options_get_string(options, "old-secret", NULL),
    };
    return parse_state(options, amend, errp) && bdrv_luks_iter_time_parse(options, &amend->iter_time, errp) &&
           parse_slot(options, amend, errp) && check_amend(options, amend, errp);
}

static bool coroutine_fn activate(BdrvLuks *luks, const BdrvLuksIo *io, BdrvGraph *graph, const BdrvLuksAmend *amend,
                                  const char *key_secret, bool force, GError **errp)
{
    GBytes *added = bdrv_passphrase_get(graph, amend->new_secret, errp);
    GBytes *known = added ? bdrv_passphrase_get(graph, key_secret, errp) : NULL;
    bool ok = known && bdrv_luks_add_key(luks, io, bdrv_passphrase_of(known), bdrv_passphrase_of(added), amend->slot,
                                         amend->iter_time, force, errp);

    g_bytes_unref(known);
    g_bytes_unref(added);
    return ok;
}

static bool coroutine_fn deactivate(BdrvLuks *luks, const BdrvLuksIo *io, BdrvGraph *graph, const BdrvLuksAmend *amend,
                                    bool force, GError **errp)
{
    if (!amend->old_secret) {
        return bdrv_luks_erase_slot(luks, io, (unsigned)amend->slot, force, errp);
    }
    GBytes *old = bdrv_passphrase_get(graph, amend->old_secret, errp);
    bool ok = old && bdrv_luks_erase_key(luks, io, bdrv_passphrase_of(old), amend->slot, force, errp);
    g_bytes_unref(old);
    return ok;
}

bool coroutine_fn bdrv_luks_amend(BdrvLuks *luks, const BdrvLuksIo *io, BdrvGraph *graph, const BdrvLuksAmend *amend,
                                  const char *key_secret, bool force, GError **errp)
{
    if (!amend->activate) {
        return deactivate(luks, io, graph, amend, force, errp);
    }
    if (!key_secret) {
        g_set_error(errp, BDRV_ERROR, ENOKEY,
                    "a key slot is filled by a passphrase that opens the volume: open the image with its 'key-secret'");
        return false;
    }
    return activate(luks, io, graph, amend, key_secret, force, errp);
}
