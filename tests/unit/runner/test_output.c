#include "../unit.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "runner/output.h"

/* Writes `total` bytes in pieces and compares the file with what the rule says. */
static void check(int64_t head, int64_t tail, size_t total, size_t piece)
{
    char *all = malloc(total + 1), *got = malloc(total + 1024);
    for (size_t i = 0; i < total; i++) {
        all[i] = (char)('a' + (i * 7 + i / 31) % 26);
    }
    struct mu_output o;
    mu_output_init(&o, memfd_create("output", MFD_CLOEXEC), head, tail);
    for (size_t at = 0; at < total; at += piece) {
        mu_output_add(&o, mu_bytes_of(all + at, MU_MIN(piece, total - at)));
        struct stat st;
        assert_int_equal(fstat(o.fd, &st), 0);
        assert_int_equal(st.st_size, o.len);
        assert_true(o.len <= head + tail + MU_OUTPUT_MARK +
                                 MU_MAX(MU_OUTPUT_SLACK * tail, (int64_t)MU_OUTPUT_MARK));
    }
    mu_output_end(&o);
    assert_int_equal(o.failed, 0);
    assert_int_equal(o.total, total);
    ssize_t n = pread(o.fd, got, total + 1024, 0);
    assert_int_equal(n, o.len);
    if (!o.cut) {
        assert_int_equal(n, total);
        assert_memory_equal(got, all, total);
        assert_true((int64_t)total < head + tail + MU_OUTPUT_MARK);
    } else {
        long long left;
        assert_int_equal(n, head + tail + MU_OUTPUT_MARK);
        assert_memory_equal(got, all, (size_t)head);
        assert_memory_equal(got + head + MU_OUTPUT_MARK, all + total - tail, (size_t)tail);
        assert_int_equal(sscanf(got + head, "\n[... %lld bytes of output left out ...]", &left), 1);
        assert_int_equal(left, (int64_t)total - head - tail);
        assert_true(got[head + MU_OUTPUT_MARK - 1] == '\n');
    }
    mu_output_fini(&o);
    free(all);
    free(got);
}

static void any_length_in_any_pieces_has_the_exact_form(void **state)
{
    (void)state;
    static const size_t pieces[] = {1, 7, 64, 1000, 100000};
    for (size_t p = 0; p < MU_ARRAY_LEN(pieces); p++) {
        for (size_t total = 0; total < 2000; total += 37) {
            check(100, 200, total, pieces[p]);
            check(0, 64, total, pieces[p]);
            check(300, 10, total, pieces[p]);
        }
    }
    check(1000, 7000, 100000, 333);
    check(1000, 7000, 8000, 333);
    check(1000, 7000, 8064, 333);
    check(1000, 7000, 8065, 333);
}

static void a_file_that_cannot_be_written_is_remembered(void **state)
{
    (void)state;
    struct mu_output o;
    mu_output_init(&o, open("/dev/null", O_RDONLY | O_CLOEXEC), 10, 10);
    mu_output_add(&o, MU_B("abc"));
    assert_true(o.failed < 0);
    mu_output_add(&o, MU_B("abc"));
    mu_output_end(&o);
    assert_int_equal(o.len, 0);
    mu_output_fini(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_length_in_any_pieces_has_the_exact_form),
        cmocka_unit_test(a_file_that_cannot_be_written_is_remembered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
