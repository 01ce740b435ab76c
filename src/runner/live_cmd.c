/* What the server says. Everything may come twice. */
#include <stdio.h>

#include "base/encode.h"
#include "base/id.h"
#include "exec/pty.h"
#include "runner/live_int.h"

static int get(const struct mu_jtok *j, const char *key)
{
    return mu_jtok_get(j, 0, key);
}

static bool get_id(const struct mu_jtok *j, const char *key, char ret[MU_LIVE_ID])
{
    return mu_jtok_copy(j, get(j, key), ret, MU_LIVE_ID) && ret[0];
}

/* A number of a terminal, or `fallback`. */
static int get_terminal(const struct mu_jtok *j, int v, int fallback)
{
    int64_t n = mu_jtok_i64(j, v, fallback);
    return n >= 0 && n < MU_TERMS ? (int)n : fallback;
}

static unsigned side(const struct mu_jtok *j, const char *key)
{
    int64_t n = mu_jtok_i64(j, get(j, key), 0);
    return n >= 1 && n <= MU_PTY_SIDE_MAX ? (unsigned)n : 0;
}

static void take_policy(struct mu_live *v, const struct mu_jtok *j)
{
    struct mu_err err;
    struct mu_guard g;
    int policy = get(j, "policy");
    if (mu_guard_read(mu_jtok_raw(j, policy), &g, &err) < 0) {
        mu_note("%s: the agent has to ask for everything", err.text);
    }
    mu_guard_fini(&v->guard);
    v->guard = g;
}

/* What the server has of each terminal: it is sent on from there. */
static void take_offsets(struct mu_live *v, const struct mu_jtok *j)
{
    int list = get(j, "terminals");
    for (size_t n = 0; n < MU_TERMS; n++) {
        v->terms[n].acked = v->terms[n].sent = 0;
    }
    for (int i = mu_jtok_first(j, list); i >= 0; i = mu_jtok_next(j, list, i)) {
        int n = get_terminal(j, mu_jtok_get(j, i, "terminal"), -1);
        int64_t offset = mu_jtok_i64(j, mu_jtok_get(j, i, "offset"), 0);
        if (n >= 0 && offset > 0) {
            struct mu_term *t = &v->terms[n];
            t->acked = t->sent = MU_MIN(offset, t->ring.end);
        }
    }
}

static void first_init(struct mu_live *v, const struct mu_jtok *j)
{
    char mode[32];
    unsigned cols = side(j, "cols"), rows = side(j, "rows");
    (void)get_id(j, "sessionId", v->session);
    v->epoch = mu_jtok_i64(j, get(j, "epoch"), 0);
    v->interactive =
        mu_jtok_copy(j, get(j, "mode"), mode, sizeof mode) && strcmp(mode, "interactive") == 0;
    (void)mu_jtok_copy(j, get(j, "harness"), v->harness, sizeof v->harness);
    (void)mu_jtok_copy(j, get(j, "conversationId"), v->load, sizeof v->load);
    if (!v->load[0] && v->r->restore) {
        snprintf(v->load, sizeof v->load, "%s", v->r->restore->m.conversation);
    }
    v->ckpt->on = mu_jtok_bool(j, get(j, "checkpoints"), false);
    (void)mu_jtok_copy(j, get(j, "model"), v->model, sizeof v->model);
    for (size_t n = 0; n < MU_TERMS; n++) {
        v->terms[n].cols = cols ? cols : v->terms[n].cols;
        v->terms[n].rows = rows ? rows : v->terms[n].rows;
    }
    v->told = true;
}

static void on_init(struct mu_live *v, const struct mu_jtok *j)
{
    char id[MU_LIVE_ID];
    if (!v->told) {
        first_init(v, j);
    }
    mu_hold_end(v); /* it is said again if it is wanted still */
    v->skip_permissions = mu_jtok_bool(j, get(j, "skipPermissions"), false);
    take_policy(v, j);
    take_offsets(v, j);
    int answers = get(j, "answers"), pending = get(j, "pending");
    for (int i = mu_jtok_first(j, answers); i >= 0; i = mu_jtok_next(j, answers, i)) {
        mu_gate_answer(v, j, i);
    }
    for (int i = mu_jtok_first(j, pending); i >= 0; i = mu_jtok_next(j, pending, i)) {
        if (mu_jtok_copy(j, i, id, sizeof id)) {
            mu_gate_pending(v, id);
        }
    }
}

