#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

#include "../alloc_fail.h"
#include "exec/broker/broker.h"
#include "exec/broker/policy.h"

/* --- grammar and lists --- */

static void hosts_follow_one_grammar(void **state)
{
    (void)state;
    static const char *const good[] = {"a.example", "localhost", "x-1.y2.example.org", "xn--a.b"};
    static const char *const bad[] = {"",      "A.example", "a..b",    ".a",     "a.",
                                      "-a.b",  "a-.b",      "1.2.3.4", "0x7f.1", "2130706433",
                                      "[::1]", "a_b.c",     "a b",     "a%00.b", "a.0x7f000001"};
    for (size_t i = 0; i < MU_ARRAY_LEN(good); i++) {
        assert_true(mu_broker_host_ok(mu_str(good[i])));
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        assert_false(mu_broker_host_ok(mu_str(bad[i])));
    }
    assert_false(mu_broker_host_ok(mu_bytes_of("a.b\0.c", 6)));
    char longest[MU_HOST_MAX + 2];
    memset(longest, 'a', sizeof longest);
    for (int i = 50; i < MU_HOST_MAX; i += 50) {
        longest[i] = '.';
    }
    assert_true(mu_broker_host_ok(mu_bytes_of(longest, MU_HOST_MAX)));
    memset(longest, 'a', 64);
    assert_true(mu_broker_host_ok(mu_bytes_of(longest, 63)));
    assert_false(mu_broker_host_ok(mu_bytes_of(longest, 64)));
    longest[50] = '.';
    assert_false(mu_broker_host_ok(mu_bytes_of(longest, MU_HOST_MAX + 1)));
}

static void a_list_matches_names_and_wildcards_with_their_port(void **state)
{
    (void)state;
    struct mu_allow a;
    struct mu_err err = {0};
    assert_int_equal(mu_allow_parse("api.a.example:443, *.b.example:443\nc.example:80", &a, &err),
                     0);
    assert_true(mu_allow_has(&a, MU_B("api.a.example"), 443));
    assert_false(mu_allow_has(&a, MU_B("api.a.example"), 80));
    assert_false(mu_allow_has(&a, MU_B("x.api.a.example"), 443));
    assert_true(mu_allow_has(&a, MU_B("x.b.example"), 443));
    assert_true(mu_allow_has(&a, MU_B("x.y.b.example"), 443));
    assert_false(mu_allow_has(&a, MU_B("b.example"), 443));
    assert_false(mu_allow_has(&a, MU_B("xb.example"), 443));
    assert_false(mu_allow_has(&a, MU_B("xyb.example"), 443));
    assert_false(mu_allow_has(&a, MU_B("x.b.example"), 80));
    assert_true(mu_allow_has(&a, MU_B("c.example"), 80));
    mu_allow_fini(&a);
    static const char *const bad[] = {"a.example",     "a.example:0",  "a.example:65536",
                                      "10.0.0.1:80",   "*:443",        "*.*.a:443",
                                      "A.example:443", "a.example:080"};
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        assert_int_equal(mu_allow_parse(bad[i], &a, &err), MU_E_INVALID);
        assert_non_null(strstr(err.text, bad[i]));
    }
}

static bool is_public(const char *text)
{
    struct sockaddr_in in4 = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    if (inet_pton(AF_INET, text, &in4.sin_addr) == 1) {
        return mu_addr_public((struct sockaddr *)&in4);
    }
    assert_int_equal(inet_pton(AF_INET6, text, &in6.sin6_addr), 1);
    return mu_addr_public((struct sockaddr *)&in6);
}

