/* Frames give the same events however they are cut; messages are well-formed and within the limit.
 * The first byte chooses the side that reads. */
#include "base/encode.h"
#include "fuzz.h"
#include "proto/ws.h"

enum { MAX_MESSAGE = 300 };

struct reader {
    struct mu_ws_parser parser;
    struct mu_buf log;     /* of whole events */
    struct mu_buf message; /* the one that is under way */
};

static void note(struct reader *r, enum mu_ws_event ev)
{
    struct mu_ws_parser *p = &r->parser;
    switch (ev) {
    case MU_WS_EV_DATA:
        mu_buf_add(&r->message, p->piece);
        MU_CHECK(r->message.len <= MAX_MESSAGE);
        if (p->last) {
            MU_CHECK(!p->text || mu_utf8_valid(mu_buf_bytes(&r->message)));
            mu_buf_add_char(&r->log, p->text ? 't' : 'b');
            mu_buf_add_i64(&r->log, (int64_t)r->message.len);
            mu_buf_add(&r->log, mu_buf_bytes(&r->message));
            mu_buf_clear(&r->message);
        }
        break;
    case MU_WS_EV_PING:
    case MU_WS_EV_PONG:
        MU_CHECK(p->piece.len <= MU_WS_CONTROL_MAX);
        mu_buf_add_char(&r->log, ev == MU_WS_EV_PING ? 'i' : 'o');
        mu_buf_add(&r->log, p->piece);
        break;
    case MU_WS_EV_CLOSE:
        MU_CHECK(mu_utf8_valid(p->piece));
        MU_CHECK(p->code == MU_WS_NO_CODE || mu_ws_code_ok(p->code));
        mu_buf_printf(&r->log, "c%u", p->code);
        mu_buf_add(&r->log, p->piece);
        break;
    case MU_WS_EV_ERROR:
        MU_CHECK(p->fault && mu_ws_code_ok(p->code));
        mu_buf_printf(&r->log, "e%u%s", p->code, p->fault);
        break;
    default:
        break;
    }
}

static bool feed(struct reader *r, mu_bytes piece)
{
    /* its own memory: it is unmasked in place, and nothing behind it may be read */
    char *copy = malloc(piece.len ? piece.len : 1), *at = copy;
    enum mu_ws_event ev = MU_WS_EV_MORE;
    memcpy(copy, piece.ptr, piece.len);
    while (piece.len > 0 && ev != MU_WS_EV_CLOSE && ev != MU_WS_EV_ERROR) {
        size_t used = 0;
        ev = mu_ws_parse(&r->parser, at, piece.len, &used);
        MU_CHECK(used <= piece.len && (used > 0 || ev != MU_WS_EV_MORE));
        at += used;
        piece = mu_bytes_from(piece, used);
        note(r, ev);
    }
    free(copy);
    return ev != MU_WS_EV_CLOSE && ev != MU_WS_EV_ERROR;
}

static void read_all(struct reader *r, bool server, mu_bytes in, unsigned seed)
{
    mu_ws_parser_init(&r->parser, server, MAX_MESSAGE);
    mu_buf_init(&r->log, 64 << 20);
    mu_buf_init(&r->message, 1 << 20);
    if (seed == 0 && in.len) {
        feed(r, in);
    }
    while (seed && in.len && feed(r, fuzz_piece(&in, &seed))) {
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mu_bytes in = fuzz_bytes(data, size);
    bool server = fuzz_byte(&in) & 1;
    struct reader whole, cut;
    read_all(&whole, server, in, 0);
    read_all(&cut, server, in, (unsigned)size + 1);
    MU_CHECK(mu_bytes_eq(mu_buf_bytes(&whole.log), mu_buf_bytes(&cut.log)));
    mu_buf_fini(&whole.log);
    mu_buf_fini(&whole.message);
    mu_buf_fini(&cut.log);
    mu_buf_fini(&cut.message);
    return 0;
}
