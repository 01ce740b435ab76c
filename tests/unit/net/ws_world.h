/* WebSocket connections for their tests: our server's ends, our client, and a peer that speaks raw
 * bytes. One loop on the test's own thread. */
#ifndef TEST_NET_WS_WORLD_H
#define TEST_NET_WS_WORLD_H

#include "../unit.h"

#pragma GCC diagnostic ignored "-Wunused-function"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>

#include "../alloc_fail.h"
#include "net/http_int.h"
#include "net/ws_client_int.h"
#include "net/ws_int.h"

enum { MAX_ENDS = 8, GUARD_MS = 20000 };

/* One end of a connection and what it saw. */
struct end {
    struct world *w;
    struct mu_ws *ws;
    struct mu_ws_dial *dial;
    struct mu_buf got; /* payloads, each message ended by "|" */
    bool echo, opened, failed, closed;
    int messages, pieces, writable, code, status;
    int64_t retry_ms;
    char why[256];
    void (*on_open)(struct end *e);
    void (*on_message)(struct end *e);
};

struct world {
    struct mu_loop *loop;
    struct mu_http_server *server;
    unsigned port;
    struct mu_ws_limits limits; /* of the server's ends */
    struct end ends[MAX_ENDS];  /* the server's, in the order of their requests */
    size_t n_ends;
    const char *protocol; /* that the answers name */
    bool echo, drained;
    void (*on_accept)(struct end *e);
    struct mu_http_req *held;
    struct mu_timer late, tick;
    bool (*until)(void *arg);
    void *until_arg;
    int64_t until_ms;
    bool timed_out;
};

static const struct mu_ws_limits calm = {
    .max_message = 8 << 20, .write_hard = 16 << 20, .write_stall_ms = 5000};

/* --- ends --- */

static void on_data(void *arg, bool text, mu_bytes piece, bool last)
{
    struct end *e = arg;
    (void)text;
    assert_false(e->closed);
    size_t start = e->got.len;
    mu_buf_add(&e->got, piece);
    assert_true(e->got.failed || e->got.len == start + piece.len);
    e->pieces++;
    if (!last) {
        return;
    }
    e->messages++;
    mu_bytes all = mu_buf_bytes(&e->got);
    size_t from = all.len;
    while (from > 0 && all.ptr[from - 1] != '|') {
        from--;
    }
    if (e->echo) {
        mu_ws_send2(e->ws, text, mu_bytes_head(mu_bytes_from(all, from), 1),
                    mu_bytes_from(all, from + 1));
    }
    mu_buf_add_char(&e->got, '|');
    if (e->on_message) {
        e->on_message(e);
    }
}

static void on_writable(void *arg)
{
    struct end *e = arg;
    e->writable++;
}

static void on_closed(void *arg, int code, mu_bytes reason)
{
    struct end *e = arg;
    assert_false(e->closed);
    e->closed = true;
    e->code = code;
    e->ws = NULL;
    snprintf(e->why, sizeof e->why, "%.*s", MU_ARGS(reason));
}

static const struct mu_ws_ops ops = {on_data, on_writable, on_closed};

static void end_init(struct end *e, struct world *w)
{
    *e = (struct end){.w = w};
    mu_buf_init(&e->got, 64 << 20);
}

/* --- the server --- */

static void accept_it(struct world *w, struct mu_http_req *req)
{
    assert_true(w->n_ends < MAX_ENDS);
    struct end *e = &w->ends[w->n_ends];
    end_init(e, w);
    e->echo = w->echo;
    int r = mu_ws_accept_as(req, w->protocol, &w->limits, &ops, e, &e->ws);
    if (r == 0) {
        w->n_ends++;
        if (w->on_accept) {
            w->on_accept(e);
        }
    } else if (r == -ENOMEM) {
        mu_http_respond_close(req, 503, NULL, 0, MU_B("no memory"));
    }
}

