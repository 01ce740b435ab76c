/* From time to time those that wait for long enough are read. Each is asked for a checkpoint: its
 * runner holds the agent from there on until it is told otherwise. When that is stored, one unit
 * ends the execution, unless somebody needs the session by then; only afterwards the worker is
 * told, so that a server that dies in between has done all of it or nothing. */
#include "app/live/sleeper_int.h"

#include <errno.h>

#include "app/sessions/hibernate.h"

enum {
    LEAST_TICK_MS = 100,
    MOST_TICK_MS = 30000,
    ANSWER_MS = 120000, /* for a checkpoint of whatever size */
    REST_MS = 600000,   /* after one that failed */
    LEAST_REST_MS = 1000,
    AT_ONCE = 16,
    SMALL = 512,
};

struct nap {
    struct mu_sleeper *z;
    struct mu_live_session *s; /* while it is being stored */
    struct mu_execution of;
    int from;
    enum { ASKING, READY, STORING, RESTING } step;
    struct mu_id request;
    int64_t until_ms, number;
    struct mu_session_sleep op;
};

struct mu_sleeper {
    struct mu_live *l;
    struct mu_timer timer;
    struct mu_session_sleepies op;
    struct mu_map naps; /* by session */
    size_t n_open;
    bool reading;
    int64_t tick_ms;
};

static int64_t after_of(const struct mu_live *l, int state)
{
    return state == MU_ST_PAUSED    ? l->opts.sleep_paused_ms
           : state == MU_ST_WAITING ? l->opts.sleep_waiting_ms
                                    : l->opts.sleep_idle_ms;
}

static void forget(struct nap *n)
{
    struct mu_sleeper *z = n->z;
    z->n_open -= n->step != RESTING;
    (void)mu_map_remove(&z->naps, mu_id_bytes(&n->of.session));
    mu_free(n);
}

/* --- to the runner --- */

static bool say(struct mu_live_session *s, const char *type, const struct mu_id *request)
{
    struct mu_buf b;
    mu_buf_init(&b, SMALL);
    struct mu_json_w w = mu_live_begin(&b, type);
    mu_jw_kstr(&w, "requestId", mu_id_bytes(request));
    mu_jw_obj_end(&w);
    bool sent = s->phase == MU_LIVE_TALKING && mu_live_send(s, &b);
    mu_buf_fini(&b);
    return sent;
}

static void freeze(struct mu_live *l, const struct mu_execution *of, bool still)
{
    struct mu_id command = mu_id_random(l->opts.env);
    (void)!mu_fleet_pause(l->opts.fleet, of, still, &command);
}

static struct mu_live_session *session_of(const struct nap *n)
{
    struct mu_live_session *s = mu_live_find(n->z->l, &n->of.session);
    return s && s->of.epoch == n->of.epoch ? s : NULL;
}

/* It is awake after all. What was paused stands still again before its agent may go on. */
static void give_up(struct nap *n, int64_t rest_ms)
{
    struct mu_live *l = n->z->l;
    struct mu_live_session *s = session_of(n);
    if (n->from == MU_ST_PAUSED && (!s || s->state == MU_ST_PAUSED)) {
        freeze(l, &n->of, true);
    }
    if (s) {
        (void)say(s, "hibernate-cancel", &n->request);
        s->want_answers = true; /* what it was told meanwhile it did not take */
    }
    n->z->n_open--;
    n->step = RESTING;
    n->s = NULL;
    n->until_ms = mu_loop_now_ms(l->opts.core) + rest_ms;
}

static int64_t rest_of(const struct nap *n)
{
    return MU_MAX(MU_MIN(after_of(n->z->l, n->from), (int64_t)REST_MS), (int64_t)LEAST_REST_MS);
}

/* --- who --- */

