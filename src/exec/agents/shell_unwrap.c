/* Programs that start other programs: what counts is what they start. */
#include <errno.h>

#include "exec/agents/shell_int.h"

/* `with` are its short options that take a value of their own; `skip` words come before the
 * command. */
static const struct wrapper {
    const char *name, *with;
    size_t skip;
    bool more; /* words are added to what it starts */
} wrappers[] = {
    {"sudo", "ugCDhpRrTtU", 0, false}, {"doas", "uC", 0, false},
    {"env", "uC", 0, false},           {"nohup", "", 0, false},
    {"nice", "n", 0, false},           {"ionice", "cnp", 0, false},
    {"timeout", "sk", 1, false},       {"stdbuf", "ioe", 0, false},
    {"setsid", "", 0, false},          {"time", "fo", 0, false},
    {"exec", "a", 0, false},           {"command", "", 0, false},
    {"builtin", "", 0, false},         {"flock", "wE", 1, false},
    {"watch", "n", 0, false},          {"strace", "eopsuPSaEI", 0, false},
    {"chroot", "", 1, false},          {"busybox", "", 0, false},
    {"xargs", "aEIiLlnPsd", 0, true},  {"unshare", "SGRw", 0, false},
    {"setpriv", "", 0, false},
};

static mu_bytes base_name(mu_bytes path)
{
    for (size_t i = path.len; i-- > 0;) {
        if (path.ptr[i] == '/') {
            return mu_bytes_from(path, i + 1);
        }
    }
    return path;
}

static bool is_shell(mu_bytes name)
{
    static const char *const shells[] = {"sh", "bash", "dash", "zsh", "ksh", "ash", "mksh", "fish"};
    for (size_t i = 0; i < MU_ARRAY_LEN(shells); i++) {
        if (mu_bytes_is(name, shells[i])) {
            return true;
        }
    }
    return false;
}

static bool sets_variables(mu_bytes name)
{
    return mu_bytes_is(name, "export") || mu_bytes_is(name, "declare") ||
           mu_bytes_is(name, "typeset") || mu_bytes_is(name, "readonly") ||
           mu_bytes_is(name, "local");
}

static int put(struct mu_shell *s, const struct mu_shell_word *words, size_t n, bool piped,
               bool script)
{
    if (s->n == MU_SHELL_COMMANDS) {
        mu_shell_doubt(s, "too many commands");
        return 0;
    }
    struct mu_shell_word *copy = mu_arena_alloc(s->arena, n * sizeof *copy);
    if (!copy) {
        return -ENOMEM;
    }
    memcpy(copy, words, n * sizeof *copy);
    copy[0].text = base_name(copy[0].text);
    s->commands[s->n++] = (struct mu_shell_command){copy, n, piped, script, false};
    return 0;
}

/* sh -c SCRIPT, with whatever options around the c. */
static int shell(struct mu_shell *s, const struct mu_shell_word *words, size_t n, bool piped,
                 bool heredoc, unsigned depth)
{
    bool c = false;
    size_t i = 1;
    for (; i < n && words[i].text.len > 1 && strchr("-+", words[i].text.ptr[0]); i++) {
        mu_bytes w = words[i].text;
        if (words[i].dynamic) {
            mu_shell_doubt(s, "a shell with options that are not known");
        }
        if (mu_bytes_is(w, "--")) {
            i++;
            break;
        }
        bool lng = mu_bytes_starts(w, MU_B("--"));
        c = c || (!lng && mu_bytes_find_char(w, 'c') > 0);
        bool value = (!lng && (mu_bytes_find_char(w, 'o') > 0 || mu_bytes_find_char(w, 'O') > 0)) ||
                     mu_bytes_is(w, "--rcfile") || mu_bytes_is(w, "--init-file");
        i += value;
    }
    if (c && i < n) {
        if (words[i].dynamic) {
            mu_shell_doubt(s, "a script that is put together when it runs");
            return put(s, words, n, piped, false);
        }
        return mu_shell_parse(s, words[i].text, depth + 1);
    }
    bool script = i >= n;
    if (script && (piped || heredoc)) {
        mu_shell_doubt(s, "a shell that takes its script from its input");
    }
    return put(s, words, n, piped, script && (piped || heredoc));
}

/* find … -exec COMMAND ; */
static int find(struct mu_shell *s, const struct mu_shell_word *words, size_t n, unsigned depth)
{
    static const char *const starts[] = {"-exec", "-execdir", "-ok", "-okdir"};
    int r = 0;
    for (size_t i = 1; i < n && !r; i++) {
        bool starts_here = false;
        for (size_t k = 0; k < MU_ARRAY_LEN(starts); k++) {
            starts_here = starts_here || mu_bytes_is(words[i].text, starts[k]);
        }
        size_t from = i + 1, to = from;
        if (!starts_here) {
            continue;
        }
        while (to < n && !mu_bytes_is(words[to].text, ";") && !mu_bytes_is(words[to].text, "+")) {
            to++;
        }
        if (to > from) {
            r = mu_shell_add(s, words + from, to - from, false, false, depth + 1);
        }
        i = to;
    }
    return r;
}

