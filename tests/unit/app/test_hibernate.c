/* Sessions that wait hold no worker: what puts them to sleep, what wakes them, and what becomes of
 * their turns and gates. */
#include "app/sessions/checkpoints.h"
#include "app/sessions/hibernate.h"
#include "session_moves.h"

OPERATION(mu_session_sleep, do_sleep, mu_session_sleep, w->sessions, unit)
OPERATION(mu_session_wake, do_wake, mu_session_wake, w->sessions, unit)
OPERATION(mu_session_queued, do_queued, mu_session_queued_read, w->sessions, read)
OPERATION(mu_session_sleepies, do_sleepies, mu_session_sleepies, w->sessions, read)
OPERATION(mu_checkpoint_take, do_take, mu_checkpoint_take, w->sessions, unit)

static int64_t checkpoint(struct world *w, const struct mu_id *id, int64_t epoch)
{
    int64_t number =
        1 + num(w, "SELECT count(*) FROM checkpoints WHERE session_id = '%s'", id->text);
    int64_t seq = num(w, "SELECT runner_seq FROM attempts WHERE session_id = '%s' AND epoch = %lld",
                      id->text, (long long)epoch);
    struct mu_checkpoint_take op = {.id = *id,
                                    .epoch = epoch,
                                    .runner_seq = seq + 1,
                                    .number = number,
                                    .conversation = MU_B("talk"),
                                    .manifest = MU_B("{\"roots\":[],\"parts\":[]}")};
    assert_int_equal(do_take(w, &op), 0);
    assert_null(op.refused);
    return number;
}

static struct mu_id talking(struct world *w)
{
    struct mu_session_create c = new_run(&w->alice);
    c.mode = MU_MODE_INTERACTIVE;
    c.limit_ms = 3600000;
    return working_as(w, &c);
}

static int sleep_at(struct world *w, const struct mu_id *id, int64_t epoch, int from,
                    int64_t number)
{
    struct mu_session_sleep op = {.id = *id,
                                  .epoch = epoch,
                                  .number = number,
                                  .from = from,
                                  .hold_until_ms = now(w) + 86400000};
    return do_sleep(w, &op);
}

static int falls_asleep(struct world *w, const struct mu_id *id, int64_t epoch, int from)
{
    return sleep_at(w, id, epoch, from, checkpoint(w, id, epoch));
}

static int wake(struct world *w, const struct mu_principal *who, const struct mu_id *id)
{
    struct mu_session_wake op = {
        .id = *id, .admin = who->admin, .org_id = mu_str(who->org_id), .by = MU_B("user:me")};
    return do_wake(w, &op);
}

static void runs_again(struct world *w, const struct mu_id *id, int64_t epoch)
{
    assert_int_equal(offer(w, id, epoch, NULL), 0);
    assert_int_equal(step(w, id, epoch + 1, 30, 60), 0);
}

static struct mu_id add_turn(struct world *w, const struct mu_id *id, const char *text)
{
    struct mu_turn_add op = {
        .session = *id, .org_id = mu_str(w->alice.org_id), .prompt = mu_str(text)};
    assert_int_equal(do_turn_add(w, &op), 0);
    return op.id;
}

static int next_turn(struct world *w, const struct mu_id *id, int64_t epoch)
{
    struct mu_turn_next op = {.session = *id, .epoch = epoch};
    mu_arena_init(&op.arena, 1 << 20);
    int r = do_turn_next(w, &op);
    mu_arena_fini(&op.arena);
    return r;
}

static int ask_in(struct world *w, const struct mu_id *id, int64_t epoch, const char *key,
                  const struct mu_id *turn, struct mu_gate_ask *ret)
{
    struct mu_gate_ask op = a_gate(id, epoch, key);
    op.turn_id = mu_id_bytes(turn);
    op.fresh = mu_id_random(&w->env);
    op.expires_ms = now(w) + 600000;
    int r = do_ask(w, &op);
    *ret = op;
    return r;
}

static int decide(struct world *w, const struct mu_id *id, const struct mu_id *gate, bool allow)
{
    struct mu_gate_resolve op = {.session = *id,
                                 .gate = *gate,
                                 .org_id = mu_str(w->alice.org_id),
                                 .allow = allow,
                                 .by = MU_B("user:a")};
    return do_resolve(w, &op);
}