static void begin(struct mu_sleeper *z, const struct mu_sleepy *x)
{
    struct mu_live *l = z->l;
    struct mu_live_session *s = mu_live_find(l, &x->id);
    struct mu_execution of;
    int64_t now = mu_live_now(l);
    if (s) {
        of = s->of;
    } else if (x->state != MU_ST_PAUSED || !mu_fleet_reachable(l->opts.fleet, &x->id, &of)) {
        return;
    }
    bool talks = s && s->phase == MU_LIVE_TALKING;
    bool busy = x->state == MU_ST_RUNNING && s && s->active_ms > now - l->opts.sleep_idle_ms;
    if (of.epoch != x->epoch || busy || (talks && s->state != x->state) ||
        (!talks && x->state != MU_ST_PAUSED) ||
        !mu_fleet_runner_by_worker(l->opts.fleet, &of)) { /* else it takes no checkpoints */
        return;
    }
    struct nap *n = mu_calloc(1, sizeof *n);
    if (!n) {
        return;
    }
    *n = (struct nap){.z = z, .of = of, .from = x->state};
    n->request = mu_id_random(l->opts.env);
    n->until_ms = mu_loop_now_ms(l->opts.core) + ANSWER_MS;
    if (mu_map_put(&z->naps, mu_id_bytes(&n->of.session), n) < 0) {
        mu_free(n);
        return;
    }
    z->n_open++;
    if (talks) { /* it reads that first when it is thawed */
        (void)say(s, "hibernate", &n->request);
    }
    if (n->from == MU_ST_PAUSED) {
        freeze(l, &n->of, false);
    }
}

static int64_t before(int64_t now, int64_t after_ms)
{
    return after_ms > 0 ? now - after_ms : INT64_MIN;
}

static void found(struct mu_session_sleepies *op, int result);

static void look(struct mu_sleeper *z, struct mu_sleepy after)
{
    struct mu_live *l = z->l;
    int64_t wall = mu_live_now(l);
    if (z->reading || z->n_open >= AT_ONCE || l->stopping) {
        return;
    }
    z->op =
        (struct mu_session_sleepies){.read = {.loop = l->opts.core},
                                     .idle_before_ms = before(wall, l->opts.sleep_idle_ms),
                                     .waiting_before_ms = before(wall, l->opts.sleep_waiting_ms),
                                     .paused_before_ms = before(wall, l->opts.sleep_paused_ms),
                                     .after = after,
                                     .done = found,
                                     .ctx = z};
    z->reading = mu_session_sleepies(l->opts.sessions, &z->op) == 0;
}

static void found(struct mu_session_sleepies *op, int result)
{
    struct mu_sleeper *z = op->ctx;
    size_t n = result < 0 ? 0 : op->n;
    z->reading = false;
    for (size_t i = 0; !z->l->stopping && i < n && z->n_open < AT_ONCE; i++) {
        if (!mu_map_get(&z->naps, mu_id_bytes(&op->found[i].id))) {
            begin(z, &op->found[i]);
        }
    }
    if (n == MU_SLEEPY_PAGE) { /* those that rest do not hide the others */
        look(z, op->found[n - 1]);
    }
}

static void on_timer(struct mu_timer *t)
{
    struct mu_sleeper *z = MU_CONTAINER(t, struct mu_sleeper, timer);
    struct mu_live *l = z->l;
    int64_t now = mu_loop_now_ms(l->opts.core);
    size_t at = 0;
    struct nap *n;
    while ((n = mu_map_next(&z->naps, &at))) {
        if (n->until_ms > now || n->step == STORING) {
            continue;
        }
        if (n->step == RESTING) {
            forget(n);
        } else {
            struct mu_live_session *s = session_of(n);
            give_up(n, rest_of(n));
            if (s && s->task == MU_LIVE_IDLE) {
                mu_live_next(s);
            }
        }
    }
    look(z, (struct mu_sleepy){.state = 0});
    (void)!mu_timer_set(&z->timer, z->tick_ms);
}

/* --- what runners say --- */

static struct nap *nap_of(const struct mu_live_session *s)
{
    struct nap *n = mu_map_get(&s->l->sleeper->naps, mu_id_bytes(&s->id));
    return n && n->of.epoch == s->of.epoch ? n : NULL;
}

void mu_sleeper_talks(struct mu_live_session *s)
{
    const struct nap *n = nap_of(s);
    if (n && (n->step == ASKING || n->step == READY)) {
        (void)say(s, "hibernate", &n->request);
    } else if (s->state == MU_ST_PAUSED && (!n || n->step == RESTING)) {
        s->refrozen = true; /* one that can say hello does not stand still */
        freeze(s->l, &s->of, true);
    }
}

