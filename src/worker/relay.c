/* Between the runner of a live session, on a unix socket, and the server, on the link: messages and
 * terminal bytes pass and are not understood. The runner's connection lives no longer than the
 * link: what was lost with either is said again by the runner (docs/runner-protocol.md). */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/crypt.h"
#include "base/encode.h"
#include "base/log.h"
#include "io/folder.h"
#include "net/local.h"
#include "proto/frame.h"
#include "worker/worker_int.h"

enum {
    HELLO_MS = 5000,
    LINK_BACKLOG = 4 << 20, /* unsent bytes of the link above which runners are not read */
    HOLD_STEP_MS = 2,
    MESSAGE_ARENA = 16 << 20,
    BINARY_HEAD = 32,
};

static const struct mu_json_limits limits = {.max_bytes = MU_FRAME_JSON_MAX, .max_depth = 64};

/* A connection: at first anybody's of the sandbox, after its hello the runner's. */
struct peer {
    struct mu_relay *r;
    struct mu_local *conn;
    struct mu_frame_in in;
    bool greeted;
};

struct mu_relay {
    struct mu_attempt *t;
    struct mu_listener *listener;
    struct peer *runner, *newcomer;
    struct mu_timer hello, hold;
    struct mu_puts *puts;
};

/* --- places --- */

/* The kind without namespaces, and direct, see the host's own folders. */
static bool host_paths(const struct mu_attempt *t)
{
    return !strcmp(t->backend->ops->name, "direct") ||
           (!strcmp(t->backend->ops->name, "namespace") &&
            !strcmp(t->backend->report.strength, "weak"));
}

const char *mu_relay_folder(struct mu_attempt *t)
{
    return mu_arena_printf(&t->arena, "%s/link/%s", t->w->conf->state_dir, t->execution_id).ptr;
}

const char *mu_relay_path(struct mu_attempt *t)
{
    const char *folder = mu_relay_folder(t);
    return !folder         ? NULL
           : host_paths(t) ? mu_arena_printf(&t->arena, "%s/runner.sock", folder).ptr
                           : "/run/muster/link/runner.sock";
}

const char *mu_relay_restore(struct mu_attempt *t)
{
    const char *folder = mu_relay_folder(t);
    return !folder         ? NULL
           : host_paths(t) ? mu_arena_printf(&t->arena, "%s/restore", folder).ptr
                           : "/run/muster/link/restore";
}

/* --- to the server --- */

static struct mu_json_w begin(struct mu_buf *b, const struct mu_attempt *t, const char *type)
{
    struct mu_json_w w = mu_json_w(b);
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "type", type);
    mu_jw_key(&w, "data");
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "task_id", t->task_id);
    mu_jw_kcstr(&w, "execution_id", t->execution_id);
    mu_jw_ki64(&w, "epoch", t->epoch);
    return w;
}

static void end(struct mu_json_w *w)
{
    mu_jw_obj_end(w);
    mu_jw_obj_end(w);
}

static void send_frame(struct mu_attempt *t, mu_bytes json)
{
    struct mu_buf b;
    mu_buf_init(&b, MU_WIRE_MAX_MESSAGE);
    struct mu_json_w w = begin(&b, t, "runner");
    mu_jw_key(&w, "frames");
    mu_jw_arr(&w);
    mu_jw_raw(&w, json);
    mu_jw_arr_end(&w);
    end(&w);
    mu_uplink_send(t->w, &b);
    mu_buf_fini(&b);
}

static void put_be(unsigned char *dst, uint64_t v, size_t n)
{
    while (n--) {
        *dst++ = (unsigned char)(v >> (8 * n));
    }
}

