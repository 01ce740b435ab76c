/* A live session: its link, its agent, its turns, its questions, its terminals
 * (docs/runner-protocol.md). Everything happens in the runner's one loop; what needs a child of its
 * own (git) is only noted down while something is served and done between two turns of the loop. */
#ifndef MU_RUNNER_LIVE_INT_H
#define MU_RUNNER_LIVE_INT_H

#include "base/id.h"
#include "base/ring.h"
#include "exec/agents/acp.h"
#include "exec/agents/policy.h"
#include "runner/live.h"
#include "runner/live_checkpoint.h"
#include "runner/live_link.h"
#include "runner/live_serve.h"
#include "runner/push.h"
#include "runner/runner_int.h"

enum {
    MU_TERMS = 8,
    MU_TERM_KEEP = 4 << 20,
    MU_TERM_WINDOW = 128 << 10, /* other terminals wait behind it */
    MU_TERM_INPUT = 256 << 10,
    MU_TERM_OUTPUT = 64 << 10, /* for the file with the output: written together */
    MU_LIVE_ID = 64,           /* of turns, questions, requests */
    MU_LIVE_QUESTIONS = MU_ACP_ASKS,
    MU_LIVE_REMEMBER = 64, /* turns that are over, questions that were answered */
    MU_LIVE_SEGMENT = 128 << 10,
    MU_LIVE_PROMPT = 1 << 20,
    MU_LIVE_DIFFS = 8, /* that wait to be made */
    MU_LIVE_AGENT_OUT = 4 << 20,
    MU_LIVE_EXACT = 8 << 10,
    MU_LIVE_KEY = 4 << 10,
    MU_LIVE_CLEAN = 64 << 20,
    MU_LIVE_COMMANDS = 64,
    MU_LIVE_APPROVED = 4,
    MU_LIVE_APPROVED_MAX = 4096,
};

struct mu_term {
    int fd;    /* -1: no program */
    pid_t pid; /* 0: none, or gone */
    bool open; /* there is something to be seen or typed into */
    bool ended;
    int wstatus;
    int64_t drain_until;
    unsigned cols, rows;
    struct mu_ring ring;
    int64_t sent, acked;
    int64_t sent_at, hold_until; /* 0: nothing is held back */
    struct mu_redact_stream stream;
    int64_t shown_at; /* when what may be a secret's beginning is shown; 0: there is none */
    bool to_file;     /* what came last belongs into the output */
    struct mu_buf in;
    bool floods;   /* there was more to read than a turn takes */
    unsigned echo; /* turns in which what was typed may be answered */
};

enum mu_turn_step { MU_TURN_NONE, MU_TURN_WAITS, MU_TURN_RUNS, MU_TURN_OVER };
struct mu_turn {
    enum mu_turn_step step;
    char id[MU_LIVE_ID];
    struct mu_buf prompt;
    struct mu_buf segment; /* words that are no message yet */
    bool thought;          /* of which kind */
    int64_t offset[2];     /* text, thought */
    struct mu_buf stream;  /* not sent yet */
    struct mu_redact_stream secrets;
    bool said_thought; /* of which kind what is in `secrets` is */
    int64_t stream_at;
    bool stream_thought;
    bool cancel;
    int64_t kill_at; /* the agent did not end it; 0 = not asked */
    bool refused;    /* the last thing that happened was a refusal */
    unsigned explained;
    uint64_t refused_at; /* by the agent's messages about tools */
    char refusal[1200];
    const char *outcome;
    char reason[512];
    bool failed_by_agent; /* `reason` is an error */
};

struct mu_question {
    char id[MU_ID_LEN + 1]; /* "" = free */
    unsigned handle;
    bool own;                         /* the agent asks for words, not for a permission */
    uint64_t command;                 /* for mu_live_command_allowed() */
    char sends[MU_LIVE_APPROVED_MAX]; /* the command that sends work away; "" = it does not */
    char what[200];
};

/* A command of this turn's tools. */
struct mu_live_command {
    uint64_t id; /* 0: free */
    enum { MU_COMMAND_WAITS, MU_COMMAND_RUNS, MU_COMMAND_OVER } step;
    bool asked, allowed;
    int64_t at;
    char call[MU_ROW_ID_MAX];
};

enum mu_agent_step { MU_AGENT_NONE, MU_AGENT_STARTING, MU_AGENT_READY, MU_AGENT_GONE };
struct mu_agent {
    enum mu_agent_step step;
    pid_t pid;
    int in, out, err;  /* -1 = closed */
    bool ended, again; /* it is gone; it is to be started again */
    int wstatus;
    int64_t drain_until, kill_at;
    struct mu_buf tell; /* not written yet */
    struct mu_acp acp;
    bool spoke;             /* acp is there, or serve */
    struct mu_serve *serve; /* OpenCode's own protocol; NULL = ACP */
    char no_serve[200];     /* why it is not tried again */
    char conversation[MU_ACP_ID_MAX];
};

