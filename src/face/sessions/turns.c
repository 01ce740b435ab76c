/* The prompts of an interactive session (ours: the village has no routes for them). */
#include <errno.h>
#include <stdio.h>

#include "face/sessions/sessions_int.h"

static const char *word_of(int state)
{
    return state == MU_TURN_QUEUED      ? "queued"
           : state == MU_TURN_SENT      ? "sent"
           : state == MU_TURN_ACCEPTED  ? "running"
           : state == MU_TURN_DONE      ? "done"
           : state == MU_TURN_FAILED    ? "failed"
           : state == MU_TURN_CANCELLED ? "cancelled"
                                        : "queued";
}

static void poke(struct mu_call *c, const struct mu_id *session)
{
    if (mu_sess_face(c)->live) {
        mu_live_poke(mu_sess_face(c)->live, session);
    }
}

/* --- add --- */

struct adding {
    struct mu_call *c;
    struct mu_turn_add op;
};

static void added(struct mu_turn_add *op, int result)
{
    struct adding *x = op->ctx;
    struct mu_call *c = x->c;
    if (result == MU_E_LIMIT) {
        mu_call_retry(c, 429, "PROMPT_LIMIT_EXCEEDED", 5000, "Too many prompts wait already");
        return;
    }
    if (result < 0) {
        mu_sess_fail(c, result);
        return;
    }
    poke(c, &op->session);
    struct mu_json_w w = mu_call_data(c);
    mu_jw_obj(&w);
    mu_jw_kstr(&w, "promptId", mu_id_bytes(&op->id));
    mu_sess_prefixed(&w, "sessionId", "ses_", mu_id_bytes(&op->session));
    mu_jw_kcstr(&w, "state", "queued");
    mu_jw_ki64(&w, "position", op->pos);
    mu_jw_ki64(&w, "ahead", op->ahead);
    mu_jw_obj_end(&w);
    mu_call_data_send(c, 201, NULL, 0);
}

static void add(struct mu_call *c)
{
    const struct mu_principal *p = mu_call_principal(c);
    yyjson_val *b = mu_call_body(c);
    struct mu_id id;
    if (!mu_sess_id(c, &id)) {
        return;
    }
    struct adding *x = mu_call_new(c, sizeof *x);
    if (!x) {
        return;
    }
    x->c = c;
    x->op = (struct mu_turn_add){.unit = {.loop = mu_call_loop(c)},
                                 .admin = p->admin,
                                 .org_id = mu_str(p->org_id),
                                 .session = id,
                                 .prompt = mu_json_get_bytes(b, "prompt"),
                                 .options = MU_B("{}"),
                                 .user = mu_str(p->uid),
                                 .source = MU_SRC_API,
                                 .first = mu_json_get_bool(b, "first", false),
                                 .now_ms = mu_env_wall_ms(mu_sess_oz(c)->env),
                                 .done = added,
                                 .ctx = x};
    int r = mu_turn_add(mu_sess_oz(c)->sessions, &x->op);
    if (r < 0) {
        added(&x->op, r);
    }
}

/* --- list --- */

struct listing {
    struct mu_call *c;
    struct mu_turn_list op;
    struct mu_json_w w;
};

static int add_row(void *arg, const struct mu_turn_row *t)
{
    struct listing *l = arg;
    struct mu_json_w *w = &l->w;
    mu_jw_obj(w);
    mu_jw_kstr(w, "promptId", t->id);
    mu_jw_kcstr(w, "state", word_of(t->state));
    mu_jw_ki64(w, "position", t->pos);
    mu_jw_kstr(w, "prompt", t->prompt);
    mu_jw_kstr(w, "createdBy", t->user.ptr ? t->user : MU_B(""));
    mu_jw_ktime(w, "createdAt", t->created_ms);
    if (t->started_ms) {
        mu_jw_ktime(w, "startedAt", t->started_ms);
    }
    if (t->ended_ms) {
        mu_jw_ktime(w, "endedAt", t->ended_ms);
    }
    mu_jw_ki64(w, "attempt", t->tries);
    mu_jw_obj_end(w);
    return w->buf->failed;
}

static void listed(struct mu_turn_list *op, int result)
{
    struct listing *l = op->ctx;
    if (result < 0) {
        mu_sess_fail(l->c, result);
        return;
    }
    mu_jw_arr_end(&l->w);
    mu_jw_obj_end(&l->w);
    mu_call_data_send(l->c, 200, NULL, 0);
}

static void list(struct mu_call *c)
{
    const struct mu_principal *p = mu_call_principal(c);
    struct mu_id id;
    if (!mu_sess_id(c, &id)) {
        return;
    }
    struct listing *l = mu_call_new(c, sizeof *l);
    if (!l) {
        return;
    }
    l->c = c;
    l->w = mu_call_data(c);
    mu_jw_obj(&l->w);
    mu_jw_key(&l->w, "items");
    mu_jw_arr(&l->w);
    l->op = (struct mu_turn_list){.read = {.loop = mu_call_loop(c)},
                                  .admin = p->admin,
                                  .org_id = mu_str(p->org_id),
                                  .session = id,
                                  .from_pos = mu_sess_query_i64(c, "fromPosition", INT64_MIN),
                                  .each = add_row,
                                  .arg = l,
                                  .done = listed,
                                  .ctx = l};
    int r = mu_turn_list(mu_sess_oz(c)->sessions, &l->op);
    if (r < 0) {
        mu_sess_fail(c, r);
    }
}

