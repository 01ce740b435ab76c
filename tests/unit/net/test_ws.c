/* The server's end of WebSocket connections: handshake, frames, order, limits, closing, keep-alive.
 */
#include "ws_world.h"

enum { MUCH = 20 };

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

/* The pongs among the messages that the peer gets now, one after the other; and how many messages
 * came before the first of them. */
static int pongs_until(struct world *w, int fd, int messages, struct mu_buf *ret_pongs)
{
    struct mu_ws_parser p;
    static char buf[65536];
    int frames = 0, pong_at = -1;
    bool head = true;
    mu_ws_parser_init(&p, false, 1 << 20);
    for (int i = 0; i < GUARD_MS && frames < messages; i++) {
        ssize_t n = recv(fd, buf, sizeof buf, MSG_DONTWAIT);
        size_t at = 0;
        if (n <= 0) {
            run_ms(w, 1);
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
                pong_at = pong_at < 0 ? frames : pong_at;
                mu_buf_add(ret_pongs, p.piece);
            }
        }
    }
    assert_int_equal(frames, messages);
    return pong_at;
}

static void pongs_overtake_queued_data(void **state)
{
    (void)state;
    struct world w;
    struct mu_buf pongs;
    world_start(&w);
    mu_buf_init(&pongs, 4096);
    w.on_accept = queue_much;
    int fd = raw_dial(&w, 4096);
    put(fd, MU_B("GET /ws HTTP/1.1\r\n" UPGRADE "\r\n"));
    run_ms(&w, 30); /* the socket is full now */
    assert_true(mu_ws_unsent(w.ends[0].ws) > 1024 * 1024);
    put(fd, MU_B("\x89\x81" M0 "1\x89\x81" M0 "2"));
    run_ms(&w, 30);
    int at = pongs_until(&w, fd, MUCH, &pongs);
    assert_true(at >= 1 && at < MUCH);
    assert_true(mu_bytes_is(mu_buf_bytes(&pongs), "12")); /* each ping is answered */
    close(fd);
    run_until(&w, is_closed, &w.ends[0]);
    mu_buf_fini(&pongs);
    world_stop(&w);
}

static void a_flood_of_pings_costs_no_memory_and_the_last_is_answered(void **state)
{
    (void)state;
    struct world w;
    struct mu_buf pongs;
    enum { PINGS = 2000, LEN = 4 };
    world_start(&w);
    mu_buf_init(&pongs, PINGS * LEN);
    w.on_accept = queue_much;
    int fd = raw_dial(&w, 4096);
    put(fd, MU_B("GET /ws HTTP/1.1\r\n" UPGRADE "\r\n"));
    run_ms(&w, 30);
    size_t unsent = mu_ws_unsent(w.ends[0].ws);
    for (int i = 1; i <= PINGS; i++) {
        char ping[32];
        memcpy(ping, "\x89\x84" M0, 6);
        snprintf(ping + 6, sizeof ping - 6, "%04d", i);
        put(fd, mu_bytes_of(ping, 10));
    }
    run_ms(&w, 50);
    assert_true(mu_ws_unsent(w.ends[0].ws) <= unsent + (size_t)2 * MU_WIRE_URGENT);
    int at = pongs_until(&w, fd, MUCH, &pongs);
    assert_true(at >= 1 && at < MUCH);
    assert_true(pongs.len >= LEN && pongs.len <= (size_t)2 * MU_WIRE_URGENT);
    assert_true(mu_bytes_ends(mu_buf_bytes(&pongs), MU_B("2000")));
    close(fd);
    run_until(&w, is_closed, &w.ends[0]);
    mu_buf_fini(&pongs);
    world_stop(&w);
}

static void ten_pings_at_once_get_ten_pongs(void **state)
{
    (void)state;
    struct world w;
    char in[10 * 7], out[10 * 3];
    world_start(&w);
    int fd = raw_open(&w, 0);
    for (size_t i = 0; i < 10; i++) {
        memcpy(in + i * 7, "\x89\x81" M0, 6);
        memcpy(out + i * 3, "\x8a\x01", 2);
        in[i * 7 + 6] = out[i * 3 + 2] = (char)('0' + i);
    }
    put(fd, mu_bytes_of(in, sizeof in));
    expect(&w, fd, mu_bytes_of(out, sizeof out));
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
    int64_t start = mu_loop_now_ms(w.loop);
    put(fd, MU_B("GET /ws HTTP/1.1\r\n" UPGRADE "\r\n"));
    run_until(&w, has_end, &w);
    run_until(&w, is_closed, &w.ends[0]);
    assert_true(mu_loop_now_ms(w.loop) - start >= 140);
    assert_int_equal(w.ends[0].code, 4409);
    assert_string_equal(w.ends[0].why, "the peer takes no data");
    close(fd);
    world_stop(&w);
}

static bool was_told(void *end)
{
    return ((struct end *)end)->writable > 0;
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
    run_until(&w, was_told, &w.ends[0]); /* the kernel may have taken the rest in one go */
    assert_int_equal(w.ends[0].writable, 1);
    close(fd);
    run_until(&w, is_closed, &w.ends[0]);
    world_stop(&w);
}

