#include "runner/repos.h"

#include <errno.h>

#include "base/buf.h"

enum { URL_MAX = 4096, NAME_MAX_ = 200 };

void mu_repos_fini(struct mu_repos *repos)
{
    for (size_t i = 0; i < repos->n; i++) {
        mu_free(repos->items[i].url);
        mu_free(repos->items[i].branch);
        mu_free(repos->items[i].name);
    }
    mu_free(repos->items);
    *repos = (struct mu_repos){0};
}

static bool printable(mu_bytes b)
{
    for (size_t i = 0; i < b.len; i++) {
        if ((unsigned char)b.ptr[i] <= 0x20 || b.ptr[i] == 0x7f) {
            return false;
        }
    }
    return true;
}

/* The last part of the path, without ".git". */
static mu_bytes base_name(mu_bytes spec)
{
    while (spec.len && spec.ptr[spec.len - 1] == '/') {
        spec.len--;
    }
    if (mu_bytes_ends(spec, MU_B(".git"))) {
        spec.len -= 4;
    }
    size_t from = spec.len;
    while (from && spec.ptr[from - 1] != '/' && spec.ptr[from - 1] != ':') {
        from--;
    }
    return mu_bytes_from(spec, from);
}

static bool taken(const struct mu_repos *repos, mu_bytes name)
{
    for (size_t i = 0; i < repos->n; i++) {
        /* folders may not tell case apart */
        if (repos->items[i].name && mu_bytes_eq_nocase(mu_str(repos->items[i].name), name)) {
            return true;
        }
    }
    return false;
}

static char *free_name(const struct mu_repos *repos, mu_bytes name)
{
    struct mu_buf b MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&b, NAME_MAX_ + 16);
    mu_buf_add(&b, name);
    for (int64_t i = 2; !b.failed && taken(repos, mu_buf_bytes(&b)); i++) {
        mu_buf_clear(&b);
        mu_buf_add(&b, name);
        mu_buf_add_char(&b, '-');
        mu_buf_add_i64(&b, i);
    }
    return b.failed ? NULL : mu_bytes_dup(mu_buf_bytes(&b));
}

static char *url_of(mu_bytes spec)
{
    bool whole = mu_bytes_find(spec, MU_B("://")) >= 0 || mu_bytes_starts(spec, MU_B("git@")) ||
                 mu_bytes_find_char(spec, '/') <= 0;
    if (whole) {
        return mu_bytes_dup(spec);
    }
    struct mu_buf b MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&b, URL_MAX + 64);
    mu_buf_add_str(&b, "https://github.com/");
    mu_buf_add(&b, spec);
    if (!mu_bytes_ends(spec, MU_B(".git"))) {
        mu_buf_add_str(&b, ".git");
    }
    return b.failed ? NULL : mu_bytes_dup(mu_buf_bytes(&b));
}

static int add(struct mu_repos *repos, mu_bytes line, struct mu_err *err)
{
    mu_bytes spec = line, branch = MU_B_NONE;
    ptrdiff_t hash = mu_bytes_find_char(line, '#'); /* the first: a branch may hold further ones */
    if (hash >= 0) {
        spec = mu_bytes_head(line, (size_t)hash);
        branch = mu_bytes_from(line, (size_t)hash + 1);
    }
    mu_bytes name = base_name(spec);
    if (!spec.len || spec.len > URL_MAX || !printable(line)) {
        return mu_err_set(err, MU_E_INVALID, "not a repository: \"%.*s\"",
                          (int)MU_MIN(line.len, (size_t)200), line.ptr);
    }
    if (spec.ptr[0] == '-' || (branch.len && branch.ptr[0] == '-')) {
        return mu_err_set(err, MU_E_INVALID, "refused, it looks like an option: \"%.*s\"",
                          (int)MU_MIN(line.len, (size_t)200), line.ptr);
    }
    if (!name.len || name.len > NAME_MAX_ || name.ptr[0] == '-' || mu_bytes_is(name, ".") ||
        mu_bytes_is(name, "..") || mu_bytes_eq_nocase(name, MU_B(".git")) ||
        mu_bytes_eq_nocase(name, MU_B(".oz"))) {
        return mu_err_set(err, MU_E_INVALID, "no folder can be named after \"%.*s\"",
                          (int)MU_MIN(line.len, (size_t)200), line.ptr);
    }
    if (repos->n == MU_REPOS_MAX) {
        return mu_err_set(err, MU_E_INVALID, "more than %d repositories", MU_REPOS_MAX);
    }
    struct mu_repo *r = &repos->items[repos->n];
    *r = (struct mu_repo){url_of(spec), branch.len ? mu_bytes_dup(branch) : NULL,
                          free_name(repos, name)};
    repos->n++;
    return r->url && r->name && (!branch.len || r->branch) ? 0 : -ENOMEM;
}

int mu_repos_parse(mu_bytes text, struct mu_repos *ret, struct mu_err *err)
{
    struct mu_repos repos = {mu_calloc(MU_REPOS_MAX, sizeof(struct mu_repo)), 0};
    int r = repos.items ? 0 : -ENOMEM;
    mu_bytes rest = text;
    while (!r && rest.ptr) {
        mu_bytes line = mu_bytes_trim(mu_bytes_split(&rest, '\n'));
        if (line.len) {
            r = add(&repos, line, err);
        }
    }
    if (r) {
        if (r == -ENOMEM) {
            mu_err_set(err, r, "out of memory");
        }
        mu_repos_fini(&repos);
        return r;
    }
    *ret = repos;
    return 0;
}
