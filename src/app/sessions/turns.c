/* The prompt queue of an interactive session. A turn's place is a number that grows; one that goes
 * first gets a number below all others. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "app/sessions/hibernate_int.h"

static const struct mu_stmt q_new = {
    "turn_new", "ttiiittt",
    "INSERT INTO turns (id, session_id, pos, state, source, user_id, options, created_ms, prompt) "
    "VALUES ($1, $2, $3, 10, $4, $6, $7, $5, $8)",
    NULL};
static const struct mu_stmt q_bounds = {
    "turn_bounds", "t", "SELECT min(pos), max(pos) FROM turns WHERE session_id = $1", NULL};
static const struct mu_stmt q_open = {
    "turns_open", "t",
    "SELECT sum(CASE WHEN state = 10 THEN 1 ELSE 0 END), sum(CASE WHEN state = 10 THEN 0 ELSE 1 "
    "END) FROM turns WHERE session_id = $1 AND ended_ms IS NULL",
    NULL};
static const struct mu_stmt q_text = {
    "turn_text", "ttt",
    "UPDATE turns SET prompt = $3 WHERE id = $1 AND session_id = $2 AND state = 10", NULL};
static const struct mu_stmt q_withdraw = {
    "turn_withdraw", "tti",
    "UPDATE turns SET state = 94, ended_ms = $3 WHERE id = $1 AND session_id = $2 AND state = 10",
    NULL};
static const struct mu_stmt q_exists = {
    "turn_exists", "tt", "SELECT 1 FROM turns WHERE id = $1 AND session_id = $2", NULL};
static const struct mu_stmt q_next = {
    "turn_next", "tii",
    "UPDATE turns SET state = 20, epoch = $2, tries = tries + 1, started_ms = coalesce(started_ms, "
    "$3) WHERE session_id = $1 AND state = 10 AND pos = (SELECT min(pos) FROM turns WHERE "
    "session_id = $1 AND ended_ms IS NULL) RETURNING id, prompt, options, user_id, tries",
    NULL};
static const struct mu_stmt q_sent = {
    "turn_sent", "t",
    "SELECT id, prompt, options, user_id, tries FROM turns WHERE session_id = $1 AND ended_ms IS "
    "NULL AND state = 20",
    NULL};
_Static_assert(MU_TURN_TRIES == 3, "the statement has the number too");
static const struct mu_stmt q_again = {
    "turns_again", "ti",
    "UPDATE turns SET ended_ms = CASE WHEN tries < 3 THEN NULL ELSE CAST($2 AS BIGINT) END, state "
    "= CASE WHEN tries < 3 THEN 10 ELSE 92 END WHERE session_id = $1 AND ended_ms IS NULL AND "
    "state > 10 RETURNING id, state",
    NULL};
static const struct mu_stmt q_cancel = {
    "turns_cancel", "ti",
    "UPDATE turns SET state = 94, ended_ms = $2 WHERE session_id = $1 AND ended_ms IS NULL "
    "RETURNING id, state",
    NULL};
static const struct mu_stmt q_list = {
    "turn_list", "tii",
    "SELECT id, prompt, options, user_id, pos, created_ms, started_ms, ended_ms, state, tries, "
    "source FROM turns WHERE session_id = $1 AND pos >= $2 ORDER BY pos LIMIT $3",
    NULL};
static const struct mu_stmt q_org = {"turn_org", "t", "SELECT org_id FROM sessions WHERE id = $1",
                                     NULL};

static void user_actor(struct mu_actor *ret, bool admin, mu_bytes user)
{
    bool known = user.len > 0;
    snprintf(ret->text, sizeof ret->text, "%s%.*s",
             known   ? "user:"
             : admin ? "admin"
                     : "system",
             known ? (int)MU_MIN(user.len, (size_t)MU_UID_LEN) : 0, known ? user.ptr : "");
}

/* --- a new one --- */

static int turn_event(struct mu_tx *tx, int type, int64_t now_ms, const char *by, const char *fmt,
                      ...) __attribute__((format(printf, 5, 6)));
/* `fmt` makes the object's members; all they hold are numbers and ids. */
static int turn_event(struct mu_tx *tx, int type, int64_t now_ms, const char *by, const char *fmt,
                      ...)
{
    char data[192];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(data, sizeof data, fmt, ap);
    va_end(ap);
    return mu_tx_event(tx, type, now_ms, mu_str(by), mu_str(data));
}

struct pair {
    int64_t a, b;
    bool none;
};

static int take_pair(void *arg, struct mu_row *row)
{
    struct pair *p = arg;
    *p = (struct pair){mu_row_i64(row, 0), mu_row_i64(row, 1), mu_row_null(row, 0)};
    return 0;
}

