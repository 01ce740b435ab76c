#include "worker/store.h"

#include <errno.h>

enum { MAX_QUEUE = 4096 };

struct mu_jstore {
    struct mu_loop *loop;
    struct mu_journal *journal; /* touched by the thread only */
    struct mu_work *work;
    size_t pending;
    bool closing; /* the last request frees it */
    void (*idle)(void *arg);
    void *idle_arg;
};

enum what { PUT, REMOVE, READ };

struct request {
    struct mu_job job;
    struct mu_jstore *store;
    enum what what;
    enum mu_journal_kind kind;
    bool sync;
    mu_jstore_done done;
    void *arg;
    int result;
    struct mu_buf bytes; /* what was read */
    size_t key_len, payload_len;
    char text[]; /* key, payload */
};

int mu_jstore_new(struct mu_loop *loop, struct mu_journal *journal, void (*idle)(void *arg),
                  void *arg, struct mu_jstore **ret)
{
    struct mu_jstore *s = mu_calloc(1, sizeof *s);
    if (!s) {
        return -ENOMEM;
    }
    int r = mu_work_new(1, MAX_QUEUE, &s->work);
    if (r < 0) {
        mu_free(s);
        return r;
    }
    s->loop = loop;
    s->journal = journal;
    s->idle = idle;
    s->idle_arg = arg;
    *ret = s;
    return 0;
}

struct mu_jstore *mu_jstore_free(struct mu_jstore *s)
{
    if (s) {
        mu_work_free(s->work);
        mu_journal_close(s->journal);
        s->closing = true;
        if (s->pending == 0) {
            mu_free(s);
        }
    }
    return NULL;
}

static void run(struct mu_job *job)
{
    struct request *q = MU_CONTAINER(job, struct request, job);
    mu_bytes key = mu_bytes_of(q->text, q->key_len);
    mu_bytes payload = mu_bytes_of(q->text + q->key_len, q->payload_len);
    struct mu_journal *j = q->store->journal;
    q->result = q->what == PUT    ? mu_journal_put(j, q->kind, key, payload, q->sync)
                : q->what == READ ? mu_journal_read(j, q->kind, key, &q->bytes)
                                  : mu_journal_remove(j, key);
}

static void done(struct mu_job *job)
{
    struct request *q = MU_CONTAINER(job, struct request, job);
    struct mu_jstore *s = q->store;
    s->pending--;
    if (q->done && !s->closing) {
        q->done(q->arg, job->ran ? q->result : MU_E_CLOSED, mu_buf_bytes(&q->bytes));
    }
    mu_buf_fini(&q->bytes);
    mu_free(q);
    if (s->pending == 0 && s->closing) {
        mu_free(s);
    } else if (s->pending == 0 && s->idle) {
        s->idle(s->idle_arg);
    }
}

static int submit(struct mu_jstore *s, const struct request *like, mu_bytes key, mu_bytes payload)
{
    struct request *q = mu_calloc(1, sizeof *q + key.len + payload.len + 1);
    if (!q) {
        return -ENOMEM;
    }
    *q = *like;
    q->job = (struct mu_job){.run = run, .done = done, .loop = s->loop};
    q->store = s;
    memcpy(q->text, key.ptr, key.len);
    q->key_len = key.len;
    if (payload.len) {
        memcpy(q->text + key.len, payload.ptr, payload.len);
        q->payload_len = payload.len;
    }
    mu_buf_init(&q->bytes, MU_JOURNAL_MAX_RECORD);
    int r = mu_work_submit(s->work, &q->job);
    if (r < 0) {
        mu_free(q);
        return r;
    }
    s->pending++;
    return 0;
}

int mu_jstore_put(struct mu_jstore *s, enum mu_journal_kind kind, mu_bytes key, mu_bytes payload,
                  bool sync, mu_jstore_done fn, void *arg)
{
    const struct request q = {.what = PUT, .kind = kind, .sync = sync, .done = fn, .arg = arg};
    return submit(s, &q, key, payload);
}

int mu_jstore_remove(struct mu_jstore *s, mu_bytes key)
{
    const struct request q = {.what = REMOVE};
    return submit(s, &q, key, MU_B_NONE);
}

int mu_jstore_read(struct mu_jstore *s, enum mu_journal_kind kind, mu_bytes key, mu_jstore_done fn,
                   void *arg)
{
    const struct request q = {.what = READ, .kind = kind, .done = fn, .arg = arg};
    return submit(s, &q, key, MU_B_NONE);
}

size_t mu_jstore_pending(const struct mu_jstore *s)
{
    return s->pending;
}
