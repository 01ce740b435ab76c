/* Live sessions: the list, one of them, a new one. */
#include <stdio.h>

#include "base/id.h"
#include "main/prompt.h"
#include "main/session_id.h"
#include "main/ui.h"

static const char *const states[] = {"CREATED",
                                     "QUEUED",
                                     "PREPARING_WORKSPACE",
                                     "STARTING_PROVIDER",
                                     "RUNNING",
                                     "WAITING_FOR_APPROVAL",
                                     "PAUSED_BY_HUMAN",
                                     "STOPPING",
                                     "COMPLETED",
                                     "FAILED",
                                     "TIMED_OUT",
                                     "active",
                                     "terminal"};

/* --- list --- */

static int list_path(const struct mu_cli *cli, struct mu_buf *path)
{
    int64_t limit;
    size_t at = 0;
    const char *state;
    bool any = false;
    int r = mu_cli_number(cli, "limit", 1, 100, 50, &limit);
    if (r) {
        return r;
    }
    mu_buf_printf(path, "/sessions?pageSize=%lld", (long long)limit);
    while ((state = mu_cli_next(cli, "state", &at))) {
        size_t i = 0;
        while (i < MU_ARRAY_LEN(states) && !mu_bytes_eq_nocase(mu_str(state), mu_str(states[i]))) {
            i++;
        }
        if (i == MU_ARRAY_LEN(states)) {
            return mu_usage(cli->cmd,
                            "--state %s: expected one of CREATED QUEUED PREPARING_WORKSPACE "
                            "STARTING_PROVIDER RUNNING WAITING_FOR_APPROVAL PAUSED_BY_HUMAN "
                            "STOPPING COMPLETED FAILED TIMED_OUT active terminal",
                            state);
        }
        mu_buf_printf(path, "&state=%s", states[i]);
        any = true;
    }
    if (!any && !mu_cli_has(cli, "all")) {
        mu_buf_add_str(path, "&state=active");
    }
    return 0;
}

/* What waits for a person in that session: "approval", "2 approvals", "". */
static void waits(yyjson_val *approvals, mu_bytes session, char *dst, size_t size)
{
    size_t i, max, n = 0;
    yyjson_val *a;
    yyjson_arr_foreach(approvals, i, max, a)
    {
        n += mu_bytes_eq(mu_json_get_bytes(a, "sessionId"), session);
    }
    if (n > 1) {
        snprintf(dst, size, "%zu approvals", n);
    } else {
        snprintf(dst, size, "%s", n ? "approval" : "");
    }
}

static void print_sessions(yyjson_val *sessions, yyjson_val *approvals)
{
    static const char *const headings[] = {"SESSION", "STATE", "PROVIDER",
                                           "CREATED", "WAITS", "SUMMARY"};
    struct mu_table t;
    yyjson_val *s;
    size_t i, max;
    mu_table_init(&t, headings, MU_ARRAY_LEN(headings));
    t.state_column = 1;
    yyjson_arr_foreach(sessions, i, max, s)
    {
        char ago[32], waiting[32];
        mu_ui_ago(mu_json_get_bytes(s, "createdAt"), ago, sizeof ago);
        waits(approvals, mu_json_get_bytes(s, "sessionId"), waiting, sizeof waiting);
        if (!waiting[0] && mu_json_get_bool(s, "hibernated", false)) {
            snprintf(waiting, sizeof waiting, "hibernated");
        } else if (!waiting[0] && mu_json_get_bool(s, "parked", false)) {
            snprintf(waiting, sizeof waiting, "parked");
        }
        mu_table_cell(&t, mu_json_get_bytes(s, "sessionId"));
        mu_table_cell(&t, mu_json_get_bytes(s, "state"));
        mu_table_cell(&t, mu_json_get_bytes(s, "providerId"));
        mu_table_cell(&t, mu_str(ago));
        mu_table_cell(&t, mu_str(waiting));
        mu_table_cell(&t, mu_json_get_bytes(s, "taskSummary"));
    }
    mu_table_end(&t);
}

static int list(struct mu_client *c, mu_bytes path)
{
    struct mu_reply sessions, approvals;
    const struct mu_request req = {.method = "GET", .path = path};
    const struct mu_request more = {.method = "GET",
                                    .path = MU_B("/approvals?status=pending&pageSize=100")};
    int r = mu_client_call(c, &req, &sessions);
    if (r || c->json) {
        if (r == 0) {
            mu_client_print(&sessions);
        }
        return r;
    }
    r = mu_client_call(c, &more, &approvals);
    if (r == 0) {
        yyjson_val *data = mu_json_get(sessions.root, "data");
        print_sessions(mu_json_get(data, "items"),
                       mu_json_get(mu_json_get(approvals.root, "data"), "items"));
        if (mu_json_get_bool(data, "hasMore", false)) {
            fputs("muster: there are more; see --limit and --state\n", stderr);
        }
    }
    return r;
}

