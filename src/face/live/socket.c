/* One connection: how it opens, who it is, how long that holds, its end. */
#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "face/live/socket_int.h"
#include "face/oz/oz.h"
#include "face/sessions/show.h"

enum { CHECK_MS = 30000, STALL_MS = 30000, PROBE_MS = 10000, RECONNECT_MS = 2000 };

#define PROTOCOL "village.v1"

static struct mu_sock_face *face_at(struct mu_call *c)
{
    return ((struct mu_oz *)mu_call_app(c))->sockets;
}

/* --- counting --- */

struct sock_user {
    char uid[MU_UID_LEN + 1];
    int64_t n;
};

void mu_sock_face_init(struct mu_sock_face *f, const struct mu_sock_face_opts *opts)
{
    f->opts = *opts;
    pthread_mutex_init(&f->lock, NULL);
    mu_map_init(&f->users);
    mu_map_init(&f->hubs);
    f->clients =
        mu_metrics_gauge(opts->metrics, "muster_ws_clients", NULL, "Open client WebSockets.");
    f->dropped = mu_metrics_counter(opts->metrics, "muster_ws_terminal_bytes_dropped_total", NULL,
                                    "Terminal bytes that slow clients did not get.");
}

void mu_sock_face_fini(struct mu_sock_face *f)
{
    size_t at = 0;
    for (void *u = mu_map_next(&f->users, &at); u; u = mu_map_next(&f->users, &at)) {
        mu_free(u);
    }
    mu_map_fini(&f->users);
    mu_map_fini(&f->hubs);
}

static int count_user(struct mu_sock_face *f, const char *uid)
{
    int r = 0;
    pthread_mutex_lock(&f->lock);
    struct sock_user *u = mu_map_get(&f->users, mu_str(uid));
    if (u && u->n >= f->opts.limits.max_per_user) {
        r = MU_E_LIMIT;
    } else if (!u) {
        u = mu_calloc(1, sizeof *u);
        if (u) {
            snprintf(u->uid, sizeof u->uid, "%s", uid);
            r = mu_map_put(&f->users, mu_str(u->uid), u);
        } else {
            r = -ENOMEM;
        }
    }
    if (r == 0) {
        u->n++;
    } else if (u && u->n == 0) {
        mu_free(u);
    }
    pthread_mutex_unlock(&f->lock);
    return r;
}

static void uncount_user(struct mu_sock_face *f, const char *uid)
{
    pthread_mutex_lock(&f->lock);
    struct sock_user *u = mu_map_get(&f->users, mu_str(uid));
    if (u && --u->n == 0) {
        (void)mu_map_remove(&f->users, mu_str(u->uid));
        mu_free(u);
    }
    pthread_mutex_unlock(&f->lock);
}

/* --- life --- */

void mu_sock_ref(struct mu_sock *s)
{
    s->refs++;
}

void mu_sock_unref(struct mu_sock *s)
{
    if (--s->refs == 0) {
        mu_timer_clear(&s->check);
        mu_timer_clear(&s->flush);
        mu_free(s);
    }
}

bool mu_sock_full(const struct mu_sock *s)
{
    return !s->ws || mu_ws_full(s->ws);
}

void mu_sock_close(struct mu_sock *s, int code, const char *reason)
{
    if (s->ws) {
        mu_ws_close(s->ws, code, reason);
    }
}

bool mu_sock_operates(const struct mu_sock *s)
{
    return s->who.role >= MU_ROLE_OPERATOR;
}

static void reading_free(struct mu_sock *s)
{
    if (s->reading) {
        mu_buf_wipe(s->reading); /* it may hold a token */
        mu_free(s->reading);
        s->reading = NULL;
    }
}

static void on_closed(void *arg, int code, mu_bytes reason)
{
    struct mu_sock *s = arg;
    struct mu_sock_face *f = s->face;
    mu_log(MU_LOG_DEBUG, "socket.closed", MU_KC("client_id", s->id.text), MU_KI("code", code),
           MU_KS("reason", reason));
    s->ws = NULL;
    reading_free(s);
    mu_timer_clear(&s->check);
    mu_timer_clear(&s->flush);
    MU_LIST_EACH(it, tmp, &s->subs)
    {
        mu_sub_close(MU_CONTAINER(it, struct mu_sub, link));
    }
    mu_orgs_close(s);
    if (s->counted) {
        uncount_user(f, s->who.uid);
    }
    atomic_fetch_sub(&f->connections, 1);
    mu_metric_add(f->clients, -1);
    mu_sock_unref(s);
}

static void on_writable(void *arg)
{
    mu_sock_writable(arg);
}

/* --- messages in --- */

static bool piece_fits(const struct mu_sock *s, size_t len)
{
    return s->authenticated || (s->reading ? s->reading->len : 0) + len <= MU_SOCK_UNKNOWN_MESSAGE;
}

