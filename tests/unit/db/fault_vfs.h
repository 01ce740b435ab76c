/* A disk that refuses on command: SQLite's own file layer with a switch in front of writes and
 * syncs. */
#ifndef TEST_DB_FAULT_VFS_H
#define TEST_DB_FAULT_VFS_H

#include <sqlite3.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

static atomic_int fault_write, fault_sync; /* the SQLite code to fail with; 0 = work */
static atomic_int fault_syncs;             /* syncs that worked */

struct fault_file {
    sqlite3_file base;
    sqlite3_file *real;
};

#define REAL(f) (((struct fault_file *)(f))->real)

static int fault_close(sqlite3_file *f)
{
    return REAL(f)->pMethods ? REAL(f)->pMethods->xClose(REAL(f)) : SQLITE_OK;
}
static int fault_read(sqlite3_file *f, void *p, int n, sqlite3_int64 at)
{
    return REAL(f)->pMethods->xRead(REAL(f), p, n, at);
}
static int fault_xwrite(sqlite3_file *f, const void *p, int n, sqlite3_int64 at)
{
    int code = atomic_load(&fault_write);
    return code ? code : REAL(f)->pMethods->xWrite(REAL(f), p, n, at);
}
static int fault_truncate(sqlite3_file *f, sqlite3_int64 n)
{
    return REAL(f)->pMethods->xTruncate(REAL(f), n);
}
static int fault_xsync(sqlite3_file *f, int flags)
{
    int code = atomic_load(&fault_sync);
    if (code) {
        return code;
    }
    atomic_fetch_add(&fault_syncs, 1);
    return REAL(f)->pMethods->xSync(REAL(f), flags);
}
static int fault_size(sqlite3_file *f, sqlite3_int64 *n)
{
    return REAL(f)->pMethods->xFileSize(REAL(f), n);
}
static int fault_lock(sqlite3_file *f, int how)
{
    return REAL(f)->pMethods->xLock(REAL(f), how);
}
static int fault_unlock(sqlite3_file *f, int how)
{
    return REAL(f)->pMethods->xUnlock(REAL(f), how);
}
static int fault_reserved(sqlite3_file *f, int *out)
{
    return REAL(f)->pMethods->xCheckReservedLock(REAL(f), out);
}
static int fault_control(sqlite3_file *f, int op, void *arg)
{
    return REAL(f)->pMethods->xFileControl(REAL(f), op, arg);
}
static int fault_sector(sqlite3_file *f)
{
    return REAL(f)->pMethods->xSectorSize(REAL(f));
}
static int fault_traits(sqlite3_file *f)
{
    return REAL(f)->pMethods->xDeviceCharacteristics(REAL(f));
}
static int fault_shm_map(sqlite3_file *f, int page, int size, int extend, void volatile **p)
{
    return REAL(f)->pMethods->xShmMap(REAL(f), page, size, extend, p);
}
static int fault_shm_lock(sqlite3_file *f, int at, int n, int flags)
{
    return REAL(f)->pMethods->xShmLock(REAL(f), at, n, flags);
}
static void fault_shm_barrier(sqlite3_file *f)
{
    REAL(f)->pMethods->xShmBarrier(REAL(f));
}
static int fault_shm_unmap(sqlite3_file *f, int drop)
{
    return REAL(f)->pMethods->xShmUnmap(REAL(f), drop);
}

static const sqlite3_io_methods fault_methods = {
    2,
    fault_close,
    fault_read,
    fault_xwrite,
    fault_truncate,
    fault_xsync,
    fault_size,
    fault_lock,
    fault_unlock,
    fault_reserved,
    fault_control,
    fault_sector,
    fault_traits,
    fault_shm_map,
    fault_shm_lock,
    fault_shm_barrier,
    fault_shm_unmap,
    NULL,
    NULL,
};

static int fault_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out)
{
    struct fault_file *f = (struct fault_file *)file;
    sqlite3_vfs *real = vfs->pAppData;
    f->real = (sqlite3_file *)(f + 1);
    memset(f->real, 0, (size_t)real->szOsFile);
    f->base.pMethods = NULL;
    int rc = real->xOpen(real, name, f->real, flags, out);
    if (rc == SQLITE_OK) {
        f->base.pMethods = &fault_methods;
    }
    return rc;
}

static sqlite3_vfs fault_vfs;

static inline const char *fault_vfs_register(void)
{
    if (!fault_vfs.zName) {
        sqlite3_vfs *real = sqlite3_vfs_find(NULL);
        fault_vfs = *real;
        fault_vfs.pNext = NULL;
        fault_vfs.zName = "fault";
        fault_vfs.pAppData = real;
        fault_vfs.szOsFile = (int)sizeof(struct fault_file) + real->szOsFile;
        fault_vfs.xOpen = fault_open;
        sqlite3_vfs_register(&fault_vfs, 0);
    }
    atomic_store(&fault_write, 0);
    atomic_store(&fault_sync, 0);
    atomic_store(&fault_syncs, 0);
    return "fault";
}

#endif
