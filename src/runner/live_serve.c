#include "runner/live_serve.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

#include "base/encode.h"
#include "runner/live_int.h"

enum {
    LISTEN_MS = 90000,
    HEALTH_MS = 1500, /* the first request of a server may never be answered */
    OPEN_MS = 60000,
    CALL_MS = 20000,
    LIVES_MS = 300,     /* by then the end of a server is known */
    PAUSE_MS = 200,     /* after a request that failed */
    SILENCE_MS = 60000, /* without a heartbeat: they come every 10 s */
    DEAF_MS = 500,
    DEAF_MAX = 40,
    LINE_MAX_BYTES = 16 << 10,
    BLOCK = 16 << 10,
    BLOCKS = 16,
};
#define PASSWORD "OPENCODE_SERVER_PASSWORD"
#define USER     "OPENCODE_SERVER_USERNAME"

/* --- a connection --- */

static void conn_close(struct mu_serve_conn *c)
{
    if (c->fd >= 0) {
        close(c->fd);
    }
    mu_http_stream_fini(&c->http);
    *c = (struct mu_serve_conn){.fd = -1};
}

static int conn_open(struct mu_serve_conn *c, unsigned port, int64_t until)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    conn_close(c);
    int fd MU_AUTO_CLOSE = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 ||
        (connect(fd, (const struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS)) {
        return -errno;
    }
    c->fd = mu_steal_fd(&fd);
    c->until = until;
    mu_http_stream_init(&c->http);
    return 0;
}

/* 1 = all was said, 0 = later. */
static int conn_write(struct mu_serve_conn *c, mu_bytes text)
{
    while (c->sent < text.len) {
        ssize_t n = send(c->fd, text.ptr + c->sent, text.len - c->sent, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == ENOTCONN)) {
            return 0;
        }
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        c->sent += n > 0 ? (size_t)n : 0;
    }
    return 1;
}

/* A block; 0 and nothing in it = later, 1 = the connection has ended. */
static int conn_read(struct mu_serve_conn *c, char block[BLOCK], mu_bytes *ret)
{
    ssize_t n = recv(c->fd, block, BLOCK, 0);
    *ret = mu_bytes_of(block, n > 0 ? (size_t)n : 0);
    if (n < 0 && errno != EAGAIN && errno != EINTR) {
        return -errno;
    }
    return n == 0;
}

/* --- requests --- */

static int64_t patience(enum mu_oc_call call)
{
    return call == MU_OC_HEALTH                                                 ? HEALTH_MS
           : call == MU_OC_LOAD || call == MU_OC_CREATE || call == MU_OC_PROMPT ? OPEN_MS
                                                                                : CALL_MS;
}

static void add_head(const struct mu_serve *s, struct mu_buf *b, const char *method,
                     const char *path)
{
    mu_buf_printf(b, "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nConnection: close\r\n", method, path,
                  s->listening);
    mu_buf_printf(b, "Authorization: Basic %s\r\nUser-Agent: muster/" MU_VERSION "\r\n",
                  s->authorization);
}

static int on_call(void *arg, enum mu_oc_call call, const char *method, const char *path,
                   mu_bytes body)
{
    const struct mu_live *v = arg;
    struct mu_serve *s = v->agent.serve;
    struct mu_buf b;
    mu_buf_init(&b, MU_SERVE_QUEUE_BYTES);
    add_head(s, &b, method, path);
    if (body.ptr) {
        mu_buf_add_str(&b, "Content-Type: application/json\r\n");
    }
    if (strcmp(method, "GET") != 0) {
        mu_buf_printf(&b, "Content-Length: %zu\r\n", body.len);
    }
    mu_buf_add_str(&b, "\r\n");
    mu_buf_add(&b, body);
    bool full = s->n == MU_SERVE_QUEUE || s->bytes + b.len > MU_SERVE_QUEUE_BYTES;
    if (b.failed || full) {
        int r = b.failed ? b.failed : MU_E_UNAVAILABLE;
        mu_buf_fini(&b);
        return r;
    }
    s->queue[(s->head + s->n++) % MU_SERVE_QUEUE] =
        (struct mu_serve_request){.call = call, .text = b.ptr, .len = b.len};
    s->bytes += b.len;
    return 0;
}

