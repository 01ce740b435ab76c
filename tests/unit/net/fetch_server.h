/* A small HTTP server with bad manners for test_fetch.c: a thread a connection, the path says what
 * to do. */
#ifndef TEST_FETCH_SERVER_H
#define TEST_FETCH_SERVER_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNS = 600 };

struct server {
    int fd, port;
    SSL_CTX *tls;
    pthread_t acceptor;
    pthread_mutex_t lock;
    int n;
    struct server_conn {
        struct server *server;
        int fd;
        pthread_t thread;
    } conns[MAX_CONNS];
    atomic_int requests;
    char last[8192]; /* head and body of the last request; read after server_stop() */
};

static int say(int fd, const char *text)
{
    size_t len = strlen(text);
    while (len) {
        ssize_t n = send(fd, text, len, MSG_NOSIGNAL);
        if (n <= 0) {
            return -1;
        }
        text += n;
        len -= (size_t)n;
    }
    return 0;
}

static void pause_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static void until_closed(int fd)
{
    char buf[512];
    while (recv(fd, buf, sizeof buf, 0) > 0) {
    }
}

static int say_dribble(int fd)
{
    int r = say(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; r == 0 && i < 20; i++) {
        char chunk[16];
        snprintf(chunk, sizeof chunk, "1\r\n%c\r\n", 'a' + i);
        for (char *p = chunk; *p && r == 0; p++) {
            char one[2] = {*p, 0};
            r = say(fd, one);
            pause_ms(1);
        }
    }
    return r < 0 ? r : say(fd, "0\r\n\r\n");
}

