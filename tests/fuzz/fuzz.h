#ifndef FUZZ_FUZZ_H
#define FUZZ_FUZZ_H
#include "base/buf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline mu_bytes fuzz_bytes(const uint8_t *data, size_t size)
{
    return mu_bytes_of((const char *)data, size);
}
/* Takes the first byte off the input, 0 at its end. */
static inline unsigned fuzz_byte(mu_bytes *in)
{
    unsigned c = in->len ? (unsigned char)in->ptr[0] : 0;
    *in = mu_bytes_from(*in, 1);
    return c;
}
/* The next piece of irregular length, from a small generator so that the input itself stays whole.
 */
static inline mu_bytes fuzz_piece(mu_bytes *rest, unsigned *seed)
{
    *seed = *seed * 1103515245 + 12345;
    mu_bytes piece = mu_bytes_head(*rest, 1 + (*seed >> 16) % 23);
    *rest = mu_bytes_from(*rest, piece.len);
    return piece;
}
#endif
