/* The output formats of agents run as command-line providers: their JSON lines become text deltas
 * and a final answer (issue "the ground" 6, real-parts.md 1-3). Pure. */
#ifndef MU_EXEC_CLIFORMAT_H
#define MU_EXEC_CLIFORMAT_H

#include "base/buf.h"
#include "base/err.h"

enum mu_cli_format {
    MU_CLI_TEXT,
    MU_CLI_CLAUDE_STREAM_JSON, /* claude -p --output-format stream-json --verbose
                                  [--include-partial-messages] */
    MU_CLI_CODEX_JSON,         /* codex exec --json */
    MU_CLI_OPENCODE_JSON,      /* opencode run --format json */
    MU_CLI_GEMINI_JSON,        /* gemini --output-format stream-json */
};
/* The word of OZ_PROVIDER_<KEY>_CLI_FORMAT; MU_E_INVALID. */
MU_MUST_USE int mu_cli_format_parse(mu_bytes word, enum mu_cli_format *ret);
const char *mu_cli_format_name(enum mu_cli_format f);

struct mu_cli_verdict {
    bool failed; /* the agent itself said that it failed (result is_error, turn.failed, error) */
    bool rate_limited;
    bool truncated;
    int64_t tokens_in, tokens_out;
    int denied;       /* tool calls that were refused (claude: permission_denials) */
    char session[80]; /* the agent's own session or thread id, "" if unknown */
    char text[500];   /* why it failed */
};

struct mu_cli_reader;
/* `on_delta` gets the words of the agent: streamed pieces where the format has them, else whole
 * messages separated by a blank line. A line that is no JSON, or of an unknown type, is
 * skipped; a line longer than max_line_bytes is MU_E_TOO_LARGE. */
MU_MUST_USE int mu_cli_reader_new(enum mu_cli_format format, size_t max_line_bytes,
                                  int (*on_delta)(void *arg, mu_bytes text), void *arg,
                                  struct mu_cli_reader **ret);
struct mu_cli_reader *mu_cli_reader_free(struct mu_cli_reader *r);
MU_MUST_USE int mu_cli_reader_feed(struct mu_cli_reader *r, mu_bytes piece);
/* stdout ended. *ret_answer: the final answer where the format names one (claude "result"), else
 * ptr NULL: then what went to on_delta is the answer. Valid until free. */
MU_MUST_USE int mu_cli_reader_end(struct mu_cli_reader *r, struct mu_cli_verdict *ret,
                                  mu_bytes *ret_answer);

/* Whether what a command-line agent said means that it was rate limited (oz-providers.md 7): whole
 * words ("rate limit", "too many requests", …) or 429 as a status; not a 429 inside a number, a
 * port or a line number. */
bool mu_cli_rate_limited(mu_bytes text);

#endif
