/* What a runner of the host hears: orders and messages as calls, on the lane of runners. */
#include <errno.h>
#include <stdio.h>

#include "base/encode.h"
#include "lib/runner_int.h"

enum { HEARD_ARENA = 64 << 20, ANSWERED_MAX = 128 };

struct session_name {
    char text[MU_CP_ID + 1];
};

static struct session_name name_of(const struct mu_execution *of)
{
    struct session_name n;
    snprintf(n.text, sizeof n.text, "ses_%s", of->session.text);
    return n;
}

/* --- a start --- */

struct started {
    struct cp_item item;
    struct mu_order *order;
};

static void drop_started(struct cp_item *it)
{
    struct started *s = MU_CONTAINER(it, struct started, item);
    mu_order_free(s->order);
    mu_free(s);
}

static void run_started(struct mu_cp *cp MU_UNUSED, struct cp_item *it)
{
    struct started *s = MU_CONTAINER(it, struct started, item);
    struct mu_cp_runner *r = it->runner;
    const struct mu_assignment *job = &s->order->job;
    struct session_name name = name_of(&s->order->of);
    mu_cp_str *vars = mu_arena_calloc(&s->order->arena, (2 * job->n_vars + 1) * sizeof *vars);
    for (size_t i = 0; vars && i < job->n_vars; i++) {
        vars[i] = mu_cp_out(job->vars[i].name);
        vars[job->n_vars + i] = mu_cp_out(job->vars[i].value);
    }
    const mu_cp_assignment a = {.session_id = mu_cp_text(name.text),
                                .execution_id = mu_cp_text(s->order->of.execution.text),
                                .epoch = s->order->of.epoch,
                                .task = mu_cp_out(job->prompt),
                                .harness = mu_cp_out(job->harness),
                                .model = mu_cp_out(job->model),
                                .workspace = mu_cp_out(job->env_spec),
                                .config = mu_cp_out(job->config),
                                .env_names = vars,
                                .env_values = vars ? vars + job->n_vars : NULL,
                                .n_env = job->n_vars,
                                .deadline_ms = job->deadline_ms};
    if (vars) {
        r->ops.start(r, &a, r->user);
    } else {
        (void)mu_cp_runner_reject(r, a.session_id);
    }
    drop_started(it);
}

void mu_lib_heard_start(struct cp_exec *x, struct mu_order *o)
{
    bool full = mu_lib_full(x->r->cp, &x->r->cp->asked);
    struct started *s = full ? NULL : mu_calloc(1, sizeof *s);
    if (!s) {
        mu_lib_exec_free(x);
        mu_fleet_unsent(o);
        return;
    }
    s->order = o;
    s->item = (struct cp_item){.bytes = sizeof *o + o->job.prompt.len + o->job.config.len,
                               .runner = x->r,
                               .run = run_started,
                               .drop = drop_started};
    mu_lib_give(x->r->cp, &x->r->cp->asked, &s->item);
}

/* --- everything else --- */

static void drop_heard(struct cp_item *it)
{
    struct cp_heard *h = MU_CONTAINER(it, struct cp_heard, item);
    mu_arena_fini(&h->arena);
    mu_free(h);
}

/* The server is told that its decision was taken. */
static void tell_answered(struct mu_cp_runner *r, const struct cp_heard *h, mu_cp_str session)
{
    char json[ANSWERED_MAX];
    int n =
        snprintf(json, sizeof json,
                 "{\"type\":\"answered\",\"questionId\":\"%.*s\",\"taken\":true}", MU_ARGS(h->a));
    (void)mu_cp_runner_say(r, session, (mu_cp_str){json, (size_t)n});
}

struct did {
    struct mu_post post;
    struct mu_cp_runner *r;
    struct mu_execution of;
    struct mu_id command;
    bool did;
};

static void tell_did(struct mu_post *post)
{
    struct did *d = MU_CONTAINER(post, struct did, post);
    struct cp_exec *x = mu_lib_exec_find(d->r, mu_id_bytes(&d->of.session));
    struct mu_report *r;
    if (x && x->of.epoch == d->of.epoch && x->r->attached &&
        mu_lib_report_new(x, MU_REPORT_DID, &r) == 0) {
        r->command = d->command;
        r->did = d->did;
        if (!d->did) {
            r->message = MU_B("The runner does not pause");
        }
        mu_fleet_tell(x->r->cp->d.fleet, r);
    }
    mu_free(d);
}

