#ifndef MU_EXEC_AGENTS_ACP_INT_H
#define MU_EXEC_AGENTS_ACP_INT_H

#include "exec/agents/acp.h"
#include "proto/json_write.h"

enum { MU_ACP_OPTION_MAX = 256, MU_ACP_KINDS = 4 };

struct mu_acp_open_ask {
    unsigned handle;
    char id[MU_ACP_ID_MAX];                       /* JSON, as it came */
    char option[MU_ACP_KINDS][MU_ACP_OPTION_MAX]; /* JSON of optionId by kind; "" = not offered */
};

/* Gives the agent up; returns `code`. */
int mu_acp_break(struct mu_acp *a, int code, const char *fmt, ...) MU_PRINTF(3, 4);
/* a->out is begun with {"jsonrpc":"2.0" and ended with } and a line end; then it is sent. */
void mu_acp_begin(struct mu_acp *a, struct mu_json_w *w);
int mu_acp_end(struct mu_acp *a, struct mu_json_w *w);
/* An error as the answer to a request whose id is `id` (JSON). */
int mu_acp_refuse(struct mu_acp *a, mu_bytes id, int code, const char *text);

/* acp_update.c */
int mu_acp_update(struct mu_acp *a, int params);
/* The row of a tool call object, made when it is not there, with what the object says. NULL: no
 * memory. */
struct mu_acp_tool *mu_acp_row(struct mu_acp *a, int call);

/* acp_ask.c */
int mu_acp_asked(struct mu_acp *a, int id, int params);
/* The command of a tool's input, as text; ptr NULL: it says none. Uses a->scratch. */
mu_bytes mu_acp_command(struct mu_acp *a, int input, struct mu_buf *dst);
/* The agent takes a request back. */
void mu_acp_taken_back(struct mu_acp *a, int params);
/* Nobody waits any more; with a word to the caller. */
void mu_acp_asks_drop(struct mu_acp *a);

/* Copies a string value, cut between characters when it is too long. */
void mu_acp_copy(struct mu_acp *a, int v, char *dst, size_t cap);

#endif
