/* Logins of browsers, and the codes that make the first one. */
#include "app_world.h"

#include "app/identity/identity_int.h"

#define DAY INT64_C(86400000)

static struct mu_identity *id;
static int64_t mono_ms;

static void open_id(struct world *w, const char *admin_key, const char *tokens_file)
{
    struct mu_err err = {0};
    struct mu_db *db = NULL;
    const struct mu_db_opts ro = {.url = w->url, .reader = true};
    const struct mu_identity_opts o = {.env = &w->env,
                                       .writer = w->writer,
                                       .readers = w->readers,
                                       .core = w->loop,
                                       .admin_key = admin_key,
                                       .tenant_tokens_file = tokens_file};
    assert_int_equal(mu_db_open(&ro, &db, &err), 0);
    if (mu_identity_new(&o, db, &id, &err) < 0) {
        fail_msg("%s", err.text);
    }
    mu_db_close(db);
}

/* What nobody waits for has been written. */
static void settle_all(struct world *w)
{
    for (int i = 0; i < 200 && mu_writer_queue(w->writer); i++) {
        run_for(w, 5);
    }
    run_for(w, 30);
}

static void close_id(struct world *w)
{
    settle_all(w);
    id = mu_identity_free(id);
}

static void restart(struct world *w, const char *admin_key)
{
    close_id(w);
    open_id(w, admin_key, NULL);
}

OPERATION(mu_login_op, do_login, mu_login_create, id, unit)
OPERATION(mu_login_op, do_logout, mu_login_end, id, unit)
OPERATION(mu_key_op, do_key, mu_key_create, id, unit)
OPERATION(mu_key_op, do_revoke, mu_key_revoke, id, unit)

static struct mu_login_op sign_in(struct world *w, const char *token)
{
    struct mu_login_op op = {.of = mu_credential_of(mu_str(token)), .agent = MU_B("Browser/1")};
    assert_int_equal(do_login(w, &op), 0);
    assert_int_equal(strlen(op.token), MU_LOGIN_LEN);
    return op;
}

static int who(const struct mu_login_op *op, struct mu_principal *p)
{
    struct mu_credential c = {.digest = mu_sha256(mu_bytes_of(op->token, MU_LOGIN_LEN)),
                              .kind = MU_KIND_LOGIN};
    return mu_identity_resolve_credential(id, &c, p);
}

static bool good(const struct mu_login_op *op)
{
    struct mu_principal p;
    return who(op, &p) == 0;
}

/* --- what it is --- */

static void a_login_is_whoever_signed_in(struct world *w)
{
    struct mu_principal p, q;
    open_id(w, "boss", NULL);
    struct mu_login_op boss = sign_in(w, "boss"), tenant = sign_in(w, "someone");
    assert_int_equal(who(&boss, &p), 0);
    assert_true(p.admin && p.role == MU_ROLE_ADMIN);
    assert_int_equal(who(&tenant, &p), 0);
    assert_int_equal(mu_identity_resolve(id, MU_B("someone"), &q), 0);
    assert_string_equal(p.uid, q.uid);
    assert_string_equal(p.org_id, q.org_id);
    assert_ptr_equal(p.tenant, q.tenant);
    /* as a bearer too, and never a tenant of its own */
    assert_int_equal(mu_identity_resolve(id, mu_bytes_of(tenant.token, MU_LOGIN_LEN), &p), 0);
    assert_string_equal(p.uid, q.uid);
    assert_int_equal(mu_identity_resolve(id, MU_B("ms_0000"), &p), MU_E_UNAUTHORIZED);
    /* its text is nowhere */
    assert_int_equal(num(w, "SELECT COUNT(*) FROM credentials WHERE kind = 5"), 2);
    assert_int_equal(num(w,
                         "SELECT COUNT(*) FROM credentials WHERE hash LIKE '%%ms_%%' OR name LIKE "
                         "'%%ms_%%' OR LENGTH(prefix) > 3 OR stands_for LIKE '%%boss%%'"),
                     0);
    close_id(w);
}

