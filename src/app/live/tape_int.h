/* The files of one session's recordings. Blocking; one thread at a time. */
#ifndef MU_APP_LIVE_TAPE_INT_H
#define MU_APP_LIVE_TAPE_INT_H

#include "app/live/recorder_int.h"

enum { MU_TAPE_HEAD = 32, MU_TAPE_PIECE = 4 << 20, MU_TAPE_PIECES = 64, MU_TAPE_BYTES = 64 << 10 };

struct mu_tape {
    const char *dir;
    char name[MU_ID_LEN + 1];
    int64_t max_bytes;
    int fd; /* of the folder; -1 = not open */
    struct {
        int fd; /* of the piece that is written; -1 = none */
        int64_t size;
    } out[8];
};

void mu_tape_init(struct mu_tape *t, const char *dir, const struct mu_id *session,
                  int64_t max_bytes);
void mu_tape_close(struct mu_tape *t);
/* Appends a record to `dst`. */
void mu_tape_record(struct mu_buf *dst, unsigned terminal, int64_t epoch, int64_t ms, int64_t base,
                    int64_t offset, mu_bytes bytes);
/* Writes records; what the disk refuses is left out. */
void mu_tape_write(struct mu_tape *t, mu_bytes records);
/* What is kept of a terminal; `base` of the attempt `epoch`. */
void mu_tape_range(struct mu_tape *t, unsigned terminal, int64_t epoch, struct mu_recorded *ret);
/* As mu_recorder_read(). 0, -errno, -ENOMEM. */
MU_MUST_USE int mu_tape_read(struct mu_tape *t, unsigned terminal, int64_t from, size_t limit,
                             int64_t *ret_begin, struct mu_buf *ret);

#endif
