/* From a description to a running child. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "runner/procs_int.h"

extern char **environ;
enum { PROGRAM_MAX = 4096 };

int mu_find_program(const char *name, const char *path, char *ret)
{
    int found = -ENOENT;
    if (!*name) {
        return found;
    }
    if (strchr(name, '/')) {
        return snprintf(ret, PROGRAM_MAX, "%s", name) < PROGRAM_MAX ? 0 : -ENAMETOOLONG;
    }
    mu_bytes rest = mu_str(path ? path : "/usr/local/bin:/usr/bin:/bin");
    while (rest.ptr) {
        mu_bytes dir = mu_bytes_split(&rest, ':');
        struct stat st;
        int n = dir.len ? snprintf(ret, PROGRAM_MAX, "%.*s/%s", MU_ARGS(dir), name)
                        : snprintf(ret, PROGRAM_MAX, "./%s", name);
        if (n >= PROGRAM_MAX || stat(ret, &st) < 0 || !S_ISREG(st.st_mode)) {
            continue;
        }
        if (access(ret, X_OK) == 0) {
            return 0;
        }
        found = -EACCES;
    }
    return found;
}

static void close_from(int first)
{
#ifdef SYS_close_range
    if (syscall(SYS_close_range, (unsigned)first, ~0U, 0U) == 0) {
        return;
    }
#endif
    for (int fd = first; fd < 4096; fd++) {
        close(fd);
    }
}

struct plan {
    const struct mu_proc *proc;
    const char *program;
    const char **as_script; /* /bin/sh PROGRAM ARGS: for a file without a first line */
    int in, out, err, report;
};

/* Only system calls from here on. */
static MU_NORETURN void become(const struct plan *p)
{
    sigset_t none;
    sigemptyset(&none);
    (void)setsid();
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int report = fcntl(p->report, F_DUPFD_CLOEXEC, 10);
    int r = 0;
    if (dup2(p->in, 0) < 0 || dup2(p->out, 1) < 0 || dup2(p->err, 2) < 0 || report < 0) {
        r = errno;
    }
    if (!r && p->proc->cwd && chdir(p->proc->cwd) < 0) {
        r = errno;
    }
    if (!r && p->proc->file_max) {
        struct rlimit lim = {(rlim_t)p->proc->file_max, (rlim_t)p->proc->file_max};
        (void)setrlimit(RLIMIT_FSIZE, &lim);
    }
    if (!r) {
        char *const *env = p->proc->env ? p->proc->env : environ;
        dup2(report, 3);
        fcntl(3, F_SETFD, FD_CLOEXEC);
        close_from(4);
        report = 3;
        execve(p->program, (char *const *)p->proc->argv, env);
        r = errno;
        if (r == ENOEXEC) {
            execve("/bin/sh", (char *const *)p->as_script, env);
        }
    }
    (void)!write(report, &r, sizeof r);
    _exit(127);
}

static const char **script_argv(const char *const *argv, const char *program)
{
    size_t n = 0;
    while (argv[n]) {
        n++;
    }
    const char **as = mu_calloc(n + 2, sizeof *as);
    if (as) {
        as[0] = "/bin/sh";
        as[1] = program;
        for (size_t i = 1; i < n; i++) {
            as[i + 1] = argv[i];
        }
    }
    return as;
}

static int start(struct plan *p, struct mu_spawned *ret)
{
    int pipe_fd[2] = {-1, -1}, report[2] = {-1, -1};
    int r = 0, error = 0;
    bool piped = p->proc->out < 0 || !p->proc->quiet;
    if (pipe2(report, O_CLOEXEC) < 0 || (piped && pipe2(pipe_fd, O_CLOEXEC) < 0)) {
        r = -errno;
    }
    int null MU_AUTO_CLOSE = open("/dev/null", O_RDWR | O_CLOEXEC);
    p->in = p->proc->in >= 0 ? p->proc->in : null;
    p->out = p->proc->out >= 0 ? p->proc->out : pipe_fd[1];
    p->err = p->proc->quiet ? null : pipe_fd[1];
    p->report = report[1];
    ret->pid = r ? -1 : fork();
    if (ret->pid == 0) {
        become(p);
    }
    if (!r && ret->pid < 0) {
        r = -errno;
    }
    if (pipe_fd[1] >= 0) {
        close(pipe_fd[1]);
    }
    if (report[1] >= 0) {
        close(report[1]);
    }
    if (!r) {
        ssize_t n;
        while ((n = read(report[0], &error, sizeof error)) < 0 && errno == EINTR) {
        }
        ret->out = pipe_fd[0];
        if (ret->out >= 0) {
            (void)fcntl(ret->out, F_SETFL, O_NONBLOCK);
        }
        r = n == sizeof error ? -error : 0;
    } else if (pipe_fd[0] >= 0) {
        close(pipe_fd[0]);
    }
    if (report[0] >= 0) {
        close(report[0]);
    }
    return r;
}

void mu_spawn(const struct mu_proc *proc, struct mu_spawned *ret)
{
    char program[PROGRAM_MAX];
    *ret = (struct mu_spawned){.pid = -1, .out = -1};
    ret->error = mu_find_program(proc->argv[0], proc->path ? proc->path : getenv("PATH"), program);
    if (ret->error) {
        return;
    }
    const char **as_script MU_AUTO_FREE = script_argv(proc->argv, program);
    if (!as_script) {
        ret->error = -ENOMEM;
        return;
    }
    struct plan plan = {.proc = proc, .program = program, .as_script = as_script};
    ret->error = start(&plan, ret);
    ret->no_interpreter = ret->error == -ENOENT && access(program, F_OK) == 0;
}
