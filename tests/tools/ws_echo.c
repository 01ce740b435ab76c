/* An echo peer around both ends of our WebSocket code, for tests/wsconf. It listens on a free port
 * of the loopback, which it prints ("port N"), and sends every message back as it came. A line
 * "dial URL" on stdin makes it a client that does the same; what becomes of it is a line on stdout:
 * "opened", "failed STATUS why", "closed CODE reason". Ends when stdin does. With a certificate's
 * file and its key's as arguments it speaks TLS, and trusts that certificate. */
#include <errno.h>
#include <stdio.h>
#include <uv.h>

#include "base/buf.h"
#include "net/ws.h"

enum { MAX_MESSAGE = 64 * 1024 * 1024, DIAL_MS = 10000 };

struct program {
    struct mu_loop *loop;
    struct mu_http_server *server;
    struct mu_list peers;
    const char *cert_file, *key_file;
    uv_pipe_t in;
    char line[4096];
    size_t have;
};

struct peer {
    struct mu_list node;
    struct mu_ws *ws;
    struct mu_ws_dial *dial;
    struct mu_buf message;
};

static const struct mu_ws_limits limits = {
    .max_message = MAX_MESSAGE, .write_hard = (size_t)2 * MAX_MESSAGE, .write_stall_ms = 20000};

static struct peer *peer_new(struct program *p)
{
    struct peer *e = mu_calloc(1, sizeof *e);
    if (e) {
        mu_buf_init(&e->message, MAX_MESSAGE);
        mu_list_push(&p->peers, &e->node);
    }
    return e;
}

static void peer_free(struct peer *e)
{
    mu_list_remove(&e->node);
    mu_buf_fini(&e->message);
    mu_free(e);
}

static void say(const char *word, int number, mu_bytes more)
{
    printf("%s %d %.*s\n", word, number, MU_ARGS(more));
    fflush(stdout);
}

/* --- a connection --- */

static void on_data(void *arg, bool text, mu_bytes piece, bool last)
{
    struct peer *e = arg;
    if (last && e->message.len == 0) {
        mu_ws_send(e->ws, text, piece);
        return;
    }
    mu_buf_add(&e->message, piece);
    if (e->message.failed) {
        mu_ws_close(e->ws, 1011, "out of memory");
    } else if (last) {
        mu_ws_send(e->ws, text, mu_buf_bytes(&e->message));
        mu_buf_fini(&e->message);
    }
}

static void on_closed(void *arg, int code, mu_bytes reason)
{
    say("closed", code, reason);
    peer_free(arg);
}

static const struct mu_ws_ops echo_ops = {.data = on_data, .closed = on_closed};

/* --- the server's end --- */

static void on_request(void *arg, struct mu_http_req *req)
{
    const char *why = NULL;
    int status = mu_ws_check(mu_http_req_head(req), &why);
    if (status) {
        mu_http_respond(req, status, NULL, 0, mu_str(why));
        return;
    }
    struct peer *e = peer_new(arg);
    int r = e ? mu_ws_accept(req, &limits, &echo_ops, e, &e->ws) : -ENOMEM;
    if (r < 0 && e) {
        peer_free(e);
    }
    if (r == -ENOMEM) {
        mu_http_respond_close(req, 503, NULL, 0, MU_B("out of memory"));
    }
}

static void on_malformed(void *arg MU_UNUSED, struct mu_http_req *req, int status, const char *text)
{
    mu_http_respond(req, status, NULL, 0, mu_str(text));
}

static void listen_here(struct program *p)
{
    const struct mu_http_ops ops = {.request = on_request, .malformed = on_malformed, .arg = p};
    const struct mu_http_listen where = {
        .host = "127.0.0.1", .fd = -1, .tls_cert_file = p->cert_file, .tls_key_file = p->key_file};
    struct mu_err err = {0};
    unsigned port = 0;
    if (mu_http_server_new(&p->loop, 1, &mu_http_default_limits, &ops, &p->server) < 0 ||
        mu_http_server_listen(p->server, &where, &port, &err) < 0) {
        fprintf(stderr, "ws-echo: %s\n", err.text);
        exit(1);
    }
    say("port", (int)port, MU_B(""));
}

/* --- the client's end --- */

static void on_opened(void *arg, struct mu_ws *ws)
{
    struct peer *e = arg;
    e->dial = NULL;
    e->ws = ws;
    say("opened", 0, MU_B(""));
}

static void on_failed(void *arg, int status, int64_t retry_after_ms MU_UNUSED, const char *why)
{
    say("failed", status, mu_str(why));
    peer_free(arg);
}

static void dial(struct program *p, mu_bytes url)
{
    char *text = mu_bytes_dup(url);
    struct peer *e = peer_new(p);
    MU_CHECK(text && e);
    const struct mu_ws_connect opts = {.url = text,
                                       .ca_file = p->cert_file,
                                       .timeout_ms = DIAL_MS,
                                       .limits = limits,
                                       .ops = echo_ops,
                                       .arg = e,
                                       .opened = on_opened,
                                       .failed = on_failed};
    int r = mu_ws_connect(p->loop, &opts, &e->dial);
    mu_free(text);
    if (r < 0) {
        on_failed(e, 0, -1, mu_err_text(r));
    }
}

/* --- stdin --- */

static void end_all(struct program *p)
{
    MU_LIST_EACH(it, tmp, &p->peers)
    {
        struct peer *e = MU_CONTAINER(it, struct peer, node);
        if (e->dial) {
            e->dial = mu_ws_dial_abort(e->dial);
            peer_free(e);
        } else {
            mu_ws_abort(e->ws);
        }
    }
    mu_loop_stop(p->loop);
}

static void room(uv_handle_t *h, size_t suggested MU_UNUSED, uv_buf_t *ret)
{
    struct program *p = h->data;
    *ret = uv_buf_init(p->line + p->have, (unsigned)(sizeof p->line - p->have));
}

static void on_input(uv_stream_t *s, ssize_t n, const uv_buf_t *buf MU_UNUSED)
{
    struct program *p = s->data;
    if (n < 0) {
        uv_close((uv_handle_t *)s, NULL);
        end_all(p);
        return;
    }
    p->have += (size_t)n;
    char *end;
    while ((end = memchr(p->line, '\n', p->have))) {
        size_t len = (size_t)(end - p->line);
        mu_bytes rest = mu_bytes_of(p->line, len);
        MU_CHECK(mu_bytes_is(mu_bytes_split(&rest, ' '), "dial"));
        dial(p, rest);
        p->have -= len + 1;
        memmove(p->line, end + 1, p->have);
    }
}

int main(int argc, char **argv)
{
    static struct program p;
    mu_list_init(&p.peers);
    p.cert_file = argc == 3 ? argv[1] : NULL;
    p.key_file = argc == 3 ? argv[2] : NULL;
    MU_CHECK(mu_loop_new(&mu_env_real, "ws-echo", &p.loop) == 0);
    listen_here(&p);
    MU_CHECK(uv_pipe_init(mu_loop_uv(p.loop), &p.in, 0) == 0);
    p.in.data = &p;
    MU_CHECK(uv_pipe_open(&p.in, 0) == 0);
    MU_CHECK(uv_read_start((uv_stream_t *)&p.in, room, on_input) == 0);
    mu_loop_run(p.loop);
    p.server = mu_http_server_free(p.server);
    p.loop = mu_loop_free(p.loop);
    return 0;
}
