#include "runner/harness.h"

#include <errno.h>
#include <stdio.h>

/* How each program takes a prompt. The permission arguments follow the prompt, so that a stand-in
 * which looks at its first two words finds what the reference passes. They switch the programs' own
 * questions off: nobody could answer them, and the sandbox around them is what protects. */
static const struct program {
    const char *name, *alias, *var, *command;
    const char *arg[3];    /* before the prompt, given as an argument */
    const char *stdin_[3]; /* instead, when it comes on standard input */
    const char *extra;     /* default of OZ_SIDECAR_<VAR>_ARGS */
} programs[] = {
    [MU_HARNESS_CLAUDE] = {"claude",
                           "claude-code",
                           "CLAUDE",
                           "claude",
                           {"-p"},
                           {"-p"},
                           "--permission-mode bypassPermissions"},
    [MU_HARNESS_CODEX] = {"codex",
                          NULL,
                          "CODEX",
                          "codex",
                          {"exec"},
                          {"exec", "-"},
                          "--skip-git-repo-check --dangerously-bypass-approvals-and-sandbox"},
    [MU_HARNESS_GEMINI] = {"gemini", "gemini-cli", "GEMINI", "gemini", {"-p"}, {NULL}, "--yolo"},
    [MU_HARNESS_OPENCODE] = {"opencode", NULL, "OPENCODE", "opencode", {"run"}, {"run"}, ""},
    [MU_HARNESS_SHELL] = {"shell", "sh", "SHELL", "/bin/sh", {NULL}, {NULL}, ""},
    [MU_HARNESS_CUSTOM] = {"custom", NULL, "CUSTOM", NULL, {NULL}, {NULL}, ""},
};

const char *mu_harness_name(enum mu_harness h)
{
    return programs[h].name;
}

static bool given(const char *word)
{
    return word && *word && strcmp(word, "oz") != 0;
}

static int by_word(const char *word, enum mu_harness *ret, struct mu_err *err)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(programs); i++) {
        const struct program *p = &programs[i];
        if (mu_bytes_eq_nocase(mu_str(word), mu_str(p->name)) ||
            (p->alias && mu_bytes_eq_nocase(mu_str(word), mu_str(p->alias)))) {
            *ret = (enum mu_harness)i;
            return 0;
        }
    }
    return mu_err_set(err, MU_E_INVALID, "unsupported harness \"%.80s\"", word);
}

int mu_harness_choose(const struct mu_harness_hints *hints, enum mu_harness *ret,
                      struct mu_err *err)
{
    if (given(hints->env)) {
        return by_word(hints->env, ret, err);
    }
    if (given(hints->arg)) {
        return by_word(hints->arg, ret, err);
    }
    for (int h = MU_HARNESS_CLAUDE; h <= MU_HARNESS_GEMINI; h++) {
        if (mu_bytes_find_nocase(mu_str(hints->model), mu_str(programs[h].name)) >= 0) {
            *ret = (enum mu_harness)h;
            return 0;
        }
    }
    if (given(hints->fallback)) {
        return by_word(hints->fallback, ret, err);
    }
    return mu_err_set(err, MU_E_INVALID,
                      "no harness for model \"%.80s\": name one (OZ_HARNESS, --harness or "
                      "OZ_SIDECAR_DEFAULT_HARNESS)",
                      hints->model ? hints->model : "");
}

/* Appends the blank-separated words of `text`, which it cuts up. */
static int add_words(struct mu_harness_cmd *cmd, size_t *n, char *text)
{
    size_t words = 0;
    for (char *p = text; *p;) {
        p += strspn(p, " \t\r\n");
        if (!*p) {
            break;
        }
        if (++words > MU_HARNESS_WORDS) {
            return MU_E_INVALID;
        }
        cmd->argv[(*n)++] = p;
        p += strcspn(p, " \t\r\n");
        if (*p) {
            *p++ = 0;
        }
    }
    return 0;
}

static int custom(struct mu_harness_cmd *cmd, const char *(*get)(const char *), struct mu_err *err)
{
    const char *text = get("OZ_SIDECAR_CUSTOM_CMD");
    if (!text || !*text) {
        return mu_err_set(err, MU_E_INVALID, "harness custom needs OZ_SIDECAR_CUSTOM_CMD");
    }
    cmd->argv[0] = "/bin/sh";
    cmd->argv[1] = "-c";
    cmd->argv[2] = text;
    cmd->prompt_on_stdin = true;
    return 0;
}

static int build(enum mu_harness h, mu_bytes prompt, const char *script,
                 const char *(*get)(const char *), struct mu_harness_cmd *cmd, struct mu_err *err)
{
    if (h == MU_HARNESS_CUSTOM) {
        return custom(cmd, get, err);
    }
    const struct program *p = &programs[h];
    char name[48];
    size_t n = 0;
    snprintf(name, sizeof name, "OZ_SIDECAR_%s_CMD", p->var);
    const char *override = get(name);
    cmd->argv[n++] = override ? override : p->command;
    if (h == MU_HARNESS_SHELL) {
        cmd->argv[n++] = script;
        return 0;
    }
    /* One that begins with "-" would be taken for an option. */
    cmd->prompt_on_stdin = prompt.len >= MU_PROMPT_ARG_MAX || !prompt.len || prompt.ptr[0] == '-' ||
                           memchr(prompt.ptr, 0, prompt.len);
    const char *const *words = cmd->prompt_on_stdin ? p->stdin_ : p->arg;
    for (size_t i = 0; i < MU_ARRAY_LEN(p->arg) && words[i]; i++) {
        cmd->argv[n++] = words[i];
    }
    if (!cmd->prompt_on_stdin) {
        cmd->prompt = mu_bytes_dup(prompt);
        if (!cmd->prompt) {
            return -ENOMEM;
        }
        cmd->argv[n++] = cmd->prompt;
    }
    snprintf(name, sizeof name, "OZ_SIDECAR_%s_ARGS", p->var);
    const char *extra = get(name);
    cmd->words = mu_bytes_dup(mu_str(extra ? extra : p->extra));
    if (!cmd->words) {
        return -ENOMEM;
    }
    int r = add_words(cmd, &n, cmd->words);
    return r ? mu_err_set(err, r, "%s has more than %d words", name, MU_HARNESS_WORDS) : 0;
}

int mu_harness_command(enum mu_harness h, mu_bytes prompt, const char *script,
                       const char *(*get)(const char *name), struct mu_harness_cmd *ret,
                       struct mu_err *err)
{
    struct mu_harness_cmd cmd = {0};
    int r = build(h, prompt, script, get, &cmd, err);
    if (r) {
        mu_harness_cmd_fini(&cmd);
        return r;
    }
    *ret = cmd;
    return 0;
}

void mu_harness_cmd_fini(struct mu_harness_cmd *cmd)
{
    mu_free(cmd->words);
    mu_free(cmd->prompt);
    *cmd = (struct mu_harness_cmd){0};
}
