#include "../unit.h"

#include "../alloc_fail.h"
#include "runner/result.h"

static struct mu_result full(void)
{
    static char name[] = "shots/one.png", path[] = "/workspace/.oz/artifacts/shots/one.png",
                branch[] = "fix/\"x\"\n\xff";
    struct mu_result r = {.exit_code = 3,
                          .phase = "agent",
                          .output_path = "/o",
                          .duration_ms = 12,
                          .created_ms = 1769850000999,
                          .message = "it \"broke\"",
                          .n_prs = 1,
                          .pr_branch = branch,
                          .n_files = 1};
    r.prs[0] = MU_B("https://github.com/o/r/pull/7");
    r.session_link = MU_B("https://x/");
    r.files[0] = (struct mu_result_file){name, path, "image/png", 5};
    return r;
}

static void every_member_is_written_and_escaped(void **state)
{
    (void)state;
    struct mu_result r = full();
    struct mu_buf b;
    mu_buf_init(&b, 1 << 16);
    mu_result_add(&b, &r);
    mu_buf_add_char(&b, 0);
    assert_string_equal(b.ptr,
                        "\"exit_code\":3,\"phase\":\"agent\",\"output_path\":\"/"
                        "o\",\"duration_ms\":12,\"message\":\"it \\\"broke\\\"\","
                        "\"output_truncated\":false,\"artifacts\":[{\"artifact_type\":\"PULL_"
                        "REQUEST\",\"created_at\":\"2026-01-31T09:00:00Z\","
                        "\"data\":{\"branch\":\"fix/\\\"x\\\"\\n\xef\xbf\xbd\",\"url\":\"https://"
                        "github.com/o/r/pull/7\"}}],"
                        "\"session_link\":\"https://x/\",\"files\":[{\"path\":\"/workspace/.oz/"
                        "artifacts/shots/one.png\",\"name\":\"shots/one.png\","
                        "\"media_type\":\"image/png\",\"bytes\":5}]");
    mu_buf_fini(&b);
}

static void what_is_not_known_is_null_or_empty(void **state)
{
    (void)state;
    struct mu_result r = {.exit_code = 2, .phase = "args"};
    struct mu_buf b;
    mu_buf_init(&b, 1 << 16);
    mu_result_add(&b, &r);
    mu_buf_add_char(&b, 0);
    assert_string_equal(
        b.ptr, "\"exit_code\":2,\"phase\":\"args\",\"output_path\":null,\"duration_ms\":0,"
               "\"message\":null,"
               "\"output_truncated\":false,\"artifacts\":[],\"session_link\":null,\"files\":[]");
    mu_buf_fini(&b);
}

static int no_memory(void *arg)
{
    (void)arg;
    struct mu_result r = full();
    struct mu_buf b;
    mu_buf_init(&b, 1 << 16);
    mu_result_add(&b, &r);
    int failed = b.failed;
    mu_buf_fini(&b);
    return failed;
}

static void memory_may_run_out_anywhere(void **state)
{
    (void)state;
    each_allocation_fails(no_memory, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_member_is_written_and_escaped),
        cmocka_unit_test(what_is_not_known_is_null_or_empty),
        cmocka_unit_test(memory_may_run_out_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
