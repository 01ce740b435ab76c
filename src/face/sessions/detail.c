/* SessionDetail: the row, its newest events and what it waits for, read one after the other. */
#include <errno.h>

#include "face/sessions/sessions_int.h"

enum { HEADERS_MAX = 4, PARTS_MAX = 8 << 20 };

static void finish(struct mu_sess_reading *rd, int result)
{
    for (size_t i = 0; rd->recent && i < rd->max_recent; i++) {
        mu_buf_fini(&rd->recent[i]);
    }
    mu_free(rd->recent);
    rd->recent = NULL;
    mu_free(rd->worker);
    rd->worker = NULL;
    mu_buf_fini(&rd->pending_text);
    rd->done(rd, result);
}

static void add_look(struct mu_json_w *w, const struct mu_sess_reading *rd)
{
    static const char *const reasons[] = {
        [MU_WAITS_NOT] = NULL,
        [MU_WAITS_WORKER] = "no_online_runner",
        [MU_WAITS_HARNESS] = "provider_unavailable",
        [MU_WAITS_FEATURE] = "feature_unavailable",
        [MU_WAITS_CAPACITY] = "at_capacity",
        [MU_WAITS_PINNED] = "pinned_runner_offline",
    };
    if (rd->look.worker.len && rd->look.uid.text[0]) {
        mu_sess_prefixed(w, "runnerId", "rnr_", mu_id_bytes(&rd->look.uid));
    } else if (rd->look.worker.len) {
        mu_jw_kstr(w, "runnerId", rd->look.worker);
    }
    if (rd->look.worker.len) {
        mu_jw_kstr(w, "runnerName", rd->look.worker);
    }
    if (rd->look.waits != MU_WAITS_NOT) {
        mu_jw_kcstr(w, "queueReason", reasons[rd->look.waits]);
    }
    if (rd->look.unreachable) {
        mu_jw_kbool(w, "runnerUnreachable", true);
    }
}

static void assemble(struct mu_sess_reading *rd)
{
    struct mu_json_w *w = &rd->w;
    add_look(w, rd);
    mu_jw_key(w, "recentEvents");
    mu_jw_arr(w);
    for (size_t i = rd->n_recent; i > 0; i--) {
        mu_jw_raw(w, mu_buf_bytes(&rd->recent[i - 1]));
        w->buf->failed = w->buf->failed ? w->buf->failed : rd->recent[i - 1].failed;
    }
    mu_jw_arr_end(w);
    mu_jw_key(w, "pendingApprovals");
    mu_jw_arr(w);
    if (rd->pending_text.len) {
        mu_jw_raw(w, mu_buf_bytes(&rd->pending_text));
    }
    w->buf->failed = w->buf->failed ? w->buf->failed : rd->pending_text.failed;
    mu_jw_arr_end(w);
    mu_jw_obj_end(w);
    finish(rd, 0);
}

static void looked(struct mu_fleet_look *op)
{
    assemble(op->ctx);
}

/* Why it waits, and whether its worker is there, only the fleet knows. */
static void look(struct mu_sess_reading *rd)
{
    bool waits = rd->state <= MU_ST_CLAIMED;
    if (rd->route != MU_ROUTE_WORKER || rd->state_word || !(waits || rd->look.worker.len)) {
        assemble(rd);
        return;
    }
    rd->look.loop = rd->loop;
    rd->look.id = rd->id;
    rd->look.done = looked;
    rd->look.ctx = rd;
    mu_fleet_look(rd->fleet, &rd->look);
}

static int take_gate(void *arg, const struct mu_gate_row *row)
{
    struct mu_sess_reading *rd = arg;
    mu_sess_gate(&rd->pending, row);
    if (rd->gate) {
        rd->gate(rd, row);
    }
    return rd->pending_text.failed;
}

static void gates_read(struct mu_gate_list *op, int result)
{
    struct mu_sess_reading *rd = op->ctx;
    if (result < 0) {
        finish(rd, result);
    } else {
        look(rd);
    }
}

static void read_gates(struct mu_sess_reading *rd)
{
    if (rd->state < MU_ST_QUEUED_WORKER || rd->state >= MU_ST_STOPPING) {
        look(rd);
        return;
    }
    rd->gates = (struct mu_gate_list){.read = {.loop = rd->loop},
                                      .admin = rd->admin,
                                      .org_id = rd->org_id,
                                      .session = rd->id,
                                      .status = MU_GATE_PENDING,
                                      .limit = MU_GATES_PENDING_MAX,
                                      .each = take_gate,
                                      .arg = rd,
                                      .done = gates_read,
                                      .ctx = rd};
    int r = mu_gate_list(rd->sessions, &rd->gates);
    if (r < 0) {
        finish(rd, r);
    }
}

