#include "exec/engine/tar.h"

#include <errno.h>
#include <stdio.h>

/* Places in a header block. */
enum {
    NAME = 0,
    NAME_LEN = 100,
    MODE = 100,
    UID = 108,
    GID = 116,
    SIZE = 124,
    MTIME = 136,
    SUM = 148,
    TYPE = 156,
    MAGIC = 257,
    PREFIX = 345,
    PREFIX_LEN = 155,
};

static unsigned sum_of(const char *block)
{
    unsigned sum = 0;
    for (size_t i = 0; i < MU_TAR_BLOCK; i++) {
        sum += i >= SUM && i < SUM + 8 ? ' ' : (unsigned char)block[i];
    }
    return sum;
}

/* --- writing --- */

static void pad(struct mu_buf *dst, size_t len)
{
    static const char zeros[MU_TAR_BLOCK];
    size_t over = len % MU_TAR_BLOCK;
    mu_buf_add(dst, mu_bytes_of(zeros, over ? MU_TAR_BLOCK - over : 0));
}

static void add_header(struct mu_buf *dst, mu_bytes name, char type, unsigned mode, size_t size)
{
    char b[MU_TAR_BLOCK] = {0};
    name = mu_bytes_head(name, NAME_LEN);
    if (name.len) {
        memcpy(b + NAME, name.ptr, name.len);
    }
    snprintf(b + MODE, 8, "%07o", mode & 07777u);
    snprintf(b + UID, 8, "%07o", 0u);
    snprintf(b + GID, 8, "%07o", 0u);
    snprintf(b + SIZE, 12, "%011llo", (unsigned long long)size);
    snprintf(b + MTIME, 12, "%011o", 0u);
    b[TYPE] = type;
    memcpy(b + MAGIC, "ustar\00000", 8);
    snprintf(b + SUM, 8, "%06o", sum_of(b));
    b[SUM + 7] = ' ';
    mu_buf_add(dst, mu_bytes_of(b, sizeof b));
}

/* A name that the header has no room for goes before it, as "<length> path=<name>\n". */
static void add_entry(struct mu_buf *dst, const char *name, char type, unsigned mode, size_t size)
{
    mu_bytes n = mu_str(name);
    if (n.len > NAME_LEN) {
        size_t body = n.len + sizeof " path=\n" - 1, len = body + 1;
        char number[24];
        while (body + (size_t)snprintf(number, sizeof number, "%zu", len) != len) {
            len++;
        }
        add_header(dst, MU_B("pax"), 'x', 0644, len);
        mu_buf_printf(dst, "%s path=%s\n", number, name);
        pad(dst, len);
    }
    add_header(dst, n, type, mode, size);
}

void mu_tar_add_file(struct mu_buf *dst, const char *name, unsigned mode, mu_bytes content)
{
    add_entry(dst, name, '0', mode, content.len);
    mu_buf_add(dst, content);
    pad(dst, content.len);
}

void mu_tar_add_dir(struct mu_buf *dst, const char *name, unsigned mode)
{
    add_entry(dst, name, '5', mode, 0);
}

void mu_tar_add_end(struct mu_buf *dst)
{
    static const char zeros[2 * MU_TAR_BLOCK];
    mu_buf_add(dst, mu_bytes_of(zeros, sizeof zeros));
}

/* --- reading --- */

void mu_tar_init(struct mu_tar *t)
{
    *t = (struct mu_tar){.size = -1};
    mu_buf_init(&t->text, MU_TAR_META);
    mu_buf_init(&t->name, MU_TAR_NAME);
}

void mu_tar_fini(struct mu_tar *t)
{
    mu_buf_fini(&t->text);
    mu_buf_fini(&t->name);
}

/* Octal with blanks or NULs around it, or base 256 when the first bit is set; -1 = neither. */
static int64_t number(const char *at, size_t len)
{
    const unsigned char *p = (const unsigned char *)at;
    int64_t v = 0;
    size_t i = 0;
    if (p[0] & 0x80) {
        v = p[0] & 0x7f; /* with 0x40 set it would be negative: too large then, see below */
        for (i = 1; i < len; i++) {
            if (v > INT64_MAX >> 8) {
                return -1;
            }
            v = v << 8 | p[i];
        }
        return v;
    }
    while (i < len && p[i] == ' ') {
        i++;
    }
    for (; i < len && p[i] >= '0' && p[i] <= '7'; i++) {
        v = v << 3 | (p[i] - '0');
    }
    for (; i < len; i++) {
        if (p[i] && p[i] != ' ') {
            return -1;
        }
    }
    return v;
}

static int pax_record(struct mu_tar *t, mu_bytes key, mu_bytes value)
{
    if (mu_bytes_is(key, "path")) {
        mu_buf_clear(&t->name);
        mu_buf_add(&t->name, value);
        return t->name.failed;
    }
    if (mu_bytes_is(key, "size")) {
        int64_t n;
        if (mu_bytes_i64(value, &n) < 0 || n < 0) {
            return MU_E_CORRUPT;
        }
        t->size = n;
    }
    return 0;
}

