/* Messages to the client. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/log.h"
#include "face/live/socket_int.h"

enum { OUT_MAX = 16 << 20, TEXT_MAX = 300 };

struct mu_json_w *mu_sock_begin(struct mu_sock_out *o, const char *type)
{
    mu_buf_init(&o->buf, OUT_MAX);
    o->w = mu_json_w(&o->buf);
    mu_jw_obj(&o->w);
    mu_jw_kcstr(&o->w, "type", type);
    return &o->w;
}

void mu_sock_end(struct mu_sock *s, struct mu_sock_out *o, mu_bytes reply_to)
{
    mu_jw_ktime(&o->w, "timestamp", mu_env_wall_ms(s->face->opts.env));
    if (reply_to.ptr) {
        mu_jw_kstr(&o->w, "replyTo", reply_to);
    }
    mu_jw_obj_end(&o->w);
    if (o->buf.failed) {
        mu_sock_close(s, MU_CLOSE_INTERNAL, "Out of memory, try again");
    } else if (s->ws) {
        mu_ws_send(s->ws, true, mu_buf_bytes(&o->buf));
    }
    mu_buf_fini(&o->buf);
}

struct mu_json_w *mu_sock_event(struct mu_sock_out *o, const char *event)
{
    struct mu_json_w *w = mu_sock_begin(o, "event");
    mu_jw_kcstr(w, "event", event);
    mu_jw_key(w, "data");
    mu_jw_obj(w);
    return w;
}

void mu_sock_event_end(struct mu_sock *s, struct mu_sock_out *o, mu_bytes reply_to)
{
    mu_jw_obj_end(&o->w);
    mu_sock_end(s, o, reply_to);
}

void mu_sock_error_details(struct mu_sock *s, mu_bytes reply_to, const char *code, mu_bytes details,
                           const char *text)
{
    struct mu_sock_out o;
    struct mu_json_w *w = mu_sock_begin(&o, "error");
    mu_jw_kcstr(w, "code", code);
    mu_jw_kcstr(w, "message", text);
    if (details.len) {
        mu_jw_kraw(w, "details", details);
    }
    mu_sock_end(s, &o, reply_to);
}

void mu_sock_error(struct mu_sock *s, mu_bytes reply_to, const char *code, const char *fmt, ...)
{
    char text[TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    mu_sock_error_details(s, reply_to, code, MU_B_NONE, n < 0 ? "" : text);
}

void mu_sock_fail(struct mu_sock *s, mu_bytes reply_to, int code)
{
    switch (code) {
    case MU_E_NOT_FOUND:
        mu_sock_error(s, reply_to, "SESSION_NOT_FOUND", "There is no such session");
        return;
    case MU_E_CONFLICT:
        mu_sock_error(s, reply_to, "INVALID_STATE", "The session is not in a state for that");
        return;
    case MU_E_FORBIDDEN:
        mu_sock_error(s, reply_to, "FORBIDDEN", "This needs the role operator");
        return;
    case MU_E_LIMIT:
        mu_sock_error(s, reply_to, "RATE_LIMITED", "More than the session takes just now");
        return;
    case MU_E_UNAVAILABLE:
    case MU_E_BUSY:
    case MU_E_SATURATED:
    case MU_E_DISK_FULL:
    case MU_E_SHUTDOWN:
    case -ENOMEM:
        mu_sock_error(s, reply_to, "UNAVAILABLE", "The server cannot do that just now: %s",
                      mu_err_text(code));
        return;
    default:
        mu_log(MU_LOG_ERROR, "socket.failed", MU_KC("err_message", mu_err_text(code)));
        mu_sock_error(s, reply_to, "INTERNAL_ERROR", "Internal error");
    }
}
