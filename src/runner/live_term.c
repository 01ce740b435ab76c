/* Terminals: a ring of what each showed, a window of what the server has not taken yet. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>

#include "exec/pty.h"
#include "runner/live_int.h"
#include "runner/procs_int.h"

enum {
    READ_BLOCK = 8 << 10, /* twice what the line discipline gives at once */
    TURN = 32 << 10,      /* of one terminal, before others and the link are looked at */
    ECHO_TRIES = 4,
    SMALL = 4 << 10,
    FRAME = 64 << 10,
    DRAIN_MS = 300,
    HOLD_MS = 2, /* a terminal that runs says no more often something small */
    HOLD_BYTES = 64 << 10,
    OUTPUT_MS = 50,
    SECRET_MS = 20,
};
extern char **environ;

void mu_term_init(struct mu_term *t)
{
    *t = (struct mu_term){.fd = -1, .cols = 120, .rows = 40};
    mu_ring_init(&t->ring, MU_TERM_KEEP);
    mu_buf_init(&t->in, MU_TERM_INPUT);
}

void mu_term_fini(struct mu_term *t)
{
    if (t->fd >= 0) {
        close(t->fd);
    }
    t->fd = -1;
    mu_ring_fini(&t->ring);
    mu_buf_fini(&t->in);
}

static void term_output(struct mu_live *v, mu_bytes b);

/* What is clean: to people, and into the file. */
static void show(struct mu_live *v, unsigned n)
{
    mu_bytes b = mu_buf_bytes(&v->clean);
    if (b.len) {
        (void)mu_ring_add(&v->terms[n].ring, b); /* what has no memory is a gap */
        v->term_bytes += b.len;
        if (v->terms[n].to_file) {
            term_output(v, b);
        }
    }
    mu_buf_clear(&v->clean);
}

void mu_term_put(struct mu_live *v, unsigned n, mu_bytes b, bool file)
{
    struct mu_term *t = &v->terms[n];
    t->to_file = file;
    mu_redact_feed(v->r->redact, &t->stream, b, &v->clean);
    t->shown_at =
        v->r->redact && mu_redact_waits(v->r->redact, &t->stream) ? mu_mono_ms() + SECRET_MS : 0;
    show(v, n);
}

/* A quiet terminal: the echo of a key is not kept because a secret begins like it. */
static void show_rest(struct mu_live *v, unsigned n)
{
    struct mu_term *t = &v->terms[n];
    t->shown_at = 0;
    mu_redact_idle(v->r->redact, &t->stream, &v->clean);
    show(v, n);
}

/* --- the program in it --- */

/* The runner's variables and what a terminal has. One block. */
static char **term_env(void)
{
    static char term[] = "TERM=xterm-256color", colour[] = "COLORTERM=truecolor";
    size_t n = 0, k = 0;
    while (environ[n]) {
        n++;
    }
    char **env = mu_calloc(n + 3, sizeof *env);
    for (size_t i = 0; env && i < n; i++) {
        bool ours =
            strncmp(environ[i], "TERM=", 5) == 0 || strncmp(environ[i], "COLORTERM=", 10) == 0;
        if (!ours) {
            env[k++] = environ[i];
        }
    }
    if (env) {
        env[k++] = term;
        env[k] = colour;
    }
    return env;
}

static const char *shell_program(void)
{
    const char *own = getenv("SHELL");
    if (own && own[0] == '/' && access(own, X_OK) == 0) {
        return own;
    }
    return access("/bin/bash", X_OK) == 0 ? "/bin/bash" : "/bin/sh";
}

