#include "runner/live_link.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/encode.h"
#include "base/err.h"
#include "runner/procs.h"

enum {
    RETRY_FIRST_MS = 50,
    RETRY_MAX_MS = 2000,
    RETRY_FAR_MS = 1000, /* of a server that may be far away */
    RETRY_FAR_MAX_MS = 30000,
    PING_MS = 30000,
    READ_BLOCK = 32 << 10,
    READS = 8
};

struct mu_link_note {
    char *text; /* JSON */
    size_t len;
};

static int64_t first_retry(const struct mu_link *l)
{
    return l->ws ? RETRY_FAR_MS : RETRY_FIRST_MS;
}

static void later(struct mu_link *l)
{
    l->retry_at = mu_mono_ms() + l->retry_ms;
    l->retry_ms = MU_MIN(l->retry_ms * 2, (int64_t)(l->ws ? RETRY_FAR_MAX_MS : RETRY_MAX_MS));
}

static int begin_link(struct mu_link *l, struct mu_link_ws *ws, const struct mu_link_ops *ops,
                      void *arg)
{
    *l = (struct mu_link){.ops = ops, .arg = arg, .ws = ws, .fd = -1, .unsent = 1};
    l->retry_ms = first_retry(l);
    mu_frame_in_init(&l->in);
    mu_jtok_init(&l->json);
    mu_buf_init(&l->out, MU_LINK_OUT);
    mu_buf_init(&l->build, MU_FRAME_JSON_MAX);
    mu_buf_init(&l->clean, MU_FRAME_JSON_MAX);
    l->notes = mu_calloc(MU_LINK_MESSAGES, sizeof *l->notes);
    return l->notes ? 0 : -ENOMEM;
}

int mu_link_init_ws(struct mu_link *l, struct mu_link_ws *ws, const struct mu_link_ops *ops,
                    void *arg)
{
    return begin_link(l, ws, ops, arg);
}

int mu_link_init(struct mu_link *l, const char *path, const char *key,
                 const struct mu_link_ops *ops, void *arg)
{
    int r = begin_link(l, NULL, ops, arg);
    mu_bytes k = mu_str(key);
    bool good = k.len == 64 && strlen(path) < sizeof l->path;
    for (size_t i = 0; i < k.len && good; i++) {
        good = mu_hex_value(k.ptr[i]) >= 0;
    }
    if (!good) {
        return MU_E_INVALID;
    }
    memcpy(l->path, path, strlen(path) + 1);
    memcpy(l->key, key, sizeof l->key);
    return r;
}

static struct mu_link_note *note(const struct mu_link *l, size_t i)
{
    return &l->notes[(l->head + i) % MU_LINK_MESSAGES];
}

void mu_link_fini(struct mu_link *l)
{
    mu_link_down(l);
    for (size_t i = 0; i < l->n; i++) {
        mu_free(note(l, i)->text);
    }
    mu_free(l->notes);
    l->notes = NULL;
    l->n = 0;
    mu_frame_in_fini(&l->in);
    mu_jtok_fini(&l->json);
    mu_buf_fini(&l->out);
    mu_buf_fini(&l->build);
    l->ws = mu_link_ws_free(l->ws);
    mu_buf_fini(&l->clean);
    explicit_bzero(l->key, sizeof l->key);
}

/* --- what is said --- */

static struct mu_json_w *begin(struct mu_link *l, const char *type)
{
    mu_buf_clear(&l->build);
    l->w = mu_json_w(&l->build);
    mu_jw_obj(&l->w);
    mu_jw_kcstr(&l->w, "type", type);
    return &l->w;
}

struct mu_json_w *mu_link_begin(struct mu_link *l, const char *type)
{
    struct mu_json_w *w = begin(l, type);
    l->numbered = true;
    mu_jw_ki64(w, "seq", l->last + 1);
    return w;
}

struct mu_json_w *mu_link_say(struct mu_link *l, const char *type)
{
    if (!l->up || !mu_link_room(l)) {
        return NULL;
    }
    l->numbered = false;
    return begin(l, type);
}

bool mu_link_put(struct mu_link *l, mu_bytes json)
{
    return mu_link_room(l) && mu_frame_add(&l->out, MU_FRAME_PUT, json) == 0;
}

bool mu_link_room(const struct mu_link *l)
{
    return l->up && l->out.len < MU_LINK_SOFT;
}

bool mu_link_full(const struct mu_link *l)
{
    return l->bytes > MU_LINK_BYTES - MU_LINK_SLACK ||
           l->n > MU_LINK_MESSAGES - MU_LINK_SLACK_MESSAGES;
}

