#include "../unit.h"

#include <stdio.h>

#include "base/err.h"
#include "proto/repo.h"

struct good {
    const char *text, *url, *ref, *name;
};

static void check(const struct good *g, bool plain)
{
    struct mu_repo_spec spec;
    const char *why = NULL;
    char url[300];
    if (mu_repo_spec_parse(mu_str(g->text), &spec, &why) < 0) {
        fail_msg("%s: %s", g->text, why);
    }
    snprintf(url, sizeof url, "%s%.*s%s", spec.before, MU_ARGS(spec.where), spec.after);
    assert_string_equal(url, g->url);
    if (!mu_bytes_is(spec.ref, g->ref) || !mu_bytes_is(spec.name, g->name) || spec.plain != plain) {
        fail_msg("%s: \"%.*s\" \"%.*s\" %d", g->text, MU_ARGS(spec.ref), MU_ARGS(spec.name),
                 spec.plain);
    }
}

static void a_repository_is_a_url_or_owner_and_name(void **state)
{
    (void)state;
    static const struct good good[] = {
        {"https://h.example/a/b.git", "https://h.example/a/b.git", "", "b"},
        {"https://h.example:8443/a/b/c.git/", "https://h.example:8443/a/b/c.git/", "", "c"},
        {"http://u:p@h/a", "http://u:p@h/a", "", "a"},
        {"https://h/", "https://h/", "", "h"},
        {"ssh://u@h.example:22/a/b/", "ssh://u@h.example:22/a/b/", "", "b"},
        {"git://h/x.y", "git://h/x.y", "", "x.y"},
        {"git@h.example:a/b.git#v1.0", "git@h.example:a/b.git", "v1.0", "b"},
        {"git@h.example:r.git", "git@h.example:r.git", "", "r"},
        {"o/r", "https://github.com/o/r.git", "", "r"},
        {"o/r.git", "https://github.com/o/r.git", "", "r"},
        {"  o/r#feature/x ", "https://github.com/o/r.git", "feature/x", "r"},
        {" o/r#dev \r", "https://github.com/o/r.git", "dev", "r"},
        {"o/r#feature/x#1", "https://github.com/o/r.git", "feature/x#1", "r"},
        {"o/r#", "https://github.com/o/r.git", "", "r"},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(good); i++) {
        check(&good[i], true);
    }
}

static void other_forms_are_for_git_to_judge(void **state)
{
    (void)state;
    static const struct good good[] = {
        {"/srv/git/r", "/srv/git/r", "", "r"},
        {"plain", "plain", "", "plain"},
        {"file:///srv/x.git#v1.0", "file:///srv/x.git", "v1.0", "x"},
        {"file://h/x", "file://h/x", "", "x"},
        {"ftp://h.example/a", "ftp://h.example/a", "", "a"},
        {"ext::id", "ext::id", "", "id"},
        {"git@h:a::b", "git@h:a::b", "", "b"},
        {"a/b/c", "https://github.com/a/b/c.git", "", "c"},
        {"../b", "https://github.com/../b.git", "", "b"},
        {"o/r@x", "https://github.com/o/r@x.git", "", "r@x"},
        {"https://h/\xc3\xbc", "https://h/\xc3\xbc", "", "\xc3\xbc"},
        {"https://h/a\\b/c", "https://h/a\\b/c", "", "c"},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(good); i++) {
        check(&good[i], false);
    }
}

static void what_is_none_is_refused_in_words(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        " ",
        "-u",
        "--upload-pack=x",
        "ext::sh -c id",
        "https://-oProxyCommand=x/y",
        "ssh://-oProxyCommand=x/y",
        "ssh://u@-oProxyCommand=x/y",
        "git@-oProxyCommand=x:y",
        "git@h.example",
        "https://h.example",
        "https:///x",
        "a/..",
        "o/.",
        "o/-r",
        "o/.git",
        "o/.GIT",
        "o/.oz",
        "o/.OZ.git",
        "https://h/..",
        "https://h/.git",
        "https://h.example/a/-x",
        "o/r x",
        "o/r\x01",
        "o/r\x7f",
        "https://h.example/a\nb",
        "#x",
        "o/r#-x",
        "o/r#/x",
        "o/r#.x",
        "o/r#x/",
        "o/r#x.",
        "o/r#a..b",
        "o/r#a//b",
        "o/r#a@{1}",
        "o/r#a b",
        "o/r#a\x01",
        "o/r#x.lock",
        "o/r#a:b",
        "o/r#a~1",
        "o/r#a^",
        "o/r#a*",
        "o/r#a?",
        "o/r#a[",
        "o/r#a\\b",
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        struct mu_repo_spec spec;
        const char *why = NULL;
        if (mu_repo_spec_parse(mu_str(bad[i]), &spec, &why) != MU_E_INVALID || !why) {
            fail_msg("accepted: %s", bad[i]);
        }
    }
}

static void every_part_has_a_length(void **state)
{
    (void)state;
    static char text[MU_REPO_TEXT + 100];
    struct mu_repo_spec spec;
    const char *why;
    for (int n = 190; n < 210; n++) {
        int len = snprintf(text, sizeof text, "o/%0*d", n, 0);
        assert_int_equal(mu_repo_spec_parse(mu_bytes_of(text, (size_t)len), &spec, &why) == 0,
                         n <= MU_REPO_NAME);
        len = snprintf(text, sizeof text, "o/r#%0*d", n, 0);
        assert_int_equal(mu_repo_spec_parse(mu_bytes_of(text, (size_t)len), &spec, &why), 0);
        assert_int_equal(spec.plain, n <= MU_REPO_REF);
    }
    for (int n = MU_REPO_TEXT - 30; n < MU_REPO_TEXT + 10; n++) {
        int len = snprintf(text, sizeof text, "https://h/%0*d/x", n, 0);
        assert_int_equal(mu_repo_spec_parse(mu_bytes_of(text, (size_t)len), &spec, &why) == 0,
                         len <= MU_REPO_TEXT);
        assert_true(len > MU_REPO_TEXT || !spec.plain);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_repository_is_a_url_or_owner_and_name),
        cmocka_unit_test(other_forms_are_for_git_to_judge),
        cmocka_unit_test(what_is_none_is_refused_in_words),
        cmocka_unit_test(every_part_has_a_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
