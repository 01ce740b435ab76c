/* Lists against a model in C: every filter alone and combined, random cursors and limits. */
#include "session_moves.h"

enum { N = 300, ROUNDS = 400, NAMES = 3 };

struct model {
    struct mu_id id;
    int org, source, state, outcome, artifact; /* bit per kind */
    int name, model, environment, creator, schedule, skill, title, view, harness, worker;
    int64_t created, updated;
};
static struct model model[N];
static const char *const names[NAMES] = {"alpha", "beta", "gamma"};
static unsigned seed = 7;

static int dice(int n)
{
    return (int)((unsigned)rand_r(&seed) % (unsigned)n);
}

static const struct mu_principal *org_of(struct world *w, int i)
{
    return i ? &w->bob : &w->alice;
}

/* Sessions of two tenants, in every state, seeded with artifacts. */
static void populate(struct world *w)
{
    for (int i = 0; i < N; i++) {
        struct model *m = &model[i];
        *m = (struct model){.org = dice(2),
                            .source = 1 + dice(3),
                            .name = dice(NAMES),
                            .model = dice(NAMES),
                            .environment = dice(NAMES) - 1,
                            .schedule = dice(NAMES) - 1,
                            .skill = dice(NAMES),
                            .title = dice(NAMES),
                            .view = dice(2) ? MU_VIEW_OZ : 1 + dice(3),
                            .harness = dice(NAMES),
                            .worker = dice(NAMES)};
        struct mu_session_create op = new_run(org_of(w, m->org));
        op.source = (enum mu_source)m->source;
        op.name = mu_str(names[m->name]);
        op.model = mu_str(names[m->model]);
        op.skill = mu_str(names[m->skill]);
        op.title = mu_str(names[m->title]);
        op.view = m->view;
        op.harness = mu_str(names[m->harness]);
        op.environment_id = m->environment < 0 ? MU_B_NONE : mu_str(names[m->environment]);
        op.schedule_id = m->schedule < 0 ? MU_B_NONE : mu_str(names[m->schedule]);
        op.route = dice(5) ? MU_ROUTE_PROVIDER : MU_ROUTE_WORKER;
        advance(w, dice(3)); /* several in one millisecond, too */
        assert_int_equal(do_create(w, &op), 0);
        m->id = op.id;
        m->created = op.now_ms;
        m->updated = op.now_ms + dice(500);
        m->creator = m->org;
        static const int all[][2] = {{20, 0}, {60, 0}, {80, 0}, {90, 1}, {90, 2}, {92, 3}, {94, 4}};
        int k = op.route == MU_ROUTE_WORKER ? 0 : dice(7);
        m->state = op.route == MU_ROUTE_WORKER ? 22 : all[k][0];
        m->outcome = op.route == MU_ROUTE_WORKER ? 0 : all[k][1];
        m->artifact = dice(4);
        put_sql(w,
                "UPDATE sessions SET state = %d, outcome = %d, ended_ms = %s, updated_ms = %lld, "
                "worker_id = '%s' WHERE id = '%s'",
                m->state, m->outcome, m->outcome ? "1" : "NULL", (long long)m->updated,
                names[m->worker], m->id.text);
        for (int kind = 1; kind <= 2; kind++) {
            for (int copy = 0; (m->artifact & kind) && copy < 2; copy++) {
                put_sql(w,
                        "INSERT INTO artifacts (id, session_id, org_id, kind, dedupe, data, "
                        "created_ms) VALUES ('a%d-%d-%d', '%s', '%s', %d, '%d-%d', '{}', 1)",
                        i, kind, copy, m->id.text, org_of(w, m->org)->org_id, kind, kind, copy);
            }
        }
    }
}

