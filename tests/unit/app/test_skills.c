/* What is asked of workers about repositories, and what is kept of their answers. */
#include "../unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "../alloc_fail.h"
#include "app/fleet/fleet.h"
#include "base/err.h"
#include "base/log.h"

enum { QUESTIONS = 600 };

static struct mu_env env;
static int64_t skew_ms;
static int null_fd;
static struct mu_loop *loop;
static struct mu_fleet *fleet;

/* A worker that can be asked; its last orders. */
static struct peer {
    struct mu_peer peer;
    struct mu_admission admission;
    char name[20];
    bool admitted, released;
    unsigned n;
    struct {
        struct mu_id id;
        char repo[100], credential[40];
    } asked[QUESTIONS];
} peers[3];

static int64_t mono_ns(const struct mu_env *e)
{
    (void)e;
    return mu_env_real.mono_ns(&mu_env_real) + skew_ms * 1000000;
}

static void on_order(struct mu_peer *p, struct mu_order *o)
{
    struct peer *x = MU_CONTAINER(p, struct peer, peer);
    if (o->kind == MU_ORDER_SKILLS) {
        assert_true(x->n < QUESTIONS);
        x->asked[x->n].id = o->command;
        snprintf(x->asked[x->n].repo, 100, "%.*s", MU_ARGS(o->repo));
        snprintf(x->asked[x->n].credential, 40, "%.*s", MU_ARGS(o->credential));
        x->n++;
    }
    mu_order_free(o);
}
static void on_close(struct mu_peer *p, int code, const char *reason)
{
    (void)code;
    (void)reason;
    mu_fleet_gone(p);
}
static void on_release(struct mu_peer *p)
{
    MU_CONTAINER(p, struct peer, peer)->released = true;
}
static void on_admitted(struct mu_admission *op, int result)
{
    assert_int_equal(result, 0);
    ((struct peer *)op->ctx)->admitted = true;
}

static void stop_turn(struct mu_timer *t)
{
    mu_loop_stop(t->loop);
}

static void turn(int64_t ms)
{
    struct mu_timer t;
    mu_timer_init(&t, loop, stop_turn);
    assert_int_equal(mu_timer_set(&t, ms), 0);
    mu_loop_run(loop);
    mu_timer_clear(&t);
}

static void later(int64_t ms)
{
    skew_ms += ms;
    turn(300); /* the fleet looks at its clock every 250 ms */
}

static struct peer *come(unsigned i, bool reads)
{
    struct peer *x = &peers[i];
    struct mu_report *r;
    memset(x, 0, sizeof *x);
    snprintf(x->name, sizeof x->name, "w%u", i);
    x->peer =
        (struct mu_peer){.loop = loop, .order = on_order, .close = on_close, .release = on_release};
    x->admission = (struct mu_admission){.peer = &x->peer,
                                         .name = mu_str(x->name),
                                         .anonymous = true,
                                         .native = true,
                                         .done = on_admitted,
                                         .ctx = x};
    mu_fleet_admit(fleet, &x->admission);
    turn(1);
    assert_true(x->admitted);
    mu_fleet_attach(&x->peer);
    assert_int_equal(mu_report_new(MU_REPORT_HELLO, &r), 0);
    r->peer = &x->peer;
    r->reads_skills = reads;
    mu_fleet_tell(fleet, r);
    turn(1);
    return x;
}

static void leave(struct peer *x)
{
    mu_fleet_gone(&x->peer);
    turn(1);
    assert_true(x->released);
}

static void begin(void)
{
    env = mu_env_real;
    env.mono_ns = mono_ns;
    skew_ms = 0;
    mu_log_fd(null_fd);
    memset(peers, 0, sizeof peers);
    assert_int_equal(mu_loop_new(&env, "core", &loop), 0);
    const struct mu_fleet_opts opts = {.env = &env, .core = loop, .max_tries = 3};
    assert_int_equal(mu_fleet_new(&opts, &fleet), 0);
    mu_fleet_start(fleet);
}

static void end(void)
{
    for (unsigned i = 0; i < MU_ARRAY_LEN(peers); i++) {
        if (peers[i].admitted && !peers[i].released) {
            leave(&peers[i]);
        }
    }
    mu_fleet_end(fleet);
    mu_loop_free(loop);
    mu_fleet_free(fleet);
}

/* --- asking --- */

struct ask {
    struct mu_fleet_skills op;
    bool done;
    int result;
    char first[40];
};

