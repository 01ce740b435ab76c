/* WebSocket connections: our server and our client against each other, and each against a peer that
 * speaks raw bytes. One loop on the test's own thread. */
#include "../unit.h"

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
#include "ws_cert.h"
#include "ws_proxy.h"

enum { MAX_ENDS = 8, GUARD_MS = 20000, BIG = 3 * 1024 * 1024, MUCH = 20 };

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
    int r = mu_ws_accept(req, &w->limits, &ops, e, &e->ws);
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

static void the_answer_is_exactly_what_the_rfc_computes(void **state)
{
    (void)state;
    struct world w;
    world_start(&w);
    int fd = raw_open(&w, 0);
    put(fd, MU_B("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"));
    expect(&w, fd, MU_B("\x81\x05Hello"));
    put(fd, MU_B("\x88\x82" M0 "\x03\xe8"));
    expect(&w, fd, MU_B("\x88\x02\x03\xe8"));
    assert_true(raw_get(&w, fd, 0)); /* and the stream ends */
    assert_int_equal(got_len, 0);
    close(fd);
    run_until(&w, is_closed, &w.ends[0]);
    assert_int_equal(w.ends[0].code, 1000);
    world_stop(&w);
}

static void frames_behind_the_request_are_not_lost(void **state)
{
    (void)state;
    static const char *const paths[] = {"/ws", "/late"};
    for (size_t i = 0; i < 2; i++) {
        struct world w;
        char text[1024];
        world_start(&w);
        int fd = raw_dial(&w, 0);
        int n = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\n" UPGRADE "\r\n", paths[i]);
        memcpy(text + n, "\x89\x81" M0 "p\x81\x82" M0 "hi\x81\x81", 17);
        put(fd, mu_bytes_of(text, (size_t)n + 17));
        expect(&w, fd, MU_B(ANSWER "\x8a\x01p\x81\x02hi"));
        put(fd, MU_B(M0 "!"));
        expect(&w, fd, MU_B("\x81\x01!"));
        close(fd);
        run_until(&w, is_closed, &w.ends[0]);
        assert_int_equal(w.ends[0].code, 1006);
        world_stop(&w);
    }
}

static void bad_requests_get_their_status(void **state)
{
    (void)state;
    static const struct {
        const char *request;
        int status;
    } rows[] = {
        {"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n", 426},
        {"POST /ws HTTP/1.1\r\n" UPGRADE "\r\n", 405},
        {"HEAD /ws HTTP/1.1\r\nHost: x\r\n\r\n", 405},
        {"GET /ws HTTP/1.0\r\n" UPGRADE "\r\n", 400},
        {"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", 400},
        {"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" KEY
         "\r\n",
         400},
        {"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: "
         "Upgrade\r\nSec-WebSocket-Version: 8\r\n" KEY "\r\n",
         400},
        {"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" KEY "\r\n",
         400},
        {"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: "
         "Upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n",
         400},
        {"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: "
         "Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short==\r\n\r\n",
         400},
        {"GET /ws HTTP/1.1\r\n" UPGRADE KEY "\r\n", 400},
        {"GET /ws HTTP/1.1\r\n" UPGRADE "Content-Length: 1\r\n\r\nx", 400},
        {"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\nConnection: keep-alive, "
         "upgrade\r\nSec-WebSocket-Version: 13\r\n" KEY "\r\n",
         101},
    };
    struct world w;
    world_start(&w);
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        int fd = raw_dial(&w, 0);
        char want[32];
        snprintf(want, sizeof want, "HTTP/1.1 %d ", rows[i].status);
        put(fd, mu_str(rows[i].request));
        assert_true(raw_get(&w, fd, 20));
        if (strncmp(got, want, strlen(want)) != 0) {
            fail_msg("row %zu: %.*s", i, (int)got_len, got);
        }
        close(fd);
    }
    world_stop(&w);
}

static void fragments_are_joined_and_pings_answered_between_them(void **state)
{
    (void)state;
    struct world w;
    world_start(&w);
    int fd = raw_open(&w, 0);
    put(fd, MU_B("\x01\x82" M0 "ab\x89\x82" M0 "hi\x00\x81" M0 "c\x80\x81" M0 "d"));
    expect(&w, fd,
           MU_B("\x8a\x02hi\x81\x04"
                "abcd"));
    close(fd);
    run_until(&w, is_closed, &w.ends[0]);
    world_stop(&w);
}

static void frames_split_anywhere_are_understood(void **state)
{
    (void)state;
    struct world w;
    world_start(&w);
    int fd = raw_open(&w, 0);
    mu_bytes in = MU_B("\x81\x83\x01\x02\x03\x04"
                       "\x60\x60\x60"
                       "\x89\x80" M0);
    for (size_t cut = 1; cut < in.len; cut++) {
        put(fd, mu_bytes_head(in, cut));
        run_ms(&w, 1);
        put(fd, mu_bytes_from(in, cut));
        assert_true(raw_get(&w, fd, 7));
        assert_int_equal(got_len, 7);
    }
    close(fd);
    run_until(&w, is_closed, &w.ends[0]);
    world_stop(&w);
}

