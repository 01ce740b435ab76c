#include "../unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "../alloc_fail.h"
#include "io/folder.h"
#include "runner/workspace.h"

struct place {
    char root[64];
    struct mu_workspace w;
};

static int set_up(void **state)
{
    struct place *p = calloc(1, sizeof *p);
    struct mu_err err;
    snprintf(p->root, sizeof p->root, "/tmp/test-workspace-XXXXXX");
    assert_non_null(mkdtemp(p->root));
    assert_int_equal(mu_workspace_open(&p->w, p->root, &err), 0);
    *state = p;
    return 0;
}

static int tear_down(void **state)
{
    struct place *p = *state;
    mu_workspace_close(&p->w);
    mu_folder_remove_at(AT_FDCWD, p->root);
    assert_int_equal(access(p->root, F_OK), -1);
    free(p);
    return 0;
}

static void put(int dir, const char *name, const char *text)
{
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static void expect_content(struct mu_workspace *w, const char *name, const char *want)
{
    struct mu_buf b;
    mu_buf_init(&b, 1 << 16);
    assert_int_equal(mu_workspace_read(w, name, &b), 0);
    assert_true(mu_bytes_is(mu_buf_bytes(&b), want));
    mu_buf_fini(&b);
}

static void the_folder_is_made_whatever_has_its_name(void **state)
{
    struct place *p = *state;
    struct mu_err err;
    struct stat st;
    for (int kind = 0; kind < 4; kind++) {
        if (kind == 1) {
            put(p->w.fd, ".oz", "a file");
        } else if (kind == 2) {
            assert_int_equal(symlinkat("/tmp", p->w.fd, ".oz"), 0);
        } else if (kind == 3) {
            assert_int_equal(mkfifoat(p->w.fd, ".oz", 0600), 0);
        }
        assert_int_equal(mu_workspace_oz(&p->w, &err), 0);
        assert_int_equal(fstatat(p->w.fd, ".oz", &st, AT_SYMLINK_NOFOLLOW), 0);
        assert_true(S_ISDIR(st.st_mode));
        assert_int_equal(mu_workspace_write(&p->w, "f", MU_B("x")), 0);
        expect_content(&p->w, "f", "x");
        mu_folder_remove_at(p->w.fd, ".oz");
    }
}

static void nothing_is_written_through_a_link(void **state)
{
    struct place *p = *state;
    struct mu_err err;
    assert_int_equal(mu_workspace_oz(&p->w, &err), 0);
    put(p->w.fd, "outside", "untouched");
    assert_int_equal(symlinkat("../outside", p->w.oz, "result.json"), 0);
    assert_int_equal(mu_workspace_write(&p->w, "result.json", MU_B("new")), 0);
    expect_content(&p->w, "result.json", "new");
    assert_int_equal(symlinkat("../outside", p->w.oz, "log"), 0);
    int fd = mu_workspace_create(&p->w, "log", 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "log", 3), 3);
    close(fd);
    assert_int_equal(mkdirat(p->w.oz, "dir", 0755), 0);
    assert_int_equal(mu_workspace_write(&p->w, "dir", MU_B("file")), 0);
    expect_content(&p->w, "dir", "file");
    assert_int_equal(symlinkat("../outside", p->w.oz, "outside"), 0);
    assert_int_equal(linkat(p->w.fd, "outside", p->w.oz, "same", 0), 0);
    expect_content(&p->w, "same", "untouched");
    struct mu_buf b;
    mu_buf_init(&b, 100);
    assert_int_equal(mu_workspace_read(&p->w, "outside", &b), -ELOOP);
    assert_int_equal(mu_workspace_read(&p->w, "nothing", &b), MU_E_NOT_FOUND);
    assert_int_equal(mkfifoat(p->w.oz, "pipe", 0600), 0);
    assert_int_equal(mu_workspace_read(&p->w, "pipe", &b), MU_E_INVALID);
    mu_buf_fini(&b);
}

static void a_file_of_exactly_the_limit_is_read(void **state)
{
    struct place *p = *state;
    struct mu_err err;
    assert_int_equal(mu_workspace_oz(&p->w, &err), 0);
    put(p->w.oz, "f", "12345678");
    struct mu_buf b;
    mu_buf_init(&b, 8);
    assert_int_equal(mu_workspace_read(&p->w, "f", &b), 0);
    assert_int_equal(b.len, 8);
    mu_buf_fini(&b);
    mu_buf_init(&b, 7);
    assert_int_equal(mu_workspace_read(&p->w, "f", &b), MU_E_TOO_LARGE);
    mu_buf_fini(&b);
}

static void removing_follows_no_link(void **state)
{
    struct place *p = *state;
    assert_int_equal(mkdirat(p->w.fd, "keep", 0755), 0);
    int keep = openat(p->w.fd, "keep", O_RDONLY | O_DIRECTORY);
    put(keep, "file", "x");
    assert_int_equal(mkdirat(p->w.fd, "gone", 0755), 0);
    int gone = openat(p->w.fd, "gone", O_RDONLY | O_DIRECTORY);
    assert_int_equal(symlinkat("../keep", gone, "link"), 0);
    assert_int_equal(mkdirat(gone, "deep", 0755), 0);
    assert_int_equal(symlinkat("gone/link", p->w.fd, "link"), 0);
    mu_folder_remove_at(p->w.fd, "link");
    mu_folder_remove_at(p->w.fd, "gone");
    assert_int_equal(faccessat(p->w.fd, "gone", F_OK, 0), -1);
    assert_int_equal(faccessat(keep, "file", F_OK, 0), 0);
    close(keep);
    close(gone);
}

static void media_types_go_by_the_ending(void **state)
{
    (void)state;
    assert_string_equal(mu_media_type("a.PNG"), "image/png");
    assert_string_equal(mu_media_type("x/y.tar.gz"), "application/gzip");
    assert_string_equal(mu_media_type(".json"), "application/octet-stream");
    assert_string_equal(mu_media_type("a.json"), "application/json");
    assert_string_equal(mu_media_type(""), "application/octet-stream");
}

static int gather(void *arg)
{
    struct mu_result_file files[MU_RESULT_FILES];
    size_t n = 0;
    size_t left_out = mu_workspace_artifacts(arg, files, &n);
    for (size_t i = 0; i < n; i++) {
        mu_result_file_fini(&files[i]);
    }
    return left_out ? -ENOMEM : 0;
}

static void memory_may_run_out_while_files_are_listed(void **state)
{
    struct place *p = *state;
    struct mu_err err;
    assert_int_equal(mu_workspace_oz(&p->w, &err), 0);
    assert_int_equal(mkdirat(p->w.oz, "artifacts", 0755), 0);
    int dir = openat(p->w.oz, "artifacts", O_RDONLY | O_DIRECTORY);
    put(dir, "a", "1");
    put(dir, "b", "2");
    close(dir);
    each_allocation_fails(gather, &p->w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_folder_is_made_whatever_has_its_name, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(nothing_is_written_through_a_link, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_file_of_exactly_the_limit_is_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(removing_follows_no_link, set_up, tear_down),
        cmocka_unit_test(media_types_go_by_the_ending),
        cmocka_unit_test_setup_teardown(memory_may_run_out_while_files_are_listed, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
