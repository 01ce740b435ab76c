#include "exec/agents/shell.h"

#include <errno.h>

#include "base/err.h"
#include "exec/agents/shell_int.h"

enum { HEREDOCS = 8 };

struct parser {
    struct mu_shell *s;
    mu_bytes text;
    size_t at;
    unsigned depth;
    /* the simple command that is being read */
    struct mu_shell_word words[MU_SHELL_WORDS];
    size_t n;
    bool piped, heredoc;
    bool head; /* nothing but assignments and keywords so far */
    bool loop; /* of `for`: its words are no command */
    /* the word that is being read */
    struct mu_buf word;
    bool in_word, quoted, dynamic;
    struct {
        mu_bytes end;
        bool tabs, literal;
    } heredocs[HEREDOCS];
    size_t n_heredocs;
    int failed;
};

void mu_shell_doubt(struct mu_shell *s, const char *why)
{
    s->why = s->uncertain ? s->why : why;
    s->uncertain = true;
}

static char peek(const struct parser *p, size_t ahead)
{
    return p->at + ahead < p->text.len ? p->text.ptr[p->at + ahead] : 0;
}

static bool is_name(char c, bool first)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           (!first && c >= '0' && c <= '9');
}

static int inner(struct parser *p, mu_bytes text)
{
    p->dynamic = true;
    int r = mu_shell_parse(p->s, text, p->depth + 1);
    p->failed = p->failed ? p->failed : r;
    return r;
}

/* The text up to the bracket that closes the one before p->at, quotes and brackets inside counted.
 */
static bool balanced(struct parser *p, char open, char close, mu_bytes *ret)
{
    size_t from = p->at, depth = 1;
    while (p->at < p->text.len) {
        char c = p->text.ptr[p->at];
        if (c == '\\') {
            p->at++;
        } else if (c == '\'' || c == '"') {
            size_t k = p->at + 1;
            while (k < p->text.len && p->text.ptr[k] != c) {
                k += c == '"' && p->text.ptr[k] == '\\' ? 2 : 1;
            }
            p->at = k;
        } else if (c == open) {
            depth++;
        } else if (c == close && --depth == 0) {
            *ret = mu_bytes_of(p->text.ptr + from, p->at - from);
            p->at++;
            return true;
        }
        p->at++;
    }
    mu_shell_doubt(p->s, "a bracket is not closed");
    return false;
}

static bool runs_something(mu_bytes text)
{
    return mu_bytes_find_char(text, '`') >= 0 || mu_bytes_find(text, MU_B("$(")) >= 0 ||
           mu_bytes_find(text, MU_B("<(")) >= 0 || mu_bytes_find(text, MU_B(">(")) >= 0;
}

/* Behind a `$`. */
static void expansion(struct parser *p)
{
    mu_bytes text = MU_B_NONE;
    char c = peek(p, 0);
    p->in_word = true;
    if (c == '(' && peek(p, 1) == '(') {
        p->at++;
        p->dynamic = true;
        if (balanced(p, '(', ')', &text) && runs_something(text)) {
            mu_shell_doubt(p->s, "arithmetic that runs commands");
        }
    } else if (c == '(') {
        p->at++;
        if (balanced(p, '(', ')', &text)) {
            (void)inner(p, text);
        }
    } else if (c == '{') {
        p->at++;
        p->dynamic = true;
        if (balanced(p, '{', '}', &text) && runs_something(text)) {
            mu_shell_doubt(p->s, "an expansion that runs commands");
        }
    } else if (is_name(c, true) || (c && strchr("0123456789@*#?$!-", c))) {
        p->dynamic = true;
        p->at++;
        while (is_name(c, true) && is_name(peek(p, 0), false)) {
            p->at++;
        }
    } else {
        mu_buf_add_char(&p->word, '$');
    }
}

static void backticks(struct parser *p)
{
    struct mu_buf text MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&text, MU_SHELL_TEXT_MAX);
    p->in_word = true;
    while (p->at < p->text.len && p->text.ptr[p->at] != '`') {
        if (p->text.ptr[p->at] == '\\' && p->at + 1 < p->text.len) {
            p->at++;
        }
        mu_buf_add_char(&text, p->text.ptr[p->at++]);
    }
    if (p->at >= p->text.len) {
        mu_shell_doubt(p->s, "a backtick is not closed");
    }
    p->at++;
    p->failed = text.failed ? text.failed : p->failed;
    mu_bytes copy = mu_arena_dup(p->s->arena, mu_buf_bytes(&text));
    p->failed = copy.ptr ? p->failed : -ENOMEM;
    if (!p->failed) {
        (void)inner(p, copy);
    }
}

