#include "runner/manifest.h"

#include <errno.h>

#include "base/encode.h"
#include "proto/jtok.h"

enum { DIR_MAX = 4096, PARTS_MAX = 128 };

void mu_manifest_fini(struct mu_manifest *m)
{
    for (size_t i = 0; i < m->n_roots; i++) {
        mu_free(m->roots[i].dir);
        mu_free(m->roots[i].files);
        m->roots[i] = (struct mu_manifest_root){.dir = NULL};
    }
    m->n_roots = 0;
}

static bool good_id(const char *id)
{
    return mu_hex_is(mu_str(id), 40) || mu_hex_is(mu_str(id), 64);
}

static bool good_name(const char *name)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    return n && !name[n] && name[0] != '.' && name[0] != '-';
}

/* Git judges the rest. */
static bool good_branch(const char *name)
{
    for (const unsigned char *p = (const unsigned char *)name; *p; p++) {
        if (*p <= ' ' || *p == 0x7f) {
            return false;
        }
    }
    return name[0] != '-';
}

static bool good_dir(const char *dir)
{
    mu_bytes rest = mu_str(dir);
    if (dir[0] && !mu_bytes_is_path(rest)) {
        return false;
    }
    while (rest.ptr && dir[0]) {
        mu_bytes part = mu_bytes_split(&rest, '/');
        if (mu_bytes_eq_nocase(part, MU_B(".git"))) {
            return false;
        }
    }
    return strcmp(dir, ".oz") != 0 && strncmp(dir, ".oz/", 4) != 0;
}

/* Missing is "". */
static bool text(const struct mu_jtok *j, int obj, const char *key, char *dst, size_t cap)
{
    int v = mu_jtok_get(j, obj, key);
    dst[0] = 0;
    return v < 0 || mu_jtok_kind(j, v) == MU_JTOK_NULL || mu_jtok_copy(j, v, dst, cap);
}

static bool id(const struct mu_jtok *j, int obj, const char *key, char dst[65])
{
    return text(j, obj, key, dst, 65) && (!dst[0] || good_id(dst));
}

static bool shallow(const struct mu_jtok *j, int obj, struct mu_manifest_root *r)
{
    int list = mu_jtok_get(j, obj, "shallow");
    for (int i = mu_jtok_first(j, list); i >= 0; i = mu_jtok_next(j, list, i)) {
        if (r->n_shallow == MU_MANIFEST_SHALLOW ||
            !mu_jtok_copy(j, i, r->shallow[r->n_shallow], 65) ||
            !good_id(r->shallow[r->n_shallow])) {
            return false;
        }
        r->n_shallow++;
    }
    return true;
}

static bool good_kind(const struct mu_manifest_root *r, const char *dir)
{
    if (strcmp(r->kind, "checkout") == 0) {
        return true;
    }
    return (strcmp(r->kind, "workspace") == 0 || strcmp(r->kind, "home") == 0) && !dir[0];
}

static int read_root(const struct mu_jtok *j, int obj, struct mu_manifest_root *r)
{
    char *dir MU_AUTO_FREE = mu_alloc(DIR_MAX + 1);
    if (!dir) {
        return -ENOMEM;
    }
    bool good =
        text(j, obj, "kind", r->kind, sizeof r->kind) && text(j, obj, "path", dir, DIR_MAX + 1) &&
        text(j, obj, "branch", r->branch, sizeof r->branch) && id(j, obj, "head", r->head) &&
        id(j, obj, "base", r->base) && id(j, obj, "commit", r->commit) && shallow(j, obj, r) &&
        r->commit[0] && good_branch(r->branch) && good_dir(dir) && good_kind(r, dir);
    if (!good) {
        return MU_E_INVALID;
    }
    r->dir = mu_bytes_dup(mu_str(dir));
    return r->dir ? 0 : -ENOMEM;
}

static int read_roots(const struct mu_jtok *j, int checkpoint, struct mu_manifest *m)
{
    int list = mu_jtok_get(j, checkpoint, "roots"), r = 0;
    for (int i = mu_jtok_first(j, list); i >= 0 && !r; i = mu_jtok_next(j, list, i)) {
        if (m->n_roots == MU_MANIFEST_ROOTS) {
            return MU_E_INVALID;
        }
        struct mu_manifest_root *root = &m->roots[m->n_roots];
        *root = (struct mu_manifest_root){.dir = NULL};
        r = read_root(j, i, root);
        m->n_roots += r == 0;
    }
    return r;
}

