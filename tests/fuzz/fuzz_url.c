/* Paths, queries and absolute URLs: what is accepted must be normal, and survive a second pass. */
#include <errno.h>

#include "base/buf.h"
#include "base/encode.h"
#include "proto/url.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_path(mu_bytes path)
{
    MU_CHECK(path.len > 0 && path.ptr[0] == '/' && mu_utf8_valid(path));
    for (size_t i = 0; i < path.len; i++) {
        MU_CHECK((unsigned char)path.ptr[i] >= 0x20 && path.ptr[i] != 0x7f);
    }
    mu_bytes rest = mu_bytes_from(path, 1);
    while (rest.ptr) {
        mu_bytes segment = mu_bytes_split(&rest, '/');
        MU_CHECK(!mu_bytes_is(segment, "..") && !mu_bytes_is(segment, "."));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mu_bytes in = mu_bytes_of((const char *)data, size);
    struct mu_arena a;
    mu_arena_init(&a, 1 << 20);
    mu_bytes path;
    if (mu_url_path(&a, in, &path) == 0) {
        check_path(path);
    }
    mu_bytes plain, again;
    if (mu_url_decode(&a, in, false, &plain) == 0) {
        struct mu_buf b;
        mu_buf_init(&b, 1 << 20);
        mu_url_encode(&b, plain);
        MU_CHECK(mu_url_decode(&a, mu_buf_bytes(&b), true, &again) == 0);
        MU_CHECK(mu_bytes_eq(again, plain));
        mu_buf_fini(&b);
    }
    mu_bytes rest = in, key, value;
    for (int r = 1; r != 0 && r != -ENOMEM;) {
        r = mu_url_query_next(&a, &rest, &key, &value);
        MU_CHECK(r <= 0 || (key.ptr && value.ptr));
    }
    struct mu_url u;
    struct mu_err err;
    if (mu_url_parse(in, &u, &err) == 0) {
        MU_CHECK(u.host.len > 0 && u.port > 0 && u.port <= 65535 && u.path.len > 0);
        MU_CHECK(u.host.ptr > in.ptr && u.host.ptr + u.host.len <= in.ptr + in.len);
    }
    mu_arena_fini(&a);
    return 0;
}
