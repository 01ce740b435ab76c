/* Frames: every rule of RFC 6455, and every cut of the input. */
#include "../unit.h"

#include <stdio.h>

#include "base/buf.h"
#include "base/encode.h"
#include "proto/ws.h"

enum { MAX_LOG = 1 << 20, MAX_MESSAGE = 70000 };

/* --- reading: a log of events, in which the pieces of a message are joined --- */

struct reader {
    struct mu_ws_parser parser;
    struct mu_buf log;
    bool open; /* in a message */
};

static void reader_init(struct reader *r, bool server, uint64_t max)
{
    mu_ws_parser_init(&r->parser, server, max);
    mu_buf_init(&r->log, MAX_LOG);
    r->open = false;
}

static void note(struct reader *r, enum mu_ws_event ev)
{
    const struct mu_ws_parser *p = &r->parser;
    switch (ev) {
    case MU_WS_EV_DATA:
        if (!r->open) {
            mu_buf_add_str(&r->log, p->text ? "text(" : "bin(");
        }
        mu_buf_add(&r->log, p->piece);
        r->open = !p->last;
        if (p->last) {
            mu_buf_add_str(&r->log, ") ");
        }
        break;
    case MU_WS_EV_PING:
    case MU_WS_EV_PONG:
        mu_buf_printf(&r->log, "<%s %.*s>", ev == MU_WS_EV_PING ? "ping" : "pong",
                      MU_ARGS(p->piece));
        break;
    case MU_WS_EV_CLOSE:
        mu_buf_printf(&r->log, "close %u %.*s", p->code, MU_ARGS(p->piece));
        break;
    case MU_WS_EV_ERROR:
        mu_buf_printf(&r->log, "error %u", p->code);
        break;
    default:
        break;
    }
}

/* Returns false after the last event. */
static bool feed(struct reader *r, const char *bytes, size_t len)
{
    char *copy = malloc(len + 1), *at = copy; /* exactly as long as it may be read, for ASan */
    memcpy(copy, bytes, len);
    enum mu_ws_event ev = MU_WS_EV_MORE;
    while (len > 0 && ev != MU_WS_EV_CLOSE && ev != MU_WS_EV_ERROR) {
        size_t used = 0;
        ev = mu_ws_parse(&r->parser, at, len, &used);
        assert_true(used <= len && (used > 0 || ev != MU_WS_EV_MORE));
        at += used;
        len -= used;
        note(r, ev);
    }
    free(copy);
    return ev != MU_WS_EV_CLOSE && ev != MU_WS_EV_ERROR;
}

/* A message may be cut into pieces before an error is seen: what came before it is not compared. */
static void check(const struct reader *r, const char *want)
{
    mu_bytes got = mu_buf_bytes(&r->log);
    const char *error = strstr(want, "error");
    if (error && r->open) {
        assert_true(mu_bytes_ends(got, mu_str(error)));
        return;
    }
    if (!mu_bytes_is(got, want)) {
        fail_msg("got '%.*s', not '%s'", MU_ARGS(got), want);
    }
}

static void every_cut(bool server, mu_bytes in, const char *want)
{
    struct reader r;
    for (size_t i = 0; i <= in.len; i++) { /* in two */
        reader_init(&r, server, MAX_MESSAGE);
        if (feed(&r, in.ptr, i)) {
            feed(&r, in.ptr + i, in.len - i);
        }
        check(&r, want);
        mu_buf_fini(&r.log);
    }
    for (size_t step = 1; step < 4; step++) { /* in many */
        reader_init(&r, server, MAX_MESSAGE);
        bool more = true;
        for (size_t i = 0; i < in.len && more; i += step) {
            more = feed(&r, in.ptr + i, MU_MIN(step, in.len - i));
        }
        check(&r, want);
        mu_buf_fini(&r.log);
    }
}

struct row {
    const char *name;
    mu_bytes frames; /* of a server: not masked */
    const char *want;
};

