#include "proto/ws.h"

#include "base/encode.h"

enum phase { PHASE_HEAD, PHASE_DATA, PHASE_CONTROL, PHASE_CLOSED, PHASE_ERROR };

enum { FIN = 0x80, RESERVED = 0x70, OPCODE = 0x0f, MASKED = 0x80, LENGTH = 0x7f, CONTROL = 8 };

void mu_ws_parser_init(struct mu_ws_parser *p, bool server, uint64_t max_message)
{
    *p = (struct mu_ws_parser){.server = server, .max_message = max_message, .head_len = 2};
}

static enum mu_ws_event fail(struct mu_ws_parser *p, unsigned code, const char *fault)
{
    p->phase = PHASE_ERROR;
    p->code = (uint16_t)code;
    p->fault = fault;
    p->piece = MU_B_NONE;
    return MU_WS_EV_ERROR;
}

/* --- text --- */

/* What may follow a first byte: how many more, and the range of the next one. */
static bool utf8_first(struct mu_ws_parser *p, unsigned char c)
{
    p->utf8_lo = 0x80;
    p->utf8_hi = 0xbf;
    if (c >= 0xc2 && c <= 0xdf) {
        p->utf8_need = 1;
    } else if (c >= 0xe0 && c <= 0xef) {
        p->utf8_need = 2;
        p->utf8_lo = c == 0xe0 ? 0xa0 : 0x80; /* no overlongs */
        p->utf8_hi = c == 0xed ? 0x9f : 0xbf; /* no surrogates */
    } else if (c >= 0xf0 && c <= 0xf4) {
        p->utf8_need = 3;
        p->utf8_lo = c == 0xf0 ? 0x90 : 0x80;
        p->utf8_hi = c == 0xf4 ? 0x8f : 0xbf; /* at most U+10FFFF */
    } else {
        return false;
    }
    return true;
}

static size_t skip_ascii(const char *s, size_t len)
{
    size_t i = 0;
    uint64_t word;
    while (i + sizeof word <= len) {
        memcpy(&word, s + i, sizeof word);
        if (word & UINT64_C(0x8080808080808080)) {
            break;
        }
        i += sizeof word;
    }
    while (i < len && !((unsigned char)s[i] & 0x80)) {
        i++;
    }
    return i;
}

static bool utf8_goes_on(struct mu_ws_parser *p, const char *s, size_t len)
{
    size_t i = 0;
    while (i < len) {
        if (p->utf8_need == 0) {
            i += skip_ascii(s + i, len - i);
            if (i < len && !utf8_first(p, (unsigned char)s[i++])) {
                return false;
            }
            continue;
        }
        unsigned char c = (unsigned char)s[i++];
        if (c < p->utf8_lo || c > p->utf8_hi) {
            return false;
        }
        p->utf8_need--;
        p->utf8_lo = 0x80;
        p->utf8_hi = 0xbf;
    }
    return true;
}

/* --- payload --- */

/* The frame's header and what there is of its payload were taken; `piece` is a part of a message.
 */
static enum mu_ws_event data_event(struct mu_ws_parser *p, mu_bytes piece)
{
    if (p->text && !utf8_goes_on(p, piece.ptr, piece.len)) {
        return fail(p, MU_WS_BAD_TEXT, "a text message is not UTF-8");
    }
    p->last = p->fin && p->left == 0;
    if (p->last && p->text && p->utf8_need > 0) {
        return fail(p, MU_WS_BAD_TEXT, "a text message ends inside a character");
    }
    if (p->left == 0) {
        p->phase = PHASE_HEAD;
    }
    if (p->last) {
        p->in_message = false;
        p->total = 0;
    }
    p->piece = piece;
    return piece.len > 0 || p->last ? MU_WS_EV_DATA : MU_WS_EV_MORE;
}

static enum mu_ws_event take_data(struct mu_ws_parser *p, char *in, size_t len, size_t *at)
{
    size_t n = p->left < len - *at ? (size_t)p->left : len - *at;
    char *piece = in + *at;
    if (p->server) {
        mu_ws_mask(piece, n, p->mask, p->mask_at);
        p->mask_at = (uint8_t)((p->mask_at + n) & 3);
    }
    *at += n;
    p->left -= n;
    return data_event(p, mu_bytes_of(piece, n));
}

