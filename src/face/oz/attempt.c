/* What the runner of an attempt, or the worker for it, does over HTTP with the session token: fetch
 * the prompt, report, leave files (oz-worker.md 8.4, 13.6, 16). The token is good for one attempt
 * of one session; for every other session it answers 404 like a stranger. */
#include <errno.h>
#include <stdio.h>

#include "base/encode.h"
#include "face/oz/oz_int.h"
#include "face/worker/worker.h"

enum { FILE_MAX = 32 << 20, REPORT_MAX = 32 << 20, NAME_MAX_BYTES = 128, CHUNK_MAX = 64 << 10 };

bool mu_oz_own_run(struct mu_call *c, struct mu_id *ret)
{
    const struct mu_principal *p = mu_call_principal(c);
    if (!mu_oz_run_id(c, ret)) {
        return false;
    }
    if (!p->run.text[0] || strcmp(p->run.text, ret->text) != 0) {
        mu_call_fail(c, MU_E_NOT_FOUND);
        return false;
    }
    return true;
}

static void attempt_over(struct mu_call *c)
{
    mu_call_error(c, 409, "attempt_over", NULL, "This attempt is over; nothing was taken");
}

/* --- the prompt --- */

struct fetching {
    struct mu_call *c;
    struct mu_session_job job;
};

static void prompt_read(struct mu_session_job *op, int result)
{
    struct fetching *f = op->ctx;
    struct mu_call *c = f->c;
    if (result >= 0) {
        mu_buf_add(mu_call_buf(c), op->prompt);
    }
    mu_arena_fini(&op->arena); /* the answer frees the call, and `f` with it */
    if (result < 0) {
        mu_call_fail(c, result);
    } else {
        mu_call_send(c, 200);
    }
}

static void get_prompt(struct mu_call *c)
{
    struct fetching *f = mu_call_new(c, sizeof *f);
    if (!f) {
        return;
    }
    f->c = c;
    f->job =
        (struct mu_session_job){.read = {.loop = mu_call_loop(c)}, .done = prompt_read, .ctx = f};
    if (!mu_oz_own_run(c, &f->job.id)) {
        return;
    }
    mu_arena_init(&f->job.arena, 64 << 20);
    int r = mu_session_job_read(mu_oz(c)->sessions, &f->job);
    if (r < 0) {
        mu_arena_fini(&f->job.arena);
        mu_call_fail(c, r);
    }
}

/* --- reports --- */

struct telling {
    struct mu_call *c;
    struct mu_reply reply;
};

static void told(struct mu_reply *reply)
{
    struct telling *t = reply->ctx;
    if (reply->result == MU_E_STALE) {
        attempt_over(t->c);
        return;
    }
    if (reply->result < 0) {
        mu_call_fail(t->c, reply->result);
        return;
    }
    struct mu_json_w w = mu_json_w(mu_call_buf(t->c));
    mu_jw_obj(&w);
    mu_call_send_object(t->c, &w);
}

static int take_log(yyjson_val *body, struct mu_report *r)
{
    mu_bytes chunk = mu_json_get_bytes(body, "chunk");
    r->stream = mu_bytes_is(mu_json_get_bytes(body, "stream"), "stderr");
    r->offset = mu_json_get_i64(body, "offset", -1);
    r->chunk = mu_arena_dup(&r->arena, chunk);
    return r->chunk.ptr ? 0 : -ENOMEM;
}

static bool log_ok(struct mu_call *c, yyjson_val *body)
{
    mu_bytes chunk = mu_json_get_bytes(body, "chunk");
    if (!mu_json_get(body, "chunk") || chunk.len > CHUNK_MAX) {
        mu_call_error(c, 400, chunk.len ? "invalid_field" : "missing_field", "chunk",
                      "chunk is text of at most %d bytes", CHUNK_MAX);
        return false;
    }
    if (mu_json_get_i64(body, "offset", -1) < 0) {
        mu_call_error(c, 400, "missing_field", "offset",
                      "offset is the number of bytes of output before this chunk");
        return false;
    }
    return true;
}

