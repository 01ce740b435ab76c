/* Sessions that begin or go on where a checkpoint was. */
#include <errno.h>
#include <stdio.h>

#include "app/sessions/attempts.h"
#include "app/sessions/checkpoints_int.h"
#include "app/sessions/hibernate_int.h"
#include "proto/json.h"

static const struct mu_stmt q_org = {"fork_org", "t", "SELECT org_id FROM sessions WHERE id = $1",
                                     NULL};
#define FIND "SELECT id, conversation, seq, epoch, number FROM checkpoints WHERE session_id = $1 "
static const struct mu_stmt q_newest = {"fork_newest", "t", FIND "ORDER BY seq DESC LIMIT 1", NULL};
static const struct mu_stmt q_by_seq = {"fork_seq", "ti", FIND "AND seq = $2", NULL};
static const struct mu_stmt q_by_id = {"fork_id", "tt", FIND "AND id = $2", NULL};
static const struct mu_stmt q_copy = {
    "fork_copy", "tttttii",
    "INSERT INTO checkpoints (id, session_id, epoch, seq, number, base_id, root_id, turn_id, "
    "conversation, bytes, created_ms, ref, expires_ms, kind, state) SELECT $1, $2, 0, $6, number, "
    "$4, $5, turn_id, conversation, bytes, created_ms, ref, $7, kind, state FROM checkpoints WHERE "
    "id = $3",
    NULL};
static const struct mu_stmt q_copy_parts = {
    "fork_parts", "ttii",
    "INSERT INTO checkpoint_parts (session_id, epoch, number, name, object_id, bytes, sha256) "
    "SELECT $2, 0, number, name, object_id, bytes, sha256 FROM checkpoint_parts WHERE session_id = "
    "$1 AND epoch = $3 AND number = $4 AND dead = 0",
    NULL};
static const struct mu_stmt q_lost = {
    "lost_read", "t",
    "SELECT s.mode, s.losses, p.spec FROM sessions s JOIN session_specs p ON p.session_id = s.id "
    "WHERE s.id = $1",
    NULL};
static const struct mu_stmt q_lost_set = {
    "lost_set", "ttti",
    "UPDATE sessions SET losses = losses + 1, restore_id = $2, conversation = $3, wait_ms = CASE "
    "WHEN run_deadline_ms IS NULL THEN NULL ELSE CAST($4 AS BIGINT) END WHERE id = $1",
    NULL};
_Static_assert(sizeof((struct mu_fork *)0)->conversation > MU_CONVERSATION_MAX, "it fits");
_Static_assert(sizeof((struct mu_session_requeue *)0)->conversation > MU_CONVERSATION_MAX, "too");

enum { SPEC_MAX = 4 << 20, KEPT_MS = 86400000 };

static int take_found(void *arg, struct mu_row *row)
{
    struct mu_found_checkpoint *f = arg;
    f->seq = mu_row_i64(row, 2);
    f->epoch = mu_row_i64(row, 3);
    f->number = mu_row_i64(row, 4);
    snprintf(f->conversation, MU_CONVERSATION_MAX + 1, "%.*s", MU_ARGS(mu_row_bytes(row, 1)));
    return mu_id_parse(mu_row_bytes(row, 0), NULL, &f->id);
}

int mu_checkpoint_newest(struct mu_tx *tx, mu_bytes session, struct mu_found_checkpoint *ret)
{
    return MU_TX_RUN(tx, &q_newest, take_found, ret, MU_VT(session));
}

/* --- forks --- */

static int take_org(void *arg, struct mu_row *row)
{
    const struct mu_session_create *op = arg;
    return mu_bytes_is(mu_row_bytes(row, 0), op->who->org_id) ? 0 : MU_E_NOT_FOUND;
}

static int find(struct mu_fork *f, struct mu_tx *tx, struct mu_found_checkpoint *ret)
{
    mu_bytes source = mu_id_bytes(&f->source);
    *ret = (struct mu_found_checkpoint){.conversation = f->conversation};
    f->conversation[0] = 0;
    int r;
    if (f->checkpoint.text[0]) {
        r = MU_TX_RUN(tx, &q_by_id, take_found, ret, MU_VT(source),
                      MU_VT(mu_id_bytes(&f->checkpoint)));
    } else if (f->number) {
        r = MU_TX_RUN(tx, &q_by_seq, take_found, ret, MU_VT(source), MU_VI(f->number));
    } else {
        r = mu_checkpoint_newest(tx, source, ret);
    }
    f->no_checkpoint = r == 0;
    return r < 0 ? r : r == 0 ? MU_E_NOT_FOUND : 0;
}

