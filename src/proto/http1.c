#include "proto/http1.h"

#include <errno.h>
#include <llhttp.h>

#include "proto/url.h"

/* Two readers look at every byte of a header block: a small scanner that knows only lines, limits
 * and which bytes may stand where, and llhttp, which knows fields and framing. The scanner goes
 * first; llhttp gets only what passed, and both must agree on where the block ends. What llhttp
 * tolerates (several spaces, RTSP, HTTP/0.9 lines) is refused by the scanner. */
enum scan {
    SCAN_LEAD,     /* empty lines in front of a message */
    SCAN_LEAD_LF,  /* … after their CR */
    SCAN_LINE,     /* start line */
    SCAN_LINE_LF,  /* … after its CR */
    SCAN_FIELD,    /* at the first byte of a header line */
    SCAN_NAME,     /* in a header name */
    SCAN_VALUE,    /* behind the colon */
    SCAN_VALUE_LF, /* after the CR of a header line */
    SCAN_END_LF,   /* after the CR of the empty line */
    SCAN_END,
};

enum phase { PHASE_HEAD, PHASE_BODY, PHASE_DONE, PHASE_ERROR };

enum {
    MAX_LEAD = 4,           /* bytes of empty lines in front of a message */
    OVERHEAD_FREE = 16384,  /* bytes of chunk framing and trailers that are always allowed … */
    OVERHEAD_PER_BYTE = 16, /* … and so many more for each byte of content */
    FIRST_TEXT = 512,
    FIRST_HEADERS = 16,
};

const struct mu_http1_limits mu_http1_default_limits = {
    .max_start_line = 8192, .max_header_bytes = 32768, .max_headers = 100};

struct mu_http1 {
    llhttp_t ll;
    struct mu_http1_limits limits;
    struct mu_arena *arena;
    enum phase phase;
    enum mu_http1_event signal; /* what a callback stopped llhttp for */
    bool paused;                /* llhttp wants llhttp_resume() first */

    enum scan scan;
    unsigned lead, spaces, version_at;
    char version[9];
    size_t line_bytes, header_bytes, n_lines;

    char *text; /* target, names and values, in the arena */
    size_t text_len, text_cap, headers_cap;
    bool in_name;
    uint64_t overhead, content;

    struct mu_http_head head;
    mu_bytes body;
    int status;
    const char *fault;
};

static enum mu_http1_event fail(struct mu_http1 *p, int status, const char *fault)
{
    if (p->phase != PHASE_ERROR) { /* the first fault is the one to tell */
        p->status = status;
        p->fault = fault;
    }
    p->phase = PHASE_ERROR;
    return MU_HTTP1_ERROR;
}

static int fail_cb(struct mu_http1 *p, int status, const char *fault)
{
    fail(p, status, fault);
    return HPE_USER;
}

/* --- the scanner --- */

static bool is_token(unsigned char c)
{
    static const char marks[] = "!#$%&'*+-.^_`|~";
    unsigned char low = c | 0x20;
    return (c >= '0' && c <= '9') || (low >= 'a' && low <= 'z') ||
           (c && memchr(marks, c, sizeof marks - 1));
}

static bool is_value(unsigned char c)
{
    return (c >= 0x20 && c != 0x7f) || c == '\t';
}

static bool scan_fail(struct mu_http1 *p, int status, const char *fault)
{
    p->status = status;
    p->fault = fault;
    return false;
}

/* The third word of the start line: "HTTP/" digit "." digit. */
static bool scan_version(struct mu_http1 *p, char c)
{
    static const char want[] = "HTTP/";
    unsigned at = p->version_at++;
    bool ok = at < 5 ? c == want[at] : at == 6 ? c == '.' : at < 8 && c >= '0' && c <= '9';
    if (!ok) {
        return scan_fail(p, 400, "malformed protocol version");
    }
    p->version[at] = c;
    return true;
}

