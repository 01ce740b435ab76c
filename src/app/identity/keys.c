/* Issued API keys. Memory holds the live ones by the hash of their token; the database says which
 * those are. */
#include <errno.h>
#include <stdio.h>

#include "app/identity/identity_int.h"
#include "base/encode.h"

enum { USED_EVERY_MS = 60000, LIST_MAX = 1000, PREFIX_LEN = 9 };

static const struct mu_stmt load_keys = {
    "keys_load", "ii",
    "SELECT id, hash, org_id, expires_ms, last_used_ms, role, name FROM credentials"
    " WHERE kind = $1 AND revoked_ms IS NULL AND (expires_ms IS NULL OR expires_ms > $2)",
    NULL};
static const struct mu_stmt list_keys = {
    "keys_list", "ii",
    "SELECT c.id, c.name, c.org_id, o.name, c.prefix, c.created_ms, c.expires_ms, c.revoked_ms,"
    " c.last_used_ms, c.role FROM credentials c LEFT JOIN orgs o ON o.id = c.org_id"
    " WHERE c.kind = $1 ORDER BY c.created_ms DESC, c.id DESC LIMIT $2",
    NULL};
static const struct mu_stmt live_named = {
    "key_live_named", "iti",
    "SELECT 1 FROM credentials WHERE kind = $1 AND name = $2 AND revoked_ms IS NULL"
    " AND (expires_ms IS NULL OR expires_ms > $3) LIMIT 1",
    NULL};
static const struct mu_stmt org_named = {
    "org_named", "it",
    "SELECT id FROM orgs WHERE kind = $1 AND name = $2 ORDER BY created_ms, id LIMIT 1", NULL};
static const struct mu_stmt insert_org = {
    "org_issued", "titi", "INSERT INTO orgs (id, kind, name, created_ms) VALUES ($1, $2, $3, $4)",
    NULL};
