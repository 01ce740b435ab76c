/* The session aggregate on real databases: create, delete, reading, start-up. */
#include "session_moves.h"

/* --- create --- */

static void a_new_session_has_every_column(struct world *w)
{
    struct mu_new_file file = {.id = mu_id_new(&w->env, NULL),
                               .name = MU_B("a.png"),
                               .media_type = MU_B("image/png"),
                               .bytes = 7};
    snprintf(file.sha256.text, sizeof file.sha256.text, "%064d", 5);
    struct mu_session_create op = new_run(&w->alice);
    op.source = MU_SRC_CLI;
    op.skill = MU_B("Sk");
    op.environment_id = MU_B("env-1");
    op.conversation_id = MU_B("conv-1");
    op.schedule_id = MU_B("sched-1");
    op.env_snapshot = MU_B("{\"e\":1}");
    op.spec = MU_B("{\"s\":1}");
    op.files = &file;
    op.n_files = 1;
    assert_int_equal(do_create(w, &op), 0);
    assert_int_equal(op.state, MU_ST_QUEUED);
    assert_int_equal(op.outcome, MU_OUT_LIVE);
    assert_int_equal(op.deadline_ms, op.now_ms + 600000);
    assert_int_equal(mu_id_ms(&op.id), op.now_ms);
    char want[512];
    snprintf(want, sizeof want, "%s|%s|custom|m-1|a name|A Title|Sk|env-1|conv-1|sched-1;",
             w->alice.org_id, w->alice.uid);
    assert_string_equal(txt(w,
                            "SELECT org_id || '|' || creator || '|' || harness || '|' || model || "
                            "'|' || name || '|' || title || '|' || skill || '|' || environment_id "
                            "|| '|' || conversation_id || '|' || schedule_id FROM sessions WHERE "
                            "id = '%s'",
                            op.id.text),
                        want);
    assert_int_equal(num(w,
                         "SELECT COUNT(*) FROM sessions WHERE id = '%s' AND view = 1 AND mode = 1 "
                         "AND source = %d AND route = 1 AND priority = 0 AND worker_id IS NULL AND "
                         "epoch = 0 AND tries = 0 AND rev = 1 AND queued_ms = %lld AND created_ms "
                         "= %lld AND updated_ms = %lld AND deadline_ms = %lld AND saturated_ms IS "
                         "NULL AND started_ms IS NULL AND running_ms IS NULL AND stop_ms IS NULL "
                         "AND ended_ms IS NULL AND purge_ms IS NULL AND exit_code IS NULL",
                         op.id.text, MU_SRC_CLI, (long long)op.now_ms, (long long)op.now_ms,
                         (long long)op.now_ms, (long long)op.deadline_ms),
                     1);
    assert_string_equal(txt(w,
                            "SELECT search || '|' || spec || '|' || env_snapshot || '|' || "
                            "prompt_head FROM session_specs WHERE session_id = '%s' AND "
                            "prompt_rest IS NULL AND prompt_bytes = 5",
                            op.id.text),
                        "a title\ndo it\nsk|{\"s\":1}|{\"e\":1}|do it;");
    assert_int_equal(num(w,
                         "SELECT COUNT(*) FROM files WHERE session_id = '%s' AND id = '%s' AND "
                         "name = 'a.png' AND media_type = 'image/png' AND bytes = 7 AND org_id = "
                         "'%s'",
                         op.id.text, file.id.text, w->alice.org_id),
                     1);
    assert_string_equal(txt(w, "SELECT data FROM events WHERE stream_id = '%s'", op.id.text),
                        "{\"to\":20};");
    assert_int_equal(num(w, "SELECT COUNT(*) FROM orgs WHERE id = '%s'", w->alice.org_id), 1);
    assert_int_equal(live(&w->alice), 1);
    assert_int_equal(metric(w, "muster_sessions_created_total"), 1);
}

