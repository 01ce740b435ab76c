
#include "../unit.h"

#include "../alloc_fail.h"
#include "face/api/api_int.h"

static const struct mu_schema image[] = {
    {.name = "data", .type = MU_S_STRING, .flags = MU_S_REQUIRED},
    {.name = "mime_type", .type = MU_S_STRING, .words = "image/png image/gif"},
    {0},
};
static const struct mu_schema image_item = {.type = MU_S_OBJECT, .items = image};
static const struct mu_schema text_item = {.type = MU_S_STRING, .max = 3};
static const struct mu_schema config[] = {
    {.name = "model_id", .type = MU_S_STRING, .flags = MU_S_NULLABLE, .max = 5},
    {.name = "env", .type = MU_S_MAP, .items = &text_item, .max = 2},
    {0},
};
static const struct mu_schema closed[] = {{.name = "known", .type = MU_S_INT}, {0}};
static const struct mu_schema body[] = {
    {.name = "closed", .type = MU_S_OBJECT, .flags = MU_S_CLOSED, .items = closed},
    {.name = "prompt", .type = MU_S_STRING, .flags = MU_S_REQUIRED | MU_S_NOT_BLANK | MU_S_NO_NUL},
    {.name = "title", .type = MU_S_STRING, .flags = MU_S_NOT_BLANK, .max = 4},
    {.name = "config", .type = MU_S_OBJECT, .flags = MU_S_NULLABLE, .items = config},
    {.name = "images", .type = MU_S_ARRAY, .items = &image_item, .max = 2},
    {.name = "n", .type = MU_S_INT, .min = 1, .max = 9},
    {.name = "ratio", .type = MU_S_NUMBER, .min = -1, .max = 1},
    {.name = "team", .type = MU_S_BOOL},
    {.name = "at", .type = MU_S_TIME},
    {.name = "repos", .type = MU_S_STRING_OR_LIST, .flags = MU_S_NO_NUL, .max = 2},
    {.name = "any", .type = MU_S_ANY},
    {0},
};

static int check_text(const char *json, char *path, size_t size, struct mu_err *err)
{
    struct mu_arena a;
    mu_arena_init(&a, 1 << 20);
    yyjson_val *v = NULL;
    const struct mu_json_limits limits = {1 << 20, 64};
    struct mu_err ignored;
    assert_int_equal(mu_json_read(&a, mu_str(json), &limits, &v, &ignored), 0);
    int r = mu_schema_check(body, v, path, size, err);
    mu_arena_fini(&a);
    return r;
}

static void accepts(const char *json)
{
    char path[64];
    struct mu_err err = {0};
    if (check_text(json, path, sizeof path, &err) != 0) {
        fail_msg("%s: refused at '%s': %s", json, path, err.text);
    }
}

static void refuses(const char *json, int code, const char *field, const char *text)
{
    char path[64];
    struct mu_err err = {0};
    assert_int_equal(check_text(json, path, sizeof path, &err), code);
    assert_string_equal(path, field);
    assert_string_equal(err.text, text);
}

static void good_bodies_pass_and_unknown_members_are_ignored(void **state)
{
    (void)state;
    accepts("{\"prompt\":\"x\",\"nobody_knows\":[1]}");
    accepts("{\"prompt\":\" x \",\"config\":null,\"team\":false,\"n\":9,\"ratio\":-0.5}");
    accepts("{\"prompt\":\"x\",\"config\":{\"model_id\":null,\"env\":{\"A\":\"abc\"}}}");
    accepts("{\"prompt\":\"x\",\"images\":[{\"data\":\"\",\"mime_type\":\"image/gif\"}]}");
    accepts("{\"prompt\":\"x\",\"at\":\"2026-01-31T09:08:16+01:00\",\"any\":{\"a\":[null]}}");
    accepts("{\"prompt\":\"x\",\"repos\":\"a\\nb\"}");
    accepts("{\"prompt\":\"x\",\"repos\":[\"a\",1]}");
    accepts("{\"prompt\":\"x\",\"repos\":\"\\n a\\n \\nb\\n\"}");
    accepts("{\"prompt\":\"x\",\"title\":\"\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\"}");
}