static const struct mu_stmt insert_key = {
    "key_insert", "tittttiii",
    "INSERT INTO credentials (id, kind, hash, prefix, name, org_id, created_ms, expires_ms, role)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    NULL};
static const struct mu_stmt revoke_key = {
    "key_revoke", "tii",
    "UPDATE credentials SET revoked_ms = $3 WHERE id = $1 AND kind = $2 AND revoked_ms IS NULL",
    NULL};
static const struct mu_stmt touch_key = {
    "key_touch", "ti", "UPDATE credentials SET last_used_ms = $2 WHERE id = $1", NULL};

static void copy_text(char *dst, size_t size, mu_bytes b)
{
    size_t n = MU_MIN(b.len, size - 1);
    if (n) {
        memcpy(dst, b.ptr, n);
    }
    dst[n] = 0;
}

static struct mu_key_entry *entry_new(mu_bytes name)
{
    struct mu_key_entry *e = mu_calloc(1, sizeof *e + name.len + 1);
    if (e) {
        copy_text(e->name, name.len + 1, name);
    }
    return e;
}

/* --- start-up --- */

static int load_row(void *arg, struct mu_row *row)
{
    struct mu_identity *id = arg;
    struct mu_key_entry *e = entry_new(mu_row_bytes(row, 6));
    if (!e) {
        return -ENOMEM;
    }
    copy_text(e->id.text, sizeof e->id.text, mu_row_bytes(row, 0));
    copy_text(e->hash, sizeof e->hash, mu_row_bytes(row, 1));
    copy_text(e->org_id, sizeof e->org_id, mu_row_bytes(row, 2));
    e->expires_ms = mu_row_i64(row, 3);
    e->role = (enum mu_role)mu_row_i64(row, 5);
    atomic_init(&e->used_ms, mu_row_i64(row, 4));
    e->live = true;
    int r = mu_map_put(&id->keys, mu_str(e->hash), e);
    if (r < 0) {
        mu_free(e);
    }
    return r;
}

int mu_keys_load(struct mu_identity *id, struct mu_db *db)
{
    const struct mu_val args[] = {MU_VI(MU_CRED_KEY), MU_VI(mu_env_wall_ms(id->env))};
    int n = mu_db_run(db, &load_keys, args, MU_ARRAY_LEN(args), load_row, id);
    return MU_MIN(n, 0);
}

/* --- last use --- */

struct touch {
    struct mu_unit unit;
    struct mu_id id;
    int64_t now_ms;
};

static int touch_run(struct mu_unit *u, struct mu_tx *tx)
{
    struct touch *t = MU_CONTAINER(u, struct touch, unit);
    return MU_TX_SEND(tx, &touch_key, -1, MU_VT(mu_id_bytes(&t->id)), MU_VI(t->now_ms));
}

static void touch_done(struct mu_unit *u, int result)
{
    (void)result; /* a lost time of use is only a stale hint */
    mu_free(MU_CONTAINER(u, struct touch, unit));
}

void mu_key_used(struct mu_identity *id, struct mu_key_entry *e, int64_t now_ms)
{
    int64_t before = atomic_load_explicit(&e->used_ms, memory_order_relaxed);
    if (!id->writer || (now_ms >= before && now_ms - before < USED_EVERY_MS) ||
        !atomic_compare_exchange_strong(&e->used_ms, &before, now_ms)) {
        return;
    }
    struct touch *t = mu_calloc(1, sizeof *t);
    if (!t) {
        return;
    }
    t->unit.run = touch_run;
    t->unit.done = touch_done;
    t->unit.loop = id->core;
    t->id = e->id;
    t->now_ms = now_ms;
    if (mu_writer_submit(id->writer, &t->unit) < 0) {
        mu_free(t);
    }
}

/* --- create --- */

static int take_org(void *arg, struct mu_row *row)
{
    copy_text(arg, MU_ORG_LEN + 1, mu_row_bytes(row, 0));
    return 0;
}

static int create_run(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_key_op *op = MU_CONTAINER(u, struct mu_key_op, unit);
    copy_text(op->org, sizeof op->org, mu_id_bytes(&op->new_org));
    int r = MU_TX_RUN(tx, &live_named, NULL, NULL, MU_VI(MU_CRED_KEY), MU_VT(op->name),
                      MU_VI(op->now_ms));
    if (r != 0) {
        return r < 0 ? r : MU_E_EXISTS;
    }
    r = MU_TX_RUN(tx, &org_named, take_org, op->org, MU_VI(MU_ORG_ISSUED), MU_VT(op->tenant));
    if (r == 0) {
        r = MU_TX_SEND(tx, &insert_org, 1, MU_VT(mu_str(op->org)), MU_VI(MU_ORG_ISSUED),
                       MU_VT(op->tenant), MU_VI(op->now_ms));
    }
    if (r < 0) {
        return r;
    }
    r = MU_TX_SEND(tx, &insert_key, 1, MU_VT(mu_id_bytes(&op->id)), MU_VI(MU_CRED_KEY),
                   MU_VT(mu_str(op->hash)), MU_VT(mu_bytes_head(mu_str(op->token), PREFIX_LEN)),
                   MU_VT(op->name), MU_VT(mu_str(op->org)), MU_VI(op->now_ms),
                   MU_VIOPT(op->expires_ms), MU_VI(op->role));
    return MU_MIN(r, 0);
}

static void drop_entry(struct mu_identity *id, struct mu_key_entry *e)
{
    pthread_rwlock_wrlock(&id->lock);
    mu_map_remove(&id->keys, mu_str(e->hash));
    pthread_rwlock_unlock(&id->lock);
    mu_free(e);
}

static void create_done(struct mu_unit *u, int result)
{
    struct mu_key_op *op = MU_CONTAINER(u, struct mu_key_op, unit);
    struct mu_key_entry *e = op->entry;
    op->entry = NULL;
    if (result < 0) {
        drop_entry(op->identity, e);
        explicit_bzero(op->token, sizeof op->token);
    } else {
        pthread_rwlock_wrlock(&op->identity->lock);
        copy_text(e->org_id, sizeof e->org_id, mu_str(op->org));
        e->role = op->role;
        e->live = true;
        pthread_rwlock_unlock(&op->identity->lock);
    }
    op->done(op, MU_MIN(result, 0));
}

static void draw_token(struct mu_identity *id, struct mu_key_op *op)
{
    unsigned char secret[32];
    id->env->random(id->env, secret, sizeof secret);
    memcpy(op->token, "sk_", 3);
    mu_hex(secret, sizeof secret, op->token + 3);
    explicit_bzero(secret, sizeof secret);
    struct mu_digest_hex hex = mu_sha256_hex(mu_str(op->token));
    memcpy(op->hash, hex.text, sizeof op->hash);
}

/* Makes room: an expired key is of no use to anybody. The lock is held for writing. */
static void sweep_expired(struct mu_identity *id, int64_t now_ms)
{
    size_t at = 0;
    for (struct mu_key_entry *e = mu_map_next(&id->keys, &at); e; e = mu_map_next(&id->keys, &at)) {
        if (e->live && e->expires_ms && e->expires_ms <= now_ms) {
            mu_map_remove(&id->keys, mu_str(e->hash));
            mu_free(e);
        }
    }
}

/* The place in the map is taken before the commit, so that nothing can fail after it. */
static int reserve_entry(struct mu_identity *id, struct mu_key_op *op)
{
    struct mu_key_entry *e = entry_new(op->name);
    if (!e) {
        return -ENOMEM;
    }
    memcpy(e->hash, op->hash, sizeof e->hash);
    e->id = op->id;
    e->expires_ms = op->expires_ms;
    pthread_rwlock_wrlock(&id->lock);
    if (id->keys.count >= MU_KEYS_MAX) {
        sweep_expired(id, op->now_ms);
    }
    int r = id->keys.count >= MU_KEYS_MAX ? MU_E_LIMIT : mu_map_put(&id->keys, mu_str(e->hash), e);
    pthread_rwlock_unlock(&id->lock);
    if (r < 0) {
        mu_free(e);
        return r;
    }
    op->entry = e;
    return 0;
}

int mu_key_create(struct mu_identity *id, struct mu_key_op *op)
{
    op->identity = id;
    op->role = op->role ? op->role : MU_ROLE_OPERATOR;
    op->now_ms = mu_env_wall_ms(id->env);
    op->id = mu_id_new(id->env, NULL);
    op->new_org = mu_id_new(id->env, NULL);
    draw_token(id, op);
    int r = reserve_entry(id, op);
    if (r < 0) {
        return r;
    }
    op->unit.run = create_run;
    op->unit.done = create_done;
    r = mu_writer_submit(id->writer, &op->unit);
    if (r < 0) {
        drop_entry(id, op->entry);
        op->entry = NULL;
    }
    return r;
}

/* --- revoke --- */

static int revoke_run(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_key_op *op = MU_CONTAINER(u, struct mu_key_op, unit);
    int r = MU_TX_RUN(tx, &revoke_key, NULL, NULL, MU_VT(mu_id_bytes(&op->id)), MU_VI(MU_CRED_KEY),
                      MU_VI(op->now_ms));
    return r == 0 ? MU_E_NOT_FOUND : MU_MIN(r, 0);
}

static struct mu_key_entry *entry_of(struct mu_identity *id, const struct mu_id *key)
{
    size_t at = 0;
    for (struct mu_key_entry *e = mu_map_next(&id->keys, &at); e; e = mu_map_next(&id->keys, &at)) {
        if (strcmp(e->id.text, key->text) == 0) {
            return e;
        }
    }
    return NULL;
}

static void revoke_done(struct mu_unit *u, int result)
{
    struct mu_key_op *op = MU_CONTAINER(u, struct mu_key_op, unit);
    struct mu_identity *id = op->identity;
    if (result >= 0) {
        pthread_rwlock_wrlock(&id->lock);
        struct mu_key_entry *e = entry_of(id, &op->id);
        if (e && e->live) {
            mu_map_remove(&id->keys, mu_str(e->hash));
            mu_free(e);
        } else if (e) {
            /* created on another loop and not told yet: its done() must not bring it to life */
            e->expires_ms = 1;
        }
        pthread_rwlock_unlock(&id->lock);
    }
    op->done(op, MU_MIN(result, 0));
}

int mu_key_revoke(struct mu_identity *id, struct mu_key_op *op)
{
    op->identity = id;
    op->now_ms = mu_env_wall_ms(id->env);
    op->unit.run = revoke_run;
    op->unit.done = revoke_done;
    return mu_writer_submit(id->writer, &op->unit);
}

/* --- list --- */

struct listing {
    struct mu_arena *arena;
    struct mu_key *keys;
    size_t n;
};

static int list_row(void *arg, struct mu_row *row)
{
    struct listing *l = arg;
    struct mu_key *k = &l->keys[l->n++];
    copy_text(k->id.text, sizeof k->id.text, mu_row_bytes(row, 0));
    k->name = mu_arena_dup(l->arena, mu_row_bytes(row, 1));
    k->org_id = mu_arena_dup(l->arena, mu_row_bytes(row, 2));
    k->tenant = mu_arena_dup(l->arena, mu_row_bytes(row, 3));
    k->prefix = mu_arena_dup(l->arena, mu_row_bytes(row, 4));
    k->created_ms = mu_row_i64(row, 5);
    k->expires_ms = mu_row_i64(row, 6);
    k->revoked_ms = mu_row_i64(row, 7);
    k->last_used_ms = mu_row_i64(row, 8);
    k->role = (enum mu_role)mu_row_i64(row, 9);
    return k->name.ptr && k->org_id.ptr && k->tenant.ptr && k->prefix.ptr ? 0 : -ENOMEM;
}

int mu_key_list(struct mu_db *db, struct mu_arena *arena, struct mu_key **ret, size_t *ret_n)
{
    struct listing l = {.arena = arena};
    const struct mu_val args[] = {MU_VI(MU_CRED_KEY), MU_VI(LIST_MAX)};
    l.keys = mu_arena_calloc(arena, LIST_MAX * sizeof *l.keys);
    if (!l.keys) {
        return -ENOMEM;
    }
    int r = mu_db_run(db, &list_keys, args, MU_ARRAY_LEN(args), list_row, &l);
    if (r < 0) {
        return r;
    }
    *ret = l.keys;
    *ret_n = l.n;
    return 0;
}
