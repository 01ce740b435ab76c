#include "io/key_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/encode.h"
#include "base/fd.h"

enum { RANDOM = 32, PREFIX_MAX = 16 };

static int sync_folder(const char *dir)
{
    MU_AUTO_CLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

int mu_key_file_write(const char *dir, const char *file, mu_bytes content, bool replace)
{
    char path[4160], temp[4200];
    if (snprintf(path, sizeof path, "%s/%s", dir, file) >= (int)sizeof path ||
        snprintf(temp, sizeof temp, "%s.new-%d", path, (int)getpid()) >= (int)sizeof temp) {
        return -ENAMETOOLONG;
    }
    unlink(temp); /* of a process of the same number that was killed here */
    MU_AUTO_CLOSE int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return -errno;
    }
    int r = mu_write_all(fd, content);
    if (r == 0 && fsync(fd) < 0) {
        r = -errno;
    }
    if (r == 0 && (replace ? rename(temp, path) : link(temp, path)) < 0) {
        r = -errno;
    }
    if (r < 0 || !replace) {
        unlink(temp);
    }
    return r == 0 ? sync_folder(dir) : r;
}

int mu_key_file_make(const struct mu_env *env, const char *dir, const char *file,
                     const char *prefix)
{
    char text[PREFIX_MAX + 2 * RANDOM + 2];
    unsigned char random[RANDOM];
    env->random(env, random, sizeof random);
    int n = snprintf(text, PREFIX_MAX + 1, "%s", prefix);
    mu_hex(random, sizeof random, text + n);
    size_t len = strlen(text);
    text[len] = '\n';
    int r = mu_key_file_write(dir, file, mu_bytes_of(text, len + 1), false);
    explicit_bzero(random, sizeof random);
    explicit_bzero(text, sizeof text);
    return r;
}

static int read_all(int fd, struct mu_buf *b)
{
    for (;;) {
        char block[512];
        ssize_t n = read(fd, block, sizeof block);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n > 0) {
            mu_buf_add(b, mu_bytes_of(block, (size_t)n));
        }
        explicit_bzero(block, sizeof block);
        if (n <= 0 || b->failed) {
            return n < 0 ? -errno : b->failed;
        }
    }
}

static int judge(const char *path, const struct mu_buf *b, struct mu_buf *ret, struct mu_err *err)
{
    mu_bytes text = mu_bytes_trim(mu_buf_bytes(b));
    if (mu_bytes_find_char(text, 0) >= 0) {
        return mu_err_set(err, MU_E_INVALID, "%s holds a NUL byte", path);
    }
    if (text.len < MU_KEY_LEAST) {
        return mu_err_set(err, MU_E_INVALID, "%s holds no key (shorter than %d characters)", path,
                          MU_KEY_LEAST);
    }
    mu_buf_add(ret, text);
    return ret->failed ? mu_err_set(err, ret->failed, "%s", mu_err_text(ret->failed)) : 0;
}

int mu_key_file_read(const char *path, struct mu_buf *ret, struct mu_err *err)
{
    struct stat st;
    struct mu_buf b;
    MU_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        int r = -errno;
        return r == -ENOENT ? MU_E_NOT_FOUND : mu_err_set(err, r, "%s: %s", path, mu_err_text(r));
    }
    if (st.st_mode & 077) {
        return mu_err_set(err, MU_E_INVALID, "%s can be read by others: chmod 600 it", path);
    }
    mu_buf_init(&b, MU_KEY_FILE_MAX);
    int r = read_all(fd, &b);
    r = r < 0 ? mu_err_set(err, r, "%s: %s", path, mu_err_text(r)) : judge(path, &b, ret, err);
    mu_buf_wipe(&b);
    mu_buf_fini(&b);
    return r;
}
