/* The executor's moves: claim, switch of candidate, put back, output. */
#include <errno.h>
#include <stdio.h>

#include "app/sessions/sessions_int.h"
#include "app/sessions/statements_int.h"
#include "base/clip.h"

static const struct mu_stmt q_claim_one = {
    "claim_one", "tiii",
    "UPDATE sessions SET state = 60, worker_id = 'srv:1', epoch = epoch + 1, deadline_ms = $4, "
    "updated_ms = $3, started_ms = "
    "coalesce(started_ms, $3), running_ms = coalesce(running_ms, $3), rev = rev + 1 WHERE id = $1 "
    "AND state = 20 AND epoch = $2 "
    "RETURNING epoch",
    NULL};
static const struct mu_stmt q_attempt = {
    "attempt", "titiitt",
    "INSERT INTO attempts (session_id, epoch, execution_id, kind, server_slot, state, lease_ms, "
    "offered_ms, provider, model) "
    "VALUES ($1, $2, $3, 1, 1, 30, $4, $5, $6, $7)",
    NULL};
static const struct mu_stmt q_attempt_provider = {
    "attempt_provider", "titt",
    "UPDATE attempts SET provider = $3, model = $4 WHERE session_id = $1 AND epoch = $2 AND "
    "ended_ms IS NULL AND EXISTS (SELECT 1 FROM sessions s WHERE s.id = $1 AND s.state = 60)",
    NULL};
static const struct mu_stmt q_prompt = {
    "prompt", "t",
    "SELECT p.prompt_head, p.prompt_rest, p.spec, s.conversation_id FROM session_specs p JOIN "
    "sessions s ON s.id = p.session_id "
    "WHERE p.session_id = $1",
    NULL};
static const struct mu_stmt q_put_back = {
    "put_back", "tiiii",
    "UPDATE sessions SET state = 20, worker_id = NULL, epoch = epoch + 1, saturated_ms = "
    "coalesce(saturated_ms, $5), deadline_ms "
    "= $4, updated_ms = $3, rev = rev + 1 WHERE id = $1 AND epoch = $2 AND route = 1 AND state = "
    "60 AND stop_ms IS NULL "
    "RETURNING epoch, saturated_ms",
    NULL};
static const struct mu_stmt q_saturate = {
    "saturate", "tiii",
    "UPDATE sessions SET saturated_ms = coalesce(saturated_ms, $3), deadline_ms = $4, updated_ms = "
    "$3, rev = rev + 1 WHERE id = $1 "
    "AND epoch = $2 AND state = 20 RETURNING saturated_ms",
    NULL};
const struct mu_stmt mu_q_attempt_end = {
    "attempt_end", "tiiii",
    "UPDATE attempts SET state = 90, outcome = $3, exit_code = $4, ended_ms = $5 WHERE session_id "
    "= $1 AND epoch = $2 AND "
    "ended_ms IS NULL",
    NULL};
static const struct mu_stmt q_holds = {
    "holds", "ti",
    "SELECT 1 FROM sessions WHERE id = $1 AND epoch = $2 AND state BETWEEN 30 AND 89", NULL};
static const struct mu_stmt q_chunk = {
    "chunk", "tib",
    "INSERT INTO output_chunks (session_id, pos, bytes) VALUES ($1, $2, $3) ON CONFLICT "
    "(session_id, pos) DO NOTHING",
    NULL};
static const struct mu_stmt q_chunk_trim = {
    "chunk_trim", "ti",
    "DELETE FROM output_chunks WHERE session_id = $1 AND pos >= 1048576 AND pos < $2", NULL};
const struct mu_stmt mu_q_chunks_drop = {"chunks_drop", "t",
                                         "DELETE FROM output_chunks WHERE session_id = $1", NULL};
static const struct mu_stmt q_head = {
    "head", "titi",
    "INSERT INTO session_results (session_id, message_head, updated_ms) SELECT s.id, $3, $4 FROM "
    "sessions s WHERE s.id = $1 AND "
    "s.epoch = $2 AND s.state IN (20, 60) ON CONFLICT (session_id) DO UPDATE SET message_head = "
    "excluded.message_head, "
    "updated_ms = excluded.updated_ms",
    NULL};

