/* A worker's messages (oz-worker.md 3.5, 16), in every dialect, as reports. */
#include <errno.h>
#include <stdio.h>

#include "app/sessions/artifacts.h"
#include "base/clock.h"
#include "base/encode.h"
#include "base/log.h"
#include "face/worker/worker_int.h"

enum { RUNNING_MAX = 4096, LINK_MAX = 2000, REASON_MAX = 200, CAPS_MAX = 48 << 10 };

/* --- pieces --- */

static bool take_id(yyjson_val *v, const char *prefix, struct mu_id *ret)
{
    mu_bytes text = mu_json_bytes(v);
    return text.len && mu_id_parse(text, prefix, ret) == 0;
}

static mu_bytes keep_text(struct mu_report *r, mu_bytes text, size_t max)
{
    return text.ptr ? mu_arena_dup(&r->arena, mu_utf8_cut(text, max)) : MU_B_NONE;
}

/* What a column takes on both engines: no zero byte, nothing that a terminal would obey. */
static mu_bytes keep_word(struct mu_report *r, mu_bytes text, size_t max)
{
    char *copy = (char *)(uintptr_t)keep_text(r, text, max).ptr;
    mu_bytes out = copy ? mu_bytes_of(copy, mu_utf8_cut(text, max).len) : MU_B_NONE;
    for (size_t i = 0; i < out.len; i++) {
        copy[i] = (unsigned char)copy[i] < 0x20 || copy[i] == 0x7f ? '?' : copy[i];
    }
    return out;
}

/* http and https only (oz-api.md 8). */
static mu_bytes keep_link(struct mu_report *r, mu_bytes text)
{
    if (!mu_bytes_starts(text, MU_B("http://")) && !mu_bytes_starts(text, MU_B("https://"))) {
        return MU_B_NONE;
    }
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        if (c <= 0x20 || c >= 0x7f || c == '"' || c == '<' || c == '>') {
            return MU_B_NONE;
        }
    }
    return text.len <= LINK_MAX ? mu_arena_dup(&r->arena, text) : MU_B_NONE;
}

static void take_execution(yyjson_val *data, struct mu_report *r)
{
    (void)take_id(mu_json_get(data, "execution_id"), NULL, &r->execution);
    r->epoch = mu_json_get_i64(data, "epoch", -1);
    r->seq = MU_MAX(mu_json_get_i64(data, "seq", 0), 0);
}

/* --- output --- */

static size_t char_len(mu_bytes text, size_t at)
{
    unsigned char c = (unsigned char)text.ptr[at];
    size_t n = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;
    return MU_MIN(n, text.len - at);
}

static bool is_header(mu_bytes text, size_t at)
{
    return at + 4 <= text.len && (text.ptr[at] == 1 || text.ptr[at] == 2) && !text.ptr[at + 1] &&
           !text.ptr[at + 2] && !text.ptr[at + 3];
}

/* A container log as it came from the engine, each chunk behind a header of eight bytes of which
 * the last four may have become characters or U+FFFD on the way (oz-worker.md 14.3). */
static void strip_log_headers(struct mu_buf *b)
{
    mu_bytes text = mu_buf_bytes(b);
    size_t out = 0, at = 0;
    if (!is_header(text, 0)) {
        return;
    }
    while (at < text.len) {
        if (is_header(text, at)) {
            at += 4;
            for (int i = 0; i < 4 && at < text.len; i++) {
                at += char_len(text, at);
            }
        } else {
            b->ptr[out++] = b->ptr[at++];
        }
    }
    b->len = out;
}

static void take_output(struct mu_report *r, yyjson_val *data, struct mu_clip *captured)
{
    mu_bytes text = mu_json_get_bytes(data, "output");
    if (captured) {
        mu_clip_write(captured, false, &r->output);
        r->output_total = captured->total;
    } else if (text.len) {
        mu_buf_add(&r->output, text);
        r->output_total = (int64_t)text.len;
    } else {
        return;
    }
    size_t before = r->output.len;
    strip_log_headers(&r->output);
    r->output_total -= (int64_t)(before - r->output.len);
    r->has_output = true;
}

/* --- the end of an attempt --- */