static const struct row rows[] = {
    {"text", MU_B("\x81\x05hello"), "text(hello) "},
    {"binary", MU_B("\x82\x03\x01\xff\x80"), "bin(\x01\xff\x80) "},
    {"empty text", MU_B("\x81\x00"), "text() "},
    {"empty binary", MU_B("\x82\x00"), "bin() "},
    {"two messages",
     MU_B("\x81\x01"
          "a\x82\x01"
          "b"),
     "text(a) bin(b) "},
    {"fragments",
     MU_B("\x01\x02"
          "ab\x00\x01"
          "c\x80\x02"
          "de"),
     "text(abcde) "},
    {"fragments of nothing", MU_B("\x01\x00\x00\x00\x80\x00"), "text() "},
    {"ping between fragments",
     MU_B("\x02\x01"
          "a\x89\x02hi\x80\x01"
          "b"),
     "bin(a<ping hi>b) "},
    {"pong", MU_B("\x8a\x00\x8a\x01x"), "<pong ><pong x>"},
    {"close without a code", MU_B("\x88\x00"), "close 1005 "},
    {"close with a code", MU_B("\x88\x02\x03\xe8"), "close 1000 "},
    {"close with a reason",
     MU_B("\x88\x05\x03\xe9"
          "bye"),
     "close 1001 bye"},
    {"close between fragments", MU_B("\x88\x02\x0f\xa0"), "close 4000 "},
    {"nothing behind a close", MU_B("\x88\x02\x03\xe8\x81\x01x"), "close 1000 "},
    {"close of one byte", MU_B("\x88\x01\x03"), "error 1002"},
    {"close of one byte, the other left over from a ping", MU_B("\x89\x02\x03\xe8\x88\x01\x03"),
     "<ping \x03\xe8>error 1002"},
    {"close 999", MU_B("\x88\x02\x03\xe7"), "error 1002"},
    {"close 1004", MU_B("\x88\x02\x03\xec"), "error 1002"},
    {"close 1005", MU_B("\x88\x02\x03\xed"), "error 1002"},
    {"close 1006", MU_B("\x88\x02\x03\xee"), "error 1002"},
    {"close 1007", MU_B("\x88\x02\x03\xef"), "close 1007 "},
    {"close 1014", MU_B("\x88\x02\x03\xf6"), "close 1014 "},
    {"close 1015", MU_B("\x88\x02\x03\xf7"), "error 1002"},
    {"close 1016", MU_B("\x88\x02\x03\xf8"), "error 1002"},
    {"close 2999", MU_B("\x88\x02\x0b\xb7"), "error 1002"},
    {"close 3000", MU_B("\x88\x02\x0b\xb8"), "close 3000 "},
    {"close 4999", MU_B("\x88\x02\x13\x87"), "close 4999 "},
    {"close 5000", MU_B("\x88\x02\x13\x88"), "error 1002"},
    {"close 65535", MU_B("\x88\x02\xff\xff"), "error 1002"},
    {"close with a reason that is not UTF-8", MU_B("\x88\x04\x03\xe8\xc3\x28"), "error 1007"},
    {"close in parts", MU_B("\x08\x00"), "error 1002"},
    {"ping in parts", MU_B("\x09\x01x"), "error 1002"},
    {"ping of 126 bytes", MU_B("\x89\x7e\x00\x7e"), "error 1002"},
    {"ping with a long length", MU_B("\x89\x7f\x00\x00\x00\x00\x00\x00\x00\x01"), "error 1002"},
    {"reserved bit 1", MU_B("\xc1\x01x"), "error 1002"},
    {"reserved bit 2", MU_B("\xa1\x01x"), "error 1002"},
    {"reserved bit 3", MU_B("\x91\x01x"), "error 1002"},
    {"reserved bit of a ping", MU_B("\xc9\x00"), "error 1002"},
    {"opcode 3", MU_B("\x83\x00"), "error 1002"},
    {"opcode 7", MU_B("\x87\x00"), "error 1002"},
    {"opcode 11", MU_B("\x8b\x00"), "error 1002"},
    {"opcode 15", MU_B("\x8f\x00"), "error 1002"},
    {"continuation of nothing", MU_B("\x80\x01x"), "error 1002"},
    {"continuation behind a whole message",
     MU_B("\x81\x01"
          "a\x80\x01x"),
     "text(a) error 1002"},
    {"message in a message",
     MU_B("\x01\x01"
          "a\x81\x01x"),
     "error 1002"},
    {"masked by a server", MU_B("\x81\x81\x01\x02\x03\x04x"), "error 1002"},
    {"length 125 in two bytes", MU_B("\x82\x7e\x00\x7d"), "error 1002"},
    {"length 0 in two bytes", MU_B("\x82\x7e\x00\x00"), "error 1002"},
    {"length 65535 in eight bytes", MU_B("\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff"), "error 1002"},
    {"length with the highest bit", MU_B("\x82\x7f\x80\x00\x00\x00\x00\x01\x00\x00"), "error 1002"},
    {"too large", MU_B("\x82\x7f\x00\x00\x00\x00\x00\x01\x11\x71"), "error 1009"},
    {"much too large", MU_B("\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff"), "error 1009"},
    {"text that is not UTF-8", MU_B("\x81\x02\xc3\x28"), "error 1007"},
    {"text that ends inside a character",
     MU_B("\x81\x03"
          "ab\xc3"),
     "error 1007"},
    {"character over two fragments",
     MU_B("\x01\x02"
          "a\xe2\x00\x01\x82\x80\x02\xac"
          "b"),
     "text(a\xe2\x82\xac"
     "b) "},
    {"character cut by a ping", MU_B("\x01\x01\xc3\x89\x00\x80\x01\xa9"), "text(\xc3<ping >\xa9) "},
    {"message that ends inside a character of fragments", MU_B("\x01\x01\xf0\x80\x02\x9f\x98"),
     "error 1007"},
    {"overlong", MU_B("\x81\x02\xc0\xaf"), "error 1007"},
    {"overlong of three", MU_B("\x81\x03\xe0\x80\xaf"), "error 1007"},
    {"overlong of four", MU_B("\x81\x04\xf0\x80\x80\xaf"), "error 1007"},
    {"surrogate", MU_B("\x81\x03\xed\xa0\x80"), "error 1007"},
    {"beyond U+10FFFF", MU_B("\x81\x04\xf4\x90\x80\x80"), "error 1007"},
    {"U+10FFFF", MU_B("\x81\x04\xf4\x8f\xbf\xbf"), "text(\xf4\x8f\xbf\xbf) "},
    {"lone continuation byte", MU_B("\x81\x01\x80"), "error 1007"},
    {"fault behind much ASCII",
     MU_B("\x81\x12"
          "0123456789abcdef\xff!"),
     "error 1007"},
    {"binary may be anything", MU_B("\x82\x02\xc3\x28"), "bin(\xc3\x28) "},
};

