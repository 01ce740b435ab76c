#include "exec/sandbox/limits_int.h"

#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

enum { NICE = 5, LAST_CAPABILITY = 63 };

#ifdef __GLIBC__
typedef __rlimit_resource_t resource;
#else
typedef int resource;
#endif

static int limit(resource what, uint64_t soft, uint64_t hard, struct mu_failure *f)
{
    struct rlimit now;
    if (getrlimit(what, &now) < 0) {
        return mu_fail(f, "limits", "getrlimit");
    }
    /* Never above what the worker itself may have: raising is not ours to do. */
    now.rlim_max = MU_MIN(now.rlim_max, (rlim_t)hard);
    now.rlim_cur = MU_MIN(now.rlim_max, (rlim_t)soft);
    return setrlimit(what, &now) < 0 ? mu_fail(f, "limits", "setrlimit") : 0;
}

int mu_limits_apply(const struct mu_box *box, struct mu_failure *f)
{
    uint64_t pids = box->pids > 0 ? (uint64_t)box->pids : RLIM_INFINITY;
    uint64_t file = box->disk_bytes > 0 ? (uint64_t)box->disk_bytes / 2 : RLIM_INFINITY;
    /* CORE 1 and not 0: 0 does not keep a crash from the host's piped core handler, which runs
     * outside on data of the sandbox; at 1 the kernel gives up. */
    if (limit(RLIMIT_CORE, 1, 1, f) < 0 || limit(RLIMIT_NOFILE, 1024, 16384, f) < 0 ||
        limit(RLIMIT_NPROC, pids, pids, f) < 0 || limit(RLIMIT_MEMLOCK, 1 << 20, 1 << 20, f) < 0 ||
        limit(RLIMIT_SIGPENDING, 256, 256, f) < 0 ||
        limit(RLIMIT_MSGQUEUE, 800 << 10, 800 << 10, f) < 0 ||
        limit(RLIMIT_FSIZE, file, file, f) < 0 || limit(RLIMIT_RTPRIO, 0, 0, f) < 0) {
        return -1;
    }
    struct sched_param none = {0};
    /* Manners, no locks: where they are refused nothing is lost. */
    int r MU_UNUSED = setpriority(PRIO_PROCESS, 0, NICE);
    r = sched_setscheduler(0, SCHED_BATCH, &none);
    return 0;
}

static void drop_bounding(uint64_t keep)
{
    for (unsigned long cap = 0; cap <= LAST_CAPABILITY; cap++) {
        if (!(keep >> cap & 1) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0 && errno == EINVAL) {
            break; /* this kernel knows no more */
        }
    }
}

int mu_limits_capabilities(bool fake_root, struct mu_failure *f)
{
    const uint64_t root = 1ULL << CAP_CHOWN | 1ULL << CAP_DAC_OVERRIDE | 1ULL << CAP_FOWNER |
                          1ULL << CAP_FSETID | 1ULL << CAP_SETUID | 1ULL << CAP_SETGID |
                          1ULL << CAP_SETFCAP;
    uint64_t keep = fake_root ? root : 0;
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{(uint32_t)keep, (uint32_t)keep, 0},
                                             {(uint32_t)(keep >> 32), (uint32_t)(keep >> 32), 0}};
    drop_bounding(keep);
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 && errno != EINVAL) {
        return mu_fail(f, "capabilities", "ambient");
    }
    if (syscall(SYS_capset, &head, data) < 0) {
        return mu_fail(f, "capabilities", "capset");
    }
    return 0;
}
