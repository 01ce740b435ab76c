#include "runner/live_ws.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "base/encode.h"
#include "proto/ws.h"
#include "runner/http.h"
#include "runner/procs_int.h"
#include "runner/ws_shake.h"

enum {
    OPEN_MS = 10000, /* connection and handshake together */
    SILENCE_MS = 75000,
    WIRE_SOFT = 64 << 10, /* above this no further frame is added */
    WIRE_MAX = WIRE_SOFT + MU_FRAME_JSON_MAX + 4096,
    READ_BLOCK = 32 << 10,
    READS = 8,
    LOOK_AGAIN = 4, /* failures after which the name is looked up anew */
    REFUSALS = 6,   /* in a row: less may be somebody in between who does not know better */
    REPLACED = 4410,
    UNAUTHORIZED = 4401,
};

enum step { CLOSED, LOOKING, CONNECTING, SHAKING, OPEN };

struct mu_link_ws {
    enum step step;
    int fd;
    struct mu_http_url url;
    char *token;
    char openssl[4096]; /* the program; "" = plain */
    pid_t *child;       /* it runs, or who looks the name up; 0 = nobody; not owned */
    struct sockaddr_storage address;
    socklen_t address_len;
    unsigned failures, refusals; /* since it was open */
    int64_t until;
    char accept[MU_SHAKE_ACCEPT_LEN + 1];
    struct mu_ws_parser parser;
    struct mu_buf head, message, wire;
    enum mu_link_verdict verdict;
    char words[200];
};

/* --- life --- */

static int find_tls(struct mu_link_ws *w, struct mu_err *err)
{
    if (w->url.tls && mu_find_program("openssl", getenv("PATH"), w->openssl) < 0) {
        return mu_err_set(err, -ENOSYS,
                          "%s: wss:// needs the program openssl, which is not in this image",
                          w->url.host);
    }
    return 0;
}

int mu_link_ws_new(const char *url, const char *token, pid_t *child, struct mu_link_ws **ret,
                   struct mu_err *err)
{
    struct mu_buf b MU_CLEANUP(mu_buf_fini);
    bool plain = strncmp(url, "ws://", 5) == 0, tls = strncmp(url, "wss://", 6) == 0;
    struct mu_link_ws *w = mu_calloc(1, sizeof *w);
    if (!w) {
        return mu_err_set(err, -ENOMEM, "out of memory");
    }
    w->fd = -1;
    w->child = child;
    mu_buf_init(&b, 4096);
    mu_buf_init(&w->head, MU_SHAKE_HEAD_MAX + READ_BLOCK);
    mu_buf_init(&w->message, MU_FRAME_JSON_MAX);
    mu_buf_init(&w->wire, WIRE_MAX);
    mu_buf_add_str(&b, plain ? "http://" : tls ? "https://" : "");
    mu_buf_add_str(&b, url + (plain ? 5 : tls ? 6 : 0));
    w->token = mu_bytes_dup(mu_str(token));
    int r = !w->token ? mu_err_set(err, -ENOMEM, "out of memory") : 0;
    if (!r && (b.failed || !*token || strpbrk(token, "\r\n") ||
               mu_http_url_parse(mu_buf_bytes(&b), &w->url) < 0)) {
        r = mu_err_set(err, MU_E_INVALID, "not an address of a server: %.200s", url);
    }
    r = r ? r : find_tls(w, err);
    if (r) {
        mu_link_ws_free(w);
        return r;
    }
    *ret = w;
    return 0;
}

struct mu_link_ws *mu_link_ws_free(struct mu_link_ws *w)
{
    if (w) {
        mu_link_ws_close(w);
        if (w->token) {
            explicit_bzero(w->token, strlen(w->token));
        }
        mu_free(w->token);
        mu_free(w);
    }
    return NULL;
}

void mu_link_ws_close(struct mu_link_ws *w)
{
    if (w->fd >= 0) {
        close(w->fd); /* the program that speaks TLS ends with it */
    }
    if (*w->child > 0 && w->step != OPEN) {
        (void)kill(*w->child, SIGKILL); /* who looks a name up, or connects, may not notice */
    }
    w->fd = -1;
    *w->child = 0;
    w->step = CLOSED;
    mu_buf_fini(&w->head);
    mu_buf_fini(&w->message);
    mu_buf_wipe(&w->wire);
    mu_buf_init(&w->head, MU_SHAKE_HEAD_MAX + READ_BLOCK);
    mu_buf_init(&w->message, MU_FRAME_JSON_MAX);
    mu_buf_init(&w->wire, WIRE_MAX);
}

