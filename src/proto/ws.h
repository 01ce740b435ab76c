/* WebSocket frames (RFC 6455, no extensions): an incremental parser and the parts of a writer.
 * Pure: bytes in, events out. */
#ifndef MU_PROTO_WS_H
#define MU_PROTO_WS_H

#include "base/bytes.h"

enum mu_ws_opcode {
    MU_WS_MORE_OF = 0, /* continuation */
    MU_WS_TEXT = 1,
    MU_WS_BINARY = 2,
    MU_WS_CLOSE = 8,
    MU_WS_PING = 9,
    MU_WS_PONG = 10,
};

enum {
    MU_WS_HEADER_MAX = 14,
    MU_WS_CONTROL_MAX = 125,
    /* Codes of a close frame. */
    MU_WS_NORMAL = 1000,
    MU_WS_GOING_AWAY = 1001,
    MU_WS_PROTOCOL = 1002,
    MU_WS_NO_CODE = 1005,  /* never sent: the peer's close frame had none */
    MU_WS_ABNORMAL = 1006, /* never sent: there was no close frame */
    MU_WS_BAD_TEXT = 1007,
    MU_WS_TOO_LARGE = 1009,
    MU_WS_INTERNAL = 1011,
};

enum mu_ws_event {
    MU_WS_EV_MORE,  /* wants more bytes */
    MU_WS_EV_DATA,  /* piece, text, last */
    MU_WS_EV_PING,  /* piece is the payload */
    MU_WS_EV_PONG,  /* the same */
    MU_WS_EV_CLOSE, /* code (MU_WS_NO_CODE when there was none); piece is the reason */
    MU_WS_EV_ERROR, /* code to close with; fault says why */
};

/* Read what the event names; the rest is the parser's own. */
struct mu_ws_parser {
    mu_bytes
        piece; /* of a message: in the input; of a control frame: in here, until the next one */
    const char *fault;
    uint64_t max_message, left, total; /* left of the frame; payload of the message so far */
    uint16_t code;
    bool text, last;

    bool server, fin, in_message;
    uint8_t phase, op, head_at, head_len, mask_at, control_at;
    uint8_t utf8_need, utf8_lo, utf8_hi;
    unsigned char mask[4];
    unsigned char head[MU_WS_HEADER_MAX];
    char control[MU_WS_CONTROL_MAX];
};

/* `server`: the frames come from a client, so they are masked. */
void mu_ws_parser_init(struct mu_ws_parser *p, bool server, uint64_t max_message);
/* Consumes a prefix of the input (*ret_used bytes) up to the next event; unmasks in place. Any cut
 * of the same bytes gives the same events, but for how a message is cut into pieces. Messages are
 * checked as UTF-8 as they come: what is in a piece is well-formed, up to a character that goes on
 * in the next one. After CLOSE and ERROR nothing more is read: the event is given again. */
enum mu_ws_event mu_ws_parse(struct mu_ws_parser *p, char *in, size_t len, size_t *ret_used);

/* Writes a header in the shortest form and returns its length; `mask` NULL = not masked. */
size_t mu_ws_header(unsigned char dst[MU_WS_HEADER_MAX], enum mu_ws_opcode op, bool fin,
                    uint64_t len, const unsigned char mask[4]);
/* Masks or unmasks in place; `at` is the position of the first byte in its frame. */
void mu_ws_mask(char *data, size_t len, const unsigned char mask[4], size_t at);
/* Whether a close frame may carry the code. */
bool mu_ws_code_ok(unsigned code);

#endif
