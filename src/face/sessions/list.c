/* GET /sessions */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "face/sessions/sessions_int.h"

static const char list_name[] = "sessions";

struct listing {
    struct mu_call *c;
    struct mu_session_list op;
    struct mu_sess_paging paging;
    struct mu_json_w w;
    struct mu_id cursor;
    struct mu_fleet_find find; /* the runner that runnerId names */
    char org[129];
    int64_t now_ms;
};

#define STATES                                                                                     \
    "CREATED QUEUED PREPARING_WORKSPACE STARTING_PROVIDER RUNNING WAITING_FOR_APPROVAL "           \
    "PAUSED_BY_HUMAN STOPPING COMPLETED FAILED TIMED_OUT active terminal"

const struct mu_schema mu_sess_list_query[] = {
    {.name = "orgId",
     .type = MU_S_STRING,
     .form = MU_F_ID,
     .doc = "The org; default: the caller's own, for the administrator all."},
    {.name = "state",
     .type = MU_S_STRING,
     .flags = MU_S_REPEAT,
     .words = STATES,
     .doc = "Any of these states; may be repeated."},
    {.name = "providerId",
     .type = MU_S_STRING,
     .words = "codex claude_code gemini_cli omnara opencode shell custom",
     .doc = "Sessions of this provider."},
    {.name = "runnerId", .type = MU_S_STRING, .min = 1, .max = 200, .doc = "On this runner."},
    {.name = "repoUrl", .type = MU_S_STRING, .min = 1, .max = 2048, .doc = "Of this repository."},
    {.name = "createdAfter", .type = MU_S_TIME, .doc = "Created after this time."},
    {.name = "createdBefore", .type = MU_S_TIME, .doc = "Created before this time."},
    {.name = "q",
     .type = MU_S_STRING,
     .flags = MU_S_NO_NUL,
     .max = 400,
     .doc = "Up to four words, each found in the task."},
    {.name = "view",
     .type = MU_S_STRING,
     .words = "native",
     .doc = "native: also the org's runs of the Oz API and its other sessions."},
    MU_SESS_PAGING,
    {0}};

static void listed(struct mu_session_list *op, int result)
{
    struct listing *l = op->ctx;
    struct mu_json_w *w = &l->w;
    if (result < 0) {
        mu_call_fail(l->c, result);
        return;
    }
    mu_jw_arr_end(w);
    mu_jw_ki64(w, "total", op->total);
    if (!op->total_exact) {
        mu_jw_kbool(w, "totalIsLowerBound", true);
    }
    mu_jw_ki64(w, "page", l->paging.page);
    mu_jw_ki64(w, "pageSize", l->paging.size);
    mu_jw_kbool(w, "hasMore", op->more);
    if (op->more) {
        mu_sess_cursor_add(w, "nextCursor", l->c, list_name, mu_str(l->org), op->next);
    }
    mu_jw_obj_end(w);
    mu_call_data_send(l->c, 200, NULL, 0);
}

static int add_row(void *arg, const struct mu_session_view *v)
{
    struct listing *l = arg;
    mu_jw_obj(&l->w);
    mu_sess_summary(&l->w, v, l->now_ms, NULL);
    mu_jw_obj_end(&l->w);
    return l->w.buf->failed;
}

/* --- filters --- */

static int64_t time_of(struct mu_call *c, const char *key)
{
    int64_t ms = 0;
    mu_bytes v = mu_call_query(c, key, 0);
    return v.ptr && mu_time_parse(v, &ms) == 0 ? ms : 0;
}

/* Up to four words; more are a problem that the check has told. */
static unsigned words_of(mu_bytes text, mu_bytes *words)
{
    unsigned n = 0;
    mu_bytes rest = text;
    while (rest.ptr) {
        mu_bytes word = mu_bytes_split(&rest, ' ');
        if (word.len && n < 4) {
            words[n] = word;
        }
        n += word.len > 0;
    }
    return n;
}

void mu_sess_check_list(struct mu_call *c)
{
    mu_bytes words[4];
    mu_sess_check_paging(c);
    if (words_of(mu_call_query(c, "q", 0), words) > 4) {
        mu_call_issue(c, "too_big", "q", "q must be at most four words");
    }
}

static int take_words(struct listing *l)
{
    mu_bytes copy = mu_arena_dup(mu_call_arena(l->c), mu_call_query(l->c, "q", 0));
    if (!copy.ptr) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < copy.len; i++) {
        ((char *)(uintptr_t)copy.ptr)[i] = (char)tolower((unsigned char)copy.ptr[i]);
    }
    l->op.n_words = words_of(copy, l->op.words);
    return 0;
}

