/* What is found in the output of an agent. */
#include "fuzz.h"
#include "proto/links.h"

static bool within(mu_bytes part, mu_bytes all)
{
    return part.ptr >= all.ptr && part.ptr + part.len <= all.ptr + all.len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mu_bytes in = fuzz_bytes(data, size), prs[MU_PULL_REQUESTS_MAX];
    size_t n = mu_find_pull_requests(in, prs);
    MU_CHECK(n <= MU_PULL_REQUESTS_MAX);
    for (size_t i = 0; i < n; i++) {
        mu_bytes again[MU_PULL_REQUESTS_MAX];
        MU_CHECK(within(prs[i], in) && prs[i].len <= MU_PULL_REQUEST_LEN);
        MU_CHECK(mu_find_pull_requests(prs[i], again) == 1 && mu_bytes_eq(again[0], prs[i]));
        for (size_t j = 0; j < i; j++) {
            MU_CHECK(!mu_bytes_eq(prs[i], prs[j]));
        }
    }
    mu_bytes link = mu_find_session_link(in);
    if (link.len) {
        MU_CHECK(within(link, in) && link.len <= 2048);
        MU_CHECK(mu_bytes_starts(link, MU_B("http")) && mu_bytes_find_char(link, '"') < 0 &&
                 mu_bytes_find_char(link, '\n') < 0);
    }
    return 0;
}