int mu_cmd_sessions(struct mu_cli *cli)
{
    struct mu_client c;
    struct mu_buf path;
    mu_buf_init(&path, 4096);
    int r = list_path(cli, &path);
    if (r == 0 && path.failed) {
        r = mu_client_no_memory();
    }
    if (r == 0) {
        r = mu_client_open(cli, &c);
    }
    if (r == 0) {
        r = list(&c, mu_buf_bytes(&path));
        mu_client_close(&c);
    }
    mu_buf_fini(&path);
    return r;
}

/* --- show --- */

static void number_row(const char *name, yyjson_val *obj, const char *key)
{
    yyjson_val *v = mu_json_get(obj, key);
    if (v && yyjson_is_int(v)) {
        printf("%-12s %lld\n", name, (long long)yyjson_get_sint(v));
    }
}

static void print_counts(yyjson_val *s)
{
    yyjson_val *usage = mu_json_get(s, "usage"), *diff = mu_json_get(s, "diff");
    printf("%-12s %lld in, %lld out\n", "tokens", (long long)mu_json_get_i64(usage, "tokensIn", 0),
           (long long)mu_json_get_i64(usage, "tokensOut", 0));
    if (diff) {
        printf("%-12s %lld files, +%lld -%lld\n", "diff",
               (long long)mu_json_get_i64(diff, "filesChanged", 0),
               (long long)mu_json_get_i64(diff, "linesAdded", 0),
               (long long)mu_json_get_i64(diff, "linesRemoved", 0));
    }
}

static void print_waiting(yyjson_val *approvals)
{
    size_t i, max;
    yyjson_val *a;
    yyjson_arr_foreach(approvals, i, max, a)
    {
        struct mu_buf b;
        mu_buf_init(&b, 1 << 20);
        mu_ui_clean(&b, mu_json_get_bytes(a, "description"), false);
        printf("%-12s %.*s %.*s: %.*s\n", i ? "" : "waits",
               MU_ARGS(mu_json_get_bytes(a, "approvalId")), MU_ARGS(mu_json_get_bytes(a, "action")),
               MU_ARGS(mu_buf_bytes(&b)));
        mu_buf_fini(&b);
    }
}

static void print_session(yyjson_val *s)
{
    mu_bytes state = mu_json_get_bytes(s, "state");
    mu_ui_row("session", mu_json_get_bytes(s, "sessionId"));
    printf("%-12s %s%.*s%s\n", "state", mu_ui_state_colour(stdout, state), MU_ARGS(state),
           mu_ui_reset(stdout));
    if (mu_json_get_bool(s, "hibernated", false)) {
        mu_ui_row("hibernated", MU_B("yes: it holds no worker, and goes on when it is woken"));
    }
    if (mu_json_get_bool(s, "parked", false)) {
        mu_ui_row("parked", MU_B("yes: its sandbox is gone; resume it to try again"));
    }
    mu_ui_row("waits for", mu_json_get_bytes(s, "queueReason"));
    mu_ui_row("mode", mu_json_get_bytes(s, "mode"));
    mu_ui_row("provider", mu_json_get_bytes(s, "providerId"));
    mu_ui_row("model", mu_json_get_bytes(s, "model"));
    mu_ui_row("repository", mu_json_get_bytes(s, "repoUrl"));
    mu_ui_row("worker", mu_json_get_bytes(s, "runnerId"));
    mu_ui_time_row("created", mu_json_get_bytes(s, "createdAt"));
    mu_ui_time_row("started", mu_json_get_bytes(s, "runStartedAt"));
    mu_ui_time_row("paused", mu_json_get_bytes(s, "pausedAt"));
    mu_ui_time_row("ended", mu_json_get_bytes(s, "completedAt"));
    mu_ui_time_row("ends by", mu_json_get_bytes(s, "deadlineAt"));
    mu_ui_row("end reason", mu_json_get_bytes(s, "endReason"));
    number_row("exit code", s, "exitCode");
    mu_ui_row("error", mu_json_get_bytes(s, "errorMessage"));
    print_counts(s);
    print_waiting(mu_json_get(s, "pendingApprovals"));
    mu_ui_row("summary", mu_json_get_bytes(s, "taskSummary"));
}

int mu_cmd_session_show(struct mu_cli *cli)
{
    struct mu_client c;
    struct mu_reply reply;
    char id[MU_LONG_ID];
    int r = mu_client_open(cli, &c);
    if (r) {
        return r;
    }
    r = mu_session_call(cli, &c, "GET", "", MU_B_NONE, id, &reply);
    if (r == 0 && c.json) {
        mu_client_print(&reply);
    } else if (r == 0) {
        print_session(mu_json_get(reply.root, "data"));
    }
    mu_client_close(&c);
    return r;
}

/* --- new --- */

