/* Checkpoints in the database: what is kept, what a lost session goes on from, what a fork begins
 * with, and what goes. A session keeps 1,000 bytes here. */
#include "app/sessions/checkpoints_int.h"
#include "session_moves.h"

OPERATION(mu_checkpoint_put, do_part, mu_checkpoint_put, w->sessions, unit)
OPERATION(mu_checkpoint_take, do_take, mu_checkpoint_take, w->sessions, unit)
OPERATION(mu_checkpoint_chain, do_chain, mu_checkpoint_chain, w->sessions, read)
OPERATION(mu_checkpoint_find, do_find, mu_checkpoint_find, w->sessions, read)
OPERATION(mu_checkpoint_list, do_list_them, mu_checkpoint_list, w->sessions, read)
OPERATION(mu_session_job, do_job, mu_session_job_read, w->sessions, read)

#define SHA "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static struct mu_id object_of_last;

static int part(struct world *w, const struct mu_id *id, int64_t epoch, int64_t number, int n,
                int64_t bytes)
{
    char name[64];
    snprintf(name, sizeof name, "ckpt-%lld-%lld-%d.pack", (long long)epoch, (long long)number, n);
    struct mu_checkpoint_put op = {.session = *id,
                                   .object = mu_id_random(&w->env),
                                   .epoch = epoch,
                                   .name = mu_str(name),
                                   .bytes = bytes};
    snprintf(op.sha256.text, sizeof op.sha256.text, "%s", SHA);
    object_of_last = op.object;
    return do_part(w, &op);
}

static struct mu_checkpoint_take a_checkpoint(const struct mu_id *id, int64_t epoch, int64_t seq,
                                              int64_t number, int64_t prev)
{
    return (struct mu_checkpoint_take){.id = *id,
                                       .epoch = epoch,
                                       .runner_seq = seq,
                                       .number = number,
                                       .prev = prev,
                                       .manifest = MU_B("{\"roots\":[],\"parts\":[]}")};
}

static struct mu_checkpoint_part one_part[1];
static char one_name[64];

static void name_one(struct mu_checkpoint_take *op, int64_t bytes)
{
    snprintf(one_name, sizeof one_name, "ckpt-%lld-%lld-0.pack", (long long)op->epoch,
             (long long)op->number);
    one_part[0] = (struct mu_checkpoint_part){mu_str(one_name), MU_B(SHA), bytes};
    op->parts = one_part;
    op->n_parts = 1;
}

/* One with a part; its id. */
static struct mu_id taken(struct world *w, const struct mu_id *id, int64_t epoch, int64_t number,
                          int64_t prev, int64_t bytes)
{
    assert_int_equal(part(w, id, epoch, number, 0, bytes), 0);
    int64_t seq = num(w, "SELECT runner_seq FROM attempts WHERE session_id = '%s' AND epoch = %lld",
                      id->text, (long long)epoch);
    struct mu_checkpoint_take op = a_checkpoint(id, epoch, seq + 1, number, prev);
    name_one(&op, bytes);
    op.conversation = MU_B("talk");
    assert_int_equal(do_take(w, &op), 0);
    if (op.refused) {
        fail_msg("refused: %s", op.refused);
    }
    return op.checkpoint;
}

static struct mu_id talking(struct world *w)
{
    struct mu_session_create c = new_run(&w->alice);
    c.mode = MU_MODE_INTERACTIVE;
    c.spec = MU_B("{\"live\":{\"retryOnRunnerLoss\":false}}");
    return working_as(w, &c);
}

static int lose(struct world *w, const struct mu_id *id, int64_t epoch, bool *ret_often)
{
    struct mu_session_requeue op = {.id = *id,
                                    .epoch = epoch,
                                    .deadline_ms = now(w) + 60000,
                                    .from = 60,
                                    .lost = true,
                                    .outcome = MU_ATT_LOST,
                                    .reason = "The runner was lost"};
    int r = do_requeue(w, &op);
    if (ret_often) {
        *ret_often = op.too_often;
    }
    return r;
}

static int64_t kept(struct world *w, const struct mu_id *id)
{
    return num(w, "SELECT count(*) FROM checkpoints WHERE session_id = '%s'", id->text);
}
static int64_t parts_of(struct world *w, const struct mu_id *id, int dead)
{
    return num(w, "SELECT count(*) FROM checkpoint_parts WHERE session_id = '%s' AND dead = %d",
               id->text, dead);
}

