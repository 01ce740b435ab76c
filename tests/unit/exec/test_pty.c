#include "../unit.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "exec/pty.h"

extern char **environ;

static pid_t start(const char *script, int in, int *fd)
{
    const char *argv[] = {"sh", "-c", script, NULL};
    struct mu_pty_spawn s = {argv, "/bin/sh", environ, "/", in, 91, 17};
    return mu_pty_spawn(&s, fd);
}

/* Until the text is there, or 10 s. */
static void expect(int fd, char *seen, size_t cap, const char *text)
{
    size_t n = strlen(seen);
    while (!strstr(seen, text)) {
        struct pollfd p = {fd, POLLIN, 0};
        ssize_t k = poll(&p, 1, 10000) > 0 && n < cap - 1 ? read(fd, seen + n, cap - 1 - n) : -1;
        if (k <= 0) {
            fail_msg("%s is not in: %s", text, seen);
        }
        n += (size_t)k;
        seen[n] = 0;
    }
}

static void end(pid_t pid, int fd, int want)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), want);
    close(fd);
}

static void a_program_has_a_terminal_of_its_own(void **state)
{
    (void)state;
    char seen[4096] = "";
    int fd = -1;
    pid_t pid =
        start("tty; stty size; pwd; ls /proc/self/fd | tr '\\n' ' '; ps -o tpgid= -p $$; echo "
              "pid $$; read x; echo got $x; exit 3",
              -1, &fd);
    assert_true(pid > 0);
    expect(fd, seen, sizeof seen, "pid ");
    assert_non_null(strstr(seen, "/dev/pts/"));
    assert_non_null(strstr(seen, "17 91\r\n/\r\n"));
    assert_non_null(strstr(seen, "0 1 2 3 ")); /* 3: ls itself */
    assert_null(strstr(seen, "3 4 "));
    assert_int_equal(write(fd, "word\r", 5), 5);
    expect(fd, seen, sizeof seen, "got word\r\n");
    end(pid, fd, 3);
}

static void its_size_can_be_changed_and_it_hears_of_it(void **state)
{
    (void)state;
    char seen[4096] = "";
    int fd = -1;
    pid_t pid =
        start("trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.05; done", -1, &fd);
    assert_true(pid > 0);
    expect(fd, seen, sizeof seen, "ready");
    assert_int_equal(mu_pty_resize(fd, 0, 5), -EINVAL);
    assert_int_equal(mu_pty_resize(fd, 5, MU_PTY_SIDE_MAX + 1), -EINVAL);
    assert_int_equal(mu_pty_resize(fd, 33, 44), 0);
    expect(fd, seen, sizeof seen, "44 33");
    end(pid, fd, 0);
}

static void ctrl_c_reaches_it(void **state)
{
    (void)state;
    char seen[4096] = "";
    int fd = -1;
    pid_t pid = start("trap 'exit 130' INT; echo ready; while :; do sleep 0.05; done", -1, &fd);
    assert_true(pid > 0);
    expect(fd, seen, sizeof seen, "ready");
    assert_int_equal(write(fd, "\x03", 1), 1);
    end(pid, fd, 128 + SIGINT);
}

static void its_input_may_be_another(void **state)
{
    (void)state;
    char seen[4096] = "";
    int fd = -1, in[2];
    assert_int_equal(pipe(in), 0);
    assert_int_equal(write(in[1], "from a pipe", 11), 11);
    close(in[1]);
    pid_t pid = start("cat; test -t 0 || echo , no terminal", in[0], &fd);
    assert_true(pid > 0);
    expect(fd, seen, sizeof seen, "from a pipe, no terminal");
    close(in[0]);
    end(pid, fd, 0);
}

static void what_cannot_be_started_says_why(void **state)
{
    (void)state;
    int fd = -1;
    const char *argv[] = {"x", NULL};
    struct mu_pty_spawn s = {argv, "/no/such/program", environ, "/", -1, 80, 24};
    assert_int_equal(mu_pty_spawn(&s, &fd), -ENOENT);
    s.program = "/bin/sh";
    s.cwd = "/no/such/folder";
    assert_int_equal(mu_pty_spawn(&s, &fd), -ENOENT);
    s.cols = 0;
    assert_int_equal(mu_pty_spawn(&s, &fd), -EINVAL);
    assert_int_equal(fd, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_program_has_a_terminal_of_its_own),
        cmocka_unit_test(its_size_can_be_changed_and_it_hears_of_it),
        cmocka_unit_test(ctrl_c_reaches_it),
        cmocka_unit_test(its_input_may_be_another),
        cmocka_unit_test(what_cannot_be_started_says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