static bool holds(const struct mu_session_list *op, struct world *w, const struct model *m)
{
    bool state = op->n_states + op->n_outcomes == 0;
    for (unsigned i = 0; i < op->n_states; i++) {
        state = state || (m->outcome == 0 && m->state == op->states[i]);
    }
    for (unsigned i = 0; i < op->n_outcomes; i++) {
        state = state || (m->outcome && m->outcome == op->outcomes[i]);
    }
    for (unsigned i = 0; i < op->n_words; i++) {
        char text[64];
        snprintf(text, sizeof text, "%s\ndo it\n%s", names[m->title], names[m->skill]);
        state = state && mu_bytes_find(mu_str(text), op->words[i]) >= 0;
    }
    unsigned views = op->views ? op->views : MU_VIEW_BIT(MU_VIEW_OZ);
    return state && (views & MU_VIEW_BIT(m->view)) &&
           (!op->harness.ptr || mu_bytes_is(op->harness, names[m->harness])) &&
           (!op->worker_id.ptr || mu_bytes_is(op->worker_id, names[m->worker])) &&
           (op->admin || mu_bytes_is(op->org_id, org_of(w, m->org)->org_id)) &&
           (!op->source || op->source == m->source) &&
           (!op->artifact_kind || (m->artifact & op->artifact_kind)) &&
           (!op->name.ptr || mu_bytes_is(op->name, names[m->name])) &&
           (!op->model.ptr || mu_bytes_is(op->model, names[m->model])) &&
           (!op->skill.ptr || mu_bytes_is(op->skill, names[m->skill])) &&
           (!op->environment_id.ptr ||
            (m->environment >= 0 && mu_bytes_is(op->environment_id, names[m->environment]))) &&
           (!op->schedule_id.ptr ||
            (m->schedule >= 0 && mu_bytes_is(op->schedule_id, names[m->schedule]))) &&
           (!op->creator.ptr || mu_bytes_is(op->creator, org_of(w, m->creator)->uid)) &&
           (!op->created_after || m->created > op->created_after) &&
           (!op->created_before || m->created < op->created_before) &&
           (!op->updated_after || m->updated > op->updated_after);
}

struct got {
    unsigned n;
    char ids[MU_LIST_MAX + 1][MU_ID_LEN + 1];
};

static int take(void *arg, const struct mu_session_view *v)
{
    struct got *g = arg;
    if (g->n <= MU_LIST_MAX) {
        snprintf(g->ids[g->n++], sizeof g->ids[0], "%.*s", MU_ARGS(v->id));
    }
    return 0;
}

/* Reads all pages from a cursor on and compares with the model. */
static void compare(struct world *w, struct mu_session_list op, const char *from, int round)
{
    char cursor[MU_ID_LEN + 2];
    unsigned expected = 0, pages = 0;
    snprintf(cursor, sizeof cursor, "%s", from ? from : "");
    int at = N - 1;
    for (bool more = true; more;) {
        static struct got got;
        got.n = 0;
        struct mu_session_list page = op;
        page.before = cursor[0] ? mu_str(cursor) : MU_B_NONE;
        page.each = take;
        page.arg = &got;
        assert_int_equal(do_list(w, &page), 0);
        assert_int_equal(page.count, got.n);
        assert_true(got.n <= op.limit);
        for (unsigned i = 0; i < got.n; i++) {
            while (at >= 0 &&
                   (!holds(&op, w, &model[at]) || (from && strcmp(model[at].id.text, from) >= 0))) {
                at--;
            }
            if (at < 0 || strcmp(got.ids[i], model[at].id.text) != 0) {
                fail_msg("round %d: %s instead of %s", round, got.ids[i],
                         at < 0 ? "the end" : model[at].id.text);
            }
            at--;
            expected++;
        }
        more = page.more;
        if (more) {
            snprintf(cursor, sizeof cursor, "%s", page.next);
        }
        assert_true(++pages < 4 * N);
    }
    for (; at >= 0; at--) {
        if (holds(&op, w, &model[at]) && !(from && strcmp(model[at].id.text, from) >= 0)) {
            fail_msg("round %d: %s is missing after %u", round, model[at].id.text, expected);
        }
    }
}