bool mu_ws_code_ok(unsigned code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
           (code >= 3000 && code <= 4999);
}

static enum mu_ws_event close_event(struct mu_ws_parser *p)
{
    mu_bytes reason = mu_bytes_from(p->piece, 2);
    if (p->piece.len == 1) {
        return fail(p, MU_WS_PROTOCOL, "a close frame of one byte");
    }
    unsigned code = MU_WS_NO_CODE;
    if (p->piece.len > 0) {
        code = (unsigned)(unsigned char)p->control[0] << 8 | (unsigned char)p->control[1];
        if (!mu_ws_code_ok(code)) {
            return fail(p, MU_WS_PROTOCOL, "a close frame with a code that must not be sent");
        }
        if (!mu_utf8_valid(reason)) {
            return fail(p, MU_WS_BAD_TEXT, "the reason of a close frame is not UTF-8");
        }
    }
    p->phase = PHASE_CLOSED;
    p->code = (uint16_t)code;
    p->piece = reason;
    return MU_WS_EV_CLOSE;
}

static enum mu_ws_event control_event(struct mu_ws_parser *p)
{
    p->phase = PHASE_HEAD;
    p->piece = mu_bytes_of(p->control, p->control_at);
    if (p->server) {
        mu_ws_mask(p->control, p->control_at, p->mask, 0);
    }
    return p->op == MU_WS_CLOSE  ? close_event(p)
           : p->op == MU_WS_PING ? MU_WS_EV_PING
                                 : MU_WS_EV_PONG;
}

static enum mu_ws_event take_control(struct mu_ws_parser *p, const char *in, size_t len, size_t *at)
{
    size_t n = p->left < len - *at ? (size_t)p->left : len - *at;
    memcpy(p->control + p->control_at, in + *at, n);
    p->control_at = (uint8_t)(p->control_at + n);
    *at += n;
    p->left -= n;
    return p->left == 0 ? control_event(p) : MU_WS_EV_MORE;
}

/* --- headers --- */

/* Judged as soon as the first two bytes are there, so that no cut of the input matters. */
static const char *first_fault(const struct mu_ws_parser *p)
{
    unsigned op = p->head[0] & OPCODE, length = p->head[1] & LENGTH;
    bool fin = p->head[0] & FIN, masked = p->head[1] & MASKED;
    if (p->head[0] & RESERVED) {
        return "a reserved bit is set";
    }
    if (masked != p->server) {
        return p->server ? "a frame of a client is not masked" : "a frame of a server is masked";
    }
    switch (op) {
    case MU_WS_MORE_OF:
        return p->in_message ? NULL : "a continuation without a message";
    case MU_WS_TEXT:
    case MU_WS_BINARY:
        return p->in_message ? "a message inside another" : NULL;
    case MU_WS_CLOSE:
    case MU_WS_PING:
    case MU_WS_PONG:
        return !fin                         ? "a control frame in parts"
               : length > MU_WS_CONTROL_MAX ? "a control frame that is too long"
                                            : NULL;
    default:
        return "an unknown opcode";
    }
}

static uint64_t number(const unsigned char *s, size_t len)
{
    uint64_t v = 0;
    for (size_t i = 0; i < len; i++) {
        v = v << 8 | s[i];
    }
    return v;
}

/* The payload's length; false when it was not written in the shortest way. */
static bool length_of(const struct mu_ws_parser *p, uint64_t *ret)
{
    unsigned length = p->head[1] & LENGTH;
    if (length < 126) {
        *ret = length;
        return true;
    }
    *ret = number(p->head + 2, length == 126 ? 2 : 8);
    return length == 126 ? *ret > 125 : *ret > 0xffff && *ret <= INT64_MAX;
}

