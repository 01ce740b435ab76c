/* A worker's connection: who may open one, its messages and orders, its end. */
#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "face/worker/worker_int.h"

enum {
    HELLO_MS = 10000,
    PROBE_STEP_MS = 100,
    PROBE_STEPS = 50,
    SURELY = 4096, /* control frames that may be queued besides */
    MESSAGE_GO = 104857600,
    MESSAGE_NATIVE = 16 << 20,
    DEREGISTERED = 4411,
};

/* --- life --- */

static void reading_free(struct mu_link *l)
{
    if (l->reading) {
        mu_buf_fini(&l->reading->text);
        mu_clip_fini(&l->reading->output);
        mu_free(l->reading);
        l->reading = NULL;
    }
}

static void link_free(struct mu_link *l)
{
    reading_free(l);
    mu_buf_fini(&l->binary);
    mu_timer_clear(&l->timer);
    mu_free(l->assigns);
    mu_free(l->name);
    explicit_bzero(l->enrol.pass.token, sizeof l->enrol.pass.token);
    explicit_bzero(l->peer.credential, sizeof l->peer.credential);
    mu_free(l);
}

/* --- messages in --- */

static int on_piece(void *arg, mu_bytes key, unsigned depth, mu_bytes text, bool first)
{
    struct mu_link_reading *rd = arg;
    if (depth != 2 || !mu_bytes_is(key, "output")) {
        return 0;
    }
    if (first) {
        mu_clip_fini(&rd->output);
    }
    rd->has_output = true;
    return mu_clip_add(&rd->output, text);
}

static bool reading_new(struct mu_link *l)
{
    struct mu_link_reading *rd = mu_calloc(1, sizeof *rd);
    if (!rd) {
        return false;
    }
    mu_buf_init(&rd->text, MU_LINK_MESSAGE);
    mu_clip_init(&rd->output, MU_OUTPUT_MAX, MU_OUTPUT_HEAD);
    mu_jsoncut_init(&rd->cut, &rd->text, l->native ? MU_LINK_STRING_NATIVE : MU_LINK_STRING,
                    on_piece, rd);
    l->reading = rd;
    return true;
}

static void whole_message(struct mu_link *l)
{
    struct mu_link_reading *rd = l->reading;
    l->reading = NULL;
    if (rd->failed == -ENOMEM) {
        mu_ws_close(l->ws, 1013, "Out of memory, try again");
    } else if (rd->failed) {
        mu_link_protocol_error(l, "the message is no JSON, or too large");
    } else {
        mu_link_decode(l, mu_buf_bytes(&rd->text), rd->has_output ? &rd->output : NULL);
    }
    mu_buf_fini(&rd->text);
    mu_clip_fini(&rd->output);
    mu_free(rd);
}

static void on_binary(struct mu_link *l, mu_bytes piece, bool last)
{
    mu_bytes whole = piece;
    if (!last || l->binary.len) {
        mu_buf_add(&l->binary, piece);
        whole = mu_buf_bytes(&l->binary);
    }
    if (!last) {
        return;
    }
    int r = l->binary.failed             ? l->binary.failed
            : whole.len > MU_LINK_BINARY ? MU_E_TOO_LARGE
                                         : mu_link_binary(l, whole);
    mu_buf_clear(&l->binary);
    if (r == -ENOMEM) {
        mu_ws_close(l->ws, 1013, "Out of memory, try again");
    } else if (r < 0) {
        mu_link_protocol_error(l, mu_err_text(r));
    }
}

static void on_data(void *arg, bool text, mu_bytes piece, bool last)
{
    struct mu_link *l = arg;
    if (!text && l->native) {
        on_binary(l, piece, last);
        return;
    }
    size_t small = l->native ? MU_LINK_STRING_NATIVE : MU_LINK_STRING;
    if (!l->reading && last && piece.len <= small) {
        mu_link_decode(l, piece, NULL);
        return;
    }
    if (!l->reading && !reading_new(l)) {
        mu_ws_close(l->ws, 1013, "Out of memory, try again");
        return;
    }
    struct mu_link_reading *rd = l->reading;
    rd->failed = rd->failed ? rd->failed : mu_jsoncut_feed(&rd->cut, piece);
    if (last) {
        whole_message(l);
    }
}

void mu_link_protocol_error(struct mu_link *l, const char *what)
{
    mu_metric_add(mu_fleet_protocol_errors(l->face->opts.fleet), 1);
    mu_log(MU_LOG_DEBUG, "worker.protocol_error", MU_KC("err_message", what));
}

/* --- its end --- */

