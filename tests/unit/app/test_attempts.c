/* The moves of an attempt at a worker, on both engines, each unit once and twice. */
#include "session_moves.h"

static struct mu_id pending(struct world *w)
{
    struct mu_session_create c = new_run(&w->alice);
    c.route = MU_ROUTE_WORKER;
    assert_int_equal(do_create(w, &c), 0);
    return c.id;
}

static void an_offer_makes_one_attempt(struct world *w)
{
    struct mu_id id = pending(w);
    int64_t epoch = 0;
    assert_int_equal(offer(w, &id, 0, &epoch), 0);
    assert_int_equal(epoch, 1);
    struct row r = row_of(w, &id);
    assert_int_equal(r.state, 30);
    assert_int_equal(r.epoch, 1);
    assert_int_equal(r.started, start_ms);
    assert_string_equal(txt(w, "SELECT worker_id FROM sessions WHERE id = '%s'", id.text), "w1;");
    assert_string_equal(
        txt(w, "SELECT worker_id || ' ' || CAST(conn AS TEXT) || ' ' || token_hash FROM attempts"),
        "w1 7 3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0;");
    assert_int_equal(offer(w, &id, 0, NULL), MU_E_STALE);
    assert_int_equal(offer(w, &id, 1, NULL), MU_E_STALE); /* it is not queued any more */
    assert_int_equal(num(w, "SELECT COUNT(*) FROM attempts"), 1);
    assert_int_equal(events_of(w, &id), 2);
}

static void an_acknowledged_attempt_moves_forward_only(struct world *w)
{
    struct mu_id id = pending(w);
    assert_int_equal(offer(w, &id, 0, NULL), 0);
    advance(w, 10);
    assert_int_equal(step(w, &id, 1, 30, 50), 0);
    assert_int_equal(num(w, "SELECT acked_ms FROM attempts"), now(w));
    advance(w, 10);
    assert_int_equal(step(w, &id, 1, 50, 40), MU_E_STALE);
    assert_int_equal(step(w, &id, 1, 50, 50), MU_E_STALE);
    assert_int_equal(step(w, &id, 2, 50, 60), MU_E_STALE);
    assert_int_equal(step(w, &id, 1, 50, 60), 0);
    assert_int_equal(num(w, "SELECT acked_ms FROM attempts"), now(w) - 10);
    assert_int_equal(num(w, "SELECT state FROM attempts"), 30);
    assert_int_equal(row_of(w, &id).state, 60);
    assert_int_equal(num(w, "SELECT running_ms FROM sessions"), now(w));
}

static void a_session_that_comes_back_keeps_its_place(struct world *w)
{
    struct mu_id id = pending(w);
    int64_t epoch = 0;
    assert_int_equal(offer(w, &id, 0, NULL), 0);
    advance(w, 5000);
    assert_int_equal(requeue(w, &id, 1, false, &epoch), 0);
    assert_int_equal(epoch, 2);
    struct row r = row_of(w, &id);
    assert_int_equal(r.state, 22);
    assert_int_equal(r.tries, 0);
    assert_false(r.has_worker);
    assert_int_equal(num(w, "SELECT queued_ms FROM sessions"), start_ms);
    assert_int_equal(num(w,
                         "SELECT outcome FROM attempts WHERE ended_ms = %lld AND reason = 'It "
                         "was refused'",
                         (long long)now(w)),
                     MU_ATT_REJECTED);
    assert_int_equal(requeue(w, &id, 1, false, NULL), MU_E_STALE);
    assert_int_equal(step(w, &id, 1, 30, 60), MU_E_STALE); /* a report of the attempt before */
    assert_int_equal(offer(w, &id, 0, NULL), MU_E_STALE);  /* it was decided before that */
    assert_int_equal(offer(w, &id, 1, NULL), MU_E_STALE);
    assert_int_equal(offer(w, &id, 2, &epoch), 0);
    assert_int_equal(epoch, 3);
    assert_int_equal(requeue(w, &id, 1, false, NULL), MU_E_STALE);
    assert_int_equal(step(w, &id, 3, 30, 40), 0);
    put_chunk(w, &id, 3, 0, MU_B("partial"), false);
    assert_int_equal(requeue(w, &id, 3, true, NULL), 0);
    assert_int_equal(row_of(w, &id).tries, 1);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM output_chunks"), 0);
}

