/* The statements of lists and sweeps are answered from their index, not by reading a table: a
 * predicate that a partial index must match may not hold a parameter, and nothing but the plan
 * shows that. */
#include "app/schedules/schedules_int.h"
#include "app/sessions/statements_int.h"
#include "session_moves.h"

/* Enough rows that reading all of them is never the cheaper way. */
static void fill(struct world *w)
{
    static char sql[4096];
    const char *numbers = w->pg ? "WITH n AS (SELECT generate_series(1, 30000) AS i)"
                                : "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM "
                                  "n WHERE i < 30000)";
    snprintf(
        sql, sizeof sql,
        "INSERT INTO sessions (id, org_id, creator, view, mode, source, state, outcome, route, "
        "harness, model, name, title, skill, queued_ms, deadline_ms, created_ms, updated_ms, "
        "ended_ms, purge_ms, schedule_id) %s SELECT 'id-' || CAST(100000 + i AS TEXT), 'org-' "
        "|| CAST(i %% 300 AS TEXT), 'c', 1, 1, 2, CASE WHEN i %% 20 = 0 THEN 20 ELSE 90 END, "
        "CASE WHEN i %% 20 = 0 THEN 0 ELSE 1 + i %% 2 END, 1, 'h', 'm', '', '', '', 1, i, 1, "
        "1, CASE WHEN i %% 20 = 0 THEN NULL ELSE 7 END, CASE WHEN i %% 20 = 0 THEN NULL ELSE "
        "i END, 'sched-' || CAST(i %% 1500 AS TEXT) FROM n",
        numbers);
    with_db(w, sql, NULL, NULL);
    snprintf(sql, sizeof sql,
             "INSERT INTO session_specs (session_id, body_hash, prompt_bytes, prompt_head, search, "
             "spec) SELECT id, %s, 1, '', '', '{}' FROM sessions",
             w->pg ? "'\\x00'::bytea" : "x'00'");
    with_db(w, sql, NULL, NULL);
    with_db(w, "INSERT INTO session_results (session_id, updated_ms) SELECT id, 1 FROM sessions",
            NULL, NULL);
    with_db(w,
            "INSERT INTO artifacts (id, session_id, org_id, kind, dedupe, data, created_ms) SELECT "
            "'a-' || id, id, org_id, 1 + CAST(deadline_ms AS INTEGER) % 2, 'd', '{}', 1 FROM "
            "sessions",
            NULL, NULL);
    with_db(w,
            "INSERT INTO files (id, org_id, session_id, kind, name, media_type, bytes, sha256, "
            "created_ms) SELECT 'f-' || id, org_id, id, 1, 'n', 'm', 1, 's', 1 FROM sessions",
            NULL, NULL);
    with_db(w,
            "INSERT INTO idempotency_keys (org_id, op, key, body_hash, subject_id, expires_ms) "
            "SELECT org_id, 1, id, 'h', id, deadline_ms FROM sessions",
            NULL, NULL);
    with_db(w,
            "INSERT INTO attempts (session_id, epoch, execution_id, kind, server_slot, state, "
            "lease_ms, offered_ms, ended_ms) SELECT id, 1, 'x', 1, 1, 90, 1, 1, 1 FROM sessions",
            NULL, NULL);
    with_db(w,
            "INSERT INTO environments (id, org_id, name, image, spec, created_ms, updated_ms) "
            "SELECT 'e-' || id, org_id, 'n', 'i', '{}', 1, deadline_ms FROM sessions",
            NULL, NULL);
    with_db(w,
            "INSERT INTO schedules (id, org_id, creator, name, cron, spec, enabled, next_ms, "
            "created_ms, updated_ms) SELECT 's-' || id, org_id, 'c', 'n', '* * * * *', '{}', 1, "
            "deadline_ms, 1, 1 FROM sessions",
            NULL, NULL);
    with_db(w,
            "INSERT INTO quota_slots (scope_id, provider, slot, free_ms) SELECT org_id, 'p', "
            "deadline_ms, deadline_ms FROM sessions",
            NULL, NULL);
    with_db(w,
            "INSERT INTO output_chunks (session_id, pos, bytes) SELECT session_id, 0, body_hash "
            "FROM session_specs",
            NULL, NULL);
}

