#include <errno.h>

#include "base/clock.h"
#include "net/fetch_int.h"

enum {
    MAX_HEADER_BYTES = 256 << 10, /* all header lines of an answer */
    MAX_RETRY_AFTER_S = 366 * 86400,
};

/* --- deciding how it ends --- */

void mu_fetch_decide_(struct mu_fetch *f, enum mu_fetch_end end, const char *text)
{
    if (!f->decided) {
        f->decided = true;
        f->result.end = end;
        f->result.text = text;
    }
}

static enum mu_fetch_end end_of(const struct mu_fetch *f, CURLcode code)
{
    switch (code) {
    case CURLE_OK:
        return MU_FETCH_OK;
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_PROXY:
    case CURLE_INTERFACE_FAILED:
        return MU_FETCH_CONNECT;
    case CURLE_OPERATION_TIMEDOUT: /* libcurl's own limit of 300 s for connecting */
        return f->connected ? MU_FETCH_TIMEOUT : MU_FETCH_CONNECT;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_SSL_ENGINE_INITFAILED:
    case CURLE_USE_SSL_FAILED:
        return MU_FETCH_TLS;
    case CURLE_URL_MALFORMAT:
    case CURLE_OUT_OF_MEMORY:
    case CURLE_FAILED_INIT:
    case CURLE_BAD_FUNCTION_ARGUMENT:
        return MU_FETCH_FAILED;
    case CURLE_UNSUPPORTED_PROTOCOL: /* the URL's, or an answer that is not HTTP/1 */
    default:
        return f->connected ? MU_FETCH_BROKEN : MU_FETCH_FAILED;
    }
}

void mu_fetch_decide_code_(struct mu_fetch *f, CURLcode code)
{
    /* Not CURLOPT_ERRORBUFFER: it names hosts. */
    mu_fetch_decide_(f, end_of(f, code), code == CURLE_OK ? "" : curl_easy_strerror(code));
}

/* --- deadlines: one timer for all of them, moved only when a nearer one appears --- */

static int64_t now_of(const struct mu_fetch *f)
{
    return mu_loop_now_ms(f->fetcher->loop);
}

static void sooner(int64_t *due, int64_t from, int64_t limit)
{
    if (limit > 0 && from + limit < *due) {
        *due = from + limit;
    }
}

int mu_fetch_arm_(struct mu_fetch *f)
{
    int64_t due = INT64_MAX;
    bool active = f->active_ms >= 0, begun = f->result.first_byte_ms >= 0;
    sooner(&due, f->start_ms, f->total_ms);
    if (active && !f->connected) {
        sooner(&due, f->active_ms, f->connect_ms);
    }
    if (active && !begun) {
        sooner(&due, f->active_ms, f->first_byte_ms);
    }
    if (begun) {
        sooner(&due, f->last_byte_ms, f->idle_ms);
    }
    return due == INT64_MAX ? 0 : mu_timer_set(&f->timer, due - now_of(f));
}

static bool passed(int64_t now, int64_t from, int64_t limit)
{
    return limit > 0 && now - from >= limit;
}

static void on_deadline(struct mu_timer *t)
{
    struct mu_fetch *f = MU_CONTAINER(t, struct mu_fetch, timer);
    int64_t now = now_of(f);
    bool active = f->active_ms >= 0, begun = f->result.first_byte_ms >= 0;
    if (active && !f->connected && passed(now, f->active_ms, f->connect_ms)) {
        mu_fetch_decide_(f, MU_FETCH_CONNECT, "no connection in time");
    } else if (active && !begun && passed(now, f->active_ms, f->first_byte_ms)) {
        mu_fetch_decide_(f, MU_FETCH_TIMEOUT, "no answer in time");
    } else if (begun && passed(now, f->last_byte_ms, f->idle_ms)) {
        mu_fetch_decide_(f, MU_FETCH_STALLED, "the answer stalled");
    } else if (passed(now, f->start_ms, f->total_ms)) {
        mu_fetch_decide_(f, begun ? MU_FETCH_STALLED : MU_FETCH_TIMEOUT,
                         begun ? "the answer took too long" : "no answer in time");
    } else if (mu_fetch_arm_(f) < 0) {
        mu_fetch_decide_(f, MU_FETCH_FAILED, "out of memory");
    } else {
        return;
    }
    mu_fetch_finish_(f);
}

/* A byte of the answer came. < 0: the fetch is to end. */
static int touch(struct mu_fetch *f)
{
    bool first = f->result.first_byte_ms < 0;
    f->last_byte_ms = now_of(f);
    if (first) {
        f->result.first_byte_ms = f->last_byte_ms - f->start_ms;
        if (mu_fetch_arm_(f) < 0) {
            mu_fetch_decide_(f, MU_FETCH_FAILED, "out of memory");
        }
    }
    return f->decided ? -1 : 0;
}

