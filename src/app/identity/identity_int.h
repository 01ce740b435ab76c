#ifndef MU_APP_IDENTITY_IDENTITY_INT_H
#define MU_APP_IDENTITY_IDENTITY_INT_H

#include <pthread.h>

#include "app/identity/identity.h"
#include "base/list.h"
#include "base/map.h"

enum {
    MU_KEYS_MAX = 10000,
    MU_CRED_KEY = 2,
    MU_CRED_LOGIN = 5,
    MU_ORG_ISSUED = 1,
    MU_ORG_TOKEN = 2
};

/* mu_credential.kind: the prefix of a token decides how it is looked up. Stored with a login. */
enum {
    MU_KIND_OTHER,
    MU_KIND_KEY,
    MU_KIND_RUN,
    MU_KIND_PASS,
    MU_KIND_ADMIN, /* good only while it is the admin key's */
    MU_KIND_LOGIN
};

/* A live issued key in memory. */
struct mu_key_entry {
    char hash[65]; /* the map's key */
    struct mu_id id;
    char org_id[MU_ORG_LEN + 1];
    enum mu_role role;
    int64_t expires_ms; /* 0 = never */
    bool live;          /* false: its row is not committed yet */
    _Atomic int64_t used_ms;
    char name[]; /* ended by NUL */
};

struct mu_identity {
    const struct mu_env *env;
    struct mu_writer *writer;
    struct mu_readers *readers;
    struct mu_loop *core;
    const char *tokens_file; /* NULL = none */
    int64_t interval_us;     /* between two requests of a tenant; 0 = no limit */
    size_t max_tenants;

    pthread_rwlock_t lock; /* guards what follows */
    bool has_admin;
    struct mu_digest admin;
    struct mu_digest *tokens; /* sorted */
    size_t n_tokens;
    struct mu_map keys; /* hash -> struct mu_key_entry */

    struct mu_map workers; /* hash -> key of one worker; unchanged once made */
    pthread_rwlock_t passes_lock;
    struct mu_map passes; /* hash -> enrolment token or worker's credential */
    pthread_rwlock_t runs_lock;
    struct mu_map runs; /* hash -> session token */

    pthread_rwlock_t tenants_lock;
    struct mu_map tenants; /* org_id -> struct mu_tenant */

    pthread_mutex_t tickets_lock;
    struct mu_map tickets;         /* hash -> struct ticket */
    struct mu_list tickets_by_age; /* the oldest first */

    pthread_rwlock_t logins_lock;
    struct mu_map logins; /* hash -> struct login */

    pthread_mutex_t codes_lock;
    struct mu_list codes; /* the oldest first */
    size_t n_codes;
};

/* --- keys.c --- */
MU_MUST_USE int mu_keys_load(struct mu_identity *id, struct mu_db *db);
/* Notes that the key was used, at most once a minute; the lock is held for reading. */
void mu_key_used(struct mu_identity *id, struct mu_key_entry *e, int64_t now_ms);

/* --- grants.c --- */
MU_MUST_USE int mu_identity_worker_keys(struct mu_identity *id, const char *list,
                                        struct mu_err *err);
/* p->token_hash is set. */
bool mu_grant_worker(struct mu_identity *id, struct mu_principal *p);
MU_MUST_USE int mu_grant_run(struct mu_identity *id, struct mu_principal *p);

/* --- passes.c --- */
MU_MUST_USE int mu_passes_load(struct mu_identity *id, struct mu_db *db);
/* p->token_hash is set. */
MU_MUST_USE int mu_grant_pass(struct mu_identity *id, struct mu_principal *p);

/* --- tickets.c --- */
void mu_tickets_init(struct mu_identity *id);
void mu_tickets_fini(struct mu_identity *id);

/* --- logins.c --- */
void mu_logins_init(struct mu_identity *id);
void mu_logins_fini(struct mu_identity *id);
MU_MUST_USE int mu_logins_load(struct mu_identity *id, struct mu_db *db);
/* Who a login stands for. */
MU_MUST_USE int mu_grant_login(struct mu_identity *id, const struct mu_credential *login,
                               struct mu_principal *ret);

/* --- codes.c --- */
void mu_codes_init(struct mu_identity *id);
void mu_codes_fini(struct mu_identity *id);

/* --- tokens.c --- */
MU_MUST_USE int mu_tokens_read(const char *path, struct mu_digest **ret, size_t *ret_n,
                               struct mu_err *err);
bool mu_tokens_has(const struct mu_digest *tokens, size_t n, const struct mu_digest *d);

#endif
