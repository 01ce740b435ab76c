/* Shared by the formats (cliformat_formats.c) and the reader (cliformat.c). */
#ifndef MU_EXEC_CLIFORMAT_INT_H
#define MU_EXEC_CLIFORMAT_INT_H

#include "exec/cliformat.h"
#include "proto/json.h"

#define MU_CLI_HASH_START UINT64_C(0xcbf29ce484222325)

struct mu_cli_reader {
    void (*on_line)(struct mu_cli_reader *r, yyjson_val *line); /* NULL: plain text */
    int (*on_delta)(void *arg, mu_bytes text);
    void *arg;
    size_t max_line;
    struct mu_buf line, answer;
    bool has_answer;
    bool spoke, gap; /* text was delivered; the next text begins a new message */
    size_t streamed; /* bytes of the present message that came as deltas, and their hash */
    uint64_t streamed_hash;
    char part[80]; /* id of the part that `streamed` belongs to (OpenCode, Claude) */
    int failed;
    struct mu_cli_verdict verdict;
};

/* Words of the agent, behind a blank line when a new message began. */
void mu_cli_deliver(struct mu_cli_reader *r, mu_bytes text);
/* A streamed piece of the present message. */
void mu_cli_deliver_delta(struct mu_cli_reader *r, mu_bytes text);
/* A whole message: only what deltas did not deliver already. */
void mu_cli_deliver_whole(struct mu_cli_reader *r, mu_bytes text);
void mu_cli_message_begins(struct mu_cli_reader *r);
void mu_cli_session(struct mu_cli_reader *r, mu_bytes id);
void mu_cli_failed(struct mu_cli_reader *r, mu_bytes why);
void mu_cli_recovered(struct mu_cli_reader *r);

void mu_cli_claude_line(struct mu_cli_reader *r, yyjson_val *line);
void mu_cli_codex_line(struct mu_cli_reader *r, yyjson_val *line);
void mu_cli_opencode_line(struct mu_cli_reader *r, yyjson_val *line);
void mu_cli_gemini_line(struct mu_cli_reader *r, yyjson_val *line);

#endif
