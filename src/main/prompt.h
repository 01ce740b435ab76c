/* What is to be done, as a command is told it. */
#ifndef MU_MAIN_PROMPT_H
#define MU_MAIN_PROMPT_H

#include "base/buf.h"
#include "main/cmd.h"

enum { MU_PROMPT_MAX = 1000000, MU_PROMPT_BUF = MU_PROMPT_MAX + 2 * 65536 };

/* A whole file, "-" being standard input. 0, or MU_EXIT_USAGE after saying why. */
MU_MUST_USE int mu_read_file(const struct mu_cli *cli, const char *file, struct mu_buf *dst);
/* The words of the command line from the argument `first` on, then the file (NULL = none). 0, or
 * MU_EXIT_USAGE after saying why: none at all, too long, no UTF-8. `dst`: of MU_PROMPT_BUF. */
MU_MUST_USE int mu_prompt_of(const struct mu_cli *cli, size_t first, const char *file,
                             struct mu_buf *dst);
/* The same of the arguments alone, of which a single "-" is standard input. */
MU_MUST_USE int mu_prompt_args(const struct mu_cli *cli, size_t first, struct mu_buf *dst);

#endif
