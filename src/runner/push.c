#include "runner/push.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "exec/agents/shell.h"
#include "io/folder.h"
#include "proto/repo.h"
#include "runner/live_int.h"

enum { COMMAND_MAX = 256 << 10, LISTENER = 0, SHELL_MEMORY = 1 << 20 };
#define PROGRAMS "bin"

void mu_push_init(struct mu_push *p)
{
    *p = (struct mu_push){.listener = -1, .last = MU_PUSH_HANDLE};
    mu_buf_init(&p->credential, MU_PUSH_ANSWER);
    for (size_t i = 0; i < MU_PUSH_CONNS; i++) {
        p->conns[i].fd = -1;
        mu_buf_init(&p->conns[i].in, MU_PUSH_REQUEST);
    }
}

static void leave(struct mu_push_conn *c)
{
    if (c->fd >= 0) {
        close(c->fd);
    }
    mu_buf_fini(&c->in);
    *c = (struct mu_push_conn){.fd = -1};
    mu_buf_init(&c->in, MU_PUSH_REQUEST);
}

void mu_push_fini(struct mu_push *p)
{
    for (size_t i = 0; i < MU_PUSH_CONNS; i++) {
        leave(&p->conns[i]);
    }
    if (p->listener >= 0) {
        close(p->listener);
    }
    p->listener = -1;
    mu_buf_wipe(&p->credential);
}

/* --- keeping it back --- */

static void take_out(struct mu_live *v)
{
    struct mu_push *p = &v->push;
    static const char *const names[] = {MU_REPO_TOKENS};
    for (size_t i = 0; i < MU_ARRAY_LEN(names); i++) {
        const char *value = getenv(names[i]);
        if (value && *value && !strchr(value, '\n')) {
            mu_buf_printf(&p->credential, "%s=%s\n", names[i], value);
        }
        mu_runner_unset(v->r, names[i]);
    }
    mu_runner_unset(v->r, "OZ_ENV_VARS"); /* where they came from */
    mu_runner_unset(v->r, "OZ_ENV_VARS_JSON");
}

static int listen_there(struct mu_live *v)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int oz = v->r->ws.oz;
    int fd MU_AUTO_CLOSE = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    snprintf(a.sun_path, sizeof a.sun_path, "/proc/self/fd/%d/" MU_PUSH_SOCKET, oz);
    mu_folder_remove_at(oz, MU_PUSH_SOCKET);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, MU_PUSH_CONNS) < 0) {
        return -errno;
    }
    v->push.listener = mu_steal_fd(&fd);
    return 0;
}

