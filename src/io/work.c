#include "io/work.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

enum { MAX_THREADS = 64 };

struct mu_work {
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct mu_post *first, *last; /* waiting jobs, linked through their post */
    size_t queued, max_queue;
    bool closing;
    unsigned n_threads;
    pthread_t threads[];
};

static void on_done(struct mu_post *post)
{
    struct mu_job *job = MU_CONTAINER(post, struct mu_job, post);
    job->done(job);
}

static void complete(struct mu_job *job)
{
    job->post.fn = on_done;
    mu_loop_post(job->loop, &job->post);
}

/* The lock is held. */
static struct mu_job *take(struct mu_work *w)
{
    struct mu_post *p = w->first;
    if (!p) {
        return NULL;
    }
    w->first = p->next;
    if (!w->first) {
        w->last = NULL;
    }
    w->queued--;
    return MU_CONTAINER(p, struct mu_job, post);
}

static void *thread_main(void *arg)
{
    struct mu_work *w = arg;
    pthread_setname_np(pthread_self(), "mu-work");
    pthread_mutex_lock(&w->lock);
    while (!w->closing) {
        struct mu_job *job = take(w);
        if (!job) {
            pthread_cond_wait(&w->more, &w->lock);
            continue;
        }
        pthread_mutex_unlock(&w->lock);
        job->run(job);
        job->ran = true;
        complete(job);
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

int mu_work_new(unsigned threads, size_t max_queue, struct mu_work **ret)
{
    if (threads < 1 || threads > MAX_THREADS) {
        return MU_E_INVALID;
    }
    struct mu_work *w = mu_calloc(1, sizeof *w + threads * sizeof w->threads[0]);
    if (!w) {
        return -ENOMEM;
    }
    w->max_queue = max_queue;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->more, NULL);

    /* Signals are for the loops. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = 0;
    while (r == 0 && w->n_threads < threads) {
        r = -pthread_create(&w->threads[w->n_threads], NULL, thread_main, w);
        w->n_threads += r == 0;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r < 0) {
        mu_work_free(w);
        return r;
    }
    *ret = w;
    return 0;
}

struct mu_work *mu_work_free(struct mu_work *w)
{
    if (!w) {
        return NULL;
    }
    pthread_mutex_lock(&w->lock);
    w->closing = true;
    pthread_cond_broadcast(&w->more);
    pthread_mutex_unlock(&w->lock);
    for (unsigned i = 0; i < w->n_threads; i++) {
        pthread_join(w->threads[i], NULL);
    }
    struct mu_job *job;
    while ((job = take(w)) != NULL) {
        complete(job);
    }
    pthread_cond_destroy(&w->more);
    pthread_mutex_destroy(&w->lock);
    mu_free(w);
    return NULL;
}

int mu_work_submit(struct mu_work *w, struct mu_job *job)
{
    job->ran = false;
    job->post.next = NULL;
    pthread_mutex_lock(&w->lock);
    int r = w->closing ? MU_E_CLOSED : w->queued >= w->max_queue ? MU_E_BUSY : 0;
    if (r == 0) {
        if (w->last) {
            w->last->next = &job->post;
        } else {
            w->first = &job->post;
        }
        w->last = &job->post;
        w->queued++;
        pthread_cond_signal(&w->more);
    }
    pthread_mutex_unlock(&w->lock);
    return r;
}
