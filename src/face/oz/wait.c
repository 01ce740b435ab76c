/* GET /agent/runs/{runID}, with ?wait= as a long poll: answers when the run has ended or the time
 * is up (oz-api.md 17.24). */
#include <errno.h>

#include "face/oz/oz_int.h"

/* Lives on the heap: the call may wait long, and its watch is in the feed meanwhile. */
struct waiting {
    struct mu_call *c;
    struct mu_oz *oz;
    struct mu_session_get get;
    struct mu_watch watch;
    struct mu_timer timer;
    int64_t until_ms;
    bool ended, reading, again, gone;
};

static void read_run(struct waiting *w);

static int take_run(void *arg, const struct mu_session_view *v)
{
    struct waiting *w = arg;
    struct mu_buf *b = mu_call_buf(w->c);
    mu_buf_clear(b);
    struct mu_json_w jw = mu_json_w(b);
    mu_jw_obj(&jw);
    mu_oz_run(&jw, w->oz, v, true);
    mu_jw_kstr(&jw, "request_id", mu_call_request_id(w->c));
    mu_jw_obj_end(&jw);
    w->ended = v->outcome != MU_OUT_LIVE || v->state == 80;
    return b->failed;
}

static void finish(struct waiting *w, int result)
{
    struct mu_call *c = w->c;
    mu_feed_unwatch(mu_sessions_feed(w->oz->sessions), &w->watch);
    mu_timer_clear(&w->timer);
    mu_free(w);
    if (result < 0) {
        mu_call_fail(c, result);
    } else {
        mu_call_send(c, 200);
    }
}

static void run_read(struct mu_session_get *op, int result)
{
    struct waiting *w = op->ctx;
    w->reading = false;
    int64_t now = mu_env_mono_ms(w->oz->env);
    if (result < 0 || w->ended || w->gone || now >= w->until_ms) {
        finish(w, result);
        return;
    }
    if (w->again) { /* something happened while it was read */
        read_run(w);
        return;
    }
    if (!mu_timer_is_set(&w->timer) && mu_timer_set(&w->timer, w->until_ms - now) < 0) {
        finish(w, 0);
    }
}

static void read_run(struct waiting *w)
{
    w->again = false;
    w->reading = true;
    int r = mu_session_get(w->oz->sessions, &w->get);
    if (r < 0) {
        finish(w, r);
    }
}

static void on_event(struct mu_watch *watch, struct mu_event *e)
{
    struct waiting *w = MU_CONTAINER(watch, struct waiting, watch);
    if (e->seq == 0) {
        return; /* text that streams does not end a wait */
    }
    if (w->reading) {
        w->again = true;
    } else {
        read_run(w);
    }
}

static void on_time(struct mu_timer *t)
{
    struct waiting *w = MU_CONTAINER(t, struct waiting, timer);
    if (!w->reading) {
        read_run(w); /* with what is true now */
    }
}

static void on_gone(struct mu_call *c)
{
    struct waiting *w = mu_call_ctx(c);
    w->gone = true;
    if (!w->reading) {
        finish(w, 0);
    }
}

void mu_oz_get_run(struct mu_call *c)
{
    const struct mu_principal *p = mu_call_principal(c);
    struct mu_id id;
    if (!mu_oz_run_id(c, &id)) {
        return;
    }
    mu_bytes wait = mu_call_query(c, "wait", 0);
    int64_t seconds = 0;
    if (wait.ptr && (mu_bytes_i64(wait, &seconds) < 0 || seconds < 0 || seconds > 50)) {
        mu_call_error(c, 400, "invalid_field", "wait", "wait must be 0 to 50 seconds");
        return;
    }
    struct waiting *w = mu_calloc(1, sizeof *w);
    if (!w) {
        mu_call_fail(c, -ENOMEM);
        return;
    }
    w->c = c;
    w->oz = mu_oz(c);
    w->until_ms = mu_env_mono_ms(w->oz->env) + seconds * 1000;
    mu_timer_init(&w->timer, mu_call_loop(c), on_time);
    w->get = (struct mu_session_get){.read = {.loop = mu_call_loop(c)},
                                     .admin = p->admin,
                                     .org_id = mu_str(p->org_id),
                                     .id = id,
                                     .each = take_run,
                                     .arg = w,
                                     .done = run_read,
                                     .ctx = w};
    if (seconds > 0) {
        memcpy(w->watch.stream_id, id.text, sizeof id.text);
        w->watch.loop = mu_call_loop(c);
        w->watch.on_event = on_event;
        int r = mu_feed_watch(mu_sessions_feed(w->oz->sessions), &w->watch);
        if (r < 0) {
            mu_free(w);
            mu_call_fail(c, r);
            return;
        }
        mu_call_set_ctx(c, w);
        w->reading = true; /* on_gone may run at once: the read below is what ends the call then */
        mu_call_on_gone(c, on_gone);
    }
    read_run(w);
}
