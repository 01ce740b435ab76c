/* A stream gives the same events however it is cut, within the limits. */
#include "fuzz.h"
#include "proto/sse.h"

enum { MAX_EVENT = 200 };

static void on_event(void *arg, mu_bytes event, mu_bytes data, mu_bytes id)
{
    struct mu_buf *log = arg;
    MU_CHECK(event.len <= MAX_EVENT && data.len <= MAX_EVENT && id.len <= MAX_EVENT);
    mu_buf_add(log, event);
    mu_buf_add_char(log, 0);
    mu_buf_add(log, data);
    mu_buf_add_char(log, 0);
    mu_buf_add(log, id);
    mu_buf_add_char(log, 1);
}

static int read_stream(mu_bytes in, unsigned seed, struct mu_buf *log)
{
    struct mu_sse s;
    int r = 0;
    mu_sse_init(&s, MAX_EVENT, on_event, log);
    if (seed == 0) {
        r = mu_sse_feed(&s, in);
    }
    while (seed && in.len && r == 0) {
        r = mu_sse_feed(&s, fuzz_piece(&in, &seed));
    }
    if (r == 0) {
        r = mu_sse_end(&s);
    }
    mu_sse_fini(&s);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mu_bytes in = fuzz_bytes(data, size);
    struct mu_buf whole, cut;
    mu_buf_init(&whole, 64 << 20);
    mu_buf_init(&cut, 64 << 20);
    int a = read_stream(in, 0, &whole), b = read_stream(in, (unsigned)size + 1, &cut);
    MU_CHECK(a == b && (a == 0 || a == MU_E_TOO_LARGE));
    MU_CHECK(mu_bytes_eq(mu_buf_bytes(&whole), mu_buf_bytes(&cut)));
    mu_buf_fini(&whole);
    mu_buf_fini(&cut);
    return 0;
}