static void guess_dialect(yyjson_val *data, struct mu_report *r)
{
    if (r->failed) {
        bool v = mu_json_get(data, "output") || mu_json_get(data, "artifacts") ||
                 mu_json_get(data, "session_link");
        r->dialect = mu_json_get(data, "failure_reason") ? MU_DIALECT_WARP
                     : v                                 ? MU_DIALECT_VENDORED
                                                         : MU_DIALECT_UNKNOWN;
        return;
    }
    bool v = mu_json_get(data, "exit_code") || mu_json_get(data, "worker_id");
    r->dialect = v                              ? MU_DIALECT_VENDORED
                 : mu_json_get(data, "message") ? MU_DIALECT_WARP
                                                : MU_DIALECT_UNKNOWN;
}

static int take_artifacts(const struct mu_env *env, yyjson_val *data, struct mu_report *r)
{
    int64_t now = mu_env_wall_ms(env);
    int x = mu_link_artifacts(env, mu_json_get(data, "artifacts"), now, r);
    if (x == 0 && r->n_artifacts == 0 && r->has_output) {
        x = mu_artifacts_find(env, &r->arena, mu_buf_bytes(&r->output), now, &r->artifact_rows,
                              &r->n_artifacts, &r->artifacts);
        r->searched = true;
    }
    return x;
}

int mu_report_take_end(const struct mu_env *env, yyjson_val *data, struct mu_report *r,
                       struct mu_clip *captured)
{
    yyjson_val *code = mu_json_get(data, "exit_code");
    r->has_exit_code = code && yyjson_is_int(code);
    r->exit_code = mu_json_get_i64(data, "exit_code", 0);
    r->cancelled = mu_bytes_is(mu_json_get_bytes(data, "task_state"), "CANCELLED");
    r->message = keep_text(r, mu_json_get_bytes(data, "message"), MU_LINK_TEXT);
    r->failure_reason = keep_word(r, mu_json_get_bytes(data, "failure_reason"), REASON_MAX);
    r->session_link = keep_link(r, mu_json_get_bytes(data, "session_link"));
    yyjson_val *usage = mu_json_get(data, "usage");
    r->tokens_in = MU_MAX(mu_json_get_i64(usage, "input_tokens", 0), 0);
    r->tokens_out = MU_MAX(mu_json_get_i64(usage, "output_tokens", 0), 0);
    guess_dialect(data, r);
    take_output(r, data, captured);
    return r->output.failed ? r->output.failed : take_artifacts(env, data, r);
}

/* --- native --- */

static int state_of(mu_bytes word)
{
    static const struct {
        const char *word;
        int state;
    } states[] = {{"claimed", 40}, {"preparing", 40}, {"starting", 50}, {"running", 60},
                  {"pausing", 60}, {"paused", 60},    {"stopping", 60}};
    for (size_t i = 0; i < MU_ARRAY_LEN(states); i++) {
        if (mu_bytes_is(word, states[i].word)) {
            return states[i].state;
        }
    }
    return 0;
}

static int take_running(yyjson_val *data, struct mu_report *r)
{
    yyjson_val *running = mu_json_get(data, "running"), *unacked = mu_json_get(data, "unacked");
    size_t n_running = yyjson_arr_size(running), n_unacked = yyjson_arr_size(unacked);
    if (n_running > RUNNING_MAX || n_unacked > RUNNING_MAX) {
        return MU_E_TOO_LARGE;
    }
    r->running = mu_arena_calloc(&r->arena, (n_running + 1) * sizeof *r->running);
    r->unacked = mu_arena_calloc(&r->arena, (n_unacked + 1) * sizeof *r->unacked);
    if (!r->running || !r->unacked) {
        return -ENOMEM;
    }
    size_t i, n;
    yyjson_val *item;
    yyjson_arr_foreach(running, i, n, item)
    {
        struct mu_report_running *x = &r->running[r->n_running];
        if (take_id(mu_json_get(item, "execution_id"), NULL, &x->of.execution)) {
            (void)take_id(mu_json_get(item, "task_id"), "run_", &x->of.session);
            x->of.epoch = mu_json_get_i64(item, "epoch", -1);
            x->of.seq = mu_json_get_i64(item, "last_seq", 0);
            x->state = state_of(mu_json_get_bytes(item, "state"));
            r->n_running++;
        }
    }
    yyjson_arr_foreach(unacked, i, n, item)
    {
        r->n_unacked += take_id(item, NULL, &r->unacked[r->n_unacked]);
    }
    return 0;
}

