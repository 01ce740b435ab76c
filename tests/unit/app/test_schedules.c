/* Schedules on real databases: written by their owner, fired once a tick. The dispatcher is real
 * but never started: what is created stays queued. */
#include "app/schedules/schedules_int.h"

#include "app_world.h"
#include "io/work.h"

static struct mu_vault *vault;
static struct mu_environments *envs;
static struct mu_work *work;
static struct mu_providers *providers;
static struct mu_dispatch *dispatch;
static struct mu_schedules *schedules[2]; /* two, as if two servers fired */
static const struct mu_provider_list no_providers;
static const struct mu_providers_settings settings = {.default_provider = "custom",
                                                      .default_harness = "custom"};

OPERATION(mu_schedule_write, do_write, mu_schedule_write, schedules[0], unit)
OPERATION(mu_schedule_read, do_read, mu_schedule_read, schedules[0], read)

static void open_schedules(struct world *w)
{
    static const char root[32] = "a root key of thirty-two bytes.";
    static const char *const environ_[] = {NULL};
    assert_int_equal(mu_vault_new(&w->env, mu_bytes_of(root, 32), MU_B_NONE, &vault), 0);
    assert_int_equal(mu_work_new(1, 16, &work), 0);
    const struct mu_environments_opts eo = {
        .env = &w->env, .writer = w->writer, .readers = w->readers, .vault = vault};
    assert_int_equal(mu_environments_new(&eo, &envs), 0);
    static char scratch[64];
    snprintf(scratch, sizeof scratch, "%s/s", w->dir.path);
    assert_int_equal(mkdir(scratch, 0700), 0);
    const struct mu_providers_opts po = {.env = &w->env,
                                         .core = w->loop,
                                         .work = work,
                                         .scratch_dir = scratch,
                                         .environ_ = environ_,
                                         .list = &no_providers,
                                         .settings = &settings};
    assert_int_equal(mu_providers_new(&po, NULL, &providers), 0);
    const struct mu_dispatch_opts d = {.env = &w->env,
                                       .core = w->loop,
                                       .sessions = w->sessions,
                                       .providers = providers,
                                       .identity = w->identity,
                                       .readers = w->readers,
                                       .feed = w->feed,
                                       .settings = &settings,
                                       .concurrency = 1,
                                       .max_tries = 3,
                                       .run_max_ms = 1000,
                                       .pending_max_ms = 1000};
    assert_int_equal(mu_dispatch_new(&d, &dispatch), 0);
    const struct mu_schedules_opts o = {.env = &w->env,
                                        .core = w->loop,
                                        .writer = w->writer,
                                        .readers = w->readers,
                                        .identity = w->identity,
                                        .dispatch = dispatch,
                                        .environments = envs,
                                        .settings = &settings};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(mu_schedules_new(&o, &schedules[i]), 0);
    }
}

static int left_to_stop;
static void on_stopped(void *arg)
{
    struct world *w = arg;
    if (--left_to_stop == 0) {
        mu_loop_stop(w->loop);
    }
}

static void close_schedules(struct world *w)
{
    left_to_stop = 2;
    mu_schedules_stop(schedules[0], on_stopped, w);
    mu_schedules_stop(schedules[1], on_stopped, w);
    while (left_to_stop) {
        mu_loop_run(w->loop);
    }
    run_for(w, 20);
    for (int i = 0; i < 2; i++) {
        schedules[i] = mu_schedules_free(schedules[i]);
    }
    dispatch = mu_dispatch_free(dispatch);
    providers = mu_providers_free(providers);
    work = mu_work_free(work);
    envs = mu_environments_free(envs);
    vault = mu_vault_free(vault);
}

static struct {
    int calls;
    char names[512], cron[64], error[512], creator[80];
    bool enabled;
    int64_t next_ms, last_ms;
} view;

