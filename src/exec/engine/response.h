/* One HTTP/1.1 response, read as it comes: llhttp in strict mode plus limits. Pure: bytes in,
 * callbacks out. For engines on a socket of the machine's owner, not for the open network. */
#ifndef MU_EXEC_ENGINE_RESPONSE_H
#define MU_EXEC_ENGINE_RESPONSE_H

#include <llhttp.h>

#include "base/bytes.h"
#include "base/err.h"

enum {
    MU_RESPONSE_HEAD = 32 << 10, /* bytes of status line and header fields */
    MU_RESPONSE_VALUE = 64,      /* of a field that is kept */
};

struct mu_response {
    llhttp_t ll;
    llhttp_settings_t settings;
    bool head_request, complete;
    int failed;
    int status;
    size_t head_bytes;
    char name[24], value[MU_RESPONSE_VALUE]; /* of the field being read, cut to the room */
    size_t name_len, value_len;
    bool in_value;
    char api_version[16];
    bool libpod; /* it says that it is Podman */
    /* The header block is complete (interim answers are passed over). Negative: gives up with it.
     */
    int (*on_head)(void *arg, const struct mu_response *r);
    int (*on_body)(void *arg, mu_bytes piece);
    void *arg;
};

/* Sets everything but the two callbacks and arg. `head_request`: no body follows whatever the
 * fields say. */
void mu_response_init(struct mu_response *r, bool head_request);
/* 0 = more is wanted, 1 = complete (what follows is nobody's); MU_E_PROTOCOL, MU_E_TOO_LARGE (head)
 * or what a callback returned. */
MU_MUST_USE int mu_response_feed(struct mu_response *r, mu_bytes in);
/* The connection ended: 1 = complete (a body without a length), MU_E_CLOSED = cut off. */
MU_MUST_USE int mu_response_end(struct mu_response *r);

#endif
