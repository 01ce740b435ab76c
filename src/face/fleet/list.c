/* GET /runners, /runners/{id}, /runners/capacity, /runners/{id}/events */
#include <errno.h>
#include <stdlib.h>

#include "face/fleet/fleet_int.h"

enum { EVENTS = 200, EVENTS_MAX = 1000 };

static const char list_name[] = "runners";

/* --- the list --- */

struct listing {
    struct mu_sess_paging paging;
    struct mu_id cursor, next;
    mu_bytes org, status, provider, feature, label; /* ptr NULL: any */
    bool more, lost;
    int64_t total;
    struct mu_worker_view *entries;
    size_t n, cap;
};

static bool wanted(const struct listing *l, const struct mu_worker_view *v)
{
    return (!l->org.ptr || mu_bytes_eq(v->org_id, l->org)) &&
           (!l->status.ptr || mu_bytes_is(l->status, mu_worker_status_name(v->status))) &&
           (!l->provider.ptr || mu_fleet_offers(v, "harnesses", l->provider)) &&
           (!l->feature.ptr || mu_fleet_offers(v, "features", l->feature)) &&
           (!l->label.ptr || mu_fleet_offers(v, "labels", l->label));
}

static int collect(void *arg, const struct mu_worker_view *v)
{
    struct listing *l = arg;
    if (!wanted(l, v)) {
        return 0;
    }
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 64;
        struct mu_worker_view *more = mu_realloc(l->entries, cap * sizeof *more);
        if (!more) {
            return -ENOMEM;
        }
        l->entries = more;
        l->cap = cap;
    }
    l->entries[l->n++] = *v;
    return 0;
}

static int by_host(const void *a, const void *b)
{
    const struct mu_worker_view *x = a, *y = b;
    int r = mu_bytes_cmp(x->host, y->host);
    return r ? r : mu_bytes_cmp(x->id, y->id);
}

/* Where the page begins. */
static size_t start_of(struct listing *l)
{
    if (!l->paging.cursor.ptr) {
        return (size_t)((l->paging.page - 1) * l->paging.size);
    }
    for (size_t i = 0; i < l->n; i++) {
        if (mu_bytes_is(l->entries[i].id, l->cursor.text)) {
            return i + 1;
        }
    }
    l->lost = true;
    return l->n;
}

static void look_list(struct mu_fleet_ask *x)
{
    struct listing *l = x->ctx;
    struct mu_json_w w = mu_json_w(&x->json);
    int r = mu_fleet_each(x->oz->fleet, collect, l);
    if (l->n) {
        qsort(l->entries, l->n, sizeof *l->entries, by_host);
    }
    l->total = (int64_t)l->n;
    size_t i = start_of(l), end = MU_MIN(i + (size_t)l->paging.size, l->n);
    mu_jw_arr(&w);
    for (; i < end; i++) {
        mu_jw_obj(&w);
        mu_fleet_info(&w, &l->entries[i]);
        mu_jw_obj_end(&w);
        if (i + 1 == end && end < l->n) {
            l->more = true;
            r = r < 0 ? r : mu_id_parse(l->entries[i].id, NULL, &l->next);
        }
    }
    mu_jw_arr_end(&w);
    mu_free(l->entries);
    l->entries = NULL;
    x->json.failed = r < 0 ? r : x->json.failed;
}

/* What its cursors are bound to. */
static mu_bytes place_of(const struct listing *l)
{
    return l->org.ptr ? l->org : MU_B("*");
}

static void list_there(struct mu_fleet_ask *x)
{
    struct listing *l = x->ctx;
    if (l->lost) {
        mu_call_issue(x->c, "invalid_format", "cursor",
                      "cursor: that runner is not listed any more");
        (void)mu_call_refused(x->c);
        return;
    }
    if (x->json.failed) {
        mu_call_fail(x->c, x->json.failed);
        return;
    }
    struct mu_json_w w = mu_call_data(x->c);
    mu_jw_obj(&w);
    mu_jw_kraw(&w, "items", mu_buf_bytes(&x->json));
    mu_jw_ki64(&w, "total", l->total);
    mu_jw_ki64(&w, "page", l->paging.page);
    mu_jw_ki64(&w, "pageSize", l->paging.size);
    mu_jw_kbool(&w, "hasMore", l->more);
    if (l->more) {
        mu_sess_cursor_add(&w, "nextCursor", x->c, list_name, place_of(l), l->next.text);
    }
    mu_jw_obj_end(&w);
    mu_call_data_send(x->c, 200, NULL, 0);
}

