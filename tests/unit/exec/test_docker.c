#include "../unit.h"

#include "base/encode.h"
#include "exec/engine/tar.h"
#include "exec/sandbox/docker_int.h"

static const char *const no_volumes[] = {NULL};

static struct mu_docker driver(void)
{
    return (struct mu_docker){.settings = {.worker_id = "w1", .volumes = no_volumes},
                              .instance = "0123456789abcdef"};
}

static char *text_of(struct mu_buf *b)
{
    mu_buf_add_char(b, 0);
    assert_int_equal(b->failed, 0);
    return b->ptr;
}

static void names_of_images_fall_into_their_parts(void **state)
{
    static const struct {
        const char *ref, *name, *tag, *host;
    } all[] = {
        {"ubuntu:22.04", "ubuntu", "22.04", ""},
        {"ubuntu", "ubuntu", "latest", ""},
        {"owner/image", "owner/image", "latest", ""},
        {"localhost:5000/a/b:dev", "localhost:5000/a/b", "dev", "localhost:5000"},
        {"host.example/a", "host.example/a", "latest", "host.example"},
        {"a/b@sha256:0123", "a/b", "sha256:0123", ""},
        {"host.example:1/a:v1@sha256:0123", "host.example:1/a", "sha256:0123", "host.example:1"},
    };
    (void)state;
    for (size_t i = 0; i < MU_ARRAY_LEN(all); i++) {
        mu_bytes name, tag;
        mu_docker_ref_split(mu_str(all[i].ref), &name, &tag);
        assert_true(mu_bytes_is(name, all[i].name));
        assert_true(mu_bytes_is(tag, all[i].tag));
        assert_true(mu_bytes_is(mu_docker_ref_host(name), all[i].host));
    }
}

static void volumes_are_named_by_repository_and_digest(void **state)
{
    char name[MU_DOCKER_NAME];
    (void)state;
    mu_docker_volume_name(name, MU_B("host.example:1/a/b:v1"), "sha256:0123456789abcdef");
    assert_string_equal(name, "host.example-1-a-b-0123456789ab");
    mu_docker_volume_name(name, MU_B("library/ubuntu"), "sha256:01");
    assert_string_equal(name, "ubuntu-01");
}

static void containers_are_named_by_run_and_execution(void **state)
{
    char name[MU_DOCKER_NAME];
    (void)state;
    mu_docker_name(name, "run_0190", "exec_0190-abcdef12");
    assert_string_equal(name, "oz-run_0190-abcdef12");
    mu_docker_name(name, "a/b c", "1");
    assert_string_equal(name, "oz-a-b-c-1");
}

static void the_body_holds_what_protects(void **state)
{
    static const char *const env[] = {"A=1", "OZ_RUN_ID=r", NULL};
    static const char *const argv[] = {"agent", "run", NULL};
    static const char *const volumes[] = {"/data:/data:ro", NULL};
    const struct mu_sandbox_mount mounts[] = {{.source = "/src", .target = "/dst"},
                                              {.source = "image", .target = "/i", .image = true}};
    struct mu_docker d = driver();
    struct mu_docker_box b = {
        .d = &d,
        .timeout_ms = 5000,
        .grace_ms = 1000,
        .log_max = 10,
        .execution = "e1",
        .entry = "/agent/entrypoint.sh",
        .sidecars = {{.target = "/agent", .volume = "muster-agent-1"},
                     {.image = "image", .target = "/i", .volume = "image-2", .writable = true}},
        .n_sidecars = 2,
        .spec = {.image = "img",
                 .task_id = "r1",
                 .env = env,
                 .argv = argv,
                 .memory_bytes = 64 << 20,
                 .cpus = 1.5,
                 .mounts = mounts,
                 .n_mounts = 2,
                 .network = MU_NET_NONE}};
    struct mu_buf body;
    (void)state;
    d.settings.volumes = volumes;
    mu_buf_init(&body, 1 << 20);
    assert_int_equal(mu_docker_body_(&b, &body), 0);
    assert_string_equal(
        text_of(&body),
        "{\"Image\":\"img\",\"Entrypoint\":[\"/agent/entrypoint.sh\"],\"Cmd\":[\"agent\",\"run\"],"
        "\"Env\":[\"A=1\",\"OZ_RUN_ID=r\"],\"WorkingDir\":\"/workspace\",\"Tty\":false,"
        "\"OpenStdin\":false,\"StopSignal\":\"SIGTERM\",\"Healthcheck\":{\"Test\":[\"NONE\"]},"
        "\"Labels\":{\"oz.managed\":\"1\",\"oz.worker\":\"w1\",\"oz.run\":\"r1\","
        "\"oz.execution\":\"e1\",\"oz.timeout_ms\":\"5000\",\"oz.grace_ms\":\"1000\","
        "\"oz.log_bytes\":\"10\"},\"HostConfig\":{\"Binds\":[\"muster-agent-1:/agent:ro\","
        "\"image-2:/i\",\"/src:/dst:ro\",\"/data:/data:ro\"],\"Memory\":67108864,"
        "\"MemorySwap\":67108864,\"NanoCpus\":1500000000,\"PidsLimit\":4096,"
        "\"NetworkMode\":\"none\",\"SecurityOpt\":[\"no-new-privileges\"],"
        "\"LogConfig\":{\"Type\":\"json-file\",\"Config\":{\"max-size\":\"16m\",\"max-file\":\"2\"}"
        "},"
        "\"RestartPolicy\":{\"Name\":\"no\"},\"AutoRemove\":false}}");
    mu_buf_fini(&body);
}

