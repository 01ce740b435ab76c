#include "exec/agents/policy.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "exec/agents/policy_int.h"
#include "proto/jtok.h"

enum { SHELL_MEMORY = 4 << 20 };

static const char *const action_names[] = {"tool",  "shell",   "network", "deps_add",
                                           "merge", "secrets", "deploy"};

const char *mu_guard_action_name(enum mu_guard_action a)
{
    return action_names[a];
}

const char *mu_guard_risk_name(enum mu_guard_risk r)
{
    static const char *const names[] = {"low", "med", "high"};
    return names[r];
}

/* --- reading it --- */

static unsigned bit(enum mu_guard_action a)
{
    return 1U << a;
}

static void defaults(struct mu_guard *g)
{
    static mu_bytes any = {"*", 1};
    g->shell_allow = (struct mu_guard_list){&any, 1};
    g->asks =
        bit(MU_GUARD_MERGE) | bit(MU_GUARD_DEPS_ADD) | bit(MU_GUARD_SECRETS) | bit(MU_GUARD_DEPLOY);
    g->shell_default = MU_GUARD_ASK;
}

static int read_list(struct mu_guard *g, const struct mu_jtok *j, const char *key,
                     struct mu_guard_list *ret, struct mu_err *err)
{
    struct mu_buf text MU_CLEANUP(mu_buf_fini);
    int v = mu_jtok_get(j, 0, key);
    mu_buf_init(&text, 8192);
    if (v < 0 || mu_jtok_kind(j, v) == MU_JTOK_NULL) {
        return 0;
    }
    if (mu_jtok_kind(j, v) != MU_JTOK_ARRAY) {
        return mu_err_set(err, MU_E_INVALID, "policy: %s is no list", key);
    }
    struct mu_guard_list list = {mu_arena_calloc(&g->arena, MU_GUARD_LIST * sizeof(mu_bytes)), 0};
    for (int i = mu_jtok_first(j, v); i >= 0; i = mu_jtok_next(j, v, i)) {
        mu_buf_clear(&text);
        if (list.n == MU_GUARD_LIST || mu_jtok_add(j, i, &text) < 0) {
            return mu_err_set(err, MU_E_INVALID, "policy: %s has too many items or no text", key);
        }
        mu_bytes item =
            list.items ? mu_arena_dup(&g->arena, mu_bytes_trim(mu_buf_bytes(&text))) : MU_B_NONE;
        if (!item.ptr) {
            return mu_err_set(err, -ENOMEM, "policy: no memory");
        }
        list.items[list.n] = item;
        list.n += item.len > 0;
    }
    *ret = list;
    return list.items ? 0 : mu_err_set(err, -ENOMEM, "policy: no memory");
}

static int read_asks(struct mu_guard *g, const struct mu_jtok *j, struct mu_err *err)
{
    struct mu_guard_list words = {NULL, 0};
    int r = read_list(g, j, "requiresApprovalFor", &words, err);
    if (r || !words.items) {
        return r;
    }
    g->asks = 0;
    for (size_t i = 0; i < words.n; i++) {
        size_t k = 0;
        while (k < MU_ARRAY_LEN(action_names) && !mu_bytes_is(words.items[i], action_names[k])) {
            k++;
        }
        if (k == MU_ARRAY_LEN(action_names)) {
            return mu_err_set(err, MU_E_INVALID, "policy: requiresApprovalFor has an unknown word");
        }
        g->asks |= bit((enum mu_guard_action)k);
    }
    return 0;
}

/* One of the words, by its place; `fallback` when the member is missing; -1 for another. */
static int read_word(const struct mu_jtok *j, const char *key, const char *const *words, int n,
                     int fallback)
{
    int v = mu_jtok_get(j, 0, key);
    if (v < 0 || mu_jtok_kind(j, v) == MU_JTOK_NULL) {
        return fallback;
    }
    for (int i = 0; i < n; i++) {
        if (mu_jtok_is(j, v, mu_str(words[i]))) {
            return i;
        }
    }
    return -1;
}

static int read_words(struct mu_guard *g, const struct mu_jtok *j, struct mu_err *err)
{
    static const char *const network[] = {"open", "restricted"},
                             *const deny[] = {"continue", "stop"},
                             *const verdicts[] = {"allow", "ask", "deny"};
    int n = read_word(j, "networkMode", network, 2, 0);
    int d = read_word(j, "onDeny", deny, 2, 0);
    int s = read_word(j, "shellDefault", verdicts, 3, MU_GUARD_ASK);
    if (n < 0 || d < 0 || s < 0) {
        return mu_err_set(err, MU_E_INVALID, "policy: an unknown %s",
                          n < 0   ? "networkMode"
                          : d < 0 ? "onDeny"
                                  : "shellDefault");
    }
    g->restricted = n == 1;
    g->stop_on_deny = d == 1;
    g->shell_default = (enum mu_guard_verdict)s;
    return 0;
}

