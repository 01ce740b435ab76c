/* The stream that an engine answers a pull with: JSON objects one after another. A pull that failed
 * half way says so in an object of a 200 answer. Pure. */
#ifndef MU_EXEC_ENGINE_PULL_H
#define MU_EXEC_ENGINE_PULL_H

#include "base/buf.h"
#include "base/err.h"

enum { MU_PULL_OBJECT = 64 << 10, MU_PULL_TEXT = 300 };

struct mu_pull {
    struct mu_buf object; /* the one being read */
    unsigned depth;
    bool in_string, escaped;
    bool failed;              /* the engine told an error: */
    char error[MU_PULL_TEXT]; /* the first one */
    char status[MU_PULL_TEXT];
    void (*on_status)(void *arg, const char *status); /* "Downloading 10 MB/40 MB"; may be NULL */
    void *arg;
};

void mu_pull_init(struct mu_pull *p, void (*on_status)(void *arg, const char *status), void *arg);
void mu_pull_fini(struct mu_pull *p);
/* Input in any cuts. MU_E_PROTOCOL (not objects), MU_E_TOO_LARGE (one of them), -ENOMEM. */
MU_MUST_USE int mu_pull_feed(struct mu_pull *p, mu_bytes in);
/* MU_E_PROTOCOL when an object is open. */
MU_MUST_USE int mu_pull_end(const struct mu_pull *p);

/* Puts text of outside on one line: control bytes become blanks, invalid UTF-8 is replaced, the end
 * is cut to the room. */
void mu_engine_text(char *dst, size_t room, mu_bytes text);

#endif