static int see(void *arg, const struct mu_schedule_view *v)
{
    size_t n = strlen(view.names);
    view.calls++;
    snprintf(view.names + n, sizeof view.names - n, "%.*s;", MU_ARGS(v->name));
    snprintf(view.cron, sizeof view.cron, "%.*s", MU_ARGS(v->cron));
    snprintf(view.error, sizeof view.error, "%.*s", MU_ARGS(v->last_error));
    snprintf(view.creator, sizeof view.creator, "%.*s", MU_ARGS(v->creator));
    view.enabled = v->enabled;
    view.next_ms = v->next_ms;
    view.last_ms = v->last_ms;
    return 0;
}

static int writing(struct world *w, enum mu_schedule_what what, const struct mu_principal *who,
                   struct mu_id *id, const char *name, const char *cron, const char *spec)
{
    struct mu_schedule_write op = {.what = what,
                                   .who = who,
                                   .name = mu_str(name),
                                   .cron_text = mu_str(cron),
                                   .spec = mu_str(spec),
                                   .enabled = true,
                                   .each = see};
    assert_int_equal(mu_cron_parse(mu_str(cron), &op.cron, NULL), 0);
    op.id = *id;
    memset(&view, 0, sizeof view);
    int r = do_write(w, &op);
    *id = op.id;
    return r;
}

static int reading(struct world *w, const struct mu_principal *who, const struct mu_id *id)
{
    struct mu_schedule_read op = {.admin = who->admin, .org_id = mu_str(who->org_id), .each = see};
    if (id) {
        op.id = *id;
    }
    memset(&view, 0, sizeof view);
    return do_read(w, &op);
}

#define HOURLY "0 * * * *"
#define SPEC   "{\"prompt\":\"do it\",\"agent_config\":{\"name\":\"nightly\"}}"

static struct mu_id hourly(struct world *w, const char *spec)
{
    struct mu_id id = {""};
    assert_int_equal(writing(w, MU_SCHED_CREATE, &w->alice, &id, "hourly", HOURLY, spec), 0);
    return id;
}

static int64_t next_of(struct world *w, const struct mu_id *id)
{
    assert_int_equal(reading(w, &w->alice, id), 0);
    return view.next_ms;
}
static int64_t hour_after(int64_t ms)
{
    return ms - ms % 3600000 + 3600000;
}

static void a_schedule_lives_through_its_operations(struct world *w)
{
    open_schedules(w);
    struct mu_id id = hourly(w, SPEC);
    int64_t next = hour_after(now(w));
    assert_int_equal(view.next_ms, next);
    assert_int_equal(next_of(w, &id), next);
    assert_string_equal(view.names, "hourly;");
    assert_true(view.enabled);

    assert_int_equal(writing(w, MU_SCHED_PAUSE, &w->alice, &id, "", HOURLY, ""), 0);
    assert_false(view.enabled);
    assert_int_equal(view.next_ms, 0);
    advance(w, 7200000);
    assert_int_equal(writing(w, MU_SCHED_RESUME, &w->alice, &id, "", HOURLY, ""), 0);
    assert_true(view.enabled);
    assert_int_equal(view.next_ms, next + 7200000); /* what was missed meanwhile stays missed */
    assert_int_equal(writing(w, MU_SCHED_REPLACE, &w->alice, &id, "new", "30 * * * *", SPEC), 0);
    assert_string_equal(view.cron, "30 * * * *");
    assert_int_equal(view.next_ms % 3600000, 1800000);
    assert_int_equal(writing(w, MU_SCHED_DELETE, &w->alice, &id, "", HOURLY, ""), 0);
    assert_int_equal(reading(w, &w->alice, &id), MU_E_NOT_FOUND);
    assert_int_equal(writing(w, MU_SCHED_DELETE, &w->alice, &id, "", HOURLY, ""), MU_E_NOT_FOUND);
    close_schedules(w);
}

