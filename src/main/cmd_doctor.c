/* `muster doctor`: what is present, what is active, what to do. */
#include <archive.h>
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <libpq-fe.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <uv.h>

#include "db/migrate.h"
#include "exec/process.h"
#include "io/folder.h"
#include "main/client.h"
#include "main/settings.h"
#include "main/ui.h"
#include "main/web_assets.h"
#include "main/worker_conf.h"

extern char **environ;

enum level { INFO, GOOD, WARN, BROKEN };
enum { MAX_FINDINGS = 160, VERSION_MS = 3000 };

struct finding {
    const char *section;
    char name[48], text[300], advice[300];
    enum level level;
};
struct doctor {
    struct finding items[MAX_FINDINGS];
    size_t n;
    const struct mu_config *c;
};

static struct finding *say(struct doctor *d, const char *section, enum level level,
                           const char *name, const char *fmt, ...) MU_PRINTF(5, 6);
static struct finding *say(struct doctor *d, const char *section, enum level level,
                           const char *name, const char *fmt, ...)
{
    va_list ap;
    struct finding *f = &d->items[MU_MIN(d->n, (size_t)MAX_FINDINGS - 1)];
    d->n = MU_MIN(d->n + 1, (size_t)MAX_FINDINGS);
    memset(f, 0, sizeof *f);
    f->section = section;
    f->level = level;
    snprintf(f->name, sizeof f->name, "%s", name);
    va_start(ap, fmt);
    vsnprintf(f->text, sizeof f->text, fmt, ap);
    va_end(ap);
    return f;
}

static void advise(struct finding *f, const char *fmt, ...) MU_PRINTF(2, 3);
static void advise(struct finding *f, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(f->advice, sizeof f->advice, fmt, ap);
    va_end(ap);
}

/* --- present --- */

static void libraries(struct doctor *d)
{
    int pq = PQlibVersion();
    say(d, "present", INFO, "muster", "%s, schema %d", MU_VERSION, mu_db_schema_version());
    struct finding *web = say(d, "present", INFO, "web app", "%s",
                              mu_embedded_assets.n ? "in this build" : "not in this build");
    if (!mu_embedded_assets.n) {
        advise(web, "run script/build with Node.js 18 or later installed");
    }
    say(d, "present", INFO, "OpenSSL", "%s", OpenSSL_version(OPENSSL_VERSION_STRING));
    say(d, "present", INFO, "SQLite", "%s", sqlite3_libversion());
    say(d, "present", INFO, "libpq", "%d.%d", pq / 10000, pq % 10000);
    say(d, "present", INFO, "libcurl", "%s", curl_version_info(CURLVERSION_NOW)->version);
    say(d, "present", INFO, "libuv", "%s", uv_version_string());
    say(d, "present", INFO, "libarchive", "%s", archive_version_string());
    say(d, "present", INFO, "yyjson", "%u.%u.%u", yyjson_version() >> 16,
        yyjson_version() >> 8 & 255, yyjson_version() & 255);
}

static void reap(pid_t pid, int64_t deadline)
{
    while (waitpid(pid, NULL, WNOHANG) == 0) {
        if (mu_env_mono_ms(&mu_env_real) > deadline) {
            kill(-pid, SIGKILL);
            waitpid(pid, NULL, 0);
            return;
        }
        poll(NULL, 0, 20);
    }
}

/* The first line of `program --version`, or "" when it takes too long. */
static void version_of(const char *program, char *dst, size_t size)
{
    int64_t deadline = mu_env_mono_ms(&mu_env_real) + VERSION_MS;
    char *argv[] = {(char *)(uintptr_t)program, (char *)(uintptr_t) "--version", NULL};
    int ends[2];
    pid_t pid;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    dst[0] = 0;
    if (pipe2(ends, O_CLOEXEC) < 0) {
        return;
    }
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    int r = posix_spawn(&pid, program, &actions, &attr, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attr);
    close(ends[1]);
    if (r == 0) {
        struct pollfd p = {.fd = ends[0], .events = POLLIN};
        ssize_t n = poll(&p, 1, VERSION_MS) > 0 ? read(ends[0], dst, size - 1) : 0;
        dst[MU_MAX(n, 0)] = 0;
        dst[strcspn(dst, "\r\n")] = 0;
        reap(pid, deadline);
    }
    close(ends[0]);
}

