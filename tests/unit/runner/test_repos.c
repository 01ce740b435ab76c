#include "../unit.h"

#include <stdio.h>

#include "../alloc_fail.h"
#include "runner/repos.h"

static void expect(const char *line, const char *url, const char *branch, const char *name)
{
    struct mu_repos r;
    struct mu_err err;
    assert_int_equal(mu_repos_parse(mu_str(line), &r, &err), 0);
    assert_int_equal(r.n, 1);
    assert_string_equal(r.items[0].url, url);
    assert_string_equal(r.items[0].branch ? r.items[0].branch : "(none)",
                        branch ? branch : "(none)");
    assert_string_equal(r.items[0].name, name);
    mu_repos_fini(&r);
}

static void each_form_of_a_repository(void **state)
{
    (void)state;
    expect("o/r", "https://github.com/o/r.git", NULL, "r");
    expect("o/r.git", "https://github.com/o/r.git", NULL, "r");
    expect(" o/r#dev \r", "https://github.com/o/r.git", "dev", "r");
    expect("o/r#feature/x#1", "https://github.com/o/r.git", "feature/x#1", "r");
    expect("o/r#", "https://github.com/o/r.git", NULL, "r");
    expect("https://h.example:8443/a/b/c.git/", "https://h.example:8443/a/b/c.git/", NULL, "c");
    expect("git@h.example:o/r.git#v1.0", "git@h.example:o/r.git", "v1.0", "r");
    expect("git@h.example:r.git", "git@h.example:r.git", NULL, "r");
    expect("ssh://git@h/x.y", "ssh://git@h/x.y", NULL, "x.y");
    expect("/srv/git/r", "/srv/git/r", NULL, "r");
    expect("plain", "plain", NULL, "plain");
    expect("https://h/", "https://h/", NULL, "h");
}

static void refused(const char *line)
{
    struct mu_repos r;
    struct mu_err err = {0};
    assert_int_equal(mu_repos_parse(mu_str(line), &r, &err), MU_E_INVALID);
    assert_true(err.text[0]);
}

static void options_and_names_that_are_no_folder_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"-u",     "--upload-pack=x", "o/r#-x",        "o/-r",
                                      "o/..",   "https://h/..",    "o/.",           "o/.git",
                                      "o/.GIT", "o/.oz",           "o/r x",         "o/r\x01",
                                      "#x",     "o/r#a b",         "https://h/.git"};
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        refused(bad[i]);
    }
}

static void names_do_not_collide(void **state)
{
    (void)state;
    struct mu_repos r;
    struct mu_err err;
    assert_int_equal(mu_repos_parse(MU_B("a/x\n\nb/X\r\n c/x \nd/x-2\n"), &r, &err), 0);
    assert_int_equal(r.n, 4);
    assert_string_equal(r.items[0].name, "x");
    assert_string_equal(r.items[1].name, "X-2");
    assert_string_equal(r.items[2].name, "x-3");
    assert_string_equal(r.items[3].name, "x-2-2");
    mu_repos_fini(&r);
    assert_int_equal(mu_repos_parse(MU_B_NONE, &r, &err), 0);
    assert_int_equal(r.n, 0);
    mu_repos_fini(&r);
}

static void there_may_be_sixty_four(void **state)
{
    (void)state;
    char text[65 * 8 + 1] = "";
    for (int i = 0; i < MU_REPOS_MAX + 1; i++) {
        size_t n = strlen(text);
        snprintf(text + n, sizeof text - n, "o/r%03d\n", i);
    }
    refused(text);
    text[MU_REPOS_MAX * 7] = 0;
    struct mu_repos r;
    struct mu_err err;
    assert_int_equal(mu_repos_parse(mu_str(text), &r, &err), 0);
    assert_int_equal(r.n, MU_REPOS_MAX);
    mu_repos_fini(&r);
}

static int no_memory(void *arg)
{
    (void)arg;
    struct mu_repos r;
    struct mu_err err;
    int e = mu_repos_parse(MU_B("o/r#b\nx/r"), &r, &err);
    if (e == 0) {
        mu_repos_fini(&r);
    }
    return e;
}

static void memory_may_run_out_anywhere(void **state)
{
    (void)state;
    each_allocation_fails(no_memory, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_form_of_a_repository),
        cmocka_unit_test(options_and_names_that_are_no_folder_are_refused),
        cmocka_unit_test(names_do_not_collide),
        cmocka_unit_test(there_may_be_sixty_four),
        cmocka_unit_test(memory_may_run_out_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