static const struct mu_stmt q_head_clear = {
    "head_clear", "ti",
    "UPDATE session_results SET message_head = '', updated_ms = $2 WHERE session_id = $1", NULL};

/* --- claim --- */

static int take_prompt(void *arg, struct mu_row *row)
{
    struct mu_session_claim *op = arg;
    int r = mu_prompt_join(&op->arena, mu_row_bytes(row, 0), mu_row_bytes(row, 1), &op->prompt);
    if (r < 0) {
        return r;
    }
    op->spec = mu_arena_dup(&op->arena, mu_row_bytes(row, 2));
    mu_bytes conversation = mu_row_bytes(row, 3);
    op->conversation_id = conversation.ptr ? mu_arena_dup(&op->arena, conversation) : MU_B_NONE;
    return op->spec.ptr && (!conversation.ptr || op->conversation_id.ptr) ? 0 : -ENOMEM;
}

static int run_claim(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_session_claim *op = MU_CONTAINER(u, struct mu_session_claim, unit);
    mu_bytes id = mu_id_bytes(&op->id);
    int r = mu_tx_stream(tx, id, 1);
    if (r < 0) {
        return r;
    }
    int64_t epoch = 0;
    r = MU_TX_RUN(tx, &q_claim_one, mu_row_take_i64, &epoch, MU_VT(id), MU_VI(op->epoch),
                  MU_VI(op->now_ms), MU_VI(op->deadline_ms));
    if (r <= 0) {
        return r < 0 ? r : MU_E_STALE;
    }
    r = mu_quota_take(tx, &op->quota, id, op->now_ms);
    if (r < 0) {
        return r;
    }
    mu_arena_fini(&op->arena); /* the unit may run again */
    r = MU_TX_RUN(tx, &q_prompt, take_prompt, op, MU_VT(id));
    if (r <= 0) {
        return r < 0 ? r : MU_E_CORRUPT;
    }
    r = MU_TX_SEND(tx, &q_attempt, 1, MU_VT(id), MU_VI(epoch),
                   MU_VT(mu_id_bytes(&op->execution_id)), MU_VI(op->lease_ms), MU_VI(op->now_ms),
                   MU_VT(mu_str(op->provider)), MU_VT(op->model));
    if (r >= 0 && op->waited) {
        r = MU_TX_SEND(tx, &q_head_clear, -1, MU_VT(id), MU_VI(op->now_ms));
    }
    if (r >= 0) {
        r = mu_tx_event(tx, MU_EV_STATE, op->now_ms, MU_B("system"), mu_str(op->event));
    }
    return r < 0 ? r : (int)epoch;
}

static void claimed(struct mu_unit *u, int result)
{
    struct mu_session_claim *op = MU_CONTAINER(u, struct mu_session_claim, unit);
    if (result > 0) {
        op->epoch = result;
        result = 0;
    }
    mu_sessions_note_stale(op->sessions, result);
    op->done(op, result);
}

/* Provider keys and models are configuration, but a model id may hold anything: it is escaped by
 * leaving odd bytes out. */
static void plain(char *dst, size_t size, mu_bytes src)
{
    size_t n = 0;
    for (size_t i = 0; i < src.len && n + 1 < size; i++) {
        unsigned char c = (unsigned char)src.ptr[i];
        if (c >= 0x20 && c != '"' && c != '\\' && c < 0x7f) {
            dst[n++] = (char)c;
        }
    }
    dst[n] = 0;
}

static void provider_event(char *dst, size_t size, int from, const char *provider, mu_bytes model)
{
    char key[64], name[96];
    plain(key, sizeof key, mu_str(provider));
    plain(name, sizeof name, model);
    snprintf(dst, size, "{\"from\":%d,\"to\":60,\"provider\":\"%s\",\"model\":\"%s\"}", from, key,
             name);
}

