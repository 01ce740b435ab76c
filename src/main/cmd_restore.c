/* Puts a backup back. Everything is unpacked and checked beside the data folder's content first;
 * only then anything is replaced. */
#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "db/migrate.h"
#include "io/folder.h"
#include "main/archive_int.h"
#include "proto/json.h"

struct restore {
    const struct mu_config *c;
    struct mu_err *err;
    char staging[4200];
    bool force, manifest_seen, database_seen, keep_staging;
    int lock_fd;
    struct mu_db *lock_db; /* PostgreSQL: its session holds the lock */
};

static int fail(struct restore *s, int code, const char *what)
{
    return mu_err_set(s->err, code, "%s: %s", what, mu_err_text(code));
}

static bool exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

/* --- nobody else, and nothing there --- */

static int make_folder(struct restore *s, const char *path)
{
    char part[4200];
    size_t n = strlen(path);
    for (size_t i = 1; i <= n && i < sizeof part; i++) {
        if (path[i] == '/' || path[i] == 0) {
            memcpy(part, path, i);
            part[i] = 0;
            if (mkdir(part, 0700) < 0 && errno != EEXIST && path[i] == 0) {
                return fail(s, -errno, path);
            }
        }
    }
    return 0;
}

static int lock_sqlite(struct restore *s)
{
    char db[4096], lock[4200];
    mu_settings_db_path(s->c, db, sizeof db);
    snprintf(lock, sizeof lock, "%s.lock", db);
    s->lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (s->lock_fd < 0) {
        return fail(s, -errno, lock);
    }
    if (flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0) {
        return mu_err_set(s->err, MU_E_BUSY, "a server is running on this database: stop it first");
    }
    return 0;
}

static int lock_pg(struct restore *s)
{
    const struct mu_db_opts opts = {.url = s->c->database_url};
    int fd = -1, r = mu_db_open(&opts, &s->lock_db, s->err);
    if (r == 0) {
        r = mu_db_lock(s->lock_db, s->c->database_url, &fd, s->err);
    }
    return r;
}

static int check_empty(struct restore *s)
{
    char db[4096];
    DIR *d = opendir(s->c->data_dir);
    struct dirent *e;
    int r = 0;
    if (s->force) {
        if (d) {
            closedir(d);
        }
        return 0;
    }
    while (d && r == 0 && (e = readdir(d))) {
        mu_bytes name = mu_str(e->d_name);
        if (!mu_bytes_is(name, ".") && !mu_bytes_is(name, "..") &&
            !mu_bytes_ends(name, MU_B(".lock"))) {
            r = mu_err_set(s->err, MU_E_EXISTS,
                           "the data folder %s is not empty (%s): --force replaces what is there",
                           s->c->data_dir, e->d_name);
        }
    }
    if (d) {
        closedir(d);
    }
    int64_t schema = 0;
    mu_settings_db_path(s->c, db, sizeof db);
    if (r == 0 && db[0] && exists(db)) {
        r = mu_err_set(s->err, MU_E_EXISTS, "the database %s exists: --force replaces it", db);
    }
    if (r == 0 && mu_settings_pg(s->c)) {
        r = mu_pg_schema(s->c, &schema, s->err);
    }
    if (r == 0 && schema) {
        r = mu_err_set(s->err, MU_E_EXISTS,
                       "the PostgreSQL database is not empty: --force replaces it");
    }
    return r;
}

/* --- unpacking --- */

/* A name that a backup may hold: never absolute, never upwards, no hidden parts. */
static bool name_ok(const char *name)
{
    static const char *const known[] = {MU_BACKUP_MANIFEST, MU_BACKUP_SQLITE, MU_BACKUP_PG,
                                        "admin.key", "encryption.key"};
    for (size_t i = 0; i < MU_ARRAY_LEN(known); i++) {
        if (!strcmp(name, known[i])) {
            return true;
        }
    }
    mu_bytes rest = mu_str(name), prefix = MU_B(MU_BACKUP_BLOBS);
    if (!mu_bytes_starts(rest, prefix) || rest.len > 1000) {
        return false;
    }
    rest = mu_bytes_from(rest, prefix.len);
    while (rest.ptr) {
        mu_bytes part = mu_bytes_split(&rest, '/');
        if (part.len == 0 || part.ptr[0] == '.') {
            return false;
        }
    }
    return true;
}

