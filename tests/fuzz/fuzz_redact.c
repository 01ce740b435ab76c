/* Values in a stream: however it is cut the same comes out, nothing that was covered is shown, and
 * a document stays one. */
#include "fuzz.h"
#include "proto/jtok.h"
#include "proto/redact.h"

enum { VALUES = 4, TEXT = 4096 };

struct values {
    mu_bytes items[VALUES];
    size_t n;
};

static size_t covered(const struct values *v, mu_bytes text)
{
    static bool is[TEXT];
    size_t sum = 0;
    memset(is, 0, sizeof is);
    for (size_t k = 0; k < v->n; k++) {
        for (size_t i = 0; i + v->items[k].len <= text.len; i++) {
            if (memcmp(text.ptr + i, v->items[k].ptr, v->items[k].len) == 0) {
                memset(is + i, 1, v->items[k].len);
            }
        }
    }
    for (size_t i = 0; i < text.len; i++) {
        sum += is[i];
    }
    return sum;
}

static void whole_and_in_pieces(const struct mu_redact *r, const struct values *v, mu_bytes text,
                                unsigned seed)
{
    struct mu_buf a, b;
    struct mu_redact_stream s = {.state = 0};
    mu_buf_init(&a, 1 << 20);
    mu_buf_init(&b, 1 << 20);
    uint64_t hits = mu_redact_text(r, text, &a);
    mu_bytes rest = text;
    while (rest.len) {
        mu_redact_feed(r, &s, fuzz_piece(&rest, &seed), &b);
        MU_CHECK(s.held <= MU_REDACT_PIECE);
    }
    mu_redact_flush(r, &s, &b);
    MU_CHECK(s.hits == hits && mu_bytes_eq(mu_buf_bytes(&a), mu_buf_bytes(&b)));
    size_t marks = hits * (sizeof "[redacted:N]" - 1);
    MU_CHECK(a.len >= marks && a.len - marks + covered(v, text) <= text.len);
    MU_CHECK(hits || mu_bytes_eq(mu_buf_bytes(&a), text));
    mu_buf_fini(&a);
    mu_buf_fini(&b);
}

static void document(const struct mu_redact *r, mu_bytes text)
{
    static const char *const keep[] = {"type", "a.b", NULL};
    static const struct mu_redact_own own = {keep, 4, "args"};
    struct mu_jtok j;
    struct mu_buf out;
    mu_jtok_init(&j);
    mu_buf_init(&out, 1 << 20);
    if (mu_jtok_parse(&j, text) == 0 && mu_redact_json(r, text, &own, false, &out) == 0) {
        size_t n = j.n;
        MU_CHECK(mu_jtok_parse(&j, mu_buf_bytes(&out)) == 0 && j.n == n);
    }
    mu_jtok_fini(&j);
    mu_buf_fini(&out);
}

/* Values, each a line, then the text; a line that begins with "e" is known in all its forms. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mu_bytes in = mu_bytes_head(fuzz_bytes(data, size), TEXT);
    struct values v = {.n = 0};
    struct mu_redact *r = mu_redact_new();
    unsigned seed = fuzz_byte(&in);
    bool encoded = false;
    MU_CHECK(r);
    while (v.n < VALUES && in.ptr && in.len) {
        mu_bytes line = mu_bytes_head(mu_bytes_split(&in, '\n'), MU_REDACT_PIECE);
        encoded = encoded || (line.len && line.ptr[0] == 'e');
        (void)!mu_redact_add(r, MU_B("N"), line, false);
        if (encoded) {
            (void)!mu_redact_add(r, MU_B("N"), line, true);
        }
        if (line.len >= MU_REDACT_MIN) {
            v.items[v.n++] = line;
        }
    }
    MU_CHECK(mu_redact_ready(r) == 0);
    whole_and_in_pieces(r, &v, in.ptr ? in : MU_B(""), seed);
    document(r, in.ptr ? in : MU_B(""));
    mu_redact_free(r);
    return 0;
}
