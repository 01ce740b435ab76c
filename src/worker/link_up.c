/* What is said on a connection: hello, heartbeat, and what arrives (oz-worker.md 3, 16). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

#include "base/clock.h"
#include "base/log.h"
#include "worker/worker_int.h"

enum { MAX_SESSIONS = 256, HEARTBEAT_LEAST_MS = 1000, HEARTBEAT_MOST_MS = 60000 };

static void put_time(struct mu_json_w *w, const char *key, int64_t ms)
{
    mu_jw_ktime(w, key, ms);
}

static void put_list(struct mu_json_w *w, const char *key, const char *const *list)
{
    mu_jw_key(w, key);
    mu_jw_arr(w);
    for (; list && *list; list++) {
        mu_jw_str(w, mu_str(*list));
    }
    mu_jw_arr_end(w);
}

/* --- hello --- */

static void put_report(struct mu_json_w *w, const struct mu_sandbox_report *r)
{
    mu_jw_obj(w);
    mu_jw_kcstr(w, "kind", r->kind);
    mu_jw_kcstr(w, "strength", r->strength);
    mu_jw_kcstr(w, "summary", r->summary);
    mu_jw_kbool(w, "usable", r->usable);
    mu_jw_key(w, "layers");
    mu_jw_arr(w);
    for (size_t i = 0; i < r->n_layers && i < MU_SANDBOX_LAYERS; i++) {
        const struct mu_sandbox_layer *l = &r->layers[i];
        mu_jw_obj(w);
        mu_jw_kcstr(w, "name", l->name);
        mu_jw_kbool(w, "active", l->active);
        mu_jw_kcstr(w, "detail", l->detail);
        if (!l->active && l->cause[0]) {
            mu_jw_kcstr(w, "cause", l->cause);
        }
        mu_jw_obj_end(w);
    }
    mu_jw_arr_end(w);
    mu_jw_obj_end(w);
}

static bool is_running(const struct mu_attempt *t)
{
    return t->state != MU_ATTEMPT_OVER && t->state != MU_ATTEMPT_RELEASING && !t->muted;
}

static void put_running(struct mu_worker *w, struct mu_json_w *jw)
{
    mu_jw_key(jw, "running");
    mu_jw_arr(jw);
    MU_LIST_EACH(it, tmp, &w->tasks)
    {
        const struct mu_attempt *t = MU_CONTAINER(it, struct mu_attempt, link);
        if (!is_running(t) || mu_ends_find(w, mu_str(t->execution_id))) {
            continue;
        }
        mu_jw_obj(jw);
        mu_jw_kcstr(jw, "task_id", t->task_id);
        mu_jw_kcstr(jw, "execution_id", t->execution_id);
        mu_jw_ki64(jw, "epoch", t->epoch);
        mu_jw_kcstr(jw, "state", t->told[0] ? t->told : "preparing");
        mu_jw_ki64(jw, "last_seq", t->seq);
        mu_jw_ki64(jw, "terminal_offset", t->log_sent);
        put_time(jw, "since", t->since_ms);
        mu_jw_obj_end(jw);
    }
    mu_jw_arr_end(jw);
    mu_jw_key(jw, "unacked");
    mu_jw_arr(jw);
    MU_LIST_EACH(it, tmp, &w->ends)
    {
        mu_jw_str(jw, mu_str(MU_CONTAINER(it, struct mu_end, link)->execution_id));
    }
    mu_jw_arr_end(jw);
}

static void put_versions(struct mu_json_w *w)
{
    struct utsname u;
    mu_jw_key(w, "runtime_versions");
    mu_jw_obj(w);
    mu_jw_kcstr(w, "muster", MU_VERSION);
    if (uname(&u) == 0) {
        mu_jw_kcstr(w, "kernel", u.release);
        mu_jw_kcstr(w, "arch", u.machine);
    }
    mu_jw_obj_end(w);
}