/* The assignments of which surely not every byte left. */
static void note_unsent(struct mu_link *l)
{
    int64_t unsent = (int64_t)mu_ws_unsent(l->ws);
    struct mu_peer *p = &l->peer;
    if (unsent <= SURELY || !l->n_assigns) {
        return;
    }
    p->unsent = mu_calloc(MU_LINK_ASSIGNS, sizeof *p->unsent);
    unsigned from = l->n_assigns > MU_LINK_ASSIGNS ? l->n_assigns - MU_LINK_ASSIGNS : 0;
    for (unsigned i = from; p->unsent && i < l->n_assigns; i++) {
        const struct mu_link_assign *a = &l->assigns[i % MU_LINK_ASSIGNS];
        if (unsent > l->queued - a->end + SURELY) {
            p->unsent[p->n_unsent++] = a->session;
        }
    }
}

static void on_closed(void *arg, int code, mu_bytes reason)
{
    struct mu_link *l = arg;
    if (l->removed) { /* the fleet never heard of it */
        reading_free(l);
        link_free(l);
        return;
    }
    mu_log(MU_LOG_DEBUG, "worker.closed", MU_KI("code", code), MU_KS("reason", reason));
    note_unsent(l);
    l->ws = NULL;
    reading_free(l);
    mu_timer_clear(&l->timer);
    if (l->probe_ms) {
        l->probe_ms = 0;
        mu_fleet_alive(&l->peer, false);
    }
    mu_fleet_gone(&l->peer);
}

static const struct mu_ws_ops ws_ops = {on_data, NULL, on_closed};

static void on_nothing(void *arg, bool text, mu_bytes piece, bool last)
{
    (void)arg, (void)text, (void)piece, (void)last;
}

static const struct mu_ws_ops removed_ops = {on_nothing, NULL, on_closed};

static void on_release(struct mu_peer *p)
{
    link_free(MU_CONTAINER(p, struct mu_link, peer));
}

/* --- orders --- */

static void follow(struct mu_link *l, const struct mu_order *o)
{
    if (!l->assigns) {
        l->assigns = mu_calloc(MU_LINK_ASSIGNS, sizeof *l->assigns);
    }
    if (l->assigns) { /* else it counts as sent, which is the careful side */
        l->assigns[l->n_assigns++ % MU_LINK_ASSIGNS] =
            (struct mu_link_assign){o->of.session, l->queued};
    }
}

static bool send(struct mu_link *l, const struct mu_buf *b)
{
    if (b->failed) {
        return false;
    }
    if (b->len) {
        mu_ws_send(l->ws, true, mu_buf_bytes(b));
        l->queued += (int64_t)b->len;
    }
    return true;
}

static void on_order(struct mu_peer *p, struct mu_order *o)
{
    struct mu_link *l = MU_CONTAINER(p, struct mu_link, peer);
    struct mu_buf first, second;
    mu_buf_init(&first, 48 << 20);
    mu_buf_init(&second, 4096);
    bool sent = false;
    if (l->ws) {
        mu_link_encode(l->face, o, &first, &second);
        sent = send(l, &first) && send(l, &second);
        if (!sent) {
            mu_ws_close(l->ws, 1013, "Out of memory, try again");
        }
    }
    if (o->kind == MU_ORDER_ASSIGN && sent) {
        follow(l, o);
    }
    mu_buf_wipe(&first); /* it held the session's token and variables */
    mu_buf_fini(&second);
    if (o->kind == MU_ORDER_ASSIGN && !sent) {
        mu_fleet_unsent(o);
    } else {
        mu_order_free(o);
    }
}

static void on_close_order(struct mu_peer *p, int code, const char *reason)
{
    struct mu_link *l = MU_CONTAINER(p, struct mu_link, peer);
    if (l->ws) {
        mu_ws_close(l->ws, code, reason);
    }
}

static void probe_step(struct mu_link *l)
{
    bool alive = mu_ws_last_in_ms(l->ws) >= l->probe_ms;
    if (alive || ++l->probes > PROBE_STEPS || mu_timer_set(&l->timer, PROBE_STEP_MS) < 0) {
        l->probe_ms = 0;
        mu_fleet_alive(&l->peer, alive);
    }
}

static void on_probe(struct mu_peer *p)
{
    struct mu_link *l = MU_CONTAINER(p, struct mu_link, peer);
    if (!l->ws) { /* mu_fleet_gone() is on its way */
        return;
    }
    if (l->native && !l->said_hello) { /* alive, if only just */
        mu_fleet_alive(p, true);
        return;
    }
    l->probe_ms = MU_MAX(mu_loop_now_ms(p->loop), 1);
    l->probes = 0;
    mu_ws_ping(l->ws);
    probe_step(l);
}

static void on_timer(struct mu_timer *t)
{
    struct mu_link *l = MU_CONTAINER(t, struct mu_link, timer);
    if (l->probe_ms) {
        probe_step(l);
    } else if (l->native && !l->said_hello && l->ws) {
        mu_ws_close(l->ws, 1002, "A worker with proto=2 says hello first");
    }
}

