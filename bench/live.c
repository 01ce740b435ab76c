/* The WebSocket clients of script/bench: one thread, epoll, of our server (docs/socket.md) or of the peer.
 *
 *   live flood PORT TOKEN SESSION COMMAND HOW    types COMMAND into terminal 0 and reads it up to the words END-OF-FLOOD; keys
 *                                                are typed into terminal 1 and their echo timed (HOW "same": into terminal 0;
 *                                                "text": terminal 0 comes as text frames)
 *   live fan   PORT TOKEN SESSION N STALLED SECONDS   N followers, the first STALLED of them never read; "ready", a line on stdin, result
 *   live idle  PORT TOKEN N                      prints "ready", answers pings, holds until stdin ends
 *   live allow PORT TOKEN SESSION                allows every approval until stdin ends
 *
 * SESSION "-" is the peer (bench/peer/terminal.mjs): one pseudo-terminal for each connection, nothing but its bytes. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    SCRATCH = 256 << 10,
    MAX_SAMPLES = 8 << 20,
    MAX_FRAME = 16 << 20,
    BINARY_HEAD = 32,
    KEY_MS = 20,
    LINE = 60,
    LOST_NS = 2000000000
};
enum { TEXT = 1, BINARY = 2, PING = 9, PONG = 10 };

struct conn {
    int fd, index;
    bool open, ready, stalled;
    unsigned char *in; /* the rest of a frame that is not whole */
    size_t len, size;
    int64_t seq, offset; /* the last event; the end of the terminal that was seen */
};

static int ep, port, n_ready, n_cut;
static const char *token, *session;
static unsigned char scratch[SCRATCH];
static uint32_t *samples;
static size_t n_samples;
static bool counting;
static uint64_t events, wrong, bytes_in;
static void (*on_message)(struct conn *c, int op, const char *p, size_t n);

