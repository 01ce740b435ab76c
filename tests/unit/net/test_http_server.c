/* The server as a whole: listeners, limits of connections, draining, memory. */
#include "../alloc_fail.h"
#include "http_world.h"
#include "net/http_int.h"

static void idle_connections_are_small(void **state)
{
    (void)state;
    assert_true(sizeof(struct mu_http_conn) <= 1024);
}

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

/* On two loops: what one posts to the other while it drains is looked at by the thread sanitizer.
 */
static void drain_cuts_after_its_grace(void **state)
{
    (void)state;
    struct world w;
    int fds[8];
    world_start(&w, &mu_http_default_limits, 2, NULL, NULL);
    for (size_t i = 0; i < MU_ARRAY_LEN(fds); i++) {
        fds[i] = dial(&w);
        put(fds[i], "GET /hold HTTP/1.1\r\n" H "\r\n");
        wait_event(&w);
    }
    int64_t grace = 50;
    on_loop(&w, drain, &grace);
    for (size_t i = 0; i < MU_ARRAY_LEN(fds) + 1; i++) { /* all are gone, and it is drained */
        wait_event(&w);
    }
    assert_int_equal(w.gone, MU_ARRAY_LEN(fds));
    assert_int_equal(w.drained, 1);
    for (size_t i = 0; i < MU_ARRAY_LEN(fds); i++) {
        close(fds[i]);
    }
    world_stop(&w);
}

static void drain_cuts_streams_too(void **state)
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
    int plain = socket(AF_INET, SOCK_STREAM, 0), local[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, local), 0);
    const int others[] = {plain, local[0], 0}; /* not listening, not TCP, no socket */
    struct mu_http_listen l = {.fd = fd, .listener_arg = &w};
    struct mu_err err;
    for (size_t i = 0; i < MU_ARRAY_LEN(others); i++) {
        l.fd = others[i];
        assert_int_equal(mu_http_server_listen(w.server, &l, &w.port, &err), MU_E_INVALID);
        assert_has(err.text, "listening TCP socket");
    }
    close(plain);
    close(local[0]);
    close(local[1]);
    l.fd = fd;
    assert_int_equal(mu_http_server_listen(w.server, &l, &w.port, &err), 0);
    assert_int_equal(mu_loop_start(w.loops[0]), 0);
    int c = dial(&w);
    put(c, "GET /in HTTP/1.1\r\n" H "\r\n");
    get(c, "\r\n\r\n/in");
    close(c);
    close(fd);
    world_stop(&w);
}

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
        cmocka_unit_test(idle_connections_are_small),
        cmocka_unit_test(connections_have_a_maximum),
        cmocka_unit_test(drain_answers_what_is_due),
        cmocka_unit_test(drain_cuts_after_its_grace),
        cmocka_unit_test(drain_cuts_streams_too),
        cmocka_unit_test(listening_twice_is_refused_with_words),
        cmocka_unit_test(server_may_outlive_its_loops),
        cmocka_unit_test(inherited_sockets_are_served),
        cmocka_unit_test(failing_allocations_end_connections_only),
        cmocka_unit_test(starting_without_memory_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
