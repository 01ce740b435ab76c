/* Metrics with the published names, and two probes (oz-worker.md 15). */
#include <stdio.h>

#include "base/log.h"
#include "worker/worker_int.h"

static const char *const reasons[] = {"unknown",          "task_timeout",     "graceful_shutdown",
                                      "image_pull",       "sidecar_prep",     "container_create",
                                      "container_start",  "container_wait",   "container_exit",
                                      "container_oom",    "workspace_setup",  "setup_command",
                                      "agent_invocation", "teardown_command", "dispatch_command",
                                      "dispatch_timeout", "cancel_command",   "disk_limit"};
enum { N_REASONS = MU_ARRAY_LEN(reasons) };

/* What a metric of its own is registered for, with the texts that it points at. */
struct mu_worker_failures {
    struct mu_metric *assignment, *backend[N_REASONS];
    char labels[N_REASONS][64], info[256];
};

static void register_failures(struct mu_worker *w, struct mu_worker_failures *f)
{
    static const char name[] = "oz_worker_task_failures_total", help[] = "Failed tasks.";
    f->assignment =
        mu_metrics_counter(w->m.all, name, "phase=\"assignment\",reason=\"unknown\"", help);
    for (size_t i = 0; i < N_REASONS; i++) {
        const char *phase = !strcmp(reasons[i], "teardown_command") ? "cleanup" : "backend";
        snprintf(f->labels[i], sizeof f->labels[i], "phase=\"%s\",reason=\"%s\"", phase,
                 reasons[i]);
        f->backend[i] = mu_metrics_counter(w->m.all, name, f->labels[i], help);
    }
}

/* A label's value: what would end it is left out. */
static void put_label(char *dst, size_t size, const char *text)
{
    size_t n = 0;
    for (; *text && n + 1 < size; text++) {
        if (*text != '"' && *text != '\\' && *text != '\n') {
            dst[n++] = *text;
        }
    }
    dst[n] = 0;
}

int mu_health_metrics(struct mu_worker *w)
{
    static const char *const results[4] = {"result=\"succeeded\"", "result=\"failed\"",
                                           "result=\"cancelled\"", "result=\"dispatched\""};
    struct mu_worker_metrics *m = &w->m;
    int r = mu_metrics_new(&m->all);
    struct mu_worker_failures *f = r == 0 ? mu_calloc(1, sizeof *f) : NULL;
    if (!f) {
        return r < 0 ? r : -12;
    }
    m->failures = f;
    m->connected = mu_metrics_gauge(m->all, "oz_worker_connected", NULL,
                                    "Whether the link to the server is open.");
    m->active = mu_metrics_gauge(m->all, "oz_worker_tasks_active", NULL, "Tasks that take a slot.");
    m->max =
        mu_metrics_gauge(m->all, "oz_worker_tasks_max_concurrent", NULL, "Slots; 0 = no limit.");
    m->claimed = mu_metrics_counter(m->all, "oz_worker_tasks_claimed_total", NULL, "Tasks taken.");
    m->rejected = mu_metrics_counter(m->all, "oz_worker_tasks_rejected_total",
                                     "reason=\"at_capacity\"", "Tasks that were sent back.");
    for (int i = 0; i < 4; i++) {
        m->completed[i] = mu_metrics_counter(m->all, "oz_worker_tasks_completed_total", results[i],
                                             "Tasks that ended.");
    }
    for (int i = 0; i < 4; i++) {
        m->duration[i] = mu_metrics_histogram(m->all, "oz_worker_task_duration_seconds", results[i],
                                              "From the assignment to the end.");
    }
    register_failures(w, f);
    static const char reconnects[] = "oz_worker_websocket_reconnects_total";
    m->dial_failed = mu_metrics_counter(m->all, reconnects, "reason=\"dial_failed\"",
                                        "Times the link has to be made anew.");
    m->remote_close = mu_metrics_counter(m->all, reconnects, "reason=\"remote_close\"",
                                         "Times the link has to be made anew.");
    char id[129];
    put_label(id, sizeof id, w->conf->worker_id);
    snprintf(f->info, sizeof f->info, "version=\"%s\",backend=\"%s\",worker_id=\"%s\"", MU_VERSION,
             w->conf->backend, id);
    mu_metric_set(mu_metrics_gauge(m->all, "oz_worker_info", f->info, "What this worker is."), 1);
    mu_metric_set(m->max, w->conf->capacity);
    return 0;
}

