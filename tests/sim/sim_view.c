/* Viewers: each follows one log, by pages from the database and by the feed, is slow, goes away and
 * comes back with the last number that it has. All must see the same. */
#include "sim.h"

enum { VIEWS = 6, PAGE = 3, SLOW_MS = 900 };

struct view {
    struct mu_watch watch;
    struct mu_session_events page;
    struct sim_session *s;
    int64_t next; /* the number that it waits for */
    bool watching, reading, again /* the feed had more meanwhile */;
    unsigned life;
    int64_t delta_epoch, delta_end;
};

static struct view *views[VIEWS];

static void take(struct view *v, int64_t seq, uint64_t digest)
{
    if (seq != v->next) {
        sim_fail("G5", "a viewer of %s gets event %lld instead of %lld", v->s->id.text,
                 (long long)seq, (long long)v->next);
    }
    if (seq < SIM_EVENTS && v->s->log[seq] && v->s->log[seq] != digest) {
        sim_fail("G5", "a viewer of %s sees another event %lld than is stored", v->s->id.text,
                 (long long)seq);
    }
    if (v->s->last_seq < seq && v->s->present) {
        sim_fail("G1", "a viewer of %s sees event %lld, which is not stored", v->s->id.text,
                 (long long)seq);
    }
    v->next++;
}

static void read_on(struct view *v);

static int on_row(void *arg, const struct mu_session_event *e)
{
    struct view *v = arg;
    take(v, e->seq, sim_event_digest(e->type, e->data));
    return 0;
}

static void read_again(void *arg)
{
    struct view *v = arg;
    if (sim.up && v->watching && v->life == sim.life && !v->reading) {
        sim.here = v->watch.loop;
        read_on(v);
        sim.here = NULL;
    }
}

static void page_read(struct mu_session_events *op, int result)
{
    struct view *v = op->ctx;
    v->reading = false;
    bool more = result < 0 || op->count == PAGE || v->again;
    if (result >= 0 && op->last_seq == 0) {
        v->next = INT64_MAX; /* deleted */
        return;
    }
    if (more) {
        v->again = false;
        sim_after(sim_chance(500) ? 0 : sim_between(0, SLOW_MS), read_again, v);
    }
}

static void read_on(struct view *v)
{
    v->page = (struct mu_session_events){.read = {.loop = v->watch.loop},
                                         .id = v->s->id,
                                         .after = v->next - 1,
                                         .limit = PAGE,
                                         .each = on_row,
                                         .arg = v,
                                         .done = page_read,
                                         .ctx = v};
    v->again = false;
    v->reading = true;
    if (mu_session_events(sim.d.sessions, &v->page) < 0) {
        v->reading = false;
        v->again = true;
        sim_after(sim_between(1, SLOW_MS), read_again, v);
    }
}

static void take_delta(struct view *v, const struct mu_event *e)
{
    if (e->epoch == v->delta_epoch && e->offset != v->delta_end) {
        sim_fail("G5", "output of %s jumps from %lld to %lld", v->s->id.text,
                 (long long)v->delta_end, (long long)e->offset);
    }
    if (e->epoch < v->delta_epoch) {
        sim_fail("G4", "output of an old attempt of %s is shown", v->s->id.text);
    }
    v->delta_epoch = e->epoch;
    v->delta_end = e->offset + (int64_t)e->data.len;
}

static void on_event(struct mu_watch *w, struct mu_event *e)
{
    struct view *v = MU_CONTAINER(w, struct view, watch);
    if (e->seq == 0) {
        take_delta(v, e);
    } else if (e->seq < v->next) {
        return;
    } else if (v->reading) {
        v->again = true;
    } else if (e->seq == v->next) {
        take(v, e->seq, sim_event_digest(e->type, e->data));
    } else {
        read_on(v);
    }
}

static void leave(struct view *v)
{
    if (v->watching && sim.feed && v->life == sim.life) {
        mu_feed_unwatch(sim.feed, &v->watch);
    }
    v->watching = false;
}

static void join(struct view *v)
{
    v->watch = (struct mu_watch){.loop = sim.loops[sim_rand(SIM_LOOPS)], .on_event = on_event};
    snprintf(v->watch.stream_id, sizeof v->watch.stream_id, "%s", v->s->id.text);
    v->life = sim.life;
    v->delta_epoch = v->delta_end = -1;
    v->again = false;
    sim.here = v->watch.loop;
    v->watching = mu_feed_watch(sim.feed, &v->watch) == 0;
    read_on(v);
    sim.here = NULL;
}

static void live(void *arg)
{
    struct view *v = arg;
    bool mine = v->watching && v->life == sim.life;
    if (!v->s && sim_n_sessions) {
        v->s = &sim_sessions[sim_rand(sim_n_sessions)];
        v->next = 1;
    }
    if (sim.up && v->s && !v->reading) {
        if (!mine) {
            join(v);
        } else if (!sim.calm && sim_chance(200)) {
            sim.here = v->watch.loop;
            leave(v);
            sim.here = NULL;
        } else if (!sim.calm && sim_chance(100)) {
            sim.here = v->watch.loop;
            leave(v);
            sim.here = NULL;
            v->s = NULL;
        }
    }
    sim_after(sim_between(100, 4000), live, v);
}

void sim_views_plan(void)
{
    for (unsigned i = 0; i < MU_MIN(sim.plan.n_viewers, (unsigned)VIEWS); i++) {
        views[i] = sim_keep(sizeof *views[i]);
        sim_after(sim_between(0, 3000), live, views[i]);
    }
}

void sim_views_server_gone(void)
{
    for (unsigned i = 0; i < MU_MIN(sim.plan.n_viewers, (unsigned)VIEWS); i++) {
        views[i]->watching = views[i]->reading = false;
    }
}

void sim_views_end(void)
{
    for (unsigned i = 0; i < MU_MIN(sim.plan.n_viewers, (unsigned)VIEWS); i++) {
        const struct view *v = views[i];
        if (v->watching && v->life == sim.life && !v->reading && !v->again && v->s->last_seq &&
            !v->s->gone && v->next != INT64_MAX && v->next - 1 != v->s->last_seq) {
            sim_fail("G5", "a viewer of %s has %lld of %lld events and waits for nothing",
                     v->s->id.text, (long long)v->next - 1, (long long)v->s->last_seq);
        }
    }
}
