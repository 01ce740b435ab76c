/* RunnerInfo (village-control-plane.md 6.2), and how it is asked for. */
#include <errno.h>
#include <stdio.h>

#include "face/fleet/fleet_int.h"

enum { JSON_MAX = 16 << 20, ACTIVE_MAX = 256 };

void mu_fleet_fail(struct mu_call *c, int code)
{
    switch (code) {
    case MU_E_NOT_FOUND:
        mu_call_error(c, 404, "RUNNER_NOT_FOUND", NULL, "There is no such runner");
        return;
    case MU_E_LIMIT:
        mu_call_retry(c, 429, "RUNNER_LIMIT_EXCEEDED", 60000,
                      "The org has all runners it may have");
        return;
    case MU_E_SATURATED:
        mu_call_retry(c, 429, "RUNNER_LIMIT_EXCEEDED", 60000,
                      "This installation has all runners it may have");
        return;
    case MU_E_UNAUTHORIZED:
        mu_call_unauthorized(c, "The enrolment token is used up");
        return;
    default:
        mu_call_fail(c, code);
    }
}

bool mu_fleet_id(struct mu_call *c, struct mu_id *ret)
{
    if (mu_id_parse(mu_call_param(c, "runnerId"), "rnr_", ret) < 0) {
        mu_fleet_fail(c, MU_E_NOT_FOUND);
        return false;
    }
    mu_call_note(c, "runner_id", mu_id_bytes(ret));
    return true;
}

/* --- asking --- */

static void answer(struct mu_post *post)
{
    struct mu_fleet_ask *x = MU_CONTAINER(post, struct mu_fleet_ask, post);
    struct mu_buf json = x->json; /* the answer may end the call, and its memory */
    x->then(x);
    mu_buf_fini(&json);
}

static void look(struct mu_post *post)
{
    struct mu_fleet_ask *x = MU_CONTAINER(post, struct mu_fleet_ask, post);
    x->look(x);
    x->post.fn = answer;
    mu_loop_post(x->loop, &x->post);
}

struct mu_fleet_ask *mu_fleet_ask_new(struct mu_call *c)
{
    const struct mu_principal *p = mu_call_principal(c);
    struct mu_fleet_ask *x = mu_call_new(c, sizeof *x);
    if (x) {
        x->c = c;
        x->oz = mu_sess_oz(c);
        x->loop = mu_call_loop(c);
        x->admin = p->admin;
        x->org_id = mu_str(p->org_id);
        mu_buf_init(&x->json, JSON_MAX);
    }
    return x;
}

void mu_fleet_ask(struct mu_fleet_ask *x)
{
    x->post.fn = look;
    mu_loop_post(x->oz->core, &x->post);
}

/* --- the object --- */

static yyjson_val *caps_of(struct mu_arena *a, const struct mu_worker_view *v)
{
    static const struct mu_json_limits limits = {.max_bytes = 64 << 10, .max_depth = 40};
    yyjson_val *root = NULL;
    return v->caps.len && mu_json_read(a, v->caps, &limits, &root, NULL) == 0 ? root : NULL;
}

static void put_list(struct mu_json_w *w, const char *key, yyjson_val *list, bool harnesses)
{
    size_t i, n;
    yyjson_val *item;
    mu_jw_key(w, key);
    mu_jw_arr(w);
    yyjson_arr_foreach(list, i, n, item)
    {
        mu_bytes text = mu_json_bytes(item);
        if (text.len && text.len <= 200) {
            mu_jw_str(w, harnesses ? mu_sess_provider(text) : text);
        }
    }
    mu_jw_arr_end(w);
}

bool mu_fleet_offers(const struct mu_worker_view *v, const char *list, mu_bytes word)
{
    struct mu_arena a;
    size_t i, n;
    yyjson_val *item;
    bool found = false, harnesses = strcmp(list, "harnesses") == 0;
    mu_arena_init(&a, 1 << 20);
    yyjson_val *caps = caps_of(&a, v);
    yyjson_arr_foreach(mu_json_get(caps, list), i, n, item)
    {
        mu_bytes text = mu_json_bytes(item);
        found = found || mu_bytes_eq(harnesses ? mu_sess_provider(text) : text, word);
    }
    mu_arena_fini(&a);
    return found;
}

static void put_percent(struct mu_json_w *w, const char *key, int64_t n)
{
    if (n >= 0) {
        mu_jw_ki64(w, key, n);
    }
}

