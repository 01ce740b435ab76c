/* The prompt queue of an interactive session. */
#include "session_moves.h"

static struct mu_session_create interactive(struct world *w)
{
    struct mu_session_create c = new_run(&w->alice);
    c.mode = MU_MODE_INTERACTIVE;
    return c;
}

static struct mu_id talking(struct world *w)
{
    struct mu_session_create c = interactive(w);
    return working_as(w, &c);
}

static struct mu_turn_add a_turn(struct world *w, const struct mu_id *session, const char *prompt)
{
    return (struct mu_turn_add){.session = *session,
                                .org_id = mu_str(w->alice.org_id),
                                .prompt = mu_str(prompt),
                                .user = MU_B("ann"),
                                .source = MU_SRC_API};
}

static struct mu_id add(struct world *w, const struct mu_id *session, const char *prompt,
                        bool first)
{
    struct mu_turn_add op = a_turn(w, session, prompt);
    op.first = first;
    assert_int_equal(do_turn_add(w, &op), 0);
    return op.id;
}

struct next {
    struct mu_id id;
    char prompt[64], options[64], user[64];
    int tries;
};

static int next(struct world *w, const struct mu_id *session, int64_t epoch, struct next *ret)
{
    struct mu_turn_next op = {.session = *session, .epoch = epoch};
    mu_arena_init(&op.arena, 4 << 20);
    int r = do_turn_next(w, &op);
    if (r == 0 && ret) {
        ret->id = op.id;
        ret->tries = op.tries;
        keep(ret->prompt, sizeof ret->prompt, op.prompt);
        keep(ret->options, sizeof ret->options, op.options);
        keep(ret->user, sizeof ret->user, op.user);
    }
    mu_arena_fini(&op.arena);
    return r;
}

static int64_t seq_of_report;
static int turn_is(struct world *w, const struct mu_id *session, int64_t epoch,
                   const struct mu_id *turn, int state)
{
    int64_t before =
        num(w, "SELECT runner_seq FROM attempts WHERE session_id = '%s' AND epoch = %d",
            session->text, (int)epoch);
    struct mu_session_report op = {.id = *session,
                                   .epoch = epoch,
                                   .seq_before = before,
                                   .seq = before + 1,
                                   .turn = *turn,
                                   .turn_state = state};
    int r = do_report(w, &op);
    seq_of_report = op.stored_seq;
    return r;
}

static int64_t state_of_turn(struct world *w, const struct mu_id *id)
{
    return num(w, "SELECT state FROM turns WHERE id = '%s'", id->text);
}

