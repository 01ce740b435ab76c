#include "../unit.h"

#include <errno.h>

#include "../alloc_fail.h"
#include "proto/sse.h"

/* Everything that was delivered, as "event|data|id;" */
struct seen {
    struct mu_sse sse;
    struct mu_buf log;
    int stop_after;
};

static void on_event(void *arg, mu_bytes event, mu_bytes data, mu_bytes id)
{
    struct seen *s = arg;
    mu_buf_add(&s->log, event);
    mu_buf_add_char(&s->log, '|');
    mu_buf_add(&s->log, data);
    mu_buf_add_char(&s->log, '|');
    mu_buf_add(&s->log, id);
    mu_buf_add_char(&s->log, ';');
    if (s->stop_after && --s->stop_after == 0) {
        mu_sse_stop(&s->sse);
    }
}

static void seen_init(struct seen *s, size_t max)
{
    mu_buf_init(&s->log, 1 << 20);
    s->stop_after = 0;
    mu_sse_init(&s->sse, max, on_event, s);
}

static void seen_fini(struct seen *s)
{
    mu_buf_fini(&s->log);
    mu_sse_fini(&s->sse);
}

static const struct {
    const char *in, *out;
} streams[] = {
    {"", ""},
    {"data: a\n\n", "|a|;"},
    {"data:a\n\n", "|a|;"},
    {"data:  a\n\n", "| a|;"},
    {"data\n\n", "||;"},
    {"data: a\r\n\r\n", "|a|;"},
    {"data: a\r\r", "|a|;"},
    {"data: a\ndata: b\r\ndata: c\rdata\n\n", "|a\nb\nc\n|;"},
    {"event:  x \ndata: 1\n\ndata: 2\n\n", "x|1|;|2|;"},
    {"id: 7\ndata: 1\n\ndata: 2\n\nid\ndata: 3\n\n", "|1|7;|2|7;|3|;"},
    {": ping\n\n:x\ndata: a\n\n", "|a|;"},
    {"event: lonely\n\ndata: a\n\n", "|a|;"},
    {"retry: 10\nfoo: bar\ndatax: 1\ndata: a\n\n", "|a|;"},
    {"\xef\xbb\xbf"
     "data: a\n\n",
     "|a|;"},
    {"\xef\xbb"
     "data: a\n\ndata: b\n\n",
     "|b|;"},
    {"data: \xef\xbb\xbf\n\n", "|\xef\xbb\xbf|;"},
    {"\n\n\ndata: a\n\n\n\n", "|a|;"},
    {"data: last", "|last|;"},
    {"data: last\n", "|last|;"},
    {"data: a:b: c\n\n", "|a:b: c|;"},
    {"data: {\"x\":1}\n\ndata: [DONE]\n\n", "|{\"x\":1}|;|[DONE]|;"},
};

static void a_stream_cut_anywhere_gives_the_same_events(void **state MU_UNUSED)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(streams); i++) {
        mu_bytes in = mu_str(streams[i].in);
        for (size_t cut = 0; cut <= in.len; cut++) {
            for (size_t step = 1; step <= 3; step++) {
                struct seen s;
                seen_init(&s, 1000);
                assert_int_equal(mu_sse_feed(&s.sse, mu_bytes_head(in, cut)), 0);
                for (size_t at = cut; at < in.len; at += step) {
                    mu_bytes piece = mu_bytes_head(mu_bytes_from(in, at), step);
                    assert_int_equal(mu_sse_feed(&s.sse, piece), 0);
                }
                assert_int_equal(mu_sse_end(&s.sse), 0);
                if (!mu_bytes_is(mu_buf_bytes(&s.log), streams[i].out)) {
                    fail_msg("row %zu cut %zu: %.*s", i, cut, MU_ARGS(mu_buf_bytes(&s.log)));
                }
                seen_fini(&s);
            }
        }
    }
}

