#include "runner/workspace.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "io/folder.h"

int mu_workspace_open(struct mu_workspace *w, const char *root, struct mu_err *err)
{
    *w = (struct mu_workspace){.root = root, .fd = -1, .oz = -1};
    if (mkdir(root, 0755) < 0 && errno != EEXIST) {
        return mu_err_set(err, -errno, "%s cannot be made: %s", root, mu_err_text(-errno));
    }
    w->fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (w->fd < 0) {
        return mu_err_set(err, -errno, "%s cannot be used: %s", root, mu_err_text(-errno));
    }
    return 0;
}

void mu_workspace_close(struct mu_workspace *w)
{
    if (w->oz >= 0) {
        close(w->oz);
    }
    if (w->fd >= 0) {
        close(w->fd);
    }
    w->oz = w->fd = -1;
}

int mu_workspace_oz(struct mu_workspace *w, struct mu_err *err)
{
    struct stat there, ours;
    if (w->oz >= 0 && fstatat(w->fd, ".oz", &there, AT_SYMLINK_NOFOLLOW) == 0 &&
        fstat(w->oz, &ours) == 0 && there.st_ino == ours.st_ino && there.st_dev == ours.st_dev) {
        return 0;
    }
    if (w->oz >= 0) {
        close(w->oz);
        w->oz = -1;
    }
    for (int round = 0; round < 3; round++) {
        if (mkdirat(w->fd, ".oz", 0755) < 0 && errno != EEXIST) {
            break;
        }
        w->oz = openat(w->fd, ".oz", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (w->oz >= 0) {
            return 0;
        }
        if (unlinkat(w->fd, ".oz", 0) < 0) {
            break;
        }
    }
    return mu_err_set(err, -errno, "%s/.oz cannot be made: %s", w->root, mu_err_text(-errno));
}

int mu_workspace_create(struct mu_workspace *w, const char *name, int mode)
{
    for (int round = 0; round < 3; round++) {
        int fd = openat(w->oz, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
        if (fd >= 0 || errno != EEXIST) {
            return fd >= 0 ? fd : -errno;
        }
        mu_folder_remove_at(w->oz, name);
    }
    return -EEXIST;
}

int mu_workspace_write(struct mu_workspace *w, const char *name, mu_bytes content)
{
    char temp[80];
    snprintf(temp, sizeof temp, ".%s.%d", name, (int)getpid());
    int fd MU_AUTO_CLOSE = mu_workspace_create(w, temp, 0644);
    if (fd < 0) {
        return fd;
    }
    int r = mu_write_all(fd, content);
    if (!r && renameat(w->oz, temp, w->oz, name) < 0) {
        r = -errno;
        if (r == -EISDIR) {
            mu_folder_remove_at(w->oz, name);
            r = renameat(w->oz, temp, w->oz, name) < 0 ? -errno : 0;
        }
    }
    if (r) {
        (void)unlinkat(w->oz, temp, 0);
    }
    return r;
}

int mu_workspace_read(struct mu_workspace *w, const char *name, struct mu_buf *ret)
{
    int fd MU_AUTO_CLOSE =
        openat(w->oz, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    struct stat st;
    if (fd < 0) {
        return errno == ENOENT ? MU_E_NOT_FOUND : -errno;
    }
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        return MU_E_INVALID;
    }
    for (;;) {
        char *p = mu_buf_room(ret, 1);
        if (!p) {
            /* full: an error only if there is more */
            char c;
            return ret->failed == MU_E_TOO_LARGE && read(fd, &c, 1) == 0 ? (ret->failed = 0, 0)
                                                                         : ret->failed;
        }
        ssize_t n = read(fd, p, ret->cap - ret->len);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        if (n == 0) {
            return 0;
        }
        ret->len += n > 0 ? (size_t)n : 0;
    }
}

const char *mu_media_type(const char *name)
{
    static const struct {
        const char *ending, *type;
    } types[] = {
        {".txt", "text/plain; charset=utf-8"},
        {".log", "text/plain; charset=utf-8"},
        {".md", "text/markdown; charset=utf-8"},
        {".json", "application/json"},
        {".patch", "text/x-diff; charset=utf-8"},
        {".diff", "text/x-diff; charset=utf-8"},
        {".csv", "text/csv; charset=utf-8"},
        {".html", "text/html; charset=utf-8"},
        {".xml", "application/xml"},
        {".pdf", "application/pdf"},
        {".png", "image/png"},
        {".jpg", "image/jpeg"},
        {".jpeg", "image/jpeg"},
        {".gif", "image/gif"},
        {".svg", "image/svg+xml"},
        {".webp", "image/webp"},
        {".mp4", "video/mp4"},
        {".webm", "video/webm"},
        {".zip", "application/zip"},
        {".gz", "application/gzip"},
        {".tar", "application/x-tar"},
    };
    mu_bytes n = mu_str(name);
    for (size_t i = 0; i < MU_ARRAY_LEN(types); i++) {
        mu_bytes end = mu_str(types[i].ending);
        if (n.len > end.len && mu_bytes_eq_nocase(mu_bytes_from(n, n.len - end.len), end)) {
            return types[i].type;
        }
    }
    return "application/octet-stream";
}

void mu_result_file_fini(struct mu_result_file *f)
{
    mu_free(f->name);
    mu_free(f->path);
    *f = (struct mu_result_file){0};
}

#define ARTIFACTS MU_WORKSPACE "/.oz/artifacts/"
enum { ARTIFACT_DEPTH = 8, ARTIFACT_NAME = 400, ARTIFACT_ENTRIES = 10000 };

struct gather {
    struct mu_workspace *w;
    struct mu_result_file *ret;
    size_t *n;
    size_t left_out, seen;
    int64_t bytes;
    char path[ARTIFACT_NAME + 1]; /* below artifacts/ */
};

static bool name_ok(const char *name)
{
    mu_bytes b = mu_str(name);
    for (size_t i = 0; i < b.len; i++) {
        if ((unsigned char)b.ptr[i] < 0x20 || b.ptr[i] == 0x7f || b.ptr[i] == '\\') {
            return false;
        }
    }
    return b.len > 0;
}

static bool keep_file(struct gather *g, const struct stat *st)
{
    if (*g->n >= MU_RESULT_FILES || st->st_size > MU_RESULT_FILE_BYTES ||
        g->bytes + st->st_size > MU_RESULT_ALL_BYTES) {
        return false;
    }
    char path[ARTIFACT_NAME + 64];
    snprintf(path, sizeof path, ARTIFACTS "%s", g->path);
    struct mu_result_file f = {NULL, mu_bytes_dup(mu_str(path)), mu_media_type(g->path),
                               st->st_size};
    if (!f.path) {
        return false;
    }
    g->ret[(*g->n)++] = f;
    g->bytes += st->st_size;
    return true;
}

static void gather_below(struct gather *g, int dir, int depth)
{
    DIR *d = fdopendir(dir);
    size_t base = strlen(g->path);
    if (!d) {
        close(dir);
        return;
    }
    for (struct dirent *e; (e = readdir(d)) && g->seen < ARTIFACT_ENTRIES;) {
        struct stat st;
        size_t len = strlen(e->d_name);
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) {
            continue;
        }
        g->seen++;
        if (base + len + 2 > sizeof g->path || !name_ok(e->d_name) ||
            fstatat(dir, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
            g->left_out++;
            continue;
        }
        memcpy(g->path + base, e->d_name, len + 1);
        if (S_ISDIR(st.st_mode) && depth < ARTIFACT_DEPTH) {
            int sub = openat(dir, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            memcpy(g->path + base + len, "/", 2);
            if (sub >= 0) {
                gather_below(g, sub, depth + 1);
            }
        } else if (!S_ISREG(st.st_mode) || st.st_nlink != 1 || !keep_file(g, &st)) {
            g->left_out++;
        }
        g->path[base] = 0;
    }
    closedir(d);
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct mu_result_file *)a)->path,
                  ((const struct mu_result_file *)b)->path);
}

