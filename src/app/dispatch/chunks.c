/* Output of a running attempt: to the watchers at once, to the database once a second
 * (oz-providers.md 6.5). */
#include "app/dispatch/exec.h"

enum { CHUNK_MS = 1000, CHUNK_BYTES = 256 * 1024, BORDER = 1 << 20 };

static void publish(struct mu_exec *x, int type, int64_t offset, mu_bytes text)
{
    struct mu_run *run = x->run;
    struct mu_feed *feed = run->d->opts.feed;
    mu_bytes id = mu_id_bytes(&run->id);
    if (!mu_feed_watched(feed, id)) {
        return;
    }
    struct mu_event *e =
        mu_event_new(type, 0, mu_env_wall_ms(run->d->opts.env), offset, run->epoch, text);
    if (e) { /* without memory the viewer misses a delta, and sees it by the offset of the next one
              */
        mu_feed_publish(feed, id, e);
        mu_event_unref(e);
    }
}

static void persist(struct mu_exec *x);

static void chunk_done(struct mu_session_chunk *op, int result)
{
    struct mu_exec *x = op->ctx;
    x->chunk_busy = false;
    if (x->over) {
        mu_exec_over(x);
        return;
    }
    if (result == MU_E_STALE) {
        x->unwanted = true; /* the session ended without us; the abort is on its way */
    } else if (result < 0) {
        x->discard = x->discard || op->discard;
    } else if (x->chunk_text == x->text_no) { /* else that text was thrown away meanwhile */
        x->persisted = op->pos + (int64_t)op->bytes.len;
    }
    mu_arena_fini(&x->chunk_arena);
    persist(x);
}

static void on_timer(struct mu_timer *t)
{
    persist(MU_CONTAINER(t, struct mu_exec, chunk_timer));
}

static void persist(struct mu_exec *x)
{
    if (x->chunk_busy || x->unwanted || x->run->phase != MU_RUN_RUNNING ||
        mu_timer_is_set(&x->chunk_timer)) {
        return;
    }
    mu_bytes rest = mu_clip_from(&x->out, x->persisted);
    if (!rest.len && !x->discard) {
        return;
    }
    size_t border = (size_t)(BORDER - x->persisted % BORDER);
    rest = mu_bytes_head(rest, MU_MIN((size_t)CHUNK_BYTES, border));
    mu_bytes copy =
        mu_arena_dup(&x->chunk_arena, rest); /* the buffer may move while the unit waits */
    if (!copy.ptr) {
        return;
    }
    x->chunk = (struct mu_session_chunk){.unit = {.loop = x->run->d->opts.core},
                                         .id = x->run->id,
                                         .epoch = x->run->epoch,
                                         .pos = x->persisted,
                                         .bytes = copy,
                                         .discard = x->discard,
                                         .done = chunk_done,
                                         .ctx = x};
    if (mu_session_chunk(x->run->d->opts.sessions, &x->chunk) == 0) {
        x->chunk_busy = true;
        x->chunk_text = x->text_no;
        x->discard = false;
        mu_timer_init(&x->chunk_timer, x->run->d->opts.core, on_timer);
        (void)!mu_timer_set(&x->chunk_timer, CHUNK_MS);
    } else {
        mu_arena_fini(&x->chunk_arena);
    }
}

int mu_exec_delta(struct mu_exec *x, mu_bytes text)
{
    int64_t offset = x->out.total;
    int r = mu_clip_add(&x->out, text);
    if (r < 0) {
        x->no_memory = true;
        return r;
    }
    publish(x, MU_EV_DELTA, offset, text);
    persist(x);
    return 0;
}

void mu_exec_discard(struct mu_exec *x)
{
    if (x->out.total == 0) {
        return;
    }
    mu_clip_fini(&x->out);
    x->persisted = 0;
    x->text_no++;
    x->discard = true;
    publish(x, MU_EV_DELTA_RESET, 0, MU_B(""));
    persist(x);
}
