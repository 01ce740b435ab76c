/* However a text is cut into pieces, the filter gives the same; what it leaves is JSON whenever the
 * text was, with every short string whole; what it tells of a long string is that string. */
#include "base/encode.h"
#include "fuzz.h"
#include "proto/json.h"
#include "proto/jsoncut.h"

enum { MAX_STRING = 24 };

struct told {
    struct mu_buf text; /* of the last one */
    struct mu_buf all;
};

static int on_piece(void *arg, mu_bytes key, unsigned depth, mu_bytes text, bool first)
{
    struct told *t = arg;
    MU_CHECK(key.len <= MU_JSONCUT_KEY && depth <= MU_JSONCUT_DEPTH && text.len);
    if (first) {
        mu_buf_clear(&t->text);
        mu_buf_add_char(&t->all, 1);
        mu_buf_add(&t->all, key);
    }
    mu_buf_add(&t->text, text);
    mu_buf_add(&t->all, text);
    return 0;
}

static int run(mu_bytes in, unsigned seed, struct mu_buf *out, struct told *t)
{
    struct mu_jsoncut c;
    mu_buf_init(out, 1 << 20);
    mu_buf_init(&t->text, 1 << 20);
    mu_buf_init(&t->all, 4 << 20);
    mu_jsoncut_init(&c, out, MAX_STRING, on_piece, t);
    int r = seed ? 0 : mu_jsoncut_feed(&c, in);
    while (seed && in.len && r == 0) {
        r = mu_jsoncut_feed(&c, fuzz_piece(&in, &seed));
    }
    return r;
}

static yyjson_val *parse(struct mu_arena *a, mu_bytes text)
{
    static const struct mu_json_limits limits = {.max_bytes = 1 << 20, .max_depth = 64};
    yyjson_val *root = NULL;
    return mu_json_read(a, text, &limits, &root, NULL) == 0 ? root : NULL;
}

/* A text that is one long string is told whole. */
static void check_string(mu_bytes in, struct told *t)
{
    struct mu_arena a;
    mu_arena_init(&a, 16 << 20);
    yyjson_val *root = parse(&a, in);
    if (root && yyjson_is_str(root) && t->all.len) {
        MU_CHECK(mu_bytes_eq(mu_json_bytes(root), mu_buf_bytes(&t->text)));
    }
    mu_arena_fini(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mu_bytes in = fuzz_bytes(data, size);
    struct mu_buf one, many;
    struct told t1, t2;
    struct mu_arena a;
    mu_arena_init(&a, 16 << 20);
    int r1 = run(in, 0, &one, &t1), r2 = run(in, (unsigned)size + 1, &many, &t2);
    MU_CHECK(r1 == r2);
    MU_CHECK(mu_bytes_eq(mu_buf_bytes(&one), mu_buf_bytes(&many)));
    MU_CHECK(mu_bytes_eq(mu_buf_bytes(&t1.all), mu_buf_bytes(&t2.all)));
    if (parse(&a, in)) {
        MU_CHECK(r1 == 0 && one.len <= in.len);
        mu_arena_fini(&a);
        /* cut keys may have become the same one */
        MU_CHECK(parse(&a, mu_buf_bytes(&one)) || mu_bytes_find_char(in, ':') >= 0);
        check_string(in, &t1);
    }
    mu_arena_fini(&a);
    struct mu_buf *bufs[] = {&one, &many, &t1.text, &t1.all, &t2.text, &t2.all};
    for (size_t i = 0; i < MU_ARRAY_LEN(bufs); i++) {
        mu_buf_fini(bufs[i]);
    }
    return 0;
}
