/* The moves of a session on real databases: the executor's, the ends, and the table of both (G2).
 */
#include "session_moves.h"

/* --- the executor's moves --- */

static void a_claim_starts_an_attempt(struct world *w)
{
    struct mu_session_create c = new_run(&w->alice);
    c.conversation_id = MU_B("conv");
    c.spec = MU_B("{\"x\":2}");
    assert_int_equal(do_create(w, &c), 0);
    struct mu_session_claim op = a_claim(w, &c.id, 0);
    assert_int_equal(do_claim(w, &op), 0);
    assert_int_equal(op.epoch, 1);
    assert_true(mu_bytes_is(op.prompt, "do it") && mu_bytes_is(op.spec, "{\"x\":2}") &&
                mu_bytes_is(op.conversation_id, "conv"));
    struct row r = row_of(w, &c.id);
    assert_int_equal(r.state, MU_ST_RUNNING);
    assert_int_equal(r.epoch, 1);
    assert_int_equal(r.started, start_ms);
    assert_int_equal(r.deadline, start_ms + 3600000);
    assert_true(r.has_worker);
    assert_int_equal(num(w,
                         "SELECT COUNT(*) FROM attempts WHERE session_id = '%s' AND epoch = 1 AND "
                         "execution_id = '%s' AND ended_ms IS NULL AND provider = 'prov' AND model "
                         "= 'm-1'",
                         c.id.text, op.execution_id.text),
                     1);
    mu_arena_fini(&op.arena);
    assert_int_equal(get(w, &w->alice, &c.id), 0);
    assert_string_equal(seen.attempt_provider, "prov");
    assert_string_equal(seen.attempt_model, "m-1");

    assert_int_equal(claim(w, &c.id, 0, NULL), MU_E_STALE);
    assert_int_equal(claim(w, &c.id, 1, NULL), MU_E_STALE);
    struct mu_id unknown = mu_id_new(&w->env, NULL);
    assert_int_equal(claim(w, &unknown, 0, NULL), MU_E_NOT_FOUND);
    assert_int_equal(metric(w, "muster_stale_reports_total"), 3);
}

static void a_session_has_one_live_attempt(struct world *w)
{
    struct mu_id id = running(w, &w->alice);
    /* Even if a row were wrong, the index holds. */
    put_sql(w, "UPDATE sessions SET state = 20 WHERE id = '%s'", id.text);
    assert_int_equal(claim(w, &id, 1, NULL), MU_E_CONSTRAINT);
    struct row r = row_of(w, &id);
    assert_int_equal(r.epoch, 1);
    assert_int_equal(r.state, 20);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM attempts"), 1);
}

static void a_switch_names_the_next_candidate(struct world *w)
{
    struct mu_id id = running(w, &w->alice);
    struct mu_session_switch op = a_switch(&id, 1);
    assert_int_equal(do_switch(w, &op), 0);
    assert_int_equal(get(w, &w->alice, &id), 0);
    assert_string_equal(seen.attempt_provider, "next");
    assert_string_equal(seen.attempt_model, "m\"-2");
    assert_string_equal(
        txt(w, "SELECT data FROM events WHERE stream_id = '%s' AND seq = 3", id.text),
        "{\"from\":60,\"to\":60,\"provider\":\"next\",\"model\":\"m-2\"};");
    op = a_switch(&id, 0);
    assert_int_equal(do_switch(w, &op), MU_E_STALE);
    op = a_switch(&id, 2);
    assert_int_equal(do_switch(w, &op), MU_E_STALE);
    assert_int_equal(events_of(w, &id), 3);
}

/* Otherwise the log would say "running" after it said "stopping". */
static void a_stopping_session_gets_no_other_candidate(struct world *w)
{
    struct mu_id id = running(w, &w->alice);
    assert_int_equal(cancel(w, &w->alice, &id, NULL), 0);
    struct mu_session_switch op = a_switch(&id, 1);
    assert_int_equal(do_switch(w, &op), MU_E_STALE);
    assert_int_equal(events_of(w, &id), 3);
}

