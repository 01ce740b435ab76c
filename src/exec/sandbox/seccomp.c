#include "exec/sandbox/seccomp.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <sys/socket.h>

/* What the table's classes mean. */
enum call_class {
    PERM,       /* EPERM */
    NOSYS,      /* ENOSYS: programs probe for it and fall back */
    NEST_PERM,  /* EPERM unless nested */
    NEST_NOSYS, /* ENOSYS unless nested */
    MODE_NOSYS, /* ENOSYS where the set-uid bit is refused */
    FAKE,       /* success without effect in the fake root of one id, else allowed */
    ARGS,       /* judge_args() */
};
enum call {
#define MU_CALL(name, x86_64, aarch64, class_) CALL_##name,
#include "exec/sandbox/seccomp.def"
#undef MU_CALL
};
static const struct {
    short x86_64, aarch64;
    unsigned char call_class;
} calls[] = {
#define MU_CALL(name, x86_64, aarch64, class_) {x86_64, aarch64, class_},
#include "exec/sandbox/seccomp.def"
#undef MU_CALL
};

enum {
    NR_OFFSET = 0,
    ARCH_OFFSET = 4,
    ARGS_OFFSET = 16,
    X32_BIT = 0x40000000,
    NEW_FLAGS = 0x7e020000, /* every CLONE_NEW* that clone() can take */
    NEW_TIME = 0x80,
    SET_ID_BITS = 06000,
    TMPFILE_BIT = 020000000,
    NO_RANDOMIZE = 0x0040000,
    TIOCSTI_ = 0x5412,
    TIOCLINUX_ = 0x541c,
    TIOCCONS_ = 0x541d,
    TIOCSETD_ = 0x5423,
    AF_NETLINK_ = 16,
};

static int number_of(int arch, size_t call)
{
    return arch == MU_SECCOMP_X86_64 ? calls[call].x86_64 : calls[call].aarch64;
}

/* The errno of a call that is refused whatever its arguments are; 0 = success without effect; -1 =
 * not refused. */
static int fixed_errno(const struct mu_seccomp_rules *r, size_t call)
{
    switch ((enum call_class)calls[call].call_class) {
    case PERM:
        return EPERM;
    case NOSYS:
        return ENOSYS;
    case NEST_PERM:
        return r->nested ? -1 : EPERM;
    case NEST_NOSYS:
        return r->nested ? -1 : ENOSYS;
    case MODE_NOSYS:
        return r->nested || r->fake_root ? -1 : ENOSYS;
    case FAKE:
        return r->fake_root && r->one_id ? 0 : -1;
    case ARGS:
        break;
    }
    return -1;
}

/* --- emitting --- */

static void put(struct mu_seccomp_program *p, unsigned code, uint32_t k, unsigned jt, unsigned jf)
{
    MU_CHECK(p->len < MU_SECCOMP_MAX && jt < 256 && jf < 256);
    p->code[p->len++] = (struct sock_filter){(uint16_t)code, (uint8_t)jt, (uint8_t)jf, k};
}

static void load(struct mu_seccomp_program *p, unsigned offset)
{
    put(p, BPF_LD | BPF_W | BPF_ABS, offset, 0, 0);
}

/* The low word: the kernel looks at no more of it either, and comparing 64 bits was the hole of
 * CVE-2019-7303. */
static void load_arg(struct mu_seccomp_program *p, unsigned n)
{
    load(p, ARGS_OFFSET + n * 8);
}

static void ret(struct mu_seccomp_program *p, uint32_t action)
{
    put(p, BPF_RET | BPF_K, action, 0, 0);
}

static void refuse(struct mu_seccomp_program *p, int why)
{
    ret(p, SECCOMP_RET_ERRNO | (uint32_t)why);
}

static void allow(struct mu_seccomp_program *p)
{
    ret(p, SECCOMP_RET_ALLOW);
}

/* The next `n` instructions are for the case that A == k (has one of the bits k). */
static void if_equal(struct mu_seccomp_program *p, uint32_t k, unsigned n)
{
    put(p, BPF_JMP | BPF_JEQ | BPF_K, k, 0, n);
}

static void if_bits(struct mu_seccomp_program *p, uint32_t k, unsigned n)
{
    put(p, BPF_JMP | BPF_JSET | BPF_K, k, 0, n);
}

static void allow_if_equal(struct mu_seccomp_program *p, uint32_t k)
{
    if_equal(p, k, 1);
    allow(p);
}

static void refuse_if_bits(struct mu_seccomp_program *p, uint32_t k, int why)
{
    if_bits(p, k, 1);
    refuse(p, why);
}

/* --- calls judged by an argument; every path of a judge returns, for A is no longer the number ---
 */

static void judge_socket(const struct mu_seccomp_rules *r, struct mu_seccomp_program *p)
{
    load_arg(p, 0);
    allow_if_equal(p, AF_UNIX);
    if (r->only_unix) {
        refuse(p, EAFNOSUPPORT);
        return;
    }
    if_equal(p, AF_NETLINK_, 4);
    load_arg(p, 2);
    allow_if_equal(p, 0);
    refuse(p, EPROTONOSUPPORT);
    put(p, BPF_JMP | BPF_JEQ | BPF_K, AF_INET, 2, 0);
    put(p, BPF_JMP | BPF_JEQ | BPF_K, AF_INET6, 1, 0);
    refuse(p, EAFNOSUPPORT);
    load_arg(p, 2);
    allow_if_equal(p, 0);
    allow_if_equal(p, 6);
    allow_if_equal(p, 17);
    refuse(p, EPROTONOSUPPORT);
}

