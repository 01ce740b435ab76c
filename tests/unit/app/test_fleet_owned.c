/* Workers that enrolled: whose they are, how they drain and go, on both engines. */
#include "fleet_world.h"

#include "app/identity/identity_int.h"

static int registered_result;
static void on_registered(struct mu_fleet_register *op, int result)
{
    registered_result = result;
}
static bool is_registered(void *arg)
{
    return registered_result != 1;
}

/* With an enrolment token of that org; the worker's credential stays in `op`. */
static int enrol(struct mu_fleet_register *op, const struct mu_principal *token, const char *host)
{
    *op = (struct mu_fleet_register){.loop = W->loop,
                                     .enrolment = token->enrolment,
                                     .host = mu_str(host),
                                     .capacity = -1,
                                     .done = on_registered};
    memcpy(op->org_id, token->org_id, sizeof op->org_id);
    registered_result = 1;
    mu_fleet_register(fleet, op);
    until(is_registered, NULL, "an answer to a registration");
    return registered_result;
}

static int enrolment_result;
static void on_enrolment(struct mu_enrolment_op *op, int result)
{
    enrolment_result = result;
}
static bool has_enrolment(void *arg)
{
    return enrolment_result != 1;
}

static struct mu_principal token_for(const struct mu_principal *who, int64_t uses, char *ret_token)
{
    struct mu_enrolment_op op = {
        .unit = {.loop = W->loop}, .name = MU_B("t"), .uses = uses, .done = on_enrolment};
    snprintf(op.pass.org_id, sizeof op.pass.org_id, "%s", who->org_id);
    enrolment_result = 1;
    W->identity->writer = W->writer; /* the world gives it none */
    assert_int_equal(mu_enrolment_create(W->identity, &op), 0);
    until(has_enrolment, NULL, "an enrolment token");
    assert_int_equal(enrolment_result, 0);
    struct mu_principal p;
    assert_int_equal(mu_identity_resolve(W->identity, mu_str(op.pass.token), &p), 0);
    assert_string_equal(p.enrolment.text, op.pass.id.text);
    assert_int_equal(p.role, 0);
    if (ret_token) {
        snprintf(ret_token, MU_PASS_LEN + 1, "%s", op.pass.token);
    }
    return p;
}

static struct peer *come_as(const struct mu_fleet_register *op)
{
    struct peer *x = new_peer();
    x->admission.name = MU_B("");
    x->admission.runner = op->uid;
    admit(x);
    if (x->admitted == 0) {
        mu_fleet_attach(&x->peer);
    }
    return x;
}

static int changed_result;
static void on_changed(struct mu_fleet_change *op, int result)
{
    changed_result = result;
}
static bool is_changed(void *arg)
{
    return changed_result != 1;
}

static int change(struct mu_fleet_change *op, enum mu_fleet_act act, const struct mu_id *uid,
                  const char *org, bool force)
{
    *op = (struct mu_fleet_change){.loop = W->loop,
                                   .act = act,
                                   .uid = *uid,
                                   .timeout_ms = -1,
                                   .force = force,
                                   .done = on_changed};
    snprintf(op->org_id, sizeof op->org_id, "%s", org);
    changed_result = 1;
    mu_fleet_change(fleet, op);
    until(is_changed, NULL, "an answer to a change");
    return changed_result;
}

static bool is_closed(void *arg)
{
    return ((struct peer *)arg)->closed;
}

/* --- tests --- */

static void a_token_is_used_up_by_one_conditional_write(struct world *w)
{
    begin(w);
    char token[MU_PASS_LEN + 1];
    struct mu_principal t = token_for(&w->alice, 1, token), p;
    static struct mu_fleet_register a, b;
    assert_int_equal(enrol(&a, &t, "one"), 0);
    assert_true(a.created);
    assert_int_equal(mu_identity_resolve(w->identity, mu_str(a.pass.token), &p), 0);
    assert_string_equal(p.runner.text, a.uid.text);
    assert_int_equal(enrol(&b, &t, "two"), MU_E_UNAUTHORIZED);
    assert_int_equal(mu_identity_resolve(w->identity, mu_str(token), &p), MU_E_UNAUTHORIZED);
    finis();
}

static void an_owned_worker_takes_only_what_is_its_orgs(struct world *w)
{
    begin(w);
    struct mu_principal t = token_for(&w->alice, 1, NULL);
    static struct mu_fleet_register a;
    assert_int_equal(enrol(&a, &t, "one"), 0);
    struct peer *p = come_as(&a);
    create_for(&w->bob, "bobs", NULL);
    nothing(p);
    struct mu_id id = create_for(&w->alice, "hers", NULL);
    assert_string_equal(next(p, MU_ORDER_ASSIGN)->of.session.text, id.text);
    finis();
}