static void a_workers_session_waits_as_such(struct world *w)
{
    struct mu_session_create op = new_run(&w->alice);
    op.route = MU_ROUTE_WORKER;
    assert_int_equal(do_create(w, &op), 0);
    assert_int_equal(op.state, MU_ST_QUEUED_WORKER);
    assert_int_equal(row_of(w, &op.id).state, MU_ST_QUEUED_WORKER);
    assert_string_equal(txt(w, "SELECT data FROM events WHERE stream_id = '%s'", op.id.text),
                        "{\"to\":22};");
}

/* 4096 bytes of head at most, never half a character, and head and rest are the whole. */
static void a_long_prompt_is_cut_at_a_character(struct world *w)
{
    static char prompt[6000];
    for (size_t shift = 0; shift < 4; shift++) {
        size_t n = 0;
        for (; n < shift; n++) {
            prompt[n] = 'x';
        }
        for (; n + 3 < sizeof prompt - 1; n += 3) {
            memcpy(prompt + n, "\xe2\x82\xac", 3);
        }
        prompt[n] = 0;
        struct mu_session_create op = new_run(&w->alice);
        op.prompt = mu_str(prompt);
        assert_int_equal(do_create(w, &op), 0);
        assert_int_equal(get(w, &w->alice, &op.id), 0);
        size_t head = strlen(seen.head);
        assert_true(head <= 4096 && head > 4092);
        assert_int_equal((head - shift) % 3, 0);
        assert_memory_equal(seen.head, prompt, head);
        assert_string_equal(seen.rest, prompt + head);
        assert_int_equal(seen.prompt_bytes, strlen(prompt));
        struct mu_session_claim c = a_claim(w, &op.id, 0);
        assert_int_equal(do_claim(w, &c), 0);
        assert_true(mu_bytes_eq(c.prompt, mu_str(prompt)));
        mu_arena_fini(&c.arena);
    }
}

static void the_searched_text_is_bounded_and_lower_case(struct world *w)
{
    static char prompt[3000];
    memset(prompt, 'Q', sizeof prompt - 1);
    struct mu_session_create op = new_run(&w->alice);
    op.prompt = mu_str(prompt);
    op.title = MU_B("\xc3\x84 TITLE");
    assert_int_equal(do_create(w, &op), 0);
    const char *search =
        txt(w, "SELECT search FROM session_specs WHERE session_id = '%s'", op.id.text);
    assert_int_equal(strncmp(search, "\xc3\x84 title\nqqq", 11), 0);
    assert_null(strchr(search, 'Q'));
    assert_int_equal(strlen(search), 8 + 1 + 1024 + 1 + 0 + 1);
}

static void a_key_creates_once(struct world *w)
{
    struct mu_session_create first = new_run(&w->alice), op;
    first.idem_key = MU_B("key-1");
    assert_int_equal(do_create(w, &first), 0);
    assert_false(first.replayed);

    op = new_run(&w->alice);
    op.idem_key = MU_B("key-1");
    assert_int_equal(do_create(w, &op), 0);
    assert_true(op.replayed);
    assert_string_equal(op.id.text, first.id.text);
    assert_int_equal(op.state, MU_ST_QUEUED);
    assert_int_equal(live(&w->alice), 1);

    op = new_run(&w->alice);
    op.idem_key = MU_B("key-1");
    op.body = MU_B("{\"prompt\":\"something else\"}");
    assert_int_equal(do_create(w, &op), MU_E_MISMATCH);
    assert_int_equal(live(&w->alice), 1);

    op = new_run(&w->bob); /* another tenant's key is another key */
    op.idem_key = MU_B("key-1");
    assert_int_equal(do_create(w, &op), 0);
    assert_false(op.replayed);

    advance(w, 24 * 3600000 - 1);
    op = new_run(&w->alice);
    op.idem_key = MU_B("key-1");
    assert_int_equal(do_create(w, &op), 0);
    assert_true(op.replayed);
    advance(w, 1);
    op = new_run(&w->alice);
    op.idem_key = MU_B("key-1");
    op.body = MU_B("other");
    assert_int_equal(do_create(w, &op), 0);
    assert_false(op.replayed);
    assert_string_not_equal(op.id.text, first.id.text);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM sessions"), 3);
}