static void a_session_that_is_put_back_keeps_its_place(struct world *w)
{
    struct mu_id id = running(w, &w->alice);
    struct mu_session_chunk chunk = {.id = id, .epoch = 1, .bytes = MU_B("partial")};
    assert_int_equal(do_chunk(w, &chunk), 0);
    advance(w, 5000);
    struct mu_session_put_back op = a_put_back(w, &id, 1);
    op.saturated_ms = now(w);
    op.message = "Waiting \"there\"";
    assert_int_equal(do_put_back(w, &op), 0);
    assert_int_equal(op.epoch, 2);
    assert_int_equal(op.saturated_ms, start_ms + 5000);
    struct row r = row_of(w, &id);
    assert_int_equal(r.state, MU_ST_QUEUED);
    assert_int_equal(r.epoch, 2);
    assert_int_equal(r.tries, 0);
    assert_int_equal(r.deadline, start_ms + 6000);
    assert_false(r.has_worker);
    assert_int_equal(num(w, "SELECT queued_ms FROM sessions WHERE id = '%s'", id.text), start_ms);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM output_chunks"), 0);
    assert_int_equal(num(w,
                         "SELECT COUNT(*) FROM attempts WHERE session_id = '%s' AND outcome = %d "
                         "AND ended_ms = %lld",
                         id.text, MU_ATT_PUT_BACK, (long long)now(w)),
                     1);
    assert_int_equal(get(w, &w->alice, &id), 0);
    assert_string_equal(seen.message, "Waiting \"there\"");

    op = a_put_back(w, &id, 1);
    assert_int_equal(do_put_back(w, &op), MU_E_STALE);
    assert_int_equal(claim(w, &id, 1, NULL), MU_E_STALE);
    int64_t epoch = 0;
    assert_int_equal(claim(w, &id, 2, &epoch), 0);
    assert_int_equal(epoch, 3);
    op = a_put_back(w, &id, 2);
    assert_int_equal(do_put_back(w, &op), MU_E_STALE);
    advance(w, 7000);
    op = a_put_back(w, &id, 3); /* the first saturation is remembered */
    op.saturated_ms = now(w);
    assert_int_equal(do_put_back(w, &op), 0);
    assert_int_equal(op.saturated_ms, start_ms + 5000);
    assert_int_equal(claim(w, &id, 4, &epoch), 0);
    op = a_put_back(w, &id, 5); /* shutdown */
    assert_int_equal(do_put_back(w, &op), 0);
    assert_int_equal(op.saturated_ms, start_ms + 5000);
}

static void a_saturated_session_remembers_since_when(struct world *w)
{
    struct mu_id id = queued(w, &w->alice);
    struct mu_session_saturate op = {
        .id = id, .now_ms = now(w), .deadline_ms = now(w) + 9000, .message = "full"};
    assert_int_equal(do_saturate(w, &op), 0);
    assert_int_equal(op.saturated_ms, start_ms);
    op = (struct mu_session_saturate){
        .id = id, .now_ms = start_ms + 5, .deadline_ms = start_ms + 8000, .message = "still full"};
    assert_int_equal(do_saturate(w, &op), 0);
    assert_int_equal(op.saturated_ms, start_ms);
    struct row r = row_of(w, &id);
    assert_int_equal(r.saturated, start_ms);
    assert_int_equal(r.deadline, start_ms + 8000);
    assert_int_equal(get(w, &w->alice, &id), 0);
    assert_string_equal(seen.message, "still full");
    op.epoch = 1;
    assert_int_equal(do_saturate(w, &op), MU_E_STALE);
    assert_int_equal(claim(w, &id, 0, NULL), 0);
    assert_int_equal(do_saturate(w, &op), MU_E_STALE); /* it runs now, at that epoch */
}