static void on_prompt(struct mu_live *v, const struct mu_jtok *j)
{
    char id[MU_LIVE_ID];
    struct mu_buf text MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&text, MU_LIVE_PROMPT);
    if (get_id(j, "turnId", id) && mu_jtok_add(j, get(j, "content"), &text) == 0) {
        mu_turn_prompt(v, id, mu_buf_bytes(&text));
    }
}

static void on_answer(struct mu_live *v, const struct mu_jtok *j)
{
    if (v->hold.step != MU_HOLD_NONE) {
        return; /* nobody may hear it: it comes again when the agent goes on */
    }
    mu_gate_answer(v, j, 0);
}

static void on_abort(struct mu_live *v, const struct mu_jtok *j)
{
    char id[MU_LIVE_ID];
    bool named = get_id(j, "turnId", id);
    if (!named || strcmp(id, v->turn.id) == 0) {
        mu_turn_abort(v);
    }
}

static void on_stop(struct mu_live *v, const struct mu_jtok *j)
{
    int64_t grace = mu_jtok_i64(j, get(j, "graceMs"), MU_STOP_GRACE_MS);
    mu_procs_stop(&v->r->procs, MU_MAX(MU_MIN(grace, (int64_t)600000), (int64_t)1000));
}

static void on_end_session(struct mu_live *v, const struct mu_jtok *j MU_UNUSED)
{
    mu_turn_abort(v);
    mu_turn_over(v, "cancelled", "the session was ended", false);
    mu_live_end(v, 0, "%s", "");
}

static void on_input(struct mu_live *v, const struct mu_jtok *j)
{
    struct mu_buf text MU_CLEANUP(mu_buf_fini), coded MU_CLEANUP(mu_buf_fini);
    int n = get_terminal(j, get(j, "terminal"), -1);
    mu_buf_init(&text, MU_TERM_INPUT);
    mu_buf_init(&coded, MU_TERM_INPUT * 2);
    if (n < 0) {
        return;
    }
    int r = mu_jtok_add(j, get(j, "data"), &text);
    if (r < 0) {
        r = mu_jtok_add(j, get(j, "data64"), &coded);
        r = r ? r : mu_base64_decode(mu_buf_bytes(&coded), &text);
    }
    if (mu_jtok_is(j, get(j, "mode"), MU_B("line"))) {
        mu_buf_add_char(&text, '\r');
    }
    if (!r && !text.failed) {
        mu_term_type(v, (unsigned)n, mu_buf_bytes(&text));
        mu_checkpoint_typed(v);
    }
}

static void on_resize(struct mu_live *v, const struct mu_jtok *j)
{
    int n = get_terminal(j, get(j, "terminal"), -1);
    unsigned cols = side(j, "cols"), rows = side(j, "rows");
    if (n < 0 || !cols || !rows) {
        return;
    }
    struct mu_term *t = &v->terms[n];
    t->cols = cols;
    t->rows = rows;
    if (t->fd >= 0) {
        (void)mu_pty_resize(t->fd, cols, rows);
    }
}

/* --- terminals --- */

static void say_terminal(struct mu_live *v, const char *request, int n, const char *error)
{
    struct mu_json_w *w = mu_link_begin(&v->link, "terminal");
    mu_jw_kcstr(w, "requestId", request);
    if (n >= 0) {
        mu_jw_ki64(w, "terminal", n);
    }
    mu_jw_kbool(w, "ok", !error);
    if (error) {
        mu_jw_kcstr(w, "error", error);
    }
    mu_link_end(&v->link);
}

static int free_terminal(const struct mu_live *v)
{
    for (int n = 1; n < MU_TERMS; n++) {
        if (!v->terms[n].open && v->terms[n].pid == 0) {
            return n;
        }
    }
    return -1;
}

static bool known_request(const struct mu_live *v, const char *id)
{
    for (size_t i = 0; i < MU_MIN(v->n_opened, (size_t)MU_LIVE_REMEMBER); i++) {
        if (strcmp(v->opened[i].id, id) == 0) {
            return true; /* its answer is on the way or there */
        }
    }
    return false;
}

static int start_terminal(struct mu_live *v, const struct mu_jtok *j, int n)
{
    char command[8192];
    int c = get(j, "command");
    const char *const argv[] = {"/bin/sh", "-c", command, NULL};
    bool given = mu_jtok_copy(j, c, command, sizeof command) && command[0];
    if (c >= 0 && mu_jtok_kind(j, c) != MU_JTOK_NULL && !given) {
        return MU_E_INVALID;
    }
    return mu_term_start(v, (unsigned)n, given ? argv : NULL, -1, side(j, "cols"), side(j, "rows"));
}