int mu_session_claim(struct mu_sessions *s, struct mu_session_claim *op)
{
    op->sessions = s;
    op->now_ms = mu_sessions_now(s);
    op->execution_id = mu_id_random(s->opts.env);
    provider_event(op->event, sizeof op->event, MU_ST_QUEUED, op->provider, op->model);
    return mu_session_submit(s, &op->unit, &op->id, run_claim, claimed);
}

/* --- switch of candidate --- */

static int run_switch(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_session_switch *op = MU_CONTAINER(u, struct mu_session_switch, unit);
    mu_bytes id = mu_id_bytes(&op->id);
    int r = mu_tx_stream(tx, id, 1);
    if (r < 0) {
        return r;
    }
    r = MU_TX_RUN(tx, &q_attempt_provider, NULL, NULL, MU_VT(id), MU_VI(op->epoch),
                  MU_VT(mu_str(op->provider)), MU_VT(op->model));
    if (r <= 0) {
        return r < 0 ? r : MU_E_STALE;
    }
    r = mu_quota_settle(tx, &op->former, id);
    if (r >= 0) {
        r = mu_quota_take(tx, &op->quota, id, op->now_ms);
    }
    return r < 0 ? r : mu_tx_event(tx, MU_EV_STATE, op->now_ms, MU_B("system"), mu_str(op->event));
}

static void switched(struct mu_unit *u, int result)
{
    struct mu_session_switch *op = MU_CONTAINER(u, struct mu_session_switch, unit);
    mu_sessions_note_stale(op->sessions, result);
    op->done(op, result);
}

int mu_session_switch(struct mu_sessions *s, struct mu_session_switch *op)
{
    op->sessions = s;
    op->now_ms = mu_sessions_now(s);
    provider_event(op->event, sizeof op->event, MU_ST_RUNNING, op->provider, op->model);
    return mu_session_submit(s, &op->unit, &op->id, run_switch, switched);
}

/* --- put back, saturate --- */

static int take_two(void *arg, struct mu_row *row)
{
    int64_t *v = arg;
    v[0] = mu_row_i64(row, 0);
    v[1] = mu_row_i64(row, 1);
    return 0;
}

static int run_put_back(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_session_put_back *op = MU_CONTAINER(u, struct mu_session_put_back, unit);
    mu_bytes id = mu_id_bytes(&op->id);
    int r = mu_tx_stream(tx, id, 1);
    if (r < 0) {
        return r;
    }
    int64_t got[2] = {0, 0};
    r = MU_TX_RUN(tx, &q_put_back, take_two, got, MU_VT(id), MU_VI(op->epoch), MU_VI(op->now_ms),
                  MU_VI(op->deadline_ms), MU_VIOPT(op->saturated_ms));
    if (r <= 0) {
        return r < 0 ? r : MU_E_STALE;
    }
    r = MU_TX_SEND(tx, &mu_q_attempt_end, -1, MU_VT(id), MU_VI(op->epoch), MU_VI(MU_ATT_PUT_BACK),
                   MU_VNULL, MU_VI(op->now_ms));
    if (r >= 0) {
        r = mu_quota_settle(tx, &op->quota, id);
    }
    if (r >= 0) {
        r = MU_TX_SEND(tx, &mu_q_chunks_drop, -1, MU_VT(id));
    }
    if (r >= 0 && op->message) {
        r = MU_TX_SEND(tx, &q_head, -1, MU_VT(id), MU_VI(got[0]), MU_VT(mu_str(op->message)),
                       MU_VI(op->now_ms));
    }
    if (r >= 0) {
        r = mu_tx_event(tx, MU_EV_STATE, op->now_ms, MU_B("system"), mu_str(op->event));
    }
    op->saturated_ms = r < 0 ? op->saturated_ms : got[1];
    return r < 0 ? r : (int)got[0];
}

static void put_back_done(struct mu_unit *u, int result)
{
    struct mu_session_put_back *op = MU_CONTAINER(u, struct mu_session_put_back, unit);
    if (result > 0) {
        op->epoch = result;
        result = 0;
    }
    mu_sessions_note_stale(op->sessions, result);
    op->done(op, result);
}