/* --- order and batches --- */

static size_t unsent_then;

static void burst(struct end *e)
{
    for (int i = 0; i < 50; i++) {
        mu_ws_send(e->ws, true, MU_B("x"));
    }
    unsent_then = mu_ws_unsent(e->ws);
}

static void what_is_sent_in_one_turn_leaves_in_one_write(void **state)
{
    (void)state;
    struct world w;
    world_start(&w);
    w.echo = false;
    int fd = raw_open(&w, 0);
    w.ends[0].on_message = burst;
    uint64_t before = mu_wire_taken(&w.ends[0].ws->wire);
    put(fd, MU_B("\x81\x80" M0));
    assert_true(raw_get(&w, fd, 150));
    assert_int_equal(got_len, 150);
    assert_int_equal(unsent_then, 150); /* nothing left before the turn was over */
    assert_int_equal(mu_wire_taken(&w.ends[0].ws->wire) - before, 150);
    assert_int_equal(mu_ws_unsent(w.ends[0].ws), 0);
    close(fd);
    run_until(&w, is_closed, &w.ends[0]);
    world_stop(&w);
}

static void queue_much(struct end *e)
{
    static char block[512 * 1024];
    memset(block, 'x', sizeof block);
    for (int i = 0; i < MUCH; i++) {
        mu_ws_send(e->ws, false, mu_bytes_of(block, sizeof block));
    }
}

static void pongs_overtake_queued_data(void **state)
{
    (void)state;
    struct world w;
    world_start(&w);
    w.on_accept = queue_much;
    int fd = raw_dial(&w, 4096);
    put(fd, MU_B("GET /ws HTTP/1.1\r\n" UPGRADE "\r\n"));
    run_ms(&w, 30); /* the socket is full now */
    assert_true(mu_ws_unsent(w.ends[0].ws) > 1024 * 1024);
    put(fd, MU_B("\x89\x81" M0 "1\x89\x81" M0 "2"));
    run_ms(&w, 30);
    struct mu_ws_parser p;
    static char buf[65536];
    int frames = 0, pong_at = -1, pongs = 0;
    bool head = true;
    mu_ws_parser_init(&p, false, 1 << 20);
    for (int i = 0; i < GUARD_MS && frames < MUCH; i++) {
        ssize_t n = recv(fd, buf, sizeof buf, MSG_DONTWAIT);
        size_t at = 0;
        if (n <= 0) {
            run_ms(&w, 1);
            continue;
        }
        if (head) {
            at = strlen(ANSWER);
            head = false;
        }
        while (at < (size_t)n) {
            size_t used = 0;
            enum mu_ws_event ev = mu_ws_parse(&p, buf + at, (size_t)n - at, &used);
            at += used;
            assert_int_not_equal(ev, MU_WS_EV_ERROR);
            frames += ev == MU_WS_EV_DATA && p.last;
            if (ev == MU_WS_EV_PONG) {
                assert_true(mu_bytes_is(p.piece, "2")); /* only the latest is owed */
                pong_at = frames;
                pongs++;
            }
        }
    }
    assert_int_equal(frames, MUCH);
    assert_int_equal(pongs, 1);
    assert_true(pong_at >= 1 && pong_at < MUCH);
    close(fd);
    run_until(&w, is_closed, &w.ends[0]);
    world_stop(&w);
}

/* --- limits --- */

static void a_peer_that_reads_too_slowly_is_cut_at_the_limit(void **state)
{
    (void)state;
    struct world w;
    world_start(&w);
    w.limits.write_hard = 2 << 20;
    w.on_accept = queue_much;
    int fd = raw_dial(&w, 4096);
    put(fd, MU_B("GET /ws HTTP/1.1\r\n" UPGRADE "\r\n"));
    run_until(&w, has_end, &w);
    run_until(&w, is_closed, &w.ends[0]);
    assert_int_equal(w.ends[0].code, 4409);
    close(fd);
    world_stop(&w);
}

static void a_peer_that_takes_nothing_is_cut_after_a_while(void **state)
{
    (void)state;
    struct world w;
    world_start(&w);
    w.limits.write_stall_ms = 150;
    w.on_accept = queue_much;
    int fd = raw_dial(&w, 4096);
    put(fd, MU_B("GET /ws HTTP/1.1\r\n" UPGRADE "\r\n"));
    run_until(&w, has_end, &w);
    int64_t start = mu_loop_now_ms(w.loop);
    run_until(&w, is_closed, &w.ends[0]);
    assert_true(mu_loop_now_ms(w.loop) - start >= 140);
    assert_int_equal(w.ends[0].code, 4409);
    assert_string_equal(w.ends[0].why, "the peer takes no data");
    close(fd);
    world_stop(&w);
}

