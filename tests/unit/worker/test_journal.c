#include "worker/journal.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "../alloc_fail.h"
#include "../unit.h"

static char dir[64], path[128];

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/muster-journal-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/journal", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    rmdir(dir);
    return 0;
}

static struct mu_journal *open_it(int64_t *lost)
{
    struct mu_journal *j = NULL;
    struct mu_err err = {0};
    assert_int_equal(mu_journal_open(path, &j, lost, &err), 0);
    return j;
}

static void expect(struct mu_journal *j, enum mu_journal_kind kind, const char *key,
                   const char *want)
{
    struct mu_buf b;
    mu_buf_init(&b, 1 << 20);
    int r = mu_journal_read(j, kind, mu_str(key), &b);
    if (want) {
        assert_int_equal(r, 0);
        assert_int_equal(b.len, strlen(want));
        assert_memory_equal(b.ptr, want, b.len);
    } else {
        assert_int_equal(r, MU_E_NOT_FOUND);
    }
    mu_buf_fini(&b);
}

static void put(struct mu_journal *j, enum mu_journal_kind kind, const char *key, const char *text)
{
    assert_int_equal(mu_journal_put(j, kind, mu_str(key), mu_str(text), true), 0);
}

static int64_t file_size(void)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

static void what_was_put_is_there_after_opening_again(void **state)
{
    (void)state;
    int64_t lost;
    struct mu_journal *j = open_it(&lost);
    put(j, MU_JOURNAL_START, "a", "first");
    put(j, MU_JOURNAL_END, "a", "end of a");
    put(j, MU_JOURNAL_START, "b", "old");
    put(j, MU_JOURNAL_START, "b", "");
    put(j, MU_JOURNAL_START, "c", "gone");
    assert_int_equal(mu_journal_remove(j, MU_B("c")), 0);
    mu_journal_close(j);
    j = open_it(&lost);
    assert_int_equal(lost, 0);
    expect(j, MU_JOURNAL_START, "a", "first");
    expect(j, MU_JOURNAL_END, "a", "end of a");
    expect(j, MU_JOURNAL_START, "b", "");
    expect(j, MU_JOURNAL_END, "b", NULL);
    expect(j, MU_JOURNAL_START, "c", NULL);
    mu_journal_close(j);
}

static void the_walk_tells_which_records_a_key_has(void **state)
{
    (void)state;
    int64_t lost;
    struct mu_journal *j = open_it(&lost);
    put(j, MU_JOURNAL_START, "a", "1");
    put(j, MU_JOURNAL_START, "b", "1");
    put(j, MU_JOURNAL_END, "b", "2");
    put(j, MU_JOURNAL_END, "c", "2");
    size_t at = 0, n = 0;
    bool start, end;
    for (mu_bytes k; (k = mu_journal_next(j, &at, &start, &end)).len; n++) {
        assert_int_equal(start, !mu_bytes_is(k, "c"));
        assert_int_equal(end, !mu_bytes_is(k, "a"));
    }
    assert_int_equal(n, 3);
    mu_journal_close(j);
}

/* Cut anywhere: every whole record is there, nothing else, and it goes on from there. */
static void a_torn_tail_loses_only_the_last_record(void **state)
{
    (void)state;
    int64_t lost;
    struct mu_journal *j = open_it(&lost);
    put(j, MU_JOURNAL_START, "a", "first");
    int64_t whole = file_size();
    put(j, MU_JOURNAL_END, "a", "the end that is torn");
    int64_t all = file_size();
    mu_journal_close(j);
    for (int64_t cut = whole; cut < all; cut++) {
        assert_int_equal(truncate(path, cut), 0);
        j = open_it(&lost);
        assert_int_equal(lost, cut - whole);
        expect(j, MU_JOURNAL_START, "a", "first");
        expect(j, MU_JOURNAL_END, "a", NULL);
        put(j, MU_JOURNAL_END, "a", "the end that is torn");
        mu_journal_close(j);
        j = open_it(&lost);
        assert_int_equal(lost, 0);
        expect(j, MU_JOURNAL_END, "a", "the end that is torn");
        mu_journal_close(j);
        assert_int_equal(file_size(), all);
    }
}

static void a_changed_byte_is_noticed(void **state)
{
    (void)state;
    int64_t lost;
    struct mu_journal *j = open_it(&lost);
    put(j, MU_JOURNAL_START, "a", "first");
    int64_t whole = file_size();
    put(j, MU_JOURNAL_END, "a", "second");
    int64_t all = file_size();
    mu_journal_close(j);
    for (int64_t at = whole; at < all; at++) {
        unsigned char c, d;
        int fd = open(path, O_RDWR);
        assert_int_equal(pread(fd, &c, 1, at), 1);
        d = c ^ 0x20;
        assert_int_equal(pwrite(fd, &d, 1, at), 1);
        j = open_it(&lost);
        assert_true(lost > 0);
        expect(j, MU_JOURNAL_START, "a", "first");
        expect(j, MU_JOURNAL_END, "a", NULL);
        put(j, MU_JOURNAL_END, "a", "second");
        mu_journal_close(j);
        close(fd);
    }
}

