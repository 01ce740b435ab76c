/* GET /agent/runs/{runID}/events: the run's log as server-sent events (specification README 8):
 * `state`, `artifact`, `end` with their number as id, and `output` with the text as it comes, which
 * is not in the log and carries byte offsets instead.
 *
 * A viewer is a cursor: it reads pages from the database until it meets the present, then takes
 * events from the feed. Whatever it could not take (it was slow, it was reading a page) it reads
 * again from the database. */
#include <errno.h>
#include <stdio.h>

#include "base/encode.h"
#include "face/oz/oz_int.h"
#include "proto/sse.h"

enum { PAGE = 200, KEEPALIVE_MS = 15000 };

struct viewer {
    struct mu_oz *oz;
    struct mu_http_stream *stream;
    struct mu_watch watch;
    struct mu_timer keepalive;
    int64_t seq;           /* the last one sent */
    int64_t epoch, offset; /* of the output sent so far */
    bool live, reading, stale, synced, snapshotting, ended, closed;
    bool over; /* the run had ended when the viewer came */
    struct mu_id id;
    /* only while a page or a snapshot is read */
    struct page *page;
};

struct page {
    struct viewer *v;
    struct mu_session_events events;
    struct mu_snapshot snapshot;
    struct mu_buf out;
    int64_t last;
    bool end;
};

static void read_page(struct viewer *v);
static void read_snapshot(struct viewer *v);

/* --- encoding --- */

/* NULL: an event that this API does not have; its number is left out. */
static const char *event_name(int type)
{
    switch (type) {
#define MU_EVENT(number, name, oz, village)                                                        \
    case MU_EV_##name:                                                                             \
        return oz;
#include "app/sessions/events.def"
#undef MU_EVENT
    default:
        return NULL;
    }
}

static void event_json(struct mu_buf *b, mu_bytes id, int type, int64_t at_ms, mu_bytes data)
{
    struct mu_json_w w = mu_json_w(b);
    if (type == MU_EV_ARTIFACT) {
        mu_jw_raw(&w, data);
        return;
    }
    struct mu_arena a;
    mu_arena_init(&a, 256 << 10);
    static const struct mu_json_limits limits = {.max_bytes = 64 << 10, .max_depth = 16};
    yyjson_val *d = NULL;
    if (mu_json_read(&a, data, &limits, &d, NULL) < 0) {
        d = NULL;
    }
    char run[64];
    snprintf(run, sizeof run, "run_%.*s", MU_ARGS(id));
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "run_id", run);
    mu_jw_kcstr(
        &w, "state",
        mu_oz_state((int)mu_json_get_i64(d, "to", 60), (int)mu_json_get_i64(d, "outcome", 0)));
    mu_jw_ktime(&w, "at", at_ms);
    static const char *const texts[] = {"message", "provider", "model"};
    for (size_t i = 0; i < MU_ARRAY_LEN(texts); i++) {
        mu_bytes v = mu_json_get_bytes(d, texts[i]);
        if (v.len) {
            mu_jw_kstr(&w, texts[i], v);
        }
    }
    yyjson_val *error = mu_json_get(d, "error");
    if (error) {
        mu_jw_key(&w, "error");
        mu_json_add(b, error);
        w.comma = true;
    }
    mu_jw_obj_end(&w);
    mu_arena_fini(&a);
}

static void add_event(struct mu_buf *dst, mu_bytes id, int64_t seq, int type, int64_t at_ms,
                      mu_bytes data)
{
    struct mu_buf json;
    mu_buf_init(&json, 128 << 10);
    event_json(&json, id, type, at_ms, data);
    mu_sse_add(dst, event_name(type), seq, mu_buf_bytes(&json));
    dst->failed = dst->failed ? dst->failed : json.failed;
    mu_buf_fini(&json);
}

static void add_output(struct mu_buf *dst, int64_t offset, mu_bytes text, bool reset)
{
    struct mu_buf json;
    mu_buf_init(&json, 64 << 20);
    struct mu_json_w w = mu_json_w(&json);
    mu_jw_obj(&w);
    mu_jw_ki64(&w, "offset", offset);
    mu_jw_kstr(&w, "text", text);
    if (reset) {
        mu_jw_kbool(&w, "reset", true);
    }
    mu_jw_obj_end(&w);
    mu_sse_add(dst, "output", -1, mu_buf_bytes(&json));
    dst->failed = dst->failed ? dst->failed : json.failed;
    mu_buf_fini(&json);
}

