/* Enrolment tokens as their makers see them: listed and revoked. */
#include <errno.h>
#include <stdio.h>

#include "app/identity/identity_int.h"

static const struct mu_stmt list_all = {
    "enrolments_list", "tii",
    "SELECT id, name, org_id, prefix, created_ms, expires_ms, revoked_ms, last_used_ms, uses_left "
    "FROM credentials WHERE kind = 3 AND (CAST($1 AS text) = '*' OR org_id = $1) AND ($2 = 1 OR "
    "(revoked_ms IS NULL AND uses_left > 0 AND (expires_ms IS NULL OR expires_ms > $3))) ORDER BY "
    "created_ms DESC, id DESC LIMIT 1000",
    NULL};
static const struct mu_stmt revoke_one = {
    "enrolment_revoke", "tti",
    "UPDATE credentials SET revoked_ms = coalesce(revoked_ms, $3) WHERE id = $1 AND kind = 3 AND "
    "(CAST($2 AS text) = '*' OR org_id = $2)",
    NULL};

struct listing {
    struct mu_arena *arena;
    struct mu_enrolment *rows;
    size_t n;
};

static int list_row(void *arg, struct mu_row *row)
{
    struct listing *l = arg;
    struct mu_enrolment *e = &l->rows[l->n++];
    snprintf(e->id.text, sizeof e->id.text, "%.*s", MU_ARGS(mu_row_bytes(row, 0)));
    e->name = mu_arena_dup(l->arena, mu_row_bytes(row, 1));
    e->org_id = mu_arena_dup(l->arena, mu_row_bytes(row, 2));
    e->prefix = mu_arena_dup(l->arena, mu_row_bytes(row, 3));
    e->created_ms = mu_row_i64(row, 4);
    e->expires_ms = mu_row_i64(row, 5);
    e->revoked_ms = mu_row_i64(row, 6);
    e->last_used_ms = mu_row_i64(row, 7);
    e->uses_left = mu_row_i64(row, 8);
    return e->name.ptr && e->org_id.ptr && e->prefix.ptr ? 0 : -ENOMEM;
}

int mu_enrolment_list(struct mu_db *db, struct mu_arena *arena, mu_bytes org_id, bool over,
                      int64_t now_ms, struct mu_enrolment **ret, size_t *ret_n)
{
    struct listing l = {.arena = arena};
    l.rows = mu_arena_calloc(arena, MU_ENROLMENTS_SHOWN * sizeof *l.rows);
    if (!l.rows) {
        return -ENOMEM;
    }
    int r = MU_DB_RUN(db, &list_all, list_row, &l, MU_VT(org_id), MU_VI(over), MU_VI(now_ms));
    if (r < 0) {
        return r;
    }
    *ret = l.rows;
    *ret_n = l.n;
    return 0;
}

static int revoke_run(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_enrolment_revoke *op = MU_CONTAINER(u, struct mu_enrolment_revoke, unit);
    int r = MU_TX_RUN(tx, &revoke_one, NULL, NULL, MU_VT(mu_id_bytes(&op->id)), MU_VT(op->org_id),
                      MU_VI(op->now_ms));
    return r == 0 ? MU_E_NOT_FOUND : MU_MIN(r, 0);
}

static void revoke_done(struct mu_unit *u, int result)
{
    struct mu_enrolment_revoke *op = MU_CONTAINER(u, struct mu_enrolment_revoke, unit);
    if (result >= 0) { /* one whose use is under way is refused by its own commit */
        mu_identity_enrolment_used(op->identity, &op->id);
    }
    op->done(op, MU_MIN(result, 0));
}

int mu_enrolment_revoke(struct mu_identity *id, struct mu_enrolment_revoke *op)
{
    op->identity = id;
    op->now_ms = mu_env_wall_ms(id->env);
    op->unit.run = revoke_run;
    op->unit.done = revoke_done;
    return mu_writer_submit(id->writer, &op->unit);
}
