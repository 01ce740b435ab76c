#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "base/encode.h"
#include "base/id.h"
#include "main/client.h"
#include "main/ui.h"

enum { MAX_PROMPT = 1000000 };

static int read_prompt(const struct mu_cli *cli, const char *file, struct mu_buf *dst)
{
    bool standard = !strcmp(file, "-");
    MU_AUTO_CLOSE int fd = standard ? dup(0) : open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return mu_usage(cli->cmd, "cannot open %s: %s", file, mu_err_text(-errno));
    }
    for (;;) {
        char *room = mu_buf_room(dst, 65536);
        ssize_t n = room ? read(fd, room, 65536) : -1;
        if (n == 0) {
            return 0;
        }
        if (n < 0 && room && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return mu_usage(cli->cmd, "cannot read %s: %s", file,
                            mu_err_text(room ? -errno : dst->failed));
        }
        dst->len += (size_t)n;
    }
}

/* The words of the command line and the file, in this order. */
static int make_prompt(const struct mu_cli *cli, struct mu_buf *dst)
{
    const char *file = mu_cli_value(cli, "file");
    for (size_t i = 0; i < cli->n_args; i++) {
        mu_buf_printf(dst, "%s%s", i ? " " : "", cli->args[i]);
    }
    if (file) {
        mu_buf_add_str(dst, dst->len ? "\n\n" : "");
        int r = read_prompt(cli, file, dst);
        if (r) {
            return r;
        }
    }
    if (dst->failed || dst->len > MAX_PROMPT) {
        return mu_usage(cli->cmd, "the prompt is longer than %d bytes", MAX_PROMPT);
    }
    if (mu_bytes_trim(mu_buf_bytes(dst)).len == 0) {
        return mu_usage(cli->cmd, "the prompt is missing: muster run \"fix the tests\"");
    }
    if (!mu_utf8_valid(mu_buf_bytes(dst)) || mu_bytes_find_char(mu_buf_bytes(dst), 0) >= 0) {
        return mu_usage(cli->cmd, "the prompt is not UTF-8 text");
    }
    return 0;
}

static void opt(struct mu_json_w *w, const struct mu_cli *cli, const char *flag, const char *key)
{
    const char *v = mu_cli_value(cli, flag);
    if (v) {
        mu_jw_kcstr(w, key, v);
    }
}

static void make_body(const struct mu_cli *cli, mu_bytes prompt, struct mu_buf *dst)
{
    struct mu_json_w w = mu_json_w(dst);
    mu_jw_obj(&w);
    mu_jw_kstr(&w, "prompt", prompt);
    opt(&w, cli, "title", "title");
    mu_jw_key(&w, "config");
    mu_jw_obj(&w);
    opt(&w, cli, "model", "model_id");
    opt(&w, cli, "env", "environment_id");
    opt(&w, cli, "name", "name");
    opt(&w, cli, "base-prompt", "base_prompt");
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
    mu_buf_init(&prompt, MAX_PROMPT + 2 * 65536);
    mu_buf_init(&body, 8 * MAX_PROMPT);
    r = make_prompt(cli, &prompt);
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
