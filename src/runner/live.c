#include "runner/live.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/encode.h"
#include "base/env.h"
#include "runner/live_int.h"

enum {
    WAIT_MS = 60000,
    TICK_MS = 30000,
    FLUSH_MS = 10000,         /* for what is not acknowledged at the end */
    FLUSH_STOPPING_MS = 1000, /* the same when process 1 is about to be killed */
    FLUSH_ALONE_MS = 3000,    /* and nobody is connected */
    AGENT_END_MS = 2000,
    HANG_UP_MS = 500,     /* between two, while its terminal does not end */
    TERM_AFTER_MS = 2000, /* from the cancelled turn to TERM, when it is stopped */
    BUSY_MS = 50,         /* how often it is looked for what is due */
    ALERT_MAX = 15 << 10,
};
#define LINK_ENV "MUSTER_LINK"
#define KEY_ENV  "MUSTER_LINK_KEY"
#define WS_ENV   "DO_WS_URL" /* agent-ops.md 11.1 */

struct mu_id mu_live_uuid(void)
{
    return mu_id_random(&mu_env_real);
}

mu_bytes mu_live_fit(mu_bytes text, size_t escaped)
{
    size_t at = 0, room = escaped;
    while (at < text.len) {
        size_t bad = 1, n = mu_utf8_len(mu_bytes_from(text, at), &bad);
        unsigned char c = (unsigned char)text.ptr[at];
        size_t cost = !n ? 3 : c < 0x20 ? 6 : (c == '"' || c == '\\') ? 2 : n;
        if (cost > room) {
            break;
        }
        room -= cost;
        at += n ? n : bad;
    }
    return mu_bytes_head(text, at);
}

void mu_live_event(struct mu_live *v, const char *type, mu_bytes data)
{
    struct mu_json_w *w = mu_link_begin(&v->link, "events");
    mu_jw_key(w, "events");
    mu_jw_arr(w);
    mu_jw_obj(w);
    mu_jw_kcstr(w, "type", type);
    mu_jw_kraw(w, "data", data);
    mu_jw_obj_end(w);
    mu_jw_arr_end(w);
    mu_link_end(&v->link);
}

void mu_live_alert_begin(struct mu_json_w *w, struct mu_buf *b, const char *severity,
                         const char *category, const char *title, const char *description)
{
    struct mu_id id = mu_live_uuid();
    mu_buf_init(b, ALERT_MAX);
    *w = mu_json_w(b);
    mu_jw_obj(w);
    mu_jw_kstr(w, "alertId", mu_id_bytes(&id));
    mu_jw_kcstr(w, "severity", severity);
    mu_jw_kcstr(w, "category", category);
    mu_jw_kcstr(w, "title", title);
    mu_jw_kcstr(w, "description", description);
}

void mu_live_alert_end(struct mu_live *v, struct mu_json_w *w, struct mu_buf *b)
{
    mu_jw_obj_end(w);
    if (!b->failed) {
        mu_live_event(v, "ALERT_RAISED", mu_buf_bytes(b));
    }
    mu_buf_fini(b);
}

void mu_live_end(struct mu_live *v, int status, const char *fmt, ...)
{
    if (v->done) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(v->message, sizeof v->message, fmt, ap);
    va_end(ap);
    v->done = true;
    v->status = status;
    v->phase = "ending";
}

/* --- the loop's part --- */

enum {
    W_LINK = 100,
    W_TELL,
    W_OUT,
    W_ERR,
    W_SERVE /* and one behind it for each of its */,
    W_PUSH = 200 /* the same */
};

static size_t add(struct mu_live *v, struct pollfd *fds, size_t n, int fd, short events, int who)
{
    if (fd < 0 || !events || n == MU_WATCH_FDS) {
        return n;
    }
    fds[n] = (struct pollfd){fd, events, 0};
    v->who[n] = who;
    return n + 1;
}

static void sooner(int64_t *wait_ms, int64_t at)
{
    if (at) {
        *wait_ms = MU_MIN(*wait_ms, MU_MAX(at - mu_mono_ms(), (int64_t)0));
    }
}

