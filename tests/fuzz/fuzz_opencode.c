/* What `opencode serve` says, however wild: an HTTP answer that carries events, which are the same
 * whatever pieces they come in; a line that begins with "@" is the answer to a request instead.
 * Never a crash, every request names a path without surprises, every body is JSON. */
#include "exec/agents/opencode.h"
#include "fuzz.h"
#include "proto/sse.h"
#include "runner/http_stream.h"

struct run {
    struct mu_oc oc;
    struct mu_buf told;
    int turns;
};

static int on_call(void *arg, enum mu_oc_call call, const char *method, const char *path,
                   mu_bytes body)
{
    struct run *r = arg;
    struct mu_jtok j;
    mu_jtok_init(&j);
    MU_CHECK(path[0] == '/' && !strpbrk(path, " \r\n%#") && !strstr(path, ".."));
    MU_CHECK(!body.ptr || mu_jtok_parse(&j, body) == 0);
    mu_jtok_fini(&j);
    mu_buf_printf(&r->told, "%d %s %s", (int)call, method, path);
    mu_buf_add(&r->told, body);
    return 0;
}

static void on_listen(void *arg)
{
    struct run *r = arg;
    mu_buf_add_char(&r->told, 'l');
}

static void on_question(void *arg, const struct mu_oc_question *q)
{
    struct run *r = arg;
    MU_CHECK(q->text.len);
    mu_buf_printf(&r->told, "q%u", q->handle);
    mu_buf_add(&r->told, q->text);
    mu_buf_add(&r->told, q->options);
    if (q->handle % 3) {
        MU_CHECK(mu_oc_reply(&r->oc, q->handle, q->options) == 0);
        MU_CHECK(mu_oc_reply(&r->oc, q->handle, MU_B("1")) == MU_E_NOT_FOUND);
    }
}

static void on_foreign(void *arg, unsigned handle)
{
    struct run *r = arg;
    mu_buf_printf(&r->told, "f%u", handle);
}

static void on_ready(void *arg, const struct mu_acp_info *i)
{
    struct run *r = arg;
    mu_buf_add(&r->told, i->conversation);
    MU_CHECK(mu_oc_prompt(&r->oc, MU_B("go on")) == 0);
}

static void on_text(void *arg, bool thought, mu_bytes text)
{
    struct run *r = arg;
    MU_CHECK(text.len);
    mu_buf_add_char(&r->told, thought ? '?' : '"');
    mu_buf_add(&r->told, text);
}

static void on_tool(void *arg, const struct mu_acp_tool *t)
{
    struct run *r = arg;
    MU_CHECK(t->args.len <= MU_ACP_TEXT_MAX && t->result.len <= MU_ACP_TEXT_MAX);
    mu_buf_printf(&r->told, "t%s/%s/%d", t->id, t->title, (int)t->status);
}

static void on_ask(void *arg, const struct mu_acp_ask *a)
{
    struct run *r = arg;
    mu_buf_printf(&r->told, "a%u%s", a->handle, a->tool->title);
    if (a->handle % 3) {
        MU_CHECK(mu_oc_decide(&r->oc, a->handle, (enum mu_acp_decision)(a->handle % 2), "no") == 0);
        MU_CHECK(mu_oc_decide(&r->oc, a->handle, MU_ACP_ALLOW, NULL) == MU_E_NOT_FOUND);
    }
}

static void on_gone(void *arg, unsigned handle)
{
    struct run *r = arg;
    mu_buf_printf(&r->told, "g%u", handle);
}

static void on_update(void *arg, mu_bytes kind, mu_bytes json)
{
    struct run *r = arg;
    struct mu_jtok j;
    mu_jtok_init(&j);
    MU_CHECK(kind.len && mu_jtok_parse(&j, json) == 0);
    mu_jtok_fini(&j);
    mu_buf_add(&r->told, kind);
    mu_buf_add(&r->told, json);
}

static void on_turn(void *arg, enum mu_acp_outcome o, mu_bytes reason, const struct mu_acp_usage *u)
{
    struct run *r = arg;
    MU_CHECK(u->tokens_in >= -1);
    mu_buf_printf(&r->told, "o%d", (int)o);
    mu_buf_add(&r->told, reason);
    if (r->turns++ < 8) {
        MU_CHECK(mu_oc_prompt(&r->oc, MU_B("again")) == 0);
    }
}

/* Data that begins with "@", a letter for the request and one for the status is an answer. */
static void on_event(void *arg, mu_bytes event, mu_bytes data, mu_bytes id)
{
    struct run *r = arg;
    (void)event;
    (void)id;
    if (data.len > 2 && data.ptr[0] == '@') {
        static const int statuses[] = {200, 204, 404, 500, 0};
        unsigned call = (unsigned char)data.ptr[1] % (MU_OC_READ + 1);
        int status = statuses[(unsigned char)data.ptr[2] % MU_ARRAY_LEN(statuses)];
        (void)!mu_oc_answer(&r->oc, (enum mu_oc_call)call, status, mu_bytes_from(data, 3));
    } else {
        (void)!mu_oc_event(&r->oc, data);
    }
    (void)!mu_oc_tick(&r->oc, (int64_t)(data.len % 7) * 10000);
}

static void run(struct run *r, mu_bytes in, unsigned seed)
{
    static const struct mu_acp_ops tell = {.ready = on_ready,
                                           .text = on_text,
                                           .tool = on_tool,
                                           .ask = on_ask,
                                           .ask_gone = on_gone,
                                           .update = on_update,
                                           .turn = on_turn};
    static const struct mu_oc_ops ops = {on_call, on_listen, on_question, on_foreign};
    static const struct mu_acp_options opt = {"/w", "ses_1", NULL, "1", NULL};
    struct mu_http_stream http;
    struct mu_sse sse;
    *r = (struct run){.turns = 0};
    mu_buf_init(&r->told, 16 << 20);
    MU_CHECK(mu_oc_init(&r->oc, &tell, &ops, r, &opt, "a/b") == 0 && mu_oc_start(&r->oc) == 0);
    mu_http_stream_init(&http);
    mu_sse_init(&sse, 1 << 20, on_event, r);
    int e = 0;
    while (in.len && !e && http.step != MU_HS_DONE) {
        mu_bytes part = seed ? fuzz_piece(&in, &seed) : in, piece;
        in = seed ? in : MU_B_NONE;
        while (part.len && !e && http.step != MU_HS_DONE) {
            e = mu_http_stream_feed(&http, &part, &piece);
            e = e ? e : mu_sse_feed(&sse, piece);
        }
    }
    (void)!mu_oc_cancel(&r->oc);
    mu_sse_fini(&sse);
    mu_http_stream_fini(&http);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct run one, many;
    mu_bytes in = fuzz_bytes(data, size);
    run(&one, in, 0);
    run(&many, in, (unsigned)size + 1);
    MU_CHECK(mu_bytes_eq(mu_buf_bytes(&one.told), mu_buf_bytes(&many.told)));
    MU_CHECK(one.oc.state == many.oc.state);
    struct run *both[] = {&one, &many};
    for (size_t i = 0; i < 2; i++) {
        mu_oc_fini(&both[i]->oc);
        mu_buf_fini(&both[i]->told);
    }
    return 0;
}