static void a_stop_is_not_undone_by_putting_back(struct world *w)
{
    struct mu_id id = pending(w);
    assert_int_equal(offer(w, &id, 0, NULL), 0);
    assert_int_equal(cancel(w, &w->alice, &id, NULL), 0);
    assert_int_equal(row_of(w, &id).state, 80);
    assert_int_equal(requeue(w, &id, 1, false, NULL), MU_E_STALE);
    assert_int_equal(step(w, &id, 1, 30, 60), MU_E_STALE);
    assert_int_equal(end_with(w, &id, 1, 90, MU_OUT_FINISHED, "late"), 0);
    assert_int_equal(row_of(w, &id).outcome, MU_OUT_CANCELLED);
    assert_int_equal(live(&w->alice), 0);
}

static void a_cancel_that_nobody_asked_for_gives_the_place_back(struct world *w)
{
    struct mu_id id = pending(w);
    assert_int_equal(offer(w, &id, 0, NULL), 0);
    assert_int_equal(live(&w->alice), 1);
    assert_int_equal(end_with(w, &id, 1, 90, MU_OUT_CANCELLED, ""), 0);
    assert_int_equal(live(&w->alice), 0);
}

OPERATION(mu_session_attach, do_attach, mu_session_attach, w->sessions, unit)

static int attach(struct world *w, const struct mu_id *id, int64_t epoch, const char *name,
                  int64_t bytes, bool *ret_replaced)
{
    struct mu_session_attach op = {.session = *id,
                                   .file = mu_id_random(&w->env),
                                   .epoch = epoch,
                                   .name = mu_str(name),
                                   .media_type = MU_B("text/plain"),
                                   .bytes = bytes,
                                   .sha256 = mu_sha256_hex(MU_B("content"))};
    int r = do_attach(w, &op);
    if (ret_replaced) {
        *ret_replaced = op.replaced.text[0] != 0;
    }
    return r;
}

static void files_come_from_the_live_attempt_only(struct world *w)
{
    struct mu_id id = pending(w), other = pending(w);
    bool replaced = true;
    assert_int_equal(offer(w, &id, 0, NULL), 0);
    assert_int_equal(attach(w, &id, 1, "a", 10, &replaced), 0);
    assert_false(replaced);
    assert_int_equal(attach(w, &id, 1, "a", 20, &replaced), 0);
    assert_true(replaced);
    assert_int_equal(attach(w, &id, 0, "b", 1, NULL), MU_E_STALE);
    assert_int_equal(attach(w, &id, 2, "b", 1, NULL), MU_E_STALE);
    assert_int_equal(requeue(w, &id, 1, false, NULL), 0);
    assert_int_equal(attach(w, &id, 1, "b", 1, NULL), MU_E_STALE);
    assert_int_equal(offer(w, &id, 2, NULL), 0);
    assert_int_equal(attach(w, &id, 3, "b", 1, NULL), 0);
    assert_int_equal(end_with(w, &id, 3, 90, MU_OUT_FINISHED, "done"), 0);
    assert_int_equal(attach(w, &id, 3, "c", 1, NULL), MU_E_STALE);
    assert_int_equal(attach(w, &other, 0, "a", 1, NULL), 0); /* names are a session's own */
    assert_string_equal(txt(w,
                            "SELECT name || ' ' || CAST(bytes AS TEXT) FROM files WHERE session_id "
                            "= '%s' ORDER BY name",
                            id.text),
                        "a 20;b 1;");
}

static void the_files_of_a_session_have_a_number_and_a_size(struct world *w)
{
    struct mu_id id = pending(w), large = pending(w);
    char name[16];
    assert_int_equal(offer(w, &id, 0, NULL), 0);
    assert_int_equal(offer(w, &large, 0, NULL), 0);
    for (int i = 0; i < MU_RUN_FILES; i++) {
        snprintf(name, sizeof name, "f%d", i);
        assert_int_equal(attach(w, &id, 1, name, 1, NULL), 0);
    }
    assert_int_equal(attach(w, &id, 1, "one-more", 1, NULL), MU_E_LIMIT);
    assert_int_equal(attach(w, &id, 1, "f7", 1, NULL), 0);
    assert_int_equal(attach(w, &large, 1, "a", MU_RUN_FILE_BYTES - 1, NULL), 0);
    assert_int_equal(attach(w, &large, 1, "b", 2, NULL), MU_E_LIMIT);
    assert_int_equal(attach(w, &large, 1, "b", 1, NULL), 0);
    assert_int_equal(attach(w, &large, 1, "a", MU_RUN_FILE_BYTES, NULL), MU_E_LIMIT);
    assert_int_equal(attach(w, &large, 1, "a", MU_RUN_FILE_BYTES - 1, NULL), 0);
}

