/* Probes of system calls that only the filter, capabilities or a limit stop; with arguments that
 * would be valid, so that what answers is the lock. And the outer side of copy-out. */
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timex.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "exec/sandbox/copyout_int.h"
#include "probe.h"

static void try_call(int id, long r)
{
    judge(id, r);
    if (r > 2) {
        close((int)r);
    }
}

/* --- 16 to 27: mounts and namespaces --- */

static int new_user(void)
{
    return unshare(CLONE_NEWUSER);
}
static int new_mounts(void)
{
    return unshare(CLONE_NEWNS);
}
static int join_mounts(void)
{
    int fd = open("/proc/1/ns/mnt", O_RDONLY | O_CLOEXEC);
    return fd < 0 ? -1 : setns(fd, CLONE_NEWNS);
}
static int new_root(void)
{
    return chroot("/tmp");
}
static int turn_root(void)
{
    return (int)syscall(SYS_pivot_root, "/tmp", "/tmp");
}
static int let_proc_go(void)
{
    return umount2("/proc/sys", MNT_DETACH);
}
static int nothing(void *arg)
{
    (void)arg;
    return 0;
}
static int clone_user(void)
{
    static char stack[16384] __attribute__((aligned(16)));
    pid_t pid = clone(nothing, stack + sizeof stack, CLONE_NEWUSER | SIGCHLD, NULL);
    return pid < 0 ? -1 : 0;
}
static int clone3_user(void)
{
    uint64_t args[11] = {CLONE_NEWUSER, 0, 0, 0, SIGCHLD};
    long pid = syscall(435, args, sizeof args);
    if (pid == 0) {
        _exit(0);
    }
    return pid < 0 ? -1 : 0;
}

static void mounts(void (*in_child)(int id, int (*fn)(void)))
{
    uint64_t attr[4] = {2 /* nosuid, which it is already */, 0, 0, 0};
    judge(16, mount("tmpfs", "/tmp", "tmpfs", 0, "size=4k"));
    try_call(17, syscall(430, "tmpfs", 0));
    try_call(18, syscall(428, AT_FDCWD, "/tmp", 1 /* CLONE */));
    judge(19, syscall(442, AT_FDCWD, "/tmp", 0, attr, sizeof attr));
    in_child(20, new_user);
    in_child(21, new_mounts);
    in_child(22, clone3_user);
    in_child(23, clone_user);
    in_child(24, join_mounts);
    in_child(25, new_root);
    in_child(26, turn_root);
    in_child(27, let_proc_go);
}

/* --- 38 to 43: parts of the kernel with a record --- */

