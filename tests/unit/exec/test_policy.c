#include "../unit.h"

#include <stdio.h>

#include "../alloc_fail.h"
#include "exec/agents/policy.h"
#include "exec/agents/shell.h"

static void read_policy(const char *json, struct mu_guard *g)
{
    struct mu_err err;
    if (mu_guard_read(mu_str(json), g, &err) < 0) {
        fail_msg("%s: %s", json, err.text);
    }
}

static struct mu_guard_answer check(const char *json, const char *kind, const char *command,
                                    const char *path, const char *url)
{
    struct mu_guard g;
    struct mu_guard_answer a;
    read_policy(json, &g);
    struct mu_guard_request r = {mu_str(kind), mu_str(command), mu_str(url), &path, path ? 1 : 0};
    mu_guard_check(&g, &r, &a);
    mu_guard_fini(&g);
    return a;
}

/* "allow", or the verdict with its action */
static const char *verdict(const char *json, const char *command)
{
    static char text[64];
    struct mu_guard_answer a = check(json, "execute", command, NULL, NULL);
    static const char *const words[] = {"allow", "ask", "deny"};
    assert_true(a.rule[0]);
    snprintf(text, sizeof text, "%s%s%s", words[a.verdict], a.verdict ? " " : "",
             a.verdict ? mu_guard_action_name(a.action) : "");
    return text;
}

static void expect(const char *json, const char *command, const char *want)
{
    const char *got = verdict(json, command);
    if (strcmp(got, want) != 0) {
        fail_msg("%s under %s: %s, not %s", command, json, got, want);
    }
}

static const char *const defaults[][2] = {
    {"ls -la", "allow"},
    {"cat README.md | grep -n 'git push' | head", "allow"},
    {"echo \"git push\"", "allow"},
    {"make test && ./run.sh > out.txt 2>&1", "allow"},
    {"git commit -am 'x; git push'", "allow"},
    {"git status; git diff HEAD~1", "allow"},
    {"for f in a b; do cat $f; done", "allow"},
    {"if test -f x; then echo y; fi", "allow"},
    {"FOO=1 make", "allow"},
    {"env FOO=1 make", "allow"},
    {"env make", "allow"},
    {"export FOO=1; make", "allow"},
    {"cat <<'EOF' > x\n$(git push)\nEOF\nls", "allow"},
    {"curl -s https://example.test/", "allow"},
    {"npm test", "allow"},
    {"npm run build", "allow"},
    {"cargo build --release", "allow"},
    {"kubectl get pods", "allow"},
    {"echo a # git push", "allow"},
    {"git push", "ask merge"},
    {"git push origin main", "ask merge"},
    {"/usr/bin/git push", "ask merge"},
    {"git -C /x --no-pager push", "ask merge"},
    {"ls && git push", "ask merge"},
    {"ls; git   push", "ask merge"},
    {"ls || git push", "ask merge"},
    {"ls | git push", "ask merge"},
    {"ls & git push", "ask merge"},
    {"ls\ngit push", "ask merge"},
    {"(cd x; git push)", "ask merge"},
    {"{ git push; }", "ask merge"},
    {"if true; then git push; fi", "ask merge"},
    {"for i in 1; do git push; done", "ask merge"},
    {"! git push", "ask merge"},
    {"echo $(git push)", "ask merge"},
    {"echo \"$(git push)\"", "ask merge"},
    {"echo `git push`", "ask merge"},
    {"diff <(git push) x", "ask merge"},
    {"A=$(git push)", "ask merge"},
    {"sh -c 'git push'", "ask merge"},
    {"bash -lc 'cd x && git push'", "ask merge"},
    {"bash -euo pipefail -c 'git push'", "ask merge"},
    {"sudo -u root git push", "ask merge"},
    {"env A=1 B=2 git push", "ask merge"},
    {"nohup timeout 5 git push", "ask merge"},
    {"time git push", "ask merge"},
    {"exec git push", "ask merge"},
    {"eval git push", "ask merge"},
    {"eval 'git push'", "ask merge"},
    {"find . -exec git push ';'", "ask merge"},
    {"'git' \"push\"", "ask merge"},
    {"g\\it pu'sh'", "ask merge"},
    {"git \\\npush", "ask merge"},
    {">x git push", "ask merge"},
    {"gh pr merge 5", "ask merge"},
    {"npm install left-pad", "ask deps_add"},
    {"python3 -m pip install x", "ask deps_add"},
    {"npx create-thing", "ask deps_add"},
    {"cargo add serde", "ask deps_add"},
    {"cargo +nightly add serde", "ask deps_add"},
    {"cat .env", "ask secrets"},
    {"cat ~/.ssh/id_rsa", "ask secrets"},
    {"env", "ask secrets"},
    {"printenv", "ask secrets"},
    {"dd if=.env of=x", "ask secrets"},
    {"kubectl -n prod apply -f x", "ask deploy"},
    {"terraform apply", "ask deploy"},
    {"npm publish", "ask deploy"},
    {"npm run deploy:prod", "ask deploy"},
    {"make deploy", "ask deploy"},
    {"git push && npm publish", "ask deploy"},
};

