/* The rows of workers. What they hold matters to people and to the next start, not to any decision:
 * they are written a few at a time, when the fleet has a moment. */
#include <errno.h>
#include <stdio.h>

#include "app/fleet/fleet_int.h"

enum { ROWS = 64, WRITE_MS = 500, ARENA = 4 << 20, CAPS_MAX = 48 << 10 };

static const struct mu_stmt q_put = {
    "worker_put", "titiitttiiii",
    "INSERT INTO workers (id, kind, hostname, conn, capacity, instance, caps, version, conflicts, "
    "seen_ms, created_ms, server_slot) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) "
    "ON CONFLICT (hostname) WHERE removed_ms IS NULL AND org_id IS NULL DO UPDATE SET kind = "
    "excluded.kind, conn = excluded.conn, capacity = excluded.capacity, instance = "
    "excluded.instance, caps = excluded.caps, version = excluded.version, conflicts = "
    "excluded.conflicts, seen_ms = excluded.seen_ms, server_slot = excluded.server_slot",
    NULL};
static const struct mu_stmt q_load = {
    "workers_load", "t",
    "SELECT id, kind, hostname, capacity, conflicts, seen_ms, created_ms, instance, version, caps, "
    "org_id, meta, drain_ms, drain_until_ms, drained_ms "
    "FROM workers WHERE removed_ms IS NULL AND id > $1 ORDER BY id LIMIT 1000",
    NULL};
/* One that belongs to an org was made when it enrolled. */
static const struct mu_stmt q_update = {
    "worker_update", "tiiitttiii",
    "UPDATE workers SET kind = $2, conn = $3, capacity = $4, instance = $5, caps = $6, version = "
    "$7, "
    "conflicts = $8, seen_ms = $9, server_slot = $10 WHERE id = $1 AND removed_ms IS NULL",
    NULL};
static const struct mu_stmt q_seed = {
    "worker_seed", "tti",
    "INSERT INTO workers (id, kind, hostname, capacity, seen_ms, created_ms) VALUES ($1, 0, $2, 0, "
    "$3, $3) ON CONFLICT DO NOTHING",
    NULL};
static const struct mu_stmt q_gone = {
    "workers_gone", "i",
    "SELECT hostname, instance, removed_ms FROM workers WHERE removed_ms > $1 AND org_id IS NULL "
    "ORDER BY removed_ms DESC LIMIT 64",
    NULL};

struct store_row {
    struct mu_id uid;
    mu_bytes name, instance, caps, version;
    int64_t kind, conn, capacity, conflicts, seen_ms, created_ms;
    bool owned;
};

struct mu_store {
    struct mu_fleet *f;
    struct mu_unit unit;
    struct mu_arena arena;
    struct store_row rows[ROWS];
    size_t n;
    bool busy;
    int64_t next_ms;
};

int mu_fleet_store_new(struct mu_fleet *f)
{
    struct mu_store *s = mu_calloc(1, sizeof *s);
    if (!s) {
        return -ENOMEM;
    }
    s->f = f;
    mu_arena_init(&s->arena, ARENA);
    f->store = s;
    return 0;
}

void mu_fleet_store_free(struct mu_fleet *f)
{
    if (f->store) {
        mu_arena_fini(&f->store->arena);
        mu_free(f->store);
        f->store = NULL;
    }
}

static int run_put(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_store *s = MU_CONTAINER(u, struct mu_store, unit);
    int r = 0;
    for (size_t i = 0; r >= 0 && i < s->n; i++) {
        const struct store_row *w = &s->rows[i];
        if (w->owned) {
            r = MU_TX_SEND(tx, &q_update, -1, MU_VT(mu_id_bytes(&w->uid)), MU_VI(w->kind),
                           MU_VI(w->conn), MU_VI(w->capacity), MU_VT(w->instance), MU_VT(w->caps),
                           MU_VT(w->version), MU_VI(w->conflicts), MU_VI(w->seen_ms), MU_VI(1));
            continue;
        }
        r = MU_TX_SEND(tx, &q_put, -1, MU_VT(mu_id_bytes(&w->uid)), MU_VI(w->kind), MU_VT(w->name),
                       MU_VI(w->conn), MU_VI(w->capacity), MU_VT(w->instance), MU_VT(w->caps),
                       MU_VT(w->version), MU_VI(w->conflicts), MU_VI(w->seen_ms),
                       MU_VI(w->created_ms), MU_VI(1));
    }
    return r < 0 ? r : 0;
}

static void put_done(struct mu_unit *u, int result)
{
    struct mu_store *s = MU_CONTAINER(u, struct mu_store, unit);
    s->busy = false;
    for (size_t i = 0; i < s->n; i++) {
        struct mu_worker *w = mu_map_get(&s->f->workers, s->rows[i].name);
        if (w && result >= 0) {
            w->stored = strcmp(w->uid.text, s->rows[i].uid.text) == 0 || w->stored;
        } else if (w) {
            mu_worker_dirty(w);
        }
    }
    s->n = 0;
    mu_arena_fini(&s->arena);
}

static mu_bytes text_of(struct mu_store *s, const char *text, const char *fallback, size_t max)
{
    mu_bytes t = mu_str(text);
    mu_bytes copy = mu_arena_dup(&s->arena, t.len && t.len <= max ? t : mu_str(fallback));
    return copy.ptr ? copy : MU_B("");
}

