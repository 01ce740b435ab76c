/* Requests: parsing, framing, limits of a message, and the answers. */
#include "http_world.h"

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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