void mu_sleeper_said(struct mu_live_session *s, yyjson_val *m)
{
    struct nap *n = nap_of(s);
    if (!n || n->step != ASKING ||
        !mu_bytes_is(mu_json_get_bytes(m, "requestId"), n->request.text)) {
        return;
    }
    n->number = mu_json_get_i64(m, "number", 0);
    if (mu_json_get_bool(m, "ok", false)) {
        n->step = READY;
        return;
    }
    mu_log(MU_LOG_WARN, "session.not_hibernated", MU_KS("session_id", mu_id_bytes(&s->id)),
           MU_KS("reason", mu_json_get_bytes(m, "error")));
    give_up(n, rest_of(n));
}

/* --- the unit --- */

static void slept(struct mu_session_sleep *op, int result)
{
    struct nap *n = op->ctx;
    struct mu_live *l = n->z->l;
    struct mu_live_session *s = n->s;
    if (result >= 0) {
        const struct mu_execution of = n->of;
        mu_log(MU_LOG_INFO, "session.hibernated", MU_KS("session_id", mu_id_bytes(&of.session)));
        forget(n);
        mu_fleet_asleep(l->opts.fleet, &of);
    } else {
        if (result == MU_E_CONFLICT && !s->over) {
            s->state = op->state;
        }
        give_up(n, result == MU_E_CONFLICT ? 2 * n->z->tick_ms : rest_of(n));
    }
    mu_live_next(s);
}

bool mu_sleeper_store(struct mu_live_session *s)
{
    struct nap *n = nap_of(s);
    struct mu_live *l = s->l;
    if (!n || n->step != READY || l->stopping) {
        return false;
    }
    n->op = (struct mu_session_sleep){.unit = {.loop = l->opts.core},
                                      .id = s->id,
                                      .epoch = s->of.epoch,
                                      .number = n->number,
                                      .from = n->from,
                                      .hold_until_ms = mu_live_now(l) + l->opts.paused_max_ms,
                                      .done = slept,
                                      .ctx = n};
    n->s = s;
    n->step = STORING;
    s->task = MU_LIVE_SLEEPING;
    if (mu_session_sleep(l->opts.sessions, &n->op) < 0) {
        s->task = MU_LIVE_IDLE;
        give_up(n, rest_of(n));
        return false;
    }
    return true;
}

/* --- life --- */

int mu_sleeper_new(struct mu_live *l, struct mu_sleeper **ret)
{
    struct mu_sleeper *z = mu_calloc(1, sizeof *z);
    if (!z) {
        return -ENOMEM;
    }
    z->l = l;
    mu_map_init(&z->naps);
    mu_timer_init(&z->timer, l->opts.core, on_timer);
    static const int states[] = {MU_ST_RUNNING, MU_ST_WAITING, MU_ST_PAUSED};
    for (size_t i = 0; i < MU_ARRAY_LEN(states) && l->opts.checkpoints; i++) {
        int64_t after = after_of(l, states[i]) / 4;
        if (after_of(l, states[i]) > 0) {
            after = MU_MAX(MU_MIN(after, (int64_t)MOST_TICK_MS), (int64_t)LEAST_TICK_MS);
            z->tick_ms = z->tick_ms ? MU_MIN(z->tick_ms, after) : after;
        }
    }
    *ret = z;
    return 0;
}

void mu_sleeper_start(struct mu_sleeper *z)
{
    if (z->tick_ms) {
        (void)!mu_timer_set(&z->timer, z->tick_ms);
    }
}

void mu_sleeper_end(struct mu_sleeper *z)
{
    if (z) {
        mu_timer_clear(&z->timer);
    }
}

struct mu_sleeper *mu_sleeper_free(struct mu_sleeper *z)
{
    size_t at = 0;
    struct nap *n;
    while (z && (n = mu_map_next(&z->naps, &at))) {
        mu_free(n);
    }
    if (z) {
        mu_map_fini(&z->naps);
        mu_free(z);
    }
    return NULL;
}
