/* The request parser: feeding byte by byte gives the same events as feeding at once. */
#include <stdio.h>
#include <stdlib.h>

#include "proto/http1.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct run {
    struct mu_http1 *p;
    struct mu_arena arena;
    struct mu_buf log;
    bool in_body;
};

static void note_head(struct run *r)
{
    const struct mu_http_head *h = mu_http1_head(r->p);
    MU_CHECK(h->content_length < 0 || !h->chunked);
    MU_CHECK(h->http10 || h->host.len > 0);
    MU_CHECK(h->n_headers <= mu_http1_default_limits.max_headers);
    mu_buf_printf(&r->log, "H %.*s %.*s %.*s %.*s %lld %d%d%d%d%d\n", MU_ARGS(h->method_name),
                  MU_ARGS(h->path), MU_ARGS(h->query), MU_ARGS(h->host),
                  (long long)h->content_length, h->chunked, h->keep_alive, h->upgrade,
                  h->expect_continue, h->http10);
    for (size_t i = 0; i < h->n_headers; i++) {
        mu_buf_printf(&r->log, "%.*s: %.*s\n", MU_ARGS(h->headers[i].name),
                      MU_ARGS(h->headers[i].value));
    }
}

/* Returns false when the conversation is over. */
static bool event(struct run *r, enum mu_http1_event ev)
{
    const char *text;
    if (ev == MU_HTTP1_BODY) {
        MU_CHECK(mu_http1_body(r->p).len > 0);
        mu_buf_add(&r->log, mu_http1_body(r->p));
        return true;
    }
    switch (ev) {
    case MU_HTTP1_HEAD:
        note_head(r);
        return true;
    case MU_HTTP1_DONE:
        mu_buf_add_str(&r->log, "\nD\n");
        mu_arena_fini(&r->arena);
        mu_http1_reset(r->p, &r->arena);
        return true;
    case MU_HTTP1_ERROR:
        mu_buf_printf(&r->log, "\nE %d", mu_http1_status(r->p, &text));
        mu_buf_printf(&r->log, " %s\n", text);
        return false;
    default:
        return true;
    }
}

/* Also when nothing is left: a head may be followed by the end of the message. */
static bool feed(struct run *r, mu_bytes in)
{
    enum mu_http1_event ev;
    do {
        size_t used = 0;
        ev = mu_http1_feed(r->p, in, &used);
        MU_CHECK(used <= in.len);
        in = mu_bytes_from(in, used);
        if (!event(r, ev)) {
            return false;
        }
    } while (ev != MU_HTTP1_MORE);
    MU_CHECK(in.len == 0);
    return true;
}

static void run_init(struct run *r)
{
    *r = (struct run){0};
    mu_arena_init(&r->arena, 1 << 22);
    mu_buf_init(&r->log, 1 << 22);
    MU_CHECK(mu_http1_new(&mu_http1_default_limits, &r->arena, &r->p) == 0);
}

static void run_fini(struct run *r)
{
    mu_http1_free(r->p);
    mu_arena_fini(&r->arena);
    mu_buf_fini(&r->log);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct run whole, single;
    run_init(&whole);
    run_init(&single);
    feed(&whole, mu_bytes_of((const char *)data, size));
    for (size_t i = 0; i < size && feed(&single, mu_bytes_of((const char *)data + i, 1)); i++) {
    }
    MU_CHECK(mu_bytes_eq(mu_buf_bytes(&whole.log), mu_buf_bytes(&single.log)));
    run_fini(&whole);
    run_fini(&single);
    return 0;
}