static void required_fields_are_missed_by_name(void **state)
{
    (void)state;
    refuses("{}", MU_E_NOT_FOUND, "prompt", "prompt is required");
    refuses("null", MU_E_NOT_FOUND, "prompt", "prompt is required");
    refuses("{\"prompt\":null}", MU_E_NOT_FOUND, "prompt", "prompt is required");
    refuses("{\"prompt\":\" \\n\"}", MU_E_NOT_FOUND, "prompt", "prompt is required");
    refuses("{\"prompt\":\"x\",\"images\":[{\"data\":\"\"},{}]}", MU_E_NOT_FOUND, "images[1].data",
            "images[1].data is required");
}

static void wrong_values_are_named_with_their_path(void **state)
{
    (void)state;
    refuses("[]", MU_E_INVALID, "", "the body must be a JSON object");
    refuses("{\"prompt\":1}", MU_E_INVALID, "prompt", "prompt must be a string");
    refuses("{\"prompt\":\"a\\u0000b\"}", MU_E_INVALID, "prompt",
            "prompt must not contain NUL characters");
    refuses("{\"prompt\":\"x\",\"title\":\" \"}", MU_E_INVALID, "title", "title must not be blank");
    refuses("{\"prompt\":\"x\",\"title\":null}", MU_E_INVALID, "title", "title must be a string");
    refuses("{\"prompt\":\"x\",\"title\":\"12345\"}", MU_E_INVALID, "title",
            "title must be 0 to 4 characters");
    refuses("{\"prompt\":\"x\",\"config\":{\"model_id\":\"123456\"}}", MU_E_INVALID,
            "config.model_id", "config.model_id must be 0 to 5 characters");
    refuses("{\"prompt\":\"x\",\"config\":{\"env\":{\"KEY\":2}}}", MU_E_INVALID, "config.env.KEY",
            "config.env.KEY must be a string");
    refuses("{\"prompt\":\"x\",\"config\":{\"env\":{\"a\":\"\",\"b\":\"\",\"c\":\"\"}}}",
            MU_E_INVALID, "config.env", "config.env must be 0 to 2 entries");
    refuses("{\"prompt\":\"x\",\"images\":[1]}", MU_E_INVALID, "images[0]",
            "images[0] must be an object");
    refuses("{\"prompt\":\"x\",\"images\":[{\"data\":\"\",\"mime_type\":\"a/b\"}]}", MU_E_INVALID,
            "images[0].mime_type", "images[0].mime_type must be one of: image/png image/gif");
    refuses("{\"prompt\":\"x\",\"n\":0}", MU_E_INVALID, "n", "n must be 1 to 9");
    refuses("{\"prompt\":\"x\",\"n\":1.5}", MU_E_INVALID, "n", "n must be an integer");
    refuses("{\"prompt\":\"x\",\"n\":18446744073709551615}", MU_E_INVALID, "n",
            "n must be an integer");
    refuses("{\"prompt\":\"x\",\"ratio\":1.5}", MU_E_INVALID, "ratio", "ratio must be -1 to 1");
    refuses("{\"prompt\":\"x\",\"team\":\"yes\"}", MU_E_INVALID, "team",
            "team must be true or false");
    refuses("{\"prompt\":\"x\",\"at\":\"tomorrow\"}", MU_E_INVALID, "at",
            "at must be a time like 2026-01-31T09:08:16Z (RFC 3339)");
    refuses("{\"prompt\":\"x\",\"repos\":[1,2,3]}", MU_E_INVALID, "repos",
            "repos must be 0 to 2 entries");
    refuses("{\"prompt\":\"x\",\"repos\":\"a\\nb\\nc\"}", MU_E_INVALID, "repos",
            "repos must be 0 to 2 entries");
    refuses("{\"prompt\":\"x\",\"repos\":\"a\\u0000\"}", MU_E_INVALID, "repos",
            "repos must not contain NUL characters");
    refuses("{\"prompt\":\"x\",\"repos\":[\"a\",\"b\\u0000\"]}", MU_E_INVALID, "repos[1]",
            "repos[1] must not contain NUL characters");
}

static void a_long_path_is_cut_and_stays_text(void **state)
{
    (void)state;
    char path[12];
    struct mu_err err;
    assert_int_equal(check_text("{\"prompt\":\"x\",\"config\":{\"env\":{\"\xc3\xa4\xc3\xa4\":1}}}",
                                path, sizeof path, &err),
                     MU_E_INVALID);
    assert_string_equal(path, "config.env.");
}