void mu_uplink_hello(struct mu_worker *w)
{
    struct mu_buf buf;
    mu_buf_init(&buf, MU_WIRE_MAX_MESSAGE);
    struct mu_json_w jw = mu_json_w(&buf);
    mu_jw_obj(&jw);
    mu_jw_kcstr(&jw, "type", "hello");
    mu_jw_key(&jw, "data");
    mu_jw_obj(&jw);
    mu_jw_ki64(&jw, "proto", 2);
    mu_jw_kcstr(&jw, "instance", w->instance);
    mu_jw_kcstr(&jw, "name", w->conf->worker_id);
    mu_jw_kcstr(&jw, "hostname", w->hostname);
    mu_jw_kcstr(&jw, "version", MU_VERSION);
    mu_jw_kcstr(&jw, "build_id", MU_VERSION);
    mu_jw_key(&jw, "sandbox");
    mu_jw_arr(&jw);
    for (size_t i = 0; i < w->n_backends; i++) {
        if (w->backends[i].checked) {
            put_report(&jw, &w->backends[i].report);
        }
    }
    mu_jw_arr_end(&jw);
    mu_jw_ki64(&jw, "capacity", w->conf->capacity);
    put_list(&jw, "harnesses", w->conf->harnesses);
    mu_jw_key(&jw, "features");
    mu_jw_arr(&jw);
    for (const char *const *f = w->conf->features; f && *f; f++) {
        mu_jw_str(&jw, mu_str(*f));
    }
    mu_policy_features(w, &jw);
    if (mu_worker_git(w)) {
        mu_jw_str(&jw, MU_B("skills"));
    }
    mu_jw_arr_end(&jw);
    put_list(&jw, "labels", w->conf->labels);
    put_versions(&jw);
    put_running(w, &jw);
    mu_jw_obj_end(&jw);
    mu_jw_obj_end(&jw);
    mu_uplink_send(w, &buf);
    mu_buf_fini(&buf);
}

/* --- heartbeat --- */

static int64_t cpu_percent(const struct sysinfo *si)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    double load = (double)si->loads[0] / 65536.0 / (double)MU_MAX(cores, 1L);
    return (int64_t)MU_MIN(load * 100.0, 100.0);
}

void mu_uplink_beat(struct mu_worker *w)
{
    struct mu_buf buf;
    struct sysinfo si;
    size_t n = 0;
    mu_buf_init(&buf, 1 << 20);
    struct mu_json_w jw = mu_json_w(&buf);
    mu_jw_obj(&jw);
    mu_jw_kcstr(&jw, "type", "heartbeat");
    mu_jw_key(&jw, "data");
    mu_jw_obj(&jw);
    mu_jw_kcstr(&jw, "runnerId", w->link.runner_id[0] ? w->link.runner_id : w->conf->worker_id);
    put_time(&jw, "timestamp", mu_env_wall_ms(w->env));
    mu_jw_key(&jw, "activeSessions");
    mu_jw_arr(&jw);
    MU_LIST_EACH(it, tmp, &w->tasks)
    {
        const struct mu_attempt *t = MU_CONTAINER(it, struct mu_attempt, link);
        if (is_running(t) && n++ < MAX_SESSIONS) {
            mu_jw_str(&jw, mu_str(t->task_id));
        }
    }
    mu_jw_arr_end(&jw);
    mu_jw_key(&jw, "load");
    mu_jw_obj(&jw);
    if (sysinfo(&si) == 0 && si.totalram > 0) {
        mu_jw_ki64(&jw, "cpuPercent", cpu_percent(&si));
        mu_jw_ki64(&jw, "memoryPercent",
                   (int64_t)((si.totalram - si.freeram - si.bufferram) / (si.totalram / 100 + 1)));
    }
    mu_jw_obj_end(&jw);
    mu_jw_key(&jw, "runtimeVersions");
    mu_jw_obj(&jw);
    mu_jw_obj_end(&jw);
    mu_jw_ki64(&jw, "sequence", ++w->link.heartbeats);
    mu_jw_obj_end(&jw);
    mu_jw_obj_end(&jw);
    mu_uplink_send(w, &buf);
    mu_buf_fini(&buf);
}

/* --- the connection is of use from now on --- */

