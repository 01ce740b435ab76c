/* `git` and `gh` as an agent finds them first on PATH: what may send work away asks the runner,
 * from inside any script, and gets the credential with the answer. Whoever goes around it finds no
 * credential. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "runner/push.h"
#include "runner/runner.h"

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

int mu_runner_is_shim(const char *name)
{
    return strcmp(base_name(name), "git") == 0 || strcmp(base_name(name), "gh") == 0;
}

/* The first of this name on PATH that is not this program. */
static int find_real(const char *name, char ret[MU_PUSH_PATH])
{
    struct stat own, st;
    const char *path = getenv("PATH");
    mu_bytes rest = mu_str(path ? path : "/usr/local/bin:/usr/bin:/bin");
    bool known = stat("/proc/self/exe", &own) == 0;
    while (rest.ptr) {
        mu_bytes dir = mu_bytes_split(&rest, ':');
        int n = snprintf(ret, MU_PUSH_PATH, "%.*s%s%s", MU_ARGS(dir), dir.len ? "/" : "./", name);
        bool there = n > 0 && n < MU_PUSH_PATH && stat(ret, &st) == 0 && S_ISREG(st.st_mode) &&
                     access(ret, X_OK) == 0;
        if (there && (!known || st.st_ino != own.st_ino || st.st_dev != own.st_dev)) {
            return 0;
        }
    }
    return MU_E_NOT_FOUND;
}

/* gh does nothing without its token; git needs one to push. */
static bool asks(const char *name, char **argv)
{
    bool gh = strcmp(name, "gh") == 0, any = false;
    for (char **a = argv + 1; *a; a++) {
        bool about = strcmp(*a, "help") == 0 || strcmp(*a, "--help") == 0 ||
                     strcmp(*a, "version") == 0 || strcmp(*a, "--version") == 0;
        if (gh && about) {
            return false;
        }
        any = any || gh || strcmp(*a, "push") == 0 || strcmp(*a, "send-pack") == 0;
    }
    return any;
}

static int connect_to(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int dir MU_AUTO_CLOSE = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd MU_AUTO_CLOSE = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(a.sun_path, sizeof a.sun_path, "/proc/self/fd/%d/" MU_PUSH_SOCKET, dir);
    if (dir < 0 || fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0) {
        return -1;
    }
    return mu_steal_fd(&fd);
}

static bool all(int fd, char *p, size_t n, bool send_it)
{
    while (n) {
        ssize_t k = send_it ? send(fd, p, n, MSG_NOSIGNAL) : recv(fd, p, n, 0);
        if (k < 0 && errno == EINTR) {
            continue;
        }
        if (k <= 0) {
            return false;
        }
        p += k;
        n -= (size_t)k;
    }
    return true;
}

/* What was said; its first character is the answer. False: nobody said anything. */
static bool ask(int fd, const char *name, char **argv, struct mu_buf *ret)
{
    struct mu_buf b MU_CLEANUP(mu_buf_fini);
    unsigned char head[4];
    uint32_t n;
    mu_buf_init(&b, MU_PUSH_REQUEST);
    mu_buf_add(&b, mu_bytes_of("\0\0\0", 4));
    mu_buf_add(&b, mu_bytes_of(name, strlen(name) + 1));
    for (char **a = argv + 1; *a; a++) {
        mu_buf_add(&b, mu_bytes_of(*a, strlen(*a) + 1));
    }
    if (b.failed) {
        return false;
    }
    n = (uint32_t)b.len - 4;
    memcpy(b.ptr, &n, 4); /* both ends are the same program */
    if (!all(fd, b.ptr, b.len, true) || !all(fd, (char *)head, 4, false)) {
        return false;
    }
    memcpy(&n, head, 4);
    char *room = n && n <= MU_PUSH_ANSWER ? mu_buf_room(ret, n) : NULL;
    if (!room || !all(fd, room, n, false)) {
        return false;
    }
    ret->len += n;
    return true;
}

/* NAME=value lines, and who answers git's questions with them. */
static void take(mu_bytes lines)
{
    char self[MU_PUSH_PATH];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    bool any = false;
    while (lines.ptr && lines.len) {
        mu_bytes value = mu_bytes_split(&lines, '\n');
        mu_bytes name = mu_bytes_split(&value, '=');
        char *k MU_AUTO_FREE = mu_bytes_dup(name);
        char *v MU_AUTO_FREE = mu_bytes_dup(value);
        any = (k && v && setenv(k, v, 1) == 0) || any;
    }
    if (any && n > 0 && !getenv("GIT_ASKPASS")) {
        self[n] = 0;
        (void)setenv("GIT_ASKPASS", self, 1);
        (void)setenv(MU_ASKPASS_ENV, "1", 1);
    }
}

int mu_runner_shim(int argc MU_UNUSED, char **argv)
{
    const char *name = base_name(argv[0]), *place = getenv(MU_PUSH_ENV);
    char real[MU_PUSH_PATH];
    struct mu_buf answer MU_CLEANUP(mu_buf_wipe);
    mu_buf_init(&answer, MU_PUSH_ANSWER);
    if (find_real(name, real) < 0) {
        fprintf(stderr, "%s: not found\n", name);
        return 127;
    }
    if (place && asks(name, argv)) {
        int fd MU_AUTO_CLOSE = connect_to(place);
        if (fd >= 0 && ask(fd, name, argv, &answer)) {
            mu_bytes rest = mu_bytes_from(mu_buf_bytes(&answer), 1);
            if (answer.ptr[0] != 'y') {
                fprintf(stderr, "%s: %.*s\n", name, MU_ARGS(rest));
                return 1;
            }
            take(rest);
        }
    }
    argv[0] = real;
    execv(real, argv);
    fprintf(stderr, "%s: %s\n", real, mu_err_text(-errno));
    return 126;
}