static int eval(struct mu_shell *s, const struct mu_shell_word *words, size_t n, unsigned depth)
{
    struct mu_buf text MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&text, MU_SHELL_TEXT_MAX);
    for (size_t i = 1; i < n; i++) {
        if (words[i].dynamic) {
            mu_shell_doubt(s, "eval of what is only known when it runs");
            return put(s, words, n, false, false);
        }
        mu_buf_add(&text, words[i].text);
        mu_buf_add_char(&text, ' ');
    }
    mu_bytes copy = mu_arena_dup(s->arena, mu_buf_bytes(&text));
    if (text.failed || !copy.ptr) {
        return -ENOMEM;
    }
    return mu_shell_parse(s, copy, depth + 1);
}

/* How many words of a wrapper come before what it starts; n when nothing does. */
static size_t wrapped_at(struct mu_shell *s, const struct wrapper *w,
                         const struct mu_shell_word *words, size_t n)
{
    size_t i = 1;
    for (; i < n && words[i].text.len > 1 && words[i].text.ptr[0] == '-'; i++) {
        mu_bytes word = words[i].text;
        if (mu_bytes_is(word, "--")) {
            i++;
            break;
        }
        if (words[i].dynamic || mu_bytes_is(word, "-S") ||
            (mu_bytes_starts(word, MU_B("--")) && mu_bytes_find_char(word, '=') < 0)) {
            mu_shell_doubt(s, "an option that may take the next word");
        } else if (word.ptr[1] != '-' && strchr(w->with, word.ptr[word.len - 1])) {
            i++; /* its value is the next word */
        }
    }
    while (i < n && strcmp(w->name, "env") == 0 && mu_bytes_find_char(words[i].text, '=') > 0) {
        (void)mu_shell_assignment(s, words[i].text);
        i++;
    }
    return MU_MIN(i + w->skip, n);
}

static const struct wrapper *wrapper_of(mu_bytes name)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(wrappers); i++) {
        if (mu_bytes_is(name, wrappers[i].name)) {
            return &wrappers[i];
        }
    }
    return NULL;
}

static int unwrap(struct mu_shell *s, const struct wrapper *w, const struct mu_shell_word *words,
                  size_t n, bool piped, unsigned depth)
{
    size_t from = wrapped_at(s, w, words, n);
    if (from >= n) {
        return put(s, words, n, piped, false); /* env, time or command -v alone */
    }
    size_t count = n - from;
    struct mu_shell_word *rest = mu_arena_alloc(s->arena, (count + 1) * sizeof *rest);
    if (!rest) {
        return -ENOMEM;
    }
    memcpy(rest, words + from, count * sizeof *rest);
    if (w->more) {
        rest[count++] = (struct mu_shell_word){MU_B(""), true};
    }
    int r = put(s, words, from, piped, false);
    if (!r && s->n) {
        s->commands[s->n - 1].starts = true;
    }
    return r ? r : mu_shell_add(s, rest, count, piped, false, depth + 1);
}

int mu_shell_add(struct mu_shell *s, const struct mu_shell_word *words, size_t n, bool piped,
                 bool heredoc, unsigned depth)
{
    mu_bytes name = base_name(words[0].text);
    if (depth > MU_SHELL_DEPTH) {
        mu_shell_doubt(s, "nested too deep");
        return 0;
    }
    if (words[0].dynamic || !name.len) {
        mu_shell_doubt(s, "a program that is only known when it runs");
        return put(s, words, n, piped, false);
    }
    if (is_shell(name)) {
        return shell(s, words, n, piped, heredoc, depth);
    }
    if (mu_bytes_is(name, "eval")) {
        return eval(s, words, n, depth);
    }
    if (mu_bytes_is(name, "trap") || mu_bytes_is(name, "alias")) {
        mu_shell_doubt(s, "trap or alias");
    }
    for (size_t i = 1; i < n && sets_variables(name); i++) {
        (void)mu_shell_assignment(s, words[i].text);
    }
    if (mu_bytes_is(name, "find")) {
        int r = put(s, words, n, piped, false);
        return r ? r : find(s, words, n, depth);
    }
    const struct wrapper *w = wrapper_of(name);
    return w ? unwrap(s, w, words, n, piped, depth) : put(s, words, n, piped, false);
}