/* --- names --- */

static void a_part_is_known_by_its_name(void **state)
{
    int64_t epoch, number;
    assert_true(mu_checkpoint_name(MU_B("ckpt-3-17-0.pack"), &epoch, &number));
    assert_int_equal(epoch, 3);
    assert_int_equal(number, 17);
    static const char *const none[] = {"ckpt-3-17-0.pac",
                                       "ckpt-3-17-0.packs",
                                       "ckpt-3-17-.pack",
                                       "ckpt-03-17-0.pack",
                                       "ckpt-0-17-0.pack",
                                       "ckpt-3-0-0.pack",
                                       "ckpt--3-17-0.pack",
                                       "ckpt-3-17-1000.pack",
                                       "ckpt-3-17-0.pack\n",
                                       "kpt-3-17-0.pack",
                                       "ckpt-3-17",
                                       "",
                                       "ckpt-3-+7-0.pack",
                                       "ckpt-3-17-0",
                                       "ckpt-3-1 7-0.pack",
                                       "ckpt-",
                                       "ckpt-9999999999999999999-1-0.pack"};
    for (size_t i = 0; i < MU_ARRAY_LEN(none); i++) {
        if (mu_checkpoint_name(mu_str(none[i]), &epoch, &number)) {
            fail_msg("%s is one", none[i]);
        }
    }
}

/* --- what is kept --- */

static int count_row(void *arg, const struct mu_checkpoint_row *row)
{
    char *text = arg;
    snprintf(text + strlen(text), 256 - strlen(text), "%lld<%lld/%lld %lld;",
             (long long)row->number, (long long)row->prev, (long long)row->seq,
             (long long)row->bytes);
    return 0;
}

static const char *listed(struct world *w, const struct mu_id *id)
{
    static char text[256];
    text[0] = 0;
    struct mu_checkpoint_list op = {
        .session = *id, .org_id = mu_str(w->alice.org_id), .each = count_row, .arg = text};
    assert_int_equal(do_list_them(w, &op), 0);
    return text;
}

static void a_checkpoint_is_stored_with_the_runners_number(struct world *w)
{
    struct mu_id id = talking(w);
    struct mu_id first = taken(w, &id, 1, 1, 0, 10);
    taken(w, &id, 1, 2, 1, 20);
    taken(w, &id, 1, 5, 0, 30);
    assert_string_equal(listed(w, &id), "5<0/3 30;2<1/2 20;1<0/1 10;");
    assert_int_equal(num(w,
                         "SELECT count(*) FROM checkpoints WHERE session_id = '%s' AND root_id "
                         "= '%s'",
                         id.text, first.text),
                     2);
    assert_string_equal(txt(w, "SELECT conversation FROM sessions WHERE id = '%s'", id.text),
                        "talk;");
    assert_int_equal(num(w, "SELECT count(*) FROM events WHERE stream_id = '%s' AND type = %d",
                         id.text, MU_EV_CHECKPOINT_TAKEN),
                     3);
    struct mu_checkpoint_take op = a_checkpoint(&id, 1, 3, 6, 0); /* said before */
    assert_int_equal(do_take(w, &op), 0);
    assert_true(op.repeated);
    op = a_checkpoint(&id, 1, 5, 6, 0);
    assert_int_equal(do_take(w, &op), MU_E_MISMATCH);
    op = a_checkpoint(&id, 2, 4, 6, 0);
    assert_int_equal(do_take(w, &op), MU_E_STALE);
    assert_int_equal(metric(w, "muster_checkpoint_bytes_total"), 60);
    struct mu_checkpoint_list bobs = {
        .session = id, .org_id = mu_str(w->bob.org_id), .each = count_row};
    assert_int_equal(do_list_them(w, &bobs), MU_E_NOT_FOUND);
}

