/* Tar archives as engines take and give them: written into a buffer, read as they come (ustar, PAX
 * path/size, GNU long names and base-256 numbers). Pure. */
#ifndef MU_EXEC_ENGINE_TAR_H
#define MU_EXEC_ENGINE_TAR_H

#include "base/buf.h"
#include "base/err.h"

enum { MU_TAR_BLOCK = 512, MU_TAR_NAME = 4096, MU_TAR_META = 64 << 10 };

/* Appends one entry; names are relative, without "..". The owner is root, the time 0, so that equal
 * trees give equal archives. Failure is told by dst->failed. */
void mu_tar_add_file(struct mu_buf *dst, const char *name, unsigned mode, mu_bytes content);
void mu_tar_add_dir(struct mu_buf *dst, const char *name, unsigned mode);
void mu_tar_add_end(struct mu_buf *dst);

struct mu_tar_entry {
    mu_bytes name;
    char type; /* '0' regular file, '5' folder, '2' link, … as in the header */
    unsigned mode;
    int64_t size;
};
struct mu_tar {
    char block[MU_TAR_BLOCK]; /* the header being read */
    size_t have;
    int64_t left, pad;  /* of the entry's content, and behind it */
    char meta;          /* what the content is: 0 a file's, else 'x' 'L' or 'g' */
    struct mu_buf text; /* of a PAX header or long name */
    struct mu_buf name; /* for the next entry; empty = its own */
    int64_t size;       /* for the next entry; -1 = its own */
    unsigned zeros;
    bool done; /* the end of the archive was seen */
    /* A negative return ends the reading with it. The name is valid inside. */
    int (*on_entry)(void *arg, const struct mu_tar_entry *e);
    int (*on_data)(void *arg, mu_bytes piece);
    void *arg;
};

/* Sets everything but the callbacks. */
void mu_tar_init(struct mu_tar *t);
void mu_tar_fini(struct mu_tar *t);
/* Input in any cuts; what follows the end is ignored. MU_E_CORRUPT, MU_E_TOO_LARGE, -ENOMEM or what
 * a callback returned. */
MU_MUST_USE int mu_tar_feed(struct mu_tar *t, mu_bytes in);

#endif
