/* Checkpoints as they are read: chains, parts, lists. */
#include <errno.h>

#include "app/sessions/checkpoints_int.h"

static const struct mu_stmt q_chain = {
    "ckpt_chain", "tt",
    "SELECT c.id, c.base_id, c.epoch, c.number FROM checkpoints t JOIN checkpoints c ON "
    "c.session_id = t.session_id AND c.root_id = t.root_id AND c.seq <= t.seq WHERE t.id = $2 AND "
    "t.session_id = $1 ORDER BY c.seq DESC",
    NULL};
static const struct mu_stmt q_names = {
    "ckpt_names", "tii",
    "SELECT name FROM checkpoint_parts WHERE session_id = $1 AND epoch = $2 AND number = $3 AND "
    "dead = 0 ORDER BY name",
    NULL};
static const struct mu_stmt q_restore = {
    "ckpt_restore", "ti",
    "SELECT restore_id FROM sessions WHERE id = $1 AND epoch = $2 AND ended_ms IS NULL AND "
    "restore_id IS NOT NULL",
    NULL};
#define ROWS(ref)                                                                                  \
    "SELECT c.id, c.turn_id, c.conversation, " ref ", c.seq, c.number, b.number, c.epoch, "        \
    "c.bytes, c.created_ms FROM checkpoints c LEFT JOIN checkpoints b ON b.id = c.base_id WHERE "
static const struct mu_stmt q_one = {"ckpt_one", "t", ROWS("c.ref") "c.id = $1", NULL};
static const struct mu_stmt q_page = {
    "ckpt_page", "tii", ROWS("''") "c.session_id = $1 AND c.seq < $2 ORDER BY c.seq DESC LIMIT $3",
    NULL};
static const struct mu_stmt q_object = {
    "ckpt_object", "tiit",
    "SELECT object_id FROM checkpoint_parts WHERE session_id = $1 AND epoch = $2 AND number "
    "= $3 AND name = $4 AND dead = 0",
    NULL};
static const struct mu_stmt q_org = {"ckpt_org", "t", "SELECT org_id FROM sessions WHERE id = $1",
                                     NULL};

/* --- chains --- */

static int take_link(void *arg, struct mu_row *row)
{
    struct mu_chain *c = arg;
    mu_bytes base = mu_row_bytes(row, 1);
    if (!c->want.text[0] || !mu_bytes_is(mu_row_bytes(row, 0), c->want.text)) {
        return 0; /* behind its first, or beside it */
    }
    if (c->n == MU_CHECKPOINT_CHAIN) {
        return MU_E_CORRUPT;
    }
    c->links[c->n++] = (struct mu_chain_link){c->want, mu_row_i64(row, 2), mu_row_i64(row, 3)};
    c->want.text[0] = 0;
    return base.ptr ? mu_id_parse(base, NULL, &c->want) : 0;
}

int mu_chain_read(struct mu_db *db, mu_bytes session, mu_bytes checkpoint, struct mu_chain *ret)
{
    ret->n = 0;
    int r = mu_id_parse(checkpoint, NULL, &ret->want);
    if (r < 0) {
        return MU_E_NOT_FOUND;
    }
    r = MU_DB_RUN(db, &q_chain, take_link, ret, MU_VT(session), MU_VT(checkpoint));
    return r < 0 ? r : ret->n == 0 ? MU_E_NOT_FOUND : ret->want.text[0] ? MU_E_CORRUPT : 0;
}

static int add_name(void *arg, struct mu_row *row)
{
    struct mu_json_w *w = arg;
    mu_jw_str(w, mu_row_bytes(row, 0));
    return w->buf->failed;
}

int mu_chain_names(struct mu_db *db, mu_bytes session, const struct mu_chain *chain,
                   struct mu_buf *dst)
{
    struct mu_json_w w = mu_json_w(dst);
    mu_jw_arr(&w);
    int r = 0;
    for (size_t i = chain->n; r >= 0 && i > 0; i--) {
        const struct mu_chain_link *l = &chain->links[i - 1];
        r = MU_DB_RUN(db, &q_names, add_name, &w, MU_VT(session), MU_VI(l->epoch),
                      MU_VI(l->number));
    }
    mu_jw_arr_end(&w);
    return r < 0 ? r : dst->failed;
}

/* What the attempt is to begin with. */
static int read_restore(struct mu_db *db, mu_bytes session, int64_t epoch, struct mu_chain *ret)
{
    struct mu_id id;
    int r = MU_DB_RUN(db, &q_restore, mu_row_take_id, &id, MU_VT(session), MU_VI(epoch));
    return r < 0 ? r : r == 0 ? MU_E_NOT_FOUND : mu_chain_read(db, session, mu_id_bytes(&id), ret);
}

struct giving {
    mu_checkpoint_fn each;
    void *arg;
};

