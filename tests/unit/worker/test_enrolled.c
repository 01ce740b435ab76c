/* The credential of an enrolment on the disk. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "../db/tmp_dir.h"
#include "../unit.h"
#include "worker/worker_int.h"

static struct tmp_dir dir;
static struct mu_worker_conf conf;
static struct mu_worker *w;

static int begin(void **state MU_UNUSED)
{
    tmp_make(&dir);
    conf = (struct mu_worker_conf){.state_dir = dir.path};
    w = mu_calloc(1, sizeof *w);
    w->conf = &conf;
    assert_int_equal(mu_loop_new(&mu_env_real, "test", &w->loop), 0);
    return 0;
}

static int end(void **state MU_UNUSED)
{
    mu_loop_free(w->loop);
    mu_free(w);
    tmp_drop(&dir);
    return 0;
}

/* As at the end of the process. */
static void settle(void)
{
    mu_work_free(w->work);
    w->work = NULL;
    mu_credential_settle(w);
}

static const char *kept(void)
{
    struct mu_worker *next = mu_calloc(1, sizeof *next);
    static char text[512];
    next->conf = &conf;
    mu_credential_load(next);
    snprintf(text, sizeof text, "%s", next->link.credential);
    mu_free(next);
    return text;
}

static int files(void)
{
    int n = 0;
    DIR *d = opendir(dir.path);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        n += e->d_name[0] != '.';
    }
    closedir(d);
    return n;
}

static void the_last_one_stays_whatever_came_before(void **state MU_UNUSED)
{
    mu_credential_keep(w, MU_B("one"));
    assert_string_equal(w->link.credential, "one"); /* at once */
    mu_credential_keep(w, MU_B("two"));
    settle();
    assert_string_equal(kept(), "two");
}

static void one_that_was_revoked_at_once_is_gone(void **state MU_UNUSED)
{
    mu_credential_keep(w, MU_B("three"));
    mu_credential_forget(w);
    settle();
    assert_string_equal(kept(), "");
    assert_int_equal(files(), 0);
}

static void one_that_comes_behind_a_revoked_one_stays(void **state MU_UNUSED)
{
    mu_credential_forget(w);
    mu_credential_keep(w, MU_B("four"));
    settle();
    assert_string_equal(kept(), "four");
    assert_int_equal(files(), 1);
}

static void until_written(struct mu_timer *t)
{
    if (w->link.file.busy) {
        assert_int_equal(mu_timer_set(t, 1), 0);
    } else {
        mu_loop_stop(w->loop);
    }
}

static void it_is_written_while_the_loop_goes_on(void **state MU_UNUSED)
{
    struct mu_timer t;
    mu_timer_init(&t, w->loop, until_written);
    mu_credential_keep(w, MU_B("one"));
    mu_credential_keep(w, MU_B("two"));
    assert_true(w->link.file.busy);
    until_written(&t);
    mu_loop_run(w->loop);
    assert_string_equal(kept(), "two");
    mu_timer_clear(&t);
    settle();
}

static void what_could_not_be_kept_leaves_nothing(void **state MU_UNUSED)
{
    char path[64];
    snprintf(path, sizeof path, "%s/credential", dir.path);
    assert_int_equal(mkdir(path, 0700), 0);
    mu_credential_keep(w, MU_B("one"));
    settle();
    assert_string_equal(w->link.credential, "one");
    assert_int_equal(files(), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_last_one_stays_whatever_came_before, begin, end),
        cmocka_unit_test_setup_teardown(one_that_was_revoked_at_once_is_gone, begin, end),
        cmocka_unit_test_setup_teardown(one_that_comes_behind_a_revoked_one_stays, begin, end),
        cmocka_unit_test_setup_teardown(it_is_written_while_the_loop_goes_on, begin, end),
        cmocka_unit_test_setup_teardown(what_could_not_be_kept_leaves_nothing, begin, end)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
