#include "runner/http.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/encode.h"

enum { HEAD_MAX = 16 << 10, BLOCK = 16 << 10, SLACK = 64 << 10 };

int mu_http_url_parse(mu_bytes text, struct mu_http_url *ret)
{
    struct mu_http_url u = {0};
    mu_bytes rest;
    for (size_t i = 0; i < text.len; i++) {
        if ((unsigned char)text.ptr[i] <= 0x20 || text.ptr[i] == 0x7f) {
            return MU_E_INVALID;
        }
    }
    if (mu_bytes_starts(text, MU_B("http://"))) {
        rest = mu_bytes_from(text, 7);
    } else if (mu_bytes_starts(text, MU_B("https://"))) {
        rest = mu_bytes_from(text, 8);
        u.tls = true;
    } else {
        return MU_E_INVALID;
    }
    size_t end = 0;
    while (end < rest.len && !memchr("/?#", rest.ptr[end], 3)) {
        end++;
    }
    mu_bytes host = mu_bytes_head(rest, end), path = mu_bytes_from(rest, end), port = MU_B_NONE;
    ptrdiff_t hash = mu_bytes_find_char(path, '#');
    path = hash < 0 ? path : mu_bytes_head(path, (size_t)hash);
    ptrdiff_t close = host.len && host.ptr[0] == '[' ? mu_bytes_find_char(host, ']') : -1;
    ptrdiff_t colon = -1;
    if (close > 0) {
        mu_bytes after = mu_bytes_from(host, (size_t)close + 1);
        colon = after.len && after.ptr[0] == ':' ? close + 1 : -1;
        if (after.len && colon < 0) {
            return MU_E_INVALID;
        }
    } else {
        colon = mu_bytes_find_char(host, ':');
    }
    if (colon >= 0) {
        port = mu_bytes_from(host, (size_t)colon + 1);
        host = mu_bytes_head(host, (size_t)colon);
    }
    if (close > 0) {
        host = mu_bytes_of(host.ptr + 1, (size_t)close - 1);
    }
    int64_t number = u.tls ? 443 : 80;
    if ((colon >= 0 && (mu_bytes_i64(port, &number) < 0 || number < 1 || number > 65535)) ||
        !host.len || host.len >= sizeof u.host || mu_bytes_find_char(host, '@') >= 0 ||
        path.len + 2 > sizeof u.path) {
        return MU_E_INVALID;
    }
    memcpy(u.host, host.ptr, host.len);
    snprintf(u.port, sizeof u.port, "%d", (int)number);
    snprintf(u.path, sizeof u.path, "%s%.*s", path.len && path.ptr[0] == '/' ? "" : "/",
             MU_ARGS(path));
    *ret = u;
    return 0;
}

/* The value of a header, or nothing. */
static mu_bytes header(mu_bytes head, const char *name)
{
    mu_bytes rest = head;
    while (rest.ptr) {
        mu_bytes line = mu_bytes_split(&rest, '\n');
        ptrdiff_t colon = mu_bytes_find_char(line, ':');
        if (colon > 0 && mu_bytes_eq_nocase(mu_bytes_head(line, (size_t)colon), mu_str(name))) {
            return mu_bytes_trim(mu_bytes_from(line, (size_t)colon + 1));
        }
    }
    return MU_B_NONE;
}

/* 1 = the last chunk is there, 0 = more must come. */
static int join_chunks(mu_bytes raw, struct mu_buf *body)
{
    for (;;) {
        ptrdiff_t at = mu_bytes_find(raw, MU_B("\r\n"));
        size_t size = 0, digits = 0;
        if (at < 0) {
            return raw.len > 1024 ? MU_E_PROTOCOL : 0;
        }
        for (; digits < (size_t)at; digits++) {
            char c = raw.ptr[digits];
            int d = mu_hex_value(c);
            if (d < 0) {
                break;
            }
            if (digits >= 8) {
                return MU_E_PROTOCOL;
            }
            size = size * 16 + (size_t)d;
        }
        if (!digits) {
            return MU_E_PROTOCOL;
        }
        if (!size) {
            return 1;
        }
        raw = mu_bytes_from(raw, (size_t)at + 2);
        if (raw.len < size + 2) {
            return 0;
        }
        mu_buf_add(body, mu_bytes_head(raw, size));
        if (raw.ptr[size] != '\r' || raw.ptr[size + 1] != '\n') {
            return MU_E_PROTOCOL;
        }
        raw = mu_bytes_from(raw, size + 2);
    }
}

