#include "../unit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "../alloc_fail.h"
#include "base/buf.h"
#include "base/env.h"
#include "exec/sandbox/namespace_test.h"
#include "exec/sandbox/sandbox.h"

/* The driver with the real static program: each test starts real sandboxes. */

struct world {
    struct mu_loop *loop;
    struct mu_sandbox_driver *d;
    struct mu_sandbox_settings settings;
    char state[64];
    struct mu_timer guard;
};

struct run {
    struct world *w;
    struct mu_sandbox *s;
    struct mu_buf log;
    int64_t next_offset;
    struct mu_sandbox_result result;
    char reason[64], message[400];
    char states[200];
    int ended;
    bool stop_at_log, detach_at_log;
    const char *wait_for; /* leaves the loop when the log has it */
};

static void too_late(struct mu_timer *t MU_UNUSED)
{
    fail_msg("a sandbox does not end");
}

static void open_driver(struct world *w)
{
    struct mu_err err;
    if (mu_sandbox_namespace.open(w->loop, &w->settings, &w->d, &err) < 0) {
        fail_msg("%s", err.text);
    }
}

static void open_world(struct world *w)
{
    *w = (struct world){.state = "/tmp/mu-ns-XXXXXX"};
    assert_non_null(mkdtemp(w->state));
    assert_int_equal(mu_loop_new(&mu_env_real, "test", &w->loop), 0);
    w->settings = (struct mu_sandbox_settings){
        .env = &mu_env_real,
        .state_dir = w->state,
        .bundle_dir = MU_TEST_AGENT,
        .worker_id = "unit-test",
        .pids = 256,
    };
    open_driver(w);
    mu_timer_init(&w->guard, w->loop, too_late);
    assert_int_equal(mu_timer_set(&w->guard, 60000), 0);
}

static void close_world(struct world *w)
{
    char path[80];
    w->d = mu_sandbox_namespace.close(w->d);
    mu_timer_clear(&w->guard);
    w->loop = mu_loop_free(w->loop);
    snprintf(path, sizeof path, "%s/s", w->state);
    assert_int_equal(rmdir(path), 0); /* every session was released */
    assert_int_equal(rmdir(w->state), 0);
    while (waitpid(-1, NULL, 0) > 0) {
    }
}

static int set_up(void **state)
{
    static struct world w;
    open_world(&w);
    *state = &w;
    return 0;
}

static int tear_down(void **state)
{
    close_world(*state);
    return 0;
}

static void on_state(void *arg, const char *state, const char *detail MU_UNUSED)
{
    struct run *r = arg;
    size_t n = strlen(r->states);
    snprintf(r->states + n, sizeof r->states - n, "%s ", state);
}

static void on_log(void *arg, int64_t offset, mu_bytes bytes)
{
    struct run *r = arg;
    assert_int_equal(offset, r->next_offset);
    r->next_offset = offset + (int64_t)bytes.len;
    mu_buf_add(&r->log, bytes);
    if (r->stop_at_log) {
        mu_sandbox_namespace.stop(r->s, true, "task_cancelled");
    }
    if (r->wait_for && mu_bytes_find(mu_buf_bytes(&r->log), mu_str(r->wait_for)) >= 0) {
        r->wait_for = NULL;
        mu_loop_stop(r->w->loop);
    }
}

static void on_ended(void *arg, const struct mu_sandbox_result *result)
{
    struct run *r = arg;
    r->ended++;
    r->result = *result;
    snprintf(r->reason, sizeof r->reason, "%s",
             result->failure_reason ? result->failure_reason : "");
    snprintf(r->message, sizeof r->message, "%s", result->message ? result->message : "");
    mu_loop_stop(r->w->loop);
}
static const struct mu_sandbox_events events = {on_state, on_log, on_ended};

static const char *const shell_env[] = {"OZ_HARNESS=shell", "TASK_ID=t", NULL};
static const char *const no_args[] = {NULL};