/* Without memory the server hears nothing, and its caller that it does not answer. */
static void stand_still(struct mu_cp_runner *r, const struct cp_heard *h, mu_cp_str session)
{
    bool did = !r->ops.pause || r->ops.pause(r, session, h->n != 0, r->user) != 0;
    struct did *d = mu_calloc(1, sizeof *d);
    if (d) {
        *d = (struct did){
            .post = {.fn = tell_did}, .r = r, .of = h->of, .command = h->command, .did = did};
        mu_loop_post(r->cp->loop, &d->post);
    }
}

static void decided(struct mu_cp_runner *r, const struct cp_heard *h, mu_cp_str session)
{
    const mu_cp_decision d = {.approval_id = mu_cp_out(h->a),
                              .decision = mu_cp_out(h->b),
                              .scope = mu_cp_out(h->c),
                              .reason = mu_cp_out(h->d),
                              .by = mu_cp_out(h->e),
                              .answer = mu_cp_out(h->f)};
    if (r->ops.decided) {
        r->ops.decided(r, session, &d, r->user);
    }
    tell_answered(r, h, session);
}

static void call_host(struct mu_cp_runner *r, const struct cp_heard *h, mu_cp_str session)
{
    const mu_cp_runner_ops *o = &r->ops;
    mu_cp_str a = mu_cp_out(h->a), b = mu_cp_out(h->b);
    unsigned terminal = (unsigned)h->n;
    switch (h->kind) {
    case CP_STOP:
        o->stop ? o->stop(r, session, h->n != 0, r->user) : (void)0;
        break;
    case CP_PROMPT:
        o->prompt ? o->prompt(r, session, a, b, r->user) : (void)0;
        break;
    case CP_DECIDED:
        decided(r, h, session);
        break;
    case CP_INPUT:
        o->input ? o->input(r, session, terminal, a, h->m != 0, r->user) : (void)0;
        break;
    case CP_RESIZE:
        o->resize ? o->resize(r, session, terminal, (int)h->m, (int)h->k, r->user) : (void)0;
        break;
    case CP_INTERRUPT:
        o->interrupt ? o->interrupt(r, session, a, r->user) : (void)0;
        break;
    case CP_END:
        o->end ? o->end(r, session, r->user) : (void)0;
        break;
    case CP_PAUSE:
        stand_still(r, h, session);
        break;
    case CP_MESSAGE:
        o->message ? o->message(r, session, a, r->user) : (void)0;
        break;
    }
}

static void run_heard(struct mu_cp *cp MU_UNUSED, struct cp_item *it)
{
    struct cp_heard *h = MU_CONTAINER(it, struct cp_heard, item);
    struct session_name name = name_of(&h->of);
    call_host(it->runner, h, mu_cp_text(name.text));
    drop_heard(it);
}

struct cp_heard *mu_lib_heard_new(struct cp_exec *x, enum cp_heard_kind kind)
{
    /* a stop is never left out; a pause has somebody who waits for it */
    bool must = kind == CP_STOP || kind == CP_PAUSE || kind == CP_END;
    bool full = !must && mu_lib_full(x->r->cp, &x->r->cp->asked);
    struct cp_heard *h = full ? NULL : mu_calloc(1, sizeof *h);
    if (h) {
        h->kind = kind;
        h->of = x->of;
        h->item = (struct cp_item){.runner = x->r, .run = run_heard, .drop = drop_heard};
        mu_arena_init(&h->arena, HEARD_ARENA);
    }
    return h;
}

bool mu_lib_heard_give(struct cp_exec *x, struct cp_heard *h)
{
    mu_bytes *texts[] = {&h->a, &h->b, &h->c, &h->d, &h->e, &h->f};
    for (size_t i = 0; i < MU_ARRAY_LEN(texts); i++) {
        if (texts[i]->ptr) {
            *texts[i] = mu_arena_dup(&h->arena, *texts[i]);
            h->item.bytes += texts[i]->len;
            if (!texts[i]->ptr) {
                drop_heard(&h->item);
                return false;
            }
        }
    }
    h->item.bytes += sizeof *h;
    mu_lib_give(x->r->cp, &x->r->cp->asked, &h->item);
    return true;
}
