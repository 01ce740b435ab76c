/* A client's way to an open connection: name, TCP, proxy, TLS, the answer. One deadline over all.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/encode.h"
#include "net/ws_client_int.h"
#include "proto/url.h"

enum {
    MAX_TEXT = 64 * 1024,  /* of one dial: URL, headers */
    MAX_BODY_TOLD = 200,   /* of a refusal */
    NEXT_ADDRESS_MS = 5000 /* to wait for one address while there are others */
};

/* --- the end of a dial --- */

static void job_free(struct mu_ws_job *job)
{
    if (job->addrs) {
        freeaddrinfo(job->addrs);
    }
    mu_tls_conf_free(job->trust);
    mu_free(job->host);
    mu_free(job->ca_file);
    mu_free(job);
}

static void dial_free(struct mu_ws_dial *d)
{
    if (d->job) {
        d->job->dial = NULL;
        uv_cancel((uv_req_t *)&d->job->work);
    }
    if (d->client) {
        mu_ws_client_drop(d->client);
    }
    if (d->addrs) {
        freeaddrinfo(d->addrs);
    }
    mu_tls_conf_free(d->trust);
    mu_timer_clear(&d->timer);
    mu_buf_fini(&d->answer);
    mu_arena_fini(&d->arena);
    mu_free(d);
}

struct mu_ws_dial *mu_ws_dial_abort(struct mu_ws_dial *d)
{
    if (d) {
        MU_CHECK(mu_loop_here(d->loop));
        dial_free(d);
    }
    return NULL;
}

static void fail_status(struct mu_ws_dial *d, int status, int64_t retry_ms, const char *fmt, ...)
    MU_PRINTF(4, 5);
static void fail_status(struct mu_ws_dial *d, int status, int64_t retry_ms, const char *fmt, ...)
{
    char why[sizeof(struct mu_err)];
    void (*failed)(void *, int, int64_t, const char *) = d->opts.failed;
    void *arg = d->opts.arg;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    dial_free(d);
    failed(arg, status, retry_ms, why);
}

#define FAIL(d, ...) fail_status(d, 0, -1, __VA_ARGS__)

static void on_timer(struct mu_timer *t);
static void try_next(struct mu_ws_dial *d, int why);

/* --- the answers --- */

static void send_text(struct mu_ws_dial *d, mu_bytes text)
{
    struct mu_wire_node *n = mu_wire_node(text.len);
    if (!n) {
        FAIL(d, "out of memory");
        return;
    }
    memcpy(n->data, text.ptr, text.len);
    mu_wire_push(&d->client->ws.wire, n);
}

static void ask(struct mu_ws_dial *d)
{
    d->phase = MU_DIAL_ANSWER;
    send_text(d, d->request);
}

static void start_tls(struct mu_ws_dial *d)
{
    struct mu_tls *tls = NULL;
    int r = mu_tls_client_new(&d->trust, d->host, &tls);
    if (r < 0) {
        FAIL(d, "TLS with %s: %s", d->host, mu_err_text(r));
        return;
    }
    d->phase = MU_DIAL_TLS;
    mu_wire_secure(&d->client->ws.wire, tls); /* the dial may be over after this */
}

static void at_peer(struct mu_ws_dial *d)
{
    if (d->secure) {
        start_tls(d);
    } else {
        ask(d);
    }
}

/* What a refusal says for people, as far as it has come: one line of printable characters. */
static mu_bytes told(mu_bytes body, char *dst)
{
    size_t n = MU_MIN(body.len, (size_t)MAX_BODY_TOLD);
    for (size_t i = 0; i < n; i++) {
        char c = body.ptr[i];
        dst[i] = (char)(c < 0x20 || c > 0x7e ? ' ' : c);
    }
    return mu_bytes_trim(mu_bytes_of(dst, n));
}

static void refused(struct mu_ws_dial *d, const char *who, const struct mu_ws_reply *r)
{
    char text[MAX_BODY_TOLD], reason[MAX_BODY_TOLD];
    mu_bytes body = told(r->body, text), why = told(r->reason, reason);
    fail_status(d, r->status, r->retry_after_ms, "%s answered %d %.*s%s%.*s", who, r->status,
                MU_ARGS(why), body.len ? ": " : "", MU_ARGS(body));
}

/* The bytes behind the answer are the first frames. */
static void opened(struct mu_ws_dial *d, const struct mu_ws_reply *r)
{
    struct mu_ws_client *c = d->client;
    struct mu_buf answer = d->answer;
    struct mu_ws_connect opts = d->opts;
    if (mu_ws_open(&c->ws) < 0) {
        FAIL(d, "out of memory");
        return;
    }
    mu_buf_init(&d->answer, MU_WS_HEAD);
    d->client = NULL;
    mu_ws_client_opened(c);
    dial_free(d);
    opts.opened(opts.arg, &c->ws);
    mu_ws_input(&c->ws, answer.ptr + answer.len - r->body.len, r->body.len);
    mu_buf_fini(&answer);
}

