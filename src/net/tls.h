/* TLS as a filter over bytes: ciphertext in, plaintext out, and back. Does no I/O of its own. */
#ifndef MU_NET_TLS_H
#define MU_NET_TLS_H

#include "base/buf.h"
#include "base/err.h"

/* A certificate and its key, which can be read again while connections use the old ones. */
struct mu_tls_conf;
/* PEM files, the chain behind the certificate. Words in `err`. */
MU_MUST_USE int mu_tls_conf_new(const char *cert_file, const char *key_file,
                                struct mu_tls_conf **ret, struct mu_err *err);
/* Reads the files again and keeps the pair beside the one in use. Blocking; any thread, one at a
 * time. */
MU_MUST_USE int mu_tls_conf_prepare(struct mu_tls_conf *c, struct mu_err *err);
/* Puts what was prepared into use for new connections, or (`use` false) forgets it; nothing when
 * nothing was prepared. Any thread. */
void mu_tls_conf_commit(struct mu_tls_conf *c, bool use);
struct mu_tls_conf *mu_tls_conf_free(struct mu_tls_conf *c);
/* What a client trusts: the certificates of a PEM file, or the system's (NULL). Reads files: not
 * for a loop's thread. Words in `err`. */
MU_MUST_USE int mu_tls_trust_new(const char *ca_file, struct mu_tls_conf **ret, struct mu_err *err);

/* One side of one connection. One thread. */
struct mu_tls;
/* Any thread. -ENOMEM */
MU_MUST_USE int mu_tls_new(struct mu_tls_conf *c, struct mu_tls **ret);
/* The client's side: the peer must have a chain to what is trusted and a certificate for `host` (a
 * name or a numeric address). Takes `trust` (sets it NULL). Call mu_tls_read() once to begin.
 * -ENOMEM, MU_E_INVALID (host). */
MU_MUST_USE int mu_tls_client_new(struct mu_tls_conf **trust, const char *host,
                                  struct mu_tls **ret);
/* Words for what failed; never NULL. */
const char *mu_tls_fault(const struct mu_tls *t);
struct mu_tls *mu_tls_free(struct mu_tls *t);
/* Shows ciphertext to the filter; it must stay until mu_tls_read() returned 0 or an error. */
void mu_tls_feed(struct mu_tls *t, mu_bytes cipher);
/* The next plaintext: its length, 0 = all of what was fed is used up, MU_E_CLOSED after the peer's
 * close_notify, MU_E_PROTOCOL. */
MU_MUST_USE ptrdiff_t mu_tls_read(struct mu_tls *t, char *dst, size_t size);
/* Encrypts all of `plain` into mu_tls_out(). MU_E_PROTOCOL (also before the handshake is done),
 * -ENOMEM. */
MU_MUST_USE int mu_tls_write(struct mu_tls *t, mu_bytes plain);
bool mu_tls_ready(const struct mu_tls *t); /* the handshake is done */
/* Puts a close_notify into mu_tls_out(). */
void mu_tls_bye(struct mu_tls *t);
/* Ciphertext for the peer; the caller consumes it. */
struct mu_buf *mu_tls_out(struct mu_tls *t);

#endif