static void on_done(struct mu_fleet_skills *op, int result)
{
    struct ask *a = op->ctx;
    assert_false(a->done);
    a->done = true;
    a->result = result;
    snprintf(a->first, sizeof a->first, "%.*s",
             MU_ARGS(op->set && op->set->n ? op->set->skills[0].name : MU_B("")));
    op->set = mu_skill_set_unref(op->set);
}

static void ask_for(struct ask *a, const char *org, const char *repo, const char *credential,
                    bool refresh)
{
    *a = (struct ask){.op = {.loop = loop,
                             .org_id = mu_str(org),
                             .repo = mu_str(repo),
                             .credential = credential ? mu_str(credential) : MU_B_NONE,
                             .refresh = refresh,
                             .done = on_done,
                             .ctx = a}};
    mu_fleet_skills(fleet, &a->op);
    turn(1);
}

static struct ask ask(const char *org, const char *repo)
{
    static struct ask a;
    ask_for(&a, org, repo, NULL, false);
    return a;
}

static int answer(struct peer *x, unsigned i, const char *name, size_t size)
{
    struct mu_report *r;
    static char prompt[MU_SKILL_PROMPT_MAX];
    memset(prompt, 'p', sizeof prompt);
    if (mu_report_new(MU_REPORT_ANSWER, &r) < 0) {
        return -ENOMEM;
    }
    r->peer = &x->peer;
    r->command = x->asked[i].id;
    if (name) {
        const struct mu_skill skill = {mu_str(name), MU_B(""), MU_B("a/SKILL.md"),
                                       mu_bytes_of(prompt, MU_MIN(size, sizeof prompt))};
        int e = mu_skill_set_new(&r->skills);
        for (size_t at = 0; e == 0 && (at == 0 || at < size); at += sizeof prompt) {
            e = mu_skill_set_add(r->skills, &skill);
        }
        if (e < 0) {
            mu_report_free(r);
            return e;
        }
    } else {
        r->message = MU_B("no such\nthing");
    }
    mu_fleet_tell(fleet, r);
    turn(1);
    return 0;
}

static void answers_are_kept_ten_minutes_and_errors_half_a_minute(void **state)
{
    (void)state;
    struct ask a, b;
    begin();
    struct peer *x = come(0, true);
    ask_for(&a, "o", "r", NULL, false);
    assert_true(!a.done && x->n == 1);
    assert_int_equal(answer(x, 0, "one", 0), 0);
    assert_true(a.done && a.result == 0);
    assert_string_equal(a.first, "one");
    later(9 * 60 * 1000);
    assert_string_equal(ask("o", "r").first, "one");
    assert_int_equal(x->n, 1);
    later(61 * 1000);
    ask_for(&a, "o", "r", NULL, false);
    assert_int_equal(x->n, 2);
    answer(x, 1, NULL, 0);
    assert_int_equal(a.result, MU_E_UNAVAILABLE);
    assert_string_equal(a.op.why, "no such thing");
    later(20 * 1000);
    b = ask("o", "r");
    assert_int_equal(b.result, MU_E_UNAVAILABLE);
    assert_string_equal(b.op.why, "no such thing");
    ask_for(&a, "o", "r", NULL, true); /* also an error is looked at again when asked to */
    assert_int_equal(x->n, 3);
    answer(x, 2, NULL, 0);
    later(31 * 1000);
    ask_for(&a, "o", "r", NULL, false);
    assert_int_equal(x->n, 4);
    answer(x, 3, "two", 0);
    assert_string_equal(a.first, "two");
    end();
}

static void orgs_and_credentials_know_nothing_of_each_other(void **state)
{
    (void)state;
    struct ask a[4];
    begin();
    struct peer *x = come(0, true);
    ask_for(&a[0], "o1", "r", NULL, false);
    ask_for(&a[1], "o2", "r", NULL, false);
    ask_for(&a[2], "o1", "r", "one", false);
    ask_for(&a[3], "o1", "r", "two", false);
    assert_int_equal(x->n, 4);
    static const char *const credentials[] = {"", "", "one", "two"};
    for (unsigned i = 0; i < 4; i++) {
        char name[8];
        snprintf(name, sizeof name, "n%u", i);
        assert_string_equal(x->asked[i].credential, credentials[i]);
        assert_string_equal(x->asked[i].repo, "r");
        answer(x, i, name, 0);
        assert_string_equal(a[i].first, name);
    }
    assert_string_equal(ask("o1", "r").first, "n0");
    assert_string_equal(ask("o2", "r").first, "n1");
    assert_int_equal(x->n, 4);
    end();
}

