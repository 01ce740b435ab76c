/* Which commands merge, add dependencies, read secrets, deploy, or speak to other machines. */
#include "exec/agents/policy_int.h"

/* A program with the subcommand words that make it the action; "" = whatever it is called with. `|`
 * parts alternatives. */
static const struct rule {
    const char *program, *sub;
    enum mu_guard_action action;
    enum mu_guard_risk risk;
} rules[] = {
    {"git", "push", MU_GUARD_MERGE, MU_GUARD_MED},
    {"gh", "pr merge|api", MU_GUARD_MERGE, MU_GUARD_MED},
    {"glab", "mr merge|mr accept|api", MU_GUARD_MERGE, MU_GUARD_MED},
    {"hub", "push|merge|sync|api", MU_GUARD_MERGE, MU_GUARD_MED},
    {"npm", "install|i|add|ci|update|up|exec|x|in|link|isntall", MU_GUARD_DEPS_ADD, MU_GUARD_LOW},
    {"npx", "", MU_GUARD_DEPS_ADD, MU_GUARD_LOW},
    {"pnpm", "install|i|add|update|up|dlx|link", MU_GUARD_DEPS_ADD, MU_GUARD_LOW},
    {"yarn", "add|install|up|upgrade|dlx|global|link", MU_GUARD_DEPS_ADD, MU_GUARD_LOW},
    {"bun", "install|i|add|update|x|link", MU_GUARD_DEPS_ADD, MU_GUARD_LOW},
    {"bunx", "", MU_GUARD_DEPS_ADD, MU_GUARD_LOW},
    {"pip", "install|download", MU_GUARD_DEPS_ADD, MU_GUARD_LOW},
    {"pip3", "install|download", MU_GUARD_DEPS_ADD, MU_GUARD_LOW},
    {"pipx", "install|run|inject|upgrade", MU_GUARD_DEPS_ADD, MU_GUARD_LOW},
    {"uv", "add|pip install|sync|tool install|tool run", MU_GUARD_DEPS_ADD, MU_GUARD_LOW},
    {"uvx", "", MU_GUARD_DEPS_ADD, MU_GUARD_LOW},
    {"poetry", "add|install|update|self", MU_GUARD_DEPS_ADD, MU_GUARD_LOW},
    {"conda", "install|create|update", MU_GUARD_DEPS_ADD, MU_GUARD_LOW},
    {"cargo", "add|install|update", MU_GUARD_DEPS_ADD, MU_GUARD_LOW},
    {"go", "get|install", MU_GUARD_DEPS_ADD, MU_GUARD_LOW},
    {"gem", "install|update", MU_GUARD_DEPS_ADD, MU_GUARD_LOW},
    {"bundle", "add|install|update", MU_GUARD_DEPS_ADD, MU_GUARD_LOW},
    {"composer", "require|install|update|global", MU_GUARD_DEPS_ADD, MU_GUARD_LOW},
    {"dotnet", "add|tool install", MU_GUARD_DEPS_ADD, MU_GUARD_LOW},
    {"apt", "install|upgrade|full-upgrade", MU_GUARD_DEPS_ADD, MU_GUARD_LOW},
    {"apt-get", "install|upgrade|dist-upgrade", MU_GUARD_DEPS_ADD, MU_GUARD_LOW},
    {"apk", "add|upgrade", MU_GUARD_DEPS_ADD, MU_GUARD_LOW},
    {"dnf", "install|upgrade", MU_GUARD_DEPS_ADD, MU_GUARD_LOW},
    {"yum", "install|upgrade", MU_GUARD_DEPS_ADD, MU_GUARD_LOW},
    {"brew", "install|upgrade|tap", MU_GUARD_DEPS_ADD, MU_GUARD_LOW},
    {"printenv", "", MU_GUARD_SECRETS, MU_GUARD_MED},
    {"vault", "", MU_GUARD_SECRETS, MU_GUARD_HIGH},
    {"op", "", MU_GUARD_SECRETS, MU_GUARD_HIGH},
    {"pass", "", MU_GUARD_SECRETS, MU_GUARD_HIGH},
    {"bw", "", MU_GUARD_SECRETS, MU_GUARD_HIGH},
    {"doppler", "", MU_GUARD_SECRETS, MU_GUARD_HIGH},
    {"sops", "", MU_GUARD_SECRETS, MU_GUARD_HIGH},
    {"security", "find-generic-password|find-internet-password", MU_GUARD_SECRETS, MU_GUARD_HIGH},
    {"gh", "auth token|secret|variable", MU_GUARD_SECRETS, MU_GUARD_HIGH},
    {"git", "credential", MU_GUARD_SECRETS, MU_GUARD_HIGH},
    {"aws", "secretsmanager|ssm", MU_GUARD_SECRETS, MU_GUARD_HIGH},
    {"gcloud", "secrets|auth", MU_GUARD_SECRETS, MU_GUARD_HIGH},
    {"kubectl", "get secret|get secrets|describe secret", MU_GUARD_SECRETS, MU_GUARD_HIGH},
    {"npm", "publish|unpublish|dist-tag|deprecate|token", MU_GUARD_DEPLOY, MU_GUARD_HIGH},
    {"pnpm", "publish", MU_GUARD_DEPLOY, MU_GUARD_HIGH},
    {"yarn", "publish|npm publish", MU_GUARD_DEPLOY, MU_GUARD_HIGH},
    {"cargo", "publish|yank", MU_GUARD_DEPLOY, MU_GUARD_HIGH},
    {"poetry", "publish", MU_GUARD_DEPLOY, MU_GUARD_HIGH},
    {"uv", "publish", MU_GUARD_DEPLOY, MU_GUARD_HIGH},
    {"gem", "push", MU_GUARD_DEPLOY, MU_GUARD_HIGH},
    {"twine", "upload", MU_GUARD_DEPLOY, MU_GUARD_HIGH},
    {"docker", "push|login|stack|service|buildx", MU_GUARD_DEPLOY, MU_GUARD_HIGH},
    {"podman", "push|login", MU_GUARD_DEPLOY, MU_GUARD_HIGH},
    {"gh", "release|workflow run|deployment", MU_GUARD_DEPLOY, MU_GUARD_HIGH},
    {"kubectl", "apply|create|delete|edit|patch|replace|rollout|scale|set|exec|drain|run",
     MU_GUARD_DEPLOY, MU_GUARD_HIGH},
    {"helm", "install|upgrade|uninstall|rollback|delete", MU_GUARD_DEPLOY, MU_GUARD_HIGH},
    {"terraform", "apply|destroy|import|taint|state", MU_GUARD_DEPLOY, MU_GUARD_HIGH},
    {"tofu", "apply|destroy|import|taint|state", MU_GUARD_DEPLOY, MU_GUARD_HIGH},
    {"pulumi", "up|update|destroy|import|refresh", MU_GUARD_DEPLOY, MU_GUARD_HIGH},
    {"ansible-playbook", "", MU_GUARD_DEPLOY, MU_GUARD_HIGH},
    {"ansible", "", MU_GUARD_DEPLOY, MU_GUARD_HIGH},
    {"aws", "", MU_GUARD_DEPLOY, MU_GUARD_HIGH},
    {"gcloud", "", MU_GUARD_DEPLOY, MU_GUARD_HIGH},
    {"gsutil", "", MU_GUARD_DEPLOY, MU_GUARD_HIGH},
    {"az", "", MU_GUARD_DEPLOY, MU_GUARD_HIGH},
    {"vercel", "", MU_GUARD_DEPLOY, MU_GUARD_HIGH},
    {"netlify", "deploy|api", MU_GUARD_DEPLOY, MU_GUARD_HIGH},
    {"fly", "deploy|launch|apps|machine|scale", MU_GUARD_DEPLOY, MU_GUARD_HIGH},
    {"flyctl", "deploy|launch|apps|machine|scale", MU_GUARD_DEPLOY, MU_GUARD_HIGH},
    {"heroku", "", MU_GUARD_DEPLOY, MU_GUARD_HIGH},
    {"wrangler", "deploy|publish|delete", MU_GUARD_DEPLOY, MU_GUARD_HIGH},
    {"serverless", "deploy|remove", MU_GUARD_DEPLOY, MU_GUARD_HIGH},
    {"cap", "", MU_GUARD_DEPLOY, MU_GUARD_HIGH},
    {"curl", "", MU_GUARD_NETWORK, MU_GUARD_MED},
    {"wget", "", MU_GUARD_NETWORK, MU_GUARD_MED},
    {"ssh", "", MU_GUARD_NETWORK, MU_GUARD_HIGH},
    {"scp", "", MU_GUARD_NETWORK, MU_GUARD_HIGH},
    {"sftp", "", MU_GUARD_NETWORK, MU_GUARD_HIGH},
    {"rsync", "", MU_GUARD_NETWORK, MU_GUARD_MED},
    {"nc", "", MU_GUARD_NETWORK, MU_GUARD_MED},
    {"ncat", "", MU_GUARD_NETWORK, MU_GUARD_MED},
    {"socat", "", MU_GUARD_NETWORK, MU_GUARD_MED},
    {"telnet", "", MU_GUARD_NETWORK, MU_GUARD_MED},
    {"ftp", "", MU_GUARD_NETWORK, MU_GUARD_MED},
};

