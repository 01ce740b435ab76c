#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "../alloc_fail.h"
#include "proto/http1.h"

/* What a conversation with the parser looked like, as text. */
struct seen {
    struct mu_buf log;
    int status;
    struct mu_arena arena;
    struct mu_http1 *p;
    mu_bytes body;
    char body_text[4096];
    int messages;
};

static void note_head(struct seen *s)
{
    const struct mu_http_head *h = mu_http1_head(s->p);
    mu_buf_printf(&s->log, "HEAD %.*s path=%.*s query=%.*s host=%.*s len=%lld%s%s%s%s%s\n",
                  MU_ARGS(h->method_name), MU_ARGS(h->path), MU_ARGS(h->query), MU_ARGS(h->host),
                  (long long)h->content_length, h->chunked ? " chunked" : "",
                  h->keep_alive ? " keep" : "", h->upgrade ? " upgrade" : "",
                  h->expect_continue ? " expect" : "", h->http10 ? " 1.0" : "");
    for (size_t i = 0; i < h->n_headers; i++) {
        mu_buf_printf(&s->log, "  %.*s=%.*s\n", MU_ARGS(h->headers[i].name),
                      MU_ARGS(h->headers[i].value));
    }
}

static void flush_body(struct seen *s)
{
    if (s->body.len) {
        mu_buf_printf(&s->log, "BODY %.*s\n", MU_ARGS(s->body));
        s->body.len = 0;
    }
}

/* Feeds one piece; false after an error. */
static bool feed(struct seen *s, mu_bytes in)
{
    for (;;) {
        size_t used = 0;
        enum mu_http1_event ev = mu_http1_feed(s->p, in, &used);
        assert_true(used <= in.len);
        in = mu_bytes_from(in, used);
        switch (ev) {
        case MU_HTTP1_MORE:
            assert_int_equal(in.len, 0);
            return true;
        case MU_HTTP1_HEAD:
            note_head(s);
            break;
        case MU_HTTP1_BODY: {
            mu_bytes b = mu_http1_body(s->p);
            assert_true(s->body.len + b.len <= sizeof s->body_text);
            memcpy(s->body_text + s->body.len, b.ptr, b.len);
            s->body = mu_bytes_of(s->body_text, s->body.len + b.len);
            break;
        }
        case MU_HTTP1_DONE:
            flush_body(s);
            mu_buf_add_str(&s->log, "DONE\n");
            s->messages++;
            mu_arena_fini(&s->arena);
            mu_http1_reset(s->p, &s->arena);
            if (in.len == 0) {
                return true;
            }
            break;
        case MU_HTTP1_ERROR: {
            const char *text = NULL;
            flush_body(s);
            s->status = mu_http1_status(s->p, &text);
            assert_non_null(text);
            mu_buf_printf(&s->log, "ERROR %d %s\n", s->status, text);
            assert_int_equal(mu_http1_feed(s->p, in, &used), MU_HTTP1_ERROR);
            return false;
        }
        }
    }
}

static void seen_init(struct seen *s)
{
    memset(s, 0, sizeof *s);
    mu_buf_init(&s->log, 1 << 20);
    mu_arena_init(&s->arena, 1 << 20);
    assert_int_equal(mu_http1_new(&mu_http1_default_limits, &s->arena, &s->p), 0);
}

static void seen_fini(struct seen *s)
{
    mu_http1_free(s->p);
    mu_arena_fini(&s->arena);
    mu_buf_fini(&s->log);
}

/* Copied to the heap, so that ASan sees a byte too far. */
static bool feed_copy(struct seen *s, mu_bytes in)
{
    char *copy = malloc(in.len ? in.len : 1);
    memcpy(copy, in.ptr, in.len);
    bool ok = feed(s, mu_bytes_of(copy, in.len));
    free(copy);
    return ok;
}

