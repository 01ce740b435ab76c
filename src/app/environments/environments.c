#include "app/environments/environments.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>

#include "proto/json.h"

enum { SCOPE_ENVIRONMENT = 2, PAGE_MAX = 200 };

static const struct mu_stmt q_insert = {
    "env_new", "tttttii",
    "INSERT INTO environments (id, org_id, name, image, spec, created_ms, updated_ms) VALUES ($1, "
    "$2, $3, $4, $5, $6, $7)",
    NULL};
static const struct mu_stmt q_one = {
    "env_get", "t",
    "SELECT id, org_id, name, image, spec, version, created_ms, updated_ms FROM environments WHERE "
    "id = $1 AND deleted_ms IS NULL",
    NULL};
/* Where a cursor stands: also that of a deleted one, never that of another tenant's. */
static const struct mu_stmt q_place = {
    "env_place", "tti",
    "SELECT updated_ms FROM environments WHERE id = $1 AND ($3 = 1 OR org_id = $2 OR org_id IS "
    "NULL)",
    NULL};
static const struct mu_stmt q_list = {
    "env_list", "titi",
    "SELECT id, org_id, name, image, spec, version, created_ms, updated_ms FROM environments WHERE "
    "(org_id = $1 OR org_id IS NULL) "
    "AND deleted_ms IS NULL AND (updated_ms, id) < ($2, $3) ORDER BY updated_ms DESC, id DESC "
    "LIMIT $4",
    NULL};
static const struct mu_stmt q_list_all = {
    "env_list_all", "iti",
    "SELECT id, org_id, name, image, spec, version, created_ms, updated_ms FROM environments WHERE "
    "deleted_ms IS NULL AND "
    "(updated_ms, id) < ($1, $2) ORDER BY updated_ms DESC, id DESC LIMIT $3",
    NULL};
static const struct mu_stmt q_replace = {
    "env_put", "tttti",
    "UPDATE environments SET name = $2, image = $3, spec = $4, version = version + 1, updated_ms = "
    "$5 WHERE id = $1 AND deleted_ms "
    "IS NULL",
    NULL};
static const struct mu_stmt q_delete = {
    "env_delete", "ti",
    "UPDATE environments SET deleted_ms = $2 WHERE id = $1 AND deleted_ms IS NULL", NULL};
static const struct mu_stmt q_secret = {
    "secret_new", "ttittt",
    "INSERT INTO secrets (id, org_id, scope, scope_id, name, readable, value, updated_ms) VALUES "
    "($1, $2, 2, $4, $5, 1, $6, $3)",
    NULL};
static const struct mu_stmt q_secrets = {
    "secrets_of", "t",
    "SELECT id, name, value FROM secrets WHERE scope = 2 AND scope_id = $1 ORDER BY name", NULL};
static const struct mu_stmt q_session_secrets = {
    "secrets_ses", "tt",
    "SELECT id, name, value FROM secrets WHERE org_id = $1 AND scope = 3 AND scope_id = $2 ORDER "
    "BY name",
    NULL};
static const struct mu_stmt q_secret_drop = {
    "secret_drop", "tt", "DELETE FROM secrets WHERE scope = 2 AND scope_id = $1 AND name = $2",
    NULL};
static const struct mu_stmt q_secrets_drop = {
    "secrets_drop", "t", "DELETE FROM secrets WHERE scope = 2 AND scope_id = $1", NULL};

struct mu_environments {
    struct mu_environments_opts opts;
};

int mu_environments_new(const struct mu_environments_opts *opts, struct mu_environments **ret)
{
    struct mu_environments *e = mu_calloc(1, sizeof *e);
    if (!e) {
        return -ENOMEM;
    }
    e->opts = *opts;
    *ret = e;
    return 0;
}

struct mu_environments *mu_environments_free(struct mu_environments *e)
{
    mu_free(e);
    return NULL;
}

/* --- writing --- */

