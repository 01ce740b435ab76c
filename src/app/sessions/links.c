#include "app/sessions/links.h"

#include <errno.h>
#include <stdio.h>

#include "app/sessions/live_int.h"
#include "base/encode.h"

#define PURPOSE "approval-link"

static const struct mu_stmt q_count = {
    "links_count", "t", "SELECT count(*) FROM approval_links WHERE gate_id = $1", NULL};
static const struct mu_stmt q_new = {
    "link_new", "ttttttiii",
    "INSERT INTO approval_links (id, session_id, gate_id, org_id, label, made_by, decisions, "
    "created_ms, expires_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    NULL};
static const struct mu_stmt q_get = {
    "link_get", "t",
    "SELECT id, session_id, gate_id, org_id, label, made_by, decisions, created_ms, expires_ms, "
    "used_ms FROM approval_links WHERE id = $1",
    NULL};
static const struct mu_stmt q_use = {
    "link_use", "tttii",
    "UPDATE approval_links SET used_ms = $4 WHERE id = $1 AND session_id = $2 AND gate_id = $3 AND "
    "used_ms IS NULL AND expires_ms > $4 AND (decisions = 3 OR decisions = $5)",
    NULL};

/* --- the signature --- */

/* The label is the only free text: it comes last, so no two rows sign the same bytes. */
static int tag_of(const struct mu_vault *v, const struct mu_link_row *l, char *dst)
{
    struct mu_digest tag;
    struct mu_buf text;
    mu_buf_init(&text, 4096);
    mu_buf_printf(&text, "%.*s|%.*s|%.*s|%.*s|%.*s|%d|%lld|%lld|", MU_ARGS(l->id),
                  MU_ARGS(l->session_id), MU_ARGS(l->gate_id), MU_ARGS(l->org_id),
                  MU_ARGS(l->made_by), l->decisions, (long long)l->created_ms,
                  (long long)l->expires_ms);
    mu_buf_add(&text, l->label);
    int r = text.failed ? text.failed : mu_vault_tag(v, PURPOSE, mu_buf_bytes(&text), &tag);
    mu_buf_fini(&text);
    if (r == 0) {
        mu_hex(tag.bytes, sizeof tag.bytes, dst);
    }
    return r;
}

int mu_link_parse(mu_bytes token, struct mu_id *ret_id, mu_bytes *ret_tag)
{
    mu_bytes prefix = MU_B(MU_LINK_PREFIX);
    mu_bytes rest = mu_bytes_from(token, prefix.len);
    if (token.len != MU_LINK_TOKEN_LEN || !mu_bytes_starts(token, prefix) ||
        rest.ptr[MU_ID_LEN] != '.' ||
        mu_id_parse(mu_bytes_head(rest, MU_ID_LEN), NULL, ret_id) < 0) {
        return MU_E_INVALID;
    }
    *ret_tag = mu_bytes_from(rest, MU_ID_LEN + 1);
    return 0;
}

/* --- making --- */

static int check_gate(struct mu_link_make *op, struct mu_tx *tx, const struct mu_clocks *l)
{
    struct mu_gate_found found;
    int64_t n = 0;
    int r = mu_gate_find(tx, mu_id_bytes(&op->session), mu_id_bytes(&op->gate), &found);
    if (r <= 0) {
        return r < 0 ? r : MU_E_NOT_FOUND;
    }
    bool over = found.expires_ms && found.expires_ms <= op->now_ms && !mu_clocks_stands(l);
    if (found.known.status != MU_GATE_PENDING || over) {
        return MU_E_EXISTS;
    }
    if (found.kind != MU_GATE_APPROVAL) {
        return MU_E_CONFLICT;
    }
    /* that of a paused session may be over by the clock: it is moved when the session goes on */
    if (found.expires_ms > op->now_ms) {
        op->expires_ms = MU_MIN(op->expires_ms, found.expires_ms);
    }
    r = MU_TX_RUN(tx, &q_count, mu_row_take_i64, &n, MU_VT(mu_id_bytes(&op->gate)));
    return r < 0 ? r : n >= MU_LINKS_EACH ? MU_E_LIMIT : 0;
}

static int run_make(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_link_make *op = MU_CONTAINER(u, struct mu_link_make, unit);
    struct mu_clocks l;
    int r = mu_clocks_of(tx, mu_id_bytes(&op->session), op->admin, op->org_id, &l);
    op->no_session = r == MU_E_NOT_FOUND;
    op->expires_ms = op->now_ms + op->life_ms;
    if (r >= 0) {
        r = check_gate(op, tx, &l);
    }
    if (r < 0) {
        return r;
    }
    const struct mu_link_row row = {.id = mu_id_bytes(&op->id),
                                    .session_id = mu_id_bytes(&op->session),
                                    .gate_id = mu_id_bytes(&op->gate),
                                    .org_id = mu_str(l.org),
                                    .label = op->label,
                                    .made_by = op->by,
                                    .decisions = op->decisions,
                                    .created_ms = op->now_ms,
                                    .expires_ms = op->expires_ms};
    memcpy(op->token, MU_LINK_PREFIX, 4);
    memcpy(op->token + 4, op->id.text, MU_ID_LEN);
    op->token[4 + MU_ID_LEN] = '.';
    r = tag_of(op->vault, &row, op->token + 4 + MU_ID_LEN + 1);
    return r < 0
               ? r
               : MU_TX_SEND(tx, &q_new, 1, MU_VT(row.id), MU_VT(row.session_id), MU_VT(row.gate_id),
                            MU_VT(row.org_id), MU_VT(row.label), MU_VT(row.made_by),
                            MU_VI(row.decisions), MU_VI(row.created_ms), MU_VI(row.expires_ms));
}

static void make_done(struct mu_unit *u, int result)
{
    struct mu_link_make *op = MU_CONTAINER(u, struct mu_link_make, unit);
    op->done(op, MU_MIN(result, 0));
}

int mu_link_make(struct mu_sessions *s, struct mu_link_make *op)
{
    if (op->label.len == 0 || op->label.len > MU_LINK_LABEL_MAX || op->by.len == 0 ||
        op->by.len > MU_ACTOR_LEN || op->decisions < MU_LINK_ALLOW ||
        op->decisions > (MU_LINK_ALLOW | MU_LINK_DENY) || op->life_ms < 1 ||
        op->life_ms > MU_LINK_LIFE_MS) {
        return MU_E_INVALID;
    }
    op->sessions = s;
    op->now_ms = mu_sessions_now(s);
    op->id = mu_id_random(s->opts.env);
    return mu_session_submit(s, &op->unit, &op->session, run_make, make_done);
}

/* --- looking --- */

struct looked {
    struct mu_link_look *op;
    struct mu_arena arena;
    struct mu_link_row row;
    mu_bytes tag;
    int result;
};

static int take_link(void *arg, struct mu_row *r)
{
    struct looked *k = arg;
    mu_bytes *const texts[] = {&k->row.id,     &k->row.session_id, &k->row.gate_id,
                               &k->row.org_id, &k->row.label,      &k->row.made_by};
    for (size_t i = 0; i < MU_ARRAY_LEN(texts); i++) {
        *texts[i] = mu_arena_dup(&k->arena, mu_row_bytes(r, (int)i));
        if (!texts[i]->ptr) {
            return -ENOMEM;
        }
    }
    k->row.decisions = (int)mu_row_i64(r, 6);
    k->row.created_ms = mu_row_i64(r, 7);
    k->row.expires_ms = mu_row_i64(r, 8);
    k->row.used_ms = mu_row_i64(r, 9);
    return 0;
}

static int take_gate(void *arg, const struct mu_gate_row *gate)
{
    struct looked *k = arg;
    return k->op->each(k->op->arg, &k->row, gate);
}

static int look(struct looked *k, struct mu_db *db, const struct mu_id *id)
{
    char tag[2 * MU_SHA256_LEN + 1];
    int r = MU_DB_RUN(db, &q_get, take_link, k, MU_VT(mu_id_bytes(id)));
    if (r <= 0) {
        return r < 0 ? r : MU_E_NOT_FOUND;
    }
    r = tag_of(k->op->vault, &k->row, tag);
    if (r < 0) {
        return r;
    }
    if (!mu_bytes_eq_secret(k->tag, mu_str(tag))) {
        return MU_E_NOT_FOUND;
    }
    r = mu_gate_by_id(db, k->row.session_id, k->row.gate_id, take_gate, k);
    return r < 0 ? r : r == 0 ? MU_E_NOT_FOUND : 0;
}

static int run_look(struct mu_read *read, struct mu_db *db)
{
    struct looked k = {.op = MU_CONTAINER(read, struct mu_link_look, read)};
    struct mu_id id;
    int r = mu_link_parse(k.op->token, &id, &k.tag);
    if (r < 0) {
        return MU_E_NOT_FOUND;
    }
    mu_arena_init(&k.arena, 64 << 10);
    r = look(&k, db, &id);
    mu_arena_fini(&k.arena);
    return r;
}

static void look_done(struct mu_read *read, int result)
{
    struct mu_link_look *op = MU_CONTAINER(read, struct mu_link_look, read);
    op->done(op, result);
}

int mu_link_look(struct mu_sessions *s, struct mu_link_look *op)
{
    op->sessions = s;
    op->read.run = run_look;
    op->read.done = look_done;
    return mu_readers_submit(s->opts.readers, &op->read);
}

/* --- using: part of the decision's unit --- */

int mu_link_use(struct mu_tx *tx, const struct mu_gate_resolve *op)
{
    int r = MU_TX_RUN(tx, &q_use, NULL, NULL, MU_VT(mu_id_bytes(&op->link)),
                      MU_VT(mu_id_bytes(&op->session)), MU_VT(mu_id_bytes(&op->gate)),
                      MU_VI(op->now_ms), MU_VI(op->allow ? MU_LINK_ALLOW : MU_LINK_DENY));
    return r < 0 ? r : r == 0 ? MU_E_STALE : 0;
}

const struct mu_planned mu_links_planned[] = {
    {&q_count, "approval_links_gate"},
    {&q_get, ""},
    {&q_use, ""},
    {NULL, NULL},
};
