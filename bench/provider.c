/* An OpenAI-compatible model server that answers at once. A prompt that holds the word "flood" gets one delta, and from
 * SIGUSR1 on as many as the reader takes (or as many a second as the second argument says) for the given number of
 * seconds; every other prompt gets one short answer.
 *
 *   provider [FLOOD_SECONDS [DELTAS_PER_SECOND]]      prints its port */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { IN_MAX = 1 << 20 };

struct conn {
    int fd;
    char *in;
    size_t len;
    int64_t flood_start, flood_until; /* 0 = no flood */
    uint64_t deltas;
};

static int ep;
static double flood_seconds = 5, flood_rate = 0;
static struct conn *held, *flooding; /* told apart: nothing is sent before the signal */
static volatile sig_atomic_t signalled;

static void on_signal(int signum)
{
    (void)signum;
    signalled = 1;
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void drop(struct conn *c)
{
    flooding = flooding == c ? NULL : flooding;
    held = held == c ? NULL : held;
    close(c->fd);
    free(c->in);
    free(c);
}

#define HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: keep-alive\r\n"
#define DELTA(text) "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"" text "\"},\"finish_reason\":null}]}\n\n"
#define LAST "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n"

static bool put(struct conn *c, const char *text, size_t len)
{
    while (len) {
        ssize_t n = send(c->fd, text, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) { /* only whole pieces: wait for room */
            usleep(200);
            continue;
        }
        if (n < 0) {
            return false;
        }
        text += n;
        len -= (size_t)n;
    }
    return true;
}

static bool put_chunk(struct conn *c, const char *text)
{
    char all[1024];
    int n = snprintf(all, sizeof all, "%zx\r\n%s\r\n", strlen(text), text);
    return put(c, all, (size_t)n);
}

static bool answer(struct conn *c, bool flood)
{
    static const char body[] = DELTA("done") LAST;
    char all[1024];
    if (flood) {
        held = c;
        return put(c, HEAD "Transfer-Encoding: chunked\r\n\r\n", strlen(HEAD "Transfer-Encoding: chunked\r\n\r\n")) &&
               put_chunk(c, DELTA("ready "));
    }
    int n = snprintf(all, sizeof all, HEAD "Content-Length: %zu\r\n\r\n%s", sizeof body - 1, body);
    return put(c, all, (size_t)n);
}

static void begin_flood(void)
{
    signalled = 0;
    flooding = held;
    held = NULL;
    if (flooding) {
        flooding->flood_start = now_ns();
        flooding->flood_until = flooding->flood_start + (int64_t)(flood_seconds * 1e9);
        flooding->deltas = 0;
    }
}

/* One delta, as long as its time has come. */
static bool flood_step(struct conn *c)
{
    if (now_ns() > c->flood_until) {
        c->flood_until = 0;
        flooding = NULL;
        return put_chunk(c, LAST) && put(c, "0\r\n\r\n", 5);
    }
    if (flood_rate > 0 && (double)c->deltas > (double)(now_ns() - c->flood_start) / 1e9 * flood_rate) {
        usleep(200);
        return true;
    }
    c->deltas++;
    return put_chunk(c, DELTA("word word word "));
}

static bool on_input(struct conn *c)
{
    ssize_t n = recv(c->fd, c->in + c->len, IN_MAX - 1 - c->len, 0);
    if (n <= 0) {
        return n < 0 && errno == EAGAIN;
    }
    c->len += (size_t)n;
    for (;;) {
        c->in[c->len] = 0;
        char *end = strstr(c->in, "\r\n\r\n");
        if (!end) {
            return c->len < IN_MAX - 1;
        }
        char *field = strcasestr(c->in, "\r\ncontent-length:");
        size_t body = field && field < end ? (size_t)strtoull(field + 17, NULL, 10) : 0;
        size_t whole = (size_t)(end - c->in) + 4 + body;
        if (whole > IN_MAX - 1) {
            return false;
        }
        if (c->len < whole) {
            return true;
        }
        char *prompt = strstr(c->in, "flood");
        if (!answer(c, prompt && prompt < c->in + whole)) {
            return false;
        }
        memmove(c->in, c->in + whole, c->len - whole);
        c->len -= whole;
    }
}

static void take(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct conn *c = fd < 0 ? NULL : calloc(1, sizeof *c);
    if (!c || !(c->in = malloc(IN_MAX))) {
        if (fd >= 0) {
            close(fd);
        }
        free(c);
        return;
    }
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    c->fd = fd;
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        flood_seconds = atof(argv[1]);
    }
    if (argc > 2) {
        flood_rate = atof(argv[2]);
    }
    struct sigaction sa = {.sa_handler = on_signal};
    sigaction(SIGUSR1, &sa, NULL);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    if (bind(listener, (struct sockaddr *)&a, sizeof a) < 0 || listen(listener, 1024) < 0 ||
        getsockname(listener, (struct sockaddr *)&a, &len) < 0) {
        perror("provider");
        return 1;
    }
    printf("%d\n", ntohs(a.sin_port));
    fflush(stdout);
    ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &ev);
    for (;;) {
        struct epoll_event evs[256];
        int n = epoll_wait(ep, evs, 256, flooding ? 0 : -1);
        for (int i = 0; i < n; i++) {
            struct conn *c = evs[i].data.ptr;
            if (!c) {
                take(listener);
            } else if (!on_input(c)) {
                drop(c);
            }
        }
        if (signalled) {
            begin_flood();
        }
        if (flooding && !flood_step(flooding)) {
            drop(flooding);
        }
    }
}
