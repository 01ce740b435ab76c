/* The fleet with peers that are driven from here, on a real SQLite file. */
#include "../unit.h"

#pragma GCC diagnostic ignored "-Wunused-parameter"

#include "session_moves.h"

#include "app/fleet/fleet.h"
#include "app/fleet/needs.h"

enum { PEERS = 8, ORDERS = 64 };

/* A worker's connection, as the fleet sees it. */
struct peer {
    struct mu_peer peer;
    struct mu_admission admission;
    char name[40];
    int admitted; /* 1 = no answer yet */
    bool alive, released, closed;
    int close_code, probes;
    struct order {
        enum mu_order_kind kind;
        struct mu_execution of;
        char prompt[64], image[64], token[80];
        size_t n_keep, n_stop, n_acked;
    } orders[ORDERS];
    unsigned n_orders, taken;
};

static struct world *W;
static struct mu_fleet *fleet;
static struct mu_fleet_opts fopts;
static struct peer peers[PEERS];
static unsigned n_peers;

/* --- peers --- */

static void on_order(struct mu_peer *p, struct mu_order *o)
{
    struct peer *x = MU_CONTAINER(p, struct peer, peer);
    struct order *to = &x->orders[x->n_orders++ % ORDERS];
    *to = (struct order){.kind = o->kind,
                         .of = o->of,
                         .n_keep = o->n_keep,
                         .n_stop = o->n_stop,
                         .n_acked = o->n_acked};
    snprintf(to->prompt, sizeof to->prompt, "%.*s", MU_ARGS(o->job.prompt));
    snprintf(to->image, sizeof to->image, "%.*s", MU_ARGS(o->job.image));
    snprintf(to->token, sizeof to->token, "%s", o->job.token);
    mu_order_free(o);
}
static void on_probe(struct mu_peer *p)
{
    struct peer *x = MU_CONTAINER(p, struct peer, peer);
    x->probes++;
    mu_fleet_alive(p, x->alive);
}
static void on_close(struct mu_peer *p, int code, const char *reason)
{
    struct peer *x = MU_CONTAINER(p, struct peer, peer);
    x->closed = true;
    x->close_code = code;
    mu_fleet_gone(p);
}
static void on_release(struct mu_peer *p)
{
    MU_CONTAINER(p, struct peer, peer)->released = true;
}
static void on_admitted(struct mu_admission *op, int result)
{
    ((struct peer *)op->ctx)->admitted = result;
}

static void until(bool (*holds)(void *arg), void *arg, const char *what)
{
    for (int i = 0; i < 3000 && !holds(arg); i++) {
        run_for(W, 2);
    }
    if (!holds(arg)) {
        fail_msg("never: %s", what);
    }
}

static bool is_admitted(void *arg)
{
    return ((struct peer *)arg)->admitted != 1;
}
static bool has_order(void *arg)
{
    const struct peer *x = arg;
    return x->n_orders > x->taken;
}

static struct peer *come(const char *name, bool native)
{
    assert_true(n_peers < PEERS);
    struct peer *x = &peers[n_peers++];
    snprintf(x->name, sizeof x->name, "%s", name);
    x->alive = true;
    x->admitted = 1;
    x->peer = (struct mu_peer){.loop = W->loop,
                               .order = on_order,
                               .probe = on_probe,
                               .close = on_close,
                               .release = on_release};
    x->admission = (struct mu_admission){.peer = &x->peer,
                                         .name = mu_str(x->name),
                                         .instance = native ? MU_B("i-1") : MU_B_NONE,
                                         .native = native,
                                         .done = on_admitted,
                                         .ctx = x};
    mu_fleet_admit(fleet, &x->admission);
    until(is_admitted, x, "an answer to a worker that comes");
    return x;
}

static struct peer *connected(const char *name)
{
    struct peer *x = come(name, false);
    assert_int_equal(x->admitted, 0);
    mu_fleet_attach(&x->peer);
    return x;
}

static void leave(struct peer *x, const struct mu_id *unsent)
{
    if (unsent) {
        x->peer.unsent = mu_alloc(sizeof *unsent);
        x->peer.unsent[0] = *unsent;
        x->peer.n_unsent = 1;
    }
    mu_fleet_gone(&x->peer);
    for (int i = 0; i < 100 && !x->released; i++) {
        run_for(W, 1);
    }
    assert_true(x->released);
}

