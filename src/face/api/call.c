/* What a handler sees of its request. */
#include "face/api/api_int.h"

void *mu_call_app(const struct mu_call *c)
{
    return c->api->app;
}

struct mu_api *mu_call_api(const struct mu_call *c)
{
    return c->api;
}

const struct mu_meta *mu_call_meta(const struct mu_call *c)
{
    return c->api->meta_of ? c->api->meta_of(c->api->app) : NULL;
}

struct mu_arena *mu_call_arena(struct mu_call *c)
{
    return mu_http_req_arena(c->req);
}

struct mu_loop *mu_call_loop(struct mu_call *c)
{
    return mu_http_req_loop(c->req);
}

struct mu_http_req *mu_call_http(struct mu_call *c)
{
    return c->req;
}

const struct mu_principal *mu_call_principal(const struct mu_call *c)
{
    return c->authenticated ? &c->principal : NULL;
}

const struct mu_credential *mu_call_credential(const struct mu_call *c)
{
    return c->authenticated ? &c->credential : NULL;
}

mu_bytes mu_call_request_id(const struct mu_call *c)
{
    return c->request_id;
}

mu_bytes mu_call_trace_id(const struct mu_call *c)
{
    return c->trace_id;
}

mu_bytes mu_call_param(const struct mu_call *c, const char *name)
{
    int i = c->route ? mu_route_param(c->route, name) : -1;
    MU_CHECK(i >= 0);
    return c->params[i];
}

mu_bytes mu_call_query(const struct mu_call *c, const char *key, unsigned index)
{
    for (size_t i = 0; i < c->n_query; i++) {
        if (mu_bytes_is(mu_str(c->query[i].schema->name), key) && index-- == 0) {
            return c->query[i].value;
        }
    }
    return MU_B_NONE;
}

yyjson_val *mu_call_body(const struct mu_call *c)
{
    return c->body;
}

mu_bytes mu_call_raw_body(const struct mu_call *c)
{
    return mu_http_req_body(c->req);
}

mu_bytes mu_call_header(const struct mu_call *c, const char *name)
{
    return mu_http_header(mu_http_req_head(c->req), name);
}

mu_bytes mu_call_bearer(const struct mu_call *c)
{
    mu_bytes v = mu_bytes_trim(mu_call_header(c, "Authorization"));
    if (v.len < 8 || !mu_bytes_eq_nocase(mu_bytes_head(v, 6), MU_B("bearer")) || v.ptr[6] != ' ') {
        return MU_B_NONE;
    }
    return mu_bytes_trim(mu_bytes_from(v, 7));
}

void mu_call_note(struct mu_call *c, const char *key, mu_bytes value)
{
    mu_bytes copy = mu_arena_dup(mu_call_arena(c), value);
    if (c->n_notes < MU_NOTES_MAX && copy.ptr) {
        c->notes[c->n_notes++] = MU_KS(key, copy);
    }
}

static void gone(struct mu_http_req *req)
{
    struct mu_call *c = mu_http_req_ctx(req);
    if (c->on_gone) {
        c->on_gone(c);
    }
}

void mu_call_on_gone(struct mu_call *c, void (*fn)(struct mu_call *c))
{
    c->on_gone = fn;
    mu_http_req_on_gone(c->req, gone);
}

void mu_call_set_ctx(struct mu_call *c, void *ctx)
{
    c->ctx = ctx;
}

void *mu_call_ctx(const struct mu_call *c)
{
    return c->ctx;
}