static void double_quotes(struct parser *p)
{
    p->in_word = p->quoted = true;
    while (p->at < p->text.len && p->text.ptr[p->at] != '"' && !p->failed) {
        char c = p->text.ptr[p->at++];
        if (c == '\\' && peek(p, 0) && strchr("$`\"\\\n", peek(p, 0))) {
            c = p->text.ptr[p->at++];
            if (c != '\n') {
                mu_buf_add_char(&p->word, c);
            }
        } else if (c == '$') {
            expansion(p);
        } else if (c == '`') {
            backticks(p);
        } else {
            mu_buf_add_char(&p->word, c);
        }
    }
    if (p->at >= p->text.len) {
        mu_shell_doubt(p->s, "a quote is not closed");
    }
    p->at++;
}

static void single_quotes(struct parser *p)
{
    p->in_word = p->quoted = true;
    mu_bytes rest = mu_bytes_from(p->text, p->at);
    ptrdiff_t end = mu_bytes_find_char(rest, '\'');
    if (end < 0) {
        mu_shell_doubt(p->s, "a quote is not closed");
        end = (ptrdiff_t)rest.len;
    }
    mu_buf_add(&p->word, mu_bytes_head(rest, (size_t)end));
    p->at += (size_t)end + 1;
}

/* --- words --- */

static bool keyword(const struct parser *p, mu_bytes w)
{
    static const char *const words[] = {"if",   "then",  "else",  "elif", "fi", "do",
                                        "done", "while", "until", "!",    "{",  "}"};
    for (size_t i = 0; i < MU_ARRAY_LEN(words) && !p->quoted && !p->dynamic; i++) {
        if (mu_bytes_is(w, words[i])) {
            return true;
        }
    }
    return false;
}

static bool hard_keyword(const struct parser *p, mu_bytes w)
{
    return !p->quoted && (mu_bytes_is(w, "case") || mu_bytes_is(w, "function") ||
                          mu_bytes_is(w, "coproc") || mu_bytes_is(w, "select"));
}

bool mu_shell_assignment(struct mu_shell *s, mu_bytes w)
{
    static const char *const runs[] = {"PATH",   "ENV",    "BASH_ENV",  "IFS", "PAGER",
                                       "EDITOR", "VISUAL", "SHELLOPTS", "PS4", "PROMPT_COMMAND"};
    ptrdiff_t eq = mu_bytes_find_char(w, '=');
    if (eq <= 0) {
        return false;
    }
    mu_bytes name = mu_bytes_head(w, (size_t)eq);
    for (size_t i = 0; i < name.len; i++) {
        if (!is_name(name.ptr[i], i == 0)) {
            return false;
        }
    }
    bool hot = mu_bytes_starts(name, MU_B("GIT_")) || mu_bytes_starts(name, MU_B("LD_"));
    for (size_t i = 0; i < MU_ARRAY_LEN(runs); i++) {
        hot = hot || mu_bytes_is(name, runs[i]);
    }
    if (hot) {
        mu_shell_doubt(s, "a variable that changes what commands do");
    }
    return true;
}

/* Braces make several words of one. */
static bool braces(const struct parser *p, mu_bytes w)
{
    ptrdiff_t open = mu_bytes_find_char(w, '{');
    return !p->quoted && open >= 0 && mu_bytes_find_char(mu_bytes_from(w, (size_t)open), '}') > 0;
}

static void end_word(struct parser *p)
{
    if (!p->in_word) {
        return;
    }
    mu_bytes w = mu_buf_bytes(&p->word);
    p->in_word = false;
    if (p->head && (keyword(p, w) || (!p->quoted && mu_bytes_is(w, "for")))) {
        p->loop = mu_bytes_is(w, "for");
        p->head = !p->loop;
    } else if (p->head && mu_shell_assignment(p->s, w)) {
        /* its substitutions were read already */
    } else if (p->n == MU_SHELL_WORDS) {
        mu_shell_doubt(p->s, "too many words");
    } else {
        if (p->head && hard_keyword(p, w)) {
            mu_shell_doubt(p->s, "case, select, coproc or function");
        }
        mu_bytes copy = mu_arena_dup(p->s->arena, w);
        p->failed = copy.ptr ? p->failed : -ENOMEM;
        p->words[p->n++] = (struct mu_shell_word){copy, p->dynamic || braces(p, w)};
        p->head = false;
    }
    mu_buf_clear(&p->word);
    p->quoted = p->dynamic = false;
}