static struct order *next(struct peer *x, enum mu_order_kind kind)
{
    until(has_order, x, "an order");
    struct order *o = &x->orders[x->taken++ % ORDERS];
    assert_int_equal(o->kind, kind);
    return o;
}

static void nothing(struct peer *x)
{
    run_for(W, 60);
    assert_int_equal(x->n_orders, x->taken);
}

static struct mu_report *report(struct peer *x, enum mu_report_kind kind, const struct order *o)
{
    struct mu_report *r;
    assert_int_equal(mu_report_new(kind, &r), 0);
    r->peer = x ? &x->peer : NULL;
    r->session = o->of.session;
    return r;
}

static void say(struct peer *x, enum mu_report_kind kind, const struct order *o)
{
    mu_fleet_tell(fleet, report(x, kind, o));
}

static void finish(struct peer *x, const struct order *o, int64_t code, const char *output)
{
    struct mu_report *r = report(x, MU_REPORT_ENDED, o);
    r->has_exit_code = r->has_output = true;
    r->exit_code = code;
    mu_buf_add_str(&r->output, output);
    r->output_total = (int64_t)r->output.len;
    mu_fleet_tell(fleet, r);
}

/* --- the world --- */

static void begin(struct world *w)
{
    W = w;
    memset(peers, 0, sizeof peers);
    n_peers = 0;
    fopts = (struct mu_fleet_opts){.env = &w->env,
                                   .core = w->loop,
                                   .sessions = w->sessions,
                                   .identity = w->identity,
                                   .readers = w->readers,
                                   .writer = w->writer,
                                   .feed = w->feed,
                                   .metrics = w->metrics,
                                   .claim_timeout_ms = 100000,
                                   .native_claim_timeout_ms = 100000,
                                   .grace_ms = 100000,
                                   .default_capacity = 2,
                                   .run_max_ms = 3600000,
                                   .pending_max_ms = 600000,
                                   .max_tries = 3,
                                   .go_workers = true};
    assert_int_equal(mu_fleet_new(&fopts, &fleet), 0);
    mu_fleet_start(fleet);
}

static void finis(void)
{
    mu_fleet_close(fleet);
    run_for(W, 30);
    W->writer = mu_writer_free(W->writer); /* what is under way ends */
    run_for(W, 5);
    fleet = mu_fleet_free(fleet);
}

static struct mu_session_create made;
static bool is_made;
static int made_result;

static void on_made(struct mu_session_create *op, int result)
{
    is_made = true;
    made_result = result;
}
static bool was_made(void *arg)
{
    return is_made;
}

static struct mu_id create_for(const struct mu_principal *who, const char *prompt, const char *pin)
{
    made = new_run(who);
    made.route = MU_ROUTE_WORKER;
    made.prompt = mu_str(prompt);
    made.environment_id = MU_B("busybox:1");
    made.pin_worker_id = pin ? mu_str(pin) : MU_B_NONE;
    made.unit.loop = W->loop;
    made.done = on_made;
    is_made = false;
    assert_int_equal(mu_fleet_create(fleet, &made), 0);
    until(was_made, NULL, "a session is made");
    assert_int_equal(made_result, 0);
    return made.id;
}

static struct mu_id create(const char *prompt)
{
    return create_for(&W->alice, prompt, NULL);
}

struct wish {
    const struct mu_id *id;
    int state;
};
static bool is_in(void *arg)
{
    const struct wish *x = arg;
    return row_of(W, x->id).state == x->state;
}
static void until_state(const struct mu_id *id, int state)
{
    struct wish x = {id, state};
    until(is_in, &x, "the session's state");
}

/* --- tests --- */

static void a_session_goes_to_a_worker_and_ends(struct world *w)
{
    begin(w);
    struct peer *p = connected("w1");
    struct mu_id id = create("hello");
    struct order *o = next(p, MU_ORDER_ASSIGN);
    assert_string_equal(o->of.session.text, id.text);
    assert_string_equal(o->prompt, "hello");
    assert_string_equal(o->image, "busybox:1");
    struct mu_principal who;
    assert_int_equal(mu_identity_resolve(w->identity, mu_str(o->token), &who), 0);
    assert_string_equal(who.run.text, id.text);
    assert_int_equal(who.run_epoch, 1);
    until_state(&id, 30);
    say(p, MU_REPORT_CLAIMED, o);
    until_state(&id, 60);
    finish(p, o, 0, "all done");
    until_state(&id, 90);
    assert_int_equal(get(w, &w->alice, &id), 0);
    assert_string_equal(seen.output, "all done");
    run_for(w, 20);
    assert_int_equal(mu_identity_resolve(w->identity, mu_str(o->token), &who), MU_E_UNAUTHORIZED);
    assert_int_equal(live(&w->alice), 0);
    finis();
}