static void whole(struct mu_sock *s, bool text, mu_bytes message)
{
    if (text) {
        mu_sock_message(s, message);
    } else {
        mu_sock_malformed(s, MU_B_NONE, "Messages are text");
    }
}

static void on_data(void *arg, bool text, mu_bytes piece, bool last)
{
    struct mu_sock *s = arg;
    if (!piece_fits(s, piece.len)) {
        mu_sock_close(s, MU_CLOSE_TOO_LARGE, "Too large for who is not authenticated");
        return;
    }
    if (last && !s->reading) {
        whole(s, text, piece);
        return;
    }
    if (!s->reading) {
        s->reading = mu_calloc(1, sizeof *s->reading);
        if (s->reading) {
            mu_buf_init(s->reading, (size_t)s->face->opts.limits.max_message);
        }
    }
    if (s->reading) {
        mu_buf_add(s->reading, piece);
    }
    if (!s->reading || s->reading->failed) {
        mu_sock_close(s, MU_CLOSE_INTERNAL, "Out of memory, try again");
        reading_free(s);
    } else if (last) {
        struct mu_buf *b = s->reading;
        s->reading = NULL;
        whole(s, text, mu_buf_bytes(b));
        mu_buf_wipe(b);
        mu_free(b);
    }
}

static const struct mu_ws_ops ws_ops = {on_data, on_writable, on_closed};

/* --- who it is --- */

int mu_sock_resolve(struct mu_sock_face *f, const struct mu_credential *c, struct mu_principal *ret)
{
    struct mu_principal p;
    int r = mu_identity_resolve_credential(f->opts.identity, c, &p);
    if (r == 0 && p.role == 0) { /* a worker's key, or a session token */
        r = MU_E_FORBIDDEN;
    }
    if (r == 0) {
        *ret = p;
    }
    return r;
}

void mu_sock_login(struct mu_sock *s, const struct mu_credential *credential,
                   const struct mu_principal *who, mu_bytes reply_to)
{
    int r = s->counted ? 0 : count_user(s->face, who->uid);
    if (r == MU_E_LIMIT) {
        mu_sock_error(s, reply_to, "CONNECTION_LIMIT", "At most %lld connections of one user",
                      (long long)s->face->opts.limits.max_per_user);
        mu_sock_close(s, MU_CLOSE_LIMIT, "Too many connections of this user");
        return;
    }
    if (r < 0 || mu_timer_set(&s->check, CHECK_MS) < 0) {
        if (r == 0 && !s->counted) {
            uncount_user(s->face, who->uid);
        }
        mu_sock_close(s, MU_CLOSE_INTERNAL, "Out of memory, try again");
        return;
    }
    s->counted = s->authenticated = true;
    s->who = *who;
    s->credential = *credential;
    struct mu_sock_out o;
    struct mu_json_w *w = mu_sock_event(&o, "authenticated");
    mu_jw_kcstr(w, "clientId", s->id.text);
    mu_jw_kcstr(w, "userId", who->uid);
    mu_jw_kcstr(w, "orgId", who->org_id);
    mu_jw_kcstr(w, "role", mu_sess_role(who->role));
    mu_sock_event_end(s, &o, reply_to);
}

/* Too late to say who it is, or: is it still that? */
static void on_check(struct mu_timer *t)
{
    struct mu_sock *s = MU_CONTAINER(t, struct mu_sock, check);
    struct mu_principal now;
    if (!s->authenticated) {
        mu_sock_close(s, MU_CLOSE_LATE, "Not authenticated in time");
        return;
    }
    int r = mu_sock_resolve(s->face, &s->credential, &now);
    bool unknown = r == -ENOMEM || r == MU_E_LIMIT; /* the next look tells */
    if (!unknown &&
        (r < 0 || strcmp(now.uid, s->who.uid) != 0 || strcmp(now.org_id, s->who.org_id) != 0)) {
        mu_sock_close(s, MU_CLOSE_UNAUTHORIZED, "The credential is revoked or expired");
        return;
    }
    if (!unknown) {
        s->who = now;
        mu_orgs_check(s);
    }
    if (mu_timer_set(t, CHECK_MS) < 0) {
        mu_sock_close(s, MU_CLOSE_INTERNAL, "Out of memory, try again");
    }
}

static void on_flush(struct mu_timer *t)
{
    mu_sock_flush(MU_CONTAINER(t, struct mu_sock, flush), true);
}

static void on_drain(void *arg)
{
    struct mu_sock *s = arg;
    struct mu_sock_out o;
    struct mu_json_w *w = mu_sock_event(&o, "server_shutdown");
    mu_jw_ki64(w, "reconnectAfterMs", RECONNECT_MS);
    mu_sock_event_end(s, &o, MU_B_NONE);
}