int mu_environment_seal(struct mu_environments *e, struct mu_arena *a, mu_bytes clear,
                        struct mu_sealed_var *ret)
{
    struct mu_buf b;
    ret->id = mu_id_new(e->opts.env, NULL);
    mu_bytes aad = mu_arena_printf(a, "secrets|%s|value", ret->id.text);
    mu_buf_init(&b, 4 << 20);
    int r = aad.ptr ? mu_vault_seal(e->opts.vault, "env-vars", aad, clear, &b) : -ENOMEM;
    ret->value = r == 0 ? mu_arena_dup(a, mu_buf_bytes(&b)) : MU_B_NONE;
    mu_buf_fini(&b);
    return r == 0 && !ret->value.ptr ? -ENOMEM : r;
}

static int seal(struct mu_env_write *op)
{
    op->sealed = mu_arena_calloc(op->arena, (op->n_vars + 1) * sizeof *op->sealed);
    if (!op->sealed) {
        return -ENOMEM;
    }
    int r = 0;
    for (size_t i = 0; r == 0 && i < op->n_vars; i++) {
        if (op->vars[i].keep) {
            continue;
        }
        r = mu_environment_seal(op->envs, op->arena, op->vars[i].value, &op->sealed[i]);
    }
    return r;
}

static int insert_vars(struct mu_env_write *op, struct mu_tx *tx, mu_bytes org)
{
    mu_bytes id = mu_id_bytes(&op->id);
    int r = 0;
    for (size_t i = 0; r >= 0 && i < op->n_vars; i++) {
        if (op->vars[i].keep) {
            continue;
        }
        r = MU_TX_SEND(tx, &q_secret_drop, -1, MU_VT(id), MU_VT(op->vars[i].name));
        if (r >= 0) {
            r = MU_TX_SEND(tx, &q_secret, 1, MU_VT(mu_id_bytes(&op->sealed[i].id)), MU_VT(org),
                           MU_VI(op->now_ms), MU_VT(id), MU_VT(op->vars[i].name),
                           MU_VT(op->sealed[i].value));
        }
    }
    return r;
}

static int run_create(struct mu_env_write *op, struct mu_tx *tx)
{
    int r = mu_identity_store_org(tx, op->who, op->now_ms);
    mu_bytes org = op->global ? MU_B_NONE : mu_str(op->who->org_id);
    if (r >= 0) {
        r = MU_TX_SEND(tx, &q_insert, 1, MU_VT(mu_id_bytes(&op->id)), MU_VTOPT(org),
                       MU_VT(op->name), MU_VT(op->image), MU_VT(op->spec), MU_VI(op->now_ms),
                       MU_VI(op->now_ms));
    }
    op->created_ms = op->updated_ms = op->now_ms;
    op->is_global = op->global;
    return r < 0 ? r : insert_vars(op, tx, mu_str(op->who->org_id));
}

struct owner {
    struct mu_env_write *op;
    char org[MU_ORG_LEN + 1];
    bool global;
    bool seen[MU_ENV_VARS_MAX];
    char gone[MU_ENV_VARS_MAX][256];
    size_t n_gone;
    struct mu_tx *tx;
};

static int take_owner(void *arg, struct mu_row *row)
{
    struct owner *o = arg;
    o->global = mu_row_null(row, 1);
    snprintf(o->org, sizeof o->org, "%.*s", MU_ARGS(mu_row_bytes(row, 1)));
    o->op->created_ms = mu_row_i64(row, 6);
    return 0;
}

static int take_name(void *arg, struct mu_row *row)
{
    struct owner *o = arg;
    mu_bytes name = mu_row_bytes(row, 1);
    for (size_t i = 0; i < o->op->n_vars; i++) {
        if (mu_bytes_eq(o->op->vars[i].name, name)) {
            o->seen[i] = true;
            return 0;
        }
    }
    if (o->n_gone < MU_ENV_VARS_MAX && name.len < sizeof o->gone[0]) {
        snprintf(o->gone[o->n_gone++], sizeof o->gone[0], "%.*s", MU_ARGS(name));
    }
    return 0;
}

/* The environment must be the caller's (or the caller the administrator). */
static int find_owner(struct mu_env_write *op, struct mu_tx *tx, struct owner *o)
{
    int r = MU_TX_RUN(tx, &q_one, take_owner, o, MU_VT(mu_id_bytes(&op->id)));
    if (r <= 0) {
        return r < 0 ? r : MU_E_NOT_FOUND;
    }
    if (!op->who->admin && (o->global || strcmp(o->org, op->who->org_id) != 0)) {
        return MU_E_NOT_FOUND;
    }
    op->is_global = o->global;
    return 0;
}

