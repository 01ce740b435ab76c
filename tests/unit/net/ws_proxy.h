/* An HTTP proxy for one connection, on a thread of its own. */
#ifndef TEST_NET_WS_PROXY_H
#define TEST_NET_WS_PROXY_H

#include <poll.h>
#include <pthread.h>

struct ws_proxy {
    pthread_t thread;
    int listener, status;
    unsigned port;
    char request[512];
};

static void ws_proxy_relay(int a, int b)
{
    struct pollfd p[2] = {{.fd = a, .events = POLLIN}, {.fd = b, .events = POLLIN}};
    char buf[8192];
    int open = 2;
    while (open > 0 && poll(p, 2, 20000) > 0) {
        for (int i = 0; i < 2; i++) {
            if (!p[i].revents) {
                continue;
            }
            ssize_t n = recv(p[i].fd, buf, sizeof buf, 0);
            int to = i ? a : b;
            if (n > 0) {
                send(to, buf, (size_t)n, MSG_NOSIGNAL);
            } else {
                shutdown(to, SHUT_WR);
                p[i].fd = -1;
                open--;
            }
        }
    }
}

static void *ws_proxy_main(void *arg)
{
    struct ws_proxy *p = arg;
    int in = accept(p->listener, NULL, NULL), out = -1;
    size_t len = 0;
    while (len < sizeof p->request - 1 && !strstr(p->request, "\r\n\r\n")) {
        ssize_t n = recv(in, p->request + len, sizeof p->request - 1 - len, 0);
        if (n <= 0) {
            break;
        }
        len += (size_t)n;
    }
    unsigned port = 0;
    if (p->status != 200 || sscanf(p->request, "CONNECT 127.0.0.1:%u ", &port) != 1) {
        char text[64];
        int n = snprintf(text, sizeof text, "HTTP/1.1 %d No\r\n\r\n", p->status);
        send(in, text, (size_t)n, MSG_NOSIGNAL);
    } else {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
        a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        out = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(out, (struct sockaddr *)&a, sizeof a) == 0) {
            send(in, "HTTP/1.1 200 Connection established\r\n\r\n", 39, MSG_NOSIGNAL);
            ws_proxy_relay(in, out);
        }
        close(out);
    }
    close(in);
    return NULL;
}

static void ws_proxy_start(struct ws_proxy *p, int status)
{
    *p = (struct ws_proxy){.status = status};
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t len = sizeof a;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    p->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(p->listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(p->listener, 1), 0);
    getsockname(p->listener, (struct sockaddr *)&a, &len);
    p->port = ntohs(a.sin_port);
    assert_int_equal(pthread_create(&p->thread, NULL, ws_proxy_main, p), 0);
}

static void ws_proxy_stop(struct ws_proxy *p)
{
    pthread_join(p->thread, NULL);
    close(p->listener);
}

#endif
