/* What the engine is told about a container, and what is put into it. Pure. */
#include <stdio.h>

#include "exec/engine/tar.h"
#include "exec/sandbox/docker_int.h"

/* Variables that identify rather than open anything: they may show in the container's
 * configuration. Whatever else there is, is a secret of the task when secret_files is on. */
static const char *const open_names[] = {"TASK_ID",
                                         "GIT_TERMINAL_PROMPT",
                                         "GH_PROMPT_DISABLED",
                                         "WARP_SERVER_ROOT_URL",
                                         "OZ_SERVER_ROOT_URL",
                                         "OZ_RUN_ID",
                                         "OZ_EXECUTION_ID",
                                         "OZ_HARNESS",
                                         "OZ_MODEL_ID"};

/* Where the script with the secrets lies until it has run. */
#define SECRETS ".oz-start"
const char mu_docker_secret_script[] = "/" SECRETS;

static bool is_ident(char c)
{
    char low = (char)(c | 0x20);
    return (c >= '0' && c <= '9') || (low >= 'a' && low <= 'z') || c == '_' || c == '-' || c == '.';
}

/* oz-<run>-<exec8>: of the execution its last characters, which differ most. */
void mu_docker_name(char dst[MU_DOCKER_NAME], const char *task_id, const char *execution_id)
{
    size_t len = strlen(execution_id);
    snprintf(dst, MU_DOCKER_NAME, "oz-%.100s-%s", task_id && *task_id ? task_id : "task",
             execution_id + (len > 8 ? len - 8 : 0));
    for (char *p = dst; *p; p++) {
        *p = is_ident(*p) ? *p : '-';
    }
}

/* A shell cannot export other names; they stay in the configuration. */
bool mu_docker_is_secret(const char *variable)
{
    const char *eq = strchr(variable, '=');
    size_t len = eq ? (size_t)(eq - variable) : 0;
    if (len == 0 || (variable[0] >= '0' && variable[0] <= '9')) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if (!is_ident(variable[i]) || variable[i] == '-' || variable[i] == '.') {
            return false;
        }
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(open_names); i++) {
        if (strlen(open_names[i]) == len && !memcmp(open_names[i], variable, len)) {
            return false;
        }
    }
    return true;
}

static void add_strings(struct mu_json_w *w, const char *key, const char *const *list)
{
    mu_jw_key(w, key);
    mu_jw_arr(w);
    for (; list && *list; list++) {
        mu_jw_str(w, mu_str(*list));
    }
    mu_jw_arr_end(w);
}

static void add_env(struct mu_json_w *w, const struct mu_docker_box *box)
{
    const char *const *env = box->spec.env;
    mu_jw_key(w, "Env");
    mu_jw_arr(w);
    for (; env && *env; env++) {
        if (!box->d->settings.secret_files || !mu_docker_is_secret(*env)) {
            mu_jw_str(w, mu_str(*env));
        }
    }
    mu_jw_arr_end(w);
}

static void add_labels(struct mu_json_w *w, const struct mu_docker_box *box)
{
    mu_jw_key(w, "Labels");
    mu_jw_obj(w);
    mu_jw_kcstr(w, "oz.managed", "1");
    mu_jw_kcstr(w, "oz.worker", box->d->settings.worker_id);
    mu_jw_kcstr(w, "oz.run", box->spec.task_id ? box->spec.task_id : "");
    mu_jw_kcstr(w, "oz.execution", box->execution);
    /* For the worker that adopts it. */
    char number[24];
    snprintf(number, sizeof number, "%lld", (long long)box->timeout_ms);
    mu_jw_kcstr(w, "oz.timeout_ms", number);
    snprintf(number, sizeof number, "%lld", (long long)box->grace_ms);
    mu_jw_kcstr(w, "oz.grace_ms", number);
    snprintf(number, sizeof number, "%lld", (long long)box->log_max);
    mu_jw_kcstr(w, "oz.log_bytes", number);
    mu_jw_obj_end(w);
}

