/* Quota slots: n messages per window are n slots, however many ask at once. */
#include "session_moves.h"

static struct mu_quota_take a_take(struct world *w, const char *scope, int64_t limit)
{
    struct mu_quota_take q = {.provider = "prov", .limit = limit, .hold_until_ms = now(w) + 10000};
    snprintf(q.scope, sizeof q.scope, "%s", scope);
    return q;
}

static int claim_with(struct world *w, const struct mu_id *id, int64_t epoch,
                      struct mu_quota_take *quota)
{
    struct mu_session_claim op = a_claim(w, id, epoch);
    op.quota = *quota;
    int r = do_claim(w, &op);
    *quota = op.quota;
    mu_arena_fini(&op.arena);
    return r;
}

static int64_t held(struct world *w)
{
    return num(w, "SELECT COUNT(*) FROM quota_slots WHERE holder <> ''");
}

struct race {
    struct world *w;
    int left, granted, refused, other;
};

static void raced(struct mu_session_claim *op, int result)
{
    struct race *r = op->ctx;
    r->granted += result == 0;
    r->refused += result == MU_E_SATURATED;
    r->other += result != 0 && result != MU_E_SATURATED;
    if (result == MU_E_SATURATED) {
        assert_int_equal(op->quota.next_free_ms, start_ms + 10000);
    }
    if (--r->left == 0) {
        mu_loop_stop(r->w->loop);
    }
}

static void exactly_as_many_as_the_limit_are_granted(struct world *w)
{
    enum { MOST = 24 };
    for (int64_t limit = 1; limit <= 9; limit += 4) {
        static struct mu_session_claim ops[MOST];
        struct race race = {.w = w, .left = MOST};
        char scope[16];
        snprintf(scope, sizeof scope, "org-%d", (int)limit);
        for (int i = 0; i < MOST; i++) {
            struct mu_id id = queued(w, &w->alice);
            ops[i] = a_claim(w, &id, 0);
            ops[i].quota = a_take(w, scope, limit);
            ops[i].unit.loop = w->loop;
            ops[i].done = raced;
            ops[i].ctx = &race;
        }
        for (int i = 0; i < MOST; i++) {
            assert_int_equal(mu_session_claim(w->sessions, &ops[i]), 0);
        }
        mu_loop_run(w->loop);
        assert_int_equal(race.granted, limit);
        assert_int_equal(race.refused, MOST - limit);
        assert_int_equal(race.other, 0);
        assert_int_equal(num(w, "SELECT COUNT(*) FROM quota_slots WHERE scope_id = '%s'", scope),
                         limit);
        for (int i = 0; i < MOST; i++) {
            /* Refused: nothing of the claim stays. */
            struct row r = row_of(w, &ops[i].id);
            assert_int_equal(r.state, r.epoch ? 60 : 20);
            assert_int_equal(events_of(w, &ops[i].id), r.epoch ? 2 : 1);
            mu_arena_fini(&ops[i].arena);
        }
    }
}

static void no_limit_takes_no_slot(struct world *w)
{
    struct mu_id id = queued(w, &w->alice);
    struct mu_quota_take q = a_take(w, "org", 0);
    assert_int_equal(claim_with(w, &id, 0, &q), 0);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM quota_slots"), 0);
}

static int end_settling(struct world *w, const struct mu_id *id, int64_t epoch, int64_t free_ms)
{
    struct mu_session_end op = {.id = *id,
                                .epoch = epoch,
                                .state = 90,
                                .outcome = MU_OUT_FINISHED,
                                .output = MU_B("x"),
                                .quota = {.provider = "prov", .scope = "org", .free_ms = free_ms}};
    return do_end(w, &op);
}

static void a_success_uses_its_slot_for_the_window_and_a_failure_gives_it_back(struct world *w)
{
    struct mu_id a = queued(w, &w->alice), b = queued(w, &w->alice), c = queued(w, &w->alice);
    struct mu_quota_take q = a_take(w, "org", 1);
    assert_int_equal(claim_with(w, &a, 0, &q), 0);
    assert_int_equal(held(w), 1);
    q = a_take(w, "org", 1);
    assert_int_equal(claim_with(w, &b, 0, &q), MU_E_SATURATED);
    assert_int_equal(q.next_free_ms, start_ms + 10000);
    q = a_take(w, "other", 1); /* another scope */
    assert_int_equal(claim_with(w, &b, 0, &q), 0);

    assert_int_equal(end_settling(w, &a, 1, now(w) + 60000), 0);
    q = a_take(w, "org", 1);
    assert_int_equal(claim_with(w, &c, 0, &q), MU_E_SATURATED);
    assert_int_equal(q.next_free_ms, start_ms + 60000);
    advance(w, 59999);
    q = a_take(w, "org", 1);
    assert_int_equal(claim_with(w, &c, 0, &q), MU_E_SATURATED);
    advance(w, 1);
    q = a_take(w, "org", 1);
    assert_int_equal(claim_with(w, &c, 0, &q), 0);
    assert_int_equal(end_settling(w, &c, 1, 0), 0); /* given back */
    struct mu_id d = queued(w, &w->alice);
    q = a_take(w, "org", 1);
    assert_int_equal(claim_with(w, &d, 0, &q), 0);
}

static void a_stale_settle_does_not_free_anothers_slot(struct world *w)
{
    struct mu_id a = queued(w, &w->alice), b = queued(w, &w->alice);
    struct mu_quota_take q = a_take(w, "org", 1);
    assert_int_equal(claim_with(w, &a, 0, &q), 0);
    advance(w, 10001); /* nobody settled: it is free again */
    q = a_take(w, "org", 1);
    assert_int_equal(claim_with(w, &b, 0, &q), 0);
    assert_int_equal(end_settling(w, &a, 1, 0), 0);
    assert_int_equal(held(w), 1);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM quota_slots WHERE holder = '%s'", b.text), 1);
    assert_int_equal(end_settling(w, &b, 9, 0), MU_E_STALE);
    assert_int_equal(held(w), 1);
}