static void whole(struct seen *s, mu_bytes in)
{
    seen_init(s);
    feed_copy(s, in);
}

static void bytewise(struct seen *s, mu_bytes in)
{
    seen_init(s);
    for (size_t i = 0; i < in.len && feed_copy(s, mu_bytes_of(in.ptr + i, 1)); i++) {
    }
}

static void assert_log(struct seen *s, const char *want)
{
    mu_buf_add_char(&s->log, 0);
    assert_string_equal(s->log.ptr, want);
}

static const char two_requests[] = "POST /a%20b/./c?x=1&y=%2F HTTP/1.1\r\n"
                                   "Host: example.test:8080\r\n"
                                   "Empty:\r\n"
                                   "X-Padded: \t value with spaces \t\r\n"
                                   "Content-Length: 5\r\n"
                                   "\r\n"
                                   "hello"
                                   "\r\n"
                                   "PUT /up HTTP/1.1\r\n"
                                   "hOST: [::1]:80\r\n"
                                   "Expect: 100-Continue\r\n"
                                   "Transfer-Encoding: Chunked\r\n"
                                   "\r\n"
                                   "4;name=value\r\nwiki\r\n"
                                   "A\r\n0123456789\r\n"
                                   "0\r\nTrailer: x\r\n\r\n"
                                   "GET / HTTP/1.0\r\n\r\n";
static const char two_requests_log[] =
    "HEAD POST path=/a b/c query=x=1&y=%2F host=example.test:8080 len=5 keep\n"
    "  Host=example.test:8080\n"
    "  Empty=\n"
    "  X-Padded=value with spaces\n"
    "  Content-Length=5\n"
    "BODY hello\n"
    "DONE\n"
    "HEAD PUT path=/up query= host=[::1]:80 len=-1 chunked keep expect\n"
    "  hOST=[::1]:80\n"
    "  Expect=100-Continue\n"
    "  Transfer-Encoding=Chunked\n"
    "BODY wiki0123456789\n"
    "DONE\n"
    "HEAD GET path=/ query= host= len=-1 1.0\n"
    "DONE\n";

static void pipelined_requests_parse_in_order(void **state)
{
    (void)state;
    struct seen s;
    whole(&s, mu_bytes_of(two_requests, sizeof two_requests - 1));
    assert_log(&s, two_requests_log);
    seen_fini(&s);
}

static void every_cut_gives_the_same_events(void **state)
{
    (void)state;
    mu_bytes all = mu_bytes_of(two_requests, sizeof two_requests - 1);
    for (size_t cut = 0; cut <= all.len; cut++) {
        struct seen s;
        seen_init(&s);
        assert_true(feed_copy(&s, mu_bytes_head(all, cut)));
        assert_true(feed_copy(&s, mu_bytes_from(all, cut)));
        assert_log(&s, two_requests_log);
        seen_fini(&s);
    }
    struct seen s;
    bytewise(&s, all);
    assert_log(&s, two_requests_log);
    seen_fini(&s);
}

#define OK_HOST "Host: a\r\n"
#define GET     "GET / HTTP/1.1\r\n" OK_HOST
#define POST    "POST / HTTP/1.1\r\n" OK_HOST
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"

