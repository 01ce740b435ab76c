/* A private PostgreSQL server for one test program: own data directory, 127.0.0.1, gone at the end.
 * Its default collation is not the byte order, as on many real servers. */
#ifndef TEST_DB_PG_SERVER_H
#define TEST_DB_PG_SERVER_H

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <libpq-fe.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct pg_server {
    char dir[64], data[96], bin[200], url[128];
    int port;
    pid_t pid;
    uid_t uid;
    gid_t gid;
};

static inline void pg_drop_root(const struct pg_server *s)
{
    if (geteuid() == 0 && (setgid(s->gid) < 0 || setuid(s->uid) < 0)) {
        _exit(126);
    }
    prctl(PR_SET_PDEATHSIG, SIGINT);
    if (chdir(s->dir) < 0) {
        _exit(126);
    }
}

static inline pid_t pg_spawn(const struct pg_server *s, const char *program, char *argv[])
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", s->bin, program);
    pid_t pid = fork();
    if (pid == 0) {
        pg_drop_root(s);
        int fd = open("log", O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(fd, 1);
        dup2(fd, 2);
        char *env[] = {"LC_ALL=C.UTF-8", "PATH=/usr/bin:/bin", NULL};
        argv[0] = path; /* it looks for its own directory by that name */
        execve(path, argv, env);
        _exit(127);
    }
    return pid;
}

static inline int pg_free_port(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 ||
        getsockname(fd, (struct sockaddr *)&a, &len) < 0) {
        a.sin_port = 0;
    }
    close(fd);
    return ntohs(a.sin_port);
}

static inline bool pg_find_binaries(struct pg_server *s)
{
    glob_t g = {0};
    bool found = glob("/usr/lib/postgresql/*/bin/initdb", 0, NULL, &g) == 0;
    if (found) {
        const char *last = g.gl_pathv[g.gl_pathc - 1];
        snprintf(s->bin, sizeof s->bin, "%.*s", (int)(strrchr(last, '/') - last), last);
    }
    globfree(&g);
    return found;
}

/* On s->port; again after pg_shutdown(). */
static inline bool pg_boot(struct pg_server *s)
{
    char port[16];
    snprintf(port, sizeof port, "%d", s->port);
    char *argv[] = {"postgres",
                    "-D",
                    s->data,
                    "-p",
                    port,
                    "-c",
                    "listen_addresses=127.0.0.1",
                    "-k",
                    s->dir,
                    "-c",
                    "fsync=off",
                    "-c",
                    "max_connections=30",
                    NULL};
    s->pid = pg_spawn(s, "postgres", argv);
    for (int i = 0; i < 200; i++) {
        if (PQping(s->url) == PQPING_OK) {
            return true;
        }
        nanosleep(&(struct timespec){0, 50000000}, NULL);
    }
    return false;
}

static inline void pg_shutdown(struct pg_server *s)
{
    if (s->pid > 0) {
        kill(s->pid, SIGINT);
        waitpid(s->pid, NULL, 0);
        s->pid = 0;
    }
}

static inline int pg_remove_entry(const char *path, const struct stat *st, int flag,
                                  struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static inline void pg_stop(struct pg_server *s)
{
    pg_shutdown(s);
    if (s->dir[0]) {
        nftw(s->dir, pg_remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    }
}

/* PostgreSQL should be here (script/bootstrap test installs it), so its absence is a failure unless
 * MUSTER_TEST_WITHOUT_PG=1 says that it is known: false then, and the tests are skipped. */
static inline bool pg_absent(const char *why)
{
    const char *known = getenv("MUSTER_TEST_WITHOUT_PG");
    bool skipped = known && strcmp(known, "1") == 0;
    fprintf(stderr, "%s: %s\n", skipped ? "SKIPPED" : "FAILED", why);
    if (!skipped) {
        exit(1);
    }
    return false;
}

static inline bool pg_start(struct pg_server *s)
{
    *s = (struct pg_server){.uid = geteuid(), .gid = getegid()};
    if (!pg_find_binaries(s)) {
        return pg_absent("no PostgreSQL server binaries below /usr/lib/postgresql");
    }
    if (geteuid() == 0) {
        struct passwd *p = getpwnam("postgres");
        p = p ? p : getpwnam("nobody");
        if (!p) {
            return pg_absent("no unprivileged user to run PostgreSQL as");
        }
        s->uid = p->pw_uid;
        s->gid = p->pw_gid;
    }
    snprintf(s->dir, sizeof s->dir, "/tmp/mu-pg-XXXXXX");
    if (!mkdtemp(s->dir) || chown(s->dir, s->uid, s->gid) < 0) {
        return pg_absent("no folder for PostgreSQL could be made");
    }
    snprintf(s->data, sizeof s->data, "%s/data", s->dir);
    char *argv[] = {"initdb",
                    "-D",
                    s->data,
                    "-A",
                    "trust",
                    "-U",
                    "postgres",
                    "-E",
                    "UTF8",
                    "--no-sync",
                    "--locale=C.UTF-8",
                    "--locale-provider=icu",
                    "--icu-locale=en-US",
                    NULL};
    int status = 1;
    waitpid(pg_spawn(s, "initdb", argv), &status, 0);
    bool up = false;
    for (int tries = 0; status == 0 && !up && tries < 3;
         tries++) { /* a port may be taken meanwhile */
        s->port = pg_free_port();
        snprintf(s->url, sizeof s->url, "postgres://postgres@127.0.0.1:%d/postgres", s->port);
        up = pg_boot(s);
        if (!up) {
            pg_shutdown(s);
        }
    }
    if (!up) {
        fprintf(stderr, "PostgreSQL did not start, see %s/log\n", s->dir);
        pg_shutdown(s);
        abort();
    }
    return true;
}

#endif