void mu_store_tick(struct mu_fleet *f)
{
    struct mu_store *s = f->store;
    int64_t now = mu_loop_now_ms(f->opts.core);
    if (s->busy || mu_list_empty(&f->dirty) || now < s->next_ms || !f->opts.writer) {
        return;
    }
    s->next_ms = now + WRITE_MS;
    while (s->n < ROWS && !mu_list_empty(&f->dirty)) {
        struct mu_worker *w = MU_CONTAINER(mu_list_pop(&f->dirty), struct mu_worker, dirty);
        s->rows[s->n++] = (struct store_row){.uid = w->uid,
                                             .name = text_of(s, w->name, "", 1000),
                                             .instance = text_of(s, w->instance, "", 64),
                                             .caps = text_of(s, w->caps, "{}", CAPS_MAX),
                                             .version = text_of(s, w->version, "", 200),
                                             .owned = w->org_id[0] != 0,
                                             .kind = w->dialect,
                                             .conn = w->conn,
                                             .capacity = w->capacity,
                                             .conflicts = w->conflicts,
                                             .seen_ms = w->seen_ms,
                                             .created_ms = w->created_ms};
        if (s->rows[s->n - 1].name.len == 0) { /* no memory: later */
            s->n--;
            mu_worker_dirty(w);
            break;
        }
    }
    s->unit = (struct mu_unit){.run = run_put, .done = put_done, .loop = f->opts.core};
    s->busy = true;
    if (s->n == 0 || mu_writer_submit(f->opts.writer, &s->unit) < 0) {
        put_done(&s->unit, MU_E_BUSY);
    }
}

struct loading {
    struct mu_fleet *f;
    char last[MU_ID_LEN + 1];
};

static int take_worker(void *arg, struct mu_row *row)
{
    struct loading *l = arg;
    struct mu_worker *w;
    mu_bytes host = mu_row_bytes(row, 2), instance = mu_row_bytes(row, 7);
    mu_bytes org = mu_row_bytes(row, 10), meta = mu_row_bytes(row, 11);
    char key[8 + MU_ID_LEN];
    snprintf(l->last, sizeof l->last, "%.*s", MU_ARGS(mu_row_bytes(row, 0)));
    snprintf(key, sizeof key, "rnr_%s", l->last);
    int r = mu_worker_get(l->f, org.len ? mu_str(key) : host, &w);
    if (r < 0) {
        return r;
    }
    r = mu_id_parse(mu_row_bytes(row, 0), NULL, &w->uid);
    if (org.len) {
        snprintf(w->org_id, sizeof w->org_id, "%.*s", MU_ARGS(org));
        w->host = mu_bytes_dup(host);
        l->f->n_owned++;
        r = w->host ? r : -ENOMEM;
    }
    w->meta = mu_bytes_dup(meta);
    w->drain_ms = mu_row_i64(row, 12);
    w->drain_until_ms = mu_row_i64(row, 13);
    w->drained_ms = mu_row_i64(row, 14);
    int64_t kind = mu_row_i64(row, 1);
    if (kind > MU_DIALECT_UNKNOWN && kind <= MU_DIALECT_NATIVE &&
        l->f->opts.dialect == MU_DIALECT_UNKNOWN) {
        w->dialect = (enum mu_dialect)kind;
    }
    w->capacity = mu_row_i64(row, 3);
    w->conflicts = mu_row_i64(row, 4);
    w->seen_ms = mu_row_i64(row, 5);
    w->created_ms = mu_row_i64(row, 6);
    snprintf(w->instance, sizeof w->instance, "%.*s", MU_ARGS(instance));
    w->version = mu_bytes_dup(mu_row_bytes(row, 8));
    w->caps = mu_bytes_dup(mu_row_bytes(row, 9));
    w->stored = true;
    w->offers = mu_needs_offered(mu_str(w->caps));
    w->online = mu_fleet_now(l->f) - w->seen_ms <= l->f->opts.heartbeat_timeout_ms;
    mu_worker_know(w);
    return r < 0 ? r : w->version && w->caps && w->meta ? 0 : -ENOMEM;
}

static int take_gone(void *arg, struct mu_row *row)
{
    struct mu_fleet *f = arg;
    struct mu_gone *g = &f->gone[f->n_gone++ % MU_ARRAY_LEN(f->gone)];
    snprintf(g->name, sizeof g->name, "%.*s", MU_ARGS(mu_row_bytes(row, 0)));
    snprintf(g->instance, sizeof g->instance, "%.*s", MU_ARGS(mu_row_bytes(row, 1)));
    g->at_ms = mu_row_i64(row, 2);
    return 0;
}

int mu_store_seed(struct mu_tx *tx, const struct mu_id *uid, mu_bytes name, int64_t now_ms)
{
    return MU_TX_SEND(tx, &q_seed, -1, MU_VT(mu_id_bytes(uid)), MU_VT(name), MU_VI(now_ms));
}

int mu_store_load(struct mu_fleet *f, struct mu_db *db)
{
    struct loading l = {.f = f};
    int r = MU_DB_RUN(db, &q_gone, take_gone, f, MU_VI(mu_fleet_now(f) - MU_PASS_TOMBSTONE_MS));
    while (r >= 0) {
        char after[sizeof l.last];
        memcpy(after, l.last, sizeof after);
        r = MU_DB_RUN(db, &q_load, take_worker, &l, MU_VT(mu_str(after)));
        if (r < 1000) {
            return r < 0 ? r : 0;
        }
    }
    return r;
}
