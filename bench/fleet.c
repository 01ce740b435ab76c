/* The load generator of the worker link: one thread, epoll; workers in the native dialect and clients that
 * create runs, closed loop, so create, claim, start and end of every run are synced by the server.
 *
 *   fleet life PORT KEY WORKERS SLOTS CLIENTS SECONDS [RATE]   RATE: creates a second in all; 0 = as fast as they are answered
 *   fleet idle PORT KEY WORKERS           connects, prints "ready" and how long it took, holds until stdin ends;
 *                                         a worker that is cut off comes again, and the time until all are back is printed
 *
 * Prints one line of JSON: lives a second, quantiles in microseconds from the request to the assignment's frame and to the
 * acknowledged end. */
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
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_SAMPLES = 4 << 20, BUF = 64 << 10, OUT = 256 << 10 };

struct live {
    char execution[64], task[64], epoch[24];
    long long born;
    bool ending;
};
struct conn {
    struct live *live;
    int fd, number;
    bool worker, open, welcome, waiting;
    char *in, *out;
    size_t in_len, out_len;
};

static int ep, port;
static const char *key;
static struct conn *conns;
static int n_workers, n_clients, slots, n_ready;
static uint32_t *to_frame, *to_end;
static size_t n_frame, n_end;
static bool idle_mode;
static int64_t begin_ns, stop_ns;
static double rate;
static uint64_t created, refused;

static void die(const char *what)
{
    fprintf(stderr, "fleet: %s: %s\n", what, strerror(errno));
    exit(1);
}
static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void flush(struct conn *c)
{
    while (c->out_len) {
        ssize_t n = send(c->fd, c->out, c->out_len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n <= 0) {
            break;
        }
        memmove(c->out, c->out + n, c->out_len - (size_t)n);
        c->out_len -= (size_t)n;
    }
    struct epoll_event e = {.events = EPOLLIN | (c->out_len ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
}
static void add(struct conn *c, const void *p, size_t n)
{
    if (c->out_len + n > (idle_mode ? 4096 : OUT)) {
        die("a peer does not read");
    }
    memcpy(c->out + c->out_len, p, n);
    c->out_len += n;
}
static void frame(struct conn *c, int op, const char *text, size_t n)
{
    unsigned char h[8] = {(unsigned char)(0x80 | op)};
    size_t at = 2;
    h[1] = (unsigned char)(0x80 | (n < 126 ? n : 126));
    if (n >= 126) {
        h[2] = (unsigned char)(n >> 8);
        h[3] = (unsigned char)n;
        at = 4;
    }
    memset(h + at, 0, 4); /* a mask of zeros */
    add(c, h, at + 4);
    add(c, text, n);
}

static void start(struct conn *c)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) {
        die("socket");
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (struct sockaddr *)&a, sizeof a) < 0 && errno != EINPROGRESS) {
        die("connect");
    }
    c->in_len = c->out_len = 0;
    c->open = c->welcome = c->waiting = false;
    struct epoll_event e = {.events = EPOLLOUT, .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e);
    if (c->worker) {
        char head[512];
        int n = snprintf(head, sizeof head,
                         "GET /api/v1/selfhosted/worker/ws?worker_id=bench-%d&proto=2&instance=i%d HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
                         "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer %s\r\n\r\n",
                         c->number, c->number, key);
        add(c, head, (size_t)n);
    }
}

static void again(struct conn *c)
{
    n_ready -= c->welcome;
    close(c->fd);
    usleep(idle_mode ? 200 : 0);
    start(c);
}

static void create(struct conn *c)
{
    if (now_ns() >= stop_ns || c->waiting) {
        return;
    }
    if (rate > 0 && (double)created >= rate * (double)(now_ns() - begin_ns) / 1e9) {
        return;
    }
    char body[256], head[512];
    int b = snprintf(body, sizeof body, "{\"prompt\":\"t=%020lld\",\"config\":{\"environment_id\":\"bench:1\"}}", (long long)now_ns());
    int n = snprintf(head, sizeof head,
                     "POST /api/v1/agent/run HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
                     key, b, body);
    c->waiting = true;
    created++;
    add(c, head, (size_t)n);
    flush(c);
}

static char *field(char *msg, const char *name, char *dst, size_t size)
{
    char *at = strstr(msg, name);
    dst[0] = 0;
    if (at) {
        at += strlen(name);
        size_t n = strcspn(at, "\",}");
        n = n < size ? n : size - 1;
        memcpy(dst, at, n);
        dst[n] = 0;
    }
    return at;
}

