#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "../alloc_fail.h"
#include "base/buf.h"
#include "proto/url.h"

static struct mu_arena arena;

static int setup(void **state)
{
    (void)state;
    mu_arena_init(&arena, 1 << 20);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mu_arena_fini(&arena);
    return 0;
}

static void assert_bytes(mu_bytes got, const char *want)
{
    if (!mu_bytes_is(got, want)) {
        fail_msg("got '%.*s', want '%s'", MU_ARGS(got), want);
    }
}

/* The text, or NULL when it does not decode. */
static mu_bytes decoded(mu_bytes text, bool form)
{
    mu_bytes out = MU_B_NONE;
    int r = mu_url_decode(&arena, text, form, &out);
    assert_int_equal(r, out.ptr ? 0 : MU_E_INVALID);
    return out;
}

static void escapes_decode(void **state)
{
    (void)state;
    assert_bytes(decoded(MU_B("a%20b+c%2Fd%c3%A4"), false), "a b+c/d\xc3\xa4");
    assert_bytes(decoded(MU_B("a%20b+c"), true), "a b c");
    assert_bytes(decoded(MU_B("%2B"), true), "+");
    assert_non_null(decoded(MU_B(""), true).ptr);
    const char *bad[] = {"%", "%4", "%4g", "%g4", "a%00b", "%-1", "% 1"};
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        assert_null(decoded(mu_str(bad[i]), false).ptr);
    }
}

static void encoding_escapes_all_but_unreserved(void **state)
{
    (void)state;
    struct mu_buf b;
    mu_buf_init(&b, 4096);
    char all[256];
    for (int i = 0; i < 256; i++) {
        all[i] = (char)i;
    }
    mu_url_encode(&b, mu_bytes_of(all + 1, 255));
    mu_bytes back = decoded(mu_buf_bytes(&b), false);
    assert_int_equal(back.len, 255);
    assert_memory_equal(back.ptr, all + 1, 255);
    mu_buf_clear(&b);
    mu_url_encode(&b, MU_B("aZ09-._~ /\xc3\xa4"));
    assert_bytes(mu_buf_bytes(&b), "aZ09-._~%20%2F%C3%A4");
    mu_buf_fini(&b);
}

static void paths_are_normalised_once(void **state)
{
    (void)state;
    const struct {
        const char *raw, *want;
    } t[] = {
        {"/", "/"},
        {"/a/b", "/a/b"},
        {"/a%20b", "/a b"},
        {"/./a/./b/.", "/a/b/"},
        {"/.", "/"},
        {"/%2e/a", "/a"},
        {"/a//b/", "/a//b/"},
        {"//", "//"},
        {"/...", "/..."},
        {"/.a/b.", "/.a/b."},
        {"/%C3%A4", "/\xc3\xa4"},
        {"/%252e%252e", "/%2e%2e"},
        {"/a:b@c;d=e,f+g", "/a:b@c;d=e,f+g"},
        {"/%3f%23", "/?#"},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(t); i++) {
        mu_bytes p = MU_B_NONE;
        assert_int_equal(mu_url_path(&arena, mu_str(t[i].raw), &p), 0);
        assert_bytes(p, t[i].want);
    }
}

static void unsafe_paths_are_refused(void **state)
{
    (void)state;
    const char *bad[] = {"",          "a",        "a/b",       "*",     "/..",    "/a/..",
                         "/../a",     "/%2e%2e/", "/.%2E/a",   "/a\\b", "/a%5cb", "/a%2Fb",
                         "/%00",      "/%1f",     "/%7f",      "/a b",  "/\x01",  "/\x7f",
                         "/\xc3\xa4", "/%ff",     "/%c0%af",   "/%",    "/%a",    "/%zz",
                         "/a?b",      "/a#b",     "/%ed%a0%80"};
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        mu_bytes p = MU_B("untouched");
        if (mu_url_path(&arena, mu_str(bad[i]), &p) != MU_E_INVALID) {
            fail_msg("'%s' was taken", bad[i]);
        }
        assert_bytes(p, "untouched");
    }
}

static void query_pairs_are_walked(void **state)
{
    (void)state;
    mu_bytes rest = MU_B("a=1&&b&c=x%3Dy=z+w&=v&bad=%zz&%zz=b&d="), k, v;
    const char *want[][2] = {{"a", "1"}, {"b", ""}, {"c", "x=y=z w"}, {"", "v"}};
    for (size_t i = 0; i < MU_ARRAY_LEN(want); i++) {
        assert_int_equal(mu_url_query_next(&arena, &rest, &k, &v), 1);
        assert_bytes(k, want[i][0]);
        assert_bytes(v, want[i][1]);
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(mu_url_query_next(&arena, &rest, &k, &v), MU_E_INVALID);
        assert_bytes(v, "v"); /* untouched */
    }
    assert_int_equal(mu_url_query_next(&arena, &rest, &k, &v), 1);
    assert_bytes(k, "d");
    assert_int_equal(mu_url_query_next(&arena, &rest, &k, &v), 0);
    rest = MU_B_NONE;
    assert_int_equal(mu_url_query_next(&arena, &rest, &k, &v), 0);
    rest = MU_B("");
    assert_int_equal(mu_url_query_next(&arena, &rest, &k, &v), 0);
}