static void handle(void)
{
    struct {
        unsigned bytes;
        int type;
        unsigned char handle[128];
    } h = {.bytes = 128};
    int mount_id, top = open("/workspace", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    long r = syscall(SYS_name_to_handle_at, top, "", &h, &mount_id, AT_EMPTY_PATH);
    if (r < 0) {
        r = syscall(SYS_name_to_handle_at, AT_FDCWD, "/workspace", &h, &mount_id, 0);
    }
    r = syscall(SYS_open_by_handle_at, top, &h, O_RDONLY);
    try_call(43, r);
    close(top);
}

static void subsystems(void)
{
    struct {
        uint32_t type, key, value, entries, flags, rest[12];
    } map = {2 /* array */, 4, 4, 1, 0, {0}};
    struct {
        uint32_t type, size;
        uint64_t config, period, sample, read_format, flags, rest[9];
    } event = {1 /* software */, 64, 0, 0, 0, 0, 1ULL << 5 | 1ULL << 6 /* not the kernel */, {0}};
    uint32_t ring[30] = {0};
    /* The user keyring, looked up, made when it is not there: it is shared by one uid's sandboxes.
     */
    judge(38, syscall(SYS_keyctl, 0, -4, 1));
    try_call(39, syscall(SYS_bpf, 0, &map, sizeof map));
    try_call(40, syscall(SYS_perf_event_open, &event, 0, -1, -1, 0));
    try_call(41, syscall(SYS_userfaultfd, O_CLOEXEC | 1 /* user mode only */));
    try_call(42, syscall(425, 4, ring));
    handle();
}

/* --- 58 to 69 --- */

static int other_abi(void)
{
#ifdef __x86_64__
    long r = syscall(0x40000000 + SYS_getpid);
    return r > 0 ? 0 : -1;
#else
    errno = ENOSYS;
    return -1;
#endif
}

/* 470 is above the ceiling and may be unknown to this kernel too. The test build lowers the ceiling
 * below mseal (462), which this kernel has: there the same rule is all that answers. */
static void ceiling(void)
{
    long r;
    if (getenv("PROBE_LOW_CEILING")) {
        void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        r = syscall(462, page, 4096, 0);
    } else {
        r = syscall(470, 0, 0, 0, 0, 0, 0);
    }
    judge(60, r);
}

static void administration(void)
{
    struct timex t = {0};
    judge(67, syscall(SYS_reboot, 0, 0, 0, NULL) < 0 && errno == EPERM ? -1 : 0);
    judge(68, sethostname("probe", 5));
    judge(69, adjtimex(&t));
}

void kernel_probes(void (*in_child)(int id, int (*fn)(void)))
{
    mounts(in_child);
    subsystems();
    long old = personality(0xffffffff);
    judge(58, personality((unsigned long)old | READ_IMPLIES_EXEC));
    personality((unsigned long)old);
    in_child(59, other_abi);
    ceiling();
    administration();
}

/* --- 44 to 46: terminals --- */

static long on_terminal(unsigned long request, void *arg)
{
    int status, master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC), unlock = 0, n = 0;
    char path[32];
    if (master < 0 || ioctl(master, TIOCSPTLCK, &unlock) < 0 || ioctl(master, TIOCGPTN, &n) < 0) {
        return -1;
    }
    snprintf(path, sizeof path, "/dev/pts/%d", n);
    pid_t pid = fork();
    if (pid == 0) { /* with it as its controlling terminal, where the kernel allows the most */
        setsid();
        int fd = open(path, O_RDWR);
        ioctl(fd, TIOCSCTTY, 0);
        _exit(syscall(SYS_ioctl, fd, request, arg) < 0 ? errno : 0);
    }
    waitpid(pid, &status, 0);
    close(master);
    errno = WEXITSTATUS(status);
    return errno ? -1 : 0;
}

void terminal_probes(void)
{
    int discipline = 2; /* mouse */
    char c = 'x';
    judge(44, on_terminal(0x5412, &c));
    judge(45, on_terminal(0x5412 | 1UL << 32, &c));
    judge(46, on_terminal(0x5423, &discipline));
}

/* --- outside: copyout <session> <range> <max> <path> … prints "path|result|bytes" --- */

int mu_probe_copyout(int argc, char **argv)
{
    if (argc < 5) {
        return 2;
    }
    int session = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int64_t range = strtoll(argv[2], NULL, 10);
    size_t max = strtoul(argv[3], NULL, 10);
    const char *times = getenv("PROBE_TIMES");
    long secrets = 0, reads = 0;
    for (long i = times ? atol(times) : 1; i > 0; i--) {
        for (int a = 4; a < argc; a++) {
            char *bytes = NULL;
            size_t len = 0;
            int r = mu_copyout(session, argv[a], max, range, &bytes, &len);
            reads += r == 0;
            secrets += bytes && memmem(bytes, len, "SECRET", 6) != NULL;
            if (!times) {
                printf("%s|%d|%s|%.*s\n", argv[a], r, r ? mu_err_text(r) : "ok", (int)len,
                       bytes ? bytes : "");
            }
            mu_free(bytes);
        }
    }
    if (times) {
        printf("%ld|%ld\n", reads, secrets);
    }
    return 0;
}
