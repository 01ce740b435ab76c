/* What is in a checkpoint: each repository of the workspace, what lies beside them, and the home of
 * the agent, as commits of git in folders of ours (shadow.h) and the packs between two of them. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>

#include "io/folder.h"
#include "runner/live_checkpoint.h"
#include "runner/live_int.h"

#define PLACE "checkpoint"
enum { HOME_FILE = 16 << 20, SHALLOW_MAX = 1 << 20, ARGS = MU_WALK_REPOS + 16 };

const char *mu_ck_kind_name(enum mu_ck_kind kind)
{
    static const char *const names[] = {"checkout", "workspace", "home"};
    return names[kind];
}

int mu_ck_fail(struct mu_ck *c, int status, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(c->why, sizeof c->why, fmt, ap);
    va_end(ap);
    return status ? status : 1;
}

int mu_ck_git_failed(struct mu_ck *c, const struct mu_shadow *s, const char *what, int status)
{
    char why[MU_SHADOW_WORDS];
    mu_shadow_words(s, what, status, why);
    return mu_ck_fail(c, status, "%s", why);
}

/* --- our folder --- */

static void close_folder(struct mu_ck *c)
{
    int *fds[] = {&c->dir, &c->out};
    for (size_t i = 0; i < MU_ARRAY_LEN(fds); i++) {
        if (*fds[i] >= 0) {
            close(*fds[i]);
        }
        *fds[i] = -1;
    }
}

void mu_ck_close(struct mu_ck *c)
{
    for (size_t i = 0; i < c->n_roots; i++) {
        mu_free(c->roots[i].dir);
    }
    c->n_roots = 0;
    close_folder(c);
}

void mu_ck_forget(struct mu_ck *c)
{
    mu_ck_close(c);
    c->prev = 0;
    c->links = 0;
    if (c->v->r->ws.oz >= 0) {
        (void)mu_folder_remove_at(c->v->r->ws.oz, PLACE);
    }
}

