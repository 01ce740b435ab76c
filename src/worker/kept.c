#include "worker/kept.h"

#include <stdio.h>

#include "proto/links.h"

enum { ONE_ITEM = 4096 };

static size_t head_of(size_t limit)
{
    return MU_MIN(limit / 2, (size_t)MU_OUTPUT_HEAD);
}

void mu_kept_init(struct mu_clip *log, size_t limit)
{
    mu_clip_init(log, limit, head_of(limit));
}

void mu_kept_add(struct mu_clip *log, mu_bytes b)
{
    if (mu_clip_add(log, b) < 0) {
        log->total += (int64_t)b.len; /* the line will tell */
    }
}

static void mark(struct mu_buf *dst, int64_t missing)
{
    if (missing > 0) {
        mu_buf_printf(dst, "\n[... %lld bytes left out ...]\n", (long long)missing);
    }
}

void mu_kept_write(const struct mu_clip *log, struct mu_buf *dst)
{
    mu_bytes parts[MU_CLIP_PARTS];
    mu_clip_parts(log, parts);
    mu_buf_add(dst, parts[0]);
    mark(dst, log->total - (int64_t)log->all.len);
    mu_buf_add(dst, parts[1]);
    mu_buf_add(dst, parts[2]);
}

void mu_kept_cut(mu_bytes text, int64_t total, size_t limit, struct mu_buf *dst)
{
    mu_bytes first = text, last = mu_clip_of(&first, limit, head_of(limit));
    mu_buf_add(dst, first);
    mark(dst, (int64_t)(text.len - first.len - last.len));
    mu_buf_add(dst, last);
    mark(dst, total - (int64_t)text.len);
}

static bool holds(const struct mu_buf *dst, mu_bytes url)
{
    char quoted[MU_PULL_REQUEST_LEN + 3];
    int n = snprintf(quoted, sizeof quoted, "\"%.*s\"", MU_ARGS(url));
    return mu_bytes_find(mu_buf_bytes(dst), mu_bytes_of(quoted, (size_t)n)) >= 0;
}

void mu_kept_pull_requests(mu_bytes text, int64_t now_ms, struct mu_buf *dst, size_t *count)
{
    mu_bytes urls[MU_PULL_REQUESTS_MAX];
    size_t n = mu_find_pull_requests(text, urls);
    for (size_t i = 0; i < n && *count < MU_MAX_ARTIFACTS; i++) {
        if (holds(dst, urls[i])) {
            continue;
        }
        struct mu_buf one; /* half an item would spoil the whole array */
        mu_buf_init(&one, ONE_ITEM);
        struct mu_json_w w = mu_json_w(&one);
        mu_pull_request_write(&w, urls[i], MU_B_NONE, now_ms);
        mu_bytes item = mu_buf_bytes(&one);
        if (!one.failed && item.len < dst->max - dst->len) {
            mu_buf_add_str(dst, *count > 0 ? "," : "");
            mu_buf_add(dst, item);
            (*count)++;
        }
        mu_buf_fini(&one);
    }
}
