/* GET /sessions/{id}/events, and the same as server-sent events. */
#include <errno.h>
#include <stdio.h>

#include "face/live/cursor.h"
#include "face/sessions/sessions_int.h"
#include "proto/sse.h"

enum {
    LIMIT = 200,
    LIMIT_MAX = 1000,
    SCAN = 1000,          /* events that one request looks at */
    PAGE_BYTES = 8 << 20, /* the page ends with the event that passes it */
    TYPES_MAX = 40,
    KEEPALIVE_MS = 15000,
    EVENT_MAX = 512 << 10,
    ENCODING = 1, /* of mu_event_encode() */
};

/* --- which types --- */

struct types {
    int list[TYPES_MAX];
    size_t n; /* 0 = all */
};

static void check_types(struct mu_call *c)
{
    mu_bytes v;
    for (unsigned i = 0; (v = mu_call_query(c, "types", i)).ptr; i++) {
        mu_bytes rest = v;
        while (rest.ptr) {
            mu_bytes word = mu_bytes_trim(mu_bytes_split(&rest, ','));
            if (word.len && mu_event_type_parse(word) == 0) {
                mu_call_issue(c, "invalid_enum", "types", "types: there is no %.*s",
                              MU_ARGS(mu_bytes_head(word, 64)));
            }
        }
    }
}

static void take_types(struct mu_call *c, struct types *t)
{
    mu_bytes v;
    t->n = 0;
    for (unsigned i = 0; (v = mu_call_query(c, "types", i)).ptr; i++) {
        mu_bytes rest = v;
        while (rest.ptr) {
            int type = mu_event_type_parse(mu_bytes_trim(mu_bytes_split(&rest, ',')));
            if (type && t->n < TYPES_MAX) {
                t->list[t->n++] = type;
            }
        }
    }
}

static bool wanted(const struct types *t, int type)
{
    for (size_t i = 0; i < t->n; i++) {
        if (t->list[i] == type) {
            return true;
        }
    }
    return t->n == 0;
}

/* --- a page --- */

struct listing {
    struct mu_call *c;
    struct mu_session_get get;
    struct mu_session_events op;
    struct types types;
    struct mu_json_w w;
    int64_t after, next, limit, given;
    bool full;
};

static int take_event(void *arg, const struct mu_session_event *e)
{
    struct listing *l = arg;
    if (l->full) {
        return 0;
    }
    if (wanted(&l->types, e->type)) {
        mu_sess_event(&l->w, mu_id_bytes(&l->op.id), e);
        l->given++;
    }
    l->next = e->seq;
    l->full = l->given == l->limit || l->w.buf->len > PAGE_BYTES;
    return l->w.buf->failed;
}

static void events_read(struct mu_session_events *op, int result)
{
    struct listing *l = op->ctx;
    struct mu_json_w *w = &l->w;
    if (result < 0) {
        mu_sess_fail(l->c, result);
        return;
    }
    mu_jw_arr_end(w);
    /* behind what is kept, or before it: the position is told where the log goes on */
    int64_t next = op->count ? l->next : MU_MIN(l->after, op->last_seq);
    mu_jw_ki64(w, "nextSeq", MU_MAX(next, op->first_seq - 1));
    mu_jw_ki64(w, "firstSeq", op->first_seq);
    mu_jw_ki64(w, "lastSeq", op->last_seq);
    mu_jw_kbool(w, "hasMore", next < op->last_seq);
    mu_jw_obj_end(w);
    mu_call_data_send(l->c, 200, NULL, 0);
}

static int seen(void *arg, const struct mu_session_view *v)
{
    (void)arg, (void)v;
    return 0;
}

