#include "app/providers/config.h"

const char *mu_provider_type_name(enum mu_provider_type t)
{
    switch (t) {
    case MU_PROVIDER_OPENAI:
        return "openai_compatible";
    case MU_PROVIDER_ANTHROPIC:
        return "anthropic";
    case MU_PROVIDER_CLI:
        return "cli";
    case MU_PROVIDER_SHELL:
        return "shell";
    }
    return "unknown";
}

bool mu_provider_complete(const struct mu_provider_conf *p)
{
    return p->model && (p->type != MU_PROVIDER_OPENAI || p->base_url);
}

static const struct {
    const char *word; /* in a model id */
    const char *harness;
    const char *primary;
    enum mu_provider_type type;
} harnesses[] = {
    /* The order decides: the first word that a model id contains. */
    {"claude", "claude-code", "claude", MU_PROVIDER_ANTHROPIC},
    {"codex", "codex", "codex", MU_PROVIDER_OPENAI},
    {"glm", "glm", "glm", MU_PROVIDER_OPENAI},
    {"kimi", "kimi", "kimi", MU_PROVIDER_OPENAI},
    {"gemini", "gemini-cli", "gemini", MU_PROVIDER_OPENAI},
    {NULL, "custom", "custom", MU_PROVIDER_OPENAI},
};

const char *mu_harness_of_model(mu_bytes model_id, const char *fallback)
{
    /* The built-in script runner is asked for by its exact name only. */
    if (mu_bytes_eq_nocase(mu_bytes_trim(model_id), MU_B("shell"))) {
        return "shell";
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(harnesses); i++) {
        if (harnesses[i].word && mu_bytes_find_nocase(model_id, mu_str(harnesses[i].word)) >= 0) {
            return harnesses[i].harness;
        }
    }
    return fallback;
}

const char *mu_harness_primary(mu_bytes harness, const char *fallback)
{
    if (mu_bytes_is(harness, "shell")) {
        return "shell";
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(harnesses); i++) {
        if (mu_bytes_is(harness, harnesses[i].harness)) {
            return harnesses[i].primary;
        }
    }
    return fallback;
}

const char *mu_harness_primary_at(size_t i)
{
    return i < MU_ARRAY_LEN(harnesses) ? harnesses[i].primary : NULL;
}

enum mu_provider_type mu_provider_default_type(mu_bytes key)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(harnesses); i++) {
        if (mu_bytes_is(key, harnesses[i].primary)) {
            return harnesses[i].type;
        }
    }
    return MU_PROVIDER_OPENAI;
}