static void only_public_addresses_are_public(void **state)
{
    (void)state;
    static const char *const open[] = {
        "1.1.1.1",     "8.8.8.8",      "172.15.0.1",       "172.32.0.1",      "100.63.255.255",
        "100.128.0.1", "2606:4700::1", "64:ff9b::808:808", "2002:808:808::1", "223.255.255.255"};
    static const char *const closed[] = {"0.0.0.0",
                                         "10.1.2.3",
                                         "100.64.0.1",
                                         "127.0.0.1",
                                         "169.254.169.254",
                                         "172.16.0.1",
                                         "172.31.255.255",
                                         "192.168.1.1",
                                         "224.0.0.1",
                                         "255.255.255.255",
                                         "198.18.0.1",
                                         "192.0.2.1",
                                         "192.0.0.170",
                                         "192.88.99.1",
                                         "198.51.100.1",
                                         "203.0.113.1",
                                         "::",
                                         "::1",
                                         "fe80::1",
                                         "fd00::1",
                                         "ff02::1",
                                         "::ffff:10.0.0.1",
                                         "::ffff:8.8.8.8",
                                         "64:ff9b::7f00:1",
                                         "2002:7f00:1::",
                                         "2001::1",
                                         "2001:db8::1",
                                         "::7f00:1"};
    for (size_t i = 0; i < MU_ARRAY_LEN(open); i++) {
        assert_true(is_public(open[i]));
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(closed); i++) {
        assert_false(is_public(closed[i]));
    }
    assert_false(mu_addr_public(&(struct sockaddr){.sa_family = AF_UNIX}));
}

static void an_address_is_allowed_with_its_port(void **state)
{
    (void)state;
    struct mu_allow_addr a;
    struct mu_err err = {0};
    struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x0a000001)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    assert_int_equal(inet_pton(AF_INET6, "fd00::1", &in6.sin6_addr), 1);
    assert_int_equal(mu_allow_addr_parse("10.0.0.1:80 [fd00::1]:443", &a, &err), 0);
    assert_true(mu_allow_addr_has(&a, (struct sockaddr *)&in4, 80));
    assert_false(mu_allow_addr_has(&a, (struct sockaddr *)&in4, 443));
    assert_true(mu_allow_addr_has(&a, (struct sockaddr *)&in6, 443));
    assert_false(mu_allow_addr_has(&a, (struct sockaddr *)&in6, 80));
    in6.sin6_addr.s6_addr[15] = 2;
    assert_false(mu_allow_addr_has(&a, (struct sockaddr *)&in6, 443));
    mu_allow_addr_fini(&a);
}

static void a_forward_has_a_port_of_its_own_inside(void **state)
{
    (void)state;
    static const char *const bad[] = {"80=a.example:1",    "1023=a.example:1", "3128=a.example:1",
                                      "8081=a.example:0",  "8081=A.example:1", "8081=a.example",
                                      "08081=a.example:1", "65536=a.example:1"};
    struct mu_forward f[2];
    size_t n;
    struct mu_err err = {0};
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        assert_int_equal(mu_forward_parse(bad[i], f, 2, &n, &err), MU_E_INVALID);
        assert_non_null(strstr(err.text, bad[i]));
    }
    assert_int_equal(mu_forward_parse("8081=a.example:1,8081=b.example:2", f, 2, &n, &err),
                     MU_E_INVALID);
    assert_int_equal(mu_forward_parse("8081=a:1,8082=b:2,8083=c:3", f, 2, &n, &err), MU_E_LIMIT);
    assert_int_equal(mu_forward_parse("8081=a.example:1,1024=[::1]:2", f, 2, &n, &err), 0);
    assert_int_equal(n, 2);
    assert_int_equal(f[1].inside, 1024);
    assert_string_equal(f[1].host, "::1");
}