static const struct {
    const char *what;
    mu_bytes in;
    int status;
} malformed[] = {
    {"content-length beside chunked",
     MU_B(POST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400},
    {"chunked beside content-length",
     MU_B(POST "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"), 400},
    {"two content-lengths that differ",
     MU_B(POST "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"), 400},
    {"two content-lengths that agree",
     MU_B(POST "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"), 400},
    {"list of content-lengths", MU_B(POST "Content-Length: 3, 3\r\n\r\nabc"), 400},
    {"signed content-length", MU_B(POST "Content-Length: +3\r\n\r\nabc"), 400},
    {"negative content-length", MU_B(POST "Content-Length: -3\r\n\r\nabc"), 400},
    {"hexadecimal content-length", MU_B(POST "Content-Length: 0x3\r\n\r\nabc"), 400},
    {"content-length with a space inside", MU_B(POST "Content-Length: 1 2\r\n\r\nabc"), 400},
    {"empty content-length", MU_B(POST "Content-Length: \r\n\r\nabc"), 400},
    {"content-length beyond 64 bits", MU_B(POST "Content-Length: 18446744073709551619\r\n\r\nabc"),
     400},
    {"content-length beyond signed 64 bits",
     MU_B(POST "Content-Length: 9223372036854775808\r\n\r\nabc"), 400},
    {"unknown coding", MU_B(POST "Transfer-Encoding: gzip\r\n\r\n"), 501},
    {"unknown coding before chunked", MU_B(POST "Transfer-Encoding: gzip, chunked\r\n\r\n"), 501},
    {"identity coding", MU_B(POST "Transfer-Encoding: identity\r\n\r\n"), 501},
    {"misspelt coding", MU_B(POST "Transfer-Encoding: xchunked\r\n\r\n"), 501},
    {"quoted coding", MU_B(POST "Transfer-Encoding: \"chunked\"\r\n\r\n"), 501},
    {"chunked twice", MU_B(POST "Transfer-Encoding: chunked, chunked\r\n\r\n"), 400},
    {"chunked not last", MU_B(POST "Transfer-Encoding: chunked, identity\r\n\r\n"), 400},
    {"chunked in two headers",
     MU_B(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"), 400},
    {"chunked and unknown in two headers",
     MU_B(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n"), 400},
    {"coding with vertical tab",
     MU_B(POST "Transfer-Encoding: \x0b"
               "chunked\r\n\r\n"),
     400},
    {"coding with space before the colon", MU_B(POST "Transfer-Encoding : chunked\r\n\r\n"), 400},
    {"coding in a folded line", MU_B(POST "Transfer-Encoding:\r\n chunked\r\n\r\n"), 400},
    {"chunked in HTTP/1.0", MU_B("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
     400},
    {"chunk size that is no number", MU_B(CHUNKED "x\r\n"), 400},
    {"chunk size with prefix", MU_B(CHUNKED "0x3\r\nabc\r\n0\r\n\r\n"), 400},
    {"chunk size with sign", MU_B(CHUNKED "+3\r\nabc\r\n0\r\n\r\n"), 400},
    {"negative chunk size", MU_B(CHUNKED "-3\r\nabc\r\n0\r\n\r\n"), 400},
    {"chunk size beyond 64 bits", MU_B(CHUNKED "10000000000000003\r\nabc\r\n0\r\n\r\n"), 400},
    {"chunk size with space", MU_B(CHUNKED "3 \r\nabc\r\n0\r\n\r\n"), 400},
    {"empty chunk size", MU_B(CHUNKED "\r\nabc\r\n0\r\n\r\n"), 400},
    {"chunk line with bare LF", MU_B(CHUNKED "3\nabc\r\n0\r\n\r\n"), 400},
    {"chunk without CRLF behind it", MU_B(CHUNKED "3\r\nabc0\r\n\r\n"), 400},
    {"chunk with bare LF behind it", MU_B(CHUNKED "3\r\nabc\n0\r\n\r\n"), 400},
    {"chunk longer than its size", MU_B(CHUNKED "3\r\nabcd\r\n0\r\n\r\n"), 400},
    {"last chunk ended by bare LF", MU_B(CHUNKED "0\n\n"), 400},
    {"trailers ended by bare LF", MU_B(CHUNKED "0\r\nA: b\n\n"), 400},
    {"folded trailer", MU_B(CHUNKED "0\r\nA: b\r\n c\r\n\r\n"), 400},
    {"control byte in a chunk extension", MU_B(CHUNKED "3;a\x01\r\nabc\r\n0\r\n\r\n"), 400},
    {"no host", MU_B("GET / HTTP/1.1\r\n\r\n"), 400},
    {"two hosts", MU_B(GET "Host: b\r\n\r\n"), 400},
    {"the same host twice", MU_B(GET OK_HOST "\r\n"), 400},
    {"two hosts in HTTP/1.0", MU_B("GET / HTTP/1.0\r\n" OK_HOST OK_HOST "\r\n"), 400},
    {"empty host", MU_B("GET / HTTP/1.1\r\nHost:\r\n\r\n"), 400},
    {"list of hosts", MU_B("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"), 400},
    {"host with user", MU_B("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"), 400},
    {"host with path", MU_B("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"), 400},
    {"host with bad port", MU_B("GET / HTTP/1.1\r\nHost: a:8o\r\n\r\n"), 400},
    {"host with signed port", MU_B("GET / HTTP/1.1\r\nHost: a:-1\r\n\r\n"), 400},
    {"host with port out of range", MU_B("GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n"), 400},
    {"host with open bracket", MU_B("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"), 400},
    {"host with empty brackets", MU_B("GET / HTTP/1.1\r\nHost: []\r\n\r\n"), 400},
    {"host that is not ASCII", MU_B("GET / HTTP/1.1\r\nHost: \xc3\xa4\r\n\r\n"), 400},
    {"host with a space inside", MU_B("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), 400},
    {"folded header", MU_B(GET "A: b\r\n c\r\n\r\n"), 400},
    {"header block that begins folded", MU_B("GET / HTTP/1.1\r\n Host: a\r\n\r\n"), 400},
    {"tab before the first header", MU_B("GET / HTTP/1.1\r\n\tHost: a\r\n\r\n"), 400},
    {"space before the colon", MU_B("GET / HTTP/1.1\r\nHost : a\r\n\r\n"), 400},
    {"tab before the colon", MU_B("GET / HTTP/1.1\r\nHost\t: a\r\n\r\n"), 400},
    {"header without colon", MU_B(GET "Abc\r\n\r\n"), 400},
    {"header without name", MU_B(GET ": x\r\n\r\n"), 400},
    {"header name with a bracket", MU_B(GET "A[b]: x\r\n\r\n"), 400},
    {"header name that is not ASCII", MU_B(GET "\xc3\xa4: x\r\n\r\n"), 400},
    {"header name with NUL", MU_B(GET "A\0b: x\r\n\r\n"), 400},
    {"header value with NUL", MU_B(GET "A: x\0y\r\n\r\n"), 400},
    {"header value with a control byte", MU_B(GET "A: x\x01y\r\n\r\n"), 400},
    {"header value with DEL", MU_B(GET "A: x\x7fy\r\n\r\n"), 400},
    {"header line ended by bare LF", MU_B("GET / HTTP/1.1\nHost: a\n\n"), 400},
    {"one header line ended by bare LF", MU_B(GET "A: b\nC: d\r\n\r\n"), 400},
    {"bare CR in a header", MU_B(GET "A: b\rC: d\r\n\r\n"), 400},
    {"CR CR LF", MU_B(GET "A: b\r\r\n\r\n"), 400},
    {"header block ended by CR and something", MU_B(GET "\rX"), 400},
    {"header block ended by bare LF", MU_B(GET "\n"), 400},
    {"start line ended by bare LF", MU_B("GET / HTTP/1.1\n" OK_HOST "\r\n"), 400},
    {"start line ended by bare CR", MU_B("GET / HTTP/1.1\r" OK_HOST "\r\n"), 400},
    {"two spaces before the target", MU_B("GET  / HTTP/1.1\r\n" OK_HOST "\r\n"), 400},
    {"two spaces before the version", MU_B("GET /  HTTP/1.1\r\n" OK_HOST "\r\n"), 400},
    {"space behind the version", MU_B("GET / HTTP/1.1 \r\n" OK_HOST "\r\n"), 400},
    {"tab instead of space", MU_B("GET\t/\tHTTP/1.1\r\n" OK_HOST "\r\n"), 400},
    {"space in front of the method", MU_B(" GET / HTTP/1.1\r\n" OK_HOST "\r\n"), 400},
    {"no version", MU_B("GET /\r\n\r\n"), 400},
    {"no target", MU_B("GET HTTP/1.1\r\n" OK_HOST "\r\n"), 400},
    {"no method", MU_B("/ HTTP/1.1\r\n" OK_HOST "\r\n"), 400},
    {"small-letter method", MU_B("get / HTTP/1.1\r\n" OK_HOST "\r\n"), 400},
    {"unknown method", MU_B("FROB / HTTP/1.1\r\n" OK_HOST "\r\n"), 400},
    {"small-letter protocol", MU_B("GET / http/1.1\r\n" OK_HOST "\r\n"), 400},
    {"other protocol", MU_B("GET / RTSP/1.0\r\n" OK_HOST "\r\n"), 400},
    {"ICE protocol", MU_B("SOURCE / ICE/1.0\r\n" OK_HOST "\r\n"), 400},
    {"HTTP/0.9", MU_B("GET / HTTP/0.9\r\n" OK_HOST "\r\n"), 505},
    {"HTTP/1.2", MU_B("GET / HTTP/1.2\r\n" OK_HOST "\r\n"), 505},
    {"HTTP/2.0", MU_B("GET / HTTP/2.0\r\n" OK_HOST "\r\n"), 505},
    {"HTTP/3.0", MU_B("GET / HTTP/3.0\r\n" OK_HOST "\r\n"), 505},
    {"HTTP/2 preface", MU_B("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505},
    {"long version", MU_B("GET / HTTP/1.10\r\n" OK_HOST "\r\n"), 400},
    {"version without minor", MU_B("GET / HTTP/1\r\n" OK_HOST "\r\n"), 400},
    {"connect", MU_B("CONNECT a:443 HTTP/1.1\r\n" OK_HOST "\r\n"), 400},
    {"absolute target", MU_B("GET http://a/ HTTP/1.1\r\n" OK_HOST "\r\n"), 400},
    {"authority target", MU_B("GET a:80 HTTP/1.1\r\n" OK_HOST "\r\n"), 400},
    {"star without OPTIONS", MU_B("GET * HTTP/1.1\r\n" OK_HOST "\r\n"), 400},
    {"fragment", MU_B("GET /a#b HTTP/1.1\r\n" OK_HOST "\r\n"), 400},
    {"fragment in the query", MU_B("GET /a?b#c HTTP/1.1\r\n" OK_HOST "\r\n"), 400},
    {"control byte in the target", MU_B("GET /a\x01 HTTP/1.1\r\n" OK_HOST "\r\n"), 400},
    {"NUL in the target", MU_B("GET /a\0b HTTP/1.1\r\n" OK_HOST "\r\n"), 400},
    {"DEL in the target", MU_B("GET /a\x7f HTTP/1.1\r\n" OK_HOST "\r\n"), 400},
    {"non-ASCII target", MU_B("GET /\xc3\xa4 HTTP/1.1\r\n" OK_HOST "\r\n"), 400},
    {"non-ASCII query", MU_B("GET /?\xc3\xa4 HTTP/1.1\r\n" OK_HOST "\r\n"), 400},
    {"encoded NUL", MU_B("GET /%00 HTTP/1.1\r\n" OK_HOST "\r\n"), 400},
    {"encoded newline", MU_B("GET /%0a HTTP/1.1\r\n" OK_HOST "\r\n"), 400},
    {"encoded slash", MU_B("GET /a%2fb HTTP/1.1\r\n" OK_HOST "\r\n"), 400},
    {"encoded backslash", MU_B("GET /a%5Cb HTTP/1.1\r\n" OK_HOST "\r\n"), 400},
    {"backslash", MU_B("GET /a\\b HTTP/1.1\r\n" OK_HOST "\r\n"), 400},
    {"broken escape", MU_B("GET /%zz HTTP/1.1\r\n" OK_HOST "\r\n"), 400},
    {"escape cut off", MU_B("GET /%4 HTTP/1.1\r\n" OK_HOST "\r\n"), 400},
    {"parent segment", MU_B("GET /a/../b HTTP/1.1\r\n" OK_HOST "\r\n"), 400},
    {"encoded parent segment", MU_B("GET /a/%2e%2E/b HTTP/1.1\r\n" OK_HOST "\r\n"), 400},
    {"path of invalid UTF-8", MU_B("GET /%ff HTTP/1.1\r\n" OK_HOST "\r\n"), 400},
    {"path of overlong UTF-8", MU_B("GET /%c0%af HTTP/1.1\r\n" OK_HOST "\r\n"), 400},
    {"many empty lines", MU_B("\r\n\r\n\r\n\r\n" GET "\r\n"), 400},
    {"bare LF in front", MU_B("\n" GET "\r\n"), 400},
    {"bare CR in front", MU_B("\r" GET "\r\n"), 400},
    {"TLS handshake", MU_B("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), 400},
    {"byte order mark", MU_B("\xef\xbb\xbf" GET "\r\n"), 400},
};

static void malformed_requests_have_one_answer_each(void **state)
{
    (void)state;
    for (size_t i = 0; i < MU_ARRAY_LEN(malformed); i++) {
        struct seen a, b;
        whole(&a, malformed[i].in);
        bytewise(&b, malformed[i].in);
        if (a.status != malformed[i].status ||
            !mu_bytes_eq(mu_buf_bytes(&a.log), mu_buf_bytes(&b.log))) {
            fail_msg("%s: want %d, whole %d: %.*s; bytewise %.*s", malformed[i].what,
                     malformed[i].status, a.status, MU_ARGS(mu_buf_bytes(&a.log)),
                     MU_ARGS(mu_buf_bytes(&b.log)));
        }
        assert_int_equal(a.messages, 0);
        seen_fini(&a);
        seen_fini(&b);
    }
}

static const struct {
    mu_bytes in;
    const char *log;
} well_formed[] = {
    {MU_B(GET "\r\n"), "HEAD GET path=/ query= host=a len=-1 keep\n  Host=a\nDONE\n"},
    {MU_B(GET "Connection: close\r\n\r\n"),
     "HEAD GET path=/ query= host=a len=-1\n  Host=a\n  Connection=close\nDONE\n"},
    {MU_B("OPTIONS * HTTP/1.1\r\n" OK_HOST "\r\n"),
     "HEAD OPTIONS path=* query= host=a len=-1 keep\n  Host=a\nDONE\n"},
    {MU_B("GET /%C3%A4?%ff HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
     "HEAD GET path=/\xc3\xa4 query=%ff host= len=-1 keep 1.0\n  Connection=keep-alive\nDONE\n"},
    {MU_B("GET /ws HTTP/1.1\r\n" OK_HOST "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
     "HEAD GET path=/ws query= host=a len=-1 keep upgrade\n  Host=a\n  Connection=Upgrade\n"
     "  Upgrade=websocket\nDONE\n"},
    {MU_B(GET "X: \xc3\xa4\r\n\r\n"),
     "HEAD GET path=/ query= host=a len=-1 keep\n  Host=a\n  X=\xc3\xa4\nDONE\n"},
    {MU_B(POST "Content-Length: 0\r\n\r\n"),
     "HEAD POST path=/ query= host=a len=0 keep\n  Host=a\n  Content-Length=0\nDONE\n"},
    {MU_B(CHUNKED "0\r\n\r\n"), "HEAD POST path=/ query= host=a len=-1 chunked keep\n  Host=a\n"
                                "  Transfer-Encoding=chunked\nDONE\n"},
    {MU_B("DELETE //a///b/. HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"),
     "HEAD DELETE path=//a///b/ query= host=127.0.0.1 len=-1 keep\n  Host=127.0.0.1\nDONE\n"},
    {MU_B("\r\n" GET "\r\n"), "HEAD GET path=/ query= host=a len=-1 keep\n  Host=a\nDONE\n"},
};

static void well_formed_requests_parse(void **state)
{
    (void)state;
    for (size_t i = 0; i < MU_ARRAY_LEN(well_formed); i++) {
        struct seen a, b;
        whole(&a, well_formed[i].in);
        assert_log(&a, well_formed[i].log);
        bytewise(&b, well_formed[i].in);
        assert_log(&b, well_formed[i].log);
        seen_fini(&a);
        seen_fini(&b);
    }
}

static int status_of(struct mu_buf *b)
{
    struct seen s1, s2;
    whole(&s1, mu_buf_bytes(b));
    bytewise(&s2, mu_buf_bytes(b));
    assert_int_equal(s1.status, s2.status);
    int status = s1.status;
    seen_fini(&s1);
    seen_fini(&s2);
    return status;
}

static int start_line_of(size_t len)
{
    struct mu_buf b;
    mu_buf_init(&b, 1 << 20);
    mu_buf_add_str(&b, "GET /");
    while (b.len < len - 9) {
        mu_buf_add_char(&b, 'a');
    }
    mu_buf_add_str(&b, " HTTP/1.1\r\n" OK_HOST "\r\n");
    int status = status_of(&b);
    mu_buf_fini(&b);
    return status;
}

static void start_line_has_a_maximum(void **state)
{
    (void)state;
    assert_int_equal(start_line_of(8192), 0);
    assert_int_equal(start_line_of(8193), 414);
}

static int headers_of(size_t n, size_t value_len)
{
    struct mu_buf b;
    mu_buf_init(&b, 1 << 20);
    mu_buf_add_str(&b, GET);
    for (size_t i = 1; i < n; i++) {
        mu_buf_add_str(&b, "X: ");
        for (size_t k = 0; k < value_len; k++) {
            mu_buf_add_char(&b, 'v');
        }
        mu_buf_add_str(&b, "\r\n");
    }
    mu_buf_add_str(&b, "\r\n");
    int status = status_of(&b);
    mu_buf_fini(&b);
    return status;
}

static void header_block_has_a_maximum(void **state)
{
    (void)state;
    assert_int_equal(headers_of(100, 1), 0);
    assert_int_equal(headers_of(101, 1), 431);
    /* 9 bytes of Host, 5 + n of the other, 2 of the end */
    assert_int_equal(headers_of(2, 32768 - 16), 0);
    assert_int_equal(headers_of(2, 32768 - 15), 431);
    assert_int_equal(headers_of(2, 200000), 431);
}

static void endless_chunk_framing_is_refused(void **state)
{
    (void)state;
    struct mu_buf b;
    mu_buf_init(&b, 1 << 20);
    mu_buf_add_str(&b, CHUNKED "1;");
    for (int i = 0; i < 40000; i++) {
        mu_buf_add_char(&b, 'x');
    }
    assert_int_equal(status_of(&b), 400);
    mu_buf_clear(&b);
    mu_buf_add_str(&b, CHUNKED "0\r\n");
    for (int i = 0; i < 20000; i++) {
        mu_buf_add_str(&b, "A: b\r\n");
    }
    assert_int_equal(status_of(&b), 400);
    mu_buf_fini(&b);
}

static void one_byte_chunks_are_fine(void **state)
{
    (void)state;
    struct mu_buf b;
    mu_buf_init(&b, 1 << 20);
    mu_buf_add_str(&b, CHUNKED);
    for (int i = 0; i < 4000; i++) {
        mu_buf_add_str(&b, "1\r\nx\r\n");
    }
    mu_buf_add_str(&b, "0\r\n\r\n");
    assert_int_equal(status_of(&b), 0);
    mu_buf_fini(&b);
}

static void in_message_begins_with_the_first_real_byte(void **state)
{
    (void)state;
    struct seen s;
    seen_init(&s);
    assert_false(mu_http1_in_message(s.p));
    feed_copy(&s, MU_B("\r\n"));
    assert_false(mu_http1_in_message(s.p));
    feed_copy(&s, MU_B("G"));
    assert_true(mu_http1_in_message(s.p));
    feed_copy(&s, MU_B("ET / HTTP/1.1\r\n" OK_HOST "\r\n"));
    assert_false(mu_http1_in_message(s.p));
    seen_fini(&s);
}

static int parse_without_memory(void *arg)
{
    (void)arg;
    struct mu_arena arena;
    struct mu_http1 *p = NULL;
    mu_arena_init(&arena, 1 << 20);
    if (mu_http1_new(&mu_http1_default_limits, &arena, &p) < 0) {
        return -ENOMEM;
    }
    mu_bytes in = mu_bytes_of(two_requests, sizeof two_requests - 1);
    int r = 0;
    for (size_t i = 0; i < in.len && r == 0; i++) {
        mu_bytes piece = mu_bytes_of(in.ptr + i, 1);
        size_t used;
        enum mu_http1_event ev;
        do {
            ev = mu_http1_feed(p, piece, &used);
            piece = mu_bytes_from(piece, used);
            if (ev == MU_HTTP1_DONE) {
                mu_arena_fini(&arena);
                mu_http1_reset(p, &arena);
            }
        } while (ev == MU_HTTP1_HEAD || ev == MU_HTTP1_BODY || (ev == MU_HTTP1_DONE && piece.len));
        if (ev == MU_HTTP1_ERROR) {
            const char *text;
            assert_int_equal(mu_http1_status(p, &text), 503);
            r = -ENOMEM;
        }
    }
    mu_http1_free(p);
    mu_arena_fini(&arena);
    return r;
}

static void running_out_of_memory_is_503(void **state)
{
    (void)state;
    each_allocation_fails(parse_without_memory, NULL);
    assert_int_equal(parse_without_memory(NULL), 0);
}

static void a_full_arena_is_503(void **state)
{
    (void)state;
    struct mu_arena arena;
    struct mu_http1 *p = NULL;
    const char *text;
    size_t used;
    mu_arena_init(&arena, 600);
    assert_int_equal(mu_http1_new(&mu_http1_default_limits, &arena, &p), 0);
    assert_int_equal(mu_http1_feed(p, MU_B(GET "\r\n"), &used), MU_HTTP1_ERROR);
    assert_int_equal(mu_http1_status(p, &text), 503);
    mu_http1_free(p);
    mu_arena_fini(&arena);
}

static void reasons_are_known(void **state)
{
    (void)state;
    assert_string_equal(mu_http_reason(200), "OK");
    assert_string_equal(mu_http_reason(431), "Request Header Fields Too Large");
    assert_string_equal(mu_http_reason(299), "Unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pipelined_requests_parse_in_order),
        cmocka_unit_test(every_cut_gives_the_same_events),
        cmocka_unit_test(malformed_requests_have_one_answer_each),
        cmocka_unit_test(well_formed_requests_parse),
        cmocka_unit_test(start_line_has_a_maximum),
        cmocka_unit_test(header_block_has_a_maximum),
        cmocka_unit_test(endless_chunk_framing_is_refused),
        cmocka_unit_test(one_byte_chunks_are_fine),
        cmocka_unit_test(in_message_begins_with_the_first_real_byte),
        cmocka_unit_test(running_out_of_memory_is_503),
        cmocka_unit_test(a_full_arena_is_503),
        cmocka_unit_test(reasons_are_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
