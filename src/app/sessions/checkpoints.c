/* Checkpoints as their runner brings them: parts first, then the word that they are one. */
#include <errno.h>
#include <stdio.h>

#include "app/sessions/checkpoints_int.h"

enum { DAY_MS = 86400000, NAME_PARTS_MAX = 999 };

static const struct mu_stmt q_holds = {
    "ckpt_holds", "ti",
    "SELECT 1 FROM sessions WHERE id = $1 AND epoch = $2 AND ended_ms IS NULL AND state BETWEEN 30 "
    "AND 80",
    NULL};
static const struct mu_stmt q_kept = {
    "ckpt_kept", "tiit",
    "SELECT CAST(coalesce(sum(bytes), 0) AS BIGINT), count(*) FROM checkpoint_parts WHERE "
    "session_id = $1 AND dead = 0 AND NOT (epoch = $2 AND number = $3 AND name = $4)",
    NULL};
/* Its name is free again: that of its object is nobody else's. */
static const struct mu_stmt q_replace = {
    "ckpt_replace", "tiit",
    "UPDATE checkpoint_parts SET dead = 1, name = object_id WHERE session_id = $1 AND epoch = $2 "
    "AND number = $3 AND name = $4",
    NULL};
static const struct mu_stmt q_part = {
    "ckpt_part", "tiittit",
    "INSERT INTO checkpoint_parts (session_id, epoch, number, name, object_id, bytes, sha256) "
    "VALUES ($1, $2, $3, $4, $5, $6, $7)",
    NULL};
static const struct mu_stmt q_oldest = {
    "ckpt_oldest", "t",
    "SELECT c.root_id FROM checkpoints c WHERE c.session_id = $1 AND c.root_id <> (SELECT "
    "n.root_id FROM checkpoints n WHERE n.session_id = $1 ORDER BY n.seq DESC LIMIT 1) ORDER BY "
    "c.seq LIMIT 1",
    NULL};
static const struct mu_stmt q_chain_parts = {
    "ckpt_chain_parts", "tt",
    "UPDATE checkpoint_parts SET dead = 1 WHERE session_id = $1 AND dead = 0 AND EXISTS (SELECT 1 "
    "FROM checkpoints c WHERE c.session_id = $1 AND c.root_id = $2 AND c.epoch = "
    "checkpoint_parts.epoch AND c.number = checkpoint_parts.number)",
    NULL};
static const struct mu_stmt q_chain_drop = {
    "ckpt_chain_drop", "tt", "DELETE FROM checkpoints WHERE session_id = $1 AND root_id = $2",
    NULL};
static const struct mu_stmt q_all_parts = {
    "ckpt_all_parts", "t",
    "UPDATE checkpoint_parts SET dead = 1 WHERE session_id = $1 AND dead = 0", NULL};
static const struct mu_stmt q_all_drop = {"ckpt_all_drop", "t",
                                          "DELETE FROM checkpoints WHERE session_id = $1", NULL};
static const struct mu_stmt q_prev = {
    "ckpt_prev", "tii",
    "SELECT c.id, c.root_id, (SELECT count(*) FROM checkpoints x WHERE x.session_id = $1 AND "
    "x.root_id = c.root_id) FROM checkpoints c WHERE c.session_id = $1 AND c.epoch = $2 AND "
    "c.number = $3",
    NULL};
static const struct mu_stmt q_counts = {
    "ckpt_counts", "t",
    "SELECT coalesce(max(seq), 0), count(*) FROM checkpoints WHERE session_id = $1", NULL};
static const struct mu_stmt q_there = {
    "ckpt_there", "tii",
    "SELECT name, bytes, sha256 FROM checkpoint_parts WHERE session_id = $1 AND epoch = $2 AND "
    "number = $3 AND dead = 0",
    NULL};
static const struct mu_stmt q_new = {
    "ckpt_new", "ttiiittttiiti",
    "INSERT INTO checkpoints (id, session_id, epoch, seq, number, base_id, root_id, turn_id, "
    "conversation, bytes, created_ms, ref, expires_ms, kind, state) VALUES ($1, $2, $3, $4, $5, "
    "$6, $7, $8, $9, $10, $11, $12, $13, 1, 1)",
    NULL};