static void start(struct world *w, struct run *r, const char *id, const char *script,
                  struct mu_sandbox_spec *spec)
{
    static struct mu_sandbox_spec plain;
    if (!spec) {
        plain = (struct mu_sandbox_spec){0};
        spec = &plain;
    }
    *r = (struct run){.w = w};
    mu_buf_init(&r->log, 1 << 20);
    spec->execution_id = id;
    spec->env = spec->env ? spec->env : shell_env;
    spec->argv = no_args;
    spec->prompt = mu_str(script);
    assert_int_equal(mu_sandbox_namespace.start(w->d, spec, &events, r, &r->s), 0);
    assert_int_equal(r->ended, 0);
}

static bool said(const struct run *r, const char *text)
{
    return mu_bytes_find(mu_buf_bytes(&r->log), mu_str(text)) >= 0;
}

static void expect_said(const struct run *r, const char *text)
{
    if (!said(r, text)) {
        fail_msg("not said: %s\nlog: %.*s\nend: %d %s %s", text, (int)r->log.len,
                 r->log.ptr ? r->log.ptr : "", r->result.exit_code, r->reason, r->message);
    }
}

static void on_released(void *arg)
{
    mu_loop_stop(((struct run *)arg)->w->loop);
}

static void release(struct run *r)
{
    mu_sandbox_namespace.release(r->s, on_released, r);
    mu_loop_run(r->w->loop);
    mu_buf_fini(&r->log);
}

static void run_script(struct world *w, struct run *r, const char *script,
                       struct mu_sandbox_spec *spec)
{
    start(w, r, "e-1", script, spec);
    mu_loop_run(w->loop);
    assert_int_equal(r->ended, 1);
}

/* --- what a task sees --- */

static void a_script_runs_and_its_output_and_status_arrive(void **state)
{
    struct world *w = *state;
    struct run r;
    run_script(w, &r, "echo hello from inside; id -u; pwd; hostname; exit 7", NULL);
    expect_said(&r, "hello from inside\n1000\n/workspace\nsandbox\n");
    assert_int_equal(r.result.exit_code, 7);
    assert_string_equal(r.reason, "");
    assert_false(r.result.oom);
    assert_string_equal(r.states, "starting running ");
    release(&r);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* its keeper is no zombie */
}

static void nothing_of_the_host_is_seen(void **state)
{
    struct world *w = *state;
    struct run r;
    run_script(w, &r,
               "cat /etc/shadow; ls /root; ls -d /proc/[0-9]* | wc -l; cat /proc/net/dev | wc -l\n"
               "touch /usr/x /agent/x /etc/x; touch /workspace/ok && echo wrote\n"
               "cat /proc/self/status | grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):'",
               NULL);
    expect_said(&r, "/etc/shadow: No such file or directory");
    expect_said(&r, "wrote");
    expect_said(
        &r, "CapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2");
    assert_false(said(&r, "cannot touch '/workspace"));
    expect_said(&r, "Read-only file system");
    release(&r);
}

/* A core of size 0 would still go to the host's core handler. */
static void limits_are_what_the_design_says(void **state)
{
    struct world *w = *state;
    struct run r;
    struct rlimit files;
    char line[120];
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
    run_script(w, &r, "sed -nE 's/^Max (core file size|open files) +//p' /proc/self/limits", NULL);
    expect_said(&r, "1                    1                    bytes");
    snprintf(line, sizeof line, "1024                 %-21llufiles",
             (unsigned long long)MU_MIN(files.rlim_max, (rlim_t)16384));
    expect_said(&r, line);
    release(&r);
}

static void a_mount_for_writing_is_written_to_and_another_is_not(void **state)
{
    struct world *w = *state;
    struct run r;
    char ro[100], rw[100], mounts[256], path[120];
    snprintf(ro, sizeof ro, "%s-ro", w->state);
    snprintf(rw, sizeof rw, "%s-rw", w->state);
    assert_true(mkdir(ro, 0777) == 0 && chmod(ro, 0777) == 0);
    assert_true(mkdir(rw, 0777) == 0 && chmod(rw, 0777) == 0);
    snprintf(mounts, sizeof mounts, "%s:/data/ro,%s:/data/rw:rw", ro, rw);
    mu_sandbox_namespace.close(w->d);
    w->settings.extra_ro = mounts;
    open_driver(w);
    run_script(w, &r, "touch /data/ro/x || echo refused; touch /data/rw/x && echo written", NULL);
    expect_said(&r, "refused\nwritten\n");
    release(&r);
    snprintf(path, sizeof path, "%s/x", rw);
    assert_int_equal(unlink(path), 0);
    assert_true(rmdir(rw) == 0 && rmdir(ro) == 0);
}

