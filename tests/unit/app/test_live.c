/* Sessions whose runner is connected: what it says is stored in its order, what people want reaches
 * it, and every connection begins where the one before was lost. */
#include "live_world.h"

#include "app/live/janitor_int.h"

/* --- tests --- */

static void a_task_is_told_its_prompt_and_what_it_says_becomes_facts(struct world *w)
{
    live_begin(w);
    starts(TASK, MU_MODE_TASK);
    says_hello("");
    const char *init = told("init");
    has(init, "\"lastAckedSeq\":0");
    has(init, "\"mode\":\"task\"");
    has(init, "\"harness\":\"claude\"");
    says("\"type\":\"boot\",\"step\":\"clone\"");
    says("\"type\":\"boot\",\"step\":\"running\",\"providerId\":\"claude\"");
    has(told("prompt"), "\"content\":\"the task\"");
    until_state(&ID, MU_ST_RUNNING);
    says("\"type\":\"agentStatus\",\"turnId\":\"%s\",\"status\":\"thinking\"", ID.text);
    says("\"type\":\"result\",\"messageId\":\"m1\",\"kind\":\"text\",\"content\":\"I see\"");
    says("\"type\":\"tool\",\"callID\":\"t1\",\"toolName\":\"Bash\",\"status\":\"pending\","
         "\"title\":\"ls\",\"args\":{\"command\":\"ls\"}");
    says("\"type\":\"tool\",\"callID\":\"t1\",\"toolName\":\"Bash\",\"status\":\"running\"");
    says("\"type\":\"tool\",\"callID\":\"t1\",\"toolName\":\"Bash\",\"status\":\"completed\","
         "\"result\":\"a b\"");
    says("\"type\":\"events\",\"events\":[{\"type\":\"FILE_TOUCHED\",\"data\":{\"path\":\"a\"}},"
         "{\"type\":\"SESSION_ENDED\",\"data\":{}},{\"type\":\"DIFF_SUMMARY\",\"data\":"
         "{\"filesChanged\":1}}]");
    says("\"type\":\"complete\",\"turnId\":\"%s\",\"outcome\":\"done\",\"usage\":{\"tokensIn\":5,"
         "\"tokensOut\":7}",
         ID.text);
    acked(seq);
    const char *all = events();
    has(all, "20 {\"kind\":\"text\",\"text\":\"I see\",\"messageId\":\"m1\"}");
    has(all,
        "21 {\"requestId\":\"t1\",\"toolName\":\"Bash\",\"title\":\"ls\",\"args\":{\"command\"");
    has(all, "22 {\"requestId\":\"t1\",\"ok\":true,\"result\":\"a b\"}");
    has(all, "23 {\"path\":\"a\"}");
    assert_null(strstr(all, "SESSION_ENDED")); /* what is the server's to say */
    assert_int_equal(
        num(W, "SELECT count(*) FROM events WHERE stream_id = '%s' AND type = 21", ID.text), 1);
    assert_int_equal(
        num(W, "SELECT tokens_in * 10 + tokens_out FROM sessions WHERE id = '%s'", ID.text), 57);
    assert_int_equal(
        num(W, "SELECT max(seq) - count(*) FROM events WHERE stream_id = '%s'", ID.text), 0);
    live_end();
}

static void what_comes_twice_is_stored_once_and_a_hole_ends_the_connection(struct world *w)
{
    live_begin(w);
    runs(TASK, MU_MODE_TASK);
    (void)told("prompt");
    says("\"type\":\"result\",\"content\":\"one\"");
    acked(2);
    seq = 1;
    says("\"type\":\"result\",\"content\":\"one\"");
    says("\"type\":\"result\",\"content\":\"two\"");
    acked(3);
    seq = 7;
    says("\"type\":\"result\",\"content\":\"far\"");
    has(told("reconnect"), "hole");
    seq = 3;
    char more[100];
    snprintf(more, sizeof more, ",\"processing\":\"%s\"", ID.text);
    says_hello(more);
    has(told("init"), "\"lastAckedSeq\":3");
    says("\"type\":\"result\",\"content\":\"three\"");
    acked(4);
    assert_int_equal(
        num(W, "SELECT count(*) FROM events WHERE stream_id = '%s' AND type = 20", ID.text), 3);
    live_end();
}

