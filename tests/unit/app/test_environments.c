/* Environments on real databases: variables are sealed, and everybody sees only what is theirs. */
#include "app/environments/environments.h"

#include "app_world.h"

static struct mu_vault *vault;
static struct mu_environments *envs;
static struct mu_arena arena;

OPERATION(mu_env_write, do_make, mu_environment_create, envs, unit)
OPERATION(mu_env_write, do_replace, mu_environment_replace, envs, unit)
OPERATION(mu_env_write, do_remove, mu_environment_delete, envs, unit)
OPERATION(mu_env_read, do_read, mu_environment_read, envs, read)

static void open_envs(struct world *w)
{
    static const char root[32] = "a root key of thirty-two bytes.";
    assert_int_equal(mu_vault_new(&w->env, mu_bytes_of(root, 32), MU_B_NONE, &vault), 0);
    const struct mu_environments_opts o = {
        .env = &w->env, .writer = w->writer, .readers = w->readers, .vault = vault};
    assert_int_equal(mu_environments_new(&o, &envs), 0);
    mu_arena_init(&arena, 16 << 20);
}

static void close_envs(void)
{
    envs = mu_environments_free(envs);
    vault = mu_vault_free(vault);
    mu_arena_fini(&arena);
}

static struct mu_env_write an_env(const struct mu_principal *who, const char *name,
                                  const struct mu_env_var *vars, size_t n)
{
    return (struct mu_env_write){.who = who,
                                 .name = mu_str(name),
                                 .image = MU_B("debian:12"),
                                 .spec = MU_B("{\"repos\":[]}"),
                                 .vars = vars,
                                 .n_vars = n,
                                 .arena = &arena};
}

static struct {
    int calls;
    char text[4096];
    int64_t version;
    bool shown;
} view;

static int see_env(void *arg, const struct mu_env_view *v)
{
    size_t n = strlen(view.text);
    view.calls++;
    view.version = v->version;
    view.shown = v->values_shown;
    n += (size_t)snprintf(view.text + n, sizeof view.text - n, "%.*s[", MU_ARGS(v->name));
    for (size_t i = 0; i < v->n_vars; i++) {
        n += (size_t)snprintf(view.text + n, sizeof view.text - n, "%s%.*s=%.*s", i ? " " : "",
                              MU_ARGS(v->vars[i].name), MU_ARGS(v->vars[i].value));
    }
    snprintf(view.text + n, sizeof view.text - n, "]");
    return 0;
}

static int read_one(struct world *w, const struct mu_principal *who, const struct mu_id *id)
{
    struct mu_env_read op = {
        .admin = who->admin, .org_id = mu_str(who->org_id), .id = *id, .each = see_env};
    memset(&view, 0, sizeof view);
    return do_read(w, &op);
}

static struct mu_env_read list_of(struct world *w, const struct mu_principal *who, unsigned limit,
                                  const char *cursor)
{
    struct mu_env_read op = {.admin = who->admin,
                             .org_id = mu_str(who->org_id),
                             .list = true,
                             .limit = limit,
                             .each = see_env};
    snprintf(op.cursor.text, sizeof op.cursor.text, "%s", cursor ? cursor : "");
    memset(&view, 0, sizeof view);
    assert_int_equal(do_read(w, &op), 0);
    return op;
}

static void values_are_sealed_and_shown_to_the_owner_only(struct world *w)
{
    open_envs(w);
    const struct mu_env_var vars[] = {{.name = MU_B("B"), .value = MU_B("plain-value-b")},
                                      {.name = MU_B("A"), .value = MU_B("")}};
    struct mu_env_write op = an_env(&w->alice, "dev", vars, 2);
    assert_int_equal(do_make(w, &op), 0);
    assert_int_equal(op.created_ms, now(w));
    assert_false(op.is_global);
    assert_int_equal(read_one(w, &w->alice, &op.id), 0);
    assert_string_equal(view.text, "dev[A= B=plain-value-b]");
    assert_true(view.shown);
    assert_int_equal(read_one(w, &w->admin, &op.id), 0);
    assert_string_equal(view.text, "dev[A= B=]");
    assert_false(view.shown);
    assert_int_equal(read_one(w, &w->bob, &op.id), MU_E_NOT_FOUND);
    assert_int_equal(view.calls, 0);
    (void)list_of(w, &w->alice, 10, NULL);
    assert_string_equal(view.text, "dev[A= B=]");
    assert_int_equal(num(w, "SELECT COUNT(*) FROM secrets WHERE value LIKE '%%plain-value%%'"), 0);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM secrets WHERE value LIKE 'v1:%%'"), 2);
    close_envs();
}

