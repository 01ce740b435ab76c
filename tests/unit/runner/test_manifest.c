#include "../unit.h"

#include <stdio.h>

#include "../alloc_fail.h"
#include "base/buf.h"
#include "runner/manifest.h"

#define ID_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define ID_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define ID_C "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"

static const char chain[] =
    "{\"checkpoints\":[{\"id\":\"x\",\"number\":1,\"conversationId\":\"old\",\"roots\":["
    "{\"kind\":\"checkout\",\"path\":\"r\",\"branch\":\"main\",\"head\":\"" ID_A
    "\",\"base\":\"" ID_A "\",\"commit\":\"" ID_B "\",\"parts\":2},"
    "{\"kind\":\"checkout\",\"path\":\"gone\",\"commit\":\"" ID_B "\",\"parts\":1},"
    "{\"kind\":\"home\",\"path\":\"\",\"commit\":\"" ID_B "\",\"parts\":1}],\"parts\":["
    "{\"name\":\"ckpt-1-1-1.pack\",\"bytes\":1},{\"name\":\"ckpt-1-1-2.pack\"},"
    "{\"name\":\"ckpt-1-1-3.pack\"},{\"name\":\"ckpt-1-1-4.pack\"}]},"
    "{\"number\":2,\"prev\":1,\"conversationId\":\"new\",\"roots\":["
    "{\"kind\":\"workspace\",\"commit\":\"" ID_C "\",\"parts\":1},"
    "{\"kind\":\"checkout\",\"path\":\"r\",\"branch\":\"a/b\",\"head\":\"" ID_B
    "\",\"commit\":\"" ID_C "\",\"shallow\":[\"" ID_A "\",\"" ID_C "\"],\"parts\":1},"
    "{\"kind\":\"home\",\"path\":\"\",\"commit\":\"" ID_C "\"}],\"parts\":["
    "{\"name\":\"ckpt-1-2-1.pack\"},{\"name\":\"ckpt-1-2-2.pack\"}],\"other\":[1]}]}";

static void the_newest_says_what_there_is_and_all_give_its_packs(void **state)
{
    (void)state;
    struct mu_manifest m;
    struct mu_err err;
    assert_int_equal(mu_manifest_read(mu_str(chain), &m, &err), 0);
    assert_string_equal(m.conversation, "new");
    assert_int_equal(m.n_roots, 3);
    const struct mu_manifest_root *w = &m.roots[0], *r = &m.roots[1], *h = &m.roots[2];
    assert_string_equal(w->kind, "workspace");
    assert_string_equal(w->dir, "");
    assert_int_equal(w->n_files, 1);
    assert_string_equal(r->dir, "r");
    assert_string_equal(r->branch, "a/b");
    assert_string_equal(r->head, ID_B);
    assert_string_equal(r->base, "");
    assert_string_equal(r->commit, ID_C);
    assert_int_equal(r->n_shallow, 2);
    static const char *const names[] = {"ckpt-1-1-1.pack", "ckpt-1-1-2.pack", "ckpt-1-2-2.pack"};
    assert_int_equal(r->n_files, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_string_equal(r->files[i].name, names[i]);
        assert_int_equal(r->files[i].first, i != 1);
    }
    assert_int_equal(h->n_files, 1); /* that of the repository that is gone is nobody's */
    assert_string_equal(h->files[0].name, "ckpt-1-1-4.pack");
    mu_manifest_fini(&m);
}

static void refused(const char *text)
{
    struct mu_manifest m;
    struct mu_err err = {0};
    if (mu_manifest_read(mu_str(text), &m, &err) != MU_E_INVALID) {
        fail_msg("taken: %s", text);
    }
    assert_true(err.text[0]);
}

static void root_refused(const char *root)
{
    char text[1024];
    snprintf(text, sizeof text, "{\"checkpoints\":[{\"roots\":[%s],\"parts\":[]}]}", root);
    refused(text);
}

static void part_refused(const char *count, const char *parts)
{
    char text[1024];
    snprintf(text, sizeof text,
             "{\"checkpoints\":[{\"roots\":[{\"kind\":\"home\",\"commit\":\"" ID_A
             "\",\"parts\":%s}],\"parts\":[%s]}]}",
             count, parts);
    refused(text);
}

