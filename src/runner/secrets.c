#include "runner/secrets.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "proto/repo.h"
#include "runner/envvars.h"
#include "runner/runner_int.h"

extern char **environ;
enum { WORD_MAX = 16, BLOCK = 64 << 10, CLEAN_MAX = 2 << 20 };
#define TEMPORARY ".redacted"

/* --- which --- */

static bool has_part(mu_bytes name)
{
    static const char *const parts[] = {"KEY",  "TOKEN", "SECRET", "PASS",    "PWD",
                                        "CRED", "AUTH",  "COOKIE", "PRIVATE", "DSN"};
    for (size_t i = 0; i < MU_ARRAY_LEN(parts); i++) {
        if (mu_bytes_find_nocase(name, mu_str(parts[i])) >= 0) {
            return true;
        }
    }
    return false;
}

static bool is_path(mu_bytes v)
{
    return mu_bytes_starts(v, MU_B("/")) || mu_bytes_starts(v, MU_B("./")) ||
           mu_bytes_starts(v, MU_B("~/"));
}

/* Names, numbers, short words, addresses that open nothing. */
static bool guessed(mu_bytes v)
{
    bool letter = false, digit = false, other = false;
    for (size_t i = 0; i < v.len; i++) {
        char c = v.ptr[i];
        bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        bool is_digit = c >= '0' && c <= '9';
        letter = letter || is_letter;
        digit = digit || is_digit;
        other = other || (!is_letter && !is_digit && !strchr(" -_.,:", c));
    }
    bool word = !other && !digit && v.len < WORD_MAX;
    bool number = !other && !letter && v.len < WORD_MAX;
    bool address = (mu_bytes_starts(v, MU_B("http://")) || mu_bytes_starts(v, MU_B("https://"))) &&
                   mu_bytes_find_char(v, '@') < 0 && mu_bytes_find_char(v, '?') < 0;
    return word || number || address || is_path(v);
}

bool mu_secret_worth(mu_bytes name, mu_bytes value, bool given)
{
    if (value.len < MU_REDACT_MIN) {
        return false;
    }
    if (given) {
        return has_part(name) ? !is_path(value) || value.len >= 40 : !guessed(value);
    }
    /* what git is told, and where things lie */
    bool ours = mu_bytes_starts(name, MU_B("GIT_")) || mu_bytes_starts(name, MU_B("OZ_ENV_"));
    return has_part(name) && !ours && !is_path(value);
}

/* --- learning --- */

struct learner {
    struct mu_redact *redact;
    bool encoded;
    size_t left_out;
    int failed;
};

static void learn(struct learner *l, mu_bytes name, mu_bytes value)
{
    int e = mu_redact_add(l->redact, name, value, l->encoded);
    l->left_out += e == MU_E_TOO_LARGE && !l->encoded;
    l->failed = e && e != MU_E_TOO_LARGE ? e : l->failed;
}

static int of_user(void *arg, mu_bytes name, mu_bytes value)
{
    if (mu_secret_worth(name, value, true)) {
        learn(arg, name, value);
    }
    return 0;
}

static void of_environment(struct learner *l)
{
    static const char *const always[] = {MU_REPO_TOKENS};
    for (char **e = environ; *e; e++) {
        mu_bytes value = mu_str(*e);
        mu_bytes name = mu_bytes_split(&value, '=');
        bool known = false;
        for (size_t i = 0; i < MU_ARRAY_LEN(always); i++) {
            known = known || mu_bytes_is(name, always[i]);
        }
        if (known || mu_secret_worth(name, value, false)) {
            learn(l, name, value);
        }
    }
}

static void of_runner(struct learner *l, const struct mu_runner *r)
{
    learn(l, MU_B("OZ_RUN_TOKEN"), mu_str(r->token ? r->token : ""));
    learn(l, MU_B("MUSTER_LINK_KEY"), mu_str(r->link_key));
}

int mu_secrets_learn(struct mu_runner *r, mu_bytes lines, mu_bytes json)
{
    struct learner l = {.redact = mu_redact_new()};
    struct mu_err err;
    for (int round = 0; round < 2 && l.redact; round++) {
        l.encoded = round == 1;
        of_runner(&l, r);
        int n = mu_envvars_lines(lines, of_user, &l);
        n = n < 0 || !json.len ? n : mu_envvars_json(json, of_user, &l, &err);
        l.failed = n < 0 ? n : l.failed; /* they were well-formed: no memory */
        of_environment(&l);
    }
    if (!l.redact || l.failed || mu_redact_ready(l.redact) < 0) {
        l.redact = mu_redact_free(l.redact);
        return mu_runner_fail(r, 1, "out of memory");
    }
    if (l.left_out) { /* nobody can be promised anything then */
        l.redact = mu_redact_free(l.redact);
        return mu_runner_fail(r, 2, "the variables are too long to be kept out of what is shown");
    }
    r->redact = l.redact;
    r->procs.redact = l.redact;
    return 0;
}

