/* The socket of a runner that no worker of ours speaks for (agent-ops.md 9.1): the messages of
 * docs/runner-protocol.md as text, terminal bytes as binary messages. What they mean is decided in
 * app/live; here only their form is. */
#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "face/worker/worker_int.h"
#include "proto/frame.h"

enum {
    HELLO_MS = 10000,
    WRITE_HARD = 16 << 20,
    MESSAGE_ARENA = 16 << 20,
    POLICY = 1008,
    TRY_LATER = 1013,
    LIMIT = 4429,
    SLOT_MS = 5000,
};

/* One connection; on its loop. */
struct sock {
    struct mu_runner_peer peer;
    struct mu_call *call; /* until it was upgraded or refused */
    struct mu_ws *ws;     /* NULL: not open (any more) */
    struct mu_timer hello;
    struct mu_buf message; /* that does not come in one piece */
    bool greeted;
};

static void sock_free(struct sock *s)
{
    mu_timer_clear(&s->hello);
    mu_buf_fini(&s->message);
    mu_free(s);
}

/* --- what it says --- */

static int take_text(struct sock *s, mu_bytes text)
{
    static const struct mu_json_limits limits = {.max_bytes = MU_FRAME_JSON_MAX, .max_depth = 64};
    struct mu_arena a;
    yyjson_val *m = NULL;
    mu_arena_init(&a, MESSAGE_ARENA);
    int r = mu_json_read(&a, text, &limits, &m, NULL);
    mu_bytes type = r == 0 ? mu_json_get_bytes(m, "type") : MU_B_NONE;
    bool hello = mu_bytes_is(type, "hello");
    if (r == 0 && (!type.len || (!s->greeted && !hello))) {
        r = MU_E_PROTOCOL;
    }
    mu_arena_fini(&a);
    if (r == 0 && hello) {
        s->greeted = true;
        mu_timer_clear(&s->hello);
    }
    return r ? r : mu_fleet_runner_said(&s->peer, text);
}

static int take_bytes(struct sock *s, mu_bytes payload)
{
    struct mu_frame_term f;
    int r = s->greeted ? mu_frame_term_parse(payload, &f) : MU_E_PROTOCOL;
    if (r < 0 || f.offset > MU_LOG_OFFSET_MAX) {
        return MU_E_PROTOCOL;
    }
    return mu_fleet_runner_showed(&s->peer, f.terminal, (int64_t)f.offset, f.data);
}

static void on_data(void *arg, bool text, mu_bytes piece, bool last)
{
    struct sock *s = arg;
    mu_bytes whole = piece;
    if (!last || s->message.len) {
        mu_buf_add(&s->message, piece);
        whole = mu_buf_bytes(&s->message);
    }
    if (!last && !s->message.failed) {
        return;
    }
    int r = s->message.failed ? s->message.failed
            : text            ? take_text(s, whole)
                              : take_bytes(s, whole);
    mu_buf_clear(&s->message);
    if (r < 0) {
        mu_log(MU_LOG_DEBUG, "runner.closed", MU_KS("session_id", mu_id_bytes(&s->peer.session)),
               MU_KC("err_message", mu_err_text(r)));
        mu_ws_close(s->ws,
                    r == -ENOMEM      ? TRY_LATER
                    : r == MU_E_LIMIT ? LIMIT
                                      : POLICY,
                    r == -ENOMEM      ? "Out of memory, try again"
                    : r == MU_E_LIMIT ? "Too much at once"
                                      : "No message of the runner protocol");
    }
}

static void on_hello_time(struct mu_timer *t)
{
    struct sock *s = MU_CONTAINER(t, struct sock, hello);
    if (s->ws) {
        mu_ws_close(s->ws, POLICY, "A runner says hello first");
    }
}

static void on_closed(void *arg, int code, mu_bytes reason)
{
    struct sock *s = arg;
    mu_log(MU_LOG_DEBUG, "runner.closed", MU_KS("session_id", mu_id_bytes(&s->peer.session)),
           MU_KI("code", code), MU_KS("reason", reason));
    s->ws = NULL;
    mu_timer_clear(&s->hello);
    mu_fleet_runner_gone(&s->peer);
}

static const struct mu_ws_ops ws_ops = {on_data, NULL, on_closed};

/* --- what the fleet says --- */

static void on_told(struct mu_runner_peer *p, mu_bytes json)
{
    struct sock *s = MU_CONTAINER(p, struct sock, peer);
    if (s->ws) {
        mu_ws_send(s->ws, true, json);
    }
}

