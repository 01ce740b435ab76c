#include "../unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "../alloc_fail.h"
#include "base/err.h"
#include "exec/sandbox/box_int.h"
#include "exec/sandbox/ctl_int.h"
#include "exec/sandbox/disk_int.h"
#include "exec/sandbox/tree_int.h"
#include "io/folder.h"

/* --- the file `spec` --- */

static const char *some_argv[] = {"muster", "runner", NULL};
static const char *some_env[] = {"A=1=2", "B=", "C=two words", NULL};
static struct mu_box_mount some_mounts[] = {{"/a=b", "/workspace/a", 1}, {"/c", "/workspace/c", 0}};
static struct mu_box_checkout some_checkouts[] = {{"/base", "", "/objects"}, {"/x", "sub/dir", ""}};
static struct mu_box_harness some_harnesses[] = {{"claude", "/opt/x/claude"}};
static int64_t some_ports[] = {3128, 8081};

static struct mu_box full_box(void)
{
    struct mu_box b = {.id = "e-1", .worker_id = "w", .base = "", .bundle = "/agent", .epoch = 7};
    b.rung = 'C';
    b.range = 0x70010000;
    b.pids = 100;
    b.cgroup.rung = MU_CGROUP_V1;
    snprintf(b.cgroup.memory, sizeof b.cgroup.memory, "/sys/fs/cgroup/memory/x");
    b.argv = some_argv;
    b.n_argv = 2;
    b.env = some_env;
    b.n_env = 3;
    b.mounts = some_mounts;
    b.n_mounts = 2;
    b.checkouts = some_checkouts;
    b.n_checkouts = 2;
    b.harnesses = some_harnesses;
    b.n_harnesses = 1;
    b.ports = some_ports;
    b.n_ports = 2;
    return b;
}

static int write_and_read(void *arg)
{
    struct mu_box b = full_box(), *got = arg;
    struct mu_buf text;
    static struct mu_arena arena;
    struct mu_err err;
    mu_buf_init(&text, 1 << 20);
    mu_arena_fini(&arena);
    mu_arena_init(&arena, 1 << 20);
    mu_box_write(&b, &text);
    int r = text.failed ? text.failed : mu_box_read(mu_buf_bytes(&text), &arena, got, &err);
    mu_buf_fini(&text);
    if (r < 0) {
        assert_int_equal(r, -ENOMEM);
        mu_arena_fini(&arena);
    }
    return r;
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    struct mu_box got;
    assert_int_equal(write_and_read(&got), 0);
    assert_string_equal(got.id, "e-1");
    assert_int_equal(got.epoch, 7);
    assert_int_equal(got.range, 0x70010000);
    assert_string_equal(got.cgroup.memory, "/sys/fs/cgroup/memory/x");
    assert_int_equal(got.n_env, 3);
    assert_string_equal(got.env[0], "A=1=2");
    assert_string_equal(got.env[1], "B=");
    assert_null(got.env[3]);
    assert_null(got.argv[2]);
    assert_string_equal(got.mounts[0].source, "/a=b");
    assert_int_equal(got.mounts[0].writable, 1);
    assert_int_equal(got.mounts[1].writable, 0);
    assert_string_equal(got.checkouts[1].subdir, "sub/dir");
    assert_string_equal(got.harnesses[0].path, "/opt/x/claude");
    assert_int_equal(got.ports[1], 8081);
}

static void any_allocation_may_fail(void **state)
{
    (void)state;
    struct mu_box got;
    each_allocation_fails(write_and_read, &got);
    assert_int_equal(write_and_read(&got), 0); /* leaves the arena to be freed by the last call */
    mu_alloc_fail_at(0);
}

static int read_text(const char *text, size_t len)
{
    struct mu_arena arena;
    struct mu_box got;
    struct mu_err err;
    mu_arena_init(&arena, 1 << 20);
    int r = mu_box_read(mu_bytes_of(text, len), &arena, &got, &err);
    mu_arena_fini(&arena);
    return r;
}
#define READ(literal) read_text(literal, sizeof(literal) - 1)

static void a_spec_that_is_cut_or_odd_is_refused(void **state)
{
    (void)state;
    assert_int_equal(READ("id=a\0base=\0bundle=/x\0arg=m\0"), 0);
    assert_int_equal(READ("id=a\0base=\0bundle=/x\0arg=m"), MU_E_INVALID);
    assert_int_equal(READ("id=a/b\0base=\0bundle=/x\0arg=m\0"), MU_E_INVALID);
    assert_int_equal(READ("id=a\0base=\0bundle=/x\0arg=m\0nobody=1\0"), MU_E_INVALID);
    assert_int_equal(READ("id=a\0base=\0bundle=/x\0arg=m\0pids=x\0"), MU_E_INVALID);
    assert_int_equal(READ("id=a\0base=\0bundle=/x\0arg=m\0range=5\0"), MU_E_INVALID);
    assert_int_equal(READ("id=a\0base=\0bundle=/x\0arg=m\0port=70000\0"), MU_E_INVALID);
    assert_int_equal(READ("mount.target=/x\0"), MU_E_INVALID);
    assert_int_equal(READ("id=a\0base=\0bundle=/x\0"), MU_E_INVALID);
    assert_int_equal(READ(""), MU_E_INVALID);
}

