/* The plan of the mount tree: the allow list of sandbox.md 4. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "exec/sandbox/linux_int.h"
#include "exec/sandbox/sandbox.h"
#include "exec/sandbox/tree_int.h"

enum {
    MAX_STEPS = 2048,
    PLAIN = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV,
    RO = PLAIN | MOUNT_ATTR_RDONLY,
    HARNESS_LEVELS = 8, /* how far up a program's package is looked for */
};

/* --- steps --- */

static void *grow(struct mu_tree *t, void *list, size_t n, size_t *cap, size_t size)
{
    if (n < *cap) {
        return list;
    }
    size_t bigger = *cap ? *cap * 2 : 128;
    void *p = bigger > MAX_STEPS ? NULL : mu_arena_calloc(t->arena, bigger * size);
    if (!p) {
        t->failed = -ENOMEM;
        return NULL;
    }
    if (n) {
        memcpy(p, list, n * size);
    }
    *cap = bigger;
    return p;
}

struct mu_step *mu_tree_add_(struct mu_tree *t, enum mu_step_kind kind, const char *path)
{
    static struct mu_step nowhere; /* written to after a failure, read by nobody */
    struct mu_step *steps = t->failed ? NULL : grow(t, t->steps, t->n, &t->cap, sizeof *t->steps);
    if (!steps || !path) {
        t->failed = t->failed ? t->failed : -ENOMEM;
        return &nowhere;
    }
    t->steps = steps;
    struct mu_step *s = &t->steps[t->n++];
    *s = (struct mu_step){.kind = kind, .path = path, .fd = -1, .upper_fd = -1, .work_fd = -1};
    return s;
}

static bool is_made(struct mu_tree *t, mu_bytes path)
{
    for (size_t i = 0; i < t->n_made; i++) {
        if (mu_bytes_is(path, t->made[i])) {
            return true;
        }
    }
    return false;
}

static void remember(struct mu_tree *t, const char *path)
{
    const char **made = grow(t, (void *)t->made, t->n_made, &t->cap_made, sizeof *made);
    if (made) {
        t->made = made;
        made[t->n_made++] = path;
    }
}

/* The folder and all above it. */
void mu_tree_dir_(struct mu_tree *t, const char *path)
{
    size_t len = strlen(path);
    for (size_t i = 1; i <= len && !t->failed; i++) {
        if (path[i] && path[i] != '/') {
            continue;
        }
        mu_bytes part = mu_bytes_of(path, i);
        if (!is_made(t, part)) {
            const char *copy = mu_arena_dup(t->arena, part).ptr;
            struct mu_step *s = mu_tree_add_(t, MU_STEP_DIR, copy);
            s->mode = 0755;
            if (copy) {
                remember(t, copy);
            }
        }
    }
}

static void parent_dir(struct mu_tree *t, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (slash) {
        mu_bytes parent = mu_arena_dup(t->arena, mu_bytes_of(path, (size_t)(slash - path)));
        if (parent.ptr) {
            mu_tree_dir_(t, parent.ptr);
        } else {
            t->failed = -ENOMEM;
        }
    }
}

void mu_tree_bind_(struct mu_tree *t, const char *source, const char *path, bool is_dir,
                   unsigned attr)
{
    if (is_dir) {
        mu_tree_dir_(t, path);
    } else {
        parent_dir(t, path);
        mu_tree_text_(t, path, "", 0);
    }
    struct mu_step *s = mu_tree_add_(t, MU_STEP_BIND, path);
    s->text = source;
    s->is_dir = is_dir;
    s->attr = attr;
}

void mu_tree_text_(struct mu_tree *t, const char *path, const char *text, size_t len)
{
    struct mu_step *s = mu_tree_add_(t, MU_STEP_FILE, path);
    s->text = text;
    s->len = len;
    s->mode = 0644;
}

static void add_link(struct mu_tree *t, const char *path, const char *to)
{
    mu_tree_add_(t, MU_STEP_LINK, path)->text = to;
}

static struct mu_step *add_tmpfs(struct mu_tree *t, const char *path, const char *size,
                                 const char *inodes, unsigned attr)
{
    if (*path) {
        mu_tree_dir_(t, path);
    }
    struct mu_step *s = mu_tree_add_(t, MU_STEP_TMPFS, path);
    s->size = size;
    s->inodes = inodes;
    s->attr = attr;
    s->mode = 0755;
    return s;
}

/* A path below the session's folder. */
static const char *in_session(struct mu_tree *t, const char *name)
{
    const char *p = mu_arena_printf(t->arena, "%s/%s", t->session, name).ptr;
    t->failed = p ? t->failed : -ENOMEM;
    return p;
}

