#include "runner/report.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "base/encode.h"
#include "proto/json_write.h"
#include "runner/http.h"

enum {
    BEAT_MS = 20000,
    LOG_MS = 500,
    LOG_MAX = 64 << 10,
    RETRIES = 3,
    CALL_MS = 10000,
    PIPE_BYTES = 1 << 20,
    RECORD = 4096, /* what a pipe takes as one piece */
    ANSWER_MAX = 64 << 10,
    BODY_MAX = 64 << 20,
};

struct record {
    int64_t offset;
    int64_t len;
    char bytes[RECORD - 16];
};
_Static_assert(sizeof(struct record) == RECORD, "a record is one piece of a pipe");

void mu_report_init(struct mu_report *r, const char *token, const char *server, const char *run)
{
    *r = (struct mu_report){.dir = -1, .pipe = -1};
    const char *worker = getenv("OZ_WORKER"), *execution = getenv("OZ_EXECUTION_ID");
    if (!token || !*token || !server || !*server || !run || !*run ||
        (worker && strcmp(worker, "muster") == 0)) {
        return;
    }
    struct mu_buf url MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&url, 4096);
    mu_bytes root = mu_str(server);
    while (root.len && root.ptr[root.len - 1] == '/') {
        root.len--;
    }
    mu_buf_printf(&url, "%.*s/api/v1/agent/runs/%s/report", MU_ARGS(root), run);
    r->url = url.failed ? NULL : mu_bytes_dup(mu_buf_bytes(&url));
    r->token = mu_bytes_dup(mu_str(token));
    r->execution_id = mu_bytes_dup(mu_str(execution ? execution : ""));
    r->on = r->url && r->token && r->execution_id;
}

/* {"execution_id":…,"seq":…,"kind":…  with the brace left open. */
static void begin(struct mu_report *r, struct mu_buf *b, struct mu_json_w *w, const char *kind)
{
    *w = mu_json_w(b);
    mu_jw_obj(w);
    mu_jw_kcstr(w, "execution_id", r->execution_id);
    mu_jw_ki64(w, "seq", ++*r->seq);
    mu_jw_kcstr(w, "kind", kind);
}

static int post(struct mu_report *r, struct mu_procs *p, mu_bytes body)
{
    int result = MU_E_UNAVAILABLE;
    for (int i = 0; i <= RETRIES; i++) {
        struct mu_err err;
        struct mu_buf answer MU_CLEANUP(mu_buf_fini);
        mu_buf_init(&answer, ANSWER_MAX);
        int status = 0;
        bool was = p->stopping;
        struct mu_http_call call = {"POST", r->url, r->token, body, r->dir, r->dir_path, CALL_MS};
        result = mu_http_send(p, &call, &status, &answer, &err);
        if (!result && status < 500 && status != 429) {
            return status < 300 ? 0 : MU_E_FORBIDDEN; /* asking again would not help */
        }
        result = result ? result : MU_E_UNAVAILABLE;
        if (result == MU_E_INVALID || result == MU_E_CANCELLED || result == -ENOSYS ||
            i == RETRIES) {
            break;
        }
        struct pollfd wait = {p->sigfd, POLLIN, 0};
        if (poll(&wait, 1, 500 << i) > 0) {
            mu_procs_signals(p);
            if (p->stopping && !was) {
                break;
            }
        }
    }
    return result;
}

/* --- the process that reports while the task runs --- */

struct teller {
    struct mu_report *r;
    struct mu_procs procs;
    struct mu_buf chunk;
    int64_t offset;     /* of the chunk */
    struct record held; /* read, but not of the chunk */
    bool holding;
};

static void send_chunk(struct teller *t)
{
    if (!t->chunk.len) {
        return;
    }
    struct mu_buf b MU_CLEANUP(mu_buf_fini);
    struct mu_json_w w;
    mu_buf_init(&b, BODY_MAX);
    begin(t->r, &b, &w, "log");
    mu_jw_kcstr(&w, "stream", "stdout");
    mu_jw_ki64(&w, "offset", t->offset);
    mu_jw_kstr(&w, "chunk", mu_buf_bytes(&t->chunk));
    mu_jw_obj_end(&w);
    if (!b.failed) {
        (void)post(t->r, &t->procs, mu_buf_bytes(&b));
    }
    mu_buf_clear(&t->chunk);
}

static void send_beat(struct teller *t)
{
    struct mu_buf b MU_CLEANUP(mu_buf_fini);
    struct mu_json_w w;
    mu_buf_init(&b, 4096);
    begin(t->r, &b, &w, "heartbeat");
    mu_jw_obj_end(&w);
    if (!b.failed) {
        (void)post(t->r, &t->procs, mu_buf_bytes(&b));
    }
}

