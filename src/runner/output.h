/* The file with an agent's output: all of it while it is short, else its first and its last part
 * with a line between that says how much is missing (oz-worker.md 14.3). Readable at any time. */
#ifndef MU_RUNNER_OUTPUT_H
#define MU_RUNNER_OUTPUT_H

#include "base/clip.h"

enum {
    MU_OUTPUT_MARK = 64, /* the line between, always so long */
    MU_OUTPUT_SLACK =
        3, /* so many times the last part more, before the file is cut: that moves it */
};

struct mu_output {
    int fd; /* owned; read and write */
    int64_t head, tail;
    int64_t total; /* bytes given */
    int64_t len;   /* of the file */
    bool cut;      /* the line is there */
    int failed;    /* first error of the file system; what comes later is dropped */
};

/* Takes an empty file. */
void mu_output_init(struct mu_output *o, int fd, int64_t head, int64_t tail);
void mu_output_add(struct mu_output *o, mu_bytes piece);
/* Makes it the exact form. */
void mu_output_end(struct mu_output *o);
void mu_output_fini(struct mu_output *o);

#endif
