/* What people do to a session: stop, pause, resume, input, resize, end, terminals, interrupt
 * (village-control-plane.md 4.4). */
#include <errno.h>
#include <stdio.h>

#include "face/sessions/sessions_int.h"

enum { INPUT_BYTES = 65536, WAIT_MAX_S = 35, DETAIL_STATUS = 200 };

/* --- stop --- */

struct stopping {
    struct mu_session_cancel op;
    struct mu_session_get get;
    struct mu_call *c;
    struct mu_actor by;
    struct mu_watch watch;
    struct mu_timer timer;
    int64_t until_ms;
    bool ended, reading, again, gone, watching, hurry;
    struct mu_post post; /* to the fleet and back */
    struct mu_fleet *fleet;
    struct mu_loop *loop;
};

static void look(struct stopping *x);

static void stopped_finish(struct stopping *x, int result)
{
    struct mu_call *c = x->c;
    struct mu_id id = x->op.id;
    bool ended = x->ended;
    if (x->watching) {
        mu_feed_unwatch(mu_sessions_feed(mu_sess_oz(c)->sessions), &x->watch);
    }
    mu_timer_clear(&x->timer);
    mu_free(x);
    if (result < 0) {
        mu_sess_fail(c, result);
    } else {
        mu_sess_answer_detail(c, &id, ended ? 200 : 202, NULL, NULL, 0);
    }
}

static int take_state(void *arg, const struct mu_session_view *v)
{
    struct stopping *x = arg;
    x->ended = v->outcome != MU_OUT_LIVE;
    return 0;
}

static void looked(struct mu_session_get *op, int result)
{
    struct stopping *x = op->ctx;
    x->reading = false;
    int64_t now = mu_env_mono_ms(mu_sess_oz(x->c)->env);
    if (result < 0 || x->ended || x->gone || now >= x->until_ms) {
        stopped_finish(x, result);
    } else if (x->again) {
        look(x);
    } else if (!mu_timer_is_set(&x->timer) && mu_timer_set(&x->timer, x->until_ms - now) < 0) {
        stopped_finish(x, 0);
    }
}

static void look(struct stopping *x)
{
    x->again = false;
    x->reading = true;
    int r = mu_session_get(mu_sess_oz(x->c)->sessions, &x->get);
    if (r < 0) {
        stopped_finish(x, r);
    }
}

static void on_event(struct mu_watch *watch, struct mu_event *e)
{
    struct stopping *x = MU_CONTAINER(watch, struct stopping, watch);
    if (e->seq == 0) {
        return;
    }
    if (x->reading) {
        x->again = true;
    } else {
        look(x);
    }
}

static void on_time(struct mu_timer *t)
{
    struct stopping *x = MU_CONTAINER(t, struct stopping, timer);
    if (!x->reading) {
        look(x);
    }
}

static void on_gone(struct mu_call *c)
{
    struct stopping *x = mu_call_ctx(c);
    x->gone = true;
    if (!x->reading) {
        stopped_finish(x, 0);
    }
}

/* Until it has ended, or the caller's time is over. */
static void wait_for_end(struct stopping *x, int64_t seconds)
{
    struct mu_call *c = x->c;
    x->until_ms = mu_env_mono_ms(mu_sess_oz(c)->env) + seconds * 1000;
    memcpy(x->watch.stream_id, x->op.id.text, sizeof x->op.id.text);
    x->watch.loop = mu_call_loop(c);
    x->watch.on_event = on_event;
    int r = mu_feed_watch(mu_sessions_feed(mu_sess_oz(c)->sessions), &x->watch);
    if (r < 0) {
        stopped_finish(x, r);
        return;
    }
    x->watching = x->reading =
        true; /* on_gone may run at once: the look below ends the call then */
    mu_call_set_ctx(c, x);
    mu_call_on_gone(c, on_gone);
    look(x);
}

static void proceed(struct stopping *x)
{
    int64_t seconds = mu_sess_query_i64(x->c, "wait", 0);
    if (x->ended || seconds == 0) {
        stopped_finish(x, 0);
    } else {
        wait_for_end(x, seconds);
    }
}

static void hurried(struct mu_post *post)
{
    proceed(MU_CONTAINER(post, struct stopping, post));
}

static void hurry(struct mu_post *post)
{
    struct stopping *x = MU_CONTAINER(post, struct stopping, post);
    mu_fleet_hurry(x->fleet, mu_id_bytes(&x->op.id));
    x->post.fn = hurried;
    mu_loop_post(x->loop, &x->post);
}

