/* To sleep and awake. */
#include "app/sessions/hibernate.h"

#include <errno.h>
#include <stdio.h>

#include "app/sessions/hibernate_int.h"
#include "base/crypt.h"

static const struct mu_stmt q_sleep = {
    "sleep", "tiiiittii",
    "UPDATE sessions SET state = $4, worker_id = NULL, epoch = epoch + 1, restore_id = $6, "
    "conversation = coalesce($7, conversation), paused_ms = CASE WHEN $4 = 66 THEN NULL ELSE "
    "coalesce(paused_ms, $5) END, wait_ms = CASE WHEN run_deadline_ms IS NULL THEN NULL ELSE "
    "coalesce(wait_ms, $5) END, deadline_ms = $8, updated_ms = $5, rev = rev + 1 WHERE id = $1 AND "
    "epoch = $2 AND state = $3 AND stop_ms IS NULL AND mode = $9",
    NULL};
static const struct mu_stmt q_attempt_over = {
    "sleep_attempt", "tii",
    "UPDATE attempts SET state = 90, outcome = 7, ended_ms = $3, reason = 'hibernated' WHERE "
    "session_id = $1 AND epoch = $2 AND ended_ms IS NULL",
    NULL};
_Static_assert(MU_ATT_PUT_BACK == 7, "the statement has the number too");
/* That it was begun was no try: it did not fail. */
static const struct mu_stmt q_turn_waits = {
    "sleep_turn", "t",
    "UPDATE turns SET state = 10, tries = CASE WHEN tries > 0 THEN tries - 1 ELSE 0 END WHERE "
    "session_id = $1 AND ended_ms IS NULL AND state > 10 RETURNING id",
    NULL};
/* Nobody could be told what was decided: nobody asks for it again. */
static const struct mu_stmt q_gates = {
    "sleep_gates", "t",
    "SELECT id, request_key, epoch FROM gates WHERE session_id = $1 AND status = 0", NULL};
static const struct mu_stmt q_wake = {
    "wake", "tiii",
    "UPDATE sessions SET state = 22, paused_ms = NULL, losses = CASE WHEN state = 76 THEN 0 ELSE "
    "losses END, deadline_ms = $4, updated_ms = $3, rev = rev + 1 WHERE id = $1 AND epoch = $2 AND "
    "state IN (66, 74, 76) AND stop_ms IS NULL",
    NULL};
static const struct mu_stmt q_no_error = {
    "wake_result", "ti",
    "UPDATE session_results SET error_code = NULL, error_message = NULL, updated_ms = $2 WHERE "
    "session_id = $1 AND error_code IS NOT NULL",
    NULL};
static const struct mu_stmt q_park = {
    "park", "tiiiitt",
    "UPDATE sessions SET state = 76, worker_id = NULL, epoch = epoch + 1, restore_id = $6, "
    "conversation = coalesce($7, conversation), paused_ms = $4, wait_ms = CASE WHEN "
    "run_deadline_ms IS NULL THEN NULL ELSE coalesce(wait_ms, $4) END, deadline_ms = $5, "
    "updated_ms = $4, rev = rev + 1 WHERE id = $1 AND epoch = $2 AND state = $3 AND stop_ms IS "
    "NULL AND mode = 2 AND route = 2 AND running_ms IS NOT NULL",
    NULL};
static const struct mu_stmt q_park_result = {
    "park_result", "tti",
    "INSERT INTO session_results (session_id, error_code, error_message, updated_ms) VALUES ($1, "
    "'session_lost', $2, $3) ON CONFLICT (session_id) DO UPDATE SET error_code = "
    "excluded.error_code, error_message = excluded.error_message, updated_ms = "
    "excluded.updated_ms",
    NULL};
static const struct mu_stmt q_queued = {
    "queued_one", "t",
    "SELECT org_id, tries, queued_ms, epoch, deadline_ms, pin_worker_id, needs FROM sessions WHERE "
    "id = $1 AND state = 22 AND stop_ms IS NULL",
    NULL};
#define SLEEPY                                                                                     \
    "SELECT s.id, s.state, s.epoch FROM sessions s WHERE s.ended_ms IS NULL AND s.mode = 2 AND "   \
    "s.state BETWEEN 60 AND 70 AND s.route = 2 AND s.stop_ms IS NULL AND "
