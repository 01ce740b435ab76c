/* What a connection follows (village-control-plane.md 8.5): a session's snapshot, its log from a
 * position on, its terminals; and whose turn it is to read. */
#include <errno.h>
#include <stdio.h>

#include "face/live/socket_int.h"
#include "face/sessions/show.h"

enum { HELD_MAX = 64 << 20 };

struct mu_sub *mu_sock_find(const struct mu_sock *s, const struct mu_id *id)
{
    MU_LIST_EACH(it, tmp, &s->subs)
    {
        struct mu_sub *sub = MU_CONTAINER(it, struct mu_sub, link);
        if (strcmp(sub->id.text, id->text) == 0) {
            return sub;
        }
    }
    return NULL;
}

/* --- its end --- */

static void free_when_over(struct mu_sub *sub)
{
    struct mu_sock *s = sub->s;
    if (!sub->closing || sub->under_way || sub->opened) {
        return;
    }
    for (size_t i = 0; i < MU_SOCK_TERMINALS; i++) {
        mu_term_free(sub->terms[i]);
    }
    mu_buf_fini(&sub->held);
    mu_free(sub->reply_to);
    bool had_turn = s->turn == sub;
    mu_free(sub);
    if (had_turn) {
        s->turn = NULL;
        mu_sock_run(s);
    }
    mu_sock_unref(s);
}

void mu_sub_close(struct mu_sub *sub)
{
    if (sub->closing) {
        return;
    }
    sub->closing = true;
    sub->s->n_subs--;
    mu_list_remove(&sub->link);
    mu_list_remove(&sub->queue);
    mu_terms_drop(sub);
    if (sub->controls) {
        mu_sock_let_go(sub->s, &sub->id);
    }
    sub->under_way++;
    if (sub->opened) {
        mu_cursor_close(&sub->cursor);
    }
    sub->under_way--;
    free_when_over(sub);
}

bool mu_sub_returned(struct mu_sub *sub)
{
    sub->under_way--;
    bool there = !sub->closing;
    free_when_over(sub);
    return there;
}

/* --- turns --- */

static void step(struct mu_sub *sub)
{
    int r = 0;
    if (sub->needs & MU_NEED_SHOT) {
        sub->needs &= ~(unsigned)MU_NEED_SHOT;
        r = mu_shot_read(sub);
    } else if (sub->needs & MU_NEED_EVENTS) {
        sub->needs &= ~(unsigned)MU_NEED_EVENTS;
        if (mu_cursor_waits(&sub->cursor)) {
            sub->reading = true;
            mu_cursor_read(&sub->cursor);
            return;
        }
        mu_sub_did(sub);
    } else if (sub->needs & MU_NEED_TERMS) {
        sub->needs &= ~(unsigned)MU_NEED_TERMS;
        if (!mu_terms_read(sub)) {
            if (sub->ends && mu_terms_shown(sub)) {
                sub->ends = false;
                sub->needs |= MU_NEED_END;
            }
            mu_sub_did(sub);
        }
    } else {
        sub->needs = 0;
        r = mu_shot_end(sub);
    }
    if (r < 0) {
        mu_sock_fail(sub->s, mu_str(sub->reply_to), r);
        mu_sub_close(sub);
    }
}

void mu_sock_run(struct mu_sock *s)
{
    if (s->busy) {
        return;
    }
    s->busy = true;
    mu_sock_ref(s);
    while (!s->turn && !mu_sock_full(s) && !mu_list_empty(&s->queue)) {
        s->turn = MU_CONTAINER(mu_list_pop(&s->queue), struct mu_sub, queue);
        step(s->turn);
    }
    s->busy = false;
    mu_sock_unref(s);
}

static void line_up(struct mu_sub *sub)
{
    struct mu_sock *s = sub->s;
    if (!sub->closing && sub->needs && s->turn != sub && mu_list_empty(&sub->queue)) {
        mu_list_push(&s->queue, &sub->queue);
    }
}

void mu_sub_want(struct mu_sub *sub, unsigned need)
{
    sub->needs |= need;
    line_up(sub);
    mu_sock_run(sub->s);
}

void mu_sub_did(struct mu_sub *sub)
{
    struct mu_sock *s = sub->s;
    if (s->turn == sub) {
        s->turn = NULL;
    }
    sub->reading = false;
    line_up(sub);
    mu_sock_run(s);
}

/* What a page left over goes first. */
static void send_held(struct mu_sock *s)
{
    MU_LIST_EACH(it, tmp, &s->subs)
    {
        struct mu_sub *sub = MU_CONTAINER(it, struct mu_sub, link);
        if (sub->held.len) {
            mu_buf_consume(&sub->held, mu_frames_send(sub, mu_buf_bytes(&sub->held), false));
        }
        if (!sub->held.len && sub->held.ptr) {
            mu_buf_fini(&sub->held);
            mu_buf_init(&sub->held, HELD_MAX);
        }
    }
}

void mu_sock_writable(struct mu_sock *s)
{
    mu_sock_ref(s);
    send_held(s);
    mu_orgs_writable(s);
    mu_sock_flush(s, true);
    mu_sock_run(s);
    mu_sock_unref(s);
}

