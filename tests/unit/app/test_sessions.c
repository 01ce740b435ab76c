/* The session aggregate on real databases: create, the executor's moves, ends, reading. */
#include "app_world.h"

/* --- what a single get shows --- */

struct seen {
    int calls, state, outcome, end_reason, tries;
    int64_t epoch, output_bytes, prompt_bytes, exit_code, tokens_in, tokens_out;
    bool has_exit_code, truncated;
    char id[40], org[48], head[8192], rest[8192], output[8192], message[8192], code[64],
        error[4096], provider[64], attempt_provider[64], attempt_model[64], title[64];
};

static void keep(char *dst, size_t size, mu_bytes b)
{
    snprintf(dst, size, "%.*s", MU_ARGS(b));
}

static int see(void *arg, const struct mu_session_view *v)
{
    struct seen *s = arg;
    s->calls++;
    s->state = v->state;
    s->outcome = v->outcome;
    s->end_reason = v->end_reason;
    s->tries = v->tries;
    s->epoch = v->epoch;
    s->output_bytes = v->output_bytes;
    s->prompt_bytes = v->prompt_bytes;
    s->has_exit_code = v->has_exit_code;
    s->exit_code = v->exit_code;
    s->tokens_in = v->tokens_in;
    s->tokens_out = v->tokens_out;
    s->truncated = v->output_truncated;
    keep(s->id, sizeof s->id, v->id);
    keep(s->org, sizeof s->org, v->org_id);
    keep(s->head, sizeof s->head, v->prompt_head);
    keep(s->rest, sizeof s->rest, v->prompt_rest);
    keep(s->output, sizeof s->output, v->output);
    keep(s->message, sizeof s->message, v->message_head);
    keep(s->code, sizeof s->code, v->error_code);
    keep(s->error, sizeof s->error, v->error_message);
    keep(s->provider, sizeof s->provider, v->provider);
    keep(s->attempt_provider, sizeof s->attempt_provider, v->attempt_provider);
    keep(s->attempt_model, sizeof s->attempt_model, v->attempt_model);
    keep(s->title, sizeof s->title, v->title);
    return 0;
}

static struct seen seen;

static int get(struct world *w, const struct mu_principal *who, const struct mu_id *id)
{
    struct mu_session_get op = {
        .id = *id, .admin = who->admin, .org_id = mu_str(who->org_id), .each = see, .arg = &seen};
    seen = (struct seen){.calls = 0};
    return do_get(w, &op);
}

static long live(const struct mu_principal *p)
{
    return atomic_load(&p->tenant->live);
}

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

