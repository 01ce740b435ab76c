/* Calls of model endpoints (oz-providers.md 6). */
#include <errno.h>
#include <stdio.h>

#include "app/providers/providers_int.h"

enum {
    POST_ARENA_MAX = 256 << 20, /* 32 MiB of images, a conversation, and JSON's escapes */
    CONNECT_MS = 10000,
    FIRST_BYTE_MS = 120000,
    IDLE_MS = 60000,
    TOTAL_MS = 600000,
    ANTHROPIC_TOKENS = 2048,
    ANSWER_LEAST = 1024,
    /* an event around every few bytes of text: what the answer itself may have is the reader's
     * business */
    STREAM_FACTOR = 64,
    STREAM_SLACK = 1 << 20,
};

static const char *prefix(const struct mu_provider_call *c)
{
    return c->anthropic ? "Anthropic error:" : "Provider error:";
}

static int on_body(void *arg, int status, mu_bytes piece)
{
    struct mu_provider_call *c = arg;
    c->status = status;
    if (c->aborted) {
        return MU_E_CANCELLED;
    }
    c->body_error = mu_model_reader_feed(c->reader, status, c->stream, piece);
    return c->body_error;
}

static enum mu_call_class class_of(enum mu_model_class m)
{
    static const enum mu_call_class of[] = {
        [MU_MODEL_OK] = MU_CALL_OK,
        [MU_MODEL_RATE_LIMITED] = MU_CALL_RATE_LIMITED,
        [MU_MODEL_UNAVAILABLE] = MU_CALL_UNAVAILABLE,
        [MU_MODEL_AUTH] = MU_CALL_AUTH,
        [MU_MODEL_BAD_REQUEST] = MU_CALL_BAD_REQUEST,
        [MU_MODEL_NO_MODEL] = MU_CALL_NO_MODEL,
        [MU_MODEL_BAD_RESPONSE] = MU_CALL_BAD_RESPONSE,
    };
    return (size_t)m < MU_ARRAY_LEN(of) ? of[m] : MU_CALL_BAD_RESPONSE;
}

/* What the reader made of the bytes, seen together with how the connection ended. */
static void judge_answer(struct mu_provider_call *c, const struct mu_fetch_result *res, int status)
{
    struct mu_model_answer a;
    bool error_status = status < 200 || status > 299;
    mu_model_reader_end(c->reader, status, NULL, error_status || res->end == MU_FETCH_OK, &a);
    enum mu_call_class cls = class_of(a.cls);
    c->result.tokens_in = a.tokens_in;
    c->result.tokens_out = a.tokens_out;
    c->result.truncated = a.truncated;
    bool broke = res->end == MU_FETCH_BROKEN || res->end == MU_FETCH_STALLED;
    if (cls == MU_CALL_OK && !c->had_text) {
        mu_provider_call_fail(c, MU_CALL_BAD_RESPONSE, prefix(c), MU_B("the answer has no text"));
        return;
    }
    if (cls == MU_CALL_OK) {
        return;
    }
    if (cls == MU_CALL_BAD_RESPONSE && !error_status && broke && !c->had_delta) {
        cls = MU_CALL_UNAVAILABLE; /* nothing was heard yet: another try may do */
    }
    mu_provider_call_fail(c, cls, "", mu_str(a.err.text));
}

static void judge(struct mu_provider_call *c, const struct mu_fetch_result *res, int status)
{
    mu_bytes why = mu_str(res->text && res->text[0] ? res->text : "the connection failed");
    if (c->aborted || c->refused) {
        mu_provider_call_fail(c, MU_CALL_CANCELLED, "", MU_B("Cancelled"));
        return;
    }
    switch (res->end) {
    case MU_FETCH_CONNECT:
    case MU_FETCH_TLS:
    case MU_FETCH_TIMEOUT:
    case MU_FETCH_FAILED:
        mu_provider_call_fail(c, MU_CALL_UNAVAILABLE, prefix(c), why);
        return;
    case MU_FETCH_BROKEN:
    case MU_FETCH_STALLED:
        if (status == 0) {
            mu_provider_call_fail(c, MU_CALL_UNAVAILABLE, prefix(c), why);
            return;
        }
        break;
    case MU_FETCH_TOO_LARGE:
        if (status >= 200 && status <= 299) {
            mu_provider_call_fail(c, MU_CALL_BAD_RESPONSE, prefix(c),
                                  MU_B("the answer is too long"));
            return;
        }
        break;
    case MU_FETCH_ABORTED:
        if (c->body_error == 0) { /* nobody asked for it: the fetcher is closing */
            mu_provider_call_fail(c, MU_CALL_CANCELLED, "", MU_B("Cancelled"));
            return;
        }
        break;
    case MU_FETCH_OK:
        break;
    }
    judge_answer(c, res, status);
}

/* Whether the upstream has most likely counted the message. */
static bool counts(const struct mu_provider_call *c, const struct mu_fetch_result *res, int status)
{
    if (c->result.cls == MU_CALL_RATE_LIMITED) {
        return false;
    }
    if (status) {
        return (status >= 200 && status <= 299) || status >= 500;
    }
    return res->end != MU_FETCH_CONNECT && res->end != MU_FETCH_TLS && res->end != MU_FETCH_FAILED;
}

