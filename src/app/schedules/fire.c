/* Firing: every second the due schedules are read and fired one after the other. The create unit
 * takes the tick (one conditional write), so it fires once, whoever else tries. */
#include <errno.h>
#include <stdio.h>

#include "app/schedules/schedules_int.h"
#include "base/log.h"
#include "proto/json.h"

enum {
    TICK_MS = 1000,
    CATCH_UP_MS = 3600 * 1000,
    /* A stored spec and what it is read into: 2 MiB of small values become 24 times as much. One
     * that could never be read would come up again in every round, before everybody else's. */
    ARENA_MAX = 128 << 20,
};

const struct mu_stmt mu_q_sched_due = {
    "sched_due", "ii",
    "SELECT id, org_id, name, cron, spec, next_ms, admin, creator "
    "FROM schedules WHERE enabled = 1 AND "
    "next_ms <= $1 ORDER BY next_ms LIMIT "
    "$2",
    NULL};
static const struct mu_stmt q_skip = {
    "sched_skip", "tii",
    "UPDATE schedules SET next_ms = $3 WHERE id = $1 AND enabled = 1 AND next_ms = $2", NULL};
static const struct mu_stmt q_failed = {"sched_failed", "tiit",
                                        "UPDATE schedules SET last_error = $4, next_ms = $3 WHERE "
                                        "id = $1 AND enabled = 1 AND next_ms = $2",
                                        NULL};

struct due {
    struct mu_id id;
    char org_id[MU_ORG_LEN + 1], creator[MU_UID_LEN + 1];
    mu_bytes name, cron, spec;
    int64_t tick_ms;
    bool admin;
};

struct mu_firing {
    struct mu_schedules *s;
    struct mu_arena arena; /* the rows */
    struct due rows[MU_SCHED_BATCH];
    unsigned n, at;
    int64_t now_ms, next_ms;
    /* the one under way */
    struct mu_arena one;
    struct mu_principal who;
    struct mu_session_create create;
    struct mu_schedule_tick tick;
    struct mu_env_read env;
    struct mu_run_request rq;
    struct mu_buf snapshot;
    struct mu_unit skip;
    char error[300];
};

static void fire_next(struct mu_firing *f);

static int take_due(void *arg, struct mu_row *row)
{
    struct mu_firing *f = arg;
    struct due *d = &f->rows[f->n];
    if (f->n == MU_SCHED_BATCH || mu_id_parse(mu_row_bytes(row, 0), NULL, &d->id) < 0) {
        return 0;
    }
    snprintf(d->org_id, sizeof d->org_id, "%.*s", MU_ARGS(mu_row_bytes(row, 1)));
    d->name = mu_arena_dup(&f->arena, mu_row_bytes(row, 2));
    d->cron = mu_arena_dup(&f->arena, mu_row_bytes(row, 3));
    d->spec = mu_arena_dup(&f->arena, mu_row_bytes(row, 4));
    d->tick_ms = mu_row_i64(row, 5);
    d->admin = mu_row_i64(row, 6) != 0;
    snprintf(d->creator, sizeof d->creator, "%.*s", MU_ARGS(mu_row_bytes(row, 7)));
    f->n += d->name.ptr && d->cron.ptr && d->spec.ptr;
    return 0;
}

static int run_due(struct mu_read *read, struct mu_db *db)
{
    struct mu_schedules *s = MU_CONTAINER(read, struct mu_schedules, read);
    int r = MU_DB_RUN(db, &mu_q_sched_due, take_due, s->firing, MU_VI(s->firing->now_ms),
                      MU_VI(MU_SCHED_BATCH));
    return r < 0 ? r : 0;
}

/* While the schedules fire their timer is always set, so that moving it needs no memory: a round
 * that could not be called would be the last one. */
static void next_round(struct mu_schedules *s)
{
    MU_CHECK(mu_timer_set(&s->timer, TICK_MS) == 0);
}

static void round_over(struct mu_schedules *s)
{
    s->reading = false;
    if (s->stopping) {
        if (s->stopped) {
            void (*fn)(void *) = s->stopped;
            s->stopped = NULL;
            fn(s->stopped_arg);
        }
        return;
    }
    next_round(s);
}

/* --- one firing --- */

static void one_over(struct mu_firing *f)
{
    mu_arena_fini(&f->one);
    mu_buf_fini(&f->snapshot);
    f->at++;
    fire_next(f);
}

static int run_skip(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_firing *f = MU_CONTAINER(u, struct mu_firing, skip);
    const struct due *d = &f->rows[f->at];
    return f->error[0]
               ? MU_TX_SEND(tx, &q_failed, -1, MU_VT(mu_id_bytes(&d->id)), MU_VI(d->tick_ms),
                            MU_VIOPT(f->next_ms), MU_VT(mu_str(f->error)))
               : MU_TX_SEND(tx, &q_skip, -1, MU_VT(mu_id_bytes(&d->id)), MU_VI(d->tick_ms),
                            MU_VIOPT(f->next_ms));
}