static struct mu_gate_resolve decision;
static bool is_decided;
static int decided;
static void on_decided(struct mu_gate_resolve *op, int result)
{
    is_decided = true;
    decided = result;
}

static int resolve_by(const char *gate, bool allow, const char *reason)
{
    decision = (struct mu_gate_resolve){.unit = {.loop = W->loop},
                                        .org_id = mu_str(W->alice.org_id),
                                        .session = ID,
                                        .allow = allow,
                                        .reason = mu_str(reason),
                                        .by = MU_B("user:a"),
                                        .done = on_decided};
    assert_int_equal(mu_id_parse(mu_str(gate), NULL, &decision.gate), 0);
    is_decided = false;
    assert_int_equal(mu_gate_resolve(W->sessions, &decision), 0);
    until(is_set, &is_decided, "a decision");
    mu_live_poke(live_, &ID);
    return decided;
}

#define GATE "11111111-1111-4111-8111-111111111111"
#define ASKS                                                                                       \
    "\"type\":\"question\",\"questionId\":\"" GATE "\",\"kind\":\"permission\",\"requestKey\":"    \
    "\"k\",\"approval\":{\"action\":\"shell\",\"description\":\"rm -r x\",\"risk\":\"high\","      \
    "\"context\":{\"command\":\"rm -r x\"}}"

static void a_gate_waits_for_people_and_its_decision_reaches_the_runner(struct world *w)
{
    live_begin(w);
    runs(TASK, MU_MODE_TASK);
    (void)told("prompt");
    says(ASKS);
    until_state(&ID, MU_ST_WAITING);
    acked(2);
    assert_int_equal(num(W, "SELECT count(*) FROM gates WHERE status = 0 AND action = 5"), 1);
    assert_int_equal(resolve_by(GATE, false, "not that"), 0);
    const char *answer = told("answer");
    has(answer, "\"decision\":\"deny\"");
    has(answer, "\"reason\":\"not that\"");
    until_state(&ID, MU_ST_RUNNING);
    says("\"type\":\"answered\",\"questionId\":\"" GATE "\",\"taken\":true");
    acked(3);
    assert_int_equal(num(W, "SELECT count(*) FROM gates WHERE delivered_ms IS NULL"), 0);
    mu_live_poke(live_, &ID);
    says("\"type\":\"result\",\"content\":\"ok\"");
    acked(4); /* nothing was told between: it has the decision */
    live_end();
}

/* Ids of gates are in no order. */
static void a_decision_reaches_the_runner_however_many_there_were_before(struct world *w)
{
    live_begin(w);
    runs(TASK, MU_MODE_TASK);
    (void)told("prompt");
    for (int i = 0; i < 2 * MU_LIVE_BATCH; i++) {
        says("\"type\":\"question\",\"questionId\":\"%08x-1111-4111-8111-111111111111\","
             "\"requestKey\":\"k%d\",\"approval\":{\"action\":\"shell\",\"description\":\"d\"}",
             0xf0000000 + (unsigned)i, i);
        acked(seq);
        put_sql(W, "UPDATE gates SET status = 1, resolved_ms = 1, delivered_ms = 1");
    }
    says(ASKS);
    acked(seq);
    assert_int_equal(resolve_by(GATE, true, ""), 0);
    has(told("answer"), GATE);
    live_end();
}

static void a_decision_that_was_made_meanwhile_is_told_on_the_next_connection(struct world *w)
{
    live_begin(w);
    runs(TASK, MU_MODE_TASK);
    (void)told("prompt");
    says(ASKS);
    until_state(&ID, MU_ST_WAITING);
    acked(2);
    say_runner("{\"type\":\"gone\"}");
    run_for(W, 20);
    assert_int_equal(resolve_by(GATE, true, ""), 0);
    nothing(P);
    char more[100];
    snprintf(more, sizeof more, ",\"processing\":\"%s\"", ID.text);
    says_hello(more);
    has(told("init"), "\"lastAckedSeq\":2");
    has(told("answer"), "\"decision\":\"allow\"");
    says(ASKS); /* asked again: it is the same gate */
    acked(3);
    assert_int_equal(num(W, "SELECT count(*) FROM gates"), 1);
    live_end();
}

