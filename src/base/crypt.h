/* Digests and at-rest encryption on OpenSSL. Any thread. */
#ifndef MU_BASE_CRYPT_H
#define MU_BASE_CRYPT_H

#include "base/buf.h"
#include "base/env.h"

enum { MU_SHA256_LEN = 32 };

struct mu_digest {
    unsigned char bytes[MU_SHA256_LEN];
};
/* 64 hexadecimal characters and a NUL. */
struct mu_digest_hex {
    char text[2 * MU_SHA256_LEN + 1];
};

struct mu_digest mu_sha256(mu_bytes data);
/* Of a, one zero byte, b: the tenant-and-body hash of data-model.md 3.2. */
struct mu_digest mu_sha256_two(mu_bytes a, mu_bytes b);
struct mu_digest_hex mu_sha256_hex(mu_bytes data);

/* Whether two secrets are the same, in a time that tells nothing of where they differ. */
bool mu_same_secret(mu_bytes a, mu_bytes b);

/* The at-rest scheme (agent-ops.md 5.5): "v1:<keyId>:<base64(IV, ciphertext, tag)>", AES-256-GCM
 * under a key derived with HKDF-SHA256 from the root for one purpose; `aad` = "<table>|<row
 * id>|<column>". */
struct mu_vault;
/* Only a key derived from `root` (at least 32 bytes) is kept. MU_E_INVALID when it is shorter,
 * -ENOMEM. `previous` may be empty: readable, never written. `env` must
 * outlive the vault. */
MU_MUST_USE int mu_vault_new(const struct mu_env *env, mu_bytes root, mu_bytes previous,
                             struct mu_vault **ret);
struct mu_vault *mu_vault_free(struct mu_vault *v);
/* Appends the stored form. -ENOMEM, MU_E_TOO_LARGE, MU_E_INTERNAL; then nothing was appended. */
MU_MUST_USE int mu_vault_seal(struct mu_vault *v, const char *purpose, mu_bytes aad, mu_bytes clear,
                              struct mu_buf *dst);
/* What only the holder of the root can say of `text`: tells whether something was made here. Not
 * secret. -ENOMEM, MU_E_INTERNAL. */
MU_MUST_USE int mu_vault_tag(const struct mu_vault *v, const char *purpose, mu_bytes text,
                             struct mu_digest *ret);
/* Appends the clear text. MU_E_CORRUPT when it was made under another key, purpose or aad, or
 * changed. */
MU_MUST_USE int mu_vault_open(struct mu_vault *v, const char *purpose, mu_bytes aad,
                              mu_bytes stored, struct mu_buf *dst);

#endif
