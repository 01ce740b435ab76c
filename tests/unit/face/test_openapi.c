#include "../unit.h"

#include "../alloc_fail.h"
#include "face/api/api_int.h"

static void nothing(struct mu_call *c)
{
    (void)c;
}

static const struct mu_schema word = {.type = MU_S_STRING, .max = 3};
static const struct mu_schema inner[] = {
    {.name = "model_id", .type = MU_S_STRING, .flags = MU_S_NULLABLE, .words = "a b"},
    {0},
};
static const struct mu_schema body[] = {
    {.name = "prompt",
     .type = MU_S_STRING,
     .flags = MU_S_REQUIRED | MU_S_NOT_BLANK | MU_S_NO_NUL,
     .min = 1,
     .max = 9,
     .doc = "What to do."},
    {.name = "n", .type = MU_S_INT, .flags = MU_S_NULLABLE, .min = 2, .max = 5},
    {.name = "config", .type = MU_S_OBJECT, .items = inner},
    {.name = "map", .type = MU_S_MAP, .items = &word, .max = 7},
    {.name = "list", .type = MU_S_ARRAY, .ref = "Thing"},
    {.name = "thing", .type = MU_S_OBJECT, .flags = MU_S_NULLABLE, .ref = "Thing"},
    {.name = "repos", .type = MU_S_STRING_OR_LIST},
    {0},
};
static const struct mu_schema query[] = {
    {.name = "state", .type = MU_S_STRING, .flags = MU_S_REPEAT, .words = "A B"},
    {.name = "limit", .type = MU_S_INT, .min = 1, .max = 200, .doc = "Page \"size\"."},
    {0},
};
static void describe(struct mu_json_w *w)
{
    mu_jw_kcstr(w, "x-more", "said");
}

static const struct mu_route routes[] = {
    {.method = MU_HTTP_GET,
     .path = "/api/v1/things/{thingID}",
     .auth = MU_AUTH_TENANT,
     .handler = nothing,
     .query = query,
     .id = "getThing",
     .summary = "One thing.",
     .response = "Thing"},
    {.method = MU_HTTP_PUT,
     .path = "/api/v1/things/{id}",
     .auth = MU_AUTH_ADMIN,
     .handler = nothing,
     .max_body = 100,
     .body = body,
     .id = "putThing",
     .response = "Thing",
     .errors = "409 422"},
    {.method = MU_HTTP_GET,
     .path = "/api/v1/socket",
     .auth = MU_AUTH_ADMIN,
     .flags = MU_ROUTE_WEBSOCKET,
     .handler = nothing,
     .id = "openThing"},
    {.method = MU_HTTP_POST,
     .path = "/api/v1/sessions/{sessionId}",
     .face = MU_FACE_SESSIONS,
     .auth = MU_AUTH_TENANT,
     .flags = MU_ROUTE_WRITES,
     .handler = nothing,
     .id = "doThing",
     .errors = "SESSION_NOT_FOUND INVALID_STATE RUNNER_UNREACHABLE",
     .describe = describe},
    {.path = "/health", .flags = MU_ROUTE_ANY_METHOD, .handler = nothing, .id = "getHealth"},
    {.path = NULL},
};
static const char *const thing[] = {"Thing", "{\"type\":\"object\"}", NULL};
static const char *const *const components[] = {thing, NULL};

static int write_document(struct mu_buf *b)
{
    struct mu_router r;
    struct mu_err err;
    int code = 0;
    mu_router_init(&r);
    for (const struct mu_route *x = routes; x->path && code == 0; x++) {
        code = mu_router_add(&r, x, &err);
    }
    if (code == 0) {
        code = mu_openapi_write(&r, "http://127.0.0.1:8080", components, b);
    }
    mu_router_fini(&r);
    return code;
}

struct document {
    struct mu_buf text;
    struct mu_arena arena;
    yyjson_val *root;
};

static int setup(void **state)
{
    static struct document d;
    struct mu_err err;
    const struct mu_json_limits limits = {1 << 20, 64};
    mu_buf_init(&d.text, 1 << 20);
    mu_arena_init(&d.arena, 16 << 20);
    assert_int_equal(write_document(&d.text), 0);
    if (mu_json_read(&d.arena, mu_buf_bytes(&d.text), &limits, &d.root, &err) < 0) {
        fail_msg("%s", err.text);
    }
    *state = &d;
    return 0;
}

static int teardown(void **state)
{
    struct document *d = *state;
    mu_buf_fini(&d->text);
    mu_arena_fini(&d->arena);
    return 0;
}

static yyjson_val *at(void **state, const char *pointer)
{
    struct document *d = *state;
    yyjson_val *v = yyjson_ptr_get(d->root, pointer);
    if (!v) {
        fail_msg("no %s in %.*s", pointer, MU_ARGS(mu_buf_bytes(&d->text)));
    }
    return v;
}

static void text_is(void **state, const char *pointer, const char *expected)
{
    struct mu_buf b;
    mu_buf_init(&b, 1 << 20);
    mu_json_add(&b, at(state, pointer));
    mu_buf_add_char(&b, 0);
    assert_string_equal(b.ptr, expected);
    mu_buf_fini(&b);
}

#define PUT        "/paths/~1api~1v1~1things~1{thingID}/put"
#define GET        "/paths/~1api~1v1~1things~1{thingID}/get"
#define PUT_MEMBER PUT "/requestBody/content/application~1json/schema/properties/"

static void routes_of_one_path_share_an_item_and_its_parameter_name(void **state)
{
    text_is(state, GET "/parameters/0/name", "\"thingID\"");
    text_is(state, PUT "/parameters/0/name", "\"thingID\"");
    text_is(state, GET "/operationId", "\"getThing\"");
    text_is(state, PUT "/security", "[{\"bearer\":[]},{\"cookie\":[]}]");
    text_is(state, "/paths/~1health/get/security", "[]");
    assert_null(mu_json_get(at(state, "/paths/~1health"), "post"));
}

