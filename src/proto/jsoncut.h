/* A filter in front of the JSON parser for messages that are much larger than what is kept of them:
 * text goes in as it arrives, and comes out with over-long strings cut to their beginning and white
 * space left out. The whole of a long string can be had decoded, piece by piece. Pure; takes no
 * memory but the output's. */
#ifndef MU_PROTO_JSONCUT_H
#define MU_PROTO_JSONCUT_H

#include "base/buf.h"

enum { MU_JSONCUT_DEPTH = 64, MU_JSONCUT_KEY = 31, MU_JSONCUT_PIECE = 2048 };

struct mu_jsoncut {
    struct mu_buf *out; /* the caller's: its maximum bounds what is kept */
    size_t max_string;  /* bytes of a string, as it is written, that stay */
    /* Of a value that is cut: its decoded text from the beginning, in pieces. `key` is the member's
     * name as it is written ("" inside arrays or when it is longer than MU_JSONCUT_KEY), `depth`
     * the number of containers around it. Nothing is told of cut keys. A code < 0 ends the filter.
     */
    int (*piece)(void *arg, mu_bytes key, unsigned depth, mu_bytes text, bool first);
    void *arg;
    /* own */
    unsigned depth;
    uint64_t is_object; /* a bit for each open container */
    bool want_key, in_string, is_key, cut, told;
    unsigned escape;     /* 0 none, 1 behind the backslash, 2..5 digits of \u */
    unsigned unit, high; /* of a \u escape; the first half of a pair */
    unsigned utf8;       /* bytes missing of a character */
    size_t begin;        /* of the string in `out` */
    size_t key_len, dec_len;
    int failed;
    char key[MU_JSONCUT_KEY + 1];
    char dec[MU_JSONCUT_PIECE];
};

/* `piece` may be NULL. */
void mu_jsoncut_init(struct mu_jsoncut *c, struct mu_buf *out, size_t max_string,
                     int (*piece)(void *arg, mu_bytes key, unsigned depth, mu_bytes text,
                                  bool first),
                     void *arg);
/* 0; MU_E_INVALID (no JSON), MU_E_TOO_LARGE (the output's maximum), -ENOMEM, what piece() returned:
 * then for good. That the text is JSON at all is found out by parsing the output. */
MU_MUST_USE int mu_jsoncut_feed(struct mu_jsoncut *c, mu_bytes text);

#endif