struct new_turn {
    const struct mu_id *id;
    mu_bytes session, prompt, options, user;
    int64_t pos, ahead, now_ms;
    int source;
};

static int insert_turn(struct mu_tx *tx, const struct new_turn *t, const char *by)
{
    int r = MU_TX_SEND(tx, &q_new, 1, MU_VT(mu_id_bytes(t->id)), MU_VT(t->session), MU_VI(t->pos),
                       MU_VI(t->source), MU_VI(t->now_ms), MU_VTOPT(t->user),
                       MU_VT(t->options.ptr ? t->options : MU_B("{}")), MU_VT(t->prompt));
    return r < 0 ? r
                 : turn_event(tx, MU_EV_TURN_QUEUED, t->now_ms, by,
                              "{\"turn\":\"%s\",\"pos\":%lld,\"ahead\":%lld}", t->id->text,
                              (long long)t->pos, (long long)t->ahead);
}

static int run_add(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_turn_add *op = MU_CONTAINER(u, struct mu_turn_add, unit);
    mu_bytes session = mu_id_bytes(&op->session);
    struct mu_clocks l;
    int r = mu_clocks_of(tx, session, op->admin, op->org_id, &l);
    if (r < 0) {
        return r;
    }
    if (l.mode != MU_MODE_INTERACTIVE || l.state >= MU_ST_STOPPING) {
        return MU_E_CONFLICT;
    }
    struct pair bounds = {0}, open = {0};
    r = MU_TX_RUN(tx, &q_bounds, take_pair, &bounds, MU_VT(session));
    if (r >= 0) {
        r = MU_TX_RUN(tx, &q_open, take_pair, &open, MU_VT(session));
    }
    if (r < 0) {
        return r;
    }
    if (open.a >= MU_TURNS_QUEUED_MAX) {
        return MU_E_LIMIT;
    }
    int64_t next = bounds.none ? 1 : bounds.b + 1, before = bounds.a - 1;
    op->pos = op->first && !bounds.none ? before : next;
    if (op->pos == 0) { /* never one's place */
        op->pos = op->first && !bounds.none ? -1 : 1;
    }
    op->ahead = op->first ? open.b : open.a + open.b;
    struct mu_actor by;
    user_actor(&by, op->admin, op->user);
    if (l.state == MU_ST_HIBERNATED) { /* somebody needs it */
        r = mu_wake(tx, op->sessions, session, &l, op->now_ms, mu_str(by.text));
        if (r < 0) {
            return r;
        }
    }
    r = mu_tx_stream(tx, session, 1);
    const struct new_turn t = {&op->id, session,   op->prompt, op->options, op->user,
                               op->pos, op->ahead, op->now_ms, op->source};
    return r < 0 ? r : insert_turn(tx, &t, by.text);
}

static void add_done(struct mu_unit *u, int result)
{
    struct mu_turn_add *op = MU_CONTAINER(u, struct mu_turn_add, unit);
    op->done(op, result);
}

static int check_prompt(mu_bytes prompt, mu_bytes options)
{
    return prompt.len > MU_TURN_PROMPT_MAX || options.len > MU_FACT_MAX ? MU_E_TOO_LARGE : 0;
}

int mu_turn_add(struct mu_sessions *s, struct mu_turn_add *op)
{
    int r = check_prompt(op->prompt, op->options);
    if (r < 0) {
        return r;
    }
    op->sessions = s;
    op->now_ms = mu_sessions_now(s);
    op->id = mu_id_new(s->opts.env, NULL);
    return mu_session_submit(s, &op->unit, &op->session, run_add, add_done);
}

int mu_turn_first_ready(struct mu_sessions *s, struct mu_session_create *op)
{
    const struct mu_first_turn *t = op->first_turn;
    if (!t) {
        return 0;
    }
    op->turn = mu_id_new(s->opts.env, NULL);
    return op->mode != MU_MODE_INTERACTIVE ? MU_E_INVALID : check_prompt(t->prompt, t->options);
}

int mu_turn_first(struct mu_tx *tx, const struct mu_session_create *op)
{
    const struct mu_first_turn *f = op->first_turn;
    const struct new_turn t = {.id = &op->turn,
                               .session = mu_id_bytes(&op->id),
                               .prompt = f->prompt,
                               .options = f->options,
                               .user = f->user,
                               .pos = 1,
                               .now_ms = op->now_ms,
                               .source = f->source};
    struct mu_actor by = mu_actor_of(op->who);
    return insert_turn(tx, &t, by.text);
}

/* --- another text, withdrawal --- */

