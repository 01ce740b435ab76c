/* Shell completions, all from the command table. */
#include <stdio.h>

#include "main/cmd.h"

/* Calls fn once for each first word. */
static void each_name(void (*fn)(const struct mu_cmd *cmd))
{
    for (const struct mu_cmd *c = mu_commands; c->name; c++) {
        bool seen = false;
        for (const struct mu_cmd *d = mu_commands; d != c; d++) {
            seen = seen || !strcmp(d->name, c->name);
        }
        if (!seen) {
            fn(c);
        }
    }
}

static void print_flag_words(const struct mu_cmd *c)
{
    for (const struct mu_flag *f = c->flags; f && f->name; f++) {
        printf(" --%s", f->name);
    }
    for (const struct mu_flag *f = mu_client_flags; c->client && f->name; f++) {
        printf(" --%s", f->name);
    }
    printf(" --help");
}

static void bash_name(const struct mu_cmd *c)
{
    printf(" %s", c->name);
}

static void print_subs(const char *name)
{
    for (const struct mu_cmd *c = mu_commands; c->name; c++) {
        if (c->sub && !strcmp(c->name, name)) {
            printf(" %s", c->sub);
        }
    }
}

static void bash_group(const struct mu_cmd *c)
{
    if (c->sub) {
        printf("        %s) words=\"", c->name);
        print_subs(c->name);
        puts("\" ;;");
    }
}

static void print_bash(void)
{
    puts("# bash completion for muster\n_muster() {\n"
         "    local cur=${COMP_WORDS[COMP_CWORD]} words=\"\"\n"
         "    COMPREPLY=()\n"
         "    if [ \"$COMP_CWORD\" -eq 1 ]; then");
    printf("        words=\"help version");
    each_name(bash_name);
    puts("\"\n        COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n        return\n    fi\n"
         "    case \"${COMP_WORDS[1]} ${COMP_WORDS[2]}\" in");
    for (const struct mu_cmd *c = mu_commands; c->name; c++) {
        printf("        \"%s %s\"*) words=\"", c->name, c->sub ? c->sub : "");
        print_flag_words(c);
        puts("\" ;;");
    }
    puts("    esac\n    if [ \"$COMP_CWORD\" -eq 2 ]; then\n        case \"${COMP_WORDS[1]}\" in");
    each_name(bash_group);
    puts("        completion) words=\"bash zsh fish\" ;;\n        esac\n    fi\n"
         "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
         "    [ ${#COMPREPLY[@]} -eq 0 ] && COMPREPLY=($(compgen -f -- \"$cur\"))\n}\n"
         "complete -F _muster muster");
}

/* Inside single quotes of a shell. */
static void quoted(const char *s)
{
    putchar('\'');
    for (; *s; s++) {
        if (*s == '\'') {
            fputs("'\\''", stdout);
        } else {
            putchar(*s);
        }
    }
    putchar('\'');
}

static void zsh_name(const struct mu_cmd *c)
{
    char text[200];
    snprintf(text, sizeof text, "%s:%s", c->name, c->sub ? "see its commands" : c->help);
    printf("            ");
    quoted(text);
    putchar('\n');
}

static void zsh_group(const struct mu_cmd *c)
{
    if (c->sub) {
        printf("            %s) compadd --", c->name);
        print_subs(c->name);
        puts(" ;;");
    }
}

static void print_zsh(void)
{
    puts("#compdef muster\n_muster() {\n    local -a commands\n"
         "    if (( CURRENT == 2 )); then\n        commands=(");
    each_name(zsh_name);
    puts("        )\n        _describe command commands\n        return\n    fi\n"
         "    if (( CURRENT == 3 )); then\n        case $words[2] in");
    each_name(zsh_group);
    puts("            completion) compadd -- bash zsh fish ;;\n        esac\n    fi\n"
         "    case \"$words[2] $words[3]\" in");
    for (const struct mu_cmd *c = mu_commands; c->name; c++) {
        printf("        \"%s %s\"*) compadd --", c->name, c->sub ? c->sub : "");
        print_flag_words(c);
        puts(" ;;");
    }
    puts(
        "    esac\n    _files\n}\n"
        "if [ \"$funcstack[1]\" = _muster ]; then _muster \"$@\"; else compdef _muster muster; fi");
}

static void fish_name(const struct mu_cmd *c)
{
    printf("complete -c muster -n __fish_use_subcommand -f -a %s -d ", c->name);
    quoted(c->sub ? "see its commands" : c->help);
    putchar('\n');
}

static void fish_flags(const struct mu_cmd *c, const struct mu_flag *f)
{
    for (; f && f->name; f++) {
        printf("complete -c muster -n '__fish_seen_subcommand_from %s%s%s' -l %s", c->name,
               c->sub ? "; and __fish_seen_subcommand_from " : "", c->sub ? c->sub : "", f->name);
        if (f->letter) {
            printf(" -s %c", f->letter);
        }
        fputs(f->value ? " -r -d " : " -d ", stdout);
        quoted(f->help);
        putchar('\n');
    }
}

static void print_fish(void)
{
    puts("# fish completion for muster");
    each_name(fish_name);
    for (const struct mu_cmd *c = mu_commands; c->name; c++) {
        if (c->sub) {
            printf("complete -c muster -n '__fish_seen_subcommand_from %s' -f -a %s -d ", c->name,
                   c->sub);
            quoted(c->help);
            putchar('\n');
        }
        fish_flags(c, c->flags);
        fish_flags(c, c->client ? mu_client_flags : NULL);
    }
    puts("complete -c muster -n '__fish_seen_subcommand_from completion' -f -a 'bash zsh fish'");
}

int mu_cmd_completion(struct mu_cli *cli)
{
    const char *shell = cli->args[0];
    if (!strcmp(shell, "bash")) {
        print_bash();
    } else if (!strcmp(shell, "zsh")) {
        print_zsh();
    } else if (!strcmp(shell, "fish")) {
        print_fish();
    } else {
        return mu_usage(cli->cmd, "%s: expected bash, zsh or fish", shell);
    }
    return MU_EXIT_OK;
}
