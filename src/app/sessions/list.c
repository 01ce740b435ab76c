/* Lists (data-model.md 5.8): without filters one statement; with filters candidate ids come from
 * one or several index paths, merged newest first, the other filters are tested on them here, and
 * the rows of the hits are read by key. A scan is bounded in time; where it stops, the page is
 * short and carries a cursor. */
#include <stdio.h>

#include "app/sessions/query_int.h"
#include "app/sessions/statements_int.h"

enum {
    CANDIDATES = 200,
    BUDGET_MS = 50,
    DEEP_BUDGET_MS = 200, /* of a page with a number, and of a total */
    MAX_PATHS = 2 * MU_LIST_STATES,
    VIEWS = MU_VIEW_NATIVE,
    SEARCHED = 14, /* the column of the searched text */
};

#define COLUMNS                                                                                    \
    "s.id, s.source, s.name, s.model, s.environment_id, s.creator, s.skill, s.updated_ms, "        \
    "s.state, s.outcome, s.schedule_id, s.view, s.harness, s.worker_id"
#define WORDS_JOIN   " JOIN session_specs p ON p.session_id = s.id"
#define TAIL(from)   " AND " from " < $2 AND " from " > $4 ORDER BY " from " DESC LIMIT $3"
#define PLAIN(where) "SELECT " COLUMNS ", '' FROM sessions s WHERE " where TAIL("s.id")
#define WORDS(where)                                                                               \
    "SELECT " COLUMNS                                                                              \
    ", p.search FROM (SELECT * FROM sessions s WHERE " where TAIL("s.id") ") s" WORDS_JOIN         \
                                                                          " ORDER BY s.id DESC"

/* Two texts each: without and with the searched text. Live states are literals because of the
 * partial index. */
static const struct mu_stmt q_org[2] = {
    {"scan_org", "ttiti", PLAIN("s.org_id = $1 AND s.view = $5"), NULL},
    {"scan_org_q", "ttiti", WORDS("s.org_id = $1 AND s.view = $5"), NULL}};
static const struct mu_stmt q_all[2] = {{"scan_all", "ttit", PLAIN("$1 = ''"), NULL},
                                        {"scan_all_q", "ttit", WORDS("$1 = ''"), NULL}};
static const struct mu_stmt q_live[2] = {
    {"scan_live", "ttiti", PLAIN("s.org_id = $1 AND s.state = $5 AND s.ended_ms IS NULL"), NULL},
    {"scan_live_q", "ttiti", WORDS("s.org_id = $1 AND s.state = $5 AND s.ended_ms IS NULL"), NULL}};
static const struct mu_stmt q_done[2] = {
    {"scan_done", "ttiti", PLAIN("s.org_id = $1 AND s.outcome = $5 AND s.ended_ms IS NOT NULL"),
     NULL},
    {"scan_done_q", "ttiti", WORDS("s.org_id = $1 AND s.outcome = $5 AND s.ended_ms IS NOT NULL"),
     NULL}};
static const struct mu_stmt q_sched[2] = {
    {"scan_sched", "ttitt", PLAIN("(s.org_id || '' = $1 OR $1 = '') AND s.schedule_id = $5"), NULL},
    {"scan_sched_q", "ttitt", WORDS("(s.org_id || '' = $1 OR $1 = '') AND s.schedule_id = $5"),
     NULL}};
static const struct mu_stmt q_art[2] = {
    {"scan_art", "ttiti",
     "SELECT " COLUMNS ", '' FROM (SELECT DISTINCT session_id FROM artifacts WHERE org_id = $1 AND "
     "kind = $5 AND session_id < $2 AND "
     "session_id > $4 ORDER BY session_id DESC LIMIT $3) a JOIN sessions s ON s.id = a.session_id "
     "ORDER BY s.id DESC",
     NULL},
    {"scan_art_q", "ttiti",
     "SELECT " COLUMNS ", p.search FROM (SELECT DISTINCT session_id FROM artifacts WHERE org_id = "
     "$1 AND kind = $5 AND session_id < "
     "$2 AND session_id > $4 ORDER BY session_id DESC LIMIT $3) a JOIN sessions s ON s.id = "
     "a.session_id" WORDS_JOIN " ORDER BY s.id DESC",
     NULL}};
static const struct mu_stmt q_count = {
    "list_count", "ttii",
    "SELECT count(*) FROM (SELECT 1 FROM sessions WHERE org_id = $1 AND view = $4 AND id < $2 "
    "LIMIT $3) x",
    NULL};