/* --- opening --- */

static void auto_free_sock(struct mu_sock **s)
{
    mu_free(*s);
}

static struct mu_sock *sock_new(struct mu_sock_face *f, struct mu_loop *loop)
{
    struct mu_sock *s = mu_calloc(1, sizeof *s);
    if (s) {
        s->face = f;
        s->loop = loop;
        s->refs = 1;
        s->id = mu_id_random(f->opts.env);
        mu_timer_init(&s->check, loop, on_check);
        mu_timer_init(&s->flush, loop, on_flush);
        mu_list_init(&s->subs);
        mu_list_init(&s->queue);
        mu_list_init(&s->orgs);
        mu_list_init(&s->runners);
        mu_chunks_init(&s->chunks, MU_SOCK_WAITING);
    }
    return s;
}

static struct mu_ws_limits limits_of(const struct mu_sock_limits *l)
{
    int64_t probe = MU_MIN((int64_t)PROBE_MS, l->silence_ms / 4);
    return (struct mu_ws_limits){.max_message = (size_t)l->max_message,
                                 .write_hard = (size_t)l->hard_bytes,
                                 .write_soft = (size_t)l->soft_bytes,
                                 .write_stall_ms = STALL_MS,
                                 .ping_ms = l->ping_ms,
                                 .silence_ms = l->silence_ms - probe,
                                 .probe_ms = probe};
}

static void greet(struct mu_sock *s)
{
    struct mu_sock_out o;
    struct mu_json_w *w = mu_sock_event(&o, "connected");
    mu_jw_kcstr(w, "clientId", s->id.text);
    mu_sock_event_end(s, &o, MU_B_NONE);
}

/* Whether the client offers a sub-protocol; `ret_bearer` gets the token that is hidden there. */
static bool offers(const struct mu_call *c, mu_bytes *ret_bearer)
{
    mu_bytes rest = mu_call_header(c, "Sec-WebSocket-Protocol"), prefix = MU_B("bearer.");
    bool found = false;
    while (rest.ptr) {
        mu_bytes one = mu_bytes_trim(mu_bytes_split(&rest, ','));
        found = found || mu_bytes_is(one, PROTOCOL);
        if (mu_bytes_starts(one, prefix)) {
            *ret_bearer = mu_bytes_from(one, prefix.len);
        }
    }
    return found;
}

/* What the request says of its sender, what comes along by itself last. 0; MU_E_NOT_FOUND: nothing,
 * it will say so later. */
static int credential_of(struct mu_call *c, mu_bytes offered, struct mu_credential *ret)
{
    mu_bytes token = mu_call_bearer(c), ticket = mu_call_query(c, "ticket", 0);
    if (token.len || offered.len) {
        *ret = mu_credential_of(token.len ? token : offered);
        return 0;
    }
    if (ticket.ptr) {
        return mu_ticket_take(face_at(c)->opts.identity, ticket, ret);
    }
    int r = mu_call_sender(c, ret);
    bool unusable = r == MU_E_NOT_FOUND && mu_call_header(c, "Authorization").ptr;
    return unusable ? MU_E_UNAUTHORIZED : r;
}

static void refuse(struct mu_call *c, int result)
{
    if (result == MU_E_UNAUTHORIZED) {
        mu_call_unauthorized(c,
                             "Unauthorized: the credential is unknown, used, revoked or expired");
    } else if (result == MU_E_FORBIDDEN) {
        mu_call_error(c, 403, "forbidden", NULL,
                      "Workers and sessions have connections of their own");
    } else if (result == MU_E_LIMIT) {
        mu_call_retry(c, 503, "unavailable", 60000, "Too many tenants");
    } else {
        mu_call_fail(c, result);
    }
}

/* The limits that a connection meets before it is one; answered when false. */
static bool has_room(struct mu_call *c, bool known, const struct mu_principal *who)
{
    struct mu_sock_face *f = face_at(c);
    int64_t retry_ms = 0;
    if (known && mu_identity_charge(f->opts.identity, who, &retry_ms) < 0) {
        mu_call_retry(c, 429, "too_many_requests", retry_ms, "Too many requests");
        return false;
    }
    if (atomic_load(&f->connections) >= f->opts.limits.max_total) {
        mu_call_retry(c, 503, "unavailable", 5000, "Too many connections");
        return false;
    }
    return true;
}

