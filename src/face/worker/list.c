/* GET /api/v1/workers: read where the fleet lives, answered where the request does. */
#include <errno.h>
#include <stdlib.h>

#include "face/worker/worker_int.h"

struct listing {
    struct mu_post post;
    struct mu_call *call;
    struct mu_worker_face *face;
    struct mu_loop *loop;
    struct mu_buf json; /* of the rows */
    struct mu_json_w w;
    int64_t now_ms, total, connected;
};

enum { MAX_ROWS = 10000 };

static int add_worker(void *arg, const struct mu_worker_view *v)
{
    struct listing *x = arg;
    struct mu_json_w *w = &x->w;
    x->connected += v->connected;
    if (++x->total > MAX_ROWS) {
        return 0;
    }
    mu_jw_obj(w);
    mu_jw_kstr(w, "id", v->name);
    mu_jw_key(w, "uid");
    mu_buf_printf(w->buf, "\"rnr_%.*s\"", MU_ARGS(v->id));
    w->comma = true;
    mu_jw_kcstr(w, "dialect", mu_dialect_name(v->dialect));
    mu_jw_kbool(w, "connected", v->connected);
    mu_jw_kbool(w, "draining", v->draining);
    mu_jw_kbool(w, "saturated", v->saturated);
    mu_jw_ktime_opt(w, "since", v->since_ms);
    mu_jw_ktime_opt(w, "last_seen", v->connected ? x->now_ms : v->seen_ms);
    mu_jw_ki64(w, "in_flight", v->in_flight);
    mu_jw_ki64(w, "capacity", v->capacity);
    mu_jw_ki64(w, "conflicts", v->conflicts);
    mu_jw_kstr(w, "version", v->version.ptr ? v->version : MU_B(""));
    mu_jw_kraw(w, "capabilities", v->caps.len ? v->caps : MU_B("{}"));
    mu_jw_obj_end(w);
    return w->buf->failed;
}

static void answer(struct mu_post *post)
{
    struct listing *x = MU_CONTAINER(post, struct listing, post);
    struct mu_call *c = x->call;
    struct mu_json_w w = mu_json_w(mu_call_buf(c));
    if (x->json.failed) {
        mu_buf_fini(&x->json);
        mu_call_fail(c, x->json.failed);
        return;
    }
    mu_jw_obj(&w);
    mu_jw_key(&w, "workers");
    mu_jw_arr(&w);
    mu_jw_raw(&w, x->json.len ? mu_buf_bytes(&x->json) : MU_B(""));
    mu_jw_arr_end(&w);
    mu_jw_ki64(&w, "total", x->total);
    mu_jw_ki64(&w, "connected", x->connected);
    mu_jw_kstr(&w, "request_id", mu_call_request_id(c));
    mu_jw_obj_end(&w);
    mu_buf_fini(&x->json);
    mu_call_send(c, 200);
}

static void collect(struct mu_post *post)
{
    struct listing *x = MU_CONTAINER(post, struct listing, post);
    x->now_ms = mu_env_wall_ms(x->face->opts.env);
    (void)mu_fleet_each(x->face->opts.fleet, add_worker, x);
    x->post.fn = answer;
    mu_loop_post(x->loop, &x->post);
}

void mu_worker_list(struct mu_call *c)
{
    struct listing *x = mu_call_new(c, sizeof *x);
    if (!x) {
        return;
    }
    x->call = c;
    x->face = mu_worker_face_at(c);
    x->loop = mu_call_loop(c);
    mu_buf_init(&x->json, 32 << 20);
    x->w = mu_json_w(&x->json);
    x->post.fn = collect;
    mu_loop_post(x->face->opts.core, &x->post);
}