static void a_replayed_key_tells_how_its_session_ended(struct world *w)
{
    struct mu_session_create op = new_run(&w->alice);
    op.idem_key = MU_B("k");
    assert_int_equal(do_create(w, &op), 0);
    assert_int_equal(cancel(w, &w->alice, &op.id, NULL), 0);
    op = new_run(&w->alice);
    op.idem_key = MU_B("k");
    assert_int_equal(do_create(w, &op), 0);
    assert_true(op.replayed);
    assert_int_equal(op.state, MU_ST_COMPLETED);
    assert_int_equal(op.outcome, MU_OUT_CANCELLED);
}

/* The key stands for a run that is gone: neither that run nor a second one. */
static void a_key_outlives_its_deleted_session(struct world *w)
{
    struct mu_session_create op = new_run(&w->alice);
    op.idem_key = MU_B("k");
    assert_int_equal(do_create(w, &op), 0);
    assert_int_equal(cancel(w, &w->alice, &op.id, NULL), 0);
    struct mu_session_delete del = {.id = op.id, .org_id = mu_str(w->alice.org_id)};
    assert_int_equal(do_delete(w, &del), 0);
    op = new_run(&w->alice);
    op.idem_key = MU_B("k");
    assert_int_equal(do_create(w, &op), MU_E_EXISTS);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM sessions"), 0);
    assert_int_equal(live(&w->alice), 0);
    op = new_run(&w->alice);
    op.idem_key = MU_B("k");
    op.body = MU_B("other");
    assert_int_equal(do_create(w, &op), MU_E_MISMATCH);
}

static void a_retry_without_a_key_finds_the_run_of_the_last_three_minutes(struct world *w)
{
    struct mu_session_create first = new_run(&w->alice), op;
    assert_int_equal(do_create(w, &first), 0);
    advance(w, 179000);
    op = new_run(&w->alice);
    op.check_dup = true;
    assert_int_equal(do_create(w, &op), 0);
    assert_true(op.duplicate);
    assert_string_equal(op.id.text, first.id.text);

    op = new_run(&w->alice); /* not a retry */
    assert_int_equal(do_create(w, &op), 0);
    assert_false(op.duplicate);
    op = new_run(&w->alice);
    op.check_dup = true;
    op.body = MU_B("other");
    assert_int_equal(do_create(w, &op), 0);
    assert_false(op.duplicate);
    op = new_run(&w->bob);
    op.check_dup = true;
    assert_int_equal(do_create(w, &op), 0);
    assert_false(op.duplicate);

    advance(w, 181000);
    op = new_run(&w->alice);
    op.check_dup = true;
    assert_int_equal(do_create(w, &op), 0);
    assert_false(op.duplicate);
    assert_int_equal(live(&w->alice), 4);
}

static void too_many_live_sessions_are_refused(struct world *w)
{
    w->sessions->opts.max_queued = 2;
    struct mu_id id = queued(w, &w->alice);
    (void)queued(w, &w->alice);
    struct mu_session_create op = new_run(&w->alice);
    assert_int_equal(do_create(w, &op), MU_E_LIMIT);
    (void)queued(w, &w->bob);
    for (int i = 0; i < 3; i++) {
        (void)queued(w, &w->admin);
    }
    assert_int_equal(cancel(w, &w->alice, &id, NULL), 0);
    (void)queued(w, &w->alice);
    assert_int_equal(live(&w->alice), 2);
}

/* --- delete --- */

