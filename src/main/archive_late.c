/* libarchive, loaded when a backup is first written or read. Linked in the ordinary way it would
 * bring libxml2, ICU, the C++ runtime and nine more libraries into every server and every command:
 * 2 MiB resident and a third of the time until main() (docs/benchmarks.md). The functions below
 * have libarchive's own names and types, its header checks them. */
#include <archive.h>
#include <archive_entry.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static void *library;

static void load(void)
{
    library = dlopen(MU_LIBARCHIVE, RTLD_NOW | RTLD_LOCAL);
}

static void *look(const char *name)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    return library ? dlsym(library, name) : NULL;
}

/* Only the commands backup and restore come here: there is no server to keep alive. */
static void *find(const char *name)
{
    void *fn = look(name);
    if (!fn) {
        fprintf(stderr, "muster: backups need " MU_LIBARCHIVE ": %s\n", dlerror());
        exit(1);
    }
    return fn;
}

#define LATE(type, name, params, args)                                                             \
    type name params                                                                               \
    {                                                                                              \
        type(*fn) params;                                                                          \
        *(void **)&fn = find(#name); /* the way POSIX names for dlsym() */                         \
        return fn args;                                                                            \
    }
#define LATE_VOID(name, params, args)                                                              \
    void name params                                                                               \
    {                                                                                              \
        void(*fn) params;                                                                          \
        *(void **)&fn = find(#name);                                                               \
        fn args;                                                                                   \
    }

/* Of use to `muster doctor`, which says so when it is missing. */
const char *archive_version_string(void)
{
    const char *(*fn)(void);
    *(void **)&fn = look("archive_version_string");
    return fn ? fn() : MU_LIBARCHIVE " is missing: no backup and no restore";
}

/* clang-format off */
LATE(struct archive *, archive_write_new, (void), ())
LATE(int, archive_write_add_filter_gzip, (struct archive *a), (a))
LATE(int, archive_write_set_format_pax_restricted, (struct archive *a), (a))
LATE(int, archive_write_open_fd, (struct archive *a, int fd), (a, fd))
LATE(int, archive_write_header, (struct archive *a, struct archive_entry *e), (a, e))
LATE(la_ssize_t, archive_write_data, (struct archive *a, const void *p, size_t n), (a, p, n))
LATE(int, archive_write_close, (struct archive *a), (a))
LATE(int, archive_write_free, (struct archive *a), (a))
LATE(struct archive *, archive_read_new, (void), ())
LATE(int, archive_read_support_filter_gzip, (struct archive *a), (a))
LATE(int, archive_read_support_format_tar, (struct archive *a), (a))
LATE(int, archive_read_open_filename, (struct archive *a, const char *path, size_t block), (a, path, block))
LATE(int, archive_read_next_header, (struct archive *a, struct archive_entry **e), (a, e))
LATE(int, archive_read_data_block, (struct archive *a, const void **p, size_t *n, la_int64_t *at), (a, p, n, at))
LATE(int, archive_read_free, (struct archive *a), (a))
LATE(const char *, archive_error_string, (struct archive *a), (a))
LATE(struct archive_entry *, archive_entry_new, (void), ())
LATE_VOID(archive_entry_free, (struct archive_entry *e), (e))
LATE_VOID(archive_entry_set_pathname, (struct archive_entry *e, const char *path), (e, path))
LATE_VOID(archive_entry_set_size, (struct archive_entry *e, la_int64_t n), (e, n))
LATE_VOID(archive_entry_set_filetype, (struct archive_entry *e, unsigned int type), (e, type))
LATE_VOID(archive_entry_set_perm, (struct archive_entry *e, __LA_MODE_T mode), (e, mode))
LATE_VOID(archive_entry_set_mtime, (struct archive_entry *e, time_t t, long ns), (e, t, ns))
LATE(const char *, archive_entry_pathname, (struct archive_entry *e), (e))
LATE(const char *, archive_entry_hardlink, (struct archive_entry *e), (e))
LATE(__LA_MODE_T, archive_entry_filetype, (struct archive_entry *e), (e))