static struct mu_manifest_root *find(const struct mu_jtok *j, int obj, struct mu_manifest *m)
{
    int kind = mu_jtok_get(j, obj, "kind"), path = mu_jtok_get(j, obj, "path");
    for (size_t i = 0; i < m->n_roots; i++) {
        if (mu_jtok_is(j, kind, mu_str(m->roots[i].kind)) &&
            (path < 0 ? !m->roots[i].dir[0] : mu_jtok_is(j, path, mu_str(m->roots[i].dir)))) {
            return &m->roots[i];
        }
    }
    return NULL;
}

/* One file more; the array doubles. */
static int add_file(struct mu_manifest_root *r, const struct mu_manifest_file *f)
{
    size_t n = r->n_files;
    if (n == MU_MANIFEST_FILES) {
        return MU_E_INVALID;
    }
    if ((n & (n - 1)) == 0) { /* 0, 1, 2, 4, … */
        size_t cap = n ? 2 * n : 1;
        struct mu_manifest_file *grown = mu_realloc(r->files, cap * sizeof *grown);
        if (!grown) {
            return -ENOMEM;
        }
        r->files = grown;
    }
    r->files[r->n_files++] = *f;
    return 0;
}

/* The parts of a checkpoint belong to its roots in their order. */
static int read_parts(const struct mu_jtok *j, int checkpoint, struct mu_manifest *m)
{
    int roots = mu_jtok_get(j, checkpoint, "roots"), parts = mu_jtok_get(j, checkpoint, "parts");
    int part = mu_jtok_first(j, parts), r = 0;
    for (int i = mu_jtok_first(j, roots); i >= 0 && !r; i = mu_jtok_next(j, roots, i)) {
        struct mu_manifest_root *root = find(j, i, m);
        int64_t n = mu_jtok_i64(j, mu_jtok_get(j, i, "parts"), 0);
        if (n < 0 || n > PARTS_MAX) {
            return MU_E_INVALID;
        }
        for (int64_t k = 0; k < n && !r; k++) {
            struct mu_manifest_file f = {.first = k == 0};
            if (part < 0 || !text(j, part, "name", f.name, sizeof f.name) || !good_name(f.name)) {
                return MU_E_INVALID;
            }
            r = root ? add_file(root, &f) : 0;
            part = mu_jtok_next(j, parts, part);
        }
    }
    return r ? r : part >= 0 ? MU_E_INVALID : 0;
}

static int read_chain(const struct mu_jtok *j, struct mu_manifest *m)
{
    int list = mu_jtok_get(j, 0, "checkpoints"), newest = -1, n = 0, r;
    for (int i = mu_jtok_first(j, list); i >= 0; i = mu_jtok_next(j, list, i)) {
        newest = i;
        if (mu_jtok_kind(j, i) != MU_JTOK_OBJECT || n++ == MU_MANIFEST_CHAIN) {
            return MU_E_INVALID;
        }
    }
    if (newest < 0 || !text(j, newest, "conversationId", m->conversation, sizeof m->conversation)) {
        return MU_E_INVALID;
    }
    r = read_roots(j, newest, m);
    for (int i = mu_jtok_first(j, list); i >= 0 && !r; i = mu_jtok_next(j, list, i)) {
        r = read_parts(j, i, m);
    }
    return r;
}

int mu_manifest_read(mu_bytes json, struct mu_manifest *ret, struct mu_err *err)
{
    struct mu_jtok j MU_CLEANUP(mu_jtok_fini);
    struct mu_manifest *m MU_AUTO_FREE = mu_calloc(1, sizeof *m);
    mu_jtok_init(&j);
    int r = !m ? -ENOMEM : json.len > MU_MANIFEST_BYTES ? MU_E_INVALID : mu_jtok_parse(&j, json);
    r = r ? r : read_chain(&j, m);
    if (r) {
        if (m) {
            mu_manifest_fini(m);
        }
        return r == -ENOMEM
                   ? mu_err_set(err, r, "out of memory")
                   : mu_err_set(err, MU_E_INVALID, "what the server says of it is not usable");
    }
    *ret = *m;
    return 0;
}