static void proxy_heads_are_taken_apart_or_refused(void **state)
{
    (void)state;
    struct mu_proxy_head h;
    const char *why;
    static const char *const good = "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n";
    assert_int_equal(mu_proxy_head_parse(mu_str(good), &h, &why), 0);
    assert_true(h.connect && h.port == 443 && mu_bytes_is(h.host, "a.example"));
    static const char *const plain = "GET http://a.example/x?y HTTP/1.1\r\nA: b\r\n\r\n";
    assert_int_equal(mu_proxy_head_parse(mu_str(plain), &h, &why), 0);
    assert_true(!h.connect && h.port == 80 && mu_bytes_is(h.target, "/x?y"));
    assert_true(mu_bytes_is(h.headers, "A: b\r\n"));
    static const struct {
        const char *head, *why;
    } bad[] = {
        {"CONNECT 127.0.0.1:443 HTTP/1.1\r\n\r\n", "grammar"},
        {"CONNECT [::ffff:127.0.0.1]:443 HTTP/1.1\r\n\r\n", "grammar"},
        {"CONNECT 2130706433:443 HTTP/1.1\r\n\r\n", "grammar"},
        {"CONNECT a.example HTTP/1.1\r\n\r\n", "grammar"},
        {"CONNECT a.example:443/ HTTP/1.1\r\n\r\n", "grammar"},
        {"CONNECT a.example.:443 HTTP/1.1\r\n\r\n", "grammar"},
        {"GET http://user@a.example/ HTTP/1.1\r\n\r\n", "grammar"},
        {"GET http://a.example:8080/ HTTP/1.1\r\n\r\n", "method"},
        {"GET https://a.example/ HTTP/1.1\r\n\r\n", "method"},
        {"GET / HTTP/1.1\r\n\r\n", "method"},
        {"GET http://a.example/ HTTP/2.0\r\n\r\n", "malformed"},
        {"GET  http://a.example/ HTTP/1.1\r\n\r\n", "malformed"},
        {"GET http://a.example/ HTTP/1.1\nA: b\r\n\r\n", "malformed"},
        {"GET http://a.example/ HTTP/1.1\r\n A: b\r\n\r\n", "malformed"},
        {"GET http://a.example/ HTTP/1.1\r\nA : b\r\n\r\n", "malformed"},
        {"GET http://a.example/ HTTP/1.1\r\nA: b\rXB: c\r\n\r\n", "malformed"},
        {"GET http://a.example?x HTTP/1.1\r\n\r\n", "grammar"},
        {"CONNECT a.example:0443 HTTP/1.1\r\n\r\n", "grammar"},
        {"CONNECT a.example:0 HTTP/1.1\r\n\r\n", "grammar"},
        {"CONNECT a.example:65979 HTTP/1.1\r\n\r\n", "grammar"},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        assert_int_equal(mu_proxy_head_parse(mu_str(bad[i].head), &h, &why), MU_E_INVALID);
        assert_string_equal(why, bad[i].why);
    }
    char many[2000];
    for (int lines = 100; lines <= 101; lines++) {
        int at = snprintf(many, sizeof many, "%.*s", 32, good);
        for (int i = 0; i < lines; i++) {
            at += snprintf(many + at, sizeof many - (size_t)at, "A: b\r\n");
        }
        snprintf(many + at, sizeof many - (size_t)at, "\r\n");
        assert_int_equal(mu_proxy_head_parse(mu_str(many), &h, &why),
                         lines == 100 ? 0 : MU_E_INVALID);
    }
    static const char nul[] = "CONNECT evil.example\0.a.example:443 HTTP/1.1\r\n\r\n";
    assert_int_equal(mu_proxy_head_parse(mu_bytes_of(nul, sizeof nul - 1), &h, &why), MU_E_INVALID);
    assert_string_equal(why, "grammar");
}

/* --- a running broker --- */

struct bench {
    struct mu_loop *loop;
    struct mu_broker *broker;
    struct mu_broker_session *session;
    struct mu_broker_settings settings;
    struct mu_post post;
    sem_t sem;
    uint16_t port;
    int fd, result;
    const char *env_allow;
    /* of the last event */
    char host[64], verdict[32];
    int64_t bytes_in, bytes_out;
    sem_t told;
    /* server */
    const char *proxy_says; /* answers CONNECT with it */
    int listener;
    uint16_t server_port;
    pthread_t thread;
};

static char *resolve(void *arg, const char *host)
{
    (void)arg;
    if (!strcmp(host, "nowhere.example")) {
        return NULL;
    }
    if (!strcmp(host, "two.example")) {
        return mu_bytes_dup(MU_B("127.0.0.2 127.0.0.1"));
    }
    return mu_bytes_dup(!strcmp(host, "private.example") ? MU_B("10.1.1.1") : MU_B("127.0.0.1"));
}

static void on_event(void *arg, const struct mu_broker_event *e)
{
    struct bench *b = arg;
    snprintf(b->host, sizeof b->host, "%s", e->host);
    snprintf(b->verdict, sizeof b->verdict, "%s", e->verdict);
    b->bytes_in = e->bytes_in;
    b->bytes_out = e->bytes_out;
    sem_post(&b->told);
}