/* false: answered. */
static bool take_place(struct listing *l, struct mu_call *c)
{
    const struct mu_principal *p = mu_call_principal(c);
    mu_bytes given = mu_call_query(c, "orgId", 0);
    l->org = p->admin ? MU_B_NONE : mu_str(p->org_id);
    if (given.ptr && !mu_sess_org(c, given, &l->org)) {
        return false;
    }
    l->paging = mu_sess_paging_of(c);
    int r = l->paging.cursor.ptr
                ? mu_sess_cursor_read(c, list_name, place_of(l), l->paging.cursor, &l->cursor)
                : 0;
    if (r == MU_E_INVALID) {
        mu_call_issue(c, "invalid_format", "cursor", "cursor is not one of this list");
        (void)mu_call_refused(c);
    } else if (r < 0) {
        mu_call_fail(c, r);
    }
    return r == 0;
}

static void list_runners(struct mu_call *c)
{
    struct mu_fleet_ask *x = mu_fleet_ask_new(c);
    struct listing *l = x ? mu_call_new(c, sizeof *l) : NULL;
    if (!l || !take_place(l, c)) {
        return;
    }
    l->status = mu_call_query(c, "status", 0);
    l->provider = mu_call_query(c, "providerId", 0);
    l->feature = mu_call_query(c, "feature", 0);
    l->label = mu_call_query(c, "label", 0);
    x->ctx = l;
    x->look = look_list;
    x->then = list_there;
    mu_fleet_ask(x);
}

static void get_runner(struct mu_call *c)
{
    struct mu_id id;
    if (mu_fleet_id(c, &id)) {
        mu_fleet_answer_info(c, &id, 200, false, NULL, NULL);
    }
}

/* --- capacity --- */

struct capacity {
    struct mu_fleet_ask *x;
    int64_t total, used, draining, runners;
    bool unlimited;
};

static int add_capacity(void *arg, const struct mu_worker_view *v)
{
    struct capacity *k = arg;
    if ((!k->x->admin && !mu_bytes_eq(v->org_id, k->x->org_id)) || v->status == MU_WORKER_OFFLINE) {
        return 0;
    }
    if (v->status == MU_WORKER_DRAINING) {
        k->draining += v->capacity;
        return 0;
    }
    k->runners++;
    k->total += v->capacity;
    k->used += v->capacity ? MU_MIN(v->in_flight, v->capacity) : 0;
    k->unlimited = k->unlimited || v->capacity == 0;
    return 0;
}

static void look_capacity(struct mu_fleet_ask *x)
{
    struct capacity *k = x->ctx;
    (void)mu_fleet_each(x->oz->fleet, add_capacity, k);
}

static void capacity_there(struct mu_fleet_ask *x)
{
    const struct capacity *k = x->ctx;
    struct mu_json_w w = mu_call_data(x->c);
    mu_jw_obj(&w);
    mu_jw_ki64(&w, "total", k->total);
    mu_jw_ki64(&w, "used", k->used);
    mu_jw_ki64(&w, "available", k->total - k->used);
    mu_jw_ki64(&w, "draining", k->draining);
    mu_jw_ki64(&w, "onlineRunners", k->runners);
    mu_jw_kbool(&w, "unlimited", k->unlimited);
    mu_jw_obj_end(&w);
    mu_call_data_send(x->c, 200, NULL, 0);
}

static void get_capacity(struct mu_call *c)
{
    struct mu_fleet_ask *x = mu_fleet_ask_new(c);
    struct capacity *k = x ? mu_call_new(c, sizeof *k) : NULL;
    if (k) {
        k->x = x;
        x->ctx = k;
        x->look = look_capacity;
        x->then = capacity_there;
        mu_fleet_ask(x);
    }
}

/* --- events --- */

struct events {
    struct mu_fleet_events op;
    struct mu_fleet_ask *x;
    struct mu_json_w w;
    int64_t next;
};

static int add_event(void *arg, int64_t seq, int type, int64_t at_ms, mu_bytes actor, mu_bytes data)
{
    struct events *e = arg;
    struct mu_json_w *w = &e->w;
    const char *name = mu_event_type_name(type);
    mu_jw_obj(w);
    mu_jw_ki64(w, "seq", seq);
    mu_jw_kcstr(w, "event", name ? name : "unknown");
    mu_sess_prefixed(w, "subjectId", "rnr_", mu_id_bytes(&e->op.uid));
    mu_jw_ktime(w, "timestamp", at_ms);
    mu_sess_actor(w, "actor", actor);
    mu_jw_kraw(w, "data", data);
    mu_jw_obj_end(w);
    e->next = seq;
    return w->buf->failed;
}