static void a_login_outlives_a_restart_and_moves_on_once_a_day(struct world *w)
{
    struct mu_login l;
    open_id(w, "boss", NULL);
    struct mu_login_op op = sign_in(w, "boss");
    struct mu_credential c = mu_credential_of(mu_bytes_of(op.token, MU_LOGIN_LEN));
    int64_t first = op.expires_ms;
    assert_int_equal(first, now(w) + MU_LOGIN_MS);
    advance(w, DAY - 1);
    assert_true(good(&op));
    assert_int_equal(mu_login_get(id, &c, &l), 0);
    assert_int_equal(l.expires_ms, first);
    assert_int_equal(l.used_ms, now(w));
    advance(w, DAY);
    assert_true(good(&op));
    assert_int_equal(mu_login_get(id, &c, &l), 0);
    assert_int_equal(l.expires_ms, now(w) + MU_LOGIN_MS);
    restart(w, "boss");
    assert_int_equal(mu_login_get(id, &c, &l), 0);
    assert_int_equal(l.expires_ms, now(w) + MU_LOGIN_MS);
    assert_int_equal(l.created_ms, first - MU_LOGIN_MS);
    assert_string_equal(l.agent, "Browser/1");
    assert_true(good(&op));
    /* nobody comes for 30 days */
    advance(w, MU_LOGIN_MS - 1);
    restart(w, "boss");
    advance(w, 1);
    assert_false(good(&op));
    assert_int_equal(mu_login_get(id, &c, &l), MU_E_NOT_FOUND);
    sign_in(w, "boss"); /* takes the old rows away */
    assert_int_equal(num(w, "SELECT COUNT(*) FROM credentials WHERE kind = 5"), 1);
    close_id(w);
}

/* --- its end --- */

static void a_login_ends_when_somebody_ends_it(struct world *w)
{
    open_id(w, "boss", NULL);
    struct mu_login_op a = sign_in(w, "one"), b = sign_in(w, "one"), other = sign_in(w, "two");
    struct mu_login_op end = {.of = mu_credential_of(MU_B("two")), .id = a.id};
    assert_int_equal(do_logout(w, &end), MU_E_NOT_FOUND); /* not its own */
    assert_true(good(&a));
    end = (struct mu_login_op){.of = mu_credential_of(mu_bytes_of(b.token, MU_LOGIN_LEN)),
                               .id = a.id};
    assert_int_equal(do_logout(w, &end), 0);
    assert_false(good(&a));
    assert_true(good(&b) && good(&other));
    assert_int_equal(do_logout(w, &end), MU_E_NOT_FOUND);
    restart(w, "boss");
    assert_false(good(&a));
    assert_true(good(&b));
    close_id(w);
}

static void a_revoked_key_ends_its_logins(struct world *w)
{
    struct mu_principal p;
    open_id(w, "boss", NULL);
    struct mu_key_op key = {.name = MU_B("ci"), .tenant = MU_B("acme"), .role = MU_ROLE_VIEWER};
    assert_int_equal(do_key(w, &key), 0);
    char token[sizeof key.token], name[64];
    memcpy(token, key.token, sizeof token);
    struct mu_login_op op = sign_in(w, token);
    assert_int_equal(who(&op, &p), 0);
    assert_int_equal(p.role, MU_ROLE_VIEWER);
    mu_identity_name(id, &p, name, sizeof name);
    assert_string_equal(name, "ci");
    struct mu_key_op revoke = {.id = key.id};
    assert_int_equal(do_revoke(w, &revoke), 0);
    assert_int_equal(who(&op, &p), MU_E_UNAUTHORIZED);
    settle_all(w);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM credentials WHERE kind = 5"), 0);
    struct mu_login_op again = {.of = mu_credential_of(mu_str(token))};
    assert_int_equal(do_login(w, &again), MU_E_UNAUTHORIZED);
    assert_int_equal(again.token[0], 0);
    close_id(w);
}

/* Also one that was set by hand, and is a tenant's token like any other afterwards. */
static void a_new_admin_key_ends_the_logins_of_the_old_one(struct world *w)
{
    struct mu_principal p;
    open_id(w, "boss", NULL);
    struct mu_login_op op = sign_in(w, "boss"), tenant = sign_in(w, "someone");
    mu_identity_set_admin_key(id, "new-boss");
    assert_int_equal(mu_identity_resolve(id, MU_B("boss"), &p), 0);
    assert_false(p.admin);
    assert_int_equal(who(&op, &p), MU_E_UNAUTHORIZED);
    mu_identity_set_admin_key(id, "boss");
    assert_int_equal(who(&op, &p), MU_E_UNAUTHORIZED); /* it does not come back */
    assert_true(good(&tenant));
    op = sign_in(w, "boss");
    restart(w, "new-boss");
    assert_int_equal(who(&op, &p), MU_E_UNAUTHORIZED);
    close_id(w);
}