/* Of checkpoints that nobody finished. */
static const struct mu_stmt q_left = {
    "ckpt_left", "tii",
    "UPDATE checkpoint_parts SET dead = 1 WHERE session_id = $1 AND dead = 0 AND (epoch < $2 OR "
    "number <= $3) AND NOT EXISTS (SELECT 1 FROM checkpoints c WHERE c.session_id = $1 AND c.epoch "
    "= checkpoint_parts.epoch AND c.number = checkpoint_parts.number)",
    NULL};
/* A session that only stops keeps them: its runner may be storing one still. */
static const struct mu_stmt q_ended = {
    "ckpt_ended", "t",
    "UPDATE checkpoint_parts SET dead = 1 WHERE session_id = $1 AND dead = 0 AND EXISTS (SELECT 1 "
    "FROM sessions s WHERE s.id = $1 AND s.ended_ms IS NOT NULL) AND NOT EXISTS (SELECT 1 FROM "
    "checkpoints c WHERE c.session_id = $1 AND c.epoch = checkpoint_parts.epoch AND c.number = "
    "checkpoint_parts.number)",
    NULL};

/* --- names --- */

static bool take_number(mu_bytes *rest, char until, int64_t max, int64_t *ret)
{
    mu_bytes digits = mu_bytes_split(rest, until);
    bool plain = digits.len && digits.len <= 18 && (digits.ptr[0] != '0' || digits.len == 1);
    for (size_t i = 0; plain && i < digits.len; i++) {
        plain = digits.ptr[i] >= '0' && digits.ptr[i] <= '9';
    }
    return plain && rest->ptr && mu_bytes_i64(digits, ret) == 0 && *ret <= max;
}

bool mu_checkpoint_name(mu_bytes name, int64_t *ret_epoch, int64_t *ret_number)
{
    int64_t part;
    if (!mu_bytes_starts(name, MU_B("ckpt-"))) {
        return false;
    }
    mu_bytes rest = mu_bytes_from(name, 5);
    return take_number(&rest, '-', INT64_MAX, ret_epoch) && *ret_epoch >= 1 &&
           take_number(&rest, '-', INT64_MAX, ret_number) && *ret_number >= 1 &&
           take_number(&rest, '.', NAME_PARTS_MAX, &part) && mu_bytes_is(rest, "pack");
}

/* --- what goes --- */

int mu_checkpoints_prune(struct mu_tx *tx, mu_bytes session)
{
    struct mu_id root;
    int r = MU_TX_RUN(tx, &q_oldest, mu_row_take_id, &root, MU_VT(session));
    if (r <= 0) {
        return r;
    }
    r = MU_TX_RUN(tx, &q_chain_parts, NULL, NULL, MU_VT(session), MU_VT(mu_id_bytes(&root)));
    if (r >= 0) {
        r = MU_TX_RUN(tx, &q_chain_drop, NULL, NULL, MU_VT(session), MU_VT(mu_id_bytes(&root)));
    }
    return r < 0 ? r : 1;
}

int mu_checkpoints_drop(struct mu_tx *tx, mu_bytes session)
{
    /* a fork that is being made has copied all of them, or finds none */
    int r = mu_tx_stream(tx, session, 0);
    if (r < 0 && r != MU_E_NOT_FOUND) {
        return r;
    }
    r = MU_TX_SEND(tx, &q_all_parts, -1, MU_VT(session));
    return r < 0 ? r : MU_TX_SEND(tx, &q_all_drop, -1, MU_VT(session));
}

int mu_checkpoints_ended(struct mu_tx *tx, mu_bytes session)
{
    return MU_TX_SEND(tx, &q_ended, -1, MU_VT(session));
}

struct pair {
    int64_t a, b;
};

static int take_pair(void *arg, struct mu_row *row)
{
    *(struct pair *)arg = (struct pair){mu_row_i64(row, 0), mu_row_i64(row, 1)};
    return 0;
}

/* --- a part --- */