static void on_done(void *arg, const struct mu_fetch_result *res)
{
    struct mu_provider_call *c = arg;
    int status = res->status ? res->status : c->status;
    c->fetch = NULL;
    judge(c, res, status);
    c->result.status = status;
    c->result.counted = counts(c, res, status);
    if (c->result.cls == MU_CALL_RATE_LIMITED || c->result.cls == MU_CALL_UNAVAILABLE) {
        c->result.retry_after_ms = MU_MAX(res->retry_after_ms, 0);
    }
    mu_call_finish(c);
}

static void no_key(struct mu_provider_call *c)
{
    char var[64], words[256];
    mu_provider_variable(mu_str(c->pr->key), var, sizeof var);
    snprintf(words, sizeof words,
             "no API key is configured: set OZ_PROVIDER_%s_API_KEY or OZ_PROVIDER_API_KEY", var);
    mu_call_fail_soon(c, MU_CALL_AUTH, prefix(c), mu_str(words));
}

static void no_url(struct mu_provider_call *c)
{
    char var[64], words[256];
    mu_provider_variable(mu_str(c->pr->key), var, sizeof var);
    snprintf(words, sizeof words, "no base URL is configured: set OZ_PROVIDER_%s_BASE_URL", var);
    mu_call_fail_soon(c, MU_CALL_CONFIG, prefix(c), mu_str(words));
}

static struct mu_model_call wire_call(const struct mu_provider_call *c,
                                      const struct mu_call_request *req)
{
    const struct mu_provider_conf *conf = c->pr->conf;
    bool asked;
    return (struct mu_model_call){
        .wire = c->anthropic ? MU_WIRE_ANTHROPIC : MU_WIRE_OPENAI,
        .base_url = conf->base_url,
        .api_key = conf->api_key,
        .model = req->model,
        .system = mu_call_system(req, &asked),
        .prompt = req->prompt,
        .images = req->images,
        .n_images = req->n_images,
        .turns = req->turns,
        .n_turns = req->n_turns,
        .stream = c->stream,
        .has_temperature = conf->has_temperature,
        .temperature = conf->temperature,
        .max_tokens = conf->max_tokens > 0 ? conf->max_tokens
                      : c->anthropic       ? ANTHROPIC_TOKENS
                                           : 0,
        .extra_body = mu_str(conf->extra_body),
    };
}

static int send_post(struct mu_provider_call *c, const struct mu_model_post *post)
{
    const struct mu_provider_conf *conf = c->pr->conf;
    size_t most = (size_t)MU_MAX(c->p->opts.settings->max_output_bytes, ANSWER_LEAST);
    int r = mu_model_reader_new(c->anthropic ? MU_WIRE_ANTHROPIC : MU_WIRE_OPENAI, most,
                                mu_call_delta, c, &c->reader);
    if (r < 0) {
        return r;
    }
    const struct mu_fetch_request get = {
        .method = "POST",
        .url = post->url,
        .headers = post->headers,
        .body = post->body,
        .connect_ms = CONNECT_MS,
        .first_byte_ms = conf->timeout_ms > 0 ? conf->timeout_ms : FIRST_BYTE_MS,
        .idle_ms = IDLE_MS,
        .total_ms = TOTAL_MS,
        .max_bytes = most * STREAM_FACTOR + STREAM_SLACK,
        .body_fn = on_body,
        .done = on_done,
        .arg = c,
    };
    c->phase = MU_CALL_RUNNING;
    r = c->p->opts.fetch->start(c->p->opts.fetcher, &get, &c->fetch);
    if (r == MU_E_INVALID) {
        mu_call_fail_soon(c, MU_CALL_CONFIG, prefix(c),
                          MU_B("the request cannot be sent as configured"));
        return 0;
    }
    return r;
}

int mu_call_http_start(struct mu_provider_call *c, const struct mu_call_request *req)
{
    const struct mu_provider_conf *conf = c->pr->conf;
    c->anthropic = conf->type == MU_PROVIDER_ANTHROPIC;
    c->stream = c->p->opts.settings->streaming;
    int r = mu_call_secret(c, mu_str(conf->api_key));
    if (r == 0) {
        r = mu_call_secret(c, mu_str(conf->base_url));
    }
    if (r < 0) {
        return r;
    }
    if (c->anthropic && !mu_bytes_trim(mu_str(conf->api_key)).len) {
        no_key(c);
        return 0;
    }
    if (!c->anthropic && !mu_bytes_trim(mu_str(conf->base_url)).len) {
        no_url(c);
        return 0;
    }
    const struct mu_model_call call = wire_call(c, req);
    struct mu_arena a;
    struct mu_model_post post;
    struct mu_err err;
    mu_arena_init(&a, POST_ARENA_MAX);
    r = mu_model_post(&a, &call, &post, &err);
    if (r == 0) {
        r = send_post(c, &post);
    } else if (r != -ENOMEM) {
        mu_call_fail_soon(c, r == MU_E_TOO_LARGE ? MU_CALL_BAD_REQUEST : MU_CALL_CONFIG, "",
                          mu_str(err.text));
        r = 0;
    }
    mu_arena_fini(&a);
    return r;
}
