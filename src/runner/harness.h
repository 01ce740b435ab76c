/* Which agent program runs and how it is called for one prompt (oz-worker.md 13.2, 13.5). Pure but
 * for the environment it is handed. */
#ifndef MU_RUNNER_HARNESS_H
#define MU_RUNNER_HARNESS_H

#include "base/bytes.h"
#include "base/err.h"

enum mu_harness {
    MU_HARNESS_CLAUDE,
    MU_HARNESS_CODEX,
    MU_HARNESS_GEMINI,
    MU_HARNESS_OPENCODE,
    MU_HARNESS_SHELL,  /* the prompt is a script of /bin/sh */
    MU_HARNESS_CUSTOM, /* OZ_SIDECAR_CUSTOM_CMD, a shell command that reads the prompt on stdin */
};
const char *mu_harness_name(enum mu_harness h);

/* Where the choice comes from, in this order; NULL or empty = not given. `oz` names no program and
 * counts as not given. */
struct mu_harness_hints {
    const char *env, *arg; /* harness words */
    const char *model;     /* contains claude, codex or gemini */
    const char *fallback;  /* a harness word */
};
/* MU_E_INVALID (worded) when nothing matches or a word is unknown. */
MU_MUST_USE int mu_harness_choose(const struct mu_harness_hints *hints, enum mu_harness *ret,
                                  struct mu_err *err);

/* From so many bytes on a prompt is no argument: one of 131,072 cannot be started at all. */
enum { MU_PROMPT_ARG_MAX = 96 << 10, MU_HARNESS_WORDS = 64 };

struct mu_harness_cmd {
    const char *argv[MU_HARNESS_WORDS + 8]; /* NULL-terminated */
    bool prompt_on_stdin;
    char *words;  /* memory of some of argv */
    char *prompt; /* a copy with a NUL; NULL when it is not an argument */
};
/* `get` looks a variable up (OZ_SIDECAR_<NAME>_CMD, _ARGS); `script` is the file that a shell
 * prompt lies in. MU_E_INVALID (worded: no custom command, too many words), -ENOMEM. */
MU_MUST_USE int mu_harness_command(enum mu_harness h, mu_bytes prompt, const char *script,
                                   const char *(*get)(const char *name), struct mu_harness_cmd *ret,
                                   struct mu_err *err);
void mu_harness_cmd_fini(struct mu_harness_cmd *cmd);

#endif
