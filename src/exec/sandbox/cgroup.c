#include "exec/sandbox/cgroup_int.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "base/bytes.h"

enum {
    TEXT = 4096,
    FREEZE_MS = 2000,
    REMOVE_MS = 1000,
    STEP_MS = 5,
    CPU_PERIOD_US = 100000,
    HIGH_PERCENT = 90,
};

/* --- small files --- */

static int read_at(const char *dir, const char *name, const char *file, char *ret, size_t size)
{
    char path[MU_CGROUP_PATH + 160];
    snprintf(path, sizeof path, "%s/%s/%s", dir, name, file);
    MU_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    ssize_t n = read(fd, ret, size - 1);
    ret[n > 0 ? n : 0] = 0;
    return n < 0 ? -errno : 0;
}

static int write_at(const char *dir, const char *name, const char *file, const char *text)
{
    char path[MU_CGROUP_PATH + 160];
    snprintf(path, sizeof path, "%s/%s/%s", dir, name, file);
    MU_AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
    size_t n = strlen(text);
    return fd >= 0 && write(fd, text, n) == (ssize_t)n ? 0 : -errno;
}

static int write_number(const char *dir, const char *name, const char *file, int64_t n)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)n);
    return write_at(dir, name, file, text);
}

/* The number behind "key " at the beginning of a line; -1 = not there. */
static int64_t keyed(const char *text, const char *key)
{
    size_t n = strlen(key);
    for (const char *line = text; line && *line;) {
        if (strncmp(line, key, n) == 0 && line[n] == ' ') {
            return strtoll(line + n + 1, NULL, 10);
        }
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    return -1;
}

static void nap(void)
{
    struct timespec t = {0, STEP_MS * 1000000};
    nanosleep(&t, NULL);
}

/* --- where we are --- */

struct mounts {
    char unified[256], memory[256], pids[256], cpu[256], cpuacct[256], freezer[256];
};

static bool has_word(mu_bytes list, const char *word)
{
    while (list.ptr) {
        if (mu_bytes_is(mu_bytes_split(&list, ','), word)) {
            return true;
        }
    }
    return false;
}

/* "… root mountpoint options [optional] - type source superoptions" */
static void read_mount(mu_bytes line, struct mounts *m)
{
    mu_bytes point = MU_B_NONE, type = MU_B_NONE, rest = line;
    for (int i = 0; i < 5; i++) {
        point = mu_bytes_split(&rest, ' ');
    }
    while (rest.ptr && !mu_bytes_is(mu_bytes_split(&rest, ' '), "-")) {
    }
    type = mu_bytes_split(&rest, ' ');
    mu_bytes_split(&rest, ' ');
    struct {
        const char *word;
        char *to;
    } v1[] = {{"memory", m->memory},
              {"pids", m->pids},
              {"cpu", m->cpu},
              {"cpuacct", m->cpuacct},
              {"freezer", m->freezer}};
    if (point.len >= sizeof m->unified) {
        return;
    }
    if (mu_bytes_is(type, "cgroup2")) {
        snprintf(m->unified, sizeof m->unified, "%.*s", MU_ARGS(point));
    } else if (mu_bytes_is(type, "cgroup")) {
        for (size_t i = 0; i < MU_ARRAY_LEN(v1); i++) {
            if (has_word(rest, v1[i].word)) {
                snprintf(v1[i].to, sizeof m->unified, "%.*s", MU_ARGS(point));
            }
        }
    }
}

static void read_mounts(const char *mountinfo, struct mounts *ret)
{
    mu_bytes rest = mu_str(mountinfo);
    while (rest.ptr) {
        read_mount(mu_bytes_split(&rest, '\n'), ret);
    }
}

/* Our path in the hierarchy that has `controller` ("" = v2), "" at its root. */
static void own_path(const char *self, const char *controller, char *ret, size_t size)
{
    mu_bytes rest = mu_str(self);
    *ret = 0;
    while (rest.ptr) {
        mu_bytes path = mu_bytes_split(&rest, '\n');
        mu_bytes number = mu_bytes_split(&path, ':');
        mu_bytes names = mu_bytes_split(&path, ':');
        bool match =
            *controller ? has_word(names, controller) : names.len == 0 && mu_bytes_is(number, "0");
        if (match && path.ptr && !mu_bytes_is(path, "/")) {
            snprintf(ret, size, "%.*s", MU_ARGS(path));
        }
    }
}

static void because(struct mu_cgroup_place *p, const char *cause, const char *cure)
{
    if (!*p->cause) {
        snprintf(p->cause, sizeof p->cause, "%s", cause);
        snprintf(p->cure, sizeof p->cure, "%s", cure);
    }
}

/* --- v2 --- */

static const char delegate[] = "run the worker as a systemd unit with Delegate=yes";

/* Moves us into the leaf `worker`, then lets the controllers through to its siblings. */
static void open_v2(const char *base, const char *controllers, bool at_root,
                    struct mu_cgroup_place *ret)
{
    char leaf[MU_CGROUP_PATH];
    static const char *const names[] = {"memory", "cpu", "pids", "io"};
    int64_t *const given[] = {&ret->v2_memory, &ret->v2_cpu, &ret->v2_pids, &ret->v2_io};
    if (!at_root) {
        snprintf(leaf, sizeof leaf, "%s/worker", base);
        if (mkdir(leaf, 0755) < 0 && errno != EEXIST) {
            because(ret, "our control group is not ours to divide", delegate);
            return;
        }
        if (write_at(base, "worker", "cgroup.procs", "0") < 0) {
            because(ret, "the worker cannot move into a group of its own", delegate);
            return;
        }
    }
    char text[TEXT];
    for (size_t i = 0; i < MU_ARRAY_LEN(names); i++) {
        char plus[16];
        snprintf(plus, sizeof plus, "+%s", names[i]);
        if (strstr(controllers, names[i])) {
            int r MU_UNUSED = write_at(base, "", "cgroup.subtree_control", plus);
        }
    }
    if (read_at(base, "", "cgroup.subtree_control", text, sizeof text) < 0) {
        text[0] = 0;
    }
    for (size_t i = 0; i < MU_ARRAY_LEN(names); i++) {
        *given[i] = strstr(text, names[i]) != NULL;
    }
}

static bool try_v2(const struct mounts *m, const char *self, bool root, struct mu_cgroup_place *ret)
{
    char own[256], text[TEXT];
    if (!*m->unified) {
        return false;
    }
    own_path(self, "", own, sizeof own);
    size_t n = strlen(own);
    if (n >= 7 && strcmp(own + n - 7, "/worker") == 0) {
        own[n - 7] = 0; /* we are in our leaf already */
    }
    snprintf(ret->unified, sizeof ret->unified, "%s%s", m->unified, own);
    if (read_at(ret->unified, "", "cgroup.controllers", text, sizeof text) < 0 ||
        !(strstr(text, "memory") || strstr(text, "pids"))) {
        ret->unified[0] = 0;
        return false;
    }
    open_v2(ret->unified, text, !*own, ret);
    if (!ret->v2_memory && !ret->v2_pids) {
        because(ret, "no controller is delegated to us", delegate);
        ret->unified[0] = 0;
        return false;
    }
    if (!ret->v2_memory) {
        because(ret, "the memory controller is not delegated", delegate);
    }
    ret->rung = root ? MU_CGROUP_ROOT : MU_CGROUP_DELEGATED;
    return true;
}

/* --- v1 and hybrid --- */

/* A folder for our groups below our own group; "" when it cannot be made. */
static void v1_folder(const char *mount, const char *self, const char *controller, const char *name,
                      char ret[MU_CGROUP_PATH])
{
    char own[200];
    *ret = 0;
    if (!*mount) {
        return;
    }
    own_path(self, controller, own, sizeof own);
    snprintf(ret, MU_CGROUP_PATH, "%s%s/muster-%s", mount, own, name);
    if (mkdir(ret, 0755) < 0 && errno != EEXIST) {
        *ret = 0;
    }
}

static void try_v1(const struct mounts *m, const char *self, const char *name,
                   struct mu_cgroup_place *ret)
{
    v1_folder(m->memory, self, "memory", name, ret->memory);
    v1_folder(m->pids, self, "pids", name, ret->pids);
    v1_folder(m->cpu, self, "cpu", name, ret->cpu);
    v1_folder(m->cpuacct, self, "cpuacct", name, ret->cpuacct);
    v1_folder(m->unified, self, "", name, ret->unified);
    if (!*ret->unified) { /* freezing and killing of v2 need no controller */
        v1_folder(m->freezer, self, "freezer", name, ret->freezer);
    }
    if (*ret->memory || *ret->pids || *ret->cpu) {
        ret->rung = MU_CGROUP_V1;
    }
    if (!*ret->memory) {
        because(ret, "no memory controller is mounted", delegate);
    }
}

void mu_cgroup_probe_at(const char *mountinfo, const char *self, const char *name, bool root,
                        struct mu_cgroup_place *ret)
{
    struct mounts m = {.unified = ""};
    *ret = (struct mu_cgroup_place){.rung = MU_CGROUP_NONE};
    read_mounts(mountinfo, &m);
    if (try_v2(&m, self, root, ret)) {
        return;
    }
    if (root) {
        try_v1(&m, self, name, ret);
    }
    if (ret->rung == MU_CGROUP_NONE) {
        because(ret, "no control group is delegated to this user", delegate);
    }
}

static char *read_all(const char *path)
{
    enum { ALL = 256 << 10 };
    MU_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *text = fd < 0 ? NULL : mu_alloc(ALL);
    size_t n = 0;
    while (text && n < ALL - 1) {
        ssize_t got = read(fd, text + n, ALL - 1 - n);
        if (got <= 0) {
            break;
        }
        n += (size_t)got;
    }
    if (text) {
        text[n] = 0;
    }
    return text;
}

void mu_cgroup_probe(const char *name, struct mu_cgroup_place *ret)
{
    MU_AUTO_FREE char *mountinfo = read_all("/proc/self/mountinfo");
    MU_AUTO_FREE char *self = read_all("/proc/self/cgroup");
    mu_cgroup_probe_at(mountinfo ? mountinfo : "", self ? self : "", name, geteuid() == 0, ret);
}

/* --- one group --- */

static bool is_v2(const struct mu_cgroup_place *p)
{
    return p->rung == MU_CGROUP_DELEGATED || p->rung == MU_CGROUP_ROOT;
}

static int set_v2(const struct mu_cgroup *g, const struct mu_cgroup_limits *l)
{
    const char *dir = g->place.unified;
    char text[48];
    int r = 0;
    if (l->memory_bytes > 0 && g->place.v2_memory) {
        r = write_number(dir, g->name, "memory.max", l->memory_bytes);
        int ignored MU_UNUSED =
            write_number(dir, g->name, "memory.high", l->memory_bytes / 100 * HIGH_PERCENT);
        ignored = write_number(dir, g->name, "memory.swap.max", 0); /* absent without swap */
    }
    if (r == 0 && l->pids > 0 && g->place.v2_pids) {
        r = write_number(dir, g->name, "pids.max", l->pids);
    }
    if (r == 0 && l->cpu_milli > 0 && g->place.v2_cpu) {
        snprintf(text, sizeof text, "%lld %d", (long long)(l->cpu_milli * CPU_PERIOD_US / 1000),
                 CPU_PERIOD_US);
        r = write_at(dir, g->name, "cpu.max", text);
    }
    return r;
}

static int set_v1(const struct mu_cgroup *g, const struct mu_cgroup_limits *l)
{
    const struct mu_cgroup_place *p = &g->place;
    int r = 0;
    if (*p->memory && l->memory_bytes > 0) {
        r = write_number(p->memory, g->name, "memory.limit_in_bytes", l->memory_bytes);
    }
    if (r == 0 && *p->pids && l->pids > 0) {
        r = write_number(p->pids, g->name, "pids.max", l->pids);
    }
    if (r == 0 && *p->cpu && l->cpu_milli > 0) {
        r = write_number(p->cpu, g->name, "cpu.cfs_period_us", CPU_PERIOD_US);
        r = r ? r
              : write_number(p->cpu, g->name, "cpu.cfs_quota_us",
                             l->cpu_milli * CPU_PERIOD_US / 1000);
        r = r == -ENOENT ? 0 : r; /* a kernel without bandwidth control */
    }
    return r;
}

/* Every folder in which the group has one of its own. */
static size_t folders(const struct mu_cgroup_place *p, const char *ret[6])
{
    const char *const all[] = {p->unified, p->memory, p->pids, p->cpu, p->cpuacct, p->freezer};
    size_t n = 0;
    for (size_t i = 0; i < MU_ARRAY_LEN(all); i++) {
        if (*all[i]) {
            ret[n++] = all[i];
        }
    }
    return n;
}

void mu_cgroup_leave(const struct mu_cgroup_place *place)
{
    const char *dirs[6];
    size_t n = place->rung == MU_CGROUP_V1 ? folders(place, dirs) : 0;
    for (size_t i = 0; i < n; i++) {
        rmdir(dirs[i]); /* stays while a sandbox lives on */
    }
}

int mu_cgroup_make(const struct mu_cgroup_place *place, const char *id,
                   const struct mu_cgroup_limits *limits, struct mu_cgroup *ret, struct mu_err *err)
{
    const char *dirs[6];
    char path[MU_CGROUP_PATH + 96];
    *ret = (struct mu_cgroup){.place = *place, .unified_fd = -1};
    snprintf(ret->name, sizeof ret->name, "s-%s", id);
    if (place->rung == MU_CGROUP_NONE) {
        return 0;
    }
    /* Moving a process into a v1 group can cost milliseconds: only where there is a limit to keep.
     */
    place = &ret->place;
    if (limits->memory_bytes <= 0) {
        ret->place.memory[0] = 0;
    }
    if (limits->pids <= 0) {
        ret->place.pids[0] = 0;
    }
    if (limits->cpu_milli <= 0) {
        ret->place.cpu[0] = 0;
    }
    ret->place.cpuacct[0] = 0;
    size_t n = folders(place, dirs);
    for (size_t i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", dirs[i], ret->name);
        /* Another process of this worker (doctor) may have taken the empty folder away. */
        int done = mkdir(path, 0755);
        if (done < 0 && errno == ENOENT && mkdir(dirs[i], 0755) == 0) {
            done = mkdir(path, 0755);
        }
        if (done < 0 && errno != EEXIST) {
            int r = -errno;
            mu_cgroup_remove(ret);
            return mu_err_set(err, r, "control group %s", path);
        }
    }
    int r = is_v2(place) ? set_v2(ret, limits) : set_v1(ret, limits);
    if (r == 0 && *place->unified) {
        snprintf(path, sizeof path, "%s/%s", place->unified, ret->name);
        ret->unified_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        r = ret->unified_fd < 0 ? -errno : 0;
    }
    if (r < 0) {
        mu_cgroup_remove(ret);
        return mu_err_set(err, r, "control group %s: limits", ret->name);
    }
    return 0;
}

int mu_cgroup_add_v1(const struct mu_cgroup *g, pid_t pid)
{
    const struct mu_cgroup_place *p = &g->place;
    if (p->rung != MU_CGROUP_V1) {
        return 0;
    }
    const char *const all[] = {p->memory, p->pids, p->cpu, p->cpuacct, p->freezer};
    for (size_t i = 0; i < MU_ARRAY_LEN(all); i++) {
        int r = *all[i] ? write_number(all[i], g->name, "cgroup.procs", pid) : 0;
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

int mu_cgroup_freeze(const struct mu_cgroup *g, bool on)
{
    char text[TEXT];
    const struct mu_cgroup_place *p = &g->place;
    bool v2 = *p->unified != 0;
    if (p->rung == MU_CGROUP_NONE || (!v2 && !*p->freezer)) {
        return -ENOSYS;
    }
    int r = v2 ? write_at(p->unified, g->name, "cgroup.freeze", on ? "1" : "0")
               : write_at(p->freezer, g->name, "freezer.state", on ? "FROZEN" : "THAWED");
    for (int waited = 0; r == 0 && on; waited += STEP_MS) {
        r = v2 ? read_at(p->unified, g->name, "cgroup.events", text, sizeof text)
               : read_at(p->freezer, g->name, "freezer.state", text, sizeof text);
        if (r < 0 || (v2 ? keyed(text, "frozen") == 1 : strncmp(text, "FROZEN", 6) == 0)) {
            break;
        }
        if (waited >= FREEZE_MS) {
            return -ETIMEDOUT;
        }
        nap();
    }
    return r;
}

void mu_cgroup_kill(const struct mu_cgroup *g)
{
    if (g->place.rung != MU_CGROUP_NONE && *g->place.unified) {
        int r MU_UNUSED = write_at(g->place.unified, g->name, "cgroup.kill", "1");
    }
}

void mu_cgroup_usage(const struct mu_cgroup *g, struct mu_cgroup_usage *ret)
{
    char text[TEXT];
    const struct mu_cgroup_place *p = &g->place;
    *ret = (struct mu_cgroup_usage){-1, -1, -1};
    if (is_v2(p)) {
        if (read_at(p->unified, g->name, "memory.events", text, sizeof text) == 0) {
            ret->oom_kills = keyed(text, "oom_kill");
        }
        if (read_at(p->unified, g->name, "cpu.stat", text, sizeof text) == 0) {
            ret->cpu_ms = keyed(text, "usage_usec") / 1000;
        }
        if (read_at(p->unified, g->name, "memory.peak", text, sizeof text) == 0) {
            ret->peak_bytes = strtoll(text, NULL, 10);
        }
    } else if (p->rung == MU_CGROUP_V1) {
        if (*p->memory &&
            read_at(p->memory, g->name, "memory.oom_control", text, sizeof text) == 0) {
            ret->oom_kills = keyed(text, "oom_kill");
        }
        if (*p->memory &&
            read_at(p->memory, g->name, "memory.max_usage_in_bytes", text, sizeof text) == 0) {
            ret->peak_bytes = strtoll(text, NULL, 10);
        }
        if (*p->cpuacct && read_at(p->cpuacct, g->name, "cpuacct.usage", text, sizeof text) == 0) {
            ret->cpu_ms = strtoll(text, NULL, 10) / 1000000;
        }
    }
}

void mu_cgroup_remove(struct mu_cgroup *g)
{
    const char *dirs[6];
    char path[MU_CGROUP_PATH + 96];
    if (g->unified_fd >= 0) {
        close(g->unified_fd);
        g->unified_fd = -1;
    }
    size_t n = g->place.rung == MU_CGROUP_NONE ? 0 : folders(&g->place, dirs);
    for (size_t i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", dirs[i], g->name);
        for (int waited = 0; rmdir(path) < 0 && errno == EBUSY && waited < REMOVE_MS;
             waited += STEP_MS) {
            nap();
        }
    }
}

/* v1 has no cgroup.kill: one by one, until nobody is left. */
static void kill_v1(const struct mu_cgroup *g)
{
    char text[TEXT];
    const char *dir = *g->place.pids ? g->place.pids : g->place.memory;
    for (int waited = 0; *dir && waited < REMOVE_MS; waited += STEP_MS) {
        if (read_at(dir, g->name, "cgroup.procs", text, sizeof text) < 0 || !*text) {
            return;
        }
        for (char *p = text; *p;) {
            char *end;
            long pid = strtol(p, &end, 10);
            if (end == p || *end != '\n') { /* cut off: it would be another process */
                break;
            }
            if (pid > 1) {
                kill((pid_t)pid, SIGKILL);
            }
            p = end + 1;
        }
        nap();
    }
}

void mu_cgroup_clean(const struct mu_cgroup_place *place, const char *id)
{
    struct mu_cgroup g = {.place = *place, .unified_fd = -1};
    if (place->rung == MU_CGROUP_NONE) {
        return;
    }
    snprintf(g.name, sizeof g.name, "s-%s", id);
    mu_cgroup_kill(&g);
    if (!*place->unified) {
        kill_v1(&g);
    }
    mu_cgroup_remove(&g);
}
