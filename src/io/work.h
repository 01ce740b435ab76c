/* The work pool: threads for what may block (files, password hashing, archives, process start). Not
 * libuv's global one. */
#ifndef MU_IO_WORK_H
#define MU_IO_WORK_H

#include "io/loop.h"

struct mu_work;

/* Embedded in the caller's object, which must live until done() ran. */
struct mu_job {
    struct mu_post post;              /* used by the pool */
    void (*run)(struct mu_job *job);  /* on a pool thread */
    void (*done)(struct mu_job *job); /* on `loop` afterwards; also when the pool is closing (then
                                         run() ran or did not) */
    struct mu_loop *loop;
    bool ran;
};

/* `threads` 1..64; at most `max_queue` jobs wait. -ENOMEM, MU_E_INVALID, or what starting a thread
 * gave. */
MU_MUST_USE int mu_work_new(unsigned threads, size_t max_queue, struct mu_work **ret);
/* Finishes the jobs that run, completes the waiting ones without running them, joins. Nobody may
 * submit any more, except from the jobs that run (MU_E_CLOSED); the loops must still run or be
 * freed afterwards, for the completions. Returns NULL. */
struct mu_work *mu_work_free(struct mu_work *w);
/* Any thread. MU_E_BUSY when the queue is full (done() is not called then), MU_E_CLOSED. */
MU_MUST_USE int mu_work_submit(struct mu_work *w, struct mu_job *job);

#endif