static void a_task_that_is_stopped_gets_term_and_carries_the_reason(void **state)
{
    struct world *w = *state;
    struct run r;
    start(w, &r, "e-1", "trap 'echo got term; exit 3' TERM; echo up; sleep 60 & wait", NULL);
    r.stop_at_log = true;
    mu_loop_run(w->loop);
    assert_string_equal(r.reason, "task_cancelled");
    expect_said(&r, "got term");
    release(&r);
}

static void one_that_ignores_term_is_killed_with_all_it_started(void **state)
{
    struct world *w = *state;
    struct run r;
    struct mu_sandbox_spec spec = {.stop_grace_ms = 300};
    start(w, &r, "e-1", "trap '' TERM; (setsid sleep 77 &) ; echo up; while :; do sleep 1; done",
          &spec);
    r.stop_at_log = true;
    mu_loop_run(w->loop);
    assert_string_equal(r.reason, "task_cancelled");
    assert_true(r.result.exit_code == 137 || r.result.exit_code == 143);
    release(&r);
}

static void the_time_limit_is_kept_by_the_keeper(void **state)
{
    struct world *w = *state;
    struct run r;
    struct mu_sandbox_spec spec = {.timeout_ms = 400, .stop_grace_ms = 200};
    run_script(w, &r, "echo up; sleep 60", &spec);
    assert_string_equal(r.reason, "task_timeout");
    release(&r);
}

static void the_log_is_capped_and_the_task_goes_on(void **state)
{
    struct world *w = *state;
    struct run r;
    struct mu_sandbox_spec spec = {.log_bytes = 10000};
    run_script(w, &r, "yes 0123456789 | head -c 300000; exit 4", &spec);
    assert_int_equal(r.log.len, 10000);
    assert_int_equal(r.result.exit_code, 4);
    release(&r);
}

static void a_start_that_fails_names_step_and_cause(void **state)
{
    struct world *w = *state;
    struct run r;
    static const struct mu_sandbox_mount bad = {"/proc", "/workspace/p", false, false};
    struct mu_sandbox_spec spec = {.mounts = &bad, .n_mounts = 1};
    run_script(w, &r, "echo never", &spec);
    assert_int_equal(r.result.exit_code, 125);
    assert_string_equal(r.reason, "volume_mount");
    assert_non_null(strstr(r.message, "/proc"));
    release(&r);
}

/* --- files --- */

struct reading {
    struct world *w;
    int result;
    char text[256];
    int done;
};

static void on_read(void *arg, int result, mu_bytes bytes)
{
    struct reading *x = arg;
    x->result = result;
    snprintf(x->text, sizeof x->text, "%.*s", MU_ARGS(bytes));
    x->done++;
    mu_loop_stop(x->w->loop);
}

static void expect_read(struct run *r, const char *path, size_t max, int result, const char *text)
{
    struct reading x = {.w = r->w};
    mu_sandbox_namespace.read_file(r->s, path, max, on_read, &x);
    mu_loop_run(r->w->loop);
    assert_int_equal(x.done, 1);
    if (x.result != result || (text && strcmp(x.text, text) != 0)) {
        fail_msg("%s: %d (%s), \"%s\"", path, x.result, mu_err_text(x.result), x.text);
    }
}