void mu_secrets_forget(struct mu_runner *r)
{
    r->procs.redact = NULL;
    r->redact = mu_redact_free(r->redact);
    explicit_bzero(r->link_key, sizeof r->link_key);
}

void mu_secrets_hide(const struct mu_redact *r, char *text, size_t cap)
{
    struct mu_buf b MU_CLEANUP(mu_buf_fini);
    mu_buf_init(&b, CLEAN_MAX);
    if (mu_redact_any(r) && mu_redact_text(r, mu_str(text), &b)) {
        mu_bytes clean = mu_bytes_head(mu_buf_bytes(&b), b.failed ? 0 : cap - 1);
        memcpy(text, clean.ptr, clean.len);
        text[clean.len] = 0;
    }
}

/* --- files --- */

/* Never through a link. */
static int open_below(int oz, const char *path, int access)
{
    char part[256];
    int dir MU_AUTO_CLOSE = openat(oz, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    mu_bytes rest = mu_str(path);
    while (dir >= 0 && rest.ptr) {
        mu_bytes name = mu_bytes_split(&rest, '/');
        if (!name.len || name.len >= sizeof part || mu_bytes_is(name, "..")) {
            return MU_E_INVALID;
        }
        snprintf(part, sizeof part, "%.*s", MU_ARGS(name));
        int flags = rest.ptr ? O_RDONLY | O_DIRECTORY : access | O_NONBLOCK;
        int fd = openat(dir, part, flags | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0 || !rest.ptr) {
            return fd < 0 ? -errno : fd;
        }
        close(dir);
        dir = fd;
    }
    return dir < 0 ? -errno : MU_E_INVALID;
}

static int put_all(int fd, mu_bytes b)
{
    while (b.len) {
        ssize_t n = write(fd, b.ptr, b.len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? -errno : -EIO;
        }
        b = mu_bytes_from(b, (size_t)n);
    }
    return 0;
}

/* What is in `fd`, without them, into `to` (-1: only looked at). The marks, or a negative code. */
static int64_t pass(const struct mu_redact *r, int fd, int to)
{
    struct mu_redact_stream s = {.state = 0};
    struct mu_buf clean MU_CLEANUP(mu_buf_wipe);
    char *block MU_AUTO_FREE = mu_alloc(BLOCK);
    int64_t at = 0;
    int e = block ? 0 : -ENOMEM;
    mu_buf_init(&clean, CLEAN_MAX);
    for (ssize_t n = 1; n > 0 && !e;) {
        n = pread(fd, block, BLOCK, at);
        at += n > 0 ? n : 0;
        e = n < 0 ? -errno : 0;
        mu_buf_clear(&clean);
        if (n > 0) {
            mu_redact_feed(r, &s, mu_bytes_of(block, (size_t)n), &clean);
        } else {
            mu_redact_flush(r, &s, &clean);
        }
        e = e ? e : clean.failed;
        e = e || to < 0 ? e : put_all(to, mu_buf_bytes(&clean));
    }
    return e ? e : (int64_t)s.hits;
}

/* The same file, whatever its owner's rights say. */
static int copy_back(struct mu_runner *r, const char *path, int fd, int from)
{
    struct stat st, again;
    if (fstat(fd, &st) < 0 || fchmod(fd, st.st_mode | S_IWUSR) < 0) {
        return -errno;
    }
    int to MU_AUTO_CLOSE = open_below(r->ws.oz, path, O_RDWR);
    if (to < 0) {
        return to;
    }
    if (fstat(to, &again) < 0 || again.st_ino != st.st_ino || again.st_dev != st.st_dev) {
        return MU_E_CONFLICT;
    }
    if (ftruncate(to, 0) < 0 || lseek(to, 0, SEEK_SET) < 0) {
        return -errno;
    }
    int64_t e = pass(NULL, from, to);
    return e < 0 ? (int)e : 0;
}

int64_t mu_secrets_file(struct mu_runner *r, const char *path)
{
    int fd MU_AUTO_CLOSE = open_below(r->ws.oz, path, O_RDONLY);
    struct stat st;
    if (fd < 0) {
        return fd;
    }
    int64_t hits = mu_redact_any(r->redact) ? pass(r->redact, fd, -1) : 0;
    if (hits > 0) {
        int to MU_AUTO_CLOSE = mu_workspace_create(&r->ws, TEMPORARY, 0600);
        hits = to < 0 ? to : pass(r->redact, fd, to);
        hits = hits < 0 ? hits : copy_back(r, path, fd, to);
        (void)unlinkat(r->ws.oz, TEMPORARY, 0);
    }
    if (hits < 0) {
        return hits;
    }
    return fstat(fd, &st) < 0 ? -errno : (int64_t)st.st_size;
}
