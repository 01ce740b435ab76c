#include "../unit.h"

#include "main/attach_keys.h"

static void keys_have_names(void **state)
{
    static const struct {
        const char *text;
        int key;
    } good[] = {{"ctrl-]", 29}, {"Ctrl-A", 1}, {"^b", 2}, {"^\\", 28}, {"ctrl-@", 0}, {"NONE", -1}};
    static const char *const bad[] = {"",       "ctrl-",  "a",      "ctrl-ab", "^",     "^^^",
                                      "ctrl-m", "ctrl-J", "ctrl-1", "F1",      "^\xc3", "ctrl-~"};
    int key;
    (void)state;
    for (size_t i = 0; i < MU_ARRAY_LEN(good); i++) {
        assert_int_equal(mu_keys_parse(mu_str(good[i].text), &key), 0);
        assert_int_equal(key, good[i].key);
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        assert_int_equal(mu_keys_parse(mu_str(bad[i]), &key), MU_E_INVALID);
    }
}

static enum mu_key next(struct mu_keys *k, mu_bytes *typed, bool waiting, const char *text)
{
    mu_bytes got;
    enum mu_key key = mu_keys_next(k, typed, waiting, &got);
    assert_true(mu_bytes_is(got, text));
    return key;
}

static void while_nothing_waits_the_key_detaches(void **state)
{
    struct mu_keys k = {.key = 29};
    mu_bytes typed = MU_B("ab\035cd");
    (void)state;
    assert_int_equal(next(&k, &typed, false, "ab"), MU_KEY_DETACH);
    assert_int_equal(next(&k, &typed, false, "cd"), MU_KEY_NONE);
    assert_int_equal(typed.len, 0);
}

static void while_something_waits_the_next_key_decides(void **state)
{
    struct mu_keys k = {.key = 29};
    mu_bytes typed = MU_B("x\035a\035D\035zy\035");
    (void)state;
    assert_int_equal(next(&k, &typed, true, "x"), MU_KEY_PREFIX);
    assert_int_equal(next(&k, &typed, true, ""), MU_KEY_ALLOW);
    assert_int_equal(next(&k, &typed, true, ""), MU_KEY_PREFIX);
    assert_int_equal(next(&k, &typed, true, ""), MU_KEY_DENY);
    assert_int_equal(next(&k, &typed, true, ""), MU_KEY_PREFIX);
    assert_int_equal(next(&k, &typed, true, ""), MU_KEY_OTHER);
    assert_int_equal(next(&k, &typed, true, "y"), MU_KEY_PREFIX);
    assert_int_equal(typed.len, 0);
    typed = MU_B("a"); /* decided elsewhere meanwhile: still no text */
    assert_int_equal(next(&k, &typed, false, ""), MU_KEY_ALLOW);
    typed = MU_B("\035\035");
    assert_int_equal(next(&k, &typed, true, ""), MU_KEY_PREFIX);
    assert_int_equal(next(&k, &typed, true, ""), MU_KEY_DETACH);
}

static void without_a_key_all_is_text(void **state)
{
    struct mu_keys k = {.key = -1};
    mu_bytes typed = MU_B("a\035\001\377");
    (void)state;
    assert_int_equal(next(&k, &typed, true, "a\035\001\377"), MU_KEY_NONE);
}

static void half_a_character_waits_for_its_rest(void **state)
{
    static const struct {
        const char *text;
        size_t whole;
    } rows[] = {
        {"", 0},
        {"a", 1},
        {"\xc3", 0},
        {"a\xc3", 1},
        {"\xc3\xa9", 2},
        {"a\xe2\x82", 1},
        {"\xe2\x82\xac", 3},
        {"\xf0\x9f\x98", 0},
        {"x\xf0\x9f\x98\x80", 5},
        {"\x80\x80\x80\x80", 4}, /* none at all: as it is */
    };
    (void)state;
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        assert_int_equal(mu_keys_whole(mu_str(rows[i].text)), rows[i].whole);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_have_names),
        cmocka_unit_test(while_nothing_waits_the_key_detaches),
        cmocka_unit_test(while_something_waits_the_next_key_decides),
        cmocka_unit_test(without_a_key_all_is_text),
        cmocka_unit_test(half_a_character_waits_for_its_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
