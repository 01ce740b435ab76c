/* What the host is told: two lanes, so that whoever waits inside the callback of an event may wait
 * for a runner, whose callbacks run in the other one. */
#include "base/encode.h"
#include "face/sessions/show.h"
#include "lib/cp_int.h"
#include "proto/json.h"

/* --- lanes --- */

static void lane_init(struct mu_cp *cp, struct cp_lane *lane)
{
    lane->cp = cp;
    lane->end = &lane->first;
}

void mu_lib_lanes_init(struct mu_cp *cp)
{
    lane_init(cp, &cp->told);
    lane_init(cp, &cp->asked);
}

void mu_lib_give(struct mu_cp *cp, struct cp_lane *lane, struct cp_item *it)
{
    pthread_mutex_lock(&cp->lock);
    it->next = NULL;
    *lane->end = it;
    lane->end = &it->next;
    lane->bytes += it->bytes;
    pthread_cond_broadcast(&cp->changed);
    pthread_mutex_unlock(&cp->lock);
}

bool mu_lib_full(struct mu_cp *cp, struct cp_lane *lane)
{
    pthread_mutex_lock(&cp->lock);
    bool full = lane->bytes > MU_CP_QUEUE_BYTES;
    pthread_mutex_unlock(&cp->lock);
    return full;
}

/* Under the lock. */
static struct cp_item *take(struct cp_lane *lane)
{
    struct cp_item *it = lane->first;
    if (it) {
        lane->first = it->next;
        lane->bytes -= it->bytes;
        if (!lane->first) {
            lane->end = &lane->first;
        }
    }
    return it;
}

/* Under the lock, which it gives up while the host is called. */
static void run_one(struct mu_cp *cp, struct cp_lane *lane, struct cp_item *it)
{
    const struct mu_cp_runner *before = lane->now_runner;
    lane->now_runner = it->runner;
    pthread_mutex_unlock(&cp->lock);
    it->run(cp, it);
    pthread_mutex_lock(&cp->lock);
    lane->now_runner = before;
    pthread_cond_broadcast(&cp->changed);
}

static void *lane_main(void *arg)
{
    struct cp_lane *lane = arg;
    struct mu_cp *cp = lane->cp;
    pthread_setname_np(pthread_self(), lane == &cp->told ? "mu-events" : "mu-runners");
    pthread_mutex_lock(&cp->lock);
    for (;;) {
        struct cp_item *it = take(lane);
        if (it) {
            run_one(cp, lane, it);
        } else if (cp->lanes_stop) {
            break;
        } else {
            pthread_cond_wait(&cp->changed, &cp->lock);
        }
    }
    pthread_mutex_unlock(&cp->lock);
    return NULL;
}

static int lane_start(struct cp_lane *lane)
{
    int r = -pthread_create(&lane->thread, NULL, lane_main, lane);
    lane->has_thread = r == 0;
    return r;
}

int mu_lib_lanes_start(struct mu_cp *cp)
{
    if (cp->conf.host_driven) {
        return 0;
    }
    int r = lane_start(&cp->told);
    return r < 0 ? r : lane_start(&cp->asked);
}

static void lane_end(struct cp_lane *lane)
{
    if (lane->has_thread) {
        pthread_join(lane->thread, NULL);
        lane->has_thread = false;
    }
}

void mu_lib_lanes_end(struct mu_cp *cp)
{
    if (cp->conf.host_driven) {
        while (mu_lib_tell(cp, &cp->asked) || mu_lib_tell(cp, &cp->told)) {
        }
        return;
    }
    pthread_mutex_lock(&cp->lock);
    cp->lanes_stop = true;
    pthread_cond_broadcast(&cp->changed);
    pthread_mutex_unlock(&cp->lock);
    lane_end(&cp->told);
    lane_end(&cp->asked);
    while (mu_lib_tell(cp, &cp->asked) || mu_lib_tell(cp, &cp->told)) {
        /* what the last callback of one lane gave to the other */
    }
}

static void lane_drop(struct cp_lane *lane)
{
    struct cp_item *it;
    while ((it = take(lane)) != NULL) {
        it->drop(it);
    }
}

void mu_lib_lanes_drop(struct mu_cp *cp)
{
    lane_drop(&cp->told);
    lane_drop(&cp->asked);
    while (cp->subs) {
        struct cp_sub *s = cp->subs;
        cp->subs = s->next;
        mu_free(s);
    }
}

