/* Files of settings. An INI file and a .env file are one grammar here: inih (as packaged) cuts
 * lines at 200 characters, which an API key or a JSON value exceeds. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/encode.h"
#include "main/config_int.h"

static int slurp(struct mu_arena *a, const char *path, mu_bytes *ret, struct mu_err *err)
{
    MU_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0) {
        int code = errno == ENOENT ? MU_E_NOT_FOUND : -errno;
        return mu_err_set(err, code, "cannot open %s: %s", path, mu_err_text(-errno));
    }
    if (fstat(fd, &st) < 0 || S_ISDIR(st.st_mode)) {
        return mu_err_set(err, MU_E_INVALID, "%s is not a file", path);
    }
    struct mu_buf b;
    mu_buf_init(&b, MU_CONFIG_MAX_FILE);
    int r = 0;
    for (;;) {
        char *room = mu_buf_room(&b, 4096);
        if (!room) {
            r = mu_err_set(err, b.failed, "%s: %s (at most %d bytes)", path, mu_err_text(b.failed),
                           MU_CONFIG_MAX_FILE - 4096);
            break;
        }
        ssize_t got = read(fd, room, 4096);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            r = mu_err_set(err, -errno, "cannot read %s: %s", path, mu_err_text(-errno));
        }
        if (got <= 0) {
            break;
        }
        b.len += (size_t)got;
    }
    if (r == 0) {
        *ret = mu_arena_dup(a, mu_buf_bytes(&b));
        r = ret->ptr ? 0 : mu_err_set(err, -ENOMEM, "%s: %s", path, mu_err_text(-ENOMEM));
    }
    mu_buf_wipe(&b);
    mu_buf_fini(&b);
    return r;
}

int mu_config_read_value(struct mu_arena *a, const char *path, mu_bytes *ret, struct mu_err *err)
{
    mu_bytes text;
    int r = slurp(a, path, &text, err);
    if (r < 0) {
        return r;
    }
    text = mu_bytes_trim(text);
    if (mu_bytes_find_char(text, 0) >= 0) {
        return mu_err_set(err, MU_E_INVALID, "%s holds a NUL byte", path);
    }
    *ret = text;
    return 0;
}

/* Between quotes: in double ones \n \t \" \\ are known. Writes into the arena. */
static int unquote(struct mu_arena *a, mu_bytes v, mu_bytes *ret)
{
    char q = v.ptr[0];
    char *dst = mu_arena_alloc(a, v.len + 1);
    size_t n = 0, i = 1;
    if (!dst) {
        return -ENOMEM;
    }
    for (; i < v.len && v.ptr[i] != q; i++) {
        char c = v.ptr[i];
        if (q == '"' && c == '\\' && i + 1 < v.len) {
            c = v.ptr[++i];
            c = (char)(c == 'n' ? '\n' : c == 't' ? '\t' : c);
        }
        dst[n++] = c;
    }
    if (i >= v.len) {
        return MU_E_INVALID;
    }
    mu_bytes tail = mu_bytes_trim(mu_bytes_from(v, i + 1));
    if (tail.len && tail.ptr[0] != '#') {
        return MU_E_INVALID;
    }
    dst[n] = 0;
    *ret = mu_bytes_of(dst, n);
    return 0;
}

/* A comment begins at " #": a "#" inside a word (a URL's fragment, a password) stays. */
static mu_bytes without_comment(mu_bytes v)
{
    for (size_t i = 0; i < v.len; i++) {
        if (v.ptr[i] == '#' && (i == 0 || v.ptr[i - 1] == ' ' || v.ptr[i - 1] == '\t')) {
            return mu_bytes_trim(mu_bytes_head(v, i));
        }
    }
    return v;
}

static bool name_ok(mu_bytes name)
{
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        if (c <= ' ' || c > '~' || c == '"' || c == '\'') {
            return false;
        }
    }
    return name.len > 0;
}

static int bad_line(const char *path, unsigned line, struct mu_err *err, const char *why)
{
    return mu_err_set(err, MU_E_INVALID, "%s, line %u: %s", path, line, why);
}

static int one_line(struct mu_arena *a, const char *path, unsigned line, mu_bytes text,
                    mu_bytes *ret_name, mu_bytes *ret_value, struct mu_err *err)
{
    mu_bytes export_ = MU_B("export ");
    if (mu_bytes_starts(text, export_)) {
        text = mu_bytes_trim(mu_bytes_from(text, export_.len));
    }
    ptrdiff_t eq = mu_bytes_find_char(text, '=');
    if (eq < 0) {
        return bad_line(path, line, err, "expected NAME=value");
    }
    mu_bytes name = mu_bytes_trim(mu_bytes_head(text, (size_t)eq));
    mu_bytes value = mu_bytes_trim(mu_bytes_from(text, (size_t)eq + 1));
    if (!name_ok(name)) {
        return bad_line(path, line, err, "the name in front of = is missing or not a name");
    }
    if (!mu_utf8_valid(value) || mu_bytes_find_char(value, 0) >= 0) {
        return bad_line(path, line, err, "the value is not UTF-8 text");
    }
    if (value.len && (value.ptr[0] == '"' || value.ptr[0] == '\'')) {
        int r = unquote(a, value, &value);
        if (r < 0) {
            return bad_line(path, line, err,
                            r == -ENOMEM ? mu_err_text(r) : "the quotes do not match");
        }
    } else {
        value = without_comment(value);
    }
    *ret_name = name;
    *ret_value = value;
    return 0;
}

int mu_config_read_file(struct mu_arena *a, const char *path,
                        int (*on_pair)(void *arg, mu_bytes name, mu_bytes value, unsigned line,
                                       struct mu_err *err),
                        void *arg, struct mu_err *err)
{
    mu_bytes text;
    int r = slurp(a, path, &text, err);
    unsigned line = 0;
    if (r == 0 && mu_bytes_starts(text, MU_B("\xef\xbb\xbf"))) {
        text = mu_bytes_from(text, 3);
    }
    for (mu_bytes rest = text; r == 0 && rest.ptr;) {
        mu_bytes l = mu_bytes_trim(mu_bytes_split(&rest, '\n')), name, value;
        line++;
        if (l.len == 0 || l.ptr[0] == '#' || l.ptr[0] == ';') {
            continue;
        }
        if (l.ptr[0] == '[') {
            r = l.ptr[l.len - 1] == ']' ? 0 : bad_line(path, line, err, "expected [section]");
            continue;
        }
        r = one_line(a, path, line, l, &name, &value, err);
        if (r == 0) {
            r = on_pair(arg, name, value, line, err);
            if (r < 0) {
                mu_err_context(err, "%s, line %u", path, line);
            }
        }
    }
    return r;
}