static int64_t state_of(struct world *w, const struct mu_id *id)
{
    return row_of(w, id).state;
}

/* --- idle --- */

static void an_idle_one_is_put_down_behind_its_checkpoint_and_woken(struct world *w)
{
    struct mu_id id = talking(w);
    int64_t number = checkpoint(w, &id, 1);
    assert_int_equal(sleep_at(w, &id, 1, MU_ST_RUNNING, number + 1), MU_E_CONFLICT);
    assert_int_equal(sleep_at(w, &id, 2, MU_ST_RUNNING, number), MU_E_STALE);
    assert_int_equal(sleep_at(w, &id, 1, MU_ST_PAUSED, number), MU_E_CONFLICT);
    put_chunk(w, &id, 1, 0, MU_B("of this attempt"), false);
    assert_int_equal(num(w, "SELECT count(*) FROM output_chunks"), 1);
    assert_int_equal(sleep_at(w, &id, 1, MU_ST_RUNNING, number), 0);
    assert_int_equal(num(w, "SELECT count(*) FROM output_chunks"), 0);
    assert_int_equal(state_of(w, &id), MU_ST_HIBERNATED);
    assert_int_equal(row_of(w, &id).epoch, 2);
    assert_int_equal(
        num(w, "SELECT count(*) FROM attempts WHERE session_id = '%s' AND ended_ms IS NULL",
            id.text),
        0);
    assert_int_equal(num(w,
                         "SELECT count(*) FROM sessions WHERE id = '%s' AND worker_id IS NULL AND "
                         "restore_id IS NOT NULL AND conversation = 'talk'",
                         id.text),
                     1);
    assert_int_equal(sleep_at(w, &id, 2, MU_ST_RUNNING, number), MU_E_CONFLICT);
    assert_int_equal(wake(w, &w->bob, &id), MU_E_NOT_FOUND);
    int64_t ran = num(w, "SELECT run_deadline_ms FROM sessions WHERE id = '%s'", id.text);
    advance(w, 5000);
    assert_int_equal(wake(w, &w->alice, &id), 0);
    assert_int_equal(wake(w, &w->alice, &id), MU_E_CONFLICT);
    assert_int_equal(state_of(w, &id), MU_ST_QUEUED_WORKER);
    struct mu_session_queued q = {.id = id};
    assert_int_equal(do_queued(w, &q), 0);
    assert_int_equal(q.row.epoch, 2);
    mu_free(q.pin);
    runs_again(w, &id, 2);
    /* its own clock stood still */
    assert_int_equal(num(w, "SELECT run_deadline_ms FROM sessions WHERE id = '%s'", id.text),
                     ran + 5000);
    assert_int_equal(do_queued(w, &q), MU_E_NOT_FOUND);
    mu_free(q.pin);
    /* that one is of another attempt */
    assert_int_equal(sleep_at(w, &id, 3, MU_ST_RUNNING, number), MU_E_CONFLICT);
    assert_int_equal(holes(w), 0);
}

static void one_that_has_something_to_do_stays(struct world *w)
{
    struct mu_id id = talking(w);
    int64_t number = checkpoint(w, &id, 1);
    struct mu_id turn = add_turn(w, &id, "one");
    assert_int_equal(sleep_at(w, &id, 1, MU_ST_RUNNING, number), MU_E_CONFLICT);
    assert_int_equal(next_turn(w, &id, 1), 0);
    assert_int_equal(sleep_at(w, &id, 1, MU_ST_RUNNING, number), MU_E_CONFLICT);
    struct mu_session_report done = {.id = id,
                                     .epoch = 1,
                                     .seq_before = number,
                                     .seq = number + 1,
                                     .turn = turn,
                                     .turn_state = MU_TURN_DONE};
    assert_int_equal(do_report(w, &done), 0);
    struct mu_gate_ask gate = a_gate(&id, 1, "k");
    assert_int_equal(do_ask(w, &gate), 0);
    assert_int_equal(decide(w, &id, &gate.id, true), 0);
    assert_int_equal(state_of(w, &id), MU_ST_RUNNING);
    assert_int_equal(falls_asleep(w, &id, 1, MU_ST_RUNNING), MU_E_CONFLICT); /* nobody told it */
    struct mu_gate_delivered told = {.session = id, .gate = gate.id, .epoch = 1};
    assert_int_equal(do_delivered(w, &told), 0);
    assert_int_equal(falls_asleep(w, &id, 1, MU_ST_RUNNING), 0);
    assert_int_equal(state_of(w, &id), MU_ST_HIBERNATED);
}

