#include "../unit.h"

#include <stdio.h>

#include "../alloc_fail.h"
#include "exec/engine/demux.h"
#include "exec/engine/engine.h"
#include "exec/engine/pull.h"
#include "exec/engine/response.h"
#include "exec/engine/tar.h"

/* --- demux --- */

static void on_log(void *arg, unsigned stream, mu_bytes piece)
{
    struct mu_buf *b = arg;
    (void)stream;
    mu_buf_add(b, piece);
}

static void add_frame(struct mu_buf *b, char stream, mu_bytes text)
{
    const char head[8] = {stream,
                          0,
                          0,
                          0,
                          (char)(text.len >> 24),
                          (char)(text.len >> 16),
                          (char)(text.len >> 8),
                          (char)text.len};
    mu_buf_add(b, mu_bytes_of(head, 8));
    mu_buf_add(b, text);
}

static void hundred_lines_come_out_whole_wherever_the_frames_are_cut(void **state)
{
    struct mu_buf in, want, got;
    (void)state;
    mu_buf_init(&in, 1 << 20);
    mu_buf_init(&want, 1 << 20);
    mu_buf_init(&got, 1 << 20);
    for (int i = 0; i < 100; i++) {
        char line[64];
        snprintf(line, sizeof line, "line %d of both streams\n", i);
        add_frame(&in, (char)(1 + i % 2), mu_str(line));
        mu_buf_add_str(&want, line);
    }
    for (size_t step = 1; step < 97; step++) {
        struct mu_demux d;
        mu_buf_clear(&got);
        mu_demux_init(&d, on_log, &got);
        for (size_t at = 0; at < in.len; at += step) {
            mu_bytes piece = mu_bytes_head(mu_bytes_from(mu_buf_bytes(&in), at), step);
            assert_int_equal(mu_demux_feed(&d, piece), 0);
        }
        assert_true(mu_demux_at_border(&d));
        assert_true(mu_bytes_eq(mu_buf_bytes(&got), mu_buf_bytes(&want)));
    }
    mu_buf_fini(&in);
    mu_buf_fini(&want);
    mu_buf_fini(&got);
}

static void what_is_no_frame_is_refused_and_empty_frames_are_not(void **state)
{
    struct mu_demux d;
    struct mu_buf got;
    (void)state;
    mu_buf_init(&got, 100);
    mu_demux_init(&d, on_log, &got);
    assert_int_equal(mu_demux_feed(&d, mu_bytes_of("\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\1x", 17)), 0);
    assert_true(mu_bytes_is(mu_buf_bytes(&got), "x"));
    assert_int_equal(mu_demux_feed(&d, MU_B("a line as a terminal writes it")), MU_E_PROTOCOL);
    mu_demux_init(&d, on_log, &got);
    assert_int_equal(mu_demux_feed(&d, mu_bytes_of("\1\0\1\0\0\0\0\1x", 9)), MU_E_PROTOCOL);
    mu_buf_fini(&got);
}

/* --- pull --- */

static void pull(const char *text, size_t step, int want, const char *error, const char *status)
{
    struct mu_pull p;
    int r = 0;
    mu_pull_init(&p, NULL, NULL);
    for (size_t at = 0; at < strlen(text) && r == 0; at += step) {
        r = mu_pull_feed(&p, mu_bytes_head(mu_str(text + at), step));
    }
    r = r < 0 ? r : mu_pull_end(&p);
    assert_int_equal(r, want);
    assert_string_equal(p.error, error);
    assert_string_equal(p.status, status);
    assert_int_equal(p.failed, error[0] != 0);
    mu_pull_fini(&p);
}

static void an_error_inside_a_pull_is_noticed_however_it_is_cut(void **state)
{
    const char *good =
        "{\"status\":\"Pulling from x\",\"id\":\"1\"}\r\n{\"status\":\"Downloading\","
        "\"progressDetail\":{\"current\":1,\"total\":2},\"progress\":\"[=> ]\","
        "\"id\":\"ab\"}";
    const char *bad = "{\"status\":\"a \\\"}{ b\"}{\"errorDetail\":{\"message\":\"manifest "
                      "unknown\"},\"error\":\"manifest\\nunknown\"}{\"error\":\"later\"}";
    (void)state;
    for (size_t step = 1; step < 200; step += 7) {
        pull(good, step, 0, "", "ab: Downloading [=> ]");
        pull(bad, step, 0, "manifest unknown", "a \"}{ b");
    }
    pull("{\"errorDetail\":{}}", 100, 0, "unnamed error", "");
    pull("{\"status\":\"x\"", 100, MU_E_PROTOCOL, "", "");
    pull("<html>", 100, MU_E_PROTOCOL, "", "");
    pull("{]", 100, MU_E_PROTOCOL, "", "");
}

