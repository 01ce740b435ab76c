/* What the keeper looks after by the clock: the deadline, disk, memory, free space. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/statvfs.h>

#include "exec/sandbox/keep_int.h"
#include "exec/sandbox/linux_int.h"

enum {
    DISK_EVERY_MS = 5000,
    DISK_NEAR_MS = 1000,  /* above 80 % */
    DISK_ENTRIES = 4000,  /* looked at in one turn */
    DISK_SLICE_MS = 2,    /* between two turns of one walk */
    DISK_WALK_MS = 60000, /* folders that are moved about under it could keep one going for ever */
    NEAR_PERCENT = 80,
    END_PERCENT = 110,
    FLOOR_PERCENT = 5,
    RSS_PIDS = 4096,
    BYTES_PER_ENTRY = 1024, /* a file costs at least an inode */
};
static const int64_t floor_bytes = 2LL << 30;

/* --- disk --- */

static void disk_known(struct keep *k, int64_t now)
{
    char text[160];
    /* Empty files cost inodes, which blocks do not show. */
    int64_t used = MU_MAX(k->disk.bytes, k->disk.entries * BYTES_PER_ENTRY);
    int64_t percent = used / MU_MAX(k->box.disk_bytes / 100, 1);
    mu_disk_end(&k->disk);
    k->disk_at_ms = now + (percent >= NEAR_PERCENT ? DISK_NEAR_MS : DISK_EVERY_MS);
    snprintf(text, sizeof text, "disk: %lld of %lld MiB used", (long long)(used >> 20),
             (long long)(k->box.disk_bytes >> 20));
    if (percent >= END_PERCENT) {
        char message[200];
        snprintf(message, sizeof message, "sandbox: disk limit passed (%s)", text);
        keep_stop(k, 0, "disk_limit", message);
        return;
    }
    int level = percent >= 100 ? 100 : percent >= NEAR_PERCENT ? NEAR_PERCENT : 0;
    if (level > k->disk_level) {
        keep_worker_state(k, "running", text);
    }
    k->disk_level = level;
}

static int64_t watch_disk(struct keep *k, int64_t now)
{
    if (k->box.disk_bytes <= 0) {
        return INT64_MAX;
    }
    if (k->disk.depth == 0) {
        if (now < k->disk_at_ms) {
            return k->disk_at_ms;
        }
        if (mu_disk_begin(&k->disk, k->session_fd) < 0) {
            k->disk_at_ms = now + DISK_EVERY_MS;
            return k->disk_at_ms;
        }
        k->disk_at_ms = now; /* when it began */
    }
    if (mu_disk_step(&k->disk, DISK_ENTRIES) || now - k->disk_at_ms > DISK_WALK_MS) {
        disk_known(k, now);
        return k->disk_at_ms;
    }
    return now + DISK_SLICE_MS;
}

/* All sandboxes stand still while the disk has next to nothing left for anybody. */
static void watch_space(struct keep *k)
{
    struct statvfs v;
    if (k->kill_at_ms || fstatvfs(k->session_fd, &v) < 0) {
        return;
    }
    int64_t free_bytes = (int64_t)v.f_bavail * (int64_t)v.f_frsize;
    int64_t all = (int64_t)v.f_blocks * (int64_t)v.f_frsize;
    int64_t floor = MU_MAX(all / 100 * FLOOR_PERCENT, floor_bytes);
    if (!k->low_space && free_bytes < floor) {
        k->low_space = true;
        int r MU_UNUSED = keep_freeze(k, true);
        keep_worker_state(k, "paused", "the disk has too little free space");
    } else if (k->low_space && free_bytes > floor + floor / 4) {
        k->low_space = false;
        int r MU_UNUSED = keep_freeze(k, false);
        keep_worker_state(k, "running", NULL);
    }
}

/* --- memory without a cgroup: private pages of all that descends from PID 1 --- */

/* Every number has a blank behind it: one without is cut, and would be another process. */
static size_t children_of_thread(int tasks, const char *thread, pid_t *list, size_t room)
{
    char path[300], text[8192];
    size_t found = 0;
    ssize_t n;
    snprintf(path, sizeof path, "%s/children", thread);
    MU_AUTO_CLOSE int fd = openat(tasks, path, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && found < room && (n = read(fd, text, sizeof text - 1)) > 0) {
        text[n] = 0;
        for (char *p = text, *end; found < room; p = end + 1) {
            long child = strtol(p, &end, 10);
            if (end == p || *end != ' ') {
                break;
            }
            list[found++] = (pid_t)child;
        }
    }
    return found;
}

size_t keep_children(pid_t pid, pid_t *list, size_t room)
{
    char path[40];
    size_t found = 0;
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && found < room && (e = readdir(dir));) {
        if (e->d_name[0] != '.') {
            found += children_of_thread(dirfd(dir), e->d_name, list + found, room - found);
        }
    }
    if (dir) {
        closedir(dir);
    }
    return found;
}

static int64_t private_bytes(pid_t pid)
{
    char path[64], text[128];
    snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    MU_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (n <= 0) {
        return 0;
    }
    text[n] = 0;
    char *p = text;
    strtoll(p, &p, 10);
    int64_t resident = strtoll(p, &p, 10), shared = strtoll(p, &p, 10);
    return (resident - shared) * sysconf(_SC_PAGESIZE);
}

static void watch_memory(struct keep *k)
{
    static pid_t pids[RSS_PIDS];
    if (k->limited_memory || k->box.memory_bytes <= 0 || k->kill_at_ms) {
        return;
    }
    size_t n = 1;
    int64_t sum = 0;
    pids[0] = k->pid;
    for (size_t i = 0; i < n; i++) {
        sum += private_bytes(pids[i]);
        n += keep_children(pids[i], pids + n, RSS_PIDS - n);
    }
    k->peak_rss = MU_MAX(k->peak_rss, sum);
    if (sum > k->box.memory_bytes) {
        char message[160];
        snprintf(message, sizeof message, "sandbox: %lld MiB of memory used, %lld allowed",
                 (long long)(sum >> 20), (long long)(k->box.memory_bytes >> 20));
        k->end.oom = 1;
        keep_stop(k, 0, "container_oom", message);
    }
}

/* --- all --- */

int64_t keep_watch(struct keep *k, int64_t now)
{
    int64_t next = INT64_MAX;
    if (k->kill_at_ms) {
        if (now >= k->kill_at_ms) {
            mu_pidfd_kill(k->pidfd, SIGKILL);
            mu_cgroup_kill(&k->cgroup);
            k->kill_at_ms = now + KEEP_TICK_MS; /* again, should it not be gone by then */
        }
        next = k->kill_at_ms;
    } else if (k->deadline_ms) {
        if (now >= k->deadline_ms) {
            keep_stop(k, k->box.grace_ms, "task_timeout", "sandbox: the task's time is over");
        }
        next = k->kill_at_ms ? k->kill_at_ms : k->deadline_ms;
    }
    if (!k->kill_at_ms) {
        next = MU_MIN(next, watch_disk(k, now));
    }
    if (now >= k->tick_at_ms) {
        k->tick_at_ms = now + KEEP_TICK_MS;
        watch_memory(k);
        watch_space(k);
        keep_dials_expire(k, now);
        keep_worker_tell(k);
    }
    return MU_MIN(next, k->tick_at_ms);
}