static void a_task_does_not_hibernate(struct world *w)
{
    struct mu_id id = working(w, &w->alice);
    assert_true(falls_asleep(w, &id, 1, MU_ST_RUNNING) < 0);
    assert_int_equal(state_of(w, &id), MU_ST_RUNNING);
}

static void a_prompt_wakes_it(struct world *w)
{
    struct mu_id id = talking(w);
    assert_int_equal(falls_asleep(w, &id, 1, MU_ST_RUNNING), 0);
    (void)add_turn(w, &id, "go on");
    assert_int_equal(state_of(w, &id), MU_ST_QUEUED_WORKER);
    (void)add_turn(w, &id, "and on");
    assert_int_equal(state_of(w, &id), MU_ST_QUEUED_WORKER);
    runs_again(w, &id, 2);
    assert_int_equal(holes(w), 0);
}

static void a_stop_ends_it_at_once(struct world *w)
{
    struct mu_id id = talking(w);
    assert_int_equal(falls_asleep(w, &id, 1, MU_ST_RUNNING), 0);
    struct mu_session_cancel op = {
        .id = id, .org_id = mu_str(w->alice.org_id), .by = MU_B("user:a")};
    assert_int_equal(do_cancel(w, &op), 0);
    assert_int_equal(state_of(w, &id), MU_ST_COMPLETED);
    assert_int_equal(wake(w, &w->alice, &id), MU_E_CONFLICT);
    assert_int_equal(live(&w->alice), 0);
}

/* --- in the middle of a turn --- */

static void its_turn_waits_again_and_that_was_no_try(struct world *w)
{
    struct mu_id id = talking(w);
    (void)add_turn(w, &id, "one");
    for (int64_t epoch = 1; epoch < 2 * MU_TURN_TRIES + 2; epoch += 2) {
        assert_int_equal(next_turn(w, &id, epoch), 0);
        assert_int_equal(pause_it(w, &w->alice, &id), 0);
        assert_int_equal(falls_asleep(w, &id, epoch, MU_ST_PAUSED), 0);
        assert_int_equal(num(w, "SELECT tries * 100 + state FROM turns"), MU_TURN_QUEUED);
        assert_int_equal(wake(w, &w->alice, &id), 0);
        runs_again(w, &id, epoch + 1);
    }
    assert_int_equal(holes(w), 0);
}

static void a_decision_wakes_it_and_is_for_the_same_request_once(struct world *w)
{
    struct mu_id id = talking(w), turn = add_turn(w, &id, "one");
    struct mu_gate_ask first, other, again, more;
    assert_int_equal(next_turn(w, &id, 1), 0);
    assert_int_equal(ask_in(w, &id, 1, "k", &turn, &first), 0);
    assert_int_equal(state_of(w, &id), MU_ST_WAITING);
    assert_int_equal(falls_asleep(w, &id, 1, MU_ST_WAITING), 0);
    assert_int_equal(state_of(w, &id), MU_ST_WAITING_AWAY);
    /* the runner that it had before cannot take it back */
    struct mu_gate_delivered late = {.session = id, .gate = first.id, .epoch = 1, .unwanted = true};
    assert_int_equal(do_delivered(w, &late), MU_E_STALE);
    (void)add_turn(w, &id, "later"); /* waits like the other */
    assert_int_equal(state_of(w, &id), MU_ST_WAITING_AWAY);
    assert_int_equal(decide(w, &id, &first.id, true), 0);
    assert_int_equal(state_of(w, &id), MU_ST_QUEUED_WORKER);
    /* refused by a worker, offered to another: nothing is lost of it */
    assert_int_equal(offer(w, &id, 2, NULL), 0);
    int64_t epoch = 0;
    assert_int_equal(requeue(w, &id, 3, false, &epoch), 0);
    runs_again(w, &id, epoch);
    epoch++;
    assert_int_equal(next_turn(w, &id, epoch), 0);
    assert_int_equal(ask_in(w, &id, epoch, "other", &turn, &other), 0);
    assert_false(other.carried);
    assert_int_equal(ask_in(w, &id, epoch, "k", &turn, &again), 0);
    assert_true(again.carried);
    assert_string_equal(again.id.text, first.id.text);
    assert_int_equal(again.status, MU_GATE_ALLOWED);
    /* said again on another connection: the same; its runner knows it by its own name */
    again.id.text[0] = 0;
    assert_int_equal(do_ask(w, &again), 0);
    assert_string_equal(again.id.text, first.id.text);
    struct mu_gate_delivered taken = {.session = id, .gate = again.fresh, .epoch = epoch};
    assert_int_equal(do_delivered(w, &taken), 0);
    assert_int_equal(num(w, "SELECT count(*) FROM gates WHERE delivered_ms IS NOT NULL"), 1);
    assert_int_equal(ask_in(w, &id, epoch, "k", &turn, &more), 0);
    assert_false(more.carried);
    assert_string_not_equal(more.id.text, first.id.text);
    assert_int_equal(num(w, "SELECT count(*) FROM gates"), 3);
    assert_int_equal(holes(w), 0);
}

