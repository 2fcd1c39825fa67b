/* SPDX-License-Identifier: MIT */
#include "block/crypto/luks.h"

#include <bdrv/aio.h>
#include <bdrv/error.h>
#include <errno.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <string.h>
#include <time.h>

#include "block/crypto/luks-split.h"
#include "block/crypto/random.h"
#include "block/loop/context.h"

#define DEFAULT_ITER_TIME 2000 /* ms */
#define MIN_ITERATIONS 1000u
#define DIGEST_SHARE 8u /* the volume key's digest gets this part of a slot's iterations */

const BdrvOptionSpec bdrv_luks_create_options[] = {
    { "key-secret", BDRV_OPTION_STRING, "ID of the secret that provides the keyslot passphrase", NULL, NULL },
    BDRV_LUKS_CIPHER_OPTIONS(""),
    { "preallocation", BDRV_OPTION_STRING, "Preallocation mode (allowed values: off, falloc, full)", NULL,
      (const char *const[]){ "off", "falloc", "full", NULL } },
    { NULL },
};

static void wipe_free(void *buf, size_t bytes)
{
    if (buf) {
        OPENSSL_cleanse(buf, bytes);
        g_free(buf);
    }
}

/* ---- key slots: what workers do ---- */

/* One slot: passphrase and key material to the volume key, or the other way. */
typedef struct SlotJob {
    const BdrvLuks *luks;
    const BdrvLuksSlot *slot;
    BdrvPassphrase passphrase;
    uint8_t *material; /* as on disk; bdrv_luks_material_bytes() */
    uint8_t key[BDRV_CIPHER_MAX_KEY];
    bool opened;
} SlotJob;

/* The cipher of the key material, keyed by the passphrase. */
static int slot_volume(const SlotJob *job, BdrvVolume **volume)
{
    const BdrvLuks *luks = job->luks;
    uint8_t derived[BDRV_CIPHER_MAX_KEY];
    int ret = bdrv_hash_pbkdf2(luks->hash, job->passphrase.data, job->passphrase.bytes, job->slot->salt,
                               BDRV_LUKS_SALT_BYTES, job->slot->iterations, derived, luks->header.key_bytes);
    if (ret == 0) {
        *volume = bdrv_volume_new(&luks->spec, derived, NULL);
        ret = *volume ? 0 : -ENOMEM;
    }
    OPENSSL_cleanse(derived, sizeof(derived));
    return ret;
}

static int key_digest(const BdrvLuks *luks, const uint8_t *key, uint8_t *digest)
{
    const BdrvLuksHeader *h = &luks->header;
    return bdrv_hash_pbkdf2(luks->hash, key, h->key_bytes, h->digest_salt, BDRV_LUKS_SALT_BYTES, h->digest_iterations,
                            digest, BDRV_LUKS_DIGEST_BYTES);
}

static int open_slot(void *opaque)
{
    SlotJob *job = opaque;
    const BdrvLuksHeader *h = &job->luks->header;
    uint8_t digest[BDRV_LUKS_DIGEST_BYTES];
    BdrvVolume *volume = NULL;

    int ret = slot_volume(job, &volume);
    if (ret == 0) {
        ret = bdrv_volume_crypt(volume, false, 0, job->material, job->material, bdrv_luks_material_bytes(h->key_bytes));
    }
    if (ret == 0) {
        ret = bdrv_luks_merge(job->luks->hash, job->material, h->key_bytes, BDRV_LUKS_STRIPES, job->key);
    }
    if (ret == 0) {
        ret = key_digest(job->luks, job->key, digest);
    }
    job->opened = ret == 0 && CRYPTO_memcmp(digest, h->digest, sizeof(digest)) == 0;
    bdrv_volume_free(volume);
    return ret;
}

/* @job->material holds random bytes, @job->key the volume key. */
static int seal_slot(void *opaque)
{
    SlotJob *job = opaque;
    uint32_t key_bytes = job->luks->header.key_bytes;
    BdrvVolume *volume = NULL;

    int ret = slot_volume(job, &volume);
    if (ret == 0) {
        ret = bdrv_luks_split(job->luks->hash, job->key, key_bytes, BDRV_LUKS_STRIPES, job->material);
    }
    if (ret == 0) {
        ret = bdrv_volume_crypt(volume, true, 0, job->material, job->material, bdrv_luks_material_bytes(key_bytes));
    }
    bdrv_volume_free(volume);
    return ret;
}

