#include "exec/engine/engine.h"

#include <errno.h>
#include <stdio.h>

#include "exec/engine/engine_int.h"

enum { OLDEST = 40, NEWEST = 47 }; /* 1.x */

int mu_engine_negotiate(mu_bytes api_version, char ret[MU_ENGINE_VERSION_LEN])
{
    mu_bytes rest = api_version, major = mu_bytes_split(&rest, '.');
    int64_t x, y;
    if (mu_bytes_i64(major, &x) < 0 || mu_bytes_i64(rest, &y) < 0 || x < 0 || y < 0) {
        return MU_E_INVALID;
    }
    if (x < 1 || (x == 1 && y < OLDEST)) {
        return MU_E_VERSION;
    }
    snprintf(ret, MU_ENGINE_VERSION_LEN, "1.%d", x > 1 ? NEWEST : (int)MU_MIN(y, (int64_t)NEWEST));
    return 0;
}

static int parse_tcp(struct mu_engine *e, mu_bytes rest)
{
    mu_bytes name = rest, port = MU_B_NONE;
    rest = mu_bytes_ends(rest, MU_B("/")) ? mu_bytes_head(rest, rest.len - 1) : rest;
    if (rest.len && rest.ptr[0] == '[') {
        ptrdiff_t end = mu_bytes_find(rest, MU_B("]:"));
        if (end < 0) {
            return MU_E_INVALID;
        }
        name = mu_bytes_of(rest.ptr + 1, (size_t)end - 1);
        port = mu_bytes_from(rest, (size_t)end + 2);
    } else {
        port = rest;
        name = mu_bytes_split(&port, ':');
    }
    int64_t n;
    if (name.len == 0 || name.len > 253 || mu_bytes_i64(port, &n) < 0 || n < 1 || n > 65535) {
        return MU_E_INVALID;
    }
    snprintf(e->port, sizeof e->port, "%d", (int)n);
    e->name = mu_bytes_dup(name);
    return e->name ? 0 : -ENOMEM;
}

static int parse(struct mu_engine *e, mu_bytes host)
{
    static const mu_bytes tcp[] = {{"tcp://", 6}, {"http://", 7}};
    for (size_t i = 0; i < MU_ARRAY_LEN(tcp); i++) {
        if (mu_bytes_starts(host, tcp[i])) {
            return parse_tcp(e, mu_bytes_from(host, tcp[i].len));
        }
    }
    if (mu_bytes_starts(host, MU_B("unix://"))) {
        host = mu_bytes_from(host, 7);
    }
    if (host.len == 0 || host.ptr[0] != '/' || host.len > 100) {
        return MU_E_INVALID;
    }
    e->path = mu_bytes_dup(host);
    return e->path ? 0 : -ENOMEM;
}

int mu_engine_new(struct mu_loop *loop, const char *host, struct mu_engine **ret,
                  struct mu_err *err)
{
    struct mu_engine *e = mu_calloc(1, sizeof *e);
    if (!e) {
        return mu_err_set(err, -ENOMEM, "out of memory");
    }
    e->loop = loop;
    e->host = mu_bytes_dup(mu_str(host));
    int r = e->host ? parse(e, mu_str(host)) : -ENOMEM;
    if (r < 0) {
        mu_engine_free(e);
        return mu_err_set(err, r,
                          r == -ENOMEM ? "out of memory"
                                       : "'%.200s' is no address of an engine: write unix:///path, "
                                         "or tcp://host:port (without TLS)",
                          host);
    }
    *ret = e;
    return 0;
}

struct mu_engine *mu_engine_free(struct mu_engine *e)
{
    if (e && e->calls) {
        e->gone = true;
    } else if (e) {
        mu_free(e->host);
        mu_free(e->path);
        mu_free(e->name);
        mu_free(e);
    }
    return NULL;
}

const char *mu_engine_host(const struct mu_engine *e)
{
    return e->host;
}

const char *mu_engine_version(const struct mu_engine *e)
{
    return e->version;
}

bool mu_engine_is_podman(const struct mu_engine *e)
{
    return e->podman;
}