static const struct mu_stmt q_has_art = {
    "has_art", "ti", "SELECT 1 FROM artifacts WHERE session_id = $1 AND kind = $2 LIMIT 1", NULL};

struct candidate {
    char id[MU_ID_LEN + 1];
    bool hit;
};

struct path {
    const struct mu_stmt *stmt;
    struct mu_val extra; /* $5 */
    bool has_extra, ended;
    unsigned n, at;
    struct candidate page[CANDIDATES];
    char before[MU_ID_LEN + 2];
};

struct scan {
    struct mu_session_list *op;
    struct mu_db *db;
    struct path *filling;
    char low[MU_ID_LEN + 1];
    bool test_state, test_artifact;
    struct path paths[MAX_PATHS];
    unsigned n_paths;
};

/* --- the residual filters --- */

static bool text_is(mu_bytes wanted, mu_bytes have)
{
    return !wanted.ptr || mu_bytes_eq(wanted, have);
}

static bool state_matches(const struct mu_session_list *op, int state, int outcome)
{
    for (unsigned i = 0; i < op->n_states; i++) {
        if (outcome == 0 && op->states[i] == state) {
            return true;
        }
    }
    for (unsigned i = 0; i < op->n_outcomes; i++) {
        if (outcome && op->outcomes[i] == outcome) {
            return true;
        }
    }
    return op->n_states + op->n_outcomes == 0;
}

static bool row_matches(const struct scan *s, struct mu_row *row)
{
    const struct mu_session_list *op = s->op;
    if ((op->source && mu_row_i64(row, 1) != op->source) ||
        !text_is(op->name, mu_row_bytes(row, 2)) || !text_is(op->model, mu_row_bytes(row, 3)) ||
        !text_is(op->environment_id, mu_row_bytes(row, 4)) ||
        !text_is(op->creator, mu_row_bytes(row, 5)) || !text_is(op->skill, mu_row_bytes(row, 6)) ||
        !text_is(op->schedule_id, mu_row_bytes(row, 10)) ||
        !(op->views & MU_VIEW_BIT(mu_row_i64(row, 11))) ||
        !text_is(op->harness, mu_row_bytes(row, 12)) ||
        !text_is(op->worker_id, mu_row_bytes(row, 13)) ||
        (op->updated_after && mu_row_i64(row, 7) <= op->updated_after)) {
        return false;
    }
    if (s->test_state && !state_matches(op, (int)mu_row_i64(row, 8), (int)mu_row_i64(row, 9))) {
        return false;
    }
    for (unsigned i = 0; i < op->n_words; i++) {
        if (mu_bytes_find(mu_row_bytes(row, SEARCHED), op->words[i]) < 0) {
            return false;
        }
    }
    return true;
}

static int take_candidate(void *arg, struct mu_row *row)
{
    struct scan *s = arg;
    struct path *p = s->filling;
    struct candidate *c = &p->page[p->n++];
    snprintf(c->id, sizeof c->id, "%.*s", MU_ARGS(mu_row_bytes(row, 0)));
    c->hit = row_matches(s, row);
    return 0;
}

/* --- the paths --- */

static void add_path(struct scan *s, const struct mu_stmt *pair, bool has_extra,
                     struct mu_val extra)
{
    struct path *p = &s->paths[s->n_paths++];
    p->stmt = &pair[s->op->n_words > 0];
    p->has_extra = has_extra;
    p->extra = extra;
    p->ended = false;
    p->n = p->at = 0;
    snprintf(p->before, sizeof p->before, "%.*s",
             MU_ARGS(s->op->before.ptr ? s->op->before : MU_B("~")));
}

/* One path a number; one that is named twice would give its rows twice. */
static void add_each(struct scan *s, const struct mu_stmt *pair, const int *numbers, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        bool before = false;
        for (unsigned k = 0; k < i; k++) {
            before = before || numbers[k] == numbers[i];
        }
        if (!before) {
            add_path(s, pair, true, MU_VI(numbers[i]));
        }
    }
}