static void output_so_far_is_shown_and_fenced(struct world *w)
{
    struct mu_id id = running(w, &w->alice);
    put_chunk(w, &id, 1, 0, MU_B("one "), false);
    put_chunk(w, &id, 1, 0, MU_B("one "), false); /* repeated: harmless */
    put_chunk(w, &id, 1, 4, MU_B("two"), false);
    put_chunk(w, &id, 2, 7, MU_B("alien"), false);
    assert_int_equal(get(w, &w->alice, &id), 0);
    assert_string_equal(seen.output, "one two");
    assert_int_equal(seen.output_bytes, 7);
    put_chunk(w, &id, 1, 0, MU_B("new"), true);
    assert_int_equal(get(w, &w->alice, &id), 0);
    assert_string_equal(seen.output, "new");
    assert_int_equal(events_of(w, &id), 2);
}

/* G4: a report of an attempt that lost its lease does nothing, not even drop text. */
static void an_old_attempt_cannot_discard_the_new_ones_output(struct world *w)
{
    struct mu_id id = running(w, &w->alice);
    struct mu_session_put_back back = a_put_back(w, &id, 1);
    assert_int_equal(do_put_back(w, &back), 0);
    assert_int_equal(claim(w, &id, 2, NULL), 0);
    put_chunk(w, &id, 3, 0, MU_B("mine"), false);
    put_chunk(w, &id, 1, 0, MU_B("late"), true);
    put_chunk(w, &id, 1, 9 << 20, MU_B("late"), false);
    assert_int_equal(get(w, &w->alice, &id), 0);
    assert_string_equal(seen.output, "mine");
    /* nor one that comes after the end */
    put_sql(w, "UPDATE sessions SET deadline_ms = 1 WHERE id = '%s'", id.text);
    struct mu_session_end e = {.id = id,
                               .epoch = 3,
                               .state = MU_ST_TIMED_OUT,
                               .outcome = MU_OUT_TIMED_OUT,
                               .reason = MU_END_TIMEOUT,
                               .error_code = "timeout",
                               .error_message = MU_B("late")};
    assert_int_equal(do_end(w, &e), 0);
    put_chunk(w, &id, 3, 0, MU_B("late"), true);
    assert_int_equal(get(w, &w->alice, &id), 0);
    assert_string_equal(seen.output, "mine");
}

static void output_beyond_the_limit_loses_its_middle(struct world *w)
{
    enum { PIECE = 1 << 20, N = 12 };
    struct mu_id id = running(w, &w->alice);
    char *piece = malloc(PIECE);
    assert_non_null(piece);
    for (int i = 0; i < N; i++) {
        memset(piece, 'a' + i, PIECE);
        put_chunk(w, &id, 1, (int64_t)i * PIECE, mu_bytes_of(piece, PIECE), false);
    }
    free(piece);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM output_chunks"), 8);
    assert_int_equal(num(w, "SELECT MIN(pos) FROM output_chunks WHERE pos > 0"), 5 * PIECE);
}

/* --- the end --- */

