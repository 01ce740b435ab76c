/* Issued API keys (ours): made, listed and revoked with the admin key. */
#include <errno.h>

#include "db/reader.h"
#include "face/api/api_int.h"
#include "face/api/meta.h"

enum { NAME_MAX_CHARS = 200, DAYS_MAX = 3650 };
static const int64_t day_ms = 86400000;

/* Their words, in the order of enum mu_role. */
static const char *const roles[] = {"", "viewer", "operator", "admin"};

static enum mu_role role_of(mu_bytes word)
{
    for (size_t i = 1; i < MU_ARRAY_LEN(roles); i++) {
        if (mu_bytes_is(word, roles[i])) {
            return (enum mu_role)i;
        }
    }
    return MU_ROLE_OPERATOR;
}

static void write_role(struct mu_json_w *w, enum mu_role role)
{
    bool known = role > 0 && (size_t)role < MU_ARRAY_LEN(roles);
    mu_jw_kcstr(w, "role", roles[known ? role : MU_ROLE_OPERATOR]);
}

static void write_id(struct mu_json_w *w, const struct mu_id *id)
{
    mu_jw_key(w, "id");
    mu_buf_printf(w->buf, "\"key_%s\"", id->text);
    w->comma = true;
}

/* --- create --- */

static void created(struct mu_key_op *op, int result)
{
    struct mu_call *c = op->ctx;
    if (result == MU_E_EXISTS) {
        mu_call_error(c, 409, "conflict", "name", "A key named %.*s exists already",
                      MU_ARGS(op->name));
        return;
    }
    if (result < 0) {
        mu_call_fail(c, result);
        return;
    }
    struct mu_json_w w = mu_json_w(mu_call_buf(c));
    mu_jw_obj(&w);
    write_id(&w, &op->id);
    mu_jw_kstr(&w, "name", op->name);
    mu_jw_kstr(&w, "tenant", op->tenant);
    write_role(&w, op->role);
    mu_jw_kcstr(&w, "key", op->token);
    mu_jw_ktime(&w, "created_at", op->now_ms);
    mu_jw_ktime_opt(&w, "expires_at", op->expires_ms);
    mu_jw_kstr(&w, "request_id", mu_call_request_id(c));
    mu_jw_obj_end(&w);
    explicit_bzero(op->token, sizeof op->token);
    mu_call_note(c, "key_id", mu_id_bytes(&op->id));
    mu_call_send(c, 200);
}

static struct mu_key_op *op_new(struct mu_call *c, void (*done)(struct mu_key_op *op, int result))
{
    struct mu_key_op *op = mu_call_new(c, sizeof *op);
    if (!op) {
        return NULL;
    }
    op->unit.loop = mu_call_loop(c);
    op->done = done;
    op->ctx = c;
    return op;
}

static void create_key(struct mu_call *c)
{
    const struct mu_meta *m = mu_call_meta(c);
    yyjson_val *body = mu_call_body(c);
    struct mu_key_op *op = op_new(c, created);
    if (!op) {
        return;
    }
    op->name = mu_bytes_trim(mu_json_get_bytes(body, "name"));
    op->tenant = mu_bytes_trim(mu_json_get_bytes(body, "tenant"));
    if (op->tenant.len == 0) {
        op->tenant = op->name;
    }
    op->role = role_of(mu_json_get_bytes(body, "role"));
    int64_t days = mu_json_get_i64(body, "expires_in_days", 0);
    op->expires_ms = days ? mu_env_wall_ms(m->env) + days * day_ms : 0;
    int r = mu_key_create(m->identity, op);
    if (r == MU_E_LIMIT) {
        mu_call_error(c, 409, "conflict", NULL, "There are too many live keys; revoke some");
    } else if (r < 0) {
        mu_call_fail(c, r);
    }
}

/* --- list --- */

struct listing {
    struct mu_read read;
    struct mu_call *call;
    struct mu_arena arena; /* its own: it is filled on a reader thread */
    struct mu_key *keys;
    size_t n;
};

static int list_run(struct mu_read *r, struct mu_db *db)
{
    struct listing *l = MU_CONTAINER(r, struct listing, read);
    return mu_key_list(db, &l->arena, &l->keys, &l->n);
}

