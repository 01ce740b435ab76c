/* A real server on the loopback with a client that speaks raw bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>

#include "../alloc_fail.h"
#include "base/buf.h"
#include "net/http.h"
#include "net/http_int.h"

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

/* --- tests --- */

static void connection_is_kept_alive(void **state)
{
    (void)state;
    struct world w;
    world_start(&w, &mu_http_default_limits, 1, NULL, NULL);
    int fd = dial(&w);
    for (int i = 0; i < 3; i++) {
        put(fd, "GET /abc HTTP/1.1\r\n" H "\r\n");
        const char *t = get(fd, "\r\n\r\n/abc");
        assert_has(t, "HTTP/1.1 200 OK\r\n");
        assert_has(t, "Content-Length: 4\r\n");
        assert_has(t, "\r\nDate: ");
        assert_null(strstr(t, "Connection: close"));
        assert_null(strstr(t, "Injected"));
    }
    assert_int_equal(mu_http_server_connections(w.server), 1);
    put(fd, "GET /last HTTP/1.1\r\n" H "Connection: close\r\n\r\n");
    assert_has(get(fd, NULL), "Connection: close\r\n");
    close(fd);
    world_stop(&w);
}

static void http10_closes_unless_asked(void **state)
{
    (void)state;
    struct world w;
    world_start(&w, &mu_http_default_limits, 1, NULL, NULL);
    int fd = dial(&w);
    put(fd, "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_has(get(fd, "\r\n\r\n/a"), "Connection: keep-alive\r\n");
    put(fd, "GET /b HTTP/1.0\r\n\r\n");
    assert_has(get(fd, NULL), "\r\n\r\n/b");
    close(fd);
    world_stop(&w);
}

static void requests_split_anywhere_are_answered(void **state)
{
    (void)state;
    struct world w;
    world_start(&w, &mu_http_default_limits, 1, NULL, NULL);
    int fd = dial(&w);
    const char *text = "POST /echo HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhello";
    for (size_t cut = 1; cut < strlen(text); cut += 3) {
        assert_int_equal(send(fd, text, cut, 0), cut);
        usleep(500);
        put(fd, text + cut);
        get(fd, "\r\n\r\nhello");
    }
    put(fd, "POST /echo HTTP/1.1\r\n" H
            "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    get(fd, "\r\n\r\nabcde");
    close(fd);
    world_stop(&w);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    (void)state;
    struct world w;
    world_start(&w, &mu_http_default_limits, 1, NULL, NULL);
    int fd = dial(&w);
    put(fd, "GET /1 HTTP/1.1\r\n" H "\r\nGET /later HTTP/1.1\r\n" H "\r\nPOST /echo HTTP/1.1\r\n" H
            "Content-Length: 2\r\n\r\n33"
            "GET /later HTTP/1.1\r\n" H "\r\nGET /5 HTTP/1.1\r\n" H "Connection: close\r\n\r\n");
    const char *t = get(fd, NULL);
    const char *want[] = {"\r\n\r\n/1HTTP", "\r\n\r\nlateHTTP", "\r\n\r\n33HTTP",
                          "\r\n\r\nlateHTTP", "\r\n\r\n/5"};
    for (size_t i = 0; i < MU_ARRAY_LEN(want); i++) {
        t = strstr(t, want[i]);
        assert_non_null(t);
        t += 5;
    }
    close(fd);
    world_stop(&w);
}

static void head_and_204_have_no_body(void **state)
{
    (void)state;
    struct world w;
    world_start(&w, &mu_http_default_limits, 1, NULL, NULL);
    int fd = dial(&w);
    put(fd, "HEAD /abc HTTP/1.1\r\n" H "\r\nGET /none HTTP/1.1\r\n" H
            "\r\nHEAD /stream HTTP/1.1\r\n" H "\r\n");
    assert_has(get(fd, "\r\n\r\n"), "Content-Length: 4\r\n");
    const char *t = get(fd, "\r\n\r\n");
    assert_has(t, "HTTP/1.1 204 No Content");
    assert_null(strstr(t, "Content-Length"));
    assert_has(get(fd, "\r\n\r\n"), "chunked");
    close(fd);
    world_stop(&w);
}

static void large_answers_reach_slow_readers(void **state)
{
    (void)state;
    struct world w;
    world_start(&w, &mu_http_default_limits, 1, NULL, NULL);
    int fd = dial_with(&w, 4096);
    put(fd, "GET /big HTTP/1.1\r\n" H "\r\nGET /next HTTP/1.1\r\n" H "Connection: close\r\n\r\n");
    usleep(50000);
    get(fd, NULL);
    const char *body = strstr(got, "\r\n\r\n") + 4;
    assert_true(got_len > (size_t)BIG);
    assert_memory_equal(body, w.big, BIG);
    assert_has(body + BIG, "\r\n\r\n/next");
    close(fd);
    world_stop(&w);
}

static void too_large_bodies_are_413_before_they_are_sent(void **state)
{
    (void)state;
    struct world w;
    world_start(&w, &mu_http_default_limits, 1, NULL, NULL);
    int fd = dial(&w);
    put(fd, "POST /small HTTP/1.1\r\n" H "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    const char *t = get(fd, NULL);
    assert_true(strncmp(t, "HTTP/1.1 413 Content Too Large\r\n", 32) == 0);
    assert_has(t, "Connection: close\r\n");
    close(fd);

    fd = dial(&w); /* the answer arrives although the client sends all of its body first */
    char *body = calloc(1, 512 * 1024);
    put(fd, "POST /small HTTP/1.1\r\n" H "Content-Length: 524288\r\n\r\n");
    for (size_t at = 0; at < 512 * 1024;) {
        ssize_t n = send(fd, body + at, 512 * 1024 - at, MSG_NOSIGNAL);
        assert_true(n > 0);
        at += (size_t)n;
    }
    free(body);
    assert_has(get(fd, NULL), "HTTP/1.1 413 ");
    close(fd);

    fd = dial(&w);
    put(fd, "POST /small HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n");
    assert_has(get(fd, NULL), "fault: the body is too large");
    close(fd);
    assert_int_equal(w.requests, 0);
    world_stop(&w);
}

static void expect_continue_is_answered_once_admitted(void **state)
{
    (void)state;
    struct world w;
    world_start(&w, &mu_http_default_limits, 1, NULL, NULL);
    int fd = dial(&w);
    put(fd, "POST /echo HTTP/1.1\r\n" H "Content-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    assert_string_equal(get(fd, "\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    put(fd, "abc");
    get(fd, "\r\n\r\nabc");
    close(fd);
    world_stop(&w);
}

static void refused_requests_are_answered_early(void **state)
{
    (void)state;
    struct world w;
    world_start(&w, &mu_http_default_limits, 1, NULL, NULL);
    int fd = dial(&w);
    put(fd, "POST /refuse HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\n");
    assert_has(get(fd, "\r\n\r\nno"), "HTTP/1.1 401 ");
    put(fd, "helloGET /refuse HTTP/1.1\r\n" H "\r\nGET /next HTTP/1.1\r\n" H "\r\n");
    get(fd, "\r\n\r\nno");
    get(fd, "\r\n\r\n/next"); /* the refused body was read away */
    put(fd, "POST /refuse HTTP/1.1\r\n" H "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_has(get(fd, NULL), "Connection: close\r\n");
    close(fd);
    fd = dial(&w);
    put(fd, "POST /refuse HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n5\r\nab");
    assert_has(get(fd, NULL), "Connection: close\r\n");
    close(fd);
    assert_int_equal(w.requests, 1);
    world_stop(&w);
}

static const struct {
    const char *text, *status;
} faults[] = {
    {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
    {"GET / HTTP/2.0\r\n" H "\r\n", "HTTP/1.1 505 "},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip\r\n\r\n", "HTTP/1.1 501 "},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
     "HTTP/1.1 400 "},
    {"POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n3\r\nabcX", "HTTP/1.1 400 "},
    {"\x16\x03\x01\x02", "HTTP/1.1 400 "},
};

static void malformed_messages_are_answered_and_closed(void **state)
{
    (void)state;
    struct world w;
    world_start(&w, &mu_http_default_limits, 1, NULL, NULL);
    for (size_t i = 0; i < MU_ARRAY_LEN(faults); i++) {
        int fd = dial(&w);
        put(fd, faults[i].text);
        put(fd, "GET /smuggled HTTP/1.1\r\n" H "\r\n");
        const char *t = get(fd, NULL);
        assert_true(strncmp(t, faults[i].status, strlen(faults[i].status)) == 0);
        assert_has(t, "Connection: close\r\n");
        assert_has(t, "fault: ");
        assert_null(strstr(t, "smuggled"));
        close(fd);
    }
    assert_int_equal(w.malformed, MU_ARRAY_LEN(faults));
    assert_int_equal(w.requests, 0);
    world_stop(&w);
}

static struct mu_http_limits quick(void)
{
    struct mu_http_limits l = mu_http_default_limits;
    l.header_ms = 300;
    l.idle_ms = 400;
    return l;
}

static void slow_headers_are_408(void **state)
{
    (void)state;
    struct mu_http_limits l = quick();
    struct world w;
    world_start(&w, &l, 1, NULL, NULL);
    int fd = dial(&w), silent = dial(&w), idle = dial(&w);
    put(idle, "GET /a HTTP/1.1\r\n" H "\r\n");
    get(idle, "\r\n\r\n/a");
    put(fd, "GET / HTTP/1.1\r\nHo");
    assert_has(get(fd, NULL), "HTTP/1.1 408 ");
    close(fd);
    assert_closed(silent);
    assert_closed(idle);
    world_stop(&w);
}

static void slow_bodies_are_408(void **state)
{
    (void)state;
    struct mu_http_limits l = quick();
    struct world w;
    world_start(&w, &l, 1, NULL, NULL);
    int fd = dial(&w);
    put(fd, "POST /echo HTTP/1.1\r\n" H "Content-Length: 1000\r\n\r\nabc");
    assert_has(get(fd, NULL), "HTTP/1.1 408 ");
    close(fd);
    world_stop(&w);
}

static void half_closed_peers_get_their_answer(void **state)
{
    (void)state;
    struct world w;
    world_start(&w, &mu_http_default_limits, 1, NULL, NULL);
    int fd = dial(&w);
    put(fd, "GET /later HTTP/1.1\r\n" H "\r\n");
    shutdown(fd, SHUT_WR);
    assert_has(get(fd, NULL), "\r\n\r\nlate");
    close(fd);
    fd = dial(&w);
    put(fd, "POST /echo HTTP/1.1\r\n" H "Content-Length: 10\r\n\r\nabc");
    shutdown(fd, SHUT_WR);
    assert_closed(fd);
    world_stop(&w);
}

static void answer_gone(struct world *w, void *arg)
{
    (void)arg;
    struct mu_http_req *req = w->held;
    w->held = NULL;
    say(req, 200, MU_B("to nobody"));
}

static void peer_that_leaves_is_told_once(void **state)
{
    (void)state;
    struct world w;
    world_start(&w, &mu_http_default_limits, 1, NULL, NULL);
    int fd = dial(&w);
    put(fd, "GET /hold HTTP/1.1\r\n" H "\r\n");
    wait_event(&w);
    struct linger hard = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close(fd);
    wait_event(&w);
    assert_int_equal(w.gone, 1);
    on_loop(&w, answer_gone, NULL);
    assert_int_equal(w.gone, 1);
    world_stop(&w);
}

static void unanswered_requests_are_freed_with_the_server(void **state)
{
    (void)state;
    struct world w;
    world_start(&w, &mu_http_default_limits, 1, NULL, NULL);
    int fd = dial(&w);
    put(fd, "GET /hold HTTP/1.1\r\n" H "\r\n");
    wait_event(&w);
    world_stop(&w);
    assert_int_equal(w.gone, 0);
    close(fd);
}

/* --- streams --- */

static void stream_text(struct world *w, void *arg)
{
    mu_http_stream_write(w->stream, mu_str(arg));
}

static void stream_end(struct world *w, void *arg)
{
    (void)arg;
    mu_http_stream_end(w->stream);
}

static void stream_abort(struct world *w, void *arg)
{
    int before = w->closed;
    mu_http_stream_abort(w->stream);
    mu_http_stream_abort(w->stream);
    mu_http_stream_write(w->stream, MU_B("too late"));
    *(bool *)arg = w->closed == before; /* never while the layer above is on the stack */
}

static void stream_two(struct world *w, void *arg)
{
    struct mu_msg *m = mu_msg_new(mu_str(arg));
    mu_http_stream_send(w->stream, m);
    mu_http_stream_send(w->stream, m);
    mu_http_stream_write(w->stream, MU_B(""));
    mu_msg_unref(m);
}

static void streams_are_chunked_and_keep_the_connection(void **state)
{
    (void)state;
    struct world w;
    world_start(&w, &mu_http_default_limits, 1, NULL, NULL);
    int fd = dial(&w);
    put(fd, "GET /stream HTTP/1.1\r\n" H "\r\n");
    assert_has(get(fd, "\r\n\r\n"), "Transfer-Encoding: chunked\r\n");
    wait_event(&w);
    on_loop(&w, stream_text, "hello");
    get(fd, "5\r\nhello\r\n");
    on_loop(&w, stream_two, "0123456789abcdef");
    get(fd, "10\r\n0123456789abcdef\r\n10\r\n0123456789abcdef\r\n");
    on_loop(&w, stream_end, NULL);
    assert_string_equal(get(fd, "\r\n\r\n"), "0\r\n\r\n");
    wait_event(&w);
    assert_int_equal(w.closed, 1);
    put(fd, "GET /again HTTP/1.1\r\n" H "\r\n");
    get(fd, "\r\n\r\n/again");
    close(fd);
    world_stop(&w);
}

static void http10_streams_end_with_the_connection(void **state)
{
    (void)state;
    struct world w;
    world_start(&w, &mu_http_default_limits, 1, NULL, NULL);
    int fd = dial(&w);
    put(fd, "GET /stream HTTP/1.0\r\n\r\n");
    wait_event(&w);
    on_loop(&w, stream_text, "raw");
    on_loop(&w, stream_end, NULL);
    const char *t = get(fd, NULL);
    assert_null(strstr(t, "chunked"));
    assert_has(t, "\r\n\r\nraw");
    close(fd);
    wait_event(&w);
    world_stop(&w);
}

static void downloads_have_their_length(void **state)
{
    (void)state;
    struct world w;
    world_start(&w, &mu_http_default_limits, 1, NULL, NULL);
    int fd = dial(&w);
    put(fd, "GET /download HTTP/1.1\r\n" H "\r\n");
    wait_event(&w);
    on_loop(&w, stream_text, "01234");
    on_loop(&w, stream_text, "56789");
    on_loop(&w, stream_end, NULL);
    assert_has(get(fd, "\r\n\r\n0123456789"), "Content-Length: 10\r\n");
    wait_event(&w);
    put(fd, "GET /download HTTP/1.1\r\n" H "\r\n");
    wait_event(&w);
    on_loop(&w, stream_text, "short");
    on_loop(&w, stream_end, NULL);
    get(fd, NULL);
    wait_event(&w);
    assert_int_equal(w.closed, 2);
    close(fd);
    world_stop(&w);
}

static void peer_abort_closes_a_stream_once(void **state)
{
    (void)state;
    struct world w;
    world_start(&w, &mu_http_default_limits, 1, NULL, NULL);
    int fd = dial(&w);
    put(fd, "GET /stream HTTP/1.1\r\n" H "\r\n");
    get(fd, "\r\n\r\n");
    wait_event(&w);
    close(fd);
    wait_event(&w);
    assert_int_equal(w.closed, 1);

    fd = dial(&w);
    put(fd, "GET /stream HTTP/1.1\r\n" H "\r\n");
    wait_event(&w);
    bool later = false;
    on_loop(&w, stream_abort, &later);
    assert_true(later);
    wait_event(&w);
    assert_int_equal(w.closed, 2);
    get(fd, NULL);
    close(fd);
    world_stop(&w);
}

static void push_much(struct world *w, void *arg)
{
    size_t n = *(size_t *)arg;
    struct mu_msg *m = mu_msg_new(mu_bytes_of(w->big, 64 * 1024));
    for (size_t sent = 0; sent < n && w->stream; sent += 64 * 1024) {
        mu_http_stream_send(w->stream, m);
    }
    mu_msg_unref(m);
    atomic_store(&w->full, w->stream && mu_http_stream_full(w->stream));
}

static void slow_reader_is_paused_then_cut(void **state)
{
    (void)state;
    struct mu_http_limits l = mu_http_default_limits;
    l.write_soft = 256 * 1024;
    l.write_hard = 12 * 1024 * 1024;
    struct world w;
    world_start(&w, &l, 1, NULL, NULL);
    int fd = dial_with(&w, 4096);
    put(fd, "GET /stream HTTP/1.1\r\n" H "\r\n");
    wait_event(&w);
    size_t much = 7 * 1024 * 1024;
    on_loop(&w, push_much, &much);
    assert_true(w.full);
    size_t total = 0;
    while (w.writable == 0) {
        ssize_t n = recv(fd, got, 256 * 1024, 0);
        assert_true(n > 0);
        total += (size_t)n;
    }
    wait_event(&w);
    assert_true(total > much / 2);
    much = 40 * 1024 * 1024;
    on_loop(&w, push_much, &much);
    wait_event(&w);
    assert_int_equal(w.closed, 1);
    close(fd);
    world_stop(&w);
}

static void push_small(struct world *w, void *arg)
{
    for (int i = 0; i < *(int *)arg; i++) {
        mu_http_stream_write(w->stream, MU_B("x"));
    }
}

static void many_small_messages_meet_the_limit_too(void **state)
{
    (void)state;
    struct mu_http_limits l = mu_http_default_limits;
    l.write_hard = 1024 * 1024;
    struct world w;
    world_start(&w, &l, 1, NULL, NULL);
    int fd = dial(&w);
    put(fd, "GET /stream HTTP/1.1\r\n" H "\r\n");
    wait_event(&w);
    int n = 10000;
    on_loop(&w, push_small, &n);
    get(fd, "\r\nx\r\n");
    assert_int_equal(w.closed, 0);
    n = 40000; /* 240 KB on the wire, but more than a megabyte of queue */
    on_loop(&w, push_small, &n);
    wait_event(&w);
    assert_int_equal(w.closed, 1);
    close(fd);
    world_stop(&w);
}

static void stalled_peers_are_cut(void **state)
{
    (void)state;
    struct mu_http_limits l = mu_http_default_limits;
    l.write_stall_ms = 150;
    struct world w;
    world_start(&w, &l, 1, NULL, NULL);
    int fd = dial_with(&w, 4096);
    put(fd, "GET /stream HTTP/1.1\r\n" H "\r\n");
    wait_event(&w);
    size_t much = 7 * 1024 * 1024;
    on_loop(&w, push_much, &much);
    wait_event(&w); /* closed() */
    assert_int_equal(w.closed, 1);
    close(fd);
    world_stop(&w);
}

static void idle_connections_are_small(void **state)
{
    (void)state;
    assert_true(sizeof(struct mu_http_conn) <= 1024);
}

/* --- limits and the end --- */

static void connections_have_a_maximum(void **state)
{
    (void)state;
    struct mu_http_limits l = mu_http_default_limits;
    l.max_connections = 2;
    struct world w;
    world_start(&w, &l, 1, NULL, NULL);
    int a = dial(&w), b = dial(&w);
    put(a, "GET /a HTTP/1.1\r\n" H "\r\n");
    get(a, "\r\n\r\n/a");
    put(b, "GET /b HTTP/1.1\r\n" H "\r\n");
    get(b, "\r\n\r\n/b");
    int c = dial(&w);
    put(c, "GET /c HTTP/1.1\r\n" H "\r\n");
    assert_has(get(c, NULL), "HTTP/1.1 503 ");
    close(c);
    close(b);
    for (int i = 0; i < 500 && mu_http_server_connections(w.server) > 1; i++) {
        usleep(10000);
    }
    c = dial(&w);
    put(c, "GET /c HTTP/1.1\r\n" H "\r\n");
    get(c, "\r\n\r\n/c");
    close(a);
    close(c);
    world_stop(&w);
}

static void on_drained(void *arg)
{
    struct world *w = arg;
    atomic_fetch_add(&w->drained, 1);
    sem_post(&w->event);
}

static void drain(struct world *w, void *arg)
{
    mu_http_server_drain(w->server, *(int64_t *)arg, on_drained, w);
}

static void drain_answers_what_is_due(void **state)
{
    (void)state;
    struct world w;
    world_start(&w, &mu_http_default_limits, 1, NULL, NULL);
    int idle = dial(&w), busy = dial(&w);
    put(idle, "GET /a HTTP/1.1\r\n" H "\r\n");
    get(idle, "\r\n\r\n/a");
    put(busy, "GET /hold HTTP/1.1\r\n" H "\r\n");
    wait_event(&w);
    int64_t grace = 10000;
    on_loop(&w, drain, &grace);
    assert_closed(idle);
    assert_int_equal(w.drained, 0);
    on_loop(&w, answer_gone, NULL);
    assert_has(get(busy, NULL), "to nobody");
    close(busy);
    wait_event(&w);
    assert_int_equal(w.drained, 1);
    assert_int_equal(mu_http_server_connections(w.server), 0);
    world_stop(&w);
}

static void drain_cuts_after_its_grace(void **state)
{
    (void)state;
    struct world w;
    world_start(&w, &mu_http_default_limits, 1, NULL, NULL);
    int fd = dial(&w);
    put(fd, "GET /stream HTTP/1.1\r\n" H "\r\n");
    wait_event(&w);
    int64_t grace = 50;
    on_loop(&w, drain, &grace);
    wait_event(&w);
    wait_event(&w);
    assert_int_equal(w.closed, 1);
    assert_int_equal(w.drained, 1);
    close(fd);
    world_stop(&w);
}

static void listening_twice_is_refused_with_words(void **state)
{
    (void)state;
    struct world w;
    world_start(&w, &mu_http_default_limits, 1, NULL, NULL);
    struct mu_loop *loop;
    struct mu_http_server *s;
    struct mu_http_ops ops = {
        .admit = on_admit, .request = on_request, .malformed = on_malformed, .arg = &w};
    assert_int_equal(mu_loop_new(&mu_env_real, "other", &loop), 0);
    assert_int_equal(mu_http_server_new(&loop, 1, &mu_http_default_limits, &ops, &s), 0);
    struct mu_http_listen l = {.host = "127.0.0.1", .port = w.port, .fd = -1};
    struct mu_err err = {0};
    unsigned port;
    assert_int_equal(mu_http_server_listen(s, &l, &port, &err), -EADDRINUSE);
    assert_has(err.text, "127.0.0.1");
    l.host = "localhost";
    assert_int_equal(mu_http_server_listen(s, &l, &port, &err), MU_E_INVALID);
    l.host = "127.0.0.1";
    l.tls_cert_file = "/nonexistent/cert";
    assert_int_equal(mu_http_server_listen(s, &l, &port, &err), MU_E_INVALID);
    l.tls_key_file = "/nonexistent/key";
    assert_int_equal(mu_http_server_listen(s, &l, &port, &err), MU_E_INVALID);
    assert_has(err.text, "/nonexistent/cert");
    mu_http_server_free(s); /* its loop never ran */
    mu_loop_free(loop);
    world_stop(&w);
}

static void server_may_outlive_its_loops(void **state)
{
    (void)state;
    struct world w;
    world_start(&w, &mu_http_default_limits, 2, NULL, NULL);
    int fds[16];
    for (size_t i = 0; i < MU_ARRAY_LEN(fds); i++) { /* spread over both loops */
        fds[i] = dial(&w);
        put(fds[i], "GET /a HTTP/1.1\r\n" H "\r\n");
        get(fds[i], "\r\n\r\n/a");
    }
    assert_int_equal(mu_http_server_connections(w.server), 16);
    for (size_t i = 0; i < 2; i++) {
        mu_loop_stop(w.loops[i]);
        mu_loop_join(w.loops[i]);
        mu_loop_free(w.loops[i]);
    }
    mu_http_server_free(w.server);
    for (size_t i = 0; i < MU_ARRAY_LEN(fds); i++) {
        close(fds[i]);
    }
    free(w.big);
    sem_destroy(&w.event);
}

static void inherited_sockets_are_served(void **state)
{
    (void)state;
    struct world w;
    world_start(&w, &mu_http_default_limits, 1, NULL, NULL);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(fd, 8), 0);
    mu_loop_stop(w.loops[0]);
    mu_loop_join(w.loops[0]);
    struct mu_http_listen l = {.fd = fd, .listener_arg = &w};
    struct mu_err err;
    assert_int_equal(mu_http_server_listen(w.server, &l, &w.port, &err), 0);
    assert_int_equal(mu_loop_start(w.loops[0]), 0);
    int c = dial(&w);
    put(c, "GET /in HTTP/1.1\r\n" H "\r\n");
    get(c, "\r\n\r\n/in");
    close(c);
    close(fd);
    world_stop(&w);
}

/* --- TLS --- */

static void write_pair(const char *cert_file, const char *key_file, const char *name)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    X509_set_pubkey(x, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                               (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(x));
    assert_true(X509_sign(x, key, EVP_sha256()) > 0);
    FILE *f = fopen(cert_file, "w");
    assert_int_equal(PEM_write_X509(f, x), 1);
    fclose(f);
    f = fopen(key_file, "w");
    assert_int_equal(PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL), 1);
    fclose(f);
    X509_free(x);
    EVP_PKEY_free(key);
}

struct tls_client {
    SSL_CTX *ctx;
    SSL *ssl;
    int fd;
};

static int tls_dial(struct world *w, struct tls_client *c, int max_version, const char *alpn)
{
    c->fd = dial(w);
    c->ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(c->ctx, TLS1_VERSION);
    SSL_CTX_set_security_level(c->ctx, 0);
    SSL_CTX_set_max_proto_version(c->ctx, max_version);
    c->ssl = SSL_new(c->ctx);
    SSL_set_alpn_protos(c->ssl, (const unsigned char *)alpn, (unsigned)strlen(alpn));
    SSL_set_fd(c->ssl, c->fd);
    int r = SSL_connect(c->ssl);
    ERR_clear_error();
    return r;
}

static void tls_hang_up(struct tls_client *c)
{
    SSL_free(c->ssl);
    SSL_CTX_free(c->ctx);
    close(c->fd);
}

static void tls_put(struct tls_client *c, const char *text)
{
    assert_int_equal(SSL_write(c->ssl, text, (int)strlen(text)), strlen(text));
}

static const char *tls_get(struct tls_client *c, size_t want)
{
    got_len = 0;
    while (got_len < want) {
        int n = SSL_read(c->ssl, got + got_len, (int)(sizeof got - 1 - got_len));
        if (n <= 0) {
            break;
        }
        got_len += (size_t)n;
    }
    got[got_len] = 0;
    return got;
}

static void peer_name(struct tls_client *c, char *dst, int size)
{
    X509 *x = SSL_get1_peer_certificate(c->ssl);
    assert_non_null(x);
    X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_commonName, dst, size);
    X509_free(x);
}

static void tls_conversation(struct world *w, int version)
{
    struct tls_client c;
    assert_int_equal(tls_dial(w, &c, version, "\x02h2\x08http/1.1"), 1);
    const unsigned char *proto;
    unsigned len;
    SSL_get0_alpn_selected(c.ssl, &proto, &len);
    assert_true(mu_bytes_is(mu_bytes_of((const char *)proto, len), "http/1.1"));
    tls_put(&c, "POST /echo HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhe");
    tls_put(&c, "llo");
    assert_has(tls_get(&c, 60), "\r\n\r\nhello");
    tls_put(&c, "GET /later HTTP/1.1\r\n" H "\r\n");
    assert_has(tls_get(&c, 60), "\r\n\r\nlate");
    tls_put(&c, "GET /big HTTP/1.1\r\n" H "Connection: close\r\n\r\n");
    usleep(20000);
    const char *t = tls_get(&c, SIZE_MAX);
    assert_memory_equal(strstr(t, "\r\n\r\n") + 4, w->big, BIG);
    assert_int_equal(SSL_get_shutdown(c.ssl) & SSL_RECEIVED_SHUTDOWN, SSL_RECEIVED_SHUTDOWN);
    tls_hang_up(&c);
}

static void tls_stream(struct world *w)
{
    struct tls_client c;
    assert_int_equal(tls_dial(w, &c, TLS1_3_VERSION, "\x08http/1.1"), 1);
    tls_put(&c, "GET /stream HTTP/1.1\r\n" H "\r\n");
    wait_event(w);
    tls_get(&c, 60);
    on_loop(w, stream_two, "abc");
    assert_string_equal(tls_get(&c, 16), "3\r\nabc\r\n3\r\nabc\r\n");
    on_loop(w, stream_end, NULL);
    tls_get(&c, 5);
    wait_event(w);
    tls_put(&c, "GET /bad\r\n\r\n");
    assert_has(tls_get(&c, SIZE_MAX), "HTTP/1.1 400 ");
    tls_hang_up(&c);
}

static void tls_refusals(struct world *w)
{
    struct tls_client c;
    assert_int_not_equal(tls_dial(w, &c, TLS1_1_VERSION, "\x08http/1.1"), 1);
    tls_hang_up(&c);
    assert_int_not_equal(tls_dial(w, &c, TLS1_3_VERSION, "\x02h2"), 1);
    tls_hang_up(&c);
    int fd = dial(w);
    put(fd, "GET / HTTP/1.1\r\n" H "\r\n");
    char c1[512];
    while (recv(fd, c1, sizeof c1, 0) > 0) {
        assert_null(memmem(c1, sizeof c1, "HTTP/1.1", 8));
    }
    close(fd);
}

static void tls_is_served_and_its_certificate_reloaded(void **state)
{
    (void)state;
    char dir[] = "/tmp/muster-tls-XXXXXX", cert[64], key[64], name[64];
    assert_non_null(mkdtemp(dir));
    snprintf(cert, sizeof cert, "%s/cert", dir);
    snprintf(key, sizeof key, "%s/key", dir);
    write_pair(cert, key, "first");
    struct world w;
    world_start(&w, &mu_http_default_limits, 1, cert, key);
    tls_conversation(&w, TLS1_2_VERSION);
    tls_conversation(&w, TLS1_3_VERSION);
    tls_stream(&w);
    tls_refusals(&w);

    struct mu_err err = {0};
    FILE *f = fopen(cert, "w");
    fputs("no certificate", f);
    fclose(f);
    assert_true(mu_http_server_reload_tls(w.server, &err) < 0);
    assert_has(err.text, cert);
    struct tls_client c;
    assert_int_equal(tls_dial(&w, &c, TLS1_3_VERSION, "\x08http/1.1"), 1);
    peer_name(&c, name, sizeof name);
    assert_string_equal(name, "first");
    tls_hang_up(&c);
    write_pair(cert, key, "second");
    assert_int_equal(mu_http_server_reload_tls(w.server, &err), 0);
    assert_int_equal(tls_dial(&w, &c, TLS1_3_VERSION, "\x08http/1.1"), 1);
    peer_name(&c, name, sizeof name);
    assert_string_equal(name, "second");
    tls_hang_up(&c);
    world_stop(&w);
    unlink(cert);
    unlink(key);
    rmdir(dir);
}

/* --- memory --- */

static void calm(struct world *w, void *arg)
{
    (void)arg;
    if (w->held) {
        mu_http_respond(w->held, 200, NULL, 0, MU_B("late"));
        w->held = NULL;
    }
}

static void failing_allocations_end_connections_only(void **state)
{
    (void)state;
    struct world w;
    world_start(&w, &mu_http_default_limits, 1, NULL, NULL);
    const char *text =
        "POST /echo HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhello"
        "GET /hold HTTP/1.1\r\n" H "\r\nGET /x HTTP/1.1\r\n" H "Connection: close\r\n\r\n";
    for (long n = 1; n < 40; n++) {
        mu_alloc_fail_at(n);
        int fd = dial(&w);
        put(fd, text);
        shutdown(fd, SHUT_WR);
        for (int i = 0; i < 3; i++) {
            usleep(1000);
            on_loop(&w, calm, NULL);
        }
        mu_alloc_fail_at(0);
        on_loop(&w, calm, NULL);
        close(fd);
    }
    int fd = dial(&w);
    put(fd, "GET /fine HTTP/1.1\r\n" H "\r\n");
    get(fd, "\r\n\r\n/fine");
    close(fd);
    world_stop(&w);
}

static int start_and_end(void *arg)
{
    (void)arg;
    struct mu_loop *loop;
    struct mu_http_server *s;
    struct mu_http_ops ops = {
        .admit = on_admit, .request = on_request, .malformed = on_malformed, .arg = NULL};
    struct mu_http_listen l = {.host = "127.0.0.1", .fd = -1};
    struct mu_err err;
    unsigned port;
    if (mu_loop_new(&mu_env_real, "test", &loop) < 0) {
        return -ENOMEM;
    }
    int r = mu_http_server_new(&loop, 1, &mu_http_default_limits, &ops, &s);
    if (r == 0) {
        r = mu_http_server_listen(s, &l, &port, &err);
        mu_http_server_free(s);
    }
    mu_loop_free(loop);
    return r;
}

static void starting_without_memory_leaks_nothing(void **state)
{
    (void)state;
    each_allocation_fails(start_and_end, NULL);
    assert_int_equal(start_and_end(NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connection_is_kept_alive),
        cmocka_unit_test(http10_closes_unless_asked),
        cmocka_unit_test(requests_split_anywhere_are_answered),
        cmocka_unit_test(pipelined_requests_are_answered_in_order),
        cmocka_unit_test(head_and_204_have_no_body),
        cmocka_unit_test(large_answers_reach_slow_readers),
        cmocka_unit_test(too_large_bodies_are_413_before_they_are_sent),
        cmocka_unit_test(expect_continue_is_answered_once_admitted),
        cmocka_unit_test(refused_requests_are_answered_early),
        cmocka_unit_test(malformed_messages_are_answered_and_closed),
        cmocka_unit_test(slow_headers_are_408),
        cmocka_unit_test(slow_bodies_are_408),
        cmocka_unit_test(half_closed_peers_get_their_answer),
        cmocka_unit_test(peer_that_leaves_is_told_once),
        cmocka_unit_test(unanswered_requests_are_freed_with_the_server),
        cmocka_unit_test(streams_are_chunked_and_keep_the_connection),
        cmocka_unit_test(http10_streams_end_with_the_connection),
        cmocka_unit_test(downloads_have_their_length),
        cmocka_unit_test(peer_abort_closes_a_stream_once),
        cmocka_unit_test(slow_reader_is_paused_then_cut),
        cmocka_unit_test(many_small_messages_meet_the_limit_too),
        cmocka_unit_test(stalled_peers_are_cut),
        cmocka_unit_test(idle_connections_are_small),
        cmocka_unit_test(connections_have_a_maximum),
        cmocka_unit_test(drain_answers_what_is_due),
        cmocka_unit_test(drain_cuts_after_its_grace),
        cmocka_unit_test(listening_twice_is_refused_with_words),
        cmocka_unit_test(server_may_outlive_its_loops),
        cmocka_unit_test(inherited_sockets_are_served),
        cmocka_unit_test(tls_is_served_and_its_certificate_reloaded),
        cmocka_unit_test(failing_allocations_end_connections_only),
        cmocka_unit_test(starting_without_memory_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
