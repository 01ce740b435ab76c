#include "net/tls.h"

#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>

/* Handshake messages and one batch of records; the caller stops encrypting long before. */
enum { MAX_OUT = 4 * 1024 * 1024 };

struct mu_tls_conf {
    pthread_mutex_t lock;
    SSL_CTX *ctx;
    SSL_CTX *prepared; /* read again, not in use yet */
    BIO_METHOD *bio;
    char *cert_file, *key_file;
};

/* A BIO of our own instead of memory BIOs: it reads straight from what was fed and writes into one
 * buffer that is released when it is empty, so an idle connection keeps neither. */
struct mu_tls {
    SSL *ssl;
    mu_bytes in;
    struct mu_buf out;
    struct mu_tls_conf *trust; /* of a client */
    unsigned long error;       /* OpenSSL's */
    bool failed, verified;
};

static int bio_read(BIO *b, char *dst, int size)
{
    struct mu_tls *t = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    if (t->in.len == 0) {
        BIO_set_retry_read(b);
        return -1;
    }
    size_t n = MU_MIN(t->in.len, (size_t)size);
    memcpy(dst, t->in.ptr, n);
    t->in = mu_bytes_from(t->in, n);
    return (int)n;
}

static int bio_write(BIO *b, const char *src, int size)
{
    struct mu_tls *t = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    mu_buf_add(&t->out, mu_bytes_of(src, (size_t)size));
    return t->out.failed ? -1 : size;
}

static long bio_ctrl(BIO *b MU_UNUSED, int cmd, long num MU_UNUSED, void *ptr MU_UNUSED)
{
    return cmd == BIO_CTRL_FLUSH ? 1 : 0;
}

static BIO_METHOD *new_bio_method(void)
{
    BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "muster");
    if (m && BIO_meth_set_read(m, bio_read) && BIO_meth_set_write(m, bio_write) &&
        BIO_meth_set_ctrl(m, bio_ctrl)) {
        return m;
    }
    BIO_meth_free(m);
    return NULL;
}