static void free_msg(void *msg)
{
    mu_msg_unref(msg);
}

/* Encoded once for all viewers of all loops; the event owns it. NULL without memory. */
static struct mu_msg *encoded(struct viewer *v, struct mu_event *e)
{
    struct mu_msg *have = atomic_load(&e->encoded);
    if (have) {
        return have;
    }
    struct mu_buf b;
    mu_buf_init(&b, 80 << 20);
    if (e->seq) {
        add_event(&b, mu_id_bytes(&v->id), e->seq, e->type, e->at_ms, e->data);
    } else {
        add_output(&b, e->offset, e->data, e->type == MU_EV_DELTA_RESET);
    }
    struct mu_msg *m = b.failed ? NULL : mu_msg_new(mu_buf_bytes(&b));
    mu_buf_fini(&b);
    return m ? mu_event_encode(e, m, free_msg) : NULL;
}

/* --- live --- */

static void viewer_free(struct viewer *v)
{
    mu_feed_unwatch(mu_sessions_feed(v->oz->sessions), &v->watch);
    mu_timer_clear(&v->keepalive);
    mu_metric_add(v->oz->sse_clients, -1);
    mu_free(v);
}

static void sent_end(struct viewer *v)
{
    v->ended = true;
    mu_http_stream_end(v->stream);
}

static void on_delta(struct viewer *v, struct mu_event *e)
{
    if (!v->synced || mu_http_stream_full(v->stream)) {
        v->synced = v->synced && !mu_http_stream_full(v->stream);
        return; /* the snapshot, or the writable callback, brings it */
    }
    bool fresh = e->type == MU_EV_DELTA_RESET || (e->epoch != v->epoch && e->offset == 0);
    if (!fresh && (e->epoch != v->epoch || e->offset != v->offset)) {
        if (e->epoch == v->epoch && e->offset < v->offset) {
            return; /* the snapshot had it */
        }
        v->synced = false;
        read_snapshot(v);
        return;
    }
    struct mu_msg *m = encoded(v, e);
    if (m) {
        v->epoch = e->epoch;
        v->offset = e->offset + (int64_t)e->data.len;
        mu_http_stream_send(v->stream, m);
    }
}

static void on_event(struct mu_watch *watch, struct mu_event *e)
{
    struct viewer *v = MU_CONTAINER(watch, struct viewer, watch);
    if (v->ended || v->closed) {
        return;
    }
    if (e->seq == 0) {
        if (e->type == MU_EV_DELTA || e->type == MU_EV_DELTA_RESET) {
            on_delta(v, e);
        }
        return;
    }
    if (e->seq <= v->seq) {
        return;
    }
    if (!v->live || e->seq != v->seq + 1 || mu_http_stream_full(v->stream)) {
        v->stale = true;
        if (v->live) {
            v->live = false;
            read_page(v);
        }
        return;
    }
    if (!event_name(e->type)) {
        v->seq = e->seq;
        return;
    }
    struct mu_msg *m = encoded(v, e);
    if (!m) {
        mu_http_stream_abort(v->stream); /* it comes back with its Last-Event-ID */
        return;
    }
    v->seq = e->seq;
    mu_http_stream_send(v->stream, m);
    if (e->type == MU_EV_ENDED) {
        sent_end(v);
    }
}

static void on_keepalive(struct mu_timer *t)
{
    struct viewer *v = MU_CONTAINER(t, struct viewer, keepalive);
    if (!mu_http_stream_full(v->stream)) {
        mu_http_stream_write(v->stream, MU_B(": keep-alive\n\n"));
    }
    (void)!mu_timer_set(t, KEEPALIVE_MS);
}

/* Sends what was built and frees it. What is incomplete for lack of memory is not sent: the stream
 * is cut (then false), and its reader comes back with its Last-Event-ID. */
