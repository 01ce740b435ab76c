/* Callers: they create sessions, with and without keys, stop and delete them, look at what is
 * theirs and at what is not. What was answered was promised. */
#include "sim.h"

enum { KEYS = 6, CALLS = 128, PAUSE_MS = 2500 };

struct call {
    enum what { CREATE, CANCEL, DELETE, GET, RESOLVE, ASK, PROMPT } what;
    unsigned org, key; /* key: + 1, 0 = none */
    unsigned life;
    bool open;
    struct sim_session *s;
    int64_t seen_state;
    struct mu_session_create create;
    struct mu_session_cancel cancel;
    struct mu_session_delete remove;
    struct mu_session_get get;
    struct mu_gate_resolve resolve;
    struct mu_live_call live;
    struct mu_turn_add prompt;
    struct mu_first_turn first;
    char text[64], body[64];
};

/* What each key of each tenant stands for. */
static struct {
    struct mu_id id;
    bool known;
} keys[SIM_ORGS][KEYS];

static struct call *calls[CALLS];
static unsigned n_calls;

static struct call *new_call(enum what what, unsigned org)
{
    struct call *c = sim_keep(sizeof *c);
    c->what = what;
    c->org = org;
    c->life = sim.life;
    for (unsigned i = 0; i < n_calls; i++) {
        if (!calls[i]->open) {
            calls[i] = c;
            c->open = true;
            return c;
        }
    }
    if (n_calls < CALLS) {
        calls[n_calls++] = c;
    }
    c->open = true;
    return c;
}

static struct mu_loop *any_loop(void)
{
    return sim.loops[sim_rand(SIM_LOOPS)];
}

/* --- create --- */

static void created(struct mu_session_create *op, int result)
{
    struct call *c = op->ctx;
    c->open = false;
    sim_note("people: create by %u, key %u: %d%s", c->org, c->key, result,
             op->replayed    ? ", again"
             : op->duplicate ? ", a repetition"
                             : "");
    if (result < 0) {
        return;
    }
    struct sim_session *s = sim_session(&op->id, true);
    if (!s->gone && !sim_row_exists(&op->id) && !s->delete_asked && sim.plan.retention_ms <= 0) {
        sim_fail("G1", "session %s was acknowledged and is not stored", op->id.text);
    }
    s->acked = true;
    s->org = c->org;
    sim.counts.replays += op->replayed || op->duplicate;
    if (!c->key) {
        return;
    }
    __typeof__(&keys[0][0]) k = &keys[c->org][c->key - 1];
    if (k->known && strcmp(k->id.text, op->id.text) != 0) {
        sim_fail("G1", "one key made two sessions: %s and %s", k->id.text, op->id.text);
    }
    k->known = true;
    k->id = op->id;
}

static void fill_create(struct call *c)
{
    static const char *const pins[] = {"w0", "w1", "ghost"};
    struct mu_session_create *op = &c->create;
    unsigned body = c->key ? c->key : (unsigned)sim_rand(1000);
    if (c->key && sim_chance(50)) {
        body += 100; /* the key with another body */
    }
    snprintf(c->text, sizeof c->text, "do %u", body);
    snprintf(c->body, sizeof c->body, "{\"prompt\":\"do %u\"}", body);
    *op = (struct mu_session_create){.who = &sim.who[c->org],
                                     .route = MU_ROUTE_WORKER,
                                     .source = MU_SRC_API,
                                     .harness = MU_B("custom"),
                                     .model = MU_B(""),
                                     .name = MU_B(""),
                                     .title = MU_B("a title"),
                                     .skill = MU_B(""),
                                     .prompt = mu_str(c->text),
                                     .spec = MU_B("{}"),
                                     .body = mu_str(c->body),
                                     .environment_id = MU_B("busybox:1"),
                                     .check_dup = !c->key && sim_chance(250),
                                     .done = created,
                                     .ctx = c};
    if (c->key) {
        static const char *const names[KEYS] = {"k0", "k1", "k2", "k3", "k4", "k5"};
        op->idem_key = mu_str(names[c->key - 1]);
    }
    if (sim_chance(150)) {
        op->pin_worker_id = mu_str(pins[sim_rand(MU_ARRAY_LEN(pins))]);
    }
    if (sim_chance(150)) {
        op->needs = MU_NEED_CLAUDE;
    }
    if (sim_chance(sim.plan.live_pm)) {
        op->spec = MU_B("{\"live\":{\"harness\":\"claude\"}}");
        if (sim_chance(sim.plan.sleepy ? 900 : 400)) {
            c->first = (struct mu_first_turn){.prompt = mu_str(c->text), .source = MU_SRC_API};
            op->mode = MU_MODE_INTERACTIVE;
            op->first_turn = sim_chance(500) ? &c->first : NULL;
        }
    } else if (sim_chance(20)) { /* nobody can execute it: it ends by itself */
        op->route = MU_ROUTE_PROVIDER;
    }
}

