/* What people want of a running session: checked against what the database says of it, handed to
 * its runner or worker, and answered when that did it or did not in time. */
#include <errno.h>
#include <stdio.h>

#include "app/live/live_int.h"
#include "app/sessions/hibernate.h"
#include "base/encode.h"

enum { INPUT_MAX = 64 << 10, INPUT_BUF = 512 << 10, ANSWER_MAX = 1 << 20 };

/* A call on its way. */
struct asked {
    struct mu_list link; /* of its session while it waits there */
    struct mu_live_call *call;
    struct mu_live *l;
    struct mu_live_session *s; /* NULL: it waits for no runner */
    struct mu_timer timer;
    struct mu_id command;
    struct mu_session_get get;
    struct mu_session_pause pause;
    struct mu_session_resume resume;
    struct mu_session_wake wake;
    int state;
};

static struct asked *asked_of(struct mu_live_call *call)
{
    return call->own;
}

static void tell(struct mu_post *post)
{
    struct mu_live_call *call = MU_CONTAINER(post, struct mu_live_call, post);
    call->done(call, call->result);
}

static void finish(struct asked *a, int result)
{
    struct mu_live_call *call = a->call;
    mu_timer_clear(&a->timer);
    if (a->s) {
        mu_list_remove(&a->link);
        a->s->n_calls--;
    }
    call->state = a->state;
    call->result = result;
    call->own = NULL;
    mu_free(a);
    call->post.fn = tell;
    mu_loop_post(call->loop, &call->post);
}

void mu_live_call_end(struct mu_live_session *s MU_UNUSED, struct mu_live_call *call, int result)
{
    finish(asked_of(call), result);
}

void mu_live_calls_end(struct mu_live_session *s, int result)
{
    MU_LIST_EACH(it, tmp, &s->calls)
    {
        finish(MU_CONTAINER(it, struct asked, link), result);
    }
}

static void too_late(struct mu_timer *t)
{
    finish(MU_CONTAINER(t, struct asked, timer), MU_E_UNAVAILABLE);
}

/* It waits for an answer of the runner or the worker. */
static bool wait(struct asked *a, struct mu_live_session *s)
{
    if (s->n_calls >= MU_LIVE_CALLS || mu_timer_set(&a->timer, a->l->opts.command_ms) < 0) {
        return false;
    }
    a->s = s;
    mu_list_push(&s->calls, &a->link);
    s->n_calls++;
    return true;
}

/* --- messages --- */

static void put_data(struct mu_json_w *w, const struct mu_live_call *c)
{
    if (mu_utf8_valid(c->data)) {
        mu_jw_kstr(w, "data", c->data);
        return;
    }
    struct mu_buf b;
    mu_buf_init(&b, 2 * INPUT_MAX);
    mu_base64_add(&b, c->data);
    mu_jw_kstr(w, "data64", mu_buf_bytes(&b));
    w->buf->failed = w->buf->failed ? w->buf->failed : b.failed;
    mu_buf_fini(&b);
}

static void put_call(struct mu_json_w *w, const struct asked *a)
{
    const struct mu_live_call *c = a->call;
    switch (c->want) {
    case MU_LIVE_INPUT:
        mu_jw_ki64(w, "terminal", c->terminal);
        put_data(w, c);
        mu_jw_kcstr(w, "mode", c->line ? "line" : "raw");
        break;
    case MU_LIVE_RESIZE:
        mu_jw_ki64(w, "terminal", c->terminal);
        mu_jw_ki64(w, "cols", c->cols);
        mu_jw_ki64(w, "rows", c->rows);
        break;
    case MU_LIVE_OPEN:
        mu_jw_ki64(w, "cols", c->cols);
        mu_jw_ki64(w, "rows", c->rows);
        if (c->data.len) {
            mu_jw_kstr(w, "command", c->data);
        }
        break;
    case MU_LIVE_CLOSE:
        mu_jw_ki64(w, "terminal", c->terminal);
        break;
    case MU_LIVE_ABORT:
        if (c->turn.text[0]) {
            mu_jw_kstr(w, "turnId", mu_id_bytes(&c->turn));
        }
        break;
    case MU_LIVE_DIFF:
        mu_jw_kbool(w, "patch", c->with_patch);
        break;
    default:
        break;
    }
}