int mu_term_start(struct mu_live *v, unsigned n, const char *const *argv, int in, unsigned cols,
                  unsigned rows)
{
    struct mu_term *t = &v->terms[n];
    char program[4096];
    const char *const shell[] = {shell_program(), NULL};
    argv = argv ? argv : shell;
    int r = mu_find_program(argv[0], getenv("PATH"), program);
    if (r) {
        return r;
    }
    char **env MU_AUTO_FREE = term_env();
    if (!env) {
        return -ENOMEM;
    }
    t->cols = cols ? cols : t->cols;
    t->rows = rows ? rows : t->rows;
    struct mu_pty_spawn s = {argv, program, env, v->r->ws.root, in, t->cols, t->rows};
    int fd = -1;
    pid_t pid = mu_pty_spawn(&s, &fd);
    if (pid < 0) {
        return (int)pid;
    }
    t->fd = fd;
    t->pid = pid;
    t->open = true;
    t->ended = false;
    mu_buf_clear(&t->in);
    return 0;
}

void mu_term_type(struct mu_live *v, unsigned n, mu_bytes b)
{
    struct mu_term *t = &v->terms[n];
    if (t->fd >= 0 && t->in.len + b.len <= t->in.max) { /* all of it or nothing */
        mu_buf_add(&t->in, b);
        mu_term_write(v, n);
    }
}

void mu_term_write(struct mu_live *v, unsigned n)
{
    struct mu_term *t = &v->terms[n];
    while (t->fd >= 0 && t->in.len) {
        ssize_t k = write(t->fd, t->in.ptr, t->in.len);
        if (k < 0 && errno == EINTR) {
            continue;
        }
        if (k <= 0) {
            if (errno != EAGAIN) {
                mu_buf_clear(&t->in);
            }
            return;
        }
        mu_buf_consume(&t->in, (size_t)k);
        t->echo = ECHO_TRIES;
    }
}

/* While somebody takes the bytes, the program waits for them; while nobody does, the oldest are
 * lost. */
bool mu_term_may_read(const struct mu_live *v, unsigned n)
{
    const struct mu_term *t = &v->terms[n];
    return t->fd >= 0 && (!v->link.up || t->ring.end - t->acked < MU_TERM_WINDOW);
}

/* Each read gives at most the 4 KiB of the line discipline, which the kernel fills again meanwhile:
 * so every piece is worked on before the next one is asked for. What comes after one another goes
 * on together. */
void mu_term_read(struct mu_live *v, unsigned n)
{
    struct mu_term *t = &v->terms[n];
    char block[READ_BLOCK];
    size_t have = 0;
    while (have < TURN && t->fd >= 0) {
        ssize_t k = read(t->fd, block, sizeof block);
        if (k > 0) {
            have += (size_t)k;
            mu_term_put(v, n, mu_bytes_of(block, (size_t)k), n == 0);
            continue;
        }
        if (k == 0 || (errno != EAGAIN && errno != EINTR)) { /* EIO: nobody is on the other side */
            close(t->fd);
            t->fd = -1;
        }
        break;
    }
    t->floods = have >= TURN;
    if (have) {
        v->wrote_ms = mu_mono_ms();
        t->echo = 0;
    }
}

/* What was typed at the beginning of this turn is answered by now: it need not wait for the next
 * one, behind another terminal's flood. */
void mu_term_echoes(struct mu_live *v)
{
    for (unsigned n = 0; n < MU_TERMS; n++) {
        struct mu_term *t = &v->terms[n];
        if (t->echo && mu_term_may_read(v, n)) {
            t->echo--;
            mu_term_read(v, n);
        }
    }
}

/* --- the file with the output --- */

void mu_term_output_flush(struct mu_live *v)
{
    mu_output_add(&v->r->output, mu_buf_bytes(&v->output));
    mu_buf_clear(&v->output);
    v->output_at = 0;
}

static void term_output(struct mu_live *v, mu_bytes b)
{
    if (v->output.len + b.len > MU_TERM_OUTPUT) {
        mu_term_output_flush(v);
    }
    mu_buf_add(&v->output, b);
    if (v->output.failed) { /* too long, or no memory: it does not wait */
        v->output.failed = 0;
        mu_term_output_flush(v);
        mu_output_add(&v->r->output, b);
    } else if (!v->output_at) {
        v->output_at = mu_mono_ms() + OUTPUT_MS;
    }
}

