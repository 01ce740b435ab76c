/* Streamed answers: framing, back-pressure, and how they end. */
#include "http_world.h"

static void stream_abort(struct world *w, void *arg)
{
    int before = w->closed;
    mu_http_stream_abort(w->stream);
    mu_http_stream_abort(w->stream);
    mu_http_stream_write(w->stream, MU_B("too late"));
    *(bool *)arg = w->closed == before; /* never while the layer above is on the stack */
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_are_chunked_and_keep_the_connection),
        cmocka_unit_test(http10_streams_end_with_the_connection),
        cmocka_unit_test(downloads_have_their_length),
        cmocka_unit_test(peer_abort_closes_a_stream_once),
        cmocka_unit_test(slow_reader_is_paused_then_cut),
        cmocka_unit_test(many_small_messages_meet_the_limit_too),
        cmocka_unit_test(stalled_peers_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