static void upgraded(struct mu_ws_dial *d, const struct mu_ws_reply *r)
{
    if (r->status != 101) {
        refused(d, "the server", r);
    } else if (!r->websocket || !r->upgrade || !mu_bytes_is(r->accept, d->want)) {
        FAIL(d, "the server's 101 answer is not one of a WebSocket to this request");
    } else if (r->extras) {
        FAIL(d, "the server chose an extension or sub-protocol that was not offered");
    } else {
        opened(d, r);
    }
}

/* A proxy that opened the tunnel sends nothing by itself: bytes behind its answer are the peer's.
 */
static void tunnelled(struct mu_ws_dial *d, const struct mu_ws_reply *r)
{
    if (r->status < 200 || r->status > 299) {
        /* its status is not the server's: 407 or 502 here says nothing about the worker's key */
        struct mu_ws_reply local = *r;
        char text[MAX_BODY_TOLD];
        mu_bytes why = told(local.reason, text);
        FAIL(d, "the proxy answered %d %.*s", local.status, MU_ARGS(why));
    } else if (r->body.len > 0) {
        FAIL(d, "the proxy sent bytes that nobody asked for");
    } else {
        mu_buf_clear(&d->answer);
        at_peer(d);
    }
}

void mu_ws_dial_input(struct mu_ws_dial *d, mu_bytes in)
{
    struct mu_ws_reply reply;
    if (d->phase != MU_DIAL_PROXY && d->phase != MU_DIAL_ANSWER) {
        FAIL(d, "the peer speaks before it was asked");
        return;
    }
    mu_buf_add(&d->answer, in);
    for (;;) {
        int r = mu_ws_reply_parse(mu_buf_bytes(&d->answer), &reply);
        if (r == -EAGAIN && !d->answer.failed) {
            return;
        }
        if (r < 0) {
            FAIL(d, "the answer to the upgrade request is %s",
                 r == MU_E_PROTOCOL            ? "not HTTP"
                 : d->answer.failed == -ENOMEM ? "lost: out of memory"
                                               : "too large");
            return;
        }
        if (reply.status >= 200 || reply.status == 101) {
            break;
        }
        mu_buf_consume(&d->answer, d->answer.len - reply.body.len); /* an interim answer */
    }
    if (d->phase == MU_DIAL_PROXY) {
        tunnelled(d, &reply);
    } else {
        upgraded(d, &reply);
    }
}

void mu_ws_dial_end(struct mu_ws_dial *d, int why)
{
    const char *name = d->phase == MU_DIAL_PROXY ? "the proxy" : "the server";
    if (d->phase == MU_DIAL_TLS) {
        FAIL(d, "TLS with %s: %s", d->host, mu_tls_fault(d->client->ws.wire.tls));
    } else {
        FAIL(d, "%s closed the connection before it answered%s%s", name, why < 0 ? ": " : "",
             why < 0 ? mu_err_text(why) : "");
    }
}

void mu_ws_dial_turn(struct mu_ws_dial *d)
{
    struct mu_wire *w = &d->client->ws.wire;
    if (d->phase == MU_DIAL_TLS && mu_tls_ready(w->tls)) {
        ask(d); /* asks for another turn */
        return;
    }
    mu_wire_flush(w);
    if (w->broken) {
        FAIL(d, "the connection broke");
    }
}

/* --- TCP --- */

static void connected(struct mu_ws_dial *d)
{
    struct mu_ws_client *c = d->client;
    if (mu_timer_set(&d->timer, d->deadline_ms - mu_loop_now_ms(d->loop)) < 0) {
        FAIL(d, "out of memory");
        return;
    }
    mu_wire_start(&c->ws.wire, &c->tcp, NULL);
    if (d->tunnel.len) {
        d->phase = MU_DIAL_PROXY;
        send_text(d, d->tunnel);
    } else {
        at_peer(d);
    }
}

static void on_connect(uv_connect_t *req, int status)
{
    struct mu_ws_client *c = MU_CONTAINER(req, struct mu_ws_client, connect);
    struct mu_ws_dial *d = c->dial;
    if (!d) {
        return;
    }
    if (status < 0) {
        try_next(d, status);
    } else {
        connected(d);
    }
}