static void events_read(struct mu_fleet_events *op, int result)
{
    struct events *e = op->ctx;
    if (result < 0) {
        mu_fleet_fail(e->x->c, result);
        return;
    }
    mu_jw_arr_end(&e->w);
    mu_jw_ki64(&e->w, "nextSeq", e->next);
    mu_jw_ki64(&e->w, "firstSeq", op->first_seq);
    mu_jw_ki64(&e->w, "lastSeq", op->last_seq);
    mu_jw_kbool(&e->w, "hasMore", e->next < op->last_seq);
    mu_jw_obj_end(&e->w);
    mu_call_data_send(e->x->c, 200, NULL, 0);
}

static void look_known(struct mu_fleet_ask *x)
{
    struct mu_worker_view v;
    x->found = mu_fleet_get(x->oz->fleet, &x->id, x->admin, x->org_id, &v);
}

static void read_events(struct mu_fleet_ask *x)
{
    struct events *e = x->ctx;
    if (!x->found) {
        mu_fleet_fail(x->c, MU_E_NOT_FOUND);
        return;
    }
    e->w = mu_call_data(x->c);
    mu_jw_obj(&e->w);
    mu_jw_key(&e->w, "events");
    mu_jw_arr(&e->w);
    int r = mu_fleet_events(x->oz->fleet, &e->op);
    if (r < 0) {
        mu_fleet_fail(x->c, r);
    }
}

static void list_events(struct mu_call *c)
{
    struct mu_id id;
    struct mu_fleet_ask *x = mu_fleet_id(c, &id) ? mu_fleet_ask_new(c) : NULL;
    struct events *e = x ? mu_call_new(c, sizeof *e) : NULL;
    if (!e) {
        return;
    }
    x->id = id;
    x->ctx = e;
    x->look = look_known;
    x->then = read_events;
    e->x = x;
    e->next = mu_sess_query_i64(c, "afterSeq", 0);
    e->op = (struct mu_fleet_events){.read = {.loop = mu_call_loop(c)},
                                     .uid = id,
                                     .after = e->next,
                                     .limit = (unsigned)mu_sess_query_i64(c, "limit", EVENTS),
                                     .each = add_event,
                                     .arg = e,
                                     .done = events_read,
                                     .ctx = e};
    mu_fleet_ask(x);
}

static const struct mu_schema list_query[] = {
    {.name = "orgId",
     .type = MU_S_STRING,
     .form = MU_F_ID,
     .doc = "The org; default: the caller's own, for the administrator all and the shared ones."},
    {.name = "status",
     .type = MU_S_STRING,
     .words = "online offline draining maintenance",
     .doc = "Runners of this status."},
    {.name = "providerId", .type = MU_S_STRING, .min = 1, .max = 64, .doc = "That offer it."},
    {.name = "feature",
     .type = MU_S_STRING,
     .min = 1,
     .max = 64,
     .form = MU_F_FEATURE,
     .doc = "That have it."},
    {.name = "label",
     .type = MU_S_STRING,
     .min = 1,
     .max = 64,
     .form = MU_F_FEATURE,
     .doc = "That have it."},
    MU_SESS_PAGING,
    {0}};
static const struct mu_schema events_query[] = {{.name = "afterSeq",
                                                 .type = MU_S_INT,
                                                 .max = INT64_C(1) << 53,
                                                 .doc = "Events behind this one."},
                                                {.name = "limit",
                                                 .type = MU_S_INT,
                                                 .min = 1,
                                                 .max = EVENTS_MAX,
                                                 .doc = "At most so many, 200."},
                                                {0}};

#define GET(p, h, i, s, r, ...)                                                                    \
    {                                                                                              \
        .method = MU_HTTP_GET, .path = p, .face = MU_FACE_SESSIONS, .auth = MU_AUTH_TENANT,        \
        .handler = h, .id = i, .summary = s, .response = r, __VA_ARGS__                            \
    }
const struct mu_route mu_fleet_routes[] = {
    GET("/api/v1/runners", list_runners, "listRunners", "Runners by hostname.", "RunnerList",
        .query = list_query, .check = mu_sess_check_paging),
    GET("/api/v1/runners/capacity", get_capacity, "getRunnerCapacity",
        "What the runners that are online can hold.", "RunnerCapacity"),
    GET("/api/v1/runners/{runnerId}", get_runner, "getRunner", "One runner.", "RunnerInfo",
        .errors = "RUNNER_NOT_FOUND"),
    GET("/api/v1/runners/{runnerId}/events", list_events, "listRunnerEvents",
        "What happened to a runner: the last thousand events.", "RunnerEvents",
        .query = events_query, .errors = "RUNNER_NOT_FOUND"),
    {.path = NULL}};
