/* What lies on the disk: mirrors/<key>, bases/<key>/tree; tmp/ for what is being made or removed.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <uv.h>

#include "base/crypt.h"
#include "base/env.h"
#include "exec/git/git_int.h"
#include "io/folder.h"

static char *join(const char *a, const char *b, const char *c, const char *d)
{
    size_t n = strlen(a) + strlen(b) + strlen(c) + strlen(d) + 4;
    char *r = mu_alloc(n);
    if (r) {
        snprintf(r, n, "%s/%s%s%s%s%s", a, b, *c ? "/" : "", c, *d ? "/" : "", d);
    }
    return r;
}

static void key_of(mu_bytes text, char dst[MU_GIT_KEY + 1])
{
    struct mu_digest_hex hex = mu_sha256_hex(text);
    memcpy(dst, hex.text, MU_GIT_KEY);
    dst[MU_GIT_KEY] = 0;
}

void mu_git_base_key_(const char *url, const char *commit, unsigned index, char dst[MU_GIT_KEY + 1])
{
    char text[2300];
    int n = snprintf(text, sizeof text, "%s\n%s\n%u", url, commit, index);
    key_of(mu_bytes_of(text, (size_t)MU_MIN(n, (int)sizeof text - 1)), dst);
}

/* --- removal --- */

struct removal {
    uv_work_t work;
    char path[];
};

static void remove_now(uv_work_t *w)
{
    (void)mu_folder_remove(MU_CONTAINER(w, struct removal, work)->path);
}

static void removed(uv_work_t *w, int status)
{
    (void)status;
    mu_free(MU_CONTAINER(w, struct removal, work));
}

void mu_git_discard_(struct mu_git_cache *g, const char *path)
{
    size_t n = strlen(g->settings.dir) + 64;
    struct removal *r = mu_alloc(sizeof *r + n);
    if (!r) {
        return; /* it is swept at the next start */
    }
    snprintf(r->path, n, "%s/tmp/gone-%d-%u", g->settings.dir, (int)getpid(), g->temp_no++);
    if (rename(path, r->path) < 0 ||
        uv_queue_work(mu_loop_uv(g->loop), &r->work, remove_now, removed) < 0) {
        mu_free(r);
    }
}

/* --- mirrors --- */

static struct mu_git_mirror *mirror_new(struct mu_git_cache *g, const char *key)
{
    struct mu_git_mirror *m = mu_calloc(1, sizeof *m);
    if (!m) {
        return NULL;
    }
    memcpy(m->key, key, MU_GIT_KEY + 1);
    mu_list_init(&m->waiting);
    m->path = join(g->settings.dir, "mirrors", key, "");
    if (!m->path) {
        mu_free(m);
        return NULL;
    }
    mu_list_push(&g->mirrors, &m->link);
    return m;
}

static struct mu_git_mirror *mirror_find(struct mu_git_cache *g, const char *key)
{
    MU_LIST_EACH(it, tmp, &g->mirrors)
    {
        struct mu_git_mirror *m = MU_CONTAINER(it, struct mu_git_mirror, link);
        if (!strcmp(m->key, key)) {
            return m;
        }
    }
    return NULL;
}

struct mu_git_mirror *mu_git_mirror_get_(struct mu_git_cache *g, const char *url)
{
    char key[MU_GIT_KEY + 1];
    key_of(mu_str(url), key);
    struct mu_git_mirror *m = mirror_find(g, key);
    return m ? m : mirror_new(g, key);
}

static void mirror_free(struct mu_git_cache *g, struct mu_git_mirror *m)
{
    g->bytes -= m->bytes;
    mu_list_remove(&m->link);
    mu_free(m->path);
    mu_free(m);
}

/* --- bases --- */

struct mu_git_base *mu_git_base_find_(struct mu_git_cache *g, const char *key)
{
    MU_LIST_EACH(it, tmp, &g->bases)
    {
        struct mu_git_base *b = MU_CONTAINER(it, struct mu_git_base, link);
        if (!strcmp(b->key, key)) {
            return b;
        }
    }
    return NULL;
}

void mu_git_base_touch_(struct mu_git_cache *g, struct mu_git_base *b)
{
    mu_list_remove(&b->link);
    mu_list_push(&g->bases, &b->link);
    (void)utimensat(AT_FDCWD, b->tree, NULL, AT_SYMLINK_NOFOLLOW);
}

static void base_free(struct mu_git_cache *g, struct mu_git_base *b)
{
    g->bytes -= b->bytes;
    b->mirror->bases--;
    mu_list_remove(&b->link);
    mu_free(b->tree);
    mu_free(b->objects);
    mu_free(b);
}

