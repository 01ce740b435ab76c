#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "../alloc_fail.h"
#include "exec/git/checkout.h"
#include "io/folder.h"

/* --- a cache over real repositories --- */

struct world {
    char top[64], url[128];
    struct mu_loop *loop;
    struct mu_git_cache *cache;
    struct mu_git_settings settings;
    int open; /* checkouts that are not done */
};

static void sh(const char *fmt, ...) MU_PRINTF(1, 2);
static void sh(const char *fmt, ...)
{
    char line[2000];
    int n = snprintf(line, sizeof line,
                     "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@h.example GIT_COMMITTER_NAME=a "
                     "GIT_COMMITTER_EMAIL=a@h.example GIT_CONFIG_GLOBAL=/dev/null; set -e; ");
    va_list va;
    va_start(va, fmt);
    vsnprintf(line + n, sizeof line - (size_t)n, fmt, va);
    va_end(va);
    assert_int_equal(system(line), 0);
}

static void cache_open(struct world *w)
{
    struct mu_err err = {0};
    assert_int_equal(mu_git_cache_new(w->loop, &w->settings, &w->cache, &err), 0);
}

static void begin(struct world *w)
{
    *w = (struct world){.top = "/tmp/mu-checkout-XXXXXX"};
    assert_non_null(mkdtemp(w->top));
    static char dir[80];
    snprintf(dir, sizeof dir, "%s/cache", w->top);
    snprintf(w->url, sizeof w->url, "file://%s/remote", w->top);
    sh("git init -q -b main %s/remote; cd %s/remote; echo one > a; git add a; git commit -qm one; "
       "git tag v1; git checkout -q -b side; echo side > b; git add b; git commit -qm side; "
       "git tag -am note v2; git checkout -q main",
       w->top, w->top);
    w->settings = (struct mu_git_settings){.env = &mu_env_real,
                                           .dir = dir,
                                           .max_bytes = INT64_C(1) << 30,
                                           .fetch_timeout_ms = 60000,
                                           .parallel = 2};
    assert_int_equal(mu_loop_new(&mu_env_real, "git", &w->loop), 0);
    cache_open(w);
}

static void on_stopped(void *arg)
{
    mu_loop_stop(((struct world *)arg)->loop);
}

static void cache_close(struct world *w)
{
    mu_git_cache_stop(w->cache, on_stopped, w);
    mu_loop_run(w->loop);
    mu_git_cache_free(w->cache);
}

static void end(struct world *w)
{
    cache_close(w);
    mu_loop_free(w->loop);
    assert_int_equal(mu_folder_remove(w->top), 0);
}

struct ask {
    struct world *w;
    struct mu_checkout *checkout;
    int result;
    char tree[200], objects[200], commit[41], why[400];
    bool warm;
};

static void on_done(void *arg, int result, const struct mu_checkout_view *view, const char *why)
{
    struct ask *a = arg;
    a->result = result;
    if (view) {
        snprintf(a->tree, sizeof a->tree, "%s", view->tree);
        snprintf(a->objects, sizeof a->objects, "%s", view->objects);
        memcpy(a->commit, view->commit, sizeof a->commit);
        a->warm = view->warm;
    } else {
        snprintf(a->why, sizeof a->why, "%s", why);
        a->checkout = mu_checkout_release(a->checkout);
    }
    if (--a->w->open == 0) {
        mu_loop_stop(a->w->loop);
    }
}

static void start_as(struct world *w, struct ask *a, const char *url, const char *ref,
                     const char *credential)
{
    *a = (struct ask){.w = w};
    struct mu_checkout_request req = {
        .url = url, .ref = ref, .credential = credential, .done = on_done, .arg = a};
    w->open++;
    assert_int_equal(mu_checkout_start(w->cache, &req, &a->checkout), 0);
}

static void start(struct world *w, struct ask *a, const char *url, const char *ref)
{
    start_as(w, a, url, ref, NULL);
}

static void get(struct world *w, struct ask *a, const char *ref)
{
    start(w, a, w->url, ref);
    mu_loop_run(w->loop);
}

