/* Lines of JSON become words; one function a format. */
#include "exec/cliformat.h"

#include <errno.h>
#include <stdio.h>

#include "base/arena.h"
#include "base/encode.h"
#include "exec/cliformat_int.h"

enum { MAX_DEPTH = 64 };

static const struct {
    enum mu_cli_format format;
    const char *name;
    void (*on_line)(struct mu_cli_reader *r, yyjson_val *line);
} formats[] = {
    {MU_CLI_TEXT, "text", NULL},
    {MU_CLI_CLAUDE_STREAM_JSON, "claude-stream-json", mu_cli_claude_line},
    {MU_CLI_CODEX_JSON, "codex-json", mu_cli_codex_line},
    {MU_CLI_OPENCODE_JSON, "opencode-json", mu_cli_opencode_line},
    {MU_CLI_GEMINI_JSON, "gemini-json", mu_cli_gemini_line},
};

int mu_cli_format_parse(mu_bytes word, enum mu_cli_format *ret)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(formats); i++) {
        if (mu_bytes_eq_nocase(word, mu_str(formats[i].name))) {
            *ret = formats[i].format;
            return 0;
        }
    }
    return MU_E_INVALID;
}

const char *mu_cli_format_name(enum mu_cli_format f)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(formats); i++) {
        if (formats[i].format == f) {
            return formats[i].name;
        }
    }
    return "unknown";
}

int mu_cli_reader_new(enum mu_cli_format format, size_t max_line_bytes,
                      int (*on_delta)(void *arg, mu_bytes text), void *arg,
                      struct mu_cli_reader **ret)
{
    struct mu_cli_reader *r = mu_calloc(1, sizeof *r);
    if (!r) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(formats); i++) {
        if (formats[i].format == format) {
            r->on_line = formats[i].on_line;
        }
    }
    r->on_delta = on_delta;
    r->arg = arg;
    r->streamed_hash = MU_CLI_HASH_START;
    r->max_line = max_line_bytes;
    mu_buf_init(&r->line, max_line_bytes);
    mu_buf_init(&r->answer, max_line_bytes);
    *ret = r;
    return 0;
}

struct mu_cli_reader *mu_cli_reader_free(struct mu_cli_reader *r)
{
    if (r) {
        mu_buf_fini(&r->line);
        mu_buf_fini(&r->answer);
        mu_free(r);
    }
    return NULL;
}

static void emit(struct mu_cli_reader *r, mu_bytes text)
{
    if (text.len && !r->failed) {
        int e = r->on_delta(r->arg, text);
        r->failed = e < 0 ? e : 0;
        r->spoke = true;
    }
}

void mu_cli_deliver(struct mu_cli_reader *r, mu_bytes text)
{
    if (text.len == 0) {
        return;
    }
    if (r->gap && r->spoke) {
        emit(r, MU_B("\n\n"));
    }
    r->gap = false;
    emit(r, text);
}

void mu_cli_deliver_delta(struct mu_cli_reader *r, mu_bytes text)
{
    mu_cli_deliver(r, text);
    r->streamed += text.len;
    for (size_t i = 0; i < text.len; i++) { /* FNV-1a, to recognise the same text as a whole */
        r->streamed_hash = (r->streamed_hash ^ (unsigned char)text.ptr[i]) * 0x100000001b3;
    }
}

void mu_cli_message_begins(struct mu_cli_reader *r)
{
    r->gap = true;
    r->streamed = 0;
    r->streamed_hash = MU_CLI_HASH_START;
}

void mu_cli_deliver_whole(struct mu_cli_reader *r, mu_bytes text)
{
    uint64_t hash = MU_CLI_HASH_START;
    bool known = r->streamed > 0 && r->streamed <= text.len;
    for (size_t i = 0; known && i < r->streamed; i++) {
        hash = (hash ^ (unsigned char)text.ptr[i]) * 0x100000001b3;
    }
    if (known && hash == r->streamed_hash) {
        text = mu_bytes_from(text, r->streamed); /* only what was not streamed */
    } else {
        mu_cli_message_begins(r);
    }
    mu_cli_deliver(r, text);
    mu_cli_message_begins(r);
}

void mu_cli_session(struct mu_cli_reader *r, mu_bytes id)
{
    if (id.len && id.len < sizeof r->verdict.session && !r->verdict.session[0]) {
        memcpy(r->verdict.session, id.ptr, id.len);
        r->verdict.session[id.len] = 0;
    }
}

/* Whether the "429" at `at` stands for the status: a word of its own behind a word that says so. A
 * port or a line number does not count. */
