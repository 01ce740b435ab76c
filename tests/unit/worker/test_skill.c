/* Front matter and text of a SKILL.md, as people and as others write them. */
#include "../unit.h"

#include <stdio.h>

#include "../alloc_fail.h"
#include "base/err.h"
#include "worker/skill.h"

static struct mu_arena arena;
static struct mu_skill_text got;

static int read_at(const char *path, const char *text)
{
    mu_arena_fini(&arena);
    mu_arena_init(&arena, 1 << 20);
    return mu_skill_read(&arena, mu_str(path), mu_str(text), &got);
}

static void is(const char *text, const char *name, const char *description, const char *prompt)
{
    assert_int_equal(read_at(".agents/skills/folder/SKILL.md", text), 0);
    const char *const wanted[] = {name, description, prompt};
    const mu_bytes have[] = {got.name, got.description, got.prompt};
    for (int i = 0; i < 3; i++) {
        if (!mu_bytes_is(have[i], wanted[i])) {
            fail_msg("%s\n\nis \"%.*s\" instead of \"%s\"", text, MU_ARGS(have[i]), wanted[i]);
        }
    }
}

static void front_matter_gives_name_and_description(void **state)
{
    (void)state;
    is("---\nname: n\ndescription: d\n---\n\ntext\n", "n", "d", "text");
    is("---\r\nname: n\r\ndescription: d\r\n---\r\nline\r\nline\r\n", "n", "d", "line\nline");
    is("\xef\xbb\xbf---\nname: n\n---\ntext", "n", "", "text");
    is("---\nname: 'a: b'\ndescription: >\n  folded\n  text\nother: [x, {y: z}]\n---\n", "a: b",
       "folded text", "");
    is("---\nmeta: {name: inner, description: inner}\nname: outer\n---\nt", "outer", "", "t");
    is("---\nlist:\n- name: x\n- name\n? [k]\n: v\nname: n\n---\nt", "n", "", "t");
    is("---\ndescription: d\n---\n--- x\n---\n", "folder", "d", "--- x\n---");
    is("---\nname: |\n  two\n  lines\n---\n", "two lines", "", "");
}

static void without_front_matter_all_of_it_is_text(void **state)
{
    (void)state;
    is("", "folder", "", "");
    is("text\n---\nname: n\n---\n", "folder", "", "text\n---\nname: n\n---");
    is("---\nname: n\n", "folder", "", "---\nname: n");
    is("---", "folder", "", "---");
    is("---\n---\nt", "folder", "", "t");
    is("----\nname: n\n---\n", "folder", "", "----\nname: n\n---");
}

static void what_is_no_yaml_is_read_by_lines(void **state)
{
    (void)state;
    is("---\nname: n\ndescription: Use: often, \"mostly\": yes\n  - [x\n---\nt", "n",
       "Use: often, \"mostly\": yes", "t");
    is("---\n\tname: x\nname: \"quoted\"\nname: later\n---\nt", "quoted", "", "t");
    is("---\n- name: x\n---\nt", "folder", "", "t");
    is("---\njust words\n---\nt", "folder", "", "t");
    is("---\nname: *gone\ndescription: d\n---\nt", "folder", "d", "t");
    is("---\na: &x [1]\nname: *x\ndescription: d\n---\nt", "folder", "d", "t");
}

static void nothing_that_a_terminal_obeys_is_left(void **state)
{
    (void)state;
    is("---\nname: \"a\\x1b[2J\\0b\\nc\"\ndescription: \"d\\te\\x7f\"\n---\nx\x1b[31m\x01y\tz\n",
       "a[2Jb c", "d\te", "x[31my\tz");
    is("---\nname: \"\\x01\\n \"\n---\nt", "folder", "", "t");
}

static void too_long_is_cut_between_characters(void **state)
{
    (void)state;
    static char text[100000];
    int n = snprintf(text, sizeof text, "---\nname: ");
    for (int i = 0; i < 150; i++) {
        n += snprintf(text + n, sizeof text - (size_t)n, "\xc3\xa4");
    }
    n += snprintf(text + n, sizeof text - (size_t)n, "\n---\n");
    for (int i = 0; i < 25000; i++) {
        n += snprintf(text + n, sizeof text - (size_t)n, "\xe2\x82\xac");
    }
    assert_int_equal(read_at("SKILL.md", text), 0);
    assert_int_equal(got.name.len, MU_SKILL_NAME);
    assert_int_equal(got.prompt.len, MU_SKILL_PROMPT / 3 * 3);
    /* front matter that is longer than YAML is read: lines */
    memset(text, 'x', sizeof text);
    memcpy(text, "---\nname: first\n", 16);
    memcpy(text + 60000, "\n---\nrest", 10);
    assert_int_equal(read_at("a/SKILL.md", text), 0);
    assert_true(mu_bytes_is(got.name, "first") && mu_bytes_is(got.prompt, "rest"));
}

static void what_cannot_be_a_skill_is_refused(void **state)
{
    (void)state;
    assert_int_equal(read_at("a/SKILL.md", "\xff"), MU_E_INVALID);
    assert_int_equal(read_at("a\xff/SKILL.md", "x"), MU_E_INVALID);
    assert_int_equal(read_at("SKILL.md", "x"), MU_E_INVALID);
    assert_int_equal(read_at("/SKILL.md", "x"), MU_E_INVALID);
    assert_int_equal(read_at("\x01/SKILL.md", "x"), MU_E_INVALID);
    assert_int_equal(read_at("SKILL.md", "---\nname: own\n---\n"), 0);
}

static int read_one(void *arg)
{
    (void)arg;
    return read_at("a/SKILL.md", "---\nname: n\ndescription: [a, {b: c}]\nx: &y 'z'\n---\ntext");
}

static void any_allocation_may_fail(void **state)
{
    (void)state;
    each_allocation_fails(read_one, NULL);
    mu_arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(front_matter_gives_name_and_description),
                                       cmocka_unit_test(without_front_matter_all_of_it_is_text),
                                       cmocka_unit_test(what_is_no_yaml_is_read_by_lines),
                                       cmocka_unit_test(nothing_that_a_terminal_obeys_is_left),
                                       cmocka_unit_test(too_long_is_cut_between_characters),
                                       cmocka_unit_test(what_cannot_be_a_skill_is_refused),
                                       cmocka_unit_test(any_allocation_may_fail)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
