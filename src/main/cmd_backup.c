/* Online backup: a consistent copy of the database, then keys and blobs, in one archive that
 * appears whole or not at all. */
#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "io/folder.h"
#include "main/archive_int.h"
#include "proto/json.h"

struct backup {
    const struct mu_config *c;
    struct archive *a;
    struct mu_err *err;
    char work[4200]; /* private folder beside the target */
    int64_t schema;
};

static int fail(struct backup *b, int code, const char *what)
{
    return mu_err_set(b->err, code, "%s: %s", what, mu_err_text(code));
}

static int sqlite_fail(struct backup *b, sqlite3 *db, const char *what)
{
    return mu_err_set(b->err, MU_E_IO, "%s: %s", what, db ? sqlite3_errmsg(db) : "out of memory");
}

/* --- the database --- */

static int read_schema(struct backup *b, sqlite3 *db)
{
    sqlite3_stmt *st = NULL;
    int r = sqlite3_prepare_v2(db, "SELECT max(version) FROM schema_migrations", -1, &st, NULL);
    if (r == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW) {
        b->schema = sqlite3_column_int64(st, 0);
    } else {
        r = SQLITE_ERROR;
    }
    sqlite3_finalize(st);
    return r == SQLITE_OK ? 0
                          : mu_err_set(b->err, MU_E_INVALID, "the database is not one of muster's");
}

/* One step copies everything under one read snapshot: in WAL mode the server writes on. */
static int copy_sqlite(struct backup *b, const char *source, const char *target)
{
    sqlite3 *from = NULL, *to = NULL;
    int r = 0;
    if (access(source, F_OK) < 0) {
        return mu_err_set(b->err, MU_E_NOT_FOUND, "there is no database %s", source);
    }
    if (sqlite3_open_v2(source, &from, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK) {
        r = sqlite_fail(b, from, source);
    } else if (sqlite3_open_v2(target, &to, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) !=
               SQLITE_OK) {
        r = sqlite_fail(b, to, target);
    }
    if (r == 0) {
        sqlite3_busy_timeout(from, 30000);
        sqlite3_backup *copy = sqlite3_backup_init(to, "main", from, "main");
        int step = SQLITE_BUSY;
        for (int tries = 0; copy && tries < 60; tries++) {
            step = sqlite3_backup_step(copy, -1);
            if (step != SQLITE_BUSY && step != SQLITE_LOCKED) {
                break;
            }
            sqlite3_sleep(500);
        }
        if (!copy || sqlite3_backup_finish(copy) != SQLITE_OK || step != SQLITE_DONE) {
            r = sqlite_fail(b, to, "cannot copy the database");
        }
    }
    if (r == 0) {
        r = read_schema(b, to);
    }
    sqlite3_close(to);
    sqlite3_close(from);
    return r;
}

static int dump_pg(struct backup *b, const char *target)
{
    const char *const argv[] = {"pg_dump", "-Fc",  "--no-owner", "--no-password",
                                "-f",      target, NULL};
    int r = mu_pg_schema(b->c, &b->schema, b->err);
    if (r == 0 && b->schema == 0) {
        r = mu_err_set(b->err, MU_E_INVALID, "the database is not one of muster's");
    }
    return r < 0 ? r : mu_pg_tool(b->c, argv, b->err);
}

/* --- the archive --- */

static int archive_fail(struct backup *b, const char *name)
{
    const char *why = archive_error_string(b->a);
    return mu_err_set(b->err, MU_E_IO, "%s: %s", name, why ? why : "cannot write the archive");
}

static int add_header(struct backup *b, const char *name, int64_t size, mode_t mode, time_t mtime)
{
    struct archive_entry *e = archive_entry_new();
    if (!e) {
        return fail(b, -ENOMEM, name);
    }
    archive_entry_set_pathname(e, name);
    archive_entry_set_size(e, size);
    archive_entry_set_filetype(e, AE_IFREG);
    archive_entry_set_perm(e, mode);
    archive_entry_set_mtime(e, mtime, 0);
    int r = archive_write_header(b->a, e) == ARCHIVE_OK ? 0 : archive_fail(b, name);
    archive_entry_free(e);
    return r;
}

static int add_bytes(struct backup *b, const char *name, mu_bytes content)
{
    int r = add_header(b, name, (int64_t)content.len, 0600, time(NULL));
    if (r == 0 && archive_write_data(b->a, content.ptr, content.len) != (ssize_t)content.len) {
        r = archive_fail(b, name);
    }
    return r;
}

/* Exactly as many bytes as the header promised, also when the file changes meanwhile. */
static int add_file(struct backup *b, const char *name, const char *path)
{
    static char piece[65536];
    struct stat st;
    MU_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fstat(fd, &st) < 0) {
        return fail(b, -errno, path);
    }
    int r = add_header(b, name, st.st_size, 0600, st.st_mtime);
    int64_t left = st.st_size;
    while (r == 0 && left > 0) {
        ssize_t n = read(fd, piece, (size_t)MU_MIN(left, (int64_t)sizeof piece));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return mu_err_set(b->err, MU_E_IO, "%s became shorter while it was read", path);
        }
        r = archive_write_data(b->a, piece, (size_t)n) == n ? 0 : archive_fail(b, name);
        left -= n;
    }
    return r;
}

/* Blobs that retention deletes meanwhile are skipped: the copied database is older than the walk,
 * and a run that is about to be purged may lose its blob. */