static bool write_whole(struct viewer *v, struct mu_buf *b)
{
    bool whole = !b->failed;
    if (whole) {
        mu_http_stream_write(v->stream, mu_buf_bytes(b));
    }
    mu_buf_fini(b);
    if (!whole) {
        mu_http_stream_abort(v->stream);
    }
    return whole;
}

/* --- pages from the database --- */

static void page_free(struct viewer *v)
{
    mu_buf_fini(&v->page->out);
    mu_free(v->page);
    v->page = NULL;
    v->reading = v->snapshotting = false;
}

static int take_event(void *arg, const struct mu_session_event *e)
{
    struct page *p = arg;
    p->last = e->seq;
    if (!event_name(e->type)) {
        return 0;
    }
    add_event(&p->out, mu_id_bytes(&p->v->id), e->seq, e->type, e->at_ms, e->data);
    p->end = p->end || e->type == MU_EV_ENDED;
    return p->out.failed;
}

static void page_read(struct mu_session_events *op, int result)
{
    struct page *p = op->ctx;
    struct viewer *v = p->v;
    if (v->closed) {
        page_free(v);
        viewer_free(v);
        return;
    }
    if (result < 0 || (op->last_seq == 0 && v->seq == 0)) {
        page_free(v);
        mu_http_stream_abort(
            v->stream); /* the database is away, or the run was deleted: the client tries again */
        return;
    }
    if (v->seq > op->last_seq ||
        v->seq + 1 < op->first_seq) { /* a position that is not in the log (any more) */
        struct mu_buf reset;
        mu_buf_init(&reset, 256);
        char data[96];
        snprintf(data, sizeof data, "{\"first_seq\":%lld,\"last_seq\":%lld}",
                 (long long)op->first_seq, (long long)op->last_seq);
        mu_sse_add(&reset, "reset", -1, mu_str(data));
        v->seq = v->seq > op->last_seq ? 0 : op->first_seq - 1;
        page_free(v);
        if (write_whole(v, &reset)) {
            read_page(v);
        }
        return;
    }
    unsigned count = op->count;
    bool end = p->end;
    if (count) {
        if (p->out.len) {
            mu_http_stream_write(v->stream, mu_buf_bytes(&p->out));
        }
        v->seq = p->last;
    }
    page_free(v);
    if (end || (v->over && count == 0)) { /* it has seen the end already */
        sent_end(v);
    } else if (mu_http_stream_full(v->stream)) {
        v->stale = true; /* on_writable goes on */
    } else if (count == PAGE || v->stale) {
        read_page(v);
    } else {
        v->live = true;
        if (!v->synced) {
            read_snapshot(v);
        }
    }
}

static struct page *page_new(struct viewer *v)
{
    struct page *p = mu_calloc(1, sizeof *p);
    if (!p) {
        mu_http_stream_abort(v->stream);
        return NULL;
    }
    p->v = v;
    mu_buf_init(&p->out, 16 << 20);
    v->page = p;
    return p;
}

static void read_page(struct viewer *v)
{
    if (v->page) {
        v->stale = true;
        return;
    }
    struct page *p = page_new(v);
    if (!p) {
        return;
    }
    v->reading = true;
    v->stale = false;
    p->events = (struct mu_session_events){.read = {.loop = v->watch.loop},
                                           .id = v->id,
                                           .after = v->seq,
                                           .limit = PAGE,
                                           .each = take_event,
                                           .arg = p,
                                           .done = page_read,
                                           .ctx = p};
    if (mu_session_events(v->oz->sessions, &p->events) < 0) {
        page_free(v);
        mu_http_stream_abort(v->stream);
    }
}

/* --- the output so far --- */

/* What the viewer lacks of the output so far, as one event; nothing when it lacks nothing. */
static void catch_up(struct viewer *v, const struct mu_snapshot *op, struct mu_buf *dst)
{
    mu_bytes text = mu_buf_bytes(&op->text);
    bool same = op->epoch == v->epoch && v->offset >= op->offset &&
                v->offset <= op->offset + (int64_t)text.len;
    mu_bytes rest = same ? mu_bytes_from(text, (size_t)(v->offset - op->offset)) : text;
    if (rest.len) {
        add_output(dst, same ? v->offset : op->offset, rest, !same && v->offset > 0);
    }
    v->epoch = op->epoch;
    v->offset = op->offset + (int64_t)text.len;
}

