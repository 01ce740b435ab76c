/* Stored objects: what is put is what is got; names cannot leave the folder. */
#include "../unit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../alloc_fail.h"
#include "../db/tmp_dir.h"
#include "app/files/files.h"

#pragma GCC diagnostic ignored "-Wunused-parameter"

static struct tmp_dir dir;
static struct mu_files *files;
static char blobs[64];

static int set_up(void **state)
{
    struct mu_err err;
    tmp_make(&dir);
    snprintf(blobs, sizeof blobs, "%s/blobs", dir.path);
    return mu_files_new(blobs, &files, &err);
}
static int tear_down(void **state)
{
    files = mu_files_free(files);
    tmp_drop(&dir);
    return 0;
}

static int entries(void)
{
    int n = 0;
    DIR *d = opendir(blobs);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        n += e->d_name[0] != '.';
    }
    closedir(d);
    return n;
}

static int get(mu_bytes id, size_t max, struct mu_buf *b)
{
    mu_buf_init(b, max);
    return mu_files_get(files, id, b);
}

static void what_is_put_is_got(void **state)
{
    static char bytes[200000];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (char)(i * 7 % 251);
    }
    static const size_t sizes[] = {0, 1, 65535, 65536, 65537, sizeof bytes};
    for (size_t i = 0; i < MU_ARRAY_LEN(sizes); i++) {
        struct mu_id id = mu_id_new(&mu_env_real, NULL);
        struct mu_buf b;
        assert_int_equal(mu_files_put(files, &id, mu_bytes_of(bytes, sizes[i])), 0);
        assert_int_equal(get(mu_id_bytes(&id), 1 << 20, &b), 0);
        assert_int_equal(b.len, sizes[i]);
        assert_true(sizes[i] == 0 || memcmp(b.ptr, bytes, sizes[i]) == 0);
        mu_buf_fini(&b);
        struct stat st;
        char path[128];
        snprintf(path, sizeof path, "%s/%s", blobs, id.text);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
    }
    assert_int_equal(entries(), MU_ARRAY_LEN(sizes)); /* nothing temporary is left */
    struct stat st;
    assert_int_equal(stat(blobs, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
}

static void putting_again_replaces(void **state)
{
    struct mu_id id = mu_id_new(&mu_env_real, NULL);
    struct mu_buf b;
    assert_int_equal(mu_files_put(files, &id, MU_B("first, longer")), 0);
    assert_int_equal(mu_files_put(files, &id, MU_B("second")), 0);
    assert_int_equal(get(mu_id_bytes(&id), 100, &b), 0);
    assert_true(mu_bytes_is(mu_buf_bytes(&b), "second"));
    mu_buf_fini(&b);
}

static void a_buffer_that_is_too_small_is_told(void **state)
{
    struct mu_id id = mu_id_new(&mu_env_real, NULL);
    struct mu_buf b;
    assert_int_equal(mu_files_put(files, &id, MU_B("0123456789")), 0);
    assert_int_equal(get(mu_id_bytes(&id), 9, &b), MU_E_TOO_LARGE);
    mu_buf_fini(&b);
    assert_int_equal(get(mu_id_bytes(&id), 10, &b), 0);
    mu_buf_fini(&b);
}

static void names_stay_in_the_folder(void **state)
{
    char outside[64];
    snprintf(outside, sizeof outside, "%s/secret", dir.path);
    int fd = open(outside, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    close(fd);
    static const char *const bad[] = {"",
                                      ".",
                                      "..",
                                      "../secret",
                                      "/etc/passwd",
                                      "x",
                                      "00000000-0000-7000-8000-00000000000",
                                      "00000000-0000-7000-8000-0000000000000",
                                      "../00000-0000-7000-8000-000000000000"};
    struct mu_buf b;
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        assert_int_equal(get(mu_str(bad[i]), 100, &b), MU_E_NOT_FOUND);
        mu_buf_fini(&b);
        mu_files_remove(files, mu_str(bad[i]));
    }
    assert_int_equal(access(outside, F_OK), 0);
    /* nor through a link that somebody put there */
    struct mu_id id = mu_id_new(&mu_env_real, NULL);
    char link[128];
    snprintf(link, sizeof link, "%s/%s", blobs, id.text);
    assert_int_equal(symlink(outside, link), 0);
    assert_int_equal(get(mu_id_bytes(&id), 100, &b), MU_E_IO);
    mu_buf_fini(&b);
}

static void what_is_removed_is_gone(void **state)
{
    struct mu_id id = mu_id_new(&mu_env_real, NULL);
    struct mu_buf b;
    assert_int_equal(get(mu_id_bytes(&id), 100, &b), MU_E_NOT_FOUND);
    mu_buf_fini(&b);
    assert_int_equal(mu_files_put(files, &id, MU_B("x")), 0);
    mu_files_remove(files, mu_id_bytes(&id));
    mu_files_remove(files, mu_id_bytes(&id));
    assert_int_equal(get(mu_id_bytes(&id), 100, &b), MU_E_NOT_FOUND);
    mu_buf_fini(&b);
    assert_int_equal(entries(), 0);
}

static void a_failed_put_leaves_nothing(void **state)
{
    struct mu_id id = mu_id_new(&mu_env_real, NULL);
    char path[128];
    snprintf(path, sizeof path, "%s/%s", blobs, id.text);
    assert_int_equal(mkdir(path, 0700), 0); /* the rename cannot replace a folder */
    assert_true(mu_files_put(files, &id, MU_B("x")) < 0);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(entries(), 0);
}

static void a_folder_that_cannot_be_made_is_worded(void **state)
{
    struct mu_files *f = NULL;
    struct mu_err err = {0};
    assert_int_equal(mu_files_new("/nonexistent/blobs", &f, &err), -ENOENT);
    assert_non_null(strstr(err.text, "/nonexistent/blobs"));
    snprintf(blobs, sizeof blobs, "%s/plain", dir.path);
    close(open(blobs, O_CREAT | O_WRONLY, 0600));
    assert_int_equal(mu_files_new(blobs, &f, &err), -ENOTDIR);
    assert_null(f);
}

static void leave(const char *name)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", blobs, name);
    close(open(path, O_CREAT | O_WRONLY, 0600));
}