static int run_edit(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_turn_edit *op = MU_CONTAINER(u, struct mu_turn_edit, unit);
    mu_bytes session = mu_id_bytes(&op->session), id = mu_id_bytes(&op->turn);
    struct mu_clocks l;
    int r = mu_clocks_of(tx, session, op->admin, op->org_id, &l);
    op->no_session = r == MU_E_NOT_FOUND;
    if (r < 0) {
        return r;
    }
    r = op->prompt.ptr
            ? MU_TX_RUN(tx, &q_text, NULL, NULL, MU_VT(id), MU_VT(session), MU_VT(op->prompt))
            : MU_TX_RUN(tx, &q_withdraw, NULL, NULL, MU_VT(id), MU_VT(session), MU_VI(op->now_ms));
    if (r < 0) {
        return r;
    }
    if (r == 0) {
        r = MU_TX_RUN(tx, &q_exists, NULL, NULL, MU_VT(id), MU_VT(session));
        return r < 0 ? r : r == 0 ? MU_E_NOT_FOUND : MU_E_CONFLICT;
    }
    r = mu_tx_stream(tx, session, 1);
    struct mu_actor by;
    user_actor(&by, op->admin, op->user);
    return r < 0 ? r
                 : turn_event(tx, op->prompt.ptr ? MU_EV_TURN_CHANGED : MU_EV_TURN_ENDED,
                              op->now_ms, by.text, "{\"turn\":\"%s\",\"state\":%d}", op->turn.text,
                              op->prompt.ptr ? MU_TURN_QUEUED : MU_TURN_CANCELLED);
}

static void edit_done(struct mu_unit *u, int result)
{
    struct mu_turn_edit *op = MU_CONTAINER(u, struct mu_turn_edit, unit);
    op->done(op, result);
}

int mu_turn_edit(struct mu_sessions *s, struct mu_turn_edit *op)
{
    int r = check_prompt(op->prompt, MU_B(""));
    if (r < 0) {
        return r;
    }
    op->sessions = s;
    op->now_ms = mu_sessions_now(s);
    return mu_session_submit(s, &op->unit, &op->session, run_edit, edit_done);
}

/* --- to the runner --- */

static int take_next(void *arg, struct mu_row *row)
{
    struct mu_turn_next *op = arg;
    mu_bytes user = mu_row_bytes(row, 3);
    op->prompt = mu_arena_dup(&op->arena, mu_row_bytes(row, 1));
    op->options = mu_arena_dup(&op->arena, mu_row_bytes(row, 2));
    op->user = user.ptr ? mu_arena_dup(&op->arena, user) : MU_B_NONE;
    op->tries = (int)mu_row_i64(row, 4);
    if (!op->prompt.ptr || !op->options.ptr || (user.ptr && !op->user.ptr)) {
        return -ENOMEM;
    }
    return mu_id_parse(mu_row_bytes(row, 0), NULL, &op->id);
}

static int run_next(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_turn_next *op = MU_CONTAINER(u, struct mu_turn_next, unit);
    mu_bytes session = mu_id_bytes(&op->session);
    struct mu_clocks l;
    struct pair open = {0};
    int r = mu_clocks_of(tx, session, true, MU_B_NONE, &l);
    if (r < 0) {
        return r;
    }
    if (l.epoch != op->epoch || l.state >= MU_ST_STOPPING) {
        return MU_E_STALE;
    }
    r = MU_TX_RUN(tx, &q_open, take_pair, &open, MU_VT(session));
    if (r < 0) {
        return r;
    }
    bool takes = mu_clocks_runs(&l) && l.state != MU_ST_PAUSED;
    mu_arena_fini(&op->arena); /* the unit may run again */
    if (open.b && op->again) {
        r = MU_TX_RUN(tx, &q_sent, take_next, op, MU_VT(session));
        return r == 0 ? MU_E_CONFLICT : MU_MIN(r, 0);
    }
    if (open.b || !takes) {
        return MU_E_CONFLICT;
    }
    r = MU_TX_RUN(tx, &q_next, take_next, op, MU_VT(session), MU_VI(op->epoch), MU_VI(op->now_ms));
    if (r <= 0) {
        return r < 0 ? r : MU_E_NOT_FOUND;
    }
    r = mu_tx_stream(tx, session, 1);
    return r < 0 ? r
                 : turn_event(tx, MU_EV_TURN_STARTED, op->now_ms, "system",
                              "{\"turn\":\"%s\",\"tries\":%d}", op->id.text, op->tries);
}

static void next_done(struct mu_unit *u, int result)
{
    struct mu_turn_next *op = MU_CONTAINER(u, struct mu_turn_next, unit);
    if (result == MU_E_STALE) {
        mu_sessions_note_stale(op->sessions, result);
    }
    op->done(op, result);
}