/* What a server may have missed of a task that goes on. */
static void tell_again(struct mu_attempt *t)
{
    struct mu_worker *w = t->w;
    struct mu_buf buf;
    if (!is_running(t) || mu_ends_find(w, mu_str(t->execution_id))) {
        return;
    }
    mu_buf_init(&buf, 4096);
    if (!mu_uplink_native(w) || t->acked_seq < t->claim_seq) {
        const struct mu_wire_ids ids = mu_attempt_ids(t, t->claim_seq);
        mu_wire_claimed(&buf, &ids);
        mu_uplink_send(w, &buf);
    }
    if (mu_uplink_native(w) && t->told[0] && t->acked_seq < t->told_seq) {
        const struct mu_wire_ids ids = mu_attempt_ids(t, t->told_seq);
        mu_buf_clear(&buf);
        mu_wire_state(&buf, &ids, t->told, NULL);
        mu_uplink_send(w, &buf);
    }
    mu_buf_fini(&buf);
}

void mu_uplink_ready(struct mu_worker *w)
{
    mu_timer_clear(&w->link.greet);
    MU_LIST_EACH(it, tmp, &w->tasks)
    {
        tell_again(MU_CONTAINER(it, struct mu_attempt, link));
    }
    mu_ends_pump(w);
    if (w->phase >= MU_PHASE_DRAINING && mu_uplink_native(w)) {
        struct mu_buf buf;
        mu_buf_init(&buf, 256);
        mu_wire_drain(&buf, "SIGTERM");
        mu_uplink_send(w, &buf);
        mu_buf_fini(&buf);
    }
    mu_worker_advance(w);
}

/* --- what arrives --- */

/* Given once, at an enrolment: kept for the next start. */
static void keep_credential(struct mu_worker *w, mu_bytes credential)
{
    char path[4200], tmp[4210];
    struct mu_uplink *l = &w->link;
    if (credential.len == 0 || credential.len >= sizeof l->credential ||
        memchr(credential.ptr, '\n', credential.len) || memchr(credential.ptr, 0, credential.len)) {
        return;
    }
    snprintf(path, sizeof path, "%s/credential", w->conf->state_dir);
    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    MU_AUTO_CLOSE int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || write(fd, credential.ptr, credential.len) != (ssize_t)credential.len ||
        fsync(fd) < 0 || rename(tmp, path) < 0) {
        mu_log(MU_LOG_ERROR, "link.credential_not_kept", MU_KC("err_message", mu_err_text(-errno)));
        return;
    }
    memcpy(l->credential, credential.ptr, credential.len);
    l->credential[credential.len] = 0;
    mu_log(MU_LOG_INFO, "link.enrolled");
}

static void take_acked(struct mu_worker *w, yyjson_val *ack)
{
    mu_bytes id = mu_json_get_bytes(ack, "execution_id");
    int64_t seq = mu_json_get_i64(ack, "seq", 0);
    struct mu_attempt *t = mu_slots_find(w, MU_B_NONE, id);
    if (t) {
        t->acked_seq = MU_MAX(t->acked_seq, seq);
        mu_lease_acked(t);
    }
    mu_ends_acked(w, id, seq);
}

