#include "worker/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/map.h"

/* A record: 4 bytes length of what follows the checksum, 4 bytes checksum of it, then 1 byte kind,
 * 1 byte length of the key, the key, the payload. Numbers are little-endian. */
enum {
    HEAD = 8,
    FIXED = 2,
    MAGIC_LEN = 8,
    COPY_PIECE = 64 << 10,
    COMPACT_FROM = 4 << 20, /* smaller files are left alone */
};
static const char magic[MAGIC_LEN + 1] = "MUWJRNL1";

struct place {
    int64_t at; /* of the record; 0 = there is none */
    uint32_t len;
};

struct entry {
    struct place start, end;
    size_t key_len;
    char key[];
};

struct mu_journal {
    int fd;
    char *path;
    int64_t size, live;
    struct mu_map entries;
};

/* --- bytes --- */

static uint32_t crc_step(uint32_t crc, mu_bytes b)
{
    static const uint32_t nibble[16] = {0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac,
                                        0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
                                        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
                                        0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    for (size_t i = 0; i < b.len; i++) {
        crc ^= (unsigned char)b.ptr[i];
        crc = crc >> 4 ^ nibble[crc & 15];
        crc = crc >> 4 ^ nibble[crc & 15];
    }
    return crc;
}

static void put_u32(char *dst, uint32_t v)
{
    for (int i = 0; i < 4; i++) {
        dst[i] = (char)(v >> (8 * i));
    }
}

static uint32_t get_u32(const char *src)
{
    uint32_t v = 0;
    for (int i = 0; i < 4; i++) {
        v |= (uint32_t)(unsigned char)src[i] << (8 * i);
    }
    return v;
}

static int read_at(int fd, char *dst, size_t len, int64_t at)
{
    while (len) {
        ssize_t n = pread(fd, dst, len, at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? -errno : MU_E_CORRUPT;
        }
        dst += n;
        len -= (size_t)n;
        at += n;
    }
    return 0;
}

static int write_at(int fd, mu_bytes b, int64_t at)
{
    while (b.len) {
        ssize_t n = pwrite(fd, b.ptr, b.len, at);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return errno == ENOSPC || errno == EDQUOT ? MU_E_DISK_FULL : -errno;
        }
        b = mu_bytes_from(b, (size_t)n);
        at += n;
    }
    return 0;
}

/* The folder's entry is on the disk too. */
static void sync_folder(const char *path)
{
    char dir[4096];
    const char *slash = strrchr(path, '/');
    snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    MU_AUTO_CLOSE int fd = open(dir[0] ? dir : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        int r MU_UNUSED = fsync(fd);
    }
}

/* --- the index --- */

static struct entry *entry_of(struct mu_journal *j, mu_bytes key)
{
    struct entry *e = mu_map_get(&j->entries, key);
    if (e) {
        return e;
    }
    e = mu_calloc(1, sizeof *e + key.len + 1);
    if (!e) {
        return NULL;
    }
    memcpy(e->key, key.ptr, key.len);
    e->key_len = key.len;
    if (mu_map_put(&j->entries, mu_bytes_of(e->key, e->key_len), e) < 0) {
        mu_free(e);
        return NULL;
    }
    return e;
}

static void forget(struct mu_journal *j, struct entry *e)
{
    j->live -= (int64_t)e->start.len + e->end.len;
    mu_map_remove(&j->entries, mu_bytes_of(e->key, e->key_len));
    mu_free(e);
}

static void set_place(struct mu_journal *j, struct place *p, int64_t at, uint32_t len)
{
    j->live += (int64_t)len - p->len;
    p->at = at;
    p->len = len;
}

static int note(struct mu_journal *j, int kind, mu_bytes key, int64_t at, uint32_t len)
{
    if (kind == MU_JOURNAL_GONE) {
        struct entry *old = mu_map_get(&j->entries, key);
        if (old) {
            forget(j, old);
        }
        return 0;
    }
    struct entry *e = entry_of(j, key);
    if (!e) {
        return -ENOMEM;
    }
    set_place(j, kind == MU_JOURNAL_START ? &e->start : &e->end, at, len);
    return 0;
}

