#include "../unit.h"

#pragma GCC diagnostic ignored "-Wunused-parameter" /* cmocka hands a state to every test */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "../alloc_fail.h"
#include "net/http_local.h"

struct got {
    struct mu_http_local local;
    int answers, status;
    char text[64], header[64];
};

static void on_done(struct mu_http_local *l, int status, const struct mu_http_pair *headers,
                    size_t n, mu_bytes body)
{
    struct got *g = l->ctx;
    g->answers++;
    g->status = status;
    snprintf(g->text, sizeof g->text, "%.*s", MU_ARGS(body));
    if (n) {
        snprintf(g->header, sizeof g->header, "%s: %.*s", headers[0].name,
                 MU_ARGS(headers[0].value));
    }
}

static struct mu_loop *loop;

static struct got new_got(void)
{
    return (struct got){.local = {.loop = loop, .done = on_done}};
}

static void a_request_of_the_process_is_read_and_answered_like_any(void **state)
{
    struct got g = new_got();
    struct mu_http_req *req;
    g.local.ctx = &g;
    assert_int_equal(mu_http_local_open(&g.local,
                                        MU_B("POST /a/%62?x=1 HTTP/1.1\r\nHost: localhost\r\n"
                                             "X-Thing: 7\r\nContent-Length: 5\r\n\r\n"),
                                        MU_B("hello"), &req),
                     0);
    const struct mu_http_head *h = mu_http_req_head(req);
    assert_int_equal(h->method, MU_HTTP_POST);
    assert_true(mu_bytes_is(h->path, "/a/b"));
    assert_true(mu_bytes_is(h->query, "x=1"));
    assert_int_equal(h->content_length, 5);
    assert_true(mu_bytes_is(mu_http_header(h, "x-thing"), "7"));
    assert_true(mu_bytes_is(mu_http_req_body(req), "hello"));
    assert_ptr_equal(mu_http_req_loop(req), loop);
    assert_null(mu_http_listener_arg(req));
    assert_int_equal(mu_http_req_peer(req).len, 0);
    mu_http_req_on_gone(req, NULL); /* nobody goes away */
    assert_int_equal(g.answers, 0);
    const struct mu_http_pair pair = {"Content-Type", MU_B("text/plain")};
    mu_http_respond(req, 201, &pair, 1, MU_B("world"));
    assert_int_equal(g.answers, 1);
    assert_int_equal(g.status, 201);
    assert_string_equal(g.text, "world");
    assert_string_equal(g.header, "Content-Type: text/plain");
}

static void what_streams_has_no_way_to_go(void **state)
{
    static const struct mu_http_stream_ops ops;
    struct got g = new_got();
    struct mu_http_req *req;
    g.local.ctx = &g;
    assert_int_equal(
        mu_http_local_open(&g.local, MU_B("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), MU_B_NONE, &req),
        0);
    assert_null(mu_http_stream(req, 200, NULL, 0, -1, &ops, NULL));
    assert_int_equal(g.answers, 1);
    assert_int_equal(g.status, 0);
}

static void what_is_no_request_is_refused(void **state)
{
    static char long_line[9000];
    struct got g = new_got();
    struct mu_http_req *req;
    static const char *const bad[] = {"", "GET", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\n\r\n",
                                      "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n"};
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        assert_int_equal(mu_http_local_open(&g.local, mu_str(bad[i]), MU_B_NONE, &req),
                         MU_E_INVALID);
    }
    memset(long_line, 'a', sizeof long_line - 1);
    memcpy(long_line, "GET /", 5);
    assert_int_equal(mu_http_local_open(&g.local, mu_str(long_line), MU_B_NONE, &req),
                     MU_E_TOO_LARGE);
    assert_int_equal(g.answers, 0);
}

static void one_that_is_never_answered_can_be_dropped(void **state)
{
    struct got g = new_got();
    struct mu_http_req *req;
    assert_int_equal(
        mu_http_local_open(&g.local, MU_B("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), MU_B_NONE, &req),
        0);
    mu_http_local_drop(req);
    mu_http_local_drop(NULL);
    assert_int_equal(g.answers, 0);
}

static int open_one(void *arg)
{
    struct got g = new_got();
    struct mu_http_req *req;
    int r = mu_http_local_open(&g.local, MU_B("GET /a HTTP/1.1\r\nHost: a\r\n\r\n"), MU_B("body"),
                               &req);
    if (r == 0) {
        mu_http_local_drop(req);
    } else {
        assert_int_equal(r, -ENOMEM);
    }
    return r;
}

static void no_failing_allocation_leaks(void **state)
{
    each_allocation_fails(open_one, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_of_the_process_is_read_and_answered_like_any),
        cmocka_unit_test(what_streams_has_no_way_to_go),
        cmocka_unit_test(what_is_no_request_is_refused),
        cmocka_unit_test(one_that_is_never_answered_can_be_dropped),
        cmocka_unit_test(no_failing_allocation_leaks),
    };
    if (mu_loop_new(&mu_env_real, "test", &loop) < 0) {
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    mu_loop_free(loop);
    return failed;
}