static void only_an_ended_session_is_deleted(struct world *w)
{
    struct mu_new_file file = {.id = mu_id_new(&w->env, NULL),
                               .name = MU_B("a"),
                               .media_type = MU_B("image/png"),
                               .bytes = 1};
    struct mu_session_create c = new_run(&w->alice);
    c.files = &file;
    c.n_files = 1;
    assert_int_equal(do_create(w, &c), 0);
    struct mu_id other = running(w, &w->alice);
    put_chunk(w, &other, 1, 0, MU_B("kept"), false);
    struct mu_session_delete op = {.id = c.id, .org_id = mu_str(w->alice.org_id)};
    assert_int_equal(do_delete(w, &op), MU_E_CONFLICT);
    assert_int_equal(claim(w, &c.id, 0, NULL), 0);
    assert_int_equal(do_delete(w, &op), MU_E_CONFLICT);
    assert_int_equal(cancel(w, &w->alice, &c.id, NULL), 0);
    assert_int_equal(do_delete(w, &op), MU_E_CONFLICT); /* stopping */
    assert_int_equal(end_with(w, &c.id, 1, 90, 1, "x"), 0);
    op.org_id = mu_str(w->bob.org_id);
    assert_int_equal(do_delete(w, &op), MU_E_NOT_FOUND);
    op.org_id = mu_str(w->alice.org_id);
    assert_int_equal(do_delete(w, &op), 0);
    assert_int_equal(do_delete(w, &op), MU_E_NOT_FOUND);
    assert_int_equal(get(w, &w->alice, &c.id), MU_E_NOT_FOUND);
    static const char *const tables[] = {"events",        "artifacts", "files",
                                         "output_chunks", "attempts",  "session_results",
                                         "session_specs"};
    for (size_t i = 0; i < MU_ARRAY_LEN(tables); i++) {
        const char *col = i == 0 ? "stream_id" : "session_id";
        assert_int_equal(
            num(w, "SELECT COUNT(*) FROM %s WHERE %s = '%s'", tables[i], col, c.id.text), 0);
    }
    assert_int_equal(num(w, "SELECT COUNT(*) FROM streams"), 1);
    assert_int_equal(get(w, &w->alice, &other), 0);
    assert_string_equal(seen.output, "kept");
}

/* --- G6 --- */

static void a_foreign_id_answers_like_an_unknown_one(struct world *w)
{
    struct mu_id ids[] = {queued(w, &w->alice), running(w, &w->alice), queued(w, &w->alice),
                          mu_id_new(&w->env, NULL)};
    assert_int_equal(cancel(w, &w->alice, &ids[2], NULL), 0);
    for (size_t i = 0; i < MU_ARRAY_LEN(ids); i++) {
        struct row before = row_of(w, &ids[i]);
        bool changed = true;
        assert_int_equal(get(w, &w->bob, &ids[i]), MU_E_NOT_FOUND);
        assert_int_equal(seen.calls, 0);
        assert_int_equal(cancel(w, &w->bob, &ids[i], &changed), MU_E_NOT_FOUND);
        assert_false(changed);
        struct mu_session_delete op = {.id = ids[i], .org_id = mu_str(w->bob.org_id)};
        assert_int_equal(do_delete(w, &op), MU_E_NOT_FOUND);
        struct row after = row_of(w, &ids[i]);
        assert_memory_equal(&before, &after, sizeof before);
        assert_int_equal(get(w, &w->admin, &ids[i]), i == 3 ? MU_E_NOT_FOUND : 0);
    }
    bool changed = false;
    assert_int_equal(cancel(w, &w->admin, &ids[0], &changed), 0);
    assert_true(changed);
    assert_int_equal(live(&w->alice), 1);
}

/* --- events --- */

static int64_t event_seqs[64];
static int event_types[64];
static unsigned n_events;

static int on_session_event(void *arg, const struct mu_session_event *e)
{
    if (n_events < 64) {
        event_seqs[n_events] = e->seq;
        event_types[n_events++] = e->type;
    }
    return 0;
}