static bool scan_line_end(struct mu_http1 *p)
{
    if (p->spaces != 2 || p->version_at != 8) {
        return scan_fail(p, 400, "malformed request line");
    }
    if (memcmp(p->version, "HTTP/1.0", 8) != 0 && memcmp(p->version, "HTTP/1.1", 8) != 0) {
        return scan_fail(p, 505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
    }
    p->scan = SCAN_LINE_LF;
    return true;
}

static bool scan_line(struct mu_http1 *p, unsigned char c)
{
    if (c == '\r') {
        return scan_line_end(p);
    }
    if (++p->line_bytes > p->limits.max_start_line) {
        return scan_fail(p, 414, "the request line is too long");
    }
    if (c < 0x20 || c > 0x7e) {
        return scan_fail(p, 400, "control or non-ASCII byte in the request line");
    }
    if (c == ' ') {
        return ++p->spaces <= 2 ? true : scan_fail(p, 400, "malformed request line");
    }
    return p->spaces == 2 ? scan_version(p, (char)c) : true;
}

static bool scan_field(struct mu_http1 *p, unsigned char c)
{
    if (c == '\r') {
        p->scan = SCAN_END_LF;
        return true;
    }
    if (c == ' ' || c == '\t') {
        return scan_fail(p, 400, "folded header line");
    }
    if (!is_token(c)) {
        return scan_fail(p, 400, "malformed header name");
    }
    if (++p->n_lines > p->limits.max_headers) {
        return scan_fail(p, 431, "too many headers");
    }
    p->scan = SCAN_NAME;
    return true;
}

static bool scan_header(struct mu_http1 *p, unsigned char c)
{
    if (++p->header_bytes > p->limits.max_header_bytes) {
        return scan_fail(p, 431, "the header block is too large");
    }
    switch (p->scan) {
    case SCAN_FIELD:
        return scan_field(p, c);
    case SCAN_NAME:
        if (c == ':') {
            p->scan = SCAN_VALUE;
            return true;
        }
        return is_token(c) ? true : scan_fail(p, 400, "malformed header name");
    case SCAN_VALUE:
        if (c == '\r') {
            p->scan = SCAN_VALUE_LF;
            return true;
        }
        return is_value(c) ? true : scan_fail(p, 400, "control byte in a header");
    default: /* SCAN_VALUE_LF, SCAN_END_LF */
        if (c != '\n') {
            return scan_fail(p, 400, "CR without LF");
        }
        p->scan = p->scan == SCAN_VALUE_LF ? SCAN_FIELD : SCAN_END;
        return true;
    }
}

static bool scan_lead(struct mu_http1 *p, unsigned char c)
{
    bool lf = p->scan == SCAN_LEAD_LF;
    if (lf || c == '\r') {
        if (lf ? c != '\n' : false) {
            return scan_fail(p, 400, "CR without LF");
        }
        if (++p->lead > MAX_LEAD) {
            return scan_fail(p, 400, "empty lines in front of a request");
        }
        p->scan = lf ? SCAN_LEAD : SCAN_LEAD_LF;
        return true;
    }
    p->scan = SCAN_LINE;
    return scan_line(p, c);
}

static bool scan_byte(struct mu_http1 *p, unsigned char c)
{
    switch (p->scan) {
    case SCAN_LEAD:
    case SCAN_LEAD_LF:
        return scan_lead(p, c);
    case SCAN_LINE:
        return scan_line(p, c);
    case SCAN_LINE_LF:
        p->scan = SCAN_FIELD;
        return c == '\n' ? true : scan_fail(p, 400, "CR without LF");
    default:
        return scan_header(p, c);
    }
}

/* Returns how many bytes are good: up to the end of the header block, or up to a fault (*ok). */
static size_t scan(struct mu_http1 *p, mu_bytes in, bool *ok)
{
    size_t i = 0;
    while (i < in.len && p->scan != SCAN_END) {
        if (!scan_byte(p, (unsigned char)in.ptr[i])) {
            *ok = false;
            return i;
        }
        i++;
        if (p->scan == SCAN_VALUE) { /* the bulk of a block: stay in here */
            size_t start = i;
            while (i < in.len && is_value((unsigned char)in.ptr[i]) &&
                   p->header_bytes + (i - start) < p->limits.max_header_bytes) {
                i++;
            }
            p->header_bytes += i - start;
        }
    }
    return i;
}

/* --- text in the arena --- */

static void move_text(struct mu_http1 *p, char *to)
{
    struct mu_http_head *h = &p->head;
    if (h->target.ptr) {
        h->target.ptr = to + (h->target.ptr - p->text);
    }
    for (size_t i = 0; i < h->n_headers; i++) {
        struct mu_http_header *f = &h->headers[i];
        if (f->name.ptr) { /* the header that is just being read may have none yet */
            f->name.ptr = to + (f->name.ptr - p->text);
        }
        if (f->value.ptr) {
            f->value.ptr = to + (f->value.ptr - p->text);
        }
    }
    if (p->text_len) {
        memcpy(to, p->text, p->text_len);
    }
}

/* Room for what is left of this input in one piece, so that a block that comes at once is never
 * moved. */
static int reserve_text(struct mu_http1 *p, size_t n)
{
    if (p->text_cap - p->text_len >= n) {
        return 0;
    }
    size_t cap = MU_MAX(p->text_cap * 2, (size_t)FIRST_TEXT);
    cap = MU_MAX(cap, p->text_len + n);
    char *to = mu_arena_alloc(p->arena, cap);
    if (!to) {
        return -1;
    }
    move_text(p, to);
    p->text = to;
    p->text_cap = cap;
    return 0;
}

static int add_text(struct mu_http1 *p, mu_bytes *dst, const char *at, size_t len)
{
    if (reserve_text(p, len) < 0) {
        return fail_cb(p, 503, "out of memory");
    }
    if (!dst->ptr) {
        *dst = mu_bytes_of(p->text + p->text_len, 0);
    }
    if (len) {
        memcpy(p->text + p->text_len, at, len);
    }
    p->text_len += len;
    dst->len += len;
    return 0;
}

static int new_header(struct mu_http1 *p)
{
    struct mu_http_head *h = &p->head;
    if (h->n_headers == p->headers_cap) {
        size_t cap = p->headers_cap ? p->headers_cap * 2 : FIRST_HEADERS;
        struct mu_http_header *more = mu_arena_alloc(p->arena, cap * sizeof *more);
        if (!more) {
            return -1;
        }
        if (h->n_headers) {
            memcpy(more, h->headers, h->n_headers * sizeof *more);
        }
        h->headers = more;
        p->headers_cap = cap;
    }
    h->headers[h->n_headers++] = (struct mu_http_header){0};
    return 0;
}

/* --- policy on the complete header block --- */

static bool one_header(const struct mu_http_head *h, const char *name, mu_bytes *ret, size_t *count)
{
    *count = 0;
    for (size_t i = 0; i < h->n_headers; i++) {
        if (mu_bytes_eq_nocase(h->headers[i].name, mu_str(name))) {
            *ret = h->headers[i].value;
            ++*count;
        }
    }
    return *count == 1;
}

static bool port_ok(mu_bytes port)
{
    int64_t v;
    return port.len <= 5 && mu_bytes_find_char(port, '-') < 0 &&
           (port.len == 0 || (mu_bytes_i64(port, &v) == 0 && v <= 65535));
}

/* name[:port] or [v6][:port], nothing that another reader could take for something else */
static bool host_ok(mu_bytes host)
{
    size_t i = 0;
    if (host.len > 0 && host.ptr[0] == '[') {
        ptrdiff_t close = mu_bytes_find_char(host, ']');
        for (i = 1; close > 1 && i < (size_t)close; i++) {
            if (!memchr("0123456789abcdefABCDEF:.", host.ptr[i], 24)) {
                return false;
            }
        }
        if (close <= 1) {
            return false;
        }
        i = (size_t)close + 1;
    } else {
        while (i < host.len &&
               ((is_token((unsigned char)host.ptr[i]) && !memchr("#%^`|", host.ptr[i], 5)))) {
            i++;
        }
    }
    if (i == 0 || i == host.len) {
        return i > 0;
    }
    return host.ptr[i] == ':' && port_ok(mu_bytes_from(host, i + 1));
}

static int check_host(struct mu_http1 *p)
{
    size_t count;
    if (one_header(&p->head, "host", &p->head.host, &count)) {
        return host_ok(p->head.host) ? 0 : fail_cb(p, 400, "malformed Host");
    }
    if (count > 1) {
        return fail_cb(p, 400, "more than one Host");
    }
    p->head.host = MU_B_NONE;
    return p->head.http10 ? 0 : fail_cb(p, 400, "no Host");
}

static int check_length(struct mu_http1 *p, mu_bytes text)
{
    int64_t v = 0;
    if (text.len == 0) {
        return fail_cb(p, 400, "malformed Content-Length");
    }
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9') {
            return fail_cb(p, 400, "malformed Content-Length");
        }
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, text.ptr[i] - '0', &v)) {
            return fail_cb(p, 400, "Content-Length is out of range");
        }
    }
    if ((uint64_t)v != p->ll.content_length) { /* llhttp must have read the same number */
        return fail_cb(p, 400, "malformed Content-Length");
    }
    p->head.content_length = v;
    return 0;
}

