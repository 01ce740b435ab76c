#include "runner/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "io/folder.h"
#include "runner/runner_int.h"
#include "runner/shadow.h"

#define PLACE    "restore"
#define MANIFEST "checkpoint.json"
enum { RESTORE_MS = 600000, STATUS = 128, SERVE_BLOCKS = 64 };

static int fail(struct mu_runner *r, const char *dir, const char *why)
{
    return mu_runner_fail(r, STATUS, "the checkpoint was not restored: %s%s%.300s",
                          dir && *dir ? dir : "", dir && *dir ? ": " : "", why);
}

static int git_failed(struct mu_runner *r, const struct mu_shadow *s, const char *what, int status)
{
    char why[MU_SHADOW_WORDS];
    mu_shadow_words(s, what, status, why);
    return fail(r, NULL, why);
}

/* --- the manifest --- */

static int read_manifest(struct mu_runner *r, struct mu_restore *s)
{
    struct mu_buf path MU_CLEANUP(mu_buf_fini), text MU_CLEANUP(mu_buf_fini);
    struct mu_err err;
    mu_buf_init(&path, MU_SHADOW_PATH);
    mu_buf_init(&text, MU_MANIFEST_BYTES);
    mu_buf_printf(&path, "%s/" MANIFEST "%c", s->folder, 0);
    int fd MU_AUTO_CLOSE = path.failed ? -1 : open(path.ptr, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return fail(r, MANIFEST, mu_err_text(path.failed ? path.failed : -errno));
    }
    for (char *p; (p = mu_buf_room(&text, 4096));) {
        ssize_t n = read(fd, p, 4096);
        if (n <= 0) {
            break;
        }
        text.len += (size_t)n;
    }
    if (text.failed) {
        return fail(r, MANIFEST, mu_err_text(text.failed));
    }
    return mu_manifest_read(mu_buf_bytes(&text), &s->m, &err) < 0 ? fail(r, NULL, err.text) : 0;
}

int mu_restore_open(struct mu_runner *r, struct mu_restore **ret)
{
    const char *folder = getenv("MUSTER_RESTORE");
    struct mu_restore *s = folder && *folder ? mu_calloc(1, sizeof *s) : NULL;
    if (!folder || !*folder) {
        return 0;
    }
    *ret = s;
    if (s) {
        s->folder = mu_bytes_dup(mu_str(folder));
    }
    unsetenv("MUSTER_RESTORE");
    return s && s->folder ? read_manifest(r, s) : fail(r, NULL, "out of memory");
}

struct mu_restore *mu_restore_free(struct mu_restore *s)
{
    if (s) {
        mu_manifest_fini(&s->m);
        mu_free(s->folder);
        mu_free(s);
    }
    return NULL;
}

/* --- packs --- */

