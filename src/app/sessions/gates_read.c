/* Lists of gates. What no index answers is tested on the rows, for a bounded time. */
#include <stdio.h>

#include "app/sessions/live_int.h"

enum { PAGE = 200, BUDGET_MS = 50 };

#define COLUMNS                                                                                    \
    "g.id, g.session_id, g.org_id, g.turn_id, g.request_key, g.description, g.context, "           \
    "g.options, "                                                                                  \
    "g.answer, g.reason, g.resolved_by, g.epoch, g.created_ms, g.expires_ms, g.resolved_ms, "      \
    "g.delivered_ms, g.kind, g.action, g.risk, g.status, g.scope, g.votes_needed, g.asked_id"
#define LIST(where)                                                                                \
    "SELECT " COLUMNS " FROM gates g WHERE " where " AND g.id < $2 ORDER BY g.id DESC LIMIT $3"

static const struct mu_stmt q_session = {"gates_of_session", "tti", LIST("g.session_id = $1"),
                                         NULL};
static const struct mu_stmt q_one = {
    "gate_of_session", "tti",
    "SELECT " COLUMNS " FROM gates g WHERE g.session_id = $1 AND g.id = $2 LIMIT $3", NULL};
static const struct mu_stmt q_untaken = {
    "gates_untaken", "tti", LIST("g.session_id = $1 AND g.status <> 0 AND g.delivered_ms IS NULL"),
    NULL};
static const struct mu_stmt q_org = {"gates_of_org", "tti", LIST("g.org_id = $1"), NULL};
static const struct mu_stmt q_inbox = {"gates_inbox", "tti", LIST("g.org_id = $1 AND g.status = 0"),
                                       NULL};
static const struct mu_stmt q_all = {"gates_all", "tti", LIST("$1 = ''"), NULL};
static const struct mu_stmt q_all_open = {"gates_all_open", "tti", LIST("$1 = '' AND g.status = 0"),
                                          NULL};
static const struct mu_stmt q_org_of = {"gates_session", "t",
                                        "SELECT org_id FROM sessions WHERE id = $1", NULL};
static const struct mu_stmt q_open = {"gates_open", "ti",
                                      "SELECT " COLUMNS
                                      " FROM gates g WHERE g.status = 0 AND g.id > $1 ORDER BY "
                                      "g.id LIMIT $2",
                                      NULL};
static const struct mu_stmt q_undelivered = {
    "gates_undelivered", "tti",
    "SELECT " COLUMNS
    " FROM gates g WHERE g.status <> 0 AND g.delivered_ms IS NULL AND (g.session_id, g.id) > ($1, "
    "$2) ORDER BY g.session_id, g.id LIMIT $3",
    NULL};

static struct mu_gate_row gate_of(struct mu_row *r)
{
    struct mu_gate_row g = {.id = mu_row_bytes(r, 0)};
    mu_bytes *const texts[] = {&g.session_id,  &g.org_id,     &g.turn_id, &g.request_key,
                               &g.description, &g.context,    &g.options, &g.answer,
                               &g.reason,      &g.resolved_by};
    int64_t *const times[] = {&g.epoch, &g.created_ms, &g.expires_ms, &g.resolved_ms,
                              &g.delivered_ms};
    int *const numbers[] = {&g.kind, &g.action, &g.risk, &g.status, &g.scope, &g.votes_needed};
    int col = 1;
    for (size_t i = 0; i < MU_ARRAY_LEN(texts); i++) {
        *texts[i] = mu_row_bytes(r, col++);
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(times); i++) {
        *times[i] = mu_row_i64(r, col++);
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(numbers); i++) {
        *numbers[i] = (int)mu_row_i64(r, col++);
    }
    g.asked_id = mu_row_bytes(r, col);
    return g;
}

/* --- lists --- */

struct listing {
    struct mu_gate_list *op;
    char last[MU_ID_LEN + 1]; /* where the next page begins … */
    char seen[MU_ID_LEN + 1]; /* … and how far was looked */
    unsigned rows;
    bool full;
};

static int take_org(void *arg, struct mu_row *row)
{
    struct mu_gate_list *op = arg;
    return op->admin || mu_bytes_eq(mu_row_bytes(row, 0), op->org_id) ? 0 : MU_E_NOT_FOUND;
}

static bool matches(const struct mu_gate_list *op, const struct mu_gate_row *g)
{
    return (op->status < 0 || op->status == g->status) && (!op->untaken || op->epoch == g->epoch) &&
           (!op->action || op->action == g->action) && (!op->risk || op->risk == g->risk);
}

static int take_gate(void *arg, struct mu_row *row)
{
    struct listing *l = arg;
    struct mu_gate_list *op = l->op;
    struct mu_gate_row g = gate_of(row);
    l->rows++;
    snprintf(l->seen, sizeof l->seen, "%.*s", MU_ARGS(g.id));
    if (op->more) { /* the page is full, and there is another */
        return 0;
    }
    bool hit = matches(op, &g);
    if (hit && l->full) {
        op->more = true;
        return 0;
    }
    if (hit) {
        int r = op->each(op->arg, &g);
        if (r < 0) {
            return r;
        }
        op->count++;
        l->full = r > 0 || op->count == op->limit;
    }
    if (!l->full || hit) {
        memcpy(l->last, l->seen, sizeof l->last);
    }
    return 0;
}

