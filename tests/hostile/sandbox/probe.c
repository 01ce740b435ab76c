/* The escape suite's program inside a sandbox (sandbox.md 12): tries what must not work and prints
 * "id|reached|detail" lines, reached being yes or no. Files of the host are opened, never written.
 * What the host prepared is named by PROBE_* variables. Linked static together with the real runner
 * and the real keeper, the latter with layers that can be left out (MU_SANDBOX_HOLES). */
#include "probe.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/timex.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

void answer(int id, int reached, const char *fmt, ...)
{
    char text[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    printf("%d|%s|%s\n", id, reached ? "yes" : "no", text);
    fflush(stdout);
}

const char *name_of(int e)
{
    static const struct {
        int e;
        const char *name;
    } names[] = {{0, "ok"},
                 {EPERM, "EPERM"},
                 {ENOENT, "ENOENT"},
                 {ESRCH, "ESRCH"},
                 {EACCES, "EACCES"},
                 {EROFS, "EROFS"},
                 {ENOSYS, "ENOSYS"},
                 {EINVAL, "EINVAL"},
                 {ENOSPC, "ENOSPC"},
                 {EAGAIN, "EAGAIN"},
                 {EXDEV, "EXDEV"},
                 {EFBIG, "EFBIG"},
                 {ELOOP, "ELOOP"},
                 {ENODEV, "ENODEV"},
                 {ENXIO, "ENXIO"},
                 {EBADF, "EBADF"},
                 {EFAULT, "EFAULT"},
                 {ENOTTY, "ENOTTY"},
                 {ECONNREFUSED, "ECONNREFUSED"},
                 {ENETUNREACH, "ENETUNREACH"},
                 {EAFNOSUPPORT, "EAFNOSUPPORT"},
                 {EPROTONOSUPPORT, "EPROTONOSUPPORT"},
                 {ETXTBSY, "ETXTBSY"},
                 {ENOTDIR, "ENOTDIR"},
                 {EOPNOTSUPP, "EOPNOTSUPP"}};
    static char other[24];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (names[i].e == e) {
            return names[i].name;
        }
    }
    snprintf(other, sizeof other, "errno %d", e);
    return other;
}

/* A call that must fail: reached when it did not. */
void judge(int id, long result)
{
    int e = errno;
    answer(id, result >= 0, "%s", result >= 0 ? "ok" : name_of(e));
}

static const char *given(const char *name)
{
    const char *v = getenv(name);
    return v ? v : "/nonexistent";
}

static void try_open(int id, const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);
    judge(id, fd);
    if (fd >= 0) {
        close(fd);
    }
}

/* Reached only when there is something to read. */
static void try_read(int id, const char *path)
{
    char buf[64];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    long n = fd < 0 ? -1 : read(fd, buf, sizeof buf);
    int e = errno;
    answer(id, n > 0, "%s", n > 0 ? "read" : n == 0 ? "empty" : name_of(e));
    if (fd >= 0) {
        close(fd);
    }
}

/* In a child, so that what it changes is its own. The child's exit status is the errno; 0 = done.
 */
static void in_child(int id, int (*fn)(void))
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        errno = 0;
        _exit(fn() == 0 ? 0 : errno);
    }
    waitpid(pid, &status, 0);
    if (WIFSIGNALED(status)) {
        answer(id, 0, "killed by signal %d", WTERMSIG(status));
    } else {
        answer(id, WEXITSTATUS(status) == 0, "%s", name_of(WEXITSTATUS(status)));
    }
}

/* --- 1 to 10: files, sockets, names --- */

static void list_root(void)
{
    int n = 0;
    DIR *d = opendir("/root");
    int e = errno;
    for (struct dirent *x; d && (x = readdir(d));) {
        n += x->d_name[0] != '.';
    }
    answer(2, n > 0, "%s", d ? "empty" : name_of(e));
    if (d) {
        closedir(d);
    }
}

static void connect_unix(int id, const char *path, int abstract)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    size_t n = strlen(path);
    memcpy(at.sun_path + abstract, path, n < 100 ? n : 100);
    judge(id, connect(fd, (struct sockaddr *)&at,
                      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)abstract + n +
                                  !abstract)));
    close(fd);
}

static long connect_inet(const char *host, int port, int type)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    inet_pton(AF_INET, host, &at.sin_addr);
    int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    struct timeval t = {2, 0};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
    long r = connect(fd, (struct sockaddr *)&at, sizeof at);
    r = r == 0 && type == SOCK_DGRAM ? send(fd, "x", 1, 0) : r;
    int e = errno;
    close(fd);
    errno = e;
    return r;
}