/* The id of a session as 16 bytes: task ids of our server are "run_" and a UUID. */
static bool put_session(unsigned char *dst, const char *task_id)
{
    size_t n = 0;
    unsigned high = 0;
    const char *p = strncmp(task_id, "run_", 4) == 0 ? task_id + 4 : task_id;
    for (; *p; p++) {
        int digit = *p >= '0' && *p <= '9' ? *p - '0' : *p >= 'a' && *p <= 'f' ? *p - 'a' + 10 : -1;
        if (*p == '-') {
            continue;
        }
        if (digit < 0 || n >= 32) {
            return false;
        }
        if (n++ % 2) {
            *dst++ = (unsigned char)(high << 4 | (unsigned)digit);
        } else {
            high = (unsigned)digit;
        }
    }
    return n == 32;
}

static int send_terminal(struct mu_attempt *t, mu_bytes payload)
{
    struct mu_frame_term f;
    unsigned char head[BINARY_HEAD] = {1};
    int r = mu_frame_term_parse(payload, &f);
    if (r < 0 || !put_session(head + 4, t->task_id)) {
        return MU_E_PROTOCOL;
    }
    head[1] = (unsigned char)f.terminal;
    put_be(head + 20, (uint64_t)t->epoch, 4);
    put_be(head + 24, f.offset, 8);
    mu_ws_send2(t->w->link.ws, false, mu_bytes_of((const char *)head, sizeof head), f.data);
    return 0;
}

/* --- connections --- */

static struct peer *peer_free(struct peer *p)
{
    if (p) {
        p->conn = mu_local_close(p->conn);
        mu_frame_in_fini(&p->in);
        mu_free(p);
    }
    return NULL;
}

static bool is_open(const struct mu_relay *r)
{
    const struct mu_attempt *t = r->t;
    return mu_uplink_native(t->w) && t->w->link.ws && !t->muted && t->state == MU_ATTEMPT_STARTED;
}

static void drop_runner(struct mu_relay *r)
{
    bool was = r->runner != NULL;
    mu_timer_clear(&r->hold);
    r->runner = peer_free(r->runner);
    if (was && is_open(r)) {
        send_frame(r->t, MU_B("{\"type\":\"gone\"}"));
    }
}

static void drop(struct peer *p)
{
    struct mu_relay *r = p->r;
    if (p == r->runner) {
        drop_runner(r);
    } else {
        mu_timer_clear(&r->hello);
        r->newcomer = peer_free(p);
    }
}

/* Its key is ours to check and nobody's to see. */
static bool take_hello(struct peer *p, yyjson_val *m)
{
    struct mu_relay *r = p->r;
    mu_bytes key = mu_json_get_bytes(m, "key");
    if (!mu_bytes_is(mu_json_get_bytes(m, "type"), "hello") ||
        !mu_same_secret(key, mu_str(r->t->link_key))) {
        return false;
    }
    struct mu_buf b;
    size_t i, n;
    yyjson_val *k, *v;
    mu_buf_init(&b, MU_FRAME_JSON_MAX);
    struct mu_json_w w = mu_json_w(&b);
    mu_jw_obj(&w);
    yyjson_obj_foreach(m, i, n, k, v)
    {
        if (!mu_bytes_is(mu_json_bytes(k), "key")) {
            mu_jw_str(&w, mu_json_bytes(k));
            mu_buf_add_char(&b, ':');
            mu_json_add(&b, v);
            w.comma = true;
        }
    }
    mu_jw_obj_end(&w);
    bool ok = !b.failed;
    if (ok) {
        r->runner = peer_free(r->runner); /* the same runner, which lost that one */
        r->runner = p;
        r->newcomer = NULL;
        p->greeted = true;
        mu_timer_clear(&r->hello);
        send_frame(r->t, mu_buf_bytes(&b));
    }
    mu_buf_fini(&b);
    return ok;
}

static bool give_frame(struct mu_relay *r, enum mu_frame_kind kind, mu_bytes json)
{
    struct mu_buf frame;
    mu_buf_init(&frame, MU_FRAME_JSON_MAX + MU_FRAME_HEAD);
    bool ok = mu_frame_add(&frame, kind, json) == 0 &&
              mu_local_send(r->runner->conn, mu_buf_bytes(&frame)) == 0;
    mu_buf_fini(&frame);
    return ok;
}