static size_t want(void *arg, struct pollfd *fds, int64_t *wait_ms)
{
    struct mu_live *v = arg;
    struct mu_agent *a = &v->agent;
    size_t n = mu_link_want(&v->link, fds, wait_ms);
    v->who[0] = W_LINK;
    bool reads = !mu_link_full(&v->link) && !v->done;
    n = add(v, fds, n, a->in, a->tell.len ? POLLOUT : 0, W_TELL);
    n = add(v, fds, n, a->out, reads ? POLLIN : 0, W_OUT);
    n = add(v, fds, n, a->err, v->r->procs.say.len ? 0 : POLLIN, W_ERR);
    if (a->serve && !a->ended && !v->done && !v->hold.stopped && n + MU_SERVE_FDS <= MU_WATCH_FDS) {
        int who[MU_SERVE_FDS];
        size_t more = mu_serve_want(a->serve, reads, fds + n, who, wait_ms);
        for (size_t i = 0; i < more; i++) {
            v->who[n++] = W_SERVE + who[i];
        }
    }
    for (unsigned i = 0; i < MU_TERMS; i++) {
        const struct mu_term *t = &v->terms[i];
        short events = (short)((mu_term_may_read(v, i) ? POLLIN : 0) | (t->in.len ? POLLOUT : 0));
        n = add(v, fds, n, t->fd, events, (int)i);
        sooner(wait_ms, t->hold_until);
        sooner(wait_ms, t->shown_at);
        if (t->ended) {
            *wait_ms = MU_MIN(*wait_ms, (int64_t)20);
        }
    }
    if (n + MU_PUSH_FDS <= MU_WATCH_FDS) {
        int who[MU_PUSH_FDS];
        size_t more = mu_push_want(v, fds + n, who);
        for (size_t i = 0; i < more; i++) {
            v->who[n++] = W_PUSH + who[i];
        }
    }
    if (a->ended) {
        *wait_ms = MU_MIN(*wait_ms, (int64_t)20);
    }
    sooner(wait_ms, v->output_at);
    sooner(wait_ms, v->turn.kill_at);
    sooner(wait_ms, v->term_at);
    sooner(wait_ms, v->hold.step != MU_HOLD_NONE ? v->hold.until : 0);
    sooner(wait_ms, v->agent.kill_at);
    sooner(wait_ms, v->r->procs.stopping ? v->r->procs.kill_at : 0);
    sooner(wait_ms, v->turn.step == MU_TURN_RUNS ? v->tick_at : 0);
    if (v->hold.step == MU_HOLD_NONE && mu_checkpoint_at(v)) { /* work() may be what waits here */
        sooner(wait_ms, MU_MAX(mu_checkpoint_at(v), mu_mono_ms() + BUSY_MS));
    }
    return n;
}

static void serve_one(struct mu_live *v, int who, short revents)
{
    switch (who) {
    case W_LINK:
        break;
    case W_TELL:
        mu_agent_write(v);
        break;
    case W_OUT:
        mu_agent_read(v);
        break;
    case W_ERR:
        if (v->agent.err >= 0) {
            mu_agent_read_err(v);
        }
        break;
    case W_SERVE + 1:
    case W_SERVE + 2:
        if (v->agent.serve) {
            mu_serve_io(v->agent.serve, who - W_SERVE);
        }
        break;
    default:
        if (v->terms[who].fd >= 0 && (revents & POLLOUT)) {
            mu_term_write(v, (unsigned)who);
        }
        if (v->terms[who].fd >= 0 && (revents & (POLLIN | POLLHUP | POLLERR))) {
            mu_term_read(v, (unsigned)who);
        }
    }
}

