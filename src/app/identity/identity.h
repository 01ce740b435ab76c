/* Who is calling (specification README 4, oz-api.md 2): the admin key, issued API keys (sk_…), and
 * bare tokens, each of which is the tenant of its hash. Tenant limits live here because they are
 * per caller. */
#ifndef MU_APP_IDENTITY_IDENTITY_H
#define MU_APP_IDENTITY_IDENTITY_H

#include <stdatomic.h>

#include "base/crypt.h"
#include "base/id.h"
#include "base/metrics.h"
#include "db/reader.h"
#include "db/writer.h"

struct mu_identity;

enum { MU_ORG_LEN = 39, MU_UID_LEN = 64, MU_WORKER_NAME_MAX = 200, MU_RUN_TOKEN_LEN = 3 + 64 };
#define MU_RUN_TOKEN_PREFIX "rt_"

/* Live counters and the request budget of one org; shared by all loops, never freed before the
 * identity is. */
struct mu_tenant {
    char org_id[MU_ORG_LEN + 1];
    atomic_bool stored;     /* the orgs row exists */
    atomic_long live;       /* sessions that have not ended */
    atomic_long running;    /* of those, executed: by the provider route or a worker */
    _Atomic int64_t bucket; /* request budget: theoretical arrival time in microseconds (GCRA) */
};

/* What a caller may do in its org; stored (credentials.role). */
enum mu_role {
    MU_ROLE_VIEWER = 1, /* reads */
    MU_ROLE_OPERATOR,   /* makes and steers what is the org's */
    MU_ROLE_ORG_ADMIN,  /* workers, limits and settings of the org too */
    MU_ROLE_ADMIN,      /* of the platform: the admin key; never stored */
};

struct mu_principal {
    bool admin;
    enum mu_role role; /* 0: a worker's key, a session token */
    char org_id[MU_ORG_LEN +
                1]; /* "tok_" + 32 hex for bare tokens and the admin key; the key's org for sk_… */
    char uid[MU_UID_LEN + 1]; /* what the run object shows as creator.uid: the token's hash, or the
                                 org of the key */
    char token_hash[65];      /* "" for issued keys */
    struct mu_id key;         /* of an issued key; else empty */
    struct mu_tenant *tenant; /* NULL for a worker's key */
    const char *worker;       /* a worker's key: the one worker id that it may use, else NULL */
    struct mu_id enrolment;   /* an enrolment token: the right to register a worker, else empty */
    struct mu_id runner;      /* a worker's own credential: that worker, else empty */
    bool removed;      /* of a worker that was deregistered: it is told so, and nothing else */
    struct mu_id run;  /* a session token: the one session that it may touch, else empty */
    int64_t run_epoch; /* of its attempt: a move of the session voids the token */
};

struct mu_identity_opts {
    const struct mu_env *env;
    struct mu_writer *writer;
    struct mu_readers *readers;
    struct mu_loop *core;
    const char *admin_key;          /* NULL: no admin (OZ_ALLOW_NO_ADMIN_KEY) */
    const char *tenant_tokens_file; /* lines of 64 hex; NULL = every bare token is a tenant */
    const char *worker_keys;        /* OZ_WORKER_KEYS: "id=sha256,…", or NULL */
    int64_t requests_per_minute;    /* per tenant; 0 = no limit */
    int64_t max_tenants;            /* tenants remembered in memory (100000); beyond it 503 */
};

/* Loads the keys from the database with `db` (start-up, blocking). Worded errors (a bad line of the
 * tokens file). */
MU_MUST_USE int mu_identity_new(const struct mu_identity_opts *opts, struct mu_db *db,
                                struct mu_identity **ret, struct mu_err *err);
struct mu_identity *mu_identity_free(struct mu_identity *id);
/* A reload is read first and taken over when all else of it is known to be good. */
struct mu_tenant_tokens {
    struct mu_digest *list; /* sorted; NULL without a tokens file */
    size_t n;
};
/* Reads the tokens file again (nothing without one). Blocking; any thread. Worded errors. */
MU_MUST_USE int mu_identity_read_tokens(const struct mu_identity *id, struct mu_tenant_tokens *ret,
                                        struct mu_err *err);
/* For tokens that are not taken over after all. */
void mu_tenant_tokens_fini(struct mu_tenant_tokens *t);
/* From now on these tokens, which it empties, and this admin key (NULL = none). Any thread. */
void mu_identity_take(struct mu_identity *id, struct mu_tenant_tokens *t, const char *admin_key);
/* A new admin key alone. Any thread. */
void mu_identity_set_admin_key(struct mu_identity *id, const char *admin_key);

