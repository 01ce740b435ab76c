#include "runner/shadow.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "io/folder.h"

enum { EXCLUDE_MAX = 64 << 10, SHALLOW_MAX = 1 << 20, INDEX_MAX = 256 << 20, ASK_MS = 20000 };

/* What an agent or the worker keeps there to log in is no part of what is kept (G9). */
static const char own_exclude[] = "\n/.oz/\n.claude/.credentials.json\n.codex/auth.json\n";

static int put_mode(int dir, const char *name, mu_bytes text, mode_t mode)
{
    (void)unlinkat(dir, name, 0);
    int fd MU_AUTO_CLOSE =
        openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    if (fd < 0) {
        return -errno;
    }
    return mu_write_all(fd, text);
}

static int put_file(int dir, const char *name, mu_bytes text)
{
    return put_mode(dir, name, text, 0600);
}

int mu_shadow_exec(int dir)
{
    (void)mu_folder_remove_at(dir, "exec");
    return mkdirat(dir, "exec", 0700) < 0
               ? -errno
               : put_mode(dir, "exec/git", MU_B("#!/bin/sh\nexit 0\n"), 0700);
}

/* A small file of the repository, whatever it is; nothing when it is too large or not there. */
static void read_small(struct mu_buf *dst, const char *dir, const char *name)
{
    char path[MU_SHADOW_PATH + 32];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd MU_AUTO_CLOSE = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        return;
    }
    for (char *p; (p = mu_buf_room(dst, 4096));) {
        ssize_t n = read(fd, p, 4096);
        if (n <= 0) {
            return;
        }
        dst->len += (size_t)n;
    }
}

static int put_borrowed(struct mu_shadow *s, const char *borrow)
{
    struct mu_buf text MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&text, SHALLOW_MAX);
    int r = 0;
    (void)unlinkat(s->fd, "shallow", 0);
    if (borrow) {
        mu_buf_printf(&text, "%s/objects\n", borrow);
        r = text.failed ? text.failed
                        : put_file(s->fd, "objects/info/alternates", mu_buf_bytes(&text));
        mu_buf_clear(&text);
        read_small(&text, borrow, "shallow");
        if (!r && text.len && !text.failed) {
            r = put_file(s->fd, "shallow", mu_buf_bytes(&text));
        }
    }
    mu_buf_fini(&text);
    mu_buf_init(&text, EXCLUDE_MAX);
    if (borrow) { /* what its owner does not want to see is no change either */
        read_small(&text, borrow, "info/exclude");
    }
    if (text.failed) {
        mu_buf_clear(&text);
    }
    mu_buf_add_str(&text, own_exclude);
    return r ? r : text.failed ? text.failed : put_file(s->fd, "info/exclude", mu_buf_bytes(&text));
}

/* Every byte as it is, whatever the attributes of a repository say. */
static const char attributes[] =
    "* -text -eol -ident -filter -working-tree-encoding -diff -merge\n"
    "** -text -eol -ident -filter -working-tree-encoding -diff -merge\n";

static int put_all(struct mu_shadow *s, const struct mu_shadow_spec *spec)
{
    static const char *const foreign[] = {"hooks",       "config.worktree", "commondir",
                                          "packed-refs", "modules",         "index.lock"};
    /* Our own objects are packed at once and go with the sandbox: what is written in between is
     * neither compressed nor waited for. */
    bool own = !spec->objects;
    char config[1200];
    int n =
        snprintf(config, sizeof config,
                 "[core]\n\trepositoryformatversion = %d\n\tbare = false\n\tcheckStat = default\n"
                 "\tfsmonitor = false\n\tuntrackedCache = false\n\thooksPath = /dev/null\n"
                 "\tlogAllRefUpdates = false\n\tprotectNTFS = false\n\tprotectHFS = false\n"
                 "\tbigFileThreshold = 4m\n\tcompression = 1\n\tloosecompression = %d\n%s"
                 "[pack]\n\tcompression = 1\n\twindow = 0\n\tthreads = 2\n\tuseBitmaps = false\n"
                 "[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n[protocol]\n\tallow = never\n"
                 "[advice]\n\taddEmbeddedRepo = false\n[diff]\n\tignoreSubmodules = dirty\n"
                 "[submodule]\n\trecurse = false\n[index]\n\tthreads = 2\n%s",
                 spec->sha256 ? 1 : 0, own ? 0 : 1, own ? "\tfsync = none\n" : "",
                 spec->sha256 ? "[extensions]\n\tobjectFormat = sha256\n" : "");
    for (size_t i = 0; i < MU_ARRAY_LEN(foreign); i++) {
        (void)mu_folder_remove_at(s->fd, foreign[i]);
    }
    int r = put_file(s->fd, "config", mu_bytes_of(config, (size_t)n));
    r = r ? r : put_file(s->fd, "HEAD", MU_B("ref: refs/heads/none\n"));
    r = r ? r : put_file(s->fd, "info/attributes", mu_str(attributes));
    r = r ? r : mu_shadow_exec(s->fd);
    return r ? r : put_borrowed(s, spec->borrow);
}