static void an_end_stores_everything_once(struct world *w)
{
    struct mu_id id = running(w, &w->alice);
    put_chunk(w, &id, 1, 0, MU_B("one"), false);
    struct mu_artifact_row art = {
        .id = mu_id_new(&w->env, NULL), .kind = MU_ARTIFACT_PR, .data = MU_B("{\"url\":\"u\"}")};
    snprintf(art.dedupe.text, sizeof art.dedupe.text, "%064d", 1);
    advance(w, 1234);
    struct mu_session_end op = {.id = id,
                                .epoch = 1,
                                .state = MU_ST_COMPLETED,
                                .outcome = MU_OUT_FINISHED,
                                .reason = MU_END_FINISHED,
                                .has_exit_code = true,
                                .exit_code = 0,
                                .tokens_in = 11,
                                .tokens_out = INT64_C(5000000000),
                                .output = MU_B("whole output"),
                                .output_bytes = 99,
                                .output_truncated = true,
                                .provider = MU_B("{\"p\":1}"),
                                .artifacts = MU_B("[1]"),
                                .artifact_rows = &art,
                                .n_artifacts = 1};
    snprintf(op.org_id, sizeof op.org_id, "%s", w->alice.org_id);
    assert_int_equal(do_end(w, &op), 0);
    assert_int_equal(op.got_state, MU_ST_COMPLETED);
    assert_int_equal(op.got_outcome, MU_OUT_FINISHED);
    assert_int_equal(get(w, &w->alice, &id), 0);
    assert_int_equal(seen.state, MU_ST_COMPLETED);
    assert_int_equal(seen.outcome, MU_OUT_FINISHED);
    assert_int_equal(seen.end_reason, MU_END_FINISHED);
    assert_true(seen.has_exit_code && seen.truncated);
    assert_int_equal(seen.tokens_in, 11);
    assert_int_equal(seen.tokens_out, INT64_C(5000000000));
    assert_int_equal(seen.output_bytes, 99);
    assert_string_equal(seen.output, "whole output");
    assert_string_equal(seen.message, "whole output");
    assert_string_equal(seen.provider, "{\"p\":1}");
    struct row r = row_of(w, &id);
    assert_int_equal(r.ended, now(w));
    assert_int_equal(r.purge, now(w) + 86400000);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM output_chunks"), 0);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM artifacts WHERE session_id = '%s'", id.text), 1);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM attempts WHERE ended_ms IS NULL"), 0);
    assert_string_equal(txt(w,
                            "SELECT data FROM events WHERE stream_id = '%s' AND seq > 2 ORDER BY "
                            "seq",
                            id.text),
                        "{\"url\":\"u\"};{\"from\":60,\"to\":90,\"outcome\":1,\"reason\":"
                        "\"finished\",\"by\":\"system\"};{\"from\":60,\"to\":90,\"outcome\":1,"
                        "\"reason\":\"finished\",\"by\":\"system\",\"exit_code\":0};");
    assert_int_equal(live(&w->alice), 0);

    op.n_artifacts = 0;
    assert_int_equal(do_end(w, &op), MU_E_STALE);
    assert_int_equal(live(&w->alice), 0);
    assert_int_equal(metric(w, "muster_sessions_ended_total{outcome=\"finished\"}"), 1);
}

static void an_end_of_another_epoch_is_stale(struct world *w)
{
    struct mu_id id = running(w, &w->alice);
    assert_int_equal(end_with(w, &id, 0, 90, 1, "x"), MU_E_STALE);
    assert_int_equal(end_with(w, &id, 2, 92, 3, "x"), MU_E_STALE);
    assert_int_equal(row_of(w, &id).state, MU_ST_RUNNING);
    assert_int_equal(live(&w->alice), 1);
    struct mu_id unknown = mu_id_new(&w->env, NULL);
    assert_int_equal(end_with(w, &unknown, 1, 90, 1, "x"), MU_E_NOT_FOUND);
}

static void a_failed_end_tells_why(struct world *w)
{
    struct mu_id id = running(w, &w->alice);
    struct mu_session_end op = {.id = id,
                                .epoch = 1,
                                .state = MU_ST_FAILED,
                                .outcome = MU_OUT_FAILED,
                                .reason = MU_END_PROVIDER_ERROR,
                                .error_code = "provider_error",
                                .error_message = MU_B("it \"broke\""),
                                .output = MU_B("partial")};
    assert_int_equal(do_end(w, &op), 0);
    assert_int_equal(get(w, &w->alice, &id), 0);
    assert_string_equal(seen.code, "provider_error");
    assert_string_equal(seen.error, "it \"broke\"");
    assert_string_equal(seen.message, "it \"broke\"");
    assert_string_equal(seen.output, "partial");
    assert_false(seen.has_exit_code);
    assert_string_equal(
        txt(w, "SELECT data FROM events WHERE stream_id = '%s' AND seq = 4", id.text),
        "{\"from\":60,\"to\":92,\"outcome\":3,\"reason\":\"provider_error\",\"by\":\"system\","
        "\"error\":{\"code\":\"provider_error\",\"message\":\"it "
        "\\\"broke\\\"\"}};");
}