static void die(const char *what)
{
    fprintf(stderr, "live: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void sample(int64_t ns)
{
    if (n_samples < MAX_SAMPLES) {
        samples[n_samples++] = ns < 0 ? 0 : ns / 1000 > UINT32_MAX ? UINT32_MAX : (uint32_t)(ns / 1000);
    }
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static uint32_t quantile(double q)
{
    return n_samples ? samples[(size_t)((double)(n_samples - 1) * q)] : 0;
}

static double cpu_us(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* --- frames --- */

/* Masked with zeroes: valid, and costs nothing. */
static void send_frame(struct conn *c, int op, const char *p, size_t n)
{
    unsigned char head[14] = {(unsigned char)(0x80 | op)};
    size_t k = 2;
    if (n < 126) {
        head[1] = (unsigned char)(0x80 | n);
    } else {
        head[1] = 0x80 | 126;
        head[2] = (unsigned char)(n >> 8);
        head[3] = (unsigned char)n;
        k = 4;
    }
    memset(head + k, 0, 4);
    k += 4;
    struct iovec v[2] = {{head, k}, {(void *)(uintptr_t)p, n}};
    struct msghdr m = {.msg_iov = v, .msg_iovlen = 2};
    if (sendmsg(c->fd, &m, MSG_NOSIGNAL) != (ssize_t)(k + n)) {
        die("a small message did not fit");
    }
}

static void say(struct conn *c, const char *text)
{
    send_frame(c, TEXT, text, strlen(text));
}

/* The length of the frame that begins there, 0: its head is not whole. */
static size_t frame_size(const unsigned char *p, size_t have, size_t *ret_head)
{
    if (have < 2) {
        return 0;
    }
    size_t n = p[1] & 127, head = n == 126 ? 4 : n == 127 ? 10 : 2;
    if (have < head) {
        return 0;
    }
    if (head > 2) {
        n = 0;
        for (size_t i = 2; i < head; i++) {
            n = n << 8 | p[i];
        }
    }
    if (n > MAX_FRAME) {
        errno = EMSGSIZE;
        die("frame");
    }
    *ret_head = head;
    return head + n;
}

/* How much of it was whole frames. */
static size_t take_frames(struct conn *c, const unsigned char *p, size_t have)
{
    size_t at = 0, head, size;
    while ((size = frame_size(p + at, have - at, &head)) && size <= have - at) {
        int op = p[at] & 15;
        const char *body = (const char *)p + at + head;
        if (op == PING) {
            send_frame(c, PONG, body, size - head);
        } else if (op == TEXT || op == BINARY) {
            on_message(c, op, body, size - head);
        }
        at += size;
    }
    return at;
}

static void keep(struct conn *c, const unsigned char *p, size_t n)
{
    if (c->len + n > c->size) {
        c->size = (c->len + n) * 2;
        c->in = realloc(c->in, c->size);
        if (!c->in) {
            die("memory");
        }
    }
    memcpy(c->in + c->len, p, n);
    c->len += n;
}

static void took(struct conn *c, const unsigned char *p, size_t n)
{
    bytes_in += n;
    while (c->len && n) { /* what was left over first, filled up to one frame */
        size_t head, size = frame_size(c->in, c->len, &head);
        size_t more = size ? size - c->len : 1;
        more = more < n ? more : n;
        keep(c, p, more);
        p += more;
        n -= more;
        if (frame_size(c->in, c->len, &head) == c->len && take_frames(c, c->in, c->len)) {
            c->len = 0;
        }
    }
    size_t done = take_frames(c, p, n);
    if (n > done) {
        keep(c, p + done, n - done);
    } else if (!c->len && c->size) {
        free(c->in);
        c->in = NULL;
        c->size = 0;
    }
}

static void on_readable(struct conn *c)
{
    ssize_t n = recv(c->fd, scratch, sizeof scratch, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) {
        return;
    }
    if (n <= 0) {
        epoll_ctl(ep, EPOLL_CTL_DEL, c->fd, NULL);
        c->open = false;
        n_cut++;
        return;
    }
    took(c, scratch, (size_t)n);
}

static void poll_for(int ms)
{
    struct epoll_event evs[256];
    int n = epoll_wait(ep, evs, 256, ms < 0 ? 0 : ms);
    for (int i = 0; i < n; i++) {
        on_readable(evs[i].data.ptr);
    }
}

static void poll_until(int64_t ns)
{
    int64_t left = ns - now_ns();
    poll_for(left <= 0 ? 0 : (int)((left + 999999) / 1000000));
}

/* --- connections --- */

/* An address for every 10,000: above half of the port range connect() searches for long. */
static void connect_to(struct conn *c, int index, const char *path)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in from = {.sin_family = AF_INET};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)index / 10000);
    int on = 1, room = 16384;
    char text[1024];
    c->index = index;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->stalled) {
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    }
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (c->fd < 0 || bind(c->fd, (struct sockaddr *)&from, sizeof from) < 0 ||
        connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0) {
        die("connect");
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    int n = snprintf(text, sizeof text,
                     "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %s\r\nConnection: Upgrade\r\n"
                     "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                     "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", path, port, token);
    if (send(c->fd, text, (size_t)n, MSG_NOSIGNAL) != n) {
        die("send");
    }
    size_t have = 0;
    char *end = NULL;
    while (!end && have + 1 < sizeof text) {
        ssize_t k = recv(c->fd, text + have, sizeof text - 1 - have, 0);
        if (k <= 0) {
            die("upgrade");
        }
        have += (size_t)k;
        text[have] = 0;
        end = strstr(text, "\r\n\r\n");
    }
    if (!end || memcmp(text + 9, "101", 3) != 0) {
        fprintf(stderr, "live: no upgrade: %.200s\n", text);
        exit(1);
    }
    c->open = true;
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &ev) < 0) {
        die("epoll_ctl");
    }
    took(c, (unsigned char *)end + 4, have - (size_t)(end + 4 - text));
}

static void raise_files(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
        r.rlim_cur = r.rlim_max;
        setrlimit(RLIMIT_NOFILE, &r);
    }
}

static void wait_ready(int want, const char *what)
{
    int64_t limit = now_ns() + INT64_C(30000000000);
    while (n_ready < want && now_ns() < limit) {
        poll_for(100);
    }
    if (n_ready < want) {
        errno = ETIMEDOUT;
        die(what);
    }
}

static bool has(const char *p, size_t n, const char *what)
{
    return memmem(p, n, what, strlen(what)) != NULL;
}

