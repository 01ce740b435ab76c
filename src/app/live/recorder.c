/* One writer and reader of a session's recordings at a time: what is queued meanwhile goes with the
 * next job. */
#include "app/live/recorder_int.h"

#include <errno.h>

#include "app/live/live_int.h"
#include "app/live/tape_int.h"

enum { PENDING_MAX = 4 << 20, FLUSH_MS = 500, FLUSH_BYTES = 256 << 10 };

/* The recordings of one session while somebody writes or reads them. */
struct reel {
    struct mu_recorder *r;
    struct mu_job job;
    struct mu_id session;
    struct mu_buf pending, writing;
    struct mu_list looks, reads, looking, reading;
    struct mu_timer timer;
    struct mu_tape tape;
    bool busy;
};

struct mu_recorder {
    struct mu_live *l;
    struct mu_map reels;
    struct mu_metric *lost;
    bool stopping;
    void (*stopped)(void *arg);
    void *stopped_arg;
};

static void reel_free(struct reel *x)
{
    (void)mu_map_remove(&x->r->reels, mu_id_bytes(&x->session));
    mu_timer_clear(&x->timer);
    mu_tape_close(&x->tape);
    mu_buf_fini(&x->pending);
    mu_buf_fini(&x->writing);
    mu_free(x);
}

static void start(struct reel *x);

static void on_timer(struct mu_timer *t)
{
    start(MU_CONTAINER(t, struct reel, timer));
}

static struct reel *reel_get(struct mu_recorder *r, const struct mu_id *session)
{
    struct reel *x = mu_map_get(&r->reels, mu_id_bytes(session));
    if (x) {
        return x;
    }
    x = mu_calloc(1, sizeof *x);
    if (!x) {
        return NULL;
    }
    x->r = r;
    x->session = *session;
    mu_buf_init(&x->pending, PENDING_MAX);
    mu_buf_init(&x->writing, PENDING_MAX);
    mu_list_init(&x->looks);
    mu_list_init(&x->reads);
    mu_list_init(&x->looking);
    mu_list_init(&x->reading);
    mu_timer_init(&x->timer, r->l->opts.core, on_timer);
    mu_tape_init(&x->tape, r->l->opts.recordings_dir, session, r->l->opts.recording_max);
    if (mu_map_put(&r->reels, mu_id_bytes(&x->session), x) < 0) {
        mu_free(x);
        return NULL;
    }
    return x;
}

static void run(struct mu_job *job)
{
    struct reel *x = MU_CONTAINER(job, struct reel, job);
    mu_tape_write(&x->tape, mu_buf_bytes(&x->writing));
    MU_LIST_EACH(it, tmp, &x->looking)
    {
        struct mu_recorder_look *op = MU_CONTAINER(it, struct mu_recorder_look, link);
        for (unsigned t = 0; t < MU_TERMINALS; t++) {
            mu_tape_range(&x->tape, t, op->epoch, &op->terminals[t]);
        }
    }
    MU_LIST_EACH(it, tmp, &x->reading)
    {
        struct mu_recorder_read *op = MU_CONTAINER(it, struct mu_recorder_read, link);
        mu_tape_range(&x->tape, op->terminal, 0, &op->range);
        op->result =
            mu_tape_read(&x->tape, op->terminal, op->from, op->limit, &op->begin, op->bytes);
    }
}

static void answer(struct reel *x)
{
    struct mu_list *it;
    while ((it = mu_list_pop(&x->looking))) {
        struct mu_recorder_look *op = MU_CONTAINER(it, struct mu_recorder_look, link);
        op->done(op);
    }
    while ((it = mu_list_pop(&x->reading))) {
        struct mu_recorder_read *op = MU_CONTAINER(it, struct mu_recorder_read, link);
        op->done(op);
    }
}

static void check_stopped(struct mu_recorder *r)
{
    if (r->stopping && r->reels.count == 0 && r->stopped) {
        void (*fn)(void *arg) = r->stopped;
        r->stopped = NULL;
        fn(r->stopped_arg);
    }
}

static bool idle(const struct reel *x)
{
    return !x->pending.len && mu_list_empty(&x->looks) && mu_list_empty(&x->reads);
}