/* Echoes; as a proxy it has something of its own to say first. */
static void *serve(void *arg)
{
    struct bench *b = arg;
    for (;;) {
        int fd = accept(b->listener, NULL, NULL);
        if (fd < 0) {
            return NULL;
        }
        char buf[65536];
        ssize_t n;
        while ((n = read(fd, buf, sizeof buf)) > 0) {
            if (b->proxy_says && n > 8 && memcmp(buf, "CONNECT ", 8) == 0) {
                n = snprintf(buf, sizeof buf, "%s", b->proxy_says);
            }
            for (ssize_t off = 0, w; off < n; off += w) {
                w = write(fd, buf + off, (size_t)(n - off));
                if (w < 0) {
                    break;
                }
            }
        }
        close(fd);
    }
}

static void begin_on_loop(struct mu_post *post)
{
    struct bench *b = MU_CONTAINER(post, struct bench, post);
    struct mu_err err = {0};
    struct mu_broker_session_opts opts = {.allow = b->env_allow, .event = on_event, .arg = b};
    assert_int_equal(mu_broker_new(b->loop, &b->settings, &b->broker, &err), 0);
    assert_int_equal(mu_broker_session_new(b->broker, &opts, &b->session, &err), 0);
    sem_post(&b->sem);
}

static void dial_on_loop(struct mu_post *post)
{
    struct bench *b = MU_CONTAINER(post, struct bench, post);
    b->result = mu_broker_dial(b->session, b->port, &b->fd);
    sem_post(&b->sem);
}

static void end_on_loop(struct mu_post *post)
{
    struct bench *b = MU_CONTAINER(post, struct bench, post);
    mu_broker_session_free(b->session);
    mu_broker_free(b->broker);
    sem_post(&b->sem);
}

static void on_loop(struct bench *b, void (*fn)(struct mu_post *post))
{
    b->post.fn = fn;
    mu_loop_post(b->loop, &b->post);
    sem_wait(&b->sem);
}

static char allow_text[200], addr_text[64], forward_text[64];

static void begin(struct bench *b, const char *env_allow)
{
    *b = (struct bench){.env_allow = env_allow};
    b->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    assert_int_equal(bind(b->listener, (struct sockaddr *)&a, len), 0);
    assert_int_equal(listen(b->listener, 16), 0);
    getsockname(b->listener, (struct sockaddr *)&a, &len);
    b->server_port = ntohs(a.sin_port);
    snprintf(allow_text, sizeof allow_text,
             "ok.example:%u,private.example:443,nowhere.example:443,two.example:%u", b->server_port,
             b->server_port);
    snprintf(addr_text, sizeof addr_text, "127.0.0.1:%u", b->server_port);
    snprintf(forward_text, sizeof forward_text, "8081=127.0.0.1:%u", b->server_port);
    b->settings = (struct mu_broker_settings){.env = &mu_env_real,
                                              .allow = allow_text,
                                              .allow_addr = addr_text,
                                              .forward = forward_text,
                                              .resolve = resolve};
    sem_init(&b->sem, 0, 0);
    sem_init(&b->told, 0, 0);
    pthread_create(&b->thread, NULL, serve, b);
    assert_int_equal(mu_loop_new(&mu_env_real, "broker", &b->loop), 0);
    assert_int_equal(mu_loop_start(b->loop), 0);
    on_loop(b, begin_on_loop);
}

static void end(struct bench *b)
{
    on_loop(b, end_on_loop);
    mu_loop_stop(b->loop);
    mu_loop_join(b->loop);
    mu_loop_free(b->loop);
    shutdown(b->listener, SHUT_RDWR);
    pthread_join(b->thread, NULL);
    close(b->listener);
    sem_destroy(&b->sem);
    sem_destroy(&b->told);
}

