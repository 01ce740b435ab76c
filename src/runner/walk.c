#include "runner/walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/err.h"

enum { LIST_MAX = 48 << 20, ENTRIES_MAX = 1000000 };

/* Folders that can be had again. */
static const char *const caches[] = {".cache", "node_modules", ".npm", "__pycache__", ".git"};
/* What somebody logs in with, by its path in a home. */
static const char *const secrets[] = {".ssh",
                                      ".aws",
                                      ".kube",
                                      ".gnupg",
                                      ".docker",
                                      ".netrc",
                                      ".npmrc",
                                      ".pypirc",
                                      ".git-credentials",
                                      ".config/gh",
                                      ".config/gcloud",
                                      ".claude/.credentials.json",
                                      ".codex/auth.json",
                                      ".gemini/oauth_creds.json",
                                      ".local/share/opencode/auth.json"};

void mu_walk_init(struct mu_walk *w, bool home)
{
    *w = (struct mu_walk){
        .home = home, .avoid = -1, .list_max = LIST_MAX, .entries_max = ENTRIES_MAX};
    mu_buf_init(&w->files, w->list_max);
}

void mu_walk_fini(struct mu_walk *w)
{
    for (size_t i = 0; i < w->n_repos; i++) {
        mu_free(w->repos[i]);
    }
    w->n_repos = 0;
    mu_buf_fini(&w->files);
}

struct here {
    struct mu_walk *w;
    struct stat avoid;
    bool has_avoid;
    int error;
    char path[MU_WALK_PATH + 2];
};

static bool among(const char *const *list, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(list[i], name) == 0) {
            return true;
        }
    }
    return false;
}

static bool unwanted(const struct here *h, const char *path, const char *name)
{
    if (strcmp(path, ".oz") == 0 || strcmp(name, ".git") == 0) {
        return true;
    }
    if (!h->w->home) {
        return strcmp(path, ".claude/.credentials.json") == 0 ||
               strcmp(path, ".codex/auth.json") == 0;
    }
    return among(caches, MU_ARRAY_LEN(caches), name) ||
           among(secrets, MU_ARRAY_LEN(secrets), path) ||
           mu_bytes_ends(mu_str(name), MU_B(".sock"));
}

static uint64_t mix(uint64_t h, const void *data, size_t n)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++) {
        h = (h ^ p[i]) * UINT64_C(0x100000001b3);
    }
    return h;
}

static void take_file(struct here *h, int dir, const char *name, const struct stat *st)
{
    struct mu_walk *w = h->w;
    bool link = S_ISLNK(st->st_mode);
    if (!link && !S_ISREG(st->st_mode)) {
        return;
    }
    if (w->since_s && st->st_ctim.tv_sec < w->since_s) {
        return;
    }
    if ((w->file_max && st->st_size > w->file_max) ||
        (!link && faccessat(dir, name, R_OK, AT_EACCESS) < 0)) {
        return;
    }
    const int64_t facts[] = {(int64_t)st->st_size,         (int64_t)st->st_ino,
                             (int64_t)st->st_mode,         (int64_t)st->st_mtim.tv_sec,
                             (int64_t)st->st_mtim.tv_nsec, (int64_t)st->st_ctim.tv_sec,
                             (int64_t)st->st_ctim.tv_nsec};
    size_t len = strlen(h->path) + 1;
    uint64_t print = mix(UINT64_C(0xcbf29ce484222325), h->path, len);
    w->print += mix(print, facts, sizeof facts); /* in whatever order a folder is read */
    w->n_files++;
    mu_buf_add(&w->files, mu_bytes_of(h->path, len));
}

static bool is_repository(int dir)
{
    struct stat st;
    return fstatat(dir, ".git/HEAD", &st, AT_SYMLINK_NOFOLLOW) == 0 &&
           fstatat(dir, ".git", &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode) &&
           fstatat(dir, ".git/objects", &st, 0) == 0 && S_ISDIR(st.st_mode);
}

static bool take_repository(struct here *h)
{
    struct mu_walk *w = h->w;
    if (w->n_repos == MU_WALK_REPOS) {
        w->cut = true;
        return false;
    }
    char *copy = mu_bytes_dup(mu_str(h->path));
    h->error = copy ? h->error : -ENOMEM;
    if (copy) {
        w->repos[w->n_repos++] = copy;
    }
    return copy != NULL;
}