static int write_entry(struct restore *s, struct archive *a, const char *path)
{
    const void *block;
    size_t size;
    la_int64_t at;
    int r, out = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    MU_AUTO_CLOSE int fd = out;
    if (fd < 0) {
        return fail(s, -errno, path);
    }
    while ((r = archive_read_data_block(a, &block, &size, &at)) == ARCHIVE_OK) {
        mu_bytes left = mu_bytes_of(block, size);
        while (left.len) {
            ssize_t n = pwrite(fd, left.ptr, left.len, at);
            if (n < 0 && errno != EINTR) {
                return fail(s, -errno, path);
            }
            n = MU_MAX(n, 0);
            left = mu_bytes_from(left, (size_t)n);
            at += n;
        }
    }
    if (r != ARCHIVE_EOF) {
        return mu_err_set(s->err, MU_E_CORRUPT, "the archive is damaged: %s",
                          archive_error_string(a));
    }
    return fsync(fd) < 0 ? fail(s, -errno, path) : 0;
}

static int check_manifest(struct restore *s, const char *path)
{
    const struct mu_json_limits limits = {.max_bytes = 4096, .max_depth = 4};
    const char *engine = mu_settings_pg(s->c) ? "postgresql" : "sqlite";
    struct mu_arena a;
    yyjson_val *root;
    char text[4096];
    MU_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text);
    mu_arena_init(&a, 1 << 20);
    int r =
        n < 0 ? MU_E_IO : mu_json_read(&a, mu_bytes_of(text, (size_t)n), &limits, &root, s->err);
    if (r < 0) {
        r = mu_err_set(s->err, MU_E_CORRUPT, "the manifest cannot be read");
    } else if (mu_json_get_i64(root, "format", 0) != MU_BACKUP_FORMAT) {
        r = mu_err_set(s->err, MU_E_VERSION, "this backup's format is not known to this version");
    } else if (mu_json_get_i64(root, "schema_version", 0) > mu_db_schema_version()) {
        r = mu_err_set(s->err, MU_E_VERSION,
                       "the backup was made by a newer version (%.*s): restore it with that one",
                       MU_ARGS(mu_json_get_bytes(root, "version")));
    } else if (!mu_bytes_is(mu_json_get_bytes(root, "engine"), engine)) {
        r = mu_err_set(s->err, MU_E_INVALID,
                       "the backup is of %.*s, but DATABASE_URL is %s: set DATABASE_URL",
                       MU_ARGS(mu_json_get_bytes(root, "engine")), engine);
    }
    mu_arena_fini(&a);
    return r;
}

static int one_entry(struct restore *s, struct archive *a, struct archive_entry *e)
{
    const char *name = archive_entry_pathname(e);
    char path[8400];
    if (!name || archive_entry_filetype(e) != AE_IFREG || archive_entry_hardlink(e) ||
        !name_ok(name)) {
        return mu_err_set(s->err, MU_E_INVALID, "not a backup of muster: it holds %.100s",
                          name ? name : "a nameless entry");
    }
    bool manifest = !strcmp(name, MU_BACKUP_MANIFEST);
    if (manifest == s->manifest_seen) {
        return mu_err_set(s->err, MU_E_INVALID, "not a backup of muster: %s",
                          manifest ? "it has two manifests"
                                   : "the manifest is not its first entry");
    }
    snprintf(path, sizeof path, "%s/%s", s->staging, name);
    char *slash = strrchr(path, '/');
    *slash = 0;
    int r = make_folder(s, path);
    *slash = '/';
    if (r == 0) {
        r = write_entry(s, a, path);
    }
    if (r == 0 && manifest) {
        s->manifest_seen = true;
        r = check_manifest(s, path);
    }
    s->database_seen = s->database_seen || !strncmp(name, "database.", 9);
    return r;
}

