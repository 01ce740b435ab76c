#include <errno.h>

#include "face/api/api_int.h"

static const char *const method_names[] = {
    [MU_HTTP_GET] = "GET",         [MU_HTTP_HEAD] = "HEAD",   [MU_HTTP_POST] = "POST",
    [MU_HTTP_PUT] = "PUT",         [MU_HTTP_PATCH] = "PATCH", [MU_HTTP_DELETE] = "DELETE",
    [MU_HTTP_OPTIONS] = "OPTIONS",
};

void mu_router_init(struct mu_router *r)
{
    *r = (struct mu_router){0};
    mu_arena_init(&r->arena, 1 << 20);
}

void mu_router_fini(struct mu_router *r)
{
    mu_arena_fini(&r->arena);
    r->root = (struct mu_node){0};
}

static bool is_param(mu_bytes segment)
{
    return segment.len > 2 && segment.ptr[0] == '{' && segment.ptr[segment.len - 1] == '}';
}

/* The node below `n` for one segment of a pattern, made when it is new. */
static struct mu_node *step(struct mu_router *r, struct mu_node *n, mu_bytes segment)
{
    if (is_param(segment)) {
        if (!n->param) {
            n->param = mu_arena_calloc(&r->arena, sizeof *n->param);
        }
        return n->param;
    }
    for (struct mu_node *c = n->child; c; c = c->next) {
        if (mu_bytes_eq(c->segment, segment)) {
            return c;
        }
    }
    struct mu_node *c = mu_arena_calloc(&r->arena, sizeof *c);
    if (c) {
        c->segment = segment;
        c->next = n->child;
        n->child = c;
    }
    return c;
}

int mu_router_add(struct mu_router *r, const struct mu_route *route, struct mu_err *err)
{
    mu_bytes rest = mu_str(route->path);
    if (rest.len == 0 || rest.ptr[0] != '/' || !route->handler) {
        return mu_err_set(err, MU_E_INVALID, "route %s: no path or no handler", route->path);
    }
    rest = mu_bytes_from(rest, 1);
    struct mu_node *n = &r->root;
    unsigned params = 0;
    while (rest.ptr && !(n == &r->root && rest.len == 0)) {
        mu_bytes segment = mu_bytes_split(&rest, '/');
        params += is_param(segment);
        if (segment.len == 0 || params > MU_PARAMS_MAX) {
            return mu_err_set(err, MU_E_INVALID, "route %s: empty segment or too many parameters",
                              route->path);
        }
        n = step(r, n, segment);
        if (!n) {
            return mu_err_set(err, -ENOMEM, "out of memory");
        }
    }
    const struct mu_route **place =
        route->flags & MU_ROUTE_ANY_METHOD ? &n->any : &n->by_method[route->method];
    if (*place) {
        return mu_err_set(err, MU_E_INVALID, "route %s: given twice", route->path);
    }
    *place = route;
    if (!n->first) {
        n->first = route;
    }
    return 0;
}

static const struct mu_node *walk(const struct mu_node *n, mu_bytes rest, mu_bytes *params,
                                  unsigned depth)
{
    if (!rest.ptr) {
        return n->first ? n : NULL;
    }
    mu_bytes segment = mu_bytes_split(&rest, '/');
    for (const struct mu_node *c = n->child; c; c = c->next) {
        if (mu_bytes_eq(c->segment, segment)) {
            const struct mu_node *found = walk(c, rest, params, depth);
            if (found) {
                return found;
            }
            break;
        }
    }
    if (!n->param || segment.len == 0 || depth >= MU_PARAMS_MAX) {
        return NULL;
    }
    params[depth] = segment;
    return walk(n->param, rest, params, depth + 1);
}

const struct mu_node *mu_router_find(const struct mu_router *r, mu_bytes path,
                                     mu_bytes params[MU_PARAMS_MAX])
{
    if (path.len == 0 || path.ptr[0] != '/') {
        return NULL;
    }
    mu_bytes rest = mu_bytes_from(path, 1);
    if (rest.len == 0) {
        return r->root.first ? &r->root : NULL;
    }
    if (rest.ptr[rest.len - 1] == '/') {
        rest.len--;
    }
    return walk(&r->root, rest, params, 0);
}

const struct mu_route *mu_node_route(const struct mu_node *n, enum mu_http_method method)
{
    const struct mu_route *r = n->by_method[method];
    if (!r && method == MU_HTTP_HEAD) {
        r = n->by_method[MU_HTTP_GET];
    }
    return r ? r : n->any;
}

void mu_node_allow(const struct mu_node *n, bool options, struct mu_buf *dst)
{
    const char *comma = "";
    for (size_t i = 0; i < MU_ARRAY_LEN(method_names); i++) {
        bool has = n->any || n->by_method[i] || (i == MU_HTTP_HEAD && n->by_method[MU_HTTP_GET]) ||
                   (i == MU_HTTP_OPTIONS && options);
        if (has) {
            mu_buf_add_str(dst, comma);
            mu_buf_add_str(dst, method_names[i]);
            comma = ", ";
        }
    }
}

int mu_route_param(const struct mu_route *r, const char *name)
{
    mu_bytes rest = mu_bytes_from(mu_str(r->path), 1);
    int index = 0;
    while (rest.ptr) {
        mu_bytes segment = mu_bytes_split(&rest, '/');
        if (!is_param(segment)) {
            continue;
        }
        if (mu_bytes_is(mu_bytes_of(segment.ptr + 1, segment.len - 2), name)) {
            return index;
        }
        index++;
    }
    return -1;
}

static int each(const struct mu_node *n, int (*fn)(void *arg, const struct mu_node *n), void *arg)
{
    int r = n->first ? fn(arg, n) : 0;
    for (const struct mu_node *c = n->child; c && r == 0; c = c->next) {
        r = each(c, fn, arg);
    }
    if (n->param && r == 0) {
        r = each(n->param, fn, arg);
    }
    return r;
}

int mu_router_each(const struct mu_router *r, int (*fn)(void *arg, const struct mu_node *n),
                   void *arg)
{
    return each(&r->root, fn, arg);
}