static void cancelled(struct mu_session_cancel *op, int result)
{
    struct stopping *x = op->ctx;
    struct mu_call *c = x->c;
    if (result < 0) {
        stopped_finish(x, result);
        return;
    }
    x->ended = op->state >= MU_ST_COMPLETED;
    if (x->ended && !op->changed) {
        mu_timer_clear(&x->timer);
        mu_free(x);
        mu_call_error(c, 409, "SESSION_ALREADY_STOPPED", NULL, "The session has ended already");
        return;
    }
    if (mu_sess_face(c)->live) {
        mu_live_poke(mu_sess_face(c)->live, &op->id);
    }
    if (x->hurry && !x->ended) {
        x->fleet = mu_sess_oz(c)->fleet;
        x->loop = mu_call_loop(c);
        x->post.fn = hurry; /* behind the stop itself, which travels the same way */
        mu_loop_post(mu_sess_oz(c)->core, &x->post);
        return;
    }
    proceed(x);
}

static void stop_session(struct mu_call *c)
{
    const struct mu_principal *p = mu_call_principal(c);
    struct mu_id id;
    if (!mu_sess_id(c, &id)) {
        return;
    }
    struct stopping *x = mu_calloc(1, sizeof *x); /* the call may wait long, its watch with it */
    if (!x) {
        mu_call_fail(c, -ENOMEM);
        return;
    }
    x->c = c;
    x->by = mu_actor_of(p);
    mu_timer_init(&x->timer, mu_call_loop(c), on_time);
    x->get = (struct mu_session_get){.read = {.loop = mu_call_loop(c)},
                                     .admin = p->admin,
                                     .org_id = mu_str(p->org_id),
                                     .id = id,
                                     .each = take_state,
                                     .arg = x,
                                     .done = looked,
                                     .ctx = x};
    mu_bytes reason = mu_json_get_bytes(mu_call_body(c), "reason");
    x->hurry = !mu_json_get_bool(mu_call_body(c), "graceful", true);
    x->op = (struct mu_session_cancel){.unit = {.loop = mu_call_loop(c)},
                                       .admin = p->admin,
                                       .org_id = mu_str(p->org_id),
                                       .by = mu_str(x->by.text),
                                       .reason = reason.len ? reason : MU_B_NONE,
                                       .id = id,
                                       .done = cancelled,
                                       .ctx = x};
    int r = mu_dispatch_cancel(mu_sess_oz(c)->dispatch, &x->op);
    if (r < 0) {
        stopped_finish(x, r);
    }
}

/* --- what the runner has to do --- */

struct commanding {
    struct mu_live_call op;
    struct mu_call *c;
    struct mu_actor by;
    char number[8];
};

static void fail_live(struct mu_call *c, int result)
{
    switch (result) {
    case MU_E_UNAVAILABLE:
        mu_call_retry(c, 503, "RUNNER_UNREACHABLE", 5000,
                      "The session's runner is not reachable just now");
        return;
    default:
        mu_sess_fail(c, result);
    }
}

static void with_detail(struct mu_live_call *op, int result)
{
    struct commanding *x = op->ctx;
    mu_buf_fini(&op->answer);
    if (result < 0) {
        fail_live(x->c, result);
    } else {
        mu_sess_answer_detail(x->c, &op->session, DETAIL_STATUS, NULL, NULL, 0);
    }
}

/* {"accepted":true, …} */
static void acknowledge(struct mu_live_call *op, int result)
{
    struct commanding *x = op->ctx;
    struct mu_call *c = x->c;
    mu_buf_fini(&op->answer);
    if (result == MU_E_FORBIDDEN && op->held_by[0]) {
        mu_call_error(c, 403, "FORBIDDEN", NULL, "The session is under the exclusive control of %s",
                      op->held_by);
        return;
    }
    if (result < 0) {
        fail_live(c, result);
        return;
    }
    struct mu_json_w w = mu_call_data(c);
    mu_jw_obj(&w);
    mu_jw_kbool(&w, "accepted", true);
    switch (op->want) {
    case MU_LIVE_INPUT:
        mu_jw_ki64(&w, "bytes", (int64_t)op->data.len);
        break;
    case MU_LIVE_RESIZE:
        mu_jw_ki64(&w, "cols", op->cols);
        mu_jw_ki64(&w, "rows", op->rows);
        break;
    case MU_LIVE_OPEN:
    case MU_LIVE_CLOSE:
        mu_jw_ki64(&w, "terminal", op->terminal);
        break;
    default:
        break;
    }
    mu_jw_obj_end(&w);
    mu_call_data_send(c,
                      op->want == MU_LIVE_OPEN                                  ? 201
                      : op->want == MU_LIVE_RESIZE || op->want == MU_LIVE_CLOSE ? 200
                                                                                : 202,
                      NULL, 0);
}

