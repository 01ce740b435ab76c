/* The reader of answers: what both wire formats share. */
#include "exec/models.h"

#include <errno.h>
#include <stdio.h>

#include "base/encode.h"
#include "exec/models_int.h"

enum {
    MAX_DEPTH = 64,
    MAX_EVENT_BYTES = 1024 * 1024, /* oz-providers.md 6.4 */
    MAX_ERROR_BODY = 64 * 1024,
    SHOWN_BODY = 500,
};

const char *mu_model_class_name(enum mu_model_class c)
{
    static const char *const names[] = {"ok",          "rate_limited", "unavailable", "auth",
                                        "bad_request", "no_model",     "bad_response"};
    return (size_t)c < MU_ARRAY_LEN(names) ? names[c] : "unknown";
}

/* A JSON document that lives until *a is released; NULL when it is none. Memory exhaustion is the
 * only failure that is kept: what a service sends wrongly is skipped or judged by the caller. */
static yyjson_val *read_json(struct mu_model_reader *r, struct mu_arena *a, mu_bytes text)
{
    const struct mu_json_limits limits = {text.len, MAX_DEPTH};
    struct mu_err err;
    yyjson_val *root = NULL;
    mu_arena_init(a, text.len * 32 + 4096);
    if (mu_json_read(a, text, &limits, &root, &err) == -ENOMEM && !r->failed) {
        r->failed = -ENOMEM;
    }
    return root;
}

static void on_sse(void *arg, mu_bytes event, mu_bytes data, mu_bytes id MU_UNUSED)
{
    struct mu_model_reader *r = arg;
    if (r->failed) {
        return;
    }
    if (mu_bytes_is(mu_bytes_trim(data), "[DONE]")) {
        r->terminal = true;
        mu_sse_stop(&r->sse);
        return;
    }
    struct mu_arena a;
    yyjson_val *root = read_json(r, &a, data);
    if (yyjson_is_obj(root)) {
        r->format->on_event(r, event, root);
    }
    mu_arena_fini(&a);
    if (r->failed) {
        mu_sse_stop(&r->sse);
    }
}

int mu_model_reader_new(enum mu_model_wire wire, size_t max_output_bytes,
                        int (*on_delta)(void *arg, mu_bytes text), void *arg,
                        struct mu_model_reader **ret)
{
    struct mu_model_reader *r = mu_calloc(1, sizeof *r);
    if (!r) {
        return -ENOMEM;
    }
    r->format = wire == MU_WIRE_OPENAI ? &mu_model_openai : &mu_model_anthropic;
    r->max_output = max_output_bytes;
    r->on_delta = on_delta;
    r->arg = arg;
    mu_sse_init(&r->sse, MAX_EVENT_BYTES, on_sse, r);
    /* escapes make the text longer, and the other members take room too */
    mu_buf_init(&r->body, max_output_bytes * 2 + MAX_ERROR_BODY);
    *ret = r;
    return 0;
}

struct mu_model_reader *mu_model_reader_free(struct mu_model_reader *r)
{
    if (r) {
        mu_sse_fini(&r->sse);
        mu_buf_fini(&r->body);
        mu_free(r);
    }
    return NULL;
}

void mu_model_deliver(struct mu_model_reader *r, mu_bytes text)
{
    if (text.len == 0 || r->failed) {
        return;
    }
    if (text.len > r->max_output - r->delivered) {
        r->failed = MU_E_TOO_LARGE;
        return;
    }
    r->delivered += text.len;
    r->has_words = r->has_words || mu_bytes_trim(text).len > 0;
    int e = r->on_delta(r->arg, text);
    if (e < 0) {
        r->failed = e;
    }
}