static int add_tree(struct backup *b, const char *name, const char *path, int depth)
{
    DIR *d = opendir(path);
    struct dirent *e;
    int r = 0;
    if (!d) {
        return errno == ENOENT ? 0 : fail(b, -errno, path);
    }
    while (r == 0 && (e = readdir(d))) {
        char inner[4300], label[1024];
        struct stat st;
        if (e->d_name[0] == '.') {
            continue; /* temporary files begin with a dot */
        }
        if ((size_t)snprintf(inner, sizeof inner, "%s/%s", path, e->d_name) >= sizeof inner ||
            (size_t)snprintf(label, sizeof label, "%s%s", name, e->d_name) >= sizeof label - 1) {
            r = fail(b, -ENAMETOOLONG, path);
        } else if (lstat(inner, &st) < 0) {
            r = errno == ENOENT ? 0 : fail(b, -errno, inner);
        } else if (S_ISDIR(st.st_mode) && depth < 8) {
            size_t n = strlen(label);
            label[n] = '/';
            label[n + 1] = 0;
            r = add_tree(b, label, inner, depth + 1);
        } else if (S_ISREG(st.st_mode)) {
            r = add_file(b, label, inner);
            r = r == -ENOENT ? 0 : r;
        }
    }
    closedir(d);
    return r;
}

static int add_manifest(struct backup *b)
{
    struct mu_buf text;
    mu_buf_init(&text, 4096);
    struct mu_json_w w = mu_json_w(&text);
    mu_jw_obj(&w);
    mu_jw_ki64(&w, "format", MU_BACKUP_FORMAT);
    mu_jw_kcstr(&w, "version", MU_VERSION);
    mu_jw_ki64(&w, "schema_version", b->schema);
    mu_jw_kcstr(&w, "engine", mu_settings_pg(b->c) ? "postgresql" : "sqlite");
    mu_jw_ktime(&w, "created_at", mu_env_wall_ms(&mu_env_real));
    mu_jw_obj_end(&w);
    int r = text.failed ? fail(b, text.failed, MU_BACKUP_MANIFEST)
                        : add_bytes(b, MU_BACKUP_MANIFEST, mu_buf_bytes(&text));
    mu_buf_fini(&text);
    return r;
}

/* The key in force: one that was configured, else the generated one. */
static int add_key(struct backup *b, const char *name, const char *configured)
{
    char path[4300];
    if (configured) {
        return add_bytes(b, name, mu_str(configured));
    }
    snprintf(path, sizeof path, "%s/%s", b->c->data_dir, name);
    return access(path, F_OK) < 0 ? 0 : add_file(b, name, path);
}

static int fill(struct backup *b, const char *copy)
{
    int r = add_manifest(b);
    if (r == 0) {
        r = add_file(b, mu_settings_pg(b->c) ? MU_BACKUP_PG : MU_BACKUP_SQLITE, copy);
    }
    if (r == 0) {
        r = add_key(b, "admin.key", b->c->admin_key);
    }
    if (r == 0) {
        r = add_key(b, "encryption.key", b->c->encryption_key);
    }
    return r == 0 ? add_tree(b, MU_BACKUP_BLOBS, b->c->blob_dir, 0) : r;
}

static int write_archive(struct backup *b, const char *copy, int fd)
{
    b->a = archive_write_new();
    if (!b->a) {
        return fail(b, -ENOMEM, "archive");
    }
    int r = archive_write_add_filter_gzip(b->a) == ARCHIVE_OK &&
                    archive_write_set_format_pax_restricted(b->a) == ARCHIVE_OK &&
                    archive_write_open_fd(b->a, fd) == ARCHIVE_OK
                ? fill(b, copy)
                : archive_fail(b, "archive");
    if (archive_write_close(b->a) != ARCHIVE_OK && r == 0) {
        r = archive_fail(b, "archive");
    }
    archive_write_free(b->a);
    if (r == 0 && fsync(fd) < 0) {
        r = fail(b, -errno, "archive");
    }
    return r;
}

static int backup_to(struct backup *b, const char *target, const char *dir)
{
    char copy[4300], temp[4300], db[4096];
    snprintf(copy, sizeof copy, "%s/database", b->work);
    snprintf(temp, sizeof temp, "%s/archive", b->work);
    mu_settings_db_path(b->c, db, sizeof db);
    int r = mu_settings_pg(b->c) ? dump_pg(b, copy) : copy_sqlite(b, db, copy);
    if (r < 0) {
        return r;
    }
    MU_AUTO_CLOSE int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return fail(b, -errno, temp);
    }
    r = write_archive(b, copy, fd);
    if (r == 0 && rename(temp, target) < 0) {
        r = fail(b, -errno, target);
    }
    if (r == 0) {
        r = mu_sync_path(dir);
        r = r < 0 ? fail(b, r, dir) : 0;
    }
    return r;
}

int mu_cmd_backup(struct mu_cli *cli)
{
    struct mu_config *c;
    struct mu_err err = {0};
    struct backup b = {.err = &err};
    char dir[4096];
    const char *target = cli->args[0], *slash = strrchr(target, '/');
    int r = mu_settings_of(cli, false, &c);
    if (r) {
        return r;
    }
    b.c = c;
    if (slash && slash != target) {
        snprintf(dir, sizeof dir, "%.*s", (int)(slash - target), target);
    } else {
        snprintf(dir, sizeof dir, "%s", slash ? "/" : ".");
    }
    snprintf(b.work, sizeof b.work, "%s/.muster-backup-XXXXXX", dir);
    if (!mkdtemp(b.work)) {
        r = fail(&b, -errno, dir);
    } else {
        r = backup_to(&b, target, dir);
        mu_folder_remove(b.work);
    }
    mu_config_free(c);
    if (r < 0) {
        fprintf(stderr, "muster: backup: %s\n", err.text);
        return r == MU_E_NOT_FOUND ? MU_EXIT_NOT_FOUND : MU_EXIT_FAILED;
    }
    printf("%s\n", target);
    return MU_EXIT_OK;
}
