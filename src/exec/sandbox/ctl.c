#include "exec/sandbox/ctl_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

/* --- messages --- */

int mu_ctl_send(int sock, const struct mu_ctl_msg *m, int fd)
{
    size_t text = sizeof m->text;
    while (text > 0 && m->text[text - 1] == 0) {
        text--;
    }
    struct iovec io = {(void *)(uintptr_t)m, offsetof(struct mu_ctl_msg, text) + text};
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr msg = {.msg_iov = &io, .msg_iovlen = 1};
    if (fd >= 0) {
        memset(&control, 0, sizeof control);
        msg.msg_control = control.room;
        msg.msg_controllen = sizeof control.room;
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    ssize_t n = sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    return n < 0 ? -errno : 0;
}

/* The one descriptor of a message; more than one are closed. */
static int take_fd(struct msghdr *msg)
{
    int found = -1;
    const struct cmsghdr *c = CMSG_FIRSTHDR(msg);
    if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
        return -1;
    }
    size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); /* the padding has room for a second */
    for (size_t i = 0; i < n; i++) {
        int fd;
        memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
        if (found < 0) {
            found = fd;
        } else {
            close(fd);
        }
    }
    return found;
}

int mu_ctl_recv(int sock, struct mu_ctl_msg *ret, int *ret_fd)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    *ret = (struct mu_ctl_msg){0};
    struct iovec io = {ret, sizeof *ret - 1};
    struct msghdr msg = {.msg_iov = &io, .msg_iovlen = 1};
    if (ret_fd) {
        *ret_fd = -1;
        msg.msg_control = control.room;
        msg.msg_controllen = sizeof control.room;
    }
    ssize_t n = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0) {
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    }
    int fd = ret_fd ? take_fd(&msg) : -1;
    if (n < (ssize_t)offsetof(struct mu_ctl_msg, text) || msg.msg_flags & MSG_TRUNC) {
        if (fd >= 0) {
            close(fd);
        }
        return n == 0 ? MU_E_CLOSED : MU_E_PROTOCOL;
    }
    if (ret_fd) {
        *ret_fd = fd;
    }
    return 1;
}

int mu_ctl_connect(int session_fd, int *ret)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    struct ucred peer;
    socklen_t len = sizeof peer;
    /* By the folder's descriptor: a state folder may lie deeper than a socket's name can say. */
    snprintf(at.sun_path, sizeof at.sun_path, "/proc/self/fd/%d/ctl.sock", session_fd);
    MU_AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&at, sizeof at) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0) {
        return -errno;
    }
    if (peer.uid != geteuid()) {
        return -EPERM;
    }
    *ret = mu_steal_fd(&fd);
    return 0;
}

/* --- files of a session --- */

int mu_session_read(int session_fd, const char *name, size_t max, struct mu_arena *arena,
                    mu_bytes *ret)
{
    struct stat st;
    MU_AUTO_CLOSE int fd =
        openat(session_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st) < 0) {
        return -errno;
    }
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > max) {
        return MU_E_INVALID;
    }
    char *text = mu_arena_alloc(arena, (size_t)st.st_size + 1);
    if (!text) {
        return -ENOMEM;
    }
    size_t n = 0;
    while (n < (size_t)st.st_size) {
        ssize_t got = read(fd, text + n, (size_t)st.st_size - n);
        if (got < 0) {
            return -errno;
        }
        if (got == 0) {
            break;
        }
        n += (size_t)got;
    }
    text[n] = 0;
    *ret = mu_bytes_of(text, n);
    return 0;
}

int mu_session_put(int session_fd, const char *name, mu_bytes text)
{
    MU_AUTO_CLOSE int fd =
        openat(session_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return -errno;
    }
    while (text.len) {
        ssize_t n = write(fd, text.ptr, text.len);
        if (n < 0) {
            return -errno;
        }
        text = mu_bytes_from(text, (size_t)n);
    }
    return 0;
}

int mu_session_write(int session_fd, const char *name, mu_bytes text)
{
    char temp[48];
    snprintf(temp, sizeof temp, "%s.new", name);
    int r = mu_session_put(session_fd, temp, text);
    return r < 0 ? r : renameat(session_fd, temp, session_fd, name) < 0 ? -errno : 0;
}

/* --- the end --- */

static const struct {
    const char *name;
    size_t offset;
} end_numbers[] = {
    {"exit_code", offsetof(struct mu_end, exit_code)},
    {"oom", offsetof(struct mu_end, oom)},
    {"cpu_ms", offsetof(struct mu_end, cpu_ms)},
    {"peak_bytes", offsetof(struct mu_end, peak_bytes)},
    {"step_errno", offsetof(struct mu_end, step_errno)},
};

int mu_end_write(int session_fd, const struct mu_end *end)
{
    struct mu_buf b;
    mu_buf_init(&b, 2048);
    for (size_t i = 0; i < MU_ARRAY_LEN(end_numbers); i++) {
        int64_t v;
        memcpy(&v, (const char *)end + end_numbers[i].offset, sizeof v);
        mu_buf_printf(&b, "%s=%lld%c", end_numbers[i].name, (long long)v, 0);
    }
    mu_buf_printf(&b, "reason=%s%cstep=%s%cmessage=%s%c", end->reason, 0, end->step, 0,
                  end->message, 0);
    int r = b.failed ? b.failed : mu_session_write(session_fd, "end", mu_buf_bytes(&b));
    mu_buf_fini(&b);
    return r;
}

static int take_end(struct mu_end *e, mu_bytes name, mu_bytes v)
{
    struct {
        const char *name;
        char *to;
        size_t size;
    } texts[] = {{"reason", e->reason, sizeof e->reason},
                 {"step", e->step, sizeof e->step},
                 {"message", e->message, sizeof e->message}};
    for (size_t i = 0; i < MU_ARRAY_LEN(end_numbers); i++) {
        if (mu_bytes_is(name, end_numbers[i].name)) {
            int64_t number;
            int r = mu_bytes_i64(v, &number);
            if (r == 0) {
                memcpy((char *)e + end_numbers[i].offset, &number, sizeof number);
            }
            return r;
        }
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(texts); i++) {
        if (mu_bytes_is(name, texts[i].name)) {
            snprintf(texts[i].to, texts[i].size, "%.*s", MU_ARGS(v));
            return 0;
        }
    }
    return MU_E_INVALID;
}

int mu_end_read(int session_fd, struct mu_end *ret)
{
    struct mu_arena arena;
    mu_bytes rest;
    mu_arena_init(&arena, 8192);
    *ret = (struct mu_end){.exit_code = -1};
    int r = mu_session_read(session_fd, "end", 2048, &arena, &rest);
    while (r == 0 && rest.len) {
        mu_bytes v = mu_bytes_split(&rest, 0);
        mu_bytes name = mu_bytes_split(&v, '=');
        r = v.ptr ? take_end(ret, name, v) : MU_E_CORRUPT;
    }
    mu_arena_fini(&arena);
    return r;
}