static void files_come_out_and_tricks_do_not(void **state)
{
    struct world *w = *state;
    struct run r;
    run_script(
        w, &r,
        "cd /workspace; mkdir -p d/e; echo one > d/e/f; ln -s /etc/passwd abs; ln -s d/e/f rel\n"
        "ln -s d link; ln d/e/f hard2; echo alone > a; mkfifo pipe; ln -s ../spec up\n"
        "ln -s self self; truncate -s 4G sparse; ln -s /proc/self/exe magic; mkdir dir\n"
        "ln -s a one; mkdir g; echo one > g/f; ln -s g way", /* to what could be read */
        NULL);
    assert_int_equal(r.result.exit_code, 0);
    expect_read(&r, "/workspace/a", 100, 0, "alone\n");
    expect_read(&r, "/workspace/a", 3, MU_E_TOO_LARGE, "alo");
    expect_read(&r, "/workspace/d/e/f", 100, MU_E_INVALID, ""); /* two names */
    static const char *const bad[] = {"abs",  "rel",   "link/e/f", "pipe",    "up",
                                      "self", "magic", "dir",      "../spec", "d/../a",
                                      "/a",   "hard2", ".",        "one",     "way/f"};
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        char path[64];
        snprintf(path, sizeof path, "/workspace/%s", bad[i]);
        expect_read(&r, path, 100, MU_E_INVALID, "");
    }
    expect_read(&r, "/workspace/none", 100, MU_E_NOT_FOUND, "");
    expect_read(&r, "/workspace/a/b", 100, MU_E_NOT_FOUND, "");
    expect_read(&r, "/etc/passwd", 100, MU_E_INVALID, "");
    expect_read(&r, "/elsewhere/a", 100, MU_E_INVALID, "");
    if (geteuid() == 0) { /* whose it is tells that nobody inside wrote it */
        char path[128];
        snprintf(path, sizeof path, "%s/s/e-1/workspace/theirs", w->state);
        close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
        expect_read(&r, "/workspace/theirs", 100, MU_E_INVALID, "");
    }
    expect_read(&r, "/workspace/sparse", 16, MU_E_TOO_LARGE, NULL);
    release(&r);
}

static void result_json_and_the_prompt_are_there(void **state)
{
    struct world *w = *state;
    struct run r;
    struct reading x;
    run_script(w, &r, "echo done", NULL);
    expect_read(&r, "/workspace/.oz/prompt.txt", 100, 0, "echo done");
    x = (struct reading){.w = w};
    mu_sandbox_namespace.read_file(r.s, "/workspace/.oz/result.json", 4096, on_read, &x);
    mu_loop_run(w->loop);
    assert_int_equal(x.result, 0);
    assert_non_null(strstr(x.text, "\"exit_code\":0"));
    release(&r);
}

/* --- an overlay of a checked-out base --- */

static void write_text(const char *folder, const char *name, const char *text)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void a_base_is_under_the_workspace_and_stays_untouched(void **state MU_UNUSED)
{
    struct world w;
    struct run r;
    char base[] = "/tmp/mu-base-XXXXXX", command[100];
    assert_non_null(mkdtemp(base));
    write_text(base, "file", "from the base\n");
    write_text(base, "gone", "x\n");
    struct mu_sandbox_checkout checkout = {.tree = base, .subdir = ""};
    struct mu_sandbox_spec spec = {.checkouts = &checkout, .n_checkouts = 1};
    open_world(&w);
    run_script(
        &w, &r,
        "cat file; stat -c %u file; rm gone; echo changed > file2; echo more >> file; cat file",
        &spec);
    assert_int_equal(r.result.exit_code, 0);
    expect_said(&r, "from the base\n1000\nfrom the base\nmore\n");
    expect_read(&r, "/workspace/file2", 100, 0, "changed\n");
    expect_read(&r, "/workspace/file", 100, 0, "from the base\nmore\n");
    expect_read(&r, "/workspace/gone", 100, MU_E_NOT_FOUND, "");
    release(&r);
    run_script(&w, &r, "echo nothing", &spec);
    expect_read(&r, "/workspace/file", 100, 0, "from the base\n"); /* the lower layer's own */
    release(&r);
    close_world(&w);
    snprintf(command, sizeof command, "rm -r %s", base);
    assert_int_equal(system(command), 0);
}

/* --- workers come and go --- */

