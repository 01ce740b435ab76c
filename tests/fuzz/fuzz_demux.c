/* Log frames give the same bytes however they are cut. */
#include "exec/engine/demux.h"
#include "fuzz.h"

static void on_piece(void *arg, unsigned stream, mu_bytes piece)
{
    MU_CHECK(stream <= 3 && piece.len > 0);
    mu_buf_add(arg, piece);
}

static int read_frames(mu_bytes in, unsigned seed, struct mu_buf *out)
{
    struct mu_demux d;
    int r = 0;
    mu_demux_init(&d, on_piece, out);
    while (in.len && r == 0) {
        mu_bytes piece = seed ? fuzz_piece(&in, &seed) : in;
        in = seed ? in : MU_B_NONE;
        r = mu_demux_feed(&d, piece);
    }
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mu_buf whole, cut;
    mu_buf_init(&whole, 64 << 20);
    mu_buf_init(&cut, 64 << 20);
    int a = read_frames(fuzz_bytes(data, size), 0, &whole);
    int b = read_frames(fuzz_bytes(data, size), (unsigned)size + 1, &cut);
    MU_CHECK(a == b && (a == 0 || a == MU_E_PROTOCOL));
    MU_CHECK(mu_bytes_eq(mu_buf_bytes(&whole), mu_buf_bytes(&cut)));
    mu_buf_fini(&whole);
    mu_buf_fini(&cut);
    return 0;
}