static void message(struct conn *c, char *msg, size_t len)
{
    char saved = msg[len], task[64], execution[64], epoch[24], text[600], t[32];
    msg[len] = 0;
    if (!strncmp(msg, "{\"type\":\"welcome\"", 17)) {
        c->welcome = true;
        n_ready++;
    } else if (!strncmp(msg, "{\"type\":\"task_assignment\"", 25)) {
        field(msg, "\"task_id\":\"", task, sizeof task);
        field(msg, "\"execution_id\":\"", execution, sizeof execution);
        field(msg, "\"epoch\":", epoch, sizeof epoch);
        field(msg, "\"prompt\":\"t=", t, sizeof t);
        long long born = atoll(t);
        if (n_frame < MAX_SAMPLES) {
            to_frame[n_frame++] = (uint32_t)((now_ns() - born) / 1000);
        }
        int n = snprintf(text, sizeof text, "{\"type\":\"task_claimed\",\"data\":{\"task_id\":\"%s\",\"execution_id\":\"%s\",\"epoch\":%s,\"seq\":1}}", task, execution, epoch);
        frame(c, 1, text, (size_t)n);
    }
    msg[len] = saved;
}

/* Runs under way in this worker: their ends are sent when the start was acknowledged. */
static void end_of(struct conn *c, char *msg, size_t len);

static void worker_input(struct conn *c)
{
    size_t at = 0;
    if (!c->open) {
        char *end = memmem(c->in, c->in_len, "\r\n\r\n", 4);
        if (!end) {
            return;
        }
        if (strncmp(c->in, "HTTP/1.1 101", 12)) {
            refused++;
            again(c);
            return;
        }
        c->open = true;
        at = (size_t)(end + 4 - c->in);
        char hello[256];
        int n = snprintf(hello, sizeof hello, "{\"type\":\"hello\",\"data\":{\"proto\":2,\"name\":\"bench-%d\",\"version\":\"1\",\"capacity\":%d,\"running\":[],\"unacked\":[]}}", c->number, slots);
        frame(c, 1, hello, (size_t)n);
    }
    while (c->in_len - at >= 2) {
        unsigned char *p = (unsigned char *)c->in + at;
        size_t len = p[1] & 127, h = 2;
        if (len == 126) {
            if (c->in_len - at < 4) {
                break;
            }
            len = (size_t)p[2] << 8 | p[3];
            h = 4;
        }
        if (c->in_len - at < h + len) {
            break;
        }
        int op = p[0] & 15;
        if (op == 9) {
            frame(c, 10, (char *)p + h, len);
        } else if (op == 1) {
            message(c, (char *)p + h, len);
            end_of(c, (char *)p + h, len);
        }
        at += h + len;
    }
    memmove(c->in, c->in + at, c->in_len - at);
    c->in_len -= at;
    flush(c);
}

static struct live *live_of(struct conn *c, const char *execution)
{
    for (int i = 0; i < slots; i++) {
        if (!strcmp(c->live[i].execution, execution)) {
            return &c->live[i];
        }
    }
    return NULL;
}

static void end_of(struct conn *c, char *msg, size_t len)
{
    char execution[64], seq[24], text[400];
    char saved = msg[len];
    msg[len] = 0;
    field(msg, "\"execution_id\":\"", execution, sizeof execution);
    if (!strncmp(msg, "{\"type\":\"task_assignment\"", 25)) {
        char t[32];
        struct live *x = live_of(c, "");
        if (!x) {
            die("more than its slots");
        }
        snprintf(x->execution, sizeof x->execution, "%s", execution);
        field(msg, "\"task_id\":\"", x->task, sizeof x->task);
        field(msg, "\"epoch\":", x->epoch, sizeof x->epoch);
        field(msg, "\"prompt\":\"t=", t, sizeof t);
        x->born = atoll(t);
    } else if (!strncmp(msg, "{\"type\":\"ack\"", 13)) {
        struct live *x = live_of(c, execution);
        field(msg, "\"seq\":", seq, sizeof seq);
        if (x && atoi(seq) == 1) {
            int n = snprintf(text, sizeof text, "{\"type\":\"task_state\",\"data\":{\"task_id\":\"%s\",\"execution_id\":\"%s\",\"epoch\":%s,\"seq\":2,\"state\":\"running\"}}",
                             x->task, execution, x->epoch);
            frame(c, 1, text, (size_t)n);
        } else if (x && atoi(seq) == 2) {
            int n = snprintf(text, sizeof text, "{\"type\":\"task_completed\",\"data\":{\"task_id\":\"%s\",\"execution_id\":\"%s\",\"epoch\":%s,\"seq\":3,\"exit_code\":0,\"output\":\"done\"}}",
                             x->task, execution, x->epoch);
            frame(c, 1, text, (size_t)n);
            x->ending = true;
        } else if (x && atoi(seq) == 3) {
            if (n_end < MAX_SAMPLES) {
                to_end[n_end] = (uint32_t)((now_ns() - x->born) / 1000);
            }
            n_end++;
            x->execution[0] = 0;
        }
    }
    msg[len] = saved;
}

