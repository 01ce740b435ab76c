#include "../unit.h"

#include <errno.h>

#include "../alloc_fail.h"
#include "app/sessions/model.h"
#include "face/live/chunks.h"

static int add(struct mu_chunk_stream *s, int64_t offset, mu_bytes bytes)
{
    struct mu_event *e = mu_event_new(MU_EV_TERMINAL, 0, 0, offset, 0, bytes);
    if (!e) {
        return -ENOMEM;
    }
    int r = mu_chunks_add(s, e, offset);
    mu_event_unref(e);
    return r;
}

static void put(struct mu_chunk_stream *s, int64_t offset, const char *text)
{
    assert_int_equal(add(s, offset, mu_str(text)), 0);
}

static struct mu_chunk chunk;

static void gives(struct mu_chunks *c, int64_t offset, const char *text)
{
    assert_true(mu_chunks_take(c, true, &chunk));
    assert_int_equal(chunk.offset, offset);
    assert_int_equal(chunk.len, strlen(text));
    assert_memory_equal(chunk.bytes, text, chunk.len);
}

static void what_lies_together_leaves_together(void **state)
{
    (void)state;
    struct mu_chunks c;
    struct mu_chunk_stream s;
    mu_chunks_init(&c, 1000);
    mu_chunk_stream_init(&s, &c, 0, false);
    put(&s, 0, "hello ");
    put(&s, 6, "world");
    assert_false(mu_chunks_take(&c, false, &chunk)); /* not full */
    gives(&c, 0, "hello world");
    assert_true(chunk.text);
    assert_int_equal(chunk.gap_from, -1);
    assert_false(mu_chunks_take(&c, true, &chunk));
    assert_int_equal(c.bytes, 0);
    mu_chunk_stream_fini(&s);
}

static void a_hole_shows_as_gap_of_the_next_chunk(void **state)
{
    (void)state;
    struct mu_chunks c;
    struct mu_chunk_stream s;
    mu_chunks_init(&c, 1000);
    mu_chunk_stream_init(&s, &c, 0, false);
    put(&s, 0, "a");
    put(&s, 5, "b");
    gives(&c, 0, "a");
    gives(&c, 5, "b");
    assert_int_equal(chunk.gap_from, 1);
    mu_chunk_stream_fini(&s);
    mu_chunk_stream_init(&s, &c, -1, false);
    put(&s, 500, "x"); /* where it begins is no gap */
    gives(&c, 500, "x");
    assert_int_equal(chunk.gap_from, -1);
    mu_chunk_stream_fini(&s);
}

static void the_oldest_bytes_of_all_streams_go_first(void **state)
{
    (void)state;
    struct mu_chunks c;
    struct mu_chunk_stream a, b;
    mu_chunks_init(&c, 10);
    mu_chunk_stream_init(&a, &c, 0, false);
    mu_chunk_stream_init(&b, &c, 0, false);
    put(&a, 0, "aaaa");
    put(&b, 0, "bbbb");
    put(&a, 4, "cccc");
    assert_int_equal(c.bytes, 8);
    gives(&c, 0, "bbbb"); /* its turn: a lost its place with its last piece */
    gives(&c, 4, "cccc");
    assert_int_equal(chunk.gap_from, 0);
    put(&a, 8, "0123456789abcdef"); /* more than all */
    gives(&c, 14, "6789abcdef");
    assert_int_equal(chunk.gap_from, 8);
    mu_chunk_stream_fini(&a);
    mu_chunk_stream_fini(&b);
}

static void text_split_at_every_byte_arrives_whole(void **state)
{
    (void)state;
    static const char text[] = "a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80z";
    for (size_t cut = 1; cut + 1 < sizeof text - 1; cut++) {
        struct mu_chunks c;
        struct mu_chunk_stream s;
        char got[32];
        size_t n = 0;
        mu_chunks_init(&c, 100);
        mu_chunk_stream_init(&s, &c, 0, false);
        assert_int_equal(add(&s, 0, mu_bytes_of(text, cut)), 0);
        while (mu_chunks_take(&c, true, &chunk)) {
            assert_true(chunk.text);
            memcpy(got + n, chunk.bytes, chunk.len);
            n += chunk.len;
        }
        assert_true(cut - n <= 3);
        assert_int_equal(add(&s, (int64_t)cut, mu_bytes_of(text + cut, sizeof text - 1 - cut)), 0);
        while (mu_chunks_take(&c, true, &chunk)) {
            assert_true(chunk.text);
            assert_int_equal(chunk.offset, n);
            memcpy(got + n, chunk.bytes, chunk.len);
            n += chunk.len;
        }
        assert_int_equal(n, sizeof text - 1);
        assert_memory_equal(got, text, n);
        mu_chunk_stream_fini(&s);
    }
}

static void half_a_character_waits_until_it_is_over(void **state)
{
    (void)state;
    struct mu_chunks c;
    struct mu_chunk_stream s;
    mu_chunks_init(&c, 100);
    mu_chunk_stream_init(&s, &c, 0, false);
    put(&s, 0, "ok\xe2\x82");
    gives(&c, 0, "ok");
    assert_false(mu_chunks_take(&c, true, &chunk));
    s.over = true;
    gives(&c, 2, "\xe2\x82");
    assert_false(chunk.text);
    s.over = false;
    put(&s, 4, "\xe2");
    put(&s, 9, "x"); /* its rest is lost */
    gives(&c, 4, "\xe2");
    assert_false(chunk.text);
    gives(&c, 9, "x");
    assert_int_equal(chunk.gap_from, 5);
    mu_chunk_stream_fini(&s);
}