/* Binds what is there; what is not there is left out. */
static void bind_if_there(struct mu_tree *t, const char *path, unsigned attr)
{
    struct stat st;
    if (stat(path, &st) == 0 && (S_ISDIR(st.st_mode) || S_ISREG(st.st_mode))) {
        mu_tree_bind_(t, path, path + 1, S_ISDIR(st.st_mode), attr);
    }
}

/* --- the parts of the tree --- */

/* /usr, and /bin, /lib … as the host has them: links or folders. */
static void plan_host_base(struct mu_tree *t)
{
    static const char *const tops[] = {"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"};
    add_tmpfs(t, "", "4m", "4096", PLAIN);
    mu_tree_bind_(t, "/usr", "usr", true, RO);
    for (size_t i = 0; i < MU_ARRAY_LEN(tops); i++) {
        char target[PATH_MAX];
        ssize_t n = readlink(tops[i], target, sizeof target);
        if (n > 0 && n < (ssize_t)sizeof target) {
            mu_bytes to = mu_arena_dup(t->arena, mu_bytes_of(target, (size_t)n));
            t->failed = to.ptr ? t->failed : -ENOMEM;
            add_link(t, tops[i] + 1, to.ptr);
        } else {
            bind_if_there(t, tops[i], RO);
        }
    }
}

/* An unpacked root folder below an overlay of the session, so that mount points can be made. */
static void plan_unpacked_base(struct mu_tree *t, const struct mu_box *box)
{
    struct mu_step *s = mu_tree_add_(t, MU_STEP_OVERLAY, "");
    s->text = box->base;
    s->upper = in_session(t, "upper/root");
    s->work = in_session(t, "work/root");
    s->attr = PLAIN;
    s->idmap = box->range != 0;
}

static void plan_dev(struct mu_tree *t, const struct mu_box *box)
{
    static const char *const devices[] = {"/dev/null",   "/dev/zero",    "/dev/full",
                                          "/dev/random", "/dev/urandom", "/dev/tty"};
    const unsigned noexec = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC;
    add_tmpfs(t, "dev", "64k", "64", noexec | MOUNT_ATTR_NODEV);
    for (size_t i = 0; i < MU_ARRAY_LEN(devices); i++) {
        mu_tree_bind_(t, devices[i], devices[i] + 1, false, noexec);
    }
    mu_tree_dir_(t, "dev/pts");
    mu_tree_add_(t, MU_STEP_PTS, "dev/pts")->attr = noexec;
    const char *shm =
        mu_arena_printf(t->arena, "%lld", (long long)MU_MAX(box->shm_bytes, 1 << 20)).ptr;
    t->failed = shm ? t->failed : -ENOMEM;
    add_tmpfs(t, "dev/shm", shm, "65536", noexec | MOUNT_ATTR_NODEV)->mode = 01777;
    add_link(t, "dev/ptmx", "pts/ptmx");
    add_link(t, "dev/fd", "/proc/self/fd");
    add_link(t, "dev/stdin", "/proc/self/fd/0");
    add_link(t, "dev/stdout", "/proc/self/fd/1");
    add_link(t, "dev/stderr", "/proc/self/fd/2");
    if (!mu_box_without(box, MU_WITHOUT_READONLY)) {
        mu_tree_add_(t, MU_STEP_SEAL, "dev");
    }
}

static void plan_sys(struct mu_tree *t, const struct mu_box *box)
{
    bind_if_there(t, "/sys/devices/system/cpu", RO | MOUNT_ATTR_NOEXEC);
    bind_if_there(t, "/sys/devices/system/node", RO | MOUNT_ATTR_NOEXEC);
    /* Runtimes read their limits there. Only of v2: v1 controllers are never shown. */
    if (box->cgroup.rung == MU_CGROUP_DELEGATED || box->cgroup.rung == MU_CGROUP_ROOT) {
        const char *own = mu_arena_printf(t->arena, "%s/s-%s", box->cgroup.unified, box->id).ptr;
        t->failed = own ? t->failed : -ENOMEM;
        mu_tree_bind_(t, own, "sys/fs/cgroup", true, RO | MOUNT_ATTR_NOEXEC);
    }
}

static void plan_own_folders(struct mu_tree *t)
{
    static const char *const folders[][2] = {
        {"tmp", "tmp"}, {"vartmp", "var/tmp"}, {"home", "home/agent"}, {"workspace", "workspace"}};
    for (size_t i = 0; i < MU_ARRAY_LEN(folders); i++) {
        mu_tree_bind_(t, in_session(t, folders[i][0]), folders[i][1], true, PLAIN);
    }
}