void mu_health_ended(struct mu_worker *w, int result, int64_t duration_ms)
{
    mu_metric_add(w->m.completed[result], 1);
    mu_metric_observe_us(w->m.duration[result], duration_ms * 1000);
}

void mu_health_failure(struct mu_worker *w)
{
    mu_metric_add(w->m.failures->assignment, 1);
}

void mu_health_failure_of(struct mu_worker *w, const char *reason)
{
    size_t found = 0; /* unknown */
    for (size_t i = 0; reason && i < N_REASONS; i++) {
        found = !strcmp(reason, reasons[i]) ? i : found;
    }
    mu_metric_add(w->m.failures->backend[found], 1);
}

/* --- the listener --- */

static void answer(struct mu_http_req *req, int status, const char *type, mu_bytes body)
{
    const struct mu_http_pair headers[] = {{"Content-Type", mu_str(type)},
                                           {"Cache-Control", MU_B("no-store")}};
    mu_http_respond(req, status, headers, MU_ARRAY_LEN(headers), body);
}

static void admit(void *arg MU_UNUSED, struct mu_http_req *req MU_UNUSED, struct mu_http_admit *ret)
{
    ret->max_body = 0;
}

static const char *not_ready(const struct mu_worker *w)
{
    return !mu_uplink_up(w)               ? "not connected\n"
           : !mu_backends_usable(w)       ? "no sandbox back end is usable\n"
           : w->phase != MU_PHASE_SERVING ? "not taking tasks\n"
                                          : NULL;
}

static void on_request(void *arg, struct mu_http_req *req)
{
    static const char text[] = "text/plain; charset=utf-8";
    struct mu_worker *w = arg;
    const struct mu_http_head *head = mu_http_req_head(req);
    mu_bytes rest = head->target;
    mu_bytes path = mu_bytes_split(&rest, '?');
    if (head->method != MU_HTTP_GET && head->method != MU_HTTP_HEAD) {
        answer(req, 405, text, MU_B("GET only\n"));
    } else if (mu_bytes_is(path, "/healthz") || mu_bytes_is(path, "/livez")) {
        answer(req, 200, text, MU_B("ok\n"));
    } else if (mu_bytes_is(path, "/readyz")) {
        const char *why = not_ready(w);
        answer(req, why ? 503 : 200, text, mu_str(why ? why : "ok\n"));
    } else if (mu_bytes_is(path, "/metrics")) {
        struct mu_buf buf;
        mu_buf_init(&buf, 1 << 20);
        mu_metrics_write(w->m.all, &buf);
        answer(req, buf.failed ? 503 : 200, "text/plain; version=0.0.4; charset=utf-8",
               mu_buf_bytes(&buf));
        mu_buf_fini(&buf);
    } else {
        answer(req, 404, text, MU_B("not found\n"));
    }
}

static void malformed(void *arg MU_UNUSED, struct mu_http_req *req, int status, const char *text)
{
    answer(req, status, "text/plain; charset=utf-8", mu_str(text));
}

int mu_health_listen(struct mu_worker *w, struct mu_err *err)
{
    if (!w->conf->metrics_host) {
        return 0;
    }
    struct mu_http_limits limits = mu_http_default_limits;
    limits.max_connections = 64;
    const struct mu_http_ops ops = {
        .admit = admit, .request = on_request, .malformed = malformed, .arg = w};
    const struct mu_http_listen l = {
        .host = w->conf->metrics_host, .port = w->conf->metrics_port, .fd = -1};
    unsigned port = 0;
    int r = mu_http_server_new(&w->loop, 1, &limits, &ops, &w->http);
    if (r < 0) {
        return mu_err_set(err, r, "cannot make the metrics listener: %s", mu_err_text(r));
    }
    r = mu_http_server_listen(w->http, &l, &port, err);
    if (r == 0) {
        mu_log(MU_LOG_INFO, "metrics.listening", MU_KC("host", w->conf->metrics_host),
               MU_KI("port", port));
    }
    return r;
}