static void prompts_are_taken_in_their_order(struct world *w)
{
    struct mu_id id = talking(w);
    struct mu_turn_add op = a_turn(w, &id, "one");
    op.options = MU_B("{\"model\":\"m\"}");
    assert_int_equal(do_turn_add(w, &op), 0);
    assert_int_equal(op.pos, 1);
    assert_int_equal(op.ahead, 0);
    struct mu_turn_add two = a_turn(w, &id, "two"), urgent = a_turn(w, &id, "urgent");
    assert_int_equal(do_turn_add(w, &two), 0);
    assert_int_equal(two.pos, 2);
    assert_int_equal(two.ahead, 1);
    struct next n;
    assert_int_equal(next(w, &id, 1, &n), 0);
    assert_string_equal(n.id.text, op.id.text);
    assert_string_equal(n.prompt, "one");
    assert_string_equal(n.options, "{\"model\":\"m\"}");
    assert_string_equal(n.user, "ann");
    assert_int_equal(n.tries, 1);
    urgent.first = true;
    assert_int_equal(do_turn_add(w, &urgent), 0);
    assert_int_equal(urgent.ahead, 1); /* the one that is under way */
    assert_int_equal(next(w, &id, 1, &n), MU_E_CONFLICT);
    assert_int_equal(turn_is(w, &id, 1, &op.id, MU_TURN_ACCEPTED), 0);
    assert_int_equal(next(w, &id, 1, &n), MU_E_CONFLICT);
    assert_int_equal(turn_is(w, &id, 1, &op.id, MU_TURN_DONE), 0);
    assert_int_equal(next(w, &id, 1, &n), 0);
    assert_string_equal(n.prompt, "urgent");
    assert_string_equal(n.options, "{}");
    assert_int_equal(turn_is(w, &id, 1, &n.id, MU_TURN_FAILED), 0); /* also without its word */
    assert_int_equal(next(w, &id, 1, &n), 0);
    assert_string_equal(n.prompt, "two");
    assert_int_equal(turn_is(w, &id, 1, &n.id, MU_TURN_CANCELLED), 0);
    assert_int_equal(next(w, &id, 1, &n), MU_E_NOT_FOUND);
    assert_string_equal(
        txt(w,
            "SELECT CAST(type AS TEXT) FROM events WHERE stream_id = '%s' AND seq > 3 ORDER BY "
            "seq",
            id.text),
        "13;13;14;13;15;14;15;14;15;");
    char want[200];
    snprintf(want, sizeof want,
             "{\"turn\":\"%s\",\"pos\":2,\"ahead\":1};{\"turn\":\"%s\",\"tries\":1};", two.id.text,
             op.id.text);
    assert_string_equal(txt(w,
                            "SELECT data FROM events WHERE stream_id = '%s' AND seq IN (5, 6) "
                            "ORDER BY seq",
                            id.text),
                        want);
    assert_string_equal(
        txt(w, "SELECT actor FROM events WHERE stream_id = '%s' AND seq = 4", id.text),
        "user:ann;");
}

static void the_first_prompt_comes_with_the_session(struct world *w)
{
    struct mu_session_create c = interactive(w);
    const struct mu_first_turn first = {
        .prompt = MU_B("hello"), .user = MU_B("ann"), .source = MU_SRC_API};
    c.first_turn = &first;
    c.idem_key = MU_B("once");
    struct mu_id id = working_as(w, &c);
    assert_string_equal(
        txt(w, "SELECT data FROM events WHERE stream_id = '%s' AND seq = 1", id.text),
        "{\"to\":22,\"mode\":2};");
    assert_int_equal(num(w, "SELECT type FROM events WHERE stream_id = '%s' AND seq = 2", id.text),
                     MU_EV_TURN_QUEUED);
    struct mu_session_create again = interactive(w);
    again.route = MU_ROUTE_WORKER;
    again.view = MU_VIEW_VILLAGE;
    again.first_turn = &first;
    again.idem_key = MU_B("once");
    assert_int_equal(do_create(w, &again), 0);
    assert_true(again.replayed);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM turns"), 1);
    struct next n;
    assert_int_equal(next(w, &id, 1, &n), 0);
    assert_string_equal(n.id.text, c.turn.text);
    assert_string_equal(n.prompt, "hello");
    struct mu_id second = add(w, &id, "more", false);
    assert_int_equal(num(w, "SELECT pos FROM turns WHERE id = '%s'", second.text), 2);
    struct mu_session_create task = new_run(&w->alice);
    task.first_turn = &first;
    assert_int_equal(do_create(w, &task), MU_E_INVALID); /* a task has one prompt, its own */
}

