#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>

#include "../alloc_fail.h"
#include "base/buf.h"
#include "fetch_server.h"
#include "net/fetch.h"

struct bench {
    struct mu_loop *loop;
    struct mu_fetcher *fetcher;
    struct mu_timer guard;
    int running;
};

struct call {
    struct bench *bench;
    struct mu_fetch *fetch;
    struct mu_fetch_request req;
    struct mu_fetch_result result;
    struct mu_buf body;
    int status_in_body, done, pieces;
    bool in_start;
    size_t refuse_after; /* body_fn returns -1 from then on */
    size_t abort_after;  /* body_fn calls abort */
    struct call *abort_other, *start_next;
    int64_t took_ms;
};

static void overdue(struct mu_timer *t MU_UNUSED)
{
    MU_CHECK(!"a fetch did not end");
}

static void begin(struct bench *b, long max)
{
    *b = (struct bench){0};
    assert_int_equal(mu_loop_new(&mu_env_real, "test", &b->loop), 0);
    assert_int_equal(mu_fetcher_new(b->loop, max, &b->fetcher), 0);
    mu_timer_init(&b->guard, b->loop, overdue);
    assert_int_equal(mu_timer_set(&b->guard, 60000), 0);
}

static void end(struct bench *b)
{
    assert_null(mu_fetcher_free(b->fetcher));
    mu_timer_clear(&b->guard);
    mu_loop_free(b->loop);
}

static void start(struct call *c);

static int on_body(void *arg, int status, mu_bytes piece)
{
    struct call *c = arg;
    assert_int_equal(c->done, 0);
    c->status_in_body = status;
    c->pieces++;
    mu_buf_add(&c->body, piece);
    if (c->abort_other) {
        mu_fetch_real.abort(c->abort_other->fetch);
        c->abort_other = NULL;
    }
    if (c->start_next) {
        start(c->start_next);
        c->start_next = NULL;
    }
    if (c->abort_after && c->body.len >= c->abort_after) {
        assert_true(c->body.len - piece.len < c->abort_after); /* no call after the abort */
        mu_fetch_real.abort(c->fetch);
        mu_fetch_real.abort(c->fetch);
    }
    return c->refuse_after && c->body.len >= c->refuse_after ? -1 : 0;
}

static void on_done(void *arg, const struct mu_fetch_result *result)
{
    struct call *c = arg;
    assert_false(c->in_start);
    assert_non_null(result->text);
    c->result = *result;
    c->done++;
    c->took_ms = mu_env_mono_ms(&mu_env_real) - c->took_ms;
    if (--c->bench->running == 0) {
        mu_loop_stop(c->bench->loop);
    }
}

static void start(struct call *c)
{
    c->bench->running++;
    c->in_start = true;
    c->req.method = c->req.method ? c->req.method : "GET";
    c->req.body_fn = on_body;
    c->req.done = on_done;
    c->req.arg = c;
    mu_buf_init(&c->body, 32 << 20);
    c->took_ms = mu_env_mono_ms(&mu_env_real);
    assert_int_equal(mu_fetch_real.start(c->bench->fetcher, &c->req, &c->fetch), 0);
    c->in_start = false;
}

static const char *url_of(const struct server *s, const char *path)
{
    static char url[128];
    snprintf(url, sizeof url, "http://127.0.0.1:%d%s", s->port, path);
    return url;
}

/* One fetch of `path` from a fresh server. c->body is freed by the caller. */
static void fetch_path(struct call *c, const char *path)
{
    struct server *s = server_start(0);
    struct bench b;
    begin(&b, 0);
    c->bench = &b;
    c->req.url = url_of(s, path);
    start(c);
    mu_loop_run(b.loop);
    end(&b);
    server_stop(s);
    server_free(s);
    assert_int_equal(c->done, 1);
}

static void fetch_url(struct call *c, const char *url)
{
    struct bench b;
    begin(&b, 0);
    c->bench = &b;
    c->req.url = url;
    start(c);
    mu_loop_run(b.loop);
    end(&b);
    assert_int_equal(c->done, 1);
}

static void assert_body(struct call *c, const char *want)
{
    assert_true(mu_bytes_is(mu_buf_bytes(&c->body), want));
    mu_buf_fini(&c->body);
}