static struct mu_git_base *base_new(struct mu_git_cache *g, struct mu_git_mirror *m,
                                    const char *key, const char *commit, int64_t bytes)
{
    struct mu_git_base *b = mu_calloc(1, sizeof *b);
    if (!b) {
        return NULL;
    }
    b->tree = join(g->settings.dir, "bases", key, "tree");
    b->objects = join(m->path, "objects", "", "");
    if (!b->tree || !b->objects) {
        mu_free(b->tree);
        mu_free(b->objects);
        mu_free(b);
        return NULL;
    }
    b->mirror = m;
    b->bytes = bytes;
    snprintf(b->key, sizeof b->key, "%s", key);
    snprintf(b->commit, sizeof b->commit, "%s", commit);
    m->bases++;
    g->bytes += bytes;
    mu_list_push(&g->bases, &b->link);
    return b;
}

struct mu_git_base *mu_git_base_add_(struct mu_git_cache *g, struct mu_git_mirror *m,
                                     const char *key, const char *commit, const char *temp,
                                     int64_t bytes)
{
    MU_AUTO_FREE char *to = join(g->settings.dir, "bases", key, "");
    MU_AUTO_FREE char *facts = join(temp, "facts", "", "");
    if (!to || !facts) {
        return NULL;
    }
    FILE *f = fopen(facts, "we");
    if (!f) {
        return NULL;
    }
    fprintf(f, "%s %s %lld\n", m->key, commit, (long long)bytes);
    if (fclose(f) != 0 || rename(temp, to) < 0) {
        return NULL;
    }
    return base_new(g, m, key, commit, bytes);
}

/* --- too much --- */

static void drop_base(struct mu_git_cache *g, struct mu_git_base *b)
{
    size_t n = strlen(b->tree);
    b->tree[n - 5] = 0; /* without "/tree" */
    mu_git_discard_(g, b->tree);
    base_free(g, b);
}

void mu_git_trim_(struct mu_git_cache *g)
{
    MU_LIST_EACH(it, tmp, &g->bases)
    {
        struct mu_git_base *b = MU_CONTAINER(it, struct mu_git_base, link);
        if (g->bytes > g->settings.max_bytes && b->held == 0) {
            drop_base(g, b);
        }
    }
    MU_LIST_EACH(it, tmp, &g->mirrors)
    {
        struct mu_git_mirror *m = MU_CONTAINER(it, struct mu_git_mirror, link);
        if (g->bytes > g->settings.max_bytes && m->bases == 0 && !m->busy && !m->users) {
            mu_git_discard_(g, m->path);
            mirror_free(g, m);
        }
    }
}

/* --- start --- */

static void load_mirror(struct mu_git_cache *g, const char *name)
{
    if (strlen(name) != MU_GIT_KEY) {
        return;
    }
    struct mu_git_mirror *m = mirror_new(g, name);
    MU_AUTO_FREE char *head = m ? join(m->path, "muster-fetched", "", "") : NULL;
    FILE *f = head ? fopen(head, "re") : NULL;
    long long bytes = 0;
    int closed = 1;
    if (m && f && fscanf(f, "%lld %d", &bytes, &closed) >= 1) {
        m->exists = true;
        m->closed = closed != 0;
        m->bytes = bytes;
        g->bytes += bytes;
    } else if (m) {
        mu_git_discard_(g, m->path);
    }
    if (f) {
        fclose(f);
    }
}

static void load_base(struct mu_git_cache *g, const char *name)
{
    MU_AUTO_FREE char *path = join(g->settings.dir, "bases", name, "");
    MU_AUTO_FREE char *facts = join(g->settings.dir, "bases", name, "facts");
    FILE *f = facts ? fopen(facts, "re") : NULL;
    char mirror[MU_GIT_KEY + 1], commit[MU_GIT_COMMIT + 1];
    long long bytes;
    bool ok = f && fscanf(f, "%24s %40s %lld", mirror, commit, &bytes) == 3;
    if (f) {
        fclose(f);
    }
    struct mu_git_mirror *m = ok ? mirror_find(g, mirror) : NULL;
    if (m && m->exists && strlen(name) == MU_GIT_KEY) {
        (void)base_new(g, m, name, commit, bytes);
    } else if (path) {
        mu_git_discard_(g, path);
    }
}

static void sweep_temp(struct mu_git_cache *g, const char *name)
{
    MU_AUTO_FREE char *path = join(g->settings.dir, "tmp", name, "");
    if (path) {
        mu_git_discard_(g, path);
    }
}

static int each_in(struct mu_git_cache *g, const char *sub,
                   void (*fn)(struct mu_git_cache *g, const char *name), struct mu_err *err)
{
    MU_AUTO_FREE char *path = join(g->settings.dir, sub, "", "");
    if (!path) {
        return mu_err_set(err, -ENOMEM, "out of memory");
    }
    DIR *d = mkdir(path, 0700) == 0 || errno == EEXIST ? opendir(path) : NULL;
    if (!d) {
        return mu_err_set(err, -errno, "%s: %s", path, strerror(errno));
    }
    struct dirent *e;
    while ((e = readdir(d)) != NULL) {
        if (e->d_name[0] != '.') {
            fn(g, e->d_name);
        }
    }
    closedir(d);
    return 0;
}