static void what_would_leave_the_workspace_or_is_no_checkpoint_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "", "{}", "[]", "{\"checkpoints\":7}", "{\"checkpoints\":[]}", "{\"checkpoints\":[7]}"};
    for (size_t i = 0; i < MU_ARRAY_LEN(texts); i++) {
        refused(texts[i]);
    }
    static const char *const dirs[] = {"/x",       "..",  "a/../b", "a//b", ".git",
                                       "a/.GIT/b", ".oz", ".oz/x",  "a/."};
    char root[600];
    for (size_t i = 0; i < MU_ARRAY_LEN(dirs); i++) {
        snprintf(root, sizeof root,
                 "{\"kind\":\"checkout\",\"path\":\"%s\",\"commit\":\"" ID_A "\"}", dirs[i]);
        root_refused(root);
    }
    root_refused("{\"kind\":\"checkout\",\"path\":\"r\"}"); /* no commit */
    root_refused("{\"kind\":\"checkout\",\"path\":\"r\",\"commit\":\"--all\"}");
    root_refused("{\"kind\":\"checkout\",\"path\":\"r\",\"commit\":\"abc\"}");
    root_refused("{\"kind\":\"other\",\"commit\":\"" ID_A "\"}");
    root_refused("{\"kind\":\"home\",\"path\":\"x\",\"commit\":\"" ID_A "\"}");
    root_refused("{\"kind\":\"checkout\",\"branch\":\"-f\",\"commit\":\"" ID_A "\"}");
    root_refused("{\"kind\":\"checkout\",\"branch\":\"a b\",\"commit\":\"" ID_A "\"}");
    root_refused("{\"kind\":\"checkout\",\"shallow\":[\"x\"],\"commit\":\"" ID_A "\"}");
    part_refused("1", "");
    part_refused("0", "{\"name\":\"ckpt-1-1-1.pack\"}"); /* one that is nobody's */
    part_refused("-1", "");
    part_refused("129", "");
    part_refused("1", "{\"name\":\"../x\"}");
    part_refused("1", "{\"name\":\"-x\"}");
    part_refused("1", "{\"name\":\"\"}");
}

/* The item so many times between the two. */
static int read_many(const char *before, const char *item, size_t n, const char *after)
{
    struct mu_manifest m;
    struct mu_err err;
    struct mu_buf b;
    mu_buf_init(&b, MU_MANIFEST_BYTES);
    mu_buf_add_str(&b, before);
    for (size_t i = 0; i < n; i++) {
        mu_buf_add_str(&b, i ? "," : "");
        mu_buf_add_str(&b, item);
    }
    mu_buf_add_str(&b, after);
    int r = b.failed ? b.failed : mu_manifest_read(mu_buf_bytes(&b), &m, &err);
    if (r == 0) {
        mu_manifest_fini(&m);
    }
    mu_buf_fini(&b);
    return r;
}

static void there_are_only_so_many_of_each(void **state)
{
    (void)state;
#define HOME "{\"kind\":\"home\",\"commit\":\"" ID_A "\""
    char parts[4096];
    int at = snprintf(parts, sizeof parts, "{\"roots\":[" HOME ",\"parts\":128}],\"parts\":[");
    for (int i = 0; i < 128; i++) {
        at += snprintf(parts + at, sizeof parts - (size_t)at, "%s{\"name\":\"p\"}", i ? "," : "");
    }
    snprintf(parts + at, sizeof parts - (size_t)at, "]}");
    const struct {
        const char *before, *item;
        size_t max;
        const char *after;
    } cases[] = {
        {"{\"checkpoints\":[", "{\"roots\":[" HOME "}],\"parts\":[]}", MU_MANIFEST_CHAIN, "]}"},
        {"{\"checkpoints\":[{\"roots\":[", HOME "}", MU_MANIFEST_ROOTS, "],\"parts\":[]}]}"},
        {"{\"checkpoints\":[{\"roots\":[" HOME ",\"shallow\":[", "\"" ID_A "\"",
         MU_MANIFEST_SHALLOW, "]}],\"parts\":[]}]}"},
        {"{\"checkpoints\":[", parts, MU_MANIFEST_FILES / 128, "]}"}};
    for (size_t i = 0; i < MU_ARRAY_LEN(cases); i++) {
        for (size_t more = 0; more < 2; more++) {
            assert_int_equal(
                read_many(cases[i].before, cases[i].item, cases[i].max + more, cases[i].after),
                more ? MU_E_INVALID : 0);
        }
    }
}

static int read_it(void *arg)
{
    struct mu_manifest m;
    struct mu_err err;
    (void)arg;
    int r = mu_manifest_read(mu_str(chain), &m, &err);
    if (r == 0) {
        mu_manifest_fini(&m);
    }
    return r;
}

static void any_allocation_may_fail(void **state)
{
    (void)state;
    each_allocation_fails(read_it, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_newest_says_what_there_is_and_all_give_its_packs),
        cmocka_unit_test(what_would_leave_the_workspace_or_is_no_checkpoint_is_refused),
        cmocka_unit_test(there_are_only_so_many_of_each),
        cmocka_unit_test(any_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