enum mu_link_verdict mu_link_ws_verdict(const struct mu_link_ws *w, const char **ret_words)
{
    *ret_words = w->words;
    return w->verdict;
}

/* --- opening --- */

struct found {
    struct sockaddr_storage address;
    socklen_t len; /* 0: nothing was found */
};

static void look_up(const struct mu_link_ws *w, int flags, struct found *ret)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags}, *list = NULL;
    *ret = (struct found){.len = 0};
    if (getaddrinfo(w->url.host, w->url.port, &hints, &list)) {
        return;
    }
    const struct addrinfo *a = list;
    for (unsigned i = 0; i < w->failures / LOOK_AGAIN && a->ai_next; i++) {
        a = a->ai_next; /* another one of its addresses may be reachable */
    }
    memcpy(&ret->address, a->ai_addr, a->ai_addrlen);
    ret->len = a->ai_addrlen;
    freeaddrinfo(list);
}

static void take_found(struct mu_link_ws *w, const struct found *f)
{
    if (f->len) {
        w->address = f->address;
        w->address_len = f->len;
    }
}

/* A name is looked up by a child, since that takes a thread; what it says comes through the
 * descriptor that is returned. */
static int ask_for_address(struct mu_link_ws *w)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) {
        return -errno;
    }
    pid_t pid = fork();
    if (pid == 0) {
        struct found f;
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(ends[0]);
        look_up(w, 0, &f);
        _exit(write(ends[1], &f, sizeof f) == sizeof f ? 0 : 1);
    }
    int error = pid < 0 ? -errno : 0;
    close(ends[1]);
    if (error) {
        close(ends[0]);
        return error;
    }
    *w->child = pid;
    w->step = LOOKING;
    return ends[0];
}

static int connect_to(struct mu_link_ws *w)
{
    int one = 1;
    int fd MU_AUTO_CLOSE =
        socket(w->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || (connect(fd, (const struct sockaddr *)&w->address, w->address_len) < 0 &&
                   errno != EINPROGRESS)) {
        return -errno;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    w->step = CONNECTING;
    return mu_steal_fd(&fd);
}

/* An address that worked is kept. */
static int dial(struct mu_link_ws *w)
{
    struct found f;
    look_up(w, AI_NUMERICHOST, &f);
    take_found(w, &f);
    bool again = !f.len && w->failures % LOOK_AGAIN == LOOK_AGAIN - 1;
    return w->address_len && !again ? connect_to(w) : ask_for_address(w);
}

/* The name was looked up: the connection takes the descriptor over. */
static int looked_up(struct mu_link_ws *w)
{
    struct found f;
    if (read(w->fd, &f, sizeof f) == sizeof f) {
        take_found(w, &f);
    }
    int fd MU_AUTO_CLOSE = w->address_len ? connect_to(w) : MU_E_NOT_FOUND;
    return fd < 0 ? fd : dup3(fd, w->fd, O_CLOEXEC) < 0 ? -errno : 0;
}

/* TLS is spoken by a child, which checks the server's name against the image's authorities. The
 * token goes through its input, never into its arguments. */
static int dial_tls(struct mu_link_ws *w)
{
    char to[300], colon = strchr(w->url.host, ':') ? 1 : 0;
    unsigned char address[16];
    bool number = inet_pton(AF_INET, w->url.host, address) == 1 || colon;
    int ends[2];
    snprintf(to, sizeof to, colon ? "[%s]:%s" : "%s:%s", w->url.host, w->url.port);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
        return -errno;
    }
    const char *const argv[] = {w->openssl,
                                "s_client",
                                "-quiet",
                                "-verify_return_error",
                                "-connect",
                                to,
                                number ? "-verify_ip" : "-verify_hostname",
                                w->url.host,
                                number ? "-noservername" : "-servername",
                                number ? NULL : w->url.host,
                                NULL};
    struct mu_proc proc = {.argv = argv, .in = ends[1], .out = ends[1], .quiet = true};
    struct mu_spawned child;
    mu_spawn(&proc, &child);
    close(ends[1]);
    if (child.error || fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0) {
        close(ends[0]);
        return child.error ? child.error : -EIO;
    }
    *w->child = child.pid;
    w->step = SHAKING;
    return ends[0];
}