/* --- libcurl's callbacks; returning less than was given ends the transfer --- */

static int on_connected(void *arg, char *ip MU_UNUSED, char *local_ip MU_UNUSED, int port MU_UNUSED,
                        int local_port MU_UNUSED)
{
    struct mu_fetch *f = arg;
    f->connected = true;
    return f->decided ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

static int64_t retry_after(const struct mu_fetch *f, mu_bytes value)
{
    int64_t s, ms;
    if (mu_bytes_i64(value, &s) == 0) {
        return s < 0 ? -1 : MU_MIN(s, (int64_t)MAX_RETRY_AFTER_S) * 1000;
    }
    if (mu_time_parse_http(value, &ms) == 0) {
        ms -= mu_env_wall_ms(mu_loop_env(f->fetcher->loop));
        return MU_MIN(MU_MAX(ms, 0), INT64_C(1000) * MAX_RETRY_AFTER_S);
    }
    return -1;
}

static void read_header(struct mu_fetch *f, mu_bytes line)
{
    if (mu_bytes_starts(line, MU_B("HTTP/"))) { /* a further answer after 1xx */
        f->result.retry_after_ms = -1;
        f->result.json = f->result.event_stream = false;
        return;
    }
    mu_bytes rest = line;
    mu_bytes name = mu_bytes_split(&rest, ':');
    rest = mu_bytes_trim(rest);
    if (mu_bytes_eq_nocase(name, MU_B("retry-after"))) {
        f->result.retry_after_ms = retry_after(f, rest);
    } else if (mu_bytes_eq_nocase(name, MU_B("content-type"))) {
        mu_bytes type = mu_bytes_trim(mu_bytes_split(&rest, ';'));
        f->result.event_stream = mu_bytes_eq_nocase(type, MU_B("text/event-stream"));
        f->result.json = mu_bytes_eq_nocase(type, MU_B("application/json")) ||
                         mu_bytes_ends(type, MU_B("+json"));
    }
}

static size_t on_header(char *ptr, size_t size, size_t n, void *arg)
{
    struct mu_fetch *f = arg;
    size_t len = size * n;
    f->header_bytes += len;
    if (f->header_bytes > MAX_HEADER_BYTES) {
        mu_fetch_decide_(f, MU_FETCH_BROKEN, "the answer has too many headers");
    }
    if (touch(f) < 0) {
        return 0;
    }
    read_header(f, mu_bytes_of(ptr, len));
    return len;
}

static size_t on_body(char *ptr, size_t size, size_t n, void *arg)
{
    struct mu_fetch *f = arg;
    mu_bytes piece = mu_bytes_of(ptr, size * n);
    bool too_large = f->max_bytes && piece.len > f->max_bytes - f->bytes;
    if (touch(f) < 0) {
        return 0;
    }
    piece = mu_bytes_head(piece, too_large ? f->max_bytes - f->bytes : piece.len);
    f->bytes += piece.len;
    if (f->body_fn && piece.len) {
        long status = 0;
        curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &status);
        if (f->body_fn(f->arg, (int)status, piece) < 0) {
            mu_fetch_decide_(f, MU_FETCH_ABORTED, "aborted");
        }
    }
    if (too_large) {
        mu_fetch_decide_(f, MU_FETCH_TOO_LARGE, "the answer is too large");
    }
    return f->decided ? 0 : size * n;
}

/* --- making one --- */

static bool has_control(const char *s)
{
    for (; *s; s++) {
        if ((unsigned char)*s < ' ' || *s == 127) {
            return true;
        }
    }
    return false;
}

static bool is_token(const char *s)
{
    const char *p = s;
    for (; *p; p++) {
        if (!((*p >= 'A' && *p <= 'Z') || (*p >= 'a' && *p <= 'z') || *p == '-')) {
            return false;
        }
    }
    return p > s && p - s <= 32;
}

static int add_header(struct mu_fetch *f, const char *line)
{
    struct curl_slist *l = curl_slist_append(f->headers, line);
    if (!l) {
        return -ENOMEM;
    }
    f->headers = l;
    return 0;
}

static int set_headers(struct mu_fetch *f, const struct mu_fetch_request *req)
{
    bool typed = false;
    int r = 0;
    for (const char *const *h = req->headers; h && *h && r == 0; h++) {
        if (has_control(*h)) {
            return MU_E_INVALID;
        }
        mu_bytes line = mu_str(*h);
        typed = typed || mu_bytes_eq_nocase(mu_bytes_head(line, 13), MU_B("content-type:"));
        r = add_header(f, *h);
    }
    /* A name without a value stops libcurl from adding its own. */
    if (r == 0 && !typed) {
        r = add_header(f, "Content-Type:");
    }
    return r < 0 ? r : add_header(f, "Expect:");
}

