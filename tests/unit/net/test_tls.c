/* The server behind TLS, and its certificates. */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "http_world.h"

static void write_pair(const char *cert_file, const char *key_file, const char *name)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    X509_set_pubkey(x, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                               (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(x));
    assert_true(X509_sign(x, key, EVP_sha256()) > 0);
    FILE *f = fopen(cert_file, "w");
    assert_int_equal(PEM_write_X509(f, x), 1);
    fclose(f);
    f = fopen(key_file, "w");
    assert_int_equal(PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL), 1);
    fclose(f);
    X509_free(x);
    EVP_PKEY_free(key);
}

struct tls_client {
    SSL_CTX *ctx;
    SSL *ssl;
    int fd;
};

static int tls_dial(struct world *w, struct tls_client *c, int max_version, const char *alpn)
{
    c->fd = dial(w);
    c->ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(c->ctx, TLS1_VERSION);
    SSL_CTX_set_security_level(c->ctx, 0);
    SSL_CTX_set_max_proto_version(c->ctx, max_version);
    c->ssl = SSL_new(c->ctx);
    SSL_set_alpn_protos(c->ssl, (const unsigned char *)alpn, (unsigned)strlen(alpn));
    SSL_set_fd(c->ssl, c->fd);
    int r = SSL_connect(c->ssl);
    ERR_clear_error();
    return r;
}

static void tls_hang_up(struct tls_client *c)
{
    SSL_free(c->ssl);
    SSL_CTX_free(c->ctx);
    close(c->fd);
}

static void tls_put(struct tls_client *c, const char *text)
{
    assert_int_equal(SSL_write(c->ssl, text, (int)strlen(text)), strlen(text));
}

static const char *tls_get(struct tls_client *c, size_t want)
{
    got_len = 0;
    while (got_len < want) {
        int n = SSL_read(c->ssl, got + got_len, (int)(sizeof got - 1 - got_len));
        if (n <= 0) {
            break;
        }
        got_len += (size_t)n;
    }
    got[got_len] = 0;
    return got;
}

static void peer_name(struct tls_client *c, char *dst, int size)
{
    X509 *x = SSL_get1_peer_certificate(c->ssl);
    assert_non_null(x);
    X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_commonName, dst, size);
    X509_free(x);
}

static void tls_conversation(struct world *w, int version)
{
    struct tls_client c;
    assert_int_equal(tls_dial(w, &c, version, "\x02h2\x08http/1.1"), 1);
    const unsigned char *proto;
    unsigned len;
    SSL_get0_alpn_selected(c.ssl, &proto, &len);
    assert_true(mu_bytes_is(mu_bytes_of((const char *)proto, len), "http/1.1"));
    tls_put(&c, "POST /echo HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhe");
    tls_put(&c, "llo");
    assert_has(tls_get(&c, 60), "\r\n\r\nhello");
    tls_put(&c, "GET /later HTTP/1.1\r\n" H "\r\n");
    assert_has(tls_get(&c, 60), "\r\n\r\nlate");
    tls_put(&c, "GET /big HTTP/1.1\r\n" H "Connection: close\r\n\r\n");
    usleep(20000);
    const char *t = tls_get(&c, SIZE_MAX);
    assert_memory_equal(strstr(t, "\r\n\r\n") + 4, w->big, BIG);
    assert_int_equal(SSL_get_shutdown(c.ssl) & SSL_RECEIVED_SHUTDOWN, SSL_RECEIVED_SHUTDOWN);
    tls_hang_up(&c);
}

static void tls_stream(struct world *w)
{
    struct tls_client c;
    assert_int_equal(tls_dial(w, &c, TLS1_3_VERSION, "\x08http/1.1"), 1);
    tls_put(&c, "GET /stream HTTP/1.1\r\n" H "\r\n");
    wait_event(w);
    tls_get(&c, 60);
    on_loop(w, stream_two, "abc");
    assert_string_equal(tls_get(&c, 16), "3\r\nabc\r\n3\r\nabc\r\n");
    on_loop(w, stream_end, NULL);
    tls_get(&c, 5);
    wait_event(w);
    tls_put(&c, "GET /bad\r\n\r\n");
    assert_has(tls_get(&c, SIZE_MAX), "HTTP/1.1 400 ");
    tls_hang_up(&c);
}

static void tls_refusals(struct world *w)
{
    struct tls_client c;
    assert_int_not_equal(tls_dial(w, &c, TLS1_1_VERSION, "\x08http/1.1"), 1);
    tls_hang_up(&c);
    assert_int_not_equal(tls_dial(w, &c, TLS1_3_VERSION, "\x02h2"), 1);
    tls_hang_up(&c);
    int fd = dial(w);
    put(fd, "GET / HTTP/1.1\r\n" H "\r\n");
    char c1[512];
    ssize_t n;
    while ((n = recv(fd, c1, sizeof c1, 0)) > 0) {
        assert_null(memmem(c1, (size_t)n, "HTTP/1.1", 8));
    }
    close(fd);
}

static void tls_is_served_and_its_certificate_reloaded(void **state)
{
    (void)state;
    char dir[] = "/tmp/muster-tls-XXXXXX", cert[64], key[64], name[64];
    assert_non_null(mkdtemp(dir));
    snprintf(cert, sizeof cert, "%s/cert", dir);
    snprintf(key, sizeof key, "%s/key", dir);
    write_pair(cert, key, "first");
    struct world w;
    world_start(&w, &mu_http_default_limits, 1, cert, key);
    tls_conversation(&w, TLS1_2_VERSION);
    tls_conversation(&w, TLS1_3_VERSION);
    tls_stream(&w);
    tls_refusals(&w);

    struct mu_err err = {0};
    FILE *f = fopen(cert, "w");
    fputs("no certificate", f);
    fclose(f);
    assert_true(mu_http_server_prepare_tls(w.server, &err) < 0);
    assert_has(err.text, cert);
    struct tls_client c;
    assert_int_equal(tls_dial(&w, &c, TLS1_3_VERSION, "\x08http/1.1"), 1);
    peer_name(&c, name, sizeof name);
    assert_string_equal(name, "first");
    tls_hang_up(&c);
    write_pair(cert, key, "second");
    assert_int_equal(mu_http_server_prepare_tls(w.server, &err), 0);
    mu_http_server_commit_tls(w.server, false);
    mu_http_server_commit_tls(w.server, true); /* nothing is there to be used any more */
    assert_int_equal(tls_dial(&w, &c, TLS1_3_VERSION, "\x08http/1.1"), 1);
    peer_name(&c, name, sizeof name);
    assert_string_equal(name, "first");
    tls_hang_up(&c);
    assert_int_equal(mu_http_server_prepare_tls(w.server, &err), 0);
    mu_http_server_commit_tls(w.server, true);
    assert_int_equal(tls_dial(&w, &c, TLS1_3_VERSION, "\x08http/1.1"), 1);
    peer_name(&c, name, sizeof name);
    assert_string_equal(name, "second");
    tls_hang_up(&c);
    world_stop(&w);
    unlink(cert);
    unlink(key);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tls_is_served_and_its_certificate_reloaded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