static int make_folders(struct mu_shadow *s, const struct mu_shadow_spec *spec)
{
    static const char *const folders[] = {"objects", "objects/info", "objects/pack",
                                          "refs",    "refs/heads",   "info"};
    for (int round = 0; s->fd < 0; round++) {
        if (mkdirat(spec->parent, spec->name, 0700) < 0 && errno != EEXIST) {
            return -errno;
        }
        s->fd = openat(spec->parent, spec->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (s->fd < 0 && round) {
            return -errno;
        }
        if (s->fd < 0) {
            (void)mu_folder_remove_at(spec->parent, spec->name);
        }
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(folders); i++) {
        if (mkdirat(s->fd, folders[i], 0700) < 0 && errno != EEXIST) {
            return -errno;
        }
    }
    return 0;
}

int mu_shadow_open(struct mu_shadow *s, const struct mu_shadow_spec *spec)
{
    s->procs = spec->procs;
    s->path = spec->path;
    s->deadline = spec->deadline;
    s->fd = -1;
    s->said[0] = 0;
    int n = snprintf(s->dir, sizeof s->dir, "%s/%s", spec->parent_path, spec->name);
    int m = snprintf(s->tree, sizeof s->tree, "%s", spec->tree);
    if (n >= MU_SHADOW_PATH || m >= MU_SHADOW_PATH) {
        return -ENAMETOOLONG;
    }
    char exec[MU_SHADOW_PATH + 8];
    snprintf(exec, sizeof exec, "%s/exec", s->dir);
    const char *const values[MU_SHADOW_ENV][2] = {
        {"PATH", s->path},           {"GIT_DIR", s->dir},
        {"GIT_WORK_TREE", s->tree},  {"HOME", s->dir},
        {"XDG_CONFIG_HOME", s->dir}, {"GIT_OBJECT_DIRECTORY", spec->objects},
        {"GIT_EXEC_PATH", exec}};
    for (size_t i = 0; i < MU_SHADOW_ENV; i++) {
        s->env_text[i][0] = 0;
        if (values[i][0] && values[i][1]) {
            snprintf(s->env_text[i], sizeof s->env_text[i], "%s=%s", values[i][0], values[i][1]);
        }
    }
    int r = make_folders(s, spec);
    r = r ? r : put_all(s, spec);
    if (r) {
        mu_shadow_close(s);
    }
    return r;
}

void mu_shadow_close(struct mu_shadow *s)
{
    if (s->fd >= 0) {
        close(s->fd);
    }
    s->fd = -1;
}

/* --- running git --- */

static char fixed[][40] = {"GIT_CONFIG_NOSYSTEM=1",
                           "GIT_CONFIG_GLOBAL=/dev/null",
                           "GIT_ATTR_NOSYSTEM=1",
                           "GIT_TERMINAL_PROMPT=0",
                           "GIT_NO_LAZY_FETCH=1",
                           "GIT_NO_REPLACE_OBJECTS=1",
                           "LC_ALL=C",
                           "GIT_AUTHOR_NAME=muster",
                           "GIT_AUTHOR_EMAIL=muster@localhost",
                           "GIT_COMMITTER_NAME=muster",
                           "GIT_COMMITTER_EMAIL=muster@localhost"};

static void keep_said(void *arg, mu_bytes piece)
{
    struct mu_shadow *s = arg;
    size_t len = strlen(s->said);
    if (len + 1 < sizeof s->said) {
        snprintf(s->said + len, sizeof s->said - len, "%.*s",
                 (int)MU_MIN(piece.len, sizeof s->said), piece.ptr);
    }
}

int mu_shadow_git(struct mu_shadow *s, const struct mu_shadow_run *run)
{
    char index[MU_SHADOW_PATH + 64];
    char *env[MU_SHADOW_ENV + MU_ARRAY_LEN(fixed) + 2];
    size_t n = 0;
    for (size_t i = 0; i < MU_SHADOW_ENV; i++) {
        if (s->env_text[i][0]) {
            env[n++] = s->env_text[i];
        }
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(fixed); i++) {
        env[n++] = fixed[i];
    }
    if (run->index) {
        snprintf(index, sizeof index, "GIT_INDEX_FILE=%s", run->index);
        env[n++] = index;
    }
    env[n] = NULL;
    int64_t left = s->deadline - mu_mono_ms();
    if (left <= 0) {
        return 124;
    }
    s->said[0] = 0;
    struct mu_proc_end end;
    struct mu_proc proc = {.argv = run->argv,
                           .env = env,
                           .path = s->path,
                           .cwd = s->tree,
                           .in = run->in,
                           .out = -1,
                           .quiet = run->sink != NULL,
                           .even_stopping = true,
                           .timeout_ms = left,
                           .file_max = run->file_max,
                           .sink = run->sink ? run->sink : keep_said,
                           .arg = run->sink ? run->arg : s};
    mu_procs_run(s->procs, &proc, &end);
    return end.status;
}

void mu_shadow_words(const struct mu_shadow *s, const char *what, int status,
                     char ret[MU_SHADOW_WORDS])
{
    mu_bytes said = mu_bytes_trim(mu_str(s->said));
    snprintf(ret, MU_SHADOW_WORDS, "git %s ended with %d%s%.*s", what, status,
             status == 124 ? " (out of time)"
             : said.len    ? ": "
                           : "",
             MU_ARGS(said));
}

static void keep(void *arg, mu_bytes piece)
{
    mu_buf_add(arg, piece);
}

static bool take_id(mu_bytes text, char ret[MU_OBJECT_ID])
{
    size_t n = 0;
    while (n < text.len && n < MU_OBJECT_ID - 1 &&
           ((text.ptr[n] >= '0' && text.ptr[n] <= '9') ||
            (text.ptr[n] >= 'a' && text.ptr[n] <= 'f'))) {
        n++;
    }
    if ((n != 40 && n != 64) || (n < text.len && text.ptr[n] != '\n')) {
        return false;
    }
    memcpy(ret, text.ptr, n);
    ret[n] = 0;
    return true;
}

int mu_shadow_run_id(struct mu_shadow *s, const struct mu_shadow_run *run, char ret[MU_OBJECT_ID])
{
    struct mu_buf text MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&text, 4096);
    struct mu_shadow_run one = *run;
    one.sink = keep;
    one.arg = &text;
    int r = mu_shadow_git(s, &one);
    return r ? r : take_id(mu_buf_bytes(&text), ret) ? 0 : 1;
}