static int make_room(struct mu_checkpoint_put *op, struct mu_tx *tx)
{
    mu_bytes id = mu_id_bytes(&op->session);
    int64_t max = op->sessions->opts.checkpoint_max;
    for (;;) {
        struct pair kept = {0};
        int r = MU_TX_RUN(tx, &q_kept, take_pair, &kept, MU_VT(id), MU_VI(op->epoch),
                          MU_VI(op->number), MU_VT(op->name));
        if (r < 0 || (kept.a + op->bytes <= max && kept.b < MU_CHECKPOINT_PART_ROWS)) {
            return MU_MIN(r, 0);
        }
        r = mu_checkpoints_prune(tx, id);
        if (r <= 0) {
            return r < 0 ? r : MU_E_LIMIT;
        }
    }
}

static int run_put(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_checkpoint_put *op = MU_CONTAINER(u, struct mu_checkpoint_put, unit);
    mu_bytes id = mu_id_bytes(&op->session);
    int r = mu_tx_stream(tx, id, 0);
    if (r >= 0) {
        r = MU_TX_RUN(tx, &q_holds, NULL, NULL, MU_VT(id), MU_VI(op->epoch));
    }
    if (r <= 0) {
        return r < 0 && r != MU_E_NOT_FOUND ? r : MU_E_STALE;
    }
    r = make_room(op, tx);
    if (r >= 0) {
        r = MU_TX_SEND(tx, &q_replace, -1, MU_VT(id), MU_VI(op->epoch), MU_VI(op->number),
                       MU_VT(op->name));
    }
    if (r >= 0) {
        r = MU_TX_SEND(tx, &q_part, 1, MU_VT(id), MU_VI(op->epoch), MU_VI(op->number),
                       MU_VT(op->name), MU_VT(mu_id_bytes(&op->object)), MU_VI(op->bytes),
                       MU_VT(mu_str(op->sha256.text)));
    }
    return MU_MIN(r, 0);
}

static void put_done(struct mu_unit *u, int result)
{
    struct mu_checkpoint_put *op = MU_CONTAINER(u, struct mu_checkpoint_put, unit);
    mu_sessions_note_stale(op->sessions, result);
    op->done(op, result);
}

int mu_checkpoint_put(struct mu_sessions *s, struct mu_checkpoint_put *op)
{
    int64_t epoch;
    if (!mu_checkpoint_name(op->name, &epoch, &op->number) || epoch != op->epoch) {
        return MU_E_INVALID;
    }
    if (op->bytes > MU_CHECKPOINT_PART_BYTES) {
        return MU_E_TOO_LARGE;
    }
    op->sessions = s;
    return mu_session_submit(s, &op->unit, &op->session, run_put, put_done);
}

/* --- the checkpoint --- */

struct taking {
    struct mu_checkpoint_take *op;
    struct mu_id base, root;
    int64_t length; /* of the chain so far */
    size_t found;
    const char *bad;
};

static int take_prev(void *arg, struct mu_row *row)
{
    struct taking *t = arg;
    int r = mu_id_parse(mu_row_bytes(row, 0), NULL, &t->base);
    t->length = mu_row_i64(row, 2);
    return r < 0 ? r : mu_id_parse(mu_row_bytes(row, 1), NULL, &t->root);
}

static int take_there(void *arg, struct mu_row *row)
{
    struct taking *t = arg;
    mu_bytes name = mu_row_bytes(row, 0);
    for (size_t i = 0; i < t->op->n_parts; i++) {
        const struct mu_checkpoint_part *p = &t->op->parts[i];
        if (mu_bytes_eq(p->name, name)) {
            bool same =
                p->bytes == mu_row_i64(row, 1) && mu_bytes_eq(p->sha256, mu_row_bytes(row, 2));
            t->bad = same ? t->bad : "a part is not what was stored";
            t->found++;
            return 0;
        }
    }
    t->bad = "a part was stored that it does not name";
    return 0;
}