/* --- what the cursor finds --- */

static struct mu_sub *sub_of(struct mu_cursor *cur)
{
    return MU_CONTAINER(cur, struct mu_sub, cursor);
}

static void encode(const struct mu_cursor *cur, struct mu_buf *dst,
                   const struct mu_session_event *e)
{
    const struct mu_sub *sub = MU_CONTAINER(cur, const struct mu_sub, cursor);
    mu_frames_event(dst, &cur->id, sub->org, e);
}

static void on_page(struct mu_cursor *cur, mu_bytes bytes)
{
    struct mu_sub *sub = sub_of(cur);
    struct mu_sock *s = sub->s;
    size_t n = mu_frames_send(sub, bytes, false);
    mu_buf_add(&sub->held, mu_bytes_from(bytes, n));
    if (sub->held.failed) {
        mu_sock_close(s, MU_CLOSE_INTERNAL, "Out of memory, try again");
    }
    if (sub->reading && mu_sock_full(s)) { /* the cursor waits now; so does the turn */
        sub->needs |= MU_NEED_EVENTS;
        mu_sub_did(sub);
    }
}

static bool on_event(struct mu_cursor *cur, struct mu_event *e)
{
    struct mu_sub *sub = sub_of(cur);
    struct mu_msg *m = mu_frames_of(sub, e);
    if (m) {
        (void)mu_frames_send(sub, mu_bytes_of(m->data, m->len), true);
    } else {
        mu_sock_close(sub->s, MU_CLOSE_INTERNAL, "Out of memory, try again");
    }
    return m;
}

static void on_delta(struct mu_cursor *cur, struct mu_event *e)
{
    struct mu_sub *sub = sub_of(cur);
    if (e->type == MU_EV_TERMINAL) {
        mu_term_delta(sub, e);
        return;
    }
    if (e->type == MU_EV_CONTROL) {
        mu_sock_control(sub->s, &sub->id, e->data, MU_B_NONE);
        return;
    }
    if (sub->held.len || mu_sock_full(sub->s)) {
        return; /* whole messages follow in the log */
    }
    struct mu_msg *m = mu_frames_of(sub, e);
    if (m) {
        (void)mu_frames_send(sub, mu_bytes_of(m->data, m->len), true);
    }
}

static void on_reset(struct mu_cursor *cur, int64_t first, int64_t last)
{
    struct mu_sub *sub = sub_of(cur);
    char details[160];
    int n = snprintf(details, sizeof details,
                     "{\"sessionId\":\"ses_%s\",\"oldestSeq\":%lld,\"latestSeq\":%lld}",
                     cur->id.text, (long long)first, (long long)last);
    mu_sock_error_details(sub->s, mu_str(sub->reply_to), "REPLAY_UNAVAILABLE",
                          mu_bytes_of(details, (size_t)n),
                          "The log does not have that position; it goes on from the oldest");
}

static void read_on(struct mu_sub *sub)
{
    if (sub->reading) {
        mu_sub_did(sub);
    }
}

static void on_present(struct mu_cursor *cur)
{
    read_on(sub_of(cur));
}

static void on_over(struct mu_cursor *cur)
{
    struct mu_sub *sub = sub_of(cur);
    bool reading = sub->reading;
    sub->ends = true;
    mu_terms_over(sub);
    mu_sub_want(sub, MU_NEED_TERMS);
    if (reading) {
        mu_sub_did(sub);
    }
}

static void on_failed(struct mu_cursor *cur, int code)
{
    struct mu_sub *sub = sub_of(cur);
    struct mu_sock *s = sub->s;
    struct mu_sock_out o;
    mu_sock_fail(s, MU_B_NONE, code);
    mu_sess_prefixed(mu_sock_event(&o, "unsubscribed"), "sessionId", "ses_", mu_id_bytes(&sub->id));
    mu_sock_event_end(s, &o, MU_B_NONE);
    mu_sub_close(sub);
}

static bool is_full(const struct mu_cursor *cur)
{
    const struct mu_sub *sub = MU_CONTAINER(cur, const struct mu_sub, cursor);
    return sub->held.len > 0 || mu_sock_full(sub->s);
}

static void on_behind(struct mu_cursor *cur)
{
    mu_sub_want(sub_of(cur), MU_NEED_EVENTS);
}

static void on_cursor_closed(struct mu_cursor *cur)
{
    struct mu_sub *sub = sub_of(cur);
    sub->opened = false;
    free_when_over(sub);
}

static const struct mu_cursor_ops cursor_ops = {
    .encode = encode,
    .page = on_page,
    .event = on_event,
    .delta = on_delta,
    .reset = on_reset,
    .present = on_present,
    .over = on_over,
    .failed = on_failed,
    .full = is_full,
    .behind = on_behind,
    .closed = on_cursor_closed,
};