static void add_bind(struct mu_json_w *w, struct mu_buf *text, const char *from, const char *to,
                     bool writable)
{
    mu_buf_clear(text);
    mu_buf_printf(text, "%s:%s%s", from, to, writable ? "" : ":ro");
    mu_jw_str(w, mu_buf_bytes(text));
}

static int add_binds(struct mu_json_w *w, const struct mu_docker_box *box)
{
    struct mu_buf text MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&text, 16 << 10);
    mu_jw_key(w, "Binds");
    mu_jw_arr(w);
    for (size_t i = 0; i < box->n_sidecars; i++) {
        const struct mu_docker_sidecar *s = &box->sidecars[i];
        add_bind(w, &text, s->volume, s->target, s->writable);
    }
    for (size_t i = 0; i < box->spec.n_mounts; i++) {
        const struct mu_sandbox_mount *m = &box->spec.mounts[i];
        if (!m->image) {
            add_bind(w, &text, m->source, m->target, m->writable);
        }
    }
    for (const char *const *v = box->d->settings.volumes; v && *v; v++) {
        mu_jw_str(w, mu_str(*v));
    }
    mu_jw_arr_end(w);
    return text.failed;
}

static void add_limits(struct mu_json_w *w, const struct mu_docker_box *box)
{
    const struct mu_sandbox_spec *spec = &box->spec;
    const struct mu_sandbox_settings *set = &box->d->settings;
    int64_t memory = spec->memory_bytes ? spec->memory_bytes : set->memory_bytes;
    int64_t pids = spec->pids ? spec->pids : set->pids;
    int64_t shm = spec->shm_bytes ? spec->shm_bytes : set->shm_bytes;
    double cpus = spec->cpus > 0 ? spec->cpus : set->cpus;
    if (memory > 0) {
        mu_jw_ki64(w, "Memory", memory);
        mu_jw_ki64(w, "MemorySwap", memory);
    }
    if (cpus > 0 && cpus <= 4096) {
        mu_jw_ki64(w, "NanoCpus", (int64_t)(cpus * 1e9));
    }
    if (shm > 0) {
        mu_jw_ki64(w, "ShmSize", shm);
    }
    mu_jw_ki64(w, "PidsLimit", pids > 0 ? pids : 4096);
}

static const char *network(const struct mu_docker_box *box)
{
    const struct mu_sandbox_settings *set = &box->d->settings;
    switch (box->spec.network) {
    case MU_NET_NONE:
        return "none";
    case MU_NET_HOST:
        if (set->allow_host_network) {
            return "host";
        }
        break;
    case MU_NET_PROXY:
        break;
    }
    return set->task_network && *set->task_network ? set->task_network : NULL;
}

static int add_host_config(struct mu_json_w *w, const struct mu_docker_box *box)
{
    mu_jw_key(w, "HostConfig");
    mu_jw_obj(w);
    int r = add_binds(w, box);
    add_limits(w, box);
    if (network(box)) {
        mu_jw_kcstr(w, "NetworkMode", network(box));
    }
    static const char *const security[] = {"no-new-privileges", NULL};
    add_strings(w, "SecurityOpt", security);
    /* Two files: with one, the engine empties it when it is full. */
    mu_jw_kraw(
        w, "LogConfig",
        MU_B("{\"Type\":\"json-file\",\"Config\":{\"max-size\":\"16m\",\"max-file\":\"2\"}}"));
    mu_jw_kraw(w, "RestartPolicy", MU_B("{\"Name\":\"no\"}"));
    mu_jw_kbool(w, "AutoRemove", false);
    mu_jw_obj_end(w);
    return r;
}

/* With secrets, a shell script puts them into the environment and goes on with the entrypoint. */
static bool has_secrets(const struct mu_docker_box *box)
{
    const char *const *env = box->d->settings.secret_files ? box->spec.env : NULL;
    for (; env && *env; env++) {
        if (mu_docker_is_secret(*env)) {
            return true;
        }
    }
    return false;
}