static void the_log_is_read_from_any_number(struct world *w)
{
    struct mu_id id = running(w, &w->alice);
    assert_int_equal(end_with(w, &id, 1, 90, 1, "x"), 0);
    for (int64_t after = 0; after <= 5; after++) {
        for (unsigned limit = 1; limit <= 5; limit++) {
            struct mu_session_events op = {
                .id = id, .after = after, .limit = limit, .each = on_session_event};
            n_events = 0;
            assert_int_equal(do_events(w, &op), 0);
            assert_int_equal(op.first_seq, 1);
            assert_int_equal(op.last_seq, 4);
            unsigned want = after >= 4 ? 0 : MU_MIN((unsigned)(4 - after), limit);
            assert_int_equal(op.count, want);
            assert_int_equal(n_events, want);
            for (unsigned i = 0; i < want; i++) {
                assert_int_equal(event_seqs[i], after + 1 + i);
            }
        }
    }
    struct mu_session_events op = {
        .id = mu_id_new(&w->env, NULL), .limit = 10, .each = on_session_event};
    assert_int_equal(do_events(w, &op), 0);
    assert_int_equal(op.first_seq, 0);
    assert_int_equal(op.last_seq, 0);
}

/* --- start-up --- */

static void recovery_requeues_until_the_tries_are_used(struct world *w)
{
    struct mu_id id = running(w, &w->alice);
    put_chunk(w, &id, 1, 0, MU_B("lost"), false);
    advance(w, 1000);
    struct mu_session_recover op = {.id = id, .state = 60, .epoch = 1, .tries = 0, .max_tries = 2};
    snprintf(op.org_id, sizeof op.org_id, "%s", w->alice.org_id);
    assert_int_equal(do_recover(w, &op), 0);
    assert_true(op.requeued);
    assert_int_equal(op.epoch, 2);
    assert_int_equal(op.tries, 1);
    struct row r = row_of(w, &id);
    assert_int_equal(r.state, 20);
    assert_int_equal(r.epoch, 2);
    assert_int_equal(r.tries, 1);
    assert_int_equal(r.deadline, now(w) + 600000);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM output_chunks"), 0);
    assert_int_equal(
        num(w, "SELECT COUNT(*) FROM attempts WHERE outcome = %d AND epoch = 1", MU_ATT_LOST), 1);

    assert_int_equal(claim(w, &id, 2, NULL), 0);
    op.state = 60;
    op.epoch = 3;
    assert_int_equal(do_recover(w, &op), 0);
    assert_false(op.requeued);
    assert_int_equal(get(w, &w->alice, &id), 0);
    assert_int_equal(seen.state, 92);
    assert_int_equal(seen.end_reason, MU_END_INTERRUPTED);
    assert_string_equal(seen.code, "interrupted");
    assert_int_equal(live(&w->alice), 0);
}

static void recovery_finishes_an_accepted_stop(struct world *w)
{
    struct mu_id id = running(w, &w->alice);
    assert_int_equal(cancel(w, &w->alice, &id, NULL), 0);
    struct mu_session_recover op = {.id = id, .state = 80, .epoch = 1, .max_tries = 3};
    snprintf(op.org_id, sizeof op.org_id, "%s", w->alice.org_id);
    assert_int_equal(do_recover(w, &op), 0);
    assert_false(op.requeued);
    assert_int_equal(get(w, &w->alice, &id), 0);
    assert_int_equal(seen.state, 90);
    assert_int_equal(seen.outcome, MU_OUT_CANCELLED);
    assert_string_equal(seen.code, "cancelled");
    assert_int_equal(live(&w->alice), 0);
}

struct collected {
    unsigned n;
    int64_t last_ms;
    char last[MU_ID_LEN + 1];
    bool wrong;
};