/* Only http/1.1 is spoken; a client that offers nothing we know is told so. */
static int choose_protocol(SSL *ssl MU_UNUSED, const unsigned char **out, unsigned char *outlen,
                           const unsigned char *in, unsigned int inlen, void *arg MU_UNUSED)
{
    static const unsigned char ours[] = "\x08http/1.1";
    unsigned char *picked;
    if (SSL_select_next_proto(&picked, outlen, ours, sizeof ours - 1, in, inlen) !=
        OPENSSL_NPN_NEGOTIATED) {
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    *out = picked;
    return SSL_TLSEXT_ERR_OK;
}

static int ssl_error(struct mu_err *err, const char *what, const char *file)
{
    unsigned long e = ERR_peek_last_error();
    const char *reason = ERR_reason_error_string(e);
    ERR_clear_error();
    return mu_err_set(err, MU_E_INVALID, "%s '%s': %s", what, file, reason ? reason : "not usable");
}

static int load_files(SSL_CTX *ctx, const struct mu_tls_conf *c, struct mu_err *err)
{
    ERR_clear_error();
    if (SSL_CTX_use_certificate_chain_file(ctx, c->cert_file) != 1) {
        return ssl_error(err, "TLS certificate", c->cert_file);
    }
    if (SSL_CTX_use_PrivateKey_file(ctx, c->key_file, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(ctx) != 1) {
        return ssl_error(err, "TLS key", c->key_file);
    }
    return 0;
}

static int new_context(const struct mu_tls_conf *c, SSL_CTX **ret, struct mu_err *err)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    if (!ctx) {
        return mu_err_set(err, -ENOMEM, "no memory for TLS");
    }
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(ctx, 1);
    SSL_CTX_set_alpn_select_cb(ctx, choose_protocol, NULL);
    int r = load_files(ctx, c, err);
    if (r < 0) {
        SSL_CTX_free(ctx);
        return r;
    }
    *ret = ctx;
    return 0;
}

int mu_tls_conf_new(const char *cert_file, const char *key_file, struct mu_tls_conf **ret,
                    struct mu_err *err)
{
    struct mu_tls_conf *c = mu_calloc(1, sizeof *c);
    if (!c) {
        return mu_err_set(err, -ENOMEM, "no memory for TLS");
    }
    pthread_mutex_init(&c->lock, NULL);
    c->cert_file = mu_bytes_dup(mu_str(cert_file));
    c->key_file = mu_bytes_dup(mu_str(key_file));
    c->bio = new_bio_method();
    int r = c->cert_file && c->key_file && c->bio ? new_context(c, &c->ctx, err)
                                                  : mu_err_set(err, -ENOMEM, "no memory for TLS");
    if (r < 0) {
        mu_tls_conf_free(c);
        return r;
    }
    *ret = c;
    return 0;
}

int mu_tls_conf_prepare(struct mu_tls_conf *c, struct mu_err *err)
{
    SSL_CTX *fresh = NULL;
    int r = new_context(c, &fresh, err);
    if (r < 0) {
        return r;
    }
    pthread_mutex_lock(&c->lock);
    SSL_CTX *old = c->prepared;
    c->prepared = fresh;
    pthread_mutex_unlock(&c->lock);
    SSL_CTX_free(old);
    return 0;
}

void mu_tls_conf_commit(struct mu_tls_conf *c, bool use)
{
    pthread_mutex_lock(&c->lock);
    SSL_CTX *old = c->prepared;
    c->prepared = NULL;
    if (use && old) {
        SSL_CTX *fresh = old;
        old = c->ctx;
        c->ctx = fresh;
    }
    pthread_mutex_unlock(&c->lock);
    SSL_CTX_free(old);
}

struct mu_tls_conf *mu_tls_conf_free(struct mu_tls_conf *c)
{
    if (c) {
        SSL_CTX_free(c->ctx);
        SSL_CTX_free(c->prepared);
        BIO_meth_free(c->bio);
        mu_free(c->cert_file);
        mu_free(c->key_file);
        pthread_mutex_destroy(&c->lock);
        mu_free(c);
    }
    return NULL;
}

/* --- a client's trust --- */

static int load_trust(SSL_CTX *ctx, const char *ca_file, struct mu_err *err)
{
    ERR_clear_error();
    if (ca_file) {
        return SSL_CTX_load_verify_file(ctx, ca_file) == 1
                   ? 0
                   : ssl_error(err, "trusted certificates", ca_file);
    }
    return SSL_CTX_set_default_verify_paths(ctx) == 1
               ? 0
               : ssl_error(err, "trusted certificates", "of the system");
}

int mu_tls_trust_new(const char *ca_file, struct mu_tls_conf **ret, struct mu_err *err)
{
    struct mu_tls_conf *c = mu_calloc(1, sizeof *c);
    if (!c) {
        return mu_err_set(err, -ENOMEM, "no memory for TLS");
    }
    pthread_mutex_init(&c->lock, NULL);
    c->bio = new_bio_method();
    c->ctx = c->bio ? SSL_CTX_new(TLS_client_method()) : NULL;
    int r =
        c->ctx ? load_trust(c->ctx, ca_file, err) : mu_err_set(err, -ENOMEM, "no memory for TLS");
    if (r < 0) {
        mu_tls_conf_free(c);
        return r;
    }
    SSL_CTX_set_min_proto_version(c->ctx, TLS1_2_VERSION);
    SSL_CTX_set_options(c->ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                                    SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(c->ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(c->ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_verify(c->ctx, SSL_VERIFY_PEER, NULL);
    *ret = c;
    return 0;
}

/* The handshake is over and nothing is verified again: the roots of a system are a megabyte. */
static void forget_roots(struct mu_tls *t)
{
    X509_STORE *none = X509_STORE_new();
    if (none) {
        SSL_CTX_set_cert_store(t->trust->ctx, none);
    }
    ERR_clear_error();
}

/* --- connections --- */

static int new_filter(struct mu_tls_conf *c, struct mu_tls **ret)
{
    struct mu_tls *t = mu_calloc(1, sizeof *t);
    BIO *bio = t ? BIO_new(c->bio) : NULL;
    if (!bio) {
        mu_free(t);
        return -ENOMEM;
    }
    mu_buf_init(&t->out, MAX_OUT);
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    pthread_mutex_lock(&c->lock);
    t->ssl = SSL_new(c->ctx);
    pthread_mutex_unlock(&c->lock);
    if (!t->ssl) {
        BIO_free(bio);
        mu_free(t);
        return -ENOMEM;
    }
    SSL_set_bio(t->ssl, bio, bio);
    *ret = t;
    return 0;
}

int mu_tls_new(struct mu_tls_conf *c, struct mu_tls **ret)
{
    int r = new_filter(c, ret);
    if (r == 0) {
        SSL_set_accept_state((*ret)->ssl);
    }
    return r;
}

/* Who the peer must be. */
static bool name_peer(SSL *ssl, const char *host)
{
    static const unsigned char ours[] = "\x08http/1.1";
    X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    SSL_set_alpn_protos(ssl, ours, sizeof ours - 1);
    if (X509_VERIFY_PARAM_set1_ip_asc(param, host) == 1) {
        return true;
    }
    ERR_clear_error();
    return SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1;
}

int mu_tls_client_new(struct mu_tls_conf **trust, const char *host, struct mu_tls **ret)
{
    struct mu_tls *t = NULL;
    int r = new_filter(*trust, &t);
    if (r < 0) {
        return r;
    }
    SSL_set_connect_state(t->ssl);
    if (!name_peer(t->ssl, host)) {
        ERR_clear_error();
        mu_tls_free(t);
        return MU_E_INVALID;
    }
    t->trust = mu_steal(trust);
    *ret = t;
    return 0;
}

const char *mu_tls_fault(const struct mu_tls *t)
{
    long v = SSL_get_verify_result(t->ssl);
    if (v != X509_V_OK) {
        return X509_verify_cert_error_string(v);
    }
    const char *text = t->error ? ERR_reason_error_string(t->error) : NULL;
    return text ? text : "the connection ended in the handshake";
}

struct mu_tls *mu_tls_free(struct mu_tls *t)
{
    if (t) {
        SSL_free(t->ssl);
        mu_tls_conf_free(t->trust);
        mu_buf_fini(&t->out);
        mu_free(t);
    }
    return NULL;
}

void mu_tls_feed(struct mu_tls *t, mu_bytes cipher)
{
    t->in = cipher;
}

ptrdiff_t mu_tls_read(struct mu_tls *t, char *dst, size_t size)
{
    if (t->failed) {
        return MU_E_PROTOCOL;
    }
    ERR_clear_error();
    int n = SSL_read(t->ssl, dst, (int)MU_MIN(size, (size_t)INT_MAX));
    if (n > 0) {
        return n;
    }
    int e = SSL_get_error(t->ssl, n);
    t->error = e == SSL_ERROR_WANT_READ ? 0 : ERR_peek_last_error();
    ERR_clear_error();
    if (e == SSL_ERROR_WANT_READ) {
        if (t->trust && !t->verified && SSL_is_init_finished(t->ssl)) {
            t->verified = true;
            forget_roots(t);
        }
        return 0;
    }
    t->in = MU_B_NONE;
    if (e == SSL_ERROR_ZERO_RETURN) {
        return MU_E_CLOSED;
    }
    t->failed = true;
    return MU_E_PROTOCOL;
}

int mu_tls_write(struct mu_tls *t, mu_bytes plain)
{
    if (t->failed || !SSL_is_init_finished(t->ssl)) {
        return MU_E_PROTOCOL;
    }
    ERR_clear_error();
    while (plain.len > 0) {
        int n = SSL_write(t->ssl, plain.ptr, (int)MU_MIN(plain.len, (size_t)INT_MAX));
        if (n <= 0) {
            ERR_clear_error();
            t->failed = true;
            return t->out.failed == -ENOMEM ? -ENOMEM : MU_E_PROTOCOL;
        }
        plain = mu_bytes_from(plain, (size_t)n);
    }
    return 0;
}

bool mu_tls_ready(const struct mu_tls *t)
{
    return SSL_is_init_finished(t->ssl);
}

void mu_tls_bye(struct mu_tls *t)
{
    if (!t->failed && SSL_is_init_finished(t->ssl)) {
        SSL_shutdown(t->ssl);
        ERR_clear_error();
    }
}

struct mu_buf *mu_tls_out(struct mu_tls *t)
{
    return &t->out;
}
