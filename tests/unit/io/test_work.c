#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <semaphore.h>
#include <stdatomic.h>

#include "../alloc_fail.h"
#include "io/work.h"

struct shared {
    struct mu_loop *loop;
    struct mu_work *work;
    atomic_int ran;
    int done, not_run, expected;
    bool off_loop;
    sem_t gate, inside;
};

struct item {
    struct mu_job job;
    struct shared *shared;
    bool wait;
    int result;
};

static void run(struct mu_job *job)
{
    struct item *it = MU_CONTAINER(job, struct item, job);
    if (it->wait) {
        sem_post(&it->shared->inside);
        sem_wait(&it->shared->gate);
    }
    if (mu_loop_here(it->shared->loop)) {
        it->shared->off_loop = true;
    }
    it->result = 42;
    atomic_fetch_add(&it->shared->ran, 1);
}

static void done(struct mu_job *job)
{
    struct item *it = MU_CONTAINER(job, struct item, job);
    struct shared *s = it->shared;
    assert_true(mu_loop_here(s->loop));
    assert_int_equal(it->result, job->ran ? 42 : 0);
    s->not_run += !job->ran;
    if (++s->done == s->expected) {
        mu_loop_stop(s->loop);
    }
}

static void begin(struct shared *s, unsigned threads, size_t queue)
{
    *s = (struct shared){0};
    assert_int_equal(mu_loop_new(&mu_env_real, "test", &s->loop), 0);
    assert_int_equal(mu_work_new(threads, queue, &s->work), 0);
    sem_init(&s->gate, 0, 0);
    sem_init(&s->inside, 0, 0);
}

static void end(struct shared *s)
{
    mu_loop_free(s->loop);
    sem_destroy(&s->gate);
    sem_destroy(&s->inside);
}

static struct item item_of(struct shared *s, bool wait)
{
    return (struct item){
        .job = {.run = run, .done = done, .loop = s->loop}, .shared = s, .wait = wait};
}

static void every_job_runs_off_the_loop_and_completes_on_it(void **state MU_UNUSED)
{
    enum { N = 2000 };
    struct shared s;
    begin(&s, 4, N);
    s.expected = N;
    struct item *items = calloc(N, sizeof *items);
    assert_int_equal(mu_loop_start(s.loop), 0);
    for (int i = 0; i < N; i++) {
        items[i] = item_of(&s, false);
        assert_int_equal(mu_work_submit(s.work, &items[i].job), 0);
    }
    mu_loop_join(s.loop);
    assert_int_equal(s.done, N);
    assert_int_equal(s.not_run, 0);
    assert_int_equal(atomic_load(&s.ran), N);
    assert_false(s.off_loop);
    assert_null(mu_work_free(s.work));
    end(&s);
    free(items);
}

static void a_full_queue_refuses_and_closing_completes_what_waits(void **state MU_UNUSED)
{
    struct shared s;
    begin(&s, 1, 2);
    struct item running = item_of(&s, true), a = item_of(&s, false), b = item_of(&s, false),
                c = item_of(&s, false);
    assert_int_equal(mu_work_submit(s.work, &running.job), 0);
    sem_wait(&s.inside);
    assert_int_equal(mu_work_submit(s.work, &a.job), 0);
    assert_int_equal(mu_work_submit(s.work, &b.job), 0);
    assert_int_equal(mu_work_submit(s.work, &c.job), MU_E_BUSY);
    sem_post(&s.gate);
    mu_work_free(s.work);
    /* All three completed; how many of the waiting ones ran is a race that either may win. */
    s.expected = 3;
    mu_loop_run(s.loop);
    assert_int_equal(s.done, 3);
    assert_int_equal(atomic_load(&s.ran) + s.not_run, 3);
    assert_true(running.job.ran);
    end(&s);
}

static void a_pool_without_room_for_waiting_refuses_all(void **state MU_UNUSED)
{
    struct shared s;
    begin(&s, 1, 0);
    struct item it = item_of(&s, false);
    assert_int_equal(mu_work_submit(s.work, &it.job), MU_E_BUSY);
    mu_work_free(s.work);
    end(&s);
}

static void odd_numbers_of_threads_are_refused(void **state MU_UNUSED)
{
    struct mu_work *w;
    assert_int_equal(mu_work_new(0, 1, &w), MU_E_INVALID);
    assert_int_equal(mu_work_new(65, 1, &w), MU_E_INVALID);
    assert_null(mu_work_free(NULL));
}

static int short_life(void *arg MU_UNUSED)
{
    struct mu_work *w;
    int r = mu_work_new(2, 1, &w);
    if (r == 0) {
        mu_work_free(w);
    }
    return r;
}

static void no_failing_allocation_leaks(void **state MU_UNUSED)
{
    each_allocation_fails(short_life, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_job_runs_off_the_loop_and_completes_on_it),
        cmocka_unit_test(a_full_queue_refuses_and_closing_completes_what_waits),
        cmocka_unit_test(a_pool_without_room_for_waiting_refuses_all),
        cmocka_unit_test(odd_numbers_of_threads_are_refused),
        cmocka_unit_test(no_failing_allocation_leaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