static int by_use(const void *a, const void *b)
{
    const struct mu_git_base *x = *(struct mu_git_base *const *)a,
                             *y = *(struct mu_git_base *const *)b;
    struct stat sx = {0}, sy = {0};
    (void)stat(x->tree, &sx);
    (void)stat(y->tree, &sy);
    return sx.st_mtime < sy.st_mtime ? -1 : sx.st_mtime > sy.st_mtime;
}

/* The order of last use comes back with the times of the folders. */
static void order_bases(struct mu_git_cache *g)
{
    size_t n = 0, i = 0;
    MU_LIST_EACH(it, tmp, &g->bases)
    {
        n++;
    }
    struct mu_git_base **all = n ? mu_alloc(n * sizeof *all) : NULL;
    if (!all) {
        return;
    }
    MU_LIST_EACH(it, tmp, &g->bases)
    {
        all[i++] = MU_CONTAINER(it, struct mu_git_base, link);
    }
    qsort(all, n, sizeof *all, by_use);
    for (i = 0; i < n; i++) {
        mu_list_remove(&all[i]->link);
        mu_list_push(&g->bases, &all[i]->link);
    }
    mu_free(all);
}

static int build_env(struct mu_git_cache *g)
{
    static const char *const fixed[] = {
        "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
        "GIT_TERMINAL_PROMPT=0", "GIT_ALLOW_PROTOCOL=https:http:ssh:git:file",
        "GIT_LFS_SKIP_SMUDGE=1", "LC_ALL=C"};
    static const char *const passed[] = {
        "PATH",       "HTTPS_PROXY", "HTTP_PROXY",    "NO_PROXY",     "https_proxy",
        "http_proxy", "no_proxy",    "SSL_CERT_FILE", "SSL_CERT_DIR", "SSH_AUTH_SOCK"};
    size_t n_passed = MU_ARRAY_LEN(passed) - (g->settings.ssh_keys ? 0 : 1);
    size_t n = 0;
    g->env = mu_arena_calloc(&g->arena,
                             (MU_ARRAY_LEN(fixed) + MU_ARRAY_LEN(passed) + 3) * sizeof *g->env);
    if (!g->env) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(fixed); i++) {
        g->env[n++] = fixed[i];
    }
    g->env[n++] = g->settings.ssh_keys ? "GIT_SSH_COMMAND=ssh -oBatchMode=yes"
                                       : "GIT_SSH_COMMAND=ssh -F/dev/null -oBatchMode=yes "
                                         "-oIdentityFile=none -oIdentityAgent=none "
                                         "-oPubkeyAuthentication=no -oHostbasedAuthentication=no "
                                         "-oGSSAPIAuthentication=no";
    g->env[n++] = mu_arena_printf(&g->arena, "HOME=%s", g->settings.dir).ptr;
    for (size_t i = 0; i < n_passed; i++) {
        const char *value = getenv(passed[i]);
        if (value) {
            g->env[n++] = mu_arena_printf(&g->arena, "%s=%s", passed[i], value).ptr;
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (!g->env[i]) {
            return -ENOMEM;
        }
    }
    return 0;
}

int mu_git_cache_new(struct mu_loop *loop, const struct mu_git_settings *settings,
                     struct mu_git_cache **ret, struct mu_err *err)
{
    struct mu_git_cache *g = mu_calloc(1, sizeof *g);
    if (!g) {
        return mu_err_set(err, -ENOMEM, "out of memory");
    }
    g->loop = loop;
    g->settings = *settings;
    mu_list_init(&g->mirrors);
    mu_list_init(&g->bases);
    mu_list_init(&g->jobs);
    mu_list_init(&g->ready);
    mu_arena_init(&g->arena, 1 << 20);
    g->settings.dir = mu_arena_dup(&g->arena, mu_str(settings->dir)).ptr;
    int r = g->settings.dir && build_env(g) == 0 ? 0 : mu_err_set(err, -ENOMEM, "out of memory");
    if (r == 0 && mkdir(g->settings.dir, 0700) < 0 && errno != EEXIST) {
        r = mu_err_set(err, -errno, "%s: %s", g->settings.dir, strerror(errno));
    }
    r = r < 0 ? r : each_in(g, "tmp", sweep_temp, err);
    r = r < 0 ? r : each_in(g, "mirrors", load_mirror, err);
    r = r < 0 ? r : each_in(g, "bases", load_base, err);
    if (r < 0) {
        mu_git_cache_free(g);
        return r;
    }
    order_bases(g);
    mu_git_trim_(g);
    *ret = g;
    return 0;
}

struct mu_git_cache *mu_git_cache_free(struct mu_git_cache *g)
{
    if (!g) {
        return NULL;
    }
    MU_CHECK(mu_list_empty(&g->jobs));
    MU_LIST_EACH(it, tmp, &g->bases)
    {
        struct mu_git_base *b = MU_CONTAINER(it, struct mu_git_base, link);
        MU_CHECK(b->held == 0);
        base_free(g, b);
    }
    MU_LIST_EACH(it, tmp, &g->mirrors)
    {
        mirror_free(g, MU_CONTAINER(it, struct mu_git_mirror, link));
    }
    mu_arena_fini(&g->arena);
    mu_free(g);
    return NULL;
}
