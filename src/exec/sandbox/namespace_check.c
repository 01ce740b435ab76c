/* What really protects here: found out by starting throw-away sandboxes, strongest kind first,
 * never by reading a setting alone. Settings are read afterwards, to say why (sandbox.md 3). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "exec/sandbox/landlock_int.h"
#include "exec/sandbox/namespace_int.h"
#include "exec/sandbox/seccomp.h"

enum { LOG_MAX = 32 << 10, CHECK_MS = 20000 };

struct mu_ns_check {
    struct mu_sandbox_driver *d;
    void (*done)(void *arg, const struct mu_sandbox_report *report);
    void *arg;
    int64_t rungs[4];
    size_t n_rungs, at;
    int64_t begun_ns, first_ns;
    struct mu_sandbox *s;
    struct mu_buf log;
    struct mu_end end; /* of the attempt that is over */
    char tried[160];   /* why the stronger ones did not work */
    char cause[96], cure[128];
    struct mu_sandbox_report report;
    struct mu_post post;
};

static void attempt(struct mu_ns_check *c);

/* --- why --- */

static int64_t sysctl_number(const char *path)
{
    char text[32];
    MU_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (n <= 0) {
        return -1;
    }
    text[n] = 0;
    return strtoll(text, NULL, 10);
}

static void because(struct mu_ns_check *c, const char *cause, const char *cure)
{
    snprintf(c->cause, sizeof c->cause, "%s", cause);
    snprintf(c->cure, sizeof c->cure, "%s", cure);
}

static void explain_clone(struct mu_ns_check *c, int64_t why)
{
    if (why == ENOSPC) {
        because(c, "user.max_user_namespaces is too small",
                "sysctl -w user.max_user_namespaces=15000");
    } else if (why == ENOSYS) {
        because(c, "the kernel is too old", "Linux 5.14 or newer");
    } else if (sysctl_number("/proc/sys/kernel/unprivileged_userns_clone") == 0) {
        because(c, "kernel.unprivileged_userns_clone is 0",
                "sysctl -w kernel.unprivileged_userns_clone=1");
    } else if (sysctl_number("/proc/sys/user/max_user_namespaces") == 0) {
        because(c, "user.max_user_namespaces is 0", "sysctl -w user.max_user_namespaces=15000");
    } else if (sysctl_number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == 1) {
        because(c, "AppArmor lets only named programs make user namespaces",
                "install the package, which brings a profile for muster, or bubblewrap");
    } else {
        because(c, "no right to make namespaces: are we in a container?",
                "run the worker outside, or give its container SYS_ADMIN and no seccomp profile");
    }
}

static void explain(struct mu_ns_check *c)
{
    const struct mu_end *e = &c->end;
    bool refused = e->step_errno == EPERM || e->step_errno == EACCES;
    if (strcmp(e->step, "clone3") == 0) {
        explain_clone(c, e->step_errno);
    } else if (refused && (strcmp(e->step, "id map") == 0 || strcmp(e->step, "loopback") == 0)) {
        because(c, "AppArmor takes the rights away again inside a user namespace",
                "install the package, which brings a profile for muster, or bubblewrap");
    } else if (refused && strcmp(e->step, "mount proc") == 0) {
        because(c, "/proc of this machine is partly hidden: we are in a container",
                "run the worker outside, or its container with systempaths=unconfined");
    } else if (e->step_errno == ENOSYS) {
        because(c, "the kernel is too old", "Linux 5.14 or newer");
    } else {
        because(c, e->message[0] ? e->message : "the self-test did not run", "see the message");
    }
    size_t n = strlen(c->tried);
    snprintf(c->tried + n, sizeof c->tried - n, "%s%c: %s", n ? "; " : "", (int)c->rungs[c->at],
             c->cause);
}

/* --- the report --- */

