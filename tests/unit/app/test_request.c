/* From a request to a session: what is refused, and what the session gets. */
#include "../unit.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "../alloc_fail.h"
#include "app/dispatch/request.h"
#include "proto/json.h"

#pragma GCC diagnostic ignored "-Wunused-parameter"

static struct mu_arena arena;
static const struct mu_providers_settings settings = {.default_provider = "custom",
                                                      .default_harness = "custom"};

static int set_up(void **state)
{
    mu_arena_init(&arena, 8 << 20);
    return 0;
}
static int tear_down(void **state)
{
    mu_arena_fini(&arena);
    return 0;
}

static yyjson_val *json(const char *text)
{
    static const struct mu_json_limits limits = {.max_bytes = 4 << 20, .max_depth = 80};
    yyjson_val *v = NULL;
    assert_int_equal(mu_json_read(&arena, mu_str(text), &limits, &v, NULL), 0);
    return v;
}

static void what_cannot_be_honoured_is_refused_by_name(void **state)
{
    static const struct {
        const char *config, *skill;
        bool worker, conversation;
        size_t images;
        const char *field; /* NULL = fine */
    } cases[] = {
        {"{}", NULL, false, false, 0, NULL},
        {"{}", NULL, false, true, 5, NULL},
        {"{}", "s", false, false, 0, "skill"},
        {"{\"skill_spec\":\"s\"}", NULL, false, false, 0, "config.skill_spec"},
        {"{\"skill_spec\":\"\"}", NULL, false, false, 0, NULL},
        {"{\"skill_spec\":\"s\"}", "t", true, false, 0, NULL},
        {"{\"mcp_servers\":{\"a\":{\"url\":\"u\"}}}", NULL, false, false, 0, "config.mcp_servers"},
        {"{\"mcp_servers\":{}}", NULL, false, false, 0, NULL},
        {"{\"mcp_servers\":{\"a\":{\"url\":\"u\"}}}", NULL, true, false, 0, NULL},
        {"{\"mcp_servers\":{\"a\":{}}}", NULL, true, false, 0, "config.mcp_servers"},
        {"{\"mcp_servers\":{\"a\":{\"url\":\"u\",\"command\":\"c\"}}}", NULL, true, false, 0,
         "config.mcp_servers"},
        {"{\"computer_use_enabled\":true}", NULL, false, false, 0, "config.computer_use_enabled"},
        {"{\"computer_use_enabled\":false}", NULL, false, false, 0, NULL},
        {"{\"computer_use_enabled\":true}", NULL, true, false, 0, NULL},
        {"{\"worker_host\":\"h\"}", NULL, false, false, 0, "config.worker_host"},
        {"{\"worker_host\":\"warp\"}", NULL, false, false, 0, NULL},
        {"{\"worker_host\":\"h\"}", NULL, true, false, 0, NULL},
        {"{}", NULL, true, false, 1, "images"},
        {"{}", NULL, true, true, 0, "conversation_id"},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(cases); i++) {
        const struct mu_run_request rq = {
            .config = json(cases[i].config),
            .skill = mu_str(cases[i].skill),
            .environment_id = cases[i].worker ? MU_B("env") : MU_B_NONE,
            .conversation_id = cases[i].conversation ? MU_B("conv") : MU_B_NONE,
            .n_images = cases[i].images};
        const char *field = NULL;
        const char *why = mu_run_request_refuse(&rq, &field);
        if (!cases[i].field) {
            assert_null(why);
        } else {
            assert_non_null(why);
            assert_string_equal(field, cases[i].field);
        }
    }
    const struct mu_run_request none = {.config = NULL};
    const char *field = NULL;
    assert_null(mu_run_request_refuse(&none, &field));
}

static void assert_text(mu_bytes have, const char *want)
{
    if (!mu_bytes_is(have, want)) {
        fail_msg("\"%.*s\" instead of \"%s\"", MU_ARGS(have), want);
    }
}

