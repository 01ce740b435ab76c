/* The load generator of script/bench: one thread, epoll, keep-alive connections, each with one request under way.
 *
 *   load http   PORT CONNS SECONDS FILE    closed loop; FILE holds one or more raw requests, each ended by a NUL byte
 *   load finish PORT CONNS SECONDS FILE    FILE: two pieces, a POST, and a GET with %s where the run's id belongs
 *   load sse    PORT CONNS SECONDS FILE    opens the streams, prints "ready", waits for a line on stdin, then counts events
 *   load hold   PORT CONNS FILE            opens the streams, prints "ready", holds them until stdin ends
 *
 * Prints one line of JSON: rate, quantiles in microseconds, answers that were not 2xx, own CPU time. */
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

enum { SCRATCH = 1 << 20, KEEP = 2048, MAX_SAMPLES = 8 << 20, MAX_REQUESTS = 65536 };

enum mode { HTTP, FINISH, SSE, HOLD };

struct conn {
    int fd;
    size_t sent, len;  /* of the request */
    const char *out;
    int64_t start_ns;
    size_t kept;       /* bytes of the head (and, for FINISH, of the body) kept */
    size_t body_left;
    bool in_body, waiting_run, ready, failed;
    char prev, prev2;  /* the last bytes of an event stream */
    char keep[KEEP], get[512];
};

static enum mode mode;
static int ep, port;
static struct conn *conns;
static int n_conns, n_ready;
static char *requests[MAX_REQUESTS];
static size_t lens[MAX_REQUESTS];
static size_t n_requests, next_request;
static uint32_t *samples;
static size_t n_samples;
static uint64_t answers, failures, events, bytes_in;
static bool counting;
static char scratch[SCRATCH];
static char first_failure[200];

static void die(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void read_requests(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END) != 0) {
        die(path);
    }
    long size = ftell(f);
    rewind(f);
    char *all = calloc(1, (size_t)size + 1);
    if (!all || fread(all, 1, (size_t)size, f) != (size_t)size) {
        die(path);
    }
    fclose(f);
    for (char *p = all; p < all + size && n_requests < MAX_REQUESTS; p += strlen(p) + 1) {
        requests[n_requests] = p;
        lens[n_requests++] = strlen(p);
    }
    if (n_requests == 0 || (mode == FINISH && n_requests != 2)) {
        errno = EINVAL;
        die(path);
    }
}

static void watch(struct conn *c, uint32_t what, int op)
{
    struct epoll_event ev = {.events = what, .data.ptr = c};
    if (epoll_ctl(ep, op, c->fd, &ev) < 0) {
        die("epoll_ctl");
    }
}