static void programs(struct doctor *d)
{
    static const struct {
        const char *name, *without;
    } wanted[] = {
        {"git", "repositories cannot be checked out"},
        {"claude", NULL},
        {"codex", NULL},
        {"opencode", NULL},
        {"gemini", NULL},
    };
    for (size_t i = 0; i < MU_ARRAY_LEN(wanted); i++) {
        char version[128];
        const char *path = getenv("PATH");
        char *found = mu_process_find(wanted[i].name, path ? path : "/usr/bin:/bin");
        if (found) {
            version_of(found, version, sizeof version);
            say(d, "present", GOOD, wanted[i].name, "%s%s%s", version, version[0] ? ", " : "",
                found);
        } else {
            struct finding *f =
                say(d, "present", wanted[i].without ? WARN : INFO, wanted[i].name, "not on PATH");
            if (wanted[i].without) {
                advise(f, "%s: install %s", wanted[i].without, wanted[i].name);
            }
        }
        mu_free(found);
    }
}

static bool first_number(const char *path, long *ret)
{
    char text[64];
    MU_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (n <= 0) {
        return false;
    }
    text[n] = 0;
    *ret = strtol(text, NULL, 10);
    return true;
}

static void kernel(struct doctor *d)
{
    struct utsname u;
    long n = 0;
    uname(&u);
    say(d, "kernel", INFO, "release", "%s", u.release);
    bool off = (first_number("/proc/sys/user/max_user_namespaces", &n) && n == 0) ||
               (first_number("/proc/sys/kernel/unprivileged_userns_clone", &n) && n == 0);
    say(d, "kernel", INFO, "user namespaces", "%s", off ? "not for everybody" : "yes");
#ifdef SYS_landlock_create_ruleset
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, 1 /* ask for the version */);
    say(d, "kernel", INFO, "Landlock", abi > 0 ? "yes, ABI %ld" : "no", abi);
#endif
    say(d, "kernel", INFO, "cgroup v2", "%s",
        access("/sys/fs/cgroup/cgroup.controllers", R_OK) == 0 ? "yes" : "no");
    say(d, "kernel", INFO, "seccomp", "%s", prctl(PR_GET_SECCOMP) >= 0 ? "yes" : "no");
}

/* --- the data folder --- */

static void permissions(struct doctor *d)
{
    static const char *const keys[] = {"admin.key", "encryption.key"};
    struct stat st;
    if (stat(d->c->data_dir, &st) < 0) {
        advise(say(d, "storage", INFO, "data folder", "%s does not exist yet", d->c->data_dir),
               "the first `muster serve` makes it");
        return;
    }
    if (st.st_mode & 077) {
        advise(say(d, "storage", WARN, "data folder", "%s is open to others (%03o)", d->c->data_dir,
                   st.st_mode & 0777),
               "chmod 700 %s", d->c->data_dir);
    } else if (access(d->c->data_dir, W_OK) < 0) {
        advise(say(d, "storage", BROKEN, "data folder", "%s cannot be written", d->c->data_dir),
               "give it to this user, or set OZ_DATA_DIR");
    } else {
        say(d, "storage", GOOD, "data folder", "%s", d->c->data_dir);
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(keys); i++) {
        char path[4200];
        snprintf(path, sizeof path, "%s/%s", d->c->data_dir, keys[i]);
        if (stat(path, &st) == 0 && (st.st_mode & 077)) {
            advise(say(d, "storage", BROKEN, keys[i], "can be read by others"), "chmod 600 %s",
                   path);
        }
    }
}