static void has(const char *tree, const char *name, const char *content)
{
    char path[300], got[100] = "";
    snprintf(path, sizeof path, "%s/%s", tree, name);
    FILE *f = fopen(path, "r");
    if (!content) {
        assert_null(f);
        return;
    }
    assert_non_null(f);
    assert_non_null(fgets(got, sizeof got, f));
    assert_string_equal(got, content);
    fclose(f);
}

static void branches_tags_and_commits_are_checked_out(void **state)
{
    (void)state;
    struct world w;
    struct ask a, b;
    begin(&w);
    get(&w, &a, "");
    assert_int_equal(a.result, 0);
    assert_false(a.warm);
    has(a.tree, "a", "one\n");
    has(a.tree, "b", NULL);
    has(a.tree, ".git/HEAD", "ref: refs/heads/main\n");
    has(a.tree, ".git/objects/info/alternates", "/run/muster/git/0\n");
    /* with the objects at hand it is a whole, clean work tree */
    sh("cd %s; test -z \"$(GIT_ALTERNATE_OBJECT_DIRECTORIES=%s git -c safe.directory='*' status "
       "--porcelain)\"",
       a.tree, a.objects);
    get(&w, &b, "");
    assert_true(b.result == 0 && b.warm);
    assert_string_equal(a.tree, b.tree);
    mu_checkout_release(b.checkout);
    static const char *const refs[] = {"side", "v2"};
    for (int i = 0; i < 2; i++) {
        get(&w, &b, refs[i]);
        assert_int_equal(b.result, 0);
        has(b.tree, "b", "side\n");
        mu_checkout_release(b.checkout);
    }
    get(&w, &b, a.commit);
    assert_true(b.result == 0);
    assert_string_equal(b.commit, a.commit);
    mu_checkout_release(b.checkout);
    mu_checkout_release(a.checkout);
    end(&w);
}

static void a_large_tree_is_not_read_again(void **state)
{
    (void)state;
    struct world w;
    struct ask a;
    struct stat index, file;
    char path[300];
    begin(&w);
    sh("cd %s/remote; yes | head -c 34000000 >large; git add large; git commit -qm large", w.top);
    get(&w, &a, "main");
    assert_int_equal(a.result, 0);
    snprintf(path, sizeof path, "%s/.git/index", a.tree);
    assert_int_equal(stat(path, &index), 0);
    snprintf(path, sizeof path, "%s/large", a.tree);
    assert_int_equal(stat(path, &file), 0);
    assert_true(index.st_mtime > file.st_mtime);
    mu_checkout_release(a.checkout);
    end(&w);
}

static void a_push_is_seen_and_what_is_held_stays(void **state)
{
    (void)state;
    struct world w;
    struct ask a, b;
    begin(&w);
    get(&w, &a, "main");
    sh("cd %s/remote; echo two > a; git commit -qam two", w.top);
    get(&w, &b, "main");
    assert_true(b.result == 0 && !b.warm);
    has(b.tree, "a", "two\n");
    has(a.tree, "a", "one\n");
    mu_checkout_release(a.checkout);
    mu_checkout_release(b.checkout);
    end(&w);
}

static void what_is_not_there_is_told_in_words(void **state)
{
    (void)state;
    struct world w;
    struct ask a;
    char url[200];
    begin(&w);
    get(&w, &a, "no-such");
    assert_int_equal(a.result, MU_E_NOT_FOUND);
    assert_non_null(strstr(a.why, "no-such"));
    get(&w, &a, "0123456789012345678901234567890123456789");
    assert_int_equal(a.result, MU_E_NOT_FOUND);
    snprintf(url, sizeof url, "file://%s/nowhere", w.top);
    start(&w, &a, url, "");
    mu_loop_run(w.loop);
    assert_int_equal(a.result, MU_E_UNAVAILABLE);
    assert_non_null(strstr(a.why, "fatal:"));
    sh("git init -q %s/empty", w.top);
    snprintf(url, sizeof url, "file://%s/empty", w.top);
    start(&w, &a, url, "");
    mu_loop_run(w.loop);
    assert_int_equal(a.result, MU_E_NOT_FOUND);
    /* a password in a URL is not repeated */
    start(&w, &a, "http://u:hunter2@127.0.0.1:9/x.git", "");
    mu_loop_run(w.loop);
    assert_int_equal(a.result, MU_E_UNAVAILABLE);
    assert_null(strstr(a.why, "hunter2"));
    end(&w);
}

