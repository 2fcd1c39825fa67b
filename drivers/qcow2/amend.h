/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_AMEND_H
#define BDRV_QCOW2_AMEND_H

/* What the parts of an amend share. Start at amend.c. */

#include "block/crypto/luks.h"
#include "drivers/qcow2/qcow2.h"

/* An amend under way. */
typedef struct Qcow2Amend {
    BlockDriverState *bs;
    Qcow2State *s;
    const BdrvOptions *options; /* validated: only those that the user gave */
    bool force;                 /* also what cannot be undone (encryption) */
    unsigned version;           /* that the image is to have */
    unsigned refcount_order;    /* the same */
    bool lazy_refcounts;        /* the same */
    int64_t size;               /* the same; bytes */
    BdrvOptions *encrypt;       /* those under "encrypt.", without that; owned */
    BdrvLuksAmend keys;         /* that, parsed; says nothing if there are none */
    Qcow2Progress progress;
} Qcow2Amend;

/*
 * Options that are amended together. All groups are asked before the first one is applied: what cannot be done is
 * refused while the image is as it was. A group that has nothing to do does nothing.
 */
typedef struct Qcow2AmendGroup {
    bool (*check)(Qcow2Amend *amend, GError **errp);              /* may yield; writes nothing; NULL: always possible */
    bool (*apply)(Qcow2Amend *amend, GError **errp); /* NULL: nothing to do */
} Qcow2AmendGroup;

/* ---- amend_version.c ---- */

/** qcow2_amend_check_version() - whether all that the image has can be kept in the version that is wanted */
bool coroutine_fn qcow2_amend_check_version(Qcow2Amend *amend, GError **errp);
/** qcow2_amend_upgrade() - to version 3; the first thing that is applied */
bool coroutine_fn qcow2_amend_upgrade(Qcow2Amend *amend, GError **errp);
/** qcow2_amend_downgrade() - to version 2; the last thing */
bool coroutine_fn qcow2_amend_downgrade(Qcow2Amend *amend, GError **errp);

/* ---- amend_zeroes.c ---- */

/** qcow2_survey_clusters() - look at all tables, those of snapshots too, for what version 2 does not have
 * @zeroes, @compressed: whether there are clusters with the zero flag, compressed ones
 * EINVAL: damaged tables. */
bool coroutine_fn qcow2_survey_clusters(BlockDriverState *bs, bool *zeroes, bool *compressed, GError **errp);

/**
 * qcow2_expand_zeroes() - no cluster has the zero flag any more, those of snapshots neither; drained
 * Space that is kept for zeroes becomes data. Other ones become unallocated, or get space if there is a backing file.
 * Whatever happens the image reads as before; what was allocated may be leaked, which the dirty bit tells.
 */
bool coroutine_fn qcow2_expand_zeroes(BlockDriverState *bs, const Qcow2Progress *progress, GError **errp);

#endif
