#ifndef MU_EXEC_AGENTS_OPENCODE_INT_H
#define MU_EXEC_AGENTS_OPENCODE_INT_H

#include "exec/agents/opencode.h"
#include "proto/json_write.h"

enum { MU_OC_RAW_MAX = 1 << 20, MU_OC_ANSWER_MAX = 64 << 10 };

/* A permission, or one question of a request that may have several. */
struct mu_oc_open {
    unsigned handle;
    char id[MU_OC_ID_MAX]; /* of the request */
    bool question, told, answered;
    struct mu_buf raw;    /* held until its tool is known: the request as it came */
    struct mu_buf answer; /* a list of texts, JSON */
    int64_t since;        /* held since; 0 = no tick was seen */
};

struct mu_oc_message {
    char id[MU_OC_ID_MAX];
    uint64_t turn;
    bool user;
};

enum mu_oc_part_kind { MU_OC_TEXT, MU_OC_THOUGHT, MU_OC_STEP };
struct mu_oc_part {
    char id[MU_OC_ID_MAX];
    enum mu_oc_part_kind kind;
    size_t sent; /* bytes of its text that were handed on */
};

/* opencode.c */
int mu_oc_break(struct mu_oc *o, int code, const char *fmt, ...) MU_PRINTF(3, 4);
/* A request; breaks when it cannot be taken. */
int mu_oc_call(struct mu_oc *o, enum mu_oc_call call, const char *method, mu_bytes body,
               const char *fmt, ...) MU_PRINTF(5, 6);
/* An id as it may stand in a path. */
bool mu_oc_id(const struct mu_jtok *j, int v, char ret[MU_OC_ID_MAX]);
/* A string value, cut between characters when it is too long. */
void mu_oc_copy(struct mu_oc *o, int v, char *dst, size_t cap);
/* The words of an error object. */
void mu_oc_error(struct mu_oc *o, int error, char *dst, size_t cap);
int mu_oc_ask_status(struct mu_oc *o);

/* opencode_part.c: what o->json has at these values. */
void mu_oc_message(struct mu_oc *o, int info);
int mu_oc_part(struct mu_oc *o, int part);
int mu_oc_delta(struct mu_oc *o, int properties);
const char *mu_oc_kind(mu_bytes tool);
/* An absolute path. */
void mu_oc_add_path(struct mu_oc *o, struct mu_acp_tool *t, int v);

/* opencode_ask.c */
int mu_oc_asked(struct mu_oc *o, int properties, bool question);
/* permission.replied, question.replied, question.rejected */
void mu_oc_settled(struct mu_oc *o, int properties);
/* Those that are not in this list of pending requests are gone. */
int mu_oc_pending(struct mu_oc *o, int list, bool question);
/* Hands on what was held until now. */
int mu_oc_release(struct mu_oc *o, bool all);
void mu_oc_drop_all(struct mu_oc *o, bool tell);

#endif