static int say_for_ever(int fd, const char *piece, long wait_ms)
{
    int r = say(fd, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n");
    while (r == 0) {
        r = say(fd, piece);
        pause_ms(wait_ms);
    }
    return r;
}

static int say_date(int fd)
{
    char date[64], answer[256];
    time_t at = time(NULL) + 100;
    struct tm tm;
    gmtime_r(&at, &tm);
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    snprintf(answer, sizeof answer,
             "HTTP/1.1 429 Too Many\r\nRetry-After: %s\r\nContent-Length: 4\r\n\r\nslow", date);
    return say(fd, answer);
}

static int say_headers_for_ever(int fd)
{
    int r = say(fd, "HTTP/1.1 200 OK\r\n");
    for (long i = 0; r == 0; i++) {
        char line[128];
        snprintf(line, sizeof line, "X-%ld: %064ld\r\n", i, i);
        r = say(fd, line);
    }
    return r;
}

static const struct {
    const char *path, *answer;
    int then; /* 0 = keep the connection, -1 = close it, 1 = say no more */
} written[] = {
    {"/ok", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 0},
    {"/empty", "HTTP/1.1 204 No Content\r\n\r\n", 0},
    {"/until-close", "HTTP/1.1 200 OK\r\n\r\nall of it", -1},
    {"/stall", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome", 1},
    {"/silent", "", 1},
    {"/hang-up", "", -1},
    {"/cut", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome", -1},
    {"/cut-chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", -1},
    {"/bad-chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhel", 1},
    {"/cut-head", "HTTP/1.1 200 OK\r\nContent-Le", -1},
    {"/garbage", "SSH-2.0-something\r\n\r\n", -1},
    {"/busy",
     "HTTP/1.1 429 Too Many\r\nretry-after: 7\r\nContent-Length: 4\r\n"
     "Content-Type: application/json; charset=utf-8\r\n\r\n\"no\"",
     0},
    {"/busy-odd", "HTTP/1.1 503 No\r\nRetry-After: soon\r\nContent-Length: 0\r\n\r\n", 0},
    {"/moved", "HTTP/1.1 302 Found\r\nLocation: /ok\r\nContent-Length: 0\r\n\r\n", 0},
    {"/html",
     "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 13\r\n\r\n<html></html>", 0},
    {"/sse",
     "HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream;x=y\r\nContent-Length: 9\r\n\r\n"
     "data: x\n\n",
     0},
    {"/continue",
     "HTTP/1.1 103 Early Hints\r\nRetry-After: 5\r\n\r\n"
     "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfinal",
     0},
};

/* < 0: close the connection. */
static int serve_path(int fd, const char *path, const char *request)
{
    for (size_t i = 0; i < sizeof written / sizeof written[0]; i++) {
        if (strcmp(path, written[i].path) == 0) {
            int r = say(fd, written[i].answer);
            if (written[i].then > 0) {
                until_closed(fd);
            }
            return r < 0 || written[i].then ? -1 : 0;
        }
    }
    if (strcmp(path, "/dribble") == 0) {
        return say_dribble(fd);
    }
    if (strcmp(path, "/slow") == 0) {
        return say_for_ever(fd, "x", 20);
    }
    if (strcmp(path, "/huge") == 0) {
        return say_for_ever(fd, "0123456789012345678901234567890123456789", 0);
    }
    if (strcmp(path, "/busy-date") == 0) {
        return say_date(fd);
    }
    if (strcmp(path, "/headers") == 0) {
        return say_headers_for_ever(fd);
    }
    if (strcmp(path, "/echo") == 0) {
        char head[128];
        snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n",
                 strlen(request));
        return say(fd, head) < 0 ? -1 : say(fd, request);
    }
    say(fd, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    return 0;
}

/* One request with its body; 0 when the connection ended. */
static int read_request(int fd, char *buf, size_t size)
{
    size_t len = 0, want = 0;
    while (len + 1 < size) {
        ssize_t n = recv(fd, buf + len, size - 1 - len, 0);
        if (n <= 0) {
            return 0;
        }
        len += (size_t)n;
        buf[len] = 0;
        char *end = strstr(buf, "\r\n\r\n");
        if (end && !want) {
            char *cl = strcasestr(buf, "\r\nContent-Length:");
            want = (size_t)(end + 4 - buf) + (cl && cl < end ? (size_t)atol(cl + 17) : 0);
        }
        if (want && len >= want) {
            return 1;
        }
    }
    return 0;
}

static void serve_plain(struct server_conn *c)
{
    char buf[8192], path[256];
    while (read_request(c->fd, buf, sizeof buf)) {
        atomic_fetch_add(&c->server->requests, 1);
        pthread_mutex_lock(&c->server->lock);
        memcpy(c->server->last, buf, sizeof buf);
        pthread_mutex_unlock(&c->server->lock);
        char *p = strchr(buf, ' ');
        char *q = strstr(p, "://"); /* as a proxy gets it */
        p = q && q < strstr(buf, "\r\n") ? strchr(q + 3, '/') : p + 1;
        snprintf(path, sizeof path, "%.*s", (int)strcspn(p, " "), p);
        if (serve_path(c->fd, path, buf) < 0) {
            return;
        }
    }
}

static void serve_tls(struct server_conn *c)
{
    SSL *ssl = SSL_new(c->server->tls);
    SSL_set_fd(ssl, c->fd);
    if (SSL_accept(ssl) == 1) {
        char buf[1024];
        if (SSL_read(ssl, buf, sizeof buf) > 0) {
            atomic_fetch_add(&c->server->requests, 1);
        }
    }
    SSL_free(ssl);
}

static void *conn_main(void *arg)
{
    struct server_conn *c = arg;
    if (c->server->tls) {
        serve_tls(c);
    } else {
        serve_plain(c);
    }
    shutdown(c->fd, SHUT_RDWR); /* closed by server_stop() */
    return NULL;
}

static void *accept_main(void *arg)
{
    struct server *s = arg;
    int fd;
    while ((fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        pthread_mutex_lock(&s->lock);
        if (s->n < MAX_CONNS) {
            s->conns[s->n] = (struct server_conn){.server = s, .fd = fd};
            pthread_create(&s->conns[s->n].thread, NULL, conn_main, &s->conns[s->n]);
            s->n++;
        } else {
            close(fd);
        }
        pthread_mutex_unlock(&s->lock);
    }
    return NULL;
}

/* A certificate that nobody vouches for. */
static SSL_CTX *self_signed(void)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    X509_NAME *name = X509_get_subject_name(cert);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"localhost", -1, -1,
                               0);
    X509_set_issuer_name(cert, name);
    X509_sign(cert, key, EVP_sha256());
    SSL_CTX_use_certificate(ctx, cert);
    SSL_CTX_use_PrivateKey(ctx, key);
    X509_free(cert);
    EVP_PKEY_free(key);
    return ctx;
}

static int listen_local(int backlog, int *ret_port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, len) < 0 || listen(fd, backlog) < 0 ||
        getsockname(fd, (struct sockaddr *)&a, &len) < 0) {
        abort();
    }
    *ret_port = ntohs(a.sin_port);
    return fd;
}

static struct server *server_start(int with_tls)
{
    struct server *s = calloc(1, sizeof *s);
    s->fd = listen_local(512, &s->port);
    s->tls = with_tls ? self_signed() : NULL;
    pthread_mutex_init(&s->lock, NULL);
    pthread_create(&s->acceptor, NULL, accept_main, s);
    return s;
}

/* After this the counters and `last` may be read; server_free() then. */
static void server_stop(struct server *s)
{
    shutdown(s->fd, SHUT_RDWR);
    pthread_join(s->acceptor, NULL);
    for (int i = 0; i < s->n; i++) {
        shutdown(s->conns[i].fd, SHUT_RDWR);
        pthread_join(s->conns[i].thread, NULL);
        close(s->conns[i].fd);
    }
    close(s->fd);
}

static void server_free(struct server *s)
{
    SSL_CTX_free(s->tls);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

#endif