/* Any thread. `token` is the trimmed bearer. MU_E_UNAUTHORIZED: unknown or revoked sk_…, or a bare
 * token that is not listed, a session token whose attempt is over; MU_E_LIMIT when too many tenants
 * are in memory. */
MU_MUST_USE int mu_identity_resolve(struct mu_identity *id, mu_bytes token,
                                    struct mu_principal *ret);
/* What a token is without being it: kept to look at it again later. */
struct mu_credential {
    struct mu_digest digest;
    int kind; /* own */
};
struct mu_credential mu_credential_of(mu_bytes token);
/* The same as mu_identity_resolve() of its token. */
MU_MUST_USE int mu_identity_resolve_credential(struct mu_identity *id,
                                               const struct mu_credential *credential,
                                               struct mu_principal *ret);
/* Takes one request from the tenant's budget. 0, or MU_E_LIMIT with the wait in *ret_retry_ms. Any
 * thread. Admin is free. */
MU_MUST_USE int mu_identity_charge(struct mu_identity *id, const struct mu_principal *p,
                                   int64_t *ret_retry_ms);
/* The tenant entry of an org (start-up recovery, schedules); max_tenants does not apply. NULL when
 * out of memory. Any thread. */
struct mu_tenant *mu_identity_tenant(struct mu_identity *id, mu_bytes org_id);

/* Whether the org is the admin key's own (discovered providers serve only it). Any thread. */
bool mu_identity_is_admin_org(struct mu_identity *id, mu_bytes org_id);

/* --- session tokens (OZ_RUN_TOKEN): "rt_" and 64 hex, good for one attempt --- */
/* Makes one. Only its hash is kept anywhere. */
void mu_run_token_new(const struct mu_env *env, char dst[MU_RUN_TOKEN_LEN + 1],
                      struct mu_digest_hex *ret_hash);
/* From now on mu_identity_resolve() knows it (principal.run, .run_epoch). -ENOMEM. Any thread. */
MU_MUST_USE int mu_identity_run_token_add(struct mu_identity *id, const char *hash,
                                          const struct mu_id *session, const char *org_id,
                                          int64_t epoch);
void mu_identity_run_token_remove(struct mu_identity *id, const char *hash);

/* --- passes: enrolment tokens ("en_" and 64 hex) and workers' own credentials ("wk_"). Memory
 * knows whose they are, the database whether one may still be used. --- */
enum {
    MU_PASS_ENROLMENT = 3, /* credentials.kind */
    MU_PASS_WORKER = 4,
    MU_PASS_LEN = 3 + 64,
    MU_PASS_TOMBSTONE_MS =
        86400000, /* a removed worker's credential is known as that for so long */
};
struct mu_pass {
    int kind;
    struct mu_id id, subject;    /* subject: of a worker's */
    char org_id[MU_ORG_LEN + 1]; /* "" = shared workers */
    char token[MU_PASS_LEN + 1];
    char hash[65];
    int64_t expires_ms; /* 0 = never */
};
/* Draws a token; only its hash is kept anywhere. Its place in memory is taken so that nothing can
 * fail after the commit: mu_identity_pass_settle() must follow. -ENOMEM; MU_E_LIMIT (100,000).
 * Any thread, like the next two. */
MU_MUST_USE int mu_identity_pass_new(struct mu_identity *id, struct mu_pass *p);
/* Its row is committed, or will not be. A worker's replaces those that the worker had. */
void mu_identity_pass_settle(struct mu_identity *id, const struct mu_pass *p, bool stored);
/* An enrolment token that is used up; a worker that was removed. */
void mu_identity_enrolment_used(struct mu_identity *id, const struct mu_id *enrolment);
void mu_identity_worker_removed(struct mu_identity *id, const struct mu_id *worker);
/* Inside a unit. `name` is for people; uses: of an enrolment. A worker's revokes those before. */
MU_MUST_USE int mu_pass_store(struct mu_tx *tx, const struct mu_pass *p, mu_bytes name,
                              int64_t uses, int64_t now_ms);
/* One use of an enrolment token. MU_E_UNAUTHORIZED: it has none left, was revoked or is expired. */
MU_MUST_USE int mu_enrolment_take(struct mu_tx *tx, const struct mu_id *enrolment, int64_t now_ms,
                                  int64_t *ret_left);
MU_MUST_USE int mu_worker_passes_revoke(struct mu_tx *tx, const struct mu_id *worker,
                                        int64_t now_ms);

