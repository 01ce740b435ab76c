/* Orders as frames (oz-worker.md 3.1-3.4, 8.4, 16). Whatever one of the dialects does not know it
 * ignores, but for types: those are exact. */
#include <errno.h>
#include <stdio.h>

#include "app/environments/sandbox.h"
#include "base/clip.h"
#include "base/encode.h"
#include "face/worker/worker_int.h"

enum { PROMPT_INLINE = 96 << 10, LISTS_MAX = 8 << 20 };

static const struct mu_json_limits stored_limits = {.max_bytes = 8 << 20, .max_depth = 80};

struct run_name {
    char text[8 + MU_ID_LEN];
};

static struct run_name run_name(const struct mu_order *o)
{
    struct run_name n;
    snprintf(n.text, sizeof n.text, "run_%s", o->of.session.text);
    return n;
}

static struct mu_json_w begin(struct mu_buf *b, const char *type)
{
    struct mu_json_w w = mu_json_w(b);
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "type", type);
    mu_jw_key(&w, "data");
    mu_jw_obj(&w);
    return w;
}

static void end(struct mu_json_w *w)
{
    mu_jw_obj_end(w);
    mu_jw_obj_end(w);
}

/* --- the container's variables --- */

static void add_var(struct mu_json_w *w, const char *name, mu_bytes value)
{
    mu_jw_kstr(w, name, value);
}

/* An array of strings, one a line; blank ones left out. */
static void add_lines(struct mu_json_w *w, const char *name, yyjson_val *list)
{
    struct mu_buf b;
    size_t i, n;
    yyjson_val *item;
    mu_buf_init(&b, LISTS_MAX);
    yyjson_arr_foreach(list, i, n, item)
    {
        mu_bytes line = mu_bytes_trim(mu_json_bytes(item));
        if (line.len) {
            mu_buf_add(&b, b.len ? MU_B("\n") : MU_B(""));
            mu_buf_add(&b, line);
        }
    }
    if (b.len) {
        add_var(w, name, mu_buf_bytes(&b));
    }
    w->buf->failed = w->buf->failed ? w->buf->failed : b.failed;
    mu_buf_fini(&b);
}

/* OZ_ENV_VARS is lines, so a value of several lines travels in OZ_ENV_VARS_JSON only, which holds
 * all of them and wins where it is known. */
static void add_user_vars(struct mu_json_w *w, const struct mu_assignment *job)
{
    struct mu_buf lines, json;
    mu_buf_init(&lines, LISTS_MAX);
    mu_buf_init(&json, LISTS_MAX);
    struct mu_json_w j = mu_json_w(&json);
    mu_jw_obj(&j);
    for (size_t i = 0; i < job->n_vars; i++) {
        const struct mu_job_var *v = &job->vars[i];
        mu_jw_str(&j, v->name);
        mu_buf_add_char(&json, ':');
        j.comma = false;
        mu_jw_str(&j, v->value);
        if (mu_bytes_find_char(v->value, '\n') < 0) {
            mu_buf_add(&lines, lines.len ? MU_B("\n") : MU_B(""));
            mu_buf_add(&lines, v->name);
            mu_buf_add_char(&lines, '=');
            mu_buf_add(&lines, v->value);
        }
    }
    mu_jw_obj_end(&j);
    if (lines.len) {
        add_var(w, "OZ_ENV_VARS", mu_buf_bytes(&lines));
    }
    if (job->n_vars) {
        add_var(w, "OZ_ENV_VARS_JSON", mu_buf_bytes(&json));
    }
    int failed = lines.failed ? lines.failed : json.failed;
    w->buf->failed = w->buf->failed ? w->buf->failed : failed;
    mu_buf_wipe(&lines);
    mu_buf_wipe(&json);
}

/* Where the runner of a worker that hands nothing on finds the server (agent-ops.md 9.1). */
static void add_socket(struct mu_json_w *w, const struct mu_worker_face *face,
                       const struct mu_order *o)
{
    mu_bytes root = mu_str(face->opts.server_root_url), scheme = MU_B("http");
    if (o->dialect == MU_DIALECT_NATIVE || !mu_bytes_starts(root, scheme)) {
        return;
    }
    while (root.len && root.ptr[root.len - 1] == '/') {
        root.len--;
    }
    struct mu_buf b;
    mu_buf_init(&b, 4096);
    mu_buf_add_str(&b, "ws");
    mu_buf_add(&b, mu_bytes_from(root, scheme.len));
    mu_buf_printf(&b, "/api/sessions/%s/ws", o->of.session.text);
    add_var(w, "DO_WS_URL", mu_buf_bytes(&b));
    w->buf->failed = w->buf->failed ? w->buf->failed : b.failed;
    mu_buf_fini(&b);
}