/* Names for this program that are found before the real ones. */
static int put_in_front(struct mu_live *v)
{
    static const char *const names[] = {"git", "gh"};
    const struct mu_runner *r = v->r;
    const char *path = getenv("PATH");
    char text[3 * MU_PUSH_PATH];
    mu_folder_remove_at(r->ws.oz, PROGRAMS);
    if (mkdirat(r->ws.oz, PROGRAMS, 0755) < 0) {
        return -errno;
    }
    int dir MU_AUTO_CLOSE =
        openat(r->ws.oz, PROGRAMS, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    for (size_t i = 0; i < MU_ARRAY_LEN(names); i++) {
        if (dir < 0 || symlinkat(r->self, dir, names[i]) < 0) {
            return -errno;
        }
    }
    snprintf(text, sizeof text, "%s/.oz", r->ws.root);
    int e = setenv(MU_PUSH_ENV, text, 1);
    int n = snprintf(text, sizeof text, "%s/.oz/" PROGRAMS ":%s", r->ws.root,
                     path ? path : "/usr/local/bin:/usr/bin:/bin");
    return e || n >= (int)sizeof text || setenv("PATH", text, 1) < 0 ? -ENOMEM : 0;
}

int mu_push_hold(struct mu_live *v)
{
    v->push.settled = true;
    bool wanted = v->guard.asks >> MU_GUARD_MERGE & 1;
    if (!wanted || v->skip_permissions || v->push.listener >= 0) {
        return 0;
    }
    take_out(v);
    int e = v->push.credential.failed;
    e = e ? e : listen_there(v);
    return e ? e : put_in_front(v);
}

/* --- asking --- */

static void answer(struct mu_push_conn *c, char first, mu_bytes words)
{
    struct mu_buf b MU_CLEANUP(mu_buf_wipe);
    uint32_t n = (uint32_t)words.len + 1;
    mu_buf_init(&b, MU_PUSH_ANSWER + 5);
    mu_buf_add(&b, mu_bytes_of((const char *)&n, sizeof n));
    mu_buf_add_char(&b, first);
    mu_buf_add(&b, words);
    if (!b.failed) { /* it is empty so far: there is room */
        (void)!send(c->fd, b.ptr, b.len, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    leave(c);
}

void mu_push_decide(struct mu_live *v, unsigned handle, bool allow, const char *words)
{
    for (size_t i = 0; i < MU_PUSH_CONNS; i++) {
        struct mu_push_conn *c = &v->push.conns[i];
        if (c->fd >= 0 && c->asked && c->handle == handle) {
            answer(c, allow ? 'y' : 'n',
                   allow ? mu_buf_bytes(&v->push.credential)
                         : mu_bytes_head(mu_str(words && *words ? words : "refused"), 2000));
        }
    }
}

static bool same_words(const struct mu_shell_command *c, mu_bytes words)
{
    size_t i = 0;
    for (; words.len; i++) {
        mu_bytes w = mu_bytes_split(&words, 0);
        if (i == c->n || c->words[i].dynamic || !mu_bytes_eq(c->words[i].text, w)) {
            return false;
        }
    }
    return i == c->n;
}

/* A person said yes to a command that has exactly these words: that was for this once. */
static bool approved(struct mu_live *v, mu_bytes words)
{
    for (size_t i = 0; i < MU_LIVE_APPROVED; i++) {
        struct mu_arena arena;
        struct mu_shell s = {.n = 0};
        bool found = false;
        mu_arena_init(&arena, SHELL_MEMORY);
        if (v->approved[i][0] && mu_shell_read(&arena, mu_str(v->approved[i]), &s) == 0) {
            for (size_t k = 0; k < s.n && !found; k++) {
                found = same_words(&s.commands[k], words);
            }
        }
        mu_arena_fini(&arena);
        if (found) {
            v->approved[i][0] = 0;
            return true;
        }
    }
    return false;
}

static void request(struct mu_live *v, struct mu_push_conn *c, mu_bytes words)
{
    struct mu_buf command MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&command, COMMAND_MAX);
    for (mu_bytes rest = words; rest.len;) {
        mu_acp_word(&command, mu_bytes_split(&rest, 0));
    }
    c->asked = true;
    c->handle = ++v->push.last;
    if (command.failed || v->done) {
        mu_push_decide(v, c->handle, false, "nobody can be asked");
    } else if (approved(v, words)) {
        mu_push_decide(v, c->handle, true, NULL);
    } else {
        mu_gate_push(v, c->handle, mu_buf_bytes(&command));
    }
}

static void read_more(struct mu_live *v, struct mu_push_conn *c)
{
    char block[4096];
    uint32_t n = 0;
    ssize_t k = recv(c->fd, block, sizeof block, MSG_DONTWAIT);
    if (k < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (k <= 0 || c->asked) { /* who asked is gone, or says more than it may */
        unsigned handle = c->asked ? c->handle : 0;
        leave(c);
        if (handle) {
            mu_live_ask_gone(v, handle);
        }
        return;
    }
    mu_buf_add(&c->in, mu_bytes_of(block, (size_t)k));
    if (c->in.len >= sizeof n) {
        memcpy(&n, c->in.ptr, sizeof n);
    }
    if (c->in.failed || n > MU_PUSH_REQUEST || (n && c->in.len > n + sizeof n)) {
        leave(c);
    } else if (n && c->in.len == n + sizeof n && c->in.ptr[c->in.len - 1] == 0) {
        request(v, c, mu_bytes_from(mu_buf_bytes(&c->in), sizeof n));
    }
}

size_t mu_push_want(const struct mu_live *v, struct pollfd fds[MU_PUSH_FDS], int who[MU_PUSH_FDS])
{
    size_t n = 0, open = 0;
    for (size_t i = 0; i < MU_PUSH_CONNS; i++) {
        if (v->push.conns[i].fd >= 0) {
            fds[n] = (struct pollfd){v->push.conns[i].fd, POLLIN, 0};
            who[n++] = (int)i + 1;
            open++;
        }
    }
    if (v->push.listener >= 0 && open < MU_PUSH_CONNS) {
        fds[n] = (struct pollfd){v->push.listener, POLLIN, 0};
        who[n++] = LISTENER;
    }
    return n;
}

void mu_push_io(struct mu_live *v, int who)
{
    struct mu_push *p = &v->push;
    if (who > LISTENER) {
        if (p->conns[who - 1].fd >= 0) {
            read_more(v, &p->conns[who - 1]);
        }
        return;
    }
    for (size_t i = 0; i < MU_PUSH_CONNS; i++) {
        if (p->conns[i].fd < 0) {
            p->conns[i].fd = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
            return;
        }
    }
}
