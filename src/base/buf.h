/* A growable byte buffer with a stated maximum. An append that fails sets `failed` and every later
 * one does nothing, so a writer checks once at the end. One thread at a time. What is appended must
 * not lie in the buffer itself: growing may move it. */
#ifndef MU_BASE_BUF_H
#define MU_BASE_BUF_H

#include "base/bytes.h"

struct mu_buf {
    char *ptr;
    size_t len, cap, max;
    int failed; /* 0, -ENOMEM or MU_E_TOO_LARGE */
};

/* Takes no memory yet. */
void mu_buf_init(struct mu_buf *b, size_t max_bytes);
void mu_buf_fini(struct mu_buf *b);
/* Overwrites the content before it is released: for secrets. Only what was added in one piece, or
 * after enough mu_buf_room(), leaves no copy behind, since growing moves it. */
void mu_buf_wipe(struct mu_buf *b);
/* Keeps the memory, forgets the content and the failure. */
void mu_buf_clear(struct mu_buf *b);
void mu_buf_add(struct mu_buf *b, mu_bytes data);
void mu_buf_add_char(struct mu_buf *b, char c);
void mu_buf_add_i64(struct mu_buf *b, int64_t v);
void mu_buf_printf(struct mu_buf *b, const char *fmt, ...) MU_PRINTF(2, 3);
/* Room for at least `n` (1 or more) bytes behind len, valid until the next call, or NULL; add what
 * was written to b->len. */
char *mu_buf_room(struct mu_buf *b, size_t n);
/* Drops the first n bytes. */
void mu_buf_consume(struct mu_buf *b, size_t n);
static inline void mu_buf_add_str(struct mu_buf *b, const char *s)
{
    mu_buf_add(b, mu_str(s));
}
static inline mu_bytes mu_buf_bytes(const struct mu_buf *b)
{
    return mu_bytes_of(b->ptr, b->len);
}

#endif
