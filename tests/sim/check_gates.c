/* Gates (G8): one resolution wins and stays, and what a runner was not allowed did not happen. */
#include "app/sessions/live.h"
#include "sim.h"

enum { GATES = 256 };

static struct gate {
    struct mu_id id, session;
    int status, promised; /* promised: by an answer to somebody who decided; 0 = none */
    int64_t resolved_ms;
    bool won; /* somebody was told that it was him */
} gates[GATES];
static unsigned n_gates;

void sim_gates_begin(void)
{
    n_gates = 0;
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

void sim_gates_check(void)
{
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

void sim_gate_acts(const struct mu_execution *of, const struct mu_id *gate)
{
    static const struct mu_stmt q = {"sim_gate_acts", "tt",
                                     "SELECT count(*) FROM gates WHERE session_id = $1 AND status "
                                     "= 1 AND (id = $2 OR scope = 1)",
                                     NULL};
    int64_t n = 0;
    must(MU_DB_RUN(sim.db, &q, on_number, &n, MU_VT(mu_id_bytes(&of->session)),
                   MU_VT(mu_id_bytes(gate))),
         "gate");
    if (n == 0 && sim_row_exists(&of->session)) {
        sim_fail("G8", "session %s acts on gate %s, which nobody allowed", of->session.text,
                 gate->text);
    }
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
