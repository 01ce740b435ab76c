/* A repository as an environment names it. */
#include "fuzz.h"
#include "proto/repo.h"

static bool within(mu_bytes part, mu_bytes all)
{
    return part.len == 0 || (part.ptr >= all.ptr && part.ptr + part.len <= all.ptr + all.len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mu_bytes in = fuzz_bytes(data, size);
    struct mu_repo_spec spec;
    const char *why = NULL;
    if (mu_repo_spec_parse(in, &spec, &why) < 0) {
        MU_CHECK(why != NULL);
        return 0;
    }
    MU_CHECK(within(spec.where, in) && within(spec.ref, in) && within(spec.name, spec.where));
    MU_CHECK(spec.where.len && (spec.before[0] || spec.where.ptr[0] != '-'));
    MU_CHECK(spec.ref.len == 0 || spec.ref.ptr[0] != '-');
    MU_CHECK(spec.name.len && spec.name.len <= MU_REPO_NAME && spec.name.ptr[0] != '-');
    MU_CHECK(mu_bytes_find_char(spec.name, '/') < 0 && !mu_bytes_is(spec.name, ".."));
    for (size_t i = 0; i < spec.where.len; i++) {
        MU_CHECK((unsigned char)spec.where.ptr[i] > ' ');
    }
    return 0;
}
