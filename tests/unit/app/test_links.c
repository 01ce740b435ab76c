/* Approval links: what they are bound to, that they are used once, and with the decision. */
#include "app/sessions/links.h"
#include "session_moves.h"

OPERATION(mu_link_make, do_link_make, mu_link_make, w->sessions, unit)
OPERATION(mu_link_look, do_link_look, mu_link_look, w->sessions, read)

#define ROOT MU_B("0123456789abcdef0123456789abcdef")

static struct mu_vault *vault;

static void with_vault(mu_bytes root)
{
    vault = mu_vault_free(vault);
    assert_int_equal(mu_vault_new(&mu_env_real, root, MU_B_NONE, &vault), 0);
}

static struct mu_link_make a_link(struct world *w, const struct mu_id *session,
                                  const struct mu_id *gate)
{
    return (struct mu_link_make){.vault = vault,
                                 .org_id = mu_str(w->alice.org_id),
                                 .session = *session,
                                 .gate = *gate,
                                 .decisions = MU_LINK_ALLOW | MU_LINK_DENY,
                                 .label = MU_B("Ann"),
                                 .by = MU_B("user:bob"),
                                 .life_ms = 60000};
}

static struct mu_link_make made(struct world *w, const struct mu_id *session,
                                const struct mu_id *gate)
{
    struct mu_link_make op = a_link(w, session, gate);
    assert_int_equal(do_link_make(w, &op), 0);
    assert_int_equal(strlen(op.token), MU_LINK_TOKEN_LEN);
    return op;
}

static struct {
    int calls, decisions, status;
    int64_t expires, used;
    char label[80], by[80], gate[40];
} shown;

static int show(void *arg, const struct mu_link_row *l, const struct mu_gate_row *g)
{
    shown.calls++;
    shown.decisions = l->decisions;
    shown.status = g->status;
    shown.expires = l->expires_ms;
    shown.used = l->used_ms;
    keep(shown.label, sizeof shown.label, l->label);
    keep(shown.by, sizeof shown.by, l->made_by);
    keep(shown.gate, sizeof shown.gate, g->id);
    return 0;
}

static int look_at(struct world *w, const char *token)
{
    struct mu_link_look op = {.vault = vault, .token = mu_str(token), .each = show};
    shown.calls = 0;
    return do_link_look(w, &op);
}

static struct mu_gate_resolve a_use(const struct mu_link_make *l, bool allow)
{
    return (struct mu_gate_resolve){.admin = true,
                                    .session = l->session,
                                    .gate = l->gate,
                                    .allow = allow,
                                    .by = MU_B("link:Ann"),
                                    .voter = l->by,
                                    .link = l->id};
}

static int use(struct world *w, const struct mu_link_make *l, bool allow)
{
    struct mu_gate_resolve op = a_use(l, allow);
    return do_resolve(w, &op);
}

static struct mu_id asked(struct world *w, struct mu_id *session)
{
    struct mu_id gate;
    with_vault(ROOT);
    *session = working(w, &w->alice);
    assert_int_equal(ask(w, session, 1, "key", &gate), 0);
    return gate;
}

static void a_link_is_read_and_used_once(struct world *w)
{
    struct mu_id id, gate = asked(w, &id);
    struct mu_link_make l = made(w, &id, &gate);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(look_at(w, l.token), 0);
        assert_int_equal(shown.calls, 1);
    }
    assert_string_equal(shown.label, "Ann");
    assert_string_equal(shown.by, "user:bob");
    assert_string_equal(shown.gate, gate.text);
    assert_int_equal(shown.decisions, 3);
    assert_int_equal(shown.expires, now(w) + 60000);
    assert_int_equal(shown.used, 0);
    assert_int_equal(use(w, &l, true), 0);
    assert_int_equal(look_at(w, l.token), 0);
    assert_int_equal(shown.used, now(w));
    assert_int_equal(shown.status, MU_GATE_ALLOWED);
    assert_int_equal(use(w, &l, true), MU_E_EXISTS); /* not even the same again */
    assert_int_equal(use(w, &l, false), MU_E_EXISTS);
    assert_string_equal(txt(w, "SELECT resolved_by FROM gates WHERE id = '%s'", gate.text),
                        "link:Ann;");
    assert_int_equal(row_of(w, &id).state, MU_ST_RUNNING);
}