static void make_body(const struct mu_cli *cli, mu_bytes prompt, yyjson_val *policy,
                      struct mu_buf *dst)
{
    const char *provider = mu_cli_value(cli, "provider");
    struct mu_json_w w = mu_json_w(dst);
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "orgId", "me");
    mu_jw_kcstr(&w, "providerId", provider ? provider : "claude_code");
    mu_jw_key(&w, "repo");
    mu_jw_obj(&w);
    mu_client_option(&w, cli, "repo", "url");
    mu_client_option(&w, cli, "branch", "branch");
    mu_jw_obj_end(&w);
    if (prompt.len) {
        mu_jw_kstr(&w, "task", prompt);
    }
    mu_jw_key(&w, "options");
    mu_jw_obj(&w);
    if (mu_cli_has(cli, "interactive")) {
        mu_jw_kcstr(&w, "mode", "interactive");
    }
    mu_client_option(&w, cli, "model", "model");
    mu_client_option(&w, cli, "env", "environmentId");
    mu_client_option(&w, cli, "worker", "runnerId");
    if (policy) {
        mu_jw_key(&w, "policy");
        mu_json_add(dst, policy);
        w.comma = true;
    }
    mu_jw_obj_end(&w);
    mu_jw_obj_end(&w);
}

/* --policy FILE: a JSON object, as the API has it. */
static int read_policy(const struct mu_cli *cli, struct mu_client *c, yyjson_val **ret)
{
    const struct mu_json_limits limits = {.max_bytes = 1 << 20, .max_depth = 16};
    const char *file = mu_cli_value(cli, "policy");
    struct mu_buf text;
    struct mu_err err = {0};
    *ret = NULL;
    if (!file) {
        return 0;
    }
    mu_buf_init(&text, 2 << 20);
    int r = mu_read_file(cli, file, &text);
    mu_bytes copy = r == 0 ? mu_arena_dup(&c->arena, mu_buf_bytes(&text)) : MU_B_NONE;
    mu_buf_fini(&text);
    if (r) {
        return r;
    }
    if (!copy.ptr) {
        return mu_client_no_memory();
    }
    if (mu_json_read(&c->arena, copy, &limits, ret, &err) < 0) {
        return mu_usage(cli->cmd, "%s: %s", file, err.text);
    }
    return yyjson_is_obj(*ret) ? 0 : mu_usage(cli->cmd, "%s: expected a JSON object", file);
}

static int create(const struct mu_cli *cli, struct mu_client *c, mu_bytes prompt)
{
    struct mu_reply reply;
    struct mu_buf body;
    yyjson_val *policy;
    int r = read_policy(cli, c, &policy);
    if (r) {
        return r;
    }
    struct mu_id key = mu_id_random(&mu_env_real);
    mu_buf_init(&body, 8 * MU_PROMPT_MAX);
    make_body(cli, prompt, policy, &body);
    const struct mu_request req = {.method = "POST",
                                   .path = MU_B("/sessions"),
                                   .body = mu_buf_bytes(&body),
                                   .idempotency_key = key.text};
    r = body.failed ? mu_client_no_memory() : mu_client_call(c, &req, &reply);
    mu_buf_fini(&body);
    if (r == 0) {
        mu_session_made(c, &reply);
    }
    return r;
}

int mu_cmd_session_new(struct mu_cli *cli)
{
    struct mu_client c;
    struct mu_buf prompt;
    if (!mu_cli_value(cli, "repo")) {
        return mu_usage(cli->cmd, "--repo is missing: what shall it work on?");
    }
    mu_buf_init(&prompt, MU_PROMPT_BUF);
    int r = cli->n_args || !mu_cli_has(cli, "interactive") ? mu_prompt_args(cli, 0, &prompt) : 0;
    if (r == 0) {
        r = mu_client_open(cli, &c);
    }
    if (r == 0) {
        r = create(cli, &c, mu_buf_bytes(&prompt));
        mu_client_close(&c);
    }
    mu_buf_fini(&prompt);
    return r;
}

/* --- prompts --- */

int mu_cmd_session_prompt(struct mu_cli *cli)
{
    struct mu_client c;
    struct mu_reply reply;
    struct mu_buf prompt, body;
    char id[MU_LONG_ID];
    mu_buf_init(&prompt, MU_PROMPT_BUF);
    mu_buf_init(&body, 8 * MU_PROMPT_MAX);
    int r = mu_prompt_args(cli, 1, &prompt);
    struct mu_json_w w = mu_json_w(&body);
    mu_jw_obj(&w);
    mu_jw_kstr(&w, "prompt", mu_buf_bytes(&prompt));
    mu_jw_obj_end(&w);
    if (r == 0) {
        r = body.failed ? mu_client_no_memory() : mu_client_open(cli, &c);
    }
    if (r == 0) {
        r = mu_session_call(cli, &c, "POST", "/prompts", mu_buf_bytes(&body), id, &reply);
        if (r == 0 && c.json) {
            mu_client_print(&reply);
        } else if (r == 0) {
            yyjson_val *data = mu_json_get(reply.root, "data");
            printf("%.*s\n", MU_ARGS(mu_json_get_bytes(data, "promptId")));
        }
        mu_client_close(&c);
    }
    mu_buf_fini(&prompt);
    mu_buf_fini(&body);
    return r;
}
