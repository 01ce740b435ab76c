/* Recordings: what terminals showed, in files of 4 MiB a piece below <recordings_dir>/<session>/,
 * so that old bytes can go and the rest stays. Written and read by jobs of the work pool, one at a
 * time for each session. A file "<terminal>-<offset in 16 hex digits>.rec" holds records: length,
 * epoch (4 bytes each), time in ms, offset, base of the attempt (8 bytes each), then the bytes. All
 * big-endian. */
#ifndef MU_APP_LIVE_RECORDER_INT_H
#define MU_APP_LIVE_RECORDER_INT_H

#include "app/live/live.h"

struct mu_recorder;
struct mu_live;

MU_MUST_USE int mu_recorder_new(struct mu_live *l, struct mu_recorder **ret);
/* What is queued is written; then stopped() on the core loop. */
void mu_recorder_stop(struct mu_recorder *r, void (*stopped)(void *arg), void *arg);
/* Before the loops are freed. */
void mu_recorder_end(struct mu_recorder *r);
struct mu_recorder *mu_recorder_free(struct mu_recorder *r);

struct mu_recorded {
    int64_t oldest, newest; /* of the terminal; 0,0 = nothing */
    int64_t base;           /* of the attempt `epoch`; -1 = nothing of it is kept */
};
/* Core loop: bytes of a terminal, taken over. What the disk does not take in time is left out. */
void mu_recorder_add(struct mu_recorder *r, const struct mu_id *session, unsigned terminal,
                     int64_t epoch, int64_t base, int64_t offset, mu_bytes bytes);
/* What is recorded of a session's terminals, after all that was added before. */
struct mu_recorder_look {
    struct mu_job job;
    struct mu_list link;
    struct mu_recorder *r;
    struct mu_id session;
    int64_t epoch;
    struct mu_recorded terminals[8];
    void (*done)(struct mu_recorder_look *op); /* core loop */
    void *ctx;
};
void mu_recorder_look(struct mu_recorder *r, struct mu_recorder_look *op);
/* Blocking; a work pool thread. The bytes from `from` on, at most `limit`, without a hole. */
struct mu_recorder_read {
    struct mu_job job;
    struct mu_list link;
    struct mu_recorder *r;
    struct mu_id session;
    unsigned terminal;
    int64_t from;
    size_t limit;
    struct mu_recorded range;
    int64_t begin;
    struct mu_buf *bytes;
    int result;
    void (*done)(struct mu_recorder_read *op); /* core loop */
    void *ctx;
};
void mu_recorder_read(struct mu_recorder *r, struct mu_recorder_read *op);

#endif