/* The deadline ended the session; what its call used is known only to the report that comes late.
 */
static void a_late_report_still_settles_its_quota(struct world *w)
{
    struct mu_id a = queued(w, &w->alice), b = queued(w, &w->alice);
    struct mu_quota_take q = a_take(w, "org", 1);
    assert_int_equal(claim_with(w, &a, 0, &q), 0);
    put_sql(w,
            "UPDATE sessions SET state = 94, outcome = 4, ended_ms = 1, stop_ms = NULL WHERE id = "
            "'%s'",
            a.text);
    int64_t free_ms = now(w) + 60000;
    assert_int_equal(end_settling(w, &a, 1, free_ms), MU_E_STALE);
    advance(w, 10001); /* the hold would be over */
    q = a_take(w, "org", 1);
    assert_int_equal(claim_with(w, &b, 0, &q), MU_E_SATURATED);
    assert_int_equal(q.next_free_ms, free_ms);
}

static void a_switch_gives_the_former_slot_back(struct world *w)
{
    struct mu_id a = queued(w, &w->alice);
    struct mu_quota_take q = a_take(w, "org", 1);
    assert_int_equal(claim_with(w, &a, 0, &q), 0);
    struct mu_session_switch op = a_switch(&a, 1);
    op.former = (struct mu_quota_settle){.provider = "prov", .scope = "org"};
    op.quota = (struct mu_quota_take){
        .provider = "next", .scope = "*", .limit = 1, .hold_until_ms = now(w) + 5000};
    assert_int_equal(do_switch(w, &op), 0);
    assert_string_equal(txt(w, "SELECT provider FROM quota_slots WHERE holder <> ''"), "next;");
    /* Refused: everything stays as it was. */
    struct mu_id b = queued(w, &w->alice);
    q = a_take(w, "org", 1);
    assert_int_equal(claim_with(w, &b, 0, &q), 0);
    op = a_switch(&b, 1);
    op.former = (struct mu_quota_settle){.provider = "prov", .scope = "org"};
    op.quota = (struct mu_quota_take){
        .provider = "next", .scope = "*", .limit = 1, .hold_until_ms = now(w) + 5000};
    assert_int_equal(do_switch(w, &op), MU_E_SATURATED);
    assert_int_equal(op.quota.next_free_ms, now(w) + 5000);
    assert_int_equal(held(w), 2);
}

static void a_lower_limit_holds_at_once(struct world *w)
{
    for (int i = 0; i < 3; i++) {
        struct mu_id id = queued(w, &w->alice);
        struct mu_quota_take q = a_take(w, "org", 3);
        assert_int_equal(claim_with(w, &id, 0, &q), 0);
    }
    advance(w, 20000);
    for (int i = 0; i < 3; i++) {
        struct mu_id id = queued(w, &w->alice);
        struct mu_quota_take q = a_take(w, "org", 2);
        assert_int_equal(claim_with(w, &id, 0, &q), i < 2 ? 0 : MU_E_SATURATED);
    }
    struct mu_id id = queued(w, &w->alice);
    struct mu_quota_take q = a_take(w, "org", 4);
    assert_int_equal(claim_with(w, &id, 0, &q), 0); /* the third is free, the fourth is new */
    id = queued(w, &w->alice);
    q = a_take(w, "org", 4);
    assert_int_equal(claim_with(w, &id, 0, &q), 0);
    id = queued(w, &w->alice);
    q = a_take(w, "org", 4);
    assert_int_equal(claim_with(w, &id, 0, &q), MU_E_SATURATED);
}

static void putting_back_gives_the_slot_back(struct world *w)
{
    struct mu_id a = queued(w, &w->alice);
    struct mu_quota_take q = a_take(w, "org", 1);
    assert_int_equal(claim_with(w, &a, 0, &q), 0);
    struct mu_session_put_back op = a_put_back(w, &a, 1);
    op.quota = (struct mu_quota_settle){.provider = "prov", .scope = "org"};
    assert_int_equal(do_put_back(w, &op), 0);
    assert_int_equal(held(w), 0);
    q = a_take(w, "org", 1);
    assert_int_equal(claim_with(w, &a, 2, &q), 0);
}

IN_WORLD(exactly_as_many_as_the_limit_are_granted)
IN_WORLD(no_limit_takes_no_slot)
IN_WORLD(a_success_uses_its_slot_for_the_window_and_a_failure_gives_it_back)
IN_WORLD(a_stale_settle_does_not_free_anothers_slot)
IN_WORLD(a_late_report_still_settles_its_quota)
IN_WORLD(a_switch_gives_the_former_slot_back)
IN_WORLD(a_lower_limit_holds_at_once)
IN_WORLD(putting_back_gives_the_slot_back)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_ALL(exactly_as_many_as_the_limit_are_granted),
        ON_ALL(no_limit_takes_no_slot),
        ON_ALL(a_success_uses_its_slot_for_the_window_and_a_failure_gives_it_back),
        ON_ALL(a_stale_settle_does_not_free_anothers_slot),
        ON_ALL(a_late_report_still_settles_its_quota),
        ON_ALL(a_switch_gives_the_former_slot_back),
        ON_ALL(a_lower_limit_holds_at_once),
        ON_ALL(putting_back_gives_the_slot_back),
    };
    return cmocka_run_group_tests(tests, pg_begin, pg_end);
}
