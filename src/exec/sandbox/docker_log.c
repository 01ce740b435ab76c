/* The container's log, followed while it runs. The engine has no offsets: a new stream begins at
 * the start, and what was delivered already is passed over. */
#include <stdio.h>

#include "exec/sandbox/docker_int.h"

enum { GRACE_MS = 250, AGAIN_MS = 1000, FETCH_MS = 300, IDLE_MS = 10000 };

static void on_piece(void *arg, unsigned stream, mu_bytes piece)
{
    struct mu_docker_box *b = arg;
    int64_t skip = MU_MIN(b->log_skip, (int64_t)piece.len);
    (void)stream;
    b->log_skip -= skip;
    piece = mu_bytes_from(piece, (size_t)skip);
    piece = mu_bytes_head(piece, (size_t)MU_MAX(b->log_max - b->log_at, 0));
    if (piece.len && !b->gone && b->phase < MU_DOCKER_ENDING) {
        int64_t at = b->log_at;
        b->log_at += (int64_t)piece.len;
        if (b->ev.log) {
            b->ev.log(b->arg, at, piece);
        }
    }
    b->log_done = b->log_at >= b->log_max;
}

static int on_body(void *arg, mu_bytes piece)
{
    struct mu_docker_box *b = arg;
    int r = mu_demux_feed(&b->demux, piece);
    b->log_retry_ms = 0;
    return r < 0 ? r : b->log_done ? MU_E_LIMIT : 0;
}

static void retry(struct mu_docker_box *b, int64_t ms)
{
    if (mu_timer_set(&b->log_again, ms) < 0) {
        b->log_done = true;
        if (b->phase == MU_DOCKER_COLLECT) {
            mu_docker_logged_(b);
        }
    }
}

/* The more there is, the longer a fetch takes. */
static int64_t fetch_ms(const struct mu_docker_box *b)
{
    return FETCH_MS + b->log_at / 4096;
}

static void on_done(void *arg, const struct mu_engine_result *res)
{
    struct mu_docker_box *b = arg;
    bool clean = res->result == 0 && res->status == 200;
    b->logs = NULL;
    b->log_clean = clean && mu_demux_at_border(&b->demux);
    /* A log driver without a log answers 4xx or 5xx: its output is in its file all the same. */
    b->log_done |= res->result == MU_E_PROTOCOL || res->status == 404 || res->status == 501;
    if (b->phase == MU_DOCKER_COLLECT) {
        if (b->log_done || b->log_clean) {
            mu_docker_logged_(b);
        } else {
            retry(b, GRACE_MS);
        }
    } else if (!b->log_done && clean && mu_engine_is_podman(b->d->engine)) {
        retry(b, b->log_dirty ? fetch_ms(b) : IDLE_MS);
    } else if (!b->log_done) {
        b->log_retry_ms = MU_MIN(b->log_retry_ms ? 2 * b->log_retry_ms : MU_DOCKER_RETRY_MS,
                                 MU_DOCKER_RETRY_MAX_MS);
        retry(b, clean ? AGAIN_MS : b->log_retry_ms);
    }
}

static void open_log(struct mu_docker_box *b, bool follow)
{
    const struct mu_engine_request req = {.method = "GET",
                                          .on_body = on_body,
                                          .done = on_done,
                                          .arg = b,
                                          .timeout_ms = follow ? -1 : 0};
    b->log_skip = b->log_at;
    b->log_clean = b->log_dirty = false;
    mu_demux_init(&b->demux, on_piece, b);
    if (mu_docker_ask_(b->d, &req, &b->logs, "/containers/%s/logs?stdout=1&stderr=1%s", b->id,
                       follow ? "&follow=1" : "") < 0) {
        retry(b, MU_DOCKER_RETRY_MAX_MS);
    }
}

static int on_hint(void *arg, mu_bytes piece)
{
    struct mu_docker_box *b = arg;
    (void)piece;
    if (!b->log_dirty && !b->logs) {
        retry(b, fetch_ms(b));
    }
    b->log_dirty = true;
    return 0;
}

static void on_hint_done(void *arg, const struct mu_engine_result *res)
{
    struct mu_docker_box *b = arg;
    (void)res;
    b->hint = NULL; /* opened again with the next fetch */
}

static void open_hint(struct mu_docker_box *b)
{
    const struct mu_engine_request req = {
        .method = "GET", .on_body = on_hint, .done = on_hint_done, .arg = b, .timeout_ms = -1};
    if (!b->hint && mu_docker_ask_(b->d, &req, &b->hint,
                                   "/containers/%s/logs?stdout=1&stderr=1&follow=1", b->id) < 0) {
        b->hint = NULL; /* then it is fetched at long intervals only */
    }
}

void mu_docker_follow_(struct mu_docker_box *b)
{
    if (b->logs || b->log_done || mu_timer_is_set(&b->log_again)) {
        return;
    }
    if (mu_engine_is_podman(b->d->engine)) {
        open_hint(b);
        retry(b, fetch_ms(b));
    } else {
        open_log(b, true);
    }
}

void mu_docker_log_rest_(struct mu_docker_box *b)
{
    mu_timer_clear(&b->log_again);
    if (mu_engine_is_podman(b->d->engine)) { /* what a fetch has seen was before the end */
        b->hint = mu_engine_cancel(b->hint);
        b->logs = mu_engine_cancel(b->logs);
        b->log_clean = false;
    }
    if (b->log_done || (!b->logs && b->log_clean)) {
        mu_docker_logged_(b);
    } else if (b->logs) { /* it is about to end by itself */
        retry(b, GRACE_MS);
    } else {
        open_log(b, false);
    }
}

static void on_again(struct mu_timer *t)
{
    struct mu_docker_box *b = MU_CONTAINER(t, struct mu_docker_box, log_again);
    if (b->phase == MU_DOCKER_COLLECT) {
        b->logs = mu_engine_cancel(b->logs);
        open_log(b, false);
    } else if (b->phase == MU_DOCKER_RUN && !b->logs && mu_engine_is_podman(b->d->engine)) {
        open_log(b, false);
        if (!b->hint) {
            open_hint(b);
        }
    } else if (b->phase == MU_DOCKER_RUN) {
        mu_docker_follow_(b);
    }
}

void mu_docker_log_init_(struct mu_docker_box *b)
{
    b->log_done = b->log_max == 0;
    mu_timer_init(&b->log_again, b->d->loop, on_again);
}