static const struct {
    const char *type;
    bool answered; /* else it is done when it was sent */
} kinds[] = {
    [MU_LIVE_INPUT] = {"input", false},       [MU_LIVE_RESIZE] = {"resize", false},
    [MU_LIVE_OPEN] = {"terminal-open", true}, [MU_LIVE_CLOSE] = {"terminal-close", false},
    [MU_LIVE_ABORT] = {"abort", false},       [MU_LIVE_DIFF] = {"diff", true},
    [MU_LIVE_END] = {"end-session", false},
};

static void to_runner(struct asked *a, struct mu_live_session *s)
{
    struct mu_buf b;
    mu_buf_init(&b, INPUT_BUF);
    struct mu_json_w w = mu_live_begin(&b, kinds[a->call->want].type);
    mu_jw_kstr(&w, "requestId", mu_id_bytes(&a->command));
    put_call(&w, a);
    mu_jw_obj_end(&w);
    bool sent = s->phase == MU_LIVE_TALKING && mu_live_send(s, &b);
    s->active_ms = mu_live_now(s->l);
    mu_buf_fini(&b);
    if (!sent || (kinds[a->call->want].answered && !wait(a, s))) {
        finish(a, MU_E_UNAVAILABLE);
    } else if (!kinds[a->call->want].answered) {
        finish(a, 0);
    }
}

/* --- pause and resume: the worker first, then the database --- */

static void paused(struct mu_session_pause *op, int result)
{
    struct asked *a = op->ctx;
    struct mu_live_session *s = mu_live_find(a->l, &a->call->session);
    if (result >= 0) {
        a->state = MU_ST_PAUSED;
        if (s) {
            s->state = MU_ST_PAUSED;
        }
    } else if (s) { /* it moved meanwhile: nothing stands still for that */
        struct mu_id none = mu_id_random(a->l->opts.env);
        (void)!mu_fleet_pause(a->l->opts.fleet, &s->of, false, &none);
    }
    finish(a, result);
}

static void store_pause(struct asked *a)
{
    struct mu_live_call *c = a->call;
    a->pause =
        (struct mu_session_pause){.unit = {.loop = a->l->opts.core},
                                  .admin = c->admin,
                                  .org_id = c->org_id,
                                  .by = c->by,
                                  .id = c->session,
                                  .hold_until_ms = mu_live_now(a->l) + a->l->opts.paused_max_ms,
                                  .done = paused,
                                  .ctx = a};
    int r = mu_session_pause(a->l->opts.sessions, &a->pause);
    if (r < 0) {
        finish(a, r);
    }
}

static void resumed(struct mu_session_resume *op, int result)
{
    struct asked *a = op->ctx;
    struct mu_live_session *s = mu_live_find(a->l, &a->call->session);
    if (result < 0 || !s) {
        finish(a, result < 0 ? result : MU_E_UNAVAILABLE);
        return;
    }
    if (s->refrozen) { /* just before that was stored */
        struct mu_id none = mu_id_random(a->l->opts.env);
        (void)!mu_fleet_pause(a->l->opts.fleet, &s->of, false, &none);
        s->refrozen = false;
    }
    a->state = s->state = op->to;
    mu_live_gates_of(a->l, &s->id, MU_LIVE_GATE_RETRY_MS);
    s->want_turn = true;
    if (s->task == MU_LIVE_IDLE) {
        mu_live_next(s);
    }
    finish(a, 0);
}

static void store_resume(struct asked *a)
{
    struct mu_live_call *c = a->call;
    a->resume = (struct mu_session_resume){.unit = {.loop = a->l->opts.core},
                                           .admin = c->admin,
                                           .org_id = c->org_id,
                                           .by = c->by,
                                           .id = c->session,
                                           .done = resumed,
                                           .ctx = a};
    int r = mu_session_resume(a->l->opts.sessions, &a->resume);
    if (r < 0) {
        finish(a, r);
    }
}

