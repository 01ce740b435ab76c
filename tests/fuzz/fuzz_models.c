/* Answers of model providers: the verdict does not depend on the cuts, a bad one has words with the
 * right prefix and without an URL. The first byte chooses dialect, status and content type. */
#include "base/encode.h"
#include "exec/models.h"
#include "fuzz.h"

static int on_delta(void *arg, mu_bytes text)
{
    MU_CHECK(text.len);
    mu_buf_add(arg, text);
    return 0;
}

static struct mu_model_answer read_answer(unsigned kind, mu_bytes in, unsigned seed,
                                          struct mu_buf *text)
{
    static const int statuses[] = {200, 200, 200, 200, 204, 302, 404, 429, 500};
    enum mu_model_wire wire = kind & 1 ? MU_WIRE_OPENAI : MU_WIRE_ANTHROPIC;
    int status = statuses[(kind >> 3) % MU_ARRAY_LEN(statuses)], r = 0;
    struct mu_model_reader *reader;
    struct mu_model_answer a = {0};
    MU_CHECK(mu_model_reader_new(wire, 1000, on_delta, text, &reader) == 0);
    if (seed == 0) {
        r = mu_model_reader_feed(reader, status, kind & 2, in);
    }
    while (seed && in.len && r == 0) {
        r = mu_model_reader_feed(reader, status, kind & 2, fuzz_piece(&in, &seed));
    }
    mu_model_reader_end(reader, status, "Reason", !(kind & 4), &a);
    mu_model_reader_free(reader);
    const char *prefix = kind & 1 ? "Provider " : "Anthropic ";
    MU_CHECK((a.cls == MU_MODEL_OK) == (a.err.text[0] == 0));
    MU_CHECK(a.cls == MU_MODEL_OK || mu_bytes_starts(mu_str(a.err.text), mu_str(prefix)));
    MU_CHECK(mu_utf8_valid(mu_str(a.err.text)) && strlen(a.err.text) <= 500);
    MU_CHECK(mu_bytes_find_nocase(mu_str(a.err.text), MU_B("http://")) < 0);
    MU_CHECK(mu_bytes_find_nocase(mu_str(a.err.text), MU_B("https://")) < 0);
    return a;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mu_bytes in = fuzz_bytes(data, size);
    unsigned kind = fuzz_byte(&in);
    struct mu_buf whole, cut;
    mu_buf_init(&whole, 1000);
    mu_buf_init(&cut, 1000);
    struct mu_model_answer a = read_answer(kind, in, 0, &whole);
    struct mu_model_answer b = read_answer(kind, in, (unsigned)size + 1, &cut);
    MU_CHECK(whole.failed == 0 && cut.failed == 0);
    MU_CHECK(a.cls == b.cls && a.tokens_in == b.tokens_in && a.tokens_out == b.tokens_out);
    MU_CHECK(strcmp(a.err.text, b.err.text) == 0);
    MU_CHECK(strcmp(a.finish_reason, b.finish_reason) == 0 && a.truncated == b.truncated);
    MU_CHECK(mu_bytes_eq(mu_buf_bytes(&whole), mu_buf_bytes(&cut)));
    mu_buf_fini(&whole);
    mu_buf_fini(&cut);
    return 0;
}