static void found(struct mu_session_get *get, int result)
{
    struct listing *l = get->ctx;
    if (result < 0) {
        mu_sess_fail(l->c, result);
        return;
    }
    l->w = mu_call_data(l->c);
    mu_jw_obj(&l->w);
    mu_jw_key(&l->w, "events");
    mu_jw_arr(&l->w);
    l->op = (struct mu_session_events){.read = {.loop = mu_call_loop(l->c)},
                                       .id = get->id,
                                       .after = l->after,
                                       .limit = l->types.n ? SCAN : (unsigned)l->limit,
                                       .each = take_event,
                                       .arg = l,
                                       .done = events_read,
                                       .ctx = l};
    int r = mu_session_events(mu_sess_oz(l->c)->sessions, &l->op);
    if (r < 0) {
        mu_sess_fail(l->c, r);
    }
}

static void list_events(struct mu_call *c)
{
    const struct mu_principal *p = mu_call_principal(c);
    struct mu_id id;
    if (!mu_sess_id(c, &id)) {
        return;
    }
    struct listing *l = mu_call_new(c, sizeof *l);
    if (!l) {
        return;
    }
    l->c = c;
    l->after = mu_sess_query_i64(c, "afterSeq", 0);
    l->limit = mu_sess_query_i64(c, "limit", LIMIT);
    take_types(c, &l->types);
    l->get = (struct mu_session_get){.read = {.loop = mu_call_loop(c)},
                                     .admin = p->admin,
                                     .org_id = mu_str(p->org_id),
                                     .id = id,
                                     .each = seen,
                                     .done = found,
                                     .ctx = l};
    int r = mu_session_get(mu_sess_oz(c)->sessions, &l->get);
    if (r < 0) {
        mu_sess_fail(c, r);
    }
}

/* --- the stream --- */

struct viewer {
    struct mu_oz *oz;
    struct mu_http_stream *stream;
    struct mu_cursor cursor;
    struct mu_timer keepalive;
    struct types types;
    bool ended;
};

static struct viewer *viewer_of(struct mu_cursor *cur)
{
    return MU_CONTAINER(cur, struct viewer, cursor);
}

static void add_event(struct mu_buf *dst, mu_bytes id, const struct mu_session_event *e)
{
    struct mu_buf json;
    const char *type = mu_event_type_name(e->type);
    mu_buf_init(&json, EVENT_MAX);
    struct mu_json_w w = mu_json_w(&json);
    mu_sess_event(&w, id, e);
    mu_sse_add(dst, type ? type : "PROVIDER_EVENT_FORWARDED", e->seq, mu_buf_bytes(&json));
    dst->failed = dst->failed ? dst->failed : json.failed;
    mu_buf_fini(&json);
}

static void encode(const struct mu_cursor *cur, struct mu_buf *dst,
                   const struct mu_session_event *e)
{
    if (wanted(&MU_CONTAINER(cur, const struct viewer, cursor)->types, e->type)) {
        add_event(dst, mu_id_bytes(&cur->id), e);
    }
}

static void on_page(struct mu_cursor *cur, mu_bytes bytes)
{
    if (bytes.len) {
        mu_http_stream_write(viewer_of(cur)->stream, bytes);
    }
}

static void free_msg(void *msg)
{
    mu_msg_unref(msg);
}

static struct mu_msg *encoded(const struct viewer *v, struct mu_event *e)
{
    struct mu_msg *have = atomic_load(&e->encoded[ENCODING]);
    if (have) {
        return have;
    }
    struct mu_buf b;
    const struct mu_session_event event = {
        .seq = e->seq, .at_ms = e->at_ms, .type = e->type, .data = e->data, .actor = e->actor};
    mu_buf_init(&b, EVENT_MAX);
    add_event(&b, mu_id_bytes(&v->cursor.id), &event);
    struct mu_msg *m = b.failed ? NULL : mu_msg_new(mu_buf_bytes(&b));
    mu_buf_fini(&b);
    return m ? mu_event_encode(e, ENCODING, m, free_msg) : NULL;
}

static bool on_event(struct mu_cursor *cur, struct mu_event *e)
{
    struct viewer *v = viewer_of(cur);
    if (!wanted(&v->types, e->type)) {
        return true;
    }
    struct mu_msg *m = encoded(v, e);
    if (m) {
        mu_http_stream_send(v->stream, m);
    } else {
        mu_http_stream_abort(v->stream); /* it comes back with its Last-Event-ID */
    }
    return m;
}