static void the_hosts_network_needs_the_operators_consent(void **state)
{
    struct mu_docker d = driver();
    struct mu_docker_box b = {
        .d = &d, .entry = "/agent/entrypoint.sh", .spec = {.image = "i", .network = MU_NET_HOST}};
    struct mu_buf body;
    (void)state;
    mu_buf_init(&body, 1 << 20);
    d.settings.task_network = "tasks";
    assert_int_equal(mu_docker_body_(&b, &body), 0);
    assert_non_null(strstr(text_of(&body), "\"NetworkMode\":\"tasks\""));
    mu_buf_clear(&body);
    d.settings.allow_host_network = true;
    assert_int_equal(mu_docker_body_(&b, &body), 0);
    assert_non_null(strstr(text_of(&body), "\"NetworkMode\":\"host\""));
    mu_buf_fini(&body);
}

static int find_script(void *arg, const struct mu_tar_entry *e)
{
    struct mu_buf *b = arg;
    mu_buf_printf(b, "<%.*s %o>", MU_ARGS(e->name), e->mode);
    return 0;
}

static int keep_script(void *arg, mu_bytes piece)
{
    mu_buf_add(arg, piece);
    return 0;
}

static void secrets_leave_the_configuration_for_a_script(void **state)
{
    static const char *const env[] = {"1BAD=x", "OZ_RUN_ID=r", "OZ_RUN_TOKEN=t'k\n2", "a.b=c",
                                      NULL};
    struct mu_docker d = driver();
    struct mu_docker_box b = {.d = &d,
                              .entry = "/agent/entrypoint.sh",
                              .spec = {.image = "i", .env = env, .prompt = MU_B("do it")}};
    struct mu_buf body, tar, got;
    struct mu_tar t;
    (void)state;
    mu_buf_init(&body, 1 << 20);
    mu_buf_init(&tar, 1 << 20);
    mu_buf_init(&got, 1 << 20);
    d.settings.secret_files = true;
    assert_int_equal(mu_docker_body_(&b, &body), 0);
    char *text = text_of(&body);
    assert_null(strstr(text, "OZ_RUN_TOKEN"));
    assert_non_null(strstr(text, "\"Env\":[\"1BAD=x\",\"OZ_RUN_ID=r\",\"a.b=c\"]"));
    assert_non_null(strstr(text, "\"Entrypoint\":[\"/bin/sh\",\"/.oz-start\"]"));
    assert_int_equal(mu_docker_files_(&b, &tar), 0);
    mu_tar_init(&t);
    t.on_entry = find_script;
    t.on_data = keep_script;
    t.arg = &got;
    assert_int_equal(mu_tar_feed(&t, mu_buf_bytes(&tar)), 0);
    assert_string_equal(text_of(&got),
                        "<workspace/.oz 755><workspace/.oz/prompt.txt 644>do it<.oz-start 400>"
                        "rm -f /.oz-start 2>/dev/null || true\n"
                        "export OZ_RUN_TOKEN='t'\\''k\n2'\n"
                        "exec /agent/entrypoint.sh \"$@\"\n");
    mu_tar_fini(&t);
    mu_buf_fini(&got);
    mu_buf_fini(&tar);
    mu_buf_fini(&body);
}