static int check_framing(struct mu_http1 *p)
{
    size_t lengths, codings;
    mu_bytes length = MU_B_NONE, coding = MU_B_NONE;
    one_header(&p->head, "content-length", &length, &lengths);
    one_header(&p->head, "transfer-encoding", &coding, &codings);
    if (lengths > 1) {
        return fail_cb(p, 400, "more than one Content-Length");
    }
    if (lengths && codings) {
        return fail_cb(p, 400, "Content-Length beside Transfer-Encoding");
    }
    if (lengths) {
        return check_length(p, length);
    }
    if (codings > 1 || (codings && p->head.http10)) {
        return fail_cb(p, 400, "Transfer-Encoding is not allowed here");
    }
    if (codings && !mu_bytes_eq_nocase(coding, MU_B("chunked"))) {
        bool twice = mu_bytes_find_nocase(coding, MU_B("chunked")) == 0;
        return twice ? fail_cb(p, 400, "malformed Transfer-Encoding")
                     : fail_cb(p, 501, "unknown transfer coding");
    }
    p->head.chunked = codings == 1;
    return 0;
}

static int check_target(struct mu_http1 *p)
{
    struct mu_http_head *h = &p->head;
    if (mu_bytes_is(h->target, "*") && h->method == MU_HTTP_OPTIONS) {
        h->path = h->target;
        h->query = MU_B("");
        return 0;
    }
    if (h->target.len == 0 || h->target.ptr[0] != '/') {
        return fail_cb(p, 400, "the request target must be a path");
    }
    if (mu_bytes_find_char(h->target, '#') >= 0) {
        return fail_cb(p, 400, "fragment in the request target");
    }
    ptrdiff_t q = mu_bytes_find_char(h->target, '?');
    mu_bytes raw = q < 0 ? h->target : mu_bytes_head(h->target, (size_t)q);
    h->query = q < 0 ? MU_B("") : mu_bytes_from(h->target, (size_t)q + 1);
    int r = mu_url_path(p->arena, raw, &h->path);
    if (r == MU_E_INVALID) {
        return fail_cb(p, 400, "malformed path");
    }
    return r < 0 ? fail_cb(p, 503, "out of memory") : 0;
}