static void what_is_none_is_refused_and_its_number_is_taken(struct world *w)
{
    struct mu_id id = talking(w);
    int64_t seq = 0;
    struct mu_checkpoint_take op = a_checkpoint(&id, 1, ++seq, 1, 0);
    name_one(&op, 5);
    assert_int_equal(do_take(w, &op), 0);
    assert_string_equal(op.refused, "a part was not stored");
    assert_int_equal(part(w, &id, 1, 2, 0, 5), 0);
    op = a_checkpoint(&id, 1, ++seq, 2, 0);
    name_one(&op, 6);
    assert_int_equal(do_take(w, &op), 0);
    assert_string_equal(op.refused, "a part is not what was stored");
    assert_int_equal(parts_of(w, &id, 0), 0); /* it is nobody's */
    assert_int_equal(parts_of(w, &id, 1), 1);
    assert_int_equal(part(w, &id, 1, 2, 0, 5), 0);
    op = a_checkpoint(&id, 1, ++seq, 2, 1);
    name_one(&op, 5);
    assert_int_equal(do_take(w, &op), 0);
    assert_string_equal(op.refused, "the one before it is not there");
    assert_int_equal(part(w, &id, 1, 2, 0, 5), 0);
    op = a_checkpoint(&id, 1, ++seq, 2, 0);
    assert_int_equal(do_take(w, &op), 0);
    assert_string_equal(op.refused, "a part was stored that it does not name");
    op = a_checkpoint(&id, 1, ++seq, 0, 0);
    assert_int_equal(do_take(w, &op), 0);
    assert_string_equal(op.refused, "its number is none");
    op = a_checkpoint(&id, 1, ++seq, 2, 2);
    assert_int_equal(do_take(w, &op), 0);
    assert_string_equal(op.refused, "its number is none");
    w->sessions->opts.checkpoint_max = 0;
    op = a_checkpoint(&id, 1, ++seq, 9, 0);
    assert_int_equal(do_take(w, &op), 0);
    assert_string_equal(op.refused, "none are kept here");
    assert_int_equal(part(w, &id, 1, 9, 0, 1), MU_E_LIMIT);
    assert_int_equal(kept(w, &id), 0);
    assert_int_equal(num(w, "SELECT count(*) FROM events WHERE stream_id = '%s' AND type = %d",
                         id.text, MU_EV_ALERT_RAISED),
                     seq);
    assert_int_equal(num(w, "SELECT runner_seq FROM attempts WHERE session_id = '%s'", id.text),
                     seq);
}

static void the_oldest_chains_go_and_the_newest_stays(struct world *w)
{
    struct mu_id id = talking(w);
    taken(w, &id, 1, 1, 0, 300);
    taken(w, &id, 1, 2, 1, 100);
    taken(w, &id, 1, 3, 0, 300);
    assert_int_equal(part(w, &id, 1, 4, 0, 300), 0);
    assert_int_equal(kept(w, &id), 3);
    assert_int_equal(part(w, &id, 1, 4, 1, 300), 0); /* 1 and 2 go */
    assert_string_equal(listed(w, &id), "3<0/3 300;");
    assert_int_equal(parts_of(w, &id, 1), 2);
    assert_int_equal(part(w, &id, 1, 4, 2, 300), MU_E_LIMIT);
    assert_int_equal(kept(w, &id), 1);
    assert_int_equal(part(w, &id, 1, 4, 1, 200), 0); /* another of that name */
    assert_int_equal(parts_of(w, &id, 1), 3);
    assert_int_equal(part(w, &id, 1, 4, 3, MU_CHECKPOINT_PART_BYTES + 1), MU_E_TOO_LARGE);
    assert_int_equal(part(w, &id, 2, 4, 3, 1), MU_E_STALE);
    taken(w, &id, 1, 5, 3, 10); /* 4 was never finished */
    assert_int_equal(parts_of(w, &id, 0), 2);
}

