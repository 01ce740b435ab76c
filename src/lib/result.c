/* Answers as the host sees them. */
#include <errno.h>

#include "base/clock.h"
#include "lib/cp_int.h"
#include "proto/json.h"

enum { ANSWER_MAX = 112 << 20, ARENA_MAX = 512 << 20, DEPTH = 80 };

struct own {
    struct mu_arena arena;
    yyjson_val *data;
};

static const struct {
    mu_cp_status status;
    const char *name;
} names[] = {
#define STATUS(n)                                                                                  \
    {                                                                                              \
        MU_CP_##n, #n                                                                              \
    }
    STATUS(OK),
    STATUS(VALIDATION_ERROR),
    STATUS(INVALID_PROVIDER),
    STATUS(SESSION_LIMIT_EXCEEDED),
    STATUS(SESSION_NOT_FOUND),
    STATUS(SESSION_ALREADY_STOPPED),
    STATUS(INVALID_STATE),
    STATUS(APPROVAL_NOT_FOUND),
    STATUS(APPROVAL_ALREADY_RESOLVED),
    STATUS(RUNNER_NOT_FOUND),
    STATUS(RUNNER_LIMIT_EXCEEDED),
    STATUS(RUNNER_HAS_ACTIVE_SESSIONS),
    STATUS(RUNNER_CONFLICT),
    STATUS(RUNNER_UNREACHABLE),
    STATUS(PROVIDER_AUTH_MISSING),
    STATUS(UNAUTHORIZED),
    STATUS(FORBIDDEN),
    STATUS(RATE_LIMITED),
    STATUS(IDEMPOTENCY_CONFLICT),
    STATUS(PAYLOAD_TOO_LARGE),
    STATUS(METHOD_NOT_ALLOWED),
    STATUS(NOT_FOUND),
    STATUS(INTERNAL_ERROR),
    STATUS(UNAVAILABLE),
    STATUS(SHUTTING_DOWN),
    STATUS(CONFLICT),
    STATUS(PENDING),
    STATUS(OTHER),
};

const char *mu_cp_status_name(mu_cp_status status)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(names); i++) {
        if (names[i].status == status) {
            return names[i].name;
        }
    }
    return "OTHER";
}

mu_cp_status mu_lib_status_of(mu_bytes code)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(names); i++) {
        if (mu_bytes_is(code, names[i].name)) {
            return names[i].status;
        }
    }
    return MU_CP_OTHER;
}

void mu_cp_result_free(mu_cp_result *result)
{
    if (result) {
        struct own *o = result->own;
        if (o) {
            mu_arena_fini(&o->arena);
            mu_free(o);
        }
        *result = (mu_cp_result){0};
    }
}

static struct own *own_of(mu_cp_result *result)
{
    struct own *o = result->own;
    if (!o) {
        o = mu_calloc(1, sizeof *o);
        if (o) {
            mu_arena_init(&o->arena, ARENA_MAX);
        }
        result->own = o;
    }
    return o;
}

static int keep(struct mu_arena *a, mu_bytes text, mu_cp_str *ret)
{
    mu_bytes copy = mu_arena_dup(a, text);
    *ret = mu_cp_out(copy);
    return copy.ptr ? 0 : -ENOMEM;
}

/* The text of a member; not there: nothing. */
static int keep_json(struct mu_arena *a, yyjson_val *v, mu_cp_str *ret)
{
    struct mu_buf b;
    if (!v) {
        return 0;
    }
    mu_buf_init(&b, ANSWER_MAX);
    mu_json_add(&b, v);
    int r = b.failed ? -ENOMEM : keep(a, mu_buf_bytes(&b), ret);
    mu_buf_fini(&b);
    return r;
}

int mu_lib_result_read(mu_cp_result *result, mu_bytes body)
{
    static const struct mu_json_limits limits = {ANSWER_MAX, DEPTH};
    struct own *o = own_of(result);
    yyjson_val *root = NULL;
    int r = o ? keep(&o->arena, body, &result->envelope) : -ENOMEM;
    if (r == 0) {
        r = mu_json_read(&o->arena, mu_cp_in(result->envelope), &limits, &root, NULL);
    }
    if (r < 0) {
        return r;
    }
    if (mu_json_get_bool(root, "success", false)) {
        o->data = mu_json_get(root, "data");
        result->status = MU_CP_OK;
        return keep_json(&o->arena, o->data, &result->data);
    }
    yyjson_val *error = mu_json_get(root, "error");
    result->code = mu_cp_out(mu_json_get_bytes(error, "code"));
    result->message = mu_cp_out(mu_json_get_bytes(error, "message"));
    result->status = mu_lib_status_of(mu_cp_in(result->code));
    return keep_json(&o->arena, mu_json_get(error, "details"), &result->details);
}