static void resolve(void)
{
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    int r = system("getent ahosts example.com >/dev/null 2>&1");
    clock_gettime(CLOCK_MONOTONIC, &b);
    answer(10, r == 0, "status %d after %ld ms", WEXITSTATUS(r),
           (b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000);
}

static void files_and_sockets(void)
{
    char path[600];
    try_open(1, "/etc/shadow", O_RDONLY);
    list_root();
    try_read(3, given("PROBE_KEY"));
    snprintf(path, sizeof path, "/proc/1/root%s", given("PROBE_KEY"));
    try_read(4, path);
    connect_unix(5, "/var/run/docker.sock", 0);
    connect_unix(6, given("PROBE_SOCK"), 0);
    connect_unix(7, given("PROBE_ABSTRACT"), 1);
    judge(8, connect_inet("127.0.0.1", atoi(given("PROBE_TCP")), SOCK_STREAM));
    judge(9, connect_inet("169.254.169.254", 80, SOCK_DGRAM));
    resolve();
}

static void families(void)
{
    static const struct {
        int id, family, type, proto;
    } all[] = {{11, AF_PACKET, SOCK_RAW, 0},
               {12, 40, SOCK_STREAM, 0},
               {13, 38, 5, 0},
               {14, 16, SOCK_RAW, 12},
               {15, AF_INET, SOCK_RAW, 1}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        int fd = socket(all[i].family, all[i].type | SOCK_CLOEXEC, all[i].proto);
        judge(all[i].id, fd);
        if (fd >= 0) {
            close(fd);
        }
    }
}

/* --- 28 to 37: /proc, other processes --- */

static void read_environ_of_host(void)
{
    char path[64], buf[4096];
    snprintf(path, sizeof path, "/proc/%s/environ", given("PROBE_PID"));
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int e = errno;
    ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof buf);
    answer(37, n > 0 && memmem(buf, (size_t)n, "PROBE_MARK", 10) != NULL, "%s",
           fd < 0 ? name_of(e) : "another's");
    if (fd >= 0) {
        close(fd);
    }
}

static void proc_and_processes(void)
{
    try_open(28, "/proc/sys/kernel/core_pattern", O_WRONLY);
    try_open(29, "/proc/sysrq-trigger", O_WRONLY);
    try_read(30, "/proc/kcore");
    try_open(31, "/proc/keys", O_RDONLY);
    try_read(32, "/proc/1/environ");
    try_open(33, "/proc/1/mem", O_RDWR);
    try_open(34, "/proc/1/exe", O_WRONLY);
    long r = ptrace(PTRACE_ATTACH, 1, NULL, NULL);
    judge(35, r);
    judge(36, kill(atoi(given("PROBE_PID")), 0));
    read_environ_of_host();
}

/* --- 47 to 57: devices, set-id, limits --- */

static void device_node(void)
{
    struct stat st;
    dev_t disk = stat("/usr", &st) == 0 ? st.st_dev : makedev(254, 0);
    judge(47, mknod("/tmp/disk", S_IFBLK | 0600, disk));
    unlink("/tmp/disk");
}

static int has_setuid(const char *path)
{
    struct stat st;
    int yes = lstat(path, &st) == 0 && st.st_mode & 06000;
    unlink(path);
    return yes;
}

/* However it may be asked for: chmod, fchmod, creat, openat2, mknod. */
static void set_uid_file(void)
{
    struct {
        unsigned long long flags, mode, resolve;
    } how = {O_CREAT | O_WRONLY, 04755, 0};
    char ways[80] = "";
    int fd = open("/tmp/suid1", O_CREAT | O_WRONLY, 0755);
    long first = chmod("/tmp/suid1", 04755);
    int e = errno;
    first = first < 0 ? fchmod(fd, 02755) : first;
    close(fd);
    strncat(ways, has_setuid("/tmp/suid1") ? "chmod " : "", 20);
    close(open("/tmp/suid2", O_CREAT | O_WRONLY, 04755));
    strncat(ways, has_setuid("/tmp/suid2") ? "open " : "", 20);
    close((int)syscall(437, AT_FDCWD, "/tmp/suid3", &how, sizeof how));
    strncat(ways, has_setuid("/tmp/suid3") ? "openat2 " : "", 20);
    mknod("/tmp/suid4", S_IFREG | 06755, 0);
    strncat(ways, has_setuid("/tmp/suid4") ? "mknod " : "", 20);
    syscall(452, AT_FDCWD, "/tmp/suid1", 04755, 0);
    answer(54, ways[0], "%s", ways[0] ? ways : name_of(e));
}

static void raise_limit(int id, int what)
{
    struct rlimit l;
    getrlimit(what, &l);
    if (l.rlim_max == RLIM_INFINITY) {
        answer(id, 1, "there is no limit");
        return;
    }
    l.rlim_cur = l.rlim_max = l.rlim_max + 1;
    judge(id, setrlimit(what, &l));
}