static void what_was_decided_is_told_before_it_sleeps(struct world *w)
{
    struct mu_id id = talking(w), turn = add_turn(w, &id, "one");
    struct mu_gate_ask first, second;
    assert_int_equal(next_turn(w, &id, 1), 0);
    assert_int_equal(ask_in(w, &id, 1, "k1", &turn, &first), 0);
    assert_int_equal(ask_in(w, &id, 1, "k2", &turn, &second), 0);
    assert_int_equal(decide(w, &id, &first.id, true), 0);
    assert_int_equal(state_of(w, &id), MU_ST_WAITING);
    assert_int_equal(falls_asleep(w, &id, 1, MU_ST_WAITING), MU_E_CONFLICT);
    struct mu_gate_delivered told = {.session = id, .gate = first.id, .epoch = 1};
    assert_int_equal(do_delivered(w, &told), 0);
    assert_int_equal(falls_asleep(w, &id, 1, MU_ST_WAITING), 0);
}

static void what_was_decided_is_not_for_another_turn(struct world *w)
{
    struct mu_id id = talking(w), turn = add_turn(w, &id, "one");
    struct mu_gate_ask first, again;
    assert_int_equal(next_turn(w, &id, 1), 0);
    assert_int_equal(ask_in(w, &id, 1, "k", &turn, &first), 0);
    assert_int_equal(falls_asleep(w, &id, 1, MU_ST_WAITING), 0);
    assert_int_equal(decide(w, &id, &first.id, true), 0);
    runs_again(w, &id, 2);
    assert_int_equal(next_turn(w, &id, 3), 0);
    struct mu_session_report done = {
        .id = id, .epoch = 3, .seq = 1, .turn = turn, .turn_state = MU_TURN_DONE};
    assert_int_equal(do_report(w, &done), 0);
    assert_int_equal(num(w, "SELECT count(*) FROM gates WHERE delivered_ms IS NULL"), 0);
    struct mu_id second = add_turn(w, &id, "two");
    assert_int_equal(ask_in(w, &id, 3, "k", &second, &again), 0);
    assert_false(again.carried);
    assert_int_equal(again.status, MU_GATE_PENDING);
}

static void a_gate_that_is_open_when_it_wakes_is_asked_for_again(struct world *w)
{
    struct mu_id id = talking(w), turn = add_turn(w, &id, "one");
    struct mu_gate_ask first, again;
    assert_int_equal(next_turn(w, &id, 1), 0);
    assert_int_equal(ask_in(w, &id, 1, "k", &turn, &first), 0);
    assert_int_equal(pause_it(w, &w->alice, &id), 0);
    assert_int_equal(falls_asleep(w, &id, 1, MU_ST_PAUSED), 0);
    advance(w, 900000); /* its time stands still */
    assert_int_equal(wake(w, &w->alice, &id), 0);
    assert_in_range(num(w, "SELECT expires_ms FROM gates"), now(w) + 500000, now(w) + 700000);
    runs_again(w, &id, 2);
    assert_int_equal(next_turn(w, &id, 3), 0);
    assert_int_equal(ask_in(w, &id, 3, "k", &turn, &again), 0);
    assert_true(again.carried);
    assert_int_equal(state_of(w, &id), MU_ST_WAITING);
    assert_int_equal(decide(w, &id, &first.id, false), 0);
    assert_int_equal(state_of(w, &id), MU_ST_RUNNING);
    assert_int_equal(num(w, "SELECT count(*) FROM gates"), 1);
    assert_int_equal(holes(w), 0);
}