static void workers_take_turns_and_only_those_that_can(void **state)
{
    (void)state;
    static struct ask a[6];
    begin();
    ask_for(&a[0], "o", "r", NULL, false);
    assert_true(a[0].done && a[0].result == 0 && !a[0].first[0]);
    struct peer *none = come(0, false);
    ask_for(&a[0], "o", "r", NULL, false);
    assert_true(a[0].done && a[0].result == 0);
    struct peer *x = come(1, true), *y = come(2, true);
    for (unsigned i = 0; i < 4; i++) {
        char repo[8];
        snprintf(repo, sizeof repo, "r%u", i);
        ask_for(&a[i], "o", "r", NULL, false); /* one question for all of these */
        ask_for(&a[4], "o", repo, NULL, false);
        answer(x->n > y->n ? x : y, (x->n > y->n ? x : y)->n - 1, "n", 0);
    }
    assert_true(none->n == 0 && x->n >= 2 && y->n >= 2 && x->n + y->n == 5);
    end();
}

static void a_question_goes_on_with_another_worker_once(void **state)
{
    (void)state;
    struct ask a, b;
    begin();
    struct peer *x = come(0, true);
    ask_for(&a, "o", "r", "word", false);
    ask_for(&b, "o", "r", "word", true);
    struct peer *y = come(1, true);
    leave(x);
    assert_true(!a.done && x->n == 1 && y->n == 1);
    assert_string_equal(y->asked[0].credential, "word");
    answer(y, 0, "kept", 0);
    assert_string_equal(a.first, "kept");
    assert_string_equal(b.first, "kept");
    ask_for(&a, "o", "r", "word", true);
    struct peer *z = come(2, true);
    leave(y);
    assert_false(a.done);
    come(0, true);
    leave(z);
    assert_true(a.done && a.result == MU_E_UNAVAILABLE);
    assert_int_equal(peers[0].n, 0);
    end();
}

static void who_does_not_answer_costs_twenty_seconds_and_may_answer_later(void **state)
{
    (void)state;
    struct ask a;
    begin();
    struct peer *x = come(0, true);
    ask_for(&a, "o", "r", NULL, false);
    later(19000);
    assert_false(a.done);
    later(1500);
    assert_true(a.done && a.result == MU_E_TIMEOUT);
    assert_int_equal(ask("o", "r").result, MU_E_TIMEOUT);
    answer(x, 0, "late", 0);
    assert_string_equal(ask("o", "r").first, "late");
    answer(x, 0, "later", 0); /* nobody asked twice */
    assert_string_equal(ask("o", "r").first, "late");
    assert_int_equal(x->n, 1);
    end();
}

static void what_is_kept_has_its_bounds(void **state)
{
    (void)state;
    static struct ask a[QUESTIONS];
    char repo[20];
    begin();
    struct peer *x = come(0, true);
    for (unsigned i = 0; i < 300; i++) {
        snprintf(repo, sizeof repo, "r%u", i);
        ask_for(&a[i], "o", mu_bytes_dup(mu_str(repo)), NULL, false);
        a[i].op.ctx = &a[i];
    }
    assert_int_equal(x->n, 256);
    assert_true(a[256].done && a[256].result == MU_E_BUSY && !a[255].done);
    for (unsigned i = 0; i < 256; i++) {
        assert_int_equal(answer(x, i, "n", 300 << 10), 0);
        assert_true(a[i].done && a[i].result == 0);
    }
    unsigned known = 0;
    for (unsigned i = 0; i < 256; i++) { /* 16 MiB: the last 50 or so */
        unsigned before = x->n;
        snprintf(repo, sizeof repo, "r%u", 255 - i);
        struct ask one;
        ask_for(&one, "o", repo, NULL, false);
        if (x->n == before) {
            known++;
            continue;
        }
        assert_true(known == i);
        answer(x, before, "n", 0);
        break;
    }
    assert_in_range(known, 40, 56);
    for (unsigned i = 0; i < 300; i++) {
        mu_free((char *)(uintptr_t)a[i].op.repo.ptr);
    }
    end();
}