/* `why`: how the address before ended. */
static void try_next(struct mu_ws_dial *d, int why)
{
    int64_t left = d->deadline_ms - mu_loop_now_ms(d->loop);
    if (d->client) {
        mu_ws_client_drop(d->client);
        d->client = NULL;
    }
    struct addrinfo *a = d->next;
    if (!a || left <= 0) {
        FAIL(d, "connect to %s port %u: %s", d->peer_host, d->peer_port,
             mu_err_text(left <= 0 ? MU_E_TIMEOUT : why));
        return;
    }
    d->next = a->ai_next;
    d->phase = MU_DIAL_CONNECT;
    int r = mu_ws_client_new(d, &d->client);
    if (r == 0) {
        r = mu_timer_set(&d->timer, d->next ? MU_MIN(left, (int64_t)NEXT_ADDRESS_MS) : left);
    }
    if (r < 0) {
        FAIL(d, "out of memory");
        return;
    }
    r = uv_tcp_connect(&d->client->connect, &d->client->tcp, a->ai_addr, on_connect);
    if (r < 0) {
        try_next(d, r);
    }
}

static void on_timer(struct mu_timer *t)
{
    static const char *const steps[] = {
        [MU_DIAL_NAME] = "the name was resolved", [MU_DIAL_CONNECT] = "it was connected",
        [MU_DIAL_PROXY] = "the proxy answered",   [MU_DIAL_TLS] = "TLS was agreed on",
        [MU_DIAL_ANSWER] = "the server answered",
    };
    struct mu_ws_dial *d = MU_CONTAINER(t, struct mu_ws_dial, timer);
    if (d->phase == MU_DIAL_CONNECT && d->next) {
        try_next(d, MU_E_TIMEOUT);
    } else {
        FAIL(d, "timed out before %s (%s port %u)", steps[d->phase], d->peer_host, d->peer_port);
    }
}

/* --- the name --- */

/* On a thread of libuv's pool, which nobody else uses: a name server that hangs holds up other
 * dials only. */
static void job_run(uv_work_t *work)
{
    struct mu_ws_job *job = MU_CONTAINER(work, struct mu_ws_job, work);
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    job->failed = getaddrinfo(job->host, job->service, &hints, &job->addrs);
    if (job->failed == 0 && job->secure) {
        job->err.code = mu_tls_trust_new(job->ca_file, &job->trust, &job->err);
    }
}

static void job_done(uv_work_t *work, int status MU_UNUSED)
{
    struct mu_ws_job *job = MU_CONTAINER(work, struct mu_ws_job, work);
    struct mu_ws_dial *d = job->dial;
    if (!d) {
        job_free(job);
        return;
    }
    d->job = NULL;
    d->addrs = d->next = job->addrs;
    d->trust = mu_steal(&job->trust);
    job->addrs = NULL;
    int failed = job->failed;
    struct mu_err err = job->err;
    job_free(job);
    if (failed) {
        FAIL(d, "the name %s could not be resolved: %s", d->peer_host, gai_strerror(failed));
    } else if (err.code) {
        FAIL(d, "%s", err.text);
    } else {
        try_next(d, MU_E_NOT_FOUND);
    }
}

static int job_start(struct mu_ws_dial *d)
{
    struct mu_ws_job *job = mu_calloc(1, sizeof *job);
    if (!job) {
        return -ENOMEM;
    }
    job->host = mu_bytes_dup(mu_str(d->peer_host));
    job->ca_file = d->opts.ca_file ? mu_bytes_dup(mu_str(d->opts.ca_file)) : NULL;
    job->secure = d->secure;
    snprintf(job->service, sizeof job->service, "%u", d->peer_port);
    if (!job->host || (d->opts.ca_file && !job->ca_file)) {
        job_free(job);
        return -ENOMEM;
    }
    int r = uv_queue_work(mu_loop_uv(d->loop), &job->work, job_run, job_done);
    if (r < 0) {
        job_free(job);
        return r;
    }
    job->dial = d;
    d->job = job;
    return 0;
}

/* --- the start --- */

static const char *text_of(struct mu_ws_dial *d, mu_bytes b)
{
    return mu_arena_dup(&d->arena, b).ptr;
}

/* ws and wss are http and https by another name. */
static mu_bytes as_http(struct mu_ws_dial *d, mu_bytes url)
{
    bool ws = mu_bytes_eq_nocase(mu_bytes_head(url, 5), MU_B("ws://"));
    bool wss = mu_bytes_eq_nocase(mu_bytes_head(url, 6), MU_B("wss://"));
    if (!ws && !wss) {
        return url;
    }
    mu_bytes rest = mu_bytes_from(url, wss ? 6 : 5);
    return mu_arena_printf(&d->arena, "%s%.*s", wss ? "https://" : "http://", MU_ARGS(rest));
}