static void fill_live(struct world *w)
{
    with_db(w,
            "INSERT INTO gates (id, session_id, org_id, epoch, kind, status, scope, request_key, "
            "created_ms, resolved_ms, delivered_ms, description) SELECT 'g-' || id, id, org_id, 1, "
            "1, CASE WHEN state = 20 THEN 0 ELSE 1 END, CASE WHEN deadline_ms % 50 = 1 THEN 1 ELSE "
            "0 END, 'k', 1, CASE WHEN state = 20 THEN NULL ELSE 1 END, CASE WHEN deadline_ms % 40 "
            "= 1 THEN NULL ELSE 1 END, 'd' FROM sessions",
            NULL, NULL);
    with_db(w, "INSERT INTO streams (id, org_id, last_seq) SELECT id, org_id, 0 FROM sessions",
            NULL, NULL);
    with_db(w,
            "INSERT INTO gate_votes (gate_id, user_id, decision, at_ms) SELECT id, 'u', 1, 1 FROM "
            "gates",
            NULL, NULL);
    with_db(w,
            "INSERT INTO approval_links (id, session_id, gate_id, org_id, label, made_by, "
            "decisions, created_ms, expires_ms) SELECT 'l-' || id, session_id, id, org_id, 'l', "
            "'u', 3, 1, 2 FROM gates",
            NULL, NULL);
    with_db(w,
            "INSERT INTO turns (id, session_id, pos, state, source, prompt, created_ms, ended_ms) "
            "SELECT 't-' || id, id, 1, CASE WHEN state = 20 THEN 10 ELSE 90 END, 1, 'p', 1, CASE "
            "WHEN state = 20 THEN NULL ELSE 1 END FROM sessions",
            NULL, NULL);
    with_db(w,
            "INSERT INTO checkpoints (id, session_id, epoch, seq, number, kind, state, root_id, "
            "ref, created_ms, expires_ms) SELECT 'c-' || k || id, id, 1, k, k, 1, 1, 'c-1' || id, "
            "'{}', 1, deadline_ms FROM sessions, (SELECT 1 AS k UNION SELECT 2 UNION SELECT 3 "
            "UNION SELECT 4) AS n",
            NULL, NULL);
    with_db(w,
            "INSERT INTO checkpoint_parts (session_id, epoch, number, name, object_id, bytes, "
            "sha256, dead) SELECT id, 1, 1, 'n', 'o-' || id, 1, 's', CASE WHEN "
            "deadline_ms % 100 = 1 THEN 1 ELSE 0 END FROM sessions",
            NULL, NULL);
    with_db(w, "ANALYZE", NULL, NULL);
}

static int on_plan(void *arg, struct mu_row *row)
{
    const bool *pg = ((void **)arg)[1];
    mu_buf_add((struct mu_buf *)((void **)arg)[0], mu_row_bytes(row, *pg ? 0 : 3));
    mu_buf_add_char((struct mu_buf *)((void **)arg)[0], '\n');
    return 0;
}

/* The plan of a statement with parameters, as the prepared one of a long-lived connection gets it:
 * without knowing the values. */
static const char *plan_of(struct world *w, const struct mu_stmt *s)
{
    static char out[16384], sql[16384], values[256];
    struct mu_db *db = NULL;
    struct mu_err err = {0};
    struct mu_buf b;
    mu_buf_init(&b, sizeof out - 1);
    if (mu_db_open(&(struct mu_db_opts){.url = w->url}, &db, &err) < 0) {
        fail_msg("%s", err.text);
    }
    char *text = mu_db_expand(w->pg ? MU_DB_PG : MU_DB_SQLITE, w->pg && s->pg ? s->pg : s->sql);
    assert_non_null(text);
    void *arg[] = {&b, &w->pg};
    struct mu_stmt explain = {s->name, s->sig, sql, NULL};
    int r;
    if (w->pg) {
        size_t n = 0, v = 0;
        char types[256] = "";
        bool some = s->sig[0] != 0; /* a list is not empty */
        values[0] = 0;
        for (size_t i = 0; s->sig[i]; i++) {
            char c = s->sig[i];
            n += (size_t)snprintf(types + n, sizeof types - n, "%s%s", i ? "," : "",
                                  c == 't'   ? "text"
                                  : c == 'i' ? "bigint"
                                             : "bytea");
            v += (size_t)snprintf(values + v, sizeof values - v, "%s%s", i ? "," : "",
                                  c == 'i' ? "5" : "'org-7'");
        }
        snprintf(sql, sizeof sql,
                 "SET plan_cache_mode = force_generic_plan; PREPARE q %s%s%s AS %s",
                 some ? "(" : "", types, some ? ")" : "", text);
        if (mu_db_script(db, sql) < 0) {
            fail_msg("%s: %s", s->name, mu_db_errmsg(db));
        }
        explain.sig = "";
        snprintf(sql, sizeof sql, "EXPLAIN EXECUTE q %s%s%s", some ? "(" : "", values,
                 some ? ")" : "");
        r = mu_db_run(db, &explain, NULL, 0, on_plan, arg);
    } else {
        struct mu_val args[16];
        unsigned n = 0;
        for (; s->sig[n]; n++) {
            mu_bytes any = MU_B("org-7");
            args[n] = s->sig[n] == 'i' ? MU_VI(5) : s->sig[n] == 'b' ? MU_VB(any) : MU_VT(any);
        }
        snprintf(sql, sizeof sql, "EXPLAIN QUERY PLAN %s", text);
        r = mu_db_run(db, &explain, args, n, on_plan, arg);
    }
    if (r < 0) {
        fail_msg("%s: %s", s->name, mu_db_errmsg(db));
    }
    mu_free(text);
    mu_db_close(db);
    snprintf(out, sizeof out, "%.*s", MU_ARGS(mu_buf_bytes(&b)));
    mu_buf_fini(&b);
    return out;
}