static void open_socket(struct mu_call *c)
{
    struct mu_sock_face *f = face_at(c);
    struct mu_credential credential;
    struct mu_principal who = {0};
    mu_bytes offered = MU_B_NONE;
    bool protocol = offers(c, &offered);
    if (mu_call_query(c, "token", 0).ptr || mu_call_query(c, "access_token", 0).ptr) {
        mu_call_error(c, 400, "invalid_field",
                      mu_call_query(c, "token", 0).ptr ? "token" : "access_token",
                      "A token does not belong into a URL: ask for a ticket, POST "
                      "/api/v1/ws-tickets");
        return;
    }
    int r = credential_of(c, offered, &credential);
    if (r == MU_E_FORBIDDEN) {
        mu_call_foreign(c);
        return;
    }
    bool known = r == 0;
    r = known ? mu_sock_resolve(f, &credential, &who) : r == MU_E_NOT_FOUND ? 0 : r;
    if (r < 0) {
        refuse(c, r);
        return;
    }
    if (!has_room(c, known, &who)) {
        return;
    }
    MU_CLEANUP(auto_free_sock) struct mu_sock *s = sock_new(f, mu_call_loop(c));
    const struct mu_ws_limits limits = limits_of(&f->opts.limits);
    r = s && mu_timer_set(&s->check, f->opts.limits.auth_ms) == 0 ? 0 : -ENOMEM;
    if (r == 0) {
        r = mu_ws_accept_as(mu_call_http(c), protocol ? PROTOCOL : NULL, &limits, &ws_ops, s,
                            &s->ws);
    }
    if (r < 0) {
        if (s) {
            mu_timer_clear(&s->check);
        }
        if (r != MU_E_CLOSED) {
            mu_call_fail(c, r);
        }
        return;
    }
    struct mu_sock *open = mu_steal(&s);
    atomic_fetch_add(&f->connections, 1);
    mu_metric_add(f->clients, 1);
    mu_ws_on_drain(open->ws, on_drain);
    greet(open);
    if (known) {
        mu_sock_login(open, &credential, &who, MU_B_NONE);
    }
}

/* --- tickets --- */

static void make_ticket(struct mu_call *c)
{
    char ticket[MU_TICKET_LEN + 1];
    struct mu_sock_face *f = face_at(c);
    int r = mu_ticket_make(f->opts.identity, mu_call_credential(c), ticket);
    if (r == MU_E_LIMIT) {
        mu_call_retry(c, 429, "too_many_requests", MU_TICKET_MS, "Too many unused tickets");
        return;
    }
    if (r < 0) {
        mu_call_fail(c, r);
        return;
    }
    struct mu_json_w w = mu_call_data(c);
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "ticket", ticket);
    mu_jw_ktime(&w, "expiresAt", mu_env_wall_ms(f->opts.env) + MU_TICKET_MS);
    mu_jw_obj_end(&w);
    mu_call_data_send(c, 201, NULL, 0);
}

static const struct mu_schema socket_query[] = {
    {.name = "ticket",
     .type = MU_S_STRING,
     .max = 200,
     .doc = "Of POST /api/v1/ws-tickets: one use, for 60 seconds."},
    {.name = "token", .type = MU_S_STRING, .max = 4096, .doc = "Refused: it would be logged."},
    {.name = "access_token",
     .type = MU_S_STRING,
     .max = 4096,
     .doc = "Refused: it would be logged."},
    {0}};

const char *const mu_sock_components[] = {
    "WsTicket",
    "{\"type\":\"object\",\"required\":[\"ticket\",\"expiresAt\"],\"properties\":{\"ticket\":{"
    "\"type\":\"string\"},\"expiresAt\":{\"type\":\"string\",\"format\":\"date-time\"}}}",
    NULL};

const struct mu_route mu_sock_routes[] = {
    {.method = MU_HTTP_GET,
     .path = "/api/v1/ws",
     .face = MU_FACE_SESSIONS,
     .auth = MU_AUTH_NONE,
     .flags = MU_ROUTE_WEBSOCKET,
     .query = socket_query,
     .handler = open_socket,
     .id = "clientSocket",
     .summary = "The WebSocket of clients: sessions as they happen (docs/socket.md).",
     .errors = "UNAUTHORIZED RATE_LIMITED UNAVAILABLE",
     .describe = mu_sock_describe},
    {.method = MU_HTTP_GET,
     .path = "/ws",
     .face = MU_FACE_ROOT,
     .auth = MU_AUTH_NONE,
     .flags = MU_ROUTE_WEBSOCKET,
     .query = socket_query,
     .handler = open_socket,
     .id = "clientSocketAlias",
     .summary = "The same as /api/v1/ws.",
     .errors = "401 403 426 429 503"},
    {.method = MU_HTTP_POST,
     .path = "/api/v1/ws-tickets",
     .face = MU_FACE_SESSIONS,
     .auth = MU_AUTH_TENANT,
     .role = MU_ROLE_VIEWER,
     .handler = make_ticket,
     .id = "createWsTicket",
     .summary = "A ticket that opens one WebSocket instead of a token.",
     .response = "WsTicket",
     .success = "201"},
    {.path = NULL}};
