/* Time, and the host that drives. */
#include "lib/cp_int.h"

static struct mu_cp *cp_of(const struct mu_env *env)
{
    return env->arg;
}

static int64_t wall(const struct mu_env *env)
{
    struct mu_cp *cp = cp_of(env);
    return cp->conf.wall_ms ? cp->conf.wall_ms(cp->conf.seam_arg) : mu_env_wall_ms(&mu_env_real);
}

static int64_t mono(const struct mu_env *env)
{
    struct mu_cp *cp = cp_of(env);
    return cp->conf.mono_ns ? cp->conf.mono_ns(cp->conf.seam_arg)
                            : mu_env_real.mono_ns(&mu_env_real);
}

static int64_t driven_wall(const struct mu_env *env)
{
    return atomic_load(&cp_of(env)->now_ms);
}

static int64_t driven_mono(const struct mu_env *env)
{
    return atomic_load(&cp_of(env)->now_ms) * 1000000;
}

static void draw(const struct mu_env *env, void *dst, size_t len)
{
    struct mu_cp *cp = cp_of(env);
    if (cp->conf.random) {
        cp->conf.random(cp->conf.seam_arg, dst, len);
    } else {
        mu_env_real.random(&mu_env_real, dst, len);
    }
}

void mu_lib_clock_init(struct mu_cp *cp)
{
    bool driven = cp->conf.host_driven;
    int64_t start = cp->conf.start_ms > 0 ? cp->conf.start_ms : mu_env_wall_ms(&mu_env_real);
    atomic_store(&cp->now_ms, start);
    cp->env = (struct mu_env){driven ? driven_wall : wall, driven ? driven_mono : mono, draw, cp};
}

/* --- what is under way elsewhere: something is sent through each queue and comes back last --- */

struct probe {
    struct mu_unit unit;
    struct mu_read read;
    struct mu_job job;
    int away;
};

static int run_nothing(struct mu_unit *u MU_UNUSED, struct mu_tx *tx MU_UNUSED)
{
    return 0;
}

static int read_nothing(struct mu_read *r MU_UNUSED, struct mu_db *db MU_UNUSED)
{
    return 0;
}

static void do_nothing(struct mu_job *job MU_UNUSED)
{
}

static void unit_back(struct mu_unit *u, int result MU_UNUSED)
{
    MU_CONTAINER(u, struct probe, unit)->away--;
}

static void read_back(struct mu_read *r, int result MU_UNUSED)
{
    MU_CONTAINER(r, struct probe, read)->away--;
}

static void job_back(struct mu_job *job)
{
    MU_CONTAINER(job, struct probe, job)->away--;
}

/* Whether anything but the probes came. */
static bool anything_comes(struct mu_cp *cp)
{
    struct probe p = {.unit = {.run = run_nothing, .done = unit_back, .loop = cp->loop},
                      .read = {.run = read_nothing, .done = read_back, .loop = cp->loop},
                      .job = {.run = do_nothing, .done = job_back, .loop = cp->loop}};
    size_t sent = 0, came = 0;
    sent += mu_writer_submit(cp->writer, &p.unit) == 0;
    sent += mu_readers_submit(cp->readers, &p.read) == 0;
    sent += mu_work_submit(cp->work, &p.job) == 0;
    p.away = (int)sent;
    while (p.away) {
        came += mu_loop_turn(cp->loop, true);
    }
    return came > sent;
}

bool mu_lib_settle(struct mu_cp *cp, const bool *done)
{
    for (;;) {
        pthread_mutex_lock(&cp->drive);
        while (!(done && *done) && (mu_loop_turn(cp->loop, false) || anything_comes(cp))) {
        }
        bool is = done && *done;
        pthread_mutex_unlock(&cp->drive);
        if (is || !mu_lib_tell(cp, &cp->asked)) {
            return is || !done;
        }
    }
}

bool mu_lib_wait(struct mu_cp *cp, const bool *done)
{
    if (cp->conf.host_driven) {
        return mu_lib_settle(cp, done);
    }
    pthread_mutex_lock(&cp->lock);
    while (!*done) {
        pthread_cond_wait(&cp->changed, &cp->lock);
    }
    pthread_mutex_unlock(&cp->lock);
    return true;
}

int64_t mu_cp_tick(mu_cp *cp, int64_t now_ms)
{
    if (!cp->conf.host_driven || !mu_lib_enter(cp)) {
        return INT64_MAX;
    }
    if (now_ms > atomic_load(&cp->now_ms)) {
        atomic_store(&cp->now_ms, now_ms);
    }
    do {
        (void)mu_lib_settle(cp, NULL);
    } while (mu_lib_tell(cp, &cp->told));
    pthread_mutex_lock(&cp->drive);
    int64_t due = mu_loop_due_ms(cp->loop);
    pthread_mutex_unlock(&cp->drive);
    mu_lib_leave(cp);
    return due;
}