static void many_at_once_share_the_work(void **state)
{
    (void)state;
    struct world w;
    struct ask asks[24];
    static const char *const refs[] = {"main", "side", "v1"};
    begin(&w);
    for (size_t i = 0; i < MU_ARRAY_LEN(asks); i++) {
        start(&w, &asks[i], w.url, refs[i % 3]);
    }
    mu_loop_run(w.loop);
    for (size_t i = 0; i < MU_ARRAY_LEN(asks); i++) {
        assert_int_equal(asks[i].result, 0);
        assert_string_equal(asks[i].tree, i % 3 == 2 ? asks[0].tree : asks[i % 3].tree);
        mu_checkout_release(asks[i].checkout);
    }
    end(&w);
}

static char path_was[8192], home_was[512];

/* A script that leaves a mark, wherever git takes programs from: hooks, a filter, a monitor, a
 * helper for URLs. `git` itself is a wrapper that adds a hostile /etc/gitconfig. */
static void evil_begin(struct world *w, char mark[100])
{
    char path[sizeof path_was + 80];
    begin(w);
    snprintf(path_was, sizeof path_was, "%s", getenv("PATH"));
    snprintf(home_was, sizeof home_was, "%s", getenv("HOME"));
    cache_close(w);
    snprintf(mark, 100, "%s/mark", w->top);
    sh("cd %s; git clone -q remote other; cd other; echo other > a; git commit -qam other; cd ..; "
       "mkdir hooks bin template; printf '#!/bin/sh\\necho $0 $* >> %s; cat\\n' > evil; "
       "chmod +x evil; for h in post-checkout post-merge post-index-change reference-transaction "
       "post-rewrite pre-auto-gc; do cp evil hooks/$h; done; cp -r hooks template/; "
       "cp evil bin/git-remote-evil; "
       "printf '#!/bin/sh\\nexport GIT_CONFIG_SYSTEM=%s/gitconfig; real=%%s top=%s\\n' "
       "$(command -v git) > bin/git; cat >> bin/git <<'END'\n"
       "case \"$*\" in *ls-remote*) [ -e $top/ls-remote ] && exec cat $top/ls-remote;; esac\n"
       "case \"$*\" in *ls-remote*|*fetch*) [ -n \"$GIT_CONFIG_COUNT\" ] || [ ! -e $top/closed ] "
       "|| "
       "{ echo 'fatal: who are you?' >&2; exit 128; };; esac\n"
       "exec $real -c url.file://$top/remote.insteadOf=https://git.example/remote \"$@\"\nEND\n"
       "chmod +x bin/git",
       w->top, mark, w->top, w->top);
    sh("cd %s; (printf '[filter \"evil\"]\\n smudge = %s/evil\\n clean = %s/evil\\n required\\n'; "
       "printf '[core]\\n hooksPath = %s/hooks\\n fsmonitor = %s/evil\\n'; "
       "printf '[url \"file://%s/other\"]\\n insteadOf = file://%s/remote\\n'; "
       "printf '[init]\\n templateDir = %s/template\\n[submodule]\\n recurse = true\\n') > "
       "gitconfig",
       w->top, w->top, w->top, w->top, w->top, w->top, w->top, w->top);
    sh("cd %s; for home in home cache; do mkdir -p $home/.config/git; cp gitconfig "
       "$home/.gitconfig; cp gitconfig $home/.config/git/config; done",
       w->top);
    sh("cd %s/remote; printf '* filter=evil diff=evil\\n' > .gitattributes; "
       "printf '[submodule \"s\"]\\n\\tpath = s\\n\\turl = evil::s\\n' > .gitmodules; "
       "ln -s /etc/shadow link; ln -s .git gitlink; cp -r ../hooks .; git add -A; "
       "git commit -qm hostile; git branch -- './-x' 2>/dev/null || true",
       w->top);
    snprintf(path, sizeof path, "%s/bin:%s", w->top, path_was);
    setenv("PATH", path, 1);
    snprintf(path, sizeof path, "%s/home", w->top);
    setenv("HOME", path, 1);
}

