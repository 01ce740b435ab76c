/* A runner of the host towards the fleet: it connects without a connection, takes what it is given,
 * and reports. */
#include "lib/runner_int.h"

#include <errno.h>
#include <stdio.h>

#include "base/encode.h"

enum { CAPS_MAX = 64 << 10, DEFAULT_CAPACITY = 5, WORDS_MAX = 64 };

/* --- executions --- */

struct cp_exec *mu_lib_exec_find(struct mu_cp_runner *r, mu_bytes session)
{
    struct mu_id id;
    if (mu_id_parse(session, "ses_", &id) < 0) {
        return NULL;
    }
    MU_LIST_EACH(it, tmp, &r->execs)
    {
        struct cp_exec *x = MU_CONTAINER(it, struct cp_exec, link);
        if (strcmp(x->of.session.text, id.text) == 0) {
            return x;
        }
    }
    return NULL;
}

static struct cp_exec *exec_new(struct mu_cp_runner *r, const struct mu_execution *of)
{
    struct cp_exec *x = mu_calloc(1, sizeof *x);
    if (x) {
        x->r = r;
        x->of = *of;
        mu_lib_talk_init(x);
        pthread_mutex_lock(&r->cp->lock);
        mu_list_push(&r->execs, &x->link);
        pthread_mutex_unlock(&r->cp->lock);
    }
    return x;
}

void mu_lib_exec_free(struct cp_exec *x)
{
    struct mu_cp *cp = x->r->cp;
    pthread_mutex_lock(&cp->lock);
    mu_list_remove(&x->link);
    pthread_mutex_unlock(&cp->lock);
    mu_lib_talk_fini(x);
    mu_free(x);
}

/* --- reports --- */

int mu_lib_report_new(struct cp_exec *x, enum mu_report_kind kind, struct mu_report **ret)
{
    int r = mu_report_new(kind, ret);
    if (r == 0) {
        (*ret)->peer = &x->r->peer;
        (*ret)->dialect = MU_DIALECT_NATIVE;
        (*ret)->session = x->of.session;
        (*ret)->execution = x->of.execution;
        (*ret)->epoch = x->of.epoch;
    }
    return r;
}

/* Without memory the fleet takes it for one that does not answer, and gives it to another. */
void mu_lib_report(struct cp_exec *x, enum mu_report_kind kind, int64_t seq, int state)
{
    struct mu_report *r;
    if (x->r->attached && mu_lib_report_new(x, kind, &r) == 0) {
        r->seq = seq;
        r->state = state;
        mu_fleet_tell(x->r->cp->d.fleet, r);
    }
}

static void say_hello(struct mu_cp_runner *r)
{
    struct mu_report *hello;
    if (mu_report_new(MU_REPORT_HELLO, &hello) < 0) {
        r->result = -ENOMEM;
        mu_lib_flag(r->cp, &r->refused);
        return;
    }
    hello->peer = &r->peer;
    hello->dialect = MU_DIALECT_NATIVE;
    hello->capacity = r->capacity;
    hello->version = mu_arena_dup(&hello->arena, mu_str(r->version));
    hello->caps = mu_arena_dup(&hello->arena, mu_buf_bytes(&r->caps));
    mu_fleet_tell(r->cp->d.fleet, hello);
}

static void on_alive(struct mu_timer *t)
{
    struct mu_cp_runner *r = MU_CONTAINER(t, struct mu_cp_runner, alive);
    struct mu_report *beat;
    if (mu_report_new(MU_REPORT_ALIVE, &beat) == 0) {
        beat->peer = &r->peer;
        beat->dialect = MU_DIALECT_NATIVE;
        mu_fleet_tell(r->cp->d.fleet, beat);
    }
    (void)!mu_timer_set(t, MU_CP_ALIVE_MS);
}

/* --- orders --- */

static struct cp_exec *exec_of(struct mu_cp_runner *r, const struct mu_execution *of)
{
    struct cp_exec *x = mu_lib_exec_find(r, mu_id_bytes(&of->session));
    return x && strcmp(x->of.execution.text, of->execution.text) == 0 ? x : NULL;
}

