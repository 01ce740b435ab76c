/* For the tests of the fleet: peers that are driven from here, on a real database. */
#ifndef TEST_FLEET_WORLD_H
#define TEST_FLEET_WORLD_H
#include "../unit.h"

#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wunused-function"

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
        char prompt[64], image[64], token[80], message[4096], checkpoint[40];
        struct mu_id command;
        size_t n_keep, n_stop, n_acked;
        int64_t acked; /* number of the first */
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
                         .n_acked = o->n_acked,
                         .acked = o->n_acked ? o->acked[0].seq : 0};
    snprintf(to->prompt, sizeof to->prompt, "%.*s", MU_ARGS(o->job.prompt));
    snprintf(to->image, sizeof to->image, "%.*s", MU_ARGS(o->job.image));
    snprintf(to->checkpoint, sizeof to->checkpoint, "%.*s", MU_ARGS(o->job.checkpoint));
    snprintf(to->token, sizeof to->token, "%s", o->job.token);
    snprintf(to->message, sizeof to->message, "%.*s", MU_ARGS(o->message));
    to->command = o->command;
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
        fprintf(stderr, "NEVER %s\n", what);
        fail_msg("never: %s", what);
    }
}

static bool is_admitted(void *arg)
{
    return ((struct peer *)arg)->admitted != 1;
}
static bool is_released(void *arg)
{
    return ((struct peer *)arg)->released;
}
static bool has_order(void *arg)
{
    const struct peer *x = arg;
    return x->n_orders > x->taken;
}

/* With an admission that says only who waits for its answer. */
static struct peer *new_peer(void)
{
    assert_true(n_peers < PEERS);
    struct peer *x = &peers[n_peers++];
    x->alive = true;
    x->admitted = 1;
    x->peer = (struct mu_peer){.loop = W->loop,
                               .order = on_order,
                               .probe = on_probe,
                               .close = on_close,
                               .release = on_release};
    x->admission = (struct mu_admission){.peer = &x->peer, .done = on_admitted, .ctx = x};
    return x;
}

static void admit(struct peer *x)
{
    mu_fleet_admit(fleet, &x->admission);
    until(is_admitted, x, "an answer to a worker that comes");
}

static struct peer *come(const char *name, bool native)
{
    struct peer *x = new_peer();
    snprintf(x->name, sizeof x->name, "%s", name);
    x->admission.name = mu_str(x->name);
    x->admission.instance = native ? MU_B("i-1") : MU_B_NONE;
    x->admission.native = native;
    admit(x);
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
    until(is_released, x, "a worker is released");
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

static struct mu_report *hello(struct peer *x, int64_t capacity)
{
    struct mu_report *r;
    assert_int_equal(mu_report_new(MU_REPORT_HELLO, &r), 0);
    r->peer = &x->peer;
    r->capacity = capacity;
    return r;
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

#endif