static void an_endless_object_is_given_up(void **state)
{
    struct mu_pull p;
    int r = 0;
    (void)state;
    mu_pull_init(&p, NULL, NULL);
    r = mu_pull_feed(&p, MU_B("{\"a\":\""));
    for (int i = 0; i < 100000 && r == 0; i++) {
        r = mu_pull_feed(&p, MU_B("xxxxxxxxxx"));
    }
    assert_int_equal(r, MU_E_TOO_LARGE);
    mu_pull_fini(&p);
}

static int pull_once(void *arg)
{
    struct mu_pull p;
    (void)arg;
    mu_pull_init(&p, NULL, NULL);
    int r = mu_pull_feed(&p, MU_B("{\"status\":\"Pulling\",\"id\":\"1\"}{\"error\":\"no\"}"));
    mu_pull_fini(&p);
    return r;
}

static void a_pull_without_memory_leaks_nothing(void **state)
{
    (void)state;
    each_allocation_fails(pull_once, NULL);
}

static void foreign_text_becomes_one_line(void **state)
{
    char line[11];
    (void)state;
    mu_engine_text(line, sizeof line, MU_B("  a\nb\x1b[0m\xff rest that is cut"));
    assert_string_equal(line, "a b [0m\xef\xbf\xbd"); /* the character, and no half one */
}

/* --- response --- */

struct seen {
    struct mu_buf body;
    int status;
};

static int seen_head(void *arg, const struct mu_response *r)
{
    struct seen *s = arg;
    s->status = r->status;
    return 0;
}

static int seen_body(void *arg, mu_bytes piece)
{
    struct seen *s = arg;
    mu_buf_add(&s->body, piece);
    return 0;
}

static int respond(const char *text, size_t step, bool head, bool eof, struct seen *s)
{
    struct mu_response r;
    int e = 0;
    mu_response_init(&r, head);
    r.on_head = seen_head;
    r.on_body = seen_body;
    r.arg = s;
    *s = (struct seen){.status = 0};
    mu_buf_init(&s->body, 1 << 20);
    for (size_t at = 0; at < strlen(text) && e == 0; at += step) {
        e = mu_response_feed(&r, mu_bytes_head(mu_str(text + at), step));
    }
    return e == 0 && eof ? mu_response_end(&r) : e;
}

static void expect_body(const char *text, bool head, bool eof, int want, int status,
                        const char *body)
{
    for (size_t step = 1; step < strlen(text) + 10; step += 5) {
        struct seen s;
        assert_int_equal(respond(text, step, head, eof, &s), want);
        assert_int_equal(s.status, status);
        assert_true(mu_bytes_is(mu_buf_bytes(&s.body), body));
        mu_buf_fini(&s.body);
    }
}

