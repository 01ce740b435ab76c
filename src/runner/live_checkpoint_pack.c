/* The packs of checkpoints: one of each root that has changed, in our folder for git and as parts
 * for the worker, and what goes from our folder once it is packed. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>

#include "base/fd.h"
#include "io/folder.h"
#include "runner/live_checkpoint.h"
#include "runner/live_int.h"

enum {
    FANOUT = 256, /* folders of objects that are in no pack */
    SAMPLE = 4096,
    SAMPLES = 1024,
    LEVEL_LEAST = 256 << 10, /* fewer bytes are compressed sooner than looked at */
    TIDY_MS = 5,
    COPY = 64 << 10,
};
#define PACKS "objects/pack"

/* --- is it worth compressing? --- */

struct look {
    int64_t bytes, flat;
    unsigned n;
};

/* Of random, compressed or encrypted bytes each value comes about as often as any other. */
static bool is_flat(const unsigned char *p, size_t n)
{
    uint32_t count[256] = {0};
    uint64_t squares = 0;
    for (size_t i = 0; i < n; i++) {
        count[p[i]]++;
    }
    for (size_t i = 0; i < 256; i++) {
        squares += (uint64_t)count[i] * count[i];
    }
    return n == SAMPLE && 256 * squares <= (uint64_t)n * n + 512 * (uint64_t)n;
}

/* An object that is not compressed: its content lies there as it is. */
static void look_at(struct look *l, int dir, const char *name)
{
    unsigned char sample[SAMPLE];
    struct stat st;
    int fd MU_AUTO_CLOSE = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        return;
    }
    off_t at = st.st_size > 2 * SAMPLE ? st.st_size / 2 : 0;
    ssize_t n = pread(fd, sample, sizeof sample, at);
    l->n++;
    l->bytes += st.st_size;
    l->flat += n > 0 && is_flat(sample, (size_t)n) ? st.st_size : 0;
}

static void look_in(struct look *l, int objects, unsigned i)
{
    char name[3];
    snprintf(name, sizeof name, "%02x", i % FANOUT);
    int fd = openat(objects, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        if (fd >= 0) {
            close(fd);
        }
        return;
    }
    for (struct dirent *e; l->n < SAMPLES && (e = readdir(d));) {
        if (e->d_name[0] != '.') {
            look_at(l, fd, e->d_name);
        }
    }
    closedir(d);
}

/* Compressing what cannot be compressed would take most of the time. What is packed already is not
 * packed anew in any case. */
