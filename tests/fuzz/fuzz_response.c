/* An engine's answer is read the same however it is cut. */
#include "exec/engine/response.h"
#include "fuzz.h"

struct got {
    struct mu_buf body;
    int status;
};

static int on_head(void *arg, const struct mu_response *r)
{
    struct got *g = arg;
    MU_CHECK(r->head_bytes <= MU_RESPONSE_HEAD && r->status >= 200);
    g->status = r->status;
    return 0;
}

static int on_body(void *arg, mu_bytes piece)
{
    struct got *g = arg;
    mu_buf_add(&g->body, piece);
    return 0;
}

static int read_answer(mu_bytes in, unsigned seed, bool head, struct got *g)
{
    struct mu_response r;
    int e = 0;
    mu_response_init(&r, head);
    r.on_head = on_head;
    r.on_body = on_body;
    r.arg = g;
    while (in.len && e == 0) {
        mu_bytes piece = seed ? fuzz_piece(&in, &seed) : in;
        in = seed ? in : MU_B_NONE;
        e = mu_response_feed(&r, piece);
    }
    return e == 0 ? mu_response_end(&r) : e;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mu_bytes in = fuzz_bytes(data, size);
    struct got whole = {.status = 0}, cut = {.status = 0};
    bool head = fuzz_byte(&in) & 1;
    mu_buf_init(&whole.body, 64 << 20);
    mu_buf_init(&cut.body, 64 << 20);
    int a = read_answer(in, 0, head, &whole);
    int b = read_answer(in, (unsigned)size + 1, head, &cut);
    MU_CHECK(a == b);
    MU_CHECK(whole.status == cut.status);
    MU_CHECK(mu_bytes_eq(mu_buf_bytes(&whole.body), mu_buf_bytes(&cut.body)));
    mu_buf_fini(&whole.body);
    mu_buf_fini(&cut.body);
    return 0;
}