static const struct mu_stmt q_idle = {
    "sleepy_idle", "iit",
    SLEEPY "s.state = 60 AND s.updated_ms <= $1 AND NOT EXISTS (SELECT 1 FROM turns t WHERE "
           "t.session_id = s.id AND (t.ended_ms IS NULL OR t.ended_ms > $1)) AND NOT EXISTS "
           "(SELECT 1 FROM gates g WHERE g.session_id = s.id AND g.status = 0) AND s.id > $3 ORDER "
           "BY s.id LIMIT $2",
    NULL};
static const struct mu_stmt q_waiting = {
    "sleepy_waiting", "iit",
    SLEEPY "s.state = 64 AND s.updated_ms <= $1 AND s.id > $3 ORDER BY s.id LIMIT $2", NULL};
static const struct mu_stmt q_paused = {
    "sleepy_paused", "iit",
    SLEEPY "s.state = 70 AND s.paused_ms <= $1 AND s.id > $3 ORDER BY s.id LIMIT $2", NULL};

/* --- to sleep --- */

static int refuses_gate(void *arg, struct mu_row *row)
{
    bool *refused = arg;
    struct mu_digest_hex own = mu_sha256_hex(mu_row_bytes(row, 0));
    bool known = !mu_bytes_is(mu_row_bytes(row, 1), own.text);
    *refused = *refused || !known || mu_row_i64(row, 2) < 0;
    return 0;
}

/* Whether it is as it was when it was chosen. */
static int still_waits(struct mu_session_sleep *op, struct mu_tx *tx, const struct mu_clocks *l)
{
    mu_bytes id = mu_id_bytes(&op->id);
    struct mu_found_checkpoint newest = {.conversation = op->conversation};
    struct mu_open open;
    bool refused = false;
    int r = mu_session_open_read(tx, id, &open);
    if (r >= 0) {
        r = MU_TX_RUN(tx, &q_gates, refuses_gate, &refused, MU_VT(id));
    }
    if (r < 0) {
        return r;
    }
    bool idle = op->from != MU_ST_RUNNING || (!open.turns && !open.gates && !open.undelivered);
    bool asks = op->from != MU_ST_WAITING || (open.gates && !open.undelivered);
    if (l->state != op->from || refused || !idle || !asks) {
        return MU_E_CONFLICT;
    }
    r = mu_checkpoint_newest(tx, id, &newest);
    op->restore = newest.id;
    bool there = r > 0 && newest.epoch == op->epoch && newest.number == op->number;
    return r < 0 ? r : there ? 0 : MU_E_CONFLICT;
}

static int put_down(struct mu_session_sleep *op, struct mu_tx *tx, int to)
{
    mu_bytes id = mu_id_bytes(&op->id), conversation = mu_str(op->conversation);
    struct mu_id turn = {.text = ""};
    int r = MU_TX_SEND(tx, &q_sleep, 1, MU_VT(id), MU_VI(op->epoch), MU_VI(op->from), MU_VI(to),
                       MU_VI(op->now_ms), MU_VT(mu_id_bytes(&op->restore)),
                       conversation.len ? MU_VT(conversation) : MU_VNULL, MU_VI(op->hold_until_ms),
                       MU_VI(MU_MODE_INTERACTIVE));
    if (r >= 0) {
        r = MU_TX_SEND(tx, &q_attempt_over, -1, MU_VT(id), MU_VI(op->epoch), MU_VI(op->now_ms));
    }
    if (r >= 0) {
        r = MU_TX_SEND(tx, &mu_q_chunks_drop, -1, MU_VT(id));
    }
    if (r >= 0) {
        r = MU_TX_RUN(tx, &q_turn_waits, mu_row_take_id, &turn, MU_VT(id));
    }
    if (r >= 0) {
        r = mu_tx_stream(tx, id, turn.text[0] ? 2 : 1);
    }
    char data[128];
    if (r >= 0 && turn.text[0]) {
        snprintf(data, sizeof data, "{\"turn\":\"%s\",\"state\":%d}", turn.text, MU_TURN_QUEUED);
        r = mu_tx_event(tx, MU_EV_TURN_CHANGED, op->now_ms, MU_B("system"), mu_str(data));
    }
    snprintf(data, sizeof data, "{\"from\":%d,\"to\":%d,\"message\":\"hibernated\"}", op->from, to);
    return r < 0 ? r : mu_tx_event(tx, MU_EV_STATE, op->now_ms, MU_B("system"), mu_str(data));
}