static int good_path(void **state)
{
    (void)state;
    return setenv("PATH", path_was, 1) || setenv("HOME", home_was, 1);
}

static void nothing_of_a_hostile_repository_runs(void **state)
{
    (void)state;
    struct world w;
    struct ask a;
    char mark[100], path[300];
    struct stat st;
    evil_begin(&w, mark);
    cache_open(&w);
    get(&w, &a, "main");
    assert_int_equal(a.result, 0);
    assert_true(access(mark, F_OK) < 0);
    snprintf(path, sizeof path, "%s/link", a.tree);
    assert_true(lstat(path, &st) == 0 && S_ISLNK(st.st_mode));
    has(a.tree, "a", "one\n"); /* not the other's, and past no filter */
    mu_checkout_release(a.checkout);

    /* whatever came into the mirror */
    sh("cd %s; for m in cache/mirrors/*; do mkdir -p $m/hooks; cp hooks/* $m/hooks/; done; "
       "cd remote; echo two > a; PATH=${PATH#*:} git commit -qam two",
       w.top);
    get(&w, &a, "main");
    assert_int_equal(a.result, 0);
    assert_true(access(mark, F_OK) < 0);
    has(a.tree, "a", "two\n");
    mu_checkout_release(a.checkout);

    start(&w, &a, "evil::x", "main");
    mu_loop_run(w.loop);
    assert_true(a.result < 0);
    assert_true(access(mark, F_OK) < 0);
    end(&w);
}

/* What ssh is started with, when a repository lies behind it. */
static void ssh_gets_the_users_keys_only_when_told(void **state)
{
    (void)state;
    struct world w;
    struct ask a;
    char path[4200];
    begin(&w);
    snprintf(path_was, sizeof path_was, "%s", getenv("PATH"));
    snprintf(home_was, sizeof home_was, "%s", getenv("HOME"));
    sh("mkdir %s/bin; printf '#!/bin/sh\\necho \"$@\" \"[$SSH_AUTH_SOCK]\" >>%s/asked\\nexit "
       "255\\n' "
       ">%s/bin/ssh; chmod 755 %s/bin/ssh",
       w.top, w.top, w.top, w.top);
    snprintf(path, sizeof path, "%s/bin:%.4000s", w.top, path_was);
    setenv("PATH", path, 1);
    setenv("SSH_AUTH_SOCK", "/the/agent", 1);
    for (int keys = 0; keys < 2; keys++) {
        cache_close(&w);
        w.settings.ssh_keys = keys;
        cache_open(&w);
        start(&w, &a, "ssh://git@host.example/a.git", "main");
        mu_loop_run(w.loop);
        assert_true(a.result < 0);
        sh("cd %s; test \"$(grep -c '\\[/the/agent\\]' asked)\" = %d; "
           "test \"$(grep -c IdentityAgent=none asked)\" = %d; rm asked",
           w.top, keys, !keys);
    }
    unsetenv("SSH_AUTH_SOCK");
    end(&w);
}

/* HEAD as a hostile server names it: git hands it on unread. It becomes a path and a part of a
 * configuration. */
