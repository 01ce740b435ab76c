/* The tokens against yyjson: both take the same texts, and every value is the same. */
#include <yyjson.h>

#include "fuzz.h"
#include "proto/frame.h"
#include "proto/jtok.h"

static size_t depth_of(yyjson_val *v)
{
    size_t deepest = 0, i, max;
    yyjson_val *k, *x;
    if (yyjson_is_arr(v)) {
        yyjson_arr_foreach(v, i, max, x)
        {
            deepest = MU_MAX(deepest, depth_of(x));
        }
        return deepest + 1;
    }
    if (yyjson_is_obj(v)) {
        yyjson_obj_foreach(v, i, max, k, x)
        {
            deepest = MU_MAX(deepest, depth_of(x));
        }
        return deepest + 1;
    }
    return 0;
}

static void same(const struct mu_jtok *t, int v, yyjson_val *y)
{
    size_t i, max;
    yyjson_val *k, *x;
    int at;
    switch (mu_jtok_kind(t, v)) {
    case MU_JTOK_OBJECT:
        MU_CHECK(yyjson_is_obj(y));
        at = mu_jtok_first(t, v);
        yyjson_obj_foreach(y, i, max, k, x)
        {
            same(t, at, k);
            same(t, at + 1, x);
            at = mu_jtok_next(t, v, at);
        }
        MU_CHECK(at < 0);
        break;
    case MU_JTOK_ARRAY:
        MU_CHECK(yyjson_is_arr(y));
        at = mu_jtok_first(t, v);
        yyjson_arr_foreach(y, i, max, x)
        {
            same(t, at, x);
            at = mu_jtok_next(t, v, at);
        }
        MU_CHECK(at < 0);
        break;
    case MU_JTOK_STRING: {
        struct mu_buf b;
        mu_buf_init(&b, 1 << 20);
        mu_bytes want = mu_bytes_of(yyjson_get_str(y), yyjson_get_len(y));
        MU_CHECK(yyjson_is_str(y) && mu_jtok_is(t, v, want));
        MU_CHECK(mu_jtok_add(t, v, &b) == 0 && mu_bytes_eq(mu_buf_bytes(&b), want));
        mu_buf_fini(&b);
        break;
    }
    case MU_JTOK_NUMBER:
        MU_CHECK(yyjson_is_raw(y) &&
                 mu_bytes_eq(mu_jtok_raw(t, v), mu_bytes_of(yyjson_get_raw(y), yyjson_get_len(y))));
        break;
    case MU_JTOK_BOOL:
        MU_CHECK(yyjson_is_bool(y) &&
                 mu_jtok_bool(t, v, !yyjson_get_bool(y)) == yyjson_get_bool(y));
        break;
    case MU_JTOK_NULL:
        MU_CHECK(yyjson_is_null(y));
        break;
    default:
        MU_CHECK(!"a value that is not there");
    }
}

static int count(void *arg, enum mu_frame_kind kind, mu_bytes payload)
{
    struct mu_frame_term term;
    *(size_t *)arg = *(size_t *)arg * 31 + payload.len + (size_t)kind;
    if (kind == MU_FRAME_BYTES && mu_frame_term_parse(payload, &term) == 0) {
        MU_CHECK(term.data.len + MU_FRAME_TERM_HEAD == payload.len);
    }
    return 0;
}

static void frames(mu_bytes in)
{
    struct mu_frame_in whole, pieces;
    size_t a = 0, b = 0;
    unsigned seed = (unsigned)in.len;
    mu_frame_in_init(&whole);
    mu_frame_in_init(&pieces);
    int r = mu_frame_feed(&whole, in, count, &a), p = 0;
    while (in.len && !p) {
        p = mu_frame_feed(&pieces, fuzz_piece(&in, &seed), count, &b);
    }
    MU_CHECK(r == p && a == b);
    mu_frame_in_fini(&whole);
    mu_frame_in_fini(&pieces);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mu_bytes in = fuzz_bytes(data, size);
    struct mu_jtok t;
    mu_jtok_init(&t);
    int r = mu_jtok_parse(&t, in);
    yyjson_doc *doc = size ? yyjson_read(in.ptr, in.len, YYJSON_READ_NUMBER_AS_RAW) : NULL;
    yyjson_val *root = yyjson_doc_get_root(doc);
    bool container = yyjson_is_ctn(root);
    if (container && r) {
        MU_CHECK(depth_of(root) > MU_JTOK_DEPTH || yyjson_doc_get_val_count(doc) > MU_JTOK_MAX);
    } else {
        MU_CHECK((r == 0) == container);
    }
    if (r == 0) {
        same(&t, 0, root);
    }
    yyjson_doc_free(doc);
    mu_jtok_fini(&t);
    frames(in);
    return 0;
}
