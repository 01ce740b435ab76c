/* One call of one provider: what HTTP endpoints and programs have in common. */
#include <errno.h>
#include <stdio.h>

#include "app/providers/providers_int.h"
#include "base/encode.h"

enum {
    ARENA_MAX = 128 << 20, /* a prompt with its turns, as stdin and as an argument */
    SECRET_LEAST = 4,      /* shorter ones would black out ordinary words */
    PARTIAL_LEAST = 6,
    TEXT_HEAD = 150, /* of a long text: its beginning and its end */
    CLEAN_MAX = 512 << 10,
};

/* --- classes --- */

static const struct {
    const char *name, *code;
} classes[MU_CALL_CLASSES] = {
    [MU_CALL_OK] = {"ok", ""},
    [MU_CALL_RATE_LIMITED] = {"rate_limited", "rate_limited"},
    [MU_CALL_UNAVAILABLE] = {"unavailable", "provider_unavailable"},
    [MU_CALL_AUTH] = {"auth", "provider_auth"},
    [MU_CALL_BAD_REQUEST] = {"bad_request", "provider_bad_request"},
    [MU_CALL_NO_MODEL] = {"no_model", "provider_bad_request"},
    [MU_CALL_BAD_RESPONSE] = {"bad_response", "provider_bad_response"},
    [MU_CALL_CLI_FAILED] = {"cli_failed", "cli_failed"},
    [MU_CALL_CLI_TIMEOUT] = {"cli_timeout", "cli_timeout"},
    [MU_CALL_CLI_OUTPUT_LIMIT] = {"cli_output_limit", "cli_output_limit"},
    [MU_CALL_CONFIG] = {"config", "config"},
    [MU_CALL_CANCELLED] = {"cancelled", "cancelled"},
};

const char *mu_call_class_name(enum mu_call_class c)
{
    return (unsigned)c < MU_CALL_CLASSES ? classes[c].name : "unknown";
}

const char *mu_call_error_code(enum mu_call_class c)
{
    return (unsigned)c < MU_CALL_CLASSES ? classes[c].code : "internal";
}

bool mu_call_falls_back(enum mu_call_class c, bool had_output)
{
    switch (c) {
    case MU_CALL_RATE_LIMITED:
    case MU_CALL_UNAVAILABLE:
    case MU_CALL_AUTH:
    case MU_CALL_NO_MODEL:
    case MU_CALL_BAD_RESPONSE:
    case MU_CALL_CONFIG:
        return true;
    case MU_CALL_CLI_FAILED:
        return !had_output;
    case MU_CALL_OK:
    case MU_CALL_BAD_REQUEST:
    case MU_CALL_CLI_TIMEOUT:
    case MU_CALL_CLI_OUTPUT_LIMIT:
    case MU_CALL_CANCELLED:
        break;
    }
    return false;
}

/* --- texts --- */

int mu_call_secret(struct mu_provider_call *c, mu_bytes secret)
{
    secret = mu_bytes_trim(secret);
    if (secret.len < SECRET_LEAST || c->n_secrets >= MU_CALL_SECRETS) {
        return 0;
    }
    mu_bytes copy = mu_arena_dup(&c->arena, secret);
    if (!copy.ptr) {
        return -ENOMEM;
    }
    c->secrets[c->n_secrets++] = copy;
    return 0;
}

/* How many bytes at the start of `text` are a secret, or the beginning of one that was cut off. */
static size_t secret_len(const struct mu_provider_call *c, mu_bytes text)
{
    size_t longest = 0;
    for (size_t i = 0; i < c->n_secrets; i++) {
        mu_bytes s = c->secrets[i];
        bool whole = mu_bytes_starts(text, s);
        bool part = text.len >= PARTIAL_LEAST && mu_bytes_starts(s, text);
        if (whole || part) {
            longest = MU_MAX(longest, MU_MIN(s.len, text.len));
        }
    }
    return longest;
}

