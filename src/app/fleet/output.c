/* Output of an attempt while it runs: to the watchers at once, to the database once a second, and
 * in memory only until then. */
#include <stdio.h>

#include "app/fleet/fleet_int.h"

enum { CHUNK_MS = 1000, CHUNK_BYTES = 256 * 1024, BORDER = 1 << 20, TAIL_MAX = 1 << 20, TRIES = 5 };

void mu_work_output_init(struct mu_work_item *k)
{
    mu_buf_init(&k->tail, TAIL_MAX + 4096);
    mu_buf_init(&k->chunk_bytes, CHUNK_BYTES);
    mu_timer_init(&k->chunk_timer, k->t->f->opts.core, NULL);
}

static void publish(struct mu_task *t, int64_t offset, mu_bytes text)
{
    struct mu_fleet *f = t->f;
    if (!f->opts.feed || !mu_feed_watched(f->opts.feed, mu_id_bytes(&t->id))) {
        return;
    }
    struct mu_event *e = mu_event_new(MU_EV_DELTA, 0, mu_fleet_now(f), offset, t->epoch, text);
    if (e) { /* without memory the viewer sees the hole by the offset of the next one */
        mu_feed_publish(f->opts.feed, mu_id_bytes(&t->id), e);
        mu_event_unref(e);
    }
}

static void persist(struct mu_work_item *k);

static void chunk_done(struct mu_session_chunk *op, int result)
{
    struct mu_work_item *k = op->ctx;
    k->chunk_busy = false;
    mu_buf_fini(&k->chunk_bytes);
    mu_buf_init(&k->chunk_bytes, CHUNK_BYTES);
    if (k->over) {
        if (!k->reading) {
            mu_work_fini(k);
        }
        return;
    }
    if (result == MU_E_STALE || result == MU_E_NOT_FOUND) {
        k->chunk_unwanted = true;
        mu_buf_fini(&k->tail);
        mu_buf_init(&k->tail, TAIL_MAX + 4096);
    } else if (result >= 0) {
        k->persisted += (int64_t)op->bytes.len;
        mu_buf_consume(&k->tail, op->bytes.len);
        if (k->tail.len == 0) { /* an idle attempt keeps nothing */
            mu_buf_fini(&k->tail);
            mu_buf_init(&k->tail, TAIL_MAX + 4096);
        }
    }
    if (k->end || k->want != MU_WANT_NOTHING) {
        if (result < 0 && !k->chunk_unwanted) {
            mu_work_retry(k->t);
        } else {
            mu_work_next(k->t);
        }
    } else {
        persist(k);
    }
}

static void on_timer(struct mu_timer *timer)
{
    persist(MU_CONTAINER(timer, struct mu_work_item, chunk_timer));
}

static bool submit(struct mu_work_item *k)
{
    struct mu_task *t = k->t;
    size_t border = (size_t)(BORDER - k->persisted % BORDER);
    if (t->f->closed) {
        return false;
    }
    mu_buf_add(&k->chunk_bytes,
               mu_bytes_head(mu_buf_bytes(&k->tail), MU_MIN((size_t)CHUNK_BYTES, border)));
    if (k->chunk_bytes.failed) {
        mu_buf_clear(&k->chunk_bytes);
        return false;
    }
    k->chunk = (struct mu_session_chunk){.unit = {.loop = t->f->opts.core},
                                         .id = t->id,
                                         .epoch = t->epoch,
                                         .pos = k->persisted,
                                         .bytes = mu_buf_bytes(&k->chunk_bytes),
                                         .done = chunk_done,
                                         .ctx = k};
    if (mu_session_chunk(t->f->opts.sessions, &k->chunk) < 0) {
        mu_buf_clear(&k->chunk_bytes);
        return false;
    }
    k->chunk_busy = true;
    return true;
}