static struct mu_sandbox_layer *add(struct mu_ns_check *c, const char *name, bool active)
{
    static struct mu_sandbox_layer spare;
    struct mu_sandbox_report *r = &c->report;
    struct mu_sandbox_layer *l =
        r->n_layers < MU_SANDBOX_LAYERS ? &r->layers[r->n_layers++] : &spare;
    *l = (struct mu_sandbox_layer){.active = active};
    snprintf(l->name, sizeof l->name, "%s", name);
    return l;
}

/* The self-test's line "name\tyes|no\tdetail"; false: there is none. */
static bool line_of(struct mu_ns_check *c, const char *name, bool *yes, mu_bytes *detail)
{
    mu_bytes rest = mu_buf_bytes(&c->log);
    while (rest.ptr && rest.len) {
        mu_bytes line = mu_bytes_split(&rest, '\n');
        if (mu_bytes_is(mu_bytes_split(&line, '\t'), name)) {
            *yes = mu_bytes_is(mu_bytes_split(&line, '\t'), "yes");
            *detail = line;
            return true;
        }
    }
    return false;
}

static struct mu_sandbox_layer *add_line(struct mu_ns_check *c, const char *name)
{
    bool yes = false;
    mu_bytes detail = MU_B_NONE;
    bool found = line_of(c, name, &yes, &detail);
    struct mu_sandbox_layer *l = add(c, name, found && yes);
    snprintf(l->detail, sizeof l->detail, "%.*s", MU_ARGS(mu_bytes_head(detail, 90)));
    if (!l->active) {
        snprintf(l->cause, sizeof l->cause, "%s", c->cause);
        snprintf(l->cure, sizeof l->cure, "%s", c->cure);
    }
    return l;
}

static void add_cgroup(struct mu_ns_check *c)
{
    const struct mu_cgroup_place *p = &c->d->cgroup;
    static const char *const rungs[] = {"", "v2, delegated", "v2, root", "v1", "none"};
    bool v1 = p->rung == MU_CGROUP_V1;
    struct mu_sandbox_layer *l = add(c, "cgroup", p->rung != MU_CGROUP_NONE);
    snprintf(l->detail, sizeof l->detail, "%s:%s%s%s%s freeze: %s kill: %s",
             rungs[p->rung > 0 && p->rung < 5 ? p->rung : 4],
             p->v2_memory || (v1 && *p->memory) ? " memory" : "",
             p->v2_cpu || (v1 && *p->cpu) ? " cpu" : "",
             p->v2_pids || (v1 && *p->pids) ? " pids" : "", p->v2_io ? " io" : "",
             *p->unified || *p->freezer ? "yes" : "sweep", *p->unified ? "yes" : "pid 1");
    snprintf(l->cause, sizeof l->cause, "%s", p->cause);
    snprintf(l->cure, sizeof l->cure, "%s", p->cure);
    bool limited = p->v2_memory || (v1 && *p->memory);
    l = add(c, "memory", limited);
    snprintf(l->detail, sizeof l->detail, "%s",
             limited ? "limit of the control group" : "watched by the keeper every second");
    if (!limited) {
        snprintf(l->cause, sizeof l->cause, "%s", p->cause);
        snprintf(l->cure, sizeof l->cure, "%s", p->cure);
    }
}

static void add_seccomp(struct mu_ns_check *c)
{
    struct mu_seccomp_rules rules = {.one_id = geteuid() != 0};
    struct mu_sandbox_layer *l = add_line(c, "seccomp");
#if defined(__x86_64__)
    const char *machine = "x86_64";
#else
    const char *machine = "aarch64";
#endif
    snprintf(l->detail, sizeof l->detail, "%u calls refused, ceiling %d, %s",
             mu_seccomp_refused(&rules), MU_SECCOMP_CEILING, machine);
}

static void add_disk(struct mu_ns_check *c)
{
    struct statvfs v;
    struct mu_sandbox_layer *l = add(c, "disk", true);
    int64_t free_mib =
        fstatvfs(c->d->state_fd, &v) < 0 ? 0 : (int64_t)v.f_bavail * (int64_t)v.f_frsize >> 20;
    snprintf(l->detail, sizeof l->detail, "watchdog 5 s, %lld MiB free; no project quota is used",
             (long long)free_mib);
}