static int give(void *arg, struct mu_row *row)
{
    const struct giving *g = arg;
    const struct mu_checkpoint_row c = {.id = mu_row_bytes(row, 0),
                                        .turn_id = mu_row_bytes(row, 1),
                                        .conversation = mu_row_bytes(row, 2),
                                        .manifest = mu_row_bytes(row, 3),
                                        .seq = mu_row_i64(row, 4),
                                        .number = mu_row_i64(row, 5),
                                        .prev = mu_row_i64(row, 6),
                                        .epoch = mu_row_i64(row, 7),
                                        .bytes = mu_row_i64(row, 8),
                                        .created_ms = mu_row_i64(row, 9)};
    return g->each(g->arg, &c);
}

static int run_chain(struct mu_read *read, struct mu_db *db)
{
    struct mu_checkpoint_chain *op = MU_CONTAINER(read, struct mu_checkpoint_chain, read);
    struct mu_chain chain;
    struct giving g = {op->each, op->arg};
    int r = read_restore(db, mu_id_bytes(&op->session), op->epoch, &chain);
    for (size_t i = chain.n; r >= 0 && i > 0; i--) {
        r = MU_DB_RUN(db, &q_one, give, &g, MU_VT(mu_id_bytes(&chain.links[i - 1].id)));
    }
    return MU_MIN(r, 0);
}

static void chain_done(struct mu_read *read, int result)
{
    struct mu_checkpoint_chain *op = MU_CONTAINER(read, struct mu_checkpoint_chain, read);
    op->done(op, result);
}

int mu_checkpoint_chain(struct mu_sessions *s, struct mu_checkpoint_chain *op)
{
    op->read.run = run_chain;
    op->read.done = chain_done;
    return mu_readers_submit(s->opts.readers, &op->read);
}

/* --- one part --- */

static int run_find(struct mu_read *read, struct mu_db *db)
{
    struct mu_checkpoint_find *op = MU_CONTAINER(read, struct mu_checkpoint_find, read);
    mu_bytes id = mu_id_bytes(&op->session);
    struct mu_chain chain;
    int64_t epoch, number;
    if (!mu_checkpoint_name(op->name, &epoch, &number)) {
        return MU_E_NOT_FOUND;
    }
    int r = read_restore(db, id, op->epoch, &chain);
    if (r < 0) {
        return r;
    }
    for (size_t i = 0; i < chain.n; i++) {
        const struct mu_chain_link *l = &chain.links[i];
        if (l->number == number) {
            r = MU_DB_RUN(db, &q_object, mu_row_take_id, &op->object, MU_VT(id), MU_VI(l->epoch),
                          MU_VI(l->number), MU_VT(op->name));
            return r < 0 ? r : r == 0 ? MU_E_NOT_FOUND : 0;
        }
    }
    return MU_E_NOT_FOUND;
}

static void find_done(struct mu_read *read, int result)
{
    struct mu_checkpoint_find *op = MU_CONTAINER(read, struct mu_checkpoint_find, read);
    op->done(op, result);
}

int mu_checkpoint_find(struct mu_sessions *s, struct mu_checkpoint_find *op)
{
    op->read.run = run_find;
    op->read.done = find_done;
    return mu_readers_submit(s->opts.readers, &op->read);
}

/* --- lists --- */

static int take_org(void *arg, struct mu_row *row)
{
    const struct mu_checkpoint_list *op = arg;
    return op->admin || mu_bytes_eq(mu_row_bytes(row, 0), op->org_id) ? 0 : MU_E_NOT_FOUND;
}

static int run_list(struct mu_read *read, struct mu_db *db)
{
    struct mu_checkpoint_list *op = MU_CONTAINER(read, struct mu_checkpoint_list, read);
    mu_bytes id = mu_id_bytes(&op->session);
    struct giving g = {op->each, op->arg};
    int r = MU_DB_RUN(db, &q_org, take_org, op, MU_VT(id));
    if (r <= 0) {
        return r < 0 ? r : MU_E_NOT_FOUND;
    }
    r = MU_DB_RUN(db, &q_page, give, &g, MU_VT(id), MU_VI(op->before > 0 ? op->before : INT64_MAX),
                  MU_VI(MU_CHECKPOINT_PAGE));
    return MU_MIN(r, 0);
}

static void list_done(struct mu_read *read, int result)
{
    struct mu_checkpoint_list *op = MU_CONTAINER(read, struct mu_checkpoint_list, read);
    op->done(op, result);
}

int mu_checkpoint_list(struct mu_sessions *s, struct mu_checkpoint_list *op)
{
    op->read.run = run_list;
    op->read.done = list_done;
    return mu_readers_submit(s->opts.readers, &op->read);
}

const struct mu_planned mu_checkpoints_read_planned[] = {
    {&q_chain, ""}, {&q_names, ""}, {&q_page, "checkpoints_seq"}, {&q_object, ""}, {NULL, NULL},
};
