/* A real server on the loopback with a client that speaks raw bytes. */
#ifndef TEST_HTTP_WORLD_H
#define TEST_HTTP_WORLD_H

#include "../unit.h"

#pragma GCC diagnostic ignored "-Wunused-function" /* each program uses a part */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <semaphore.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>

#include "net/http.h"

enum { MAX_LOOPS = 2, BIG = 6 * 1024 * 1024 };

/* What a test drives: one server and what its handlers saw. */
struct world {
    struct mu_loop *loops[MAX_LOOPS];
    size_t n_loops;
    struct mu_http_server *server;
    unsigned port;
    struct mu_http_stream *stream;
    struct mu_http_req *held;
    struct mu_timer timer;
    char *big;
    atomic_int closed, gone, writable, requests, malformed, drained;
    atomic_bool full;
    sem_t event;
};

/* --- the layer above --- */

static void say(struct mu_http_req *req, int status, mu_bytes body)
{
    struct mu_http_pair h[] = {{"Content-Type", MU_B("text/plain")},
                               {"X-Bad", MU_B("a\r\nInjected: 1")}};
    mu_http_respond(req, status, h, 2, body);
}

static void on_stream_closed(void *arg)
{
    struct world *w = arg;
    w->stream = NULL;
    atomic_fetch_add(&w->closed, 1);
    sem_post(&w->event);
}

static void on_writable(void *arg)
{
    struct world *w = arg;
    atomic_fetch_add(&w->writable, 1);
    sem_post(&w->event);
}

static const struct mu_http_stream_ops stream_ops = {on_writable, on_stream_closed};

static void on_gone(struct mu_http_req *req)
{
    struct world *w = mu_http_req_ctx(req);
    atomic_fetch_add(&w->gone, 1);
    sem_post(&w->event);
}

static void answer_held(struct mu_timer *t)
{
    struct world *w = MU_CONTAINER(t, struct world, timer);
    struct mu_http_req *req = w->held;
    w->held = NULL;
    say(req, 200, MU_B("late"));
}

static void open_stream(struct world *w, struct mu_http_req *req, int64_t length)
{
    w->stream = mu_http_stream(req, 200, NULL, 0, length, &stream_ops, w);
    sem_post(&w->event);
}

static void route(struct world *w, struct mu_http_req *req, mu_bytes path)
{
    if (mu_bytes_is(path, "/echo")) {
        say(req, 200, mu_http_req_body(req));
    } else if (mu_bytes_is(path, "/later")) {
        w->held = req;
        mu_timer_init(&w->timer, mu_http_req_loop(req), answer_held);
        assert_int_equal(mu_timer_set(&w->timer, 30), 0);
    } else if (mu_bytes_is(path, "/hold")) {
        w->held = req;
        mu_http_req_set_ctx(req, w);
        mu_http_req_on_gone(req, on_gone);
        sem_post(&w->event);
    } else if (mu_bytes_is(path, "/big")) {
        say(req, 200, mu_bytes_of(w->big, BIG));
    } else if (mu_bytes_is(path, "/close")) {
        mu_http_respond_close(req, 200, NULL, 0, MU_B("bye"));
    } else if (mu_bytes_is(path, "/none")) {
        say(req, 204, MU_B(""));
    } else if (mu_bytes_is(path, "/stream")) {
        open_stream(w, req, -1);
    } else if (mu_bytes_is(path, "/download")) {
        open_stream(w, req, 10);
    } else {
        say(req, 200, path);
    }
}

static void on_request(void *arg, struct mu_http_req *req)
{
    struct world *w = arg;
    atomic_fetch_add(&w->requests, 1);
    assert_true(mu_bytes_is(mu_http_req_peer(req), "127.0.0.1"));
    assert_ptr_equal(mu_http_listener_arg(req), w);
    assert_true(mu_http_req_started_us(req) > 0);
    route(w, req, mu_http_req_head(req)->path);
}

static void on_admit(void *arg, struct mu_http_req *req, struct mu_http_admit *admit)
{
    (void)arg;
    admit->max_body = 64 * 1024;
    mu_bytes path = mu_http_req_head(req)->path;
    if (mu_bytes_is(path, "/refuse")) {
        admit->refuse = true;
        say(req, 401, MU_B("no"));
    } else if (mu_bytes_is(path, "/small")) {
        admit->max_body = 4;
    }
}

static void on_malformed(void *arg, struct mu_http_req *req, int status, const char *text)
{
    struct world *w = arg;
    atomic_fetch_add(&w->malformed, 1);
    mu_bytes body = mu_arena_printf(mu_http_req_arena(req), "fault: %s", text);
    mu_http_respond(req, status, NULL, 0, body);
}

/* --- starting and stopping --- */