/* --- whole answers --- */

static void every_whole_answer_is_ok_whatever_its_status(void **state MU_UNUSED)
{
    static const struct {
        const char *path, *body;
        int status;
        bool json, event_stream;
    } rows[] = {
        {"/ok", "hello", 200, false, false},
        {"/empty", "", 204, false, false},
        {"/until-close", "all of it", 200, false, false},
        {"/dribble", "abcdefghijklmnopqrst", 200, false, false},
        {"/moved", "", 302, false, false},
        {"/nowhere", "", 404, false, false},
        {"/html", "<html></html>", 200, false, false},
        {"/sse", "data: x\n\n", 200, false, true},
        {"/busy", "\"no\"", 429, true, false},
        {"/continue", "final", 200, false, false},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        struct call c = {.req.idle_ms = 5000, .req.first_byte_ms = 5000};
        fetch_path(&c, rows[i].path);
        assert_int_equal(c.result.end, MU_FETCH_OK);
        assert_int_equal(c.result.status, rows[i].status);
        assert_int_equal(c.result.json, rows[i].json);
        assert_int_equal(c.result.event_stream, rows[i].event_stream);
        assert_true(c.result.first_byte_ms >= 0);
        assert_int_equal(c.status_in_body, rows[i].body[0] ? rows[i].status : 0);
        assert_body(&c, rows[i].body);
    }
}

static void retry_after_is_read_as_seconds_and_as_a_date(void **state MU_UNUSED)
{
    struct call c = {0};
    fetch_path(&c, "/busy");
    assert_int_equal(c.result.retry_after_ms, 7000);
    mu_buf_fini(&c.body);
    c = (struct call){0};
    fetch_path(&c, "/busy-date");
    assert_int_equal(c.result.status, 429);
    assert_in_range(c.result.retry_after_ms, 60000, 100000);
    mu_buf_fini(&c.body);
    const char *none[] = {"/busy-odd", "/ok", "/continue"};
    for (size_t i = 0; i < MU_ARRAY_LEN(none); i++) {
        c = (struct call){0};
        fetch_path(&c, none[i]);
        assert_int_equal(c.result.retry_after_ms, -1);
        mu_buf_fini(&c.body);
    }
}

static void the_request_is_what_was_asked_for(void **state MU_UNUSED)
{
    const char *const headers[] = {"X-One: 1", "Authorization: Bearer abc", NULL};
    struct call c = {.req.method = "POST", .req.headers = headers, .req.body = MU_B("{\"a\":1}")};
    fetch_path(&c, "/echo");
    mu_buf_add_char(&c.body, 0);
    const char *text = c.body.ptr;
    assert_int_equal(strncmp(text, "POST /echo HTTP/1.1\r\n", 21), 0);
    assert_non_null(strstr(text, "\r\nX-One: 1\r\n"));
    assert_non_null(strstr(text, "\r\nAuthorization: Bearer abc\r\n"));
    assert_non_null(strstr(text, "\r\nUser-Agent: muster/" MU_VERSION "\r\n"));
    assert_non_null(strstr(text, "\r\nContent-Length: 7\r\n"));
    assert_non_null(strstr(text, "\r\n\r\n{\"a\":1}"));
    assert_null(strstr(text, "Content-Type"));
    assert_null(strstr(text, "Expect"));
    mu_buf_fini(&c.body);

    c = (struct call){.req.method = "DELETE"};
    fetch_path(&c, "/echo");
    assert_true(mu_bytes_starts(mu_buf_bytes(&c.body), MU_B("DELETE /echo HTTP/1.1\r\n")));
    mu_buf_fini(&c.body);
}

static void what_would_smuggle_a_header_is_refused(void **state MU_UNUSED)
{
    struct bench b;
    struct mu_fetch *f;
    const char *const bad[] = {"X: a\r\nY: b", NULL};
    struct mu_fetch_request req = {
        .method = "GET", .url = "http://127.0.0.1:1/", .headers = bad, .done = on_done};
    begin(&b, 0);
    assert_int_equal(mu_fetch_real.start(b.fetcher, &req, &f), MU_E_INVALID);
    req.headers = NULL;
    req.method = "GET /x HTTP/1.1\r\nX: y";
    assert_int_equal(mu_fetch_real.start(b.fetcher, &req, &f), MU_E_INVALID);
    req.method = "";
    assert_int_equal(mu_fetch_real.start(b.fetcher, &req, &f), MU_E_INVALID);
    end(&b);
}