bool mu_model_deliver_content(struct mu_model_reader *r, yyjson_val *content)
{
    if (yyjson_is_str(content)) {
        mu_model_deliver(r, mu_json_bytes(content));
        return true;
    }
    if (!yyjson_is_arr(content)) {
        return false;
    }
    yyjson_arr_iter it = yyjson_arr_iter_with(content);
    yyjson_val *part;
    while ((part = yyjson_arr_iter_next(&it))) {
        mu_bytes type = mu_json_get_bytes(part, "type");
        if (!type.ptr || mu_bytes_is(type, "text") || mu_bytes_is(type, "output_text")) {
            mu_model_deliver(r, mu_json_get_bytes(part, "text"));
        }
    }
    return true;
}

void mu_model_finish(struct mu_model_reader *r, mu_bytes reason)
{
    r->terminal = true;
    reason = mu_utf8_cut(reason, sizeof r->answer.finish_reason - 1);
    memcpy(r->answer.finish_reason, reason.ptr, reason.len);
    r->answer.finish_reason[reason.len] = 0;
}

/* Fills the verdict: prefix, our words, and what the service said. */
static void judge(struct mu_model_reader *r, enum mu_model_class cls, const char *words,
                  mu_bytes upstream)
{
    const char *prefix =
        cls == MU_MODEL_RATE_LIMITED ? r->format->limited_prefix : r->format->error_prefix;
    struct mu_err *err = &r->answer.err;
    struct mu_buf b = {.ptr = err->text, .cap = sizeof err->text, .max = sizeof err->text};
    b.len = (size_t)snprintf(err->text, sizeof err->text, "%s%s%s%s", prefix, words[0] ? " " : "",
                             words, upstream.len ? " " : "");
    mu_model_add_clean(&b, upstream);
    err->text[MU_MIN(b.len, sizeof err->text - 1)] = 0;
    err->code = cls == MU_MODEL_RATE_LIMITED  ? MU_E_LIMIT
                : cls == MU_MODEL_UNAVAILABLE ? MU_E_UNAVAILABLE
                : cls == MU_MODEL_AUTH        ? MU_E_UNAUTHORIZED
                : cls == MU_MODEL_NO_MODEL    ? MU_E_NOT_FOUND
                : cls == MU_MODEL_BAD_REQUEST ? MU_E_INVALID
                                              : MU_E_PROTOCOL;
    r->answer.cls = cls;
}

/* The words that services use for the kind of an error inside a 2xx answer. */
static enum mu_model_class class_of_words(mu_bytes words)
{
    static const struct {
        const char *word;
        enum mu_model_class cls;
    } rows[] = {
        {"rate_limit", MU_MODEL_RATE_LIMITED},        {"rate limit", MU_MODEL_RATE_LIMITED},
        {"too many requests", MU_MODEL_RATE_LIMITED}, {"insufficient_quota", MU_MODEL_RATE_LIMITED},
        {"overloaded", MU_MODEL_UNAVAILABLE},         {"server_error", MU_MODEL_UNAVAILABLE},
        {"api_error", MU_MODEL_UNAVAILABLE},          {"timeout", MU_MODEL_UNAVAILABLE},
        {"unavailable", MU_MODEL_UNAVAILABLE},        {"authentication", MU_MODEL_AUTH},
        {"invalid_api_key", MU_MODEL_AUTH},           {"permission_error", MU_MODEL_AUTH},
        {"model_not_found", MU_MODEL_NO_MODEL},       {"invalid_request", MU_MODEL_BAD_REQUEST},
        {"context_length", MU_MODEL_BAD_REQUEST},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        if (mu_bytes_find_nocase(words, mu_str(rows[i].word)) >= 0) {
            return rows[i].cls;
        }
    }
    return MU_MODEL_BAD_RESPONSE;
}