/* An enrolment token for workers of org_id (empty: shared ones). The caller fills unit.loop, what
 * is marked in, done, ctx. */
struct mu_enrolment_op {
    struct mu_unit unit;
    struct mu_identity *identity;
    mu_bytes name;       /* in */
    int64_t uses;        /* in */
    struct mu_pass pass; /* in: org_id, expires_ms; out: id, token */
    int64_t now_ms;
    void (*done)(struct mu_enrolment_op *op, int result);
    void *ctx;
};
MU_MUST_USE int mu_enrolment_create(struct mu_identity *id, struct mu_enrolment_op *op);

/* What is known of one, but for its text. */
enum { MU_ENROLMENTS_SHOWN = 1000 };
struct mu_enrolment {
    struct mu_id id;
    mu_bytes name, org_id /* empty: shared */, prefix;
    int64_t created_ms, expires_ms, revoked_ms, last_used_ms, uses_left;
};
/* Those of an org ("*": of all, and the shared ones), newest first; `over`: also those that nobody
 * can use any more. Reader thread; an array in the arena. */
MU_MUST_USE int mu_enrolment_list(struct mu_db *db, struct mu_arena *arena, mu_bytes org_id,
                                  bool over, int64_t now_ms, struct mu_enrolment **ret,
                                  size_t *ret_n);
/* From its commit on nobody enrols with it. The caller fills unit.loop, id, org_id ("*" as above;
 * lives until done()), done, ctx. MU_E_NOT_FOUND, or a writer code. */
struct mu_enrolment_revoke {
    struct mu_unit unit;
    struct mu_identity *identity;
    struct mu_id id;
    mu_bytes org_id;
    int64_t now_ms;
    void (*done)(struct mu_enrolment_revoke *op, int result);
    void *ctx;
};
MU_MUST_USE int mu_enrolment_revoke(struct mu_identity *id, struct mu_enrolment_revoke *op);

/* --- tickets: one use within MU_TICKET_MS stands for a credential where no header can be sent ---
 */
enum {
    MU_TICKET_LEN = 4 + 64,
    MU_TICKET_MS = 60000,
    MU_TICKETS_MAX = 10000,
    MU_TICKETS_EACH = 100
};
#define MU_TICKET_PREFIX "wst_"
/* Any thread. MU_E_LIMIT: too many of this credential, or of all, were not used yet; -ENOMEM. */
MU_MUST_USE int mu_ticket_make(struct mu_identity *id, const struct mu_credential *of,
                               char dst[MU_TICKET_LEN + 1]);
/* Any thread. MU_E_UNAUTHORIZED: unknown, used or too old. It is used up, whatever its credential
 * is worth by now. */
MU_MUST_USE int mu_ticket_take(struct mu_identity *id, mu_bytes ticket, struct mu_credential *ret);

/* --- logins: what a browser has instead of a credential ("ms_" and 64 hex, only in a cookie). One
 * is good for as long as the credential that was used to sign in, and acts as that one does now.
 * ---
 */
enum {
    MU_LOGIN_LEN = 3 + 64,
    MU_LOGIN_AGENT_MAX = 200, /* bytes of a user agent that are kept */
    MU_LOGINS_EACH = 20,      /* of one credential; one more ends the oldest */
    MU_LOGINS_MAX = 10000     /* one more ends the one that was not used for longest */
};
#define MU_LOGIN_PREFIX "ms_"
#define MU_LOGIN_MS     INT64_C(2592000000) /* 30 days after its last use, to a day */
/* The caller fills unit.loop, done, ctx, and for mu_login_create() of, agent (both live until
 * done(), any bytes) and, when the browser had a login before, `replaces` (a token, or empty). */
struct mu_login_op {
    struct mu_unit unit;
    struct mu_identity *identity;
    struct mu_credential of;
    mu_bytes agent, replaces;
    struct mu_id id;              /* create: out; end: in */
    struct mu_principal who;      /* create: out */
    char token[MU_LOGIN_LEN + 1]; /* create: out; the only time that it is seen */
    int64_t now_ms, expires_ms;   /* create: out */
    char hash[65];
    struct mu_id gone[3]; /* what makes room */
    size_t n_gone;
    void (*done)(struct mu_login_op *op, int result);
    void *ctx;
};
/* 0, or a code with which done() is not called: MU_E_UNAUTHORIZED (the credential is not good, or
 * not one that signs in: a login, a worker's, a session's), what mu_identity_resolve() says,
 * -ENOMEM, the writer's. Any thread, like the others. */