static void who_may_not_queue_is_told(struct world *w)
{
    struct mu_id id = talking(w), task = working(w, &w->alice), unknown = mu_id_new(&w->env, NULL);
    struct mu_turn_add op = a_turn(w, &unknown, "x");
    assert_int_equal(do_turn_add(w, &op), MU_E_NOT_FOUND);
    op = a_turn(w, &id, "x");
    op.org_id = mu_str(w->bob.org_id);
    assert_int_equal(do_turn_add(w, &op), MU_E_NOT_FOUND);
    op = a_turn(w, &task, "x");
    assert_int_equal(do_turn_add(w, &op), MU_E_CONFLICT);
    static char big[MU_TURN_PROMPT_MAX + 1];
    memset(big, 'p', sizeof big);
    op = a_turn(w, &id, "x");
    op.prompt = mu_bytes_of(big, sizeof big);
    assert_int_equal(do_turn_add(w, &op), MU_E_TOO_LARGE);
    op.prompt.len--;
    assert_int_equal(do_turn_add(w, &op), 0);
    for (int i = 1; i < MU_TURNS_QUEUED_MAX; i++) {
        (void)add(w, &id, "x", i % 2);
    }
    op = a_turn(w, &id, "one too many");
    assert_int_equal(do_turn_add(w, &op), MU_E_LIMIT);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM turns WHERE pos = 0"), 0);
    assert_int_equal(next(w, &id, 1, NULL), 0);
    assert_int_equal(do_turn_add(w, &op), 0); /* there is room again */
    assert_int_equal(cancel(w, &w->alice, &id, NULL), 0);
    assert_int_equal(do_turn_add(w, &op), MU_E_CONFLICT);
    /* all are over with it, each with its event */
    assert_int_equal(num(w, "SELECT COUNT(*) FROM turns WHERE state = 94 AND ended_ms IS NOT NULL"),
                     MU_TURNS_QUEUED_MAX + 1);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM events WHERE type = %d", MU_EV_TURN_ENDED),
                     MU_TURNS_QUEUED_MAX + 1);
}

static int edit(struct world *w, const struct mu_id *session, const struct mu_id *turn,
                const char *prompt)
{
    struct mu_turn_edit op = {.session = *session,
                              .turn = *turn,
                              .org_id = mu_str(w->alice.org_id),
                              .prompt = mu_str(prompt),
                              .user = MU_B("ann")};
    return do_turn_edit(w, &op);
}

static void what_waits_may_be_changed(struct world *w)
{
    struct mu_id id = talking(w), other = talking(w), one = add(w, &id, "one", false),
                 two = add(w, &id, "two", false), unknown = mu_id_new(&w->env, NULL);
    assert_int_equal(edit(w, &id, &one, "uno"), 0);
    assert_int_equal(edit(w, &id, &two, NULL), 0);
    assert_int_equal(edit(w, &id, &two, NULL), MU_E_CONFLICT);
    assert_int_equal(edit(w, &id, &unknown, NULL), MU_E_NOT_FOUND);
    assert_int_equal(edit(w, &other, &one, NULL), MU_E_NOT_FOUND);
    struct mu_turn_edit op = {.session = id, .turn = one, .org_id = mu_str(w->bob.org_id)};
    assert_int_equal(do_turn_edit(w, &op), MU_E_NOT_FOUND);
    struct next n;
    assert_int_equal(next(w, &id, 1, &n), 0);
    assert_string_equal(n.prompt, "uno");
    assert_int_equal(edit(w, &id, &one, "x"), MU_E_CONFLICT);
    assert_string_equal(
        txt(w,
            "SELECT CAST(type AS TEXT) FROM events WHERE stream_id = '%s' AND seq > 5 ORDER BY "
            "seq",
            id.text),
        "16;15;14;");
}

static void only_the_session_that_runs_gets_prompts(struct world *w)
{
    struct mu_session_create c = interactive(w);
    c.route = MU_ROUTE_WORKER;
    assert_int_equal(do_create(w, &c), 0);
    (void)add(w, &c.id, "one", false);
    assert_int_equal(next(w, &c.id, 0, NULL), MU_E_CONFLICT);
    assert_int_equal(offer(w, &c.id, 0, NULL), 0);
    assert_int_equal(next(w, &c.id, 1, NULL), MU_E_CONFLICT);
    assert_int_equal(step(w, &c.id, 1, 30, 60), 0);
    assert_int_equal(next(w, &c.id, 0, NULL), MU_E_STALE);
    assert_int_equal(pause_it(w, &w->alice, &c.id), 0);
    assert_int_equal(next(w, &c.id, 1, NULL), MU_E_CONFLICT);
    assert_int_equal(resume(w, &w->alice, &c.id), 0);
    assert_int_equal(ask(w, &c.id, 1, "key", NULL), 0);
    assert_int_equal(next(w, &c.id, 1, NULL), 0); /* a gate of something in the background */
    struct mu_id over = talking(w);
    (void)add(w, &over, "late", false);
    assert_int_equal(cancel(w, &w->alice, &over, NULL), 0);
    assert_int_equal(next(w, &over, 1, NULL), MU_E_STALE);
}

