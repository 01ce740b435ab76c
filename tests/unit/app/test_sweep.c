/* What time does to sessions: deadlines, retention, the count of orphans. */
#include "session_moves.h"

static struct told {
    unsigned expired, files;
    char ids[16][MU_ID_LEN + 1], gone[16][MU_ID_LEN + 1];
    bool stopped;
    struct mu_loop *loop;
    struct mu_work *work;
} told;

static void on_expired(void *arg, mu_bytes id)
{
    keep(told.ids[told.expired++ % 16], sizeof told.ids[0], id);
}
static void on_file_gone(void *arg, mu_bytes id)
{
    keep(told.gone[told.files++ % 16], sizeof told.gone[0], id);
}
static void on_stopped(void *arg)
{
    told.stopped = true;
    mu_loop_stop(told.loop);
}

static struct mu_sweeper *start_sweeper(struct world *w)
{
    struct mu_sweeper *sw = NULL;
    told = (struct told){.loop = w->loop};
    assert_int_equal(mu_work_new(1, 4, &told.work), 0);
    const struct mu_sweeper_opts o = {.sessions = w->sessions,
                                      .core = w->loop,
                                      .retention_interval_ms = 3600000,
                                      .work = told.work,
                                      .expired = on_expired,
                                      .file_gone = on_file_gone};
    assert_int_equal(mu_sweeper_new(&o, &sw), 0);
    return sw;
}

static void stop_sweeper(struct mu_sweeper *sw)
{
    mu_sweeper_stop(sw, on_stopped, NULL);
    while (!told.stopped) {
        mu_loop_run(told.loop);
    }
    mu_sweeper_free(sw);
    told.work = mu_work_free(told.work);
}

static void set_deadline(struct world *w, const struct mu_id *id, int64_t ms)
{
    put_sql(w, "UPDATE sessions SET deadline_ms = %lld WHERE id = '%s'", (long long)ms, id->text);
}

static void deadlines_end_sessions(struct world *w)
{
    struct mu_session_create worker = new_run(&w->alice);
    worker.route = MU_ROUTE_WORKER;
    assert_int_equal(do_create(w, &worker), 0);
    struct mu_id q = queued(w, &w->alice), r = running(w, &w->alice), s = running(w, &w->alice),
                 later = queued(w, &w->alice), ended = queued(w, &w->alice);
    put_chunk(w, &r, 1, 0, MU_B("so far"), false);
    assert_int_equal(cancel(w, &w->alice, &s, NULL), 0);
    assert_int_equal(cancel(w, &w->alice, &ended, NULL), 0);
    const struct mu_id *due[] = {&worker.id, &q, &r, &s};
    for (size_t i = 0; i < 4; i++) {
        set_deadline(w, due[i], now(w));
    }
    set_deadline(w, &ended, 1);
    set_deadline(w, &later, now(w) + 1);
    struct row before = row_of(w, &ended);
    struct mu_sweeper *sw = start_sweeper(w);
    for (int i = 0; i < 300 && told.expired < 4; i++) {
        run_for(w, 50);
    }
    assert_int_equal(told.expired, 4);
    static const int want[4][3] = {{94, 4, MU_END_QUEUE_TIMEOUT},
                                   {94, 4, MU_END_QUEUE_TIMEOUT},
                                   {94, 4, MU_END_TIMEOUT},
                                   {90, 2, MU_END_STOPPED}};
    for (size_t i = 0; i < 4; i++) {
        struct row row = row_of(w, due[i]);
        assert_int_equal(row.state, want[i][0]);
        assert_int_equal(row.outcome, want[i][1]);
        assert_int_equal(row.end_reason, want[i][2]);
        assert_int_equal(row.ended, now(w));
        assert_int_equal(row.purge, now(w) + 86400000);
        assert_int_equal(get(w, &w->alice, due[i]), 0);
        assert_string_equal(seen.code, i == 3 ? "cancelled" : "timeout");
    }
    assert_int_equal(get(w, &w->alice, &r), 0);
    assert_string_equal(seen.output, "so far");
    assert_int_equal(row_of(w, &later).state, 20);
    struct row after = row_of(w, &ended);
    assert_memory_equal(&before, &after, sizeof before);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM attempts WHERE ended_ms IS NULL"), 0);
    assert_int_equal(live(&w->alice), 1);
    assert_int_equal(metric(w, "muster_sessions_ended_total{outcome=\"timed_out\"}"), 3);
    /* The executor that comes too late is told so. */
    assert_int_equal(end_with(w, &r, 1, 90, 1, "late"), MU_E_STALE);
    stop_sweeper(sw);
}