static void flush_out(struct conn *c)
{
    while (c->sent < c->len) {
        ssize_t n = send(c->fd, c->out + c->sent, c->len - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            watch(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
            return;
        }
        if (n < 0) {
            die("send");
        }
        c->sent += (size_t)n;
    }
}

static void send_request(struct conn *c, const char *text, size_t len)
{
    c->out = text;
    c->len = len;
    c->sent = c->kept = c->body_left = 0;
    c->in_body = false;
    flush_out(c);
}

static void start(struct conn *c)
{
    size_t i = mode == FINISH ? 0 : next_request++ % n_requests;
    c->waiting_run = false;
    c->start_ns = now_ns();
    send_request(c, requests[i], lens[i]);
}

static void sample(struct conn *c)
{
    if (counting && n_samples < MAX_SAMPLES) {
        int64_t us = (now_ns() - c->start_ns) / 1000;
        samples[n_samples++] = us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
    }
}

static void answer_done(struct conn *c)
{
    bool ok = c->keep[9] == '2';
    if (!ok) {
        failures++;
        if (!first_failure[0]) {
            snprintf(first_failure, sizeof first_failure, "%.12s", c->keep);
        }
    }
    if (mode == FINISH && ok && !c->waiting_run) {
        c->keep[c->kept < KEEP ? c->kept : KEEP - 1] = 0;
        const char *id = strstr(c->keep, "\"run_id\":\"");
        if (!id) {
            failures++;
            start(c);
            return;
        }
        char run[64];
        snprintf(run, sizeof run, "%.*s", (int)strcspn(id + 10, "\""), id + 10);
        int n = snprintf(c->get, sizeof c->get, requests[1], run);
        c->waiting_run = true;
        send_request(c, c->get, (size_t)n);
        return;
    }
    if (mode == FINISH && ok) {
        c->keep[c->kept < KEEP ? c->kept : KEEP - 1] = 0;
        failures += strstr(c->keep, "\"state\":\"SUCCEEDED\"") == NULL;
    }
    answers += counting;
    sample(c);
    start(c);
}

/* The head is complete in c->keep[0 .. head_len). */
static void take_head(struct conn *c, size_t head_len)
{
    char saved = c->keep[head_len];
    c->keep[head_len] = 0;
    const char *p = strcasestr(c->keep, "\r\ncontent-length:");
    c->body_left = p ? (size_t)strtoull(p + 17, NULL, 10) : 0;
    c->keep[head_len] = saved;
    c->in_body = true;
}

static void on_answer(struct conn *c, const char *p, size_t n)
{
    while (n) {
        if (!c->in_body) {
            size_t room = KEEP - 1 - c->kept, take = n < room ? n : room, before = c->kept;
            if (take == 0) {
                errno = EMSGSIZE;
                die("answer head");
            }
            memcpy(c->keep + c->kept, p, take);
            char *end = memmem(c->keep, before + take, "\r\n\r\n", 4);
            if (!end) {
                c->kept += take;
                p += take;
                n -= take;
                continue;
            }
            size_t head = (size_t)(end - c->keep) + 4;
            p += head - before;
            n -= head - before;
            c->kept = head;
            take_head(c, head);
        }
        size_t take = n < c->body_left ? n : c->body_left;
        size_t room = KEEP - 1 - c->kept, copy = mode != FINISH ? 0 : take < room ? take : room;
        memcpy(c->keep + c->kept, p, copy);
        c->kept += copy;
        p += take;
        n -= take;
        c->body_left -= take;
        if (c->body_left == 0) {
            answer_done(c);
        }
    }
}

/* An event ends with an empty line; chunk framing is CR LF and never makes one. */
static void on_stream(struct conn *c, const char *p, size_t n)
{
    if (!c->ready) {
        c->ready = true;
        n_ready++;
        if (n < 12 || memcmp(p + 9, "200", 3) != 0) {
            fprintf(stderr, "load: %.*s\n", (int)(n < 400 ? n : 400), p);
            exit(1);
        }
    }
    bytes_in += counting ? n : 0;
    if (!counting) {
        c->prev = p[n - 1];
        return;
    }
    const char *end = p + n;
    if (c->prev == '\n' && p[0] == '\n') {
        events++;
    }
    while ((p = memmem(p, (size_t)(end - p), "\n\n", 2))) {
        events++;
        p += 2;
    }
    c->prev = end[-1];
}

static void on_readable(struct conn *c)
{
    for (;;) {
        ssize_t n = recv(c->fd, scratch, sizeof scratch, 0);
        if (n < 0 && errno == EAGAIN) {
            return;
        }
        if (n <= 0) {
            if (mode == SSE || mode == HOLD) {
                epoll_ctl(ep, EPOLL_CTL_DEL, c->fd, NULL);
                c->failed = true;
                failures++;
                return;
            }
            if (n == 0) {
                errno = ECONNRESET;
            }
            die("recv");
        }
        if (mode == SSE || mode == HOLD) {
            on_stream(c, scratch, (size_t)n);
        } else {
            on_answer(c, scratch, (size_t)n);
        }
        if ((size_t)n < sizeof scratch) {
            return;
        }
    }
}

static void poll_until(int64_t until_ns)
{
    struct epoll_event evs[512];
    int64_t left = until_ns - now_ns();
    int n = epoll_wait(ep, evs, 512, left <= 0 ? 0 : (int)(left / 1000000) + 1);
    for (int i = 0; i < n; i++) {
        struct conn *c = evs[i].data.ptr;
        if (evs[i].events & EPOLLOUT) {
            watch(c, EPOLLIN, EPOLL_CTL_MOD);
            flush_out(c);
        }
        if (evs[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
            on_readable(c);
        }
    }
}

static void connect_one(struct conn *c)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0) {
        die("connect");
    }
    int on = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    watch(c, EPOLLIN, EPOLL_CTL_ADD);
    start(c);
}