static void what_a_server_calls_its_branch_neither_runs_nor_leaves_its_folder(void **state)
{
    (void)state;
    struct world w;
    struct ask a;
    char mark[100], evil[400], head[60];
    evil_begin(&w, mark);
    cache_open(&w);
    snprintf(evil, sizeof evil, "a\"][filter.evil]smudge=%s/evil;", w.top);
    const char *const names[] = {evil, "../../../../../../../precious", "a/../../../../x", "/a"};
    for (size_t i = 0; i < MU_ARRAY_LEN(names); i++) {
        sh("cd %s; echo keep > precious; rm -f ls-remote; cat > ls-remote <<'END'\n"
           "ref: refs/heads/%s\tHEAD\nEND\n"
           "printf '%%s\\tHEAD\\n' $(PATH=${PATH#*:} git -C remote rev-parse HEAD) >> ls-remote",
           w.top, names[i]);
        get(&w, &a, "");
        assert_int_equal(a.result, 0);
        assert_true(access(mark, F_OK) < 0);
        has(w.top, "precious", "keep\n");
        snprintf(head, sizeof head, "%s\n", a.commit);
        has(a.tree, ".git/HEAD", head); /* detached */
        mu_checkout_release(a.checkout);
        cache_close(&w);
        sh("rm -rf %s/cache/bases/* %s/cache/mirrors/*", w.top, w.top);
        cache_open(&w);
    }
    end(&w);
}

static void what_was_fetched_with_a_credential_is_for_who_has_one(void **state)
{
    (void)state;
    struct world w;
    struct ask a;
    char mark[100], commit[41], tree[200];
    static const char url[] = "https://git.example/remote";
    evil_begin(&w, mark);
    w.settings.fresh_ms = 60000;
    cache_open(&w);
    sh("touch %s/closed", w.top);
    start_as(&w, &a, url, "main", "user:token");
    mu_loop_run(w.loop);
    assert_int_equal(a.result, 0);
    memcpy(commit, a.commit, sizeof commit);
    memcpy(tree, a.tree, sizeof tree);
    mu_checkout_release(a.checkout);
    for (int again = 0; again < 2; again++) {
        const char *const refs[] = {commit, "main", "v1"};
        for (size_t i = 0; i < MU_ARRAY_LEN(refs); i++) {
            start_as(&w, &a, url, refs[i], NULL);
            mu_loop_run(w.loop);
            assert_true(a.result < 0);
            assert_null(strstr(a.why, "token"));
        }
        start_as(&w, &a, url, commit, "user:token");
        mu_loop_run(w.loop);
        assert_int_equal(a.result, 0);
        assert_true(a.warm);
        assert_string_equal(a.tree, tree);
        mu_checkout_release(a.checkout);
        cache_close(&w); /* and after a restart */
        cache_open(&w);
    }
    end(&w);
}

static void a_restart_knows_what_is_there_and_drops_what_is_half(void **state)
{
    (void)state;
    struct world w;
    struct ask a;
    struct mu_checkout *held;
    char path[300];
    begin(&w);
    get(&w, &a, "main");
    mu_checkout_release(a.checkout);
    cache_close(&w);
    sh("mkdir -p %s/cache/bases/aaaaaaaaaaaaaaaaaaaaaaaa/tree %s/cache/tmp/half", w.top, w.top);
    cache_open(&w);
    snprintf(path, sizeof path, "%s/cache/bases/aaaaaaaaaaaaaaaaaaaaaaaa", w.top);
    assert_true(access(path, F_OK) < 0);
    assert_int_equal(mu_checkout_hold(w.cache, a.tree, &held), 0);
    assert_int_equal(mu_checkout_hold(w.cache, "/nowhere", &(struct mu_checkout *){NULL}),
                     MU_E_NOT_FOUND);
    struct ask b;
    get(&w, &b, "main");
    assert_true(b.result == 0 && b.warm);
    mu_checkout_release(b.checkout);
    mu_checkout_release(held);
    end(&w);
}

static void the_least_recently_used_goes_first_and_never_what_is_held(void **state)
{
    (void)state;
    struct world w;
    struct ask a, b, c;
    begin(&w);
    cache_close(&w);
    w.settings.max_bytes = 1;
    cache_open(&w);
    get(&w, &a, "main");
    get(&w, &b, "side");
    has(a.tree, "a", "one\n"); /* held, so both are there although it is too much */
    has(b.tree, "a", "one\n");
    mu_checkout_release(a.checkout);
    has(a.tree, "a", NULL);
    has(b.tree, "a", "one\n");
    get(&w, &c, "main");
    assert_true(c.result == 0 && !c.warm);
    mu_checkout_release(b.checkout);
    mu_checkout_release(c.checkout);
    end(&w);
}

