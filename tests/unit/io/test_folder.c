/* What something untrusted left is removed, and nothing else. */
#include "../unit.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "io/folder.h"

enum { NOBODY = 65534 };

struct place {
    char path[32];
    int fd;
};

static int begin(void **state)
{
    static struct place p;
    snprintf(p.path, sizeof p.path, "/tmp/mu-folder-XXXXXX");
    assert_non_null(mkdtemp(p.path));
    p.fd = open(p.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(p.fd >= 0);
    *state = &p;
    return 0;
}

static int end(void **state)
{
    struct place *p = *state;
    close(p->fd);
    assert_int_equal(mu_folder_remove(p->path), 0);
    assert_int_equal(access(p->path, F_OK), -1);
    return 0;
}

static void put(int at, const char *name)
{
    int fd = openat(at, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
}

static int make(int at, const char *name)
{
    assert_int_equal(mkdirat(at, name, 0755), 0);
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static bool there(int at, const char *name)
{
    return faccessat(at, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* `levels` folders, each in the one before and with a file beside it; the outermost has `name`. */
static void dig(int at, const char *name, int levels)
{
    int fd = make(at, name);
    for (int i = 1; i < levels; i++) {
        int next = make(fd, "d");
        put(fd, "f");
        close(fd);
        fd = next;
    }
    close(fd);
}

static void what_is_not_there_is_removed_already(void **state)
{
    struct place *p = *state;
    assert_int_equal(mu_folder_remove_at(p->fd, "nothing"), 0);
    assert_int_equal(mu_folder_remove("/nonexistent/x"), 0);
    put(p->fd, "file");
    assert_int_equal(mu_folder_remove_at(p->fd, "file/x"), -ENOTDIR);
    assert_int_equal(mu_folder_remove_at(p->fd, "file"), 0);
    assert_false(there(p->fd, "file"));
}

static void links_are_removed_and_never_followed(void **state)
{
    struct place *p = *state;
    int keep = make(p->fd, "keep"), gone = make(p->fd, "gone");
    put(keep, "file");
    assert_int_equal(symlinkat("../keep", gone, "link"), 0);
    assert_int_equal(symlinkat("../keep/file", gone, "file"), 0);
    assert_int_equal(mkfifoat(gone, "pipe", 0600), 0);
    assert_int_equal(symlinkat("keep", p->fd, "outer"), 0);
    assert_int_equal(mu_folder_remove_at(p->fd, "outer"), 0);
    assert_int_equal(mu_folder_remove_at(p->fd, "gone"), 0);
    assert_false(there(p->fd, "outer"));
    assert_false(there(p->fd, "gone"));
    assert_true(there(keep, "file"));
    close(keep);
    close(gone);
}

static void a_tree_may_be_deeper_than_descriptors_and_stack(void **state)
{
    struct place *p = *state;
    int d = make(p->fd, "d");
    dig(d, "one", 3000);
    dig(d, "two", 200);
    dig(d, "three", 49);
    close(d);
    assert_int_equal(mu_folder_remove_at(p->fd, "d"), 0);
    assert_false(there(p->fd, "d"));
}

static void names_that_removing_uses_itself_may_be_taken(void **state)
{
    struct place *p = *state;
    int d = make(p->fd, "d");
    dig(d, "deep", 120);
    put(d, ".muster-0");
    dig(d, ".muster-1", 2);
    assert_int_equal(symlinkat("/", d, ".muster-2"), 0);
    dig(d, ".muster-3", 120);
    close(d);
    assert_int_equal(mu_folder_remove_at(p->fd, "d"), 0);
    assert_false(there(p->fd, "d"));
}

static void emptying_leaves_the_folder(void **state)
{
    struct place *p = *state;
    dig(p->fd, "deep", 100);
    put(p->fd, "file");
    assert_int_equal(mu_folder_empty(p->fd), 0);
    assert_false(there(p->fd, "deep"));
    assert_false(there(p->fd, "file"));
    assert_true(there(p->fd, "."));
    assert_int_equal(mu_folder_empty(p->fd), 0);
}

/* Runs fn in a child: 0 = as it should be, 77 = cannot be tried here. */
static void in_child(struct place *p, int (*fn)(struct place *p))
{
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        _exit(fn(p));
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

static int closed_folders(struct place *p)
{
    static const mode_t modes[] = {0, 0100, 0400, 0500, 0300, 0600};
    if (geteuid() == 0 && (fchown(p->fd, NOBODY, NOBODY) < 0 || seteuid(NOBODY) < 0)) {
        return 77;
    }
    int d = make(p->fd, "d");
    for (int i = 0; i < (int)MU_ARRAY_LEN(modes); i++) {
        char name[8];
        snprintf(name, sizeof name, "m%d", i);
        int inner = make(d, name);
        dig(inner, "deep", 2);
        put(inner, "file");
        if (fchmod(inner, modes[i]) < 0) {
            return 1;
        }
        close(inner);
    }
    mode_t mode;
    int fd = mu_folder_open(d, "m0", &mode);
    if (fd < 0 || mode != 0 || fchmod(fd, 0300) < 0) {
        return 2;
    }
    close(fd);
    fd = mu_folder_open(d, "m0", &mode);
    if (fd < 0 || mode != 0300) {
        return 3;
    }
    close(fd);
    if (fchmod(d, 0) < 0 || mu_folder_remove_at(p->fd, "d") != 0 || there(p->fd, "d")) {
        return 4;
    }
    return 0;
}

static void a_folder_that_its_owner_closed_is_removed_too(void **state)
{
    in_child(*state, closed_folders);
}

static int nobodys_folders(struct place *p)
{
    if (geteuid() != 0) {
        return 77;
    }
    int d = make(p->fd, "d"), inner = make(d, "foreign");
    put(inner, "file");
    put(d, "file");
    if (fchown(d, NOBODY, NOBODY) < 0 || seteuid(NOBODY) < 0) {
        return 77;
    }
    return mu_folder_empty(d) == -EACCES && !there(d, "file") && there(inner, "file") ? 0 : 1;
}

static void what_cannot_be_removed_is_told_and_the_rest_goes(void **state)
{
    in_child(*state, nobodys_folders);
}

static int mounted_folder(struct place *p)
{
    char path[64], below[64];
    int d = make(p->fd, "d");
    close(make(d, "mounted"));
    dig(d, "other", 3);
    close(d);
    snprintf(path, sizeof path, "%s/d", p->path);
    snprintf(below, sizeof below, "%s/d/mounted", p->path);
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("tmpfs", below, "tmpfs", 0, "size=1m") < 0) {
        return 77;
    }
    /* What was open before stands in the other name space, where nothing is mounted. */
    int inside = open(below, O_RDONLY | O_DIRECTORY);
    put(inside, "file");
    if (mu_folder_remove(path) != -EXDEV || !there(inside, "file") || there(p->fd, "d/other")) {
        return 1;
    }
    close(inside);
    return umount(below) == 0 && mu_folder_remove(path) == 0 ? 0 : 2;
}

static void what_is_mounted_below_is_left_alone(void **state)
{
    in_child(*state, mounted_folder);
}

static void what_is_measured_is_what_the_disk_holds(void **state)
{
    struct place *p = *state;
    char block[65536];
    memset(block, 'x', sizeof block);
    assert_int_equal(mu_folder_bytes("/nonexistent"), -ENOENT);
    int64_t before = mu_folder_bytes(p->path);
    int d = make(p->fd, "d");
    int fd = openat(d, "f", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, block, sizeof block), sizeof block);
    fsync(fd);
    close(fd);
    assert_int_equal(symlinkat("/", d, "link"), 0);
    int64_t more = mu_folder_bytes(p->path) - before;
    assert_true(more >= (int64_t)sizeof block && more < (int64_t)sizeof block + 65536);
    close(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_not_there_is_removed_already, begin, end),
        cmocka_unit_test_setup_teardown(links_are_removed_and_never_followed, begin, end),
        cmocka_unit_test_setup_teardown(a_tree_may_be_deeper_than_descriptors_and_stack, begin,
                                        end),
        cmocka_unit_test_setup_teardown(names_that_removing_uses_itself_may_be_taken, begin, end),
        cmocka_unit_test_setup_teardown(emptying_leaves_the_folder, begin, end),
        cmocka_unit_test_setup_teardown(a_folder_that_its_owner_closed_is_removed_too, begin, end),
        cmocka_unit_test_setup_teardown(what_cannot_be_removed_is_told_and_the_rest_goes, begin,
                                        end),
        cmocka_unit_test_setup_teardown(what_is_mounted_below_is_left_alone, begin, end),
        cmocka_unit_test_setup_teardown(what_is_measured_is_what_the_disk_holds, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