static void connect_all(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
        r.rlim_cur = r.rlim_max;
        setrlimit(RLIMIT_NOFILE, &r);
    }
    conns = calloc((size_t)n_conns, sizeof *conns);
    samples = malloc(MAX_SAMPLES * sizeof *samples);
    if (!conns || !samples) {
        die("memory");
    }
    for (int i = 0; i < n_conns; i++) {
        connect_one(&conns[i]);
        do { /* streams are opened 64 at a time: what they cost idle is asked, not what a storm costs */
            poll_until((mode == SSE || mode == HOLD) && i - n_ready > 64 ? now_ns() + 1000000 : 0);
        } while ((mode == SSE || mode == HOLD) && i - n_ready > 64);
    }
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static double cpu_us(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void report(double seconds, double cpu)
{
    uint64_t n = mode == SSE ? events : answers;
    qsort(samples, n_samples, sizeof *samples, by_value);
    uint32_t p50 = n_samples ? samples[n_samples / 2] : 0;
    uint32_t p99 = n_samples ? samples[(size_t)((double)n_samples * 0.99)] : 0;
    uint32_t max = n_samples ? samples[n_samples - 1] : 0;
    printf("{\"rate\":%.1f,\"n\":%llu,\"p50_us\":%u,\"p99_us\":%u,\"max_us\":%u,\"failures\":%llu,"
           "\"first_failure\":\"%s\",\"bytes\":%llu,\"seconds\":%.3f,\"cpu_us\":%.0f}\n",
           (double)n / seconds, (unsigned long long)n, p50, p99, max, (unsigned long long)failures,
           first_failure, (unsigned long long)bytes_in, seconds, cpu);
}

static void wait_ready(void)
{
    int64_t limit = now_ns() + INT64_C(60000000000);
    while (n_ready < n_conns && now_ns() < limit) {
        poll_until(now_ns() + 100000000);
    }
    if (n_ready < n_conns) {
        errno = ETIMEDOUT;
        die("opening the streams");
    }
    printf("ready\n");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"http", "finish", "sse", "hold"};
    int m = 0;
    while (m < 4 && (argc < 5 || strcmp(argv[1], names[m]) != 0)) {
        m++;
    }
    if (m == 4 || argc != (m == HOLD ? 5 : 6)) {
        fprintf(stderr, "usage: load http|finish|sse PORT CONNS SECONDS FILE | load hold PORT CONNS FILE\n");
        return 2;
    }
    mode = (enum mode)m;
    port = atoi(argv[2]);
    n_conns = atoi(argv[3]);
    double seconds = mode == HOLD ? 0 : atof(argv[4]);
    read_requests(argv[argc - 1]);
    ep = epoll_create1(EPOLL_CLOEXEC);
    connect_all();
    char line[16];
    if (mode == SSE || mode == HOLD) {
        wait_ready();
        if (mode == HOLD) {
            fcntl(0, F_SETFL, O_NONBLOCK);
            while (read(0, line, sizeof line) != 0) {
                poll_until(now_ns() + 50000000);
            }
            return failures > 0;
        }
        if (!fgets(line, sizeof line, stdin)) {
            return 1;
        }
    }
    int64_t begin = now_ns();
    if (mode != SSE) { /* the first half second is not counted */
        while (now_ns() < begin + 500000000) {
            poll_until(begin + 500000000);
        }
    }
    printf("begin\n");
    fflush(stdout);
    counting = true;
    begin = now_ns();
    double cpu = cpu_us();
    int64_t until = begin + (int64_t)(seconds * 1e9);
    while (now_ns() < until) {
        poll_until(until);
    }
    counting = false;
    report((double)(now_ns() - begin) / 1e9, cpu_us() - cpu);
    return 0;
}