static void skipped(struct mu_unit *u, int result MU_UNUSED)
{
    one_over(MU_CONTAINER(u, struct mu_firing, skip));
}

/* Moves on to the next time without a run; with f->error set that is remembered on the schedule. */
static void skip(struct mu_firing *f)
{
    f->skip = (struct mu_unit){.run = run_skip, .done = skipped, .loop = f->s->opts.core};
    if (mu_writer_submit(f->s->opts.writer, &f->skip) < 0) {
        one_over(f);
    }
}

/* What passes by itself: the row is still due at the next round. Anything else would come up again
 * in every round. */
static bool may_pass(int code)
{
    return code == -ENOMEM || code == MU_E_BUSY || code == MU_E_UNAVAILABLE ||
           code == MU_E_CLOSED || code == MU_E_DISK_FULL || code == MU_E_IO || code == MU_E_RETRY ||
           code == MU_E_SHUTDOWN;
}

static void created(struct mu_session_create *op, int result)
{
    struct mu_firing *f = op->ctx;
    const struct due *d = &f->rows[f->at];
    if (result == 0) {
        mu_log(MU_LOG_INFO, "schedule.fired", MU_KS("schedule_id", mu_id_bytes(&d->id)),
               MU_KS("run_id", mu_id_bytes(&op->id)));
    } else if (may_pass(result)) {
        mu_log(MU_LOG_WARN, "schedule.delayed", MU_KS("schedule_id", mu_id_bytes(&d->id)),
               MU_KC("err_message", mu_err_text(result)));
    } else if (result != MU_E_STALE) { /* else somebody fired or changed it */
        snprintf(f->error, sizeof f->error, "the run was refused: %s", mu_err_text(result));
        skip(f);
        return;
    }
    one_over(f);
}

static void submit(struct mu_firing *f)
{
    struct mu_schedules *s = f->s;
    const char *field;
    const char *refused = mu_run_request_refuse(&f->rq, &field);
    if (refused) {
        snprintf(f->error, sizeof f->error, "agent_config: %s", refused);
        skip(f);
        return;
    }
    const struct due *d = &f->rows[f->at];
    f->tick = (struct mu_schedule_tick){mu_id_bytes(&d->id), d->tick_ms, f->next_ms};
    f->create.tick = &f->tick;
    f->create.schedule_id = mu_id_bytes(&d->id);
    f->create.body = d->spec;
    int r = mu_run_request_fill(&f->rq, s->opts.settings, &f->one, &f->create);
    if (r == 0) {
        r = mu_dispatch_create(s->opts.dispatch, &f->create);
    }
    if (r < 0) {
        created(&f->create, r);
    }
}

/* The rules of a run that names an image (oz-api.md 16.5), as they are now. */
static void use_as_image(struct mu_firing *f)
{
    const struct mu_schedules_opts *o = &f->s->opts;
    if (!o->allow_raw_env_image || mu_bytes_starts(f->rq.environment_id, MU_B("env_")) ||
        !mu_image_allowed(o->image_allowlist, f->rq.environment_id)) {
        snprintf(f->error, sizeof f->error,
                 "agent_config.environment_id: %.*s is neither an environment nor an image that is "
                 "allowed",
                 MU_ARGS(f->rq.environment_id));
        skip(f);
        return;
    }
    submit(f);
}

static int take_environment(void *arg, const struct mu_env_view *v)
{
    return mu_environment_snapshot(arg, v);
}

static void environment_read(struct mu_env_read *op, int result)
{
    struct mu_firing *f = op->ctx;
    if (result < 0 && result != MU_E_NOT_FOUND) {
        created(&f->create, result);
        return;
    }
    if (result < 0) {
        use_as_image(f);
        return;
    }
    f->rq.env_snapshot = mu_buf_bytes(&f->snapshot);
    submit(f);
}

static int schedule_json(struct mu_firing *f, const char **ret)
{
    const struct due *d = &f->rows[f->at];
    struct mu_buf b;
    mu_buf_init(&b, 4096);
    struct mu_json_w w = mu_json_w(&b);
    mu_jw_obj(&w);
    mu_jw_kstr(&w, "schedule_id", mu_id_bytes(&d->id));
    mu_jw_kstr(&w, "schedule_name", d->name);
    mu_jw_kstr(&w, "cron_schedule", d->cron);
    mu_jw_obj_end(&w);
    mu_bytes copy = b.failed ? MU_B_NONE : mu_arena_dup(&f->one, mu_buf_bytes(&b));
    mu_buf_fini(&b);
    *ret = copy.ptr;
    return copy.ptr ? 0 : -ENOMEM;
}