static void a_gate_that_nobody_answers_is_denied(struct world *w)
{
    live_begin(w);
    runs(TASK, MU_MODE_TASK);
    (void)told("prompt");
    says(ASKS);
    until_state(&ID, MU_ST_WAITING);
    advance(W, lopts.gate_ms + 10);
    mu_live_poke(live_, &ID);
    /* the heap's timer follows the loop's own clock, so it is woken by the next gate */
    says("\"type\":\"question\",\"questionId\":\"22222222-2222-4222-8222-222222222222\","
         "\"requestKey\":\"k2\",\"approval\":{\"action\":\"tool\",\"description\":\"d\"}");
    const char *answer = told("answer");
    has(answer, GATE);
    has(answer, "\"decision\":\"deny\"");
    has(answer, "nobody answered");
    assert_int_equal(num(W, "SELECT count(*) FROM gates WHERE status = 3"), 1);
    live_end();
}

/* --- people's calls --- */

static struct mu_live_call call;
static bool is_called;
static int call_result;
static void on_call(struct mu_live_call *c, int result)
{
    is_called = true;
    call_result = result;
}
static void wanted(enum mu_live_want want, const char *data)
{
    call = (struct mu_live_call){.loop = W->loop,
                                 .want = want,
                                 .org_id = mu_str(W->alice.org_id),
                                 .by = MU_B("user:a"),
                                 .session = ID,
                                 .data = mu_str(data),
                                 .cols = 100,
                                 .rows = 30,
                                 .done = on_call};
    is_called = false;
    mu_live_ask(live_, &call);
}
static int result(void)
{
    until(is_set, &is_called, "an answer to a call");
    return call_result;
}
static void fini_call(void)
{
    mu_buf_fini(&call.answer);
}

static void input_reaches_the_runner_in_its_order(struct world *w)
{
    live_begin(w);
    runs(TASK, MU_MODE_TASK);
    (void)told("prompt");
    wanted(MU_LIVE_INPUT, "ls\n");
    has(told("input"), "\"data\":\"ls\\n\"");
    assert_int_equal(result(), 0);
    fini_call();
    wanted(MU_LIVE_INPUT, "\xff\xfe");
    has(told("input"), "\"data64\":\"//4=\"");
    assert_int_equal(result(), 0);
    fini_call();
    wanted(MU_LIVE_RESIZE, "");
    has(told("resize"), "\"cols\":100,\"rows\":30");
    assert_int_equal(result(), 0);
    fini_call();
    call.org_id = mu_str(W->bob.org_id);
    is_called = false;
    mu_live_ask(live_, &call);
    assert_int_equal(result(), MU_E_NOT_FOUND);
    fini_call();
    say_runner("{\"type\":\"gone\"}");
    run_for(W, 20);
    wanted(MU_LIVE_INPUT, "x");
    assert_int_equal(result(), MU_E_UNAVAILABLE);
    fini_call();
    live_end();
}

static void does(enum mu_order_kind kind)
{
    struct order *o;
    do {
        until(has_order, P, "a pause, or its end");
        o = &P->orders[P->taken++ % ORDERS];
    } while (o->kind != kind);
    struct mu_report *r = report(P, MU_REPORT_DID, o);
    r->epoch = O->of.epoch;
    r->command = o->command;
    r->did = true;
    mu_fleet_tell(fleet, r);
    assert_int_equal(result(), 0);
    fini_call();
}

static void a_pause_holds_everything_until_it_is_resumed(struct world *w)
{
    live_begin(w);
    runs(TASK, MU_MODE_TASK);
    (void)told("prompt");
    wanted(MU_LIVE_PAUSE, "");
    does(MU_ORDER_PAUSE);
    assert_int_equal(row_of(W, &ID).state, MU_ST_PAUSED);
    wanted(MU_LIVE_INPUT, "x");
    assert_int_equal(result(), MU_E_CONFLICT);
    fini_call();
    wanted(MU_LIVE_RESUME, "");
    does(MU_ORDER_RESUME);
    assert_int_equal(row_of(W, &ID).state, MU_ST_RUNNING);
    live_end();
}

