#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "db/writer_int.h"

enum {
    /* Beyond this rate of batches with a failing unit, running them twice costs more than
     * savepoints do (3-9 us of 80 us a unit on SQLite). */
    SPLIT_SCORE = 128,
    SCORE_ONE = 1024,
    SCORE_DECAY = 16,
    MAX_AGAIN = 5,
};

/* --- completion --- */

static void call_done(struct mu_post *post)
{
    struct mu_unit *u = MU_CONTAINER(post, struct mu_unit, post);
    u->done(u, u->result);
}

/* Completes units with the results they have; the units are gone afterwards. */
static void complete(struct mu_unit **units, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!units[i]) {
            continue;
        }
        struct mu_loop *loop = units[i]->loop;
        struct mu_post *first = NULL, **end = &first, *last = NULL;
        for (size_t k = i; k < n; k++) {
            if (units[k] && units[k]->loop == loop) {
                last = &units[k]->post;
                last->fn = call_done;
                last->next = NULL;
                *end = last;
                end = &last->next;
                units[k] = NULL;
            }
        }
        mu_loop_post_chain(loop, first, last); /* from here they may be gone */
    }
}

static void fail_units(struct mu_unit **units, size_t n, int code)
{
    for (size_t i = 0; i < n; i++) {
        units[i]->result = code;
    }
    complete(units, n);
}

/* --- one transaction --- */

/* The engine's own trouble, whatever the unit made of it. */
static int trouble(struct mu_writer *w)
{
    if (w->db->trouble) {
        return w->db->trouble;
    }
    return mu_db_in_tx(w->db) ? 0 : MU_E_RETRY;
}

static int run_unit(struct mu_writer *w, struct mu_unit *u)
{
    mu_tx_start_unit(&w->tx);
    int r = u->run(u, &w->tx);
    int end = r < 0 ? 0 : mu_tx_end_unit(&w->tx);
    return end < 0 ? end : r;
}

static int run_bare(struct mu_writer *w, struct mu_unit *u)
{
    u->result = run_unit(w, u);
    int r = trouble(w);
    return r ? r : u->result < 0 ? MU_WRITER_SPLIT : 0;
}

static int run_guarded(struct mu_writer *w, struct mu_unit *u)
{
    size_t before = w->tx.log.len;
    int r = mu_db_savepoint(w->db);
    if (r < 0) {
        return r;
    }
    u->result = run_unit(w, u);
    if (u->result >= 0) {
        r = mu_db_flush(w->db);
        u->result = r < 0 ? r : u->result;
    }
    r = trouble(w);
    if (r) {
        return r;
    }
    if (u->result >= 0) {
        return mu_db_release(w->db);
    }
    w->tx.log.len = before;
    w->tx.log.failed = 0;
    r = mu_db_rollback_to(w->db);
    return r < 0 && trouble(w) ? trouble(w) : r;
}

/* Everything that was sent has to be known as good before COMMIT leaves. */
static int commit(struct mu_writer *w, bool guarded)
{
    int r = mu_writer_send_mark(w);
    if (r == 0) {
        r = mu_db_flush(w->db);
    }
    if (r < 0) {
        /* Guarded units were all flushed before, so this is the mark: the slot is not ours any
         * more, which a new connection will find. */
        return trouble(w) ? trouble(w) : guarded ? MU_E_CLOSED : MU_WRITER_SPLIT;
    }
    if (w->crashing) {
        kill(getpid(), SIGKILL);
    }
    const struct mu_env *env = w->opts.env;
    int64_t start = env->mono_ns(env);
    w->committing = true;
    r = mu_db_commit(w->db);
    if (r == 0) {
        w->mark++;
        w->committing = false;
        mu_metric_observe_us(w->commit_time, (env->mono_ns(env) - start) / 1000);
    }
    return r;
}

/* 0 = done, the results are right; MU_WRITER_SPLIT = nothing happened, run it guarded; else the
 * engine's code. */
static int attempt(struct mu_writer *w, struct mu_unit **units, size_t n, bool guarded)
{
    size_t good = 0;
    mu_tx_reset(&w->tx);
    w->committing = false;
    int r = mu_db_begin(w->db, true);
    for (size_t i = 0; i < n && r == 0; i++) {
        r = guarded ? run_guarded(w, units[i]) : run_bare(w, units[i]);
        good += units[i]->result >= 0;
    }
    if (r == MU_WRITER_SPLIT && n == 1) {
        r = 0; /* alone, the whole transaction is its savepoint */
    }
    if (r == 0 && good) {
        r = commit(w, guarded);
    } else {
        mu_tx_reset(&w->tx);
    }
    if (r != 0 || !good) {
        mu_db_rollback(w->db);
    }
    return r;
}

static void finish(struct mu_writer *w, struct mu_unit **units, size_t n)
{
    mu_metric_add(w->batches, 1);
    mu_metric_add(w->units, (int64_t)n);
    if (w->opts.feed) {
        mu_tx_publish(&w->tx);
    }
    complete(units, n);
}

static void learn(struct mu_writer *w, struct mu_unit **units, size_t n)
{
    bool failed = false;
    for (size_t i = 0; i < n; i++) {
        failed = failed || units[i]->result < 0;
    }
    w->fail_score += ((failed ? SCORE_ONE : 0) - w->fail_score) / SCORE_DECAY;
}

static bool is_engine_trouble(int code)
{
    return code == MU_E_CLOSED || code == MU_E_IO || code == MU_E_DISK_FULL || code == MU_E_BUSY;
}

static void one_by_one(struct mu_writer *w, struct mu_unit **units, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        mu_writer_process(w, &units[i], 1);
    }
}

/* After a transaction of a single unit (or with the engine in trouble) came to nothing. Returns
 * whether to run it again; if not, the units are completed. */
static bool again(struct mu_writer *w, struct mu_unit **units, size_t n, int code, int tries)
{
    bool more = tries <= MAX_AGAIN;
    if (is_engine_trouble(code)) {
        enum mu_settled s = mu_writer_settle(w, code);
        if (s == MU_SETTLED_COMMITTED) {
            finish(w, units, n);
            return false;
        }
        more = more && s == MU_SETTLED_AGAIN;
        code = MU_E_UNAVAILABLE;
    } else if (code == MU_E_RETRY) {
        mu_writer_sleep(more ? 1 << tries : 0);
        code = MU_E_UNAVAILABLE;
    } else {
        more = false; /* the unit's own: a deferred constraint, no memory */
    }
    if (!more) {
        fail_units(units, n, code);
    }
    return more;
}

void mu_writer_process(struct mu_writer *w, struct mu_unit **units, size_t n)
{
    bool guarded = n > 1 && w->fail_score > SPLIT_SCORE;
    for (int tries = 1;; tries++) {
        if (!atomic_load(&w->healthy)) {
            fail_units(units, n, MU_E_UNAVAILABLE);
            return;
        }
        int r = attempt(w, units, n, guarded);
        if (r == 0) {
            if (n > 1) {
                learn(w, units, n);
            }
            finish(w, units, n);
            return;
        }
        mu_metric_add(w->retries, 1);
        if (r == MU_WRITER_SPLIT) {
            guarded = true;
        } else if (n > 1 && !is_engine_trouble(r)) {
            one_by_one(w, units, n);
            return;
        } else if (!again(w, units, n, r, tries)) {
            return;
        }
    }
}
