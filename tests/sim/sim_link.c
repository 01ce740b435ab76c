/* The cable between a worker and the server. A message takes its time, keeps its order, and arrives
 * once or, when the cable is cut, not at all: what is lost is always the end of what was said. Each
 * side notices a cut when it does. The server's end does what face/worker/link.c does. */
#include "sim.h"

enum {
    NOTICE_MS = 6000,
    PROBE_MS = 5000,
    DIAL_MS = 200,
    MAX_LINKS = 512,
    UNSENT_MAX = 8,
};

struct way {
    uint64_t sent, arrived, limit; /* messages from `limit` on are lost */
    int64_t last_at;
};

struct sim_link {
    struct mu_peer peer;
    struct mu_admission admission;
    struct sim_worker *w;
    unsigned life, process;
    char name[24], instance[40];
    bool answered, server_open, worker_open, cut, server_told /* of the cut */, probed, leaving;
    int64_t heard; /* the last moment at which bytes came down */
    struct way down, up;
    struct {
        struct mu_id session;
        uint64_t number;
    } assigns[UNSENT_MAX]; /* the last ones */
    unsigned n_assigns;
};

struct parcel {
    struct sim_link *l;
    uint64_t number;
    struct sim_down down;
    struct sim_up up;
};

static struct sim_link *links[MAX_LINKS];
static unsigned n_links;

static bool server_has(const struct sim_link *l)
{
    return l->server_open && l->life == sim.life && sim.d.fleet;
}

bool sim_link_well(const struct sim_link *l)
{
    return l->worker_open && !l->cut && server_has(l);
}

int64_t sim_link_heard(const struct sim_link *l)
{
    return sim_link_well(l) ? sim.now : l->heard;
}

/* --- messages --- */

static int64_t way_delay(struct way *way)
{
    int64_t at = sim.now + (sim_chance(700) ? sim_between(0, 5) : sim_between(0, sim.plan.link_ms));
    way->last_at = MU_MAX(way->last_at, at);
    return way->last_at - sim.now;
}

static void came_down(void *arg)
{
    struct parcel *p = arg;
    struct sim_link *l = p->l;
    if (p->number >= l->down.limit) {
        return;
    }
    l->down.arrived = p->number + 1;
    if (l->worker_open && sim_worker_process(l->w) == l->process) {
        l->heard = sim.now;
        sim_worker_hears(l->w, &p->down);
    }
}

static void go_down(struct sim_link *l, struct parcel *p)
{
    p->l = l;
    p->number = l->down.sent++;
    sim_after(way_delay(&l->down), came_down, p);
}

static void tell(struct sim_link *l, const struct sim_up *m)
{
    static const char *const kinds[] = {"hello", "claimed", "rejected", "state",
                                        "log",   "ended",   "drain",    "answer",
                                        "did",   "runner",  "terminal", "alive"};
    struct mu_report *r;
    sim_note("link %s: report %s %s epoch %lld seq %lld state %d", l->name, kinds[m->kind],
             m->of.session.text, (long long)m->of.epoch, (long long)m->of.seq, m->state);
    if (mu_report_new(m->kind, &r) < 0) {
        sim_fail("simulator", "no memory");
    }
    bool native = sim_worker_native(l->w);
    r->peer = &l->peer;
    r->dialect = native ? MU_DIALECT_NATIVE : MU_DIALECT_UNKNOWN;
    r->session = m->of.session;
    if (native && m->kind != MU_REPORT_HELLO) {
        r->execution = m->of.execution;
        r->epoch = m->of.epoch;
        r->seq = m->of.seq;
    }
    r->state = m->state;
    r->failed = m->failed;
    r->cancelled = m->cancelled;
    r->has_exit_code = m->kind == MU_REPORT_ENDED;
    r->exit_code = m->exit_code;
    r->has_output = m->has_output;
    if (m->has_output) {
        mu_buf_add(&r->output, mu_bytes_of(m->text, m->len));
        r->output_total = (int64_t)m->len;
    }
    r->offset = m->offset;
    r->did = m->did;
    r->command = m->command;
    if (m->kind == MU_REPORT_LOG || m->kind == MU_REPORT_RUNNER) {
        r->chunk = mu_arena_dup(&r->arena, mu_bytes_of(m->text, m->len));
    }
    if (m->kind == MU_REPORT_HELLO) {
        r->capacity = m->capacity;
        r->caps = sim_worker_offers(l->w)
                      ? MU_B("{\"features\":[\"live\"],\"harnesses\":[\"claude\"]}")
                      : MU_B("{\"features\":[\"live\"],\"harnesses\":[]}");
        r->running = m->running;
        r->n_running = m->n_running;
        r->unacked = m->unacked;
        r->n_unacked = m->n_unacked;
    }
    mu_fleet_tell(sim.d.fleet, r);
}