static void write_key(struct mu_json_w *w, const struct mu_key *k)
{
    mu_jw_obj(w);
    write_id(w, &k->id);
    mu_jw_kstr(w, "name", k->name);
    mu_jw_kstr(w, "tenant", k->tenant);
    write_role(w, k->role);
    mu_jw_kstr(w, "prefix", k->prefix);
    mu_jw_ktime(w, "created_at", k->created_ms);
    mu_jw_ktime_opt(w, "expires_at", k->expires_ms);
    mu_jw_ktime_opt(w, "revoked_at", k->revoked_ms);
    mu_jw_ktime_opt(w, "last_used_at", k->last_used_ms);
    mu_jw_obj_end(w);
}

static void list_done(struct mu_read *r, int result)
{
    struct listing *l = MU_CONTAINER(r, struct listing, read);
    struct mu_arena arena = l->arena;
    struct mu_call *c = l->call;
    if (result < 0) {
        mu_call_fail(c, result);
    } else {
        struct mu_json_w w = mu_json_w(mu_call_buf(c));
        mu_jw_obj(&w);
        mu_jw_key(&w, "keys");
        mu_jw_arr(&w);
        for (size_t i = 0; i < l->n; i++) {
            write_key(&w, &l->keys[i]);
        }
        mu_jw_arr_end(&w);
        mu_call_send_object(c, &w);
    }
    mu_arena_fini(&arena);
}

static void list_keys(struct mu_call *c)
{
    struct listing *l = mu_call_new(c, sizeof *l);
    if (!l) {
        return;
    }
    mu_arena_init(&l->arena, 8 << 20);
    l->call = c;
    l->read.run = list_run;
    l->read.done = list_done;
    l->read.loop = mu_call_loop(c);
    int r = mu_readers_submit(mu_call_meta(c)->readers, &l->read);
    if (r < 0) {
        mu_call_fail(c, r);
    }
}

/* --- revoke --- */

static void revoked(struct mu_key_op *op, int result)
{
    struct mu_call *c = op->ctx;
    if (result < 0) {
        mu_call_fail(c, result);
        return;
    }
    mu_call_note(c, "key_id", mu_id_bytes(&op->id));
    mu_call_success(c);
}

static void revoke_key(struct mu_call *c)
{
    struct mu_id id;
    if (mu_id_parse(mu_call_param(c, "id"), "key_", &id) < 0) {
        mu_call_fail(c, MU_E_NOT_FOUND);
        return;
    }
    struct mu_key_op *op = op_new(c, revoked);
    if (!op) {
        return;
    }
    op->id = id;
    int r = mu_key_revoke(mu_call_meta(c)->identity, op);
    if (r < 0) {
        mu_call_fail(c, r);
    }
}

static const struct mu_schema create_body[] = {
    {.name = "name",
     .type = MU_S_STRING,
     .flags = MU_S_REQUIRED | MU_S_NOT_BLANK | MU_S_NO_NUL,
     .min = 1,
     .max = NAME_MAX_CHARS,
     .doc = "What the key is for; unique among the live keys."},
    {.name = "tenant",
     .type = MU_S_STRING,
     .flags = MU_S_NULLABLE | MU_S_NO_NUL,
     .max = NAME_MAX_CHARS,
     .doc = "Name of the organisation that the key acts for, made when it is new; default: the "
            "key's own name."},
    {.name = "role",
     .type = MU_S_STRING,
     .flags = MU_S_NULLABLE,
     .words = "viewer operator admin",
     .doc =
         "viewer only reads; operator (default) makes and steers; admin also has the org's workers "
         "and limits."},
    {.name = "expires_in_days",
     .type = MU_S_INT,
     .flags = MU_S_NULLABLE,
     .min = 1,
     .max = DAYS_MAX,
     .doc = "Default: the key does not expire."},
    {0},
};

const struct mu_route mu_key_routes[] = {
    {.method = MU_HTTP_POST,
     .path = "/api/v1/keys",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_ADMIN,
     .flags = MU_ROUTE_WRITES,
     .max_body = 65536,
     .body = create_body,
     .handler = create_key,
     .id = "createKey",
     .summary = "Makes an API key; its text is shown only in this answer.",
     .response = "KeyCreated",
     .errors = "409"},
    {.method = MU_HTTP_GET,
     .path = "/api/v1/keys",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_ADMIN,
     .handler = list_keys,
     .id = "listKeys",
     .summary = "All API keys, newest first.",
     .response = "KeyList"},
    {.method = MU_HTTP_DELETE,
     .path = "/api/v1/keys/{id}",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_ADMIN,
     .handler = revoke_key,
     .id = "revokeKey",
     .summary = "Revokes an API key at once.",
     .response = "Success"},
    {.path = NULL},
};