static void plan_checkouts(struct mu_tree *t, const struct mu_box *box)
{
    for (size_t i = 0; i < box->n_checkouts; i++) {
        const struct mu_box_checkout *c = &box->checkouts[i];
        if (*c->objects) {
            const char *at = mu_arena_printf(t->arena, "run/muster/git/%zu", i).ptr;
            t->failed = at ? t->failed : -ENOMEM;
            if (at) {
                mu_tree_bind_(t, c->objects, at, true, RO | MOUNT_ATTR_NOEXEC);
                if (t->failed) {
                    return;
                }
                t->steps[t->n - 1].idmap = box->range != 0;
            }
        }
        if (!*c->tree) {
            continue;
        }
        const char *at =
            mu_arena_printf(t->arena, *c->subdir ? "workspace/%s" : "workspace", c->subdir).ptr;
        char name[32];
        snprintf(name, sizeof name, "%zu", i);
        if (!at) {
            t->failed = -ENOMEM;
            return;
        }
        mu_tree_dir_(t, at);
        struct mu_step *s = mu_tree_add_(t, MU_STEP_OVERLAY, at);
        s->text = c->tree;
        s->upper = mu_arena_printf(t->arena, "%s/upper/%s", t->session, name).ptr;
        s->work = mu_arena_printf(t->arena, "%s/work/%s", t->session, name).ptr;
        s->attr = PLAIN;
        s->idmap = box->range != 0;
        t->failed = s->upper && s->work ? t->failed : -ENOMEM;
    }
}

/* What must be shown so that the program at `real` finds its parts: the outermost node_modules
 * around it, else the folder of its package.json, else the file alone. */
static size_t package_of(const char *real)
{
    const char *modules = strstr(real, "/node_modules/");
    if (modules) {
        return (size_t)(modules - real) + strlen("/node_modules");
    }
    size_t len = strlen(real);
    for (int level = 0; level < HARNESS_LEVELS; level++) {
        while (len > 1 && real[len - 1] != '/') {
            len--;
        }
        if (len <= 1) {
            break;
        }
        len--;
        char probe[PATH_MAX];
        snprintf(probe, sizeof probe, "%.*s/package.json", (int)len, real);
        if (access(probe, F_OK) == 0) {
            return len;
        }
    }
    return strlen(real);
}

static void plan_harness(struct mu_tree *t, const struct mu_box *box,
                         const struct mu_box_harness *h)
{
    char real[PATH_MAX];
    struct stat st;
    if (!mu_box_id_valid(h->name) || !realpath(h->path, real)) {
        return; /* not installed here: the runner's own check says so by name */
    }
    const char *link = mu_arena_printf(t->arena, "opt/harness/%s/bin/%s", h->name, h->name).ptr;
    const char *to;
    if (!*box->base && strncmp(real, "/usr/", 5) == 0) {
        to = mu_arena_dup(t->arena, mu_str(real)).ptr;
    } else {
        size_t len = package_of(real);
        mu_bytes source = mu_arena_dup(t->arena, mu_bytes_of(real, len));
        const char *at = mu_arena_printf(t->arena, "opt/harness/%s%s", h->name, source.ptr).ptr;
        if (!source.ptr || !at) {
            t->failed = -ENOMEM;
            return;
        }
        if (stat(source.ptr, &st) < 0) {
            return;
        }
        mu_tree_bind_(t, source.ptr, at, S_ISDIR(st.st_mode), RO);
        to = mu_arena_printf(t->arena, "/opt/harness/%s%s", h->name, real).ptr;
    }
    if (!link || !to) {
        t->failed = -ENOMEM;
        return;
    }
    parent_dir(t, link);
    add_link(t, link, to);
}

/* --- mounts that somebody asked for --- */

static bool below(const char *path, const char *top)
{
    size_t n = strlen(top);
    return strncmp(path, top, n) == 0 && (path[n] == 0 || path[n] == '/' || n == 1);
}

/* "/a/b/c": no empty, dot or dot-dot parts, and not the root. */
static bool is_plain_path(const char *path)
{
    if (path[0] != '/' || !path[1] || strlen(path) >= PATH_MAX) {
        return false;
    }
    for (const char *p = path; *p; p++) {
        if (*p == '/' && (p[1] == '/' || p[1] == 0 ||
                          (p[1] == '.' && (p[2] == '/' || p[2] == 0 ||
                                           (p[2] == '.' && (p[3] == '/' || p[3] == 0)))))) {
            return false;
        }
    }
    return true;
}

/* The one folder below the state folder that a sandbox sees: where its own worker listens for its
 * runner. Nothing else is ever in it. */
static bool is_own_link(const struct mu_box_mount *m, const char *real, const char *state,
                        const char *session)
{
    char own[PATH_MAX];
    const char *id = strrchr(session, '/');
    int n = snprintf(own, sizeof own, "%s/link%s", state, id ? id : "/");
    return n > 0 && (size_t)n < sizeof own && strcmp(real, own) == 0 && !m->writable &&
           strcmp(m->target, "/run/muster/link") == 0;
}

