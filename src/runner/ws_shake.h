/* The client's part of a WebSocket handshake without a TLS or crypto library: for the static
 * program (RFC 6455 4.1). Pure. */
#ifndef MU_RUNNER_WS_SHAKE_H
#define MU_RUNNER_WS_SHAKE_H

#include "base/buf.h"

enum {
    MU_SHA1_LEN = 20,
    MU_SHAKE_KEY_LEN = 24,    /* base64 of 16 bytes */
    MU_SHAKE_ACCEPT_LEN = 28, /* base64 of a SHA-1 */
    MU_SHAKE_HEAD_MAX = 16 << 10,
};

/* Only what the protocol asks for: SHA-1 protects nothing. */
void mu_sha1(mu_bytes data, unsigned char ret[MU_SHA1_LEN]);
/* What the server has to answer to a key. */
void mu_shake_accept(const char key[MU_SHAKE_KEY_LEN + 1], char ret[MU_SHAKE_ACCEPT_LEN + 1]);

struct mu_shake_answer {
    int status;    /* of the answer, 100 to 599 */
    size_t length; /* of its head: what follows belongs to the connection */
};
/* Reads the head of the answer. 1: it is whole; with status 101 everything else is as it must be
 * for `accept`. 0: it is not whole yet. MU_E_PROTOCOL: no HTTP, or a 101 that does not fit;
 * MU_E_TOO_LARGE. */
MU_MUST_USE int mu_shake_read(mu_bytes raw, const char *accept, struct mu_shake_answer *ret);

#endif