static void client_input(struct conn *c)
{
    char *end = memmem(c->in, c->in_len, "\r\n\r\n", 4);
    if (!end) {
        return;
    }
    *end = 0;
    char *l = strcasestr(c->in, "content-length:");
    size_t body = l ? (size_t)atoll(l + 15) : 0, head = (size_t)(end + 4 - c->in);
    *end = '\r';
    if (c->in_len < head + body) {
        return;
    }
    refused += strncmp(c->in, "HTTP/1.1 200", 12) != 0;
    c->in_len = 0;
    c->waiting = false;
    create(c);
}

static void event(struct conn *c, unsigned what)
{
    if (what & EPOLLOUT) {
        flush(c);
    }
    if (!(what & (EPOLLIN | EPOLLHUP | EPOLLERR))) {
        return;
    }
    size_t room = (idle_mode ? 4096 : BUF) - 1 - c->in_len;
    ssize_t n = recv(c->fd, c->in + c->in_len, room, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN)) {
        if (!idle_mode) {
            die("the server closed a connection");
        }
        again(c);
        return;
    }
    c->in_len += n > 0 ? (size_t)n : 0;
    if (c->worker) {
        worker_input(c);
    } else {
        client_input(c);
    }
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}
static uint32_t quantile(uint32_t *s, size_t n, double q)
{
    return n ? s[(size_t)(q * (double)(n - 1))] : 0;
}

static void turn(int ms)
{
    struct epoll_event ev[512];
    int n = epoll_wait(ep, ev, 512, ms);
    for (int i = 0; i < n; i++) {
        event(ev[i].data.ptr, ev[i].events);
    }
}

static int idle(void)
{
    int64_t since = now_ns();
    bool told = false;
    fcntl(0, F_SETFL, O_NONBLOCK);
    for (;;) {
        turn(20);
        char b;
        if (read(0, &b, 1) == 0) {
            return 0;
        }
        if (n_ready == n_workers && !told) {
            told = true;
            printf("{\"ready\":%d,\"ms\":%lld,\"refused\":%llu}\n", n_ready, (long long)((now_ns() - since) / 1000000), (unsigned long long)refused);
            fflush(stdout);
        } else if (n_ready < n_workers && told) {
            told = false;
            since = now_ns();
        }
    }
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        fprintf(stderr, "usage: fleet life|idle PORT KEY WORKERS …\n");
        return 2;
    }
    idle_mode = !strcmp(argv[1], "idle");
    port = atoi(argv[2]);
    key = argv[3];
    n_workers = atoi(argv[4]);
    slots = argc > 5 ? atoi(argv[5]) : 5;
    n_clients = argc > 6 ? atoi(argv[6]) : 0;
    double seconds = argc > 7 ? atof(argv[7]) : 0;
    rate = argc > 8 ? atof(argv[8]) : 0;
    ep = epoll_create1(0);
    conns = calloc((size_t)(n_workers + n_clients), sizeof *conns);
    to_frame = calloc(MAX_SAMPLES, sizeof *to_frame);
    to_end = calloc(MAX_SAMPLES, sizeof *to_end);
    stop_ns = 0;
    for (int i = 0; i < n_workers + n_clients; i++) {
        conns[i] = (struct conn){.number = i, .worker = i < n_workers, .in = malloc(idle_mode ? 4096 : BUF), .out = malloc(idle_mode ? 4096 : OUT)};
        conns[i].live = idle_mode ? NULL : calloc((size_t)slots + 1, sizeof *conns[i].live);
        start(&conns[i]);
        if (i % 64 == 0) {
            turn(0);
        }
    }
    if (idle_mode) {
        return idle();
    }
    while (n_ready < n_workers) {
        turn(20);
    }
    begin_ns = now_ns();
    stop_ns = begin_ns + (int64_t)(seconds * 1e9);
    while (now_ns() < stop_ns || n_end < created - refused) {
        for (int i = n_workers; i < n_workers + n_clients; i++) {
            create(&conns[i]);
        }
        turn(rate > 0 ? 0 : 1);
        if (now_ns() > stop_ns + INT64_C(30000000000)) {
            break;
        }
    }
    double took = (double)(now_ns() - begin_ns) / 1e9;
    qsort(to_frame, n_frame, sizeof *to_frame, compare);
    qsort(to_end, n_end, sizeof *to_end, compare);
    printf("{\"created\":%llu,\"ended\":%zu,\"refused\":%llu,\"per_second\":%.0f,\"frame_p50_us\":%u,\"frame_p99_us\":%u,\"end_p50_us\":%u,\"end_p99_us\":%u}\n",
           (unsigned long long)created, n_end, (unsigned long long)refused, (double)n_end / took, quantile(to_frame, n_frame, 0.5),
           quantile(to_frame, n_frame, 0.99), quantile(to_end, n_end, 0.5), quantile(to_end, n_end, 0.99));
    return 0;
}