typedef struct DigestJob {
    BdrvLuks *luks;
    const uint8_t *key;
} DigestJob;

static int make_digest(void *opaque)
{
    DigestJob *job = opaque;
    return key_digest(job->luks, job->key, job->luks->header.digest);
}

/* How many iterations this machine does in a second of its own time. */
typedef struct RateJob {
    const BdrvLuks *luks;
    uint64_t per_second;
} RateJob;

static uint64_t thread_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * G_USEC_PER_SEC * 1000 + (uint64_t)t.tv_nsec;
}

static int measure_rate(void *opaque)
{
    static const uint8_t salt[BDRV_LUKS_SALT_BYTES];
    const uint64_t enough = 20 * 1000 * 1000; /* ns */
    RateJob *job = opaque;
    uint8_t key[BDRV_CIPHER_MAX_KEY];
    uint64_t spent = 0;
    uint32_t count = MIN_ITERATIONS;
    int ret = 0;

    while (ret == 0 && spent < enough && count < BDRV_LUKS_MAX_ITERATIONS / 2) {
        uint64_t begin = thread_ns();
        count *= 2;
        ret = bdrv_hash_pbkdf2(job->luks->hash, "passphrase", 10, salt, sizeof(salt), count, key,
                               job->luks->header.key_bytes);
        spent = thread_ns() - begin;
    }
    job->per_second = count * UINT64_C(1000000000) / MAX(spent, 1);
    return ret;
}

/* ---- key slots: what coroutines do ---- */

static int coroutine_fn count_iterations(const BdrvLuks *luks, uint32_t iter_time, uint32_t *iterations)
{
    RateJob job = { .luks = luks };
    *iterations = MIN_ITERATIONS;
    if (aio_context_sim(aio_context_current())) {
        return 0; /* a deterministic run must not depend on how fast the machine is */
    }
    int ret = co_run_in_worker(AIO_WORK_CPU, measure_rate, &job);
    if (ret == 0) {
        uint64_t count = (uint64_t)((double)job.per_second * iter_time / 1000);
        *iterations = (uint32_t)CLAMP(count, MIN_ITERATIONS, BDRV_LUKS_MAX_ITERATIONS);
    }
    return ret;
}

static bool failed(int ret, const char *what, GError **errp)
{
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "%s: %s", what, g_strerror(-ret));
    }
    return ret < 0;
}

static bool start_job(SlotJob *job, const BdrvLuks *luks, unsigned slot, BdrvPassphrase passphrase, GError **errp)
{
    *job = (SlotJob){ .luks = luks, .slot = &luks->header.slots[slot], .passphrase = passphrase };
    job->material = g_try_malloc0(bdrv_luks_material_bytes(luks->header.key_bytes));
    return !failed(job->material ? 0 : -ENOMEM, "no memory for key material", errp);
}

static void end_job(SlotJob *job)
{
    wipe_free(job->material, bdrv_luks_material_bytes(job->luks->header.key_bytes));
    OPENSSL_cleanse(job->key, sizeof(job->key));
}

/* Whether @passphrase opens @slot; *key is the volume key then. False with an error if it cannot be told. */
static bool coroutine_fn try_slot(const BdrvLuks *luks, const BdrvLuksIo *io, unsigned slot, BdrvPassphrase passphrase,
                                  bool *opened, uint8_t *key, GError **errp)
{
    SlotJob job;
    *opened = false;
    if (!luks->header.slots[slot].active) {
        return true;
    }
    if (!start_job(&job, luks, slot, passphrase, errp)) {
        return false;
    }
    int ret = io->read(io->opaque, (uint64_t)job.slot->key_sector * BDRV_LUKS_SECTOR, job.material,
                       bdrv_luks_material_bytes(luks->header.key_bytes));
    bool done = !failed(ret, "cannot read LUKS key material", errp);
    if (done) {
        ret = co_run_in_worker(AIO_WORK_CPU, open_slot, &job);
        done = !failed(ret, "cannot try a LUKS key slot", errp);
    }
    if (done && job.opened) {
        *opened = true;
        memcpy(key, job.key, luks->header.key_bytes);
    }
    end_job(&job);
    return done;
}