/* What people may want to see of a worker: its own words, as they are. */
static mu_bytes caps_of(struct mu_report *r, yyjson_val *data)
{
    static const char *const keys[] = {"name",     "build_id", "sandbox",         "harnesses",
                                       "features", "labels",   "runtime_versions"};
    struct mu_buf b;
    mu_buf_init(&b, CAPS_MAX);
    struct mu_json_w w = mu_json_w(&b);
    mu_jw_obj(&w);
    for (size_t i = 0; i < MU_ARRAY_LEN(keys); i++) {
        yyjson_val *v = mu_json_get(data, keys[i]);
        if (v) {
            mu_jw_key(&w, keys[i]);
            mu_json_add(&b, v);
            w.comma = true;
        }
    }
    mu_jw_obj_end(&w);
    mu_bytes caps = b.failed ? MU_B_NONE : mu_arena_dup(&r->arena, mu_buf_bytes(&b));
    mu_buf_fini(&b);
    return caps;
}

static bool has_word(yyjson_val *list, const char *word)
{
    size_t i, n;
    yyjson_val *item;
    yyjson_arr_foreach(list, i, n, item)
    {
        if (mu_bytes_is(mu_json_bytes(item), word)) {
            return true;
        }
    }
    return false;
}

/* --- heartbeat (village-control-plane.md 6.2) --- */

static int64_t percent(yyjson_val *load, const char *key)
{
    yyjson_val *v = mu_json_get(load, key);
    double n = yyjson_is_num(v) ? yyjson_get_num(v) : -1;
    return n >= 0 && n <= 100 ? (int64_t)n : -1;
}

static bool is_word(mu_bytes b)
{
    for (size_t i = 0; i < b.len; i++) {
        if ((unsigned char)b.ptr[i] < 0x20 || b.ptr[i] == 0x7f) {
            return false;
        }
    }
    return b.len >= 1 && b.len <= 64;
}

/* Only what is known of runtimes, as versions. */
static mu_bytes runtimes(struct mu_report *r, yyjson_val *data)
{
    static const char *const names[] = {"codex", "claude_code", "gemini_cli", "omnara"};
    yyjson_val *given = mu_json_get(data, "runtimeVersions");
    struct mu_buf b;
    mu_buf_init(&b, 1024);
    struct mu_json_w w = mu_json_w(&b);
    mu_jw_obj(&w);
    for (size_t i = 0; i < MU_ARRAY_LEN(names); i++) {
        mu_bytes v = mu_json_get_bytes(given, names[i]);
        if (is_word(v)) {
            mu_jw_kstr(&w, names[i], v);
        }
    }
    mu_jw_obj_end(&w);
    mu_bytes text = b.failed ? MU_B_NONE : mu_arena_dup(&r->arena, mu_buf_bytes(&b));
    mu_buf_fini(&b);
    return text;
}

void mu_report_take_beat(yyjson_val *data, struct mu_report *r)
{
    yyjson_val *load = mu_json_get(data, "load");
    r->beat = yyjson_is_obj(data);
    r->cpu = percent(load, "cpuPercent");
    r->memory = percent(load, "memoryPercent");
    r->disk = percent(load, "diskPercent");
    r->sequence = MU_MAX(mu_json_get_i64(data, "sequence", 0), 0);
    if (mu_time_parse(mu_json_get_bytes(data, "timestamp"), &r->sent_ms) < 0) {
        r->sent_ms = 0;
    }
    r->runtimes = runtimes(r, data);
}

static int take_hello(struct mu_link *l, yyjson_val *data, struct mu_report *r)
{
    l->said_hello = l->native = true;
    mu_timer_clear(&l->timer);
    r->dialect = MU_DIALECT_NATIVE;
    r->capacity = mu_json_get_i64(data, "capacity", -1);
    r->version = keep_word(r, mu_json_get_bytes(data, "version"), REASON_MAX);
    r->caps = caps_of(r, data);
    r->reads_skills = has_word(mu_json_get(data, "features"), "skills");
    return take_running(data, r);
}

static void take_log(yyjson_val *data, struct mu_report *r)
{
    r->stream = mu_bytes_is(mu_json_get_bytes(data, "stream"), "stderr");
    r->offset = mu_json_get_i64(data, "offset", -1);
    r->chunk = mu_arena_dup(&r->arena, mu_json_get_bytes(data, "chunk"));
}

