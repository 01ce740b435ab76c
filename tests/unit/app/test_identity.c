#include "../unit.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#include "../alloc_fail.h"
#include "app/identity/identity.h"

#include "../db/pg_server.h"
#include "../db/tmp_dir.h"

static int64_t mono_now_ns, wall_now_ms = 1000000;
static int64_t fake_mono(const struct mu_env *env)
{
    (void)env;
    return mono_now_ns;
}
static int64_t fake_wall(const struct mu_env *env)
{
    (void)env;
    return wall_now_ms;
}
static void real_random(const struct mu_env *env, void *dst, size_t len)
{
    (void)env;
    mu_env_real.random(&mu_env_real, dst, len);
}
static const struct mu_env env = {fake_wall, fake_mono, real_random, NULL};

static struct mu_identity *make(const struct mu_identity_opts *o)
{
    struct mu_identity_opts opts = *o;
    struct mu_identity *id = NULL;
    struct mu_err err;
    opts.env = &env;
    if (mu_identity_new(&opts, NULL, &id, &err) < 0) {
        fail_msg("%s", err.text);
    }
    return id;
}

static int reload(struct mu_identity *id, const char *admin_key, struct mu_err *err)
{
    struct mu_tenant_tokens t;
    int r = mu_identity_read_tokens(id, &t, err);
    if (r == 0) {
        mu_identity_take(id, &t, admin_key);
    }
    return r;
}

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* --- bare tokens and the admin key --- */

static void a_bare_token_is_the_tenant_of_its_hash(void **state)
{
    (void)state;
    struct mu_identity *id = make(&(struct mu_identity_opts){.admin_key = "boss"});
    struct mu_principal p, again;
    assert_int_equal(mu_identity_resolve(id, MU_B("t"), &p), 0);
    assert_false(p.admin);
    assert_string_equal(p.org_id, "tok_e3b98a4da31a127d4bde6e43033f66ba");
    assert_string_equal(p.uid, "e3b98a4da31a127d4bde6e43033f66ba274cab0eb7eb1c70ec41402bf6273dd8");
    assert_string_equal(p.token_hash, p.uid);
    assert_int_equal(mu_identity_resolve(id, MU_B("t"), &again), 0);
    assert_ptr_equal(p.tenant, again.tenant);
    assert_ptr_equal(p.tenant, mu_identity_tenant(id, mu_str(p.org_id)));
    mu_identity_free(id);
}

static void the_admin_key_is_admin_and_nothing_else_is(void **state)
{
    (void)state;
    struct mu_identity *id = make(&(struct mu_identity_opts){.admin_key = "sk_boss"});
    struct mu_principal p;
    assert_int_equal(mu_identity_resolve(id, MU_B("sk_boss"), &p), 0);
    assert_true(p.admin);
    assert_true(mu_identity_is_admin_org(id, mu_str(p.org_id)));
    assert_false(mu_identity_is_admin_org(id, MU_B("tok_e3b98a4da31a127d4bde6e43033f66ba")));
    assert_int_equal(mu_identity_resolve(id, MU_B("sk_bos"), &p), MU_E_UNAUTHORIZED);
    assert_int_equal(mu_identity_resolve(id, MU_B("boss"), &p), 0);
    assert_false(p.admin);
    mu_identity_set_admin_key(id, "other");
    assert_int_equal(mu_identity_resolve(id, MU_B("sk_boss"), &p), MU_E_UNAUTHORIZED);
    assert_int_equal(mu_identity_resolve(id, MU_B("other"), &p), 0);
    assert_true(p.admin);
    mu_identity_free(id);

    id = make(&(struct mu_identity_opts){0});
    assert_int_equal(mu_identity_resolve(id, MU_B("boss"), &p), 0);
    assert_false(p.admin);
    mu_identity_free(id);
}

