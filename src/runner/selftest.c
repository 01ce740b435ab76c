/* What protects and works in here, seen from inside: one line a layer,
 * "name<TAB>yes|no<TAB>detail". A sandbox is judged by doing it once (sandbox.md 3, doctor). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "exec/sandbox/fd3.h"
#include "runner/runner_int.h"

static void line(const char *name, bool yes, const char *fmt, ...) MU_PRINTF(3, 4);
#include <stdarg.h>
static void line(const char *name, bool yes, const char *fmt, ...)
{
    char detail[160];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(detail, sizeof detail, fmt, ap);
    va_end(ap);
    printf("%s\t%s\t%s\n", name, yes ? "yes" : "no", detail);
}

/* A file of /proc, or "". */
static void slurp(const char *path, char *ret, size_t size)
{
    int fd MU_AUTO_CLOSE = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, ret, size - 1);
    ret[n > 0 ? n : 0] = 0;
}

/* The value of "Name:" in /proc/self/status. */
static const char *status_of(const char *status, const char *name)
{
    const char *p = strstr(status, name);
    p = p ? p + strlen(name) : "";
    return p + strspn(p, ": \t");
}

static void identity(void)
{
    char map[256], status[4096];
    slurp("/proc/self/uid_map", map, sizeof map);
    long long inside = -1, outside = -1, count = -1;
    int n = sscanf(map, "%lld %lld %lld", &inside, &outside, &count);
    line("user ns", n == 3 && count < 4294967295LL, "uid %d, %lld id%s", (int)getuid(), count,
         count == 1 ? "" : "s");
    line("pid ns", getpid() == 1, "pid %d", (int)getpid());
    slurp("/proc/self/status", status, sizeof status);
    const char *seccomp = status_of(status, "Seccomp");
    line("seccomp", *seccomp == '2', "mode %.1s", *seccomp ? seccomp : "0");
    line("no-new-privs", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1, "%s", "");
    const char *bound = status_of(status, "CapBnd"), *eff = status_of(status, "CapEff");
    line("capabilities",
         strncmp(bound, "0000000000000000", 16) == 0 && strncmp(eff, "0000000000000000", 16) == 0,
         "effective %.16s, bounding %.16s", eff, bound);
    line("non-dumpable", prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0, "%s", "");
}

static void kernel(void)
{
    int s = socket(AF_VSOCK, SOCK_STREAM, 0);
    line("vsock closed", s < 0, "%s", s < 0 ? mu_err_text(-errno) : "open");
    if (s >= 0) {
        close(s);
    }
#ifdef SYS_landlock_create_ruleset
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, 1);
    line("landlock", abi > 0, "ABI %ld", abi > 0 ? abi : 0);
#else
    line("landlock", false, "this build does not know it");
#endif
    int r = unshare(CLONE_NEWUSER);
    line("nested closed", r < 0, "%s", r < 0 ? mu_err_text(-errno) : "a user namespace was made");
}

static void files(void)
{
    int fd = open("/.muster-probe", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    line("root read-only", fd < 0, "%s", fd < 0 ? mu_err_text(-errno) : "a file was made in /");
    if (fd >= 0) {
        close(fd);
        unlink("/.muster-probe");
    }
    int shadow = open("/etc/shadow", O_RDONLY | O_CLOEXEC);
    line("shadow closed", shadow < 0, "%s", shadow < 0 ? mu_err_text(-errno) : "readable");
    if (shadow >= 0) {
        close(shadow);
    }
    static const char *const writable[] = {"/workspace", "/tmp"};
    for (size_t i = 0; i < MU_ARRAY_LEN(writable); i++) {
        line(writable[i], access(writable[i], W_OK) == 0, "%s",
             access(writable[i], W_OK) == 0 ? "writable" : mu_err_text(-errno));
    }
}

static void network(void)
{
    char text[4096], names[120] = "";
    slurp("/proc/net/dev", text, sizeof text);
    mu_bytes rest = mu_str(text);
    size_t others = 0, at = 0;
    for (int row = 0; rest.ptr; row++) {
        mu_bytes l = mu_bytes_split(&rest, '\n');
        ptrdiff_t colon = mu_bytes_find_char(l, ':');
        if (row < 2 || colon < 0) {
            continue;
        }
        mu_bytes name = mu_bytes_trim(mu_bytes_head(l, (size_t)colon));
        others += !mu_bytes_is(name, "lo");
        int n = snprintf(names + at, sizeof names - at, "%s%.*s", at ? " " : "", MU_ARGS(name));
        at = MU_MIN(at + (size_t)MU_MAX(n, 0), sizeof names - 1);
    }
    line("network ns", text[0] && !others, "%s", names);
    int type;
    socklen_t len = sizeof type;
    bool keeper = getenv(MU_FD3_ENV) && getsockopt(MU_FD3, SOL_SOCKET, SO_TYPE, &type, &len) == 0 &&
                  type == SOCK_SEQPACKET;
    line("keeper", keeper, "%s", keeper ? "descriptor 3" : "none");
}

static void tools(void)
{
    static const char *const names[] = {"sh",    "git",    "curl",    "claude",
                                        "codex", "gemini", "opencode"};
    for (size_t i = 0; i < MU_ARRAY_LEN(names); i++) {
        char path[1100] = "";
        bool found = false;
        mu_bytes rest = mu_str(getenv("PATH") ? getenv("PATH") : "/usr/bin:/bin");
        while (rest.ptr && !found) {
            mu_bytes dir = mu_bytes_head(mu_bytes_split(&rest, ':'), 1000);
            snprintf(path, sizeof path, "%.*s/%s", MU_ARGS(dir), names[i]);
            found = access(path, X_OK) == 0;
        }
        line(names[i], found, "%.120s", found ? path : "not found");
    }
}

int mu_runner_self_test(void)
{
    identity();
    files();
    network();
    tools();
    kernel(); /* last: it may leave this process in a namespace of its own */
    return fflush(stdout) == 0 ? 0 : 1;
}