/* --- the file `end` --- */

static void the_end_is_read_as_it_was_written(void **state)
{
    (void)state;
    char folder[] = "/tmp/mu-end-XXXXXX";
    struct mu_end e = {.exit_code = 125, .oom = 1, .cpu_ms = 5, .reason = "container_oom"}, got;
    snprintf(e.message, sizeof e.message, "a = b");
    assert_non_null(mkdtemp(folder));
    int fd = open(folder, O_RDONLY | O_DIRECTORY);
    assert_int_equal(mu_end_read(fd, &got), -ENOENT);
    assert_int_equal(mu_end_write(fd, &e), 0);
    assert_int_equal(mu_end_read(fd, &got), 0);
    assert_int_equal(got.exit_code, 125);
    assert_int_equal(got.oom, 1);
    assert_string_equal(got.reason, "container_oom");
    assert_string_equal(got.message, "a = b");
    assert_int_equal(mu_session_write(fd, "end", mu_str("garbage")), 0);
    assert_true(mu_end_read(fd, &got) < 0);
    unlinkat(fd, "end", 0);
    assert_int_equal(symlinkat("/etc/passwd", fd, "end"), 0);
    assert_true(mu_end_read(fd, &got) < 0);
    assert_int_equal(mu_folder_empty(fd), 0);
    close(fd);
    assert_int_equal(rmdir(folder), 0);
}

/* --- what is never shown --- */

static void secrets_of_etc_are_never_shown(void **state)
{
    (void)state;
    static const char *const no[] = {"shadow",
                                     "shadow-",
                                     "sudoers",
                                     "sudoers.d",
                                     "sudoers.d/x",
                                     "ssh",
                                     "ssh/x",
                                     "ssl/private",
                                     "ssl",
                                     "apt",
                                     "apt/auth.conf",
                                     "apt/auth.conf.d/x",
                                     "cron.d",
                                     "crontab",
                                     "krb5.keytab",
                                     "docker",
                                     "docker/key.json",
                                     "npmrc",
                                     "pip.conf",
                                     "environment",
                                     "../etc/shadow",
                                     "/etc/hosts",
                                     "",
                                     "x/../shadow",
                                     "muster",
                                     "kubernetes/admin.conf"};
    static const char *const yes[] = {"hosts.allow", "ssl/certs", "apt/sources.list", "gitconfig.d",
                                      "sshx"};
    for (size_t i = 0; i < MU_ARRAY_LEN(no); i++) {
        if (!mu_tree_etc_forbidden(no[i])) {
            fail_msg("%s is shown", no[i]);
        }
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(yes); i++) {
        if (mu_tree_etc_forbidden(yes[i])) {
            fail_msg("%s is not shown", yes[i]);
        }
    }
}

static int allowed(const char *source, const char *target)
{
    struct mu_box_mount m = {source, target, 0};
    struct mu_err err;
    return mu_tree_mount_allowed(&m, "/tmp/mu-state/s/e-1", &err);
}

static void mounts_cannot_show_the_host_nor_cover_the_tree(void **state)
{
    (void)state;
    assert_int_equal(allowed("/usr/share", "/workspace/share"), 0);
    assert_int_equal(allowed("/etc/hostname", "/opt/name"), 0);
    static const char *const sources[] = {"/",    "/proc",     "/proc/self", "/sys/kernel",
                                          "/dev", "/dev/null", "/tmp",       "/usr/.."};
    static const char *const targets[] = {"/",           "/usr/x",    "/etc/passwd", "/proc/x",
                                          "/dev/x",      "/agent/x",  "/run/x",      "/workspace",
                                          "/home/agent", "/tmp/../x", "x",           "/a//b",
                                          "/a/./b",      "/a/",       "/lib64/x"};
    for (size_t i = 0; i < MU_ARRAY_LEN(sources); i++) {
        if (allowed(sources[i], "/workspace/x") == 0) {
            fail_msg("%s may be mounted", sources[i]);
        }
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(targets); i++) {
        if (allowed("/usr/share", targets[i]) == 0) {
            fail_msg("%s may be covered", targets[i]);
        }
    }
    assert_int_equal(allowed("/nonexistent", "/workspace/x"), -ENOENT);
}