static void writable_is_told_when_the_queue_went_down(void **state)
{
    (void)state;
    struct world w;
    world_start(&w);
    w.limits.write_hard = 12 << 20;
    w.on_accept = queue_much;
    int fd = raw_dial(&w, 4096);
    put(fd, MU_B("GET /ws HTTP/1.1\r\n" UPGRADE "\r\n"));
    run_ms(&w, 20);
    assert_int_equal(w.ends[0].writable, 0);
    static char sink[1 << 16];
    size_t sum = 0, all = strlen(ANSWER) + MUCH * (512 * 1024 + 10);
    for (int i = 0; i < GUARD_MS && sum < all; i++) {
        ssize_t n = recv(fd, sink, sizeof sink, MSG_DONTWAIT);
        sum += n > 0 ? (size_t)n : 0;
        if (n <= 0) {
            run_ms(&w, 1);
        }
        if (sum < all / 3) {
            assert_int_equal(w.ends[0].writable, 0);
        }
    }
    assert_int_equal(sum, all);
    assert_int_equal(w.ends[0].writable, 1);
    close(fd);
    run_until(&w, is_closed, &w.ends[0]);
    world_stop(&w);
}

static void a_message_that_is_too_large_is_told_so(void **state)
{
    (void)state;
    struct world w;
    world_start(&w);
    w.limits.max_message = 1000;
    int fd = raw_open(&w, 0);
    char frame[8 + 1000] = "\x02\xfe\x03\xe8";
    put(fd, mu_bytes_of(frame, sizeof frame)); /* 1000 bytes, and one more */
    put(fd, MU_B("\x80\x81" M0 "x"));
    expect(&w, fd, MU_B("\x88\x1a\x03\xf1the message is too large"));
    assert_true(raw_get(&w, fd, 0));
    close(fd);
    run_until(&w, is_closed, &w.ends[0]);
    assert_int_equal(w.ends[0].code, 1009);
    assert_int_equal(w.ends[0].messages, 0);
    world_stop(&w);
}

/* --- closing --- */

static void faults_of_the_peer_are_answered_with_their_code(void **state)
{
    (void)state;
    static const struct {
        mu_bytes in;
        int code;
    } rows[] = {
        {MU_B("\x81\x01x"), 1002},
        {MU_B("\x83\x80" M0), 1002},
        {MU_B("\x81\x82" M0 "\xc3\x28"), 1007},
        {MU_B("\x88\x81" M0 "x"), 1002},
        {MU_B("\x88\x82" M0 "\x03\xee"), 1002},
    };
    struct world w;
    world_start(&w);
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        int fd = raw_open(&w, 0);
        put(fd, rows[i].in);
        assert_true(raw_get(&w, fd, 4));
        assert_int_equal((unsigned char)got[0], 0x88);
        assert_int_equal((unsigned char)got[2] << 8 | (unsigned char)got[3], rows[i].code);
        put(fd, MU_B("and much more that nobody reads")); /* must not become a reset */
        assert_true(raw_get(&w, fd, 0));
        close(fd);
        run_until(&w, is_closed, &w.ends[i]);
        assert_int_equal(w.ends[i].code, rows[i].code);
    }
    world_stop(&w);
}

static void a_close_frame_is_echoed(void **state)
{
    (void)state;
    static const struct {
        mu_bytes in, out;
        int code;
        const char *reason;
    } rows[] = {
        {MU_B("\x88\x80" M0), MU_B("\x88\x00"), 1005, ""},
        {MU_B("\x88\x85" M0 "\x0f\xa1"
              "bye"),
         MU_B("\x88\x02\x0f\xa1"), 4001, "bye"},
    };
    struct world w;
    world_start(&w);
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        int fd = raw_open(&w, 0);
        put(fd, rows[i].in);
        assert_true(raw_get(&w, fd, 0));
        assert_int_equal(got_len, rows[i].out.len);
        assert_memory_equal(got, rows[i].out.ptr, got_len);
        close(fd);
        run_until(&w, is_closed, &w.ends[i]);
        assert_int_equal(w.ends[i].code, rows[i].code);
        assert_string_equal(w.ends[i].why, rows[i].reason);
    }
    world_stop(&w);
}

static void close_then_send(struct end *e)
{
    mu_ws_send(e->ws, true, MU_B("last words"));
    mu_ws_close(e->ws, 4321, "enough");
    mu_ws_send(e->ws, true, MU_B("dropped"));
    mu_ws_close(e->ws, 1000, "again");
}

static void our_close_goes_behind_what_is_queued_and_waits_for_the_peers(void **state)
{
    (void)state;
    struct world w;
    world_start(&w);
    int fd = raw_open(&w, 0);
    w.ends[0].on_message = close_then_send;
    w.ends[0].echo = false;
    put(fd, MU_B("\x81\x80" M0));
    expect(&w, fd,
           MU_B("\x81\x0alast words\x88\x08\x10\xe1"
                "enough"));
    put(fd, MU_B("\x81\x81" M0 "x")); /* not told any more */
    run_ms(&w, 20);
    assert_false(w.ends[0].closed);
    assert_int_equal(w.ends[0].messages, 1);
    put(fd, MU_B("\x88\x82" M0 "\x10\xe2"));
    assert_true(raw_get(&w, fd, 0));
    close(fd);
    run_until(&w, is_closed, &w.ends[0]);
    assert_int_equal(w.ends[0].code, 4322);
    world_stop(&w);
}

