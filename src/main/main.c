#include <locale.h>
#include <signal.h>
#include <stdio.h>

#include "main/cmd.h"
#include "main/suggest.h"
#include "main/web_assets.h"

static bool is_group(const char *name)
{
    for (const struct mu_cmd *c = mu_commands; c->name; c++) {
        if (c->sub && !strcmp(c->name, name)) {
            return true;
        }
    }
    return false;
}

/* The commands of one group, or "did you mean" for a word that is none. */
static int unknown_command(const char *name, const char *sub)
{
    const char *best = NULL;
    unsigned least = 1000;
    mu_bytes given = mu_str(sub ? sub : name);
    for (const struct mu_cmd *c = mu_commands; c->name; c++) {
        if (sub && (!c->sub || strcmp(c->name, name) != 0)) {
            continue;
        }
        const char *word = sub ? c->sub : c->name;
        unsigned d = mu_edit_distance(given, mu_str(word));
        if (d < least) {
            least = d;
            best = word;
        }
    }
    fprintf(stderr, "muster: unknown command \"%s%s%s\"", name, sub ? " " : "", sub ? sub : "");
    if (best && mu_edit_near(given, least)) {
        fprintf(stderr, "; did you mean \"%s%s%s\"?", sub ? name : "", sub ? " " : "", best);
    }
    fputs("\nSee `muster help`.\n", stderr);
    return MU_EXIT_USAGE;
}

static void print_group(FILE *to, const char *name)
{
    const struct mu_cmd *alone = mu_cmd_find(name, NULL);
    if (alone && to == stdout) {
        mu_print_cmd_help(alone);
        putchar('\n');
    }
    fprintf(to, "Usage: muster %s COMMAND [flags]\n\nCommands:\n", name);
    for (const struct mu_cmd *c = mu_commands; c->name; c++) {
        if (c->sub && !strcmp(c->name, name)) {
            fprintf(to, "  %-20s %s\n", c->sub, c->help);
        }
    }
}

static int dispatch(int argc, char **argv)
{
    static struct mu_cli cli;
    const char *name = argv[0], *sub = NULL;
    bool help = argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"));
    bool alone = mu_cmd_find(name, NULL) && (argc < 2 || (argv[1][0] == '-' && !help));
    if (is_group(name) && !alone) {
        if (argc < 2 || help) {
            print_group(help ? stdout : stderr, name);
            return help ? MU_EXIT_OK : MU_EXIT_USAGE;
        }
        sub = argv[1];
        argc--;
        argv++;
    }
    const struct mu_cmd *cmd = mu_cmd_find(name, sub);
    if (!cmd) {
        return unknown_command(name, sub);
    }
    if (cmd->raw) {
        return cmd->raw(argc, argv);
    }
    int r = mu_cli_parse(cmd, argc, argv, &cli);
    return r < 0 ? MU_EXIT_OK : r ? r : cmd->run(&cli);
}

static bool is(const char *word, const char *a, const char *b, const char *c)
{
    return !strcmp(word, a) || !strcmp(word, b) || !strcmp(word, c);
}

int main(int argc, char **argv)
{
    setlocale(LC_CTYPE, "C.UTF-8"); /* widths of characters in tables */
    signal(SIGPIPE, SIG_IGN);
    if (argc < 2) {
        mu_print_help();
        return MU_EXIT_USAGE;
    }
    if (is(argv[1], "help", "--help", "-h")) {
        const struct mu_cmd *cmd =
            argc > 2 ? mu_cmd_find(argv[2], argc > 3 ? argv[3] : NULL) : NULL;
        if (cmd && (cmd->sub || !is_group(cmd->name))) {
            mu_print_cmd_help(cmd);
        } else if (argc > 2 && is_group(argv[2])) {
            print_group(stdout, argv[2]);
        } else if (argc > 2) {
            return unknown_command(argv[2], NULL);
        } else {
            mu_print_help();
        }
        return MU_EXIT_OK;
    }
    if (is(argv[1], "version", "--version", "-V")) {
        puts(mu_embedded_assets.n ? "muster " MU_VERSION
                                  : "muster " MU_VERSION " (without the web app)");
        return MU_EXIT_OK;
    }
    int r = dispatch(argc - 1, argv + 1);
    /* Output that could not be written is no success. */
    if (fflush(stdout) != 0 && r == MU_EXIT_OK) {
        r = MU_EXIT_FAILED;
    }
    return r;
}