/* --- disk --- */

static int64_t used(int fd, int step, int64_t *entries)
{
    struct mu_disk d = {.depth = 0};
    int steps = 0;
    assert_int_equal(mu_disk_begin(&d, fd), 0);
    while (!mu_disk_step(&d, step)) {
        assert_true(++steps < 10000);
    }
    int64_t bytes = d.bytes;
    *entries = d.entries;
    mu_disk_end(&d);
    return bytes;
}

static void a_walk_counts_blocks_once_whatever_its_steps(void **state)
{
    (void)state;
    char folder[] = "/tmp/mu-disk-XXXXXX", command[400];
    int64_t entries;
    assert_non_null(mkdtemp(folder));
    snprintf(command, sizeof command,
             "cd %s && mkdir -p a/b c && head -c 1000000 /dev/zero > a/b/f && ln a/b/f c/g &&"
             "ln -s /usr link && mkfifo p && truncate -s 1G sparse && chmod 700 a",
             folder);
    assert_int_equal(system(command), 0);
    int fd = open(folder, O_RDONLY | O_DIRECTORY);
    int64_t all = used(fd, 100000, &entries);
    assert_int_equal(entries, 8);
    assert_true(all >= 1000000 && all < 1100000);
    assert_int_equal(used(fd, 1, &entries), all);
    assert_int_equal(mu_folder_empty(fd), 0);
    assert_true(used(fd, 10, &entries) < 20000);
    assert_int_equal(entries, 0);
    close(fd);
    assert_int_equal(rmdir(folder), 0);
}

/* --- control groups: places are found from text --- */

static void put(const char *folder, const char *name, const char *text)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void a_delegated_v2_subtree_is_divided(void **state)
{
    (void)state;
    char root[] = "/tmp/mu-cg-XXXXXX", mounts[200], command[200];
    struct mu_cgroup_place p;
    assert_non_null(mkdtemp(root));
    snprintf(command, sizeof command, "mkdir -p %s/user/unit/worker", root);
    assert_int_equal(system(command), 0);
    snprintf(command, sizeof command, "%s/user/unit", root);
    put(command, "cgroup.controllers", "cpu memory pids\n");
    /* What is written lands on the blanks. */
    put(command, "cgroup.subtree_control", "         cpu memory pids\n");
    put(command, "worker/cgroup.procs", "");
    snprintf(mounts, sizeof mounts, "30 1 0:26 / %s rw,nosuid - cgroup2 cgroup2 rw\n", root);
    mu_cgroup_probe_at(mounts, "0::/user/unit\n", "w", false, &p);
    assert_int_equal(p.rung, MU_CGROUP_DELEGATED);
    assert_string_equal(p.unified, command);
    assert_true(p.v2_memory && p.v2_pids);
    assert_string_equal(p.cause, "");
    /* The same when we are in our leaf already. */
    mu_cgroup_probe_at(mounts, "0::/user/unit/worker\n", "w", true, &p);
    assert_int_equal(p.rung, MU_CGROUP_ROOT);
    assert_string_equal(p.unified, command);
    /* Nothing is delegated. */
    put(command, "cgroup.controllers", "\n");
    mu_cgroup_probe_at(mounts, "0::/user/unit\n", "w", false, &p);
    assert_int_equal(p.rung, MU_CGROUP_NONE);
    assert_true(p.cause[0] && p.cure[0]);
    snprintf(command, sizeof command, "rm -r %s", root);
    assert_int_equal(system(command), 0);
}

static void garbage_about_control_groups_is_none(void **state)
{
    (void)state;
    static const char *const texts[] = {"",
                                        "\n\n",
                                        "a b c",
                                        " - cgroup2",
                                        "1 2 3 4 5 6 - cgroup memory",
                                        "0 0 0:0 / / - cgroup2 x y"};
    struct mu_cgroup_place p;
    for (size_t i = 0; i < MU_ARRAY_LEN(texts); i++) {
        for (size_t j = 0; j < MU_ARRAY_LEN(texts); j++) {
            mu_cgroup_probe_at(texts[i], texts[j], "w", false, &p);
            assert_int_equal(p.rung, MU_CGROUP_NONE);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(any_allocation_may_fail),
        cmocka_unit_test(a_spec_that_is_cut_or_odd_is_refused),
        cmocka_unit_test(the_end_is_read_as_it_was_written),
        cmocka_unit_test(secrets_of_etc_are_never_shown),
        cmocka_unit_test(mounts_cannot_show_the_host_nor_cover_the_tree),
        cmocka_unit_test(a_walk_counts_blocks_once_whatever_its_steps),
        cmocka_unit_test(a_delegated_v2_subtree_is_divided),
        cmocka_unit_test(garbage_about_control_groups_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