static void a_proxy_variable_is_honoured(void **state MU_UNUSED)
{
    struct server *s = server_start(0);
    struct call c = {0};
    setenv("http_proxy", url_of(s, ""), 1);
    fetch_url(&c, "http://nowhere.invalid/ok");
    unsetenv("http_proxy");
    server_stop(s);
    assert_int_equal(c.result.end, MU_FETCH_OK);
    assert_body(&c, "hello");
    assert_int_equal(strncmp(s->last, "GET http://nowhere.invalid/ok HTTP/1.1\r\n", 40), 0);
    server_free(s);
}

/* --- what goes wrong --- */

static void each_way_to_fail_has_its_own_result(void **state MU_UNUSED)
{
    static const struct {
        const char *path;
        struct mu_fetch_request limits;
        enum mu_fetch_end end;
        int status;
        const char *body; /* NULL = not looked at */
        long min_ms;
    } rows[] = {
        {"/stall", {.idle_ms = 200}, MU_FETCH_STALLED, 200, "some", 200},
        {"/slow", {.idle_ms = 5000, .total_ms = 300}, MU_FETCH_STALLED, 200, NULL, 300},
        {"/slow", {.idle_ms = 300, .total_ms = 900}, MU_FETCH_STALLED, 200, NULL, 900},
        {"/silent", {.first_byte_ms = 200, .idle_ms = 50}, MU_FETCH_TIMEOUT, 0, "", 200},
        {"/silent", {.total_ms = 200}, MU_FETCH_TIMEOUT, 0, "", 200},
        {"/silent", {.connect_ms = 50, .total_ms = 400}, MU_FETCH_TIMEOUT, 0, "", 400},
        {"/hang-up", {0}, MU_FETCH_BROKEN, 0, "", 0},
        {"/cut", {.idle_ms = 5000}, MU_FETCH_BROKEN, 200, "some", 0},
        {"/cut-chunk", {.idle_ms = 5000}, MU_FETCH_BROKEN, 200, NULL, 0},
        {"/bad-chunk", {.idle_ms = 5000}, MU_FETCH_BROKEN, 200, NULL, 0},
        {"/garbage", {.idle_ms = 5000}, MU_FETCH_BROKEN, 0, "", 0},
        {"/huge", {.max_bytes = 100000}, MU_FETCH_TOO_LARGE, 200, NULL, 0},
        {"/headers", {.idle_ms = 5000}, MU_FETCH_BROKEN, 200, "", 0},
        {"/ok", {.max_bytes = 4}, MU_FETCH_TOO_LARGE, 200, "hell", 0},
        {"/ok", {.max_bytes = 5}, MU_FETCH_OK, 200, "hello", 0},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        struct call c = {.req = rows[i].limits};
        fetch_path(&c, rows[i].path);
        if (c.result.end != rows[i].end || c.result.status != rows[i].status) {
            print_error("%s: end %d, status %d, %s\n", rows[i].path, (int)c.result.end,
                        c.result.status, c.result.text);
        }
        assert_int_equal(c.result.end, rows[i].end);
        assert_int_equal(c.result.status, rows[i].status);
        assert_true(c.took_ms >= rows[i].min_ms - 1 && c.took_ms < 20000);
        if (rows[i].end == MU_FETCH_TOO_LARGE) {
            assert_int_equal(c.body.len, rows[i].limits.max_bytes);
        }
        assert_true(!rows[i].body || mu_bytes_is(mu_buf_bytes(&c.body), rows[i].body));
        assert_true((c.result.text[0] == 0) == (c.result.end == MU_FETCH_OK));
        assert_null(strstr(c.result.text, "127.0.0.1"));
        mu_buf_fini(&c.body);
    }
}

