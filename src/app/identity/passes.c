/* Enrolment tokens and the credentials of workers that enrolled: whose they are is known in memory
 * by their hash, every use is decided by the database. */
#include <errno.h>
#include <stdio.h>

#include "app/identity/identity_int.h"
#include "base/encode.h"

enum { PASSES_MAX = 100000, PREFIX_LEN = 9 };

static const struct mu_stmt load_passes = {
    "passes_load", "ii",
    "SELECT id, kind, hash, org_id, subject_id, expires_ms, revoked_ms FROM credentials WHERE kind "
    "IN (3, 4) AND ((revoked_ms IS NULL AND (expires_ms IS NULL OR expires_ms > $1) AND (uses_left "
    "IS NULL OR uses_left > 0)) OR (kind = 4 AND revoked_ms > $2 AND EXISTS (SELECT 1 FROM workers "
    "w WHERE w.id = subject_id AND w.removed_ms IS NOT NULL)))",
    NULL};
static const struct mu_stmt insert_pass = {
    "pass_insert", "tittttiiiit",
    "INSERT INTO credentials (id, kind, hash, prefix, name, org_id, created_ms, expires_ms, role, "
    "uses_left, subject_id) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    NULL};
static const struct mu_stmt take_use = {
    "enrolment_take", "ti",
    "UPDATE credentials SET uses_left = uses_left - 1, last_used_ms = $2 WHERE id = $1 AND kind = "
    "3 "
    "AND uses_left > 0 AND revoked_ms IS NULL AND (expires_ms IS NULL OR expires_ms > $2) "
    "RETURNING uses_left",
    NULL};
static const struct mu_stmt revoke_of = {
    "worker_passes_revoke", "ti",
    "UPDATE credentials SET revoked_ms = $2 WHERE subject_id = $1 AND revoked_ms IS NULL", NULL};

struct pass {
    char hash[65]; /* the map's key */
    int kind;
    struct mu_id id, subject;
    char org_id[MU_ORG_LEN + 1];
    int64_t expires_ms, removed_ms; /* 0 = never, not */
    bool live;                      /* false: its row is not committed yet */
};

static void copy_text(char *dst, size_t size, mu_bytes b)
{
    snprintf(dst, size, "%.*s", MU_ARGS(b));
}

static int load_row(void *arg, struct mu_row *row)
{
    struct mu_identity *id = arg;
    struct pass *p = mu_calloc(1, sizeof *p);
    if (!p) {
        return -ENOMEM;
    }
    copy_text(p->id.text, sizeof p->id.text, mu_row_bytes(row, 0));
    p->kind = (int)mu_row_i64(row, 1);
    copy_text(p->hash, sizeof p->hash, mu_row_bytes(row, 2));
    copy_text(p->org_id, sizeof p->org_id, mu_row_bytes(row, 3));
    copy_text(p->subject.text, sizeof p->subject.text, mu_row_bytes(row, 4));
    p->expires_ms = mu_row_i64(row, 5);
    p->removed_ms = mu_row_i64(row, 6);
    p->live = true;
    int r = mu_map_put(&id->passes, mu_str(p->hash), p);
    if (r < 0) {
        mu_free(p);
    }
    return r;
}

int mu_passes_load(struct mu_identity *id, struct mu_db *db)
{
    int64_t now = mu_env_wall_ms(id->env);
    int n =
        MU_DB_RUN(db, &load_passes, load_row, id, MU_VI(now), MU_VI(now - MU_PASS_TOMBSTONE_MS));
    return MU_MIN(n, 0);
}

int mu_grant_pass(struct mu_identity *id, struct mu_principal *p)
{
    int64_t now = mu_env_wall_ms(id->env);
    int r = MU_E_UNAUTHORIZED;
    pthread_rwlock_rdlock(&id->passes_lock);
    const struct pass *x = mu_map_get(&id->passes, mu_str(p->token_hash));
    if (x && x->live && (!x->expires_ms || x->expires_ms > now) &&
        (!x->removed_ms || now - x->removed_ms < MU_PASS_TOMBSTONE_MS)) {
        p->enrolment = x->kind == MU_PASS_ENROLMENT ? x->id : p->enrolment;
        p->runner = x->kind == MU_PASS_WORKER ? x->subject : p->runner;
        p->removed = x->removed_ms != 0;
        memcpy(p->org_id, x->org_id, sizeof p->org_id);
        r = 0;
    }
    pthread_rwlock_unlock(&id->passes_lock);
    p->token_hash[0] = 0;
    snprintf(p->uid, sizeof p->uid, "worker");
    return r;
}

/* Makes room: what is over is of no use to anybody. The lock is held for writing. */
static void sweep(struct mu_identity *id, int64_t now)
{
    size_t at = 0;
    struct pass *p;
    while ((p = mu_map_next(&id->passes, &at))) {
        if (p->live && ((p->expires_ms && p->expires_ms <= now) ||
                        (p->removed_ms && now - p->removed_ms >= MU_PASS_TOMBSTONE_MS))) {
            mu_map_remove(&id->passes, mu_str(p->hash));
            mu_free(p);
        }
    }
}

int mu_identity_pass_new(struct mu_identity *id, struct mu_pass *p)
{
    unsigned char secret[32];
    struct pass *x = mu_calloc(1, sizeof *x);
    if (!x) {
        return -ENOMEM;
    }
    id->env->random(id->env, secret, sizeof secret);
    memcpy(p->token, p->kind == MU_PASS_ENROLMENT ? "en_" : "wk_", 3);
    mu_hex(secret, sizeof secret, p->token + 3);
    explicit_bzero(secret, sizeof secret);
    struct mu_digest_hex hex = mu_sha256_hex(mu_str(p->token));
    memcpy(p->hash, hex.text, sizeof p->hash);
    p->id = mu_id_new(id->env, NULL);
    memcpy(x->hash, p->hash, sizeof x->hash);
    x->kind = p->kind;
    x->id = p->id;
    x->subject = p->subject;
    memcpy(x->org_id, p->org_id, sizeof x->org_id);
    x->expires_ms = p->expires_ms;
    pthread_rwlock_wrlock(&id->passes_lock);
    if (id->passes.count >= PASSES_MAX) {
        sweep(id, mu_env_wall_ms(id->env));
    }
    int r =
        id->passes.count >= PASSES_MAX ? MU_E_LIMIT : mu_map_put(&id->passes, mu_str(x->hash), x);
    pthread_rwlock_unlock(&id->passes_lock);
    if (r < 0) {
        mu_free(x);
        explicit_bzero(p->token, sizeof p->token);
    }
    return r;
}

/* All of a worker but one. The lock is held for writing. */
static void drop_of(struct mu_identity *id, const struct mu_id *subject, const char *but)
{
    size_t at = 0;
    struct pass *p;
    while ((p = mu_map_next(&id->passes, &at))) {
        if (p->kind == MU_PASS_WORKER && p->live && strcmp(p->subject.text, subject->text) == 0 &&
            strcmp(p->hash, but) != 0) {
            mu_map_remove(&id->passes, mu_str(p->hash));
            mu_free(p);
        }
    }
}

void mu_identity_pass_settle(struct mu_identity *id, const struct mu_pass *p, bool stored)
{
    pthread_rwlock_wrlock(&id->passes_lock);
    struct pass *x = mu_map_get(&id->passes, mu_str(p->hash));
    if (x && !stored) {
        mu_map_remove(&id->passes, mu_str(p->hash));
        mu_free(x);
    } else if (x) {
        x->live = true;
        if (x->kind == MU_PASS_WORKER) {
            drop_of(id, &x->subject, x->hash);
        }
    }
    pthread_rwlock_unlock(&id->passes_lock);
}

void mu_identity_enrolment_used(struct mu_identity *id, const struct mu_id *enrolment)
{
    size_t at = 0;
    struct pass *p;
    pthread_rwlock_wrlock(&id->passes_lock);
    while ((p = mu_map_next(&id->passes, &at))) {
        if (strcmp(p->id.text, enrolment->text) == 0) {
            mu_map_remove(&id->passes, mu_str(p->hash));
            mu_free(p);
            break;
        }
    }
    pthread_rwlock_unlock(&id->passes_lock);
}

void mu_identity_worker_removed(struct mu_identity *id, const struct mu_id *worker)
{
    size_t at = 0;
    struct pass *p;
    int64_t now = mu_env_wall_ms(id->env);
    pthread_rwlock_wrlock(&id->passes_lock);
    while ((p = mu_map_next(&id->passes, &at))) {
        if (p->kind == MU_PASS_WORKER && strcmp(p->subject.text, worker->text) == 0) {
            p->removed_ms = now;
        }
    }
    pthread_rwlock_unlock(&id->passes_lock);
}

/* --- inside a unit --- */

int mu_pass_store(struct mu_tx *tx, const struct mu_pass *p, mu_bytes name, int64_t uses,
                  int64_t now_ms)
{
    bool enrolment = p->kind == MU_PASS_ENROLMENT;
    int r = enrolment ? 0 : mu_worker_passes_revoke(tx, &p->subject, now_ms);
    return r < 0 ? r
                 : MU_TX_SEND(tx, &insert_pass, 1, MU_VT(mu_id_bytes(&p->id)), MU_VI(p->kind),
                              MU_VT(mu_str(p->hash)),
                              MU_VT(mu_bytes_head(mu_str(p->token), PREFIX_LEN)), MU_VT(name),
                              MU_VT(mu_str(p->org_id)), MU_VI(now_ms), MU_VIOPT(p->expires_ms),
                              MU_VI(0), enrolment ? MU_VI(uses) : MU_VNULL,
                              enrolment ? MU_VNULL : MU_VT(mu_id_bytes(&p->subject)));
}

int mu_enrolment_take(struct mu_tx *tx, const struct mu_id *enrolment, int64_t now_ms,
                      int64_t *ret_left)
{
    int r = MU_TX_RUN(tx, &take_use, mu_row_take_i64, ret_left, MU_VT(mu_id_bytes(enrolment)),
                      MU_VI(now_ms));
    return r < 0 ? r : r == 0 ? MU_E_UNAUTHORIZED : 0;
}

int mu_worker_passes_revoke(struct mu_tx *tx, const struct mu_id *worker, int64_t now_ms)
{
    return MU_TX_SEND(tx, &revoke_of, -1, MU_VT(mu_id_bytes(worker)), MU_VI(now_ms));
}

/* --- enrolment tokens --- */

static int create_run(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_enrolment_op *op = MU_CONTAINER(u, struct mu_enrolment_op, unit);
    return MU_MIN(mu_pass_store(tx, &op->pass, op->name, op->uses, op->now_ms), 0);
}

static void create_done(struct mu_unit *u, int result)
{
    struct mu_enrolment_op *op = MU_CONTAINER(u, struct mu_enrolment_op, unit);
    mu_identity_pass_settle(op->identity, &op->pass, result >= 0);
    op->done(op, MU_MIN(result, 0));
}

int mu_enrolment_create(struct mu_identity *id, struct mu_enrolment_op *op)
{
    op->identity = id;
    op->now_ms = mu_env_wall_ms(id->env);
    op->pass.kind = MU_PASS_ENROLMENT;
    int r = mu_identity_pass_new(id, &op->pass);
    if (r < 0) {
        return r;
    }
    op->unit.run = create_run;
    op->unit.done = create_done;
    r = mu_writer_submit(id->writer, &op->unit);
    if (r < 0) {
        mu_identity_pass_settle(id, &op->pass, false);
    }
    return r;
}