/* A program that has terminal 0 for itself is the agent. */
static void screen_over(struct mu_live *v)
{
    int status = mu_procs_status(v->terms[0].wstatus);
    char text[80];
    snprintf(text, sizeof text, "the program ended with status %d", status);
    v->exit_status = status;
    const char *outcome = v->turn.cancel ? "cancelled" : status ? "failed" : "done";
    mu_turn_over(v, outcome, status ? text : "", status && !v->turn.cancel);
    if (v->turn.step == MU_TURN_NONE || v->interactive) {
        mu_live_end(v, status, "%s", status ? text : "");
    }
}

static void ends(struct mu_live *v)
{
    for (unsigned i = 0; i < MU_TERMS; i++) {
        if (v->terms[i].ended) {
            mu_term_gone(v, i);
            if (i == 0 && !v->terms[0].pid && !v->agent.spoke) {
                screen_over(v);
            }
        }
    }
    if (v->agent.ended) {
        mu_agent_gone(v);
    }
}

static void usage_tick(struct mu_live *v, int64_t now)
{
    char data[512];
    if (v->turn.step != MU_TURN_RUNS || now < v->tick_at) {
        v->tick_at = v->turn.step == MU_TURN_RUNS ? v->tick_at : now + TICK_MS;
        return;
    }
    int64_t busy = v->busy_ms + now - v->busy_from;
    int n = snprintf(data, sizeof data,
                     "{\"providerId\":\"%s\",\"intervalMs\":%lld,\"units\":{\"agentSeconds\":%lld,"
                     "\"terminalKb\":%llu,\"filesTouched\":%lld,\"commandsRun\":%lld,"
                     "\"approvalsRequested\":%lld}}",
                     mu_harness_name(v->r->harness), (long long)(now - v->tick_at + TICK_MS),
                     (long long)(busy / 1000), (unsigned long long)(v->term_bytes >> 10),
                     (long long)v->files, (long long)v->commands, (long long)v->asked);
    if (!mu_link_full(&v->link)) {
        mu_live_event(v, "USAGE_TICK", mu_bytes_of(data, (size_t)n));
    }
    v->busy_from = now;
    v->busy_ms = busy % 1000;
    v->term_bytes &= 1023;
    v->files = v->commands = v->asked = 0;
    v->tick_at = now + TICK_MS;
}

/* Limits of time: a turn that does not end, a stop. */
static void watch_time(struct mu_live *v)
{
    int64_t now = mu_mono_ms();
    struct mu_turn *t = &v->turn;
    mu_hold_watch(v, now);
    if (t->kill_at && now >= t->kill_at) {
        t->kill_at = 0;
        v->agent.again = v->agent.spoke;
        mu_agent_kill(v, SIGKILL);
    }
    if (v->agent.kill_at && now >= v->agent.kill_at) { /* it closed its output and stays */
        v->agent.kill_at = 0;
        mu_agent_kill(v, SIGKILL);
    }
    if (v->r->procs.stopping && !v->stop_told) {
        v->stop_told = true;
        v->phase = "ending";
        int64_t left = MU_MAX(v->r->procs.kill_at - now, (int64_t)0);
        bool busy = t->step == MU_TURN_RUNS && v->agent.spoke;
        v->term_at = now + (busy ? MU_MIN(left / 3, (int64_t)TERM_AFTER_MS) : 0);
        mu_turn_abort(v);
    }
    bool idle = t->step == MU_TURN_NONE || t->step == MU_TURN_OVER;
    if (v->term_at && (now >= v->term_at || idle)) {
        v->term_at = 0;
        mu_agent_kill(v, SIGTERM);
        mu_turn_over(v, "cancelled", "the session was stopped", false);
        mu_live_end(v, 143, "stopped");
    }
    usage_tick(v, now);
}

static void serve_polled(struct mu_live *v, int who, short revents)
{
    if (who >= W_PUSH) {
        mu_push_io(v, who - W_PUSH);
    } else if (who != W_LINK) {
        serve_one(v, who, revents);
    }
}

/* Terminals that flood come last. What came before may have closed a descriptor and opened another
 * under its number. */