static void a_tenant_that_is_not_listed_any_more_is_signed_out(struct world *w)
{
    char path[64];
    struct mu_tenant_tokens t;
    struct mu_err err;
    struct mu_principal p;
    snprintf(path, sizeof path, "%s.tokens", w->dir.db);
    for (int listed = 1; listed >= 0; listed--) {
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        fprintf(f, "%s\n", mu_sha256_hex(listed ? MU_B("me") : MU_B("you")).text);
        fclose(f);
        if (listed) {
            open_id(w, "boss", path);
        }
    }
    struct mu_login_op op = sign_in(w, "me");
    assert_true(good(&op));
    assert_int_equal(mu_identity_read_tokens(id, &t, &err), 0);
    mu_identity_take(id, &t, "boss");
    assert_int_equal(who(&op, &p), MU_E_UNAUTHORIZED);
    unlink(path);
    close_id(w);
}

static void only_people_sign_in(struct world *w)
{
    static const char *const texts[] = {"sk_nobody", "rt_nobody",  "en_nobody",
                                        "wk_nobody", "adm_nobody", "ms_nobody"};
    open_id(w, "boss", NULL);
    for (size_t i = 0; i < MU_ARRAY_LEN(texts); i++) {
        struct mu_login_op op = {.of = mu_credential_of(mu_str(texts[i]))};
        assert_int_equal(do_login(w, &op), MU_E_UNAUTHORIZED);
    }
    struct mu_login_op first = sign_in(w, "boss"), op = {0};
    op.of = mu_credential_of(mu_bytes_of(first.token, MU_LOGIN_LEN));
    assert_int_equal(do_login(w, &op), MU_E_UNAUTHORIZED);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM credentials WHERE kind = 5"), 1);
    close_id(w);
}

/* --- how many --- */

static void the_oldest_of_twenty_goes(struct world *w)
{
    struct mu_login list[MU_LOGINS_EACH];
    struct mu_login_op ops[MU_LOGINS_EACH + 1];
    struct mu_credential of = mu_credential_of(MU_B("me"));
    open_id(w, "boss", NULL);
    struct mu_login_op other = sign_in(w, "you");
    for (size_t i = 0; i <= MU_LOGINS_EACH; i++) {
        ops[i] = sign_in(w, "me");
        advance(w, 1000);
    }
    assert_false(good(&ops[0]));
    assert_true(good(&ops[1]) && good(&ops[MU_LOGINS_EACH]) && good(&other));
    assert_int_equal(mu_login_list(id, &of, list), MU_LOGINS_EACH);
    for (size_t i = 0; i < MU_LOGINS_EACH; i++) {
        assert_string_equal(list[i].id.text, ops[MU_LOGINS_EACH - i].id.text);
    }
    of = mu_credential_of(mu_bytes_of(ops[1].token, MU_LOGIN_LEN)); /* asked by one of them */
    assert_int_equal(mu_login_list(id, &of, list), MU_LOGINS_EACH);
    of = mu_credential_of(MU_B("you"));
    assert_int_equal(mu_login_list(id, &of, list), 1);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM credentials WHERE kind = 5"), MU_LOGINS_EACH + 1);
    close_id(w);
}

static void a_new_login_of_a_browser_replaces_its_old_one(struct world *w)
{
    open_id(w, "boss", NULL);
    struct mu_login_op a = sign_in(w, "me"), b = sign_in(w, "me");
    struct mu_login_op op = {.of = mu_credential_of(MU_B("you")),
                             .replaces = mu_bytes_of(a.token, MU_LOGIN_LEN)};
    assert_int_equal(do_login(w, &op), 0);
    assert_false(good(&a));
    assert_true(good(&b) && good(&op));
    assert_int_equal(num(w, "SELECT COUNT(*) FROM credentials WHERE kind = 5"), 2);
    close_id(w);
}

/* Rows as a full table has them: the one that nobody used for longest goes, never the
 * administrator's for somebody else. */