/* "host:port" as it stands in a request. */
static mu_bytes authority(struct mu_ws_dial *d, bool with_port)
{
    bool v6 = strchr(d->host, ':') != NULL;
    return with_port ? mu_arena_printf(&d->arena, v6 ? "[%s]:%u" : "%s:%u", d->host, d->port)
                     : mu_arena_printf(&d->arena, v6 ? "[%s]" : "%s", d->host);
}

static int build_request(struct mu_ws_dial *d, const struct mu_url *u)
{
    unsigned char raw[16];
    char key[25];
    struct mu_buf text;
    const struct mu_env *env = mu_loop_env(d->loop);
    env->random(env, raw, sizeof raw);
    mu_buf_init(&text, 64);
    mu_base64_add(&text, mu_bytes_of((const char *)raw, sizeof raw));
    int r = text.failed ? text.failed : mu_ws_answer(mu_buf_bytes(&text), d->want);
    snprintf(key, sizeof key, "%.*s", MU_ARGS(mu_buf_bytes(&text)));
    mu_buf_fini(&text);
    if (r < 0) {
        return r;
    }
    bool usual = d->port == (d->secure ? 443U : 80U);
    mu_bytes host = authority(d, !usual), target = authority(d, true);
    const char *more = d->opts.headers ? d->opts.headers : "";
    d->request = mu_arena_printf(
        &d->arena,
        "GET %.*s%s%.*s HTTP/1.1\r\nHost: %.*s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n%s\r\n",
        MU_ARGS(u->path), u->query.len ? "?" : "", MU_ARGS(u->query), MU_ARGS(host), key, more);
    if (d->opts.proxy) {
        d->tunnel = mu_arena_printf(&d->arena, "CONNECT %.*s HTTP/1.1\r\nHost: %.*s\r\n\r\n",
                                    MU_ARGS(target), MU_ARGS(target));
    }
    bool ok = host.ptr && target.ptr && d->request.ptr && (!d->opts.proxy || d->tunnel.ptr);
    return ok ? 0 : -ENOMEM;
}

static int take_proxy(struct mu_ws_dial *d)
{
    struct mu_url u;
    mu_bytes url = mu_arena_printf(&d->arena, "http://%s", d->opts.proxy);
    if (!url.ptr) {
        return -ENOMEM;
    }
    if (mu_url_parse(url, &u, NULL) < 0 || u.has_userinfo) {
        return MU_E_INVALID;
    }
    d->peer_host = text_of(d, u.host);
    d->peer_port = u.port;
    return d->peer_host ? 0 : -ENOMEM;
}

static int take_opts(struct mu_ws_dial *d, const struct mu_ws_connect *opts)
{
    struct mu_url u;
    mu_bytes url = as_http(d, mu_str(opts->url));
    if (!url.ptr) {
        return -ENOMEM;
    }
    if (url.len > MAX_TEXT / 8 || mu_url_parse(url, &u, NULL) < 0 || u.has_userinfo) {
        return MU_E_INVALID;
    }
    d->opts = *opts;
    d->secure = mu_bytes_eq_nocase(u.scheme, MU_B("https"));
    d->host = d->peer_host = text_of(d, u.host);
    d->port = d->peer_port = u.port;
    d->opts.ca_file = opts->ca_file ? text_of(d, mu_str(opts->ca_file)) : NULL;
    if (!d->host || (opts->ca_file && !d->opts.ca_file)) {
        return -ENOMEM;
    }
    int r = opts->proxy ? take_proxy(d) : 0;
    return r < 0 ? r : build_request(d, &u);
}

int mu_ws_connect(struct mu_loop *loop, const struct mu_ws_connect *opts, struct mu_ws_dial **ret)
{
    MU_CHECK(mu_loop_here(loop));
    struct mu_ws_dial *d = mu_calloc(1, sizeof *d);
    if (!d) {
        return -ENOMEM;
    }
    d->loop = loop;
    mu_arena_init(&d->arena, 2 * MAX_TEXT);
    mu_buf_init(&d->answer, MU_WS_HEAD + MU_WIRE_RECORDS);
    mu_timer_init(&d->timer, loop, on_timer);
    d->deadline_ms = mu_loop_now_ms(loop) + opts->timeout_ms;
    int r = take_opts(d, opts);
    r = r < 0 ? r : mu_timer_set(&d->timer, opts->timeout_ms);
    r = r < 0 ? r : job_start(d);
    if (r < 0) {
        dial_free(d);
        return r;
    }
    *ret = d;
    return 0;
}