static const struct mu_stmt *choose(const struct mu_gate_list *op, mu_bytes *ret_key)
{
    if (op->session.text[0]) {
        *ret_key = mu_id_bytes(&op->session);
        return op->gate.text[0] ? &q_one : op->untaken ? &q_untaken : &q_session;
    }
    bool all = op->admin && !op->org_id.ptr;
    *ret_key = all ? MU_B("") : op->org_id;
    if (op->status == MU_GATE_PENDING) {
        return all ? &q_all_open : &q_inbox;
    }
    return all ? &q_all : &q_org;
}

static int run_list(struct mu_read *read, struct mu_db *db)
{
    struct mu_gate_list *op = MU_CONTAINER(read, struct mu_gate_list, read);
    const struct mu_env *env = op->sessions->opts.env;
    int64_t until = mu_env_mono_ms(env) + BUDGET_MS;
    struct listing l = {.op = op};
    mu_bytes key;
    const struct mu_stmt *stmt = choose(op, &key);
    op->count = 0;
    op->more = false;
    op->next[0] = 0;
    if (op->session.text[0]) {
        int r = MU_DB_RUN(db, &q_org_of, take_org, op, MU_VT(key));
        if (r <= 0) {
            return r < 0 ? r : MU_E_NOT_FOUND;
        }
    }
    char before[MU_ID_LEN + 1];
    mu_bytes first = op->gate.text[0] ? mu_id_bytes(&op->gate) : op->before;
    snprintf(before, sizeof before, "%.*s", MU_ARGS(first.ptr ? first : MU_B("~")));
    for (;;) {
        l.rows = 0;
        int r = MU_DB_RUN(db, stmt, take_gate, &l, MU_VT(key), MU_VT(mu_str(before)), MU_VI(PAGE));
        if (r < 0) {
            return r;
        }
        bool late = mu_env_mono_ms(env) > until;
        if (op->more || l.rows < PAGE || late) {
            op->more = op->more || (late && l.rows == PAGE);
            break;
        }
        memcpy(before, l.seen, sizeof before);
    }
    if (op->more) {
        memcpy(op->next, l.last, sizeof op->next);
    }
    return 0;
}

static void list_done(struct mu_read *read, int result)
{
    struct mu_gate_list *op = MU_CONTAINER(read, struct mu_gate_list, read);
    op->done(op, result);
}

int mu_gate_list(struct mu_sessions *s, struct mu_gate_list *op)
{
    bool whose = op->admin || op->org_id.ptr;
    if (!whose || op->limit == 0 || op->limit > MU_GATE_PAGE || op->before.len > MU_ID_LEN) {
        return MU_E_INVALID;
    }
    op->sessions = s;
    op->read.run = run_list;
    op->read.done = list_done;
    return mu_readers_submit(s->opts.readers, &op->read);
}

/* --- one --- */

struct one {
    int (*each)(void *arg, const struct mu_gate_row *row);
    void *arg;
};

static int take_one(void *arg, struct mu_row *row)
{
    const struct one *o = arg;
    struct mu_gate_row g = gate_of(row);
    return o->each(o->arg, &g);
}

int mu_gate_by_id(struct mu_db *db, mu_bytes session, mu_bytes gate,
                  int (*each)(void *arg, const struct mu_gate_row *row), void *arg)
{
    struct one o = {each, arg};
    return MU_DB_RUN(db, &q_one, take_one, &o, MU_VT(session), MU_VT(gate), MU_VI(1));
}

/* --- start-up --- */

struct each {
    int (*each)(void *arg, const struct mu_gate_row *row);
    void *arg;
    char session[MU_ID_LEN + 1], id[MU_ID_LEN + 1];
};

static int take_each(void *arg, struct mu_row *row)
{
    struct each *e = arg;
    struct mu_gate_row g = gate_of(row);
    snprintf(e->session, sizeof e->session, "%.*s", MU_ARGS(g.session_id));
    snprintf(e->id, sizeof e->id, "%.*s", MU_ARGS(g.id));
    return e->each(e->arg, &g);
}

int mu_gates_each_open(struct mu_db *db, int (*each)(void *arg, const struct mu_gate_row *row),
                       void *arg)
{
    for (int undelivered = 0; undelivered < 2; undelivered++) {
        struct each e = {each, arg, "", ""};
        int r = PAGE;
        while (r == PAGE) {
            char session[MU_ID_LEN + 1], id[MU_ID_LEN + 1];
            memcpy(session, e.session, sizeof session);
            memcpy(id, e.id, sizeof id);
            r = undelivered ? MU_DB_RUN(db, &q_undelivered, take_each, &e, MU_VT(mu_str(session)),
                                        MU_VT(mu_str(id)), MU_VI(PAGE))
                            : MU_DB_RUN(db, &q_open, take_each, &e, MU_VT(mu_str(id)), MU_VI(PAGE));
        }
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

const struct mu_planned mu_gates_read_planned[] = {
    {&q_session, "gates_session"},
    {&q_untaken, "gates_undelivered"},
    {&q_org, "gates_org"},
    {&q_inbox, "gates_inbox"},
    {&q_all, ""},
    {&q_all_open, "gates_open"},
    {&q_open, "gates_open"},
    {&q_one, ""},
    {&q_undelivered, "gates_undelivered"},
    {NULL, NULL},
};
