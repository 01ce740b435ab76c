#include "../unit.h"

#include <errno.h>

#include "../alloc_fail.h"
#include "runner/http.h"

static void expect_url(const char *text, bool tls, const char *host, const char *port,
                       const char *path)
{
    struct mu_http_url u;
    assert_int_equal(mu_http_url_parse(mu_str(text), &u), 0);
    assert_int_equal(u.tls, tls);
    assert_string_equal(u.host, host);
    assert_string_equal(u.port, port);
    assert_string_equal(u.path, path);
}

static void addresses(void **state)
{
    (void)state;
    expect_url("http://h", false, "h", "80", "/");
    expect_url("https://h.example:8443/a/b?c=d#e", true, "h.example", "8443", "/a/b?c=d");
    expect_url("http://[::1]:8080/x", false, "::1", "8080", "/x");
    expect_url("https://[fe80::1]", true, "fe80::1", "443", "/");
    expect_url("http://h?q", false, "h", "80", "/?q");
    static const char *const bad[] = {"",
                                      "h",
                                      "ftp://h/",
                                      "http://",
                                      "http:///x",
                                      "http://h:0/",
                                      "http://h:65536/",
                                      "http://h:x/",
                                      "http://h:/",
                                      "http://u@h/",
                                      "http://u:p@h/",
                                      "http://h/a b",
                                      "http://h/\r\nX: y",
                                      "http://[::1",
                                      "http://[::1]x/",
                                      "HTTP://h/",
                                      "http://h\x7f/"};
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        struct mu_http_url u;
        assert_int_equal(mu_http_url_parse(mu_str(bad[i]), &u), MU_E_INVALID);
    }
    char deep[3000];
    memset(deep, 'a', sizeof deep);
    memcpy(deep, "http://h/", 9);
    struct mu_http_url u;
    assert_int_equal(mu_http_url_parse(mu_bytes_of(deep, sizeof deep), &u), MU_E_INVALID);
    assert_int_equal(mu_http_url_parse(mu_bytes_of(deep, 2000), &u), 0);
}

/* Every prefix is incomplete, the whole is complete, and gives this body. */
static void expect_answer(mu_bytes raw, bool needs_end, int status, const char *body)
{
    struct mu_http_answer a;
    struct mu_buf b;
    mu_buf_init(&b, 1 << 20);
    for (size_t i = 0; i < raw.len; i++) {
        int r = mu_http_answer_parse(mu_bytes_head(raw, i), false, &a, &b);
        assert_int_equal(r, 0);
        assert_false(a.complete);
        r = mu_http_answer_parse(mu_bytes_head(raw, i), true, &a, &b);
        assert_true(needs_end || r == MU_E_PROTOCOL);
    }
    assert_int_equal(mu_http_answer_parse(raw, needs_end, &a, &b), 0);
    assert_true(a.complete);
    assert_int_equal(a.status, status);
    mu_buf_add_char(&b, 0);
    assert_string_equal(b.ptr, body);
    mu_buf_fini(&b);
}

static void answers_in_each_framing(void **state)
{
    (void)state;
    expect_answer(MU_B("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), false, 200, "hello");
    expect_answer(MU_B("HTTP/1.1 404 Not Found\r\ncontent-length:0\r\n\r\n"), false, 404, "");
    expect_answer(MU_B("HTTP/1.1 204 No Content\r\n\r\n"), false, 204, "");
    expect_answer(
        MU_B("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 1\r\n\r\nx"),
        false, 201, "x");
    expect_answer(MU_B("HTTP/1.1 200 OK\r\nTransfer-Encoding: "
                       "chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n"),
                  false, 200, "abc0123456789");
}

static void an_answer_without_a_length_ends_with_the_connection(void **state)
{
    (void)state;
    struct mu_http_answer a;
    struct mu_buf b;
    mu_buf_init(&b, 1 << 20);
    assert_int_equal(mu_http_answer_parse(MU_B("HTTP/1.0 200 OK\r\n\r\nhello"), false, &a, &b), 0);
    assert_false(a.complete);
    assert_int_equal(mu_http_answer_parse(MU_B("HTTP/1.0 200 OK\r\n\r\nhello"), true, &a, &b), 0);
    assert_true(a.complete && mu_bytes_is(mu_buf_bytes(&b), "hello"));
    mu_buf_fini(&b);
}

static void what_is_no_answer_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "SSH-2.0-x\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "HTTP/1.1 099 X\r\n\r\n",
        "HTTP/1.1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n",
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        struct mu_http_answer a;
        struct mu_buf b;
        mu_buf_init(&b, 1 << 20);
        assert_int_equal(mu_http_answer_parse(mu_str(bad[i]), false, &a, &b), MU_E_PROTOCOL);
        mu_buf_fini(&b);
    }
}

static void a_body_that_is_too_large_is_an_error(void **state)
{
    (void)state;
    struct mu_http_answer a;
    struct mu_buf b;
    mu_buf_init(&b, 4);
    assert_int_equal(mu_http_answer_parse(MU_B("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
                                          false, &a, &b),
                     MU_E_TOO_LARGE);
    mu_buf_fini(&b);
}

static int no_memory(void *arg)
{
    (void)arg;
    struct mu_http_answer a;
    struct mu_buf b;
    mu_buf_init(&b, 1 << 20);
    int r = mu_http_answer_parse(
        MU_B("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"), false, &a,
        &b);
    mu_buf_fini(&b);
    return r;
}

static void memory_may_run_out_anywhere(void **state)
{
    (void)state;
    each_allocation_fails(no_memory, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses),
        cmocka_unit_test(answers_in_each_framing),
        cmocka_unit_test(an_answer_without_a_length_ends_with_the_connection),
        cmocka_unit_test(what_is_no_answer_is_refused),
        cmocka_unit_test(a_body_that_is_too_large_is_an_error),
        cmocka_unit_test(memory_may_run_out_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