/* --- opening --- */

/* A status cannot say it: a client may try again after any. */
static void tell_removed(struct mu_link *l)
{
    struct mu_call *c = l->call;
    l->call = NULL;
    l->removed = true;
    int r = mu_ws_accept(mu_call_http(c), &mu_ws_default_limits, &removed_ops, l, &l->ws);
    if (r < 0) {
        if (r != MU_E_CLOSED) {
            mu_call_fail(c, r);
        }
        link_free(l);
        return;
    }
    mu_ws_close(l->ws, DEREGISTERED, "This worker was deregistered");
}

static void accept_link(struct mu_link *l)
{
    struct mu_call *c = l->call;
    struct mu_http_req *req = mu_call_http(c);
    struct mu_ws_limits limits = mu_ws_default_limits;
    limits.max_message = l->native ? MESSAGE_NATIVE : MESSAGE_GO;
    l->call = NULL;
    int r = mu_ws_accept(req, &limits, &ws_ops, l, &l->ws);
    if (r < 0) {
        l->ws = NULL;
        if (r != MU_E_CLOSED) {
            mu_call_fail(c, r);
        }
        mu_fleet_gone(&l->peer);
        return;
    }
    mu_free(l->name);
    l->name = NULL;
    if (l->native) {
        (void)!mu_timer_set(&l->timer, HELLO_MS);
    }
    mu_fleet_attach(&l->peer);
}

static void admitted(struct mu_admission *op, int result)
{
    struct mu_link *l = op->ctx;
    struct mu_call *c = l->call;
    if (result == 0) {
        accept_link(l);
        return;
    }
    if (result == MU_E_CANCELLED) {
        tell_removed(l);
        return;
    }
    if (result == MU_E_FORBIDDEN) {
        mu_call_error(c, 403, "forbidden", "worker_id",
                      "This credential belongs to another worker");
    } else if (result == MU_E_NOT_FOUND) {
        mu_call_error(c, 404, "runner_not_found", NULL, "There is no such runner");
    } else if (result == MU_E_BUSY) {
        mu_call_retry(c, 429, "worker_connected", 15000,
                      "A worker of this id is connected; each needs an id of its own");
    } else if (result == MU_E_LIMIT) {
        mu_call_retry(c, 503, "unavailable", 15000, "Too many workers");
    } else {
        mu_call_fail(c, result);
    }
    link_free(l);
}

/* The id that it may use; false: answered. */
static bool take_name(struct mu_call *c, mu_bytes *ret, bool *ret_anonymous)
{
    const struct mu_principal *p = mu_call_principal(c);
    mu_bytes name = mu_bytes_trim(mu_call_query(c, "worker_id", 0));
    *ret_anonymous = false;
    if (p->worker && name.len && !mu_bytes_is(name, p->worker)) {
        mu_call_error(c, 403, "forbidden", "worker_id", "This key belongs to another worker id");
        return false;
    }
    if (p->worker) {
        name = mu_str(p->worker);
    }
    if (p->runner.text[0] && !name.len) { /* its record has one */
        *ret = MU_B("");
        return true;
    }
    if (p->enrolment.text[0] && !name.len) {
        mu_call_error(c, 400, "missing_field", "worker_id",
                      "worker_id is needed: a worker enrols by a name");
        return false;
    }
    if (!name.len) {
        struct mu_id id = mu_id_random(mu_worker_face_at(c)->opts.env);
        name = mu_arena_printf(mu_call_arena(c), "worker_%s", id.text);
        *ret_anonymous = true;
    }
    if (!mu_worker_name_ok(name)) {
        mu_call_error(c, 400, "invalid_field", "worker_id",
                      "worker_id is 1 to 200 bytes without control characters");
        return false;
    }
    *ret = name;
    return true;
}

static void enrolled(struct mu_fleet_register *op, int result)
{
    struct mu_link *l = op->ctx;
    struct mu_call *c = l->call;
    if (result == 0) {
        snprintf(l->peer.credential, sizeof l->peer.credential, "%s", op->pass.token);
        l->admission.runner = op->uid;
        mu_fleet_admit(l->face->opts.fleet, &l->admission);
        return;
    }
    if (result == MU_E_UNAUTHORIZED) {
        mu_call_unauthorized(c, "The enrolment token is used up");
    } else if (result == MU_E_LIMIT || result == MU_E_SATURATED) {
        mu_call_retry(c, 429, "runner_limit_exceeded", 60000,
                      "There are as many workers as may be");
    } else {
        mu_call_fail(c, result);
    }
    link_free(l);
}

