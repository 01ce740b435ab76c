/* Recordings of terminals: files of records, read back by offset. */
#include "../unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/live/tape_int.h"

static char dir[64];
static struct mu_id session;
static struct mu_tape tape;

static int set_up(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/mu-tape-XXXXXX");
    assert_non_null(mkdtemp(dir));
    memcpy(session.text, "01234567-89ab-7def-8123-456789abcdef", sizeof session.text);
    mu_tape_init(&tape, dir, &session, 64 << 20);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    char cmd[128];
    mu_tape_close(&tape);
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    return system(cmd);
}

static void record(unsigned terminal, int64_t epoch, int64_t base, int64_t offset, mu_bytes bytes)
{
    struct mu_buf b;
    mu_buf_init(&b, 1 << 20);
    mu_tape_record(&b, terminal, epoch, 1000, base, offset, bytes);
    assert_int_equal(b.failed, 0);
    mu_tape_write(&tape, mu_buf_bytes(&b));
    mu_buf_fini(&b);
}

static void expect(unsigned terminal, int64_t from, size_t limit, int64_t begin, const char *text)
{
    struct mu_buf b;
    int64_t got = -1;
    mu_buf_init(&b, limit + 1);
    assert_int_equal(mu_tape_read(&tape, terminal, from, limit, &got, &b), 0);
    assert_int_equal(b.len, strlen(text));
    assert_memory_equal(b.ptr ? b.ptr : "", text, b.len);
    if (b.len) {
        assert_int_equal(got, begin);
    }
    mu_buf_fini(&b);
}

static void what_was_recorded_is_read_from_any_offset(void **state)
{
    (void)state;
    record(0, 1, 0, 0, MU_B("hello "));
    record(1, 1, 0, 0, MU_B("other"));
    record(0, 1, 0, 6, MU_B("world"));
    expect(0, 0, 100, 0, "hello world");
    expect(0, 3, 100, 3, "lo world");
    expect(0, 3, 4, 3, "lo w");
    expect(0, 11, 100, 11, "");
    expect(0, -1, 5, 6, "world");
    expect(0, -1, 100, 0, "hello world");
    expect(1, 0, 100, 0, "other");
    expect(2, 0, 100, 0, "");
}

static void a_hole_ends_a_read_and_the_next_begins_behind_it(void **state)
{
    (void)state;
    record(0, 1, 0, 0, MU_B("abc"));
    record(0, 1, 0, 10, MU_B("xyz"));
    expect(0, 0, 100, 0, "abc");
    expect(0, 3, 100, 10, "xyz");
    expect(0, 12, 100, 12, "z");
}

static void another_process_knows_where_an_attempt_began(void **state)
{
    (void)state;
    struct mu_recorded r;
    record(0, 1, 0, 0, MU_B("first"));
    record(0, 2, 5, 5, MU_B("second"));
    mu_tape_close(&tape);
    mu_tape_init(&tape, dir, &session, 64 << 20);
    mu_tape_range(&tape, 0, 2, &r);
    assert_int_equal(r.oldest, 0);
    assert_int_equal(r.newest, 11);
    assert_int_equal(r.base, 5);
    mu_tape_range(&tape, 0, 3, &r);
    assert_int_equal(r.base, -1);
    record(0, 2, 5, 11, MU_B("!"));
    expect(0, 5, 100, 5, "second!");
}

static void a_torn_record_is_passed_over(void **state)
{
    (void)state;
    char path[256];
    record(0, 1, 0, 0, MU_B("whole"));
    record(0, 1, 0, 5, MU_B("torn"));
    snprintf(path, sizeof path, "%s/%s/0-%016x.rec", dir, session.text, 0);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, st.st_size - 2), 0);
    mu_tape_close(&tape);
    mu_tape_init(&tape, dir, &session, 64 << 20);
    expect(0, 0, 100, 0, "whole");
    record(0, 1, 0, 5, MU_B("again"));
    expect(0, 0, 100, 0, "wholeagain");
}

static void old_pieces_go_and_the_rest_stays(void **state)
{
    (void)state;
    enum { BLOCK = 64 << 10, N = 400 };
    struct mu_recorded r;
    char *block = malloc(BLOCK);
    mu_tape_close(&tape);
    mu_tape_init(&tape, dir, &session, 12 << 20);
    for (int i = 0; i < N; i++) {
        memset(block, 'a' + i % 26, BLOCK);
        record(0, 1, 0, (int64_t)i * BLOCK, mu_bytes_of(block, BLOCK));
    }
    mu_tape_range(&tape, 0, 1, &r);
    assert_int_equal(r.newest, (int64_t)N * BLOCK);
    assert_in_range(r.oldest, 1, (int64_t)N * BLOCK - (4 << 20));
    assert_int_equal(r.base, 0);
    struct mu_buf b;
    int64_t begin = 0;
    mu_buf_init(&b, 2 * BLOCK);
    assert_int_equal(mu_tape_read(&tape, 0, 0, 100, &begin, &b), 0);
    assert_int_equal(begin, r.oldest);
    assert_int_equal(b.ptr[0], 'a' + (int)(begin / BLOCK % 26));
    mu_buf_fini(&b);
    free(block);
}

static void a_link_in_the_way_is_not_followed(void **state)
{
    (void)state;
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, session.text);
    assert_int_equal(symlink("/tmp", path), 0);
    record(0, 1, 0, 0, MU_B("secret"));
    struct mu_buf b;
    int64_t begin;
    mu_buf_init(&b, 100);
    assert_true(mu_tape_read(&tape, 0, 0, 100, &begin, &b) < 0);
    assert_int_equal(b.len, 0);
    assert_int_equal(access("/tmp/0-0000000000000000.rec", F_OK), -1);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(what_was_recorded_is_read_from_any_offset),
        T(a_hole_ends_a_read_and_the_next_begins_behind_it),
        T(another_process_knows_where_an_attempt_began),
        T(a_torn_record_is_passed_over),
        T(old_pieces_go_and_the_rest_stays),
        T(a_link_in_the_way_is_not_followed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