void mu_model_upstream_error(struct mu_model_reader *r, yyjson_val *error)
{
    mu_bytes type = mu_json_get_bytes(error, "type"), code = mu_json_get_bytes(error, "code");
    mu_bytes message = mu_json_bytes(error);
    int64_t status = mu_json_get_i64(error, "code", 0);
    if (!message.len) {
        message = mu_json_get_bytes(error, "message");
    }
    enum mu_model_class cls = MU_MODEL_BAD_RESPONSE;
    if (status >= 400 && status <= 599) { /* some services put the status of their own upstream */
        cls = mu_model_class_of_status((int)status, message);
    }
    const mu_bytes words[] = {code, type, message};
    for (size_t i = 0; i < MU_ARRAY_LEN(words) && cls == MU_MODEL_BAD_RESPONSE; i++) {
        cls = class_of_words(words[i]);
    }
    char said[SHOWN_BODY + 128];
    int n = snprintf(said, sizeof said, "%.*s%s%.*s", MU_ARGS(mu_bytes_head(type, 100)),
                     type.len ? ": " : "", MU_ARGS(mu_bytes_head(message, SHOWN_BODY)));
    judge(r, cls, n > 0 ? "" : "the service reported an error", mu_bytes_of(said, (size_t)n));
    if (!r->failed) {
        r->failed = MU_E_PROTOCOL;
    }
}

bool mu_model_has_error(struct mu_model_reader *r, yyjson_val *root)
{
    yyjson_val *error = mu_json_get(root, "error");
    if (!error || yyjson_is_null(error)) {
        return false;
    }
    mu_model_upstream_error(r, error);
    return true;
}

/* The first byte that is no white space tells a plain answer from a stream, whatever the
 * Content-Type says: no line of an event stream begins with a bracket or an angle. */
static void detect(struct mu_model_reader *r, bool event_stream, mu_bytes piece)
{
    mu_bytes text = mu_bytes_trim(piece);
    if (!event_stream) {
        r->kind = MU_BODY_PLAIN;
    } else if (text.len) {
        bool plain = text.ptr[0] == '{' || text.ptr[0] == '[' || text.ptr[0] == '<';
        r->kind = plain ? MU_BODY_PLAIN : MU_BODY_STREAM;
    }
}

int mu_model_reader_feed(struct mu_model_reader *r, int status, bool event_stream, mu_bytes piece)
{
    if (r->failed) {
        return r->failed;
    }
    if (status < 200 || status > 299) {
        /* only the beginning is of use */
        size_t room = MAX_ERROR_BODY - MU_MIN(r->body.len, (size_t)MAX_ERROR_BODY);
        mu_buf_add(&r->body, mu_bytes_head(piece, room));
        return r->failed = r->body.failed;
    }
    if (r->kind == MU_BODY_UNKNOWN) {
        detect(r, event_stream, piece);
    }
    if (r->kind == MU_BODY_PLAIN) {
        mu_buf_add(&r->body, piece);
        r->failed = r->body.failed;
    } else {
        int e = mu_sse_feed(&r->sse, piece);
        r->failed = r->failed ? r->failed : e;
    }
    return r->failed;
}

static bool says_no_model(mu_bytes body)
{
    static const char *const words[] = {"not found",     "not_found",     "does not exist",
                                        "unknown",       "no such",       "not exist",
                                        "not supported", "invalid model", "not available"};
    if (mu_bytes_find_nocase(body, MU_B("model")) < 0) {
        return false;
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(words); i++) {
        if (mu_bytes_find_nocase(body, mu_str(words[i])) >= 0) {
            return true;
        }
    }
    return false;
}

enum mu_model_class mu_model_class_of_status(int status, mu_bytes body)
{
    switch (status) {
    case 408:
        return MU_MODEL_UNAVAILABLE;
    case 429:
        return MU_MODEL_RATE_LIMITED;
    case 401:
    case 403:
        return MU_MODEL_AUTH;
    case 404:
        return says_no_model(body) ? MU_MODEL_NO_MODEL : MU_MODEL_BAD_REQUEST;
    default:
        return status >= 500 && status <= 599   ? MU_MODEL_UNAVAILABLE
               : status >= 400 && status <= 499 ? MU_MODEL_BAD_REQUEST
                                                : MU_MODEL_BAD_RESPONSE;
    }
}