static int run_replace(struct mu_env_write *op, struct mu_tx *tx)
{
    struct owner *o = mu_calloc(1, sizeof *o);
    if (!o) {
        return -ENOMEM;
    }
    o->op = op;
    mu_bytes id = mu_id_bytes(&op->id);
    int r = find_owner(op, tx, o);
    if (r == 0 && o->global && op->n_vars) {
        op->missing = MU_B_NONE;
        r = MU_E_CONFLICT; /* a global environment carries no variables */
    }
    if (r == 0) {
        r = MU_TX_RUN(tx, &q_secrets, take_name, o, MU_VT(id));
    }
    for (size_t i = 0; r >= 0 && i < op->n_vars; i++) {
        if (op->vars[i].keep && !o->seen[i]) {
            op->missing = op->vars[i].name;
            r = MU_E_INVALID;
        }
    }
    for (size_t i = 0; r >= 0 && i < o->n_gone; i++) {
        r = MU_TX_RUN(tx, &q_secret_drop, NULL, NULL, MU_VT(id), MU_VT(mu_str(o->gone[i])));
    }
    if (r >= 0) {
        r = insert_vars(op, tx, mu_str(o->global ? op->who->org_id : o->org));
    }
    if (r >= 0) {
        r = MU_TX_RUN(tx, &q_replace, NULL, NULL, MU_VT(id), MU_VT(op->name), MU_VT(op->image),
                      MU_VT(op->spec), MU_VI(op->now_ms));
        r = r == 0 ? MU_E_NOT_FOUND : r;
    }
    op->updated_ms = op->now_ms;
    mu_free(o);
    return r < 0 ? r : 0;
}

static int run_delete(struct mu_env_write *op, struct mu_tx *tx)
{
    struct owner *o = mu_calloc(1, sizeof *o);
    if (!o) {
        return -ENOMEM;
    }
    o->op = op;
    int r = find_owner(op, tx, o);
    mu_free(o);
    mu_bytes id = mu_id_bytes(&op->id);
    if (r == 0) {
        r = MU_TX_RUN(tx, &q_delete, NULL, NULL, MU_VT(id), MU_VI(op->now_ms));
    }
    if (r > 0) {
        r = MU_TX_SEND(tx, &q_secrets_drop, -1, MU_VT(id));
    }
    return r < 0 ? r : 0;
}

static int run_write(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_env_write *op = MU_CONTAINER(u, struct mu_env_write, unit);
    switch (op->what) {
    case MU_ENV_CREATE:
        return run_create(op, tx);
    case MU_ENV_REPLACE:
        return run_replace(op, tx);
    default:
        return run_delete(op, tx);
    }
}

static void write_done(struct mu_unit *u, int result)
{
    struct mu_env_write *op = MU_CONTAINER(u, struct mu_env_write, unit);
    if (result >= 0 && op->what == MU_ENV_CREATE) {
        mu_identity_org_stored(op->who);
    }
    op->done(op, result);
}

static int submit(struct mu_environments *e, struct mu_env_write *op)
{
    op->envs = e;
    op->now_ms = mu_env_wall_ms(e->opts.env);
    op->missing = MU_B_NONE;
    int r = op->n_vars > MU_ENV_VARS_MAX ? MU_E_TOO_LARGE : seal(op);
    if (r < 0) {
        return r;
    }
    op->unit.run = run_write;
    op->unit.done = write_done;
    op->unit.org_id = mu_str(op->who->org_id);
    return mu_writer_submit(e->opts.writer, &op->unit);
}

int mu_environment_create(struct mu_environments *e, struct mu_env_write *op)
{
    op->what = MU_ENV_CREATE;
    op->id = mu_id_new(e->opts.env, NULL);
    return submit(e, op);
}

int mu_environment_replace(struct mu_environments *e, struct mu_env_write *op)
{
    op->what = MU_ENV_REPLACE;
    return submit(e, op);
}

int mu_environment_delete(struct mu_environments *e, struct mu_env_write *op)
{
    op->what = MU_ENV_DELETE;
    op->n_vars = 0;
    return submit(e, op);
}

/* --- reading --- */

struct reading {
    struct mu_env_read *op;
    struct mu_db *db;
    struct mu_env_var *vars;
    size_t n_vars;
    bool open_values, foreign;
    char last[MU_ID_LEN + 1];
};