static void a_sandbox_outlives_its_worker_and_is_adopted(void **state)
{
    struct world *w = *state;
    struct run r, again;
    start(w, &r, "e-1", "echo one; until [ -e go ]; do sleep 0.05; done; echo two; exit 5", NULL);
    r.wait_for = "one\n";
    mu_loop_run(w->loop);
    int64_t offset = r.next_offset;
    mu_sandbox_namespace.detach(r.s);
    mu_buf_fini(&r.log);
    w->d = mu_sandbox_namespace.close(w->d);
    open_driver(w);
    again = (struct run){.w = w, .next_offset = offset};
    mu_buf_init(&again.log, 1 << 20);
    assert_int_equal(mu_sandbox_namespace.adopt(w->d, "e-1", offset, &events, &again, &again.s), 0);
    char path[120];
    snprintf(path, sizeof path, "%s/s/e-1/workspace", w->state);
    write_text(path, "go", "");
    mu_loop_run(w->loop);
    assert_int_equal(again.ended, 1);
    assert_int_equal(again.result.exit_code, 5);
    expect_said(&again, "two\n");
    assert_false(said(&again, "one\n"));
    /* Once more, now that it has ended. */
    mu_sandbox_namespace.detach(again.s);
    mu_buf_fini(&again.log);
    again = (struct run){.w = w};
    mu_buf_init(&again.log, 1 << 20);
    assert_int_equal(mu_sandbox_namespace.adopt(w->d, "e-1", 0, &events, &again, &again.s), 0);
    mu_loop_run(w->loop);
    assert_int_equal(again.result.exit_code, 5);
    expect_said(&again, "one\n");
    release(&again);
}

static void of_an_execution_without_a_trace_the_end_is_unknown(void **state)
{
    struct world *w = *state;
    struct run r = {.w = w};
    mu_buf_init(&r.log, 1000);
    assert_int_equal(mu_sandbox_namespace.adopt(w->d, "never-was", 0, &events, &r, &r.s), 0);
    mu_loop_run(w->loop);
    assert_int_equal(r.result.exit_code, -1);
    assert_string_equal(r.reason, "unknown");
    release(&r);
}

static void on_swept(void *arg, size_t removed)
{
    struct world *w = arg;
    assert_int_equal(removed, 1);
    mu_loop_stop(w->loop);
}

static void a_sweep_ends_what_nobody_wants(void **state)
{
    struct world *w = *state;
    struct run r, kept;
    start(w, &r, "e-left", "echo up; sleep 60", NULL);
    r.wait_for = "up\n";
    mu_loop_run(w->loop);
    mu_sandbox_namespace.detach(r.s);
    mu_buf_fini(&r.log);
    start(w, &kept, "e-kept", "echo up; sleep 0.5; exit 6", NULL);
    kept.wait_for = "up\n";
    mu_loop_run(w->loop);
    mu_sandbox_namespace.sweep(w->d, NULL, 0, on_swept, w);
    mu_loop_run(w->loop);
    if (!kept.ended) {
        mu_loop_run(w->loop);
    }
    assert_int_equal(kept.result.exit_code, 6);
    release(&kept);
}

static void deep_and_closed_folders_are_removed_too(void **state)
{
    struct world *w = *state;
    struct run r;
    run_script(
        w, &r,
        "cd /tmp; i=0; while [ $i -lt 3000 ]; do mkdir d && cd d; i=$((i+1)); done; touch f\n"
        "cd /workspace; mkdir -p a/b/c; touch a/b/c/x; chmod 0 a/b; chmod 500 a; ln -s / a2",
        NULL);
    assert_int_equal(r.result.exit_code, 0);
    release(&r);
}

/* --- limits --- */

static void a_disk_limit_ends_the_task(void **state)
{
    struct world *w = *state;
    struct run r;
    struct mu_sandbox_spec spec = {.disk_bytes = 20 << 20};
    run_script(w, &r,
               "i=0; while [ $i -lt 5 ]; do head -c 8000000 /dev/zero > f$i; i=$((i+1)); done\n"
               "sleep 30",
               &spec);
    assert_string_equal(r.reason, "disk_limit");
    release(&r);
}

static void what_lies_deep_counts_as_well(void **state)
{
    struct world *w = *state;
    struct run r;
    struct mu_sandbox_spec spec = {.disk_bytes = 20 << 20};
    run_script(w, &r,
               "cd /tmp; i=0; while [ $i -lt 2200 ]; do mkdir d && cd d; i=$((i+1)); done\n"
               "i=0; while [ $i -lt 5 ]; do head -c 8000000 /dev/zero > f$i; i=$((i+1)); done\n"
               "sleep 30",
               &spec);
    assert_string_equal(r.reason, "disk_limit");
    release(&r);
}

