#include "../unit.h"

#include "main/screen.h"

static void assert_reset(const struct mu_screen *s, const char *want)
{
    char dst[MU_SCREEN_RESET];
    size_t n = mu_screen_reset(s, dst);
    assert_true(mu_bytes_eq(mu_bytes_of(dst, n), mu_str(want)));
}

static void what_was_switched_on_is_switched_off(void **state)
{
    struct mu_screen s = {.at = 0};
    (void)state;
    mu_screen_feed(&s, MU_B("a\033[?1049h\033[?25lb\033[?2004;1000h\033=c"));
    assert_true(mu_screen_alternate(&s));
    assert_reset(&s, "\033[0m\033>\033[?25h\033[?1000l\033[?1049l\033[?2004l");
    mu_screen_feed(&s, MU_B("\033[?1049l\033[?25h\033[?2004;1000l\033>"));
    assert_false(mu_screen_alternate(&s));
    assert_reset(&s, "\033[0m");
}

static void bytes_cut_anywhere_give_the_same(void **state)
{
    const mu_bytes text =
        MU_B("x\033[?47;1006hy\033]0;a [?1049h title\007\033[31m\033Pq\033\\z\033[?25l");
    (void)state;
    for (size_t cut = 0; cut <= text.len; cut++) {
        struct mu_screen s = {.at = 0};
        mu_screen_feed(&s, mu_bytes_head(text, cut));
        mu_screen_feed(&s, mu_bytes_from(text, cut));
        assert_true(mu_screen_whole(&s));
        assert_reset(&s, "\033[0m\033[?25h\033[?47l\033[?1006l");
    }
}

static void a_line_of_ours_waits_for_the_end_of_a_sequence(void **state)
{
    static const char *const open[] = {"\033",   "\033[", "\033[?10",  "\033]0;title",
                                       "\033P1", "\033(", "\033]x\033"};
    (void)state;
    for (size_t i = 0; i < MU_ARRAY_LEN(open); i++) {
        struct mu_screen s = {.at = 0};
        mu_screen_feed(&s, mu_str(open[i]));
        assert_false(mu_screen_whole(&s));
        assert_reset(&s, "\030\033[0m");
        mu_screen_feed(&s, MU_B("\030"));
        assert_true(mu_screen_whole(&s));
    }
}

static void a_full_reset_and_endless_numbers_do_no_harm(void **state)
{
    struct mu_screen s = {.at = 0};
    char many[300];
    (void)state;
    mu_screen_feed(&s, MU_B("\033[?1049h\033c"));
    assert_reset(&s, "\033[0m");
    memset(many, '1', sizeof many);
    mu_screen_feed(&s, MU_B("\033[?"));
    mu_screen_feed(&s, mu_bytes_of(many, sizeof many));
    mu_screen_feed(&s, MU_B("h\033[?99999999999999999999h\033[?;;h"));
    assert_true(mu_screen_whole(&s));
    assert_reset(&s, "\033[0m");
}

static void every_mode_at_once_fits(void **state)
{
    struct mu_screen s = {.at = 0};
    char dst[MU_SCREEN_RESET];
    (void)state;
    mu_screen_feed(&s,
                   MU_B("\033=\033[?1;47;1000;1002;1003;1004h\033[?1005;1006;1015;1047;1049;2004h"
                        "\033[?7;25l\033["));
    size_t n = mu_screen_reset(&s, dst);
    assert_true(n < MU_SCREEN_RESET - 1);
    assert_memory_equal(dst + n - 8, "\033[?2004l", 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_switched_on_is_switched_off),
        cmocka_unit_test(bytes_cut_anywhere_give_the_same),
        cmocka_unit_test(a_line_of_ours_waits_for_the_end_of_a_sequence),
        cmocka_unit_test(a_full_reset_and_endless_numbers_do_no_harm),
        cmocka_unit_test(every_mode_at_once_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