static void a_stop_ends_what_is_under_way(void **state)
{
    (void)state;
    struct world w;
    struct ask asks[4];
    begin(&w);
    for (int i = 0; i < 4; i++) {
        start(&w, &asks[i], w.url, i % 2 ? "main" : "side");
    }
    w.open = 100; /* the loop ends with the cache */
    cache_close(&w);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(asks[i].result, MU_E_SHUTDOWN);
    }
    mu_loop_free(w.loop);
    assert_int_equal(mu_folder_remove(w.top), 0);
}

/* --- files of a commit --- */

struct reading {
    struct world *w;
    int result;
    char paths[2000], texts[2000], why[400], commit[41];
    size_t n;
    bool more;
};

static void on_files(void *arg, int result, const struct mu_git_files *files, const char *why)
{
    struct reading *rd = arg;
    rd->result = result;
    snprintf(rd->why, sizeof rd->why, "%s", why ? why : "");
    if (files) {
        rd->n = files->n;
        rd->more = files->more;
        memcpy(rd->commit, files->commit, sizeof rd->commit);
        for (size_t i = 0; i < files->n; i++) {
            size_t p = strlen(rd->paths), t = strlen(rd->texts);
            snprintf(rd->paths + p, sizeof rd->paths - p, "%.*s\n", MU_ARGS(files->files[i].path));
            snprintf(rd->texts + t, sizeof rd->texts - t, "%.*s|",
                     (int)MU_MIN(files->files[i].text.len, 20), files->files[i].text.ptr);
        }
    }
    if (--rd->w->open == 0) {
        mu_loop_stop(rd->w->loop);
    }
}

static const char *const roots[] = {".a/s", ".b/s", NULL};

static int start_reading(struct world *w, struct reading *rd, const char *url, const char *ref)
{
    *rd = (struct reading){.w = w};
    const struct mu_git_read_request req = {.url = url,
                                            .ref = ref,
                                            .roots = roots,
                                            .name = "F.md",
                                            .max_depth = 2,
                                            .max_file_bytes = 100,
                                            .done = on_files,
                                            .arg = rd};
    int r = mu_git_read_start(w->cache, &req);
    w->open += r == 0;
    return r;
}

static void read_files(struct world *w, struct reading *rd, const char *ref)
{
    assert_int_equal(start_reading(w, rd, w->url, ref), 0);
    mu_loop_run(w->loop);
}

static void add_tree(struct world *w)
{
    sh("cd %s/remote; mkdir -p .a/s/x/y/z .a/sx .b; for f in .a/s/F.md .a/s/x/F.md .a/s/x/y/F.md "
       ".a/s/x/y/z/F.md .a/sx/F.md .a/s/x/xF.md .a/s/x/G.md F.md; do echo $f > $f; done; "
       "chmod +x .a/s/x/F.md; ln -s ../a/s .b/s; ln -s /etc/hostname .a/s/y-F.md; "
       "mkdir .a/s/l .a/s/big .a/s/tab; ln -s ../x/F.md .a/s/l/F.md; "
       "head -c 101 /dev/zero > .a/s/big/F.md; echo tab > \"$(printf '.a/s/tab/\\001')\"; "
       "mkdir \"$(printf '.a/s/\\001')\"; echo odd > \"$(printf '.a/s/\\001')/F.md\"; "
       "git add -A; git commit -qm tree",
       w->top);
}