static void disk(struct doctor *d)
{
    struct statvfs v;
    if (statvfs(d->c->data_dir, &v) < 0 && statvfs("/", &v) < 0) {
        return;
    }
    int64_t free_mb = (int64_t)v.f_bavail * (int64_t)v.f_frsize / 1048576;
    bool low = free_mb < d->c->disk_min_free_mb;
    struct finding *f =
        say(d, "storage", low ? BROKEN : GOOD, "disk space", "%lld MiB free", (long long)free_mb);
    if (low) {
        advise(f, "writes are refused below %lld MiB (OZ_DISK_MIN_FREE_MB): make room",
               (long long)d->c->disk_min_free_mb);
    }
}

static void sqlite_database(struct doctor *d)
{
    char path[4096];
    sqlite3 *db = NULL;
    mu_settings_db_path(d->c, path, sizeof path);
    if (access(path, F_OK) < 0) {
        advise(say(d, "storage", INFO, "database", "%s does not exist yet", path),
               "the first `muster serve` makes it");
        return;
    }
    int r = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL);
    if (r == SQLITE_OK) {
        sqlite3_busy_timeout(db, 3000);
        r = sqlite3_exec(db, "BEGIN IMMEDIATE; ROLLBACK", NULL, NULL, NULL);
    }
    if (r == SQLITE_OK) {
        say(d, "storage", GOOD, "database", "SQLite, %s, reachable and writable", path);
    } else {
        advise(say(d, "storage", BROKEN, "database", "SQLite, %s: %s", path,
                   db ? sqlite3_errmsg(db) : "out of memory"),
               "check the file's owner and the disk");
    }
    sqlite3_close(db);
}

static void pg_database(struct doctor *d)
{
    setenv("PGCONNECT_TIMEOUT", "5", 0);
    PGconn *pg = PQconnectdb(d->c->database_url);
    if (PQstatus(pg) != CONNECTION_OK) {
        /* libpq's words name host and user, never the password */
        char why[200];
        snprintf(why, sizeof why, "%s", PQerrorMessage(pg));
        why[strcspn(why, "\n")] = 0;
        advise(say(d, "storage", BROKEN, "database", "PostgreSQL: %s", why),
               "check DATABASE_URL and the server");
        PQfinish(pg);
        return;
    }
    int version = PQserverVersion(pg);
    PGresult *res = PQexec(pg, "SHOW transaction_read_only");
    bool writable = PQresultStatus(res) == PGRES_TUPLES_OK && !strcmp(PQgetvalue(res, 0, 0), "off");
    PQclear(res);
    PQfinish(pg);
    struct finding *f =
        say(d, "storage", writable ? GOOD : BROKEN, "database", "PostgreSQL %d.%d, reachable%s",
            version / 10000, version % 10000, writable ? " and writable" : ", but read-only");
    if (!writable) {
        advise(f, "point DATABASE_URL at the primary");
    }
}

/* --- active --- */

