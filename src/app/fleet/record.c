/* What happened to a worker, in a stream of its own (village-control-plane.md 6.8): the last
 * thousand events. */
#include <errno.h>
#include <stdio.h>

#include "app/fleet/fleet_int.h"
#include "base/encode.h"
#include "proto/json_write.h"

enum { EVENT_MAX = 4096 };

static const struct mu_stmt q_trim = {
    "worker_events_trim", "t",
    "DELETE FROM events WHERE stream_id = $1 AND seq <= (SELECT last_seq - 1000 FROM streams WHERE "
    "id = $1)",
    NULL};
static const struct mu_stmt q_first = {
    "worker_events_first", "t",
    "UPDATE streams SET first_seq = last_seq - 999 WHERE id = $1 AND last_seq - first_seq >= 1000",
    NULL};
static const struct mu_stmt q_drained = {
    "worker_drained", "ti",
    "UPDATE workers SET drained_ms = $2 WHERE id = $1 AND drain_ms IS NOT NULL AND drained_ms IS "
    "NULL AND removed_ms IS NULL",
    NULL};

struct record {
    struct mu_unit unit;
    struct mu_fleet *f;
    struct mu_id uid;
    char org_id[MU_ORG_LEN + 1], name[MU_WORKER_NAME_MAX + 1], stream[8 + MU_ID_LEN];
    int type;
    int64_t now_ms;
    char data[512];
};

void mu_worker_event_text(const struct mu_worker *w, enum mu_worker_status status, bool forced,
                          mu_bytes reason, char *dst, size_t size)
{
    struct mu_buf b;
    mu_buf_init(&b, EVENT_MAX);
    struct mu_json_w j = mu_json_w(&b);
    mu_jw_obj(&j);
    mu_jw_kstr(&j, "host", mu_utf8_cut(mu_str(mu_worker_host(w)), 100));
    mu_jw_kcstr(&j, "status", mu_worker_status_name(status));
    mu_jw_ki64(&j, "capacity", w->capacity);
    mu_jw_ki64(&j, "active", w->in_flight);
    if (w->version) {
        mu_jw_kstr(&j, "version", mu_utf8_cut(mu_str(w->version), 40));
    }
    if (w->drained_ms) {
        mu_jw_kbool(&j, "drained", true);
    }
    if (reason.len) {
        mu_jw_kstr(&j, "reason", mu_utf8_cut(reason, 100));
    }
    if (forced) {
        mu_jw_kbool(&j, "forced", true);
    }
    mu_jw_obj_end(&j);
    bool fits = !b.failed && b.len < size; /* else the texts were all to be escaped */
    snprintf(dst, size, "%.*s", fits ? (int)b.len : 2, fits ? b.ptr : "{}");
    mu_buf_fini(&b);
}

int mu_worker_event(struct mu_tx *tx, const char *stream, const char *org_id, int type,
                    int64_t at_ms, mu_bytes actor, mu_bytes data)
{
    mu_bytes id = mu_str(stream);
    int r = mu_tx_stream(tx, id, 1);
    if (r == MU_E_NOT_FOUND) {
        r = mu_tx_stream_new(tx, id, mu_str(org_id), 1);
    }
    if (r >= 0) {
        r = mu_tx_event(tx, type, at_ms, actor, data);
    }
    if (r >= 0) {
        r = MU_TX_SEND(tx, &q_trim, -1, MU_VT(id));
    }
    return r < 0 ? r : MU_TX_SEND(tx, &q_first, -1, MU_VT(id));
}

/* --- one by itself --- */

static int run_record(struct mu_unit *u, struct mu_tx *tx)
{
    struct record *x = MU_CONTAINER(u, struct record, unit);
    int r =
        x->type == MU_EV_RUNNER_DRAINED
            ? MU_TX_RUN(tx, &q_drained, NULL, NULL, MU_VT(mu_id_bytes(&x->uid)), MU_VI(x->now_ms))
            : 1;
    if (r <= 0) { /* it does not drain any more */
        return r;
    }
    r = mu_worker_event(tx, x->stream, x->org_id, x->type, x->now_ms, MU_B("system"),
                        mu_str(x->data));
    return MU_MIN(r, 0);
}

