/* What the storage and the kernel give at best for the same work, without a server around it.
 *
 *   limit create DB SECONDS BATCH      units of four rows, BATCH to a transaction, WAL, synchronous=FULL; rows in DB's schema
 *   limit create-pg CONNINFO SECONDS BATCH      the same through libpq's pipeline, on an emptied database with the schema
 *   limit get DB SECONDS | limit list DB SECONDS      the statement of the server, every column read, one thread
 *   limit sync FILE SECONDS            append 8 KiB and fdatasync, one after the other
 *   limit sse SECONDS                  prints a port, takes streams; after a line on stdin writes one event to each in turn
 *   limit pty COMMAND                  what a shell writes into a pseudo-terminal, read and thrown away
 *
 * Prints one line of JSON. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <libpq-fe.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pty.h>
#include <sqlite3.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { STATEMENTS = 4, IDS = 1000, MAX_CONNS = 20000 };

static char prompt[1025], search[1100], ids[IDS][40];
static unsigned n_ids;

static const char *const inserts[STATEMENTS] = {
    "INSERT INTO sessions (id, org_id, creator, view, mode, source, state, route, harness, model, name, title, skill, "
    "environment_id, queued_ms, deadline_ms, created_ms, updated_ms) VALUES ($1, $2, 'bench', 1, 1, 2, 22, 2, 'custom', "
    "'', 'bench', 'bench', '', $3, $4, $5, $4, $4)",
    "INSERT INTO session_specs (session_id, body_hash, prompt_bytes, prompt_head, search, spec) VALUES ($1, $2, 1024, $3, $4, $5)",
    "INSERT INTO streams (id, org_id, first_seq, last_seq) VALUES ($1, $2, 1, 1)",
    "INSERT INTO events (stream_id, seq, at_ms, type, actor, data) VALUES ($1, 1, $2, 1, '', '{\"to\":22}')"};
static const char org[] = "tok_0123456789abcdef0123456789abcdef";
static const char env[] = "01a1fe86-f4a5-7043-b652-3a311a74d7a2";
static const char spec[] =
    "{\"agent_config\":{\"environment_id\":\"env_01a1fe86-f4a5-7043-b652-3a311a74d7a2\",\"name\":\"bench\"}}";

static void die(const char *what, const char *why)
{
    fprintf(stderr, "limit: %s: %s\n", what, why);
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static double cpu_us(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void report(uint64_t n, int64_t start, double cpu)
{
    double s = (double)(now_ns() - start) / 1e9;
    printf("{\"rate\":%.1f,\"n\":%llu,\"us\":%.2f,\"cpu_us\":%.2f}\n", (double)n / s, (unsigned long long)n,
           s * 1e6 / (double)n, (cpu_us() - cpu) / (double)n);
}

static void fill_texts(void)
{
    for (size_t i = 0; i < sizeof prompt - 1; i++) {
        prompt[i] = "Please fix the failing test in module alpha. "[i % 45];
    }
    snprintf(search, sizeof search, "bench\n%s\n", prompt);
}

static void new_id(char *dst, size_t size, int64_t ms)
{
    unsigned char r[10];
    if (getrandom(r, sizeof r, 0) != (ssize_t)sizeof r) {
        die("getrandom", strerror(errno));
    }
    snprintf(dst, size, "%08x-%04x-7%01x%02x-8%01x%02x-%02x%02x%02x%02x%02x%02x", (unsigned)(ms >> 16),
             (unsigned)(ms & 0xffff), r[0] & 15, r[1], r[2] & 15, r[3], r[4], r[5], r[6], r[7], r[8], r[9]);
}

static int64_t wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* --- SQLite --- */

static sqlite3 *open_db(const char *path)
{
    sqlite3 *db;
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK ||
        sqlite3_exec(db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-65536;"
                         "PRAGMA wal_autocheckpoint=20000", NULL, NULL, NULL) != SQLITE_OK) {
        die(path, sqlite3_errmsg(db));
    }
    return db;
}

static sqlite3_stmt *prepare(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *s;
    if (sqlite3_prepare_v2(db, sql, -1, &s, NULL) != SQLITE_OK) {
        die(sql, sqlite3_errmsg(db));
    }
    return s;
}

static void text(sqlite3_stmt *s, int at, const char *v)
{
    sqlite3_bind_text(s, at, v, -1, SQLITE_STATIC);
}

static void step(sqlite3 *db, sqlite3_stmt *s)
{
    if (sqlite3_step(s) != SQLITE_DONE) {
        die("step", sqlite3_errmsg(db));
    }
    sqlite3_reset(s);
}