/* Its time is over while nobody may answer: it waits for that as the session does. */
static void a_gate_of_a_paused_session_is_not_tried_in_circles(struct world *w)
{
    char asks[400];
    live_begin(w);
    runs(TASK, MU_MODE_TASK);
    (void)told("prompt");
    snprintf(asks, sizeof asks, ASKS ",\"expiresAt\":%lld", (long long)now(W) + 100);
    says("%s", asks);
    until_state(&ID, MU_ST_WAITING);
    acked(2);
    wanted(MU_LIVE_PAUSE, "");
    does(MU_ORDER_PAUSE);
    advance(W, 200);
    int64_t units = metric_of(W->metrics, "muster_db_units_total");
    run_for(W, 400);
    assert_in_range(metric_of(W->metrics, "muster_db_units_total"), units + 1, units + 20);
    assert_int_equal(num(W, "SELECT count(*) FROM gates WHERE status = 0"), 1);
    live_end();
}

static void what_the_worker_cannot_do_moves_nothing(struct world *w)
{
    live_begin(w);
    runs(TASK, MU_MODE_TASK);
    (void)told("prompt");
    wanted(MU_LIVE_PAUSE, "");
    struct order *o;
    do {
        until(has_order, P, "a pause");
        o = &P->orders[P->taken++ % ORDERS];
    } while (o->kind != MU_ORDER_PAUSE);
    struct mu_report *r = report(P, MU_REPORT_DID, o);
    r->epoch = O->of.epoch;
    r->command = o->command;
    mu_fleet_tell(fleet, r);
    assert_int_equal(result(), MU_E_UNAVAILABLE);
    fini_call();
    assert_int_equal(row_of(W, &ID).state, MU_ST_RUNNING);
    wanted(MU_LIVE_DIFF, ""); /* nobody answers that */
    (void)told("diff");
    assert_int_equal(result(), MU_E_UNAVAILABLE);
    fini_call();
    live_end();
}

/* --- turns --- */

static void turns_go_to_the_runner_one_at_a_time(struct world *w)
{
    live_begin(w);
    runs(INTERACTIVE, MU_MODE_INTERACTIVE);
    prompt("first");
    has(told("prompt"), "\"content\":\"first\"");
    struct mu_id first = turn.id;
    prompt("second");
    says("\"type\":\"agentStatus\",\"turnId\":\"%s\",\"status\":\"thinking\"", first.text);
    acked(2);
    says("\"type\":\"complete\",\"turnId\":\"%s\",\"outcome\":\"done\",\"stopReason\":\"end_turn\"",
         first.text);
    has(told("prompt"), "\"content\":\"second\"");
    assert_int_equal(num(W, "SELECT count(*) FROM turns WHERE state = 90"), 1);
    /* the connection is lost before the runner got it */
    say_runner("{\"type\":\"gone\"}");
    says_hello("");
    (void)told("init");
    const char *again = told("prompt");
    has(again, "\"content\":\"second\"");
    has(again, turn.id.text);
    assert_int_equal(num(W, "SELECT count(*) FROM turns WHERE state = 20"), 1);
    live_end();
}

/* --- checkpoints --- */

static void a_checkpoint_is_kept_or_refused_and_the_runner_is_told(struct world *w)
{
    live_begin(w);
    runs(INTERACTIVE, MU_MODE_INTERACTIVE);
    says("\"type\":\"checkpoint\",\"number\":1,\"turnId\":\"%s\",\"conversationId\":\"c-9\","
         "\"roots\":[{\"kind\":\"home\"}],\"parts\":[]",
         ID.text);
    has(told("checkpoint"), "\"number\":1,\"ok\":true}");
    assert_string_equal(txt(W, "SELECT ref FROM checkpoints WHERE turn_id = '%s'", ID.text),
                        "{\"roots\":[{\"kind\":\"home\"}],\"parts\":[]};");
    static const char *const none[] = {
        "\"number\":2,\"roots\":[],\"parts\":7",
        "\"number\":2,\"roots\":7,\"parts\":[]",
        "\"number\":2,\"parts\":[]",
        "\"roots\":[],\"parts\":[]",
        "\"number\":2,\"prev\":9,\"roots\":[],\"parts\":[]",
        "\"number\":2,\"roots\":[],\"parts\":[{\"name\":\"ckpt-1-2-0.pack\",\"bytes\":1}]",
        "\"number\":2,\"roots\":[],\"parts\":[{\"name\":\"x\",\"bytes\":1,\"sha256\":"
        "\"aaaaaaaaaaaaa"
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}]"};
    for (size_t i = 0; i < MU_ARRAY_LEN(none); i++) {
        says("\"type\":\"checkpoint\",%s", none[i]);
        has(told("checkpoint"), "\"ok\":false,\"error\":\"");
    }
    says("\"type\":\"result\",\"content\":\"on\"");
    acked(seq);
    assert_int_equal(num(W, "SELECT count(*) FROM checkpoints"), 1);
    assert_string_equal(txt(W, "SELECT conversation FROM sessions WHERE id = '%s'", ID.text),
                        "c-9;");
    live_end();
}