/* --- reading the file --- */

/* Looks at the record at `at`: its whole length and key, or MU_E_CORRUPT. */
static int check_record(int fd, int64_t at, int64_t size, int *kind,
                        char key[MU_JOURNAL_MAX_KEY + 1], size_t *key_len, uint32_t *ret_len)
{
    char head[HEAD + FIXED], piece[4096];
    if (size - at < HEAD + FIXED) {
        return MU_E_CORRUPT;
    }
    int r = read_at(fd, head, sizeof head, at);
    if (r < 0) {
        return r;
    }
    uint32_t len = get_u32(head), want = get_u32(head + 4);
    *kind = (unsigned char)head[HEAD];
    *key_len = (unsigned char)head[HEAD + 1];
    if (len < FIXED + *key_len || (int64_t)len > size - at - HEAD || *key_len == 0 ||
        *key_len > MU_JOURNAL_MAX_KEY || *kind < MU_JOURNAL_START || *kind > MU_JOURNAL_GONE) {
        return MU_E_CORRUPT;
    }
    uint32_t crc = 0xffffffff;
    for (uint32_t done = 0; done < len;) {
        size_t n = MU_MIN(len - done, (uint32_t)sizeof piece);
        r = read_at(fd, piece, n, at + HEAD + done);
        if (r < 0) {
            return r;
        }
        if (done == 0) {
            memcpy(key, piece + FIXED, *key_len);
        }
        crc = crc_step(crc, mu_bytes_of(piece, n));
        done += (uint32_t)n;
    }
    if (~crc != want) {
        return MU_E_CORRUPT;
    }
    *ret_len = HEAD + len;
    return 0;
}

static int scan(struct mu_journal *j, int64_t size, int64_t *ret_lost)
{
    int64_t at = MAGIC_LEN;
    char head[MAGIC_LEN], key[MU_JOURNAL_MAX_KEY + 1];
    int r = size < MAGIC_LEN ? 0 : read_at(j->fd, head, MAGIC_LEN, 0);
    if (r < 0) {
        return r;
    }
    if (size < MAGIC_LEN || memcmp(head, magic, MAGIC_LEN) != 0) {
        at = 0; /* nothing of ours */
    }
    while (at && at < size) {
        int kind;
        size_t key_len;
        uint32_t len;
        r = check_record(j->fd, at, size, &kind, key, &key_len, &len);
        if (r == MU_E_CORRUPT) {
            break;
        }
        if (r == 0) {
            r = note(j, kind, mu_bytes_of(key, key_len), at, len);
        }
        if (r < 0) {
            return r;
        }
        at += len;
    }
    *ret_lost = size - at;
    if (size > at && ftruncate(j->fd, at) < 0) {
        return -errno;
    }
    if (at == 0) {
        r = write_at(j->fd, mu_bytes_of(magic, MAGIC_LEN), 0);
        if (r < 0) {
            return r;
        }
        at = MAGIC_LEN;
    }
    j->size = at;
    return 0;
}

int mu_journal_open(const char *path, struct mu_journal **ret, int64_t *ret_lost,
                    struct mu_err *err)
{
    struct mu_journal *j = mu_calloc(1, sizeof *j);
    struct stat st;
    int r = -ENOMEM;
    if (!j) {
        return mu_err_set(err, r, "%s", mu_err_text(r));
    }
    j->fd = -1;
    mu_map_init(&j->entries);
    j->path = mu_bytes_dup(mu_str(path));
    if (j->path) {
        j->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        r = j->fd < 0 || fstat(j->fd, &st) < 0 ? -errno : 0;
    }
    if (r == 0) {
        r = scan(j, st.st_size, ret_lost);
    }
    if (r == 0 && st.st_size == 0) {
        sync_folder(path);
    }
    if (r < 0) {
        mu_journal_close(j);
        return mu_err_set(err, r, "journal '%s': %s", path, mu_err_text(r));
    }
    *ret = j;
    return 0;
}