/* "<length> <key>=<value>\n", the length counting itself. */
static int pax(struct mu_tar *t)
{
    mu_bytes rest = mu_buf_bytes(&t->text);
    while (rest.len) {
        ptrdiff_t blank = mu_bytes_find_char(mu_bytes_head(rest, 20), ' ');
        int64_t len;
        if (blank <= 0 || mu_bytes_i64(mu_bytes_head(rest, (size_t)blank), &len) < 0 ||
            len <= blank + 2 || (uint64_t)len > rest.len || rest.ptr[len - 1] != '\n') {
            return MU_E_CORRUPT;
        }
        mu_bytes value = mu_bytes_of(rest.ptr + blank + 1, (size_t)(len - blank - 2));
        mu_bytes key = mu_bytes_split(&value, '=');
        if (!value.ptr) {
            return MU_E_CORRUPT;
        }
        int r = pax_record(t, key, value);
        if (r < 0) {
            return r;
        }
        rest = mu_bytes_from(rest, (size_t)len);
    }
    return 0;
}

static int meta_done(struct mu_tar *t)
{
    char kind = t->meta;
    int r = 0;
    t->meta = 0;
    if (kind == 'x') {
        r = pax(t);
    } else if (kind == 'L') {
        mu_bytes name = mu_buf_bytes(&t->text);
        ptrdiff_t nul = mu_bytes_find_char(name, 0);
        mu_buf_clear(&t->name);
        mu_buf_add(&t->name, nul >= 0 ? mu_bytes_head(name, (size_t)nul) : name);
        r = t->name.failed;
    }
    mu_buf_clear(&t->text);
    return r;
}

/* Name and size as the header, or what went before it, says. */
static int begin_entry(struct mu_tar *t, char type, int64_t size)
{
    const char *b = t->block;
    if (t->name.len == 0) {
        mu_bytes prefix = mu_bytes_of(b + PREFIX, strnlen(b + PREFIX, PREFIX_LEN));
        if (memcmp(b + MAGIC, "ustar\0", 6) == 0 && prefix.len) {
            mu_buf_add(&t->name, prefix);
            mu_buf_add_char(&t->name, '/');
        }
        mu_buf_add(&t->name, mu_bytes_of(b + NAME, strnlen(b + NAME, NAME_LEN)));
    }
    if (t->name.failed) {
        return t->name.failed;
    }
    size = t->size >= 0 ? t->size : size;
    /* Only files have content; some writers leave the target's size in links. */
    bool file = type == '0' || type == '7';
    struct mu_tar_entry e = {
        .name = mu_buf_bytes(&t->name),
        .type = type == '7' ? '0' : type,
        .mode = (unsigned)number(b + MODE, 8) & 07777u,
        .size = file ? size : 0,
    };
    t->left = type >= '1' && type <= '6' ? 0 : size;
    t->pad = (MU_TAR_BLOCK - t->left % MU_TAR_BLOCK) % MU_TAR_BLOCK;
    t->size = -1;
    int r = t->on_entry ? t->on_entry(t->arg, &e) : 0;
    mu_buf_clear(&t->name);
    return r;
}

static int header(struct mu_tar *t)
{
    const char *b = t->block;
    static const char zeros[MU_TAR_BLOCK];
    t->have = 0;
    if (memcmp(b, zeros, MU_TAR_BLOCK) == 0) {
        t->done = ++t->zeros == 2;
        return 0;
    }
    t->zeros = 0;
    int64_t size = number(b + SIZE, 12);
    if (number(b + SUM, 8) != (int64_t)sum_of(b) || size < 0) {
        return MU_E_CORRUPT;
    }
    char type = b[TYPE] ? b[TYPE] : '0';
    if (type == 'x' || type == 'L' || type == 'K' || type == 'g') {
        t->meta = type;
        t->left = size;
        t->pad = (MU_TAR_BLOCK - size % MU_TAR_BLOCK) % MU_TAR_BLOCK;
        return size > MU_TAR_META ? MU_E_TOO_LARGE : size == 0 ? meta_done(t) : 0;
    }
    return begin_entry(t, type, size);
}

static int content(struct mu_tar *t, mu_bytes piece)
{
    t->left -= (int64_t)piece.len;
    if (!t->meta) {
        return t->on_data ? t->on_data(t->arg, piece) : 0;
    }
    mu_buf_add(&t->text, piece);
    if (t->text.failed) {
        return t->text.failed;
    }
    return t->left == 0 ? meta_done(t) : 0;
}

int mu_tar_feed(struct mu_tar *t, mu_bytes in)
{
    int r = 0;
    while (in.len && !t->done && r >= 0) {
        size_t n;
        if (t->left > 0) {
            mu_bytes piece = mu_bytes_head(in, (size_t)MU_MIN(t->left, (int64_t)in.len));
            n = piece.len;
            r = content(t, piece);
        } else if (t->pad > 0) {
            n = (size_t)MU_MIN(t->pad, (int64_t)in.len);
            t->pad -= (int64_t)n;
        } else {
            n = MU_MIN(in.len, sizeof t->block - t->have);
            memcpy(t->block + t->have, in.ptr, n);
            t->have += n;
            r = t->have == sizeof t->block ? header(t) : 0;
        }
        in = mu_bytes_from(in, n);
    }
    return r;
}