static void there_are_only_so_many(struct world *w)
{
    struct mu_id id = talking(w);
    struct mu_checkpoint_take op;
    for (int n = 1; n <= MU_CHECKPOINT_CHAIN + 1; n++) {
        op = a_checkpoint(&id, 1, n, n, n - 1);
        assert_int_equal(do_take(w, &op), 0);
        assert_true(!op.refused == (n <= MU_CHECKPOINT_CHAIN));
    }
    assert_string_equal(op.refused, "its chain is too long");
    put_sql(w,
            "INSERT INTO checkpoints (id, session_id, epoch, seq, number, kind, state, root_id, "
            "ref, created_ms, expires_ms) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 "
            "FROM n WHERE i < %d) SELECT 'c' || i, '%s', 1, 100 + i, 100 + i, 1, 1, 'c' || i, "
            "'{}', 1, %lld FROM n",
            MU_CHECKPOINT_ROWS - MU_CHECKPOINT_CHAIN, id.text, (long long)now(w) + 60000);
    op = a_checkpoint(&id, 1, MU_CHECKPOINT_CHAIN + 2, 5000, 0);
    assert_int_equal(do_take(w, &op), 0);
    assert_int_equal(kept(w, &id), MU_CHECKPOINT_ROWS - MU_CHECKPOINT_CHAIN + 1);
    put_sql(w, "DELETE FROM checkpoints");
    put_sql(w,
            "INSERT INTO checkpoint_parts (session_id, epoch, number, name, object_id, bytes, "
            "sha256, dead) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 "
            "FROM n WHERE i < %d) SELECT '%s', 1, 5001, 'n' || i, 'o' || i, 0, 's', 0 FROM n",
            MU_CHECKPOINT_PART_ROWS, id.text);
    assert_int_equal(part(w, &id, 1, 5001, 0, 1), MU_E_LIMIT);
    put_sql(w, "DELETE FROM checkpoint_parts WHERE name = 'n1'");
    assert_int_equal(part(w, &id, 1, 5001, 0, 1), 0);
}

/* --- losses --- */

static const char *chain_of(struct world *w, const struct mu_id *id, int64_t epoch)
{
    static char text[256];
    text[0] = 0;
    struct mu_checkpoint_chain op = {
        .session = *id, .epoch = epoch, .each = count_row, .arg = text};
    int r = do_chain(w, &op);
    return r == MU_E_NOT_FOUND ? "nothing" : r < 0 ? "failed" : text;
}

static void a_lost_session_goes_on_from_the_newest(struct world *w)
{
    struct mu_id id = talking(w);
    int64_t epoch;
    assert_int_equal(lose(w, &id, 1, NULL), MU_E_CONFLICT); /* from what? */
    assert_int_equal(row_of(w, &id).state, 60);
    taken(w, &id, 1, 1, 0, 10);
    struct mu_id object = object_of_last;
    taken(w, &id, 1, 2, 1, 20);
    assert_int_equal(lose(w, &id, 1, NULL), 0);
    assert_int_equal(row_of(w, &id).state, 22);
    assert_int_equal(row_of(w, &id).tries, 0);
    assert_int_equal(lose(w, &id, 1, NULL), MU_E_STALE);
    assert_int_equal(offer(w, &id, 2, &epoch), 0);
    assert_string_equal(chain_of(w, &id, epoch), "1<0/1 10;2<1/2 20;");
    assert_string_equal(chain_of(w, &id, 1), "nothing");
    struct mu_checkpoint_find f = {.session = id, .epoch = epoch, .name = MU_B("ckpt-1-1-0.pack")};
    assert_int_equal(do_find(w, &f), 0);
    assert_string_equal(f.object.text, object.text);
    f.name = MU_B("ckpt-1-1-1.pack");
    assert_int_equal(do_find(w, &f), MU_E_NOT_FOUND);
    f.name = MU_B("../../etc/passwd");
    assert_int_equal(do_find(w, &f), MU_E_NOT_FOUND);
    struct mu_session_job job = {.id = id};
    mu_arena_init(&job.arena, 1 << 20);
    assert_int_equal(do_job(w, &job), 0);
    assert_int_equal(job.restore_id.len, 36);
    assert_true(mu_bytes_is(job.restore_parts, "[\"ckpt-1-1-0.pack\",\"ckpt-1-2-0.pack\"]"));
    mu_arena_fini(&job.arena);
    assert_int_equal(step(w, &id, epoch, 30, 60), 0);
    taken(w, &id, epoch, 1, 0, 30);
    assert_int_equal(lose(w, &id, epoch, NULL), 0);
    assert_int_equal(offer(w, &id, epoch + 1, &epoch), 0);
    assert_string_equal(chain_of(w, &id, epoch), "1<0/3 30;");
    bool often = false;
    assert_int_equal(lose(w, &id, epoch, &often), MU_E_CONFLICT);
    assert_true(often);
    assert_int_equal(row_of(w, &id).state, 30);
}

