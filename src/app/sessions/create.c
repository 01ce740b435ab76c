#include <ctype.h>
#include <errno.h>
#include <stdio.h>

#include "app/sessions/sessions_int.h"
#include "app/sessions/statements_int.h"
#include "base/encode.h"

enum {
    PROMPT_HEAD = 4096,
    SEARCH_PROMPT = 1024,
    DUP_WINDOW_MS = 180000,
    IDEM_KEEP_MS = 24 * 3600 * 1000,
    OP_CREATE = 1,     /* of the Oz API; … */
    OP_CREATE_IN = 10, /* … and, with their number, of the other views */
    DATA_MAX = 96,
};

static const struct mu_stmt q_idem = {
    "idem", "titttii",
    "INSERT INTO idempotency_keys (org_id, op, key, body_hash, subject_id, expires_ms) VALUES ($1, "
    "$2, $3, $4, $5, $6) "
    "ON CONFLICT (org_id, op, key) DO UPDATE SET body_hash = excluded.body_hash, subject_id = "
    "excluded.subject_id, "
    "expires_ms = excluded.expires_ms WHERE idempotency_keys.expires_ms <= $7 RETURNING 1",
    NULL};
static const struct mu_stmt q_idem_get = {
    "idem_get", "tit",
    "SELECT i.subject_id, i.body_hash, s.state, s.outcome FROM idempotency_keys i LEFT JOIN "
    "sessions s ON s.id = i.subject_id "
    "WHERE i.org_id = $1 AND i.op = $2 AND i.key = $3",
    NULL};
static const struct mu_stmt q_dup = {"dup", "ttbi",
                                     "SELECT r.id, r.state, r.outcome FROM (SELECT id, state, "
                                     "outcome FROM sessions WHERE org_id = $1 AND view = $4 AND "
                                     "id >= $2 "
                                     "ORDER BY id DESC LIMIT 2000) r JOIN session_specs p ON "
                                     "p.session_id = r.id WHERE p.body_hash = $3 "
                                     "ORDER BY r.id DESC LIMIT 1",
                                     NULL};
static const struct mu_stmt q_create = {
    "create", "tttiiittttttttiitiiiittt",
    "INSERT INTO sessions (id, org_id, creator, view, mode, source, state, route, harness, model, "
    "name, title, skill, "
    "environment_id, conversation_id, schedule_id, queued_ms, deadline_ms, created_ms, updated_ms, "
    "pin_worker_id, needs, limit_ms, parent_id, restore_id, conversation) "
    "VALUES ($1, $2, $3, $19, $20, $4, "
    "$5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $15, $15, $17, $18, $21, $22, $23, "
    "$24)",
    NULL};
/* Two creates at the limit minus one must not both see room. */
static const struct mu_stmt q_org_lock = {"org_lock", "t", "",
                                          "SELECT pg_advisory_xact_lock(hashtextextended($1, 1))"};
#define SLEEPS MU_SQL(MU_ST_WAITING_AWAY) ", " MU_SQL(MU_ST_HIBERNATED) ", " MU_SQL(MU_ST_PARKED)
/* SQLite would go through all that the org ever had. */
#define ORG_LIVE(indexed)                                                                          \
    "SELECT count(*) FROM (SELECT 1 FROM sessions" indexed                                         \
    " WHERE org_id = $1 AND ended_ms IS NULL AND state NOT IN (" SLEEPS                            \
    ") AND view BETWEEN 2 AND 3 LIMIT $2) x"
static const struct mu_stmt q_org_live = {"org_live", "ti",
                                          ORG_LIVE(" INDEXED BY sessions_counted"), ORG_LIVE("")};