static void keep(struct mu_link *l)
{
    size_t len = l->build.len;
    if (l->n == MU_LINK_MESSAGES || l->bytes + len > MU_LINK_BYTES) {
        l->failed = MU_E_TOO_LARGE;
        return;
    }
    char *text = mu_bytes_dup(mu_buf_bytes(&l->build));
    if (!text) {
        l->failed = -ENOMEM;
        return;
    }
    *note(l, l->n++) = (struct mu_link_note){text, len};
    l->bytes += len;
    l->last++;
}

/* The numbered ones, in their order, as far as there is room. */
static void send_notes(struct mu_link *l)
{
    int64_t first = l->last - (int64_t)l->n + 1;
    while (mu_link_room(l) && l->unsent <= l->last) {
        const struct mu_link_note *n = note(l, (size_t)(l->unsent - first));
        if (mu_frame_add(&l->out, MU_FRAME_JSON, mu_bytes_of(n->text, n->len)) < 0) {
            return;
        }
        l->unsent++;
    }
}

/* Words that the protocol has, and names of files that have to be found again. */
static void hide_secrets(struct mu_link *l)
{
    static const char *const keep[] = {"type",
                                       "status",
                                       "kind",
                                       "step",
                                       "outcome",
                                       "phase",
                                       "turnId",
                                       "adapter",
                                       "providerId",
                                       "conversationId",
                                       "workspacePath",
                                       "events.type",
                                       "approval.action",
                                       "approval.risk",
                                       NULL};
    /* what agents and tools call theirs is in an event's data, or in args */
    static const struct mu_redact_own ours = {keep, 4, "args"};
    bool own = mu_bytes_starts(mu_buf_bytes(&l->build), MU_B("{\"type\":\"checkpoint\""));
    if (l->build.failed || own || !mu_redact_any(l->redact)) {
        return;
    }
    mu_buf_clear(&l->clean);
    int e = mu_redact_json(l->redact, mu_buf_bytes(&l->build), &ours, false, &l->clean);
    if (e == MU_E_TOO_LARGE) { /* marks may be longer than what they stand for */
        mu_buf_clear(&l->clean);
        e = mu_redact_json(l->redact, mu_buf_bytes(&l->build), &ours, true, &l->clean);
    }
    struct mu_buf was = l->build;
    l->build = l->clean;
    l->clean = was;
    l->build.failed = e;
}

void mu_link_end(struct mu_link *l)
{
    mu_jw_obj_end(&l->w);
    if (l->numbered || l->up) { /* not the greeting, which is for the worker */
        hide_secrets(l);
    }
    if (l->build.failed) {
        l->failed = l->numbered ? l->build.failed : l->failed;
    } else if (l->numbered) {
        keep(l);
        send_notes(l);
    } else if (mu_frame_add(&l->out, MU_FRAME_JSON, mu_buf_bytes(&l->build)) < 0) {
        l->drop = true; /* not here: what calls may be in the middle of a frame */
    }
}

void mu_link_acked(struct mu_link *l, int64_t seq, bool anew)
{
    /* a server that takes nothing of what waits is not asked ever faster */
    if (!l->n || l->last - (int64_t)l->n + 1 <= seq) {
        l->retry_ms = first_retry(l);
    }
    while (l->n && l->last - (int64_t)l->n + 1 <= seq) {
        struct mu_link_note *n = note(l, 0);
        l->bytes -= n->len;
        mu_free(n->text);
        *n = (struct mu_link_note){NULL, 0};
        l->head = (l->head + 1) % MU_LINK_MESSAGES;
        l->n--;
    }
    int64_t first = l->last - (int64_t)l->n + 1;
    l->unsent = anew ? first : MU_MAX(l->unsent, first);
}

/* --- the connection --- */

void mu_link_down(struct mu_link *l)
{
    if (l->fd >= 0 && l->ws) {
        const char *words;
        mu_link_ws_close(l->ws);
        l->verdict = mu_link_ws_verdict(l->ws, &words);
        snprintf(l->words, sizeof l->words, "%s", words);
    } else if (l->fd >= 0) {
        close(l->fd);
    }
    if (l->fd >= 0) {
        later(l);
    }
    l->fd = -1;
    l->up = l->drop = false;
    mu_frame_in_fini(&l->in);
    mu_frame_in_init(&l->in);
    mu_buf_fini(&l->out);
    mu_buf_clear(&l->out);
}

static int connect_unix(const struct mu_link *l)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    memcpy(a.sun_path, l->path, sizeof a.sun_path);
    int fd MU_AUTO_CLOSE = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0) {
        return -errno;
    }
    return mu_steal_fd(&fd);
}