static void a_name_means_ones_own_worker(struct world *w)
{
    begin(w);
    struct mu_principal t = token_for(&w->alice, 1, NULL);
    static struct mu_fleet_register a;
    assert_int_equal(enrol(&a, &t, "build"), 0);
    struct peer *own = come_as(&a);
    struct peer *shared = connected("build");
    struct mu_id hers = create_for(&w->alice, "x", "build");
    assert_string_equal(next(own, MU_ORDER_ASSIGN)->of.session.text, hers.text);
    struct mu_id his = create_for(&w->bob, "y", "build");
    assert_string_equal(next(shared, MU_ORDER_ASSIGN)->of.session.text, his.text);
    nothing(own);
    finis();
}

static void a_drain_is_kept_over_a_start(struct world *w)
{
    begin(w);
    struct mu_principal t = token_for(&w->alice, 1, NULL);
    static struct mu_fleet_register a;
    static struct mu_fleet_change op;
    assert_int_equal(enrol(&a, &t, "one"), 0);
    assert_int_equal(change(&op, MU_ACT_DRAIN, &a.uid, w->bob.org_id, false), MU_E_NOT_FOUND);
    assert_int_equal(change(&op, MU_ACT_DRAIN, &a.uid, w->alice.org_id, false), 0);
    assert_int_equal(change(&op, MU_ACT_DRAIN, &a.uid, w->alice.org_id, false), 0);
    start_anew(w);
    struct mu_worker_view v;
    assert_true(mu_fleet_get(fleet, &a.uid, false, mu_str(w->alice.org_id), &v));
    assert_true(v.draining);
    assert_false(mu_fleet_get(fleet, &a.uid, false, mu_str(w->bob.org_id), &v));
    struct peer *p = come_as(&a);
    create_for(&w->alice, "x", NULL);
    nothing(p);
    assert_int_equal(change(&op, MU_ACT_UNDRAIN, &a.uid, w->alice.org_id, false), 0);
    next(p, MU_ORDER_ASSIGN);
    assert_int_equal(change(&op, MU_ACT_UNDRAIN, &a.uid, w->alice.org_id, false), MU_E_CONFLICT);
    finis();
}

static void a_worker_with_sessions_goes_only_by_force(struct world *w)
{
    begin(w);
    struct mu_principal t = token_for(&w->alice, 1, NULL), who;
    static struct mu_fleet_register a;
    static struct mu_fleet_change op;
    assert_int_equal(enrol(&a, &t, "one"), 0);
    struct peer *p = come_as(&a);
    struct mu_id id = create_for(&w->alice, "x", NULL);
    next(p, MU_ORDER_ASSIGN);
    assert_int_equal(change(&op, MU_ACT_REMOVE, &a.uid, w->alice.org_id, false), MU_E_CONFLICT);
    assert_int_equal(op.n_sessions, 1);
    assert_string_equal(op.sessions[0].text, id.text);
    assert_int_equal(change(&op, MU_ACT_REMOVE, &a.uid, w->alice.org_id, true), 0);
    until_state(&id, 22);
    until(is_closed, p, "its connection is closed");
    assert_int_equal(p->close_code, 4411);
    assert_int_equal(mu_identity_resolve(w->identity, mu_str(a.pass.token), &who), 0);
    assert_true(who.removed);
    assert_int_equal(come_as(&a)->admitted, MU_E_NOT_FOUND);
    assert_int_equal(change(&op, MU_ACT_REMOVE, &a.uid, w->alice.org_id, true), MU_E_NOT_FOUND);
    finis();
}

/* Else nobody could register by that name until a worker of it comes by its link. */
static void a_pinned_name_whose_registration_failed_is_free(struct world *w)
{
    begin(w);
    const struct mu_principal nobodys = {.org_id = ""};
    struct mu_principal t = token_for(&nobodys, 1, NULL), more = token_for(&nobodys, 1, NULL);
    static struct mu_fleet_register a;
    create_for(&w->alice, "x", "build");
    assert_int_equal(enrol(&a, &t, "other"), 0);
    assert_int_equal(enrol(&a, &t, "build"), MU_E_UNAUTHORIZED); /* by the unit */
    atomic_store(&writer_busy, true);
    assert_int_equal(enrol(&a, &more, "build"), MU_E_BUSY); /* before there is one */
    atomic_store(&writer_busy, false);
    assert_int_equal(enrol(&a, &more, "build"), 0);
    assert_true(a.created);
    next(come_as(&a), MU_ORDER_ASSIGN);
    finis();
}

IN_WORLD(a_token_is_used_up_by_one_conditional_write)
IN_WORLD(an_owned_worker_takes_only_what_is_its_orgs)
IN_WORLD(a_name_means_ones_own_worker)
IN_WORLD(a_drain_is_kept_over_a_start)
IN_WORLD(a_worker_with_sessions_goes_only_by_force)
IN_WORLD(a_pinned_name_whose_registration_failed_is_free)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(a_token_is_used_up_by_one_conditional_write),
        ON_BOTH(an_owned_worker_takes_only_what_is_its_orgs),
        ON_BOTH(a_name_means_ones_own_worker),
        ON_BOTH(a_drain_is_kept_over_a_start),
        ON_BOTH(a_worker_with_sessions_goes_only_by_force),
        ON_BOTH(a_pinned_name_whose_registration_failed_is_free),
    };
    return cmocka_run_group_tests(tests, pg_begin, pg_end);
}
