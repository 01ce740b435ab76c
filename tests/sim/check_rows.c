/* What the database says after every commit (G1 to G5), and what was promised to callers and
 * workers. */
#include "base/map.h"
#include "sim.h"

enum {
    OVERDUE_MS = 12000,
    SLACK_MS = 2000,
    STOP_MS = 30000,
    DAY_MS = 86400000,
    CLAIM_NET_MS = 600000
};

struct sim_session sim_sessions[SIM_SESSIONS];
unsigned sim_n_sessions;

struct sim_session *sim_session(const struct mu_id *id, bool make)
{
    for (unsigned i = 0; i < sim_n_sessions; i++) {
        if (memcmp(sim_sessions[i].id.text, id->text, MU_ID_LEN) == 0) {
            return &sim_sessions[i];
        }
    }
    if (!make) {
        return NULL;
    }
    if (sim_n_sessions == SIM_SESSIONS) {
        sim_fail("simulator", "too many sessions");
    }
    struct sim_session *s = &sim_sessions[sim_n_sessions++];
    *s = (struct sim_session){.id = *id};
    sim.counts.sessions++;
    return s;
}

void sim_rows_begin(void)
{
    sim_n_sessions = 0;
    sim_gates_begin();
    sim.checked_commits = sim.commits;
}

uint64_t sim_event_digest(int type, mu_bytes data)
{
    return mu_hash(data) ^ (uint64_t)type * UINT64_C(0x9e3779b97f4a7c15);
}

static void must(int r, const char *what)
{
    if (r < 0) {
        sim_fail("simulator", "%s: %s", what, mu_db_errmsg(sim.db));
    }
}

/* --- the log --- */

static int number_after(mu_bytes data, const char *key)
{
    ptrdiff_t at = mu_bytes_find(data, mu_str(key));
    return at < 0 ? -1 : (int)strtol(data.ptr + at + strlen(key), NULL, 10);
}

static void check_move(struct sim_session *s, int64_t seq, int to)
{
    if (s->log_state && to != s->log_state && !mu_state_may_move(s->log_state, to)) {
        sim_fail("G2", "session %s moves from %d to %d (event %lld)", s->id.text, s->log_state, to,
                 (long long)seq);
    }
    s->log_state = to;
}

static int on_event(void *arg, struct mu_row *row)
{
    struct sim_session *s = arg;
    int64_t seq = mu_row_i64(row, 0);
    int type = (int)mu_row_i64(row, 1);
    mu_bytes data = mu_row_bytes(row, 2);
    if (seq != s->last_seq + 1) {
        sim_fail("G5", "the log of %s has event %lld behind %lld", s->id.text, (long long)seq,
                 (long long)s->last_seq);
    }
    if (s->ended_seq) {
        sim_fail("G2", "the log of %s goes on after its end, event %lld type %d", s->id.text,
                 (long long)seq, type);
    }
    s->last_seq = seq;
    if (seq < SIM_EVENTS) {
        s->log[seq] = sim_event_digest(type, data);
    }
    if (type == MU_EV_ENDED) {
        s->ended_seq = seq;
    }
    if (type == MU_EV_CREATED || type == MU_EV_STATE) {
        check_move(s, seq, number_after(data, "\"to\":"));
    }
    return 0;
}

static void read_log(struct sim_session *s, int64_t last_seq)
{
    static const struct mu_stmt q = {
        "sim_log", "ti",
        "SELECT seq, type, data FROM events WHERE stream_id = $1 AND seq > $2 ORDER BY seq", NULL};
    if (last_seq < s->last_seq) {
        sim_fail("G5", "the log of %s went back from %lld to %lld", s->id.text,
                 (long long)s->last_seq, (long long)last_seq);
    }
    if (last_seq > s->last_seq) {
        must(MU_DB_RUN(sim.db, &q, on_event, s, MU_VT(mu_id_bytes(&s->id)), MU_VI(s->last_seq)),
             "log");
    }
    if (last_seq != s->last_seq) {
        sim_fail("G5", "the log of %s has %lld events and counts %lld", s->id.text,
                 (long long)s->last_seq, (long long)last_seq);
    }
}

/* --- rows --- */

struct now {
    int state, outcome, end_reason;
    int64_t epoch, tries, deadline_ms, stop_ms, ended_ms, queued_ms, last_seq, live, live_epoch;
    mu_bytes worker;
};