static void a_lost_runner_gives_its_prompt_back_three_times(struct world *w)
{
    struct mu_id id = talking(w), turn = add(w, &id, "one", false);
    int64_t epoch = 1;
    put_sql(w,
            "INSERT INTO checkpoints (id, session_id, epoch, seq, kind, state, ref, created_ms) "
            "VALUES ('%s', '%s', 1, 1, 1, 1, 'r', 1)",
            id.text, id.text);
    for (int i = 1; i <= MU_TURN_TRIES; i++) {
        struct next n;
        put_sql(w, "UPDATE sessions SET losses = 0 WHERE id = '%s'", id.text); /* not those */
        assert_int_equal(next(w, &id, epoch, &n), 0);
        assert_int_equal(n.tries, i);
        if (i == 2) {
            assert_int_equal(turn_is(w, &id, epoch, &turn, MU_TURN_ACCEPTED), 0);
        }
        struct mu_session_requeue op = {.id = id,
                                        .epoch = epoch,
                                        .deadline_ms = now(w) + 60000,
                                        .from = 60,
                                        .lost = true,
                                        .outcome = MU_ATT_LOST,
                                        .reason = "It was lost"};
        assert_int_equal(do_requeue(w, &op), 0);
        assert_int_equal(state_of_turn(w, &turn),
                         i < MU_TURN_TRIES ? MU_TURN_QUEUED : MU_TURN_FAILED);
        assert_int_equal(num(w,
                             "SELECT type FROM events WHERE stream_id = '%s' ORDER BY seq DESC "
                             "LIMIT 1 OFFSET 1",
                             id.text),
                         i < MU_TURN_TRIES ? MU_EV_TURN_CHANGED : MU_EV_TURN_ENDED);
        /* a late word of the runner that lost it */
        assert_int_equal(turn_is(w, &id, epoch, &turn, MU_TURN_DONE), MU_E_STALE);
        epoch = op.epoch;
        assert_int_equal(offer(w, &id, epoch, &epoch), 0);
        assert_int_equal(step(w, &id, epoch, 30, 60), 0);
    }
    assert_int_equal(next(w, &id, epoch, NULL), MU_E_NOT_FOUND);
}

static void a_turn_that_is_over_stays_over(struct world *w)
{
    struct mu_id id = talking(w), turn = add(w, &id, "one", false),
                 waiting = add(w, &id, "two", false);
    assert_int_equal(turn_is(w, &id, 1, &waiting, MU_TURN_DONE), 0); /* it was never sent */
    assert_int_equal(state_of_turn(w, &waiting), MU_TURN_QUEUED);
    assert_int_equal(next(w, &id, 1, NULL), 0);
    assert_int_equal(turn_is(w, &id, 1, &turn, MU_TURN_DONE), 0);
    int64_t events = events_of(w, &id);
    assert_int_equal(turn_is(w, &id, 1, &turn, MU_TURN_FAILED), 0);
    assert_int_equal(turn_is(w, &id, 1, &turn, MU_TURN_ACCEPTED), 0);
    assert_int_equal(state_of_turn(w, &turn), MU_TURN_DONE);
    assert_int_equal(events_of(w, &id), events);
}

/* --- reading --- */