static void unit(sqlite3 *db, sqlite3_stmt **s)
{
    char id[40];
    unsigned char hash[16];
    int64_t ms = wall_ms();
    new_id(id, sizeof id, ms);
    if (getrandom(hash, sizeof hash, 0) != (ssize_t)sizeof hash) {
        die("getrandom", strerror(errno));
    }
    text(s[0], 1, id);
    text(s[0], 2, org);
    text(s[0], 3, env);
    sqlite3_bind_int64(s[0], 4, ms);
    sqlite3_bind_int64(s[0], 5, ms + 86400000);
    step(db, s[0]);
    text(s[1], 1, id);
    sqlite3_bind_blob(s[1], 2, hash, sizeof hash, SQLITE_STATIC);
    text(s[1], 3, prompt);
    text(s[1], 4, search);
    text(s[1], 5, spec);
    step(db, s[1]);
    text(s[2], 1, id);
    text(s[2], 2, org);
    step(db, s[2]);
    text(s[3], 1, id);
    sqlite3_bind_int64(s[3], 2, ms);
    step(db, s[3]);
}

static void create(const char *path, double seconds, int batch)
{
    sqlite3 *db = open_db(path);
    sqlite3_stmt *s[STATEMENTS];
    for (int i = 0; i < STATEMENTS; i++) {
        s[i] = prepare(db, inserts[i]);
    }
    sqlite3_stmt *begin = prepare(db, "BEGIN IMMEDIATE"), *commit = prepare(db, "COMMIT");
    int64_t start = now_ns();
    double cpu = cpu_us();
    uint64_t n = 0;
    while ((double)(now_ns() - start) < seconds * 1e9) {
        step(db, begin);
        for (int i = 0; i < batch; i++) {
            unit(db, s);
        }
        step(db, commit);
        n += (uint64_t)batch;
    }
    report(n, start, cpu);
}

/* Every column is looked at, as an answer would need it. */
static uint64_t read_rows(sqlite3_stmt *s)
{
    static volatile uint64_t sum;
    uint64_t rows = 0;
    while (sqlite3_step(s) == SQLITE_ROW) {
        rows++;
        for (int i = 0; i < sqlite3_column_count(s); i++) {
            sum += (uint64_t)sqlite3_column_bytes(s, i);
        }
    }
    sqlite3_reset(s);
    return rows;
}

#define VIEW "SELECT * FROM sessions s CROSS JOIN session_specs p ON p.session_id = s.id LEFT JOIN session_results x ON x.session_id = s.id "

static void reads(const char *path, double seconds, int list)
{
    sqlite3 *db = open_db(path);
    sqlite3_stmt *pick = prepare(db, "SELECT id, org_id FROM sessions ORDER BY id DESC LIMIT 1000");
    char owner[80] = "";
    while (sqlite3_step(pick) == SQLITE_ROW && n_ids < IDS) {
        snprintf(ids[n_ids++], sizeof ids[0], "%s", sqlite3_column_text(pick, 0));
        snprintf(owner, sizeof owner, "%s", sqlite3_column_text(pick, 1));
    }
    sqlite3_reset(pick);
    if (!n_ids) {
        die(path, "no rows");
    }
    sqlite3_stmt *s = prepare(
        db, list ? VIEW "WHERE s.org_id = ?1 ORDER BY s.id DESC LIMIT 51" : VIEW "WHERE s.id = ?1");
    int64_t start = now_ns();
    double cpu = cpu_us();
    uint64_t n = 0;
    while ((double)(now_ns() - start) < seconds * 1e9) {
        text(s, 1, list ? owner : ids[n % n_ids]);
        if (!read_rows(s)) {
            die("read", "no row");
        }
        n++;
    }
    report(n, start, cpu);
}

/* --- PostgreSQL --- */

static void pg_ok(PGconn *pg, int ok)
{
    if (!ok) {
        die("postgres", PQerrorMessage(pg));
    }
}

static void pg_send(PGconn *pg, const char *name, int n, const char *const *v)
{
    pg_ok(pg, PQsendQueryPrepared(pg, name, n, v, NULL, NULL, 0));
}

static void pg_unit(PGconn *pg)
{
    char id[40], now[24], later[24], hash[40];
    int64_t ms = wall_ms();
    new_id(id, sizeof id, ms);
    snprintf(now, sizeof now, "%lld", (long long)ms);
    snprintf(later, sizeof later, "%lld", (long long)ms + 86400000);
    snprintf(hash, sizeof hash, "\\x%.8s%.4s0000000000000000%.4s", id, id + 9, id + 32);
    pg_send(pg, "s0", 5, (const char *const[]){id, org, env, now, later});
    pg_send(pg, "s1", 5, (const char *const[]){id, hash, prompt, search, spec});
    pg_send(pg, "s2", 2, (const char *const[]){id, org});
    pg_send(pg, "s3", 2, (const char *const[]){id, now});
}