static int read_body(mu_bytes head, mu_bytes rest, bool ended, bool *complete, struct mu_buf *body)
{
    mu_bytes coding = header(head, "transfer-encoding"), length = header(head, "content-length");
    if (coding.len) {
        int r =
            mu_bytes_eq_nocase(coding, MU_B("chunked")) ? join_chunks(rest, body) : MU_E_PROTOCOL;
        *complete = r == 1;
        return r < 0 ? r : !*complete && ended ? MU_E_PROTOCOL : 0;
    }
    if (length.len) {
        int64_t want;
        if (mu_bytes_i64(length, &want) < 0 || want < 0) {
            return MU_E_PROTOCOL;
        }
        *complete = (int64_t)rest.len >= want;
        mu_buf_add(body, mu_bytes_head(rest, (size_t)want));
        return !*complete && ended ? MU_E_PROTOCOL : 0;
    }
    *complete = ended;
    mu_buf_add(body, rest);
    return 0;
}

int mu_http_answer_parse(mu_bytes raw, bool ended, struct mu_http_answer *ret,
                         struct mu_buf *ret_body)
{
    mu_buf_clear(ret_body);
    *ret = (struct mu_http_answer){0};
    for (;;) {
        ptrdiff_t end = mu_bytes_find(raw, MU_B("\r\n\r\n"));
        if (end < 0) {
            return raw.len > HEAD_MAX || ended ? MU_E_PROTOCOL : 0;
        }
        mu_bytes head = mu_bytes_head(raw, (size_t)end + 2);
        raw = mu_bytes_from(raw, (size_t)end + 4);
        int64_t status;
        if (head.len < 12 || !mu_bytes_starts(head, MU_B("HTTP/1.")) || head.ptr[8] != ' ' ||
            mu_bytes_i64(mu_bytes_of(head.ptr + 9, 3), &status) < 0 || status < 100) {
            return MU_E_PROTOCOL;
        }
        ret->status = (int)status;
        if (status < 200) {
            continue; /* the answer proper follows */
        }
        if (status == 204 || status == 304) {
            ret->complete = true;
            return 0;
        }
        int r = read_body(head, raw, ended, &ret->complete, ret_body);
        return r ? r : ret_body->failed;
    }
}

/* --- plain HTTP --- */

/* Waits for the descriptor. MU_E_TIMEOUT, MU_E_CANCELLED. */
static int wait_for(struct mu_procs *p, int fd, short events, int64_t deadline)
{
    for (;;) {
        struct pollfd fds[2] = {{fd, events, 0}, {p->sigfd, POLLIN, 0}};
        int64_t ms = deadline - mu_mono_ms();
        if (ms <= 0) {
            return MU_E_TIMEOUT;
        }
        if (poll(fds, 2, (int)ms) < 0 && errno != EINTR) {
            return -errno;
        }
        bool was = p->stopping;
        if (fds[1].revents) {
            mu_procs_signals(p);
        }
        if (p->stopping && !was) {
            return MU_E_CANCELLED;
        }
        if (fds[0].revents) {
            return 0;
        }
    }
}

