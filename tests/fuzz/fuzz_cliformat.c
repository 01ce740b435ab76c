/* Agents' output: the words and the verdict do not depend on the cuts. The first byte chooses the
 * format. */
#include "exec/cliformat.h"
#include "fuzz.h"

static int on_delta(void *arg, mu_bytes text)
{
    mu_buf_add(arg, text);
    return 0;
}

static int read_output(enum mu_cli_format format, mu_bytes in, unsigned seed, struct mu_buf *text,
                       struct mu_cli_verdict *v)
{
    struct mu_cli_reader *reader;
    mu_bytes answer = MU_B_NONE;
    int r = 0;
    MU_CHECK(mu_cli_reader_new(format, 2000, on_delta, text, &reader) == 0);
    if (seed == 0) {
        r = mu_cli_reader_feed(reader, in);
    }
    while (seed && in.len && r == 0) {
        r = mu_cli_reader_feed(reader, fuzz_piece(&in, &seed));
    }
    if (r == 0) {
        r = mu_cli_reader_end(reader, v, &answer);
    }
    mu_buf_add_char(text, 0);
    mu_buf_add(text, answer);
    mu_cli_reader_free(reader);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mu_bytes in = fuzz_bytes(data, size);
    enum mu_cli_format format = fuzz_byte(&in) % 5;
    struct mu_buf whole, cut;
    struct mu_cli_verdict a, b;
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    mu_buf_init(&whole, 64 << 20);
    mu_buf_init(&cut, 64 << 20);
    int x = read_output(format, in, 0, &whole, &a);
    int y = read_output(format, in, (unsigned)size + 1, &cut, &b);
    MU_CHECK(x == y && (x == 0 || x == MU_E_TOO_LARGE));
    MU_CHECK(mu_bytes_eq(mu_buf_bytes(&whole), mu_buf_bytes(&cut)));
    MU_CHECK(a.failed == b.failed && a.denied == b.denied && a.tokens_in == b.tokens_in);
    MU_CHECK(strcmp(a.session, b.session) == 0 && strcmp(a.text, b.text) == 0);
    mu_cli_rate_limited(in);
    mu_buf_fini(&whole);
    mu_buf_fini(&cut);
    return 0;
}
