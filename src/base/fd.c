#include "base/fd.h"

#include <errno.h>

int mu_write_all(int fd, mu_bytes b)
{
    while (b.len) {
        ssize_t n = write(fd, b.ptr, b.len);
        if (n == 0 || (n < 0 && errno != EINTR)) {
            return n == 0 ? -EIO : -errno;
        }
        b = mu_bytes_from(b, n > 0 ? (size_t)n : 0);
    }
    return 0;
}