static int take_var(void *arg, struct mu_row *row)
{
    struct reading *rd = arg;
    if (rd->n_vars == MU_ENV_VARS_MAX) {
        return 0;
    }
    struct mu_arena *a = &rd->op->arena;
    struct mu_env_var *v = &rd->vars[rd->n_vars++];
    *v = (struct mu_env_var){.name = mu_arena_dup(a, mu_row_bytes(row, 1))};
    if (rd->open_values) {
        mu_bytes aad = mu_arena_printf(a, "secrets|%.*s|value", MU_ARGS(mu_row_bytes(row, 0)));
        struct mu_buf clear;
        mu_buf_init(&clear, 4 << 20);
        int r =
            mu_vault_open(rd->op->envs->opts.vault, "env-vars", aad, mu_row_bytes(row, 2), &clear);
        v->value = r == 0 ? mu_arena_dup(a, mu_buf_bytes(&clear)) : MU_B_NONE;
        mu_buf_wipe(&clear);
        if (r < 0 || !v->value.ptr) {
            return r < 0 ? r : -ENOMEM;
        }
    }
    return v->name.ptr ? 0 : -ENOMEM;
}

static int take_env(void *arg, struct mu_row *row)
{
    struct reading *rd = arg;
    struct mu_env_read *op = rd->op;
    if (op->list && op->count >= op->limit) {
        op->more = true;
        memcpy(op->next, rd->last, sizeof op->next);
        return 0;
    }
    struct mu_env_view v = {.id = mu_row_bytes(row, 0),
                            .org_id = mu_row_bytes(row, 1),
                            .name = mu_row_bytes(row, 2),
                            .image = mu_row_bytes(row, 3),
                            .spec = mu_row_bytes(row, 4),
                            .version = mu_row_i64(row, 5),
                            .created_ms = mu_row_i64(row, 6),
                            .updated_ms = mu_row_i64(row, 7)};
    bool own = v.org_id.ptr && mu_bytes_eq(v.org_id, op->org_id);
    if (!op->list && !op->admin && v.org_id.ptr && !own) {
        rd->foreign = true;
        return 0;
    }
    snprintf(rd->last, sizeof rd->last, "%.*s", MU_ARGS(v.id));
    op->count++;
    rd->n_vars = 0;
    rd->open_values = v.values_shown = own && !op->list;
    if (!rd->vars) {
        rd->vars = mu_arena_alloc(&op->arena, MU_ENV_VARS_MAX * sizeof *rd->vars);
    }
    int r =
        rd->vars ? MU_DB_RUN(rd->db, &q_secrets, take_var, rd, MU_VT(mu_str(rd->last))) : -ENOMEM;
    v.vars = rd->vars;
    v.n_vars = rd->n_vars;
    r = r < 0 ? r : op->each(op->arg, &v);
    if (r > 0) { /* full by its bytes: the next row only says that there is more */
        op->limit = op->count;
    }
    return r < 0 ? r : 0;
}

static int read_list(struct reading *rd)
{
    struct mu_env_read *op = rd->op;
    int64_t place = INT64_MAX;
    mu_bytes cursor = MU_B("~");
    if (op->cursor.text[0]) {
        cursor = mu_id_bytes(&op->cursor);
        place = mu_id_ms(&op->cursor); /* of one that is gone: where it began */
        int r = MU_DB_RUN(rd->db, &q_place, mu_row_take_i64, &place, MU_VT(cursor),
                          MU_VT(op->org_id), MU_VI(op->admin));
        if (r < 0) {
            return r;
        }
    }
    return op->admin ? MU_DB_RUN(rd->db, &q_list_all, take_env, rd, MU_VI(place), MU_VT(cursor),
                                 MU_VI(op->limit + 1))
                     : MU_DB_RUN(rd->db, &q_list, take_env, rd, MU_VT(op->org_id), MU_VI(place),
                                 MU_VT(cursor), MU_VI(op->limit + 1));
}