static int read_all(struct mu_guard *g, mu_bytes json, struct mu_jtok *j, struct mu_err *err)
{
    int r = mu_jtok_parse(j, json);
    if (r || mu_jtok_kind(j, 0) != MU_JTOK_OBJECT) {
        return mu_err_set(err, r ? r : MU_E_INVALID, "policy: no JSON object");
    }
    const struct {
        const char *key;
        struct mu_guard_list *list;
    } lists[] = {{"shellAllowlist", &g->shell_allow},
                 {"shellDenylist", &g->shell_deny},
                 {"protectedPaths", &g->paths},
                 {"protectedBranches", &g->branches},
                 {"egressAllowlist", &g->egress}};
    for (size_t i = 0; i < MU_ARRAY_LEN(lists) && !r; i++) {
        r = read_list(g, j, lists[i].key, lists[i].list, err);
    }
    r = r ? r : read_asks(g, j, err);
    return r ? r : read_words(g, j, err);
}

int mu_guard_read(mu_bytes json, struct mu_guard *ret, struct mu_err *err)
{
    struct mu_guard g = {.restricted = false};
    struct mu_jtok j;
    mu_arena_init(&g.arena, MU_GUARD_TEXT_MAX);
    defaults(&g);
    mu_jtok_init(&j);
    int r = 0;
    json = mu_bytes_trim(json);
    if (json.len > MU_GUARD_TEXT_MAX) {
        r = mu_err_set(err, MU_E_TOO_LARGE, "policy: too long");
    } else if (json.len && !mu_bytes_is(json, "null")) {
        r = read_all(&g, json, &j, err);
    }
    mu_jtok_fini(&j);
    if (r) { /* nothing is allowed unasked */
        mu_arena_fini(&g.arena);
        g = (struct mu_guard){.asks = ~0U, .shell_default = MU_GUARD_ASK, .restricted = true};
        g.arena.max = MU_GUARD_TEXT_MAX;
    }
    *ret = g;
    return r;
}

void mu_guard_fini(struct mu_guard *g)
{
    mu_arena_fini(&g->arena);
    *g = (struct mu_guard){.asks = ~0U};
}

/* --- commands --- */

static void decide(struct mu_guard_answer *a, enum mu_guard_verdict v, enum mu_guard_action action,
                   enum mu_guard_risk risk, const char *fmt, ...) MU_PRINTF(5, 6);
/* The strictest verdict counts, and of equal ones the graver action. */
static void decide(struct mu_guard_answer *a, enum mu_guard_verdict v, enum mu_guard_action action,
                   enum mu_guard_risk risk, const char *fmt, ...)
{
    if (v < a->verdict || (v == a->verdict && a->rule[0] && action <= a->action)) {
        a->risk = MU_MAX(a->risk, v == a->verdict ? risk : a->risk);
        return;
    }
    a->risk = v > a->verdict ? risk : MU_MAX(a->risk, risk);
    a->verdict = v;
    a->action = action;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(a->rule, sizeof a->rule, fmt, ap);
    va_end(ap);
}

enum match { NO, MAYBE, YES };

/* One word of a rule: `*` at its end stands for anything. */
static bool word_matches(mu_bytes rule, mu_bytes word)
{
    if (rule.len && rule.ptr[rule.len - 1] == '*') {
        rule = mu_bytes_head(rule, rule.len - 1);
        return word.len >= rule.len && mu_bytes_eq_nocase(rule, mu_bytes_head(word, rule.len));
    }
    return mu_bytes_eq_nocase(rule, word);
}

/* The words of a rule stand at the beginning of the command; a program by its last name. */
static enum match rule_matches(mu_bytes rule, const struct mu_shell_command *c)
{
    size_t i = 0;
    for (mu_bytes rest = rule; rest.ptr;) {
        mu_bytes word = mu_bytes_trim(mu_bytes_split(&rest, ' '));
        if (!word.len) {
            continue;
        }
        ptrdiff_t slash = -1;
        for (size_t k = 0; i == 0 && k + 1 < word.len; k++) {
            slash = word.ptr[k] == '/' ? (ptrdiff_t)k : slash;
        }
        word = mu_bytes_from(word, (size_t)(slash + 1));
        if (i > 0 && mu_bytes_is(word, "*")) {
            return YES;
        }
        if (i == c->n) {
            return NO;
        }
        if (c->words[i].dynamic) {
            return MAYBE;
        }
        if (!word_matches(word, c->words[i].text)) {
            return NO;
        }
        i++;
    }
    return i ? YES : NO;
}

