/* The operations as C functions: each writes its JSON object and reads the data of the answer. */
#include <errno.h>

#include "lib/cp_int.h"

enum { ARGS_MAX = 2 << 20 };

struct args {
    struct mu_buf buf;
    struct mu_json_w w;
};

static void begin(struct args *a)
{
    mu_buf_init(&a->buf, ARGS_MAX);
    a->w = mu_json_w(&a->buf);
    mu_jw_obj(&a->w);
}

static void put(struct args *a, const char *key, mu_cp_str text)
{
    if (text.ptr) {
        mu_jw_kstr(&a->w, key, mu_cp_in(text));
    }
}

static void put_number(struct args *a, const char *key, int64_t n)
{
    if (n) {
        mu_jw_ki64(&a->w, key, n);
    }
}

/* JSON of the host: one value, else the whole would not be what it seems. */
static void put_json(struct args *a, const char *key, mu_cp_str json)
{
    static const struct mu_json_limits limits = {ARGS_MAX, 64};
    struct mu_arena arena;
    yyjson_val *v = NULL;
    if (!json.ptr) {
        return;
    }
    mu_arena_init(&arena, 64 << 20);
    int r = mu_json_read(&arena, mu_cp_in(json), &limits, &v, NULL);
    mu_arena_fini(&arena);
    if (r == 0) {
        mu_jw_kraw(&a->w, key, mu_bytes_trim(mu_cp_in(json)));
    } else {
        mu_jw_kcstr(&a->w, key, "no JSON"); /* refused by its type */
    }
}

static mu_cp_status run(mu_cp *cp, const mu_cp_caller *caller, const char *op, struct args *a,
                        mu_cp_result *result)
{
    mu_jw_obj_end(&a->w);
    if (a->buf.failed) {
        *result = (mu_cp_result){0};
        bool large = a->buf.failed == MU_E_TOO_LARGE;
        mu_lib_result_set(result, large ? MU_CP_PAYLOAD_TOO_LARGE : MU_CP_UNAVAILABLE,
                          large ? "The request is too large" : "Out of memory");
    } else if (mu_cp_call(cp, caller, op, mu_cp_out(mu_buf_bytes(&a->buf)), result) == MU_CP_OK &&
               mu_lib_result_type(result) < 0) {
        mu_lib_result_set(result, MU_CP_UNAVAILABLE, "Out of memory");
    }
    mu_buf_wipe(&a->buf);
    return result->status;
}

static void begin_session(struct args *a, mu_cp_str session_id)
{
    begin(a);
    put(a, "sessionId", session_id);
}

static mu_cp_status on_session(mu_cp *cp, const mu_cp_caller *caller, const char *op,
                               mu_cp_str session_id, mu_cp_result *result)
{
    struct args a;
    begin_session(&a, session_id);
    return run(cp, caller, op, &a, result);
}

/* The members of `options` that have a name of their own, then those of the object. */
static void put_options(struct args *a, const mu_cp_create *q)
{
    static const struct mu_json_limits limits = {ARGS_MAX, 64};
    struct mu_arena arena;
    yyjson_val *more = NULL, *key, *v;
    size_t i, n;
    mu_arena_init(&arena, 64 << 20);
    int r = q->options.ptr ? mu_json_read(&arena, mu_cp_in(q->options), &limits, &more, NULL) : 0;
    if (r < 0 || (more && !yyjson_is_obj(more))) {
        mu_jw_kcstr(&a->w, "options", "no JSON object"); /* refused by its type */
    } else {
        mu_jw_key(&a->w, "options");
        mu_jw_obj(&a->w);
        put(a, "mode", q->mode);
        put(a, "model", q->model);
        put(a, "runnerId", q->runner_id);
        put_number(a, "timeoutMinutes", q->timeout_minutes);
        yyjson_obj_foreach(more, i, n, key, v)
        {
            mu_lib_put_member(&a->w, key, v);
        }
        mu_jw_obj_end(&a->w);
    }
    mu_arena_fini(&arena);
}

mu_cp_status mu_cp_create_session(mu_cp *cp, const mu_cp_caller *caller, const mu_cp_create *q,
                                  mu_cp_result *result)
{
    struct args a;
    begin(&a);
    put(&a, "orgId", q->org_id.ptr ? q->org_id : mu_cp_text("me"));
    put(&a, "providerId", q->provider_id);
    mu_jw_key(&a.w, "repo");
    mu_jw_obj(&a.w);
    put(&a, "url", q->repo_url);
    put(&a, "branch", q->repo_branch);
    put(&a, "commit", q->repo_commit);
    put(&a, "tag", q->repo_tag);
    mu_jw_obj_end(&a.w);
    put(&a, "task", q->task);
    put_options(&a, q);
    put_json(&a, "metadata", q->metadata);
    put(&a, "idempotencyKey", q->idempotency_key);
    return run(cp, caller, "createSession", &a, result);
}

mu_cp_status mu_cp_get_session(mu_cp *cp, const mu_cp_caller *caller, mu_cp_str session_id,
                               mu_cp_result *result)
{
    return on_session(cp, caller, "getSession", session_id, result);
}