static void a_foreign_schedule_is_an_unknown_one(struct world *w)
{
    open_schedules(w);
    struct mu_id ids[] = {hourly(w, SPEC), mu_id_new(&w->env, NULL)};
    for (int i = 0; i < 2; i++) {
        for (int what = MU_SCHED_REPLACE; what <= MU_SCHED_DELETE; what++) {
            assert_int_equal(
                writing(w, (enum mu_schedule_what)what, &w->bob, &ids[i], "mine", HOURLY, SPEC),
                MU_E_NOT_FOUND);
            assert_int_equal(view.calls, 0);
        }
        assert_int_equal(reading(w, &w->bob, &ids[i]), MU_E_NOT_FOUND);
        assert_int_equal(view.calls, 0);
    }
    assert_int_equal(reading(w, &w->bob, NULL), 0);
    assert_int_equal(view.calls, 0);
    assert_int_equal(reading(w, &w->admin, NULL), 0);
    assert_string_equal(view.names, "hourly;");
    close_schedules(w);
}

static int64_t runs(struct world *w)
{
    return num(w, "SELECT COUNT(*) FROM sessions");
}

/* Lets both fire a few rounds. */
static void fire(struct world *w, int both)
{
    assert_int_equal(mu_schedules_start(schedules[0]), 0);
    if (both) {
        assert_int_equal(mu_schedules_start(schedules[1]), 0);
    }
    run_for(w, 2300);
}

static void a_tick_fires_once_whoever_tries(struct world *w)
{
    open_schedules(w);
    struct mu_id id[5];
    for (int i = 0; i < 5; i++) {
        id[i] = hourly(w, SPEC);
    }
    int64_t tick = next_of(w, &id[0]);
    atomic_store(&w->now_ms, tick);
    fire(w, 1);
    assert_int_equal(runs(w), 5);
    assert_int_equal(
        num(w, "SELECT COUNT(*) FROM schedule_ticks WHERE tick_ms = %lld", (long long)tick), 5);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(next_of(w, &id[i]), tick + 3600000);
        assert_int_equal(view.last_ms, tick);
        assert_int_equal(
            num(w, "SELECT COUNT(*) FROM sessions WHERE schedule_id = '%s'", id[i].text), 1);
    }
    assert_int_equal(num(w,
                         "SELECT COUNT(*) FROM sessions WHERE source = %d AND org_id = '%s' AND "
                         "title = 'nightly'",
                         MU_SRC_SCHEDULED_AGENT, w->alice.org_id),
                     5);
    atomic_store(&w->now_ms, tick + 3600000);
    run_for(w, 2300);
    assert_int_equal(runs(w), 10);
    close_schedules(w);
}

static void a_tick_is_caught_up_with_for_an_hour(struct world *w)
{
    open_schedules(w);
    struct mu_id id = hourly(w, SPEC);
    int64_t tick = next_of(w, &id);
    atomic_store(&w->now_ms, tick + 3600000);
    fire(w, 0);
    assert_int_equal(runs(w), 1); /* one, not two, although two ticks have passed */
    assert_int_equal(next_of(w, &id), tick + 2 * 3600000);
    atomic_store(&w->now_ms, tick + 2 * 3600000 + 3600001);
    run_for(w, 2300);
    assert_int_equal(runs(w), 1); /* too late */
    assert_int_equal(next_of(w, &id), tick + 4 * 3600000);
    assert_string_equal(view.error, "");
    close_schedules(w);
}