static int unpack(struct restore *s, const char *file)
{
    struct archive *a = archive_read_new();
    struct archive_entry *e;
    int r = 0, got = ARCHIVE_OK;
    if (!a) {
        return fail(s, -ENOMEM, file);
    }
    archive_read_support_filter_gzip(a);
    archive_read_support_format_tar(a);
    if (archive_read_open_filename(a, file, 65536) != ARCHIVE_OK) {
        const char *why = archive_error_string(a);
        r = mu_err_set(s->err, exists(file) ? MU_E_CORRUPT : MU_E_NOT_FOUND, "%s: %s", file,
                       why ? why : "cannot be read");
    }
    while (r == 0 && (got = archive_read_next_header(a, &e)) == ARCHIVE_OK) {
        r = one_entry(s, a, e);
    }
    if (r == 0 && (got != ARCHIVE_EOF || !s->manifest_seen || !s->database_seen)) {
        r = mu_err_set(s->err, MU_E_CORRUPT, "%s is not a complete backup of muster", file);
    }
    archive_read_free(a);
    return r;
}

/* --- the database --- */

static int check_sqlite(struct restore *s, const char *path)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *st = NULL;
    bool ok = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK &&
              sqlite3_prepare_v2(db, "PRAGMA quick_check(1)", -1, &st, NULL) == SQLITE_OK &&
              sqlite3_step(st) == SQLITE_ROW &&
              mu_bytes_is(mu_str((const char *)sqlite3_column_text(st, 0)), "ok");
    sqlite3_finalize(st);
    sqlite3_close(db);
    return ok ? 0 : mu_err_set(s->err, MU_E_CORRUPT, "the database in the backup is damaged");
}

static int restore_pg(struct restore *s, const char *dump)
{
    char name[256];
    int r = mu_pg_name(s->c, name, sizeof name, s->err);
    const char *const argv[] = {
        "pg_restore",           "--clean", "--if-exists", "--no-owner", "--no-password",
        "--single-transaction", "-d",      name,          dump,         NULL};
    return r < 0 ? r : mu_pg_tool(s->c, argv, s->err);
}

/* Moves one staged file to its place; what was there goes. */
static int put(struct restore *s, const char *name, const char *target)
{
    char from[4300];
    snprintf(from, sizeof from, "%s/%s", s->staging, name);
    if (!exists(from)) {
        return 0;
    }
    return rename(from, target) < 0 ? fail(s, -errno, target) : 0;
}

static int put_key(struct restore *s, const char *name)
{
    char target[4300];
    snprintf(target, sizeof target, "%s/%s", s->c->data_dir, name);
    return put(s, name, target);
}

/* A file is put in place by renaming it, which works within one file system only. Found out before
 * anything is replaced. */
static int check_database_place(struct restore *s)
{
    char dir[4096];
    struct stat there, here;
    mu_settings_db_path(s->c, dir, sizeof dir);
    char *slash = strrchr(dir, '/');
    if (!slash) {
        snprintf(dir, sizeof dir, ".");
    } else {
        slash[slash == dir] = 0; /* of "/x" the slash stays */
    }
    if (stat(dir, &there) < 0 || stat(s->staging, &here) < 0) {
        return fail(s, -errno, dir);
    }
    return there.st_dev == here.st_dev
               ? 0
               : mu_err_set(s->err, MU_E_INVALID,
                            "the database's folder %s is on another file system than the data "
                            "folder %s: restore with both on one, then move the database",
                            dir, s->c->data_dir);
}

static void blob_places(const struct restore *s, char fresh[4300], char old[4300])
{
    snprintf(fresh, 4300, "%s/blobs", s->staging);
    snprintf(old, 4300, "%s/old-blobs", s->staging);
}

/* When what belongs to them could not be put in place, the former blobs come back. */
static void undo_blobs(struct restore *s)
{
    char fresh[4300], old[4300];
    blob_places(s, fresh, old);
    if (exists(s->c->blob_dir) && rename(s->c->blob_dir, fresh) < 0) {
        return; /* the words of the first failure say more */
    }
    if (exists(old) && rename(old, s->c->blob_dir) < 0) {
        fprintf(stderr, "muster: the former blobs could not be put back into %s: %s; they are %s\n",
                s->c->blob_dir, mu_err_text(-errno), old);
        s->keep_staging = true;
    }
}