static bool stdin_ended(void)
{
    char line[64];
    ssize_t n = read(0, line, sizeof line);
    return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

/* --- flood --- */

static bool same, text_frames, ended;
static int64_t key_at; /* when the key was typed whose echo is awaited */
static int64_t echo_end; /* up to where its terminal is then */
static uint64_t delivered, lost_keys;
static char tail[16];
static struct conn *flooded, *typed;

static void type(struct conn *c, int terminal, const char *data)
{
    char text[8192];
    if (session[0] == '-') {
        send_frame(c, BINARY, data, strlen(data));
        return;
    }
    int n = snprintf(text, sizeof text, "{\"type\":\"terminal_input\",\"messageId\":\"k\",\"sessionId\":\"%s\",\"terminal\":%d,"
                     "\"data\":\"", session, terminal);
    for (; *data && n < (int)sizeof text - 16; data++) {
        bool plain = (unsigned char)*data >= 0x20 && *data != '"' && *data != '\\';
        n += snprintf(text + n, sizeof text - (size_t)n, plain ? "%c" : "\\u%04x", (unsigned char)*data);
    }
    snprintf(text + n, sizeof text - (size_t)n, "\"}");
    say(c, text);
}

static void echoed(void)
{
    if (key_at) {
        sample(now_ns() - key_at);
    }
    key_at = 0;
}

/* The marker may be split between two frames. */
static void look(const char *p, size_t n)
{
    static const char mark[] = "END-OF-FLOOD";
    char joint[32];
    size_t first = n < sizeof tail ? n : sizeof tail - 1;
    memcpy(joint, tail, sizeof tail);
    memcpy(joint + sizeof tail, p, first);
    ended = ended || memmem(joint, sizeof tail + first, mark, sizeof mark - 1) ||
            memmem(p, n, mark, sizeof mark - 1);
    if (n >= sizeof tail) {
        memcpy(tail, p + n - sizeof tail, sizeof tail);
    } else {
        memmove(tail, tail + n, sizeof tail - n);
        memcpy(tail + sizeof tail - n, p, n);
    }
}

static void other_text(const char *p, size_t n)
{
    n_ready += has(p, n, "\"subscribed\"");
    if (has(p, n, "\"type\":\"error\"")) {
        fprintf(stderr, "live: %.*s\n", (int)(n < 300 ? n : 300), p);
        wrong++;
    }
}

/* Bytes that a JSON string stands for; our floods are ASCII. */
static size_t unescaped(const char *p, const char *end)
{
    size_t n = 0;
    for (; p < end && *p != '"'; n++) {
        p += *p != '\\' ? 1 : p[1] == 'u' ? 6 : 2;
    }
    return n;
}

/* {"type":"terminal", …, "action":"output","terminal":0,"offset":N,["gap":…,]"data":"…"} */
static void terminal_text(struct conn *c, const char *p, size_t n)
{
    const char *offset = memmem(p, n < 200 ? n : 200, "\"offset\":", 9), *data = memmem(p, n < 400 ? n : 400, "\"data\":\"", 8);
    if (!offset || !data || has(p, n < 400 ? n : 400, "\"encoding\"")) {
        other_text(p, n);
        return;
    }
    int64_t at = strtoll(offset + 9, NULL, 10);
    size_t len = unescaped(data + 8, p + n);
    wrong += c->offset > at;
    c->offset = at + (int64_t)len;
    if (counting) {
        delivered += len;
        look(data, n - (size_t)(data - p));
    }
}

static void flood_message(struct conn *c, int op, const char *p, size_t n)
{
    if (op == TEXT) {
        if (c == flooded && text_frames) {
            terminal_text(c, p, n);
        } else {
            other_text(p, n);
        }
        return;
    }
    if (session[0] != '-') {
        int64_t offset = 0;
        for (size_t i = 8; i < 16; i++) {
            offset = offset << 8 | (unsigned char)p[i];
        }
        p += BINARY_HEAD;
        n -= BINARY_HEAD;
        wrong += c->offset > offset;
        c->offset = offset + (int64_t)n;
    } else {
        c->offset += (int64_t)n;
    }
    if (c == flooded) {
        delivered += counting ? n : 0;
        if (counting) {
            look(p, n);
        }
    }
    if (counting && (same ? c == flooded && memchr(p, '~', n) : c == typed && c->offset >= echo_end)) {
        echoed();
    }
}

static void follow(struct conn *c, int terminal)
{
    char text[512], path[64];
    snprintf(path, sizeof path, session[0] == '-' ? "/" : "/api/v1/ws");
    connect_to(c, 0, path);
    if (session[0] == '-') {
        n_ready++;
        return;
    }
    snprintf(text, sizeof text, "{\"type\":\"subscribe_session\",\"messageId\":\"s\",\"sessionId\":\"%s\","
             "\"terminal\":%d,\"binary\":%s}", session, terminal, terminal == 0 && text_frames ? "false" : "true");
    say(c, text);
}

static int flood(const char *command)
{
    struct conn a = {0}, b = {0};
    char line[2048];
    flooded = &a;
    typed = &b;
    on_message = flood_message;
    follow(&a, 0);
    follow(&b, 1);
    wait_ready(2, "subscribing");
    type(&b, 1, "cat >/dev/null\r");
    for (int64_t until = now_ns() + 500000000; now_ns() < until;) {
        poll_until(until);
    }
    snprintf(line, sizeof line, "%s\r", command);
    echo_end = b.offset;
    int64_t from = a.offset, begin = now_ns(), next = begin + 100000000;
    double cpu = cpu_us();
    counting = true;
    key_at = 0;
    type(&a, 0, line);
    for (int keys = 0; !ended && now_ns() < begin + INT64_C(120000000000) && !n_cut;) {
        poll_until(next);
        int64_t now = now_ns();
        if (key_at && now - key_at > LOST_NS) {
            key_at = 0;
            lost_keys++;
        }
        if (now >= next) {
            next = now + KEY_MS * 1000000;
            if (!key_at) {
                bool line_end = !same && ++keys % LINE == 0;
                key_at = line_end ? 0 : now_ns();
                echo_end += line_end ? 2 : 1;
                type(same ? &a : &b, same ? 0 : 1, line_end ? "\r" : same ? "~" : "k");
            }
        }
    }
    double seconds = (double)(now_ns() - begin) / 1e9;
    cpu = cpu_us() - cpu;
    qsort(samples, n_samples, sizeof *samples, by_value);
    printf("{\"seconds\":%.3f,\"shown\":%lld,\"delivered\":%llu,\"keys\":%zu,\"p50_us\":%u,\"p99_us\":%u,\"max_us\":%u,"
           "\"lost_keys\":%llu,\"wrong\":%llu,\"ended\":%s,\"cpu_us\":%.0f}\n",
           seconds, (long long)(a.offset - from), (unsigned long long)delivered, n_samples, quantile(0.5), quantile(0.99),
           quantile(1), (unsigned long long)lost_keys, (unsigned long long)wrong, ended ? "true" : "false", cpu);
    type(&b, 1, "\003");
    type(&a, 0, "\025");
    return 0;
}

/* --- fan --- */

/* Events: {"type":"session", …, "path":"@NANOSECONDS@…", …, "seq":N}. */
static void fan_message(struct conn *c, int op, const char *p, size_t n)
{
    if (op != TEXT) {
        return;
    }
    if (!c->ready) {
        if (has(p, n, "\"subscribed\"")) {
            c->ready = true;
            n_ready++;
        }
        return;
    }
    const char *at = memmem(p, n, "\"path\":\"@", 9), *seq = memmem(p, n, "\"seq\":", 6);
    if (!at || !seq) {
        return;
    }
    int64_t number = strtoll(seq + 6, NULL, 10);
    wrong += c->seq && number != c->seq + 1;
    c->seq = number;
    events++;
    if (counting) {
        sample(now_ns() - strtoll(at + 9, NULL, 10));
    }
}

static int fan(int n, int stalled, double seconds)
{
    struct conn *conns = calloc((size_t)n, sizeof *conns);
    char text[256], line[16];
    if (!conns) {
        die("memory");
    }
    on_message = fan_message;
    snprintf(text, sizeof text, "{\"type\":\"subscribe_session\",\"messageId\":\"s\",\"sessionId\":\"%s\",\"terminal\":false}",
             session);
    for (int i = 0; i < n; i++) {
        conns[i].stalled = i < stalled;
        connect_to(&conns[i], i, "/api/v1/ws");
        say(&conns[i], text);
        poll_for(0);
    }
    wait_ready(n, "subscribing");
    for (int i = 0; i < stalled; i++) {
        epoll_ctl(ep, EPOLL_CTL_DEL, conns[i].fd, NULL);
    }
    printf("ready\n");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) {
        return 1;
    }
    counting = true;
    uint64_t before = bytes_in;
    double cpu = cpu_us();
    int64_t begin = now_ns(), until = begin + (int64_t)(seconds * 1e9);
    uint64_t first = events;
    while (now_ns() < until) {
        poll_until(until);
    }
    counting = false;
    cpu = cpu_us() - cpu;
    uint64_t in_time = events - first;
    double took_s = (double)(now_ns() - begin) / 1e9;
    for (until = now_ns() + 2000000000; now_ns() < until;) { /* what is on its way: all see the same last one */
        poll_until(until);
    }
    int64_t last = 0, behind = 0;
    for (int i = stalled; i < n; i++) {
        last = conns[i].seq > last ? conns[i].seq : last;
    }
    for (int i = stalled; i < n; i++) {
        behind += conns[i].seq != last;
    }
    qsort(samples, n_samples, sizeof *samples, by_value);
    printf("{\"rate\":%.0f,\"n\":%llu,\"p50_us\":%u,\"p99_us\":%u,\"max_us\":%u,\"wrong\":%llu,\"behind\":%lld,\"cut\":%d,"
           "\"bytes\":%llu,\"cpu_us\":%.0f}\n", (double)in_time / took_s, (unsigned long long)in_time, quantile(0.5),
           quantile(0.99), quantile(1), (unsigned long long)wrong, (long long)behind, n_cut,
           (unsigned long long)(bytes_in - before), cpu);
    return 0;
}