static void server(struct doctor *d)
{
    char db[4096], lock[4200];
    mu_settings_db_path(d->c, db, sizeof db);
    snprintf(lock, sizeof lock, "%s.lock", db);
    MU_AUTO_CLOSE int fd = db[0] ? open(lock, O_RDWR | O_CLOEXEC) : -1;
    if (db[0]) {
        bool runs = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0;
        struct finding *f =
            say(d, "active", INFO, "server", "%s", runs ? "running" : "not running");
        if (!runs) {
            advise(f, "muster serve");
        }
    }
    bool loopback = !strncmp(d->c->host, "127.", 4) || !strcmp(d->c->host, "::1") ||
                    !strcmp(d->c->host, "localhost");
    struct finding *f =
        say(d, "active", loopback || d->c->tls_cert_file ? GOOD : WARN, "listener", "%s:%lld%s",
            d->c->host, (long long)d->c->port, d->c->tls_cert_file ? ", TLS" : ", no TLS");
    if (f->level == WARN) {
        advise(f, "keys travel in clear text: set OZ_TLS_CERT_FILE and OZ_TLS_KEY_FILE, or put a "
                  "TLS proxy in front");
    }
    if (d->c->metrics_listen) {
        say(d, "active", INFO, "metrics listener", "%s, without a key", d->c->metrics_listen);
    }
    const char *const files[] = {d->c->tls_cert_file, d->c->tls_key_file, d->c->tenant_tokens_file};
    for (size_t i = 0; i < MU_ARRAY_LEN(files); i++) {
        if (files[i] && access(files[i], R_OK) < 0) {
            advise(say(d, "active", BROKEN, "file", "%s: %s", files[i], mu_err_text(-errno)),
                   "check the path and its permissions");
        }
    }
    if (d->c->cors_origin && strchr(d->c->cors_origin, '*')) {
        advise(say(d, "active", WARN, "CORS", "every web page may call the API"),
               "name the origins in OZ_CORS_ORIGIN");
    }
    if (geteuid() == 0) {
        advise(say(d, "active", WARN, "user", "root"), "run it as a user of its own");
    }
}

static void providers(struct doctor *d, struct mu_config *c)
{
    struct mu_err err;
    struct mu_buf warnings;
    const char *path = getenv("PATH");
    path = path ? path : "/usr/bin:/bin";
    if (mu_config_discover(c, path, &err) < 0) {
        say(d, "active", WARN, "providers", "%s", err.text);
    }
    for (size_t i = 0; i < c->provider_list.n && i < 40; i++) {
        const struct mu_provider_conf *p = &c->provider_list.items[i];
        struct finding *f = say(
            d, "active", mu_provider_complete(p) ? GOOD : WARN, p->key, "%s, %s%s%s%s",
            mu_provider_type_name(p->type), p->model ? p->model : "no model",
            p->discovered ? ", found: " : "", p->found ? p->found : "",
            p->discovered || p->type == MU_PROVIDER_SHELL ? ", for the administrator only" : "");
        if (!mu_provider_complete(p)) {
            advise(f, "not used: set its _MODEL and _BASE_URL");
        }
    }
    if (c->provider_list.n <= 1) { /* the built-in shell */
        advise(say(d, "active", WARN, "providers", "none"),
               "set OZ_PROVIDER_CUSTOM_BASE_URL and OZ_PROVIDER_CUSTOM_MODEL, or try `muster run "
               "--model shell 'echo hello'`");
        return;
    }
    mu_buf_init(&warnings, 65536);
    if (mu_config_check_providers(c, path, &warnings, &err) < 0) {
        advise(say(d, "active", c->startup_validate_providers ? BROKEN : WARN, "providers",
                   "not every harness can run"),
               "%s", err.text);
    }
    mu_buf_fini(&warnings);
}

/* --- sandboxes: each layer is named as the kind itself found it by trying (sandbox.md 3) --- */

static void one_sandbox(void *arg, const struct mu_sandbox_report *r)
{
    struct doctor *d = arg;
    struct finding *f = say(d, "sandbox", r->usable ? GOOD : INFO, r->kind, "%s%s%s", r->strength,
                            r->summary[0] ? ", " : "", r->summary);
    for (size_t i = 0; i < r->n_layers && i < MU_SANDBOX_LAYERS; i++) {
        const struct mu_sandbox_layer *l = &r->layers[i];
        char name[48];
        snprintf(name, sizeof name, "  %s", l->name);
        f = say(d, "sandbox",
                l->active   ? GOOD
                : r->usable ? WARN
                            : INFO,
                name, "%s%s%s", l->active ? "yes" : "no", l->detail[0] ? ", " : "", l->detail);
        if (!l->active && (l->cause[0] || l->cure[0])) {
            advise(f, "%s%s%s", l->cause, l->cause[0] && l->cure[0] ? ": " : "", l->cure);
        }
    }
}

