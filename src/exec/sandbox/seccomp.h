/* The system call filter (sandbox.md 5): a deny list with a ceiling, made by a generator of our
 * own. Pure: builds a program, installs nothing. Part of the static program. */
#ifndef MU_EXEC_SANDBOX_SECCOMP_H
#define MU_EXEC_SANDBOX_SECCOMP_H

#include <linux/filter.h>

#include "base/base.h"

enum {
    MU_SECCOMP_X86_64 = (int)0xc000003e, /* AUDIT_ARCH_X86_64 */
    MU_SECCOMP_AARCH64 = (int)0xc00000b7,
    MU_SECCOMP_CEILING = 469, /* the newest reviewed call: file_setattr of Linux 6.17 */
    MU_SECCOMP_MAX = 512,     /* instructions */
};
#if defined(__x86_64__)
#define MU_SECCOMP_HERE MU_SECCOMP_X86_64
#elif defined(__aarch64__)
#define MU_SECCOMP_HERE MU_SECCOMP_AARCH64
#else
#error "no system call table for this architecture"
#endif

struct mu_seccomp_rules {
    int arch;       /* 0 = this machine's */
    int ceiling;    /* 0 = MU_SECCOMP_CEILING; tests lower it */
    bool nested;    /* namespaces and mounts are allowed */
    bool fake_root; /* packages may set the set-uid bit */
    bool one_id;    /* with fake_root: the chown and setuid families succeed without effect */
    bool only_unix; /* no sockets but unix ones (there is no network namespace) */
};

struct mu_seccomp_program {
    struct sock_filter code[MU_SECCOMP_MAX];
    unsigned short len;
};

void mu_seccomp_build(const struct mu_seccomp_rules *rules, struct mu_seccomp_program *ret);
/* How many calls are refused whatever their arguments are. */
unsigned mu_seccomp_refused(const struct mu_seccomp_rules *rules);

#endif