static void world_start(struct world *w, const struct mu_http_limits *limits, size_t n_loops,
                        const char *cert, const char *key)
{
    memset(w, 0, sizeof *w);
    sem_init(&w->event, 0, 0);
    w->n_loops = n_loops;
    w->big = malloc(BIG);
    for (size_t i = 0; i < BIG; i++) {
        w->big[i] = (char)('a' + i % 23);
    }
    for (size_t i = 0; i < n_loops; i++) {
        assert_int_equal(mu_loop_new(&mu_env_real, "test", &w->loops[i]), 0);
    }
    struct mu_http_ops ops = {
        .admit = on_admit, .request = on_request, .malformed = on_malformed, .arg = w};
    assert_int_equal(mu_http_server_new(w->loops, n_loops, limits, &ops, &w->server), 0);
    struct mu_http_listen l = {.host = "127.0.0.1",
                               .fd = -1,
                               .listener_arg = w,
                               .tls_cert_file = cert,
                               .tls_key_file = key};
    struct mu_err err = {0};
    if (mu_http_server_listen(w->server, &l, &w->port, &err) < 0) {
        fail_msg("%s", err.text);
    }
    assert_true(w->port > 0);
    for (size_t i = 0; i < n_loops; i++) {
        assert_int_equal(mu_loop_start(w->loops[i]), 0);
    }
}

static void world_stop(struct world *w)
{
    for (size_t i = 0; i < w->n_loops; i++) {
        mu_loop_stop(w->loops[i]);
    }
    for (size_t i = 0; i < w->n_loops; i++) {
        mu_loop_join(w->loops[i]);
    }
    mu_http_server_free(w->server);
    for (size_t i = 0; i < w->n_loops; i++) {
        mu_loop_free(w->loops[i]);
    }
    free(w->big);
    sem_destroy(&w->event);
}

static void wait_event(struct world *w)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    ts.tv_sec += 20;
    while (sem_timedwait(&w->event, &ts) < 0) {
        assert_int_equal(errno, EINTR);
    }
}

/* Runs fn on the loop and waits for it. */
struct call {
    struct mu_post post;
    void (*fn)(struct world *w, void *arg);
    struct world *w;
    void *arg;
    sem_t done;
};

static void run_call(struct mu_post *p)
{
    struct call *c = MU_CONTAINER(p, struct call, post);
    c->fn(c->w, c->arg);
    sem_post(&c->done);
}

static void on_loop(struct world *w, void (*fn)(struct world *w, void *arg), void *arg)
{
    struct call c = {.post.fn = run_call, .fn = fn, .w = w, .arg = arg};
    sem_init(&c.done, 0, 0);
    mu_loop_post(w->loops[0], &c.post);
    while (sem_wait(&c.done) < 0) {
    }
    sem_destroy(&c.done);
}

/* --- the client --- */

static int dial_with(struct world *w, int rcvbuf)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)w->port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    struct timeval tv = {.tv_sec = 20};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    if (rcvbuf) {
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof rcvbuf);
    }
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

static int dial(struct world *w)
{
    return dial_with(w, 0);
}

static void put(int fd, const char *text)
{
    size_t len = strlen(text);
    assert_int_equal(send(fd, text, len, MSG_NOSIGNAL), len);
}

/* Reads until `end` was seen, or to the end of the stream when it is NULL. Returns static text. */
static char got[8 * 1024 * 1024];
static size_t got_len;

static const char *get(int fd, const char *end)
{
    got_len = 0;
    got[0] = 0;
    while (!end || !memmem(got, got_len, end, strlen(end))) {
        ssize_t n = recv(fd, got + got_len, end ? 1 : sizeof got - 1 - got_len, 0);
        if (n <= 0) {
            if (end || n < 0) {
                fail_msg("connection ended (%zd, %d) after '%s'", n, n < 0 ? errno : 0, got);
            }
            break;
        }
        got_len += (size_t)n;
        got[got_len] = 0;
    }
    return got;
}

static void assert_has(const char *text, const char *part)
{
    if (!strstr(text, part)) {
        fail_msg("'%s' is not in '%s'", part, text);
    }
}

static void assert_closed(int fd)
{
    char c;
    assert_int_equal(recv(fd, &c, 1, 0), 0);
    close(fd);
}

#define H "Host: a\r\n"

/* --- on the loop --- */

static void answer_gone(struct world *w, void *arg)
{
    (void)arg;
    struct mu_http_req *req = w->held;
    w->held = NULL;
    say(req, 200, MU_B("to nobody"));
}

static void stream_text(struct world *w, void *arg)
{
    mu_http_stream_write(w->stream, mu_str(arg));
}

static void stream_end(struct world *w, void *arg)
{
    (void)arg;
    mu_http_stream_end(w->stream);
}

static void stream_two(struct world *w, void *arg)
{
    struct mu_msg *m = mu_msg_new(mu_str(arg));
    mu_http_stream_send(w->stream, m);
    mu_http_stream_send(w->stream, m);
    mu_http_stream_write(w->stream, MU_B(""));
    mu_msg_unref(m);
}

#endif
