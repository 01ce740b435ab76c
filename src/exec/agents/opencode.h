/* OpenCode's own protocol, our side of it (real-parts.md 1): a state machine over the answers and
 * the event stream of `opencode serve`. No processes, no sockets, no clock; part of the static
 * program. It speaks through the callbacks of acp.h, so a session does not see the difference: what
 * is peculiar to OpenCode (a first idle that is not the end, a second one that is late, messages
 * told twice, requests that overtake their tool) ends here.
 *
 * The rules of acp.h hold: what is handed to a callback is valid inside it only, and a callback may
 * call the functions from mu_oc_prompt() to mu_oc_cancel(), no other. */
#ifndef MU_EXEC_AGENTS_OPENCODE_H
#define MU_EXEC_AGENTS_OPENCODE_H

#include "exec/agents/acp.h"

enum {
    MU_OC_ID_MAX = 96,
    MU_OC_EVENT_MAX = 16 << 20, /* of one event, of one answer */
    MU_OC_HEALTH_TRIES = 60,
    MU_OC_MESSAGES = 128, /* of a turn that are known */
    MU_OC_PARTS = 512,
    MU_OC_REREAD = 40, /* messages that are read again when the stream was lost */
    MU_OC_HOLD_MS = 500,
    MU_OC_SILENCE_MS = 20000,
};

/* What is asked for; the caller gives each the time that it thinks right. */
enum mu_oc_call {
    MU_OC_HEALTH, /* the first one of a server may never be answered */
    MU_OC_LOAD,
    MU_OC_CREATE,
    MU_OC_PROMPT,
    MU_OC_ABORT,
    MU_OC_REPLY,
    MU_OC_STATUS,
    MU_OC_PERMISSIONS,
    MU_OC_QUESTIONS,
    MU_OC_READ,
};

/* A question of the agent's own, to be answered by mu_oc_reply(). */
struct mu_oc_question {
    unsigned handle;
    mu_bytes text;
    mu_bytes options; /* JSON: a list of words; ptr NULL = none */
    bool multiple;    /* several may be chosen */
};

struct mu_oc_ops {
    /* A request; ptr NULL = without a body. They are made one after the other, and each is
     * answered with mu_oc_answer() in that order. Not 0: it cannot be taken; the agent is given
     * up. */
    int (*call)(void *arg, enum mu_oc_call call, const char *method, const char *path,
                mu_bytes body);
    /* The event stream is to be opened, and again whenever it ends: mu_oc_event(). */
    void (*listen)(void *arg);
    void (*question)(void *arg, const struct mu_oc_question *q);
    /* Somebody else allowed what is waited for: this question is gone, and the tool runs. */
    void (*foreign)(void *arg, unsigned handle);
};

struct mu_oc_open;
struct mu_oc_message;
struct mu_oc_part;
struct mu_oc {
    const struct mu_acp_ops *tell; /* all but `send` and `noise` */
    const struct mu_oc_ops *ops;
    void *arg;
    enum mu_acp_state state; /* without MU_ACP_MODE */
    struct mu_acp_options opt;
    const char *model; /* provider/model, NULL or another word = the configured one */
    char conversation[MU_OC_ID_MAX];
    char version[64], not_loaded[200];
    bool resumed;
    unsigned tries;
    /* the turn */
    uint64_t turn;
    bool accepted, active, cancelling;
    char newest[MU_OC_ID_MAX]; /* message of the agent */
    bool completed;            /* it is */
    bool asking, again;        /* for the status; and once more */
    bool settle;               /* the status decides, whatever was seen */
    bool heard;
    int64_t heard_at;
    char finish[32], error[480];
    int64_t tokens_in, tokens_out;
    struct mu_oc_message *messages; /* MU_OC_MESSAGES, a ring */
    struct mu_oc_part *parts;       /* MU_OC_PARTS, a ring */
    size_t n_messages, n_parts;
    struct mu_oc_open *open; /* MU_ACP_ASKS */
    size_t n_open;
    unsigned last_handle;
    struct mu_rows rows;
    struct mu_buf out, scratch, words;
    struct mu_jtok json;
    uint64_t garbage, ignored; /* events that were no JSON; without meaning */
    struct mu_err err;         /* why it is BROKEN */
};

/* Takes `opt` and `model` (their texts must stay). -ENOMEM. */
MU_MUST_USE int mu_oc_init(struct mu_oc *o, const struct mu_acp_ops *tell,
                           const struct mu_oc_ops *ops, void *arg, const struct mu_acp_options *opt,
                           const char *model);
void mu_oc_fini(struct mu_oc *o); /* also of a zeroed one */

/* The server listens. Once. 0, or the code of o->err: it is BROKEN. */
MU_MUST_USE int mu_oc_start(struct mu_oc *o);
/* The answer to the oldest request that has none; status 0 = none came. As mu_oc_start(). */
MU_MUST_USE int mu_oc_answer(struct mu_oc *o, enum mu_oc_call call, int status, mu_bytes body);
/* The data of one event. As mu_oc_start(). */
MU_MUST_USE int mu_oc_event(struct mu_oc *o, mu_bytes data);
/* Time goes by: at least once in mu_oc_patience() ms. As mu_oc_start(). */
MU_MUST_USE int mu_oc_tick(struct mu_oc *o, int64_t now_ms);
int64_t mu_oc_patience(const struct mu_oc *o);

/* As mu_acp_prompt(). */
MU_MUST_USE int mu_oc_prompt(struct mu_oc *o, mu_bytes text);
/* As mu_acp_answer(): allowed is always once, since OpenCode's own "always" covers more than what
 * was asked. A refusal with words is given to the model, which goes on; one without ends the turn.
 */
MU_MUST_USE int mu_oc_decide(struct mu_oc *o, unsigned handle, enum mu_acp_decision d,
                             const char *words);
/* An answer to a question, JSON: a text, a list of texts, or an object with one of them as
 * `answer`, `answers` or `text`. Empty or anything else: it is dismissed. MU_E_NOT_FOUND. */
MU_MUST_USE int mu_oc_reply(struct mu_oc *o, unsigned handle, mu_bytes answer);
/* As mu_acp_cancel(). */
MU_MUST_USE int mu_oc_cancel(struct mu_oc *o);

#endif
