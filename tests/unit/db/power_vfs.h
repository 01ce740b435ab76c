/* A disk whose power can be cut. Below SQLite's own file layer everything works as ever (the real
 * files are what the running system sees), but for each file it also keeps what a disk would have
 * after a power loss: the content at the last xSync, and the list of writes and truncations since.
 * After the cut every call fails; power_back() then puts the files into a state that a power loss
 * may leave: each unsynced change is there, not there or torn, whatever its order, and what was not
 * synced with its directory may be missing or, when it was deleted, be back. The index in shared
 * memory is gone. Only what SQLite counts on holds: a write does not touch the bytes beside it. */
#ifndef TEST_DB_POWER_VFS_H
#define TEST_DB_POWER_VFS_H

#include <pthread.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { POWER_FILES = 4, POWER_SECTOR = 512, POWER_PATH = 96 };

/* What a cut may wait for: the n-th of these operations. */
enum power_kind { POWER_LOG = 1, POWER_MAIN = 2, POWER_SYNC = 4, POWER_ENTRY = 8, POWER_ANY = 15 };

enum power_loss { POWER_DROP_ALL, POWER_KEEP_PREFIX, POWER_KEEP_SOME, POWER_LOSSES };

struct power_change {
    struct power_change *next;
    sqlite3_int64 at;
    int n; /* bytes; -1 = truncation to `at` */
    char data[];
};

struct power_inode {
    char path[POWER_PATH];
    bool used, there; /* known; exists for the running system */
    bool linked;      /* its directory entry is on the disk */
    char *image;      /* the content on the disk */
    size_t size, room;
    struct power_change *first, **end;
};

static struct {
    pthread_mutex_t lock;
    struct power_inode files[POWER_FILES];
    bool off, lying; /* lying: a sync says yes and does nothing */
    int wait_for, left;
    unsigned seed;
    bool main_pending;     /* the cut fell into a checkpoint */
    long changes, dropped; /* unsynced changes met by cuts, and how many of them went */
} power = {.lock = PTHREAD_MUTEX_INITIALIZER};

struct power_file {
    sqlite3_file base;
    struct power_inode *inode; /* NULL: a temporary file */
    sqlite3_file *real;
};

#define POWER_REAL(f)  (((struct power_file *)(f))->real)
#define POWER_INODE(f) (((struct power_file *)(f))->inode)

static inline unsigned power_dice(unsigned n)
{
    return (unsigned)rand_r(&power.seed) % n;
}

static inline bool power_ends(const char *path, const char *end)
{
    size_t n = strlen(path), m = strlen(end);
    return n >= m && strcmp(path + n - m, end) == 0;
}

static inline bool power_is_main(const struct power_inode *i)
{
    return !power_ends(i->path, "-wal") && !power_ends(i->path, "-journal");
}

/* --- the disk's side; with the lock --- */

static inline void power_put(struct power_inode *i, sqlite3_int64 at, const void *data, size_t n)
{
    size_t end = (size_t)at + n;
    if (end > i->room) {
        i->room = end * 2;
        i->image = realloc(i->image, i->room);
        if (!i->image) {
            abort();
        }
    }
    if (end > i->size) {
        memset(i->image + i->size, 0, end - i->size);
        i->size = end;
    }
    if (n) {
        memcpy(i->image + at, data, n);
    }
}

static inline void power_apply(struct power_inode *i, const struct power_change *c, size_t n)
{
    if (c->n >= 0) {
        power_put(i, c->at, c->data, n);
    } else if ((size_t)c->at < i->size) {
        i->size = (size_t)c->at;
    } else {
        power_put(i, c->at, "", 0);
    }
}

static inline void power_add(struct power_inode *i, sqlite3_int64 at, const void *data, int n)
{
    struct power_change *c = malloc(sizeof *c + (size_t)(n < 0 ? 0 : n));
    if (!c) {
        abort();
    }
    *c = (struct power_change){.at = at, .n = n};
    if (n > 0) {
        memcpy(c->data, data, (size_t)n);
    }
    *i->end = c;
    i->end = &c->next;
}