static void without_prompt_and_secrets_nothing_is_uploaded(void **state)
{
    static const char *const env[] = {"TOKEN=t", NULL};
    struct mu_docker d = driver();
    struct mu_docker_box b = {.d = &d, .spec = {.env = env}};
    struct mu_buf tar;
    (void)state;
    mu_buf_init(&tar, 1 << 20);
    assert_int_equal(mu_docker_files_(&b, &tar), 0);
    assert_int_equal(tar.len, 0);
    mu_buf_fini(&tar);
}

/* What the header holds, as clear text. */
static int auth(const char *config, const char *image, struct mu_buf *clear)
{
    struct mu_buf line;
    mu_buf_init(&line, 4096);
    mu_buf_clear(clear);
    int r = mu_docker_auth_header(mu_str(config), mu_str(image), &line);
    if (r == 0) {
        mu_bytes b64 = mu_bytes_from(mu_str(line.ptr), sizeof "X-Registry-Auth: " - 1);
        b64.len -= 2;
        for (size_t i = 0; i < b64.len; i++) {
            char *c = (char *)b64.ptr + i;
            assert_true(*c != '+' && *c != '/');
            *c = (char)(*c == '-' ? '+' : *c == '_' ? '/' : *c);
        }
        assert_int_equal(mu_base64_decode(b64, clear), 0);
        mu_buf_add_char(clear, 0);
    }
    mu_buf_fini(&line);
    return r;
}

static void credentials_come_from_the_entry_of_the_registry(void **state)
{
    const char *config =
        "{\"auths\":{\"https://index.docker.example/v1/\":{\"auth\":\"YTpi\"},"
        "\"host.example:1\":{\"auth\":\"dXNlcjpwYTpzcw==\",\"identitytoken\":\"idt\"},"
        "\"https://other.example/v2/\":{\"username\":\"u\",\"password\":\"p\"},"
        "\"empty.example\":{}}}";
    struct mu_buf clear;
    (void)state;
    mu_buf_init(&clear, 4096);
    assert_int_equal(auth(config, "host.example:1/x", &clear), 0);
    assert_string_equal(clear.ptr, "{\"username\":\"user\",\"password\":\"pa:ss\","
                                   "\"identitytoken\":\"idt\","
                                   "\"serveraddress\":\"host.example:1\"}");
    assert_int_equal(auth(config, "ubuntu:22.04", &clear), 0);
    assert_non_null(strstr(clear.ptr, "\"username\":\"a\""));
    assert_int_equal(auth(config, "other.example/x:1", &clear), 0);
    assert_non_null(strstr(clear.ptr, "\"password\":\"p\""));
    assert_int_equal(auth(config, "empty.example/x", &clear), MU_E_NOT_FOUND);
    assert_int_equal(auth(config, "third.example/x", &clear), MU_E_NOT_FOUND);
    assert_int_equal(auth("no json", "x", &clear), MU_E_INVALID);
    assert_int_equal(auth("{\"auths\":{\"a.b\":{\"auth\":\"***\"}}}", "a.b/x", &clear),
                     MU_E_INVALID);
    mu_buf_fini(&clear);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_images_fall_into_their_parts),
        cmocka_unit_test(volumes_are_named_by_repository_and_digest),
        cmocka_unit_test(containers_are_named_by_run_and_execution),
        cmocka_unit_test(the_body_holds_what_protects),
        cmocka_unit_test(the_hosts_network_needs_the_operators_consent),
        cmocka_unit_test(secrets_leave_the_configuration_for_a_script),
        cmocka_unit_test(without_prompt_and_secrets_nothing_is_uploaded),
        cmocka_unit_test(credentials_come_from_the_entry_of_the_registry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
