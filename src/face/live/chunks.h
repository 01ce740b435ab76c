/* Terminal bytes that wait for one connection (village-control-plane.md 8.6): several streams share
 * one budget; what does not fit drops the oldest bytes of all, which shows as a gap by the offsets.
 * Bytes are shared with the events that brought them. Leaves as chunks: text is cut between
 * characters only. Embedded in its owner; lives on one loop. */
#ifndef MU_FACE_LIVE_CHUNKS_H
#define MU_FACE_LIVE_CHUNKS_H

#include "base/list.h"
#include "db/feed.h"

enum {
    MU_CHUNK_MAX = 32 << 10,
    MU_CHUNK_AHEAD = 512 << 10, /* unacknowledged bytes of a reader that acknowledges */
};

/* Of one connection. */
struct mu_chunks {
    struct mu_list all;   /* pieces, the oldest first */
    struct mu_list ready; /* streams with pieces; whose turn it is first */
    size_t bytes, max;
};

/* Of one terminal on it. */
struct mu_chunk_stream {
    struct mu_chunks *of;
    struct mu_list pieces, link;
    size_t bytes;
    int64_t sent;  /* behind the last byte that left; -1: where it begins is no gap */
    int64_t acked; /* what the reader said it has; -1: it never did */
    bool raw;      /* need not be text */
    bool over;     /* nothing follows: half a character does not wait for its rest */
};

struct mu_chunk {
    struct mu_chunk_stream *stream;
    int64_t offset, gap_from; /* gap_from: -1, or the first byte that is missing before it */
    bool text;                /* valid UTF-8 */
    size_t len;
    char bytes[MU_CHUNK_MAX];
};

void mu_chunks_init(struct mu_chunks *c, size_t max);
/* `sent` as above. */
void mu_chunk_stream_init(struct mu_chunk_stream *s, struct mu_chunks *of, int64_t sent, bool raw);
/* Forgets what waits. Harmless on a zeroed one. */
void mu_chunk_stream_fini(struct mu_chunk_stream *s);
/* Queues the bytes of `e` from the offset `from` on (inside it); they lie behind those before.
 * -ENOMEM: left out. */
MU_MUST_USE int mu_chunks_add(struct mu_chunk_stream *s, struct mu_event *e, int64_t from);
/* The next chunk, of whichever stream comes next; only full ones unless `all`. False: none. */
bool mu_chunks_take(struct mu_chunks *c, bool all, struct mu_chunk *ret);
/* The reader has everything before `offset`. */
void mu_chunk_stream_ack(struct mu_chunk_stream *s, int64_t offset);

#endif