static void a_session_whose_runner_is_lost_goes_on_from_its_checkpoint(struct world *w)
{
    live_begin(w);
    runs(INTERACTIVE, MU_MODE_INTERACTIVE);
    says("\"type\":\"checkpoint\",\"number\":1,\"roots\":[],\"parts\":[]");
    (void)told("checkpoint");
    const struct order first = *O;
    assert_string_equal(first.checkpoint, "");
    struct mu_report *r = report(P, MU_REPORT_ENDED, O);
    r->epoch = O->of.epoch;
    r->seq = 9;
    r->failed = true;
    r->failure_reason = mu_arena_dup(&r->arena, MU_B("runner_lost"));
    mu_fleet_tell(fleet, r);
    do {
        until(has_order, P, "the next assignment");
        O = &P->orders[P->taken++ % ORDERS];
    } while (O->kind != MU_ORDER_ASSIGN);
    assert_int_equal(O->of.epoch, first.of.epoch + 2);
    assert_int_equal(
        num(W, "SELECT count(*) FROM sessions s JOIN checkpoints c ON c.id = s.restore_id"), 1);
    assert_int_equal(strlen(O->checkpoint), 36);
    assert_int_equal(num(W, "SELECT outcome FROM attempts WHERE epoch = 1"), MU_ATT_LOST);
    live_end();
}

/* --- terminals --- */

static struct mu_watch watch;
static struct mu_buf shown;
static int64_t shown_at;
static void on_shown(struct mu_watch *x, struct mu_event *e)
{
    if (e->type == MU_EV_TERMINAL) {
        shown_at = e->offset;
        mu_buf_add(&shown, e->data);
    }
}

static void bytes(unsigned n, int64_t offset, const char *text)
{
    struct mu_report *r = report(P, MU_REPORT_TERMINAL, O);
    r->epoch = O->of.epoch;
    r->terminal = n;
    r->offset = offset;
    r->chunk = mu_arena_dup(&r->arena, mu_str(text));
    mu_fleet_tell(fleet, r);
}

static struct mu_terminal_read reading;
static bool is_read;
static void on_read(struct mu_terminal_read *op, int r)
{
    assert_int_equal(r, 0);
    is_read = true;
}
static bool was_read(void *arg)
{
    return is_read;
}
static const char *terminal(int64_t from, size_t limit)
{
    static char text[4096];
    reading = (struct mu_terminal_read){
        .loop = W->loop, .session = ID, .from = from, .limit = limit, .done = on_read};
    is_read = false;
    mu_terminal_read(live_, &reading);
    until(was_read, NULL, "a terminal's bytes");
    snprintf(text, sizeof text, "%lld:%.*s", (long long)reading.begin,
             MU_ARGS(mu_buf_bytes(&reading.bytes)));
    mu_buf_fini(&reading.bytes);
    return text;
}

static void a_terminal_is_shown_kept_and_recorded(struct world *w)
{
    live_begin(w);
    runs(TASK, MU_MODE_TASK);
    (void)told("prompt");
    mu_buf_init(&shown, 4096);
    watch = (struct mu_watch){.loop = W->loop, .on_event = on_shown};
    memcpy(watch.stream_id, ID.text, sizeof ID.text);
    assert_int_equal(mu_feed_watch(W->feed, &watch), 0);
    bytes(0, 0, "hello ");
    bytes(0, 6, "world");
    bytes(0, 3, "lo world"); /* again */
    bytes(0, 9, "ld!");      /* partly */
    run_for(W, 50);
    assert_int_equal(shown.len, 12);
    assert_memory_equal(shown.ptr, "hello world!", 12);
    bytes(0, 20, "after a gap");
    run_for(W, 20);
    assert_int_equal(shown_at, 20);
    assert_string_equal(terminal(20, 5), "20:after");
    assert_string_equal(terminal(-1, 3), "28:gap");
    assert_string_equal(terminal(0, 100), "0:hello world!");
    assert_string_equal(terminal(12, 100), "20:after a gap");
    say_runner("{\"type\":\"gone\"}");
    run_for(W, 50);
    assert_string_equal(terminal(6, 100), "6:world!"); /* of the recording */
    says_hello(",\"terminals\":[{\"terminal\":0}]");
    has(told("init"), "\"terminals\":[{\"terminal\":0,\"offset\":31}]");
    bytes(0, 31, "on");
    run_for(W, 20);
    assert_string_equal(terminal(31, 10), "31:on");
    mu_feed_unwatch(W->feed, &watch);
    mu_buf_fini(&shown);
    live_end();
}

