/* Events of the log as messages (village-control-plane.md 8.4, 11.2). One event may be several;
 * they are made once for all who follow the session, each with a byte in front that says who gets
 * it, and its length. */
#include <errno.h>
#include <stdio.h>

#include "face/live/socket_int.h"
#include "face/sessions/show.h"

enum { ENCODING = 3, OF_ORG = 2 /* of mu_event_encode() */, HEAD = 5 };

static const struct mu_json_limits stored_limits = {.max_bytes = 1 << 20, .max_depth = 40};

/* --- one message --- */

struct frame {
    struct mu_buf *dst;
    size_t at; /* of its head */
    struct mu_json_w w;
};

static struct mu_json_w *begin(struct frame *f, struct mu_buf *dst, unsigned only, const char *type)
{
    char head[HEAD] = {(char)only};
    f->dst = dst;
    f->at = dst->len;
    mu_buf_add(dst, mu_bytes_of(head, sizeof head));
    f->w = mu_json_w(dst);
    mu_jw_obj(&f->w);
    mu_jw_kcstr(&f->w, "type", type);
    return &f->w;
}

static void end(struct frame *f, int64_t seq, int64_t at_ms)
{
    if (seq) {
        mu_jw_ki64(&f->w, "seq", seq);
    }
    mu_jw_ktime(&f->w, "timestamp", at_ms);
    mu_jw_obj_end(&f->w);
    if (!f->dst->failed) {
        size_t len = f->dst->len - f->at - HEAD;
        for (size_t i = 0; i < 4; i++) {
            f->dst->ptr[f->at + 1 + i] = (char)(len >> (24 - 8 * i) & 0xff);
        }
    }
}

/* {"type":"session","sessionId":…,"orgId":…,"action":…,"data":{ */
static struct mu_json_w *begin_session(struct frame *f, struct mu_buf *dst, unsigned only,
                                       const struct mu_id *session, const char *org,
                                       const char *action)
{
    struct mu_json_w *w = begin(f, dst, only, "session");
    mu_sess_prefixed(w, "sessionId", "ses_", mu_id_bytes(session));
    mu_jw_kcstr(w, "orgId", org);
    mu_jw_kcstr(w, "action", action);
    mu_jw_key(w, "data");
    mu_jw_obj(w);
    return w;
}

static void end_session(struct frame *f, int64_t seq, int64_t at_ms)
{
    mu_jw_obj_end(&f->w);
    end(f, seq, at_ms);
}

/* --- events --- */

static void add_state(struct mu_json_w *w, yyjson_val *d)
{
    static const char *const texts[] = {"reason", "message", "provider", "model"};
    mu_jw_kcstr(w, "previousState", mu_sess_state((int)mu_json_get_i64(d, "from", MU_ST_QUEUED)));
    mu_jw_kcstr(w, "newState", mu_sess_state((int)mu_json_get_i64(d, "to", MU_ST_QUEUED)));
    for (size_t i = 0; i < MU_ARRAY_LEN(texts); i++) {
        mu_bytes v = mu_json_get_bytes(d, texts[i]);
        if (v.len) {
            mu_jw_kstr(w, texts[i], v);
        }
    }
}

/* What the older clients know an approval as. */
static void add_request(struct mu_json_w *w, yyjson_val *d)
{
    mu_sess_prefixed(w, "requestId", "apr_", mu_json_get_bytes(d, "gate"));
    mu_jw_kstr(w, "action", mu_json_get_bytes(d, "action"));
    mu_jw_key(w, "details");
    mu_jw_obj(w);
    mu_jw_kstr(w, "description", mu_json_get_bytes(d, "description"));
    mu_jw_kstr(w, "risk", mu_json_get_bytes(d, "risk"));
    mu_jw_obj_end(w);
}

