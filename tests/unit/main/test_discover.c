/* The first look around when no provider is configured. */
#include "config_world.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <sys/socket.h>

static const unsigned no_ports[] = {0};

static void keys_are_found_and_the_first_is_the_default(void **state)
{
    (void)state;
    struct loaded l;
    struct mu_err err;
    LOAD(&l, "OPENAI_API_KEY=o", "ANTHROPIC_API_KEY=a", "GEMINI_API_KEY=g");
    assert_int_equal(mu_discover(l.c, "", no_ports, &err), 0);
    assert_int_equal(l.c->provider_list.n, 5);
    for (size_t i = 1; i < 5; i++) {
        assert_true(l.c->provider_list.items[i].discovered);
        assert_true(mu_provider_complete(&l.c->provider_list.items[i]));
        assert_non_null(l.c->provider_list.items[i].found);
    }
    assert_string_equal(provider(&l, "claude")->api_key, "a");
    assert_string_equal(provider(&l, "gemini")->api_key, "g");
    assert_int_equal(provider(&l, "custom")->type, MU_PROVIDER_ANTHROPIC);
    assert_string_equal(provider(&l, "custom")->api_key, "a");
    loaded_fini(&l);
}

static void nothing_is_looked_for_when_a_provider_is_configured(void **state)
{
    (void)state;
    struct loaded l;
    struct mu_err err;
    LOAD(&l, "OPENAI_API_KEY=o", "OZ_PROVIDER_GLM_MODEL=m");
    assert_int_equal(mu_discover(l.c, "/usr/bin:/bin", no_ports, &err), 0);
    assert_int_equal(l.c->provider_list.n, 2);
    assert_false(provider(&l, "glm")->discovered);
    loaded_fini(&l);
}

static void agents_on_the_path_become_cli_providers(void **state)
{
    (void)state;
    struct folder f;
    struct loaded l;
    struct mu_err err;
    folder_init(&f);
    file_in(&f, "claude", "#!/bin/sh\n", 0700);
    file_in(&f, "codex", "not executable", 0600);
    LOAD(&l, "ANTHROPIC_API_KEY=a");
    assert_int_equal(mu_discover(l.c, f.path, no_ports, &err), 0);
    const struct mu_provider_conf *p = provider(&l, "claude_cli");
    assert_non_null(p);
    assert_int_equal(p->type, MU_PROVIDER_CLI);
    assert_int_equal(p->cli_format, MU_CLI_CLAUDE_STREAM_JSON);
    assert_true(p->discovered);
    assert_non_null(strstr(p->found, f.path));
    assert_null(provider(&l, "codex"));
    loaded_fini(&l);
    LOAD(&l, "OZ_MODEL=general");
    assert_int_equal(mu_discover(l.c, f.path, no_ports, &err), 0);
    assert_int_equal(provider(&l, "claude")->type, MU_PROVIDER_CLI);
    assert_int_equal(provider(&l, "custom")->type, MU_PROVIDER_CLI);
    assert_false(provider(&l, "custom")->model_given);
    loaded_fini(&l);
    folder_fini(&f);
}

/* A server that gives one connection one answer. */
struct small_server {
    int fd;
    unsigned port;
    const char *answer;
    pthread_t thread;
};
static void *serve_one(void *arg)
{
    struct small_server *s = arg;
    char request[1024];
    int c = accept(s->fd, NULL, NULL);
    if (c >= 0 && s->answer && recv(c, request, sizeof request, 0) > 0) {
        send(c, s->answer, strlen(s->answer), MSG_NOSIGNAL);
    }
    close(c);
    return NULL;
}
static void server_init(struct small_server *s, const char *answer)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    s->answer = answer;
    s->fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(s->fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(s->fd, 4), 0);
    assert_int_equal(getsockname(s->fd, (struct sockaddr *)&a, &len), 0);
    s->port = ntohs(a.sin_port);
    assert_int_equal(pthread_create(&s->thread, NULL, serve_one, s), 0);
}
static void server_fini(struct small_server *s)
{
    pthread_join(s->thread, NULL);
    close(s->fd);
}

static void a_local_server_gives_its_first_model(void **state)
{
    (void)state;
    struct small_server s;
    struct loaded l;
    struct mu_err err;
    server_init(&s, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
                    "{\"object\":\"list\",\"data\":[{\"id\":\"tiny:1b\"},{\"id\":\"other\"}]}");
    const unsigned ports[] = {1, s.port, 0};
    LOAD(&l, "LANG=C");
    assert_int_equal(mu_discover(l.c, "", ports, &err), 0);
    server_fini(&s);
    assert_non_null(provider(&l, "local"));
    assert_string_equal(provider(&l, "local")->model, "tiny:1b");
    assert_non_null(strstr(provider(&l, "local")->base_url, "/v1"));
    assert_string_equal(provider(&l, "custom")->model, "tiny:1b");
    loaded_fini(&l);
}

static void a_local_server_of_another_kind_is_passed_over(void **state)
{
    (void)state;
    const char *answers[] = {
        NULL,
        "",
        "HTTP/1.1 404 Not Found\r\n\r\n{\"data\":[{\"id\":\"m\"}]}",
        "HTTP/1.1 200 OK\r\n\r\n<html>",
        "HTTP/1.1 200 OK\r\n\r\n{\"data\":[]}",
        "HTTP/1.1 200 OK\r\n\r\n{\"data\":[{\"id\":7}]}",
        "HTTP/1.1 200 OK\r\n\r\n{\"data\":[{\"id\":\"a b\"}]}",
        "SSH-2.0-OpenSSH\r\n\r\n",
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(answers); i++) {
        struct small_server s;
        struct mu_arena a;
        const char *model;
        mu_arena_init(&a, 1 << 20);
        server_init(&s, answers[i]);
        assert_false(mu_discover_local(&a, s.port, &model));
        server_fini(&s);
        mu_arena_fini(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_found_and_the_first_is_the_default),
        cmocka_unit_test(nothing_is_looked_for_when_a_provider_is_configured),
        cmocka_unit_test(agents_on_the_path_become_cli_providers),
        cmocka_unit_test(a_local_server_gives_its_first_model),
        cmocka_unit_test(a_local_server_of_another_kind_is_passed_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