static void a_refused_connection_is_told(void **state MU_UNUSED)
{
    int port;
    char url[64];
    close(listen_local(1, &port));
    snprintf(url, sizeof url, "http://127.0.0.1:%d/", port);
    struct call c = {.req.total_ms = 20000};
    fetch_url(&c, url);
    assert_int_equal(c.result.end, MU_FETCH_CONNECT);
    assert_int_equal(c.result.status, 0);
    assert_int_equal(c.result.first_byte_ms, -1);
    assert_body(&c, "");
}

static void a_connection_that_is_never_accepted_is_given_up(void **state MU_UNUSED)
{
    /* With a full backlog the kernel drops further connection requests. */
    int port, fill[8];
    char url[64];
    int fd = listen_local(0, &port);
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (size_t i = 0; i < MU_ARRAY_LEN(fill); i++) {
        fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        connect(fill[i], (struct sockaddr *)&a, sizeof a);
    }
    snprintf(url, sizeof url, "http://127.0.0.1:%d/", port);
    struct call c = {.req.connect_ms = 300, .req.first_byte_ms = 20000};
    fetch_url(&c, url);
    assert_int_equal(c.result.end, MU_FETCH_CONNECT);
    assert_in_range(c.took_ms, 299, 15000);
    assert_body(&c, "");
    for (size_t i = 0; i < MU_ARRAY_LEN(fill); i++) {
        close(fill[i]);
    }
    close(fd);
}

static void a_name_that_does_not_exist_is_a_connect_failure(void **state MU_UNUSED)
{
    struct call c = {.req.connect_ms = 5000};
    fetch_url(&c, "http://no-such-host.invalid/");
    assert_int_equal(c.result.end, MU_FETCH_CONNECT);
    assert_null(strstr(c.result.text, "no-such-host"));
    assert_body(&c, "");
}

static void only_http_and_https_are_spoken(void **state MU_UNUSED)
{
    const char *const urls[] = {"file:///etc/passwd",  "ftp://127.0.0.1/x",
                                "gopher://127.0.0.1/", "http://",
                                "not a url",           ""};
    for (size_t i = 0; i < MU_ARRAY_LEN(urls); i++) {
        struct call c = {0};
        fetch_url(&c, urls[i]);
        assert_int_equal(c.result.end, MU_FETCH_FAILED);
        assert_body(&c, "");
    }
}

static void a_certificate_that_nobody_vouches_for_is_refused(void **state MU_UNUSED)
{
    struct server *s = server_start(1);
    struct call c = {.req.total_ms = 20000};
    char url[64];
    snprintf(url, sizeof url, "https://localhost:%d/ok", s->port);
    fetch_url(&c, url);
    server_stop(s);
    assert_int_equal(c.result.end, MU_FETCH_TLS);
    assert_int_equal(c.result.status, 0);
    assert_int_equal(atomic_load(&s->requests), 0);
    assert_int_equal(s->n, 1);
    assert_body(&c, "");
    server_free(s);
}

/* --- aborting --- */

static void aborting_in_body_fn_ends_it_at_once(void **state MU_UNUSED)
{
    struct call c = {.abort_after = 1000};
    fetch_path(&c, "/huge");
    assert_int_equal(c.result.end, MU_FETCH_ABORTED);
    assert_int_equal(c.result.status, 200);
    mu_buf_fini(&c.body);
    c = (struct call){.refuse_after = 1000};
    fetch_path(&c, "/huge");
    assert_int_equal(c.result.end, MU_FETCH_ABORTED);
    mu_buf_fini(&c.body);
}

static void aborting_before_the_connection_asks_nobody(void **state MU_UNUSED)
{
    struct server *s = server_start(0);
    struct bench b;
    struct call c = {.bench = &b};
    begin(&b, 0);
    c.req.url = url_of(s, "/ok");
    start(&c);
    mu_fetch_real.abort(c.fetch);
    assert_int_equal(c.done, 0);
    mu_loop_run(b.loop);
    end(&b);
    server_stop(s);
    assert_int_equal(c.done, 1);
    assert_int_equal(c.result.end, MU_FETCH_ABORTED);
    assert_int_equal(atomic_load(&s->requests), 0);
    mu_buf_fini(&c.body);
    server_free(s);
}