static void a_gate_that_nobody_asked_for_again_holds_nothing_up(struct world *w)
{
    struct mu_id id = talking(w), turn = add_turn(w, &id, "one");
    struct mu_gate_ask first, other, more;
    assert_int_equal(next_turn(w, &id, 1), 0);
    assert_int_equal(ask_in(w, &id, 1, "k", &turn, &first), 0);
    assert_int_equal(pause_it(w, &w->alice, &id), 0);
    assert_int_equal(falls_asleep(w, &id, 1, MU_ST_PAUSED), 0);
    assert_int_equal(wake(w, &w->alice, &id), 0);
    runs_again(w, &id, 2);
    assert_int_equal(next_turn(w, &id, 3), 0);
    assert_int_equal(ask_in(w, &id, 3, "other", &turn, &other), 0);
    assert_int_equal(state_of(w, &id), MU_ST_WAITING);
    assert_int_equal(decide(w, &id, &other.id, true), 0);
    assert_int_equal(state_of(w, &id), MU_ST_RUNNING);
    struct mu_gate_delivered taken = {.session = id, .gate = other.id, .epoch = 3};
    assert_int_equal(do_delivered(w, &taken), 0);
    /* nor when it is away */
    assert_int_equal(ask_in(w, &id, 3, "more", &turn, &more), 0);
    assert_int_equal(falls_asleep(w, &id, 3, MU_ST_WAITING), 0);
    assert_int_equal(decide(w, &id, &more.id, true), 0);
    assert_int_equal(state_of(w, &id), MU_ST_QUEUED_WORKER);
    runs_again(w, &id, 4);
    assert_int_equal(next_turn(w, &id, 5), 0);
    assert_int_equal(pause_it(w, &w->alice, &id), 0);
    struct mu_session_resume resume = {
        .id = id, .org_id = mu_str(w->alice.org_id), .by = MU_B("user:me")};
    assert_int_equal(do_resume(w, &resume), 0);
    assert_int_equal(state_of(w, &id), MU_ST_RUNNING);
    struct mu_session_report done = {
        .id = id, .epoch = 5, .seq = 1, .turn = turn, .turn_state = MU_TURN_DONE};
    assert_int_equal(do_report(w, &done), 0);
    assert_int_equal(num(w, "SELECT status FROM gates WHERE id = '%s'", first.id.text),
                     MU_GATE_CANCELLED);
    assert_int_equal(holes(w), 0);
}

static void it_may_wait_again_after_days_of_sleep(struct world *w)
{
    struct mu_id id = talking(w);
    struct mu_gate_ask gate;
    assert_int_equal(falls_asleep(w, &id, 1, MU_ST_RUNNING), 0);
    advance(w, INT64_C(3) * 86400000);
    struct mu_id turn = add_turn(w, &id, "go on");
    runs_again(w, &id, 2);
    assert_int_equal(next_turn(w, &id, 3), 0);
    assert_int_equal(ask_in(w, &id, 3, "k", &turn, &gate), 0);
    assert_in_range(row_of(w, &id).deadline, now(w) + 86000000, now(w) + 86400000);
    assert_int_equal(decide(w, &id, &gate.id, true), 0);
    assert_in_range(row_of(w, &id).deadline, now(w) + 3500000, now(w) + 3600000);
}