static void post_report(struct mu_call *c)
{
    yyjson_val *body = mu_call_body(c);
    mu_bytes word = mu_json_get_bytes(body, "kind");
    enum mu_report_kind kind = mu_bytes_is(word, "log")      ? MU_REPORT_LOG
                               : mu_bytes_is(word, "result") ? MU_REPORT_ENDED
                                                             : MU_REPORT_ALIVE;
    struct mu_id run;
    struct mu_report *r = NULL;
    struct telling *t = mu_arena_calloc(mu_call_arena(c), sizeof *t);
    if (!mu_oz_own_run(c, &run) || (kind == MU_REPORT_LOG && !log_ok(c, body))) {
        return;
    }
    int x = t ? mu_report_new(kind, &r) : -ENOMEM;
    if (x == 0) {
        r->session = run;
        r->epoch = mu_call_principal(c)->run_epoch;
        r->seq = mu_json_get_i64(body, "seq", 0);
        x = kind == MU_REPORT_LOG     ? take_log(body, r)
            : kind == MU_REPORT_ENDED ? mu_report_take_end(mu_oz(c)->env, body, r, NULL)
                                      : 0;
    }
    if (x < 0) {
        mu_report_free(r);
        mu_call_fail(c, x);
        return;
    }
    r->failed = r->has_exit_code && r->exit_code != 0;
    t->c = c;
    t->reply = (struct mu_reply){.loop = mu_call_loop(c), .done = told, .ctx = t};
    r->reply = &t->reply;
    mu_fleet_tell(mu_oz(c)->workers->opts.fleet, r);
}

/* --- files --- */

struct leaving {
    struct mu_call *c;
    struct mu_job job;
    struct mu_session_attach attach;
    struct mu_id gone; /* an object to remove at the end, or empty */
    int stored, result;
};

static void answer(struct leaving *l)
{
    struct mu_call *c = l->c;
    const struct mu_session_attach *a = &l->attach;
    if (l->result == MU_E_STALE) {
        attempt_over(c);
    } else if (l->result == MU_E_LIMIT) {
        mu_call_error(c, 413, "too_many_files", "name",
                      "A run keeps at most %d files with %d MiB together", MU_RUN_FILES,
                      MU_RUN_FILE_BYTES >> 20);
    } else if (l->result == MU_E_EXISTS) {
        mu_call_error(c, 409, "conflict", "name", "An input image of the run has this name");
    } else if (l->result < 0) {
        mu_call_fail(c, l->result);
    } else {
        struct mu_json_w w = mu_json_w(mu_call_buf(c));
        mu_jw_obj(&w);
        mu_jw_kstr(&w, "name", a->name);
        mu_jw_kstr(&w, "media_type", a->media_type);
        mu_jw_ki64(&w, "bytes", a->bytes);
        mu_jw_kcstr(&w, "sha256", a->sha256.text);
        mu_call_send_object(c, &w);
    }
}

static void remove_object(struct mu_job *job)
{
    struct leaving *l = MU_CONTAINER(job, struct leaving, job);
    mu_files_remove(mu_oz(l->c)->files, mu_id_bytes(&l->gone));
}

static void object_removed(struct mu_job *job)
{
    answer(MU_CONTAINER(job, struct leaving, job));
}

/* The row is committed, or will not be: one of the two objects is nobody's now. */
static void settle(struct leaving *l)
{
    l->gone = l->result < 0 ? l->attach.file : l->attach.replaced;
    l->job =
        (struct mu_job){.run = remove_object, .done = object_removed, .loop = mu_call_loop(l->c)};
    if (!l->gone.text[0] || mu_work_submit(mu_oz(l->c)->work, &l->job) < 0) {
        answer(l);
    }
}

static void attached(struct mu_session_attach *op, int result)
{
    struct leaving *l = op->ctx;
    l->result = result;
    settle(l);
}

static void store(struct mu_job *job)
{
    struct leaving *l = MU_CONTAINER(job, struct leaving, job);
    mu_bytes body = mu_call_raw_body(l->c);
    l->attach.sha256 = mu_sha256_hex(body);
    l->stored = mu_files_put(mu_oz(l->c)->files, &l->attach.file, body);
}

static void stored(struct mu_job *job)
{
    struct leaving *l = MU_CONTAINER(job, struct leaving, job);
    if (!job->ran || l->stored < 0) {
        mu_call_fail(l->c, job->ran ? l->stored : MU_E_SHUTDOWN);
        return;
    }
    l->result = mu_session_attach(mu_oz(l->c)->sessions, &l->attach);
    if (l->result < 0) {
        settle(l);
    }
}

/* A file's name as it is shown and downloaded: one path segment that no shell and no header trips
 * over. */
static bool name_ok(mu_bytes name)
{
    if (name.len == 0 || name.len > NAME_MAX_BYTES || name.ptr[0] == '.' || !mu_utf8_valid(name)) {
        return false;
    }
    for (size_t i = 0; i < name.len; i++) {
        unsigned char ch = (unsigned char)name.ptr[i];
        if (ch < 0x20 || ch == 0x7f || ch == '/' || ch == '\\') {
            return false;
        }
    }
    return !mu_bytes_is(name, "output");
}

