/* Who alone types into a session's terminals (village-control-plane.md 8.5): one connection, until
 * it lets go, ends or rests. It ends with the runner's connection too. */
#include <stdio.h>

#include "app/live/live_int.h"

enum { REST_MS = 60000 };

static void tell(const struct mu_live_session *s)
{
    struct mu_feed *feed = s->l->opts.feed;
    struct mu_event *e =
        mu_feed_watched(feed, mu_id_bytes(&s->id))
            ? mu_event_new(MU_EV_CONTROL, 0, mu_live_now(s->l), -1, 0, mu_str(s->control.uid))
            : NULL;
    if (e) {
        mu_feed_publish(feed, mu_id_bytes(&s->id), e);
        mu_event_unref(e);
    }
}

static bool holds(const struct mu_live_session *s, const struct mu_live_call *call)
{
    return s->control.conn.text[0] && strcmp(s->control.conn.text, call->conn.text) == 0;
}

void mu_live_control_end(struct mu_live_session *s)
{
    mu_timer_clear(&s->control.timer);
    if (s->control.conn.text[0]) {
        s->control.conn.text[0] = s->control.uid[0] = '\0';
        tell(s);
    }
}

static void rests(struct mu_timer *t)
{
    struct mu_live_control *c = MU_CONTAINER(t, struct mu_live_control, timer);
    mu_live_control_end(MU_CONTAINER(c, struct mu_live_session, control));
}

void mu_live_control_init(struct mu_live_session *s)
{
    mu_timer_init(&s->control.timer, s->l->opts.core, rests);
}

/* Says who has it. */
static void name(const struct mu_live_session *s, struct mu_live_call *call)
{
    snprintf(call->held_by, sizeof call->held_by, "%s", s->control.uid);
}

int mu_live_control(struct mu_live_session *s, struct mu_live_call *call)
{
    bool mine = holds(s, call), taken = s->control.conn.text[0];
    if (call->want == MU_LIVE_TAKE) {
        int r = taken && !mine ? MU_E_FORBIDDEN : mu_timer_set(&s->control.timer, REST_MS);
        if (r == 0 && !mine) {
            s->control.conn = call->conn;
            snprintf(s->control.uid, sizeof s->control.uid, "%.*s", MU_ARGS(call->uid));
            tell(s);
        }
        name(s, call);
        return r;
    }
    if (call->want == MU_LIVE_LET_GO && mine) {
        mu_live_control_end(s);
    }
    name(s, call);
    return 0;
}

bool mu_live_control_allows(struct mu_live_session *s, struct mu_live_call *call)
{
    if (!s->control.conn.text[0] || (call->want != MU_LIVE_INPUT && call->want != MU_LIVE_RESIZE)) {
        return true;
    }
    if (!holds(s, call)) {
        name(s, call);
        return false;
    }
    /* without memory for the timer it goes on to the end that was set before */
    if (call->want == MU_LIVE_INPUT) {
        (void)!mu_timer_set(&s->control.timer, REST_MS);
    }
    return true;
}