int mu_lib_result_bytes(mu_cp_result *result, mu_bytes body)
{
    struct own *o = own_of(result);
    result->status = MU_CP_OK;
    return o ? keep(&o->arena, body, &result->data) : -ENOMEM;
}

void mu_lib_result_set(mu_cp_result *result, mu_cp_status status, const char *message)
{
    static const char no_memory[] =
        "{\"success\":false,\"error\":{\"code\":\"UNAVAILABLE\",\"message\":\"Out of memory\"}}";
    struct mu_buf b;
    mu_cp_result_free(result);
    result->status = status;
    result->code = mu_cp_text(mu_cp_status_name(status));
    mu_buf_init(&b, 4096);
    struct mu_json_w w = mu_json_w(&b);
    mu_jw_obj(&w);
    mu_jw_kbool(&w, "success", false);
    mu_jw_key(&w, "error");
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "code", result->code.ptr);
    mu_jw_kcstr(&w, "message", message);
    mu_jw_obj_end(&w);
    mu_jw_obj_end(&w);
    struct own *o = b.failed ? NULL : own_of(result);
    if (!o || keep(&o->arena, mu_buf_bytes(&b), &result->envelope) < 0 ||
        keep(&o->arena, mu_str(message), &result->message) < 0) {
        result->status = MU_CP_UNAVAILABLE;
        result->code = mu_cp_text("UNAVAILABLE");
        result->message = mu_cp_text("Out of memory");
        result->envelope = mu_cp_text(no_memory);
    }
    mu_buf_fini(&b);
}

/* --- typed --- */

static mu_cp_str text_of(yyjson_val *obj, const char *key)
{
    return mu_cp_out(mu_json_get_bytes(obj, key));
}

static int read_approval(struct own *o, yyjson_val *v, mu_cp_approval *a)
{
    *a = (mu_cp_approval){.approval_id = text_of(v, "approvalId"),
                          .session_id = text_of(v, "sessionId"),
                          .org_id = text_of(v, "orgId"),
                          .action = text_of(v, "action"),
                          .description = text_of(v, "description"),
                          .risk = text_of(v, "risk"),
                          .status = text_of(v, "status"),
                          .decision = text_of(v, "decision"),
                          .scope = text_of(v, "scope"),
                          .reason = text_of(v, "reason"),
                          .resolved_by = text_of(v, "resolvedBy"),
                          .requested_at = text_of(v, "requestedAt"),
                          .expires_at = text_of(v, "expiresAt"),
                          .resolved_at = text_of(v, "resolvedAt")};
    return keep_json(&o->arena, mu_json_get(v, "context"), &a->context);
}

static int read_approvals(struct own *o, yyjson_val *list, const mu_cp_approval **ret,
                          size_t *ret_n)
{
    size_t i, n, all = yyjson_arr_size(list);
    yyjson_val *v;
    mu_cp_approval *a = mu_arena_calloc(&o->arena, (all + 1) * sizeof *a);
    int r = a ? 0 : -ENOMEM;
    yyjson_arr_foreach(list, i, n, v)
    {
        r = r < 0 ? r : read_approval(o, v, &a[i]);
    }
    *ret = a;
    *ret_n = all;
    return r;
}