static int take_event(void *arg, const struct mu_session_event *e)
{
    struct mu_sess_reading *rd = arg;
    if (rd->n_recent == rd->max_recent) {
        return 0;
    }
    struct mu_buf *b = &rd->recent[rd->n_recent++];
    struct mu_json_w w = mu_json_w(b);
    mu_sess_event_summary(&w, e);
    return b->failed;
}

static void events_read(struct mu_session_events *op, int result)
{
    struct mu_sess_reading *rd = op->ctx;
    if (result < 0) {
        finish(rd, result);
    } else {
        read_gates(rd);
    }
}

static int take_row(void *arg, const struct mu_session_view *v)
{
    struct mu_sess_reading *rd = arg;
    int64_t now_ms = mu_env_wall_ms(rd->env);
    bool taken = v->outcome != MU_OUT_LIVE || v->state >= MU_ST_CLAIMED;
    if (taken && v->worker_id.len) {
        mu_free(rd->worker);
        rd->worker = mu_bytes_dup(v->worker_id);
        rd->look.worker = mu_str(rd->worker);
        if (!rd->worker) {
            return -ENOMEM;
        }
    }
    rd->state = v->state;
    rd->route = v->route;
    rd->last_seq = v->last_event_seq;
    mu_jw_obj(&rd->w);
    mu_sess_summary(&rd->w, v, now_ms, rd->state_word);
    mu_sess_detail(&rd->w, v);
    if (rd->row) {
        rd->row(rd, v);
    }
    return rd->w.buf->failed;
}

static void row_read(struct mu_session_get *op, int result)
{
    struct mu_sess_reading *rd = op->ctx;
    if (result < 0) {
        finish(rd, result);
        return;
    }
    rd->events =
        (struct mu_session_events){.read = {.loop = rd->loop},
                                   .id = op->id,
                                   .after = MU_MAX(rd->last_seq - (int64_t)rd->max_recent, 0),
                                   .limit = rd->max_recent,
                                   .each = take_event,
                                   .arg = rd,
                                   .done = events_read,
                                   .ctx = rd};
    int r = rd->max_recent ? mu_session_events(rd->sessions, &rd->events) : 0;
    if (r < 0) {
        finish(rd, r);
    } else if (rd->max_recent == 0) {
        read_gates(rd);
    }
}

int mu_sess_detail_read(struct mu_sess_reading *rd)
{
    rd->recent = mu_calloc(rd->max_recent + 1, sizeof *rd->recent);
    if (!rd->recent) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < rd->max_recent; i++) {
        mu_buf_init(&rd->recent[i], 64 << 10);
    }
    mu_buf_init(&rd->pending_text, PARTS_MAX);
    rd->pending = mu_json_w(&rd->pending_text);
    rd->get = (struct mu_session_get){.read = {.loop = rd->loop},
                                      .admin = rd->admin,
                                      .org_id = rd->org_id,
                                      .id = rd->id,
                                      .each = take_row,
                                      .arg = rd,
                                      .done = row_read,
                                      .ctx = rd};
    int r = mu_session_get(rd->sessions, &rd->get);
    if (r < 0) {
        mu_free(rd->recent);
        rd->recent = NULL;
    }
    return r;
}

/* --- the answer --- */

struct answering {
    struct mu_sess_reading rd;
    struct mu_call *c;
    int status;
    struct mu_http_pair headers[HEADERS_MAX];
    size_t n_headers;
};

static void answer(struct mu_sess_reading *rd, int result)
{
    struct answering *x = rd->ctx;
    if (result < 0) {
        mu_sess_fail(x->c, result);
    } else {
        mu_call_data_send(x->c, x->status, x->headers, x->n_headers);
    }
}

void mu_sess_answer_detail(struct mu_call *c, const struct mu_id *id, int status, const char *state,
                           const struct mu_http_pair *headers, size_t n_headers)
{
    const struct mu_principal *p = mu_call_principal(c);
    struct mu_oz *oz = mu_sess_oz(c);
    struct answering *x = mu_call_new(c, sizeof *x);
    if (!x) {
        return;
    }
    MU_CHECK(n_headers <= HEADERS_MAX);
    for (size_t i = 0; i < n_headers; i++) {
        x->headers[i] = headers[i];
    }
    x->c = c;
    x->status = status;
    x->n_headers = n_headers;
    x->rd = (struct mu_sess_reading){.env = oz->env,
                                     .sessions = oz->sessions,
                                     .fleet = oz->fleet,
                                     .loop = mu_call_loop(c),
                                     .admin = p->admin,
                                     .org_id = mu_str(p->org_id),
                                     .id = *id,
                                     .max_recent = (unsigned)mu_sess_face(c)->recent_events,
                                     .state_word = state,
                                     .w = mu_call_data(c),
                                     .done = answer,
                                     .ctx = x};
    int r = mu_sess_detail_read(&x->rd);
    if (r < 0) {
        mu_sess_fail(c, r);
    }
}
