/* The runner's end of docs/runner-protocol.md, in the same process: what is said is numbered, kept
 * until it is acknowledged, and said again when the server asks for it. */
#include <errno.h>
#include <stdio.h>

#include "base/encode.h"
#include "lib/runner_int.h"

enum { HELLO_MAX = 4096, TERMINAL_KEEP = 4 << 20 };

static const struct mu_json_limits limits = {.max_bytes = MU_CP_MESSAGE, .max_depth = 64};

static void say_hello(struct cp_exec *x);

static void on_again(struct mu_timer *t)
{
    say_hello(MU_CONTAINER(t, struct cp_exec, again));
}

void mu_lib_talk_init(struct cp_exec *x)
{
    mu_list_init(&x->said);
    mu_timer_init(&x->again, x->r->cp->loop, on_again);
    for (size_t i = 0; i < MU_CP_TERMINALS; i++) {
        mu_buf_init(&x->terminals[i].bytes, TERMINAL_KEEP + MU_CP_MESSAGE);
    }
}

void mu_lib_talk_fini(struct cp_exec *x)
{
    struct mu_list *l;
    mu_timer_clear(&x->again);
    while ((l = mu_list_pop(&x->said)) != NULL) {
        mu_free(MU_CONTAINER(l, struct cp_said, link));
    }
    for (size_t i = 0; i < MU_CP_TERMINALS; i++) {
        mu_buf_fini(&x->terminals[i].bytes);
    }
}

/* --- saying --- */

/* The connection of a runner that loses a message ends, and it says it again on the next. */
static void lost(struct cp_exec *x)
{
    x->talking = false;
    if (!mu_timer_is_set(&x->again)) {
        (void)!mu_timer_set(&x->again, MU_CP_AGAIN_MS);
    }
}

static bool send(struct cp_exec *x, mu_bytes json)
{
    struct mu_report *r;
    if (!x->r->attached || mu_lib_report_new(x, MU_REPORT_RUNNER, &r) < 0) {
        lost(x);
        return false;
    }
    r->chunk = mu_arena_dup(&r->arena, json);
    if (!r->chunk.ptr) {
        mu_report_free(r);
        lost(x);
        return false;
    }
    mu_fleet_tell(x->r->cp->d.fleet, r);
    return true;
}

static void say_hello(struct cp_exec *x)
{
    struct mu_buf b;
    mu_timer_clear(&x->again);
    mu_buf_init(&b, HELLO_MAX);
    struct mu_json_w w = mu_json_w(&b);
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "type", "hello");
    mu_jw_kcstr(&w, "runnerVersion", MU_VERSION);
    mu_jw_ki64(&w, "epoch", x->of.epoch);
    mu_jw_ki64(&w, "lastSeq", x->seq);
    mu_jw_kcstr(&w, "phase", "running");
    if (x->running_turn[0]) {
        mu_jw_kcstr(&w, "processing", x->running_turn);
    }
    mu_jw_key(&w, "terminals");
    mu_jw_arr(&w);
    for (unsigned i = 0; i < MU_CP_TERMINALS; i++) {
        const struct cp_terminal *t = &x->terminals[i];
        if (t->acked || t->bytes.len) {
            mu_jw_obj(&w);
            mu_jw_ki64(&w, "terminal", i);
            mu_jw_ki64(&w, "offset", t->acked + (int64_t)t->bytes.len);
            mu_jw_ki64(&w, "from", t->acked);
            mu_jw_kbool(&w, "open", true);
            mu_jw_obj_end(&w);
        }
    }
    mu_jw_arr_end(&w);
    mu_jw_obj_end(&w);
    x->begun = true;
    x->talking = false;
    if (b.failed) {
        lost(x);
    } else {
        (void)send(x, mu_buf_bytes(&b));
    }
    mu_buf_fini(&b);
}

void mu_lib_talk_begin(struct cp_exec *x)
{
    if (!x->begun) {
        say_hello(x);
    }
}