static struct mu_attempt_row last;
static char last_session[40], last_worker[40];
static int count;

static int on_attempt(void *arg, const struct mu_attempt_row *row)
{
    last = *row;
    snprintf(last_session, sizeof last_session, "%.*s", MU_ARGS(row->session_id));
    snprintf(last_worker, sizeof last_worker, "%.*s", MU_ARGS(row->worker_id));
    count++;
    return 0;
}

static void the_next_start_finds_what_workers_hold(struct world *w)
{
    struct mu_id id = pending(w), other = pending(w), run = running(w, &w->alice);
    struct mu_db *db = NULL;
    struct mu_err err;
    assert_int_equal(offer(w, &id, 0, NULL), 0);
    assert_int_equal(step(w, &id, 1, 30, 60), 0);
    put_chunk(w, &id, 1, 0, MU_B("partial"), false);
    assert_int_equal(offer(w, &other, 0, NULL), 0);
    assert_int_equal(requeue(w, &other, 1, false, NULL), 0);
    count = 0;
    assert_int_equal(mu_db_open(&(struct mu_db_opts){.url = w->url}, &db, &err), 0);
    assert_int_equal(mu_sessions_each_attempt(db, on_attempt, NULL), 0);
    mu_db_close(db);
    assert_int_equal(count, 1);
    assert_string_equal(last_session, id.text);
    assert_string_equal(last_worker, "w1");
    assert_int_equal(last.state, 60);
    assert_int_equal(last.epoch, 1);
    assert_int_equal(last.output_bytes, 7);
    assert_true(run.text[0]);
}

/* --- memory that runs out --- */

static int all_moves(void *arg)
{
    struct world *w = arg;
    struct mu_session_create c = new_run(&w->alice);
    c.route = MU_ROUTE_WORKER;
    if (do_create(w, &c) < 0) {
        return 0;
    }
    int64_t epoch = 0;
    (void)offer(w, &c.id, 0, &epoch);
    (void)step(w, &c.id, epoch, 30, 40);
    (void)requeue(w, &c.id, epoch, true, &epoch);
    return 0;
}

static void moves_survive_any_failing_allocation(struct world *w)
{
    each_allocation_fails(all_moves, w);
    assert_int_equal(holes(w), 0);
}

IN_WORLD(an_offer_makes_one_attempt)
IN_WORLD(an_acknowledged_attempt_moves_forward_only)
IN_WORLD(a_session_that_comes_back_keeps_its_place)
IN_WORLD(a_stop_is_not_undone_by_putting_back)
IN_WORLD(a_cancel_that_nobody_asked_for_gives_the_place_back)
IN_WORLD(files_come_from_the_live_attempt_only)
IN_WORLD(the_files_of_a_session_have_a_number_and_a_size)
IN_WORLD(the_next_start_finds_what_workers_hold)
IN_WORLD(moves_survive_any_failing_allocation)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_ALL(an_offer_makes_one_attempt),
        ON_ALL(an_acknowledged_attempt_moves_forward_only),
        ON_ALL(a_session_that_comes_back_keeps_its_place),
        ON_ALL(a_stop_is_not_undone_by_putting_back),
        ON_ALL(a_cancel_that_nobody_asked_for_gives_the_place_back),
        ON_ALL(files_come_from_the_live_attempt_only),
        ON_BOTH(the_files_of_a_session_have_a_number_and_a_size),
        ON_BOTH(the_next_start_finds_what_workers_hold),
        ON(moves_survive_any_failing_allocation, 0),
    };
    return cmocka_run_group_tests(tests, pg_begin, pg_end);
}
