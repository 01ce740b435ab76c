/* Bodies and query strings against a schema with every type: a refusal has a path and words, an
 * acceptance means that the handler finds what the schema promises. The first byte chooses. */
#include "base/encode.h"
#include "face/api/api_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct mu_schema word = {.type = MU_S_STRING, .max = 8};
static const struct mu_schema leaf[] = {
    {.name = "data", .type = MU_S_STRING, .flags = MU_S_REQUIRED, .words = "a b"},
    {.name = "map", .type = MU_S_MAP, .items = &word, .max = 3},
    {0},
};
static const struct mu_schema entry = {.type = MU_S_OBJECT, .flags = MU_S_NULLABLE, .items = leaf};
static const struct mu_schema body[] = {
    {.name = "p", .type = MU_S_STRING, .flags = MU_S_REQUIRED | MU_S_NOT_BLANK | MU_S_NO_NUL},
    {.name = "o", .type = MU_S_OBJECT, .items = leaf},
    {.name = "l", .type = MU_S_ARRAY, .items = &entry, .max = 4},
    {.name = "i", .type = MU_S_INT, .min = -5, .max = 5},
    {.name = "n", .type = MU_S_NUMBER, .min = -5, .max = 5},
    {.name = "b", .type = MU_S_BOOL},
    {.name = "t", .type = MU_S_TIME, .flags = MU_S_NULLABLE},
    {.name = "s", .type = MU_S_STRING_OR_LIST, .max = 2},
    {.name = "a", .type = MU_S_ANY},
    {0},
};
static const struct mu_schema query[] = {
    {.name = "i", .type = MU_S_INT, .flags = MU_S_REQUIRED, .max = 9},
    {.name = "s", .type = MU_S_STRING, .flags = MU_S_REPEAT, .max = 4},
    {.name = "b", .type = MU_S_BOOL},
    {.name = "t", .type = MU_S_TIME},
    {.name = "n", .type = MU_S_NUMBER},
    {0},
};

static void check_refusal(int r, const char *path, size_t size, const struct mu_err *err)
{
    MU_CHECK(r == MU_E_INVALID || r == MU_E_NOT_FOUND || r == MU_E_PROTOCOL);
    MU_CHECK(memchr(path, 0, size) && err->text[0]);
    MU_CHECK(mu_utf8_valid(mu_str(path)));
}

static void check_body(struct mu_arena *a, mu_bytes text)
{
    char path[24];
    struct mu_err err = {0};
    yyjson_val *v = NULL;
    const struct mu_json_limits limits = {1 << 20, MU_DEPTH_MAX};
    if (mu_json_read(a, text, &limits, &v, &err) < 0) {
        return;
    }
    int r = mu_schema_check(body, v, path, sizeof path, &err);
    if (r < 0) {
        check_refusal(r, path, sizeof path, &err);
        return;
    }
    MU_CHECK(mu_bytes_trim(mu_json_get_bytes(v, "p")).len > 0);
    int64_t i = mu_json_get_i64(v, "i", 0);
    MU_CHECK(i >= -5 && i <= 5);
    MU_CHECK(yyjson_arr_size(mu_json_get(v, "l")) <= 4);
}

static void check_query(struct mu_arena *a, mu_bytes text)
{
    char path[24];
    struct mu_err err = {0};
    struct mu_query_value values[MU_QUERY_MAX];
    size_t n = 0;
    int r = mu_schema_query(query, a, text, values, &n, path, sizeof path, &err);
    if (r < 0) {
        check_refusal(r, path, sizeof path, &err);
        return;
    }
    MU_CHECK(n >= 1 && n <= MU_QUERY_MAX);
    for (size_t k = 0; k < n; k++) {
        MU_CHECK(values[k].schema && values[k].value.ptr);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mu_arena a;
    if (size == 0) {
        return 0;
    }
    mu_arena_init(&a, 16 << 20);
    mu_bytes text = mu_bytes_of((const char *)data + 1, size - 1);
    if (data[0] & 1) {
        check_query(&a, text);
    } else {
        check_body(&a, text);
    }
    mu_arena_fini(&a);
    return 0;
}