static void put_load(struct mu_json_w *w, const struct mu_worker_view *v)
{
    mu_jw_key(w, "load");
    mu_jw_obj(w);
    mu_jw_ki64(w, "activeSessions", v->in_flight - v->reserved);
    mu_jw_ki64(w, "reservedSessions", v->reserved);
    put_percent(w, "cpuPercent", v->cpu);
    put_percent(w, "memoryPercent", v->memory);
    put_percent(w, "diskPercent", v->disk);
    mu_jw_obj_end(w);
}

void mu_fleet_info(struct mu_json_w *w, const struct mu_worker_view *v)
{
    struct mu_arena a;
    mu_arena_init(&a, 1 << 20);
    yyjson_val *caps = caps_of(&a, v);
    struct mu_id *ids = mu_arena_calloc(&a, ACTIVE_MAX * sizeof *ids);
    size_t active = mu_fleet_sessions_of(v->worker, ids, ids ? ACTIVE_MAX : 0);
    mu_sess_prefixed(w, "runnerId", "rnr_", v->id);
    mu_jw_kstr(w, "hostname", v->host);
    if (v->org_id.len) {
        mu_jw_kstr(w, "orgId", v->org_id);
    }
    mu_jw_kcstr(w, "status", mu_worker_status_name(v->status));
    mu_jw_kbool(w, "connected", v->connected);
    if (v->seen_ms) {
        mu_jw_ktime(w, "lastHeartbeat", v->seen_ms);
    }
    mu_jw_ktime(w, "registeredAt", v->created_ms);
    if (v->drain_ms) {
        mu_jw_ktime(w, "drainRequestedAt", v->drain_ms);
    }
    mu_jw_kbool(w, "drained", v->drained);
    mu_jw_key(w, "capabilities");
    mu_jw_obj(w);
    put_list(w, "providers", mu_json_get(caps, "harnesses"), true);
    mu_jw_ki64(w, "maxConcurrentSessions", v->capacity);
    put_list(w, "features", mu_json_get(caps, "features"), false);
    put_list(w, "labels", mu_json_get(caps, "labels"), false);
    mu_jw_obj_end(w);
    put_load(w, v);
    mu_jw_key(w, "activeSessionIds");
    mu_jw_arr(w);
    for (size_t i = 0; ids && i < MU_MIN(active, (size_t)ACTIVE_MAX); i++) {
        char text[8 + MU_ID_LEN];
        snprintf(text, sizeof text, "ses_%s", ids[i].text);
        mu_jw_str(w, mu_str(text));
    }
    mu_jw_arr_end(w);
    mu_jw_kraw(w, "runtimeVersions", v->runtimes.len ? v->runtimes : MU_B("{}"));
    mu_jw_kraw(w, "metadata", v->meta.len ? v->meta : MU_B("{}"));
    mu_jw_kstr(w, "version", v->version.ptr ? v->version : MU_B(""));
    mu_bytes build = mu_json_get_bytes(caps, "build_id");
    if (build.len) {
        mu_jw_kstr(w, "buildId", build);
    }
    mu_arena_fini(&a);
}

/* --- one as the answer --- */

struct one {
    int status;
    bool registered; /* just now: whoever did that sees it, whatever org it is of */
    void (*add)(struct mu_json_w *w, void *ctx);
    void *ctx;
};

static void look_one(struct mu_fleet_ask *x)
{
    struct mu_worker_view v;
    const struct one *o = x->ctx;
    x->found = mu_fleet_get(x->oz->fleet, &x->id, x->admin || o->registered, x->org_id, &v);
    if (x->found) {
        struct mu_json_w w = mu_json_w(&x->json);
        mu_jw_obj(&w);
        mu_fleet_info(&w, &v);
        if (o->add) {
            o->add(&w, o->ctx);
        }
        mu_jw_obj_end(&w);
    }
}

static void one_there(struct mu_fleet_ask *x)
{
    const struct one *o = x->ctx;
    if (!x->found || x->json.failed) {
        mu_fleet_fail(x->c, x->found ? x->json.failed : MU_E_NOT_FOUND);
        return;
    }
    struct mu_json_w w = mu_call_data(x->c);
    mu_jw_raw(&w, mu_buf_bytes(&x->json));
    mu_call_data_send(x->c, o->status, NULL, 0);
}

void mu_fleet_answer_info(struct mu_call *c, const struct mu_id *id, int status, bool registered,
                          void (*add)(struct mu_json_w *w, void *ctx), void *ctx)
{
    struct mu_fleet_ask *x = mu_fleet_ask_new(c);
    struct one *o = x ? mu_call_new(c, sizeof *o) : NULL;
    if (!o) {
        return;
    }
    *o = (struct one){.status = status, .registered = registered, .add = add, .ctx = ctx};
    x->id = *id;
    x->ctx = o;
    x->look = look_one;
    x->then = one_there;
    mu_fleet_ask(x);
}
