/* What a connection follows besides sessions (village-control-plane.md 8.3): orgs and runners.
 * Nothing of it is replayed: what a connection cannot take is left out, and it is told so once. */
#include <errno.h>
#include <stdio.h>

#include "face/live/socket_int.h"
#include "face/sessions/show.h"

static bool may_read(const struct mu_sock *s, const char *org)
{
    return s->who.admin || strcmp(s->who.org_id, org) == 0;
}

/* {"type":"event","event":…,"data":{"orgId":…}} */
static void org_event(struct mu_sock *s, const char *event, const char *org, mu_bytes reply_to)
{
    struct mu_sock_out o;
    mu_jw_kcstr(mu_sock_event(&o, event), "orgId", org);
    mu_sock_event_end(s, &o, reply_to);
}

/* --- an org --- */

static struct mu_org_sub *find_org(struct mu_sock *s, const char *org)
{
    MU_LIST_EACH(it, tmp, &s->orgs)
    {
        struct mu_org_sub *sub = MU_CONTAINER(it, struct mu_org_sub, link);
        if (strcmp(sub->org, org) == 0) {
            return sub;
        }
    }
    return NULL;
}

static void org_close(struct mu_org_sub *sub)
{
    struct mu_sock *s = sub->s;
    mu_list_remove(&sub->link);
    s->n_subs--;
    mu_hub_leave(sub);
    mu_free(sub);
    mu_sock_unref(s);
}

static void tell_gap(struct mu_org_sub *sub)
{
    if (sub->gap && !mu_sock_full(sub->s)) {
        sub->gap = false;
        org_event(sub->s, "org_gap", sub->org, MU_B_NONE);
    }
}

void mu_org_gap(struct mu_org_sub *sub)
{
    sub->gap = true;
    tell_gap(sub);
}

void mu_org_deliver(struct mu_org_sub *sub, mu_bytes text)
{
    if (mu_sock_full(sub->s)) {
        sub->gap = true;
    } else if (!sub->gap && may_read(sub->s, sub->org)) {
        mu_ws_send(sub->s->ws, true, text);
    }
}

/* Whose: the caller's own unless it says otherwise. False: answered. */
static bool take_org(struct mu_sock_msg *m, char *ret, size_t size)
{
    const struct mu_principal *p = &m->s->who;
    mu_bytes given;
    if (!mu_sock_text(m, "orgId", MU_ORG_LEN, false, &given)) {
        return false;
    }
    if (given.ptr && !given.len) {
        mu_sock_error(m->s, m->id, "INVALID_MESSAGE", "orgId must not be empty");
        return false;
    }
    bool own = !given.ptr || mu_bytes_is(given, "me");
    snprintf(ret, size, "%.*s", own ? (int)strlen(p->org_id) : (int)given.len,
             own ? p->org_id : given.ptr);
    return true;
}

static struct mu_org_sub *org_new(struct mu_sock *s, const char *org)
{
    struct mu_org_sub *sub = mu_calloc(1, sizeof *sub);
    if (sub) {
        sub->s = s;
        snprintf(sub->org, sizeof sub->org, "%s", org);
        if (mu_hub_join(sub) < 0) {
            mu_free(sub);
            return NULL;
        }
        mu_list_push(&s->orgs, &sub->link);
        s->n_subs++;
        mu_sock_ref(s);
    }
    return sub;
}

void mu_sock_subscribe_org(struct mu_sock_msg *m)
{
    struct mu_sock *s = m->s;
    char org[MU_ORG_LEN + 1];
    if (!take_org(m, org, sizeof org)) {
        return;
    }
    if (!may_read(s, org)) { /* "*" is nobody's own; whether there is such an org is not told */
        mu_sock_error(s, m->id, "FORBIDDEN", "orgId is not the org of this credential");
        return;
    }
    struct mu_org_sub *old = find_org(s, org);
    if (!old && !mu_sock_room(m)) {
        return;
    }
    if (!old && !org_new(s, org)) {
        mu_sock_fail(s, m->id, -ENOMEM);
        return;
    }
    if (old) { /* whoever asks again reads its lists again */
        old->gap = false;
    }
    org_event(s, "subscribed", org, m->id);
}