static enum mu_http_method method_of(uint8_t m)
{
    switch (m) {
    case HTTP_GET:
        return MU_HTTP_GET;
    case HTTP_HEAD:
        return MU_HTTP_HEAD;
    case HTTP_POST:
        return MU_HTTP_POST;
    case HTTP_PUT:
        return MU_HTTP_PUT;
    case HTTP_PATCH:
        return MU_HTTP_PATCH;
    case HTTP_DELETE:
        return MU_HTTP_DELETE;
    case HTTP_OPTIONS:
        return MU_HTTP_OPTIONS;
    default:
        return MU_HTTP_OTHER;
    }
}

static int check_head(struct mu_http1 *p)
{
    struct mu_http_head *h = &p->head;
    uint8_t m = llhttp_get_method(&p->ll);
    if (m == HTTP_CONNECT) {
        return fail_cb(p, 400, "CONNECT is not served");
    }
    h->method = method_of(m);
    h->method_name = mu_str(llhttp_method_name((llhttp_method_t)m));
    h->http10 = p->version[7] == '0';
    h->content_length = -1;
    for (size_t i = 0; i < h->n_headers; i++) {
        h->headers[i].value = mu_bytes_trim(h->headers[i].value);
    }
    int r = check_host(p);
    r = r ? r : check_framing(p);
    r = r ? r : check_target(p);
    if (r) {
        return r;
    }
    h->keep_alive = llhttp_should_keep_alive(&p->ll) != 0;
    h->upgrade = llhttp_get_upgrade(&p->ll) != 0;
    mu_bytes expect = h->http10 ? MU_B_NONE : mu_http_header(h, "expect");
    h->expect_continue = mu_bytes_eq_nocase(expect, MU_B("100-continue"));
    if (expect.len && !h->expect_continue) {
        return fail_cb(p, 417, "the only expectation that is met is 100-continue");
    }
    return 0;
}