/* So many bytes of what the host said are off our hands. */
static void release(struct cp_exec *x, size_t bytes, bool message)
{
    pthread_mutex_lock(&x->r->cp->lock);
    x->kept -= MU_MIN(x->kept, bytes);
    x->says -= message && x->says;
    pthread_mutex_unlock(&x->r->cp->lock);
}

static void forget(struct cp_exec *x, struct cp_said *s)
{
    mu_list_remove(&s->link);
    release(x, s->cost, s->cost > 0);
    mu_free(s);
}

struct cp_said *mu_lib_said_new(mu_bytes rest)
{
    struct cp_said *s = mu_alloc(sizeof *s + MU_CP_NUMBER + rest.len);
    if (s) {
        *s = (struct cp_said){.rest = rest.len, .cost = rest.len};
        mu_list_init(&s->link);
        memcpy(s->text + MU_CP_NUMBER, rest.ptr, rest.len);
    }
    return s;
}

static bool send_said(struct cp_exec *x, const struct cp_said *s)
{
    return send(x, mu_bytes_of(s->text + s->at, s->len));
}

void mu_lib_talk_say(struct cp_exec *x, struct cp_said *s)
{
    char number[MU_CP_NUMBER];
    int n = snprintf(number, sizeof number, "{\"seq\":%lld,", (long long)(x->seq + 1));
    x->seq++;
    s->seq = x->seq;
    s->at = MU_CP_NUMBER - (size_t)n;
    s->len = (size_t)n + s->rest;
    memcpy(s->text + s->at, number, (size_t)n);
    mu_list_push(&x->said, &s->link);
    mu_lib_talk_begin(x);
    if (x->talking) {
        (void)send_said(x, s);
    }
}

void mu_lib_talk_stream(struct cp_exec *x, mu_bytes json)
{
    release(x, json.len, true);
    if (x->talking) {
        (void)send(x, json);
    }
}

/* --- terminals --- */

static void pump(struct cp_exec *x, unsigned n)
{
    struct cp_terminal *t = &x->terminals[n];
    while (x->talking && t->sent - t->acked < MU_CP_WINDOW) {
        size_t at = (size_t)(t->sent - t->acked);
        mu_bytes piece = mu_bytes_head(mu_bytes_from(mu_buf_bytes(&t->bytes), at), MU_CP_PIECE);
        struct mu_report *r;
        if (!piece.len || !x->r->attached) {
            return;
        }
        if (mu_lib_report_new(x, MU_REPORT_TERMINAL, &r) < 0) {
            lost(x);
            return;
        }
        r->terminal = n;
        r->offset = t->sent;
        r->chunk = mu_arena_dup(&r->arena, piece);
        if (!r->chunk.ptr) {
            mu_report_free(r);
            lost(x);
            return;
        }
        t->sent += (int64_t)piece.len;
        mu_fleet_tell(x->r->cp->d.fleet, r);
    }
}

static void taken(struct cp_exec *x, unsigned n, int64_t offset)
{
    struct cp_terminal *t = &x->terminals[n];
    int64_t more = offset - t->acked;
    if (more > 0 && more <= (int64_t)t->bytes.len) {
        mu_buf_consume(&t->bytes, (size_t)more);
        t->acked = offset;
        t->sent = MU_MAX(t->sent, offset);
        release(x, (size_t)more, false);
    }
    pump(x, n);
}

void mu_lib_talk_terminal(struct cp_exec *x, unsigned n, mu_bytes bytes)
{
    struct cp_terminal *t = &x->terminals[n];
    mu_buf_add(&t->bytes, bytes);
    if (t->bytes.failed) { /* the oldest go: the next offset is the gap */
        release(x, t->bytes.len + bytes.len, false);
        int64_t end = t->acked + (int64_t)t->bytes.len + (int64_t)bytes.len;
        mu_buf_fini(&t->bytes);
        mu_buf_init(&t->bytes, TERMINAL_KEEP + MU_CP_MESSAGE);
        t->acked = t->sent = end;
    }
    mu_lib_talk_begin(x);
    pump(x, n);
}