static void add_clean(const struct mu_provider_call *c, struct mu_buf *dst, mu_bytes text)
{
    bool blank = false;
    while (text.len) {
        unsigned char ch = (unsigned char)text.ptr[0];
        size_t n = secret_len(c, text);
        if (n) {
            mu_buf_add(dst, MU_B("[redacted]"));
        } else if (ch <= 0x20 || ch == 0x7f) {
            n = 1;
            if (!blank) {
                mu_buf_add_char(dst, ' ');
            }
        } else {
            n = 1;
            mu_buf_add_char(dst, (char)ch);
        }
        blank = ch <= 0x20 || ch == 0x7f;
        text = mu_bytes_from(text, n);
    }
}

static bool starts_char(char ch)
{
    return ((unsigned char)ch & 0xc0) != 0x80;
}

/* The first n characters of valid UTF-8. */
static mu_bytes first_chars(mu_bytes b, size_t n)
{
    size_t i = 0;
    for (; i < b.len; i++) {
        if (starts_char(b.ptr[i]) && n-- == 0) {
            break;
        }
    }
    return mu_bytes_head(b, i);
}

static mu_bytes last_chars(mu_bytes b, size_t n)
{
    size_t i = b.len;
    while (i > 0 && n > 0) {
        i--;
        n -= starts_char(b.ptr[i]);
    }
    return mu_bytes_from(b, i);
}

static void set_text(struct mu_provider_call *c, mu_bytes text)
{
    static const char gap[] = " \xe2\x80\xa6 ";
    enum { GAP_CHARS = 3 };
    if (mu_utf8_count(text) <= MU_CALL_TEXT_CHARS) {
        snprintf(c->text, sizeof c->text, "%.*s", MU_ARGS(text));
        return;
    }
    mu_bytes head = first_chars(text, TEXT_HEAD);
    mu_bytes tail = last_chars(text, MU_CALL_TEXT_CHARS - TEXT_HEAD - GAP_CHARS);
    snprintf(c->text, sizeof c->text, "%.*s%s%.*s", MU_ARGS(head), gap, MU_ARGS(tail));
}

void mu_provider_call_fail(struct mu_provider_call *c, enum mu_call_class cls, const char *prefix,
                           mu_bytes words)
{
    c->result.cls = cls;
    c->result.text = c->text;
    struct mu_buf valid, clean;
    mu_buf_init(&valid, CLEAN_MAX);
    mu_buf_init(&clean, 4 * CLEAN_MAX);
    mu_utf8_add_lossy(&valid, mu_bytes_trim(words));
    mu_buf_add_str(&clean, prefix);
    if (prefix[0]) {
        mu_buf_add_char(&clean, ' ');
    }
    add_clean(c, &clean, mu_buf_bytes(&valid));
    if (valid.failed || clean.failed) {
        snprintf(c->text, sizeof c->text, "%s%sout of memory", prefix, prefix[0] ? " " : "");
    } else {
        set_text(c, mu_bytes_trim(mu_buf_bytes(&clean)));
    }
    mu_buf_fini(&valid);
    mu_buf_fini(&clean);
}

static void on_post(struct mu_post *post)
{
    mu_call_finish(MU_CONTAINER(post, struct mu_provider_call, post));
}

void mu_call_fail_soon(struct mu_provider_call *c, enum mu_call_class cls, const char *prefix,
                       mu_bytes words)
{
    mu_provider_call_fail(c, cls, prefix, words);
    c->phase = MU_CALL_POSTED;
    c->post.fn = on_post;
    mu_loop_post(c->p->opts.core, &c->post);
}

/* --- requests --- */

mu_bytes mu_call_system(const struct mu_call_request *req, bool *ret_explicit)
{
    static const char builtin[] =
        "You are an AI agent that carries out the task it is given. Be helpful and concise. Your "
        "answer is shown as Markdown.";
    const char *own = req->provider->conf->system_prompt;
    *ret_explicit = true;
    if (mu_bytes_trim(req->system).len) {
        return req->system;
    }
    if (mu_bytes_trim(mu_str(own)).len) {
        return mu_str(own);
    }
    *ret_explicit = false;
    return mu_str(builtin);
}