static void drop_request(struct mu_serve *s)
{
    struct mu_serve_request *q = &s->queue[s->head];
    s->bytes -= q->len;
    mu_free(q->text);
    *q = (struct mu_serve_request){0};
    s->head = (s->head + 1) % MU_SERVE_QUEUE;
    s->n--;
}

/* The oldest request is answered; status 0 = it is not. */
static void answer(struct mu_serve *s, int status)
{
    struct mu_buf body MU_CLEANUP(mu_buf_fini) = s->body;
    enum mu_oc_call call = s->queue[s->head].call;
    mu_buf_init(&s->body, MU_OC_EVENT_MAX);
    drop_request(s);
    conn_close(&s->ask);
    if (!status) {
        mu_buf_clear(&body);
        s->not_before = mu_mono_ms() + PAUSE_MS;
    }
    (void)!mu_oc_answer(&s->oc, call, status, mu_buf_bytes(&body));
}

/* The connection broke: perhaps because the server did, which is better said by its own end. */
static void no_answer(struct mu_serve *s)
{
    conn_close(&s->ask);
    mu_buf_fini(&s->body);
    mu_buf_init(&s->body, MU_OC_EVENT_MAX);
    s->failed_at = mu_mono_ms() + LIVES_MS;
}

static void ask_io(struct mu_serve *s)
{
    const struct mu_serve_request *q = &s->queue[s->head];
    char block[BLOCK];
    int r = conn_write(&s->ask, mu_bytes_of(q->text, q->len));
    if (r < 0 && r != -EPIPE &&
        r != -ECONNRESET) { /* an answer may have come before all was said */
        no_answer(s);
        return;
    }
    for (int i = 0; r && i < BLOCKS; i++) {
        mu_bytes in, piece;
        int got = conn_read(&s->ask, block, &in);
        bool bad = got < 0;
        while (!bad && in.len && s->ask.http.step != MU_HS_DONE) {
            bad = mu_http_stream_feed(&s->ask.http, &in, &piece) < 0;
            mu_buf_add(&s->body, piece);
        }
        bad = bad || s->body.failed || (got == 1 && mu_http_stream_end(&s->ask.http) < 0);
        if (bad) {
            no_answer(s);
            return;
        }
        if (s->ask.http.step == MU_HS_DONE) {
            answer(s, s->ask.http.status);
            return;
        }
        if (!got && !in.len && s->ask.http.step != MU_HS_DONE) {
            struct pollfd p = {s->ask.fd, POLLIN, 0};
            if (poll(&p, 1, 0) <= 0) {
                return;
            }
        }
    }
}

/* --- events --- */

static void on_event(void *arg, mu_bytes event, mu_bytes data, mu_bytes id)
{
    struct mu_serve *s = arg;
    (void)event;
    (void)id;
    s->deaf = 0;
    if (mu_oc_event(&s->oc, data) < 0) {
        mu_sse_stop(&s->sse);
    }
}

static void on_listen(void *arg)
{
    const struct mu_live *v = arg;
    v->agent.serve->hear = true;
}

static void deafen(struct mu_serve *s)
{
    conn_close(&s->ears);
    mu_sse_fini(&s->sse);
    mu_sse_init(&s->sse, MU_OC_EVENT_MAX, on_event, s);
    s->hear_at = mu_mono_ms() + DEAF_MS;
    s->deaf++;
}

static void ears_io(struct mu_serve *s)
{
    char block[BLOCK];
    int r = conn_write(&s->ears, mu_buf_bytes(&s->hello));
    if (r < 0) {
        deafen(s);
        return;
    }
    for (int i = 0; r && i < BLOCKS && !mu_link_full(&s->live->link); i++) {
        mu_bytes in, piece;
        int got = conn_read(&s->ears, block, &in);
        bool bad = got != 0;
        if (in.len) {
            s->ears.until = mu_mono_ms() + SILENCE_MS;
        }
        while (!bad && in.len) {
            bad = mu_http_stream_feed(&s->ears.http, &in, &piece) < 0 ||
                  s->ears.http.step == MU_HS_DONE ||
                  (s->ears.http.status && s->ears.http.status != 200) ||
                  mu_sse_feed(&s->sse, piece) < 0;
        }
        if (s->oc.state == MU_ACP_BROKEN) {
            return;
        }
        if (bad) {
            deafen(s);
            return;
        }
        struct pollfd p = {s->ears.fd, POLLIN, 0};
        if (poll(&p, 1, 0) <= 0) {
            return;
        }
    }
}