int mu_fork_copy(struct mu_session_create *op, struct mu_tx *tx)
{
    struct mu_fork *f = op->fork;
    mu_bytes source = mu_id_bytes(&f->source), id = mu_id_bytes(&op->id);
    struct mu_chain chain;
    struct mu_found_checkpoint found;
    f->no_checkpoint = false;
    int r = MU_TX_RUN(tx, &q_org, take_org, op, MU_VT(source));
    if (r <= 0) {
        return r < 0 ? r : MU_E_NOT_FOUND;
    }
    r = mu_tx_stream(tx, source, 0); /* nobody drops what is copied meanwhile */
    if (r >= 0) {
        r = find(f, tx, &found);
    }
    if (r >= 0) {
        r = mu_chain_read(mu_tx_db(tx), source, mu_id_bytes(&found.id), &chain);
    }
    for (size_t i = 0; r >= 0 && i < chain.n; i++) {
        const struct mu_chain_link *l = &chain.links[chain.n - 1 - i]; /* oldest first */
        mu_bytes base = i ? mu_id_bytes(&f->ids[i - 1]) : MU_B_NONE;
        r = MU_TX_RUN(tx, &q_copy, NULL, NULL, MU_VT(mu_id_bytes(&f->ids[i])), MU_VT(id),
                      MU_VT(mu_id_bytes(&l->id)), MU_VTOPT(base), MU_VT(mu_id_bytes(&f->ids[0])),
                      MU_VI((int64_t)i + 1), MU_VI(op->now_ms + KEPT_MS));
        if (r >= 0) {
            r = MU_TX_RUN(tx, &q_copy_parts, NULL, NULL, MU_VT(source), MU_VT(id), MU_VI(l->epoch),
                          MU_VI(l->number));
        }
        op->restore_id = mu_id_bytes(&f->ids[i]);
    }
    return MU_MIN(r, 0);
}

/* --- after a loss --- */

struct lost {
    int mode;
    int64_t losses;
    bool retry;
};

/* Whether it was created with retryOnRunnerLoss. */
static int take_lost(void *arg, struct mu_row *row)
{
    static const struct mu_json_limits limits = {.max_bytes = SPEC_MAX, .max_depth = 64};
    struct lost *l = arg;
    struct mu_arena a;
    yyjson_val *spec = NULL;
    l->mode = (int)mu_row_i64(row, 0);
    l->losses = mu_row_i64(row, 1);
    mu_arena_init(&a, 4 * (size_t)SPEC_MAX);
    int r = mu_json_read(&a, mu_row_bytes(row, 2), &limits, &spec, NULL);
    l->retry = r == 0 && mu_json_get_bool(mu_json_get(spec, "live"), "retryOnRunnerLoss", false);
    mu_arena_fini(&a);
    return r == -ENOMEM ? r : 0;
}

static void word_event(struct mu_session_requeue *op)
{
    char on[64] = "it begins again";
    if (op->restore.text[0]) {
        snprintf(on, sizeof on, "it goes on from checkpoint %lld", (long long)op->restore_number);
    }
    snprintf(op->event, sizeof op->event, "{\"from\":%d,\"to\":22,\"message\":\"%s; %s\"}",
             op->from, op->reason, on);
}

int mu_session_go_on(struct mu_session_requeue *op, struct mu_tx *tx)
{
    mu_bytes id = mu_id_bytes(&op->id);
    struct mu_found_checkpoint found = {.conversation = op->conversation};
    struct lost l = {0};
    op->too_often = false;
    op->restore.text[0] = op->conversation[0] = 0;
    int r = MU_TX_RUN(tx, &q_lost, take_lost, &l, MU_VT(id));
    if (r <= 0) {
        return r < 0 ? r : MU_E_STALE;
    }
    r = mu_checkpoint_newest(tx, id, &found);
    if (r < 0) {
        return r;
    }
    bool again =
        r > 0 ? l.mode == MU_MODE_INTERACTIVE || l.retry : l.retry && l.mode == MU_MODE_TASK;
    op->too_often = again && l.losses + 1 >= MU_LOSSES_MAX;
    if (!again || op->too_often) {
        return MU_E_CONFLICT;
    }
    if (r > 0) {
        op->restore = found.id;
        op->restore_number = found.seq;
    }
    word_event(op);
    return 0;
}

int mu_session_went_on(struct mu_session_requeue *op, struct mu_tx *tx)
{
    mu_bytes id = mu_id_bytes(&op->id);
    mu_bytes restore = mu_id_bytes(&op->restore), conversation = mu_str(op->conversation);
    return MU_TX_SEND(tx, &q_lost_set, 1, MU_VT(id), restore.len ? MU_VT(restore) : MU_VNULL,
                      conversation.len ? MU_VT(conversation) : MU_VNULL, MU_VI(op->now_ms));
}

const struct mu_planned mu_restore_planned[] = {
    {&q_newest, "checkpoints_seq"}, {&q_by_seq, "checkpoints_seq"}, {NULL, NULL}};
