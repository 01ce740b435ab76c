/* What a run left as bytes: its output, and the images it was given (oz-api.md 5, README 7). */
#include <errno.h>
#include <stdio.h>

#include "base/clip.h"
#include "face/oz/oz_int.h"

/* --- the list --- */

struct listing {
    struct mu_call *c;
    struct mu_session_files op;
    struct mu_json_w w;
};

static int add_file(void *arg, const struct mu_session_file *f)
{
    struct listing *l = arg;
    struct mu_json_w *w = &l->w;
    mu_jw_obj(w);
    mu_jw_kstr(w, "name", f->name);
    mu_jw_kstr(w, "media_type", f->media_type);
    mu_jw_ki64(w, "bytes", f->bytes);
    mu_jw_kstr(w, "sha256", f->sha256);
    mu_jw_ktime(w, "created_at", f->created_ms);
    mu_jw_obj_end(w);
    return w->buf->failed;
}

static void listed(struct mu_session_files *op, int result)
{
    struct listing *l = op->ctx;
    struct mu_json_w *w = &l->w;
    if (result < 0) {
        mu_call_fail(l->c, result);
        return;
    }
    if (op->ended_ms) {
        mu_jw_obj(w);
        mu_jw_kcstr(w, "name", "output");
        mu_jw_kcstr(w, "media_type", "application/octet-stream");
        mu_jw_ki64(w, "bytes", MU_MIN(op->output_bytes, (int64_t)MU_OUTPUT_MAX));
        mu_jw_ktime(w, "created_at", op->ended_ms);
        mu_jw_obj_end(w);
    }
    mu_jw_arr_end(w);
    mu_call_send_object(l->c, w);
}

static void list_files(struct mu_call *c)
{
    const struct mu_principal *p = mu_call_principal(c);
    struct listing *l = mu_call_new(c, sizeof *l);
    if (!l) {
        return;
    }
    l->c = c;
    l->w = mu_json_w(mu_call_buf(c));
    l->op = (struct mu_session_files){.read = {.loop = mu_call_loop(c)},
                                      .admin = p->admin,
                                      .org_id = mu_str(p->org_id),
                                      .each = add_file,
                                      .arg = l,
                                      .done = listed,
                                      .ctx = l};
    if (!mu_oz_run_id(c, &l->op.id)) {
        return;
    }
    mu_jw_obj(&l->w);
    mu_jw_key(&l->w, "files");
    mu_jw_arr(&l->w);
    int r = mu_session_files(mu_oz(c)->sessions, &l->op);
    if (r < 0) {
        mu_call_fail(c, r);
    }
}

/* --- bytes --- */

/* "bytes=a-b", "bytes=a-", "bytes=-n": one range. 0 = none or not understood (then all of it), -1 =
 * not satisfiable. */
static int byte_range(mu_bytes header, size_t size, size_t *from, size_t *to)
{
    int64_t a = -1, b = -1;
    if (!mu_bytes_starts(header, MU_B("bytes="))) {
        return 0;
    }
    mu_bytes rest = mu_bytes_from(header, 6), first = mu_bytes_split(&rest, '-');
    if (!rest.ptr || (first.len && mu_bytes_i64(first, &a) < 0) ||
        (rest.len && mu_bytes_i64(rest, &b) < 0) || (!first.len && !rest.len) ||
        (first.len && a < 0) || (rest.len && b < 0) || (first.len && rest.len && a > b)) {
        return 0; /* "9-5" is no range at all (RFC 9110 14.1.1) */
    }
    int64_t n = (int64_t)size;
    if (!first.len) {
        a = b > n ? 0 : n - b;
        b = n - 1;
    } else if (!rest.len || b >= n) {
        b = n - 1;
    }
    if (a >= n) {
        return -1;
    }
    *from = (size_t)a;
    *to = (size_t)b;
    return 1;
}

/* Sends the call's buffer, or the part of it that was asked for. */
static void send_bytes(struct mu_call *c)
{
    struct mu_buf *b = mu_call_buf(c);
    size_t from = 0, to = 0, size = b->len;
    /* Nothing here carries a validator, so the condition of an If-Range is never met. */
    bool whole = b->failed || mu_call_header(c, "if-range").ptr;
    int partial = whole ? 0 : byte_range(mu_call_header(c, "range"), size, &from, &to);
    char range[80];
    if (partial < 0) {
        snprintf(range, sizeof range, "bytes */%zu", size);
        mu_buf_clear(b);
    } else if (partial > 0) {
        snprintf(range, sizeof range, "bytes %zu-%zu/%zu", from, to, size);
        memmove(b->ptr, b->ptr + from, to - from + 1);
        b->len = to - from + 1;
    }
    const struct mu_http_pair headers[] = {{"Accept-Ranges", MU_B("bytes")},
                                           {"Content-Range", mu_str(range)}};
    if (partial < 0) {
        struct mu_json_w w = mu_json_w(b);
        mu_jw_obj(&w);
        mu_jw_kcstr(&w, "error", "Range not satisfiable");
        mu_jw_kcstr(&w, "message", "Range not satisfiable");
        mu_jw_kcstr(&w, "code", "invalid_field");
        mu_jw_kcstr(&w, "field", "Range");
        mu_jw_kstr(&w, "request_id", mu_call_request_id(c));
        mu_jw_obj_end(&w);
    }
    mu_call_send_headers(c, partial > 0 ? 206 : partial < 0 ? 416 : 200, headers, partial ? 2 : 1);
}