/* --- query --- */

static const struct mu_schema query[] = {
    {.name = "limit", .type = MU_S_INT},
    {.name = "state", .type = MU_S_STRING, .flags = MU_S_REPEAT, .words = "QUEUED FAILED"},
    {.name = "refresh", .type = MU_S_BOOL},
    {.name = "after", .type = MU_S_TIME},
    {.name = "ratio", .type = MU_S_NUMBER, .max = 2},
    {0},
};

static int check_query(const char *text, char *path, size_t *n)
{
    struct mu_arena a;
    struct mu_query_value values[MU_QUERY_MAX];
    struct mu_err err;
    mu_arena_init(&a, 1 << 20);
    int r = mu_schema_query(query, &a, mu_str(text), values, n, path, 64, &err);
    mu_arena_fini(&a);
    return r;
}

static void known_query_keys_are_taken_and_others_ignored(void **state)
{
    (void)state;
    char path[64];
    size_t n = 99;
    assert_int_equal(check_query("", path, &n), 0);
    assert_int_equal(n, 0);
    assert_int_equal(check_query("limit=-5&x=1&state=QUEUED&state=FAILED&refresh=true", path, &n),
                     0);
    assert_int_equal(n, 4);
    assert_int_equal(check_query("after=2026-01-01T00%3A00%3A00Z&ratio=1.5", path, &n), 0);
    assert_int_equal(n, 2);
}

static void bad_query_values_are_refused_by_key(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"limit=abc", "limit"}, {"limit=", "limit"},          {"limit=1&limit=2", "limit"},
        {"state=OK", "state"},  {"refresh=maybe", "refresh"}, {"after=x", "after"},
        {"ratio=3", "ratio"},   {"ratio=nan", "ratio"},       {"ratio=1x", "ratio"},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        char path[64];
        size_t n;
        assert_int_equal(check_query(rows[i][0], path, &n), MU_E_INVALID);
        assert_string_equal(path, rows[i][1]);
    }
    char path[64];
    size_t n;
    assert_int_equal(check_query("a=%zz", path, &n), MU_E_PROTOCOL);
}

static void a_flood_of_values_is_bounded(void **state)
{
    (void)state;
    struct mu_buf b;
    char path[64];
    size_t n;
    mu_buf_init(&b, 1 << 20);
    for (int i = 0; i < MU_QUERY_MAX + 1; i++) {
        mu_buf_add_str(&b, "state=QUEUED&");
    }
    mu_buf_add_char(&b, 0);
    assert_int_equal(check_query(b.ptr, path, &n), MU_E_INVALID);
    assert_string_equal(path, "state");
    mu_buf_fini(&b);
}

static int query_once(void *arg)
{
    (void)arg;
    char path[64];
    size_t n;
    return check_query("state=QUEUED&limit=%31", path, &n);
}

static void a_query_survives_any_failing_allocation(void **state)
{
    (void)state;
    each_allocation_fails(query_once, NULL);
}

static void a_closed_object_refuses_what_it_does_not_list(void **state)
{
    (void)state;
    accepts("{\"prompt\":\"p\",\"closed\":{}}");
    accepts("{\"prompt\":\"p\",\"closed\":{\"known\":1}}");
    refuses("{\"prompt\":\"p\",\"closed\":{\"known\":1,\"other\":null}}", MU_E_INVALID,
            "closed.other", "closed.other is not known");
    refuses("{\"prompt\":\"p\",\"closed\":{\"know\":1}}", MU_E_INVALID, "closed.know",
            "closed.know is not known");
    refuses("{\"prompt\":\"p\",\"closed\":5}", MU_E_INVALID, "closed", "closed must be an object");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_bodies_pass_and_unknown_members_are_ignored),
        cmocka_unit_test(required_fields_are_missed_by_name),
        cmocka_unit_test(wrong_values_are_named_with_their_path),
        cmocka_unit_test(a_closed_object_refuses_what_it_does_not_list),
        cmocka_unit_test(a_long_path_is_cut_and_stays_text),
        cmocka_unit_test(known_query_keys_are_taken_and_others_ignored),
        cmocka_unit_test(bad_query_values_are_refused_by_key),
        cmocka_unit_test(a_flood_of_values_is_bounded),
        cmocka_unit_test(a_query_survives_any_failing_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