struct turns {
    unsigned n;
    char prompts[64][16];
    int64_t last_pos;
    int states[64];
};
static int take_turn(void *arg, const struct mu_turn_row *t)
{
    struct turns *l = arg;
    keep(l->prompts[l->n], sizeof l->prompts[0], t->prompt);
    l->states[l->n++] = t->state;
    l->last_pos = t->pos;
    return 0;
}

static void turns_are_listed_in_order(struct world *w)
{
    struct mu_id id = talking(w);
    (void)add(w, &id, "b", false);
    (void)add(w, &id, "c", false);
    (void)add(w, &id, "a", true);
    assert_int_equal(next(w, &id, 1, NULL), 0);
    struct turns l = {.n = 0};
    struct mu_turn_list op = {
        .session = id, .org_id = mu_str(w->alice.org_id), .each = take_turn, .arg = &l};
    assert_int_equal(do_turn_list(w, &op), 0);
    assert_int_equal(l.n, 3);
    assert_string_equal(l.prompts[0], "a");
    assert_string_equal(l.prompts[2], "c");
    assert_int_equal(l.states[0], MU_TURN_SENT);
    op.from_pos = l.last_pos;
    l.n = 0;
    assert_int_equal(do_turn_list(w, &op), 0);
    assert_int_equal(l.n, 1);
    op.org_id = mu_str(w->bob.org_id);
    assert_int_equal(do_turn_list(w, &op), MU_E_NOT_FOUND);
}

/* --- memory that runs out --- */

static int every_turn(void *arg)
{
    struct world *w = arg;
    const struct mu_first_turn first = {.prompt = MU_B("hello")};
    struct mu_session_create c = interactive(w);
    c.route = MU_ROUTE_WORKER;
    c.first_turn = &first;
    int64_t epoch = 0;
    if (do_create(w, &c) < 0 || offer(w, &c.id, 0, &epoch) < 0 ||
        step(w, &c.id, epoch, 30, 60) < 0) {
        return 0;
    }
    struct mu_turn_add op = a_turn(w, &c.id, "more");
    if (do_turn_add(w, &op) >= 0) {
        (void)edit(w, &c.id, &op.id, "else");
    }
    (void)next(w, &c.id, epoch, NULL);
    struct turns l = {.n = 0};
    struct mu_turn_list list = {
        .session = c.id, .org_id = mu_str(w->alice.org_id), .each = take_turn, .arg = &l};
    (void)do_turn_list(w, &list);
    (void)end_with(w, &c.id, epoch, 90, MU_OUT_FINISHED, "x");
    return 0;
}

static void turns_survive_any_failing_allocation(struct world *w)
{
    each_allocation_fails(every_turn, w);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM turns t JOIN sessions s ON s.id = t.session_id "
                            "WHERE t.ended_ms IS NULL AND s.ended_ms IS NOT NULL"),
                     0);
    assert_int_equal(holes(w), 0);
}

#define EACH_TEST(ALL, BOTH, ONE)                                                                  \
    ALL(prompts_are_taken_in_their_order)                                                          \
    ALL(the_first_prompt_comes_with_the_session)                                                   \
    BOTH(who_may_not_queue_is_told)                                                                \
    ALL(what_waits_may_be_changed)                                                                 \
    BOTH(only_the_session_that_runs_gets_prompts)                                                  \
    ALL(a_lost_runner_gives_its_prompt_back_three_times)                                           \
    ALL(a_turn_that_is_over_stays_over)                                                            \
    BOTH(turns_are_listed_in_order)                                                                \
    ONE(turns_survive_any_failing_allocation)

EACH_TEST(IN_WORLD, IN_WORLD, IN_WORLD)

#define ON_ALL_(test)  ON_ALL(test),
#define ON_BOTH_(test) ON_BOTH(test),
#define ON_ONE_(test)  ON(test, 0),

int main(void)
{
    const struct CMUnitTest tests[] = {EACH_TEST(ON_ALL_, ON_BOTH_, ON_ONE_)};
    return cmocka_run_group_tests(tests, pg_begin, pg_end);
}
