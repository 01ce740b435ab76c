/* The connection to the server: dial, back-off, breaker, and which dialect it speaks
 * (oz-worker.md 2.5, 16). */
#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "proto/url.h"
#include "worker/worker_int.h"

enum {
    GREET_MS = 5000, /* without a welcome for so long: a plain server */
    HELD_MS = 5000,  /* a connection that held so long resets the back-off */
    DIAL_MS = 45000,
    CONFIRM_STEP_MS = 20, /* how often an answer to our ping is looked for */
    UNAUTHORIZED = 401,
    FORBIDDEN = 403,
    TIMED_OUT = 408,
    TOO_MANY = 429,
    DEREGISTERED = 4411
};

static void dial(struct mu_worker *w);

static void set_state(struct mu_uplink *l, enum mu_uplink_state to)
{
    static const unsigned moves[] = {
        [MU_UPLINK_DOWN] = 1u << MU_UPLINK_DIALING | 1u << MU_UPLINK_DOWN,
        [MU_UPLINK_DIALING] = 1u << MU_UPLINK_GREETING | 1u << MU_UPLINK_DOWN,
        [MU_UPLINK_GREETING] =
            1u << MU_UPLINK_PLAIN | 1u << MU_UPLINK_NATIVE | 1u << MU_UPLINK_DOWN,
        [MU_UPLINK_PLAIN] = 1u << MU_UPLINK_NATIVE | 1u << MU_UPLINK_DOWN,
        [MU_UPLINK_NATIVE] = 1u << MU_UPLINK_NATIVE | 1u << MU_UPLINK_DOWN,
    };
    MU_CHECK(moves[l->state] & 1u << to);
    l->state = to;
}

bool mu_uplink_up(const struct mu_worker *w)
{
    return w->link.state == MU_UPLINK_PLAIN || w->link.state == MU_UPLINK_NATIVE;
}

bool mu_uplink_native(const struct mu_worker *w)
{
    return w->link.state == MU_UPLINK_NATIVE;
}

void mu_uplink_send(struct mu_worker *w, const struct mu_buf *text)
{
    struct mu_uplink *l = &w->link;
    if (text->failed) {
        mu_log(MU_LOG_WARN, "link.not_sent", MU_KC("err_message", mu_err_text(text->failed)));
    } else if (l->ws && text->len) {
        mu_ws_send(l->ws, true, mu_buf_bytes(text));
    }
}

/* --- down and up again --- */

static void redial(struct mu_worker *w, int64_t asked_ms)
{
    struct mu_uplink *l = &w->link;
    if (l->closing) {
        mu_worker_advance(w);
        return;
    }
    int64_t delay = mu_backoff_next(&l->backoff, w->env, asked_ms);
    mu_log(MU_LOG_INFO, "link.retry", MU_KI("delay_ms", delay));
    if (mu_timer_set(&l->retry, delay) < 0) {
        mu_worker_give_up(w, 1);
    }
}

static void on_retry(struct mu_timer *t)
{
    dial(MU_CONTAINER(t, struct mu_worker, link.retry));
}

static void on_writable(void *arg)
{
    mu_ends_pump(arg);
}

/* Neither this instance nor its credential opens the link again. With a fresh enrolment token it is
 * a new worker; that is tried at once when it was only a connection of the old one that failed. */
static void deregistered(struct mu_worker *w, bool greeted)
{
    struct mu_uplink *l = &w->link;
    bool had = l->credential[0];
    mu_credential_forget(w);
    if (had && !greeted && !l->closing && w->conf->enrol_token) {
        mu_log(MU_LOG_WARN, "link.credential_dropped",
               MU_KC("note", "the server has deregistered this worker: it enrols anew"));
        redial(w, -1);
        return;
    }
    mu_log(MU_LOG_ERROR, "link.deregistered",
           MU_KC("note", "the server has deregistered this worker, what it ran is ended: to use it "
                         "again, give it a fresh enrolment token or another --state-dir"));
    mu_worker_dismissed(w);
}

static void on_closed(void *arg, int code, mu_bytes reason)
{
    struct mu_worker *w = arg;
    struct mu_uplink *l = &w->link;
    bool greeted = l->state == MU_UPLINK_NATIVE;
    bool held = mu_loop_now_ms(w->loop) - l->opened_ms >= HELD_MS;
    l->ws = NULL;
    mu_timer_clear(&l->greet);
    mu_timer_clear(&l->beat);
    mu_timer_clear(&l->confirm);
    mu_buf_fini(&l->in);
    set_state(l, MU_UPLINK_DOWN);
    mu_metric_set(w->m.connected, 0);
    mu_relay_down(w);
    mu_ends_unsent(w);
    if (held) {
        l->backoff.failures = 0;
    }
    if (!l->closing) {
        mu_metric_add(w->m.remote_close, 1);
        mu_log(MU_LOG_WARN, "link.closed", MU_KI("code", code), MU_KS("reason", reason));
    }
    if (code == DEREGISTERED) {
        deregistered(w, greeted);
    } else {
        redial(w, -1);
    }
}