static int run_sleep(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_session_sleep *op = MU_CONTAINER(u, struct mu_session_sleep, unit);
    mu_bytes id = mu_id_bytes(&op->id);
    struct mu_clocks l;
    op->conversation[0] = 0;
    int r = mu_clocks_of(tx, id, true, MU_B_NONE, &l);
    if (r < 0) {
        return r;
    }
    op->state = l.state;
    if (l.epoch != op->epoch || l.state >= MU_ST_STOPPING) {
        return MU_E_STALE;
    }
    r = still_waits(op, tx, &l);
    if (r >= 0) {
        op->state = op->from == MU_ST_WAITING ? MU_ST_WAITING_AWAY : MU_ST_HIBERNATED;
        r = put_down(op, tx, op->state);
    }
    return r;
}

static void sleep_done(struct mu_unit *u, int result)
{
    struct mu_session_sleep *op = MU_CONTAINER(u, struct mu_session_sleep, unit);
    mu_metric_add(op->sessions->hibernated, result >= 0);
    mu_sessions_note_stale(op->sessions, result);
    op->done(op, MU_MIN(result, 0));
}

int mu_session_sleep(struct mu_sessions *s, struct mu_session_sleep *op)
{
    op->sessions = s;
    op->now_ms = mu_sessions_now(s);
    return mu_session_submit(s, &op->unit, &op->id, run_sleep, sleep_done);
}

/* --- awake --- */

int mu_wake(struct mu_tx *tx, struct mu_sessions *s, mu_bytes id, struct mu_clocks *l,
            int64_t now_ms, mu_bytes by)
{
    int from = l->state;
    int r = 0;
    if (l->paused_ms) {
        r = MU_TX_SEND(tx, &mu_q_gates_shift, -1, MU_VT(id), MU_VI(now_ms), MU_VI(l->paused_ms));
    }
    if (r >= 0) {
        r = MU_TX_SEND(tx, &q_wake, 1, MU_VT(id), MU_VI(l->epoch), MU_VI(now_ms),
                       MU_VI(now_ms + s->opts.pending_max_ms));
    }
    if (r >= 0 && from == MU_ST_PARKED) {
        r = MU_TX_SEND(tx, &q_no_error, -1, MU_VT(id), MU_VI(now_ms));
    }
    if (r >= 0) {
        r = mu_tx_stream(tx, id, 1);
    }
    l->state = MU_ST_QUEUED_WORKER;
    const struct mu_state_change c = {
        .from = from, .to = MU_ST_QUEUED_WORKER, .outcome = -1, .by = by};
    return r < 0 ? r : mu_state_event(tx, now_ms, &c);
}

static int run_wake(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_session_wake *op = MU_CONTAINER(u, struct mu_session_wake, unit);
    mu_bytes id = mu_id_bytes(&op->id);
    struct mu_clocks l;
    int r = mu_clocks_of(tx, id, op->admin, op->org_id, &l);
    if (r < 0) {
        return r;
    }
    return !mu_state_sleeps(l.state) ? MU_E_CONFLICT
                                     : mu_wake(tx, op->sessions, id, &l, op->now_ms, op->by);
}

static void wake_done(struct mu_unit *u, int result)
{
    struct mu_session_wake *op = MU_CONTAINER(u, struct mu_session_wake, unit);
    op->done(op, MU_MIN(result, 0));
}

int mu_session_wake(struct mu_sessions *s, struct mu_session_wake *op)
{
    op->sessions = s;
    op->now_ms = mu_sessions_now(s);
    return mu_session_submit(s, &op->unit, &op->id, run_wake, wake_done);
}

/* --- parked --- */

int mu_park(struct mu_tx *tx, mu_bytes id, const struct mu_park *p)
{
    char conversation[MU_CONVERSATION_MAX + 1] = "";
    struct mu_found_checkpoint newest = {.conversation = conversation};
    int r = mu_checkpoint_newest(tx, id, &newest);
    if (r <= 0) {
        return r < 0 ? r : MU_E_CONFLICT;
    }
    r = MU_TX_RUN(tx, &q_park, NULL, NULL, MU_VT(id), MU_VI(p->epoch), MU_VI(p->from),
                  MU_VI(p->now_ms), MU_VI(p->hold_until_ms), MU_VT(mu_id_bytes(&newest.id)),
                  conversation[0] ? MU_VT(mu_str(conversation)) : MU_VNULL);
    if (r <= 0) {
        return r < 0 ? r : MU_E_STALE;
    }
    r = MU_TX_SEND(tx, &q_park_result, -1, MU_VT(id), MU_VT(p->text), MU_VI(p->now_ms));
    if (r >= 0) {
        r = mu_tx_stream(tx, id, 1);
    }
    const struct mu_state_change c = {
        .from = p->from, .to = MU_ST_PARKED, .outcome = -1, .by = MU_B("system"), .note = p->text};
    return r < 0 ? r : mu_state_event(tx, p->now_ms, &c);
}