static int put_blobs(struct restore *s)
{
    char fresh[4300], old[4300];
    blob_places(s, fresh, old);
    if (exists(s->c->blob_dir) && rename(s->c->blob_dir, old) < 0) {
        if (errno != EXDEV && errno != EBUSY) {
            return fail(s, -errno, s->c->blob_dir);
        }
        return mu_err_set(s->err, MU_E_INVALID,
                          "OZ_BLOB_DIR %s is on another file system: empty and remove it first",
                          s->c->blob_dir);
    }
    if (exists(fresh) && rename(fresh, s->c->blob_dir) < 0) {
        int r = fail(s, -errno, s->c->blob_dir);
        undo_blobs(s);
        return r;
    }
    return 0;
}

static int put_sqlite(struct restore *s)
{
    static const char *const tails[] = {"-wal", "-shm", "-journal"};
    char db[4096], tail[4200];
    mu_settings_db_path(s->c, db, sizeof db);
    /* A left-over log would be replayed into the new database. */
    for (size_t i = 0; i < MU_ARRAY_LEN(tails); i++) {
        snprintf(tail, sizeof tail, "%s%s", db, tails[i]);
        if (unlink(tail) < 0 && errno != ENOENT) {
            return fail(s, -errno, tail);
        }
    }
    return put(s, MU_BACKUP_SQLITE, db);
}

static int replace(struct restore *s)
{
    char dump[4300];
    snprintf(dump, sizeof dump, "%s/%s", s->staging, MU_BACKUP_PG);
    int r = mu_settings_pg(s->c) ? 0 : check_database_place(s);
    if (r == 0) {
        r = put_blobs(s);
    }
    if (r == 0) {
        r = mu_settings_pg(s->c) ? restore_pg(s, dump) : put_sqlite(s);
        if (r < 0) {
            undo_blobs(s);
        }
    }
    if (r == 0) {
        r = put_key(s, "encryption.key");
    }
    if (r == 0) {
        r = put_key(s, "admin.key");
    }
    if (r == 0) {
        r = mu_sync_path(s->c->data_dir);
        r = r < 0 ? fail(s, r, s->c->data_dir) : 0;
    }
    return r;
}

static int restore_from(struct restore *s, const char *file)
{
    char staged[4300];
    int r = make_folder(s, s->c->data_dir);
    if (r == 0) {
        r = mu_settings_pg(s->c) ? lock_pg(s) : lock_sqlite(s);
    }
    if (r == 0) {
        r = check_empty(s);
    }
    if (r < 0) {
        return r;
    }
    snprintf(s->staging, sizeof s->staging, "%s/.restore-XXXXXX", s->c->data_dir);
    if (!mkdtemp(s->staging)) {
        return fail(s, -errno, s->c->data_dir);
    }
    r = unpack(s, file);
    snprintf(staged, sizeof staged, "%s/%s", s->staging, MU_BACKUP_SQLITE);
    if (r == 0 && !mu_settings_pg(s->c)) {
        r = check_sqlite(s, staged);
    }
    if (r == 0) {
        r = replace(s);
    }
    if (!s->keep_staging) {
        mu_folder_remove(s->staging);
    }
    return r;
}

int mu_cmd_restore(struct mu_cli *cli)
{
    struct mu_config *c;
    struct mu_err err = {0};
    int r = mu_settings_of(cli, false, &c);
    if (r) {
        return r;
    }
    struct restore s = {.c = c, .err = &err, .force = mu_cli_has(cli, "force"), .lock_fd = -1};
    r = restore_from(&s, cli->args[0]);
    if (r < 0) {
        fprintf(stderr, "muster: restore: %s\n", err.text);
        r = r == MU_E_NOT_FOUND ? MU_EXIT_NOT_FOUND : MU_EXIT_FAILED;
    } else {
        printf("restored into %s\n", c->data_dir);
        if (c->encryption_key) {
            fputs("muster: ENCRYPTION_KEY is set and wins over the restored encryption.key\n",
                  stderr);
        }
    }
    if (s.lock_fd >= 0) {
        close(s.lock_fd);
    }
    mu_db_close(s.lock_db);
    mu_config_free(c);
    return r;
}