static inline void power_forget(struct power_inode *i)
{
    for (struct power_change *c = i->first, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    i->first = NULL;
    i->end = &i->first;
}

static inline void power_vanish(struct power_inode *i)
{
    power_forget(i);
    free(i->image);
    i->image = NULL;
    i->size = i->room = 0;
    i->there = i->linked = false;
}

/* A directory is synced as a whole: what was made is there, what was deleted is gone. */
static inline void power_sync_entries(void)
{
    for (struct power_inode *i = power.files; i < power.files + POWER_FILES; i++) {
        if (i->used && i->there) {
            i->linked = true;
        } else if (i->used) {
            power_vanish(i);
        }
    }
}

static inline void power_sync_inode(struct power_inode *i)
{
    for (const struct power_change *c = i->first; c; c = c->next) {
        power_apply(i, c, (size_t)(c->n < 0 ? 0 : c->n));
    }
    power_forget(i);
    /* As SQLite's file layer does it: the first sync of a log or journal syncs its directory too.
     */
    if (!i->linked && !power_is_main(i)) {
        power_sync_entries();
    }
}

static inline struct power_inode *power_inode(const char *path, bool make)
{
    struct power_inode *unused = NULL;
    for (struct power_inode *i = power.files; i < power.files + POWER_FILES; i++) {
        if (i->used && strcmp(i->path, path) == 0) {
            return i;
        }
        unused = i->used || unused ? unused : i;
    }
    if (!make) {
        return NULL;
    }
    if (!unused || strlen(path) >= POWER_PATH) {
        abort();
    }
    memset(unused, 0, sizeof *unused);
    snprintf(unused->path, sizeof unused->path, "%s", path);
    unused->end = &unused->first;
    unused->used = true;
    return unused;
}

static inline void power_go_off(void)
{
    power.off = true;
    for (struct power_inode *i = power.files; i < power.files + POWER_FILES; i++) {
        power.main_pending = power.main_pending || (i->first && power_is_main(i));
    }
}

/* Counts an operation; true if the power goes with it. */
static inline bool power_tick(enum power_kind kind)
{
    if (!(power.wait_for & (int)kind) || --power.left > 0) {
        return false;
    }
    power.wait_for = 0;
    power_go_off();
    return true;
}

static inline enum power_kind power_kind_of(const struct power_inode *i)
{
    return power_is_main(i) ? POWER_MAIN : POWER_LOG;
}

/* --- SQLite's side --- */

static int power_close(sqlite3_file *f)
{
    return POWER_REAL(f)->pMethods ? POWER_REAL(f)->pMethods->xClose(POWER_REAL(f)) : SQLITE_OK;
}
static int power_read(sqlite3_file *f, void *p, int n, sqlite3_int64 at)
{
    pthread_mutex_lock(&power.lock);
    bool off = power.off;
    pthread_mutex_unlock(&power.lock);
    return off ? SQLITE_IOERR_READ : POWER_REAL(f)->pMethods->xRead(POWER_REAL(f), p, n, at);
}
static int power_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 at)
{
    struct power_inode *i = POWER_INODE(f);
    if (!i) {
        return POWER_REAL(f)->pMethods->xWrite(POWER_REAL(f), p, n, at);
    }
    pthread_mutex_lock(&power.lock);
    int rc = SQLITE_IOERR_WRITE;
    if (!power.off) {
        power_add(i, at, p, n);
        if (!power_tick(power_kind_of(i))) {
            rc = POWER_REAL(f)->pMethods->xWrite(POWER_REAL(f), p, n, at);
        }
    }
    pthread_mutex_unlock(&power.lock);
    return rc;
}
static int power_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    struct power_inode *i = POWER_INODE(f);
    if (!i) {
        return POWER_REAL(f)->pMethods->xTruncate(POWER_REAL(f), size);
    }
    pthread_mutex_lock(&power.lock);
    int rc = SQLITE_IOERR_TRUNCATE;
    if (!power.off) {
        power_add(i, size, NULL, -1);
        if (!power_tick(power_kind_of(i))) {
            rc = POWER_REAL(f)->pMethods->xTruncate(POWER_REAL(f), size);
        }
    }
    pthread_mutex_unlock(&power.lock);
    return rc;
}
static int power_sync(sqlite3_file *f, int flags)
{
    struct power_inode *i = POWER_INODE(f);
    (void)flags;
    if (!i) {
        return SQLITE_OK;
    }
    pthread_mutex_lock(&power.lock);
    int rc = power.off ? SQLITE_IOERR_FSYNC : SQLITE_OK;
    if (!power.off) {
        bool now = power_tick(POWER_SYNC);
        /* Just before it, or after it and before anybody hears of it. */
        if (!power.lying && (!now || power_dice(2))) {
            power_sync_inode(i);
        }
        rc = now ? SQLITE_IOERR_FSYNC : SQLITE_OK;
    }
    pthread_mutex_unlock(&power.lock);
    return rc;
}
static int power_size(sqlite3_file *f, sqlite3_int64 *n)
{
    return POWER_REAL(f)->pMethods->xFileSize(POWER_REAL(f), n);
}
static int power_lock(sqlite3_file *f, int how)
{
    return POWER_REAL(f)->pMethods->xLock(POWER_REAL(f), how);
}
static int power_unlock(sqlite3_file *f, int how)
{
    return POWER_REAL(f)->pMethods->xUnlock(POWER_REAL(f), how);
}
static int power_reserved(sqlite3_file *f, int *out)
{
    return POWER_REAL(f)->pMethods->xCheckReservedLock(POWER_REAL(f), out);
}
static int power_control(sqlite3_file *f, int op, void *arg)
{
    return POWER_REAL(f)->pMethods->xFileControl(POWER_REAL(f), op, arg);
}
static int power_sector(sqlite3_file *f)
{
    return POWER_REAL(f)->pMethods->xSectorSize(POWER_REAL(f));
}
static int power_traits(sqlite3_file *f)
{
    return POWER_REAL(f)->pMethods->xDeviceCharacteristics(POWER_REAL(f));
}
static int power_shm_map(sqlite3_file *f, int page, int size, int extend, void volatile **p)
{
    return POWER_REAL(f)->pMethods->xShmMap(POWER_REAL(f), page, size, extend, p);
}
static int power_shm_lock(sqlite3_file *f, int at, int n, int flags)
{
    return POWER_REAL(f)->pMethods->xShmLock(POWER_REAL(f), at, n, flags);
}
static void power_shm_barrier(sqlite3_file *f)
{
    POWER_REAL(f)->pMethods->xShmBarrier(POWER_REAL(f));
}
static int power_shm_unmap(sqlite3_file *f, int drop)
{
    return POWER_REAL(f)->pMethods->xShmUnmap(POWER_REAL(f), drop);
}