static bool reads_a_table(struct world *w, const char *plan)
{
    if (w->pg) {
        return strstr(plan, "Seq Scan") != NULL;
    }
    for (const char *at = plan; (at = strstr(at, "SCAN ")); at++) {
        const char *end = strchr(at, '\n');
        const char *index = strstr(at, "INDEX");
        /* results of subqueries are read as a whole, which is right */
        bool sub = strncmp(at + 5, "s\n", 2) == 0 || strncmp(at + 5, "a\n", 2) == 0 ||
                   strncmp(at + 5, "c\n", 2) == 0 || strncmp(at + 5, "x\n", 2) == 0 ||
                   strncmp(at + 5, "r\n", 2) == 0 || strncmp(at + 5, "(", 1) == 0;
        if (!sub && (!index || index > end)) {
            return true;
        }
    }
    return false;
}

static void check_all(struct world *w, const struct mu_planned *all)
{
    for (; all->stmt; all++) {
        const char *plan = plan_of(w, all->stmt);
        if (!strstr(plan, all->index) || reads_a_table(w, plan)) {
            fail_msg("%s does not use %s alone:\n%s", all->stmt->name, all->index, plan);
        }
    }
}

static void lists_and_sweeps_are_answered_from_their_index(struct world *w)
{
    fill(w);
    fill_live(w);
    check_all(w, mu_list_planned);
    check_all(w, mu_query_planned);
    check_all(w, mu_sweep_planned);
    check_all(w, mu_moves_planned);
    check_all(w, mu_quota_planned);
    check_all(w, mu_attempts_planned);
    check_all(w, mu_skills_planned);
    check_all(w, mu_create_planned);
    check_all(w, mu_open_planned);
    check_all(w, mu_links_planned);
    check_all(w, mu_live_planned);
    check_all(w, mu_turns_planned);
    check_all(w, mu_gates_planned);
    check_all(w, mu_gates_resolve_planned);
    check_all(w, mu_gates_read_planned);
    check_all(w, mu_report_planned);
    check_all(w, mu_checkpoints_planned);
    check_all(w, mu_checkpoints_read_planned);
    check_all(w, mu_keeper_planned);
    check_all(w, mu_restore_planned);
    check_all(w, mu_hibernate_planned);
    const struct mu_planned due[] = {{&mu_q_sched_due, "schedules_due"}, {NULL, NULL}};
    check_all(w, due);
    with_db(w, "DELETE FROM sessions", NULL, NULL);
}

/* The check itself: it must notice a partial index that does not match. */
static void a_parameter_in_a_partial_predicate_is_noticed(struct world *w)
{
    fill(w);
    with_db(w, "ANALYZE", NULL, NULL);
    static const struct mu_stmt bad = {
        "bad", "i", "SELECT id FROM sessions WHERE deadline_ms <= $1 ORDER BY deadline_ms", NULL};
    const char *plan = plan_of(w, &bad);
    assert_null(strstr(plan, "sessions_due"));
    assert_true(reads_a_table(w, plan));
}

IN_WORLD(lists_and_sweeps_are_answered_from_their_index)
IN_WORLD(a_parameter_in_a_partial_predicate_is_noticed)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(lists_and_sweeps_are_answered_from_their_index),
        ON_BOTH(a_parameter_in_a_partial_predicate_is_noticed),
    };
    return cmocka_run_group_tests(tests, pg_begin, pg_end);
}
