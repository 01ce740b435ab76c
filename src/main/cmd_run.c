#include <stdio.h>

#include "base/id.h"
#include "main/client.h"
#include "main/prompt.h"
#include "main/ui.h"

static void make_body(const struct mu_cli *cli, mu_bytes prompt, struct mu_buf *dst)
{
    struct mu_json_w w = mu_json_w(dst);
    mu_jw_obj(&w);
    mu_jw_kstr(&w, "prompt", prompt);
    mu_client_option(&w, cli, "title", "title");
    mu_jw_key(&w, "config");
    mu_jw_obj(&w);
    mu_client_option(&w, cli, "model", "model_id");
    mu_client_option(&w, cli, "env", "environment_id");
    mu_client_option(&w, cli, "name", "name");
    mu_client_option(&w, cli, "base-prompt", "base_prompt");
    mu_jw_obj_end(&w);
    mu_jw_obj_end(&w);
}

static int follow(struct mu_client *c, const char *id)
{
    char state[16];
    const struct mu_follow f = {.id = id, .progress = mu_ui_tty(stderr) && !c->json};
    int r = mu_client_follow(c, &f, state, sizeof state);
    return r ? r : mu_state_exit(mu_str(state));
}

static int wait_for(struct mu_client *c, const char *id, int64_t seconds)
{
    struct mu_reply reply;
    int r = mu_client_wait(c, id, seconds, &reply);
    if (r && r != MU_EXIT_TIMEOUT) {
        return r;
    }
    mu_bytes state = mu_json_get_bytes(reply.root, "state");
    if (c->json && reply.body.len) {
        mu_client_print(&reply);
    } else if (r == MU_EXIT_TIMEOUT) {
        fprintf(stderr, "muster: %s is %.*s; it goes on\n", id, MU_ARGS(state));
    } else {
        mu_print_outcome(reply.root);
    }
    return r ? r : mu_state_exit(state);
}

static int after_create(const struct mu_cli *cli, struct mu_client *c, const struct mu_reply *reply,
                        int64_t wait)
{
    char id[128];
    mu_bytes run = mu_json_get_bytes(reply->root, "run_id");
    if (run.len == 0 || run.len >= sizeof id) {
        fputs("muster: the answer has no run_id\n", stderr);
        return MU_EXIT_FAILED;
    }
    snprintf(id, sizeof id, "%.*s", MU_ARGS(run));
    bool following = mu_cli_has(cli, "follow"), waiting = mu_cli_has(cli, "wait");
    if (following && !c->json) {
        fprintf(stderr, "%s\n", id);
        return follow(c, id);
    }
    if (following || waiting) {
        return wait_for(c, id, waiting ? wait : -1);
    }
    if (c->json) {
        mu_client_print(reply);
        return MU_EXIT_OK;
    }
    puts(id);
    if (mu_ui_tty(stderr)) {
        fprintf(stderr, "`muster logs --follow %s` shows it.\n", id);
    }
    return MU_EXIT_OK;
}

int mu_cmd_run(struct mu_cli *cli)
{
    struct mu_client c;
    struct mu_reply reply;
    struct mu_buf prompt, body;
    int64_t wait;
    int r = mu_cli_number(cli, "wait", 0, 31536000, 0, &wait);
    if (r) {
        return r;
    }
    mu_buf_init(&prompt, MU_PROMPT_BUF);
    mu_buf_init(&body, 8 * MU_PROMPT_MAX);
    r = mu_prompt_of(cli, 0, mu_cli_value(cli, "file"), &prompt);
    if (r == 0) {
        r = mu_client_open(cli, &c);
    }
    if (r == 0) {
        /* Always with a key: a lost answer is asked for again, never run twice. */
        struct mu_id made = mu_id_random(&mu_env_real);
        const char *key = mu_cli_value(cli, "idempotency-key");
        make_body(cli, mu_buf_bytes(&prompt), &body);
        const struct mu_request req = {.method = "POST",
                                       .path = MU_B("/agent/runs"),
                                       .body = mu_buf_bytes(&body),
                                       .idempotency_key = key ? key : made.text};
        r = body.failed ? mu_client_no_memory() : mu_client_call(&c, &req, &reply);
        if (r == 0) {
            r = after_create(cli, &c, &reply, wait);
        }
        mu_client_close(&c);
    }
    mu_buf_fini(&prompt);
    mu_buf_fini(&body);
    return r;
}

int mu_cmd_rerun(struct mu_cli *cli)
{
    struct mu_client c;
    struct mu_reply reply;
    int r = mu_client_open(cli, &c);
    if (r) {
        return r;
    }
    struct mu_id key = mu_id_random(&mu_env_real);
    const struct mu_request req = {.method = "POST",
                                   .path =
                                       mu_client_path(&c, "/agent/runs", cli->args[0], "/rerun"),
                                   .idempotency_key = key.text};
    r = mu_client_call(&c, &req, &reply);
    if (r == 0) {
        r = after_create(cli, &c, &reply, 0);
    }
    mu_client_close(&c);
    return r;
}