static mu_bytes list_matches(const struct mu_guard_list *list, const struct mu_shell_command *c,
                             enum match *ret)
{
    mu_bytes found = MU_B_NONE;
    *ret = NO;
    for (size_t i = 0; i < list->n && *ret != YES; i++) {
        enum match m = rule_matches(list->items[i], c);
        if (m > *ret) {
            *ret = m;
            found = list->items[i];
        }
    }
    return found;
}

/* The shell's own words that do nothing to anybody. */
static bool harmless(mu_bytes name)
{
    static const char *const words[] = {"cd",     "pwd",    "true", "false",  ":",
                                        "echo",   "printf", "test", "[",      "[[",
                                        "export", "set",    "exit", "return", "wait"};
    for (size_t i = 0; i < MU_ARRAY_LEN(words); i++) {
        if (mu_bytes_is(name, words[i])) {
            return true;
        }
    }
    return false;
}

static void check_shell_lists(const struct mu_guard *g, const struct mu_shell_command *c,
                              struct mu_guard_answer *a)
{
    enum match m;
    mu_bytes program = mu_bytes_head(c->words[0].text, 60);
    mu_bytes rule = list_matches(&g->shell_deny, c, &m);
    if (m == YES) {
        decide(a, MU_GUARD_DENY, MU_GUARD_SHELL, MU_GUARD_HIGH, "shellDenylist has \"%.*s\"",
               (int)MU_MIN(rule.len, (size_t)100), rule.ptr);
    } else if (m == MAYBE) {
        decide(a, MU_GUARD_ASK, MU_GUARD_SHELL, MU_GUARD_MED, "shellDenylist may mean \"%.*s\"",
               (int)MU_MIN(rule.len, (size_t)100), rule.ptr);
    }
    if (!g->shell_allow.n || (!c->words[0].dynamic && harmless(c->words[0].text))) {
        return; /* as in the reference, an empty one allows any */
    }
    (void)list_matches(&g->shell_allow, c, &m);
    if (m == MAYBE) {
        decide(a, MU_GUARD_ASK, MU_GUARD_SHELL, MU_GUARD_MED, "it is not certain what runs: %.*s",
               MU_ARGS(program));
    } else if (m == NO && g->shell_default != MU_GUARD_ALLOW) {
        decide(a, g->shell_default, MU_GUARD_SHELL, MU_GUARD_MED, "%.*s is not in shellAllowlist",
               MU_ARGS(program));
    }
}

static bool wanted(const struct mu_guard *g, enum mu_guard_action action)
{
    return action == MU_GUARD_TOOL || (g->asks & bit(action));
}

static void check_command(const struct mu_guard *g, const struct mu_shell *s, size_t i,
                          struct mu_guard_answer *a)
{
    const struct mu_shell_command *c = &s->commands[i];
    struct mu_guard_class k = mu_guard_classify(g, s, i);
    mu_bytes program = mu_bytes_head(c->words[0].text, 60);
    check_shell_lists(g, c, a);
    if (k.destroys) {
        decide(a, MU_GUARD_DENY, MU_GUARD_SHELL, MU_GUARD_HIGH, "%.*s would destroy the machine",
               MU_ARGS(program));
    }
    if (k.uncertain) {
        decide(a, MU_GUARD_ASK, MU_GUARD_SHELL, MU_GUARD_MED, "it is not certain what %.*s does",
               MU_ARGS(program));
    }
    if (k.action == MU_GUARD_NETWORK) {
        if (g->restricted && !mu_guard_host_allowed(g, k.host)) {
            decide(a, MU_GUARD_ASK, MU_GUARD_NETWORK, k.risk,
                   "%.*s speaks to a host that is not in egressAllowlist", MU_ARGS(program));
        } else if (wanted(g, MU_GUARD_NETWORK)) {
            decide(a, MU_GUARD_ASK, MU_GUARD_NETWORK, k.risk, "requiresApprovalFor network");
        }
    } else if (k.action > MU_GUARD_SHELL && wanted(g, k.action)) {
        decide(a, MU_GUARD_ASK, k.action, k.risk, "requiresApprovalFor %s: %.*s",
               action_names[k.action], MU_ARGS(program));
    }
}