static const sqlite3_io_methods power_methods = {
    2,
    power_close,
    power_read,
    power_write,
    power_truncate,
    power_sync,
    power_size,
    power_lock,
    power_unlock,
    power_reserved,
    power_control,
    power_sector,
    power_traits,
    power_shm_map,
    power_shm_lock,
    power_shm_barrier,
    power_shm_unmap,
    NULL,
    NULL,
};

static int power_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out)
{
    enum { KEPT = SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL };
    struct power_file *f = (struct power_file *)file;
    sqlite3_vfs *real = vfs->pAppData;
    f->real = (sqlite3_file *)(f + 1);
    f->inode = NULL;
    memset(f->real, 0, (size_t)real->szOsFile);
    f->base.pMethods = NULL;
    pthread_mutex_lock(&power.lock);
    int rc = power.off ? SQLITE_CANTOPEN : real->xOpen(real, name, f->real, flags, out);
    if (rc == SQLITE_OK && name && (flags & KEPT)) {
        f->inode = power_inode(name, true);
        if (!f->inode->there) {
            power_vanish(f->inode); /* a deleted one that was still on the disk */
            f->inode->there = true;
        }
    }
    pthread_mutex_unlock(&power.lock);
    if (rc == SQLITE_OK) {
        f->base.pMethods = &power_methods;
    }
    return rc;
}

static int power_delete(sqlite3_vfs *vfs, const char *name, int sync_dir)
{
    sqlite3_vfs *real = vfs->pAppData;
    pthread_mutex_lock(&power.lock);
    int rc = SQLITE_IOERR_DELETE;
    if (!power.off) {
        struct power_inode *i = power_inode(name, false);
        bool now = power_tick(POWER_ENTRY);
        rc = now ? SQLITE_IOERR_DELETE : real->xDelete(real, name, 0);
        if (rc == SQLITE_OK && i) {
            i->there = false;
            power_forget(i);
        }
        if (rc == SQLITE_OK && sync_dir && !power.lying) {
            power_sync_entries();
        }
    }
    pthread_mutex_unlock(&power.lock);
    return rc;
}

