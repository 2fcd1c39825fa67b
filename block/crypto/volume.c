/* SPDX-License-Identifier: MIT */
#include "block/crypto/volume.h"

#include <bdrv/aio.h>
#include <bdrv/error.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <string.h>

/* What one thread at a time encrypts with. */
typedef struct Lane {
    BdrvCipher *data;
    BdrvCipher *essiv; /* NULL: not used */
    struct Lane *next;
} Lane;

struct BdrvVolume {
    BdrvVolumeSpec spec;
    const BdrvCipherAlgorithm *essiv_algorithm;
    pthread_mutex_t lock;
    Lane *idle; /* lock; as many lanes are made as are ever used at once */
    uint8_t key[BDRV_CIPHER_MAX_KEY];
    uint8_t essiv_key[BDRV_HASH_MAX_BYTES];
};

static const char *const ivgen_names[] = {
    [BDRV_IVGEN_PLAIN] = "plain",
    [BDRV_IVGEN_PLAIN64] = "plain64",
    [BDRV_IVGEN_ESSIV] = "essiv",
};

/* ---- what a volume is ---- */

bool bdrv_ivgen_find(const char *name, BdrvIvgen *ivgen, GError **errp)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(ivgen_names); i++) {
        if (strcmp(ivgen_names[i], name) == 0) {
            *ivgen = (BdrvIvgen)i;
            return true;
        }
    }
    g_set_error(errp, BDRV_ERROR, ENOTSUP, "IV generator '%s' is unknown; plain, plain64 and essiv are known", name);
    return false;
}

const char *bdrv_ivgen_name(BdrvIvgen ivgen)
{
    return ivgen_names[ivgen];
}

bool bdrv_volume_spec_parse(const char *cipher_name, const char *cipher_mode, size_t key_bytes, BdrvVolumeSpec *spec,
                            GError **errp)
{
    g_autofree char *mode = g_strdup(cipher_mode);
    char *ivgen = strchr(mode, '-');
    char *hash = ivgen ? strchr(ivgen, ':') : NULL;

    if (!ivgen) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "cipher mode '%s' names no IV generator, as in 'xts-plain64'",
                    cipher_mode);
        return false;
    }
    *ivgen++ = '\0';
    if (hash) {
        *hash++ = '\0';
    }
    *spec = (BdrvVolumeSpec){ 0 };
    if (!bdrv_cipher_mode_find(mode, &spec->mode, errp) || !bdrv_ivgen_find(ivgen, &spec->ivgen, errp)) {
        return false;
    }
    spec->ivgen_hash = hash ? bdrv_hash_find(hash, errp) : NULL;
    if (hash && !spec->ivgen_hash) {
        return false;
    }
    size_t one_key = spec->mode == BDRV_CIPHER_XTS ? key_bytes / 2 : key_bytes;
    spec->algorithm = bdrv_cipher_find_luks(cipher_name, one_key, errp);
    return spec->algorithm && bdrv_volume_spec_check(spec, errp);
}

char *bdrv_volume_spec_mode_text(const BdrvVolumeSpec *spec)
{
    const char *mode = bdrv_cipher_mode_name(spec->mode), *ivgen = bdrv_ivgen_name(spec->ivgen);
    return spec->ivgen_hash ? g_strdup_printf("%s-%s:%s", mode, ivgen, bdrv_hash_name(spec->ivgen_hash))
                            : g_strdup_printf("%s-%s", mode, ivgen);
}

/* The cipher that encrypts the vectors: the same, with the hash of the key as its key. */
static const BdrvCipherAlgorithm *essiv_algorithm(const BdrvVolumeSpec *spec)
{
    return bdrv_cipher_find_key(spec->algorithm, bdrv_hash_bytes(spec->ivgen_hash));
}

bool bdrv_volume_spec_check(const BdrvVolumeSpec *spec, GError **errp)
{
    if (!bdrv_cipher_check(spec->algorithm, spec->mode, errp)) {
        return false;
    }
    if (spec->ivgen != BDRV_IVGEN_ESSIV) {
        return true;
    }
    if (!spec->ivgen_hash) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "IV generator 'essiv' needs a hash, as in 'essiv:sha256'");
        return false;
    }
    if (!essiv_algorithm(spec)) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP,
                    "IV generator 'essiv' needs a hash as long as a key of cipher '%s'; '%s' has %zu bytes",
                    spec->algorithm->luks_name, bdrv_hash_name(spec->ivgen_hash), bdrv_hash_bytes(spec->ivgen_hash));
        return false;
    }
    return true;
}

/* ---- lanes ---- */

