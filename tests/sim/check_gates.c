/* Gates (G8): one resolution wins and stays, and what a runner was not allowed did not happen.
 * Turns: what was accepted is there, and ends once. */
#include "app/sessions/live.h"
#include "sim.h"

enum { GATES = 256 };

static struct gate {
    struct mu_id id, session;
    int status, promised; /* promised: by an answer to somebody who decided; 0 = none */
    int64_t resolved_ms;
    bool won;           /* somebody was told that it was him */
    struct mu_id acted; /* the question by which its runner acted on it */
} gates[GATES];
static unsigned n_gates;
static struct turn {
    struct mu_id id, session;
    int state;
    bool promised, present;
} turns[GATES];
static unsigned n_turns;

void sim_gates_begin(void)
{
    n_gates = n_turns = 0;
}

static void must(int r, const char *what)
{
    if (r < 0) {
        sim_fail("simulator", "%s: %s", what, mu_db_errmsg(sim.db));
    }
}

static struct gate *gate_of(const struct mu_id *id)
{
    for (unsigned i = 0; i < n_gates; i++) {
        if (memcmp(gates[i].id.text, id->text, MU_ID_LEN) == 0) {
            return &gates[i];
        }
    }
    if (n_gates == GATES) {
        sim_fail("simulator", "too many gates");
    }
    gates[n_gates] = (struct gate){.id = *id};
    sim.counts.gates++;
    return &gates[n_gates++];
}

static int on_gate(void *arg MU_UNUSED, struct mu_row *row)
{
    struct mu_id id;
    must(mu_id_parse(mu_row_bytes(row, 0), NULL, &id), "id");
    struct gate *g = gate_of(&id);
    int status = (int)mu_row_i64(row, 2);
    int64_t at = mu_row_i64(row, 3);
    must(mu_id_parse(mu_row_bytes(row, 1), NULL, &g->session), "id");
    if (g->status && (g->status != status || g->resolved_ms != at)) {
        sim_fail("G8", "gate %s was resolved as %d and is now %d", id.text, g->status, status);
    }
    if (g->promised && g->promised != status) {
        sim_fail("G1", "gate %s: decision %d was acknowledged, %d is stored", id.text, g->promised,
                 status);
    }
    if (status == MU_GATE_PENDING && mu_row_i64(row, 4) >= MU_ST_STOPPING) {
        sim_fail("G8", "gate %s is open although its session is not", id.text);
    }
    g->status = status;
    g->resolved_ms = at;
    return 0;
}

/* --- turns --- */

static struct turn *turn_of(const struct mu_id *id)
{
    for (unsigned i = 0; i < n_turns; i++) {
        if (memcmp(turns[i].id.text, id->text, MU_ID_LEN) == 0) {
            return &turns[i];
        }
    }
    if (n_turns == GATES) {
        sim_fail("simulator", "too many turns");
    }
    turns[n_turns] = (struct turn){.id = *id};
    return &turns[n_turns++];
}

static int on_turn(void *arg MU_UNUSED, struct mu_row *row)
{
    struct mu_id id;
    must(mu_id_parse(mu_row_bytes(row, 0), NULL, &id), "id");
    struct turn *t = turn_of(&id);
    int state = (int)mu_row_i64(row, 2);
    must(mu_id_parse(mu_row_bytes(row, 1), NULL, &t->session), "id");
    if (t->state >= MU_TURN_DONE && t->state != state) {
        sim_fail("G2", "turn %s ended as %d and is now %d", id.text, t->state, state);
    }
    if (state < MU_TURN_DONE && mu_row_i64(row, 4) >= MU_ST_COMPLETED) {
        sim_fail("G3", "turn %s is open although its session has ended", id.text);
    }
    if (mu_row_i64(row, 3) > MU_TURN_TRIES) {
        sim_fail("G7", "turn %s has %lld tries", id.text, (long long)mu_row_i64(row, 3));
    }
    t->state = state;
    t->present = true;
    return 0;
}

static int on_busy(void *arg MU_UNUSED, struct mu_row *row)
{
    sim_fail("G4", "session %.*s works on several turns at once", MU_ARGS(mu_row_bytes(row, 0)));
}