static void bytes_that_are_no_text_are_marked(void **state)
{
    (void)state;
    struct mu_chunks c;
    struct mu_chunk_stream s;
    mu_chunks_init(&c, 100);
    mu_chunk_stream_init(&s, &c, 0, false);
    put(&s, 0,
        "a\xff"
        "b");
    gives(&c, 0,
          "a\xff"
          "b");
    assert_false(chunk.text);
    put(&s, 3, "\xff\xe2\x82"); /* what may become a character is kept for the next one */
    gives(&c, 3, "\xff");
    put(&s, 6, "\xac");
    gives(&c, 4, "\xe2\x82\xac");
    assert_true(chunk.text);
    mu_chunk_stream_fini(&s);
}

static void a_full_chunk_leaves_at_once(void **state)
{
    (void)state;
    struct mu_chunks c;
    struct mu_chunk_stream s;
    static char big[100000];
    memset(big, 'x', sizeof big);
    mu_chunks_init(&c, 1 << 20);
    mu_chunk_stream_init(&s, &c, 0, false);
    assert_int_equal(add(&s, 0, mu_bytes_of(big, sizeof big)), 0);
    for (int i = 0; i < 3; i++) {
        assert_true(mu_chunks_take(&c, false, &chunk));
        assert_int_equal(chunk.len, MU_CHUNK_MAX);
        assert_int_equal(chunk.offset, i * MU_CHUNK_MAX);
    }
    assert_false(mu_chunks_take(&c, false, &chunk));
    assert_true(mu_chunks_take(&c, true, &chunk));
    assert_int_equal(chunk.len, sizeof big - 3 * MU_CHUNK_MAX);
    mu_chunk_stream_fini(&s);
}

static void a_reader_that_acknowledges_gets_only_so_much_ahead(void **state)
{
    (void)state;
    struct mu_chunks c;
    struct mu_chunk_stream s;
    static char big[1 << 20];
    memset(big, 'y', sizeof big);
    mu_chunks_init(&c, sizeof big);
    mu_chunk_stream_init(&s, &c, 0, false);
    mu_chunk_stream_ack(&s, 0);
    assert_int_equal(add(&s, 0, mu_bytes_of(big, sizeof big)), 0);
    while (mu_chunks_take(&c, true, &chunk)) {
    }
    assert_int_equal(s.sent, MU_CHUNK_AHEAD);
    mu_chunk_stream_ack(&s, 1000000000); /* not more than was sent */
    assert_int_equal(s.acked, MU_CHUNK_AHEAD);
    while (mu_chunks_take(&c, true, &chunk)) {
    }
    assert_int_equal(s.sent, sizeof big);
    mu_chunk_stream_fini(&s);
}

static void streams_take_turns(void **state)
{
    (void)state;
    struct mu_chunks c;
    struct mu_chunk_stream a, b;
    static char big[2 * MU_CHUNK_MAX];
    memset(big, 'z', sizeof big);
    mu_chunks_init(&c, 1 << 20);
    mu_chunk_stream_init(&a, &c, 0, true);
    mu_chunk_stream_init(&b, &c, 0, false);
    assert_int_equal(add(&a, 0, mu_bytes_of(big, sizeof big)), 0);
    put(&b, 0, "b");
    assert_true(mu_chunks_take(&c, true, &chunk) && chunk.stream == &a);
    assert_true(mu_chunks_take(&c, true, &chunk) && chunk.stream == &b);
    assert_true(mu_chunks_take(&c, true, &chunk) && chunk.stream == &a);
    mu_chunk_stream_fini(&a);
    mu_chunk_stream_fini(&b);
}

static int sweep_once(void *arg)
{
    (void)arg;
    struct mu_chunks c;
    struct mu_chunk_stream s;
    mu_chunks_init(&c, 8);
    mu_chunk_stream_init(&s, &c, 0, false);
    int r = 0;
    for (int i = 0; r == 0 && i < 4; i++) {
        r = add(&s, 3 * i, MU_B("abc"));
    }
    mu_chunk_stream_fini(&s);
    assert_int_equal(c.bytes, 0);
    return r;
}

static void nothing_leaks_without_memory(void **state)
{
    (void)state;
    each_allocation_fails(sweep_once, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_lies_together_leaves_together),
        cmocka_unit_test(a_hole_shows_as_gap_of_the_next_chunk),
        cmocka_unit_test(the_oldest_bytes_of_all_streams_go_first),
        cmocka_unit_test(text_split_at_every_byte_arrives_whole),
        cmocka_unit_test(half_a_character_waits_until_it_is_over),
        cmocka_unit_test(bytes_that_are_no_text_are_marked),
        cmocka_unit_test(a_full_chunk_leaves_at_once),
        cmocka_unit_test(a_reader_that_acknowledges_gets_only_so_much_ahead),
        cmocka_unit_test(streams_take_turns),
        cmocka_unit_test(nothing_leaks_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