/* Options of the program itself that take the next word, before any subcommand. */
static const struct {
    const char *program, *options;
} valued[] = {
    {"git", " -C -c --git-dir --work-tree --namespace --exec-path --super-prefix "},
    {"gh", " -R --repo "},
    {"npm", " --prefix -w --workspace -C "},
    {"pnpm", " -C --dir --filter -F "},
    {"yarn", " --cwd "},
    {"cargo", " --config -C --color -Z --manifest-path "},
    {"kubectl", " -n --namespace --context --cluster --kubeconfig -s --server --user --token "},
    {"helm", " -n --namespace --kube-context --kubeconfig "},
    {"docker", " -H --host -c --context --config -l --log-level "},
    {"terraform", " "},
};

static bool takes_value(mu_bytes program, mu_bytes option)
{
    char text[64];
    if (option.len + 2 >= sizeof text) {
        return false;
    }
    text[0] = ' ';
    memcpy(text + 1, option.ptr, option.len);
    memcpy(text + 1 + option.len, " ", 2);
    for (size_t i = 0; i < MU_ARRAY_LEN(valued); i++) {
        if (mu_bytes_is(program, valued[i].program)) {
            return strstr(valued[i].options, text) != NULL;
        }
    }
    return false;
}

/* The words that are no options, from the subcommand on. */
struct plain {
    mu_bytes words[3];
    bool dynamic[3];
    size_t n;
};

