#include "app/dispatch/request.h"

#include <errno.h>

#include "app/fleet/needs.h"
#include "app/providers/providers.h"
#include "proto/json.h"

static bool truthy(yyjson_val *v)
{
    return v && yyjson_is_true(v);
}

/* Exactly one of command, url, warp_id (oz-api.md 15.2). */
static bool mcp_well_formed(yyjson_val *servers)
{
    size_t i, n;
    yyjson_val *name, *server;
    yyjson_obj_foreach(servers, i, n, name, server)
    {
        int ways = !!mu_json_get_bytes(server, "command").len +
                   !!mu_json_get_bytes(server, "url").len +
                   !!mu_json_get_bytes(server, "warp_id").len;
        if (ways != 1) {
            return false;
        }
    }
    return true;
}

const char *mu_run_request_refuse(const struct mu_run_request *rq, const char **ret_field)
{
    yyjson_val *c = rq->config;
    bool worker = rq->environment_id.len > 0;
    mu_bytes host = mu_bytes_trim(mu_json_get_bytes(c, "worker_host"));
    yyjson_val *mcp = mu_json_get(c, "mcp_servers");
    if (!worker && (rq->skill.len || mu_json_get_bytes(c, "skill_spec").len)) {
        *ret_field = rq->skill.len ? "skill" : "config.skill_spec";
        return "skills need an environment (config.environment_id): a run without one is answered "
               "by a model provider";
    }
    if (!worker && mcp && yyjson_is_obj(mcp) && yyjson_obj_size(mcp) > 0) {
        *ret_field = "config.mcp_servers";
        return "MCP servers need an environment (config.environment_id)";
    }
    if (mcp && yyjson_is_obj(mcp) && !mcp_well_formed(mcp)) {
        *ret_field = "config.mcp_servers";
        return "each server has exactly one of command, url and warp_id";
    }
    if (!worker && truthy(mu_json_get(c, "computer_use_enabled"))) {
        *ret_field = "config.computer_use_enabled";
        return "computer use needs an environment (config.environment_id)";
    }
    if (!worker && mu_json_get_bytes(c, "harness").len) {
        *ret_field = "config.harness";
        return "a harness needs an environment (config.environment_id); without one "
               "config.model_id chooses the provider";
    }
    if (worker && host.len && !mu_worker_name_ok(host)) {
        *ret_field = "config.worker_host";
        return "a worker's id is 1 to 200 bytes without control characters";
    }
    if (!worker && host.len && !mu_bytes_is(host, "warp")) {
        *ret_field = "config.worker_host";
        return "a worker host needs an environment (config.environment_id)";
    }
    if (worker && rq->n_images) {
        *ret_field = "images";
        return "images are not passed to workers by this version; leave config.environment_id out "
               "or send none";
    }
    if (worker && rq->conversation_id.ptr) {
        *ret_field = "conversation_id";
        return "conversations are not continued on workers by this version";
    }
    return NULL;
}

static int build_spec(const struct mu_run_request *rq, struct mu_arena *a, mu_bytes *ret)
{
    struct mu_buf b;
    mu_buf_init(&b, 2 << 20);
    struct mu_json_w w = mu_json_w(&b);
    mu_jw_obj(&w);
    if (rq->config) {
        mu_jw_key(&w, "agent_config");
        struct mu_buf config;
        mu_buf_init(&config, 2 << 20);
        mu_json_add(&config, rq->config);
        mu_jw_raw(&w, mu_buf_bytes(&config));
        b.failed = b.failed ? b.failed : config.failed;
        mu_buf_fini(&config);
    }
    if (rq->conversation_id.ptr) {
        mu_jw_kbool(&w, "continues", true);
    }
    if (rq->n_images) {
        mu_jw_ki64(&w, "images", (int64_t)rq->n_images);
    }
    if (rq->schedule_json) {
        mu_jw_kraw(&w, "schedule", mu_str(rq->schedule_json));
    }
    mu_jw_obj_end(&w);
    *ret = b.failed ? MU_B_NONE : mu_arena_dup(a, mu_buf_bytes(&b));
    int r = b.failed;
    mu_buf_fini(&b);
    return r < 0 ? r : ret->ptr ? 0 : -ENOMEM;
}

int mu_run_request_fill(const struct mu_run_request *rq,
                        const struct mu_providers_settings *settings, struct mu_arena *a,
                        struct mu_session_create *op)
{
    mu_bytes model = mu_json_get_bytes(rq->config, "model_id");
    mu_bytes name = mu_json_get_bytes(rq->config, "name");
    mu_bytes skill = rq->skill.len ? rq->skill : mu_json_get_bytes(rq->config, "skill_spec");
    mu_bytes title = mu_bytes_trim(rq->title).len ? rq->title : name;
    op->route = rq->environment_id.len ? MU_ROUTE_WORKER : MU_ROUTE_PROVIDER;
    op->source = rq->source;
    mu_bytes harness = mu_json_get_bytes(rq->config, "harness");
    op->harness = harness.len ? harness : mu_str(mu_providers_harness(settings, model));
    op->model = model.ptr ? model : MU_B("");
    op->name = name.ptr ? name : MU_B("");
    op->title = mu_bytes_trim(title).len    ? title
                : name.len || rq->title.len ? MU_B("Run")
                                            : MU_B("API run");
    op->skill = skill.ptr ? skill : MU_B("");
    op->prompt = rq->prompt;
    op->environment_id = rq->environment_id;
    op->conversation_id = rq->conversation_id;
    op->env_snapshot = rq->env_snapshot;
    mu_bytes host = mu_bytes_trim(mu_json_get_bytes(rq->config, "worker_host"));
    op->pin_worker_id = host.len && !mu_bytes_is(host, "warp") ? host : MU_B_NONE;
    op->needs = 0;
    int r =
        op->route == MU_ROUTE_WORKER ? mu_needs_of(op->harness, rq->env_snapshot, &op->needs) : 0;
    return r < 0 ? r : build_spec(rq, a, &op->spec);
}