static void on_data(void *arg, bool text MU_UNUSED, mu_bytes piece, bool last)
{
    struct mu_worker *w = arg;
    struct mu_uplink *l = &w->link;
    if (l->in.len == 0 && last) { /* whole in one piece: no copy */
        mu_uplink_message(w, piece);
        return;
    }
    mu_buf_add(&l->in, piece);
    if (!last) {
        return;
    }
    if (l->in.failed) {
        mu_log(MU_LOG_WARN, "link.message_dropped",
               MU_KC("err_message", mu_err_text(l->in.failed)));
    } else {
        mu_uplink_message(w, mu_buf_bytes(&l->in));
    }
    mu_buf_fini(&l->in);
    mu_buf_init(&l->in, MU_WIRE_MAX_MESSAGE);
}

static void on_greet(struct mu_timer *t)
{
    struct mu_worker *w = MU_CONTAINER(t, struct mu_worker, link.greet);
    if (w->link.state == MU_UPLINK_GREETING) {
        set_state(&w->link, MU_UPLINK_PLAIN);
        mu_log(
            MU_LOG_INFO, "link.plain",
            MU_KC("note", "the server did not greet: it is spoken to as the original worker does"));
        mu_uplink_ready(w);
    }
}

static void on_beat(struct mu_timer *t)
{
    struct mu_worker *w = MU_CONTAINER(t, struct mu_worker, link.beat);
    mu_uplink_beat(w);
    (void)!mu_timer_set(t, w->link.heartbeat_ms);
}

/* A plain server acknowledges nothing; but what answers a ping sent behind a message has read the
 * message. The ping waits for a millisecond in which nothing came, so that whatever comes at or
 * after its time came after it. */
static void on_confirm(struct mu_timer *t)
{
    struct mu_worker *w = MU_CONTAINER(t, struct mu_worker, link.confirm);
    struct mu_uplink *l = &w->link;
    int64_t now = mu_loop_now_ms(w->loop);
    if (!l->ws || l->state != MU_UPLINK_PLAIN) {
        mu_ends_pump(w);
        return;
    }
    if (!l->pinged && mu_ws_unsent(l->ws) == 0 && mu_ws_last_in_ms(l->ws) < now) {
        l->pinged = true;
        l->pinged_ms = now;
        mu_ws_ping(l->ws);
    } else if (l->pinged && mu_ws_last_in_ms(l->ws) >= l->pinged_ms) {
        mu_ends_confirmed(w);
        return;
    }
    (void)!mu_timer_set(t, CONFIRM_STEP_MS);
}

void mu_uplink_watch_arrival(struct mu_worker *w)
{
    if (w->link.state == MU_UPLINK_PLAIN) {
        w->link.pinged = false;
        (void)!mu_timer_set(&w->link.confirm, 0);
    }
}

static void on_opened(void *arg, struct mu_ws *ws)
{
    struct mu_worker *w = arg;
    struct mu_uplink *l = &w->link;
    l->dial = NULL;
    l->ws = ws;
    l->opened_ms = mu_loop_now_ms(w->loop);
    l->heartbeats = 0;
    l->credential_refused = false;
    mu_buf_init(&l->in, MU_WIRE_MAX_MESSAGE);
    mu_breaker_connected(&l->breaker);
    set_state(l, MU_UPLINK_GREETING);
    mu_metric_set(w->m.connected, 1);
    mu_log(MU_LOG_INFO, "link.connected", MU_KC("worker_id", w->conf->worker_id));
    if (l->closing) {
        mu_ws_close(ws, 1000, "");
        return;
    }
    mu_uplink_hello(w);
    if (mu_timer_set(&l->greet, GREET_MS) < 0) {
        mu_ws_abort(ws);
    }
}

/* What opens the link: its own credential, else what makes one, else the configured key. */
static const char *key_of(const struct mu_worker *w)
{
    const struct mu_uplink *l = &w->link;
    return l->credential[0] && !l->credential_refused ? l->credential
           : w->conf->enrol_token                     ? w->conf->enrol_token
           : w->conf->api_key                         ? w->conf->api_key
                                                      : "";
}

static const char *why_refused(const struct mu_worker *w, bool no_access)
{
    const char *key = key_of(w);
    return !no_access                    ? "the server refuses this worker: check OZ_WS_URL"
           : key == w->conf->enrol_token ? "the enrolment token is used up, too old or revoked"
           : !key[0] ? "its credential is revoked: give it an enrolment token or a key"
                     : "the key is not accepted: check OZ_API_KEY";
}

/* Whether trying again makes no sense (2.2): every 4xx but those that mean "later". */
static bool is_final(int status)
{
    return status >= 400 && status < 500 && status != TOO_MANY && status != TIMED_OUT;
}