/* What an agent prints may be any bytes; the end must go through all the same. */
static void any_bytes_may_be_output(struct world *w)
{
    static char bytes[3][9000];
    memset(bytes[0], 0xff, sizeof bytes[0]);
    memset(bytes[1], 0, sizeof bytes[1]);
    for (size_t i = 0; i < sizeof bytes[2]; i++) {
        bytes[2][i] = (char)(i % 256);
    }
    for (int i = 0; i < 3; i++) {
        for (int failing = 0; failing < 2; failing++) {
            struct mu_id id = running(w, &w->alice);
            mu_bytes b = mu_bytes_of(bytes[i], sizeof bytes[i]);
            struct mu_session_end op = {.id = id,
                                        .epoch = 1,
                                        .state = failing ? MU_ST_FAILED : MU_ST_COMPLETED,
                                        .outcome = failing ? MU_OUT_FAILED : MU_OUT_FINISHED,
                                        .error_code = failing ? "provider_error" : NULL,
                                        .error_message = failing ? b : MU_B_NONE,
                                        .output = b,
                                        .output_bytes = (int64_t)b.len};
            assert_int_equal(do_end(w, &op), 0);
            assert_int_equal(get(w, &w->alice, &id), 0);
            assert_int_equal(seen.output_bytes, sizeof bytes[i]);
            assert_true(mu_utf8_valid(mu_str(seen.message)));
            assert_true(strlen(seen.message) <= 4096 && strlen(seen.message) > 0);
        }
    }
}

/* --- cancel --- */

static void cancelling_ends_or_begins_to_end(struct world *w)
{
    bool changed;
    struct mu_id q = queued(w, &w->alice), r = running(w, &w->alice);
    assert_int_equal(cancel(w, &w->alice, &q, &changed), 0);
    assert_true(changed);
    struct row row = row_of(w, &q);
    assert_int_equal(row.state, 90);
    assert_int_equal(row.outcome, MU_OUT_CANCELLED);
    assert_int_equal(row.end_reason, MU_END_STOPPED);
    assert_int_equal(row.purge, start_ms + 86400000);
    assert_int_equal(get(w, &w->alice, &q), 0);
    assert_string_equal(seen.code, "cancelled");
    assert_int_equal(cancel(w, &w->alice, &q, &changed), 0);
    assert_false(changed);
    assert_int_equal(events_of(w, &q), 3);

    assert_int_equal(cancel(w, &w->alice, &r, &changed), 0);
    assert_true(changed);
    row = row_of(w, &r);
    assert_int_equal(row.state, 80);
    assert_int_equal(row.outcome, MU_OUT_LIVE);
    assert_int_equal(row.stop, start_ms);
    assert_int_equal(row.deadline, start_ms + 30000);
    assert_int_equal(row.ended, 0);
    assert_int_equal(cancel(w, &w->alice, &r, &changed), 0);
    assert_false(changed);
    assert_int_equal(live(&w->alice), 0); /* its place is free from now on */
    struct mu_session_put_back back = a_put_back(w, &r, 1);
    assert_int_equal(do_put_back(w, &back), MU_E_STALE);

    struct mu_session_create worker = new_run(&w->alice);
    worker.route = MU_ROUTE_WORKER;
    assert_int_equal(do_create(w, &worker), 0);
    assert_int_equal(cancel(w, &w->alice, &worker.id, &changed), 0);
    assert_true(changed);
    assert_int_equal(row_of(w, &worker.id).state, 90);
}

static void a_stop_that_was_accepted_wins(struct world *w)
{
    static const int ends[][2] = {{90, 1}, {92, 3}, {94, 4}};
    for (size_t i = 0; i < MU_ARRAY_LEN(ends); i++) {
        struct mu_id id = running(w, &w->alice);
        assert_int_equal(cancel(w, &w->alice, &id, NULL), 0);
        assert_int_equal(end_with(w, &id, 1, ends[i][0], ends[i][1], "all done"), 0);
        assert_int_equal(get(w, &w->alice, &id), 0);
        assert_int_equal(seen.state, 90);
        assert_int_equal(seen.outcome, MU_OUT_CANCELLED);
        assert_int_equal(seen.end_reason, MU_END_STOPPED);
        assert_string_equal(seen.code, "cancelled");
        assert_string_equal(seen.output, "all done"); /* what was there is kept */
        assert_int_equal(live(&w->alice), 0);
    }
}

