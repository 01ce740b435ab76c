#include "app/sessions/output.h"

#include <errno.h>

#include "proto/json.h"

enum { RING = MU_OUTPUT_MAX - MU_OUTPUT_HEAD, MAX_ARTIFACTS = 100, MAX_URL = 300 };

void mu_output_init(struct mu_output *o)
{
    *o = (struct mu_output){.total = 0};
    mu_buf_init(&o->head, MU_OUTPUT_MAX);
}

void mu_output_fini(struct mu_output *o)
{
    mu_buf_fini(&o->head);
    mu_free(o->ring);
    o->ring = NULL;
}

void mu_output_reset(struct mu_output *o)
{
    mu_output_fini(o);
    mu_output_init(o);
}

static void ring_add(struct mu_output *o, mu_bytes text)
{
    if (text.len > RING) {
        text = mu_bytes_from(text, text.len - RING);
    }
    if (!text.len) {
        return;
    }
    size_t first = MU_MIN(text.len, (size_t)RING - o->ring_at);
    memcpy(o->ring + o->ring_at, text.ptr, first);
    memcpy(o->ring, text.ptr + first, text.len - first);
    o->ring_at = (o->ring_at + text.len) % RING;
}

/* From now on only the beginning and the end are kept. */
static int begin_ring(struct mu_output *o, mu_bytes *text)
{
    size_t more = o->head.len < MU_OUTPUT_HEAD ? MU_OUTPUT_HEAD - o->head.len : 0;
    char *ring = mu_alloc(RING);
    if (ring && more) {
        mu_buf_add(&o->head, mu_bytes_head(*text, more));
    }
    if (!ring || o->head.failed) {
        o->head.failed = 0;
        mu_free(ring);
        return -ENOMEM;
    }
    *text = mu_bytes_from(*text, more);
    o->ring = ring;
    o->ring_at = 0;
    ring_add(o, mu_bytes_from(mu_buf_bytes(&o->head), MU_OUTPUT_HEAD));
    o->head.len = MU_OUTPUT_HEAD;
    return 0;
}

int mu_output_add(struct mu_output *o, mu_bytes text)
{
    int64_t len = (int64_t)text.len;
    if (!o->ring && o->head.len + text.len <= MU_OUTPUT_MAX) {
        mu_buf_add(&o->head, text);
        if (o->head.failed) {
            o->head.failed = 0;
            return -ENOMEM;
        }
    } else {
        int r = o->ring ? 0 : begin_ring(o, &text);
        if (r < 0) {
            return r;
        }
        ring_add(o, text);
    }
    o->total += len;
    return 0;
}

static bool blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static void trim_start(mu_bytes *b)
{
    while (b->len && blank(b->ptr[0])) {
        *b = mu_bytes_from(*b, 1);
    }
}

static void trim_end(mu_bytes *b)
{
    while (b->len && blank(b->ptr[b->len - 1])) {
        b->len--;
    }
}

void mu_output_write(const struct mu_output *o, bool trim, struct mu_buf *dst)
{
    mu_bytes head = mu_buf_bytes(&o->head);
    if (!o->ring) {
        mu_buf_add(dst, trim ? mu_bytes_trim(head) : head);
        return;
    }
    mu_bytes parts[] = {mu_bytes_head(head, MU_OUTPUT_HEAD),
                        mu_bytes_of(o->ring + o->ring_at, (size_t)RING - o->ring_at),
                        mu_bytes_of(o->ring, o->ring_at)};
    for (size_t i = 0; trim && i < MU_ARRAY_LEN(parts); i++) {
        trim_start(&parts[i]);
        if (parts[i].len) {
            break;
        }
    }
    for (size_t i = MU_ARRAY_LEN(parts); trim && i-- > 0;) {
        trim_end(&parts[i]);
        if (parts[i].len) {
            break;
        }
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(parts); i++) {
        mu_buf_add(dst, parts[i]);
    }
}

mu_bytes mu_output_from(const struct mu_output *o, int64_t from)
{
    if (o->ring || from < 0) {
        return MU_B_NONE;
    }
    return mu_bytes_from(mu_buf_bytes(&o->head), (size_t)from);
}

/* --- pull requests --- */

static bool name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
}