static void recorded(struct mu_unit *u, int result)
{
    struct record *x = MU_CONTAINER(u, struct record, unit);
    struct mu_worker *w = x->f->ended ? NULL : mu_map_get(&x->f->workers, mu_str(x->name));
    if (w) {
        w->changing--;
        if (result < 0 && x->type == MU_EV_RUNNER_DRAINED &&
            strcmp(w->uid.text, x->uid.text) == 0) {
            w->drained_ms = 0; /* the next look tries again */
        }
        mu_worker_forget(w);
    }
    if (result < 0 && result != MU_E_SHUTDOWN) {
        mu_log(MU_LOG_WARN, "worker.event_lost", MU_KC("worker_id", x->name),
               MU_KC("event", mu_event_type_name(x->type)),
               MU_KC("err_message", mu_err_text(result)));
    }
    mu_free(x);
}

void mu_worker_record(struct mu_worker *w, int type)
{
    struct mu_fleet *f = w->f;
    struct record *x = f->opts.writer ? mu_calloc(1, sizeof *x) : NULL;
    if (!x) {
        w->drained_ms = type == MU_EV_RUNNER_DRAINED ? 0 : w->drained_ms;
        return;
    }
    x->f = f;
    x->uid = w->uid;
    x->type = type;
    x->now_ms = mu_fleet_now(f);
    snprintf(x->stream, sizeof x->stream, "worker:%s", w->uid.text);
    snprintf(x->org_id, sizeof x->org_id, "%s", w->org_id);
    snprintf(x->name, sizeof x->name, "%s", w->name);
    mu_worker_event_text(w, mu_worker_status(w), false, MU_B_NONE, x->data, sizeof x->data);
    x->unit = (struct mu_unit){.run = run_record, .done = recorded, .loop = f->opts.core};
    if (mu_writer_submit(f->opts.writer, &x->unit) < 0) {
        w->drained_ms = type == MU_EV_RUNNER_DRAINED ? 0 : w->drained_ms;
        mu_free(x);
        return;
    }
    w->changing++;
}

/* --- reading --- */

static const struct mu_stmt q_range = {
    "worker_events_range", "t", "SELECT first_seq, last_seq FROM streams WHERE id = $1", NULL};
static const struct mu_stmt q_events = {
    "worker_events", "tii",
    "SELECT seq, type, at_ms, actor, data FROM events WHERE stream_id = $1 AND seq > $2 ORDER BY "
    "seq LIMIT $3",
    NULL};

static int take_range(void *arg, struct mu_row *row)
{
    struct mu_fleet_events *op = arg;
    op->first_seq = mu_row_i64(row, 0);
    op->last_seq = mu_row_i64(row, 1);
    return 0;
}

static int take_event(void *arg, struct mu_row *row)
{
    struct mu_fleet_events *op = arg;
    return op->each(op->arg, mu_row_i64(row, 0), (int)mu_row_i64(row, 1), mu_row_i64(row, 2),
                    mu_row_bytes(row, 3), mu_row_bytes(row, 4));
}

static int run_events(struct mu_read *read, struct mu_db *db)
{
    struct mu_fleet_events *op = MU_CONTAINER(read, struct mu_fleet_events, read);
    mu_bytes id = mu_str(op->stream);
    op->first_seq = 1;
    op->last_seq = 0;
    int r = MU_DB_RUN(db, &q_range, take_range, op, MU_VT(id));
    if (r >= 0) {
        r = MU_DB_RUN(db, &q_events, take_event, op, MU_VT(id), MU_VI(op->after), MU_VI(op->limit));
    }
    return MU_MIN(r, 0);
}

static void events_done(struct mu_read *read, int result)
{
    struct mu_fleet_events *op = MU_CONTAINER(read, struct mu_fleet_events, read);
    op->done(op, result);
}

int mu_fleet_events(struct mu_fleet *f, struct mu_fleet_events *op)
{
    snprintf(op->stream, sizeof op->stream, "worker:%s", op->uid.text);
    op->read.run = run_events;
    op->read.done = events_done;
    return mu_readers_submit(f->opts.readers, &op->read);
}
