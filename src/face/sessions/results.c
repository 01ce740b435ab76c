/* What a session shows and leaves: its terminal, its diff, its artifacts. */
#include <errno.h>
#include <stdio.h>

#include "face/sessions/sessions_int.h"

enum { TERMINAL_MAX = 1 << 20, TERMINAL_USUAL = 256 << 10 };

static const struct mu_json_limits stored_limits = {.max_bytes = 4 << 20, .max_depth = 40};

/* One read of the session, then whatever it is for. */
struct looking {
    struct mu_call *c;
    struct mu_session_get get;
    struct mu_terminal_read read;
    struct mu_live_call ask;
    struct mu_actor by;
    bool running;
};

static struct looking *look_at(struct mu_call *c, mu_session_view_fn each,
                               void (*done)(struct mu_session_get *op, int result))
{
    const struct mu_principal *p = mu_call_principal(c);
    struct mu_id id;
    if (!mu_sess_id(c, &id)) {
        return NULL;
    }
    struct looking *x = mu_call_new(c, sizeof *x);
    if (!x) {
        return NULL;
    }
    x->c = c;
    x->get = (struct mu_session_get){.read = {.loop = mu_call_loop(c)},
                                     .admin = p->admin,
                                     .org_id = mu_str(p->org_id),
                                     .id = id,
                                     .each = each,
                                     .arg = x,
                                     .done = done,
                                     .ctx = x};
    int r = mu_session_get(mu_sess_oz(c)->sessions, &x->get);
    if (r < 0) {
        mu_sess_fail(c, r);
    }
    return x;
}

/* --- artifacts --- */

static int add_artifacts(void *arg, const struct mu_session_view *v)
{
    struct looking *x = arg;
    struct mu_json_w w = mu_call_data(x->c);
    mu_jw_obj(&w);
    mu_jw_kraw(&w, "artifacts", v->artifacts.len ? v->artifacts : MU_B("[]"));
    mu_jw_obj_end(&w);
    return w.buf->failed;
}

static void written(struct mu_session_get *op, int result)
{
    struct looking *x = op->ctx;
    if (result < 0) {
        mu_sess_fail(x->c, result);
    } else {
        mu_call_data_send(x->c, 200, NULL, 0);
    }
}

static void artifacts(struct mu_call *c)
{
    (void)look_at(c, add_artifacts, written);
}

/* --- diff --- */

/* The stored summary, or an empty one. */
static int add_diff(void *arg, const struct mu_session_view *v)
{
    struct looking *x = arg;
    struct mu_json_w w = mu_call_data(x->c);
    x->running = v->state == MU_ST_RUNNING || v->state == MU_ST_WAITING;
    mu_jw_raw(&w, v->diff.len ? v->diff
                              : MU_B("{\"filesChanged\":0,\"linesAdded\":0,\"linesRemoved\":0,"
                                     "\"files\":[]}"));
    return w.buf->failed;
}

static void add_count(struct mu_json_w *w, yyjson_val *files)
{
    size_t i, n;
    yyjson_val *f;
    int64_t added = 0, removed = 0;
    yyjson_arr_foreach(files, i, n, f)
    {
        added += mu_json_get_i64(f, "additions", 0);
        removed += mu_json_get_i64(f, "deletions", 0);
    }
    mu_jw_ki64(w, "filesChanged", (int64_t)yyjson_arr_size(files));
    mu_jw_ki64(w, "linesAdded", added);
    mu_jw_ki64(w, "linesRemoved", removed);
}

/* As the runner has just found it. */
static int add_fresh(struct mu_call *c, mu_bytes answer)
{
    yyjson_val *root = NULL;
    int r = mu_json_read(mu_call_arena(c), answer, &stored_limits, &root, NULL);
    yyjson_val *files = mu_json_get(root, "files");
    if (r < 0 || !files || !yyjson_is_arr(files)) {
        return r == -ENOMEM ? r : MU_E_UNAVAILABLE;
    }
    struct mu_json_w w = mu_call_data(c);
    mu_jw_obj(&w);
    add_count(&w, files);
    mu_jw_key(&w, "files");
    mu_json_add(w.buf, files);
    w.comma = true;
    if (mu_json_get(root, "patch")) {
        mu_jw_kstr(&w, "patch", mu_json_get_bytes(root, "patch"));
    }
    if (mu_json_get_bool(root, "truncated", false)) {
        mu_jw_kbool(&w, "truncated", true);
    }
    mu_jw_obj_end(&w);
    return 0;
}

static void told(struct mu_live_call *op, int result)
{
    struct looking *x = op->ctx;
    struct mu_call *c = x->c;
    /* what is stored is in the buffer already: it stands when nothing newer comes */
    if (result == 0) {
        result = add_fresh(c, mu_buf_bytes(&op->answer));
    }
    mu_buf_fini(&op->answer);
    if (result == -ENOMEM) {
        mu_call_fail(c, result);
    } else {
        mu_call_data_send(c, 200, NULL, 0);
    }
}