static int dial(struct bench *b, uint16_t port)
{
    b->port = port;
    on_loop(b, dial_on_loop);
    assert_int_equal(b->result, 0);
    struct timeval t = {.tv_sec = 20};
    setsockopt(b->fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    return b->fd;
}

/* Sends and reads until `until` was seen or the end. */
static void ask(int fd, mu_bytes text, const char *until, char *answer, size_t size)
{
    assert_int_equal(write(fd, text.ptr, text.len), (ssize_t)text.len);
    size_t n = 0;
    answer[0] = 0;
    while (n + 1 < size && !(until && strstr(answer, until))) {
        ssize_t r = read(fd, answer + n, size - 1 - n);
        if (r <= 0) {
            break;
        }
        n += (size_t)r;
        answer[n] = 0;
    }
}

static void connect_request(char *dst, size_t size, const char *host, unsigned port)
{
    snprintf(dst, size, "CONNECT %s:%u HTTP/1.1\r\nHost: %s\r\n\r\n", host, port, host);
}

static void a_listed_host_is_reached_and_bytes_pass_both_ways(void **state)
{
    (void)state;
    struct bench b;
    char head[200], answer[4096];
    begin(&b, NULL);
    int fd = dial(&b, MU_BROKER_PROXY_PORT);
    connect_request(head, sizeof head, "ok.example", b.server_port);
    ask(fd, mu_str(head), "\r\n\r\n", answer, sizeof answer);
    assert_string_equal(answer, "HTTP/1.1 200 Connection established\r\n\r\n");
    ask(fd, MU_B("hello"), "hello", answer, sizeof answer);
    assert_string_equal(answer, "hello");
    shutdown(fd, SHUT_WR);
    assert_int_equal(read(fd, answer, sizeof answer), 0);
    sem_wait(&b.told);
    assert_string_equal(b.verdict, "allowed");
    assert_string_equal(b.host, "ok.example");
    assert_int_equal(b.bytes_out, 5);
    assert_int_equal(b.bytes_in, 5);
    close(fd);
    end(&b);
}

struct pump {
    int fd;
    size_t total;
};

static void *pump_in(void *arg)
{
    struct pump *p = arg;
    char buf[32768];
    memset(buf, 'x', sizeof buf);
    for (size_t n = 0; n < p->total; n += sizeof buf) {
        for (size_t off = 0; off < sizeof buf;) {
            ssize_t w = write(p->fd, buf + off, sizeof buf - off);
            if (w < 0) {
                return NULL;
            }
            off += (size_t)w;
        }
    }
    shutdown(p->fd, SHUT_WR);
    return NULL;
}

static void a_forward_port_carries_much_without_a_request(void **state)
{
    (void)state;
    struct bench b;
    begin(&b, NULL);
    int fd = dial(&b, 8081);
    struct pump p = {fd, 16 << 20};
    pthread_t t;
    pthread_create(&t, NULL, pump_in, &p);
    char buf[65536];
    size_t got = 0;
    ssize_t n;
    while ((n = read(fd, buf, sizeof buf)) > 0) {
        got += (size_t)n;
    }
    pthread_join(t, NULL);
    assert_int_equal(got, p.total);
    sem_wait(&b.told);
    assert_string_equal(b.verdict, "allowed");
    close(fd);
    end(&b);
}

static void refused(struct bench *b, mu_bytes request, int status, const char *why)
{
    char answer[4096], want[64];
    int fd = dial(b, MU_BROKER_PROXY_PORT);
    ask(fd, request, NULL, answer, sizeof answer);
    snprintf(want, sizeof want, "HTTP/1.1 %d ", status);
    assert_non_null(strstr(answer, want));
    snprintf(want, sizeof want, "X-Muster-Reason: %s\r\n", why);
    assert_non_null(strstr(answer, want));
    sem_wait(&b->told);
    assert_string_equal(b->verdict, why);
    close(fd);
}

static void everything_else_is_refused_with_its_reason(void **state)
{
    (void)state;
    struct bench b;
    char head[200];
    begin(&b, "env.example:443,env.example:80");
    refused(&b, MU_B("CONNECT other.example:443 HTTP/1.1\r\n\r\n"), 403, "not_listed"); /* 96 */
    connect_request(head, sizeof head, "ok.example", b.server_port == 443 ? 444 : 443);
    refused(&b, mu_str(head), 403, "not_listed");                                      /* 97 */
    refused(&b, MU_B("GET http://ok.example:8080/ HTTP/1.1\r\n\r\n"), 403, "method");  /* 98 */
    refused(&b, MU_B("GET http://ok.example/ HTTP/1.1\r\n\r\n"), 403, "not_listed");   /* 98 */
    refused(&b, MU_B("CONNECT 127.0.0.1:443 HTTP/1.1\r\n\r\n"), 403, "grammar");       /* 99 */
    refused(&b, MU_B("CONNECT [::ffff:7f00:1]:443 HTTP/1.1\r\n\r\n"), 403, "grammar"); /* 100 */
    refused(&b, MU_B("CONNECT 2130706433:443 HTTP/1.1\r\n\r\n"), 403, "grammar");      /* 101 */
    refused(&b, MU_B("CONNECT 169.254.169.254:80 HTTP/1.1\r\n\r\n"), 403, "grammar");  /* 102 */
    refused(&b, MU_B("CONNECT evil.example\0.ok.example:443 HTTP/1.1\r\n\r\n"), 403,
            "grammar"); /* 103 */
    refused(&b, MU_B("CONNECT private.example:443 HTTP/1.1\r\n\r\n"), 403,
            "private_address"); /* 104 */
    refused(&b, MU_B("CONNECT env.example:443 HTTP/1.1\r\n\r\n"), 403, "private_address");
    refused(&b, MU_B("CONNECT nowhere.example:443 HTTP/1.1\r\n\r\n"), 502, "not_found");
    char big[MU_HOST_MAX * 40];
    int n = snprintf(big, sizeof big, "CONNECT ok.example:443 HTTP/1.1\r\nA: ");
    memset(big + n, 'a', sizeof big - (size_t)n);
    refused(&b, mu_bytes_of(big, sizeof big), 403, "too_large");
    memcpy(big + sizeof big - 4, "\r\n\r\n", 4); /* and when it is complete */
    refused(&b, mu_bytes_of(big, sizeof big), 403, "too_large");
    refused(&b,
            MU_B("POST http://env.example/ HTTP/1.1\r\nContent-Length: 1\r\n"
                 "Transfer-Encoding: chunked\r\n\r\n"),
            403, "malformed");
    end(&b);
}

/* Everything goes through the machine's own proxy, which is our server. */
static void begin_behind(struct bench *b, char upstream[32], const char *says)
{
    begin(b, "plain.example:80");
    on_loop(b, end_on_loop);
    snprintf(upstream, 32, "127.0.0.1:%u", b->server_port);
    b->settings.upstream = upstream;
    b->proxy_says = says;
    on_loop(b, begin_on_loop);
}

static void a_plain_request_arrives_without_what_was_for_the_proxy(void **state)
{
    (void)state;
    struct bench b;
    char upstream[32], answer[1000];
    begin_behind(&b, upstream, "HTTP/1.1 200 OK\r\n\r\n");
    int fd = dial(&b, MU_BROKER_PROXY_PORT);
    ask(fd,
        MU_B("POST http://plain.example/a?b HTTP/1.1\r\nHost: other.example\r\nAccept: x\r\n"
             "proxy-authorization: secret\r\nConnection: keep-alive, upgrade\r\nUpgrade: h2c\r\n"
             "Keep-Alive: 5\r\nTE: trailers\r\nContent-Length: 4\r\n\r\nbody"),
        "body", answer, sizeof answer);
    assert_string_equal(answer, "POST /a?b HTTP/1.1\r\nHost: plain.example\r\nAccept: x\r\n"
                                "Content-Length: 4\r\nConnection: close\r\n\r\nbody");
    close(fd);
    end(&b);
}

static void a_refusal_of_the_proxy_behind_is_told(void **state)
{
    (void)state;
    static const char *const answers[] = {"HTTP/1.1 407 No\r\n\r\n", "HTTP/1.1 2000 x\r\n\r\n",
                                          "SSH-2.0-x 200 y\r\n\r\n"};
    for (size_t i = 0; i < MU_ARRAY_LEN(answers); i++) {
        struct bench b;
        char upstream[32];
        begin_behind(&b, upstream, answers[i]);
        refused(&b, MU_B("GET http://plain.example/ HTTP/1.1\r\n\r\n"), 502, "upstream");
        end(&b);
    }
}

static void the_address_that_was_checked_is_the_one_that_is_tried(void **state)
{
    (void)state; /* 127.0.0.2 is not on the list of addresses and is never connected to */
    struct bench b;
    char head[200], answer[400];
    begin(&b, NULL);
    int fd = dial(&b, MU_BROKER_PROXY_PORT);
    connect_request(head, sizeof head, "two.example", b.server_port);
    ask(fd, mu_str(head), "\r\n\r\n", answer, sizeof answer);
    assert_non_null(strstr(answer, " 200 "));
    close(fd);
    end(&b);
}

static size_t client_hello(uint8_t *dst, const char *name)
{
    size_t n = strlen(name), at = 5;
    uint8_t *d = dst;
    d[at++] = 1;
    size_t body_len = at;
    at += 3;
    d[at++] = 3, d[at++] = 3;
    memset(d + at, 7, 32);
    at += 32;
    d[at++] = 0;
    d[at++] = 0, d[at++] = 2, d[at++] = 0x13, d[at++] = 1;
    d[at++] = 1, d[at++] = 0;
    size_t ext = n + 9;
    d[at++] = (uint8_t)(ext >> 8), d[at++] = (uint8_t)ext;
    d[at++] = 0, d[at++] = 0;
    d[at++] = (uint8_t)((n + 5) >> 8), d[at++] = (uint8_t)(n + 5);
    d[at++] = (uint8_t)((n + 3) >> 8), d[at++] = (uint8_t)(n + 3);
    d[at++] = 0;
    d[at++] = (uint8_t)(n >> 8), d[at++] = (uint8_t)n;
    memcpy(d + at, name, n);
    at += n;
    size_t body = at - body_len - 3;
    d[body_len] = 0, d[body_len + 1] = (uint8_t)(body >> 8), d[body_len + 2] = (uint8_t)body;
    d[0] = 22, d[1] = 3, d[2] = 1;
    d[3] = (uint8_t)((at - 5) >> 8), d[4] = (uint8_t)(at - 5);
    return at;
}

static void another_server_name_is_cut_off(void **state)
{
    (void)state;
    struct bench b;
    uint8_t hello[400];
    char head[200], answer[400];
    begin(&b, NULL);
    connect_request(head, sizeof head, "ok.example", b.server_port);
    static const struct {
        const char *name;
        bool behind; /* in one piece with the request */
        int broken;  /* its length says more than is there */
    } rows[] = {{"OK.example", false, 0},
                {"front.example", false, 0},
                {"front.example", true, 0},
                {"ok.example", true, 200}};
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        int fd = dial(&b, MU_BROKER_PROXY_PORT);
        size_t n = client_hello(hello, rows[i].name);
        hello[8] = rows[i].broken ? (uint8_t)rows[i].broken : hello[8];
        if (rows[i].behind) {
            char both[700];
            int at = snprintf(both, sizeof both, "%s", head);
            memcpy(both + at, hello, n);
            ask(fd, mu_bytes_of(both, (size_t)at + n), "\r\n\r\n", answer, sizeof answer);
        } else {
            ask(fd, mu_str(head), "\r\n\r\n", answer, sizeof answer);
            assert_int_equal(write(fd, hello, 7), 7); /* the name is not there yet */
            nanosleep(&(struct timespec){0, 50000000}, NULL);
            assert_int_equal(write(fd, hello + 7, n - 7), (ssize_t)n - 7);
        }
        ssize_t got = read(fd, answer, sizeof answer);
        assert_true(i == 0 ? got > 0 : got <= 0);
        close(fd);
        sem_wait(&b.told);
        assert_string_equal(b.verdict, i == 0 ? "allowed" : "sni");
    }
    end(&b);
}