/* The next time after now; true when this tick is too old to be caught up with. */
static bool plan(struct mu_firing *f)
{
    const struct due *d = &f->rows[f->at];
    struct mu_cron cron;
    f->next_ms = 0;
    if (mu_cron_parse(d->cron, &cron, NULL) < 0 ||
        mu_cron_next(&cron, f->now_ms, &f->next_ms) < 0) {
        f->next_ms = 0;
    }
    return f->now_ms - d->tick_ms > CATCH_UP_MS;
}

static void fire(struct mu_firing *f)
{
    const struct due *d = &f->rows[f->at];
    yyjson_val *spec = NULL;
    static const struct mu_json_limits limits = {.max_bytes = 4 << 20, .max_depth = 80};
    mu_arena_init(&f->one, ARENA_MAX);
    mu_buf_init(&f->snapshot, 1 << 20);
    f->error[0] = 0;
    f->create = (struct mu_session_create){
        .unit = {.loop = f->s->opts.core}, .who = &f->who, .done = created, .ctx = f};
    f->who = (struct mu_principal){
        .admin = d->admin, .tenant = mu_identity_tenant(f->s->opts.identity, mu_str(d->org_id))};
    snprintf(f->who.org_id, sizeof f->who.org_id, "%s", d->org_id);
    snprintf(f->who.uid, sizeof f->who.uid, "%s", d->creator[0] ? d->creator : d->org_id);
    f->rq = (struct mu_run_request){.source = MU_SRC_SCHEDULED_AGENT};
    if (plan(f)) {
        skip(f);
        return;
    }
    int r = f->who.tenant ? mu_json_read(&f->one, d->spec, &limits, &spec, NULL) : -ENOMEM;
    r = r < 0 ? r : schedule_json(f, &f->rq.schedule_json);
    if (r < 0) {
        created(&f->create, r);
        return;
    }
    f->rq.prompt = mu_json_get_bytes(spec, "prompt");
    f->rq.config = mu_json_get(spec, "agent_config");
    mu_bytes environment = mu_bytes_trim(mu_json_get_bytes(f->rq.config, "environment_id"));
    if (!environment.len) {
        submit(f);
        return;
    }
    f->rq.environment_id = environment;
    f->env = (struct mu_env_read){.read = {.loop = f->s->opts.core},
                                  .admin = d->admin,
                                  .org_id = mu_str(f->who.org_id),
                                  .each = take_environment,
                                  .arg = &f->snapshot,
                                  .done = environment_read,
                                  .ctx = f};
    if (mu_id_parse(environment, "env_", &f->env.id) < 0) {
        use_as_image(f);
        return;
    }
    r = mu_environment_read(f->s->opts.environments, &f->env);
    if (r < 0) {
        environment_read(&f->env, r);
    }
}

static void fire_next(struct mu_firing *f)
{
    if (f->at < f->n && !f->s->stopping) {
        fire(f);
        return;
    }
    struct mu_schedules *s = f->s;
    mu_arena_fini(&f->arena);
    mu_free(f);
    s->firing = NULL;
    round_over(s);
}

static void due_read(struct mu_read *read, int result)
{
    struct mu_schedules *s = MU_CONTAINER(read, struct mu_schedules, read);
    if (result < 0) {
        s->firing->n = 0;
    }
    fire_next(s->firing);
}

static void on_tick(struct mu_timer *t)
{
    struct mu_schedules *s = MU_CONTAINER(t, struct mu_schedules, timer);
    next_round(s);
    struct mu_firing *f = s->reading ? NULL : mu_calloc(1, sizeof *f);
    if (!f) {
        return;
    }
    s->reading = true;
    f->s = s;
    f->now_ms = mu_env_wall_ms(s->opts.env);
    mu_arena_init(&f->arena, 64 << 20);
    s->firing = f;
    s->read = (struct mu_read){.run = run_due, .done = due_read, .loop = s->opts.core};
    int r = mu_readers_submit(s->opts.readers, &s->read);
    if (r < 0) {
        due_read(&s->read, r);
    }
}

/* --- life --- */

int mu_schedules_new(const struct mu_schedules_opts *opts, struct mu_schedules **ret)
{
    struct mu_schedules *s = mu_calloc(1, sizeof *s);
    if (!s) {
        return -ENOMEM;
    }
    s->opts = *opts;
    mu_timer_init(&s->timer, opts->core, on_tick);
    *ret = s;
    return 0;
}

int mu_schedules_start(struct mu_schedules *s)
{
    return mu_timer_set(&s->timer, TICK_MS);
}

void mu_schedules_stop(struct mu_schedules *s, void (*stopped)(void *arg), void *arg)
{
    s->stopping = true;
    mu_timer_clear(&s->timer);
    s->stopped = stopped;
    s->stopped_arg = arg;
    if (!s->reading) {
        round_over(s);
    }
}

struct mu_schedules *mu_schedules_free(struct mu_schedules *s)
{
    if (s) {
        mu_timer_clear(&s->timer);
        mu_free(s);
    }
    return NULL;
}

void mu_schedules_reload(struct mu_schedules *s, const struct mu_providers_settings *settings)
{
    s->opts.settings = settings;
}
