/* What the files of the client WebSocket share.
 *
 *   sock ── one connection: who it is, what waits to be sent
 *     ├── sub ── a session that it follows: a cursor over the log
 *     │     └── term ── a terminal of it: a stream of chunks
 *     ├── org_sub ── an org that it follows: a member of the loop's hub for that org
 *     └── runner_sub ── a runner that it follows
 *
 * What a subscription has to read from the database or the recordings it reads when it has the
 * connection's turn: one after the other, and only while the connection takes what is sent. So a
 * connection never holds more than one page. Everything lives on the connection's loop; a sock
 * stays until all that it began is over. */
#ifndef MU_FACE_LIVE_SOCKET_INT_H
#define MU_FACE_LIVE_SOCKET_INT_H

#include "face/live/chunks.h"
#include "face/live/cursor.h"
#include "face/live/live_face.h"
#include "net/ws.h"

enum {
    MU_SOCK_UNKNOWN_MESSAGE = 16 << 10, /* bytes that who is not known may send at once */
    MU_SOCK_WAITING = 1 << 20,          /* terminal bytes that wait for one connection */
    MU_SOCK_TAIL = 256 << 10,           /* of a terminal's past, when nothing else is asked for */
    MU_SOCK_TERMINALS = 8,
    MU_SOCK_INPUT = 65536, /* bytes of one terminal_input */
    MU_SOCK_ASKS = 256,    /* orders of one connection that are under way */
    MU_SOCK_ASK_BYTES = 1 << 20,
    MU_SOCK_MESSAGE_ID = 128,
    MU_SOCK_EVENT = 1 << 20, /* bytes of all messages about one event */
};

/* Close codes of specification README 8. */
enum {
    MU_CLOSE_POLICY = 1008,
    MU_CLOSE_TOO_LARGE = 1009,
    MU_CLOSE_INTERNAL = 1011,
    MU_CLOSE_UNAUTHORIZED = 4401,
    MU_CLOSE_FORBIDDEN = 4403,
    MU_CLOSE_LATE = 4408,
    MU_CLOSE_LIMIT = 4429,
};

#define MU_SOCK_REQUIRED INT64_MIN

struct mu_sub;

struct mu_sock {
    struct mu_sock_face *face;
    struct mu_ws *ws; /* NULL: it is gone */
    struct mu_loop *loop;
    unsigned refs;
    struct mu_id id;
    struct mu_principal who;
    struct mu_credential credential;
    bool authenticated, counted; /* counted: among its user's connections */
    bool busy;                   /* mu_sock_run() is on the stack */
    unsigned malformed, n_subs, asks;
    size_t ask_bytes;
    int64_t budget_us;      /* of messages: theoretical arrival time (GCRA) */
    struct mu_buf *reading; /* a message that comes in pieces */
    struct mu_timer check, flush;
    struct mu_list subs, queue; /* queue: subs that want the turn */
    struct mu_list orgs, runners;
    struct mu_sub *turn;
    struct mu_chunks chunks;
};

/* What a subscription still has to read. */
enum { MU_NEED_SHOT = 1, MU_NEED_EVENTS = 2, MU_NEED_END = 4, MU_NEED_TERMS = 8 };

struct mu_sub_term {
    struct mu_sub *sub;
    struct mu_chunk_stream stream;
    unsigned number, tries;
    bool live;           /* its bytes come from the feed */
    bool reading, again; /* again: what is being read is not wanted any more */
    bool began;          /* a first read found out where it is */
    int64_t next;        /* the next byte to queue; -1: the last ones */
    int64_t seen;        /* the feed was so far while it was not live */
    int64_t left_ms[2];  /* when something small left at once, the older one first */
    int64_t target;      /* how far it was when it began: until there nothing is skipped */
    struct mu_terminal_read op;
};

struct mu_sub {
    struct mu_sock *s;
    struct mu_list link, queue;
    struct mu_id id;
    char org[MU_ORG_LEN + 1];
    struct mu_cursor cursor;
    bool alias, plain, usage, binary; /* plain: without a terminal */
    bool opened, closing, reading;    /* opened: the cursor is; reading: it has the turn for it */
    bool controls;                    /* it was given control of the terminals */
    bool ends; /* the log is at its end: `completed` follows the last bytes of the terminals */
    unsigned needs, under_way;
    int64_t since; /* -1: from the snapshot on */
    char *reply_to;
    struct mu_buf held; /* of a page that did not fit */
    struct mu_sub_term *terms[MU_SOCK_TERMINALS];
};

