/* Small things that all parts of the docker driver need: calls, answers, removal. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "exec/sandbox/docker_int.h"

int mu_docker_ask_(struct mu_docker *d, const struct mu_engine_request *req,
                   struct mu_engine_call **ret, const char *fmt, ...)
{
    char path[4096];
    struct mu_engine_request r = *req;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(path, sizeof path, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof path) {
        return MU_E_TOO_LARGE;
    }
    r.path = path;
    return mu_engine_start(d->engine, &r, ret);
}

yyjson_val *mu_docker_json_(struct mu_arena *a, mu_bytes body)
{
    static const struct mu_json_limits limits = {.max_bytes = 4 << 20, .max_depth = 64};
    yyjson_val *v = NULL;
    return mu_json_read(a, body, &limits, &v, NULL) == 0 ? v : NULL;
}

int mu_docker_escape_(char *dst, size_t room, mu_bytes text)
{
    static const char free_ones[] = "-._~/:@";
    static const char hex[] = "0123456789ABCDEF";
    size_t len = 0;
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        unsigned char low = c | 0x20;
        if (len + 4 > room) {
            return MU_E_TOO_LARGE;
        }
        if ((c >= '0' && c <= '9') || (low >= 'a' && low <= 'z') ||
            (c && memchr(free_ones, c, sizeof free_ones - 1))) {
            dst[len++] = (char)c;
        } else {
            dst[len++] = '%';
            dst[len++] = hex[c >> 4];
            dst[len++] = hex[c & 15];
        }
    }
    dst[len] = 0;
    return 0;
}

/* --- removal: outlives the box --- */

enum { TRIES = 5 };

struct removal {
    struct mu_list link;
    struct mu_docker *d;
    char id[MU_DOCKER_NAME];
    unsigned tries;
    struct mu_engine_call *call;
    struct mu_timer timer;
    void (*done)(void *arg);
    void *arg;
};

static void remove_once(struct removal *r);

static void removal_free(struct removal *r)
{
    mu_timer_clear(&r->timer);
    mu_engine_cancel(r->call);
    mu_list_remove(&r->link);
    mu_free(r);
}

static void removal_over(struct removal *r)
{
    void (*done)(void *) = r->done;
    void *arg = r->arg;
    removal_free(r);
    if (done) {
        done(arg);
    }
}

static void removal_answer(void *arg, const struct mu_engine_result *res)
{
    struct removal *r = arg;
    r->call = NULL;
    bool again = res->result < 0 || res->status == 409 || res->status >= 500;
    /* What stays after that is found by the sweep of a later start. */
    if (!again || ++r->tries >= TRIES || mu_timer_set(&r->timer, 300L << r->tries) < 0) {
        removal_over(r);
    }
}

static void remove_once(struct removal *r)
{
    const struct mu_engine_request req = {
        .method = "DELETE", .done = removal_answer, .arg = r, .timeout_ms = 60000};
    if (!r->id[0]) {
        removal_over(r);
        return;
    }
    if (mu_docker_ask_(r->d, &req, &r->call, "/containers/%s?force=1&v=1", r->id) < 0) {
        removal_over(r);
    }
}

static void removal_due(struct mu_timer *t)
{
    remove_once(MU_CONTAINER(t, struct removal, timer));
}

int mu_docker_remove_(struct mu_docker *d, const char *id, void (*done)(void *arg), void *arg)
{
    struct removal *r = mu_calloc(1, sizeof *r);
    if (!r) {
        return -ENOMEM;
    }
    r->d = d;
    r->done = done;
    r->arg = arg;
    snprintf(r->id, sizeof r->id, "%s", id);
    mu_timer_init(&r->timer, d->loop, removal_due);
    int e = mu_timer_set(&r->timer, 0);
    if (e < 0) {
        mu_free(r);
        return e;
    }
    mu_list_push(&d->removals, &r->link);
    return 0;
}

void mu_docker_removals_fini_(struct mu_docker *d)
{
    MU_LIST_EACH(it, tmp, &d->removals)
    {
        removal_free(MU_CONTAINER(it, struct removal, link));
    }
}