static int collect(void *arg, const struct mu_live_row *row)
{
    struct collected *c = arg;
    char id[MU_ID_LEN + 1];
    keep(id, sizeof id, row->id);
    c->wrong = c->wrong || row->deadline_ms < c->last_ms ||
               (row->deadline_ms == c->last_ms && strcmp(id, c->last) <= 0) || row->state >= 90 ||
               row->route != 1 || !mu_bytes_is(row->harness, "h");
    c->last_ms = row->deadline_ms;
    memcpy(c->last, id, sizeof id);
    c->n++;
    return 0;
}

static void every_live_session_is_read_once(struct world *w)
{
    /* More than two pages, with equal deadlines across the borders. */
    static char sql[3000];
    for (int ended = 0; ended < 2; ended++) {
        snprintf(sql, sizeof sql,
                 "INSERT INTO sessions (id, org_id, creator, view, mode, source, state, outcome, "
                 "route, harness, model, name, title, skill, queued_ms, deadline_ms, created_ms, "
                 "updated_ms, ended_ms) %s SELECT '%s' || CAST(10000 + i AS TEXT), 'o', 'c', 1, 1, "
                 "2, %d, %d, 1, 'h', 'm', '', '', '', 1, i / 700, 1, 1, %s FROM n",
                 w->pg ? "WITH n AS (SELECT generate_series(1, 2500) AS i)"
                       : "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i "
                         "< 2500)",
                 ended ? "b" : "a", ended ? 90 : 20, ended, ended ? "7" : "NULL");
        with_db(w, sql, NULL, NULL);
    }
    struct mu_db *db = NULL;
    struct mu_err err = {0};
    assert_int_equal(mu_db_open(&(struct mu_db_opts){.url = w->url, .reader = true}, &db, &err), 0);
    struct collected c = {.last_ms = INT64_MIN};
    assert_int_equal(mu_sessions_each_live(db, collect, &c), 0);
    assert_int_equal(c.n, 2500);
    assert_false(c.wrong);
    mu_db_close(db);
    put_sql(w, "DELETE FROM sessions");
    (void)queued(w, &w->alice); /* so that a unit ran */
}

/* --- a batch whose last unit fails is run again with savepoints --- */