/* Records that follow one another become one chunk. False: the pipe's other end is closed. */
static bool gather(struct teller *t, int fd)
{
    while (t->chunk.len + RECORD <= LOG_MAX) {
        if (!t->holding) {
            ssize_t n = read(fd, &t->held, sizeof t->held);
            if (n == 0) {
                return false;
            }
            if (n != (ssize_t)sizeof t->held) {
                return true; /* nothing now */
            }
        }
        t->holding = false;
        if (!t->chunk.len) {
            t->offset = t->held.offset;
        } else if (t->held.offset != t->offset + (int64_t)t->chunk.len) {
            t->holding = true; /* something was dropped between */
            return true;
        }
        mu_buf_add(&t->chunk, mu_bytes_of(t->held.bytes, (size_t)t->held.len));
    }
    return true;
}

static MU_NORETURN void tell(struct mu_report *r, int fd)
{
    struct teller t = {.r = r};
    struct mu_err err;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    mu_buf_init(&t.chunk, LOG_MAX);
    if (mu_procs_init(&t.procs, &err) < 0) {
        _exit(1);
    }
    int64_t beat = 0;
    for (bool open = true; open;) {
        if (!beat || mu_mono_ms() - beat >= BEAT_MS) {
            beat = mu_mono_ms();
            send_beat(&t);
        }
        struct pollfd none = {-1, 0, 0};
        (void)poll(&none, 1, LOG_MS);
        mu_procs_signals(&t.procs);
        open = gather(&t, fd);
        send_chunk(&t);
    }
    _exit(0);
}

void mu_report_start(struct mu_report *r, int dir, const char *root, struct mu_procs *p)
{
    int fds[2];
    if (!r->on) {
        return;
    }
    r->dir = dir;
    snprintf(r->dir_path, sizeof r->dir_path, "%s/.oz", root);
    void *shared =
        mmap(NULL, sizeof *r->seq, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0) {
        r->on = false;
        return;
    }
    r->seq = shared;
    (void)fcntl(fds[1], F_SETPIPE_SZ, PIPE_BYTES);
    r->pid = fork();
    if (r->pid == 0) {
        close(fds[1]);
        close(p->sigfd);
        tell(r, fds[0]);
    }
    close(fds[0]);
    if (r->pid < 0) {
        close(fds[1]);
        return;
    }
    r->pipe = fds[1];
    p->spare[MU_SPARE_REPORT] = r->pid;
}

void mu_report_log(struct mu_report *r, int64_t offset, mu_bytes piece)
{
    while (r->pipe >= 0 && piece.len) {
        struct record rec = {.offset = offset};
        size_t n = MU_MIN(piece.len, sizeof rec.bytes);
        rec.len = (int64_t)n;
        memcpy(rec.bytes, piece.ptr, n);
        (void)!write(r->pipe, &rec, sizeof rec);
        offset += (int64_t)n;
        piece = mu_bytes_from(piece, n);
    }
}

static void send_result(struct mu_report *r, struct mu_procs *p, const struct mu_result *result,
                        mu_bytes output)
{
    struct mu_buf b MU_CLEANUP(mu_buf_fini);
    struct mu_json_w w;
    mu_buf_init(&b, BODY_MAX);
    begin(r, &b, &w, "result");
    mu_buf_add_char(&b, ',');
    mu_result_add(&b, result);
    mu_jw_kstr(&w, "output", output);
    mu_jw_obj_end(&w);
    int e = b.failed ? b.failed : post(r, p, mu_buf_bytes(&b));
    if (e) {
        mu_note("the result was not reported: %s", mu_err_text(e));
    }
}

void mu_report_end(struct mu_report *r, struct mu_procs *p, const struct mu_result *result,
                   mu_bytes output)
{
    if (r->pid > 0) {
        if (p->spare[MU_SPARE_REPORT]) { /* else it was reaped already */
            (void)kill(r->pid, SIGKILL);
            (void)waitpid(r->pid, NULL, 0);
            p->spare[MU_SPARE_REPORT] = 0;
        }
        close(r->pipe);
        r->pipe = -1;
    }
    if (r->on && r->seq) {
        send_result(r, p, result, output);
        (void)munmap(r->seq, sizeof *r->seq);
        r->seq = NULL;
    }
    if (r->token) {
        explicit_bzero(r->token, strlen(r->token));
    }
    mu_free(r->url);
    mu_free(r->token);
    mu_free(r->execution_id);
    *r = (struct mu_report){.dir = -1, .pipe = -1};
}