static void every_byte_of_a_link_is_needed(struct world *w)
{
    struct mu_id id, gate = asked(w, &id);
    struct mu_link_make l = made(w, &id, &gate);
    char token[MU_LINK_TOKEN_LEN + 2];
    for (size_t i = 0; i < MU_LINK_TOKEN_LEN; i++) {
        memcpy(token, l.token, sizeof l.token);
        token[i] = token[i] == '1' ? '2' : '1';
        assert_int_equal(look_at(w, token), MU_E_NOT_FOUND);
        memcpy(token, l.token, i);
        token[i] = 0;
        assert_int_equal(look_at(w, token), MU_E_NOT_FOUND);
    }
    snprintf(token, sizeof token, "%s0", l.token);
    assert_int_equal(look_at(w, token), MU_E_NOT_FOUND);
    assert_int_equal(shown.calls, 0);
    with_vault(MU_B("another root of more than thirty-two bytes"));
    assert_int_equal(look_at(w, l.token), MU_E_NOT_FOUND);
}

static void a_row_that_was_changed_is_worth_nothing(struct world *w)
{
    struct mu_id id, gate = asked(w, &id), other = working(w, &w->bob), foreign;
    assert_int_equal(ask(w, &other, 1, "key", &foreign), 0);
    static const char *const changes[] = {"label = 'Eve'",
                                          "made_by = 'user:eve'",
                                          "decisions = 1",
                                          "expires_ms = expires_ms + 1",
                                          "created_ms = created_ms - 1",
                                          "org_id = 'x'"};
    for (size_t i = 0; i < MU_ARRAY_LEN(changes); i++) {
        struct mu_link_make l = made(w, &id, &gate);
        put_sql(w, "UPDATE approval_links SET %s WHERE id = '%s'", changes[i], l.id.text);
        assert_int_equal(look_at(w, l.token), MU_E_NOT_FOUND);
    }
    struct mu_link_make l = made(w, &id, &gate);
    put_sql(w, "UPDATE approval_links SET session_id = '%s', gate_id = '%s' WHERE id = '%s'",
            other.text, foreign.text, l.id.text);
    assert_int_equal(look_at(w, l.token), MU_E_NOT_FOUND);
}

static void a_link_is_for_its_gate_and_its_decision_and_its_time(struct world *w)
{
    struct mu_id id, gate = asked(w, &id), second;
    assert_int_equal(ask(w, &id, 1, "other", &second), 0);
    struct mu_link_make l = a_link(w, &id, &gate), other = made(w, &id, &second);
    l.decisions = MU_LINK_DENY;
    assert_int_equal(do_link_make(w, &l), 0);
    assert_int_equal(use(w, &l, true), MU_E_STALE);
    struct mu_gate_resolve op = a_use(&other, true);
    op.gate = gate;
    assert_int_equal(do_resolve(w, &op), MU_E_STALE);
    advance(w, 60000);
    assert_int_equal(use(w, &l, false), MU_E_STALE);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM gates WHERE status = 0"), 2);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM approval_links WHERE used_ms IS NOT NULL"), 0);
}

static void links_are_made_for_what_waits(struct world *w)
{
    struct mu_id id, gate = asked(w, &id), none = mu_id_floor(0);
    struct mu_link_make l = a_link(w, &id, &gate);
    l.org_id = mu_str(w->bob.org_id);
    assert_int_equal(do_link_make(w, &l), MU_E_NOT_FOUND);
    assert_true(l.no_session);
    l = a_link(w, &id, &none);
    assert_int_equal(do_link_make(w, &l), MU_E_NOT_FOUND);
    assert_false(l.no_session);
    l = a_link(w, &id, &gate);
    l.decisions = 0;
    assert_int_equal(do_link_make(w, &l), MU_E_INVALID);
    l = a_link(w, &id, &gate);
    l.life_ms = MU_LINK_LIFE_MS + 1;
    assert_int_equal(do_link_make(w, &l), MU_E_INVALID);
    l = a_link(w, &id, &gate);
    l.label = MU_B("");
    assert_int_equal(do_link_make(w, &l), MU_E_INVALID);
    for (int i = 0; i < MU_LINKS_EACH; i++) {
        (void)made(w, &id, &gate);
    }
    l = a_link(w, &id, &gate);
    assert_int_equal(do_link_make(w, &l), MU_E_LIMIT);

    struct mu_gate_ask q = a_gate(&id, 1, "question");
    q.kind = MU_GATE_QUESTION;
    q.action = 0;
    assert_int_equal(do_ask(w, &q), 0);
    l = a_link(w, &id, &q.id);
    assert_int_equal(do_link_make(w, &l), MU_E_CONFLICT);

    struct mu_gate_ask soon = a_gate(&id, 1, "soon");
    soon.expires_ms = now(w) + 5000;
    assert_int_equal(do_ask(w, &soon), 0);
    l = made(w, &id, &soon.id);
    assert_int_equal(l.expires_ms, soon.expires_ms);
    advance(w, 5000);
    l = a_link(w, &id, &soon.id);
    assert_int_equal(do_link_make(w, &l), MU_E_EXISTS);

    struct mu_gate_resolve op = {
        .session = id, .gate = gate, .admin = true, .allow = true, .by = MU_B("admin")};
    assert_int_equal(do_resolve(w, &op), 0);
    l = a_link(w, &id, &gate);
    assert_int_equal(do_link_make(w, &l), MU_E_EXISTS);
}