static void a_full_table_lets_go_of_the_one_that_is_not_used(struct world *w)
{
    char sql[900];
    open_id(w, "boss", NULL);
    struct mu_login_op boss = sign_in(w, "boss"), first = sign_in(w, "first");
    close_id(w);
    snprintf(sql, sizeof sql,
             "INSERT INTO credentials (id, kind, hash, prefix, name, org_id, created_ms, "
             "expires_ms, last_used_ms, stands_for, stands_kind, user_agent) WITH RECURSIVE n(i) "
             "AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) SELECT "
             "SUBSTR('00000000-0000-7000-8000-000000000000', 1, 36 - LENGTH(CAST(i AS text))) || "
             "CAST(i AS text), 5, 'h' || CAST(i AS text), 'ms_', '', 'o', 1, %lld, %lld, '%064d', "
             "0, '' FROM n",
             MU_LOGINS_MAX - 2, (long long)(now(w) + DAY), (long long)now(w), 7);
    put_sql(w, "%s", sql);
    advance(w, 1000);
    open_id(w, "boss", NULL);
    assert_true(good(&first)); /* it was used later than the others */
    assert_int_equal(id->logins.count, MU_LOGINS_MAX);
    struct mu_login_op fresh = sign_in(w, "fresh");
    assert_int_equal(id->logins.count, MU_LOGINS_MAX);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM credentials WHERE kind = 5"), MU_LOGINS_MAX);
    assert_true(good(&fresh) && good(&boss));
    assert_true(good(&first));
    close_id(w);
}

/* --- what goes wrong --- */

static void a_busy_writer_leaves_nothing_behind(struct world *w)
{
    open_id(w, "boss", NULL);
    struct mu_login_op ops[MU_LOGINS_EACH], op = {.of = mu_credential_of(MU_B("me"))};
    for (size_t i = 0; i < MU_LOGINS_EACH; i++) {
        ops[i] = sign_in(w, "me");
    }
    atomic_store(&writer_busy, true);
    assert_int_equal(do_login(w, &op), MU_E_BUSY);
    struct mu_login_op end = {.of = mu_credential_of(MU_B("me")), .id = ops[3].id};
    assert_int_equal(do_logout(w, &end), MU_E_BUSY);
    atomic_store(&writer_busy, false);
    assert_int_equal(id->logins.count, MU_LOGINS_EACH);
    for (size_t i = 0; i < MU_LOGINS_EACH; i++) {
        assert_true(good(&ops[i]));
    }
    assert_int_equal(do_logout(w, &end), 0);
    assert_false(good(&ops[3]));
    close_id(w);
}

static void a_user_agent_is_cut_and_made_harmless(struct world *w)
{
    static const char text[] = "a\x01\x80\xc3\xa4\x7f\xf0\x9f\x98\x80";
    struct mu_login l[MU_LOGINS_EACH];
    char many[400];
    open_id(w, "boss", NULL);
    struct mu_login_op op = {.of = mu_credential_of(MU_B("me")),
                             .agent = mu_bytes_of(text, sizeof text - 1)};
    assert_int_equal(do_login(w, &op), 0);
    assert_int_equal(mu_login_list(id, &op.of, l), 1);
    assert_string_equal(l[0].agent, "a??\xc3\xa4?\xf0\x9f\x98\x80");
    for (size_t i = 0; i < sizeof many; i += 2) {
        memcpy(many + i, i ? "\xc3\xa4" : "xy", 2);
    }
    struct mu_login_op long_one = {.of = mu_credential_of(MU_B("you")),
                                   .agent = mu_bytes_of(many + 1, sizeof many - 1)};
    assert_int_equal(do_login(w, &long_one), 0);
    assert_int_equal(mu_login_list(id, &long_one.of, l), 1);
    assert_int_equal(strlen(l[0].agent), 199);
    assert_true(mu_utf8_valid(mu_str(l[0].agent)));
    close_id(w);
}

static int every_login(void *arg)
{
    struct world *w = arg;
    struct mu_login list[MU_LOGINS_EACH];
    struct mu_login_op op = {.of = mu_credential_of(MU_B("boss"))};
    char code[MU_LOGIN_CODE_LEN + 1];
    struct mu_credential c;
    if (mu_login_code_make(id, code) == 0) {
        assert_int_equal(mu_login_code_take(id, mu_bytes_of(code, MU_LOGIN_CODE_LEN), &c), 0);
    }
    int r = do_login(w, &op);
    if (r == 0) {
        advance(w, 2 * DAY);
        assert_true(good(&op));
        (void)mu_login_list(id, &op.of, list);
        struct mu_login_op end = {.of = op.of, .id = op.id};
        r = do_logout(w, &end);
    }
    return r;
}

static void logins_survive_any_failing_allocation(struct world *w)
{
    open_id(w, "boss", NULL);
    each_allocation_fails(every_login, w);
    settle_all(w);
    assert_int_equal(id->logins.count, num(w, "SELECT COUNT(*) FROM credentials WHERE kind = 5"));
    close_id(w);
}