static void serve_all(struct mu_live *v, const struct pollfd *fds, size_t n)
{
    bool flood[MU_WATCH_FDS];
    for (size_t i = 0; i < n; i++) {
        flood[i] = v->who[i] < MU_TERMS && v->terms[v->who[i]].floods;
        if (fds[i].revents && !flood[i]) {
            serve_polled(v, v->who[i], fds[i].revents);
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (fds[i].revents && flood[i]) {
            serve_polled(v, v->who[i], fds[i].revents);
        }
    }
}

static void serve(void *arg, const struct pollfd *fds, size_t n)
{
    struct mu_live *v = arg;
    short link = 0;
    for (size_t i = 0; i < n; i++) {
        link = v->who[i] == W_LINK ? fds[i].revents : link;
    }
    mu_link_serve(&v->link, link);
    serve_all(v, fds, n);
    mu_term_echoes(v);
    ends(v);
    if (v->agent.serve && !v->agent.ended && !v->done && !v->hold.stopped) {
        mu_serve_turn(v->agent.serve);
    }
    if (v->agent.spoke && mu_agent_state(v) == MU_ACP_BROKEN && !v->agent.ended &&
        !v->agent.again && !v->done) {
        mu_agent_broken(v); /* also when it was found while something was said to it */
    }
    watch_time(v);
    mu_turn_stream(v);
    mu_term_pump(v);
    mu_checkpoint_serve(v);
    mu_link_flush(&v->link);
    if (v->link.verdict == MU_LINK_OVER) {
        mu_live_end(v, 0, "%s", ""); /* nobody is left who would want to know more */
    } else if (v->link.verdict == MU_LINK_NEVER) {
        mu_live_end(v, 1, "%s", v->link.words);
    }
    if (v->link.failed) {
        mu_live_end(v, 1, "a message for the server was lost: %s", mu_err_text(v->link.failed));
    }
}

static void ended(void *arg, pid_t pid, int wstatus)
{
    struct mu_live *v = arg;
    if (pid == v->agent.pid) {
        v->agent.ended = true;
        v->agent.wstatus = wstatus;
    }
    for (size_t i = 0; i < MU_TERMS; i++) {
        if (pid == v->terms[i].pid) {
            v->terms[i].ended = true;
            v->terms[i].wstatus = wstatus;
        }
    }
}

/* Output of set-up commands and of the agent's log: with the line ends of a terminal. */
static void said(void *arg, mu_bytes b)
{
    struct mu_live *v = arg;
    while (b.len) {
        ptrdiff_t at = mu_bytes_find_char(b, '\n');
        mu_bytes line = mu_bytes_head(b, at < 0 ? b.len : (size_t)at);
        mu_term_put(v, 0, line, false);
        if (at >= 0) {
            mu_term_put(v, 0, MU_B("\r\n"), false);
        }
        b = mu_bytes_from(b, line.len + (at >= 0));
    }
}

static void hello(void *arg, struct mu_json_w *w)
{
    struct mu_live *v = arg;
    mu_jw_kcstr(w, "runnerVersion", MU_VERSION);
    mu_jw_kcstr(w, "sessionId", v->session);
    mu_jw_ki64(w, "epoch", v->epoch);
    mu_jw_ki64(w, "lastSeq", v->link.last);
    mu_jw_kcstr(w, "phase", v->phase);
    if (v->turn.step != MU_TURN_NONE) {
        mu_jw_kcstr(w, "processing", v->turn.id);
    }
    mu_jw_key(w, "terminals");
    mu_jw_arr(w);
    for (size_t i = 0; i < MU_TERMS; i++) {
        const struct mu_term *t = &v->terms[i];
        if (i > 0 && !t->open && !t->ring.end) {
            continue;
        }
        mu_jw_obj(w);
        mu_jw_ki64(w, "terminal", (int64_t)i);
        mu_jw_ki64(w, "offset", t->ring.end);
        mu_jw_ki64(w, "from", mu_ring_from(&t->ring));
        mu_jw_kbool(w, "open", i == 0 || t->open);
        mu_jw_ki64(w, "cols", t->cols);
        mu_jw_ki64(w, "rows", t->rows);
        mu_jw_obj_end(w);
    }
    mu_jw_arr_end(w);
}

static void put_answer(void *arg, const struct mu_jtok *j)
{
    mu_checkpoint_answer(arg, j);
}

/* --- from the beginning to the end --- */

static const char *set_value(const char *name)
{
    const char *v = getenv(name);
    return v && *v ? v : NULL;
}

bool mu_live_wanted(void)
{
    return set_value(LINK_ENV) || set_value(WS_ENV);
}

/* To the worker, else to the server itself. */
static int open_link(struct mu_live *v, const char *token, const struct mu_link_ops *ops)
{
    struct mu_err err;
    struct mu_link_ws *ws;
    const char *path = set_value(LINK_ENV), *key = getenv(KEY_ENV), *url = set_value(WS_ENV);
    if (path) {
        return mu_link_init(&v->link, path, key ? key : "", ops, v)
                   ? mu_runner_fail(v->r, 2, "MUSTER_LINK or MUSTER_LINK_KEY is not usable")
                   : 0;
    }
    if (!token || !*token) {
        return mu_runner_fail(v->r, 2, WS_ENV " is set, but there is no session token");
    }
    if (mu_link_ws_new(url ? url : "", token, &v->r->procs.spare[MU_SPARE_LINK], &ws, &err) < 0) {
        return mu_runner_fail(v->r, 2, "%s", err.text);
    }
    return mu_link_init_ws(&v->link, ws, ops, v) ? mu_runner_fail(v->r, 1, "out of memory") : 0;
}

int mu_live_open(struct mu_runner *r, const char *token, struct mu_live **ret)
{
    static const struct mu_link_ops ops = {hello, mu_live_message, put_answer};
    struct mu_live *v = mu_calloc(1, sizeof *v);
    if (!v) {
        return mu_runner_fail(r, 1, "out of memory");
    }
    v->r = r;
    if (mu_checkpoint_new(v, &v->ckpt) < 0) {
        mu_free(v);
        return mu_runner_fail(r, 1, "out of memory");
    }
    v->phase = "preparing";
    v->tokens_in = v->tokens_out = -1;
    v->exit_status = 1;
    v->watch = (struct mu_watch){want, serve, ended, said, v};
    for (size_t i = 0; i < MU_TERMS; i++) {
        mu_term_init(&v->terms[i]);
    }
    mu_agent_init(&v->agent);
    mu_push_init(&v->push);
    mu_buf_init(&v->output, MU_TERM_OUTPUT);
    mu_buf_init(&v->clean, MU_LIVE_CLEAN);
    mu_buf_init(&v->words, MU_LIVE_CLEAN);
    mu_buf_init(&v->turn.prompt, MU_LIVE_PROMPT + 1);
    mu_buf_init(&v->next.prompt, MU_LIVE_PROMPT + 1);
    mu_buf_init(&v->turn.segment, MU_LIVE_SEGMENT);
    mu_buf_init(&v->turn.stream, 64 << 10);
    (void)!mu_guard_read(MU_B_NONE, &v->guard, NULL);
    const char *session = getenv("OZ_RUN_ID");
    snprintf(v->session, sizeof v->session, "%s", session ? session : "");
    *ret = v;
    int status = open_link(v, token, &ops);
    snprintf(r->link_key, sizeof r->link_key, "%s", v->link.key);
    mu_runner_unset(r, LINK_ENV);
    mu_runner_unset(r, KEY_ENV);
    mu_runner_unset(r, WS_ENV);
    if (status) {
        return status;
    }
    r->procs.watch = &v->watch;
    return 0;
}

struct mu_live *mu_live_close(struct mu_live *v)
{
    if (v) {
        v->r->procs.watch = NULL;
        mu_agent_fini(v);
        mu_push_fini(&v->push);
        for (size_t i = 0; i < MU_TERMS; i++) {
            mu_term_fini(&v->terms[i]);
        }
        struct mu_buf *bufs[] = {&v->turn.prompt, &v->next.prompt, &v->turn.segment,
                                 &v->turn.stream, &v->output,      &v->clean,
                                 &v->words};
        for (size_t i = 0; i < MU_ARRAY_LEN(bufs); i++) {
            mu_buf_fini(bufs[i]);
        }
        mu_guard_fini(&v->guard);
        mu_link_fini(&v->link);
        v->ckpt = mu_checkpoint_free(v->ckpt);
        mu_free(v);
    }
    return NULL;
}

void mu_live_secrets(struct mu_live *v)
{
    v->link.redact = v->r->redact;
}

void mu_live_boot(struct mu_live *v, const char *step)
{
    struct mu_json_w *w = mu_link_begin(&v->link, "boot");
    mu_jw_kcstr(w, "step", step);
    mu_link_end(&v->link);
}

static bool agent_is_ready(const struct mu_live *v)
{
    return v->agent.step == MU_AGENT_READY &&
           (!v->agent.spoke || mu_agent_state(v) == MU_ACP_READY);
}

/* What takes a child of its own, or begins something; one of them at a time. */
static void work(struct mu_live *v)
{
    struct mu_turn *t = &v->turn;
    if (t->step == MU_TURN_OVER) {
        mu_diff_summary(v);
        mu_turn_complete(v);
        return;
    }
    if (v->n_diffs) {
        mu_diff_answer(v);
        return;
    }
    if (mu_hold_due(v)) {
        mu_hold_take(v);
        return;
    }
    if (v->hold.step != MU_HOLD_NONE) {
        return;
    }
    if (mu_checkpoint_due(v)) {
        mu_checkpoint_take(v);
        return;
    }
    if (mu_checkpoint_untidy(v)) {
        mu_ck_tidy(v->ckpt);
        return;
    }
    if (t->step != MU_TURN_WAITS || v->r->procs.stopping) {
        return;
    }
    if (v->agent.step == MU_AGENT_NONE) { /* a task without ACP starts with its prompt */
        int status = mu_agent_start(v);
        if (status) {
            mu_turn_over(v, "failed", v->r->result.message, true);
            mu_live_end(v, status, "%s", v->r->result.message);
        }
    }
    if (agent_is_ready(v)) {
        mu_turn_begin(v);
    }
}

static void choose(struct mu_live *v)
{
    struct mu_err err;
    struct mu_runner *r = v->r;
    const char *model = getenv("OZ_MODEL_ID");
    struct mu_harness_hints hints = {getenv("OZ_HARNESS"), r->args.harness,
                                     model && *model ? model : r->args.model,
                                     getenv("OZ_SIDECAR_DEFAULT_HARNESS")};
    if (v->harness[0] && strcmp(v->harness, "oz") != 0) {
        hints.env = v->harness;
    }
    if (mu_harness_choose(&hints, &r->harness, &err) < 0) {
        mu_live_end(v, mu_runner_fail(r, 2, "%s", err.text), "%s", err.text);
    }
}

/* A shell with people at it ignores TERM; bash forgets a HUP that comes right before it waits for
 * a key, until the next signal. */
static void hang_up(const struct mu_live *v, int64_t *next)
{
    const struct mu_term *t = &v->terms[0];
    int64_t now = mu_mono_ms();
    if (v->interactive && t->pid > 0 && !t->ended && now >= *next) {
        *next = now + HANG_UP_MS;
        (void)kill(-t->pid, SIGHUP);
    }
}

static void end_agent(struct mu_live *v)
{
    struct mu_procs *p = &v->r->procs;
    int64_t end = mu_mono_ms() + AGENT_END_MS, next = 0;
    end = p->stopping ? MU_MIN(end, p->kill_at - 500) : end;
    if (v->agent.in >= 0) {
        close(v->agent.in);
        v->agent.in = -1;
    }
    mu_agent_kill(v, SIGTERM);
    while ((v->agent.pid > 0 || v->terms[0].pid > 0) && mu_mono_ms() < end) {
        hang_up(v, &next);
        mu_procs_turn(p, 50);
    }
    for (unsigned i = 0; i < MU_TERMS; i++) {
        mu_term_close(v, i);
    }
    mu_procs_kill_rest(p);
}

static int prepare(struct mu_live *v)
{
    struct mu_runner *r = v->r;
    struct mu_err err;
    if (mu_workspace_oz(&r->ws, &err) < 0) {
        return mu_runner_fail(r, 1, "%s", err.text);
    }
    int out = mu_workspace_create(&r->ws, "agent_output.txt", 0644);
    if (out < 0) {
        return mu_runner_fail(r, 1, "agent_output.txt: %s", mu_err_text(out));
    }
    mu_output_init(&r->output, out, MU_OUTPUT_HEAD, MU_OUTPUT_TAIL);
    mu_checkpoint_ready(v);
    int status = r->restore ? mu_restore_home(r) : 0;
    if (status) {
        return status;
    }
    mu_checkouts_find(&r->checkouts, &r->ws, &r->procs, r->first_path);
    if (r->restore) {
        mu_restore_bases(r);
    }
    mu_diff_ready(v);
    v->phase = "starting";
    return 0;
}

int mu_live_run(struct mu_live *v)
{
    struct mu_procs *p = &v->r->procs;
    int status = prepare(v);
    while (!status && !v->told && !v->done && !p->stopping) {
        mu_procs_turn(p, WAIT_MS);
    }
    if (!status && v->told && !v->done) {
        choose(v);
    }
    if (!status && v->told && !v->done && !p->stopping) {
        int e = mu_push_hold(v);
        status = e ? mu_runner_fail(v->r, 1, "the repository's credential: %s", mu_err_text(e))
                   : mu_agent_start(v);
        bool waits = v->agent.step == MU_AGENT_NONE;
        v->agent.step = status ? MU_AGENT_GONE : v->agent.step;
        v->phase = v->agent.step == MU_AGENT_READY || waits ? "running" : v->phase;
        if (!status && (v->agent.step == MU_AGENT_READY || waits)) {
            mu_turn_ready(v, NULL);
        }
    }
    while (!status && !v->done) {
        work(v);
        if (!v->done) {
            /* something may be left to do that nothing on a descriptor tells of */
            bool more =
                v->turn.step == MU_TURN_OVER || v->n_diffs || mu_hold_due(v) ||
                (v->hold.step == MU_HOLD_NONE && (mu_checkpoint_due(v) || mu_checkpoint_untidy(v)));
            mu_procs_turn(p, more ? 0 : WAIT_MS);
        }
    }
    if (v->turn.step != MU_TURN_NONE) {
        mu_turn_over(v, "failed", status ? v->r->result.message : v->message, true);
        work(v);
    }
    v->phase = "ending";
    if (!status) {
        mu_checkpoint_last(v);
    }
    end_agent(v);
    if (v->interactive && !p->stopping) { /* people had terminals */
        mu_diff_summary(v);
    }
    if (v->done && v->message[0]) {
        return mu_runner_fail(v->r, v->status, "%s", v->message);
    }
    return status ? status : v->status;
}

void mu_live_say_end(struct mu_live *v, int status, const char *message)
{
    struct mu_procs *p = &v->r->procs;
    mu_term_output_flush(v);
    if (!v->link.notes) {
        return;
    }
    v->phase = "ending";
    mu_live_end(v, status, "%s", message);
    struct mu_json_w *w = mu_link_begin(&v->link, "exited");
    mu_jw_ki64(w, "exitCode", status);
    if (message[0]) {
        mu_jw_kcstr(w, "message", message);
    }
    mu_link_end(&v->link);
    int64_t began = mu_mono_ms(), now = began;
    while (!mu_link_empty(&v->link) && now - began < (p->stopping ? FLUSH_STOPPING_MS : FLUSH_MS)) {
        bool alone = v->link.fd < 0 && now - began > FLUSH_ALONE_MS;
        if (alone || v->link.verdict != MU_LINK_AGAIN) {
            break;
        }
        mu_procs_turn(p, 50);
        now = mu_mono_ms();
    }
    mu_term_output_flush(v);
}
