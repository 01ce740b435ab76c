/* Whatever decodes is exactly what the encoder makes of it; anything encoded decodes to itself. */
#include "base/encode.h"
#include "base/err.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mu_bytes in = fuzz_bytes(data, size);
    struct mu_buf a, b;
    mu_buf_init(&a, 4 << 20);
    mu_buf_init(&b, 4 << 20);
    if (mu_base64_decode(in, &a) == 0) {
        mu_base64_add(&b, mu_buf_bytes(&a));
        MU_CHECK(mu_bytes_eq(mu_buf_bytes(&b), in));
    }
    mu_buf_clear(&a);
    mu_buf_clear(&b);
    mu_base64_add(&a, in);
    MU_CHECK(mu_base64_decode(mu_buf_bytes(&a), &b) == 0);
    MU_CHECK(mu_bytes_eq(mu_buf_bytes(&b), in));
    mu_buf_clear(&b);
    mu_utf8_add_lossy(&b, in);
    MU_CHECK(mu_utf8_valid(mu_buf_bytes(&b)));
    MU_CHECK(!mu_utf8_valid(in) || mu_bytes_eq(mu_buf_bytes(&b), in));
    mu_bytes cut = mu_utf8_cut(mu_buf_bytes(&b), size / 2);
    MU_CHECK(mu_utf8_valid(cut) && cut.len <= size / 2);
    mu_buf_fini(&a);
    mu_buf_fini(&b);
    return 0;
}