static void choose_paths(struct scan *s)
{
    struct mu_session_list *op = s->op;
    s->test_state = op->n_states + op->n_outcomes > 0;
    s->test_artifact = op->artifact_kind != 0;
    if (op->schedule_id.ptr) {
        add_path(s, q_sched, true, MU_VT(op->schedule_id));
    } else if (op->artifact_kind && !op->admin) {
        s->test_artifact = false;
        add_path(s, q_art, true, MU_VI(op->artifact_kind));
    } else if (s->test_state && !op->admin) {
        s->test_state = false;
        add_each(s, q_live, op->states, op->n_states);
        add_each(s, q_done, op->outcomes, op->n_outcomes);
    } else if (op->admin) {
        add_path(s, q_all, false, MU_VNULL);
    } else {
        for (int view = 1; view <= VIEWS; view++) {
            if (op->views & MU_VIEW_BIT(view)) {
                add_path(s, q_org, true, MU_VI(view));
            }
        }
    }
}

static int refill(struct scan *s, struct path *p)
{
    s->filling = p;
    p->n = p->at = 0;
    const struct mu_val args[] = {MU_VT(s->op->admin ? MU_B("") : s->op->org_id),
                                  MU_VT(mu_str(p->before)), MU_VI(CANDIDATES),
                                  MU_VT(mu_str(s->low)), p->extra};
    int r = mu_db_run(s->db, p->stmt, args, p->has_extra ? 5 : 4, take_candidate, s);
    if (r < 0) {
        return r;
    }
    p->ended = p->n < CANDIDATES;
    if (p->n) {
        memcpy(p->before, p->page[p->n - 1].id, sizeof p->page[0].id);
    }
    return 0;
}

/* The newest candidate of all paths; NULL when all ended. */
static int next_candidate(struct scan *s, const struct candidate **ret)
{
    struct path *best = NULL;
    for (unsigned i = 0; i < s->n_paths; i++) {
        struct path *p = &s->paths[i];
        if (p->at == p->n && !p->ended) {
            int r = refill(s, p);
            if (r < 0) {
                return r;
            }
        }
        if (p->at < p->n && (!best || strcmp(p->page[p->at].id, best->page[best->at].id) > 0)) {
            best = p;
        }
    }
    *ret = best ? &best->page[best->at++] : NULL;
    return 0;
}

/* A page that is full by its bytes ends as one that is full by number. */
static int delivered(struct mu_session_list *op, int r)
{
    if (r > 0) {
        op->limit = op->count;
    }
    return r < 0 ? r : 0;
}

static int take_hit(void *arg, struct mu_row *row)
{
    struct mu_session_list *op = arg;
    struct mu_session_view v;
    mu_session_view_read(row, &v);
    op->count++;
    return delivered(op, op->each(op->arg, &v));
}

static void stop_at(struct mu_session_list *op, const char *id)
{
    op->more = true;
    snprintf(op->next, sizeof op->next, "%s", id);
}

/* Whether a candidate passes the last test, which has a statement of its own: 1, 0, or a code. */
static int is_hit(struct scan *s, const struct candidate *c)
{
    if (!c->hit || !s->test_artifact) {
        return c->hit;
    }
    return MU_DB_RUN(s->db, &q_has_art, NULL, NULL, MU_VT(mu_str(c->id)),
                     MU_VI(s->op->artifact_kind));
}

/* What one hit adds to the page. 1: nothing more is wanted. */
static int take_one(struct mu_session_list *op, struct mu_db *db, const struct candidate *c,
                    unsigned hits, const char *last)
{
    if (hits <= op->offset) {
        return 0;
    }
    if (op->count < op->limit) {
        int r = mu_session_view_by_id(db, mu_str(c->id), take_hit, op);
        return r < 0 ? r : 0;
    }
    if (!op->more) {
        stop_at(op, last);
    }
    return !op->want_total || hits > MU_LIST_DEPTH;
}

static int scan_all(struct scan *s)
{
    struct mu_session_list *op = s->op;
    const struct mu_env *env = op->sessions->opts.env;
    bool deep = op->offset || op->want_total;
    int64_t until = mu_env_mono_ms(env) + (deep ? DEEP_BUDGET_MS : BUDGET_MS);
    char last[MU_ID_LEN + 1] = "";
    unsigned hits = 0;
    for (int r = 0; r == 0;) {
        const struct candidate *c;
        r = next_candidate(s, &c);
        if (r < 0) {
            return r;
        }
        if (!c) {
            op->total_exact = hits <= MU_LIST_DEPTH;
            break;
        }
        r = is_hit(s, c);
        if (r > 0) {
            r = take_one(op, s->db, c, ++hits, last);
        }
        if (r < 0) {
            return r;
        }
        memcpy(last, c->id, sizeof last);
        if (r == 0 && mu_env_mono_ms(env) > until) {
            if (!op->more) {
                stop_at(op, last);
            }
            break;
        }
    }
    op->total = MU_MIN(hits, (unsigned)MU_LIST_DEPTH);
    return 0;
}