MU_MUST_USE int mu_login_create(struct mu_identity *id, struct mu_login_op *op);
/* Ends the login `id` of the credential `of`. MU_E_NOT_FOUND without done(): there is none. From
 * done() on nobody acts by it. */
MU_MUST_USE int mu_login_end(struct mu_identity *id, struct mu_login_op *op);

struct mu_login {
    struct mu_id id;
    struct mu_credential of;
    int64_t created_ms, used_ms, expires_ms;
    char agent[MU_LOGIN_AGENT_MAX + 1]; /* UTF-8 */
};
/* MU_E_NOT_FOUND: the credential is no login, or it is over. */
MU_MUST_USE int mu_login_get(struct mu_identity *id, const struct mu_credential *login,
                             struct mu_login *ret);
/* The live logins of a credential (of a login: of what it stands for), newest first; how many. */
size_t mu_login_list(struct mu_identity *id, const struct mu_credential *of,
                     struct mu_login dst[MU_LOGINS_EACH]);

/* --- one-time codes: the first look at the web app without typing a key --- */
enum { MU_LOGIN_CODE_LEN = 3 + 32, MU_LOGIN_CODE_MS = 900000, MU_LOGIN_CODES_MAX = 100 };
#define MU_LOGIN_CODE_PREFIX "lk_"
/* Makes one that signs the administrator in, once. MU_E_LIMIT: too many wait; MU_E_FORBIDDEN: there
 * is no admin key; -ENOMEM. Any thread, like the next. */
MU_MUST_USE int mu_login_code_make(struct mu_identity *id, char dst[MU_LOGIN_CODE_LEN + 1]);
/* MU_E_UNAUTHORIZED: unknown, used, or too old. It is used up, whatever its credential is worth by
 * now. */
MU_MUST_USE int mu_login_code_take(struct mu_identity *id, mu_bytes code,
                                   struct mu_credential *ret);

/* What people call the caller: the name of the key, "Administrator", "Tenant 1a2b3c4d". Cut to fit.
 */
void mu_identity_name(struct mu_identity *id, const struct mu_principal *p, char *dst, size_t size);

/* 1 to 200 bytes of UTF-8 without control characters. */
bool mu_worker_name_ok(mu_bytes name);

/* --- inside a unit: the orgs row of a caller's first write --- */
MU_MUST_USE int mu_identity_store_org(struct mu_tx *tx, const struct mu_principal *p,
                                      int64_t now_ms);
/* After that unit's commit (its done(), any thread): later units skip the row. */
void mu_identity_org_stored(const struct mu_principal *p);

/* --- issued keys (admin) --- */
struct mu_key {
    struct mu_id id;
    mu_bytes name, org_id, tenant, prefix; /* tenant: the org's name */
    enum mu_role role;
    int64_t created_ms, expires_ms, revoked_ms, last_used_ms;
};
/* Creates a key for the org named `tenant` (made when new). op->token is the only time that the
 * token is seen. `done` runs on unit.loop: result 0, MU_E_EXISTS (a live key of that name), or a
 * writer code. The caller fills unit.loop, name, tenant, role, expires_ms (0 = never), done, ctx;
 * names must live until done(). */
struct mu_key_entry;
struct mu_key_op {
    struct mu_unit unit;
    struct mu_identity *identity;
    mu_bytes name, tenant;
    enum mu_role role; /* 0 = operator */
    int64_t expires_ms;
    struct mu_id id;          /* create: out; revoke: in */
    char token[3 + 64 + 1];   /* out: "sk_" + 64 hex */
    char org[MU_ORG_LEN + 1]; /* out */
    struct mu_id new_org;     /* the org's id if it has to be made */
    struct mu_key_entry *entry;
    void (*done)(struct mu_key_op *op, int result);
    void *ctx;
    int64_t now_ms;
    char hash[65];
};
/* 0, or a code with which done() is not called: MU_E_LIMIT (10,000 live keys), -ENOMEM, the
 * writer's. */
MU_MUST_USE int mu_key_create(struct mu_identity *id, struct mu_key_op *op);
/* done() gets MU_E_NOT_FOUND for an unknown or revoked one. Takes effect on all loops before
 * done(). */
MU_MUST_USE int mu_key_revoke(struct mu_identity *id, struct mu_key_op *op);
/* All keys, newest first (at most 1,000), as an array in the arena; reader thread. */
MU_MUST_USE int mu_key_list(struct mu_db *db, struct mu_arena *arena, struct mu_key **ret,
                            size_t *ret_n);

#endif