static void woken(struct mu_session_wake *op, int result)
{
    struct asked *a = op->ctx;
    if (result >= 0) {
        a->state = MU_ST_QUEUED_WORKER;
        mu_live_gates_of(a->l, &a->call->session, MU_LIVE_GATE_RETRY_MS);
        mu_live_poke(a->l, &a->call->session);
    }
    finish(a, result);
}

static void wake(struct asked *a)
{
    struct mu_live_call *c = a->call;
    a->wake = (struct mu_session_wake){.unit = {.loop = a->l->opts.core},
                                       .admin = c->admin,
                                       .org_id = c->org_id,
                                       .by = c->by,
                                       .id = c->session,
                                       .done = woken,
                                       .ctx = a};
    int r = mu_session_wake(a->l->opts.sessions, &a->wake);
    if (r < 0) {
        finish(a, r);
    }
}

void mu_live_call_did(struct mu_live_session *s, const struct mu_id *command, bool did)
{
    MU_LIST_EACH(it, tmp, &s->calls)
    {
        struct asked *a = MU_CONTAINER(it, struct asked, link);
        if (strcmp(a->command.text, command->text) != 0) {
            continue;
        }
        mu_timer_clear(&a->timer);
        mu_list_remove(&a->link);
        s->n_calls--;
        a->s = NULL;
        if (!did) {
            finish(a, MU_E_UNAVAILABLE);
        } else if (a->call->want == MU_LIVE_PAUSE) {
            store_pause(a);
        } else {
            store_resume(a);
        }
        return;
    }
}

static void to_worker(struct asked *a, struct mu_live_session *s)
{
    bool pause = a->call->want == MU_LIVE_PAUSE;
    if (mu_fleet_pause(a->l->opts.fleet, &s->of, pause, &a->command) < 0 || !wait(a, s)) {
        finish(a, MU_E_UNAVAILABLE);
    }
}

/* --- answers of the runner --- */

void mu_live_call_answer(struct mu_live_session *s, yyjson_val *m)
{
    mu_bytes request = mu_json_get_bytes(m, "requestId");
    MU_LIST_EACH(it, tmp, &s->calls)
    {
        struct asked *a = MU_CONTAINER(it, struct asked, link);
        if (!mu_bytes_is(request, a->command.text)) {
            continue;
        }
        bool opened = a->call->want == MU_LIVE_OPEN;
        int result = 0;
        if (mu_json_get_bytes(m, "error").len || (opened && !mu_json_get_bool(m, "ok", false))) {
            result = MU_E_CONFLICT;
        }
        a->call->terminal = (unsigned)MU_MAX(mu_json_get_i64(m, "terminal", 0), 0);
        mu_json_add(&a->call->answer, m);
        finish(a, a->call->answer.failed ? a->call->answer.failed : result);
        return;
    }
}

/* --- the way in --- */

static bool may(enum mu_live_want want, int state)
{
    switch (want) {
    case MU_LIVE_PAUSE:
    case MU_LIVE_INPUT:
    case MU_LIVE_ABORT:
    case MU_LIVE_END:
        return state == MU_ST_RUNNING || state == MU_ST_WAITING;
    case MU_LIVE_RESUME:
        return state == MU_ST_PAUSED || mu_state_sleeps(state);
    default:
        return state == MU_ST_RUNNING || state == MU_ST_WAITING;
    }
}

static int see(void *arg, const struct mu_session_view *v)
{
    struct asked *a = arg;
    a->state = v->state;
    return 0;
}

static void decide(struct asked *a, struct mu_live_session *s)
{
    if (!s && a->call->want == MU_LIVE_RESUME && a->state == MU_ST_PAUSED && !a->l->stopping) {
        s = mu_live_expect(a->l, &a->call->session); /* frozen, it cannot come by itself */
    }
    if (a->l->stopping) {
        finish(a, MU_E_SHUTDOWN);
    } else if (!may(a->call->want, a->state)) {
        finish(a, MU_E_CONFLICT);
    } else if (mu_state_sleeps(a->state)) {
        wake(a);
    } else if (!s) {
        finish(a, MU_E_UNAVAILABLE);
    } else if (a->call->want == MU_LIVE_PAUSE || a->call->want == MU_LIVE_RESUME) {
        to_worker(a, s);
    } else if (a->call->want == MU_LIVE_TAKE) {
        finish(a, mu_live_control(s, a->call));
    } else if (!mu_live_control_allows(s, a->call)) {
        finish(a, MU_E_FORBIDDEN);
    } else {
        to_runner(a, s);
    }
}

