/* The container's log, followed while it runs. The engine has no offsets: a new stream begins at
 * the start, and what was delivered already is passed over. */
#include <stdio.h>

#include "exec/sandbox/docker_int.h"

enum { GRACE_MS = 250, AGAIN_MS = 1000 };

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
    b->log_clean = false;
    mu_demux_init(&b->demux, on_piece, b);
    if (mu_docker_ask_(b->d, &req, &b->logs, "/containers/%s/logs?stdout=1&stderr=1%s", b->id,
                       follow ? "&follow=1" : "") < 0) {
        retry(b, MU_DOCKER_RETRY_MAX_MS);
    }
}

void mu_docker_follow_(struct mu_docker_box *b)
{
    if (!b->logs && !b->log_done && !mu_timer_is_set(&b->log_again)) {
        open_log(b, true);
    }
}

void mu_docker_log_rest_(struct mu_docker_box *b)
{
    mu_timer_clear(&b->log_again);
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
    } else if (b->phase == MU_DOCKER_RUN) {
        mu_docker_follow_(b);
    }
}

void mu_docker_log_init_(struct mu_docker_box *b)
{
    b->log_done = b->log_max == 0;
    mu_timer_init(&b->log_again, b->d->loop, on_again);
}
