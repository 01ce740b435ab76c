#include "net/http_local.h"

#include <errno.h>

#include "net/http_int.h"

static void local_free(struct mu_http_req *req)
{
    mu_http1_free(req->parser);
    mu_buf_fini(&req->body);
    mu_arena_fini(&req->arena);
    mu_free(req);
}

void mu_http_local_answer(struct mu_http_req *req, int status, const struct mu_http_pair *headers,
                          size_t n, mu_bytes body)
{
    struct mu_http_local *l = req->local;
    l->done(l, status, headers, n, body);
    local_free(req);
}

void mu_http_local_drop(struct mu_http_req *req)
{
    if (req) {
        local_free(req);
    }
}

static int read_head(struct mu_http_req *req, mu_bytes head)
{
    while (head.len) {
        size_t used = 0;
        enum mu_http1_event e = mu_http1_feed(req->parser, head, &used);
        if (e == MU_HTTP1_HEAD) {
            req->has_head = true;
            return 0;
        }
        if (e != MU_HTTP1_MORE) {
            const char *why = NULL;
            int status = e == MU_HTTP1_ERROR ? mu_http1_status(req->parser, &why) : 400;
            return status == 503                    ? -ENOMEM
                   : status == 414 || status == 431 ? MU_E_TOO_LARGE
                                                    : MU_E_INVALID;
        }
        head = mu_bytes_from(head, used);
    }
    return MU_E_INVALID;
}

int mu_http_local_open(struct mu_http_local *l, mu_bytes head, mu_bytes body,
                       struct mu_http_req **ret)
{
    struct mu_http_req *req = mu_calloc(1, sizeof *req);
    if (!req) {
        return -ENOMEM;
    }
    const struct mu_env *env = mu_loop_env(l->loop);
    req->local = l;
    req->started_us = env->mono_ns(env) / 1000;
    mu_arena_init(&req->arena, MU_HTTP_ARENA);
    mu_buf_init(&req->body, MU_HTTP_ARENA);
    mu_buf_add(&req->body, body);
    int r = req->body.failed;
    if (r == 0) {
        r = mu_http1_new(&mu_http1_default_limits, &req->arena, &req->parser);
    }
    if (r == 0) {
        r = read_head(req, head);
    }
    if (r < 0) {
        local_free(req);
        return r;
    }
    *ret = req;
    return 0;
}
