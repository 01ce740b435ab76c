/* Files of secrets. */
#include "../unit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "../alloc_fail.h"
#include "io/folder.h"
#include "io/key_file.h"

#define SECRET "0123456789abcdef0123456789abcdef"

static char dir[64], path[80];

static int begin(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/mu-key-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/k", dir);
    return 0;
}

static int end(void **state)
{
    (void)state;
    mu_folder_remove(dir);
    return 0;
}

static void holds(const char *text)
{
    struct mu_buf b;
    mu_buf_init(&b, 4096);
    assert_int_equal(mu_key_file_read(path, &b, NULL), 0);
    assert_true(mu_bytes_is(mu_buf_bytes(&b), text));
    mu_buf_fini(&b);
}

static void refused(int code, const char *words)
{
    struct mu_buf b;
    struct mu_err err = {0};
    mu_buf_init(&b, 4096);
    assert_int_equal(mu_key_file_read(path, &b, &err), code);
    assert_int_equal(b.len, 0);
    assert_non_null(strstr(err.text, words));
    mu_buf_fini(&b);
}

static void one_is_replaced_only_when_that_is_meant(void **state)
{
    struct stat st;
    (void)state;
    assert_int_equal(mu_key_file_write(dir, "k", MU_B(SECRET "\n"), true), 0);
    assert_int_equal(mu_key_file_write(dir, "k", MU_B("two\n"), false), -EEXIST);
    holds(SECRET);
    assert_int_equal(mu_key_file_write(dir, "k", MU_B(" " SECRET "3 \n"), true), 0);
    holds(SECRET "3");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(mu_key_file_write("/nonexistent", "k", MU_B("x"), true), -ENOENT);
}

static void one_that_is_made_is_like_no_other(void **state)
{
    struct mu_buf one, two;
    (void)state;
    mu_buf_init(&one, 4096);
    mu_buf_init(&two, 4096);
    assert_int_equal(mu_key_file_make(&mu_env_real, dir, "k", "sk_"), 0);
    assert_int_equal(mu_key_file_make(&mu_env_real, dir, "k", "sk_"), -EEXIST);
    assert_int_equal(mu_key_file_read(path, &one, NULL), 0);
    assert_int_equal(one.len, 3 + 64);
    assert_memory_equal(one.ptr, "sk_", 3);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mu_key_file_make(&mu_env_real, dir, "k", "sk_"), 0);
    assert_int_equal(mu_key_file_read(path, &two, NULL), 0);
    assert_true(memcmp(one.ptr, two.ptr, one.len) != 0);
    mu_buf_fini(&one);
    mu_buf_fini(&two);
}

static void what_is_no_secret_is_refused_in_words(void **state)
{
    char large[5000];
    (void)state;
    refused(MU_E_NOT_FOUND, "");
    assert_int_equal(mu_key_file_write(dir, "k", MU_B("short\n"), true), 0);
    refused(MU_E_INVALID, "holds no key");
    assert_int_equal(mu_key_file_write(dir, "k", MU_B(SECRET "\0" SECRET), true), 0);
    refused(MU_E_INVALID, "NUL");
    memset(large, 'x', sizeof large);
    assert_int_equal(mu_key_file_write(dir, "k", mu_bytes_of(large, sizeof large), true), 0);
    refused(MU_E_TOO_LARGE, path);
    assert_int_equal(mu_key_file_write(dir, "k", MU_B(SECRET), true), 0);
    assert_int_equal(chmod(path, 0640), 0);
    refused(MU_E_INVALID, "can be read by others");
}

static int read_one(void *arg)
{
    struct mu_buf b;
    (void)arg;
    mu_buf_init(&b, 4096);
    int r = mu_key_file_read(path, &b, NULL);
    mu_buf_fini(&b);
    return r;
}

static void no_failing_allocation_leaks(void **state)
{
    (void)state;
    assert_int_equal(mu_key_file_write(dir, "k", MU_B(SECRET), true), 0);
    each_allocation_fails(read_one, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_is_replaced_only_when_that_is_meant, begin, end),
        cmocka_unit_test_setup_teardown(one_that_is_made_is_like_no_other, begin, end),
        cmocka_unit_test_setup_teardown(what_is_no_secret_is_refused_in_words, begin, end),
        cmocka_unit_test_setup_teardown(no_failing_allocation_leaks, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
