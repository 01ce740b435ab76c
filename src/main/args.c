#include <stdarg.h>
#include <stdio.h>

#include "main/cmd.h"
#include "main/suggest.h"

static const struct mu_flag *find_in(const struct mu_flag *flags, mu_bytes name, char letter)
{
    for (; flags && flags->name; flags++) {
        if (letter ? flags->letter == letter : mu_bytes_is(name, flags->name)) {
            return flags;
        }
    }
    return NULL;
}

static const struct mu_flag *find_flag(const struct mu_cmd *cmd, mu_bytes name, char letter)
{
    const struct mu_flag *f = find_in(cmd->flags, name, letter);
    return !f && cmd->client ? find_in(mu_client_flags, name, letter) : f;
}

static void nearest_in(const struct mu_flag *flags, mu_bytes name, const char **best,
                       unsigned *least)
{
    for (; flags && flags->name; flags++) {
        unsigned d = mu_edit_distance(name, mu_str(flags->name));
        if (d < *least) {
            *least = d;
            *best = flags->name;
        }
    }
}

static int unknown_flag(const struct mu_cmd *cmd, mu_bytes name)
{
    const char *best = NULL;
    unsigned least = 1000;
    nearest_in(cmd->flags, name, &best, &least);
    nearest_in(cmd->client ? mu_client_flags : NULL, name, &best, &least);
    if (best && mu_edit_near(name, least)) {
        return mu_usage(cmd, "unknown flag --%.*s; did you mean --%s?", MU_ARGS(name), best);
    }
    return mu_usage(cmd, "unknown flag --%.*s", MU_ARGS(name));
}

int mu_usage(const struct mu_cmd *cmd, const char *fmt, ...)
{
    va_list ap;
    fputs("muster: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    if (cmd) {
        fprintf(stderr, "\nSee `muster %s%s%s --help`.\n", cmd->name, cmd->sub ? " " : "",
                cmd->sub ? cmd->sub : "");
    } else {
        fputs("\nSee `muster help`.\n", stderr);
    }
    return MU_EXIT_USAGE;
}

static int add_flag(struct mu_cli *cli, const struct mu_flag *f, const char *value)
{
    if (cli->n_given == MU_CLI_MAX_FLAGS) {
        return mu_usage(cli->cmd, "more than %d flags", MU_CLI_MAX_FLAGS);
    }
    if (!f->repeat && mu_cli_has(cli, f->name)) {
        return mu_usage(cli->cmd, "--%s is given twice", f->name);
    }
    cli->given[cli->n_given].flag = f;
    cli->given[cli->n_given++].value = value;
    return 0;
}

/* One flag; *at moves on when its value is the next word. */
static int take_flag(struct mu_cli *cli, int argc, char **argv, int *at)
{
    const char *word = argv[*at], *value = NULL;
    const struct mu_flag *f;
    mu_bytes name = MU_B_NONE;
    if (word[1] == '-') {
        const char *eq = strchr(word, '=');
        name = mu_bytes_of(word + 2, eq ? (size_t)(eq - word - 2) : strlen(word + 2));
        value = eq ? eq + 1 : NULL;
        f = find_flag(cli->cmd, name, 0);
        if (!f) {
            return unknown_flag(cli->cmd, name);
        }
    } else {
        f = find_flag(cli->cmd, name, word[1]);
        if (!f) {
            return mu_usage(cli->cmd, "unknown flag -%c", word[1]);
        }
        value = word[2] ? word + 2 : NULL;
    }
    if (!f->value) {
        return value ? mu_usage(cli->cmd, "--%s takes no value", f->name) : add_flag(cli, f, NULL);
    }
    if (!value) {
        if (*at + 1 >= argc) {
            return mu_usage(cli->cmd, "--%s needs %s", f->name, f->value);
        }
        value = argv[++*at];
    }
    return add_flag(cli, f, value);
}

static int check_count(const struct mu_cli *cli)
{
    const struct mu_cmd *cmd = cli->cmd;
    if (cli->n_args < cmd->min_args) {
        return mu_usage(cmd, "%s is missing", cmd->args);
    }
    if (cli->n_args > cmd->max_args) {
        return mu_usage(cmd, "too many arguments: %s", cli->args[cmd->max_args]);
    }
    return 0;
}