static void every_cut_of_a_hello_is_undecided_or_bad_but_never_read_outside(void **state)
{
    (void)state;
    uint8_t hello[400];
    size_t n = client_hello(hello, "ok.example");
    mu_bytes name;
    for (size_t i = 0; i < n; i++) {
        char *cut = mu_alloc(i ? i : 1); /* its own block: ASan sees a read past it */
        memcpy(cut, hello, i);
        assert_int_equal(mu_sni_find(mu_bytes_of(cut, i), &name), MU_SNI_MORE);
        mu_free(cut);
    }
    assert_int_equal(mu_sni_find(mu_bytes_of((char *)hello, n), &name), MU_SNI_FOUND);
    assert_true(mu_bytes_is(name, "ok.example"));
    hello[8] = 200; /* longer than its record */
    assert_int_equal(mu_sni_find(mu_bytes_of((char *)hello, n), &name), MU_SNI_BAD);
    assert_int_equal(mu_sni_find(MU_B("SSH-2.0"), &name), MU_SNI_NONE);
    assert_int_equal(mu_sni_find(MU_B("\x16\x03\x01\x40\x00"), &name), MU_SNI_MORE);
    assert_int_equal(mu_sni_find(MU_B("\x16\x03\x01\x40\x01"), &name), MU_SNI_BAD);
    n = client_hello(hello, "ok.example");
    hello[5 + 4 + 34 + 1 + 4 + 2 + 2 + 4 + 2] = 1; /* a name of another type is none */
    assert_int_equal(mu_sni_find(mu_bytes_of((char *)hello, n), &name), MU_SNI_NONE);
}