static struct plain plain_words(const struct mu_shell_command *c)
{
    struct plain p = {.n = 0};
    for (size_t i = 1; i < c->n && p.n < MU_ARRAY_LEN(p.words); i++) {
        mu_bytes w = c->words[i].text;
        if (!c->words[i].dynamic && w.len > 1 && w.ptr[0] == '-') {
            i += takes_value(c->words[0].text, w);
            continue;
        }
        if (!c->words[i].dynamic && mu_bytes_starts(w, MU_B("+"))) {
            continue; /* cargo +nightly */
        }
        p.words[p.n] = w;
        p.dynamic[p.n++] = c->words[i].dynamic;
    }
    return p;
}

/* 1 yes, 0 no, -1 it is only known when it runs. */
static int sub_matches(const char *subs, const struct plain *p)
{
    int found = *subs ? 0 : 1;
    for (mu_bytes rest = mu_str(subs); rest.len && found != 1;) {
        mu_bytes one = mu_bytes_split(&rest, '|');
        size_t i = 0;
        int m = 1;
        for (mu_bytes words = one; words.ptr && m == 1; i++) {
            mu_bytes w = mu_bytes_split(&words, ' ');
            m = i >= p->n ? 0 : p->dynamic[i] ? -1 : mu_bytes_eq(w, p->words[i]);
        }
        found = m ? m : found;
    }
    return found;
}

static bool in_list(mu_bytes word, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (mu_bytes_is(word, list[i])) {
            return true;
        }
    }
    return false;
}

/* --- git --- */