static void aborting_and_starting_others_inside_body_fn_works(void **state MU_UNUSED)
{
    struct server *s = server_start(0);
    struct bench b;
    begin(&b, 0);
    char ok[128], silent[128];
    snprintf(ok, sizeof ok, "%s", url_of(s, "/ok"));
    snprintf(silent, sizeof silent, "%s", url_of(s, "/silent"));
    struct call other = {.bench = &b, .req.url = silent};
    struct call next = {.bench = &b, .req.url = ok};
    struct call c = {.bench = &b, .req.url = ok, .abort_other = &other, .start_next = &next};
    start(&other);
    start(&c);
    mu_loop_run(b.loop);
    end(&b);
    server_stop(s);
    assert_int_equal(c.result.end, MU_FETCH_OK);
    assert_int_equal(next.result.end, MU_FETCH_OK);
    assert_int_equal(other.result.end, MU_FETCH_ABORTED);
    assert_int_equal(c.done + next.done + other.done, 3);
    mu_buf_fini(&c.body);
    mu_buf_fini(&next.body);
    mu_buf_fini(&other.body);
    server_free(s);
}

static void a_name_being_resolved_can_be_abandoned_without_waiting(void **state MU_UNUSED)
{
    struct bench b;
    struct call c = {.bench = &b, .req.url = "http://no-such-host.invalid/", .req.total_ms = 1};
    begin(&b, 0);
    start(&c);
    mu_loop_run(b.loop);
    end(&b);
    assert_int_equal(c.done, 1);
    assert_true(c.result.end == MU_FETCH_TIMEOUT || c.result.end == MU_FETCH_CONNECT);
    assert_true(c.took_ms < 2000);
    mu_buf_fini(&c.body);
}

static void freeing_the_fetcher_aborts_what_runs_and_what_waits(void **state MU_UNUSED)
{
    struct server *s = server_start(0);
    struct bench b;
    struct call c[6] = {0};
    begin(&b, 2);
    mu_timer_clear(&b.guard);
    for (int i = 0; i < 6; i++) {
        c[i].bench = &b;
        c[i].req.url = url_of(s, i == 0 ? "/ok" : "/silent");
        start(&c[i]);
    }
    /* Until the first is through, so that some of the others wait for their answer. */
    b.running -= 5;
    mu_loop_run(b.loop);
    b.running += 5;
    assert_int_equal(c[0].result.end, MU_FETCH_OK);
    mu_fetch_real.abort(c[5].fetch);
    end(&b);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(c[i].done, 1);
        assert_int_equal(c[i].result.end, i ? MU_FETCH_ABORTED : MU_FETCH_OK);
        mu_buf_fini(&c[i].body);
    }
    server_stop(s);
    server_free(s);
    assert_null(mu_fetcher_free(NULL));
}

/* --- many --- */

static void many(int n, long max, int most_connections)
{
    struct server *s = server_start(0);
    struct bench b;
    struct call *c = calloc((size_t)n, sizeof *c);
    begin(&b, max);
    for (int i = 0; i < n; i++) {
        c[i].bench = &b;
        c[i].req.url = url_of(s, "/ok");
        c[i].req.first_byte_ms = 50000;
        start(&c[i]);
    }
    mu_loop_run(b.loop);
    end(&b);
    server_stop(s);
    for (int i = 0; i < n; i++) {
        assert_int_equal(c[i].done, 1);
        assert_int_equal(c[i].result.end, MU_FETCH_OK);
        assert_body(&c[i], "hello");
    }
    assert_int_equal(atomic_load(&s->requests), n);
    assert_in_range(s->n, 1, most_connections);
    free(c);
    server_free(s);
}

static void two_hundred_fetches_share_twenty_connections(void **state MU_UNUSED)
{
    many(200, 20, 20);
}

static void two_hundred_fetches_at_once_all_succeed(void **state MU_UNUSED)
{
    many(200, 0, 200);
}

static void waiting_for_a_connection_is_not_connecting(void **state MU_UNUSED)
{
    struct server *s = server_start(0);
    struct bench b;
    char silent[128];
    begin(&b, 1);
    snprintf(silent, sizeof silent, "%s", url_of(s, "/silent"));
    struct call first = {.bench = &b, .req.url = silent, .req.total_ms = 900};
    struct call c = {
        .bench = &b, .req.url = url_of(s, "/ok"), .req.connect_ms = 600, .req.first_byte_ms = 700};
    start(&first);
    start(&c);
    mu_loop_run(b.loop);
    end(&b);
    server_stop(s);
    assert_int_equal(first.result.end, MU_FETCH_TIMEOUT);
    assert_int_equal(c.result.end, MU_FETCH_OK);
    assert_true(c.took_ms >= 899);
    mu_buf_fini(&first.body);
    assert_body(&c, "hello");
    server_free(s);
}