static bool worth_compressing(const struct mu_shadow *s)
{
    struct look l = {0};
    int objects MU_AUTO_CLOSE =
        openat(s->fd, "objects", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    for (unsigned i = 0; i < FANOUT && objects >= 0 && l.n < SAMPLES; i++) {
        look_in(&l, objects, i);
    }
    return l.bytes < LEVEL_LEAST || l.flat < l.bytes / 10 * 9;
}

/* --- parts --- */

static int begin_part(struct mu_ck *c)
{
    if (c->n_parts == MU_CK_PARTS) {
        return MU_E_TOO_LARGE;
    }
    struct mu_ck_part *part = &c->parts[c->n_parts];
    *part = (struct mu_ck_part){.bytes = 0};
    snprintf(part->name, sizeof part->name, "ckpt-%lld-%lld-%u.pack", (long long)c->v->epoch,
             (long long)c->number, c->n_parts + 1);
    return 0;
}

static int copy_part(int from, int to, int64_t n)
{
    char block[COPY];
    while (n > 0) {
        ssize_t k = read(from, block, (size_t)MU_MIN(n, (int64_t)sizeof block));
        if (k <= 0) {
            return k < 0 ? -errno : -EIO;
        }
        int r = mu_write_all(to, mu_bytes_of(block, (size_t)k));
        if (r < 0) {
            return r;
        }
        n -= k;
    }
    return 0;
}

/* Not by links: no back end reads a file that has two names. */
static int take_parts(struct mu_ck *c, const struct mu_shadow *s, const char *path)
{
    struct stat st;
    int from MU_AUTO_CLOSE = openat(s->fd, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (from < 0 || fstat(from, &st) < 0) {
        return -errno;
    }
    if (!S_ISREG(st.st_mode) || c->bytes + st.st_size > MU_CK_BYTES) {
        return S_ISREG(st.st_mode) ? MU_E_TOO_LARGE : -EIO;
    }
    for (int64_t left = st.st_size; left;) {
        int64_t some = MU_MIN(left, (int64_t)MU_CK_PART_BYTES);
        int r = begin_part(c);
        if (r) {
            return r;
        }
        struct mu_ck_part *part = &c->parts[c->n_parts];
        int to MU_AUTO_CLOSE =
            openat(c->out, part->name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        r = to < 0 ? -errno : copy_part(from, to, some);
        c->n_parts++;
        part->bytes = some;
        c->bytes += some;
        left -= some;
        if (r) {
            return r;
        }
    }
    return 0;
}

/* --- packing --- */

static int run_pack(struct mu_ck *c, struct mu_shadow *s, int in, char ret[MU_OBJECT_ID])
{
    char base[MU_SHADOW_PATH + 64];
    snprintf(base, sizeof base, "%s/" PACKS "/ck%lld", s->dir, (long long)c->number);
    const char *const argv[] = {"git",
                                "-c",
                                worth_compressing(s) ? "pack.compression=1" : "pack.compression=0",
                                "pack-objects",
                                "-q",
                                "--revs",
                                "--delta-base-offset",
                                base,
                                NULL};
    const struct mu_shadow_run run = {
        .argv = argv, .in = in, .file_max = MU_CK_BYTES - c->bytes + 1};
    return mu_shadow_run_id(s, &run, ret);
}

int mu_ck_pack(struct mu_ck *c, struct mu_ck_root *root, struct mu_shadow *s)
{
    char revs[4 * MU_OBJECT_ID], id[MU_OBJECT_ID], path[MU_OBJECT_ID + 64];
    bool more = c->from && root->last.commit[0];
    int n = snprintf(revs, sizeof revs, "%s\n%s%s%s%s%s%s", root->now.commit,
                     root->base[0] ? "^" : "", root->base, root->base[0] ? "\n" : "",
                     more ? "^" : "", more ? root->last.commit : "", more ? "\n" : "");
    int in MU_AUTO_CLOSE = mu_shadow_feed(s, "revs", mu_bytes_of(revs, (size_t)n));
    if (in < 0) {
        return mu_ck_fail(c, 1, "a checkpoint's list: %s", mu_err_text(in));
    }
    int status = run_pack(c, s, in, id);
    if (status && status != 128 + SIGXFSZ) {
        return mu_ck_git_failed(c, s, "pack-objects", status);
    }
    unsigned first = c->n_parts;
    snprintf(path, sizeof path, PACKS "/ck%lld-%s.pack", (long long)c->number, id);
    int r = status ? MU_E_TOO_LARGE : take_parts(c, s, path);
    if (r) {
        return mu_ck_fail(c, 1, r == MU_E_TOO_LARGE ? "larger than 512 MiB" : "its files: %s",
                          mu_err_text(r));
    }
    root->parts = c->n_parts - first;
    root->whole = more ? root->whole : c->number;
    root->packs = more ? root->packs + 1 : 1;
    return 0;
}

/* --- tidying --- */

static bool is_needed(const struct mu_ck_root *root, const char *name)
{
    int64_t number;
    mu_bytes rest = mu_str(name);
    if (!mu_bytes_starts(rest, MU_B("ck"))) {
        return false;
    }
    rest = mu_bytes_from(rest, 2);
    return mu_bytes_i64(mu_bytes_split(&rest, '-'), &number) == 0 && number >= root->whole;
}

/* Also those that git made of large files that were added: ours have them. */
static void tidy_packs(const struct mu_ck_root *root, int objects)
{
    int fd = openat(objects, "pack", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        if (fd >= 0) {
            close(fd);
        }
        return;
    }
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] != '.' && !is_needed(root, e->d_name)) {
            (void)unlinkat(fd, e->d_name, 0);
        }
    }
    closedir(d);
}

void mu_ck_tidy(struct mu_ck *c)
{
    int64_t until = mu_mono_ms() + TIDY_MS;
    for (; c->tidy_root < c->n_roots; c->tidy_root++, c->tidy_at = 0) {
        const struct mu_ck_root *root = &c->roots[c->tidy_root];
        char path[32];
        snprintf(path, sizeof path, "%s/objects", root->place);
        int objects MU_AUTO_CLOSE =
            openat(c->dir, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (objects < 0) {
            continue;
        }
        for (; c->tidy_at < FANOUT; c->tidy_at++) {
            if (mu_mono_ms() >= until) {
                return;
            }
            snprintf(path, sizeof path, "%02x", c->tidy_at);
            (void)mu_folder_remove_at(objects, path);
        }
        tidy_packs(root, objects);
    }
    c->untidy = false;
}