static struct commanding *commanding_new(struct mu_call *c, enum mu_live_want want,
                                         void (*done)(struct mu_live_call *op, int result))
{
    const struct mu_principal *p = mu_call_principal(c);
    struct mu_id id;
    if (!mu_sess_id(c, &id)) {
        return NULL;
    }
    struct commanding *x = mu_call_new(c, sizeof *x);
    if (!x) {
        return NULL;
    }
    x->c = c;
    x->by = mu_actor_of(p);
    x->op = (struct mu_live_call){.loop = mu_call_loop(c),
                                  .want = want,
                                  .admin = p->admin,
                                  .org_id = mu_str(p->org_id),
                                  .by = mu_str(x->by.text),
                                  .session = id,
                                  .done = done,
                                  .ctx = x};
    return x;
}

static void ask(struct mu_call *c, struct commanding *x)
{
    struct mu_sess_face *f = mu_sess_face(c);
    if (f->live) {
        mu_live_ask(f->live, &x->op);
    } else {
        fail_live(c, MU_E_UNAVAILABLE);
    }
}

static void pause_session(struct mu_call *c)
{
    struct commanding *x = commanding_new(c, MU_LIVE_PAUSE, with_detail);
    if (x) {
        ask(c, x);
    }
}

static void resume_session(struct mu_call *c)
{
    struct commanding *x = commanding_new(c, MU_LIVE_RESUME, with_detail);
    if (x) {
        ask(c, x);
    }
}

static void end_session(struct mu_call *c)
{
    struct commanding *x = commanding_new(c, MU_LIVE_END, with_detail);
    if (x) {
        ask(c, x);
    }
}

static void interrupt(struct mu_call *c)
{
    mu_bytes turn = mu_json_get_bytes(mu_call_body(c), "promptId");
    struct commanding *x = commanding_new(c, MU_LIVE_ABORT, acknowledge);
    if (!x) {
        return;
    }
    if (turn.len && mu_id_parse(turn, NULL, &x->op.turn) < 0) {
        mu_call_issue(c, "invalid_format", "promptId", "promptId is no id of a prompt");
        (void)mu_call_refused(c);
        return;
    }
    ask(c, x);
}

static void check_input(struct mu_call *c)
{
    if (mu_json_get_bytes(mu_call_body(c), "data").len > INPUT_BYTES) {
        mu_call_issue(c, "too_big", "data", "data must be at most %d bytes", INPUT_BYTES);
    }
}

static void input(struct mu_call *c)
{
    yyjson_val *b = mu_call_body(c);
    struct commanding *x = commanding_new(c, MU_LIVE_INPUT, acknowledge);
    if (!x) {
        return;
    }
    x->op.data = mu_json_get_bytes(b, "data");
    x->op.line = mu_bytes_is(mu_json_get_bytes(b, "mode"), "line");
    x->op.terminal = (unsigned)mu_json_get_i64(b, "terminal", 0);
    ask(c, x);
}

static void take_size(struct commanding *x, yyjson_val *b)
{
    x->op.cols = (int)mu_json_get_i64(b, "cols", 120);
    x->op.rows = (int)mu_json_get_i64(b, "rows", 40);
}

static void resize(struct mu_call *c)
{
    struct commanding *x = commanding_new(c, MU_LIVE_RESIZE, acknowledge);
    if (!x) {
        return;
    }
    take_size(x, mu_call_body(c));
    x->op.terminal = (unsigned)mu_json_get_i64(mu_call_body(c), "terminal", 0);
    ask(c, x);
}

static void open_terminal(struct mu_call *c)
{
    struct commanding *x = commanding_new(c, MU_LIVE_OPEN, acknowledge);
    if (!x) {
        return;
    }
    take_size(x, mu_call_body(c));
    x->op.data = mu_json_get_bytes(mu_call_body(c), "command");
    ask(c, x);
}

static void close_terminal(struct mu_call *c)
{
    int64_t n;
    struct commanding *x = commanding_new(c, MU_LIVE_CLOSE, acknowledge); /* NULL: answered */
    if (!x) {
        return;
    }
    if (mu_bytes_i64(mu_call_param(c, "terminal"), &n) < 0 || n < 1 || n > 7) {
        mu_call_error(c, 404, "NOT_FOUND", NULL, "The session has no such terminal");
        return;
    }
    x->op.terminal = (unsigned)n;
    ask(c, x);
}

/* --- routes --- */

static const struct mu_schema no_body[] = {{0}};
static const struct mu_schema stop_body[] = {
    {.name = "reason", .type = MU_S_STRING, .flags = MU_S_NO_NUL, .max = 1000, .doc = "Kept."},
    {.name = "graceful",
     .type = MU_S_BOOL,
     .doc = "false: without time for an end; true is the default."},
    {0}};