static void fetches_in_a_row_reuse_one_connection(void **state MU_UNUSED)
{
    many(50, 1, 1);
}

/* --- memory --- */

static int alloc_body(void *arg MU_UNUSED, int status MU_UNUSED, mu_bytes piece MU_UNUSED)
{
    return 0;
}

struct alloc_case {
    struct mu_loop *loop;
    int done;
};

static void alloc_done(void *arg, const struct mu_fetch_result *result MU_UNUSED)
{
    struct alloc_case *a = arg;
    a->done++;
    mu_loop_stop(a->loop);
}

static int one_life(void *arg)
{
    struct alloc_case a = {0};
    struct mu_fetcher *fetcher = NULL;
    struct mu_fetch *f;
    int r = mu_loop_new(&mu_env_real, "test", &a.loop);
    if (r < 0) {
        return r;
    }
    r = mu_fetcher_new(a.loop, 0, &fetcher);
    if (r == 0) {
        struct mu_fetch_request req = {.method = "POST",
                                       .url = arg,
                                       .body = MU_B("x"),
                                       .first_byte_ms = 20000,
                                       .body_fn = alloc_body,
                                       .done = alloc_done,
                                       .arg = &a};
        r = mu_fetch_real.start(fetcher, &req, &f);
    }
    if (r == 0) {
        mu_loop_run(a.loop);
        assert_int_equal(a.done, 1);
    }
    mu_fetcher_free(fetcher);
    mu_loop_free(a.loop);
    return r;
}

static int open_fds(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (readdir(d)) {
        n++;
    }
    closedir(d);
    return n;
}

static void no_failing_allocation_leaks(void **state MU_UNUSED)
{
    int fds = open_fds();
    struct server *s = server_start(0);
    char url[128];
    snprintf(url, sizeof url, "%s", url_of(s, "/ok"));
    each_allocation_fails(one_life, url);
    server_stop(s);
    server_free(s);
    assert_int_equal(open_fds(), fds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_whole_answer_is_ok_whatever_its_status),
        cmocka_unit_test(retry_after_is_read_as_seconds_and_as_a_date),
        cmocka_unit_test(the_request_is_what_was_asked_for),
        cmocka_unit_test(what_would_smuggle_a_header_is_refused),
        cmocka_unit_test(a_proxy_variable_is_honoured),
        cmocka_unit_test(each_way_to_fail_has_its_own_result),
        cmocka_unit_test(a_refused_connection_is_told),
        cmocka_unit_test(a_connection_that_is_never_accepted_is_given_up),
        cmocka_unit_test(a_name_that_does_not_exist_is_a_connect_failure),
        cmocka_unit_test(only_http_and_https_are_spoken),
        cmocka_unit_test(a_certificate_that_nobody_vouches_for_is_refused),
        cmocka_unit_test(aborting_in_body_fn_ends_it_at_once),
        cmocka_unit_test(aborting_before_the_connection_asks_nobody),
        cmocka_unit_test(aborting_and_starting_others_inside_body_fn_works),
        cmocka_unit_test(a_name_being_resolved_can_be_abandoned_without_waiting),
        cmocka_unit_test(freeing_the_fetcher_aborts_what_runs_and_what_waits),
        cmocka_unit_test(two_hundred_fetches_share_twenty_connections),
        cmocka_unit_test(two_hundred_fetches_at_once_all_succeed),
        cmocka_unit_test(waiting_for_a_connection_is_not_connecting),
        cmocka_unit_test(fetches_in_a_row_reuse_one_connection),
        cmocka_unit_test(no_failing_allocation_leaks),
    };
    static const char *const proxies[] = {"http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy",
                                          "ALL_PROXY",  "no_proxy",    "NO_PROXY"};
    for (size_t i = 0; i < MU_ARRAY_LEN(proxies); i++) {
        unsetenv(proxies[i]);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