static void answers_of_every_framing_are_read(void **state)
{
    (void)state;
    expect_body("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, false, 1, 200, "hello");
    expect_body(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
        false, false, 1, 200, "hello");
    expect_body("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello", false, true, 1, 200, "hello");
    expect_body("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}",
                false, false, 1, 201, "{}");
    expect_body("HTTP/1.1 204 No Content\r\n\r\n", false, false, 1, 204, "");
    expect_body("HTTP/1.1 304 Not Modified\r\n\r\n", false, false, 1, 304, "");
    expect_body("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", true, false, 1, 200, "");
}

static void what_is_cut_off_or_no_answer_is_an_error(void **state)
{
    (void)state;
    expect_body("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", false, true, MU_E_CLOSED, 200,
                "hel");
    expect_body("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n", false, true,
                MU_E_CLOSED, 200, "hel");
    expect_body("HTTP/1.1 200 OK\r\nCont", false, true, MU_E_CLOSED, 0, "");
    expect_body("SSH-2.0-something\r\n", false, false, MU_E_PROTOCOL, 0, "");
    expect_body("HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\n", false, false, MU_E_PROTOCOL, 0,
                "");
}

static void an_endless_head_is_given_up(void **state)
{
    struct seen s;
    struct mu_buf text;
    (void)state;
    mu_buf_init(&text, 1 << 20);
    mu_buf_add_str(&text, "HTTP/1.1 200 OK\r\n");
    for (int i = 0; i < 4000; i++) {
        mu_buf_add_str(&text, "X-Some: value value value\r\n");
    }
    mu_buf_add_char(&text, 0);
    assert_int_equal(respond(text.ptr, 1000, false, false, &s), MU_E_TOO_LARGE);
    mu_buf_fini(&s.body);
    mu_buf_fini(&text);
}

/* --- version, host --- */

static void the_version_is_the_engines_within_our_range(void **state)
{
    char v[MU_ENGINE_VERSION_LEN];
    (void)state;
    assert_int_equal(mu_engine_negotiate(MU_B("1.41"), v), 0);
    assert_string_equal(v, "1.41");
    assert_int_equal(mu_engine_negotiate(MU_B("1.52"), v), 0);
    assert_string_equal(v, "1.47");
    assert_int_equal(mu_engine_negotiate(MU_B("2.0"), v), 0);
    assert_string_equal(v, "1.47");
    assert_int_equal(mu_engine_negotiate(MU_B("1.39"), v), MU_E_VERSION);
    assert_int_equal(mu_engine_negotiate(MU_B(""), v), MU_E_INVALID);
    assert_int_equal(mu_engine_negotiate(MU_B("1"), v), MU_E_INVALID);
    assert_int_equal(mu_engine_negotiate(MU_B("one.two"), v), MU_E_INVALID);
}

static void addresses_of_engines_are_read_strictly(void **state)
{
    static const char *good[] = {"unix:///run/x.sock", "/run/x.sock", "tcp://127.0.0.1:2375",
                                 "tcp://[::1]:2375/", "http://engine:80"};
    static const char *bad[] = {
        "",           "x.sock",         "unix://x.sock",          "tcp://host",
        "tcp://:1",   "tcp://h:0",      "tcp://h:65536",          "tcp://[::1]",
        "ssh://host", "https://host:1", "npipe:////./pipe/docker"};
    struct mu_loop *loop;
    (void)state;
    assert_int_equal(mu_loop_new(&mu_env_real, "test", &loop), 0);
    for (size_t i = 0; i < MU_ARRAY_LEN(good); i++) {
        struct mu_engine *e;
        assert_int_equal(mu_engine_new(loop, good[i], &e, NULL), 0);
        mu_engine_free(e);
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        struct mu_engine *e;
        struct mu_err err = {0};
        assert_int_equal(mu_engine_new(loop, bad[i], &e, &err), MU_E_INVALID);
        assert_true(strstr(err.text, "tcp://host:port") != NULL);
    }
    mu_loop_free(loop);
}

/* --- tar --- */

struct list {
    struct mu_buf text;
};

static int list_entry(void *arg, const struct mu_tar_entry *e)
{
    struct list *l = arg;
    mu_buf_printf(&l->text, "[%c %o %lld %.*s]", e->type, e->mode, (long long)e->size,
                  (int)MU_MIN(e->name.len, 20u), e->name.ptr);
    return 0;
}

static int list_data(void *arg, mu_bytes piece)
{
    struct list *l = arg;
    mu_buf_add(&l->text, piece);
    return 0;
}

static int read_tar(mu_bytes in, size_t step, struct list *l, bool *ret_done)
{
    struct mu_tar t;
    int r = 0;
    mu_tar_init(&t);
    t.on_entry = list_entry;
    t.on_data = list_data;
    t.arg = l;
    mu_buf_init(&l->text, 1 << 20);
    for (size_t at = 0; at < in.len && r == 0; at += step) {
        r = mu_tar_feed(&t, mu_bytes_head(mu_bytes_from(in, at), step));
    }
    *ret_done = t.done;
    mu_tar_fini(&t);
    return r;
}

static void what_was_written_is_read_however_it_is_cut(void **state)
{
    struct mu_buf tar;
    char longer[200];
    (void)state;
    memset(longer, 'n', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    mu_buf_init(&tar, 1 << 20);
    mu_tar_add_dir(&tar, "dir", 0755);
    mu_tar_add_file(&tar, "dir/a", 0644, MU_B("hello"));
    mu_tar_add_file(&tar, longer, 0400, MU_B(""));
    mu_tar_add_file(&tar, "z", 0755, MU_B("end"));
    mu_tar_add_end(&tar);
    for (size_t step = 1; step < 1200; step += 101) {
        struct list l;
        bool done;
        assert_int_equal(read_tar(mu_buf_bytes(&tar), step, &l, &done), 0);
        assert_true(done);
        mu_buf_add_char(&l.text, 0);
        assert_string_equal(l.text.ptr, "[5 755 0 dir][0 644 5 dir/a]hello"
                                        "[0 400 0 nnnnnnnnnnnnnnnnnnnn][0 755 3 z]end");
        mu_buf_fini(&l.text);
    }
    mu_buf_fini(&tar);
}

/* Built by hand: one header block of the given name, size field and kind. */
static void raw_header(struct mu_buf *b, const char *name, char type, const char *size, size_t len)
{
    char h[512] = {0};
    unsigned sum = 0;
    snprintf(h, 100, "%s", name);
    snprintf(h + 100, 8, "%07o", 0640u);
    memcpy(h + 124, size, len);
    h[156] = type;
    memcpy(h + 257,
           "ustar\0"
           "00",
           8);
    memset(h + 148, ' ', 8);
    for (size_t i = 0; i < sizeof h; i++) {
        sum += (unsigned char)h[i];
    }
    snprintf(h + 148, 8, "%06o", sum);
    mu_buf_add(b, mu_bytes_of(h, sizeof h));
}

static void padded(struct mu_buf *b, const char *text)
{
    char block[512] = {0};
    snprintf(block, sizeof block, "%s", text);
    mu_buf_add(b, mu_bytes_of(block, sizeof block));
}

static void pax_gnu_and_binary_numbers_are_understood(void **state)
{
    struct mu_buf tar;
    struct list l;
    bool done;
    (void)state;
    mu_buf_init(&tar, 1 << 20);
    raw_header(&tar, "pax", 'x', "00000000045", 11); /* 37 bytes */
    padded(&tar, "17 path=real.txt\n9 size=4\n11 mtime=1\n");
    raw_header(&tar, "short", '0', "00000000000", 11);
    padded(&tar, "data");
    raw_header(&tar, "@LongLink", 'L', "00000000006", 11);
    padded(&tar, "hello");
    raw_header(&tar, "cut", '0', "\x80\0\0\0\0\0\0\0\0\0\0\2", 12);
    padded(&tar, "ok");
    raw_header(&tar, "link", '2', "00000000777", 11); /* a size that means nothing */
    mu_tar_add_end(&tar);
    assert_int_equal(read_tar(mu_buf_bytes(&tar), 100, &l, &done), 0);
    mu_buf_add_char(&l.text, 0);
    assert_string_equal(l.text.ptr, "[0 640 4 real.txt]data[0 640 2 hello]ok[2 640 0 link]");
    mu_buf_fini(&l.text);
    mu_buf_fini(&tar);
}

static void broken_archives_are_refused(void **state)
{
    static const char *pax[] = {"5 a=b\n",  "99 path=x\n", "path=x\n",
                                "7 nope\n", "9 size=-1\n", "0 =\n"};
    struct mu_buf tar;
    struct list l;
    bool done;
    (void)state;
    mu_buf_init(&tar, 1 << 20);
    for (size_t i = 0; i < MU_ARRAY_LEN(pax); i++) {
        char size[16];
        mu_buf_clear(&tar);
        snprintf(size, sizeof size, "%011zo", strlen(pax[i]));
        raw_header(&tar, "pax", 'x', size, 11);
        padded(&tar, pax[i]);
        assert_int_equal(read_tar(mu_buf_bytes(&tar), 512, &l, &done), MU_E_CORRUPT);
        mu_buf_fini(&l.text);
    }
    mu_buf_clear(&tar);
    raw_header(&tar, "x", '0', "00000000001", 11);
    tar.ptr[0] = 'y'; /* the sum does not fit any more */
    assert_int_equal(read_tar(mu_buf_bytes(&tar), 512, &l, &done), MU_E_CORRUPT);
    mu_buf_fini(&l.text);
    mu_buf_clear(&tar);
    raw_header(&tar, "pax", 'x', "77777777777", 11);
    assert_int_equal(read_tar(mu_buf_bytes(&tar), 512, &l, &done), MU_E_TOO_LARGE);
    mu_buf_fini(&l.text);
    mu_buf_fini(&tar);
}

static int tar_once(void *arg)
{
    struct mu_buf tar;
    struct list l;
    bool done;
    (void)arg;
    mu_buf_init(&tar, 1 << 20);
    mu_tar_add_file(&tar, "a", 0644, MU_B("x"));
    mu_tar_add_end(&tar);
    int r = tar.failed ? tar.failed : read_tar(mu_buf_bytes(&tar), 300, &l, &done);
    if (!tar.failed) {
        mu_buf_fini(&l.text);
    }
    mu_buf_fini(&tar);
    return r;
}

static void an_archive_without_memory_leaks_nothing(void **state)
{
    (void)state;
    each_allocation_fails(tar_once, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hundred_lines_come_out_whole_wherever_the_frames_are_cut),
        cmocka_unit_test(what_is_no_frame_is_refused_and_empty_frames_are_not),
        cmocka_unit_test(an_error_inside_a_pull_is_noticed_however_it_is_cut),
        cmocka_unit_test(an_endless_object_is_given_up),
        cmocka_unit_test(a_pull_without_memory_leaks_nothing),
        cmocka_unit_test(foreign_text_becomes_one_line),
        cmocka_unit_test(answers_of_every_framing_are_read),
        cmocka_unit_test(what_is_cut_off_or_no_answer_is_an_error),
        cmocka_unit_test(an_endless_head_is_given_up),
        cmocka_unit_test(the_version_is_the_engines_within_our_range),
        cmocka_unit_test(addresses_of_engines_are_read_strictly),
        cmocka_unit_test(what_was_written_is_read_however_it_is_cut),
        cmocka_unit_test(pax_gnu_and_binary_numbers_are_understood),
        cmocka_unit_test(broken_archives_are_refused),
        cmocka_unit_test(an_archive_without_memory_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