static int add_request(struct mu_link_ws *w)
{
    unsigned char nonce[16];
    bool v6 = strchr(w->url.host, ':') != NULL;
    struct mu_buf key MU_CLEANUP(mu_buf_fini);
    if (getrandom(nonce, sizeof nonce, 0) != sizeof nonce) {
        return -EIO;
    }
    mu_buf_init(&key, MU_SHAKE_KEY_LEN + 1);
    mu_base64_add(&key, mu_bytes_of((const char *)nonce, sizeof nonce));
    mu_buf_add_char(&key, 0);
    if (key.failed) {
        return key.failed;
    }
    mu_shake_accept(key.ptr, w->accept);
    bool query = strchr(w->url.path, '?') != NULL;
    mu_buf_printf(&w->wire, "GET %s%srole=runner HTTP/1.1\r\nHost: %s%s%s:%s\r\n", w->url.path,
                  query ? "&" : "?", v6 ? "[" : "", w->url.host, v6 ? "]" : "", w->url.port);
    mu_buf_printf(&w->wire,
                  "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                  "Sec-WebSocket-Key: %s\r\nAuthorization: Bearer %s\r\n"
                  "User-Agent: muster/" MU_VERSION "\r\n\r\n",
                  key.ptr, w->token);
    return w->wire.failed;
}

int mu_link_ws_open(struct mu_link_ws *w)
{
    w->verdict = MU_LINK_AGAIN;
    w->failures++;
    int r = add_request(w);
    int fd = r ? r : w->openssl[0] ? dial_tls(w) : dial(w);
    if (fd < 0) {
        mu_link_ws_close(w);
        return fd;
    }
    mu_ws_parser_init(&w->parser, false, MU_FRAME_JSON_MAX);
    w->fd = fd;
    w->until = mu_mono_ms() + OPEN_MS;
    return fd;
}

/* --- reading --- */

static int ends_as(struct mu_link_ws *w, enum mu_link_verdict v, const char *words, int number)
{
    w->verdict = v;
    snprintf(w->words, sizeof w->words, "%s (%d)", words, number);
    return MU_E_CLOSED;
}

static int refused(struct mu_link_ws *w, int status)
{
    bool no = status >= 400 && status < 500 && status != 408 && status != 425 && status != 429;
    if (status == 410) {
        return ends_as(w, MU_LINK_OVER, "the session is over", status);
    }
    w->refusals += no;
    return no ? ends_as(w, w->refusals < REFUSALS ? MU_LINK_AGAIN : MU_LINK_NEVER,
                        "the server refuses this runner", status)
              : ends_as(w, MU_LINK_AGAIN, "the server has no room or time for it", status);
}

static int closed_by_peer(struct mu_link_ws *w, int code)
{
    return code == REPLACED ? ends_as(w, MU_LINK_OVER, "another runner took its place", code)
           : code == UNAUTHORIZED
               ? ends_as(w, MU_LINK_OVER, "the attempt is over", code)
               : ends_as(w, MU_LINK_AGAIN, "the server closed the connection", code);
}

static void add_frame(struct mu_buf *wire, enum mu_ws_opcode op, mu_bytes payload)
{
    unsigned char head[MU_WS_HEADER_MAX], mask[4];
    if (getrandom(mask, sizeof mask, 0) != sizeof mask) {
        wire->failed = wire->failed ? wire->failed : -EIO;
        return;
    }
    size_t n = mu_ws_header(head, op, true, payload.len, mask);
    mu_buf_add(wire, mu_bytes_of((const char *)head, n));
    size_t at = wire->len;
    mu_buf_add(wire, payload);
    if (!wire->failed) {
        mu_ws_mask(wire->ptr + at, payload.len, mask, 0);
    }
}

static int take_piece(struct mu_link_ws *w, mu_frame_fn each, void *arg)
{
    struct mu_ws_parser *p = &w->parser;
    mu_bytes whole = p->piece;
    if (!p->text) {
        return MU_E_PROTOCOL; /* terminals are shown to it by nobody */
    }
    if (!p->last || w->message.len) {
        mu_buf_add(&w->message, p->piece);
        whole = mu_buf_bytes(&w->message);
    }
    if (w->message.failed || !p->last) {
        return w->message.failed;
    }
    int r = whole.len ? each(arg, MU_FRAME_JSON, whole) : MU_E_PROTOCOL;
    mu_buf_clear(&w->message);
    return r;
}