static void the_session_gets_what_was_asked_for(void **state)
{
    const struct mu_run_request rq = {
        .prompt = MU_B("do it"),
        .title = MU_B("A title"),
        .skill = MU_B("sk"),
        .config = json("{\"model_id\":\"m-7\",\"name\":\"n\",\"skill_spec\":\"other\"}"),
        .conversation_id = MU_B("conv"),
        .n_images = 2,
        .schedule_json = "{\"schedule_id\":\"s\"}",
        .source = MU_SRC_SLACK,
        .environment_id = MU_B("env"),
        .env_snapshot = MU_B("{}")};
    struct mu_session_create op = {.route = 0};
    assert_int_equal(mu_run_request_fill(&rq, &settings, &arena, &op), 0);
    assert_int_equal(op.route, MU_ROUTE_WORKER);
    assert_int_equal(op.source, MU_SRC_SLACK);
    assert_text(op.harness, "custom");
    assert_text(op.model, "m-7");
    assert_text(op.name, "n");
    assert_text(op.title, "A title");
    assert_text(op.skill, "sk");
    assert_text(op.prompt, "do it");
    assert_text(op.environment_id, "env");
    assert_text(op.conversation_id, "conv");
    assert_text(op.env_snapshot, "{}");
    assert_text(op.spec, "{\"agent_config\":{\"model_id\":\"m-7\",\"name\":\"n\",\"skill_spec\":"
                         "\"other\"},\"continues\":true,\"images\":2,\"schedule\":{\"schedule_id\":"
                         "\"s\"}}");
}

static void nothing_asked_for_has_defaults(void **state)
{
    const struct mu_run_request rq = {.prompt = MU_B("p"), .source = MU_SRC_API};
    struct mu_session_create op = {.route = 0};
    assert_int_equal(mu_run_request_fill(&rq, &settings, &arena, &op), 0);
    assert_int_equal(op.route, MU_ROUTE_PROVIDER);
    assert_text(op.title, "API run");
    assert_text(op.spec, "{}");
    assert_non_null(op.model.ptr); /* the columns take no NULL */
    assert_non_null(op.name.ptr);
    assert_non_null(op.skill.ptr);
    assert_null(op.environment_id.ptr);
    assert_null(op.conversation_id.ptr);
}

static void a_title_comes_from_the_name_or_is_run(void **state)
{
    static const struct {
        const char *title, *config, *want;
    } cases[] = {
        {NULL, "{\"name\":\"n\"}", "n"},
        {"", "{\"name\":\"n\"}", "n"},
        {"  ", "{\"name\":\"n\"}", "n"},
        {"  ", "{}", "Run"},
        {NULL, "{\"name\":\"  \"}", "Run"},
        {"t", "{\"name\":\"n\"}", "t"},
        {NULL, "{}", "API run"},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(cases); i++) {
        const struct mu_run_request rq = {.title = mu_str(cases[i].title),
                                          .config = json(cases[i].config)};
        struct mu_session_create op = {.route = 0};
        assert_int_equal(mu_run_request_fill(&rq, &settings, &arena, &op), 0);
        assert_text(op.title, cases[i].want);
    }
}

static int fill_small(void *arg)
{
    struct mu_arena a;
    mu_arena_init(&a, 1 << 20);
    const struct mu_run_request rq = {.config = arg, .schedule_json = "{}"};
    struct mu_session_create op = {.route = 0};
    int r = mu_run_request_fill(&rq, &settings, &a, &op);
    assert_true(r == 0 ? mu_bytes_ends(op.spec, MU_B(",\"schedule\":{}}")) : r == -ENOMEM);
    mu_arena_fini(&a);
    return r;
}

static void without_memory_it_says_so(void **state)
{
    each_allocation_fails(fill_small, json("{\"name\":\"n\",\"list\":[1,2,3]}"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_cannot_be_honoured_is_refused_by_name, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(the_session_gets_what_was_asked_for, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nothing_asked_for_has_defaults, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_title_comes_from_the_name_or_is_run, set_up, tear_down),
        cmocka_unit_test_setup_teardown(without_memory_it_says_so, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
