/* Messages of the client (village-control-plane.md 8.3): what is well-formed, and who handles it.
 */
#include <errno.h>
#include <stdio.h>

#include "face/live/socket_int.h"

enum { DEPTH = 16, MALFORMED_MAX = 3, ARENA = 64 << 20 };

/* --- members --- */

bool mu_sock_text(struct mu_sock_msg *m, const char *key, size_t max, bool required, mu_bytes *ret)
{
    yyjson_val *v = mu_json_get(m->root, key);
    mu_bytes text = mu_json_bytes(v);
    if ((!v && required) || (v && !yyjson_is_str(v)) || text.len > max) {
        mu_sock_error(m->s, m->id, "INVALID_MESSAGE", "%s must be a text of at most %zu bytes", key,
                      max);
        return false;
    }
    *ret = v ? text : MU_B_NONE;
    return true;
}

bool mu_sock_number(struct mu_sock_msg *m, const char *key, int64_t min, int64_t max,
                    int64_t fallback, int64_t *ret)
{
    yyjson_val *v = mu_json_get(m->root, key);
    int64_t n = fallback;
    bool fits = !v || yyjson_is_sint(v) || (yyjson_is_uint(v) && yyjson_get_uint(v) <= INT64_MAX);
    if (v && fits) {
        n = yyjson_get_sint(v);
        fits = n >= min && n <= max;
    }
    if (!fits || (!v && fallback == MU_SOCK_REQUIRED)) {
        mu_sock_error(m->s, m->id, "INVALID_MESSAGE", "%s must be a whole number from %lld to %lld",
                      key, (long long)min, (long long)max);
        return false;
    }
    *ret = n;
    return true;
}

bool mu_sock_session(struct mu_sock_msg *m, struct mu_id *ret)
{
    mu_bytes text;
    if (!mu_sock_text(m, "sessionId", MU_SOCK_MESSAGE_ID, true, &text)) {
        return false;
    }
    if (mu_id_parse(text, "ses_", ret) < 0) {
        mu_sock_fail(m->s, m->id, MU_E_NOT_FOUND);
        return false;
    }
    return true;
}

/* --- handlers that are here --- */

static void ping(struct mu_sock_msg *m)
{
    struct mu_sock_out o;
    (void)mu_sock_begin(&o, "pong");
    mu_sock_end(m->s, &o, m->id);
}

static void authenticate(struct mu_sock_msg *m)
{
    struct mu_sock *s = m->s;
    mu_bytes token, user;
    struct mu_principal who;
    if (!mu_sock_text(m, "token", 4096, true, &token) ||
        !mu_sock_text(m, "userId", 256, false, &user)) {
        return;
    }
    token = mu_bytes_trim(token);
    struct mu_credential c = mu_credential_of(token);
    int r = token.len ? mu_sock_resolve(s->face, &c, &who) : MU_E_UNAUTHORIZED;
    if (r == -ENOMEM || r == MU_E_LIMIT) {
        mu_sock_fail(s, m->id, MU_E_BUSY);
        return;
    }
    bool same = r == 0 && (!user.len || mu_bytes_is(user, who.uid));
    if (same && s->authenticated) { /* only to renew */
        same = strcmp(who.uid, s->who.uid) == 0 && strcmp(who.org_id, s->who.org_id) == 0;
        if (!same) {
            mu_sock_error(s, m->id, "AUTH_FAILED", "This connection belongs to another user");
            return;
        }
    }
    if (!same) {
        mu_sock_error(s, m->id, "AUTH_FAILED", "%s",
                      r == MU_E_FORBIDDEN ? "Workers and sessions have connections of their own"
                      : r == 0            ? "userId is not the token's user"
                                          : "The token is unknown, revoked or expired");
        if (!s->authenticated) {
            mu_sock_close(s, r == MU_E_FORBIDDEN ? MU_CLOSE_FORBIDDEN : MU_CLOSE_UNAUTHORIZED,
                          "Authentication failed");
        }
        return;
    }
    mu_sock_login(s, &c, &who, m->id);
}

static void subscribe(struct mu_sock_msg *m)
{
    mu_sock_subscribe(m, false);
}

