/* Repositories into the workspace, and git's questions about github.com (oz-worker.md 13.5). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "io/folder.h"
#include "proto/repo.h"
#include "runner/push.h"
#include "runner/runner_int.h"

extern char **environ;
#define ASKPASS_ENV MU_ASKPASS_ENV

static const char *github_token(void)
{
    static const char *const names[] = {MU_REPO_TOKENS};
    for (size_t i = 0; i < MU_ARRAY_LEN(names); i++) {
        const char *v = getenv(names[i]);
        if (v && *v) {
            return v;
        }
    }
    return NULL;
}

int mu_runner_is_askpass(void)
{
    return getenv(ASKPASS_ENV) != NULL;
}

/* git asks "Username for 'https://github.com': " and "Password for 'https://NAME@github.com': ".
 * Only this host over TLS gets an answer, whatever it redirects to or includes. */
int mu_runner_askpass(int argc, char **argv)
{
    mu_bytes question = mu_str(argc > 1 ? argv[1] : "");
    const char *token = github_token();
    bool user = mu_bytes_starts(question, MU_B("Username for '"));
    ptrdiff_t from = mu_bytes_find_char(question, '\'');
    if (!token || from < 0 || (!user && !mu_bytes_starts(question, MU_B("Password for '")))) {
        return 1;
    }
    mu_bytes url = mu_bytes_from(question, (size_t)from + 1);
    ptrdiff_t to = mu_bytes_find_char(url, '\'');
    url = mu_bytes_head(url, to < 0 ? 0 : (size_t)to);
    if (!mu_bytes_starts(url, MU_B("https://"))) {
        return 1;
    }
    mu_bytes host = mu_bytes_from(url, 8);
    ptrdiff_t slash = mu_bytes_find_char(host, '/');
    host = slash < 0 ? host : mu_bytes_head(host, (size_t)slash);
    for (ptrdiff_t at; (at = mu_bytes_find_char(host, '@')) >= 0;) {
        host = mu_bytes_from(host, (size_t)at + 1);
    }
    if (!mu_bytes_is(host, "github.com") && !mu_bytes_is(host, "github.com:443")) {
        return 1;
    }
    return puts(user ? "x-access-token" : token) >= 0 && fflush(stdout) == 0 ? 0 : 1;
}

/* The runner's variables and those of a git that nobody can answer. The array is one block. */
static char **git_env(struct mu_runner *r)
{
    static char terminal[] = "GIT_TERMINAL_PROMPT=0", lfs[] = "GIT_LFS_SKIP_SMUDGE=1",
                mark[] = ASKPASS_ENV "=1";
    size_t n = 0, k = 0;
    while (environ[n]) {
        n++;
    }
    char **env = mu_calloc(1, (n + 6) * sizeof *env + sizeof r->self + 32);
    if (!env) {
        return NULL;
    }
    memcpy(env, environ, n * sizeof *env);
    k = n;
    env[k++] = terminal;
    if (!getenv("GIT_LFS_SKIP_SMUDGE")) {
        env[k++] = lfs; /* pointers stay pointers until somebody wants the files */
    }
    if (github_token() && r->self[0] && !getenv("GIT_ASKPASS")) {
        char *text = (char *)(env + n + 6);
        snprintf(text, sizeof r->self + 32, "GIT_ASKPASS=%s", r->self);
        env[k++] = text;
        env[k++] = mark;
    }
    return env;
}

static int git(struct mu_runner *r, const char *const *argv, struct mu_tag *tag,
               struct mu_proc_end *end)
{
    char **env MU_AUTO_FREE = git_env(r);
    if (!env) {
        return mu_runner_fail(r, 1, "out of memory");
    }
    struct mu_proc proc = {.argv = argv,
                           .env = env,
                           .cwd = r->ws.root,
                           .in = -1,
                           .out = -1,
                           .timeout_ms = mu_runner_seconds("OZ_CLONE_TIMEOUT", MU_CLONE_TIMEOUT_S),
                           .sink = mu_tag_sink,
                           .arg = tag};
    mu_procs_run(&r->procs, &proc, end);
    mu_tag_end(tag);
    return 0;
}

