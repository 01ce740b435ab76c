#include "app/files/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "base/fd.h"

struct mu_files {
    int dir_fd;
};

static bool is_tmp(const char *name)
{
    struct mu_id id;
    mu_bytes text = mu_str(name);
    return mu_bytes_ends(text, MU_B(".tmp")) &&
           mu_id_parse(mu_bytes_head(text, text.len - 4), NULL, &id) == 0;
}

/* What a server left that was killed while it wrote. Everybody who uses the folder holds a shared
 * lock on it: where another one does, a file may be its work under way, and stays for now. */
static void sweep(int dir_fd)
{
    if (flock(dir_fd, LOCK_EX | LOCK_NB) == 0) {
        int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *d = fd < 0 ? NULL : fdopendir(fd);
        struct dirent *e;
        while (d && (e = readdir(d))) {
            if (is_tmp(e->d_name)) {
                unlinkat(dir_fd, e->d_name, 0);
            }
        }
        if (d) {
            closedir(d);
        } else if (fd >= 0) {
            close(fd);
        }
    }
    (void)!flock(dir_fd, LOCK_SH); /* waits for nobody but another start's sweep */
}

int mu_files_new(const char *dir, struct mu_files **ret, struct mu_err *err)
{
    if (mkdir(dir, 0700) < 0 && errno != EEXIST) {
        return mu_err_set(err, -errno, "cannot make the blob folder '%s': %s", dir,
                          strerror(errno));
    }
    MU_AUTO_CLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return mu_err_set(err, -errno, "cannot open the blob folder '%s': %s", dir,
                          strerror(errno));
    }
    struct mu_files *f = mu_alloc(sizeof *f);
    if (!f) {
        return mu_err_set(err, -ENOMEM, "out of memory");
    }
    f->dir_fd = mu_steal_fd(&fd);
    sweep(f->dir_fd);
    *ret = f;
    return 0;
}

struct mu_files *mu_files_free(struct mu_files *f)
{
    if (f) {
        close(f->dir_fd);
        mu_free(f);
    }
    return NULL;
}

static int code_of(int e)
{
    return e == ENOSPC || e == EDQUOT ? MU_E_DISK_FULL : e == ENOENT ? MU_E_NOT_FOUND : MU_E_IO;
}

/* Names are bare ids (36 known characters), so no name can leave the folder. */
int mu_files_put(struct mu_files *f, const struct mu_id *id, mu_bytes content)
{
    char tmp[MU_ID_LEN + 5];
    snprintf(tmp, sizeof tmp, "%s.tmp", id->text);
    MU_AUTO_CLOSE int fd =
        openat(f->dir_fd, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return code_of(errno);
    }
    int r = mu_write_all(fd, content);
    r = r < 0 ? code_of(-r) : 0;
    if (r == 0 && fsync(fd) < 0) {
        r = code_of(errno);
    }
    if (r == 0 && renameat(f->dir_fd, tmp, f->dir_fd, id->text) < 0) {
        r = code_of(errno);
    }
    if (r == 0 && fsync(f->dir_fd) < 0) {
        r = code_of(errno);
    }
    if (r < 0) {
        unlinkat(f->dir_fd, tmp, 0);
    }
    return r;
}

static int open_id(struct mu_files *f, mu_bytes id, struct mu_id *ret)
{
    if (mu_id_parse(id, NULL, ret) < 0) {
        return MU_E_NOT_FOUND;
    }
    int fd = openat(f->dir_fd, ret->text, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    return fd < 0 ? code_of(errno) : fd;
}

int mu_files_get(struct mu_files *f, mu_bytes id, struct mu_buf *dst)
{
    struct mu_id name;
    MU_AUTO_CLOSE int fd = open_id(f, id, &name);
    if (fd < 0) {
        return fd;
    }
    for (;;) {
        char tmp[65536];
        ssize_t n = read(fd, tmp, sizeof tmp);
        if (n < 0 && errno != EINTR) {
            return MU_E_IO;
        }
        if (n == 0) {
            return dst->failed;
        }
        if (n > 0) {
            mu_buf_add(dst, mu_bytes_of(tmp, (size_t)n));
        }
    }
}

void mu_files_remove(struct mu_files *f, mu_bytes id)
{
    struct mu_id name;
    if (mu_id_parse(id, NULL, &name) == 0) {
        unlinkat(f->dir_fd, name.text, 0);
    }
}