static void add_gate(struct mu_buf *dst, const struct mu_id *session, const char *org,
                     const struct mu_session_event *e, const char *feed)
{
    struct frame f;
    bool asked = e->type == MU_EV_APPROVAL_REQUESTED;
    struct mu_json_w *w = begin(&f, dst, 0, asked ? "approval_required" : "approval_resolved");
    if (feed) {
        mu_jw_kcstr(w, "feed", feed);
    }
    mu_sess_event_members(w, mu_id_bytes(session), e);
    mu_jw_kcstr(w, "orgId", org);
    if (asked) {
        char id[80];
        snprintf(id, sizeof id, "evt_%s_%lld", session->text, (long long)e->seq);
        mu_jw_kcstr(w, "messageId", id);
    }
    end(&f, e->seq, e->at_ms);
}

static void add_approval(struct mu_buf *dst, const struct mu_id *session, const char *org,
                         const struct mu_session_event *e, yyjson_val *d)
{
    struct frame f;
    add_gate(dst, session, org, e, NULL);
    if (e->type == MU_EV_APPROVAL_REQUESTED) {
        struct mu_json_w *w =
            begin_session(&f, dst, MU_ONLY_ALIAS, session, org, "approval_request");
        add_request(w, d);
        end_session(&f, e->seq, e->at_ms);
    }
}

static void add_event(struct mu_buf *dst, const struct mu_id *session, const char *org,
                      const struct mu_session_event *e, yyjson_val *d)
{
    struct frame f;
    bool state = e->type == MU_EV_STATE;
    unsigned only = e->type == MU_EV_USAGE_TICK ? MU_ONLY_USAGE : 0;
    const char *name = mu_event_type_name(e->type);
    struct mu_json_w *w =
        begin_session(&f, dst, only, session, org, state ? "state_change" : "event");
    if (state) {
        add_state(w, d);
    } else {
        mu_jw_kcstr(w, "eventType", name ? name : "PROVIDER_EVENT_FORWARDED");
        mu_jw_key(w, "payload");
        mu_sess_event_data(w, mu_id_bytes(session), e);
    }
    end_session(&f, e->seq, e->at_ms);
    if (e->type == MU_EV_APPROVAL_REQUESTED || e->type == MU_EV_APPROVAL_RESOLVED) {
        add_approval(dst, session, org, e, d);
    }
}

void mu_frames_event(struct mu_buf *dst, const struct mu_id *session, const char *org,
                     const struct mu_session_event *e)
{
    struct mu_arena a;
    yyjson_val *d = NULL;
    mu_arena_init(&a, 4 << 20);
    int r = e->data.len ? mu_json_read(&a, e->data, &stored_limits, &d, NULL) : 0;
    if (r == -ENOMEM) {
        dst->failed = dst->failed ? dst->failed : r;
    }
    add_event(dst, session, org, e, d);
    mu_arena_fini(&a);
}

void mu_frames_gate(struct mu_buf *dst, const struct mu_id *session, const struct mu_gate_row *row)
{
    struct frame f;
    struct mu_json_w *w = begin(&f, dst, 0, "approval_required");
    mu_sess_prefixed(w, "sessionId", "ses_", mu_id_bytes(session));
    mu_jw_kstr(w, "orgId", row->org_id);
    mu_jw_key(w, "approval");
    mu_sess_gate(w, row);
    mu_sess_prefixed(w, "messageId", "gate_", row->id);
    end(&f, 0, row->created_ms);
}

void mu_frames_completed(struct mu_buf *dst, const struct mu_id *session,
                         const struct mu_session_view *v)
{
    struct frame f;
    char org[MU_ORG_LEN + 1];
    snprintf(org, sizeof org, "%.*s", MU_ARGS(v->org_id));
    struct mu_json_w *w = begin_session(&f, dst, 0, session, org, "completed");
    mu_sess_completed(w, v);
    end_session(&f, v->last_event_seq, v->ended_ms);
}

/* --- what is not in the log --- */

