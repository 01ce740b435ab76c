#include <stdio.h>

#include "main/attach_int.h"

enum { TRIES = 20, FIRST_MS = 500, LONGEST_MS = 8000, CONNECT_MS = 15000 };

/* --- messages of ours --- */

struct mu_json_w mu_attach_begin(struct mu_attach *a, struct mu_buf *dst, const char *type,
                                 const char *message_id)
{
    mu_buf_init(dst, 2 << 20);
    struct mu_json_w w = mu_json_w(dst);
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "type", type);
    mu_jw_kcstr(&w, "messageId", message_id);
    mu_jw_kcstr(&w, "sessionId", a->id);
    return w;
}

void mu_attach_end(struct mu_attach *a, struct mu_json_w *w)
{
    mu_jw_obj_end(w);
    if (w->buf->failed) {
        mu_attach_over(a, mu_client_no_memory());
    } else if (a->ws) {
        mu_ws_send(a->ws, true, mu_buf_bytes(w->buf));
    }
    mu_buf_fini(w->buf);
}

static void subscribe(struct mu_attach *a)
{
    struct mu_buf b;
    struct mu_json_w w = mu_attach_begin(a, &b, "subscribe_session", "subscribe");
    mu_jw_ki64(&w, "terminal", a->terminal);
    mu_jw_kbool(&w, "binary", !a->c->json);
    /* a person gets the last screens, a follower all there is */
    if (a->offset >= 0 || !a->tty) {
        mu_jw_ki64(&w, "terminalOffset", MU_MAX(a->offset, 0));
    }
    mu_attach_end(a, &w);
}

/* --- the connection --- */

static void try_again(struct mu_attach *a, int64_t asked_ms, const char *why)
{
    if (a->over) {
        return;
    }
    a->subscribed = false;
    a->n_gates = 0; /* those that still wait are told again */
    if (++a->breaks > TRIES) {
        mu_attach_note(a, "%s: %s", a->c->base, why);
        mu_attach_over(a, MU_EXIT_NO_SERVER);
        return;
    }
    if (!a->broken) {
        a->broken = true;
        mu_attach_note(a, "the connection is lost (%s); connecting again", why);
    }
    int64_t delay = MU_MIN((int64_t)FIRST_MS << MU_MIN(a->breaks - 1, 5), (int64_t)LONGEST_MS);
    delay = MU_MAX(delay, MU_MIN(asked_ms, (int64_t)60000));
    if (mu_timer_set(&a->again, delay) < 0) {
        mu_attach_over(a, mu_client_no_memory());
    }
}

static void on_data(void *arg, bool text, mu_bytes piece, bool last)
{
    struct mu_attach *a = arg;
    mu_bytes whole = piece;
    if (a->over) {
        return;
    }
    if (!last || a->incoming.len) {
        mu_buf_add(&a->incoming, piece);
        whole = mu_buf_bytes(&a->incoming);
    }
    if (a->incoming.failed) {
        mu_attach_over(a, mu_client_no_memory());
    } else if (last) {
        mu_attach_hear(a, text, whole);
        mu_buf_clear(&a->incoming);
    }
}

static void on_closed(void *arg, int code, mu_bytes reason)
{
    struct mu_attach *a = arg;
    char why[160];
    a->ws = NULL;
    mu_buf_clear(&a->incoming);
    if (a->over) {
        mu_loop_stop(a->loop);
        return;
    }
    if (code == 4401 || code == 4403) {
        mu_attach_note(a, "the server does not accept the key any more");
        mu_attach_over(a, MU_EXIT_NOT_ALLOWED);
        return;
    }
    snprintf(why, sizeof why, "%d%s%.*s", code, reason.len ? " " : "",
             (int)MU_MIN(reason.len, (size_t)123), reason.ptr);
    try_again(a, -1, why);
}

static void on_opened(void *arg, struct mu_ws *ws)
{
    struct mu_attach *a = arg;
    a->dial = NULL;
    a->ws = ws;
    subscribe(a);
}

static void on_failed(void *arg, int status, int64_t retry_after_ms, const char *why)
{
    struct mu_attach *a = arg;
    a->dial = NULL;
    if (status >= 400 && status < 500 && status != 408 && status != 429) {
        mu_attach_note(a, "%s", why);
        mu_attach_over(a, status == 401 || status == 403 ? MU_EXIT_NOT_ALLOWED : MU_EXIT_FAILED);
        return;
    }
    try_again(a, retry_after_ms, why);
}

void mu_attach_connect(struct mu_attach *a)
{
    mu_bytes url = mu_arena_printf(&a->c->arena, "%s/ws", a->c->base);
    mu_bytes headers = mu_arena_printf(&a->c->arena, "Authorization: Bearer %s\r\n", a->c->key);
    const char *ca = getenv("SSL_CERT_FILE");
    if (!url.ptr || !headers.ptr) {
        mu_attach_over(a, mu_client_no_memory());
        return;
    }
    const struct mu_ws_connect opts = {
        .url = url.ptr,
        .headers = headers.ptr,
        .ca_file = ca && ca[0] ? ca : NULL,
        .timeout_ms = CONNECT_MS,
        .limits = mu_ws_default_limits,
        .ops = {.data = on_data, .closed = on_closed},
        .arg = a,
        .opened = on_opened,
        .failed = on_failed,
    };
    int r = mu_ws_connect(a->loop, &opts, &a->dial);
    if (r < 0) {
        mu_attach_note(a, "%s: %s", url.ptr, mu_err_text(r));
        mu_attach_over(a, MU_EXIT_FAILED);
    }
}
