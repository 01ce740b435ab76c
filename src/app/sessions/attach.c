/* Files that an attempt leaves. */
#include <errno.h>

#include "app/sessions/attempts.h"
#include "app/sessions/sessions_int.h"

enum { KIND_RESULT = 2 };

static const struct mu_stmt q_holds = {
    "attach_holds", "ti",
    "SELECT org_id FROM sessions WHERE id = $1 AND epoch = $2 AND ended_ms IS NULL", NULL};
static const struct mu_stmt q_kept = {
    "attach_kept", "t", "SELECT id, kind, name, bytes FROM files WHERE session_id = $1", NULL};
static const struct mu_stmt q_drop = {"attach_drop", "t", "DELETE FROM files WHERE id = $1", NULL};
static const struct mu_stmt q_add = {
    "attach_add", "tttittiti",
    "INSERT INTO files (id, org_id, session_id, kind, name, media_type, bytes, sha256, created_ms) "
    "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    NULL};

static int take_org(void *arg, struct mu_row *row)
{
    struct mu_session_attach *op = arg;
    mu_bytes org = mu_row_bytes(row, 0);
    if (org.len > MU_ORG_LEN) {
        return MU_E_CORRUPT;
    }
    memcpy(op->org_id, org.ptr, org.len);
    op->org_id[org.len] = 0;
    return 0;
}

static int take_kept(void *arg, struct mu_row *row)
{
    struct mu_session_attach *op = arg;
    bool same = mu_bytes_eq(mu_row_bytes(row, 2), op->name);
    if (mu_row_i64(row, 1) != KIND_RESULT) {
        op->taken |= same; /* an input image has this name */
    } else if (same) {
        return mu_id_parse(mu_row_bytes(row, 0), NULL, &op->replaced);
    } else {
        op->n_others++;
        op->other_bytes += mu_row_i64(row, 3);
    }
    return 0;
}

static int run_attach(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_session_attach *op = MU_CONTAINER(u, struct mu_session_attach, unit);
    mu_bytes id = mu_id_bytes(&op->session);
    op->org_id[0] = op->replaced.text[0] = 0;
    op->n_others = op->other_bytes = 0;
    op->taken = false;
    int r = MU_TX_RUN(tx, &q_holds, take_org, op, MU_VT(id), MU_VI(op->epoch));
    if (r == 0) {
        return MU_E_STALE;
    }
    r = r < 0 ? r : MU_TX_RUN(tx, &q_kept, take_kept, op, MU_VT(id));
    if (r < 0) {
        return r;
    }
    if (op->taken) {
        return MU_E_EXISTS;
    }
    if (op->n_others >= MU_RUN_FILES || op->other_bytes + op->bytes > MU_RUN_FILE_BYTES) {
        return MU_E_LIMIT;
    }
    if (op->replaced.text[0]) {
        r = MU_TX_SEND(tx, &q_drop, 1, MU_VT(mu_id_bytes(&op->replaced)));
    }
    return r < 0
               ? r
               : MU_TX_SEND(tx, &q_add, 1, MU_VT(mu_id_bytes(&op->file)), MU_VT(mu_str(op->org_id)),
                            MU_VT(id), MU_VI(KIND_RESULT), MU_VT(op->name), MU_VT(op->media_type),
                            MU_VI(op->bytes), MU_VT(mu_str(op->sha256.text)), MU_VI(op->now_ms));
}

static void attach_done(struct mu_unit *u, int result)
{
    struct mu_session_attach *op = MU_CONTAINER(u, struct mu_session_attach, unit);
    op->done(op, result);
}

int mu_session_attach(struct mu_sessions *s, struct mu_session_attach *op)
{
    op->now_ms = mu_env_wall_ms(s->opts.env);
    op->unit.run = run_attach;
    op->unit.done = attach_done;
    return mu_writer_submit(s->opts.writer, &op->unit);
}