static void on_late(struct mu_timer *t)
{
    struct world *w = MU_CONTAINER(t, struct world, late);
    accept_it(w, w->held);
}

static void on_request(void *arg, struct mu_http_req *req)
{
    struct world *w = arg;
    const struct mu_http_head *h = mu_http_req_head(req);
    const char *why = NULL;
    int status = mu_ws_check(h, &why);
    if (mu_bytes_is(h->path, "/busy")) {
        struct mu_http_pair pair = {"Retry-After", MU_B("15")};
        mu_http_respond(req, 429, &pair, 1, MU_B("{\"error\":\"taken\"}\n"));
    } else if (status) {
        mu_http_respond(req, status, NULL, 0, mu_str(why));
    } else if (mu_bytes_is(h->path, "/late")) {
        w->held = req;
        mu_timer_init(&w->late, w->loop, on_late);
        assert_int_equal(mu_timer_set(&w->late, 30), 0);
    } else {
        accept_it(w, req);
    }
}

static bool world_try(struct world *w, const char *cert, const char *key)
{
    struct mu_err err = {0};
    memset(w, 0, sizeof *w);
    w->limits = calm;
    w->echo = true;
    struct mu_http_ops http = {.request = on_request, .arg = w};
    struct mu_http_listen l = {
        .host = "127.0.0.1", .fd = -1, .tls_cert_file = cert, .tls_key_file = key};
    if (mu_loop_new(&mu_env_real, "test", &w->loop) < 0) {
        return false;
    }
    if (mu_http_server_new(&w->loop, 1, &mu_http_default_limits, &http, &w->server) < 0 ||
        mu_http_server_listen(w->server, &l, &w->port, &err) < 0) {
        w->server = mu_http_server_free(w->server);
        mu_loop_free(w->loop);
        return false;
    }
    return true;
}

static void world_start(struct world *w)
{
    assert_true(world_try(w, NULL, NULL));
}

static void world_stop(struct world *w)
{
    mu_http_server_free(w->server);
    mu_loop_free(w->loop);
    for (size_t i = 0; i < w->n_ends; i++) {
        mu_buf_fini(&w->ends[i].got);
    }
}

/* --- running the loop until something is so --- */

static void on_tick(struct mu_timer *t)
{
    struct world *w = MU_CONTAINER(t, struct world, tick);
    w->timed_out = mu_loop_now_ms(w->loop) >= w->until_ms;
    if (w->timed_out || (w->until && w->until(w->until_arg)) || mu_timer_set(t, 1) < 0) {
        mu_loop_stop(w->loop);
    }
}

static bool run(struct world *w, bool (*until)(void *arg), void *arg, int64_t ms)
{
    w->until = until;
    w->until_arg = arg;
    w->until_ms = mu_loop_now_ms(w->loop) + ms;
    mu_timer_init(&w->tick, w->loop, on_tick);
    if (mu_timer_set(&w->tick, 0) < 0) {
        return false;
    }
    mu_loop_run(w->loop);
    return !w->timed_out;
}

static void run_until(struct world *w, bool (*until)(void *arg), void *arg)
{
    if (!run(w, until, arg, GUARD_MS)) {
        fail_msg("it did not happen");
    }
}

static void run_ms(struct world *w, int64_t ms)
{
    run(w, NULL, NULL, ms);
}

static bool is_opened(void *arg)
{
    struct end *e = arg;
    return e->opened || e->failed;
}

static bool is_closed(void *arg)
{
    struct end *e = arg;
    return e->closed || e->failed;
}

static bool has_message(void *arg)
{
    struct end *e = arg;
    return e->messages > 0;
}

static bool has_message_or_end(void *arg)
{
    return has_message(arg) || is_closed(arg);
}

static bool has_end(void *arg)
{
    struct world *w = arg;
    return w->n_ends > 0 && w->ends[0].ws;
}

static bool is_quiet(void *arg)
{
    struct mu_http_conn *conn = arg;
    return !conn->timed;
}