/* The first slot that @passphrase opens. */
static bool coroutine_fn find_key(const BdrvLuks *luks, const BdrvLuksIo *io, BdrvPassphrase passphrase, uint8_t *key,
                                  GError **errp)
{
    for (unsigned slot = 0; slot < BDRV_LUKS_SLOTS; slot++) {
        bool opened;
        if (!try_slot(luks, io, slot, passphrase, &opened, key, errp)) {
            return false;
        }
        if (opened) {
            return true;
        }
    }
    g_set_error(errp, BDRV_ERROR, EACCES, "Invalid password, cannot unlock any keyslot");
    return false;
}

/* Write @key, sealed by @passphrase, to the area of @slot, whose salt and iterations are new. */
static bool coroutine_fn write_slot(BdrvLuks *luks, const BdrvLuksIo *io, unsigned slot, BdrvPassphrase passphrase,
                                    uint32_t iterations, const uint8_t *key, GError **errp)
{
    BdrvLuksSlot *s = &luks->header.slots[slot];
    uint64_t bytes = bdrv_luks_material_bytes(luks->header.key_bytes);
    SlotJob job;

    s->iterations = iterations;
    s->stripes = BDRV_LUKS_STRIPES;
    s->active = true;
    if (!bdrv_random_bytes(s->salt, sizeof(s->salt), errp) || !start_job(&job, luks, slot, passphrase, errp)) {
        return false;
    }
    memcpy(job.key, key, luks->header.key_bytes);
    size_t random_bytes = (size_t)luks->header.key_bytes * (BDRV_LUKS_STRIPES - 1);
    bool done = bdrv_random_bytes(job.material, random_bytes, errp) &&
                !failed(co_run_in_worker(AIO_WORK_CPU, seal_slot, &job), "cannot make a LUKS key slot", errp);
    if (done) {
        int ret = io->write(io->opaque, (uint64_t)s->key_sector * BDRV_LUKS_SECTOR, job.material, bytes);
        done = !failed(ret, "cannot write LUKS key material", errp);
    }
    end_job(&job);
    return done;
}

static bool coroutine_fn write_header(const BdrvLuks *luks, const BdrvLuksIo *io, GError **errp)
{
    uint8_t buf[BDRV_LUKS_HEADER_BYTES];
    bdrv_luks_header_encode(&luks->header, buf);
    return !failed(io->write(io->opaque, 0, buf, sizeof(buf)), "cannot write the LUKS header", errp);
}

static bool coroutine_fn flush(const BdrvLuksIo *io, GError **errp)
{
    return !failed(io->flush(io->opaque), "cannot flush LUKS key material", errp);
}

/* ---- create ---- */

bool bdrv_luks_iter_time_parse(const BdrvOptions *options, uint32_t *iter_time, GError **errp)
{
    int64_t ms = bdrv_options_get_int(options, "iter-time", DEFAULT_ITER_TIME);

    if (ms < 0 || ms > UINT32_MAX) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "iter-time is %" PRId64 " ms; 0 to %u are possible", ms, UINT32_MAX);
        return false;
    }
    *iter_time = (uint32_t)ms;
    return true;
}

