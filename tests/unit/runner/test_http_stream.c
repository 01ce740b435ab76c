#include "../unit.h"

#include <stdio.h>

#include "../alloc_fail.h"
#include "runner/http_stream.h"

/* Fed in pieces of `cut` bytes (0 = whole); what came of the body is in *body. 0 = it is whole. */
static int feed(const char *text, size_t cut, struct mu_buf *body, int *status)
{
    struct mu_http_stream s;
    mu_bytes all = mu_str(text), piece;
    mu_http_stream_init(&s);
    mu_buf_init(body, 1 << 20);
    int r = 0;
    while (all.len && !r && s.step != MU_HS_DONE) {
        mu_bytes in = mu_bytes_head(all, cut ? cut : all.len);
        all = mu_bytes_from(all, in.len);
        while (in.len && !r && s.step != MU_HS_DONE) {
            r = mu_http_stream_feed(&s, &in, &piece);
            mu_buf_add(body, piece);
        }
    }
    r = r || s.step == MU_HS_DONE ? r : mu_http_stream_end(&s);
    *status = s.status;
    mu_http_stream_fini(&s);
    return r;
}

static void answers_are_the_same_however_they_are_cut(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int status;
        const char *body;
    } cases[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, "hello"},
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloAND MORE", 200, "hello"},
        {"HTTP/1.0 200\r\n\r\nuntil the end", 200, "until the end"},
        {"HTTP/1.1 204 No Content\r\n\r\n", 204, ""},
        {"HTTP/1.1 404 Not Found\nContent-Length: 0\n\n", 404, ""},
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", 200, "x"},
        {"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n5;a=b\r\nhello\r\nA \r\n, "
         "world!!!\r\n"
         "0\r\nTrailer: x\r\n\r\n",
         200, "hello, world!!!"},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(cases); i++) {
        for (size_t cut = 0; cut < 40; cut++) {
            struct mu_buf body;
            int status;
            assert_int_equal(feed(cases[i].text, cut, &body, &status), 0);
            assert_int_equal(status, cases[i].status);
            assert_true(mu_bytes_is(mu_buf_bytes(&body), cases[i].body));
            mu_buf_fini(&body);
        }
    }
}

static void what_is_no_answer_or_half_of_one_is_an_error(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.1 20\r\n\r\n",
        "HTTP/1.1 2000\r\n\r\n",
        "HTTP/1.1 099 x\r\n\r\n",
        "SSH-2.0-x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1fffffffffffff\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        "HTTP/1.1 200 OK\r\n",
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(cases); i++) {
        for (size_t cut = 0; cut < 8; cut++) {
            struct mu_buf body;
            int status;
            assert_int_equal(feed(cases[i], cut, &body, &status), MU_E_PROTOCOL);
            mu_buf_fini(&body);
        }
    }
}

static void a_head_has_a_bound(void **state)
{
    (void)state;
    struct mu_http_stream s;
    mu_bytes piece, in = MU_B("HTTP/1.1 200 OK\r\n");
    mu_http_stream_init(&s);
    assert_int_equal(mu_http_stream_feed(&s, &in, &piece), 0);
    int r = 0, lines = 0;
    for (; !r && lines < 100000; lines++) {
        in = MU_B("X-Header: with some words\r\n");
        r = mu_http_stream_feed(&s, &in, &piece);
    }
    assert_int_equal(r, MU_E_TOO_LARGE);
    in = MU_B("more");
    assert_int_equal(mu_http_stream_feed(&s, &in, &piece), MU_E_PROTOCOL);
    assert_int_equal(mu_http_stream_end(&s), MU_E_PROTOCOL);
    mu_http_stream_fini(&s);
}

static int body(void *arg)
{
    struct mu_buf b;
    int status, r;
    (void)arg;
    r = feed("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 3, &b,
             &status);
    mu_buf_fini(&b);
    return r;
}

static void no_memory_is_an_error(void **state)
{
    (void)state;
    each_allocation_fails(body, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_the_same_however_they_are_cut),
        cmocka_unit_test(what_is_no_answer_or_half_of_one_is_an_error),
        cmocka_unit_test(a_head_has_a_bound),
        cmocka_unit_test(no_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
