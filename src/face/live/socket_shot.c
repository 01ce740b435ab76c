/* A session as it is when somebody begins to follow it, and how it ended. */
#include <errno.h>
#include <stdio.h>

#include "face/live/socket_int.h"
#include "face/sessions/show.h"

enum { SHOT_MAX = 16 << 20 };

struct mu_shot {
    struct mu_sub *sub;
    struct mu_sess_reading rd;
    struct mu_session_get get;
    char org[MU_ORG_LEN + 1];      /* of the caller: its principal may change meanwhile */
    struct mu_buf session, frames; /* frames: messages behind the snapshot */
    char owner[MU_ORG_LEN + 1];
    const char *state;
    int64_t last_seq;
    bool ended;
};

static struct mu_shot *shot_new(struct mu_sub *sub)
{
    struct mu_shot *x = mu_calloc(1, sizeof *x);
    if (x) {
        x->sub = sub;
        memcpy(x->org, sub->s->who.org_id, sizeof x->org);
        mu_buf_init(&x->session, SHOT_MAX);
        mu_buf_init(&x->frames, SHOT_MAX);
    }
    return x;
}

static void shot_free(struct mu_shot *x)
{
    mu_buf_fini(&x->session);
    mu_buf_fini(&x->frames);
    mu_free(x);
}

/* --- the beginning --- */

static void take_row(struct mu_sess_reading *rd, const struct mu_session_view *v)
{
    struct mu_shot *x = rd->ctx;
    snprintf(x->owner, sizeof x->owner, "%.*s", MU_ARGS(v->org_id));
    x->state = mu_sess_state(v->state);
    x->last_seq = v->last_event_seq;
    x->ended = v->outcome != MU_OUT_LIVE;
}

static void take_gate(struct mu_sess_reading *rd, const struct mu_gate_row *row)
{
    struct mu_shot *x = rd->ctx;
    mu_frames_gate(&x->frames, &rd->id, row);
}

static void send_shot(struct mu_sub *sub, struct mu_shot *x)
{
    struct mu_sock *s = sub->s;
    struct mu_sock_out o;
    memcpy(sub->org, x->owner, sizeof sub->org);
    struct mu_json_w *w = mu_sock_event(&o, "subscribed");
    mu_sess_prefixed(w, "sessionId", "ses_", mu_id_bytes(&sub->id));
    mu_jw_ki64(w, "lastSeq", x->last_seq);
    mu_sock_event_end(s, &o, mu_str(sub->reply_to));
    w = mu_sock_begin(&o, "session");
    mu_sess_prefixed(w, "sessionId", "ses_", mu_id_bytes(&sub->id));
    mu_jw_kcstr(w, "orgId", sub->org);
    mu_jw_kcstr(w, "action", "state_change");
    mu_jw_key(w, "data");
    mu_jw_obj(w);
    mu_jw_kcstr(w, "previousState", x->state);
    mu_jw_kcstr(w, "newState", x->state);
    mu_jw_kraw(w, "session", mu_buf_bytes(&x->session));
    mu_jw_obj_end(w);
    mu_sock_end(s, &o, MU_B_NONE);
    (void)mu_frames_send(sub, mu_buf_bytes(&x->frames), true);
}

static void shot_read(struct mu_sess_reading *rd, int result)
{
    struct mu_shot *x = rd->ctx;
    struct mu_sub *sub = x->sub;
    result = result < 0 ? result : x->session.failed;
    result = result < 0 ? result : x->frames.failed;
    if (!mu_sub_returned(sub)) {
        shot_free(x);
        return;
    }
    if (result < 0) {
        mu_sock_fail(sub->s, mu_str(sub->reply_to), result);
        shot_free(x);
        mu_sub_close(sub);
        return;
    }
    send_shot(sub, x);
    int64_t last = x->last_seq;
    bool ended = x->ended;
    shot_free(x);
    if (mu_sub_begin(sub, last, ended)) {
        mu_sub_did(sub);
    }
}

int mu_shot_read(struct mu_sub *sub)
{
    struct mu_sock *s = sub->s;
    const struct mu_sock_face_opts *o = &s->face->opts;
    struct mu_shot *x = shot_new(sub);
    if (!x) {
        return -ENOMEM;
    }
    x->rd = (struct mu_sess_reading){.env = o->env,
                                     .sessions = o->sessions,
                                     .fleet = o->fleet,
                                     .loop = s->loop,
                                     .admin = s->who.admin,
                                     .org_id = mu_str(x->org),
                                     .id = sub->id,
                                     .max_recent = o->recent_events,
                                     .w = mu_json_w(&x->session),
                                     .row = take_row,
                                     .gate = take_gate,
                                     .done = shot_read,
                                     .ctx = x};
    sub->under_way++;
    int r = mu_sess_detail_read(&x->rd);
    if (r < 0) {
        sub->under_way--;
        shot_free(x);
    }
    return r;
}

/* --- the end --- */

static int take_end(void *arg, const struct mu_session_view *v)
{
    struct mu_shot *x = arg;
    mu_frames_completed(&x->frames, &x->get.id, v);
    return x->frames.failed;
}

static void end_read(struct mu_session_get *op, int result)
{
    struct mu_shot *x = op->ctx;
    struct mu_sub *sub = x->sub;
    if (mu_sub_returned(sub)) {
        mu_terms_over(sub);
        if (result == 0) {
            (void)mu_frames_send(sub, mu_buf_bytes(&x->frames), true);
        } else {
            mu_sock_fail(sub->s, MU_B_NONE, result);
        }
        mu_sub_did(sub);
    }
    shot_free(x);
}

int mu_shot_end(struct mu_sub *sub)
{
    struct mu_shot *x = shot_new(sub);
    if (!x) {
        return -ENOMEM;
    }
    x->get = (struct mu_session_get){.read = {.loop = sub->s->loop},
                                     .admin = sub->s->who.admin,
                                     .org_id = mu_str(x->org),
                                     .id = sub->id,
                                     .each = take_end,
                                     .arg = x,
                                     .done = end_read,
                                     .ctx = x};
    sub->under_way++;
    int r = mu_session_get(sub->s->face->opts.sessions, &x->get);
    if (r < 0) {
        sub->under_way--;
        shot_free(x);
    }
    return r;
}