static void check_turns(void)
{
    static const struct mu_stmt q = {"sim_turns", "",
                                     "SELECT t.id, t.session_id, t.state, t.tries, s.state FROM "
                                     "turns t JOIN sessions s ON s.id = t.session_id",
                                     NULL};
    static const struct mu_stmt busy = {
        "sim_turns_busy", "",
        "SELECT session_id FROM turns WHERE state BETWEEN 20 AND 30 "
        "GROUP BY session_id HAVING count(*) > 1",
        NULL};
    for (unsigned i = 0; i < n_turns; i++) {
        turns[i].present = false;
    }
    must(mu_db_run(sim.db, &q, NULL, 0, on_turn, NULL), "turns");
    must(mu_db_run(sim.db, &busy, NULL, 0, on_busy, NULL), "turns");
    for (unsigned i = 0; i < n_turns; i++) {
        const struct turn *t = &turns[i];
        if (t->promised && !t->present && sim_row_exists(&t->session)) {
            sim_fail("G1", "turn %s was accepted and is not stored", t->id.text);
        }
    }
}

void sim_turn_promised(const struct mu_id *id, const struct mu_id *session)
{
    struct turn *t = turn_of(id);
    t->promised = true;
    t->session = *session;
}

/* --- looking --- */

void sim_gates_check(void)
{
    check_turns();
    static const struct mu_stmt q = {"sim_gates", "",
                                     "SELECT g.id, g.session_id, g.status, g.resolved_ms, s.state "
                                     "FROM gates g JOIN sessions s ON s.id = g.session_id",
                                     NULL};
    must(mu_db_run(sim.db, &q, NULL, 0, on_gate, NULL), "gates");
}

bool sim_gate_some(struct mu_id *ret_gate, struct mu_id *ret_session, bool pending)
{
    for (unsigned tries = 0; n_gates && tries < 6; tries++) {
        const struct gate *g = &gates[sim_rand(n_gates)];
        if (!pending || g->status == MU_GATE_PENDING) {
            *ret_gate = g->id;
            *ret_session = g->session;
            return true;
        }
    }
    return false;
}

void sim_gate_decided(const struct mu_id *id, int status, bool repeated)
{
    struct gate *g = gate_of(id);
    if (!repeated && g->won) {
        sim_fail("G8", "two resolutions of gate %s won", id->text);
    }
    g->won = g->won || !repeated;
    g->promised = status;
}

static int on_number(void *arg, struct mu_row *row)
{
    *(int64_t *)arg = mu_row_i64(row, 0);
    return 0;
}

static int on_acted(void *arg, struct mu_row *row)
{
    struct mu_id id;
    must(mu_id_parse(mu_row_bytes(row, 0), NULL, &id), "id");
    *(struct gate **)arg = gate_of(&id);
    return 0;
}

/* Once for each that was allowed once, however the runner called it. */
void sim_gate_acts(const struct mu_execution *of, const struct mu_id *gate)
{
    static const struct mu_stmt granted = {
        "sim_gate_granted", "t",
        "SELECT count(*) FROM gates WHERE session_id = $1 AND status = 1 AND scope = 1", NULL};
    static const struct mu_stmt q = {"sim_gate_acts", "tt",
                                     "SELECT id FROM gates WHERE session_id = $1 AND status = 1 "
                                     "AND (id = $2 OR asked_id = $2)",
                                     NULL};
    int64_t n = 0;
    struct gate *g = NULL;
    mu_bytes session = mu_id_bytes(&of->session);
    must(MU_DB_RUN(sim.db, &granted, on_number, &n, MU_VT(session)), "gate");
    must(MU_DB_RUN(sim.db, &q, on_acted, &g, MU_VT(session), MU_VT(mu_id_bytes(gate))), "gate");
    if (n || !sim_row_exists(&of->session)) {
        return;
    }
    if (!g) {
        sim_fail("G8", "session %s acts on gate %s, which nobody allowed", of->session.text,
                 gate->text);
    }
    if (g->acted.text[0] && strcmp(g->acted.text, gate->text) != 0) {
        sim_fail("G8", "session %s acts twice on gate %s", of->session.text, g->id.text);
    }
    g->acted = *gate;
}

void sim_runner_acked(const struct mu_execution *of, int64_t seq)
{
    static const struct mu_stmt q = {
        "sim_runner_seq", "ti",
        "SELECT runner_seq FROM attempts WHERE session_id = $1 AND epoch = $2", NULL};
    int64_t stored = INT64_MAX;
    must(MU_DB_RUN(sim.db, &q, on_number, &stored, MU_VT(mu_id_bytes(&of->session)),
                   MU_VI(of->epoch)),
         "runner_seq");
    if (seq > stored) {
        sim_fail("G1", "message %lld of %s's runner was acknowledged, stored are %lld",
                 (long long)seq, of->session.text, (long long)stored);
    }
}
