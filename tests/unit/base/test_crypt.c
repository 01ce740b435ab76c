#include "../unit.h"

#include <errno.h>
#include <pthread.h>

#include "../alloc_fail.h"
#include "base/crypt.h"
#include "base/encode.h"
#include "base/err.h"

#define ROOT_A MU_B("0123456789abcdef0123456789abcdef")
#define ROOT_B MU_B("another root of more than thirty-two bytes")

static void digests_match_published_vectors(void **state MU_UNUSED)
{
    assert_string_equal(mu_sha256_hex(MU_B("")).text,
                        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_string_equal(mu_sha256_hex(MU_B_NONE).text, mu_sha256_hex(MU_B("")).text);
    assert_string_equal(mu_sha256_hex(MU_B("abc")).text,
                        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

static void digest_of_two_parts_is_that_of_both_with_a_zero_between(void **state MU_UNUSED)
{
    struct mu_digest one = mu_sha256(mu_bytes_of("ab\0cd", 5));
    struct mu_digest two = mu_sha256_two(MU_B("ab"), MU_B("cd"));
    struct mu_digest other = mu_sha256_two(MU_B("abc"), MU_B("d"));
    assert_memory_equal(one.bytes, two.bytes, sizeof one.bytes);
    assert_memory_not_equal(one.bytes, other.bytes, sizeof one.bytes);
}

static void *digest_on_a_thread(void *arg)
{
    struct mu_digest_hex h = {{0}};
    for (int i = 0; i < 1000; i++) {
        h = mu_sha256_hex(MU_B("abc"));
    }
    *(bool *)arg = strncmp(h.text, "ba7816bf", 8) == 0;
    return NULL;
}

static void digests_work_on_several_threads_at_once(void **state MU_UNUSED)
{
    pthread_t t[4];
    bool ok[4] = {0};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&t[i], NULL, digest_on_a_thread, &ok[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(t[i], NULL);
        assert_true(ok[i]);
    }
}

static struct mu_vault *vault(mu_bytes root, mu_bytes previous)
{
    struct mu_vault *v = NULL;
    assert_int_equal(mu_vault_new(&mu_env_real, root, previous, &v), 0);
    return v;
}

static int open_text(struct mu_vault *v, const char *purpose, const char *aad, mu_bytes stored,
                     struct mu_buf *clear)
{
    mu_buf_init(clear, 1 << 20);
    return mu_vault_open(v, purpose, mu_str(aad), stored, clear);
}

static void sealed_text_opens_under_the_same_purpose_and_row_only(void **state MU_UNUSED)
{
    struct mu_vault *v = vault(ROOT_A, MU_B_NONE);
    static const size_t lens[] = {0, 1, 15, 16, 17, 100, 5000};
    for (size_t i = 0; i < MU_ARRAY_LEN(lens); i++) {
        struct mu_buf text, stored, clear;
        mu_buf_init(&text, 1 << 20);
        mu_buf_init(&stored, 1 << 20);
        for (size_t k = 0; k < lens[i]; k++) {
            mu_buf_add_char(&text, (char)k);
        }
        assert_int_equal(mu_vault_seal(v, "oauth", MU_B("t|1|c"), mu_buf_bytes(&text), &stored), 0);
        assert_true(mu_bytes_starts(mu_buf_bytes(&stored), MU_B("v1:")));
        assert_int_equal(stored.len, 3 + 8 + 1 + (12 + lens[i] + 16 + 2) / 3 * 4);
        assert_int_equal(open_text(v, "oauth", "t|1|c", mu_buf_bytes(&stored), &clear), 0);
        assert_true(mu_bytes_eq(mu_buf_bytes(&clear), mu_buf_bytes(&text)));
        mu_buf_wipe(&clear);
        assert_int_equal(open_text(v, "slack", "t|1|c", mu_buf_bytes(&stored), &clear),
                         MU_E_CORRUPT);
        assert_int_equal(clear.len, 0);
        assert_int_equal(open_text(v, "oauth", "t|2|c", mu_buf_bytes(&stored), &clear),
                         MU_E_CORRUPT);
        assert_int_equal(clear.len, 0);
        mu_buf_fini(&text);
        mu_buf_fini(&stored);
    }
    assert_null(mu_vault_free(v));
    assert_null(mu_vault_free(NULL));
}

static void equal_texts_are_sealed_differently(void **state MU_UNUSED)
{
    struct mu_vault *v = vault(ROOT_A, MU_B_NONE);
    struct mu_buf a, b;
    mu_buf_init(&a, 1000);
    mu_buf_init(&b, 1000);
    assert_int_equal(mu_vault_seal(v, "p", MU_B("x"), MU_B("same"), &a), 0);
    assert_int_equal(mu_vault_seal(v, "p", MU_B("x"), MU_B("same"), &b), 0);
    assert_false(mu_bytes_eq(mu_buf_bytes(&a), mu_buf_bytes(&b)));
    mu_buf_fini(&a);
    mu_buf_fini(&b);
    mu_vault_free(v);
}

static void every_changed_or_missing_byte_is_found(void **state MU_UNUSED)
{
    struct mu_vault *v = vault(ROOT_A, MU_B_NONE);
    struct mu_buf stored, clear;
    mu_buf_init(&stored, 1000);
    assert_int_equal(mu_vault_seal(v, "p", MU_B("x"), MU_B("some text"), &stored), 0);
    for (size_t i = 0; i < stored.len; i++) {
        char kept = stored.ptr[i];
        stored.ptr[i] = kept == 'A' ? 'B' : 'A';
        assert_int_equal(open_text(v, "p", "x", mu_buf_bytes(&stored), &clear), MU_E_CORRUPT);
        mu_buf_fini(&clear);
        stored.ptr[i] = kept;
        assert_int_equal(open_text(v, "p", "x", mu_bytes_head(mu_buf_bytes(&stored), i), &clear),
                         MU_E_CORRUPT);
        mu_buf_fini(&clear);
    }
    mu_buf_fini(&stored);
    mu_vault_free(v);
}

static void a_previous_root_is_read_but_never_written(void **state MU_UNUSED)
{
    struct mu_vault *old = vault(ROOT_A, MU_B_NONE), *both = vault(ROOT_B, ROOT_A);
    struct mu_vault *fresh = vault(ROOT_B, MU_B_NONE);
    struct mu_buf a, b, clear;
    mu_buf_init(&a, 1000);
    mu_buf_init(&b, 1000);
    assert_int_equal(mu_vault_seal(old, "p", MU_B("x"), MU_B("kept"), &a), 0);
    assert_int_equal(open_text(both, "p", "x", mu_buf_bytes(&a), &clear), 0);
    assert_true(mu_bytes_is(mu_buf_bytes(&clear), "kept"));
    mu_buf_fini(&clear);
    assert_int_equal(open_text(fresh, "p", "x", mu_buf_bytes(&a), &clear), MU_E_CORRUPT);
    assert_int_equal(mu_vault_seal(both, "p", MU_B("x"), MU_B("new"), &b), 0);
    assert_int_equal(open_text(fresh, "p", "x", mu_buf_bytes(&b), &clear), 0);
    mu_buf_fini(&clear);
    assert_int_equal(open_text(old, "p", "x", mu_buf_bytes(&b), &clear), MU_E_CORRUPT);
    mu_buf_fini(&a);
    mu_buf_fini(&b);
    mu_vault_free(old);
    mu_vault_free(both);
    mu_vault_free(fresh);
}

/* A row made with another implementation of the same scheme (HKDF by RFC 5869
 * without salt, AES-GCM by the book, both in plain Python). */
static void a_row_of_another_implementation_opens(void **state MU_UNUSED)
{
    struct mu_vault *v = vault(ROOT_A, MU_B_NONE);
    struct mu_buf clear;
    assert_int_equal(
        open_text(v, "oauth", "users|1|token",
                  MU_B("v1:04141702:AAECAwQFBgcICQoLB9Gbpd28E+bBwTnaydxwdQYdwvqmGMaLdQvL"), &clear),
        0);
    assert_true(mu_bytes_is(mu_buf_bytes(&clear), "hello vault"));
    mu_buf_fini(&clear);
    mu_vault_free(v);
}

static void a_tag_is_that_of_one_root_purpose_and_text(void **state MU_UNUSED)
{
    struct mu_vault *a = vault(ROOT_A, MU_B_NONE), *b = vault(ROOT_B, MU_B_NONE);
    struct mu_digest one, again, others[3];
    assert_int_equal(mu_vault_tag(a, "cursor", MU_B("text"), &one), 0);
    assert_int_equal(mu_vault_tag(a, "cursor", MU_B("text"), &again), 0);
    assert_memory_equal(&one, &again, sizeof one);
    assert_int_equal(mu_vault_tag(b, "cursor", MU_B("text"), &others[0]), 0);
    assert_int_equal(mu_vault_tag(a, "other", MU_B("text"), &others[1]), 0);
    assert_int_equal(mu_vault_tag(a, "cursor", MU_B("texts"), &others[2]), 0);
    for (size_t i = 0; i < MU_ARRAY_LEN(others); i++) {
        assert_memory_not_equal(&one, &others[i], sizeof one);
    }
    mu_vault_free(a);
    mu_vault_free(b);
}

static void short_roots_are_refused(void **state MU_UNUSED)
{
    struct mu_vault *v = NULL;
    assert_int_equal(mu_vault_new(&mu_env_real, MU_B("short"), MU_B_NONE, &v), MU_E_INVALID);
    assert_int_equal(mu_vault_new(&mu_env_real, ROOT_A, MU_B("short"), &v), MU_E_INVALID);
    assert_null(v);
}

static void a_buffer_that_is_too_small_is_left_as_it_was(void **state MU_UNUSED)
{
    struct mu_vault *v = vault(ROOT_A, MU_B_NONE);
    struct mu_buf b;
    mu_buf_init(&b, 40);
    mu_buf_add_str(&b, "before");
    assert_int_equal(mu_vault_seal(v, "p", MU_B("x"), MU_B("text"), &b), MU_E_TOO_LARGE);
    assert_true(mu_bytes_is(mu_buf_bytes(&b), "before"));
    mu_buf_fini(&b);
    mu_vault_free(v);
}

static int seal_and_open(void *arg MU_UNUSED)
{
    struct mu_vault *v = NULL;
    struct mu_buf stored, clear;
    mu_buf_init(&stored, 1000);
    mu_buf_init(&clear, 1000);
    int r = mu_vault_new(&mu_env_real, ROOT_A, ROOT_B, &v);
    if (r == 0) {
        r = mu_vault_seal(v, "p", MU_B("x"), MU_B("text"), &stored);
    }
    if (r == 0) {
        r = mu_vault_open(v, "p", MU_B("x"), mu_buf_bytes(&stored), &clear);
    }
    assert_true(r == 0 || r == -ENOMEM);
    mu_buf_fini(&stored);
    mu_buf_fini(&clear);
    mu_vault_free(v);
    return r;
}

static void every_failing_allocation_is_survived(void **state MU_UNUSED)
{
    each_allocation_fails(seal_and_open, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests_match_published_vectors),
        cmocka_unit_test(digest_of_two_parts_is_that_of_both_with_a_zero_between),
        cmocka_unit_test(digests_work_on_several_threads_at_once),
        cmocka_unit_test(sealed_text_opens_under_the_same_purpose_and_row_only),
        cmocka_unit_test(equal_texts_are_sealed_differently),
        cmocka_unit_test(every_changed_or_missing_byte_is_found),
        cmocka_unit_test(a_previous_root_is_read_but_never_written),
        cmocka_unit_test(a_row_of_another_implementation_opens),
        cmocka_unit_test(a_tag_is_that_of_one_root_purpose_and_text),
        cmocka_unit_test(short_roots_are_refused),
        cmocka_unit_test(a_buffer_that_is_too_small_is_left_as_it_was),
        cmocka_unit_test(every_failing_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