static void on_terminal_open(struct mu_live *v, const struct mu_jtok *j)
{
    char request[MU_LIVE_ID], data[64];
    int wanted = get(j, "terminal");
    if (!get_id(j, "requestId", request) || known_request(v, request)) {
        return;
    }
    int n =
        mu_jtok_kind(j, wanted) == MU_JTOK_NUMBER ? get_terminal(j, wanted, -1) : free_terminal(v);
    size_t slot = v->n_opened++ % MU_LIVE_REMEMBER;
    snprintf(v->opened[slot].id, sizeof v->opened[slot].id, "%s", request);
    if (n < 1) {
        say_terminal(v, request, -1, "no such terminal, or all are open");
        return;
    }
    if (v->terms[n].open) {
        say_terminal(v, request, n, NULL);
        return;
    }
    int r = v->push.settled ? start_terminal(v, j, n) : MU_E_UNAVAILABLE;
    say_terminal(v, request, n, r ? mu_err_text(r) : NULL);
    if (!r) {
        int len = snprintf(data, sizeof data, "{\"terminal\":%d}", n);
        mu_live_event(v, "TERMINAL_OPENED", mu_bytes_of(data, (size_t)len));
        if (get(j, "command") >= 0) {
            mu_checkpoint_typed(v);
        }
    }
}

static void on_terminal_close(struct mu_live *v, const struct mu_jtok *j)
{
    int n = get_terminal(j, get(j, "terminal"), -1);
    if (n > 0) {
        mu_term_close(v, (unsigned)n);
    }
}

static void on_terminal_ack(struct mu_live *v, const struct mu_jtok *j)
{
    int n = get_terminal(j, get(j, "terminal"), -1);
    int64_t offset = mu_jtok_i64(j, get(j, "offset"), 0);
    if (n >= 0) {
        struct mu_term *t = &v->terms[n];
        t->acked = MU_MAX(t->acked, MU_MIN(offset, t->sent));
    }
}

static void on_diff(struct mu_live *v, const struct mu_jtok *j)
{
    char id[MU_LIVE_ID];
    if (!get_id(j, "requestId", id)) {
        return;
    }
    for (size_t i = 0; i < v->n_diffs; i++) {
        if (strcmp(v->diffs[i].id, id) == 0) {
            return;
        }
    }
    if (v->n_diffs < MU_LIVE_DIFFS && !mu_link_full(&v->link)) {
        memcpy(v->diffs[v->n_diffs].id, id, sizeof id);
        v->diffs[v->n_diffs++].patch = mu_jtok_bool(j, get(j, "patch"), false);
    }
}

static void on_policy(struct mu_live *v, const struct mu_jtok *j)
{
    take_policy(v, j);
}

static void on_checkpoint(struct mu_live *v, const struct mu_jtok *j)
{
    mu_checkpoint_told(v, j);
}

static void on_hibernate(struct mu_live *v, const struct mu_jtok *j)
{
    char id[MU_LIVE_ID];
    if (get_id(j, "requestId", id)) {
        mu_hold_begin(v, id);
    }
}

static void on_hibernate_cancel(struct mu_live *v, const struct mu_jtok *j MU_UNUSED)
{
    mu_hold_end(v);
}

void mu_live_message(void *arg, const struct mu_jtok *j)
{
    static const struct {
        const char *type;
        void (*run)(struct mu_live *v, const struct mu_jtok *j);
    } handlers[] = {
        {"init", on_init},
        {"prompt", on_prompt},
        {"answer", on_answer},
        {"abort", on_abort},
        {"stop", on_stop},
        {"end-session", on_end_session},
        {"input", on_input},
        {"resize", on_resize},
        {"terminal-open", on_terminal_open},
        {"terminal-close", on_terminal_close},
        {"terminal-ack", on_terminal_ack},
        {"diff", on_diff},
        {"policy", on_policy},
        {"checkpoint", on_checkpoint},
        {"hibernate", on_hibernate},
        {"hibernate-cancel", on_hibernate_cancel},
    };
    int type = get(j, "type");
    for (size_t i = 0; i < MU_ARRAY_LEN(handlers); i++) {
        if (mu_jtok_is(j, type, mu_str(handlers[i].type))) {
            handlers[i].run(arg, j);
            return;
        }
    }
}
