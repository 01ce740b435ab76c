#include "app/sessions/artifacts.h"

#include <errno.h>

#include "proto/json.h"
#include "proto/links.h"

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

/* Rows and their array in `w`. */
static int add_all(const struct mu_env *env, struct mu_arena *a, const mu_bytes *urls, size_t n,
                   int64_t now_ms, struct mu_artifact_row *rows, struct mu_json_w *w)
{
    mu_jw_arr(w);
    for (size_t i = 0; i < n; i++) {
        int r = add_artifact(env, a, urls[i], now_ms, &rows[i]);
        if (r < 0) {
            return r;
        }
        mu_jw_raw(w, rows[i].data);
    }
    mu_jw_arr_end(w);
    return 0;
}

int mu_artifacts_find(const struct mu_env *env, struct mu_arena *a, mu_bytes text, int64_t now_ms,
                      struct mu_artifact_row **ret_rows, size_t *ret_n, mu_bytes *ret_json)
{
    mu_bytes urls[MU_PULL_REQUESTS_MAX];
    size_t n = mu_find_pull_requests(text, urls);
    *ret_rows = NULL;
    *ret_n = 0;
    *ret_json = MU_B_NONE;
    if (n == 0) {
        return 0;
    }
    struct mu_artifact_row *rows = mu_arena_calloc(a, n * sizeof *rows);
    struct mu_buf json;
    mu_buf_init(&json, 1 << 20);
    struct mu_json_w w = mu_json_w(&json);
    int r = rows ? add_all(env, a, urls, n, now_ms, rows, &w) : -ENOMEM;
    if (r == 0) {
        *ret_json = json.failed ? MU_B_NONE : mu_arena_dup(a, mu_buf_bytes(&json));
        r = ret_json->ptr ? 0 : -ENOMEM;
    }
    if (r == 0) {
        *ret_rows = rows;
        *ret_n = n;
    }
    mu_buf_fini(&json);
    return r;
}