/* --- llhttp's callbacks --- */

static int on_url(llhttp_t *ll, const char *at, size_t len)
{
    struct mu_http1 *p = ll->data;
    return add_text(p, &p->head.target, at, len);
}

static int on_field(llhttp_t *ll, const char *at, size_t len)
{
    struct mu_http1 *p = ll->data;
    if (p->phase != PHASE_HEAD) {
        return 0; /* a trailer: nothing here may change the head any more */
    }
    if (!p->in_name && new_header(p) < 0) {
        return fail_cb(p, 503, "out of memory");
    }
    p->in_name = true;
    return add_text(p, &p->head.headers[p->head.n_headers - 1].name, at, len);
}

static int on_field_complete(llhttp_t *ll)
{
    struct mu_http1 *p = ll->data;
    p->in_name = false;
    return 0;
}

static int on_value(llhttp_t *ll, const char *at, size_t len)
{
    struct mu_http1 *p = ll->data;
    if (p->phase != PHASE_HEAD) {
        return 0;
    }
    return add_text(p, &p->head.headers[p->head.n_headers - 1].value, at, len);
}

static int on_headers_complete(llhttp_t *ll)
{
    struct mu_http1 *p = ll->data;
    if (check_head(p)) {
        return -1;
    }
    p->signal = MU_HTTP1_HEAD;
    return HPE_PAUSED;
}

static int on_body(llhttp_t *ll, const char *at, size_t len)
{
    struct mu_http1 *p = ll->data;
    if (len == 0) {
        return 0; /* the input ended where the body begins */
    }
    p->body = mu_bytes_of(at, len);
    p->content += len;
    p->signal = MU_HTTP1_BODY;
    return HPE_PAUSED;
}