/* Whether it can be one: 0 and t->bad, or a code. */
static int judge(struct taking *t, struct mu_tx *tx)
{
    struct mu_checkpoint_take *op = t->op;
    mu_bytes id = mu_id_bytes(&op->id);
    t->root = op->fresh;
    t->bad = op->bad;
    if (t->bad) {
        return 0;
    }
    if (op->sessions->opts.checkpoint_max <= 0) {
        t->bad = "none are kept here";
        return 0;
    }
    int r = op->prev
                ? MU_TX_RUN(tx, &q_prev, take_prev, t, MU_VT(id), MU_VI(op->epoch), MU_VI(op->prev))
                : 1;
    if (r <= 0) {
        t->bad = "the one before it is not there";
        return r;
    }
    if (t->length >= MU_CHECKPOINT_CHAIN) {
        t->bad = "its chain is too long";
        return 0;
    }
    r = MU_TX_RUN(tx, &q_there, take_there, t, MU_VT(id), MU_VI(op->epoch), MU_VI(op->number));
    if (r >= 0 && !t->bad && t->found != op->n_parts) {
        t->bad = "a part was not stored";
    }
    return MU_MIN(r, 0);
}

static int refuse(struct taking *t, struct mu_tx *tx)
{
    struct mu_checkpoint_take *op = t->op;
    op->refused = t->bad;
    snprintf(op->event, sizeof op->event,
             "{\"alertId\":\"%s\",\"severity\":\"warn\",\"category\":\"performance\","
             "\"kind\":\"checkpoint\",\"title\":\"a checkpoint was not kept\",\"description\":"
             "\"Checkpoint %lld was not kept: %s\"}",
             op->fresh.text, (long long)op->number, t->bad);
    mu_bytes id = mu_id_bytes(&op->id);
    int r = MU_TX_SEND(tx, &q_left, -1, MU_VT(id), MU_VI(op->epoch), MU_VI(op->number));
    if (r >= 0) {
        r = mu_tx_stream(tx, id, 1);
    }
    return r < 0
               ? r
               : mu_tx_event(tx, MU_EV_ALERT_RAISED, op->now_ms, MU_B("system"), mu_str(op->event));
}

static int keep(struct taking *t, struct mu_tx *tx)
{
    struct mu_checkpoint_take *op = t->op;
    mu_bytes id = mu_id_bytes(&op->id);
    struct pair counts = {0};
    int r = MU_TX_RUN(tx, &q_counts, take_pair, &counts, MU_VT(id));
    if (r >= 0) {
        mu_bytes base = op->prev ? mu_id_bytes(&t->base) : MU_B_NONE;
        r = MU_TX_RUN(tx, &q_new, NULL, NULL, MU_VT(mu_id_bytes(&op->fresh)), MU_VT(id),
                      MU_VI(op->epoch), MU_VI(counts.a + 1), MU_VI(op->number), MU_VTOPT(base),
                      MU_VT(mu_id_bytes(&t->root)), MU_VTOPT(op->turn_id),
                      MU_VTOPT(op->conversation), MU_VI(op->bytes), MU_VI(op->now_ms),
                      MU_VT(op->manifest), MU_VI(op->now_ms + DAY_MS));
    }
    if (r >= 0) {
        r = MU_TX_SEND(tx, &q_left, -1, MU_VT(id), MU_VI(op->epoch), MU_VI(op->number));
    }
    if (r >= 0 && op->conversation.ptr) {
        r = MU_TX_SEND(tx, &mu_q_conversation, -1, MU_VT(id), MU_VT(op->conversation));
    }
    if (r >= 0 && counts.b >= MU_CHECKPOINT_ROWS) {
        r = mu_checkpoints_prune(tx, id);
    }
    bool turn = op->turn_id.ptr != NULL;
    snprintf(op->event, sizeof op->event,
             "{\"checkpointId\":\"%s\"%s%.*s%s,\"number\":%lld,\"bytes\":%lld}", op->fresh.text,
             turn ? ",\"turnId\":\"" : "", MU_ARGS(op->turn_id), turn ? "\"" : "",
             (long long)counts.a + 1, (long long)op->bytes);
    if (r >= 0) {
        r = mu_tx_stream(tx, id, 1);
    }
    return r < 0 ? r
                 : mu_tx_event(tx, MU_EV_CHECKPOINT_TAKEN, op->now_ms, MU_B("runner"),
                               mu_str(op->event));
}