static void subscribe_alias(struct mu_sock_msg *m)
{
    bool runner = mu_json_get(m->root, "runnerId") != NULL;
    if (runner) {
        mu_sock_subscribe_runner(m);
    }
    if (!runner || mu_json_get(m->root, "sessionId")) {
        mu_sock_subscribe(m, true);
    }
}

static void unsubscribe_alias(struct mu_sock_msg *m)
{
    bool runner = mu_json_get(m->root, "runnerId") != NULL;
    if (runner) {
        mu_sock_unsubscribe_runner(m);
    }
    if (!runner || mu_json_get(m->root, "sessionId")) {
        mu_sock_unsubscribe(m);
    }
}

static void terminal_alias(struct mu_sock_msg *m)
{
    if (!mu_bytes_is(mu_json_get_bytes(m->root, "action"), "input")) {
        mu_sock_error(m->s, m->id, "INVALID_MESSAGE", "action must be input");
        return;
    }
    mu_sock_input(m);
}

/* --- dispatch --- */

enum { NEEDS_ID = 1, NEEDS_NOBODY = 2 /* also before it is known who it is */ };

#define OF_SESSION "INVALID_MESSAGE SESSION_NOT_FOUND "
#define FOLLOWING  OF_SESSION "SUBSCRIPTION_LIMIT REPLAY_UNAVAILABLE"
#define TYPING     OF_SESSION "NOT_SUBSCRIBED FORBIDDEN INVALID_STATE RUNNER_UNREACHABLE"
#define DECIDING   OF_SESSION "APPROVAL_NOT_FOUND APPROVAL_ALREADY_RESOLVED FORBIDDEN"
#define OF_RUNNER  "INVALID_MESSAGE RUNNER_NOT_FOUND "

static const struct {
    const char *type;
    void (*fn)(struct mu_sock_msg *m);
    unsigned flags;
    const char *errors; /* its own codes, separated by blanks */
} types[] = {
    {"ping", ping, NEEDS_NOBODY, ""},
    {"authenticate", authenticate, NEEDS_NOBODY, "INVALID_MESSAGE AUTH_FAILED CONNECTION_LIMIT"},
    {"subscribe_session", subscribe, NEEDS_ID, FOLLOWING},
    {"unsubscribe_session", mu_sock_unsubscribe, NEEDS_ID, OF_SESSION},
    {"terminal_input", mu_sock_input, NEEDS_ID, TYPING},
    {"terminal_resize", mu_sock_resize, 0, TYPING},
    {"take_control", mu_sock_take_control, 0, TYPING},
    {"release_control", mu_sock_release_control, 0, OF_SESSION},
    {"resolve_approval", mu_sock_resolve_approval, 0, DECIDING},
    {"ack", mu_sock_ack, 0, OF_SESSION "NOT_SUBSCRIBED"},
    {"subscribe", subscribe_alias, 0, FOLLOWING " RUNNER_NOT_FOUND"},
    {"unsubscribe", unsubscribe_alias, 0, OF_SESSION "RUNNER_NOT_FOUND"},
    {"terminal", terminal_alias, 0, TYPING},
    {"subscribe_runner", mu_sock_subscribe_runner, 0, OF_RUNNER "SUBSCRIPTION_LIMIT"},
    {"unsubscribe_runner", mu_sock_unsubscribe_runner, 0, OF_RUNNER},
    {"subscribe_org", mu_sock_subscribe_org, 0, "INVALID_MESSAGE FORBIDDEN SUBSCRIPTION_LIMIT"},
    {"unsubscribe_org", mu_sock_unsubscribe_org, 0, "INVALID_MESSAGE"},
};

static void write_errors(struct mu_json_w *w, const char *type, const char *errors)
{
    mu_bytes rest = mu_str(errors);
    mu_jw_key(w, type);
    mu_jw_arr(w);
    while (rest.ptr) {
        mu_bytes code = mu_bytes_split(&rest, ' ');
        if (code.len) {
            mu_jw_str(w, code);
        }
    }
    mu_jw_arr_end(w);
}

