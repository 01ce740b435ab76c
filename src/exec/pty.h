/* Pseudo-terminals, without libutil: part of the static program. Blocking nowhere; one thread. */
#ifndef MU_EXEC_PTY_H
#define MU_EXEC_PTY_H

#include <sys/types.h>

#include "base/err.h"

enum { MU_PTY_SIDE_MAX = 1000 };

struct mu_pty_spawn {
    const char *const *argv;
    const char *program; /* its path; argv[0] may be another word */
    char *const *env;
    const char *cwd;
    int in; /* its standard input instead of the terminal; -1 = the terminal */
    unsigned cols, rows;
};
/* Starts the program in a session of its own with a new terminal as its controlling one, with
 * nothing open but 0, 1 and 2 and no signal blocked. *ret_fd is the terminal's other side:
 * non-blocking, close-on-exec, the caller's. Returns the pid or -errno: no terminal, or what
 * chdir or exec said. */
MU_MUST_USE pid_t mu_pty_spawn(const struct mu_pty_spawn *s, int *ret_fd);
/* Tells the program its new size (SIGWINCH); both sides 1 to MU_PTY_SIDE_MAX, else -EINVAL. */
int mu_pty_resize(int fd, unsigned cols, unsigned rows);

#endif