void mu_term_close(struct mu_live *v, unsigned n)
{
    struct mu_term *t = &v->terms[n];
    if (t->fd >= 0) {
        close(t->fd); /* who is in it gets HUP */
        t->fd = -1;
    }
    if (t->pid > 0 && !t->ended) {
        (void)kill(-t->pid, SIGHUP);
        (void)kill(-t->pid, SIGKILL);
    }
}

static void pump(struct mu_live *v, unsigned n);

/* The program has ended and what it wrote is read. */
void mu_term_gone(struct mu_live *v, unsigned n)
{
    struct mu_term *t = &v->terms[n];
    char data[120];
    int64_t now = mu_mono_ms();
    t->drain_until = t->drain_until ? t->drain_until : now + DRAIN_MS;
    if (t->fd >= 0 && now < t->drain_until && mu_term_may_read(v, n)) {
        mu_term_read(v, n);
        if (t->fd >= 0) {
            return;
        }
    }
    if (t->fd >= 0 && now < t->drain_until) {
        return;
    }
    if (t->fd >= 0) {
        close(t->fd);
    }
    t->fd = -1;
    t->pid = 0;
    t->ended = t->open = false;
    t->drain_until = 0;
    mu_redact_flush(v->r->redact, &t->stream, &v->clean);
    t->shown_at = 0;
    show(v, n);
    pump(v, n); /* what was held back comes before */
    int k = snprintf(data, sizeof data, "{\"terminal\":%u,\"exitCode\":%d}", n,
                     mu_procs_status(t->wstatus));
    mu_live_event(v, "TERMINAL_CLOSED", mu_bytes_of(data, (size_t)k));
}

/* --- to the server --- */

/* Every frame wakes three processes: what a running terminal shows within a moment leaves as one,
 * while what comes after a silence, like the echo of a key, leaves at once. */
static bool held(struct mu_term *t)
{
    int64_t now = mu_mono_ms();
    bool hold = t->fd >= 0 && t->ring.end - t->sent < HOLD_BYTES && now < t->sent_at + HOLD_MS;
    t->hold_until = hold ? t->sent_at + HOLD_MS : 0;
    t->sent_at = hold ? t->sent_at : now;
    return hold;
}

static void pump(struct mu_live *v, unsigned n)
{
    struct mu_term *t = &v->terms[n];
    if (t->sent < mu_ring_from(&t->ring)) { /* what is gone is a gap */
        t->sent = mu_ring_from(&t->ring);
        t->acked = MU_MAX(t->acked, t->sent);
    }
    t->hold_until = 0;
    if (!v->link.up || t->sent == t->ring.end || held(t)) {
        return;
    }
    while (mu_link_room(&v->link) && t->sent < t->ring.end) {
        int64_t window = t->acked + MU_TERM_WINDOW - t->sent;
        if (window <= 0) {
            return;
        }
        mu_bytes b = mu_ring_at(&t->ring, t->sent, (size_t)MU_MIN(window, (int64_t)FRAME));
        struct mu_frame_term frame = {n, (uint64_t)t->sent, b};
        if (mu_frame_add_term(&v->link.out, &frame) < 0) {
            return;
        }
        t->sent += (int64_t)b.len;
    }
}

void mu_term_pump(struct mu_live *v)
{
    for (unsigned n = 0; n < MU_TERMS; n++) {
        if (v->terms[n].shown_at && mu_mono_ms() >= v->terms[n].shown_at) {
            show_rest(v, n);
        }
        if (v->terms[n].ring.end - v->terms[n].sent <= SMALL) {
            pump(v, n);
        }
    }
    for (unsigned n = 0; n < MU_TERMS; n++) { /* the echo of a key does not wait behind a flood */
        pump(v, n);
    }
    if (v->output_at && mu_mono_ms() >= v->output_at) {
        mu_term_output_flush(v);
    }
}