static bool is_drained(void *arg)
{
    struct world *w = arg;
    return w->drained;
}

/* --- our client --- */

static void on_opened(void *arg, struct mu_ws *ws)
{
    struct end *e = arg;
    assert_false(e->opened || e->failed);
    e->opened = true;
    e->dial = NULL;
    e->ws = ws;
    if (e->on_open) {
        e->on_open(e);
    }
}

static void on_failed(void *arg, int status, int64_t retry_ms, const char *why)
{
    struct end *e = arg;
    assert_false(e->opened || e->failed);
    e->failed = true;
    e->dial = NULL;
    e->status = status;
    e->retry_ms = retry_ms;
    snprintf(e->why, sizeof e->why, "%s", why);
}

static struct mu_ws_connect connect_opts(struct end *e, const char *url)
{
    return (struct mu_ws_connect){.url = url,
                                  .headers = "Authorization: Bearer x\r\nX-Test: 1\r\n",
                                  .timeout_ms = 10000,
                                  .limits = calm,
                                  .ops = ops,
                                  .arg = e,
                                  .opened = on_opened,
                                  .failed = on_failed};
}

static const char *url_of(unsigned port, const char *scheme, const char *path)
{
    static char url[128];
    snprintf(url, sizeof url, "%s://127.0.0.1:%u%s", scheme, port, path);
    return url;
}

static int dial_try(struct world *w, struct end *e, const char *path)
{
    end_init(e, w);
    struct mu_ws_connect o = connect_opts(e, url_of(w->port, "ws", path));
    return mu_ws_connect(w->loop, &o, &e->dial);
}

static void dial(struct world *w, struct end *e, const char *path)
{
    assert_int_equal(dial_try(w, e, path), 0);
    assert_false(e->opened || e->failed);
    run_until(w, is_opened, e);
}

static void hang_up(struct world *w, struct end *e)
{
    mu_ws_close(e->ws, 1000, "");
    run_until(w, is_closed, e);
    mu_buf_fini(&e->got);
}

/* --- a raw peer --- */

#define KEY "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define UPGRADE                                                                                    \
    "Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" KEY
#define ANSWER                                                                                     \
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"            \
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"

static char got[1 << 20];
static size_t got_len;

static int raw_dial(struct world *w, int rcvbuf)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)w->port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (rcvbuf) {
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof rcvbuf);
    }
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

static void put(int fd, mu_bytes b)
{
    assert_int_equal(send(fd, b.ptr, b.len, MSG_NOSIGNAL), b.len);
}

/* Reads until so many bytes are there, or the end of the stream (want = 0). */
static bool raw_get(struct world *w, int fd, size_t want)
{
    got_len = 0;
    for (int i = 0; i < GUARD_MS; i++) {
        ssize_t n = recv(fd, got + got_len, sizeof got - got_len, MSG_DONTWAIT);
        if (n > 0) {
            got_len += (size_t)n;
        }
        if (n == 0 || (n < 0 && errno != EAGAIN) || (want && got_len >= want)) {
            return want ? got_len >= want : n == 0;
        }
        run_ms(w, 1);
    }
    return false;
}

static int raw_open(struct world *w, int rcvbuf)
{
    int fd = raw_dial(w, rcvbuf);
    put(fd, MU_B("GET /ws HTTP/1.1\r\n" UPGRADE "\r\n"));
    assert_true(raw_get(w, fd, strlen(ANSWER)));
    assert_memory_equal(got, ANSWER, strlen(ANSWER));
    assert_int_equal(got_len, strlen(ANSWER));
    return fd;
}

static void expect(struct world *w, int fd, mu_bytes want)
{
    assert_true(raw_get(w, fd, want.len));
    assert_int_equal(got_len, want.len);
    assert_memory_equal(got, want.ptr, want.len);
}

/* A frame with a mask of zeros is the plain bytes. */
#define M0 "\0\0\0\0"

#endif