static int open_folder(struct mu_ck *c)
{
    struct mu_err err;
    struct mu_workspace *w = &c->v->r->ws;
    struct stat st;
    if (mu_workspace_oz(w, &err) < 0) {
        return mu_ck_fail(c, 1, "%s", err.text);
    }
    bool same = c->dir >= 0 && fstatat(w->oz, PLACE, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
                st.st_ino == c->folder.st_ino && st.st_dev == c->folder.st_dev;
    if (!same) { /* the first time, or somebody cleaned up */
        mu_ck_forget(c);
        if (mkdirat(w->oz, PLACE, 0700) < 0) {
            return mu_ck_fail(c, 1, ".oz/" PLACE ": %s", mu_err_text(-errno));
        }
        c->dir = openat(w->oz, PLACE, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (c->dir < 0 || fstat(c->dir, &c->folder) < 0) {
            return mu_ck_fail(c, 1, ".oz/" PLACE ": %s", mu_err_text(-errno));
        }
        int fd MU_AUTO_CLOSE =
            openat(c->dir, ".gitignore", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        (void)!write(fd, "*\n", 2); /* of an agent that adds all to a repository of its own */
    }
    if (c->out >= 0) {
        close(c->out);
    }
    (void)mu_folder_remove_at(c->dir, "out");
    if (mkdirat(c->dir, "out", 0700) < 0 ||
        (c->out = openat(c->dir, "out", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) < 0) {
        return mu_ck_fail(c, 1, ".oz/" PLACE "/out: %s", mu_err_text(-errno));
    }
    return 0;
}

/* --- roots --- */

static const char *base_of(const struct mu_ck *c, const char *dir)
{
    const struct mu_checkouts *all = &c->v->r->checkouts;
    const char *repos = getenv("OZ_ENV_REPOS");
    for (size_t i = 0; i < all->n && repos && *repos; i++) {
        if (strcmp(all->items[i].dir, dir) == 0 && !all->items[i].unfetchable) {
            return all->items[i].commit;
        }
    }
    return "";
}

static struct mu_ck_root *root_of(struct mu_ck *c, enum mu_ck_kind kind, const char *dir)
{
    for (size_t i = 0; i < c->n_roots; i++) {
        if (c->roots[i].kind == kind && strcmp(c->roots[i].dir, dir) == 0) {
            return &c->roots[i];
        }
    }
    char *copy = c->n_roots < MU_CK_ROOTS ? mu_bytes_dup(mu_str(dir)) : NULL;
    if (!copy) {
        return NULL;
    }
    struct mu_ck_root *root = &c->roots[c->n_roots++];
    *root = (struct mu_ck_root){.kind = kind, .dir = copy};
    snprintf(root->place, sizeof root->place, "%u", c->places++);
    if (kind == MU_CK_CHECKOUT) {
        snprintf(root->base, sizeof root->base, "%s", base_of(c, dir));
    }
    return root;
}

static int open_shadow(struct mu_ck *c, struct mu_ck_root *root, const char *tree,
                       const char *borrow, struct mu_shadow *s)
{
    char parent[MU_SHADOW_PATH];
    snprintf(parent, sizeof parent, "%s/.oz/" PLACE, c->v->r->ws.root);
    const struct mu_shadow_spec spec = {.procs = &c->v->r->procs,
                                        .path = c->v->r->first_path,
                                        .deadline = c->deadline,
                                        .parent = c->dir,
                                        .parent_path = parent,
                                        .name = root->place,
                                        .tree = tree,
                                        .borrow = borrow,
                                        .sha256 = strlen(root->now.head) == 64};
    int r = mu_shadow_open(s, &spec);
    return r ? mu_ck_fail(c, 1, "the folder of a checkpoint: %s", mu_err_text(r)) : 0;
}

/* A file of our folder, which is not ours alone: whatever lies there now. */
static void read_own(struct mu_shadow *s, const char *name, struct mu_buf *ret)
{
    int fd MU_AUTO_CLOSE = openat(s->fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    for (char *p; fd >= 0 && (p = mu_buf_room(ret, 64 << 10));) {
        ssize_t n = read(fd, p, 64 << 10);
        if (n <= 0) {
            return;
        }
        ret->len += (size_t)n;
    }
}

static struct mu_ck_stamp stamp_at(int dir, const char *path)
{
    struct stat st;
    if (fstatat(dir, path, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        return (struct mu_ck_stamp){0};
    }
    return (struct mu_ck_stamp){st.st_ino, st.st_size, st.st_mtim, st.st_ctim};
}

static bool same_stamp(const struct mu_ck_stamp *a, const struct mu_ck_stamp *b)
{
    return a->ino && a->ino == b->ino && a->size == b->size && a->mtime.tv_sec == b->mtime.tv_sec &&
           a->mtime.tv_nsec == b->mtime.tv_nsec && a->ctime.tv_sec == b->ctime.tv_sec &&
           a->ctime.tv_nsec == b->ctime.tv_nsec;
}

/* --- commits --- */

static int commit(struct mu_ck *c, struct mu_shadow *s, const char *tree, const char *head,
                  const char *second, char ret[MU_OBJECT_ID])
{
    const char *argv[12] = {"git", "commit-tree", tree, "-m", "checkpoint"};
    size_t n = 5;
    if (head[0]) {
        argv[n++] = "-p";
        argv[n++] = head;
    }
    if (second[0]) {
        argv[n++] = "-p";
        argv[n++] = second;
    }
    int r = mu_shadow_id(s, argv, NULL, ret);
    return r ? mu_ck_git_failed(c, s, "commit-tree", r) : 0;
}

static bool same_state(const struct mu_ck_state *a, const struct mu_ck_state *b)
{
    return strcmp(a->tree, b->tree) == 0 && strcmp(a->staged, b->staged) == 0 &&
           strcmp(a->head, b->head) == 0 && strcmp(a->branch, b->branch) == 0;
}

static void present(struct mu_ck *c, struct mu_ck_root *root)
{
    root->here = true;
    root->order = c->taken++;
}

/* now.tree and the rest are known: the commit, and what is new of it. */
static int conclude(struct mu_ck *c, struct mu_ck_root *root, struct mu_shadow *s)
{
    bool same = root->last.commit[0] && same_state(&root->now, &root->last);
    int r = 0;
    c->changed = c->changed || !same || !c->prev; /* 0: the server has none of it */
    if (same && c->from) {
        memcpy(root->now.commit, root->last.commit, sizeof root->now.commit);
    } else {
        char staged[MU_OBJECT_ID] = "";
        if (root->now.staged[0]) {
            r = commit(c, s, root->now.staged, root->now.head, "", staged);
        }
        r = r ? r : commit(c, s, root->now.tree, root->now.head, staged, root->now.commit);
    }
    return r || (same && c->from) ? r : mu_ck_pack(c, root, s);
}

/* --- a repository --- */

static void read_head(struct mu_ck *c, struct mu_ck_root *root, const char *git_dir,
                      char ret_tree[MU_OBJECT_ID])
{
    struct mu_buf text MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&text, 4096);
    char *dir MU_AUTO_FREE = mu_bytes_dup(mu_str(git_dir));
    const struct mu_checkout as = {.git_dir = dir};
    char *branch MU_AUTO_FREE = dir ? mu_checkout_branch(&as) : NULL;
    const char *const argv[] = {"git", "rev-parse", "HEAD^{commit}", "HEAD^{tree}", NULL};
    memset(&root->now, 0, sizeof root->now);
    ret_tree[0] = 0;
    if (branch && strlen(branch) < MU_CK_BRANCH) {
        snprintf(root->now.branch, sizeof root->now.branch, "%s", branch);
    }
    if (mu_shadow_ask(&c->v->r->procs, c->v->r->first_path, git_dir, argv, &text)) {
        return; /* nothing was committed yet */
    }
    mu_bytes rest = mu_buf_bytes(&text);
    mu_bytes head = mu_bytes_split(&rest, '\n'), tree = mu_bytes_split(&rest, '\n');
    if (head.len == tree.len && (head.len == 40 || head.len == 64)) {
        snprintf(root->now.head, sizeof root->now.head, "%.*s", MU_ARGS(head));
        snprintf(ret_tree, MU_OBJECT_ID, "%.*s", MU_ARGS(tree));
    }
}

/* Those that lie in it are repositories of their own. */
static int add_all(struct mu_ck *c, struct mu_shadow *s, const struct mu_ck_root *root,
                   const struct mu_walk *walk)
{
    const char *argv[ARGS] = {"git", "add", "-A", "--ignore-errors", "--", ":(top)"};
    struct mu_buf text MU_CLEANUP(mu_buf_fini);
    size_t n = 6, offsets[MU_WALK_REPOS], k = 0, len = strlen(root->dir);
    mu_buf_init(&text, MU_WALK_REPOS * (MU_WALK_PATH + 32));
    for (size_t i = 0; i < walk->n_repos; i++) {
        const char *dir = walk->repos[i];
        bool inside = strcmp(dir, root->dir) != 0 &&
                      (!len || (strncmp(dir, root->dir, len) == 0 && dir[len] == '/'));
        if (inside) {
            offsets[k++] = text.len;
            mu_buf_add_str(&text, ":(top,exclude,literal)");
            mu_buf_add(&text,
                       mu_bytes_of(dir + len + (len > 0), strlen(dir + len + (len > 0)) + 1));
        }
    }
    if (text.failed) {
        return mu_ck_fail(c, 1, "%s", mu_err_text(text.failed));
    }
    for (size_t i = 0; i < k; i++) {
        argv[n++] = text.ptr + offsets[i];
    }
    const struct mu_shadow_run run = {.argv = argv, .in = -1};
    int status = mu_shadow_git(s, &run);
    return status == 1 ? 0 : status; /* 1: files that cannot be read */
}

static int read_head_tree(struct mu_shadow *s, const char *head)
{
    const char *const some[] = {"git", "read-tree", head, NULL};
    const char *const none[] = {"git", "read-tree", "--empty", NULL};
    const struct mu_shadow_run run = {.argv = head[0] ? some : none, .in = -1};
    return mu_shadow_git(s, &run);
}

/* Our index becomes what the work tree is. */
static int take_tree(struct mu_ck *c, struct mu_ck_root *root, struct mu_shadow *s,
                     const char *git_dir, const struct mu_walk *walk)
{
    char real[MU_SHADOW_PATH + 16];
    const char *const argv[] = {"git", "write-tree", NULL};
    snprintf(real, sizeof real, "%s/index", git_dir);
    struct mu_ck_stamp at = stamp_at(s->fd, "index");
    int r = 0;
    if (!at.ino && !mu_shadow_copy_index(s->fd, real, "index")) {
        r = read_head_tree(s, root->now.head);
    }
    r = r ? r : add_all(c, s, root, walk);
    if (r && r != 124) { /* an index that git does not like */
        (void)unlinkat(s->fd, "index", 0);
        r = read_head_tree(s, root->now.head);
        r = r ? r : add_all(c, s, root, walk);
    }
    if (r) {
        return mu_ck_git_failed(c, s, "add", r);
    }
    at = stamp_at(s->fd, "index");
    if (!same_stamp(&at, &root->index)) {
        r = mu_shadow_id(s, argv, NULL, root->index_tree);
        if (r) {
            return mu_ck_git_failed(c, s, "write-tree", r);
        }
        root->index = stamp_at(s->fd, "index");
    }
    memcpy(root->now.tree, root->index_tree, sizeof root->now.tree);
    return 0;
}

/* What somebody staged is staged again afterwards; a merge that is not resolved is not. */
static void take_staged(struct mu_ck_root *root, struct mu_shadow *s, const char *git_dir,
                        const char *head_tree)
{
    char real[MU_SHADOW_PATH + 16], copy[MU_SHADOW_PATH + 16];
    const char *const argv[] = {"git", "write-tree", NULL};
    snprintf(real, sizeof real, "%s/index", git_dir);
    snprintf(copy, sizeof copy, "%s/staged", s->dir);
    struct mu_ck_stamp at = stamp_at(AT_FDCWD, real);
    if (!same_stamp(&at, &root->real)) {
        root->real_tree[0] = 0;
        root->real = at;
        if (at.ino && mu_shadow_copy_index(s->fd, real, "staged") &&
            mu_shadow_id(s, argv, copy, root->real_tree)) {
            root->real_tree[0] = 0;
        }
    }
    if (strcmp(root->real_tree, head_tree) != 0) {
        memcpy(root->now.staged, root->real_tree, sizeof root->now.staged);
    }
}

/* Where a repository that nobody else has was cloned without what was before. */
static int read_shallow(struct mu_ck *c, struct mu_ck_root *root, struct mu_shadow *s)
{
    struct mu_buf text MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&text, SHALLOW_MAX);
    root->n_shallow = 0;
    if (!root->base[0]) {
        read_own(s, "shallow", &text);
    }
    for (mu_bytes rest = mu_buf_bytes(&text); rest.len;) {
        char id[MU_OBJECT_ID];
        mu_bytes line = mu_bytes_split(&rest, '\n');
        snprintf(id, sizeof id, "%.*s", MU_ARGS(line));
        if ((line.len != 40 && line.len != 64) || strspn(id, "0123456789abcdef") != line.len) {
            continue;
        }
        if (root->n_shallow == MU_ARRAY_LEN(root->shallow)) { /* git would miss what is behind */
            return mu_ck_fail(c, 1, "%s: its history has more than %d shallow borders", root->dir,
                              MU_MANIFEST_SHALLOW);
        }
        memcpy(root->shallow[root->n_shallow++], id, sizeof id);
    }
    return text.failed ? mu_ck_fail(c, 1, "%s", mu_err_text(text.failed)) : 0;
}

static int take_checkout(struct mu_ck *c, const char *dir, const struct mu_walk *walk)
{
    const char *top = c->v->r->ws.root;
    char tree[MU_SHADOW_PATH], git_dir[MU_SHADOW_PATH + 8], head_tree[MU_OBJECT_ID];
    struct mu_ck_root *root = root_of(c, MU_CK_CHECKOUT, dir);
    if (!root) {
        return mu_ck_fail(c, 1, "too many repositories");
    }
    int n = snprintf(tree, sizeof tree, "%s%s%s", top, *dir ? "/" : "", dir);
    if (n >= MU_SHADOW_PATH) {
        return mu_ck_fail(c, 1, "%s", mu_err_text(-ENAMETOOLONG));
    }
    snprintf(git_dir, sizeof git_dir, "%s/.git", tree);
    struct mu_shadow s;
    present(c, root);
    read_head(c, root, git_dir, head_tree);
    int r = open_shadow(c, root, tree, git_dir, &s);
    if (r) {
        return r;
    }
    r = take_tree(c, root, &s, git_dir, walk);
    if (!r) {
        take_staged(root, &s, git_dir, head_tree);
        r = read_shallow(c, root, &s);
        r = r ? r : conclude(c, root, &s);
    }
    mu_shadow_close(&s);
    return r;
}

/* --- a folder that is no repository --- */

static int update_index(struct mu_ck *c, struct mu_shadow *s, const char *file, mu_bytes list,
                        bool remove)
{
    const char *const adds[] = {"git",       "update-index", "--add",   "--remove",
                                "--replace", "-z",           "--stdin", NULL};
    const char *const removes[] = {"git", "update-index", "--force-remove", "-z", "--stdin", NULL};
    int in MU_AUTO_CLOSE = mu_shadow_feed(s, file, list);
    if (in < 0) {
        return mu_ck_fail(c, 1, "a checkpoint's list: %s", mu_err_text(in));
    }
    const struct mu_shadow_run run = {.argv = remove ? removes : adds, .in = in};
    int status = mu_shadow_git(s, &run);
    return status ? mu_ck_git_failed(c, s, "update-index", status) : 0;
}

static int list_files(struct mu_ck *c, struct mu_shadow *s, const struct mu_walk *walk)
{
    struct mu_buf old MU_CLEANUP(mu_buf_fini), gone MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&old, walk->list_max + (64 << 10));
    mu_buf_init(&gone, walk->list_max);
    mu_bytes now = mu_buf_bytes(&walk->files);
    read_own(s, "list", &old);
    int r = old.failed ? old.failed : mu_walk_gone(mu_buf_bytes(&old), now, &gone);
    if (r) {
        return mu_ck_fail(c, 1, "%s", mu_err_text(r));
    }
    if (gone.len) {
        r = update_index(c, s, "gone", mu_buf_bytes(&gone), true);
    }
    return r ? r : update_index(c, s, "list", now, false);
}

static int take_folder(struct mu_ck *c, enum mu_ck_kind kind, const char *tree,
                       const struct mu_walk *walk)
{
    struct mu_ck_root *root = root_of(c, kind, "");
    const char *const argv[] = {"git", "write-tree", NULL};
    struct mu_shadow s;
    if (!root) {
        return mu_ck_fail(c, 1, "too many repositories");
    }
    memset(&root->now, 0, sizeof root->now);
    bool same = root->print == walk->print && root->index_tree[0];
    present(c, root);
    if (same && c->from && strcmp(root->last.tree, root->index_tree) == 0) {
        root->now = root->last;
        return 0;
    }
    int r = open_shadow(c, root, tree, NULL, &s);
    if (r) {
        return r;
    }
    if (!same) {
        r = list_files(c, &s, walk);
        int id = r ? 0 : mu_shadow_id(&s, argv, NULL, root->index_tree);
        r = id ? mu_ck_git_failed(c, &s, "write-tree", id) : r;
        root->print = walk->print;
        if (r) {
            root->index_tree[0] = 0;
        }
    }
    if (!r) {
        memcpy(root->now.tree, root->index_tree, sizeof root->now.tree);
        r = conclude(c, root, &s);
    }
    mu_shadow_close(&s);
    return r;
}

static int walk_failed(struct mu_ck *c, const char *what, int r)
{
    return mu_ck_fail(c, 1, "%s: %s", what,
                      r == MU_E_TOO_LARGE ? "too many files or repositories" : mu_err_text(r));
}

/* Between many files: the link and signals are served, and time passes. */
static int walk_turn(void *arg)
{
    struct mu_ck *c = arg;
    mu_procs_turn(&c->v->r->procs, 0);
    return mu_mono_ms() < c->deadline ? 0 : -ETIMEDOUT;
}

static void begin_walk(struct mu_ck *c, struct mu_walk *walk, bool home)
{
    mu_walk_init(walk, home);
    walk->turn = walk_turn;
    walk->arg = c;
}

static int take_workspace(struct mu_ck *c, const struct mu_walk *walk)
{
    bool known = false;
    for (size_t i = 0; i < c->n_roots; i++) {
        known = known || c->roots[i].kind == MU_CK_WORKSPACE;
    }
    return walk->n_files || known ? take_folder(c, MU_CK_WORKSPACE, c->v->r->ws.root, walk) : 0;
}

/* The home of somebody else (the kind `direct` has the worker's) is not ours to keep. */
static int take_home(struct mu_ck *c)
{
    const char *home = getenv("HOME"), *kind = getenv("OZ_WORKER_BACKEND");
    struct stat a, b;
    if (!home || home[0] != '/' || !home[1] || (kind && strcmp(kind, "direct") == 0)) {
        return 0;
    }
    int fd MU_AUTO_CLOSE = open(home, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &a) < 0 || fstat(c->v->r->ws.fd, &b) < 0 ||
        (a.st_ino == b.st_ino && a.st_dev == b.st_dev)) {
        return 0;
    }
    struct mu_walk walk;
    begin_walk(c, &walk, true);
    walk.since_s = c->since_s;
    walk.file_max = HOME_FILE;
    walk.avoid = c->v->r->ws.fd;
    int r = mu_walk_run(&walk, fd);
    r = r ? walk_failed(c, home, r) : take_folder(c, MU_CK_HOME, home, &walk);
    mu_walk_fini(&walk);
    return r;
}

int mu_ck_take(struct mu_ck *c, bool full)
{
    struct mu_walk walk;
    int r = open_folder(c);
    c->from = full ? 0 : c->prev;
    c->changed = false;
    c->n_parts = c->at_part = c->taken = 0;
    c->bytes = 0;
    c->put = 0;
    for (size_t i = 0; i < c->n_roots; i++) {
        c->roots[i].here = false;
        c->roots[i].parts = 0;
    }
    if (r) {
        return r;
    }
    begin_walk(c, &walk, false);
    r = mu_walk_run(&walk, c->v->r->ws.fd);
    r = r ? walk_failed(c, "the workspace", r) : 0;
    for (size_t i = 0; i < walk.n_repos && !r; i++) {
        r = take_checkout(c, walk.repos[i], &walk);
    }
    r = r ? r : take_workspace(c, &walk);
    r = r ? r : take_home(c);
    mu_walk_fini(&walk);
    for (size_t i = 0; i < c->n_roots && !r; i++) { /* a repository that was removed */
        c->changed = c->changed || (!c->roots[i].here && c->roots[i].last.commit[0]);
    }
    return r;
}

void mu_ck_settle(struct mu_ck *c)
{
    for (size_t i = 0; i < c->n_roots; i++) {
        struct mu_ck_root *root = &c->roots[i];
        root->last = root->here ? root->now : (struct mu_ck_state){0};
    }
    c->first_bytes = c->from ? c->first_bytes : c->bytes;
    c->chain_bytes = (c->from ? c->chain_bytes : 0) + c->bytes;
    c->links = c->from ? c->links + 1 : 1;
    c->prev = c->number;
}