static void absolute_urls_parse(void **state)
{
    (void)state;
    const struct {
        const char *text, *host, *path, *query;
        unsigned port;
        bool user;
    } t[] = {
        {"http://example.test", "example.test", "/", "", 80, false},
        {"HTTPS://example.test:8443/a/b?c=d#e", "example.test", "/a/b", "c=d", 8443, false},
        {"http://[::1]:7/x", "::1", "/x", "", 7, false},
        {"https://[fe80::1]", "fe80::1", "/", "", 443, false},
        {"http://h?q", "h", "/", "q", 80, false},
        {"http://h#f?q", "h", "/", "", 80, false},
        {"http://u:p@h/", "h", "/", "", 80, true},
        {"http://u@x@h/a@b", "h", "/a@b", "", 80, true},
        {"http://127.0.0.1:65535/?", "127.0.0.1", "/", "", 65535, false},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(t); i++) {
        struct mu_url u;
        struct mu_err err;
        assert_int_equal(mu_url_parse(mu_str(t[i].text), &u, &err), 0);
        assert_bytes(u.host, t[i].host);
        assert_bytes(u.path, t[i].path);
        assert_bytes(u.query, t[i].query);
        assert_int_equal(u.port, t[i].port);
        assert_int_equal(u.has_userinfo, t[i].user);
    }
}

static void other_urls_are_refused_with_words(void **state)
{
    (void)state;
    const char *bad[] = {"",
                         "example.test",
                         "ftp://a/",
                         "file:///etc/passwd",
                         "://a",
                         "http:/a",
                         "http://",
                         "http:///a",
                         "http://:80/",
                         "http://a:0/",
                         "http://a:65536/",
                         "http://a:99999999999/",
                         "http://a:/",
                         "http://a:8x/",
                         "http://a:-1/",
                         "http://a b/",
                         "http://a\\@b/",
                         "http://a/\n",
                         "http://\xc3\xa4/",
                         "http://[::1/",
                         "http://[]/",
                         "http://[::1]x/",
                         "http://[::g]/",
                         "http://a%41/",
                         "http://a,b/",
                         "http://u@/"};
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        struct mu_url u;
        struct mu_err err = {0};
        if (mu_url_parse(mu_str(bad[i]), &u, &err) != MU_E_INVALID) {
            fail_msg("'%s' was taken", bad[i]);
        }
        assert_true(err.text[0] != 0);
        assert_int_equal(mu_url_parse(mu_str(bad[i]), &u, NULL), MU_E_INVALID);
    }
}

static int decode_path(void *arg)
{
    mu_bytes p = MU_B_NONE;
    (void)arg;
    mu_arena_fini(&arena);
    int r = mu_url_path(&arena, MU_B("/a"), &p);
    assert_int_equal(r, p.ptr ? 0 : -ENOMEM);
    return r;
}

static int walk_query(void *arg)
{
    mu_bytes k = MU_B_NONE, v = MU_B_NONE, rest = MU_B("a=b");
    (void)arg;
    mu_arena_fini(&arena);
    int r = mu_url_query_next(&arena, &rest, &k, &v);
    assert_int_equal(r, v.ptr ? 1 : -ENOMEM);
    return r;
}

static void no_memory_is_told(void **state)
{
    (void)state;
    each_allocation_fails(decode_path, NULL);
    each_allocation_fails(walk_query, NULL);
    mu_alloc_fail_at(1);
    mu_arena_fini(&arena);
    int path = decode_path(NULL);
    mu_alloc_fail_at(1);
    int query = walk_query(NULL);
    mu_alloc_fail_at(0);
    assert_int_equal(path, -ENOMEM);
    assert_int_equal(query, -ENOMEM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(escapes_decode),
        cmocka_unit_test(encoding_escapes_all_but_unreserved),
        cmocka_unit_test(paths_are_normalised_once),
        cmocka_unit_test(unsafe_paths_are_refused),
        cmocka_unit_test(query_pairs_are_walked),
        cmocka_unit_test(absolute_urls_parse),
        cmocka_unit_test(other_urls_are_refused_with_words),
        cmocka_unit_test(no_memory_is_told),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
