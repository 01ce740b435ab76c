/* A directory that is removed at the end of the test. */
#ifndef TEST_DB_TMP_DIR_H
#define TEST_DB_TMP_DIR_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tmp_dir {
    char path[32], db[48];
};

static inline void tmp_make(struct tmp_dir *t)
{
    snprintf(t->path, sizeof t->path, "/tmp/mu-db-XXXXXX");
    if (!mkdtemp(t->path)) {
        abort();
    }
    snprintf(t->db, sizeof t->db, "%s/m.db", t->path);
}

static inline int tmp_remove_entry(const char *path, const struct stat *st, int flag,
                                   struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static inline void tmp_drop(struct tmp_dir *t)
{
    nftw(t->path, tmp_remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