struct mu_hub;

struct mu_org_sub {
    struct mu_sock *s;
    struct mu_list link, member; /* of the connection, of the hub */
    struct mu_hub *hub;
    char org[MU_ORG_LEN + 1]; /* "*": all */
    bool gap;                 /* something was left out, which it has not been told */
};

/* What a list shows of a session; text ptr NULL: it is not there any more. */
struct mu_org_row {
    mu_bytes text;
    bool native; /* only listed when asked for */
};

/* A message of the client, as its handler sees it. */
struct mu_sock_msg {
    struct mu_sock *s;
    yyjson_val *root;
    mu_bytes id; /* messageId or ptr NULL */
};

/* --- socket.c --- */
void mu_sock_ref(struct mu_sock *s);
void mu_sock_unref(struct mu_sock *s);
/* More waits to leave than should. */
bool mu_sock_full(const struct mu_sock *s);
void mu_sock_close(struct mu_sock *s, int code, const char *reason);
/* Who it is from now on; says so, or closes the connection. */
void mu_sock_login(struct mu_sock *s, const struct mu_credential *credential,
                   const struct mu_principal *who, mu_bytes reply_to);
/* 0, or why this bearer may not use the socket: MU_E_UNAUTHORIZED, MU_E_FORBIDDEN … */
MU_MUST_USE int mu_sock_resolve(struct mu_sock_face *f, const struct mu_credential *c,
                                struct mu_principal *ret);
bool mu_sock_operates(const struct mu_sock *s); /* more than a viewer */

/* --- socket_out.c: messages to the client --- */
struct mu_sock_out {
    struct mu_buf buf;
    struct mu_json_w w;
};
/* {"type":… */
struct mu_json_w *mu_sock_begin(struct mu_sock_out *o, const char *type);
/* … "timestamp", "replyTo"? } and off it goes. */
void mu_sock_end(struct mu_sock *s, struct mu_sock_out *o, mu_bytes reply_to);
/* {"type":"event","event":…,"data":{ : then members, and mu_sock_event_end(). */
struct mu_json_w *mu_sock_event(struct mu_sock_out *o, const char *event);
void mu_sock_event_end(struct mu_sock *s, struct mu_sock_out *o, mu_bytes reply_to);
void mu_sock_error(struct mu_sock *s, mu_bytes reply_to, const char *code, const char *fmt, ...)
    MU_PRINTF(4, 5);
/* `details`: JSON. */
void mu_sock_error_details(struct mu_sock *s, mu_bytes reply_to, const char *code, mu_bytes details,
                           const char *text);
/* The error for one of our codes, in an operation on a session. */
void mu_sock_fail(struct mu_sock *s, mu_bytes reply_to, int code);

/* --- socket_in.c: messages of the client --- */
/* "x-messages" of openapi.json: what each message may be answered with. */
void mu_sock_describe(struct mu_json_w *w);
void mu_sock_message(struct mu_sock *s, mu_bytes text);
/* Not one of ours: three in a row end the connection. */
void mu_sock_malformed(struct mu_sock *s, mu_bytes reply_to, const char *why);

/* --- socket_sub.c --- */
struct mu_sub *mu_sock_find(const struct mu_sock *s, const struct mu_id *id);
void mu_sock_subscribe(struct mu_sock_msg *m, bool alias);
void mu_sock_unsubscribe(struct mu_sock_msg *m);
void mu_sub_close(struct mu_sub *sub);
/* Whether it may follow one thing more; false: answered. */
bool mu_sock_room(struct mu_sock_msg *m);
/* It has something to read: when its turn comes. */
void mu_sub_want(struct mu_sub *sub, unsigned need);
/* What it did with its turn is over. */
void mu_sub_did(struct mu_sub *sub);
/* An operation ended: false when the subscription went meanwhile. */
bool mu_sub_returned(struct mu_sub *sub);
/* Lets those read that want to; the connection takes more. */
void mu_sock_run(struct mu_sock *s);
void mu_sock_writable(struct mu_sock *s);

/* --- socket_shot.c: a session as it is --- */
MU_MUST_USE int mu_shot_read(struct mu_sub *sub);
/* The end of a session: `completed`. */
MU_MUST_USE int mu_shot_end(struct mu_sub *sub);
/* The snapshot was sent: the log from `last_seq` (or sub->since) on follows. False: it was closed.
 */
bool mu_sub_begin(struct mu_sub *sub, int64_t last_seq, bool ended);