static int run_read(struct mu_read *read, struct mu_db *db)
{
    struct mu_env_read *op = MU_CONTAINER(read, struct mu_env_read, read);
    struct reading rd = {.op = op, .db = db};
    op->count = 0;
    op->more = false;
    mu_arena_init(&op->arena, 64 << 20);
    int r;
    if (op->list) {
        r = read_list(&rd);
    } else {
        r = MU_DB_RUN(db, &q_one, take_env, &rd, MU_VT(mu_id_bytes(&op->id)));
        r = r < 0 ? r : r == 0 || rd.foreign ? MU_E_NOT_FOUND : 0;
    }
    mu_arena_fini(&op->arena);
    return r < 0 ? r : 0;
}

static void read_done(struct mu_read *read, int result)
{
    struct mu_env_read *op = MU_CONTAINER(read, struct mu_env_read, read);
    op->done(op, result);
}

int mu_environment_read(struct mu_environments *e, struct mu_env_read *op)
{
    op->envs = e;
    op->limit = MU_MIN(op->limit, (unsigned)PAGE_MAX);
    op->read.run = run_read;
    op->read.done = read_done;
    return mu_readers_submit(e->opts.readers, &op->read);
}

/* --- of one session --- */

struct opening {
    struct mu_session_vars *op;
    struct mu_arena arena;
};

static int open_var(void *arg, struct mu_row *row)
{
    struct opening *o = arg;
    struct mu_buf clear;
    mu_bytes aad = mu_arena_printf(&o->arena, "secrets|%.*s|value", MU_ARGS(mu_row_bytes(row, 0)));
    mu_buf_init(&clear, 4 << 20);
    int r = aad.ptr ? mu_vault_open(o->op->envs->opts.vault, "env-vars", aad, mu_row_bytes(row, 2),
                                    &clear)
                    : -ENOMEM;
    if (r == 0) {
        r = o->op->each(o->op->arg, mu_row_bytes(row, 1), mu_buf_bytes(&clear));
    }
    mu_buf_wipe(&clear);
    return r;
}

static int run_session_vars(struct mu_read *read, struct mu_db *db)
{
    struct opening o = {.op = MU_CONTAINER(read, struct mu_session_vars, read)};
    mu_arena_init(&o.arena, 1 << 20);
    int r = MU_DB_RUN(db, &q_session_secrets, open_var, &o, MU_VT(o.op->org_id),
                      MU_VT(mu_id_bytes(&o.op->session)));
    mu_arena_fini(&o.arena);
    return MU_MIN(r, 0);
}

static void session_vars_done(struct mu_read *read, int result)
{
    struct mu_session_vars *op = MU_CONTAINER(read, struct mu_session_vars, read);
    op->done(op, result);
}

int mu_session_vars_read(struct mu_environments *e, struct mu_session_vars *op)
{
    op->envs = e;
    op->read.run = run_session_vars;
    op->read.done = session_vars_done;
    return mu_readers_submit(e->opts.readers, &op->read);
}

bool mu_image_allowed(const char *globs, mu_bytes image)
{
    if (!globs || !*globs) {
        return true;
    }
    char text[512], pattern[256];
    if (image.len >= sizeof text) {
        return false;
    }
    snprintf(text, sizeof text, "%.*s", MU_ARGS(image));
    mu_bytes rest = mu_str(globs);
    while (rest.ptr) {
        mu_bytes one = mu_bytes_trim(mu_bytes_split(&rest, ','));
        snprintf(pattern, sizeof pattern, "%.*s", MU_ARGS(one));
        if (one.len && one.len < sizeof pattern && fnmatch(pattern, text, 0) == 0) {
            return true;
        }
    }
    return false;
}

int mu_environment_snapshot(struct mu_buf *dst, const struct mu_env_view *v)
{
    struct mu_json_w w = mu_json_w(dst);
    mu_jw_obj(&w);
    mu_jw_kstr(&w, "environment_id", v->id);
    mu_jw_ki64(&w, "version", v->version);
    mu_jw_kstr(&w, "name", v->name);
    mu_jw_kstr(&w, "docker_image", v->image);
    mu_jw_kraw(&w, "spec", v->spec);
    mu_jw_key(&w, "env_var_names");
    mu_jw_arr(&w);
    for (size_t i = 0; i < v->n_vars; i++) {
        mu_jw_str(&w, v->vars[i].name);
    }
    mu_jw_arr_end(&w);
    mu_jw_obj_end(&w);
    return dst->failed;
}