static void a_peer_that_never_answers_our_close_is_left(void **state)
{
    (void)state;
    struct world w;
    world_start(&w);
    int fd = raw_open(&w, 0);
    mu_ws_close(w.ends[0].ws, 4321, "enough");
    int64_t start = mu_loop_now_ms(w.loop);
    run_until(&w, is_closed, &w.ends[0]);
    int64_t took = mu_loop_now_ms(w.loop) - start;
    assert_true(took >= 4900 && took < 9000);
    assert_int_equal(w.ends[0].code, 4321);
    close(fd);
    world_stop(&w);
}

static void abort_it(struct end *e)
{
    mu_ws_abort(e->ws);
    assert_false(e->closed); /* never from inside a call of ours */
}

static void abort_drops_the_connection_from_within_a_message(void **state)
{
    (void)state;
    struct world w;
    struct end c;
    world_start(&w);
    dial(&w, &c, "/ws");
    w.ends[0].on_message = abort_it;
    mu_ws_send(c.ws, true, MU_B("a"));
    mu_ws_send(c.ws, true, MU_B("b"));
    run_until(&w, is_closed, &c);
    assert_int_equal(w.ends[0].messages, 1);
    assert_int_equal(w.ends[0].code, 1006);
    assert_int_equal(c.code, 1006);
    mu_buf_fini(&c.got);

    dial(&w, &c, "/ws"); /* and at the client's end */
    c.on_message = abort_it;
    mu_ws_send(c.ws, true, MU_B("a"));
    mu_ws_send(c.ws, true, MU_B("b"));
    run_until(&w, is_closed, &c);
    run_until(&w, is_closed, &w.ends[1]);
    assert_int_equal(c.messages, 1);
    assert_int_equal(c.code, 1006);
    mu_buf_fini(&c.got);
    world_stop(&w);
}

static void on_drained(void *arg)
{
    struct world *w = arg;
    w->drained = true;
}

static void drain_closes_with_1001(void **state)
{
    (void)state;
    struct world w;
    struct end c;
    world_start(&w);
    dial(&w, &c, "/ws");
    int fd = raw_open(&w, 0);
    assert_int_equal(mu_http_server_connections(w.server), 2);
    mu_http_server_drain(w.server, 300, on_drained, &w);
    run_until(&w, is_closed, &c);
    assert_int_equal(c.code, 1001);
    assert_string_equal(c.why, "Server shutting down");
    expect(&w, fd, MU_B("\x88\x16\x03\xe9Server shutting down"));
    assert_false(w.drained);
    run_until(&w, is_drained, &w); /* the raw peer is cut at the end of the grace */
    assert_int_equal(w.ends[1].code, 1001);
    assert_true(w.ends[1].closed);
    close(fd);
    mu_buf_fini(&c.got);
    world_stop(&w);
}

static void a_server_that_is_freed_frees_its_connections(void **state)
{
    (void)state;
    for (int loop_first = 0; loop_first < 2; loop_first++) {
        struct world w;
        world_start(&w);
        w.on_accept = queue_much;
        int fd = raw_dial(&w, 4096);
        put(fd, MU_B("GET /ws HTTP/1.1\r\n" UPGRADE "\r\n"));
        run_until(&w, has_end, &w);
        run_ms(&w, 10);
        if (loop_first) {
            mu_loop_free(w.loop);
            mu_http_server_free(w.server);
        } else {
            mu_http_server_free(w.server);
            mu_loop_free(w.loop);
        }
        assert_false(w.ends[0].closed);
        mu_buf_fini(&w.ends[0].got);
        close(fd);
    }
}

/* --- keep-alive --- */

static void pings_come_after_silence_and_carry_a_counter(void **state)
{
    (void)state;
    struct world w;
    world_start(&w);
    w.limits.ping_ms = 80;
    int fd = raw_open(&w, 0);
    int64_t start = mu_loop_now_ms(w.loop);
    expect(&w, fd, MU_B("\x89\x08\0\0\0\0\0\0\0\1"));
    assert_true(mu_loop_now_ms(w.loop) - start >= 70);
    run_ms(&w, 50);
    put(fd, MU_B("\x81\x81" M0 "x")); /* its answer counts as output: the ping is put off */
    expect(&w, fd, MU_B("\x81\x01x"));
    start = mu_loop_now_ms(w.loop);
    expect(&w, fd, MU_B("\x89\x08\0\0\0\0\0\0\0\2"));
    assert_true(mu_loop_now_ms(w.loop) - start >= 70);
    close(fd);
    run_until(&w, is_closed, &w.ends[0]);
    world_stop(&w);
}

