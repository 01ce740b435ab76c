/* What is read can be written and read again, and the second text equals the first; any bytes
 * become a string that reads back. */
#include "base/encode.h"
#include "fuzz.h"
#include "proto/json.h"

static const struct mu_json_limits limits = {1 << 20, 32};

static void read_and_write(mu_bytes text)
{
    struct mu_arena a, b;
    struct mu_err err;
    struct mu_buf first, second;
    yyjson_val *v, *again;
    mu_arena_init(&a, 64 << 20);
    mu_arena_init(&b, 64 << 20);
    mu_buf_init(&first, 8 << 20);
    mu_buf_init(&second, 8 << 20);
    int r = mu_json_read(&a, text, &limits, &v, &err);
    if (r == 0) {
        mu_json_add(&first, v);
        MU_CHECK(mu_json_read(&b, mu_buf_bytes(&first), &limits, &again, &err) == 0);
        mu_json_add(&second, again);
        MU_CHECK(mu_bytes_eq(mu_buf_bytes(&first), mu_buf_bytes(&second)));
    } else {
        MU_CHECK(r == MU_E_INVALID || r == MU_E_TOO_LARGE);
    }
    mu_buf_fini(&first);
    mu_buf_fini(&second);
    mu_arena_fini(&a);
    mu_arena_fini(&b);
}

static void as_string(mu_bytes text)
{
    struct mu_arena a;
    struct mu_err err;
    struct mu_buf json, lossy;
    yyjson_val *v;
    mu_arena_init(&a, 64 << 20);
    mu_buf_init(&json, 8 << 20);
    mu_buf_init(&lossy, 8 << 20);
    struct mu_json_w w = mu_json_w(&json);
    mu_jw_str(&w, text);
    mu_utf8_add_lossy(&lossy, text);
    MU_CHECK(mu_json_read(&a, mu_buf_bytes(&json), &limits, &v, &err) == 0);
    MU_CHECK(mu_bytes_eq(mu_json_bytes(v), mu_buf_bytes(&lossy)));
    mu_buf_fini(&json);
    mu_buf_fini(&lossy);
    mu_arena_fini(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size <= 1 << 16) {
        read_and_write(fuzz_bytes(data, size));
        as_string(fuzz_bytes(data, size));
    }
    return 0;
}