static void add_env(struct mu_json_w *w, const struct mu_worker_face *face,
                    const struct mu_order *o)
{
    const struct mu_assignment *job = &o->job;
    struct run_name run = run_name(o);
    struct mu_arena a;
    yyjson_val *spec = NULL;
    mu_arena_init(&a, 64 << 20);
    if (job->env_spec.len && mu_json_read(&a, job->env_spec, &stored_limits, &spec, NULL) < 0) {
        w->buf->failed = w->buf->failed ? w->buf->failed : -ENOMEM;
    }
    mu_jw_key(w, "env_vars");
    mu_jw_obj(w);
    if (job->live) { /* its runner is told by and by */
        add_socket(w, face, o);
    } else if (job->prompt.len <= PROMPT_INLINE) {
        add_var(w, "OZ_TASK_PROMPT", job->prompt);
    } else {
        char path[96];
        snprintf(path, sizeof path, "/api/v1/agent/runs/%s/prompt", run.text);
        add_var(w, "OZ_TASK_PROMPT_URL", mu_str(path));
    }
    add_lines(w, "OZ_ENV_REPOS", mu_json_get(spec, "repos"));
    add_lines(w, "OZ_ENV_SETUP_COMMANDS", mu_json_get(spec, "setup_commands"));
    add_user_vars(w, job);
    if (job->harness.len) {
        add_var(w, "OZ_HARNESS", job->harness);
    }
    if (job->model.len) {
        add_var(w, "OZ_MODEL_ID", job->model);
    }
    add_var(w, "OZ_RUN_ID", mu_str(run.text));
    add_var(w, "OZ_EXECUTION_ID", mu_id_bytes(&o->of.execution));
    if (face->opts.server_root_url) {
        add_var(w, "OZ_SERVER_ROOT_URL", mu_str(face->opts.server_root_url));
    }
    add_var(w, "OZ_RUN_TOKEN", mu_str(job->token));
    mu_jw_obj_end(w);
    mu_arena_fini(&a);
}

/* --- agent_config_snapshot: only what both Go decoders know, in the types that they demand --- */

static void add_string(struct mu_json_w *w, yyjson_val *config, const char *key, mu_bytes fallback)
{
    mu_bytes v = mu_json_get_bytes(config, key);
    v = v.len ? v : fallback;
    if (v.len) {
        mu_jw_kstr(w, key, v);
    }
}

static void add_harness(struct mu_json_w *w, mu_bytes harness)
{
    const char *word = mu_bytes_is(harness, "claude-code")  ? "claude"
                       : mu_bytes_is(harness, "gemini-cli") ? "gemini"
                       : mu_bytes_is(harness, "codex")      ? "codex"
                                                            : NULL;
    if (word) {
        mu_jw_key(w, "harness");
        mu_jw_obj(w);
        mu_jw_kcstr(w, "type", word);
        mu_jw_obj_end(w);
    }
}

static void add_config(struct mu_json_w *w, const struct mu_assignment *job)
{
    struct mu_arena a;
    yyjson_val *spec = NULL;
    mu_arena_init(&a, 64 << 20);
    if (job->config.len && mu_json_read(&a, job->config, &stored_limits, &spec, NULL) < 0) {
        w->buf->failed = w->buf->failed ? w->buf->failed : -ENOMEM;
    }
    yyjson_val *config = mu_json_get(spec, "agent_config");
    mu_jw_key(w, "agent_config_snapshot");
    mu_jw_obj(w);
    add_string(w, NULL, "environment_id", job->environment_id);
    add_string(w, config, "base_prompt", MU_B_NONE);
    add_string(w, NULL, "model_id", job->model);
    add_string(w, config, "profile_id", MU_B_NONE);
    add_string(w, config, "skill_spec", job->skill);
    yyjson_val *mcp = mu_json_get(config, "mcp_servers");
    if (mcp && yyjson_is_obj(mcp) && yyjson_obj_size(mcp)) {
        mu_jw_key(w, "mcp_servers");
        mu_json_add(w->buf, mcp);
        w->comma = true;
    }
    yyjson_val *computer = mu_json_get(config, "computer_use_enabled");
    if (computer && yyjson_is_bool(computer)) {
        mu_jw_kbool(w, "computer_use_enabled", yyjson_is_true(computer));
    }
    add_harness(w, job->harness);
    mu_jw_obj_end(w);
    mu_arena_fini(&a);
}

/* --- assignment --- */