static int read_session(struct own *o, yyjson_val *v, mu_cp_session *s)
{
    yyjson_val *usage = mu_json_get(v, "usage"), *code = mu_json_get(v, "exitCode");
    *s = (mu_cp_session){.session_id = text_of(v, "sessionId"),
                         .org_id = text_of(v, "orgId"),
                         .state = text_of(v, "state"),
                         .provider_id = text_of(v, "providerId"),
                         .repo_url = text_of(v, "repoUrl"),
                         .task_summary = text_of(v, "taskSummary"),
                         .mode = text_of(v, "mode"),
                         .started_at = text_of(v, "startedAt"),
                         .run_started_at = text_of(v, "runStartedAt"),
                         .completed_at = text_of(v, "completedAt"),
                         .deadline_at = text_of(v, "deadlineAt"),
                         .runner_id = text_of(v, "runnerId"),
                         .runner_name = text_of(v, "runnerName"),
                         .queue_reason = text_of(v, "queueReason"),
                         .end_reason = text_of(v, "endReason"),
                         .error_message = text_of(v, "errorMessage"),
                         .created_by = text_of(v, "createdBy"),
                         .duration_seconds = mu_json_get_i64(v, "durationSeconds", 0),
                         .last_event_seq = mu_json_get_i64(v, "lastEventSeq", 0),
                         .attempt = mu_json_get_i64(v, "attempt", 0),
                         .has_exit_code = yyjson_is_int(code),
                         .exit_code = mu_json_get_i64(v, "exitCode", 0),
                         .tokens_in = mu_json_get_i64(usage, "tokensIn", 0),
                         .tokens_out = mu_json_get_i64(usage, "tokensOut", 0),
                         .api_calls = mu_json_get_i64(usage, "apiCalls", 0),
                         .compute_seconds = mu_json_get_i64(usage, "computeSeconds", 0)};
    yyjson_val *pending = mu_json_get(v, "pendingApprovals");
    return pending ? read_approvals(o, pending, &s->pending_approvals, &s->n_pending_approvals) : 0;
}

static int read_sessions(struct own *o, yyjson_val *list, mu_cp_result *result)
{
    size_t i, n, all = yyjson_is_arr(list) ? yyjson_arr_size(list) : 1;
    yyjson_val *v;
    mu_cp_session *s = mu_arena_calloc(&o->arena, (all + 1) * sizeof *s);
    int r = s ? 0 : -ENOMEM;
    if (r == 0 && !yyjson_is_arr(list)) {
        r = read_session(o, list, s);
    }
    yyjson_arr_foreach(list, i, n, v)
    {
        r = r < 0 ? r : read_session(o, v, &s[i]);
    }
    result->sessions = s;
    result->n_sessions = all;
    return r;
}

static int read_events(struct own *o, yyjson_val *list, mu_cp_result *result)
{
    size_t i, n, all = yyjson_arr_size(list);
    yyjson_val *v;
    mu_cp_event *e = mu_arena_calloc(&o->arena, (all + 1) * sizeof *e);
    int r = e ? 0 : -ENOMEM;
    yyjson_arr_foreach(list, i, n, v)
    {
        if (r == 0) {
            yyjson_val *actor = mu_json_get(v, "actor");
            e[i] = (mu_cp_event){.seq = mu_json_get_i64(v, "seq", 0),
                                 .type = text_of(v, "type"),
                                 .actor_type = text_of(actor, "type"),
                                 .actor_id = text_of(actor, "id")};
            (void)!mu_time_parse(mu_json_get_bytes(v, "timestamp"), &e[i].timestamp_ms);
            r = keep_json(&o->arena, mu_json_get(v, "data"), &e[i].data);
        }
    }
    result->events = e;
    result->n_events = all;
    return r;
}

int mu_lib_result_type(mu_cp_result *result)
{
    struct own *o = result->own;
    yyjson_val *d = o ? o->data : NULL, *items = mu_json_get(d, "items");
    yyjson_val *events = mu_json_get(d, "events"), *first = yyjson_arr_get_first(items);
    if (result->status != MU_CP_OK || !d) {
        return 0;
    }
    result->total = mu_json_get_i64(d, "total", 0);
    result->has_more = mu_json_get_bool(d, "hasMore", false);
    result->next_cursor = text_of(d, "nextCursor");
    result->next_seq = mu_json_get_i64(d, "nextSeq", 0);
    result->first_seq = mu_json_get_i64(d, "firstSeq", 0);
    result->last_seq = mu_json_get_i64(d, "lastSeq", 0);
    if (events) {
        return read_events(o, events, result);
    }
    if (items) {
        return mu_json_get(first, "approvalId")
                   ? read_approvals(o, items, &result->approvals, &result->n_approvals)
               : first ? read_sessions(o, items, result)
                       : 0;
    }
    if (mu_json_get(d, "approvalId")) {
        mu_cp_approval *a = mu_arena_calloc(&o->arena, sizeof *a);
        result->approvals = a;
        result->n_approvals = a != NULL;
        return a ? read_approval(o, d, a) : -ENOMEM;
    }
    return mu_json_get(d, "state") && mu_json_get(d, "orgId") ? read_sessions(o, d, result) : 0;
}