static void an_expired_gate_wakes_it_too(struct world *w)
{
    struct mu_id id = talking(w), turn = add_turn(w, &id, "one");
    struct mu_gate_ask first, again;
    assert_int_equal(next_turn(w, &id, 1), 0);
    assert_int_equal(ask_in(w, &id, 1, "k", &turn, &first), 0);
    assert_int_equal(falls_asleep(w, &id, 1, MU_ST_WAITING), 0);
    advance(w, 700000);
    struct mu_gate_expire op = {.session = id, .gate = first.id};
    assert_int_equal(do_expire(w, &op), 0);
    assert_int_equal(state_of(w, &id), MU_ST_QUEUED_WORKER);
    runs_again(w, &id, 2);
    assert_int_equal(next_turn(w, &id, 3), 0);
    assert_int_equal(ask_in(w, &id, 3, "k", &turn, &again), 0);
    assert_int_equal(again.status, MU_GATE_EXPIRED);
}

static void what_cannot_be_known_again_keeps_it_awake(struct world *w)
{
    struct mu_id id = talking(w), turn = add_turn(w, &id, "one");
    assert_int_equal(next_turn(w, &id, 1), 0);
    struct mu_gate_ask op = a_gate(&id, 1, "");
    op.fresh = mu_id_random(&w->env);
    struct mu_digest_hex own = mu_sha256_hex(mu_id_bytes(&op.fresh)); /* it has no key */
    op.request_key = mu_str(own.text);
    op.turn_id = mu_id_bytes(&turn);
    assert_int_equal(do_ask(w, &op), 0);
    assert_int_equal(falls_asleep(w, &id, 1, MU_ST_WAITING), MU_E_CONFLICT);
    assert_int_equal(decide(w, &id, &op.id, true), 0);
    struct mu_gate_ask people = a_gate(&id, -1, "people");
    people.org_id = mu_str(w->alice.org_id);
    assert_int_equal(do_ask(w, &people), 0);
    assert_int_equal(falls_asleep(w, &id, 1, MU_ST_WAITING), MU_E_CONFLICT);
}

/* --- parked --- */

static int lose(struct world *w, const struct mu_id *id, int64_t epoch, bool *ret_parked)
{
    struct mu_session_requeue op = {.id = *id,
                                    .epoch = epoch,
                                    .deadline_ms = now(w) + 60000,
                                    .park_until_ms = now(w) + 86400000,
                                    .from = 60,
                                    .lost = true,
                                    .outcome = MU_ATT_LOST,
                                    .reason = "The runner was lost"};
    int r = do_requeue(w, &op);
    *ret_parked = op.parked;
    return r;
}

static void lost_too_often_it_is_parked_and_may_be_tried_again(struct world *w)
{
    struct mu_id id = talking(w);
    bool parked = false;
    (void)checkpoint(w, &id, 1);
    (void)add_turn(w, &id, "one");
    for (int64_t epoch = 1; epoch <= 5; epoch += 2) {
        assert_int_equal(next_turn(w, &id, epoch), 0);
        assert_int_equal(lose(w, &id, epoch, &parked), 0);
        if (!parked) {
            runs_again(w, &id, epoch + 1);
        }
    }
    assert_true(parked);
    assert_int_equal(state_of(w, &id), MU_ST_PARKED);
    assert_int_equal(get(w, &w->alice, &id), 0);
    assert_non_null(strstr(seen.error, "SESSION_LOST"));
    assert_int_equal(wake(w, &w->alice, &id), 0);
    assert_int_equal(get(w, &w->alice, &id), 0);
    assert_string_equal(seen.error, "");
    assert_int_equal(num(w, "SELECT losses FROM sessions WHERE id = '%s'", id.text), 0);
    assert_int_equal(
        num(w, "SELECT count(*) FROM attempts WHERE session_id = '%s' AND ended_ms IS NULL",
            id.text),
        0);
    assert_int_equal(holes(w), 0);
}

static void without_a_checkpoint_it_is_not_parked(struct world *w)
{
    struct mu_id id = talking(w);
    bool parked = false;
    assert_int_equal(lose(w, &id, 1, &parked), MU_E_CONFLICT);
    assert_false(parked);
    assert_int_equal(state_of(w, &id), MU_ST_RUNNING);
}

static void deadline(struct world *w, const struct mu_id *id)
{
    put_sql(w, "UPDATE sessions SET deadline_ms = %lld WHERE id = '%s'", (long long)now(w),
            id->text);
}