static void add_task(struct mu_json_w *w, const struct mu_order *o, const char *run)
{
    const struct mu_assignment *job = &o->job;
    mu_jw_key(w, "task");
    mu_jw_obj(w);
    mu_jw_kcstr(w, "id", run);
    mu_jw_kstr(w, "title", job->title);
    mu_jw_key(w, "task_definition");
    mu_jw_obj(w);
    mu_jw_kstr(w, "prompt", job->prompt);
    mu_jw_obj_end(w);
    mu_jw_ktime(w, "created_at", job->created_ms);
    mu_jw_ktime(w, "updated_at", job->created_ms);
    add_config(w, job);
    mu_jw_obj_end(w);
}

/* What the environment said of its sandbox when the run was created. */
static void add_sandbox(struct mu_json_w *w, const struct mu_assignment *job)
{
    struct mu_arena a;
    yyjson_val *spec = NULL;
    mu_arena_init(&a, 64 << 20);
    if (job->env_spec.len && mu_json_read(&a, job->env_spec, &stored_limits, &spec, NULL) < 0) {
        w->buf->failed = w->buf->failed ? w->buf->failed : -ENOMEM;
    }
    mu_env_policy_write(w, "policy", mu_json_get(spec, "sandbox"));
    mu_env_resources_write(w, "resources", mu_json_get(spec, "sandbox"));
    mu_arena_fini(&a);
}

/* Where a session that goes on, or a fork, begins. */
static void add_checkpoint(struct mu_json_w *w, const struct mu_assignment *job)
{
    if (job->checkpoint.ptr) {
        mu_jw_key(w, "checkpoint");
        mu_jw_obj(w);
        mu_jw_kstr(w, "id", job->checkpoint);
        mu_jw_kraw(w, "parts", job->checkpoint_parts);
        mu_jw_obj_end(w);
    }
}

static void assign(const struct mu_worker_face *face, const struct mu_order *o, struct mu_buf *b)
{
    const struct mu_assignment *job = &o->job;
    struct run_name run = run_name(o);
    bool native = o->dialect == MU_DIALECT_NATIVE;
    struct mu_json_w w = begin(b, "task_assignment");
    mu_jw_kcstr(&w, "task_id", run.text);
    mu_jw_kcstr(&w, "trace_id", run.text);
    mu_jw_kstr(&w, "execution_id", mu_id_bytes(&o->of.execution));
    add_task(&w, o, run.text);
    if (job->image.len) {
        mu_jw_kstr(&w, "docker_image", job->image);
    }
    if (face->opts.sidecar_image || native) {
        mu_jw_kcstr(&w, "sidecar_image",
                    face->opts.sidecar_image ? face->opts.sidecar_image : "builtin");
    }
    add_env(&w, face, o);
    if (native) {
        mu_jw_ki64(&w, "epoch", o->of.epoch);
        mu_jw_ki64(&w, "lease_ms", job->lease_ms);
        mu_jw_kstr(&w, "harness", job->harness);
        mu_jw_kcstr(&w, "mode", job->live ? "live" : "task");
        mu_jw_ktime(&w, "deadline_at", job->deadline_ms);
        mu_jw_kcstr(&w, "session_token", job->token);
        add_checkpoint(&w, job);
        add_sandbox(&w, job);
    }
    end(&w);
}

/* --- the others --- */

static void cancel(const struct mu_order *o, const char *type, struct mu_buf *b)
{
    struct run_name run = run_name(o);
    struct mu_json_w w = begin(b, type);
    mu_jw_kcstr(&w, "task_id", run.text);
    if (o->dialect == MU_DIALECT_NATIVE) {
        mu_jw_kstr(&w, "execution_id", mu_id_bytes(&o->of.execution));
        mu_jw_ki64(&w, "epoch", o->of.epoch);
        mu_jw_kbool(&w, "graceful", !o->at_once);
    }
    end(&w);
}

static void add_ids(struct mu_json_w *w, const char *key, const struct mu_id *ids, size_t n)
{
    mu_jw_key(w, key);
    mu_jw_arr(w);
    for (size_t i = 0; i < n; i++) {
        mu_jw_str(w, mu_id_bytes(&ids[i]));
    }
    mu_jw_arr_end(w);
}

static void add_ack(struct mu_json_w *w, const struct mu_execution *of)
{
    mu_jw_kstr(w, "execution_id", mu_id_bytes(&of->execution));
    if (of->seq >= 0) {
        mu_jw_ki64(w, "seq", of->seq);
    } else { /* whatever it has: nothing of it is wanted any more */
        mu_jw_ki64(w, "seq", INT32_MAX);
    }
    mu_jw_ki64(w, "terminal_offset", 0);
}