/* --- its beginning and its end --- */

/* Free a moment ago; the server says itself where it listens. */
static unsigned free_port(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    int fd MU_AUTO_CLOSE = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&at, sizeof at) < 0 ||
        getsockname(fd, (struct sockaddr *)&at, &len) < 0) {
        return 0;
    }
    return ntohs(at.sin_port);
}

struct mu_serve *mu_serve_new(struct mu_live *v, const struct mu_acp_options *opt,
                              const char *model, int *ret_error)
{
    static const struct mu_oc_ops ops = {on_call, on_listen, mu_live_question, mu_live_foreign};
    struct mu_serve *s = mu_calloc(1, sizeof *s);
    unsigned port = free_port();
    int r = !s      ? -ENOMEM
            : !port ? -EADDRNOTAVAIL
                    : mu_oc_init(&s->oc, &mu_live_acp, &ops, v, opt, model);
    if (r) {
        mu_free(s);
        *ret_error = r;
        return NULL;
    }
    s->live = v;
    s->port = port;
    s->ask.fd = s->ears.fd = -1;
    s->listens_by = mu_mono_ms() + LISTEN_MS;
    mu_buf_init(&s->line, LINE_MAX_BYTES);
    mu_buf_init(&s->body, MU_OC_EVENT_MAX);
    mu_buf_init(&s->hello, 4096);
    mu_sse_init(&s->sse, MU_OC_EVENT_MAX, on_event, s);
    return s;
}

struct mu_serve *mu_serve_free(struct mu_serve *s)
{
    if (s) {
        conn_close(&s->ask);
        conn_close(&s->ears);
        while (s->n) {
            drop_request(s);
        }
        mu_oc_fini(&s->oc);
        mu_sse_fini(&s->sse);
        mu_buf_fini(&s->line);
        mu_buf_fini(&s->body);
        mu_buf_fini(&s->hello);
        mu_free(s);
    }
    return NULL;
}

void mu_serve_secret(struct mu_serve *s)
{
    struct mu_id password = mu_live_uuid();
    struct mu_buf plain MU_CLEANUP(mu_buf_wipe), coded MU_CLEANUP(mu_buf_wipe);
    const char *user = getenv(USER);
    mu_buf_init(&plain, 110);
    mu_buf_init(&coded, sizeof s->authorization);
    mu_buf_printf(&plain, "%.60s:%s", user && *user ? user : "opencode", password.text);
    mu_base64_add(&coded, mu_buf_bytes(&plain));
    snprintf(s->authorization, sizeof s->authorization, "%.*s", MU_ARGS(mu_buf_bytes(&coded)));
    (void)setenv(PASSWORD, password.text, 1);
}

void mu_serve_forget(void)
{
    unsetenv(PASSWORD);
}

/* --- in the loop --- */

static void listens(struct mu_serve *s, unsigned port)
{
    s->listening = port;
    add_head(s, &s->hello, "GET", "/event");
    mu_buf_add_str(&s->hello, "Accept: text/event-stream\r\n\r\n");
    (void)!mu_oc_start(&s->oc);
}

static void said_line(struct mu_serve *s, mu_bytes line)
{
    static const char words[] = "listening on http://127.0.0.1:";
    ptrdiff_t at = mu_bytes_find(line, mu_str(words));
    int64_t port = 0;
    if (at >= 0 && !s->listening) {
        mu_bytes rest = mu_bytes_trim(mu_bytes_from(line, (size_t)at + sizeof words - 1));
        if (mu_bytes_i64(rest, &port) == 0 && port > 0 && port < 65536) {
            listens(s, (unsigned)port);
            return;
        }
    }
    mu_say(&s->live->r->procs, line);
    mu_say(&s->live->r->procs, MU_B("\n"));
}