static void what_a_killed_server_left_half_written_is_removed_at_the_next_start(void **state)
{
    struct mu_files *other = NULL;
    struct mu_err err = {0};
    struct mu_id id = mu_id_new(&mu_env_real, NULL), whole = mu_id_new(&mu_env_real, NULL);
    char tmp[64];
    snprintf(tmp, sizeof tmp, "%s.tmp", id.text);
    assert_int_equal(mu_files_put(files, &whole, MU_B("x")), 0);
    leave(tmp);
    leave("notes.tmp");
    leave(".tmp");
    /* beside a server that is alive nothing is touched: it may be writing just that */
    assert_int_equal(mu_files_new(blobs, &other, &err), 0);
    assert_int_equal(entries(), 3);
    other = mu_files_free(other);
    files = mu_files_free(files);
    assert_int_equal(mu_files_new(blobs, &files, &err), 0);
    assert_int_equal(entries(), 2); /* the object, and what is not ours */
    struct mu_buf b;
    assert_int_equal(get(mu_id_bytes(&whole), 10, &b), 0);
    mu_buf_fini(&b);
}

static int open_put_get(void *arg)
{
    struct mu_files *f = NULL;
    struct mu_err err = {0};
    struct mu_id id = mu_id_new(&mu_env_real, NULL);
    int r = mu_files_new(blobs, &f, &err);
    if (r == 0) {
        struct mu_buf b;
        assert_int_equal(mu_files_put(f, &id, MU_B("content")), 0); /* takes no memory */
        mu_buf_init(&b, 100);
        r = mu_files_get(f, mu_id_bytes(&id), &b);
        assert_true(r < 0 || mu_bytes_is(mu_buf_bytes(&b), "content"));
        mu_buf_fini(&b);
    }
    mu_files_free(f);
    return r;
}

static void without_memory_nothing_breaks(void **state)
{
    each_allocation_fails(open_put_get, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_put_is_got, set_up, tear_down),
        cmocka_unit_test_setup_teardown(putting_again_replaces, set_up, tear_down),
        cmocka_unit_test_setup_teardown(
            what_a_killed_server_left_half_written_is_removed_at_the_next_start, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_buffer_that_is_too_small_is_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(names_stay_in_the_folder, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_removed_is_gone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_failed_put_leaves_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_folder_that_cannot_be_made_is_worded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(without_memory_nothing_breaks, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