static void too_many_tenants_are_refused_but_never_the_admin(void **state)
{
    (void)state;
    struct mu_identity *id =
        make(&(struct mu_identity_opts){.admin_key = "boss", .max_tenants = 2});
    struct mu_principal p;
    assert_int_equal(mu_identity_resolve(id, MU_B("a"), &p), 0);
    assert_int_equal(mu_identity_resolve(id, MU_B("b"), &p), 0);
    assert_int_equal(mu_identity_resolve(id, MU_B("c"), &p), MU_E_LIMIT);
    assert_int_equal(mu_identity_resolve(id, MU_B("a"), &p), 0);
    assert_int_equal(mu_identity_resolve(id, MU_B("boss"), &p), 0);
    assert_non_null(mu_identity_tenant(id, MU_B("tok_recovered")));
    mu_identity_free(id);
}

static void a_tokens_file_says_who_may_come(void **state)
{
    (void)state;
    struct tmp_dir t;
    struct mu_err err;
    struct mu_principal p;
    tmp_make(&t);
    write_file(t.db, "# tenants\n\n"
                     "  E3B98A4DA31A127D4BDE6E43033F66BA274CAB0EB7EB1C70EC41402BF6273DD8 \n");
    struct mu_identity *id =
        make(&(struct mu_identity_opts){.admin_key = "boss", .tenant_tokens_file = t.db});
    assert_int_equal(mu_identity_resolve(id, MU_B("t"), &p), 0);
    assert_int_equal(mu_identity_resolve(id, MU_B("u"), &p), MU_E_UNAUTHORIZED);
    assert_int_equal(mu_identity_resolve(id, MU_B("boss"), &p), 0);

    write_file(t.db, "00\n");
    assert_int_equal(reload(id, "boss", &err), MU_E_INVALID);
    assert_non_null(strstr(err.text, "line 1"));
    assert_int_equal(mu_identity_resolve(id, MU_B("t"), &p), 0); /* the old ones stay */
    write_file(t.db, "");
    assert_int_equal(reload(id, "boss", &err), 0);
    assert_int_equal(mu_identity_resolve(id, MU_B("t"), &p), MU_E_UNAUTHORIZED);
    mu_identity_free(id);

    const struct mu_identity_opts missing = {.env = &env, .tenant_tokens_file = "/nonexistent/x"};
    assert_int_equal(mu_identity_new(&missing, NULL, &id, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nonexistent/x"));
    tmp_drop(&t);
}

static void the_budget_is_a_minute_deep_and_refills(void **state)
{
    (void)state;
    struct mu_identity *id =
        make(&(struct mu_identity_opts){.admin_key = "boss", .requests_per_minute = 60});
    struct mu_principal p, admin;
    int64_t retry_ms = 0;
    mono_now_ns = 5000000000;
    assert_int_equal(mu_identity_resolve(id, MU_B("t"), &p), 0);
    assert_int_equal(mu_identity_resolve(id, MU_B("boss"), &admin), 0);
    for (int i = 0; i < 60; i++) {
        assert_int_equal(mu_identity_charge(id, &p, &retry_ms), 0);
        assert_int_equal(mu_identity_charge(id, &admin, &retry_ms), 0);
        assert_int_equal(mu_identity_charge(id, &admin, &retry_ms), 0);
    }
    assert_int_equal(mu_identity_charge(id, &p, &retry_ms), MU_E_LIMIT);
    assert_int_equal(retry_ms, 1000);
    mono_now_ns += 999000000;
    assert_int_equal(mu_identity_charge(id, &p, &retry_ms), MU_E_LIMIT);
    assert_int_equal(retry_ms, 1);
    mono_now_ns += 1000000;
    assert_int_equal(mu_identity_charge(id, &p, &retry_ms), 0);
    assert_int_equal(mu_identity_charge(id, &p, &retry_ms), MU_E_LIMIT);
    mu_identity_free(id);
}

static void *hammer(void *arg)
{
    struct mu_identity *id = arg;
    struct mu_principal p;
    int64_t retry_ms;
    long granted = 0;
    for (int i = 0; i < 2000; i++) {
        char token[16];
        int n = snprintf(token, sizeof token, "t%d", i % 50);
        if (mu_identity_resolve(id, mu_bytes_of(token, (size_t)n), &p) == 0) {
            granted += mu_identity_charge(id, &p, &retry_ms) == 0;
        }
    }
    return (void *)granted;
}

static void many_loops_share_one_budget(void **state)
{
    (void)state;
    struct mu_identity *id = make(&(struct mu_identity_opts){.requests_per_minute = 10});
    pthread_t threads[4];
    long granted = 0;
    mono_now_ns = 1;
    for (size_t i = 0; i < MU_ARRAY_LEN(threads); i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, hammer, id), 0);
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(threads); i++) {
        void *n;
        pthread_join(threads[i], &n);
        granted += (long)n;
    }
    assert_int_equal(granted, 50 * 10);
    mu_identity_free(id);
}