void mu_sock_describe(struct mu_json_w *w)
{
    mu_jw_key(w, "x-messages");
    mu_jw_obj(w);
    /* of any message, and of the connection itself */
    write_errors(w, "*",
                 "INVALID_MESSAGE UNKNOWN_MESSAGE_TYPE UNAUTHORIZED RATE_LIMITED CONNECTION_LIMIT "
                 "UNAVAILABLE INTERNAL_ERROR");
    for (size_t i = 0; i < MU_ARRAY_LEN(types); i++) {
        write_errors(w, types[i].type, types[i].errors);
    }
    mu_jw_obj_end(w);
}

void mu_sock_malformed(struct mu_sock *s, mu_bytes reply_to, const char *why)
{
    mu_sock_error(s, reply_to, "INVALID_MESSAGE", "%s", why);
    if (++s->malformed >= MALFORMED_MAX) {
        mu_sock_close(s, MU_CLOSE_POLICY, "Three malformed messages in a row");
    }
}

/* The budget is one number: when it would be full again. */
static bool within_rate(struct mu_sock *s)
{
    int64_t step = 1000000 / s->face->opts.limits.per_second, now = mu_loop_now_ms(s->loop) * 1000;
    int64_t next = MU_MAX(s->budget_us, now) + step;
    if (next - now > 2000000) { /* the burst: what two seconds bring */
        return false;
    }
    s->budget_us = next;
    return true;
}

static void dispatch(struct mu_sock_msg *m, mu_bytes type)
{
    struct mu_sock *s = m->s;
    for (size_t i = 0; i < MU_ARRAY_LEN(types); i++) {
        if (!mu_bytes_is(type, types[i].type)) {
            continue;
        }
        if (types[i].flags & NEEDS_ID && !m->id.ptr) {
            mu_sock_malformed(s, MU_B_NONE, "messageId is missing");
            return;
        }
        s->malformed = 0;
        if (!s->authenticated && !(types[i].flags & NEEDS_NOBODY)) {
            mu_sock_error(s, m->id, "UNAUTHORIZED", "Say who you are first: authenticate");
            return;
        }
        types[i].fn(m);
        return;
    }
    s->malformed = 0;
    mu_sock_error(s, m->id, "UNKNOWN_MESSAGE_TYPE", "There is no message of this type");
}

static void read_message(struct mu_sock_msg *m, struct mu_arena *a, mu_bytes text)
{
    static const struct mu_json_limits limits = {.max_bytes = 64 << 20, .max_depth = DEPTH};
    struct mu_sock *s = m->s;
    struct mu_err err;
    int r = mu_json_read(a, text, &limits, &m->root, &err);
    if (r == -ENOMEM) {
        mu_sock_close(s, MU_CLOSE_INTERNAL, "Out of memory, try again");
        return;
    }
    if (r < 0) {
        mu_sock_malformed(s, MU_B_NONE, "The message is no JSON");
        return;
    }
    yyjson_val *type = mu_json_get(m->root, "type"), *id = mu_json_get(m->root, "messageId");
    mu_bytes id_text = mu_json_bytes(id);
    bool id_ok = !id || (id_text.len >= 1 && id_text.len <= MU_SOCK_MESSAGE_ID);
    if (!yyjson_is_obj(m->root) || !yyjson_is_str(type) || !id_ok) {
        mu_sock_malformed(s, MU_B_NONE,
                          id_ok ? "A message is an object with a type"
                                : "messageId is a text of 1 to 128 characters");
        return;
    }
    m->id = id ? id_text : MU_B_NONE;
    dispatch(m, mu_json_bytes(type));
}

void mu_sock_message(struct mu_sock *s, mu_bytes text)
{
    struct mu_sock_msg m = {.s = s, .id = MU_B_NONE};
    struct mu_arena a;
    if (!within_rate(s)) {
        mu_sock_error(s, MU_B_NONE, "RATE_LIMITED", "At most %lld messages a second",
                      (long long)s->face->opts.limits.per_second);
        return;
    }
    mu_arena_init(&a, ARENA);
    read_message(&m, &a, text);
    mu_arena_fini(&a);
}