static void a_turn_that_was_done_forgives_losses(struct world *w)
{
    const struct mu_first_turn first = {.prompt = MU_B("hello")};
    struct mu_session_create c = new_run(&w->alice);
    c.mode = MU_MODE_INTERACTIVE;
    c.first_turn = &first;
    struct mu_id id = working_as(w, &c);
    taken(w, &id, 1, 1, 0, 10);
    put_sql(w, "UPDATE sessions SET losses = 2 WHERE id = '%s'", id.text);
    struct mu_turn_next next = {.session = id, .epoch = 1};
    mu_arena_init(&next.arena, 1 << 20);
    assert_int_equal(do_turn_next(w, &next), 0);
    mu_arena_fini(&next.arena);
    struct mu_session_report done = {.id = id,
                                     .epoch = 1,
                                     .seq_before = 1,
                                     .seq = 2,
                                     .turn = next.id,
                                     .turn_state = MU_TURN_DONE};
    assert_int_equal(do_report(w, &done), 0);
    assert_int_equal(num(w, "SELECT losses FROM sessions WHERE id = '%s'", id.text), 0);
    assert_int_equal(lose(w, &id, 1, NULL), 0);
}

static void a_task_begins_again_if_it_asked_for_it(struct world *w)
{
    struct mu_session_create c = new_run(&w->alice);
    c.spec = MU_B("{\"live\":{\"retryOnRunnerLoss\":true}}");
    struct mu_id id = working_as(w, &c);
    put_sql(w, "UPDATE sessions SET conversation = 'old' WHERE id = '%s'", id.text);
    assert_int_equal(lose(w, &id, 1, NULL), 0);
    assert_int_equal(num(w,
                         "SELECT count(*) FROM sessions WHERE id = '%s' AND restore_id IS NULL "
                         "AND conversation IS NULL AND state = 22",
                         id.text),
                     1);
    struct mu_session_create plain = new_run(&w->alice);
    plain.body = MU_B("another");
    struct mu_id other = working_as(w, &plain);
    taken(w, &other, 1, 1, 0, 10);
    assert_int_equal(lose(w, &other, 1, NULL), MU_E_CONFLICT);
}

static void its_clock_stands_still_until_it_runs_again(struct world *w)
{
    struct mu_session_create c = new_run(&w->alice);
    c.mode = MU_MODE_INTERACTIVE;
    c.limit_ms = 600000;
    struct mu_id id = working_as(w, &c);
    taken(w, &id, 1, 1, 0, 10);
    int64_t before = num(w, "SELECT run_deadline_ms FROM sessions WHERE id = '%s'", id.text), epoch;
    advance(w, 1000);
    assert_int_equal(lose(w, &id, 1, NULL), 0);
    advance(w, 5000000);
    assert_int_equal(offer(w, &id, 2, &epoch), 0);
    assert_int_equal(requeue(w, &id, epoch, false, &epoch), 0);
    advance(w, 1000);
    assert_int_equal(offer(w, &id, epoch, &epoch), 0);
    assert_int_equal(step(w, &id, epoch, 30, 40), 0);
    assert_int_equal(num(w, "SELECT run_deadline_ms FROM sessions WHERE id = '%s'", id.text),
                     before + 5001000);
    assert_int_equal(num(w, "SELECT count(*) FROM sessions WHERE wait_ms IS NOT NULL"), 0);
}

/* --- forks --- */

static struct mu_session_create a_fork(const struct mu_principal *who, struct mu_fork *f)
{
    struct mu_session_create c = new_run(who);
    c.route = MU_ROUTE_WORKER;
    c.view = MU_VIEW_VILLAGE;
    c.mode = MU_MODE_INTERACTIVE;
    c.fork = f;
    return c;
}