static int on_message_complete(llhttp_t *ll)
{
    struct mu_http1 *p = ll->data;
    p->signal = MU_HTTP1_DONE;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_url = on_url,
    .on_header_field = on_field,
    .on_header_field_complete = on_field_complete,
    .on_header_value = on_value,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

static enum mu_http1_event llhttp_fault(struct mu_http1 *p, llhttp_errno_t e)
{
    switch (e) {
    case HPE_INVALID_VERSION:
    case HPE_PAUSED_H2_UPGRADE:
        return fail(p, 505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
    case HPE_INVALID_METHOD:
        return fail(p, 400, "unknown method");
    case HPE_INVALID_URL:
        return fail(p, 400, "malformed request target");
    case HPE_INVALID_CONSTANT:
        return fail(p, 400, "malformed request line");
    case HPE_UNEXPECTED_CONTENT_LENGTH:
    case HPE_INVALID_CONTENT_LENGTH:
        return fail(p, 400, "malformed or repeated Content-Length");
    case HPE_INVALID_TRANSFER_ENCODING:
        return fail(p, 400, "malformed Transfer-Encoding");
    case HPE_INVALID_CHUNK_SIZE:
        return fail(p, 400, "malformed chunk size");
    default:
        return fail(p, 400, p->phase == PHASE_HEAD ? "malformed header block" : "malformed body");
    }
}

/* Runs llhttp over `in` until a callback pauses it. */
static enum mu_http1_event run(struct mu_http1 *p, mu_bytes in, size_t *used)
{
    if (p->paused) {
        llhttp_resume(&p->ll);
        p->paused = false;
    }
    p->signal = MU_HTTP1_MORE;
    llhttp_errno_t e = llhttp_execute(&p->ll, in.ptr, in.len);
    *used = e == HPE_OK ? in.len : (size_t)(llhttp_get_error_pos(&p->ll) - in.ptr);
    if (p->phase == PHASE_ERROR) {
        return MU_HTTP1_ERROR; /* a callback said why */
    }
    if (e == HPE_OK) {
        return MU_HTTP1_MORE;
    }
    if (e != HPE_PAUSED || p->signal == MU_HTTP1_MORE) {
        return llhttp_fault(p, e);
    }
    p->paused = true;
    return p->signal;
}

static enum mu_http1_event feed_head(struct mu_http1 *p, mu_bytes in, size_t *used)
{
    bool ok = true;
    size_t good = scan(p, in, &ok);
    size_t room = MU_MIN(good, p->limits.max_start_line + p->limits.max_header_bytes);
    if (p->scan > SCAN_LEAD_LF && reserve_text(p, room) < 0) {
        return fail(p, 503, "out of memory");
    }
    enum mu_http1_event ev = run(p, mu_bytes_head(in, good), used);
    if (ev == MU_HTTP1_ERROR) {
        return ev;
    }
    bool agree = p->scan == SCAN_END ? ev == MU_HTTP1_HEAD : ev == MU_HTTP1_MORE;
    if (!agree || good - *used > 1) {
        return fail(p, 400, "malformed header block");
    }
    if (!ok) {
        return fail(p, p->status, p->fault);
    }
    if (ev == MU_HTTP1_HEAD) {
        p->phase = PHASE_BODY;
    }
    return ev;
}

static enum mu_http1_event feed_body(struct mu_http1 *p, mu_bytes in, size_t *used)
{
    enum mu_http1_event ev = run(p, in, used);
    if (ev == MU_HTTP1_ERROR) {
        return ev;
    }
    p->overhead += *used - (ev == MU_HTTP1_BODY ? p->body.len : 0);
    if (p->overhead > OVERHEAD_FREE &&
        (p->overhead - OVERHEAD_FREE) / OVERHEAD_PER_BYTE > p->content) {
        return fail(p, 400, "too much framing around the body");
    }
    if (ev == MU_HTTP1_DONE) {
        p->phase = PHASE_DONE;
    }
    return ev;
}

enum mu_http1_event mu_http1_feed(struct mu_http1 *p, mu_bytes in, size_t *ret_used)
{
    size_t used = 0;
    enum mu_http1_event ev;
    if (!in.ptr) {
        in = MU_B("");
    }
    p->body = MU_B_NONE;
    switch (p->phase) {
    case PHASE_HEAD:
        ev = feed_head(p, in, &used);
        break;
    case PHASE_BODY:
        ev = feed_body(p, in, &used);
        break;
    case PHASE_DONE:
        ev = MU_HTTP1_DONE;
        break;
    default:
        ev = MU_HTTP1_ERROR;
        break;
    }
    *ret_used = used;
    return ev;
}

/* --- the rest of the interface --- */

int mu_http1_new(const struct mu_http1_limits *limits, struct mu_arena *a, struct mu_http1 **ret)
{
    struct mu_http1 *p = mu_alloc(sizeof *p);
    if (!p) {
        return -ENOMEM;
    }
    p->limits = *limits;
    mu_http1_reset(p, a);
    *ret = p;
    return 0;
}

struct mu_http1 *mu_http1_free(struct mu_http1 *p)
{
    mu_free(p);
    return NULL;
}

void mu_http1_reset(struct mu_http1 *p, struct mu_arena *a)
{
    struct mu_http1_limits limits = p->limits;
    memset(p, 0, sizeof *p);
    p->limits = limits;
    p->arena = a;
    llhttp_init(&p->ll, HTTP_REQUEST, &settings);
    p->ll.data = p;
}

const struct mu_http_head *mu_http1_head(const struct mu_http1 *p)
{
    return &p->head;
}

mu_bytes mu_http1_body(const struct mu_http1 *p)
{
    return p->body;
}

int mu_http1_status(const struct mu_http1 *p, const char **ret_text)
{
    *ret_text = p->fault;
    return p->status;
}

bool mu_http1_in_message(const struct mu_http1 *p)
{
    return p->phase == PHASE_BODY || (p->phase == PHASE_HEAD && p->scan > SCAN_LEAD_LF);
}

mu_bytes mu_http_header(const struct mu_http_head *h, const char *name)
{
    mu_bytes want = mu_str(name);
    for (size_t i = 0; i < h->n_headers; i++) {
        if (mu_bytes_eq_nocase(h->headers[i].name, want)) {
            return h->headers[i].value;
        }
    }
    return MU_B_NONE;
}

const char *mu_http_reason(int status)
{
    switch (status) {
#define REASON(number, name, text)                                                                 \
    case number:                                                                                   \
        return text;
#include "proto/http_status.def"
#undef REASON
    default:
        return "Unknown";
    }
}