/* By when a session must have moved on, at most, counted from now. */
static int64_t longest(const struct now *n)
{
    switch (n->state) {
    case MU_ST_QUEUED:
    case MU_ST_QUEUED_WORKER:
        return sim.plan.pending_max_ms;
    case MU_ST_CLAIMED:
        return MU_MAX(sim.plan.pending_max_ms, MU_MAX(sim.plan.claim_ms, sim.plan.native_claim_ms) +
                                                   sim.plan.grace_ms + CLAIM_NET_MS);
    case MU_ST_WAITING:
    case MU_ST_PAUSED:
        return DAY_MS; /* from its creation on; gates have times of their own */
    case MU_ST_WAITING_AWAY:
    case MU_ST_HIBERNATED:
    case MU_ST_PARKED:
        return SIM_SLEEP_MS;
    case MU_ST_STOPPING:
        return STOP_MS;
    default:
        return sim.plan.run_max_ms;
    }
}

static void check_live(const struct sim_session *s, const struct now *n)
{
    int64_t wall = sim_wall();
    bool held = n->state >= MU_ST_CLAIMED && !mu_state_sleeps(n->state);
    if (n->deadline_ms > wall + longest(n) + SLACK_MS) {
        sim_fail("G3", "session %s in state %d has no deadline: it is %lld ms away", s->id.text,
                 n->state, (long long)(n->deadline_ms - wall));
    }
    if (held != (n->worker.len > 0) || n->live != held) {
        sim_fail("G4", "session %s in state %d has %lld live attempts and worker '%.*s'",
                 s->id.text, n->state, (long long)n->live, MU_ARGS(n->worker));
    }
    if (held && n->live_epoch != n->epoch) {
        sim_fail("G4", "session %s is at epoch %lld, its live attempt at %lld", s->id.text,
                 (long long)n->epoch, (long long)n->live_epoch);
    }
    if (s->ended_seq) {
        sim_fail("G2", "session %s is live behind its end event", s->id.text);
    }
}

static void check_ended(const struct sim_session *s, const struct now *n)
{
    if (s->ended_seq != n->last_seq) {
        sim_fail("G2", "session %s has ended without an end event as its last", s->id.text);
    }
    if (n->live) {
        sim_fail("G4", "session %s has ended and keeps %lld live attempts", s->id.text,
                 (long long)n->live);
    }
    if (s->state >= MU_ST_COMPLETED &&
        (s->state != n->state || s->outcome != n->outcome || s->end_reason != n->end_reason ||
         s->ended_ms != n->ended_ms || s->epoch != n->epoch)) {
        sim_fail("G2", "session %s ended as %d/%d and is now %d/%d", s->id.text, s->state,
                 s->outcome, n->state, n->outcome);
    }
}

static void check_row(struct sim_session *s, const struct now *n)
{
    read_log(s, n->last_seq);
    if (s->log_state != n->state) {
        sim_fail("G2", "session %s is in state %d, by its log in %d", s->id.text, n->state,
                 s->log_state);
    }
    if (n->epoch < s->epoch || n->tries < s->tries) {
        sim_fail("G4", "session %s goes back from epoch %lld to %lld", s->id.text,
                 (long long)s->epoch, (long long)n->epoch);
    }
    if (s->stop_acked && !n->stop_ms && !n->ended_ms) {
        sim_fail("G1", "the stop of %s was acknowledged and is not stored", s->id.text);
    }
    if (n->tries > sim.plan.max_tries) {
        sim_fail("G7", "session %s has %lld tries", s->id.text, (long long)n->tries);
    }
    if (n->ended_ms) {
        check_ended(s, n);
    } else {
        check_live(s, n);
    }
}