static atomic_bool held;
static int hold_writer(struct mu_unit *u, struct mu_tx *tx)
{
    while (atomic_load(&held)) {
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    return 0;
}
static void released(struct mu_unit *u, int result)
{
}

struct both {
    struct world *w;
    int left, result[8];
};
static void count_down(struct both *b, int i, int result)
{
    b->result[i] = result;
    if (--b->left == 0) {
        mu_loop_stop(b->w->loop);
    }
}
#define COUNTED(type, i)                                                                           \
    static void type##_counted(struct mu_session_##type *op, int result)                           \
    {                                                                                              \
        count_down(op->ctx, i, result);                                                            \
    }
COUNTED(create, 0)
COUNTED(claim, 1)
COUNTED(put_back, 2)
COUNTED(end, 3)
COUNTED(cancel, 4)
COUNTED(delete, 5)
COUNTED(switch, 6)
COUNTED(chunk, 7)

static void a_failing_neighbour_changes_nothing(struct world *w)
{
    struct mu_id q = queued(w, &w->alice), p = running(w, &w->alice), e = running(w, &w->alice),
                 c = running(w, &w->alice), d = queued(w, &w->alice), s = running(w, &w->alice);
    assert_int_equal(cancel(w, &w->alice, &d, NULL), 0);
    struct both b = {.w = w, .left = 8};
    struct mu_session_create create = new_run(&w->alice);
    struct mu_session_claim cl = a_claim(w, &q, 0);
    struct mu_session_put_back back = a_put_back(w, &p, 1);
    struct mu_session_end end = {
        .id = e, .epoch = 1, .state = 90, .outcome = 1, .output = MU_B("out")};
    struct mu_session_cancel can = {.id = c, .org_id = mu_str(w->alice.org_id)};
    struct mu_session_delete del = {.id = d, .org_id = mu_str(w->alice.org_id)};
    struct mu_session_chunk chunk = {.id = c, .epoch = 1, .bytes = MU_B("text")};
    struct mu_session_switch sw = a_switch(&s, 9); /* stale: fails, last in the batch */
    snprintf(end.org_id, sizeof end.org_id, "%s", w->alice.org_id);
    create.idem_key = MU_B("batch");
    back.saturated_ms = now(w);
    atomic_store(&held, true);
    struct mu_unit gate = {.run = hold_writer, .done = released, .loop = w->loop, .alone = true};
    assert_int_equal(mu_writer_submit(w->writer, &gate), 0);
#define SEND(op, type)                                                                             \
    (op).unit.loop = w->loop;                                                                      \
    (op).done = type##_counted;                                                                    \
    (op).ctx = &b;                                                                                 \
    assert_int_equal(mu_session_##type(w->sessions, &(op)), 0)
    SEND(create, create);
    SEND(cl, claim);
    SEND(back, put_back);
    SEND(end, end);
    SEND(can, cancel);
    SEND(del, delete);
    SEND(chunk, chunk);
    SEND(sw, switch);
    atomic_store(&held, false);
    mu_loop_run(w->loop);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(b.result[i], i == 6 ? MU_E_STALE : 0);
    }
    assert_int_equal(cl.epoch, 1);
    assert_true(mu_bytes_is(cl.prompt, "do it"));
    mu_arena_fini(&cl.arena);
    assert_int_equal(back.epoch, 2);
    assert_int_equal(back.saturated_ms, now(w));
    assert_true(can.changed);
    assert_false(create.replayed);
    assert_int_equal(row_of(w, &create.id).state, 20);
    assert_int_equal(row_of(w, &q).state, 60);
    assert_int_equal(row_of(w, &p).state, 20);
    assert_int_equal(row_of(w, &e).state, 90);
    assert_int_equal(row_of(w, &c).state, 80);
    assert_int_equal(row_of(w, &d).state, -1);
    assert_int_equal(events_of(w, &create.id), 1);
    assert_int_equal(events_of(w, &q), 2);
    assert_int_equal(events_of(w, &p), 3);
    assert_int_equal(events_of(w, &e), 4);
    assert_int_equal(events_of(w, &c), 3);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM output_chunks"), 1);
    assert_int_equal(live(&w->alice), 4);
}

/* --- when memory runs out --- */

/* The n-th allocation of anything in the process fails: writer, readers, loop. */
static void no_allocation_failure_breaks_anything(struct world *w)
{
    (void)running(w, &w->alice); /* warm: statements are prepared, the tenant is stored */
    long n = 1;
    for (;; n++) {
        put_sql(w, "DELETE FROM idempotency_keys");
        long before = live(&w->alice);
        mu_alloc_fail_at(n);
        struct mu_session_create c = new_run(&w->alice);
        struct mu_session_claim cl = {.provider = NULL};
        int r = do_create(w, &c);
        bool made = r == 0;
        if (made) {
            cl = a_claim(w, &c.id, 0);
            r = do_claim(w, &cl);
            struct mu_session_chunk chunk = {.id = c.id, .epoch = 1, .bytes = MU_B("abc")};
            r = r < 0 ? r : do_chunk(w, &chunk);
            (void)!get(w, &w->alice, &c.id);
            struct mu_session_list l = {.org_id = mu_str(w->alice.org_id),
                                        .limit = 5,
                                        .name = MU_B("a name"),
                                        .each = see,
                                        .arg = &seen};
            (void)!do_list(w, &l);
            r = r < 0 ? r : end_with(w, &c.id, 1, 90, 1, "output");
        }
        long made_allocations = mu_alloc_fail_at(0);
        mu_arena_fini(&cl.arena);
        if (made) {
            struct row row = row_of(w, &c.id);
            assert_int_equal(row.state, r == 0 ? 90 : row.epoch ? 60 : 20);
        }
        assert_int_equal(live(&w->alice), before + (made && r < 0));
        if (made_allocations < n) {
            assert_int_equal(r, 0);
            break;
        }
    }
    assert_true(n > 5);
    assert_int_equal(holes(w), 0);
}

static void no_allocation_failure_half_cancels_or_half_deletes(struct world *w)
{
    long n = 1;
    for (;; n++) {
        struct mu_id id = running(w, &w->alice), waiting = queued(w, &w->alice);
        long before = live(&w->alice);
        struct mu_session_delete del = {.id = waiting, .org_id = mu_str(w->alice.org_id)};
        mu_alloc_fail_at(n);
        int stop = cancel(w, &w->alice, &id, NULL), end = cancel(w, &w->alice, &waiting, NULL);
        int gone = do_delete(w, &del);
        long made = mu_alloc_fail_at(0);
        assert_int_equal(row_of(w, &id).state, stop == 0 ? 80 : 60);
        assert_int_equal(row_of(w, &waiting).state, gone == 0 ? -1 : end == 0 ? 90 : 20);
        assert_int_equal(live(&w->alice), before - (stop == 0) - (end == 0));
        assert_int_equal(events_of(w, &id), stop == 0 ? 3 : 2);
        assert_int_equal(events_of(w, &waiting), gone == 0 ? 0 : end == 0 ? 3 : 1);
        if (made < n) {
            assert_int_equal(stop | end | gone, 0);
            break;
        }
    }
    assert_true(n > 1);
    assert_int_equal(holes(w), 0);
}

IN_WORLD(a_new_session_has_every_column)
IN_WORLD(a_workers_session_waits_as_such)
IN_WORLD(a_long_prompt_is_cut_at_a_character)
IN_WORLD(the_searched_text_is_bounded_and_lower_case)
IN_WORLD(a_key_creates_once)
IN_WORLD(a_replayed_key_tells_how_its_session_ended)
IN_WORLD(a_key_outlives_its_deleted_session)
IN_WORLD(a_retry_without_a_key_finds_the_run_of_the_last_three_minutes)
IN_WORLD(too_many_live_sessions_are_refused)
IN_WORLD(only_an_ended_session_is_deleted)
IN_WORLD(a_foreign_id_answers_like_an_unknown_one)
IN_WORLD(the_log_is_read_from_any_number)
IN_WORLD(recovery_requeues_until_the_tries_are_used)
IN_WORLD(recovery_finishes_an_accepted_stop)
IN_WORLD(every_live_session_is_read_once)
IN_WORLD(a_failing_neighbour_changes_nothing)
IN_WORLD(no_allocation_failure_breaks_anything)
IN_WORLD(no_allocation_failure_half_cancels_or_half_deletes)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_ALL(a_new_session_has_every_column),
        ON_ALL(a_workers_session_waits_as_such),
        ON_ALL(a_long_prompt_is_cut_at_a_character),
        ON_ALL(the_searched_text_is_bounded_and_lower_case),
        ON_ALL(a_key_creates_once),
        ON_ALL(a_replayed_key_tells_how_its_session_ended),
        ON_ALL(a_key_outlives_its_deleted_session),
        ON_ALL(a_retry_without_a_key_finds_the_run_of_the_last_three_minutes),
        ON_ALL(too_many_live_sessions_are_refused),
        ON_ALL(only_an_ended_session_is_deleted),
        ON_ALL(a_foreign_id_answers_like_an_unknown_one),
        ON_ALL(the_log_is_read_from_any_number),
        ON_ALL(recovery_requeues_until_the_tries_are_used),
        ON_ALL(recovery_finishes_an_accepted_stop),
        ON_ALL(every_live_session_is_read_once),
        ON_ALL(a_failing_neighbour_changes_nothing),
        ON_BOTH(no_allocation_failure_breaks_anything),
        ON_BOTH(no_allocation_failure_half_cancels_or_half_deletes),
    };
    return cmocka_run_group_tests(tests, pg_begin, pg_end);
}
