/* The providers as configured (oz-providers.md 1): plain option structs, filled by main. */
#ifndef MU_APP_PROVIDERS_CONFIG_H
#define MU_APP_PROVIDERS_CONFIG_H

#include "base/bytes.h"
#include "exec/cliformat.h"

enum mu_provider_type {
    MU_PROVIDER_OPENAI,    /* openai_compatible */
    MU_PROVIDER_ANTHROPIC, /* anthropic */
    MU_PROVIDER_CLI,       /* cli */
    MU_PROVIDER_SHELL,     /* built in, admin only: the prompt is a script for /bin/sh */
};
const char *mu_provider_type_name(enum mu_provider_type t);

struct mu_provider_conf {
    const char *key; /* lower case */
    enum mu_provider_type type;
    const char *model;    /* NULL: incomplete, not a candidate */
    bool model_given;     /* a model was configured (the CLI's [model:…] line) */
    const char *base_url; /* without trailing slashes */
    const char *api_key;
    int64_t msg_limit, window_seconds; /* both > 0: a quota */
    bool quota_global;
    const char *const *models; /* further model ids, NULL-terminated, or NULL */
    bool has_temperature;
    double temperature;
    int64_t max_tokens; /* 2048 for anthropic, else 0 */
    const char *system_prompt, *extra_body;
    int64_t timeout_ms; /* first byte: 120000 */
    bool discovered;   /* found at first start, not named by the operator: serves the admin key only
                          (G10) */
    const char *found; /* how it was discovered, for people; NULL */
    /* cli */
    const char *cli_cmd;
    const char *const *cli_args; /* NULL-terminated, or NULL */
    bool cli_prompt_arg;         /* _CLI_PROMPT_MODE=arg */
    const char *const *cli_env;  /* names to pass, or NULL */
    const char *cli_cwd;
    int64_t cli_timeout_ms, cli_max_parallel, cli_max_output;
    const int64_t *cli_rate_limit_exit;
    size_t n_cli_rate_limit_exit;
    enum mu_cli_format cli_format;
};

/* Whether it can be a candidate (oz-providers.md 3): a model, and a URL for openai_compatible. */
bool mu_provider_complete(const struct mu_provider_conf *p);

/* The harness that a model id asks for (oz-api.md 4.3); `fallback` when it matches none. */
const char *mu_harness_of_model(mu_bytes model_id, const char *fallback);
/* The provider key that a harness tries first (oz-providers.md 2); `fallback` for a harness that is
 * not in the table. */
const char *mu_harness_primary(mu_bytes harness, const char *fallback);
/* The type of a provider that names none. */
enum mu_provider_type mu_provider_default_type(mu_bytes key);
/* The i-th key of that table, or NULL behind its end. */
const char *mu_harness_primary_at(size_t i);

struct mu_provider_list {
    struct mu_provider_conf *items;
    size_t n;
};

/* OZ_PROVIDER_FALLBACK_ORDER_<HARNESS> */
struct mu_fallback_order {
    const char *harness; /* normalised: lower case, runs of other characters are "_" */
    const char *keys;
};

struct mu_providers_settings {
    const char *default_provider, *default_harness; /* "custom" */
    const char *fallback_order;
    struct mu_fallback_order *fallback_orders; /* per harness */
    size_t n_fallback_orders;
    const char *model_fallback; /* OZ_MODEL, else OZ_PROVIDER_MODEL: shown on a run until a provider
                                   was picked */
    bool queue_on_saturation;
    int64_t queue_max_wait_s; /* <= 0: no limit */
    int64_t retries;          /* 1 */
    int64_t max_output_bytes; /* 8 MiB */
    bool streaming;
};

#endif
