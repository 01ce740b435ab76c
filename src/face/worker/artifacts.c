/* Artifacts as workers report them, normalised (oz-api.md 8): known shapes only, each once, at most
 * 100 and 64 KiB, times in milliseconds. */
#include <errno.h>

#include "base/clock.h"
#include "face/worker/worker_int.h"

enum { MAX = 100, MAX_BYTES = 64 << 10, TEXT_MAX = 2000 };

static bool is_url(mu_bytes text)
{
    return text.len <= TEXT_MAX &&
           (mu_bytes_starts(text, MU_B("https://")) || mu_bytes_starts(text, MU_B("http://")));
}

static void add_text(struct mu_json_w *w, yyjson_val *data, const char *key, const char *fallback)
{
    mu_bytes v = mu_json_get_bytes(data, key);
    if (v.len || fallback) {
        mu_jw_kstr(w, key, v.len ? mu_bytes_head(v, TEXT_MAX) : mu_str(fallback));
    }
}

/* The kind and what tells it from others; 0 = no artifact of ours. */
static int kind_of(yyjson_val *item, mu_bytes *ret_key)
{
    mu_bytes type = mu_json_get_bytes(item, "artifact_type");
    yyjson_val *data = mu_json_get(item, "data");
    if (mu_bytes_is(type, "PULL_REQUEST")) {
        *ret_key = mu_json_get_bytes(data, "url");
        return is_url(*ret_key) ? MU_ARTIFACT_PR : 0;
    }
    if (mu_bytes_is(type, "PLAN")) {
        *ret_key = mu_json_get_bytes(data, "document_uid");
        return ret_key->len && ret_key->len <= TEXT_MAX ? MU_ARTIFACT_PLAN : 0;
    }
    return 0;
}

static void write_one(struct mu_buf *b, yyjson_val *item, int kind, int64_t now_ms)
{
    struct mu_json_w w = mu_json_w(b);
    yyjson_val *data = mu_json_get(item, "data");
    int64_t at = now_ms;
    if (mu_time_parse(mu_json_get_bytes(item, "created_at"), &at) < 0) {
        at = now_ms;
    }
    mu_jw_obj(&w);
    mu_jw_kcstr(&w, "artifact_type", kind == MU_ARTIFACT_PR ? "PULL_REQUEST" : "PLAN");
    mu_jw_ktime(&w, "created_at", at);
    mu_jw_key(&w, "data");
    mu_jw_obj(&w);
    if (kind == MU_ARTIFACT_PR) {
        add_text(&w, data, "url", NULL);
        add_text(&w, data, "branch", "unknown");
    } else {
        add_text(&w, data, "document_uid", NULL);
        add_text(&w, data, "notebook_uid", NULL);
        add_text(&w, data, "title", NULL);
    }
    mu_jw_obj_end(&w);
    mu_jw_obj_end(&w);
}

static bool seen(const struct mu_report *r, const struct mu_digest_hex *dedupe)
{
    for (size_t i = 0; i < r->n_artifacts; i++) {
        if (memcmp(r->artifact_rows[i].dedupe.text, dedupe->text, sizeof dedupe->text) == 0) {
            return true;
        }
    }
    return false;
}

static int add_one(const struct mu_env *env, yyjson_val *item, int64_t now_ms, struct mu_report *r)
{
    mu_bytes key;
    int kind = kind_of(item, &key);
    struct mu_digest_hex dedupe = kind ? mu_sha256_hex(key) : (struct mu_digest_hex){""};
    if (!kind || seen(r, &dedupe)) {
        return 0;
    }
    struct mu_buf b;
    mu_buf_init(&b, 32 << 10);
    write_one(&b, item, kind, now_ms);
    struct mu_artifact_row *row = &r->artifact_rows[r->n_artifacts];
    *row = (struct mu_artifact_row){.id = mu_id_new(env, NULL), .kind = kind, .dedupe = dedupe};
    row->data = b.failed ? MU_B_NONE : mu_arena_dup(&r->arena, mu_buf_bytes(&b));
    int x = b.failed == MU_E_TOO_LARGE ? 0 : row->data.ptr ? 1 : -ENOMEM;
    mu_buf_fini(&b);
    return x;
}

int mu_link_artifacts(const struct mu_env *env, yyjson_val *list, int64_t now_ms,
                      struct mu_report *r)
{
    size_t i, n, bytes = 2;
    yyjson_val *item;
    if (!yyjson_is_arr(list) || yyjson_arr_size(list) == 0) {
        return 0;
    }
    r->artifact_rows = mu_arena_calloc(&r->arena, MAX * sizeof *r->artifact_rows);
    if (!r->artifact_rows) {
        return -ENOMEM;
    }
    struct mu_buf all;
    mu_buf_init(&all, MAX_BYTES + 4096);
    struct mu_json_w w = mu_json_w(&all);
    mu_jw_arr(&w);
    int x = 0;
    yyjson_arr_foreach(list, i, n, item)
    {
        x = r->n_artifacts < MAX ? add_one(env, item, now_ms, r) : 0;
        if (x < 0) {
            break;
        }
        size_t len = x ? r->artifact_rows[r->n_artifacts].data.len + 1 : 0;
        if (x && bytes + len <= MAX_BYTES) {
            mu_jw_raw(&w, r->artifact_rows[r->n_artifacts++].data);
            bytes += len;
        }
    }
    mu_jw_arr_end(&w);
    if (x >= 0 && r->n_artifacts) {
        r->artifacts = all.failed ? MU_B_NONE : mu_arena_dup(&r->arena, mu_buf_bytes(&all));
        x = r->artifacts.ptr ? 0 : -ENOMEM;
    }
    mu_buf_fini(&all);
    return x < 0 ? x : 0;
}