static void judge_ioctl(struct mu_seccomp_program *p)
{
    static const uint32_t refused[] = {TIOCSTI_, TIOCLINUX_, TIOCSETD_, TIOCCONS_};
    load_arg(p, 1);
    for (size_t i = 0; i < MU_ARRAY_LEN(refused); i++) {
        if_equal(p, refused[i], 1);
        refuse(p, EPERM);
    }
    allow(p);
}

static void judge_bits(struct mu_seccomp_program *p, unsigned arg, uint32_t bits)
{
    load_arg(p, arg);
    refuse_if_bits(p, bits, EPERM);
    allow(p);
}

/* The mode counts only when the call may create something. */
static void judge_open(struct mu_seccomp_program *p, unsigned flags_arg)
{
    load_arg(p, flags_arg);
    put(p, BPF_JMP | BPF_JSET | BPF_K, O_CREAT | TMPFILE_BIT, 1, 0);
    allow(p);
    judge_bits(p, flags_arg + 1, SET_ID_BITS);
}

static void judge_personality(struct mu_seccomp_program *p)
{
    load_arg(p, 0);
    allow_if_equal(p, 0);
    allow_if_equal(p, 0xffffffff);
    allow_if_equal(p, NO_RANDOMIZE);
    refuse(p, EPERM);
}

/* False: nothing to judge under these rules. */
static bool judge_args(const struct mu_seccomp_rules *r, size_t call, struct mu_seccomp_program *p)
{
    switch ((enum call)call) {
    case CALL_socket:
        judge_socket(r, p);
        return true;
    case CALL_socketpair:
        load_arg(p, 0);
        allow_if_equal(p, AF_UNIX);
        refuse(p, EAFNOSUPPORT);
        return true;
    case CALL_ioctl:
        judge_ioctl(p);
        return true;
    case CALL_personality:
        judge_personality(p);
        return true;
    case CALL_clone:
    case CALL_unshare:
        if (r->nested) {
            return false;
        }
        judge_bits(p, 0, call == CALL_unshare ? NEW_FLAGS | NEW_TIME : NEW_FLAGS);
        return true;
    default:
        break;
    }
    if (r->fake_root || r->nested) {
        return false;
    }
    switch ((enum call)call) {
    case CALL_chmod:
    case CALL_fchmod:
    case CALL_creat:
    case CALL_mknod:
        judge_bits(p, 1, SET_ID_BITS);
        return true;
    case CALL_fchmodat:
    case CALL_fchmodat2:
    case CALL_mknodat:
        judge_bits(p, 2, SET_ID_BITS);
        return true;
    case CALL_open:
        judge_open(p, 1);
        return true;
    case CALL_openat:
        judge_open(p, 2);
        return true;
    default:
        return false;
    }
}

static void add_call(const struct mu_seccomp_rules *r, int arch, size_t call,
                     struct mu_seccomp_program *p)
{
    int nr = number_of(arch, call);
    int why = fixed_errno(r, call);
    if (nr < 0) {
        return;
    }
    unsigned short at = p->len;
    if_equal(p, (uint32_t)nr, 1);
    if (why >= 0) {
        refuse(p, why);
    } else if (!judge_args(r, call, p)) {
        p->len = at;
        return;
    }
    p->code[at].jf = (uint8_t)(p->len - at - 1);
}

void mu_seccomp_build(const struct mu_seccomp_rules *rules, struct mu_seccomp_program *ret_program)
{
    struct mu_seccomp_program *p = ret_program;
    int arch = rules->arch ? rules->arch : MU_SECCOMP_HERE;
    int ceiling = rules->ceiling ? rules->ceiling : MU_SECCOMP_CEILING;
    p->len = 0;
    load(p, ARCH_OFFSET);
    put(p, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)arch, 1, 0);
    ret(p, SECCOMP_RET_KILL_PROCESS);
    load(p, NR_OFFSET);
    /* -1 is how a tracer skips a call; it has the x32 bit too. */
    if_equal(p, 0xffffffff, 1);
    refuse(p, ENOSYS);
    if (arch == MU_SECCOMP_X86_64) {
        if_bits(p, X32_BIT, 1);
        ret(p, SECCOMP_RET_KILL_PROCESS);
    }
    put(p, BPF_JMP | BPF_JGT | BPF_K, (uint32_t)ceiling, 0, 1);
    refuse(p, ENOSYS);
    for (size_t i = 0; i < MU_ARRAY_LEN(calls); i++) {
        add_call(rules, arch, i, p);
    }
    allow(p);
}

unsigned mu_seccomp_refused(const struct mu_seccomp_rules *rules)
{
    unsigned n = 0;
    int arch = rules->arch ? rules->arch : MU_SECCOMP_HERE;
    for (size_t i = 0; i < MU_ARRAY_LEN(calls); i++) {
        n += number_of(arch, i) >= 0 && fixed_errno(rules, i) > 0;
    }
    return n;
}