static bool media_type_ok(mu_bytes t)
{
    if (t.len > 127) {
        return false;
    }
    for (size_t i = 0; i < t.len; i++) {
        if ((unsigned char)t.ptr[i] < 0x20 || (unsigned char)t.ptr[i] >= 0x7f) {
            return false;
        }
    }
    return true;
}

static void put_file(struct mu_call *c)
{
    struct leaving *l = mu_arena_calloc(mu_call_arena(c), sizeof *l);
    mu_bytes name = mu_call_param(c, "name"),
             type = mu_bytes_trim(mu_call_header(c, "content-type"));
    struct mu_id run;
    if (!mu_oz_own_run(c, &run) || mu_oz_put_part(c, &run, name)) {
        return;
    }
    if (!name_ok(name)) {
        mu_call_error(c, 400, "invalid_field", "name",
                      "name is 1 to %d bytes of text without \"/\" or control characters, does not "
                      "begin with \".\" and is not \"output\"",
                      NAME_MAX_BYTES);
        return;
    }
    if (!media_type_ok(type)) {
        mu_call_error(c, 400, "invalid_field", "Content-Type",
                      "Content-Type is a media type of at most 127 characters");
        return;
    }
    if (!l) {
        mu_call_fail(c, -ENOMEM);
        return;
    }
    l->c = c;
    l->attach = (struct mu_session_attach){
        .unit = {.loop = mu_call_loop(c)},
        .session = run,
        .epoch = mu_call_principal(c)->run_epoch,
        .name = name,
        .media_type = type.len ? type : MU_B("application/octet-stream"),
        .bytes = (int64_t)mu_call_raw_body(c).len,
        .done = attached,
        .ctx = l,
    };
    l->attach.file = mu_id_new(mu_oz(c)->env, NULL);
    l->job = (struct mu_job){.run = store, .done = stored, .loop = mu_call_loop(c)};
    int r = mu_work_submit(mu_oz(c)->work, &l->job);
    if (r < 0) {
        mu_call_fail(c, r);
    }
}

static const struct mu_schema report_members[] = {
    {.name = "kind",
     .type = MU_S_STRING,
     .flags = MU_S_REQUIRED,
     .words = "heartbeat log result",
     .doc = "What is reported."},
    {.name = "execution_id", .type = MU_S_STRING, .doc = "The attempt; the token decides."},
    {.name = "seq", .type = MU_S_INT, .max = INT64_MAX, .doc = "Counted from 1."},
    {.name = "stream", .type = MU_S_STRING, .words = "stdout stderr", .doc = "Of a log chunk."},
    {.name = "offset",
     .type = MU_S_INT,
     .max = MU_LOG_OFFSET_MAX,
     .doc = "Bytes before a log chunk."},
    {.name = "chunk", .type = MU_S_STRING, .doc = "Output of the agent, at most 64 KiB."},
    {.name = "exit_code",
     .type = MU_S_INT,
     .min = INT32_MIN,
     .max = INT32_MAX,
     .doc = "Of a result."},
    {.name = "output", .type = MU_S_STRING, .doc = "Of a result: all of the output."},
    {.name = "session_link", .type = MU_S_ANY, .doc = "Of a result."},
    {.name = "artifacts", .type = MU_S_ANY, .doc = "Of a result."},
    {0},
};

const struct mu_route mu_oz_attempt_routes[] = {
    {.method = MU_HTTP_GET,
     .path = "/api/v1/agent/runs/{runID}/prompt",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_RUN,
     .handler = get_prompt,
     .id = "getRunPrompt",
     .summary = "The run's prompt, for its runner (session token).",
     .media = "text/plain; charset=utf-8",
     .errors = "404 503"},
    {.method = MU_HTTP_POST,
     .path = "/api/v1/agent/runs/{runID}/report",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_RUN,
     .flags = MU_ROUTE_WRITES,
     .max_body = REPORT_MAX,
     .body = report_members,
     .handler = post_report,
     .id = "reportRun",
     .summary =
         "A sign of life, output or the result of an attempt, from its runner (session token).",
     .errors = "400 404 409 413 503"},
    {.method = MU_HTTP_PUT,
     .path = "/api/v1/agent/runs/{runID}/files/{name}",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_RUN,
     .flags = MU_ROUTE_WRITES,
     .max_body = FILE_MAX,
     .handler = put_file,
     .id = "putRunFile",
     .summary = "Leaves a file of the run, at most 32 MiB, or a part of a checkpoint, from its "
                "runner (session token).",
     .errors = "400 404 409 413 503"},
    {.path = NULL}};