static int make_and_resolve(void *arg)
{
    const struct mu_identity_opts opts = {
        .env = &env, .admin_key = "boss", .tenant_tokens_file = arg};
    struct mu_identity *id;
    struct mu_principal p;
    struct mu_err err;
    if (mu_identity_new(&opts, NULL, &id, &err) < 0) {
        return 0;
    }
    for (int i = 0; i < 30; i++) {
        char token[16];
        int n = snprintf(token, sizeof token, "boss%d", i);
        int r = mu_identity_resolve(id, mu_bytes_of(token, i ? (size_t)n : 4), &p);
        assert_true(r == 0 || r == -ENOMEM || r == MU_E_UNAUTHORIZED);
    }
    assert_true(reload(id, "boss", &err) <= 0);
    mu_identity_free(id);
    return 0;
}

static void identity_survives_any_failing_allocation(void **state)
{
    (void)state;
    struct tmp_dir t;
    tmp_make(&t);
    write_file(t.db, "e3b98a4da31a127d4bde6e43033f66ba274cab0eb7eb1c70ec41402bf6273dd8\n");
    each_allocation_fails(make_and_resolve, t.db);
    each_allocation_fails(make_and_resolve, NULL);
    tmp_drop(&t);
}

/* --- issued keys, on a database --- */

static struct pg_server server;
static const char *pg_url; /* set: open_world() uses that server instead of a file */

struct world {
    struct tmp_dir dir;
    const char *url;
    struct mu_loop *loop;
    struct mu_writer *writer;
    struct mu_identity *identity;
    struct mu_db *db; /* reads beside the writer */
    int result;
};

static void open_identity(struct world *w)
{
    const struct mu_identity_opts opts = {
        .env = &env, .writer = w->writer, .core = w->loop, .admin_key = "boss"};
    struct mu_err err;
    assert_int_equal(mu_identity_new(&opts, w->db, &w->identity, &err), 0);
}

static void open_world(struct world *w)
{
    struct mu_err err = {0};
    *w = (struct world){0};
    tmp_make(&w->dir);
    w->url = pg_url ? pg_url : w->dir.db;
    assert_int_equal(mu_loop_new(&mu_env_real, "test", &w->loop), 0);
    const struct mu_writer_opts wo = {.db = {.url = w->url, .sync_normal = true},
                                      .env = &mu_env_real};
    /* a PostgreSQL backend gives up its locks a moment after its client is gone */
    int r = mu_writer_new(&wo, &w->writer, &err);
    for (int i = 0; r == MU_E_BUSY && i < 100; i++) {
        usleep(50000);
        r = mu_writer_new(&wo, &w->writer, &err);
    }
    if (r < 0) {
        fail_msg("%s", err.text);
    }
    const struct mu_db_opts ro = {.url = w->url, .reader = true};
    assert_int_equal(mu_db_open(&ro, &w->db, &err), 0);
    open_identity(w);
}

static void close_world(struct world *w)
{
    mu_writer_free(w->writer);
    mu_loop_stop(w->loop);
    mu_loop_run(w->loop);
    mu_identity_free(w->identity);
    mu_db_close(w->db);
    mu_loop_free(w->loop);
    tmp_drop(&w->dir);
}