static void every_rule_holds_however_the_input_is_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        every_cut(false, rows[i].frames, rows[i].want);
    }
}

/* The frames of a server as a client would send them; faulty ones end the walk. */
static void mask_frames(mu_bytes in, struct mu_buf *dst)
{
    unsigned char mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    while (in.len >= 2) {
        unsigned length = (unsigned char)in.ptr[1];
        if (length > 125 || length + 2 > in.len) {
            break;
        }
        char head[2] = {in.ptr[0], (char)(length | 0x80)};
        mu_buf_add(dst, mu_bytes_of(head, 2));
        mu_buf_add(dst, mu_bytes_of((char *)mask, 4));
        mu_buf_add(dst, mu_bytes_of(in.ptr + 2, length));
        mu_ws_mask(dst->ptr + dst->len - length, length, mask, 0);
        in = mu_bytes_from(in, length + 2);
        mask[1] = (unsigned char)(mask[1] * 7 + 1);
    }
}

static void masked_frames_mean_the_same(void **state)
{
    (void)state;
    size_t looked_at = 0;
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        struct mu_buf masked;
        mu_buf_init(&masked, 4096);
        mask_frames(rows[i].frames, &masked);
        /* only what is made of short frames can be written again so */
        size_t frames = 0;
        for (mu_bytes in = rows[i].frames; in.len >= 2 && (unsigned char)in.ptr[1] <= 125;
             frames++) {
            in = mu_bytes_from(in, 2U + (unsigned char)in.ptr[1]);
        }
        if (masked.len == rows[i].frames.len + 4 * frames) {
            every_cut(true, mu_buf_bytes(&masked), rows[i].want);
            looked_at++;
        }
        mu_buf_fini(&masked);
    }
    assert_true(looked_at > 40);
}

static void a_client_that_does_not_mask_is_refused(void **state)
{
    (void)state;
    every_cut(true, MU_B("\x81\x01x"), "error 1002");
    every_cut(true, MU_B("\x89\x00"), "error 1002");
}

/* --- sizes --- */

static void every_length_is_written_short_and_read_back(void **state)
{
    (void)state;
    static const struct {
        uint64_t len;
        size_t header;
    } cases[] = {{0, 2},     {1, 2},      {125, 2},    {126, 4},   {127, 4},
                 {65535, 4}, {65536, 10}, {70000, 10}, {70001, 10}};
    for (size_t i = 0; i < MU_ARRAY_LEN(cases); i++) {
        for (int masked = 0; masked < 2; masked++) {
            unsigned char head[MU_WS_HEADER_MAX], mask[4] = {1, 2, 3, 250};
            struct reader r;
            size_t n = mu_ws_header(head, MU_WS_BINARY, true, cases[i].len, masked ? mask : NULL);
            assert_int_equal(n, cases[i].header + (masked ? 4 : 0));
            reader_init(&r, masked, MAX_MESSAGE);
            size_t len = (size_t)cases[i].len;
            char *data = malloc(len + 1);
            for (size_t k = 0; k < len; k++) {
                data[k] = (char)(k * 31 + k / 255);
            }
            char *sent = malloc(len + 1);
            memcpy(sent, data, len);
            if (masked) {
                mu_ws_mask(sent, len, mask, 0);
            }
            bool more = feed(&r, (char *)head, n);
            if (more && len) {
                more = feed(&r, sent, len);
            }
            if (len > MAX_MESSAGE) {
                assert_true(!more && mu_bytes_is(mu_buf_bytes(&r.log), "error 1009"));
            } else {
                assert_int_equal(r.log.len, len + 6);
                assert_memory_equal(r.log.ptr + 4, data, len);
            }
            mu_buf_fini(&r.log);
            free(sent);
            free(data);
        }
    }
}