static enum mu_ws_event head_done(struct mu_ws_parser *p)
{
    if (!length_of(p, &p->left)) {
        return fail(p, MU_WS_PROTOCOL, "a length that is not in its shortest form");
    }
    unsigned op = p->head[0] & OPCODE;
    if (p->server) {
        memcpy(p->mask, p->head + p->head_len - sizeof p->mask, sizeof p->mask);
    }
    p->head_at = 0;
    p->head_len = 2;
    if (op & CONTROL) {
        p->op = (uint8_t)op;
        p->phase = PHASE_CONTROL;
        p->control_at = 0;
        return p->left == 0 ? control_event(p) : MU_WS_EV_MORE;
    }
    if (p->left > p->max_message || p->total > p->max_message - p->left) {
        return fail(p, MU_WS_TOO_LARGE, "the message is too large");
    }
    p->fin = p->head[0] & FIN;
    p->total += p->left;
    p->mask_at = 0;
    p->phase = PHASE_DATA;
    if (op != MU_WS_MORE_OF) {
        p->text = op == MU_WS_TEXT;
        p->in_message = true;
        p->utf8_need = 0;
    }
    return p->left == 0 ? data_event(p, MU_B("")) : MU_WS_EV_MORE;
}

static enum mu_ws_event take_head(struct mu_ws_parser *p, unsigned char c)
{
    p->head[p->head_at++] = c;
    if (p->head_at == 2) {
        const char *fault = first_fault(p);
        if (fault) {
            return fail(p, MU_WS_PROTOCOL, fault);
        }
        unsigned length = c & LENGTH;
        unsigned more = length == 127 ? 8 : length == 126 ? 2 : 0;
        p->head_len = (uint8_t)(2 + more + (p->server ? (unsigned)sizeof p->mask : 0));
    }
    return p->head_at == p->head_len ? head_done(p) : MU_WS_EV_MORE;
}

enum mu_ws_event mu_ws_parse(struct mu_ws_parser *p, char *in, size_t len, size_t *ret_used)
{
    enum mu_ws_event ev = p->phase == PHASE_CLOSED  ? MU_WS_EV_CLOSE
                          : p->phase == PHASE_ERROR ? MU_WS_EV_ERROR
                                                    : MU_WS_EV_MORE;
    size_t at = 0;
    while (ev == MU_WS_EV_MORE && at < len) {
        if (p->phase == PHASE_HEAD) {
            ev = take_head(p, (unsigned char)in[at++]);
        } else if (p->phase == PHASE_DATA) {
            ev = take_data(p, in, len, &at);
        } else {
            ev = take_control(p, in, len, &at);
        }
    }
    *ret_used = at;
    return ev;
}

/* --- writing --- */

size_t mu_ws_header(unsigned char dst[MU_WS_HEADER_MAX], enum mu_ws_opcode op, bool fin,
                    uint64_t len, const unsigned char mask[4])
{
    size_t bytes = len < 126 ? 0 : len <= 0xffff ? 2 : 8, at = 2;
    dst[0] = (unsigned char)((fin ? FIN : 0) | (unsigned)op);
    dst[1] = (unsigned char)((mask ? MASKED : 0) | (bytes == 0   ? (unsigned)len
                                                    : bytes == 2 ? 126U
                                                                 : 127U));
    for (size_t i = bytes; i-- > 0;) {
        dst[at++] = (unsigned char)(len >> (8 * i));
    }
    if (mask) {
        memcpy(dst + at, mask, 4);
        at += 4;
    }
    return at;
}

void mu_ws_mask(char *data, size_t len, const unsigned char mask[4], size_t at)
{
    unsigned char turned[8];
    uint64_t key, word;
    size_t i = 0;
    for (size_t k = 0; k < sizeof turned; k++) {
        turned[k] = mask[(at + k) & 3];
    }
    memcpy(&key, turned, sizeof key);
    for (; i + sizeof word <= len; i += sizeof word) {
        memcpy(&word, data + i, sizeof word);
        word ^= key;
        memcpy(data + i, &word, sizeof word);
    }
    for (size_t k = 0; i < len; i++, k++) {
        data[i] = (char)((unsigned char)data[i] ^ turned[k]);
    }
}