bool mu_sub_begin(struct mu_sub *sub, int64_t last_seq, bool ended)
{
    struct mu_sock *s = sub->s;
    sub->since = sub->since < 0 ? last_seq : sub->since;
    sub->cursor = (struct mu_cursor){.sessions = s->face->opts.sessions,
                                     .ops = &cursor_ops,
                                     .id = sub->id,
                                     .seq = sub->since,
                                     .ended = ended};
    int r = mu_cursor_open(&sub->cursor, s->loop);
    if (r < 0) {
        mu_sock_fail(s, mu_str(sub->reply_to), r);
        mu_sub_close(sub);
        return false;
    }
    sub->opened = true;
    if (!ended) {
        mu_sock_ask_control(sub);
    }
    sub->needs |= MU_NEED_EVENTS | MU_NEED_TERMS;
    return true;
}

/* --- the messages --- */

/* Which terminal: -1 = none; `ret_named`: by its number. */
static bool take_terminal(struct mu_sock_msg *m, int64_t *ret, bool *ret_named)
{
    yyjson_val *v = mu_json_get(m->root, "terminal");
    *ret_named = v && !yyjson_is_bool(v);
    if (*ret_named) {
        return mu_sock_number(m, "terminal", 0, MU_SOCK_TERMINALS - 1, 0, ret);
    }
    *ret = v && !yyjson_get_bool(v) ? -1 : 0;
    return true;
}

static struct mu_sub *sub_new(struct mu_sock_msg *m, const struct mu_id *id)
{
    struct mu_sub *sub = mu_calloc(1, sizeof *sub);
    if (sub && m->id.ptr) {
        sub->reply_to = mu_bytes_dup(m->id);
    }
    if (!sub || (m->id.ptr && !sub->reply_to)) {
        mu_free(sub);
        return NULL;
    }
    sub->s = m->s;
    sub->id = *id;
    mu_buf_init(&sub->held, HELD_MAX);
    mu_list_init(&sub->queue);
    mu_list_push(&m->s->subs, &sub->link);
    m->s->n_subs++;
    mu_sock_ref(m->s);
    return sub;
}

/* A terminal more of a session that it follows already. */
static void open_further(struct mu_sock_msg *m, struct mu_sub *sub, int64_t number, int64_t from)
{
    struct mu_sock_out o;
    if (mu_term_open(sub, (unsigned)number, from) < 0) {
        mu_sock_fail(m->s, m->id, -ENOMEM);
        return;
    }
    struct mu_json_w *w = mu_sock_event(&o, "subscribed");
    mu_sess_prefixed(w, "sessionId", "ses_", mu_id_bytes(&sub->id));
    mu_jw_ki64(w, "terminal", number);
    mu_sock_event_end(m->s, &o, m->id);
    mu_sub_want(sub, MU_NEED_TERMS);
}

bool mu_sock_room(struct mu_sock_msg *m)
{
    int64_t max = m->s->face->opts.limits.max_subscriptions;
    if (m->s->n_subs >= (unsigned)max) {
        mu_sock_error(m->s, m->id, "SUBSCRIPTION_LIMIT",
                      "At most %lld subscriptions of a connection", (long long)max);
        return false;
    }
    return true;
}

void mu_sock_subscribe(struct mu_sock_msg *m, bool alias)
{
    struct mu_sock *s = m->s;
    struct mu_id id;
    int64_t since, number, from;
    bool named;
    if (!mu_sock_session(m, &id) || !take_terminal(m, &number, &named) ||
        !mu_sock_number(m, "sinceSeq", 0, INT64_MAX - 1, -1, &since) ||
        !mu_sock_number(m, "terminalOffset", 0, INT64_MAX / 2, -1, &from)) {
        return;
    }
    struct mu_sub *old = mu_sock_find(s, &id);
    if (old && named) {
        open_further(m, old, number, from);
        return;
    }
    if (!old && !mu_sock_room(m)) {
        return;
    }
    if (old) { /* from the beginning */
        mu_sub_close(old);
    }
    struct mu_sub *sub = sub_new(m, &id);
    if (!sub) {
        mu_sock_fail(s, m->id, -ENOMEM);
        return;
    }
    sub->alias = alias;
    sub->plain = number < 0;
    sub->usage = mu_json_get_bool(m->root, "usage", false);
    sub->binary = mu_json_get_bool(m->root, "binary", false);
    sub->since = since;
    if (number >= 0 && mu_term_open(sub, (unsigned)number, from) < 0) {
        mu_sock_fail(s, m->id, -ENOMEM);
        mu_sub_close(sub);
        return;
    }
    mu_sub_want(sub, MU_NEED_SHOT);
}

void mu_sock_unsubscribe(struct mu_sock_msg *m)
{
    struct mu_id id;
    struct mu_sock_out o;
    if (!mu_sock_session(m, &id)) {
        return;
    }
    struct mu_sub *sub = mu_sock_find(m->s, &id);
    if (sub) {
        mu_sub_close(sub);
    }
    mu_sess_prefixed(mu_sock_event(&o, "unsubscribed"), "sessionId", "ses_", mu_id_bytes(&id));
    mu_sock_event_end(m->s, &o, m->id);
}
