/* The request object. */
#include <errno.h>

#include "net/http_int.h"

static struct mu_http_req *take_spare(struct mu_http_seat *seat)
{
    struct mu_list *l = mu_list_pop(&seat->spare);
    if (!l) {
        return NULL;
    }
    seat->n_spare--;
    struct mu_http_req *req = MU_CONTAINER(l, struct mu_http_req, link);
    struct mu_http1 *parser = req->parser;
    memset(req, 0, sizeof *req);
    req->parser = parser;
    mu_arena_init(&req->arena, MU_HTTP_ARENA);
    mu_http1_reset(parser, &req->arena);
    return req;
}

static struct mu_http_req *make(struct mu_http_seat *seat)
{
    struct mu_http_req *req = mu_calloc(1, sizeof *req);
    if (!req) {
        return NULL;
    }
    mu_arena_init(&req->arena, MU_HTTP_ARENA);
    if (mu_http1_new(&seat->server->limits.head, &req->arena, &req->parser) < 0) {
        mu_free(req);
        return NULL;
    }
    return req;
}

struct mu_http_req *mu_http_req_new(struct mu_http_conn *c)
{
    struct mu_http_req *req = take_spare(c->seat);
    if (!req) {
        req = make(c->seat);
    }
    if (!req) {
        return NULL;
    }
    req->seat = c->seat;
    req->conn = c;
    req->listener = c->listener;
    const struct mu_env *env = mu_loop_env(c->seat->loop);
    req->started_us = env->mono_ns(env) / 1000;
    memcpy(req->peer, c->peer, sizeof req->peer);
    mu_list_push(&c->seat->reqs, &req->link);
    return req;
}

void mu_http_req_destroy(struct mu_http_req *req)
{
    mu_list_remove(&req->link);
    mu_http1_free(req->parser);
    mu_buf_fini(&req->body);
    mu_arena_fini(&req->arena);
    mu_free(req);
}

void mu_http_req_free(struct mu_http_req *req)
{
    struct mu_http_seat *seat = req->seat;
    if (seat->n_spare >= MU_HTTP_SPARE) {
        mu_http_req_destroy(req);
        return;
    }
    mu_list_remove(&req->link);
    mu_buf_fini(&req->body);
    mu_arena_fini(&req->arena);
    mu_list_push_front(&seat->spare, &req->link);
    seat->n_spare++;
}

void mu_http_req_gone(struct mu_http_req *req)
{
    if (req->gone && !req->gone_told && !req->answered) {
        req->gone_told = true;
        req->gone(req);
    }
}

const struct mu_http_head *mu_http_req_head(const struct mu_http_req *req)
{
    return req->has_head ? mu_http1_head(req->parser) : NULL;
}

mu_bytes mu_http_req_target(const struct mu_http_req *req)
{
    return req->parser ? mu_http1_head(req->parser)->target : MU_B_NONE;
}

mu_bytes mu_http_req_body(const struct mu_http_req *req)
{
    return mu_buf_bytes(&req->body);
}

struct mu_arena *mu_http_req_arena(struct mu_http_req *req)
{
    return &req->arena;
}

struct mu_loop *mu_http_req_loop(struct mu_http_req *req)
{
    return req->local ? req->local->loop : req->seat->loop;
}

mu_bytes mu_http_req_peer(const struct mu_http_req *req)
{
    return mu_str(req->peer);
}

void *mu_http_listener_arg(const struct mu_http_req *req)
{
    return req->listener ? req->listener->arg : NULL;
}

void mu_http_req_set_ctx(struct mu_http_req *req, void *ctx)
{
    req->ctx = ctx;
}

void *mu_http_req_ctx(const struct mu_http_req *req)
{
    return req->ctx;
}

int64_t mu_http_req_started_us(const struct mu_http_req *req)
{
    return req->started_us;
}

void mu_http_req_on_gone(struct mu_http_req *req, void (*fn)(struct mu_http_req *req))
{
    req->gone = fn;
    if (req->local) { /* who asked is this process: it does not go away */
        return;
    }
    if (!req->conn || req->conn->eof || req->conn->cut) {
        mu_http_req_gone(req);
    }
}