/* --- G2: the states --- */

enum { AT_WORKER = 100 }; /* 60 at a worker, which is another thing than 60 at a provider */
static const int states[] = {20, 22, 30, 40, 50, 60, AT_WORKER + 60, 64, 66, 70, 72,
                             74, 76, 80, 90, 92, 94};

/* Who runs it holds it; what is hibernated or parked is held by nobody. */
static bool is_held(int64_t state)
{
    return state >= 30 && state <= 80 && !mu_state_sleeps((int)state);
}

static struct mu_id planted(struct world *w, int state)
{
    struct mu_session_create c = new_run(&w->alice);
    bool worker = state >= 22 && state < 80 && state != 60, runs = worker && state > 60;
    if (state > AT_WORKER) {
        worker = true;
        state -= AT_WORKER;
    }
    c.route = worker ? MU_ROUTE_WORKER : MU_ROUTE_PROVIDER;
    assert_int_equal(do_create(w, &c), 0);
    if (worker && state != 22) {
        assert_int_equal(offer(w, &c.id, 0, NULL), 0);
        assert_int_equal(state == 30 ? 0 : step(w, &c.id, 1, 30, runs ? 60 : state), 0);
    } else if (state != 20 && state != 22) {
        assert_int_equal(claim(w, &c.id, 0, NULL), 0);
    } else {
        put_sql(w, "UPDATE sessions SET epoch = 1 WHERE id = '%s'", c.id.text);
    }
    if (state == 80) {
        assert_int_equal(cancel(w, &w->alice, &c.id, NULL), 0);
    } else if (state >= 90) {
        static const int outcome_of[] = {MU_OUT_FINISHED, MU_OUT_FAILED, MU_OUT_TIMED_OUT};
        assert_int_equal(end_with(w, &c.id, 1, state, outcome_of[(state - 90) / 2], "out"), 0);
    }
    if (runs) { /* how it gets there is in test_pause.c and test_gates.c */
        put_sql(w, "UPDATE sessions SET state = %d WHERE id = '%s'", state, c.id.text);
    }
    if (runs && !is_held(state)) {
        put_sql(w,
                "UPDATE sessions SET worker_id = NULL WHERE id = '%s'; UPDATE attempts SET state = "
                "90, ended_ms = 1 WHERE session_id = '%s'",
                c.id.text, c.id.text);
    }
    struct row r = row_of(w, &c.id);
    assert_int_equal(r.state, state);
    assert_int_equal(r.epoch, 1);
    put_sql(w, "UPDATE sessions SET deadline_ms = 5 WHERE id = '%s'", c.id.text);
    return c.id;
}

enum {
    MOVE_CLAIM,
    MOVE_SWITCH,
    MOVE_PUT_BACK,
    MOVE_SATURATE,
    MOVE_CHUNK,
    MOVE_END_90,
    MOVE_END_92,
    MOVE_END_94,
    MOVE_CANCEL,
    MOVE_CANCEL_ADMIN,
    MOVE_RECOVER_60,
    MOVE_RECOVER_60_LAST,
    MOVE_RECOVER_80,
    MOVE_OFFER,
    MOVE_STEP_40,
    MOVE_STEP_50,
    MOVE_STEP_60,
    MOVE_REQUEUE,
    MOVE_REQUEUE_RAN,
    MOVE_PAUSE,
    MOVE_RESUME,
    MOVE_ASK,
    MOVE_REPORT,
    MOVES
};

