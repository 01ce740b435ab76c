/* What a shell command runs, as far as that can be said without running it: the argument lists of
 * its simple commands, those in substitutions, behind sudo, env, xargs, `sh -c` and their like
 * included. Whatever is not understood for certain makes the whole `uncertain`; what was understood
 * is listed all the same. Pure; part of the static program. */
#ifndef MU_EXEC_AGENTS_SHELL_H
#define MU_EXEC_AGENTS_SHELL_H

#include "base/arena.h"

enum {
    MU_SHELL_TEXT_MAX = 64 << 10,
    MU_SHELL_COMMANDS = 256,
    MU_SHELL_WORDS = 1024, /* of all commands together, each level anew */
    MU_SHELL_DEPTH = 8,
};

struct mu_shell_word {
    mu_bytes text;
    bool dynamic; /* an expansion is part of it: its value is not known */
};
struct mu_shell_command {
    struct mu_shell_word *words; /* words[0] is the program, without its path */
    size_t n;
    bool piped;  /* its input is what the command before it says */
    bool script; /* a shell that takes its script from its input */
    bool starts; /* what follows in the list: sudo, env, xargs and their like */
};
struct mu_shell {
    struct mu_arena *arena;
    struct mu_shell_command *commands;
    size_t n;
    mu_bytes *writes; /* files that redirections write to */
    size_t n_writes;
    bool uncertain;
    const char *why; /* the first reason */
};

/* Everything lies in the arena. -ENOMEM. */
MU_MUST_USE int mu_shell_read(struct mu_arena *arena, mu_bytes text, struct mu_shell *ret);

#endif
