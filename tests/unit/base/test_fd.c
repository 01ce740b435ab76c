#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "../unit.h"

struct reader {
    int fd;
    char got[200000];
    size_t len;
};

static void *read_all(void *arg)
{
    struct reader *r = arg;
    ssize_t n;
    while ((n = read(r->fd, r->got + r->len, sizeof r->got - r->len)) > 0) {
        r->len += (size_t)n;
    }
    return NULL;
}

/* More than a pipe holds. */
static void all_is_written_in_however_many_pieces(void **state MU_UNUSED)
{
    static char text[150000];
    static struct reader r;
    int fds[2];
    pthread_t thread;
    for (size_t i = 0; i < sizeof text; i++) {
        text[i] = (char)i;
    }
    assert_int_equal(pipe(fds), 0);
    r.fd = fds[0];
    assert_int_equal(pthread_create(&thread, NULL, read_all, &r), 0);
    assert_int_equal(mu_write_all(fds[1], mu_bytes_of(text, sizeof text)), 0);
    assert_int_equal(mu_write_all(fds[1], MU_B_NONE), 0);
    close(fds[1]);
    pthread_join(thread, NULL);
    close(fds[0]);
    assert_int_equal(r.len, sizeof text);
    assert_memory_equal(r.got, text, sizeof text);
}

static void what_cannot_be_written_says_why(void **state MU_UNUSED)
{
    int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(mu_write_all(fd, MU_B("x")), -ENOSPC);
    close(fd);
    assert_int_equal(mu_write_all(-1, MU_B("x")), -EBADF);
    assert_int_equal(mu_write_all(-1, MU_B("")), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_is_written_in_however_many_pieces),
                                       cmocka_unit_test(what_cannot_be_written_says_why)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