/* It was no message that filled it: a pong. */
static void who_asked_and_found_it_full_is_told_too(void **state)
{
    (void)state;
    struct world w;
    static char sink[1 << 16];
    world_start(&w);
    w.limits.write_hard = w.limits.write_soft = 12 << 20;
    w.on_accept = queue_much;
    int fd = raw_dial(&w, 4096);
    put(fd, MU_B("GET /ws HTTP/1.1\r\n" UPGRADE "\r\n"));
    run_ms(&w, 30);
    struct mu_ws *ws = w.ends[0].ws;
    assert_false(mu_ws_full(ws));
    ws->limits.write_soft = mu_ws_unsent(ws);
    put(fd, MU_B("\x89\x84" M0 "ping"));
    run_ms(&w, 30);
    assert_true(mu_ws_full(ws));
    for (int i = 0; i < GUARD_MS && w.ends[0].writable == 0; i++) {
        if (recv(fd, sink, sizeof sink, MSG_DONTWAIT) <= 0) {
            run_ms(&w, 1);
        }
    }
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

static void say_goodbye(void *arg)
{
    struct end *e = arg;
    mu_ws_send(e->ws, true, MU_B("bye"));
}

static void takes_leave(struct end *e)
{
    mu_ws_on_drain(e->ws, say_goodbye);
}

static void last_words_come_before_a_drain(void **state)
{
    (void)state;
    struct world w;
    struct end c;
    world_start(&w);
    w.on_accept = takes_leave;
    dial(&w, &c, "/ws");
    mu_http_server_drain(w.server, 300, on_drained, &w);
    run_until(&w, is_closed, &c);
    assert_int_equal(c.code, 1001);
    assert_true(mu_bytes_is(mu_buf_bytes(&c.got), "bye|"));
    run_until(&w, is_drained, &w);
    mu_buf_fini(&c.got);
    world_stop(&w);
}

static void a_sub_protocol_is_named_in_the_answer(void **state)
{
    (void)state;
    struct world w;
    world_start(&w);
    w.protocol = "x.v1";
    int fd = raw_dial(&w, 0);
    put(fd, MU_B("GET /ws HTTP/1.1\r\n" UPGRADE "\r\n"));
    expect(&w, fd,
           MU_B("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
                "Sec-WebSocket-Protocol: x.v1\r\n\r\n"));
    close(fd);
    run_until(&w, is_closed, &w.ends[0]);
    world_stop(&w);
}

static void a_soft_limit_of_its_own_says_when_to_go_on(void **state)
{
    (void)state;
    struct world w;
    world_start(&w);
    w.limits.write_hard = 64 << 20;
    w.limits.write_soft = 128 << 10;
    w.on_accept = queue_much;
    int fd = raw_dial(&w, 4096);
    put(fd, MU_B("GET /ws HTTP/1.1\r\n" UPGRADE "\r\n"));
    run_ms(&w, 20);
    static char sink[1 << 16];
    size_t sum = 0, all = strlen(ANSWER) + MUCH * (512 * 1024 + 10), left = 0;
    for (int i = 0; i < GUARD_MS && sum < all; i++) {
        ssize_t n = recv(fd, sink, sizeof sink, MSG_DONTWAIT);
        sum += n > 0 ? (size_t)n : 0;
        if (n <= 0) {
            run_ms(&w, 1);
        }
        left = mu_ws_unsent(w.ends[0].ws);
        assert_true(w.ends[0].writable == 0 || left < 64 << 10);
    }
    assert_int_equal(sum, all);
    run_until(&w, was_told, &w.ends[0]); /* the kernel may have taken the rest in one go */
    assert_int_equal(w.ends[0].writable, 1);
    close(fd);
    run_until(&w, is_closed, &w.ends[0]);
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
        cmocka_unit_test(a_flood_of_pings_costs_no_memory_and_the_last_is_answered),
        cmocka_unit_test(ten_pings_at_once_get_ten_pongs),
        cmocka_unit_test(a_peer_that_reads_too_slowly_is_cut_at_the_limit),
        cmocka_unit_test(a_peer_that_takes_nothing_is_cut_after_a_while),
        cmocka_unit_test(writable_is_told_when_the_queue_went_down),
        cmocka_unit_test(who_asked_and_found_it_full_is_told_too),
        cmocka_unit_test(a_message_that_is_too_large_is_told_so),
        cmocka_unit_test(faults_of_the_peer_are_answered_with_their_code),
        cmocka_unit_test(a_close_frame_is_echoed),
        cmocka_unit_test(our_close_goes_behind_what_is_queued_and_waits_for_the_peers),
        cmocka_unit_test(a_peer_that_never_answers_our_close_is_left),
        cmocka_unit_test(abort_drops_the_connection_from_within_a_message),
        cmocka_unit_test(drain_closes_with_1001),
        cmocka_unit_test(last_words_come_before_a_drain),
        cmocka_unit_test(a_sub_protocol_is_named_in_the_answer),
        cmocka_unit_test(a_soft_limit_of_its_own_says_when_to_go_on),
        cmocka_unit_test(a_server_that_is_freed_frees_its_connections),
        cmocka_unit_test(pings_come_after_silence_and_carry_a_counter),
        cmocka_unit_test(a_silent_peer_is_probed_and_then_cut),
        cmocka_unit_test(a_probe_shows_whether_the_peer_lives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