static void replacing_keeps_changes_and_drops_variables(struct world *w)
{
    open_envs(w);
    const struct mu_env_var vars[] = {{.name = MU_B("KEEP"), .value = MU_B("1")},
                                      {.name = MU_B("SET"), .value = MU_B("2")},
                                      {.name = MU_B("DROP"), .value = MU_B("3")}};
    struct mu_env_write op = an_env(&w->alice, "dev", vars, 3);
    assert_int_equal(do_make(w, &op), 0);
    const struct mu_id id = op.id;
    advance(w, 100);
    const struct mu_env_var next[] = {{.name = MU_B("KEEP"), .keep = true},
                                      {.name = MU_B("SET"), .value = MU_B("two")},
                                      {.name = MU_B("NEW"), .value = MU_B("4")}};
    op = an_env(&w->alice, "dev2", next, 3);
    op.id = id;
    assert_int_equal(do_replace(w, &op), 0);
    assert_int_equal(op.created_ms, now(w) - 100);
    assert_int_equal(op.updated_ms, now(w));
    assert_int_equal(read_one(w, &w->alice, &id), 0);
    assert_string_equal(view.text, "dev2[KEEP=1 NEW=4 SET=two]");
    assert_int_equal(view.version, 2);

    /* A value that should stay and is not there: named, and nothing changed. */
    const struct mu_env_var bad[] = {{.name = MU_B("SET"), .value = MU_B("three")},
                                     {.name = MU_B("DROP"), .keep = true}};
    op = an_env(&w->alice, "dev3", bad, 2);
    op.id = id;
    assert_int_equal(do_replace(w, &op), MU_E_INVALID);
    assert_true(mu_bytes_is(op.missing, "DROP"));
    assert_int_equal(read_one(w, &w->alice, &id), 0);
    assert_string_equal(view.text, "dev2[KEEP=1 NEW=4 SET=two]");
    assert_int_equal(view.version, 2);
    close_envs();
}

static void a_foreign_environment_is_an_unknown_one(struct world *w)
{
    open_envs(w);
    const struct mu_env_var vars[] = {{.name = MU_B("A"), .value = MU_B("1")}};
    struct mu_env_write own = an_env(&w->alice, "own", vars, 1), op;
    assert_int_equal(do_make(w, &own), 0);
    struct mu_env_write global = an_env(&w->admin, "global", NULL, 0);
    global.global = true;
    assert_int_equal(do_make(w, &global), 0);
    const struct mu_id ids[] = {own.id, global.id, mu_id_new(&w->env, NULL)};
    for (size_t i = 0; i < MU_ARRAY_LEN(ids); i++) {
        op = an_env(&w->bob, "mine now", vars, 1);
        op.id = ids[i];
        assert_int_equal(do_replace(w, &op), MU_E_NOT_FOUND);
        assert_int_equal(do_remove(w, &op), MU_E_NOT_FOUND);
    }
    assert_int_equal(read_one(w, &w->bob, &global.id), 0);
    op = an_env(&w->admin, "global", vars, 1);
    op.id = global.id;
    assert_int_equal(do_replace(w, &op), MU_E_CONFLICT);
    op = an_env(&w->admin, "renamed", vars, 1); /* the administrator may, for its owner */
    op.id = own.id;
    assert_int_equal(do_replace(w, &op), 0);
    assert_int_equal(read_one(w, &w->alice, &own.id), 0);
    assert_string_equal(view.text, "renamed[A=1]");
    close_envs();
}

static void a_deleted_environment_and_its_secrets_are_gone(struct world *w)
{
    open_envs(w);
    const struct mu_env_var vars[] = {{.name = MU_B("A"), .value = MU_B("1")}};
    struct mu_env_write op = an_env(&w->alice, "dev", vars, 1);
    assert_int_equal(do_make(w, &op), 0);
    assert_int_equal(do_remove(w, &op), 0);
    assert_int_equal(do_remove(w, &op), MU_E_NOT_FOUND);
    assert_int_equal(read_one(w, &w->alice, &op.id), MU_E_NOT_FOUND);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM secrets"), 0);
    assert_int_equal(list_of(w, &w->alice, 10, NULL).count, 0);
    close_envs();
}

static void pages_show_everything_once_latest_change_first(struct world *w)
{
    enum { MANY = 23 };
    struct mu_id ids[MANY];
    char want[4096] = "", got[8192] = "", last[40];
    open_envs(w);
    for (int i = 0; i < MANY; i++) {
        char name[16];
        snprintf(name, sizeof name, "e%d", i);
        struct mu_env_write op = an_env(i % 3 ? &w->alice : &w->bob, name, NULL, 0);
        advance(w, i % 2); /* equal times, too */
        assert_int_equal(do_make(w, &op), 0);
        ids[i] = op.id;
    }
    for (int i = MANY - 1; i >= 0; i--) {
        if (i % 3) {
            size_t n = strlen(want);
            snprintf(want + n, sizeof want - n, "e%d[]", i);
        }
    }
    for (unsigned limit = 1; limit <= 16; limit += 5) {
        got[0] = last[0] = 0;
        for (bool more = true; more;) {
            struct mu_env_read page = list_of(w, &w->alice, limit, last);
            assert_true(page.count <= limit);
            strncat(got, view.text, sizeof got - strlen(got) - 1);
            more = page.more;
            snprintf(last, sizeof last, "%s", page.next);
        }
        assert_string_equal(got, want);
    }
    /* The cursor of one that was deleted meanwhile keeps its place; a foreign one tells nothing. */
    struct mu_env_read before = list_of(w, &w->alice, 5, ids[10].text);
    char text[4096];
    memcpy(text, view.text, sizeof text);
    advance(w, 5000);
    struct mu_env_write del = an_env(&w->alice, "", NULL, 0);
    del.id = ids[10];
    assert_int_equal(do_remove(w, &del), 0);
    struct mu_env_read after = list_of(w, &w->alice, 5, ids[10].text);
    assert_int_equal(after.count, before.count);
    assert_string_equal(view.text, text);
    close_envs();
}

