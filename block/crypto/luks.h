/* SPDX-License-Identifier: MIT */
#ifndef BDRV_CRYPTO_LUKS_H
#define BDRV_CRYPTO_LUKS_H

/*
 * LUKS version 1: a volume key, kept in up to 8 key slots, each of which a passphrase opens. Where the header
 * and the key material lie, at the start of a file or inside a qcow2 image, is the caller's affair.
 */

#include <bdrv/coroutine.h>
#include <bdrv/options.h>

#include "block/crypto/luks-header.h"
#include "block/crypto/passphrase.h"
#include "block/crypto/volume.h"

/* How the area of header and key material is read and written; offsets from its start. 0 or -errno. */
typedef struct BdrvLuksIo {
    int (*read)(void *opaque, uint64_t offset, void *buf, size_t bytes);
    int (*write)(void *opaque, uint64_t offset, const void *buf, size_t bytes);
    int (*flush)(void *opaque);
    void *opaque;
} BdrvLuksIo;

typedef struct BdrvLuks {
    BdrvLuksHeader header;
    BdrvVolumeSpec spec;
    const BdrvHash *hash;
} BdrvLuks;

/* What a new volume is made from. */
typedef struct BdrvLuksCreate {
    BdrvVolumeSpec spec;
    const BdrvHash *hash;
    uint32_t iter_time; /* ms that trying a passphrase shall take */
} BdrvLuksCreate;

/* How a new volume is encrypted, by the luks driver and, under "encrypt.", by qcow2. */
/* clang-format off */
#define BDRV_LUKS_CIPHER_OPTIONS(prefix_) \
    { prefix_ "cipher-alg", BDRV_OPTION_STRING, "Name of encryption cipher algorithm", NULL, NULL }, \
    { prefix_ "cipher-mode", BDRV_OPTION_STRING, "Name of encryption cipher mode", NULL, NULL }, \
    { prefix_ "ivgen-alg", BDRV_OPTION_STRING, "Name of IV generator algorithm", NULL, NULL }, \
    { prefix_ "ivgen-hash-alg", BDRV_OPTION_STRING, "Name of IV generator hash algorithm", NULL, NULL }, \
    { prefix_ "hash-alg", BDRV_OPTION_STRING, "Name of encryption hash algorithm", NULL, NULL }, \
    { prefix_ "iter-time", BDRV_OPTION_INT, "Time to spend in PBKDF in milliseconds", NULL, NULL }

/* What an amendment says of key slots, in the same way. */
#define BDRV_LUKS_AMEND_OPTIONS(prefix_) \
    { prefix_ "state", BDRV_OPTION_STRING, "Select new state of affected keyslots (active/inactive)", NULL, NULL }, \
    { prefix_ "new-secret", BDRV_OPTION_STRING, \
      "New secret to set in the matching keyslots. Empty string to erase", NULL, NULL }, \
    { prefix_ "old-secret", BDRV_OPTION_STRING, "Select all keyslots that match this password", NULL, NULL }, \
    { prefix_ "keyslot", BDRV_OPTION_INT, "Select a single keyslot to modify explicitly", NULL, NULL }, \
    { prefix_ "iter-time", BDRV_OPTION_INT, "Time to spend in PBKDF in milliseconds", NULL, NULL }
/* clang-format on */

/* That, parsed. */
typedef struct BdrvLuksAmend {
    bool activate;                       /* else erase */
    int slot;                            /* -1: the first that is free; all that @old_secret opens */
    uint32_t iter_time;                  /* ms */
    const char *new_secret, *old_secret; /* IDs, the options' own; NULL: not given */
} BdrvLuksAmend;

extern const BdrvOptionSpec bdrv_luks_create_options[], bdrv_luks_amend_options[];

/** bdrv_luks_create_parse() - from options of that table; EINVAL, ENOTSUP */
bool bdrv_luks_create_parse(const BdrvOptions *options, BdrvLuksCreate *create, GError **errp);

/** bdrv_luks_iter_time_parse() - the option "iter-time"; EINVAL */
bool bdrv_luks_iter_time_parse(const BdrvOptions *options, uint32_t *iter_time, GError **errp);

/** bdrv_luks_area_bytes() - what header and key material of a new volume take: where its payload begins */
uint64_t bdrv_luks_area_bytes(const BdrvLuksCreate *create);

/**
 * bdrv_luks_create() - make a volume with a new random key, which @passphrase opens
 * Writes the header last, flushes nothing. Takes iter_time and more, in a worker.
 */
bool coroutine_fn bdrv_luks_create(const BdrvLuksIo *io, const BdrvLuksCreate *create, BdrvPassphrase passphrase,
                                   GError **errp);

/** bdrv_luks_load() - read and judge a header */
bool coroutine_fn bdrv_luks_load(BdrvLuks *luks, const BdrvLuksIo *io, GError **errp);

/** bdrv_luks_load_again() - the same, if it is of a volume with the same key and cipher; key slots may be others
 * On failure @luks is as it was; EKEYREJECTED: of another volume. */
bool coroutine_fn bdrv_luks_load_again(BdrvLuks *luks, const BdrvLuksIo *io, GError **errp);

/** bdrv_luks_unlock() - try the key slots with a passphrase, in a worker; EACCES: it opens none
 * Returns: the volume. */
BdrvVolume *coroutine_fn bdrv_luks_unlock(const BdrvLuks *luks, const BdrvLuksIo *io, BdrvPassphrase passphrase,
                                          GError **errp);

/** bdrv_luks_add_key() - let @added open the volume too
 * @known: a passphrase that does; EACCES if not
 * @slot: 0 .. 7, or -1: the first that is free
 * @force: even if @slot is in use
 * The key material is durable before the header tells of it. What is replaced in @slot stays until @added is durable
 * in a slot that was free, if there is one: a power loss leaves one of both. On failure @luks is as it was, or has
 * @added in that slot. */
bool coroutine_fn bdrv_luks_add_key(BdrvLuks *luks, const BdrvLuksIo *io, BdrvPassphrase known, BdrvPassphrase added,
                                    int slot, uint32_t iter_time, bool force, GError **errp);

/** bdrv_luks_erase_slot() - overwrite the key material of @slot, then free it; EINVAL: it is free
 * @force: even if it is free, or the last one, after which nobody reads the volume any more */
bool coroutine_fn bdrv_luks_erase_slot(BdrvLuks *luks, const BdrvLuksIo *io, unsigned slot, bool force, GError **errp);

/** bdrv_luks_erase_key() - the same for @slot, or (-1) every one, that @passphrase opens; EACCES: none */
bool coroutine_fn bdrv_luks_erase_key(BdrvLuks *luks, const BdrvLuksIo *io, BdrvPassphrase passphrase, int slot,
                                      bool force, GError **errp);

/** bdrv_luks_amend_parse() - from options of bdrv_luks_amend_options; @amend points into them. EINVAL */
bool bdrv_luks_amend_parse(const BdrvOptions *options, BdrvLuksAmend *amend, GError **errp);

/** bdrv_luks_amend() - add a key, or erase some
 * @key_secret: ID of the secret that opened the volume, NULL: there is none, and nothing can be added */
bool coroutine_fn bdrv_luks_amend(BdrvLuks *luks, const BdrvLuksIo *io, BdrvGraph *graph, const BdrvLuksAmend *amend,
                                  const char *key_secret, bool force, GError **errp);

/** bdrv_luks_describe() - add what info tells of it to @tree under "@prefix."; @format: told too, NULL: not */
void bdrv_luks_describe(const BdrvLuks *luks, BdrvOptions *tree, const char *prefix, const char *format);

#endif