static void looked_up(struct mu_session_get *op, int result)
{
    struct asked *a = op->ctx;
    if (result < 0) {
        finish(a, result);
    } else {
        decide(a, mu_live_find(a->l, &a->call->session));
    }
}

/* Where its runner talks, what is known of it is at hand: keystrokes keep their order. */
static void look_up(struct asked *a)
{
    struct mu_live_call *call = a->call;
    struct mu_live_session *s = mu_live_find(a->l, &call->session);
    bool asks = call->want == MU_LIVE_LET_GO || call->want == MU_LIVE_HOLDER;
    if (s && s->phase == MU_LIVE_TALKING) {
        a->state = s->state;
        if (!call->admin && !mu_bytes_is(call->org_id, s->org_id)) {
            finish(a, MU_E_NOT_FOUND);
        } else if (asks) {
            finish(a, mu_live_control(s, call));
        } else {
            decide(a, s);
        }
        return;
    }
    if (asks) { /* nobody has it */
        finish(a, 0);
        return;
    }
    a->get = (struct mu_session_get){.read = {.loop = a->l->opts.core},
                                     .admin = call->admin,
                                     .org_id = call->org_id,
                                     .id = call->session,
                                     .each = see,
                                     .arg = a,
                                     .done = looked_up,
                                     .ctx = a};
    int r = mu_session_get(a->l->opts.sessions, &a->get);
    if (r < 0) {
        finish(a, r);
    }
}

static void ask(struct mu_post *post)
{
    struct mu_live_call *call = MU_CONTAINER(post, struct mu_live_call, post);
    struct mu_live *l = call->live;
    struct asked *a = mu_calloc(1, sizeof *a);
    call->own = a;
    if (!a) {
        call->result = -ENOMEM;
        call->post.fn = tell;
        mu_loop_post(call->loop, &call->post);
        return;
    }
    a->call = call;
    a->l = l;
    a->command = mu_id_random(l->opts.env);
    mu_list_init(&a->link);
    mu_timer_init(&a->timer, l->opts.core, too_late);
    if (call->data.len > INPUT_MAX) {
        finish(a, MU_E_TOO_LARGE);
    } else if (l->stopping) {
        finish(a, MU_E_SHUTDOWN);
    } else {
        look_up(a);
    }
}

void mu_live_ask(struct mu_live *l, struct mu_live_call *call)
{
    call->live = l;
    mu_buf_init(&call->answer, ANSWER_MAX);
    call->post.fn = ask;
    mu_loop_post(l->opts.core, &call->post);
}

/* --- pokes --- */

struct poke {
    struct mu_post post;
    struct mu_live *l;
    struct mu_id session;
};

static void poked(struct mu_post *post)
{
    struct poke *p = MU_CONTAINER(post, struct poke, post);
    bool known = mu_fleet_knows(p->l->opts.fleet, &p->session);
    struct mu_live_session *s = known ? mu_live_find(p->l, &p->session) : NULL;
    if (s) {
        s->want_turn = s->want_answers = true;
        if (s->task == MU_LIVE_IDLE) {
            mu_live_next(s);
        }
    } else {
        mu_live_woken(p->l, &p->session);
    }
    mu_free(p);
}

void mu_live_poke(struct mu_live *l, const struct mu_id *session)
{
    struct poke *p = mu_calloc(1, sizeof *p);
    if (!p) {
        return; /* it is told when its runner comes anew */
    }
    p->l = l;
    p->session = *session;
    p->post.fn = poked;
    mu_loop_post(l->opts.core, &p->post);
}
