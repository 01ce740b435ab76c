/* A runner took a checkpoint: what it says of it is stored, and it is told what became of it. */
#include <errno.h>

#include "app/live/live_int.h"
#include "base/encode.h"

enum { SMALL = 1024 };

static void say_result(struct mu_live_session *s, const struct mu_checkpoint_take *op)
{
    struct mu_buf b;
    mu_buf_init(&b, SMALL);
    struct mu_json_w w = mu_live_begin(&b, "checkpoint");
    mu_jw_ki64(&w, "number", op->number);
    mu_jw_kbool(&w, "ok", !op->refused);
    if (op->refused) {
        mu_jw_kcstr(&w, "error", op->refused);
    }
    mu_jw_obj_end(&w);
    (void)mu_live_send(s, &b);
    mu_buf_fini(&b);
}

static void taken(struct mu_checkpoint_take *op, int result)
{
    struct mu_live_session *s = op->ctx;
    if (result < 0) {
        mu_live_not_stored(s, result);
        mu_live_next(s);
        return;
    }
    if (op->refused) {
        mu_log(MU_LOG_WARN, "checkpoint.refused", MU_KS("session_id", mu_id_bytes(&s->id)),
               MU_KI("number", op->number), MU_KC("reason", op->refused));
    }
    mu_live_stored(s);
    if (!s->over) {
        mu_live_ack(s, s->stored_seq);
        if (!op->repeated) {
            say_result(s, op);
        }
    }
    mu_live_next(s);
}

/* The parts, in the arena of the task; where they are none, op->bad says why. -ENOMEM. */
static int take_parts(struct mu_checkpoint_take *op, struct mu_arena *a, yyjson_val *list)
{
    size_t i, n = yyjson_arr_size(list);
    yyjson_val *item;
    if (!yyjson_is_arr(list) || n > MU_CHECKPOINT_PARTS) {
        op->bad = "its parts are no list, or too many";
        return 0;
    }
    struct mu_checkpoint_part *parts = mu_arena_calloc(a, (n + 1) * sizeof *parts);
    if (!parts) {
        return -ENOMEM;
    }
    yyjson_arr_foreach(list, i, n, item)
    {
        mu_bytes sha256 = mu_json_get_bytes(item, "sha256");
        int64_t bytes = mu_json_get_i64(item, "bytes", -1);
        if (!mu_hex_is(sha256, 64) || bytes < 0) {
            op->bad = "a part has no sha256, or no bytes";
            return 0;
        }
        parts[i] = (struct mu_checkpoint_part){mu_arena_dup(a, mu_json_get_bytes(item, "name")),
                                               mu_arena_dup(a, sha256), bytes};
        if (!parts[i].name.ptr || !parts[i].sha256.ptr) {
            return -ENOMEM;
        }
    }
    op->parts = parts;
    op->n_parts = n;
    return 0;
}

/* What a restore needs of it. */
static int take_manifest(struct mu_checkpoint_take *op, struct mu_arena *a, yyjson_val *m)
{
    yyjson_val *roots = mu_json_get(m, "roots"), *parts = mu_json_get(m, "parts");
    if (!yyjson_is_arr(roots) || yyjson_arr_size(roots) > MU_CHECKPOINT_ROOTS) {
        op->bad = "its roots are no list, or too many";
        return 0;
    }
    struct mu_buf b;
    mu_buf_init(&b, MU_CHECKPOINT_MANIFEST);
    struct mu_json_w w = mu_json_w(&b);
    mu_jw_obj(&w);
    mu_jw_key(&w, "roots");
    mu_json_add(&b, roots);
    w.comma = true;
    mu_jw_key(&w, "parts");
    mu_json_add(&b, parts);
    mu_jw_obj_end(&w);
    int r = b.failed == MU_E_TOO_LARGE ? 0 : b.failed;
    if (b.failed) {
        op->bad = "what it says is too long";
    } else {
        op->manifest = mu_arena_dup(a, mu_buf_bytes(&b));
        r = op->manifest.ptr ? 0 : -ENOMEM;
    }
    mu_buf_fini(&b);
    return r;
}

static int take(struct mu_checkpoint_take *op, struct mu_arena *a, yyjson_val *m)
{
    struct mu_id turn;
    mu_bytes conversation = mu_json_get_bytes(m, "conversationId");
    int r = take_parts(op, a, mu_json_get(m, "parts"));
    if (r == 0 && !op->bad) {
        r = take_manifest(op, a, m);
    }
    if (r == 0 && mu_id_parse(mu_json_get_bytes(m, "turnId"), NULL, &turn) == 0) {
        op->turn_id = mu_arena_dup(a, mu_id_bytes(&turn));
        r = op->turn_id.ptr ? 0 : -ENOMEM;
    }
    if (r == 0 && conversation.len && conversation.len <= MU_CONVERSATION_MAX) {
        op->conversation = mu_arena_dup(a, conversation);
        r = op->conversation.ptr ? 0 : -ENOMEM;
    }
    return r;
}

bool mu_live_checkpoint(struct mu_live_session *s, yyjson_val *m, int64_t seq)
{
    struct mu_checkpoint_take *op = &s->op.checkpoint;
    *op = (struct mu_checkpoint_take){.unit = {.loop = s->l->opts.core},
                                      .id = s->id,
                                      .epoch = s->of.epoch,
                                      .runner_seq = seq,
                                      .number = mu_json_get_i64(m, "number", 0),
                                      .prev = mu_json_get_i64(m, "prev", 0),
                                      .done = taken,
                                      .ctx = s};
    int r = take(op, &s->arena, m);
    s->taken = 1;
    s->task = MU_LIVE_KEEPING;
    if (r == 0) {
        r = mu_checkpoint_take(s->l->opts.sessions, op);
    }
    if (r < 0) {
        s->task = MU_LIVE_IDLE;
        mu_live_not_stored(s, MU_E_UNAVAILABLE);
    }
    return true;
}