/* A runner's `stream` message: the agent's words as they come. */
static void add_words(struct mu_buf *dst, const struct mu_sub *sub, const struct mu_event *e)
{
    struct mu_arena a;
    struct frame f;
    yyjson_val *d = NULL;
    mu_arena_init(&a, 4 << 20);
    if (mu_json_read(&a, e->data, &stored_limits, &d, NULL) == 0) {
        mu_bytes kind = mu_json_get_bytes(d, "kind"), content = mu_json_get_bytes(d, "content");
        struct mu_json_w *w = begin_session(&f, dst, 0, &sub->id, sub->org, "delta");
        mu_jw_kstr(w, "turnId", mu_json_get_bytes(d, "turnId"));
        mu_jw_kstr(w, "kind", kind);
        mu_jw_ki64(w, "offset", mu_json_get_i64(d, "offset", 0));
        mu_jw_kstr(w, "content", content);
        end_session(&f, 0, e->at_ms);
        if (mu_bytes_is(kind, "text")) {
            w = begin_session(&f, dst, MU_ONLY_PLAIN, &sub->id, sub->org, "output");
            mu_jw_kstr(w, "output", content);
            mu_jw_kcstr(w, "stream", "stdout");
            end_session(&f, 0, e->at_ms);
        }
    } else {
        dst->failed = dst->failed ? dst->failed : -ENOMEM;
    }
    mu_arena_fini(&a);
}

/* The answer of a provider as it comes. */
static void add_output(struct mu_buf *dst, const struct mu_sub *sub, const struct mu_event *e)
{
    struct frame f;
    struct mu_json_w *w = begin_session(&f, dst, 0, &sub->id, sub->org, "output");
    mu_jw_kstr(w, "output", e->data);
    mu_jw_kcstr(w, "stream", "stdout");
    mu_jw_ki64(w, "offset", e->offset);
    if (e->type == MU_EV_DELTA_RESET) {
        mu_jw_kbool(w, "reset", true);
    }
    end_session(&f, 0, e->at_ms);
}

static void free_msg(void *msg)
{
    mu_msg_unref(msg);
}

struct mu_msg *mu_frames_of(const struct mu_sub *sub, struct mu_event *e)
{
    struct mu_msg *have = atomic_load(&e->encoded[ENCODING]);
    if (have) {
        return have;
    }
    struct mu_buf b;
    mu_buf_init(&b, 16 << 20);
    if (e->seq) {
        const struct mu_session_event logged = {
            .seq = e->seq, .at_ms = e->at_ms, .type = e->type, .data = e->data, .actor = e->actor};
        mu_frames_event(&b, &sub->id, sub->org, &logged);
    } else if (e->type == MU_EV_TEXT) {
        add_words(&b, sub, e);
    } else {
        add_output(&b, sub, e);
    }
    struct mu_msg *m = b.failed ? NULL : mu_msg_new(mu_buf_bytes(&b));
    mu_buf_fini(&b);
    return m ? mu_event_encode(e, ENCODING, m, free_msg) : NULL;
}

/* --- what an org hears of --- */

/* As a session's own, with what its list shows now: one that came late may be newer than the move
 * that it comes with. */
static void add_org_state(struct mu_buf *dst, const struct mu_id *session, const char *org,
                          const struct mu_event *e, const struct mu_org_row *row, yyjson_val *d)
{
    struct frame f;
    struct mu_json_w *w = begin(&f, dst, 0, "session");
    mu_jw_kcstr(w, "feed", "org");
    mu_sess_prefixed(w, "sessionId", "ses_", mu_id_bytes(session));
    mu_jw_kcstr(w, "orgId", org);
    mu_jw_kcstr(w, "action", "state_change");
    mu_jw_key(w, "data");
    mu_jw_obj(w);
    if (e->type == MU_EV_CREATED) {
        mu_jw_kcstr(w, "previousState", "CREATED");
        mu_jw_kcstr(w, "newState", mu_sess_state((int)mu_json_get_i64(d, "to", MU_ST_QUEUED)));
    } else {
        add_state(w, d);
    }
    if (row && row->text.ptr) {
        mu_jw_kraw(w, "session", row->text);
        if (row->native) {
            mu_jw_kbool(w, "native", true);
        }
    }
    end_session(&f, e->seq, e->at_ms);
}