static bool to_protected_branch(const struct mu_guard *g, const struct mu_shell_command *c)
{
    for (size_t i = 1; i < c->n; i++) {
        mu_bytes w = c->words[i].text;
        ptrdiff_t colon = mu_bytes_find_char(w, ':');
        mu_bytes target = mu_bytes_from(w, (size_t)(colon + 1));
        for (size_t k = 0; k < g->branches.n; k++) {
            if (mu_bytes_eq(target, g->branches.items[k]) || mu_bytes_eq(w, g->branches.items[k])) {
                return true;
            }
        }
    }
    return false;
}

static void git(const struct mu_guard *g, const struct mu_shell_command *c, const struct plain *p,
                struct mu_guard_class *k)
{
    bool force = false;
    for (size_t i = 1; i < c->n; i++) {
        mu_bytes w = c->words[i].text;
        bool config = i > 1 && mu_bytes_is(c->words[i - 1].text, "-c");
        if (config && mu_bytes_find_char(w, '=') > 0) {
            /* an alias, an editor, a transport of its own can run anything */
            k->uncertain = k->uncertain || !mu_bytes_starts(w, MU_B("user."));
        }
        k->uncertain = k->uncertain || mu_bytes_starts(w, MU_B("--upload-pack")) ||
                       mu_bytes_starts(w, MU_B("--exec-path=")) ||
                       mu_bytes_starts(w, MU_B("--config-env"));
        force = force || mu_bytes_is(w, "-f") || mu_bytes_starts(w, MU_B("--force")) ||
                mu_bytes_is(w, "--mirror") || mu_bytes_is(w, "--delete") ||
                mu_bytes_starts(w, MU_B("+"));
    }
    if (p->n && mu_bytes_is(p->words[0], "merge") && g->branches.n) {
        k->action = MU_GUARD_MERGE; /* which branch is checked out is not known here */
        k->risk = MU_GUARD_MED;
    }
    if (k->action == MU_GUARD_MERGE && (force || to_protected_branch(g, c))) {
        k->risk = MU_GUARD_HIGH;
    }
}

/* --- what destroys --- */

static bool whole_machine(mu_bytes path)
{
    static const char *const places[] = {"/",    "/*",   "~",    "~/",   "~/*",   "/home", "/etc",
                                         "/usr", "/var", "/bin", "/lib", "/boot", "/root", "/."};
    return in_list(path, places, MU_ARRAY_LEN(places));
}

static bool destroys(const struct mu_shell_command *c)
{
    mu_bytes name = c->words[0].text;
    bool recursive = false, place = false;
    if (mu_bytes_starts(name, MU_B("mkfs")) || mu_bytes_is(name, "wipefs")) {
        return true;
    }
    bool dd = mu_bytes_is(name, "dd"), rm = mu_bytes_is(name, "rm");
    bool change = mu_bytes_is(name, "chmod") || mu_bytes_is(name, "chown");
    for (size_t i = 1; i < c->n; i++) {
        mu_bytes w = c->words[i].text;
        if (dd && mu_bytes_starts(w, MU_B("of=/dev/")) && !mu_bytes_is(w, "of=/dev/null")) {
            return true;
        }
        bool option = w.len > 1 && w.ptr[0] == '-';
        recursive = recursive || mu_bytes_is(w, "--recursive") ||
                    (option && w.ptr[1] != '-' &&
                     (mu_bytes_find_char(w, 'r') > 0 || mu_bytes_find_char(w, 'R') > 0));
        place = place || whole_machine(w);
    }
    return (rm || change) && recursive && place;
}

/* --- hosts and paths --- */

mu_bytes mu_guard_host(mu_bytes url)
{
    ptrdiff_t at = mu_bytes_find(url, MU_B("://"));
    if (at < 0) {
        return MU_B_NONE;
    }
    mu_bytes rest = mu_bytes_from(url, (size_t)at + 3);
    size_t n = 0;
    while (n < rest.len && !strchr("/?#\\", rest.ptr[n])) {
        n++;
    }
    rest = mu_bytes_head(rest, n);
    for (size_t i = rest.len; i-- > 0;) {
        if (rest.ptr[i] == '@') {
            rest = mu_bytes_from(rest, i + 1);
            break;
        }
    }
    ptrdiff_t colon = mu_bytes_find_char(rest, ':');
    rest = colon >= 0 ? mu_bytes_head(rest, (size_t)colon) : rest;
    return rest.len ? rest : MU_B_NONE;
}

