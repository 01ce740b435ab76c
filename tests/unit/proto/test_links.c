#include "../unit.h"

#include <stdio.h>

#include "proto/links.h"

static void expect_prs(const char *text, const char *want)
{
    mu_bytes prs[MU_PULL_REQUESTS_MAX];
    char line[4096] = "";
    size_t n = mu_find_pull_requests(mu_str(text), prs);
    for (size_t i = 0; i < n; i++) {
        size_t at = strlen(line);
        snprintf(line + at, sizeof line - at, "%s%.*s", i ? " " : "", MU_ARGS(prs[i]));
    }
    assert_string_equal(line, want);
}

static void pull_requests_in_order_and_once(void **state)
{
    (void)state;
    expect_prs("x https://github.com/o/r/pull/1, https://github.com/o/r/pull/22/files "
               "(https://github.com/o/r/pull/1)",
               "https://github.com/o/r/pull/1 https://github.com/o/r/pull/22");
    expect_prs("https://github.com/o-_.9/r-_.9/pull/007",
               "https://github.com/o-_.9/r-_.9/pull/007");
    expect_prs("https://github.com/https://github.com/o/r/pull/3", "https://github.com/o/r/pull/3");
    expect_prs("", "");
}

static void at_most_a_hundred_pull_requests_are_found(void **state)
{
    (void)state;
    struct mu_buf b;
    mu_bytes prs[MU_PULL_REQUESTS_MAX];
    mu_buf_init(&b, 1 << 20);
    for (int i = 0; i < 300; i++) {
        mu_buf_printf(&b, "https://github.com/a/b/pull/%d ", i);
    }
    assert_int_equal(mu_find_pull_requests(mu_buf_bytes(&b), prs), MU_PULL_REQUESTS_MAX);
    assert_true(mu_bytes_is(prs[99], "https://github.com/a/b/pull/99"));
    mu_buf_fini(&b);
}

static void what_is_too_long_for_one_is_none(void **state)
{
    (void)state;
    expect_prs("https://github.com/o/r/pull/1234567890", "https://github.com/o/r/pull/1234567890");
    expect_prs("https://github.com/o/r/pull/12345678901", "");
    for (int name = 260; name < 280; name++) {
        struct mu_buf b;
        mu_bytes prs[MU_PULL_REQUESTS_MAX];
        mu_buf_init(&b, 4096);
        mu_buf_printf(&b, "https://github.com/o/%0*d/pull/1", name, 0);
        assert_int_equal(mu_find_pull_requests(mu_buf_bytes(&b), prs),
                         b.len <= MU_PULL_REQUEST_LEN);
        mu_buf_fini(&b);
    }
}

static void a_pull_request_is_written_in_whole_seconds(void **state)
{
    (void)state;
    struct mu_buf b;
    mu_buf_init(&b, 4096);
    struct mu_json_w w = mu_json_w(&b);
    mu_pull_request_write(&w, MU_B("https://github.com/a/b/pull/12"), MU_B_NONE, 1769860801999);
    mu_pull_request_write(&w, MU_B("u"), MU_B("fix/\"x\""), 0);
    assert_true(
        mu_bytes_is(mu_buf_bytes(&b),
                    "{\"artifact_type\":\"PULL_REQUEST\",\"created_at\":\"2026-01-31T12:00:01Z\","
                    "\"data\":{\"branch\":\"unknown\",\"url\":\"https://github.com/a/b/pull/12\"}},"
                    "{\"artifact_type\":\"PULL_REQUEST\",\"created_at\":\"1970-01-01T00:00:00Z\","
                    "\"data\":{\"branch\":\"fix/\\\"x\\\"\",\"url\":\"u\"}}"));
    mu_buf_fini(&b);
}

static void what_only_looks_like_one_is_none(void **state)
{
    (void)state;
    expect_prs(
        "https://github.com/o/r/pull/ https://github.com/o/r/pull/x https://github.com/o/pull/1 "
        "http://github.com/o/r/pull/1 https://github.com.x/o/r/pull/1 https://github.com//r/pull/1 "
        "https://github.com/o//pull/1 https://github.com/o/r/pulls/1 https://github.com/o "
        "r/x/pull/1 "
        "https://githubXcom/o/r/pull/1 https://github.com/o/r/pull",
        "");
}

static void expect_link(const char *text, const char *want)
{
    mu_bytes link = mu_find_session_link(mu_str(text));
    char got[256];
    snprintf(got, sizeof got, "%.*s", MU_ARGS(link));
    assert_string_equal(got, want);
}

static void the_session_link_is_the_first_behind_the_word(void **state)
{
    (void)state;
    expect_link("Session: https://x.example/a?b=c#d more", "https://x.example/a?b=c#d");
    expect_link("https://before/ mySESSIONs <http://x/y> https://z", "http://x/y");
    expect_link("session\nhttps://next.line/\nanother session https httpx://no http://yes/",
                "http://yes/");
    expect_link("session 'https://a/'b", "https://a/");
    expect_link("session \"https://a/\"", "https://a/");
    expect_link("session https:// http://\xc3\xbc/\r\n", "http://\xc3\xbc/");
    expect_link("Session: https://a.example/s/1?x=y.", "https://a.example/s/1?x=y.");
    expect_link("x\nyour SESSION is at <http://b.example/n>\n", "http://b.example/n");
    expect_link("https://a.example session", "");
    expect_link("session\nhttps://a.example", "");
    expect_link("the session \"https://a.example\"", "https://a.example");
    expect_link("session https://", "");
    expect_link("session http://a\x7f"
                "b",
                "http://a");
    expect_link("no such word https://x/", "");
    expect_link("session", "");
    expect_link("", "");
}

static void a_session_link_has_a_bounded_length(void **state)
{
    (void)state;
    for (int path = 2000; path < 2060; path++) {
        struct mu_buf b;
        mu_buf_init(&b, 4096);
        mu_buf_printf(&b, "session https://x/%0*d http://y/", path, 0);
        mu_bytes link = mu_find_session_link(mu_buf_bytes(&b));
        assert_int_equal(link.len, path + 10 <= 2048 ? path + 10 : 9);
        mu_buf_fini(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pull_requests_in_order_and_once),
        cmocka_unit_test(at_most_a_hundred_pull_requests_are_found),
        cmocka_unit_test(what_is_too_long_for_one_is_none),
        cmocka_unit_test(a_pull_request_is_written_in_whole_seconds),
        cmocka_unit_test(what_only_looks_like_one_is_none),
        cmocka_unit_test(the_session_link_is_the_first_behind_the_word),
        cmocka_unit_test(a_session_link_has_a_bounded_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
