#include "app/sessions/sessions.h"

#include <errno.h>

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

int64_t mu_sessions_purge_ms(const struct mu_sessions *s, int64_t now_ms)
{
    return s->opts.retention_ms > 0 ? now_ms + s->opts.retention_ms : 0;
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

int mu_row_take_i64(void *arg, struct mu_row *row)
{
    *(int64_t *)arg = mu_row_i64(row, 0);
    return 0;
}