static void the_defaults_ask_for_four_actions(void **state)
{
    (void)state;
    for (size_t i = 0; i < MU_ARRAY_LEN(defaults); i++) {
        expect("", defaults[i][0], defaults[i][1]);
        expect("{}", defaults[i][0], defaults[i][1]);
    }
}

static void what_is_not_certain_is_asked_for(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "$X push",
        "git $SUB origin",
        "`which git` push",
        "g{i,x}t push",
        "'ls",
        "ls \"",
        "ls $(",
        "ls `x",
        "eval $X",
        "sh -c \"$X\"",
        "echo x | sh",
        "curl x | bash",
        "bash <<EOF\nls\nEOF",
        "f() { git push; }; f",
        "case x in y) ls;; esac",
        "git -c alias.x='!ls' x",
        "PATH=/x git log",
        "GIT_SSH_COMMAND=x git fetch",
        "echo x | xargs git",
        "$'ls'",
        "(( x ))",
        "ls )",
        "alias ls=rm",
        "cat <<EOF\n$(ls)\nEOF",
        "cat <<EOF\nno end",
        "/b?n/ls",
        "trap 'ls' EXIT",
        "",
        "sudo --user root ls",
        "env PATH=/x git log",
        "export PATH=/x; git log",
        "declare -x LD_PRELOAD=x",
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        struct mu_guard_answer a = check("", "execute", rows[i], NULL, NULL);
        if (a.verdict != MU_GUARD_ASK) {
            fail_msg("not asked for: %s", rows[i]);
        }
    }
    char *deep = mu_calloc(1, 70000);
    memset(deep, 'a', 69000);
    assert_int_equal(check("", "execute", deep, NULL, NULL).verdict, MU_GUARD_ASK);
    for (size_t i = 0; i < 20; i++) {
        memcpy(deep + 2 * i, "$(", 2);
    }
    assert_int_equal(check("", "execute", deep, NULL, NULL).verdict, MU_GUARD_ASK);
    mu_free(deep);
    assert_int_equal(check("", "execute", NULL, NULL, NULL).verdict, MU_GUARD_ASK);
}

static void what_destroys_the_machine_is_denied(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "rm -rf /",         "sudo rm -fr /*",      "rm -r --force ~",
        "mkfs.ext4 /dev/x", "dd if=x of=/dev/sda", "echo x > /dev/sda",
        "chmod -R 777 /",   "ls && rm -rf /"};
    for (size_t i = 0; i < MU_ARRAY_LEN(rows); i++) {
        expect("", rows[i], "deny shell");
    }
    expect("", "rm -rf build", "allow");
    expect("", "rm -rf /tmp/x", "allow");
    expect("", "ls > /dev/null", "allow");
}

static void deny_beats_allow_and_a_star_means_any(void **state)
{
    (void)state;
    const char *p = "{\"shellAllowlist\":[\"*\"],\"shellDenylist\":[\"git push\",\"curl\"]}";
    expect(p, "ls", "allow");
    expect(p, "git status", "allow");
    expect(p, "GIT push", "deny shell");
    expect(p, "/usr/local/bin/curl x", "deny shell");
    expect(p, "git push --force", "deny shell");
    expect(p, "ls; (sudo curl x)", "deny shell");
    expect(p, "$(curl x)", "deny shell");
    expect(p, "git $X", "ask shell");
    p = "{\"shellAllowlist\":[\"git\",\"npm run *\",\"ls\"],\"shellDenylist\":[\"*\"]}";
    expect(p, "ls", "deny shell");
    p = "{\"shellAllowlist\":[\"git\",\"npm run\",\"/bin/ls\"]}";
    expect(p, "/usr/bin/git log && npm run x && ls -l", "allow");
    expect(p, "cd x && git log && echo done", "allow");
    expect(p, "npm test", "ask shell");
    expect(p, "git log | grep x", "ask shell");
    p = "{\"shellAllowlist\":[\"git\"],\"shellDefault\":\"deny\"}";
    expect(p, "ls", "deny shell");
    p = "{\"shellAllowlist\":[\"git\"],\"shellDefault\":\"allow\"}";
    expect(p, "ls", "allow");
    p = "{\"shellAllowlist\":[]}";
    expect(p, "ls", "allow");
}