static void on_welcome(struct mu_worker *w, yyjson_val *data)
{
    struct mu_uplink *l = &w->link;
    bool again = l->state == MU_UPLINK_NATIVE;
    size_t i, n;
    yyjson_val *v;
    l->heartbeat_ms = mu_json_get_i64(data, "heartbeat_interval_ms", 10000);
    l->heartbeat_ms =
        MU_MIN(MU_MAX(l->heartbeat_ms, (int64_t)HEARTBEAT_LEAST_MS), (int64_t)HEARTBEAT_MOST_MS);
    mu_bytes uid = mu_json_get_bytes(data, "worker_uid");
    snprintf(l->runner_id, sizeof l->runner_id, "%.*s", MU_ARGS(uid));
    keep_credential(w, mu_json_get_bytes(data, "credential"));
    w->server_drains = mu_json_get_bool(data, "drain", w->server_drains);
    l->state = MU_UPLINK_NATIVE; /* also from plain: a late welcome still switches */
    yyjson_val *acked = mu_json_get(data, "acked");
    if (yyjson_is_arr(acked)) {
        yyjson_arr_foreach(acked, i, n, v)
        {
            take_acked(w, v);
        }
    }
    yyjson_val *stop = mu_json_get(data, "stop");
    if (yyjson_is_arr(stop)) {
        yyjson_arr_foreach(stop, i, n, v)
        {
            mu_bytes id = mu_json_bytes(v);
            struct mu_attempt *t = mu_slots_find(w, MU_B_NONE, id);
            if (t) {
                mu_log(MU_LOG_INFO, "task.not_wanted", MU_KC("task_id", t->task_id),
                       MU_KC("execution_id", t->execution_id));
                t->muted = true;
                mu_attempt_stop(t, false, "task_cancelled");
            }
            mu_ends_acked(w, id, INT64_MAX);
        }
    }
    (void)!mu_timer_set(&l->beat, l->heartbeat_ms);
    if (!again) {
        mu_log(MU_LOG_INFO, "link.native", MU_KS("worker_uid", uid));
        mu_uplink_ready(w);
    }
}

static void on_command(struct mu_worker *w, yyjson_val *data)
{
    struct mu_buf buf;
    mu_bytes id = mu_json_get_bytes(data, "command_id");
    yyjson_val *what = mu_json_get(data, "command");
    mu_bytes name = yyjson_is_str(what) ? mu_json_bytes(what) : mu_json_get_bytes(what, "type");
    if (mu_bytes_is(name, "skills")) {
        mu_skills_command(w, mu_bytes_head(id, 128), data);
        return;
    }
    if (mu_relay_command(w, name, mu_bytes_head(id, 128), data)) {
        return;
    }
    bool drain = mu_bytes_is(name, "drain"), undrain = mu_bytes_is(name, "undrain");
    if (drain || undrain) {
        w->server_drains = drain;
        mu_log(MU_LOG_INFO, drain ? "worker.drain" : "worker.undrain");
    }
    mu_buf_init(&buf, 4096);
    bool known = drain || undrain;
    mu_wire_command_result(&buf, mu_bytes_head(id, 128), known, known ? NULL : "UNSUPPORTED",
                           known ? NULL : "this worker does not know the command");
    mu_uplink_send(w, &buf);
    mu_buf_fini(&buf);
}

void mu_uplink_message(struct mu_worker *w, mu_bytes text)
{
    struct mu_arena arena;
    struct mu_err err = {0};
    enum mu_wire_type type = MU_WIRE_UNKNOWN;
    yyjson_val *data = NULL;
    mu_arena_init(&arena, MU_WIRE_MAX_ARENA);
    int r = mu_wire_read(&arena, text, &type, &data, &err);
    if (r < 0) {
        mu_log(MU_LOG_WARN, "link.bad_message", MU_KC("err_message", err.text));
        mu_arena_fini(&arena);
        return;
    }
    switch (type) {
    case MU_WIRE_WELCOME:
        on_welcome(w, data);
        break;
    case MU_WIRE_ASSIGNMENT:
        if (w->link.state == MU_UPLINK_GREETING) { /* it did not wait for our hello */
            w->link.state = MU_UPLINK_PLAIN;
            mu_uplink_ready(w);
        }
        mu_slots_assign(w, &arena, data);
        break;
    case MU_WIRE_CANCEL:
        mu_slots_cancel(w, data);
        break;
    case MU_WIRE_ACK:
        take_acked(w, data);
        break;
    case MU_WIRE_COMMAND:
        on_command(w, data);
        break;
    case MU_WIRE_RUNNER:
        mu_relay_message(w, data);
        break;
    case MU_WIRE_HEARTBEAT:
        break;
    case MU_WIRE_UNKNOWN:
        mu_log(MU_LOG_DEBUG, "link.unknown_type");
        break;
    }
    mu_arena_fini(&arena);
    mu_worker_advance(w);
}