static void the_limit_counts_all_fragments_of_a_message_and_only_those(void **state)
{
    (void)state;
    struct reader r;
    reader_init(&r, false, 5);
    assert_true(feed(&r,
                     "\x01\x03"
                     "abc"
                     "\x80\x02"
                     "de",
                     9));
    assert_true(feed(&r,
                     "\x82\x05"
                     "12345",
                     7));
    assert_false(feed(&r,
                      "\x01\x03"
                      "abc"
                      "\x80\x03"
                      "def",
                      10));
    assert_true(mu_bytes_is(mu_buf_bytes(&r.log), "text(abcde) bin(12345) text(abcerror 1009"));
    mu_buf_fini(&r.log);
}

static void masking_does_not_depend_on_where_it_is_cut(void **state)
{
    (void)state;
    const unsigned char mask[4] = {0x11, 0x22, 0x44, 0x88};
    char whole[67], parts[67], slow[67];
    for (size_t i = 0; i < sizeof whole; i++) {
        whole[i] = parts[i] = slow[i] = (char)(i * 13);
        slow[i] = (char)((unsigned char)slow[i] ^ mask[i % 4]);
    }
    mu_ws_mask(whole, sizeof whole, mask, 0);
    assert_memory_equal(whole, slow, sizeof whole);
    for (size_t cut = 0; cut <= sizeof parts; cut++) {
        memcpy(parts, whole, sizeof parts);
        mu_ws_mask(parts, cut, mask, 0);
        mu_ws_mask(parts + cut, sizeof parts - cut, mask, cut);
        for (size_t i = 0; i < sizeof parts; i++) {
            assert_int_equal((unsigned char)parts[i], (unsigned char)(i * 13));
        }
    }
}

/* --- text --- */

/* All sequences of up to three bytes from the borders of the ranges, against the plain check. */
static void text_is_judged_like_the_plain_check_does(void **state)
{
    (void)state;
    static const unsigned char edges[] = {0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf,
                                          0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee,
                                          0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff};
    enum { N = sizeof edges };
    for (size_t i = 0; i < (size_t)N * N * N * N; i++) {
        char frame[6] = {(char)0x81,
                         4,
                         (char)edges[i % N],
                         (char)edges[i / N % N],
                         (char)edges[i / N / N % N],
                         (char)edges[i / N / N / N]};
        bool want = mu_utf8_valid(mu_bytes_of(frame + 2, 4));
        struct mu_ws_parser p;
        size_t used = 0, at = 0;
        mu_ws_parser_init(&p, false, 100);
        enum mu_ws_event ev = MU_WS_EV_MORE;
        size_t step = 1 + i % 4;
        bool last = false;
        while (at < sizeof frame && ev != MU_WS_EV_ERROR) {
            ev = mu_ws_parse(&p, frame + at, MU_MIN(step, sizeof frame - at), &used);
            at += used;
            last = ev == MU_WS_EV_DATA && p.last;
        }
        assert_int_equal(last, want);
        assert_int_equal(ev == MU_WS_EV_ERROR, !want);
    }
}

static void after_the_end_the_event_is_given_again(void **state)
{
    (void)state;
    struct mu_ws_parser p;
    char close[] = "\x88\x02\x03\xe8", bad[] = "\xff\xff";
    size_t used;
    mu_ws_parser_init(&p, false, 10);
    assert_int_equal(mu_ws_parse(&p, close, 4, &used), MU_WS_EV_CLOSE);
    assert_int_equal(mu_ws_parse(&p, bad, 2, &used), MU_WS_EV_CLOSE);
    assert_int_equal(used, 0);
    mu_ws_parser_init(&p, false, 10);
    assert_int_equal(mu_ws_parse(&p, bad, 2, &used), MU_WS_EV_ERROR);
    assert_int_equal(mu_ws_parse(&p, close, 4, &used), MU_WS_EV_ERROR);
    assert_int_equal(used, 0);
    assert_non_null(p.fault);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rule_holds_however_the_input_is_cut),
        cmocka_unit_test(masked_frames_mean_the_same),
        cmocka_unit_test(a_client_that_does_not_mask_is_refused),
        cmocka_unit_test(every_length_is_written_short_and_read_back),
        cmocka_unit_test(the_limit_counts_all_fragments_of_a_message_and_only_those),
        cmocka_unit_test(masking_does_not_depend_on_where_it_is_cut),
        cmocka_unit_test(text_is_judged_like_the_plain_check_does),
        cmocka_unit_test(after_the_end_the_event_is_given_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