static void do_create(unsigned org)
{
    if (sim_n_sessions >= SIM_SESSIONS / 2) {
        return;
    }
    struct call *c = new_call(CREATE, org);
    c->key = sim_chance(400) ? 1 + (unsigned)sim_rand(KEYS) : 0;
    fill_create(c);
    c->create.unit.loop = any_loop();
    sim.here = c->create.unit.loop;
    int r = mu_dispatch_create(sim.d.dispatch, &c->create);
    sim.here = NULL;
    if (r < 0) {
        c->open = false;
    }
}

/* --- cancel, delete, get --- */

static struct sim_session *some_session(void)
{
    return sim_n_sessions ? &sim_sessions[sim_rand(sim_n_sessions)] : NULL;
}

static bool may_see(unsigned org, const struct sim_session *s)
{
    return sim.who[org].admin || s->org == org;
}

/* G6: what belongs to somebody else does not exist. */
static void check_seen(const struct call *c, int result, const char *what)
{
    if (c->s->acked && !may_see(c->org, c->s) && result != MU_E_NOT_FOUND && result >= 0) {
        sim_fail("G6", "%s of a foreign session: %d", what, result);
    }
}

static void cancelled(struct mu_session_cancel *op, int result)
{
    struct call *c = op->ctx;
    c->open = false;
    sim_note("people: cancel %s: %d, state %d%s", op->id.text, result, op->state,
             op->changed ? "" : ", as it was");
    check_seen(c, result, "cancel");
    if (result >= 0) {
        c->s->stop_acked = true;
    }
}

static void do_cancel(unsigned org, struct sim_session *s)
{
    struct call *c = new_call(CANCEL, org);
    c->s = s;
    c->cancel = (struct mu_session_cancel){.unit = {.loop = any_loop()},
                                           .admin = sim.who[org].admin,
                                           .org_id = mu_str(sim.who[org].org_id),
                                           .id = s->id,
                                           .done = cancelled,
                                           .ctx = c};
    sim.here = c->cancel.unit.loop;
    int r = mu_dispatch_cancel(sim.d.dispatch, &c->cancel);
    sim.here = NULL;
    if (r < 0) {
        c->open = false;
    }
}

static void removed(struct mu_session_delete *op, int result)
{
    struct call *c = op->ctx;
    c->open = false;
    sim_note("people: delete %s: %d", op->id.text, result);
    check_seen(c, result, "delete");
    if (result >= 0) {
        c->s->gone = true;
    }
}

static void do_delete(unsigned org, struct sim_session *s)
{
    struct call *c = new_call(DELETE, org);
    c->s = s;
    s->delete_asked = s->delete_asked || may_see(org, s);
    c->remove = (struct mu_session_delete){.unit = {.loop = any_loop()},
                                           .admin = sim.who[org].admin,
                                           .org_id = mu_str(sim.who[org].org_id),
                                           .id = s->id,
                                           .done = removed,
                                           .ctx = c};
    sim.here = c->remove.unit.loop;
    int r = mu_session_delete(sim.d.sessions, &c->remove);
    sim.here = NULL;
    if (r < 0) {
        c->open = false;
    }
}