/* Length of "https://github.com/<owner>/<repo>/pull/<n>" at the start of `t`, or 0. */
static size_t pr_url(mu_bytes t)
{
    mu_bytes host = MU_B("https://github.com/");
    if (!mu_bytes_starts(t, host)) {
        return 0;
    }
    size_t at = host.len;
    for (int part = 0; part < 2; part++) {
        size_t start = at;
        while (at < t.len && name_char(t.ptr[at])) {
            at++;
        }
        if (at == start || at == t.len || t.ptr[at] != '/') {
            return 0;
        }
        at++;
    }
    if (!mu_bytes_starts(mu_bytes_from(t, at), MU_B("pull/"))) {
        return 0;
    }
    at += 5;
    size_t digits = at;
    while (at < t.len && t.ptr[at] >= '0' && t.ptr[at] <= '9') {
        at++;
    }
    return at > digits && at - digits <= 10 && at <= MAX_URL ? at : 0;
}

static int add_artifact(const struct mu_env *env, struct mu_arena *a, mu_bytes url, int64_t now_ms,
                        struct mu_artifact_row *row)
{
    struct mu_buf b;
    mu_buf_init(&b, 2048);
    struct mu_json_w w = mu_json_w(&b);
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "artifact_type", "PULL_REQUEST");
    mu_jw_ktime(&w, "created_at", now_ms);
    mu_jw_key(&w, "data");
    mu_jw_obj(&w);
    mu_jw_kstr(&w, "url", url);
    mu_jw_kcstr(&w, "branch", "unknown");
    mu_jw_obj_end(&w);
    mu_jw_obj_end(&w);
    row->id = mu_id_new(env, NULL);
    row->kind = MU_ARTIFACT_PR;
    row->dedupe = mu_sha256_hex(url);
    row->data = b.failed ? MU_B_NONE : mu_arena_dup(a, mu_buf_bytes(&b));
    mu_buf_fini(&b);
    return row->data.ptr ? 0 : -ENOMEM;
}

static bool seen(const struct mu_artifact_row *rows, size_t n, const struct mu_digest_hex *dedupe)
{
    for (size_t i = 0; i < n; i++) {
        if (memcmp(rows[i].dedupe.text, dedupe->text, sizeof dedupe->text) == 0) {
            return true;
        }
    }
    return false;
}

int mu_artifacts_find(const struct mu_env *env, struct mu_arena *a, mu_bytes text, int64_t now_ms,
                      struct mu_artifact_row **ret_rows, size_t *ret_n, mu_bytes *ret_json)
{
    *ret_rows = NULL;
    *ret_n = 0;
    *ret_json = MU_B_NONE;
    size_t at = 0;
    ptrdiff_t found;
    struct mu_buf json;
    mu_buf_init(&json, 1 << 20);
    struct mu_json_w w = mu_json_w(&json);
    int r = 0;
    while (r == 0 && *ret_n < MAX_ARTIFACTS &&
           (found = mu_bytes_find(mu_bytes_from(text, at), MU_B("https://github.com/"))) >= 0) {
        at += (size_t)found;
        size_t len = pr_url(mu_bytes_from(text, at));
        if (!len) {
            at++;
            continue;
        }
        mu_bytes url = mu_bytes_of(text.ptr + at, len);
        at += len;
        struct mu_digest_hex dedupe = mu_sha256_hex(url);
        if (seen(*ret_rows, *ret_n, &dedupe)) {
            continue;
        }
        if (!*ret_rows) {
            *ret_rows = mu_arena_calloc(a, MAX_ARTIFACTS * sizeof **ret_rows);
            mu_jw_arr(&w);
        }
        r = *ret_rows ? add_artifact(env, a, url, now_ms, &(*ret_rows)[*ret_n]) : -ENOMEM;
        if (r == 0) {
            mu_jw_raw(&w, (*ret_rows)[(*ret_n)++].data);
        }
    }
    if (r == 0 && *ret_n) {
        mu_jw_arr_end(&w);
        *ret_json = json.failed ? MU_B_NONE : mu_arena_dup(a, mu_buf_bytes(&json));
        r = ret_json->ptr ? 0 : -ENOMEM;
    }
    mu_buf_fini(&json);
    return r;
}
