/* Private directories of child processes. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "app/providers/providers_int.h"
#include "io/folder.h"

enum { ID_MAX = 64 };

static const char prefix[] = "run-";
static const char suffix[] = "-XXXXXX";

size_t mu_private_dir_size(const char *scratch, const char *run_id)
{
    return strlen(scratch) + 1 + sizeof prefix + MU_MIN(strlen(run_id), (size_t)ID_MAX) +
           sizeof suffix;
}

int mu_private_dir_make(const char *scratch, const char *run_id, char *dst, size_t size)
{
    char id[ID_MAX + 1];
    size_t n = 0;
    for (; run_id[n] && n < ID_MAX; n++) {
        char ch = run_id[n];
        bool plain = (ch >= '0' && ch <= '9') || ((ch | 32) >= 'a' && (ch | 32) <= 'z') ||
                     ch == '-' || ch == '_';
        id[n] = plain ? ch : '_';
    }
    id[n] = 0;
    int len = snprintf(dst, size, "%s/%s%s%s", scratch, prefix, id, suffix);
    if (len < 0 || (size_t)len >= size) {
        dst[0] = 0;
        return -ENAMETOOLONG;
    }
    if (!mkdtemp(dst)) { /* 0700 */
        int e = -errno;
        dst[0] = 0;
        return e;
    }
    return 0;
}

int mu_private_dir_write(const char *dir, const char *name, mu_bytes content)
{
    MU_AUTO_CLOSE int at = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (at < 0) {
        return -errno;
    }
    MU_AUTO_CLOSE int fd =
        openat(at, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return -errno;
    }
    while (content.len) {
        ssize_t n = write(fd, content.ptr, content.len);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        content = mu_bytes_from(content, n > 0 ? (size_t)n : 0);
    }
    return 0;
}

void mu_private_dirs_sweep(const char *scratch)
{
    DIR *d = opendir(scratch);
    if (!d) {
        return;
    }
    struct dirent *e;
    while ((e = readdir(d)) != NULL) {
        struct stat st;
        mu_bytes name = mu_str(e->d_name);
        size_t least = sizeof prefix - 1 + sizeof suffix - 1;
        if (name.len < least || !mu_bytes_starts(name, mu_str(prefix)) ||
            name.ptr[name.len - (sizeof suffix - 1)] != '-' ||
            fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode) ||
            st.st_uid != geteuid()) {
            continue;
        }
        size_t size = strlen(scratch) + name.len + 2;
        char *path = mu_alloc(size);
        if (path) {
            snprintf(path, size, "%s/%s", scratch, e->d_name);
            (void)mu_folder_remove(path);
            mu_free(path);
        }
    }
    closedir(d);
}