static const struct mu_schema stop_query[] = {{.name = "wait",
                                               .type = MU_S_INT,
                                               .max = WAIT_MAX_S,
                                               .doc = "Seconds to wait for the end, at most 35."},
                                              {0}};
static const struct mu_schema input_body[] = {
    {.name = "data",
     .type = MU_S_STRING,
     .flags = MU_S_REQUIRED,
     .min = 1,
     .max = INPUT_BYTES,
     .doc = "What is typed."},
    {.name = "mode",
     .type = MU_S_STRING,
     .words = "raw line",
     .doc = "raw (default): as it is; line: with a newline behind."},
    {.name = "terminal", .type = MU_S_INT, .max = 7, .doc = "0 (default) is the agent's."},
    {0}};
#define COLS                                                                                       \
    {                                                                                              \
        .name = "cols", .type = MU_S_INT, .flags = MU_S_REQUIRED, .min = 20, .max = 500,           \
        .doc = "Columns."                                                                          \
    }
#define ROWS                                                                                       \
    {                                                                                              \
        .name = "rows", .type = MU_S_INT, .flags = MU_S_REQUIRED, .min = 5, .max = 200,            \
        .doc = "Rows."                                                                             \
    }
static const struct mu_schema resize_body[] = {
    COLS,
    ROWS,
    {.name = "terminal", .type = MU_S_INT, .max = 7, .doc = "0 (default) is the agent's."},
    {0}};
static const struct mu_schema open_body[] = {
    {.name = "cols", .type = MU_S_INT, .min = 20, .max = 500, .doc = "Columns, 120."},
    {.name = "rows", .type = MU_S_INT, .min = 5, .max = 200, .doc = "Rows, 40."},
    {.name = "command",
     .type = MU_S_STRING,
     .flags = MU_S_NO_NUL,
     .max = 4096,
     .doc = "Default: a shell in the workspace."},
    {0}};
static const struct mu_schema interrupt_body[] = {
    {.name = "promptId",
     .type = MU_S_STRING,
     .form = MU_F_ID,
     .doc = "Only if that one is worked on; default: whichever is."},
    {0}};

/* what the runner has to do */
#define RUNNER "SESSION_NOT_FOUND INVALID_STATE RUNNER_UNREACHABLE"

#define DO(m, p, fn, opid, text, resp, ok, codes)                                                  \
    .method = m, .path = "/api/v1/sessions/{sessionId}" p, .face = MU_FACE_SESSIONS,               \
    .auth = MU_AUTH_TENANT, .role = MU_ROLE_OPERATOR, .handler = fn, .id = opid, .summary = text,  \
    .response = resp, .success = ok, .errors = codes, .max_body = MU_SESS_BODY

const struct mu_route mu_sess_control_routes[] = {
    {DO(MU_HTTP_POST, "/stop", stop_session, "stopSession",
        "Stop a session; 202 while it winds up.", "SessionDetail", "200 202",
        "SESSION_NOT_FOUND SESSION_ALREADY_STOPPED"),
     .query = stop_query, .body = stop_body},
    {DO(MU_HTTP_POST, "/pause", pause_session, "pauseSession", "Freeze a running session.",
        "SessionDetail", NULL, RUNNER),
     .body = no_body},
    {DO(MU_HTTP_POST, "/resume", resume_session, "resumeSession", "Let it go on.", "SessionDetail",
        NULL, RUNNER),
     .body = no_body},
    {DO(MU_HTTP_POST, "/end", end_session, "endSession",
        "An interactive session is done: it finishes (ours).", "SessionDetail", NULL, RUNNER),
     .body = no_body},
    {DO(MU_HTTP_POST, "/interrupt", interrupt, "interruptSession",
        "Abort the prompt that is worked on (ours).", "Accepted", "202", RUNNER),
     .body = interrupt_body},
    {DO(MU_HTTP_POST, "/input", input, "sendInput", "Type into a terminal.", "Accepted", "202",
        RUNNER),
     .body = input_body, .check = check_input},
    {DO(MU_HTTP_POST, "/resize", resize, "resizeTerminal", "Size of a terminal.", "Accepted", NULL,
        RUNNER),
     .body = resize_body},
    {DO(MU_HTTP_POST, "/terminals", open_terminal, "openTerminal",
        "Open a further terminal (ours).", "Accepted", "201", RUNNER),
     .body = open_body},
    {DO(MU_HTTP_DELETE, "/terminals/{terminal}", close_terminal, "closeTerminal",
        "Close one of them (ours).", "Accepted", NULL, RUNNER " NOT_FOUND")},
    {.path = NULL}};