static int see(void *arg, const struct mu_session_view *v)
{
    ((struct call *)arg)->seen_state = v->state;
    return 0;
}

static void got(struct mu_session_get *op, int result)
{
    struct call *c = op->ctx;
    c->open = false;
    check_seen(c, result, "get");
    if (result >= 0 && c->s->state >= MU_ST_COMPLETED && c->seen_state < MU_ST_COMPLETED &&
        sim.now - c->s->seen_ended > 2000) {
        sim_fail("G2", "session %s is shown in state %lld after its end", op->id.text,
                 (long long)c->seen_state);
    }
}

static void do_get(unsigned org, struct sim_session *s)
{
    struct call *c = new_call(GET, org);
    c->s = s;
    c->get = (struct mu_session_get){.read = {.loop = any_loop()},
                                     .admin = sim.who[org].admin,
                                     .org_id = mu_str(sim.who[org].org_id),
                                     .id = s->id,
                                     .each = see,
                                     .arg = c,
                                     .done = got,
                                     .ctx = c};
    sim.here = c->get.read.loop;
    int r = mu_session_get(sim.d.sessions, &c->get);
    sim.here = NULL;
    if (r < 0) {
        c->open = false;
    }
}

/* --- live sessions: decisions, pause and resume --- */

static void resolved(struct mu_gate_resolve *op, int result)
{
    struct call *c = op->ctx;
    c->open = false;
    sim_note("people: gate %s: %d, status %d%s", op->gate.text, result, op->status,
             op->repeated ? ", again" : "");
    check_seen(c, result, "decision");
    if (result >= 0) {
        sim_gate_decided(&op->gate, op->status, op->repeated);
        sim.here = op->unit.loop;
        mu_live_poke(sim.d.live, &op->session);
    }
}

static void do_resolve(unsigned org)
{
    struct mu_id gate, session;
    if (!sim_gate_some(&gate, &session, sim_chance(700))) {
        return;
    }
    struct call *c = new_call(RESOLVE, org);
    c->s = sim_session(&session, true);
    c->resolve = (struct mu_gate_resolve){.unit = {.loop = any_loop()},
                                          .admin = sim.who[org].admin,
                                          .org_id = mu_str(sim.who[org].org_id),
                                          .session = session,
                                          .gate = gate,
                                          .allow = sim_chance(600),
                                          .scope = sim_chance(200),
                                          .by = org == 0   ? MU_B("user:a")
                                                : org == 1 ? MU_B("user:b")
                                                           : MU_B("admin"),
                                          .done = resolved,
                                          .ctx = c};
    sim.here = c->resolve.unit.loop;
    c->open = mu_gate_resolve(sim.d.sessions, &c->resolve) >= 0;
    sim.here = NULL;
}

static void asked(struct mu_live_call *op, int result)
{
    struct call *c = op->ctx;
    c->open = false;
    mu_buf_fini(&op->answer);
    sim_note("people: %s %s: %d",
             op->want == MU_LIVE_PAUSE ? "pause"
             : op->want == MU_LIVE_END ? "end"
                                       : "resume",
             op->session.text, result);
    check_seen(c, result, "pause");
}

static void do_ask(unsigned org, struct sim_session *s, enum mu_live_want want)
{
    struct call *c = new_call(ASK, org);
    c->s = s;
    c->live = (struct mu_live_call){.loop = any_loop(),
                                    .want = want,
                                    .admin = sim.who[org].admin,
                                    .org_id = mu_str(sim.who[org].org_id),
                                    .by = MU_B("user:x"),
                                    .session = s->id,
                                    .done = asked,
                                    .ctx = c};
    sim.here = c->live.loop;
    mu_live_ask(sim.d.live, &c->live);
    sim.here = NULL;
}