void mu_relay_put_answer(struct mu_relay *r, mu_bytes json)
{
    /* not ended when that fails: who calls may be in the middle of one of its frames */
    if (r && r->runner && !give_frame(r, MU_FRAME_PUT, json)) {
        mu_log(MU_LOG_WARN, "runner.not_answered", MU_KC("task_id", r->t->task_id));
    }
}

static int take_put(struct peer *p, yyjson_val *m)
{
    struct mu_relay *r = p->r;
    if (!p->greeted) {
        return MU_E_PROTOCOL;
    }
    r->puts = r->puts ? r->puts : mu_puts_new(r->t);
    return r->puts ? mu_puts_take(r->puts, m) : -ENOMEM;
}

static int on_frame(void *arg, enum mu_frame_kind kind, mu_bytes payload)
{
    struct peer *p = arg;
    struct mu_attempt *t = p->r->t;
    if (kind == MU_FRAME_BYTES) {
        return p->greeted ? send_terminal(t, payload) : MU_E_PROTOCOL;
    }
    struct mu_arena a;
    yyjson_val *m;
    mu_arena_init(&a, MESSAGE_ARENA);
    int r = mu_json_read(&a, payload, &limits, &m, NULL);
    if (r == 0 && !yyjson_is_obj(m)) {
        r = MU_E_PROTOCOL;
    }
    if (r == 0 && kind == MU_FRAME_PUT) {
        r = take_put(p, m);
    } else if (r == 0 && !p->greeted) {
        r = take_hello(p, m) ? 0 : MU_E_FORBIDDEN;
    } else if (r == 0) { /* written anew: nothing in it can end our own message */
        struct mu_buf b;
        mu_buf_init(&b, 8 * MU_FRAME_JSON_MAX);
        mu_json_add(&b, m);
        r = b.failed;
        if (r == 0) {
            send_frame(t, mu_buf_bytes(&b));
        }
        mu_buf_fini(&b);
    }
    mu_arena_fini(&a);
    return r;
}

static void on_hold(struct mu_timer *timer)
{
    struct mu_relay *r = MU_CONTAINER(timer, struct mu_relay, hold);
    bool full = r->t->w->link.ws && mu_ws_unsent(r->t->w->link.ws) > LINK_BACKLOG / 2;
    if (!full || mu_timer_set(timer, HOLD_STEP_MS) < 0) {
        mu_local_hold(r->runner->conn, false);
    }
}

static void on_data(void *arg, mu_bytes bytes)
{
    struct peer *p = arg;
    struct mu_relay *r = p->r;
    int x = is_open(r) ? mu_frame_feed(&p->in, bytes, on_frame, p) : MU_E_CLOSED;
    if (x < 0) {
        mu_log(MU_LOG_DEBUG, "runner.closed", MU_KC("task_id", r->t->task_id),
               MU_KC("err_message", mu_err_text(x)));
        drop(p);
    } else if (p == r->runner && mu_ws_unsent(r->t->w->link.ws) > LINK_BACKLOG &&
               mu_timer_set(&r->hold, HOLD_STEP_MS) == 0) {
        mu_local_hold(p->conn, true);
    }
}

static void on_ended(void *arg)
{
    drop(arg);
}

static const struct mu_local_ops peer_ops = {on_data, NULL, on_ended};

static void on_hello_time(struct mu_timer *timer)
{
    struct mu_relay *r = MU_CONTAINER(timer, struct mu_relay, hello);
    r->newcomer = peer_free(r->newcomer);
}

static void accepted(void *arg, struct mu_local *conn)
{
    struct mu_relay *r = arg;
    struct peer *p = is_open(r) ? mu_calloc(1, sizeof *p) : NULL;
    if (!p || mu_timer_set(&r->hello, HELLO_MS) < 0) {
        mu_free(p);
        mu_local_close(conn);
        return;
    }
    peer_free(r->newcomer);
    r->newcomer = p;
    p->r = r;
    p->conn = conn;
    mu_frame_in_init(&p->in);
    mu_local_start(conn, &peer_ops, p);
}