bool mu_lib_tell(struct mu_cp *cp, struct cp_lane *lane)
{
    bool any = false;
    struct cp_item *it;
    pthread_mutex_lock(&cp->lock);
    /* Two threads of the host keep the order too: the second finds it running. */
    bool nested = lane->running && pthread_equal(lane->runner_thread, pthread_self());
    if (lane->running && !nested && lane == &cp->asked) { /* what is waited for may come of it */
        while (lane->running) {
            pthread_cond_wait(&cp->changed, &cp->lock);
        }
        any = true;
    }
    if (!lane->running || (nested && lane == &cp->asked)) {
        bool before = lane->running;
        lane->running = true;
        lane->runner_thread = pthread_self();
        while ((it = take(lane)) != NULL) {
            run_one(cp, lane, it);
            any = true;
        }
        lane->running = before;
        pthread_cond_broadcast(&cp->changed);
    }
    pthread_mutex_unlock(&cp->lock);
    return any;
}

void mu_lib_silence(struct mu_cp *cp, const struct mu_cp_runner *r)
{
    struct cp_lane *lane = &cp->asked;
    pthread_mutex_lock(&cp->lock);
    for (struct cp_item **at = &lane->first; *at;) {
        struct cp_item *it = *at;
        if (it->runner != r) {
            at = &it->next;
            continue;
        }
        *at = it->next;
        lane->bytes -= it->bytes;
        it->drop(it);
    }
    lane->end = &lane->first;
    while (*lane->end) {
        lane->end = &(*lane->end)->next;
    }
    while (lane->now_runner == r) {
        pthread_cond_wait(&cp->changed, &cp->lock);
    }
    pthread_mutex_unlock(&cp->lock);
}

/* --- events --- */

struct told {
    struct cp_item item;
    struct mu_event *event;
    char stream[48];
    size_t stream_len;
};

static unsigned group_of(int type)
{
    switch (type) {
    case MU_EV_CREATED:
    case MU_EV_STATE:
    case MU_EV_ENDED:
    case MU_EV_SESSION_STARTED:
        return MU_CP_ON_SESSION;
    case MU_EV_APPROVAL_REQUESTED:
    case MU_EV_APPROVAL_RESOLVED:
        return MU_CP_ON_APPROVAL;
    case MU_EV_TURN_QUEUED:
    case MU_EV_TURN_STARTED:
    case MU_EV_TURN_ENDED:
    case MU_EV_TURN_CHANGED:
        return MU_CP_ON_TURN;
    case MU_EV_RUNNER_REGISTERED:
    case MU_EV_RUNNER_ONLINE:
    case MU_EV_RUNNER_OFFLINE:
    case MU_EV_RUNNER_DRAINING:
    case MU_EV_RUNNER_DRAINED:
    case MU_EV_RUNNER_UNDRAINED:
    case MU_EV_RUNNER_DEREGISTERED:
        return MU_CP_ON_RUNNER;
    case MU_EV_TERMINAL:
        return MU_CP_ON_TERMINAL;
    case MU_EV_TEXT:
        return MU_CP_ON_TEXT;
    default: /* MU_EV_DELTA: of the provider route, which is not here */
        return type < MU_EV_DELTA ? MU_CP_ON_FACT : 0;
    }
}

/* Under the lock: frees those that went, unless somebody stands in their list just now. */
static void sweep(struct mu_cp *cp)
{
    for (const struct cp_sub *s = cp->subs; s; s = s->next) {
        if (s->busy) {
            return;
        }
    }
    for (struct cp_sub **at = &cp->subs; *at;) {
        struct cp_sub *s = *at;
        if (s->gone) {
            *at = s->next;
            mu_free(s);
        } else {
            at = &s->next;
        }
    }
}

/* Calls who wants it. The lock is not held. */
static void tell_subs(struct mu_cp *cp, unsigned group, const mu_cp_event *e)
{
    pthread_mutex_lock(&cp->lock);
    for (struct cp_sub *s = cp->subs; s; s = s->next) {
        if (!s->gone && s->mask & group) {
            s->busy++;
            pthread_mutex_unlock(&cp->lock);
            s->fn(cp, e, s->user);
            pthread_mutex_lock(&cp->lock);
            s->busy--;
            pthread_cond_broadcast(&cp->changed);
        }
    }
    sweep(cp);
    pthread_mutex_unlock(&cp->lock);
}

static void add_actor(mu_cp_event *out, mu_bytes actor)
{
    mu_bytes user = MU_B("user:");
    bool is_user = mu_bytes_starts(actor, user);
    if (actor.len) {
        out->actor_type = mu_cp_out(is_user || mu_bytes_is(actor, "admin") ? MU_B("user") : actor);
        out->actor_id = mu_cp_out(is_user ? mu_bytes_from(actor, user.len) : actor);
    }
}

static void drop_told(struct cp_item *it)
{
    struct told *t = MU_CONTAINER(it, struct told, item);
    mu_event_unref(t->event);
    mu_free(t);
}

static void tell_gap(struct mu_cp *cp)
{
    pthread_mutex_lock(&cp->lock);
    bool gap = cp->gap;
    cp->gap = false;
    pthread_mutex_unlock(&cp->lock);
    if (gap) {
        const mu_cp_event e = {.type = mu_cp_text("GAP"),
                               .timestamp_ms = mu_env_wall_ms(&cp->env),
                               .data = mu_cp_text("{}")};
        tell_subs(cp, MU_CP_ON_GAP, &e);
    }
}