/* In a folder of its own: a running worker keeps its own, and nothing is left. */
static void sandboxes(struct doctor *d, struct mu_cli *cli)
{
    struct mu_worker_settings s;
    struct mu_config *config;
    struct mu_err err = {0};
    char dir[] = "/tmp/muster-doctor-XXXXXX";
    if (mu_settings_of(cli, false, &config)) {
        return;
    }
    int r = mu_worker_settings_load(&s, config, NULL, &err);
    if (r == 0 && !mkdtemp(dir)) {
        r = mu_err_set(&err, -errno, "no temporary folder: %s", mu_err_text(-errno));
    } else if (r == 0) {
        s.conf.state_dir = dir;
        r = mu_worker_check(&mu_env_real, &s.conf, one_sandbox, d, &err);
        mu_folder_remove(dir);
    }
    if (r < 0) {
        advise(say(d, "sandbox", WARN, "sandboxes", "%s", err.text), "muster worker --check");
    }
    mu_worker_settings_fini(&s);
}

/* --- the report --- */

static const char *level_name(enum level l)
{
    static const char *const names[] = {"info", "ok", "warning", "broken"};
    return names[l];
}

static void print_json(const struct doctor *d, bool broken)
{
    struct mu_buf out;
    mu_buf_init(&out, 1 << 20);
    struct mu_json_w w = mu_json_w(&out);
    mu_jw_obj(&w);
    mu_jw_kbool(&w, "ok", !broken);
    mu_jw_key(&w, "findings");
    mu_jw_arr(&w);
    for (size_t i = 0; i < d->n; i++) {
        const struct finding *f = &d->items[i];
        mu_jw_obj(&w);
        mu_jw_kcstr(&w, "section", f->section);
        mu_jw_kcstr(&w, "name", f->name);
        mu_jw_kcstr(&w, "level", level_name(f->level));
        mu_jw_kcstr(&w, "text", f->text);
        mu_jw_kstr_opt(&w, "advice", f->advice[0] ? mu_str(f->advice) : MU_B_NONE);
        mu_jw_obj_end(&w);
    }
    mu_jw_arr_end(&w);
    mu_jw_obj_end(&w);
    mu_buf_add_char(&out, '\n');
    fwrite(out.ptr, 1, out.failed ? 0 : out.len, stdout);
    mu_buf_fini(&out);
}

static void print_text(const struct doctor *d)
{
    static const char *const colours[] = {"", "\033[32m", "\033[33m", "\033[31m"};
    const char *section = "";
    bool colour = mu_ui_colour(stdout);
    for (size_t i = 0; i < d->n; i++) {
        const struct finding *f = &d->items[i];
        if (strcmp(section, f->section) != 0) {
            section = f->section;
            printf("%s%s\n", i ? "\n" : "", section);
        }
        printf("  %s%-8s%s %-18s %s\n", colour ? colours[f->level] : "", level_name(f->level),
               colour ? "\033[0m" : "", f->name, f->text);
        if (f->advice[0]) {
            printf("  %-8s %-18s -> %s\n", "", "", f->advice);
        }
    }
}

int mu_cmd_doctor(struct mu_cli *cli)
{
    static struct doctor d;
    struct mu_config *c;
    bool broken = false;
    int r = mu_settings_of(cli, !mu_cli_has(cli, "json"), &c);
    if (r) {
        return r;
    }
    d.c = c;
    libraries(&d);
    programs(&d);
    kernel(&d);
    permissions(&d);
    disk(&d);
    if (mu_settings_pg(c)) {
        pg_database(&d);
    } else {
        sqlite_database(&d);
    }
    server(&d);
    providers(&d, c);
    sandboxes(&d, cli);
    for (size_t i = 0; i < d.n; i++) {
        broken = broken || d.items[i].level == BROKEN;
    }
    if (mu_cli_has(cli, "json")) {
        print_json(&d, broken);
    } else {
        print_text(&d);
    }
    mu_config_free(c);
    return broken ? MU_EXIT_FAILED : MU_EXIT_OK;
}