static void judge_status(struct mu_model_reader *r, int status, const char *status_text)
{
    char words[96];
    mu_bytes body = mu_bytes_trim(mu_buf_bytes(&r->body));
    mu_bytes reason = mu_bytes_head(mu_str(status_text), 60);
    if (status >= 300 && status <= 399) {
        snprintf(words, sizeof words, "%d: redirects are not followed", status);
        judge(r, MU_MODEL_BAD_RESPONSE, words, MU_B_NONE); /* its body names the other URL */
    } else if (status == 429) {
        judge(r, MU_MODEL_RATE_LIMITED, "", body.len ? body : reason);
    } else {
        char said[SHOWN_BODY + 128]; /* the reason phrase comes from outside too */
        int n =
            snprintf(said, sizeof said, "%.*s%s%.*s", MU_ARGS(reason),
                     reason.len && body.len ? ": " : "", MU_ARGS(mu_bytes_head(body, SHOWN_BODY)));
        snprintf(words, sizeof words, "%d", status);
        judge(r, mu_model_class_of_status(status, body), words, mu_bytes_of(said, (size_t)n));
    }
}

static void bad_response(struct mu_model_reader *r, const char *words)
{
    judge(r, MU_MODEL_BAD_RESPONSE, words, MU_B_NONE);
}

/* Some servers label their stream as plain text: it is read as one when it is complete. */
static void read_plain(struct mu_model_reader *r)
{
    mu_bytes body = mu_bytes_trim(mu_buf_bytes(&r->body));
    if (mu_bytes_starts(body, MU_B("data:")) || mu_bytes_starts(body, MU_B("event:"))) {
        r->kind = MU_BODY_STREAM;
        int e = mu_sse_feed(&r->sse, body);
        r->failed = r->failed ? r->failed : e;
        return;
    }
    struct mu_arena a;
    yyjson_val *root = read_json(r, &a, body);
    if (!root || !r->format->on_answer(r, root)) {
        r->misshapen = true;
    }
    r->terminal = true;
    mu_arena_fini(&a);
}

static void judge_shape(struct mu_model_reader *r)
{
    char words[128];
    mu_bytes body = mu_bytes_trim(mu_buf_bytes(&r->body));
    if (body.len && body.ptr[0] == '<') {
        bad_response(r, "the answer is HTML, not JSON");
    } else if (r->kind != MU_BODY_STREAM && body.len == 0) {
        bad_response(r, "the answer is empty");
    } else {
        snprintf(words, sizeof words, "the answer has no %s", r->format->text_member);
        bad_response(r, words);
    }
}

static void judge_failure(struct mu_model_reader *r)
{
    char words[96];
    if (r->failed == MU_E_TOO_LARGE) {
        snprintf(words, sizeof words, "the answer is longer than %zu bytes", r->max_output);
        bad_response(r, words);
    } else if (r->failed == -ENOMEM) {
        judge(r, MU_MODEL_UNAVAILABLE, "out of memory", MU_B_NONE);
    } else {
        snprintf(words, sizeof words, "the answer could not be taken: %s", mu_err_text(r->failed));
        bad_response(r, words);
    }
    r->answer.err.code = r->failed;
}

/* What became of a 2xx answer. */
static void judge_success(struct mu_model_reader *r, bool complete)
{
    if (complete && !r->failed && r->kind != MU_BODY_STREAM) {
        read_plain(r);
    }
    if (r->kind == MU_BODY_STREAM && !r->failed) {
        int e = mu_sse_end(&r->sse);
        r->failed = r->failed ? r->failed : e;
    }
    if (r->answer.cls != MU_MODEL_OK) {
        return; /* the service's own error event said more than we can */
    }
    if (r->failed) {
        judge_failure(r);
    } else if (!r->terminal && !complete) {
        bad_response(r, "the connection broke before the answer was complete");
    } else if (r->misshapen) {
        judge_shape(r);
    } else if (!r->has_words) {
        bad_response(r, "the answer has no text");
    } else if (!r->terminal) {
        bad_response(r, "the stream ended before the answer was complete");
    }
}