/* Of each skill what may be believed; the rest of what it says is passed over. */
static int take_skills(yyjson_val *list, struct mu_report *r)
{
    size_t i, n;
    yyjson_val *item;
    if (!yyjson_is_arr(list)) {
        r->message = MU_B("the worker's answer was not understood");
        return 0;
    }
    int x = mu_skill_set_new(&r->skills);
    yyjson_arr_foreach(list, i, n, item)
    {
        const struct mu_skill skill = {.name = mu_json_get_bytes(item, "name"),
                                       .description = mu_json_get_bytes(item, "description"),
                                       .path = mu_json_get_bytes(item, "path"),
                                       .base_prompt = mu_json_get_bytes(item, "base_prompt")};
        x = x < 0 ? x : mu_skill_set_add(r->skills, &skill);
        if (x == -ENOMEM || x == MU_E_LIMIT) {
            break;
        }
        x = 0;
    }
    return x == -ENOMEM ? x : 0;
}

static int take_answer(yyjson_val *data, struct mu_report *r)
{
    if (!take_id(mu_json_get(data, "command_id"), NULL, &r->command)) {
        return MU_E_INVALID;
    }
    if (take_id(mu_json_get(data, "task_id"), "run_", &r->session)) { /* of a session's sandbox */
        r->kind = MU_REPORT_DID;
        r->did = mu_json_get_bool(data, "ok", false);
        r->message = keep_word(r, mu_json_get_bytes(data, "message"), REASON_MAX);
        return 0;
    }
    if (mu_json_get_bool(data, "ok", false)) {
        return take_skills(mu_json_get(data, "skills"), r);
    }
    r->message = keep_word(r, mu_json_get_bytes(data, "message"), REASON_MAX);
    return 0;
}

/* --- dispatch --- */

static const struct word {
    const char *type;
    enum mu_report_kind kind;
    bool session, native;
} words[] = {
    {"task_claimed", MU_REPORT_CLAIMED, true, false},
    {"task_completed", MU_REPORT_ENDED, true, false},
    {"task_failed", MU_REPORT_ENDED, true, false},
    {"task_rejected", MU_REPORT_REJECTED, true, false},
    {"heartbeat", MU_REPORT_ALIVE, false, false},
    {"hello", MU_REPORT_HELLO, false, false},
    {"task_state", MU_REPORT_STATE, true, true},
    {"task_log", MU_REPORT_LOG, true, true},
    {"drain", MU_REPORT_DRAIN, false, true},
    {"command_result", MU_REPORT_ANSWER, false, true},
};

static const struct word *word_of(const struct mu_link *l, mu_bytes type)
{
    for (size_t i = 0; i < MU_ARRAY_LEN(words); i++) {
        if (mu_bytes_is(type, words[i].type) && (!words[i].native || l->native)) {
            return &words[i];
        }
    }
    return NULL;
}

static int fill(struct mu_link *l, const struct word *word, yyjson_val *data, struct mu_report *r,
                struct mu_clip *captured)
{
    if (word->session && !take_id(mu_json_get(data, "task_id"), "run_", &r->session)) {
        return MU_E_INVALID;
    }
    if (l->native) {
        take_execution(data, r);
    }
    switch (word->kind) {
    case MU_REPORT_ENDED:
        r->failed = strcmp(word->type, "task_failed") == 0;
        return mu_report_take_end(l->face->opts.env, data, r, captured);
    case MU_REPORT_REJECTED:
        r->dialect = MU_DIALECT_WARP;
        return 0;
    case MU_REPORT_STATE:
        r->state = state_of(mu_json_get_bytes(data, "state"));
        return r->state ? 0 : MU_E_INVALID;
    case MU_REPORT_LOG:
        take_log(data, r);
        return r->offset > MU_LOG_OFFSET_MAX ? MU_E_INVALID : r->chunk.ptr ? 0 : -ENOMEM;
    case MU_REPORT_HELLO:
        return take_hello(l, data, r);
    case MU_REPORT_ALIVE:
        mu_report_take_beat(data, r);
        return 0;
    case MU_REPORT_ANSWER:
        return take_answer(data, r);
    default:
        return 0;
    }
}

/* --- runners --- */

