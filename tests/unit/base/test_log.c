#include "../unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>

#include "base/encode.h"
#include "base/log.h"

static int64_t fixed_wall(const struct mu_env *env MU_UNUSED)
{
    return 1769850496986;
}

static const struct mu_env fake = {.wall_ms = fixed_wall};
static int fds[2];
static char got[1 << 20];

/* Everything that was written since the last call. */
static const char *written(void)
{
    size_t n = 0;
    close(fds[1]);
    ssize_t k;
    while ((k = read(fds[0], got + n, sizeof got - 1 - n)) > 0) {
        n += (size_t)k;
    }
    close(fds[0]);
    got[n] = 0;
    return got;
}

static void capture(enum mu_log_level level, bool text)
{
    assert_int_equal(pipe(fds), 0);
    mu_log_fd(fds[1]);
    mu_log_setup(&fake, level, text);
}

static void a_line_is_one_json_object_with_its_fields_in_order(void **state MU_UNUSED)
{
    capture(MU_LOG_INFO, false);
    mu_log(MU_LOG_INFO, "agent_run.create", MU_KS("run_id", MU_B("r\"1\n\x01\x7f\xff\xc3\xa9")),
           MU_KC("c", "x"), MU_KI("n", INT64_MIN), MU_KT("ok", true), MU_KT("no", false),
           MU_KJ("j", MU_B("{\"a\":\n1}")), MU_KJ("e", MU_B("")), MU_KC("nul", NULL));
    assert_string_equal(written(),
                        "{\"ts\":\"2026-01-31T09:08:16.986Z\",\"level\":\"info\","
                        "\"msg\":\"agent_run.create\",\"service\":\"muster\","
                        "\"run_id\":\"r\\\"1\\n\\u0001\\u007f\xef\xbf\xbd\xc3\xa9\",\"c\":\"x\","
                        "\"n\":-9223372036854775808,\"ok\":true,\"no\":false,\"j\":{\"a\": 1},"
                        "\"e\":null,\"nul\":\"\"}\n");
}

static void plain_text_is_for_people(void **state MU_UNUSED)
{
    capture(MU_LOG_DEBUG, true);
    mu_log(MU_LOG_WARN, "startup.listening", MU_KI("port", 8080), MU_KC("why", "a b"));
    mu_log(MU_LOG_DEBUG, "bare");
    assert_string_equal(written(), "2026-01-31T09:08:16.986Z WARN  startup.listening port=8080 "
                                   "why=\"a b\"\n2026-01-31T09:08:16.986Z DEBUG bare\n");
}

static void levels_below_the_set_one_are_silent(void **state MU_UNUSED)
{
    capture(MU_LOG_ERROR, false);
    assert_false(mu_log_on(MU_LOG_WARN));
    assert_true(mu_log_on(MU_LOG_ERROR));
    mu_log(MU_LOG_WARN, "not this");
    mu_log(MU_LOG_ERROR, "this");
    const char *text = written();
    assert_null(strstr(text, "not this"));
    assert_non_null(strstr(text, "\"level\":\"error\",\"msg\":\"this\""));
}

static void only_the_value_that_is_too_long_is_cut(void **state MU_UNUSED)
{
    static const char *const units[] = {"x", "\xe2\x82\xac", "\x01", "\xff", "\""};
    for (size_t u = 0; u < MU_ARRAY_LEN(units); u++) {
        struct mu_buf big;
        mu_buf_init(&big, 1 << 20);
        for (int i = 0; i < 30000; i++) {
            mu_buf_add_str(&big, units[u]);
        }
        capture(MU_LOG_INFO, false);
        mu_log(MU_LOG_INFO, "m", MU_KC("first", "kept"), MU_KS("big", mu_buf_bytes(&big)),
               MU_KJ("json", mu_buf_bytes(&big)), MU_KC("last", "kept too"));
        const char *text = written();
        size_t len = strlen(text);
        assert_true(len <= 16 * 1024 && len > 12 * 1024);
        assert_true(mu_utf8_valid(mu_str(text)));
        assert_non_null(strstr(text, "\"first\":\"kept\",\"big\":\""));
        assert_non_null(strstr(text, "\xe2\x80\xa6\",\"json\":\""));
        assert_true(mu_bytes_ends(mu_str(text), MU_B(",\"last\":\"kept too\"}\n")));
        mu_buf_fini(&big);
    }
}