static void waiting_event(char *dst, size_t size, int from, const char *message)
{
    char text[256];
    plain(text, sizeof text, mu_str(message ? message : ""));
    snprintf(dst, size, "{\"from\":%d,\"to\":20,\"message\":\"%s\"}", from, text);
}

int mu_session_put_back(struct mu_sessions *s, struct mu_session_put_back *op)
{
    op->sessions = s;
    waiting_event(op->event, sizeof op->event, MU_ST_RUNNING, op->message);
    return mu_session_submit(s, &op->unit, &op->id, run_put_back, put_back_done);
}

static int run_saturate(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_session_saturate *op = MU_CONTAINER(u, struct mu_session_saturate, unit);
    mu_bytes id = mu_id_bytes(&op->id);
    int r = mu_tx_stream(tx, id, 1);
    if (r < 0) {
        return r;
    }
    int64_t first = 0;
    r = MU_TX_RUN(tx, &q_saturate, mu_row_take_i64, &first, MU_VT(id), MU_VI(op->epoch),
                  MU_VI(op->now_ms), MU_VI(op->deadline_ms));
    if (r <= 0) {
        return r < 0 ? r : MU_E_STALE;
    }
    op->saturated_ms = first;
    r = MU_TX_SEND(tx, &q_head, -1, MU_VT(id), MU_VI(op->epoch), MU_VT(mu_str(op->message)),
                   MU_VI(op->now_ms));
    return r < 0 ? r : mu_tx_event(tx, MU_EV_STATE, op->now_ms, MU_B("system"), mu_str(op->event));
}

static void saturate_done(struct mu_unit *u, int result)
{
    struct mu_session_saturate *op = MU_CONTAINER(u, struct mu_session_saturate, unit);
    op->done(op, result);
}

int mu_session_saturate(struct mu_sessions *s, struct mu_session_saturate *op)
{
    op->sessions = s;
    waiting_event(op->event, sizeof op->event, MU_ST_QUEUED, op->message);
    return mu_session_submit(s, &op->unit, &op->id, run_saturate, saturate_done);
}

/* --- output --- */

static int run_chunk(struct mu_unit *u, struct mu_tx *tx)
{
    struct mu_session_chunk *op = MU_CONTAINER(u, struct mu_session_chunk, unit);
    mu_bytes id = mu_id_bytes(&op->id);
    int r = mu_tx_stream(tx, id, 0);
    if (r >= 0) {
        r = MU_TX_RUN(tx, &q_holds, NULL, NULL, MU_VT(id), MU_VI(op->epoch));
        r = r == 0 ? MU_E_STALE : r;
    }
    if (r >= 0 && op->discard) {
        r = MU_TX_SEND(tx, &mu_q_chunks_drop, -1, MU_VT(id));
    }
    if (r >= 0 && op->bytes.len) {
        r = MU_TX_SEND(tx, &q_chunk, -1, MU_VT(id), MU_VI(op->pos), MU_VB(op->bytes));
    }
    int64_t keep = op->pos + (int64_t)op->bytes.len - MU_OUTPUT_TAIL;
    if (r >= 0 && keep > MU_OUTPUT_HEAD) {
        r = MU_TX_SEND(tx, &q_chunk_trim, -1, MU_VT(id), MU_VI(keep));
    }
    return r < 0 ? r : 0;
}

static void chunk_done(struct mu_unit *u, int result)
{
    struct mu_session_chunk *op = MU_CONTAINER(u, struct mu_session_chunk, unit);
    mu_sessions_note_stale(op->sessions, result);
    op->done(op, result);
}

int mu_session_chunk(struct mu_sessions *s, struct mu_session_chunk *op)
{
    op->sessions = s;
    return mu_session_submit(s, &op->unit, &op->id, run_chunk, chunk_done);
}

const struct mu_planned mu_moves_planned[] = {
    {&q_claim_one, ""}, {&q_attempt_provider, ""}, {&q_put_back, ""},       {&q_saturate, ""},
    {&q_holds, ""},     {&q_chunk_trim, ""},       {&mu_q_attempt_end, ""}, {NULL, NULL},
};