static void pg_batch(PGconn *pg, int batch)
{
    pg_send(pg, "b", 0, NULL);
    for (int i = 0; i < batch; i++) {
        pg_unit(pg);
    }
    pg_send(pg, "c", 0, NULL);
    pg_ok(pg, PQpipelineSync(pg));
    for (;;) { /* a NULL parts two statements */
        PGresult *r = PQgetResult(pg);
        ExecStatusType st = PQresultStatus(r);
        PQclear(r);
        if (r && st == PGRES_PIPELINE_SYNC) {
            return;
        }
        pg_ok(pg, !r || st == PGRES_COMMAND_OK);
    }
}

static void create_pg(const char *conninfo, double seconds, int batch)
{
    PGconn *pg = PQconnectdb(conninfo);
    pg_ok(pg, PQstatus(pg) == CONNECTION_OK);
    for (int i = 0; i < STATEMENTS + 2; i++) {
        char name[4] = {i == STATEMENTS ? 'b' : i > STATEMENTS ? 'c' : 's', i < STATEMENTS ? (char)('0' + i) : 0, 0};
        PGresult *r = PQprepare(pg, name, i == STATEMENTS ? "BEGIN" : i > STATEMENTS ? "COMMIT" : inserts[i], 0, NULL);
        pg_ok(pg, PQresultStatus(r) == PGRES_COMMAND_OK);
        PQclear(r);
    }
    pg_ok(pg, PQenterPipelineMode(pg));
    int64_t start = now_ns();
    double cpu = cpu_us();
    uint64_t n = 0;
    while ((double)(now_ns() - start) < seconds * 1e9) {
        pg_batch(pg, batch);
        n += (uint64_t)batch;
    }
    report(n, start, cpu);
}

/* --- the disk, the socket --- */

static void sync_file(const char *path, double seconds)
{
    static char block[8192];
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int64_t start = now_ns();
    double cpu = cpu_us();
    uint64_t n = 0;
    while ((double)(now_ns() - start) < seconds * 1e9) {
        if (fd < 0 || pwrite(fd, block, sizeof block, (off_t)(n % 1024) * 8192) != (ssize_t)sizeof block ||
            fdatasync(fd) < 0) {
            die(path, strerror(errno));
        }
        n++;
    }
    report(n, start, cpu);
    close(fd);
    unlink(path);
}

static int listen_any(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 4096) < 0 ||
        getsockname(fd, (struct sockaddr *)&a, &len) < 0) {
        die("listen", strerror(errno));
    }
    printf("%d\n", ntohs(a.sin_port));
    fflush(stdout);
    return fd;
}

static void sse(double seconds)
{
    static int fds[MAX_CONNS];
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    static const char event[] = "3c\r\nevent: output\ndata: {\"offset\":123456,\"text\":\"word word \"}\n\n\n\r\n";
    int listener = listen_any(), n_fds = 0;
    for (;;) {
        struct pollfd p[2] = {{.fd = listener, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
        poll(p, 2, -1);
        if (p[1].revents) {
            break;
        }
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC), on = 1;
        if (fd < 0 || n_fds == MAX_CONNS) {
            die("accept", strerror(errno));
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (write(fd, head, sizeof head - 1) < 0) {
            die("write", strerror(errno));
        }
        fds[n_fds++] = fd;
    }
    int64_t start = now_ns();
    double cpu = cpu_us();
    uint64_t n = 0;
    while ((double)(now_ns() - start) < seconds * 1e9) {
        for (int i = 0; i < n_fds; i++, n++) {
            if (send(fds[i], event, sizeof event - 1, MSG_NOSIGNAL) < 0) {
                report(n, start, cpu);
                return;
            }
        }
    }
    report(n, start, cpu);
}

static void pty(const char *command)
{
    struct winsize size = {.ws_row = 40, .ws_col = 120};
    static char block[64 << 10];
    int fd;
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    pid_t pid = forkpty(&fd, NULL, NULL, &size);
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    double bytes = 0;
    for (ssize_t n; pid > 0 && (n = read(fd, block, sizeof block)) > 0;) {
        bytes += (double)n;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    double seconds = (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
    printf("{\"rate\":%.0f}\n", bytes / seconds);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    double seconds = argc > 3 ? atof(argv[3]) : argc > 2 ? atof(argv[2]) : 0;
    fill_texts();
    if (strcmp(what, "create") == 0 && argc == 5) {
        create(argv[2], seconds, atoi(argv[4]));
    } else if (strcmp(what, "create-pg") == 0 && argc == 5) {
        create_pg(argv[2], seconds, atoi(argv[4]));
    } else if ((strcmp(what, "get") == 0 || strcmp(what, "list") == 0) && argc == 4) {
        reads(argv[2], seconds, what[0] == 'l');
    } else if (strcmp(what, "sync") == 0 && argc == 4) {
        sync_file(argv[2], seconds);
    } else if (strcmp(what, "sse") == 0 && argc == 3) {
        sse(seconds);
    } else if (strcmp(what, "pty") == 0 && argc == 3) {
        pty(argv[2]);
    } else {
        fprintf(stderr, "usage: see the head of bench/limit.c\n");
        return 2;
    }
    return 0;
}