/* Takes the order. */
static void assigned(struct mu_cp_runner *r, struct mu_order *o)
{
    struct cp_exec *x = mu_lib_exec_find(r, mu_id_bytes(&o->of.session));
    if (x) { /* of an earlier attempt, which the server has given up */
        mu_lib_exec_free(x);
    }
    x = exec_new(r, &o->of);
    if (!x) {
        mu_fleet_unsent(o);
        return;
    }
    if (!o->job.live || !r->ops.start) {
        mu_lib_report(x, MU_REPORT_REJECTED, 1, 0);
        mu_lib_exec_free(x);
        mu_order_free(o);
        return;
    }
    mu_lib_heard_start(x, o);
}

static void give_simple(struct cp_exec *x, enum cp_heard_kind kind, const struct mu_order *o)
{
    struct cp_heard *h = x ? mu_lib_heard_new(x, kind) : NULL;
    if (h) {
        h->command = o->command;
        h->n = kind == CP_STOP ? o->at_once : o->kind == MU_ORDER_PAUSE;
        (void)mu_lib_heard_give(x, h);
    }
}

static void acked(struct cp_exec *x, int64_t seq)
{
    if (x && x->ended && (seq < 0 || seq >= x->end_seq)) {
        mu_lib_exec_free(x);
    }
}

static void on_order(struct mu_peer *peer, struct mu_order *o)
{
    struct mu_cp_runner *r = MU_CONTAINER(peer, struct mu_cp_runner, peer);
    struct cp_exec *x = exec_of(r, &o->of);
    switch (o->kind) {
    case MU_ORDER_ASSIGN:
        if (r->closing) {
            mu_fleet_unsent(o);
        } else {
            assigned(r, o);
        }
        return;
    case MU_ORDER_CANCEL:
        give_simple(x, CP_STOP, o);
        break;
    case MU_ORDER_WELCOME:
        mu_lib_flag(r->cp, &r->welcome);
        break;
    case MU_ORDER_ACK:
        acked(x, o->of.seq);
        break;
    case MU_ORDER_RUNNER:
        if (x) {
            mu_lib_talk_hear(x, o->message);
        }
        break;
    case MU_ORDER_PAUSE:
    case MU_ORDER_RESUME:
        give_simple(x, CP_PAUSE, o);
        break;
    default: /* skills: it has none */
        break;
    }
    mu_order_free(o);
}

static void on_probe(struct mu_peer *peer)
{
    mu_fleet_alive(peer, true);
}

static void gone(struct mu_cp_runner *r)
{
    if (r->attached) {
        r->attached = false;
        mu_timer_clear(&r->alive);
        mu_fleet_gone(&r->peer);
    }
}

static void on_close(struct mu_peer *peer, int code MU_UNUSED, const char *reason MU_UNUSED)
{
    gone(MU_CONTAINER(peer, struct mu_cp_runner, peer));
}

static void on_release(struct mu_peer *peer)
{
    struct mu_cp_runner *r = MU_CONTAINER(peer, struct mu_cp_runner, peer);
    mu_lib_flag(r->cp, &r->released);
}

/* --- opening --- */

static void admitted(struct mu_admission *op, int result)
{
    struct mu_cp_runner *r = op->ctx;
    if (result == 0 && r->closing) { /* who opened it did not wait so long */
        mu_fleet_gone(&r->peer);
        return;
    }
    if (result < 0) {
        r->result = result;
        mu_lib_flag(r->cp, r->closing ? &r->released : &r->refused);
        return;
    }
    r->attached = true;
    mu_fleet_attach(&r->peer);
    say_hello(r);
    (void)!mu_timer_set(&r->alive, MU_CP_ALIVE_MS);
}

static void open_on_loop(struct mu_post *post)
{
    struct mu_cp_runner *r = MU_CONTAINER(post, struct mu_cp_runner, open_post);
    mu_timer_init(&r->alive, r->cp->loop, on_alive);
    mu_fleet_admit(r->cp->d.fleet, &r->admission);
}

