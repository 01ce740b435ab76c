/* The terminal that this process was started on, on a loop: its input as it is typed, its size. One
 * a process. Its settings come back in every way in which the process ends but SIGKILL: signals
 * that end it do so at once, after they are set. */
#ifndef MU_IO_TERMINAL_H
#define MU_IO_TERMINAL_H

#include "base/bytes.h"
#include "io/loop.h"

struct mu_terminal_ops {
    void (*input)(void *arg, mu_bytes typed); /* at most 64 KiB; valid inside the call */
    void (*resized)(void *arg, unsigned cols, unsigned rows);
    void (*ended)(void *arg); /* there is no input any more */
};

struct mu_terminal;
enum { MU_TERMINAL_FAREWELL = 256 };
/* What is written to descriptor 1 when raw mode ends, whatever ends it. */
void mu_terminal_farewell(mu_bytes text);
/* Raw mode on descriptor 0 until mu_terminal_close(). `ops` and `arg` live until then. Takes
 * SIGWINCH and SIGTSTP of the loop. -ENOTTY, -ENOMEM, MU_E_EXISTS, -errno. Loop thread. */
MU_MUST_USE int mu_terminal_open(struct mu_loop *loop, const struct mu_terminal_ops *ops, void *arg,
                                 struct mu_terminal **ret);
/* The settings are as before; no callback follows. Accepts NULL; returns NULL. Before
 * mu_loop_free(). */
struct mu_terminal *mu_terminal_close(struct mu_terminal *t);
/* False: it has none to tell. */
bool mu_terminal_size(unsigned *ret_cols, unsigned *ret_rows);

#endif