/* --- hearing --- */

static void acked(struct cp_exec *x, int64_t seq)
{
    MU_LIST_EACH(it, tmp, &x->said)
    {
        struct cp_said *s = MU_CONTAINER(it, struct cp_said, link);
        if (s->seq <= seq) {
            forget(x, s);
        }
    }
}

static void greeted(struct cp_exec *x, yyjson_val *m)
{
    size_t i, n;
    yyjson_val *item;
    acked(x, mu_json_get_i64(m, "lastAckedSeq", 0));
    x->talking = true;
    MU_LIST_EACH(it, tmp, &x->said)
    {
        struct cp_said *s = MU_CONTAINER(it, struct cp_said, link);
        if (!send_said(x, s)) {
            return;
        }
    }
    for (unsigned k = 0; k < MU_CP_TERMINALS; k++) {
        x->terminals[k].sent = x->terminals[k].acked;
    }
    yyjson_arr_foreach(mu_json_get(m, "terminals"), i, n, item)
    {
        int64_t k = mu_json_get_i64(item, "terminal", -1);
        if (k >= 0 && k < MU_CP_TERMINALS) {
            taken(x, (unsigned)k, mu_json_get_i64(item, "offset", 0));
        }
    }
    for (unsigned k = 0; k < MU_CP_TERMINALS; k++) {
        pump(x, k);
    }
}

static bool known_turn(const struct cp_exec *x, const struct mu_id *turn)
{
    for (unsigned i = 0; i < MU_ARRAY_LEN(x->turns); i++) {
        if (strcmp(x->turns[i].text, turn->text) == 0) {
            return true;
        }
    }
    return false;
}

static void prompted(struct cp_exec *x, yyjson_val *m)
{
    mu_bytes turn = mu_json_get_bytes(m, "turnId");
    struct mu_id id;
    if (mu_id_parse(turn, NULL, &id) < 0 || known_turn(x, &id)) {
        return;
    }
    struct cp_heard *h = mu_lib_heard_new(x, CP_PROMPT);
    if (h) {
        h->a = turn;
        h->b = mu_json_get_bytes(m, "content");
    }
    if (h && mu_lib_heard_give(x, h)) {
        x->turns[x->n_turns++ % MU_CP_KNOWN] = id;
    } else { /* it comes again on the next connection */
        lost(x);
    }
}

/* It was not asked here. */
static void unknown(struct cp_exec *x, mu_bytes id)
{
    char rest[128];
    struct mu_id good;
    if (mu_id_parse(id, NULL, &good) < 0) {
        return;
    }
    int n = snprintf(rest, sizeof rest,
                     "\"type\":\"answered\",\"questionId\":\"%s\",\"taken\":false}", good.text);
    struct cp_said *s = mu_lib_said_new(mu_bytes_of(rest, (size_t)n));
    if (!s) { /* asked again on the next connection */
        lost(x);
        return;
    }
    s->cost = 0; /* none of the host's */
    mu_lib_talk_say(x, s);
}

/* Tells the server that it has the decision, once the host was told. */
static void decided(struct cp_exec *x, yyjson_val *m)
{
    mu_bytes id = mu_json_get_bytes(m, "questionId");
    struct mu_id *open = NULL;
    for (unsigned i = 0; i < MU_ARRAY_LEN(x->open); i++) {
        open = mu_bytes_is(id, x->open[i].text) && id.len ? &x->open[i] : open;
    }
    if (!open) {
        unknown(x, id);
        return;
    }
    struct cp_heard *h = mu_lib_heard_new(x, CP_DECIDED);
    struct mu_buf answer;
    mu_buf_init(&answer, MU_CP_MESSAGE);
    yyjson_val *v = mu_json_get(m, "answer");
    mu_json_add(&answer, v);
    if (h) {
        h->a = id;
        h->b = mu_json_get_bytes(m, "decision");
        h->c = mu_json_get_bytes(m, "scope");
        h->d = mu_json_get_bytes(m, "reason");
        h->e = mu_json_get_bytes(m, "by");
        h->f = v && !answer.failed ? mu_buf_bytes(&answer) : MU_B_NONE;
    }
    if (h && mu_lib_heard_give(x, h)) {
        open->text[0] = 0;
    } else { /* it comes again on the next connection */
        lost(x);
    }
    mu_buf_fini(&answer);
}