static void connect_now(struct mu_link *l)
{
    int fd = l->ws ? mu_link_ws_open(l->ws) : connect_unix(l);
    if (fd < 0) {
        later(l);
        return;
    }
    l->fd = fd;
    struct mu_json_w *w = begin(l, "hello");
    l->numbered = false;
    if (!l->ws) {
        mu_jw_kcstr(w, "key", l->key);
    }
    l->ops->hello(l->arg, w);
    mu_link_end(l);
}

static int take(void *arg, enum mu_frame_kind kind, mu_bytes payload)
{
    struct mu_link *l = arg;
    if (kind == MU_FRAME_BYTES) {
        return MU_E_PROTOCOL;
    }
    int r = mu_jtok_parse(&l->json, payload);
    if (r || mu_jtok_kind(&l->json, 0) != MU_JTOK_OBJECT) {
        return r ? r : MU_E_PROTOCOL;
    }
    if (kind == MU_FRAME_PUT) {
        l->ops->put(l->arg, &l->json);
        return 0;
    }
    int type = mu_jtok_get(&l->json, 0, "type");
    if (!l->up) {
        if (!mu_jtok_is(&l->json, type, MU_B("init"))) {
            return MU_E_PROTOCOL;
        }
        l->up = true;
        l->ups++;
        l->ping_at = mu_mono_ms() + PING_MS;
        int64_t acked = mu_jtok_i64(&l->json, mu_jtok_get(&l->json, 0, "lastAckedSeq"), 0);
        if (acked < 0 || acked > l->last) {
            return MU_E_PROTOCOL;
        }
        mu_link_acked(l, acked, true);
    }
    if (mu_jtok_is(&l->json, type, MU_B("ack"))) {
        int64_t seq = mu_jtok_i64(&l->json, mu_jtok_get(&l->json, 0, "seq"), 0);
        if (seq >= l->unsent) {
            return MU_E_PROTOCOL; /* of what was not sent */
        }
        mu_link_acked(l, seq, false);
        return 0;
    }
    l->ops->message(l->arg, &l->json);
    return 0;
}

static void read_some(struct mu_link *l, short revents)
{
    char block[READ_BLOCK];
    if (l->ws) {
        if (mu_link_ws_read(l->ws, revents, take, l) < 0) {
            mu_link_down(l);
        }
        return;
    }
    for (int i = 0; i < READS && l->fd >= 0; i++) {
        ssize_t n = recv(l->fd, block, sizeof block, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        if (n <= 0 || mu_frame_feed(&l->in, mu_bytes_of(block, (size_t)n), take, l) < 0) {
            mu_link_down(l);
            return;
        }
    }
}

void mu_link_flush(struct mu_link *l)
{
    send_notes(l);
    while (l->fd >= 0 && l->ws) {
        int64_t sent = l->unsent;
        if (mu_link_ws_write(l->ws, &l->out) < 0) {
            mu_link_down(l);
            return;
        }
        send_notes(l);
        if (sent == l->unsent) {
            return;
        }
    }
    while (l->fd >= 0 && l->out.len) {
        ssize_t n = send(l->fd, l->out.ptr, l->out.len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        if (n <= 0) {
            mu_link_down(l);
            return;
        }
        mu_buf_consume(&l->out, (size_t)n);
        send_notes(l);
    }
}

size_t mu_link_want(struct mu_link *l, struct pollfd *fd, int64_t *wait_ms)
{
    int64_t now = mu_mono_ms();
    if (l->fd < 0 && l->verdict != MU_LINK_AGAIN) {
        return 0;
    }
    if (l->fd < 0) {
        *wait_ms = MU_MIN(*wait_ms, MU_MAX(l->retry_at - now, (int64_t)0));
        return 0;
    }
    *wait_ms = l->up ? MU_MIN(*wait_ms, MU_MAX(l->ping_at - now, (int64_t)0)) : *wait_ms;
    short events = (short)(POLLIN | (l->out.len ? POLLOUT : 0));
    events = l->ws ? mu_link_ws_want(l->ws, &l->out, wait_ms) : events;
    *fd = (struct pollfd){l->fd, events, 0};
    return 1;
}

void mu_link_serve(struct mu_link *l, short revents)
{
    int64_t now = mu_mono_ms();
    if (l->fd < 0 && now >= l->retry_at && l->verdict == MU_LINK_AGAIN) {
        connect_now(l);
    } else if (l->fd >= 0 && (revents || l->ws)) { /* the other one has time limits */
        read_some(l, revents);
    }
    if (l->drop) {
        mu_link_down(l);
    }
    if (l->up && now >= l->ping_at) {
        l->ping_at = now + PING_MS;
        if (mu_link_say(l, "ping")) {
            mu_link_end(l);
        }
    }
    mu_link_flush(l);
}