static int on_row(void *arg MU_UNUSED, struct mu_row *row)
{
    struct mu_id id;
    must(mu_id_parse(mu_row_bytes(row, 0), NULL, &id), "id");
    const struct now n = {.state = (int)mu_row_i64(row, 1),
                          .outcome = (int)mu_row_i64(row, 2),
                          .end_reason = (int)mu_row_i64(row, 3),
                          .epoch = mu_row_i64(row, 4),
                          .tries = mu_row_i64(row, 5),
                          .deadline_ms = mu_row_i64(row, 6),
                          .stop_ms = mu_row_i64(row, 7),
                          .ended_ms = mu_row_i64(row, 8),
                          .worker = mu_row_bytes(row, 9),
                          .queued_ms = mu_row_i64(row, 10),
                          .last_seq = mu_row_i64(row, 11),
                          .live = mu_row_i64(row, 12),
                          .live_epoch = mu_row_i64(row, 13)};
    struct sim_session *s = sim_session(&id, true);
    if (mu_row_i64(row, 15) == SIM_OLD) {
        sim_fail("G4", "session %s ended by a report of another attempt", id.text);
    }
    if (s->gone) {
        sim_fail("G1", "session %s was deleted and is there", id.text);
    }
    check_row(s, &n);
    if (!s->seen) {
        mu_bytes org = mu_row_bytes(row, 14);
        for (unsigned i = 0; i < SIM_ORGS; i++) {
            s->org = mu_bytes_is(org, sim.who[i].org_id) ? i : s->org;
        }
    }
    if (n.ended_ms && !s->seen_ended) {
        s->seen_ended = sim.now;
        sim.counts.ended++;
    }
    if (n.epoch != s->epoch) {
        s->epoch_at = sim.now;
    }
    if (n.state != s->state) {
        sim.counts.sleeps += mu_state_sleeps(n.state);
        sim.counts.wakes += s->seen && mu_state_sleeps(s->state) && n.state < MU_ST_COMPLETED &&
                            !mu_state_sleeps(n.state);
        s->state_at = sim.now;
    }
    s->seen = s->present = true;
    s->state = n.state;
    s->outcome = n.outcome;
    s->end_reason = n.end_reason;
    s->epoch = n.epoch;
    s->tries = n.tries;
    s->deadline_ms = n.deadline_ms;
    s->stop_ms = n.stop_ms;
    s->ended_ms = n.ended_ms;
    return 0;
}

static void check_absent(struct sim_session *s)
{
    if (s->absent) {
        return;
    }
    s->absent = s->seen;
    bool may_go = s->delete_asked || sim.plan.retention_ms > 0;
    if ((s->acked || s->seen) && !may_go) {
        sim_fail("G1", "session %s has vanished", s->id.text);
    }
    if (s->seen && s->state < MU_ST_COMPLETED && sim.batch == 1) {
        sim_fail("G1", "session %s was removed in state %d", s->id.text, s->state);
    }
}

void sim_rows_check(void)
{
    static const struct mu_stmt q = {
        "sim_rows", "",
        "SELECT s.id, s.state, s.outcome, s.end_reason, s.epoch, s.tries, s.deadline_ms, "
        "s.stop_ms, s.ended_ms, s.worker_id, s.queued_ms, (SELECT t.last_seq FROM streams t WHERE "
        "t.id = s.id), (SELECT count(*) FROM attempts a WHERE a.session_id = s.id AND a.ended_ms "
        "IS NULL), (SELECT max(b.epoch) FROM attempts b WHERE b.session_id = s.id AND b.ended_ms "
        "IS NULL), s.org_id, s.exit_code FROM sessions s",
        NULL};
    if (sim.commits == sim.checked_commits) {
        return;
    }
    sim.checked_commits = sim.commits;
    for (unsigned i = 0; i < sim_n_sessions; i++) {
        sim_sessions[i].present = false;
    }
    must(MU_DB_RUN(sim.db, &q, on_row, NULL, ), "rows");
    sim_gates_check();
    for (unsigned i = 0; i < sim_n_sessions; i++) {
        if (!sim_sessions[i].present) {
            check_absent(&sim_sessions[i]);
        }
    }
}

/* Time alone makes a row wrong too: nobody acted. */
void sim_rows_overdue(void)
{
    for (unsigned i = 0; i < sim_n_sessions; i++) {
        const struct sim_session *s = &sim_sessions[i];
        bool long_enough = sim_well_for() > OVERDUE_MS && sim.now - s->state_at > OVERDUE_MS;
        if (s->present && !s->ended_ms && long_enough && s->deadline_ms < sim_wall() - OVERDUE_MS) {
            sim_fail("G3", "session %s in state %d is past its deadline by %lld ms", s->id.text,
                     s->state, (long long)(sim_wall() - s->deadline_ms));
        }
    }
}