static void end_command(struct parser *p, bool pipe)
{
    end_word(p);
    if (p->n && !p->loop && !p->failed) {
        p->failed = mu_shell_add(p->s, p->words, p->n, p->piped, p->heredoc, p->depth);
    }
    p->n = 0;
    p->piped = pipe;
    p->heredoc = p->loop = false;
    p->head = true;
}

/* --- redirections --- */

/* The bodies of what `<<` announced follow the line. */
static void read_heredocs(struct parser *p)
{
    for (size_t i = 0; i < p->n_heredocs; i++) {
        bool found = false;
        while (p->at < p->text.len && !found) {
            mu_bytes rest = mu_bytes_from(p->text, p->at), line = mu_bytes_split(&rest, '\n');
            p->at += line.len + 1;
            mu_bytes bare = line;
            while (p->heredocs[i].tabs && bare.len && bare.ptr[0] == '\t') {
                bare = mu_bytes_from(bare, 1);
            }
            found = mu_bytes_eq(bare, p->heredocs[i].end);
            if (!found && !p->heredocs[i].literal && runs_something(line)) {
                mu_shell_doubt(p->s, "a here-document that runs commands");
            }
        }
        if (!found) {
            mu_shell_doubt(p->s, "a here-document has no end");
        }
    }
    p->n_heredocs = 0;
    p->at = MU_MIN(p->at, p->text.len);
}

static bool is_digits(const struct parser *p)
{
    for (size_t i = 0; i < p->word.len; i++) {
        if (p->word.ptr[i] < '0' || p->word.ptr[i] > '9') {
            return false;
        }
    }
    return !p->quoted && !p->dynamic;
}

static void blanks(struct parser *p)
{
    for (;; p->at++) {
        if (peek(p, 0) == '\\' && peek(p, 1) == '\n') {
            p->at++;
        } else if (peek(p, 0) != ' ' && peek(p, 0) != '\t') {
            return;
        }
    }
}

static void word_piece(struct parser *p);

/* The one word behind a redirection. */
static mu_bytes target(struct parser *p, bool *dynamic, bool *quoted)
{
    blanks(p);
    while (p->at < p->text.len && !strchr(" \t\n;&|<>()", p->text.ptr[p->at]) && !p->failed) {
        word_piece(p);
    }
    *dynamic = p->dynamic;
    *quoted = p->quoted;
    mu_bytes copy = mu_arena_dup(p->s->arena, mu_buf_bytes(&p->word));
    p->failed = copy.ptr ? p->failed : -ENOMEM;
    mu_buf_clear(&p->word);
    p->in_word = p->quoted = p->dynamic = false;
    return copy;
}

static void here_document(struct parser *p)
{
    bool dynamic, quoted, tabs = peek(p, 0) == '-';
    p->at += tabs;
    mu_bytes end = target(p, &dynamic, &quoted);
    p->heredoc = true;
    if (dynamic || p->n_heredocs == HEREDOCS) {
        mu_shell_doubt(p->s, "a here-document that is not understood");
        return;
    }
    p->heredocs[p->n_heredocs].end = end;
    p->heredocs[p->n_heredocs].tabs = tabs;
    p->heredocs[p->n_heredocs++].literal = quoted;
}

static void redirection(struct parser *p, char c)
{
    bool dynamic, quoted, out = c == '>';
    mu_bytes text;
    if (peek(p, 0) == '(') {
        p->at++;
        p->in_word = true;
        if (balanced(p, '(', ')', &text)) {
            (void)inner(p, text);
        }
        return;
    }
    if (p->in_word && is_digits(p)) {
        mu_buf_clear(&p->word);
        p->in_word = false;
    }
    end_word(p);
    if (c == '<' && peek(p, 0) == '<') {
        p->at++;
        if (peek(p, 0) != '<') {
            here_document(p);
            return;
        }
        p->at++;
        p->heredoc = true;
        (void)target(p, &dynamic, &quoted);
        return;
    }
    if (peek(p, 0) && strchr(">|&", peek(p, 0))) {
        p->at++;
    } else if (c == '<' && peek(p, 0) == '>') {
        out = true;
        p->at++;
    }
    p->heredoc = p->heredoc || c == '<';
    text = target(p, &dynamic, &quoted);
    if (out && text.len && p->s->n_writes < MU_SHELL_WRITES) {
        p->s->writes[p->s->n_writes++] = text;
    } else if (out && text.len) {
        mu_shell_doubt(p->s, "too many redirections");
    }
}