/* --- codes --- */

static int64_t driven_mono(const struct mu_env *env)
{
    (void)env;
    return mono_ms * 1000000;
}

static void a_code_signs_in_once_within_its_time(void **state)
{
    (void)state;
    struct mu_env env = mu_env_real;
    struct mu_err err;
    struct mu_credential c;
    struct mu_principal p;
    char code[MU_LOGIN_CODE_LEN + 1], late[MU_LOGIN_CODE_LEN + 1];
    struct mu_identity *x;
    env.mono_ns = driven_mono;
    mono_ms = 1000;
    const struct mu_identity_opts o = {.env = &env, .admin_key = "boss"};
    assert_int_equal(mu_identity_new(&o, NULL, &x, &err), 0);
    assert_int_equal(mu_login_code_make(x, code), 0);
    assert_int_equal(strlen(code), MU_LOGIN_CODE_LEN);
    assert_true(mu_bytes_starts(mu_str(code), MU_B("lk_")));
    assert_int_equal(mu_login_code_take(x, MU_B("lk_00000000000000000000000000000000"), &c),
                     MU_E_UNAUTHORIZED);
    assert_int_equal(mu_login_code_take(x, mu_str(code), &c), 0);
    assert_int_equal(mu_identity_resolve_credential(x, &c, &p), 0);
    assert_true(p.admin);
    assert_int_equal(mu_login_code_take(x, mu_str(code), &c), MU_E_UNAUTHORIZED);
    assert_int_equal(mu_login_code_make(x, code), 0);
    mono_ms += 1;
    assert_int_equal(mu_login_code_make(x, late), 0);
    mono_ms += MU_LOGIN_CODE_MS - 1;
    assert_int_equal(mu_login_code_take(x, mu_str(code), &c), MU_E_UNAUTHORIZED);
    assert_int_equal(mu_login_code_take(x, mu_str(late), &c), 0);
    /* what it stands for is looked at when it is used */
    mu_identity_set_admin_key(x, "other");
    assert_int_equal(mu_identity_resolve_credential(x, &c, &p), MU_E_UNAUTHORIZED);
    for (int i = 0; i < MU_LOGIN_CODES_MAX; i++) {
        assert_int_equal(mu_login_code_make(x, code), 0);
    }
    assert_int_equal(mu_login_code_make(x, code), MU_E_LIMIT);
    assert_int_equal(code[0], 0);
    mono_ms += MU_LOGIN_CODE_MS;
    assert_int_equal(mu_login_code_make(x, code), 0);
    mu_identity_set_admin_key(x, NULL);
    assert_int_equal(mu_login_code_make(x, code), MU_E_FORBIDDEN);
    mu_identity_free(x);
}

#define EACH_TEST(ALL, BOTH, ONE)                                                                  \
    ALL(a_login_is_whoever_signed_in)                                                              \
    ALL(a_login_outlives_a_restart_and_moves_on_once_a_day)                                        \
    ALL(a_login_ends_when_somebody_ends_it)                                                        \
    BOTH(a_revoked_key_ends_its_logins)                                                            \
    BOTH(a_new_admin_key_ends_the_logins_of_the_old_one)                                           \
    BOTH(a_tenant_that_is_not_listed_any_more_is_signed_out)                                       \
    BOTH(only_people_sign_in)                                                                      \
    ALL(the_oldest_of_twenty_goes)                                                                 \
    BOTH(a_new_login_of_a_browser_replaces_its_old_one)                                            \
    BOTH(a_full_table_lets_go_of_the_one_that_is_not_used)                                         \
    BOTH(a_busy_writer_leaves_nothing_behind)                                                      \
    BOTH(a_user_agent_is_cut_and_made_harmless)                                                    \
    ONE(logins_survive_any_failing_allocation)

EACH_TEST(IN_WORLD, IN_WORLD, IN_WORLD)

#define ON_ALL_(test)  ON_ALL(test),
#define ON_BOTH_(test) ON_BOTH(test),
#define ON_ONE_(test)  ON(test, 0),

int main(void)
{
    const struct CMUnitTest tests[] = {EACH_TEST(ON_ALL_, ON_BOTH_, ON_ONE_)
                                           cmocka_unit_test(a_code_signs_in_once_within_its_time)};
    return cmocka_run_group_tests(tests, pg_begin, pg_end);
}