int mu_tree_mount_allowed(const struct mu_box_mount *m, const char *session, struct mu_err *err)
{
    static const char *const sources[] = {"/proc", "/sys", "/dev"};
    static const char *const targets[] = {"/proc",  "/sys",    "/dev", "/usr",   "/bin",
                                          "/sbin",  "/lib",    "/etc", "/agent", "/lib32",
                                          "/lib64", "/libx32", "/run"};
    static const char *const whole[] = {"/workspace", "/tmp",        "/var/tmp", "/var",
                                        "/home",      "/home/agent", "/opt",     "/opt/harness"};
    char real[PATH_MAX];
    struct stat st;
    if (!is_plain_path(m->target)) {
        return mu_err_set(err, MU_E_FORBIDDEN, "mount target %.100s is no plain path", m->target);
    }
    if (!realpath(m->source, real) || stat(real, &st) < 0) {
        return mu_err_set(err, -errno, "mount source %.100s", m->source);
    }
    bool bad = strcmp(real, "/") == 0 || !(S_ISDIR(st.st_mode) || S_ISREG(st.st_mode));
    for (size_t i = 0; i < MU_ARRAY_LEN(sources); i++) {
        bad = bad || below(real, sources[i]);
    }
    /* Above the session's folder: it would show every session. Below the state folder (two levels
     * up): the same. */
    char state[PATH_MAX];
    snprintf(state, sizeof state, "%s", session);
    for (int i = 0; i < 2; i++) {
        char *slash = strrchr(state, '/');
        if (slash && slash != state) {
            *slash = 0;
        }
    }
    if (!bad && is_own_link(m, real, state, session)) {
        return 0;
    }
    if (bad || below(session, real) || below(real, state)) {
        return mu_err_set(err, MU_E_FORBIDDEN, "mount source %.100s is never shown", m->source);
    }
    bad = false;
    for (size_t i = 0; i < MU_ARRAY_LEN(targets); i++) {
        bad = bad || below(m->target, targets[i]);
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(whole); i++) {
        bad = bad || strcmp(m->target, whole[i]) == 0;
    }
    if (bad) {
        return mu_err_set(err, MU_E_FORBIDDEN, "mount target %.100s is taken", m->target);
    }
    return 0;
}

static int plan_mounts(struct mu_tree *t, const struct mu_box *box, struct mu_err *err)
{
    for (size_t i = 0; i < box->n_mounts; i++) {
        const struct mu_box_mount *m = &box->mounts[i];
        struct stat st;
        int r = mu_tree_mount_allowed(m, t->session, err);
        if (r < 0) {
            return r;
        }
        char real[PATH_MAX];
        mu_bytes source =
            realpath(m->source, real) ? mu_arena_dup(t->arena, mu_str(real)) : MU_B_NONE;
        if (!source.ptr || stat(source.ptr, &st) < 0) {
            return mu_err_set(err, -errno, "mount source %.100s", m->source);
        }
        mu_tree_bind_(t, source.ptr, m->target + 1, S_ISDIR(st.st_mode), m->writable ? PLAIN : RO);
    }
    return 0;
}

int mu_tree_plan(const struct mu_box *box, const char *session, struct mu_arena *arena,
                 struct mu_tree *ret, struct mu_err *err)
{
    struct mu_tree *t = ret;
    *t = (struct mu_tree){.arena = arena, .session = session};
    t->writable = *box->base && box->fake_root;
    t->seal = !mu_box_without(box, MU_WITHOUT_READONLY) && !t->writable;
    if (*box->base) {
        plan_unpacked_base(t, box);
    } else {
        plan_host_base(t);
    }
    mu_tree_plan_etc_(t, box);
    plan_own_folders(t);
    add_tmpfs(t, "run", "64m", "16384", PLAIN);
    plan_checkouts(t, box);
    mu_tree_bind_(t, box->bundle, "agent", true, RO);
    for (size_t i = 0; i < box->n_harnesses; i++) {
        plan_harness(t, box, &box->harnesses[i]);
    }
    int r = plan_mounts(t, box, err);
    if (r < 0) {
        return r;
    }
    /* Last, so that nothing of the above is looked up through them. */
    plan_dev(t, box);
    plan_sys(t, box);
    mu_tree_dir_(t, "proc");
    struct mu_step *proc = mu_tree_add_(t, MU_STEP_PROC, "proc");
    proc->attr = PLAIN | MOUNT_ATTR_NOEXEC;
    proc->size = box->nested || mu_box_without(box, MU_WITHOUT_MASKS) ? NULL : "masked";
    return t->failed ? mu_err_set(err, t->failed, "planning the mount tree") : 0;
}