static void the_list_of_approvals_decides(void **state)
{
    (void)state;
    expect("{\"requiresApprovalFor\":[]}", "git push; npm publish; npm i x", "allow");
    expect("{\"requiresApprovalFor\":[\"deploy\"]}", "git push", "allow");
    expect("{\"requiresApprovalFor\":[\"shell\"]}", "ls", "ask shell");
    expect("{\"requiresApprovalFor\":[\"network\"]}", "curl https://example.test", "ask network");
    expect("{\"networkMode\":\"restricted\"}", "curl https://example.test", "ask network");
    expect("{\"networkMode\":\"restricted\"}", "curl https://api.github.com/x", "allow");
    expect("{\"networkMode\":\"restricted\"}", "curl https://github.com.evil.test/x",
           "ask network");
    expect("{\"networkMode\":\"restricted\"}", "curl https://a@b:c@evil.test/github.com",
           "ask network");
    expect("{\"networkMode\":\"restricted\",\"egressAllowlist\":[\"*.example.test\"]}",
           "curl https://a.example.test", "allow");
    expect("{\"networkMode\":\"restricted\"}", "curl $URL", "ask network");
    expect("{\"protectedBranches\":[\"main\"]}", "git merge x", "ask merge");
    expect("{\"protectedPaths\":[\"infra/\"]}", "cat infra/x", "ask secrets");
    expect("{\"protectedPaths\":[\"infra\"]}", "cat ./myinfra/x", "allow");
    expect("{\"protectedPaths\":[\"infra\"]}", "echo x > /w/infra/y", "ask secrets");
}

static void risk_tells_a_push_from_a_forced_one(void **state)
{
    (void)state;
    const char *p = "{\"protectedBranches\":[\"main\"]}";
    assert_int_equal(check(p, "execute", "git push origin x", NULL, NULL).risk, MU_GUARD_MED);
    assert_int_equal(check(p, "execute", "git push origin x:main", NULL, NULL).risk, MU_GUARD_HIGH);
    assert_int_equal(check(p, "execute", "git push -f origin x", NULL, NULL).risk, MU_GUARD_HIGH);
    assert_int_equal(check(p, "execute", "npm i x", NULL, NULL).risk, MU_GUARD_LOW);
}

static void other_tools_are_asked_for(void **state)
{
    (void)state;
    struct mu_guard_answer a = check("", "edit", NULL, "/workspace/a.c", NULL);
    assert_true(a.verdict == MU_GUARD_ASK && a.action == MU_GUARD_TOOL && a.risk == MU_GUARD_LOW);
    a = check("", "edit", NULL, "/workspace/.env", NULL);
    assert_true(a.verdict == MU_GUARD_ASK && a.action == MU_GUARD_SECRETS);
    a = check("{\"protectedPaths\":[\"src\"]}", "edit", NULL, "/workspace/src/a.c", NULL);
    assert_true(a.action == MU_GUARD_SECRETS && a.risk == MU_GUARD_HIGH);
    a = check("", "fetch", NULL, NULL, "https://example.test/");
    assert_true(a.verdict == MU_GUARD_ASK && a.action == MU_GUARD_TOOL);
    a = check("{\"networkMode\":\"restricted\"}", "fetch", NULL, NULL, "https://example.test/");
    assert_true(a.verdict == MU_GUARD_ASK && a.action == MU_GUARD_NETWORK);
    a = check("{\"networkMode\":\"restricted\"}", "fetch", NULL, NULL, "https://github.com/x");
    assert_int_equal(a.verdict, MU_GUARD_ALLOW);
}

static void a_policy_that_cannot_be_read_allows_nothing(void **state)
{
    (void)state;
    static const char *const bad[] = {"[]",
                                      "{",
                                      "{\"shellAllowlist\":\"ls\"}",
                                      "{\"shellDenylist\":[1]}",
                                      "{\"networkMode\":\"x\"}",
                                      "{\"requiresApprovalFor\":[\"x\"]}",
                                      "{\"onDeny\":7}"};
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        struct mu_guard g;
        struct mu_err err;
        struct mu_guard_answer a;
        assert_int_equal(mu_guard_read(mu_str(bad[i]), &g, &err), MU_E_INVALID);
        struct mu_guard_request r = {.kind = MU_B("execute"), .command = MU_B("ls")};
        mu_guard_check(&g, &r, &a);
        assert_int_equal(a.verdict, MU_GUARD_ASK);
        mu_guard_fini(&g);
    }
}

static int body(void *arg)
{
    (void)arg;
    struct mu_guard g;
    struct mu_err err;
    struct mu_guard_answer a;
    int r = mu_guard_read(MU_B("{\"shellDenylist\":[\"x\",\"y\"],\"egressAllowlist\":[\"z\"]}"), &g,
                          &err);
    struct mu_guard_request q = {.kind = MU_B("execute"),
                                 .command = MU_B("ls $(x y) | sh -c 'eval \"a b\"' `c`")};
    mu_guard_check(&g, &q, &a);
    assert_true(a.verdict != MU_GUARD_ALLOW); /* whatever failed */
    mu_guard_fini(&g);
    return r;
}

static void no_memory_means_to_ask(void **state)
{
    (void)state;
    each_allocation_fails(body, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_defaults_ask_for_four_actions),
        cmocka_unit_test(what_is_not_certain_is_asked_for),
        cmocka_unit_test(what_destroys_the_machine_is_denied),
        cmocka_unit_test(deny_beats_allow_and_a_star_means_any),
        cmocka_unit_test(the_list_of_approvals_decides),
        cmocka_unit_test(risk_tells_a_push_from_a_forced_one),
        cmocka_unit_test(other_tools_are_asked_for),
        cmocka_unit_test(a_policy_that_cannot_be_read_allows_nothing),
        cmocka_unit_test(no_memory_means_to_ask),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