bool bdrv_luks_create_parse(const BdrvOptions *options, BdrvLuksCreate *create, GError **errp)
{
    const char *iv_hash = bdrv_options_get_string(options, "ivgen-hash-alg", NULL);
    BdrvVolumeSpec *spec = &create->spec;

    *create = (BdrvLuksCreate){ 0 };
    spec->algorithm = bdrv_cipher_find(bdrv_options_get_string(options, "cipher-alg", "aes-256"), errp);
    create->hash =
        spec->algorithm ? bdrv_hash_find(bdrv_options_get_string(options, "hash-alg", "sha256"), errp) : NULL;
    if (!create->hash ||
        !bdrv_cipher_mode_find(bdrv_options_get_string(options, "cipher-mode", "xts"), &spec->mode, errp) ||
        !bdrv_ivgen_find(bdrv_options_get_string(options, "ivgen-alg", "plain64"), &spec->ivgen, errp)) {
        return false;
    }
    if (!iv_hash && spec->ivgen == BDRV_IVGEN_ESSIV) {
        iv_hash = "sha256";
    }
    spec->ivgen_hash = iv_hash ? bdrv_hash_find(iv_hash, errp) : NULL;
    if (iv_hash && !spec->ivgen_hash) {
        return false;
    }
    return bdrv_luks_iter_time_parse(options, &create->iter_time, errp) && bdrv_volume_spec_check(spec, errp);
}

static uint32_t create_key_bytes(const BdrvLuksCreate *create)
{
    return (uint32_t)bdrv_cipher_key_bytes(create->spec.algorithm, create->spec.mode);
}

uint64_t bdrv_luks_area_bytes(const BdrvLuksCreate *create)
{
    return bdrv_luks_slot_offset(create_key_bytes(create), BDRV_LUKS_SLOTS);
}

/* Random, version 4 (RFC 4122). */
static bool make_uuid(char *text, size_t bytes, GError **errp)
{
    uint8_t r[16];
    if (!bdrv_random_bytes(r, sizeof(r), errp)) {
        return false;
    }
    r[6] = (r[6] & 0x0f) | 0x40;
    r[8] = (r[8] & 0x3f) | 0x80;
    g_snprintf(text, bytes, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", r[0], r[1], r[2],
               r[3], r[4], r[5], r[6], r[7], r[8], r[9], r[10], r[11], r[12], r[13], r[14], r[15]);
    return true;
}

/* A header whose slots are free. */
static bool start_header(BdrvLuks *luks, const BdrvLuksCreate *create, GError **errp)
{
    BdrvLuksHeader *h = &luks->header;
    g_autofree char *mode = bdrv_volume_spec_mode_text(&create->spec);

    *luks = (BdrvLuks){ .spec = create->spec, .hash = create->hash };
    h->key_bytes = create_key_bytes(create);
    g_strlcpy(h->cipher_name, create->spec.algorithm->luks_name, sizeof(h->cipher_name));
    g_strlcpy(h->cipher_mode, mode, sizeof(h->cipher_mode));
    g_strlcpy(h->hash, bdrv_hash_name(create->hash), sizeof(h->hash));
    h->payload_sector = (uint32_t)(bdrv_luks_area_bytes(create) / BDRV_LUKS_SECTOR);
    for (unsigned i = 0; i < BDRV_LUKS_SLOTS; i++) {
        h->slots[i] = (BdrvLuksSlot){
            .key_sector = (uint32_t)(bdrv_luks_slot_offset(h->key_bytes, i) / BDRV_LUKS_SECTOR),
            .stripes = BDRV_LUKS_STRIPES,
        };
    }
    return make_uuid(h->uuid, sizeof(h->uuid), errp) &&
           bdrv_random_bytes(h->digest_salt, sizeof(h->digest_salt), errp);
}

bool coroutine_fn bdrv_luks_create(const BdrvLuksIo *io, const BdrvLuksCreate *create, BdrvPassphrase passphrase,
                                   GError **errp)
{
    BdrvLuks luks;
    uint8_t key[BDRV_CIPHER_MAX_KEY];
    uint32_t iterations;
    DigestJob digest = { &luks, key };

    if (!start_header(&luks, create, errp) || !bdrv_random_bytes(key, luks.header.key_bytes, errp) ||
        failed(count_iterations(&luks, create->iter_time, &iterations), "cannot time the key derivation", errp)) {
        return false;
    }
    luks.header.digest_iterations = MAX(iterations / DIGEST_SHARE, MIN_ITERATIONS);
    bool made = !failed(co_run_in_worker(AIO_WORK_CPU, make_digest, &digest), "cannot digest the volume key", errp) &&
                write_slot(&luks, io, 0, passphrase, iterations, key, errp) && write_header(&luks, io, errp);
    OPENSSL_cleanse(key, sizeof(key));
    return made;
}