/* Sets an option unless an earlier one failed. */
#define OPT(name, value) (code = code ? code : curl_easy_setopt(f->easy, CURLOPT_##name, value))

static int set_method(struct mu_fetch *f, const struct mu_fetch_request *req)
{
    CURLcode code = CURLE_OK;
    bool post = strcmp(req->method, "POST") == 0, get = strcmp(req->method, "GET") == 0;
    if (req->body.len || post) {
        f->body = mu_alloc(req->body.len);
        if (!f->body) {
            return -ENOMEM;
        }
        if (req->body.len) {
            memcpy(f->body, req->body.ptr, req->body.len);
        }
        OPT(POST, 1L);
        OPT(POSTFIELDSIZE_LARGE, (curl_off_t)req->body.len);
        OPT(POSTFIELDS, f->body);
        if (!post) {
            OPT(CUSTOMREQUEST, req->method);
        }
    } else if (strcmp(req->method, "HEAD") == 0) {
        OPT(NOBODY, 1L);
    } else if (!get) {
        OPT(CUSTOMREQUEST, req->method);
    }
    return code ? -ENOMEM : 0;
}

static int set_options(struct mu_fetch *f, const struct mu_fetch_request *req)
{
    CURLcode code = CURLE_OK;
#if LIBCURL_VERSION_NUM >= 0x075500
    OPT(PROTOCOLS_STR, "http,https");
#else
    OPT(PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
#if LIBCURL_VERSION_NUM >= 0x075700
    OPT(QUICK_EXIT, 1L); /* else aborting waits for the resolver's thread, on the loop */
#endif
    OPT(URL, req->url);
    OPT(PRIVATE, f);
    OPT(NOSIGNAL, 1L);
    OPT(FOLLOWLOCATION, 0L);
    OPT(SSL_VERIFYPEER, 1L);
    OPT(SSL_VERIFYHOST, 2L);
    OPT(HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    OPT(USERAGENT, "muster/" MU_VERSION);
    OPT(TCP_KEEPALIVE, 1L);
    OPT(SUPPRESS_CONNECT_HEADERS, 1L);
    OPT(HTTPHEADER, f->headers);
    OPT(PREREQFUNCTION, on_connected);
    OPT(PREREQDATA, f);
    OPT(HEADERFUNCTION, on_header);
    OPT(HEADERDATA, f);
    OPT(WRITEFUNCTION, on_body);
    OPT(WRITEDATA, f);
    return code == CURLE_OUT_OF_MEMORY ? -ENOMEM : code ? MU_E_INVALID : 0;
}

static int prepare(struct mu_fetch *f, const struct mu_fetch_request *req)
{
    f->easy = curl_easy_init();
    int r = f->easy ? set_headers(f, req) : -ENOMEM;
    if (r == 0) {
        r = set_options(f, req);
    }
    if (r == 0) {
        r = set_method(f, req);
    }
    return r < 0 ? r : mu_fetch_arm_(f);
}

int mu_fetch_new_(struct mu_fetcher *fetcher, const struct mu_fetch_request *req,
                  struct mu_fetch **ret)
{
    if (!req->method || !req->url || !req->done || !is_token(req->method)) {
        return MU_E_INVALID;
    }
    struct mu_fetch *f = mu_calloc(1, sizeof *f);
    if (!f) {
        return -ENOMEM;
    }
    mu_list_init(&f->link);
    f->fetcher = fetcher;
    f->connect_ms = req->connect_ms;
    f->first_byte_ms = req->first_byte_ms;
    f->idle_ms = req->idle_ms;
    f->total_ms = req->total_ms;
    f->max_bytes = req->max_bytes;
    f->body_fn = req->body_fn;
    f->done = req->done;
    f->arg = req->arg;
    f->start_ms = now_of(f);
    f->active_ms = -1;
    f->result = (struct mu_fetch_result){.first_byte_ms = -1, .retry_after_ms = -1, .text = ""};
    mu_timer_init(&f->timer, fetcher->loop, on_deadline);
    int r = prepare(f, req);
    if (r < 0) {
        mu_fetch_free_(f);
        return r;
    }
    *ret = f;
    return 0;
}

void mu_fetch_free_(struct mu_fetch *f)
{
    mu_timer_clear(&f->timer);
    curl_easy_cleanup(f->easy);
    curl_slist_free_all(f->headers);
    mu_free(f->body);
    mu_free(f);
}
