/* The answer to a pull means the same however it is cut. */
#include "exec/engine/pull.h"
#include "fuzz.h"

static int read_pull(mu_bytes in, unsigned seed, struct mu_pull *p)
{
    int r = 0;
    mu_pull_init(p, NULL, NULL);
    while (in.len && r == 0) {
        mu_bytes piece = seed ? fuzz_piece(&in, &seed) : in;
        in = seed ? in : MU_B_NONE;
        r = mu_pull_feed(p, piece);
    }
    return r < 0 ? r : mu_pull_end(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mu_pull whole, cut;
    int a = read_pull(fuzz_bytes(data, size), 0, &whole);
    int b = read_pull(fuzz_bytes(data, size), (unsigned)size + 1, &cut);
    MU_CHECK(a == b && (a == 0 || a == MU_E_PROTOCOL || a == MU_E_TOO_LARGE));
    MU_CHECK(whole.failed == cut.failed && !strcmp(whole.error, cut.error));
    MU_CHECK(!strcmp(whole.status, cut.status) && strlen(whole.error) < MU_PULL_TEXT);
    for (const char *c = whole.error; *c; c++) {
        MU_CHECK((unsigned char)*c >= 0x20 && *c != 0x7f);
    }
    mu_pull_fini(&whole);
    mu_pull_fini(&cut);
    return 0;
}