enum { NAME_BYTES = 128, NAME_ROOM = 8 }; /* what an upload may be called; for a number */

static bool name_taken(const struct mu_result_file *files, size_t n, const char *name)
{
    if (strcmp(name, "output") == 0 || strcmp(name, "changes.patch") == 0) {
        return true;
    }
    for (size_t i = 0; i < n; i++) {
        if (strcmp(files[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* The path as one plain word; of a long one the end, where the ending is. */
static char *plain_name(const struct mu_result_file *files, size_t n, const char *path)
{
    char word[NAME_BYTES + 1], name[NAME_BYTES + 1];
    size_t len = strlen(path), room = NAME_BYTES - NAME_ROOM;
    path += len > room ? len - room : 0;
    for (len = 0; path[len]; len++) {
        char c = path[len];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     c == '-' || c == '_' || (c == '.' && len);
        word[len] = c == '/' ? '-' : plain ? c : '_';
    }
    word[len] = 0;
    const char *dot = strrchr(word, '.');
    int stem = dot ? (int)(dot - word) : (int)len;
    memcpy(name, word, len + 1);
    for (unsigned i = 2; name_taken(files, n, name); i++) {
        snprintf(name, sizeof name, "%.*s-%u%s", stem, word, i, word + stem);
    }
    return mu_bytes_dup(mu_str(name));
}

size_t mu_workspace_artifacts(struct mu_workspace *w, struct mu_result_file *ret, size_t *n)
{
    struct gather g = {.w = w, .ret = ret, .n = n};
    size_t first = *n;
    for (size_t i = 0; i < first; i++) {
        g.bytes += ret[i].bytes;
    }
    int dir = openat(w->oz, "artifacts", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir < 0) {
        return 0;
    }
    gather_below(&g, dir, 0);
    if (*n > first) {
        qsort(ret + first, *n - first, sizeof *ret, by_path);
    }
    size_t skip = sizeof ARTIFACTS - 1, kept = first;
    for (size_t i = first; i < *n; i++) {
        ret[i].name = plain_name(ret, kept, ret[i].path + skip);
        if (ret[i].name) {
            ret[kept++] = ret[i];
        } else {
            mu_result_file_fini(&ret[i]);
            g.left_out++;
        }
    }
    *n = kept;
    return g.left_out;
}
