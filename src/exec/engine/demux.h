/* The framing of container logs without a terminal: 8 bytes of head (stream, three zeros, length
 * big-endian), then so many bytes. Pure. */
#ifndef MU_EXEC_ENGINE_DEMUX_H
#define MU_EXEC_ENGINE_DEMUX_H

#include "base/bytes.h"
#include "base/err.h"

struct mu_demux {
    unsigned char head[8];
    size_t have;
    uint32_t left;
    unsigned stream; /* 0 stdin, 1 stdout, 2 stderr, 3 the engine's own words */
    void (*on_piece)(void *arg, unsigned stream, mu_bytes piece);
    void *arg;
};

void mu_demux_init(struct mu_demux *d, void (*on_piece)(void *arg, unsigned stream, mu_bytes piece),
                   void *arg);
/* Input in any cuts. MU_E_PROTOCOL when what should be a head is none. */
MU_MUST_USE int mu_demux_feed(struct mu_demux *d, mu_bytes in);
/* Whether the stream may end here. */
static inline bool mu_demux_at_border(const struct mu_demux *d)
{
    return d->have == 0 && d->left == 0;
}

#endif