void mu_sock_unsubscribe_org(struct mu_sock_msg *m)
{
    char org[MU_ORG_LEN + 1];
    if (!take_org(m, org, sizeof org)) {
        return;
    }
    struct mu_org_sub *sub = find_org(m->s, org);
    if (sub) {
        org_close(sub);
    }
    org_event(m->s, "unsubscribed", org, m->id);
}

/* --- a runner --- */

struct runner_sub {
    struct mu_sock *s;
    struct mu_list link;
    struct mu_watch watch;
    struct mu_fleet_status op;
    bool asking, closing, told;
    struct mu_event *held; /* the newest that it could not take, or not yet */
    char *reply_to;
};

static struct runner_sub *find_runner(struct mu_sock *s, const struct mu_id *id)
{
    MU_LIST_EACH(it, tmp, &s->runners)
    {
        struct runner_sub *sub = MU_CONTAINER(it, struct runner_sub, link);
        if (strcmp(sub->op.uid.text, id->text) == 0) {
            return sub;
        }
    }
    return NULL;
}

static void runner_free(struct runner_sub *sub)
{
    struct mu_sock *s = sub->s;
    mu_event_unref(sub->held);
    mu_free(sub->reply_to);
    mu_free(sub);
    mu_sock_unref(s);
}

static void runner_close(struct runner_sub *sub)
{
    mu_feed_unwatch(mu_sessions_feed(sub->s->face->opts.sessions), &sub->watch);
    mu_list_remove(&sub->link);
    sub->s->n_subs--;
    sub->closing = true;
    if (!sub->asking) {
        runner_free(sub);
    }
}

static void runner_event(struct mu_sock *s, const char *event, const struct mu_id *id,
                         mu_bytes reply_to)
{
    struct mu_sock_out o;
    mu_sess_prefixed(mu_sock_event(&o, event), "runnerId", "rnr_", mu_id_bytes(id));
    mu_sock_event_end(s, &o, reply_to);
}

static void no_runner(struct mu_sock *s, mu_bytes reply_to)
{
    mu_sock_error(s, reply_to, "RUNNER_NOT_FOUND", "There is no such runner");
}

/* Only the newest counts: who is slow misses what lies between. */
static void runner_tell(struct runner_sub *sub, struct mu_event *e)
{
    struct mu_sock *s = sub->s;
    const struct mu_msg *m = sub->told && !mu_sock_full(s) ? mu_frames_of_org(e, NULL) : NULL;
    if (!m) {
        mu_event_ref(e);
        mu_event_unref(sub->held);
        sub->held = e;
        return;
    }
    mu_ws_send(s->ws, true, mu_frame_text(m));
    if (e->type == MU_EV_RUNNER_DEREGISTERED) {
        runner_event(s, "unsubscribed", &sub->op.uid, MU_B_NONE);
        runner_close(sub);
    }
}

static void runner_tell_held(struct runner_sub *sub)
{
    struct mu_event *e = sub->held;
    if (e && sub->told && !mu_sock_full(sub->s)) {
        sub->held = NULL;
        runner_tell(sub, e);
        mu_event_unref(e);
    }
}

static void on_runner(struct mu_watch *w, struct mu_event *e)
{
    runner_tell(MU_CONTAINER(w, struct runner_sub, watch), e);
}

static void status_known(struct mu_fleet_status *op)
{
    struct runner_sub *sub = op->ctx;
    struct mu_sock *s = sub->s;
    struct mu_sock_out o;
    sub->asking = false;
    if (sub->closing) {
        runner_free(sub);
        return;
    }
    if (!op->found) {
        no_runner(s, mu_str(sub->reply_to));
        runner_close(sub);
        return;
    }
    sub->told = true;
    runner_event(s, "subscribed", &op->uid, mu_str(sub->reply_to));
    struct mu_json_w *w = mu_sock_begin(&o, "runner_status");
    mu_sess_prefixed(w, "runnerId", "rnr_", mu_id_bytes(&op->uid));
    if (op->of_org[0]) {
        mu_jw_kcstr(w, "orgId", op->of_org);
    }
    mu_jw_kcstr(w, "status", mu_worker_status_name(op->status));
    mu_jw_kbool(w, "drained", op->drained);
    mu_sock_end(s, &o, MU_B_NONE);
    runner_tell_held(sub);
}