static bool add_words(struct mu_json_w *w, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t len = words[i] ? strlen(words[i]) : 0;
        if (len < 1 || len > WORDS_MAX || !mu_utf8_valid(mu_str(words[i]))) {
            return false;
        }
        mu_jw_str(w, mu_str(words[i]));
    }
    return true;
}

/* The harnesses by the names of workers. */
static bool add_harnesses(struct mu_json_w *w, const mu_cp_runner_config *c)
{
    static const char *const names[][2] = {
        {"claude_code", "claude"}, {"codex", "codex"}, {"gemini_cli", "gemini"}};
    if (!c->providers) {
        return true;
    }
    mu_jw_key(w, "harnesses");
    mu_jw_arr(w);
    for (size_t i = 0; i < c->n_providers; i++) {
        const char *word = c->providers[i];
        for (size_t k = 0; word && k < MU_ARRAY_LEN(names); k++) {
            word = strcmp(word, names[k][0]) == 0 ? names[k][1] : word;
        }
        if (!add_words(w, &word, 1)) {
            return false;
        }
    }
    mu_jw_arr_end(w);
    return true;
}

static int write_caps(struct mu_cp_runner *r, const mu_cp_runner_config *c)
{
    /* What a sandbox would have to be made for is the host's own affair. */
    static const char *const always[] = {"live", "pause"};
    struct mu_json_w w = mu_json_w(&r->caps);
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "name", r->name);
    if (!add_harnesses(&w, c)) {
        return MU_E_INVALID;
    }
    mu_jw_key(&w, "features");
    mu_jw_arr(&w);
    (void)add_words(&w, always, MU_ARRAY_LEN(always));
    if (!add_words(&w, c->features, c->features ? c->n_features : 0)) {
        return MU_E_INVALID;
    }
    mu_jw_arr_end(&w);
    mu_jw_obj_end(&w);
    return r->caps.failed == MU_E_TOO_LARGE ? MU_E_INVALID : r->caps.failed;
}

static struct mu_cp_runner *runner_new(struct mu_cp *cp, const mu_cp_runner_config *c,
                                       const mu_cp_runner_ops *ops, void *user)
{
    struct mu_cp_runner *r = mu_calloc(1, sizeof *r);
    if (!r) {
        return NULL;
    }
    r->cp = cp;
    r->user = user;
    r->capacity = c->capacity > 0 ? c->capacity : DEFAULT_CAPACITY;
    memcpy(&r->ops, ops, MU_MIN(ops->size, sizeof r->ops));
    snprintf(r->name, sizeof r->name, "%.*s", MU_ARGS(mu_cp_in(c->name)));
    mu_bytes version = mu_utf8_cut(mu_cp_in(c->version), sizeof r->version - 1);
    snprintf(r->version, sizeof r->version, "%.*s", MU_ARGS(version));
    mu_buf_init(&r->caps, CAPS_MAX);
    mu_list_init(&r->link);
    mu_list_init(&r->execs);
    r->peer = (struct mu_peer){.loop = cp->loop,
                               .order = on_order,
                               .probe = on_probe,
                               .close = on_close,
                               .release = on_release};
    r->admission = (struct mu_admission){
        .peer = &r->peer, .name = mu_str(r->name), .native = true, .done = admitted, .ctx = r};
    r->open_post.fn = open_on_loop;
    return r;
}

static void runner_free(struct mu_cp_runner *r)
{
    if (r) {
        mu_buf_fini(&r->caps);
        mu_free(r);
    }
}

static mu_cp_status status_of(int r)
{
    return r == MU_E_BUSY      ? MU_CP_RUNNER_CONFLICT
           : r == MU_E_LIMIT   ? MU_CP_RUNNER_LIMIT_EXCEEDED
           : r == MU_E_INVALID ? MU_CP_VALIDATION_ERROR
                               : MU_CP_UNAVAILABLE;
}

