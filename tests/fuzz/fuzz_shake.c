/* A server's answer to an upgrade: the same wherever it is cut, and 101 only as it must be. */
#include "base/err.h"
#include "fuzz.h"
#include "runner/ws_shake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char accept[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    mu_bytes in = fuzz_bytes(data, size);
    struct mu_shake_answer whole = {0}, part = {0};
    unsigned char sum[MU_SHA1_LEN];
    int r = mu_shake_read(in, accept, &whole);
    MU_CHECK(r == 0 || r == 1 || r == MU_E_PROTOCOL || r == MU_E_TOO_LARGE);
    if (r == 1) {
        MU_CHECK(whole.status >= 100 && whole.status <= 599 && whole.length <= size);
        MU_CHECK(whole.status != 101 || mu_bytes_find(in, mu_str(accept)) >= 0);
        MU_CHECK(mu_shake_read(mu_bytes_head(in, whole.length), accept, &part) == 1);
        MU_CHECK(part.status == whole.status && part.length == whole.length);
        MU_CHECK(mu_shake_read(mu_bytes_head(in, whole.length - 1), accept, &part) == 0);
    }
    mu_sha1(in, sum);
    return 0;
}
