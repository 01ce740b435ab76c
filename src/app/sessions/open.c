/* What hangs on a live session when it ends or loses its runner, and the events of its moves. */
#include "app/sessions/checkpoints_int.h"
#include "app/sessions/sessions_int.h"
#include "app/sessions/statements_int.h"
#include "base/encode.h"

enum { NOTE_BYTES = 2000 };

static const struct mu_stmt q_open = {
    "open_parts", "t",
    "SELECT s.state, (SELECT count(*) FROM gates g WHERE g.session_id = s.id AND g.status = 0), "
    "(SELECT count(*) FROM gates g WHERE g.session_id = s.id AND g.status <> 0 AND g.delivered_ms "
    "IS NULL), (SELECT count(*) FROM turns t WHERE t.session_id = s.id AND t.ended_ms IS NULL), "
    "s.epoch FROM sessions s WHERE s.id = $1",
    NULL};

static int take_open(void *arg, struct mu_row *row)
{
    struct mu_open *o = arg;
    *o = (struct mu_open){mu_row_i64(row, 0), mu_row_i64(row, 1), mu_row_i64(row, 2),
                          mu_row_i64(row, 3), mu_row_i64(row, 4)};
    return 0;
}

int mu_session_open_read(struct mu_tx *tx, mu_bytes session_id, struct mu_open *ret)
{
    int r = MU_TX_RUN(tx, &q_open, take_open, ret, MU_VT(session_id));
    return r < 0 ? r : r == 0 ? MU_E_NOT_FOUND : 0;
}

int mu_session_close_open(struct mu_tx *tx, mu_bytes session_id, const struct mu_open *open,
                          int64_t now_ms, bool again)
{
    int r = 0;
    if (open->gates || open->undelivered) {
        r = again ? mu_gates_close_asked(tx, session_id, open->epoch, now_ms)
                  : mu_gates_close(tx, session_id, now_ms);
    }
    if (r >= 0 && open->turns) {
        r = again ? mu_turns_put_back(tx, session_id, now_ms)
                  : mu_turns_cancel(tx, session_id, now_ms);
    }
    return r < 0 || again ? r : mu_checkpoints_ended(tx, session_id);
}

/* --- events --- */

void mu_state_change_add(struct mu_json_w *w, const struct mu_state_change *c)
{
    mu_jw_ki64(w, "from", c->from);
    mu_jw_ki64(w, "to", c->to);
    if (c->outcome >= 0) {
        mu_jw_ki64(w, "outcome", c->outcome);
    }
    if (c->reason) {
        mu_jw_kcstr(w, "reason", c->reason);
    }
    if (c->by.len) {
        mu_jw_kstr(w, "by", c->by);
    }
    if (c->note.len) {
        mu_jw_kstr(w, "note", mu_utf8_cut(c->note, NOTE_BYTES));
    }
}

static int change_event(struct mu_tx *tx, int type, int64_t now_ms, const struct mu_state_change *c)
{
    struct mu_buf b;
    mu_buf_init(&b, MU_FACT_MAX);
    struct mu_json_w w = mu_json_w(&b);
    mu_jw_obj(&w);
    mu_state_change_add(&w, c);
    mu_jw_obj_end(&w);
    int r = b.failed
                ? b.failed
                : mu_tx_event(tx, type, now_ms, c->by.ptr ? c->by : MU_B(""), mu_buf_bytes(&b));
    mu_buf_fini(&b);
    return r;
}

int mu_state_event(struct mu_tx *tx, int64_t now_ms, const struct mu_state_change *c)
{
    return change_event(tx, MU_EV_STATE, now_ms, c);
}

int mu_ended_event(struct mu_tx *tx, int64_t now_ms, const struct mu_state_change *c)
{
    return change_event(tx, MU_EV_ENDED, now_ms, c);
}

const struct mu_planned mu_open_planned[] = {{&q_open, "gates_pending"}, {NULL, NULL}};