int mu_turn_next(struct mu_sessions *s, struct mu_turn_next *op)
{
    op->sessions = s;
    op->now_ms = mu_sessions_now(s);
    return mu_session_submit(s, &op->unit, &op->session, run_next, next_done);
}

/* --- parts of other units --- */

struct changed {
    struct mu_id ids[MU_TURNS_QUEUED_MAX + 2];
    int states[MU_TURNS_QUEUED_MAX + 2];
    unsigned n;
};

static int take_changed(void *arg, struct mu_row *row)
{
    struct changed *c = arg;
    if (c->n == MU_ARRAY_LEN(c->ids)) {
        return MU_E_CORRUPT; /* more than may wait */
    }
    c->states[c->n] = (int)mu_row_i64(row, 1);
    return mu_id_parse(mu_row_bytes(row, 0), NULL, &c->ids[c->n++]);
}

static int change_all(struct mu_tx *tx, const struct mu_stmt *stmt, mu_bytes session,
                      int64_t now_ms)
{
    struct changed c = {.n = 0};
    int r = MU_TX_RUN(tx, stmt, take_changed, &c, MU_VT(session), MU_VI(now_ms));
    if (r > 0) {
        r = mu_tx_stream(tx, session, c.n);
    }
    for (unsigned i = 0; r >= 0 && i < c.n; i++) {
        r = turn_event(tx, c.states[i] == MU_TURN_QUEUED ? MU_EV_TURN_CHANGED : MU_EV_TURN_ENDED,
                       now_ms, "system", "{\"turn\":\"%s\",\"state\":%d%s}", c.ids[i].text,
                       c.states[i],
                       c.states[i] == MU_TURN_FAILED
                           ? ",\"error\":\"Its runner was lost each time it was worked on\""
                           : "");
    }
    return r < 0 ? r : 0;
}

int mu_turns_put_back(struct mu_tx *tx, mu_bytes session_id, int64_t now_ms)
{
    return change_all(tx, &q_again, session_id, now_ms);
}

int mu_turns_cancel(struct mu_tx *tx, mu_bytes session_id, int64_t now_ms)
{
    return change_all(tx, &q_cancel, session_id, now_ms);
}

/* --- reading --- */

static int take_org(void *arg, struct mu_row *row)
{
    struct mu_turn_list *op = arg;
    return op->admin || mu_bytes_eq(mu_row_bytes(row, 0), op->org_id) ? 0 : MU_E_NOT_FOUND;
}

static int take_row(void *arg, struct mu_row *row)
{
    struct mu_turn_list *op = arg;
    const struct mu_turn_row t = {.id = mu_row_bytes(row, 0),
                                  .prompt = mu_row_bytes(row, 1),
                                  .options = mu_row_bytes(row, 2),
                                  .user = mu_row_bytes(row, 3),
                                  .pos = mu_row_i64(row, 4),
                                  .created_ms = mu_row_i64(row, 5),
                                  .started_ms = mu_row_i64(row, 6),
                                  .ended_ms = mu_row_i64(row, 7),
                                  .state = (int)mu_row_i64(row, 8),
                                  .tries = (int)mu_row_i64(row, 9),
                                  .source = (int)mu_row_i64(row, 10)};
    return op->each(op->arg, &t);
}

static int run_list(struct mu_read *read, struct mu_db *db)
{
    struct mu_turn_list *op = MU_CONTAINER(read, struct mu_turn_list, read);
    mu_bytes session = mu_id_bytes(&op->session);
    int r = MU_DB_RUN(db, &q_org, take_org, op, MU_VT(session));
    if (r <= 0) {
        return r < 0 ? r : MU_E_NOT_FOUND;
    }
    r = MU_DB_RUN(db, &q_list, take_row, op, MU_VT(session),
                  MU_VI(op->from_pos ? op->from_pos : INT64_MIN), MU_VI(MU_TURN_PAGE));
    return r < 0 ? r : 0;
}

static void list_done(struct mu_read *read, int result)
{
    struct mu_turn_list *op = MU_CONTAINER(read, struct mu_turn_list, read);
    op->done(op, result);
}

int mu_turn_list(struct mu_sessions *s, struct mu_turn_list *op)
{
    op->read.run = run_list;
    op->read.done = list_done;
    return mu_readers_submit(s->opts.readers, &op->read);
}

const struct mu_planned mu_turns_planned[] = {
    {&q_open, "turns_open"},   {&q_next, "turns_open"},
    {&q_sent, "turns_open"},   {&q_again, "turns_open"},
    {&q_cancel, "turns_open"}, {&q_list, ""},
    {&q_bounds, ""},           {NULL, NULL},
};