/* ---- open ---- */

bool coroutine_fn bdrv_luks_load(BdrvLuks *luks, const BdrvLuksIo *io, GError **errp)
{
    uint8_t buf[BDRV_LUKS_HEADER_BYTES];
    int ret = io->read(io->opaque, 0, buf, sizeof(buf));

    if (failed(ret, "cannot read the LUKS header", errp) ||
        !bdrv_luks_header_decode(buf, sizeof(buf), &luks->header, errp) ||
        !bdrv_volume_spec_parse(luks->header.cipher_name, luks->header.cipher_mode, luks->header.key_bytes, &luks->spec,
                                errp)) {
        return false;
    }
    luks->hash = bdrv_hash_find(luks->header.hash, errp);
    return luks->hash != NULL;
}

/* The digest is of the volume key. */
static bool is_same_volume(const BdrvLuksHeader *a, const BdrvLuksHeader *b)
{
    return a->key_bytes == b->key_bytes && a->digest_iterations == b->digest_iterations &&
           memcmp(a->digest, b->digest, sizeof(a->digest)) == 0 &&
           memcmp(a->digest_salt, b->digest_salt, sizeof(a->digest_salt)) == 0 && strcmp(a->hash, b->hash) == 0 &&
           strcmp(a->cipher_name, b->cipher_name) == 0 && strcmp(a->cipher_mode, b->cipher_mode) == 0;
}

bool coroutine_fn bdrv_luks_load_again(BdrvLuks *luks, const BdrvLuksIo *io, GError **errp)
{
    BdrvLuks now;
    if (!bdrv_luks_load(&now, io, errp)) {
        return false;
    }
    if (!is_same_volume(&luks->header, &now.header)) {
        g_set_error(errp, BDRV_ERROR, EKEYREJECTED,
                    "the LUKS header is that of another volume now, with another key or cipher (UUID %s, not %s); close "
                    "the image and open it again",
                    now.header.uuid, luks->header.uuid);
        return false;
    }
    *luks = now;
    return true;
}

BdrvVolume *coroutine_fn bdrv_luks_unlock(const BdrvLuks *luks, const BdrvLuksIo *io, BdrvPassphrase passphrase,
                                          GError **errp)
{
    uint8_t key[BDRV_CIPHER_MAX_KEY];
    if (!find_key(luks, io, passphrase, key, errp)) {
        return NULL;
    }
    BdrvVolume *volume = bdrv_volume_new(&luks->spec, key, errp);
    OPENSSL_cleanse(key, sizeof(key));
    return volume;
}

/* ---- keys added and erased ---- */

static int find_free_slot(const BdrvLuks *luks)
{
    for (unsigned i = 0; i < BDRV_LUKS_SLOTS; i++) {
        if (!luks->header.slots[i].active) {
            return (int)i;
        }
    }
    return -1;
}

static unsigned count_active(const BdrvLuks *luks)
{
    unsigned count = 0;
    for (unsigned i = 0; i < BDRV_LUKS_SLOTS; i++) {
        count += luks->header.slots[i].active;
    }
    return count;
}

static bool choose_slot(const BdrvLuks *luks, int wanted, bool force, unsigned *slot, GError **errp)
{
    int found = wanted >= 0 ? wanted : find_free_slot(luks);
    if (found < 0) {
        g_set_error(errp, BDRV_ERROR, ENOSPC, "Can't add a keyslot - all keyslots are in use");
        return false;
    }
    if ((unsigned)found >= BDRV_LUKS_SLOTS) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "Invalid keyslot %d; there are 0 to %u", found, BDRV_LUKS_SLOTS - 1);
        return false;
    }
    if (luks->header.slots[found].active && !force) {
        g_set_error(errp, BDRV_ERROR, EEXIST, "Refusing to overwrite active keyslot %d - please erase it first", found);
        return false;
    }
    *slot = (unsigned)found;
    return true;
}

