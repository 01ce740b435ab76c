#include "../unit.h"

#include <errno.h>

#include "../alloc_fail.h"
#include "base/option.h"

struct conf {
    const char *text, *secret, *word;
    bool flag;
    int64_t count, any;
    double real;
};

#define AT(field) offsetof(struct conf, field)
static const struct mu_option table[] = {
    {.name = "X_TEXT", .type = MU_OPT_TEXT, .offset = AT(text), .fallback = "dflt", .unit = ""},
    {.name = "X_SECRET", .type = MU_OPT_SECRET, .offset = AT(secret), .unit = ""},
    {.name = "X_WORD",
     .alias = "OLD_WORD  OLDER_WORD",
     .type = MU_OPT_ENUM,
     .offset = AT(word),
     .fallback = "info",
     .words = "debug info warn",
     .unit = ""},
    {.name = "X_FLAG", .type = MU_OPT_FLAG, .offset = AT(flag), .fallback = "on", .unit = ""},
    {.name = "X_COUNT",
     .type = MU_OPT_INT,
     .offset = AT(count),
     .fallback = "250",
     .min = 1,
     .max = 1000,
     .unit = "ms"},
    {.name = "X_ANY", .type = MU_OPT_INT, .offset = AT(any), .unit = ""},
    {.name = "X_REAL",
     .type = MU_OPT_REAL,
     .offset = AT(real),
     .fallback = "0.2",
     .min = 0,
     .max = 2,
     .unit = ""},
};
enum { N = MU_ARRAY_LEN(table) };

static const struct mu_option *row(const char *name)
{
    const struct mu_option *o = mu_option_find(table, N, mu_str(name));
    assert_non_null(o);
    return o;
}

static void show(const char *name, const struct conf *c, const char *want)
{
    struct mu_buf b;
    mu_buf_init(&b, 1000);
    mu_option_show(row(name), c, &b);
    if (!mu_bytes_is(mu_buf_bytes(&b), want)) {
        fail_msg("%s: %.*s", name, MU_ARGS(mu_buf_bytes(&b)));
    }
    mu_buf_fini(&b);
}

static void defaults_fill_every_field(void **state MU_UNUSED)
{
    struct mu_arena a;
    struct conf c;
    struct mu_err err;
    memset(&c, 0x55, sizeof c);
    mu_arena_init(&a, 4096);
    assert_int_equal(mu_option_defaults(table, N, &c, &a, &err), 0);
    assert_string_equal(c.text, "dflt");
    assert_null(c.secret);
    assert_string_equal(c.word, "info");
    assert_true(c.flag);
    assert_int_equal(c.count, 250);
    assert_int_equal(c.any, 0);
    show("X_TEXT", &c, "dflt");
    show("X_SECRET", &c, "unset");
    show("X_FLAG", &c, "on");
    show("X_COUNT", &c, "250");
    show("X_REAL", &c, "0.2");
    mu_arena_fini(&a);
}

static void rows_are_found_by_name_and_alias(void **state MU_UNUSED)
{
    assert_ptr_equal(row("X_TEXT"), &table[0]);
    assert_ptr_equal(row("OLD_WORD"), &table[2]);
    assert_ptr_equal(row("OLDER_WORD"), &table[2]);
    assert_null(mu_option_find(table, N, MU_B("OLD")));
    assert_null(mu_option_find(table, N, MU_B("")));
    assert_null(mu_option_find(table, N, MU_B("x_text")));
}