static struct mu_session_switch a_switch(const struct mu_id *id, int64_t epoch)
{
    return (struct mu_session_switch){
        .id = *id, .epoch = epoch, .provider = "next", .model = MU_B("m\"-2")};
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

static struct mu_session_put_back a_put_back(struct world *w, const struct mu_id *id, int64_t epoch)
{
    return (struct mu_session_put_back){
        .id = *id, .epoch = epoch, .now_ms = now(w), .deadline_ms = now(w) + 1000};
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
    op = (struct mu_session_saturate){.id = id,
                                      .now_ms = start_ms + 5,
                                      .deadline_ms = start_ms + 8000,
                                      .message = "still full"};
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

static void put_chunk(struct world *w, const struct mu_id *id, int64_t epoch, int64_t pos,
                      mu_bytes bytes, bool discard)
{
    struct mu_session_chunk op = {
        .id = *id, .epoch = epoch, .pos = pos, .bytes = bytes, .discard = discard};
    int r = do_chunk(w, &op);
    assert_true(r >= 0 || r == MU_E_STALE);
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
                        "{\"url\":\"u\"};{\"to\":90,\"outcome\":1};{\"to\":90,\"outcome\":1};");
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
        "{\"to\":92,\"outcome\":3,\"error\":{\"code\":\"provider_error\",\"message\":\"it "
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
    assert_int_equal(live(&w->alice), 1);
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

static const int states[] = {20, 22, 60, 80, 90, 92, 94};

static struct mu_id planted(struct world *w, int state)
{
    struct mu_session_create c = new_run(&w->alice);
    c.route = state == 22 ? MU_ROUTE_WORKER : MU_ROUTE_PROVIDER;
    assert_int_equal(do_create(w, &c), 0);
    if (state != 20 && state != 22) {
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
    MOVES
};

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
    case MOVE_RECOVER_60:
    case MOVE_RECOVER_60_LAST:
        rec.state = 60;
        rec.tries = move == MOVE_RECOVER_60 ? 0 : 2;
        return do_recover(w, &rec);
    default:
        rec.state = 80;
        return do_recover(w, &rec);
    }
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
                after.state == 60 || after.state == 80);
            put_sql(w, "UPDATE sessions SET deadline_ms = 6 WHERE id = '%s'", id.text);
        }
    }
    /* The sweeper's part (20, 22, 60 -> 94, 80 -> 90) is in test_sweep.c. */
    for (int from = 0; from < 100; from++) {
        for (int to = 0; to < 100; to++) {
            if (mu_state_may_move(from, to) && !(from == 22 && to == 94) && !reached[from][to]) {
                fail_msg("nothing moves %d -> %d", from, to);
            }
        }
    }
    assert_int_equal(holes(w), 0);
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
    static const char *const tables[] = {"events",          "artifacts",    "files",
                                         "output_chunks",   "attempts",     "session_results",
                                         "session_specs"};
    for (size_t i = 0; i < MU_ARRAY_LEN(tables); i++) {
        const char *col = i == 0 ? "stream_id" : "session_id";
        assert_int_equal(num(w, "SELECT COUNT(*) FROM %s WHERE %s = '%s'", tables[i], col,
                             c.id.text),
                         0);
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
    struct mu_session_recover op = {
        .id = id, .state = 60, .epoch = 1, .tries = 0, .max_tries = 2};
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
    assert_int_equal(
        mu_db_open(&(struct mu_db_opts){.url = w->url, .reader = true}, &db, &err), 0);
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
    struct mu_unit gate = {
        .run = hold_writer, .done = released, .loop = w->loop, .alone = true};
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
    assert_int_equal(live(&w->alice), 5);
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

IN_WORLD(a_new_session_has_every_column)
IN_WORLD(a_workers_session_waits_as_such)
IN_WORLD(a_long_prompt_is_cut_at_a_character)
IN_WORLD(the_searched_text_is_bounded_and_lower_case)
IN_WORLD(a_key_creates_once)
IN_WORLD(a_replayed_key_tells_how_its_session_ended)
IN_WORLD(a_retry_without_a_key_finds_the_run_of_the_last_three_minutes)
IN_WORLD(too_many_live_sessions_are_refused)
IN_WORLD(a_claim_starts_an_attempt)
IN_WORLD(a_session_has_one_live_attempt)
IN_WORLD(a_switch_names_the_next_candidate)
IN_WORLD(a_stopping_session_gets_no_other_candidate)
IN_WORLD(a_session_that_is_put_back_keeps_its_place)
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
IN_WORLD(only_an_ended_session_is_deleted)
IN_WORLD(a_foreign_id_answers_like_an_unknown_one)
IN_WORLD(the_log_is_read_from_any_number)
IN_WORLD(recovery_requeues_until_the_tries_are_used)
IN_WORLD(recovery_finishes_an_accepted_stop)
IN_WORLD(every_live_session_is_read_once)
IN_WORLD(a_failing_neighbour_changes_nothing)
IN_WORLD(no_allocation_failure_breaks_anything)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_ALL(a_new_session_has_every_column),
        ON_ALL(a_workers_session_waits_as_such),
        ON_ALL(a_long_prompt_is_cut_at_a_character),
        ON_ALL(the_searched_text_is_bounded_and_lower_case),
        ON_ALL(a_key_creates_once),
        ON_ALL(a_replayed_key_tells_how_its_session_ended),
        ON_ALL(a_retry_without_a_key_finds_the_run_of_the_last_three_minutes),
        ON_ALL(too_many_live_sessions_are_refused),
        ON_ALL(a_claim_starts_an_attempt),
        ON_ALL(a_session_has_one_live_attempt),
        ON_ALL(a_switch_names_the_next_candidate),
        ON_ALL(a_stopping_session_gets_no_other_candidate),
        ON_ALL(a_session_that_is_put_back_keeps_its_place),
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
        ON_ALL(only_an_ended_session_is_deleted),
        ON_ALL(a_foreign_id_answers_like_an_unknown_one),
        ON_ALL(the_log_is_read_from_any_number),
        ON_ALL(recovery_requeues_until_the_tries_are_used),
        ON_ALL(recovery_finishes_an_accepted_stop),
        ON_ALL(every_live_session_is_read_once),
        ON_ALL(a_failing_neighbour_changes_nothing),
        ON_BOTH(no_allocation_failure_breaks_anything),
    };
    return cmocka_run_group_tests(tests, start_pg, stop_pg);
}
