/* Process 1 of a live session's sandbox, as docs/runner-protocol.md says: it numbers what it says,
 * keeps it until it is acknowledged, says it again on every connection, asks before it acts, and
 * acts only when it is allowed to. */
#include "proto/json.h"
#include "sim.h"

enum { OUT = 128, TEXT = 512, ASKS = 3, TURNS = 64 };

struct said {
    int64_t seq;
    const char *text;
};

struct sim_runner {
    struct mu_execution of;
    struct sim_link *link; /* NULL: no connection */
    bool talking /* after init */, booted, prompted, done;
    int64_t seq;
    struct said out[OUT];
    unsigned n_out, asked;
    struct mu_id question, turn; /* the open one, or empty */
    /* of an interactive session */
    bool interactive, ending;
    struct mu_id next, did[TURNS]; /* the prompt that waits; those that ran */
    unsigned n_did;
    /* it is held for its session to hibernate */
    bool held, rests /* and has said so */;
    struct mu_id request;
    int64_t checkpoints;
};

struct sim_runner *sim_runner_new(const struct mu_execution *of)
{
    struct sim_runner *r = sim_keep(sizeof *r);
    r->of = *of;
    return r;
}

static void send(struct sim_runner *r, const char *text)
{
    if (r->link) {
        struct sim_up m = {.kind = MU_REPORT_RUNNER, .of = r->of, .offset = -1};
        m.text = (char *)(uintptr_t)text;
        m.len = strlen(text);
        sim_link_say(r->link, &m);
    }
}

MU_PRINTF(2, 3) static void say(struct sim_runner *r, const char *fmt, ...)
{
    char *text = sim_keep(TEXT);
    int n = snprintf(text, TEXT, "{\"seq\":%lld,", (long long)++r->seq);
    va_list ap;
    va_start(ap, fmt);
    n += vsnprintf(text + n, TEXT - (size_t)n, fmt, ap);
    va_end(ap);
    snprintf(text + n, TEXT - (size_t)n, "}");
    if (r->n_out == OUT) {
        sim_fail("G7", "a runner's messages are not acknowledged");
    }
    r->out[r->n_out++] = (struct said){r->seq, text};
    if (r->talking) {
        send(r, text);
    }
}

static void hello(void *arg)
{
    struct sim_runner *r = arg;
    char *text = sim_keep(TEXT);
    if (!r->link || r->done) {
        return;
    }
    int n = snprintf(text, TEXT,
                     "{\"type\":\"hello\",\"epoch\":%lld,\"lastSeq\":%lld,\"phase\":\"running\"",
                     (long long)r->of.epoch, (long long)r->seq);
    if (r->prompted) {
        n += snprintf(text + n, TEXT - (size_t)n, ",\"processing\":\"%s\"", r->turn.text);
    }
    snprintf(text + n, TEXT - (size_t)n, ",\"terminals\":[]}");
    r->talking = false;
    send(r, text);
}

void sim_runner_link(struct sim_runner *r, struct sim_link *link)
{
    r->link = link;
    r->talking = false;
    if (link) {
        hello(r);
    }
}

/* --- what it hears --- */

static void acked(struct sim_runner *r, int64_t seq)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < r->n_out; i++) {
        if (r->out[i].seq > seq) {
            r->out[kept++] = r->out[i];
        }
    }
    r->n_out = kept;
    sim_runner_acked(&r->of, seq);
}

static void begin(struct sim_runner *r, yyjson_val *m)
{
    int64_t last = mu_json_get_i64(m, "lastAckedSeq", -1);
    if (mu_json_get_i64(m, "epoch", -1) != r->of.epoch || last > r->seq) {
        sim_fail("G4", "a runner of epoch %lld is greeted as another", (long long)r->of.epoch);
    }
    r->held = r->rests = false;
    r->interactive = mu_bytes_is(mu_json_get_bytes(m, "mode"), "interactive");
    acked(r, last);
    r->talking = true;
    for (unsigned i = 0; i < r->n_out; i++) {
        send(r, r->out[i].text);
    }
    if (!r->booted) {
        r->booted = true;
        say(r,
            "\"type\":\"boot\",\"step\":\"running\",\"providerId\":\"p\",\"workspacePath\":\"/w\"");
    }
}

static void begin_turn(struct sim_runner *r, const struct mu_id *turn)
{
    r->turn = *turn;
    r->prompted = true;
    r->asked = 0;
    say(r, "\"type\":\"agentStatus\",\"turnId\":\"%s\",\"status\":\"thinking\"", r->turn.text);
}

/* A prompt runs once, whatever comes twice; one that comes while another is not over waits. */
static void prompt(struct sim_runner *r, yyjson_val *m)
{
    struct mu_id turn;
    bool known = mu_id_parse(mu_json_get_bytes(m, "turnId"), NULL, &turn) < 0 ||
                 (r->prompted && strcmp(r->turn.text, turn.text) == 0);
    for (unsigned i = 0; i < r->n_did; i++) {
        known = known || strcmp(r->did[i].text, turn.text) == 0;
    }
    if (known) {
        return;
    }
    if (r->prompted) {
        r->next = turn;
    } else {
        begin_turn(r, &turn);
    }
}