int mu_call_delta(void *arg, mu_bytes text)
{
    struct mu_provider_call *c = arg;
    if (c->aborted) {
        return MU_E_CANCELLED;
    }
    c->had_delta = c->had_delta || text.len > 0;
    c->had_text = c->had_text || mu_bytes_trim(text).len > 0;
    int r = c->on_delta ? c->on_delta(c->arg, text) : 0;
    c->refused = c->refused || r < 0;
    return r < 0 ? r : 0;
}

/* --- life --- */

static struct mu_provider_call *call_new(struct mu_providers *p, const struct mu_call_request *req)
{
    struct mu_provider_call *c = mu_calloc(1, sizeof *c);
    if (!c) {
        return NULL;
    }
    c->p = p;
    c->pr = req->provider;
    mu_arena_init(&c->arena, ARENA_MAX);
    mu_list_init(&c->link);
    c->on_delta = req->on_delta;
    c->done = req->done;
    c->arg = req->arg;
    c->began_ms = mu_env_mono_ms(p->opts.env);
    c->result.text = c->text;
    mu_timer_init(&c->child.retry, p->opts.core, NULL);
    return c;
}

void mu_call_free(struct mu_provider_call *c)
{
    mu_model_reader_free(c->reader);
    mu_cli_reader_free(c->child.reader);
    mu_arena_fini(&c->arena);
    mu_list_remove(&c->link);
    mu_free(c);
}

int mu_provider_call(struct mu_providers *p, const struct mu_call_request *req,
                     struct mu_provider_call **ret)
{
    MU_CHECK(mu_loop_here(p->opts.core));
    struct mu_provider *pr = req->provider;
    bool child = mu_provider_is_child(pr->conf);
    bool trial = mu_breaker_state(&pr->breaker, mu_providers_now(p)) == MU_BREAKER_HALF_OPEN;
    if (child && pr->running >= mu_provider_slots(pr->conf)) {
        return MU_E_BUSY;
    }
    struct mu_provider_call *c = call_new(p, req);
    if (!c) {
        return -ENOMEM;
    }
    int r = 0;
    if (pr->conf == &pr->gone) {
        mu_call_fail_soon(c, MU_CALL_CONFIG, "",
                          MU_B("The provider is no longer part of the configuration"));
    } else {
        r = child ? mu_call_cli_start(c, req) : mu_call_http_start(c, req);
    }
    if (r < 0) {
        mu_call_free(c);
        return r;
    }
    mu_list_push(&p->calls, &c->link);
    pr->running++;
    c->trial = trial && !pr->breaker.trial;
    pr->breaker.trial = pr->breaker.trial || c->trial;
    *ret = c;
    return 0;
}

void mu_provider_call_abort(struct mu_provider_call *c)
{
    MU_CHECK(c->phase != MU_CALL_REMOVING);
    if (c->aborted) {
        return;
    }
    c->aborted = true;
    if (c->phase == MU_CALL_POSTED) {
        mu_provider_call_fail(c, MU_CALL_CANCELLED, "", MU_B("Cancelled"));
    } else if (c->fetch) {
        c->p->opts.fetch->abort(c->fetch);
    } else {
        mu_call_cli_abort(c);
    }
}

void mu_call_finish(struct mu_provider_call *c)
{
    struct mu_providers *p = c->p;
    struct mu_provider *pr = c->pr;
    c->result.ms = mu_env_mono_ms(p->opts.env) - c->began_ms;
    pr->running--;
    if (c->trial) {
        pr->breaker.trial = false;
    }
    mu_metric_add(pr->calls[c->result.cls], 1);
    mu_metric_observe_us(p->seconds, c->result.ms * 1000);
    c->phase = MU_CALL_REMOVING;
    c->done(c->arg, &c->result);
    if (c->child.dir && c->child.dir[0]) {
        mu_call_cli_remove(c);
    } else {
        mu_call_free(c);
    }
    mu_providers_capacity(p);
}