int mu_shadow_id(struct mu_shadow *s, const char *const *argv, const char *index,
                 char ret[MU_OBJECT_ID])
{
    const struct mu_shadow_run run = {.argv = argv, .index = index, .in = -1};
    return mu_shadow_run_id(s, &run, ret);
}

int mu_shadow_feed(struct mu_shadow *s, const char *name, mu_bytes content)
{
    int r = put_file(s->fd, name, content);
    if (r) {
        return r;
    }
    int fd = openat(s->fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

bool mu_shadow_copy_index(int dir, const char *from, const char *name)
{
    char block[32 << 10];
    struct stat st;
    int in MU_AUTO_CLOSE = open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (in < 0 || fstat(in, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > INDEX_MAX) {
        return false;
    }
    (void)unlinkat(dir, name, 0);
    int to MU_AUTO_CLOSE =
        openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    ssize_t n = to < 0 ? -1 : 1;
    while (n > 0 && (n = read(in, block, sizeof block)) > 0) {
        if (mu_write_all(to, mu_bytes_of(block, (size_t)n)) < 0) {
            n = -1;
        }
    }
    struct timespec times[2] = {st.st_atim, st.st_mtim};
    return n == 0 && futimens(to, times) == 0;
}

int mu_shadow_ask(struct mu_procs *p, const char *path, const char *git_dir,
                  const char *const *argv, struct mu_buf *ret)
{
    char dir_env[MU_SHADOW_PATH + 16], path_env[MU_SHADOW_PATH];
    snprintf(dir_env, sizeof dir_env, "GIT_DIR=%s", git_dir);
    snprintf(path_env, sizeof path_env, "PATH=%s", path);
    char *env[MU_ARRAY_LEN(fixed) + 3] = {dir_env, path_env};
    for (size_t i = 0; i < MU_ARRAY_LEN(fixed); i++) {
        env[2 + i] = fixed[i];
    }
    struct mu_proc proc = {.argv = argv,
                           .env = env,
                           .path = path,
                           .in = -1,
                           .out = -1,
                           .quiet = true,
                           .even_stopping = true,
                           .timeout_ms = ASK_MS,
                           .sink = keep,
                           .arg = ret};
    struct mu_proc_end end;
    mu_procs_run(p, &proc, &end);
    return end.status;
}