static void a_fork_has_copies_and_shares_the_bytes(struct world *w)
{
    struct mu_id id = talking(w);
    int64_t epoch;
    assert_int_equal(part(w, &id, 1, 1, 0, 7), 0); /* another comes in its place: not copied */
    taken(w, &id, 1, 1, 0, 10);
    struct mu_id second = taken(w, &id, 1, 2, 1, 20);
    taken(w, &id, 1, 3, 2, 30);
    struct mu_fork f = {.source = id, .checkpoint = second};
    struct mu_session_create c = a_fork(&w->bob, &f);
    assert_int_equal(do_create(w, &c), MU_E_NOT_FOUND);
    assert_false(f.no_checkpoint);
    c = a_fork(&w->alice, &f);
    assert_int_equal(do_create(w, &c), 0);
    assert_string_equal(listed(w, &c.id), "2<1/2 20;1<0/1 10;");
    assert_int_equal(offer(w, &c.id, 0, &epoch), 0);
    assert_string_equal(chain_of(w, &c.id, epoch), "1<0/1 10;2<1/2 20;");
    assert_int_equal(num(w,
                         "SELECT count(*) FROM checkpoint_parts a JOIN checkpoint_parts b ON "
                         "a.object_id = b.object_id WHERE a.session_id = '%s' AND b.session_id "
                         "= '%s'",
                         id.text, c.id.text),
                     2);
    assert_string_equal(txt(w, "SELECT conversation FROM sessions WHERE id = '%s'", c.id.text),
                        "talk;");
    f = (struct mu_fork){.source = id, .number = 9};
    c = a_fork(&w->alice, &f);
    assert_int_equal(do_create(w, &c), MU_E_NOT_FOUND);
    assert_true(f.no_checkpoint);
    f = (struct mu_fork){.source = id, .number = 1};
    c = a_fork(&w->alice, &f);
    assert_int_equal(do_create(w, &c), 0);
    assert_string_equal(listed(w, &c.id), "1<0/1 10;");
    struct mu_fork of_fork = {.source = c.id};
    c = a_fork(&w->alice, &of_fork);
    assert_int_equal(do_create(w, &c), 0);
    assert_string_equal(listed(w, &c.id), "1<0/1 10;");
}

/* --- what goes --- */

static struct mu_keeper *keeper;
static struct mu_work *pool;
static char gone[8][40];
static atomic_uint n_gone;
static bool stopped;

static void object_gone(void *arg, mu_bytes id)
{
    unsigned at = atomic_fetch_add(&n_gone, 1);
    if (at < MU_ARRAY_LEN(gone)) {
        snprintf(gone[at], sizeof gone[0], "%.*s", MU_ARGS(id));
    }
}
static void on_stopped(void *arg)
{
    stopped = true;
}

/* What a sweep has to look at. */
static bool work_is_left(struct world *w)
{
    return num(w,
               "SELECT (SELECT count(*) FROM checkpoints WHERE expires_ms <= %lld) + (SELECT "
               "count(*) FROM checkpoint_parts WHERE dead = 1)",
               (long long)now(w)) > 0;
}

static void keep_house(struct world *w)
{
    assert_true(work_is_left(w));
    const struct mu_keeper_opts o = {.core = w->loop,
                                     .sessions = w->sessions,
                                     .work = pool,
                                     .keep_ms = 3600000,
                                     .object_gone = object_gone};
    assert_int_equal(mu_keeper_new(&o, &keeper), 0);
    mu_keeper_start(keeper, 0);
    for (int i = 0; i < 1000 && work_is_left(w); i++) {
        run_for(w, 10);
    }
    assert_false(work_is_left(w));
    stopped = false;
    mu_keeper_stop(keeper, on_stopped, w);
    while (!stopped) {
        run_for(w, 5);
    }
    keeper = mu_keeper_free(keeper);
}

static void objects_go_when_nobody_names_them(struct world *w)
{
    assert_int_equal(mu_work_new(1, 10, &pool), 0);
    atomic_store(&n_gone, 0);
    struct mu_id id = talking(w), other = talking(w);
    taken(w, &id, 1, 1, 0, 10);
    char shared[40];
    snprintf(shared, sizeof shared, "%s", object_of_last.text);
    taken(w, &other, 1, 1, 0, 10);
    char own[40];
    snprintf(own, sizeof own, "%s", object_of_last.text);
    struct mu_fork f = {.source = id};
    struct mu_session_create c = a_fork(&w->alice, &f);
    assert_int_equal(do_create(w, &c), 0);
    assert_int_equal(end_with(w, &id, 1, 90, MU_OUT_FINISHED, ""), 0);
    struct mu_session_delete del = {.id = id, .org_id = mu_str(w->alice.org_id)};
    assert_int_equal(do_delete(w, &del), 0);
    assert_int_equal(end_with(w, &other, 1, 90, MU_OUT_FINISHED, ""), 0);
    struct mu_id held = talking(w);
    taken(w, &held, 1, 1, 0, 10);
    assert_int_equal(end_with(w, &held, 1, 90, MU_OUT_FINISHED, ""), 0);
    put_sql(w, "UPDATE sessions SET held = 1 WHERE id = '%s'", held.text);
    keep_house(w);
    assert_int_equal(atomic_load(&n_gone), 0); /* the fork names the one, and the other is young */
    assert_int_equal(parts_of(w, &id, 1), 0);
    advance(w, INT64_C(2) * 86400000);
    keep_house(w);
    assert_int_equal(atomic_load(&n_gone), 1);
    assert_string_equal(gone[0], own);
    assert_int_equal(kept(w, &other), 0);
    assert_int_equal(kept(w, &c.id), 1); /* it lives */
    bool changed;
    assert_int_equal(cancel(w, &w->alice, &c.id, &changed), 0);
    advance(w, INT64_C(2) * 86400000);
    keep_house(w);
    assert_int_equal(atomic_load(&n_gone), 2);
    assert_string_equal(gone[1], shared);
    assert_int_equal(
        num(w, "SELECT count(*) FROM checkpoint_parts WHERE session_id <> '%s'", held.text), 0);
    assert_int_equal(kept(w, &held), 1);
    pool = mu_work_free(pool);
}