static void time_parks_those_that_ran_and_ends_those_that_sleep(struct world *w)
{
    struct mu_id woken = talking(w), asleep = talking(w), waits = talking(w), parked = talking(w);
    struct mu_id turn = add_turn(w, &waits, "one");
    struct mu_gate_ask gate;
    struct mu_session_create c = new_run(&w->alice);
    c.mode = MU_MODE_INTERACTIVE;
    c.route = MU_ROUTE_WORKER;
    assert_int_equal(falls_asleep(w, &woken, 1, MU_ST_RUNNING), 0);
    struct mu_fork f = {.source = woken};
    c.fork = &f;
    assert_int_equal(do_create(w, &c), 0); /* never ran, and has a checkpoint */
    assert_int_equal(wake(w, &w->alice, &woken), 0);
    assert_int_equal(falls_asleep(w, &asleep, 1, MU_ST_RUNNING), 0);
    assert_int_equal(next_turn(w, &waits, 1), 0);
    assert_int_equal(ask_in(w, &waits, 1, "k", &turn, &gate), 0);
    assert_int_equal(falls_asleep(w, &waits, 1, MU_ST_WAITING), 0);
    assert_int_equal(falls_asleep(w, &parked, 1, MU_ST_RUNNING), 0);
    put_sql(w, "UPDATE sessions SET state = 76 WHERE id = '%s'", parked.text);
    const struct mu_id *all[] = {&woken, &asleep, &waits, &parked, &c.id};
    for (size_t i = 0; i < MU_ARRAY_LEN(all); i++) {
        deadline(w, all[i]);
    }
    sweep_until(w, 0, five_expired);
    assert_int_equal(n_expired, 5);
    assert_int_equal(state_of(w, &woken), MU_ST_PARKED);
    assert_int_equal(state_of(w, &asleep), MU_ST_COMPLETED);
    assert_int_equal(state_of(w, &waits), MU_ST_COMPLETED);
    assert_int_equal(state_of(w, &parked), MU_ST_FAILED);
    assert_int_equal(state_of(w, &c.id), MU_ST_TIMED_OUT);
    assert_int_equal(num(w, "SELECT count(*) FROM gates WHERE status = 4"), 1);
    assert_int_equal(get(w, &w->alice, &woken), 0);
    assert_non_null(strstr(seen.error, "No worker"));
    assert_int_equal(live(&w->alice), 1);
    assert_int_equal(wake(w, &w->alice, &woken), 0);
    assert_int_equal(holes(w), 0);
}

/* --- who may --- */

static void those_that_wait_for_long_enough_are_found(struct world *w)
{
    struct mu_id idle = talking(w), busy = talking(w), paused = talking(w), waits = talking(w);
    struct mu_id turn = add_turn(w, &waits, "one");
    struct mu_gate_ask gate;
    (void)add_turn(w, &busy, "one");
    assert_int_equal(next_turn(w, &waits, 1), 0);
    assert_int_equal(ask_in(w, &waits, 1, "k", &turn, &gate), 0);
    assert_int_equal(pause_it(w, &w->alice, &paused), 0);
    (void)working(w, &w->alice);
    struct mu_id fresh = talking(w);
    struct mu_session_report done = {.id = fresh,
                                     .epoch = 1,
                                     .seq = 1,
                                     .turn = add_turn(w, &fresh, "one"),
                                     .turn_state = MU_TURN_DONE};
    assert_int_equal(next_turn(w, &fresh, 1), 0);
    struct mu_session_sleepies op = {.idle_before_ms = now(w) - 1000,
                                     .waiting_before_ms = now(w) - 1000,
                                     .paused_before_ms = now(w) - 1000};
    assert_int_equal(do_sleepies(w, &op), 0);
    assert_int_equal(op.n, 0);
    advance(w, 2000);
    assert_int_equal(do_report(w, &done), 0); /* its turn was long, and is over just now */
    put_sql(w, "UPDATE sessions SET updated_ms = 1 WHERE id = '%s'", fresh.text);
    op.idle_before_ms = op.waiting_before_ms = op.paused_before_ms = now(w) - 1000;
    assert_int_equal(do_sleepies(w, &op), 0);
    assert_int_equal(op.n, 3);
    assert_string_equal(op.found[0].id.text, paused.text);
    assert_string_equal(op.found[1].id.text, waits.text);
    assert_string_equal(op.found[2].id.text, idle.text);
    op.idle_before_ms = op.paused_before_ms = INT64_MIN;
    assert_int_equal(do_sleepies(w, &op), 0);
    assert_int_equal(op.n, 1);
    assert_int_equal(op.found[0].state, MU_ST_WAITING);
}