static void on_failed(void *arg, int status, int64_t retry_after_ms, const char *why)
{
    struct mu_worker *w = arg;
    struct mu_uplink *l = &w->link;
    l->dial = NULL;
    set_state(l, MU_UPLINK_DOWN);
    mu_metric_add(w->m.dial_failed, 1);
    mu_log(MU_LOG_WARN, "link.not_connected", MU_KI("status", status), MU_KC("err_message", why));
    if (l->closing) {
        mu_worker_advance(w);
        return;
    }
    bool no_access = status == UNAUTHORIZED || status == FORBIDDEN;
    if (no_access && l->credential[0] && !l->credential_refused) {
        l->credential_refused = true; /* revoked: the configured key may still open */
        redial(w, -1);
        return;
    }
    if (is_final(status)) {
        mu_log(MU_LOG_ERROR, "link.refused", MU_KI("status", status),
               MU_KC("note", why_refused(w, no_access)));
        mu_worker_give_up(w, MU_WORKER_EXIT_REFUSED);
        return;
    }
    if (mu_breaker_failed(&l->breaker, mu_loop_now_ms(w->loop))) {
        mu_log(MU_LOG_ERROR, "link.gave_up", MU_KI("attempts", l->breaker.count));
        mu_worker_give_up(w, MU_WORKER_EXIT_GAVE_UP);
        return;
    }
    redial(w, retry_after_ms);
}

static void dial(struct mu_worker *w)
{
    struct mu_uplink *l = &w->link;
    struct mu_buf headers;
    mu_buf_init(&headers, 4096);
    mu_buf_printf(&headers, "Authorization: Bearer %s\r\nUser-Agent: muster-worker/%s\r\n%c",
                  key_of(w), MU_VERSION, 0);
    const struct mu_ws_connect opts = {
        .url = l->url,
        .headers = headers.ptr,
        .proxy = w->conf->proxy,
        .ca_file = w->conf->ca_file,
        .timeout_ms = DIAL_MS,
        .limits = mu_ws_default_limits,
        .ops = {.data = on_data, .writable = on_writable, .closed = on_closed},
        .arg = w,
        .opened = on_opened,
        .failed = on_failed,
    };
    int r = headers.failed ? headers.failed : mu_ws_connect(w->loop, &opts, &l->dial);
    mu_buf_wipe(&headers);
    if (r == 0) {
        set_state(l, MU_UPLINK_DIALING);
    } else if (r == -ENOMEM) {
        redial(w, -1);
    } else {
        mu_log(MU_LOG_ERROR, "link.bad_url", MU_KC("err_message", mu_err_text(r)));
        mu_worker_give_up(w, MU_WORKER_EXIT_REFUSED);
    }
}

/* --- life --- */

/* worker_id, proto and instance beside whatever the configured URL has (2.1, 16). */
static char *make_url(struct mu_worker *w)
{
    struct mu_buf url;
    mu_bytes base = mu_str(w->conf->ws_url), query = base;
    mu_buf_init(&url, 8192);
    mu_bytes path = mu_bytes_split(&query, '?');
    mu_buf_add(&url, path);
    mu_buf_add_char(&url, '?');
    while (query.ptr) {
        mu_bytes pair = mu_bytes_split(&query, '&');
        if (pair.len && !mu_bytes_starts(pair, MU_B("worker_id=")) &&
            !mu_bytes_starts(pair, MU_B("proto=")) && !mu_bytes_starts(pair, MU_B("instance="))) {
            mu_buf_add(&url, pair);
            mu_buf_add_char(&url, '&');
        }
    }
    mu_buf_add_str(&url, "worker_id=");
    mu_url_encode(&url, mu_str(w->conf->worker_id));
    mu_buf_printf(&url, "&proto=2&instance=%s", w->instance);
    char *made = url.failed ? NULL : mu_bytes_dup(mu_buf_bytes(&url));
    mu_buf_fini(&url);
    return made;
}

int mu_uplink_init(struct mu_worker *w)
{
    struct mu_uplink *l = &w->link;
    mu_timer_init(&l->retry, w->loop, on_retry);
    mu_timer_init(&l->greet, w->loop, on_greet);
    mu_timer_init(&l->beat, w->loop, on_beat);
    mu_timer_init(&l->confirm, w->loop, on_confirm);
    l->breaker.max = w->conf->reconnect_max_attempts;
    l->breaker.window_ms = w->conf->reconnect_window_ms;
    mu_credential_load(w);
    l->url = make_url(w);
    return l->url ? 0 : -ENOMEM;
}

void mu_uplink_start(struct mu_worker *w)
{
    dial(w);
}

void mu_uplink_close(struct mu_worker *w)
{
    struct mu_uplink *l = &w->link;
    if (l->closing) {
        return;
    }
    l->closing = true;
    mu_timer_clear(&l->retry);
    if (l->dial) {
        l->dial = mu_ws_dial_abort(l->dial);
        set_state(l, MU_UPLINK_DOWN);
    }
    if (l->ws) {
        mu_ws_close(l->ws, 1000, "");
    }
}

void mu_uplink_fini(struct mu_worker *w)
{
    struct mu_uplink *l = &w->link;
    mu_timer_clear(&l->retry);
    mu_timer_clear(&l->greet);
    mu_timer_clear(&l->beat);
    mu_timer_clear(&l->confirm);
    mu_buf_fini(&l->in);
    mu_free(l->url);
    explicit_bzero(l->credential, sizeof l->credential);
}