static void a_foreign_file_is_begun_anew(void **state)
{
    (void)state;
    int64_t lost;
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    assert_int_equal(write(fd, "something else", 14), 14);
    close(fd);
    struct mu_journal *j = open_it(&lost);
    assert_int_equal(lost, 14);
    put(j, MU_JOURNAL_START, "a", "x");
    mu_journal_close(j);
}

static void dead_records_are_compacted_away(void **state)
{
    (void)state;
    int64_t lost;
    struct mu_journal *j = open_it(&lost);
    char *big = malloc(300001);
    memset(big, 'x', 300000);
    big[300000] = 0;
    put(j, MU_JOURNAL_START, "stays", "kept");
    put(j, MU_JOURNAL_END, "stays", "kept too");
    for (int i = 0; i < 60; i++) {
        put(j, MU_JOURNAL_END, "big", big);
        assert_true(mu_journal_size(j) < 5000000);
        expect(j, MU_JOURNAL_START, "stays", "kept");
    }
    assert_int_equal(mu_journal_size(j), file_size());
    assert_true(mu_journal_live(j) < 301000);
    mu_journal_close(j);
    j = open_it(&lost);
    assert_int_equal(lost, 0);
    expect(j, MU_JOURNAL_START, "stays", "kept");
    expect(j, MU_JOURNAL_END, "stays", "kept too");
    mu_journal_close(j);
    free(big);
}

static void bad_keys_and_too_much_are_refused(void **state)
{
    (void)state;
    int64_t lost;
    struct mu_journal *j = open_it(&lost);
    char key[200];
    memset(key, 'k', sizeof key);
    assert_int_equal(mu_journal_put(j, MU_JOURNAL_START, MU_B(""), MU_B("x"), false), MU_E_INVALID);
    assert_int_equal(mu_journal_put(j, MU_JOURNAL_START, mu_bytes_of(key, 129), MU_B("x"), false),
                     MU_E_INVALID);
    assert_int_equal(mu_journal_put(j, MU_JOURNAL_GONE, MU_B("a"), MU_B("x"), false), MU_E_INVALID);
    char *big = malloc(MU_JOURNAL_MAX_RECORD);
    memset(big, 0, MU_JOURNAL_MAX_RECORD);
    assert_int_equal(mu_journal_put(j, MU_JOURNAL_END, MU_B("a"),
                                    mu_bytes_of(big, MU_JOURNAL_MAX_RECORD), false),
                     MU_E_LIMIT);
    assert_int_equal(mu_journal_remove(j, MU_B("unknown")), 0);
    expect(j, MU_JOURNAL_END, "a", NULL);
    mu_journal_close(j);
    free(big);
}

static int all_of_it(void *arg)
{
    (void)arg;
    struct mu_journal *j = NULL;
    struct mu_err err;
    struct mu_buf b;
    int64_t lost;
    if (mu_journal_open(path, &j, &lost, &err) < 0) {
        return -1;
    }
    mu_buf_init(&b, 100);
    int r = mu_journal_put(j, MU_JOURNAL_START, MU_B("a"), MU_B("x"), false);
    if (r == 0) {
        r = mu_journal_put(j, MU_JOURNAL_END, MU_B("b"), MU_B("y"), false);
    }
    if (r == 0) {
        r = mu_journal_read(j, MU_JOURNAL_END, MU_B("b"), &b);
    }
    if (r == 0) {
        r = mu_journal_remove(j, MU_B("b"));
    }
    mu_buf_fini(&b);
    mu_journal_close(j);
    return r;
}

static void any_allocation_may_fail(void **state)
{
    (void)state;
    each_allocation_fails(all_of_it, NULL);
    int64_t lost;
    struct mu_journal *j = open_it(&lost);
    assert_int_equal(lost, 0);
    expect(j, MU_JOURNAL_START, "a", "x");
    mu_journal_close(j);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {T(what_was_put_is_there_after_opening_again),
                                       T(the_walk_tells_which_records_a_key_has),
                                       T(a_torn_tail_loses_only_the_last_record),
                                       T(a_changed_byte_is_noticed),
                                       T(a_foreign_file_is_begun_anew),
                                       T(dead_records_are_compacted_away),
                                       T(bad_keys_and_too_much_are_refused),
                                       T(any_allocation_may_fail)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
