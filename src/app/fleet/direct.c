/* Runners that came by themselves (agent-ops.md 9.1): those of workers that hand nothing on. Their
 * socket belongs to one attempt, a newer one takes the older one's place, and what they say goes
 * where the words of all runners go. Posts keep their order, so the peer lives until release(). */
#include <errno.h>

#include "app/fleet/fleet_int.h"

enum { REPLACED = 4410, OVER = 4401, POLICY = 1008, GOING_AWAY = 1001 };

/* A message to or from one, or the end of its connection. */
struct mu_direct {
    struct mu_post post;
    struct mu_runner_peer *peer;
    bool binary;
    unsigned terminal;
    int64_t offset;
    int code;
    const char *reason;
    size_t len;
    char text[];
};

static struct mu_direct *direct_new(struct mu_runner_peer *p, mu_bytes text)
{
    struct mu_direct *d = mu_calloc(1, sizeof *d + text.len + 1);
    if (d) {
        d->peer = p;
        d->len = text.len;
        if (text.len) {
            memcpy(d->text, text.ptr, text.len);
        }
    }
    return d;
}

/* --- to it, on its loop --- */

static void tell_there(struct mu_post *post)
{
    struct mu_direct *d = MU_CONTAINER(post, struct mu_direct, post);
    d->peer->told(d->peer, mu_bytes_of(d->text, d->len));
    mu_free(d);
}

static void close_there(struct mu_post *post)
{
    struct mu_runner_peer *p = MU_CONTAINER(post, struct mu_runner_peer, close_post);
    p->close(p, p->close_code, p->close_reason);
}

static void admitted_there(struct mu_post *post)
{
    struct mu_runner_peer *p = MU_CONTAINER(post, struct mu_runner_peer, admit_post);
    p->admitted(p, p->result);
}

static void release_there(struct mu_post *post)
{
    struct mu_runner_peer *p = MU_CONTAINER(post, struct mu_runner_peer, gone_post);
    p->release(p);
}

static void hang_up(struct mu_runner_peer *p, int code, const char *reason)
{
    p->close_code = code;
    p->close_reason = reason;
    p->close_post.fn = close_there;
    mu_loop_post(p->loop, &p->close_post);
}

/* From here on it is nobody's: so this happens once to each. */
static void part(struct mu_work_item *k, int code, const char *reason)
{
    struct mu_runner_peer *p = k->direct;
    k->direct = NULL;
    hang_up(p, code, reason);
}

int mu_direct_tell(struct mu_work_item *k, mu_bytes json)
{
    struct mu_direct *d = direct_new(k->direct, json);
    if (!d) {
        return -ENOMEM;
    }
    d->post.fn = tell_there;
    mu_loop_post(k->direct->loop, &d->post);
    return 0;
}

void mu_direct_over(struct mu_work_item *k)
{
    if (k->direct) {
        part(k, OVER, "This attempt is over");
    }
}

void mu_fleet_runner_drop(struct mu_fleet *f, const struct mu_execution *of)
{
    struct mu_task *t = mu_map_get(&f->tasks, mu_id_bytes(&of->session));
    if (t && t->work && t->work->direct && t->epoch == of->epoch) {
        part(t->work, POLICY, "What it said was not taken");
    }
}

bool mu_fleet_runner_by_worker(const struct mu_fleet *f, const struct mu_execution *of)
{
    const struct mu_task *t = mu_map_get(&f->tasks, mu_id_bytes(&of->session));
    return t && t->work && !t->work->direct;
}

/* --- from it, on the core loop --- */

/* The attempt that it is the runner of. */
static struct mu_task *task_of(const struct mu_runner_peer *p)
{
    const struct mu_fleet *f = p->fleet;
    struct mu_task *t = f->ended ? NULL : mu_map_get(&f->tasks, mu_id_bytes(&p->session));
    return t && t->work && t->epoch == p->epoch ? t : NULL;
}

static int may_enter(const struct mu_runner_peer *p)
{
    const struct mu_fleet *f = p->fleet;
    const struct mu_task *t = task_of(p);
    const struct mu_work_item *k = t ? t->work : NULL;
    if (f->ended || f->stopping) {
        return MU_E_SHUTDOWN;
    }
    if (!k || k->end || k->want != MU_WANT_NOTHING) {
        return MU_E_CANCELLED;
    }
    if (!k->offered || !k->sent) {
        return MU_E_BUSY;
    }
    return k->w->native || !(t->needs & MU_NEED_LIVE) ? MU_E_CONFLICT : 0;
}

