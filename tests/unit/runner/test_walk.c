#include "../unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "../alloc_fail.h"
#include "base/err.h"
#include "io/folder.h"
#include "runner/walk.h"

struct place {
    char path[64];
    int fd;
};

static int make(void **state)
{
    static struct place p;
    snprintf(p.path, sizeof p.path, "/tmp/muster-walk-XXXXXX");
    assert_non_null(mkdtemp(p.path));
    p.fd = open(p.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *state = &p;
    return p.fd < 0;
}

static int clean(void **state)
{
    struct place *p = *state;
    close(p->fd);
    return mu_folder_remove(p->path);
}

static void folder(const struct place *p, const char *name)
{
    assert_int_equal(mkdirat(p->fd, name, 0755), 0);
}

static void file(const struct place *p, const char *name, const char *text)
{
    int fd = openat(p->fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static void repository(const struct place *p, const char *dir)
{
    char name[128];
    static const char *const below[] = {"", "/.git", "/.git/objects"};
    for (size_t i = 0; i < MU_ARRAY_LEN(below); i++) {
        snprintf(name, sizeof name, "%s%s", dir, below[i]);
        folder(p, name);
    }
    snprintf(name, sizeof name, "%s/.git/HEAD", dir);
    file(p, name, "ref: refs/heads/main\n");
}

static bool has(const struct mu_walk *w, const char *name)
{
    mu_bytes rest = mu_buf_bytes(&w->files);
    while (rest.len) {
        if (mu_bytes_is(mu_bytes_split(&rest, 0), name)) {
            return true;
        }
    }
    return false;
}

static void repositories_are_told_apart_from_what_lies_beside_them(void **state)
{
    struct place *p = *state;
    struct mu_walk w;
    repository(p, "r");
    file(p, "r/inside", "x");
    repository(p, "r/nested");
    folder(p, "other");
    file(p, "other/note", "x");
    file(p, "a\nb", "x");
    folder(p, ".oz");
    file(p, ".oz/ours", "x");
    folder(p, ".codex");
    file(p, ".codex/auth.json", "x");
    assert_int_equal(symlinkat("/etc", p->fd, "link"), 0);
    assert_int_equal(mkfifoat(p->fd, "pipe", 0600), 0);
    mu_walk_init(&w, false);
    assert_int_equal(mu_walk_run(&w, p->fd), 0);
    assert_int_equal(w.n_repos, 2);
    assert_string_equal(w.repos[0], "r");
    assert_string_equal(w.repos[1], "r/nested");
    assert_int_equal(w.n_files, 3);
    assert_true(has(&w, "other/note") && has(&w, "a\nb") && has(&w, "link"));
    mu_walk_fini(&w);
}

static void a_home_is_without_caches_keys_and_what_was_there_before(void **state)
{
    struct place *p = *state;
    struct mu_walk w;
    static const char *const folders[] = {".cache",  ".ssh",       ".claude", "node_modules",
                                          ".config", ".config/gh", "work"};
    for (size_t i = 0; i < MU_ARRAY_LEN(folders); i++) {
        folder(p, folders[i]);
    }
    static const char *const files[] = {
        ".cache/x",   ".ssh/id", ".claude/.credentials.json", "node_modules/x", ".config/gh/hosts",
        "agent.sock", "work/x",  ".claude/talk.jsonl"};
    for (size_t i = 0; i < MU_ARRAY_LEN(files); i++) {
        file(p, files[i], "x");
    }
    file(p, "large", "0123456789");
    mu_walk_init(&w, true);
    w.file_max = 9;
    w.avoid = openat(p->fd, "work", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(mu_walk_run(&w, p->fd), 0);
    assert_int_equal(w.n_files, 1);
    assert_true(has(&w, ".claude/talk.jsonl"));
    close(w.avoid);
    mu_walk_fini(&w);
    mu_walk_init(&w, true);
    w.since_s = INT64_C(1) << 40;
    assert_int_equal(mu_walk_run(&w, p->fd), 0);
    assert_int_equal(w.n_files, 0);
    mu_walk_fini(&w);
}

struct turns {
    int n, code;
};

static int count_turn(void *arg)
{
    struct turns *t = arg;
    t->n++;
    return t->code;
}

static void between_many_files_there_is_a_turn_that_may_end_it(void **state)
{
    struct place *p = *state;
    struct mu_walk w;
    char name[16];
    folder(p, "d");
    for (int i = 0; i < MU_WALK_TURN; i++) {
        snprintf(name, sizeof name, "d/%d", i);
        file(p, name, "");
    }
    for (int code = 0; code >= -ETIMEDOUT; code -= ETIMEDOUT) {
        struct turns turns = {0, code};
        mu_walk_init(&w, false);
        w.turn = count_turn;
        w.arg = &turns;
        assert_int_equal(mu_walk_run(&w, p->fd), code);
        assert_int_equal(turns.n, 1);
        assert_int_equal(w.n_files, code ? MU_WALK_TURN - 2 : MU_WALK_TURN);
        mu_walk_fini(&w);
    }
}

static uint64_t print_of(const struct place *p)
{
    struct mu_walk w;
    mu_walk_init(&w, false);
    assert_int_equal(mu_walk_run(&w, p->fd), 0);
    uint64_t print = w.print;
    mu_walk_fini(&w);
    return print;
}

static void the_print_differs_when_a_file_does(void **state)
{
    struct place *p = *state;
    file(p, "one", "x");
    uint64_t first = print_of(p);
    assert_true(print_of(p) == first);
    file(p, "one", "longer");
    uint64_t second = print_of(p);
    assert_true(second != first);
    assert_int_equal(renameat(p->fd, "one", p->fd, "two"), 0);
    assert_true(print_of(p) != second);
}

static void more_than_the_bounds_is_told(void **state)
{
    struct place *p = *state;
    struct mu_walk w;
    for (char name[] = "a"; name[0] < 'k'; name[0]++) {
        file(p, name, "x");
    }
    mu_walk_init(&w, false);
    w.entries_max = 5;
    assert_int_equal(mu_walk_run(&w, p->fd), MU_E_TOO_LARGE);
    assert_true(w.cut);
    mu_walk_fini(&w);
    mu_walk_init(&w, false);
    w.list_max = 6;
    assert_int_equal(mu_walk_run(&w, p->fd), MU_E_TOO_LARGE);
    mu_walk_fini(&w);
}

static void gone(const char *old, size_t n, const char *now, size_t m, const char *want, size_t k)
{
    struct mu_buf b;
    mu_buf_init(&b, 1024);
    assert_int_equal(mu_walk_gone(mu_bytes_of(old, n), mu_bytes_of(now, m), &b), 0);
    assert_int_equal(b.len, k);
    assert_true(k == 0 || memcmp(b.ptr, want, k) == 0);
    mu_buf_fini(&b);
}

static void what_is_gone_is_what_the_first_list_has_more(void **state)
{
    (void)state;
    gone("", 0, "", 0, "", 0);
    gone("a\0b\0c\0", 6, "c\0a\0", 4, "b\0", 2);
    gone("b\0a\0", 4, "", 0, "a\0b\0", 4);
    gone("a\0", 2, "a\0b\0", 4, "", 0);
}

static int all_of_it(void *arg)
{
    const struct place *p = arg;
    struct mu_walk w;
    struct mu_buf b;
    mu_walk_init(&w, false);
    mu_buf_init(&b, 1024);
    int r = mu_walk_run(&w, p->fd);
    r = r ? r : mu_walk_gone(MU_B("x\0"), mu_buf_bytes(&w.files), &b);
    mu_buf_fini(&b);
    mu_walk_fini(&w);
    return r;
}

static void any_allocation_may_fail(void **state)
{
    struct place *p = *state;
    repository(p, "r");
    repository(p, "s");
    file(p, "x", "x");
    each_allocation_fails(all_of_it, p);
}

#define WITH_PLACE(fn) cmocka_unit_test_setup_teardown(fn, make, clean)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_PLACE(repositories_are_told_apart_from_what_lies_beside_them),
        WITH_PLACE(a_home_is_without_caches_keys_and_what_was_there_before),
        WITH_PLACE(between_many_files_there_is_a_turn_that_may_end_it),
        WITH_PLACE(the_print_differs_when_a_file_does),
        WITH_PLACE(more_than_the_bounds_is_told),
        cmocka_unit_test(what_is_gone_is_what_the_first_list_has_more),
        WITH_PLACE(any_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