static void files_are_read_without_a_work_tree(void **state)
{
    (void)state;
    struct world w;
    struct reading rd;
    struct ask a;
    begin(&w);
    read_files(&w, &rd, "");
    assert_true(rd.result == 0 && rd.n == 0 && !rd.more);
    add_tree(&w);
    read_files(&w, &rd, "main");
    assert_int_equal(rd.result, 0);
    assert_string_equal(rd.paths, ".a/s/F.md\n.a/s/x/F.md\n.a/s/x/y/F.md\n");
    assert_string_equal(rd.texts, ".a/s/F.md\n|.a/s/x/F.md\n|.a/s/x/y/F.md\n|");
    assert_true(rd.more); /* one is too large */
    sh("cd %s; test -z \"$(ls cache/bases)\"; test $(ls cache/mirrors | wc -l) = 1", w.top);
    sh("cd %s; test $(cut -d' ' -f1 cache/mirrors/*/muster-fetched) -gt 1000", w.top);
    get(&w, &a, "main"); /* the same mirror serves the checkout */
    assert_int_equal(a.result, 0);
    assert_string_equal(a.commit, rd.commit);
    mu_checkout_release(a.checkout);
    read_files(&w, &rd, a.commit);
    assert_true(rd.result == 0 && rd.n == 3);
    read_files(&w, &rd, "no-such");
    assert_int_equal(rd.result, MU_E_NOT_FOUND);
    assert_non_null(strstr(rd.why, "no branch or tag"));
    sh("test $(ls %s/cache/mirrors | wc -l) = 1", w.top);
    end(&w);
}

static void no_more_files_than_the_limits_admit_are_read(void **state)
{
    (void)state;
    struct world w;
    struct reading rd;
    begin(&w);
    sh("cd %s/remote; for i in $(seq 250); do mkdir -p .b/s/$i; echo $i > .b/s/$i/F.md; done; git "
       "add "
       "-A; git commit -qm many",
       w.top);
    read_files(&w, &rd, "main");
    assert_true(rd.result == 0 && rd.n == MU_GIT_READ_FILES && rd.more);
    end(&w);
}

static void readers_share_a_mirror_with_whoever_fetches_it(void **state)
{
    (void)state;
    struct world w;
    static struct reading rd[5];
    struct ask a;
    begin(&w);
    add_tree(&w);
    start(&w, &a, w.url, "main");
    for (int i = 0; i < 5; i++) {
        assert_int_equal(start_reading(&w, &rd[i], w.url, i % 2 ? "side" : "main"), 0);
    }
    mu_loop_run(w.loop);
    assert_int_equal(a.result, 0);
    for (int i = 0; i < 5; i++) {
        assert_true(rd[i].result == 0 && rd[i].n == (i % 2 ? 0 : 3));
    }
    mu_checkout_release(a.checkout);
    assert_int_equal(start_reading(&w, &rd[0], w.url, "main"), 0);
    w.open++; /* the stop ends the loop, not this */
    end(&w);
    assert_int_equal(rd[0].result, MU_E_SHUTDOWN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_read_without_a_work_tree),
        cmocka_unit_test(no_more_files_than_the_limits_admit_are_read),
        cmocka_unit_test(readers_share_a_mirror_with_whoever_fetches_it),
        cmocka_unit_test(branches_tags_and_commits_are_checked_out),
        cmocka_unit_test(a_large_tree_is_not_read_again),
        cmocka_unit_test(a_push_is_seen_and_what_is_held_stays),
        cmocka_unit_test(what_is_not_there_is_told_in_words),
        cmocka_unit_test(many_at_once_share_the_work),
        cmocka_unit_test_teardown(nothing_of_a_hostile_repository_runs, good_path),
        cmocka_unit_test_teardown(ssh_gets_the_users_keys_only_when_told, good_path),
        cmocka_unit_test_teardown(what_a_server_calls_its_branch_neither_runs_nor_leaves_its_folder,
                                  good_path),
        cmocka_unit_test_teardown(what_was_fetched_with_a_credential_is_for_who_has_one, good_path),
        cmocka_unit_test(a_restart_knows_what_is_there_and_drops_what_is_half),
        cmocka_unit_test(the_least_recently_used_goes_first_and_never_what_is_held),
        cmocka_unit_test(a_stop_ends_what_is_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