static void prompted(struct mu_turn_add *op, int result)
{
    struct call *c = op->ctx;
    c->open = false;
    check_seen(c, result, "prompt");
    if (result >= 0) {
        sim_note("people: turn %s of %s", op->id.text, op->session.text);
        sim_turn_promised(&op->id, &op->session);
        sim.here = op->unit.loop;
        mu_live_poke(sim.d.live, &op->session);
    }
}

static void do_prompt(unsigned org, struct sim_session *s)
{
    struct call *c = new_call(PROMPT, org);
    c->s = s;
    c->prompt = (struct mu_turn_add){.unit = {.loop = any_loop()},
                                     .admin = sim.who[org].admin,
                                     .org_id = mu_str(sim.who[org].org_id),
                                     .session = s->id,
                                     .prompt = MU_B("go on"),
                                     .source = MU_SRC_API,
                                     .first = sim_chance(200),
                                     .done = prompted,
                                     .ctx = c};
    sim.here = c->prompt.unit.loop;
    c->open = mu_turn_add(sim.d.sessions, &c->prompt) >= 0;
    sim.here = NULL;
}

/* Somebody looks after what waits for people, also when all is calm. */
static void look_after(void *arg)
{
    if (sim.up && !(sim.calm && sim_all_ended())) {
        unsigned org = (unsigned)sim_rand(SIM_ORGS);
        struct sim_session *s = some_session();
        do_resolve(sim_chance(500) ? 2 : org);
        bool runs = s && s->present && (s->state == MU_ST_RUNNING || s->state == MU_ST_WAITING);
        bool rests = s && s->present && (s->state == MU_ST_PAUSED || mu_state_sleeps(s->state));
        if (rests && (sim.calm || sim_chance(80))) {
            do_ask(2, s, MU_LIVE_RESUME);
        } else if (runs && sim_chance(sim.calm ? 700 : sim.plan.sleepy ? 30 : 100)) {
            do_ask(sim_chance(800) ? s->org : org, s, MU_LIVE_END);
        } else if (s && s->present && !s->ended_ms && !sim.calm && sim_chance(400)) {
            do_prompt(sim_chance(800) ? s->org : org, s);
        } else if (runs && !sim.calm && sim_chance(400)) {
            do_ask(sim_chance(800) ? s->org : org, s, MU_LIVE_PAUSE);
        }
    }
    bool slow = sim.plan.sleepy && !sim.calm;
    sim_after(sim_between(100, slow ? 8000 : 2500), look_after, arg);
}

/* --- the story --- */

static void act(void *arg)
{
    unsigned org = (unsigned)sim_rand(SIM_ORGS);
    if (sim.calm) {
        return;
    }
    struct sim_session *s = some_session();
    uint64_t what = sim_rand(100);
    if (!sim.up) { /* nobody answers */
    } else if (what < 55 || !s) {
        do_create(org);
    } else if (what < 75) {
        do_cancel(sim_chance(800) ? s->org : org, s);
    } else if (what < 85) {
        do_delete(sim_chance(800) ? s->org : org, s);
    } else {
        do_get(org, s);
    }
    sim_after(sim_between(0, PAUSE_MS), act, arg);
}

void sim_people_plan(void)
{
    memset(keys, 0, sizeof keys);
    n_calls = 0;
    for (unsigned i = 0; i < sim.plan.n_people; i++) {
        sim_after(sim_between(0, 2000), act, NULL);
        if (sim.plan.live_pm) {
            sim_after(sim_between(0, 2000), look_after, NULL);
        }
    }
}

void sim_people_server_gone(void)
{
    for (unsigned i = 0; i < n_calls; i++) {
        calls[i]->open = false; /* never answered: it may have happened or not */
    }
}

bool sim_people_rest(void)
{
    for (unsigned i = 0; i < n_calls; i++) {
        if (calls[i]->open) {
            return false;
        }
    }
    return true;
}