/* --- life --- */

/* Whoever the task is inside may reach what lies in its folder; the one above is only ours. */
static int make_folder(const char *path, mode_t mode)
{
    int r = mkdir(path, mode) < 0 && errno != EEXIST ? -errno : 0;
    return r < 0 || chmod(path, mode) == 0 ? r : -errno;
}

static void make_key(struct mu_attempt *t)
{
    unsigned char bytes[32];
    if (!t->link_key[0]) {
        t->w->env->random(t->w->env, bytes, sizeof bytes);
        mu_hex(bytes, sizeof bytes, t->link_key);
        explicit_bzero(bytes, sizeof bytes);
    }
}

int mu_relay_open(struct mu_attempt *t)
{
    char path[4400];
    snprintf(path, sizeof path, "%s/link", t->w->conf->state_dir);
    int r = make_folder(path, 0700);
    snprintf(path, sizeof path, "%s/link/%s", t->w->conf->state_dir, t->execution_id);
    r = r < 0 ? r : make_folder(path, 0711);
    struct mu_relay *relay = r < 0 ? NULL : mu_calloc(1, sizeof *relay);
    if (!relay) {
        return r < 0 ? r : -ENOMEM;
    }
    make_key(t);
    relay->t = t;
    mu_timer_init(&relay->hello, t->w->loop, on_hello_time);
    mu_timer_init(&relay->hold, t->w->loop, on_hold);
    r = mu_local_listen(t->w->loop, path, "runner.sock", accepted, relay, &relay->listener);
    if (r < 0) {
        mu_free(relay);
        return r;
    }
    t->relay = relay;
    t->has_folder = false; /* the relay's from here on */
    return 0;
}

struct removal {
    struct mu_job job;
    char path[4400];
};

static void run_removal(struct mu_job *job)
{
    (void)mu_folder_remove(MU_CONTAINER(job, struct removal, job)->path);
}

static void removed(struct mu_job *job)
{
    if (!job->ran) { /* the worker ends */
        run_removal(job);
    }
    mu_free(MU_CONTAINER(job, struct removal, job));
}

/* With what it was restored from, which may be thousands of files, and after what is still being
 * stored there: the pool has one thread. */
void mu_relay_remove(struct mu_attempt *t)
{
    char path[4400];
    snprintf(path, sizeof path, "%s/link/%s", t->w->conf->state_dir, t->execution_id);
    if (rmdir(path) == 0) {
        return;
    }
    struct mu_work *work = mu_worker_work(t->w);
    struct removal *x = work ? mu_calloc(1, sizeof *x) : NULL;
    if (x) {
        x->job = (struct mu_job){.run = run_removal, .done = removed, .loop = t->w->loop};
        memcpy(x->path, path, sizeof path);
    }
    if (!x || mu_work_submit(work, &x->job) < 0) {
        mu_free(x);
        (void)mu_folder_remove(path);
    }
}

struct mu_relay *mu_relay_close(struct mu_relay *r, bool remove)
{
    if (!r) {
        return NULL;
    }
    mu_timer_clear(&r->hello);
    mu_timer_clear(&r->hold);
    peer_free(r->newcomer);
    peer_free(r->runner);
    mu_puts_free(r->puts);
    mu_listener_close(r->listener);
    if (remove) {
        mu_relay_remove(r->t);
    }
    mu_free(r);
    return NULL;
}

void mu_relay_sweep(struct mu_worker *w)
{
    char path[4400];
    snprintf(path, sizeof path, "%s/link", w->conf->state_dir);
    DIR *d = opendir(path);
    struct dirent *e;
    while (d && (e = readdir(d))) {
        if (e->d_name[0] != '.' && !mu_slots_find(w, MU_B_NONE, mu_str(e->d_name))) {
            (void)mu_folder_remove_at(dirfd(d), e->d_name);
        }
    }
    if (d) {
        closedir(d);
    }
}