static int run_take(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_checkpoint_take *op = MU_CONTAINER(u, struct mu_checkpoint_take, unit);
    mu_bytes id = mu_id_bytes(&op->id);
    struct taking t = {.op = op};
    struct mu_clocks l;
    int64_t stored = 0;
    op->repeated = false;
    op->refused = NULL;
    int r = mu_clocks_of(tx, id, true, MU_B_NONE, &l);
    if (r < 0) {
        return r;
    }
    if (l.epoch != op->epoch || l.state < MU_ST_CLAIMED || l.state > MU_ST_STOPPING) {
        return MU_E_STALE;
    }
    r = MU_TX_RUN(tx, &mu_q_runner_seq, mu_row_take_i64, &stored, MU_VT(id), MU_VI(op->epoch));
    if (r <= 0) {
        return r < 0 ? r : MU_E_STALE;
    }
    if (op->runner_seq != stored + 1) {
        op->repeated = op->runner_seq <= stored;
        return op->repeated ? 0 : MU_E_MISMATCH;
    }
    r = MU_TX_SEND(tx, &mu_q_runner_seq_set, 1, MU_VT(id), MU_VI(op->epoch), MU_VI(op->runner_seq));
    if (r >= 0) {
        r = judge(&t, tx);
    }
    return r < 0 ? r : t.bad ? refuse(&t, tx) : keep(&t, tx);
}

static void take_done(struct mu_unit *u, int result)
{
    struct mu_checkpoint_take *op = MU_CONTAINER(u, struct mu_checkpoint_take, unit);
    struct mu_sessions *s = op->sessions;
    mu_sessions_note_stale(s, result);
    if (result >= 0 && !op->repeated) {
        mu_metric_add(op->refused ? s->ckpt_refused : s->ckpt_stored, 1);
        mu_metric_add(s->ckpt_bytes, op->refused ? 0 : op->bytes);
        op->checkpoint = op->fresh;
    }
    op->done(op, result);
}

/* The parts are of this checkpoint, each named once. */
static const char *parts_bad(const struct mu_checkpoint_take *op)
{
    for (size_t i = 0; i < op->n_parts; i++) {
        int64_t epoch, number;
        if (!mu_checkpoint_name(op->parts[i].name, &epoch, &number) || epoch != op->epoch ||
            number != op->number) {
            return "a part is not its own";
        }
        for (size_t k = 0; k < i; k++) {
            if (mu_bytes_eq(op->parts[i].name, op->parts[k].name)) {
                return "a part is named twice";
            }
        }
    }
    return op->number < 1 || op->prev < 0 || op->prev >= op->number ? "its number is none" : NULL;
}

int mu_checkpoint_take(struct mu_sessions *s, struct mu_checkpoint_take *op)
{
    if (op->n_parts > MU_CHECKPOINT_PARTS || op->manifest.len > MU_CHECKPOINT_MANIFEST ||
        op->turn_id.len > MU_ID_LEN || op->conversation.len > MU_CONVERSATION_MAX) {
        return MU_E_TOO_LARGE;
    }
    op->bad = op->bad ? op->bad : parts_bad(op);
    op->bytes = 0;
    for (size_t i = 0; i < op->n_parts; i++) {
        op->bytes += MU_MIN(op->parts[i].bytes, (int64_t)MU_CHECKPOINT_PART_BYTES);
    }
    op->sessions = s;
    op->now_ms = mu_sessions_now(s);
    op->fresh = mu_id_new(s->opts.env, NULL);
    op->checkpoint.text[0] = 0;
    return mu_session_submit(s, &op->unit, &op->id, run_take, take_done);
}

const struct mu_planned mu_checkpoints_planned[] = {
    {&q_kept, ""},
    {&q_oldest, "checkpoints_seq"},
    {&q_prev, "checkpoints_number"},
    {&q_counts, "checkpoints_seq"},
    {&q_there, ""},
    {NULL, NULL},
};