/* --- idle --- */

static void idle_message(struct conn *c, int op, const char *p, size_t n)
{
    if (op == TEXT && !c->ready && has(p, n, "\"authenticated\"")) {
        c->ready = true;
        n_ready++;
    }
}

static int idle(int n)
{
    struct conn *conns = calloc((size_t)n, sizeof *conns);
    if (!conns) {
        die("memory");
    }
    on_message = idle_message;
    for (int i = 0; i < n; i++) {
        connect_to(&conns[i], i, "/api/v1/ws");
        poll_for(0);
    }
    wait_ready(n, "authentication");
    printf("ready\n");
    fflush(stdout);
    fcntl(0, F_SETFL, O_NONBLOCK);
    while (!stdin_ended()) {
        poll_for(100);
    }
    printf("{\"cut\":%d}\n", n_cut);
    return 0;
}

/* --- allow --- */

static void allow_message(struct conn *c, int op, const char *p, size_t n)
{
    char text[512];
    if (op != TEXT) {
        return;
    }
    n_ready += has(p, n, "\"subscribed\"");
    if (!memmem(p, n < 64 ? n : 64, "\"approval_required\"", 19)) {
        return;
    }
    const char *id = memmem(p, n, "\"approvalId\":\"", 14);
    if (id) {
        snprintf(text, sizeof text, "{\"type\":\"resolve_approval\",\"messageId\":\"a\",\"sessionId\":\"%s\",\"approvalId\":\"%.*s\","
                 "\"decision\":\"allow\"}", session, (int)strcspn(id + 14, "\""), id + 14);
        say(c, text);
        events++;
    }
}