/* The session is about to hibernate, perhaps. */
enum mu_hold_step { MU_HOLD_NONE, MU_HOLD_WANTED, MU_HOLD_TAKING, MU_HOLD_SAID };
struct mu_hold {
    enum mu_hold_step step;
    char request[MU_LIVE_ID];
    int64_t number /* of the checkpoint */, until;
    bool stopped; /* the agent stands still for it */
    bool stood;   /* since its checkpoint began to be taken */
    bool kept;    /* that was said: the session may go on elsewhere */
};

struct mu_live {
    struct mu_runner *r;
    struct mu_watch watch;
    struct mu_link link;
    struct mu_term terms[MU_TERMS];
    struct mu_buf output; /* not in the file yet */
    struct mu_buf clean;  /* for a moment: what a terminal may show */
    struct mu_buf words;  /* the same, of the agent's words */
    int64_t output_at;    /* when it is written at the latest; 0: there is none */
    struct mu_agent agent;
    struct mu_turn turn, next; /* next: its id and prompt only */
    struct mu_question questions[MU_LIVE_QUESTIONS];
    char over[MU_LIVE_REMEMBER][MU_LIVE_ID];
    char answered[MU_LIVE_REMEMBER][MU_LIVE_ID];
    size_t n_over, n_answered;
    struct mu_guard guard;
    struct mu_push push;
    char approved[MU_LIVE_APPROVED][MU_LIVE_APPROVED_MAX]; /* by people, for once, in this turn */
    size_t n_approved;
    char session[MU_LIVE_ID], harness[32], load[MU_ACP_ID_MAX], model[256];
    int64_t epoch;
    bool told; /* init came once */
    bool interactive, skip_permissions;
    const char *phase;
    struct {
        char id[MU_LIVE_ID];
        bool patch;
    } diffs[MU_LIVE_DIFFS];
    size_t n_diffs;
    struct mu_ck *ckpt;
    struct mu_hold hold;
    struct mu_live_command running[MU_LIVE_COMMANDS];
    size_t n_running;
    char heads[MU_CHECKOUTS_MAX][65]; /* the newest commit that was told of each checkout */
    struct {
        char id[MU_LIVE_ID];
        unsigned terminal;
    } opened[MU_LIVE_REMEMBER]; /* requests for terminals */
    size_t n_opened;
    int64_t tokens_in, tokens_out, calls; /* of the session; -1 = not known */
    int64_t tick_at, busy_ms, busy_from;  /* usage */
    int64_t files, commands, asked;
    uint64_t term_bytes;
    char tool_line[256]; /* the tool that was shown last, and how it stood */
    int64_t wrote_ms;    /* when a program in a terminal wrote last */
    bool done;           /* the loop is over */
    int status;
    int exit_status; /* of a program with the screen for itself; 1 = another agent's turn failed */
    char message[480];
    int64_t term_at; /* stopping: when the agent gets TERM; 0 = not stopping */
    bool stop_told;
    int who[MU_WATCH_FDS]; /* whose the polled descriptors are */
};

/* live.c */
void mu_live_end(struct mu_live *v, int status, const char *fmt, ...) MU_PRINTF(3, 4);
mu_bytes mu_live_fit(mu_bytes text, size_t escaped); /* the first part that is no longer as JSON */
void mu_live_event(struct mu_live *v, const char *type, mu_bytes data);
struct mu_id mu_live_uuid(void);
/* An alert for people; more members may be added in between. `b` is initialised and ended. */
void mu_live_alert_begin(struct mu_json_w *w, struct mu_buf *b, const char *severity,
                         const char *category, const char *title, const char *description);
void mu_live_alert_end(struct mu_live *v, struct mu_json_w *w, struct mu_buf *b);

/* live_cmd.c: messages of the server. */
void mu_live_message(void *arg, const struct mu_jtok *j);