/* --- the text --- */

/* One piece of a word: a quote, an expansion, a character. */
static void word_piece(struct parser *p)
{
    char c = p->text.ptr[p->at++];
    p->in_word = true;
    if (c == '\\') {
        if (p->at < p->text.len && p->text.ptr[p->at++] != '\n') {
            mu_buf_add_char(&p->word, p->text.ptr[p->at - 1]);
            p->quoted = true;
        }
    } else if (c == '\'') {
        single_quotes(p);
    } else if (c == '"') {
        double_quotes(p);
    } else if (c == '`') {
        backticks(p);
    } else if (c == '$' && (peek(p, 0) == '\'' || peek(p, 0) == '"')) {
        mu_shell_doubt(p->s, "quotes behind a dollar sign");
    } else if (c == '$') {
        expansion(p);
    } else {
        if (c == '*' || c == '?' || c == '[') {
            p->dynamic = p->dynamic || p->head; /* a pattern as a program */
        }
        mu_buf_add_char(&p->word, c);
    }
}

static void comment(struct parser *p)
{
    while (p->at < p->text.len && p->text.ptr[p->at] != '\n') {
        p->at++;
    }
}

static void group(struct parser *p)
{
    mu_bytes text;
    if (p->in_word || p->n) {
        mu_shell_doubt(p->s, "a function, or a list in brackets");
    }
    if (peek(p, 0) == '(') {
        mu_shell_doubt(p->s, "arithmetic as a command");
    }
    end_word(p);
    if (balanced(p, '(', ')', &text)) {
        (void)inner(p, text);
        p->dynamic = false;
    }
}

static void operator_(struct parser *p, char c)
{
    bool doubled = peek(p, 0) == c;
    if (c == '&' && peek(p, 0) == '>') { /* &> file */
        end_word(p);
        p->at++;
        redirection(p, '>');
        return;
    }
    p->at += doubled || (c == '|' && peek(p, 0) == '&');
    if (doubled && c == ';') {
        mu_shell_doubt(p->s, "the branches of a case");
    }
    end_command(p, c == '|' && !doubled);
}

static void one(struct parser *p)
{
    char c = p->text.ptr[p->at];
    if (c == ' ' || c == '\t' || c == '\r') {
        end_word(p);
        p->at++;
    } else if (c == '\n') {
        p->at++;
        end_command(p, false);
        read_heredocs(p);
    } else if (c == '#' && !p->in_word) {
        comment(p);
    } else if (c == ';' || c == '&' || c == '|') {
        p->at++;
        operator_(p, c);
    } else if (c == '<' || c == '>') {
        p->at++;
        redirection(p, c);
    } else if (c == '(') {
        p->at++;
        group(p);
    } else if (c == ')') {
        p->at++;
        mu_shell_doubt(p->s, "a bracket that nothing opened");
    } else {
        word_piece(p);
    }
}

int mu_shell_parse(struct mu_shell *s, mu_bytes text, unsigned depth)
{
    if (depth > MU_SHELL_DEPTH || text.len > MU_SHELL_TEXT_MAX ||
        (text.len && memchr(text.ptr, 0, text.len))) {
        mu_shell_doubt(s, "too long, nested too deep, or with a NUL");
        return 0;
    }
    struct parser *p = mu_calloc(1, sizeof *p);
    if (!p) {
        return -ENOMEM;
    }
    p->s = s;
    p->text = text;
    p->depth = depth;
    p->head = true;
    mu_buf_init(&p->word, MU_SHELL_TEXT_MAX);
    while (p->at < text.len && !p->failed) {
        one(p);
        p->failed = p->word.failed ? p->word.failed : p->failed;
    }
    if (!p->failed) {
        end_command(p, false);
        read_heredocs(p);
    }
    int r = p->failed;
    mu_buf_fini(&p->word);
    mu_free(p);
    return r == MU_E_TOO_LARGE ? -ENOMEM : r;
}

int mu_shell_read(struct mu_arena *arena, mu_bytes text, struct mu_shell *ret)
{
    struct mu_shell s = {.arena = arena};
    s.commands = mu_arena_calloc(arena, MU_SHELL_COMMANDS * sizeof *s.commands);
    s.writes = mu_arena_calloc(arena, MU_SHELL_WRITES * sizeof *s.writes);
    if (!s.commands || !s.writes) {
        return -ENOMEM;
    }
    int r = mu_shell_parse(&s, text, 0);
    if (!r) {
        *ret = s;
    }
    return r;
}
