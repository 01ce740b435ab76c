#include "runner/repos.h"

#include <errno.h>

#include "base/buf.h"
#include "proto/repo.h"

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
    mu_buf_init(&b, MU_REPO_NAME + 16);
    mu_buf_add(&b, name);
    for (int64_t i = 2; !b.failed && taken(repos, mu_buf_bytes(&b)); i++) {
        mu_buf_clear(&b);
        mu_buf_add(&b, name);
        mu_buf_add_char(&b, '-');
        mu_buf_add_i64(&b, i);
    }
    return b.failed ? NULL : mu_bytes_dup(mu_buf_bytes(&b));
}

static char *url_of(const struct mu_repo_spec *spec)
{
    struct mu_buf b MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&b, MU_REPO_TEXT + 64);
    mu_buf_add_str(&b, spec->before);
    mu_buf_add(&b, spec->where);
    mu_buf_add_str(&b, spec->after);
    return b.failed ? NULL : mu_bytes_dup(mu_buf_bytes(&b));
}

static int add(struct mu_repos *repos, mu_bytes line, struct mu_err *err)
{
    struct mu_repo_spec spec;
    const char *why;
    if (mu_repo_spec_parse(line, &spec, &why) < 0) {
        return mu_err_set(err, MU_E_INVALID, "\"%.*s\": %s", (int)MU_MIN(line.len, (size_t)200),
                          line.ptr, why);
    }
    if (repos->n == MU_REPOS_MAX) {
        return mu_err_set(err, MU_E_INVALID, "more than %d repositories", MU_REPOS_MAX);
    }
    struct mu_repo *r = &repos->items[repos->n];
    *r = (struct mu_repo){url_of(&spec), spec.ref.len ? mu_bytes_dup(spec.ref) : NULL,
                          free_name(repos, spec.name)};
    repos->n++;
    return r->url && r->name && (!spec.ref.len || r->branch) ? 0 : -ENOMEM;
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