static void persist(struct mu_work_item *k)
{
    if (k->chunk_busy || k->chunk_unwanted || !k->tail.len || mu_timer_is_set(&k->chunk_timer)) {
        return;
    }
    (void)!submit(k); /* or at the next look */
    mu_timer_init(&k->chunk_timer, k->t->f->opts.core, on_timer);
    (void)!mu_timer_set(&k->chunk_timer, CHUNK_MS);
}

bool mu_work_flush(struct mu_work_item *k)
{
    if (k->chunk_busy) {
        return true;
    }
    if (k->chunk_unwanted || !k->tail.len) {
        return false;
    }
    if (!submit(k)) {
        mu_work_retry(k->t);
    }
    return true;
}

static void add(struct mu_task *t, mu_bytes text)
{
    struct mu_work_item *k = t->work;
    if (k->tail.len + text.len > TAIL_MAX) { /* the database is slow: this piece is left out */
        k->log_gap += (int64_t)text.len;
        return;
    }
    size_t before = k->tail.len;
    mu_buf_add(&k->tail, text);
    if (k->tail.failed) {
        k->tail.failed = 0;
        k->tail.len = before;
        k->log_gap += (int64_t)text.len;
        return;
    }
    publish(t, k->total, text);
    k->total += (int64_t)text.len;
}

void mu_work_log(struct mu_task *t, const struct mu_report *r)
{
    struct mu_work_item *k = t->work;
    int64_t *at = &k->log_at[r->stream ? 1 : 0];
    mu_bytes text = r->chunk;
    if (k->end || k->chunk_unwanted) {
        return;
    }
    if (r->offset >= 0) {
        if (r->offset + (int64_t)text.len <= *at) {
            return; /* sent again after a reconnect */
        }
        if (r->offset < *at) {
            text = mu_bytes_from(text, (size_t)(*at - r->offset));
        }
        k->log_gap += MU_MAX(r->offset - *at, 0);
        *at = MU_MAX(r->offset, *at) + (int64_t)text.len;
    }
    if (k->log_gap) {
        char line[80];
        int n = snprintf(line, sizeof line, "\n[... %lld bytes were dropped ...]\n",
                         (long long)k->log_gap);
        k->log_gap = 0;
        add(t, mu_bytes_of(line, (size_t)n));
    }
    add(t, text);
    persist(k);
}

/* --- a viewer that joins --- */

static struct mu_work_item *running(struct mu_fleet *f, const struct mu_id *id)
{
    struct mu_task *t = mu_map_get(&f->tasks, mu_id_bytes(id));
    return t && t->work && t->work->offered && t->state > MU_ST_CLAIMED ? t->work : NULL;
}

static void chunks_read(struct mu_session_chunks *read, int result);

static void read_chunks(struct mu_fleet_snapshot *op)
{
    mu_buf_clear(&op->text);
    op->read.id = op->id;
    op->read.read.loop = op->fleet->opts.core;
    op->read.text = op->text;
    op->read.done = chunks_read;
    op->read.ctx = op;
    if (op->fleet->closed || mu_session_chunks_read(op->fleet->opts.sessions, &op->read) < 0) {
        op->running = false;
        op->done(op);
    }
}

static void chunks_read(struct mu_session_chunks *read, int result)
{
    struct mu_fleet_snapshot *op = read->ctx;
    op->text = read->text;
    struct mu_work_item *k = running(op->fleet, &op->id);
    op->running = result >= 0 && k;
    if (op->running && read->end < k->persisted && ++op->tries < TRIES) {
        read_chunks(op); /* more was stored meanwhile */
        return;
    }
    if (op->running) {
        op->epoch = k->t->epoch;
        op->offset = read->begin;
        mu_bytes tail = mu_buf_bytes(&k->tail);
        mu_buf_add(&op->text, mu_bytes_from(tail, (size_t)MU_MAX(read->end - k->persisted, 0)));
        op->running = !op->text.failed;
    }
    op->done(op);
}

bool mu_fleet_snapshot(struct mu_fleet *f, struct mu_fleet_snapshot *op)
{
    if (!running(f, &op->id)) {
        return false;
    }
    op->fleet = f;
    op->tries = 0;
    read_chunks(op);
    return true;
}
