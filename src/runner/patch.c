#include "runner/patch.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "io/folder.h"
#include "runner/shadow.h"

enum {
    LIST_MAX = 16 << 20, /* names of changed files */
    LEFT_OUT_MAX = 200,  /* files that are too large */
    TEXT = 4400,
    WORDS = LEFT_OUT_MAX + 32,
};
#define PLACE "patch" /* our git folder, .oz/patch */

/* One checkout's work. */
struct maker {
    const struct mu_checkout *checkout;
    const struct mu_patch_limits *limits;
    struct mu_workspace *w;
    struct mu_procs *p;
    int64_t deadline;
    int place; /* descriptor of our git folder */
    char tree[TEXT];
    char env_text[6][TEXT];
    char *env[16];
    struct mu_buf names;                /* NUL-separated answer of ls-files */
    const char *left_out[LEFT_OUT_MAX]; /* pathspecs, in left_text */
    size_t n_left_out;
    struct mu_buf left_text;
};

static int put_file(int dir, const char *name, const char *text)
{
    int fd MU_AUTO_CLOSE = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return fd < 0 ? -1 : mu_write_all(fd, mu_str(text));
}

static void note_git(void *arg MU_UNUSED, mu_bytes piece)
{
    piece = mu_bytes_trim(mu_bytes_head(piece, 300));
    mu_note("changes.patch: %.*s", MU_ARGS(piece));
}

static void keep_names(void *arg, mu_bytes piece)
{
    mu_buf_add(arg, piece);
}

static int run(struct maker *m, const char *const *argv, int out, bool names)
{
    struct mu_proc_end end;
    struct mu_proc proc = {.argv = argv,
                           .env = m->env,
                           .path = m->limits->path,
                           .cwd = m->tree,
                           .in = -1,
                           .out = out,
                           .quiet = names,
                           .even_stopping = true,
                           .timeout_ms = MU_MAX(m->deadline - mu_mono_ms(), (int64_t)1),
                           .file_max = out >= 0 ? m->limits->patch_bytes : 0,
                           .sink = names ? keep_names : note_git,
                           .arg = &m->names};
    mu_procs_run(m->p, &proc, &end);
    return end.status;
}