int mu_cli_parse(const struct mu_cmd *cmd, int argc, char **argv, struct mu_cli *ret)
{
    bool flags = true;
    memset(ret, 0, sizeof *ret);
    ret->cmd = cmd;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (flags && !strcmp(word, "--")) {
            flags = false;
        } else if (flags && (!strcmp(word, "--help") || !strcmp(word, "-h"))) {
            mu_print_cmd_help(cmd);
            return -1;
        } else if (flags && word[0] == '-' && word[1]) {
            int r = take_flag(ret, argc, argv, &i);
            if (r) {
                return r;
            }
        } else if (ret->n_args == MU_CLI_MAX_ARGS) {
            return mu_usage(cmd, "more than %d arguments", MU_CLI_MAX_ARGS);
        } else {
            ret->args[ret->n_args++] = word;
        }
    }
    return check_count(ret);
}

bool mu_cli_has(const struct mu_cli *cli, const char *flag)
{
    for (size_t i = 0; i < cli->n_given; i++) {
        if (!strcmp(cli->given[i].flag->name, flag)) {
            return true;
        }
    }
    return false;
}

const char *mu_cli_next(const struct mu_cli *cli, const char *flag, size_t *at)
{
    while (*at < cli->n_given) {
        size_t i = (*at)++;
        if (!strcmp(cli->given[i].flag->name, flag)) {
            return cli->given[i].value;
        }
    }
    return NULL;
}

const char *mu_cli_value(const struct mu_cli *cli, const char *flag)
{
    const char *last = NULL, *v;
    for (size_t at = 0; (v = mu_cli_next(cli, flag, &at));) {
        last = v;
    }
    return last;
}

int mu_cli_number(const struct mu_cli *cli, const char *flag, int64_t min, int64_t max,
                  int64_t fallback, int64_t *ret)
{
    const char *text = mu_cli_value(cli, flag);
    int64_t v = fallback;
    if (text && (mu_bytes_i64(mu_str(text), &v) < 0 || v < min || v > max)) {
        return mu_usage(cli->cmd, "--%s: expected a whole number from %lld to %lld", flag,
                        (long long)min, (long long)max);
    }
    *ret = v;
    return 0;
}

/* --- help --- */

static void print_flags(const struct mu_flag *f)
{
    for (; f && f->name; f++) {
        char left[80];
        snprintf(left, sizeof left, "%c%c%s--%s%s%s", f->letter ? '-' : ' ',
                 f->letter ? f->letter : ' ', f->letter ? ", " : "  ", f->name, f->value ? " " : "",
                 f->value ? f->value : "");
        printf("  %-30s %s\n", left, f->help);
    }
}

void mu_print_cmd_help(const struct mu_cmd *cmd)
{
    printf("%s\n\nUsage: muster %s%s%s%s%s [flags]\n", cmd->help, cmd->name, cmd->sub ? " " : "",
           cmd->sub ? cmd->sub : "", cmd->args[0] ? " " : "", cmd->args);
    if ((cmd->flags && cmd->flags->name) || cmd->client) {
        puts("\nFlags:");
        print_flags(cmd->flags);
        print_flags(cmd->client ? mu_client_flags : NULL);
    }
}

void mu_print_help(void)
{
    puts("muster " MU_VERSION ": a control plane for coding agents\n\nUsage: muster COMMAND "
         "[flags]\n\nCommands:");
    for (const struct mu_cmd *c = mu_commands; c->name; c++) {
        char left[80];
        snprintf(left, sizeof left, "%s%s%s%s%s", c->name, c->sub ? " " : "", c->sub ? c->sub : "",
                 c->args[0] ? " " : "", c->args);
        printf("  %-26s %s\n", left, c->help);
    }
    puts("\n`muster COMMAND --help` shows a command's flags.\n\n"
         "The server is found by --url or OZ_API_BASE_URL with OZ_API_KEY (or WARP_API_KEY), else "
         "by\nthe data folder of the same user (OZ_DATA_DIR).\n\n"
         "Exit codes: 0 ok, 1 failed or cancelled, 2 usage, 3 no server, 4 not authorised,\n"
         "5 not found, 6 timeout, 130 interrupted.");
}