static void a_silent_peer_is_probed_and_then_cut(void **state)
{
    (void)state;
    struct world w;
    world_start(&w);
    w.limits.silence_ms = 80;
    w.limits.probe_ms = 60;
    int fd = raw_open(&w, 0);
    expect(&w, fd, MU_B("\x89\x08\0\0\0\0\0\0\0\1"));
    put(fd, MU_B("\x8a")); /* any byte is an answer */
    expect(&w, fd, MU_B("\x89\x08\0\0\0\0\0\0\0\2"));
    int64_t start = mu_loop_now_ms(w.loop);
    run_until(&w, is_closed, &w.ends[0]);
    int64_t took = mu_loop_now_ms(w.loop) - start;
    assert_true(took >= 50 && took < 5000);
    assert_int_equal(w.ends[0].code, 1006);
    assert_string_equal(w.ends[0].why, "the peer does not answer");
    close(fd);
    world_stop(&w);
}

static void a_probe_shows_whether_the_peer_lives(void **state)
{
    (void)state;
    struct world w;
    struct end c;
    world_start(&w);
    dial(&w, &c, "/ws");
    run_ms(&w, 20);
    int64_t sent = mu_loop_now_ms(w.loop);
    assert_true(mu_ws_last_in_ms(w.ends[0].ws) < sent);
    mu_ws_ping(w.ends[0].ws);
    run_ms(&w, 20);
    assert_true(mu_ws_last_in_ms(w.ends[0].ws) >= sent);
    assert_ptr_equal(mu_ws_loop(c.ws), w.loop);
    hang_up(&w, &c);
    world_stop(&w);
}

/* --- both ends --- */

static void messages_of_every_size_come_back(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 2, 125, 126, 127, 4096, 65535, 65536, 65537, BIG};
    struct world w;
    struct end c;
    char *data = malloc(BIG);
    for (size_t i = 0; i < BIG; i++) {
        data[i] = (char)('a' + i % 26);
    }
    world_start(&w);
    dial(&w, &c, "/ws");
    for (size_t i = 0; i < MU_ARRAY_LEN(sizes); i++) {
        mu_buf_clear(&c.got);
        c.messages = 0;
        mu_ws_send(c.ws, i % 2, mu_bytes_of(data, sizes[i]));
        run_until(&w, has_message, &c);
        assert_int_equal(c.got.len, sizes[i] + 1);
        assert_memory_equal(c.got.ptr, data, sizes[i]);
    }
    hang_up(&w, &c);
    run_until(&w, is_closed, &w.ends[0]);
    assert_int_equal(c.code, 1000);
    assert_int_equal(w.ends[0].code, 1000);
    free(data);
    world_stop(&w);
}

static void an_open_connection_costs_little(void **state)
{
    (void)state;
    /* what is allocated for an idle one; 16 bytes of the allocator each */
    size_t all = sizeof(struct mu_http_conn) + sizeof(struct mu_ws) + 32;
    if (all > 2048) {
        fail_msg("%zu bytes", all);
    }
    struct world w;
    struct end c;
    world_start(&w);
    dial(&w, &c, "/ws");
    mu_ws_send(c.ws, true, MU_B("x"));
    run_until(&w, has_message, &c);
    struct mu_ws *ws = w.ends[0].ws;
    struct mu_http_conn *conn = ws->owner;
    assert_null(ws->wire.head);
    assert_null(ws->wire.flight);
    assert_null(conn->kept);
    assert_null(conn->segs);
    assert_null(conn->req);
    run_until(&w, is_quiet, conn); /* and nobody looks at it */
    hang_up(&w, &c);
    world_stop(&w);
}

/* --- the client's failures --- */

static int listen_raw(unsigned *port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t len = sizeof a;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(fd, 8), 0);
    getsockname(fd, (struct sockaddr *)&a, &len);
    *port = ntohs(a.sin_port);
    return fd;
}

static void a_refusal_is_told_with_its_status(void **state)
{
    (void)state;
    struct world w;
    struct end c;
    world_start(&w);
    dial(&w, &c, "/busy");
    assert_true(c.failed);
    assert_int_equal(c.status, 429);
    assert_int_equal(c.retry_ms, 15000);
    assert_string_equal(c.why, "the server answered 429 Too Many Requests: {\"error\":\"taken\"}");
    world_stop(&w);
}

static void bad_urls_are_refused_at_once(void **state)
{
    (void)state;
    static const char *const urls[] = {
        "",          "localhost",     "ftp://x/", "ws://", "ws://u:p@x/",
        "ws://x:0/", "ws://x:70000/", "ws://a b/"};
    struct world w;
    struct end c;
    world_start(&w);
    for (size_t i = 0; i < MU_ARRAY_LEN(urls); i++) {
        end_init(&c, &w);
        struct mu_ws_connect o = connect_opts(&c, urls[i]);
        assert_int_equal(mu_ws_connect(w.loop, &o, &c.dial), MU_E_INVALID);
    }
    struct mu_ws_connect o = connect_opts(&c, "ws://x/");
    o.proxy = "no port:x";
    assert_int_equal(mu_ws_connect(w.loop, &o, &c.dial), MU_E_INVALID);
    world_stop(&w);
}