static int take_bytes(struct mu_link_ws *w, char *in, size_t len, mu_frame_fn each, void *arg)
{
    int r = 0;
    while (!r && len) {
        size_t used = 0;
        switch (mu_ws_parse(&w->parser, in, len, &used)) {
        case MU_WS_EV_MORE:
        case MU_WS_EV_PONG:
            break;
        case MU_WS_EV_DATA:
            r = take_piece(w, each, arg);
            break;
        case MU_WS_EV_PING: /* of a flood the first ones */
            if (w->wire.len < WIRE_SOFT) {
                add_frame(&w->wire, MU_WS_PONG, w->parser.piece);
            }
            break;
        case MU_WS_EV_CLOSE:
            r = closed_by_peer(w, w->parser.code);
            break;
        case MU_WS_EV_ERROR:
            r = MU_E_PROTOCOL;
            break;
        }
        in += used;
        len -= used;
    }
    return r;
}

/* The head of the answer, and what came with it. */
static int take_head(struct mu_link_ws *w, mu_bytes piece, mu_frame_fn each, void *arg)
{
    struct mu_shake_answer a;
    mu_buf_add(&w->head, piece);
    int r = w->head.failed ? w->head.failed : mu_shake_read(mu_buf_bytes(&w->head), w->accept, &a);
    if (r <= 0) {
        return r;
    }
    if (a.status != 101) {
        return refused(w, a.status);
    }
    w->step = OPEN;
    w->failures = w->refusals = 0;
    r = take_bytes(w, w->head.ptr + a.length, w->head.len - a.length, each, arg);
    mu_buf_fini(&w->head);
    return r;
}

static int connected(struct mu_link_ws *w, short revents)
{
    int error = 0;
    socklen_t len = sizeof error;
    if (!(revents & (POLLOUT | POLLERR | POLLHUP))) {
        return 0;
    }
    if (getsockopt(w->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || error) {
        return error ? -error : -errno;
    }
    w->step = SHAKING;
    return 0;
}

int mu_link_ws_read(struct mu_link_ws *w, short revents, mu_frame_fn each, void *arg)
{
    char block[READ_BLOCK];
    int r = 0;
    if (w->step == LOOKING) {
        r = revents ? looked_up(w) : 0;
        revents = 0;
    } else if (w->step == CONNECTING) {
        r = connected(w, revents);
    }
    if (!r && mu_mono_ms() >= w->until) {
        return -ETIMEDOUT;
    }
    if (!(revents & (POLLIN | POLLERR | POLLHUP))) {
        return r;
    }
    for (int i = 0; i < READS && !r && w->step != CONNECTING; i++) {
        ssize_t n = recv(w->fd, block, sizeof block, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return 0;
        }
        if (n <= 0) {
            return n < 0 ? -errno : MU_E_CLOSED;
        }
        r = w->step == OPEN ? take_bytes(w, block, (size_t)n, each, arg)
                            : take_head(w, mu_bytes_of(block, (size_t)n), each, arg);
        if (w->step == OPEN) {
            w->until = mu_mono_ms() + SILENCE_MS;
        }
    }
    return r;
}

/* --- writing --- */

static int add_front(struct mu_link_ws *w, struct mu_buf *out)
{
    struct mu_frame_view f;
    int r = mu_frame_front(mu_buf_bytes(out), &f);
    if (r <= 0) {
        return r;
    }
    if (f.kind == MU_FRAME_PUT) {
        return MU_E_PROTOCOL; /* there is no worker */
    }
    add_frame(&w->wire, f.kind == MU_FRAME_BYTES ? MU_WS_BINARY : MU_WS_TEXT, f.payload);
    mu_buf_consume(out, MU_FRAME_HEAD + f.payload.len);
    return w->wire.failed ? w->wire.failed : 1;
}

int mu_link_ws_write(struct mu_link_ws *w, struct mu_buf *out)
{
    while (w->step == SHAKING || w->step == OPEN) {
        while (w->step == OPEN && w->wire.len < WIRE_SOFT && out->len) {
            int r = add_front(w, out);
            if (r < 0) {
                return r;
            }
            if (r == 0) {
                break;
            }
        }
        if (!w->wire.len) {
            return 0;
        }
        ssize_t n = send(w->fd, w->wire.ptr, w->wire.len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return 0;
        }
        if (n <= 0) {
            return n < 0 ? -errno : MU_E_CLOSED;
        }
        mu_buf_consume(&w->wire, (size_t)n);
    }
    return 0;
}

short mu_link_ws_want(const struct mu_link_ws *w, const struct mu_buf *out, int64_t *wait_ms)
{
    bool writes = w->step != LOOKING &&
                  (w->wire.len || w->step == CONNECTING || (w->step == OPEN && out->len));
    *wait_ms = MU_MIN(*wait_ms, MU_MAX(w->until - mu_mono_ms(), (int64_t)0));
    return (short)(POLLIN | (writes ? POLLOUT : 0));
}
