/* What a task needs before its sandbox starts: a prompt that is too long for a variable. */
#include "base/log.h"
#include "worker/worker_int.h"

enum { TRIES = 4, TRY_MS = 1000, FETCH_MS = 60000 };

static void fetch_prompt(struct mu_attempt *t);

static int on_body(void *arg, int status, mu_bytes piece)
{
    struct mu_attempt *t = arg;
    if (status == 200) {
        mu_buf_add(&t->fetched, piece);
    }
    return t->fetched.failed;
}

static void on_retry(struct mu_timer *timer)
{
    fetch_prompt(MU_CONTAINER(timer, struct mu_attempt, retry));
}

static void on_done(void *arg, const struct mu_fetch_result *result)
{
    struct mu_attempt *t = arg;
    t->prompt_fetch = NULL;
    if (t->stop_reason) {
        mu_attempt_start(t);
        return;
    }
    if (result->end == MU_FETCH_OK && result->status == 200 && !t->fetched.failed) {
        t->prompt = mu_buf_bytes(&t->fetched);
        mu_restore_run(t);
        return;
    }
    bool final = result->status >= 400 && result->status < 500 && result->status != 429;
    t->retry.fn = on_retry;
    if (final || t->fetched.failed || ++t->collect.tries >= TRIES ||
        mu_timer_set(&t->retry, TRY_MS << t->collect.tries) < 0) {
        mu_attempt_fail(t, "workspace_setup", "the prompt could not be fetched: %s (status %d)",
                        result->text ? result->text : "no answer", result->status);
    }
}

static void fetch_prompt(struct mu_attempt *t)
{
    mu_bytes path = mu_wire_var(&t->as, "OZ_TASK_PROMPT_URL");
    mu_bytes token = t->token ? mu_str(t->token) : mu_wire_var(&t->as, "OZ_RUN_TOKEN");
    if (t->stop_reason) {
        mu_attempt_start(t);
        return;
    }
    mu_buf_clear(&t->fetched);
    const struct mu_fetch_request req = {.method = "GET",
                                         .total_ms = FETCH_MS,
                                         .max_bytes = MU_WIRE_MAX_MESSAGE,
                                         .body_fn = on_body,
                                         .done = on_done,
                                         .arg = t};
    int r = mu_attempt_ask(t, path, token, NULL, req, &t->prompt_fetch);
    if (r < 0) {
        mu_attempt_fail(t, "workspace_setup", "the prompt could not be fetched: %s",
                        mu_err_text(r));
    }
}

void mu_attempt_prepare(struct mu_attempt *t)
{
    mu_bytes path = mu_wire_var(&t->as, "OZ_TASK_PROMPT_URL");
    bool foreign = !strcmp(t->backend->ops->name, "command");
    bool wanted = !mu_wire_var(&t->as, "OZ_TASK_PROMPT").ptr && path.len && path.ptr[0] == '/';
    if (wanted && !foreign && t->w->conf->server_root_url) {
        fetch_prompt(t);
    } else {
        mu_restore_run(t);
    }
}
