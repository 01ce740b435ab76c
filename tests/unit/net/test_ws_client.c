/* The client's end: both of ours against each other, what can go wrong with a dial, TLS, proxies.
 */
#include "ws_world.h"

#include "ws_cert.h"
#include "ws_proxy.h"

enum { BIG = 3 * 1024 * 1024 };

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
