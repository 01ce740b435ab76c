#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "../alloc_fail.h"
#include "base/buf.h"
#include "exec/process.h"

static const char *const plain_env[] = {"PATH=/usr/bin:/bin", "A=1", NULL};

struct child {
    struct mu_loop *loop;
    struct mu_process *process;
    struct mu_buf out;
    struct mu_process_result result;
    char err[70000];
    int done;
    int *running; /* stops the loop when it becomes 0 */
    bool kill_at_output;
    int64_t took_ms;
};

static void on_output(void *arg, mu_bytes piece)
{
    struct child *c = arg;
    assert_true(piece.len > 0);
    mu_buf_add(&c->out, piece);
    if (c->kill_at_output) {
        mu_process_real.kill(c->process);
    }
}

static void on_done(void *arg, const struct mu_process_result *result)
{
    struct child *c = arg;
    c->done++;
    c->result = *result;
    assert_true(result->err_text.len < sizeof c->err);
    if (result->err_text.len) {
        memcpy(c->err, result->err_text.ptr, result->err_text.len);
    }
    c->err[result->err_text.len] = 0;
    if (--*c->running == 0) {
        mu_loop_stop(c->loop);
    }
}

/* The test process adopts orphans, so whatever is left over is its child. */
static void nothing_is_left(void)
{
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

static int open_fds(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (readdir(d)) {
        n++;
    }
    closedir(d);
    return n;
}

static void run_request(struct child *c, struct mu_process_request *req)
{
    int running = 1, fds = open_fds();
    assert_int_equal(mu_loop_new(&mu_env_real, "test", &c->loop), 0);
    mu_buf_init(&c->out, 64 << 20);
    c->running = &running;
    req->on_output = on_output;
    req->done = on_done;
    req->arg = c;
    req->env = req->env ? req->env : plain_env;
    int64_t begin = mu_env_mono_ms(&mu_env_real);
    assert_int_equal(mu_process_real.start(c->loop, req, &c->process), 0);
    assert_int_equal(c->done, 0);
    mu_loop_run(c->loop);
    c->took_ms = mu_env_mono_ms(&mu_env_real) - begin;
    mu_loop_free(c->loop);
    assert_int_equal(c->done, 1);
    assert_int_equal(c->out.failed, 0);
    mu_buf_add_char(&c->out, 0);
    c->out.len--;
    assert_int_equal(open_fds(), fds);
}

/* Runs a shell script; the caller frees c->out. */
static void run_sh(struct child *c, const char *script, struct mu_process_request *req)
{
    const char *const argv[] = {"sh", "-c", script, NULL};
    struct mu_process_request none = {0};
    req = req ? req : &none;
    req->argv = argv;
    run_request(c, req);
}

static void end_child(struct child *c)
{
    mu_buf_fini(&c->out);
    nothing_is_left();
}

static void input_comes_back_from_cat(void **state MU_UNUSED)
{
    struct child c = {0};
    size_t len = 3 << 20;
    char *input = malloc(len);
    for (size_t i = 0; i < len; i++) {
        input[i] = (char)(i * 7 + i / 4096);
    }
    const char *const argv[] = {"cat", NULL};
    struct mu_process_request req = {.argv = argv, .input = mu_bytes_of(input, len)};
    run_request(&c, &req);
    assert_int_equal(c.result.end, MU_PROCESS_EXITED);
    assert_int_equal(c.result.code, 0);
    assert_int_equal(c.out.len, len);
    assert_memory_equal(c.out.ptr, input, len);
    assert_int_equal(c.result.err_text.len, 0);
    free(input);
    end_child(&c);
}

static void a_child_that_ignores_5_mb_of_input_comes_to_no_harm(void **state MU_UNUSED)
{
    struct child c = {0};
    char *input = calloc(1, 5 << 20);
    const char *const argv[] = {"echo", "hello", NULL};
    struct mu_process_request req = {.argv = argv, .input = mu_bytes_of(input, 5 << 20)};
    run_request(&c, &req);
    free(input);
    assert_int_equal(c.result.end, MU_PROCESS_EXITED);
    assert_int_equal(c.result.code, 0);
    assert_string_equal(c.out.ptr, "hello\n");
    end_child(&c);
}

static void a_child_that_closes_its_input_and_goes_on_is_waited_for(void **state MU_UNUSED)
{
    struct child c = {0};
    char *input = calloc(1, 1 << 20);
    struct mu_process_request req = {.input = mu_bytes_of(input, 1 << 20)};
    run_sh(&c, "exec 0</dev/null; sleep 0.2; echo later", &req);
    free(input);
    assert_string_equal(c.out.ptr, "later\n");
    end_child(&c);
}

static void exit_codes_and_stderr_are_told(void **state MU_UNUSED)
{
    struct child c = {0};
    run_sh(&c, "echo to-out; echo to-err >&2; exit 137", NULL);
    assert_int_equal(c.result.end, MU_PROCESS_EXITED);
    assert_int_equal(c.result.code, 137);
    assert_string_equal(c.out.ptr, "to-out\n");
    assert_string_equal(c.err, "to-err\n");
    end_child(&c);
}

static void death_by_a_signal_is_told(void **state MU_UNUSED)
{
    struct child c = {0};
    run_sh(&c, "kill -SEGV $$; sleep 5", NULL);
    assert_int_equal(c.result.end, MU_PROCESS_SIGNALED);
    assert_int_equal(c.result.signal, SIGSEGV);
    assert_int_equal(c.result.code, 128 + SIGSEGV);
    end_child(&c);
}

static void a_timeout_sends_term(void **state MU_UNUSED)
{
    struct child c = {0};
    struct mu_process_request req = {.timeout_ms = 300, .kill_ms = 20000};
    run_sh(&c, "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.02; done", &req);
    assert_int_equal(c.result.end, MU_PROCESS_TIMEOUT);
    assert_int_equal(c.result.code, 3);
    assert_string_equal(c.out.ptr, "up\nbye\n");
    assert_in_range(c.took_ms, 300, 15000);
    end_child(&c);
}

static void who_ignores_term_is_killed(void **state MU_UNUSED)
{
    struct child c = {0};
    struct mu_process_request req = {.timeout_ms = 200, .kill_ms = 300};
    run_sh(&c, "trap '' TERM; while :; do sleep 0.05; done", &req);
    assert_int_equal(c.result.end, MU_PROCESS_TIMEOUT);
    assert_int_equal(c.result.signal, SIGKILL);
    assert_in_range(c.took_ms, 500, 15000);
    end_child(&c);
}

static void a_grandchild_of_the_group_dies_with_the_child(void **state MU_UNUSED)
{
    struct child c = {0};
    run_sh(&c, "sleep 600 & echo started; exit 0", NULL);
    assert_int_equal(c.result.end, MU_PROCESS_EXITED);
    assert_string_equal(c.out.ptr, "started\n");
    assert_true(c.took_ms < 1900);
    end_child(&c);
}

static void a_grandchild_outside_the_group_delays_the_end_by_two_seconds(void **state MU_UNUSED)
{
    struct child c = {0};
    run_sh(&c, "setsid sh -c 'echo $$; exec sleep 600' & sleep 0.3; exit 4", NULL);
    assert_int_equal(c.result.end, MU_PROCESS_EXITED);
    assert_int_equal(c.result.code, 4);
    assert_in_range(c.took_ms, 2000, 15000);
    int64_t pid;
    assert_int_equal(mu_bytes_i64(mu_bytes_trim(mu_buf_bytes(&c.out)), &pid), 0);
    assert_int_equal(kill((pid_t)pid, SIGKILL), 0);
    assert_int_equal(waitpid((pid_t)pid, NULL, 0), pid);
    end_child(&c);
}

static void a_flood_of_output_is_cut_off(void **state MU_UNUSED)
{
    struct child c = {0};
    struct mu_process_request req = {.max_output = 1 << 20};
    run_sh(&c, "trap '' TERM; yes", &req);
    assert_int_equal(c.result.end, MU_PROCESS_FLOOD);
    assert_int_equal(c.out.len, 1 << 20);
    assert_true(c.took_ms < 4000);
    end_child(&c);
}

static void a_flood_of_a_child_that_has_ended_is_a_flood_too(void **state MU_UNUSED)
{
    struct child c = {0};
    struct mu_process_request req = {.max_output = 10};
    run_sh(&c, "echo 0123456789abcdef", &req);
    assert_int_equal(c.result.end, MU_PROCESS_FLOOD);
    assert_string_equal(c.out.ptr, "0123456789");
    end_child(&c);
}

static void a_flood_from_outside_the_group_after_the_end_is_a_flood(void **state MU_UNUSED)
{
    struct child c = {0};
    struct mu_process_request req = {.max_output = 100000};
    run_sh(&c, "setsid sh -c 'sleep 0.6; exec yes' & sleep 0.3; exit 0", &req);
    assert_int_equal(c.result.end, MU_PROCESS_FLOOD);
    assert_int_equal(c.out.len, 100000);
    assert_true(waitpid(-1, NULL, 0) > 0); /* of the broken pipe */
    end_child(&c);
}

static void a_flood_of_stderr_is_cut_off(void **state MU_UNUSED)
{
    struct child c = {0};
    struct mu_process_request req = {.max_output = 1 << 20};
    run_sh(&c, "yes >&2", &req);
    assert_int_equal(c.result.end, MU_PROCESS_FLOOD);
    assert_int_equal(c.out.len, 0);
    assert_true(c.result.err_text.len <= 64 << 10);
    end_child(&c);
}

static void stderr_keeps_head_and_tail(void **state MU_UNUSED)
{
    struct child c = {0};
    run_sh(&c, "i=10000; while [ $i -lt 30000 ]; do echo line-$i; i=$((i+1)); done >&2", NULL);
    size_t total = 20000 * strlen("line-10000\n");
    mu_bytes text = mu_str(c.err);
    assert_int_equal(text.len, c.result.err_text.len);
    assert_true(text.len <= 64 << 10);
    assert_true(mu_bytes_starts(text, MU_B("line-10000\nline-10001\n")));
    assert_true(mu_bytes_ends(text, MU_B("line-29998\nline-29999\n")));
    ptrdiff_t mark = mu_bytes_find(text, MU_B("\n[... "));
    assert_int_equal(mark, 32 << 10);
    size_t left_out = 0;
    assert_int_equal(sscanf(text.ptr + mark, "\n[... %zu bytes left out ...]\n", &left_out), 1);
    size_t marker = strlen("\n[... 154560 bytes left out ...]\n");
    assert_int_equal(left_out + text.len - marker, total);
    end_child(&c);
}

static void short_stderr_has_no_gap(void **state MU_UNUSED)
{
    struct child c = {0};
    run_sh(&c, "i=10000; while [ $i -lt 14000 ]; do echo line-$i; i=$((i+1)); done >&2", NULL);
    assert_int_equal(strlen(c.err), 4000 * strlen("line-10000\n"));
    assert_null(strstr(c.err, "left out"));
    end_child(&c);
}

static void what_cannot_be_started_says_why(void **state MU_UNUSED)
{
    struct {
        const char *program, *cwd;
        int why;
    } rows[] = {
        {"no-such-program-anywhere", NULL, ENOENT},
        {"/no/such/program", NULL, ENOENT},
        {"/etc/passwd", NULL, EACCES},
        {"/usr", NULL, EACCES},
        {"sh", "/no/such/folder", ENOENT},
        {"", NULL, ENOENT},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        struct child c = {0};
        const char *const argv[] = {rows[i].program, NULL};
        struct mu_process_request req = {.argv = argv, .cwd = rows[i].cwd, .timeout_ms = 1000};
        run_request(&c, &req);
        assert_int_equal(c.result.end, MU_PROCESS_NOT_STARTED);
        assert_int_equal(c.result.start_errno, rows[i].why);
        assert_int_equal(c.result.code, -1);
        end_child(&c);
    }
    const char *const none[] = {NULL};
    struct mu_process_request req = {.argv = none};
    struct mu_process *p;
    struct mu_loop *loop;
    assert_int_equal(mu_loop_new(&mu_env_real, "test", &loop), 0);
    assert_int_equal(mu_process_real.start(loop, &req, &p), MU_E_INVALID);
    mu_loop_free(loop);
}

static void the_environment_is_exactly_what_was_given(void **state MU_UNUSED)
{
    struct child c = {0};
    setenv("MU_TEST_LEAK", "yes", 1);
    const char *const argv[] = {"env", NULL};
    const char *const env[] = {"PATH=/usr/bin:/bin", "ONE=1", "TWO=a b", NULL};
    struct mu_process_request req = {.argv = argv, .env = env};
    run_request(&c, &req);
    assert_string_equal(c.out.ptr, "PATH=/usr/bin:/bin\nONE=1\nTWO=a b\n");
    end_child(&c);
}

static void no_descriptor_is_inherited(void **state MU_UNUSED)
{
    struct child c = {0};
    int high = fcntl(1, F_DUPFD, 700); /* without CLOEXEC */
    int low = fcntl(1, F_DUPFD, 3);
    run_sh(&c,
           "for f in /proc/self/fd/*; do echo ${f##*/}; done | sort -n | tr '\\n' ' '; "
           "exec ls /proc/self/fd | tr '\\n' ' '",
           NULL);
    close(high);
    close(low);
    /* The folder that the glob or ls itself has open is one more. */
    assert_null(strstr(c.out.ptr, "700"));
    assert_string_equal(strrchr(c.out.ptr, '0'), "0 1 2 3 ");
    end_child(&c);
}

static void the_child_is_set_up_as_promised(void **state MU_UNUSED)
{
    struct child c = {0};
    struct mu_process_request req = {
        .cwd = "/usr", .max_files = 77, .max_cpu_s = 5, .max_memory_bytes = INT64_C(3) << 30};
    signal(SIGHUP, SIG_IGN);
    sigset_t block, old;
    sigemptyset(&block);
    sigaddset(&block, SIGUSR2);
    sigprocmask(SIG_BLOCK, &block, &old);
    run_sh(&c,
           "pwd; umask; cat /proc/self/oom_score_adj; ulimit -n; ulimit -t; ulimit -v;"
           "while read k v; do case $k in NoNewPrivs:|SigIgn:|SigBlk:) echo $k$v;; esac; "
           "done </proc/self/status; read a b d e pgrp sid f </proc/self/stat;"
           "[ $pgrp = $$ ] && [ $sid = $$ ] && echo leader",
           &req);
    sigprocmask(SIG_SETMASK, &old, NULL);
    signal(SIGHUP, SIG_DFL);
    assert_string_equal(c.out.ptr, "/usr\n0077\n500\n77\n5\n3145728\n"
                                   "SigBlk:0000000000000000\nSigIgn:0000000000000000\n"
                                   "NoNewPrivs:1\nleader\n");
    end_child(&c);
}

static void no_signal_is_blocked_or_ignored_in_the_child(void **state MU_UNUSED)
{
    /* Without a shell, which would set its own mask. */
    const char *const argv[] = {"grep", "-E", "^Sig(Blk|Ign|Cgt)", "/proc/self/status", NULL};
    struct child c = {0};
    struct mu_process_request req = {.argv = argv};
    sigset_t block, old;
    sigemptyset(&block);
    sigaddset(&block, SIGUSR2);
    sigprocmask(SIG_BLOCK, &block, &old);
    run_request(&c, &req);
    sigprocmask(SIG_SETMASK, &old, NULL);
    assert_int_equal(
        strncmp(c.out.ptr, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n", 50), 0);
    end_child(&c);
}

static void killing_a_running_child_ends_it(void **state MU_UNUSED)
{
    struct child c = {.kill_at_output = true};
    struct mu_process_request req = {.kill_ms = 200};
    run_sh(&c, "trap '' TERM; echo up; sleep 600 & while :; do sleep 0.05; done", &req);
    assert_int_equal(c.result.end, MU_PROCESS_KILLED);
    assert_int_equal(c.result.signal, SIGKILL);
    assert_true(c.took_ms < 10000);
    end_child(&c);
}

static void killing_what_did_not_start_changes_nothing(void **state MU_UNUSED)
{
    int running = 1;
    struct child c = {.running = &running};
    const char *const argv[] = {"no-such-program-anywhere", NULL};
    struct mu_process_request req = {.argv = argv, .env = plain_env, .done = on_done, .arg = &c};
    assert_int_equal(mu_loop_new(&mu_env_real, "test", &c.loop), 0);
    assert_int_equal(mu_process_real.start(c.loop, &req, &c.process), 0);
    mu_process_real.kill(c.process);
    mu_loop_run(c.loop);
    mu_loop_free(c.loop);
    assert_int_equal(c.result.end, MU_PROCESS_NOT_STARTED);
    nothing_is_left();
}

static void a_child_that_somebody_else_reaps_ends_too(void **state MU_UNUSED)
{
    struct child c = {0};
    /* It waits for its input, so that it cannot be gone before it is watched. */
    struct mu_process_request req = {.input = MU_B("go\n")};
    signal(SIGCHLD, SIG_IGN); /* the kernel reaps */
    run_sh(&c, "read word; echo hello; exit 3", &req);
    signal(SIGCHLD, SIG_DFL);
    assert_int_equal(c.result.end, MU_PROCESS_EXITED);
    assert_int_equal(c.result.code, -1);
    assert_string_equal(c.out.ptr, "hello\n");
    end_child(&c);
}

static void fifty_children_at_once_keep_their_output_apart(void **state MU_UNUSED)
{
    enum { N = 50 };
    struct child *c = calloc(N, sizeof *c);
    struct mu_loop *loop;
    int running = N, fds = open_fds();
    assert_int_equal(mu_loop_new(&mu_env_real, "test", &loop), 0);
    for (int i = 0; i < N; i++) {
        char number[16];
        snprintf(number, sizeof number, "%d", i);
        const char *const argv[] = {"sh", "-c", "cat; echo $0; exit $0", number, NULL};
        struct mu_process_request req = {.argv = argv,
                                         .env = plain_env,
                                         .timeout_ms = 60000,
                                         .input = MU_B("in "),
                                         .on_output = on_output,
                                         .done = on_done,
                                         .arg = &c[i]};
        c[i].loop = loop;
        c[i].running = &running;
        mu_buf_init(&c[i].out, 1000);
        assert_int_equal(mu_process_real.start(loop, &req, &c[i].process), 0);
    }
    mu_loop_run(loop);
    mu_loop_free(loop);
    for (int i = 0; i < N; i++) {
        char want[32];
        snprintf(want, sizeof want, "in %d\n", i);
        assert_int_equal(c[i].done, 1);
        assert_int_equal(c[i].result.end, MU_PROCESS_EXITED);
        assert_int_equal(c[i].result.code, i);
        assert_true(mu_bytes_is(mu_buf_bytes(&c[i].out), want));
        mu_buf_fini(&c[i].out);
    }
    free(c);
    assert_int_equal(open_fds(), fds);
    nothing_is_left();
}

static void the_child_dies_with_the_thread_that_started_it(void **state MU_UNUSED)
{
    /* A process in between starts the child and is then killed without any chance to tidy up. */
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    pid_t between = fork();
    if (between == 0) {
        struct mu_loop *loop;
        struct mu_process *p;
        int running = 2;
        struct child c = {.running = &running};
        const char *const argv[] = {"sleep", "600", NULL};
        struct mu_process_request req = {
            .argv = argv, .env = plain_env, .done = on_done, .arg = &c};
        if (mu_loop_new(&mu_env_real, "test", &loop) < 0 ||
            mu_process_real.start(loop, &req, &p) < 0) {
            _exit(1);
        }
        ssize_t n MU_UNUSED = write(fds[1], "x", 1);
        mu_loop_run(loop);
        _exit(0);
    }
    char x;
    assert_int_equal(read(fds[0], &x, 1), 1);
    close(fds[0]);
    close(fds[1]);
    kill(between, SIGKILL);
    assert_int_equal(waitpid(between, NULL, 0), between);
    int status;
    assert_true(waitpid(-1, &status, 0) > 0); /* the orphan, adopted by us */
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    nothing_is_left();
}

static void find_searches_as_exec_does(void **state MU_UNUSED)
{
    char *p = mu_process_find("sh", "/nowhere::/bin:/usr/bin");
    assert_string_equal(p, "/bin/sh");
    mu_free(p);
    p = mu_process_find("/bin/sh", NULL);
    assert_string_equal(p, "/bin/sh");
    mu_free(p);
    p = mu_process_find("sh", NULL);
    assert_string_equal(p, "/bin/sh");
    mu_free(p);
    assert_null(mu_process_find("no-such-program-anywhere", "/bin:/usr/bin"));
    assert_null(mu_process_find("passwd", "/etc"));
    assert_null(mu_process_find("bin", "/usr"));
    assert_null(mu_process_find("/etc/passwd", NULL));
    assert_null(mu_process_find("", "/bin"));
    assert_null(mu_process_find("sh", ""));
}

struct alloc_case {
    struct mu_loop *loop;
    int done;
};

static void alloc_done(void *arg, const struct mu_process_result *result MU_UNUSED)
{
    struct alloc_case *a = arg;
    a->done++;
    mu_loop_stop(a->loop);
}

static int one_life(void *arg MU_UNUSED)
{
    struct alloc_case a = {0};
    int r = mu_loop_new(&mu_env_real, "test", &a.loop);
    if (r < 0) {
        return r;
    }
    const char *const argv[] = {"sh", "-c", "cat; seq 20000 >&2", NULL};
    struct mu_process_request req = {.argv = argv,
                                     .env = plain_env,
                                     .input = MU_B("x"),
                                     .timeout_ms = 20000,
                                     .done = alloc_done,
                                     .arg = &a};
    struct mu_process *p;
    r = mu_process_real.start(a.loop, &req, &p);
    if (r == 0) {
        mu_loop_run(a.loop);
        assert_int_equal(a.done, 1);
    }
    mu_loop_free(a.loop);
    return r;
}

static void no_failing_allocation_leaks(void **state MU_UNUSED)
{
    int fds = open_fds();
    each_allocation_fails(one_life, NULL);
    assert_int_equal(open_fds(), fds);
    nothing_is_left();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(input_comes_back_from_cat),
        cmocka_unit_test(a_child_that_ignores_5_mb_of_input_comes_to_no_harm),
        cmocka_unit_test(a_child_that_closes_its_input_and_goes_on_is_waited_for),
        cmocka_unit_test(exit_codes_and_stderr_are_told),
        cmocka_unit_test(death_by_a_signal_is_told),
        cmocka_unit_test(a_timeout_sends_term),
        cmocka_unit_test(who_ignores_term_is_killed),
        cmocka_unit_test(a_grandchild_of_the_group_dies_with_the_child),
        cmocka_unit_test(a_grandchild_outside_the_group_delays_the_end_by_two_seconds),
        cmocka_unit_test(a_flood_of_output_is_cut_off),
        cmocka_unit_test(a_flood_of_a_child_that_has_ended_is_a_flood_too),
        cmocka_unit_test(a_flood_from_outside_the_group_after_the_end_is_a_flood),
        cmocka_unit_test(a_flood_of_stderr_is_cut_off),
        cmocka_unit_test(stderr_keeps_head_and_tail),
        cmocka_unit_test(short_stderr_has_no_gap),
        cmocka_unit_test(what_cannot_be_started_says_why),
        cmocka_unit_test(the_environment_is_exactly_what_was_given),
        cmocka_unit_test(no_descriptor_is_inherited),
        cmocka_unit_test(the_child_is_set_up_as_promised),
        cmocka_unit_test(no_signal_is_blocked_or_ignored_in_the_child),
        cmocka_unit_test(killing_a_running_child_ends_it),
        cmocka_unit_test(killing_what_did_not_start_changes_nothing),
        cmocka_unit_test(a_child_that_somebody_else_reaps_ends_too),
        cmocka_unit_test(fifty_children_at_once_keep_their_output_apart),
        cmocka_unit_test(the_child_dies_with_the_thread_that_started_it),
        cmocka_unit_test(find_searches_as_exec_does),
        cmocka_unit_test(no_failing_allocation_leaks),
    };
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    struct mu_loop *first; /* libuv opens a pipe for the whole process with the first loop */
    if (mu_loop_new(&mu_env_real, "first", &first) == 0) {
        mu_loop_free(first);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