bool sim_all_ended(void)
{
    for (unsigned i = 0; i < sim_n_sessions; i++) {
        if (sim_sessions[i].present && !sim_sessions[i].ended_ms) {
            return false;
        }
    }
    return true;
}

/* --- promises --- */

static int on_number(void *arg, struct mu_row *row)
{
    *(int64_t *)arg = mu_row_i64(row, 0);
    return 0;
}

bool sim_row_exists(const struct mu_id *id)
{
    static const struct mu_stmt q = {"sim_exists", "t", "SELECT 1 FROM sessions WHERE id = $1",
                                     NULL};
    int r = MU_DB_RUN(sim.db, &q, NULL, NULL, MU_VT(mu_id_bytes(id)));
    must(r, "exists");
    return r > 0;
}

void sim_acked(const struct mu_execution *of, int told_state, bool end)
{
    static const struct mu_stmt q = {
        "sim_acked", "ti",
        "SELECT CASE WHEN s.epoch > $2 OR s.ended_ms IS NOT NULL THEN 99 ELSE s.state END FROM "
        "sessions s WHERE s.id = $1",
        NULL};
    int64_t state = 99;
    must(MU_DB_RUN(sim.db, &q, on_number, &state, MU_VT(mu_id_bytes(&of->session)),
                   MU_VI(of->epoch)),
         "acked");
    if (end && state != 99) {
        sim_fail("G1", "the end of %s epoch %lld was acknowledged and is not stored",
                 of->session.text, (long long)of->epoch);
    }
    if (!end && state < told_state) {
        sim_fail("G1", "state %d of %s epoch %lld was acknowledged, stored is %lld", told_state,
                 of->session.text, (long long)of->epoch, (long long)state);
    }
}

void sim_assigned(const struct mu_execution *of, const char *worker)
{
    static const struct mu_stmt q = {"sim_assigned", "titt",
                                     "SELECT 1 FROM attempts WHERE session_id = $1 AND epoch = $2 "
                                     "AND execution_id = $3 AND worker_id = $4",
                                     NULL};
    int r = MU_DB_RUN(sim.db, &q, NULL, NULL, MU_VT(mu_id_bytes(&of->session)), MU_VI(of->epoch),
                      MU_VT(mu_id_bytes(&of->execution)), MU_VT(mu_str(worker)));
    must(r, "assigned");
    if (r == 0 && sim_row_exists(&of->session)) {
        sim_fail("G1", "session %s epoch %lld is given to %s, which is not stored",
                 of->session.text, (long long)of->epoch, worker);
    }
}

/* --- the end --- */

static int64_t number(const struct mu_stmt *q)
{
    int64_t n = -1;
    must(mu_db_run(sim.db, q, NULL, 0, on_number, &n), q->name);
    return n;
}

void sim_rows_end(void)
{
    static const struct mu_stmt none[] = {
        {"live attempts", "", "SELECT count(*) FROM attempts WHERE ended_ms IS NULL", NULL},
        {"live sessions", "", "SELECT count(*) FROM sessions WHERE ended_ms IS NULL", NULL},
        {"logs without a session", "",
         "SELECT count(*) FROM streams WHERE id NOT LIKE '%:%' AND id NOT IN (SELECT id FROM "
         "sessions)",
         NULL},
        {"sessions without a result", "",
         "SELECT count(*) FROM sessions WHERE id NOT IN (SELECT session_id FROM session_results)",
         NULL},
        {"open gates or turns of nobody", "",
         "SELECT (SELECT count(*) FROM gates WHERE status = 0) + (SELECT count(*) FROM turns WHERE "
         "ended_ms IS NULL)",
         NULL},
        {"logs that are not whole", "",
         "SELECT count(*) FROM streams s WHERE s.last_seq <> (SELECT count(*) FROM events e WHERE "
         "e.stream_id = s.id)",
         NULL},
        {"output whose pieces do not follow each other", "",
         "SELECT count(*) FROM output_chunks c WHERE c.pos <> (SELECT coalesce(sum(length("
         "b.bytes)), 0) FROM output_chunks b WHERE b.session_id = c.session_id AND b.pos < c.pos)",
         NULL},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(none); i++) {
        int64_t n = number(&none[i]);
        if (n != 0) {
            sim_fail("leftovers", "%lld %s", (long long)n, none[i].name);
        }
    }
}
