#include "base/crypt.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include "base/encode.h"
#include "base/err.h"

enum { ROOT_MIN = 32, KEY_LEN = 32, IV_LEN = 12, TAG_LEN = 16, KEY_ID_LEN = 8 };

/* Fetching an algorithm costs more than hashing a kilobyte, so it happens once; a process in which
 * the library has no SHA-256 cannot do anything useful, hence the checks. */
static EVP_MD *sha256;
static EVP_CIPHER *aes_gcm;
static EVP_KDF *hkdf;
static pthread_key_t digest_key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void free_digest(void *p)
{
    EVP_MD_CTX_free(p);
}

static void fetch_all(void)
{
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    aes_gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    hkdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    MU_CHECK(sha256 && aes_gcm && hkdf);
    MU_CHECK(pthread_key_create(&digest_key, free_digest) == 0);
}

/* One context a thread, made on its first digest and freed when the thread ends. */
static EVP_MD_CTX *digest_begin(void)
{
    static _Thread_local EVP_MD_CTX *ctx;
    if (!ctx) {
        pthread_once(&once, fetch_all);
        ctx = EVP_MD_CTX_new();
        MU_CHECK(ctx && pthread_setspecific(digest_key, ctx) == 0);
    }
    MU_CHECK(EVP_DigestInit_ex2(ctx, sha256, NULL) == 1);
    return ctx;
}

static void digest_add(EVP_MD_CTX *ctx, mu_bytes data)
{
    if (data.len) {
        MU_CHECK(EVP_DigestUpdate(ctx, data.ptr, data.len) == 1);
    }
}

static struct mu_digest digest_end(EVP_MD_CTX *ctx)
{
    struct mu_digest d;
    unsigned len = 0;
    MU_CHECK(EVP_DigestFinal_ex(ctx, d.bytes, &len) == 1 && len == MU_SHA256_LEN);
    return d;
}

struct mu_digest mu_sha256(mu_bytes data)
{
    EVP_MD_CTX *ctx = digest_begin();
    digest_add(ctx, data);
    return digest_end(ctx);
}

struct mu_digest mu_sha256_two(mu_bytes a, mu_bytes b)
{
    EVP_MD_CTX *ctx = digest_begin();
    digest_add(ctx, a);
    digest_add(ctx, mu_bytes_of("", 1));
    digest_add(ctx, b);
    return digest_end(ctx);
}

bool mu_same_secret(mu_bytes a, mu_bytes b)
{
    return a.len == b.len && CRYPTO_memcmp(a.ptr, b.ptr, a.len) == 0;
}

struct mu_digest_hex mu_sha256_hex(mu_bytes data)
{
    struct mu_digest d = mu_sha256(data);
    struct mu_digest_hex h;
    mu_hex(d.bytes, sizeof d.bytes, h.text);
    return h;
}

/* Of a root only the HKDF pseudo-random key is kept: every purpose's key is one expansion of it. */
struct root {
    unsigned char prk[MU_SHA256_LEN];
    char id[KEY_ID_LEN + 1];
};

struct mu_vault {
    const struct mu_env *env;
    struct root roots[2]; /* current, previous */
    size_t n_roots;
};

static int derive(int mode, const void *key, size_t key_len, mu_bytes info, unsigned char *dst)
{
    EVP_KDF_CTX *ctx = EVP_KDF_CTX_new(hkdf);
    if (!ctx) {
        return -ENOMEM;
    }
    char digest[] = "SHA256";
    OSSL_PARAM params[5], *p = params;
    *p++ = OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode);
    *p++ = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0);
    *p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)(uintptr_t)key, key_len);
    if (info.ptr) {
        *p++ = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)(uintptr_t)info.ptr,
                                                 info.len);
    }
    *p = OSSL_PARAM_construct_end();
    int ok = EVP_KDF_derive(ctx, dst, KEY_LEN, params);
    EVP_KDF_CTX_free(ctx);
    return ok == 1 ? 0 : MU_E_INTERNAL;
}

static int root_init(struct root *r, mu_bytes secret)
{
    unsigned char id_key[KEY_LEN];
    int e = derive(EVP_KDF_HKDF_MODE_EXTRACT_ONLY, secret.ptr, secret.len, MU_B_NONE, r->prk);
    if (e == 0) {
        e = derive(EVP_KDF_HKDF_MODE_EXPAND_ONLY, r->prk, sizeof r->prk, MU_B("key-id"), id_key);
    }
    if (e == 0) {
        struct mu_digest_hex h = mu_sha256_hex(mu_bytes_of((const char *)id_key, sizeof id_key));
        memcpy(r->id, h.text, KEY_ID_LEN);
        r->id[KEY_ID_LEN] = 0;
    }
    OPENSSL_cleanse(id_key, sizeof id_key);
    return e;
}

int mu_vault_new(const struct mu_env *env, mu_bytes root, mu_bytes previous, struct mu_vault **ret)
{
    if (root.len < ROOT_MIN || (previous.len && previous.len < ROOT_MIN)) {
        return MU_E_INVALID;
    }
    pthread_once(&once, fetch_all);
    struct mu_vault *v = mu_calloc(1, sizeof *v);
    if (!v) {
        return -ENOMEM;
    }
    v->env = env;
    v->n_roots = previous.len ? 2 : 1;
    int e = root_init(&v->roots[0], root);
    if (e == 0 && previous.len) {
        e = root_init(&v->roots[1], previous);
    }
    if (e < 0) {
        mu_vault_free(v);
        return e;
    }
    *ret = v;
    return 0;
}

struct mu_vault *mu_vault_free(struct mu_vault *v)
{
    if (v) {
        OPENSSL_cleanse(v, sizeof *v);
        mu_free(v);
    }
    return NULL;
}