/* Ours, with nothing in its configuration that runs a program. */
static int make_place(struct maker *m)
{
    char config[512], alternates[TEXT + 16], exclude[8 << 10];
    bool sha256 = strlen(m->checkout->commit) == 64;
    mu_folder_remove_at(m->w->oz, PLACE);
    if (mkdirat(m->w->oz, PLACE, 0700) < 0) {
        return -1;
    }
    m->place = openat(m->w->oz, PLACE, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (m->place < 0) {
        return -1;
    }
    static const char *const folders[] = {"objects", "objects/info", "refs", "refs/heads", "info"};
    for (size_t i = 0; i < MU_ARRAY_LEN(folders); i++) {
        if (mkdirat(m->place, folders[i], 0700) < 0) {
            return -1;
        }
    }
    snprintf(config, sizeof config,
             "[core]\n\trepositoryformatversion = %d\n\tbare = false\n\tcheckStat = minimal\n"
             "\ttrustctime = false\n\tfsmonitor = false\n\tuntrackedCache = false\n"
             "\thooksPath = /dev/null\n\tlogAllRefUpdates = false\n\tquotePath = true\n"
             "[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n[protocol]\n\tallow = never\n"
             "[advice]\n\taddEmbeddedRepo = false\n[index]\n\tthreads = 1\n%s",
             sha256 ? 1 : 0, sha256 ? "[extensions]\n\tobjectFormat = sha256\n" : "");
    snprintf(alternates, sizeof alternates, "%s/objects\n", m->checkout->common);
    /* what its owner does not want to see is no change either */
    char path[TEXT + 16];
    snprintf(path, sizeof path, "%s/info/exclude", m->checkout->common);
    int fd MU_AUTO_CLOSE = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    ssize_t n = fd < 0 ? 0 : read(fd, exclude, sizeof exclude - 16);
    snprintf(exclude + (n > 0 ? n : 0), 16, "\n/.oz/\n");
    return mu_shadow_exec(m->place) || put_file(m->place, "config", config) ||
                   put_file(m->place, "HEAD", "ref: refs/heads/none\n") ||
                   put_file(m->place, "objects/info/alternates", alternates) ||
                   put_file(m->place, "info/exclude", exclude)
               ? -1
               : 0;
}

static void make_env(struct maker *m)
{
    static char fixed[][32] = {"GIT_CONFIG_NOSYSTEM=1",
                               "GIT_CONFIG_GLOBAL=/dev/null",
                               "GIT_ATTR_NOSYSTEM=1",
                               "GIT_TERMINAL_PROMPT=0",
                               "GIT_NO_LAZY_FETCH=1",
                               "GIT_NO_REPLACE_OBJECTS=1",
                               "LC_ALL=C"};
    char place[TEXT];
    snprintf(place, sizeof place, "%s/.oz/" PLACE, m->w->root);
    snprintf(m->env_text[0], TEXT, "PATH=%s", m->limits->path);
    snprintf(m->env_text[1], TEXT, "GIT_DIR=%s", place);
    snprintf(m->env_text[2], TEXT, "GIT_WORK_TREE=%s", m->tree);
    snprintf(m->env_text[3], TEXT, "HOME=%s", place);
    snprintf(m->env_text[4], TEXT, "GIT_EXEC_PATH=%s/exec", place);
    size_t n = 0;
    for (; n < 5; n++) {
        m->env[n] = m->env_text[n];
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(fixed); i++) {
        m->env[n++] = fixed[i];
    }
}

static int read_tree(struct maker *m)
{
    (void)unlinkat(m->place, "index", 0);
    const char *const argv[] = {"git", "read-tree", m->checkout->commit, NULL};
    return run(m, argv, -1, false);
}

/* Names among the changed files that are too large for a patch. */
static void find_large(struct maker *m)
{
    const char *const argv[] = {"git", "ls-files", "-o", "-m", "-z", "--exclude-standard", NULL};
    mu_buf_clear(&m->names);
    (void)run(m, argv, -1, true);
    int dir MU_AUTO_CLOSE = open(m->tree, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    size_t offsets[LEFT_OUT_MAX], n = 0;
    /* the last name has its NUL too, unless the list was cut */
    for (mu_bytes rest = mu_buf_bytes(&m->names); rest.len && n < LEFT_OUT_MAX;) {
        ptrdiff_t at = mu_bytes_find_char(rest, 0);
        struct stat st;
        if (at < 0) {
            break;
        }
        if (at > 0 && fstatat(dir, rest.ptr, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(st.st_mode) && st.st_size > m->limits->file_bytes) {
            mu_note("changes.patch is without %.200s (%lld bytes)", rest.ptr,
                    (long long)st.st_size);
            offsets[n++] = m->left_text.len;
            mu_buf_add_str(&m->left_text, ":(top,exclude,literal)");
            mu_buf_add(&m->left_text, mu_bytes_head(rest, (size_t)at + 1));
        }
        rest = mu_bytes_from(rest, (size_t)at + 1);
    }
    for (size_t i = 0; i < n && !m->left_text.failed; i++) {
        m->left_out[m->n_left_out++] = m->left_text.ptr + offsets[i];
    }
    mu_buf_fini(&m->names);
}

static int add_all(struct maker *m)
{
    const char *argv[WORDS] = {"git", "add", "-A", "--ignore-errors", "--", ":(top)"};
    size_t n = 6; /* .oz is ignored already, and add refuses to be told of ignored names */
    for (size_t i = 0; i < m->n_left_out; i++) {
        argv[n++] = m->left_out[i];
    }
    int status = run(m, argv, -1, true);
    if (status == 1) { /* a file that cannot be read, a repository without a commit in a folder */
        mu_note("changes.patch: some files could not be added");
    }
    return status == 1 ? 0 : status;
}

static int diff(struct maker *m, int out)
{
    char src[TEXT + 32], dst[TEXT + 32];
    const char *dir = m->checkout->dir;
    snprintf(src, sizeof src, "--src-prefix=a/%s%s", dir, *dir ? "/" : "");
    snprintf(dst, sizeof dst, "--dst-prefix=b/%s%s", dir, *dir ? "/" : "");
    const char *const argv[] = {"git",
                                "diff",
                                "--cached",
                                "--binary",
                                "--full-index",
                                "--no-color",
                                "--no-ext-diff",
                                "--no-textconv",
                                "--ignore-submodules=none",
                                "--submodule=short",
                                src,
                                dst,
                                m->checkout->commit,
                                "--",
                                ":(top)",
                                ":(top,exclude,literal).oz",
                                NULL};
    return run(m, argv, out, false);
}

/* Our folder, and in its index everything as it is now. */
static int take_stock(struct maker *m)
{
    const char *dir = m->checkout->dir;
    snprintf(m->tree, sizeof m->tree, "%s%s%s", m->w->root, *dir ? "/" : "", dir);
    make_env(m);
    if (make_place(m) < 0) {
        return 1;
    }
    char index[TEXT + 16];
    snprintf(index, sizeof index, "%s/index", m->checkout->git_dir);
    int r = mu_shadow_copy_index(m->place, index, "index") ? 0 : read_tree(m);
    if (!r) {
        find_large(m);
        r = add_all(m);
    }
    if (r && mu_mono_ms() < m->deadline) {
        r = read_tree(m); /* an index that git does not like */
        r = r ? r : add_all(m);
    }
    return r;
}

static int add_checkout(struct maker *m, int out)
{
    int r = take_stock(m);
    return r ? r : diff(m, out);
}

int64_t mu_patch_make(const struct mu_checkouts *c, struct mu_workspace *w, struct mu_procs *p,
                      const struct mu_patch_limits *limits)
{
    int fd MU_AUTO_CLOSE = c->n ? mu_workspace_create(w, "changes.patch", 0644) : -1;
    struct maker *m MU_AUTO_FREE = mu_calloc(1, sizeof *m);
    bool ok = fd >= 0 && m;
    int64_t deadline = mu_mono_ms() + limits->timeout_ms;
    (void)(fd >= 0 && fcntl(fd, F_SETFL, O_APPEND));
    for (size_t i = 0; i < c->n && ok; i++) {
        *m = (struct maker){.checkout = &c->items[i], .limits = limits, .w = w, .p = p};
        m->deadline = deadline;
        m->place = -1;
        mu_buf_init(&m->names, LIST_MAX);
        mu_buf_init(&m->left_text, LIST_MAX);
        int status = add_checkout(m, fd);
        ok = status == 0;
        if (!ok) {
            mu_note("changes.patch was not made: git ended with %d%s", status,
                    status == 128 + 25 ? " (too large)"
                    : status == 124    ? " (out of time)"
                                       : "");
        }
        if (m->place >= 0) {
            close(m->place);
        }
        mu_buf_fini(&m->names);
        mu_buf_fini(&m->left_text);
    }
    mu_folder_remove_at(w->oz, PLACE);
    struct stat st = {.st_size = 0};
    if (fd < 0 || !ok || fstat(fd, &st) < 0 || st.st_size == 0) {
        (void)(fd >= 0 && unlinkat(w->oz, "changes.patch", 0));
        return 0;
    }
    return st.st_size;
}

/* --- the changes as they are now --- */

enum { LOOK_LIST = 4 << 20, LOOK_PATCH = 2 << 20 };

static int list_changes(struct maker *m)
{
    const char *const argv[] = {"git",
                                "diff",
                                "--cached",
                                "--raw",
                                "--numstat",
                                "-z",
                                "-M",
                                "--no-ext-diff",
                                "--no-textconv",
                                "--ignore-submodules=none",
                                m->checkout->commit,
                                "--",
                                ":(top)",
                                ":(top,exclude,literal).oz",
                                NULL};
    return run(m, argv, -1, true);
}

static int text_of_changes(struct maker *m)
{
    char src[TEXT + 32], dst[TEXT + 32];
    const char *dir = m->checkout->dir;
    snprintf(src, sizeof src, "--src-prefix=a/%s%s", dir, *dir ? "/" : "");
    snprintf(dst, sizeof dst, "--dst-prefix=b/%s%s", dir, *dir ? "/" : "");
    const char *const argv[] = {"git",
                                "diff",
                                "--cached",
                                "-M",
                                "--no-color",
                                "--no-ext-diff",
                                "--no-textconv",
                                "--ignore-submodules=none",
                                src,
                                dst,
                                m->checkout->commit,
                                "--",
                                ":(top)",
                                ":(top,exclude,literal).oz",
                                NULL};
    return run(m, argv, -1, true);
}

static int look_at(struct maker *m, bool patch, mu_patch_fn each, void *arg)
{
    int r = take_stock(m);
    mu_buf_fini(&m->names);
    mu_buf_init(&m->names, LOOK_LIST);
    r = r ? r : list_changes(m);
    if (!r) {
        each(arg, m->checkout, false, mu_buf_bytes(&m->names), m->names.failed != 0);
    }
    if (!r && patch) {
        mu_buf_fini(&m->names);
        mu_buf_init(&m->names, LOOK_PATCH);
        r = text_of_changes(m);
        if (!r) {
            each(arg, m->checkout, true, mu_buf_bytes(&m->names), m->names.failed != 0);
        }
    }
    return r;
}

int mu_patch_look(const struct mu_checkouts *c, struct mu_workspace *w, struct mu_procs *p,
                  const struct mu_patch_limits *limits, bool patch, mu_patch_fn each, void *arg)
{
    struct maker *m MU_AUTO_FREE = mu_calloc(1, sizeof *m);
    int r = m ? 0 : 1;
    int64_t deadline = mu_mono_ms() + limits->timeout_ms;
    for (size_t i = 0; i < c->n && !r; i++) {
        *m = (struct maker){.checkout = &c->items[i], .limits = limits, .w = w, .p = p};
        m->deadline = deadline;
        m->place = -1;
        mu_buf_init(&m->names, LIST_MAX);
        mu_buf_init(&m->left_text, LIST_MAX);
        r = look_at(m, patch, each, arg);
        if (m->place >= 0) {
            close(m->place);
        }
        mu_buf_fini(&m->names);
        mu_buf_fini(&m->left_text);
    }
    mu_folder_remove_at(w->oz, PLACE);
    return r;
}