static void admit_here(struct mu_post *post)
{
    struct mu_runner_peer *p = MU_CONTAINER(post, struct mu_runner_peer, admit_post);
    p->result = may_enter(p);
    p->admit_post.fn = admitted_there;
    mu_loop_post(p->loop, &p->admit_post);
}

void mu_fleet_runner_admit(struct mu_fleet *f, struct mu_runner_peer *p)
{
    p->fleet = f;
    p->admit_post.fn = admit_here;
    mu_loop_post(f->opts.core, &p->admit_post);
}

static void attach_here(struct mu_post *post)
{
    struct mu_runner_peer *p = MU_CONTAINER(post, struct mu_runner_peer, attach_post);
    struct mu_task *t = task_of(p);
    int r = may_enter(p);
    if (r < 0 || !t) {
        bool stops = r == MU_E_SHUTDOWN;
        hang_up(p, stops ? GOING_AWAY : OVER, stops ? "Server shutting down" : "It is over");
        return;
    }
    struct mu_work_item *k = t->work;
    if (k->direct) {
        mu_runner_gone(t);
        part(k, REPLACED, "Another connection of this runner took its place");
    }
    k->direct = p;
    k->report_ms = mu_loop_now_ms(t->f->opts.core);
}

void mu_fleet_runner_attach(struct mu_runner_peer *p)
{
    p->attach_post.fn = attach_here;
    mu_loop_post(p->fleet->opts.core, &p->attach_post);
}

static void gone_here(struct mu_post *post)
{
    struct mu_runner_peer *p = MU_CONTAINER(post, struct mu_runner_peer, gone_post);
    struct mu_task *t = task_of(p);
    if (t && t->work->direct == p) {
        t->work->direct = NULL;
        mu_runner_gone(t);
    }
    p->gone_post.fn = release_there;
    mu_loop_post(p->loop, &p->gone_post);
}

void mu_fleet_runner_gone(struct mu_runner_peer *p)
{
    p->gone_post.fn = gone_here;
    mu_loop_post(p->fleet->opts.core, &p->gone_post);
}

static void said_here(struct mu_post *post)
{
    struct mu_direct *d = MU_CONTAINER(post, struct mu_direct, post);
    struct mu_runner_peer *p = d->peer;
    struct mu_task *t = task_of(p);
    struct mu_fleet *f = p->fleet;
    atomic_fetch_sub(&p->waiting, d->len + sizeof *d);
    if (t && t->work->direct == p && f->runners) {
        const struct mu_execution of = {t->id, t->work->execution, t->epoch, 0};
        mu_bytes text = mu_bytes_of(d->text, d->len);
        t->work->report_ms = mu_loop_now_ms(f->opts.core);
        if (d->binary) {
            f->runners->terminal(f->runners_arg, &of, d->terminal, d->offset, text);
        } else {
            f->runners->message(f->runners_arg, &of, text);
        }
    } else if (!f->ended) {
        mu_metric_add(f->ignored, 1);
    }
    mu_free(d);
}

static int say(struct mu_runner_peer *p, struct mu_direct *d)
{
    if (!d) {
        return -ENOMEM;
    }
    size_t before = atomic_fetch_add(&p->waiting, d->len + sizeof *d);
    if (before > MU_RUNNER_WAITING) { /* the core loop is behind: it says that again */
        atomic_fetch_sub(&p->waiting, d->len + sizeof *d);
        mu_free(d);
        return MU_E_LIMIT;
    }
    d->post.fn = said_here;
    mu_loop_post(p->fleet->opts.core, &d->post);
    return 0;
}

int mu_fleet_runner_said(struct mu_runner_peer *p, mu_bytes json)
{
    return say(p, direct_new(p, json));
}

int mu_fleet_runner_showed(struct mu_runner_peer *p, unsigned terminal, int64_t offset,
                           mu_bytes bytes)
{
    struct mu_direct *d = direct_new(p, bytes);
    if (d) {
        d->binary = true;
        d->terminal = terminal;
        d->offset = offset;
    }
    return say(p, d);
}