static void on_delta(struct mu_cursor *cur, struct mu_event *e)
{
    (void)cur, (void)e; /* text and terminals have ways of their own */
}

static void on_reset(struct mu_cursor *cur, int64_t first, int64_t last)
{
    struct mu_buf b;
    char data[96];
    mu_buf_init(&b, 512);
    snprintf(data, sizeof data, "{\"firstSeq\":%lld,\"lastSeq\":%lld}", (long long)first,
             (long long)last);
    mu_sse_add(&b, "reset", -1, mu_str(data));
    if (!b.failed) {
        mu_http_stream_write(viewer_of(cur)->stream, mu_buf_bytes(&b));
    }
    mu_buf_fini(&b);
}

static void on_present(struct mu_cursor *cur)
{
    (void)cur;
}

static void on_over(struct mu_cursor *cur)
{
    struct viewer *v = viewer_of(cur);
    v->ended = true;
    mu_http_stream_end(v->stream);
}

static void on_failed(struct mu_cursor *cur, int code)
{
    (void)code; /* its reader comes again */
    mu_http_stream_abort(viewer_of(cur)->stream);
}

static bool is_full(const struct mu_cursor *cur)
{
    return mu_http_stream_full(MU_CONTAINER(cur, const struct viewer, cursor)->stream);
}

static void on_cursor_closed(struct mu_cursor *cur)
{
    struct viewer *v = viewer_of(cur);
    mu_timer_clear(&v->keepalive);
    mu_metric_add(v->oz->sse_clients, -1);
    mu_free(v);
}

static const struct mu_cursor_ops cursor_ops = {
    .encode = encode,
    .page = on_page,
    .event = on_event,
    .delta = on_delta,
    .reset = on_reset,
    .present = on_present,
    .over = on_over,
    .failed = on_failed,
    .full = is_full,
    .closed = on_cursor_closed,
};

static void on_keepalive(struct mu_timer *t)
{
    struct viewer *v = MU_CONTAINER(t, struct viewer, keepalive);
    if (!mu_http_stream_full(v->stream)) {
        mu_http_stream_write(v->stream, MU_B(": keep-alive\n\n"));
    }
    (void)!mu_timer_set(t, KEEPALIVE_MS);
}

static void on_writable(void *arg)
{
    struct viewer *v = arg;
    if (!v->ended) {
        mu_cursor_read(&v->cursor);
    }
}

static void on_closed(void *arg)
{
    struct viewer *v = arg;
    v->ended = true;
    mu_cursor_close(&v->cursor);
}

static const struct mu_http_stream_ops stream_ops = {on_writable, on_closed};

struct joining {
    struct mu_call *c;
    struct mu_session_get get;
    int64_t after;
    bool over;
};

static int known(void *arg, const struct mu_session_view *v)
{
    struct joining *j = arg;
    j->over = v->outcome != MU_OUT_LIVE;
    return 0;
}

static void join(struct mu_session_get *op, int result)
{
    struct joining *j = op->ctx;
    struct mu_call *c = j->c;
    struct mu_oz *oz = mu_sess_oz(c);
    struct viewer *v = result < 0 ? NULL : mu_calloc(1, sizeof *v);
    if (!v) {
        mu_sess_fail(c, result < 0 ? result : -ENOMEM);
        return;
    }
    v->oz = oz;
    v->cursor = (struct mu_cursor){.sessions = oz->sessions,
                                   .ops = &cursor_ops,
                                   .id = op->id,
                                   .seq = j->after,
                                   .ended = j->over};
    take_types(c, &v->types);
    mu_timer_init(&v->keepalive, mu_call_loop(c), on_keepalive);
    result = mu_cursor_open(&v->cursor, mu_call_loop(c)); /* before the first page */
    if (result < 0) {
        mu_free(v);
        mu_call_fail(c, result);
        return;
    }
    static const struct mu_http_pair headers[] = {{"Content-Type", {"text/event-stream", 17}},
                                                  {"Cache-Control", {"no-store", 8}},
                                                  {"X-Accel-Buffering", {"no", 2}}};
    mu_metric_add(oz->sse_clients, 1);
    v->stream = mu_call_stream(c, 200, headers, MU_ARRAY_LEN(headers), -1, &stream_ops, v);
    if (!v->stream) {
        mu_cursor_close(&v->cursor); /* frees it */
        return;
    }
    (void)!mu_timer_set(&v->keepalive, KEEPALIVE_MS);
    mu_http_stream_write(v->stream, MU_B(": connected\n\n"));
    mu_cursor_read(&v->cursor);
}