static void a_refused_run_is_remembered_and_not_tried_again(struct world *w)
{
    open_schedules(w);
    struct mu_id bad = hourly(w, "{\"prompt\":\"x\",\"agent_config\":{\"skill_spec\":\"s\"}}");
    struct mu_id gone = hourly(w, "{\"prompt\":\"x\",\"agent_config\":{\"environment_id\":"
                                  "\"00000000-0000-7000-8000-000000000000\"}}");
    int64_t tick = next_of(w, &bad);
    w->sessions->opts.max_queued = 1;
    struct mu_id full = hourly(w, SPEC), full2 = hourly(w, SPEC);
    atomic_store(&w->now_ms, tick);
    fire(w, 0);
    assert_int_equal(runs(w), 1);
    assert_int_equal(next_of(w, &bad), tick + 3600000);
    assert_non_null(strstr(view.error, "skills need an environment"));
    assert_int_equal(next_of(w, &gone), tick + 3600000);
    assert_non_null(strstr(view.error, "neither an environment nor an image"));
    int refused = 0;
    (void)next_of(w, &full);
    refused += strstr(view.error, "the run was refused") != NULL;
    (void)next_of(w, &full2);
    refused += strstr(view.error, "the run was refused") != NULL;
    assert_int_equal(refused, 1);
    /* the next one that works forgets it */
    w->sessions->opts.max_queued = 0;
    atomic_store(&w->now_ms, tick + 3600000);
    run_for(w, 2300);
    (void)next_of(w, &full);
    assert_string_equal(view.error, "");
    (void)next_of(w, &full2);
    assert_string_equal(view.error, "");
    assert_int_equal(runs(w), 3);
    close_schedules(w);
}

/* What can never work must not come up again in every round: it would keep others from theirs. */
static void a_firing_that_cannot_work_waits_for_its_next_time(struct world *w)
{
    open_schedules(w);
    struct mu_id bad = hourly(w, SPEC);
    int64_t tick = next_of(w, &bad);
    put_sql(w, "UPDATE schedules SET spec = '{' WHERE id = '%s'", bad.text);
    atomic_store(&w->now_ms, tick);
    fire(w, 0);
    assert_int_equal(runs(w), 0);
    assert_int_equal(num(w, "SELECT next_ms FROM schedules"), tick + 3600000);
    assert_string_equal(txt(w, "SELECT last_error FROM schedules"),
                        "the run was refused: invalid value;");
    close_schedules(w);
}

/* The n-th allocation of anything in the process fails; the round after finds the same tick due. */
static void no_allocation_failure_loses_a_tick(struct world *w)
{
    open_schedules(w);
    struct mu_id id = hourly(w, SPEC);
    assert_int_equal(mu_schedules_start(schedules[0]), 0);
    for (long n = 1, made = n; made >= n; n++) {
        int64_t before = runs(w);
        atomic_store(&w->now_ms, next_of(w, &id));
        (void)mu_alloc_fail_at(n);
        for (int i = 0; i < 3; i++) {
            assert_int_equal(mu_timer_set(&schedules[0]->timer, 0), 0);
            run_for(w, 30);
        }
        made = mu_alloc_fail_at(0);
        for (int i = 0; i < 100 && runs(w) == before; i++) {
            run_for(w, 30);
        }
        assert_int_equal(runs(w), before + 1);
        assert_true(mu_timer_is_set(&schedules[0]->timer));
    }
    close_schedules(w);
}

IN_WORLD(a_schedule_lives_through_its_operations)
IN_WORLD(a_foreign_schedule_is_an_unknown_one)
IN_WORLD(a_tick_fires_once_whoever_tries)
IN_WORLD(a_tick_is_caught_up_with_for_an_hour)
IN_WORLD(a_refused_run_is_remembered_and_not_tried_again)
IN_WORLD(a_firing_that_cannot_work_waits_for_its_next_time)
IN_WORLD(no_allocation_failure_loses_a_tick)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_ALL(a_schedule_lives_through_its_operations),
        ON_ALL(a_foreign_schedule_is_an_unknown_one),
        ON_ALL(a_tick_fires_once_whoever_tries),
        ON_BOTH(a_tick_is_caught_up_with_for_an_hour),
        ON_BOTH(a_refused_run_is_remembered_and_not_tried_again),
        ON_BOTH(a_firing_that_cannot_work_waits_for_its_next_time),
        ON(no_allocation_failure_loses_a_tick, 0),
    };
    return cmocka_run_group_tests(tests, pg_begin, pg_end);
}
