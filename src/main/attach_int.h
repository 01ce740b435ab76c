/* What the files of `muster attach` share.
 *
 *   attach ── the command: its loop, the keys, how it ends
 *     ├── link: the WebSocket, made again when it breaks
 *     ├── hear: what the server says
 *     └── show: what is written to the terminal */
#ifndef MU_MAIN_ATTACH_INT_H
#define MU_MAIN_ATTACH_INT_H

#include "io/terminal.h"
#include "main/attach_keys.h"
#include "main/screen.h"
#include "main/session_id.h"
#include "net/ws.h"

enum {
    MU_ATTACH_GATES = 32,
    MU_ATTACH_TYPED = 1 << 20, /* bytes that wait to be sent */
    MU_ATTACH_NOTES = 16 << 10,
    MU_EXIT_CANCELLED = 4, /* the session was stopped */
};

struct mu_attach_gate {
    char id[MU_LONG_ID];
};

struct mu_attach {
    struct mu_client *c;
    char id[MU_LONG_ID];
    unsigned terminal;
    bool read_only, tty; /* tty: a person is here; else it is only followed */
    const char *key_name;
    struct mu_keys keys;
    struct mu_loop *loop;

    struct mu_terminal *term;
    struct mu_buf typed; /* not sent yet */
    struct mu_timer send;
    int64_t sent_ms;

    struct mu_ws_dial *dial;
    struct mu_ws *ws;
    struct mu_timer again;   /* the next try; once it is over, the last wait */
    struct mu_buf incoming;  /* a message in pieces */
    int breaks;              /* tries in a row that came to nothing */
    bool subscribed, broken; /* broken: was told */

    struct mu_screen screen;
    struct mu_buf notes; /* until no escape sequence is open */
    int64_t offset;      /* behind the last byte that was shown; -1: none was */
    struct mu_attach_gate gates[MU_ATTACH_GATES]; /* the oldest first */
    size_t n_gates;
    char error[64]; /* the last one that was shown, and when */
    int64_t error_ms;

    bool over;
    int code;
};

/* --- attach.c --- */
/* It ends with this exit code; the first one counts. */
void mu_attach_over(struct mu_attach *a, int code);
void mu_attach_send_size(struct mu_attach *a);
/* Sends what was typed, as much and as often as the server takes. */
void mu_attach_send_typed(struct mu_attach *a);

/* --- attach_link.c --- */
void mu_attach_connect(struct mu_attach *a);
/* {"type":…,"messageId":…,"sessionId":… : then members, and mu_attach_end(). */
struct mu_json_w mu_attach_begin(struct mu_attach *a, struct mu_buf *dst, const char *type,
                                 const char *message_id);
void mu_attach_end(struct mu_attach *a, struct mu_json_w *w);

/* --- attach_hear.c --- */
void mu_attach_hear(struct mu_attach *a, bool text, mu_bytes message);

/* --- attach_end.c --- */
bool mu_attach_is_end(mu_bytes state);
/* The session has ended: shows what is not shown yet, says how (`session` has endReason and
 * errorMessage), and is over. */
void mu_attach_ended(struct mu_attach *a, mu_bytes state, yyjson_val *session);

/* --- attach_show.c --- */
/* Bytes of the terminal, as they are. */
void mu_attach_show(struct mu_attach *a, mu_bytes bytes);
/* A line of ours: above what follows, or on stderr. */
void mu_attach_note(struct mu_attach *a, const char *fmt, ...) MU_PRINTF(2, 3);
void mu_attach_write(struct mu_attach *a, mu_bytes bytes);

#endif
