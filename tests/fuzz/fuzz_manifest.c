/* What a server says that a session is restored from: whatever is taken names nothing outside of
 * the workspace, no option of git, and nothing of ours. */
#include "fuzz.h"
#include "runner/manifest.h"

static void check_id(const char *id)
{
    size_t n = strspn(id, "0123456789abcdef");
    MU_CHECK(!id[n] && (n == 0 || n == 40 || n == 64));
}

static void check_root(const struct mu_manifest_root *r)
{
    mu_bytes rest = mu_str(r->dir);
    MU_CHECK(!rest.len || mu_bytes_is_path(rest));
    while (rest.len) {
        mu_bytes part = mu_bytes_split(&rest, '/');
        MU_CHECK(!mu_bytes_eq_nocase(part, MU_B(".git")) && !mu_bytes_is(part, ".."));
    }
    rest = mu_str(r->dir);
    MU_CHECK(!mu_bytes_is(mu_bytes_split(&rest, '/'), ".oz") && r->branch[0] != '-');
    MU_CHECK(r->commit[0]);
    check_id(r->commit);
    check_id(r->head);
    check_id(r->base);
    for (size_t i = 0; i < r->n_shallow; i++) {
        check_id(r->shallow[i]);
    }
    for (size_t i = 0; i < r->n_files; i++) {
        MU_CHECK(r->files[i].name[0] && r->files[i].name[0] != '.' && r->files[i].name[0] != '-');
        MU_CHECK(!strchr(r->files[i].name, '/') && (i || r->files[i].first));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct mu_manifest m;
    struct mu_err err = {0};
    int r = mu_manifest_read(fuzz_bytes(data, size), &m, &err);
    MU_CHECK(r == 0 || (r == MU_E_INVALID && err.text[0]));
    for (size_t i = 0; r == 0 && i < m.n_roots; i++) {
        check_root(&m.roots[i]);
    }
    if (r == 0) {
        mu_manifest_fini(&m);
    }
    return 0;
}