static void welcome(const struct mu_worker_face *face, const struct mu_order *o, struct mu_buf *b)
{
    char uid[8 + MU_ID_LEN];
    snprintf(uid, sizeof uid, "rnr_%s", o->worker_uid ? o->worker_uid : "");
    struct mu_json_w w = begin(b, "welcome");
    mu_jw_ktime(&w, "server_time", mu_env_wall_ms(face->opts.env));
    mu_jw_kcstr(&w, "worker_uid", uid);
    mu_jw_ki64(&w, "heartbeat_interval_ms", face->opts.heartbeat_ms);
    if (o->credential.ptr) {
        mu_jw_kstr(&w, "credential", o->credential);
    }
    mu_jw_kbool(&w, "drain", o->drain);
    mu_jw_key(&w, "limits");
    mu_jw_obj(&w);
    mu_jw_ki64(&w, "message_bytes", 16 << 20);
    mu_jw_ki64(&w, "output_bytes", MU_OUTPUT_MAX);
    mu_jw_ki64(&w, "log_chunk_bytes", 32 << 10);
    mu_jw_obj_end(&w);
    add_ids(&w, "keep", o->keep, o->n_keep);
    add_ids(&w, "stop", o->stop, o->n_stop);
    mu_jw_key(&w, "acked");
    mu_jw_arr(&w);
    for (size_t i = 0; i < o->n_acked; i++) {
        mu_jw_obj(&w);
        add_ack(&w, &o->acked[i]);
        mu_jw_obj_end(&w);
    }
    mu_jw_arr_end(&w);
    mu_jw_kraw(&w, "pending_gates", MU_B("[]"));
    end(&w);
}

static struct mu_json_w begin_command(const struct mu_order *o, const char *word, struct mu_buf *b)
{
    struct mu_json_w w = begin(b, "command");
    mu_jw_kstr(&w, "command_id", mu_id_bytes(&o->command));
    mu_jw_kcstr(&w, "command", word);
    return w;
}

static void skills(const struct mu_order *o, struct mu_buf *b)
{
    struct mu_json_w w = begin_command(o, "skills", b);
    mu_jw_kstr(&w, "repo", o->repo);
    if (o->credential.ptr) { /* as an assignment would bring it */
        mu_jw_key(&w, "env_vars");
        mu_jw_obj(&w);
        add_var(&w, "GITHUB_ACCESS_TOKEN", o->credential);
        mu_jw_obj_end(&w);
    }
    end(&w);
}

static void add_execution(struct mu_json_w *w, const struct mu_order *o)
{
    struct run_name run = run_name(o);
    mu_jw_kcstr(w, "task_id", run.text);
    mu_jw_kstr(w, "execution_id", mu_id_bytes(&o->of.execution));
    mu_jw_ki64(w, "epoch", o->of.epoch);
}

static void runner(const struct mu_order *o, struct mu_buf *b)
{
    struct mu_json_w w = begin(b, "runner");
    add_execution(&w, o);
    mu_jw_key(&w, "frames");
    mu_jw_arr(&w);
    mu_jw_raw(&w, o->message);
    mu_jw_arr_end(&w);
    end(&w);
}

static void command(const struct mu_order *o, const char *word, struct mu_buf *b)
{
    struct mu_json_w w = begin_command(o, word, b);
    add_execution(&w, o);
    end(&w);
}

static void drain(const struct mu_order *o, const char *word, struct mu_buf *b)
{
    struct mu_json_w w = begin_command(o, word, b);
    end(&w);
}

void mu_link_encode(const struct mu_worker_face *face, const struct mu_order *o,
                    struct mu_buf *first, struct mu_buf *second)
{
    switch (o->kind) {
    case MU_ORDER_ASSIGN:
        assign(face, o, first);
        break;
    case MU_ORDER_CANCEL:
        if (o->dialect != MU_DIALECT_WARP) {
            cancel(o, "task_cancel", first);
        }
        if (o->dialect == MU_DIALECT_WARP || o->dialect == MU_DIALECT_UNKNOWN) {
            cancel(o, "task_cancellation", second);
        }
        break;
    case MU_ORDER_WELCOME:
        welcome(face, o, first);
        break;
    case MU_ORDER_SKILLS:
        skills(o, first);
        break;
    case MU_ORDER_RUNNER:
        runner(o, first);
        break;
    case MU_ORDER_PAUSE:
        command(o, "pause", first);
        break;
    case MU_ORDER_RESUME:
        command(o, "resume", first);
        break;
    case MU_ORDER_DRAIN:
        drain(o, "drain", first);
        break;
    case MU_ORDER_UNDRAIN:
        drain(o, "undrain", first);
        break;
    case MU_ORDER_ACK: {
        struct mu_json_w w = begin(first, "ack");
        add_ack(&w, &o->of);
        end(&w);
        break;
    }
    }
}