static void names_and_ports_that_lead_nowhere_are_told(void **state)
{
    (void)state;
    struct world w;
    struct end c;
    unsigned port;
    world_start(&w);
    close(listen_raw(&port)); /* nobody listens there now */
    end_init(&c, &w);
    struct mu_ws_connect o = connect_opts(&c, url_of(port, "ws", "/"));
    assert_int_equal(mu_ws_connect(w.loop, &o, &c.dial), 0);
    run_until(&w, is_opened, &c);
    assert_true(c.failed && c.status == 0 && c.retry_ms == -1);
    assert_non_null(strstr(c.why, "connect to 127.0.0.1 port "));
    assert_non_null(strstr(c.why, "refused"));

    end_init(&c, &w); /* a label that no name may have */
    o = connect_opts(
        &c, "ws://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/");
    assert_int_equal(mu_ws_connect(w.loop, &o, &c.dial), 0);
    run_until(&w, is_opened, &c);
    assert_true(c.failed);
    assert_non_null(strstr(c.why, "could not be resolved"));
    world_stop(&w);
}

/* What a server that is none answers; the request is read first. */
static void answers(struct world *w, mu_bytes answer, bool hang, struct end *c)
{
    unsigned port;
    int fd = listen_raw(&port), peer = -1;
    end_init(c, w);
    struct mu_ws_connect o = connect_opts(c, url_of(port, "ws", "/a?b=c"));
    o.timeout_ms = 1000;
    assert_int_equal(mu_ws_connect(w->loop, &o, &c->dial), 0);
    for (int i = 0; i < 1000 && peer < 0; i++) {
        run_ms(w, 1);
        peer = accept(fd, NULL, NULL);
    }
    assert_true(peer >= 0);
    assert_true(raw_get(w, peer, 60));
    static const char head[] = "GET /a?b=c HTTP/1.1\r\nHost: 127.0.0.1:";
    assert_memory_equal(got, head, strlen(head));
    got[MU_MIN(got_len, sizeof got - 1)] = 0;
    assert_non_null(strstr(got, "Authorization: Bearer x\r\nX-Test: 1\r\n\r\n"));
    put(peer, answer);
    if (!hang) {
        shutdown(peer, SHUT_WR);
    }
    run_until(w, is_opened, c);
    assert_true(c->failed);
    close(peer);
    close(fd);
}

