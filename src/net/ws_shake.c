/* The opening handshake: what both ends compute, and what a server looks at. */
#include <errno.h>
#include <openssl/evp.h>

#include "net/ws_int.h"

/* --- what both ends compute --- */

int mu_ws_answer(mu_bytes key, char dst[MU_WS_ACCEPT_LEN + 1])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    char text[24 + sizeof guid];
    unsigned char sha1[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    MU_CHECK(key.len == 24);
    memcpy(text, key.ptr, key.len);
    memcpy(text + key.len, guid, sizeof guid - 1);
    if (!EVP_Digest(text, key.len + sizeof guid - 1, sha1, &len, EVP_sha1(), NULL)) {
        return -ENOMEM; /* the only reason it has */
    }
    EVP_EncodeBlock((unsigned char *)dst, sha1, (int)len);
    return 0;
}

bool mu_ws_has_token(mu_bytes list, const char *token)
{
    while (list.ptr) {
        if (mu_bytes_eq_nocase(mu_bytes_trim(mu_bytes_split(&list, ',')), mu_str(token))) {
            return true;
        }
    }
    return false;
}

/* --- the request --- */

static mu_bytes only_header(const struct mu_http_head *h, const char *name)
{
    mu_bytes found = MU_B_NONE;
    for (size_t i = 0; i < h->n_headers; i++) {
        if (mu_bytes_eq_nocase(h->headers[i].name, mu_str(name))) {
            if (found.ptr) {
                return MU_B_NONE;
            }
            found = h->headers[i].value;
        }
    }
    return found;
}

static bool any_has_token(const struct mu_http_head *h, const char *name, const char *token)
{
    for (size_t i = 0; i < h->n_headers; i++) {
        if (mu_bytes_eq_nocase(h->headers[i].name, mu_str(name)) &&
            mu_ws_has_token(h->headers[i].value, token)) {
            return true;
        }
    }
    return false;
}

static bool key_ok(mu_bytes key)
{
    if (key.len != 24 || !mu_bytes_ends(key, MU_B("=="))) {
        return false;
    }
    for (size_t i = 0; i < 22; i++) {
        char c = key.ptr[i];
        if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
              c == '+' || c == '/')) {
            return false;
        }
    }
    return true;
}

static int refuse(int status, const char *why, const char **ret_why)
{
    *ret_why = why;
    return status;
}

int mu_ws_check(const struct mu_http_head *h, const char **ret_why)
{
    if (h->method != MU_HTTP_GET) {
        return refuse(405, "a WebSocket is opened with GET", ret_why);
    }
    if (!mu_http_header(h, "Upgrade").ptr) {
        return refuse(426, "this path is a WebSocket: send an upgrade request", ret_why);
    }
    if (!any_has_token(h, "Upgrade", "websocket")) {
        return refuse(400, "the Upgrade header must be websocket", ret_why);
    }
    if (!h->upgrade || h->http10) {
        return refuse(400, "an upgrade needs HTTP/1.1 and Connection: Upgrade", ret_why);
    }
    if (h->chunked || h->content_length > 0) {
        return refuse(400, "an upgrade request has no body", ret_why);
    }
    if (!mu_bytes_is(only_header(h, "Sec-WebSocket-Version"), "13")) {
        return refuse(400, "Sec-WebSocket-Version must be 13", ret_why);
    }
    if (!key_ok(only_header(h, "Sec-WebSocket-Key"))) {
        return refuse(400, "Sec-WebSocket-Key must be 16 bytes in base64", ret_why);
    }
    return 0;
}
