#include <stdio.h>

#include "main/client.h"
#include "main/settings.h"

extern char **environ;

int mu_settings_of(const struct mu_cli *cli, bool warn, struct mu_config **ret)
{
    const char *flags[MU_CLI_MAX_FLAGS + 1] = {NULL};
    struct mu_buf warnings;
    struct mu_err err;
    size_t at = 0, n = 0;
    const char *v;
    while (n < MU_CLI_MAX_FLAGS && (v = mu_cli_next(cli, "set", &at))) {
        flags[n++] = v;
    }
    const struct mu_config_args args = {.ini_file = mu_cli_value(cli, "config"),
                                        .flags = flags,
                                        .environ_ = (const char *const *)environ};
    mu_buf_init(&warnings, 1 << 20);
    int r = mu_config_load(&args, ret, &warnings, &err);
    for (mu_bytes rest = mu_buf_bytes(&warnings); warn && r == 0 && rest.ptr;) {
        mu_bytes line = mu_bytes_split(&rest, '\n');
        if (line.len) {
            fprintf(stderr, "muster: warning: %.*s\n", MU_ARGS(line));
        }
    }
    mu_buf_fini(&warnings);
    return r < 0 ? mu_usage(cli->cmd, "%s", err.text) : 0;
}

void mu_settings_db_path(const struct mu_config *c, char *dst, size_t size)
{
    mu_bytes url = mu_str(c->database_url), scheme = MU_B("file:");
    dst[0] = 0;
    if (mu_settings_pg(c)) {
        return;
    }
    if (mu_bytes_starts(url, scheme)) {
        url = mu_bytes_from(url, scheme.len);
        ptrdiff_t query = mu_bytes_find_char(url, '?');
        url = query < 0 ? url : mu_bytes_head(url, (size_t)query);
        if (mu_bytes_starts(url, MU_B("///"))) {
            url = mu_bytes_from(url, 2);
        }
    }
    snprintf(dst, size, "%.*s", MU_ARGS(url));
}

int mu_cmd_config(struct mu_cli *cli)
{
    struct mu_config *c;
    struct mu_buf out;
    if (mu_cli_has(cli, "json") && mu_cli_has(cli, "markdown")) {
        return mu_usage(cli->cmd, "--json or --markdown, not both");
    }
    int r = mu_settings_of(cli, true, &c);
    if (r) {
        return r;
    }
    mu_buf_init(&out, 16 * 1024 * 1024);
    mu_config_print(c,
                    mu_cli_has(cli, "json")       ? MU_CONFIG_JSON
                    : mu_cli_has(cli, "markdown") ? MU_CONFIG_MARKDOWN
                                                  : MU_CONFIG_TEXT,
                    &out);
    if (out.failed) {
        r = mu_client_no_memory();
    } else {
        fwrite(out.ptr, 1, out.len, stdout);
    }
    mu_buf_fini(&out);
    mu_config_free(c);
    return r;
}
