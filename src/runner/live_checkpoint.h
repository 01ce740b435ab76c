/* Checkpoints of a live session (docs/runner-protocol.md): after each turn what people and agent
 * made is put into git packs that the worker stores, so that the session can go on elsewhere. */
#ifndef MU_RUNNER_LIVE_CHECKPOINT_H
#define MU_RUNNER_LIVE_CHECKPOINT_H

#include <sys/stat.h>

#include "proto/jtok.h"
#include "runner/manifest.h"
#include "runner/shadow.h"
#include "runner/walk.h"

struct mu_live;

enum {
    MU_CK_PART_BYTES = 16 << 20, /* of one file */
    MU_CK_BYTES = 512 << 20,     /* of one checkpoint */
    MU_CK_PARTS = 128,
    MU_CK_LINKS = 20, /* of a chain */
    MU_CK_PACKS =
        40, /* of a folder of ours: more are there when links of a chain were not stored */
    MU_CK_ROOTS = MU_WALK_REPOS + 2,
    MU_CK_BRANCH = 256,
};

enum mu_ck_kind { MU_CK_CHECKOUT, MU_CK_WORKSPACE, MU_CK_HOME };

/* What a file was like when it was read. */
struct mu_ck_stamp {
    ino_t ino;
    off_t size;
    struct timespec mtime, ctime;
};
struct mu_ck_state {
    char commit[MU_OBJECT_ID], tree[MU_OBJECT_ID];
    char staged[MU_OBJECT_ID]; /* the index's tree; "" = as HEAD's, or it has none */
    char head[MU_OBJECT_ID], branch[MU_CK_BRANCH];
};
struct mu_ck_root {
    enum mu_ck_kind kind;
    char *dir; /* below the workspace */
    char place[16];
    char base[MU_OBJECT_ID]; /* a commit that everybody can fetch; "" = none */
    struct mu_ck_state last, now;
    bool here;      /* part of what is made now */
    unsigned parts; /* of it */
    /* borders of its history, where that is packed */
    char shallow[MU_MANIFEST_SHALLOW][MU_OBJECT_ID];
    size_t n_shallow;
    unsigned order; /* among those that are here: the packs lie in it */
    /* what needs no git when it is as before */
    struct mu_ck_stamp index, real;
    char index_tree[MU_OBJECT_ID], real_tree[MU_OBJECT_ID];
    uint64_t print;
    /* The number of the last one whose pack has all of it, stored or not: older packs are of no
     * use, since what follows one that was not stored has all of it, too. */
    int64_t whole;
    unsigned packs; /* since then */
};
struct mu_ck_part {
    char name[64];
    int64_t bytes;
    char sha256[65];
};

struct mu_ck {
    struct mu_live *v;
    bool on, no_git;
    struct mu_ck_root roots[MU_CK_ROOTS];
    size_t n_roots;
    int64_t since_s;    /* of the home's files */
    struct stat folder; /* .oz/checkpoint as we made it */
    int dir, out;       /* it, and out/ in it; -1 */
    unsigned places, taken;
    char why[500];
    /* the chain as the server has it */
    int64_t prev; /* 0 = none */
    unsigned links;
    int64_t first_bytes, chain_bytes;
    /* the one that is made, or sent */
    int64_t number, began_ms, deadline, duration_ms;
    int64_t from; /* the one that it goes on from; 0: it has everything */
    bool changed, sending;
    char turn[64];
    struct mu_ck_part parts[MU_CK_PARTS];
    unsigned n_parts, at_part;
    int64_t bytes;
    int64_t put;     /* id of the question to the worker; 0 = none is open */
    uint64_t put_on; /* the connection it was asked on */
    int64_t puts;
    bool wanted; /* a turn is over */
    int64_t wanted_ms;
    int64_t typed_ms; /* somebody typed for the first time since the last one; 0 = nobody did */
    char wanted_turn[64];
    /* what to clear away next, when there is time: a root, and which part of it */
    bool untidy;
    size_t tidy_root;
    unsigned tidy_at;
};

/* live_checkpoint_take.c: packs what is changed since c->prev (everything when `full`) into
 * c->parts. 0, else a status, worded in c->why. */
int mu_ck_take(struct mu_ck *c, bool full);
/* What was taken is what the next one is compared with. */
void mu_ck_settle(struct mu_ck *c);
/* Forgets everything that was taken before. */
void mu_ck_forget(struct mu_ck *c);
void mu_ck_close(struct mu_ck *c);
const char *mu_ck_kind_name(enum mu_ck_kind kind);
int mu_ck_fail(struct mu_ck *c, int status, const char *fmt, ...) MU_PRINTF(3, 4);
int mu_ck_git_failed(struct mu_ck *c, const struct mu_shadow *s, const char *what, int status);

/* live_checkpoint_pack.c: one pack of what the root's commit has and the checkpoint before has not,
 * into our folder and as parts. 0, else a status. */
int mu_ck_pack(struct mu_ck *c, struct mu_ck_root *root, struct mu_shadow *s);
/* Of what was taken all is in packs of ours: other objects, and packs that are not needed any more,
 * go, for some milliseconds at a time. */
void mu_ck_tidy(struct mu_ck *c);

/* live_checkpoint.c */
int mu_checkpoint_new(struct mu_live *v, struct mu_ck **ret);
struct mu_ck *mu_checkpoint_free(struct mu_ck *c);
void mu_checkpoint_ready(struct mu_live *v); /* the agent is about to begin */
void mu_checkpoint_turn_over(struct mu_live *v, const char *turn);
/* Somebody did something in a terminal that is no turn. */
void mu_checkpoint_typed(struct mu_live *v);
/* The next one is to be taken then (monotonic ms); 0 = nothing asks for one. */
int64_t mu_checkpoint_at(const struct mu_live *v);
/* Something is left to do for work(). */
bool mu_checkpoint_due(const struct mu_live *v);
/* Nothing asks for one, and some of what the last ones left can be cleared away by mu_ck_tidy(). */
bool mu_checkpoint_untidy(const struct mu_live *v);
void mu_checkpoint_take(struct mu_live *v);
/* One now, whatever is going on; its number, 0: there is none. */
int64_t mu_checkpoint_now(struct mu_live *v);
/* The last one, before the agent ends; waits until it is stored, or for too long. */
void mu_checkpoint_last(struct mu_live *v);
/* Sends what can be sent. */
void mu_checkpoint_serve(struct mu_live *v);
void mu_checkpoint_answer(struct mu_live *v, const struct mu_jtok *j);
/* What became of one that the server was told of; when it does not have it, the next is a full one.
 */
void mu_checkpoint_told(struct mu_live *v, const struct mu_jtok *j);

#endif