static struct mu_link *link_new(struct mu_call *c, mu_bytes name)
{
    struct mu_link *l = mu_calloc(1, sizeof *l);
    if (l) {
        l->name = mu_bytes_dup(name);
    }
    if (!l || !l->name) {
        mu_free(l);
        mu_call_fail(c, -ENOMEM);
        return NULL;
    }
    l->face = mu_worker_face_at(c);
    l->call = c;
    l->native = mu_bytes_is(mu_call_query(c, "proto", 0), "2");
    mu_buf_init(&l->binary, MU_LINK_BINARY);
    mu_timer_init(&l->timer, mu_call_loop(c), on_timer);
    l->peer = (struct mu_peer){.loop = mu_call_loop(c),
                               .order = on_order,
                               .probe = on_probe,
                               .close = on_close_order,
                               .release = on_release};
    l->admission = (struct mu_admission){.peer = &l->peer,
                                         .name = mu_str(l->name),
                                         .instance = mu_call_query(c, "instance", 0),
                                         .native = l->native,
                                         .done = admitted,
                                         .ctx = l};
    return l;
}

static void open_as(struct mu_call *c, mu_bytes name, bool anonymous, const struct mu_id *record)
{
    const struct mu_principal *p = mu_call_principal(c);
    struct mu_link *l = link_new(c, name);
    if (!l) {
        return;
    }
    l->admission.anonymous = anonymous;
    l->admission.runner = p->runner;
    if (record) {
        l->admission.runner = *record;
    }
    if (p->removed) {
        tell_removed(l);
    } else if (p->enrolment.text[0]) {
        l->enrol = (struct mu_fleet_register){.loop = mu_call_loop(c),
                                              .enrolment = p->enrolment,
                                              .host = mu_str(l->name),
                                              .capacity = -1,
                                              .done = enrolled,
                                              .ctx = l};
        memcpy(l->enrol.org_id, p->org_id, sizeof l->enrol.org_id);
        mu_fleet_register(l->face->opts.fleet, &l->enrol);
    } else {
        mu_fleet_admit(l->face->opts.fleet, &l->admission);
    }
}

static void open_link(struct mu_call *c)
{
    mu_bytes name;
    bool anonymous;
    if (take_name(c, &name, &anonymous)) {
        open_as(c, name, anonymous, NULL);
    }
}

/* The same under a record's id (village-control-plane.md 9.2): the name is the record's. */
static void open_record(struct mu_call *c)
{
    const struct mu_principal *p = mu_call_principal(c);
    struct mu_id id;
    bool own = p->admin || p->runner.text[0];
    if (mu_id_parse(mu_call_param(c, "runnerId"), "rnr_", &id) < 0 || !own ||
        (p->runner.text[0] && strcmp(p->runner.text, id.text) != 0)) {
        mu_call_error(c, own ? 404 : 403, own ? "RUNNER_NOT_FOUND" : "FORBIDDEN", NULL,
                      own ? "There is no such runner"
                          : "This link is opened by its own credential");
        return;
    }
    open_as(c, MU_B(""), false, &id);
}

static const struct mu_schema link_query[] = {
    {.name = "worker_id",
     .type = MU_S_STRING,
     .max = 1000,
     .doc = "The worker's own name; invented when absent."},
    {.name = "proto",
     .type = MU_S_STRING,
     .max = 16,
     .doc = "2: the native dialect, which begins with hello."},
    {.name = "instance",
     .type = MU_S_STRING,
     .max = 39,
     .doc = "Random id of a native worker's state folder."},
    {0}};

const struct mu_route mu_worker_routes[] = {{.method = MU_HTTP_GET,
                                             .path = "/api/v1/selfhosted/worker/ws",
                                             .face = MU_FACE_OZ,
                                             .auth = MU_AUTH_WORKER,
                                             .flags = MU_ROUTE_WEBSOCKET,
                                             .query = link_query,
                                             .handler = open_link,
                                             .id = "workerLink",
                                             .summary = "The WebSocket of a worker.",
                                             .errors = "426 429 503"},
                                            {.method = MU_HTTP_GET,
                                             .path = "/api/v1/runners/{runnerId}/link",
                                             .face = MU_FACE_SESSIONS,
                                             .auth = MU_AUTH_WORKER,
                                             .flags = MU_ROUTE_WEBSOCKET,
                                             .query = link_query,
                                             .handler = open_record,
                                             .id = "runnerLink",
                                             .summary = "The WebSocket of a worker, by its id.",
                                             .success = "101",
                                             .errors = "RUNNER_NOT_FOUND WORKER_CONNECTED"},
                                            {.method = MU_HTTP_GET,
                                             .path = "/api/v1/workers",
                                             .face = MU_FACE_OZ,
                                             .auth = MU_AUTH_ADMIN,
                                             .handler = mu_worker_list,
                                             .id = "listWorkers",
                                             .summary = "All known workers, by name.",
                                             .response = "WorkerList"},
                                            {.path = NULL}};