/* Nothing there but our own folder. */
static bool is_empty(struct mu_workspace *w)
{
    int fd = openat(w->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    bool empty = d != NULL;
    for (struct dirent *e; d && (e = readdir(d));) {
        empty = empty && (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
                          strcmp(e->d_name, ".oz") == 0);
    }
    if (d) {
        closedir(d);
    } else if (fd >= 0) {
        close(fd);
    }
    return empty;
}

static bool exists(struct mu_workspace *w, const char *path)
{
    struct stat st;
    return fstatat(w->fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Our folder is none of the repository's files. */
static void hide_oz(struct mu_workspace *w)
{
    int git_fd MU_AUTO_CLOSE =
        openat(w->fd, ".git", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (git_fd < 0) {
        return;
    }
    (void)mkdirat(git_fd, "info", 0755);
    int info MU_AUTO_CLOSE =
        openat(git_fd, "info", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int fd MU_AUTO_CLOSE =
        info < 0
            ? -1
            : openat(info, "exclude", O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0644);
    char text[16 << 10];
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text);
    if (fd >= 0 && mu_bytes_find(mu_bytes_of(text, n > 0 ? (size_t)n : 0), MU_B(".oz/\n")) < 0) {
        bool open_line = n > 0 && text[n - 1] != '\n';
        (void)!write(fd, open_line ? "\n/.oz/\n" : "/.oz/\n", open_line ? 7 : 6);
    }
}

static int clone_to(struct mu_runner *r, const struct mu_repo *repo, const char *target, bool bare,
                    struct mu_tag *tag)
{
    const char *argv[16] = {"git", "-c", "submodule.recurse=false", "clone", "--depth=1"};
    size_t n = 5;
    if (bare) {
        argv[n++] = "--no-checkout";
    }
    if (repo->branch) {
        argv[n++] = "--branch";
        argv[n++] = repo->branch;
    }
    argv[n++] = "--";
    argv[n++] = repo->url;
    argv[n++] = target;
    struct mu_proc_end end = {0};
    int status = git(r, argv, tag, &end);
    if (!status && end.status && !end.stopped && !end.timed_out && tag->words[0]) {
        return mu_runner_fail(r, end.status, "git clone ended with status %d: %s", end.status,
                              tag->words);
    }
    return status ? status : end.status ? mu_runner_child_failed(r, "git clone", &end) : 0;
}

/* Into the workspace itself, which is not empty: our own folder is in it, so that git's clone would
 * refuse it. */
static int clone_root(struct mu_runner *r, const struct mu_repo *repo, struct mu_tag *tag)
{
    char temp[4200];
    snprintf(temp, sizeof temp, "%s/.oz/clone", r->ws.root);
    mu_folder_remove_at(r->ws.oz, "clone");
    int status = clone_to(r, repo, temp, true, tag);
    if (status) {
        mu_folder_remove_at(r->ws.oz, "clone");
        return status;
    }
    if (renameat(r->ws.oz, "clone/.git", r->ws.fd, ".git") < 0) {
        return mu_runner_fail(r, 128, "%s/.git: %s", r->ws.root, mu_err_text(-errno));
    }
    mu_folder_remove_at(r->ws.oz, "clone");
    struct mu_proc_end end = {0};
    const char *const has_commit[] = {
        "git", "-c", "safe.directory=*", "rev-parse", "-q", "--verify", "HEAD", NULL};
    struct mu_tag silent = *tag;
    silent.procs = NULL;
    status = git(r, has_commit, &silent, &end);
    if (status || end.status) {
        return status; /* an empty repository: nothing to check out */
    }
    const char *const reset[] = {
        "git", "-c", "safe.directory=*", "-c", "submodule.recurse=false", "reset", "--hard",
        "-q",  NULL};
    status = git(r, reset, tag, &end);
    return status ? status : end.status ? mu_runner_child_failed(r, "git checkout", &end) : 0;
}

static int clone_one(struct mu_runner *r, const struct mu_repo *repo, bool root)
{
    struct mu_tag tag;
    mu_tag_init(&tag, &r->procs, "[clone %.20s] ", repo->name);
    if (root) {
        return clone_root(r, repo, &tag);
    }
    char inside[256], target[4400];
    snprintf(inside, sizeof inside, "%s/.git", repo->name);
    if (exists(&r->ws, inside)) {
        return 0;
    }
    snprintf(target, sizeof target, "%s/%s", r->ws.root, repo->name);
    return clone_to(r, repo, target, false, &tag);
}

int mu_runner_fetch(struct mu_runner *r, const char *tree, const char *commit, bool shallow)
{
    const char *argv[16] = {
        "git",   "-C", tree,       "-c", "safe.directory=*", "-c", "submodule.recurse=false",
        "fetch", "-q", "--no-tags"};
    size_t n = 10;
    if (shallow) {
        argv[n++] = "--depth=1";
    }
    argv[n++] = "origin";
    argv[n++] = commit;
    struct mu_proc_end end = {0};
    struct mu_tag tag;
    mu_tag_init(&tag, &r->procs, "[restore] ");
    int status = git(r, argv, &tag, &end);
    return status ? status : end.status ? mu_runner_child_failed(r, "git fetch", &end) : 0;
}

void mu_runner_hide_oz(struct mu_runner *r)
{
    hide_oz(&r->ws);
}

int mu_runner_clone(struct mu_runner *r)
{
    struct mu_repos repos MU_CLEANUP(mu_repos_fini) = {0};
    struct mu_err err;
    int status = 0;
    if (mu_repos_parse(mu_str(getenv("OZ_ENV_REPOS")), &repos, &err) < 0) {
        return mu_runner_fail(r, 128, "%s", err.text);
    }
    if (!exists(&r->ws, ".git")) {
        bool root = repos.n == 1 && is_empty(&r->ws);
        for (size_t i = 0; i < repos.n && !status; i++) {
            status = clone_one(r, &repos.items[i], root);
        }
    }
    hide_oz(&r->ws);
    if (mu_workspace_oz(&r->ws, &err) < 0 && !status) {
        status = mu_runner_fail(r, 1, "%s", err.text);
    }
    return status;
}
