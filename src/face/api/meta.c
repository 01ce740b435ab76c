#include "face/api/meta.h"

#include <errno.h>

#include "base/clock.h"
#include "db/reader.h"
#include "db/writer.h"
#include "face/api/api_int.h"

enum { PROBE_MS = 2000 };

/* One trivial query, bounded in time. It outlives the call when the database does not answer: the
 * client is told after PROBE_MS, the memory goes when the reader comes back. */
struct probe {
    struct mu_read read;
    struct mu_timer timer;
    struct mu_call *call; /* NULL: answered already */
    bool readiness;
};

static int count_row(void *arg, struct mu_row *row)
{
    *(bool *)arg = mu_row_i64(row, 0) == 1;
    return 0;
}

static int probe_run(struct mu_read *r, struct mu_db *db)
{
    (void)r;
    static const struct mu_stmt trivial = {"health", "", "SELECT 1", NULL};
    bool answered = false;
    int n = mu_db_run(db, &trivial, NULL, 0, count_row, &answered);
    return n < 0 ? n : answered ? 0 : MU_E_INTERNAL;
}

static void send_health(struct mu_call *c, bool db_ok, bool stopping, const char *why)
{
    const struct mu_meta *m = mu_call_meta(c);
    struct mu_json_w w = mu_json_w(mu_call_buf(c));
    bool ok = db_ok && !stopping && !why;
    mu_jw_obj(&w);
    mu_jw_kbool(&w, "ok", ok);
    mu_jw_kcstr(&w, "db", db_ok ? "ok" : "error");
    mu_jw_kcstr(&w, "status", ok ? "ok" : "degraded");
    mu_jw_ktime(&w, "timestamp", mu_env_wall_ms(m->env));
    mu_jw_kcstr(&w, "version", m->version);
    mu_jw_kcstr(&w, "backend", m->backend);
    if (stopping) {
        mu_jw_kbool(&w, "shutting_down", true);
    }
    if (!ok) {
        mu_jw_kcstr(&w, "error",
                    !db_ok     ? "The database does not answer"
                    : stopping ? "The server is shutting down"
                               : why);
    }
    mu_jw_kstr(&w, "request_id", mu_call_request_id(c));
    mu_jw_obj_end(&w);
    if (ok) {
        mu_call_send(c, 200);
    } else {
        mu_call_send_with(c, 503, "Retry-After", MU_B("1"));
    }
}

static void probe_answer(struct probe *p, bool db_ok)
{
    const struct mu_meta *m = mu_call_meta(p->call);
    struct mu_call *c = p->call;
    const char *why = NULL;
    p->call = NULL;
    if (!p->readiness || !m->ready || m->ready(m->ready_arg, &why)) {
        why = NULL;
    } else if (!why) {
        why = "Not ready yet";
    }
    send_health(c, db_ok && mu_writer_healthy(m->writer), mu_api_stopping(mu_call_api(c)), why);
}

static void probe_done(struct mu_read *r, int result)
{
    struct probe *p = MU_CONTAINER(r, struct probe, read);
    if (p->call) {
        mu_timer_clear(&p->timer);
        probe_answer(p, result >= 0);
    }
    mu_free(p);
}

static void probe_late(struct mu_timer *t)
{
    probe_answer(MU_CONTAINER(t, struct probe, timer), false);
}

static void probe_start(struct mu_call *c, bool readiness)
{
    const struct mu_meta *m = mu_call_meta(c);
    if (mu_api_stopping(mu_call_api(c))) {
        /* the readers may be gone by now */
        send_health(c, mu_writer_healthy(m->writer), true, NULL);
        return;
    }
    struct probe *p = mu_calloc(1, sizeof *p);
    if (!p) {
        mu_call_fail(c, -ENOMEM);
        return;
    }
    p->call = c;
    p->readiness = readiness;
    p->read.run = probe_run;
    p->read.done = probe_done;
    p->read.loop = mu_call_loop(c);
    mu_timer_init(&p->timer, mu_call_loop(c), probe_late);
    if (mu_timer_set(&p->timer, PROBE_MS) < 0) {
        mu_free(p);
        mu_call_fail(c, -ENOMEM);
        return;
    }
    if (mu_readers_submit(m->readers, &p->read) < 0) {
        mu_timer_clear(&p->timer);
        probe_answer(p, false);
        mu_free(p);
    }
}

static void health(struct mu_call *c)
{
    probe_start(c, false);
}

static void readyz(struct mu_call *c)
{
    probe_start(c, true);
}

static void livez(struct mu_call *c)
{
    struct mu_json_w w = mu_json_w(mu_call_buf(c));
    mu_jw_obj(&w);
    mu_jw_kbool(&w, "ok", true);
    mu_call_send_object(c, &w);
}

static void metrics(struct mu_call *c)
{
    const struct mu_meta *m = mu_call_meta(c);
    if (m->http) {
        mu_metric_set(mu_call_api(c)->connections, mu_http_server_connections(m->http));
    }
    mu_metrics_write(m->metrics, mu_call_buf(c));
    mu_call_send(c, 200);
}

static void openapi(struct mu_call *c)
{
    mu_buf_add(mu_call_buf(c), mu_api_openapi(mu_call_api(c)));
    mu_call_send(c, 200);
}

const struct mu_route mu_meta_routes[] = {
    {.path = "/health",
     .face = MU_FACE_ROOT,
     .flags = MU_ROUTE_ANY_METHOD | MU_ROUTE_QUIET | MU_ROUTE_NO_DRAIN,
     .handler = health,
     .id = "getHealth",
     .summary = "Whether the server is up and its database answers.",
     .response = "Health"},
    {.method = MU_HTTP_GET,
     .path = "/livez",
     .face = MU_FACE_ROOT,
     .flags = MU_ROUTE_QUIET | MU_ROUTE_NO_DRAIN | MU_ROUTE_PROBE,
     .handler = livez,
     .id = "getLivez",
     .summary = "Whether the process is alive.",
     .response = "Alive"},
    {.method = MU_HTTP_GET,
     .path = "/readyz",
     .face = MU_FACE_ROOT,
     .flags = MU_ROUTE_QUIET | MU_ROUTE_NO_DRAIN | MU_ROUTE_PROBE,
     .handler = readyz,
     .id = "getReadyz",
     .summary = "Whether database, migrations and dispatcher are ready for requests.",
     .response = "Health"},
    {.method = MU_HTTP_GET,
     .path = "/metrics",
     .face = MU_FACE_ROOT,
     .auth = MU_AUTH_ADMIN,
     .flags = MU_ROUTE_QUIET | MU_ROUTE_NO_DRAIN | MU_ROUTE_PROBE,
     .handler = metrics,
     .id = "getMetrics",
     .summary = "Metrics in the Prometheus text format.",
     .media = "text/plain; version=0.0.4; charset=utf-8"},
    {.method = MU_HTTP_GET,
     .path = "/openapi.json",
     .face = MU_FACE_ROOT,
     .handler = openapi,
     .id = "getOpenapi",
     .summary = "This document."},
    {.path = NULL},
};
