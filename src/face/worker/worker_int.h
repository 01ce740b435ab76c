/* Shared by the files of this folder. */
#ifndef MU_FACE_WORKER_WORKER_INT_H
#define MU_FACE_WORKER_WORKER_INT_H

#include "face/oz/oz.h"
#include "face/worker/worker.h"
#include "net/ws.h"
#include "proto/jsoncut.h"

enum {
    MU_LINK_ASSIGNS = 32,      /* assignments whose way to the socket is followed */
    MU_LINK_STRING = 64 << 10, /* a longer string is not kept whole, but for the output */
    MU_LINK_STRING_NATIVE = 1 << 20,
    MU_LINK_BINARY_HEAD = 32,
    MU_LINK_BINARY = MU_LINK_BINARY_HEAD + (64 << 10),
    MU_LINK_MESSAGE = 4 << 20, /* all the rest of a message */
    MU_LINK_TEXT = 64 << 10,   /* message of a terminal report */
};

struct mu_link_assign {
    struct mu_id session;
    int64_t end; /* queued bytes up to its last one */
};

/* A message that did not come in one piece. */
struct mu_link_reading {
    struct mu_jsoncut cut;
    struct mu_buf text;
    struct mu_clip output;
    bool has_output;
    int failed;
};

/* One connection; on its loop. */
struct mu_link {
    struct mu_peer peer;
    struct mu_worker_face *face;
    struct mu_ws *ws;     /* NULL: not open (any more) */
    struct mu_call *call; /* until it was upgraded or refused */
    struct mu_admission admission;
    struct mu_timer timer; /* hello, probe */
    int64_t probe_ms;      /* loop time of the probe; 0 = none */
    int64_t queued;        /* payload bytes handed to the socket's queue so far */
    struct mu_link_reading *reading;
    struct mu_buf binary;           /* of a frame that did not come in one piece */
    struct mu_link_assign *assigns; /* the last ones, made with the first */
    unsigned n_assigns, probes;
    bool native, said_hello;
    bool removed; /* it is opened only to be told that the worker was deregistered */
    struct mu_fleet_register enrol;
    char *name;
};

/* decode.c */
/* A whole message. `captured`: its output, when it was too long to stay in the text, else NULL. */
void mu_link_decode(struct mu_link *l, mu_bytes text, struct mu_clip *captured);
/* A whole binary frame: codes of a message. */
MU_MUST_USE int mu_link_binary(struct mu_link *l, mu_bytes frame);
void mu_link_protocol_error(struct mu_link *l, const char *what);
/* artifacts.c: what a worker calls artifacts, in the SDK's shape. */
MU_MUST_USE int mu_link_artifacts(const struct mu_env *env, yyjson_val *list, int64_t now_ms,
                                  struct mu_report *r);
/* encode.c: appends the frame of an order; a cancel of an unknown dialect is two. */
void mu_link_encode(const struct mu_worker_face *face, const struct mu_order *o,
                    struct mu_buf *first, struct mu_buf *second);
/* list.c */
void mu_worker_list(struct mu_call *c);

static inline struct mu_worker_face *mu_worker_face_at(struct mu_call *c)
{
    return ((struct mu_oz *)mu_call_app(c))->workers;
}

#endif