static void run_told(struct mu_cp *cp, struct cp_item *it)
{
    struct told *t = MU_CONTAINER(it, struct told, item);
    struct mu_event *e = t->event;
    mu_bytes stream = mu_bytes_of(t->stream, t->stream_len);
    mu_bytes worker = MU_B("worker:");
    bool session = !mu_bytes_starts(stream, worker);
    char subject[64];
    int n = snprintf(subject, sizeof subject, "%s%.*s", session ? "ses_" : "rnr_",
                     MU_ARGS(session ? stream : mu_bytes_from(stream, worker.len)));
    mu_cp_event out = {.seq = e->seq,
                       .subject_id = {subject, (size_t)n},
                       .timestamp_ms = e->at_ms,
                       .offset = e->offset,
                       .data = mu_cp_out(e->data)};
    const char *name = e->type == MU_EV_TERMINAL ? "TERMINAL"
                       : e->type == MU_EV_TEXT   ? "TEXT"
                                                 : mu_event_type_name(e->type);
    struct mu_buf data;
    mu_buf_init(&data, 1 << 20);
    out.type = mu_cp_text(name ? name : "PROVIDER_EVENT_FORWARDED");
    out.terminal = e->type == MU_EV_TERMINAL ? (unsigned)e->epoch : 0;
    add_actor(&out, e->actor);
    if (e->seq > 0 && session) {
        const struct mu_session_event row = {e->seq, e->at_ms, e->type, e->data, e->actor};
        struct mu_json_w w = mu_json_w(&data);
        mu_sess_event_data(&w, stream, &row);
        out.data =
            data.failed ? mu_cp_text("{\"truncated\":true}") : mu_cp_out(mu_buf_bytes(&data));
    }
    tell_gap(cp);
    tell_subs(cp, group_of(e->type), &out);
    mu_buf_fini(&data);
    drop_told(it);
}

void mu_lib_tap(void *arg, mu_bytes stream_id, struct mu_event *e)
{
    struct mu_cp *cp = arg;
    if (!(group_of(e->type) & atomic_load(&cp->masks)) ||
        stream_id.len > sizeof(((struct told *)0)->stream)) {
        return;
    }
    struct told *t = mu_lib_full(cp, &cp->told) ? NULL : mu_calloc(1, sizeof *t);
    if (!t) { /* whoever commits does not wait for callbacks */
        pthread_mutex_lock(&cp->lock);
        cp->gap = true;
        pthread_mutex_unlock(&cp->lock);
        return;
    }
    t->item = (struct cp_item){
        .bytes = sizeof *t + sizeof *e + e->data.len, .run = run_told, .drop = drop_told};
    t->event = mu_event_ref(e);
    t->stream_len = stream_id.len;
    memcpy(t->stream, stream_id.ptr, stream_id.len);
    mu_lib_give(cp, &cp->told, &t->item);
}

/* --- subscriptions --- */

static void sum_masks(struct mu_cp *cp)
{
    unsigned masks = 0;
    for (const struct cp_sub *s = cp->subs; s; s = s->next) {
        masks |= s->gone ? 0 : s->mask;
    }
    atomic_store(&cp->masks, masks);
}

unsigned mu_cp_on(mu_cp *cp, unsigned mask, mu_cp_event_fn fn, void *user)
{
    struct cp_sub *s = mu_calloc(1, sizeof *s);
    if (!s) {
        return 0;
    }
    pthread_mutex_lock(&cp->lock);
    unsigned number = ++cp->next_sub;
    struct cp_sub **at = &cp->subs;
    while (*at) {
        at = &(*at)->next;
    }
    *s = (struct cp_sub){.number = number, .mask = mask, .fn = fn, .user = user};
    *at = s;
    sum_masks(cp);
    pthread_mutex_unlock(&cp->lock);
    return number;
}

static struct cp_sub *sub_of(struct mu_cp *cp, unsigned number)
{
    struct cp_sub *s = cp->subs;
    while (s && s->number != number) {
        s = s->next;
    }
    return s;
}

void mu_cp_off(mu_cp *cp, unsigned number)
{
    pthread_mutex_lock(&cp->lock);
    const struct cp_lane *lane = &cp->told;
    pthread_t teller = cp->conf.host_driven ? lane->runner_thread : lane->thread;
    bool inside = (lane->has_thread || lane->running) && pthread_equal(teller, pthread_self());
    struct cp_sub *s = sub_of(cp, number);
    if (s) {
        s->gone = true;
        sum_masks(cp);
        while (!inside && (s = sub_of(cp, number)) != NULL && s->busy) {
            pthread_cond_wait(&cp->changed, &cp->lock);
        }
        sweep(cp);
    }
    pthread_mutex_unlock(&cp->lock);
}