static void end_turn(struct sim_runner *r)
{
    say(r, "\"type\":\"complete\",\"turnId\":\"%s\",\"outcome\":\"%s\"", r->turn.text,
        sim_chance(800) ? "done" : "failed");
    if (r->n_did < TURNS) {
        r->did[r->n_did++] = r->turn;
    }
    r->prompted = false;
    r->done = !r->interactive;
    if (r->next.text[0]) {
        struct mu_id next = r->next;
        r->next.text[0] = 0;
        begin_turn(r, &next);
    }
}

static void answer(struct sim_runner *r, yyjson_val *m)
{
    mu_bytes id = mu_json_get_bytes(m, "questionId");
    bool mine = r->question.text[0] && mu_bytes_is(id, r->question.text);
    say(r, "\"type\":\"answered\",\"questionId\":\"%.*s\",\"taken\":%s", MU_ARGS(id),
        mine ? "true" : "false");
    if (mine) {
        if (mu_bytes_is(mu_json_get_bytes(m, "decision"), "allow")) {
            sim_gate_acts(&r->of, &r->question);
        }
        r->question.text[0] = 0;
    }
}

static void let_go(void *arg)
{
    struct sim_runner *r = arg;
    r->held = r->rests;
}

bool sim_runner_rests(const struct sim_runner *r)
{
    return r->rests;
}

static void hold(struct sim_runner *r, yyjson_val *m)
{
    struct mu_id request;
    if (mu_id_parse(mu_json_get_bytes(m, "requestId"), NULL, &request) < 0) {
        sim_fail("protocol", "a runner is held without a request");
    }
    r->request = request;
    if (sim.calm || !r->booted || sim_chance(100)) {
        say(r, "\"type\":\"hibernate\",\"requestId\":\"%s\",\"ok\":false", request.text);
        return;
    }
    r->held = true;
    if (sim_fault(50)) { /* it goes on by itself, and nobody hears of it */
        sim_after(sim_between(10, 3000), let_go, r);
        return;
    }
    say(r,
        "\"type\":\"checkpoint\",\"number\":%lld,\"roots\":[],\"parts\":[],\"bytes\":0,"
        "\"durationMs\":1",
        (long long)++r->checkpoints);
}

static void kept(struct sim_runner *r, yyjson_val *m)
{
    if (r->held && mu_json_get_i64(m, "number", 0) == r->checkpoints) {
        r->rests = true;
        say(r, "\"type\":\"hibernate\",\"requestId\":\"%s\",\"ok\":true,\"number\":%lld",
            r->request.text, (long long)r->checkpoints);
    }
}

void sim_runner_hears(struct sim_runner *r, const char *text)
{
    static const struct mu_json_limits limits = {.max_bytes = 1 << 20, .max_depth = 32};
    struct mu_arena a;
    yyjson_val *m = NULL;
    bool was = sim_mem_lasting(true);
    mu_arena_init(&a, 1 << 22);
    if (mu_json_read(&a, mu_str(text), &limits, &m, NULL) < 0) {
        sim_fail("protocol", "a runner is told no JSON: %s", text);
    }
    sim_mem_lasting(was);
    mu_bytes type = mu_json_get_bytes(m, "type");
    if (r->done) {
    } else if (mu_bytes_is(type, "init")) {
        begin(r, m);
    } else if (mu_bytes_is(type, "prompt")) {
        prompt(r, m);
    } else if (mu_bytes_is(type, "answer")) {
        if (!r->held) {
            answer(r, m);
        }
    } else if (mu_bytes_is(type, "hibernate")) {
        hold(r, m);
    } else if (mu_bytes_is(type, "hibernate-cancel")) {
        r->held = r->rests = false;
    } else if (mu_bytes_is(type, "checkpoint")) {
        kept(r, m);
    } else if (mu_bytes_is(type, "end-session")) {
        r->ending = true;
    } else if (mu_bytes_is(type, "ack")) {
        acked(r, mu_json_get_i64(m, "seq", 0));
    } else if (mu_bytes_is(type, "reconnect")) {
        r->talking = false;
        sim_after(sim_between(50, 400), hello, r);
    }
    mu_arena_fini(&a);
}

/* --- what it does --- */

static void ask(struct sim_runner *r)
{
    char key[40] = "";
    r->question = mu_id_random(&sim.env);
    r->asked++;
    if (sim_chance(500)) {
        snprintf(key, sizeof key, ",\"requestKey\":\"key %u\"", (unsigned)sim_rand(2));
    }
    say(r,
        "\"type\":\"question\",\"questionId\":\"%s\",\"turnId\":\"%s\",\"kind\":\"permission\","
        "\"text\":\"may I?\","
        "\"approval\":{\"action\":\"shell\",\"description\":\"run it\",\"risk\":\"low\"}%s",
        r->question.text, r->turn.text, key);
}

bool sim_runner_works(struct sim_runner *r)
{
    if (r->interactive && r->ending && !r->prompted && !r->held) {
        r->done = true;
    }
    if (r->done || r->held || !r->prompted || r->question.text[0]) {
        return r->done;
    }
    if (r->asked < ASKS && sim_chance(600)) {
        ask(r);
    } else if (sim_chance(400)) {
        say(r,
            "\"type\":\"result\",\"turnId\":\"%s\",\"messageId\":\"m\",\"kind\":\"text\","
            "\"content\":\"words\"",
            r->turn.text);
    } else {
        end_turn(r);
    }
    return r->done;
}
