#include "runner/args.h"

#include "base/bytes.h"

enum takes { SWITCH, VALUE, MAYBE };

/* All flags of both dialects. One that takes a value must be known even where it means nothing
 * here, or its value would be read as a flag. */
static const struct flag {
    const char *name;
    enum takes takes;
} flags[] = {
    {"--model", VALUE},
    {"--harness", VALUE},
    {"--task-id", VALUE},
    {"--server-root-url", VALUE},
    {"--environment", VALUE},
    {"--profile", VALUE},
    {"--skill", VALUE},
    {"--mcp", VALUE},
    {"--bedrock-inference-role", VALUE},
    {"--bedrock-role-region", VALUE},
    {"--snapshot-upload-timeout", VALUE},
    {"--snapshot-script-timeout", VALUE},
    {"--session-sharing-server-url", VALUE},
    {"--share", MAYBE},
    {"--idle-on-complete", MAYBE},
    {"--sandboxed", SWITCH},
    {"--computer-use", SWITCH},
    {"--no-computer-use", SWITCH},
    {"--no-snapshot", SWITCH},
    {"--self-test", SWITCH},
};

static const struct flag *find(mu_bytes name)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(flags); i++) {
        if (mu_bytes_is(name, flags[i].name)) {
            return &flags[i];
        }
    }
    return NULL;
}

static void keep(struct mu_runner_args *a, const struct flag *f, const char *value)
{
    if (strcmp(f->name, "--model") == 0) {
        a->model = value;
    } else if (strcmp(f->name, "--harness") == 0) {
        a->harness = value;
    } else if (strcmp(f->name, "--task-id") == 0) {
        a->task_id = value;
    } else if (strcmp(f->name, "--server-root-url") == 0) {
        a->server_root_url = value;
    } else if (strcmp(f->name, "--self-test") == 0) {
        a->self_test = true;
    }
}

int mu_runner_args_parse(int argc, char **argv, struct mu_runner_args *ret, struct mu_err *err)
{
    struct mu_runner_args a = {0};
    int i = 0;
    while (i < argc && (strcmp(argv[i], "agent") == 0 || strcmp(argv[i], "run") == 0)) {
        i++;
    }
    for (; i < argc; i++) {
        mu_bytes word = mu_str(argv[i]);
        ptrdiff_t eq = mu_bytes_starts(word, MU_B("--")) ? mu_bytes_find_char(word, '=') : -1;
        const struct flag *f = find(eq < 0 ? word : mu_bytes_head(word, (size_t)eq));
        if (!f) {
            continue;
        }
        const char *value = eq < 0 ? NULL : argv[i] + eq + 1;
        if (!value && f->takes == VALUE) {
            if (++i == argc) {
                return mu_err_set(err, MU_E_INVALID, "%s needs a value", f->name);
            }
            value = argv[i];
        } else if (!value && f->takes == MAYBE && i + 1 < argc && argv[i + 1][0] != '-') {
            value = argv[++i];
        }
        keep(&a, f, value);
    }
    *ret = a;
    return 0;
}