static void connections_and_bytes_have_a_limit(void **state)
{
    (void)state;
    struct bench b;
    char buf[4096];
    begin(&b, NULL);
    on_loop(&b, end_on_loop);
    b.settings.max_connections = 2;
    b.settings.max_bytes_per_hour = 100000;
    on_loop(&b, begin_on_loop);
    int one = dial(&b, 8081), two = dial(&b, 8081);
    b.port = 8081;
    on_loop(&b, dial_on_loop);
    assert_int_equal(b.result, MU_E_LIMIT);
    b.port = 9999;
    on_loop(&b, dial_on_loop);
    assert_int_equal(b.result, MU_E_INVALID);
    memset(buf, 'x', sizeof buf);
    size_t sent = 0;
    while (send(one, buf, sizeof buf, MSG_NOSIGNAL) > 0 && sent < 400000) {
        sent += sizeof buf;
        if (read(one, buf, sizeof buf) <= 0) {
            break;
        }
    }
    assert_true(sent < 200000);
    sem_wait(&b.told);
    assert_string_equal(b.verdict, "quota");
    close(one);
    close(two);
    end(&b);
}

static int build_all(void *arg)
{
    struct mu_loop *loop = arg;
    struct mu_broker_settings settings = {.env = &mu_env_real,
                                          .allow = "a.example:443,b.example:443",
                                          .allow_addr = "10.0.0.1:80,10.0.0.2:80",
                                          .forward = "8081=a.example:1"};
    struct mu_broker *b;
    struct mu_broker_session *s;
    struct mu_broker_session_opts opts = {.allow = "c.example:443"};
    struct mu_err err;
    int fd, r = mu_broker_new(loop, &settings, &b, &err);
    if (r < 0) {
        return r;
    }
    r = mu_broker_session_new(b, &opts, &s, &err);
    if (r == 0) {
        r = mu_broker_dial(s, MU_BROKER_PROXY_PORT, &fd);
        if (r == 0) {
            close(fd);
        }
        mu_broker_session_free(s);
    }
    mu_broker_free(b);
    return r;
}