static void snapshot_done(struct mu_snapshot *op)
{
    struct page *p = op->ctx;
    struct viewer *v = p->v;
    bool stale = v->stale;
    struct mu_buf b;
    mu_buf_init(&b, 80 << 20);
    if (op->running && !v->closed) {
        catch_up(v, op, &b);
    }
    mu_buf_fini(&op->text);
    page_free(v);
    if (v->closed) {
        viewer_free(v);
        return;
    }
    v->synced = true;
    if (write_whole(v, &b) && stale) {
        v->live = false;
        read_page(v);
    }
}

static void read_snapshot(struct viewer *v)
{
    if (v->page) {
        return;
    }
    struct page *p = page_new(v);
    if (!p) {
        return;
    }
    v->snapshotting = true;
    v->stale = false;
    p->snapshot =
        (struct mu_snapshot){.loop = v->watch.loop, .id = v->id, .done = snapshot_done, .ctx = p};
    /* From now on deltas may pass by unseen; those behind the snapshot's end come after it, because
     * both travel from the core loop in order. */
    mu_dispatch_snapshot(v->oz->dispatch, &p->snapshot);
}

/* --- the stream's own events --- */

static void on_writable(void *arg)
{
    struct viewer *v = arg;
    if (v->ended || v->page) {
        return;
    }
    if (v->stale) {
        v->live = false;
        read_page(v);
    } else if (!v->synced) {
        read_snapshot(v);
    }
}

static void on_closed(void *arg)
{
    struct viewer *v = arg;
    v->closed = true;
    if (!v->page) {
        viewer_free(v);
    }
}

static const struct mu_http_stream_ops stream_ops = {on_writable, on_closed};

/* --- the request --- */

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
    struct mu_oz *oz = mu_oz(c);
    struct viewer *v = result < 0 ? NULL : mu_calloc(1, sizeof *v);
    if (!v) {
        mu_call_fail(c, result < 0 ? result : -ENOMEM);
        return;
    }
    v->oz = oz;
    v->id = op->id;
    v->seq = j->after;
    v->over = j->over;
    v->watch.loop = mu_call_loop(c);
    v->watch.on_event = on_event;
    memcpy(v->watch.stream_id, v->id.text, sizeof v->id.text);
    mu_timer_init(&v->keepalive, v->watch.loop, on_keepalive);
    result = mu_feed_watch(mu_sessions_feed(oz->sessions),
                           &v->watch); /* before the first page: the border loses nothing */
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
        viewer_free(v);
        return;
    }
    (void)!mu_timer_set(&v->keepalive, KEEPALIVE_MS);
    mu_http_stream_write(v->stream, MU_B(": connected\n\n"));
    read_page(v);
}

static void stream_events(struct mu_call *c)
{
    const struct mu_principal *p = mu_call_principal(c);
    struct joining *j = mu_call_new(c, sizeof *j);
    struct mu_id id;
    if (!j) {
        return;
    }
    if (!mu_oz_run_id(c, &id)) {
        return;
    }
    mu_bytes after = mu_call_header(c, "last-event-id");
    const char *field = "Last-Event-ID";
    if (!after.len) {
        after = mu_call_query(c, "after", 0);
        field = "after";
    }
    if (after.len && (mu_bytes_i64(after, &j->after) < 0 || j->after < 0)) {
        mu_call_error(c, 400, "invalid_field", field, "%s must be the number of an event", field);
        return;
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
    int r = mu_session_get(mu_oz(c)->sessions, &j->get);
    if (r < 0) {
        mu_call_fail(c, r);
    }
}

static const struct mu_schema events_query[] = {
    {.name = "after", .type = MU_S_INT, .doc = "Number of the last event that is known already."},
    {0}};

const struct mu_route mu_oz_event_routes[] = {
    {.method = MU_HTTP_GET,
     .path = "/api/v1/agent/runs/{runID}/events",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_TENANT,
     .query = events_query,
     .handler = stream_events,
     .id = "streamRunEvents",
     .summary = "The run's events and its output as they come (server-sent events).",
     .media = "text/event-stream",
     .errors = "404 503"},
    {.path = NULL}};