static void the_memory_limit_is_told_from_the_counter(void **state)
{
    struct world *w = *state;
    struct run r;
    struct mu_sandbox_spec spec = {.memory_bytes = 64 << 20};
    run_script(w, &r, "exec perl -e '$x = \"a\" x (200 << 20); sleep 20; print length $x'", &spec);
    assert_string_equal(r.reason, "container_oom");
    assert_true(r.result.oom);
    release(&r);
}

/* --- a base of its own --- */

static void an_unpacked_base_and_a_fake_root(void **state MU_UNUSED)
{
    struct world w;
    struct run r;
    char base[] = "/tmp/mu-base-XXXXXX", command[1200];
    assert_non_null(mkdtemp(base));
    snprintf(command, sizeof command,
             "chmod 755 %s; cd %s; mkdir -p bin etc usr lib64; for p in sh cat id chown head touch "
             "ls mkdir; do "
             "f=$(readlink -f $(command -v $p)); cp $f bin/$p; ldd $f | grep -o '/[^ ]*'; done | "
             "sort -u |"
             "while read l; do mkdir -p .$(dirname $l); cp -L $l .$l; done; echo base > etc/marker",
             base, base);
    assert_int_equal(system(command), 0);
    struct mu_sandbox_spec spec = {.base = base, .fake_root = true};
    open_world(&w);
    run_script(&w, &r,
               "cat /etc/marker; id -u; touch /etc/new && chown 7:7 /etc/new && echo owned\n"
               "mkdir -p /usr/share/x && ls /usr; ls /home; cat /etc/passwd | head -1",
               &spec);
    expect_said(&r, "base\n0\nowned\nshare\nagent\n");
    assert_int_equal(r.result.exit_code, 0);
    release(&r);
    close_world(&w);
    snprintf(command, sizeof command, "%s/etc/new", base);
    assert_int_equal(access(command, F_OK), -1); /* the base is as it was */
    snprintf(command, sizeof command, "rm -r %s", base);
    assert_int_equal(system(command), 0);
}

/* --- no memory --- */

static int whole_life(void *arg)
{
    struct world *w = arg;
    struct run r = {.w = w};
    struct mu_sandbox_spec spec = {
        .execution_id = "e-1", .env = shell_env, .argv = no_args, .prompt = mu_str("exit 0")};
    int result = mu_sandbox_namespace.start(w->d, &spec, &events, &r, &r.s);
    mu_buf_init(&r.log, 1000);
    if (result < 0) {
        assert_int_equal(result, -ENOMEM);
        return result;
    }
    mu_loop_run(w->loop);
    assert_int_equal(r.ended, 1);
    mu_sandbox_namespace.release(r.s, on_released, &r);
    mu_loop_run(w->loop);
    mu_buf_fini(&r.log);
    return 0;
}

static void any_allocation_of_a_whole_life_may_fail(void **state)
{
    struct world *w = *state;
    each_allocation_fails(whole_life, w);
}

/* --- what protects --- */

static struct mu_sandbox_report report;

static void on_checked(void *arg, const struct mu_sandbox_report *r)
{
    report = *r;
    mu_loop_stop(((struct world *)arg)->loop);
}

static void the_check_says_what_really_protects(void **state)
{
    struct world *w = *state;
    assert_int_equal(mu_sandbox_namespace.check(w->d, on_checked, w), 0);
    mu_loop_run(w->loop);
    print_message("%s: %s\n", report.strength, report.summary);
    bool all = true;
    for (size_t i = 0; i < report.n_layers; i++) {
        const struct mu_sandbox_layer *l = &report.layers[i];
        print_message("  %-14s %-3s %s%s%s%s%s\n", l->name, l->active ? "yes" : "no", l->detail,
                      l->cause[0] ? " ! " : "", l->cause, l->cure[0] ? " -> " : "", l->cure);
        all =
            all && (l->active || strcmp(l->name, "cgroup") == 0 || strcmp(l->name, "memory") == 0);
    }
    assert_true(report.usable);
    assert_true(all);
    assert_string_equal(report.strength, geteuid() == 0 ? "full (root worker)" : "full");
    assert_true(report.checkouts);
}