static void reports_of_another_attempt_do_not_count(struct world *w)
{
    begin(w);
    struct peer *p = connected("w1");
    struct mu_id id = create("hello");
    struct order *o = next(p, MU_ORDER_ASSIGN);
    for (int i = 0; i < 6; i++) { /* the epoch before, the next one, another execution */
        struct mu_report *r = report(p, i % 2 ? MU_REPORT_CLAIMED : MU_REPORT_ENDED, o);
        r->epoch = i < 2 ? 0 : i < 4 ? 2 : -1;
        r->execution = i < 4 ? o->of.execution : mu_id_random(&w->env);
        mu_fleet_tell(fleet, r);
        run_for(w, 30);
        assert_int_equal(row_of(w, &id).state, 30);
    }
    finis();
}

static void a_worker_gets_what_it_has_room_for(struct world *w)
{
    begin(w);
    struct mu_id a = create("a"), b = create("b"), c = create("c");
    struct peer *p = connected("w1");
    struct order *one = next(p, MU_ORDER_ASSIGN), *two = next(p, MU_ORDER_ASSIGN);
    assert_string_equal(one->of.session.text, a.text);
    assert_string_equal(two->of.session.text, b.text);
    nothing(p);
    finish(p, one, 3, "");
    assert_string_equal(next(p, MU_ORDER_ASSIGN)->of.session.text, c.text);
    until_state(&a, 92);
    finis();
}

static void tenants_take_turns(struct world *w)
{
    begin(w);
    struct mu_id a1 = create("a1"), a2 = create("a2"), a3 = create("a3");
    struct mu_id b1 = create_for(&w->bob, "b1", NULL);
    struct peer *p = connected("w1");
    char got[3][8];
    for (int i = 0; i < 3; i++) {
        struct order *o = next(p, MU_ORDER_ASSIGN);
        snprintf(got[i], sizeof got[i], "%s", o->prompt);
        finish(p, o, 0, "");
    }
    assert_string_equal(got[0], "a1");
    assert_string_equal(got[1], "b1");
    assert_string_equal(got[2], "a2");
    (void)a1, (void)a2, (void)a3, (void)b1;
    finis();
}

static void a_pinned_session_waits_for_its_worker(struct world *w)
{
    begin(w);
    struct peer *p = connected("w1");
    struct mu_id id = create_for(&w->alice, "mine", "w2");
    nothing(p);
    struct peer *q = connected("w2");
    assert_string_equal(next(q, MU_ORDER_ASSIGN)->of.session.text, id.text);
    finis();
}

static void a_refused_session_goes_elsewhere(struct world *w)
{
    begin(w);
    struct peer *p = connected("w1");
    struct mu_id id = create("x");
    say(p, MU_REPORT_REJECTED, next(p, MU_ORDER_ASSIGN));
    until_state(&id, 22);
    assert_int_equal(row_of(w, &id).tries, 0);
    nothing(p); /* it said that it is full */
    struct peer *q = connected("w2");
    struct order *o = next(q, MU_ORDER_ASSIGN);
    assert_string_equal(o->of.session.text, id.text);
    assert_int_equal(o->of.epoch, 3);
    say(p, MU_REPORT_CLAIMED, o); /* not its own any more */
    nothing(q);
    assert_int_equal(row_of(w, &id).state, 30);
    finis();
}

static void a_cancelled_session_is_stopped_where_it_runs(struct world *w)
{
    begin(w);
    struct peer *p = connected("w1");
    struct mu_id id = create("x");
    struct order *o = next(p, MU_ORDER_ASSIGN);
    say(p, MU_REPORT_CLAIMED, o);
    until_state(&id, 60);
    assert_int_equal(cancel(w, &w->alice, &id, NULL), 0);
    mu_fleet_cancelled(fleet, mu_id_bytes(&id));
    assert_string_equal(next(p, MU_ORDER_CANCEL)->of.session.text, id.text);
    assert_int_equal(row_of(w, &id).state, 80);
    finish(p, o, 0, "too late");
    until_state(&id, 90);
    assert_int_equal(row_of(w, &id).outcome, MU_OUT_CANCELLED);
    finis();
}