/* --- memory that runs out --- */

static int everything(void *arg)
{
    struct world *w = arg;
    struct mu_session_create c = new_run(&w->alice);
    int64_t epoch = 0;
    c.route = MU_ROUTE_WORKER;
    c.mode = MU_MODE_INTERACTIVE;
    if (do_create(w, &c) < 0 || offer(w, &c.id, 0, &epoch) < 0 ||
        step(w, &c.id, epoch, 30, 60) < 0 || part(w, &c.id, epoch, 1, 0, 10) < 0) {
        return 0;
    }
    struct mu_checkpoint_take op = a_checkpoint(&c.id, epoch, 1, 1, 0);
    name_one(&op, 10);
    (void)do_take(w, &op);
    struct mu_fork f = {.source = c.id};
    struct mu_session_create forked = a_fork(&w->alice, &f);
    (void)do_create(w, &forked);
    if (lose(w, &c.id, epoch, NULL) == 0 && offer(w, &c.id, epoch + 1, &epoch) == 0) {
        (void)chain_of(w, &c.id, epoch);
        struct mu_checkpoint_find find = {
            .session = c.id, .epoch = epoch, .name = MU_B("ckpt-1-1-0.pack")};
        (void)do_find(w, &find);
        struct mu_session_job job = {.id = c.id};
        mu_arena_init(&job.arena, 1 << 20);
        (void)do_job(w, &job);
        mu_arena_fini(&job.arena);
    }
    char text[256] = "";
    struct mu_checkpoint_list list = {
        .session = c.id, .admin = true, .each = count_row, .arg = text};
    (void)do_list_them(w, &list);
    return 0;
}

static void checkpoints_survive_any_failing_allocation(struct world *w)
{
    each_allocation_fails(everything, w);
    assert_int_equal(num(w, "SELECT count(*) FROM checkpoints c LEFT JOIN checkpoint_parts p ON "
                            "p.session_id = c.session_id AND p.number = c.number AND p.dead = 0 "
                            "WHERE p.name IS NULL"),
                     0);
    assert_int_equal(holes(w), 0);
}

#define EACH_TEST(ALL, BOTH, ONE)                                                                  \
    ALL(a_checkpoint_is_stored_with_the_runners_number)                                            \
    ALL(what_is_none_is_refused_and_its_number_is_taken)                                           \
    ALL(the_oldest_chains_go_and_the_newest_stays)                                                 \
    BOTH(there_are_only_so_many)                                                                   \
    ALL(a_lost_session_goes_on_from_the_newest)                                                    \
    BOTH(a_turn_that_was_done_forgives_losses)                                                     \
    ALL(a_task_begins_again_if_it_asked_for_it)                                                    \
    BOTH(its_clock_stands_still_until_it_runs_again)                                               \
    ALL(a_fork_has_copies_and_shares_the_bytes)                                                    \
    BOTH(objects_go_when_nobody_names_them)                                                        \
    ONE(checkpoints_survive_any_failing_allocation)

EACH_TEST(IN_WORLD, IN_WORLD, IN_WORLD)

#define ON_ALL_(test)  ON_ALL(test),
#define ON_BOTH_(test) ON_BOTH(test),
#define ON_ONE_(test)  ON(test, 0),

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_part_is_known_by_its_name),
                                       EACH_TEST(ON_ALL_, ON_BOTH_, ON_ONE_)};
    return cmocka_run_group_tests(tests, pg_begin, pg_end);
}