static void free_lane(Lane *lane)
{
    bdrv_cipher_free(lane->data);
    bdrv_cipher_free(lane->essiv);
    g_free(lane);
}

static Lane *new_lane(const BdrvVolume *v)
{
    Lane *lane = g_try_new0(Lane, 1);
    if (!lane) {
        return NULL;
    }
    lane->data = bdrv_cipher_new(v->spec.algorithm, v->spec.mode, v->key);
    lane->essiv = v->essiv_algorithm ? bdrv_cipher_new(v->essiv_algorithm, BDRV_CIPHER_ECB, v->essiv_key) : NULL;
    if (!lane->data || (v->essiv_algorithm && !lane->essiv)) {
        free_lane(lane);
        return NULL;
    }
    return lane;
}

static Lane *take_lane(BdrvVolume *v)
{
    pthread_mutex_lock(&v->lock);
    Lane *lane = v->idle;
    if (lane) {
        v->idle = lane->next;
    }
    pthread_mutex_unlock(&v->lock);
    return lane ? lane : new_lane(v);
}

static void give_lane(BdrvVolume *v, Lane *lane)
{
    pthread_mutex_lock(&v->lock);
    lane->next = v->idle;
    v->idle = lane;
    pthread_mutex_unlock(&v->lock);
}

/* ---- life ---- */

BdrvVolume *bdrv_volume_new(const BdrvVolumeSpec *spec, const uint8_t *key, GError **errp)
{
    size_t key_bytes = bdrv_cipher_key_bytes(spec->algorithm, spec->mode);
    BdrvVolume *v = g_try_new0(BdrvVolume, 1);

    if (!v) {
        g_set_error(errp, BDRV_ERROR, ENOMEM, "no memory for a cipher");
        return NULL;
    }
    pthread_mutex_init(&v->lock, NULL);
    v->spec = *spec;
    memcpy(v->key, key, key_bytes);
    int ret = 0;
    if (spec->ivgen == BDRV_IVGEN_ESSIV) {
        v->essiv_algorithm = essiv_algorithm(spec);
        ret = bdrv_hash_digest(spec->ivgen_hash, NULL, 0, key, key_bytes, v->essiv_key);
    }
    Lane *lane = ret < 0 ? NULL : take_lane(v);
    if (!lane) {
        g_set_error(errp, BDRV_ERROR, EIO, "cipher '%s' in mode '%s' does not take the key", spec->algorithm->name,
                    bdrv_cipher_mode_name(spec->mode));
        bdrv_volume_free(v);
        return NULL;
    }
    give_lane(v, lane);
    return v;
}

void bdrv_volume_free(BdrvVolume *v)
{
    if (!v) {
        return;
    }
    while (v->idle) {
        Lane *lane = v->idle;
        v->idle = lane->next;
        free_lane(lane);
    }
    pthread_mutex_destroy(&v->lock);
    OPENSSL_cleanse(v, sizeof(*v));
    g_free(v);
}

/* ---- sectors ---- */

static int make_iv(const BdrvVolume *v, const Lane *lane, uint64_t sector, uint8_t *iv)
{
    uint64_t le = GUINT64_TO_LE(v->spec.ivgen == BDRV_IVGEN_PLAIN ? (uint32_t)sector : sector);

    memset(iv, 0, BDRV_CIPHER_MAX_BLOCK);
    memcpy(iv, &le, sizeof(le));
    return lane->essiv ? bdrv_cipher_crypt(lane->essiv, true, NULL, iv, iv, v->essiv_algorithm->block_bytes) : 0;
}

static int crypt_sectors(const BdrvVolume *v, Lane *lane, bool encrypt, uint64_t offset, const uint8_t *in,
                         uint8_t *out, size_t bytes)
{
    int ret = 0;
    for (size_t done = 0; done < bytes && ret == 0; done += BDRV_VOLUME_SECTOR) {
        uint8_t iv[BDRV_CIPHER_MAX_BLOCK];
        bool has_iv = v->spec.mode != BDRV_CIPHER_ECB;
        ret = has_iv ? make_iv(v, lane, (offset + done) / BDRV_VOLUME_SECTOR, iv) : 0;
        if (ret == 0) {
            ret = bdrv_cipher_crypt(lane->data, encrypt, has_iv ? iv : NULL, in + done, out + done,
                                    BDRV_VOLUME_SECTOR);
        }
    }
    return ret;
}

int bdrv_volume_crypt(BdrvVolume *volume, bool encrypt, uint64_t offset, const uint8_t *in, uint8_t *out, size_t bytes)
{
    Lane *lane = take_lane(volume);
    if (!lane) {
        return -ENOMEM;
    }
    int ret = crypt_sectors(volume, lane, encrypt, offset, in, out, bytes);
    give_lane(volume, lane);
    return ret;
}