/* One pass of AES-256-GCM over `len` bytes; sealing writes the tag, opening checks it. */
static int gcm(const unsigned char *key, bool seal, const unsigned char *iv, mu_bytes aad,
               const unsigned char *src, size_t len, unsigned char *dst, unsigned char *tag)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    if (!ctx) {
        return -ENOMEM;
    }
    int n = 0, e = MU_E_INTERNAL;
    unsigned char rest[TAG_LEN];
    if (EVP_CipherInit_ex2(ctx, aes_gcm, key, iv, seal, NULL) != 1 ||
        (aad.len &&
         EVP_CipherUpdate(ctx, NULL, &n, (const unsigned char *)aad.ptr, (int)aad.len) != 1) ||
        (len && EVP_CipherUpdate(ctx, dst, &n, src, (int)len) != 1)) {
        goto out;
    }
    if (!seal && EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, TAG_LEN, tag) != 1) {
        goto out;
    }
    if (EVP_CipherFinal_ex(ctx, rest, &n) != 1) {
        e = seal ? MU_E_INTERNAL : MU_E_CORRUPT;
        goto out;
    }
    if (seal && EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, TAG_LEN, tag) != 1) {
        goto out;
    }
    e = 0;
out:
    EVP_CIPHER_CTX_free(ctx);
    return e;
}

static int gcm_for(const struct root *r, const char *purpose, bool seal, const unsigned char *iv,
                   mu_bytes aad, const unsigned char *src, size_t len, unsigned char *dst,
                   unsigned char *tag)
{
    unsigned char key[KEY_LEN];
    int e = derive(EVP_KDF_HKDF_MODE_EXPAND_ONLY, r->prk, sizeof r->prk, mu_str(purpose), key);
    if (e == 0) {
        e = gcm(key, seal, iv, aad, src, len, dst, tag);
    }
    OPENSSL_cleanse(key, sizeof key);
    return e;
}

/* One expansion is an HMAC of its info under the root's key. */
int mu_vault_tag(const struct mu_vault *v, const char *purpose, mu_bytes text,
                 struct mu_digest *ret)
{
    char info[160];
    struct mu_digest_hex hex = mu_sha256_hex(text);
    int n = snprintf(info, sizeof info, "tag|%s|%s", purpose, hex.text);
    MU_CHECK(n > 0 && (size_t)n < sizeof info);
    return derive(EVP_KDF_HKDF_MODE_EXPAND_ONLY, v->roots[0].prk, sizeof v->roots[0].prk,
                  mu_bytes_of(info, (size_t)n), ret->bytes);
}

int mu_vault_seal(struct mu_vault *v, const char *purpose, mu_bytes aad, mu_bytes clear,
                  struct mu_buf *dst)
{
    if (clear.len > INT_MAX / 2 || aad.len > INT_MAX) {
        return MU_E_TOO_LARGE;
    }
    size_t len = IV_LEN + clear.len + TAG_LEN, before = dst->len;
    unsigned char *raw = mu_alloc(len);
    if (!raw) {
        return -ENOMEM;
    }
    v->env->random(v->env, raw, IV_LEN);
    int e = gcm_for(&v->roots[0], purpose, true, raw, aad, (const unsigned char *)clear.ptr,
                    clear.len, raw + IV_LEN, raw + IV_LEN + clear.len);
    if (e == 0) {
        mu_buf_add(dst, MU_B("v1:"));
        mu_buf_add(dst, mu_bytes_of(v->roots[0].id, KEY_ID_LEN));
        mu_buf_add_char(dst, ':');
        mu_base64_add(dst, mu_bytes_of((const char *)raw, len));
        e = dst->failed;
    }
    if (e < 0) {
        dst->len = before;
    }
    mu_free(raw);
    return e;
}

/* The root that a stored value names, and where its base64 begins. */
static const struct root *root_of(const struct mu_vault *v, mu_bytes stored, mu_bytes *ret_base64)
{
    if (!mu_bytes_starts(stored, MU_B("v1:")) || stored.len < 3 + KEY_ID_LEN + 1 ||
        stored.ptr[3 + KEY_ID_LEN] != ':') {
        return NULL;
    }
    mu_bytes id = mu_bytes_of(stored.ptr + 3, KEY_ID_LEN);
    *ret_base64 = mu_bytes_from(stored, 3 + KEY_ID_LEN + 1);
    for (size_t i = 0; i < v->n_roots; i++) {
        if (mu_bytes_is(id, v->roots[i].id)) {
            return &v->roots[i];
        }
    }
    return NULL;
}

int mu_vault_open(struct mu_vault *v, const char *purpose, mu_bytes aad, mu_bytes stored,
                  struct mu_buf *dst)
{
    mu_bytes base64 = MU_B_NONE;
    const struct root *root = root_of(v, stored, &base64);
    if (!root) {
        return MU_E_CORRUPT;
    }
    if (base64.len > INT_MAX || aad.len > INT_MAX) {
        return MU_E_TOO_LARGE;
    }
    struct mu_buf raw;
    mu_buf_init(&raw, base64.len);
    int e = mu_base64_decode(base64, &raw);
    if (e == MU_E_INVALID || (e == 0 && raw.len < IV_LEN + TAG_LEN)) {
        e = MU_E_CORRUPT;
    }
    if (e == 0) {
        unsigned char *p = (unsigned char *)raw.ptr;
        size_t len = raw.len - IV_LEN - TAG_LEN;
        e = gcm_for(root, purpose, false, p, aad, p + IV_LEN, len, p + IV_LEN, p + IV_LEN + len);
        if (e == 0) {
            mu_buf_add(dst, mu_bytes_of(raw.ptr + IV_LEN, len));
            e = dst->failed;
        }
    }
    mu_buf_wipe(&raw); /* it may hold clear text */
    return e;
}
