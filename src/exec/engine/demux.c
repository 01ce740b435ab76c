#include "exec/engine/demux.h"

void mu_demux_init(struct mu_demux *d, void (*on_piece)(void *arg, unsigned stream, mu_bytes piece),
                   void *arg)
{
    *d = (struct mu_demux){.on_piece = on_piece, .arg = arg};
}

static int head_done(struct mu_demux *d)
{
    const unsigned char *h = d->head;
    if (h[0] > 3 || h[1] || h[2] || h[3]) {
        return MU_E_PROTOCOL;
    }
    d->stream = h[0];
    d->left = (uint32_t)h[4] << 24 | (uint32_t)h[5] << 16 | (uint32_t)h[6] << 8 | h[7];
    d->have = 0;
    return 0;
}

int mu_demux_feed(struct mu_demux *d, mu_bytes in)
{
    while (in.len) {
        if (d->left == 0) {
            size_t n = MU_MIN(in.len, sizeof d->head - d->have);
            memcpy(d->head + d->have, in.ptr, n);
            d->have += n;
            in = mu_bytes_from(in, n);
            if (d->have == sizeof d->head && head_done(d) < 0) {
                return MU_E_PROTOCOL;
            }
            continue;
        }
        mu_bytes piece = mu_bytes_head(in, d->left);
        d->left -= (uint32_t)piece.len;
        in = mu_bytes_from(in, piece.len);
        d->on_piece(d->arg, d->stream, piece);
    }
    return 0;
}
