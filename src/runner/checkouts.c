/* Which repositories a task began with, and at which commits. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "runner/patch.h"
#include "runner/shadow.h"

enum { PATH_BYTES = 4400, LINK_BYTES = 4096, ANSWER_BYTES = 4096, LIST_BYTES = 256 << 10 };

static void fini(struct mu_checkout *c)
{
    mu_free(c->dir);
    mu_free(c->git_dir);
    mu_free(c->common);
    mu_free(c->branch);
    *c = (struct mu_checkout){0};
}

void mu_checkouts_fini(struct mu_checkouts *c)
{
    for (size_t i = 0; i < c->n; i++) {
        fini(&c->items[i]);
    }
    c->n = 0;
}

/* A small text file without its last line end; "" when there is none. */
static void read_line(const char *path, char ret[LINK_BYTES])
{
    int fd MU_AUTO_CLOSE = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    ssize_t n = fd < 0 ? 0 : read(fd, ret, LINK_BYTES - 1);
    ret[n > 0 ? n : 0] = 0;
    ret[strcspn(ret, "\r\n")] = 0;
}

/* `value` taken from the folder `from`. */
static char *resolved(const char *from, const char *value)
{
    char path[2 * PATH_BYTES];
    int n = value[0] == '/' ? snprintf(path, sizeof path, "%s", value)
                            : snprintf(path, sizeof path, "%s/%s", from, value);
    return n < (int)sizeof path ? mu_bytes_dup(mu_str(path)) : NULL;
}

char *mu_checkout_branch(const struct mu_checkout *c)
{
    static const char prefix[] = "ref: refs/heads/";
    char path[2 * PATH_BYTES], text[LINK_BYTES];
    snprintf(path, sizeof path, "%s/HEAD", c->git_dir);
    read_line(path, text);
    bool on_branch = strncmp(text, prefix, sizeof prefix - 1) == 0;
    return on_branch ? mu_bytes_dup(mu_str(text + sizeof prefix - 1)) : NULL;
}

/* The commit that HEAD names. */
static bool read_commit(struct mu_checkout *c, struct mu_procs *p, const char *path)
{
    const char *const argv[] = {"git", "rev-parse", "--verify", "-q", "HEAD^{commit}", NULL};
    struct mu_buf answer MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&answer, ANSWER_BYTES);
    int status = mu_shadow_ask(p, path, c->git_dir, argv, &answer);
    mu_buf_add_char(&answer, 0);
    size_t n = answer.failed ? 0 : strspn(answer.ptr, "0123456789abcdef");
    if (status || (n != 40 && n != 64) || answer.ptr[n] != '\n') {
        return false;
    }
    memcpy(c->commit, answer.ptr, n);
    return true;
}

/* `dir` is a folder below the workspace or "". */
static void look(struct mu_checkouts *list, struct mu_workspace *w, const char *dir,
                 struct mu_procs *p, const char *path)
{
    char tree[PATH_BYTES], dot_git[PATH_BYTES + 8], text[LINK_BYTES], file[PATH_BYTES];
    struct stat st;
    snprintf(tree, sizeof tree, "%s%s%s", w->root, *dir ? "/" : "", dir);
    snprintf(dot_git, sizeof dot_git, "%s/.git", tree);
    if (list->n == MU_CHECKOUTS_MAX || lstat(dot_git, &st) < 0) {
        return;
    }
    struct mu_checkout c = {.dir = mu_bytes_dup(mu_str(dir))};
    if (S_ISDIR(st.st_mode)) {
        c.git_dir = mu_bytes_dup(mu_str(dot_git));
    } else if (S_ISREG(st.st_mode)) { /* a linked work tree */
        read_line(dot_git, text);
        c.git_dir = strncmp(text, "gitdir: ", 8) == 0 ? resolved(tree, text + 8) : NULL;
    }
    if (c.dir && c.git_dir && strlen(c.git_dir) < PATH_BYTES - 64) {
        snprintf(file, sizeof file, "%s/commondir", c.git_dir);
        read_line(file, text);
        c.common = text[0] ? resolved(c.git_dir, text) : mu_bytes_dup(mu_str(c.git_dir));
        c.branch = mu_checkout_branch(&c);
    }
    if (c.common && read_commit(&c, p, path)) {
        list->items[list->n++] = c;
    } else {
        fini(&c);
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct mu_checkout *)a)->dir, ((const struct mu_checkout *)b)->dir);
}

void mu_checkouts_find(struct mu_checkouts *c, struct mu_workspace *w, struct mu_procs *p,
                       const char *path)
{
    *c = (struct mu_checkouts){.n = 0};
    struct stat st;
    if (fstatat(w->fd, ".git", &st, AT_SYMLINK_NOFOLLOW) == 0) {
        look(c, w, "", p, path);
        return;
    }
    int fd = openat(w->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        if (fd >= 0) {
            close(fd);
        }
        return;
    }
    for (struct dirent *e; (e = readdir(d));) {
        bool folder = fstatat(w->fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
                      S_ISDIR(st.st_mode) && e->d_name[0] != '.';
        if (folder) {
            look(c, w, e->d_name, p, path);
        }
    }
    closedir(d);
    if (c->n) {
        qsort(c->items, c->n, sizeof c->items[0], by_name);
    }
}

void mu_checkout_commits(const struct mu_checkout *c, struct mu_procs *p, const char *path,
                         char since[65], mu_commit_fn each, void *arg)
{
    char range[80];
    struct mu_buf list MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&list, LIST_BYTES);
    snprintf(range, sizeof range, "^%s", since);
    const char *const argv[] = {
        "git", "rev-list", "--max-count=20", "--reverse", "--format=%s", "HEAD", range, "--", NULL};
    if (mu_shadow_ask(p, path, c->git_dir, argv, &list)) {
        return;
    }
    for (mu_bytes rest = mu_buf_bytes(&list); rest.len;) { /* "commit SHA", then the subject */
        mu_bytes line = mu_bytes_split(&rest, '\n');
        mu_bytes sha = mu_bytes_from(line, strlen("commit "));
        if (!mu_bytes_starts(line, MU_B("commit ")) || sha.len >= 65 || !rest.ptr) {
            return;
        }
        each(arg, c, sha, mu_bytes_split(&rest, '\n'));
        memcpy(since, sha.ptr, sha.len);
        since[sha.len] = 0;
    }
}