static void a_worker_that_returns_keeps_its_sessions(struct world *w)
{
    begin(w);
    struct peer *p = connected("w1");
    struct mu_id id = create("x");
    struct order *o = next(p, MU_ORDER_ASSIGN);
    say(p, MU_REPORT_CLAIMED, o);
    until_state(&id, 60);
    leave(p, NULL);
    assert_int_equal(row_of(w, &id).state, 60);
    struct peer *q = connected("w1");
    finish(p, o, 1, "from the connection that is gone");
    finish(q, o, 0, "from the new one");
    until_state(&id, 90);
    assert_int_equal(get(w, &w->alice, &id), 0);
    assert_string_equal(seen.output, "from the new one");
    finis();
}

static void what_did_not_leave_goes_back_at_once(struct world *w)
{
    begin(w);
    struct peer *p = connected("w1");
    struct mu_id id = create("x");
    next(p, MU_ORDER_ASSIGN);
    leave(p, &id);
    until_state(&id, 22);
    assert_int_equal(num(w, "SELECT outcome FROM attempts"), MU_ATT_PUT_BACK);
    struct peer *q = connected("w1"); /* nothing is unresolved there */
    assert_string_equal(next(q, MU_ORDER_ASSIGN)->of.session.text, id.text);
    finis();
}

static void one_connection_for_each_id(struct world *w)
{
    begin(w);
    struct peer *p = connected("w1");
    run_for(w, 5);
    assert_int_equal(come("w1", false)->admitted, MU_E_BUSY);
    assert_int_equal(p->probes, 1);
    p->alive = false;
    struct peer *q = come("w1", false);
    assert_int_equal(q->admitted, 0);
    run_for(w, 5);
    assert_true(p->closed);
    assert_int_equal(p->close_code, 1001);
    struct peer *n = come("n1", true);
    mu_fleet_attach(&n->peer);
    run_for(w, 5);
    struct peer *m = come("n1", true); /* the same instance: no question */
    assert_int_equal(m->admitted, 0);
    run_for(w, 5);
    assert_int_equal(n->close_code, 4410);
    assert_int_equal(n->probes, 0);
    finis();
}

static struct mu_report *hello(struct peer *x, int64_t capacity)
{
    struct mu_report *r;
    assert_int_equal(mu_report_new(MU_REPORT_HELLO, &r), 0);
    r->peer = &x->peer;
    r->capacity = capacity;
    return r;
}

static void a_native_worker_says_what_it_runs(struct world *w)
{
    begin(w);
    struct mu_id one = create("one"), two = create("two");
    struct peer *p = come("n1", true);
    mu_fleet_attach(&p->peer);
    nothing(p); /* it says hello first */
    mu_fleet_tell(fleet, hello(p, 2));
    next(p, MU_ORDER_WELCOME);
    struct order *a = next(p, MU_ORDER_ASSIGN), *b = next(p, MU_ORDER_ASSIGN);
    struct order keep = *a, lost = *b;
    say(p, MU_REPORT_CLAIMED, a);
    say(p, MU_REPORT_CLAIMED, b);
    until_state(&one, 40);
    until_state(&two, 40);
    leave(p, NULL);
    struct peer *q = come("n1", true);
    mu_fleet_attach(&q->peer);
    struct mu_report *r = hello(q, 2);
    r->running = mu_arena_calloc(&r->arena, 2 * sizeof *r->running);
    r->running[0] = (struct mu_report_running){.of = keep.of, .state = 60};
    r->running[1].of.execution = mu_id_random(&w->env);
    r->n_running = 2;
    mu_fleet_tell(fleet, r);
    struct order *welcome = next(q, MU_ORDER_WELCOME);
    assert_int_equal(welcome->n_keep, 1);
    assert_int_equal(welcome->n_stop, 1);
    until_state(&one, 60);
    /* what it had only prepared and lost begins anew */
    struct order *again = next(q, MU_ORDER_ASSIGN);
    assert_string_equal(again->of.session.text, lost.of.session.text);
    assert_int_equal(again->of.epoch, 3);
    assert_int_equal(row_of(w, &two).tries, 1);
    finis();
}