void mu_relay_down(struct mu_worker *w)
{
    MU_LIST_EACH(it, tmp, &w->tasks)
    {
        struct mu_relay *r = MU_CONTAINER(it, struct mu_attempt, link)->relay;
        if (r) {
            mu_timer_clear(&r->hello);
            mu_timer_clear(&r->hold);
            r->newcomer = peer_free(r->newcomer);
            r->runner = peer_free(r->runner);
        }
    }
}

/* --- from the server --- */

static struct mu_attempt *find(struct mu_worker *w, yyjson_val *data)
{
    struct mu_attempt *t = mu_slots_find(w, mu_json_get_bytes(data, "task_id"),
                                         mu_json_get_bytes(data, "execution_id"));
    return t && t->epoch == mu_json_get_i64(data, "epoch", -1) ? t : NULL;
}

static bool give(struct mu_relay *r, yyjson_val *m)
{
    struct mu_buf json;
    mu_buf_init(&json, MU_FRAME_JSON_MAX);
    mu_json_add(&json, m);
    bool ok = !json.failed && give_frame(r, MU_FRAME_JSON, mu_buf_bytes(&json));
    mu_buf_fini(&json);
    return ok;
}

void mu_relay_message(struct mu_worker *w, yyjson_val *data)
{
    struct mu_attempt *t = find(w, data);
    struct mu_relay *r = t ? t->relay : NULL;
    yyjson_val *frames = mu_json_get(data, "frames"), *m;
    size_t i, n;
    if (!r || !yyjson_is_arr(frames)) {
        return;
    }
    yyjson_arr_foreach(frames, i, n, m)
    {
        if (!r->runner) {
            return; /* it comes anew, and is told then */
        }
        bool again = mu_bytes_is(mu_json_get_bytes(m, "type"), "reconnect");
        if (again || !give(r, m)) { /* what it missed is part of the next connection */
            drop_runner(r);
        }
    }
}

/* --- pause and resume --- */

struct pause {
    struct mu_worker *w;
    char execution_id[MU_WIRE_MAX_EXECUTION_ID + 1], command_id[129];
};

static void answer(struct mu_worker *w, mu_bytes execution_id, const char *command_id, int result)
{
    struct mu_attempt *t = mu_slots_find(w, MU_B_NONE, execution_id);
    struct mu_buf b;
    if (!t || !mu_uplink_native(w)) {
        return;
    }
    mu_buf_init(&b, 4096);
    struct mu_json_w jw = begin(&b, t, "command_result");
    mu_jw_kcstr(&jw, "command_id", command_id);
    mu_jw_kbool(&jw, "ok", result == 0);
    if (result < 0) {
        mu_jw_kcstr(&jw, "message", mu_err_text(result));
    }
    end(&jw);
    mu_uplink_send(w, &b);
    mu_buf_fini(&b);
}

static void frozen(void *arg, int result)
{
    struct pause *p = arg;
    answer(p->w, mu_str(p->execution_id), p->command_id, result);
    mu_free(p);
}

bool mu_relay_command(struct mu_worker *w, mu_bytes name, mu_bytes id, yyjson_val *data)
{
    bool pause = mu_bytes_is(name, "pause");
    if (!pause && !mu_bytes_is(name, "resume")) {
        return false;
    }
    struct mu_attempt *t = find(w, data);
    struct pause *p = t ? mu_calloc(1, sizeof *p) : NULL;
    if (!p) {
        return t == NULL; /* an attempt that is over: the server knows */
    }
    p->w = w;
    snprintf(p->execution_id, sizeof p->execution_id, "%s", t->execution_id);
    snprintf(p->command_id, sizeof p->command_id, "%.*s", MU_ARGS(id));
    if (t->state != MU_ATTEMPT_STARTED || !t->backend->ops->freeze || t->stop_reason) {
        frozen(p, MU_E_UNAVAILABLE);
    } else {
        t->backend->ops->freeze(t->sandbox, pause, frozen, p);
    }
    return true;
}
