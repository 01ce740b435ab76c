/* Logins of browsers. Memory holds the live ones by the hash of their token; each stands for the
 * credential that was used to sign in, and is looked at through that one every time. */
#include <errno.h>
#include <stdio.h>

#include "app/identity/identity_int.h"
#include "base/encode.h"

enum { PREFIX_LEN = 3 /* no secret of it is shown */, STORE_EVERY_MS = 3600000, DAY_MS = 86400000 };

static const struct mu_stmt load_logins = {
    "logins_load", "ii",
    "SELECT id, hash, stands_for, stands_kind, user_agent, created_ms, expires_ms, last_used_ms "
    "FROM credentials WHERE kind = $1 AND expires_ms > $2",
    NULL};
static const struct mu_stmt insert_login = {
    "login_insert", "tittttiitit",
    "INSERT INTO credentials (id, kind, hash, prefix, name, org_id, created_ms, expires_ms, "
    "stands_for, stands_kind, user_agent, last_used_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, "
    "$9, $10, $11, $7)",
    NULL};
static const struct mu_stmt delete_login = {
    "login_delete", "ti", "DELETE FROM credentials WHERE id = $1 AND kind = $2", NULL};
static const struct mu_stmt delete_expired = {
    "logins_expired", "i", "DELETE FROM credentials WHERE kind = 5 AND expires_ms <= $1", NULL};
static const struct mu_stmt move_login = {
    "login_move", "tiii",
    "UPDATE credentials SET expires_ms = $3, last_used_ms = $4 WHERE id = $1 AND kind = $2", NULL};

struct login {
    char hash[65]; /* the map's key */
    struct mu_id id;
    struct mu_credential of;
    char agent[MU_LOGIN_AGENT_MAX + 1];
    int64_t created_ms;
    _Atomic int64_t used_ms, expires_ms;
    _Atomic int64_t stored_ms; /* the row says that it was used then */
    bool live;                 /* false: its row is not committed yet */
    atomic_bool over;          /* its row goes, or its credential is good no more */
};

void mu_logins_init(struct mu_identity *id)
{
    pthread_rwlock_init(&id->logins_lock, NULL);
    mu_map_init(&id->logins);
}

void mu_logins_fini(struct mu_identity *id)
{
    size_t at = 0;
    for (struct login *l = mu_map_next(&id->logins, &at); l; l = mu_map_next(&id->logins, &at)) {
        mu_free(l);
    }
    mu_map_fini(&id->logins);
    pthread_rwlock_destroy(&id->logins_lock);
}

/* --- start-up --- */