struct download {
    struct mu_call *c;
    struct mu_session_get get;
    struct mu_session_files files;
    struct mu_id object;
    struct mu_job job;
    int job_result;
};

static int take_output(void *arg, const struct mu_session_view *v)
{
    struct download *d = arg;
    struct mu_buf *b = mu_call_buf(d->c);
    mu_buf_clear(b);
    mu_buf_add(b, v->output);
    return b->failed;
}

static void output_read(struct mu_session_get *op, int result)
{
    struct download *d = op->ctx;
    if (result < 0) {
        mu_call_fail(d->c, result);
    } else {
        send_bytes(d->c);
    }
}

static struct download *download_new(struct mu_call *c, struct mu_id *ret_run)
{
    struct download *d = mu_call_new(c, sizeof *d);
    if (!d) {
        return NULL;
    }
    if (!mu_oz_run_id(c, ret_run)) {
        return NULL;
    }
    d->c = c;
    return d;
}

static void download_output(struct mu_call *c)
{
    const struct mu_principal *p = mu_call_principal(c);
    struct mu_id id;
    struct download *d = download_new(c, &id);
    if (!d) {
        return;
    }
    d->get = (struct mu_session_get){.read = {.loop = mu_call_loop(c)},
                                     .admin = p->admin,
                                     .org_id = mu_str(p->org_id),
                                     .id = id,
                                     .each = take_output,
                                     .arg = d,
                                     .done = output_read,
                                     .ctx = d};
    int r = mu_session_get(mu_oz(c)->sessions, &d->get);
    if (r < 0) {
        mu_call_fail(c, r);
    }
}

/* --- a stored object --- */

static int find_object(void *arg, const struct mu_session_file *f)
{
    struct download *d = arg;
    return mu_bytes_eq(f->name, mu_call_param(d->c, "name")) ? mu_id_parse(f->id, NULL, &d->object)
                                                             : 0;
}

static void read_object(struct mu_job *job)
{
    struct download *d = MU_CONTAINER(job, struct download, job);
    d->job_result = mu_files_get(mu_oz(d->c)->files, mu_id_bytes(&d->object), mu_call_buf(d->c));
}

static void object_read(struct mu_job *job)
{
    struct download *d = MU_CONTAINER(job, struct download, job);
    if (!job->ran || d->job_result < 0) {
        mu_call_fail(d->c, job->ran ? d->job_result : MU_E_SHUTDOWN);
    } else {
        send_bytes(d->c);
    }
}

static void object_found(struct mu_session_files *op, int result)
{
    struct download *d = op->ctx;
    struct mu_call *c = d->c;
    int r = result < 0 ? result : d->object.text[0] ? 0 : MU_E_NOT_FOUND;
    if (r == 0) {
        d->job = (struct mu_job){.run = read_object, .done = object_read, .loop = mu_call_loop(c)};
        r = mu_work_submit(mu_oz(c)->work, &d->job);
    }
    if (r < 0) {
        mu_call_fail(c, r);
    }
}

static void download_file(struct mu_call *c)
{
    const struct mu_principal *p = mu_call_principal(c);
    struct mu_id id;
    struct download *d = download_new(c, &id);
    if (!d) {
        return;
    }
    d->files = (struct mu_session_files){.read = {.loop = mu_call_loop(c)},
                                         .admin = p->admin,
                                         .org_id = mu_str(p->org_id),
                                         .id = id,
                                         .each = find_object,
                                         .arg = d,
                                         .done = object_found,
                                         .ctx = d};
    int r = mu_session_files(mu_oz(c)->sessions, &d->files);
    if (r < 0) {
        mu_call_fail(c, r);
    }
}

const struct mu_route mu_oz_file_routes[] = {
    {.method = MU_HTTP_GET,
     .path = "/api/v1/agent/runs/{runID}/files",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_TENANT,
     .handler = list_files,
     .id = "listRunFiles",
     .summary = "The run's files: what it was given and, once it has ended, its output.",
     .response = "RunFiles",
     .errors = "404 503"},
    {.method = MU_HTTP_GET,
     .path = "/api/v1/agent/runs/{runID}/files/output",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_TENANT,
     .handler = download_output,
     .id = "downloadRunOutput",
     .summary = "The kept output bytes; Range is honoured.",
     .media = "application/octet-stream",
     .errors = "206 404 416 503"},
    {.method = MU_HTTP_GET,
     .path = "/api/v1/agent/runs/{runID}/files/{name}",
     .face = MU_FACE_OZ,
     .auth = MU_AUTH_TENANT,
     .handler = download_file,
     .id = "downloadRunFile",
     .summary = "The bytes of one of the run's files; Range is honoured.",
     .media = "application/octet-stream",
     .errors = "206 404 416 503"},
    {.path = NULL}};