/* Last-Event-ID is no member of the query: its form is checked here. */
static void check_stream(struct mu_call *c)
{
    int64_t n;
    mu_bytes last = mu_call_header(c, "last-event-id");
    if (last.len && (mu_bytes_i64(last, &n) < 0 || n < 0)) {
        mu_call_issue(c, "invalid_format", "Last-Event-ID",
                      "Last-Event-ID must be the number of an event");
    }
    check_types(c);
}

static void stream_events(struct mu_call *c)
{
    const struct mu_principal *p = mu_call_principal(c);
    struct mu_id id;
    if (!mu_sess_id(c, &id)) {
        return;
    }
    struct joining *j = mu_call_new(c, sizeof *j);
    if (!j) {
        return;
    }
    mu_bytes last = mu_call_header(c, "last-event-id");
    if (!last.len || mu_bytes_i64(last, &j->after) < 0) {
        j->after = mu_sess_query_i64(c, "afterSeq", 0);
    }
    j->c = c;
    j->get = (struct mu_session_get){.read = {.loop = mu_call_loop(c)},
                                     .admin = p->admin,
                                     .org_id = mu_str(p->org_id),
                                     .id = id,
                                     .each = known,
                                     .arg = j,
                                     .done = join,
                                     .ctx = j};
    int r = mu_session_get(mu_sess_oz(c)->sessions, &j->get);
    if (r < 0) {
        mu_sess_fail(c, r);
    }
}

/* --- routes --- */

static const struct mu_schema events_query[] = {
    {.name = "afterSeq",
     .type = MU_S_INT,
     .min = 0,
     .max = INT64_C(9007199254740991),
     .doc = "Number of the last event that is known already."},
    {.name = "types",
     .type = MU_S_STRING,
     .flags = MU_S_REPEAT,
     .min = 1,
     .max = 2000,
     .doc = "Only these types, separated by commas or repeated."},
    {.name = "limit", .type = MU_S_INT, .min = 1, .max = LIMIT_MAX, .doc = "Events, 200."},
    {0}};
static const struct mu_schema stream_query[] = {
    {.name = "afterSeq",
     .type = MU_S_INT,
     .min = 0,
     .max = INT64_C(9007199254740991),
     .doc = "Where Last-Event-ID says nothing."},
    {.name = "types",
     .type = MU_S_STRING,
     .flags = MU_S_REPEAT,
     .min = 1,
     .max = 2000,
     .doc = "Only these types, separated by commas or repeated."},
    {0}};

const struct mu_route mu_sess_event_routes[] = {
    {.method = MU_HTTP_GET,
     .path = "/api/v1/sessions/{sessionId}/events",
     .face = MU_FACE_SESSIONS,
     .auth = MU_AUTH_TENANT,
     .query = events_query,
     .check = check_types,
     .handler = list_events,
     .id = "getSessionEvents",
     .summary = "The session's log, in order.",
     .response = "SessionEvents",
     .errors = "SESSION_NOT_FOUND"},
    {.method = MU_HTTP_GET,
     .path = "/api/v1/sessions/{sessionId}/events/stream",
     .face = MU_FACE_SESSIONS,
     .auth = MU_AUTH_TENANT,
     .query = stream_query,
     .check = check_stream,
     .handler = stream_events,
     .id = "streamSessionEvents",
     .summary = "The same as server-sent events, as they come.",
     .media = "text/event-stream",
     .errors = "SESSION_NOT_FOUND"},
    {.path = NULL}};