struct mu_journal *mu_journal_close(struct mu_journal *j)
{
    if (!j) {
        return NULL;
    }
    struct entry *e;
    for (size_t at = 0; (e = mu_map_next(&j->entries, &at));) {
        mu_map_remove(&j->entries, mu_bytes_of(e->key, e->key_len));
        mu_free(e);
    }
    mu_map_fini(&j->entries);
    if (j->fd >= 0) {
        close(j->fd);
    }
    mu_free(j->path);
    mu_free(j);
    return NULL;
}

/* --- writing --- */

/* One record at the end of the file; a failure leaves the file as it was. */
static int append(struct mu_journal *j, int kind, mu_bytes key, mu_bytes payload, bool sync)
{
    char head[HEAD + FIXED + MU_JOURNAL_MAX_KEY];
    put_u32(head, (uint32_t)(FIXED + key.len + payload.len));
    head[HEAD] = (char)kind;
    head[HEAD + 1] = (char)key.len;
    memcpy(head + HEAD + FIXED, key.ptr, key.len);
    uint32_t crc = crc_step(0xffffffff, mu_bytes_of(head + HEAD, FIXED + key.len));
    put_u32(head + 4, ~crc_step(crc, payload));
    size_t head_len = HEAD + FIXED + key.len;
    int r = write_at(j->fd, mu_bytes_of(head, head_len), j->size);
    if (r == 0) {
        r = write_at(j->fd, payload, j->size + (int64_t)head_len);
    }
    if (r == 0 && sync && fdatasync(j->fd) < 0) {
        r = errno == ENOSPC || errno == EDQUOT ? MU_E_DISK_FULL : -errno;
    }
    if (r < 0) {
        /* What was half written fails its checksum should even this fail. */
        int cut MU_UNUSED = ftruncate(j->fd, j->size);
    }
    return r;
}

static int copy_record(struct mu_journal *j, int to, struct place *p, int64_t *at, char *piece)
{
    int64_t from = p->at, target = *at;
    for (uint32_t left = p->len; left;) {
        size_t n = MU_MIN(left, (uint32_t)COPY_PIECE);
        int r = read_at(j->fd, piece, n, from);
        if (r == 0) {
            r = write_at(to, mu_bytes_of(piece, n), target);
        }
        if (r < 0) {
            return r;
        }
        from += (int64_t)n;
        target += (int64_t)n;
        left -= (uint32_t)n;
    }
    *at = target;
    return 0;
}

static int copy_live(struct mu_journal *j, int to, int64_t *ret_size)
{
    char *piece = mu_alloc(COPY_PIECE);
    int64_t at = MAGIC_LEN;
    struct entry *e;
    int r = piece ? write_at(to, mu_bytes_of(magic, MAGIC_LEN), 0) : -ENOMEM;
    for (size_t i = 0; r == 0 && (e = mu_map_next(&j->entries, &i));) {
        if (e->start.at) {
            r = copy_record(j, to, &e->start, &at, piece);
        }
        if (r == 0 && e->end.at) {
            r = copy_record(j, to, &e->end, &at, piece);
        }
    }
    mu_free(piece);
    *ret_size = at;
    return r;
}

/* Copies are in the order of the walk, so the places are found again by the same walk. */
static void take_over(struct mu_journal *j, int fd, int64_t size)
{
    int64_t at = MAGIC_LEN;
    struct entry *e;
    for (size_t i = 0; (e = mu_map_next(&j->entries, &i));) {
        if (e->start.at) {
            e->start.at = at;
            at += e->start.len;
        }
        if (e->end.at) {
            e->end.at = at;
            at += e->end.len;
        }
    }
    close(j->fd);
    j->fd = fd;
    j->size = size;
}

