#include "io/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include <uv.h>

enum { READ_BLOCK = 64 << 10 };

struct mu_terminal {
    uv_poll_t poll;
    const struct mu_terminal_ops *ops; /* NULL: closed */
    void *arg;
    int fd; /* ours, or 0 */
};

/* --- settings; also read by handlers of signals --- */

static struct termios before;
static volatile sig_atomic_t raw;
static int flags_before; /* of descriptor 0 */
static char farewell[MU_TERMINAL_FAREWELL];
static volatile size_t farewell_len;
/* Whatever would end the process; at once, since the loop may wait for a terminal that takes
 * nothing. */
static const int deadly[] = {SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGABRT,
                             SIGSEGV, SIGBUS, SIGILL, SIGFPE};
static struct sigaction deadly_before[sizeof deadly / sizeof deadly[0]];

void mu_terminal_farewell(mu_bytes text)
{
    farewell_len = 0;
    if (text.len <= sizeof farewell) {
        memcpy(farewell, text.ptr, text.len);
        farewell_len = text.len;
    }
}

static void leave_raw(void)
{
    if (!raw) {
        return;
    }
    int out = fcntl(1, F_GETFL);
    if (farewell_len && out >= 0) { /* never waiting: a handler may be here */
        (void)fcntl(1, F_SETFL, out | O_NONBLOCK);
        (void)!write(1, farewell, farewell_len);
        (void)fcntl(1, F_SETFL, out);
    }
    (void)fcntl(0, F_SETFL, flags_before);
    (void)tcsetattr(0, TCSANOW, &before);
    raw = 0; /* last: a handler in the middle of this does it all again */
}

static int enter_raw(void)
{
    struct termios t = before;
    cfmakeraw(&t);
    raw = 1;
    if (tcsetattr(0, TCSANOW, &t) < 0) {
        raw = 0;
        return -errno;
    }
    return 0;
}

static void dying(int sig)
{
    leave_raw();
    for (size_t i = 0; i < MU_ARRAY_LEN(deadly); i++) {
        if (deadly[i] == sig) {
            (void)sigaction(sig, &deadly_before[i], NULL);
        }
    }
    (void)raise(sig); /* delivered when this handler returns */
}

static void watch_deadly(bool on)
{
    struct sigaction sa = {.sa_handler = dying};
    (void)sigemptyset(&sa.sa_mask);
    for (size_t i = 0; i < MU_ARRAY_LEN(deadly); i++) {
        (void)sigaction(deadly[i], on ? &sa : &deadly_before[i], on ? &deadly_before[i] : NULL);
    }
}

/* --- input and size --- */

bool mu_terminal_size(unsigned *ret_cols, unsigned *ret_rows)
{
    struct winsize w;
    if (ioctl(0, TIOCGWINSZ, &w) < 0 || w.ws_col == 0 || w.ws_row == 0) {
        return false;
    }
    *ret_cols = w.ws_col;
    *ret_rows = w.ws_row;
    return true;
}

static void tell_size(struct mu_terminal *t)
{
    unsigned cols, rows;
    if (t->ops && mu_terminal_size(&cols, &rows)) {
        t->ops->resized(t->arg, cols, rows);
    }
}

static void on_winch(void *arg, int signum)
{
    (void)signum;
    tell_size(arg);
}

/* Typed Ctrl-Z goes to the other side; this one came from elsewhere. */
static void on_stop(void *arg, int signum)
{
    struct mu_terminal *t = arg;
    (void)signum;
    if (t->ops) {
        leave_raw();
        (void)raise(SIGSTOP);
        (void)enter_raw();
        tell_size(t);
    }
}

static void on_ready(uv_poll_t *h, int status, int events)
{
    struct mu_terminal *t = h->data;
    char block[READ_BLOCK];
    (void)events;
    ssize_t n = status < 0 ? 0 : read(t->fd, block, sizeof block);
    if (n > 0) {
        t->ops->input(t->arg, mu_bytes_of(block, (size_t)n));
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        (void)uv_poll_stop(&t->poll);
        t->ops->ended(t->arg);
    }
}

/* --- life --- */

static void freed(uv_handle_t *h)
{
    struct mu_terminal *t = h->data;
    if (t->fd > 0) {
        close(t->fd);
    }
    mu_free(t);
}

/* Opened anew: what reads without waiting must not share its flags with standard output. Not to be
 * had by another user than the terminal's (after su): then they are shared. */
static int open_input(void)
{
    int fd = open("/proc/self/fd/0", O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return fd < 0 ? 0 : fd;
}

int mu_terminal_open(struct mu_loop *loop, const struct mu_terminal_ops *ops, void *arg,
                     struct mu_terminal **ret)
{
    if (raw) {
        return MU_E_EXISTS;
    }
    flags_before = fcntl(0, F_GETFL);
    if (flags_before < 0 || tcgetattr(0, &before) < 0) {
        return -errno;
    }
    struct mu_terminal *t = mu_calloc(1, sizeof *t);
    if (!t) {
        return -ENOMEM;
    }
    *t = (struct mu_terminal){.ops = ops, .arg = arg, .fd = open_input()};
    int r = uv_poll_init(mu_loop_uv(loop), &t->poll, t->fd);
    t->poll.data = t;
    if (r < 0) {
        freed((uv_handle_t *)&t->poll);
        return r;
    }
    r = uv_poll_start(&t->poll, UV_READABLE, on_ready);
    r = r < 0 ? r : mu_loop_signal(loop, SIGWINCH, on_winch, t);
    r = r < 0 ? r : mu_loop_signal(loop, SIGTSTP, on_stop, t);
    r = r < 0 ? r : enter_raw();
    if (r < 0) {
        t->ops = NULL;
        uv_close((uv_handle_t *)&t->poll, freed);
        return r;
    }
    watch_deadly(true);
    *ret = t;
    return 0;
}

struct mu_terminal *mu_terminal_close(struct mu_terminal *t)
{
    if (t && t->ops) {
        leave_raw();
        watch_deadly(false);
        t->ops = NULL;
        uv_close((uv_handle_t *)&t->poll, freed);
    }
    return NULL;
}
