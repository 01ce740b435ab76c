#include "app/sessions/sessions.h"

#include <errno.h>
#include <stdio.h>

#include "app/sessions/sessions_int.h"

int mu_sessions_new(const struct mu_sessions_opts *opts, struct mu_sessions **ret)
{
    struct mu_sessions *s = mu_calloc(1, sizeof *s);
    if (!s) {
        return -ENOMEM;
    }
    s->opts = *opts;
    struct mu_metrics *m = opts->metrics;
    static const char *const labels[] = {NULL, "outcome=\"finished\"", "outcome=\"cancelled\"",
                                         "outcome=\"failed\"", "outcome=\"timed_out\""};
    if (m) {
        s->created =
            mu_metrics_counter(m, "muster_sessions_created_total", NULL, "Sessions created.");
        for (int i = MU_OUT_FINISHED; i <= MU_OUT_TIMED_OUT; i++) {
            s->ended[i] = mu_metrics_counter(m, "muster_sessions_ended_total", labels[i],
                                             "Sessions that ended, by outcome.");
        }
        s->stale = mu_metrics_counter(m, "muster_stale_reports_total", NULL,
                                      "Reports of an attempt that no longer holds the lease.");
        s->ckpt_stored =
            mu_metrics_counter(m, "muster_checkpoints_total", "result=\"stored\"",
                               "Checkpoints that runners took, by what became of them.");
        s->ckpt_refused =
            mu_metrics_counter(m, "muster_checkpoints_total", "result=\"refused\"",
                               "Checkpoints that runners took, by what became of them.");
        s->ckpt_bytes = mu_metrics_counter(m, "muster_checkpoint_bytes_total", NULL,
                                           "Bytes of checkpoints that were stored.");
        s->restored = mu_metrics_counter(m, "muster_sessions_restored_total", NULL,
                                         "Sessions that lost their runner and went on.");
        s->hibernated = mu_metrics_counter(m, "muster_sessions_hibernated_total", NULL,
                                           "Executions that were ended to free their worker.");
        s->parked = mu_metrics_counter(m, "muster_sessions_parked_total", NULL,
                                       "Sessions that lost their sandbox and wait to be woken.");
    }
    *ret = s;
    return 0;
}

struct mu_sessions *mu_sessions_free(struct mu_sessions *s)
{
    mu_free(s);
    return NULL;
}

struct mu_feed *mu_sessions_feed(struct mu_sessions *s)
{
    return s->opts.feed;
}

struct mu_actor mu_actor_of(const struct mu_principal *p)
{
    struct mu_actor a;
    if (p->key.text[0] && !p->run.text[0] && !p->admin) { /* keys of one org are several people */
        snprintf(a.text, sizeof a.text, "key:%s", p->key.text);
        return a;
    }
    snprintf(a.text, sizeof a.text, "%s%s",
             p->run.text[0] ? "runner"
             : p->admin     ? "admin"
                            : "user:",
             p->run.text[0] || p->admin ? "" : p->uid);
    return a;
}

int64_t mu_sessions_purge_ms(const struct mu_sessions *s, int64_t now_ms)
{
    return s->opts.retention_ms > 0 ? now_ms + s->opts.retention_ms : 0;
}

int mu_session_submit(struct mu_sessions *s, struct mu_unit *unit, const struct mu_id *id,
                      int (*run)(struct mu_unit *u, struct mu_tx *tx),
                      void (*done)(struct mu_unit *u, int result))
{
    unit->run = run;
    unit->done = done;
    unit->stream_id = mu_id_bytes(id);
    return mu_writer_submit(s->opts.writer, unit);
}

void mu_sessions_note_stale(struct mu_sessions *s, int result)
{
    if (result == MU_E_STALE || result == MU_E_NOT_FOUND) {
        mu_metric_add(s->stale, 1);
    }
}

void mu_sessions_note_stop(struct mu_sessions *s, mu_bytes org_id)
{
    struct mu_tenant *t = mu_identity_tenant(s->opts.identity, org_id);
    if (t) {
        atomic_fetch_sub(&t->live, 1);
    }
}

void mu_sessions_note_end(struct mu_sessions *s, mu_bytes org_id, int outcome)
{
    if (outcome != MU_OUT_CANCELLED) { /* the accepted stop gave its place back already */
        mu_sessions_note_stop(s, org_id);
    }
    if (outcome >= MU_OUT_FINISHED && outcome <= MU_OUT_TIMED_OUT) {
        mu_metric_add(s->ended[outcome], 1);
    }
}

int mu_prompt_join(struct mu_arena *a, mu_bytes head, mu_bytes rest, mu_bytes *ret)
{
    char *p = mu_arena_alloc(a, head.len + rest.len + 1);
    if (!p) {
        return -ENOMEM;
    }
    memcpy(p, head.ptr ? head.ptr : "", head.len);
    memcpy(p + head.len, rest.ptr ? rest.ptr : "", rest.len);
    p[head.len + rest.len] = 0;
    *ret = mu_bytes_of(p, head.len + rest.len);
    return 0;
}