static void key_done(struct mu_key_op *op, int result)
{
    struct world *w = op->ctx;
    w->result = result;
    mu_loop_stop(w->loop);
}

static int run_key(struct world *w, struct mu_key_op *op,
                   int (*start)(struct mu_identity *id, struct mu_key_op *op))
{
    op->unit.loop = w->loop;
    op->done = key_done;
    op->ctx = w;
    int r = start(w->identity, op);
    if (r < 0) {
        return r;
    }
    mu_loop_run(w->loop);
    return w->result;
}

static struct mu_key_op create(struct world *w, const char *name, const char *tenant,
                               int64_t expires_ms, int expected)
{
    struct mu_key_op op = {
        .name = mu_str(name), .tenant = mu_str(tenant), .expires_ms = expires_ms};
    assert_int_equal(run_key(w, &op, mu_key_create), expected);
    return op;
}

static void an_issued_key_acts_for_its_org(void **state)
{
    (void)state;
    struct world w;
    struct mu_principal p, q;
    open_world(&w);
    struct mu_key_op a = create(&w, "ci", "acme", 0, 0);
    struct mu_key_op b = create(&w, "laptop", "acme", 0, 0);
    struct mu_key_op c = create(&w, "else", "other", 0, 0);
    assert_int_equal(strlen(a.token), 67);
    assert_string_equal(a.org, b.org);
    assert_string_not_equal(a.org, c.org);
    assert_int_equal(mu_identity_resolve(w.identity, mu_str(a.token), &p), 0);
    assert_int_equal(mu_identity_resolve(w.identity, mu_str(b.token), &q), 0);
    assert_false(p.admin);
    assert_string_equal(p.org_id, a.org);
    assert_string_equal(p.uid, a.org);
    assert_string_equal(p.token_hash, "");
    assert_ptr_equal(p.tenant, q.tenant);
    assert_true(p.tenant->stored);
    create(&w, "ci", "other", 0, MU_E_EXISTS);
    close_world(&w);
}

static void a_revoked_or_expired_key_is_never_a_tenant(void **state)
{
    (void)state;
    struct world w;
    struct mu_principal p;
    open_world(&w);
    struct mu_key_op a = create(&w, "a", "acme", 0, 0);
    struct mu_key_op b = create(&w, "b", "acme", wall_now_ms + 1000, 0);
    struct mu_key_op op = {.id = a.id};
    assert_int_equal(run_key(&w, &op, mu_key_revoke), 0);
    assert_int_equal(mu_identity_resolve(w.identity, mu_str(a.token), &p), MU_E_UNAUTHORIZED);
    assert_int_equal(run_key(&w, &op, mu_key_revoke), MU_E_NOT_FOUND);
    assert_int_equal(mu_identity_resolve(w.identity, mu_str(b.token), &p), 0);
    wall_now_ms += 1000;
    assert_int_equal(mu_identity_resolve(w.identity, mu_str(b.token), &p), MU_E_UNAUTHORIZED);
    create(&w, "a", "acme", 0, 0); /* names of dead keys are free */
    create(&w, "b", "acme", 0, 0);
    close_world(&w);
}