static void diff_read(struct mu_session_get *op, int result)
{
    struct looking *x = op->ctx;
    struct mu_call *c = x->c;
    struct mu_live *live = mu_sess_face(c)->live;
    mu_bytes patch = mu_call_query(c, "patch", 0);
    if (result < 0) {
        mu_sess_fail(c, result);
        return;
    }
    if (!x->running || !live) {
        mu_call_data_send(c, 200, NULL, 0);
        return;
    }
    x->by = mu_actor_of(mu_call_principal(c));
    x->ask =
        (struct mu_live_call){.loop = mu_call_loop(c),
                              .want = MU_LIVE_DIFF,
                              .admin = op->admin,
                              .org_id = op->org_id,
                              .by = mu_str(x->by.text),
                              .session = op->id,
                              .with_patch = mu_bytes_is(patch, "true") || mu_bytes_is(patch, "1"),
                              .done = told,
                              .ctx = x};
    mu_live_ask(live, &x->ask);
}

static void diff(struct mu_call *c)
{
    (void)look_at(c, add_diff, diff_read);
}

/* --- the terminal --- */

static void send_bytes(struct mu_terminal_read *op, int result)
{
    struct looking *x = op->ctx;
    struct mu_call *c = x->c;
    if (result < 0) {
        mu_buf_fini(&op->bytes);
        mu_sess_fail(c, result);
        return;
    }
    struct mu_buf *b = mu_call_buf(c);
    mu_buf_clear(b);
    mu_buf_add(b, mu_buf_bytes(&op->bytes));
    b->failed = b->failed ? b->failed : op->bytes.failed;
    mu_buf_fini(&op->bytes);
    mu_bytes begin = mu_arena_printf(mu_call_arena(c), "%lld", (long long)op->begin);
    mu_bytes end = mu_arena_printf(mu_call_arena(c), "%lld", (long long)op->newest);
    mu_bytes oldest = mu_arena_printf(mu_call_arena(c), "%lld", (long long)op->oldest);
    if (!begin.ptr || !end.ptr || !oldest.ptr) {
        mu_call_fail(c, -ENOMEM);
        return;
    }
    const struct mu_http_pair headers[] = {
        {"X-Terminal-Offset", begin}, {"X-Terminal-End", end}, {"X-Terminal-Oldest", oldest}};
    bool some = op->end > op->begin;
    bool whole = some ? op->begin <= op->oldest && op->end >= op->newest : op->newest == op->oldest;
    mu_call_send_headers(c, whole ? 200 : 206, headers, MU_ARRAY_LEN(headers));
}

static int seen(void *arg, const struct mu_session_view *v)
{
    (void)arg, (void)v;
    return 0;
}

static void session_found(struct mu_session_get *op, int result)
{
    struct looking *x = op->ctx;
    struct mu_call *c = x->c;
    struct mu_live *live = mu_sess_face(c)->live;
    if (result < 0) {
        mu_sess_fail(c, result);
        return;
    }
    x->read =
        (struct mu_terminal_read){.live = live,
                                  .loop = mu_call_loop(c),
                                  .session = op->id,
                                  .terminal = (unsigned)mu_sess_query_i64(c, "terminal", 0),
                                  .from = mu_sess_query_i64(c, "from", -1),
                                  .limit = (size_t)mu_sess_query_i64(c, "limit", TERMINAL_USUAL),
                                  .done = send_bytes,
                                  .ctx = x};
    if (live) {
        mu_terminal_read(live, &x->read);
    } else {
        mu_buf_init(&x->read.bytes, 16);
        send_bytes(&x->read, 0);
    }
}

static void terminal(struct mu_call *c)
{
    (void)look_at(c, seen, session_found);
}

/* --- routes --- */

static const struct mu_schema terminal_query[] = {
    {.name = "from",
     .type = MU_S_INT,
     .min = 0,
     .max = INT64_C(9007199254740991),
     .doc = "Offset of the first byte; default: the last `limit` bytes."},
    {.name = "limit", .type = MU_S_INT, .min = 1, .max = TERMINAL_MAX, .doc = "Bytes, 262144."},
    {.name = "terminal", .type = MU_S_INT, .max = 7, .doc = "0 (default) is the agent's."},
    {0}};
static const struct mu_schema diff_query[] = {
    {.name = "patch", .type = MU_S_BOOL, .doc = "With the text of the patch while it runs."}, {0}};

const struct mu_route mu_sess_result_routes[] = {
    {.method = MU_HTTP_GET,
     .path = "/api/v1/sessions/{sessionId}/terminal",
     .face = MU_FACE_SESSIONS,
     .auth = MU_AUTH_TENANT,
     .query = terminal_query,
     .handler = terminal,
     .id = "getTerminal",
     .summary =
         "Bytes of a terminal; X-Terminal-Offset is that of the first, X-Terminal-End the one "
         "behind the last there is.",
     .media = "application/octet-stream",
     .success = "200 206",
     .errors = "SESSION_NOT_FOUND"},
    {.method = MU_HTTP_GET,
     .path = "/api/v1/sessions/{sessionId}/diff",
     .face = MU_FACE_SESSIONS,
     .auth = MU_AUTH_TENANT,
     .query = diff_query,
     .handler = diff,
     .id = "getDiff",
     .summary = "What changed in the workspace, by file.",
     .response = "SessionDiff",
     .errors = "SESSION_NOT_FOUND"},
    {.method = MU_HTTP_GET,
     .path = "/api/v1/sessions/{sessionId}/artifacts",
     .face = MU_FACE_SESSIONS,
     .auth = MU_AUTH_TENANT,
     .handler = artifacts,
     .id = "getArtifacts",
     .summary = "What is worth keeping.",
     .response = "SessionArtifacts",
     .errors = "SESSION_NOT_FOUND"},
    {.path = NULL}};