static int everything(void *arg)
{
    struct world *w = arg;
    struct mu_session_create c = new_run(&w->alice);
    c.route = MU_ROUTE_WORKER;
    c.mode = MU_MODE_INTERACTIVE;
    c.pin_worker_id = MU_B("w1");
    if (do_create(w, &c) < 0 || offer(w, &c.id, 0, NULL) < 0 || step(w, &c.id, 1, 30, 60) < 0) {
        return 0;
    }
    struct mu_checkpoint_take take = {.id = c.id,
                                      .epoch = 1,
                                      .runner_seq = 1,
                                      .number = 1,
                                      .manifest = MU_B("{\"roots\":[],\"parts\":[]}")};
    (void)do_take(w, &take);
    (void)sleep_at(w, &c.id, 1, MU_ST_RUNNING, 1);
    (void)wake(w, &w->alice, &c.id);
    struct mu_session_queued q = {.id = c.id};
    (void)do_queued(w, &q);
    mu_free(q.pin);
    return 0;
}

static void it_survives_any_failing_allocation(struct world *w)
{
    each_allocation_fails(everything, w);
    assert_int_equal(holes(w), 0);
}

IN_WORLD(an_idle_one_is_put_down_behind_its_checkpoint_and_woken)
IN_WORLD(one_that_has_something_to_do_stays)
IN_WORLD(a_task_does_not_hibernate)
IN_WORLD(a_prompt_wakes_it)
IN_WORLD(a_stop_ends_it_at_once)
IN_WORLD(its_turn_waits_again_and_that_was_no_try)
IN_WORLD(a_decision_wakes_it_and_is_for_the_same_request_once)
IN_WORLD(what_was_decided_is_told_before_it_sleeps)
IN_WORLD(what_was_decided_is_not_for_another_turn)
IN_WORLD(a_gate_that_is_open_when_it_wakes_is_asked_for_again)
IN_WORLD(a_gate_that_nobody_asked_for_again_holds_nothing_up)
IN_WORLD(it_may_wait_again_after_days_of_sleep)
IN_WORLD(an_expired_gate_wakes_it_too)
IN_WORLD(what_cannot_be_known_again_keeps_it_awake)
IN_WORLD(lost_too_often_it_is_parked_and_may_be_tried_again)
IN_WORLD(without_a_checkpoint_it_is_not_parked)
IN_WORLD(time_parks_those_that_ran_and_ends_those_that_sleep)
IN_WORLD(those_that_wait_for_long_enough_are_found)
IN_WORLD(it_survives_any_failing_allocation)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_ALL(an_idle_one_is_put_down_behind_its_checkpoint_and_woken),
        ON_ALL(one_that_has_something_to_do_stays),
        ON_BOTH(a_task_does_not_hibernate),
        ON_ALL(a_prompt_wakes_it),
        ON_BOTH(a_stop_ends_it_at_once),
        ON_ALL(its_turn_waits_again_and_that_was_no_try),
        ON_ALL(a_decision_wakes_it_and_is_for_the_same_request_once),
        ON_BOTH(what_was_decided_is_told_before_it_sleeps),
        ON_BOTH(what_was_decided_is_not_for_another_turn),
        ON_ALL(a_gate_that_is_open_when_it_wakes_is_asked_for_again),
        ON_BOTH(a_gate_that_nobody_asked_for_again_holds_nothing_up),
        ON_BOTH(it_may_wait_again_after_days_of_sleep),
        ON_BOTH(an_expired_gate_wakes_it_too),
        ON_BOTH(what_cannot_be_known_again_keeps_it_awake),
        ON_ALL(lost_too_often_it_is_parked_and_may_be_tried_again),
        ON_BOTH(without_a_checkpoint_it_is_not_parked),
        ON_ALL(time_parks_those_that_ran_and_ends_those_that_sleep),
        ON_BOTH(those_that_wait_for_long_enough_are_found),
        ON(it_survives_any_failing_allocation, 0),
    };
    return cmocka_run_group_tests(tests, pg_begin, pg_end);
}