/* --- old recordings --- */

static bool is_away(void *arg)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", recordings, (const char *)arg);
    return access(path, F_OK) < 0;
}

static void old_recordings_go_and_those_of_the_living_stay(struct world *w)
{
    static const char ended[] = "11111111-1111-7111-8111-111111111111";
    char path[256];
    const struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    live_begin(w);
    starts(TASK, MU_MODE_TASK);
    const char *names[] = {ended, ID.text, "22222222-2222-7222-8222-222222222222"};
    for (size_t i = 0; i < MU_ARRAY_LEN(names); i++) {
        snprintf(path, sizeof path, "%s/%s", recordings, names[i]);
        assert_int_equal(mkdir(path, 0700), 0);
        const struct timespec fresh[2] = {{.tv_sec = now(w) / 1000}, {.tv_sec = now(w) / 1000}};
        assert_int_equal(utimensat(AT_FDCWD, path, i < 2 ? old : fresh, 0), 0);
    }
    mu_janitor_start(live_->janitor, 0);
    until(is_away, (void *)(uintptr_t)ended, "the old one is away");
    run_for(w, 50);
    assert_false(is_away(ID.text));
    assert_false(is_away((void *)(uintptr_t)names[2]));
    live_end();
}

IN_WORLD(a_task_is_told_its_prompt_and_what_it_says_becomes_facts)
IN_WORLD(what_comes_twice_is_stored_once_and_a_hole_ends_the_connection)
IN_WORLD(a_gate_waits_for_people_and_its_decision_reaches_the_runner)
IN_WORLD(a_decision_reaches_the_runner_however_many_there_were_before)
IN_WORLD(a_decision_that_was_made_meanwhile_is_told_on_the_next_connection)
IN_WORLD(a_gate_that_nobody_answers_is_denied)
IN_WORLD(input_reaches_the_runner_in_its_order)
IN_WORLD(a_pause_holds_everything_until_it_is_resumed)
IN_WORLD(a_gate_of_a_paused_session_is_not_tried_in_circles)
IN_WORLD(what_the_worker_cannot_do_moves_nothing)
IN_WORLD(turns_go_to_the_runner_one_at_a_time)
IN_WORLD(a_checkpoint_is_kept_or_refused_and_the_runner_is_told)
IN_WORLD(a_session_whose_runner_is_lost_goes_on_from_its_checkpoint)
IN_WORLD(a_terminal_is_shown_kept_and_recorded)
IN_WORLD(old_recordings_go_and_those_of_the_living_stay)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(a_task_is_told_its_prompt_and_what_it_says_becomes_facts),
        ON(what_comes_twice_is_stored_once_and_a_hole_ends_the_connection, 0),
        ON(a_gate_waits_for_people_and_its_decision_reaches_the_runner, 0),
        ON(a_decision_reaches_the_runner_however_many_there_were_before, 0),
        ON(a_decision_that_was_made_meanwhile_is_told_on_the_next_connection, 0),
        ON(a_gate_that_nobody_answers_is_denied, 0),
        ON(input_reaches_the_runner_in_its_order, 0),
        ON(a_pause_holds_everything_until_it_is_resumed, 0),
        ON(a_gate_of_a_paused_session_is_not_tried_in_circles, 0),
        ON(what_the_worker_cannot_do_moves_nothing, 0),
        ON(turns_go_to_the_runner_one_at_a_time, 0),
        ON_BOTH(a_checkpoint_is_kept_or_refused_and_the_runner_is_told),
        ON_BOTH(a_session_whose_runner_is_lost_goes_on_from_its_checkpoint),
        ON(a_terminal_is_shown_kept_and_recorded, 0),
        ON(old_recordings_go_and_those_of_the_living_stay, 0),
    };
    return cmocka_run_group_tests(tests, pg_begin, pg_end);
}