static void stopping_answers_everybody(void **state)
{
    (void)state;
    struct ask a, b;
    begin();
    come(0, true);
    ask_for(&a, "o", "r", "word", false);
    mu_fleet_stop(fleet);
    turn(1);
    assert_true(a.done && a.result == MU_E_SHUTDOWN);
    ask_for(&b, "o", "r", NULL, false);
    assert_true(b.done && b.result == MU_E_SHUTDOWN);
    end();
}

static void sets_take_what_can_be_believed(void **state)
{
    (void)state;
    struct mu_skill_set *s;
    static char big[MU_SKILL_PROMPT_MAX + 1];
    memset(big, 'x', sizeof big);
    assert_int_equal(mu_skill_set_new(&s), 0);
    const mu_bytes path = MU_B("a/SKILL.md"), none = MU_B("");
    const struct mu_skill bad[] = {
        {none, none, path, none},
        {MU_B(" "), none, path, none},
        {MU_B("a\nb"), none, path, none},
        {MU_B("a\0b"), none, path, none},
        {MU_B("\xff"), none, path, none},
        {MU_B("n"), none, none, none},
        {MU_B("n"), none, MU_B("/a"), none},
        {MU_B("n"), none, MU_B("a/"), none},
        {MU_B("n"), none, MU_B("a/../b"), none},
        {MU_B("n"), none, MU_B("./a"), none},
        {MU_B("n"), none, MU_B("a\tb"), none},
        {MU_B("n"), MU_B("\x1b"), path, none},
        {MU_B("n"), none, path, MU_B("\x7f")},
        {MU_B("n"), none, path, mu_bytes_of(big, sizeof big)},
        {MU_B("n"), mu_bytes_of(big, MU_SKILL_ABOUT_MAX + 1), path, none},
        {mu_bytes_of(big, MU_SKILL_NAME_MAX + 1), none, path, none},
        {MU_B("n"), none, mu_bytes_of(big, MU_SKILL_PATH_MAX + 1), none}};
    for (size_t i = 0; i < MU_ARRAY_LEN(bad); i++) {
        if (mu_skill_set_add(s, &bad[i]) != MU_E_INVALID) {
            fail_msg("row %zu was taken", i);
        }
    }
    const struct mu_skill small = {MU_B("n"), MU_B("a\n\tb"), path, MU_B_NONE};
    for (int i = 0; i < MU_SKILLS_MAX; i++) {
        assert_int_equal(mu_skill_set_add(s, &small), 0);
    }
    assert_int_equal(mu_skill_set_add(s, &small), MU_E_LIMIT);
    s = mu_skill_set_unref(s);
    assert_int_equal(mu_skill_set_new(&s), 0);
    const struct mu_skill large = {MU_B("n"), none, path, mu_bytes_of(big, MU_SKILL_PROMPT_MAX)};
    int n = 0;
    while (mu_skill_set_add(s, &large) == 0) {
        n++;
    }
    assert_int_equal(n, 31); /* of 32 KiB each in a MiB, the other texts beside it */
    mu_skill_set_unref(s);
}

static int ask_and_answer(void *arg)
{
    (void)arg;
    static unsigned no;
    static struct ask a;
    static char repo[20];
    struct peer *x = &peers[0];
    unsigned before = x->n;
    snprintf(repo, sizeof repo, "r%u", no++);
    ask_for(&a, "o", repo, "word", false);
    int r = x->n > before ? answer(x, before, "n", 100) : 0;
    if (!a.done) { /* the answer could not be made: time ends it */
        later(MU_SKILLS_WAIT_MS);
    }
    assert_true(a.done);
    return r < 0 ? r : a.result;
}

static void any_allocation_may_fail(void **state)
{
    (void)state;
    begin();
    come(0, true);
    each_allocation_fails(ask_and_answer, NULL);
    end();
}

int main(void)
{
    null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_kept_ten_minutes_and_errors_half_a_minute),
        cmocka_unit_test(orgs_and_credentials_know_nothing_of_each_other),
        cmocka_unit_test(workers_take_turns_and_only_those_that_can),
        cmocka_unit_test(a_question_goes_on_with_another_worker_once),
        cmocka_unit_test(who_does_not_answer_costs_twenty_seconds_and_may_answer_later),
        cmocka_unit_test(what_is_kept_has_its_bounds),
        cmocka_unit_test(stopping_answers_everybody),
        cmocka_unit_test(sets_take_what_can_be_believed),
        cmocka_unit_test(any_allocation_may_fail)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