static int open_part(struct mu_restore *s, const char *name)
{
    char path[MU_SHADOW_PATH + 80];
    snprintf(path, sizeof path, "%s/%s", s->folder, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    return fd < 0 ? -errno : fd;
}

/* Meanwhile the link and signals are served. */
static int append(struct mu_shadow *sh, int to, int from)
{
    char block[64 << 10];
    for (unsigned i = 1;; i++) {
        if (i % SERVE_BLOCKS == 0) {
            mu_procs_turn(sh->procs, 0);
            if (mu_mono_ms() >= sh->deadline) {
                return -ETIMEDOUT;
            }
        }
        ssize_t n = read(from, block, sizeof block);
        if (n == 0) {
            return 0;
        }
        int e =
            n < 0 ? (errno == EINTR ? 0 : -errno) : mu_write_all(to, mu_bytes_of(block, (size_t)n));
        if (e < 0) {
            return e;
        }
    }
}

/* The pack that begins at `at`, as one file; *ret_next is behind it. */
static int whole_pack(struct mu_restore *s, struct mu_shadow *sh,
                      const struct mu_manifest_root *root, size_t at, size_t *ret_next)
{
    size_t next = at + 1;
    while (next < root->n_files && !root->files[next].first) {
        next++;
    }
    *ret_next = next;
    if (next == at + 1) {
        return open_part(s, root->files[at].name);
    }
    (void)unlinkat(sh->fd, "pack", 0);
    int to = openat(sh->fd, "pack", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int e = to < 0 || unlinkat(sh->fd, "pack", 0) < 0 ? -errno : 0;
    for (size_t i = at; i < next && e >= 0; i++) {
        int from MU_AUTO_CLOSE = open_part(s, root->files[i].name);
        e = from < 0 ? from : append(sh, to, from);
    }
    if (e >= 0 && lseek(to, 0, SEEK_SET) < 0) {
        e = -errno;
    }
    if (e < 0 && to >= 0) {
        close(to);
    }
    return e < 0 ? e : to;
}

static int unpack(struct mu_runner *r, struct mu_shadow *sh, const struct mu_manifest_root *root)
{
    const char *const argv[] = {"git", "index-pack", "--stdin", "--fix-thin", NULL};
    for (size_t at = 0; at < root->n_files;) {
        size_t next;
        int fd MU_AUTO_CLOSE = whole_pack(r->restore, sh, root, at, &next);
        if (fd < 0) {
            return fail(r, root->files[at].name, mu_err_text(fd));
        }
        const struct mu_shadow_run run = {.argv = argv, .in = fd};
        int status = mu_shadow_git(sh, &run);
        if (status) {
            return git_failed(r, sh, "index-pack", status);
        }
        at = next;
    }
    return 0;
}

static bool has_commit(struct mu_shadow *sh, const char *id)
{
    char name[80];
    snprintf(name, sizeof name, "%s^{commit}", id);
    const char *const argv[] = {"git", "cat-file", "-e", name, NULL};
    const struct mu_shadow_run run = {.argv = argv, .in = -1};
    return mu_shadow_git(sh, &run) == 0;
}

/* --- places --- */

static int open_shadow(struct mu_runner *r, const char *tree, const char *borrow,
                       const char *objects, bool sha256, struct mu_shadow *ret)
{
    char parent[MU_SHADOW_PATH];
    snprintf(parent, sizeof parent, "%s/.oz", r->ws.root);
    const struct mu_shadow_spec spec = {.procs = &r->procs,
                                        .path = r->first_path,
                                        .deadline = mu_mono_ms() + RESTORE_MS,
                                        .parent = r->ws.oz,
                                        .parent_path = parent,
                                        .name = PLACE,
                                        .tree = tree,
                                        .borrow = borrow,
                                        .objects = objects,
                                        .sha256 = sha256};
    mu_folder_remove_at(r->ws.oz, PLACE);
    int e = mu_shadow_open(ret, &spec);
    return e ? fail(r, NULL, mu_err_text(e)) : 0;
}

static void close_shadow(struct mu_runner *r, struct mu_shadow *sh)
{
    mu_shadow_close(sh);
    mu_folder_remove_at(r->ws.oz, PLACE);
}

static int run(struct mu_runner *r, struct mu_shadow *sh, const char *index,
               const char *const *argv)
{
    const struct mu_shadow_run one = {.argv = argv, .index = index, .in = -1};
    int status = mu_shadow_git(sh, &one);
    return status ? git_failed(r, sh, argv[1], status) : 0;
}

/* --- a repository --- */

/* All folders on the way, none of them through a link. */
static int make_folders(struct mu_runner *r, const char *dir)
{
    mu_bytes rest = mu_str(dir);
    int at = fcntl(r->ws.fd, F_DUPFD_CLOEXEC, 3);
    while (rest.len && at >= 0) {
        char *name MU_AUTO_FREE = mu_bytes_dup(mu_bytes_split(&rest, '/'));
        int made = name ? mkdirat(at, name, 0755) : -1;
        int next = !name || (made < 0 && errno != EEXIST)
                       ? -1
                       : openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        close(at);
        at = next;
    }
    int e = at < 0 ? -errno : 0;
    if (at >= 0) {
        close(at);
    }
    return e ? fail(r, dir, mu_err_text(e)) : 0;
}

static int make_repository(struct mu_runner *r, const struct mu_manifest_root *root,
                           const char *tree, const char *git_dir)
{
    struct mu_buf text MU_CLEANUP(mu_buf_fini);
    struct stat st;
    mu_buf_init(&text, 4096);
    if (lstat(git_dir, &st) == 0 && S_ISDIR(st.st_mode)) {
        return 0;
    }
    if (root->base[0]) {
        return fail(r, root->dir[0] ? root->dir : "the repository", "it was not cloned");
    }
    int e = make_folders(r, root->dir);
    const char *const argv[] = {"git",
                                "init",
                                "-q",
                                "--template=",
                                strlen(root->commit) == 64 ? "--object-format=sha256" : tree,
                                strlen(root->commit) == 64 ? tree : NULL,
                                NULL};
    if (!e && mu_shadow_ask(&r->procs, r->first_path, git_dir, argv, &text)) {
        return fail(r, root->dir, "git init failed");
    }
    return e;
}

/* A shallow clone has only the newest commit of its branch, and that may be another one now. */
static int fetch_base(struct mu_runner *r, struct mu_shadow *sh,
                      const struct mu_manifest_root *root, const char *tree, const char *git_dir)
{
    char border[MU_SHADOW_PATH + 16];
    struct stat st;
    if (!root->base[0] || has_commit(sh, root->base)) {
        return 0;
    }
    snprintf(border, sizeof border, "%s/shallow", git_dir);
    int status = mu_runner_fetch(r, tree, root->base, lstat(border, &st) == 0);
    if (status) {
        return status;
    }
    mu_shadow_close(sh); /* the borders are other ones */
    char objects[MU_SHADOW_PATH + 16];
    snprintf(objects, sizeof objects, "%s/objects", git_dir);
    status = open_shadow(r, tree, git_dir, objects, strlen(root->commit) == 64, sh);
    return status                       ? status
           : has_commit(sh, root->base) ? 0
                                        : fail(r, root->dir, "its first commit is gone");
}

static void keep(void *arg, mu_bytes piece)
{
    mu_buf_add(arg, piece);
}

/* The commit of the index, where it is not HEAD's tree: a parent besides HEAD. */
static int find_staged(struct mu_runner *r, struct mu_shadow *sh,
                       const struct mu_manifest_root *root, char ret[65])
{
    struct mu_buf text MU_CLEANUP(mu_buf_fini);
    char all[80];
    mu_buf_init(&text, 4096);
    snprintf(all, sizeof all, "%s^@", root->commit);
    const char *const argv[] = {"git", "rev-parse", all, NULL};
    const struct mu_shadow_run one = {.argv = argv, .in = -1, .sink = keep, .arg = &text};
    int status = mu_shadow_git(sh, &one);
    ret[0] = 0;
    if (status) {
        return git_failed(r, sh, "rev-parse", status);
    }
    for (mu_bytes rest = mu_buf_bytes(&text); rest.len;) {
        mu_bytes line = mu_bytes_split(&rest, '\n');
        if (line.len && line.len <= 64 && !mu_bytes_is(line, root->head)) {
            snprintf(ret, 65, "%.*s", MU_ARGS(line));
        }
    }
    return 0;
}

static int put_shallow(struct mu_runner *r, struct mu_shadow *sh,
                       const struct mu_manifest_root *root, const char *git_dir)
{
    char path[MU_SHADOW_PATH + 16];
    if (root->base[0] || !root->n_shallow) {
        return 0;
    }
    snprintf(path, sizeof path, "%s/shallow", git_dir);
    int fd MU_AUTO_CLOSE = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
    for (size_t i = 0; i < root->n_shallow && fd >= 0; i++) {
        if (has_commit(sh, root->shallow[i])) {
            dprintf(fd, "%s\n", root->shallow[i]);
        }
    }
    return fd < 0 ? fail(r, "shallow", mu_err_text(-errno)) : 0;
}

/* HEAD, its branch, in the repository itself. */
static int put_head(struct mu_runner *r, const struct mu_manifest_root *root, const char *git_dir)
{
    struct mu_buf text MU_CLEANUP(mu_buf_fini);
    char ref[280];
    mu_buf_init(&text, 4096);
    snprintf(ref, sizeof ref, "refs/heads/%s", root->branch);
    const char *const branch[] = {"git",      "-c", "core.hooksPath=/dev/null", "update-ref", ref,
                                  root->head, NULL};
    const char *const detached[] = {"git",        "-c",         "core.hooksPath=/dev/null",
                                    "update-ref", "--no-deref", "HEAD",
                                    root->head,   NULL};
    const char *const symbolic[] = {"git", "-c", "core.hooksPath=/dev/null", "symbolic-ref", "HEAD",
                                    ref,   NULL};
    int status = 0;
    if (root->head[0]) {
        status = mu_shadow_ask(&r->procs, r->first_path, git_dir,
                               root->branch[0] ? branch : detached, &text);
    }
    if (!status && root->branch[0]) {
        status = mu_shadow_ask(&r->procs, r->first_path, git_dir, symbolic, &text);
    }
    return status ? fail(r, root->branch, "the branch was not made") : 0;
}

static int put_files(struct mu_runner *r, struct mu_shadow *sh, const struct mu_manifest_root *root,
                     const char *git_dir)
{
    char index[MU_SHADOW_PATH + 16], staged[65];
    snprintf(index, sizeof index, "%s/index", git_dir);
    const char *const files[] = {"git", "read-tree", "--reset", "-u", root->commit, NULL};
    int status = find_staged(r, sh, root, staged);
    status = status ? status : run(r, sh, index, files);
    const char *as = staged[0] ? staged : root->head;
    const char *const some[] = {"git", "read-tree", "--reset", as, NULL};
    const char *const none[] = {"git", "read-tree", "--empty", NULL};
    return status ? status : run(r, sh, index, as[0] ? some : none);
}

static int restore_checkout(struct mu_runner *r, const struct mu_manifest_root *root)
{
    char tree[MU_SHADOW_PATH], git_dir[MU_SHADOW_PATH + 8], objects[MU_SHADOW_PATH + 24];
    struct mu_shadow sh = {.fd = -1};
    int n = snprintf(tree, sizeof tree, "%s%s%s", r->ws.root, root->dir[0] ? "/" : "", root->dir);
    if (n >= MU_SHADOW_PATH - 64) {
        return fail(r, root->dir, mu_err_text(-ENAMETOOLONG));
    }
    snprintf(git_dir, sizeof git_dir, "%s/.git", tree);
    snprintf(objects, sizeof objects, "%s/objects", git_dir);
    int status = make_repository(r, root, tree, git_dir);
    status =
        status ? status : open_shadow(r, tree, git_dir, objects, strlen(root->commit) == 64, &sh);
    if (status) {
        return status;
    }
    status = fetch_base(r, &sh, root, tree, git_dir);
    status = status ? status : unpack(r, &sh, root);
    if (!status && !has_commit(&sh, root->commit)) {
        status = fail(r, root->dir, "its newest commit is not in the packs");
    }
    status = status ? status : put_shallow(r, &sh, root, git_dir);
    status = status ? status : put_files(r, &sh, root, git_dir);
    status = status ? status : put_head(r, root, git_dir);
    close_shadow(r, &sh);
    return status;
}

/* --- a folder that is no repository --- */

static int restore_folder(struct mu_runner *r, const struct mu_manifest_root *root,
                          const char *tree)
{
    struct mu_shadow sh = {.fd = -1};
    const char *const list[] = {"git", "read-tree", root->commit, NULL};
    const char *const files[] = {"git", "checkout-index", "-f", "-a", NULL};
    int status = open_shadow(r, tree, NULL, NULL, strlen(root->commit) == 64, &sh);
    if (status) {
        return status;
    }
    status = unpack(r, &sh, root);
    status = status ? status : run(r, &sh, NULL, list);
    status = status ? status : run(r, &sh, NULL, files);
    close_shadow(r, &sh);
    return status;
}

int mu_restore_workspace(struct mu_runner *r)
{
    const struct mu_manifest *m = &r->restore->m;
    int status = 0;
    for (size_t i = 0; i < m->n_roots && !status; i++) {
        if (strcmp(m->roots[i].kind, "workspace") == 0) {
            status = restore_folder(r, &m->roots[i], r->ws.root);
        }
    }
    for (size_t i = 0; i < m->n_roots && !status; i++) { /* one in another comes behind it */
        if (strcmp(m->roots[i].kind, "checkout") == 0) {
            status = restore_checkout(r, &m->roots[i]);
        }
    }
    mu_runner_hide_oz(r);
    return status;
}

int mu_restore_home(struct mu_runner *r)
{
    const struct mu_manifest *m = &r->restore->m;
    const char *home = getenv("HOME");
    int status = 0;
    mode_t before = umask(077); /* git keeps no modes, and some of it is nobody else's business */
    for (size_t i = 0; i < m->n_roots && !status && home && home[0] == '/' && home[1]; i++) {
        if (strcmp(m->roots[i].kind, "home") == 0) {
            status = restore_folder(r, &m->roots[i], home);
        }
    }
    umask(before);
    return status;
}

void mu_restore_bases(struct mu_runner *r)
{
    const struct mu_manifest *m = &r->restore->m;
    for (size_t i = 0; i < r->checkouts.n; i++) {
        struct mu_checkout *c = &r->checkouts.items[i];
        for (size_t k = 0; k < m->n_roots; k++) {
            const struct mu_manifest_root *root = &m->roots[k];
            if (strcmp(root->kind, "checkout") != 0 || strcmp(root->dir, c->dir) != 0) {
                continue;
            }
            if (root->base[0]) {
                snprintf(c->commit, sizeof c->commit, "%s", root->base);
            } else {
                c->unfetchable = true;
            }
        }
    }
}