/* The ones that village 10.6 names, when the policy has no list. */
bool mu_guard_host_allowed(const struct mu_guard *g, mu_bytes host)
{
    static const char *const standard[] = {"github.com", "gitlab.com", "bitbucket.org",
                                           "npmjs.org",  "npmjs.com",  "pypi.org"};
    size_t n = g->egress.items ? g->egress.n : MU_ARRAY_LEN(standard);
    for (size_t i = 0; i < n && host.ptr; i++) {
        mu_bytes one = g->egress.items ? g->egress.items[i] : mu_str(standard[i]);
        if (mu_bytes_is(one, "*")) {
            return true;
        }
        one = mu_bytes_starts(one, MU_B("*.")) ? mu_bytes_from(one, 2) : one;
        if (mu_bytes_eq_nocase(one, host)) {
            return true;
        }
        if (host.len > one.len && host.ptr[host.len - one.len - 1] == '.' &&
            mu_bytes_eq_nocase(one, mu_bytes_from(host, host.len - one.len))) {
            return true;
        }
    }
    return false;
}

static mu_bytes last_part(mu_bytes path)
{
    for (size_t i = path.len; i-- > 0;) {
        if (path.ptr[i] == '/') {
            return mu_bytes_from(path, i + 1);
        }
    }
    return path;
}

bool mu_guard_secret_path(mu_bytes path)
{
    static const char *const names[] = {".env",   ".netrc",           ".npmrc",   ".pypirc",
                                        "id_rsa", "id_ed25519",       "id_ecdsa", "credentials",
                                        "shadow", ".git-credentials", ".pgpass",  "id_dsa"};
    static const char *const folders[] = {"/.ssh/",  "/.gnupg/",  "/.aws/",
                                          "/.kube/", "/.docker/", "/.config/gh/"};
    mu_bytes name = last_part(path);
    if (in_list(name, names, MU_ARRAY_LEN(names)) || mu_bytes_ends(name, MU_B(".pem")) ||
        mu_bytes_ends(name, MU_B(".key"))) {
        return true;
    }
    bool sample = mu_bytes_ends(name, MU_B(".example")) || mu_bytes_ends(name, MU_B(".sample")) ||
                  mu_bytes_ends(name, MU_B(".template"));
    if (mu_bytes_starts(name, MU_B(".env.")) && !sample) {
        return true;
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(folders); i++) {
        mu_bytes f = mu_str(folders[i]);
        if (mu_bytes_find(path, f) >= 0 || mu_bytes_starts(path, mu_bytes_from(f, 1))) {
            return true;
        }
    }
    return (mu_bytes_starts(path, MU_B("/proc/")) && mu_bytes_is(name, "environ"));
}

/* A protected path is a folder or a file, anywhere below the workspace or absolute. */
bool mu_guard_protected(const struct mu_guard *g, mu_bytes path)
{
    for (size_t i = 0; i < g->paths.n; i++) {
        mu_bytes rule = g->paths.items[i];
        while (rule.len > 1 && (rule.ptr[rule.len - 1] == '/' || rule.ptr[rule.len - 1] == '*')) {
            rule.len--;
        }
        mu_bytes rest = path;
        for (ptrdiff_t at; (at = mu_bytes_find(rest, rule)) >= 0;) {
            bool begins = at == 0
                              ? rest.ptr == path.ptr || rest.ptr[-1] == '/' || rule.ptr[0] == '/'
                              : rest.ptr[at - 1] == '/' || rule.ptr[0] == '/';
            size_t end = (size_t)at + rule.len;
            if (begins && (end == rest.len || rest.ptr[end] == '/')) {
                return true;
            }
            rest = mu_bytes_from(rest, (size_t)at + 1);
        }
    }
    return false;
}

/* --- one command --- */

/* Words that name files, for programs that may read them: all of them, since any program may. */
static bool touches_secrets(const struct mu_guard *g, const struct mu_shell_command *c)
{
    static const char *const harmless[] = {"echo", "printf", "git", "rm", "touch", "test", "["};
    if (in_list(c->words[0].text, harmless, MU_ARRAY_LEN(harmless))) {
        return false;
    }
    for (size_t i = 1; i < c->n; i++) {
        mu_bytes w = c->words[i].text;
        ptrdiff_t eq = mu_bytes_find_char(w, '=');
        mu_bytes value = mu_bytes_from(w, (size_t)(eq + 1));
        if (mu_guard_secret_path(w) || mu_guard_secret_path(value) || mu_guard_protected(g, w)) {
            return true;
        }
    }
    return false;
}