static void two_links_of_one_person_are_one_vote(struct world *w)
{
    struct mu_id id, gate;
    with_vault(ROOT);
    id = working(w, &w->alice);
    struct mu_gate_ask q = a_gate(&id, 1, "key");
    q.votes_needed = 2;
    assert_int_equal(do_ask(w, &q), 0);
    gate = q.id;
    struct mu_link_make a = made(w, &id, &gate), b = made(w, &id, &gate), c = a_link(w, &id, &gate);
    c.by = MU_B("user:carl");
    assert_int_equal(do_link_make(w, &c), 0);
    assert_int_equal(use(w, &a, true), 0);
    assert_int_equal(use(w, &a, true), MU_E_STALE);
    assert_int_equal(use(w, &b, true), 0);
    assert_int_equal(num(w, "SELECT status FROM gates WHERE id = '%s'", gate.text), 0);
    assert_int_equal(use(w, &c, true), 0);
    assert_int_equal(num(w, "SELECT status FROM gates WHERE id = '%s'", gate.text),
                     MU_GATE_ALLOWED);
}

static void a_link_ends_with_its_gate_and_goes_with_its_session(struct world *w)
{
    struct mu_id id, gate = asked(w, &id);
    struct mu_link_make l = made(w, &id, &gate);
    assert_int_equal(end_with(w, &id, 1, 92, MU_OUT_FAILED, ""), 0);
    assert_int_equal(look_at(w, l.token), 0);
    assert_int_equal(shown.status, MU_GATE_CANCELLED);
    assert_int_equal(use(w, &l, true), MU_E_EXISTS);
    struct mu_session_delete op = {.id = id, .admin = true};
    assert_int_equal(do_delete(w, &op), 0);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM approval_links"), 0);
    assert_int_equal(look_at(w, l.token), MU_E_NOT_FOUND);
}

static int every_link(void *arg)
{
    struct world *w = arg;
    struct mu_session_create c = new_run(&w->alice);
    c.route = MU_ROUTE_WORKER;
    int64_t epoch = 0;
    struct mu_id gate = {""};
    if (do_create(w, &c) < 0 || offer(w, &c.id, 0, &epoch) < 0 ||
        step(w, &c.id, epoch, 30, 60) < 0 || ask(w, &c.id, epoch, "a", &gate) < 0) {
        return 0;
    }
    struct mu_link_make l = a_link(w, &c.id, &gate);
    if (do_link_make(w, &l) == 0) {
        (void)look_at(w, l.token);
        (void)use(w, &l, true);
    }
    return 0;
}

static void links_survive_any_failing_allocation(struct world *w)
{
    with_vault(ROOT);
    each_allocation_fails(every_link, w);
    assert_int_equal(num(w, "SELECT COUNT(*) FROM approval_links l JOIN gates g ON g.id = "
                            "l.gate_id WHERE (l.used_ms IS NULL) <> (g.status = 0)"),
                     0);
    assert_int_equal(holes(w), 0);
}

static int drop_vault(void **state)
{
    vault = mu_vault_free(vault);
    return pg_end(state);
}

#define EACH_TEST(ALL, BOTH, ONE)                                                                  \
    ALL(a_link_is_read_and_used_once)                                                              \
    BOTH(every_byte_of_a_link_is_needed)                                                           \
    BOTH(a_row_that_was_changed_is_worth_nothing)                                                  \
    ALL(a_link_is_for_its_gate_and_its_decision_and_its_time)                                      \
    ALL(links_are_made_for_what_waits)                                                             \
    ALL(two_links_of_one_person_are_one_vote)                                                      \
    ALL(a_link_ends_with_its_gate_and_goes_with_its_session)                                       \
    ONE(links_survive_any_failing_allocation)

EACH_TEST(IN_WORLD, IN_WORLD, IN_WORLD)

#define ON_ALL_(test)  ON_ALL(test),
#define ON_BOTH_(test) ON_BOTH(test),
#define ON_ONE_(test)  ON(test, 0),

int main(void)
{
    const struct CMUnitTest tests[] = {EACH_TEST(ON_ALL_, ON_BOTH_, ON_ONE_)};
    return cmocka_run_group_tests(tests, pg_begin, drop_vault);
}