static struct mu_id ended_with_file(struct world *w, struct mu_id *ret_file)
{
    struct mu_new_file file = {.id = mu_id_new(&w->env, NULL),
                               .name = MU_B("a"),
                               .media_type = MU_B("image/png"),
                               .bytes = 1};
    struct mu_session_create c = new_run(&w->alice);
    c.files = &file;
    c.n_files = 1;
    assert_int_equal(do_create(w, &c), 0);
    assert_int_equal(cancel(w, &w->alice, &c.id, NULL), 0);
    *ret_file = file.id;
    return c.id;
}

static void retention_removes_what_is_due_and_only_that(struct world *w)
{
    struct mu_id file[3];
    struct mu_id due = ended_with_file(w, &file[0]), kept = ended_with_file(w, &file[1]),
                 later = ended_with_file(w, &file[2]), living = running(w, &w->alice);
    struct mu_session_create key = new_run(&w->alice);
    key.idem_key = MU_B("old");
    assert_int_equal(do_create(w, &key), 0);
    put_sql(w, "UPDATE sessions SET purge_ms = %lld WHERE id = '%s'", (long long)now(w) + 11000,
            due.text);
    put_sql(w, "UPDATE sessions SET purge_ms = NULL WHERE id = '%s'", kept.text);
    put_sql(w, "UPDATE sessions SET purge_ms = %lld WHERE id = '%s'", (long long)now(w) + 11001,
            later.text);
    put_sql(w, "UPDATE idempotency_keys SET expires_ms = %lld", (long long)now(w) + 11000);
    key = new_run(&w->alice);
    key.idem_key = MU_B("young");
    assert_int_equal(do_create(w, &key), 0);
    put_sql(w,
            "INSERT INTO schedule_ticks (schedule_id, tick_ms, outcome) VALUES ('a', %lld, 1), "
            "('b', %lld, 1)",
            (long long)now(w) - 8 * INT64_C(86400000), (long long)now(w));
    struct mu_sweeper *sw = start_sweeper(w);
    advance(w, 11000);
    for (int i = 0; i < 8 && num(w, "SELECT COUNT(*) FROM idempotency_keys") > 1; i++) {
        run_for(w, 700);
    }
    assert_int_equal(row_of(w, &due).state, -1);
    assert_int_equal(get(w, &w->alice, &due), MU_E_NOT_FOUND);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM events WHERE stream_id = '%s'", due.text), 0);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM session_specs WHERE session_id = '%s'", due.text),
                     0);
    assert_int_equal(get(w, &w->alice, &kept), 0);
    assert_int_equal(get(w, &w->alice, &later), 0);
    assert_int_equal(get(w, &w->alice, &living), 0);
    assert_int_equal(told.files, 1);
    assert_string_equal(told.gone[0], file[0].text);
    assert_string_equal(txt(w, "SELECT key FROM idempotency_keys"), "young;");
    assert_string_equal(txt(w, "SELECT schedule_id FROM schedule_ticks"), "b;");
    assert_int_equal(metric(w, "muster_sessions_purged_total"), 1);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM files"), 2);
    stop_sweeper(sw);
}