static void answers_that_are_no_upgrade_fail(void **state)
{
    (void)state;
    static const struct {
        mu_bytes answer;
        bool hang;
        int status;
        const char *why;
    } rows[] = {
        {MU_B("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), true, 200, "answered 200 OK"},
        {MU_B("HTTP/1.1 503 No\r\nRetry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n\r\n"), true, 503,
         "answered 503 No"},
        {MU_B("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 401 Unauthorized\r\n\r\nn\ao"),
         true, 401, "answered 401 Unauthorized: n o"},
        {MU_B(ANSWER), true, 0, "not one of a WebSocket"}, /* the key of another */
        {MU_B("HTTP/1.1 101 x\r\n\r\n"), true, 0, "not one of a WebSocket"},
        {MU_B("SSH-2.0-x\r\n\r\n"), true, 0, "not HTTP"},
        {MU_B("HTTP/1.1 999 x\r\n\r\n"), true, 0, "not HTTP"},
        {MU_B("HTTP/1.1 200 x\r\nno colon\r\n\r\n"), true, 0, "not HTTP"},
        {MU_B("HTTP/1.1 101 x\r\nUpgr"), true, 0, "timed out before the server answered"},
        {MU_B("HTTP/1.1 101 x\r\nUpgr"), false, 0, "closed the connection before it answered"},
    };
    struct world w;
    struct end c;
    world_start(&w);
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        answers(&w, rows[i].answer, rows[i].hang, &c);
        if (c.status != rows[i].status || !strstr(c.why, rows[i].why) || c.retry_ms != -1) {
            fail_msg("row %zu: %d %s", i, c.status, c.why);
        }
    }
    char *large = malloc(20000);
    memset(large, 'x', 20000);
    memcpy(large, "HTTP/1.1 101 x\r\nA: ", 19);
    answers(&w, mu_bytes_of(large, 20000), true, &c);
    assert_non_null(strstr(c.why, "too large"));
    free(large);
    world_stop(&w);
}

static void a_dial_can_be_aborted_at_any_moment(void **state)
{
    (void)state;
    struct world w;
    struct end c;
    world_start(&w);
    for (int ms = 0; ms < 6; ms++) {
        assert_int_equal(dial_try(&w, &c, "/late"), 0);
        if (ms) {
            run_ms(&w, ms);
        }
        if (c.dial) {
            c.dial = mu_ws_dial_abort(c.dial);
            assert_null(c.dial);
        }
        run_ms(&w, 5);
        assert_false(c.opened || c.failed);
        run_ms(&w, 40); /* the server finds out when it accepts */
    }
    /* the loop ends right after */
    assert_int_equal(dial_try(&w, &c, "/ws"), 0);
    mu_ws_dial_abort(c.dial);
    dial(&w, &c, "/ws");
    mu_ws_abort(c.ws);
    mu_http_server_free(w.server);
    mu_loop_free(w.loop);
    assert_true(c.closed);
    for (size_t i = 0; i < w.n_ends; i++) {
        mu_buf_fini(&w.ends[i].got);
    }
}

/* --- TLS --- */

static void tls_carries_both_ends(void **state)
{
    (void)state;
    struct ws_cert cert;
    struct world w;
    struct end c;
    ws_cert_make(&cert);
    assert_true(world_try(&w, cert.cert, cert.key));
    end_init(&c, &w);
    struct mu_ws_connect o = connect_opts(&c, url_of(w.port, "wss", "/ws"));
    o.ca_file = cert.cert;
    assert_int_equal(mu_ws_connect(w.loop, &o, &c.dial), 0);
    run_until(&w, is_opened, &c);
    if (c.failed) {
        fail_msg("%s", c.why);
    }
    char *data = malloc(BIG);
    memset(data, 'd', BIG);
    mu_ws_send(c.ws, true, mu_bytes_of(data, BIG));
    run_until(&w, has_message, &c);
    assert_int_equal(c.got.len, BIG + 1);
    assert_memory_equal(c.got.ptr, data, BIG);
    assert_null(mu_tls_out(c.ws->wire.tls)->ptr);
    free(data);
    hang_up(&w, &c);
    run_until(&w, is_closed, &w.ends[0]);
    assert_int_equal(c.code, 1000);
    assert_int_equal(w.ends[0].code, 1000);
    world_stop(&w);
    ws_cert_drop(&cert);
}

static void tls_peers_must_be_who_they_should_be(void **state)
{
    (void)state;
    struct ws_cert cert, other;
    struct world w;
    struct end c;
    char url[64];
    ws_cert_make(&cert);
    ws_cert_make(&other);
    assert_true(world_try(&w, cert.cert, cert.key));
    snprintf(url, sizeof url, "wss://localhost:%u/ws", w.port);
    const struct {
        const char *url, *ca, *why;
    } rows[] = {
        {url, cert.cert, "mismatch"}, /* the certificate is for 127.0.0.1 */
        {url_of(w.port, "https", "/ws"), other.cert, "self-signed certificate"},
        {url_of(w.port, "https", "/ws"), NULL, "self-signed certificate"},
        {url_of(w.port, "https", "/ws"), "/nonexistent/ca", "/nonexistent/ca"},
        {url_of(w.port, "https", "/ws"), cert.key, "trusted certificates"},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        end_init(&c, &w);
        struct mu_ws_connect o = connect_opts(&c, rows[i].url);
        o.ca_file = rows[i].ca;
        assert_int_equal(mu_ws_connect(w.loop, &o, &c.dial), 0);
        run_until(&w, is_opened, &c);
        if (!c.failed || c.status != 0 || !strstr(c.why, rows[i].why)) {
            fail_msg("row %zu: %d %s", i, c.failed, c.why);
        }
    }
    assert_int_equal(w.n_ends, 0);
    /* and a server that speaks no TLS at all */
    struct world plain;
    world_start(&plain);
    end_init(&c, &w);
    struct mu_ws_connect o = connect_opts(&c, url_of(plain.port, "wss", "/ws"));
    o.ca_file = cert.cert;
    assert_int_equal(mu_ws_connect(plain.loop, &o, &c.dial), 0);
    run_until(&plain, is_opened, &c);
    assert_true(c.failed);
    assert_non_null(strstr(c.why, "TLS with 127.0.0.1: "));
    world_stop(&plain);
    world_stop(&w);
    ws_cert_drop(&cert);
    ws_cert_drop(&other);
}

/* --- through a proxy --- */

static void a_proxy_is_passed_with_connect(void **state)
{
    (void)state;
    for (int tls = 0; tls < 2; tls++) {
        struct ws_cert cert;
        struct ws_proxy proxy;
        struct world w;
        struct end c;
        char where[32], want[64];
        ws_cert_make(&cert);
        ws_proxy_start(&proxy, 200);
        assert_true(world_try(&w, tls ? cert.cert : NULL, tls ? cert.key : NULL));
        snprintf(where, sizeof where, "127.0.0.1:%u", proxy.port);
        end_init(&c, &w);
        struct mu_ws_connect o = connect_opts(&c, url_of(w.port, tls ? "wss" : "ws", "/ws"));
        o.ca_file = cert.cert;
        o.proxy = where;
        assert_int_equal(mu_ws_connect(w.loop, &o, &c.dial), 0);
        run_until(&w, is_opened, &c);
        if (c.failed) {
            fail_msg("%s", c.why);
        }
        mu_ws_send(c.ws, true, MU_B("through"));
        run_until(&w, has_message, &c);
        assert_memory_equal(c.got.ptr, "through|", 8);
        hang_up(&w, &c);
        run_until(&w, is_closed, &w.ends[0]);
        ws_proxy_stop(&proxy);
        snprintf(want, sizeof want, "CONNECT 127.0.0.1:%u HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n\r\n",
                 w.port, w.port);
        assert_string_equal(proxy.request, want);
        world_stop(&w);
        ws_cert_drop(&cert);
    }
}

static void a_proxy_that_refuses_is_told_apart(void **state)
{
    (void)state;
    struct ws_proxy proxy;
    struct world w;
    struct end c;
    char where[32];
    world_start(&w);
    ws_proxy_start(&proxy, 407);
    snprintf(where, sizeof where, "127.0.0.1:%u", proxy.port);
    end_init(&c, &w);
    struct mu_ws_connect o = connect_opts(&c, url_of(w.port, "ws", "/ws"));
    o.proxy = where;
    assert_int_equal(mu_ws_connect(w.loop, &o, &c.dial), 0);
    run_until(&w, is_opened, &c);
    assert_true(c.failed);
    assert_int_equal(c.status, 0);
    assert_string_equal(c.why, "the proxy answered 407 No");
    ws_proxy_stop(&proxy);
    assert_int_equal(w.n_ends, 0);
    world_stop(&w);
}

/* --- memory runs out --- */

static int one_exchange(void *arg)
{
    const struct ws_cert *cert = arg; /* NULL = without TLS */
    struct world w;
    struct end c;
    if (!world_try(&w, cert ? cert->cert : NULL, cert ? cert->key : NULL)) {
        return -1;
    }
    end_init(&c, &w);
    struct mu_ws_connect o = connect_opts(&c, url_of(w.port, cert ? "wss" : "ws", "/ws"));
    o.ca_file = cert ? cert->cert : NULL;
    if (mu_ws_connect(w.loop, &o, &c.dial) == 0) {
        run(&w, is_opened, &c, 3000);
        if (c.ws) {
            mu_ws_send(c.ws, true, MU_B("hello"));
            run(&w, has_message_or_end, &c, 2000);
        }
        if (c.ws) {
            mu_ws_close(c.ws, 1000, "bye");
            run(&w, is_closed, &c, 6000);
        }
        if (c.ws) {
            mu_ws_abort(c.ws);
        }
        if (c.dial) {
            mu_ws_dial_abort(c.dial);
        }
    }
    int r = c.closed && c.code == 1000 && c.messages == 1 ? 0 : -1;
    world_stop(&w);
    mu_buf_fini(&c.got);
    return r;
}

static void memory_that_runs_out_breaks_nothing(void **state)
{
    (void)state;
    struct ws_cert cert;
    ws_cert_make(&cert);
    each_allocation_fails(one_exchange, NULL);
    assert_int_equal(one_exchange(NULL), 0);
    each_allocation_fails(one_exchange, &cert);
    assert_int_equal(one_exchange(&cert), 0);
    ws_cert_drop(&cert);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_answer_is_exactly_what_the_rfc_computes),
        cmocka_unit_test(frames_behind_the_request_are_not_lost),
        cmocka_unit_test(bad_requests_get_their_status),
        cmocka_unit_test(fragments_are_joined_and_pings_answered_between_them),
        cmocka_unit_test(frames_split_anywhere_are_understood),
        cmocka_unit_test(what_is_sent_in_one_turn_leaves_in_one_write),
        cmocka_unit_test(pongs_overtake_queued_data),
        cmocka_unit_test(a_peer_that_reads_too_slowly_is_cut_at_the_limit),
        cmocka_unit_test(a_peer_that_takes_nothing_is_cut_after_a_while),
        cmocka_unit_test(writable_is_told_when_the_queue_went_down),
        cmocka_unit_test(a_message_that_is_too_large_is_told_so),
        cmocka_unit_test(faults_of_the_peer_are_answered_with_their_code),
        cmocka_unit_test(a_close_frame_is_echoed),
        cmocka_unit_test(our_close_goes_behind_what_is_queued_and_waits_for_the_peers),
        cmocka_unit_test(a_peer_that_never_answers_our_close_is_left),
        cmocka_unit_test(abort_drops_the_connection_from_within_a_message),
        cmocka_unit_test(drain_closes_with_1001),
        cmocka_unit_test(a_server_that_is_freed_frees_its_connections),
        cmocka_unit_test(pings_come_after_silence_and_carry_a_counter),
        cmocka_unit_test(a_silent_peer_is_probed_and_then_cut),
        cmocka_unit_test(a_probe_shows_whether_the_peer_lives),
        cmocka_unit_test(messages_of_every_size_come_back),
        cmocka_unit_test(an_open_connection_costs_little),
        cmocka_unit_test(a_refusal_is_told_with_its_status),
        cmocka_unit_test(bad_urls_are_refused_at_once),
        cmocka_unit_test(names_and_ports_that_lead_nowhere_are_told),
        cmocka_unit_test(answers_that_are_no_upgrade_fail),
        cmocka_unit_test(a_dial_can_be_aborted_at_any_moment),
        cmocka_unit_test(tls_carries_both_ends),
        cmocka_unit_test(tls_peers_must_be_who_they_should_be),
        cmocka_unit_test(a_proxy_is_passed_with_connect),
        cmocka_unit_test(a_proxy_that_refuses_is_told_apart),
        cmocka_unit_test(memory_that_runs_out_breaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
