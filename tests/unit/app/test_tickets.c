#include "../unit.h"

#include <errno.h>
#include <stdio.h>

#include "../alloc_fail.h"
#include "app/identity/identity.h"

static int64_t mono_now_ns = 5000000000;
static int64_t fake_mono(const struct mu_env *env)
{
    (void)env;
    return mono_now_ns;
}
static int64_t fake_wall(const struct mu_env *env)
{
    (void)env;
    return 1000000;
}
static void real_random(const struct mu_env *env, void *dst, size_t len)
{
    (void)env;
    mu_env_real.random(&mu_env_real, dst, len);
}
static const struct mu_env env = {fake_wall, fake_mono, real_random, NULL};

static int make(struct mu_identity **ret)
{
    struct mu_err err;
    const struct mu_identity_opts opts = {.env = &env, .admin_key = "boss"};
    return mu_identity_new(&opts, NULL, ret, &err);
}

static struct mu_identity *made(void)
{
    struct mu_identity *id;
    assert_int_equal(make(&id), 0);
    return id;
}

static void a_credential_is_worth_what_its_token_is(void **state)
{
    (void)state;
    static const char *const tokens[] = {"boss", "t", "sk_unknown", "adm_old", "rt_unknown"};
    struct mu_identity *id = made();
    for (size_t i = 0; i < MU_ARRAY_LEN(tokens); i++) {
        struct mu_principal by_token, by_credential;
        struct mu_credential c = mu_credential_of(mu_str(tokens[i]));
        int r = mu_identity_resolve(id, mu_str(tokens[i]), &by_token);
        assert_int_equal(mu_identity_resolve_credential(id, &c, &by_credential), r);
        assert_int_equal(r, i < 2 ? 0 : MU_E_UNAUTHORIZED);
        if (r == 0) {
            assert_memory_equal(&by_token, &by_credential, sizeof by_token);
        }
    }
    struct mu_credential boss = mu_credential_of(MU_B("boss"));
    struct mu_principal p;
    mu_identity_set_admin_key(id, "other"); /* looked at again, it is another's */
    assert_int_equal(mu_identity_resolve_credential(id, &boss, &p), 0);
    assert_false(p.admin);
    mu_identity_free(id);
}

static void a_ticket_is_good_once(void **state)
{
    (void)state;
    struct mu_identity *id = made();
    struct mu_credential of = mu_credential_of(MU_B("t")), got;
    char ticket[MU_TICKET_LEN + 1], other[MU_TICKET_LEN + 1];
    assert_int_equal(mu_ticket_make(id, &of, ticket), 0);
    assert_int_equal(mu_ticket_make(id, &of, other), 0);
    assert_int_equal(strlen(ticket), MU_TICKET_LEN);
    assert_string_not_equal(ticket, other);
    assert_int_equal(mu_ticket_take(id, MU_B("wst_"), &got), MU_E_UNAUTHORIZED);
    assert_int_equal(mu_ticket_take(id, mu_str(ticket), &got), 0);
    assert_memory_equal(&got.digest, &of.digest, sizeof of.digest);
    assert_int_equal(mu_ticket_take(id, mu_str(ticket), &got), MU_E_UNAUTHORIZED);
    assert_int_equal(mu_ticket_take(id, mu_str(other), &got), 0);
    mu_identity_free(id);
}

static void a_ticket_ends_after_a_minute(void **state)
{
    (void)state;
    struct mu_identity *id = made();
    struct mu_credential of = mu_credential_of(MU_B("t")), got;
    char young[MU_TICKET_LEN + 1], old[MU_TICKET_LEN + 1];
    assert_int_equal(mu_ticket_make(id, &of, old), 0);
    mono_now_ns += 1000000;
    assert_int_equal(mu_ticket_make(id, &of, young), 0);
    mono_now_ns += (MU_TICKET_MS - 1) * 1000000ll;
    assert_int_equal(mu_ticket_take(id, mu_str(old), &got), MU_E_UNAUTHORIZED);
    assert_int_equal(mu_ticket_take(id, mu_str(young), &got), 0);
    mu_identity_free(id);
}

static void tickets_that_nobody_uses_are_bounded(void **state)
{
    (void)state;
    struct mu_identity *id = made();
    char ticket[MU_TICKET_LEN + 1], token[32];
    struct mu_credential of;
    for (int i = 0; i < MU_TICKETS_MAX; i++) {
        snprintf(token, sizeof token, "t%d", i / MU_TICKETS_EACH);
        of = mu_credential_of(mu_str(token));
        assert_int_equal(mu_ticket_make(id, &of, ticket), 0);
        if (i == MU_TICKETS_EACH - 1) {
            assert_int_equal(mu_ticket_make(id, &of, ticket), MU_E_LIMIT); /* of one */
        }
    }
    of = mu_credential_of(MU_B("another"));
    assert_int_equal(mu_ticket_make(id, &of, ticket), MU_E_LIMIT); /* of all */
    mono_now_ns += MU_TICKET_MS * 1000000ll;
    assert_int_equal(mu_ticket_make(id, &of, ticket), 0);
    mu_identity_free(id);
}

static int sweep_once(void *arg)
{
    (void)arg;
    struct mu_identity *id = NULL;
    struct mu_credential of = mu_credential_of(MU_B("t"));
    char ticket[MU_TICKET_LEN + 1];
    int r = make(&id);
    for (int i = 0; r == 0 && i < 20; i++) {
        r = mu_ticket_make(id, &of, ticket);
    }
    mu_identity_free(id);
    return r;
}

static void nothing_leaks_without_memory(void **state)
{
    (void)state;
    each_allocation_fails(sweep_once, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_credential_is_worth_what_its_token_is),
        cmocka_unit_test(a_ticket_is_good_once),
        cmocka_unit_test(a_ticket_ends_after_a_minute),
        cmocka_unit_test(tickets_that_nobody_uses_are_bounded),
        cmocka_unit_test(nothing_leaks_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
