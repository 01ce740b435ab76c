#include "../unit.h"

#include <stdio.h>

#include "runner/extract.h"

static void expect_prs(const char *text, const char *want)
{
    mu_bytes prs[MU_EXTRACT_PRS];
    char line[4096] = "";
    size_t n = mu_extract_prs(mu_str(text), prs);
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
    mu_bytes link = mu_extract_session(mu_str(text));
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
    expect_link("no such word https://x/", "");
    expect_link("session", "");
    expect_link("", "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pull_requests_in_order_and_once),
        cmocka_unit_test(what_only_looks_like_one_is_none),
        cmocka_unit_test(the_session_link_is_the_first_behind_the_word),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
