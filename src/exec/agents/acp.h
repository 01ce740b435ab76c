/* The Agent Client Protocol, our side of it (real-parts.md 5): a state machine over lines of JSON.
 * No processes, no time, no threads; part of the static program. What differs between agents ends
 * here: ids of any JSON type, tool rows that nobody announced, options by kind, history that is
 * told again.
 *
 * Everything handed to a callback is valid inside it only. A callback may call mu_acp_prompt(),
 * mu_acp_answer() and mu_acp_cancel(), not mu_acp_feed() or mu_acp_fini(). */
#ifndef MU_EXEC_AGENTS_ACP_H
#define MU_EXEC_AGENTS_ACP_H

#include "base/buf.h"
#include "base/err.h"
#include "exec/agents/rows.h"
#include "proto/jtok.h"

enum {
    MU_ACP_LINE_MAX = 16 << 20,
    MU_ACP_ID_MAX = MU_ROW_ID_MAX,
    MU_ACP_ASKS = 32, /* permissions that are open at once; one more is refused */
    MU_ACP_TEXT_MAX = MU_ROW_TEXT_MAX,
};

/* A permission that is waited for. */
struct mu_acp_ask {
    unsigned handle; /* 1, 2, 3 … */
    const struct mu_acp_tool *tool;
    mu_bytes command; /* what a shell would be given; ptr NULL = not said */
    mu_bytes url;     /* ptr NULL = none */
    mu_bytes exact;   /* the request as it came: JSON */
    mu_bytes subject; /* what is the same when the same is asked for again; ptr NULL = unknown */
};

struct mu_acp_info {
    mu_bytes agent, version; /* ptr NULL = not said */
    mu_bytes conversation;
    bool resumed;        /* session/load */
    mu_bytes not_loaded; /* why not, when a conversation was to be loaded; ptr NULL otherwise */
    bool no_model;       /* the model that is wanted is not among those that it offers */
};

struct mu_acp_usage {
    int64_t tokens_in, tokens_out; /* of this turn; -1 = not said */
};

enum mu_acp_outcome { MU_ACP_DONE, MU_ACP_ERROR, MU_ACP_CANCELLED };

struct mu_acp_ops {
    /* One whole line with its end. Not 0: it cannot be taken; the agent is given up. */
    int (*send)(void *arg, mu_bytes line);
    void (*ready)(void *arg, const struct mu_acp_info *info);
    void (*text)(void *arg, bool thought, mu_bytes text);
    void (*tool)(void *arg, const struct mu_acp_tool *tool);
    void (*ask)(void *arg, const struct mu_acp_ask *ask);
    /* Nobody waits for this one any more: the turn is over, or the agent took it back. */
    void (*ask_gone)(void *arg, unsigned handle);
    /* Updates worth forwarding as they are: plan, usage_update, current_mode_update. */
    void (*update)(void *arg, mu_bytes kind, mu_bytes json);
    /* A turn is over. `reason`: stopReason, or the words of the error. */
    void (*turn)(void *arg, enum mu_acp_outcome outcome, mu_bytes reason,
                 const struct mu_acp_usage *usage);
    /* A line that is no JSON, or its first part. */
    void (*noise)(void *arg, mu_bytes line);
};

struct mu_acp_options {
    const char *cwd;          /* absolute */
    const char *conversation; /* to be loaded; NULL or "" = a new one */
    const char *mode;         /* chosen when the agent offers it; NULL = as it is */
    const char *version;      /* ours */
    const char *model; /* chosen when the agent offers it by this name; NULL or "" = its own */
};

enum mu_acp_state {
    MU_ACP_NEW,
    MU_ACP_INITIALIZING,
    MU_ACP_OPENING, /* session/load or session/new */
    MU_ACP_MODE,    /* session/set_mode */
    MU_ACP_MODEL,   /* session/set_model, session/set_config_option */
    MU_ACP_READY,
    MU_ACP_PROMPTED,
    MU_ACP_BROKEN,
};

struct mu_acp_open_ask;
struct mu_acp {
    const struct mu_acp_ops *ops;
    void *arg;
    enum mu_acp_state state;
    struct mu_acp_options opt;
    char conversation[MU_ACP_ID_MAX];
    char agent[128], version[64];
    char not_loaded[200];
    bool loading, can_load, resumed, cancelling, no_model;
    char model[MU_ACP_ID_MAX], model_option[MU_ACP_ID_MAX]; /* to be chosen, and what is set for it:
                                                               "" = session/set_model */
    int64_t last_id, wait_id;                               /* ours; wait_id 0 = none */
    struct mu_buf line, out, scratch, scratch2;
    struct mu_jtok json;
    struct mu_acp_open_ask *asks; /* MU_ACP_ASKS */
    size_t n_asks;
    unsigned last_handle;
    struct mu_rows rows;
    uint64_t garbage, ignored; /* lines that were no JSON; messages without meaning */
    struct mu_err err;         /* why it is BROKEN */
};

/* Takes `opt` (its texts must stay). -ENOMEM. */
MU_MUST_USE int mu_acp_init(struct mu_acp *a, const struct mu_acp_ops *ops, void *arg,
                            const struct mu_acp_options *opt);
/* Also of a zeroed one. */
void mu_acp_fini(struct mu_acp *a);
/* Says initialize. Once. Errors as mu_acp_feed(). */
MU_MUST_USE int mu_acp_start(struct mu_acp *a);
/* Bytes of the agent's output, in any pieces. 0, or the code of a->err once it is BROKEN: a line
 * above MU_ACP_LINE_MAX or beyond the bounds of jtok, an answer that makes no sense, an error to
 * what it was asked at the start, no memory, what send() said. */
MU_MUST_USE int mu_acp_feed(struct mu_acp *a, mu_bytes piece);
/* A turn; only in READY, else MU_E_CONFLICT. */
MU_MUST_USE int mu_acp_prompt(struct mu_acp *a, mu_bytes text);
/* MU_E_NOT_FOUND: nobody waits for it. A kind of answer that the agent does not offer becomes
 * "cancelled". */
enum mu_acp_decision { MU_ACP_ALLOW, MU_ACP_DENY, MU_ACP_CANCEL };
MU_MUST_USE int mu_acp_answer(struct mu_acp *a, unsigned handle, enum mu_acp_decision d);
/* Asks for the end of the turn and answers what is open with "cancelled" (each is gone, without a
 * call of ask_gone). Nothing when there is no turn. */
MU_MUST_USE int mu_acp_cancel(struct mu_acp *a);

/* Appends a word as a shell would write it, behind those that are there. */
void mu_acp_word(struct mu_buf *dst, mu_bytes word);

#endif