static void values_are_parsed_or_refused_with_the_name(void **state MU_UNUSED)
{
    static const struct {
        const char *name, *value, *shown; /* shown NULL: refused */
    } rows[] = {
        {"X_TEXT", "some text", "some text"},
        {"X_TEXT", "", ""},
        {"X_SECRET", "hidden", "set"},
        {"X_SECRET", "", "unset"},
        {"X_WORD", "WARN", "warn"},
        {"X_WORD", "war", NULL},
        {"X_WORD", "", NULL},
        {"X_WORD", "debug info", NULL},
        {"X_FLAG", "TRUE", "on"},
        {"X_FLAG", "1", "on"},
        {"X_FLAG", "Yes", "on"},
        {"X_FLAG", "off", "off"},
        {"X_FLAG", "0", "off"},
        {"X_FLAG", "No", "off"},
        {"X_FLAG", "False", "off"},
        {"X_FLAG", "2", NULL},
        {"X_FLAG", "", NULL},
        {"X_COUNT", "1", "1"},
        {"X_COUNT", " 1000 ", "1000"},
        {"X_COUNT", "0", NULL},
        {"X_COUNT", "1001", NULL},
        {"X_COUNT", "1.5", NULL},
        {"X_COUNT", "10ms", NULL},
        {"X_COUNT", "", NULL},
        {"X_ANY", "-9223372036854775808", "-9223372036854775808"},
        {"X_REAL", "1e0", "1"},
        {"X_REAL", "0.1234567890123", "0.1234567890123"},
        {"X_REAL", "2.1", NULL},
        {"X_REAL", "-0.1", NULL},
        {"X_REAL", "nan", NULL},
        {"X_REAL", "0x1", NULL},
        {"X_REAL", "1e", NULL},
        {"X_REAL", "", NULL},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        struct mu_arena a;
        struct conf c;
        struct mu_err err = {0};
        mu_arena_init(&a, 4096);
        assert_int_equal(mu_option_defaults(table, N, &c, &a, &err), 0);
        struct conf before = c;
        int r = mu_option_set(row(rows[i].name), mu_str(rows[i].value), &c, &a, &err);
        if (r != (rows[i].shown ? 0 : MU_E_INVALID)) {
            fail_msg("%s=%s: %d", rows[i].name, rows[i].value, r);
        }
        if (rows[i].shown) {
            show(rows[i].name, &c, rows[i].shown);
        } else {
            assert_memory_equal(&c, &before, sizeof c);
            assert_true(mu_bytes_starts(mu_str(err.text), mu_str(rows[i].name)));
        }
        mu_arena_fini(&a);
    }
}

static void complaints_say_what_would_be_accepted(void **state MU_UNUSED)
{
    struct mu_arena a;
    struct conf c;
    struct mu_err err;
    mu_arena_init(&a, 4096);
    assert_int_equal(mu_option_set(row("X_COUNT"), MU_B("x"), &c, &a, &err), MU_E_INVALID);
    assert_string_equal(err.text, "X_COUNT: \"x\" is not a whole number in ms from 1 to 1000");
    assert_int_equal(mu_option_set(row("X_WORD"), MU_B("loud\n"), &c, &a, &err), MU_E_INVALID);
    assert_string_equal(err.text, "X_WORD: \"loud\" is not one of: debug info warn");
    assert_int_equal(mu_option_set(row("X_FLAG"), MU_B("a\nb"), &c, &a, &err), MU_E_INVALID);
    assert_non_null(strstr(err.text, "\"a?b\""));
    assert_int_equal(mu_option_set(row("X_SECRET"), mu_bytes_of("pw\0x", 4), &c, &a, &err),
                     MU_E_INVALID);
    assert_null(strstr(err.text, "pw"));
    mu_arena_fini(&a);
}

static int set_all(void *arg MU_UNUSED)
{
    struct mu_arena a;
    struct conf c;
    struct mu_err err;
    mu_arena_init(&a, 4096);
    int r = mu_option_defaults(table, N, &c, &a, &err);
    assert_true(r == 0 || (r == -ENOMEM && err.code == -ENOMEM));
    mu_arena_fini(&a);
    return r;
}

static void every_failing_allocation_is_survived(void **state MU_UNUSED)
{
    each_allocation_fails(set_all, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_fill_every_field),
        cmocka_unit_test(rows_are_found_by_name_and_alias),
        cmocka_unit_test(values_are_parsed_or_refused_with_the_name),
        cmocka_unit_test(complaints_say_what_would_be_accepted),
        cmocka_unit_test(every_failing_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