static void a_line_or_an_event_over_the_limit_is_too_large_however_it_is_cut(void **state MU_UNUSED)
{
    for (size_t step = 1; step <= 64; step++) {
        static const char *const rows[] = {"data: 0123456789012\n\n",
                                           "data: 01234567\ndata: 01234567\n\n",
                                           ": a comment that goes on\n", "event: 0123456789ab\n"};
        for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
            struct seen s;
            mu_bytes in = mu_str(rows[i]);
            seen_init(&s, 16);
            int r = 0;
            for (size_t at = 0; at < in.len && r == 0; at += step) {
                r = mu_sse_feed(&s.sse, mu_bytes_head(mu_bytes_from(in, at), step));
            }
            assert_int_equal(r, MU_E_TOO_LARGE);
            assert_int_equal(mu_sse_feed(&s.sse, MU_B("data: x\n\n")), MU_E_TOO_LARGE);
            assert_int_equal(mu_sse_end(&s.sse), MU_E_TOO_LARGE);
            assert_int_equal(s.log.len, 0);
            seen_fini(&s);
        }
        struct seen s;
        seen_init(&s, 16);
        assert_int_equal(mu_sse_feed(&s.sse, MU_B("data: 0123456789\n\n")), 0);
        assert_true(mu_bytes_is(mu_buf_bytes(&s.log), "|0123456789|;"));
        seen_fini(&s);
    }
}

static void nothing_is_delivered_after_stop(void **state MU_UNUSED)
{
    struct seen s;
    seen_init(&s, 100);
    s.stop_after = 2;
    assert_int_equal(mu_sse_feed(&s.sse, MU_B("data: 1\n\ndata: 2\n\ndata: 3\n\ndata: 4")), 0);
    assert_int_equal(mu_sse_feed(&s.sse, MU_B("\n\n")), 0);
    assert_int_equal(mu_sse_end(&s.sse), 0);
    assert_true(mu_bytes_is(mu_buf_bytes(&s.log), "|1|;|2|;"));
    seen_fini(&s);
}

static void an_encoded_event_reads_back(void **state MU_UNUSED)
{
    struct mu_buf b;
    mu_buf_init(&b, 1000);
    mu_sse_add(&b, "run", 42, MU_B("one\n two\r\nthree\n"));
    mu_sse_add(&b, NULL, -1, MU_B(""));
    assert_true(mu_bytes_is(mu_buf_bytes(&b), "id: 42\nevent: run\ndata: one\ndata:  two\n"
                                              "data: three\ndata: \n\ndata: \n\n"));
    struct seen s;
    seen_init(&s, 100);
    assert_int_equal(mu_sse_feed(&s.sse, mu_buf_bytes(&b)), 0);
    assert_true(mu_bytes_is(mu_buf_bytes(&s.log), "run|one\n two\nthree\n|42;||42;"));
    seen_fini(&s);
    mu_buf_fini(&b);
}

static int feed_in_pieces(void *arg MU_UNUSED)
{
    struct seen s;
    seen_init(&s, 1000);
    int r = mu_sse_feed(&s.sse, MU_B("\xef\xbb\xbf"
                                     "event: x\nid: 1\nda"));
    if (r == 0) {
        r = mu_sse_feed(&s.sse, MU_B("ta: a\ndata: b\n\ndata: c"));
    }
    if (r == 0) {
        r = mu_sse_end(&s.sse);
    }
    assert_true(r == 0 || r == -ENOMEM);
    seen_fini(&s);
    return r;
}

static void every_failing_allocation_is_survived(void **state MU_UNUSED)
{
    each_allocation_fails(feed_in_pieces, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_cut_anywhere_gives_the_same_events),
        cmocka_unit_test(a_line_or_an_event_over_the_limit_is_too_large_however_it_is_cut),
        cmocka_unit_test(nothing_is_delivered_after_stop),
        cmocka_unit_test(an_encoded_event_reads_back),
        cmocka_unit_test(every_failing_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