static const struct mu_stmt q_spec = {
    "spec", "tbittttt",
    "INSERT INTO session_specs (session_id, body_hash, prompt_bytes, prompt_head, search, spec, "
    "env_snapshot, prompt_rest) "
    "VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    NULL};
static const struct mu_stmt q_file = {
    "file_new", "tttttiti",
    "INSERT INTO files (id, org_id, session_id, kind, name, media_type, bytes, sha256, created_ms) "
    "VALUES ($1, $2, $3, 1, $4, "
    "$5, $6, $7, $8)",
    NULL};
static const struct mu_stmt q_var = {
    "secret_ses", "ttttti",
    "INSERT INTO secrets (id, org_id, scope, scope_id, name, readable, value, updated_ms) VALUES "
    "($1, $2, 3, $3, $4, 0, $5, $6)",
    NULL};
static const struct mu_stmt q_tick_take = {
    "sched_take", "tii",
    "UPDATE schedules SET last_ms = $2, next_ms = $3, last_error = NULL WHERE id = $1 AND enabled "
    "= 1 AND next_ms = $2",
    NULL};
static const struct mu_stmt q_tick = {
    "sched_tick", "tit",
    "INSERT INTO schedule_ticks (schedule_id, tick_ms, session_id, outcome) VALUES ($1, $2, $3, 1)",
    NULL};

struct found {
    char id[MU_ID_LEN + 1], hash[33];
    int state, outcome;
    bool gone; /* the session was deleted; its key still stands for it */
};

static int take_found(void *arg, struct mu_row *row)
{
    struct found *f = arg;
    snprintf(f->id, sizeof f->id, "%.*s", MU_ARGS(mu_row_bytes(row, 0)));
    snprintf(f->hash, sizeof f->hash, "%.*s", MU_ARGS(mu_row_bytes(row, 1)));
    f->gone = mu_row_null(row, 2);
    f->state = (int)mu_row_i64(row, 2);
    f->outcome = (int)mu_row_i64(row, 3);
    return 0;
}

static int take_dup(void *arg, struct mu_row *row)
{
    struct found *f = arg;
    snprintf(f->id, sizeof f->id, "%.*s", MU_ARGS(mu_row_bytes(row, 0)));
    f->state = (int)mu_row_i64(row, 1);
    f->outcome = (int)mu_row_i64(row, 2);
    return 0;
}

/* 1: answered with an existing session; 0: go on. */
static int answer_existing(struct mu_session_create *op, struct mu_tx *tx)
{
    mu_bytes org = mu_str(op->who->org_id);
    struct found f = {.state = 0};
    int kind = op->view == MU_VIEW_OZ ? OP_CREATE : OP_CREATE_IN + op->view;
    if (op->idem_key.ptr) {
        int r = MU_TX_RUN(tx, &q_idem, NULL, NULL, MU_VT(org), MU_VI(kind), MU_VT(op->idem_key),
                          MU_VT(mu_str(op->hash_hex)), MU_VT(mu_id_bytes(&op->id)),
                          MU_VI(op->now_ms + IDEM_KEEP_MS), MU_VI(op->now_ms));
        if (r != 0) {
            return r < 0 ? r : 0;
        }
        r = MU_TX_RUN(tx, &q_idem_get, take_found, &f, MU_VT(org), MU_VI(kind),
                      MU_VT(op->idem_key));
        if (r < 0) {
            return r;
        }
        if (r == 0) {
            return MU_E_INTERNAL;
        }
        if (strcmp(f.hash, op->hash_hex) != 0) {
            return MU_E_MISMATCH;
        }
        if (f.gone) { /* to run it once more is what the key is there to prevent */
            return MU_E_EXISTS;
        }
        op->replayed = true;
    } else if (op->check_dup) {
        struct mu_id from = mu_id_floor(op->now_ms - DUP_WINDOW_MS);
        int r = MU_TX_RUN(tx, &q_dup, take_dup, &f, MU_VT(org), MU_VT(mu_id_bytes(&from)),
                          MU_VB(mu_bytes_of((const char *)op->hash.bytes, 16)), MU_VI(op->view));
        if (r <= 0) {
            return r;
        }
        op->duplicate = true;
    } else {
        return 0;
    }
    memcpy(op->id.text, f.id, sizeof f.id);
    op->state = f.state;
    op->outcome = f.outcome;
    return 1;
}

static int insert_session(struct mu_session_create *op, struct mu_tx *tx)
{
    mu_bytes id = mu_id_bytes(&op->id);
    mu_bytes org = mu_str(op->who->org_id);
    int r = MU_TX_SEND(
        tx, &q_create, 1, MU_VT(id), MU_VT(org), MU_VT(mu_str(op->who->uid)), MU_VI(op->source),
        MU_VI(op->state), MU_VI(op->route), MU_VT(op->harness), MU_VT(op->model), MU_VT(op->name),
        MU_VT(op->title), MU_VT(op->skill), MU_VTOPT(op->environment_id),
        MU_VTOPT(op->conversation_id), MU_VTOPT(op->schedule_id), MU_VI(op->now_ms),
        MU_VI(op->deadline_ms), MU_VTOPT(op->pin_worker_id), MU_VI(op->needs), MU_VI(op->view),
        MU_VI(op->mode), MU_VI(op->limit_ms), MU_VTOPT(op->parent_id), MU_VTOPT(op->restore_id),
        op->fork && op->fork->conversation[0] ? MU_VT(mu_str(op->fork->conversation)) : MU_VNULL);
    if (r < 0) {
        return r;
    }
    r = MU_TX_SEND(tx, &q_spec, 1, MU_VT(id), MU_VB(mu_bytes_of((const char *)op->hash.bytes, 16)),
                   MU_VI((int64_t)op->prompt.len), MU_VT(op->prompt_head), MU_VT(op->search),
                   MU_VT(op->spec), MU_VTOPT(op->env_snapshot),
                   op->prompt_rest.len ? MU_VT(op->prompt_rest) : MU_VNULL);
    for (size_t i = 0; r >= 0 && i < op->n_files; i++) {
        const struct mu_new_file *f = &op->files[i];
        r = MU_TX_SEND(tx, &q_file, 1, MU_VT(mu_id_bytes(&f->id)), MU_VT(org), MU_VT(id),
                       MU_VT(f->name), MU_VT(f->media_type), MU_VI(f->bytes),
                       MU_VT(mu_str(f->sha256.text)), MU_VI(op->now_ms));
    }
    for (size_t i = 0; r >= 0 && i < op->n_vars; i++) {
        const struct mu_sealed_var *v = &op->vars[i];
        r = MU_TX_SEND(tx, &q_var, 1, MU_VT(mu_id_bytes(&v->id)), MU_VT(org), MU_VT(id),
                       MU_VT(v->name), MU_VT(v->value), MU_VI(op->now_ms));
    }
    return r;
}

static int take_tick(struct mu_session_create *op, struct mu_tx *tx)
{
    int r = MU_TX_RUN(tx, &q_tick_take, NULL, NULL, MU_VT(op->tick->schedule_id),
                      MU_VI(op->tick->tick_ms), MU_VIOPT(op->tick->next_ms));
    if (r <= 0) {
        return r < 0 ? r : MU_E_STALE;
    }
    return MU_TX_SEND(tx, &q_tick, 1, MU_VT(op->tick->schedule_id), MU_VI(op->tick->tick_ms),
                      MU_VT(mu_id_bytes(&op->id)));
}

static int lock_org(struct mu_session_create *op, struct mu_tx *tx)
{
    if (op->org_limit <= 0 || mu_db_engine(mu_tx_db(tx)) != MU_DB_PG) {
        return 0; /* SQLite has one writer */
    }
    return MU_TX_RUN(tx, &q_org_lock, NULL, NULL, MU_VT(mu_str(op->who->org_id)));
}

static int check_org_limit(struct mu_session_create *op, struct mu_tx *tx)
{
    int64_t n = 0;
    if (op->org_limit <= 0) {
        return 0;
    }
    int r = MU_TX_RUN(tx, &q_org_live, mu_row_take_i64, &n, MU_VT(mu_str(op->who->org_id)),
                      MU_VI(op->org_limit));
    return r < 0 ? r : n >= op->org_limit ? MU_E_LIMIT : 0;
}

static int create_events(struct mu_session_create *op, struct mu_tx *tx)
{
    bool turn = op->first_turn != NULL;
    struct mu_actor by = mu_actor_of(op->who);
    char data[64];
    int n = snprintf(data, sizeof data, "{\"to\":%d", op->state);
    if (op->mode == MU_MODE_INTERACTIVE) {
        n += snprintf(data + n, sizeof data - (size_t)n, ",\"mode\":%d", op->mode);
    }
    snprintf(data + n, sizeof data - (size_t)n, "}");
    int r = mu_tx_stream_new(tx, mu_id_bytes(&op->id), mu_str(op->who->org_id), turn ? 2 : 1);
    if (r >= 0) {
        r = mu_tx_event(tx, MU_EV_CREATED, op->now_ms, mu_str(by.text), mu_str(data));
    }
    return r < 0 || !turn ? r : mu_turn_first(tx, op);
}

static int run_create(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_session_create *op = MU_CONTAINER(u, struct mu_session_create, unit);
    op->replayed = op->duplicate = false;
    op->id = op->fresh;
    op->state = op->route == MU_ROUTE_PROVIDER ? MU_ST_QUEUED : MU_ST_QUEUED_WORKER;
    op->outcome = MU_OUT_LIVE;
    int r = lock_org(op, tx);
    if (r >= 0) {
        r = mu_identity_store_org(tx, op->who, op->now_ms);
    }
    if (r < 0) {
        return r;
    }
    r = answer_existing(op, tx);
    if (r != 0) {
        return r < 0 ? r : 0;
    }
    if (op->over_limit) {
        return MU_E_LIMIT;
    }
    r = check_org_limit(op, tx);
    if (r >= 0 && op->tick) {
        r = take_tick(op, tx);
    }
    if (r >= 0 && op->fork) {
        r = mu_fork_copy(op, tx);
    }
    if (r >= 0) {
        r = insert_session(op, tx);
    }
    if (r >= 0) {
        r = create_events(op, tx);
    }
    return r < 0 ? r : 0;
}

static void created(struct mu_unit *u, int result)
{
    struct mu_session_create *op = MU_CONTAINER(u, struct mu_session_create, unit);
    if (result < 0 || op->replayed || op->duplicate) {
        atomic_fetch_sub(&op->who->tenant->live, 1);
    } else {
        mu_metric_add(op->sessions->created, 1);
    }
    if (result >= 0) {
        mu_identity_org_stored(op->who);
    }
    mu_buf_fini(&op->search_buf);
    if (op->after_done) {
        op->after_done(op, result);
    }
    op->done(op, result);
}

/* Lower-cased title, the first KiB of the prompt and the skill: what `q` looks through. ASCII case
 * only. */
static int build_search(struct mu_session_create *op)
{
    struct mu_buf *b = &op->search_buf;
    mu_buf_init(b, 4096);
    mu_buf_add(b, op->title);
    mu_buf_add_char(b, '\n');
    mu_buf_add(b, mu_utf8_cut(op->prompt_head, SEARCH_PROMPT));
    mu_buf_add_char(b, '\n');
    mu_buf_add(b, op->skill);
    for (size_t i = 0; i < b->len; i++) {
        b->ptr[i] = (char)tolower((unsigned char)b->ptr[i]);
    }
    op->search = mu_buf_bytes(b);
    return b->failed;
}

int mu_session_create(struct mu_sessions *s, struct mu_session_create *op)
{
    op->sessions = s;
    op->now_ms = mu_sessions_now(s);
    if (op->fresh.text[0] == 0) {
        op->fresh = mu_id_new(s->opts.env, &op->now_ms);
    }
    op->id = op->fresh;
    op->deadline_ms = op->now_ms + (op->queue_ms > 0 ? op->queue_ms : s->opts.pending_max_ms);
    op->view = op->view ? op->view : MU_VIEW_OZ;
    op->mode = op->mode ? op->mode : MU_MODE_TASK;
    int r = mu_turn_first_ready(s, op);
    if (r < 0) {
        return r;
    }
    op->prompt_head = mu_utf8_cut(op->prompt, PROMPT_HEAD);
    op->prompt_rest = mu_bytes_from(op->prompt, op->prompt_head.len);
    op->hash = mu_sha256_two(mu_str(op->who->org_id), op->body);
    mu_hex(op->hash.bytes, 16, op->hash_hex);
    r = build_search(op);
    if (r < 0) {
        mu_buf_fini(&op->search_buf);
        return r;
    }
    for (size_t i = 0; op->fork && i < MU_CHECKPOINT_CHAIN; i++) {
        op->fork->ids[i] = mu_id_new(s->opts.env, NULL);
    }
    op->unit.run = run_create;
    op->unit.done = created;
    op->unit.org_id = mu_str(op->who->org_id);
    op->unit.stream_id = mu_id_bytes(&op->fresh);
    op->unit.alone = op->prompt.len > (256u << 10);
    long live = atomic_fetch_add(&op->who->tenant->live, 1);
    op->over_limit = s->opts.max_queued > 0 && live >= s->opts.max_queued && !op->who->admin;
    if (op->over_limit && !op->idem_key.ptr && !op->check_dup) {
        r = MU_E_LIMIT;
    } else {
        r = mu_writer_submit(s->opts.writer, &op->unit);
    }
    if (r < 0) {
        atomic_fetch_sub(&op->who->tenant->live, 1);
        mu_buf_fini(&op->search_buf);
    }
    return r;
}

const struct mu_planned mu_create_planned[] = {
    {&q_org_live, "sessions_counted"}, {&q_dup, "sessions_org"}, {NULL, NULL}};