static void a_snapshot_names_variables_without_values(struct world *w)
{
    open_envs(w);
    const struct mu_env_var vars[] = {{.name = MU_B("A"), .value = MU_B("hidden")}};
    const struct mu_env_view v = {.id = MU_B("id"),
                                  .name = MU_B("n\"x"),
                                  .image = MU_B("i"),
                                  .spec = MU_B("{\"repos\":[]}"),
                                  .version = 3,
                                  .vars = vars,
                                  .n_vars = 1};
    struct mu_buf b;
    mu_buf_init(&b, 4096);
    assert_int_equal(mu_environment_snapshot(&b, &v), 0);
    assert_true(mu_bytes_is(mu_buf_bytes(&b),
                            "{\"environment_id\":\"id\",\"version\":3,\"name\":\"n\\\"x\","
                            "\"docker_image\":\"i\",\"spec\":{\"repos\":[]},\"env_var_names\":["
                            "\"A\"]}"));
    mu_buf_fini(&b);
    mu_buf_init(&b, 10);
    assert_true(mu_environment_snapshot(&b, &v) < 0);
    mu_buf_fini(&b);
    struct mu_env_write op = an_env(&w->alice, "dev", NULL, 0);
    op.n_vars = MU_ENV_VARS_MAX + 1;
    assert_int_equal(do_make(w, &op), MU_E_TOO_LARGE);
    op.n_vars = 0;
    assert_int_equal(do_make(w, &op), 0);
    close_envs();
}

static void no_allocation_failure_breaks_anything(struct world *w)
{
    open_envs(w);
    const struct mu_env_var vars[] = {{.name = MU_B("A"), .value = MU_B("1")}};
    struct mu_env_write warm = an_env(&w->alice, "warm", vars, 1);
    assert_int_equal(do_make(w, &warm), 0);
    assert_int_equal(do_replace(w, &warm), 0);
    assert_int_equal(read_one(w, &w->alice, &warm.id), 0);
    for (long n = 1;; n++) {
        struct mu_env_write op = an_env(&w->alice, "dev", vars, 1);
        mu_alloc_fail_at(n);
        int r = do_make(w, &op);
        int64_t made = r == 0;
        if (r == 0) {
            r = do_replace(w, &op);
            int got = read_one(w, &w->alice, &op.id);
            assert_true(got < 0 || strcmp(view.text, "dev[A=1]") == 0);
            r = r < 0 ? r : got;
        }
        long allocations = mu_alloc_fail_at(0);
        assert_int_equal(num(w, "SELECT COUNT(*) FROM environments WHERE id = '%s'", op.id.text),
                         made);
        assert_int_equal(num(w, "SELECT COUNT(*) FROM secrets WHERE scope_id = '%s'", op.id.text),
                         made);
        if (allocations < n) {
            assert_int_equal(r, 0);
            assert_true(n > 3);
            break;
        }
    }
    close_envs();
}

IN_WORLD(values_are_sealed_and_shown_to_the_owner_only)
IN_WORLD(replacing_keeps_changes_and_drops_variables)
IN_WORLD(a_foreign_environment_is_an_unknown_one)
IN_WORLD(a_deleted_environment_and_its_secrets_are_gone)
IN_WORLD(pages_show_everything_once_latest_change_first)
IN_WORLD(a_snapshot_names_variables_without_values)
IN_WORLD(no_allocation_failure_breaks_anything)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_ALL(values_are_sealed_and_shown_to_the_owner_only),
        ON_ALL(replacing_keeps_changes_and_drops_variables),
        ON_ALL(a_foreign_environment_is_an_unknown_one),
        ON_ALL(a_deleted_environment_and_its_secrets_are_gone),
        ON_ALL(pages_show_everything_once_latest_change_first),
        ON_ALL(a_snapshot_names_variables_without_values),
        ON_BOTH(no_allocation_failure_breaks_anything),
    };
    return cmocka_run_group_tests(tests, pg_begin, pg_end);
}