static int make_live_move(struct world *w, const struct mu_id *id, int move)
{
    struct mu_session_requeue again = {.id = *id,
                                       .epoch = 1,
                                       .deadline_ms = now(w) + 60000,
                                       .from = 60,
                                       .ran = true,
                                       .outcome = MU_ATT_LOST,
                                       .reason = "It was lost"};
    switch (move) {
    case MOVE_REQUEUE_RAN:
        return do_requeue(w, &again);
    case MOVE_PAUSE:
        return pause_it(w, &w->alice, id);
    case MOVE_RESUME:
        return resume(w, &w->alice, id);
    case MOVE_ASK:
        return ask(w, id, 1, "key", NULL);
    default:
        return report_running(w, id, 1);
    }
}

static int make_move(struct world *w, const struct mu_id *id, int move)
{
    struct mu_session_switch sw = a_switch(id, 1);
    struct mu_session_put_back back = a_put_back(w, id, 1);
    struct mu_session_saturate sat = {
        .id = *id, .epoch = 1, .now_ms = now(w), .deadline_ms = 5, .message = "full"};
    struct mu_session_chunk chunk = {.id = *id, .epoch = 1, .bytes = MU_B("late"), .discard = true};
    struct mu_session_recover rec = {.id = *id, .epoch = 1, .tries = 0, .max_tries = 3};
    snprintf(rec.org_id, sizeof rec.org_id, "%s", w->alice.org_id);
    switch (move) {
    case MOVE_CLAIM:
        return claim(w, id, 1, NULL);
    case MOVE_SWITCH:
        return do_switch(w, &sw);
    case MOVE_PUT_BACK:
        return do_put_back(w, &back);
    case MOVE_SATURATE:
        return do_saturate(w, &sat);
    case MOVE_CHUNK:
        return do_chunk(w, &chunk);
    case MOVE_END_90:
        return end_with(w, id, 1, 90, MU_OUT_FINISHED, "other");
    case MOVE_END_92:
        return end_with(w, id, 1, 92, MU_OUT_FAILED, "other");
    case MOVE_END_94:
        return end_with(w, id, 1, 94, MU_OUT_TIMED_OUT, "other");
    case MOVE_CANCEL:
        return cancel(w, &w->alice, id, NULL);
    case MOVE_CANCEL_ADMIN:
        return cancel(w, &w->admin, id, NULL);
    case MOVE_OFFER:
        return offer(w, id, 1, NULL);
    case MOVE_STEP_40:
    case MOVE_STEP_50:
    case MOVE_STEP_60:
        return step(w, id, 1, 30, 40 + 10 * (move - MOVE_STEP_40));
    case MOVE_REQUEUE:
        return requeue(w, id, 1, false, NULL);
    case MOVE_RECOVER_60:
    case MOVE_RECOVER_60_LAST:
        rec.state = 60;
        rec.tries = move == MOVE_RECOVER_60 ? 0 : 2;
        return do_recover(w, &rec);
    case MOVE_RECOVER_80:
        rec.state = 80;
        return do_recover(w, &rec);
    default:
        return make_live_move(w, id, move);
    }
}

static void what_a_start_takes_up_is_of_the_epoch_that_it_read(struct world *w)
{
    struct mu_id id = running(w, &w->alice);
    struct mu_session_recover rec = {.id = id, .epoch = 0, .state = 60, .max_tries = 3};
    assert_int_equal(do_recover(w, &rec), MU_E_STALE);
    assert_int_equal(row_of(w, &id).state, 60);
    rec = (struct mu_session_recover){.id = id, .epoch = 1, .state = 60, .max_tries = 3};
    assert_true(do_recover(w, &rec) >= 0);
    assert_int_equal(row_of(w, &id).state, 20);
    assert_int_equal(row_of(w, &id).epoch, 2);
}

