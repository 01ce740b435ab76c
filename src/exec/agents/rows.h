/* The tool rows of a turn, whatever protocol tells of them: bounded in number and in size. */
#ifndef MU_EXEC_AGENTS_ROWS_H
#define MU_EXEC_AGENTS_ROWS_H

#include "proto/jtok.h"

enum {
    MU_ROW_ID_MAX = 512,
    MU_ROWS = 128,          /* rows of a turn that are remembered */
    MU_ROW_TEXT_MAX = 8192, /* of a tool's arguments and of its result that are kept */
    MU_ROW_PATHS = 16,
};

enum mu_acp_tool_status {
    MU_ACP_PENDING,
    MU_ACP_RUNNING,
    MU_ACP_COMPLETED,
    MU_ACP_FAILED,
};
struct mu_acp_tool {
    char id[MU_ROW_ID_MAX];
    char name[128];  /* where the agent says it, else the kind */
    char title[512]; /* cut between characters */
    char kind[16];   /* read edit delete move search execute think fetch other */
    enum mu_acp_tool_status status;
    struct mu_buf args;   /* JSON as it came, or its first part */
    struct mu_buf result; /* text */
    bool args_cut, result_cut;
    struct mu_buf command; /* of an execute: what a shell is given, or its first part */
    bool command_cut;
    char cwd[512]; /* where it says that it runs; "" = it does not */
    bool exited;   /* exit_code was said */
    int exit_code;
    char *paths[MU_ROW_PATHS];
    size_t n_paths;
    uint64_t born, touched; /* counted over all messages about tools */
};

struct mu_rows {
    struct mu_acp_tool **list; /* MU_ROWS */
    size_t n;
    uint64_t touches; /* messages about tools; its owner counts */
};
MU_MUST_USE int mu_rows_init(struct mu_rows *r); /* -ENOMEM */
void mu_rows_fini(struct mu_rows *r);            /* accepts a zeroed one */
void mu_rows_clear(struct mu_rows *r);
/* NULL: there is none. */
struct mu_acp_tool *mu_rows_find(const struct mu_rows *r, const char *id);
/* Made when it is not there: what is over makes room first, then what was silent longest. NULL: no
 * memory. */
struct mu_acp_tool *mu_rows_get(struct mu_rows *r, const char *id);
/* A string value, cut between characters when it is too long; a NUL in it becomes a blank. */
void mu_row_text(const struct mu_jtok *j, int v, struct mu_buf *scratch, char *dst, size_t cap);
/* The first part of `text`, cut between characters. */
void mu_row_keep(struct mu_buf *dst, bool *cut, mu_bytes text);
/* Once each; what is too much is not remembered. */
void mu_row_path(struct mu_acp_tool *t, const char *path);

#endif