static void add_self_test(struct mu_ns_check *c)
{
    static const char *const probes[] = {"pid ns",         "capabilities",  "non-dumpable",
                                         "root read-only", "shadow closed", "network ns",
                                         "vsock closed",   "nested closed", "keeper"};
    char open[96] = "";
    size_t held = 0, n = 0;
    for (size_t i = 0; i < MU_ARRAY_LEN(probes); i++) {
        bool yes = false;
        mu_bytes detail;
        if (line_of(c, probes[i], &yes, &detail)) {
            n++;
            held += yes;
        }
        if (!yes) {
            size_t len = strlen(open);
            snprintf(open + len, sizeof open - len, "%s%s", len ? ", " : "", probes[i]);
        }
    }
    struct mu_sandbox_layer *l = add(c, "self-test", held == MU_ARRAY_LEN(probes));
    snprintf(l->detail, sizeof l->detail, "%zu of %zu held", held, n);
    snprintf(l->cause, sizeof l->cause, "%s", open);
}

static void fill_layers(struct mu_ns_check *c)
{
    bool has_tree = c->d->rung != MU_RUNG_LANDLOCK;
    add_line(c, "user ns");
    struct mu_sandbox_layer *l = add(c, "namespaces", has_tree);
    snprintf(l->detail, sizeof l->detail, "%s",
             has_tree ? "mount pid ipc uts cgroup net; nested: off" : "none");
    if (!has_tree) {
        snprintf(l->cause, sizeof l->cause, "%s", c->cause);
        snprintf(l->cure, sizeof l->cure, "%s", c->cure);
    }
    add_seccomp(c);
    l = add(c, "landlock", mu_landlock_abi() > 0);
    snprintf(l->detail, sizeof l->detail, "ABI %d", mu_landlock_abi());
    snprintf(l->cause, sizeof l->cause, "%s", l->active ? "" : "not in this kernel");
    snprintf(l->cure, sizeof l->cure, "%s", l->active ? "" : "boot with lsm=…,landlock");
    add_line(c, "no-new-privs");
    add_line(c, "capabilities");
    add_cgroup(c);
    add_disk(c);
    l = add(c, "network", has_tree);
    snprintf(l->detail, sizeof l->detail, "%s",
             !has_tree               ? "no sockets but unix ones"
             : c->d->settings.broker ? "loopback only; the broker is the way out"
                                     : "loopback only, no way out");
    add_self_test(c);
}

static const char *strength_of(int64_t rung)
{
    switch (rung) {
    case MU_RUNG_OWN:
        return "full";
    case MU_RUNG_BWRAP:
        return "full (through bwrap)";
    case MU_RUNG_ROOT:
        return "full (root worker)";
    case MU_RUNG_LANDLOCK:
        return "weak";
    default:
        return "unavailable";
    }
}

static void finish(struct mu_ns_check *c, int64_t rung)
{
    struct mu_sandbox_report *r = &c->report;
    struct mu_sandbox_driver *d = c->d;
    const char *minimum = d->settings.minimum;
    bool weak_is_enough = minimum && strcmp(minimum, "landlock") == 0;
    snprintf(r->kind, sizeof r->kind, "namespace");
    snprintf(r->strength, sizeof r->strength, "%s", strength_of(rung));
    r->usable = rung && (rung != MU_RUNG_LANDLOCK || weak_is_enough);
    r->checkouts = rung == MU_RUNG_OWN || rung == MU_RUNG_ROOT; /* bwrap knows no overlays */
    if (rung) {
        d->rung = rung;
        int64_t us = (c->first_ns - c->begun_ns) / 1000;
        snprintf(r->summary, sizeof r->summary, "%s, %lld.%lld ms%s%s",
                 rung == MU_RUNG_BWRAP ? "bubblewrap and own launcher" : "own launcher",
                 (long long)us / 1000, (long long)us % 1000 / 100,
                 r->usable ? "" : "; refused unless OZ_SANDBOX_MIN=landlock: ",
                 r->usable ? "" : c->cause);
        fill_layers(c);
    } else {
        snprintf(r->summary, sizeof r->summary, "%s", c->tried);
        struct mu_sandbox_layer *l = add(c, "user ns", false);
        snprintf(l->cause, sizeof l->cause, "%s", c->cause);
        snprintf(l->cure, sizeof l->cure, "%s", c->cure);
    }
    d->check = NULL;
    c->done(c->arg, r);
    mu_buf_fini(&c->log);
    mu_free(c);
}

