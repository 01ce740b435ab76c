/* Whether each harness that matters has a provider that can work (oz-providers.md 1.2). */
#include <errno.h>
#include <stdio.h>

#include "exec/process.h"
#include "main/config_int.h"

static const struct mu_provider_conf *find(const struct mu_config *c, mu_bytes key)
{
    for (size_t i = 0; i < c->provider_list.n; i++) {
        if (mu_bytes_is(key, c->provider_list.items[i].key)) {
            return &c->provider_list.items[i];
        }
    }
    return NULL;
}

/* The variable of a key, for complaints. */
static const char *variable(const struct mu_provider_conf *p, const char *what, char *dst,
                            size_t size)
{
    size_t n = (size_t)snprintf(dst, size, "OZ_PROVIDER_%s_%s", p->key, what);
    for (size_t i = 0; i < MU_MIN(n, size - 1); i++) {
        dst[i] = (char)(dst[i] >= 'a' && dst[i] <= 'z' ? dst[i] - 32 : dst[i]);
    }
    return dst;
}

static int check_one(const struct mu_provider_conf *p, const char *path, struct mu_err *err)
{
    char name[128];
    if (p->type == MU_PROVIDER_ANTHROPIC && !p->api_key) {
        return mu_err_set(err, MU_E_INVALID, "%s is missing: the provider %s needs a key",
                          variable(p, "API_KEY", name, sizeof name), p->key);
    }
    if (p->type != MU_PROVIDER_CLI) {
        return 0;
    }
    variable(p, "CLI_CMD", name, sizeof name);
    if (!p->cli_cmd) {
        return mu_err_set(err, MU_E_INVALID, "%s is missing: the provider %s needs a program", name,
                          p->key);
    }
    char *found = mu_process_find(p->cli_cmd, path);
    if (!found) {
        return mu_err_set(err, MU_E_INVALID, "%s: the program %s is not on PATH", name, p->cli_cmd);
    }
    mu_free(found);
    return 0;
}

static const char *order_of(const struct mu_config *c, const char *harness)
{
    char word[128];
    mu_config_harness_word(mu_str(harness), word, sizeof word);
    for (size_t i = 0; i < c->providers.n_fallback_orders; i++) {
        if (!strcmp(c->providers.fallback_orders[i].harness, word)) {
            return c->providers.fallback_orders[i].keys;
        }
    }
    return c->providers.fallback_order;
}

static int check_harness(const struct mu_config *c, mu_bytes harness, const char *path,
                         struct mu_buf *warnings, struct mu_err *err)
{
    char name[128];
    snprintf(name, sizeof name, "%.*s", MU_ARGS(harness));
    mu_bytes primary = mu_str(mu_harness_primary(harness, c->providers.default_provider));
    mu_bytes rest = mu_str(order_of(c, name)), key = primary;
    size_t candidates = 0;
    for (;;) {
        const struct mu_provider_conf *p = key.len ? find(c, key) : NULL;
        if (p && mu_provider_complete(p)) {
            int r = check_one(p, path, err);
            if (r < 0) {
                return r;
            }
            candidates++;
        } else if (!p && key.len && !mu_bytes_eq(key, primary) && !mu_bytes_is(key, "shell")) {
            mu_buf_printf(warnings, "the fallback %.*s of the harness %s is not configured\n",
                          MU_ARGS(key), name);
        }
        if (!rest.ptr) {
            break;
        }
        key = mu_bytes_split(&rest, ',');
    }
    if (!candidates && !mu_bytes_is(harness, "shell")) {
        return mu_err_set(err, MU_E_INVALID,
                          "the harness %s has no provider: set OZ_PROVIDER_%.*s_MODEL and its "
                          "_BASE_URL (or _TYPE), or name one in OZ_PROVIDER_FALLBACK_ORDER",
                          name, MU_ARGS(primary));
    }
    return 0;
}

int mu_config_check_providers(const struct mu_config *c, const char *path, struct mu_buf *warnings,
                              struct mu_err *err)
{
    if (!c->validate_harnesses) {
        int r = check_harness(c, mu_str(c->providers.default_harness), path, warnings, err);
        if (r == 0 && strcmp(c->providers.default_harness, "custom") != 0) {
            r = check_harness(c, MU_B("custom"), path, warnings, err);
        }
        return r;
    }
    int r = 0;
    for (mu_bytes rest = mu_str(c->validate_harnesses); r == 0 && rest.ptr;) {
        mu_bytes one = mu_bytes_trim(mu_bytes_split(&rest, ','));
        if (one.len) {
            r = check_harness(c, one, path, warnings, err);
        }
    }
    return r;
}