void mu_serve_said(struct mu_serve *s, mu_bytes b)
{
    while (b.len) {
        ptrdiff_t end = mu_bytes_find_char(b, '\n');
        mu_bytes part = mu_bytes_head(b, end < 0 ? b.len : (size_t)end);
        b = mu_bytes_from(b, part.len + (end >= 0));
        mu_buf_add(&s->line, mu_bytes_head(part, LINE_MAX_BYTES - s->line.len));
        if (end >= 0) {
            said_line(s, mu_buf_bytes(&s->line));
            mu_buf_clear(&s->line);
        }
    }
}

static void sooner(int64_t *wait_ms, int64_t at, int64_t now)
{
    *wait_ms = MU_MIN(*wait_ms, MU_MAX(at - now, (int64_t)0));
}

size_t mu_serve_want(struct mu_serve *s, bool reads, struct pollfd *fds, int *who, int64_t *wait_ms)
{
    int64_t now = mu_mono_ms();
    size_t n = 0;
    if (s->oc.state == MU_ACP_BROKEN) {
        return 0;
    }
    *wait_ms = MU_MIN(*wait_ms, mu_oc_patience(&s->oc));
    if (s->ask.fd >= 0) {
        bool more = s->ask.sent < s->queue[s->head].len;
        fds[n] = (struct pollfd){s->ask.fd, (short)(POLLIN | (more ? POLLOUT : 0)), 0};
        who[n++] = 1;
        sooner(wait_ms, s->ask.until, now);
    } else if (s->n) {
        sooner(wait_ms, s->failed_at ? s->failed_at : s->not_before, now);
    }
    if (s->ears.fd >= 0) {
        bool more = s->ears.sent < s->hello.len;
        short events = (short)((reads ? POLLIN : 0) | (more ? POLLOUT : 0));
        fds[n] = (struct pollfd){s->ears.fd, events, 0};
        who[n] = 2;
        n += events != 0;
    } else if (s->hear) {
        sooner(wait_ms, s->hear_at, now);
    }
    if (!s->listening) {
        sooner(wait_ms, s->listens_by, now);
    }
    return n;
}

void mu_serve_io(struct mu_serve *s, int who)
{
    if (s->oc.state == MU_ACP_BROKEN) {
        return;
    }
    if (who == 1 && s->ask.fd >= 0) {
        ask_io(s);
    }
    if (who == 2 && s->ears.fd >= 0) {
        ears_io(s);
    }
}

static void give_up(struct mu_serve *s, const char *why)
{
    mu_err_set(&s->oc.err, MU_E_TIMEOUT, "%s", why);
    s->oc.state = MU_ACP_BROKEN;
}

void mu_serve_turn(struct mu_serve *s)
{
    int64_t now = mu_mono_ms();
    if (s->oc.state == MU_ACP_BROKEN) {
        return;
    }
    if (!s->listening && now >= s->listens_by) {
        give_up(s, "opencode serve does not listen");
        return;
    }
    if (s->failed_at ? now >= s->failed_at : s->ask.fd >= 0 && now >= s->ask.until) {
        s->failed_at = 0;
        answer(s, 0);
    }
    if (s->ears.fd >= 0 && now >= s->ears.until && !mu_link_full(&s->live->link)) {
        deafen(s);
    }
    if (s->deaf > DEAF_MAX) {
        give_up(s, "the events of opencode serve cannot be read");
        return;
    }
    if (mu_oc_tick(&s->oc, now) < 0) {
        return;
    }
    if (s->ask.fd < 0 && s->n && !s->failed_at && now >= s->not_before &&
        conn_open(&s->ask, s->listening, now + patience(s->queue[s->head].call)) < 0) {
        no_answer(s);
    }
    if (s->hear && s->ears.fd < 0 && now >= s->hear_at &&
        conn_open(&s->ears, s->listening, now + SILENCE_MS) < 0) {
        deafen(s);
    }
}