static void keys_come_back_after_a_restart_and_are_listed(void **state)
{
    (void)state;
    struct world w;
    struct mu_principal p;
    struct mu_arena arena;
    struct mu_key *keys;
    size_t n;
    open_world(&w);
    struct mu_key_op a = create(&w, "a", "acme", 0, 0);
    wall_now_ms += 10;
    struct mu_key_op b = create(&w, "b", "acme", 0, 0);
    struct mu_key_op op = {.id = b.id};
    assert_int_equal(run_key(&w, &op, mu_key_revoke), 0);
    mu_identity_free(w.identity);
    open_identity(&w);
    assert_int_equal(mu_identity_resolve(w.identity, mu_str(a.token), &p), 0);
    assert_string_equal(p.org_id, a.org);
    assert_int_equal(mu_identity_resolve(w.identity, mu_str(b.token), &p), MU_E_UNAUTHORIZED);

    struct mu_writer *writer = w.writer; /* its end commits the time of use */
    w.writer = NULL;
    mu_writer_free(writer);
    mu_arena_init(&arena, 1 << 20);
    assert_int_equal(mu_key_list(w.db, &arena, &keys, &n), 0);
    assert_int_equal(n, 2);
    assert_true(mu_bytes_is(keys[0].name, "b") && mu_bytes_is(keys[1].name, "a"));
    assert_true(mu_bytes_is(keys[1].tenant, "acme"));
    assert_int_equal(keys[1].prefix.len, 9);
    assert_true(mu_bytes_starts(mu_str(a.token), keys[1].prefix));
    assert_int_equal(keys[0].revoked_ms, wall_now_ms);
    assert_int_equal(keys[1].revoked_ms, 0);
    assert_int_equal(keys[1].last_used_ms, wall_now_ms);
    mu_arena_fini(&arena);
    close_world(&w);
}

/* --- the row of a bare token --- */

struct store {
    struct mu_unit unit;
    struct world *w;
    const struct mu_principal *p;
};

static int store_run(struct mu_unit *u, struct mu_tx *tx)
{
    return mu_identity_store_org(tx, MU_CONTAINER(u, struct store, unit)->p, 77);
}

static void store_done(struct mu_unit *u, int result)
{
    struct store *s = MU_CONTAINER(u, struct store, unit);
    s->w->result = result;
    mu_loop_stop(s->w->loop);
}

static int org_row(void *arg, struct mu_row *row)
{
    assert_int_equal(mu_row_i64(row, 0), 2);
    assert_string_equal(arg, mu_row_bytes(row, 1).ptr);
    return 0;
}

static void a_tenant_is_stored_once_however_often_it_writes(void **state)
{
    (void)state;
    static const struct mu_stmt select = {"t", "t",
                                          "SELECT kind, token_hash FROM orgs WHERE id = $1", NULL};
    struct world w;
    struct mu_principal p;
    open_world(&w);
    assert_int_equal(mu_identity_resolve(w.identity, MU_B("t"), &p), 0);
    for (int i = 0; i < 3; i++) {
        struct store s = {
            .unit = {.run = store_run, .done = store_done, .loop = w.loop}, .w = &w, .p = &p};
        assert_int_equal(mu_writer_submit(w.writer, &s.unit), 0);
        mu_loop_run(w.loop);
        assert_true(w.result >= 0);
        if (i == 1) {
            mu_identity_org_stored(&p);
        }
    }
    const struct mu_val arg = MU_VT(mu_str(p.org_id));
    assert_int_equal(mu_db_run(w.db, &select, &arg, 1, org_row, p.token_hash), 1);
    close_world(&w);
}

static void the_same_holds_on_postgresql(void **state)
{
    if (!pg_start(&server)) {
        skip();
    }
    pg_url = server.url;
    keys_come_back_after_a_restart_and_are_listed(state);
    a_tenant_is_stored_once_however_often_it_writes(state);
    pg_url = NULL;
    pg_stop(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bare_token_is_the_tenant_of_its_hash),
        cmocka_unit_test(the_admin_key_is_admin_and_nothing_else_is),
        cmocka_unit_test(too_many_tenants_are_refused_but_never_the_admin),
        cmocka_unit_test(a_tokens_file_says_who_may_come),
        cmocka_unit_test(the_budget_is_a_minute_deep_and_refills),
        cmocka_unit_test(many_loops_share_one_budget),
        cmocka_unit_test(identity_survives_any_failing_allocation),
        cmocka_unit_test(an_issued_key_acts_for_its_org),
        cmocka_unit_test(a_revoked_or_expired_key_is_never_a_tenant),
        cmocka_unit_test(keys_come_back_after_a_restart_and_are_listed),
        cmocka_unit_test(a_tenant_is_stored_once_however_often_it_writes),
        cmocka_unit_test(the_same_holds_on_postgresql),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
