/* An agent's output, however wild: never a crash, the same whatever pieces it comes in, and every
 * request that is whole gets one answer at most. A command that it shows is judged as well. */
#include "exec/agents/acp.h"
#include "exec/agents/policy.h"
#include "fuzz.h"

struct run {
    struct mu_acp acp;
    struct mu_guard guard;
    struct mu_buf sent, told;
    int turns;
};

static int on_send(void *arg, mu_bytes line)
{
    struct run *r = arg;
    MU_CHECK(line.len && line.ptr[line.len - 1] == '\n');
    MU_CHECK(mu_bytes_find_char(mu_bytes_head(line, line.len - 1), '\n') < 0);
    struct mu_jtok j; /* what is echoed must not break what we say */
    mu_jtok_init(&j);
    MU_CHECK(mu_jtok_parse(&j, line) == 0);
    mu_jtok_fini(&j);
    mu_buf_add(&r->sent, line);
    return 0;
}

static void on_ready(void *arg, const struct mu_acp_info *i)
{
    struct run *r = arg;
    mu_buf_add(&r->told, i->conversation);
    MU_CHECK(mu_acp_prompt(&r->acp, MU_B("go on")) == 0);
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
    struct mu_guard_answer g;
    struct mu_guard_request q = {.kind = a->command.ptr ? MU_B("execute") : mu_str(a->tool->kind),
                                 .command = a->command,
                                 .url = a->url,
                                 .paths = (const char *const *)a->tool->paths,
                                 .n_paths = a->tool->n_paths};
    mu_guard_check(&r->guard, &q, &g);
    MU_CHECK(g.rule[0]);
    mu_buf_printf(&r->told, "a%u:%d", a->handle, (int)g.verdict);
    if (a->handle % 3) {
        MU_CHECK(mu_acp_answer(&r->acp, a->handle,
                               g.verdict == MU_GUARD_ALLOW ? MU_ACP_ALLOW : MU_ACP_DENY) == 0);
        MU_CHECK(mu_acp_answer(&r->acp, a->handle, MU_ACP_ALLOW) == MU_E_NOT_FOUND);
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
    MU_CHECK(kind.len && json.len);
    mu_buf_add(&r->told, kind);
}

static void on_turn(void *arg, enum mu_acp_outcome o, mu_bytes reason, const struct mu_acp_usage *u)
{
    struct run *r = arg;
    MU_CHECK(u->tokens_in >= -1);
    mu_buf_printf(&r->told, "o%d", (int)o);
    mu_buf_add(&r->told, reason);
    if (r->turns++ < 8) {
        MU_CHECK(mu_acp_prompt(&r->acp, MU_B("again")) == 0);
    }
}

static void on_noise(void *arg, mu_bytes line)
{
    struct run *r = arg;
    mu_buf_add(&r->told, line);
}

static void run(struct run *r, mu_bytes in, unsigned seed)
{
    static const struct mu_acp_ops ops = {on_send, on_ready,  on_text, on_tool, on_ask,
                                          on_gone, on_update, on_turn, on_noise};
    static const struct mu_acp_options opt = {"/w", "c1", "default", "1", NULL};
    struct mu_err err;
    *r = (struct run){.turns = 0};
    mu_buf_init(&r->sent, 16 << 20);
    mu_buf_init(&r->told, 16 << 20);
    (void)!mu_guard_read(MU_B("{\"shellDenylist\":[\"rm\"],\"protectedPaths\":[\"a\"]}"), &r->guard,
                         &err);
    MU_CHECK(mu_acp_init(&r->acp, &ops, r, &opt) == 0 && mu_acp_start(&r->acp) == 0);
    int e = seed ? 0 : mu_acp_feed(&r->acp, in);
    while (seed && in.len && !e) {
        e = mu_acp_feed(&r->acp, fuzz_piece(&in, &seed));
    }
    MU_CHECK((e != 0) == (r->acp.state == MU_ACP_BROKEN));
    (void)!mu_acp_cancel(&r->acp);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct run one, many;
    mu_bytes in = fuzz_bytes(data, size);
    run(&one, in, 0);
    run(&many, in, (unsigned)size + 1);
    MU_CHECK(mu_bytes_eq(mu_buf_bytes(&one.sent), mu_buf_bytes(&many.sent)));
    MU_CHECK(mu_bytes_eq(mu_buf_bytes(&one.told), mu_buf_bytes(&many.told)));
    struct run *both[] = {&one, &many};
    for (size_t i = 0; i < 2; i++) {
        mu_acp_fini(&both[i]->acp);
        mu_guard_fini(&both[i]->guard);
        mu_buf_fini(&both[i]->sent);
        mu_buf_fini(&both[i]->told);
    }
    return 0;
}