static void check_writes(const struct mu_guard *g, const struct mu_shell *s,
                         struct mu_guard_answer *a)
{
    for (size_t i = 0; i < s->n_writes; i++) {
        mu_bytes path = s->writes[i], shown = mu_bytes_head(path, 100);
        if (mu_bytes_starts(path, MU_B("/dev/")) && !mu_bytes_is(path, "/dev/null") &&
            !mu_bytes_is(path, "/dev/stdout") && !mu_bytes_is(path, "/dev/stderr") &&
            !mu_bytes_is(path, "/dev/tty") && !mu_bytes_starts(path, MU_B("/dev/fd/"))) {
            decide(a, MU_GUARD_DENY, MU_GUARD_SHELL, MU_GUARD_HIGH, "it writes to %.*s",
                   MU_ARGS(shown));
        } else if (mu_guard_protected(g, path)) {
            decide(a, MU_GUARD_ASK, MU_GUARD_SECRETS, MU_GUARD_HIGH, "protectedPaths has %.*s",
                   MU_ARGS(shown));
        }
    }
}

static void check_execute(const struct mu_guard *g, mu_bytes command, struct mu_guard_answer *a)
{
    struct mu_arena arena;
    struct mu_shell s = {.n = 0};
    mu_arena_init(&arena, SHELL_MEMORY);
    if (!command.ptr || !mu_bytes_trim(command).len || mu_shell_read(&arena, command, &s) < 0) {
        decide(a, MU_GUARD_ASK, MU_GUARD_SHELL, MU_GUARD_MED, "it is not known what runs");
        mu_arena_fini(&arena);
        return;
    }
    for (size_t i = 0; i < s.n; i++) {
        check_command(g, &s, i, a);
    }
    check_writes(g, &s, a);
    if (s.uncertain) {
        decide(a, MU_GUARD_ASK, MU_GUARD_SHELL, MU_GUARD_MED, "it is not certain what runs: %s",
               s.why);
    }
    if (g->asks & bit(MU_GUARD_SHELL)) {
        decide(a, MU_GUARD_ASK, MU_GUARD_SHELL, MU_GUARD_MED, "requiresApprovalFor shell");
    }
    mu_arena_fini(&arena);
}

/* --- everything --- */

static void check_paths(const struct mu_guard *g, const struct mu_guard_request *r,
                        struct mu_guard_answer *a)
{
    for (size_t i = 0; i < r->n_paths; i++) {
        mu_bytes path = mu_str(r->paths[i]);
        if (mu_guard_protected(g, path)) {
            decide(a, MU_GUARD_ASK, MU_GUARD_SECRETS, MU_GUARD_HIGH, "protectedPaths has %.100s",
                   r->paths[i]);
        } else if (mu_guard_secret_path(path)) {
            decide(a, MU_GUARD_ASK, wanted(g, MU_GUARD_SECRETS) ? MU_GUARD_SECRETS : MU_GUARD_TOOL,
                   MU_GUARD_HIGH, "a file of secrets: %.100s", r->paths[i]);
        }
    }
}

void mu_guard_check(const struct mu_guard *g, const struct mu_guard_request *r,
                    struct mu_guard_answer *ret)
{
    struct mu_guard_answer a = {MU_GUARD_ALLOW, MU_GUARD_TOOL, MU_GUARD_LOW, ""};
    bool edit = mu_bytes_is(r->kind, "edit"), read = mu_bytes_is(r->kind, "read");
    if (mu_bytes_is(r->kind, "execute")) {
        a.action = MU_GUARD_SHELL;
        check_execute(g, r->command, &a);
    } else if (mu_bytes_is(r->kind, "fetch")) {
        mu_bytes host = mu_guard_host(r->url);
        bool open = g->restricted && mu_guard_host_allowed(g, host);
        if (!open) {
            decide(&a, MU_GUARD_ASK,
                   g->restricted || wanted(g, MU_GUARD_NETWORK) ? MU_GUARD_NETWORK : MU_GUARD_TOOL,
                   MU_GUARD_MED,
                   g->restricted ? "a host that is not in egressAllowlist"
                                 : "the agent asks for it");
        }
    } else {
        decide(&a, MU_GUARD_ASK, MU_GUARD_TOOL, edit || read ? MU_GUARD_LOW : MU_GUARD_MED,
               "the agent asks for it");
    }
    check_paths(g, r, &a);
    if (!a.rule[0]) {
        snprintf(a.rule, sizeof a.rule, "the policy allows it");
    }
    *ret = a;
}