static int take_filters(struct listing *l)
{
    struct mu_call *c = l->c;
    mu_bytes v;
    bool none = false; /* of what is asked for there is nothing */
    for (unsigned i = 0; (v = mu_call_query(c, "state", i)).ptr; i++) {
        none = !mu_sess_add_state(&l->op, v) && !mu_bytes_is(v, "CREATED");
    }
    /* nothing is ever stored as CREATED: it is queued with the same commit */
    none = none || (mu_call_query(c, "state", 0).ptr && !l->op.n_states && !l->op.n_outcomes);
    v = mu_call_query(c, "providerId", 0);
    const char *harness = v.ptr ? mu_sess_harness(v) : NULL;
    l->op.harness = v.ptr ? mu_str(harness ? harness : "none") : MU_B_NONE;
    l->op.name = mu_call_query(c, "repoUrl", 0); /* what sessions of this API are named by */
    l->op.created_after = time_of(c, "createdAfter");
    l->op.created_before = time_of(c, "createdBefore");
    bool native = mu_call_query(c, "view", 0).len > 0;
    l->op.views = MU_VIEW_BIT(MU_VIEW_VILLAGE) |
                  (native ? MU_VIEW_BIT(MU_VIEW_OZ) | MU_VIEW_BIT(MU_VIEW_AGENT_OPS) |
                                MU_VIEW_BIT(MU_VIEW_WORKSPACE) | MU_VIEW_BIT(MU_VIEW_NATIVE)
                          : 0);
    if (none) {
        l->op.harness = MU_B("none");
    }
    return take_words(l);
}

/* false: answered. */
static bool take_place(struct listing *l)
{
    struct mu_call *c = l->c;
    l->paging = mu_sess_paging_of(c);
    l->op.limit = (unsigned)l->paging.size;
    l->op.want_total = true;
    if (!l->paging.cursor.ptr) {
        l->op.offset = (unsigned)((l->paging.page - 1) * l->paging.size);
        return true;
    }
    int r = mu_sess_cursor_read(c, list_name, mu_str(l->org), l->paging.cursor, &l->cursor);
    if (r == MU_E_INVALID) {
        mu_call_issue(c, "invalid_format", "cursor", "cursor is not one of this list");
        return !mu_call_refused(c);
    }
    if (r < 0) {
        mu_call_fail(c, r);
        return false;
    }
    l->op.before = mu_id_bytes(&l->cursor);
    return true;
}

static void start(struct listing *l)
{
    l->w = mu_call_data(l->c);
    mu_jw_obj(&l->w);
    mu_jw_key(&l->w, "items");
    mu_jw_arr(&l->w);
    l->op.each = add_row;
    l->op.arg = l;
    l->op.done = listed;
    l->op.ctx = l;
    int r = mu_session_list(mu_sess_oz(l->c)->sessions, &l->op);
    if (r < 0) {
        mu_call_fail(l->c, r);
    }
}

static void runner_found(struct mu_fleet_find *op)
{
    struct listing *l = op->ctx;
    l->op.worker_id = op->found ? mu_str(op->name) : op->given;
    start(l);
}

void mu_sess_list(struct mu_call *c)
{
    const struct mu_principal *p = mu_call_principal(c);
    struct listing *l = mu_call_new(c, sizeof *l);
    if (!l) {
        return;
    }
    mu_bytes given = mu_call_query(c, "orgId", 0), org = mu_str(p->org_id);
    if (given.ptr && !mu_sess_org(c, given, &org)) {
        return;
    }
    l->c = c;
    l->now_ms = mu_env_wall_ms(mu_sess_oz(c)->env);
    bool all = p->admin && !given.ptr;
    snprintf(l->org, sizeof l->org, "%.*s", MU_ARGS(all ? MU_B("*") : org));
    l->op.read.loop = mu_call_loop(c);
    l->op.admin = all;
    l->op.org_id = mu_str(l->org);
    if (!take_place(l)) {
        return;
    }
    int r = take_filters(l);
    if (r < 0) {
        mu_call_fail(c, r);
        return;
    }
    l->find = (struct mu_fleet_find){.loop = mu_call_loop(c),
                                     .given = mu_call_query(c, "runnerId", 0),
                                     .org_id = all ? MU_B_NONE : mu_str(l->org),
                                     .done = runner_found,
                                     .ctx = l};
    if (l->find.given.ptr) {
        mu_fleet_find(mu_sess_oz(c)->fleet, &l->find);
    } else {
        start(l);
    }
}