static void rights(void)
{
    device_node();
    try_open(48, "/dev/kvm", O_RDWR);
    try_open(49, "/dev/fuse", O_RDWR);
    try_open(50, "/usr/bin/muster-probe", O_CREAT | O_EXCL | O_WRONLY);
    try_open(51, "/agent/muster-probe", O_CREAT | O_EXCL | O_WRONLY);
    judge(52, chmod("/agent", 0755));
    judge(53, setuid(0));
    set_uid_file();
    int r = system("su root -c true </dev/null >/dev/null 2>&1");
    answer(55, r == 0, "status %d", WEXITSTATUS(r));
    raise_limit(56, RLIMIT_NPROC);
    raise_limit(57, RLIMIT_CORE);
}

/* --- 61 to 75: descriptors, places --- */

static void own_descriptors(void)
{
    int extra = 0;
    DIR *d = opendir("/proc/self/fd");
    for (struct dirent *e; d && (e = readdir(d));) {
        int fd = e->d_name[0] == '.' ? -1 : atoi(e->d_name);
        extra += fd > 2 && fd != dirfd(d);
    }
    answer(61, extra > 0, "%d beyond 0 to 2", extra);
    closedir(d);
    d = opendir("/proc/1/fd");
    int e = errno, n = 0;
    while (d && readdir(d)) {
        n++;
    }
    answer(62, n > 2, "%s", d ? "listed" : name_of(e));
    if (d) {
        closedir(d);
    }
}

static void climb(void)
{
    struct stat here, root;
    int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = fchdir(fd);
    for (int i = 0; i < 40; i++) {
        r |= chdir("..");
    }
    stat(".", &here);
    fstat(fd, &root);
    answer(63, here.st_ino != root.st_ino || here.st_dev != root.st_dev, "own root (%d)", r);
    r = chdir("/workspace");
    close(fd);
}

static void places(void)
{
    own_descriptors();
    climb();
    try_open(64, "/sys/fs/cgroup/cgroup.procs", O_WRONLY);
    try_open(65, "/sys/kernel/debug", O_RDONLY);
    try_open(66, "/dev/mem", O_RDONLY);
    errno = 0;
    int id = shmget((key_t)strtol(given("PROBE_SHM"), NULL, 10), 0, 0);
    judge(70, id);
    try_open(71, "/dev/mqueue", O_RDONLY);
    unlink("/workspace/to-shadow");
    int r = symlink("/etc/shadow", "/workspace/to-shadow");
    try_open(72, "/workspace/to-shadow", O_RDONLY);
    r |= unlink("/workspace/to-shadow");
    judge(73, link("/etc/passwd", "/workspace/passwd"));
    unlink("/workspace/passwd");
    kill(1, SIGKILL);
    usleep(100000);
    answer(74, 0, "PID 1 lives"); /* or nobody would print this */
    int fd = open("/usr/bin/true", O_RDONLY | O_CLOEXEC);
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    try_open(75, path, O_WRONLY);
    close(fd);
}

/* --- 76 to 79: floods --- */

static void fork_bomb(void)
{
    enum { MOST = 4000 };
    static pid_t pids[MOST];
    int n = 0, e = 0;
    while (n < MOST) {
        pid_t pid = fork();
        if (pid < 0) {
            e = errno;
            break;
        }
        if (pid == 0) {
            pause();
            _exit(0);
        }
        pids[n++] = pid;
    }
    for (int i = 0; i < n; i++) {
        kill(pids[i], SIGKILL);
    }
    while (waitpid(-1, NULL, 0) > 0) {
    }
    answer(76, n == MOST, "%d processes, then %s", n, name_of(e));
}

static void fill_memory_disk(void)
{
    static char block[1 << 20];
    int mib = 0, e = 0;
    int fd = open("/dev/shm/fill", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    memset(block, 1, sizeof block);
    for (; fd >= 0 && mib < 256; mib++) {
        if (write(fd, block, sizeof block) != (ssize_t)sizeof block) {
            e = errno;
            break;
        }
    }
    close(fd);
    unlink("/dev/shm/fill");
    answer(78, mib >= 256, "%d MiB, then %s", mib, name_of(e));
}

static void large_file(void)
{
    struct rlimit l;
    getrlimit(RLIMIT_FSIZE, &l);
    signal(SIGXFSZ, SIG_IGN);
    int fd = open("/workspace/large", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    off_t size = l.rlim_cur == RLIM_INFINITY ? (off_t)1 << 40 : (off_t)l.rlim_cur + 1;
    judge(79, ftruncate(fd, size));
    close(fd);
    unlink("/workspace/large");
}

static void floods(void)
{
    fork_bomb();
    fill_memory_disk();
    large_file();
}

int mu_agent_main(int argc, char **argv);
int mu_probe_copyout(int argc, char **argv);

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "copyout") == 0) {
        return mu_probe_copyout(argc - 1, argv + 1);
    }
    if (argc < 2 || strcmp(argv[1], "probe") != 0) {
        return mu_agent_main(argc, argv);
    }
    files_and_sockets();
    families();
    kernel_probes(in_child);
    proc_and_processes();
    terminal_probes();
    rights();
    places();
    floods();
    judge(105, connect_inet("1.1.1.1", 443, SOCK_STREAM));
    return 0;
}