static void a_failing_allocation_leaves_nothing_behind(void **state)
{
    (void)state;
    struct mu_loop *loop;
    assert_int_equal(mu_loop_new(&mu_env_real, "broker", &loop), 0);
    each_allocation_fails(build_all, loop);
    mu_loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hosts_follow_one_grammar),
        cmocka_unit_test(a_list_matches_names_and_wildcards_with_their_port),
        cmocka_unit_test(only_public_addresses_are_public),
        cmocka_unit_test(an_address_is_allowed_with_its_port),
        cmocka_unit_test(a_forward_has_a_port_of_its_own_inside),
        cmocka_unit_test(proxy_heads_are_taken_apart_or_refused),
        cmocka_unit_test(a_listed_host_is_reached_and_bytes_pass_both_ways),
        cmocka_unit_test(a_forward_port_carries_much_without_a_request),
        cmocka_unit_test(everything_else_is_refused_with_its_reason),
        cmocka_unit_test(a_plain_request_arrives_without_what_was_for_the_proxy),
        cmocka_unit_test(a_refusal_of_the_proxy_behind_is_told),
        cmocka_unit_test(the_address_that_was_checked_is_the_one_that_is_tried),
        cmocka_unit_test(another_server_name_is_cut_off),
        cmocka_unit_test(every_cut_of_a_hello_is_undecided_or_bad_but_never_read_outside),
        cmocka_unit_test(connections_and_bytes_have_a_limit),
        cmocka_unit_test(a_failing_allocation_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