static void output_is_stored_while_it_runs(struct world *w)
{
    begin(w);
    struct peer *p = connected("w1");
    struct mu_id id = create("x");
    struct order *o = next(p, MU_ORDER_ASSIGN);
    say(p, MU_REPORT_CLAIMED, o);
    until_state(&id, 60);
    static const struct {
        int64_t offset;
        const char *text;
    } logs[] = {{0, "one "}, {0, "one "}, {2, "e two "}, {20, "after a gap"}};
    for (size_t i = 0; i < MU_ARRAY_LEN(logs); i++) {
        struct mu_report *r = report(p, MU_REPORT_LOG, o);
        r->offset = logs[i].offset;
        r->chunk = mu_str(logs[i].text);
        mu_fleet_tell(fleet, r);
    }
    run_for(w, 1200);
    assert_int_equal(get(w, &w->alice, &id), 0);
    assert_string_equal(seen.output, "one two \n[... 12 bytes were dropped ...]\nafter a gap");
    struct mu_report *end = report(p, MU_REPORT_ENDED, o);
    mu_fleet_tell(fleet, end); /* brings none: what is stored stays */
    until_state(&id, 90);
    assert_int_equal(get(w, &w->alice, &id), 0);
    assert_string_equal(seen.output, "one two \n[... 12 bytes were dropped ...]\nafter a gap");
    finis();
}

static void the_next_start_waits_for_the_workers(struct world *w)
{
    begin(w);
    struct peer *p = connected("w1");
    struct mu_id id = create("x");
    struct order o = *next(p, MU_ORDER_ASSIGN);
    say(p, MU_REPORT_CLAIMED, &o);
    until_state(&id, 60);
    mu_fleet_close(fleet);
    run_for(w, 30);
    fleet = mu_fleet_free(fleet);
    struct mu_db *db = NULL;
    struct mu_err err;
    assert_int_equal(mu_fleet_new(&fopts, &fleet), 0);
    assert_int_equal(mu_db_open(&(struct mu_db_opts){.url = w->url}, &db, &err), 0);
    assert_int_equal(mu_fleet_load(fleet, db), 0);
    mu_db_close(db);
    mu_fleet_start(fleet);
    struct mu_principal who;
    assert_int_equal(mu_identity_resolve(w->identity, mu_str(o.token), &who), 0);
    struct peer *q = connected("w1");
    finish(q, &o, 0, "kept");
    until_state(&id, 90);
    finis();
}

static void start_anew(struct world *w)
{
    mu_fleet_close(fleet);
    run_for(w, 30);
    fleet = mu_fleet_free(fleet);
    struct mu_db *db = NULL;
    struct mu_err err;
    assert_int_equal(mu_fleet_new(&fopts, &fleet), 0);
    assert_int_equal(mu_db_open(&(struct mu_db_opts){.url = w->url}, &db, &err), 0);
    assert_int_equal(mu_fleet_load(fleet, db), 0);
    mu_db_close(db);
    mu_fleet_start(fleet);
}

static void a_worker_that_was_away_is_told_to_stop_also_after_a_restart(struct world *w)
{
    begin(w);
    fopts.grace_ms = 50;
    start_anew(w);
    struct peer *p = connected("w1"), *other = connected("w2");
    struct mu_id id = create_for(&w->alice, "lost", "w1"), done = create_for(&w->alice, "x", "w2");
    struct order o = *next(p, MU_ORDER_ASSIGN), theirs = *next(other, MU_ORDER_ASSIGN);
    say(p, MU_REPORT_CLAIMED, &o);
    until_state(&id, 60);
    finish(other, &theirs, 3, "");
    until_state(&done, 92);
    run_for(w, 700); /* the workers' rows are written now and then */
    leave(p, NULL);
    until_state(&id, 92);
    leave(other, NULL);
    start_anew(w);
    struct peer *q = connected("w1");
    struct order *cancel = next(q, MU_ORDER_CANCEL);
    assert_string_equal(cancel->of.session.text, id.text);
    assert_string_equal(cancel->of.execution.text, o.of.execution.text);
    nothing(q);
    nothing(connected("w2"));
    finis();
}