static void look(struct here *h, int dir, unsigned depth, bool inside);

static void look_below(struct here *h, int dir, const char *name, unsigned depth, bool inside)
{
    struct stat st;
    if (depth == MU_WALK_DEPTH) {
        return;
    }
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return;
    }
    if (h->has_avoid && fstat(fd, &st) == 0 && st.st_ino == h->avoid.st_ino &&
        st.st_dev == h->avoid.st_dev) {
        close(fd);
        return;
    }
    look(h, fd, depth + 1, inside);
}

static void look_at(struct here *h, int dir, const struct dirent *e, unsigned depth, bool inside)
{
    struct stat st;
    bool folder = e->d_type == DT_DIR;
    if (e->d_type == DT_UNKNOWN || (!inside && !folder)) {
        if (fstatat(dir, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
            return; /* gone meanwhile */
        }
        folder = S_ISDIR(st.st_mode);
    }
    if (folder) {
        if (!inside || strcmp(e->d_name, "node_modules") != 0) {
            look_below(h, dir, e->d_name, depth, inside);
        }
    } else if (!inside) {
        take_file(h, dir, e->d_name, &st);
    }
}

/* Takes the descriptor. */
static void look(struct here *h, int dir, unsigned depth, bool inside)
{
    DIR *d = fdopendir(dir);
    size_t base = strlen(h->path), cap = sizeof h->path;
    if (!d) {
        h->error = -errno;
        close(dir);
        return;
    }
    if (!h->w->home && is_repository(dir)) { /* also one in another */
        inside = take_repository(h) || inside;
    }
    for (struct dirent *e; !h->error && (e = readdir(d));) {
        size_t len = strlen(e->d_name);
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) {
            continue;
        }
        if (++h->w->seen > h->w->entries_max) {
            h->w->cut = true;
            break;
        }
        if (h->w->turn && h->w->seen % MU_WALK_TURN == 0) {
            h->error = h->w->turn(h->w->arg);
            if (h->error) {
                break;
            }
        }
        if (base + len + 2 > cap) {
            continue;
        }
        size_t at = base;
        if (base) {
            h->path[at++] = '/';
        }
        memcpy(h->path + at, e->d_name, len + 1);
        if (!unwanted(h, h->path, e->d_name)) {
            look_at(h, dir, e, depth, inside);
        }
        h->path[base] = 0;
    }
    closedir(d);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int mu_walk_run(struct mu_walk *w, int folder)
{
    struct here *h MU_AUTO_FREE = mu_calloc(1, sizeof *h);
    if (!h) {
        return -ENOMEM;
    }
    h->w = w;
    h->has_avoid = w->avoid >= 0 && fstat(w->avoid, &h->avoid) == 0;
    w->files.max = w->list_max;
    int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    look(h, fd, 0, false);
    if (w->n_repos) {
        qsort(w->repos, w->n_repos, sizeof w->repos[0], by_name);
    }
    return h->error ? h->error : w->files.failed ? w->files.failed : w->cut ? MU_E_TOO_LARGE : 0;
}

/* --- two lists --- */

static size_t split(mu_bytes list, const char **ret)
{
    size_t n = 0;
    while (list.len) {
        mu_bytes one = mu_bytes_split(&list, 0);
        if (one.len && list.ptr) { /* each has its NUL */
            if (ret) {
                ret[n] = one.ptr;
            }
            n++;
        }
    }
    return n;
}

static const char **sorted(mu_bytes list, size_t *ret_n)
{
    *ret_n = split(list, NULL);
    const char **names = mu_calloc(*ret_n + 1, sizeof *names);
    if (names && *ret_n) {
        (void)split(list, names);
        qsort(names, *ret_n, sizeof *names, by_name);
    }
    return names;
}

int mu_walk_gone(mu_bytes old, mu_bytes now, struct mu_buf *dst)
{
    size_t n, m, k = 0;
    const char **a MU_AUTO_FREE = sorted(old, &n);
    const char **b MU_AUTO_FREE = sorted(now, &m);
    if (!a || !b) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        while (k < m && strcmp(b[k], a[i]) < 0) {
            k++;
        }
        if (k == m || strcmp(b[k], a[i]) != 0) {
            mu_buf_add(dst, mu_bytes_of(a[i], strlen(a[i]) + 1));
        }
    }
    return dst->failed;
}
