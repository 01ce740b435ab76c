/* A time that parses is written in the one form we use, and that form reads back the same. */
#include "base/clock.h"
#include "base/err.h"
#include "fuzz.h"

static void check(int64_t ms)
{
    char text[MU_TIME_LEN + 1];
    int64_t again;
    mu_time_format(ms, text);
    MU_CHECK(strlen(text) == MU_TIME_LEN);
    MU_CHECK(mu_time_parse(mu_str(text), &again) == 0);
    struct mu_civil c = mu_civil_of(ms);
    if (c.year >= 0 && c.year <= 9999) {
        MU_CHECK(again == ms);
        MU_CHECK(mu_civil_ms(&c) == ms - (ms % 1000 + 1000) % 1000);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mu_bytes in = fuzz_bytes(data, size);
    int64_t ms;
    if (mu_time_parse(in, &ms) == 0) {
        check(ms);
    }
    if (mu_time_parse_http(in, &ms) == 0) {
        check(ms);
    }
    if (size >= 8) {
        memcpy(&ms, data, 8);
        check(ms);
    }
    return 0;
}