static void on_close_order(struct mu_runner_peer *p, int code, const char *reason)
{
    struct sock *s = MU_CONTAINER(p, struct sock, peer);
    if (s->ws) {
        mu_ws_close(s->ws, code, reason);
    }
}

static void on_release(struct mu_runner_peer *p)
{
    sock_free(MU_CONTAINER(p, struct sock, peer));
}

static void accept_runner(struct sock *s)
{
    struct mu_call *c = s->call;
    struct mu_ws_limits limits = mu_ws_default_limits;
    limits.max_message = MU_FRAME_JSON_MAX;
    limits.write_hard = WRITE_HARD;
    s->call = NULL;
    int r = mu_timer_set(&s->hello, HELLO_MS);
    r = r < 0 ? r : mu_ws_accept(mu_call_http(c), &limits, &ws_ops, s, &s->ws);
    if (r < 0) {
        s->ws = NULL;
        mu_timer_clear(&s->hello);
        if (r != MU_E_CLOSED) {
            mu_call_fail(c, r);
        }
        mu_fleet_runner_gone(&s->peer);
        return;
    }
    mu_fleet_runner_attach(&s->peer);
}

static void on_admitted(struct mu_runner_peer *p, int result)
{
    struct sock *s = MU_CONTAINER(p, struct sock, peer);
    struct mu_call *c = s->call;
    if (result == 0) {
        accept_runner(s);
        return;
    }
    sock_free(s);
    if (result == MU_E_CANCELLED) {
        mu_call_error(c, 410, "attempt_over", NULL, "This attempt is over");
    } else if (result == MU_E_BUSY) {
        mu_call_retry(c, 503, "unavailable", SLOT_MS, "The attempt has not begun");
    } else if (result == MU_E_CONFLICT) {
        mu_call_error(c, 409, "conflict", NULL,
                      "No runner connects for this session: it is not live, or its worker does");
    } else {
        mu_call_fail(c, result);
    }
}

/* --- opening --- */

static void open_runner(struct mu_call *c)
{
    const struct mu_principal *p = mu_call_principal(c);
    mu_bytes role = mu_call_query(c, "role", 0);
    struct mu_id id;
    if (!mu_bytes_is(role, "runner")) {
        mu_call_error(c, 400, "invalid_field", "role",
                      "Only role=runner is served here; people follow sessions at /api/v1/ws");
        return;
    }
    bool known = mu_id_parse(mu_call_param(c, "sessionId"), "ses_", &id) == 0 ||
                 mu_id_parse(mu_call_param(c, "sessionId"), NULL, &id) == 0;
    if (!known || !p->run.text[0] || strcmp(p->run.text, id.text) != 0) {
        mu_call_fail(c, MU_E_NOT_FOUND);
        return;
    }
    struct sock *s = mu_calloc(1, sizeof *s);
    if (!s) {
        mu_call_fail(c, -ENOMEM);
        return;
    }
    s->call = c;
    mu_buf_init(&s->message, MU_FRAME_JSON_MAX);
    mu_timer_init(&s->hello, mu_call_loop(c), on_hello_time);
    s->peer = (struct mu_runner_peer){.loop = mu_call_loop(c),
                                      .session = id,
                                      .epoch = p->run_epoch,
                                      .admitted = on_admitted,
                                      .told = on_told,
                                      .close = on_close_order,
                                      .release = on_release};
    mu_fleet_runner_admit(mu_worker_face_at(c)->opts.fleet, &s->peer);
}

static const struct mu_schema socket_query[] = {
    {.name = "role", .type = MU_S_STRING, .max = 16, .doc = "runner."},
    {.name = "token",
     .type = MU_S_STRING,
     .max = 4096,
     .doc = "The session token, for who cannot send a header."},
    {0}};

const struct mu_route mu_runner_socket_routes[] = {
    {.method = MU_HTTP_GET,
     .path = "/api/sessions/{sessionId}/ws",
     .face = MU_FACE_APP,
     .auth = MU_AUTH_RUN,
     .flags = MU_ROUTE_WEBSOCKET | MU_ROUTE_URL_TOKEN,
     .query = socket_query,
     .handler = open_runner,
     .id = "runnerSocket",
     .summary = "The WebSocket of a session's runner, for workers that hand nothing on "
                "(docs/runner-protocol.md; session token).",
     .errors = "400 404 409 410 426 503"},
    {.path = NULL}};
