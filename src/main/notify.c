/* systemd's readiness protocol and socket activation, without its library (stack.md 6). */
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "main/server.h"

void mu_notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof addr.sun_path) {
        return;
    }
    memcpy(addr.sun_path, path, strlen(path));
    if (path[0] == '@') {
        addr.sun_path[0] = 0; /* abstract */
    }
    MU_AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
        ssize_t n MU_UNUSED =
            sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&addr, len);
    }
}

unsigned mu_inherited_sockets(int *fds, unsigned max)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    int64_t for_pid = 0, n = 0;
    if (!pid || !count || mu_bytes_i64(mu_str(pid), &for_pid) < 0 || for_pid != getpid() ||
        mu_bytes_i64(mu_str(count), &n) < 0 || n < 1) {
        return 0;
    }
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    unsigned got = 0;
    for (int fd = 3; fd < 3 + (int)MU_MIN(n, (int64_t)max) && got < max; fd++) {
        if (fcntl(fd, F_SETFD, FD_CLOEXEC) == 0) {
            fds[got++] = fd;
        }
    }
    return got;
}
