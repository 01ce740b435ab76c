/* GET /agent/runs/{runID}/events: the run's log as server-sent events (specification README 8):
 * `state`, `artifact`, `end` with their number as id, and `output` with the text as it comes, which
 * is not in the log and carries byte offsets instead.
 *
 * A viewer is a cursor (face/live/cursor.h) and, beside it, the output as the executor has it. */
#include <errno.h>
#include <stdio.h>

#include "base/encode.h"
#include "face/live/cursor.h"
#include "face/oz/oz_int.h"
#include "proto/sse.h"

enum { KEEPALIVE_MS = 15000, ENCODING = 0 /* of mu_event_encode() */ };

struct viewer {
    struct mu_oz *oz;
    struct mu_http_stream *stream;
    struct mu_cursor cursor;
    struct mu_timer keepalive;
    int64_t epoch, offset; /* of the output sent so far */
    bool synced, ended, closed;
    struct mu_snapshot *snapshot; /* only while one is read */
};

static void read_snapshot(struct viewer *v);

static struct viewer *viewer_of(struct mu_cursor *cur)
{
    return MU_CONTAINER(cur, struct viewer, cursor);
}

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
    struct mu_msg *have = atomic_load(&e->encoded[ENCODING]);
    if (have) {
        return have;
    }
    struct mu_buf b;
    mu_buf_init(&b, 80 << 20);
    if (e->seq) {
        add_event(&b, mu_id_bytes(&v->cursor.id), e->seq, e->type, e->at_ms, e->data);
    } else {
        add_output(&b, e->offset, e->data, e->type == MU_EV_DELTA_RESET);
    }
    struct mu_msg *m = b.failed ? NULL : mu_msg_new(mu_buf_bytes(&b));
    mu_buf_fini(&b);
    return m ? mu_event_encode(e, ENCODING, m, free_msg) : NULL;
}

/* --- what the cursor finds --- */

static void viewer_free(struct viewer *v)
{
    mu_timer_clear(&v->keepalive);
    mu_metric_add(v->oz->sse_clients, -1);
    mu_free(v);
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

static void encode(const struct mu_cursor *cur, struct mu_buf *dst,
                   const struct mu_session_event *e)
{
    if (event_name(e->type)) {
        add_event(dst, mu_id_bytes(&cur->id), e->seq, e->type, e->at_ms, e->data);
    }
}

static void on_page(struct mu_cursor *cur, mu_bytes bytes)
{
    if (bytes.len) {
        mu_http_stream_write(viewer_of(cur)->stream, bytes);
    }
}

static bool on_event(struct mu_cursor *cur, struct mu_event *e)
{
    struct viewer *v = viewer_of(cur);
    if (!event_name(e->type)) {
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
    struct viewer *v = viewer_of(cur);
    if (e->type != MU_EV_DELTA && e->type != MU_EV_DELTA_RESET) {
        return;
    }
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

static void on_reset(struct mu_cursor *cur, int64_t first, int64_t last)
{
    struct mu_buf reset;
    mu_buf_init(&reset, 256);
    char data[96];
    snprintf(data, sizeof data, "{\"first_seq\":%lld,\"last_seq\":%lld}", (long long)first,
             (long long)last);
    mu_sse_add(&reset, "reset", -1, mu_str(data));
    (void)write_whole(viewer_of(cur), &reset);
}

static void on_present(struct mu_cursor *cur)
{
    struct viewer *v = viewer_of(cur);
    if (!v->synced) {
        read_snapshot(v);
    }
}

static void on_over(struct mu_cursor *cur)
{
    struct viewer *v = viewer_of(cur);
    v->ended = true;
    mu_http_stream_end(v->stream);
}

static void on_failed(struct mu_cursor *cur, int code)
{
    (void)code; /* the client tries again */
    mu_http_stream_abort(viewer_of(cur)->stream);
}

static bool is_full(const struct mu_cursor *cur)
{
    return mu_http_stream_full(MU_CONTAINER(cur, const struct viewer, cursor)->stream);
}

static void on_cursor_closed(struct mu_cursor *cur)
{
    struct viewer *v = viewer_of(cur);
    v->closed = true;
    if (!v->snapshot) {
        viewer_free(v);
    }
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
    struct viewer *v = op->ctx;
    struct mu_buf b;
    mu_buf_init(&b, 80 << 20);
    if (op->running && !v->closed && !v->ended) {
        catch_up(v, op, &b);
    }
    mu_buf_fini(&op->text);
    mu_free(op);
    v->snapshot = NULL;
    if (v->closed) {
        mu_buf_fini(&b);
        viewer_free(v);
        return;
    }
    v->synced = true;
    if (v->ended) {
        mu_buf_fini(&b);
    } else {
        (void)write_whole(v, &b);
    }
}

static void read_snapshot(struct viewer *v)
{
    if (v->snapshot || v->closed || v->ended) {
        return;
    }
    v->snapshot = mu_calloc(1, sizeof *v->snapshot);
    if (!v->snapshot) {
        mu_http_stream_abort(v->stream);
        return;
    }
    *v->snapshot = (struct mu_snapshot){
        .loop = v->cursor.watch.loop, .id = v->cursor.id, .done = snapshot_done, .ctx = v};
    /* From now on deltas may pass by unseen; those behind the snapshot's end come after it, because
     * both travel from the core loop in order. */
    mu_dispatch_snapshot(v->oz->dispatch, v->snapshot);
}

/* --- the stream's own events --- */

static void on_writable(void *arg)
{
    struct viewer *v = arg;
    if (v->ended) {
        return;
    }
    mu_cursor_read(&v->cursor);
    if (!v->cursor.page && !v->synced) {
        read_snapshot(v);
    }
}

static void on_closed(void *arg)
{
    struct viewer *v = arg;
    v->ended = true;
    mu_cursor_close(&v->cursor);
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
    v->cursor = (struct mu_cursor){.sessions = oz->sessions,
                                   .ops = &cursor_ops,
                                   .id = op->id,
                                   .seq = j->after,
                                   .ended = j->over};
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
