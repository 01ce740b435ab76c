/* Typed option tables: one row a setting. The configuration (main/config.h) is such a table;
 * `muster config`, the generated documentation and the parser read the same rows
 * (architecture.md 8.4). */
#ifndef MU_BASE_OPTION_H
#define MU_BASE_OPTION_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

enum mu_option_type {
    MU_OPT_TEXT,   /* const char * (NULL = unset) */
    MU_OPT_SECRET, /* const char *, shown as "set" or "unset" only */
    MU_OPT_FLAG,   /* bool: 1 true yes on / 0 false no off, any case */
    MU_OPT_INT,    /* int64_t */
    MU_OPT_REAL,   /* double */
    MU_OPT_ENUM,   /* const char *, one of the words in `words` */
};

struct mu_option {
    const char *name;  /* the variable: "OZ_CONTROL_PLANE_PORT" */
    const char *alias; /* other names, separated by blanks, or NULL; read when the name itself is
                          not given */
    enum mu_option_type type;
    size_t offset;        /* of the field in the configuration struct */
    const char *fallback; /* default as text; NULL = unset */
    int64_t min, max;     /* of INT and REAL; min == max == 0: any */
    const char *words;    /* of ENUM, separated by blanks */
    const char *unit;     /* "ms", "bytes", …; "" when there is none */
    const char *help;     /* one sentence */
    bool reload;          /* takes effect on SIGHUP */
};

/* Parses `value` and stores it in `dst` (the configuration struct). Text is copied into the arena.
 * MU_E_INVALID with words that name the option and what would be accepted. */
MU_MUST_USE int mu_option_set(const struct mu_option *o, mu_bytes value, void *dst,
                              struct mu_arena *arena, struct mu_err *err);
/* All defaults of a table. */
MU_MUST_USE int mu_option_defaults(const struct mu_option *table, size_t n, void *dst,
                                   struct mu_arena *arena, struct mu_err *err);
/* The row for a name or an alias; NULL when there is none. */
const struct mu_option *mu_option_find(const struct mu_option *table, size_t n, mu_bytes name);
/* Appends the present value as text; secrets masked. */
void mu_option_show(const struct mu_option *o, const void *src, struct mu_buf *dst);

#endif