/* --- reading --- */

static int take_queued(void *arg, struct mu_row *row)
{
    struct mu_session_queued *op = arg;
    mu_bytes pin = mu_row_bytes(row, 5);
    snprintf(op->org_id, sizeof op->org_id, "%.*s", MU_ARGS(mu_row_bytes(row, 0)));
    mu_free(op->pin);
    op->pin = pin.ptr ? mu_bytes_dup(pin) : NULL;
    op->row = (struct mu_live_row){.id = mu_id_bytes(&op->id),
                                   .org_id = mu_str(op->org_id),
                                   .pin_worker_id = mu_str(op->pin),
                                   .state = MU_ST_QUEUED_WORKER,
                                   .route = MU_ROUTE_WORKER,
                                   .tries = (int)mu_row_i64(row, 1),
                                   .queued_ms = mu_row_i64(row, 2),
                                   .epoch = mu_row_i64(row, 3),
                                   .deadline_ms = mu_row_i64(row, 4),
                                   .needs = mu_row_i64(row, 6)};
    return pin.ptr && !op->pin ? -ENOMEM : 0;
}

static int run_queued(struct mu_read *read, struct mu_db *db)
{
    struct mu_session_queued *op = MU_CONTAINER(read, struct mu_session_queued, read);
    int r = MU_DB_RUN(db, &q_queued, take_queued, op, MU_VT(mu_id_bytes(&op->id)));
    return r < 0 ? r : r == 0 ? MU_E_NOT_FOUND : 0;
}

static void queued_done(struct mu_read *read, int result)
{
    struct mu_session_queued *op = MU_CONTAINER(read, struct mu_session_queued, read);
    op->done(op, result);
}

int mu_session_queued_read(struct mu_sessions *s, struct mu_session_queued *op)
{
    op->read.run = run_queued;
    op->read.done = queued_done;
    return mu_readers_submit(s->opts.readers, &op->read);
}

static int take_sleepy(void *arg, struct mu_row *row)
{
    struct mu_session_sleepies *op = arg;
    if (op->n < MU_SLEEPY_PAGE) {
        struct mu_sleepy *x = &op->found[op->n];
        x->state = (int)mu_row_i64(row, 1);
        x->epoch = mu_row_i64(row, 2);
        op->n += mu_id_parse(mu_row_bytes(row, 0), NULL, &x->id) == 0;
    }
    return 0;
}

static int run_sleepies(struct mu_read *read, struct mu_db *db)
{
    struct mu_session_sleepies *op = MU_CONTAINER(read, struct mu_session_sleepies, read);
    const struct {
        const struct mu_stmt *stmt;
        int64_t before_ms;
        int state;
    } of[] = {{&q_paused, op->paused_before_ms, MU_ST_PAUSED},
              {&q_waiting, op->waiting_before_ms, MU_ST_WAITING},
              {&q_idle, op->idle_before_ms, MU_ST_RUNNING}};
    mu_bytes after = mu_id_bytes(&op->after.id);
    int r = 0;
    op->n = 0;
    for (size_t i = 0; r >= 0 && i < MU_ARRAY_LEN(of); i++) {
        int64_t room = MU_SLEEPY_PAGE - (int64_t)op->n;
        if (after.len && of[i].state != op->after.state) {
            continue; /* was before that one */
        }
        if (of[i].before_ms != INT64_MIN && room > 0) {
            r = MU_DB_RUN(db, of[i].stmt, take_sleepy, op, MU_VI(of[i].before_ms), MU_VI(room),
                          MU_VT(after));
        }
        after = MU_B("");
    }
    return MU_MIN(r, 0);
}

static void sleepies_done(struct mu_read *read, int result)
{
    struct mu_session_sleepies *op = MU_CONTAINER(read, struct mu_session_sleepies, read);
    op->done(op, result);
}

int mu_session_sleepies(struct mu_sessions *s, struct mu_session_sleepies *op)
{
    op->read.run = run_sleepies;
    op->read.done = sleepies_done;
    return mu_readers_submit(s->opts.readers, &op->read);
}

const struct mu_planned mu_hibernate_planned[] = {
    {&q_sleep, ""},
    {&q_turn_waits, "turns_open"},
    {&q_gates, "gates_pending"},
    {&q_wake, ""},
    {&q_queued, ""},
    {&q_idle, "sessions_sleepy"},
    {&q_waiting, "sessions_sleepy"},
    {&q_paused, "sessions_sleepy"},
    {NULL, NULL},
};
