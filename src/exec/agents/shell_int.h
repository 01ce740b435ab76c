#ifndef MU_EXEC_AGENTS_SHELL_INT_H
#define MU_EXEC_AGENTS_SHELL_INT_H

#include "base/buf.h"
#include "exec/agents/shell.h"

enum { MU_SHELL_WRITES = 64 };

void mu_shell_doubt(struct mu_shell *s, const char *why);
/* NAME=value. One that changes what commands do is a doubt. */
bool mu_shell_assignment(struct mu_shell *s, mu_bytes word);
/* Parses more text into the same list. */
int mu_shell_parse(struct mu_shell *s, mu_bytes text, unsigned depth);
/* shell_unwrap.c: one simple command as it was written, into the list: itself, or what it starts.
 */
int mu_shell_add(struct mu_shell *s, const struct mu_shell_word *words, size_t n, bool piped,
                 bool heredoc, unsigned depth);

#endif
