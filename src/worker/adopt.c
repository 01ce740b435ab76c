/* After a restart: the journal tells what ran and what was not told yet. */
#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "worker/worker_int.h"

enum {
    MAX_START = 64 << 10,
    SEQ_JUMP = 1000, /* reports that a power cut took out of the journal had lower numbers */
    DEPTH = 64
};

static const struct mu_json_limits limits = {.max_bytes = MU_JOURNAL_MAX_RECORD,
                                             .max_depth = DEPTH};

static void copy(char *dst, size_t size, mu_bytes b)
{
    snprintf(dst, size, "%.*s", (int)MU_MIN(b.len, size - 1), b.ptr ? b.ptr : "");
}

/* The number of an end: in its start record, else in itself. */
static int end_seq(struct mu_journal *j, mu_bytes key, yyjson_val *start, int64_t *ret)
{
    if (start) {
        *ret = mu_json_get_i64(start, "seq", 1);
        return 0;
    }
    struct mu_buf text;
    struct mu_arena arena;
    struct mu_err err;
    yyjson_val *root;
    mu_buf_init(&text, MU_JOURNAL_MAX_RECORD);
    mu_arena_init(&arena, 2 * (size_t)MU_JOURNAL_MAX_RECORD);
    int r = mu_journal_read(j, MU_JOURNAL_END, key, &text);
    if (r == 0) {
        r = mu_json_read(&arena, mu_buf_bytes(&text), &limits, &root, &err);
    }
    if (r == 0) {
        *ret = mu_json_get_i64(mu_json_get(root, "data"), "seq", 1);
    }
    mu_arena_fini(&arena);
    mu_buf_fini(&text);
    return r;
}

static int load_end(struct mu_worker *w, struct mu_journal *j, mu_bytes key, yyjson_val *start)
{
    int64_t seq = 1;
    int r = end_seq(j, key, start, &seq);
    if (r == -ENOMEM) {
        return r;
    }
    char id[MU_WIRE_MAX_EXECUTION_ID + 1];
    copy(id, sizeof id, key);
    return mu_ends_add(w, id, seq) ? 0 : -ENOMEM;
}

static int load_task(struct mu_worker *w, mu_bytes key, yyjson_val *start)
{
    struct mu_attempt *t = mu_attempt_new(w);
    if (!t) {
        return -ENOMEM;
    }
    mu_bytes token = mu_json_get_bytes(start, "token");
    copy(t->execution_id, sizeof t->execution_id, key);
    copy(t->task_id, sizeof t->task_id, mu_json_get_bytes(start, "task_id"));
    copy(t->told, sizeof t->told, mu_json_get_bytes(start, "told"));
    t->backend = mu_backends_find(w, mu_json_get_bytes(start, "kind"));
    t->epoch = mu_json_get_i64(start, "epoch", 0);
    t->seq = mu_json_get_i64(start, "seq", 1) + SEQ_JUMP;
    t->told_seq = t->seq;
    t->claim_seq = mu_json_get_i64(start, "claim_seq", 1);
    t->since_ms = mu_json_get_i64(start, "since_ms", t->since_ms);
    t->dispatched = mu_json_get_bool(start, "dispatched", false);
    t->cancelled = mu_json_get_bool(start, "cancelled", false);
    t->lease_ms = mu_json_get_i64(start, "lease_ms", 0);
    t->held = mu_json_get_bool(start, "held", false);
    /* What the one before heard later is not known: counted from the assignment. */
    t->started_at -= MU_MAX(mu_env_wall_ms(w->env) - t->since_ms, INT64_C(0));
    t->adopted = true;
    copy(t->link_key, sizeof t->link_key, mu_json_get_bytes(start, "link_key"));
    mu_checkouts_adopt(t, mu_json_get(start, "trees"));
    if (token.len && !(t->token = mu_bytes_dup(token))) {
        return -ENOMEM;
    }
    return 0;
}

static int load_one(struct mu_worker *w, struct mu_journal *j, mu_bytes key, bool has_start,
                    bool has_end)
{
    struct mu_buf text;
    struct mu_arena arena;
    struct mu_err err;
    yyjson_val *start = NULL;
    mu_buf_init(&text, MAX_START);
    mu_arena_init(&arena, 16 * MAX_START);
    int r = has_start ? mu_journal_read(j, MU_JOURNAL_START, key, &text) : MU_E_NOT_FOUND;
    if (r == 0) {
        r = mu_json_read(&arena, mu_buf_bytes(&text), &limits, &start, &err);
    }
    if (r != -ENOMEM) {
        bool known = start && mu_wire_task_id_ok(mu_json_get_bytes(start, "task_id")) &&
                     mu_wire_execution_id_ok(key);
        r = has_end ? load_end(w, j, key, start) : known ? load_task(w, key, start) : 0;
    }
    mu_arena_fini(&arena);
    mu_buf_wipe(&text);
    return r;
}

int mu_adopt_load(struct mu_worker *w, struct mu_journal *j, struct mu_err *err)
{
    bool has_start, has_end;
    for (size_t at = 0;;) {
        mu_bytes key = mu_journal_next(j, &at, &has_start, &has_end);
        if (!key.len) {
            return 0;
        }
        int r = load_one(w, j, key, has_start, has_end);
        if (r < 0) {
            return mu_err_set(err, r, "journal: %s", mu_err_text(r));
        }
    }
}

static void adopt(struct mu_attempt *t)
{
    struct mu_backend *b = t->backend;
    int r = b ? b->ops->adopt(b->driver, t->execution_id, 0, &mu_attempt_events, t, &t->sandbox)
              : MU_E_UNAVAILABLE;
    if (r < 0) {
        mu_attempt_fail(t, "unknown",
                        "The worker was restarted and could not find the task again: %s",
                        b ? mu_err_text(r) : "its kind of sandbox is not set up any more");
        return;
    }
    mu_log(MU_LOG_INFO, "task.adopted", MU_KC("task_id", t->task_id),
           MU_KC("execution_id", t->execution_id), MU_KC("backend", b->ops->name));
    t->state = MU_ATTEMPT_STARTED;
    r = t->link_key[0] ? mu_relay_open(t) : 0;
    if (r < 0) {
        mu_log(MU_LOG_ERROR, "runner.no_socket", MU_KC("task_id", t->task_id),
               MU_KC("err_message", mu_err_text(r)));
    }
    if (t->cancelled) {
        mu_attempt_stop(t, true, "task_cancelled");
    }
}

void mu_adopt_run(struct mu_worker *w)
{
    MU_LIST_EACH(it, tmp, &w->tasks)
    {
        struct mu_attempt *t = MU_CONTAINER(it, struct mu_attempt, link);
        if (t->adopted && t->state == MU_ATTEMPT_PREPARING) {
            adopt(t);
        }
    }
    mu_relay_sweep(w);
    mu_lease_watch(w);
}
