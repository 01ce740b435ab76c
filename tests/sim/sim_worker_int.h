/* Shared by sim_worker.c and sim_beat.c. */
#ifndef SIM_WORKER_INT_H
#define SIM_WORKER_INT_H

#include "sim.h"

enum { SIM_EXECS = 256, SIM_BEAT_MS = 1500 };

enum phase { X_PREPARING, X_STARTING, X_RUNNING, X_STOPPING, X_OVER, X_GONE };

struct exec {
    struct sim_worker *w;
    struct mu_execution of;
    char token[MU_RUN_TOKEN_LEN + 1];
    enum phase phase;
    bool sandbox; /* something executes */
    bool acts;    /* and is counted as that */
    bool muted, cancelled, held, failed, refused /* its runner was told that it is over */;
    bool end, end_sent;
    int told;
    int64_t exit_code, seq, told_seq, acked_seq, end_seq, lease_ms, started_at, written, due;
    int beats_left;
    struct sim_runner *runner; /* of a live session */
    bool frozen;
    struct mu_reply reply;
    bool replying;
};

struct sim_worker {
    unsigned number;
    char name[24], instance[40];
    bool native, frail, alive, up /* said hello and was welcomed */, draining;
    unsigned process;
    int64_t capacity, offers, heard;
    struct sim_link *link;
    struct exec *execs[SIM_EXECS];
    unsigned n_execs;
};

/* Bytes `from` to `to` of what an execution writes. */
char *sim_text_of(const struct exec *x, int64_t from, int64_t to);
/* What runs in the sandbox speaks for itself, every now and then; begins with the assignment. */
void sim_beat(void *exec);

#endif