mu_cp_status mu_cp_list_sessions(mu_cp *cp, const mu_cp_caller *caller, const mu_cp_list *q,
                                 mu_cp_result *result)
{
    struct args a;
    begin(&a);
    if (q) {
        put(&a, "orgId", q->org_id);
        put(&a, "state", q->state);
        put(&a, "providerId", q->provider_id);
        put_number(&a, "page", q->page);
        put_number(&a, "pageSize", q->page_size);
        put(&a, "cursor", q->cursor);
    }
    return run(cp, caller, "listSessions", &a, result);
}

mu_cp_status mu_cp_stop_session(mu_cp *cp, const mu_cp_caller *caller, mu_cp_str session_id,
                                mu_cp_str reason, int graceful, mu_cp_result *result)
{
    struct args a;
    begin_session(&a, session_id);
    put(&a, "reason", reason);
    mu_jw_kbool(&a.w, "graceful", graceful != 0);
    return run(cp, caller, "stopSession", &a, result);
}

mu_cp_status mu_cp_pause_session(mu_cp *cp, const mu_cp_caller *caller, mu_cp_str session_id,
                                 mu_cp_result *result)
{
    return on_session(cp, caller, "pauseSession", session_id, result);
}

mu_cp_status mu_cp_resume_session(mu_cp *cp, const mu_cp_caller *caller, mu_cp_str session_id,
                                  mu_cp_result *result)
{
    return on_session(cp, caller, "resumeSession", session_id, result);
}

mu_cp_status mu_cp_end_session(mu_cp *cp, const mu_cp_caller *caller, mu_cp_str session_id,
                               mu_cp_result *result)
{
    return on_session(cp, caller, "endSession", session_id, result);
}

mu_cp_status mu_cp_send_input(mu_cp *cp, const mu_cp_caller *caller, mu_cp_str session_id,
                              unsigned terminal, mu_cp_str text, int line, mu_cp_result *result)
{
    struct args a;
    begin_session(&a, session_id);
    put(&a, "data", text);
    put(&a, "mode", mu_cp_text(line ? "line" : "raw"));
    put_number(&a, "terminal", terminal);
    return run(cp, caller, "sendInput", &a, result);
}

mu_cp_status mu_cp_resize_terminal(mu_cp *cp, const mu_cp_caller *caller, mu_cp_str session_id,
                                   unsigned terminal, int cols, int rows, mu_cp_result *result)
{
    struct args a;
    begin_session(&a, session_id);
    mu_jw_ki64(&a.w, "cols", cols);
    mu_jw_ki64(&a.w, "rows", rows);
    put_number(&a, "terminal", terminal);
    return run(cp, caller, "resizeTerminal", &a, result);
}

mu_cp_status mu_cp_add_prompt(mu_cp *cp, const mu_cp_caller *caller, mu_cp_str session_id,
                              mu_cp_str prompt, mu_cp_result *result)
{
    struct args a;
    begin_session(&a, session_id);
    put(&a, "prompt", prompt);
    return run(cp, caller, "addPrompt", &a, result);
}

mu_cp_status mu_cp_get_events(mu_cp *cp, const mu_cp_caller *caller, mu_cp_str session_id,
                              int64_t after_seq, int64_t limit, mu_cp_result *result)
{
    struct args a;
    begin_session(&a, session_id);
    put_number(&a, "afterSeq", after_seq);
    put_number(&a, "limit", limit);
    return run(cp, caller, "getSessionEvents", &a, result);
}

mu_cp_status mu_cp_request_approval(mu_cp *cp, const mu_cp_caller *caller, mu_cp_str session_id,
                                    const mu_cp_ask *q, mu_cp_result *result)
{
    struct args a;
    begin_session(&a, session_id);
    put(&a, "action", q->action);
    put(&a, "description", q->description);
    put(&a, "risk", q->risk);
    put_json(&a, "context", q->context);
    return run(cp, caller, "requestApproval", &a, result);
}

mu_cp_status mu_cp_resolve_approval(mu_cp *cp, const mu_cp_caller *caller, mu_cp_str session_id,
                                    mu_cp_str approval_id, int allow, mu_cp_str reason,
                                    int for_session, mu_cp_result *result)
{
    struct args a;
    begin_session(&a, session_id);
    put(&a, "approvalId", approval_id);
    put(&a, "decision", mu_cp_text(allow ? "allow" : "deny"));
    put(&a, "reason", reason);
    put(&a, "scope", mu_cp_text(for_session ? "session" : "once"));
    return run(cp, caller, "resolveApproval", &a, result);
}

mu_cp_status mu_cp_list_approvals(mu_cp *cp, const mu_cp_caller *caller, const mu_cp_list *q,
                                  mu_cp_result *result)
{
    static const mu_cp_list all;
    struct args a;
    q = q ? q : &all;
    begin(&a);
    put(&a, "sessionId", q->session_id);
    put(&a, "status", q->status);
    put_number(&a, "pageSize", q->page_size);
    put(&a, "cursor", q->cursor);
    if (!q->session_id.ptr) {
        put(&a, "orgId", q->org_id);
    }
    return run(cp, caller, q->session_id.ptr ? "listSessionApprovals" : "listApprovals", &a,
               result);
}