/* --- one attempt after the other --- */

static void on_released(void *arg)
{
    struct mu_ns_check *c = arg;
    bool worked = c->end.exit_code == 0 && c->first_ns && !c->end.reason[0];
    if (worked) {
        finish(c, c->rungs[c->at]);
        return;
    }
    explain(c);
    if (++c->at < c->n_rungs) {
        attempt(c);
    } else {
        finish(c, MU_RUNG_NONE);
    }
}

static void on_log(void *arg, int64_t offset MU_UNUSED, mu_bytes bytes)
{
    struct mu_ns_check *c = arg;
    if (!c->first_ns) {
        const struct mu_env *env = mu_loop_env(c->d->loop);
        c->first_ns = env->mono_ns(env);
    }
    mu_buf_add(&c->log, bytes);
}

static void on_ended(void *arg, const struct mu_sandbox_result *result MU_UNUSED)
{
    struct mu_ns_check *c = arg;
    c->end = c->s->end;
    mu_ns_release(c->s, on_released, c);
}

static void attempt(struct mu_ns_check *c)
{
    static const struct mu_sandbox_events events = {.log = on_log, .ended = on_ended};
    static const char *const argv[] = {"--self-test", NULL};
    const struct mu_env *env = mu_loop_env(c->d->loop);
    char id[MU_BOX_ID_MAX + 1];
    uint64_t random;
    env->random(env, &random, sizeof random);
    snprintf(id, sizeof id, "self-test-%016llx", (unsigned long long)random);
    struct mu_sandbox_spec spec = {
        .execution_id = id,
        .argv = argv,
        .timeout_ms = CHECK_MS,
        .stop_grace_ms = 1,
        .shm_bytes = 1 << 20,
        .pids = 64,
    };
    mu_buf_clear(&c->log);
    c->end = (struct mu_end){.exit_code = -1};
    c->first_ns = 0;
    c->begun_ns = env->mono_ns(env);
    if (mu_ns_start_as(c->d, &spec, c->rungs[c->at], &events, c, &c->s) < 0) {
        because(c, "no memory", "");
        finish(c, MU_RUNG_NONE);
    }
}

static void begin(struct mu_post *post)
{
    attempt(MU_CONTAINER(post, struct mu_ns_check, post));
}

int mu_ns_check(struct mu_sandbox_driver *d,
                void (*done)(void *arg, const struct mu_sandbox_report *report), void *arg)
{
    MU_CHECK(mu_loop_here(d->loop));
    if (d->check) {
        return MU_E_BUSY;
    }
    struct mu_ns_check *c = mu_calloc(1, sizeof *c);
    if (!c) {
        return -ENOMEM;
    }
    struct stat st;
    c->d = d;
    c->done = done;
    c->arg = arg;
    c->rungs[c->n_rungs++] = geteuid() == 0 ? MU_RUNG_ROOT : MU_RUNG_OWN;
    /* One that is installed set-uid root is not what we want to depend on. */
    if (geteuid() != 0 && stat("/usr/bin/bwrap", &st) == 0 && !(st.st_mode & S_ISUID)) {
        c->rungs[c->n_rungs++] = MU_RUNG_BWRAP;
    }
    c->rungs[c->n_rungs++] = MU_RUNG_LANDLOCK;
    mu_buf_init(&c->log, LOG_MAX);
    c->post.fn = begin;
    d->check = c;
    mu_loop_post(d->loop, &c->post);
    return 0;
}
