#include "../unit.h"

#include <errno.h>

#include "base/encode.h"
#include "base/err.h"

static void every_code_has_its_own_text(void **state MU_UNUSED)
{
    static const int codes[] = {
#define MU_ERR(name, number, text) MU_E_##name,
#include "base/err.def"
#undef MU_ERR
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(codes); i++) {
        assert_true(codes[i] <= -5000);
        for (size_t k = 0; k < i; k++) {
            assert_int_not_equal(codes[i], codes[k]);
            assert_string_not_equal(mu_err_text(codes[i]), mu_err_text(codes[k]));
        }
    }
    assert_string_equal(mu_err_text(MU_E_NOT_FOUND), "not found");
    assert_string_equal(mu_err_text(-ENOENT), strerror(ENOENT));
    assert_string_equal(mu_err_text(-4999), "unknown error");
    assert_string_equal(mu_err_text(1), "unknown error");
    assert_non_null(mu_err_text(0));
}

static void context_goes_in_front(void **state MU_UNUSED)
{
    struct mu_err err;
    assert_int_equal(mu_err_set(&err, MU_E_INVALID, "%s is %d", "x", 1), MU_E_INVALID);
    assert_int_equal(mu_err_context(&err, "in %s", "file"), MU_E_INVALID);
    assert_string_equal(err.text, "in file: x is 1");
    assert_int_equal(err.code, MU_E_INVALID);
    assert_int_equal(mu_err_set(NULL, -EIO, "nobody listens"), -EIO);
}

static void long_texts_are_cut_between_characters(void **state MU_UNUSED)
{
    char longer[600];
    for (size_t shift = 0; shift < 3; shift++) {
        struct mu_err err;
        for (size_t i = 0; i < sizeof longer; i++) {
            longer[i] = i < shift ? 'x' : "\xe2\x82\xac"[(i - shift) % 3];
        }
        longer[sizeof longer - 1] = 0;
        mu_err_set(&err, MU_E_IO, "%s", longer);
        assert_true(strlen(err.text) < sizeof err.text && strlen(err.text) > 470);
        assert_true(mu_utf8_valid(mu_str(err.text)));
        mu_err_context(&err, "front");
        assert_true(mu_utf8_valid(mu_str(err.text)));
        mu_err_context(&err, "%s", longer);
        assert_true(mu_utf8_valid(mu_str(err.text)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_its_own_text),
        cmocka_unit_test(context_goes_in_front),
        cmocka_unit_test(long_texts_are_cut_between_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