static void add_runner(struct mu_buf *dst, const char *org, const struct mu_event *e, yyjson_val *d)
{
    struct frame f;
    mu_bytes prefix = MU_B("worker:"), status = mu_json_get_bytes(d, "status");
    const char *name = mu_event_type_name(e->type);
    struct mu_json_w *w = begin(&f, dst, 0, "runner_status");
    mu_sess_prefixed(w, "runnerId", "rnr_", mu_bytes_from(e->stream, prefix.len));
    if (org[0]) {
        mu_jw_kcstr(w, "orgId", org);
    }
    mu_jw_kstr(w, "status", status.len ? status : MU_B("offline"));
    mu_jw_kbool(w, "drained",
                e->type != MU_EV_RUNNER_UNDRAINED && mu_json_get_bool(d, "drained", false));
    mu_jw_kcstr(w, "event", name ? name : "");
    end(&f, 0, e->at_ms);
}

static void add_org(struct mu_buf *dst, const struct mu_event *e, const struct mu_org_row *row,
                    yyjson_val *d)
{
    char org[MU_ORG_LEN + 1];
    struct mu_id session;
    snprintf(org, sizeof org, "%.*s", MU_ARGS(e->org));
    if (mu_bytes_starts(e->stream, MU_B("worker:"))) {
        add_runner(dst, org, e, d);
    } else if (mu_id_parse(e->stream, NULL, &session) < 0) {
        dst->failed = MU_E_INTERNAL;
    } else if (e->type == MU_EV_CREATED || e->type == MU_EV_STATE) {
        add_org_state(dst, &session, org, e, row, d);
    } else {
        const struct mu_session_event logged = {
            .seq = e->seq, .at_ms = e->at_ms, .type = e->type, .data = e->data, .actor = e->actor};
        add_gate(dst, &session, org, &logged, "org");
    }
}

bool mu_frames_have_org(struct mu_event *e)
{
    return atomic_load(&e->encoded[OF_ORG]) != NULL;
}

mu_bytes mu_frame_text(const struct mu_msg *m)
{
    return mu_bytes_from(mu_bytes_of(m->data, m->len), HEAD);
}

const struct mu_msg *mu_frames_of_org(struct mu_event *e, const struct mu_org_row *row)
{
    const struct mu_msg *have = atomic_load(&e->encoded[OF_ORG]);
    if (have) {
        return have;
    }
    struct mu_arena a;
    struct mu_buf b;
    yyjson_val *d = NULL;
    mu_arena_init(&a, 4 << 20);
    mu_buf_init(&b, MU_SOCK_EVENT);
    int r = e->data.len ? mu_json_read(&a, e->data, &stored_limits, &d, NULL) : 0;
    if (r == -ENOMEM) {
        b.failed = r;
    } else {
        add_org(&b, e, row, d);
    }
    struct mu_msg *m = b.failed ? NULL : mu_msg_new(mu_buf_bytes(&b));
    mu_buf_fini(&b);
    mu_arena_fini(&a);
    return m ? mu_event_encode(e, OF_ORG, m, free_msg) : NULL;
}

/* --- leaving --- */

static bool is_for(const struct mu_sub *sub, unsigned only)
{
    return (!(only & MU_ONLY_ALIAS) || sub->alias) && (!(only & MU_ONLY_USAGE) || sub->usage) &&
           (!(only & MU_ONLY_PLAIN) || sub->plain);
}

size_t mu_frames_send(struct mu_sub *sub, mu_bytes frames, bool all)
{
    struct mu_sock *s = sub->s;
    size_t at = 0;
    while (at + HEAD <= frames.len && s->ws && (all || !mu_sock_full(s))) {
        size_t len = 0;
        for (size_t i = 1; i < HEAD; i++) {
            len = len << 8 | (unsigned char)frames.ptr[at + i];
        }
        MU_CHECK(len <= frames.len - at - HEAD);
        if (is_for(sub, (unsigned char)frames.ptr[at])) {
            mu_ws_send(s->ws, true, mu_bytes_of(frames.ptr + at + HEAD, len));
        }
        at += HEAD + len;
    }
    return at;
}