static void every_move_is_in_the_table_and_no_end_changes(struct world *w)
{
    bool reached[100][100] = {{false}};
    for (size_t s = 0; s < MU_ARRAY_LEN(states); s++) {
        for (int move = 0; move < MOVES; move++) {
            struct mu_id id = planted(w, states[s]);
            struct row before = row_of(w, &id);
            int64_t events = events_of(w, &id);
            int r = make_move(w, &id, move);
            struct row after = row_of(w, &id);
            if (before.state != after.state) {
                assert_true(r >= 0);
                if (!mu_state_may_move((int)before.state, (int)after.state)) {
                    fail_msg("move %d: %d -> %d", move, (int)before.state, (int)after.state);
                }
                reached[before.state][after.state] = true;
                assert_true(events_of(w, &id) > events);
            }
            if (before.state >= 90) {
                assert_memory_equal(&before, &after, sizeof before);
                assert_int_equal(events_of(w, &id), events);
                assert_int_equal(get(w, &w->alice, &id), 0);
                assert_string_equal(seen.output, "out");
            }
            assert_int_equal(
                num(w, "SELECT COUNT(*) FROM attempts WHERE session_id = '%s' AND ended_ms IS NULL",
                    id.text),
                is_held(after.state));
            put_sql(w, "UPDATE sessions SET deadline_ms = 6 WHERE id = '%s'", id.text);
        }
    }
    /* The sweeper's part (20, 22, 60 -> 94, 80 -> 90) is in test_sweep.c, a gate's end in
     * test_gates.c, what sleeps in test_hibernate.c. */
    for (int from = 0; from < 100; from++) {
        for (int to = 0; to < 100; to++) {
            bool elsewhere = (from == 22 && to == 94) || (from == 64 && to == 60) || to == 66 ||
                             to == 72 || to == 74 || to == 76 || (from == 72 && to == 60) ||
                             (mu_state_sleeps(from) && to < 30) || (from == 70 && to == 64);
            if (mu_state_may_move(from, to) && !elsewhere && !reached[from][to]) {
                fail_msg("nothing moves %d -> %d", from, to);
            }
        }
    }
    assert_int_equal(holes(w), 0);
}

IN_WORLD(a_claim_starts_an_attempt)
IN_WORLD(a_session_has_one_live_attempt)
IN_WORLD(a_switch_names_the_next_candidate)
IN_WORLD(a_stopping_session_gets_no_other_candidate)
IN_WORLD(a_session_that_is_put_back_keeps_its_place)
IN_WORLD(what_a_start_takes_up_is_of_the_epoch_that_it_read)
IN_WORLD(a_saturated_session_remembers_since_when)
IN_WORLD(output_so_far_is_shown_and_fenced)
IN_WORLD(an_old_attempt_cannot_discard_the_new_ones_output)
IN_WORLD(output_beyond_the_limit_loses_its_middle)
IN_WORLD(an_end_stores_everything_once)
IN_WORLD(an_end_of_another_epoch_is_stale)
IN_WORLD(a_failed_end_tells_why)
IN_WORLD(any_bytes_may_be_output)
IN_WORLD(cancelling_ends_or_begins_to_end)
IN_WORLD(a_stop_that_was_accepted_wins)
IN_WORLD(every_move_is_in_the_table_and_no_end_changes)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_ALL(a_claim_starts_an_attempt),
        ON_ALL(a_session_has_one_live_attempt),
        ON_ALL(a_switch_names_the_next_candidate),
        ON_ALL(a_stopping_session_gets_no_other_candidate),
        ON_ALL(a_session_that_is_put_back_keeps_its_place),
        ON_BOTH(what_a_start_takes_up_is_of_the_epoch_that_it_read),
        ON_ALL(a_saturated_session_remembers_since_when),
        ON_ALL(output_so_far_is_shown_and_fenced),
        ON_ALL(an_old_attempt_cannot_discard_the_new_ones_output),
        ON_BOTH(output_beyond_the_limit_loses_its_middle),
        ON_ALL(an_end_stores_everything_once),
        ON_ALL(an_end_of_another_epoch_is_stale),
        ON_ALL(a_failed_end_tells_why),
        ON_ALL(any_bytes_may_be_output),
        ON_ALL(cancelling_ends_or_begins_to_end),
        ON_ALL(a_stop_that_was_accepted_wins),
        ON_ALL(every_move_is_in_the_table_and_no_end_changes),
    };
    return cmocka_run_group_tests(tests, pg_begin, pg_end);
}