enum { THREADS = 4, LINES = 20 };

static void *write_lines(void *arg)
{
    for (int i = 0; i < LINES; i++) {
        mu_log(MU_LOG_INFO, "t", MU_KS("v", mu_str(arg)));
    }
    return NULL;
}

static void *read_lines(void *arg)
{
    (void)arg;
    size_t n = 0;
    ssize_t k;
    while ((k = read(fds[0], got + n, sizeof got - 1 - n)) > 0) {
        n += (size_t)k;
    }
    got[n] = 0;
    return NULL;
}

static void lines_of_several_threads_do_not_mix(void **state MU_UNUSED)
{
    static char texts[THREADS][6000];
    pthread_t t[THREADS], reader;
    capture(MU_LOG_INFO, false);
    assert_int_equal(pthread_create(&reader, NULL, read_lines, NULL), 0);
    for (int i = 0; i < THREADS; i++) {
        memset(texts[i], 'a' + i, sizeof texts[i] - 1);
        assert_int_equal(pthread_create(&t[i], NULL, write_lines, texts[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(t[i], NULL);
    }
    close(fds[1]);
    pthread_join(reader, NULL);
    close(fds[0]);
    int lines = 0;
    mu_bytes rest = mu_str(got);
    while (rest.len) {
        mu_bytes line = mu_bytes_split(&rest, '\n');
        ptrdiff_t at = mu_bytes_find(line, MU_B("\"v\":\""));
        assert_true(at > 0);
        mu_bytes v = mu_bytes_from(line, (size_t)at + 5);
        assert_int_equal(v.len, sizeof texts[0] - 1 + 2);
        for (size_t i = 1; i + 2 < v.len; i++) {
            assert_int_equal(v.ptr[i], v.ptr[0]);
        }
        lines++;
    }
    assert_int_equal(lines, THREADS * LINES);
}

static void a_closed_descriptor_does_no_harm(void **state MU_UNUSED)
{
    capture(MU_LOG_INFO, false);
    mu_log_fd(-1);
    errno = ENOENT;
    mu_log(MU_LOG_INFO, "nobody reads this");
    assert_int_equal(errno, ENOENT);
    mu_log_fd(fds[1]);
    mu_log(MU_LOG_INFO, "somebody reads this");
    const char *text = written();
    assert_null(strstr(text, "nobody"));
    assert_non_null(strstr(text, "somebody"));
    mu_log_fd(1);
}

/* A pipe that is full takes the front of a line; what comes later must still be lines. */
static void a_line_that_was_cut_does_not_swallow_the_next(void **state MU_UNUSED)
{
    static char big[6000]; /* two of them are more than the pipe holds */
    memset(big, 'x', sizeof big - 1);
    capture(MU_LOG_INFO, false);
    assert_int_equal(fcntl(fds[1], F_SETFL, O_NONBLOCK), 0);
    assert_true(fcntl(fds[1], F_SETPIPE_SZ, 8192) >= 8192);
    for (int i = 0; i < 3; i++) {
        mu_log(MU_LOG_INFO, "long", MU_KC("v", big), MU_KC("w", big));
    }
    size_t n = 0;
    ssize_t k;
    assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
    while ((k = read(fds[0], got + n, sizeof got - 1 - n)) > 0) {
        n += (size_t)k;
    }
    assert_true(n > 0 && got[n - 1] != '\n'); /* it was cut */
    assert_int_equal(fcntl(fds[0], F_SETFL, 0), 0);
    mu_log(MU_LOG_INFO, "next");
    mu_log(MU_LOG_INFO, "and the one behind it");
    const char *text = written();
    assert_int_equal(text[0], '\n');
    assert_int_equal(text[1], '{');
    assert_non_null(strstr(text, "\"msg\":\"next\",\"service\":\"muster\"}\n{"));
    assert_null(strstr(text, "\n\n"));
    mu_log_fd(1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_is_one_json_object_with_its_fields_in_order),
        cmocka_unit_test(plain_text_is_for_people),
        cmocka_unit_test(levels_below_the_set_one_are_silent),
        cmocka_unit_test(only_the_value_that_is_too_long_is_cut),
        cmocka_unit_test(lines_of_several_threads_do_not_mix),
        cmocka_unit_test(a_closed_descriptor_does_no_harm),
        cmocka_unit_test(a_line_that_was_cut_does_not_swallow_the_next),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