static bool wait_open(struct mu_cp_runner *r)
{
    struct mu_cp *cp = r->cp;
    if (cp->conf.host_driven) {
        return mu_lib_settle(cp, &r->welcome);
    }
    pthread_mutex_lock(&cp->lock);
    while (!r->welcome && !r->refused) {
        pthread_cond_wait(&cp->changed, &cp->lock);
    }
    pthread_mutex_unlock(&cp->lock);
    return r->welcome;
}

mu_cp_status mu_cp_runner_open(mu_cp *cp, const mu_cp_runner_config *c, const mu_cp_runner_ops *ops,
                               void *user, mu_cp_runner **ret)
{
    mu_bytes name = mu_cp_in(c->name);
    if (!mu_worker_name_ok(name)) {
        return MU_CP_VALIDATION_ERROR;
    }
    struct mu_cp_runner *r = runner_new(cp, c, ops, user);
    int x = r ? write_caps(r, c) : -ENOMEM;
    if (x < 0) {
        runner_free(r);
        return status_of(x);
    }
    mu_loop_post(cp->loop, &r->open_post);
    if (!wait_open(r) && !r->refused) { /* host-driven: it would take time */
        r->result = MU_E_UNAVAILABLE;
    }
    if (!r->welcome) {
        x = r->result;
        mu_cp_runner_close(r);
        return status_of(x);
    }
    pthread_mutex_lock(&cp->lock);
    mu_list_push(&cp->runners, &r->link);
    pthread_mutex_unlock(&cp->lock);
    *ret = r;
    return MU_CP_OK;
}

/* --- closing --- */

static void close_on_loop(struct mu_post *post)
{
    struct mu_cp_runner *r = MU_CONTAINER(post, struct mu_cp_runner, close_post);
    r->closing = true;
    while (!mu_list_empty(&r->execs)) {
        mu_lib_exec_free(MU_CONTAINER(r->execs.next, struct cp_exec, link));
    }
    if (r->attached) {
        gone(r);
    } else if (r->refused) { /* the fleet never took it */
        mu_lib_flag(r->cp, &r->released);
    } /* else its release is on its way, or its admission */
}

static void fence_on_loop(struct mu_post *post)
{
    struct mu_cp_runner *r = MU_CONTAINER(post, struct mu_cp_runner, open_post);
    mu_lib_flag(r->cp, &r->fenced);
}

static void close_it(struct mu_cp_runner *r)
{
    struct mu_cp *cp = r->cp;
    r->close_post.fn = close_on_loop;
    mu_loop_post(cp->loop, &r->close_post);
    while (!mu_lib_wait(cp, &r->released)) {
        mu_cp_tick(cp, atomic_load(&cp->now_ms) + 1000);
    }
    mu_lib_silence(cp, r);
    /* what its last callbacks have posted comes first */
    r->open_post.fn = fence_on_loop;
    mu_loop_post(cp->loop, &r->open_post);
    (void)mu_lib_wait(cp, &r->fenced);
    pthread_mutex_lock(&cp->lock);
    mu_list_remove(&r->link);
    pthread_mutex_unlock(&cp->lock);
}

void mu_cp_runner_close(mu_cp_runner *r)
{
    if (r) {
        close_it(r);
        runner_free(r);
    }
}

void mu_lib_runners_end(struct mu_cp *cp)
{
    for (;;) {
        pthread_mutex_lock(&cp->lock);
        struct mu_list *l = mu_list_empty(&cp->runners) ? NULL : cp->runners.next;
        pthread_mutex_unlock(&cp->lock);
        if (!l) {
            return;
        }
        close_it(MU_CONTAINER(l, struct mu_cp_runner, link));
        mu_list_push(&cp->left, l);
    }
}

void mu_lib_runners_drop(struct mu_cp *cp)
{
    struct mu_list *l;
    while ((l = mu_list_pop(&cp->left)) != NULL) {
        runner_free(MU_CONTAINER(l, struct mu_cp_runner, link));
    }
}