static int dial(struct mu_procs *p, const struct mu_http_url *u, int64_t deadline)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    if (getaddrinfo(u->host, u->port, &hints, &list)) {
        return MU_E_NOT_FOUND;
    }
    int r = MU_E_NOT_FOUND;
    for (struct addrinfo *a = list; a; a = a->ai_next) {
        int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0) {
            r = -errno;
            continue;
        }
        r = connect(fd, a->ai_addr, a->ai_addrlen) == 0 ? 0 : -errno;
        if (r == -EINPROGRESS) {
            int error = 0;
            socklen_t len = sizeof error;
            r = wait_for(p, fd, POLLOUT, deadline);
            if (!r && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0) {
                r = -error;
            }
        }
        if (!r) {
            freeaddrinfo(list);
            return fd;
        }
        close(fd);
        if (r == MU_E_CANCELLED) {
            break;
        }
    }
    freeaddrinfo(list);
    return r;
}

static int send_all(struct mu_procs *p, int fd, mu_bytes b, int64_t deadline)
{
    while (b.len) {
        ssize_t n = send(fd, b.ptr, b.len, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            int r = wait_for(p, fd, POLLOUT, deadline);
            if (r) {
                return r;
            }
        } else if (n < 0 && errno != EINTR) {
            return -errno;
        }
        b = mu_bytes_from(b, n > 0 ? (size_t)n : 0);
    }
    return 0;
}

static int read_answer(struct mu_procs *p, int fd, int64_t deadline, struct mu_http_answer *ret,
                       struct mu_buf *body)
{
    struct mu_buf raw MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&raw, body->max + HEAD_MAX + SLACK);
    for (;;) {
        char *room = mu_buf_room(&raw, BLOCK);
        if (!room) {
            return raw.failed;
        }
        ssize_t n = recv(fd, room, BLOCK, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            int r = wait_for(p, fd, POLLIN, deadline);
            if (r) {
                return r;
            }
            continue;
        }
        if (n < 0) {
            return -errno;
        }
        raw.len += (size_t)n;
        int r = mu_http_answer_parse(mu_buf_bytes(&raw), n == 0, ret, body);
        if (r || ret->complete) {
            return r;
        }
    }
}

static int send_plain(struct mu_procs *p, const struct mu_http_call *call,
                      const struct mu_http_url *u, struct mu_http_answer *ret, struct mu_buf *body)
{
    int64_t deadline = mu_mono_ms() + call->timeout_ms;
    int fd MU_AUTO_CLOSE = dial(p, u, deadline);
    if (fd < 0) {
        return fd;
    }
    struct mu_buf head MU_CLEANUP(mu_buf_wipe);
    mu_buf_init(&head, HEAD_MAX);
    bool v6 = strchr(u->host, ':') != NULL;
    mu_buf_printf(&head, "%s %s HTTP/1.1\r\nHost: %s%s%s:%s\r\nConnection: close\r\n", call->method,
                  u->path, v6 ? "[" : "", u->host, v6 ? "]" : "", u->port);
    mu_buf_printf(&head, "Authorization: Bearer %s\r\nUser-Agent: muster/" MU_VERSION "\r\n",
                  call->bearer);
    if (call->body.ptr) {
        mu_buf_printf(&head, "Content-Type: application/json\r\nContent-Length: %zu\r\n",
                      call->body.len);
    }
    mu_buf_add_str(&head, "\r\n");
    if (head.failed) {
        return head.failed;
    }
    int r = send_all(p, fd, mu_buf_bytes(&head), deadline);
    r = r ? r : send_all(p, fd, call->body, deadline);
    if (r && r != -EPIPE && r != -ECONNRESET) { /* a refusal may have come before all was sent */
        return r;
    }
    return read_answer(p, fd, deadline, ret, body);
}

/* --- https through curl --- */

#define BODY_FILE ".report"

static void add_quoted(struct mu_buf *b, const char *name, const char *text)
{
    mu_buf_add_str(b, name);
    mu_buf_add_str(b, " = \"");
    for (const char *c = text; *c; c++) {
        if (*c == '"' || *c == '\\') {
            mu_buf_add_char(b, '\\');
        }
        mu_buf_add_char(b, *c);
    }
    mu_buf_add_str(b, "\"\n");
}

static void keep(void *arg, mu_bytes piece)
{
    mu_buf_add(arg, piece);
}