/* ---- buffers in pieces, in a worker ---- */

typedef struct CryptJob {
    BdrvVolume *volume;
    uint64_t offset;
    const BdrvIov *iov;
    size_t iov_offset, bytes;
    uint8_t *out; /* NULL: decrypt in place */
} CryptJob;

/* A sector that lies in two or more elements. */
static int crypt_split_sector(const CryptJob *job, Lane *lane, size_t done)
{
    uint8_t sector[BDRV_VOLUME_SECTOR];
    uint8_t *out = job->out ? job->out + done : sector;

    bdrv_iov_to_buf(job->iov, job->iov_offset + done, sector, sizeof(sector));
    int ret = crypt_sectors(job->volume, lane, job->out != NULL, job->offset + done, sector, out, sizeof(sector));
    if (ret == 0 && !job->out) {
        bdrv_iov_from_buf(job->iov, job->iov_offset + done, sector, sizeof(sector));
    }
    OPENSSL_cleanse(sector, sizeof(sector));
    return ret;
}

static int crypt_iov(void *opaque)
{
    const CryptJob *job = opaque;
    Lane *lane = take_lane(job->volume);
    int ret = lane ? 0 : -ENOMEM;

    for (size_t done = 0; done < job->bytes && ret == 0;) {
        struct iovec piece;
        size_t covered;
        bdrv_iov_slice(job->iov, job->iov_offset + done, job->bytes - done, &piece, 1, &covered);
        size_t whole = covered / BDRV_VOLUME_SECTOR * BDRV_VOLUME_SECTOR;
        if (whole) {
            uint8_t *out = job->out ? job->out + done : piece.iov_base;
            ret = crypt_sectors(job->volume, lane, job->out != NULL, job->offset + done, piece.iov_base, out, whole);
        } else {
            ret = crypt_split_sector(job, lane, done);
            whole = BDRV_VOLUME_SECTOR;
        }
        done += whole;
    }
    if (lane) {
        give_lane(job->volume, lane);
    }
    return ret;
}

int coroutine_fn bdrv_volume_co_decrypt(BdrvVolume *volume, uint64_t offset, const BdrvIov *iov, size_t iov_offset,
                                        size_t bytes)
{
    CryptJob job = { volume, offset, iov, iov_offset, bytes, NULL };
    return co_run_in_worker(AIO_WORK_CPU, crypt_iov, &job);
}

int coroutine_fn bdrv_volume_co_encrypt(BdrvVolume *volume, uint64_t offset, const BdrvIov *iov, size_t iov_offset,
                                        size_t bytes, uint8_t *out)
{
    CryptJob job = { volume, offset, iov, iov_offset, bytes, out };
    return co_run_in_worker(AIO_WORK_CPU, crypt_iov, &job);
}

/* ---- to and from a child ---- */

/* One piece of a write is encrypted at a time, into memory of this size. */
#define MAX_PIECE_BYTES (INT64_C(1) << 20)

int coroutine_fn bdrv_volume_co_preadv(BdrvVolume *volume, BdrvChild *child, int64_t offset, uint64_t iv_offset,
                                       int64_t bytes, const BdrvIov *iov, size_t iov_offset)
{
    int ret = bdrv_co_preadv(child, offset, bytes, iov, iov_offset, 0);
    return ret < 0 ? ret : bdrv_volume_co_decrypt(volume, iv_offset, iov, iov_offset, (size_t)bytes);
}

int coroutine_fn bdrv_volume_co_pwritev(BdrvVolume *volume, BdrvChild *child, int64_t offset, uint64_t iv_offset,
                                        int64_t bytes, const BdrvIov *iov, size_t iov_offset, BdrvRequestFlags flags)
{
    uint8_t *buf = bdrv_try_blockalign(child->bs, (size_t)MIN(bytes, MAX_PIECE_BYTES));
    int ret = buf ? 0 : -ENOMEM;

    for (int64_t done = 0; done < bytes && ret >= 0;) {
        int64_t piece = MIN(bytes - done, MAX_PIECE_BYTES);
        ret = bdrv_volume_co_encrypt(volume, iv_offset + (uint64_t)done, iov, iov_offset + (size_t)done, (size_t)piece,
                                     buf);
        if (ret >= 0) {
            ret = bdrv_co_pwrite(child, offset + done, piece, buf, flags);
        }
        done += piece;
    }
    bdrv_vfree(buf);
    return ret < 0 ? ret : 0;
}
