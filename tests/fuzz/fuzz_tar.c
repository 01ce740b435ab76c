/* Archives give the same entries however they are cut, and no entry more content than it said. */
#include "exec/engine/tar.h"
#include "fuzz.h"

struct got {
    struct mu_buf log;
    int64_t left;
};

static int on_entry(void *arg, const struct mu_tar_entry *e)
{
    struct got *g = arg;
    MU_CHECK(e->name.len <= MU_TAR_NAME && e->size >= 0 && e->mode <= 07777u);
    g->left = e->type == '0' ? e->size : INT64_MAX;
    mu_buf_printf(&g->log, "[%c %o %lld]", e->type, e->mode, (long long)e->size);
    mu_buf_add(&g->log, e->name);
    return 0;
}

static int on_data(void *arg, mu_bytes piece)
{
    struct got *g = arg;
    g->left -= (int64_t)piece.len;
    MU_CHECK(g->left >= 0);
    mu_buf_add(&g->log, piece);
    return 0;
}

static int read_tar(mu_bytes in, unsigned seed, struct got *g)
{
    struct mu_tar t;
    int r = 0;
    mu_tar_init(&t);
    t.on_entry = on_entry;
    t.on_data = on_data;
    t.arg = g;
    while (in.len && r == 0) {
        mu_bytes piece = seed ? fuzz_piece(&in, &seed) : in;
        in = seed ? in : MU_B_NONE;
        r = mu_tar_feed(&t, piece);
    }
    mu_tar_fini(&t);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct got whole = {.left = 0}, cut = {.left = 0};
    mu_buf_init(&whole.log, 64 << 20);
    mu_buf_init(&cut.log, 64 << 20);
    int a = read_tar(fuzz_bytes(data, size), 0, &whole);
    int b = read_tar(fuzz_bytes(data, size), (unsigned)size + 1, &cut);
    MU_CHECK(a == b && (a == 0 || a == MU_E_CORRUPT || a == MU_E_TOO_LARGE));
    MU_CHECK(mu_bytes_eq(mu_buf_bytes(&whole.log), mu_buf_bytes(&cut.log)));
    mu_buf_fini(&whole.log);
    mu_buf_fini(&cut.log);
    return 0;
}