static void ran(struct mu_job *job)
{
    struct reel *x = MU_CONTAINER(job, struct reel, job);
    struct mu_recorder *r = x->r;
    mu_buf_clear(&x->writing);
    answer(x);
    x->busy = false;
    if (!idle(x)) {
        start(x);
    } else if (!mu_live_find(r->l, &x->session) || r->stopping) {
        reel_free(x);
    }
    check_stopped(r);
}

static void move(struct mu_list *from, struct mu_list *to)
{
    struct mu_list *it;
    while ((it = mu_list_pop(from))) {
        mu_list_push(to, it);
    }
}

static void start(struct reel *x)
{
    if (x->busy) {
        return;
    }
    mu_timer_clear(&x->timer);
    x->busy = true;
    const struct mu_buf b = x->writing;
    x->writing = x->pending;
    x->pending = b;
    move(&x->looks, &x->looking);
    move(&x->reads, &x->reading);
    x->job = (struct mu_job){.run = run, .done = ran, .loop = x->r->l->opts.core};
    if (mu_work_submit(x->r->l->opts.work, &x->job) < 0) { /* too busy: these bytes are left out */
        mu_metric_add(x->r->lost, (int64_t)x->writing.len);
        ran(&x->job);
    }
}

void mu_recorder_add(struct mu_recorder *r, const struct mu_id *session, unsigned terminal,
                     int64_t epoch, int64_t base, int64_t offset, mu_bytes bytes)
{
    struct reel *x = reel_get(r, session);
    if (!x) {
        return;
    }
    if (x->pending.len + bytes.len + MU_TAPE_HEAD > PENDING_MAX) {
        mu_metric_add(r->lost, (int64_t)bytes.len);
        return;
    }
    mu_tape_record(&x->pending, terminal, epoch, mu_live_now(r->l), base, offset, bytes);
    x->pending.failed = 0; /* without memory: left out */
    if (x->pending.len >= FLUSH_BYTES || r->stopping) {
        start(x);
    } else if (!mu_timer_is_set(&x->timer) && mu_timer_set(&x->timer, FLUSH_MS) < 0) {
        start(x);
    }
}

void mu_recorder_look(struct mu_recorder *r, struct mu_recorder_look *op)
{
    struct reel *x = reel_get(r, &op->session);
    for (unsigned t = 0; t < MU_TERMINALS; t++) {
        op->terminals[t] = (struct mu_recorded){.base = -1};
    }
    if (!x) {
        op->done(op);
        return;
    }
    mu_list_push(&x->looks, &op->link);
    start(x);
}

void mu_recorder_read(struct mu_recorder *r, struct mu_recorder_read *op)
{
    struct reel *x = reel_get(r, &op->session);
    op->result = 0;
    op->begin = 0;
    op->range = (struct mu_recorded){.base = -1};
    if (!x) {
        op->result = -ENOMEM;
        op->done(op);
        return;
    }
    mu_list_push(&x->reads, &op->link);
    start(x);
}

int mu_recorder_new(struct mu_live *l, struct mu_recorder **ret)
{
    struct mu_recorder *r = mu_calloc(1, sizeof *r);
    if (!r) {
        return -ENOMEM;
    }
    r->l = l;
    mu_map_init(&r->reels);
    r->lost = mu_metrics_counter(l->opts.metrics, "muster_terminal_bytes_lost_total", NULL,
                                 "Bytes of terminals that the recording left out");
    if (!r->lost) {
        mu_free(r);
        return -ENOMEM;
    }
    *ret = r;
    return 0;
}

void mu_recorder_stop(struct mu_recorder *r, void (*stopped)(void *arg), void *arg)
{
    size_t at = 0;
    struct reel *x;
    r->stopping = true;
    r->stopped = stopped;
    r->stopped_arg = arg;
    while ((x = mu_map_next(&r->reels, &at))) {
        if (!x->busy && idle(x)) {
            reel_free(x);
        } else {
            start(x);
        }
    }
    check_stopped(r);
}

void mu_recorder_end(struct mu_recorder *r)
{
    size_t at = 0;
    struct reel *x;
    r->stopping = true;
    while ((x = mu_map_next(&r->reels, &at))) {
        mu_timer_clear(&x->timer);
    }
}

struct mu_recorder *mu_recorder_free(struct mu_recorder *r)
{
    size_t at = 0;
    struct reel *x;
    if (r) {
        while ((x = mu_map_next(&r->reels, &at))) {
            reel_free(x);
        }
        mu_map_fini(&r->reels);
        mu_free(r);
    }
    return NULL;
}