/* --- what a session needs --- */

static int load_queued(void *arg, const struct mu_live_row *row)
{
    return mu_fleet_load_queued(fleet, row);
}

static struct mu_id create_needing(int64_t needs)
{
    made = new_run(&W->alice);
    made.route = MU_ROUTE_WORKER;
    made.prompt = MU_B("x");
    made.needs = needs;
    made.unit.loop = W->loop;
    made.done = on_made;
    is_made = false;
    assert_int_equal(mu_fleet_create(fleet, &made), 0);
    until(was_made, NULL, "a session is made");
    assert_int_equal(made_result, 0);
    return made.id;
}

static struct peer *offering(const char *name, const char *caps)
{
    struct peer *x = come(name, true);
    mu_fleet_attach(&x->peer);
    struct mu_report *r = hello(x, 1);
    r->caps = mu_arena_dup(&r->arena, mu_str(caps));
    mu_fleet_tell(fleet, r);
    next(x, MU_ORDER_WELCOME);
    return x;
}

/* Between acknowledgements. */
static struct order *assigned(struct peer *x)
{
    struct order *o;
    do {
        until(has_order, x, "an assignment");
        o = &x->orders[x->taken++ % ORDERS];
    } while (o->kind == MU_ORDER_ACK);
    assert_int_equal(o->kind, MU_ORDER_ASSIGN);
    return o;
}

static bool says_why(void *arg)
{
    assert_int_equal(get(W, &W->alice, arg), 0);
    return strstr(seen.message, "network:none") != NULL;
}
static bool says_nothing(void *arg)
{
    assert_int_equal(get(W, &W->alice, arg), 0);
    return seen.message[0] == 0;
}

static void a_session_waits_for_a_worker_that_can_and_says_so(struct world *w)
{
    begin(w);
    struct peer *plain = connected("plain"), *poor = offering("poor", "{\"harnesses\":[]}");
    struct mu_id id = create_needing(MU_NEED_NET_NONE | MU_NEED_CODEX);
    until(says_why, &id, "the reason");
    assert_non_null(strstr(seen.message, "No connected worker"));
    nothing(plain);
    nothing(poor);
    assert_int_equal(row_of(w, &id).state, 22);
    struct peer *other = offering("other", "{\"features\":[\"nested\"]}");
    nothing(other);
    struct peer *rich =
        offering("rich", "{\"features\":[\"network:none\"],\"harnesses\":[\"codex\"]}");
    struct order *o = assigned(rich);
    assert_string_equal(o->of.session.text, id.text);
    until(says_nothing, &id, "the reason is gone");
    /* the worker is full: who needs it waits, and nobody says that it is not there */
    struct mu_id second = create_needing(MU_NEED_NET_NONE);
    run_for(w, 1200);
    until(says_nothing, &second, "no reason");
    finish(rich, o, 0, "");
    assert_string_equal(assigned(rich)->of.session.text, second.text);
    finis();
}

static void the_reason_is_taken_back_when_a_worker_comes_that_is_busy(struct world *w)
{
    begin(w);
    struct peer *poor = offering("poor", "{\"harnesses\":[]}");
    struct mu_id id = create_needing(MU_NEED_NET_NONE);
    until(says_why, &id, "the reason");
    struct peer *rich = come("rich", true);
    mu_fleet_attach(&rich->peer);
    struct mu_report *r = hello(rich, 1);
    r->caps = MU_B("{\"features\":[\"network:none\"]}");
    r->capacity = 1;
    struct mu_id pinned = create_for(&w->alice, "mine", "rich");
    mu_fleet_tell(fleet, r);
    next(rich, MU_ORDER_WELCOME);
    struct order *first = assigned(rich);
    bool mine = strcmp(first->of.session.text, pinned.text) == 0;
    until(says_nothing, &id, "the reason is gone");
    finish(rich, first, 0, "");
    assert_string_equal(assigned(rich)->of.session.text, mine ? id.text : pinned.text);
    nothing(poor);
    finis();
}

