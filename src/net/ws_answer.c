/* The answer to a client's handshake: only its header block matters. Strict, since what follows is
 * taken for frames. */
#include <errno.h>

#include "net/ws_client_int.h"

static bool status_line(mu_bytes line, struct mu_ws_reply *r)
{
    int64_t status;
    if (!mu_bytes_starts(line, MU_B("HTTP/1.")) || line.len < 12 || line.ptr[8] != ' ' ||
        (line.ptr[7] != '0' && line.ptr[7] != '1') || (line.len > 12 && line.ptr[12] != ' ') ||
        mu_bytes_i64(mu_bytes_of(line.ptr + 9, 3), &status) < 0 || status < 100 || status > 599) {
        return false;
    }
    r->status = (int)status;
    r->reason = mu_bytes_trim(mu_bytes_from(line, 12));
    return true;
}

static int64_t seconds_ms(mu_bytes value)
{
    int64_t s;
    return mu_bytes_i64(value, &s) == 0 && s >= 0 && s <= 86400 ? s * 1000 : -1;
}

static bool header(mu_bytes line, struct mu_ws_reply *r)
{
    ptrdiff_t colon = mu_bytes_find_char(line, ':');
    if (colon <= 0 || line.ptr[0] == ' ' || line.ptr[0] == '\t') {
        return false;
    }
    mu_bytes name = mu_bytes_head(line, (size_t)colon);
    mu_bytes value = mu_bytes_trim(mu_bytes_from(line, (size_t)colon + 1));
    if (mu_bytes_eq_nocase(name, MU_B("Upgrade"))) {
        r->websocket = mu_bytes_eq_nocase(value, MU_B("websocket"));
    } else if (mu_bytes_eq_nocase(name, MU_B("Connection"))) {
        r->upgrade = r->upgrade || mu_ws_has_token(value, "upgrade");
    } else if (mu_bytes_eq_nocase(name, MU_B("Sec-WebSocket-Accept"))) {
        r->accept = value;
    } else if (mu_bytes_eq_nocase(name, MU_B("Sec-WebSocket-Extensions")) ||
               mu_bytes_eq_nocase(name, MU_B("Sec-WebSocket-Protocol"))) {
        r->extras = r->extras || value.len > 0;
    } else if (mu_bytes_eq_nocase(name, MU_B("Retry-After"))) {
        r->retry_after_ms = seconds_ms(value);
    }
    return true;
}

static bool clean(mu_bytes line)
{
    for (size_t i = 0; i < line.len; i++) {
        unsigned char c = (unsigned char)line.ptr[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return false;
        }
    }
    return true;
}

int mu_ws_reply_parse(mu_bytes in, struct mu_ws_reply *ret)
{
    struct mu_ws_reply r = {.retry_after_ms = -1};
    ptrdiff_t end = mu_bytes_find(in, MU_B("\r\n\r\n"));
    if (end < 0) {
        return in.len < MU_WS_HEAD ? -EAGAIN : MU_E_TOO_LARGE;
    }
    mu_bytes rest = mu_bytes_head(in, (size_t)end + 2);
    bool first = true;
    while (rest.len > 0) {
        ptrdiff_t at = mu_bytes_find(rest, MU_B("\r\n"));
        mu_bytes line = mu_bytes_head(rest, (size_t)at);
        rest = mu_bytes_from(rest, (size_t)at + 2);
        if (!clean(line) || !(first ? status_line(line, &r) : header(line, &r))) {
            return MU_E_PROTOCOL;
        }
        first = false;
    }
    r.body = mu_bytes_from(in, (size_t)end + 4);
    *ret = r;
    return 0;
}