static int allow(void)
{
    struct conn c = {0};
    char text[256];
    on_message = allow_message;
    connect_to(&c, 0, "/api/v1/ws");
    snprintf(text, sizeof text, "{\"type\":\"subscribe_session\",\"messageId\":\"s\",\"sessionId\":\"%s\",\"terminal\":false}",
             session);
    say(&c, text);
    wait_ready(1, "subscribing");
    printf("ready\n");
    fflush(stdout);
    fcntl(0, F_SETFL, O_NONBLOCK);
    while (!stdin_ended()) {
        poll_for(50);
    }
    printf("{\"allowed\":%llu,\"cut\":%d}\n", (unsigned long long)events, n_cut);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        fprintf(stderr, "usage: live flood|fan|idle|allow PORT TOKEN ...\n");
        return 2;
    }
    port = atoi(argv[2]);
    token = argv[3];
    session = argv[4];
    raise_files();
    ep = epoll_create1(EPOLL_CLOEXEC);
    samples = malloc(MAX_SAMPLES * sizeof *samples);
    if (ep < 0 || !samples) {
        die("memory");
    }
    if (!strcmp(argv[1], "flood") && argc == 7) {
        same = !strcmp(argv[6], "same");
        text_frames = !strcmp(argv[6], "text");
        return flood(argv[5]);
    }
    if (!strcmp(argv[1], "fan") && argc == 8) {
        return fan(atoi(argv[5]), atoi(argv[6]), atof(argv[7]));
    }
    if (!strcmp(argv[1], "idle") && argc == 5) {
        return idle(atoi(argv[4]));
    }
    if (!strcmp(argv[1], "allow") && argc == 5) {
        return allow();
    }
    fprintf(stderr, "live: wrong arguments\n");
    return 2;
}