static int run_scan(struct mu_session_list *op, struct mu_db *db)
{
    struct scan *s = mu_alloc(sizeof *s);
    if (!s) {
        return MU_E_UNAVAILABLE;
    }
    s->op = op;
    s->db = db;
    s->n_paths = 0;
    snprintf(s->low, sizeof s->low, "%s",
             op->created_after ? mu_id_floor(op->created_after + 1).text : "");
    choose_paths(s);
    int r = scan_all(s);
    mu_free(s);
    return r;
}

/* --- the plain page --- */

struct page {
    struct mu_session_list *op;
    char last[MU_ID_LEN + 1];
};

static int take_page(void *arg, struct mu_row *row)
{
    struct page *p = arg;
    if (p->op->count == p->op->limit) { /* also for the rows after a page that was full early */
        stop_at(p->op, p->last);
        return 0;
    }
    struct mu_session_view v;
    mu_session_view_read(row, &v);
    snprintf(p->last, sizeof p->last, "%.*s", MU_ARGS(v.id));
    p->op->count++;
    return delivered(p->op, p->op->each(p->op->arg, &v));
}

static int run_list(struct mu_read *read, struct mu_db *db)
{
    struct mu_session_list *op = MU_CONTAINER(read, struct mu_session_list, read);
    op->count = op->total = 0;
    op->more = op->total_exact = false;
    int view = 0; /* the only one asked for */
    for (int i = 1; i <= VIEWS; i++) {
        view = op->views == MU_VIEW_BIT(i) ? i : view;
    }
    bool filtered = op->n_states || op->n_outcomes || op->source || op->artifact_kind ||
                    op->name.ptr || op->model.ptr || op->environment_id.ptr || op->creator.ptr ||
                    op->schedule_id.ptr || op->skill.ptr || op->created_after ||
                    op->updated_after || op->n_words || op->harness.ptr || op->worker_id.ptr ||
                    op->offset || !view || (op->want_total && op->admin);
    struct mu_id bound;
    if (op->created_before) { /* an id range too: the smaller of both cursors counts */
        bound = mu_id_floor(op->created_before);
        if (!op->before.ptr || mu_bytes_cmp(mu_id_bytes(&bound), op->before) < 0) {
            op->before = mu_id_bytes(&bound);
        }
    }
    if (filtered) {
        return run_scan(op, db);
    }
    struct page p = {op, ""};
    mu_bytes before = op->before.ptr ? op->before : MU_B("~");
    int64_t n = 0;
    int r =
        mu_session_view_page(db, op->admin, op->org_id, view, before, op->limit + 1, take_page, &p);
    if (r >= 0 && op->want_total) {
        r = MU_DB_RUN(db, &q_count, mu_row_take_i64, &n, MU_VT(op->org_id), MU_VT(before),
                      MU_VI(MU_LIST_DEPTH + 1), MU_VI(view));
        op->total = (unsigned)MU_MIN(n, (int64_t)MU_LIST_DEPTH);
        op->total_exact = n <= MU_LIST_DEPTH;
    }
    return r < 0 ? r : 0;
}

static void list_done(struct mu_read *read, int result)
{
    struct mu_session_list *op = MU_CONTAINER(read, struct mu_session_list, read);
    op->done(op, result);
}

int mu_session_list(struct mu_sessions *s, struct mu_session_list *op)
{
    if (op->offset > MU_LIST_DEPTH || op->offset + op->limit > MU_LIST_DEPTH) {
        return MU_E_INVALID;
    }
    op->sessions = s;
    op->views = op->views ? op->views : MU_VIEW_BIT(MU_VIEW_OZ);
    op->read.run = run_list;
    op->read.done = list_done;
    return mu_readers_submit(s->opts.readers, &op->read);
}

const struct mu_planned mu_list_planned[] = {
    {&q_org[0], "sessions_org"},        {&q_org[1], "sessions_org"},
    {&q_live[0], "sessions_live"},      {&q_live[1], "sessions_live"},
    {&q_done[0], "sessions_done"},      {&q_done[1], "sessions_done"},
    {&q_sched[0], "sessions_schedule"}, {&q_sched[1], "sessions_schedule"},
    {&q_art[0], "artifacts_kind"},      {&q_art[1], "artifacts_kind"},
    {&q_count, "sessions_org"},         {NULL, NULL},
};