static void set_late_filter(struct mu_session_list *op, int k)
{
    switch (k) {
    case 13:
        op->views = MU_VIEW_BIT(1 + dice(3)) | MU_VIEW_BIT(1 + dice(3));
        break;
    case 14:
        op->harness = mu_str(names[dice(NAMES)]);
        break;
    case 15:
        op->worker_id = mu_str(names[dice(NAMES)]);
        break;
    default:
        op->n_words = 1 + (unsigned)dice(3);
        for (unsigned i = 0; i < op->n_words; i++) {
            op->words[i] = mu_str(dice(3) ? names[dice(NAMES)] + 1 : "do it");
        }
    }
}

/* Sets filter number `k`. */
static void set_filter(struct world *w, struct mu_session_list *op, int k)
{
    static const int live[] = {20, 22, 60, 80};
    switch (k) {
    case 0:
        op->n_states = 1 + (unsigned)dice(3);
        for (unsigned i = 0; i < op->n_states; i++) {
            op->states[i] = live[dice(4)]; /* one may be named twice */
        }
        break;
    case 1:
        op->n_outcomes = 1 + (unsigned)dice(2);
        for (unsigned i = 0; i < op->n_outcomes; i++) {
            op->outcomes[i] = 1 + dice(4);
        }
        break;
    case 2:
        op->source = 1 + dice(3);
        break;
    case 3:
        op->artifact_kind = 1 + dice(2);
        break;
    case 4:
        op->name = mu_str(names[dice(NAMES)]);
        break;
    case 5:
        op->model = mu_str(names[dice(NAMES)]);
        break;
    case 6:
        op->environment_id = mu_str(names[dice(NAMES - 1)]);
        break;
    case 7:
        op->creator = mu_str(org_of(w, dice(2))->uid);
        break;
    case 8:
        op->schedule_id = mu_str(names[dice(NAMES - 1)]);
        break;
    case 9:
        op->skill = mu_str(names[dice(NAMES)]);
        break;
    case 10:
        op->created_after = model[dice(N)].created;
        break;
    case 11:
        op->created_before = model[dice(N)].created;
        break;
    case 12:
        op->updated_after = model[dice(N)].updated;
        break;
    default:
        set_late_filter(op, k);
    }
}
enum { FILTERS = 17 };

static struct mu_session_list a_list(struct world *w)
{
    return (struct mu_session_list){.admin = dice(3) == 0,
                                    .org_id = mu_str(org_of(w, dice(2))->org_id),
                                    .limit = 1 + (unsigned)dice(MU_LIST_MAX)};
}

static void every_list_is_what_the_model_says(struct world *w)
{
    doubling.on = false; /* nothing of this is about units */
    populate(w);
    for (int round = 0; round < ROUNDS; round++) {
        struct mu_session_list op = a_list(w);
        int alone = round < 6 * FILTERS ? round % FILTERS : -1;
        for (int k = 0; k < FILTERS; k++) {
            if (k == alone || (alone < 0 && dice(5) == 0)) {
                set_filter(w, &op, k);
            }
        }
        if (dice(4) == 0) {
            op.limit = 1 + (unsigned)dice(9);
        }
        struct mu_id stray = mu_id_floor(model[dice(N)].created);
        int c = dice(4);
        compare(w, op, c == 0 ? model[dice(N)].id.text : c == 1 ? stray.text : NULL, round);
    }
}