static int body_file(const struct mu_http_call *call)
{
    (void)unlinkat(call->dir, BODY_FILE, 0);
    int fd MU_AUTO_CLOSE =
        openat(call->dir, BODY_FILE, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    mu_bytes rest = call->body;
    while (fd >= 0 && rest.len) {
        ssize_t n = write(fd, rest.ptr, rest.len);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        rest = mu_bytes_from(rest, n > 0 ? (size_t)n : 0);
    }
    return fd < 0 ? -errno : 0;
}

/* The request goes to curl on its standard input: nothing of it is an argument. */
static int curl_config(const struct mu_http_call *call)
{
    struct mu_buf b MU_CLEANUP(mu_buf_wipe);
    char text[4500];
    mu_buf_init(&b, HEAD_MAX);
    add_quoted(&b, "url", call->url);
    add_quoted(&b, "request", call->method);
    snprintf(text, sizeof text, "Authorization: Bearer %s", call->bearer);
    add_quoted(&b, "header", text);
    if (call->body.ptr) {
        add_quoted(&b, "header", "Content-Type: application/json");
        snprintf(text, sizeof text, "@%s/" BODY_FILE, call->dir_path);
        add_quoted(&b, "data-binary", text);
    }
    mu_buf_printf(&b, "silent\nmax-time = %lld\nwrite-out = \"\\n%%{http_code}\"\n",
                  (long long)(call->timeout_ms / 1000 + 1));
    int fd MU_AUTO_CLOSE = memfd_create("curl", MFD_CLOEXEC);
    if (b.failed || fd < 0 || write(fd, b.ptr, b.len) != (ssize_t)b.len ||
        lseek(fd, 0, SEEK_SET) < 0) {
        return b.failed ? b.failed : -EIO;
    }
    return mu_steal_fd(&fd);
}

static int send_curl(struct mu_procs *p, const struct mu_http_call *call,
                     struct mu_http_answer *ret, struct mu_buf *body)
{
    int r = call->body.ptr ? body_file(call) : 0;
    int config MU_AUTO_CLOSE = r ? r : curl_config(call);
    if (config < 0) {
        return config;
    }
    const char *const argv[] = {"curl", "-q", "-K", "-", NULL};
    struct mu_proc proc = {.argv = argv,
                           .in = config,
                           .out = -1,
                           .even_stopping = true,
                           .timeout_ms = call->timeout_ms + 2000,
                           .sink = keep,
                           .arg = body};
    struct mu_proc_end end;
    mu_procs_run(p, &proc, &end);
    if (call->body.ptr) {
        (void)unlinkat(call->dir, BODY_FILE, 0);
    }
    int64_t status = 0;
    mu_bytes all = mu_buf_bytes(body);
    if (end.error) {
        return -ENOSYS;
    }
    if (end.status || body->failed || all.len < 4 ||
        mu_bytes_i64(mu_bytes_from(all, all.len - 3), &status) < 0 || status < 100) {
        return body->failed ? body->failed : MU_E_IO;
    }
    body->len -= 4;
    *ret = (struct mu_http_answer){(int)status, true};
    return 0;
}

int mu_http_send(struct mu_procs *p, const struct mu_http_call *call, int *ret_status,
                 struct mu_buf *ret_body, struct mu_err *err)
{
    struct mu_http_url u;
    struct mu_http_answer answer = {0};
    if (mu_http_url_parse(mu_str(call->url), &u) < 0 || strpbrk(call->bearer, "\r\n")) {
        return mu_err_set(err, MU_E_INVALID, "not an address: %.200s", call->url);
    }
    int r =
        u.tls ? send_curl(p, call, &answer, ret_body) : send_plain(p, call, &u, &answer, ret_body);
    if (r) {
        return mu_err_set(err, r, "%s: %s", u.host,
                          r == -ENOSYS ? "https needs curl, which is not in this image"
                                       : mu_err_text(r));
    }
    *ret_status = answer.status;
    return 0;
}