static void without_namespaces_landlock_and_the_filter_still_hold(void **state)
{
    struct world *w = *state;
    struct run r;
    mu_sandbox_namespace_rung(w->d, 'D');
    run_script(w, &r,
               "echo here; cat /etc/shadow; ls /root /home; cat /proc/1/environ\n"
               "perl -MSocket -e 'socket(S, AF_INET, SOCK_STREAM, 0) or print \"$!\\n\"'\n"
               "perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0) and print \"unix\\n\"'\n"
               "kill -0 1; (setsid sleep 3 &); echo x > out; exit 3",
               NULL);
    expect_said(&r, "here\n");
    expect_said(&r, "/etc/shadow: Permission denied");
    expect_said(&r, "'/root': Permission denied");
    expect_said(&r, "Address family not supported by protocol\nunix\n");
    assert_int_equal(r.result.exit_code, 3);
    expect_read(&r, "/workspace/out", 10, 0, "x\n");
    release(&r);
}

static void bubblewrap_makes_the_namespaces_where_we_may_not(void **state)
{
    struct world *w = *state;
    struct run r;
    if (geteuid() == 0) {
        skip(); /* root makes them itself; unit.exec.test_namespace_user runs this as somebody else
                 */
    }
    if (access("/usr/bin/bwrap", X_OK) < 0) {
        fail_msg("bubblewrap is not installed: script/bootstrap test");
    }
    mu_sandbox_namespace_rung(w->d, 'B');
    run_script(w, &r,
               "id -u; pwd; cat /etc/shadow; echo $HOME; unshare -U true; echo x > out; exit 3",
               NULL);
    expect_said(&r, "1000\n/workspace\n");
    expect_said(&r, "/etc/shadow: No such file");
    expect_said(&r, "unshare failed: Operation not permitted");
    assert_int_equal(r.result.exit_code, 3);
    expect_read(&r, "/workspace/out", 10, 0, "x\n");
    release(&r);
    start(w, &r, "e-1", "trap 'echo got term; exit 3' TERM; echo up; sleep 60 & wait", NULL);
    r.stop_at_log = true;
    mu_loop_run(w->loop);
    assert_string_equal(r.reason, "task_cancelled");
    expect_said(&r, "got term");
    release(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_script_runs_and_its_output_and_status_arrive, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(nothing_of_the_host_is_seen, set_up, tear_down),
        cmocka_unit_test_setup_teardown(limits_are_what_the_design_says, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_mount_for_writing_is_written_to_and_another_is_not,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_task_that_is_stopped_gets_term_and_carries_the_reason,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_that_ignores_term_is_killed_with_all_it_started, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(the_time_limit_is_kept_by_the_keeper, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_log_is_capped_and_the_task_goes_on, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_start_that_fails_names_step_and_cause, set_up, tear_down),
        cmocka_unit_test_setup_teardown(files_come_out_and_tricks_do_not, set_up, tear_down),
        cmocka_unit_test_setup_teardown(result_json_and_the_prompt_are_there, set_up, tear_down),
        cmocka_unit_test(a_base_is_under_the_workspace_and_stays_untouched),
        cmocka_unit_test_setup_teardown(a_sandbox_outlives_its_worker_and_is_adopted, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(of_an_execution_without_a_trace_the_end_is_unknown, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_sweep_ends_what_nobody_wants, set_up, tear_down),
        cmocka_unit_test_setup_teardown(deep_and_closed_folders_are_removed_too, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_disk_limit_ends_the_task, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_lies_deep_counts_as_well, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_memory_limit_is_told_from_the_counter, set_up,
                                        tear_down),
        cmocka_unit_test(an_unpacked_base_and_a_fake_root),
        cmocka_unit_test_setup_teardown(any_allocation_of_a_whole_life_may_fail, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_check_says_what_really_protects, set_up, tear_down),
        cmocka_unit_test_setup_teardown(without_namespaces_landlock_and_the_filter_still_hold,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(bubblewrap_makes_the_namespaces_where_we_may_not, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