/* Messages of a session's runner, each a report of its own. */
static int take_frames(struct mu_link *l, yyjson_val *data)
{
    yyjson_val *frames = mu_json_get(data, "frames"), *frame;
    size_t i, n;
    int x = yyjson_is_arr(frames) ? 0 : MU_E_INVALID;
    yyjson_arr_foreach(frames, i, n, frame)
    {
        struct mu_report *r;
        struct mu_buf text;
        x = yyjson_is_obj(frame) ? mu_report_new(MU_REPORT_RUNNER, &r) : MU_E_INVALID;
        if (x < 0) {
            break;
        }
        mu_buf_init(&text, MU_LINK_MESSAGE);
        mu_json_add(&text, frame);
        r->peer = &l->peer;
        r->dialect = MU_DIALECT_NATIVE;
        take_execution(data, r);
        r->chunk = text.failed ? MU_B_NONE : mu_arena_dup(&r->arena, mu_buf_bytes(&text));
        mu_buf_fini(&text);
        x = !take_id(mu_json_get(data, "task_id"), "run_", &r->session) ? MU_E_INVALID
            : r->chunk.ptr                                              ? 0
                                                                        : -ENOMEM;
        if (x < 0) {
            mu_report_free(r);
            break;
        }
        mu_fleet_tell(l->face->opts.fleet, r);
    }
    return x;
}

static uint64_t be(const unsigned char *p, size_t n)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++) {
        v = v << 8 | p[i];
    }
    return v;
}

int mu_link_binary(struct mu_link *l, mu_bytes frame)
{
    const unsigned char *p = (const unsigned char *)frame.ptr;
    struct mu_report *r;
    if (frame.len < MU_LINK_BINARY_HEAD || p[0] != 1) { /* of another version */
        return frame.len && p[0] != 1 ? 0 : MU_E_INVALID;
    }
    int64_t offset = (int64_t)(be(p + 24, 8) & INT64_MAX);
    if (offset > MU_LOG_OFFSET_MAX) {
        return MU_E_INVALID;
    }
    int x = mu_report_new(MU_REPORT_TERMINAL, &r);
    if (x < 0) {
        return x;
    }
    r->peer = &l->peer;
    r->dialect = MU_DIALECT_NATIVE;
    r->terminal = p[1];
    r->epoch = (int64_t)be(p + 20, 4);
    r->offset = offset;
    snprintf(r->session.text, sizeof r->session.text, "%08llx-%04llx-%04llx-%04llx-%012llx",
             (unsigned long long)be(p + 4, 4), (unsigned long long)be(p + 8, 2),
             (unsigned long long)be(p + 10, 2), (unsigned long long)be(p + 12, 2),
             (unsigned long long)be(p + 14, 6));
    r->chunk = mu_arena_dup(&r->arena, mu_bytes_from(frame, MU_LINK_BINARY_HEAD));
    if (!r->chunk.ptr) {
        mu_report_free(r);
        return -ENOMEM;
    }
    mu_fleet_tell(l->face->opts.fleet, r);
    return 0;
}

static int read_message(struct mu_link *l, yyjson_val *root, struct mu_clip *captured)
{
    mu_bytes type = mu_json_get_bytes(root, "type");
    if (!type.len) {
        return MU_E_INVALID;
    }
    if (l->native && mu_bytes_is(type, "runner")) {
        return take_frames(l, mu_json_get(root, "data"));
    }
    const struct word *word = word_of(l, type);
    struct mu_report *r;
    if (!word) { /* of another version: ignored (oz-worker.md 2.3) */
        mu_log(MU_LOG_DEBUG, "worker.unknown_message", MU_KS("type", mu_bytes_head(type, 100)));
        return 0;
    }
    int x = mu_report_new(word->kind, &r);
    if (x < 0) {
        return x;
    }
    r->peer = &l->peer;
    x = fill(l, word, mu_json_get(root, "data"), r, captured);
    if (x < 0) {
        mu_report_free(r);
        return x;
    }
    if (l->native) {
        r->dialect = MU_DIALECT_NATIVE;
    }
    mu_fleet_tell(l->face->opts.fleet, r);
    return 0;
}

void mu_link_decode(struct mu_link *l, mu_bytes text, struct mu_clip *captured)
{
    static const struct mu_json_limits limits = {.max_bytes = MU_LINK_MESSAGE,
                                                 .max_depth = MU_JSONCUT_DEPTH};
    struct mu_arena a;
    struct mu_err err;
    yyjson_val *root = NULL;
    mu_arena_init(&a, 32 << 20);
    int r = mu_json_read(&a, text, &limits, &root, &err);
    if (r == 0) {
        r = read_message(l, root, captured);
    }
    mu_arena_fini(&a);
    if (r == -ENOMEM && l->ws) { /* not taken: what comes again may be */
        mu_ws_close(l->ws, 1013, "Out of memory, try again");
    } else if (r < 0) {
        mu_link_protocol_error(l, mu_err_text(r));
    }
}
