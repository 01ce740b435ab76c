#include "../unit.h"

#include <pthread.h>

#include "base/err.h"
#include "base/id.h"

static int64_t now_ms;
static unsigned char fill_byte;

static int64_t fake_wall(const struct mu_env *env MU_UNUSED)
{
    return now_ms;
}

static void fake_random(const struct mu_env *env MU_UNUSED, void *dst, size_t len)
{
    memset(dst, fill_byte, len);
}

static const struct mu_env fake = {.wall_ms = fake_wall, .random = fake_random};

static void ids_rise_even_when_the_clock_falls_or_stands(void **state MU_UNUSED)
{
    struct mu_id last = mu_id_new(&mu_env_real, NULL);
    int64_t base = mu_id_ms(&last) + 1000000, last_ms = 0;
    for (int i = 0; i < 20000; i++) {
        int64_t ms;
        now_ms = base + (i % 3 == 0 ? -50 : i / 9000);
        struct mu_id id = mu_id_new(&fake, &ms);
        assert_true(strcmp(id.text, last.text) > 0);
        assert_true(ms >= last_ms && mu_id_ms(&id) == ms);
        assert_int_equal(strlen(id.text), MU_ID_LEN);
        assert_int_equal(id.text[14], '7');
        assert_non_null(strchr("89ab", id.text[19]));
        last = id;
        last_ms = ms;
    }
    assert_true(last_ms - base < 20); /* some 4,096 fit into a millisecond */
}

static void bounds_lie_around_the_ids_of_a_millisecond(void **state MU_UNUSED)
{
    int64_t ms;
    struct mu_id id = mu_id_new(&mu_env_real, &ms);
    struct mu_id from = mu_id_floor(ms), to = mu_id_floor(ms + 1);
    assert_true(strcmp(from.text, id.text) <= 0 && strcmp(id.text, to.text) < 0);
    assert_int_equal(mu_id_ms(&from), ms);
    assert_string_equal(mu_id_floor(-5).text, "00000000-0000-7000-8000-000000000000");
    assert_string_equal(mu_id_floor(INT64_MAX).text, "ffffffff-ffff-7000-8000-000000000000");
}

static void random_ids_are_of_version_4_and_tell_no_time(void **state MU_UNUSED)
{
    fill_byte = 0xff;
    struct mu_id id = mu_id_random(&fake);
    assert_string_equal(id.text, "ffffffff-ffff-4fff-bfff-ffffffffffff");
    assert_int_equal(mu_id_ms(&id), 0);
    fill_byte = 0;
}

static void parsing_takes_prefix_and_either_case(void **state MU_UNUSED)
{
    static const struct {
        const char *text, *prefix;
        bool ok;
    } rows[] = {
        {"0190163d-8694-739b-aea5-966c26f8ad91", NULL, true},
        {"0190163D-8694-739B-AEA5-966C26F8AD91", "run_", true},
        {"run_0190163d-8694-739b-aea5-966c26f8ad91", "run_", true},
        {"run_0190163d-8694-739b-aea5-966c26f8ad91", NULL, false},
        {"env_0190163d-8694-739b-aea5-966c26f8ad91", "run_", false},
        {"run_run_0190163d-8694-739b-aea5-966c26f8ad91", "run_", false},
        {"0190163d-8694-739b-aea5-966c26f8ad9", NULL, false},
        {"0190163d-8694-739b-aea5-966c26f8ad911", NULL, false},
        {"0190163d08694-739b-aea5-966c26f8ad91", NULL, false},
        {"0190163d-8694-739b-aea5-966c26f8ad9g", NULL, false},
        {"0190163-d8694-739b-aea5-966c26f8ad91", NULL, false},
        {"", NULL, false},
        {"run_", "run_", false},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        struct mu_id id = {{0}};
        int r = mu_id_parse(mu_str(rows[i].text), rows[i].prefix, &id);
        assert_int_equal(r, rows[i].ok ? 0 : MU_E_INVALID);
        assert_string_equal(id.text, rows[i].ok ? "0190163d-8694-739b-aea5-966c26f8ad91" : "");
        assert_int_equal(mu_id_bytes(&id).len, rows[i].ok ? MU_ID_LEN : 0);
    }
}

enum { THREADS = 4, PER_THREAD = 5000 };
static struct mu_id made[THREADS][PER_THREAD];

static void *make_ids(void *arg)
{
    struct mu_id *ids = arg;
    for (int i = 0; i < PER_THREAD; i++) {
        ids[i] = mu_id_new(&mu_env_real, NULL);
    }
    return NULL;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(((const struct mu_id *)a)->text, ((const struct mu_id *)b)->text);
}

static void threads_never_make_the_same_id(void **state MU_UNUSED)
{
    pthread_t t[THREADS];
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&t[i], NULL, make_ids, made[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(t[i], NULL);
    }
    struct mu_id *all = made[0];
    qsort(all, THREADS * PER_THREAD, sizeof *all, by_text);
    for (int i = 1; i < THREADS * PER_THREAD; i++) {
        assert_true(strcmp(all[i - 1].text, all[i].text) < 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_never_make_the_same_id),
        cmocka_unit_test(bounds_lie_around_the_ids_of_a_millisecond),
        cmocka_unit_test(random_ids_are_of_version_4_and_tell_no_time),
        cmocka_unit_test(parsing_takes_prefix_and_either_case),
        cmocka_unit_test(ids_rise_even_when_the_clock_falls_or_stands),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