static void limits_of_the_check_are_limits_of_the_document(void **state)
{
    text_is(state, PUT_MEMBER "prompt",
            "{\"type\":\"string\",\"minLength\":1,\"maxLength\":9,\"allOf\":[{\"pattern\":\"[^ "
            "\\\\t\\\\n\\\\r\\\\x0b\\\\x0c]\"},{\"pattern\":\"^[^\\\\x00]*$\"}],\"description\":"
            "\"What to do.\"}");
    text_is(state, PUT_MEMBER "n", "{\"type\":[\"integer\",\"null\"],\"minimum\":2,\"maximum\":5}");
    text_is(state, PUT_MEMBER "config/properties/model_id",
            "{\"type\":[\"string\",\"null\"],\"enum\":[\"a\",\"b\",null]}");
    text_is(state, PUT_MEMBER "map/additionalProperties",
            "{\"type\":\"string\",\"minLength\":0,\"maxLength\":3}");
    text_is(state, PUT_MEMBER "list",
            "{\"type\":\"array\",\"items\":{\"$ref\":\"#/components/schemas/Thing\"}}");
    text_is(state, PUT_MEMBER "thing",
            "{\"anyOf\":[{\"$ref\":\"#/components/schemas/Thing\"},{\"type\":\"null\"}]}");
    text_is(state, PUT "/requestBody/content/application~1json/schema/required", "[\"prompt\"]");
    text_is(state, PUT "/requestBody/required", "true");
}

static void query_keys_are_parameters(void **state)
{
    text_is(state, GET "/parameters/1/schema/items",
            "{\"type\":\"string\",\"enum\":[\"A\",\"B\"]}");
    text_is(state, GET "/parameters/1/explode", "true");
    text_is(state, GET "/parameters/2/schema/maximum", "200");
    text_is(state, GET "/parameters/2/description", "\"Page \\\"size\\\".\"");
}

static void every_status_a_route_can_give_is_there(void **state)
{
    static const char *const get[] = {"200", "400", "401", "403", "404",
                                      "405", "429", "500", "503"};
    for (size_t i = 0; i < MU_ARRAY_LEN(get); i++) {
        assert_non_null(mu_json_get(at(state, GET "/responses"), get[i]));
    }
    assert_null(mu_json_get(at(state, GET "/responses"), "422"));
    text_is(state, PUT "/responses/422/content/application~1json/schema/$ref",
            "\"#/components/schemas/Error\"");
    assert_non_null(mu_json_get(at(state, PUT "/responses"), "409"));
    assert_null(mu_json_get(at(state, "/paths/~1health/get/responses"), "401"));
    yyjson_val *ws = at(state, "/paths/~1api~1v1~1socket/get/responses");
    assert_non_null(mu_json_get(ws, "101"));
    assert_non_null(mu_json_get(ws, "426"));
    assert_null(mu_json_get(ws, "200"));
    text_is(state, "/components/schemas/Thing", "{\"type\":\"object\"}");
    at(state, "/components/schemas/Error/properties/request_id");
}

#define DO "/paths/~1api~1v1~1sessions~1{sessionId}/post"

static void a_route_of_the_sessions_face_names_its_codes(void **state)
{
    text_is(state, DO "/responses/404/x-codes", "[\"SESSION_NOT_FOUND\"]");
    text_is(state, DO "/responses/409/x-codes", "[\"INVALID_STATE\"]");
    text_is(state, DO "/responses/429/x-codes", "[\"RATE_LIMITED\"]");
    text_is(state, DO "/responses/503/x-codes",
            "[\"RUNNER_UNREACHABLE\",\"UNAVAILABLE\",\"SHUTTING_DOWN\"]");
    assert_non_null(mu_json_get(at(state, DO "/responses"), "500"));
    assert_null(mu_json_get(at(state, DO "/responses"), "426"));
    assert_null(mu_json_get(at(state, PUT "/responses/409"), "x-codes"));
    text_is(state, DO "/x-more", "\"said\"");
    text_is(state, "/x-common-codes", "[\"INTERNAL_ERROR\",\"UNAVAILABLE\"]");
}

static void a_code_that_there_is_not_is_found(void **state)
{
    (void)state;
    mu_bytes unknown;
    const struct mu_route good = {.errors = "INVALID_STATE NOT_FOUND"}, none = {.path = "/"};
    const struct mu_route bad = {.errors = "INVALID_STATE INVALID_STATES"};
    assert_true(mu_codes_known(&good, &unknown));
    assert_true(mu_codes_known(&none, &unknown));
    assert_false(mu_codes_known(&bad, &unknown));
    assert_true(mu_bytes_is(unknown, "INVALID_STATES"));
}

static int write_once(void *arg)
{
    (void)arg;
    struct mu_buf b;
    mu_buf_init(&b, 1 << 20);
    int r = write_document(&b);
    mu_buf_fini(&b);
    return r;
}

static void writing_survives_any_failing_allocation(void **state)
{
    (void)state;
    each_allocation_fails(write_once, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(routes_of_one_path_share_an_item_and_its_parameter_name),
        cmocka_unit_test(limits_of_the_check_are_limits_of_the_document),
        cmocka_unit_test(query_keys_are_parameters),
        cmocka_unit_test(every_status_a_route_can_give_is_there),
        cmocka_unit_test(a_route_of_the_sessions_face_names_its_codes),
        cmocka_unit_test(a_code_that_there_is_not_is_found),
        cmocka_unit_test(writing_survives_any_failing_allocation),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