/* --- socket_events.c: events as messages; several in a row, each with a head of its own --- */
enum { MU_ONLY_ALIAS = 1, MU_ONLY_USAGE = 2, MU_ONLY_PLAIN = 4 };
/* Any thread. */
void mu_frames_event(struct mu_buf *dst, const struct mu_id *session, const char *org,
                     const struct mu_session_event *e);
void mu_frames_gate(struct mu_buf *dst, const struct mu_id *session,
                    const struct mu_gate_row *row); /* one that waits */
void mu_frames_completed(struct mu_buf *dst, const struct mu_id *session,
                         const struct mu_session_view *v);
/* The messages of an event of the feed, made once for all; NULL: no memory. */
struct mu_msg *mu_frames_of(const struct mu_sub *sub, struct mu_event *e);
/* Sends those that the subscription gets, as many as fit; returns the bytes that are done with. */
size_t mu_frames_send(struct mu_sub *sub, mu_bytes frames, bool all);

/* The message for who follows the org, made once for all; `row`: of a session's state. NULL: no
 * memory. */
const struct mu_msg *mu_frames_of_org(struct mu_event *e, const struct mu_org_row *row);
bool mu_frames_have_org(struct mu_event *e);
/* Its text. */
mu_bytes mu_frame_text(const struct mu_msg *m);

/* --- socket_org.c --- */
void mu_sock_subscribe_org(struct mu_sock_msg *m);
void mu_sock_unsubscribe_org(struct mu_sock_msg *m);
void mu_sock_subscribe_runner(struct mu_sock_msg *m);
void mu_sock_unsubscribe_runner(struct mu_sock_msg *m);
/* Something happened there; or it is not known what. */
void mu_org_deliver(struct mu_org_sub *sub, mu_bytes text);
void mu_org_gap(struct mu_org_sub *sub);
/* The connection takes more; it ends; its rights may have changed. */
void mu_orgs_writable(struct mu_sock *s);
void mu_orgs_close(struct mu_sock *s);
void mu_orgs_check(struct mu_sock *s);

/* --- socket_hub.c --- */
MU_MUST_USE int mu_hub_join(struct mu_org_sub *sub);
void mu_hub_leave(struct mu_org_sub *sub);

/* --- socket_term.c --- */
/* Shows terminal `number` from the byte `from` (-1 = the last ones) on. -ENOMEM */
MU_MUST_USE int mu_term_open(struct mu_sub *sub, unsigned number, int64_t from);
void mu_term_free(struct mu_sub_term *t);
void mu_term_delta(struct mu_sub *sub, struct mu_event *e);
/* Reads what one of the terminals still lacks; false: none does just now. */
bool mu_terms_read(struct mu_sub *sub);
/* Everything that there is of them has left. */
bool mu_terms_shown(const struct mu_sub *sub);
/* Nothing follows any more: what waits for more bytes leaves. */
void mu_terms_over(struct mu_sub *sub);
/* Forgets what waits. */
void mu_terms_drop(struct mu_sub *sub);
/* Sends what waits; only full chunks unless `all`. */
void mu_sock_flush(struct mu_sock *s, bool all);

/* --- socket_ask.c: what the client wants done --- */
void mu_sock_input(struct mu_sock_msg *m);
void mu_sock_resize(struct mu_sock_msg *m);
void mu_sock_resolve_approval(struct mu_sock_msg *m);
void mu_sock_ack(struct mu_sock_msg *m);
void mu_sock_take_control(struct mu_sock_msg *m);
void mu_sock_release_control(struct mu_sock_msg *m);
/* It does not follow that session any more. */
void mu_sock_let_go(struct mu_sock *s, const struct mu_id *session);
/* Asks who has control, and says so if somebody has; says that somebody (or nobody) has. */
void mu_sock_ask_control(struct mu_sub *sub);
void mu_sock_control(struct mu_sock *s, const struct mu_id *session, mu_bytes uid,
                     mu_bytes reply_to);

/* Members of a message. Each answers INVALID_MESSAGE (or SESSION_NOT_FOUND) and returns false. */
bool mu_sock_session(struct mu_sock_msg *m, struct mu_id *ret);
/* A number between min and max; `fallback` when it is not there, or MU_SOCK_REQUIRED. */
bool mu_sock_number(struct mu_sock_msg *m, const char *key, int64_t min, int64_t max,
                    int64_t fallback, int64_t *ret);
/* A text of at most `max` bytes; ptr NULL when it is not there, which `required` refuses. */
bool mu_sock_text(struct mu_sock_msg *m, const char *key, size_t max, bool required, mu_bytes *ret);

#endif