/* A failure is no harm: the file stays as it is and grows a little more. */
static void compact(struct mu_journal *j)
{
    char tmp[4096];
    int64_t size;
    if (j->size < COMPACT_FROM || j->live > j->size / 2 ||
        snprintf(tmp, sizeof tmp, "%s.tmp", j->path) >= (int)sizeof tmp) {
        return;
    }
    MU_AUTO_CLOSE int fd = open(tmp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return;
    }
    if (copy_live(j, fd, &size) < 0 || fsync(fd) < 0 || rename(tmp, j->path) < 0) {
        unlink(tmp);
        return;
    }
    sync_folder(j->path);
    take_over(j, mu_steal_fd(&fd), size);
}

int mu_journal_put(struct mu_journal *j, enum mu_journal_kind kind, mu_bytes key, mu_bytes payload,
                   bool sync)
{
    if (key.len == 0 || key.len > MU_JOURNAL_MAX_KEY ||
        (kind != MU_JOURNAL_START && kind != MU_JOURNAL_END)) {
        return MU_E_INVALID;
    }
    struct entry *e = mu_map_get(&j->entries, key);
    int64_t other = e ? (kind == MU_JOURNAL_START ? e->end.len : e->start.len) : 0;
    int64_t old = e ? (int64_t)e->start.len + e->end.len - other : 0;
    int64_t len = (int64_t)(HEAD + FIXED + key.len + payload.len);
    if (payload.len > MU_JOURNAL_MAX_RECORD || len + other > MU_JOURNAL_MAX_RECORD ||
        j->live - old + len > MU_JOURNAL_MAX_LIVE) {
        return MU_E_LIMIT;
    }
    bool fresh = !e;
    e = entry_of(j, key); /* before the write: what is in the file must be known */
    if (!e) {
        return -ENOMEM;
    }
    int r = append(j, (int)kind, key, payload, sync);
    if (r < 0) {
        if (fresh) {
            forget(j, e);
        }
        return r;
    }
    set_place(j, kind == MU_JOURNAL_START ? &e->start : &e->end, j->size, (uint32_t)len);
    j->size += len;
    compact(j);
    return 0;
}

int mu_journal_remove(struct mu_journal *j, mu_bytes key)
{
    struct entry *e = mu_map_get(&j->entries, key);
    if (!e) {
        return 0;
    }
    int r = append(j, MU_JOURNAL_GONE, key, MU_B_NONE, false);
    if (r < 0) {
        return r;
    }
    j->size += (int64_t)(HEAD + FIXED + key.len);
    forget(j, e);
    compact(j);
    return 0;
}

int mu_journal_read(struct mu_journal *j, enum mu_journal_kind kind, mu_bytes key,
                    struct mu_buf *dst)
{
    struct entry *e = mu_map_get(&j->entries, key);
    const struct place *p = e ? (kind == MU_JOURNAL_START ? &e->start : &e->end) : NULL;
    if (!p || !p->at) {
        return MU_E_NOT_FOUND;
    }
    size_t skip = HEAD + FIXED + key.len, len = p->len - skip;
    char head[HEAD + FIXED + MU_JOURNAL_MAX_KEY];
    int r = read_at(j->fd, head, skip, p->at);
    if (r < 0) {
        return r;
    }
    char *room = len ? mu_buf_room(dst, len) : NULL;
    if (len && !room) {
        return dst->failed;
    }
    r = len ? read_at(j->fd, room, len, p->at + (int64_t)skip) : 0;
    if (r < 0) {
        return r;
    }
    uint32_t crc = crc_step(0xffffffff, mu_bytes_of(head + HEAD, skip - HEAD));
    if (~crc_step(crc, mu_bytes_of(room, len)) != get_u32(head + 4)) {
        return MU_E_CORRUPT;
    }
    dst->len += len;
    return 0;
}

mu_bytes mu_journal_next(const struct mu_journal *j, size_t *at, bool *ret_start, bool *ret_end)
{
    struct entry *e = mu_map_next(&j->entries, at);
    if (!e) {
        return MU_B_NONE;
    }
    *ret_start = e->start.at != 0;
    *ret_end = e->end.at != 0;
    return mu_bytes_of(e->key, e->key_len);
}

int64_t mu_journal_size(const struct mu_journal *j)
{
    return j->size;
}

int64_t mu_journal_live(const struct mu_journal *j)
{
    return j->live;
}