static int nibble(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_digest(mu_bytes hex, struct mu_digest *ret)
{
    for (size_t i = 0; i < MU_SHA256_LEN && hex.len == 2 * MU_SHA256_LEN; i++) {
        int high = nibble(hex.ptr[2 * i]), low = nibble(hex.ptr[2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        ret->bytes[i] = (unsigned char)(high << 4 | low);
    }
    return hex.len == 2 * MU_SHA256_LEN;
}

static int load_row(void *arg, struct mu_row *row)
{
    struct mu_identity *id = arg;
    struct login *l = mu_calloc(1, sizeof *l);
    if (!l) {
        return -ENOMEM;
    }
    snprintf(l->id.text, sizeof l->id.text, "%.*s", MU_ARGS(mu_row_bytes(row, 0)));
    snprintf(l->hash, sizeof l->hash, "%.*s", MU_ARGS(mu_row_bytes(row, 1)));
    bool good = read_digest(mu_row_bytes(row, 2), &l->of.digest);
    l->of.kind = (int)mu_row_i64(row, 3);
    snprintf(l->agent, sizeof l->agent, "%.*s", MU_ARGS(mu_row_bytes(row, 4)));
    l->created_ms = mu_row_i64(row, 5);
    atomic_init(&l->expires_ms, mu_row_i64(row, 6));
    atomic_init(&l->used_ms, mu_row_i64(row, 7));
    atomic_init(&l->stored_ms, mu_row_i64(row, 7));
    l->live = true;
    int r = good ? mu_map_put(&id->logins, mu_str(l->hash), l) : 0;
    if (r < 0 || !good) {
        mu_free(l);
    }
    return r;
}

int mu_logins_load(struct mu_identity *id, struct mu_db *db)
{
    int n = MU_DB_RUN(db, &load_logins, load_row, id, MU_VI(MU_CRED_LOGIN),
                      MU_VI(mu_env_wall_ms(id->env)));
    return MU_MIN(n, 0);
}

/* --- changes that nobody waits for --- */

struct change {
    struct mu_unit unit;
    struct mu_identity *identity;
    struct mu_id id;
    char hash[65];
    int64_t expires_ms, used_ms; /* 0: it goes */
};

static int change_run(struct mu_unit *u, struct mu_tx *tx)
{
    struct change *c = MU_CONTAINER(u, struct change, unit);
    return c->expires_ms ? MU_TX_SEND(tx, &move_login, -1, MU_VT(mu_id_bytes(&c->id)),
                                      MU_VI(MU_CRED_LOGIN), MU_VI(c->expires_ms), MU_VI(c->used_ms))
                         : MU_TX_SEND(tx, &delete_login, -1, MU_VT(mu_id_bytes(&c->id)),
                                      MU_VI(MU_CRED_LOGIN));
}

static void forget(struct mu_identity *id, const char *hash)
{
    pthread_rwlock_wrlock(&id->logins_lock);
    struct login *l = mu_map_remove(&id->logins, mu_str(hash));
    pthread_rwlock_unlock(&id->logins_lock);
    mu_free(l);
}

static void change_done(struct mu_unit *u, int result)
{
    struct change *c = MU_CONTAINER(u, struct change, unit);
    if (!c->expires_ms && result >= 0) {
        forget(c->identity, c->hash);
    } /* else: a stale hint; one that is over stays so in memory, and is looked at again at start */
    mu_free(c);
}

static void submit_change(struct mu_identity *id, const struct login *l, bool ends)
{
    struct change *c = mu_calloc(1, sizeof *c);
    if (!c) {
        return;
    }
    c->unit.run = change_run;
    c->unit.done = change_done;
    c->unit.loop = id->core;
    c->identity = id;
    c->id = l->id;
    memcpy(c->hash, l->hash, sizeof c->hash);
    c->expires_ms = ends ? 0 : atomic_load(&l->expires_ms);
    c->used_ms = atomic_load(&l->used_ms);
    if (mu_writer_submit(id->writer, &c->unit) < 0) {
        mu_free(c);
    }
}

/* --- who is it --- */

static bool good(const struct login *l, int64_t now_ms)
{
    return l->live && !atomic_load_explicit(&l->over, memory_order_relaxed) &&
           atomic_load_explicit(&l->expires_ms, memory_order_relaxed) > now_ms;
}

/* The lock is held for reading. */
static void used(struct mu_identity *id, struct login *l, int64_t now_ms)
{
    int64_t stored = atomic_load(&l->stored_ms), expires = atomic_load(&l->expires_ms);
    atomic_store_explicit(&l->used_ms, now_ms, memory_order_relaxed);
    if ((now_ms >= stored && now_ms - stored < STORE_EVERY_MS) ||
        !atomic_compare_exchange_strong(&l->stored_ms, &stored, now_ms)) {
        return;
    }
    if (now_ms + MU_LOGIN_MS - expires >= DAY_MS) {
        atomic_store(&l->expires_ms, now_ms + MU_LOGIN_MS);
    }
    submit_change(id, l, false);
}

/* Its credential is good no more, and would not be if it came back: somebody ended it. */
static void end_login(struct mu_identity *id, const char *hash)
{
    pthread_rwlock_rdlock(&id->logins_lock);
    struct login *l = mu_map_get(&id->logins, mu_str(hash));
    if (l && !atomic_exchange(&l->over, true)) {
        submit_change(id, l, true);
    }
    pthread_rwlock_unlock(&id->logins_lock);
}

int mu_grant_login(struct mu_identity *id, const struct mu_credential *login,
                   struct mu_principal *ret)
{
    char hash[65];
    struct mu_credential of = {.kind = MU_KIND_LOGIN};
    int64_t now_ms = mu_env_wall_ms(id->env);
    mu_hex(login->digest.bytes, sizeof login->digest.bytes, hash);
    pthread_rwlock_rdlock(&id->logins_lock);
    struct login *l = mu_map_get(&id->logins, mu_str(hash));
    if (l && good(l, now_ms)) {
        of = l->of;
        used(id, l, now_ms);
    }
    pthread_rwlock_unlock(&id->logins_lock);
    if (of.kind == MU_KIND_LOGIN) {
        return MU_E_UNAUTHORIZED;
    }
    int r = mu_identity_resolve_credential(id, &of, ret);
    if (r == 0 && ret->role == 0) {
        r = MU_E_UNAUTHORIZED;
    }
    if (r == MU_E_UNAUTHORIZED) {
        end_login(id, hash);
    }
    return r;
}

/* --- looking --- */

static void show(const struct login *l, struct mu_login *ret)
{
    *ret = (struct mu_login){.id = l->id,
                             .of = l->of,
                             .created_ms = l->created_ms,
                             .used_ms = atomic_load(&l->used_ms),
                             .expires_ms = atomic_load(&l->expires_ms)};
    memcpy(ret->agent, l->agent, sizeof ret->agent);
}

int mu_login_get(struct mu_identity *id, const struct mu_credential *login, struct mu_login *ret)
{
    char hash[65];
    int r = MU_E_NOT_FOUND;
    if (login->kind != MU_KIND_LOGIN) {
        return r;
    }
    mu_hex(login->digest.bytes, sizeof login->digest.bytes, hash);
    pthread_rwlock_rdlock(&id->logins_lock);
    const struct login *l = mu_map_get(&id->logins, mu_str(hash));
    if (l && good(l, mu_env_wall_ms(id->env))) {
        show(l, ret);
        r = 0;
    }
    pthread_rwlock_unlock(&id->logins_lock);
    return r;
}

static bool same_credential(const struct mu_credential *a, const struct mu_credential *b)
{
    return memcmp(&a->digest, &b->digest, sizeof a->digest) == 0;
}

/* Of a login what it stands for. */
static struct mu_credential root_of(struct mu_identity *id, const struct mu_credential *of)
{
    struct mu_login l;
    return mu_login_get(id, of, &l) == 0 ? l.of : *of;
}

size_t mu_login_list(struct mu_identity *id, const struct mu_credential *of,
                     struct mu_login dst[MU_LOGINS_EACH])
{
    struct mu_credential root = root_of(id, of);
    int64_t now_ms = mu_env_wall_ms(id->env);
    size_t at = 0, n = 0;
    pthread_rwlock_rdlock(&id->logins_lock);
    struct login *l;
    while (n < MU_LOGINS_EACH && (l = mu_map_next(&id->logins, &at))) {
        if (!same_credential(&l->of, &root) || !good(l, now_ms)) {
            continue;
        }
        size_t i = n++;
        for (; i > 0 && dst[i - 1].created_ms < l->created_ms; i--) {
            dst[i] = dst[i - 1];
        }
        show(l, &dst[i]);
    }
    pthread_rwlock_unlock(&id->logins_lock);
    return n;
}

/* --- making one --- */

/* Nothing of a header that a terminal, a page or a database would stumble over. */
static void take_agent(mu_bytes text, char dst[MU_LOGIN_AGENT_MAX + 1])
{
    size_t at = 0;
    while (text.len) {
        size_t bad = 1, n = mu_utf8_len(text, &bad);
        bool plain = n > 1 || (n == 1 && (unsigned char)text.ptr[0] >= 0x20 && text.ptr[0] != 0x7f);
        size_t len = plain ? n : 1;
        if (at + len > MU_LOGIN_AGENT_MAX) {
            break;
        }
        memcpy(dst + at, plain ? text.ptr : "?", len);
        at += len;
        text = mu_bytes_from(text, n ? n : bad);
    }
    dst[at] = 0;
}

/* Marks one as going: the unit takes its row, and done() its place. The lock is held for writing.
 */
static void make_go(struct mu_login_op *op, struct login *l)
{
    if (l && op->n_gone < MU_ARRAY_LEN(op->gone) && !atomic_exchange(&l->over, true)) {
        op->gone[op->n_gone++] = l->id;
    }
}

/* Forgets what is over for everybody: its row goes with the next unit, or is skipped at start. */
static void sweep(struct mu_identity *id, int64_t now_ms)
{
    size_t at = 0;
    for (struct login *l = mu_map_next(&id->logins, &at); l; l = mu_map_next(&id->logins, &at)) {
        if (l->live && atomic_load(&l->expires_ms) <= now_ms) {
            (void)mu_map_remove(&id->logins, mu_str(l->hash));
            mu_free(l);
        }
    }
}

/* The lock is held for writing. The administrator's own are not made to go by others'. */
static void make_room(struct mu_identity *id, struct mu_login_op *op)
{
    struct login *oldest = NULL, *idle = NULL, *l;
    size_t at = 0, own = 0, all = 0;
    while ((l = mu_map_next(&id->logins, &at))) {
        if (atomic_load(&l->over)) {
            continue;
        }
        all++;
        if (same_credential(&l->of, &op->of)) {
            own++;
            oldest = l->live && (!oldest || l->created_ms < oldest->created_ms) ? l : oldest;
        }
        if (l->live && (l->of.kind != MU_KIND_ADMIN || op->of.kind == MU_KIND_ADMIN) &&
            (!idle || atomic_load(&l->used_ms) < atomic_load(&idle->used_ms))) {
            idle = l;
        }
    }
    if (own > MU_LOGINS_EACH && oldest) { /* the new one is counted */
        make_go(op, oldest);
        all--;
    }
    if (all > MU_LOGINS_MAX) {
        make_go(op, idle);
    }
}

/* Its place in memory is taken before the commit, so that nothing can fail after it. */
static int reserve(struct mu_identity *id, struct mu_login_op *op)
{
    struct login *l = mu_calloc(1, sizeof *l);
    if (!l) {
        return -ENOMEM;
    }
    memcpy(l->hash, op->hash, sizeof l->hash);
    l->id = op->id;
    l->of = op->of;
    take_agent(op->agent, l->agent);
    l->created_ms = op->now_ms;
    atomic_init(&l->used_ms, op->now_ms);
    atomic_init(&l->stored_ms, op->now_ms);
    atomic_init(&l->expires_ms, op->expires_ms);
    pthread_rwlock_wrlock(&id->logins_lock);
    sweep(id, op->now_ms);
    int r = id->logins.count >= 2 * MU_LOGINS_MAX ? MU_E_BUSY
                                                  : mu_map_put(&id->logins, mu_str(l->hash), l);
    if (r == 0) {
        if (op->replaces.len) {
            struct mu_digest_hex old = mu_sha256_hex(op->replaces);
            make_go(op, mu_map_get(&id->logins, mu_str(old.text)));
        }
        l->live = false;
        make_room(id, op);
    }
    pthread_rwlock_unlock(&id->logins_lock);
    if (r < 0) {
        mu_free(l);
    }
    return r;
}

static struct login *by_id(struct mu_identity *id, const struct mu_id *which)
{
    size_t at = 0;
    for (struct login *l = mu_map_next(&id->logins, &at); l; l = mu_map_next(&id->logins, &at)) {
        if (strcmp(l->id.text, which->text) == 0) {
            return l;
        }
    }
    return NULL;
}

/* Those that made room are gone, or they stay. */
static void settle(struct mu_login_op *op, bool stored)
{
    struct mu_identity *id = op->identity;
    pthread_rwlock_wrlock(&id->logins_lock);
    for (size_t i = 0; i < op->n_gone; i++) {
        struct login *l = by_id(id, &op->gone[i]);
        if (l && stored) {
            (void)mu_map_remove(&id->logins, mu_str(l->hash));
            mu_free(l);
        } else if (l) {
            atomic_store(&l->over, false);
        }
    }
    struct login *own = op->hash[0] ? mu_map_get(&id->logins, mu_str(op->hash)) : NULL;
    if (own && stored) {
        own->live = true;
    } else if (own) {
        (void)mu_map_remove(&id->logins, mu_str(op->hash));
        mu_free(own);
    }
    pthread_rwlock_unlock(&id->logins_lock);
}

static int delete_gone(struct mu_tx *tx, const struct mu_login_op *op)
{
    int r = 0;
    for (size_t i = 0; r >= 0 && i < op->n_gone; i++) {
        r = MU_TX_SEND(tx, &delete_login, -1, MU_VT(mu_id_bytes(&op->gone[i])),
                       MU_VI(MU_CRED_LOGIN));
    }
    return r;
}

static int create_run(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_login_op *op = MU_CONTAINER(u, struct mu_login_op, unit);
    char agent[MU_LOGIN_AGENT_MAX + 1];
    struct mu_digest_hex of;
    mu_hex(op->of.digest.bytes, sizeof op->of.digest.bytes, of.text);
    take_agent(op->agent, agent);
    int r = mu_identity_store_org(tx, &op->who, op->now_ms);
    if (r >= 0) {
        r = delete_gone(tx, op);
    }
    if (r >= 0) {
        r = MU_TX_SEND(tx, &delete_expired, -1, MU_VI(op->now_ms));
    }
    if (r >= 0) {
        r = MU_TX_SEND(tx, &insert_login, 1, MU_VT(mu_id_bytes(&op->id)), MU_VI(MU_CRED_LOGIN),
                       MU_VT(mu_str(op->hash)), MU_VT(mu_bytes_head(mu_str(op->token), PREFIX_LEN)),
                       MU_VT(MU_B("")), MU_VT(mu_str(op->who.org_id)), MU_VI(op->now_ms),
                       MU_VI(op->expires_ms), MU_VT(mu_str(of.text)), MU_VI(op->of.kind),
                       MU_VT(mu_str(agent)));
    }
    return MU_MIN(r, 0);
}

static void create_done(struct mu_unit *u, int result)
{
    struct mu_login_op *op = MU_CONTAINER(u, struct mu_login_op, unit);
    if (result >= 0) {
        mu_identity_org_stored(&op->who);
    } else {
        explicit_bzero(op->token, sizeof op->token);
    }
    settle(op, result >= 0);
    op->done(op, MU_MIN(result, 0));
}

static void draw(struct mu_identity *id, struct mu_login_op *op)
{
    unsigned char raw[32];
    id->env->random(id->env, raw, sizeof raw);
    memcpy(op->token, MU_LOGIN_PREFIX, sizeof MU_LOGIN_PREFIX);
    mu_hex(raw, sizeof raw, op->token + strlen(MU_LOGIN_PREFIX));
    explicit_bzero(raw, sizeof raw);
    struct mu_digest_hex hex = mu_sha256_hex(mu_str(op->token));
    memcpy(op->hash, hex.text, sizeof op->hash);
}

int mu_login_create(struct mu_identity *id, struct mu_login_op *op)
{
    int r = op->of.kind == MU_KIND_LOGIN ? MU_E_UNAUTHORIZED
                                         : mu_identity_resolve_credential(id, &op->of, &op->who);
    if (r == 0 && op->who.role == 0) {
        r = MU_E_UNAUTHORIZED;
    }
    if (r < 0) {
        return r;
    }
    if (op->who.admin) { /* void with the key, also one that would be a tenant's text afterwards */
        op->of.kind = MU_KIND_ADMIN;
    }
    op->identity = id;
    op->now_ms = mu_env_wall_ms(id->env);
    op->expires_ms = op->now_ms + MU_LOGIN_MS;
    op->id = mu_id_new(id->env, NULL);
    op->n_gone = 0;
    draw(id, op);
    r = reserve(id, op);
    if (r == 0) {
        op->unit.run = create_run;
        op->unit.done = create_done;
        r = mu_writer_submit(id->writer, &op->unit);
        if (r < 0) {
            settle(op, false);
        }
    }
    if (r < 0) {
        explicit_bzero(op->token, sizeof op->token);
    }
    return r;
}

/* --- ending one --- */

static int end_run(struct mu_unit *u, struct mu_tx *tx)
{
    return MU_MIN(delete_gone(tx, MU_CONTAINER(u, struct mu_login_op, unit)), 0);
}

static void end_done(struct mu_unit *u, int result)
{
    struct mu_login_op *op = MU_CONTAINER(u, struct mu_login_op, unit);
    settle(op, result >= 0);
    op->done(op, MU_MIN(result, 0));
}

int mu_login_end(struct mu_identity *id, struct mu_login_op *op)
{
    struct mu_credential root = root_of(id, &op->of);
    op->identity = id;
    op->n_gone = 0;
    op->hash[0] = 0;
    pthread_rwlock_wrlock(&id->logins_lock);
    struct login *l = by_id(id, &op->id);
    if (l && l->live && same_credential(&l->of, &root)) {
        make_go(op, l);
    }
    pthread_rwlock_unlock(&id->logins_lock);
    if (op->n_gone == 0) {
        return MU_E_NOT_FOUND;
    }
    op->unit.run = end_run;
    op->unit.done = end_done;
    int r = mu_writer_submit(id->writer, &op->unit);
    if (r < 0) {
        settle(op, false);
    }
    return r;
}