void mu_model_reader_end(struct mu_model_reader *r, int status, const char *status_text,
                         bool complete, struct mu_model_answer *ret)
{
    if (status >= 200 && status <= 299) {
        judge_success(r, complete);
    } else if (status == 0) {
        judge(r, MU_MODEL_UNAVAILABLE, "no answer", MU_B_NONE);
    } else {
        judge_status(r, status, status_text);
    }
    *ret = r->answer;
}

/* --- what may be shown of upstream text --- */

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
}

static size_t url_len(mu_bytes text)
{
    if (mu_bytes_find_nocase(mu_bytes_head(text, 8), MU_B("http")) != 0) {
        return 0;
    }
    size_t n = text.len > 4 && (text.ptr[4] | 32) == 's' ? 5 : 4;
    if (!mu_bytes_starts(mu_bytes_from(text, n), MU_B("://"))) {
        return 0;
    }
    while (n < text.len && (unsigned char)text.ptr[n] > ' ' && !strchr("\"'<>`)", text.ptr[n])) {
        n++;
    }
    return n;
}

/* The length of the word at the start of `text` when it looks like a credential: a known prefix, or
 * long and without a break, mixed of letters and digits. */
static size_t key_len(mu_bytes text)
{
    static const char *const prefixes[] = {"sk-",  "sk_",  "pk-",  "gsk_", "xai-",
                                           "AIza", "ghp_", "key-", "eyJ"};
    size_t n = 0, digits = 0, stars = 0, run = 0, longest = 0;
    for (; n < text.len && (is_word(text.ptr[n]) || text.ptr[n] == '*'); n++) {
        bool digit = text.ptr[n] >= '0' && text.ptr[n] <= '9';
        digits += digit;
        stars += text.ptr[n] == '*';
        run = text.ptr[n] == '-' ? 0 : run + 1;
        longest = MU_MAX(longest, run);
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(prefixes); i++) {
        if (n >= 8 && (digits || stars) && mu_bytes_starts(text, mu_str(prefixes[i]))) {
            return n;
        }
    }
    return longest >= 28 && digits && digits < n ? n : 0;
}

static void add_cut(struct mu_buf *dst, mu_bytes piece, size_t *room)
{
    /* one byte of the destination stays free for a NUL */
    size_t left = dst->max > dst->len + 1 ? dst->max - dst->len - 1 : 0;
    mu_bytes head = mu_utf8_cut(piece, MU_MIN(*room, left));
    mu_buf_add(dst, head);
    *room = head.len < piece.len ? 0 : *room - head.len;
}

void mu_model_add_clean(struct mu_buf *dst, mu_bytes text)
{
    size_t room = SHOWN_BODY;
    bool in_word = false;
    text = mu_bytes_trim(text);
    while (text.len && room) {
        unsigned char c = (unsigned char)text.ptr[0];
        size_t n = url_len(text);
        if (n) {
            add_cut(dst, MU_B("[url]"), &room);
        } else if (!in_word && (n = key_len(text)) > 0) {
            add_cut(dst, MU_B("[key]"), &room);
        } else if (c < 0x20 || c == 0x7f) {
            add_cut(dst, MU_B(" "), &room);
            for (n = 1; n < text.len && (unsigned char)text.ptr[n] <= ' '; n++) {
            }
        } else if (c < 0x80) {
            n = 1;
            add_cut(dst, mu_bytes_head(text, 1), &room);
        } else {
            n = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
            bool ok = n <= text.len && mu_utf8_valid(mu_bytes_head(text, n));
            add_cut(dst, ok ? mu_bytes_head(text, n) : MU_B("\xef\xbf\xbd"), &room);
            n = ok ? n : 1;
        }
        in_word = n == 1 && is_word((char)c);
        text = mu_bytes_from(text, n);
    }
}