/* @key in @slot, sealed by @added. Durable, or @luks is as it was. */
static bool coroutine_fn put_key(BdrvLuks *luks, const BdrvLuksIo *io, unsigned slot, BdrvPassphrase added,
                                 uint32_t iterations, const uint8_t *key, GError **errp)
{
    BdrvLuks changed = *luks;
    bool done = write_slot(&changed, io, slot, added, iterations, key, errp) && flush(io, errp) &&
                write_header(&changed, io, errp) && flush(io, errp);
    if (done) {
        *luks = changed;
    }
    return done;
}

/* A key that is replaced may be the only one: until the slot has the new one, that is in a @spare slot too. */
static bool coroutine_fn replace_key(BdrvLuks *luks, const BdrvLuksIo *io, unsigned slot, unsigned spare,
                                     BdrvPassphrase added, uint32_t iterations, const uint8_t *key, GError **errp)
{
    return put_key(luks, io, spare, added, iterations, key, errp) &&
           put_key(luks, io, slot, added, iterations, key, errp) && bdrv_luks_erase_slot(luks, io, spare, false, errp);
}

bool coroutine_fn bdrv_luks_add_key(BdrvLuks *luks, const BdrvLuksIo *io, BdrvPassphrase known, BdrvPassphrase added,
                                    int wanted, uint32_t iter_time, bool force, GError **errp)
{
    uint8_t key[BDRV_CIPHER_MAX_KEY];
    uint32_t iterations;
    unsigned slot;

    if (!choose_slot(luks, wanted, force, &slot, errp) || !find_key(luks, io, known, key, errp)) {
        return false;
    }
    int spare = luks->header.slots[slot].active ? find_free_slot(luks) : -1;
    bool done = !failed(count_iterations(luks, iter_time, &iterations), "cannot time the key derivation", errp);
    if (done && spare >= 0) {
        done = replace_key(luks, io, slot, (unsigned)spare, added, iterations, key, errp);
    } else if (done) {
        done = put_key(luks, io, slot, added, iterations, key, errp);
    }
    OPENSSL_cleanse(key, sizeof(key));
    return done;
}

static bool check_erasure(const BdrvLuks *luks, unsigned slot, GError **errp)
{
    if (!luks->header.slots[slot].active) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "Given keyslot %u is already erased (inactive)", slot);
        return false;
    }
    if (count_active(luks) == 1) {
        g_set_error(errp, BDRV_ERROR, EPERM,
                    "Attempt to erase the only active keyslot %u which will erase all the data in the image "
                    "irreversibly - refusing operation",
                    slot);
        return false;
    }
    return true;
}

bool coroutine_fn bdrv_luks_erase_slot(BdrvLuks *luks, const BdrvLuksIo *io, unsigned slot, bool force, GError **errp)
{
    BdrvLuks changed = *luks;
    BdrvLuksSlot *s = &changed.header.slots[slot];
    uint64_t bytes = bdrv_luks_material_bytes(luks->header.key_bytes);

    if (!force && !check_erasure(luks, slot, errp)) {
        return false;
    }
    g_autofree uint8_t *noise = g_try_malloc(bytes);
    if (failed(noise ? 0 : -ENOMEM, "no memory to erase key material", errp) ||
        !bdrv_random_bytes(noise, bytes, errp)) {
        return false;
    }
    *s = (BdrvLuksSlot){ .key_sector = s->key_sector, .stripes = BDRV_LUKS_STRIPES };
    int ret = io->write(io->opaque, (uint64_t)s->key_sector * BDRV_LUKS_SECTOR, noise, bytes);
    bool done = !failed(ret, "cannot overwrite LUKS key material", errp) && flush(io, errp) &&
                write_header(&changed, io, errp) && flush(io, errp);
    if (done) {
        *luks = changed;
    }
    return done;
}