static void came_up(void *arg)
{
    struct parcel *p = arg;
    struct sim_link *l = p->l;
    if (p->number < l->up.limit && server_has(l)) {
        l->up.arrived = p->number + 1;
        sim.here = l->peer.loop;
        tell(l, &p->up);
        sim.here = NULL;
    }
}

void sim_link_say(struct sim_link *l, const struct sim_up *m)
{
    struct parcel *p = sim_keep(sizeof *p);
    p->l = l;
    p->up = *m;
    p->number = l->up.sent++;
    sim_after(way_delay(&l->up), came_up, p);
}

/* --- ends --- */

/* Which assignments surely did not arrive: the face knows it of some. */
static void note_unsent(struct sim_link *l)
{
    struct mu_peer *p = &l->peer;
    if (sim_chance(500)) {
        return;
    }
    p->unsent = mu_calloc(UNSENT_MAX, sizeof *p->unsent);
    for (unsigned i = 0; p->unsent && i < MU_MIN(l->n_assigns, (unsigned)UNSENT_MAX); i++) {
        if (l->assigns[i].number >= l->down.limit) {
            p->unsent[p->n_unsent++] = l->assigns[i].session;
        }
    }
}

/* From here on nothing passes; what is on its way arrives as far as it came. */
static void break_ways(struct sim_link *l)
{
    if (!l->cut) {
        l->heard = sim_link_heard(l);
        l->cut = true;
        l->down.limit = l->down.arrived + sim_rand(l->down.sent - l->down.arrived + 1);
        l->up.limit = l->up.arrived + sim_rand(l->up.sent - l->up.arrived + 1);
    }
}

/* The face's on_closed(). */
static void server_closed(struct sim_link *l)
{
    break_ways(l);
    l->server_open = false;
    sim.here = l->peer.loop;
    note_unsent(l);
    if (l->probed) {
        l->probed = false;
        mu_fleet_alive(&l->peer, false);
    }
    mu_fleet_gone(&l->peer);
    sim.here = NULL;
}

static void server_notices(void *arg)
{
    struct sim_link *l = arg;
    if (server_has(l)) {
        sim_note("link %s: the server notices", l->name);
        server_closed(l);
    }
}

static void worker_notices(void *arg)
{
    struct sim_link *l = arg;
    if (l->worker_open) {
        l->worker_open = false;
        sim_worker_lost(l->w, l);
    }
}

void sim_link_cut(struct sim_link *l)
{
    sim_note("link %s: cut", l->name);
    sim.counts.cuts++;
    break_ways(l);
    sim_after(sim_between(0, NOTICE_MS), server_notices, l);
    sim_after(sim_between(0, NOTICE_MS / 2), worker_notices, l);
}

void sim_link_close(struct sim_link *l)
{
    l->worker_open = false;
    break_ways(l);
    sim_after(sim_chance(700) ? sim_between(0, 50) : sim_between(0, NOTICE_MS), server_notices, l);
}

void sim_links_server_gone(void)
{
    for (unsigned i = 0; i < n_links; i++) {
        struct sim_link *l = links[i];
        if (l->life == sim.life) {
            break_ways(l);
            l->server_open = false;
            sim_after(sim_between(0, NOTICE_MS / 2), worker_notices, l);
        }
    }
    n_links = 0;
}

void sim_links_server_stops(void)
{
    for (unsigned i = 0; i < n_links; i++) {
        struct sim_link *l = links[i];
        if (server_has(l)) {
            break_ways(l);
            sim_after(sim_between(0, 300), worker_notices, l);
            server_closed(l);
        }
    }
}

/* --- the face's functions --- */

static struct sim_link *link_of(struct mu_peer *p)
{
    return MU_CONTAINER(p, struct sim_link, peer);
}

static void copy_order(struct sim_down *to, const struct mu_order *o)
{
    *to = (struct sim_down){.kind = o->kind,
                            .of = o->of,
                            .at_once = o->at_once,
                            .lease_ms = o->job.lease_ms,
                            .live = o->job.live,
                            .command = o->command,
                            .n_acked = o->n_acked,
                            .n_stop = o->n_stop};
    if (o->message.len) {
        char *text = sim_keep(o->message.len + 1);
        memcpy(text, o->message.ptr, o->message.len);
        to->message = text;
    }
    memcpy(to->token, o->job.token, sizeof to->token);
    to->acked = sim_keep((o->n_acked + 1) * sizeof *to->acked);
    to->stop = sim_keep((o->n_stop + 1) * sizeof *to->stop);
    if (o->n_acked) {
        memcpy(to->acked, o->acked, o->n_acked * sizeof *to->acked);
    }
    if (o->n_stop) {
        memcpy(to->stop, o->stop, o->n_stop * sizeof *to->stop);
    }
}