/* --- change, withdraw --- */

struct changing {
    struct mu_call *c;
    struct mu_turn_edit op;
};

static void changed(struct mu_turn_edit *op, int result)
{
    struct changing *x = op->ctx;
    struct mu_call *c = x->c;
    if (result == MU_E_NOT_FOUND && !op->no_session) {
        mu_call_error(c, 404, "PROMPT_NOT_FOUND", NULL, "There is no such prompt");
        return;
    }
    if (result == MU_E_CONFLICT) {
        mu_call_error(c, 409, "INVALID_STATE", NULL, "The prompt does not wait any more");
        return;
    }
    if (result < 0) {
        mu_sess_fail(c, result);
        return;
    }
    struct mu_json_w w = mu_call_data(c);
    mu_jw_obj(&w);
    mu_jw_kstr(&w, "promptId", mu_id_bytes(&op->turn));
    mu_jw_kcstr(&w, "state", op->prompt.ptr ? "queued" : "cancelled");
    mu_jw_obj_end(&w);
    mu_call_data_send(c, 200, NULL, 0);
}

static void change(struct mu_call *c)
{
    const struct mu_principal *p = mu_call_principal(c);
    struct mu_id id, turn;
    if (!mu_sess_id(c, &id)) {
        return;
    }
    struct changing *x = mu_call_new(c, sizeof *x);
    if (!x) {
        return;
    }
    x->c = c;
    if (mu_id_parse(mu_call_param(c, "promptId"), NULL, &turn) < 0) {
        turn = mu_id_floor(0); /* of none: the session decides what is answered */
    }
    mu_bytes prompt = mu_json_get_bytes(mu_call_body(c), "prompt");
    x->op = (struct mu_turn_edit){.unit = {.loop = mu_call_loop(c)},
                                  .admin = p->admin,
                                  .org_id = mu_str(p->org_id),
                                  .session = id,
                                  .turn = turn,
                                  .prompt = prompt.len ? prompt : MU_B_NONE,
                                  .user = mu_str(p->uid),
                                  .now_ms = mu_env_wall_ms(mu_sess_oz(c)->env),
                                  .done = changed,
                                  .ctx = x};
    int r = mu_turn_edit(mu_sess_oz(c)->sessions, &x->op);
    if (r < 0) {
        changed(&x->op, r);
    }
}

/* --- routes --- */

#define PROMPT                                                                                     \
    {                                                                                              \
        .name = "prompt", .type = MU_S_STRING,                                                     \
        .flags = MU_S_REQUIRED | MU_S_NOT_BLANK | MU_S_NO_NUL, .min = 1,                           \
        .max = MU_SESS_TASK_CHARS, .doc = "What to do."                                            \
    }
static const struct mu_schema add_body[] = {
    PROMPT, {.name = "first", .type = MU_S_BOOL, .doc = "Before all that wait."}, {0}};
static const struct mu_schema change_body[] = {PROMPT, {0}};
static const struct mu_schema list_query[] = {{.name = "fromPosition",
                                               .type = MU_S_INT,
                                               .min = -INT64_C(9007199254740991),
                                               .max = INT64_C(9007199254740991),
                                               .doc = "The page of 200 begins there."},
                                              {0}};

const struct mu_route mu_sess_turn_routes[] = {
    {.method = MU_HTTP_POST,
     .path = "/api/v1/sessions/{sessionId}/prompts",
     .face = MU_FACE_SESSIONS,
     .auth = MU_AUTH_TENANT,
     .flags = MU_ROUTE_WRITES,
     .max_body = MU_SESS_BODY,
     .body = add_body,
     .handler = add,
     .id = "addPrompt",
     .summary = "Queue a prompt of an interactive session (ours).",
     .response = "PromptQueued",
     .success = "201",
     .errors = "SESSION_NOT_FOUND INVALID_STATE PROMPT_LIMIT_EXCEEDED"},
    {.method = MU_HTTP_GET,
     .path = "/api/v1/sessions/{sessionId}/prompts",
     .face = MU_FACE_SESSIONS,
     .auth = MU_AUTH_TENANT,
     .query = list_query,
     .handler = list,
     .id = "listPrompts",
     .summary = "Its prompts in their order (ours).",
     .response = "PromptList",
     .errors = "SESSION_NOT_FOUND"},
    {.method = MU_HTTP_PATCH,
     .path = "/api/v1/sessions/{sessionId}/prompts/{promptId}",
     .face = MU_FACE_SESSIONS,
     .auth = MU_AUTH_TENANT,
     .max_body = MU_SESS_BODY,
     .body = change_body,
     .handler = change,
     .id = "changePrompt",
     .summary = "Another text for a prompt that waits (ours).",
     .response = "PromptState",
     .errors = "SESSION_NOT_FOUND PROMPT_NOT_FOUND INVALID_STATE"},
    {.method = MU_HTTP_DELETE,
     .path = "/api/v1/sessions/{sessionId}/prompts/{promptId}",
     .face = MU_FACE_SESSIONS,
     .auth = MU_AUTH_TENANT,
     .handler = change,
     .id = "withdrawPrompt",
     .summary = "Withdraw a prompt that waits (ours).",
     .response = "PromptState",
     .errors = "SESSION_NOT_FOUND PROMPT_NOT_FOUND INVALID_STATE"},
    {.path = NULL}};