/* Pages by their number, and how many there are in all. */
static void any_page_is_found_by_its_number(struct world *w)
{
    doubling.on = false;
    populate(w);
    atomic_store(&w->still, true); /* or a slow machine would be shown short pages */
    for (int round = 0; round < ROUNDS / 4; round++) {
        struct mu_session_list op = a_list(w);
        for (int k = 0; k < FILTERS; k++) {
            if (round > 20 && dice(6) == 0) {
                set_filter(w, &op, k);
            }
        }
        unsigned total = 0, skip;
        for (int i = 0; i < N; i++) {
            total += holds(&op, w, &model[i]);
        }
        static struct got got;
        got.n = 0;
        op.want_total = dice(3) > 0;
        op.offset = skip = (unsigned)dice((int)total + 3);
        op.limit = 1 + (unsigned)dice(30);
        op.each = take;
        op.arg = &got;
        assert_int_equal(do_list(w, &op), 0);
        if (op.want_total && !(op.total == total && op.total_exact)) {
            fail_msg("round %d: %u of %u", round, op.total, total);
        }
        unsigned want = skip < total ? MU_MIN(op.limit, total - skip) : 0;
        assert_int_equal(got.n, want);
        assert_int_equal(op.more, skip + want < total);
        for (int i = N - 1, at = 0; i >= 0; i--) {
            if (holds(&op, w, &model[i]) && at++ >= (int)skip && at <= (int)(skip + want)) {
                assert_string_equal(got.ids[(unsigned)at - 1 - skip], model[i].id.text);
            }
        }
    }
    struct mu_session_list deep = {
        .org_id = mu_str(w->alice.org_id), .limit = 100, .offset = MU_LIST_DEPTH - 99};
    assert_int_equal(mu_session_list(w->sessions, &deep), MU_E_INVALID);
}

/* The candidates come in pages of 200: a rare hit lies beyond several of them. */
static void a_rare_hit_is_found(struct world *w)
{
    populate(w);
    put_sql(w, "UPDATE sessions SET name = 'rare', view = 1 WHERE id = '%s'", model[3].id.text);
    struct got got = {.n = 0};
    struct mu_session_list op = {
        .admin = true, .limit = 1, .name = MU_B("rare"), .each = take, .arg = &got};
    int pages = 0;
    do {
        char cursor[MU_ID_LEN + 1];
        memcpy(cursor, op.next, sizeof cursor);
        op.before = pages ? mu_str(cursor) : MU_B_NONE;
        assert_int_equal(do_list(w, &op), 0);
    } while (op.more && got.n == 0 && ++pages < N);
    assert_int_equal(got.n, 1);
    assert_string_equal(got.ids[0], model[3].id.text);
}

/* A page that is full says "more" only when there is something. */
static void the_last_full_page_has_no_next_one(struct world *w)
{
    struct mu_id with[3];
    for (int i = 0; i < 8; i++) {
        struct mu_id id = queued(w, &w->alice);
        if (i >= 5) {
            with[i - 5] = id;
            put_sql(
                w,
                "INSERT INTO artifacts (id, session_id, org_id, kind, dedupe, data, created_ms) "
                "VALUES ('a%d', '%s', '%s', 1, 'd', '{}', 1)",
                i, id.text, w->alice.org_id);
        }
    }
    for (int admin = 0; admin < 2; admin++) {
        struct got got = {.n = 0};
        struct mu_session_list op = {.admin = admin,
                                     .org_id = mu_str(w->alice.org_id),
                                     .limit = 3,
                                     .artifact_kind = 1,
                                     .each = take,
                                     .arg = &got};
        assert_int_equal(do_list(w, &op), 0);
        assert_int_equal(got.n, 3);
        assert_string_equal(got.ids[0], with[2].text);
        assert_false(op.more);
    }
}

IN_WORLD(every_list_is_what_the_model_says)
IN_WORLD(any_page_is_found_by_its_number)
IN_WORLD(a_rare_hit_is_found)
IN_WORLD(the_last_full_page_has_no_next_one)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(every_list_is_what_the_model_says),
        ON_BOTH(any_page_is_found_by_its_number),
        ON_BOTH(a_rare_hit_is_found),
        ON_BOTH(the_last_full_page_has_no_next_one),
    };
    return cmocka_run_group_tests(tests, pg_begin, pg_end);
}