static bool is_status(mu_bytes text, size_t at)
{
    static const char *const before[] = {"http", "status", "code", "error", "http/1.1", "http/2"};
    mu_bytes next = mu_bytes_from(text, at + 3);
    if (next.len && ((next.ptr[0] >= '0' && next.ptr[0] <= '9') || (next.ptr[0] | 32) == 'x')) {
        return false;
    }
    size_t end = at;
    while (end && strchr(" \t:=(\"'", text.ptr[end - 1]) && text.ptr[end - 1]) {
        end--;
    }
    size_t begin = end;
    while (begin && (((text.ptr[begin - 1] | 32) >= 'a' && (text.ptr[begin - 1] | 32) <= 'z') ||
                     (text.ptr[begin - 1] >= '.' && text.ptr[begin - 1] <= '9'))) {
        begin--;
    }
    mu_bytes word = mu_bytes_of(text.ptr + begin, end - begin);
    for (size_t i = 0; i < MU_ARRAY_LEN(before); i++) {
        if (end < at && mu_bytes_eq_nocase(word, mu_str(before[i]))) {
            return true;
        }
    }
    return begin == end && end == 0; /* the text begins with the status */
}

static bool is_letter(char c)
{
    return (c | 32) >= 'a' && (c | 32) <= 'z';
}

bool mu_cli_rate_limited(mu_bytes text)
{
    static const char *const phrases[] = {
        "rate limit",   "rate_limit",        "rate-limit",  "rate limited",      "rate_limited",
        "rate-limited", "too many requests", "usage limit", "resource_exhausted"};
    for (size_t i = 0; i < MU_ARRAY_LEN(phrases); i++) {
        mu_bytes phrase = mu_str(phrases[i]);
        for (mu_bytes rest = text;;) {
            ptrdiff_t at = mu_bytes_find_nocase(rest, phrase);
            if (at < 0) {
                break;
            }
            size_t end = (size_t)at + phrase.len;
            if ((at == 0 || !is_letter(rest.ptr[at - 1])) &&
                (end == rest.len || !is_letter(rest.ptr[end]))) {
                return true;
            }
            rest = mu_bytes_from(rest, end);
        }
    }
    for (size_t from = 0; from < text.len;) {
        ptrdiff_t at = mu_bytes_find(mu_bytes_from(text, from), MU_B("429"));
        if (at < 0) {
            break;
        }
        if (is_status(text, from + (size_t)at)) {
            return true;
        }
        from += (size_t)at + 3;
    }
    return false;
}

void mu_cli_failed(struct mu_cli_reader *r, mu_bytes why)
{
    struct mu_cli_verdict *v = &r->verdict;
    v->failed = true;
    v->rate_limited = mu_cli_rate_limited(why);
    why = mu_utf8_cut(mu_bytes_trim(why), sizeof v->text - 1);
    if (why.len) {
        memmove(v->text, why.ptr, why.len); /* `why` may be the text that is there */
    }
    v->text[why.len] = 0;
}

void mu_cli_recovered(struct mu_cli_reader *r)
{
    r->verdict.failed = r->verdict.rate_limited = false;
    r->verdict.text[0] = 0;
}

static void take_line(struct mu_cli_reader *r, mu_bytes line)
{
    line = mu_bytes_trim(line);
    if (line.len == 0 || r->failed) {
        return;
    }
    const struct mu_json_limits limits = {r->max_line, MAX_DEPTH};
    struct mu_arena a;
    struct mu_err err;
    yyjson_val *root = NULL;
    mu_arena_init(&a, line.len * 32 + 4096);
    /* whatever is no JSON is skipped */
    int e = line.ptr[0] == '{' ? mu_json_read(&a, line, &limits, &root, &err) : MU_E_INVALID;
    if (e == 0) {
        r->on_line(r, root);
    } else if (e == -ENOMEM) {
        r->failed = e;
    }
    mu_arena_fini(&a);
}

int mu_cli_reader_feed(struct mu_cli_reader *r, mu_bytes piece)
{
    if (!r->on_line) {
        emit(r, piece);
        return r->failed;
    }
    while (piece.len && !r->failed) {
        ptrdiff_t end = mu_bytes_find_char(piece, '\n');
        mu_bytes part = mu_bytes_head(piece, end < 0 ? piece.len : (size_t)end);
        if (end >= 0 && r->line.len == 0 && part.len <= r->max_line) {
            take_line(r, part); /* the whole line lies in this piece */
        } else {
            mu_buf_add(&r->line, part);
            r->failed = r->failed ? r->failed : r->line.failed;
            if (end >= 0 && !r->failed) {
                take_line(r, mu_buf_bytes(&r->line));
                mu_buf_clear(&r->line);
            }
        }
        piece = mu_bytes_from(piece, part.len + (end >= 0 ? 1 : 0));
    }
    return r->failed;
}

int mu_cli_reader_end(struct mu_cli_reader *r, struct mu_cli_verdict *ret, mu_bytes *ret_answer)
{
    if (r->on_line && !r->failed) {
        take_line(r, mu_buf_bytes(&r->line));
        mu_buf_clear(&r->line);
    }
    if (r->failed) {
        return r->failed;
    }
    bool final = r->has_answer && mu_bytes_trim(mu_buf_bytes(&r->answer)).len > 0;
    *ret = r->verdict;
    *ret_answer = final ? mu_buf_bytes(&r->answer) : MU_B_NONE;
    return 0;
}