/* --- the test's side --- */

static sqlite3_vfs power_vfs;

static inline const char *power_register(void)
{
    if (!power_vfs.zName) {
        sqlite3_vfs *real = sqlite3_vfs_find(NULL);
        power_vfs = *real;
        power_vfs.pNext = NULL;
        power_vfs.zName = "power";
        power_vfs.pAppData = real;
        power_vfs.szOsFile = (int)sizeof(struct power_file) + real->szOsFile;
        power_vfs.xOpen = power_open;
        power_vfs.xDelete = power_delete;
        sqlite3_vfs_register(&power_vfs, 0);
    }
    return "power";
}

/* An empty disk. Nothing may be open. */
static inline void power_new_disk(unsigned seed)
{
    for (struct power_inode *i = power.files; i < power.files + POWER_FILES; i++) {
        if (i->used) {
            power_vanish(i);
            unlink(i->path);
        }
        memset(i, 0, sizeof *i);
    }
    power.off = power.lying = power.main_pending = false;
    power.wait_for = 0;
    power.seed = seed;
}

/* The power goes with the n-th operation of these kinds from now on; kinds 0: it does not. */
static inline void power_cut_at(int kinds, int n)
{
    pthread_mutex_lock(&power.lock);
    power.wait_for = kinds;
    power.left = n;
    pthread_mutex_unlock(&power.lock);
}

static inline void power_cut(void)
{
    pthread_mutex_lock(&power.lock);
    if (!power.off) {
        power_go_off();
    }
    power.wait_for = 0;
    pthread_mutex_unlock(&power.lock);
}

static inline bool power_is_off(void)
{
    pthread_mutex_lock(&power.lock);
    bool off = power.off;
    pthread_mutex_unlock(&power.lock);
    return off;
}

static inline size_t power_torn(size_t n)
{
    size_t torn = n ? power_dice((unsigned)n) : 0;
    return torn > POWER_SECTOR && power_dice(2) ? torn / POWER_SECTOR * POWER_SECTOR : torn;
}

static inline long power_pending(const struct power_inode *i)
{
    long n = 0;
    for (const struct power_change *c = i->first; c; c = c->next) {
        n++;
    }
    return n;
}

static inline void power_lose(struct power_inode *i, enum power_loss how)
{
    long n = power_pending(i), keep = power_dice((unsigned)n + 1), at = 0;
    for (const struct power_change *c = i->first; c; c = c->next, at++) {
        size_t size = (size_t)(c->n < 0 ? 0 : c->n);
        bool in_order = how == POWER_KEEP_PREFIX && at <= keep;
        bool any_order = how == POWER_KEEP_SOME && power_dice(8) > 2;
        power.changes++;
        if (in_order || any_order) {
            bool torn = in_order ? at == keep : power_dice(8) == 0;
            power_apply(i, c, torn ? power_torn(size) : size);
        } else {
            power.dropped++;
        }
    }
    power_forget(i);
    bool lucky = how != POWER_DROP_ALL && power_dice(2);
    if (i->there ? !i->linked && !lucky : lucky || !i->linked) {
        power_vanish(i);
    } else {
        i->there = i->linked = true;
    }
}

static inline void power_store(const struct power_inode *i)
{
    FILE *f = i->there ? fopen(i->path, "wb") : NULL;
    if (!i->there) {
        unlink(i->path);
    } else if (!f || fwrite(i->size ? i->image : "", 1, i->size, f) != i->size || fclose(f) != 0) {
        abort();
    }
}

/* After the cut, when nothing is open any more. */
static inline void power_back(enum power_loss how)
{
    for (struct power_inode *i = power.files; i < power.files + POWER_FILES; i++) {
        char shm[POWER_PATH + 8];
        if (!i->used) {
            continue;
        }
        power_lose(i, how);
        power_store(i);
        if (power_is_main(i)) {
            snprintf(shm, sizeof shm, "%s-shm", i->path);
            unlink(shm);
        }
    }
    power.off = power.main_pending = false;
}

#endif
