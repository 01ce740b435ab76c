#include "app/fleet/needs.h"

#include <errno.h>

#include "proto/json.h"

static const struct mu_json_limits stored = {.max_bytes = 8 << 20, .max_depth = 80};

/* Names of hello.harnesses, ours of the API, and the variable that replaces the command. */
static const struct {
    const char *name, *api, *variable;
    int64_t bit;
} harnesses[] = {
    {"claude", "claude-code", "OZ_SIDECAR_CLAUDE_CMD", MU_NEED_CLAUDE},
    {"codex", "codex", "OZ_SIDECAR_CODEX_CMD", MU_NEED_CODEX},
    {"gemini", "gemini-cli", "OZ_SIDECAR_GEMINI_CMD", MU_NEED_GEMINI},
    {"opencode", "opencode", "OZ_SIDECAR_OPENCODE_CMD", MU_NEED_OPENCODE},
};

static bool is_said(yyjson_val *v)
{
    return v && !yyjson_is_null(v);
}

static bool has_word(yyjson_val *list, const char *word)
{
    size_t i, n;
    yyjson_val *v;
    if (!yyjson_is_arr(list)) {
        return false;
    }
    yyjson_arr_foreach(list, i, n, v)
    {
        if (mu_bytes_is(mu_json_bytes(v), word)) {
            return true;
        }
    }
    return false;
}

static int64_t sandbox_needs(yyjson_val *sandbox)
{
    yyjson_val *network = mu_json_get(sandbox, "network"), *limits = mu_json_get(sandbox, "limits");
    mu_bytes mode = mu_json_get_bytes(network, "mode");
    int64_t needs = mu_bytes_is(mode, "none")    ? MU_NEED_NET_NONE
                    : mu_bytes_is(mode, "proxy") ? MU_NEED_NET_PROXY
                    : mu_bytes_is(mode, "host")  ? MU_NEED_NET_HOST
                                                 : 0;
    static const char *const numbers[] = {"memory_mb", "cpus", "pids"};
    for (size_t i = 0; i < MU_ARRAY_LEN(numbers); i++) {
        needs |= is_said(mu_json_get(limits, numbers[i])) ? MU_NEED_LIMITS : 0;
    }
    needs |= is_said(mu_json_get(limits, "disk_mb")) ? MU_NEED_DISK : 0;
    needs |= is_said(mu_json_get(limits, "timeout_seconds")) ? MU_NEED_TIME : 0;
    needs |= mu_json_get_bool(sandbox, "nested", false) ? MU_NEED_NESTED : 0;
    return needs | (mu_json_get_bytes(sandbox, "root").len ? MU_NEED_FAKE_ROOT : 0);
}

static int64_t harness_needs(mu_bytes harness, yyjson_val *snapshot)
{
    yyjson_val *setup = mu_json_get(mu_json_get(snapshot, "spec"), "setup_commands");
    if (yyjson_is_arr(setup) && yyjson_arr_size(setup)) {
        return 0;
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(harnesses); i++) {
        if (mu_bytes_is(harness, harnesses[i].name) || mu_bytes_is(harness, harnesses[i].api)) {
            bool named = has_word(mu_json_get(snapshot, "env_var_names"), harnesses[i].variable);
            return named ? 0 : harnesses[i].bit;
        }
    }
    return 0;
}

int mu_needs_of(mu_bytes harness, mu_bytes env_snapshot, int64_t *ret)
{
    struct mu_arena a;
    yyjson_val *root = NULL;
    int r = 0;
    mu_arena_init(&a, 64 << 20);
    if (env_snapshot.len) {
        r = mu_json_read(&a, env_snapshot, &stored, &root, NULL);
    }
    if (r == 0) {
        *ret = sandbox_needs(mu_json_get(mu_json_get(root, "spec"), "sandbox")) |
               harness_needs(harness, root);
    }
    mu_arena_fini(&a);
    return r;
}

int64_t mu_needs_offered(mu_bytes caps)
{
    struct mu_arena a;
    yyjson_val *root = NULL;
    int64_t offered = 0;
    mu_arena_init(&a, 4 << 20);
    if (caps.len && mu_json_read(&a, caps, &stored, &root, NULL) < 0) {
        mu_arena_fini(&a);
        return 0; /* nothing in particular: it may still take what needs nothing */
    }
    for (size_t i = 0; i < MU_FEATURES; i++) {
        if (has_word(mu_json_get(root, "features"), mu_features[i].word)) {
            offered |= mu_features[i].bits;
        }
    }
    yyjson_val *list = mu_json_get(root, "harnesses");
    for (size_t i = 0; i < MU_ARRAY_LEN(harnesses); i++) {
        if (!list || has_word(list, harnesses[i].name) || has_word(list, harnesses[i].api)) {
            offered |= harnesses[i].bit;
        }
    }
    mu_arena_fini(&a);
    return offered;
}

static void add_word(struct mu_buf *dst, bool *any, const char *kind, const char *word)
{
    mu_buf_add_str(dst, *any ? ", " : "");
    mu_buf_add_str(dst, kind);
    mu_buf_add_str(dst, word);
    *any = true;
}

void mu_needs_words(struct mu_buf *dst, int64_t needs)
{
    bool any = false;
    for (size_t i = 0; i < MU_ARRAY_LEN(harnesses); i++) {
        if (needs & harnesses[i].bit) {
            add_word(dst, &any, "harness ", harnesses[i].name);
        }
    }
    for (size_t i = 0; i < MU_FEATURES; i++) {
        if (mu_features[i].bits != MU_NEED_HARNESSES && needs & mu_features[i].bits) {
            add_word(dst, &any, "", mu_features[i].word);
        }
    }
}