/* live_agent.c */
void mu_agent_init(struct mu_agent *a);
int mu_agent_start(struct mu_live *v); /* 0, or the status to end with (told) */
void mu_agent_write(struct mu_live *v);
void mu_agent_read(struct mu_live *v);
void mu_agent_read_err(struct mu_live *v);
void mu_agent_broken(struct mu_live *v); /* acp gave it up */
void mu_agent_kill(struct mu_live *v, int sig);
/* Its end was seen: what was left is read, and who waits for it is told. */
void mu_agent_gone(struct mu_live *v);
void mu_agent_fini(struct mu_live *v);
/* What is spoken with it: as the functions of acp.h. */
enum mu_acp_state mu_agent_state(const struct mu_live *v);
uint64_t mu_agent_touches(const struct mu_live *v);
MU_MUST_USE int mu_agent_prompt(struct mu_live *v, mu_bytes text);
MU_MUST_USE int mu_agent_cancel(struct mu_live *v);
/* `words`: why it is refused, for agents that take that. */
void mu_agent_decide(struct mu_live *v, unsigned handle, enum mu_acp_decision d, const char *words);
void mu_agent_reply(struct mu_live *v, unsigned handle, mu_bytes answer); /* JSON */
extern const struct mu_acp_ops mu_live_acp;                               /* live_turn.c */

/* live_turn.c */
void mu_turn_prompt(struct mu_live *v, const char *id, mu_bytes content);
void mu_turn_ready(struct mu_live *v, const struct mu_acp_info *info); /* NULL: no ACP */
void mu_turn_begin(struct mu_live *v); /* the agent is ready, or the terminal is */
void mu_turn_stream(struct mu_live *v);
void mu_turn_segment(struct mu_live *v);
void mu_turn_abort(struct mu_live *v);
void mu_turn_over(struct mu_live *v, const char *outcome, const char *reason, bool error);
void mu_turn_complete(struct mu_live *v); /* after the changes were told */
void mu_turn_tool(struct mu_live *v, const struct mu_acp_tool *t, const char *note);

/* live_command.c: a tool was heard of; `allowed`: it may run now. Other kinds are ignored. */
void mu_live_command(struct mu_live *v, const struct mu_acp_tool *t, bool allowed);
/* It waits for a permission; what mu_live_command_allowed() is told when a person gives it. */
uint64_t mu_live_command_asks(struct mu_live *v, const struct mu_acp_tool *t);
void mu_live_command_allowed(struct mu_live *v, uint64_t id);
void mu_live_commands_over(struct mu_live *v); /* with the turn */

/* live_gate.c */
void mu_live_ask(void *arg, const struct mu_acp_ask *ask);
void mu_live_ask_gone(void *arg, unsigned handle);
/* Work would be sent away, by whatever runs in here; mu_push_decide() is told. */
void mu_gate_push(struct mu_live *v, unsigned handle, mu_bytes command);
void mu_gate_answer(struct mu_live *v, const struct mu_jtok *j, int answer);
/* A question that the server thinks open. */
void mu_gate_pending(struct mu_live *v, const char *id);
void mu_gate_close_all(struct mu_live *v);
void mu_live_question(void *arg, const struct mu_oc_question *q);
void mu_live_foreign(void *arg, unsigned handle);

/* live_hold.c */
void mu_hold_begin(struct mu_live *v, const char *request);
void mu_hold_end(struct mu_live *v); /* the agent goes on */
bool mu_hold_due(const struct mu_live *v);
void mu_hold_take(struct mu_live *v); /* runs git */
void mu_hold_told(struct mu_live *v, int64_t number, bool ok);
void mu_hold_watch(struct mu_live *v, int64_t now);

/* live_term.c */
void mu_term_init(struct mu_term *t);
void mu_term_fini(struct mu_term *t);
/* Without the secrets, and with `file` into the file with the output as well. */
void mu_term_put(struct mu_live *v, unsigned n, mu_bytes b, bool file);
/* 0 or -errno; `argv` NULL = a shell. */
int mu_term_start(struct mu_live *v, unsigned n, const char *const *argv, int in, unsigned cols,
                  unsigned rows);
void mu_term_type(struct mu_live *v, unsigned n, mu_bytes b);
void mu_term_close(struct mu_live *v, unsigned n);
void mu_term_gone(struct mu_live *v, unsigned n);
bool mu_term_may_read(const struct mu_live *v, unsigned n);
void mu_term_read(struct mu_live *v, unsigned n);
void mu_term_echoes(struct mu_live *v);
void mu_term_write(struct mu_live *v, unsigned n);
void mu_term_pump(struct mu_live *v);
void mu_term_output_flush(struct mu_live *v);

/* live_view.c: what terminal 0 shows of an agent without a screen. */
void mu_view_prompt(struct mu_live *v, mu_bytes text);
void mu_view_words(struct mu_live *v, bool thought, mu_bytes text);
void mu_view_tool(struct mu_live *v, const struct mu_acp_tool *t);
void mu_view_note(struct mu_live *v, const char *colour, const char *fmt, ...) MU_PRINTF(3, 4);

/* live_diff.c; both run git. */
void mu_diff_summary(struct mu_live *v);
void mu_diff_answer(struct mu_live *v);
void mu_diff_ready(struct mu_live *v); /* WORKSPACE_READY */

#endif