static void planted_orphans_are_counted(struct world *w)
{
    (void)queued(w, &w->alice); /* in order */
    struct mu_id overdue = queued(w, &w->alice), alone = running(w, &w->alice),
                 ghost = running(w, &w->alice), mute = queued(w, &w->alice);
    struct mu_sweeper *sw = start_sweeper(w);
    advance(w, 60000);
    put_sql(w, "UPDATE sessions SET deadline_ms = %lld", (long long)now(w) + 100000);
    set_deadline(w, &overdue, now(w) - 10001);
    put_sql(w, "UPDATE attempts SET ended_ms = 1 WHERE session_id = '%s'", alone.text);
    put_sql(w,
            "UPDATE sessions SET state = 90, outcome = 1, ended_ms = 1 WHERE id = '%s'; UPDATE "
            "attempts SET lease_ms = 1 WHERE session_id = '%s'",
            ghost.text, ghost.text);
    put_sql(w, "DELETE FROM events WHERE stream_id = '%s'; DELETE FROM streams WHERE id = '%s'",
            mute.text, mute.text);
    for (int i = 0; i < 300 && metric(w, "muster_orphans") < 4; i++) {
        run_for(w, 50);
    }
    assert_int_equal(metric(w, "muster_orphans"), 4);
    stop_sweeper(sw);
}

static void a_sweeper_stops_in_the_middle(struct world *w)
{
    for (int i = 0; i < 30; i++) {
        struct mu_id id = queued(w, &w->alice);
        set_deadline(w, &id, 1);
    }
    struct mu_sweeper *sw = start_sweeper(w);
    stop_sweeper(sw); /* idle */
    assert_int_equal(told.expired, 0);
    sw = start_sweeper(w);
    while (told.expired == 0) {
        run_for(w, 1);
    }
    stop_sweeper(sw);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM sessions WHERE state = 94"), told.expired);
}

static void many_keys_go_in_several_units(struct world *w)
{
    put_sql(w, "INSERT INTO idempotency_keys (org_id, op, key, body_hash, subject_id, expires_ms) "
               "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500) "
               "SELECT 'o', 1, 'k' || i, '', '', i FROM n");
    struct mu_sweeper *sw = start_sweeper(w);
    advance(w, 11000);
    int64_t left[2] = {0, 1};
    for (int i = 0; i < 60 && left[1]; i++) {
        run_for(w, 100);
        left[0] = left[1] < 2500 && left[1] > 0 ? left[1] : left[0];
        left[1] = num(w, "SELECT COUNT(*) FROM idempotency_keys");
    }
    assert_int_equal(left[0], 500); /* seen between two units */
    assert_int_equal(left[1], 0);
    stop_sweeper(sw);
}

/* The n-th allocation of anything in the process fails; the tick after finds the same row due. */
static void no_allocation_failure_stops_the_sweeper(struct world *w)
{
    struct mu_sweeper *sw = start_sweeper(w);
    for (long n = 1;; n++) {
        struct mu_id id = queued(w, &w->alice);
        set_deadline(w, &id, 1);
        unsigned before = told.expired;
        (void)mu_alloc_fail_at(n);
        for (int i = 0; i < 40 && told.expired == before; i++) {
            run_for(w, 100);
        }
        long made = mu_alloc_fail_at(0);
        assert_int_equal(told.expired, before + 1);
        assert_int_equal(row_of(w, &id).state, 94);
        if (made < n || n == 20) {
            break;
        }
    }
    stop_sweeper(sw);
}

IN_WORLD(deadlines_end_sessions)
IN_WORLD(retention_removes_what_is_due_and_only_that)
IN_WORLD(planted_orphans_are_counted)
IN_WORLD(a_sweeper_stops_in_the_middle)
IN_WORLD(many_keys_go_in_several_units)
IN_WORLD(no_allocation_failure_stops_the_sweeper)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_ALL(deadlines_end_sessions),         ON_ALL(retention_removes_what_is_due_and_only_that),
        ON_BOTH(planted_orphans_are_counted),   ON_ALL(a_sweeper_stops_in_the_middle),
        ON_BOTH(many_keys_go_in_several_units), ON(no_allocation_failure_stops_the_sweeper, 0),
    };
    return cmocka_run_group_tests(tests, pg_begin, pg_end);
}