static void typed(struct cp_exec *x, yyjson_val *m)
{
    struct cp_heard *h = mu_lib_heard_new(x, CP_INPUT);
    struct mu_buf bytes;
    mu_buf_init(&bytes, MU_CP_MESSAGE);
    mu_bytes text = mu_json_get_bytes(m, "data"), coded = mu_json_get_bytes(m, "data64");
    if (coded.ptr && mu_base64_decode(coded, &bytes) == 0) {
        text = mu_buf_bytes(&bytes);
    }
    if (h) {
        h->a = text;
        h->n = mu_json_get_i64(m, "terminal", 0);
        h->m = mu_bytes_is(mu_json_get_bytes(m, "mode"), "line");
        (void)mu_lib_heard_give(x, h);
    }
    mu_buf_fini(&bytes);
}

static void other(struct cp_exec *x, enum cp_heard_kind kind, yyjson_val *m, mu_bytes json)
{
    struct cp_heard *h = mu_lib_heard_new(x, kind);
    if (h) {
        h->a = kind == CP_INTERRUPT ? mu_json_get_bytes(m, "turnId") : json;
        h->n = mu_json_get_i64(m, "terminal", 0);
        h->m = mu_json_get_i64(m, "cols", 0);
        h->k = mu_json_get_i64(m, "rows", 0);
        (void)mu_lib_heard_give(x, h);
    }
}

static void hear(struct cp_exec *x, yyjson_val *m, mu_bytes json)
{
    mu_bytes type = mu_json_get_bytes(m, "type");
    if (mu_bytes_is(type, "init")) {
        greeted(x, m);
        other(x, CP_MESSAGE, m, json);
    } else if (mu_bytes_is(type, "ack")) {
        acked(x, mu_json_get_i64(m, "seq", 0));
    } else if (mu_bytes_is(type, "terminal-ack")) {
        int64_t k = mu_json_get_i64(m, "terminal", -1);
        if (k >= 0 && k < MU_CP_TERMINALS) {
            taken(x, (unsigned)k, mu_json_get_i64(m, "offset", 0));
        }
    } else if (mu_bytes_is(type, "reconnect")) {
        lost(x);
    } else if (mu_bytes_is(type, "prompt")) {
        prompted(x, m);
    } else if (mu_bytes_is(type, "answer")) {
        decided(x, m);
    } else if (mu_bytes_is(type, "input")) {
        typed(x, m);
    } else if (mu_bytes_is(type, "resize")) {
        other(x, CP_RESIZE, m, json);
    } else if (mu_bytes_is(type, "abort")) {
        other(x, CP_INTERRUPT, m, json);
    } else if (mu_bytes_is(type, "end-session")) {
        other(x, CP_END, m, json);
    } else {
        other(x, CP_MESSAGE, m, json);
    }
}

void mu_lib_talk_hear(struct cp_exec *x, mu_bytes json)
{
    struct mu_arena a;
    yyjson_val *m = NULL;
    struct mu_json_limits large = limits;
    large.max_bytes = 8 << 20; /* prompts */
    mu_arena_init(&a, 64 << 20);
    if (mu_json_read(&a, json, &large, &m, NULL) == 0) {
        hear(x, m, json);
    } else {
        lost(x);
    }
    mu_arena_fini(&a);
}