static void needs_survive_the_next_start(struct world *w)
{
    begin(w);
    struct mu_id id = create_needing(MU_NEED_NET_NONE);
    mu_fleet_close(fleet);
    run_for(w, 30);
    fleet = mu_fleet_free(fleet);
    struct mu_db *db = NULL;
    struct mu_err err;
    assert_int_equal(mu_fleet_new(&fopts, &fleet), 0);
    assert_int_equal(mu_db_open(&(struct mu_db_opts){.url = w->url}, &db, &err), 0);
    assert_int_equal(mu_sessions_each_live(db, load_queued, NULL), 0);
    mu_db_close(db);
    mu_fleet_start(fleet);
    struct peer *poor = offering("poor", "{}");
    until(says_why, &id, "the reason");
    nothing(poor);
    struct peer *rich = offering("rich", "{\"features\":[\"network:none\"]}");
    assert_string_equal(next(rich, MU_ORDER_ASSIGN)->of.session.text, id.text);
    until(says_nothing, &id, "the reason is gone");
    finis();
}

/* --- memory that runs out: nothing is lost, it is done later --- */

static void a_session_survives_any_failing_allocation(struct world *w)
{
    begin(w);
    struct peer *p = connected("w1");
    run_for(w, 10);
    for (long n = 1; n < 40; n++) {
        made = new_run(&w->alice);
        made.route = MU_ROUTE_WORKER;
        made.prompt = MU_B("x");
        made.needs = MU_NEED_CODEX; /* a plain worker may have it */
        made.unit.loop = w->loop;
        made.done = on_made;
        is_made = false;
        mu_alloc_fail_at(n);
        int r = mu_fleet_create(fleet, &made);
        if (r == 0) {
            until(was_made, NULL, "an answer");
        }
        mu_alloc_fail_at(0);
        if (r < 0 || made_result < 0) {
            continue;
        }
        struct mu_id id = made.id;
        struct order *o = next(p, MU_ORDER_ASSIGN);
        assert_string_equal(o->of.session.text, id.text);
        finish(p, o, 0, "x");
        until_state(&id, 90);
    }
    finis();
}

IN_WORLD(a_session_goes_to_a_worker_and_ends)
IN_WORLD(reports_of_another_attempt_do_not_count)
IN_WORLD(a_worker_gets_what_it_has_room_for)
IN_WORLD(tenants_take_turns)
IN_WORLD(a_pinned_session_waits_for_its_worker)
IN_WORLD(a_refused_session_goes_elsewhere)
IN_WORLD(a_cancelled_session_is_stopped_where_it_runs)
IN_WORLD(a_worker_that_returns_keeps_its_sessions)
IN_WORLD(what_did_not_leave_goes_back_at_once)
IN_WORLD(one_connection_for_each_id)
IN_WORLD(a_native_worker_says_what_it_runs)
IN_WORLD(output_is_stored_while_it_runs)
IN_WORLD(the_next_start_waits_for_the_workers)
IN_WORLD(a_worker_that_was_away_is_told_to_stop_also_after_a_restart)
IN_WORLD(a_session_waits_for_a_worker_that_can_and_says_so)
IN_WORLD(the_reason_is_taken_back_when_a_worker_comes_that_is_busy)
IN_WORLD(needs_survive_the_next_start)
IN_WORLD(a_session_survives_any_failing_allocation)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(a_session_goes_to_a_worker_and_ends),
        ON_BOTH(reports_of_another_attempt_do_not_count),
        ON(a_worker_gets_what_it_has_room_for, 0),
        ON(tenants_take_turns, 0),
        ON(a_pinned_session_waits_for_its_worker, 0),
        ON_BOTH(a_refused_session_goes_elsewhere),
        ON_BOTH(a_cancelled_session_is_stopped_where_it_runs),
        ON(a_worker_that_returns_keeps_its_sessions, 0),
        ON(what_did_not_leave_goes_back_at_once, 0),
        ON(one_connection_for_each_id, 0),
        ON_BOTH(a_native_worker_says_what_it_runs),
        ON_BOTH(output_is_stored_while_it_runs),
        ON_BOTH(the_next_start_waits_for_the_workers),
        ON_BOTH(a_worker_that_was_away_is_told_to_stop_also_after_a_restart),
        ON_BOTH(a_session_waits_for_a_worker_that_can_and_says_so),
        ON(the_reason_is_taken_back_when_a_worker_comes_that_is_busy, 0),
        ON_BOTH(needs_survive_the_next_start),
        ON(a_session_survives_any_failing_allocation, 0),
    };
    return cmocka_run_group_tests(tests, start_pg, stop_pg);
}