/* Which of the slots @passphrase opens, of one if @slot is not -1; how many in *count. */
static bool coroutine_fn find_slots(const BdrvLuks *luks, const BdrvLuksIo *io, BdrvPassphrase passphrase, int slot,
                                    bool *opens, unsigned *count, GError **errp)
{
    uint8_t key[BDRV_CIPHER_MAX_KEY];
    bool told = true;

    *count = 0;
    for (unsigned i = 0; told && i < BDRV_LUKS_SLOTS; i++) {
        opens[i] = false;
        if (slot < 0 || (unsigned)slot == i) {
            told = try_slot(luks, io, i, passphrase, &opens[i], key, errp);
            *count += opens[i];
        }
    }
    OPENSSL_cleanse(key, sizeof(key));
    return told;
}

static bool no_match(int slot, GError **errp)
{
    if (slot >= 0) {
        g_set_error(errp, BDRV_ERROR, EACCES,
                    "Given keyslot %d doesn't contain the given old password for erase operation", slot);
    } else {
        g_set_error(errp, BDRV_ERROR, EACCES, "No keyslots match given (old) password for erase operation");
    }
    return false;
}

bool coroutine_fn bdrv_luks_erase_key(BdrvLuks *luks, const BdrvLuksIo *io, BdrvPassphrase passphrase, int slot,
                                      bool force, GError **errp)
{
    bool opens[BDRV_LUKS_SLOTS];
    unsigned count;

    if (!find_slots(luks, io, passphrase, slot, opens, &count, errp)) {
        return false;
    }
    if (count == 0) {
        return no_match(slot, errp);
    }
    if (slot >= 0) {
        return bdrv_luks_erase_slot(luks, io, (unsigned)slot, force, errp);
    }
    if (count == count_active(luks) && !force) {
        g_set_error(errp, BDRV_ERROR, EPERM,
                    "All the active keyslots match the (old) password that was given and erasing them will erase all "
                    "the data in the image irreversibly - refusing operation");
        return false;
    }
    for (unsigned i = 0; i < BDRV_LUKS_SLOTS; i++) {
        if (opens[i] && !bdrv_luks_erase_slot(luks, io, i, true, errp)) {
            return false;
        }
    }
    return true;
}

/* ---- info ---- */

static void describe_slot(const BdrvLuksSlot *slot, BdrvOptions *tree, unsigned index)
{
    g_autoptr(BdrvOptions) s = bdrv_options_new();
    g_autofree char *under = g_strdup_printf("slots.%u", index);

    bdrv_options_set_bool(s, "active", slot->active);
    if (slot->active) {
        bdrv_options_set_int(s, "iters", slot->iterations);
    }
    bdrv_options_set_int(s, "key-offset", (int64_t)slot->key_sector * BDRV_LUKS_SECTOR);
    if (slot->active) {
        bdrv_options_set_int(s, "stripes", slot->stripes);
    }
    bdrv_options_merge(tree, under, s);
}

void bdrv_luks_describe(const BdrvLuks *luks, BdrvOptions *tree, const char *prefix, const char *format)
{
    const BdrvLuksHeader *h = &luks->header;
    g_autoptr(BdrvOptions) d = bdrv_options_new();

    bdrv_options_set_string(d, "ivgen-alg", bdrv_ivgen_name(luks->spec.ivgen));
    if (luks->spec.ivgen == BDRV_IVGEN_ESSIV) {
        bdrv_options_set_string(d, "ivgen-hash-alg", bdrv_hash_name(luks->spec.ivgen_hash));
    }
    bdrv_options_set_string(d, "hash-alg", h->hash);
    bdrv_options_set_string(d, "cipher-alg", luks->spec.algorithm->name);
    bdrv_options_set_string(d, "uuid", h->uuid);
    if (format) {
        bdrv_options_set_string(d, "format", format);
    }
    bdrv_options_set_string(d, "cipher-mode", bdrv_cipher_mode_name(luks->spec.mode));
    for (unsigned i = 0; i < BDRV_LUKS_SLOTS; i++) {
        describe_slot(&h->slots[i], d, i);
    }
    bdrv_options_set_int(d, "payload-offset", (int64_t)h->payload_sector * BDRV_LUKS_SECTOR);
    bdrv_options_set_int(d, "master-key-iters", h->digest_iterations);
    bdrv_options_merge(tree, prefix, d);
}