static void on_order(struct mu_peer *peer, struct mu_order *o)
{
    static const char *const kinds[] = {"assign", "cancel", "welcome", "ack",
                                        "skills", "runner", "pause",   "resume"};
    struct sim_link *l = link_of(peer);
    sim_note("link %s: order %s %s epoch %lld seq %lld%s", l->name, kinds[o->kind],
             o->of.session.text, (long long)o->of.epoch, (long long)o->of.seq,
             l->server_open ? "" : ", closed");
    if (!l->server_open) {
        if (o->kind == MU_ORDER_ASSIGN) {
            mu_fleet_unsent(o);
        } else {
            mu_order_free(o);
        }
        return;
    }
    struct parcel *p = sim_keep(sizeof *p);
    copy_order(&p->down, o);
    if (o->kind == MU_ORDER_ASSIGN) {
        sim_assigned(&o->of, l->name);
        unsigned at = l->n_assigns++ % UNSENT_MAX;
        l->assigns[at].session = o->of.session;
        l->assigns[at].number = l->down.sent;
    }
    mu_order_free(o);
    if (l->cut) { /* into a buffer that nobody reads */
        p->number = l->down.sent++;
    } else {
        go_down(l, p);
    }
}

static void probe_over(void *arg)
{
    struct sim_link *l = arg;
    if (server_has(l) && l->probed) {
        l->probed = false;
        sim.here = l->peer.loop;
        mu_fleet_alive(&l->peer, sim_link_well(l));
        sim.here = NULL;
    }
}

static void on_probe(struct mu_peer *peer)
{
    struct sim_link *l = link_of(peer);
    if (l->server_open) {
        l->probed = true;
        sim_after(sim_link_well(l) ? sim_between(0, 300) : PROBE_MS, probe_over, l);
    }
}

static void close_over(void *arg)
{
    struct sim_link *l = arg;
    if (server_has(l)) {
        server_closed(l);
    }
}

static void on_close(struct mu_peer *peer, int code, const char *reason MU_UNUSED)
{
    struct sim_link *l = link_of(peer);
    sim_note("link %s: closed by the server, %d", l->name, code);
    break_ways(l);
    sim_after(sim_between(0, 300), worker_notices, l);
    sim_after(sim_between(0, 1000), close_over, l);
}

static void on_release(struct mu_peer *peer)
{
    link_of(peer)->server_told = true;
}

static void admitted(struct mu_admission *op, int result)
{
    struct sim_link *l = op->ctx;
    l->answered = true;
    if (result < 0) {
        sim_note("link %s: refused, %d", l->name, result);
        l->server_told = true;
        if (l->worker_open) {
            l->worker_open = false;
            sim_worker_lost(l->w, l);
        }
        return;
    }
    if (!l->worker_open) { /* it hung up meanwhile */
        mu_fleet_gone(&l->peer);
        return;
    }
    sim_note("link %s: open", l->name);
    l->server_open = true;
    l->heard = sim.now;
    mu_fleet_attach(&l->peer);
    sim_worker_opened(l->w, l);
}

static void knocks(void *arg)
{
    struct sim_link *l = arg;
    if (!l->worker_open) {
        return;
    }
    if (!sim.up || n_links == MAX_LINKS) {
        l->worker_open = false;
        sim_worker_lost(l->w, l);
        return;
    }
    l->life = sim.life;
    links[n_links++] = l;
    l->peer = (struct mu_peer){.loop = sim.loops[sim_rand(SIM_LOOPS)],
                               .order = on_order,
                               .probe = on_probe,
                               .close = on_close,
                               .release = on_release};
    l->admission = (struct mu_admission){.peer = &l->peer,
                                         .name = mu_str(l->name),
                                         .native = sim_worker_native(l->w),
                                         .done = admitted,
                                         .ctx = l};
    if (sim_worker_native(l->w)) {
        l->admission.instance = mu_str(l->instance);
    }
    sim.here = l->peer.loop;
    mu_fleet_admit(sim.d.fleet, &l->admission);
    sim.here = NULL;
}

struct sim_link *sim_link_dial(struct sim_worker *w)
{
    struct sim_link *l = sim_keep(sizeof *l);
    l->w = w;
    l->process = sim_worker_process(w);
    l->worker_open = true;
    l->down.limit = l->up.limit = UINT64_MAX;
    snprintf(l->name, sizeof l->name, "%s", sim_worker_name(w));
    snprintf(l->instance, sizeof l->instance, "%s", sim_worker_instance(w));
    sim_after(sim_between(0, DIAL_MS), knocks, l);
    return l;
}