static bool asks_network(const struct mu_shell *s, size_t i)
{
    static const char *const loads[] = {"curl", "wget", "fetch"};
    return i > 0 && in_list(s->commands[i - 1].words[0].text, loads, MU_ARRAY_LEN(loads));
}

static mu_bytes host_of(const struct mu_shell_command *c)
{
    mu_bytes host = MU_B_NONE;
    for (size_t i = 1; i < c->n; i++) {
        mu_bytes h = mu_guard_host(c->words[i].text);
        if (h.ptr && (c->words[i].dynamic || (host.ptr && !mu_bytes_eq(h, host)))) {
            return MU_B_NONE; /* more than one, or not known */
        }
        host = h.ptr ? h : host;
    }
    return host;
}

static void by_table(const struct mu_shell_command *c, const struct plain *p,
                     struct mu_guard_class *k)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(rules); i++) {
        const struct rule *r = &rules[i];
        if (!mu_bytes_is(c->words[0].text, r->program)) {
            continue;
        }
        int m = sub_matches(r->sub, p);
        k->uncertain = k->uncertain || m < 0;
        if (m == 1 && r->action > k->action && !(k->action > MU_GUARD_SHELL && !*r->sub)) {
            k->action = r->action;
            k->risk = r->risk;
        }
    }
}

/* Programs that go by several names, and scripts of package managers that say what they do. */
static void by_habit(const struct mu_shell_command *c, const struct plain *p,
                     struct mu_guard_class *k)
{
    static const char *const releases[] = {"deploy", "release", "publish", "rollback", "promote"};
    static const char *const runners[] = {"npm",  "pnpm", "yarn", "bun", "make",
                                          "just", "task", "rake", "mage"};
    mu_bytes name = c->words[0].text;
    bool python = mu_bytes_starts(name, MU_B("python"));
    if (python && c->n > 3 && mu_bytes_is(c->words[1].text, "-m") &&
        mu_bytes_is(c->words[2].text, "pip") && mu_bytes_is(c->words[3].text, "install")) {
        k->action = MU_GUARD_DEPS_ADD;
        k->risk = MU_GUARD_LOW;
    }
    if (mu_bytes_is(name, "env") && !c->starts) {
        k->action = MU_GUARD_SECRETS;
        k->risk = MU_GUARD_MED;
    }
    if (in_list(name, runners, MU_ARRAY_LEN(runners))) {
        for (size_t i = 0; i < p->n; i++) {
            mu_bytes w = p->words[i];
            ptrdiff_t colon = mu_bytes_find_char(w, ':');
            mu_bytes first = colon > 0 ? mu_bytes_head(w, (size_t)colon) : w;
            if (in_list(first, releases, MU_ARRAY_LEN(releases))) {
                k->action = MU_GUARD_DEPLOY;
                k->risk = MU_GUARD_HIGH;
            }
        }
    }
}

struct mu_guard_class mu_guard_classify(const struct mu_guard *g, const struct mu_shell *s,
                                        size_t command)
{
    const struct mu_shell_command *c = &s->commands[command];
    struct mu_guard_class k = {.action = MU_GUARD_SHELL, .risk = MU_GUARD_MED};
    struct plain p = plain_words(c);
    by_table(c, &p, &k);
    by_habit(c, &p, &k);
    if (mu_bytes_is(c->words[0].text, "git")) {
        git(g, c, &p, &k);
    }
    if (k.action < MU_GUARD_SECRETS && touches_secrets(g, c)) {
        k.action = MU_GUARD_SECRETS;
        k.risk = MU_GUARD_HIGH;
    }
    k.destroys = destroys(c);
    if (c->script && asks_network(s, command)) {
        k.uncertain = true;
        k.risk = MU_GUARD_HIGH;
    }
    if (k.action == MU_GUARD_NETWORK) {
        k.host = host_of(c);
    }
    return k;
}