/* False: answered. */
static bool take_runner(struct mu_sock_msg *m, struct mu_id *ret)
{
    mu_bytes text;
    if (!mu_sock_text(m, "runnerId", MU_SOCK_MESSAGE_ID, true, &text)) {
        return false;
    }
    if (mu_id_parse(text, "rnr_", ret) < 0) {
        no_runner(m->s, m->id);
        return false;
    }
    return true;
}

/* Watches first: what changes while the status is asked for comes behind it. */
static int runner_new(struct mu_sock_msg *m, const struct mu_id *id)
{
    struct mu_sock *s = m->s;
    struct runner_sub *sub = mu_calloc(1, sizeof *sub);
    int r = sub && (!m->id.ptr || (sub->reply_to = mu_bytes_dup(m->id))) ? 0 : -ENOMEM;
    if (r == 0) {
        sub->s = s;
        sub->watch.loop = s->loop;
        sub->watch.on_event = on_runner;
        snprintf(sub->watch.stream_id, sizeof sub->watch.stream_id, "worker:%s", id->text);
        r = mu_feed_watch(mu_sessions_feed(s->face->opts.sessions), &sub->watch);
    }
    if (r < 0) {
        mu_free(sub ? sub->reply_to : NULL);
        mu_free(sub);
        return r;
    }
    mu_list_push(&s->runners, &sub->link);
    s->n_subs++;
    mu_sock_ref(s);
    sub->op = (struct mu_fleet_status){
        .loop = s->loop, .uid = *id, .admin = s->who.admin, .done = status_known, .ctx = sub};
    memcpy(sub->op.org_id, s->who.org_id, sizeof sub->op.org_id);
    sub->asking = true;
    mu_fleet_status(s->face->opts.fleet, &sub->op);
    return 0;
}

void mu_sock_subscribe_runner(struct mu_sock_msg *m)
{
    struct mu_sock *s = m->s;
    struct mu_id id;
    if (!take_runner(m, &id)) {
        return;
    }
    struct runner_sub *old = find_runner(s, &id);
    if (!old && !mu_sock_room(m)) {
        return;
    }
    if (old) {
        runner_close(old);
    }
    int r = runner_new(m, &id);
    if (r < 0) {
        mu_sock_fail(s, m->id, r);
    }
}

void mu_sock_unsubscribe_runner(struct mu_sock_msg *m)
{
    struct mu_id id;
    if (!take_runner(m, &id)) {
        return;
    }
    struct runner_sub *sub = find_runner(m->s, &id);
    if (sub) {
        runner_close(sub);
    }
    runner_event(m->s, "unsubscribed", &id, m->id);
}

/* --- all of a connection --- */

void mu_orgs_writable(struct mu_sock *s)
{
    MU_LIST_EACH(it, tmp, &s->orgs)
    {
        tell_gap(MU_CONTAINER(it, struct mu_org_sub, link));
    }
    MU_LIST_EACH(at, next, &s->runners)
    {
        runner_tell_held(MU_CONTAINER(at, struct runner_sub, link));
    }
}

void mu_orgs_close(struct mu_sock *s)
{
    MU_LIST_EACH(it, tmp, &s->orgs)
    {
        org_close(MU_CONTAINER(it, struct mu_org_sub, link));
    }
    MU_LIST_EACH(at, next, &s->runners)
    {
        runner_close(MU_CONTAINER(at, struct runner_sub, link));
    }
}

void mu_orgs_check(struct mu_sock *s)
{
    MU_LIST_EACH(it, tmp, &s->orgs)
    {
        struct mu_org_sub *sub = MU_CONTAINER(it, struct mu_org_sub, link);
        if (!may_read(s, sub->org)) {
            org_event(s, "unsubscribed", sub->org, MU_B_NONE);
            org_close(sub);
        }
    }
    MU_LIST_EACH(at, next, &s->runners)
    {
        struct runner_sub *sub = MU_CONTAINER(at, struct runner_sub, link);
        if (sub->told && !may_read(s, sub->op.of_org)) {
            runner_event(s, "unsubscribed", &sub->op.uid, MU_B_NONE);
            runner_close(sub);
        }
    }
}