int mu_docker_body_(const struct mu_docker_box *box, struct mu_buf *dst)
{
    struct mu_json_w w = mu_json_w(dst);
    const char *plain[] = {box->entry, NULL};
    const char *wrapped[] = {"/bin/sh", mu_docker_secret_script, NULL};
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "Image", box->spec.image);
    add_strings(&w, "Entrypoint", has_secrets(box) ? wrapped : plain);
    add_strings(&w, "Cmd", box->spec.argv);
    add_env(&w, box);
    mu_jw_kcstr(&w, "WorkingDir", "/workspace");
    mu_jw_kbool(&w, "Tty", false);
    mu_jw_kbool(&w, "OpenStdin", false);
    mu_jw_kcstr(&w, "StopSignal", "SIGTERM");
    mu_jw_kraw(&w, "Healthcheck", MU_B("{\"Test\":[\"NONE\"]}"));
    add_labels(&w, box);
    int r = add_host_config(&w, box);
    mu_jw_obj_end(&w);
    return r < 0 ? r : dst->failed;
}

int mu_docker_helper_body_(const struct mu_docker *d, const char *image, const char *volume,
                           struct mu_buf *dst)
{
    struct mu_json_w w = mu_json_w(dst);
    static const char *const words[] = {"true", NULL};
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "Image", image);
    add_strings(&w, "Cmd", words);
    mu_jw_key(&w, "Labels");
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "oz.managed", "1");
    mu_jw_kcstr(&w, "oz.worker", d->settings.worker_id);
    mu_jw_kcstr(&w, "oz.helper", d->instance);
    mu_jw_obj_end(&w);
    mu_jw_key(&w, "HostConfig");
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "NetworkMode", "none");
    if (volume) {
        char bind[2 * MU_DOCKER_NAME];
        /* nocopy: what the helper's image has there is not the sidecar's. */
        snprintf(bind, sizeof bind, "%s:/agent:nocopy", volume);
        const char *const binds[] = {bind, NULL};
        add_strings(&w, "Binds", binds);
    }
    mu_jw_obj_end(&w);
    mu_jw_obj_end(&w);
    return dst->failed;
}

/* --- files --- */

static void add_quoted(struct mu_buf *dst, mu_bytes text)
{
    mu_buf_add_char(dst, '\'');
    while (text.ptr) {
        mu_buf_add(dst, mu_bytes_split(&text, '\''));
        mu_buf_add_str(dst, text.ptr ? "'\\''" : "'");
    }
}

static void add_script(const struct mu_docker_box *box, struct mu_buf *dst)
{
    mu_buf_add_str(dst, "rm -f /" SECRETS " 2>/dev/null || true\n");
    for (const char *const *env = box->spec.env; *env; env++) {
        if (mu_docker_is_secret(*env)) {
            const char *eq = strchr(*env, '=');
            mu_buf_add_str(dst, "export ");
            mu_buf_add(dst, mu_bytes_of(*env, (size_t)(eq + 1 - *env)));
            add_quoted(dst, mu_str(eq + 1));
            mu_buf_add_char(dst, '\n');
        }
    }
    mu_buf_printf(dst, "exec %s \"$@\"\n", box->entry);
}

int mu_docker_files_(const struct mu_docker_box *box, struct mu_buf *dst)
{
    bool prompt = box->spec.prompt.ptr != NULL, secrets = has_secrets(box);
    bool other_user = box->user[0] && strcmp(box->user, "root") != 0 && strcmp(box->user, "0") != 0;
    if (!prompt && !secrets && !other_user) {
        return 0;
    }
    if (other_user) { /* nobody else is in there, and the image's user is to work in it */
        mu_tar_add_dir(dst, "workspace", 0777);
    }
    if (prompt) {
        mu_tar_add_dir(dst, "workspace/.oz", other_user ? 0777 : 0755);
        mu_tar_add_file(dst, "workspace/.oz/prompt.txt", 0644, box->spec.prompt);
    }
    if (secrets) {
        struct mu_buf script MU_CLEANUP(mu_buf_wipe);
        mu_buf_init(&script, MU_DOCKER_SPEC);
        add_script(box, &script);
        mu_tar_add_file(dst, SECRETS, other_user ? 0444 : 0400, mu_buf_bytes(&script));
        if (script.failed) {
            return script.failed;
        }
    }
    mu_tar_add_end(dst);
    return dst->failed;
}
